//! What a rollout does next. Takes the rollout of the rules, what was counted of its step, what stands in the way, and
//! the time; returns an action and, of it, the progress to publish. Called by `bailiwick rollout` at each look.
//!
//! Region after region, and in each one step after the other. A step is judged at every look, also while it waits: a
//! check that fails rolls all regions back. A step goes on when its time is over, all checks pass, and both arms have
//! traffic now. What is unknown holds it, and after `max_hold` rolls it back.
//!
//! **Level.** Counts begin anew with each step, because both arms have to be seen at the same time and in the same
//! shares. The chance of a false alarm, [`ALPHA`], is for a whole rollout, so each step of each region gets its part
//! (Bonferroni); the checks of a step share that part (Holm). An eval counts as one more step of each region.

use super::check::{Check, Judgement, Level, Verdict, judge};
use super::evals::{EvalJudged, Evaled, judge_eval};
use super::place::Place;
use crate::id::RegionId;
use crate::observe::{ArmSum, Counts};
use crate::rules::{Allowed, Change, Measure, Progress, Rollout};
use crate::time::{Millis, Timestamp};

/// The chance that a rollout of something as good is rolled back, over all its steps, checks and looks.
pub const ALPHA: f64 = 0.01;
/// The chance that a check of a step passes although the new arm is worse by the margin. The next step asks again.
pub const PASS: f64 = 0.05;
/// An arm without a sample for so long has no traffic. Workers post every five seconds.
pub const FRESH: Millis = Millis(60_000);

/// What is known of the step under way.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The old arm of the region since the step began.
    pub old: &'a ArmSum,
    /// The new arm.
    pub new: &'a ArmSum,
    /// The old arm in the region's last step that had both. A step with all of the traffic is compared with it.
    pub before: Option<&'a Counts>,
    /// The time of the node that counted when it told this, by its clock, as [`ArmSum::newest`] is. `None`: it wasn't
    /// heard just now.
    pub told_at: Option<Timestamp>,
}

/// What to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Nothing yet, for this reason.
    Hold(String),
    /// The first region begins, with this share.
    Begin(RegionId, u8),
    /// The region gets this share.
    Advance(RegionId, u8),
    /// All before have it all; this region begins with this share.
    NextRegion(RegionId, u8),
    /// All regions have it all.
    Finish,
    /// No region keeps any of it, for this reason.
    RollBack(String),
    /// Nothing any more: it ended so.
    Over(String),
}

/// What to do, and what that is based on.
#[derive(Clone, PartialEq, Debug)]
pub struct Decision {
    /// What to do.
    pub action: Action,
    /// What the checks say of the step under way.
    pub judgement: Option<Judgement>,
    /// What the eval says, if one is asked for.
    pub eval: Option<EvalJudged>,
}

/// Decides what a rollout does next. `obstacles` are the reasons why nothing may go on now, such as an override.
#[must_use]
pub fn step(
    rollout: &Rollout,
    seen: Option<Seen<'_>>,
    evaled: Evaled<'_>,
    obstacles: &[String],
    now: Timestamp,
) -> Decision {
    let bare = |action| Decision { action, judgement: None, eval: None };
    let Some(progress) = &rollout.progress else {
        return bare(Action::Hold("it hasn't begun; `bailiwick rollout start` begins it".to_owned()));
    };
    if let Some(ended) = &progress.ended {
        return bare(Action::Over(ended.clone()));
    }
    let Some(place) = place(rollout) else { return bare(start(rollout, obstacles)) };
    let judgement = seen.map(|seen| judged(rollout, place, seen));
    let eval = rollout.eval.as_ref().map(|check| judge_eval(check, place.region, evaled, level(rollout)));
    let known = Known { seen: seen.zip(judgement.as_ref()), eval: eval.as_ref() };
    let action = decided(rollout, (progress, place), known, obstacles, now);
    Decision { action, judgement, eval }
}

/// Begins a rollout, unless something stands in the way.
#[must_use]
pub fn start(rollout: &Rollout, obstacles: &[String]) -> Action {
    match (obstacles.first(), rollout.regions.first(), rollout.steps.first()) {
        (Some(obstacle), ..) => Action::Hold(obstacle.clone()),
        (None, Some(region), Some(share)) => Action::Begin(region.clone(), *share),
        _ => Action::Hold("it has no regions".to_owned()),
    }
}

/// The step under way; `None` if no region has begun.
#[must_use]
pub fn place(rollout: &Rollout) -> Option<Place<'_>> {
    let shares = &rollout.progress.as_ref()?.shares;
    let mut begun = rollout.regions.iter().rev();
    let (region, share) = begun.find_map(|region| Some((region, *shares.get(region)?)))?;
    Some(Place { region, share, next: rollout.steps.iter().copied().find(|step| *step > share) })
}

/// The step after a place, whatever the checks say.
#[must_use]
pub fn after(rollout: &Rollout, place: Place<'_>) -> Action {
    if let Some(share) = place.next {
        return Action::Advance(place.region.clone(), share);
    }
    let later = rollout.regions.iter().skip_while(|region| *region != place.region).nth(1);
    match (later, rollout.steps.first()) {
        (Some(region), Some(share)) => Action::NextRegion(region.clone(), *share),
        _ => Action::Finish,
    }
}

/// The checks of a rollout.
#[must_use]
pub fn checks(rollout: &Rollout) -> Vec<Check> {
    let of = |(compared, allowed): (&Measure, &Allowed)| Check::of(*compared, *allowed, &rollout.change);
    rollout.checks.iter().filter_map(of).collect()
}

