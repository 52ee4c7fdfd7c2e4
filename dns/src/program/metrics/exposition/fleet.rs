//! Writes the metrics of a fleet whose voters (nodes whose health reports count as votes) agree on the health of
//! regions. Takes the state of the agreement, writes OpenMetrics. Called by [`super`].

use std::fmt;

use bailiwick_rules::table::ServiceIndex;
use prometheus_client::encoding::DescriptorEncoder;

use super::gauge;
use crate::state::owner::Handle;

/// Writes the numbers of voters, whether this node is blind (most of its probes fail at once), and the regions that
/// guards keep in service. Writes nothing if the rules name no voters.
pub(super) fn encode(handle: &Handle, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let snapshot = handle.snapshot_owned();
    let (Some(fleet), Some(health)) = (snapshot.table().fleet(), &snapshot.health().fleet) else { return Ok(()) };
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    gauge(encoder, "fleet_voters", "Nodes that vote on health")?.encode_gauge(&count(fleet.voters.len()))?;
    let help = "Voters whose reports are fresh, this node included if it votes";
    gauge(encoder, "fleet_voters_fresh", help)?.encode_gauge(&count(health.fresh))?;
    let help = "1 while most of this node's probes fail at once, so that it votes unknown";
    gauge(encoder, "fleet_blind", help)?.encode_gauge(&u64::from(health.is_blind))?;
    let help = "Regions that the guard of a service has offered although the voters call them down";
    let mut holding = gauge(encoder, "guard_holding", help)?;
    for (index, service) in (0..).map(ServiceIndex).zip(snapshot.table().services()) {
        if service.guard.is_some() {
            let guarded = count(health.guarded(index));
            holding.encode_family(&[("service", service.id.as_str())])?.encode_gauge(&guarded)?;
        }
    }
    Ok(())
}
