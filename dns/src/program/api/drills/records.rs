//! The records of drills that ended. Takes a record from whoever ran a drill, returns the last ones. Held by the API;
//! written to the state directory.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bailiwick_rules::drill::record::Record;

use crate::state::store::Store;

/// The most records that are kept.
const MOST: usize = 32;
/// The most minutes of a record that are kept here. Whoever ran the drill has all of them.
const MOST_MINUTES: usize = 240;

/// The last records, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct DrillRecords(Mutex<VecDeque<Arc<Record>>>);

impl DrillRecords {
    fn kept(&self) -> MutexGuard<'_, VecDeque<Arc<Record>>> {
        // A poisoned lock still holds good records.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a record. One of the same run is replaced.
    pub(super) fn add(&self, mut record: Record) {
        record.minutes.truncate(MOST_MINUTES);
        let mut kept = self.kept();
        kept.retain(|one| (&one.drill, one.since) != (&record.drill, record.since));
        kept.push_back(Arc::new(record));
        while kept.len() > MOST {
            kept.pop_front();
        }
    }

    /// The records, the newest first.
    pub(crate) fn newest_first(&self) -> Vec<Arc<Record>> {
        self.kept().iter().rev().cloned().collect()
    }

    /// The records to store for the next process.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let kept: Vec<Arc<Record>> = self.kept().iter().cloned().collect();
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
                tracing::warn!("{directory}/drills.json can't be read ({why}); the reports of drills begin anew");
            }
        }
    }
}
