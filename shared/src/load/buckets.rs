//! The shares of a load plan, in the form that DNS uses. A plan moves clients from full regions to others; a class is
//! the clients of a service whose fence (the regions that may process them) has the same order, and a share is the part
//! of a class that moves to one region. DNS divides each class into [`BUCKETS`] buckets of clients. Takes a plan,
//! returns the region to which each bucket moves. Called by the DNS node once per plan; its snapshot looks buckets up.

use std::collections::{BTreeMap, HashMap};

use super::classes::as_set;
use super::{BUCKETS, ClassIndex, Classes, Plan, Point};
use crate::table::{RegionIndex, ServiceIndex};

/// The region that each bucket of a class is moved to; `None` if the bucket isn't moved.
pub type Buckets = [Option<RegionIndex>; BUCKETS as usize];

/// The buckets of all services whose clients DNS moves. Two values are equal if all buckets are, even if the shares
/// that they were made from differ a little.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BucketShares(BTreeMap<ServiceIndex, OfService>);

/// The buckets of one service.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct OfService {
    /// By the order of the fence, which is the regions that may process a client, best first.
    by_order: HashMap<Vec<RegionIndex>, Box<Buckets>>,
    /// By home region, and the regions of the fence sorted by index.
    by_fence: HashMap<(RegionIndex, Vec<RegionIndex>), Box<Buckets>>,
}

impl BucketShares {
    /// The buckets of a plan, for services for which `is_moved` is true. Classes without a moved bucket are left out.
    #[must_use]
    pub fn new(classes: &Classes, plan: &Plan, is_moved: impl Fn(ServiceIndex) -> bool) -> Self {
        let mut shares = Self::default();
        for (index, class) in classes.list().iter().enumerate().filter(|(_, class)| is_moved(class.service)) {
            let region_of = |bucket| plan.choose(ClassIndex(index), Point::of_bucket(bucket));
            let mut buckets: Buckets = [None; BUCKETS as usize];
            for (bucket, region) in (0..BUCKETS).zip(&mut buckets) {
                *region = region_of(bucket);
            }
            shares.insert(class.service, &class.order, buckets);
        }
        shares
    }

    /// Sets the buckets of a service's clients whose fence has this order. A bucket that names a region outside of the
    /// fence isn't moved.
    pub fn insert(&mut self, service: ServiceIndex, order: &[RegionIndex], mut buckets: Buckets) {
        let Some(home) = order.first() else { return };
        buckets.iter_mut().for_each(|bucket| *bucket = bucket.filter(|region| order.contains(region)));
        if buckets.iter().any(Option::is_some) {
            let of_service = self.0.entry(service).or_default();
            of_service.by_order.insert(order.to_vec(), Box::new(buckets));
            of_service.by_fence.entry((*home, as_set(order))).or_insert_with(|| Box::new(buckets));
        }
    }

    /// The buckets of clients whose fence has this order. If the plan has no such order, the buckets of an order with
    /// the same home and the same regions. `None` if no client is moved.
    #[must_use]
    pub fn of(&self, service: ServiceIndex, order: &[RegionIndex]) -> Option<&Buckets> {
        let service = self.0.get(&service)?;
        let same_fence = || service.by_fence.get(&(*order.first()?, as_set(order)));
        service.by_order.get(order).or_else(same_fence).map(|buckets| &**buckets)
    }

