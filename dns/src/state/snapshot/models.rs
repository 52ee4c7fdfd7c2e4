//! What probes of a model say, in a snapshot. Filled by the owner's monitors, read by the report and the metrics.

use bailiwick_rules::probe::{TokenLimit, Verdict};
use bailiwick_rules::time::Timestamp;

/// What is known of a monitor that asks a model, beside its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ModelView {
    /// The last verdict, and since when it is that; `None` before the first.
    pub verdict: Option<(Verdict, Timestamp)>,
    /// How often each verdict came.
    pub counts: VerdictCounts,
    /// How many tokens it is asked for, if it refused a single one.
    pub raised: Option<TokenLimit>,
    /// Until when the budget pays for no probe, if the last round wasn't paid for.
    pub unpaid_until: Option<Timestamp>,
}

/// How often each verdict came, since the monitor runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct VerdictCounts([u64; Verdict::ALL.len()]);

impl VerdictCounts {
    /// Counts one.
    pub(crate) fn add(&mut self, verdict: Verdict) {
        let counts = Verdict::ALL.iter().zip(&mut self.0);
        counts.filter(|(one, _)| **one == verdict).for_each(|(_, count)| *count = count.saturating_add(1));
    }

    /// Every verdict with its count.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Verdict, u64)> {
        Verdict::ALL.into_iter().zip(self.0)
    }
}
