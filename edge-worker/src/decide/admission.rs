//! Decides whether a tenant's request may be sent at all. Compares the tenant's service tier with the loads of regions,
//! and counts the tenant's requests that are under way. Takes the tenant's limits; returns a [`Slot`], or the failure.
//! Called by `prepare` and by `explained_limits`. An isolate is one instance of the Worker; the platform runs several,
//! which share no memory.
//!
//! This file can only refuse a request. A client's fence (the regions that may process the client) never grows because
//! a region is full.

use std::cell::RefCell;
use std::collections::HashMap;

use bailiwick_rules::id::TenantId;
use bailiwick_rules::rules::Ratio;
use bailiwick_rules::table::{RegionIndex, Table, Tenant};

use crate::decide::envelope::{Failure, Limited};

/// How long a client should wait while its service tier is refused, in milliseconds. The loads of regions are reported
/// about as often.
const CAPACITY_WAIT_MS: u64 = 5_000;

thread_local! {
    /// How many requests of each tenant with a limit are under way in this isolate.
    static UNDER_WAY: RefCell<HashMap<TenantId, u32>> = RefCell::new(HashMap::new());
}

/// A request's place among the tenant's requests that are under way. The place is free again when the slot is dropped.
#[derive(Debug)]
pub(crate) struct Slot(TenantId);

impl Slot {
    /// Takes a slot for a request of this tenant; `None` if the tenant's requests under way aren't limited.
    ///
    /// # Errors
    /// 429 if all slots of the tenant are taken.
    pub(crate) fn take(tenant: &Tenant) -> Result<Option<Self>, Failure> {
        let most = tenant.limits.as_ref().and_then(|limits| limits.concurrency);
        let Some(most) = most else { return Ok(None) };
        UNDER_WAY.with_borrow_mut(|under_way| {
            let count = under_way.entry(tenant.id.clone()).or_insert(0);
            if *count >= most {
                return Err(Failure::Limited(Limited::Concurrency { most }));
            }
            *count += 1;
            Ok(Some(Self(tenant.id.clone())))
        })
    }
}

/// How many requests of a tenant are under way in this isolate; 0 for a tenant without a limit.
pub(crate) fn under_way(tenant: &TenantId) -> u32 {
    UNDER_WAY.with_borrow(|under_way| under_way.get(tenant).copied().unwrap_or(0))
}

impl Drop for Slot {
    fn drop(&mut self) {
        UNDER_WAY.with_borrow_mut(|under_way| {
            if let Some(count) = under_way.get_mut(&self.0) {
                *count -= 1;
                if *count == 0 {
                    under_way.remove(&self.0);
                }
            }
        });
    }
}

/// Refuses a tenant if every region of `regions` is too full for its service tier: the region's load is at least the
/// tier's `refuse_at`. A region whose load is unknown doesn't count as full.
///
/// # Errors
/// 429 with a wait.
pub(crate) fn check_tier(
    table: &Table,
    tenant: &Tenant,
    regions: impl IntoIterator<Item = RegionIndex>,
    load: impl Fn(RegionIndex) -> Option<Ratio>,
) -> Result<(), Failure> {
    let Some(mark) = table.tier_of(tenant).and_then(|(_, tier)| tier.refuse_at) else { return Ok(()) };
    let mut regions = regions.into_iter().peekable();
    let is_full = |region: RegionIndex| load(region).is_some_and(|load| load >= mark);
    if regions.peek().is_some() && regions.all(is_full) {
        return Err(Failure::Limited(Limited::Capacity { wait_ms: CAPACITY_WAIT_MS }));
    }
    Ok(())
}

