//! The state of probes of a model, in a snapshot. Filled by the monitors of `state/owner`, read by the report and the
//! metrics.

use bailiwick_rules::probe::{TokenLimit, Verdict};
use bailiwick_rules::time::Timestamp;

/// The state of a monitor that asks a model, besides its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ModelView {
    /// The last verdict, and the time since when it hasn't changed; `None` before the first verdict.
    pub verdict: Option<(Verdict, Timestamp)>,
    /// How often each verdict was given.
    pub counts: VerdictCounts,
    /// The limit of tokens that the probe sends, if the model refused a limit of one token.
    pub raised: Option<TokenLimit>,
    /// When the budget pays for a probe again, if it didn't pay for the last round.
    pub unpaid_until: Option<Timestamp>,
}

/// How often each verdict was given since the start of the monitor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct VerdictCounts([u64; Verdict::ALL.len()]);

impl VerdictCounts {
    /// Counts a verdict.
    pub(crate) fn add(&mut self, verdict: Verdict) {
        let counts = Verdict::ALL.iter().zip(&mut self.0);
        counts.filter(|(counted, _)| **counted == verdict).for_each(|(_, count)| *count = count.saturating_add(1));
    }

    /// Every verdict with its count.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Verdict, u64)> {
        Verdict::ALL.into_iter().zip(self.0)
    }
}
