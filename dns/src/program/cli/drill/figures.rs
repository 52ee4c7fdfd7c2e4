//! Figures of a report that its text and its page share. Made by `report`, shown by `page`.

use bailiwick_rules::drill::record::Record;
use bailiwick_rules::report::LONGEST_HOLD;
use bailiwick_rules::time::Timestamp;
use serde::Serialize;

/// What receipts prove.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Receipts {
    /// Receipts of the drill's time whose signature is good, and whose attempts could all be compared with the fence.
    pub(super) checked: u64,
    /// Of these, those that say that a request was sent outside of the fence they name.
    pub(super) outside: u64,
    /// Receipts of the drill's time with an attempt that may be within the fence or not: they had no room for all of
    /// its regions. They prove nothing.
    pub(super) unproved: u64,
    /// Receipts that were given more than once, by their id. They count once.
    pub(super) repeated: u64,
    /// Receipts that weren't signed by these keys, or were changed.
    pub(super) invalid: u64,
    /// Receipts of another time.
    pub(super) other_time: u64,
    /// Receipts of the drill's time whose fence doesn't have the drilled region. The drill changes nothing for them.
    pub(super) other_fence: u64,
}

/// Whether the drill of an unfinished record may be under way still. Whoever runs it looks every half a minute at
/// least.
pub(super) fn is_under_way(record: &Record, now: Timestamp) -> bool {
    now.since(record.until) < LONGEST_HOLD
}

/// Milliseconds as seconds.
#[allow(clippy::cast_precision_loss)] // a drill takes hours at most
pub(super) fn in_seconds(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}
