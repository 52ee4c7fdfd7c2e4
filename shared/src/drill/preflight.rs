//! Whether a drill may begin. Takes what a node knows, returns the outcome with every reason, and the load that is to
//! be expected. Called by the node when a drill is asked for, and by `bailiwick drill plan`.
//!
//! A drill may begin only if the loss itself would do no harm now: for every fence that has the region, the other
//! regions are up, their state is known, and they carry what the fence needs at 90 % of their capacity.

use serde::{Deserialize, Serialize};

use super::kept::neighbours;
use super::schedule::blocked_by;
use crate::health::Status;
use crate::id::RegionId;
use crate::load::{Amount, Classes, losses, requests, settled};
use crate::report::DrillRecord;
use crate::rules::{Drill, Ratio};
use crate::steer::{Conditions, effective_status};
use crate::table::{RegionIndex, Table};

/// The highest load of a fence without the region.
pub const MOST: Ratio = Ratio(900_000);
/// The most fences that are told, the fullest first.
const MOST_FENCES: usize = 64;

/// What a node knows at the moment.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// The rules.
    pub table: &'a Table,
    /// Health and time.
    pub conditions: &'a Conditions<'a>,
    /// The clients, with their demand.
    pub classes: &'a Classes,
    /// Regions whose load should be known and isn't.
    pub unread: Vec<RegionId>,
    /// The present load of each region, where it is known, by region index.
    pub loads: Vec<Option<Ratio>>,
    /// How many nodes report, and how many there are.
    pub nodes: (usize, usize),
    /// How many Workers report.
    pub workers: usize,
    /// Whether the node's own line seems to be down.
    pub is_blind: bool,
    /// What else is under way, each as a clause: overrides and rollouts.
    pub under_way: Vec<String>,
    /// The drill that is under way.
    pub running: Option<&'a DrillRecord>,
}

/// Whether a drill may begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It may.
    Go,
    /// Without the region, the others couldn't carry the load, or nobody knows.
    Capacity,
    /// Something else stands in the way.
    #[default]
    Blocked,
}

impl Verdict {
    /// The word in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Go => "go",
            Self::Capacity => "capacity",
            Self::Blocked => "blocked",
        }
    }
}

/// The outcome of the look before a drill.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Preflight {
    /// Whether it may begin.
    pub verdict: Verdict,
    /// Every reason against it, each as a clause.
    pub reasons: Vec<String>,
    /// The fences that have the region, those first that would be fullest.
    pub fences: Vec<FenceForecast>,
    /// How many more fences there are.
    pub fences_left_out: usize,
    /// Every region of services that have the region.
    pub regions: Vec<RegionForecast>,
    /// Whether nothing is in the way but what the node doesn't know yet: statuses and loads of regions, reports of
    /// other nodes and of Workers. A node learns them within minutes of its start.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub is_early: bool,
}

/// The load of a fence, now and without the region. 1 is full.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FenceForecast {
    /// Its regions.
    pub fence: Vec<RegionId>,
    /// Its demand, in requests at once.
    pub demand: f64,
    /// The load of its other regions; absent if a capacity isn't known.
    pub load: Option<f64>,
    /// The demand for which no region has room.
    pub refused: f64,
}

/// The load of a region. 1 is full.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RegionForecast {
    /// The region.
    pub region: RegionId,
    /// Its load by the last reading.
    pub now: Option<f64>,
    /// Its load by the known demand, with all regions.
    pub before: Option<f64>,
    /// Its load by the known demand, without the drilled region.
    pub during: Option<f64>,
}

