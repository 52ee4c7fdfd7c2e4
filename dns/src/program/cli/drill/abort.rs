//! `bailiwick drill abort`: has a node end a drill. Other nodes and the edge follow it.

use clap::Args;

use super::node::{DrillNode, DrillNodeArgs};
use crate::program::cli::node::Access;
use crate::program::cli::rules::author::reason;
use crate::program::report::Report;

/// Options of `bailiwick drill abort`.
#[derive(Debug, Args)]
pub(crate) struct AbortArgs {
    /// The drill's name in the rules.
    name: String,
    /// Why, in one line. It stands in the report.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    reason: String,
    #[command(flatten)]
    node: DrillNodeArgs,
}

/// Ends a drill.
pub(super) fn abort(args: &AbortArgs) -> Result<Report, Vec<String>> {
    let ended = DrillNode::find(&args.node, Access::Write)?.end(&args.name, &args.reason)?;
    let (name, region) = (&ended.name, &ended.region);
    Ok(Report::fine(format!("{name} is broken off: all clients of {region} come back\n")))
}
