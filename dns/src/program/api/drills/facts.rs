//! What a node knows before a drill. Takes one snapshot and the sums of what Workers counted, returns whether the drill
//! may begin. Called by the handlers of `/v1/drills`.

use std::collections::BTreeSet;

use bailiwick_rules::drill::preflight::{Facts, Preflight, preflight};
use bailiwick_rules::id::RegionId;
use bailiwick_rules::load::{Amount, Classes};
use bailiwick_rules::observe::Sums;
use bailiwick_rules::rules::{Drill, Ratio};
use bailiwick_rules::steer::Local;
use bailiwick_rules::table::{RegionIndex, ServiceIndex, Table};
use bailiwick_rules::time::Timestamp;

use super::Api;
use crate::program::api::overrides::in_force;
use crate::state::snapshot::Snapshot;

/// Looks whether a drill may begin now.
pub(super) fn looked(api: &Api, snapshot: &Snapshot, drill: &Drill) -> Preflight {
    let (table, now, local) = (snapshot.table(), api.handle.now(), Local::default());
    let health = snapshot.health();
    let reports = snapshot.load_reports(now);
    let load = |region: &RegionId| reports.get(region).and_then(|report| report.load);
    let unread = reports.iter().filter(|(_, report)| report.load.is_none() || report.missing > 0);
    let (classes, workers) = api.handle.observed().with(|sums| (classes(table, sums, now), sums.isolates(now)));
    let facts = Facts {
        table,
        conditions: &snapshot.conditions(&local, now),
        classes: &classes,
        unread: unread.map(|(region, _)| region.clone()).collect(),
        loads: table.regions().iter().map(|region| load(&region.id)).collect::<Vec<Option<Ratio>>>(),
        nodes: nodes(api, snapshot),
        workers,
        is_blind: health.fleet.as_ref().is_some_and(|fleet| fleet.is_blind),
        under_way: under_way(api, snapshot, now),
        running: health.drill.as_ref().filter(|record| record.is_running(now)),
    };
    preflight(&facts, drill)
}

/// The clients with their demand: as Workers report it, else as the rules state it.
fn classes(table: &Table, sums: &Sums, now: Timestamp) -> Classes {
    let mut classes = Classes::stated(table);
    let counted = sums.demand(now).unwrap_or_default().into_iter().filter_map(|(service, order, amount)| {
        let order = order.iter().map(|region| table.region_named(region.as_str())).collect::<Option<Vec<_>>>()?;
        Some((table.service_named(service.as_str())?, order, amount))
    });
    let counted: Vec<(ServiceIndex, Vec<RegionIndex>, Amount)> = counted.collect();
    if counted.is_empty() {
        return classes;
    }
    let services: BTreeSet<ServiceIndex> = counted.iter().map(|(service, ..)| *service).collect();
    let others = classes.list().iter().filter(|class| !services.contains(&class.service));
    let others: Vec<_> = others.map(|class| (class.service, class.order.clone(), class.demand)).collect();
    classes.observe(table, counted.into_iter().chain(others));
    classes
}

/// How many nodes report lately, and how many there are: the voters of the rules, or else this node and its peers.
fn nodes(api: &Api, snapshot: &Snapshot) -> (usize, usize) {
    if let (Some(rules), Some(fleet)) = (snapshot.table().fleet(), &snapshot.health().fleet) {
        return (fleet.fresh, rules.voters.len());
    }
    api.handle.fleet().with(|known| {
        let heard = known.peers.iter().filter(|peer| peer.trouble.is_none() && peer.answered_at.is_some());
        (1 + heard.count(), 1 + known.peers.len())
    })
}

/// What else is under way that a drill would disturb, or that would spoil what is seen.
fn under_way(api: &Api, snapshot: &Snapshot, now: Timestamp) -> Vec<String> {
    let forced = in_force(snapshot, now).into_iter();
    let forced = forced.map(|one| format!("{} is forced {} until {}: {}", one.of, one.status, one.until, one.reason));
    let is_under_way = |rollout: &&bailiwick_rules::table::Rollout| {
        rollout.rule.progress.as_ref().is_some_and(|progress| progress.ended.is_none())
    };
    let rollouts = snapshot.table().rollouts().iter().filter(is_under_way);
    let rollouts = rollouts.map(|rollout| format!("the rollout {} is under way", rollout.id));
    let awaited = api.handle.status().awaited_revision;
    let awaited = awaited.map(|revision| format!("revision {revision} of the rules is about to come into service"));
    forced.chain(rollouts).chain(awaited).collect()
}