/// Looks whether a drill may begin now.
#[must_use]
pub fn preflight(facts: &Facts<'_>, drill: &Drill) -> Preflight {
    let Some(region) = facts.table.region_named(drill.region.as_str()) else { return Preflight::default() };
    let mut looked = forecast(facts, region);
    let blocked = blocked(facts, drill, region);
    let full = too_full(facts, &looked);
    // All fences are judged, and the fullest are told.
    looked.fences_left_out = looked.fences.len().saturating_sub(MOST_FENCES);
    looked.fences.truncate(MOST_FENCES);
    looked.verdict = match (blocked.is_empty(), full.is_empty()) {
        (false, _) => Verdict::Blocked,
        (true, false) => Verdict::Capacity,
        (true, true) => Verdict::Go,
    };
    let is_fact = |obstacle: &Obstacle| matches!(obstacle, Obstacle::Fact(_));
    looked.is_early = looked.verdict == Verdict::Blocked && !blocked.iter().any(is_fact);
    let reason = |obstacle| match obstacle {
        Obstacle::Fact(reason) | Obstacle::Unknown(reason) => reason,
    };
    looked.reasons = blocked.into_iter().map(reason).chain(full).collect();
    looked
}

/// Something that stands in the way.
enum Obstacle {
    /// Something that is so.
    Fact(String),
    /// Something that the node doesn't know, or not yet.
    Unknown(String),
}

/// What stands in the way, apart from capacity.
fn blocked(facts: &Facts<'_>, drill: &Drill, region: RegionIndex) -> Vec<Obstacle> {
    let (table, now) = (facts.table, facts.conditions.now);
    let mut obstacles = Vec::new();
    if let Some(range) = blocked_by(drill, now) {
        obstacles.push(Obstacle::Fact(format!("it is blocked from {range} (UTC)")));
    }
    if let Some(running) = facts.running {
        obstacles.push(Obstacle::Fact(format!("the drill {} is under way", running.name)));
    }
    obstacles.extend(facts.under_way.iter().cloned().map(Obstacle::Fact));
    if facts.is_blind {
        obstacles.push(Obstacle::Fact("this node's own line seems to be down".to_owned()));
    }
    let (reporting, all) = facts.nodes;
    if reporting * 2 <= all {
        let reason = format!("{reporting} of {all} nodes report, and more than half have to");
        obstacles.push(Obstacle::Unknown(reason));
    }
    if !drill.abort.is_empty() && facts.workers == 0 {
        let reason = "no Worker reports, so nobody could see that it has to be broken off";
        obstacles.push(Obstacle::Unknown(reason.to_owned()));
    }
    for one in neighbours(table, region).into_iter().chain([region]) {
        obstacles.extend(of_region(facts, one));
        let name = &table.region(one).id;
        if facts.unread.contains(name) {
            obstacles.push(Obstacle::Unknown(format!("the load of {name} isn't known")));
        }
    }
    obstacles
}

/// What of the health of a region stands in the way.
fn of_region(facts: &Facts<'_>, region: RegionIndex) -> Option<Obstacle> {
    let name = &facts.table.region(region).id;
    let health = facts.conditions.health.get(region.get());
    match effective_status(facts.table, region, facts.conditions) {
        Status::Up => {}
        Status::Unknown => {
            let reason = format!("{name} is {}, and every region has to be up", Status::Unknown);
            return Some(Obstacle::Unknown(reason));
        }
        status => return Some(Obstacle::Fact(format!("{name} is {status}, and every region has to be up"))),
    }
    let health = health?;
    if health.stale {
        Some(Obstacle::Fact(format!("{name} wasn't probed lately")))
    } else if health.replicas.iter().any(|copy| copy.status == Status::Down) {
        Some(Obstacle::Fact(format!("a copy of knowledge in {name} is behind")))
    } else {
        None
    }
}

