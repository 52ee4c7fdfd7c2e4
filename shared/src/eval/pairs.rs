//! Statistics for two runs of an eval whose answers are right or wrong. Both runs have the same cases, so each case is
//! a pair of answers. Takes how many cases both runs got right, only one of them, or neither; returns p-values for
//! whether the runs differ, and for whether they differ by less than a margin. Called by [`super::compare`].
//!
//! **Do they differ?** Cases that both runs get right, or both wrong, say nothing. If neither run is better, each has
//! half of the other cases on average, so their number is binomial. This is the exact test of McNemar.
//!
//! **Are they alike?** Two one-sided tests (TOST, Schuirmann) ask whether the second run isn't worse by the margin, and
//! whether it isn't better by it. Each is the score test with the rates that fit best at the margin (Tango). The
//! p-value isn't taken from a normal curve, which is too narrow when few cases differ. Instead, for each rate at which
//! cases might differ, the chances of all results that are at least as strong are added up, and the greatest sum is the
//! p-value. So two runs that agree on all of 20 cases aren't yet shown to be alike within two points.
//!
//! Sources: Q. McNemar, *Note on the sampling error of the difference between correlated proportions or percentages*
//! (1947). D. J. Schuirmann, *A comparison of the two one-sided tests procedure and the power approach* (1987).
//! T. Tango, *Equivalence test and confidence interval for the difference in proportions for the paired-sample
//! design* (1998). H. Hsueh, J. Liu, J. J. Chen, *Unconditional exact tests for equivalence or noninferiority for
//! paired binary endpoints* (2001).

use libm::sqrt;
use statrs::distribution::{ContinuousCDF, Normal};

use super::binomial::{Binomials, number};

/// How many pieces the range of rates is cut into at first, to find the rate with the greatest chance.
const PIECES: u32 = 64;
/// How often the distance to the neighbours of the best rate is halved then.
const REFINED: u32 = 12;
/// How far rounding may move the value of a test.
const ROUNDING: f64 = 1e-9;

/// How many cases each of two runs got right.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Pairs {
    /// Cases that both runs got right.
    pub both: u64,
    /// Cases that only the first run got right.
    pub only_a: u64,
    /// Cases that only the second run got right.
    pub only_b: u64,
    /// Cases that neither run got right.
    pub neither: u64,
}

impl Pairs {
    /// Counts a case.
    pub fn add(&mut self, a: bool, b: bool) {
        match (a, b) {
            (true, true) => self.both += 1,
            (true, false) => self.only_a += 1,
            (false, true) => self.only_b += 1,
            (false, false) => self.neither += 1,
        }
    }

    /// All cases.
    #[must_use]
    pub fn len(self) -> u64 {
        self.both + self.only_a + self.only_b + self.neither
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The share of cases that the second run got right, minus the share of the first run.
    #[must_use]
    pub fn difference(self) -> f64 {
        (number(self.only_b) - number(self.only_a)) / number(self.len()).max(1.0)
    }

    /// With the runs exchanged.
    #[must_use]
    pub fn exchanged(self) -> Self {
        Self { only_a: self.only_b, only_b: self.only_a, ..self }
    }
}

/// The p-value of "both are equally often right", two-sided: McNemar's exact test.
#[must_use]
pub fn p_of_no_difference(pairs: Pairs) -> f64 {
    let fewer = pairs.only_a.min(pairs.only_b);
    let differing = pairs.only_a + pairs.only_b;
    f64::min(2.0 * Binomials::up_to(differing).at_most(differing, fewer, 0.5), 1.0)
}

/// The p-value of the claim "the second run is worse by `margin` or more", from 0 to 1. It is exact: if the claim
/// holds, the p-value is 0.05 or less with a chance of at most 0.05, whatever the rates are, and so for any other
/// bound. It is 1 without cases, and for a margin that doesn't lie between 0 and 1.
#[must_use]
pub fn p_of_worse_by(pairs: Pairs, margin: f64) -> f64 {
    let n = pairs.len();
    if n == 0 || margin <= 0.0 || margin >= 1.0 || margin.is_nan() {
        return 1.0;
    }
    let mut region = Region::new(pairs, margin);
    // The rate at which only the second run is right. At the edge of the claim, the rate at which only the first is
    // right is greater by the margin. Both together are at most 1. The square puts more of the pieces near 0, where the
    // chance changes most.
    let most = (1.0 - margin) / 2.0;
    let rate = |place: f64| most * place * place;
    let mut best = (0.0, 0.0);
    let mut look = |place: f64, best: &mut (f64, f64)| {
        let chance = region.chance(rate(place));
        if chance > best.1 {
            *best = (place, chance);
        }
    };
    let step = 1.0 / f64::from(PIECES);
    for piece in 0..=PIECES {
        look(f64::from(piece) * step, &mut best);
    }
    let mut width = step / 2.0;
    for _ in 0..REFINED {
        let centre = best.0;
        for place in [centre - width, centre + width] {
            look(place.clamp(0.0, 1.0), &mut best);
        }
        width /= 2.0;
    }
    f64::min(best.1, 1.0)
}

/// Tango's score confidence interval (1998) for the difference: the share of the second run minus that of the first. It
/// holds the differences that the score test doesn't reject at `alpha` on either side.
///
/// It takes the score as normally distributed, which the p-values here don't. It may: the interval is shown and decides
/// nothing, and a score interval covers about what it says for few cases, too.
#[must_use]
pub fn interval(pairs: Pairs, alpha: f64) -> [f64; 2] {
    if pairs.is_empty() {
        return [-1.0, 1.0];
    }
    let z = Normal::standard().inverse_cdf(1.0 - alpha.clamp(1e-12, 0.5));
    // The greatest assumed difference, first run minus second, that isn't rejected. The score falls as the assumed
    // difference rises, so halving finds it.
    let upper = |pairs: Pairs| {
        let (mut low, mut high) = (pairs.exchanged().difference(), 1.0);
        for _ in 0..60 {
            let middle = f64::midpoint(low, high);
            if score(pairs.only_a, pairs.only_b, pairs.len(), middle) > -z { low = middle } else { high = middle }
        }
        low
    };
    [-upper(pairs), upper(pairs.exchanged())]
}

/// The rejection region: the results that speak at least as strongly against "worse by the margin" as the observed
/// result. A result is how many cases only the first run got right, and how many only the second.
struct Region {
    /// The number of cases.
    n: u64,
    margin: f64,
    /// The score of the observed result, with what rounding may add. Results with a lower score are in the region.
    observed: f64,
    /// By the number of cases that only the second run got right: how many numbers for the first run are in the region,
    /// from 0 on. Computed when it is first asked for.
    bounds: Vec<Option<u64>>,
    binomials: Binomials,
}

impl Region {
    fn new(pairs: Pairs, margin: f64) -> Self {
        let n = pairs.len();
        let observed = score(pairs.only_a, pairs.only_b, n, margin) + ROUNDING;
        let length = usize::try_from(n).unwrap_or(usize::MAX).saturating_add(1);
        Self { n, margin, observed, bounds: vec![None; length], binomials: Binomials::up_to(n) }
    }

