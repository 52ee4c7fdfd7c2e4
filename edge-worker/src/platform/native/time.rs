//! The system's clock and tokio's timers. Called by `runtime`.

use core::future::Future;
use std::time::{SystemTime, UNIX_EPOCH};

use bailiwick_rules::time::{Millis, Timestamp};

/// The current time.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Waits for this time.
pub(crate) fn sleep(time: Millis) -> impl Future<Output = ()> + 'static {
    tokio::time::sleep(time.to_std())
}
