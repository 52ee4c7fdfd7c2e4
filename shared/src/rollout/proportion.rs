//! Tests of two proportions that may be looked at as often as one likes. Takes how often something happened to two
//! arms of a rollout; returns how strongly that speaks against a difference, and which differences remain possible.
//! `first` is the old arm and `second` is the new one. Called by `check` for shares and by `strata` for times.
//!
//! **Why no usual test.** A test at a level of 1 % errs in one of a hundred looks. If somebody looks each minute until
//! the test fires, it almost surely misleads them. Here the level holds for all looks together, whenever one stops.
//!
//! **How.** For fixed rates, a mixture of likelihoods divided by the likelihood of those rates is a martingale. Its
//! mean is 1 however long one waits, so the chance that it ever reaches 1/α is at most α (Ville's inequality). The
//! mixture is over Jeffreys' prior, Beta(½, ½), for each arm. If the hypothesis allows many rates, the mixture is
//! divided by the likelihood of those that fit best, so that the level holds for each of them (universal inference).
//! Nothing is approximated: the level holds for small counts and rare errors, too.
//!
//! Sources: J. Ville, *Étude critique de la notion de collectif* (1939). H. Robbins, *Statistical methods related to
//! the law of the iterated logarithm* (1970). L. Wasserman, A. Ramdas, S. Balakrishnan, *Universal inference* (2020).
//! R. Johari, P. Koomen, L. Pekelis, D. Walsh, *Always valid inference* (2022).

use libm::{exp, lgamma, log};

/// How often an interval is halved to find a rate or a difference: to less than 10⁻¹².
const HALVINGS: u32 = 41;
/// The logarithm of π, which is B(½, ½).
const LOG_PI: f64 = 1.144_729_885_849_400_2;

/// How often something happened in a number of trials.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Events {
    /// The trials in which it happened. If this exceeds `trials`, it counts as `trials`.
    pub happened: u64,
    /// All trials.
    pub trials: u64,
}

/// Numbers that remain possible.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Interval {
    /// The least.
    pub low: f64,
    /// The greatest.
    pub high: f64,
}

#[expect(clippy::cast_precision_loss, reason = "counts of more than 2^53 requests don't occur")]
fn number(count: u64) -> f64 {
    count as f64
}

impl Events {
    /// The share of trials in which it happened; 0 if there were none.
    #[must_use]
    pub fn rate(self) -> f64 {
        if self.trials == 0 { 0.0 } else { number(self.yes()) / number(self.trials) }
    }

    fn yes(self) -> u64 {
        self.happened.min(self.trials)
    }

    fn no(self) -> u64 {
        self.trials - self.yes()
    }

    /// The logarithm of the likelihood of a rate.
    pub(super) fn log_likelihood(self, rate: f64) -> f64 {
        let part = |count: u64, rate: f64| if count == 0 { 0.0 } else { number(count) * log(rate) };
        part(self.yes(), rate) + part(self.no(), 1.0 - rate)
    }

    /// The derivative of [`Events::log_likelihood`].
    fn slope(self, rate: f64) -> f64 {
        let part = |count: u64, rate: f64| if count == 0 { 0.0 } else { number(count) / rate };
        part(self.yes(), rate) - part(self.no(), 1.0 - rate)
    }

    /// The logarithm of the mean likelihood over Jeffreys' prior.
    pub(super) fn log_mixture(self) -> f64 {
        lgamma(0.5 + number(self.yes())) + lgamma(0.5 + number(self.no())) - lgamma(1.0 + number(self.trials)) - LOG_PI
    }
}

/// The logarithm of the evidence against "the rate is at most `limit`".
#[must_use]
pub fn evidence_above(events: Events, limit: f64) -> f64 {
    events.log_mixture() - events.log_likelihood(events.rate().min(limit))
}

/// The logarithm of the evidence against "the rate is at least `limit`".
#[must_use]
pub fn evidence_below(events: Events, limit: f64) -> f64 {
    events.log_mixture() - events.log_likelihood(events.rate().max(limit))
}

/// The logarithm of the evidence against "the second rate less the first is `difference`".
fn evidence_against(first: Events, second: Events, difference: f64) -> f64 {
    // The first rate is free, and the second is the first plus the difference. The logarithm of their likelihood is
    // concave in the first rate: it rises up to the rate that fits best, then falls. So halving finds that rate.
    let (mut low, mut high) = ((-difference).max(0.0), (1.0 - difference).min(1.0));
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(low, high);
        let is_rising = first.slope(middle) + second.slope((middle + difference).clamp(0.0, 1.0)) > 0.0;
        if is_rising { low = middle } else { high = middle }
    }
    let rate = f64::midpoint(low, high);
    let best = first.log_likelihood(rate) + second.log_likelihood((rate + difference).clamp(0.0, 1.0));
    first.log_mixture() + second.log_mixture() - best
}

