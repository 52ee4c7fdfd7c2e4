//! `bailiwick shift`: takes a region and a time; moves the region's clients away on all nodes of a fleet, or back,
//! through the API of any of its nodes.

use bailiwick_rules::health::Status;
use bailiwick_rules::id::RegionId;
use bailiwick_rules::time::{Millis, Timestamp};
use clap::{Args, Subcommand};
use serde_json::json;

use super::drain::{end_override, set_override};
use super::node::NodeArgs;
use crate::program::report::Report;
use crate::text::span::{parse_span, words};

/// What is shifted, and which way.
#[derive(Debug, Subcommand)]
pub(crate) enum ShiftCommand {
    /// Move the clients of a region to the others of their fences, for a while.
    ///
    /// It is refused if it would leave a fence with fewer regions than the guard of its service keeps. The answer names
    /// the fences; --force does it all the same. It ends by itself.
    #[command(after_help = "Examples:
  bailiwick shift away eu-frankfurt --for 2h --reason 'new switches'
  bailiwick shift away eu-frankfurt --for 30m --reason 'fire alarm' --force")]
    Away(AwayArgs),
    /// Let the voters decide again about a region that was shifted away, whichever node was told so.
    #[command(after_help = "Example:
  bailiwick shift back eu-frankfurt")]
    Back(BackArgs),
}

/// Options of `bailiwick shift away`.
#[derive(Debug, Args)]
pub(crate) struct AwayArgs {
    /// The region.
    #[arg(value_name = "REGION")]
    region: String,
    /// For how long: 2h, 90m, 1d, 1h30m. Then the voters decide again.
    #[arg(long = "for", value_name = "SPAN", value_parser = parse_span)]
    span: Millis,
    /// Why, for whoever wonders at three in the morning.
    #[arg(long)]
    reason: String,
    /// Even if a fence is left with fewer regions than its guard keeps.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    node: NodeArgs,
    /// Print what the node answered as JSON.
    #[arg(long)]
    json: bool,
}

/// Options of `bailiwick shift back`.
#[derive(Debug, Args)]
pub(crate) struct BackArgs {
    /// The region.
    #[arg(value_name = "REGION")]
    region: String,
    #[command(flatten)]
    node: NodeArgs,
    /// Print what the node answered as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &ShiftCommand, now: Timestamp) -> Report {
    match command {
        ShiftCommand::Away(args) => away(args, now),
        ShiftCommand::Back(args) => back(args),
    }
}

/// Moves the clients of a region to other regions for a time, on all nodes.
fn away(args: &AwayArgs, now: Timestamp) -> Report {
    let region = match parse(&args.region) {
        Ok(region) => region,
        Err(reported) => return reported,
    };
    let until = now.after(args.span);
    let mut body = json!({ "region": region, "status": Status::Down, "until": until, "reason": args.reason });
    if args.force {
        body["force"] = json!(true);
    }
    set_override(&args.node, &body, args.json, |durability| {
        format!(
            "clients of {region} are shifted away for {}, until {until}; kept {durability}\nThe other nodes follow as \
             they hear of it. End it with: bailiwick shift back {region}\n",
            words(args.span)
        )
    })
}

/// Ends what [`away`] has set.
fn back(args: &BackArgs) -> Report {
    let region = match parse(&args.region) {
        Ok(region) => region,
        Err(reported) => return reported,
    };
    end_override(&args.node, &region, args.json, || {
        format!(
            "{region} is shifted away no longer; probes and voters decide again, on the other nodes as they hear of \
             it\n"
        )
    })
}

fn parse(region: &str) -> Result<RegionId, Report> {
    RegionId::parse(region)
        .ok_or_else(|| Report::misuse(format!("{region:?} is no region; write its name, such as eu-frankfurt")))
}
