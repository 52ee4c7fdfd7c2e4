//! Counters of one thread that answers datagrams. Takes outcomes from this thread only, so that counting needs neither
//! a lock nor a cache line that another core writes to. The metrics add up the counters of all threads when they are
//! read. A steered name is one whose records the rules decide.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bailiwick_rules::table::RegionIndex;

use super::{Answered, Latency, Steering, place};
use crate::response::answer::Origin;
use crate::response::wire::Outcome;
use crate::state::snapshot::Rules;
use crate::zone::ServiceIndex;

/// The counters of one thread.
#[derive(Debug, Default)]
pub(crate) struct ThreadCounters {
    pub(super) answered: Answered,
    pub(super) dropped: AtomicU64,
    pub(super) truncated: AtomicU64,
    pub(super) memo_hits: AtomicU64,
    pub(super) memo_mismatches: AtomicU64,
    pub(crate) latency: Latency,
    /// The steered answers. The thread takes the lock when the rules change, so nobody holds it while summing.
    steered: Mutex<SteeredCounts>,
    /// The sums under rules before those in `steered`. Only readers take this lock, and always before the other one.
    sums: Mutex<BTreeMap<Steering, u64>>,
}

/// The counters of the steered answers of one thread.
#[derive(Debug, Default)]
struct SteeredCounts {
    /// The counters under the rules in service.
    current: Arc<SteeredCounters>,
    /// The counters under earlier rules. The next reader adds them to the sums, so that the thread needn't.
    past: Vec<Arc<SteeredCounters>>,
}

/// Steered answers under one rules document.
#[derive(Debug, Default)]
pub(crate) struct SteeredCounters {
    rules: Option<Arc<Rules>>,
    /// For each service and each origin (where clients are), a row of counters: one for each region, and the last for
    /// answers without a region. A row is made when its first answer is counted, so that origins without queries take
    /// no memory.
    rows: Box<[OnceLock<Box<[AtomicU64]>>]>,
    /// How many more counters may be made.
    left: AtomicUsize,
}

/// The most counters that a thread makes under one document: 16 MiB. Further answers are counted without their origin,
/// as [`Origin::UNCOUNTED`].
const MOST_COUNTERS: usize = 2 << 20;

impl SteeredCounters {
    fn new(rules: &Arc<Rules>) -> Self {
        let count = rules.table.services().len() * Origin::COUNT;
        let rows = (0..count).map(|_| OnceLock::new()).collect();
        Self { rules: Some(Arc::clone(rules)), rows, left: AtomicUsize::new(MOST_COUNTERS) }
    }

    /// Counts an answer. Only the thread whose counters these are may call it.
    pub(crate) fn add(&self, service: ServiceIndex, region: Option<RegionIndex>, origin: Origin) {
        let Some(row) = self.rows.get(service.get() * Origin::COUNT + origin.get()) else { return };
        let Some(row) = row.get().map(|row| &**row).or_else(|| self.new_row(service, row)) else { return };
        // The last counter is for answers without a region.
        let at = region.map_or(row.len().wrapping_sub(1), RegionIndex::get);
        if let Some(counter) = row.get(at) {
            add(counter);
        }
    }

    /// Makes a row. If there are too many counters, returns the row of clients that no counter is left for.
    #[cold]
    fn new_row<'r>(&'r self, service: ServiceIndex, row: &'r OnceLock<Box<[AtomicU64]>>) -> Option<&'r [AtomicU64]> {
        let length = self.rules.as_ref()?.table.regions().len() + 1;
        let left = self.left.load(Ordering::Relaxed);
        let row = if left >= length {
            row
        } else {
            self.rows.get(service.get() * Origin::COUNT + Origin::UNCOUNTED.get())?
        };
        self.left.store(left.saturating_sub(length), Ordering::Relaxed);
        Some(row.get_or_init(|| (0..length).map(|_| AtomicU64::new(0)).collect()))
    }

    /// Makes no further row, as if all counters were made.
    #[cfg(test)]
    pub(crate) fn fill(&self) {
        self.left.store(0, Ordering::Relaxed);
    }

    /// Adds this thread's counts of steered answers.
    fn sum_into(&self, sums: &mut BTreeMap<Steering, u64>) {
        let Some(rules) = &self.rules else { return };
        let by_service = self.rows.chunks_exact(Origin::COUNT);
        for (service, rows) in rules.table.services().iter().zip(by_service) {
            let filled = Origin::all().zip(rows).filter_map(|(origin, row)| Some((origin, row.get()?)));
            for (origin, counts) in filled {
                let regions = rules.table.regions().iter().map(|region| Some(&region.id)).chain([None]);
                for (region, count) in regions.zip(counts).filter(|(_, count)| count.load(Ordering::Relaxed) > 0) {
                    let key: Steering = (service.id.clone(), region.cloned(), origin);
                    *sums.entry(key).or_default() += count.load(Ordering::Relaxed);
                }
            }
        }
    }
}

