//! Computes what happens when a region is lost. Takes classes with their demand, returns for every fence (the regions
//! that may process a client) the demand and the capacity without one of its regions. Called by `bailiwick plan` and by
//! [`super::warnings`].

use std::collections::BTreeMap;

use super::classes::{Classes, as_set};
use super::fill::{Ask, fill};
use super::planning::arrived;
use super::{Amount, Plan, PlanInput, Reading, RegionInput, plan, requests};
use crate::rules::Ratio;
use crate::table::{RegionIndex, Table};
use crate::time::{Millis, Timestamp};

/// The demand and capacity of a fence without one of its regions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FenceLoss {
    /// The regions of the fence, by index.
    pub fence: Vec<RegionIndex>,
    /// The region that is lost; `None` if no region is lost.
    pub lost: Option<RegionIndex>,
    /// The demand of all clients who may not be served outside of this fence.
    pub demand: Amount,
    /// The capacity of the rest of the fence. `None` if the capacity of one of its regions isn't known.
    pub capacity: Option<Amount>,
    /// The demand within this fence for which no region has room, however clients are moved.
    pub refused: Amount,
}

impl FenceLoss {
    /// Demand divided by capacity; `None` if the capacity isn't known.
    #[must_use]
    pub fn load(&self) -> Option<Ratio> {
        Some(Ratio::between(self.demand, self.capacity?))
    }

    /// Whether the other regions can carry the demand: nothing is refused, and their load isn't above `most`. `None` if
    /// the capacity isn't known.
    #[must_use]
    pub fn is_carried(&self, most: Ratio) -> Option<bool> {
        Some(self.load()? <= most && self.refused == 0)
    }
}

/// The loss of every fence: first with all its regions, then without each of its regions that is in `lost`.
#[must_use]
pub fn losses(table: &Table, classes: &Classes, lost: &[RegionIndex]) -> Vec<FenceLoss> {
    let mut fences: BTreeMap<Vec<RegionIndex>, ()> = BTreeMap::new();
    for class in classes.list() {
        fences.insert(as_set(&class.order), ());
    }
    let all_there = refused(table, classes, None);
    let refused_without: BTreeMap<RegionIndex, Vec<Amount>> =
        lost.iter().map(|region| (*region, refused(table, classes, Some(*region)))).collect();
    let mut fence_losses = Vec::new();
    for fence in fences.into_keys() {
        fence_losses.push(loss(table, classes, &fence, None, &all_there));
        for region in fence.iter().filter(|region| refused_without.contains_key(region)) {
            fence_losses.push(loss(table, classes, &fence, Some(*region), &refused_without[region]));
        }
    }
    fence_losses
}

/// The loss of one fence. `refused` is the refused demand of each class.
fn loss(
    table: &Table,
    classes: &Classes,
    fence: &[RegionIndex],
    lost: Option<RegionIndex>,
    refused: &[Amount],
) -> FenceLoss {
    // Clients with a narrower fence count too: they compete for the same regions and have no other region.
    let within = |order: &[RegionIndex]| order.iter().all(|region| fence.binary_search(region).is_ok());
    let inside = || classes.list().iter().zip(refused).filter(|(class, _)| within(&class.order));
    let left = || fence.iter().filter(|region| Some(**region) != lost);
    FenceLoss {
        fence: fence.to_vec(),
        lost,
        demand: inside().map(|(class, _)| class.demand).sum(),
        capacity: left().map(|region| capacity(table, *region)).sum(),
        refused: inside().map(|(_, refused)| refused).sum(),
    }
}

/// The capacity of a region; `None` if it isn't known.
fn capacity(table: &Table, region: RegionIndex) -> Option<Amount> {
    table.region(region).capacity().map(requests)
}

