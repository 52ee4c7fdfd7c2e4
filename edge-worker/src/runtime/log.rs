//! Writes log lines. Takes a JSON object with fixed fields, and writes it to the platform's log as one line.
//! docs/edge-operations.md describes the fields.
//!
//! A line never quotes a client or an endpoint: it holds no body, key, URL, address, or text of an error.

use std::cell::Cell;

use bailiwick_rules::time::{Millis, Timestamp};
use serde_json::Value;

use crate::platform::console;
use crate::runtime::metrics;

/// The most lines for failed requests that an isolate writes within [`SPAN`], so that a flood of requests doesn't
/// become a flood of lines.
const MAX: u32 = 500;
/// The time to which [`MAX`] applies.
const SPAN: Millis = Millis(10_000);

thread_local! {
    /// Whether every request is logged.
    static ALL: Cell<bool> = const { Cell::new(false) };
    /// When the present span began, and how many lines were written in it.
    static WRITTEN: Cell<(Timestamp, u32)> = const { Cell::new((Timestamp(0), 0)) };
}

/// Sets whether every request is logged (`LOG=all`), or only those that failed.
pub(crate) fn set_all(all: bool) {
    ALL.set(all);
}

/// Whether every request is logged.
pub(crate) fn is_all() -> bool {
    ALL.get()
}

/// Whether a line for a failed request may be written. If not, the dropped line is counted.
pub(crate) fn may_log_failure(now: Timestamp) -> bool {
    if is_all() {
        return true;
    }
    let (written, may) = allowed(WRITTEN.get(), now);
    WRITTEN.set(written);
    if !may {
        metrics::note("log_line_dropped");
    }
    may
}

/// Counts a line, and returns whether it may be written.
fn allowed((began, count): (Timestamp, u32), now: Timestamp) -> ((Timestamp, u32), bool) {
    if !began.after(SPAN).lasts(now, SPAN) {
        return ((now, 1), true);
    }
    ((began, count.saturating_add(1)), count < MAX)
}

/// Writes a line about something normal.
pub(crate) fn info(line: &Value) {
    console::info(&line.to_string());
}

/// Writes a line about something that needs attention.
pub(crate) fn warn(line: &Value) {
    console::warn(&line.to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_failures_is_no_flood_of_lines() {
        let mut state = (Timestamp(0), 0);
        let mut written = 0;
        for _ in 0..2 * MAX {
            let (next, may) = allowed(state, Timestamp(100_000));
            (state, written) = (next, written + u32::from(may));
        }
        assert_eq!(written, MAX);
        assert!(!allowed(state, Timestamp(109_999)).1);
        assert!(allowed(state, Timestamp(110_000)).1, "the next span");
        assert!(allowed(state, Timestamp(0)).1, "a clock that was set back");
    }
}
