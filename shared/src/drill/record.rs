//! The record of a drill. Takes what was counted at each look, returns what came of the drill: traffic per region and
//! minute, how fast it moved, who came nevertheless, errors and times before, during and after, loads beside the
//! prediction, and how much was compared with fences. Kept by `bailiwick drill run`, which writes it at each look.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::counts::{Checked, Counted, EdgeCounts};
use super::preflight::Preflight;
use crate::id::{DrillId, RegionId};
use crate::rules::Drill;
use crate::time::{Millis, Timestamp};

/// The least number of answers or requests by which it is judged whether they have moved.
const LEAST: u64 = 20;
/// A minute.
const MINUTE: Millis = Millis(60_000);
/// The most minutes that are kept.
const MOST_MINUTES: usize = 2_000;

/// How a drill ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It is under way, or whoever ran it is gone.
    #[default]
    Unfinished,
    /// It took its whole time.
    Done,
    /// It was broken off.
    Aborted,
    /// It didn't begin, because the others couldn't carry the load.
    Capacity,
    /// It didn't begin, because something else stood in the way.
    Blocked,
}

impl Outcome {
    /// The word in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unfinished => "unfinished",
            Self::Done => "done",
            Self::Aborted => "aborted",
            Self::Capacity => "capacity",
            Self::Blocked => "blocked",
        }
    }
}

/// What came of a drill.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The drill.
    pub drill: DrillId,
    /// The region that got fewer clients.
    pub region: RegionId,
    /// The node that counted.
    pub node: String,
    /// The revision of the rules.
    pub revision: u64,
    /// SHA-256 of the rules, in hex.
    pub rules_sha256: String,
    /// Whether it began by itself, at its weekly time.
    pub is_scheduled: bool,
    /// What was planned.
    pub plan: Plan,
    /// The look before it.
    pub preflight: Preflight,
    /// Since when was counted.
    pub since: Timestamp,
    /// When the first share was asked for.
    pub began: Option<Timestamp>,
    /// Each share that was asked for, and when.
    pub steps: Vec<Taken>,
    /// When all clients were given back.
    pub ended: Option<Timestamp>,
    /// Until when was counted.
    pub until: Timestamp,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it was broken off or didn't begin.
    pub why: Vec<String>,
    /// Traffic per region and minute.
    pub minutes: Vec<Minute>,
    /// Before the first share.
    pub before: Phase,
    /// From the first share until all clients were given back.
    pub during: Phase,
    /// Afterwards.
    pub after: Phase,
    /// How long after the highest share was asked for 95 % of what had to move had moved.
    pub moved: Moved,
    /// Who came nevertheless.
    pub late: Late,
    /// The highest load of each region while the highest share lasted; 1 is full.
    pub highest_loads: BTreeMap<RegionId, f64>,
    /// What was compared with fences, from the first look to the last.
    pub checked: Checked,
}

/// What was planned.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The shares, in per cent.
    pub ramp: Vec<u8>,
    /// How long each share but the last lasts, in milliseconds.
    pub step_ms: u64,
    /// How long the last share lasts, in milliseconds.
    pub for_ms: u64,
    /// The share of failed requests from which on it is broken off.
    pub error_rate: Option<f64>,
    /// The time to the first token of 95 % of answers from which on it is broken off, in milliseconds.
    pub first_token_p95_ms: Option<u64>,
    /// The share of refused requests from which on it is broken off.
    pub refused: Option<f64>,
}

impl From<&Drill> for Plan {
    fn from(drill: &Drill) -> Self {
        let part = |ratio: crate::rules::Ratio| f64::from(ratio.0) / 1e6;
        Self {
            ramp: drill.ramp.clone(),
            step_ms: drill.step.0,
            for_ms: drill.lasts.0,
            error_rate: drill.abort.error_rate.map(part),
            first_token_p95_ms: drill.abort.first_token_p95.map(|span| span.0),
            refused: drill.abort.refused.map(part),
        }
    }
}

/// A share that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// When.
    pub at: Timestamp,
    /// The share, in per cent.
    pub share: u8,
}

/// The traffic of about a minute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Minute {
    /// When it began.
    pub from: Timestamp,
    /// How long it was, in milliseconds.
    pub ms: u64,
    /// The share that was asked for when it ended, in per cent.
    pub share: u8,
    /// By region.
    pub regions: BTreeMap<RegionId, Traffic>,
    /// Requests that failed.
    pub failed: u64,
    /// Requests that were refused.
    pub refused: u64,
}