/// Refuses a tenant of a lower service tier if its request would be served away from home (the best region of its
/// fence) while less than half of the fence's capacity is up. The remaining capacity is for clients who are at home
/// there, and for the highest tier. `fence` has the best region first, and `first` is the region that would be asked
/// first. A region counts only if the rules state its capacity.
///
/// # Errors
/// 429 with a wait.
pub(crate) fn check_scarcity(
    table: &Table,
    tenant: &Tenant,
    fence: &[RegionIndex],
    first: Option<RegionIndex>,
    is_up: impl Fn(RegionIndex) -> bool,
) -> Result<(), Failure> {
    let Some((_, tier)) = table.tier_of(tenant).filter(|(_, tier)| tier.refuse_at.is_some()) else { return Ok(()) };
    if !table.tiers().is_lower(tier) || first.is_none() || first == fence.first().copied() {
        return Ok(());
    }
    let capacity = |region: RegionIndex| table.region(region).capacity();
    let sum = |regions: &mut dyn Iterator<Item = RegionIndex>| -> u64 {
        regions.filter_map(capacity).map(u64::from).fold(0, u64::saturating_add)
    };
    let whole = sum(&mut fence.iter().copied());
    let up = sum(&mut fence.iter().copied().filter(|region| is_up(*region)));
    // Nothing is refused here if no capacity is known, or if no region is up: another failure covers these cases.
    if up > 0 && up < whole - up {
        return Err(Failure::Limited(Limited::Capacity { wait_ms: CAPACITY_WAIT_MS }));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        Table::compile(rules().as_bytes()).unwrap()
    }

    fn rules() -> String {
        let tenant = |key: &str, more: serde_json::Value| {
            let mut tenant = serde_json::json!({ "key_sha256": [key.repeat(64)], "services": ["chat"] });
            tenant.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            tenant
        };
        let rules = serde_json::json!({
            "version": 1, "revision": 1,
            "regions": { "fra": { "countries": ["DE"] }, "par": { "countries": ["FR"] } },
            "tiers": { "gold": { "rank": 0, "refuse_at": 1.2 }, "batch": { "rank": 9, "refuse_at": 0.85 },
                       "always": { "rank": 0 } },
            "services": { "chat": { "hosts": ["chat.example"], "pattern": "active-active", "regions": ["fra", "par"],
                                    "residency": [{ "clients": ["*"], "process_in": ["*"] }] } },
            "tenants": {
                "a-gold": tenant("a", serde_json::json!({ "tier": "gold" })),
                "b-batch": tenant("b", serde_json::json!({ "tier": "batch", "concurrency": 2 })),
                "c-always": tenant("c", serde_json::json!({ "tier": "always" })),
                "d-none": tenant("d", serde_json::json!({})),
            },
        });
        rules.to_string()
    }

    const FRA: RegionIndex = RegionIndex(0);
    const PAR: RegionIndex = RegionIndex(1);

    #[test]
    fn the_lowest_tier_is_refused_first_and_only_if_every_region_is_full() {
        let table = table();
        let refused = |fra: Option<u32>, par: Option<u32>| -> Vec<&str> {
            let load = |region| if region == FRA { fra } else { par }.map(Ratio);
            let is_refused = |tenant: &&Tenant| check_tier(&table, tenant, [FRA, PAR], load).is_err();
            table.tenants().iter().filter(is_refused).map(|tenant| tenant.id.as_str()).collect()
        };
        assert_eq!(refused(Some(849_999), Some(2_000_000)), [""; 0]);
        assert_eq!(refused(Some(850_000), Some(850_000)), ["b-batch"]);
        assert_eq!(refused(Some(1_200_000), Some(1_200_000)), ["a-gold", "b-batch"]);
        assert_eq!(refused(Some(u32::MAX), None), [""; 0], "an unknown load doesn't count as full");
        let batch = &table.tenants()[1];
        let nowhere: [RegionIndex; 0] = [];
        assert_eq!(
            check_tier(&table, batch, nowhere, |_| Some(Ratio(u32::MAX))),
            Ok(()),
            "another failure covers this case"
        );
        assert_eq!(check_tier(&table, batch, [PAR], |_| Some(Ratio(900_000))).unwrap_err().status(), 429);
    }

    #[test]
    fn while_most_of_a_fence_is_down_lower_tiers_are_refused_rather_than_spilled() {
        let mut rules: serde_json::Value = serde_json::from_str(&rules()).unwrap();
        for (region, capacity) in [("fra", 60), ("par", 50)] {
            rules["regions"][region]["load"] = serde_json::json!({ "capacity": capacity });
        }
        let with = |rules: &serde_json::Value| Table::compile(rules.to_string().as_bytes()).unwrap();
        let refused = |table: &Table, first: Option<RegionIndex>, down: &[RegionIndex]| -> Vec<String> {
            let is_up = |region| !down.contains(&region);
            let is_refused = |tenant: &&Tenant| check_scarcity(table, tenant, &[FRA, PAR], first, is_up).is_err();
            table.tenants().iter().filter(is_refused).map(|tenant| tenant.id.to_string()).collect()
        };
        let (table, nobody) = (with(&rules), [""; 0]);
        assert_eq!(refused(&table, Some(PAR), &[FRA]), ["b-batch"], "a capacity of 50 of 110 is up");
        assert_eq!(refused(&table, Some(FRA), &[PAR]), nobody, "the request stays at home");
        assert_eq!(refused(&table, Some(PAR), &[]), nobody, "the request is moved, but all regions are up");
        assert_eq!(refused(&table, None, &[FRA, PAR]), nobody, "no region is offered, which is another failure");
        rules["regions"]["par"]["load"]["capacity"] = 60.into();
        assert_eq!(refused(&with(&rules), Some(PAR), &[FRA]), nobody, "half of the capacity is up, which is enough");
        rules["regions"]["fra"].as_object_mut().unwrap().remove("load");
        assert_eq!(refused(&with(&rules), Some(PAR), &[FRA]), nobody, "the capacity of Frankfurt is unknown");
    }

    #[test]
    fn a_slot_is_free_again_when_its_request_ends() {
        let table = table();
        let [gold, batch, ..] = table.tenants() else { panic!("four tenants") };
        assert!(Slot::take(gold).unwrap().is_none(), "the tenant has no limit");
        let first = Slot::take(batch).unwrap();
        let second = Slot::take(batch).unwrap();
        assert_eq!(Slot::take(batch).unwrap_err(), Failure::Limited(Limited::Concurrency { most: 2 }));
        drop(first);
        assert!(Slot::take(batch).is_ok_and(|slot| slot.is_some()));
        drop(second);
        assert!(UNDER_WAY.with_borrow(HashMap::is_empty));
    }
}