/// Why the other regions couldn't carry the load.
fn too_full(facts: &Facts<'_>, looked: &Preflight) -> Vec<String> {
    if facts.classes.list().iter().all(|class| class.demand == 0) {
        let mend = "state load.demand of regions, or let Workers report";
        return vec![format!("nobody knows how many requests there are; {mend}")];
    }
    let mut reasons: Vec<String> = undeclared(facts, looked).collect();
    for fence in &looked.fences {
        let name = fence.fence.iter().map(RegionId::as_str).collect::<Vec<_>>().join("+");
        match fence.load {
            None => reasons.push(format!("the capacity of a region of the fence {name} isn't known")),
            Some(load) if load > part(MOST) => {
                reasons.push(format!(
                    "the others of the fence {name} would have a load of {}, more than {MOST}",
                    percent(load)
                ));
            }
            Some(_) if fence.refused > 0.0 => {
                let refused = fence.refused;
                reasons.push(format!("{refused:.1} requests at once of the fence {name} would find no room"));
            }
            Some(_) => {}
        }
    }
    let full = looked.regions.iter().filter(|one| one.during.is_some_and(|load| load > 1.0));
    reasons
        .extend(full.map(|one| format!("{} would have a load of {}", one.region, percent(one.during.unwrap_or(0.0)))));
    reasons.extend(looked.regions.iter().filter_map(measured_full));
    reasons
}

/// Regions whose own clients nobody counts. They would be missing in every sum.
fn undeclared<'f>(facts: &'f Facts<'_>, looked: &'f Preflight) -> impl Iterator<Item = String> + 'f {
    let is_unknown = |(position, one): &(usize, &RegionForecast)| {
        let Some(index) = facts.table.region_named(one.region.as_str()) else { return false };
        let region = facts.table.region(index);
        let is_stated = region.load.as_ref().is_some_and(|load| load.demand.is_some());
        let is_counted = facts.classes.list().iter().any(|class| class.home() == index && class.demand > 0);
        // Workers that report count all requests to other regions, so nothing counted is no demand. The drilled region,
        // which comes first, has to have some: else there is nothing to rehearse, or its clients aren't seen.
        let sees_none = *position > 0 && facts.workers > 0 && !region.endpoints.is_empty();
        !(is_stated || is_counted || sees_none)
    };
    looked.regions.iter().enumerate().filter(is_unknown).map(|(_, one)| {
        let name = &one.region;
        format!("nobody knows how many requests {name} has; state its load.demand, or let Workers report")
    })
}

/// Why a region couldn't carry what would be moved to it, by the load that was measured there: demand that nobody
/// states or reports loads it all the same.
fn measured_full(one: &RegionForecast) -> Option<String> {
    let (now, moved) = (one.now?, one.during? - one.before?);
    (moved > 0.0 && now + moved > part(MOST)).then(|| {
        let (region, then, now) = (&one.region, percent(now + moved), percent(now));
        format!("{region} has a load of {now} now and would have one of {then}, more than {MOST}")
    })
}

/// The loads to be expected, of every fence.
fn forecast(facts: &Facts<'_>, region: RegionIndex) -> Preflight {
    let (table, classes) = (facts.table, facts.classes);
    let name = |region: &RegionIndex| table.region(*region).id.clone();
    let mut fences: Vec<FenceForecast> = losses(table, classes, &[region])
        .into_iter()
        .filter(|loss| loss.lost == Some(region))
        .map(|loss| FenceForecast {
            fence: loss.fence.iter().map(name).collect(),
            demand: count(loss.demand),
            load: loss.load().map(part),
            refused: count(loss.refused),
        })
        .collect();
    // An unknown load comes before every known one.
    let fullness = |one: &FenceForecast| one.load.unwrap_or(f64::INFINITY);
    fences.sort_by(|a, b| fullness(b).total_cmp(&fullness(a)));
    let (before, during) = (settled(table, classes, None), settled(table, classes, Some(region)));
    let load = |carried: &[Amount], one: RegionIndex| {
        let capacity = table.region(one).capacity().map(requests)?;
        Some(part(Ratio::between(carried.get(one.get()).copied()?, capacity)))
    };
    let of = |one: RegionIndex| RegionForecast {
        region: name(&one),
        now: facts.loads.get(one.get()).copied().flatten().map(part),
        before: load(&before, one),
        during: load(&during, one),
    };
    let regions = [region].into_iter().chain(neighbours(table, region)).map(of).collect();
    Preflight { fences, regions, ..Preflight::default() }
}

