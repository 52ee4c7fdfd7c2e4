//! The start of a node: its files enter, a running owner and feed leave, or every error at once; the command line calls it for `serve` and
//! `check`.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use bailiwick_rules::table::Succession;
use bailiwick_rules::time::Timestamp;

use crate::clock::Clock;
use crate::dnssec::directory::read_keys;
use crate::feed::{Feed, Known};
use crate::owner::{self, Beginning, Failure, Handle, SourceStatus, Status};
use crate::probe::{NetworkProber, Prober, Secrets};
use crate::snapshot::{Rules, World};
use crate::sources::{Fault, Sources, read_geoip, read_rules, read_zones};
use crate::store::Store;

/// A node whose state is in service.
#[derive(Debug)]
pub struct Started {
    /// The way to its state.
    pub handle: Handle,
    /// What watches its files.
    pub feed: Feed,
}

/// Loads everything, awaits the first round of probes, and watches the files from then on.
///
/// # Errors
/// Everything that keeps the node from serving: a broken zone or GeoIP database, and rules of which no valid version is to be had.
pub async fn start(sources: Sources, secrets: Secrets, clock: Clock) -> Result<Started, Vec<Fault>> {
    let prober = NetworkProber::new(secrets).map_err(|message| vec![Fault { place: String::new(), message }])?;
    start_with(sources, prober, clock).await
}

/// [`start`] with another way to probe.
///
/// # Errors
/// As [`start`].
pub async fn start_with<P: Prober>(sources: Sources, prober: P, clock: Clock) -> Result<Started, Vec<Fault>> {
    let now = clock.now();
    let to_load = sources.clone();
    let loading = tokio::task::spawn_blocking(move || {
        let known = Known::before_reading(&to_load);
        load(&to_load, now).map(|beginning| (beginning, known))
    });
    let (beginning, known) = loading.await.unwrap_or_else(|panic| Err(vec![internal(&panic)]))?;
    let handle = owner::spawn(beginning, prober, clock).await;
    let feed = Feed::start(sources, known, handle.clone());
    Ok(Started { handle, feed })
}

/// Validates the files as they are configured, last-good rules left aside; what is returned is worth a warning.
///
/// # Errors
/// Everything wrong with them.
pub fn check(sources: &Sources, now: Timestamp) -> Result<Vec<String>, Vec<Fault>> {
    let configured = Sources { state_dir: None, ..sources.clone() };
    let beginning = load(&configured, now)?;
    Ok(beginning.status.warnings.to_vec())
}

/// Reads and compiles everything a node needs to begin.
fn load(sources: &Sources, now: Timestamp) -> Result<Beginning, Vec<Fault>> {
    let mut faults = Vec::new();
    let mut keep = |errors: Vec<Fault>| faults.extend(errors);
    let zones = read_zones(&sources.zones, &mut |_| ()).map_err(&mut keep).ok();
    let keys = read_keys(&sources.dnssec, now, &mut |_| ()).map_err(&mut keep).ok();
    let places = read_geoip(sources.geoip.as_deref(), sources.registered).map_err(&mut keep).ok();
    let store = sources.state_dir.as_deref().map(|directory| {
        Store::open(directory).map_err(|error| {
            let message =
                format!("can't be made ({error}); mend state_dir in the configuration or the mode of its parent");
            vec![Fault::of_file(directory, message)]
        })
    });
    let store = store.transpose().map_err(&mut keep).ok().flatten();
    if let (Some(directory), Some(false)) = (&sources.state_dir, store.as_ref().map(Store::is_ours_alone)) {
        let directory = directory.display();
        tracing::warn!(
            "{directory}: another process seems to use this state_dir, and each undoes what the other keeps; give each node its own"
        );
    }
    let configured = read_rules(&sources.rules);
    let kept = store.as_ref().and_then(last_good);

    let (Some(zones), Some(keys), Some(places)) = (zones, keys, places) else {
        faults.extend(configured.err().unwrap_or_default());
        return Err(faults);
    };
    let valid = configured.as_ref().ok().map(Arc::clone);
    let (candidates, note) = in_order(valid, kept);
    let mut refused: Option<Vec<Fault>> = None;
    for candidate in candidates {
        let (rules, zones, keys, places) =
            (Arc::clone(&candidate.rules), Arc::clone(&zones), Arc::clone(&keys), Arc::clone(&places));
        match World::build(rules, zones, keys, places, now, None) {
            Ok(_) if !faults.is_empty() => return Err(faults),
            Ok(world) => {
                let why = configured.err().or(refused).map(|faults| faults.iter().map(Fault::to_string).collect());
                let alarm = why.or(note.map(|note| vec![note])).filter(|_| candidate.is_last_good);
                return Ok(beginning(world, store, alarm, now));
            }
            // Told are those of the configured document, if they are to be had.
            Err(refusals) if refused.is_none() || !candidate.is_last_good => {
                refused = Some(refusals.into_iter().map(Fault::from).collect());
            }
            Err(_) => {}
        }
    }
    faults.extend(configured.err().unwrap_or_default());
    faults.extend(refused.unwrap_or_else(|| zone_faults(&zones)));
    Err(faults)
}

