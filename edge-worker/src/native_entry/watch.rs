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
    /// No request came in time.
    Silent,
    /// It has had no request for a while.
    Idle,
    /// Its client takes nothing of what it is answered.
    Stalled,
}

/// A connection, as far as limits of time need to know.
pub(super) struct Watch {
    begun: Instant,
    /// Since when the client takes nothing.
    pub(super) stall: Stall,
    /// How many requests have no answer yet.
    asked: Cell<usize>,
    /// Answers under way.
    answers: RefCell<Vec<Weak<Taken>>>,
    /// Whether any request has come, and when the last one or the end of its answer was noticed.
    has_asked: Cell<bool>,
    last: Cell<Instant>,
    /// Rings when a request comes.
    asking: Notify,
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
            has_asked: Cell::new(false),
            last: Cell::new(now),
            asking: Notify::new(),
            reason: Cell::new(None),
            closing: Notify::new(),
        })
    }

    /// A request has come. It waits for its answer as long as the result lives.
    pub(super) fn asks(self: &Rc<Self>) -> Asking {
        self.has_asked.set(true);
        self.asking.notify_waiters();
        self.asked.set(self.asked.get() + 1);
        Asking(Rc::clone(self))
    }

    /// An answer is under way.
    pub(super) fn answers(&self, taken: &Rc<Taken>) {
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

    fn verdict(&self, now: Instant, limits: &Limits) -> Option<Reason> {
        let is_over = |since: Instant, limit: Duration| now.saturating_duration_since(since) > limit;
        let mut is_busy = self.asked.get() > 0;
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
        if !self.has_asked.get() && is_over(self.begun, limits.headers) {
            return Some(Reason::Silent);
        }
        is_over(self.last.get(), limits.idle.max(limits.headers)).then_some(Reason::Idle)
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
pub(super) struct Asking(Rc<Watch>);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.asked.set(self.0.asked.get() - 1);
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
        watch.answers(&taken);
        drop(asking);
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

        let watch = Watch::new(begun);
        drop(watch.asks());
        assert!(watch.next_request().now_or_never().is_none(), "that it has asked doesn't count");
        let asking = watch.asks();
        assert!(watch.next_request().now_or_never().is_some());
        watch.answers(&taken);
        drop(asking);
        assert!(watch.next_request().now_or_never().is_some(), "it is answered");
        drop(taken);
        let mut next = std::pin::pin!(watch.next_request());
        assert!(next.as_mut().now_or_never().is_none());
        drop(watch.asks());
        assert!(next.now_or_never().is_some());
        watch.stall.set(Some(at(5)));
        assert_eq!(watch.look(at(65), &LIMITS), None);
        assert_eq!(watch.look(at(66), &LIMITS), Some(Reason::Stalled));
    }
}