/// For each class, the demand for which no region has room if `lost` is lost. A region of unknown capacity has room for
/// everything.
fn refused(table: &Table, classes: &Classes, lost: Option<RegionIndex>) -> Vec<Amount> {
    let room = |index| {
        let region = RegionIndex::new(index);
        if Some(region) == lost { 0 } else { capacity(table, region).unwrap_or(Amount::MAX >> 16) }
    };
    let mut rooms: Vec<Amount> = (0..table.regions().len()).map(room).collect();
    let is_there = |region: &&RegionIndex| Some(**region) != lost;
    let choices = classes.list().iter().map(|class| match (class.moves, class.leaves_home) {
        (true, _) => class.order.iter().filter(is_there).copied().collect(),
        // Clients that aren't moved because of load go to the nearest region that is up.
        (false, true) => class.order.iter().find(is_there).copied().into_iter().collect(),
        (false, false) => vec![class.home()],
    });
    let choices: Vec<Vec<RegionIndex>> = choices.collect();
    let ask = |(class, choices)| Ask { choices, wanted: class, placed: Vec::new() };
    let mut asks: Vec<Ask<'_>> =
        classes.list().iter().map(|class| class.demand).zip(choices.iter().map(Vec::as_slice)).map(ask).collect();
    fill(&mut asks, &mut rooms);
    asks.iter().map(|ask| ask.wanted).collect()
}

/// The amount that each region carries when a region is lost and the plan no longer changes. Clients that the plan
/// can't place go to the first region of their fence that is up, as without a plan.
#[must_use]
pub fn settled(table: &Table, classes: &Classes, lost: Option<RegionIndex>) -> Vec<Amount> {
    /// A time so long that neither the slew (how fast shares may change) nor delays limit the plan.
    const DAY: Millis = Millis(86_400_000);
    let mut plan_made: Option<Plan> = None;
    let mut now = Timestamp(0);
    for _ in 0..3 {
        let used = carried(table, classes, plan_made.as_ref(), lost, DAY);
        let region = |(index, used): (usize, &Amount)| {
            let region = RegionIndex::new(index);
            let reading = Reading { used: *used, at: now };
            RegionInput::stated(table, region, Some(region) != lost, Some(reading))
        };
        let regions: Vec<RegionInput> = used.iter().enumerate().map(region).collect();
        let input = PlanInput { regions: &regions, interval: Millis(10_000) };
        plan_made = Some(plan(table, classes, &input, plan_made.as_ref(), now));
        now = now.after(DAY);
    }
    carried(table, classes, plan_made.as_ref(), lost, DAY)
}

