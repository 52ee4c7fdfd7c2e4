//! A drill that is under way, as nodes report it to each other and to the edge. A drill sends a share of a region's
//! clients elsewhere for a while, to rehearse its loss. Takes the records of several nodes, returns the one that
//! counts; takes a client and the regions offered to it, puts the drilled region last for the share of clients.
//!
//! A drill only takes away: it changes the order of regions that are offered anyway, and offers none. So a client whose
//! other regions are all withheld still gets the drilled one.

use serde::{Deserialize, Serialize};

use super::Received;
use crate::id::{DrillId, RegionId};
use crate::load::Point;
use crate::rules::Ratio;
use crate::steer::Steering;
use crate::table::{RegionIndex, Table};
use crate::time::{Millis, Timestamp};

/// How far ahead the end of a record may lie. Whoever runs the drill has to renew it more often, so that it ends by
/// itself if nobody runs it any longer.
pub const LONGEST_HOLD: Millis = Millis(120_000);
/// How far ahead the end of a record may lie by the clock of whoever reads it: clocks differ. A record whose end lies
/// further away was written before a clock was set back, and moves nobody.
pub const FURTHEST_END: Millis = Millis(LONGEST_HOLD.0 + 30_000);
/// The longest text of why a drill ended, in characters.
#[cfg(any(test, feature = "drills"))]
const LONGEST_REASON: usize = 500;

/// A drill as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillRecord {
    /// The drill's name in the rules.
    pub name: DrillId,
    /// The region that gets fewer clients.
    pub region: RegionId,
    /// When this run of it began. With the node where it began, this tells runs apart.
    pub began: Timestamp,
    /// The node where it began.
    pub origin: String,
    /// Increases with each change.
    pub number: u64,
    /// The share of the region's clients that are sent elsewhere, in per cent.
    pub share: u8,
    /// When it ends by itself, unless it is renewed.
    pub until: Timestamp,
    /// Why it ended; absent while it is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
}

impl DrillRecord {
    /// Whether it moves clients, or may: it hasn't ended, and its time hasn't passed.
    #[must_use]
    pub fn is_running(&self, now: Timestamp) -> bool {
        self.ended.is_none() && self.until.lasts(now, FURTHEST_END)
    }

    /// Whether both are of the same run.
    #[must_use]
    pub fn is_same_run(&self, other: &Self) -> bool {
        (self.began, &self.origin, &self.name) == (other.began, &other.origin, &other.name)
    }

    /// Whether this one replaces the other record of the same run: an end counts more than all that isn't one, so that
    /// a drill that was broken off stays so; then the highest number counts.
    #[must_use]
    pub fn supersedes(&self, other: &Self) -> bool {
        let order = |one: &Self| (one.ended.is_some(), one.number, one.share, one.until, one.ended.clone());
        order(self) > order(other)
    }

    /// Whether this run counts and not the other one. A run that is under way comes first, and of two that are, the one
    /// that began first; of others, the one that changed last.
    fn leads(&self, other: &Self, now: Timestamp) -> bool {
        let run = |one: &Self| (one.began, one.origin.clone(), one.name.clone());
        match (self.is_running(now), other.is_running(now)) {
            (true, true) => run(self) < run(other),
            (false, false) => (self.number, run(self)) > (other.number, run(other)),
            (is_running, _) => is_running,
        }
    }

    /// The record that counts of all that are known, whatever their order. Records of one run are compared first: a run
    /// that ended by any record doesn't stand in the way of another one.
    pub fn leading<'r>(records: impl IntoIterator<Item = &'r Self>, now: Timestamp) -> Option<&'r Self> {
        let mut runs: Vec<&Self> = Vec::new();
        for record in records {
            match runs.iter_mut().find(|run| run.is_same_run(record)) {
                None => runs.push(record),
                Some(run) if record.supersedes(run) => *run = record,
                Some(_) => {}
            }
        }
        runs.into_iter().reduce(|first, other| if other.leads(first, now) { other } else { first })
    }

    /// Whether a node of this version can have written it, for a drill that the rules have.
    #[cfg(any(test, feature = "drills"))]
    #[must_use]
    pub fn is_sound(&self, table: &Table, now: Timestamp) -> bool {
        let is_text = |text: &str| text.chars().count() <= LONGEST_REASON && !text.chars().any(char::is_control);
        let drill = table.drill_named(self.name.as_str());
        drill.is_some_and(|(_, drill, _)| drill.region == self.region)
            && self.share <= 100
            && is_text(&self.origin)
            && self.ended.as_deref().is_none_or(is_text)
            && self.until <= now.after(FURTHEST_END)
    }
}