/// How sure the verdicts of one step have to be, and those of a region's eval.
#[must_use]
pub fn level(rollout: &Rollout) -> Level {
    let parts = rollout.steps.len().saturating_add(usize::from(rollout.eval.is_some()));
    let steps = rollout.regions.len().saturating_mul(parts).max(1);
    let steps = u32::try_from(steps).unwrap_or(u32::MAX);
    Level { alpha: ALPHA / f64::from(steps), pass: PASS, min_samples: rollout.min_samples }
}

/// The old arm to compare with.
#[must_use]
pub fn old_arm<'a>(place: Place<'_>, seen: Seen<'a>) -> &'a Counts {
    if place.share < 100 { &seen.old.counts } else { seen.before.unwrap_or(&seen.old.counts) }
}

fn judged(rollout: &Rollout, place: Place<'_>, seen: Seen<'_>) -> Judgement {
    judge(&checks(rollout), old_arm(place, seen), &seen.new.counts, level(rollout))
}

/// What a step is decided by.
#[derive(Clone, Copy)]
struct Known<'a> {
    seen: Option<(Seen<'a>, &'a Judgement)>,
    eval: Option<&'a EvalJudged>,
}

impl Known<'_> {
    /// What failed, if anything did.
    fn failures(self) -> Option<String> {
        let of_traffic = self.seen.map(|(_, judgement)| judgement).filter(|one| one.verdict == Verdict::Fail);
        let of_eval = self.eval.filter(|eval| eval.verdict == Verdict::Fail);
        let both = [of_traffic.map(Judgement::failures), of_eval.map(|eval| eval.why.clone())];
        let failed: Vec<String> = both.into_iter().flatten().collect();
        (!failed.is_empty()).then(|| failed.join("; "))
    }
}

fn decided(
    rollout: &Rollout,
    (progress, place): (&Progress, Place<'_>),
    known: Known<'_>,
    obstacles: &[String],
    now: Timestamp,
) -> Action {
    if let Some(failures) = known.failures() {
        return Action::RollBack(format!("{}: {failures}", place.region));
    }
    if let Some(why) = &progress.paused {
        return Action::Hold(format!("paused: {why}"));
    }
    let unknown = unknown(rollout, place, known);
    let lasted = now.since(progress.since);
    if let Some(unknown) = unknown.as_ref().filter(|_| lasted > rollout.max_hold) {
        let (region, max_hold) = (place.region, rollout.max_hold);
        return Action::RollBack(format!("{region}: no verdict within {max_hold}: {unknown}"));
    }
    let least = if place.next.is_some() { rollout.hold } else { rollout.bake };
    let ends = progress.since.after(Millis(rollout.warm_up.0.saturating_add(least.0)));
    if now < ends {
        return Action::Hold(format!("the step lasts until {ends} at least"));
    }
    match unknown.as_ref().or(obstacles.first()) {
        Some(why) => Action::Hold(why.clone()),
        None => after(rollout, place),
    }
}

/// Why the step may not go on yet as far as is known; `None` if all checks pass on traffic of now.
fn unknown(rollout: &Rollout, place: Place<'_>, known: Known<'_>) -> Option<String> {
    let Some((seen, judgement)) = known.seen else { return Some("nothing was counted yet".to_owned()) };
    let Some(told_at) = seen.told_at else { return Some("the node that counts wasn't heard".to_owned()) };
    let is_fresh = |sum: &ArmSum| sum.newest.is_some_and(|newest| told_at.since(newest) <= FRESH);
    let (needs_old, name) = (place.share < 100, place.region);
    if !is_fresh(seen.new) || needs_old && !is_fresh(seen.old) {
        let arm = if is_fresh(seen.new) { "old" } else { "new" };
        let hint = match rollout.change {
            Change::Bundle { .. } => "; applications there name the version in x-bailiwick-bundle",
            Change::Model { .. } | Change::Endpoints(_) => "",
        };
        return Some(format!("the {arm} arm of {name} has had no traffic for {FRESH}{hint}"));
    }
    // An eval alone is enough to check.
    let is_undecided = judgement.verdict != Verdict::Pass && !(rollout.checks.is_empty() && known.eval.is_some());
    let of_traffic = is_undecided.then(|| judgement.undecided());
    let of_eval = known.eval.filter(|eval| eval.verdict != Verdict::Pass).map(|eval| eval.why.clone());
    let undecided: Vec<String> = [of_traffic, of_eval].into_iter().flatten().collect();
    (!undecided.is_empty()).then(|| undecided.join("; "))
}

/// The progress that an action asks to publish; `None` if there is nothing to publish.
#[must_use]
pub fn progress_after(rollout: &Rollout, action: &Action, now: Timestamp) -> Option<Progress> {
    let mut progress = match &rollout.progress {
        Some(progress) if !matches!(action, Action::Begin(..)) => progress.clone(),
        _ => Progress { shares: Default::default(), since: now, paused: None, ended: None },
    };
    progress.since = now;
    match action {
        Action::Hold(_) | Action::Over(_) => return None,
        Action::Begin(region, share) | Action::Advance(region, share) => {
            progress.shares.insert(region.clone(), *share);
        }
        Action::NextRegion(region, share) => {
            progress.shares.values_mut().for_each(|share| *share = 100);
            progress.shares.insert(region.clone(), *share);
        }
        Action::Finish => {
            progress.shares.values_mut().for_each(|share| *share = 100);
            progress.ended = Some("done".to_owned());
        }
        Action::RollBack(reason) => {
            progress.shares.clear();
            progress.ended = Some(format!("rolled back: {reason}"));
        }
    }
    Some(progress)
}

#[cfg(test)]
mod tests;
