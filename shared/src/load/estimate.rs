//! Estimates demand that isn't counted, because DNS alone steers the service. Takes the orders of the fences of a
//! service's clients (a fence is the regions that may process a client, here best first). Each order has a weight, such
//! as the number of addresses with this order. Returns the demand by order. Called by the DNS node.

use std::collections::{BTreeMap, HashMap};

use super::classes::as_set;
use super::{Amount, proportion, requests};
use crate::table::{RegionIndex, ServiceIndex, Table};

/// Splits the demand of each home region over the orders that begin with this region, by their weights. The demand of a
/// region is its `demand` in the rules, or else its capacity, divided by the number of services that the region serves.
/// If the region's load is measured, only the proportions matter, because a plan scales demand to the measured load.
///
/// If there are more than `most` orders, the heaviest are kept. The weight of each other order is added to the heaviest
/// kept order with the same home and the same regions, or dropped. So the work of a plan is bounded, and clients are
/// never moved out of their fence.
#[must_use]
pub fn estimate(
    table: &Table,
    service: ServiceIndex,
    orders: impl IntoIterator<Item = (Vec<RegionIndex>, u64)>,
    most: usize,
) -> Vec<(Vec<RegionIndex>, Amount)> {
    let orders = heaviest(orders, most);
    let mut weights: BTreeMap<RegionIndex, u64> = BTreeMap::new();
    for (order, weight) in &orders {
        if let Some(home) = order.first() {
            let whole = weights.entry(*home).or_default();
            *whole = whole.saturating_add(*weight);
        }
    }
    let share = |(order, weight): (Vec<RegionIndex>, u64)| {
        let home = *order.first()?;
        let whole = weights.get(&home).copied().unwrap_or(0);
        Some((order, proportion(demand_at(table, service, home), weight, whole)))
    };
    orders.into_iter().filter_map(share).collect()
}

/// The heaviest orders, heaviest first, with the weights of other orders added to them.
fn heaviest(orders: impl IntoIterator<Item = (Vec<RegionIndex>, u64)>, most: usize) -> Vec<(Vec<RegionIndex>, u64)> {
    let mut by_order: BTreeMap<Vec<RegionIndex>, u64> = BTreeMap::new();
    for (order, weight) in orders.into_iter().filter(|(order, _)| !order.is_empty()) {
        let whole = by_order.entry(order).or_default();
        *whole = whole.saturating_add(weight);
    }
    let mut heaviest: Vec<(Vec<RegionIndex>, u64)> = by_order.into_iter().collect();
    // A stable sort, so that equal inputs give equal results.
    heaviest.sort_by_key(|(_, weight)| core::cmp::Reverse(*weight));
    let rest = heaviest.split_off(most.min(heaviest.len()));
    let mut heaviest_of_fence: HashMap<(RegionIndex, Vec<RegionIndex>), usize> = HashMap::new();
    for (position, (order, _)) in heaviest.iter().enumerate() {
        heaviest_of_fence.entry((order[0], as_set(order))).or_insert(position);
    }
    for (order, weight) in rest {
        if let Some(position) = heaviest_of_fence.get(&(order[0], as_set(&order))) {
            heaviest[*position].1 = heaviest[*position].1.saturating_add(weight);
        }
    }
    heaviest
}

/// The demand of a service's clients whose home is this region: the region's demand divided by the services that it
/// serves.
fn demand_at(table: &Table, service: ServiceIndex, home: RegionIndex) -> Amount {
    let region = table.region(home);
    let stated = region.load.as_ref().and_then(|load| load.demand).map(requests);
    let capacity = region.capacity().map(requests);
    let whole = stated.or(capacity).unwrap_or(requests(1));
    let is_served = |service: &crate::table::Service| service.regions.contains(&home);
    debug_assert!(is_served(table.service(service)), "an order holds regions of its service");
    let services = table.services().iter().filter(|service| is_served(service)).count().max(1);
    (whole / services as u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        Table::compile(
            br#"{ "version": 1, "revision": 1, "jurisdictions": { "eu": { "include": ["EU"] } },
                  "regions": { "fra": { "countries": ["DE"], "load": { "capacity": 100, "demand": 90 } },
                               "par": { "countries": ["FR"], "load": { "capacity": 40 } },
                               "waw": { "countries": ["PL"] } },
                  "services": { "chat": { "hosts": ["chat.example"], "pattern": "active-active",
                                          "regions": ["fra", "par", "waw"],
                                          "residency": [{ "clients": ["eu"], "process_in": ["eu"] }] } } }"#,
        )
        .unwrap()
    }

    fn order(table: &Table, names: &[&str]) -> Vec<RegionIndex> {
        names.iter().map(|name| table.region_named(name).unwrap()).collect()
    }

    #[test]
    fn demand_is_split_by_weight_at_each_home() {
        let table = table();
        let of = |names: &[&str]| order(&table, names);
        let orders = [
            (of(&["fra", "par", "waw"]), 200),
            (of(&["fra", "waw", "par"]), 100),
            (of(&["par", "fra", "waw"]), 7),
            (of(&["waw", "fra", "par"]), 1),
            (Vec::new(), 1_000),
        ];
        let demand: BTreeMap<_, _> = estimate(&table, ServiceIndex(0), orders, 10).into_iter().collect();
        let expected = [
            (of(&["fra", "par", "waw"]), 60_000),
            (of(&["fra", "waw", "par"]), 30_000),
            (of(&["par", "fra", "waw"]), 40_000),
            (of(&["waw", "fra", "par"]), 1_000),
        ];
        assert_eq!(demand, expected.into_iter().collect(), "fra states a demand, par only a capacity, waw neither");
    }

    #[test]
    fn rare_orders_count_as_the_heaviest_order_with_the_same_home_and_regions() {
        let table = table();
        let of = |names: &[&str]| order(&table, names);
        let orders = [
            (of(&["fra", "par", "waw"]), 50),
            (of(&["par", "fra", "waw"]), 40),
            (of(&["fra", "waw", "par"]), 10),
            (of(&["fra", "par"]), 30),
            (of(&["waw", "fra", "par"]), 5),
        ];
        let demand = estimate(&table, ServiceIndex(0), orders.clone(), 3);
        let expected =
            [(of(&["fra", "par", "waw"]), 60_000), (of(&["par", "fra", "waw"]), 40_000), (of(&["fra", "par"]), 30_000)];
        assert_eq!(demand, expected, "the order from Warsaw is dropped: no kept order has its home");
        assert_eq!(estimate(&table, ServiceIndex(0), orders, 0), []);
    }
}
