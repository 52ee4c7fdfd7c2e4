//! The checks of a rollout: whether the new arm is worse than the old one. The arms are the sessions with the old and
//! with the new thing. Each check compares one measure, such as the rate of errors, and allows the new arm to be worse
//! by a margin. Takes what was counted of both arms, returns a verdict for each check and for all of them. Called by
//! [`super::machine`].

use std::collections::BTreeSet;

use super::proportion::{self, Events, Interval};
use super::quantile;
use super::strata::{ArmTimes, alike, arm_times};
use super::times::Times;
use crate::observe::{ByWord, Counts, Histogram, Timing};
use crate::rules::{Allowed, Change, Measure};

/// Which quantile of the times is compared: 95 % of the times are shorter.
const PART: f64 = 0.95;
/// The outcomes of attempts that aren't the endpoint's fault.
const BLAMELESS: [&str; 5] = ["committed", "client_gone", "no_quota", "pending", "refused"];
/// Why a model stopped when it refused.
const REFUSALS: [&str; 1] = ["content_filter"];

/// How much worse the new arm may be.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Margin {
    /// For shares: the new arm's share may be greater by this much.
    Difference(f64),
    /// For times: the new arm may take this many times as long.
    Ratio(f64),
}

/// One check.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Check {
    /// What is compared.
    pub measure: Measure,
    /// How much worse the new arm may be.
    pub margin: Margin,
    /// Whether the check may fail before there are enough samples.
    pub is_critical: bool,
    /// Whether times are compared within classes of the request's length.
    pub is_by_length: bool,
}

/// How sure a verdict has to be.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Level {
    /// The chance that a new arm that is as good ever fails, over all checks and all looks together.
    pub alpha: f64,
    /// The chance that a check passes at any look although the new arm is worse by the margin.
    pub pass: f64,
    /// The samples that each arm needs.
    pub min_samples: u64,
}

/// The verdict of a check.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is certain that the new arm isn't worse by more than the margin.
    Pass,
    /// It is certain that the new arm is worse by more than the margin.
    Fail,
    /// Neither is certain.
    Inconclusive(Inconclusive),
}

/// Why neither is certain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Inconclusive {
    /// An arm has fewer samples than are asked for.
    FewSamples,
    /// The differences that are still possible lie on both sides of the margin.
    Wide,
    /// The rules give a margin of the wrong kind for this measure.
    Unfit,
}

/// One check with its verdict.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct CheckResult {
    /// The check.
    pub check: Check,
    /// Its verdict.
    pub verdict: Verdict,
    /// The p-value of "the new arm is worse by the margin at most".
    pub p_within: f64,
    /// The p-value of "the new arm is worse by the margin at least".
    pub p_beyond: f64,
    /// The samples of the old and the new arm.
    pub samples: [u64; 2],
    /// The shares of the old and the new arm; `None` if times are compared.
    pub rates: Option<[f64; 2]>,
}

/// All checks with their verdicts.
#[derive(Clone, PartialEq, Debug)]
pub struct Judgement {
    /// Each check.
    pub checks: Vec<CheckResult>,
    /// [`Verdict::Fail`] if one fails, [`Verdict::Pass`] if all pass.
    pub verdict: Verdict,
}

impl CheckResult {
    /// What was counted and what is allowed, in a sentence.
    fn sentence(&self) -> String {
        let [old, new] = self.samples;
        let counts = match self.rates {
            Some([of_old, of_new]) => {
                let per_cent = |part: f64| part * 100.0;
                format!("{:.2} % in the new arm and {:.2} % in the old one", per_cent(of_new), per_cent(of_old))
            }
            None => "longer in the new arm".to_owned(),
        };
        format!(
            "{} is {counts}, {} is allowed ({new} and {old} samples, p {:.1e})",
            self.check.measure.as_str(),
            self.check.allowed(),
            self.p_within
        )
    }
}

impl Judgement {
    /// The checks that failed, in one line.
    #[must_use]
    pub fn failures(&self) -> String {
        let failed = self.checks.iter().filter(|result| result.verdict == Verdict::Fail);
        failed.map(CheckResult::sentence).collect::<Vec<_>>().join("; ")
    }

