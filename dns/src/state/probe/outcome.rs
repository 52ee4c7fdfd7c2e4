//! What comes of a round of a monitor: success, a failure with what it says of the endpoint, or that nothing was asked.
//! Made by the probers and the tasks of monitors, taken by the owner.

use bailiwick_rules::probe::{Finding, TokenLimit};
use bailiwick_rules::rules::Monitor;
use bailiwick_rules::time::Timestamp;

/// A probe that succeeded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Passed {
    /// How many tokens a model had to be allowed, if it refused a single one.
    pub raised: Option<TokenLimit>,
}

/// A probe that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProbeFailure {
    /// What that says of a model's endpoint. Of other probes it is always [`Finding::Down`].
    pub finding: Finding,
    /// What failed, for people.
    pub message: String,
}

impl From<String> for ProbeFailure {
    fn from(message: String) -> Self {
        Self { finding: Finding::Down, message }
    }
}

impl ProbeFailure {
    /// A probe that took too long.
    pub(super) fn late(monitor: &Monitor) -> Self {
        match monitor.probe.model().is_some() {
            true => Self { finding: Finding::Late, message: format!("no token within {}", monitor.timeout) },
            false => format!("no answer within {}", monitor.timeout).into(),
        }
    }
}

/// What came of a round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The probe succeeded.
    Passed(Passed),
    /// It failed.
    Failed(ProbeFailure),
    /// Nothing was asked: the endpoint answered a client at this time.
    Served(Timestamp),
    /// Nothing was asked: the budget is spent until this time.
    Unpaid(Timestamp),
}
