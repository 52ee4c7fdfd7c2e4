//! Work that goes on beside requests. Takes a future, and runs it on this thread. Called by `runtime`.

use core::cell::Cell;
use core::future::Future;
use core::time::Duration;

thread_local! {
    /// How many futures are under way.
    static UNDER_WAY: Cell<usize> = const { Cell::new(0) };
}

/// How often [`finish`] looks.
const LOOK: Duration = Duration::from_millis(20);

/// The background of a request. It outlives the request.
pub(crate) struct Background;

impl Background {
    /// Lets work go on after the request has ended.
    #[expect(clippy::unused_self, reason = "other platforms have a context for each request")]
    pub(crate) fn run(&self, work: impl Future<Output = ()> + 'static) {
        spawn(work);
    }
}

/// Runs a future that the end of the process waits for.
pub(super) fn spawn(work: impl Future<Output = ()> + 'static) {
    UNDER_WAY.set(UNDER_WAY.get() + 1);
    tokio::task::spawn_local(async {
        work.await;
        UNDER_WAY.set(UNDER_WAY.get().saturating_sub(1));
    });
}

/// Waits until nothing is under way.
pub(crate) async fn finish() {
    while UNDER_WAY.get() > 0 {
        tokio::time::sleep(LOOK).await;
    }
}
