//! Waiting for conditions.

use std::time::{Duration, Instant};

/// Longest wait for anything: far more than it takes, as the machine may be busy. Servers of NATS that were cut off
/// elect leaders in rounds of 4 to 9 s, and a request that a lost leader doesn't answer ends after 5 s. Several of them
/// may follow each other.
pub const LONG: Duration = Duration::from_secs(120);

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
