//! `bailiwick drain` and `bailiwick undrain`: take a region or an endpoint and a time, and set or delete its override
//! (a forced status) through a node's API.

use std::fmt::Display;

use bailiwick_rules::health::Status;
use bailiwick_rules::id::Overridden;
use bailiwick_rules::time::{Millis, Timestamp};
use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};

use super::node::{Access, Node, NodeArgs};
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

/// Forces a region or an endpoint down on one node until a time.
pub(super) fn drain(args: &DrainArgs, now: Timestamp) -> Report {
    let subject = match parse(&args.of) {
        Ok(subject) => subject,
        Err(reported) => return reported,
    };
    let until = match (args.span, args.until.as_deref().map(|text| parse_moment(text, now)).transpose()) {
        (_, Err(error)) => return Report::misuse(format!("--until: {error}")),
        (span, Ok(until)) => until.unwrap_or_else(|| now.after(span.unwrap_or_default())),
    };
    let mut body = json!({ "region": subject.region, "status": Status::Down, "until": until, "reason": args.reason });
    if let Some(endpoint) = &subject.endpoint {
        body["endpoint"] = json!(endpoint);
    }
    set_override(&args.node, &body, args.json, |durability| {
        format!(
            "{subject} is drained on this node for {}, until {until}; kept {durability}\nEnd it with: \
             bailiwick undrain {subject}\n",
            words(until.since(now))
        )
    })
}

/// Ends what [`drain`] has set.
pub(super) fn undrain(args: &UndrainArgs) -> Report {
    let subject = match parse(&args.of) {
        Ok(subject) => subject,
        Err(reported) => return reported,
    };
    end_override(&args.node, &subject, args.json, || {
        format!("{subject} is drained no longer on this node; its probes decide again\n")
    })
}

/// Asks a node to set an override. `sentence` makes the output from the text that says where the node keeps the
/// override.
pub(super) fn set_override(
    node: &NodeArgs,
    body: &Value,
    is_json: bool,
    sentence: impl FnOnce(&str) -> String,
) -> Report {
    let answer = Node::find(node, Access::Write).and_then(|node| node.ask(Method::POST, "/v1/overrides", Some(body)));
    report_of(answer, is_json, |answer| sentence(answer["kept"].as_str().unwrap_or("nowhere")))
}

/// Asks a node to end an override. `sentence` makes the output.
pub(super) fn end_override(
    node: &NodeArgs,
    of: &impl Display,
    is_json: bool,
    sentence: impl FnOnce() -> String,
) -> Report {
    let path = format!("/v1/overrides/{of}");
    let answer = Node::find(node, Access::Write).and_then(|node| node.ask(Method::DELETE, &path, None));
    report_of(answer, is_json, |_| sentence())
}

fn report_of(answer: Result<Value, Vec<String>>, is_json: bool, sentence: impl FnOnce(&Value) -> String) -> Report {
    match answer {
        Err(errors) => Report::failed(errors),
        Ok(answer) if is_json => Report::fine(format!("{answer:#}\n")),
        Ok(answer) => Report::fine(sentence(&answer)),
    }
}

fn parse(of: &str) -> Result<Overridden, Report> {
    Overridden::parse(of).ok_or_else(|| {
        Report::misuse(format!(
            "{of:?} is no region or endpoint; write eu-frankfurt, or eu-frankfurt/fra-1 for one endpoint"
        ))
    })
}
