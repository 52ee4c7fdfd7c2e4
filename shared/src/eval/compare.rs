//! Compares two runs of an eval. A run is the scores of a model's answers to the cases of a suite. Takes two [`Run`]s
//! of the same cases, returns the reasons why they can't be compared, or a [`Comparison`]. Called by `bailiwick eval
//! compare` and by rollouts.

use std::collections::BTreeSet;

use super::pairs::{self, Pairs};
use super::run::{CaseResult, Run};
use super::scores;

/// How many cases are named as an example.
const EXAMPLES: usize = 3;

/// How two runs are compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// The difference of the mean scores that doesn't matter.
    pub margin: f64,
    /// The allowed chance of a wrong verdict, for each kind of verdict.
    pub alpha: f64,
    /// The seed of the bootstrap.
    pub seed: u64,
    /// What has to be shown for [`Verdict::Alike`].
    pub sides: Sides,
}

/// What has to be shown for the verdict that the second run is as good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sides {
    /// That the second run is neither worse nor better by the margin.
    Both,
    /// That it isn't worse by the margin.
    NotWorse,
}

/// The verdict of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The second run is as good, within the margin.
    Alike,
    /// The second run is worse, maybe by more than the margin.
    Worse,
    /// The second run is better, maybe by more than the margin.
    Better,
    /// Nothing is shown: there are too few cases.
    NotShown,
}

impl Verdict {
    /// The verdict in one or two words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alike => "equivalent",
            Self::Worse => "worse",
            Self::Better => "better",
            Self::NotShown => "not shown",
        }
    }
}

/// The comparison of two runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// The number of cases.
    pub cases: usize,
    /// The mean score of each run.
    pub means: [f64; 2],
    /// The second mean less the first.
    pub difference: f64,
    /// The range of differences that are still possible: a confidence interval that leaves out `alpha` at each side.
    pub interval: [f64; 2],
    /// How many cases both runs got right, only one of them, or neither; absent if cases have scores between 0 and 1.
    pub pairs: Option<Pairs>,
    /// How many cases differ.
    pub differing: usize,
    /// The p-value of "there is no difference".
    pub p_no_difference: f64,
    /// The p-value of "the second is worse by the margin or more".
    pub p_worse: f64,
    /// The p-value of "the second is better by the margin or more".
    pub p_better: f64,
    /// The names of the tests that were used.
    pub method: &'static str,
    /// The verdict of a comparison.
    pub verdict: Verdict,
}

/// The reasons why two runs can't be compared, a sentence each. None if they ran the same cases in the same way.
#[must_use]
pub fn differences(a: &Run, b: &Run) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, run) in [("first", a), ("second", b)] {
        if !run.unanswered.is_empty() {
            let examples = examples(run.unanswered.iter().map(String::as_str));
            problems.push(format!("cases of the {name} file have no answer: {examples}; run it again, it goes on"));
        }
    }
    for (name, setting) in &a.about {
        if let Some(setting_of_b) = b.about.get(name).filter(|setting_of_b| *setting_of_b != setting) {
            problems.push(format!("the {name} differs: {setting} in the first file, {setting_of_b} in the second"));
        }
    }
    let without = |these: &Run, others: &Run| -> Vec<String> {
        these.cases.keys().filter(|case| !others.cases.contains_key(*case)).cloned().collect()
    };
    for (name, missing) in [("first", without(a, b)), ("second", without(b, a))] {
        if !missing.is_empty() {
            let examples = examples(missing.iter().map(String::as_str));
            problems.push(format!("cases are in the {name} file alone: {examples}"));
        }
    }
    let both = || a.cases.iter().filter_map(|(case, of_a)| Some((case.as_str(), of_a, b.cases.get(case)?)));
    let kinds: BTreeSet<&str> = both().flat_map(|(_, of_a, _)| of_a.hashes.keys().copied()).collect();
    for kind in kinds {
        let differ = both().filter(|(_, of_a, of_b)| of_a.hashes.get(kind) != of_b.hashes.get(kind));
        let differ: Vec<&str> = differ.map(|(case, ..)| case).collect();
        if !differ.is_empty() {
            problems.push(format!(
                "the {kind} differs in {} cases: {}",
                differ.len(),
                examples(differ.iter().copied())
            ));
        }
    }
    let uneven: Vec<&str> =
        both().filter(|(_, of_a, of_b)| of_a.scores.len() != of_b.scores.len()).map(|(case, ..)| case).collect();
    if !uneven.is_empty() {
        problems.push(format!("cases were repeated more often in one file: {}", examples(uneven.into_iter())));
    }
    if a.cases.is_empty() && problems.is_empty() {
        problems.push("there is no case".to_owned());
    }
    problems
}

/// The first names, and how many more there are.
fn examples<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    let first: Vec<String> = names.iter().take(EXAMPLES).map(|name| format!("{name:?}")).collect();
    match names.len().saturating_sub(EXAMPLES) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

/// Compares two runs of the same cases. A case is one sample, however often it was repeated: its score is the mean of
/// the repetitions.
#[must_use]
pub fn compare(a: &Run, b: &Run, settings: Settings) -> Comparison {
    let both: Vec<(&CaseResult, &CaseResult)> =
        a.cases.iter().filter_map(|(case, of_a)| Some((of_a, b.cases.get(case)?))).collect();
    let is_plain = |of_a: &CaseResult| matches!(of_a.scores.as_slice(), [score] if *score == 0.0 || *score == 1.0);
    let measured = match both.iter().all(|(of_a, of_b)| is_plain(of_a) && is_plain(of_b)) {
        true => of_pairs(&both, settings),
        false => of_scores(&both, settings),
    };
    let verdict = verdict(&measured, settings);
    Comparison { verdict, ..measured }
}

