//! Starts a node. Takes the node's files, returns the running owner (the task that holds the node's state) and feed
//! (the thread that watches the files), or every error at once. Called by the command line for `serve` and `check`.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bailiwick_host::locate::geoip::{Places, Registered};
use bailiwick_host::system::clock::Clock;
use bailiwick_rules::table::Succession;
use bailiwick_rules::time::Timestamp;

use crate::protocol::name::Name;
use crate::state::load::Shrink;
use crate::state::load::{Fault, Sources};
use crate::state::owner::{self, Faults, FileKind, Handle, InitialState, Offer, SourceStatus, Status};
use crate::state::probe::{NetworkProber, Prober, Secrets};
use crate::state::snapshot::{RejectedZone, Rules, World, ZoneSource};
use crate::state::store::{Kind, Store};
use crate::state::watch::{self, Feed, Parts, Reading, SourcePart};
use crate::zone::{Zone, ZoneError, file};

/// A node whose state is in service.
#[derive(Debug)]
pub(crate) struct StartedState {
    /// Reads and changes the node's state.
    pub handle: Handle,
    /// Watches the node's files.
    pub feed: Feed,
}

/// Loads all files, waits for the first round of probes, and watches the files from then on.
///
/// If a file can't be used, its last good version is used instead. A zone that has no usable version, or lacks the keys
/// to sign it, isn't served; the other zones are.
///
/// # Errors
/// Everything that is wrong, if there is no usable version of the rules, of the GeoIP database, or of any zone.
pub(crate) async fn start(sources: Sources, secrets: Secrets, clock: Clock) -> Result<StartedState, Vec<Fault>> {
    let prober = NetworkProber::new(secrets, &sources.directory);
    let prober = prober.map_err(|message| vec![Fault { place: String::new(), message }])?;
    start_with(sources, prober, clock).await
}

/// Like [`start`], but with any prober.
///
/// # Errors
/// As [`start`].
pub(crate) async fn start_with<P: Prober>(
    sources: Sources,
    prober: P,
    clock: Clock,
) -> Result<StartedState, Vec<Fault>> {
    let now = clock.now();
    let to_load = sources.clone();
    let loading = tokio::task::spawn_blocking(move || {
        let loaded = load(&to_load, now);
        loaded.beginning(&to_load, now)
    });
    let FirstState { mut beginning, parts, geoip } =
        loading.await.unwrap_or_else(|panic| Err(vec![internal(&panic)]))?;
    beginning.node.clone_from(&sources.node);
    let handle = owner::spawn(beginning, prober, clock).await;
    if let Some(bytes) = geoip {
        handle.keep(Kind::Geoip, Box::new(move |store| store.keep_geoip(&bytes)));
    }
    let feed = Feed::start(sources, parts, handle.clone()).map_err(|error| {
        vec![Fault { place: String::new(), message: format!("the system gives no thread: {error}") }]
    })?;
    Ok(StartedState { handle, feed })
}

/// Checks the files that are configured, and ignores last good versions. Returns warnings.
///
/// # Errors
/// Everything that is wrong with the files.
pub(crate) fn check(sources: &Sources, now: Timestamp) -> Result<Vec<String>, Vec<Fault>> {
    let configured = Sources { state_dir: None, ..sources.clone() };
    let loaded = load(&configured, now);
    if !loaded.faults.is_empty() {
        return Err(loaded.all_faults());
    }
    let begun = loaded.beginning(&configured, now)?;
    let rejected: Vec<Fault> = begun.beginning.rejected.into_values().flatten().map(whole).collect();
    if rejected.is_empty() { Ok(begun.beginning.status.warnings.to_vec()) } else { Err(rejected) }
}

fn whole(message: String) -> Fault {
    Fault { place: String::new(), message }
}

