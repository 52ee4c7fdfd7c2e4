//! Overrides of a whole fleet: statuses that operators force until a time. Takes what operators force and end at this
//! node and what other nodes report, returns what is in force. Called by the owner of the DNS half's state.
//!
//! Each override has an origin, the node where it was made, and a number that grows there. Among overrides of one
//! region or endpoint with the same origin, the highest number counts. One that was ended stays ended: a node that
//! still reports it as in force doesn't bring it back. Between overrides of different origins `down` wins, then the one
//! that lasts longest.
//!
//! Two operators at nodes that can't reach each other can together take away more regions than a guard allows, because
//! each node alone accepts its override. (A guard says how many regions must stay.) When such overrides meet, some are
//! held back for the guard's window: see `apart`.

mod apart;

use std::cmp::Reverse;
use std::collections::BTreeMap;

use apart::Conflicts;

use crate::health::{Forced, Status};
use crate::id::Overridden;
use crate::report::OverrideRecord;
use crate::table::Table;
use crate::time::Timestamp;

/// The most overrides that are kept. Beyond that, new ones of other nodes are ignored.
const MOST: usize = 1_024;
/// The longest reason of another node's override, in characters.
const LONGEST_REASON: usize = 500;
/// The longest name of a node, in characters.
const LONGEST_ORIGIN: usize = 253;

/// Every override that is known and hasn't run out, including those that were ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    records: BTreeMap<(Overridden, String), KnownOverride>,
    /// Fences from which overrides of several nodes together take too many regions.
    conflicts: Conflicts,
}

/// One override.
#[derive(Clone, Debug, PartialEq, Eq)]
struct KnownOverride {
    /// The origin's number of the override.
    number: u64,
    forced: Forced,
    /// Whether the operator made it although a service's guard forbids it.
    insists: bool,
    /// Whether an operator ended it before it ran out.
    ended: bool,
}

impl Overrides {
    /// Forces a status. The new override replaces all that this node knows for the same region or endpoint, whoever
    /// made them.
    pub fn set(&mut self, of: Overridden, origin: &str, (forced, insists): (Forced, bool), now: Timestamp) {
        self.end(&of);
        let key = (of, origin.to_owned());
        // By the clock, a node that lost its state numbers higher than before.
        let by_clock = u64::try_from(now.0).unwrap_or(0);
        let number = self.records.get(&key).map_or(by_clock, |own| own.number.saturating_add(1).max(by_clock));
        self.records.insert(key, KnownOverride { number, forced, insists, ended: false });
    }

    /// Ends every override of a region or endpoint, whoever made it. Returns whether there was one.
    pub fn end(&mut self, of: &Overridden) -> bool {
        let mut any = false;
        for (_, own) in self.records.iter_mut().filter(|((other, _), own)| other == of && !own.ended) {
            own.ended = true;
            any = true;
        }
        any
    }

    /// Takes the overrides that another node knows. Returns whether they changed anything. Ignores overrides of what
    /// the rules don't have, those that have run out, and those that no operator can have made.
    pub fn merge(&mut self, table: &Table, reported: &[OverrideRecord], now: Timestamp) -> bool {
        let (mut any, before) = (false, self.in_force(now));
        for record in reported.iter().filter(|record| is_sound(record, table, now)) {
            let key = (record.of(), record.origin.clone());
            let forced = Forced { status: record.status, until: record.until, reason: record.reason.clone() };
            let new = KnownOverride { number: record.number, forced, insists: record.insists, ended: record.ended };
            let is_full = self.records.len() >= MOST;
            match self.records.get_mut(&key) {
                None if is_full => continue,
                None => _ = self.records.insert(key, new),
                Some(known) if new.number > known.number => *known = new,
                Some(known) if new.number == known.number && new.ended && !known.ended => known.ended = true,
                Some(_) => continue,
            }
            any = true;
        }
        if any {
            self.note_conflicts(table, &before, now);
        }
        any
    }