    /// What isn't certain yet, in one line.
    #[must_use]
    pub fn undecided(&self) -> String {
        let words = |result: &CheckResult| {
            let name = result.check.measure.as_str();
            match result.verdict {
                Verdict::Inconclusive(Inconclusive::FewSamples) => {
                    Some(format!("{name} has {} and {} samples", result.samples[1], result.samples[0]))
                }
                Verdict::Inconclusive(Inconclusive::Wide) => Some(format!("{name} isn't certain yet")),
                Verdict::Inconclusive(Inconclusive::Unfit) => Some(format!("{name} has a margin that doesn't fit")),
                Verdict::Pass | Verdict::Fail => None,
            }
        };
        let undecided: Vec<String> = self.checks.iter().filter_map(words).collect();
        if undecided.is_empty() { "nothing is checked".to_owned() } else { undecided.join(", ") }
    }
}

/// Compares the new arm with the old one. This may be done at every moment: the level holds for all looks together.
#[must_use]
pub fn judge(checks: &[Check], old: &Counts, new: &Counts, level: Level) -> Judgement {
    let mut results: Vec<CheckResult> = checks.iter().map(|check| check.measure_arms(old, new)).collect();
    let failed = failed_positions(&results, level.alpha);
    for (position, result) in results.iter_mut().enumerate() {
        let has_samples = result.samples.iter().all(|samples| *samples >= level.min_samples.max(1));
        result.verdict = match result.verdict {
            Verdict::Inconclusive(Inconclusive::Unfit) => continue,
            _ if failed.contains(&position) && (has_samples || result.check.is_critical) => Verdict::Fail,
            _ if !has_samples => Verdict::Inconclusive(Inconclusive::FewSamples),
            _ if result.p_beyond <= level.pass => Verdict::Pass,
            _ => Verdict::Inconclusive(Inconclusive::Wide),
        };
    }
    let first_other = || results.iter().map(|result| result.verdict).find(|verdict| *verdict != Verdict::Pass);
    let verdict = match results.iter().any(|result| result.verdict == Verdict::Fail) {
        true => Verdict::Fail,
        // Without a check, nothing is proved.
        false if results.is_empty() => Verdict::Inconclusive(Inconclusive::FewSamples),
        false => first_other().unwrap_or(Verdict::Pass),
    };
    Judgement { checks: results, verdict }
}

/// The positions of the checks for which "the new arm is worse by the margin at most" is refuted. The level `alpha` is
/// for all checks together (S. Holm, *A simple sequentially rejective multiple test procedure*, 1979): the smallest
/// p-value is multiplied by the number of checks, the next one by one less, and so on until one is too great.
fn failed_positions(results: &[CheckResult], alpha: f64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..results.len()).collect();
    order.sort_by(|a, b| results[*a].p_within.total_cmp(&results[*b].p_within));
    let factor = |rank: usize| u32::try_from(results.len() - rank).map_or(f64::INFINITY, f64::from);
    let is_refuted = |(rank, position): &(usize, &usize)| results[**position].p_within * factor(*rank) <= alpha;
    let refuted = order.iter().enumerate().take_while(is_refuted).count();
    order.truncate(refuted);
    order
}

impl Check {
    /// The greatest difference or ratio that is allowed.
    #[must_use]
    pub fn limit(self) -> f64 {
        match self.margin {
            Margin::Difference(most) | Margin::Ratio(most) => most,
        }
    }

    /// The check of a measure in a rollout of this change, with the margin that the rules allow; `None` if the margin
    /// is of the wrong kind for the measure.
    ///
    /// Times are compared within classes of the request's length, as longer requests take longer. In a rollout of a
    /// bundle they aren't: the prompts of the bundle are part of the request, so the new version changes its length,
    /// and a slowness that comes from longer prompts should be noticed.
    #[must_use]
    pub fn of(measure: Measure, allowed: Allowed, change: &Change) -> Option<Self> {
        let margin = match measure.is_time() {
            true => Margin::Ratio(allowed.max_ratio?),
            false => Margin::Difference(allowed.max_diff?),
        };
        let is_by_length = !matches!(change, Change::Bundle { .. });
        Some(Self { measure, margin, is_critical: allowed.critical, is_by_length })
    }

    /// How much worse the new arm may be, in words.
    fn allowed(self) -> String {
        match self.margin {
            Margin::Difference(most) => format!("at most {:.2} points more", most * 100.0),
            Margin::Ratio(most) => format!("at most {most} times as long"),
        }
    }

