//! Writes the metrics of the aggregate. Takes what became of it, writes OpenMetrics. Called by [`super`].

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;

use super::super::aggregate::{Aggregated, Lost, Window};
use super::{counter, gauge, sample};
use crate::state::owner::Handle;

/// Writes what became of intervals and requests. Writes nothing if the rules have no `aggregate` and never had.
pub(super) fn encode(aggregated: &Aggregated, handle: &Handle, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let counts = aggregated.read();
    let is_used = handle.snapshot().table().aggregate().is_some();
    if !is_used && counts.windows.is_empty() && counts.lost.is_empty() {
        return Ok(());
    }
    let help = "Intervals of the aggregate in which Workers observed requests, by what became of them";
    let mut windows = counter(encoder, "aggregate_windows", help)?;
    for result in Window::ALL.map(Window::as_str) {
        let count = counts.windows.get(result).copied().unwrap_or_default();
        sample(&mut windows, &[("result", result)], count)?;
    }
    let help = "Requests in the aggregate, by how they are told: by all names, by some only, not at all";
    let mut requests = counter(encoder, "aggregate_requests", help)?;
    for told in ["named", "folded", "withheld"] {
        sample(&mut requests, &[("told", told)], counts.requests.get(told).copied().unwrap_or_default())?;
    }
    let help = "Requests that are missing in the aggregate, by reason";
    let mut lost = counter(encoder, "aggregate_requests_lost", help)?;
    for reason in Lost::ALL.map(Lost::as_str) {
        sample(&mut lost, &[("reason", reason)], counts.lost.get(reason).copied().unwrap_or_default())?;
    }
    let help = "Points of the aggregate that its receiver rejected of those it took";
    sample(&mut counter(encoder, "aggregate_points_rejected", help)?, &[], counts.rejected)?;
    let help = "1 while the receiver of the aggregate doesn't take what is sent";
    gauge(encoder, "aggregate_failing", help)?.encode_gauge(&u64::from(counts.is_failing))
}
