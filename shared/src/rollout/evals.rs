//! Evals as a check of a rollout. An eval asks a model the cases of a suite and scores the answers; here the old and
//! the new arm (the old and the new thing of the rollout) are asked in the same region. Takes the files of results of
//! both arms, returns a [`Finding`] and the verdict on it. Called by [`super::machine`]; `bailiwick rollout run` reads
//! the files.
//!
//! Each case is compared with itself: the new arm's score less the old arm's. A finding holds for all steps of its
//! region, until the region begins again or the operator names other results.
//!
//! **Chance of a false alarm.** In each region the eval counts as one more step, with a step's part of the level
//! ([`super::machine::level`]). The results of one run don't grow from look to look, so a usual test of fixed size is
//! enough. But an operator who doesn't like the results may run the eval again. So the n-th results of a region are
//! judged at 1/(n·(n+1)) of that part. These fractions add up to one, so the level holds however often the eval is run
//! (Bonferroni). The same goes for the chance to pass by mistake.

use serde::{Deserialize, Serialize};

use super::check::{Inconclusive, Level, Verdict};
use super::place::Place;
use crate::id::RegionId;
use crate::rules::{EvalCheck, Rollout};
use crate::time::Timestamp;

/// The most results of a region that are judged.
pub const MOST_RESULTS: usize = 100;

/// The comparison of two files of results, one for each arm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// A digest of both files, so that the same files aren't judged twice.
    pub digest: String,
    /// The name of the suite.
    pub suite: String,
    /// How much less the new arm may score on average.
    pub margin: f64,
    /// When the earlier of both runs began.
    pub begun: Timestamp,
    /// When the files were first compared.
    pub at: Timestamp,
    /// The number of cases.
    pub cases: usize,
    /// The mean score of the old and the new arm.
    pub means: [f64; 2],
    /// The p-value of "the new arm is worse by the margin at most".
    pub p_within: f64,
    /// The p-value of "the new arm is worse by the margin at least".
    pub p_beyond: f64,
}

/// The evals of a region since it began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RegionEvals {
    /// The region.
    pub region: RegionId,
    /// When the region's first step began, as far as is known. Results of earlier runs don't count.
    pub since: Timestamp,
    /// The region's share at the last look, in per cent.
    share: u8,
    /// What the rollout replaces, as text. If it changes, these evals no longer count.
    change: String,
    /// All findings, the latest last.
    pub findings: Vec<Finding>,
}

impl RegionEvals {
    /// The evals of a region that begins.
    #[cfg(any(test, feature = "eval"))]
    pub(super) fn begin(rollout: &Rollout, place: Place<'_>, since: Timestamp) -> Self {
        let change = format!("{:?}", rollout.change);
        Self { region: place.region.clone(), since, share: place.share, change, findings: Vec::new() }
    }

    /// Whether these evals still count at a place whose step began at `since`. If the region's first step begins again,
    /// earlier results say nothing about it. They still count as looks: otherwise the level would hold only for the
    /// looks between two beginnings.
    pub(super) fn go_on(&mut self, rollout: &Rollout, place: Place<'_>, since: Timestamp) -> bool {
        let is_first = rollout.steps.first() == Some(&place.share);
        let goes_on =
            self.region == *place.region && self.share <= place.share && self.change == format!("{:?}", rollout.change);
        if goes_on {
            self.share = place.share;
            self.since = if is_first { since } else { self.since };
        }
        goes_on
    }

    /// Whether the other evals are of the same region and the same change.
    pub(super) fn is_of(&self, other: &Self) -> bool {
        (&self.region, &self.change) == (&other.region, &other.change)
    }

    /// Adds the findings that another process left behind, except those that are known here.
    pub(super) fn adopt(&mut self, left_behind: Self) {
        // A process that began in the middle of a region doesn't know when the region began.
        self.since = self.since.min(left_behind.since);
        for finding in left_behind.findings {
            if !self.findings.iter().any(|known| known.digest == finding.digest) {
                let place = self.findings.partition_point(|known| known.at <= finding.at);
                self.findings.insert(place, finding);
            }
        }
    }