    /// Compares one measure of both arms. The verdict stays open; [`judge`] sets it by the p-values.
    fn measure_arms(self, old: &Counts, new: &Counts) -> CheckResult {
        let shares = self.share(old).zip(self.share(new));
        let times = self.times(old, new);
        let (p_within, p_beyond, samples) = match (shares, times, self.margin) {
            (Some((old, new)), _, Margin::Difference(most)) => (
                proportion::p_of_at_most(old, new, most),
                proportion::p_of_at_least(old, new, most),
                [old.trials, new.trials],
            ),
            (_, Some([old, new]), Margin::Ratio(most)) => (
                quantile::p_of_at_most(&old, &new, most),
                quantile::p_of_at_least(&old, &new, most),
                [old.len(), new.len()],
            ),
            _ => {
                let verdict = Verdict::Inconclusive(Inconclusive::Unfit);
                return CheckResult {
                    check: self,
                    verdict,
                    p_within: 1.0,
                    p_beyond: 1.0,
                    samples: [0, 0],
                    rates: None,
                };
            }
        };
        let verdict = Verdict::Inconclusive(Inconclusive::Wide);
        let rates = shares.map(|(old, new)| [old.rate(), new.rate()]);
        CheckResult { check: self, verdict, p_within, p_beyond, samples, rates }
    }

    /// The range of differences or ratios, new arm to old, that are still possible at level `alpha`.
    #[must_use]
    pub fn possible(self, old: &Counts, new: &Counts, alpha: f64) -> Option<Interval> {
        if let (Some(old), Some(new)) = (self.share(old), self.share(new)) {
            return Some(proportion::interval(old, new, alpha));
        }
        let [old, new] = self.times(old, new)?;
        Some(quantile::interval(&old, &new, alpha))
    }

    /// How often the measured event happened in one arm, if the measure is a share.
    fn share(self, counts: &Counts) -> Option<Events> {
        let all = |counted: &ByWord| counted.values().fold(0_u64, |sum, count| sum.saturating_add(*count));
        let of = |counted: &ByWord, words: &[&str]| {
            let counts = words.iter().filter_map(|word| counted.get(*word));
            counts.fold(0_u64, |sum, count| sum.saturating_add(*count))
        };
        let (attempts, finish) = (&counts.attempts, &counts.finish);
        match self.measure {
            Measure::Errors => {
                let failed = all(attempts).saturating_sub(of(attempts, &BLAMELESS));
                let trials = failed.saturating_add(of(attempts, &["committed"]));
                Some(Events { happened: failed, trials })
            }
            Measure::Length => Some(Events { happened: of(finish, &["length", "incomplete"]), trials: all(finish) }),
            Measure::Refusals => Some(Events { happened: of(finish, &REFUSALS), trials: all(finish) }),
            Measure::FirstToken | Measure::BetweenTokens => None,
        }
    }

