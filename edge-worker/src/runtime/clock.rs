//! The time of the platform, and clocks that never go back. Called by all of `runtime`.

use std::cell::Cell;

use bailiwick_rules::time::Timestamp;

use crate::platform;

/// The current time.
pub(crate) fn now() -> Timestamp {
    HELD.get().unwrap_or_else(platform::now)
}

thread_local! {
    static HELD: Cell<Option<Timestamp>> = const { Cell::new(None) };
}

/// Runs `turn`, in which a task works until it has to wait, and reads the runtime's clock only once for all of it. The
/// runtime's clock stands still during a turn anyway.
pub(crate) fn in_one_moment<T>(turn: impl FnOnce() -> T) -> T {
    HELD.set(Some(now()));
    let done = turn();
    HELD.set(None);
    done
}

/// A clock in milliseconds that never goes back. If the system's time goes back, the clock continues from its last
/// value.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    last: Option<i64>,
    ahead: i64,
}

impl Clock {
    /// The clock's value at the time `now`.
    pub(crate) fn at(&mut self, now: Timestamp) -> i64 {
        let back = self.last.map_or(0, |last| last.saturating_sub(now.0).max(0));
        self.last = Some(now.0);
        self.ahead = self.ahead.saturating_add(back);
        now.0.saturating_add(self.ahead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_never_goes_back() {
        let mut clock = Clock::default();
        let values = [1_000, 1_500, 200, 300, -50, 2_000].map(|now| clock.at(Timestamp(now)));
        assert_eq!(values, [1_000, 1_500, 1_500, 1_600, 1_600, 3_650]);
    }
}
