//! The sums of the load that edge Workers observed. Takes batches of counts from the API, returns sums to `/metrics`
//! and to the planner, which moves clients away from full regions. Held by every
//! [`Handle`](crate::state::owner::Handle).

use std::sync::{Arc, Mutex, PoisonError};

use bailiwick_rules::observe::Sums;

/// The sums of all batches that this process took. They are in memory only.
#[derive(Debug, Clone, Default)]
pub(crate) struct Observed(Arc<Mutex<Sums>>);

impl Observed {
    /// Reads or changes the sums. `look` shouldn't take long: every batch that is posted waits for it.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut Sums) -> T) -> T {
        // A poisoned lock still holds good counters.
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
