//! Decides what a rollout does next. Takes the rollout of the rules, what was counted of the step under way, the
//! obstacles that an operator should know of, and the time; returns an [`Action`]. [`progress_after`] makes of it the
//! progress to publish. Called by `bailiwick rollout`, which looks at the rollout again and again.
//!
//! A rollout goes region after region. In each region the new thing serves a growing share of the sessions: each share
//! is a step. The two arms are the sessions with the old and with the new thing. At every look [`judge`] compares the
//! arms by the checks of the rules:
//!
//! - If a check fails, all regions are rolled back, also while the step waits for its time.
//! - If the step's time is over, all checks pass and both arms have traffic now, the rollout goes on to the next step.
//! - Otherwise the step waits. After `max_hold` without a verdict, all regions are rolled back.
//!
//! **Chance of a false alarm.** [`ALPHA`] holds for a whole rollout, so each step of each region gets an equal part of
//! it (Bonferroni). The checks of a step share that part (Holm). An eval counts as one more step of each region. Counts
//! begin at zero with each step, because both arms have to be compared at the same time and in the same shares.

use super::check::{Check, Judgement, Level, Verdict, judge};
use super::evals::{EvalResult, EvalState, judge_eval};
use super::place::Place;
use crate::id::RegionId;
use crate::observe::{ArmSum, Counts};
use crate::rules::{Allowed, Change, Measure, Progress, Rollout};
use crate::time::{Millis, Timestamp};

/// The chance that a rollout is rolled back although the new thing is as good as the old one, over all steps, checks
/// and looks of the rollout together.
pub const ALPHA: f64 = 0.01;
/// The chance that a check of a step passes although the new arm is worse by the margin. The next step checks again.
pub const PASS: f64 = 0.05;
/// If an arm has had no sample for this long, it has no traffic. Workers post their counts every five seconds.
pub const FRESH: Millis = Millis(60_000);

/// What was counted of the step under way.
#[derive(Clone, Copy, Debug)]
pub struct StepObservations<'a> {
    /// The region's old arm since the step began.
    pub old: &'a ArmSum,
    /// The region's new arm since the step began.
    pub new: &'a ArmSum,
    /// The old arm in the region's last step that had both arms. In a step where the new arm has all sessions, it is
    /// compared with this one.
    pub before: Option<&'a Counts>,
    /// When the node answered that counted the arms, by its clock; [`ArmSum::newest`] is by the same clock. `None` if
    /// the node didn't answer this time.
    pub answered_at: Option<Timestamp>,
}

/// What to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Nothing yet, for this reason.
    Hold(String),
    /// The rollout begins: the first region gets this share, in per cent.
    Begin(RegionId, u8),
    /// The next step: the region gets this share.
    Advance(RegionId, u8),
    /// The next region begins with this share. The regions before it get all of their sessions.
    NextRegion(RegionId, u8),
    /// All regions get all of their sessions, and the rollout ends.
    Finish,
    /// The new arm loses all sessions in all regions, for this reason, and the rollout ends.
    RollBack(String),
    /// Nothing: the rollout has ended, for this reason.
    Over(String),
}

/// What to do, and the verdicts on which that is based.
#[derive(Clone, PartialEq, Debug)]
pub struct Decision {
    /// What to do.
    pub action: Action,
    /// The verdicts of the checks on the step under way.
    pub judgement: Option<Judgement>,
    /// The verdict of the eval, if the rules ask for one.
    pub eval: Option<EvalResult>,
}

/// Decides what a rollout does next. `obstacles` are the reasons why nothing may go on now, such as an override.
#[must_use]
pub fn step(
    rollout: &Rollout,
    observed: Option<StepObservations<'_>>,
    eval_state: EvalState<'_>,
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
    let judgement = observed.map(|observed| judge_step(rollout, place, observed));
    let eval = rollout.eval.as_ref().map(|check| judge_eval(check, place.region, eval_state, level(rollout)));
    let input = StepInput { observed: observed.zip(judgement.as_ref()), eval: eval.as_ref() };
    let action = decide(rollout, (progress, place), input, obstacles, now);
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

/// The action that goes on to the next step, whatever the checks say.
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
    let check = |(compared, allowed): (&Measure, &Allowed)| Check::of(*compared, *allowed, &rollout.change);
    rollout.checks.iter().filter_map(check).collect()
}

/// How sure the verdicts of one step have to be, and those of a region's eval.
#[must_use]
pub fn level(rollout: &Rollout) -> Level {
    let parts = rollout.steps.len().saturating_add(usize::from(rollout.eval.is_some()));
    let steps = rollout.regions.len().saturating_mul(parts).max(1);
    let steps = u32::try_from(steps).unwrap_or(u32::MAX);
    Level { alpha: ALPHA / f64::from(steps), pass: PASS, min_samples: rollout.min_samples }
}

