//! What wakes a task by another's doing: a [`Bell`] that is rung, an [`Alarm`] that runs out; `incoming` and `uploads` wait.
//!
//! What begins in the task of a request's handler may go on in another. A future that remembers the first task to poll it, as the `worker` crate's `Delay` does, would wake nobody there. These remember the last.

use core::future::poll_fn;
use core::task::{Context, Poll, Waker};
use std::cell::RefCell;
use std::rc::Rc;

use worker::wasm_bindgen::JsCast;
use worker::wasm_bindgen::closure::Closure;
use worker::{js_sys, web_sys};

/// Rings once.
#[derive(Clone, Default)]
pub(crate) struct Bell(Rc<RefCell<State>>);

#[derive(Default)]
struct State {
    rung: bool,
    waker: Option<Waker>,
}

impl Bell {
    /// Rings it.
    pub(crate) fn ring(&self) {
        // The borrow ends before anybody is woken.
        let waker = {
            let mut state = self.0.borrow_mut();
            state.rung = true;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Waits for it.
    pub(crate) async fn wait(&self) {
        poll_fn(|context| self.poll(context)).await;
    }

    fn poll(&self, context: &Context<'_>) -> Poll<()> {
        let mut state = self.0.borrow_mut();
        if state.rung {
            return Poll::Ready(());
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }

    /// A function for JavaScript that rings it.
    fn cord(&self) -> Closure<dyn FnMut()> {
        let bell = self.clone();
        Closure::wrap(Box::new(move || bell.ring()) as Box<dyn FnMut()>)
    }
}

/// A timer of the runtime's, ended when it is dropped.
pub(crate) struct Alarm {
    timer: Option<i32>,
    bell: Bell,
    _cord: Closure<dyn FnMut()>,
}

impl Alarm {
    /// Goes off after so many milliseconds.
    pub(crate) fn after(milliseconds: u64) -> Self {
        let bell = Bell::default();
        let cord = bell.cord();
        let global: web_sys::WorkerGlobalScope = js_sys::global().unchecked_into();
        let milliseconds = i32::try_from(milliseconds).unwrap_or(i32::MAX);
        let timer = global
            .set_timeout_with_callback_and_timeout_and_arguments_0(cord.as_ref().unchecked_ref(), milliseconds)
            .ok();
        if timer.is_none() {
            // A limit that can't be kept is over at once: the machine looks at its own clock and asks again.
            bell.ring();
        }
        Self { timer, bell, _cord: cord }
    }

    /// Waits for it.
    pub(crate) async fn wait(&self) {
        self.bell.wait().await;
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if let Some(timer) = self.timer {
            let global: web_sys::WorkerGlobalScope = js_sys::global().unchecked_into();
            global.clear_timeout_with_handle(timer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Woken;
    use std::sync::Arc;

    #[test]
    fn a_bell_wakes_whoever_asked_last_and_stays_rung() {
        let bell = Bell::default();
        let tasks = [Arc::<Woken>::default(), Arc::default()];
        for task in &tasks {
            assert_eq!(bell.poll(&Context::from_waker(&Arc::clone(task).into())), Poll::Pending);
        }
        bell.ring();
        assert_eq!(tasks.map(|task| task.is_woken()), [false, true]);
        assert_eq!(bell.poll(&Context::from_waker(&Arc::<Woken>::default().into())), Poll::Ready(()));
    }
}
