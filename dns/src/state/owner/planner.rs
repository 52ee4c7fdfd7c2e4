//! Plans which clients are moved to other regions because of load. Takes health, loads and what edge Workers observed,
//! returns the shares in force. A share is the part of a class's clients that is moved to another region. A class is
//! the clients of a service that have the same order of regions. The demand of a class is the number of its requests in
//! flight. Held by the owner, which asks for the shares at every snapshot.

use std::collections::BTreeSet;
use std::sync::Arc;

use bailiwick_host::locate::geoip::Places;
use bailiwick_rules::health::Status;
use bailiwick_rules::id::{RegionId, ServiceId};
use bailiwick_rules::load::{
    Amount, BucketShares, Classes, MeanLoad, Plan, PlanInput, Reading, RegionInput, capacity_of, estimate, plan,
    requests,
};
use bailiwick_rules::observe::Sums;
use bailiwick_rules::report::SharesReport;
use bailiwick_rules::rules::ShedAt;
use bailiwick_rules::steer::{Conditions, Local, Ranking, effective_status};
use bailiwick_rules::table::{Region, RegionIndex, ServiceIndex, Table};
use bailiwick_rules::time::{Millis, Timestamp};

use crate::state::observed::Observed;
use crate::state::snapshot::{self, Health, Rules, Shares, World, endpoints_up};

/// Time between two plans. After a change of health, a plan is made at once.
const INTERVAL: Millis = Millis(5_000);

/// The most orders of regions whose demand is estimated, over all services whose clients DNS moves. The work of a plan
/// grows with their number.
const MOST_ORDERS: usize = 4_096;
/// Each service whose clients DNS moves may have at least this many orders.
const LEAST_ORDERS: usize = 16;

/// The most fences whose shares are reported, for each service whose clients DNS moves.
const MOST_REPORTED: usize = 32;

/// Makes plans, each from the previous plan.
#[derive(Debug)]
pub(super) struct Planner {
    last: Option<LastPlan>,
    observed: Observed,
}

/// A plan, and what it was made from.
#[derive(Debug)]
struct LastPlan {
    rules: Arc<Rules>,
    places: Arc<Places>,
    classes: Classes,
    /// Whether the demand of the classes was counted. Otherwise the demand is what the rules state.
    is_counted: bool,
    plan: Plan,
    /// The estimated demand of services whose clients DNS moves. Requests to those services aren't counted.
    estimated: Arc<[Origin]>,
    /// Whether each region was up, by region index.
    up: Vec<bool>,
    due: Timestamp,
    shares: Shares,
    numbers: Arc<snapshot::PlanFigures>,
}

/// The clients of a service whose fence has the same order of regions, and their demand.
type Origin = (ServiceIndex, Vec<RegionIndex>, Amount);

impl Planner {
    /// A planner that has made no plan yet.
    pub(super) fn new(observed: Observed) -> Self {
        Self { last: None, observed }
    }

    /// The shares in force. Makes a new plan if one is due, or if the rules or the health of a region changed. `None`
    /// if the rules have no capacity, or no clients may be moved.
    pub(super) fn shares(&mut self, world: &World, health: &Health, now: Timestamp) -> Option<Shares> {
        let table = &world.rules().table;
        if !is_planned(table) {
            self.last = None;
            return None;
        }
        let conditions = Conditions { health: &health.regions, local: &Local::default(), now };
        let regions = (0..).map(RegionIndex).zip(table.regions());
        let up = regions.map(|(region, _)| effective_status(table, region, &conditions) != Status::Down).collect();
        let last = self.last.take();
        // If the clock was set back, a new plan is made.
        let is_current =
            |last: &LastPlan| last.is_of(world) && last.up == up && now < last.due && last.due <= now.after(INTERVAL);
        let planned = match last {
            Some(last) if is_current(&last) => last,
            last => self.plan(world, last, health, up, now),
        };
        let shares = planned.shares.clone();
        self.last = Some(planned);
        Some(shares)
    }