/// The counts of the old arm with which the new arm is compared.
#[must_use]
pub fn old_arm<'a>(place: Place<'_>, observed: StepObservations<'a>) -> &'a Counts {
    if place.share < 100 { &observed.old.counts } else { observed.before.unwrap_or(&observed.old.counts) }
}

fn judge_step(rollout: &Rollout, place: Place<'_>, observed: StepObservations<'_>) -> Judgement {
    judge(&checks(rollout), old_arm(place, observed), &observed.new.counts, level(rollout))
}

/// The verdicts by which a step is decided.
#[derive(Clone, Copy)]
struct StepInput<'a> {
    /// What was counted of the step, and the verdicts of its checks.
    observed: Option<(StepObservations<'a>, &'a Judgement)>,
    eval: Option<&'a EvalResult>,
}

impl StepInput<'_> {
    /// The checks that failed, in words; `None` if none failed.
    fn failures(self) -> Option<String> {
        let of_traffic =
            self.observed.map(|(_, judgement)| judgement).filter(|judgement| judgement.verdict == Verdict::Fail);
        let of_eval = self.eval.filter(|eval| eval.verdict == Verdict::Fail);
        let both = [of_traffic.map(Judgement::failures), of_eval.map(|eval| eval.why.clone())];
        let failed: Vec<String> = both.into_iter().flatten().collect();
        (!failed.is_empty()).then(|| failed.join("; "))
    }
}

/// Decides about a step that has begun.
fn decide(
    rollout: &Rollout,
    (progress, place): (&Progress, Place<'_>),
    input: StepInput<'_>,
    obstacles: &[String],
    now: Timestamp,
) -> Action {
    if let Some(failures) = input.failures() {
        return Action::RollBack(format!("{}: {failures}", place.region));
    }
    if let Some(why) = &progress.paused {
        return Action::Hold(format!("paused: {why}"));
    }
    let uncertainty = uncertainty(rollout, place, input);
    let lasted = now.since(progress.since);
    if let Some(uncertainty) = uncertainty.as_ref().filter(|_| lasted > rollout.max_hold) {
        let (region, max_hold) = (place.region, rollout.max_hold);
        return Action::RollBack(format!("{region}: no verdict within {max_hold}: {uncertainty}"));
    }
    let least = if place.next.is_some() { rollout.hold } else { rollout.bake };
    let ends = progress.since.after(Millis(rollout.warm_up.0.saturating_add(least.0)));
    if now < ends {
        return Action::Hold(format!("the step lasts until {ends} at least"));
    }
    match uncertainty.as_ref().or(obstacles.first()) {
        Some(why) => Action::Hold(why.clone()),
        None => after(rollout, place),
    }
}

/// Why nobody can say yet that the new arm is as good; `None` if all checks pass and both arms have traffic now.
fn uncertainty(rollout: &Rollout, place: Place<'_>, input: StepInput<'_>) -> Option<String> {
    let Some((observed, judgement)) = input.observed else { return Some("nothing was counted yet".to_owned()) };
    let Some(answered_at) = observed.answered_at else { return Some("the node that counts wasn't heard".to_owned()) };
    let is_fresh = |sum: &ArmSum| sum.newest.is_some_and(|newest| answered_at.since(newest) <= FRESH);
    let (needs_old, name) = (place.share < 100, place.region);
    if !is_fresh(observed.new) || needs_old && !is_fresh(observed.old) {
        let arm = if is_fresh(observed.new) { "old" } else { "new" };
        let hint = match rollout.change {
            Change::Bundle { .. } => "; applications there name the version in x-bailiwick-bundle",
            Change::Model { .. } | Change::Endpoints(_) => "",
        };
        return Some(format!("the {arm} arm of {name} has had no traffic for {FRESH}{hint}"));
    }
    // An eval alone is enough to check.
    let is_undecided = judgement.verdict != Verdict::Pass && !(rollout.checks.is_empty() && input.eval.is_some());
    let of_traffic = is_undecided.then(|| judgement.undecided());
    let of_eval = input.eval.filter(|eval| eval.verdict != Verdict::Pass).map(|eval| eval.why.clone());
    let undecided: Vec<String> = [of_traffic, of_eval].into_iter().flatten().collect();
    (!undecided.is_empty()).then(|| undecided.join("; "))
}

/// The progress to publish after an action; `None` if the action changes nothing.
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
