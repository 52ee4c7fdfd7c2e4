//! The plan of who is moved because of load. Takes health, loads and what Workers observed, returns the shares that are
//! in force. Held by the owner, which asks at every snapshot.

use std::sync::Arc;

use bailiwick_rules::health::Status;
use bailiwick_rules::id::{RegionId, ServiceId};
use bailiwick_rules::load::{Amount, Classes, MeanLoad, Plan, Reading, RegionSeen, Seen, capacity_of, plan, requests};
use bailiwick_rules::observe::Sums;
use bailiwick_rules::report::SharesReport;
use bailiwick_rules::rules::ShedAt;
use bailiwick_rules::steer::{Conditions, Local, effective_status};
use bailiwick_rules::table::{Region, RegionIndex, ServiceIndex, Table};
use bailiwick_rules::time::{Millis, Timestamp};

use crate::state::observed::Observed;
use crate::state::snapshot::{Health, Rules, endpoints_up};

/// Time between two plans. A change of health has one made at once.
const INTERVAL: Millis = Millis(5_000);

/// Makes plans, one from the other.
#[derive(Debug)]
pub(super) struct Planner {
    last: Option<Planned>,
    observed: Observed,
}

#[derive(Debug)]
struct Planned {
    rules: Arc<Rules>,
    classes: Classes,
    /// Whether the demand of the classes was counted. Otherwise it is what the rules state.
    is_counted: bool,
    plan: Plan,
    /// Which regions were up.
    up: Vec<bool>,
    due: Timestamp,
    told: Arc<SharesReport>,
}

impl Planner {
    /// A planner that has made no plan yet.
    pub(super) fn new(observed: Observed) -> Self {
        Self { last: None, observed }
    }

    /// The shares in force: of a new plan if one is due, or if the rules or the health of a region changed. `None`
    /// where the rules know no capacity, or the edge moves nobody.
    pub(super) fn shares(&mut self, rules: &Arc<Rules>, health: &Health, now: Timestamp) -> Option<Arc<SharesReport>> {
        let table = &rules.table;
        if !is_planned(table) {
            self.last = None;
            return None;
        }
        let (up, regions) = seen(table, health, &self.observed, now);
        let last = self.last.take();
        let same = |last: &Planned| Arc::ptr_eq(&last.rules, rules);
        // A clock that was set back makes no plan wait.
        let waits = |last: &Planned| same(last) && last.up == up && now < last.due && last.due <= now.after(INTERVAL);
        let planned = match last {
            Some(last) if waits(&last) => last,
            last => {
                let was_counted = last.as_ref().is_some_and(|last| last.is_counted);
                let (mut classes, before) = match last {
                    Some(last) if same(&last) => (last.classes, Some(last.plan)),
                    last => {
                        let mut classes = Classes::stated(table);
                        if let Some(last) = last.as_ref().filter(|last| last.is_counted) {
                            observe(table, &mut classes, last.counted());
                        }
                        let carried =
                            last.map(|last| last.plan.carried((&last.rules.table, &last.classes), (table, &classes)));
                        (classes, carried)
                    }
                };
                let is_counted = self.observed.with(|sums| count_demand(table, &mut classes, sums, now)) || was_counted;
                // DNS moves nobody yet. A plan that counted on it would misjudge what regions carry.
                classes.move_only(|service| table.service(service).shedding.at == ShedAt::Edge);
                let seen = Seen { regions: &regions, interval: between_readings(health) };
                let plan = plan(table, &classes, &seen, before.as_ref(), now);
                let told = Arc::new(SharesReport::new(table, &classes, &plan, INTERVAL));
                Planned { rules: Arc::clone(rules), classes, is_counted, plan, up, due: now.after(INTERVAL), told }
            }
        };
        let told = Arc::clone(&planned.told);
        self.last = Some(planned);
        Some(told)
    }

    /// When the next plan is due.
    pub(super) fn due(&self) -> Option<Timestamp> {
        self.last.as_ref().map(|planned| planned.due)
    }
}

