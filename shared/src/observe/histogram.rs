//! An exponential histogram of times, as OpenTelemetry and Prometheus have it. Takes times in microseconds, returns
//! counts by bucket. Used by [`super::Counts`].
//!
//! The scale is 3: each bucket is 2^(1/8), about 9 %, wider than the one before. Bucket `i` holds the times above
//! 2^(i/8) and up to 2^((i+1)/8) seconds. All histograms have the same bounds, so adding two of them loses nothing. See
//! the *OpenTelemetry Metrics Data Model*, "ExponentialHistogram"; Prometheus calls the same `schema` 3, and numbers a
//! bucket by its upper bound.

use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The index of the lowest bucket. It holds a microsecond.
pub const MIN_INDEX: i16 = -160;
/// The index of the highest bucket. It ends at 8,192 seconds, and holds all longer times too.
pub const MAX_INDEX: i16 = 103;

/// The most times in a histogram that is read from JSON.
const MAX_COUNT: u64 = 1_000_000_000_000;

/// 2^(k/8) seconds in microseconds, times 2^24.
const STEPS: [u128; 8] = [
    16_777_216_000_000,
    18_295_683_780_595,
    19_951_584_637_137,
    21_757_357_325_723,
    23_726_566_406_062,
    25_874_004_135_407,
    28_215_801_584_674,
    30_769_549_811_436,
];

/// Counts of times by bucket.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Histogram {
    /// How many times were zero.
    zero: u64,
    /// Counts by index.
    buckets: BTreeMap<i16, u64>,
    /// The sum of all times, in microseconds.
    sum_us: u64,
}

impl Histogram {
    /// Counts a time.
    ///
    /// ```
    /// use bailiwick_rules::observe::Histogram;
    /// let mut times = Histogram::default();
    /// times.count(1_000_000);
    /// times.count(1_000_001);
    /// let counts: Vec<_> = times.buckets().collect();
    /// assert_eq!(counts, [(-1, 1), (0, 1)], "one second is the upper bound of its bucket");
    /// ```
    pub fn count(&mut self, us: u64) {
        self.sum_us = self.sum_us.saturating_add(us);
        if us == 0 {
            self.zero = self.zero.saturating_add(1);
        } else {
            self.add(index(us), 1);
        }
    }

    /// Adds another histogram.
    pub fn merge(&mut self, other: &Self) {
        self.zero = self.zero.saturating_add(other.zero);
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
        for (index, count) in other.buckets() {
            self.add(index, count);
        }
    }

    /// What is left without the times of another one.
    #[must_use]
    pub fn less(&self, other: &Self) -> Self {
        let left = |(index, count): (i16, u64)| {
            let left = count.saturating_sub(other.buckets.get(&index).copied().unwrap_or(0));
            (left > 0).then_some((index, left))
        };
        Self {
            zero: self.zero.saturating_sub(other.zero),
            buckets: self.buckets().filter_map(left).collect(),
            sum_us: self.sum_us.saturating_sub(other.sum_us),
        }
    }

