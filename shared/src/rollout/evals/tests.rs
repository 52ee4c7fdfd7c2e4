//! Evals of a rollout: which results are judged, what they hold and roll back, and how often chance does.

use std::collections::BTreeMap;

use super::*;
use crate::eval::{Header, Outcome, VERSION};
use crate::id::ServiceId;
use crate::observe::{ArmSum, Counts};
use crate::rollout::machine::{Action, Decision, PASS, StepObservations, level, place, step};
use crate::rollout::record::Record;
use crate::rules::{Allowed, Arm, Change, Measure, Progress};
use crate::testing::Random;
use crate::time::Millis;

const BEGIN: Timestamp = Timestamp(1_796_104_800_000);
const HOUR: u64 = 3_600_000;

fn rollout() -> Rollout {
    let region = |name: &str| RegionId::parse(name).unwrap();
    Rollout {
        service: ServiceId::parse("chat").unwrap(),
        change: Change::Model { model: "m".into(), from: "old".into(), to: "new".into() },
        regions: vec![region("lon"), region("fra")],
        steps: vec![5, 50],
        hold: Millis(60_000),
        bake: Millis(60_000),
        warm_up: Millis(0),
        min_samples: 1,
        max_hold: Millis(24 * HOUR),
        checks: BTreeMap::new(),
        eval: Some(EvalCheck { suite: "smoke".into(), margin: 0.05 }),
        progress: Some(at("lon", 5, BEGIN)),
    }
}

fn at(name: &str, share: u8, since: Timestamp) -> Progress {
    let mut shares = BTreeMap::from([(RegionId::parse("lon").unwrap(), 100)]);
    shares.insert(RegionId::parse(name).unwrap(), share);
    Progress { shares, since, paused: None, ended: None }
}

fn header(arm: Arm) -> Header {
    Header {
        bailiwick_eval: VERSION,
        suite: "smoke".into(),
        suite_hash: "0".into(),
        cases: 0,
        service: "chat".into(),
        region: Some("lon".into()),
        arm: Some(arm.to_string()),
        begun: Some(BEGIN.after(Millis(60_000))),
        model: "m".into(),
        seed: None,
        repeat: 1,
    }
}

/// A file of results with these scores.
fn file(header: Header, scores: &[f64]) -> Vec<u8> {
    let header = Header { cases: scores.len(), ..header };
    let mut text = serde_json::to_string(&header).unwrap() + "\n";
    for (nth, score) in scores.iter().enumerate() {
        let outcome = Outcome { case: format!("c{nth}"), score: Some(*score), ..Outcome::default() };
        text += &(serde_json::to_string(&outcome).unwrap() + "\n");
    }
    text.into_bytes()
}

/// The files of both arms, of which so many cases are right.
fn files(right: [usize; 2], cases: usize) -> [Vec<u8>; 2] {
    let scores = |right: usize| -> Vec<f64> { (0..cases).map(|nth| f64::from(u8::from(nth < right))).collect() };
    [file(header(Arm::Old), &scores(right[0])), file(header(Arm::New), &scores(right[1]))]
}

fn note(record: &mut Record, rollout: &Rollout, files: &[Vec<u8>; 2]) -> Option<String> {
    let here = place(rollout).unwrap();
    record.note_eval(rollout, here, Some(Ok(files.each_ref().map(Vec::as_slice))), BEGIN.after(Millis(HOUR)))
}

/// A look with traffic of both arms, long enough after the step began.
fn look(record: &Record, rollout: &Rollout, problem: Option<&str>) -> Decision {
    let now = rollout.progress.as_ref().unwrap().since.after(Millis(2 * HOUR));
    let counts = Counts { attempts: [("committed".to_owned(), 1_000)].into(), ..Counts::default() };
    let sum = ArmSum { counts, newest: Some(now) };
    let observed = StepObservations { old: &sum, new: &sum, before: None, answered_at: Some(now) };
    let eval_state = EvalState { found: record.latest_finding(rollout, place(rollout).unwrap()), problem };
    step(rollout, Some(observed), eval_state, &[], now)
}