    /// Forgets the overrides that have run out. Returns those of them that nobody had ended.
    pub fn run_out(&mut self, now: Timestamp) -> Vec<(Overridden, Forced)> {
        let mut over = Vec::new();
        self.forget_conflicts(now);
        self.records.retain(|(of, _), entry| {
            let lasts = entry.forced.until > now;
            if !lasts && !entry.ended {
                over.push((of.clone(), entry.forced.clone()));
            }
            lasts
        });
        over
    }

    /// The override in force for each region or endpoint, without those that are held back.
    #[must_use]
    pub fn in_force(&self, now: Timestamp) -> BTreeMap<Overridden, Forced> {
        let mut binding = self.binding();
        for (of, _) in self.held_back(now) {
            binding.remove(&of);
        }
        binding
    }

    /// The override that wins for each region or endpoint, whether it is held back or not.
    fn binding(&self) -> BTreeMap<Overridden, Forced> {
        let mut binding: BTreeMap<Overridden, Forced> = BTreeMap::new();
        let order = |forced: &Forced| (forced.status != Status::Down, Reverse(forced.until));
        for ((of, _), entry) in self.records.iter().filter(|(_, entry)| !entry.ended) {
            match binding.get_mut(of) {
                Some(other) if order(other) <= order(&entry.forced) => {}
                Some(other) => *other = entry.forced.clone(),
                None => _ = binding.insert(of.clone(), entry.forced.clone()),
            }
        }
        binding
    }

    /// All overrides, as nodes report them to each other and as they are kept over a restart.
    #[must_use]
    pub fn records(&self) -> Vec<OverrideRecord> {
        let record = |((of, origin), entry): (&(Overridden, String), &KnownOverride)| OverrideRecord {
            region: of.region.clone(),
            endpoint: of.endpoint.clone(),
            origin: origin.clone(),
            number: entry.number,
            status: entry.forced.status,
            until: entry.forced.until,
            reason: entry.forced.reason.clone(),
            insists: entry.insists,
            ended: entry.ended,
        };
        self.records.iter().map(record).collect()
    }

    /// Restores what was kept over a restart: all known overrides, and those in force. If one in force has no record,
    /// this node (`origin`) made it before it belonged to a fleet.
    #[must_use]
    pub fn restored(
        records: impl IntoIterator<Item = OverrideRecord>,
        in_force: BTreeMap<Overridden, Forced>,
        origin: &str,
    ) -> Self {
        let entry_of = |record: OverrideRecord| {
            let subject = record.of();
            let forced = Forced { status: record.status, until: record.until, reason: record.reason };
            (
                (subject, record.origin),
                KnownOverride { number: record.number, forced, insists: record.insists, ended: record.ended },
            )
        };
        let records = records.into_iter().map(entry_of).collect();
        let mut restored = Self { records, conflicts: Conflicts::default() };
        for (subject, forced) in in_force {
            if !restored.records.keys().any(|(other, _)| *other == subject) {
                // The number is always 0, so that the override stays ended if another node ended it meanwhile.
                restored.records.insert(
                    (subject, origin.to_owned()),
                    KnownOverride { number: 0, forced, insists: false, ended: false },
                );
            }
        }
        restored
    }
}

