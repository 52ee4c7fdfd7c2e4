//! Steered answers of the last week. Takes what all threads have counted since the process began, returns the queries
//! by service, country, region and source. Called every five minutes, and when somebody asks `/v1/traffic`.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use bailiwick_rules::fleet::traffic::{Counted, Source, Traffic, TrafficReport};
use bailiwick_rules::geo::CountryCode;
use bailiwick_rules::id::RegionId;
use bailiwick_rules::time::Timestamp;

use super::{Metrics, Steering};

/// What was counted until the last look, and what came of it.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    before: BTreeMap<Steering, u64>,
    traffic: Traffic,
}

/// Which queries are asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// Since when.
    pub(crate) since: Timestamp,
    /// Of which service; `None`: of all.
    pub(crate) service: Option<&'a str>,
    /// Whether buckets are told apart.
    pub(crate) apart: bool,
}

impl Metrics {
    /// Adds what was counted since the last time to the bucket of this moment.
    pub(crate) fn record_traffic(&self, now: Timestamp) {
        let sums = self.all_steered();
        let mut recorder = self.traffic.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::take(&mut recorder.before);
        let new = sums.iter().filter_map(|(key, count)| {
            let new = count.saturating_sub(before.get(key).copied().unwrap_or(0));
            let (service, region, origin) = key;
            let counted = Counted {
                service: service.as_str(),
                country: CountryCode::numbered(origin.country()),
                region: region.as_ref().map(RegionId::as_str),
                source: if origin.is_told() { Source::Ecs } else { Source::Resolver },
            };
            (new > 0).then_some((counted, new))
        });
        recorder.traffic.add(now, new);
        recorder.before = sums;
    }

    /// The queries that are asked for, as of now.
    pub(crate) fn traffic(&self, now: Timestamp, wanted: Wanted<'_>) -> TrafficReport {
        self.record_traffic(now);
        let recorder = self.traffic.lock().unwrap_or_else(PoisonError::into_inner);
        recorder.traffic.report(now, wanted.since, wanted.service, wanted.apart)
    }
}