    /// Makes a plan from the previous plan, if there is one.
    fn plan(&self, world: &World, last: Option<LastPlan>, health: &Health, up: Vec<bool>, now: Timestamp) -> LastPlan {
        let table = &world.rules().table;
        let regions = region_inputs(table, health, &up, &self.observed, now);
        let input = PlanInput { regions: &regions, interval: between_readings(health) };
        let was_counted = last.as_ref().is_some_and(|last| last.is_counted);
        let (mut classes, before, estimated) = match last {
            Some(last) if last.is_of(world) => (last.classes, Some(last.plan), last.estimated),
            last => {
                let estimated = estimates(world);
                let counted = last.as_ref().filter(|last| last.is_counted).map(|last| by_index(table, last.counted()));
                let classes = first_classes(table, counted, &estimated);
                let carried = last.map(|last| last.plan.carried((&last.rules.table, &last.classes), (table, &classes)));
                (classes, carried, estimated)
            }
        };
        let is_counted =
            self.observed.with(|sums| count_demand(table, &mut classes, &estimated, sums, now)) || was_counted;
        let plan = plan(table, &classes, &input, before.as_ref(), now);
        let shares = Shares {
            report: Arc::new(reported(table, SharesReport::new(table, &classes, &plan, INTERVAL))),
            dns: Arc::new(BucketShares::new(&classes, &plan, |service| is_moved_by_dns(table, service))),
        };
        let (rules, places) = (Arc::clone(world.rules()), Arc::clone(world.places()));
        let numbers = Arc::new(snapshot::PlanFigures::new(table, &classes, &plan, input.regions));
        let due = now.after(INTERVAL);
        LastPlan { rules, places, classes, is_counted, plan, estimated, up, due, shares, numbers }
    }

    /// The plan in force in numbers, for metrics.
    pub(super) fn numbers(&self) -> Option<Arc<snapshot::PlanFigures>> {
        self.last.as_ref().map(|planned| Arc::clone(&planned.numbers))
    }

    /// When the next plan is due.
    pub(super) fn due(&self) -> Option<Timestamp> {
        self.last.as_ref().map(|planned| planned.due)
    }
}

impl LastPlan {
    /// Whether the plan was made with the rules and places of this world.
    fn is_of(&self, world: &World) -> bool {
        Arc::ptr_eq(&self.rules, world.rules()) && Arc::ptr_eq(&self.places, world.places())
    }

    /// The demand of each class, with names in place of indexes. Services whose demand is estimated are left out.
    fn counted(&self) -> impl Iterator<Item = (&ServiceId, Vec<&RegionId>, Amount)> {
        let table = &self.rules.table;
        let estimated = services_of(&self.estimated);
        self.classes.list().iter().filter(move |class| !estimated.contains(&class.service)).map(|class| {
            let order = class.order.iter().map(|region| &table.region(*region).id);
            (&table.service(class.service).id, order.collect(), class.demand)
        })
    }
}

/// Shortens a report. Workers need only the shares of services whose clients the edge moves. Of services whose clients
/// DNS moves, only the fences (orders of regions) with the most clients are reported, for people.
fn reported(table: &Table, mut report: SharesReport) -> SharesReport {
    for (service, classes) in &mut report.services {
        let index = table.service_named(service.as_str());
        if index.is_some_and(|index| is_moved_by_dns(table, index)) {
            classes.truncate(MOST_REPORTED);
        }
    }
    report
}

/// Whether clients of any service may be moved, and the capacity of at least one region is known.
fn is_planned(table: &Table) -> bool {
    table.services().iter().any(|service| service.shedding.moves)
        && table.regions().iter().any(|region| region.capacity().is_some())
}

fn is_moved_by_dns(table: &Table, service: ServiceIndex) -> bool {
    let shedding = &table.service(service).shedding;
    shedding.moves && shedding.at == ShedAt::Dns
}

/// Estimates the demand of services whose clients DNS moves, from the number of addresses that have each order of
/// regions.
fn estimates(world: &World) -> Arc<[Origin]> {
    let table = &world.rules().table;
    let all = || (0..).map(ServiceIndex).zip(table.services()).map(|(index, _)| index);
    let services = || all().filter(|service| is_moved_by_dns(table, *service));
    let most = (MOST_ORDERS / services().count().max(1)).max(LEAST_ORDERS);
    let of_service = |service: ServiceIndex| {
        let classes = world.classes_of(service)?;
        let orders = classes.rankings().iter().map(Ranking::regions).zip(classes.addresses());
        // An order that has no IPv4 addresses may still have clients, so it counts for at least one.
        let orders = orders.map(|(order, addresses)| (order, addresses + 1));
        Some(estimate(table, service, orders, most).into_iter().map(move |(order, demand)| (service, order, demand)))
    };
    services().filter_map(of_service).flatten().collect()
}