/// Whether an operator can have made this override, of something that the rules have, and it hasn't run out.
fn is_sound(record: &OverrideRecord, table: &Table, now: Timestamp) -> bool {
    let is_text = |text: &str, longest: usize| {
        !text.trim().is_empty() && text.chars().count() <= longest && !text.chars().any(char::is_control)
    };
    record.status != Status::Unknown
        && record.until > now
        && is_text(&record.reason, LONGEST_REASON)
        && is_text(&record.origin, LONGEST_ORIGIN)
        && table.place_of(&record.of()).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;
    use crate::time::Millis;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);
    /// How many random sequences are tried of what operators do at three nodes that hear each other now and then.
    const SEQUENCES: u64 = 20_000;

    fn table() -> Table {
        let document = br#"{ "version": 1, "revision": 1, "regions": {
            "fra": { "countries": ["DE"], "endpoints": { "one": { "url": "https://a.example/v1" } } },
            "par": { "countries": ["FR"] } } }"#;
        Table::compile(document).unwrap()
    }

    fn id(text: &str) -> Overridden {
        Overridden::parse(text).unwrap()
    }

    fn forced(status: Status, seconds: u64) -> Forced {
        Forced { status, until: NOW.after(Millis(seconds * 1_000)), reason: "drill".to_owned() }
    }

    fn by_hand(status: Status, seconds: u64) -> (Forced, bool) {
        (forced(status, seconds), false)
    }

    fn status(overrides: &Overrides, of: &str) -> Option<Status> {
        overrides.in_force(NOW).get(&id(of)).map(|forced| forced.status)
    }

    #[test]
    fn what_was_made_apart_is_merged_and_down_wins_then_the_longest() {
        let (table, mut one, mut other) = (table(), Overrides::default(), Overrides::default());
        one.set(id("fra"), "ns1", by_hand(Status::Up, 900), NOW);
        other.set(id("fra"), "ns2", by_hand(Status::Down, 60), NOW);
        other.set(id("fra/one"), "ns2", by_hand(Status::Down, 60), NOW);
        assert!(one.merge(&table, &other.records(), NOW) && other.merge(&table, &one.records(), NOW));
        assert_eq!((status(&one, "fra"), status(&one, "fra/one")), (Some(Status::Down), Some(Status::Down)));
        assert_eq!(one, other);
        assert!(!one.merge(&table, &other.records(), NOW), "nothing new");
        let mut third = Overrides::default();
        third.set(id("fra"), "ns3", by_hand(Status::Down, 600), NOW);
        one.merge(&table, &third.records(), NOW);
        assert_eq!(one.in_force(NOW)[&id("fra")].until, forced(Status::Down, 600).until);
    }

    #[test]
    fn one_that_was_ended_is_not_brought_back_by_an_echo_and_may_be_made_again() {
        let (table, mut origin, mut peer) = (table(), Overrides::default(), Overrides::default());
        origin.set(id("fra"), "ns1", by_hand(Status::Down, 600), NOW);
        peer.merge(&table, &origin.records(), NOW);
        let echo = peer.records();
        assert!(origin.end(&id("fra")) && !origin.end(&id("fra")));
        assert!(!origin.merge(&table, &echo, NOW));
        assert_eq!(status(&origin, "fra"), None);
        assert!(peer.merge(&table, &origin.records(), NOW));
        assert_eq!(status(&peer, "fra"), None);
        // Ended at another node than the one where it was made.
        origin.set(id("fra"), "ns1", by_hand(Status::Down, 600), NOW);
        peer.merge(&table, &origin.records(), NOW);
        assert_eq!(status(&peer, "fra"), Some(Status::Down), "a new override");
        assert!(peer.end(&id("fra")));
        origin.merge(&table, &peer.records(), NOW);
        assert_eq!(status(&origin, "fra"), None);
        assert_eq!(Overrides::restored(origin.records(), origin.in_force(NOW), "ns1"), origin, "kept over a restart");
        let alone = [(id("fra"), forced(Status::Down, 60))].into();
        let mut alone = Overrides::restored([], alone, "ns9");
        assert_eq!((status(&alone, "fra"), alone.records()[0].number), (Some(Status::Down), 0));
        assert!(alone.merge(&table, &[OverrideRecord { ended: true, ..alone.records()[0].clone() }], NOW));
        assert_eq!(status(&alone, "fra"), None);
    }

    #[test]
    fn a_node_that_lost_its_state_numbers_on() {
        let (table, mut origin, mut peer) = (table(), Overrides::default(), Overrides::default());
        origin.set(id("fra"), "ns1", by_hand(Status::Down, 600), NOW);
        peer.merge(&table, &origin.records(), NOW);
        peer.end(&id("fra"));
        let mut origin = Overrides::default();
        origin.set(id("fra"), "ns1", by_hand(Status::Down, 600), NOW.after(Millis(1)));
        peer.merge(&table, &origin.records(), NOW);
        assert_eq!(status(&peer, "fra"), Some(Status::Down));
    }

    #[test]
    fn what_no_operator_can_have_said_is_passed_over() {
        let table = table();
        let good = OverrideRecord {
            region: crate::id::RegionId::parse("fra").unwrap(),
            endpoint: None,
            origin: "ns2".to_owned(),
            number: u64::MAX,
            status: Status::Down,
            until: NOW.after(Millis(1)),
            reason: "drill".to_owned(),
            insists: false,
            ended: false,
        };
        assert!(Overrides::default().merge(&table, core::slice::from_ref(&good), NOW));
        let bad = [
            OverrideRecord { region: crate::id::RegionId::parse("mars").unwrap(), ..good.clone() },
            OverrideRecord { endpoint: crate::id::EndpointId::parse("two"), ..good.clone() },
            OverrideRecord { until: NOW, ..good.clone() },
            OverrideRecord { status: Status::Unknown, ..good.clone() },
            OverrideRecord { reason: "two\nlines".to_owned(), ..good.clone() },
            OverrideRecord { reason: "x".repeat(501), ..good.clone() },
            OverrideRecord { origin: String::new(), ..good.clone() },
        ];
        assert!(!Overrides::default().merge(&table, &bad, NOW));
        let many = (0..5_000).map(|n| OverrideRecord { origin: format!("ns{n}"), ..good.clone() });
        let mut overrides = Overrides::default();
        overrides.merge(&table, &many.collect::<Vec<_>>(), NOW);
        assert_eq!(overrides.records().len(), MOST);
        assert_eq!(overrides.run_out(NOW.after(Millis(1))).len(), MOST);
        assert_eq!(overrides, Overrides::default());
    }

    #[test]
    fn whatever_operators_do_all_nodes_end_alike_once_they_have_heard_each_other() {
        let table = table();
        let (mut forced_in_the_end, things) = (0, ["fra", "fra/one", "par"]);
        for seed in 0..SEQUENCES {
            let mut random = Random::new(seed);
            let mut nodes = [Overrides::default(), Overrides::default(), Overrides::default()];
            let mut now = NOW;
            for _ in 0..12 {
                now = now.after(Millis(random.bits() % 3));
                let (at, other) = (random.below(3), random.below(3));
                let of = id(things[random.below(things.len())]);
                match random.below(4) {
                    0 => {
                        let status = *random.pick(&[Status::Up, Status::Down]);
                        let forced = forced(status, 100 + random.bits() % 900);
                        nodes[at].set(of.clone(), &format!("ns{at}"), (forced.clone(), false), now);
                        assert_eq!(nodes[at].in_force(NOW)[&of], forced, "at once, here");
                    }
                    1 => {
                        nodes[at].end(&of);
                        assert!(!nodes[at].in_force(NOW).contains_key(&of));
                    }
                    _ => {
                        let records = nodes[other].records();
                        nodes[at].merge(&table, &records, now);
                    }
                }
            }
            for _ in 0..2 {
                for (at, other) in [(0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2)] {
                    let records = nodes[other].records();
                    nodes[at].merge(&table, &records, now);
                }
            }
            assert!(nodes[0] == nodes[1] && nodes[1] == nodes[2], "seed {seed}: {nodes:#?}");
            forced_in_the_end += nodes[0].in_force(NOW).len();
        }
        assert!(forced_in_the_end > 1_000);
        println!("overrides of a fleet: {SEQUENCES} random cases, {forced_in_the_end} in force at their ends");
    }
}
