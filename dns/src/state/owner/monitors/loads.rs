//! The sources from which the loads of endpoints are read: metrics of inference engines. Takes the rules' sources and
//! the results of readings, returns the last reading of each endpoint. Held by the monitors, which probe endpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bailiwick_rules::load::EngineReading;
use bailiwick_rules::probe::{EngineWatch, Motion};
use bailiwick_rules::rules::LoadSource;
use bailiwick_rules::table::{Region, RegionIndex, Table};
use bailiwick_rules::time::Timestamp;

use crate::state::probe::{LoadResult, Prober, Probing, Running, SourceId};
use crate::state::snapshot::{LoadView, Probes};

/// All sources that are read. A source that several endpoints name is read once.
#[derive(Debug, Default)]
pub(super) struct Loads {
    entries: BTreeMap<SourceId, Entry>,
    next: u64,
}

#[derive(Debug)]
struct Entry {
    source: LoadSource,
    /// The last good reading.
    reading: Option<(Timestamp, EngineReading)>,
    /// Notices from the readings whether the engine makes tokens.
    watch: EngineWatch,
    /// Why the last reading failed.
    failure: Option<Arc<str>>,
    readings: Probes,
    /// The task that reads the source. It ends when this is dropped.
    _running: Running,
}

/// An endpoint whose load is read: its region, its position there, and the source.
#[derive(Debug, Clone, Copy)]
pub(super) struct LoadedEndpoint {
    region: RegionIndex,
    endpoint: usize,
    source: SourceId,
}

impl LoadedEndpoint {
    /// Whether this is the endpoint at a position of a region.
    pub(super) fn is_of(&self, table: &Table, region: &Region, endpoint: usize) -> bool {
        self.endpoint == endpoint && table.region(self.region).id == region.id
    }

    /// The source of the load.
    pub(super) fn source(&self) -> SourceId {
        self.source
    }
}

impl Loads {
    /// Starts to read every source of `table` that isn't read yet.
    pub(super) fn assign<P: Prober>(&mut self, table: &Table, probing: &Probing<P>) -> Vec<LoadedEndpoint> {
        let mut reads = Vec::new();
        for (region, of_region) in (0..).map(RegionIndex).zip(table.regions()) {
            for (endpoint, (_, of_endpoint)) in of_region.endpoints.iter().enumerate() {
                if let Some(source) = &of_endpoint.load {
                    reads.push(LoadedEndpoint { region, endpoint, source: self.id_of(source, probing) });
                }
            }
        }
        reads
    }

    /// The id of this source. Starts to read the source if it isn't read yet.
    fn id_of<P: Prober>(&mut self, source: &LoadSource, probing: &Probing<P>) -> SourceId {
        if let Some((id, _)) = self.entries.iter().find(|(_, entry)| entry.source == *source) {
            return *id;
        }
        let id = SourceId(self.next);
        self.next += 1;
        let entry = Entry {
            source: source.clone(),
            reading: None,
            watch: EngineWatch::default(),
            failure: None,
            readings: Probes::default(),
            _running: probing.start_reading(id, source.clone()),
        };
        self.entries.insert(id, entry);
        id
    }

    /// Stops every source that none of these endpoints uses.
    pub(super) fn keep_only<'a>(&mut self, reads: impl Iterator<Item = &'a LoadedEndpoint>) {
        let ids: BTreeSet<SourceId> = reads.map(|read| read.source).collect();
        self.entries.retain(|id, _| ids.contains(id));
    }

    /// Takes the result of a reading, unless its source has been stopped meanwhile. The table and the list of endpoints
    /// give the names for the log. Returns whether this is the first reading of the source, or whether the source began
    /// or ceased to fail.
    pub(super) fn record(
        &mut self,
        result: LoadResult,
        now: Timestamp,
        (table, endpoints): (&Table, &[LoadedEndpoint]),
    ) -> bool {
        let Some(entry) = self.entries.get_mut(&result.source) else { return false };
        let was_failing = entry.failure.is_some();
        let is_first = entry.readings == Probes::default();
        match result.outcome {
            Ok(reading) => {
                entry.readings.passed += 1;
                entry.reading = Some((now, reading));
                entry.watch.take(now, reading);
                entry.failure = None;
            }
            Err(failure) => {
                entry.readings.failed += 1;
                entry.failure = Some(failure.into());
            }
        }
        let is_news = is_first || was_failing != entry.failure.is_some();
        let loaded = endpoints.iter().find(|loaded| loaded.source == result.source).filter(|_| is_news);
        if let Some(loaded) = loaded {
            let region = table.region(loaded.region);
            let endpoint = region.endpoints.get(loaded.endpoint).map(|(id, _)| id.as_str());
            match &entry.failure {
                Some(failure) => tracing::warn!(
                    json.event = "load_unread", json.region = %region.id, json.endpoint = endpoint,
                    json.reason = %failure, "the load of {}/{} can't be read: {failure}", region.id,
                    endpoint.unwrap_or_default()
                ),
                None => tracing::info!(
                    json.event = "load_read", json.region = %region.id, json.endpoint = endpoint,
                    "the load of {}/{} is read", region.id, endpoint.unwrap_or_default()
                ),
            }
        }
        is_news
    }

    /// Whether these engines made tokens since `begun`. If they differ, an engine that made tokens counts first, then
    /// an engine that made none although it has work, then an engine without work. `None` without engines.
    pub(super) fn motion(&self, sources: &[SourceId], begun: Timestamp, now: Timestamp) -> Option<Motion> {
        let entries = sources.iter().filter_map(|source| self.entries.get(source));
        let motions = entries.map(|entry| entry.watch.since(begun, now, entry.source.patience()));
        let rank = |motion: &Motion| match motion {
            Motion::Advancing => 3,
            Motion::Still { has_work: true } => 2,
            Motion::Still { has_work: false } => 1,
            Motion::Unknown => 0,
        };
        motions.max_by_key(rank)
    }

    /// The last reading of each endpoint. `is_full` says which endpoints a probe found full.
    pub(super) fn views(
        &self,
        table: &Table,
        reads: &[LoadedEndpoint],
        is_full: impl Fn(RegionIndex, usize) -> bool,
    ) -> Vec<LoadView> {
        let view = |read: &LoadedEndpoint| {
            let entry = self.entries.get(&read.source)?;
            let (_, endpoint) = table.region(read.region).endpoints.get(read.endpoint)?;
            Some(LoadView {
                region: read.region,
                endpoint: read.endpoint,
                capacity: endpoint.capacity,
                patience: entry.source.patience(),
                reading: entry.reading,
                failure: entry.failure.clone(),
                readings: entry.readings,
                is_full: is_full(read.region, read.endpoint),
            })
        };
        reads.iter().filter_map(view).collect()
    }
}
