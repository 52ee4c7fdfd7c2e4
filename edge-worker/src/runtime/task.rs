//! The requests under way, each a task: a future enters with its request's number, and is polled by the very call that brings it
//! news. `lib` begins tasks, `exchange` brings the news.
//!
//! The executor of `wasm-bindgen` polls later, in a microtask of its own, and hands out a promise for each future: both cost a
//! request more than all that is decided for it. Whatever else a task waits for (keys, KV, feeds) wakes it by way of its line.
//! Nothing is certain to wake it but its line, though: a promise may stay unsettled when the client has gone or the Wasm is another's.

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
use crate::runtime::clock;
use crate::runtime::exchange::{Inbox, JsExchange};
use crate::runtime::notice::Notice;

/// How often silent lines are looked for.
const SWEEP: Millis = Millis(10_000);
/// A line that was silent before so many sweeps has nobody behind it. Two could be those before and after a machine stood still.
const LOST: u8 = 3;

/// A task's future.
type Work = Pin<Box<dyn Future<Output = ()>>>;

thread_local! {
    static TASKS: RefCell<Vec<Option<Task>>> = const { RefCell::new(Vec::new()) };
    static SWEPT: Cell<Timestamp> = const { Cell::new(Timestamp(0)) };
}

struct Task {
    exchange: JsExchange,
    inbox: Rc<RefCell<Inbox>>,
    /// How many sweeps ago its line last rang, which each does every five seconds.
    silent: u8,
    /// Not here while it is polled.
    work: Option<Work>,
    signal: Arc<TaskWaker>,
}

/// What wakes a task from elsewhere.
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
            // One that ended may have left this behind, and its number is another's now.
            if Arc::ptr_eq(&task.signal, &self) {
                task.exchange.wake();
            }
        });
    }
}

fn with<T>(number: u32, look: impl FnOnce(&mut Task) -> T) -> Option<T> {
    TASKS.with_borrow_mut(|tasks| tasks.get_mut(number as usize)?.as_mut().map(look))
}

/// Begins a task, and runs it as far as it goes by itself. `exchange` is told when it ends; what happens there comes into
/// `inbox`.
pub(crate) fn begin(
    number: u32,
    exchange: JsExchange,
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

/// Tells a task of what happened on its line, and takes it on.
///
/// When its client has gone it is ended, whatever it waits for: the runtime settles no promise of such a request any more.
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

/// Takes a task on. One that is being polled looks at its inbox by itself.
pub(crate) fn run(number: u32) {
    // Nothing is borrowed while it is polled: it may notify itself.
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

/// How many requests are under way.
pub(crate) fn under_way() -> usize {
    TASKS.with_borrow(|tasks| tasks.iter().flatten().count())
}

fn take(number: u32) -> Option<Task> {
    TASKS.with_borrow_mut(|tasks| tasks.get_mut(number as usize)?.take())
}

/// Ends a task, wherever it is.
fn end(number: u32) {
    if let Some(task) = take(number) {
        task.exchange.end();
    }
}

/// Gives up tasks whose lines have fallen silent: the runtime sometimes ends a request without a word, when a write to its client
/// fails. What they hold would be held for ever.
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
        // The timers of a request belong to it, and what waits for feeds would clear its own.
        if !task.inbox.borrow().is_fed {
            core::mem::forget(task.work);
        }
        task.exchange.abandon();
    }
}
