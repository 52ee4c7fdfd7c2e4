//! Measures how long answers take. Takes durations, returns a histogram for `/metrics`. Called by the responder.
//!
//! Reading a clock costs about as much as answering a datagram from memory. So only one batch of datagrams in [`EVERY`]
//! is timed, and each datagram of this batch counts with an equal share of its time. All packets over streams are
//! timed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// One batch of datagrams in this number is timed. A power of two.
pub(crate) const EVERY: u32 = 64;
/// The upper bounds of the buckets, in microseconds. One more bucket counts answers that take longer.
const BOUNDS: [u64; 12] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 10_000, 100_000];

/// A histogram of spans.
#[derive(Debug, Default)]
pub(crate) struct Latency {
    counts: [AtomicU64; BOUNDS.len() + 1],
    /// The sum of all spans, in nanoseconds.
    nanoseconds: AtomicU64,
}

impl Latency {
    /// Counts `count` answers that took `whole` together.
    pub(crate) fn add(&self, whole: Duration, count: u64) {
        let whole = u64::try_from(whole.as_nanos()).unwrap_or(u64::MAX);
        let Some(each) = whole.checked_div(count) else { return };
        let bucket = BOUNDS.iter().position(|bound| each <= bound * 1000).unwrap_or(BOUNDS.len());
        self.counts[bucket].fetch_add(count, Ordering::Relaxed);
        self.nanoseconds.fetch_add(whole, Ordering::Relaxed);
    }
}

/// The sum of several histograms.
#[derive(Debug, Default)]
pub(super) struct Sum {
    counts: [u64; BOUNDS.len() + 1],
    nanoseconds: u64,
}

impl Sum {
    /// Adds the counts of a histogram.
    pub(super) fn add(&mut self, latency: &Latency) {
        for (sum, count) in self.counts.iter_mut().zip(&latency.counts) {
            *sum += count.load(Ordering::Relaxed);
        }
        self.nanoseconds = self.nanoseconds.wrapping_add(latency.nanoseconds.load(Ordering::Relaxed));
    }

    /// How many answers were timed.
    pub(super) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The sum of all durations, in seconds.
    #[expect(clippy::cast_precision_loss, reason = "a sum of seconds may be rounded")]
    pub(super) fn seconds(&self) -> f64 {
        self.nanoseconds as f64 / 1e9
    }

    /// The upper bound of each bucket in seconds, with the number of answers in this bucket.
    #[expect(clippy::cast_precision_loss, reason = "bounds are small")]
    pub(super) fn buckets(&self) -> Vec<(f64, u64)> {
        let bounds = BOUNDS.iter().map(|bound| *bound as f64 / 1e6).chain([f64::INFINITY]);
        bounds.zip(self.counts).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_a_batch_count_as_their_share_of_it() {
        let latency = Latency::default();
        latency.add(Duration::from_micros(30), 10);
        latency.add(Duration::from_secs(3), 1);
        latency.add(Duration::from_secs(3), 0);
        let mut sum = Sum::default();
        sum.add(&latency);
        sum.add(&Latency::default());
        let filled: Vec<(f64, u64)> = sum.buckets().into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!((sum.count(), filled), (11, vec![(5e-6, 10), (f64::INFINITY, 1)]));
        assert!((sum.seconds() - 3.00003).abs() < 1e-9);
    }
}