    /// The times of both arms, if the measure is a time, in classes by the length of the request (see [`Check::of`]).
    /// Times that were counted without a length are a class of their own.
    fn times(self, old: &Counts, new: &Counts) -> Option<[ArmTimes; 2]> {
        type Getters = (fn(&Counts) -> &Histogram, fn(&Timing) -> &Histogram);
        let (all, of_length): Getters = match self.measure {
            Measure::FirstToken => (|counts| &counts.first_token, |timing| &timing.first_token),
            Measure::BetweenTokens => (|counts| &counts.between_tokens, |timing| &timing.between_tokens),
            Measure::Errors | Measure::Length | Measure::Refusals => return None,
        };
        if !self.is_by_length {
            return Some(alike(Times::of(all(old)), Times::of(all(new)), PART));
        }
        let lengths: BTreeSet<&String> = old.by_length.keys().chain(new.by_length.keys()).collect();
        let classes = |counts: &Counts| {
            let (mut rest, none) = (all(counts).clone(), Histogram::default());
            let mut classes = Vec::new();
            for length in &lengths {
                let times = counts.by_length.get(*length).map_or(&none, of_length);
                rest = rest.less(times);
                classes.push(Times::of(times));
            }
            classes.push(Times::of(&rest));
            classes
        };
        Some(arm_times(classes(old), classes(new), PART))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::Version;
    use crate::id::BundleId;

    fn errors() -> Check {
        let (measure, margin) = (Measure::Errors, Margin::Difference(0.0));
        Check { measure, margin, is_critical: true, is_by_length: true }
    }

    /// A time to the first token of at most 1.15 times as long, in a rollout of a model or of a bundle.
    fn first_token(is_bundle: bool) -> Check {
        let allowed = Allowed { max_diff: None, max_ratio: Some(1.15), critical: false };
        let version = Version::parse(&"0a".repeat(32)).unwrap();
        let change = match is_bundle {
            true => Change::Bundle { bundle: BundleId::parse("prompts").unwrap(), to: version },
            false => Change::Model { model: "m".into(), from: "old".into(), to: "new".into() },
        };
        Check::of(Measure::FirstToken, allowed, &change).unwrap()
    }

    /// Times to the first token: of which length, how long in microseconds, and how often.
    fn timed(of: &[(&str, u64, u64)]) -> Counts {
        let mut counts = Counts::default();
        for (length, us, times) in of {
            for _ in 0..*times {
                counts.first_token.count(*us);
                if !length.is_empty() {
                    counts.by_length.entry((*length).to_owned()).or_default().first_token.count(*us);
                }
            }
        }
        counts
    }

    const SURE: Level = Level { alpha: 0.01, pass: 0.05, min_samples: 1 };

    #[test]
    fn what_is_not_the_fault_of_an_endpoint_is_no_error_and_no_sample() {
        let check = errors();
        let mut counts = Counts::default();
        for word in ["client_gone", "no_quota", "pending", "refused"] {
            Counts::bump(&mut counts.attempts, word);
            assert_eq!(check.share(&counts), Some(Events::default()), "{word}");
        }
        for word in ["committed", "http_5xx"] {
            Counts::bump(&mut counts.attempts, word);
        }
        assert_eq!(check.share(&counts), Some(Events { happened: 1, trials: 2 }));
    }

    #[test]
    fn times_are_compared_by_length_and_those_without_one_among_themselves() {
        // The new arm has ten times as many long requests, which take long in both arms.
        let of = |short: &str, long: &str| {
            let old = timed(&[(short, 200_000, 3_000), (long, 4_000_000, 30)]);
            let new = timed(&[(short, 200_000, 2_700), (long, 4_000_000, 300)]);
            judge(&[first_token(false)], &old, &new, SURE)
        };
        assert_ne!(of("4k", "256k").verdict, Verdict::Fail);
        assert_eq!(of("4k", "256k").checks[0].samples, [3_030, 3_000]);
        assert_ne!(of("4k", "").verdict, Verdict::Fail, "those without a length are a class too");
        assert_eq!(of("", "").verdict, Verdict::Fail, "of earlier Workers nobody knows the lengths");
    }

    /// The prompts of a bundle's new version may be longer or shorter, so that the arms have no class in common.
    #[test]
    fn times_of_a_bundle_are_compared_whatever_the_length() {
        let of = |is_bundle: bool, us: u64| {
            let (old, new) = (timed(&[("4k", 200_000, 3_000)]), timed(&[("16k", us, 3_000)]));
            (judge(&[first_token(is_bundle)], &old, &new, SURE), first_token(is_bundle).possible(&old, &new, 0.01))
        };
        assert_eq!(of(true, 200_000).0.verdict, Verdict::Pass);
        assert_eq!(of(true, 400_000).0.verdict, Verdict::Fail, "slow by its longer prompts");
        assert!(of(true, 200_000).1.unwrap().high < 1.3);
        let apart = of(false, 200_000);
        assert_eq!(
            apart.0.verdict,
            Verdict::Inconclusive(Inconclusive::Wide),
            "other requests, of which nothing is known"
        );
        assert_eq!(apart.1.unwrap().high, f64::INFINITY);
    }

    #[test]
    fn the_level_holds_for_all_checks_together() {
        let check = errors();
        let judged = |values: &[f64]| -> Vec<CheckResult> {
            let one = |p_within: &f64| CheckResult {
                check,
                verdict: Verdict::Inconclusive(Inconclusive::Wide),
                p_within: *p_within,
                p_beyond: 1.0,
                samples: [1, 1],
                rates: None,
            };
            values.iter().map(one).collect()
        };
        let refuted = |values: &[f64]| failed_positions(&judged(values), 0.01);
        assert_eq!(refuted(&[0.009]), [0]);
        assert!(refuted(&[0.5, 0.004, 0.9]).is_empty(), "three checks: a third of the level");
        assert_eq!(refuted(&[0.5, 0.003, 0.9]), [1]);
        // Once the strongest is refuted, the next one is measured by what is left.
        assert_eq!(refuted(&[0.004, 0.003, 0.9]), [1, 0]);
        assert_eq!(refuted(&[0.006, 0.003, 0.9]), [1]);
    }
}
