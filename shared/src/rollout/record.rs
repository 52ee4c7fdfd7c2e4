//! The record of a rollout: what was counted and decided at the looks so far. `bailiwick rollout` keeps it in a file.
//! Takes the counts of a step from a node's answer, returns the counts by which the step is judged. Also keeps, for a
//! report, which differences between the arms were still possible at each look. The arms are the sessions with the old
//! and with the new thing.
//!
//! The record is needed because a node that is started again counts from zero, and because a step in which the new arm
//! has all sessions is compared with the old arm of an earlier step. Without a record such a step can't be judged, so
//! it waits. The state of the rollout itself, its shares, isn't kept here but in the rules.

use serde::{Deserialize, Serialize};

use super::evals::{Finding, RegionEvals};
use super::machine::{StepObservations, checks, level, old_arm};
use super::place::Place;
use super::possible::{Possible, Range};
use crate::id::RegionId;
use crate::observe::{ArmSum, Counts, StepSums};
use crate::rules::Rollout;
use crate::time::{Millis, Timestamp};

/// The most looks of a step that are kept. If there are more, every other one is dropped.
const MOST_LOOKS: usize = 512;
/// The most steps that are kept.
const MOST_STEPS: usize = 1_024;
/// The longest sentence about results that can't be judged, in characters.
#[cfg(any(test, feature = "eval"))]
const LONGEST_PROBLEM: usize = 400;
/// The shortest time between two looks that are kept.
const BETWEEN_LOOKS: Millis = Millis(60_000);

/// The record of a rollout.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The steps, the oldest first.
    pub steps: Vec<StepRecord>,
    /// The evals of the regions, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evals: Vec<RegionEvals>,
}

/// One step of a region.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// The region.
    pub region: RegionId,
    /// The region's share in this step, in per cent.
    pub share: u8,
    /// When the step began.
    pub since: Timestamp,
    /// The counts of the old arm, from all processes together.
    pub old: ArmSum,
    /// The counts of the new arm, from all processes together.
    pub new: ArmSum,
    /// The counts of both arms in the last answer.
    last: [Counts; 2],
    /// The process that gave the last answer: the node's name, and when its process began.
    #[serde(default)]
    told_by: Option<(String, Timestamp)>,
    /// The counts of earlier processes, which the present one doesn't have: it was started later, or is another node.
    forgotten: [Counts; 2],
    /// What the present process had counted already at its first answer, if the same requests may be in `forgotten`.
    /// These counts are subtracted, so that no request counts twice.
    #[serde(default)]
    base: [Counts; 2],
    /// What was decided at the last look.
    #[serde(default)]
    pub outcome: String,
    /// The looks, the oldest first.
    pub looks: Vec<Look>,
}

/// One look at a step, as far as a report shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Look {
    /// The time of the look.
    pub at: Timestamp,
    /// For each check, which differences between the arms were still possible.
    pub possible: Possible,
    /// The attempts of the old and the new arm.
    pub attempts: [u64; 2],
}

impl Record {
    /// Forgets an earlier rollout of the same name. Its old arm can't be compared with the new arm of this one.
    pub fn begin(&mut self, rollout: &Rollout, place: Place<'_>) {
        let is_first = |step: &StepRecord| step.region == *place.region && step.share == place.share;
        let begins = rollout.regions.first() == Some(place.region) && rollout.steps.first() == Some(&place.share);
        if begins && !self.steps.iter().all(is_first) {
            (self.steps, self.evals) = Default::default();
        }
    }

