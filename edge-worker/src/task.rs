//! The requests under way, each a task: a future enters with its request's number, and is polled by the very call that brings it
//! news. `lib` begins tasks, `wire` brings the news.
//!
//! The executor of `wasm-bindgen` polls later, in a microtask of its own, and hands out a promise for each future: both cost a
//! request more than all that is decided for it. Whatever else a task waits for (keys, KV, feeds) wakes it by way of its line.

use core::future::Future;
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Wake;

use crate::feed;
use crate::wire::{Inbox, Line};

/// A task's future.
type Work = Pin<Box<dyn Future<Output = ()>>>;

thread_local! {
    static TASKS: RefCell<Vec<Option<Task>>> = const { RefCell::new(Vec::new()) };
}

struct Task {
    line: Line,
    inbox: Rc<RefCell<Inbox>>,
    /// Not here while it is polled.
    work: Option<Work>,
    signal: Arc<Signal>,
}

/// What wakes a task from elsewhere.
struct Signal {
    number: u32,
    woken: AtomicBool,
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        if self.woken.swap(true, Ordering::Relaxed) {
            return;
        }
        with(self.number, |task| {
            // One that ended may have left this behind, and its number is another's now.
            if Arc::ptr_eq(&task.signal, &self) {
                task.line.wake();
            }
        });
    }
}

fn with<T>(number: u32, look: impl FnOnce(&mut Task) -> T) -> Option<T> {
    TASKS.with_borrow_mut(|tasks| tasks.get_mut(number as usize)?.as_mut().map(look))
}

/// Begins a task, and takes it as far as it goes by itself. `line` is told when it is over; what rings there comes into `inbox`.
pub(crate) fn begin(number: u32, line: Line, inbox: Rc<RefCell<Inbox>>, work: impl Future<Output = ()> + 'static) {
    let signal = Arc::new(Signal { number, woken: AtomicBool::new(false) });
    let task = Task { line, inbox, work: Some(Box::pin(work)), signal };
    TASKS.with_borrow_mut(|tasks| {
        let place = number as usize;
        if tasks.len() <= place {
            tasks.resize_with(place + 1, || None);
        }
        tasks[place] = Some(task);
    });
    run(number);
}

/// Where a task hears what happens on its line. `None` when it has ended.
pub(crate) fn inbox(number: u32) -> Option<Rc<RefCell<Inbox>>> {
    with(number, |task| Rc::clone(&task.inbox))
}

/// Takes a task on. One that is being polled looks at its inbox by itself.
pub(crate) fn run(number: u32) {
    // Nothing is borrowed while it is polled: it may ring its own line.
    let taken = with(number, |task| {
        task.signal.woken.store(false, Ordering::Relaxed);
        Some((task.work.take()?, Waker::from(Arc::clone(&task.signal))))
    });
    let Some(Some((mut work, waker))) = taken else { return };
    match feed::in_one_moment(|| work.as_mut().poll(&mut Context::from_waker(&waker))) {
        Poll::Pending => {
            with(number, |task| task.work = Some(work));
        }
        Poll::Ready(()) => {
            let ended = TASKS.with_borrow_mut(|tasks| tasks.get_mut(number as usize)?.take());
            if let Some(task) = ended {
                task.line.over();
            }
        }
    }
}