    fn add(&mut self, index: i16, count: u64) {
        let bucket = self.buckets.entry(index).or_default();
        *bucket = bucket.saturating_add(count);
    }

    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.zero == 0 && self.buckets.is_empty()
    }

    /// How many times were counted.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.buckets.values().fold(self.zero, |sum, count| sum.saturating_add(*count))
    }

    /// How many of the times were zero.
    #[must_use]
    pub fn zero(&self) -> u64 {
        self.zero
    }

    /// The sum of all times, in microseconds.
    #[must_use]
    pub fn sum_us(&self) -> u64 {
        self.sum_us
    }

    /// The counts by index, lowest first. Empty buckets are left out.
    pub fn buckets(&self) -> impl Iterator<Item = (i16, u64)> + '_ {
        self.buckets.iter().map(|(index, count)| (*index, *count))
    }

    /// How many times were at most 2^`exponent` seconds.
    #[must_use]
    pub fn up_to(&self, exponent: i16) -> u64 {
        let above = exponent.saturating_mul(8);
        self.buckets.range(..above).fold(self.zero, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// A quantile in microseconds, rounded up to the upper bound of its bucket: `part` thousandths of all times are at
    /// most this long. `None` if nothing was counted.
    #[must_use]
    pub fn quantile_us(&self, part: u64) -> Option<u64> {
        let rank = (u128::from(self.len()) * u128::from(part.min(1_000))).div_ceil(1_000);
        let mut below = u128::from(self.zero);
        if below >= rank {
            return (!self.is_empty()).then_some(0);
        }
        let bucket = self.buckets().find(|(_, count)| {
            below += u128::from(*count);
            below >= rank
        });
        bucket.map(|(index, _)| bound_us(index + 1))
    }
}

/// The index of a time's bucket.
fn index(us: u64) -> i16 {
    // A binary search for the first bucket whose upper bound isn't below the time.
    let (mut low, mut high) = (MIN_INDEX, MAX_INDEX);
    while low < high {
        let middle = low + (high - low) / 2;
        if is_at_most(us, middle + 1) { high = middle } else { low = middle + 1 }
    }
    low
}

/// Whether a time is at most 2^(power/8) seconds.
fn is_at_most(us: u64, power: i16) -> bool {
    let (exponent, step) = parts(power);
    let time = u128::from(us) << 24;
    // The shifted numbers fit into 128 bits: the time has 64, and the exponent is at least -20.
    if exponent < 0 { time << exponent.unsigned_abs() <= step } else { time <= step << exponent.unsigned_abs() }
}

/// 2^(power/8) seconds, in whole microseconds.
fn bound_us(power: i16) -> u64 {
    let (exponent, step) = parts(power);
    let bound = if exponent < 0 { step >> exponent.unsigned_abs() } else { step << exponent.unsigned_abs() };
    u64::try_from(bound >> 24).unwrap_or(u64::MAX)
}

fn parts(power: i16) -> (i16, u128) {
    let step = usize::try_from(power.rem_euclid(8)).ok().and_then(|step| STEPS.get(step));
    (power.div_euclid(8), step.copied().unwrap_or(STEPS[0]))
}

/// The histogram in JSON.
#[derive(Serialize, Deserialize)]
struct Form {
    #[serde(default)]
    zero: u64,
    sum_us: u64,
    buckets: Vec<(i16, u64)>,
}

impl Serialize for Histogram {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Form { zero: self.zero, sum_us: self.sum_us, buckets: self.buckets().collect() }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Histogram {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let form = Form::deserialize(deserializer)?;
        let mut read = Self { zero: form.zero, sum_us: form.sum_us, buckets: BTreeMap::new() };
        for (index, count) in form.buckets {
            if !(MIN_INDEX..=MAX_INDEX).contains(&index) {
                let message = format!("bucket {index} doesn't exist; they are numbered {MIN_INDEX} to {MAX_INDEX}");
                return Err(D::Error::custom(message));
            }
            read.add(index, count);
        }
        if read.len() > MAX_COUNT {
            return Err(D::Error::custom(format!("{} times are more than one batch may hold", read.len())));
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(times: &[u64]) -> Histogram {
        let mut histogram = Histogram::default();
        times.iter().for_each(|us| histogram.count(*us));
        histogram
    }

    #[test]
    fn bounds_are_those_of_the_formula() {
        for power in MIN_INDEX..=MAX_INDEX + 1 {
            let expected = libm::exp2(f64::from(power) / 8.0) * 1e6;
            #[allow(clippy::cast_precision_loss)]
            let bound = bound_us(power) as f64;
            assert!((bound - expected).abs() <= expected * 1e-9 + 1.0, "{power}: {bound} {expected}");
        }
    }

    #[test]
    fn the_ends_hold_what_lies_beyond_them() {
        assert_eq!((index(1), index(u64::MAX)), (MIN_INDEX, MAX_INDEX));
        assert_eq!((index(1_000_000), index(1_000_001), index(2_000_000)), (-1, 0, 7));
    }

    #[test]
    fn classic_buckets_and_quantiles_are_computed() {
        let times = of(&[0, 500, 1_000_000, 1_000_001, 3_000_000, 9_000_000]);
        assert_eq!([-11, -10, 0, 1, 2, 12].map(|exponent| times.up_to(exponent)), [1, 2, 3, 4, 5, 6]);
        assert_eq!((times.len(), times.zero(), times.sum_us()), (6, 1, 14_000_501));
        assert_eq!(times.quantile_us(500), Some(1_000_000));
        assert_eq!(times.quantile_us(1_000), Some(9_513_656));
        assert_eq!((of(&[]).quantile_us(500), of(&[0]).quantile_us(990)), (None, Some(0)));
    }

    #[test]
    fn invalid_histograms_are_refused() {
        for bad in [
            "{}",
            r#"{"sum_us":1,"buckets":[[-161,1]]}"#,
            r#"{"sum_us":1,"buckets":[[104,1]]}"#,
            r#"{"sum_us":1,"buckets":[[0,-1]]}"#,
            r#"{"sum_us":1,"buckets":[[0,1.5]]}"#,
            r#"{"sum_us":1,"buckets":[[0,18446744073709551615]]}"#,
            r#"{"sum_us":1,"zero":18446744073709551615,"buckets":[]}"#,
        ] {
            assert!(serde_json::from_str::<Histogram>(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn a_time_lies_within_its_bucket_and_merging_loses_nothing(
            times in prop::collection::vec(0_u64..20_000_000_000, 0..20), cut in 0_usize..20,
        ) {
            for us in times.iter().copied().filter(|us| *us > 0) {
                let index = index(us);
                prop_assert!(is_at_most(us, index + 1) || index == MAX_INDEX);
                prop_assert!(!is_at_most(us, index) || index == MIN_INDEX);
            }
            let (left, right) = times.split_at(cut.min(times.len()));
            let mut merged = of(left);
            merged.merge(&of(right));
            prop_assert_eq!(&merged, &of(&times));
            prop_assert_eq!(&merged.less(&of(right)), &of(left));
            let text = serde_json::to_string(&merged).unwrap();
            prop_assert_eq!(serde_json::from_str::<Histogram>(&text).unwrap(), merged);
        }
    }
}
