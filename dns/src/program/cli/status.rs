//! `bailiwick status` and `bailiwick overrides`: ask a node's API for its status, and return it as text or JSON.

use anstyle::{AnsiColor, Style};
use bailiwick_rules::health::Status;
use clap::Args;
use reqwest::Method;
use serde_json::Value;

use super::node::{Access, Node, NodeArgs, is_terminal};
use crate::program::node_status::{NodeStatus, overrides_text};
use crate::program::report::Report;

const UP: Style = AnsiColor::Green.on_default();
const DOWN: Style = AnsiColor::Red.on_default().bold();

/// Options of `bailiwick status`, `bailiwick overrides` and `bailiwick fleet status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(super) node: NodeArgs,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// Shows the status of the node. The exit code is 1 if something needs the operator's attention.
pub(super) fn status(args: &StatusArgs) -> Report {
    show_status(args, |json, status| {
        let output = match json {
            Some(json) => json,
            None => status.to_text(&paint(is_terminal())),
        };
        Report { output, is_unwell: !status.is_well(), ..Report::default() }
    })
}

/// Shows the overrides in force.
pub(super) fn overrides(args: &StatusArgs) -> Report {
    show_status(args, |json, status| match (json, status.overrides.is_empty()) {
        (Some(_), _) => match serde_json::to_string_pretty(&status.overrides) {
            Ok(json) => Report::fine(json + "\n"),
            Err(error) => Report::error(error),
        },
        (None, true) => Report::fine("no override is in force\n"),
        (None, false) => Report::fine(overrides_text(&status.overrides, status.now)),
    })
}

/// Asks a node for its status. `tell` makes the output from the JSON, if that is asked for, and from the status.
fn show_status(args: &StatusArgs, tell: impl Fn(Option<String>, &NodeStatus) -> Report) -> Report {
    let node = match Node::find(&args.node, Access::Read) {
        Ok(node) => node,
        Err(errors) => return Report::failed(errors),
    };
    let answer: Value = match node.ask(Method::GET, "/v1/status", None) {
        Ok(answer) => answer,
        Err(errors) => return Report::failed(errors),
    };
    let json = args.json.then(|| serde_json::to_string_pretty(&answer).unwrap_or_default() + "\n");
    match serde_json::from_value(answer) {
        Ok(status) => tell(json, &status),
        Err(error) => {
            Report::error(format!("the node's status can't be understood ({error}); is it of another version?"))
        }
    }
}

/// A function that gives a text the colour of a status, if `colours` is true.
fn paint(colours: bool) -> impl Fn(Status, &str) -> String {
    move |status, text| match status {
        Status::Up if colours => format!("{UP}{text}{UP:#}"),
        Status::Down if colours => format!("{DOWN}{text}{DOWN:#}"),
        _ => text.to_owned(),
    }
}