/// Everything that was read.
struct Loaded {
    parts: Parts,
    places: Option<Arc<Places>>,
    /// The bytes of the GeoIP database that was read, to be written to the state directory.
    geoip: Option<Vec<u8>>,
    configured: Option<Arc<Rules>>,
    store: Option<Store>,
    /// The zones last in service, from the state directory.
    kept_zones: Vec<ZoneSource>,
    /// Everything that is wrong with the files, except the rules.
    faults: Vec<Fault>,
    rules_faults: Vec<Fault>,
    geoip_faults: Faults,
}

/// The state that a node begins with, and the state of its files.
struct FirstState {
    beginning: InitialState,
    parts: Parts,
    geoip: Option<Vec<u8>>,
}

/// Reads everything a node needs to begin.
fn load(sources: &Sources, now: Timestamp) -> Loaded {
    let (mut faults, shrink) = (Vec::new(), sources.shrink);
    let mut store_faults = Vec::new();
    let store = open_store(sources).map_err(|fault| store_faults.push(fault)).ok().flatten();
    let mut kept_zones = Vec::new();
    let zones = sources.zones.iter().map(|(origin, path)| {
        let stored = store.as_ref().and_then(|store| kept_zone(store, origin));
        let reading = watch::read_zone(origin, path);
        let part = zone_part(&reading, stored.as_ref(), sources);
        faults.extend(reading.outcome.err().into_iter().flat_map(|unusable| unusable.faults));
        kept_zones.extend(stored);
        (origin.clone(), part)
    });
    let zones = zones.collect();
    let keys = sources.dnssec.iter().map(|zone| {
        let reading = watch::read_zone_keys(zone, now);
        let good = reading.outcome.as_ref().ok().cloned();
        let part = SourcePart::new(&reading, good.is_some(), good, shrink);
        faults.extend(reading.outcome.err().into_iter().flat_map(|unusable| unusable.faults));
        (zone.clone(), part)
    });
    let keys = keys.collect();
    let read = sources.geoip.as_deref().map(|path| watch::read_geoip(path, sources.registered));
    let geoip_part = read.as_ref().map(|reading| SourcePart::new(reading, is_done(reading), None, shrink));
    let mut geoip_faults = Faults::new();
    let (places, geoip) = match read.map(|reading| reading.outcome) {
        None => (Some(Arc::new(Places::none())), None),
        Some(Ok((places, bytes))) => (Some(places), Some(bytes)),
        Some(Err(unusable)) => {
            geoip_faults.insert(String::new(), unusable.faults.iter().map(Fault::to_string).collect());
            faults.extend(unusable.faults);
            (store.as_ref().and_then(|store| kept_places(store, sources.registered)), None)
        }
    };
    faults.extend(store_faults);
    let rules = watch::read_rules(&sources.rules);
    let parts = Parts { rules: SourcePart::new(&rules, is_done(&rules), None, shrink), zones, keys, geoip: geoip_part };
    let (configured, rules_faults) = match rules.outcome {
        Ok(rules) => (Some(rules), Vec::new()),
        Err(unusable) => (None, unusable.faults),
    };
    Loaded { parts, places, geoip, configured, store, kept_zones, faults, rules_faults, geoip_faults }
}

/// Whether the feed needn't read the file again before it changes. A file that couldn't be read is tried again.
fn is_done<T>(reading: &Reading<T>) -> bool {
    reading.outcome.as_ref().map_or_else(|unusable| !unusable.may_pass, |_| true)
}

/// The version of a zone to begin with. This is the file, or the last good version if the file can't be used or lost
/// much. The feed compares later versions with it.
fn zone_part(reading: &Reading<ZoneSource>, stored: Option<&ZoneSource>, sources: &Sources) -> SourcePart<ZoneSource> {
    let is_held = |zone: &ZoneSource| {
        sources.shrink == Shrink::Hold && stored.is_some_and(|stored| watch::is_shrunk(stored, zone))
    };
    match &reading.outcome {
        Ok(zone) if is_held(zone) => SourcePart::new(reading, false, stored.cloned(), sources.shrink),
        Ok(zone) => SourcePart::new(reading, true, Some(zone.clone()), sources.shrink),
        Err(_) => SourcePart::new(reading, is_done(reading), stored.cloned(), sources.shrink),
    }
}