    /// Whether any client of a service is moved.
    #[must_use]
    pub fn moves(&self, service: ServiceIndex) -> bool {
        self.0.contains_key(&service)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{PlanInput, Reading, RegionInput, plan, requests};
    use crate::table::Table;
    use crate::time::{Millis, Timestamp};

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    /// The plan when Frankfurt is down. Of Frankfurt's 90 requests, Paris has room for 50 and Warsaw for 10.
    fn dead(table: &Table) -> (Classes, Plan) {
        let classes = Classes::stated(table);
        let seen = |region: &str, used| {
            let load = |capacity| Some(Reading { used: requests(used), at: NOW }).filter(|_| capacity > 0);
            let capacity = table.region(table.region_named(region).unwrap()).load.as_ref()?.capacity?;
            Some(RegionInput {
                is_up: region != "fra",
                capacity: Some(requests(capacity)),
                reading: load(capacity),
                is_drilled: false,
            })
        };
        let names = table.regions().iter().map(|region| region.id.as_str());
        let regions: Vec<_> = names.map(|name| seen(name, if name == "waw" { 60 } else { 20 }).unwrap()).collect();
        let seen = PlanInput { regions: &regions, interval: Millis(5_000) };
        let plan = plan(table, &classes, &seen, None, NOW);
        (classes, plan)
    }

    fn table(chat: &str) -> Table {
        let region = |country: &str, demand| {
            format!(r#"{{ "countries": ["{country}"], "load": {{ "capacity": 100, "demand": {demand} }} }}"#)
        };
        let document = format!(
            r#"{{ "version": 1, "revision": 1, "jurisdictions": {{ "eu": {{ "include": ["EU"] }} }},
            "regions": {{ "fra": {}, "par": {}, "waw": {} }},
            "services": {{ "chat": {{ "hosts": ["chat.example"], "pattern": "active-active",
                "regions": ["fra", "par", "waw"] {chat},
                "residency": [{{ "clients": ["eu"], "process_in": ["eu"] }}] }} }} }}"#,
            region("DE", 90),
            region("FR", 20),
            region("PL", 60)
        );
        Table::compile(document.as_bytes()).unwrap_or_else(|violations| panic!("{violations:?}"))
    }

    #[test]
    fn the_number_of_buckets_equals_the_share_within_one_bucket() {
        let table = table("");
        let (classes, plan) = dead(&table);
        let shares = BucketShares::new(&classes, &plan, |_| true);
        assert!(shares.moves(ServiceIndex(0)) && !shares.moves(ServiceIndex(1)));
        let mut moved = 0;
        for (index, class) in classes.list().iter().enumerate() {
            let buckets = shares.of(ServiceIndex(0), &class.order);
            for planned in plan.moves(ClassIndex(index)) {
                let count = buckets.map_or(0, |all| all.iter().filter(|to| **to == Some(planned.to)).count());
                let expected = f64::from(planned.share.0) / 1e6 * f64::from(BUCKETS);
                assert!((count as f64 - expected).abs() <= 1.0, "{count} buckets instead of {expected}");
                moved += count;
            }
            for to in buckets.into_iter().flatten().flatten() {
                assert!(class.order[1..].contains(to), "a bucket goes outside of the fence");
            }
        }
        assert!(moved > 64, "{moved}");
    }

    #[test]
    fn an_order_outside_of_the_plan_is_moved_like_one_with_the_same_home_and_fence() {
        let table = table("");
        let (classes, plan) = dead(&table);
        let shares = BucketShares::new(&classes, &plan, |_| true);
        let home = table.region_named("fra").unwrap();
        let planned = classes.list().iter().find(|class| class.home() == home).unwrap();
        let other_order = [planned.order[0], planned.order[2], planned.order[1]];
        assert!(shares.of(ServiceIndex(0), &other_order).is_some());
        assert_eq!(shares.of(ServiceIndex(0), &planned.order[..2]), None, "a narrower fence has no buckets");
        assert_eq!(shares.of(ServiceIndex(0), &[]), None);
    }

    #[test]
    fn services_whose_clients_dns_does_not_move_have_no_buckets() {
        let table = table("");
        let (classes, plan) = dead(&table);
        assert_eq!(BucketShares::new(&classes, &plan, |_| false), BucketShares::default());
        let table = self::table(r#", "shed": "never""#);
        let (classes, plan) = dead(&table);
        assert_eq!(BucketShares::new(&classes, &plan, |_| true), BucketShares::default());
    }
}