/// What is wrong with the zones even without steered names, where no rules are to be had to compile them with.
fn zone_faults(zones: &[crate::snapshot::ZoneSource]) -> Vec<Fault> {
    let errors = zones.iter().filter_map(|zone| crate::zone::Zone::compile(&zone.origin, &zone.records, &[]).err());
    errors.flatten().map(Fault::from).collect()
}

fn beginning(world: World, store: Option<Store>, alarm: Option<Vec<String>>, now: Timestamp) -> Beginning {
    let accepted = SourceStatus { accepted: 1, accepted_at: Some(now), ..SourceStatus::default() };
    let mut status = Status {
        rules: accepted.clone(),
        zones: accepted.clone(),
        keys: accepted.clone(),
        geoip: accepted,
        ..Status::default()
    };
    if let Some(errors) = alarm {
        tracing::error!(?errors, "the configured rules are not in service; the last good ones are");
        status.rules.refused = 1;
        status.rules.last_error = Some(Failure { at: now, errors });
    }
    let overrides = store.as_ref().map(Store::overrides).transpose().unwrap_or_else(|error| {
        let file = store.as_ref().map(Store::overrides_path).unwrap_or_default();
        tracing::error!(
            "{}: the kept overrides can't be read ({error}) and are left aside; set them again",
            file.display()
        );
        None
    });
    status.warnings = owner::warnings_of(&world, now);
    Beginning { world, status, store, overrides: overrides.unwrap_or_default() }
}

/// The rules last in service, if they are still any good.
fn last_good(store: &Store) -> Option<Arc<Rules>> {
    let path = store.rules_path();
    let aside = |faults: Vec<Fault>| {
        for fault in faults {
            tracing::warn!("the last-good rules are left aside: {fault}");
        }
    };
    let bytes = store.rules().map_err(|error| aside(vec![Fault::of_file(&path, error.to_string())])).ok()??;
    crate::sources::compile_rules(bytes, &path.display().to_string()).map_err(aside).ok()
}

/// A document that may begin.
struct Candidate {
    rules: Arc<Rules>,
    is_last_good: bool,
}

/// The documents that may begin, the better one first; and why the configured one has to stand back, if it has to.
fn in_order(configured: Option<Arc<Rules>>, kept: Option<Arc<Rules>>) -> (Vec<Candidate>, Option<String>) {
    let configured = configured.map(|rules| Candidate { rules, is_last_good: false });
    let kept = kept.map(|rules| Candidate { rules, is_last_good: true });
    match (configured, kept) {
        (Some(configured), Some(kept)) => {
            let (old, new) = (kept.rules.table.revision(), configured.rules.table.revision());
            match old.succession(&new) {
                Succession::Newer => (vec![configured, kept], None),
                Succession::Same => (vec![configured], None),
                Succession::Older => (vec![kept, configured], Some(owner::older(&old, &new))),
                Succession::Conflict => (vec![kept, configured], Some(owner::conflicting(&old, &new))),
            }
        }
        (configured, kept) => (configured.into_iter().chain(kept).collect(), None),
    }
}

fn internal(panic: &tokio::task::JoinError) -> Fault {
    Fault {
        place: String::new(),
        message: format!("loading failed by a fault of this program ({panic}); please report it"),
    }
}
