//! Writes the metrics of the access log. Takes what became of its events, writes OpenMetrics. Called by [`super`].

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;

use super::super::accesses::{Accesses, LostAccess};
use super::{counter, gauge, sample};

/// Writes what became of events. Writes nothing if none are sent.
pub(super) fn encode(accesses: &Accesses, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let counts = accesses.read();
    if !counts.is_used {
        return Ok(());
    }
    let help = "Events of the access log that its receiver took";
    sample(&mut counter(encoder, "access_events_taken", help)?, &[], counts.taken)?;
    let help = "Events of the access log that its receiver doesn't have, by reason";
    let mut lost = counter(encoder, "access_events_lost", help)?;
    for reason in LostAccess::ALL.map(LostAccess::as_str) {
        sample(&mut lost, &[("reason", reason)], counts.lost.get(reason).copied().unwrap_or_default())?;
    }
    let help = "1 while the receiver of the access log doesn't take what is sent";
    gauge(encoder, "access_log_failing", help)?.encode_gauge(&u64::from(counts.is_failing))
}
