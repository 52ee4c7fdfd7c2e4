//! Runs requests, each as a task. Takes a future and its number, and polls it in the same call that reports an event.
//! Called by `runtime`, which the platform calls for each new request and each event.
//!
//! The executor of `wasm-bindgen` would poll in a later microtask, and make a promise for each future. Both would cost
//! more than all decisions about the request. An exchange is the platform's side of a request. A task may also wait for
//! other things than its exchange: keys, KV or feeds. Then the task's waker calls the exchange, which continues the
//! task. But only events of the exchange are certain to wake a task: in the Workers runtime, other promises may never
//! settle if the client has gone or the Wasm instance was replaced.

use core::future::Future;
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Wake;

use bailiwick_rules::time::{Millis, Timestamp};

use crate::decide::attempt::AttemptNumber;
use crate::platform::RawExchange;
use crate::platform::notice::Notice;
use crate::runtime::clock;
use crate::runtime::exchange::Inbox;

/// The least time between two sweeps. A sweep drops the tasks of exchanges that report no more events.
const SWEEP: Millis = Millis(10_000);
/// An exchange that stayed silent for this number of sweeps counts as lost. Two sweeps wouldn't be enough: if the
/// machine pauses, one sweep may run just before the pause, and one just after.
const LOST: u8 = 3;

/// A task's future.
type Work = Pin<Box<dyn Future<Output = ()>>>;

thread_local! {
    static TASKS: RefCell<Vec<Option<Task>>> = const { RefCell::new(Vec::new()) };
    static SWEPT: Cell<Timestamp> = const { Cell::new(Timestamp(0)) };
}

struct Task {
    exchange: RawExchange,
    inbox: Rc<RefCell<Inbox>>,
    /// How many sweeps were made since the task's exchange last reported an event. An exchange reports at least every
    /// five seconds.
    silent: u8,
    /// The task's future; `None` while it is polled.
    work: Option<Work>,
    signal: Arc<TaskWaker>,
}

/// Wakes a task that waits for something other than its exchange.
struct TaskWaker {
    number: u32,
    woken: AtomicBool,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        if self.woken.swap(true, Ordering::Relaxed) {
            return;
        }
        with(self.number, |task| {
            // The waker may belong to a task that has ended, and the number to a new task.
            if Arc::ptr_eq(&task.signal, &self) {
                task.exchange.wake();
            }
        });
    }
}

fn with<T>(number: u32, f: impl FnOnce(&mut Task) -> T) -> Option<T> {
    TASKS.with_borrow_mut(|tasks| tasks.get_mut(number as usize)?.as_mut().map(f))
}

/// Begins a task, and polls it once. When the task ends, the `exchange` learns of it. `inbox` gets the exchange's
/// events.
pub(crate) fn begin(
    number: u32,
    exchange: RawExchange,
    inbox: Rc<RefCell<Inbox>>,
    work: impl Future<Output = ()> + 'static,
) {
    let now = clock::now();
    sweep(now);
    let signal = Arc::new(TaskWaker { number, woken: AtomicBool::new(false) });
    let task = Task { exchange, inbox, silent: 0, work: Some(Box::pin(work)), signal };
    TASKS.with_borrow_mut(|tasks| {
        let place = number as usize;
        if tasks.len() <= place {
            tasks.resize_with(place + 1, || None);
        }
        tasks[place] = Some(task);
    });
    run(number);
}

/// Gives a task an event of its exchange, and continues it.
///
/// If the client has gone, the task is ended, whatever it waits for. After that, the runtime settles no more promises
/// of the request.
pub(crate) fn notify(number: u32, notice: Notice, attempt: AttemptNumber, bytes: Option<Vec<u8>>) {
    let inbox = with(number, |task| {
        task.silent = 0;
        Rc::clone(&task.inbox)
    });
    let Some(inbox) = inbox else { return };
    inbox.borrow_mut().put(notice, attempt, bytes);
    run(number);
    if notice == Notice::ClientGone {
        end(number);
    }
}

/// Continues a task. Does nothing if the task is being polled now, because it looks into its inbox anyway.
pub(crate) fn run(number: u32) {
    // Nothing may be borrowed during the poll, because the task may notify itself.
    let taken = with(number, |task| {
        task.signal.woken.store(false, Ordering::Relaxed);
        Some((task.work.take()?, Waker::from(Arc::clone(&task.signal))))
    });
    let Some(Some((mut work, waker))) = taken else { return };
    match clock::in_one_moment(|| work.as_mut().poll(&mut Context::from_waker(&waker))) {
        Poll::Pending => {
            with(number, |task| task.work = Some(work));
        }
        Poll::Ready(()) => end(number),
    }
}

/// How many requests are in progress.
pub(crate) fn in_progress() -> usize {
    TASKS.with_borrow(|tasks| tasks.iter().flatten().count())
}

fn take(number: u32) -> Option<Task> {
    TASKS.with_borrow_mut(|tasks| tasks.get_mut(number as usize)?.take())
}

/// Ends a task, whatever it waits for.
fn end(number: u32) {
    if let Some(task) = take(number) {
        task.exchange.end();
    }
}

/// Drops tasks whose exchanges are silent. The runtime sometimes ends a request without an event when a write to its
/// client fails. Without the sweep, such a task would hold its memory for ever.
fn sweep(now: Timestamp) {
    let next = SWEPT.get().after(SWEEP);
    if next.lasts(now, SWEEP) {
        return;
    }
    SWEPT.set(now);
    let is_lost = |task: &mut Task| {
        task.silent = task.silent.saturating_add(1);
        task.silent >= LOST && task.work.is_some()
    };
    let lost: Vec<Task> =
        TASKS.with_borrow_mut(|tasks| tasks.iter_mut().filter_map(|task| task.take_if(is_lost)).collect());
    for task in lost {
        // A future that waits for feeds isn't dropped: it would clear its timer, but the timer belongs to a request
        // that has ended.
        if !task.inbox.borrow().feeds_done {
            core::mem::forget(task.work);
        }
        task.exchange.abandon();
    }
}