    /// For this number of cases that only the second run got right: how many numbers for the first run are in the
    /// region, from 0 on.
    fn bound(&mut self, only_b: u64) -> u64 {
        let (n, margin, observed) = (self.n, self.margin, self.observed);
        let bound = usize::try_from(only_b).ok().and_then(|place| self.bounds.get_mut(place));
        let Some(bound) = bound else { return 0 };
        *bound.get_or_insert_with(|| {
            // The score rises with the cases that only the first run got right, so halving finds the first one outside.
            let (mut low, mut high) = (0, n - only_b + 1);
            while low < high {
                let middle = u64::midpoint(low, high);
                if score(middle, only_b, n, margin) <= observed { low = middle + 1 } else { high = middle }
            }
            low
        })
    }

    /// The chance of a result in the region if only the second run is right at `rate`, and only the first at `rate +
    /// margin`.
    fn chance(&mut self, rate: f64) -> f64 {
        // The rate at which only the first run is right, among the cases that are left.
        let of_first = ((rate + self.margin) / (1.0 - rate)).min(1.0);
        // Nine standard deviations and some: what lies outside weighs less than 10⁻¹⁵.
        let mode = number(self.n) * rate;
        let reach = 9.0 * sqrt(mode * (1.0 - rate)) + 40.0;
        let mut sum = 0.0;
        for only_b in whole(mode - reach)..=whole(mode + reach).min(self.n) {
            if let Some(most) = self.bound(only_b).checked_sub(1) {
                let weight = self.binomials.mass(self.n, only_b, rate);
                sum += weight * self.binomials.at_most(self.n - only_b, most, of_first);
            }
        }
        sum
    }
}

/// The count at or below a number.
fn whole(number: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "cut off at both ends")]
    let count = number.max(0.0) as u64;
    count
}

/// The score test's value for "the first run is right more often by `margin`": below 0 if it is by less.
fn score(only_a: u64, only_b: u64, n: u64, margin: f64) -> f64 {
    if margin < 0.0 {
        return -score(only_b, only_a, n, -margin);
    }
    let (a, b, n) = (number(only_a), number(only_b), number(n));
    // The likeliest rate of "only the second run is right" under the claim solves 2n·q² + linear·q − constant = 0.
    let linear = 2.0 * n * margin - a * (1.0 + margin) - b * (1.0 - margin);
    let constant = b * margin * (1.0 - margin);
    let rate = (sqrt(linear * linear + 8.0 * n * constant) - linear) / (4.0 * n);
    let variance = n * (2.0 * rate + margin * (1.0 - margin));
    let excess = a - b - n * margin;
    match variance > 0.0 {
        true => excess / sqrt(variance),
        false if excess == 0.0 => 0.0,
        false => f64::INFINITY.copysign(excess),
    }
}

#[cfg(test)]
mod tests;
