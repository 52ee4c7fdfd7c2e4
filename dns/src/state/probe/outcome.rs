//! The outcome of one round of a monitor: the probe passed, failed, or wasn't sent. Made by the probers and the
//! monitors' tasks, read by the owner.

use bailiwick_rules::probe::{Finding, TokenLimit};
use bailiwick_rules::rules::Monitor;
use bailiwick_rules::time::Timestamp;

/// A probe that succeeded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ProbeSuccess {
    /// The number of tokens that the model accepted as a limit, if it refused a limit of one token.
    pub raised: Option<TokenLimit>,
}

/// A probe that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProbeFailure {
    /// What the failure means for the endpoint. Always [`Finding::Down`] for probes that don't ask a model.
    pub finding: Finding,
    /// What failed, as a text for operators.
    pub message: String,
}

impl From<String> for ProbeFailure {
    fn from(message: String) -> Self {
        Self { finding: Finding::Down, message }
    }
}

impl ProbeFailure {
    /// The failure of a probe that took too long.
    pub(super) fn late(monitor: &Monitor) -> Self {
        match monitor.probe.model().is_some() {
            true => Self { finding: Finding::Late, message: format!("no token within {}", monitor.timeout) },
            false => format!("no answer within {}", monitor.timeout).into(),
        }
    }
}

/// The outcome of one round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The probe succeeded.
    Passed(ProbeSuccess),
    /// The probe failed.
    Failed(ProbeFailure),
    /// No probe was sent, because the endpoint answered a client at this time.
    Served(Timestamp),
    /// No probe was sent, because the budget is spent until this time.
    Unpaid(Timestamp),
}