/// A share of a region's clients that are sent elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Drilled {
    /// The region.
    pub region: RegionIndex,
    /// The share.
    pub share: Ratio,
}

impl Drilled {
    /// What a record asks for now; `None` if it has ended, or asks for nothing.
    #[must_use]
    pub fn of(table: &Table, record: &DrillRecord, now: Timestamp) -> Option<Self> {
        let share = Ratio(u32::from(record.share.min(100)) * 10_000);
        let region = table.region_named(record.region.as_str())?;
        (record.is_running(now) && share > Ratio(0)).then_some(Self { region, share })
    }

    /// What the reports of several nodes ask for together.
    #[must_use]
    pub fn combined(table: &Table, reports: &[Received], now: Timestamp) -> Option<Self> {
        let reports = reports.iter().map(|received| &received.report);
        let records = reports.flat_map(|report| report.drill.iter().chain(&report.ended_drills));
        Self::of(table, DrillRecord::leading(records, now)?, now)
    }

    /// Sends one client elsewhere: if the region is the first of those offered, it becomes the last. `client` is what
    /// identifies the client, such as tenant and session. Returns whether the client is moved. A client that is moved
    /// at one share is moved at every higher one. Nobody is moved while no region of the fence is up: then every region
    /// is offered, and none of them is known to serve.
    pub fn take_away(self, table: &Table, client: &[u8], steering: &mut Steering) -> bool {
        if steering.revived {
            return false;
        }
        let is_first = steering.ordered.first().is_some_and(|first| first.fenced.region == self.region);
        let is_moved = is_first
            && steering.ordered.len() > 1
            && Point::of(client, table.region(self.region).id.as_str()).is_within(self.share);
        if is_moved {
            steering.ordered.rotate_left(1);
        }
        is_moved
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::steer::{Client, Conditions, Local, PathClass, decide, rank, stand};
    use crate::table::ServiceIndex;
    use crate::testing::Random;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn table() -> Table {
        Table::compile(
            br#"{ "version": 1, "revision": 1, "jurisdictions": { "eu": { "include": ["EU"] } },
            "regions": { "fra": { "countries": ["DE"] }, "par": { "countries": ["FR"] },
                         "lon": { "countries": ["GB"] } },
            "drills": { "one": { "region": "fra" }, "two": { "region": "par" } },
            "services": { "chat": { "hosts": ["chat.example"], "pattern": "active-active",
                "regions": ["fra", "par", "lon"], "residency": [{ "clients": ["eu"], "process_in": ["eu"] }] } } }"#,
        )
        .unwrap()
    }

    fn record(name: &str, number: u64, share: u8, ended: Option<&str>) -> DrillRecord {
        let region = if name == "one" { "fra" } else { "par" };
        serde_json::from_value(json!({ "name": name, "region": region, "origin": "ns1", "number": number,
            "began": if name == "one" { NOW } else { NOW.after(Millis(1)) }, "share": share, "ended": ended,
            "until": NOW.after(Millis(60_000)) }))
        .unwrap()
    }

    /// The region that a client from Germany gets first.
    fn first(table: &Table, drilled: Drilled, client: &[u8], is_down: bool) -> String {
        let place = stand(table, &Client { country: crate::geo::CountryCode::parse("DE"), ..Client::default() });
        let ranking = rank(table, ServiceIndex(0), &place, PathClass::Inference);
        let mut health = vec![crate::health::RegionHealth::default(); 3];
        if is_down {
            health[table.region_named("par").unwrap().get()].probed = crate::health::Status::Down;
        }
        let conditions = Conditions { health: &health, local: &Local::default(), now: NOW };
        let mut steering = decide(table, &ranking, None, &conditions);
        let before: Vec<_> = steering.ordered.iter().map(|one| one.fenced.region).collect();
        drilled.take_away(table, client, &mut steering);
        let mut after: Vec<_> = steering.ordered.iter().map(|one| one.fenced.region).collect();
        let first = table.region(after[0]).id.to_string();
        after.sort_unstable();
        let mut same = before;
        same.sort_unstable();
        assert_eq!(after, same, "a drill offers the same regions");
        first
    }

