//! The loads of a snapshot. Takes the last readings of endpoints and the time, returns the loads of regions for
//! `/v1/health`. A load of 1 means that the endpoint or region is full. Called by the report, the API, the metrics and
//! `state/owner`.

use std::collections::BTreeMap;
use std::sync::Arc;

use bailiwick_rules::health::Status;
use bailiwick_rules::id::RegionId;
use bailiwick_rules::load::{Amount, EndpointLoad, EngineReading, MeanLoad};
use bailiwick_rules::report::{EndpointLoadReport, LoadReport};
use bailiwick_rules::rules::Ratio;
use bailiwick_rules::steer::{Conditions, Local, forced_endpoint};
use bailiwick_rules::table::{RegionIndex, Table};
use bailiwick_rules::time::{Millis, Timestamp};

use super::{Probes, Snapshot};

/// The last reading of one endpoint's load.
#[derive(Debug, Clone)]
pub(crate) struct LoadView {
    /// The region.
    pub region: RegionIndex,
    /// The endpoint, by position in its region.
    pub endpoint: usize,
    /// How many requests the endpoint serves at once, if the rules say so.
    pub capacity: Option<u32>,
    /// How long a reading counts as fresh.
    pub patience: Millis,
    /// The last good reading, and when it was taken.
    pub reading: Option<(Timestamp, EngineReading)>,
    /// Why the last reading failed; `None` after a good one.
    pub failure: Option<Arc<str>>,
    /// How many readings were good, and how many failed.
    pub readings: Probes,
    /// Whether a probe found the engine full. The load then counts as at least 1.
    pub is_full: bool,
}

impl LoadView {
    /// The load, while the reading is fresh.
    #[must_use]
    pub(crate) fn load(&self, now: Timestamp) -> Option<Ratio> {
        let (at, reading) = self.reading?;
        let load = reading.load(self.capacity).filter(|_| now.since(at) <= self.patience)?;
        Some(if self.is_full { load.max(Ratio::ONE) } else { load })
    }

    /// What the health report says about this endpoint's load.
    fn report(&self, now: Timestamp) -> EndpointLoadReport {
        #[allow(clippy::cast_precision_loss)] // far fewer requests wait than a float can count exactly
        let count = |amount: Amount| amount as f64 / 1_000.0;
        let amount = |field: fn(EngineReading) -> Option<Amount>| {
            self.reading.and_then(|(_, reading)| field(reading)).map(count)
        };
        EndpointLoadReport {
            load: self.load(now),
            age_ms: self.reading.map(|(at, _)| now.since(at).0),
            waiting: amount(|reading| reading.waiting),
            running: amount(|reading| reading.running),
            kv: self.reading.and_then(|(_, reading)| reading.kv),
        }
    }
}

/// The endpoints of a region that aren't down, with their loads.
#[must_use]
pub(crate) fn endpoints_up(
    table: &Table,
    region: RegionIndex,
    loads: &[LoadView],
    conditions: &Conditions<'_>,
) -> Vec<EndpointLoad> {
    let view = |position: usize| loads.iter().find(|view| (view.region, view.endpoint) == (region, position));
    let status = |position: usize| match forced_endpoint(table, region, position, conditions) {
        Some(forced) => forced.status,
        None => {
            let health = conditions.health.get(region.get());
            health.and_then(|health| health.endpoints.get(position).copied()).unwrap_or_default()
        }
    };
    let endpoints = table.region(region).endpoints.iter().enumerate();
    endpoints
        .filter(|(position, _)| status(*position) != Status::Down)
        .map(|(position, (_, endpoint))| EndpointLoad {
            capacity: endpoint.capacity,
            load: view(position).and_then(|view| view.load(conditions.now)),
        })
        .collect()
}

impl Snapshot {
    /// The loads of regions that have an endpoint whose load is read.
    #[must_use]
    pub(crate) fn load_reports(&self, now: Timestamp) -> BTreeMap<RegionId, LoadReport> {
        let (table, local) = (self.table(), Local::default());
        let conditions = self.conditions(&local, now);
        let mut reports: BTreeMap<RegionId, LoadReport> = BTreeMap::new();
        for view in &self.health.loads {
            let region = table.region(view.region);
            let Some((endpoint, _)) = region.endpoints.get(view.endpoint) else { continue };
            let report = reports.entry(region.id.clone()).or_insert_with(|| {
                let mean = MeanLoad::of(&endpoints_up(table, view.region, &self.health.loads, &conditions));
                let MeanLoad { load, read, missing } = mean;
                LoadReport { load, read, missing, endpoints: BTreeMap::new() }
            });
            report.endpoints.insert(endpoint.clone(), view.report(now));
        }
        reports
    }
}
