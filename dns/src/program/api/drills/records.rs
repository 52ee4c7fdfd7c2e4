//! Keeps the last records of drills that ended. Takes a record from whoever ran a drill; returns all for the API, and
//! for the state directory, from which the next process restores them.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bailiwick_rules::drill::record::Record;

use crate::state::store::Store;

/// The most records that are kept.
const MAX_RECORDS: usize = 32;
/// The most bytes that all records together may have as JSON. The oldest go first.
const MAX_BYTES: usize = 16 << 20;
/// The most minutes of a record that are kept here, the first ones. Whoever ran the drill has all of them.
const MAX_MINUTES: usize = 240;

/// The last records, the oldest drill first.
#[derive(Debug, Default)]
pub(crate) struct DrillRecords(Mutex<VecDeque<Kept>>);

/// A record, and how many bytes it has as JSON.
#[derive(Debug)]
struct Kept {
    record: Arc<Record>,
    bytes: usize,
}

impl DrillRecords {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Kept>> {
        // A poisoned lock still holds good records.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a record. One of the same run is replaced.
    pub(super) fn add(&self, mut record: Record) {
        record.minutes.truncate(MAX_MINUTES);
        let bytes = serde_json::to_vec(&record).map_or(0, |bytes| bytes.len());
        let mut kept = self.lock();
        kept.retain(|one| (&one.record.drill, one.record.since) != (&record.drill, record.since));
        // An old record that is sent again takes no newer one's place.
        let place = kept.partition_point(|one| one.record.since <= record.since);
        kept.insert(place, Kept { record: Arc::new(record), bytes });
        // The newest stays: one is at most as large as a request may be.
        while kept.len() > 1
            && (kept.len() > MAX_RECORDS || kept.iter().map(|one| one.bytes).sum::<usize>() > MAX_BYTES)
        {
            kept.pop_front();
        }
    }

    /// The records, the newest first.
    pub(crate) fn newest_first(&self) -> Vec<Arc<Record>> {
        self.lock().iter().rev().map(|one| Arc::clone(&one.record)).collect()
    }

    /// The records to store for the next process.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let kept: Vec<Arc<Record>> = self.lock().iter().map(|one| Arc::clone(&one.record)).collect();
        serde_json::to_vec(&kept.iter().map(|record| &**record).collect::<Vec<_>>()).unwrap_or_default()
    }

    /// Restores what an earlier process stored. If it can't be read, a warning says so, and it is lost.
    pub(crate) fn restore(&self, state_dir: &Path) {
        let read = match Store::drills_in(state_dir) {
            Ok(None) => return,
            Ok(Some(bytes)) => serde_json::from_slice::<Vec<Record>>(&bytes).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match read {
            Ok(records) => records.into_iter().for_each(|record| self.add(record)),
            Err(why) => {
                let directory = state_dir.display();
                tracing::warn!("{directory}/drills.json can't be read ({why}); no drill's report is kept from before");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(since: i64, why: &str) -> Record {
        let phase = json!({ "ms": 1, "dns": 1, "requests": 1, "failed": 0, "refused": 0, "first_token_ms": null });
        serde_json::from_value(json!({
            "drill": "one", "region": "fra", "node": "ns1", "revision": 1, "rules_sha256": "", "is_scheduled": false,
            "plan": { "ramp": [10], "step_ms": 1, "for_ms": 1, "error_rate": null, "first_token_p95_ms": null,
                      "refused": null },
            "preflight": { "verdict": "go", "reasons": [], "fences_left_out": 0, "fences": [], "regions": [] },
            "since": bailiwick_rules::time::Timestamp(since), "began": null, "steps": [], "ended": null,
            "until": bailiwick_rules::time::Timestamp(since), "outcome": "aborted", "why": [why], "minutes": [],
            "before": phase, "during": phase, "after": phase, "moved": { "dns_ms": null, "edge_ms": null },
            "late": { "after_ms": 0, "ms": 0, "dns": 0, "edge": 0, "load": null }, "highest_loads": {},
            "checked": bailiwick_rules::drill::counts::Checked::default(),
        }))
        .expect("a record")
    }

    #[test]
    fn the_oldest_records_go_when_there_are_too_many_or_they_are_too_large() {
        let records = DrillRecords::default();
        (0..40).for_each(|nth| records.add(record(nth, "")));
        records.add(record(39, "again"));
        let newest = records.newest_first();
        assert_eq!((newest.len(), newest[0].why[0].as_str(), newest[31].since.0), (MAX_RECORDS, "again", 8));
        let large = "x".repeat(MAX_BYTES / 3);
        (100..105).for_each(|nth| records.add(record(nth, &large)));
        let newest: Vec<i64> = records.newest_first().iter().map(|one| one.since.0).collect();
        assert_eq!(newest, [104, 103]);
        assert!(records.to_bytes().len() <= MAX_BYTES);
    }
}
