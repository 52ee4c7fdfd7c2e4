//! What became of the access log's events, for metrics. Takes notes of the task that sends them, returns counts to
//! [`super::exposition`].

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What became of the events.
#[derive(Debug, Default)]
pub(crate) struct Accesses(Mutex<Counts>);

#[derive(Debug, Default, Clone)]
pub(super) struct Counts {
    /// Whether events are sent at all.
    pub(super) is_used: bool,
    pub(super) taken: u64,
    pub(super) lost: BTreeMap<&'static str, u64>,
    pub(super) is_failing: bool,
}

/// Why an event is missing at the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LostAccess {
    /// Too many wait to be sent.
    Full,
    /// The receiver refused the request.
    Refused,
    /// The receiver rejected them, and took others of the request.
    Rejected,
    /// The receiver couldn't be reached, was busy, or gave no answer, for too long.
    Unreachable,
}

impl LostAccess {
    pub(super) const ALL: [Self; 4] = [Self::Full, Self::Refused, Self::Rejected, Self::Unreachable];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Refused => "refused",
            Self::Rejected => "rejected",
            Self::Unreachable => "unreachable",
        }
    }
}

impl Accesses {
    /// Notes that events are sent from now on.
    pub(crate) fn begin(&self) {
        self.counts().is_used = true;
    }

    /// Notes events that the receiver has.
    pub(crate) fn taken(&self, events: u64) {
        self.counts().taken += events;
    }

    /// Notes events that are missing.
    pub(crate) fn lost(&self, why: LostAccess, events: u64) {
        *self.counts().lost.entry(why.as_str()).or_default() += events;
    }

    /// Notes whether the receiver takes what is sent. True if that is news.
    pub(crate) fn set_failing(&self, is_failing: bool) -> bool {
        core::mem::replace(&mut self.counts().is_failing, is_failing) != is_failing
    }

    pub(super) fn read(&self) -> Counts {
        self.counts().clone()
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // A poisoned lock still holds good counters.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
