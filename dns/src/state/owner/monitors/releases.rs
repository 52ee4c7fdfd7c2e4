//! The endpoints that are asked which model they run. Takes the releases of the rules (what should run under a model's
//! name) and the endpoints' replies, returns what each region runs, as this node sees it. Held by the monitors.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bailiwick_rules::health::ReleaseHealth;
use bailiwick_rules::release::{EndpointReading, EndpointToRead, Reading, ReleaseSource, health, sources};
use bailiwick_rules::report::ReleaseReport;
use bailiwick_rules::table::{RegionIndex, ReleaseIndex, Table};
use bailiwick_rules::time::Timestamp;

use crate::state::probe::{MonitorId, Prober, Probing, ReleaseId, ReleaseResult, Running, Tokens};
use crate::state::snapshot::{Probes, ReleaseView};

/// All sources, that is, questions to an endpoint about a release. Equal sources of several endpoints are asked once.
#[derive(Debug, Default)]
pub(super) struct Releases {
    entries: BTreeMap<ReleaseId, Entry>,
    next: u64,
}

#[derive(Debug)]
struct Entry {
    source: ReleaseSource,
    /// The monitor whose token budget pays for the questions.
    monitor: MonitorId,
    /// The last reading that is believed, and when it came. A reading that differs is believed once it came twice in a
    /// row.
    reading: Option<(Timestamp, Reading)>,
    /// What failed in the last round.
    failure: Option<Arc<str>>,
    readings: Probes,
    /// The source is asked until this is dropped.
    _running: Running,
}

/// An endpoint that is asked for one release.
#[derive(Debug, Clone, Copy)]
pub(super) struct WatchedEndpoint {
    region: RegionIndex,
    endpoint: usize,
    release: ReleaseIndex,
    id: ReleaseId,
}

impl Releases {
    /// Starts to ask every endpoint of `table` that isn't asked yet. `monitor` returns the monitor of an endpoint and
    /// its token budget.
    pub(super) fn assign<P: Prober>(
        &mut self,
        table: &Table,
        probing: &Probing<P>,
        monitor: impl Fn(RegionIndex, usize) -> Option<(MonitorId, Tokens)>,
    ) -> Vec<WatchedEndpoint> {
        let watched_endpoint = |to_read: EndpointToRead| {
            let EndpointToRead { region, endpoint, release, source } = to_read;
            let id = self.running(source, monitor(region, endpoint)?, probing);
            Some(WatchedEndpoint { region, endpoint, release, id })
        };
        sources(table).into_iter().filter_map(watched_endpoint).collect()
    }

    /// The id of the source with this content. Starts to ask it if it isn't asked yet.
    fn running<P: Prober>(
        &mut self,
        source: ReleaseSource,
        (monitor, tokens): (MonitorId, Tokens),
        probing: &Probing<P>,
    ) -> ReleaseId {
        let is_it = |entry: &Entry| entry.source == source && entry.monitor == monitor;
        if let Some((id, _)) = self.entries.iter().find(|(_, entry)| is_it(entry)) {
            return *id;
        }
        let id = ReleaseId(self.next);
        self.next += 1;
        let entry = Entry {
            monitor,
            reading: None,
            failure: None,
            readings: Probes::default(),
            _running: probing.start_asking(id, source.clone(), tokens),
            source,
        };
        self.entries.insert(id, entry);
        id
    }

