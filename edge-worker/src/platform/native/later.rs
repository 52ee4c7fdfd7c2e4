//! Work for this thread's next turn. Takes a function from wherever it is called, even from tasks that hyper runs, and
//! calls it when nothing else is running. Called by the exchange; [`run`] is a task of each isolate.

use core::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use tokio::sync::Notify;

type Work = Box<dyn FnOnce()>;

thread_local! {
    static QUEUE: RefCell<VecDeque<Work>> = const { RefCell::new(VecDeque::new()) };
    static NEWS: Rc<Notify> = Rc::default();
}

/// Calls a function in a later turn of this thread.
pub(crate) fn later(work: impl FnOnce() + 'static) {
    // A thread that ends has no later turn.
    let is_queued = QUEUE.try_with(|queue| queue.borrow_mut().push_back(Box::new(work))).is_ok();
    if is_queued {
        let _ = NEWS.try_with(|news| news.notify_one());
    }
}

/// Calls what was put off, again and again.
pub(crate) async fn run() {
    let news = NEWS.with(Rc::clone);
    loop {
        news.notified().await;
        while let Some(work) = QUEUE.with_borrow_mut(VecDeque::pop_front) {
            work();
        }
    }
}