/// A p-value, valid at every look, of "the second rate exceeds the first by at most `margin`". If that is true, the
/// chance that the value ever falls to α is at most α.
///
/// ```
/// use bailiwick_rules::rollout::proportion::{Events, p_of_at_most};
/// let (old, new) = (Events { happened: 50, trials: 5_000 }, Events { happened: 150, trials: 5_000 });
/// assert!(p_of_at_most(old, new, 0.005) < 0.01, "1 % and 3 %");
/// assert!(p_of_at_most(old, old, 0.005) >= 1.0);
/// ```
#[must_use]
pub fn p_of_at_most(first: Events, second: Events, margin: f64) -> f64 {
    if first.trials == 0 || second.trials == 0 || second.rate() - first.rate() <= margin {
        return 1.0;
    }
    // The seen difference lies beyond the margin, and differences fit worse the farther they are from it. So of all
    // that the hypothesis allows, the margin itself fits best.
    exp(-evidence_against(first, second, margin)).min(1.0)
}

/// A p-value, valid at every look, of "the second rate exceeds the first by at least `margin`".
#[must_use]
pub fn p_of_at_least(first: Events, second: Events, margin: f64) -> f64 {
    if first.trials == 0 || second.trials == 0 || second.rate() - first.rate() >= margin {
        return 1.0;
    }
    // The margin itself fits best, as in `p_of_at_most`.
    exp(-evidence_against(first, second, margin)).min(1.0)
}

/// The differences, second rate less first, that aren't refuted at level `alpha`. The chance that the intervals of all
/// looks hold the true difference is at least `1 − alpha`.
///
/// ```
/// use bailiwick_rules::rollout::proportion::{Events, interval};
/// let (old, new) = (Events { happened: 50, trials: 5_000 }, Events { happened: 150, trials: 5_000 });
/// let possible = interval(old, new, 0.01);
/// assert!(0.005 < possible.low && possible.low < 0.02 && 0.02 < possible.high && possible.high < 0.04);
/// ```
#[must_use]
pub fn interval(first: Events, second: Events, alpha: f64) -> Interval {
    if first.trials == 0 || second.trials == 0 {
        return Interval { low: -1.0, high: 1.0 };
    }
    let (difference, limit) = (second.rate() - first.rate(), -log(alpha));
    let is_refuted = |difference: f64| evidence_against(first, second, difference) >= limit;
    // The evidence grows with the distance from the seen difference, on either side. So there is one edge between the
    // seen difference and an end that is refuted, and halving finds it. The side that is refuted is returned, so the
    // interval is never too narrow.
    let edge = |end: f64| {
        if !is_refuted(end) {
            return end;
        }
        let (mut outside, mut inside) = (end, difference);
        for _ in 0..HALVINGS {
            let middle = f64::midpoint(outside, inside);
            if is_refuted(middle) { outside = middle } else { inside = middle }
        }
        outside
    };
    Interval { low: edge(-1.0), high: edge(1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The logarithm of the number of ways in which so many of all trials can happen.
    fn ways(trials: u64, happened: u64) -> f64 {
        lgamma(1.0 + number(trials)) - lgamma(1.0 + number(happened)) - lgamma(1.0 + number(trials - happened))
    }

    /// The mixture gives each outcome of so many trials a probability, and these add up to one. So the mean of mixture
    /// by likelihood is 1 at any fixed number of trials.
    #[test]
    fn the_mixture_adds_up_to_one_over_all_outcomes() {
        for trials in [1_u64, 2, 7, 40, 300] {
            let part = |happened| exp(ways(trials, happened) + Events { happened, trials }.log_mixture());
            let sum: f64 = (0..=trials).map(part).sum();
            assert!((sum - 1.0).abs() < 1e-9, "{trials}: {sum}");
        }
    }

    /// What makes the evidence a martingale: the mixture of what was seen is split between the two outcomes of the next
    /// trial.
    #[test]
    fn the_mixture_is_split_between_the_outcomes_of_the_next_trial() {
        for trials in [0_u64, 1, 2, 7, 40, 300] {
            for happened in 0..=trials {
                let mixture = |happened, trials| exp(Events { happened, trials }.log_mixture());
                let next = mixture(happened + 1, trials + 1) + mixture(happened, trials + 1);
                let ratio = next / mixture(happened, trials);
                assert!((ratio - 1.0).abs() < 1e-9, "{happened} of {trials}: {ratio}");
            }
        }
    }

    /// The evidence is the logarithm of a ratio. For any true rate, the mean of this ratio over all outcomes is one at
    /// most.
    #[test]
    fn evidence_against_what_is_true_has_a_mean_of_one_at_most() {
        let trials = 60;
        for rate in [0.003, 0.1, 0.5, 0.97] {
            let mean = |evidence: fn(Events, f64) -> f64| -> f64 {
                let part = |happened| {
                    let seen = Events { happened, trials };
                    exp(ways(trials, happened) + seen.log_likelihood(rate) + evidence(seen, rate))
                };
                (0..=trials).map(part).sum()
            };
            for mean in [mean(evidence_above), mean(evidence_below)] {
                assert!(mean > 0.0 && mean <= 1.0 + 1e-9, "{rate}: {mean}");
            }
        }
    }
}