    /// Adds the counts of a node's answer to a step. Workers post everything to every node, so the counts of two nodes
    /// are never added up. `process` is the node's name and the time when its process began. It distinguishes a node
    /// that was started again, and so counts from zero, from an answer of the same process that came late.
    pub fn note(&mut self, place: Place<'_>, sums: &StepSums, process: &(String, Timestamp)) {
        let is_it = |step: &StepRecord| step.region == *place.region && step.since == sums.since;
        if !self.steps.last().is_some_and(is_it) {
            if self.steps.len() >= MOST_STEPS {
                self.steps.remove(0);
            }
            self.steps.push(StepRecord::new(place, sums.since));
        }
        let Some(step) = self.steps.last_mut() else { return };
        let now = [&sums.old.counts, &sums.new.counts];
        let total =
            |counts: [&Counts; 2]| counts.map(attempts).iter().fold(0_u64, |sum, count| sum.saturating_add(*count));
        match &step.told_by {
            Some((node, begun)) if *node == process.0 && *begun < process.1 => step.go_on_from(Default::default()),
            // An older answer of the same process, or of one that has ended.
            Some((node, begun)) if *node == process.0 && (*begun > process.1 || is_less(now, &step.last)) => return,
            // Of two nodes the one that counted more knows more.
            Some((node, _)) if *node != process.0 && total(now) > total([&step.old.counts, &step.new.counts]) => {
                (step.forgotten, step.base) = Default::default();
            }
            // A node that was started later, or missed some posts: what it counts from now on is added.
            Some((node, _)) if *node != process.0 => step.go_on_from(now.map(Counts::clone)),
            _ => {}
        }
        step.told_by = Some(process.clone());
        step.last = now.map(Counts::clone);
        let [old_base, new_base] = &step.base;
        let [old_forgotten, new_forgotten] = &step.forgotten;
        for (sum, arm_sum, base, forgotten) in
            [(&mut step.old, &sums.old, old_base, old_forgotten), (&mut step.new, &sums.new, new_base, new_forgotten)]
        {
            sum.counts = arm_sum.counts.less(base);
            sum.counts.add(forgotten);
            sum.newest = arm_sum.newest;
        }
    }

    /// Notes that a region has begun, and adds the results of its eval unless they were added before. `files` are the
    /// files of the old and the new arm, or why there are none; `None` if the operator named no folder. Returns why the
    /// results can't be judged, if they can't.
    #[cfg(any(test, feature = "eval"))]
    pub fn note_eval(
        &mut self,
        rollout: &Rollout,
        place: Place<'_>,
        files: Option<Result<[&[u8]; 2], String>>,
        now: Timestamp,
    ) -> Option<String> {
        let (check, since) = (rollout.eval.as_ref()?, rollout.progress.as_ref()?.since);
        let evals = self.evals_of(rollout, place, since)?;
        let files = match files? {
            Ok(files) => files,
            Err(problem) => return Some(problem),
        };
        let digest = super::evals::digest_of(check, files);
        if evals.findings.iter().any(|known| known.digest == digest) {
            return None;
        }
        if evals.findings.len() >= super::evals::MOST_RESULTS {
            let most = super::evals::MOST_RESULTS;
            return Some(format!("{most} results were judged, and that many prove nothing more"));
        }
        match super::evals::find((rollout, check), (place.region, evals.since), files, now) {
            Ok(found) => evals.findings.push(found),
            // The message may quote a file, so its length is limited.
            Err(problem) => return Some(problem.chars().take(LONGEST_PROBLEM).collect()),
        }
        None
    }

    /// The evals of the region whose step is under way.
    #[cfg(any(test, feature = "eval"))]
    fn evals_of(&mut self, rollout: &Rollout, place: Place<'_>, since: Timestamp) -> Option<&mut RegionEvals> {
        if !self.evals.last_mut().is_some_and(|last| last.go_on(rollout, place, since)) {
            if self.evals.len() >= MOST_STEPS {
                self.evals.remove(0);
            }
            self.evals.push(RegionEvals::begin(rollout, place, since));
        }
        self.evals.last_mut()
    }

    /// The latest finding since the region under way began, and how many findings there are.
    #[must_use]
    pub fn latest_finding(&self, rollout: &Rollout, place: Place<'_>) -> Option<(&Finding, usize)> {
        let (check, since) = (rollout.eval.as_ref()?, rollout.progress.as_ref()?.since);
        let last = self.evals.last()?;
        let mut now = last.clone();
        now.go_on(rollout, place, since).then(|| last.latest(check, now.since))?
    }

