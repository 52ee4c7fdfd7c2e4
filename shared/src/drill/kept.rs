//! The drills that a node knows. Takes what whoever runs one asks for and what other nodes report, returns the one that
//! counts. Held by the owner of the node's state.
//!
//! A drill ends by itself soon after nobody renews it. So it needs no state on disk: after a restart, a node learns it
//! again from another node. If it hears none, it doesn't know the drill: then whoever runs it breaks it off, and tells
//! the node so, which passes the end on.
//!
//! Of each run the node keeps one record. The ends of runs are kept for a while, beside the drill under way, so that
//! nobody who missed an end brings the run back.

use crate::id::DrillId;
use crate::report::{DrillRecord, FURTHEST_END, LONGEST_HOLD};
use crate::rules::Drill;
use crate::table::{RegionIndex, Table};
use crate::time::{Millis, Timestamp};

/// The shortest time for which a drill may be asked to go on.
const SHORTEST_HOLD: Millis = Millis(1_000);
/// How long the end of a drill is told to others.
const TELL_END_FOR: Millis = Millis(600_000);
/// How much longer than planned a drill may take, beside a tenth of its time: whoever runs it looks now and then only.
const SLACK: Millis = Millis(60_000);

/// The most runs that are kept. Each lasts for seconds at least, so more come only from a mistake.
const MOST_RUNS: usize = 16;

/// The drill under way, and those that ended lately.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptDrill(Vec<DrillRecord>);

/// Which run of a drill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// When it began.
    pub began: Timestamp,
    /// The node where it began.
    pub origin: String,
}

/// What whoever runs a drill asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The drill.
    pub name: DrillId,
    /// Which run; `None` begins one.
    pub began: Option<Timestamp>,
    /// The share of the region's clients that are sent elsewhere, in per cent.
    pub share: u8,
    /// For how long, unless it is renewed.
    pub hold: Millis,
}

/// Why a drill isn't begun or doesn't go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The rules have none of this name.
    Unknown,
    /// Another one is under way, in this region.
    Another(DrillId),
    /// No drill of this name is under way that began then.
    NotRunning,
    /// It has ended, for this reason.
    Ended(String),
    /// Its time is over.
    Over,
    /// The rules name no share that high.
    Share(u8),
}

impl core::fmt::Display for Refusal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Unknown => f.write_str("the rules have no drill of this name"),
            Self::Another(name) => write!(f, "the drill {name} is under way; one at a time can be judged"),
            Self::NotRunning => f.write_str("it isn't under way; it may have expired because nobody renewed it"),
            Self::Ended(why) => write!(f, "it has ended: {why}"),
            Self::Over => f.write_str("its time is over"),
            Self::Share(most) => write!(f, "its ramp goes up to {most} %"),
        }
    }
}

impl KeptDrill {
    /// The drill under way, or the last one: what is told to other nodes and to the edge.
    #[must_use]
    pub fn record(&self, now: Timestamp) -> Option<&DrillRecord> {
        DrillRecord::leading(&self.0, now)
    }

    /// The other runs that ended, which are told, too.
    pub fn other_ends(&self, now: Timestamp) -> impl Iterator<Item = &DrillRecord> {
        let told = self.record(now);
        self.0.iter().filter(move |one| one.ended.is_some() && told.is_none_or(|told| !told.is_same_run(one)))
    }

    /// The drill that is under way.
    #[must_use]
    pub fn running(&self, now: Timestamp) -> Option<&DrillRecord> {
        self.record(now).filter(|record| record.is_running(now))
    }