/// Opens the directory in which the node keeps what was last good.
fn open_store(sources: &Sources) -> Result<Option<Store>, Fault> {
    let Some(directory) = sources.state_dir.as_deref() else { return Ok(None) };
    let opened = match &sources.lock {
        Some(lock) => Store::open_locked(directory, Arc::clone(lock)),
        None => Store::open(directory),
    };
    let store = opened.map_err(|error| {
        let message = format!("can't be made ({error}); mend state_dir in the configuration or the mode of its parent");
        Fault::of_file(directory, message)
    })?;
    if !store.is_exclusive() {
        let directory = directory.display();
        tracing::warn!(
            "{directory}: another process seems to use this state_dir, and each undoes what the other keeps; give each \
             node its own"
        );
    }
    Ok(Some(store))
}

impl Loaded {
    fn all_faults(self) -> Vec<Fault> {
        self.faults.into_iter().chain(self.rules_faults).collect()
    }

    /// Compiles what was read. If the rules don't fit the zones, the last good rules are tried; then zones that don't
    /// fit are replaced by their last good versions.
    fn beginning(mut self, sources: &Sources, now: Timestamp) -> Result<FirstState, Vec<Fault>> {
        let zones = self.parts.zone_sources();
        let are_any = zones.is_empty() || zones.iter().any(|zone| !zone.is_missing());
        let is_store_fine = self.store.is_some() == sources.state_dir.is_some();
        let last_good = self.store.as_ref().and_then(last_good);
        let (candidates, note) = in_order(self.configured.clone(), last_good);
        let Some(places) = self.places.clone().filter(|_| are_any && is_store_fine) else {
            return Err(self.all_faults());
        };
        let mut refused: Option<Vec<Fault>> = None;
        for candidate in &candidates {
            let built = build(&candidate.rules, &zones, &self.parts, &places, now);
            match built {
                Ok(world) => return Ok(self.begun(world, candidate, refused, note, &[], now)),
                // If both documents fail, the errors of the configured document are reported.
                Err(refusals) if refused.is_none() || !candidate.is_last_good => {
                    refused = Some(refusals.into_iter().map(Fault::from).collect());
                }
                Err(_) => {}
            }
        }
        // No document fits all zones, so the first document that fits some zones is used with those.
        for candidate in &candidates {
            let rejected = World::rejected(&candidate.rules, &zones, &self.parts.zone_keys());
            let fitting = self.fitting(&zones, &rejected, &candidate.rules);
            let are_any = fitting.iter().any(|zone| !zone.is_missing());
            if are_any && let Ok(world) = build(&candidate.rules, &fitting, &self.parts, &places, now) {
                return Ok(self.begun(world, candidate, None, note, &rejected, now));
            }
        }
        self.faults.append(&mut self.rules_faults);
        self.faults.extend(refused.unwrap_or_else(|| zone_faults(&zones)));
        Err(self.faults)
    }

    /// The zones. Each rejected zone is replaced by its last good version, if that fits the rules.
    fn fitting(&self, zones: &[ZoneSource], rejected: &[RejectedZone], rules: &Rules) -> Arc<[ZoneSource]> {
        let keys = self.parts.zone_keys();
        let fits = |zone: &&ZoneSource| World::rejected(rules, std::slice::from_ref(*zone), &keys).is_empty();
        let stored =
            |origin: &Name| self.kept_zones.iter().find(|stored| stored.origin == *origin).filter(fits).cloned();
        let fitting = zones.iter().map(|zone| match rejected.iter().any(|(origin, _)| *origin == zone.origin) {
            true => stored(&zone.origin).unwrap_or_else(|| ZoneSource::missing(zone.origin.clone())),
            false => zone.clone(),
        });
        fitting.collect()
    }

