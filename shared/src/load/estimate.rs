//! The demand of a service's clients where nobody counts it, as with services that DNS alone steers. Takes the orders
//! of their fences, each with a weight such as how many addresses have it; returns the demand by order. Called by the
//! DNS node.

use std::collections::{BTreeMap, HashMap};

use super::classes::as_set;
use super::{Amount, proportion, requests};
use crate::table::{RegionIndex, ServiceIndex, Table};

/// Splits the demand of each home over the orders that begin with it, by their weights. The demand of a home is what
/// the rules state, otherwise its capacity; it is shared by the services that the region serves. Only proportions
/// matter where the home's load is measured, since a plan scales demand to it.
///
/// Of more than `most` orders the heaviest are kept. The others count with the heaviest that has the same home and the
/// same regions. So the work of a plan is bounded, and no region outside of a fence is ever named.
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

/// The heaviest orders, with the weights of those that count with them, heaviest first.
fn heaviest(orders: impl IntoIterator<Item = (Vec<RegionIndex>, u64)>, most: usize) -> Vec<(Vec<RegionIndex>, u64)> {
    let mut by_order: BTreeMap<Vec<RegionIndex>, u64> = BTreeMap::new();
    for (order, weight) in orders.into_iter().filter(|(order, _)| !order.is_empty()) {
        let whole = by_order.entry(order).or_default();
        *whole = whole.saturating_add(weight);
    }
    let mut kept: Vec<(Vec<RegionIndex>, u64)> = by_order.into_iter().collect();
    // A stable sort, so that equal inputs give equal results.
    kept.sort_by_key(|(_, weight)| core::cmp::Reverse(*weight));
    let rest = kept.split_off(most.min(kept.len()));
    let mut first_alike: HashMap<(RegionIndex, Vec<RegionIndex>), usize> = HashMap::new();
    for (position, (order, _)) in kept.iter().enumerate() {
        first_alike.entry((order[0], as_set(order))).or_insert(position);
    }
    for (order, weight) in rest {
        if let Some(position) = first_alike.get(&(order[0], as_set(&order))) {
            kept[*position].1 = kept[*position].1.saturating_add(weight);
        }
    }
    kept
}

/// A service's part of the demand of a region's own clients.
fn demand_at(table: &Table, service: ServiceIndex, home: RegionIndex) -> Amount {
    let region = table.region(home);
    let stated = region.load.as_ref().and_then(|load| load.demand).map(requests);
    let capacity = region.capacity().map(requests);
    let whole = stated.or(capacity).unwrap_or(requests(1));
    let serves = |of: &crate::table::Service| of.regions.contains(&home);
    debug_assert!(serves(table.service(service)), "an order holds regions of its service");
    let services = table.services().iter().filter(|one| serves(one)).count().max(1);
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
        let told: BTreeMap<_, _> = estimate(&table, ServiceIndex(0), orders, 10).into_iter().collect();
        let expected = [
            (of(&["fra", "par", "waw"]), 60_000),
            (of(&["fra", "waw", "par"]), 30_000),
            (of(&["par", "fra", "waw"]), 40_000),
            (of(&["waw", "fra", "par"]), 1_000),
        ];
        assert_eq!(told, expected.into_iter().collect(), "what is stated, else the capacity, else a request");
    }

    #[test]
    fn rare_orders_count_with_the_heaviest_of_the_same_fence() {
        let table = table();
        let of = |names: &[&str]| order(&table, names);
        let orders = [
            (of(&["fra", "par", "waw"]), 50),
            (of(&["par", "fra", "waw"]), 40),
            (of(&["fra", "waw", "par"]), 10),
            (of(&["fra", "par"]), 30),
            (of(&["waw", "fra", "par"]), 5),
        ];
        let told = estimate(&table, ServiceIndex(0), orders.clone(), 3);
        let expected =
            [(of(&["fra", "par", "waw"]), 60_000), (of(&["par", "fra", "waw"]), 40_000), (of(&["fra", "par"]), 30_000)];
        assert_eq!(told, expected, "Warsaw's own order has no like, and is left out");
        assert_eq!(estimate(&table, ServiceIndex(0), orders, 0), []);
    }
}
