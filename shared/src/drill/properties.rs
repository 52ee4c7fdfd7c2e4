//! What holds for every drill, whatever the fleet: nobody leaves the fence, nothing begins against the preflight, every
//! drill ends, and a failure elsewhere ends it.

use serde_json::{Value, json};

use super::kept::{KeptDrill, Wanted, failed_elsewhere, neighbours};
use super::preflight::{Facts, MOST, Preflight, Verdict, preflight};
use crate::health::Status;
use crate::id::DrillId;
use crate::load::Classes;
use crate::report::{DrillRecord, Drilled, LONGEST_HOLD};
use crate::rules::{Drill, Ratio};
use crate::steer::{Conditions, effective_status, steer};
use crate::table::{RegionIndex, Table};
use crate::testing::{Random, ask, conditions, document, replicate};
use crate::time::{Millis, Timestamp};

/// A random document with drills of two of its services' regions.
fn with_drills(random: &mut Random) -> Table {
    let mut rules = document(random);
    if random.chance(30) {
        replicate(random, &mut rules);
    }
    for region in rules["regions"].as_object_mut().unwrap().values_mut() {
        if random.chance(80) {
            let (capacity, demand) = (1 + random.below(100), random.below(60));
            region["load"] = json!({ "capacity": capacity, "demand": demand });
        }
    }
    let services = rules["services"].as_object().unwrap().values();
    let of_services: Vec<Value> = services.flat_map(|service| service["regions"].as_array().unwrap().clone()).collect();
    let drill = |random: &mut Random| {
        let ramp = random.pick(&[vec![10, 50, 100], vec![30]]).clone();
        json!({ "region": random.pick(&of_services), "for": "20s", "step": "5s", "ramp": ramp })
    };
    rules["drills"] = json!({ "a": drill(random), "b": drill(random) });
    Table::compile(rules.to_string().as_bytes()).unwrap_or_else(|violations| panic!("{violations:?}\n{rules}"))
}

#[test]
fn a_drill_offers_exactly_the_regions_that_are_offered_without_it() {
    let (cases, mut moved) = (3_000, 0);
    for seed in 0..cases {
        let mut random = Random::new(seed);
        let table = with_drills(&mut random);
        let (ask, (health, local, now)) = (ask(&mut random, &table), conditions(&mut random, &table));
        let before = steer(&table, &ask, &Conditions { health: &health, local: &local, now });
        let share = Ratio(u32::try_from(random.below(101)).unwrap() * 10_000);
        let region = RegionIndex::new(random.below(table.regions().len()));
        let mut after = before.clone();
        let is_moved = Drilled { region, share }.take_away(&table, &seed.to_be_bytes(), &mut after);
        moved += u32::from(is_moved);
        let sorted = |steering: &crate::steer::Steering| {
            let mut regions: Vec<_> = steering.ordered.iter().map(|one| one.fenced.region).collect();
            regions.sort_unstable();
            regions
        };
        assert_eq!(sorted(&before), sorted(&after), "seed {seed}");
        assert_eq!(before.withheld, after.withheld, "seed {seed}");
        if is_moved {
            assert!(
                before.ordered[0].fenced.region == region && after.ordered[0].fenced.region != region,
                "seed {seed}"
            );
        } else {
            assert_eq!(before, after, "seed {seed}");
        }
        if share == Ratio::ONE && after.ordered.len() > 1 && !after.revived {
            assert_ne!(after.ordered[0].fenced.region, region, "seed {seed}");
        }
    }
    // In most random fleets no region of the fence is up, and then a drill moves nobody.
    assert!(moved > 10, "{moved}");
    println!("a drill offers the same regions: {cases} random cases, {moved} moved");
}

/// Looks before a drill in a random fleet.
fn looked(random: &mut Random, table: &Table, drill: &Drill, is_calm: bool) -> (Preflight, Vec<Status>) {
    let (mut health, local, now) = conditions(random, table);
    if is_calm {
        for region in &mut health {
            (region.probed, region.forced) = (Status::Up, None);
            region.replicas.iter_mut().for_each(|copy| copy.status = Status::Up);
        }
    }
    let conditions = Conditions { health: &health, local: &local, now };
    let classes = Classes::stated(table);
    let facts = Facts {
        table,
        conditions: &conditions,
        classes: &classes,
        unread: Vec::new(),
        loads: Vec::new(),
        nodes: (random.below(4), 3),
        workers: random.below(2),
        is_blind: random.chance(5),
        under_way: Vec::new(),
        running: None,
    };
    let statuses = (0..table.regions().len()).map(|at| effective_status(table, RegionIndex::new(at), &conditions));
    (preflight(&facts, drill), statuses.collect())
}

