//! The plan of who is moved because of load. Takes health and loads of one moment, returns the shares that are in
//! force. Held by the owner, which asks at every snapshot.

use std::sync::Arc;

use bailiwick_rules::health::Status;
use bailiwick_rules::load::{Classes, MeanLoad, Plan, Reading, RegionSeen, Seen, capacity_of, plan, requests};
use bailiwick_rules::report::SharesReport;
use bailiwick_rules::rules::ShedAt;
use bailiwick_rules::steer::{Conditions, Local, effective_status};
use bailiwick_rules::table::{RegionIndex, Table};
use bailiwick_rules::time::{Millis, Timestamp};

use crate::state::snapshot::{Health, Rules, endpoints_up};

/// Time between two plans. A change of health has one made at once.
const INTERVAL: Millis = Millis(5_000);

/// Makes plans, one from the other.
#[derive(Debug, Default)]
pub(super) struct Planner(Option<Planned>);

#[derive(Debug)]
struct Planned {
    rules: Arc<Rules>,
    classes: Classes,
    plan: Plan,
    /// Which regions were up.
    up: Vec<bool>,
    due: Timestamp,
    told: Arc<SharesReport>,
}

impl Planner {
    /// The shares in force: of a new plan if one is due, or if the rules or the health of a region changed. `None`
    /// where the rules name no source of loads, since nothing moves without a reading.
    pub(super) fn shares(&mut self, rules: &Arc<Rules>, health: &Health, now: Timestamp) -> Option<Arc<SharesReport>> {
        let table = &rules.table;
        if health.loads.is_empty() {
            self.0 = None;
            return None;
        }
        let (up, regions) = seen(table, health, now);
        let last = self.0.take();
        let same = |last: &Planned| Arc::ptr_eq(&last.rules, rules);
        // A clock that was set back makes no plan wait.
        let waits = |last: &Planned| same(last) && last.up == up && now < last.due && last.due <= now.after(INTERVAL);
        let planned = match last {
            Some(last) if waits(&last) => last,
            last => {
                let (classes, before) = match last {
                    Some(last) if same(&last) => (last.classes, Some(last.plan)),
                    last => {
                        let mut classes = Classes::stated(table);
                        // DNS moves nobody yet. A plan that counted on it would misjudge what regions carry.
                        classes.move_only(|service| table.service(service).shedding.at == ShedAt::Edge);
                        let carried =
                            last.map(|last| last.plan.carried((&last.rules.table, &last.classes), (table, &classes)));
                        (classes, carried)
                    }
                };
                let seen = Seen { regions: &regions, interval: between_readings(health) };
                let plan = plan(table, &classes, &seen, before.as_ref(), now);
                let told = Arc::new(SharesReport::new(table, &classes, &plan, INTERVAL));
                Planned { rules: Arc::clone(rules), classes, plan, up, due: now.after(INTERVAL), told }
            }
        };
        let told = Arc::clone(&planned.told);
        self.0 = Some(planned);
        Some(told)
    }

    /// When the next plan is due.
    pub(super) fn due(&self) -> Option<Timestamp> {
        self.0.as_ref().map(|planned| planned.due)
    }
}

/// The time between two readings, for the source that is read least often: a plan trusts a reading for twice as long.
fn between_readings(health: &Health) -> Millis {
    let longest = health.loads.iter().map(|one| one.patience.0 / 2).max().unwrap_or(0);
    Millis(longest).max(INTERVAL)
}

/// Which regions are up, and what is known of each.
fn seen(table: &Table, health: &Health, now: Timestamp) -> (Vec<bool>, Vec<RegionSeen>) {
    let conditions = Conditions { health: &health.regions, local: &Local::default(), now };
    let of_region = |(index, region): (RegionIndex, &bailiwick_rules::table::Region)| {
        let is_up = effective_status(table, index, &conditions) != Status::Down;
        let endpoints = endpoints_up(table, index, &health.loads, &conditions);
        let stated = region.load.as_ref().and_then(|load| load.capacity).map(requests);
        let says = region.endpoints.iter().any(|(_, endpoint)| endpoint.capacity.is_some());
        let capacity = if says { capacity_of(&endpoints) } else { stated };
        let fresh = health.loads.iter().filter(|one| one.region == index && one.load(now).is_some());
        let at = fresh.filter_map(|one| one.reading.map(|(at, _)| at)).max();
        let load = MeanLoad::of(&endpoints).load;
        let reading = load.zip(capacity).zip(at).map(|((load, capacity), at)| Reading { used: load.of(capacity), at });
        (is_up, RegionSeen { is_up, capacity, reading })
    };
    (0..).map(RegionIndex).zip(table.regions()).map(of_region).unzip()
}