impl ThreadCounters {
    /// Counts the outcome of one datagram. Only the thread whose counters these are may call it.
    pub(crate) fn count(&self, outcome: &Outcome) {
        match outcome {
            Outcome::Dropped => add(&self.dropped),
            Outcome::Answered { rcode, qtype, truncated, .. } => {
                let (rcode, qtype) = place(*rcode, *qtype);
                add(&self.answered[rcode][qtype]);
                if *truncated {
                    add(&self.truncated);
                }
            }
        }
    }

    /// Sets how often the memo answered, and how often its answer was wrong.
    pub(crate) fn set_memo(&self, hits: u64, mismatches: u64) {
        self.memo_hits.store(hits, Ordering::Relaxed);
        self.memo_mismatches.store(mismatches, Ordering::Relaxed);
    }

    /// Counters for steered answers under these rules.
    pub(crate) fn steered_under(&self, rules: &Arc<Rules>) -> Arc<SteeredCounters> {
        let new = Arc::new(SteeredCounters::new(rules));
        let mut steered = self.steered_counts();
        let old = std::mem::replace(&mut steered.current, Arc::clone(&new));
        steered.past.push(old);
        new
    }

    /// Adds all steered answers.
    pub(super) fn sum_steered_into(&self, sums: &mut BTreeMap<Steering, u64>) {
        let mut earlier = self.sums.lock().unwrap_or_else(PoisonError::into_inner);
        let mut steered = self.steered_counts();
        let (current, past) = (Arc::clone(&steered.current), std::mem::take(&mut steered.past));
        drop(steered);
        past.iter().for_each(|counters| counters.sum_into(&mut earlier));
        current.sum_into(sums);
        for (key, count) in &*earlier {
            *sums.entry(key.clone()).or_default() += *count;
        }
    }

    fn steered_counts(&self) -> MutexGuard<'_, SteeredCounts> {
        self.steered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds one to a counter that only this thread writes. This is cheaper than an atomic addition.
fn add(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use bailiwick_rules::geo::CountryCode;
    use bailiwick_rules::table::Table;

    use super::*;

    fn rules() -> Arc<Rules> {
        let document = r#"{ "version": 1, "revision": 1, "jurisdictions": { "eu": { "include": ["EU"] } },
            "regions": { "fra": { "countries": ["DE"] } },
            "services": { "chat": { "hosts": ["chat.example"], "pattern": "active-active", "regions": ["fra"],
                "residency": [{ "clients": ["eu"], "process_in": ["eu"] }] } } }"#;
        let table = Table::compile(document.as_bytes()).unwrap();
        Arc::new(Rules { table, bytes: Arc::from(document.as_bytes()) })
    }

    #[test]
    fn sums_are_the_same_whichever_rules_came_meanwhile() {
        let (thread, rules) = (ThreadCounters::default(), rules());
        let origin = Origin::new(CountryCode::parse("AT").unwrap().number(), true);
        for revisions in 1..5 {
            let counters = thread.steered_under(&rules);
            counters.add(ServiceIndex(0), Some(RegionIndex(0)), origin);
            for _ in 0..2 {
                let mut sums = BTreeMap::new();
                thread.sum_steered_into(&mut sums);
                assert_eq!(sums.values().copied().collect::<Vec<u64>>(), [revisions]);
            }
        }
    }

    #[test]
    fn rules_change_while_counters_are_summed() {
        let (thread, rules) = (ThreadCounters::default(), rules());
        // As a reader does that hasn't come to its end.
        let summing = thread.sums.lock().unwrap();
        thread.steered_under(&rules).add(ServiceIndex(0), None, Origin::default());
        drop(summing);
    }

    #[test]
    fn what_no_counter_is_left_for_is_counted_apart_from_clients_whose_place_is_unknown() {
        let (thread, rules) = (ThreadCounters::default(), rules());
        let counters = thread.steered_under(&rules);
        counters.fill();
        counters.add(ServiceIndex(0), None, Origin::new(7, true));
        let mut sums = BTreeMap::new();
        thread.sum_steered_into(&mut sums);
        assert_eq!(sums.keys().map(|(.., origin)| *origin).collect::<Vec<_>>(), [Origin::UNCOUNTED]);
        assert_eq!(CountryCode::numbered(Origin::UNCOUNTED.country()), None);
    }
}