    /// Begins a drill, or goes on with one. `origin` is this node.
    ///
    /// # Errors
    /// Why it doesn't.
    pub fn ask(
        &mut self,
        table: &Table,
        wanted: &Wanted,
        origin: &str,
        now: Timestamp,
    ) -> Result<DrillRecord, Refusal> {
        let (_, drill, _) = table.drill_named(wanted.name.as_str()).ok_or(Refusal::Unknown)?;
        let most = drill.ramp.last().copied().unwrap_or(0);
        if wanted.share > most {
            return Err(Refusal::Share(most));
        }
        let until = now.after(wanted.hold.clamp(SHORTEST_HOLD, LONGEST_HOLD));
        let number = self.next_number(now);
        let running = self.running(now);
        let next = match (running, wanted.began) {
            (Some(running), Some(began)) if running.began == began && running.name == wanted.name => {
                let until = until.min(latest(drill, began));
                if until <= now {
                    return Err(Refusal::Over);
                }
                DrillRecord { share: wanted.share, number, until, ..running.clone() }
            }
            (_, Some(began)) => {
                let mut same = self.0.iter().filter(|record| record.began == began && record.name == wanted.name);
                let why = same.find_map(|same| same.ended.clone()).map(Refusal::Ended);
                let another = running.map(|running| Refusal::Another(running.name.clone()));
                return Err(why.or(another).unwrap_or(Refusal::NotRunning));
            }
            (Some(running), None) => return Err(Refusal::Another(running.name.clone())),
            (None, None) => DrillRecord {
                name: wanted.name.clone(),
                region: drill.region.clone(),
                began: now,
                origin: origin.to_owned(),
                number,
                share: wanted.share,
                until,
                ended: None,
            },
        };
        self.take(next.clone(), now);
        Ok(next)
    }

    /// A number higher than all that is known, even if the clock was set back.
    fn next_number(&self, now: Timestamp) -> u64 {
        let last = self.0.iter().map(|record| record.number).max().unwrap_or(0);
        u64::try_from(now.0).unwrap_or(0).max(last.saturating_add(1))
    }

    /// Ends the drill that is under way. Returns it, if one was.
    pub fn end(&mut self, why: &str, now: Timestamp) -> Option<DrillRecord> {
        let mut record = self.running(now)?.clone();
        end(&mut record, why, now);
        self.take(record.clone(), now);
        Some(record)
    }

    /// Ends a run of a drill, even if this node doesn't know of it: it may have been restarted, and others may know.
    /// Returns it; `None` if the rules have no drill of this name.
    pub fn end_run(
        &mut self,
        table: &Table,
        (name, run): (&str, &Run),
        why: &str,
        now: Timestamp,
    ) -> Option<DrillRecord> {
        let (id, drill, _) = table.drill_named(name)?;
        let unknown = DrillRecord {
            name: id.clone(),
            region: drill.region.clone(),
            began: run.began,
            origin: run.origin.chars().filter(|c| !c.is_control()).take(500).collect(),
            number: self.next_number(now),
            share: 0,
            until: now.after(LONGEST_HOLD),
            ended: None,
        };
        let known = self.0.iter().find(|record| record.is_same_run(&unknown));
        let mut record = known.cloned().unwrap_or(unknown);
        if record.ended.is_none() {
            end(&mut record, why, now);
            self.take(record.clone(), now);
        }
        Some(record)
    }

    /// Takes what another node reports. Returns whether it changed anything.
    pub fn merge(&mut self, table: &Table, reported: &DrillRecord, now: Timestamp) -> bool {
        reported.is_sound(table, now) && now.since(reported.until) < TELL_END_FOR && self.take(reported.clone(), now)
    }

    /// Keeps a record, unless what is known of its run counts more. Of two runs that are under way, the one that began
    /// later ends. Returns whether anything changed.
    fn take(&mut self, record: DrillRecord, now: Timestamp) -> bool {
        match self.0.iter_mut().find(|known| known.is_same_run(&record)) {
            None => self.0.push(record),
            Some(known) if record.supersedes(known) => *known = record,
            Some(_) => return false,
        }
        let Some(first) = self.record(now).cloned() else { return true };
        for other in self.0.iter_mut().filter(|one| one.is_running(now) && !one.is_same_run(&first)) {
            end(other, &format!("the drill {}, which began earlier, is under way", first.name), now);
        }
        while self.0.len() > MOST_RUNS {
            let oldest = self.0.iter().enumerate().filter(|(_, one)| !one.is_same_run(&first));
            let Some((at, _)) = oldest.min_by_key(|(_, one)| one.until) else { break };
            self.0.remove(at);
        }
        true
    }

    /// Follows the rules and the time. A drill that the rules no longer have ends, and so does one whose end lies
    /// further away than any can: the clock was set back. What is long over is forgotten.
    pub fn follow(&mut self, table: &Table, now: Timestamp) {
        for record in &mut self.0 {
            let drill = table.drill_named(record.name.as_str());
            if record.ended.is_none() && drill.is_none_or(|(_, drill, _)| drill.region != record.region) {
                end(record, "the rules no longer have it", now);
            }
            if record.until > now.after(FURTHEST_END) {
                end(record, "the clock was set back", now);
            }
        }
        self.0.retain(|record| now.since(record.until) < TELL_END_FOR);
    }
}

