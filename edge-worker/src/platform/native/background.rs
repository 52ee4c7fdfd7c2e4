//! Work that goes on beside requests. Takes a future, and runs it on this thread. Called by `runtime`.

use core::future::Future;

/// The background of a request. It outlives the request.
pub(crate) struct Background;

impl Background {
    /// Lets work go on after the request has ended.
    #[expect(clippy::unused_self, reason = "other platforms have a context for each request")]
    pub(crate) fn run(&self, work: impl Future<Output = ()> + 'static) {
        tokio::task::spawn_local(work);
    }
}
