//! Writes the metrics of the plan that moves clients because of load. Takes the numbers of the last plan, writes
//! OpenMetrics. Called by [`super`]. Nothing is planned here, so a scrape costs no more than writing the numbers. A
//! fence is the list of the regions that may process a client's data.

use std::collections::BTreeSet;
use std::fmt;

use bailiwick_rules::rules::Ratio;
use bailiwick_rules::table::{RegionIndex, Table};
use prometheus_client::encoding::DescriptorEncoder;

use super::gauge;
use super::loads::number;
use crate::state::owner::Handle;

/// The most regions of a fence that its label names. The label says how many more there are.
const MAX_NAMED: usize = 8;

/// Writes the moved shares, the loads and marks of regions, and the loads of fences without one of their regions.
/// Writes nothing if there is no plan.
pub(super) fn encode(handle: &Handle, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let snapshot = handle.snapshot_owned();
    let (table, Some(planned)) = (snapshot.table(), &snapshot.health().planned) else { return Ok(()) };
    let name = |region: RegionIndex| table.region(region).id.as_str();
    let help = "Which part of the clients at home in a region the plan moves to another";
    let mut metric = gauge(encoder, "plan_share_ratio", help)?;
    for moved in &planned.moves {
        let labels = [("from", name(moved.from)), ("to", name(moved.to))];
        metric.encode_family(&labels)?.encode_gauge(&number(moved.share))?;
    }
    let help = "What a region would carry if nothing were moved, over its capacity, as the plan has it";
    let mut metric = gauge(encoder, "plan_region_load_ratio", help)?;
    for planned in &planned.regions {
        metric.encode_family(&[("region", name(planned.region))])?.encode_gauge(&number(planned.natural))?;
    }
    let help = "The loads of a region below which it takes clients, and above which it gives them away";
    let mut metric = gauge(encoder, "plan_region_mark_ratio", help)?;
    for planned in &planned.regions {
        for (mark, ratio) in [("low", planned.low), ("high", planned.high)] {
            let labels = [("region", name(planned.region)), ("mark", mark)];
            metric.encode_family(&labels)?.encode_gauge(&number(ratio))?;
        }
    }
    let help = "The demand of a fence now over what it can carry without a region; the highest 256 of 64 fences";
    let mut metric = gauge(encoder, "fence_load_without_region_ratio", help)?;
    let (mut written, mut left_out) = (BTreeSet::new(), planned.margins.left_out);
    for margin in &planned.margins.worst {
        let (fence, lost) = (fence_name(table, &margin.fence), name(margin.lost));
        // If no region is left to carry the demand, the load is infinite.
        let load = if margin.load == Ratio(u32::MAX) { f64::INFINITY } else { number(margin.load) };
        if written.insert((fence.clone(), lost)) {
            metric.encode_family(&[("fence", fence.as_str()), ("lost", lost)])?.encode_gauge(&load)?;
        } else {
            left_out += 1;
        }
    }
    let help = "Pairs of a fence and a lost region that aren't told, because there are too many";
    let left_out = u64::try_from(left_out).unwrap_or(u64::MAX);
    gauge(encoder, "fence_load_without_region_left_out", help)?.encode_gauge(&left_out)
}

/// The label of a fence: its regions, such as `eu-frankfurt+eu-paris`.
fn fence_name(table: &Table, fence: &[RegionIndex]) -> String {
    let names = fence.iter().take(MAX_NAMED).map(|region| table.region(*region).id.as_str());
    let mut name = names.collect::<Vec<_>>().join("+");
    if fence.len() > MAX_NAMED {
        name += &format!("+{} more", fence.len() - MAX_NAMED);
    }
    name
}