impl Planned {
    /// The demand of each class, by names.
    fn counted(&self) -> impl Iterator<Item = (&ServiceId, Vec<&RegionId>, Amount)> {
        let table = &self.rules.table;
        self.classes.list().iter().map(|class| {
            let order = class.order.iter().map(|region| &table.region(*region).id);
            (&table.service(class.service).id, order.collect(), class.demand)
        })
    }
}

/// Whether the edge may move clients of any service, and the capacity of a region is known.
fn is_planned(table: &Table) -> bool {
    table.services().iter().any(|service| service.shedding.moves && service.shedding.at == ShedAt::Edge)
        && table.regions().iter().any(|region| region.load.as_ref().is_some_and(|load| load.capacity.is_some()))
}

/// Sets the demand of classes as it was counted. False if nothing was counted lately: then it stays as it was.
fn count_demand(table: &Table, classes: &mut Classes, sums: &Sums, now: Timestamp) -> bool {
    let Some(counted) = sums.demand(now).filter(|counted| !counted.is_empty()) else { return false };
    observe(table, classes, counted.into_iter().map(|(service, order, amount)| (service, order.iter(), amount)));
    true
}

/// Sets the demand of classes by names. What the rules lack is left out.
fn observe<'n>(
    table: &Table,
    classes: &mut Classes,
    counted: impl Iterator<Item = (&'n ServiceId, impl IntoIterator<Item = &'n RegionId>, Amount)>,
) {
    let by_index = counted.filter_map(|(service, order, amount)| {
        let service: ServiceIndex = table.service_named(service.as_str())?;
        let order = order.into_iter().map(|region| table.region_named(region.as_str()));
        Some((service, order.collect::<Option<Vec<RegionIndex>>>()?, amount))
    });
    classes.observe(table, by_index);
}

/// The time between two readings, for the source that is read least often: a plan trusts a reading for twice as long.
fn between_readings(health: &Health) -> Millis {
    let longest = health.loads.iter().map(|one| one.patience.0 / 2).max().unwrap_or(0);
    Millis(longest).max(INTERVAL)
}

/// Which regions are up, and what is known of each.
fn seen(table: &Table, health: &Health, observed: &Observed, now: Timestamp) -> (Vec<bool>, Vec<RegionSeen>) {
    let conditions = Conditions { health: &health.regions, local: &Local::default(), now };
    let of_region = |(index, region): (RegionIndex, &Region)| {
        let is_up = effective_status(table, index, &conditions) != Status::Down;
        let endpoints = endpoints_up(table, index, &health.loads, &conditions);
        let stated = region.load.as_ref().and_then(|load| load.capacity).map(requests);
        let says = region.endpoints.iter().any(|(_, endpoint)| endpoint.capacity.is_some());
        let capacity = if says { capacity_of(&endpoints) } else { stated };
        let fresh = health.loads.iter().filter(|one| one.region == index && one.load(now).is_some());
        let at = fresh.filter_map(|one| one.reading.map(|(at, _)| at)).max();
        let load = MeanLoad::of(&endpoints).load;
        let by_engines =
            load.zip(capacity).zip(at).map(|((load, capacity), at)| Reading { used: load.of(capacity), at });
        let by_workers = at_endpoints(region, observed, now).map(|used| Reading { used, at: now });
        // The higher counts: a queue or a full cache may be full before all places are taken, and the other way round.
        let reading = [by_engines, by_workers].into_iter().flatten().max_by_key(|reading| reading.used);
        (is_up, RegionSeen { is_up, capacity, reading })
    };
    (0..).map(RegionIndex).zip(table.regions()).map(of_region).unzip()
}

/// How many requests Workers have at a region's endpoints. `None` if they told nothing lately.
fn at_endpoints(region: &Region, observed: &Observed, now: Timestamp) -> Option<Amount> {
    if region.endpoints.is_empty() {
        return None;
    }
    let names = region.endpoints.iter().map(|(name, _)| name);
    observed.with(|sums| names.map(|name| sums.at_endpoint(&region.id, name, now)).sum())
}
