//! Records the steered answers of the last week. Takes the counters of all threads since the process began; returns the
//! numbers of queries by service, country, region and source. Called every five minutes, and for requests of
//! `/v1/traffic`.

use std::collections::BTreeMap;
use std::sync::{MutexGuard, PoisonError};

use bailiwick_rules::fleet::traffic::{AddressSource, QueryLabels, Traffic, TrafficReport};
use bailiwick_rules::geo::CountryCode;
use bailiwick_rules::id::RegionId;
use bailiwick_rules::time::Timestamp;

use super::{Metrics, Steering};
use crate::response::answer::Origin;

/// The recorded traffic.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    /// The counters when they were read last.
    before: BTreeMap<Steering, u64>,
    traffic: Traffic,
    /// When answers were recorded last for which a thread had no counter of their country.
    uncounted: Option<Timestamp>,
}

/// Which queries to report.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TrafficFilter<'a> {
    /// Only queries after this time.
    pub(crate) since: Timestamp,
    /// Only queries for this service. `None` means queries for all services.
    pub(crate) service: Option<&'a str>,
    /// Whether to report each bucket of time separately.
    pub(crate) buckets_apart: bool,
}

impl Metrics {
    /// Adds the answers counted since the last call to the bucket of `now`.
    pub(crate) fn record_traffic(&self, now: Timestamp) {
        drop(self.recorder(now));
    }

    /// Does [`Metrics::record_traffic`], and returns the recorded traffic. The sums are read while the lock is held.
    /// Otherwise two threads could record at once, and the thread with the older sums could take the lock last. Then
    /// the answers between both sums would be counted twice.
    fn recorder(&self, now: Timestamp) -> MutexGuard<'_, Recorder> {
        let mut recorder = self.traffic.lock().unwrap_or_else(PoisonError::into_inner);
        let sums = self.all_steered();
        let before = std::mem::take(&mut recorder.before);
        let new = sums.iter().filter_map(|(key, count)| {
            let new = count.saturating_sub(before.get(key).copied().unwrap_or(0));
            let (service, region, origin) = key;
            let counted = QueryLabels {
                service: service.as_str(),
                country: CountryCode::numbered(origin.country()),
                region: region.as_ref().map(RegionId::as_str),
                source: if origin.has_subnet() { AddressSource::Ecs } else { AddressSource::Resolver },
            };
            (new > 0).then_some(((counted, *origin == Origin::UNCOUNTED), new))
        });
        let mut has_uncounted = false;
        let new = new.inspect(|(key, _)| has_uncounted |= key.1);
        recorder.traffic.add(now, new.map(|((counted, _), new)| (counted, new)));
        if has_uncounted {
            recorder.uncounted = Some(now);
        }
        recorder.before = sums;
        recorder
    }

    /// Restores the traffic that an earlier process stored.
    ///
    /// # Errors
    /// What is wrong with the bytes. The recorded traffic then stays as it was.
    pub(crate) fn restore_traffic(&self, bytes: &[u8], now: Timestamp) -> Result<(), String> {
        let traffic = Traffic::read(bytes, now)?;
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner).traffic = traffic;
        Ok(())
    }

    /// The traffic to store for the next process.
    pub(crate) fn traffic_to_keep(&self, now: Timestamp) -> Vec<u8> {
        self.recorder(now).traffic.to_bytes()
    }

    /// Reports the queries of all buckets that begin at `since` or later, as they were recorded last: nothing is summed
    /// anew. Leaves out queries without a country where some of them may have had one, and says how many these are.
    pub(crate) fn recorded_traffic(&self, now: Timestamp, since: Timestamp) -> (TrafficReport, u64) {
        let recorder = self.traffic.lock().unwrap_or_else(PoisonError::into_inner);
        let uncounted = recorder.uncounted.unwrap_or(Timestamp(i64::MIN));
        recorder.traffic.report_whole(now, since, uncounted)
    }

    /// Reports the wanted queries until `now`.
    pub(crate) fn traffic(&self, now: Timestamp, wanted: TrafficFilter<'_>) -> TrafficReport {
        self.recorder(now).traffic.report(now, wanted.since, wanted.service, wanted.buckets_apart)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use bailiwick_rules::id::ServiceId;

    use super::*;

    #[test]
    fn threads_that_record_at_the_same_time_count_nothing_twice() {
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
        let wanted = TrafficFilter { since: at, service: None, buckets_apart: false };
        let queries: u64 = metrics.traffic(at, wanted).counts.iter().map(|count| count.queries).sum();
        assert_eq!(queries, COUNTED);
    }
}
