//! The mean number of requests in flight over the last seconds or minutes. Takes busy times as Workers report them: a
//! request that is in flight for two seconds adds two seconds of busy time. Returns the mean number of requests, which
//! is the busy time divided by the span. Used by [`super::Sums`].

use super::INTERVAL_MS;
use crate::load::Amount;
use crate::time::{Millis, Timestamp};

/// How many slots of [`INTERVAL_MS`] are kept: five minutes, and the present slot.
const SLOTS: usize = 61;

/// The busy time of the last five minutes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Slots {
    /// Milliseconds of busy time, by the number of the slot modulo [`SLOTS`].
    busy_ms: Vec<u64>,
    /// The number of the newest slot.
    newest: i64,
}

impl Default for Slots {
    fn default() -> Self {
        Self { busy_ms: vec![0; SLOTS], newest: 0 }
    }
}

impl Slots {
    /// Adds a busy time, in equal parts to the slots of the `span` that ends now.
    pub(super) fn add(&mut self, busy_ms: u64, span: Millis, now: Timestamp) {
        let newest = number(now);
        self.advance(newest);
        let slots = (span.0 / INTERVAL_MS).clamp(1, SLOTS as u64 - 1);
        for nth in 0..slots {
            // The difference of two rounded sums, so that the parts add up to `busy_ms`.
            let part = busy_ms * (nth + 1) / slots - busy_ms * nth / slots;
            let slot = newest.saturating_sub(i64::try_from(nth).unwrap_or(0));
            if let Some(sum) = self.busy_ms.get_mut(place(slot)) {
                *sum = sum.saturating_add(part);
            }
        }
    }

    /// The mean number of requests in flight in the last `slots` complete slots.
    pub(super) fn mean(&self, slots: u32, now: Timestamp) -> Amount {
        let current = number(now);
        let numbers = (1..=i64::from(slots)).map(|back| current.saturating_sub(back));
        let is_kept = |slot: &i64| *slot <= self.newest && self.newest.saturating_sub(*slot) < SLOTS as i64;
        let busy = numbers.filter(is_kept).filter_map(|slot| self.busy_ms.get(place(slot)));
        let busy_ms = busy.fold(0_u64, |sum, more| sum.saturating_add(*more));
        // Thousandths of a request: an [`Amount`].
        busy_ms.saturating_mul(1_000) / (u64::from(slots.max(1)) * INTERVAL_MS)
    }

    /// Clears the slots between the newest slot and a newer one. If the clock was set back a little, nothing changes.
    fn advance(&mut self, newest: i64) {
        let steps = newest.saturating_sub(self.newest);
        if steps >= SLOTS as i64 || steps <= -(SLOTS as i64) {
            self.busy_ms.fill(0);
            self.newest = newest;
        }
        while self.newest < newest {
            self.newest += 1;
            if let Some(slot) = self.busy_ms.get_mut(place(self.newest)) {
                *slot = 0;
            }
        }
    }
}

/// The number of the slot at a time.
fn number(now: Timestamp) -> i64 {
    now.0.div_euclid(INTERVAL_MS as i64)
}

/// The index of a slot in `busy_ms`.
fn place(slot: i64) -> usize {
    usize::try_from(slot.rem_euclid(SLOTS as i64)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT: i64 = 5_000;

    #[test]
    fn only_complete_slots_count_in_a_mean() {
        let mut slots = Slots::default();
        slots.add(10_000, Millis(5_000), Timestamp(100 * SLOT));
        assert_eq!(slots.mean(1, Timestamp(100 * SLOT)), 0, "the slot isn't complete");
        assert_eq!(slots.mean(1, Timestamp(101 * SLOT)), 2_000);
        assert_eq!(slots.mean(2, Timestamp(101 * SLOT)), 1_000);
        assert_eq!(slots.mean(1, Timestamp(102 * SLOT)), 0);
        assert_eq!(slots.mean(60, Timestamp(160 * SLOT)), 33);
        assert_eq!(slots.mean(60, Timestamp(161 * SLOT)), 0, "five minutes are over");
    }

    #[test]
    fn a_long_span_is_spread_over_the_slots_it_covers() {
        let mut slots = Slots::default();
        slots.add(30_001, Millis(15_000), Timestamp(100 * SLOT));
        let means: Vec<_> = (98..=102).map(|slot| slots.mean(1, Timestamp(slot * SLOT))).collect();
        assert_eq!(means, [0, 2_000, 2_000, 2_000, 0]);
        slots.add(1_000_000, Millis(u64::MAX), Timestamp(100 * SLOT));
        assert_eq!(slots.mean(60, Timestamp(101 * SLOT)), (1_000_000 + 30_001) * 1_000 / 300_000);
    }

    #[test]
    fn a_jump_of_the_clock_neither_panics_nor_keeps_old_slots() {
        let mut slots = Slots::default();
        slots.add(10_000, Millis(5_000), Timestamp(100 * SLOT));
        for jump in [i64::MAX, i64::MIN, 0, 1_000_000 * SLOT] {
            slots.add(1, Millis(5_000), Timestamp(jump));
            assert!(slots.mean(60, Timestamp(jump)) <= 1, "{jump}");
        }
        slots.add(5_000, Millis(5_000), Timestamp(1_000_000 * SLOT - SLOT));
        assert_eq!(slots.mean(2, Timestamp(1_000_000 * SLOT + SLOT)), 500, "a little back");
    }
}
