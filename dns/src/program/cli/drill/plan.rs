//! `bailiwick drill plan`: tells the steps of a drill, when it begins by itself, and whether it could begin now.

use std::fmt::Write;

use bailiwick_rules::drill::machine::steps;
use bailiwick_rules::drill::preflight::{Preflight, Verdict};
use bailiwick_rules::drill::told::DrillStatus;
use bailiwick_rules::id::DrillId;
use bailiwick_rules::overview::columns;
use bailiwick_rules::rules::Drill;
use bailiwick_rules::time::Millis;
use clap::Args;
use serde_json::json;

use super::node::{DrillNode, DrillNodeArgs};
use crate::program::cli::node::Access;
use crate::program::report::Report;
use crate::text::span::words;

/// Options of `bailiwick drill plan`.
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// The drill's name in the rules; else all of them.
    name: Option<String>,
    #[command(flatten)]
    node: DrillNodeArgs,
    /// Print what the node answered as JSON.
    #[arg(long)]
    json: bool,
}

/// Tells what drills would do.
pub(super) fn plan(args: &PlanArgs) -> Result<Report, Vec<String>> {
    let node = DrillNode::find(&args.node, Access::Read)?;
    let mut told = node.drills()?;
    if let Some(name) = &args.name {
        let (id, _) = node.drill(name)?;
        told.drills.retain(|one, _| *one == id);
    }
    let is_unwell = told.drills.values().any(|one| one.preflight.verdict != Verdict::Go);
    if args.json {
        return Ok(Report { is_unwell, ..Report::fine(format!("{:#}\n", json!(told))) });
    }
    if told.drills.is_empty() {
        return Ok(Report::fine("the rules have no drill\n"));
    }
    let mut text = String::new();
    for (id, status) in &told.drills {
        let (_, drill) = node.drill(id.as_str())?;
        text += &of_drill(id, &drill, status);
    }
    Ok(Report { is_unwell, ..Report::fine(text) })
}

/// A drill in words.
pub(super) fn of_drill(id: &DrillId, drill: &Drill, status: &DrillStatus) -> String {
    let ramp: Vec<String> =
        steps(drill).iter().map(|step| format!("{} % for {}", step.share, words(step.lasts))).collect();
    let next = match (&drill.weekly, &status.next) {
        (None, _) => "only by hand".to_owned(),
        (Some(weekly), Some(next)) => format!("{weekly} UTC, next {next}"),
        (Some(weekly), None) => format!("{weekly} UTC, but every date is blocked"),
    };
    let mut text = format!(
        "{id}, a drill of {}\n  begins     {next}\n  steps      {}; {} in all\n",
        drill.region,
        ramp.join(", "),
        words(Millis(status.span_ms))
    );
    if !drill.blocked.is_empty() {
        let ranges: Vec<String> = drill.blocked.iter().map(ToString::to_string).collect();
        let _ = writeln!(text, "  blocked    {} (UTC)", ranges.join(", "));
    }
    text + &of_preflight(&status.preflight)
}

/// The look before a drill in words.
pub(super) fn of_preflight(looked: &Preflight) -> String {
    let mut text = format!("  preflight  {}\n", looked.verdict.as_str());
    for reason in &looked.reasons {
        let _ = writeln!(text, "             {reason}");
    }
    let percent = |load: Option<f64>| match load {
        None => "-".to_owned(),
        Some(load) if load > 4_000.0 => "∞".to_owned(),
        Some(load) => format!("{:.0} %", load * 100.0),
    };
    let mut lines = vec![["  region", "load now", "expected", "without it"].map(str::to_owned)];
    lines.extend(
        looked
            .regions
            .iter()
            .map(|one| [format!("  {}", one.region), percent(one.now), percent(one.before), percent(one.during)]),
    );
    columns(&lines, &mut text);
    let mut lines = vec![["  fence", "demand", "without it"].map(str::to_owned)];
    lines.extend(looked.fences.iter().map(|one| {
        let names = one.fence.iter().map(bailiwick_rules::id::RegionId::as_str).collect::<Vec<_>>().join("+");
        [format!("  {names}"), format!("{:.1}", one.demand), percent(one.load)]
    }));
    columns(&lines, &mut text);
    if looked.fences_left_out > 0 {
        let _ = writeln!(text, "  and {} fences that would be less full", looked.fences_left_out);
    }
    text
}
