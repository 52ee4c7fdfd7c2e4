//! Steered answers of the last week. Takes what all threads have counted since the process began, returns the queries
//! by service, country, region and source. Called every five minutes, and when somebody asks `/v1/traffic`.

use std::collections::BTreeMap;
use std::sync::{MutexGuard, PoisonError};

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
        drop(self.recorded(now));
    }

    /// [`Metrics::record_traffic`], and what came of it. The sums are read under the lock: else of two who record at
    /// once, the one with the older sums could come last, and what lies between would be counted again.
    fn recorded(&self, now: Timestamp) -> MutexGuard<'_, Recorder> {
        let mut recorder = self.traffic.lock().unwrap_or_else(PoisonError::into_inner);
        let sums = self.all_steered();
        let before = std::mem::take(&mut recorder.before);
        let new = sums.iter().filter_map(|(key, count)| {
            let new = count.saturating_sub(before.get(key).copied().unwrap_or(0));
            let (service, region, origin) = key;
            let counted = Counted {
                service: service.as_str(),
                country: CountryCode::numbered(origin.country()),
                region: region.as_ref().map(RegionId::as_str),
                source: if origin.has_subnet() { Source::Ecs } else { Source::Resolver },
            };
            (new > 0).then_some((counted, new))
        });
        recorder.traffic.add(now, new);
        recorder.before = sums;
        recorder
    }

    /// Goes on from what was kept before this process began.
    ///
    /// # Errors
    /// What is wrong with the bytes. Nothing is taken from them then.
    pub(crate) fn restore_traffic(&self, kept: &[u8], now: Timestamp) -> Result<(), String> {
        let kept = Traffic::read(kept, now)?;
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner).traffic = kept;
        Ok(())
    }

    /// What the next process is to go on from.
    pub(crate) fn traffic_to_keep(&self, now: Timestamp) -> Vec<u8> {
        self.recorded(now).traffic.to_bytes()
    }

    /// The queries that are asked for, as of now.
    pub(crate) fn traffic(&self, now: Timestamp, wanted: Wanted<'_>) -> TrafficReport {
        self.recorded(now).traffic.report(now, wanted.since, wanted.service, wanted.apart)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use bailiwick_rules::id::ServiceId;

    use super::*;
    use crate::response::answer::Origin;

    #[test]
    fn whoever_records_at_the_same_time_counts_nothing_twice() {
        const COUNTED: u64 = 300_000;
        let (metrics, service) = (Metrics::default(), ServiceId::parse("chat").unwrap());
        let (at, is_over) = (Timestamp(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        metrics.record_traffic(at);
                    }
                });
            }
            (0..COUNTED).for_each(|_| metrics.count_steered(&service, None, Origin::default()));
            is_over.store(true, Ordering::Relaxed);
        });
        let wanted = Wanted { since: at, service: None, apart: false };
        let queries: u64 = metrics.traffic(at, wanted).counts.iter().map(|one| one.queries).sum();
        assert_eq!(queries, COUNTED);
    }
}