/// The first classes under new rules. Their demand is the counted demand, or else the demand that the rules state, and
/// the estimated demand.
fn first_classes(table: &Table, counted: Option<Vec<Origin>>, estimated: &[Origin]) -> Classes {
    let mut classes = Classes::stated(table);
    let services = services_of(estimated);
    let stated = || {
        let others = classes.list().iter().filter(|class| !services.contains(&class.service));
        others.map(|class| (class.service, class.order.clone(), class.demand)).collect()
    };
    let known = counted.unwrap_or_else(stated);
    classes.observe(table, with_estimates(known, estimated));
    classes
}

/// Adds the estimates for services whose demand wasn't counted.
fn with_estimates(counted: Vec<Origin>, estimated: &[Origin]) -> Vec<Origin> {
    let services = services_of(&counted);
    let missing = estimated.iter().filter(|(service, ..)| !services.contains(service)).cloned();
    counted.into_iter().chain(missing).collect()
}

fn services_of(origins: &[Origin]) -> BTreeSet<ServiceIndex> {
    origins.iter().map(|(service, ..)| *service).collect()
}

/// Sets the demand of classes to the counted demand. Returns false if nothing was counted lately; the demand then stays
/// as it was.
fn count_demand(table: &Table, classes: &mut Classes, estimated: &[Origin], sums: &Sums, now: Timestamp) -> bool {
    let Some(counted) = sums.demand(now).filter(|counted| !counted.is_empty()) else { return false };
    let counted = counted.into_iter().map(|(service, order, amount)| (service, order.iter(), amount));
    classes.observe(table, with_estimates(by_index(table, counted), estimated));
    true
}

/// Replaces names by the table's indexes. Entries whose service or region isn't in the rules are left out.
fn by_index<'n>(
    table: &Table,
    counted: impl Iterator<Item = (&'n ServiceId, impl IntoIterator<Item = &'n RegionId>, Amount)>,
) -> Vec<Origin> {
    let by_index = counted.filter_map(|(service, order, amount)| {
        let service: ServiceIndex = table.service_named(service.as_str())?;
        let order = order.into_iter().map(|region| table.region_named(region.as_str()));
        Some((service, order.collect::<Option<Vec<RegionIndex>>>()?, amount))
    });
    by_index.collect()
}

/// The time between two readings of the source that is read least often. A plan trusts a reading for twice as long.
fn between_readings(health: &Health) -> Millis {
    let longest = health.loads.iter().map(|load| load.patience.0 / 2).max().unwrap_or(0);
    Millis(longest).max(INTERVAL)
}

/// The observations of each region. `up` says, by region index, whether the region is up.
fn region_inputs(table: &Table, health: &Health, up: &[bool], observed: &Observed, now: Timestamp) -> Vec<RegionInput> {
    let conditions = Conditions { health: &health.regions, local: &Local::default(), now };
    let of_region = |((index, region), is_up): ((RegionIndex, &Region), &bool)| {
        let endpoints = endpoints_up(table, index, &health.loads, &conditions);
        let stated = region.capacity().map(requests);
        let have_capacity = region.endpoints.iter().any(|(_, endpoint)| endpoint.capacity.is_some());
        let capacity = if have_capacity { capacity_of(&endpoints) } else { stated };
        let fresh = health.loads.iter().filter(|load| load.region == index && load.load(now).is_some());
        let at = fresh.filter_map(|load| load.reading.map(|(at, _)| at)).max();
        let load = MeanLoad::of(&endpoints).load;
        let by_engines =
            load.zip(capacity).zip(at).map(|((load, capacity), at)| Reading { used: load.of(capacity), at });
        let is_drilled = health.drilled.is_some_and(|drilled| drilled.region == index);
        let by_workers = at_endpoints(region, observed, now).map(|used| Reading { used, at: now });
        // The higher reading counts. An engine's queue or cache may be full before its request slots are, or the other
        // way round.
        let reading = [by_engines, by_workers].into_iter().flatten().max_by_key(|reading| reading.used);
        RegionInput { is_up: *is_up, capacity, reading, is_drilled }
    };
    (0..).map(RegionIndex).zip(table.regions()).zip(up).map(of_region).collect()
}

/// How many requests Workers have in flight at a region's endpoints. `None` without recent reports.
fn at_endpoints(region: &Region, observed: &Observed, now: Timestamp) -> Option<Amount> {
    if region.endpoints.is_empty() {
        return None;
    }
    let names = region.endpoints.iter().map(|(name, _)| name);
    observed.with(|sums| names.map(|name| sums.at_endpoint(&region.id, name, now)).sum())
}