    /// The counts by which a step is judged; `None` if no node has answered since it began.
    #[must_use]
    pub fn observations(
        &self,
        place: Place<'_>,
        since: Timestamp,
        answered_at: Option<Timestamp>,
    ) -> Option<StepObservations<'_>> {
        let (step, earlier) = self.steps.split_last()?;
        let here = |step: &&StepRecord| step.region == *place.region;
        let before = earlier.iter().rev().filter(here).find(|step| step.share < 100).map(|step| &step.old.counts);
        let is_it = step.region == *place.region && step.since == since;
        is_it.then_some(StepObservations { old: &step.old, new: &step.new, before, answered_at })
    }

    /// The part of the record that another process needs to go on: the last step, and the step before it with which it
    /// may be compared.
    #[must_use]
    pub fn brief(&self) -> Self {
        let last = self.steps.last();
        let before = last.and_then(|last| {
            let earlier = self.steps.iter().rev().skip(1);
            earlier.clone().find(|step| step.region == last.region && step.share < 100)
        });
        let steps = before.into_iter().chain(last);
        let steps = steps.map(|step| StepRecord { looks: Vec::new(), ..step.clone() }).collect();
        Self { steps, evals: self.evals.last().cloned().into_iter().collect() }
    }

    /// Adds the record that another process left behind, except what is known here as well or better.
    pub fn adopt(&mut self, left_behind: Self) {
        for evals in left_behind.evals {
            match self.evals.last_mut() {
                Some(own) if own.is_of(&evals) => own.adopt(evals),
                Some(own) if own.since >= evals.since => {}
                _ => self.evals.push(evals),
            }
        }
        let counted = |step: &StepRecord| attempts(&step.old.counts).saturating_add(attempts(&step.new.counts));
        for step in left_behind.steps {
            let is_it = |own: &&mut StepRecord| own.region == step.region && own.since == step.since;
            match self.steps.iter_mut().find(is_it) {
                Some(own) if counted(own) < counted(&step) => {
                    let looks = std::mem::take(&mut own.looks);
                    *own = StepRecord { looks, ..step };
                }
                Some(_) => {}
                None => {
                    let place = self.steps.partition_point(|own| own.since < step.since);
                    self.steps.insert(place, step);
                }
            }
        }
    }

    /// Records a look at the step under way, and what was decided.
    pub fn look(&mut self, rollout: &Rollout, place: Place<'_>, outcome: &str, now: Timestamp) {
        let Some(since) = rollout.progress.as_ref().map(|progress| progress.since) else { return };
        let Some(observed) = self.observations(place, since, None) else { return };
        let (old, new, alpha) = (old_arm(place, observed), &observed.new.counts, level(rollout).alpha);
        let range = |check: super::Check| {
            let possible = check.possible(old, new, alpha)?;
            Some(Range { low: possible.low, high: Some(possible.high).filter(|high| high.is_finite()) })
        };
        let possible = Possible::of(&checks(rollout), range);
        let look = Look { at: now, possible, attempts: [attempts(old), attempts(new)] };
        let Some(step) = self.steps.last_mut() else { return };
        outcome.clone_into(&mut step.outcome);
        if step.looks.last().is_some_and(|last| now.since(last.at) < BETWEEN_LOOKS) {
            return;
        }
        if step.looks.len() >= MOST_LOOKS {
            let mut nth = 0_usize;
            step.looks.retain(|_| {
                nth += 1;
                nth.is_multiple_of(2)
            });
        }
        step.looks.push(look);
    }
}

/// Whether any of these counts is lower than before.
fn is_less(now: [&Counts; 2], last: &[Counts; 2]) -> bool {
    last.iter().zip(now).any(|(last, now)| attempts(now) < attempts(last))
}

impl StepRecord {
    /// Keeps the sums so far as `forgotten`. The counts of later answers are added to them, less `base`.
    fn go_on_from(&mut self, base: [Counts; 2]) {
        self.forgotten = [self.old.counts.clone(), self.new.counts.clone()];
        self.base = base;
    }

