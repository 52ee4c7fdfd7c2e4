//! The watch over a connection: whether its client has asked for anything, takes what it is answered, and still needs
//! it. Each connection reports to its [`Watch`]; the thread's tick looks at all of them.

use core::cell::{Cell, RefCell};
use core::time::Duration;
use std::rc::{Rc, Weak};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::config::Limits;
use super::transport::Stall;
use crate::platform::native::exchange::Taken;

/// Why a connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// No request came in time, or the client didn't end a connection that was idle when it was told to.
    Silent,
    /// It has had no request for a while.
    Idle,
    /// Its client takes nothing of what it is answered.
    Stalled,
    /// Its client takes back most of what it asks.
    Resets,
}

/// Requests over a connection that a client takes back before they are answered. Past these, if they are more than half
/// of all, the connection ends: each made work here and at an endpoint (CVE-2023-44487).
const MOST_TAKEN_BACK: u64 = 128;

/// A connection, as far as limits of time need to know.
pub(super) struct Watch {
    begun: Instant,
    /// Since when the client takes nothing.
    pub(super) stall: Stall,
    /// How many requests have no answer yet.
    asked: Cell<usize>,
    /// Answers under way.
    answers: RefCell<Vec<Weak<Taken>>>,
    /// How many requests have come, how many of them up to the last look, and when the last one or the end of its
    /// answer was noticed.
    requests: Cell<u64>,
    noticed: Cell<u64>,
    last: Cell<Instant>,
    /// Rings when a request comes.
    asking: Notify,
    taken_back: Cell<u64>,
    reason: Cell<Option<Reason>>,
    closing: Notify,
}

impl Watch {
    pub(super) fn new(now: Instant) -> Rc<Self> {
        Rc::new(Self {
            begun: now,
            stall: Stall::default(),
            asked: Cell::new(0),
            answers: RefCell::default(),
            requests: Cell::new(0),
            noticed: Cell::new(0),
            last: Cell::new(now),
            asking: Notify::new(),
            taken_back: Cell::new(0),
            reason: Cell::new(None),
            closing: Notify::new(),
        })
    }

    /// A request has come. It waits for its answer as long as the result lives.
    pub(super) fn asks(self: &Rc<Self>) -> Asking {
        self.requests.set(self.requests.get() + 1);
        self.asking.notify_waiters();
        self.asked.set(self.asked.get() + 1);
        Asking { watch: Rc::clone(self), is_answered: false }
    }

    /// An answer is under way.
    fn answers(&self, taken: &Rc<Taken>) {
        let mut answers = self.answers.borrow_mut();
        answers.retain(|answer| answer.strong_count() > 0);
        answers.push(Rc::downgrade(taken));
    }

    /// Looks at the limits. A connection that breaks one is told so, once for each reason.
    pub(super) fn look(&self, now: Instant, limits: &Limits) -> Option<Reason> {
        let reason = self.verdict(now, limits)?;
        if self.reason.replace(Some(reason)) == Some(reason) && reason != Reason::Stalled {
            return None;
        }
        self.closing.notify_one();
        Some(reason)
    }

    /// A request has been taken back.
    fn taken_back(&self) {
        self.taken_back.set(self.taken_back.get() + 1);
        if self.takes_back_most() {
            self.reason.set(Some(Reason::Resets));
            self.closing.notify_one();
        }
    }

    fn takes_back_most(&self) -> bool {
        let taken_back = self.taken_back.get();
        taken_back > MOST_TAKEN_BACK && taken_back * 2 > self.requests.get()
    }

    fn verdict(&self, now: Instant, limits: &Limits) -> Option<Reason> {
        let is_over = |since: Instant, limit: Duration| now.saturating_duration_since(since) > limit;
        let requests = self.requests.get();
        // Also those that came and were answered since the last look.
        let mut is_busy = self.asked.get() > 0 || self.noticed.replace(requests) != requests;
        let mut is_stalled = self.stall.get().is_some_and(|since| is_over(since, limits.write));
        for answer in self.answers.borrow().iter().filter_map(Weak::upgrade) {
            is_busy = true;
            is_stalled |= answer.waits_since().is_some_and(|since| is_over(since, limits.write));
        }
        if is_stalled {
            return Some(Reason::Stalled);
        }
        if is_busy {
            self.last.set(now);
        }
        if requests == 0 && is_over(self.begun, limits.headers) {
            return Some(Reason::Silent);
        }
        let idle = limits.idle.max(limits.headers);
        // It was told to end, and didn't.
        if is_over(self.last.get(), idle + limits.headers) {
            return Some(Reason::Silent);
        }
        is_over(self.last.get(), idle).then_some(Reason::Idle)
    }