/// The traffic of a region.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Traffic {
    /// Answers of DNS that named it.
    pub dns: u64,
    /// Requests that Workers sent there.
    pub edge: u64,
    /// Its load; 1 is full.
    pub load: Option<f64>,
}

/// Errors and times of a span.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// How long it was, in milliseconds.
    pub ms: u64,
    /// Answers of DNS that named a region.
    pub dns: u64,
    /// Requests of Workers that ended.
    pub requests: u64,
    /// Of these, those that failed.
    pub failed: u64,
    /// Of these, those that were refused.
    pub refused: u64,
    /// The times to the first token: the median and that of 95 %, in milliseconds. Absent without streamed answers.
    pub first_token_ms: Option<(u64, u64)>,
}

/// How long it took until 95 % of what had to move had moved, in milliseconds. Absent where that was never seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// Answers of DNS.
    pub dns_ms: Option<u64>,
    /// Requests of Workers.
    pub edge_ms: Option<u64>,
}

/// Who came to the region although twice the longest TTL had passed since the highest share was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Late {
    /// Twice the longest TTL, in milliseconds.
    pub after_ms: u64,
    /// For how long was counted from then on, in milliseconds. 0: the share didn't last so long.
    pub ms: u64,
    /// Answers of DNS that named the region.
    pub dns: u64,
    /// Requests that Workers sent there.
    pub edge: u64,
    /// The load of the region at the end; 1 is full. It has clients that neither DNS nor Workers steer.
    pub load: Option<f64>,
}

/// Makes the record of a drill, look by look.
#[derive(Clone, Debug)]
pub struct Recorder {
    record: Record,
    /// Twice the longest TTL.
    patience: Millis,
    first: Counted,
    last: Counted,
    minute: Counted,
    /// What was counted when the first share was asked for, when the highest was, when it had lasted for `patience`,
    /// and when all clients were given back.
    began: Option<Counted>,
    full: Option<Counted>,
    late: Option<Counted>,
    ended: Option<Counted>,
    /// Whether the highest share still lasts.
    is_full: bool,
    /// From where it is counted whether answers and requests have moved.
    moving: [Option<Counted>; 2],
}

impl Recorder {
    /// Begins with the first look. `longest_ttl` is the longest TTL of the services, in seconds.
    #[must_use]
    pub fn new((id, drill): (&DrillId, &Drill), preflight: Preflight, first: Counted, longest_ttl: u32) -> Self {
        let record = Record {
            drill: id.clone(),
            region: drill.region.clone(),
            node: first.node.clone(),
            revision: first.revision,
            rules_sha256: first.rules_sha256.clone(),
            is_scheduled: false,
            plan: Plan::from(drill),
            preflight,
            since: first.at,
            began: None,
            steps: Vec::new(),
            ended: None,
            until: first.at,
            outcome: Outcome::Unfinished,
            why: Vec::new(),
            minutes: Vec::new(),
            before: Phase::default(),
            during: Phase::default(),
            after: Phase::default(),
            moved: Moved::default(),
            late: Late::default(),
            highest_loads: BTreeMap::new(),
            checked: Checked::default(),
        };
        Self {
            record,
            patience: Millis(u64::from(longest_ttl) * 2_000),
            last: first.clone(),
            minute: first.clone(),
            first,
            began: None,
            full: None,
            late: None,
            ended: None,
            is_full: false,
            moving: [None, None],
        }
    }

    /// The record so far.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Notes whether it began by itself.
    pub fn scheduled(&mut self, is_scheduled: bool) {
        self.record.is_scheduled = is_scheduled;
    }

    /// Notes that a share was asked for, after the last look.
    pub fn took(&mut self, share: u8, at: Timestamp) {
        self.record.steps.push(Taken { at, share });
        if self.began.is_none() {
            self.began = Some(self.last.clone());
            self.record.began = Some(at);
        }
        let highest = self.record.plan.ramp.last().copied().unwrap_or(0);
        self.is_full = share == highest;
        if self.is_full && self.full.is_none() {
            self.full = Some(Counted { at, ..self.last.clone() });
            self.moving = [self.full.clone(), self.full.clone()];
        }
    }

    /// Notes that all clients were given back, after the last look.
    pub fn gave_back(&mut self, outcome: Outcome, why: Option<String>, at: Timestamp) {
        self.is_full = false;
        (self.record.outcome, self.record.ended) = (outcome, Some(at));
        self.record.why.extend(why);
        self.ended = Some(self.last.clone());
    }