/// A ratio as a number.
fn part(ratio: Ratio) -> f64 {
    f64::from(ratio.0) / f64::from(Ratio::ONE.0)
}

/// An amount in requests.
#[allow(clippy::cast_precision_loss)] // far fewer requests are under way than a float can count exactly
fn count(amount: Amount) -> f64 {
    amount as f64 / 1_000.0
}

/// A load in words.
fn percent(load: f64) -> String {
    // The largest ratio stands for a fence without capacity.
    if load > 4_000.0 { "more than it can ever carry".to_owned() } else { format!("{:.1} %", load * 100.0) }
}

#[cfg(test)]
/// Three regions of the EU, of which Frankfurt's demand is as given and Stockholm is small, and one of the UK.
pub(super) fn tests_table(fra: u32, drill: &str) -> Table {
    let document = format!(
        r#"{{ "version": 1, "revision": 1, "jurisdictions": {{
                "eu": {{ "include": ["EU"] }}, "uk": {{ "countries": ["GB"] }} }},
        "regions": {{ "fra": {{ "countries": ["DE"], "load": {{ "capacity": 100, "demand": {fra} }} }},
            "par": {{ "countries": ["FR"], "load": {{ "capacity": 100, "demand": 40 }} }},
            "sto": {{ "countries": ["SE"], "load": {{ "capacity": 20, "demand": 0 }} }},
            "lon": {{ "countries": ["GB"], "load": {{ "capacity": 100, "demand": 40 }} }} }},
        "drills": {{ "one": {{ "region": "fra" {drill} }}, "uk": {{ "region": "lon" }} }},
        "services": {{ "chat": {{ "hosts": ["chat.example"], "pattern": "active-active",
            "regions": ["fra", "par", "sto"], "residency": [{{ "clients": ["eu"], "process_in": ["eu"] }}] }},
          "local": {{ "hosts": ["local.example"], "pattern": "active-active",
            "regions": ["lon"], "residency": [{{ "clients": ["uk"], "process_in": ["uk"] }}] }} }} }}"#
    );
    Table::compile(document.as_bytes()).unwrap_or_else(|violations| panic!("{violations:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::RegionHealth;
    use crate::steer::Local;
    use crate::time::Timestamp;

    const NOW: Timestamp = Timestamp(1_796_119_200_000); // 2026-12-01T10:00:00Z

    fn up() -> RegionHealth {
        RegionHealth { probed: Status::Up, ..RegionHealth::default() }
    }

    fn looked(table: &Table, name: &str, change: impl FnOnce(&mut Facts<'_>, &mut Vec<RegionHealth>)) -> Preflight {
        let (classes, mut health, local) = (Classes::stated(table), vec![up(); 4], Local::default());
        let unused = Conditions { health: &[], local: &local, now: NOW };
        let mut facts = Facts {
            table,
            conditions: &unused,
            classes: &classes,
            unread: Vec::new(),
            loads: Vec::new(),
            nodes: (1, 1),
            workers: 1,
            is_blind: false,
            under_way: Vec::new(),
            running: None,
        };
        change(&mut facts, &mut health);
        let conditions = Conditions { health: &health, ..unused };
        let facts = Facts { conditions: &conditions, ..facts };
        preflight(&facts, table.drill_named(name).unwrap().1)
    }

    #[test]
    fn a_drill_may_begin_while_the_others_carry_the_load_at_nine_tenths() {
        let go = looked(&tests_table(50, ""), "one", |_, _| {});
        assert_eq!((go.verdict, &go.reasons[..]), (Verdict::Go, &[][..]));
        assert_eq!((go.fences.len(), go.fences[0].load), (1, Some(0.75)));
        let during: Vec<_> =
            go.regions.iter().map(|one| (one.region.as_str(), one.during.map(|load| load > 0.7))).collect();
        assert_eq!(during[..2], [("fra", Some(false)), ("par", Some(true))]);
        // 109 are more than nine tenths of the 120 that Paris and Stockholm carry.
        let full = looked(&tests_table(69, ""), "one", |_, _| {});
        assert_eq!(full.verdict, Verdict::Capacity);
        assert!(
            full.reasons[0].contains("fra+par+sto would have a load of 90.8 %, more than 90 %"),
            "{:?}",
            full.reasons
        );
    }

    #[test]
    fn a_load_that_was_measured_counts_beside_the_known_demand() {
        let table = tests_table(50, "");
        let at = |name: &str, load: u32| {
            let measured = looked(&table, "one", |facts, _| {
                facts.loads = vec![None; 4];
                facts.loads[table.region_named(name).unwrap().get()] = Some(Ratio(load));
            });
            (measured.verdict, measured.reasons)
        };
        // Demand says 40 % in Paris, and that 50 of 100 may come in addition.
        assert_eq!(at("par", 300_000).0, Verdict::Go);
        let (verdict, reasons) = at("par", 850_000);
        assert_eq!((verdict, reasons.len()), (Verdict::Capacity, 1));
        assert!(reasons[0].starts_with("par has a load of 85.0 % now and would have one of "), "{reasons:?}");
        assert_eq!(at("fra", 950_000).0, Verdict::Go, "the drilled region gets fewer");
        assert_eq!(at("lon", 950_000).0, Verdict::Go, "nothing is moved there");
    }

    #[test]
    fn the_only_region_of_a_fence_is_never_drilled() {
        let looked = looked(&tests_table(10, ""), "uk", |_, _| {});
        assert_eq!(looked.verdict, Verdict::Capacity);
        assert!(looked.reasons[0].contains("more than it can ever carry"), "{:?}", looked.reasons);
    }

    #[test]
    fn unknown_demand_or_capacity_is_no_capacity() {
        let none = looked(&tests_table(10, ""), "one", |facts, _| facts.classes = Box::leak(Box::default()));
        assert_eq!(none.verdict, Verdict::Capacity);
        assert!(none.reasons[0].contains("nobody knows how many requests there are"), "{:?}", none.reasons);
    }

    #[test]
    fn a_region_whose_clients_nobody_counts_is_not_drilled_and_not_relied_on() {
        let table = |demand_of_fra: &str, demand_of_par: &str, endpoints: &str| {
            let document = format!(
                r#"{{ "version": 1, "revision": 1, "jurisdictions": {{
                        "eu": {{ "include": ["EU"] }}, "uk": {{ "countries": ["GB"] }} }},
                "regions": {{ "fra": {{ "countries": ["DE"], "load": {{ "capacity": 100 {demand_of_fra} }} }},
                    "par": {{ "countries": ["FR"], "load": {{ "capacity": 100 {demand_of_par} }} {endpoints} }},
                    "lon": {{ "countries": ["GB"], "load": {{ "capacity": 100, "demand": 40 }} }} }},
                "drills": {{ "one": {{ "region": "fra" }} }},
                "services": {{ "chat": {{ "hosts": ["chat.example"], "pattern": "active-active",
                    "regions": ["fra", "par"], "residency": [{{ "clients": ["eu"], "process_in": ["eu"] }}] }},
                  "local": {{ "hosts": ["local.example"], "pattern": "active-active",
                    "regions": ["lon"], "residency": [{{ "clients": ["uk"], "process_in": ["uk"] }}] }} }} }}"#
            );
            Table::compile(document.as_bytes()).unwrap_or_else(|violations| panic!("{violations:?}"))
        };
        let reasons = |table: &Table| looked(table, "one", |_, _| {}).reasons;
        let (forty, none) = (r#", "demand": 40"#, "");
        let unknown = |name: &str| {
            format!("nobody knows how many requests {name} has; state its load.demand, or let Workers report")
        };
        assert_eq!(reasons(&table(forty, forty, none)), [""; 0]);
        assert_eq!(reasons(&table(none, none, none)), [unknown("fra"), unknown("par")]);
        assert_eq!(reasons(&table(none, forty, none)), [unknown("fra")]);
        assert_eq!(reasons(&table(forty, none, none)), [unknown("par")]);
        // The Workers that report would have counted its requests.
        let endpoints = r#", "endpoints": { "e": { "url": "https://par.example/v1" } }"#;
        assert_eq!(reasons(&table(forty, none, endpoints)), [""; 0]);
        // It is stated that there are none.
        assert_eq!(reasons(&table(forty, r#", "demand": 0"#, none)), [""; 0]);
    }

    #[test]
    fn every_reason_against_it_is_told() {
        let table = tests_table(10, r#", "abort": { "error_rate": 0.01 }, "blocked": ["12-01/12-01"]"#);
        let running =
            serde_json::from_value(serde_json::json!({ "name": "uk", "region": "lon", "origin": "ns1", "number": 1,
            "began": NOW, "share": 10, "until": NOW.after(crate::time::Millis(60_000)) }))
            .unwrap();
        let looked = looked(&table, "one", |facts, health| {
            facts.running = Some(Box::leak(Box::new(running)));
            facts.under_way =
                vec!["par is forced up until then: why".to_owned(), "the rollout fp8 is under way".to_owned()];
            (facts.is_blind, facts.nodes, facts.workers) = (true, (2, 4), 0);
            facts.unread = vec![RegionId::parse("sto").unwrap()];
            health[table.region_named("par").unwrap().get()].probed = Status::Down;
            health[table.region_named("fra").unwrap().get()].stale = true;
            health[table.region_named("lon").unwrap().get()].probed = Status::Down;
        });
        assert_eq!(looked.verdict, Verdict::Blocked);
        let expected = [
            "it is blocked from 12-01/12-01 (UTC)",
            "the drill uk is under way",
            "par is forced up until then: why",
            "the rollout fp8 is under way",
            "this node's own line seems to be down",
            "2 of 4 nodes report, and more than half have to",
            "no Worker reports, so nobody could see that it has to be broken off",
            "par is down, and every region has to be up",
            "the load of sto isn't known",
            "fra wasn't probed lately",
        ];
        assert_eq!(looked.reasons, expected, "London has no service with Frankfurt");
        assert!(!looked.is_early);
    }

    #[test]
    fn it_is_early_while_only_knowledge_is_missing() {
        let table = tests_table(50, r#", "abort": { "error_rate": 0.01 }"#);
        let with = |change: fn(&mut Facts<'_>, &mut Vec<RegionHealth>)| {
            let looked = looked(&table, "one", change);
            (looked.verdict, looked.is_early)
        };
        let early = (Verdict::Blocked, true);
        assert_eq!(with(|_, health| health[0].probed = Status::Unknown), early, "a region was never probed");
        assert_eq!(with(|facts, _| facts.unread = vec![RegionId::parse("sto").unwrap()]), early);
        assert_eq!(with(|facts, _| facts.nodes = (1, 2)), early);
        assert_eq!(with(|facts, _| facts.workers = 0), early);
        assert_eq!(with(|_, _| {}), (Verdict::Go, false));
        // What is known already won't change by waiting for the rest.
        let late = (Verdict::Blocked, false);
        assert_eq!(with(|_, health| health[0].probed = Status::Down), late);
        assert_eq!(with(|_, health| health[0].stale = true), late);
        assert_eq!(
            with(|facts, health| {
                health[0].probed = Status::Unknown;
                facts.under_way = vec!["the rollout fp8 is under way".to_owned()];
            }),
            late
        );
        let full = tests_table(69, "");
        assert!(!super::tests::looked(&full, "one", |_, _| {}).is_early, "it is too full, and that is known");
    }
}
