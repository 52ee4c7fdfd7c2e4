//! The times of one arm of a rollout, such as the times to the first token. (An arm is the sessions with the old or
//! with the new thing.) Takes a histogram, returns how many of its times lie at or below a bound. Called
//! by `check`; used by [`super::quantile`] and [`super::strata`].

use super::proportion::Events;
use crate::observe::Histogram;

/// The widest ratio of two times that is considered, in buckets of the histogram: 2^8, as 8 buckets double a time.
pub(super) const WIDEST: i16 = 64;

/// How many times lie at or below each bound of a histogram.
#[derive(Clone, Debug)]
pub struct Times {
    /// Bounds with a count, ascending.
    at_or_below: Vec<(i16, u64)>,
    zero: u64,
    total: u64,
}

impl Times {
    /// The times of a histogram.
    #[must_use]
    pub fn of(histogram: &Histogram) -> Self {
        let mut total = histogram.zero();
        let at_or_below = histogram.buckets().map(|(index, count)| {
            total = total.saturating_add(count);
            (index.saturating_add(1), total)
        });
        Self { at_or_below: at_or_below.collect(), zero: histogram.zero(), total }
    }

    /// The number of times.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.total
    }

    /// Whether there are no times.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// How many of the times lie at or below a bound of the histogram.
    pub(super) fn up_to(&self, bound: i16) -> Events {
        let place = self.at_or_below.partition_point(|(at, _)| *at <= bound);
        let last = place.checked_sub(1).and_then(|place| self.at_or_below.get(place));
        Events { happened: last.map_or(self.zero, |(_, count)| *count), trials: self.total }
    }
}
