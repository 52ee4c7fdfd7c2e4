//! The records of this isolate that wait for sinks. Takes records, gives out batches, and counts what became of them.
//! Called by `logs`, which posts the batches, and by `feed` when it takes new rules. An isolate is one instance of the
//! Worker; the platform runs several, which share no memory.

use std::cell::RefCell;

use bailiwick_rules::table::Sink;
use bailiwick_rules::time::{Millis, Timestamp};

use crate::decide::logs::{Batch, Dropped, Noted, Queue, Settled, Signal};
use crate::runtime::clock;
use crate::runtime::metrics;

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

#[derive(Default)]
struct State {
    queue: Queue,
    /// The number of the last poster. A poster is a request's background work that posts what waits.
    poster: u64,
    /// Until when that poster counts as alive.
    posting_until: Timestamp,
}

/// Adds a record for a sink. It is counted as dropped if there is no room for it.
pub(crate) fn push(sink: &Sink, signal: Signal, record: &str) {
    if !STATE.with_borrow_mut(|state| state.queue.push(sink, signal, record, clock::now())) {
        metrics::sink(sink.id.as_str(), signal, "dropped_full", 1);
    }
}

/// Forgets what waits for sinks that these rules don't have.
pub(crate) fn follow(sinks: &[Sink]) {
    let orphaned = STATE.with_borrow_mut(|state| state.queue.follow(sinks));
    for one in orphaned {
        metrics::sink("", one.signal, "dropped_no_sink", one.count);
    }
}

/// Appoints a poster, if something waits and no poster is alive. It is alive for `lease` after each [`take`].
pub(crate) fn appoint(lease: Millis) -> Option<u64> {
    let now = clock::now();
    let (poster, cut_short) = STATE.with_borrow_mut(|state| {
        if state.queue.is_empty() || state.posting_until.lasts(now, lease) {
            return None;
        }
        state.posting_until = now.after(lease);
        state.poster += 1;
        Some((state.poster, state.queue.give_up()))
    })?;
    lose(cut_short);
    Some(poster)
}

/// Takes batches that are due, at most so many. `None` if another poster was appointed meanwhile.
pub(crate) fn take(poster: u64, lease: Millis, most: usize) -> Option<Vec<Batch>> {
    let now = clock::now();
    let (due, expired) = STATE.with_borrow_mut(|state| {
        if state.poster != poster {
            return None;
        }
        state.posting_until = now.after(lease);
        let expired = state.queue.expire(now);
        Some((state.queue.take(now, most), expired))
    })?;
    lose(expired);
    Some(due)
}

/// Notes what became of a batch. `None` if it was given up before.
pub(crate) fn settle(batch: Batch, settled: Settled) -> Option<Noted> {
    STATE.with_borrow_mut(|state| state.queue.settle(batch, settled, clock::now()))
}

/// Dismisses a poster.
pub(crate) fn dismiss(poster: u64) {
    STATE.with_borrow_mut(|state| {
        if state.poster == poster {
            state.posting_until = Timestamp(0);
        }
    });
}

/// Whether nothing waits.
pub(crate) fn is_empty() -> bool {
    STATE.with_borrow(|state| state.queue.is_empty())
}

/// Counts records as lost.
fn lose(dropped: Vec<Dropped>) {
    for one in dropped {
        metrics::sink(one.sink.as_str(), one.signal, "lost", one.count);
    }
}
