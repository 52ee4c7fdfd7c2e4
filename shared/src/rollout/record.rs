//! What is remembered of a rollout between two looks. Takes what a node tells of a step, returns the counts to judge
//! by, and keeps what was possible at each look, for a report. Kept in a file by `bailiwick rollout`.
//!
//! Where the rollout stands isn't kept here: that is in the rules. Without a record a step that has no old arm any more
//! can't be judged, so it holds.

use serde::{Deserialize, Serialize};

use super::evals::{Finding, RegionEvals};
use super::machine::{Seen, checks, level, old_arm};
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

/// What is remembered of a rollout.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its steps, the oldest first.
    pub steps: Vec<StepRecord>,
    /// The evals of its regions, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evals: Vec<RegionEvals>,
}

/// One step of a region.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// The region.
    pub region: RegionId,
    /// Its share, in per cent.
    pub share: u8,
    /// When the step began.
    pub since: Timestamp,
    /// The old arm.
    pub old: ArmSum,
    /// The new arm.
    pub new: ArmSum,
    /// What the node told last, of both arms.
    last: [Counts; 2],
    /// Which process told them: the node's name and when it began.
    #[serde(default)]
    told_by: Option<(String, Timestamp)>,
    /// What nodes have told and forgotten, as they were started anew, and what other nodes told before.
    forgotten: [Counts; 2],
    /// What the process that tells now had counted when it was first heard, if another one's counts stand in
    /// `forgotten`: that isn't counted again.
    #[serde(default)]
    base: [Counts; 2],
    /// What was decided at the last look.
    #[serde(default)]
    pub outcome: String,
    /// The looks, the oldest first.
    pub looks: Vec<Look>,
}

/// One look at a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Look {
    /// When.
    pub at: Timestamp,
    /// What is possible of each check.
    pub possible: Possible,
    /// The attempts of the old and the new arm.
    pub attempts: [u64; 2],
}

impl Record {
    /// Forgets an earlier rollout of the same name: its old arm is nothing to compare with.
    pub fn begin(&mut self, rollout: &Rollout, place: Place<'_>) {
        let is_first = |step: &StepRecord| step.region == *place.region && step.share == place.share;
        let begins = rollout.regions.first() == Some(place.region) && rollout.steps.first() == Some(&place.share);
        if begins && !self.steps.iter().all(is_first) {
            (self.steps, self.evals) = Default::default();
        }
    }

    /// Notes what a node tells of a step. Every node counts everything, so that counts of two are never added up.
    /// `process` tells a node that was started anew, and so counts from nothing, from an answer that came late.
    pub fn note(&mut self, place: Place<'_>, told: &StepSums, process: &(String, Timestamp)) {
        let is_it = |step: &StepRecord| step.region == *place.region && step.since == told.since;
        if !self.steps.last().is_some_and(is_it) {
            if self.steps.len() >= MOST_STEPS {
                self.steps.remove(0);
            }
            self.steps.push(StepRecord::new(place, told.since));
        }
        let Some(step) = self.steps.last_mut() else { return };
        let now = [&told.old.counts, &told.new.counts];
        let total = |counts: [&Counts; 2]| counts.map(attempts).iter().fold(0_u64, |sum, one| sum.saturating_add(*one));
        match &step.told_by {
            Some((node, begun)) if *node == process.0 && *begun < process.1 => step.go_on_from(Default::default()),
            // An older answer of the same process, or of one that has ended.
            Some((node, begun)) if *node == process.0 && (*begun > process.1 || is_less(now, &step.last)) => return,
            // Of two nodes the one that counted more knows more.
            Some((node, _)) if *node != process.0 && total(now) > total([&step.old.counts, &step.new.counts]) => {
                (step.forgotten, step.base) = Default::default();
            }
            // One that was started since, or missed some: what it counts from now on comes on top.
            Some((node, _)) if *node != process.0 => step.go_on_from(now.map(Counts::clone)),
            _ => {}
        }
        step.told_by = Some(process.clone());
        step.last = now.map(Counts::clone);
        let [old_base, new_base] = &step.base;
        let [old_forgotten, new_forgotten] = &step.forgotten;
        for (sum, told, base, forgotten) in
            [(&mut step.old, &told.old, old_base, old_forgotten), (&mut step.new, &told.new, new_base, new_forgotten)]
        {
            sum.counts = told.counts.less(base);
            sum.counts.add(forgotten);
            sum.newest = told.newest;
        }
    }

    /// Notes that a region has begun, and results of its eval if they weren't noted before. `files` are those of the
    /// old and the new arm, or why there are none; `None` if nobody named any. Returns why they can't be judged.
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
            // It may quote a file.
            Err(problem) => return Some(problem.chars().take(LONGEST_PROBLEM).collect()),
        }
        None
    }

    /// The evals of the region under way, which begin with it.
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

    /// The latest finding since the region under way began, and how many there are.
    #[must_use]
    pub fn evaled(&self, rollout: &Rollout, place: Place<'_>) -> Option<(&Finding, usize)> {
        let (check, since) = (rollout.eval.as_ref()?, rollout.progress.as_ref()?.since);
        let last = self.evals.last()?;
        let mut now = last.clone();
        now.go_on(rollout, place, since).then(|| last.latest(check, now.since))?
    }

    /// What a step is judged by; `None` if nothing of it was noted.
    #[must_use]
    pub fn seen(&self, place: Place<'_>, since: Timestamp, told_at: Option<Timestamp>) -> Option<Seen<'_>> {
        let (step, earlier) = self.steps.split_last()?;
        let here = |step: &&StepRecord| step.region == *place.region;
        let before = earlier.iter().rev().filter(here).find(|step| step.share < 100).map(|step| &step.old.counts);
        let is_it = step.region == *place.region && step.since == since;
        is_it.then_some(Seen { old: &step.old, new: &step.new, before, told_at })
    }

    /// What another one has to know to go on: the last step, and the one before it that it may be compared with.
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

    /// Takes what another one noted, as far as it isn't known here, or less of it is.
    pub fn adopt(&mut self, left: Self) {
        for evals in left.evals {
            match self.evals.last_mut() {
                Some(own) if own.is_of(&evals) => own.adopt(evals),
                Some(own) if own.since >= evals.since => {}
                _ => self.evals.push(evals),
            }
        }
        let counted = |step: &StepRecord| attempts(&step.old.counts).saturating_add(attempts(&step.new.counts));
        for step in left.steps {
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

    /// Keeps a look at the step under way, and what was decided.
    pub fn look(&mut self, rollout: &Rollout, place: Place<'_>, outcome: &str, now: Timestamp) {
        let Some(since) = rollout.progress.as_ref().map(|progress| progress.since) else { return };
        let Some(seen) = self.seen(place, since, None) else { return };
        let (old, new, alpha) = (old_arm(place, seen), &seen.new.counts, level(rollout).alpha);
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

/// Whether any of these counts is lower.
fn is_less(now: [&Counts; 2], last: &[Counts; 2]) -> bool {
    last.iter().zip(now).any(|(last, now)| attempts(now) < attempts(last))
}

impl StepRecord {
    /// Keeps the sums so far. What is told from now on is added, less `base`.
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
        let seen = record.seen(place, since, None)?;
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
        // The second was started anew during the step, and is asked by whoever goes on.
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
            let newest = record.seen(at, NOW, None).and_then(|seen| seen.new.newest);
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
        // It outlives whoever keeps it.
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
