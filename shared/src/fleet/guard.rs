//! The guards of services. A fence is the regions of a service that may process a client; a guard limits how much of a
//! fence may go down at once because of health. Takes a table, returns its guarded fences; takes what is down and what
//! is to go down, returns which guards forbid that. Called by `super::verdict`, and by the API before an operator takes
//! a region away.

use std::collections::BTreeSet;

use crate::health::Status;
use crate::rules::Guard;
use crate::table::{Fenced, RegionIndex, Service, ServiceIndex, Table};
use crate::time::Timestamp;

/// A fence of a service that has a guard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardedFence {
    /// The service whose guard it is.
    pub service: ServiceIndex,
    /// The service's guard.
    pub guard: Guard,
    /// The regions of the fence.
    pub regions: BTreeSet<RegionIndex>,
    /// Whose fence it is, for people: the end of a sentence, such as "the tenant acme of the service chat".
    pub whose: String,
}

/// What a guard looks at of one region.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct GuardedRegion {
    /// Since when the region is down because of health; `None`: it isn't.
    pub(super) down_since: Option<Timestamp>,
    /// What an operator forces it to be.
    pub(super) forced: Option<Status>,
}

impl GuardedRegion {
    /// Whether the region is in service: neither an operator nor health took it away.
    fn is_left(self) -> bool {
        self.forced.map_or(self.down_since.is_none(), |forced| forced == Status::Up)
    }
}

/// Every fence that the rules of guarded services and their tenants can give. Fences of one service with the same
/// regions are listed once.
#[must_use]
pub fn guarded_fences(table: &Table) -> Vec<GuardedFence> {
    let mut fences: Vec<GuardedFence> = Vec::new();
    let mut known: BTreeSet<(ServiceIndex, BTreeSet<RegionIndex>)> = BTreeSet::new();
    for (index, service) in (0..).map(ServiceIndex).zip(table.services()) {
        let Some(guard) = service.guard else { continue };
        for (whose, fence) in fences_of(table, index, service) {
            let regions: BTreeSet<RegionIndex> = fence.iter().map(|fenced| fenced.region).collect();
            if !regions.is_empty() && known.insert((index, regions.clone())) {
                let whose = format!("{} of the service {}", whose(), service.id);
                fences.push(GuardedFence { service: index, guard, regions, whose });
            }
        }
    }
    fences
}

/// Names the owner of a fence, if the name is needed.
type OwnerName<'t> = Box<dyn Fn() -> String + 't>;

/// The fences of a service, by rules and by tenants, each with a name for messages.
fn fences_of<'t>(
    table: &'t Table,
    index: ServiceIndex,
    service: &'t Service,
) -> impl Iterator<Item = (OwnerName<'t>, &'t [Fenced])> {
    let of_rules = service.residency.iter().enumerate().map(|(number, rule)| {
        let whose: OwnerName<'t> = Box::new(move || format!("the clients of rule {number}"));
        (whose, &rule.fence[..])
    });
    let of_tenants = table.tenants().iter().filter_map(move |tenant| {
        let whose: OwnerName<'t> = Box::new(|| format!("the tenant {}", tenant.id));
        Some((whose, tenant.fence(index)?))
    });
    of_rules.chain(of_tenants)
}

impl GuardedFence {
    /// Whether the guard forbids taking `region` away now. The voters have called the region down since `wanted_since`.
    pub(super) fn is_against(
        &self,
        region: RegionIndex,
        wanted_since: Timestamp,
        standing: impl Fn(RegionIndex) -> GuardedRegion,
        now: Timestamp,
    ) -> bool {
        if !self.regions.contains(&region) || now.since(wanted_since) >= self.guard.window {
            return false;
        }
        let others = || self.regions.iter().filter(|other| **other != region).map(|other| standing(*other));
        let is_recent =
            |standing: &GuardedRegion| standing.down_since.is_some_and(|since| now.since(since) < self.guard.window);
        let newly_down = 1 + others().filter(is_recent).count() as u64;
        let left = others().filter(|standing| standing.is_left()).count();
        newly_down > self.guard.max_down.of(self.regions.len() as u64) || left < self.guard.keep as usize
    }
}

/// The guarded fences that would have fewer regions than their guard keeps if an operator took `region` away, each with
/// the number of regions left. A fence for which the region is down already isn't among them: it would lose nothing.
#[must_use]
pub fn left_short<'f>(
    fences: &'f [GuardedFence],
    region: RegionIndex,
    is_left: impl Fn(RegionIndex) -> bool,
) -> Vec<(&'f GuardedFence, usize)> {
    let short = |fence: &'f GuardedFence| {
        let left = fence.regions.iter().filter(|other| **other != region && is_left(**other)).count();
        let loses = fence.regions.contains(&region) && is_left(region);
        (loses && left < fence.guard.keep as usize).then_some((fence, left))
    };
    fences.iter().filter_map(short).collect()
}