    /// Notes that it didn't begin.
    pub fn refused(&mut self, outcome: Outcome, why: Vec<String>) {
        (self.record.outcome, self.record.why) = (outcome, why);
    }

    /// Notes what was counted at a look.
    pub fn look(&mut self, counted: Counted) {
        self.record.until = counted.at;
        if counted.at.since(self.minute.at) >= MINUTE {
            self.end_minute(&counted);
        }
        if self.is_full {
            self.look_at_full(&counted);
        }
        self.last = counted;
        self.sum_up();
    }

    /// Ends the minute that has begun, as at the end of a drill.
    pub fn finish(&mut self) {
        if self.last.at > self.minute.at {
            let last = self.last.clone();
            self.end_minute(&last);
        }
        self.sum_up();
    }

    /// What Workers counted since the drill began, at most since `earlier`.
    #[must_use]
    pub fn edge_since(&self, earlier: Option<&Counted>) -> EdgeCounts {
        let begin = match (earlier, &self.began) {
            (Some(earlier), Some(began)) if earlier.at > began.at => earlier,
            (_, Some(began)) => began,
            (Some(earlier), None) => earlier,
            (None, None) => &self.first,
        };
        self.last.since(begin).edge()
    }

    /// The last look.
    #[must_use]
    pub fn last(&self) -> &Counted {
        &self.last
    }

    fn end_minute(&mut self, counted: &Counted) {
        let new = counted.since(&self.minute);
        let edge = new.edge();
        let regions = new.regions.iter().map(|(name, region)| {
            (name.clone(), Traffic { dns: region.dns, edge: region.edge.sent, load: region.load })
        });
        if self.record.minutes.len() < MOST_MINUTES {
            let share = if self.ended.is_some() { 0 } else { self.record.steps.last().map_or(0, |taken| taken.share) };
            self.record.minutes.push(Minute {
                from: self.minute.at,
                ms: counted.at.since(self.minute.at).0,
                share,
                regions: regions.collect(),
                failed: edge.failed,
                refused: edge.refused,
            });
        }
        self.minute = counted.clone();
    }

    /// What happens while the highest share lasts.
    fn look_at_full(&mut self, counted: &Counted) {
        let Some(full) = &self.full else { return };
        for (name, load) in counted.regions.iter().filter_map(|(name, region)| Some((name, region.load?))) {
            let highest = self.record.highest_loads.entry(name.clone()).or_insert(load);
            *highest = highest.max(load);
        }
        let passed = counted.at.since(full.at);
        if passed > self.patience {
            let late = self.late.get_or_insert_with(|| counted.clone());
            let new = counted.since(late);
            let [(dns, _), (edge, _)] = new.shares(&self.record.region);
            let load = counted.regions.get(&self.record.region).and_then(|region| region.load);
            self.record.late = Late { after_ms: self.patience.0, ms: counted.at.since(late.at).0, dns, edge, load };
        }
        let highest = u64::from(self.record.plan.ramp.last().copied().unwrap_or(0));
        let before = self.began.as_ref().unwrap_or(&self.first).since(&self.first).shares(&self.record.region);
        for (half, (to, all)) in before.into_iter().enumerate() {
            let moved = if half == 0 { &mut self.record.moved.dns_ms } else { &mut self.record.moved.edge_ms };
            let Some(begin) = self.moving[half].as_ref().filter(|_| moved.is_none()) else { continue };
            let (now_to, now_all) = counted.since(begin).shares(&self.record.region)[half];
            if now_all < LEAST {
                continue;
            }
            // What still came is compared with what came before, without 95 % of the share.
            let left = 10_000 - 95 * highest;
            let is_moved = all > 0
                && to > 0
                && u128::from(now_to) * u128::from(all) * 10_000
                    <= u128::from(left) * u128::from(to) * u128::from(now_all);
            if is_moved {
                *moved = Some(passed.0);
            }
            self.moving[half] = Some(counted.clone());
        }
    }

    /// Computes what is made of all looks.
    fn sum_up(&mut self) {
        let phase = |from: &Counted, to: &Counted| {
            let new = to.since(from);
            let edge = new.edge();
            Phase {
                ms: to.at.since(from.at).0,
                dns: new.regions.values().map(|region| region.dns).sum(),
                requests: edge.requests,
                failed: edge.failed,
                refused: edge.refused,
                first_token_ms: edge.first_token_ms(500).zip(edge.first_token_ms(950)),
            }
        };
        let (began, ended) = (self.began.as_ref().unwrap_or(&self.last), self.ended.as_ref().unwrap_or(&self.last));
        self.record.before = phase(&self.first, began);
        self.record.during = phase(began, ended);
        self.record.after = phase(ended, &self.last);
        self.record.checked = self.last.since(&self.first).checked;
    }
}

