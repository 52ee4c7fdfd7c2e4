//! Statistics for two runs of an eval whose answers have scores. Takes, for each case, the score in the second run less
//! the score in the first; returns p-values for whether the mean difference is zero, and for whether it is less than a
//! margin. Called by [`super::compare`].
//!
//! **Scores from 0 to 1** are tested by betting. If a claim about the mean is true, a gambler who bets against it can't
//! expect to win, so the chance to ever have 1/α times the stake is at most α. Several constant bets share the stake.
//! Nothing is approximated: the test holds for every distribution of scores, also if hardly any case differs. It needs
//! two to four times as many cases as a t test.
//!
//! **Scores without bounds**, such as likelihoods, are tested by two one-sided paired t tests (Schuirmann), which need
//! [`LEAST_DIFFERING`] cases that differ.
//!
//! **The interval** is a paired bootstrap: cases are drawn again with replacement, by a seed. The interval is only
//! reported; it decides nothing.
//!
//! Sources: I. Waudby-Smith, A. Ramdas, *Estimating means of bounded random variables by betting* (2024). D. J.
//! Schuirmann, *A comparison of the two one-sided tests procedure and the power approach* (1987). B. Efron, R. J.
//! Tibshirani, *An Introduction to the Bootstrap* (1993). G. L. Steele, D. Lea, C. H. Flood, *Fast splittable
//! pseudorandom number generators* (2014).

use libm::{exp, log, log1p, sqrt};
use statrs::distribution::{ContinuousCDF, StudentsT};

use super::binomial::number;

/// The parts of the greatest allowed bet. Close ones are for rare differences, distant ones for noisy scores.
const BETS: [f64; 6] = [0.95, 0.65, 0.33, 0.125, 0.04, 0.015];
/// The cases that have to differ before a t test is believed.
pub const LEAST_DIFFERING: usize = 30;
/// How often cases are drawn again, at most.
const DRAWS: usize = 10_000;
/// How many scores are drawn in all, at most. Large runs are drawn less often.
const DRAWN: usize = 100_000_000;
/// How often cases are drawn again, at least.
const LEAST_DRAWS: usize = 1_000;

/// The mean.
#[must_use]
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / count(values).max(1.0)
}

/// The p-value of "the mean is at most `bound`" for differences from −1 to 1: exact, by betting.
#[must_use]
pub fn p_of_at_most(differences: &[f64], bound: f64) -> f64 {
    let fits = |value: &f64| (-1.0..=1.0).contains(value);
    if !fits(&bound) || bound >= 1.0 || !differences.iter().all(fits) {
        return 1.0;
    }
    // A bet of 1 / (bound + 1) may lose all at a difference of −1.
    let logs = BETS.map(|part| differences.iter().map(|value| log1p(part * (value - bound) / (bound + 1.0))).sum());
    let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let shared: f64 = logs.iter().map(|log: &f64| exp(log - most)).sum();
    let won = most + log(shared / number(BETS.len() as u64));
    exp(-won).min(1.0)
}

/// The p-value of "the mean is at most `bound`" by a t test; `None` if too few cases differ.
#[must_use]
pub fn p_of_at_most_by_t(differences: &[f64], bound: f64) -> Option<f64> {
    let differing = differences.iter().filter(|value| **value != 0.0).count();
    if differing < LEAST_DIFFERING || !differences.iter().all(|value| value.is_finite()) {
        return None;
    }
    let (n, mean) = (count(differences), mean(differences));
    let squares: f64 = differences.iter().map(|value| (value - mean) * (value - mean)).sum();
    let error = sqrt(squares / (n - 1.0) / n);
    // A difference that is always the same, but for rounding, is no sample of noise.
    if error <= 1e-12 * mean.abs() {
        return None;
    }
    let student = StudentsT::new(0.0, 1.0, n - 1.0).ok()?;
    Some(student.sf((mean - bound) / error))
}

/// The middle of the means of cases that were drawn again, without `alpha` at each side.
#[must_use]
pub fn bootstrap(differences: &[f64], alpha: f64, seed: u64) -> [f64; 2] {
    let n = differences.len();
    if n == 0 {
        return [f64::NEG_INFINITY, f64::INFINITY];
    }
    let draws = (DRAWN / n).clamp(LEAST_DRAWS, DRAWS);
    let mut random = SplitMix(seed);
    let mut means: Vec<f64> = (0..draws)
        .map(|_| {
            let sum: f64 = (0..n).filter_map(|_| differences.get(random.below(n))).sum();
            sum / count(differences)
        })
        .collect();
    means.sort_by(f64::total_cmp);
    // The whole number of draws to leave away at each side.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of the draws")]
    let away = (number(draws as u64) * alpha.clamp(0.0, 0.5)) as usize;
    let at = |place: usize| means.get(place.min(draws - 1)).copied().unwrap_or(f64::NAN);
    [at(away), at(draws - 1 - away.min(draws - 1))]
}

fn count(values: &[f64]) -> f64 {
    number(values.len() as u64)
}

/// A generator of numbers that depend on nothing but its seed.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`: the upper half of a product, which is even enough for bounds far below 2^64.
    fn below(&mut self, bound: usize) -> usize {
        let product = u128::from(self.next()) * (bound as u128);
        usize::try_from(product >> 64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