    #[test]
    fn a_share_of_clients_is_moved_within_the_fence_and_a_higher_share_moves_them_too() {
        let table = table();
        let region = table.region_named("fra").unwrap();
        let (mut moved, mut cases) = ([0; 4], 0);
        for client in (0..10_000_u32).map(u32::to_be_bytes) {
            let firsts = [0, 10, 50, 100]
                .map(|share| first(&table, Drilled { region, share: Ratio(share * 10_000) }, &client, false));
            for (count, first) in moved.iter_mut().zip(&firsts) {
                assert!(first == "fra" || first == "par", "{first} is outside the fence");
                *count += u32::from(first == "par");
            }
            assert!(firsts.is_sorted(), "who was moved stays moved: {firsts:?}");
            assert_eq!(
                first(&table, Drilled { region, share: Ratio::ONE }, &client, true),
                "fra",
                "nothing else is left"
            );
            cases += 1;
        }
        assert!(moved[0] == 0 && (900..1_100).contains(&moved[1]) && (4_800..5_200).contains(&moved[2]), "{moved:?}");
        assert_eq!(moved[3], 10_000);
        println!("a share of clients is moved: {cases} cases");
    }

    #[test]
    fn an_end_stays_and_the_first_of_two_runs_counts() {
        let leading = |records: &[&DrillRecord]| DrillRecord::leading(records.iter().copied(), NOW).cloned();
        let (old, new) = (record("one", 1, 10, None), record("one", 2, 50, None));
        assert_eq!(leading(&[&old, &new, &old]), Some(new.clone()));
        let ended = record("one", 1, 10, Some("par is down"));
        assert_eq!(leading(&[&new, &ended, &new]), Some(ended.clone()), "a later change doesn't bring it back");
        let other = record("two", 9, 10, None);
        assert_eq!(leading(&[&other, &old]), Some(old.clone()));
        assert_eq!(leading(&[&ended, &other]), Some(other.clone()));
        assert_eq!(leading(&[&old, &other, &ended]), Some(other), "a run that ended stands in nobody's way");
        let later = NOW.after(Millis(60_000));
        assert!(!new.is_running(later) && new.is_running(NOW));
        assert!(!new.is_running(Timestamp(NOW.0 - 90_001)), "the clock was set back");
    }

    #[test]
    fn the_same_record_counts_whatever_the_order_in_which_records_are_heard() {
        let (cases, mut random) = (5_000, Random::new(3));
        for _ in 0..cases {
            let mut one = || {
                let name = *random.pick(&["one", "two"]);
                let ended = (random.below(3) == 0).then_some("over");
                let mut one =
                    record(name, random.below(3) as u64, u8::try_from(random.below(3)).unwrap_or_default(), ended);
                one.origin = format!("ns{}", random.below(2));
                one.until = Timestamp(NOW.0 - 1_000 + 2_000 * i64::from(random.below(3) > 0));
                one
            };
            let mut all = [one(), one(), one(), one()];
            let first = DrillRecord::leading(&all, NOW).cloned();
            for at in 0..24 {
                // Two swaps in turn reach every order of four.
                all.swap(at % 3, at % 3 + 1);
                assert_eq!(DrillRecord::leading(&all, NOW).cloned(), first, "{all:#?}");
            }
            let has_end = |one: &DrillRecord| all.iter().any(|end| end.ended.is_some() && end.is_same_run(one));
            assert!(first.is_none_or(|first| !first.is_running(NOW) || !has_end(&first)), "{all:#?}");
        }
        println!("the same record counts in every order: {cases} random cases");
    }

    #[test]
    fn a_drill_moves_nobody_while_every_region_of_the_fence_is_down() {
        let table = table();
        let place = stand(&table, &Client { country: crate::geo::CountryCode::parse("DE"), ..Client::default() });
        let ranking = rank(&table, ServiceIndex(0), &place, PathClass::Inference);
        let down = crate::health::RegionHealth { probed: crate::health::Status::Down, ..Default::default() };
        let conditions = Conditions { health: &vec![down; 3], local: &Local::default(), now: NOW };
        let mut steering = decide(&table, &ranking, None, &conditions);
        let before = steering.clone();
        assert!(before.revived && before.ordered.len() == 2);
        let drilled = Drilled { region: table.region_named("fra").unwrap(), share: Ratio::ONE };
        assert!(!drilled.take_away(&table, b"x", &mut steering) && steering == before);
    }

    #[test]
    fn what_no_node_writes_is_not_sound() {
        let table = table();
        let good = record("one", 1, 10, None);
        assert!(good.is_sound(&table, NOW));
        for bad in [
            DrillRecord { share: 101, ..good.clone() },
            DrillRecord { region: RegionId::parse("lon").unwrap(), ..good.clone() },
            DrillRecord { name: DrillId::parse("three").unwrap(), ..good.clone() },
            DrillRecord { until: NOW.after(Millis(3_600_000)), ..good.clone() },
            DrillRecord { ended: Some("\u{1b}[2J".to_owned()), ..good.clone() },
            DrillRecord { origin: "x".repeat(501), ..good },
        ] {
            assert!(!bad.is_sound(&table, NOW), "{bad:?}");
        }
    }
}
