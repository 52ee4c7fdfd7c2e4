//! The timer of an exchange. It is set again with nearly every piece of an answer, mostly to a later time, so its task
//! sleeps on and looks at the time when it wakes. Called by the exchange.

use core::cell::{Cell, RefCell};
use core::time::Duration;

use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, sleep_until};

/// A timer.
#[derive(Default)]
pub(super) struct Timer {
    /// When it rings next.
    due: Cell<Option<Instant>>,
    /// When its task looks next at the time, never after `due`.
    wakes: Cell<Option<Instant>>,
    task: RefCell<Option<AbortHandle>>,
}

impl Timer {
    /// Lets it ring after this time, and no earlier. `start` starts its task, which waits for [`Self::rings`].
    pub(super) fn set(&self, after: Duration, start: impl FnOnce() -> JoinHandle<()>) {
        let due = Instant::now() + after;
        self.due.set(Some(due));
        if self.wakes.get().is_some_and(|wakes| wakes <= due) {
            return;
        }
        self.wakes.set(Some(due));
        if let Some(before) = self.task.replace(Some(start().abort_handle())) {
            before.abort();
        }
    }

    /// Lets it ring again after this time, unless it was set anew since it rang.
    pub(super) fn repeat(&self, after: Duration) {
        if self.due.get().is_none() {
            self.due.set(Some(Instant::now() + after));
        }
    }

    /// Waits until it rings.
    pub(super) async fn rings(&self) {
        while let Some(due) = self.due.get() {
            self.wakes.set(Some(due));
            sleep_until(due).await;
            if self.due.get() == Some(due) {
                self.due.set(None);
            }
        }
    }

    /// Ends its task.
    pub(super) fn end(&self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use tokio::runtime::{Builder, LocalOptions};

    use super::*;

    /// When a timer rings in a paused clock that is set as `with` says, in milliseconds, until it has rung twice.
    fn rung(with: &'static [(u64, u64)]) -> Vec<u128> {
        let mut builder = Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build_local(LocalOptions::default()).unwrap();
        runtime.block_on(async {
            let (timer, rung, begun) = (Rc::<Timer>::default(), Rc::<RefCell<Vec<u128>>>::default(), Instant::now());
            for (at, after) in with {
                sleep_until(begun + Duration::from_millis(*at)).await;
                let (own, list) = (Rc::clone(&timer), Rc::clone(&rung));
                timer.set(Duration::from_millis(*after), || {
                    tokio::task::spawn_local(async move {
                        loop {
                            own.rings().await;
                            list.borrow_mut().push(begun.elapsed().as_millis());
                            own.repeat(Duration::from_secs(5));
                        }
                    })
                });
            }
            while rung.borrow().len() < 2 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            timer.end();
            tokio::time::sleep(Duration::from_secs(20)).await;
            rung.take()
        })
    }

    #[test]
    fn it_rings_when_it_was_last_set_to_and_then_again_and_again() {
        assert_eq!(rung(&[(0, 100)]), [100, 5_100]);
        // Later, and later again.
        assert_eq!(rung(&[(0, 100), (50, 100), (120, 400)]), [520, 5_520]);
        // Earlier.
        assert_eq!(rung(&[(0, 3_000), (50, 100)]), [150, 5_150]);
        // Set anew after it rang, earlier than it would ring by itself, and later.
        assert_eq!(rung(&[(0, 100), (200, 300)]), [100, 500]);
        assert_eq!(rung(&[(0, 100), (200, 9_000)]), [100, 9_200]);
    }
}
