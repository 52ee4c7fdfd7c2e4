//! `/v1/rollouts`: takes one snapshot and the sums of what Workers counted, returns for each rollout the two arms since
//! its step began, and what stands in the way of going on.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use bailiwick_rules::id::RegionId;
use bailiwick_rules::report::{RolloutReport, RolloutsReport};
use bailiwick_rules::rules::Ratio;
use bailiwick_rules::table::{RegionIndex, Rollout};
use bailiwick_rules::time::Timestamp;

use super::Api;
use super::overrides::in_force;
use crate::state::snapshot::Snapshot;

/// The rollouts of the rules in service.
pub(super) async fn rollouts(State(api): State<Arc<Api>>) -> Json<RolloutsReport> {
    let (snapshot, now) = (api.handle.snapshot_owned(), api.handle.now());
    let table = snapshot.table();
    let rollouts = table.rollouts().iter().map(|rollout| {
        let regions = api.handle.observed().with(|sums| {
            sums.follow(table);
            let of = |id: &RegionId| Some((id.clone(), sums.arms().of(&rollout.id, id)?.clone()));
            rollout.rule.regions.iter().filter_map(of).collect::<BTreeMap<_, _>>()
        });
        let obstacles = obstacles(&snapshot, rollout, now);
        (rollout.id.clone(), RolloutReport { obstacles, regions })
    });
    let (node, revision, rollouts) = (api.node.clone(), table.revision().number, rollouts.collect());
    Json(RolloutsReport { node, at: now, begun: api.begun, revision, rollouts })
}

/// Why a rollout should neither begin nor go on now, each as a clause.
fn obstacles(snapshot: &Snapshot, rollout: &Rollout, now: Timestamp) -> Vec<String> {
    let (table, health) = (snapshot.table(), snapshot.health());
    let service = table.service(rollout.service);
    let name = |region: &RegionIndex| table.region(*region).id.as_str();
    let mut found = Vec::new();
    if health.fleet.as_ref().is_some_and(|fleet| fleet.is_blind) {
        found.push("this node's own line seems to be down".to_owned());
    }
    let is_of_service = |of: &str| {
        let region = of.split('/').next().unwrap_or_default();
        service.regions.iter().any(|one| name(one) == region)
    };
    let overrides = in_force(snapshot, now).into_iter().filter(|forced| is_of_service(&forced.of));
    found.extend(
        overrides.map(|forced| {
            format!("{} is forced {} until {}: {}", forced.of, forced.status, forced.until, forced.reason)
        }),
    );
    let shares = health.shares.as_ref().and_then(|shares| shares.report.services.get(&service.id));
    let moved = shares.into_iter().flatten().find_map(|class| Some((class.from()?, class.moves.first()?)));
    found.extend(moved.map(|(from, to)| format!("clients of {from} are moved to {} because of load", to.to)));
    let margins = health.planned.iter().flat_map(|planned| &planned.margins.worst);
    let full = margins.filter(|one| one.load > Ratio::ONE);
    let mut full = full.filter(|one| rollout.regions.iter().any(|(region, _)| one.fence.contains(region)));
    found.extend(full.next().map(|one| {
        let fence = one.fence.iter().map(name).collect::<Vec<_>>().join("+");
        format!("without {} the fence {fence} would have a load of {}", name(&one.lost), one.load)
    }));
    found
}
