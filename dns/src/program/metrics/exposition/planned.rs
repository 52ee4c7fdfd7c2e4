//! The metrics of the plan because of load. Takes the numbers of the last plan, writes OpenMetrics. Called by
//! [`super`]. Nothing is computed here, so a scrape costs what it writes.

use std::collections::BTreeSet;
use std::fmt;

use bailiwick_rules::rules::Ratio;
use bailiwick_rules::table::{RegionIndex, Table};
use prometheus_client::encoding::DescriptorEncoder;

use super::gauge;
use super::loads::number;
use crate::state::owner::Handle;

/// The most regions that the label of a fence names. Beyond them it says how many there are.
const MAX_NAMED: usize = 8;

/// Shares, loads, marks and what fences carry without a region; nothing where nothing is planned.
pub(super) fn encode(handle: &Handle, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let snapshot = handle.snapshot_owned();
    let (table, Some(planned)) = (snapshot.table(), &snapshot.health().planned) else { return Ok(()) };
    let name = |region: RegionIndex| table.region(region).id.as_str();
    let help = "Which part of the clients at home in a region the plan moves to another";
    let mut metric = gauge(encoder, "plan_share_ratio", help)?;
    for one in &planned.moves {
        metric.encode_family(&[("from", name(one.from)), ("to", name(one.to))])?.encode_gauge(&number(one.share))?;
    }
    let help = "What a region would carry if nothing were moved, over its capacity, as the plan has it";
    let mut metric = gauge(encoder, "plan_region_load_ratio", help)?;
    for one in &planned.regions {
        metric.encode_family(&[("region", name(one.region))])?.encode_gauge(&number(one.natural))?;
    }
    let help = "The loads of a region below which it takes clients, and above which it gives them away";
    let mut metric = gauge(encoder, "plan_region_mark_ratio", help)?;
    for one in &planned.regions {
        for (mark, ratio) in [("low", one.low), ("high", one.high)] {
            let labels = [("region", name(one.region)), ("mark", mark)];
            metric.encode_family(&labels)?.encode_gauge(&number(ratio))?;
        }
    }
    let help = "The demand of a fence now over what it can carry without a region; the highest 256 of 64 fences";
    let mut metric = gauge(encoder, "fence_load_without_region_ratio", help)?;
    let (mut told, mut left_out) = (BTreeSet::new(), planned.margins.left_out);
    for one in &planned.margins.worst {
        let (fence, lost) = (fence_name(table, &one.fence), name(one.lost));
        // Nothing left to carry it is more than any number.
        let load = if one.load == Ratio(u32::MAX) { f64::INFINITY } else { number(one.load) };
        if told.insert((fence.clone(), lost)) {
            metric.encode_family(&[("fence", fence.as_str()), ("lost", lost)])?.encode_gauge(&load)?;
        } else {
            left_out += 1;
        }
    }
    let help = "Pairs of a fence and a lost region that aren't told, because there are too many";
    let left_out = u64::try_from(left_out).unwrap_or(u64::MAX);
    gauge(encoder, "fence_load_without_region_left_out", help)?.encode_gauge(&left_out)
}

/// The regions of a fence: `eu-frankfurt+eu-paris`.
fn fence_name(table: &Table, fence: &[RegionIndex]) -> String {
    let names = fence.iter().take(MAX_NAMED).map(|region| table.region(*region).id.as_str());
    let mut name = names.collect::<Vec<_>>().join("+");
    if fence.len() > MAX_NAMED {
        name += &format!("+{} more", fence.len() - MAX_NAMED);
    }
    name
}
