//! A test of two quantiles of times that may be looked at as often as one likes. Takes the times of two arms as
//! histograms; returns how strongly they speak against "the quantile of the second is at most so many times that of the
//! first", and which ratios remain possible. `first` is the old arm and `second` is the new one. Called by `check`.
//!
//! **How.** The second quantile exceeds `r` times the first if and only if there is a time `x` such that at least the
//! quantile's part of the first arm lies at or below `x`, and less than that part of the second at or below `r · x`.
//! For one `x` both are statements about a proportion, with evidence as in [`super::proportion`]; the weaker one
//! counts. Which `x` it is isn't known beforehand, so the evidence is averaged over all bounds of the histogram.
//!
//! The shares of an arm are those that it would have if both arms had the same mix of requests ([`super::strata`]).
//!
//! A histogram knows a time to 9 %. A ratio between two bounds is rounded to the safe side, so that no hypothesis is
//! refuted too early.

use libm::{ceil, exp, exp2, floor, log, log2};

use super::proportion::Interval;
use super::strata::ArmTimes;
use super::times::WIDEST;
use crate::observe::{MAX_INDEX, MIN_INDEX};

/// The buckets in which a time doubles.
const PER_DOUBLING: f64 = 8.0;
/// The bounds of buckets.
const BOUNDS: core::ops::RangeInclusive<i16> = MIN_INDEX + 1..=MAX_INDEX;

/// The logarithm of the evidence against "the quantile of the second is at most 2^(`steps`/8) times that of the first".
fn evidence_beyond(first: &ArmTimes, second: &ArmTimes, steps: i16) -> f64 {
    let at = |bound: i16| {
        let of_second = bound.saturating_add(steps);
        let speaks = first.share(bound) > first.part() && second.share(of_second) < second.part();
        speaks.then(|| first.evidence_above(bound).min(second.evidence_below(of_second)))
    };
    // The logarithm of a mean of exponentials, without overflow.
    let (mut greatest, mut sum) = (f64::NEG_INFINITY, 0.0);
    for evidence in BOUNDS.filter_map(at) {
        if evidence > greatest {
            (sum, greatest) = (sum * exp(greatest - evidence) + 1.0, evidence);
        } else {
            sum += exp(evidence - greatest);
        }
    }
    let price = log(f64::from(MAX_INDEX - MIN_INDEX)) + first.price();
    if sum > 0.0 { greatest + log(sum) - price } else { f64::NEG_INFINITY }
}

/// A p-value, valid at every look, of "the quantile of the second is at most `ratio` times that of the first". If the
/// statement is true, the chance that the value ever falls to α is at most α.
///
/// ```
/// use bailiwick_rules::observe::Histogram;
/// use bailiwick_rules::rollout::quantile::p_of_at_most;
/// use bailiwick_rules::rollout::strata::alike;
/// use bailiwick_rules::rollout::times::Times;
/// let (mut old, mut new) = (Histogram::default(), Histogram::default());
/// for nth in 0..1_000 {
///     old.count(200_000 + nth * 100);
///     new.count(400_000 + nth * 200);
/// }
/// // The 95th percentiles, of requests in one class.
/// let [old, new] = alike(Times::of(&old), Times::of(&new), 0.95);
/// assert!(p_of_at_most(&old, &new, 1.5) < 0.001);
/// assert!(p_of_at_most(&old, &new, 2.2) >= 1.0);
/// ```
#[must_use]
pub fn p_of_at_most(first: &ArmTimes, second: &ArmTimes, ratio: f64) -> f64 {
    // A little less, because the logarithm of an exact power may be rounded up.
    let steps = whole(ceil(log2(ratio) * PER_DOUBLING - 1e-9));
    steps.map_or(1.0, |steps| exp(-evidence_beyond(first, second, steps)).min(1.0))
}

/// A p-value, valid at every look, of "the quantile of the second is at least `ratio` times that of the first".
#[must_use]
pub fn p_of_at_least(first: &ArmTimes, second: &ArmTimes, ratio: f64) -> f64 {
    // The same as "the quantile of the first is at most `1/ratio` times that of the second".
    let steps = whole(floor(log2(ratio) * PER_DOUBLING + 1e-9));
    steps.map_or(1.0, |steps| exp(-evidence_beyond(second, first, -steps)).min(1.0))
}

/// A number of buckets as an integer, at most the widest ratio; `None` for NaN.
#[expect(clippy::cast_possible_truncation, reason = "clamped before")]
fn whole(steps: f64) -> Option<i16> {
    (!steps.is_nan()).then(|| steps.clamp(-f64::from(WIDEST), f64::from(WIDEST)) as i16)
}

/// The ratios, second quantile to first, that aren't refuted at level `alpha`, to the bounds of the histogram.
#[must_use]
pub fn interval(first: &ArmTimes, second: &ArmTimes, alpha: f64) -> Interval {
    // Either end may be wrong, so each gets half of the level.
    let limit = -log(alpha / 2.0);
    let ratio = |steps: i16| exp2(f64::from(steps) / PER_DOUBLING);
    let is_beyond = |steps: &i16| evidence_beyond(first, second, *steps) >= limit;
    let is_short = |steps: &i16| evidence_beyond(second, first, -*steps) >= limit;
    Interval {
        low: (-WIDEST..=WIDEST).rev().find(is_beyond).map_or(0.0, ratio),
        high: (-WIDEST..=WIDEST).find(is_short).map_or(f64::INFINITY, ratio),
    }
}

#[cfg(test)]
mod tests {
    use super::super::proportion::Events;
    use super::super::proportion::{evidence_above, evidence_below};
    use super::super::strata::alike;
    use super::super::times::Times;
    use super::*;
    use crate::observe::Histogram;

    #[test]
    fn evidence_is_averaged_over_all_bounds() {
        // All of the first arm lies in one bucket, all of the second two buckets higher: for a ratio of one bound, only
        // the bound between speaks.
        let (mut old, mut new) = (Histogram::default(), Histogram::default());
        (0..500).for_each(|_| old.count(1_000_000));
        (0..500).for_each(|_| new.count(1_150_000));
        let [old, new] = alike(Times::of(&old), Times::of(&new), 0.95);
        let all = Events { happened: 500, trials: 500 };
        let none = Events { happened: 0, trials: 500 };
        let alone = evidence_above(all, 0.95).min(evidence_below(none, 0.95));
        let bounds = log(f64::from(MAX_INDEX - MIN_INDEX));
        assert_eq!(BOUNDS.count(), usize::try_from(MAX_INDEX - MIN_INDEX).unwrap());
        assert!((evidence_beyond(&old, &new, 1) - (alone - bounds)).abs() < 1e-9);
        assert_eq!(evidence_beyond(&old, &new, 2), f64::NEG_INFINITY, "no bound speaks");
        assert_eq!(evidence_beyond(&new, &old, 0), f64::NEG_INFINITY, "the new time is shorter");
    }
}
