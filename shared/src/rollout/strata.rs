//! Compares the times of two arms of a rollout (the sessions with the old and with the new thing) as if both arms had
//! the same mix of short and long requests. A class, or stratum, is the requests of about the same length. Takes the
//! times of both arms by class, returns the evidence that the share of times up to a bound is greater or less than a
//! given part. Called by `check`, which makes the arms, and by [`super::quantile`], which asks them.
//!
//! **Why classes.** The time to the first token grows with the prompt. A few sessions with long prompts may all belong
//! to one arm, and then this arm seems slow. Sessions differ so much that chance takes long to even that out. Within a
//! class of lengths, both arms do the same work.
//!
//! **What is compared.** The share of times up to a bound in an arm is the mean of its classes' shares, weighted by
//! how many requests of both arms together are of each class (direct standardisation). If the new arm is as fast in
//! each class, it is as fast by these shares, whatever the mix of each arm. A class with few requests has little
//! weight and can say little.
//!
//! **How.** Evidence is a ratio of likelihoods that has a mean of at most 1 if the hypothesis is true
//! ([`super::proportion`] explains this). For each class, the mixture of likelihoods divided by the likelihood of the
//! true share is a martingale. The product over all classes of an arm is a martingale, too.
//!
//! The hypothesis says that the weighted mean of an arm's shares is at most (or at least) a part. Many sets of shares
//! fulfil it. The mixture is divided by the likelihood of the set that fits best (universal inference), so the evidence
//! is never greater than the martingale. That holds for any weights, so the weights may follow the traffic.
//!
//! **Why half.** The hypothesis about a ratio is true if either arm's shares fulfil their half of it. Which arm does so
//! depends on the weights, so it may change from look to look. Each arm has its martingale, and the evidence is at most
//! the greater of the two. The greater is at most their sum, and the sum has a mean of 2, so the evidence is halved.
//! It is halved while all requests are of one class, too. Otherwise the looks before the second class and the looks
//! after it would each have their own chance of error, and these chances add up. Times that never get classes
//! ([`alike`]) aren't halved.
//!
//! Sources: L. Wasserman, A. Ramdas, S. Balakrishnan, *Universal inference* (2020). W. G. Cochran, *The effectiveness
//! of adjustment by subclassification in removing bias in observational studies* (1968). R. Turner, A. Ly, P.
//! Grünwald, *Generic E-variables for exact sequential k-sample tests that allow for optional stopping* (2024).

use core::cell::Cell;
use core::f64::consts::LN_2;

use libm::sqrt;

use super::proportion::{self, Events};
use super::times::{Times, WIDEST};
use crate::observe::{MAX_INDEX, MIN_INDEX};

/// The bounds whose evidence is stored once it was computed.
const STORED: core::ops::RangeInclusive<i16> = MIN_INDEX - WIDEST..=MAX_INDEX + WIDEST;
/// How often the interval for the strength (see [`rate`]) is halved, to find the likeliest shares.
const HALVINGS: u32 = 40;
/// How often the strength is doubled before that, to find the interval.
const DOUBLINGS: u32 = 64;

/// The times of one arm by class, with the weight of each class. Both arms have the same weights.
#[derive(Clone, Debug)]
pub struct ArmTimes {
    classes: Vec<(Times, f64)>,
    /// The quantile that is compared, such as 0.95.
    part: f64,
    /// What `quantile` subtracts from the logarithm of the evidence: ln 2 to halve the evidence, or 0.
    price: f64,
    /// The evidence for each bound that the share is greater than the part, once it was computed; else NaN.
    above: Vec<Cell<f64>>,
    /// The same for less than the part.
    below: Vec<Cell<f64>>,
}

/// Both arms with all of their times in one class.
#[must_use]
pub fn alike(old: Times, new: Times, part: f64) -> [ArmTimes; 2] {
    arm_times(vec![old], vec![new], part).map(|arm| ArmTimes { price: 0.0, ..arm })
}

/// Both arms with their times in these classes. The weight of a class is its part of the requests of both arms
/// together. Later looks may have more classes.
#[must_use]
pub fn arm_times(old: Vec<Times>, new: Vec<Times>, part: f64) -> [ArmTimes; 2] {
    let all: u64 = old.iter().chain(&new).fold(0, |sum, timing| sum.saturating_add(timing.len()));
    let weights: Vec<f64> = old
        .iter()
        .zip(&new)
        .map(|(old, new)| number(old.len().saturating_add(new.len())) / number(all.max(1)))
        .collect();
    let arm = |classes: Vec<Times>| {
        let empty = vec![Cell::new(f64::NAN); STORED.count()];
        // A class without requests in either arm has no weight.
        let classes = classes.into_iter().zip(weights.iter().copied()).filter(|(_, weight)| *weight > 0.0).collect();
        ArmTimes { classes, part, price: LN_2, above: empty.clone(), below: empty }
    };
    [arm(old), arm(new)]
}