    /// Waits until a request comes, unless one is in progress.
    pub(super) async fn next_request(&self) {
        let is_answering = self.answers.borrow().iter().any(|answer| answer.strong_count() > 0);
        if self.asked.get() == 0 && !is_answering {
            self.asking.notified().await;
        }
    }

    /// Waits until the connection breaks a limit.
    pub(super) async fn breaks(&self) -> Reason {
        loop {
            self.closing.notified().await;
            if let Some(reason) = self.reason.get() {
                return reason;
            }
        }
    }
}

/// A request without an answer.
pub(super) struct Asking {
    watch: Rc<Watch>,
    is_answered: bool,
}

impl Asking {
    /// It has an answer, which is under way.
    pub(super) fn answered(mut self, taken: &Rc<Taken>) {
        self.is_answered = true;
        self.watch.answers(taken);
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.watch.asked.set(self.watch.asked.get() - 1);
        if !self.is_answered {
            self.watch.taken_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const LIMITS: Limits = Limits {
        connections: 1,
        streams: 1,
        header_bytes: 1,
        headers: Duration::from_secs(30),
        idle: Duration::from_secs(75),
        write: Duration::from_secs(60),
        drain: Duration::ZERO,
    };

    #[test]
    fn a_connection_is_closed_for_silence_idleness_or_a_client_that_takes_nothing() {
        let begun = Instant::now();
        let at = |seconds: u64| begun + Duration::from_secs(seconds);
        let watch = Watch::new(begun);
        assert_eq!(watch.look(at(30), &LIMITS), None);
        assert_eq!(watch.look(at(31), &LIMITS), Some(Reason::Silent));
        assert_eq!(watch.look(at(32), &LIMITS), None, "it is told once");

        let watch = Watch::new(begun);
        let asking = watch.asks();
        assert_eq!(watch.look(at(1_000), &LIMITS), None, "a request may wait for its answer");
        let taken = Rc::new(Taken::default());
        asking.answered(&taken);
        assert_eq!(watch.look(at(2_000), &LIMITS), None, "a stream may pause");
        taken.added(10, at(2_000));
        assert_eq!(watch.look(at(2_060), &LIMITS), None);
        assert_eq!(watch.look(at(2_061), &LIMITS), Some(Reason::Stalled));
        taken.took(4, at(2_061));
        assert_eq!(watch.look(at(2_121), &LIMITS), None, "it has taken something");
        taken.took(6, at(2_121));
        assert_eq!(watch.look(at(3_000), &LIMITS), None);
        drop(taken);
        let taken = Rc::new(Taken::default());
        assert_eq!(watch.look(at(3_075), &LIMITS), None);
        assert_eq!(watch.look(at(3_076), &LIMITS), Some(Reason::Idle));
        assert_eq!(watch.look(at(3_105), &LIMITS), None);
        assert_eq!(watch.look(at(3_106), &LIMITS), Some(Reason::Silent), "it doesn't end");

        let watch = Watch::new(begun);
        watch.asks().answered(&Rc::default());
        assert!(watch.next_request().now_or_never().is_none(), "that it has asked doesn't count");
        let asking = watch.asks();
        assert!(watch.next_request().now_or_never().is_some());
        asking.answered(&taken);
        assert!(watch.next_request().now_or_never().is_some(), "it is answered");
        drop(taken);
        let mut next = std::pin::pin!(watch.next_request());
        assert!(next.as_mut().now_or_never().is_none());
        watch.asks().answered(&Rc::default());
        assert!(next.now_or_never().is_some());
        watch.stall.set(Some(at(5)));
        assert_eq!(watch.look(at(65), &LIMITS), None);
        assert_eq!(watch.look(at(66), &LIMITS), Some(Reason::Stalled));
    }
    #[test]
    fn a_connection_whose_requests_are_answered_between_two_looks_is_not_idle() {
        let begun = Instant::now();
        let watch = Watch::new(begun);
        for seconds in 0..300 {
            watch.asks().answered(&Rc::default());
            assert_eq!(watch.look(begun + Duration::from_secs(seconds), &LIMITS), None);
        }
        assert_eq!(watch.look(begun + Duration::from_secs(374), &LIMITS), None);
        assert_eq!(watch.look(begun + Duration::from_secs(375), &LIMITS), Some(Reason::Idle));
    }

    #[test]
    fn a_client_may_take_back_some_requests_but_not_most() {
        let watch = Watch::new(Instant::now());
        let is_ended = || watch.reason.get() == Some(Reason::Resets);
        for _ in 0..MOST_TAKEN_BACK {
            drop(watch.asks());
        }
        assert!(!is_ended());
        for _ in 0..=MOST_TAKEN_BACK {
            watch.asks().answered(&Rc::default());
        }
        drop(watch.asks());
        assert!(!is_ended(), "half were answered");
        drop(watch.asks());
        drop(watch.asks());
        assert!(is_ended());
    }
}
