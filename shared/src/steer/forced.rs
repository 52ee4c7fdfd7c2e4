//! Overrides. Takes the overrides of the node's API and of the rules document, returns the status that counts for a
//! region or an endpoint. Called by `steer`, the edge's plan and the nodes' reports.

use super::{Conditions, earliest};
use crate::health::{Forced, Status};
use crate::rules::Override;
use crate::table::{RegionIndex, Table};
use crate::time::Timestamp;

/// An override in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InForce<'a> {
    /// The status that it forces.
    pub status: Status,
    /// The end of the override.
    pub until: Timestamp,
    /// The reason that the operator gave.
    pub reason: &'a str,
}

/// The override in force. An override of the API counts more than an override of the document.
fn in_force<'a>(
    by_api: Option<&'a Forced>,
    by_rules: impl IntoIterator<Item = &'a Override>,
    now: Timestamp,
) -> Option<InForce<'a>> {
    let by_api = by_api.map(|Forced { status, until, reason }| InForce { status: *status, until: *until, reason });
    let by_rules = by_rules.into_iter().map(|Override { status, until, reason, .. }| InForce {
        status: *status,
        until: *until,
        reason,
    });
    by_api.into_iter().chain(by_rules).find(|in_force| in_force.until > now)
}

/// A region's override in force.
#[must_use]
pub fn forced<'a>(table: &'a Table, region: RegionIndex, conditions: &Conditions<'a>) -> Option<InForce<'a>> {
    let by_api = conditions.health.get(region.get()).and_then(|health| health.forced.as_ref());
    in_force(by_api, table.override_of(region), conditions.now)
}

/// The status that counts: the forced status, or else the probed status.
#[must_use]
pub fn effective_status(table: &Table, region: RegionIndex, conditions: &Conditions<'_>) -> Status {
    let probed = || conditions.health.get(region.get()).map_or(Status::Unknown, |health| health.probed);
    forced(table, region, conditions).map_or_else(probed, |forced| forced.status)
}

/// Whether any endpoint of the region may be forced. This check is cheap, and nearly always `false`.
#[must_use]
pub fn forces_endpoints(table: &Table, region: RegionIndex, conditions: &Conditions<'_>) -> bool {
    table.endpoint_overrides().len() > 0
        || conditions.health.get(region.get()).is_some_and(|health| !health.forced_endpoints.is_empty())
}

/// The override in force of an endpoint, by the endpoint's index in its region.
#[must_use]
#[inline(never)]
pub fn forced_endpoint<'a>(
    table: &'a Table,
    region: RegionIndex,
    position: usize,
    conditions: &Conditions<'a>,
) -> Option<InForce<'a>> {
    let health = conditions.health.get(region.get());
    let by_api = health.and_then(|health| health.forced_endpoints.get(position)?.as_ref());
    endpoint_in_force(table, region, position, by_api, conditions.now)
}

/// As [`forced_endpoint`], for callers that have the override of the API already.
#[must_use]
pub fn endpoint_in_force<'a>(
    table: &'a Table,
    region: RegionIndex,
    position: usize,
    by_api: Option<&'a Forced>,
    now: Timestamp,
) -> Option<InForce<'a>> {
    let by_rules = table.endpoint_overrides().filter(|(of, at, _)| *of == region && *at == position);
    in_force(by_api, by_rules.map(|(_, _, forced)| forced), now)
}

/// The effect of the overrides of a region's endpoints on the region.
pub(super) struct ForcedEndpoints {
    /// Whether all endpoints that could serve are down, forced or by their probes. `None` if no endpoint is forced.
    pub(super) is_down: Option<bool>,
    /// Whether all of these endpoints are forced down, so that the region may not be revived.
    pub(super) is_drained: bool,
    /// The earliest end of these overrides.
    pub(super) until: Option<Timestamp>,
}

/// The effect of overrides of the endpoints that are `able` to serve; these are given by index.
#[inline(never)]
pub(super) fn judge_forced_endpoints(
    table: &Table,
    region: RegionIndex,
    able: impl Iterator<Item = usize>,
    conditions: &Conditions<'_>,
) -> ForcedEndpoints {
    let health = conditions.health.get(region.get());
    let probed = |position: usize| health.and_then(|health| health.endpoints.get(position).copied());
    let (mut any_forced, mut all_down, mut all_forced_down, mut until) = (false, true, true, None);
    for position in able {
        match forced_endpoint(table, region, position, conditions) {
            None => {
                all_forced_down = false;
                all_down &= probed(position) == Some(Status::Down);
            }
            Some(InForce { status, until: ends, .. }) => {
                any_forced = true;
                all_forced_down &= status == Status::Down;
                all_down &= status == Status::Down;
                until = earliest(until, Some(ends));
            }
        }
    }
    ForcedEndpoints { is_down: any_forced.then_some(all_down), is_drained: any_forced && all_forced_down, until }
}
