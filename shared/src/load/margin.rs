//! What every fence would have to carry without one of its regions, by the demand of the moment. Takes classes and the
//! capacities of regions that are up, returns loads, the highest first. Called by the node with each plan, for its
//! metrics; so its cost is bounded. `bailiwick plan` tells more ([`super::losses`]).

use std::collections::BTreeMap;

use super::classes::as_set;
use super::{Amount, Classes};
use crate::rules::Ratio;
use crate::table::RegionIndex;

/// The most fences that are looked at: those with the highest demand.
const MAX_FENCES: usize = 64;
/// The most losses that are told.
const MAX_TOLD: usize = 256;

/// The load of a fence without one of its regions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Margin {
    /// The regions of the fence, by index.
    pub fence: Vec<RegionIndex>,
    /// The region that is lost.
    pub lost: RegionIndex,
    /// The demand of clients that may be served in this fence only, over what the rest can carry.
    pub load: Ratio,
}

/// What is known of all fences.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Margins {
    /// The losses with the highest loads.
    pub worst: Vec<Margin>,
    /// How many further losses were left out.
    pub left_out: usize,
}

/// The loads of all fences without each of their regions. `capacity` is that of a region now: nothing if it is down.
/// A fence with a region of unknown capacity, or of one region only, has none.
#[must_use]
pub fn margins(classes: &Classes, capacity: impl Fn(RegionIndex) -> Option<Amount>) -> Margins {
    let mut fences: BTreeMap<Vec<RegionIndex>, Amount> = BTreeMap::new();
    for class in classes.list() {
        let demand = fences.entry(as_set(&class.order)).or_default();
        *demand = demand.saturating_add(class.demand);
    }
    let mut largest: Vec<(&Vec<RegionIndex>, Amount)> = fences.iter().map(|(fence, demand)| (fence, *demand)).collect();
    largest.sort_by_key(|(fence, demand)| (core::cmp::Reverse(*demand), *fence));
    let mut left_out: usize = largest.iter().skip(MAX_FENCES).map(|(fence, _)| fence.len()).sum();
    let mut worst = Vec::new();
    for (fence, _) in largest.into_iter().take(MAX_FENCES).filter(|(fence, _)| fence.len() > 1) {
        // Clients of a narrower fence compete for the same regions, and have nowhere else to go.
        let is_within = |narrower: &[RegionIndex]| narrower.iter().all(|region| fence.binary_search(region).is_ok());
        let inside = fences.iter().filter(|(narrower, _)| is_within(narrower));
        let demand = inside.fold(0, |sum: Amount, (_, demand)| sum.saturating_add(*demand));
        let capacities = fence.iter().map(|region| capacity(*region)).collect::<Option<Vec<Amount>>>();
        let Some(capacities) = capacities else { continue };
        let all = capacities.iter().fold(0, |sum: Amount, one| sum.saturating_add(*one));
        for (lost, own) in fence.iter().zip(capacities) {
            let load = Ratio::between(demand, all.saturating_sub(own));
            worst.push(Margin { fence: fence.clone(), lost: *lost, load });
        }
    }
    worst.sort_by(|a, b| (b.load, &a.fence, a.lost).cmp(&(a.load, &b.fence, b.lost)));
    left_out += worst.len().saturating_sub(MAX_TOLD);
    worst.truncate(MAX_TOLD);
    Margins { worst, left_out }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{losses, requests};
    use crate::table::Table;

    /// Three regions of 100 each. Germans may be served in all of them, the British in London only.
    fn table() -> Table {
        Table::compile(
            br#"{ "version": 1, "revision": 1,
            "jurisdictions": { "eu": { "include": ["EU"] }, "uk": { "countries": ["GB"] } },
            "regions": { "fra": { "countries": ["DE"], "load": { "capacity": 100, "demand": 90 } },
                         "par": { "countries": ["FR"], "load": { "capacity": 100, "demand": 50 } },
                         "lon": { "countries": ["GB"], "load": { "capacity": 100, "demand": 20 } } },
            "services": { "chat": { "hosts": ["chat.example"], "pattern": "active-active",
                "regions": ["fra", "par", "lon"], "residency": [
                    { "clients": ["eu"], "process_in": ["eu"] },
                    { "clients": ["uk"], "process_in": ["uk", "eu"] }] } } }"#,
        )
        .unwrap()
    }

    fn told(table: &Table, capacity: impl Fn(RegionIndex) -> Option<Amount>) -> Vec<(String, String, u32)> {
        let name = |region: &RegionIndex| table.region(*region).id.to_string();
        let all = margins(&Classes::stated(table), capacity).worst;
        let one = |one: &Margin| {
            let fence: Vec<_> = one.fence.iter().map(name).collect();
            (fence.join("+"), name(&one.lost), one.load.0)
        };
        all.iter().map(one).collect()
    }

    #[test]
    fn the_load_without_a_region_is_that_of_the_plan_command() {
        let table = table();
        let classes = Classes::stated(&table);
        let all: Vec<RegionIndex> = (0..3).map(RegionIndex).collect();
        let stated = |region: RegionIndex| table.region(region).load.as_ref()?.capacity.map(requests);
        let by_command = losses(&table, &classes, &all);
        let margins = margins(&classes, stated);
        assert_eq!(margins.left_out, 0);
        for one in &margins.worst {
            let same = |loss: &&crate::load::FenceLoss| loss.fence == one.fence && loss.lost == Some(one.lost);
            assert_eq!(by_command.iter().find(same).unwrap().load(), Some(one.load));
        }
        assert_eq!(margins.worst.len(), 5, "two fences, of two regions and of three");
        let (fence, lost, load) = &told(&table, stated)[0];
        assert_eq!((fence.as_str(), lost.as_str(), *load), ("fra+par", "fra", 1_400_000));
    }

    #[test]
    fn a_region_that_is_down_carries_nothing_and_one_that_is_not_known_tells_nothing() {
        let table = table();
        let with = |fra| move |region: RegionIndex| if region == RegionIndex(0) { fra } else { Some(requests(100)) };
        let down = told(&table, with(Some(0)));
        assert_eq!((down[0].1.as_str(), down[0].2), ("par", u32::MAX), "nothing is left of it");
        assert_eq!(told(&table, with(None)), []);
    }

    #[test]
    fn what_is_told_is_bounded_whatever_the_rules_have() {
        let regions: serde_json::Map<_, _> = (0..200)
            .map(|n| (format!("r{n:03}"), serde_json::json!({ "countries": ["DE"], "load": { "capacity": 1 } })))
            .collect();
        let services: serde_json::Map<_, _> = (0..100)
            .map(|n| {
                let regions: Vec<String> = (n..n + 100).map(|n| format!("r{n:03}")).collect();
                let residency = serde_json::json!([{ "clients": ["*"], "process_in": ["*"] }]);
                let service = serde_json::json!({ "hosts": [format!("s{n}.example")], "pattern": "active-active",
                                                  "regions": regions, "residency": residency });
                (format!("s{n}"), service)
            })
            .collect();
        let rules = serde_json::json!({ "version": 1, "revision": 1, "regions": regions, "services": services });
        let table = Table::compile(rules.to_string().as_bytes()).unwrap();
        let orders = (0..)
            .zip(table.services())
            .map(|(index, service)| (crate::table::ServiceIndex(index), service.regions.clone(), requests(index + 1)));
        let mut classes = Classes::stated(&table);
        classes.observe(&table, orders);
        let margins = margins(&classes, |_| Some(1_000));
        assert_eq!((margins.worst.len(), margins.left_out), (MAX_TOLD, 100 * 100 - MAX_TOLD));
        assert!(margins.worst.is_sorted_by(|a, b| a.load >= b.load));
    }
}
