//! Waiting for conditions.

use std::time::{Duration, Instant};

/// Longest wait for anything: far more than it takes, as the machine may be busy.
pub const LONG: Duration = Duration::from_secs(30);

/// Polls until `condition` gives something.
///
/// # Panics
/// If it didn't within [`LONG`]; says what was waited for.
#[track_caller]
pub fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < LONG, "waited {LONG:?} in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Polls until `condition` holds.
///
/// # Panics
/// As [`until`].
#[track_caller]
pub fn until_true(what: &str, mut condition: impl FnMut() -> bool) {
    until(what, || condition().then_some(()));
}
