//! The verdict of a probe about an endpoint. Takes a [`Finding`] and the engine's [`Motion`], returns a [`Verdict`] and
//! its effect on health. Called by the owner of health in the DNS node.

use core::fmt;

use super::motion::Motion;

/// The reason why one probe failed, regardless of the engine's metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Finding {
    /// The endpoint accepted the request or at least the connection, but sent no token in time.
    Late,
    /// The endpoint answered with status 429.
    Throttled,
    /// The endpoint refused the request with status 401, 403, 404 or another 4xx; or the node has no credential.
    Misconfigured,
    /// Any other failure.
    Down,
}

impl Finding {
    /// The finding for a status that isn't 2xx.
    #[must_use]
    pub fn of_status(status: u16) -> Self {
        match status {
            429 => Self::Throttled,
            // Request Timeout and Too Early are no fault of the request.
            408 | 425 => Self::Down,
            400..=499 => Self::Misconfigured,
            _ => Self::Down,
        }
    }
}

/// The verdict about an endpoint.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Verdict {
    /// The endpoint made a token.
    Answered,
    /// No probe was sent, because the endpoint answered a client within the interval.
    Served,
    /// The endpoint sent no token in time, but its engine makes tokens for others: the engine is full.
    Busy,
    /// The endpoint refused because of a quota.
    Throttled,
    /// The endpoint sent no token in time, and its engine has work but makes no tokens.
    Frozen,
    /// The request, the credential or the model's name is wrong.
    Misconfigured,
    /// The endpoint made no token.
    Down,
}

/// The effect of a verdict on the status of a monitor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// The verdict counts as a success.
    Success,
    /// The verdict counts as neither success nor failure.
    None,
    /// The verdict counts as a failure, but as a first result it doesn't set the status at once: the mistake may be in
    /// the rules.
    Doubt,
    /// The verdict counts as a failure.
    Failure,
}

impl Verdict {
    /// All verdicts.
    pub const ALL: [Self; 7] =
        [Self::Answered, Self::Served, Self::Busy, Self::Throttled, Self::Frozen, Self::Misconfigured, Self::Down];

    /// The word in metrics, logs and reports.
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

    /// The meaning, as a part of a sentence.
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

    /// The effect on the status.
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

/// The verdict about an endpoint, from a probe's finding and from whether the engine made tokens meanwhile. `motion` is
/// `None` if the engine's metrics aren't read.
///
/// ```
/// use bailiwick_rules::probe::{Finding, Motion, Verdict, judge};
/// assert_eq!(judge(Finding::Late, Some(Motion::Advancing)), Verdict::Busy);
/// assert_eq!(judge(Finding::Late, Some(Motion::Still { has_work: true })), Verdict::Frozen);
/// assert_eq!(judge(Finding::Late, None), Verdict::Down);
/// assert_eq!(judge(Finding::Down, Some(Motion::Advancing)), Verdict::Down);
/// ```
#[must_use]
pub fn judge(finding: Finding, motion: Option<Motion>) -> Verdict {
    match (finding, motion) {
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
        let by_effect =
            |effect| Verdict::ALL.into_iter().filter(|verdict| verdict.effect() == effect).collect::<Vec<_>>();
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
