//! Writes the metrics of a node that takes its rules from peers (other nodes) or from NATS. Takes what this node knows
//! of them, writes OpenMetrics. Called by [`super`].

use std::fmt;

use bailiwick_rules::fleet::follow::Refusal;
use prometheus_client::encoding::DescriptorEncoder;

use super::{counter, gauge, sample};
use crate::state::owner::Handle;

/// Writes whether peers answer, for how long this node may have served old rules, and what it refused. Writes nothing
/// if neither peers nor NATS are configured.
pub(super) fn encode(handle: &Handle, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let now = handle.now();
    handle.fleet().with(|view| {
        if view.peers.is_empty() && view.store.is_none() {
            return Ok(());
        }
        let help = "1 while any other node of the fleet answers, or NATS gives rules no older than those served";
        let connected = u64::from(view.is_connected());
        gauge(encoder, "fleet_connected", help)?.encode_gauge(&connected)?;
        let help = "For how long this node hasn't been known to serve the newest rules";
        gauge(encoder, "fleet_lag_seconds", help)?.encode_gauge(&(view.lag(now).0 / 1000))?;
        let mut refused = counter(encoder, "fleet_refused", "Rules of other nodes that were refused, by reason")?;
        for why in Refusal::LABELS {
            sample(&mut refused, &[("why", why)], view.refused.get(why).copied().unwrap_or_default())?;
        }
        Ok(())
    })
}