    /// The state that the node starts with. `refused` says why a newer candidate was refused, `note` adds a reason to
    /// warn.
    fn begun(
        self,
        world: World,
        candidate: &Candidate,
        refused: Option<Vec<Fault>>,
        note: Option<String>,
        rejected: &[RejectedZone],
        now: Timestamp,
    ) -> FirstState {
        let why = Some(self.rules_faults).filter(|faults| !faults.is_empty()).or(refused);
        let why = why.map(|faults| faults.iter().map(Fault::to_string).collect::<Vec<_>>());
        let alarm = why.or(note.map(|note| vec![note])).filter(|_| candidate.is_last_good);
        let rules = alarm.map(|errors| Faults::from([(String::new(), errors)])).unwrap_or_default();
        let faults = BTreeMap::from([
            (FileKind::Rules, rules),
            (FileKind::Zones, self.parts.zone_faults()),
            (FileKind::Keys, self.parts.key_faults()),
            (FileKind::Geoip, self.geoip_faults),
        ]);
        let mut set_aside = Vec::new();
        if let Some(rules) =
            self.configured.filter(|rules| candidate.is_last_good && !Arc::ptr_eq(rules, &candidate.rules))
        {
            set_aside.push(Offer::Rules(rules));
        }
        if !rejected.is_empty() {
            set_aside.push(Offer::Zones(self.parts.zone_sources()));
        }
        let beginning =
            InitialState { set_aside, ..beginning(world, self.store, faults, owner::faults_of(rejected), now) };
        FirstState { beginning, parts: self.parts, geoip: self.geoip }
    }
}

/// Compiles the first world from these parts.
fn build(
    rules: &Arc<Rules>,
    zones: &Arc<[ZoneSource]>,
    parts: &Parts,
    places: &Arc<Places>,
    now: Timestamp,
) -> Result<World, Vec<ZoneError>> {
    World::build(Arc::clone(rules), Arc::clone(zones), parts.zone_keys(), Arc::clone(places), now, None)
}

/// The errors of the zones when each is compiled without rules.
fn zone_faults(zones: &[ZoneSource]) -> Vec<Fault> {
    let there = zones.iter().filter(|zone| !zone.is_missing());
    let errors = there.filter_map(|zone| Zone::compile(&zone.origin, &zone.records, &[]).err());
    errors.flatten().map(Fault::from).collect()
}

/// The initial state of the owner, with the counts and faults of each source. Logs the faults.
fn beginning(
    world: World,
    store: Option<Store>,
    faults: BTreeMap<FileKind, Faults>,
    rejected: Faults,
    now: Timestamp,
) -> InitialState {
    let status_of = |source: FileKind| {
        let refused = faults.get(&source).map_or(0, Faults::len) as u64;
        SourceStatus { accepted: 1, accepted_at: Some(now), refused, ..SourceStatus::default() }
    };
    let mut status = Status {
        rules: status_of(FileKind::Rules),
        zones: status_of(FileKind::Zones),
        keys: status_of(FileKind::Keys),
        geoip: status_of(FileKind::Geoip),
        ..Status::default()
    };
    for (source, faults) in &faults {
        for error in faults.values().flatten() {
            tracing::error!(
                "{source}: what is configured is not in service, what was last good is, if anything: {error}"
            );
        }
    }
    for (zone, errors) in &rejected {
        tracing::error!(
            ?errors,
            "the zone {zone} doesn't fit the rules; its last good version is served, if there is any"
        );
    }
    for zone in world.zone_sources().iter().filter(|zone| zone.is_missing()) {
        tracing::error!(
            json.event = "zone_not_served", json.zone = %zone.origin,
            "the zone {} is not served: no version of it could be used, and none was kept", zone.origin
        );
    }
    let overrides = store.as_ref().map(Store::overrides).transpose().unwrap_or_else(|error| {
        let file = store.as_ref().map(Store::overrides_path).unwrap_or_default();
        tracing::error!(
            "{}: the kept overrides can't be read ({error}) and are left aside; set them again",
            file.display()
        );
        None
    });
    let fleet_overrides = store.as_ref().map(Store::fleet_overrides).transpose().unwrap_or_else(|error| {
        tracing::error!("the kept overrides of the fleet can't be read ({error}); the other nodes tell them again");
        None
    });
    let agreed = store.as_ref().map(Store::agreed).transpose().unwrap_or_else(|error| {
        tracing::error!("what the voters agreed on can't be read ({error}); the other nodes tell it again");
        None
    });
    status.warnings = owner::warnings_of(&world, now);
    InitialState {
        node: String::new(),
        world,
        status,
        store,
        overrides: overrides.unwrap_or_default(),
        fleet_overrides: fleet_overrides.unwrap_or_default(),
        agreed: agreed.unwrap_or_default(),
        faults,
        rejected,
        set_aside: Vec::new(),
    }
}