    /// The latest finding, if it is of this check and of a run that began at `since` or later, and how many findings
    /// there are.
    pub(super) fn latest(&self, check: &EvalCheck, since: Timestamp) -> Option<(&Finding, usize)> {
        let is_it = |last: &&Finding| last.suite == check.suite && last.margin == check.margin && last.begun >= since;
        let finding = self.findings.last().filter(is_it)?;
        Some((finding, self.findings.len()))
    }
}

/// What is known of the eval of the region whose step is under way.
#[derive(Clone, Copy, Debug, Default)]
pub struct EvalState<'a> {
    /// The latest finding since the region began, and how many there are.
    pub found: Option<(&'a Finding, usize)>,
    /// Why there is no later finding, if the operator named results that can't be judged.
    pub problem: Option<&'a str>,
}

/// The verdict of the eval.
#[derive(Clone, Debug, PartialEq)]
pub struct EvalResult {
    /// The verdict.
    pub verdict: Verdict,
    /// The reason, and what to do, in a sentence.
    pub why: String,
    /// The finding on which the verdict is based.
    pub found: Option<Finding>,
}

/// The part of a level at which the n-th results of a region are judged.
#[must_use]
pub fn part(nth: usize) -> f64 {
    let nth = f64::from(u32::try_from(nth.max(1)).unwrap_or(u32::MAX));
    1.0 / (nth * (nth + 1.0))
}

/// The verdict of a finding, which is the n-th of its region, at the level of a step.
#[must_use]
pub fn verdict(finding: &Finding, nth: usize, level: Level) -> Verdict {
    match part(nth) {
        part if finding.p_within <= level.alpha * part => Verdict::Fail,
        part if finding.p_beyond <= level.pass * part => Verdict::Pass,
        _ => Verdict::Inconclusive(Inconclusive::Wide),
    }
}

/// Judges the latest finding of a region.
#[must_use]
pub fn judge_eval(check: &EvalCheck, region: &RegionId, eval_state: EvalState<'_>, level: Level) -> EvalResult {
    let EvalCheck { suite, margin } = check;
    let Some((found, nth)) = eval_state.found else {
        let why = match eval_state.problem {
            Some(problem) => format!("eval {suite} of {region}: {problem}"),
            None => format!(
                "eval {suite} of {region} has no results yet; make them by `bailiwick eval run --suite {suite}.jsonl \
                 --region {region} --arm old,new --out FOLDER …`, and name them by `rollout run --eval {suite}=FOLDER`"
            ),
        };
        return EvalResult { verdict: Verdict::Inconclusive(Inconclusive::FewSamples), why, found: None };
    };
    let verdict = verdict(found, nth, level);
    let Finding { cases, means: [old, new], .. } = found;
    let finding = format!("eval {suite} scores {new:.4} in the new arm and {old:.4} in the old one ({cases} cases");
    let why = match verdict {
        Verdict::Pass => format!("{finding}, p {:.1e} of worse by {margin})", found.p_beyond),
        Verdict::Fail => format!("{finding}, p {:.1e}), at most {margin} less is allowed", found.p_within),
        Verdict::Inconclusive(_) => {
            let more = eval_state.problem.map(|problem| format!("; {problem}")).unwrap_or_default();
            format!(
                "{finding}), so it isn't certain that it is less than {margin} worse; run a suite of more cases into \
                 another folder, and name that by --eval{more}"
            )
        }
    };
    EvalResult { verdict, why, found: Some(found.clone()) }
}

#[cfg(any(test, feature = "eval"))]
mod results;
#[cfg(any(test, feature = "eval"))]
pub(super) use results::digest_of;
#[cfg(any(test, feature = "eval"))]
pub use results::find;

#[cfg(test)]
mod tests;
