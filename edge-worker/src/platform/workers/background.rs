//! Work that goes on beside requests. Takes a future, and lets the runtime finish it. Called by `runtime`.

use core::future::Future;

use worker::{Context, worker_sys};

/// The runtime's context of one request.
pub(crate) struct Background(Context);

impl Background {
    /// The context that the runtime gave with a request.
    pub(crate) fn of(context: worker_sys::Context) -> Self {
        Self(Context::new(context))
    }

    /// Lets work go on after the request has ended. The runtime ends it 30 s after that at the latest.
    pub(crate) fn run(&self, work: impl Future<Output = ()> + 'static) {
        self.0.wait_until(work);
    }
}