fn holds(decision: &Decision) -> &str {
    match &decision.action {
        Action::Hold(why) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_step_waits_for_an_eval_that_passes_and_the_next_ones_go_by_it_too() {
    let (mut rollout, mut record) = (rollout(), Record::default());
    let why = look(&record, &rollout, None);
    let run = "bailiwick eval run --suite smoke.jsonl --region lon --arm old,new";
    assert!(holds(&why).contains(run) && holds(&why).contains("--eval smoke=FOLDER"), "{why:?}");
    assert!(holds(&look(&record, &rollout, Some("no file"))).contains("eval smoke of lon: no file"));
    assert_eq!(note(&mut record, &rollout, &files([390, 388], 400)), None);
    let decision = look(&record, &rollout, None);
    assert!(matches!(decision.action, Action::Advance(..)), "{decision:?}");
    assert_eq!(decision.eval.unwrap().verdict, Verdict::Pass);
    // The same results hold for the region's other steps, but not for another region.
    rollout.progress = Some(at("lon", 50, BEGIN.after(Millis(5 * HOUR))));
    assert!(matches!(look(&record, &rollout, None).action, Action::NextRegion(..)));
    rollout.progress = Some(at("fra", 5, BEGIN.after(Millis(9 * HOUR))));
    assert!(holds(&look(&record, &rollout, None)).contains("eval smoke of fra has no results yet"));
    let problem = note(&mut record, &rollout, &files([390, 390], 400)).unwrap();
    assert!(problem.contains("fra.old.jsonl: its region is \"lon\", and \"fra\" is wanted"), "{problem}");
    // A margin that was changed meanwhile asks anew, and what begins anew forgets what was found.
    rollout.progress = Some(at("lon", 50, BEGIN.after(Millis(5 * HOUR))));
    rollout.eval.as_mut().unwrap().margin = 0.04;
    assert!(holds(&look(&record, &rollout, None)).contains("no results yet"));
}

#[test]
fn what_is_worse_is_rolled_back_also_while_it_is_paused_and_without_traffic() {
    let (mut rollout, mut record) = (rollout(), Record::default());
    assert_eq!(note(&mut record, &rollout, &files([390, 300], 400)), None);
    let expected = "lon: eval smoke scores 0.7500 in the new arm and 0.9750 in the old one (400 cases";
    rollout.progress.as_mut().unwrap().paused = Some("lunch".into());
    let eval_state = EvalState { found: record.latest_finding(&rollout, place(&rollout).unwrap()), problem: None };
    for action in
        [look(&record, &rollout, None).action, step(&rollout, None, eval_state, &[], BEGIN.after(Millis(1_000))).action]
    {
        assert!(matches!(&action, Action::RollBack(why) if why.starts_with(expected)), "{action:?}");
    }
    // Rolled back and begun again, it isn't rolled back by what was found before.
    let again = BEGIN.after(Millis(50 * HOUR));
    rollout.progress = Some(at("lon", 5, again));
    assert!(holds(&look(&record, &rollout, None)).contains("no results yet"));
    let problem = note(&mut record, &rollout, &files([390, 390], 400)).unwrap();
    assert!(problem.contains("was begun at") && problem.contains("before the new arm had its share"), "{problem}");
}

#[test]
fn few_cases_hold_and_each_further_result_is_judged_more_strictly() {
    let (rollout, mut record) = (rollout(), Record::default());
    assert_eq!(note(&mut record, &rollout, &files([20, 20], 20)), None);
    let decision = look(&record, &rollout, Some("lon.new.jsonl: has no whole line yet"));
    assert!(holds(&decision).contains("(20 cases), so it isn't certain that it is less than 0.05 worse"));
    assert!(holds(&decision).contains("no whole line yet"), "why no others are judged");
    assert_eq!(note(&mut record, &rollout, &files([20, 20], 20)), None);
    assert_eq!(record.evals[0].findings.len(), 1, "the same files are one result");
    // 80 cases without a difference are enough at first, and not when it is the ninth attempt.
    let finding = |cases: usize| {
        let mut record = Record::default();
        note(&mut record, &rollout, &files([cases, cases], cases));
        record.evals[0].findings[0].clone()
    };
    let (of_80, level) = (finding(80), level(&rollout));
    assert_eq!(
        (verdict(&of_80, 1, level), verdict(&of_80, 9, level)),
        (Verdict::Pass, Verdict::Inconclusive(Inconclusive::Wide))
    );
    let parts: f64 = (1..=1_000).map(part).sum();
    assert!((0.998..1.0).contains(&parts), "{parts}");
    for nth in 20..20 + MOST_RESULTS {
        note(&mut record, &rollout, &files([nth, nth], nth));
    }
    assert_eq!(record.evals[0].findings.len(), MOST_RESULTS);
    assert!(note(&mut record, &rollout, &files([7, 7], 7)).unwrap().contains("100 results were judged"));
}

#[test]
fn results_from_before_a_step_began_anew_are_past_but_count_as_looks() {
    let (mut rollout, mut record) = (rollout(), Record::default());
    let looks = |record: &Record, rollout: &Rollout| Some(record.latest_finding(rollout, place(rollout)?)?.1);
    assert_eq!(note(&mut record, &rollout, &files([100, 100], 100)), None);
    assert_eq!(looks(&record, &rollout), Some(1));
    let anew = BEGIN.after(Millis(120_000));
    rollout.progress = Some(at("lon", 5, anew));
    assert_eq!(looks(&record, &rollout), None, "they are of a time before");
    let refused = note(&mut record, &rollout, &files([90, 90], 90)).unwrap();
    assert!(refused.contains("before the new arm had its share of lon"), "{refused}");
    let later = |arm: Arm| file(Header { begun: Some(anew), ..header(arm) }, &[1.0; 50]);
    assert_eq!(note(&mut record, &rollout, &[later(Arm::Old), later(Arm::New)]), None);
    assert_eq!(looks(&record, &rollout), Some(2), "else pausing and resuming would give the whole level again");
    // Whoever goes on with it, knowing the region from its second step alone, learns all of it.
    rollout.progress = Some(at("lon", 50, anew.after(Millis(HOUR))));
    let mut other = Record::default();
    let here = place(&rollout).unwrap();
    assert_eq!(other.note_eval(&rollout, here, None, anew), None);
    other.adopt(record.brief());
    assert_eq!((looks(&other, &rollout), other.evals.len()), (Some(2), 1));
}

#[test]
fn results_of_something_else_are_not_judged() {
    let rollout = rollout();
    let told = |old: Vec<u8>, new: Vec<u8>| note(&mut Record::default(), &rollout, &[old, new]).unwrap_or_default();
    let [old, new] = files([10, 10], 10);
    assert_eq!(told(old.clone(), new.clone()), "");
    let with = |change: &dyn Fn(&mut Header)| {
        let mut header = header(Arm::New);
        change(&mut header);
        file(header, &[1.0; 10])
    };
    for (new, words) in [
        (
            with(&|header| header.suite = "other".into()),
            "lon.new.jsonl: its suite is \"other\", and \"smoke\" is wanted",
        ),
        (with(&|header| header.service = "other".into()), "its service is"),
        (with(&|header| header.region = None), "its region is \"none\", and \"lon\" is wanted"),
        (with(&|header| header.arm = Some("old".into())), "its arm is \"old\", and \"new\" is wanted"),
        (with(&|header| header.arm = None), "its arm is \"none\""),
        (with(&|header| header.model = "n".into()), "its model is \"n\""),
        (with(&|header| header.begun = None), "doesn't say when it was begun"),
        (with(&|header| header.begun = Some(Timestamp(BEGIN.0 - 1))), "before the new arm had its share of lon at"),
        (with(&|header| header.seed = Some(1)), "can't be compared: the seed differs"),
        (file(header(Arm::New), &[1.0; 11]), "can't be compared"),
        (new[..new.len() - 1].to_vec(), "have no answer"),
        (Vec::new(), "lon.new.jsonl: has no whole line yet"),
        (b"{}\n".to_vec(), "lon.new.jsonl: line 1: is no header"),
        (with(&|header| header.suite = "x\n".repeat(9_000)), "its suite is \"x\\nx"),
    ] {
        let told = told(old.clone(), new);
        assert!(told.contains(words) && told.len() <= 500 && !told.contains('\n'), "{words}: {told}");
    }
    let unread = Record::default().note_eval(&rollout, place(&rollout).unwrap(), Some(Err("gone".into())), BEGIN);
    assert_eq!(unread, Some("gone".to_owned()));
}

/// The scores of both arms in a run. Where cases differ by chance, each arm has its own luck.
fn asked(random: &mut Random, cases: usize, worse: f64) -> [Vec<f64>; 2] {
    let chance = |random: &mut Random, rate: f64| {
        let unit = (random.bits() >> 11) as f64 / (1_u64 << 53) as f64;
        f64::from(u8::from(unit < rate))
    };
    let pairs: Vec<(f64, f64)> = (0..cases).map(|_| (chance(random, 0.9), chance(random, 0.9 - worse))).collect();
    let (old, new) = pairs.into_iter().unzip();
    [old, new]
}

/// An operator who isn't pleased runs the eval again, up to five times. The new arm is worse by just as much as is
/// allowed, which is the hardest case.
#[test]
fn the_level_holds_however_often_an_eval_is_run_again() {
    const RUNS: usize = 500;
    let (rollout, random) = (rollout(), &mut Random::new(11));
    let check = rollout.eval.clone().unwrap();
    // At a level at which errors can be counted.
    let level = Level { alpha: 0.05, pass: PASS, min_samples: 1 };
    let (mut failed, mut unweighted, mut passed, mut passed_unweighted) = (0, 0, 0, 0);
    for _ in 0..RUNS {
        let (mut is_failed, mut is_unweighted, mut is_passed, mut is_passed_unweighted) = (false, false, false, false);
        for nth in 1..=5 {
            let [old, new] = asked(random, 150, check.margin);
            let files = [file(header(Arm::Old), &old), file(header(Arm::New), &new)];
            let slices = files.each_ref().map(Vec::as_slice);
            let found = find((&rollout, &check), (&rollout.regions[0], BEGIN), slices, BEGIN).unwrap();
            is_failed |= verdict(&found, nth, level) == Verdict::Fail;
            is_passed |= verdict(&found, nth, level) == Verdict::Pass;
            is_unweighted |= found.p_within <= level.alpha;
            is_passed_unweighted |= found.p_beyond <= level.pass;
        }
        failed += usize::from(is_failed);
        passed += usize::from(is_passed);
        unweighted += usize::from(is_unweighted);
        passed_unweighted += usize::from(is_passed_unweighted);
    }
    println!(
        "worse by the margin, run five times: of {RUNS} regions {failed} failed and {passed} passed; with the whole \
         level of 5 % for each result, {unweighted} and {passed_unweighted}"
    );
    assert!(failed * 20 <= RUNS, "{failed}");
    // A twentieth, and three standard deviations for the simulation.
    assert!(passed * 20 <= RUNS + RUNS / 3, "{passed}");
    assert!(passed_unweighted * 20 > RUNS * 2, "without the parts it would be misled: {passed_unweighted}");
}

/// How many cases it takes, at the level of a rollout of three regions and five steps.
#[test]
fn a_worse_arm_fails_and_one_as_good_passes_with_enough_cases() {
    let random = &mut Random::new(12);
    let mut rollout = rollout();
    rollout.steps = vec![1, 5, 25, 50, 95];
    rollout.regions.push(RegionId::parse("par").unwrap());
    let (check, level) = (rollout.eval.clone().unwrap(), level(&rollout));
    assert!((level.alpha - 0.01 / 18.0).abs() < 1e-12);
    let mut verdicts = |cases: usize, worse: f64| {
        let mut counts = [0; 2];
        for _ in 0..100 {
            let [old, new] = asked(random, cases, worse);
            let files = [file(header(Arm::Old), &old), file(header(Arm::New), &new)];
            let slices = files.each_ref().map(Vec::as_slice);
            let found = find((&rollout, &check), (&rollout.regions[0], BEGIN), slices, BEGIN).unwrap();
            counts[0] += usize::from(verdict(&found, 1, level) == Verdict::Pass);
            counts[1] += usize::from(verdict(&found, 1, level) == Verdict::Fail);
        }
        println!("{cases} cases, {worse} worse, margin 0.05: of 100 first results {counts:?} passed and failed");
        counts
    };
    let [[_, worse], [same, failed], [few, _]] = [verdicts(400, 0.3), verdicts(1_000, 0.0), verdicts(100, 0.0)];
    verdicts(400, 0.2);
    verdicts(400, 0.15);
    assert!(worse >= 95 && same >= 90 && failed == 0 && few <= 50, "{worse} {same} {failed} {few}");
}

#[test]
fn an_eval_beside_other_checks_holds_and_fails_by_itself() {
    let (mut rollout, mut record) = (rollout(), Record::default());
    rollout.checks =
        BTreeMap::from([(Measure::Errors, Allowed { max_diff: Some(0.5), max_ratio: None, critical: false })]);
    assert!(holds(&look(&record, &rollout, None)).contains("has no results yet"));
    note(&mut record, &rollout, &files([400, 400], 400));
    assert!(matches!(look(&record, &rollout, None).action, Action::Advance(..)));
    rollout.checks.insert(Measure::Length, Allowed { max_diff: Some(0.5), max_ratio: None, critical: false });
    assert_eq!(holds(&look(&record, &rollout, None)), "finish_length has 0 and 0 samples");
}