#[expect(clippy::cast_precision_loss, reason = "counts of more than 2^53 requests don't occur")]
fn number(count: u64) -> f64 {
    count as f64
}

impl ArmTimes {
    /// The number of times.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.classes.iter().fold(0, |sum, (times, _)| sum.saturating_add(times.len()))
    }

    /// Whether there are no times.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The quantile that is compared.
    pub(super) fn part(&self) -> f64 {
        self.part
    }

    /// What `quantile` subtracts from the logarithm of the evidence: ln 2, because it depends on the weights which arm
    /// fulfils the hypothesis, or 0 if there are never classes.
    pub(super) fn price(&self) -> f64 {
        self.price
    }

    /// The weighted share of times up to a bound. A class without times counts as none.
    pub(super) fn share(&self, bound: i16) -> f64 {
        self.classes.iter().map(|(times, weight)| weight * times.up_to(bound).rate()).sum()
    }

    /// The logarithm of the evidence against "the share of times up to a bound is at most the part".
    pub(super) fn evidence_above(&self, bound: i16) -> f64 {
        if let [(times, _)] = self.classes.as_slice() {
            return proportion::evidence_above(times.up_to(bound), self.part);
        }
        self.stored(&self.above, bound, || {
            let classes = self.classes.iter().map(|(times, weight)| (times.up_to(bound), *weight));
            evidence_above(&classes.collect::<Vec<_>>(), self.part)
        })
    }

    /// The logarithm of the evidence against "the share of times up to a bound is at least the part".
    pub(super) fn evidence_below(&self, bound: i16) -> f64 {
        if let [(times, _)] = self.classes.as_slice() {
            return proportion::evidence_below(times.up_to(bound), self.part);
        }
        self.stored(&self.below, bound, || {
            // The share of the times above it is at most the rest.
            let above = |events: Events| Events { happened: events.trials.saturating_sub(events.happened), ..events };
            let classes = self.classes.iter().map(|(times, weight)| (above(times.up_to(bound)), *weight));
            evidence_above(&classes.collect::<Vec<_>>(), 1.0 - self.part)
        })
    }

    /// Returns a stored value, or computes and stores it.
    fn stored(&self, cells: &[Cell<f64>], bound: i16, compute: impl FnOnce() -> f64) -> f64 {
        let place = usize::try_from(i32::from(bound) - i32::from(*STORED.start())).ok();
        let Some(cell) = place.and_then(|place| cells.get(place)) else { return compute() };
        if cell.get().is_nan() {
            cell.set(compute());
        }
        cell.get()
    }
}

/// The logarithm of the evidence against "the weighted mean of the rates is at most `limit`".
fn evidence_above(classes: &[(Events, f64)], limit: f64) -> f64 {
    let mixtures: f64 = classes.iter().map(|(events, _)| events.log_mixture()).sum();
    let likelihood = |strength: f64| -> f64 {
        classes.iter().map(|(events, weight)| events.log_likelihood(rate(*events, strength * weight))).sum()
    };
    let mean = |strength: f64| -> f64 {
        classes.iter().map(|(events, weight)| weight * rate(*events, strength * weight)).sum()
    };
    if mean(0.0) <= limit {
        return mixtures - likelihood(0.0);
    }
    // The mean falls as the strength grows. It is above the limit at `less`, and not above it at `more`.
    let (mut less, mut more) = (0.0, 1.0);
    for _ in 0..DOUBLINGS {
        if mean(more) <= limit {
            break;
        }
        (less, more) = (more, more * 2.0);
    }
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(less, more);
        if mean(middle) > limit { less = middle } else { more = middle }
    }
    // On the side of the greater likelihood, so that the evidence is never too strong.
    mixtures - likelihood(less)
}

/// The likeliest rate of a class if the weighted mean of the rates is limited. `strength` is the Lagrange multiplier of
/// this condition times the weight of the class; 0 means no condition. At the rate, the derivative of the logarithm of
/// the likelihood equals the strength. It solves `strength · p² − (trials + strength) · p + happened = 0`.
fn rate(events: Events, strength: f64) -> f64 {
    let Events { happened, trials } = events;
    let (yes, all) = (number(happened.min(trials)), number(trials));
    if happened == 0 {
        return 0.0;
    }
    let sum = all + strength;
    2.0 * yes / (sum + sqrt((sum * sum - 4.0 * strength * yes).max(0.0)))
}

#[cfg(test)]
mod tests;