/// Ends a run, unless it has ended. It is told for a while from now on.
fn end(record: &mut DrillRecord, why: &str, now: Timestamp) {
    if record.ended.is_none() {
        record.number = record.number.saturating_add(1);
        record.ended = Some(why.chars().filter(|c| !c.is_control()).take(500).collect());
    }
    record.until = record.until.clamp(now, now.after(LONGEST_HOLD));
}

/// When a drill that began then is over at the latest, whoever renews it.
fn latest(drill: &Drill, began: Timestamp) -> Timestamp {
    let span = drill.span();
    began.after(Millis(span.0.saturating_add(span.0 / 10).saturating_add(SLACK.0)))
}

/// Why a drill of this region has to end at once: the first other region of its services that is down, or the region
/// itself. `None` while all of them serve.
#[must_use]
pub fn failed_elsewhere(table: &Table, region: RegionIndex, is_down: impl Fn(RegionIndex) -> bool) -> Option<String> {
    let down = neighbours(table, region).into_iter().chain([region]).find(|one| is_down(*one))?;
    Some(format!("{} is down", table.region(down).id))
}

/// The other regions of all services that have this region: where its clients may go, and from where others may come.
#[must_use]
pub fn neighbours(table: &Table, region: RegionIndex) -> Vec<RegionIndex> {
    let services = table.services().iter().filter(|service| service.regions.contains(&region));
    let mut regions: Vec<RegionIndex> = services.flat_map(|service| service.regions.iter().copied()).collect();
    regions.sort_unstable();
    regions.dedup();
    regions.retain(|one| *one != region);
    regions
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    pub(super) fn table() -> Table {
        Table::compile(
            br#"{ "version": 1, "revision": 1, "jurisdictions": { "eu": { "include": ["EU"] } },
            "regions": { "fra": { "countries": ["DE"] }, "par": { "countries": ["FR"] },
                         "nyc": { "countries": ["US"] } },
            "drills": { "one": { "region": "fra", "for": "60s", "step": "10s", "ramp": [10, 50] },
                        "two": { "region": "par" } },
            "services": { "chat": { "hosts": ["chat.example"], "pattern": "active-active",
                "regions": ["fra", "par"], "residency": [{ "clients": ["eu"], "process_in": ["eu"] }] } } }"#,
        )
        .unwrap()
    }

    fn wanted(name: &str, began: Option<Timestamp>, share: u8) -> Wanted {
        Wanted { name: DrillId::parse(name).unwrap(), began, share, hold: Millis(30_000) }
    }

    #[test]
    fn a_drill_begins_goes_on_and_expires_unless_it_is_renewed() {
        let (table, mut kept) = (table(), KeptDrill::default());
        let began = kept.ask(&table, &wanted("one", None, 10), "ns1", NOW).unwrap().began;
        assert_eq!(
            kept.ask(&table, &wanted("one", None, 10), "ns1", NOW),
            Err(Refusal::Another(wanted("one", None, 0).name))
        );
        assert_eq!(
            kept.ask(&table, &wanted("two", None, 10), "ns1", NOW).unwrap_err(),
            Refusal::Another(wanted("one", None, 0).name)
        );
        let later = NOW.after(Millis(29_999));
        assert_eq!(kept.ask(&table, &wanted("one", Some(began), 51), "ns1", later).unwrap_err(), Refusal::Share(50));
        assert_eq!(kept.ask(&table, &wanted("one", Some(began), 50), "ns1", later).unwrap().share, 50);
        let expired = later.after(Millis(30_000));
        assert!(kept.running(Timestamp(expired.0 - 1)).is_some() && kept.running(expired).is_none());
        assert_eq!(kept.ask(&table, &wanted("one", Some(began), 50), "ns1", expired).unwrap_err(), Refusal::NotRunning);
        assert_eq!(kept.ask(&table, &wanted("three", None, 1), "ns1", expired).unwrap_err(), Refusal::Unknown);
        kept.follow(&table, expired.after(Millis(599_000)));
        assert!(kept.record(expired).is_some());
        kept.follow(&table, expired.after(TELL_END_FOR));
        assert_eq!(kept, KeptDrill::default());
    }

    #[test]
    fn whoever_renews_it_it_ends_soon_after_its_time() {
        let (table, mut kept) = (table(), KeptDrill::default());
        let began = kept.ask(&table, &wanted("one", None, 10), "ns1", NOW).unwrap().began;
        let mut now = NOW;
        while kept.ask(&table, &wanted("one", Some(began), 50), "ns1", now).is_ok() {
            now = now.after(Millis(5_000));
            assert!(now.since(NOW) < Millis(300_000), "it goes on for ever");
        }
        // 60 s, twice 10 s, a tenth of that, and the slack.
        assert!(kept.running(now).is_none() && now.since(NOW) == Millis(150_000), "{:?}", now.since(NOW));
    }

    #[test]
    fn what_was_ended_at_one_node_is_ended_everywhere() {
        let (table, mut one, mut other) = (table(), KeptDrill::default(), KeptDrill::default());
        let began = one.ask(&table, &wanted("one", None, 10), "ns1", NOW).unwrap().began;
        assert!(other.merge(&table, one.record(NOW).unwrap(), NOW) && other.running(NOW).is_some());
        assert!(!other.merge(&table, one.record(NOW).unwrap(), NOW), "nothing new");
        assert!(other.end("par is down", NOW).is_some() && other.end("again", NOW).is_none());
        one.ask(&table, &wanted("one", Some(began), 50), "ns1", NOW.after(Millis(5_000))).unwrap();
        assert!(!other.merge(&table, one.record(NOW).unwrap(), NOW) && other.running(NOW).is_none());
        assert!(one.merge(&table, other.record(NOW).unwrap(), NOW));
        let refused = one.ask(&table, &wanted("one", Some(began), 50), "ns1", NOW).unwrap_err();
        assert_eq!(refused, Refusal::Ended("par is down".to_owned()));
        let again = one.ask(&table, &wanted("one", None, 10), "ns1", NOW.after(Millis(9_000)));
        assert!(again.is_ok(), "another run may begin");
    }

    #[test]
    fn a_drill_that_the_rules_no_longer_have_ends_and_does_not_come_back() {
        let (table, mut kept) = (table(), KeptDrill::default());
        let begun = kept.ask(&table, &wanted("one", None, 10), "ns1", NOW).unwrap();
        let without = Table::compile(br#"{ "version": 1, "revision": 2 }"#).unwrap();
        assert!(!KeptDrill::default().merge(&without, &begun, NOW));
        kept.follow(&without, NOW);
        let ended = kept.record(NOW).unwrap().clone();
        assert_eq!(ended.ended.as_deref(), Some("the rules no longer have it"));
        assert!(!kept.merge(&table, &begun, NOW) && kept.running(NOW).is_none());
        kept.follow(&without, ended.until.after(TELL_END_FOR));
        assert_eq!(kept, KeptDrill::default());
    }

    #[test]
    fn a_drill_does_not_begin_to_move_clients_when_a_clock_that_was_set_back_catches_up() {
        for back in [120_001, 600_000, 86_400_000] {
            let (table, mut kept) = (table(), KeptDrill::default());
            let begun = kept.ask(&table, &wanted("one", None, 10), "ns1", NOW).unwrap();
            let earlier = Timestamp(NOW.0 - back);
            kept.follow(&table, earlier);
            let mut now = earlier;
            while now < NOW.after(Millis(60_000)) {
                assert!(kept.running(now).is_none(), "{back} {now}");
                kept.follow(&table, now);
                now = now.after(Millis(u64::try_from(back / 50).unwrap()));
            }
            // Nor by the record of a node whose clock was never wrong, while the end is told.
            kept.end("over", earlier);
            assert!(!kept.merge(&table, &begun, earlier), "its end lies too far ahead");
        }
    }

    #[test]
    fn an_end_is_told_beside_another_run_that_began_later() {
        let (table, mut one, mut other) = (table(), KeptDrill::default(), KeptDrill::default());
        let first = one.ask(&table, &wanted("one", None, 10), "ns1", NOW).unwrap();
        other.merge(&table, &first, NOW);
        other.end("phones ring", NOW);
        let second = other.ask(&table, &wanted("two", None, 10), "ns2", NOW.after(Millis(1))).unwrap();
        // The first node still runs the first one. Whatever it hears first, it ends.
        let heard = [vec![&second], vec![]].map(|before| {
            let mut node = one.clone();
            let ends = other.other_ends(NOW).collect::<Vec<_>>();
            before.iter().chain(&ends).chain([&&second]).for_each(|told| _ = node.merge(&table, told, NOW));
            node.merge(&table, &first, NOW);
            node.record(NOW).unwrap().clone()
        });
        assert_eq!(heard[1], second);
        assert!(!heard[0].is_running(NOW) || heard[0] == second, "{heard:?}");
    }

    #[test]
    fn a_record_of_a_run_that_ended_does_not_come_back_beside_a_running_drill() {
        let (table, mut node) = (table(), KeptDrill::default());
        let old = node.ask(&table, &wanted("one", None, 10), "ns1", NOW).unwrap();
        node.end("phones ring", NOW);
        let second = node.ask(&table, &wanted("two", None, 10), "ns2", NOW.after(Millis(1))).unwrap();
        // A node that missed the end tells of it still, and may have renewed it.
        let (number, until) = (old.number + 9, NOW.after(Millis(90_000)));
        let renewed = DrillRecord { number, until, share: 50, ..old.clone() };
        for late in [&old, &renewed] {
            let mut node = node.clone();
            assert!(!node.merge(&table, late, NOW) && node.running(NOW) == Some(&second), "{late:?}");
            // The node that missed it learns it from what this one tells, ends first.
            let mut other = KeptDrill::default();
            other.merge(&table, late, NOW);
            node.other_ends(NOW).chain(node.record(NOW)).for_each(|told| _ = other.merge(&table, told, NOW));
            assert_eq!((other.running(NOW), other.other_ends(NOW).count()), (Some(&second), 1));
            // So does the edge, which hears both.
            let heard = node.other_ends(NOW).chain(node.record(NOW)).chain([late]);
            assert_eq!(DrillRecord::leading(heard, NOW), Some(&second));
        }
    }

    #[test]
    fn a_restarted_node_passes_on_the_end_of_a_run_that_it_does_not_know() {
        let (table, mut node, mut peer) = (table(), KeptDrill::default(), KeptDrill::default());
        let begun = node.ask(&table, &wanted("one", None, 10), "ns1", NOW).unwrap();
        peer.merge(&table, &begun, NOW);
        let mut node = KeptDrill::default();
        let refused = node.ask(&table, &wanted("one", Some(begun.began), 10), "ns1", NOW);
        assert_eq!(refused, Err(Refusal::NotRunning));
        let run = Run { began: begun.began, origin: begun.origin.clone() };
        let ended = node.end_run(&table, ("one", &run), "the node no longer knows of it", NOW).unwrap();
        assert!(peer.merge(&table, &ended, NOW) && peer.running(NOW).is_none());
        assert!(!node.merge(&table, &begun, NOW), "nor does the peer bring it back");
        assert_eq!(node.end_run(&table, ("one", &run), "again", NOW), Some(ended));
        assert_eq!(node.end_run(&table, ("three", &run), "none", NOW), None);
    }

    #[test]
    fn no_more_runs_are_kept_than_can_be() {
        let (table, mut kept) = (table(), KeptDrill::default());
        let begun = kept.ask(&table, &wanted("one", None, 10), "ns1", NOW).unwrap();
        for nth in 0..100 {
            let run = Run { began: NOW.after(Millis(nth)), origin: format!("ns{nth}") };
            kept.end_run(&table, ("two", &run), "over", NOW);
        }
        assert_eq!((kept.0.len(), kept.running(NOW)), (MOST_RUNS, Some(&begun)));
    }

    #[test]
    fn a_failure_of_a_region_of_the_same_service_ends_it() {
        let table = table();
        let index = |name| table.region_named(name).unwrap();
        let down = |name| failed_elsewhere(&table, index("fra"), |one| one == index(name));
        assert_eq!(down("par").as_deref(), Some("par is down"));
        assert_eq!(down("fra").as_deref(), Some("fra is down"));
        assert_eq!(down("nyc"), None, "no service has both");
    }
}