#[cfg(test)]
mod tests {
    use super::super::counts::OfRegion;
    use super::super::counts::tests::counted;
    use super::super::preflight::tests_table;
    use super::*;

    /// Counts after some seconds: of DNS and of the edge, to Frankfurt and to Paris.
    fn at(second: i64, dns: (u64, u64), edge: (u64, u64)) -> Counted {
        let region = |dns, sent| OfRegion {
            dns,
            edge: EdgeCounts { sent, requests: sent, ..EdgeCounts::default() },
            load: Some(0.5),
        };
        let name = |name| RegionId::parse(name).unwrap();
        let regions = BTreeMap::from([(name("fra"), region(dns.0, edge.0)), (name("par"), region(dns.1, edge.1))]);
        let mut counted = Counted { regions, ..counted(second * 1_000) };
        counted.checked.dns = dns.0 + dns.1;
        counted
    }

    fn recorder() -> Recorder {
        let table = tests_table(10, r#", "ramp": [100], "for": "60s""#);
        let (id, drill, _) = table.drill_named("one").unwrap();
        Recorder::new((id, drill), Preflight::default(), at(0, (0, 0), (0, 0)), 10)
    }

    #[test]
    fn the_time_until_clients_have_moved_is_told_apart_for_dns_and_the_edge() {
        let mut recorder = recorder();
        recorder.look(at(60, (100, 100), (100, 100)));
        recorder.took(100, Timestamp(60_000));
        recorder.look(at(65, (130, 170), (140, 160)));
        assert_eq!(recorder.record().moved, Moved::default(), "3 of 10 and 4 of 10 still go there");
        recorder.look(at(70, (131, 269), (170, 230)));
        assert_eq!(recorder.record().moved, Moved { dns_ms: Some(10_000), edge_ms: None }, "1 of 100 is left");
        recorder.look(at(75, (131, 270), (170, 231)));
        recorder.look(at(80, (131, 370), (170, 330)));
        assert_eq!(recorder.record().moved, Moved { dns_ms: Some(10_000), edge_ms: Some(20_000) });
        // Twice the TTL are 20 s.
        recorder.look(at(81, (131, 370), (170, 330)));
        recorder.look(at(90, (133, 370), (177, 330)));
        let late = recorder.record().late;
        assert_eq!((late.after_ms, late.ms, late.dns, late.edge, late.load), (20_000, 9_000, 2, 7, Some(0.5)));
    }

    #[test]
    fn phases_minutes_and_checks_add_up() {
        let mut recorder = recorder();
        recorder.look(at(60, (100, 100), (100, 100)));
        recorder.took(100, Timestamp(60_000));
        recorder.look(at(120, (100, 300), (100, 300)));
        recorder.gave_back(Outcome::Done, None, Timestamp(120_000));
        recorder.look(at(150, (150, 300), (150, 350)));
        recorder.finish();
        let record = recorder.record();
        assert_eq!(
            [&record.before, &record.during, &record.after].map(|phase| (phase.ms, phase.dns)),
            [(60_000, 200), (60_000, 200), (30_000, 50)]
        );
        let minutes: Vec<_> = record
            .minutes
            .iter()
            .map(|minute| (minute.ms / 1_000, minute.share, minute.regions[&record.region].dns))
            .collect();
        assert_eq!(minutes, [(60, 0, 100), (60, 100, 0), (30, 0, 50)]);
        assert_eq!((record.checked.dns, record.outcome), (450, Outcome::Done));
        let again: Record = serde_json::from_value(serde_json::to_value(record).unwrap()).unwrap();
        assert_eq!(&again, record);
    }

    #[test]
    fn limits_are_judged_by_what_came_since_the_drill_began() {
        let mut recorder = recorder();
        let before = at(60, (0, 0), (100, 0));
        recorder.look(before.clone());
        recorder.took(100, Timestamp(60_000));
        recorder.look(at(90, (0, 0), (110, 0)));
        let old = at(30, (0, 0), (50, 0));
        assert_eq!((recorder.edge_since(Some(&old)).sent, recorder.edge_since(None).sent), (10, 10));
        assert_eq!(recorder.edge_since(Some(&at(80, (0, 0), (107, 0)))).sent, 3);
    }
}
