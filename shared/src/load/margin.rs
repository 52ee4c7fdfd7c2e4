//! The load that every fence would have without one of its regions, at the present demand. A fence is the regions that
//! may process a client. Takes classes and the present capacities of regions, returns loads, the highest first. Called
//! by the node with each plan, for its metrics. So the work is bounded; `bailiwick plan` computes more
//! ([`super::losses`]).

use std::collections::BTreeMap;

use super::classes::as_set;
use super::{Amount, Classes};
use crate::rules::Ratio;
use crate::table::RegionIndex;

/// The most fences whose margins are computed: those with the highest demand.
const MAX_FENCES: usize = 64;
/// The most margins that are returned.
const MAX_MARGINS: usize = 256;

/// The load of a fence without one of its regions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Margin {
    /// The regions of the fence, by index.
    pub fence: Vec<RegionIndex>,
    /// The region that is lost.
    pub lost: RegionIndex,
    /// The demand of clients who may not be served outside of this fence, divided by the capacity of the other regions.
    pub load: Ratio,
}

/// The margins of all fences.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Margins {
    /// The margins with the highest loads.
    pub worst: Vec<Margin>,
    /// How many margins were left out.
    pub left_out: usize,
}

/// The margins of all fences, one for each of their regions. `capacity` returns the present capacity of a region, 0 if
/// the region is down. A fence with only one region, or with a region of unknown capacity, has no margins.
#[must_use]
pub fn margins(classes: &Classes, capacity: impl Fn(RegionIndex) -> Option<Amount>) -> Margins {
    let mut fences: BTreeMap<Vec<RegionIndex>, Amount> = BTreeMap::new();
    for class in classes.list() {
        let demand = fences.entry(as_set(&class.order)).or_default();
        *demand = demand.saturating_add(class.demand);
    }
    // A fence of one region has no margin, and takes no place of another.
    let several = fences.iter().filter(|(fence, _)| fence.len() > 1);
    let mut largest: Vec<(&Vec<RegionIndex>, Amount)> = several.map(|(fence, demand)| (fence, *demand)).collect();
    largest.sort_by_key(|(fence, demand)| (core::cmp::Reverse(*demand), *fence));
    let mut left_out: usize = largest.iter().skip(MAX_FENCES).map(|(fence, _)| fence.len()).sum();
    let mut worst = Vec::new();
    for (fence, _) in largest.into_iter().take(MAX_FENCES) {
        // Clients with a narrower fence count too: they compete for the same regions and have no other region.
        let is_within = |narrower: &[RegionIndex]| narrower.iter().all(|region| fence.binary_search(region).is_ok());
        let inside = fences.iter().filter(|(narrower, _)| is_within(narrower));
        let demand = inside.fold(0, |sum: Amount, (_, demand)| sum.saturating_add(*demand));
        let capacities = fence.iter().map(|region| capacity(*region)).collect::<Option<Vec<Amount>>>();
        let Some(capacities) = capacities else { continue };
        let total = capacities.iter().fold(0, |sum: Amount, capacity| sum.saturating_add(*capacity));
        for (lost, lost_capacity) in fence.iter().zip(capacities) {
            let load = Ratio::between(demand, total.saturating_sub(lost_capacity));
            worst.push(Margin { fence: fence.clone(), lost: *lost, load });
        }
    }
    worst.sort_by(|a, b| (b.load, &a.fence, a.lost).cmp(&(a.load, &b.fence, b.lost)));
    left_out += worst.len().saturating_sub(MAX_MARGINS);
    worst.truncate(MAX_MARGINS);
    Margins { worst, left_out }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{losses, requests};
    use crate::table::Table;

    /// Three regions of capacity 100. Clients from the UK may be served in all regions, clients from the EU not in
    /// London.
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

    /// The margins: fence, lost region, load in millionths.
    fn named(table: &Table, capacity: impl Fn(RegionIndex) -> Option<Amount>) -> Vec<(String, String, u32)> {
        let name = |region: &RegionIndex| table.region(*region).id.to_string();
        let all = margins(&Classes::stated(table), capacity).worst;
        let with_names = |margin: &Margin| {
            let fence: Vec<_> = margin.fence.iter().map(name).collect();
            (fence.join("+"), name(&margin.lost), margin.load.0)
        };
        all.iter().map(with_names).collect()
    }

    #[test]
    fn the_margins_equal_the_loads_that_the_plan_command_prints() {
        let table = table();
        let classes = Classes::stated(&table);
        let all: Vec<RegionIndex> = (0..3).map(RegionIndex).collect();
        let stated = |region: RegionIndex| table.region(region).load.as_ref()?.capacity.map(requests);
        let by_command = losses(&table, &classes, &all);
        let margins = margins(&classes, stated);
        assert_eq!(margins.left_out, 0);
        for margin in &margins.worst {
            let same = |loss: &&crate::load::FenceLoss| loss.fence == margin.fence && loss.lost == Some(margin.lost);
            assert_eq!(by_command.iter().find(same).unwrap().load(), Some(margin.load));
        }
        assert_eq!(margins.worst.len(), 5, "two fences, of two regions and of three");
        let (fence, lost, load) = &named(&table, stated)[0];
        assert_eq!((fence.as_str(), lost.as_str(), *load), ("fra+par", "fra", 1_400_000));
    }

    #[test]
    fn a_down_region_has_capacity_0_and_an_unknown_capacity_gives_no_margins() {
        let table = table();
        let with = |fra| move |region: RegionIndex| if region == RegionIndex(0) { fra } else { Some(requests(100)) };
        let down = named(&table, with(Some(0)));
        assert_eq!(
            (down[0].1.as_str(), down[0].2),
            ("par", u32::MAX),
            "without Paris, the fence fra+par has no capacity"
        );
        assert_eq!(named(&table, with(None)), []);
    }

    #[test]
    fn the_number_of_margins_is_bounded_for_any_rules() {
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
        assert_eq!((margins.worst.len(), margins.left_out), (MAX_MARGINS, 100 * 100 - MAX_MARGINS));
        assert!(margins.worst.is_sorted_by(|a, b| a.load >= b.load));
    }
    /// Fences of one region have no margin. If they took places, a service of many regions with a fence each would
    /// leave none to the fences that have some.
    #[test]
    fn fences_of_one_region_take_no_place_however_high_their_demand() {
        let count = 2 * MAX_FENCES;
        let names: Vec<String> = (0..count).map(|n| format!("r{n:03}")).collect();
        let regions: serde_json::Map<_, _> =
            names.iter().map(|name| (name.clone(), serde_json::json!({ "countries": ["DE"] }))).collect();
        let residency = serde_json::json!([{ "clients": ["*"], "process_in": ["*"] }]);
        let rules = serde_json::json!({ "version": 1, "revision": 1, "regions": regions, "services": { "chat": {
            "hosts": ["chat.example"], "pattern": "active-active", "regions": names, "residency": residency } } });
        let table = Table::compile(rules.to_string().as_bytes()).unwrap();
        let service = crate::table::ServiceIndex(0);
        let region = |name: &String| table.region_named(name).unwrap();
        let alone = names.iter().map(|name| (service, vec![region(name)], requests(1_000)));
        let pair = (service, vec![region(&names[0]), region(&names[1])], requests(1));
        let mut classes = Classes::stated(&table);
        classes.observe(&table, alone.chain([pair]));
        let margins = margins(&classes, |_| Some(requests(1_000)));
        let loads: Vec<Ratio> = margins.worst.iter().map(|margin| margin.load).collect();
        assert_eq!(loads, [Ratio(2_001_000); 2], "2001 requests at once, and 1000 fit into the other region");
        assert_eq!(margins.left_out, 0);
    }
}
