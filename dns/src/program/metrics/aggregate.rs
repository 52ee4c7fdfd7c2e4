//! What became of the aggregate, for metrics. Takes notes of the task that sends it, returns counts to
//! [`super::exposition`].

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What became of the intervals of the aggregate.
#[derive(Debug, Default)]
pub(crate) struct Aggregated(Mutex<Counts>);

#[derive(Debug, Default, Clone)]
pub(super) struct Counts {
    pub(super) windows: BTreeMap<&'static str, u64>,
    /// Requests, by how they are told.
    pub(super) requests: BTreeMap<&'static str, u64>,
    pub(super) lost: BTreeMap<&'static str, u64>,
    pub(super) rejected: u64,
    pub(super) is_failing: bool,
    /// How many bodies are queued or being posted.
    queued: u64,
}

/// What became of an interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Window {
    /// The receiver took it.
    Sent,
    /// It had too few requests to tell any number.
    Withheld,
    /// Another node of the fleet tells it.
    OfAnotherNode,
    /// This node isn't the one that sends.
    NotSender,
}

impl Window {
    pub(super) const ALL: [Self; 4] = [Self::Sent, Self::Withheld, Self::OfAnotherNode, Self::NotSender];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Withheld => "withheld",
            Self::OfAnotherNode => "of_another_node",
            Self::NotSender => "not_sender",
        }
    }
}

/// Why requests are missing in the aggregate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    /// Too much waits to be sent.
    Full,
    /// The receiver refused them.
    Refused,
    /// The receiver gave no answer. It may have taken them, so they aren't sent again.
    NoAnswer,
    /// The receiver couldn't be reached, or was busy, for too long.
    Unreachable,
    /// The fleet's store couldn't be asked which node sends them.
    Unclaimed,
    /// They came too late, or are of a time that is yet to come.
    Late,
    /// Their interval was thrown away: the clock jumped, or the rules changed the interval.
    Uncounted,
    /// The rules no longer name the receiver, or name another secret for it.
    Withdrawn,
}

impl Lost {
    pub(super) const ALL: [Self; 8] = [
        Self::Full,
        Self::Refused,
        Self::NoAnswer,
        Self::Unreachable,
        Self::Unclaimed,
        Self::Late,
        Self::Uncounted,
        Self::Withdrawn,
    ];

    /// The word in metrics and logs.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Refused => "refused",
            Self::NoAnswer => "no_answer",
            Self::Unreachable => "unreachable",
            Self::Unclaimed => "unclaimed",
            Self::Late => "late",
            Self::Uncounted => "uncounted",
            Self::Withdrawn => "withdrawn",
        }
    }
}

impl Aggregated {
    /// Notes what became of an interval.
    pub(crate) fn window(&self, became: Window) {
        *self.counts().windows.entry(became.as_str()).or_default() += 1;
    }

    /// Notes how the requests of an interval are told: by all their names, by some, or not at all.
    pub(crate) fn requests(&self, named: u64, folded: u64, withheld: u64) {
        let mut counts = self.counts();
        for (told, count) in [("named", named), ("folded", folded), ("withheld", withheld)] {
            *counts.requests.entry(told).or_default() += count;
        }
    }

    /// Notes requests that are missing.
    pub(crate) fn lost(&self, why: Lost, requests: u64) {
        *self.counts().lost.entry(why.as_str()).or_default() += requests;
    }

    /// Notes points that the receiver rejected.
    pub(crate) fn rejected(&self, points: u64) {
        self.counts().rejected += points;
    }

    /// Notes whether the receiver takes what is sent. True if that is news.
    pub(crate) fn set_failing(&self, is_failing: bool) -> bool {
        core::mem::replace(&mut self.counts().is_failing, is_failing) != is_failing
    }

    /// Notes that a body is to be posted.
    pub(crate) fn queued(&self) {
        self.counts().queued += 1;
    }

    /// Notes that a body is posted or lost.
    pub(crate) fn unqueued(&self) {
        let mut counts = self.counts();
        counts.queued = counts.queued.saturating_sub(1);
    }

    /// Forgets that the receiver failed if nothing waits for it: another node sends now, or none does.
    pub(crate) fn forget_failure(&self) {
        let mut counts = self.counts();
        counts.is_failing &= counts.queued > 0;
    }

    pub(super) fn read(&self) -> Counts {
        self.counts().clone()
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // A poisoned lock still holds good counters.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_forgotten_when_nothing_waits_for_the_receiver() {
        let aggregated = Aggregated::default();
        aggregated.queued();
        assert!(aggregated.set_failing(true));
        aggregated.forget_failure();
        assert!(aggregated.read().is_failing, "a body is still sent again");
        aggregated.unqueued();
        assert!(aggregated.read().is_failing, "the receiver didn't take the last one");
        aggregated.forget_failure();
        assert!(!aggregated.read().is_failing);
    }
}
