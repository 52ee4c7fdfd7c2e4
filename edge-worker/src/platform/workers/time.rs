//! The time and timers of the Workers runtime. Called by `runtime`.

use core::future::Future;

use bailiwick_rules::time::{Millis, Timestamp};
use worker::{Delay, js_sys};

/// The current time. The runtime's clock stands still while code runs, and goes on when it waits.
pub(crate) fn now() -> Timestamp {
    #[expect(clippy::cast_possible_truncation, reason = "whole milliseconds, and a cast of floats saturates")]
    Timestamp(js_sys::Date::now() as i64)
}

/// Waits for this time.
pub(crate) fn sleep(time: Millis) -> impl Future<Output = ()> + 'static {
    Delay::from(time.to_std())
}