    fn new(place: Place<'_>, since: Timestamp) -> Self {
        Self {
            region: place.region.clone(),
            share: place.share,
            since,
            old: ArmSum::default(),
            new: ArmSum::default(),
            last: [Counts::default(), Counts::default()],
            told_by: None,
            forgotten: Default::default(),
            base: Default::default(),
            outcome: String::new(),
            looks: Vec::new(),
        }
    }
}

/// All attempts.
fn attempts(counts: &Counts) -> u64 {
    counts.attempts.values().fold(0, |sum: u64, count| sum.saturating_add(*count))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_796_104_800_000);

    fn told(since: Timestamp, old: u64, new: u64) -> StepSums {
        let sum = |count: u64| ArmSum {
            counts: Counts { attempts: [("committed".to_owned(), count)].into(), ..Counts::default() },
            newest: Some(NOW),
        };
        StepSums { since, revision: 1, old: sum(old), new: sum(new) }
    }

    fn seen(record: &Record, place: Place<'_>, since: Timestamp) -> Option<([u64; 2], Option<u64>)> {
        let seen = record.observations(place, since, None)?;
        Some(([attempts(&seen.old.counts), attempts(&seen.new.counts)], seen.before.map(attempts)))
    }

    /// A rollout of two regions whose first step began now.
    fn rule() -> Rollout {
        let endpoints = serde_json::json!({ "e": { "url": "https://e.example/v1", "models": { "m": "old" } } });
        let rules = serde_json::json!({
            "version": 1, "revision": 1, "jurisdictions": { "eu": { "include": ["EU"] } },
            "regions": { "fra": { "countries": ["DE"], "endpoints": endpoints },
                         "par": { "countries": ["FR"], "endpoints": endpoints } },
            "services": { "chat": { "hosts": ["chat.example"], "pattern": "active-active", "regions": ["fra", "par"],
                                    "residency": [{ "clients": ["eu"], "process_in": ["eu"] }] } },
            "rollouts": { "r": { "service": "chat", "model": "m", "from": "old", "to": "new",
                "regions": ["fra", "par"], "steps": [5, 50], "checks": { "error_rate": { "max_diff": 0.01 } },
                "progress": { "shares": { "fra": 5 }, "since": NOW.to_string() } } },
        });
        crate::table::Table::compile(rules.to_string().as_bytes()).unwrap().rollouts()[0].rule.clone()
    }

    #[test]
    fn whoever_goes_on_takes_what_the_one_before_counted_and_nothing_twice() {
        let fra = RegionId::parse("fra").unwrap();
        let at = |share| Place { region: &fra, share, next: None };
        let process = ("ns1".to_owned(), Timestamp(1));
        let (mut first, later) = (Record::default(), NOW.after(Millis(5)));
        first.note(at(5), &told(Timestamp(NOW.0 - 5), 7, 7), &process);
        first.note(at(50), &told(NOW, 10, 20), &process);
        first.note(at(100), &told(later, 0, 30), &process);
        let brief = first.brief();
        let kept: Vec<u8> = brief.steps.iter().map(|step| step.share).collect();
        assert_eq!(kept, [50, 100], "the step and what it is compared with");
        let mut second = Record::default();
        second.adopt(brief.clone());
        assert_eq!(seen(&second, at(100), later), Some(([0, 30], Some(10))));
        second.note(at(100), &told(later, 0, 40), &process);
        second.adopt(brief);
        assert_eq!(seen(&second, at(100), later), Some(([0, 40], Some(10))), "what it knows better stays");
        let mut third = Record::default();
        third.note(at(100), &told(later, 0, 35), &process);
        third.adopt(second.brief());
        assert_eq!(seen(&third, at(100), later), Some(([0, 40], Some(10))), "in the order of their begin");
        assert_eq!(Record::default().brief(), Record::default());
    }

    #[test]
    fn another_node_that_counted_less_is_heard_and_its_new_counts_are_added() {
        let fra = RegionId::parse("fra").unwrap();
        let at = Place { region: &fra, share: 50, next: None };
        let process = |node: &str, begun: i64| (node.to_owned(), Timestamp(begun));
        let mut record = Record::default();
        // The second node was started again during the step, and is asked by the process that goes on.
        for (node, begun, old, new, expected) in [
            ("ns1", 1, 5_000, 5_000, [5_000, 5_000]),
            ("ns2", 7, 10, 12, [5_000, 5_000]),
            ("ns2", 7, 15, 22, [5_005, 5_010]),
            ("ns2", 8, 3, 4, [5_008, 5_014]),
            ("ns1", 1, 5_006, 5_008, [5_008, 5_014]),
            ("ns1", 1, 5_007, 5_010, [5_009, 5_016]),
            ("ns3", 1, 6_000, 6_000, [6_000, 6_000]),
        ] {
            let mut now = told(NOW, old, new);
            now.new.newest = Some(NOW.after(Millis(old)));
            record.note(at, &now, &process(node, begun));
            assert_eq!(seen(&record, at, NOW), Some((expected, None)), "{node} {begun} {old} {new}");
            let newest = record.observations(at, NOW, None).and_then(|seen| seen.new.newest);
            assert_eq!(newest, now.new.newest, "its traffic is seen");
            record.adopt(record.brief());
        }
    }

    #[test]
    fn a_rollout_that_begins_anew_is_not_compared_with_the_one_before() {
        let (fra, rule, process) = (RegionId::parse("fra").unwrap(), rule(), ("ns1".to_owned(), Timestamp(1)));
        let at = |share| Place { region: &fra, share, next: None };
        let mut record = Record::default();
        for share in [5, 50] {
            record.begin(&rule, at(share));
            record.note(at(share), &told(Timestamp(NOW.0 + i64::from(share)), 10, 10), &process);
        }
        assert_eq!(record.steps.len(), 2, "its own steps stay");
        record.begin(&rule, at(5));
        assert_eq!(record, Record::default());
    }

    #[test]
    fn what_a_node_forgets_is_remembered_and_a_step_begins_anew() {
        let (fra, par) = (RegionId::parse("fra").unwrap(), RegionId::parse("par").unwrap());
        let at = |share| Place { region: &fra, share, next: None };
        let mut record = Record::default();
        assert_eq!(seen(&record, at(50), NOW), None);
        let process = |node: &str, begun: i64| (node.to_owned(), Timestamp(begun));
        for (begun, old, new, expected) in
            [(1, 10, 9, [10, 9]), (1, 30, 31, [30, 31]), (2, 2, 1, [32, 32]), (2, 5, 6, [35, 37]), (3, 0, 0, [35, 37])]
        {
            record.note(at(50), &told(NOW, old, new), &process("ns1", begun));
            assert_eq!(seen(&record, at(50), NOW), Some((expected, None)));
        }
        // Nobody's counts are added up twice: older answers, those of an ended process, and those of another node.
        for (node, begun, old, new, expected) in [
            ("ns1", 3, 4, 4, [39, 41]),
            ("ns1", 3, 3, 4, [39, 41]),
            ("ns1", 2, 5, 6, [39, 41]),
            ("ns2", 1, 39, 41, [39, 41]),
            ("ns2", 1, 40, 41, [40, 41]),
            ("ns1", 3, 4, 5, [40, 41]),
        ] {
            record.note(at(50), &told(NOW, old, new), &process(node, begun));
            assert_eq!(seen(&record, at(50), NOW), Some((expected, None)), "{node} {begun} {old} {new}");
        }
        // The record is written and read again, as by another process.
        let mut record: Record = serde_json::from_str(&serde_json::to_string(&record).unwrap()).unwrap();
        let later = NOW.after(Millis(1));
        record.note(at(100), &told(later, 0, 4), &process("ns1", 3));
        assert_eq!(seen(&record, at(100), later), Some(([0, 4], Some(40))), "the old arm of the step before");
        assert_eq!(seen(&record, at(100), NOW), None, "another step");
        let in_par = Place { region: &par, share: 5, next: None };
        record.note(in_par, &told(later, 1, 1), &process("ns1", 3));
        assert_eq!(seen(&record, in_par, later), Some(([1, 1], None)), "another region's old arm is none");
    }
}
