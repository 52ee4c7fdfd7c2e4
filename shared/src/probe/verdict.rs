//! What a probe says of an endpoint. Takes what was found and whether the engine moves, returns a [`Verdict`] and its
//! effect on health. Called by the owner of health in the DNS node.

use core::fmt;

use super::motion::Motion;

/// What one probe found, before the engine's metrics are asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Finding {
    /// No token in time, from an endpoint that took the request or at least the connection.
    Late,
    /// 429.
    Throttled,
    /// The request was refused for what it is: 401, 403, 404 and other 4xx. Or the node lacks the credential.
    Misconfigured,
    /// Anything else that isn't a token.
    Down,
}

impl Finding {
    /// What a status says that isn't one of success.
    #[must_use]
    pub fn of_status(status: u16) -> Self {
        match status {
            429 => Self::Throttled,
            // The server gave up waiting, or wants it later: its fault, not that of the request.
            408 | 425 => Self::Down,
            400..=499 => Self::Misconfigured,
            _ => Self::Down,
        }
    }
}

/// What is said of an endpoint.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Verdict {
    /// It made a token.
    Answered,
    /// It answered a client within the interval, and wasn't asked.
    Served,
    /// No token in time, but its engine makes tokens for others: it is full.
    Busy,
    /// It refused by quota.
    Throttled,
    /// No token in time, and its engine has work and makes none.
    Frozen,
    /// The request or the credential is wrong, or the model's name.
    Misconfigured,
    /// It made no token.
    Down,
}

/// What a verdict does to the status of a monitor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// It counts as a success.
    Success,
    /// It counts as neither.
    None,
    /// It counts as a failure, but never as the one that decides at the start: it may be the fault of the rules.
    Doubt,
    /// It counts as a failure.
    Failure,
}

impl Verdict {
    /// All verdicts.
    pub const ALL: [Self; 7] =
        [Self::Answered, Self::Served, Self::Busy, Self::Throttled, Self::Frozen, Self::Misconfigured, Self::Down];

    /// Its word in metrics, logs and reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Served => "served",
            Self::Busy => "busy",
            Self::Throttled => "throttled",
            Self::Frozen => "frozen",
            Self::Misconfigured => "misconfigured",
            Self::Down => "down",
        }
    }

    /// What it means, in a sentence's part.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Answered => "it made a token",
            Self::Served => "it answered clients within the interval, so it isn't asked",
            Self::Busy => "no token in time, but the engine makes tokens for others: it is full, not down",
            Self::Throttled => "it refuses by quota (429), which says nothing of its health",
            Self::Frozen => "no token in time, and the engine has work but makes no tokens",
            Self::Misconfigured => {
                "it refuses the probe; look at the monitor's model and secret, and the endpoint's url and style"
            }
            Self::Down => "it made no token",
        }
    }

    /// What it does to the status.
    #[must_use]
    pub fn effect(self) -> Effect {
        match self {
            Self::Answered | Self::Served => Effect::Success,
            Self::Busy | Self::Throttled => Effect::None,
            Self::Misconfigured => Effect::Doubt,
            Self::Frozen | Self::Down => Effect::Failure,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The verdict on what was found, given whether the engine moved meanwhile. `None`: its metrics aren't read.
///
/// ```
/// use bailiwick_rules::probe::{Finding, Motion, Verdict, judge};
/// assert_eq!(judge(Finding::Late, Some(Motion::Advancing)), Verdict::Busy);
/// assert_eq!(judge(Finding::Late, Some(Motion::Still { has_work: true })), Verdict::Frozen);
/// assert_eq!(judge(Finding::Late, None), Verdict::Down);
/// assert_eq!(judge(Finding::Down, Some(Motion::Advancing)), Verdict::Down);
/// ```
#[must_use]
pub fn judge(found: Finding, motion: Option<Motion>) -> Verdict {
    match (found, motion) {
        (Finding::Late, Some(Motion::Advancing)) => Verdict::Busy,
        (Finding::Late, Some(Motion::Still { has_work: true })) => Verdict::Frozen,
        (Finding::Late | Finding::Down, _) => Verdict::Down,
        (Finding::Throttled, _) => Verdict::Throttled,
        (Finding::Misconfigured, _) => Verdict::Misconfigured,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_proof_is_a_success_and_neither_load_nor_quota_is_a_failure() {
        let by_effect = |effect| Verdict::ALL.into_iter().filter(|one| one.effect() == effect).collect::<Vec<_>>();
        assert_eq!(by_effect(Effect::Success), [Verdict::Answered, Verdict::Served]);
        assert_eq!(by_effect(Effect::None), [Verdict::Busy, Verdict::Throttled]);
        assert_eq!(by_effect(Effect::Doubt), [Verdict::Misconfigured]);
        assert_eq!(by_effect(Effect::Failure), [Verdict::Frozen, Verdict::Down]);
    }

    #[test]
    fn metrics_change_only_what_a_late_token_means() {
        let motions = [
            None,
            Some(Motion::Unknown),
            Some(Motion::Advancing),
            Some(Motion::Still { has_work: true }),
            Some(Motion::Still { has_work: false }),
        ];
        let judged = |found| motions.map(|motion| judge(found, motion));
        let (down, busy, frozen) = (Verdict::Down, Verdict::Busy, Verdict::Frozen);
        assert_eq!(judged(Finding::Late), [down, down, busy, frozen, down]);
        assert_eq!(judged(Finding::Down), [down; 5]);
        assert_eq!(judged(Finding::Throttled), [Verdict::Throttled; 5]);
        assert_eq!(judged(Finding::Misconfigured), [Verdict::Misconfigured; 5]);
    }
}
