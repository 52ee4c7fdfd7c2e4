//! Counters of one thread that answers datagrams. Takes outcomes from that thread alone, so that counting needs neither
//! a lock nor a cache line that another core writes to. Summed when somebody reads the metrics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bailiwick_rules::id::{RegionId, ServiceId};
use bailiwick_rules::table::RegionIndex;

use super::{Answered, Latency, Steering, place};
use crate::response::wire::Outcome;
use crate::state::snapshot::Rules;
use crate::zone::ServiceIndex;

/// What one thread counts.
#[derive(Debug, Default)]
pub(crate) struct ThreadCounters {
    pub(super) answered: Answered,
    pub(super) dropped: AtomicU64,
    pub(super) truncated: AtomicU64,
    pub(super) memo_hits: AtomicU64,
    pub(super) memo_mismatches: AtomicU64,
    pub(crate) latency: Latency,
    /// The counters under the rules in service, and the sums under all earlier rules. The lock is taken when the rules
    /// change and when somebody reads, but not to count.
    steered: Mutex<(Arc<SteeredCounters>, BTreeMap<Steering, u64>)>,
}

/// Steered answers under one rules document.
#[derive(Debug, Default)]
pub(crate) struct SteeredCounters {
    rules: Option<Arc<Rules>>,
    /// By service, then by region; the last of each service's is for answers from no region.
    counts: Box<[AtomicU64]>,
}

impl SteeredCounters {
    fn new(rules: &Arc<Rules>) -> Self {
        let count = rules.table.services().len() * (rules.table.regions().len() + 1);
        Self { rules: Some(Arc::clone(rules)), counts: (0..count).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Counts an answer. Only the thread whose counters these are may call it.
    pub(crate) fn add(&self, service: ServiceIndex, region: Option<RegionIndex>) {
        let Some(rules) = &self.rules else { return };
        let regions = rules.table.regions().len();
        let at = service.get() * (regions + 1) + region.map_or(regions, RegionIndex::get);
        if let Some(counter) = self.counts.get(at) {
            add(counter);
        }
    }

    fn sum_into(&self, sums: &mut BTreeMap<Steering, u64>) {
        let Some(rules) = &self.rules else { return };
        let by_service = self.counts.chunks_exact(rules.table.regions().len() + 1);
        for (service, counts) in rules.table.services().iter().zip(by_service) {
            let regions = rules.table.regions().iter().map(|region| Some(&region.id)).chain([None]);
            for (region, count) in regions.zip(counts).filter(|(_, count)| count.load(Ordering::Relaxed) > 0) {
                let key: (ServiceId, Option<RegionId>) = (service.id.clone(), region.cloned());
                *sums.entry(key).or_default() += count.load(Ordering::Relaxed);
            }
        }
    }
}

impl ThreadCounters {
    /// Counts what became of one datagram. Only the thread whose counters these are may call it.
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

    /// How often the memo answered, and how often it was wrong.
    pub(crate) fn set_memo(&self, hits: u64, mismatches: u64) {
        self.memo_hits.store(hits, Ordering::Relaxed);
        self.memo_mismatches.store(mismatches, Ordering::Relaxed);
    }

    /// Counters for steered answers under these rules.
    pub(crate) fn steered_under(&self, rules: &Arc<Rules>) -> Arc<SteeredCounters> {
        let new = Arc::new(SteeredCounters::new(rules));
        let mut steered = self.steered.lock().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut steered.0, Arc::clone(&new));
        old.sum_into(&mut steered.1);
        new
    }

    /// Adds all steered answers.
    pub(super) fn sum_steered_into(&self, sums: &mut BTreeMap<Steering, u64>) {
        let steered = self.steered.lock().unwrap_or_else(PoisonError::into_inner);
        steered.0.sum_into(sums);
        for (key, count) in &steered.1 {
            *sums.entry(key.clone()).or_default() += count;
        }
    }
}

/// Adds one where nobody else writes: cheaper than an atomic addition.
fn add(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}