#[test]
fn a_drill_that_may_begin_harms_nobody_by_what_is_known() {
    let (cases, mut may) = (2_000, 0);
    for seed in 0..cases {
        let mut random = Random::new(seed);
        let table = with_drills(&mut random);
        let drill = &table.drills()[0].1;
        let (looked, statuses) = looked(&mut random, &table, drill, seed % 2 == 0);
        assert_eq!(looked.verdict == Verdict::Go, looked.reasons.is_empty(), "seed {seed}: {looked:?}");
        if looked.verdict != Verdict::Go {
            continue;
        }
        may += 1;
        let region = table.region_named(drill.region.as_str()).unwrap();
        for one in neighbours(&table, region).into_iter().chain([region]) {
            assert_eq!(statuses[one.get()], Status::Up, "seed {seed}");
        }
        for fence in &looked.fences {
            assert!(fence.fence.contains(&drill.region), "seed {seed}");
            assert!(fence.load.unwrap() <= f64::from(MOST.0) / 1e6 && fence.refused <= 0.0, "seed {seed}: {fence:?}");
        }
    }
    assert!(may > 20, "{may}");
    println!("a drill that may begin harms nobody: {cases} random fleets, {may} may");
}

/// What a node tells others.
fn told(node: &KeptDrill, now: Timestamp) -> Vec<DrillRecord> {
    node.record(now).into_iter().chain(node.other_ends(now)).cloned().collect()
}

/// Three nodes that hear each other now and then, and whoever runs drills at them.
struct Fleet {
    table: Table,
    nodes: [KeptDrill; 3],
    now: Timestamp,
    /// The last time at which anybody asked for a drill.
    asked: Timestamp,
}

impl Fleet {
    fn turn(&mut self, random: &mut Random) {
        self.now = self.now.after(Millis(random.below(20_000) as u64));
        let (node, other) = (random.below(3), random.below(3));
        match random.below(10) {
            0..5 => {
                let name = *random.pick(&["a", "b"]);
                let began = self.nodes[node].record(self.now).map(|record| record.began).filter(|_| random.chance(80));
                let (share, hold) = (u8::try_from(random.below(101)).unwrap(), Millis(random.below(200_000) as u64));
                let wanted = Wanted { name: DrillId::parse(name).unwrap(), began, share, hold };
                let before = self.nodes[node].clone();
                match self.nodes[node].ask(&self.table, &wanted, ["ns1", "ns2", "ns3"][node], self.now) {
                    Ok(record) => assert!(record.is_running(self.now)),
                    Err(_) => assert_eq!(self.nodes[node], before, "what is refused changes nothing"),
                }
                self.asked = self.now;
            }
            5..9 => {
                let told = told(&self.nodes[other], self.now);
                told.iter().for_each(|told| _ = self.nodes[node].merge(&self.table, told, self.now));
            }
            _ => {
                let region = RegionIndex::new(random.below(self.table.regions().len()));
                let drilled = self.nodes[node].running(self.now).map(|one| one.region.clone());
                let drilled = drilled.and_then(|name| self.table.region_named(name.as_str()));
                let why = drilled.and_then(|drilled| failed_elsewhere(&self.table, drilled, |one| one == region));
                if let (Some(why), Some(drilled)) = (why, drilled) {
                    assert!(neighbours(&self.table, drilled).contains(&region) || region == drilled);
                    self.nodes[node].end(&why, self.now);
                    assert!(self.nodes[node].running(self.now).is_none(), "a failure ends it");
                }
            }
        }
        self.nodes[node].follow(&self.table, self.now);
    }
}

#[test]
fn every_drill_ends_when_nobody_runs_it_and_nodes_that_hear_each_other_agree() {
    let cases = 1_000;
    for seed in 0..cases {
        let mut random = Random::new(seed);
        let table = with_drills(&mut random);
        let begin = Timestamp(1_800_000_000_000);
        let mut fleet = Fleet { table, nodes: <[KeptDrill; 3]>::default(), now: begin, asked: begin };
        for _ in 0..60 {
            fleet.turn(&mut random);
        }
        // All hear all, twice.
        for (node, other) in [(0, 1), (1, 2), (2, 0), (0, 2), (2, 1), (1, 0), (0, 1), (1, 2), (2, 0)] {
            let told = told(&fleet.nodes[other], fleet.now);
            told.iter().for_each(|told| _ = fleet.nodes[node].merge(&fleet.table, told, fleet.now));
        }
        let shares = fleet
            .nodes
            .each_ref()
            .map(|node| node.running(fleet.now).map(|one| (one.name.clone(), one.began, one.share, one.until)));
        assert!(shares[0] == shares[1] && shares[1] == shares[2], "seed {seed}: {shares:?}");
        let later = fleet.asked.after(LONGEST_HOLD);
        assert!(
            fleet.nodes.iter().all(|node| node.running(later.max(fleet.now)).is_none_or(|one| one.until > later)),
            "seed {seed}"
        );
        assert!(
            fleet.nodes.iter().all(|node| node.running(later.max(fleet.now).after(Millis(1))).is_none()),
            "seed {seed}"
        );
    }
    println!("every drill ends: {cases} random fleets");
}
