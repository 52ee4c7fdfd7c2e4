//! The times of the last five minutes, such as times to the first token. Takes histograms as Workers report them,
//! returns the median of all times in them. Used by [`super::Sums`].

use super::Histogram;
use crate::time::Timestamp;

/// The length of a slot, in milliseconds.
const SLOT_MS: i64 = 60_000;
/// How many slots count: the present slot, and the five slots before it.
const SLOTS: usize = 6;
/// A median is computed from at least this many times.
const FEWEST: u64 = 20;

/// The times of the last five minutes and of the present minute.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Recent {
    /// The slots, each with its number, oldest first.
    slots: Vec<(i64, Histogram)>,
}

impl Recent {
    /// Adds times that were reported now.
    pub(super) fn add(&mut self, times: &Histogram, now: Timestamp) {
        let number = number(now);
        self.slots.retain(|(slot, _)| counts(*slot, number));
        match self.slots.iter_mut().find(|(slot, _)| *slot == number) {
            Some((_, sum)) => sum.merge(times),
            None => self.slots.push((number, times.clone())),
        }
    }

    /// The median in milliseconds; `None` if there are too few times.
    pub(super) fn median_ms(&self, now: Timestamp) -> Option<u32> {
        let mut all = Histogram::default();
        for (_, times) in self.slots.iter().filter(|(slot, _)| counts(*slot, number(now))) {
            all.merge(times);
        }
        let median = all.quantile_us(500).filter(|_| all.len() >= FEWEST)?;
        Some(u32::try_from(median.div_ceil(1_000)).unwrap_or(u32::MAX))
    }
}

/// The number of the slot at a time.
fn number(now: Timestamp) -> i64 {
    now.0.div_euclid(SLOT_MS)
}

/// Whether a slot still counts. A slot in the future doesn't; it was filled before the clock was set back.
fn counts(slot: i64, current: i64) -> bool {
    slot <= current && current.saturating_sub(slot) < SLOTS as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(ms: u64, count: u64) -> Histogram {
        let mut times = Histogram::default();
        (0..count).for_each(|_| times.count(ms * 1_000));
        times
    }

    #[test]
    fn the_median_is_that_of_the_last_minutes_if_there_are_enough_times() {
        let at = |minute: i64| Timestamp(minute * SLOT_MS + 1);
        let mut recent = Recent::default();
        recent.add(&times(100, 19), at(100));
        assert_eq!(recent.median_ms(at(100)), None);
        recent.add(&times(100, 1), at(101));
        // A bucket is 9 % wide.
        assert!((100..=109).contains(&recent.median_ms(at(105)).unwrap()));
        assert_eq!(recent.median_ms(at(106)), None, "the first 19 are too old");
        recent.add(&times(3_000, 30), at(106));
        assert!((3_000..=3_270).contains(&recent.median_ms(at(106)).unwrap()));
        assert!(recent.slots.len() <= SLOTS);
        assert_eq!(recent.median_ms(at(90)), None, "the clock was set back");
        for jump in [i64::MIN, i64::MAX, 0] {
            recent.add(&times(1, 1), Timestamp(jump));
            assert!(recent.slots.len() <= SLOTS && recent.median_ms(Timestamp(jump)).is_none());
        }
    }
}
