//! Evals as a check of a rollout. Takes what two files of results say of both arms in a region; returns a [`Finding`],
//! and what the check says of it. Called by [`super::machine`] and, to read results, by `bailiwick rollout run`.
//!
//! Each case is compared with itself: the new arm's score less the old arm's. A finding holds for all steps of its
//! region, until the region begins anew or other results are shown.
//!
//! **Level.** In each region the eval counts as one more step, with a step's part of the level
//! ([`super::machine::level`]). Results don't grow from look to look, so a usual test of fixed
//! size is enough. But whoever isn't pleased runs the eval again. So the n-th results of a region are judged at
//! 1/(n·(n+1)) of that part. These fractions add up to one, so the level holds however often the eval is run
//! (Bonferroni); the same for the chance to pass by mistake.

use serde::{Deserialize, Serialize};

use super::check::{Inconclusive, Level, Verdict};
use super::place::Place;
use crate::id::RegionId;
use crate::rules::{EvalCheck, Rollout};
use crate::time::Timestamp;

/// The most results of a region that are judged.
pub const MOST_RESULTS: usize = 100;

/// What two files of results say, one of each arm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// A digest of both files, by which they are known again.
    pub digest: String,
    /// The suite.
    pub suite: String,
    /// The margin that it was compared by.
    pub margin: f64,
    /// When the earlier of both runs began.
    pub begun: Timestamp,
    /// When it was first looked at.
    pub at: Timestamp,
    /// How many cases.
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
    /// When it began, as far as is known. Earlier results don't count.
    pub since: Timestamp,
    /// Its share at the last look, in per cent.
    share: u8,
    /// What is replaced, in words by which a change of it is noticed.
    change: String,
    /// What was found, the latest last.
    pub findings: Vec<Finding>,
}

impl RegionEvals {
    /// The evals of a region that begins.
    #[cfg(any(test, feature = "eval"))]
    pub(super) fn begin(rollout: &Rollout, place: Place<'_>, since: Timestamp) -> Self {
        let change = format!("{:?}", rollout.change);
        Self { region: place.region.clone(), since, share: place.share, change, findings: Vec::new() }
    }

    /// Whether they go on at a place whose step began at `since`. If the region's first step begins anew, earlier
    /// results don't speak of it any more. They count as looks all the same, or else the level would hold only for the
    /// looks between two begins.
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

    /// Whether these are evals of the same.
    pub(super) fn is_of(&self, other: &Self) -> bool {
        (&self.region, &self.change) == (&other.region, &other.change)
    }

    /// Takes the findings that another one had of the same, as far as they aren't known here.
    pub(super) fn adopt(&mut self, left: Self) {
        // Who began in the middle of a region doesn't know when it began.
        self.since = self.since.min(left.since);
        for finding in left.findings {
            if !self.findings.iter().any(|known| known.digest == finding.digest) {
                let place = self.findings.partition_point(|known| known.at <= finding.at);
                self.findings.insert(place, finding);
            }
        }
    }

    /// The latest finding of a check from a run that began since then, and how many findings there are.
    pub(super) fn latest(&self, check: &EvalCheck, since: Timestamp) -> Option<(&Finding, usize)> {
        let is_it = |last: &&Finding| last.suite == check.suite && last.margin == check.margin && last.begun >= since;
        let found = self.findings.last().filter(is_it)?;
        Some((found, self.findings.len()))
    }
}

/// What is known of the eval of the region whose step is under way.
#[derive(Clone, Copy, Debug, Default)]
pub struct Evaled<'a> {
    /// The latest finding since the region began, and how many there are.
    pub found: Option<(&'a Finding, usize)>,
    /// Why there is no later one, if results were named and can't be judged.
    pub problem: Option<&'a str>,
}

/// What the check says.
#[derive(Clone, Debug, PartialEq)]
pub struct EvalJudged {
    /// Its verdict.
    pub verdict: Verdict,
    /// Why, and what to do, in a sentence.
    pub why: String,
    /// The finding that it is based on.
    pub found: Option<Finding>,
}

/// Which part of a level the n-th results of a region have.
#[must_use]
pub fn part(nth: usize) -> f64 {
    let nth = f64::from(u32::try_from(nth.max(1)).unwrap_or(u32::MAX));
    1.0 / (nth * (nth + 1.0))
}

/// The verdict of a finding, which is the n-th of its region, at the level of a step.
#[must_use]
pub fn verdict(found: &Finding, nth: usize, level: Level) -> Verdict {
    match part(nth) {
        part if found.p_within <= level.alpha * part => Verdict::Fail,
        part if found.p_beyond <= level.pass * part => Verdict::Pass,
        _ => Verdict::Inconclusive(Inconclusive::Wide),
    }
}

/// What the check of a region says.
#[must_use]
pub fn judge_eval(check: &EvalCheck, region: &RegionId, evaled: Evaled<'_>, level: Level) -> EvalJudged {
    let EvalCheck { suite, margin } = check;
    let Some((found, nth)) = evaled.found else {
        let why = match evaled.problem {
            Some(problem) => format!("eval {suite} of {region}: {problem}"),
            None => format!(
                "eval {suite} of {region} has no results yet; make them by `bailiwick eval run --suite {suite}.jsonl \
                 --region {region} --arm old,new --out FOLDER …`, and name them by `rollout run --eval {suite}=FOLDER`"
            ),
        };
        return EvalJudged { verdict: Verdict::Inconclusive(Inconclusive::FewSamples), why, found: None };
    };
    let verdict = verdict(found, nth, level);
    let Finding { cases, means: [old, new], .. } = found;
    let seen = format!("eval {suite} scores {new:.4} in the new arm and {old:.4} in the old one ({cases} cases");
    let why = match verdict {
        Verdict::Pass => format!("{seen}, p {:.1e} of worse by {margin})", found.p_beyond),
        Verdict::Fail => format!("{seen}, p {:.1e}), at most {margin} less is allowed", found.p_within),
        Verdict::Inconclusive(_) => {
            let more = evaled.problem.map(|problem| format!("; {problem}")).unwrap_or_default();
            format!(
                "{seen}), so it isn't certain that it is less than {margin} worse; run a suite of more cases into \
                 another folder, and name that by --eval{more}"
            )
        }
    };
    EvalJudged { verdict, why, found: Some(found.clone()) }
}

#[cfg(any(test, feature = "eval"))]
mod results;
#[cfg(any(test, feature = "eval"))]
pub(super) use results::digest_of;
#[cfg(any(test, feature = "eval"))]
pub use results::find;

#[cfg(test)]
mod tests;
