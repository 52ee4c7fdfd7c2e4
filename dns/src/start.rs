//! The start of a node: its files enter, a running owner and feed leave, or every error at once; the command line calls it for `serve` and
//! `check`.

use std::collections::BTreeMap;
use std::sync::Arc;

use bailiwick_rules::table::Succession;
use bailiwick_rules::time::Timestamp;

use crate::clock::Clock;
use crate::feed::Feed;
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
    let loaded = tokio::task::spawn_blocking(move || load(&to_load, now)).await;
    let beginning = loaded.unwrap_or_else(|panic| Err(vec![internal(&panic)]))?;
    let handle = owner::spawn(beginning, prober, clock).await;
    let feed = Feed::start(sources, handle.clone());
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