/// The version of a zone that was last in service, if it is still usable.
fn kept_zone(store: &Store, origin: &Name) -> Option<ZoneSource> {
    let path = store.zone_path(origin);
    let aside = |why: &dyn std::fmt::Display| tracing::warn!("{}: a kept zone is left aside: {why}", path.display());
    let text = store.zone(origin).map_err(|error| aside(&error)).ok()??;
    let none = &mut |_: &Path| Err("a kept zone includes no files".to_owned());
    match file::parse(&text, &path.display().to_string(), origin, none) {
        Ok(records) => Some(ZoneSource { origin: origin.clone(), records }).filter(|zone| !zone.is_missing()),
        Err(errors) => {
            errors.iter().for_each(|error| aside(error));
            None
        }
    }
}

/// The GeoIP database last in service, if it is still usable.
fn kept_places(store: &Store, registered: Registered) -> Option<Arc<Places>> {
    let aside = |why: &dyn std::fmt::Display| tracing::warn!("the kept GeoIP database is left aside: {why}");
    let bytes = store.geoip().map_err(|error| aside(&error)).ok()??;
    Places::read_with(&bytes, registered).map(Arc::new).map_err(|error| aside(&error)).ok()
}

/// The rules last in service, if they are still usable.
fn last_good(store: &Store) -> Option<Arc<Rules>> {
    let path = store.rules_path();
    let aside = |faults: Vec<Fault>| {
        for fault in faults {
            tracing::warn!("the last-good rules are left aside: {fault}");
        }
    };
    let bytes = store.rules().map_err(|error| aside(vec![Fault::of_file(&path, error.to_string())])).ok()??;
    crate::state::load::compile_rules(bytes, &path.display().to_string()).map_err(aside).ok()
}

/// A document that may be used at the start.
struct Candidate {
    rules: Arc<Rules>,
    is_last_good: bool,
}

/// The documents that may be used at the start, the preferred one first. Also why the configured document isn't
/// preferred, if so.
fn in_order(configured: Option<Arc<Rules>>, last_good: Option<Arc<Rules>>) -> (Vec<Candidate>, Option<String>) {
    let configured = configured.map(|rules| Candidate { rules, is_last_good: false });
    let last_good = last_good.map(|rules| Candidate { rules, is_last_good: true });
    match (configured, last_good) {
        (Some(configured), Some(last_good)) => {
            let (old, new) = (last_good.rules.table.revision(), configured.rules.table.revision());
            match old.succession(&new) {
                Succession::Newer => (vec![configured, last_good], None),
                Succession::Same => (vec![configured], None),
                Succession::Older => (vec![last_good, configured], Some(owner::older(&old, &new))),
                Succession::Conflict => (vec![last_good, configured], Some(owner::conflicting(&old, &new))),
            }
        }
        (configured, last_good) => (configured.into_iter().chain(last_good).collect(), None),
    }
}

fn internal(panic: &tokio::task::JoinError) -> Fault {
    Fault {
        place: String::new(),
        message: format!("loading failed by a fault of this program ({panic}); please report it"),
    }
}