/// The p-value of "the second run is worse by `margin` at most", by betting: exact for scores from 0 to 1, and 1 for
/// others.
#[must_use]
pub fn p_of_worse_by_at_most(a: &Run, b: &Run, margin: f64) -> f64 {
    let both = a.cases.iter().filter_map(|(case, of_a)| Some((of_a, b.cases.get(case)?)));
    let losses = both.map(|(of_a, of_b)| scores::mean(&of_a.scores) - scores::mean(&of_b.scores));
    scores::p_of_at_most(&losses.collect::<Vec<_>>(), margin)
}

/// Compares cases that are right or wrong.
fn of_pairs(both: &[(&CaseResult, &CaseResult)], settings: Settings) -> Comparison {
    let mut pairs = Pairs::default();
    let right = |measured: &CaseResult| measured.scores.first() == Some(&1.0);
    for (of_a, of_b) in both {
        pairs.add(right(of_a), right(of_b));
    }
    let share = |alone: u64| super::binomial::number(pairs.both + alone) / super::binomial::number(pairs.len().max(1));
    Comparison {
        cases: both.len(),
        means: [share(pairs.only_a), share(pairs.only_b)],
        difference: pairs.difference(),
        interval: pairs::interval(pairs, settings.alpha),
        pairs: Some(pairs),
        differing: usize::try_from(pairs.only_a + pairs.only_b).unwrap_or(usize::MAX),
        p_no_difference: pairs::p_of_no_difference(pairs),
        p_worse: pairs::p_of_worse_by(pairs, settings.margin),
        p_better: pairs::p_of_worse_by(pairs.exchanged(), settings.margin),
        method: "exact McNemar test, exact TOST",
        verdict: Verdict::NotShown,
    }
}

/// Compares cases that have scores.
fn of_scores(both: &[(&CaseResult, &CaseResult)], settings: Settings) -> Comparison {
    let mean = |measured: &CaseResult| scores::mean(&measured.scores);
    let of_a: Vec<f64> = both.iter().map(|(of_a, _)| mean(of_a)).collect();
    let of_b: Vec<f64> = both.iter().map(|(_, other)| mean(other)).collect();
    let differences: Vec<f64> = of_b.iter().zip(&of_a).map(|(b, a)| b - a).collect();
    let mirrored: Vec<f64> = differences.iter().map(|value| -value).collect();
    let is_bounded = of_a.iter().chain(&of_b).all(|score| (0.0..=1.0).contains(score));
    let p_of_at_most = |values: &[f64], bound: f64| match is_bounded {
        true => scores::p_of_at_most(values, bound),
        false => scores::p_of_at_most_by_t(values, bound).unwrap_or(1.0),
    };
    let sides = [p_of_at_most(&differences, 0.0), p_of_at_most(&mirrored, 0.0)];
    Comparison {
        cases: both.len(),
        means: [scores::mean(&of_a), scores::mean(&of_b)],
        difference: scores::mean(&differences),
        interval: scores::bootstrap(&differences, settings.alpha, settings.seed),
        pairs: None,
        differing: differences.iter().filter(|value| **value != 0.0).count(),
        p_no_difference: (2.0 * f64::min(sides[0], sides[1])).min(1.0),
        p_worse: p_of_at_most(&differences, -settings.margin),
        p_better: p_of_at_most(&mirrored, -settings.margin),
        method: match is_bounded {
            true => "TOST by betting, bootstrap interval",
            false => "TOST by t tests, bootstrap interval",
        },
        verdict: Verdict::NotShown,
    }
}

/// The verdict of a comparison.
fn verdict(comparison: &Comparison, settings: Settings) -> Verdict {
    let is_not_worse = comparison.p_worse <= settings.alpha;
    let is_not_better = comparison.p_better <= settings.alpha || settings.sides == Sides::NotWorse;
    match (is_not_worse && is_not_better, comparison.p_no_difference <= settings.alpha) {
        (true, _) => Verdict::Alike,
        (false, true) if comparison.difference < 0.0 => Verdict::Worse,
        (false, true) => Verdict::Better,
        (false, false) => Verdict::NotShown,
    }
}

/// Compares a run with itself: the first half of each case's repetitions with the second. Returns that, and how many
/// cases didn't score the same every time; `None` if cases weren't repeated.
#[must_use]
pub fn chance(run: &Run, settings: Settings) -> Option<(Comparison, usize)> {
    let least = run.cases.values().map(|measured| measured.scores.len()).min()?;
    let half = least / 2;
    if half == 0 {
        return None;
    }
    let part = |from: usize| {
        let cut = |measured: &CaseResult| CaseResult {
            scores: measured.scores.iter().skip(from).take(half).copied().collect(),
            hashes: measured.hashes.clone(),
        };
        Run {
            cases: run.cases.iter().map(|(case, measured)| (case.clone(), cut(measured))).collect(),
            ..Run::default()
        }
    };
    let flips = |measured: &&CaseResult| measured.scores.windows(2).any(|pair| pair.first() != pair.last());
    Some((compare(&part(0), &part(half), settings), run.cases.values().filter(flips).count()))
}