/// The amount that each region carries some time after a plan was made.
fn carried(
    table: &Table,
    classes: &Classes,
    plan: Option<&Plan>,
    lost: Option<RegionIndex>,
    elapsed: Millis,
) -> Vec<Amount> {
    let mut carried = vec![0; table.regions().len()];
    let arrived = arrived(table, classes, plan, elapsed);
    for (index, class) in classes.list().iter().enumerate() {
        let mut stays = class.demand;
        for planned in arrived.get(index).into_iter().flatten() {
            let moved = planned.reached.min(stays);
            stays -= moved;
            carried[planned.to.get()] += moved;
        }
        let is_up = |region: &&RegionIndex| Some(**region) != lost;
        let first = class.order.iter().find(is_up).filter(|_| class.leaves_home || Some(class.home()) != lost);
        if let Some(first) = first {
            carried[first.get()] += stays;
        }
    }
    carried
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(chat: &str) -> Table {
        let document = r#"{ "version": 1, "revision": 1,
            "jurisdictions": { "eu": { "include": ["EU"] }, "uk": { "countries": ["GB"] } },
            "regions": { "fra": { "countries": ["DE"], "load": { "capacity": 100, "demand": 80 } },
                         "lon": { "countries": ["GB"], "load": { "capacity": 50, "demand": 45 } },
                         "par": { "countries": ["FR"], "load": { "capacity": 100, "demand": 60 } } },
            "services": { "chat": { "hosts": ["chat.example"], "regions": ["fra", "par", "lon"], CHAT,
                "residency": [{ "clients": ["eu"], "process_in": ["eu"] },
                              { "clients": ["uk"], "process_in": ["uk", "eu"] }] } } }"#;
        Table::compile(document.replace("CHAT", chat).as_bytes()).unwrap()
    }

    /// The losses: number of regions in the fence, lost region, load in percent, refused requests.
    fn fence_losses(chat: &str) -> Vec<(usize, String, Option<u32>, Amount)> {
        let table = table(chat);
        let all: Vec<RegionIndex> = (0..3).map(RegionIndex).collect();
        let name = |lost: Option<RegionIndex>| lost.map_or("-".into(), |one| table.region(one).id.to_string());
        losses(&table, &Classes::stated(&table), &all)
            .iter()
            .map(|loss| {
                let percent = loss.load().map(|load| load.0 / 10_000);
                (loss.fence.len(), name(loss.lost), percent, loss.refused / 1_000)
            })
            .collect()
    }

    #[test]
    fn the_demand_of_a_fence_is_that_of_clients_who_may_not_leave_it() {
        let expected = [
            (3, "-".into(), Some(74), 0),
            (3, "fra".into(), Some(123), 40), // London isn't in the fence of clients from the EU
            (3, "lon".into(), Some(92), 0),
            (3, "par".into(), Some(123), 40),
            (2, "-".into(), Some(70), 0),
            (2, "fra".into(), Some(140), 40),
            (2, "par".into(), Some(140), 40),
        ];
        assert_eq!(fence_losses(r#""pattern": "active-active""#), expected);
    }

    #[test]
    fn clients_who_may_not_be_moved_are_refused_when_their_region_is_full() {
        let sharded = fence_losses(r#""pattern": "regional-sharding""#);
        assert_eq!(
            sharded[1],
            (3, "fra".into(), Some(123), 80),
            "with regional sharding clients never leave their home"
        );
        let never = fence_losses(r#""pattern": "active-active", "shed": "never""#);
        assert_eq!(never[2], (3, "lon".into(), Some(92), 5), "all 45 from London go to Paris, which has room for 40");
    }

    #[test]
    fn a_region_of_unknown_capacity_makes_the_load_unknown() {
        let document = r#"{ "version": 1, "revision": 1, "jurisdictions": { "eu": { "include": ["EU"] } },
            "regions": { "fra": { "countries": ["DE"], "load": { "capacity": 10, "demand": 80 } },
                         "par": { "countries": ["FR"] } },
            "services": { "chat": { "hosts": ["chat.example"], "pattern": "active-active", "regions": ["fra", "par"],
                "residency": [{ "clients": ["eu"], "process_in": ["eu"] }] } } }"#;
        let table = Table::compile(document.as_bytes()).unwrap();
        let fence_losses = losses(&table, &Classes::stated(&table), &[RegionIndex(1)]);
        assert_eq!((fence_losses[0].load(), fence_losses[0].is_carried(Ratio::ONE)), (None, None));
        assert_eq!(fence_losses[1].is_carried(Ratio::ONE), Some(false), "without Paris all capacities are known");
    }

    #[test]
    fn the_plan_fills_regions_up_to_their_marks_and_other_clients_go_where_health_sends_them() {
        let table = table(r#""pattern": "active-active""#);
        let classes = Classes::stated(&table);
        let at = |lost: Option<u32>| -> Vec<u64> {
            settled(&table, &classes, lost.map(RegionIndex)).iter().map(|amount| (amount + 500) / 1_000).collect()
        };
        let all_there = at(None);
        assert!((184..=186).contains(&all_there.iter().sum::<u64>()), "the sum of rounded amounts: {all_there:?}");
        assert!(
            (76..=77).contains(&all_there[0]) && all_there[2] >= 63,
            "Frankfurt's clients move to Paris: {all_there:?}"
        );
        assert_eq!(at(Some(0)), [0, 45, 140], "Paris has room for 10 below its mark, but no other region is up");
    }
}
