//! What the last check of fences found, for metrics. Takes the numbers from the API's task that checks fences every few
//! seconds, returns them to [`super::exposition`]. A fence is the list of the regions that may process a client's data.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use bailiwick_rules::time::Timestamp;

/// What the last check of fences found.
#[derive(Debug, Default)]
pub(crate) struct Fences {
    /// How many decisions lead out of their fence.
    decisions: AtomicU64,
    /// How many answers that were given led out of their fence.
    answers: AtomicU64,
    /// When fences were checked last, in seconds since 1970.
    checked: AtomicI64,
}

impl Fences {
    /// Notes what was found: decisions that lead out of their fence, and answers that were given and led out of it.
    pub(crate) fn note(&self, at: Timestamp, decisions: usize, answers: u64) {
        self.decisions.store(u64::try_from(decisions).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.answers.store(answers, Ordering::Relaxed);
        self.checked.store(at.0 / 1_000, Ordering::Relaxed);
    }

    /// The violations, by what they are found in.
    pub(super) fn violations(&self) -> [(&'static str, u64); 2] {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [("decisions", read(&self.decisions)), ("answers", read(&self.answers))]
    }

    /// When fences were checked last, in seconds since 1970; 0 before the first time.
    pub(super) fn checked(&self) -> i64 {
        self.checked.load(Ordering::Relaxed)
    }
}