    /// Stops asking every source that isn't among these.
    pub(super) fn keep_only<'a>(&mut self, endpoints: impl Iterator<Item = &'a WatchedEndpoint>) {
        let ids: BTreeSet<ReleaseId> = endpoints.map(|endpoint| endpoint.id).collect();
        self.entries.retain(|id, _| ids.contains(id));
    }

    /// Takes the result of a round, unless its source isn't asked any more. `places` has the names for the log. Returns
    /// whether a reading came, or the source began or ceased to fail.
    pub(super) fn record(
        &mut self,
        result: ReleaseResult,
        now: Timestamp,
        places: (&Table, &[WatchedEndpoint]),
    ) -> bool {
        let Some(entry) = self.entries.get_mut(&result.release) else { return false };
        let was_failing = entry.failure.is_some();
        match (&result.reading, &result.failure) {
            (Some(_), _) | (None, None) => entry.readings.passed += 1,
            (None, Some(_)) => entry.readings.failed += 1,
        }
        let has_reading = result.reading.is_some();
        let before = entry.reading.as_ref().map(|(_, reading)| reading.clone());
        if let Some(reading) = result.reading {
            entry.reading = Some((now, reading));
        }
        entry.failure = result.failure.map(Into::into);
        let place = places.1.iter().find(|endpoint| endpoint.id == result.release);
        if let Some(name) = place.and_then(|endpoint| name(places.0, *endpoint)) {
            log(&name, entry, before.as_ref().filter(|_| has_reading), was_failing);
        }
        has_reading || was_failing != entry.failure.is_some()
    }

    /// What is known of the releases of each region, by region index. Readings that are too old are left out.
    pub(super) fn health(
        &self,
        table: &Table,
        endpoints: &[WatchedEndpoint],
        now: Timestamp,
    ) -> Vec<Vec<ReleaseHealth>> {
        let known = |watched: &WatchedEndpoint| {
            let entry = self.entries.get(&watched.id)?;
            let (at, reading) = entry.reading.as_ref()?;
            let is_fresh = ReleaseReport::is_fresh(now.since(*at).0, entry.source.interval.0);
            let (region, endpoint, release) = (watched.region, watched.endpoint, watched.release);
            is_fresh.then(|| EndpointReading { region, endpoint, release, reading: reading.clone() })
        };
        health(table, &endpoints.iter().filter_map(known).collect::<Vec<_>>())
    }

    /// Every endpoint that is asked, as reports and metrics show it.
    pub(super) fn views(&self, endpoints: &[WatchedEndpoint]) -> Vec<ReleaseView> {
        let view = |watched: &WatchedEndpoint| {
            let entry = self.entries.get(&watched.id)?;
            Some(ReleaseView {
                region: watched.region,
                endpoint: watched.endpoint,
                release: watched.release,
                reading: entry.reading.clone(),
                failure: entry.failure.clone(),
                interval: entry.source.interval,
                readings: entry.readings,
            })
        };
        endpoints.iter().filter_map(view).collect()
    }
}

/// The region, the endpoint and the model of a source.
fn name(table: &Table, watched: WatchedEndpoint) -> Option<(String, String, String)> {
    let region = table.region(watched.region);
    let (endpoint, _) = region.endpoints.get(watched.endpoint)?;
    let release = table.releases().get(watched.release.get())?;
    Some((region.id.to_string(), endpoint.to_string(), release.model.clone()))
}

/// Logs what has changed at an endpoint. `before` is the previous reading, if a new one came.
fn log(
    (region, endpoint, model): &(String, String, String),
    entry: &Entry,
    before: Option<&Reading>,
    was_failing: bool,
) {
    let now = entry.reading.as_ref().map(|(_, reading)| reading);
    if let (Some(before), Some(now)) = (before, now)
        && !before.is_like(now, entry.source.tolerance)
    {
        tracing::warn!(
            json.event = "release_changed",
            json.region = region,
            json.endpoint = endpoint,
            json.model = model,
            "{region}/{endpoint} runs something else than before as {model:?}"
        );
    }
    if let Some(failure) = entry.failure.as_deref().filter(|_| !was_failing) {
        tracing::warn!(
            json.event = "release_unread",
            json.region = region,
            json.endpoint = endpoint,
            json.model = model,
            json.reason = failure,
            "what {region}/{endpoint} runs as {model:?} can't be read: {failure}"
        );
    }
}
