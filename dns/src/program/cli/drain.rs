//! `bailiwick drain` and `bailiwick undrain`: take a region or an endpoint and a span, and set or delete its override
//! by a node's API.

use bailiwick_rules::health::Status;
use bailiwick_rules::id::Overridden;
use bailiwick_rules::time::{Millis, Timestamp};
use clap::Args;
use reqwest::Method;
use serde_json::json;

use super::node::{Node, NodeArgs, Power};
use crate::program::report::Report;
use crate::text::span::{parse_moment, parse_span, words};

/// Options of `bailiwick drain`.
#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    /// The region, or one of its endpoints: eu-frankfurt or eu-frankfurt/fra-1.
    #[arg(value_name = "REGION[/ENDPOINT]")]
    of: String,
    /// For how long: 2h, 90m, 1d, 1h30m. Then the probes decide again.
    #[arg(long = "for", value_name = "SPAN", value_parser = parse_span, required_unless_present = "until",
        conflicts_with = "until")]
    span: Option<Millis>,
    /// Until when: 18:00Z (UTC, the next one) or 2026-12-01T18:00:00+01:00.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Why, for whoever wonders at three in the morning.
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    node: NodeArgs,
    /// Print what the node answered as JSON.
    #[arg(long)]
    json: bool,
}

/// Options of `bailiwick undrain`.
#[derive(Debug, Args)]
pub(crate) struct UndrainArgs {
    /// The region, or one of its endpoints.
    #[arg(value_name = "REGION[/ENDPOINT]")]
    of: String,
    #[command(flatten)]
    node: NodeArgs,
    /// Print what the node answered as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn drain(args: &DrainArgs, now: Timestamp) -> Report {
    let of = match parse(&args.of) {
        Ok(of) => of,
        Err(reported) => return reported,
    };
    let until = match (args.span, args.until.as_deref().map(|text| parse_moment(text, now)).transpose()) {
        (_, Err(error)) => return Report::misuse(format!("--until: {error}")),
        (span, Ok(until)) => until.unwrap_or_else(|| now.after(span.unwrap_or_default())),
    };
    let mut body = json!({ "region": of.region, "status": Status::Down, "until": until, "reason": args.reason });
    if let Some(endpoint) = &of.endpoint {
        body["endpoint"] = json!(endpoint);
    }
    let answer =
        Node::find(&args.node, Power::Write).and_then(|node| node.ask(Method::POST, "/v1/overrides", Some(&body)));
    match answer {
        Err(errors) => Report::failed(errors),
        Ok(answer) if args.json => Report::fine(format!("{answer:#}\n")),
        Ok(answer) => Report::fine(format!(
            "{of} is drained on this node for {}, until {until}; kept {}\nEnd it with: bailiwick undrain {of}\n",
            words(until.since(now)),
            answer["kept"].as_str().unwrap_or("nowhere")
        )),
    }
}

pub(super) fn undrain(args: &UndrainArgs) -> Report {
    let of = match parse(&args.of) {
        Ok(of) => of,
        Err(reported) => return reported,
    };
    let path = format!("/v1/overrides/{of}");
    match Node::find(&args.node, Power::Write).and_then(|node| node.ask(Method::DELETE, &path, None)) {
        Err(errors) => Report::failed(errors),
        Ok(answer) if args.json => Report::fine(format!("{answer:#}\n")),
        Ok(_) => Report::fine(format!("{of} is drained no longer on this node; its probes decide again\n")),
    }
}

fn parse(of: &str) -> Result<Overridden, Report> {
    Overridden::parse(of).ok_or_else(|| {
        Report::misuse(format!(
            "{of:?} is no region or endpoint; write eu-frankfurt, or eu-frankfurt/fra-1 for one endpoint"
        ))
    })
}
