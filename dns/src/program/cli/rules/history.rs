//! `bailiwick rules history`, `show` and `archive`: asks a node for what was in service before.

use std::path::{Path, PathBuf};

use clap::Args;
use reqwest::Method;

use crate::program::api::publish::{Entry, History};
use crate::program::cli::node::{Node, NodeArgs, Power};
use crate::program::report::Report;
use crate::system::files::{Mode, replace};

/// Options of `bailiwick rules history`.
#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Options of `bailiwick rules show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The revision.
    revision: u64,
    #[command(flatten)]
    node: NodeArgs,
}

/// Options of `bailiwick rules archive`.
#[derive(Debug, Args)]
pub(crate) struct ArchiveArgs {
    /// The folder. It is made if need be.
    #[arg(long, value_name = "FOLDER")]
    to: PathBuf,
    #[command(flatten)]
    node: NodeArgs,
}

/// What a node keeps of what was in service.
pub(super) fn history(node: &Node) -> Result<History, Vec<String>> {
    let answer = node.exchange(Method::GET, "/v1/rules/history", &[], Vec::new())?.success()?;
    serde_json::from_slice(&answer.body)
        .map_err(|error| vec![format!("the history can't be understood ({error}); is the node of another version?")])
}

/// An entry in one line.
pub(super) fn line(entry: &Entry) -> String {
    match &entry.head {
        Some(head) => format!("{:>6}  {}  {}: {}", entry.revision, head.created_at, head.author, head.reason),
        None => format!("{:>6}  by a file", entry.revision),
    }
}

/// Lists it.
pub(super) fn list(args: &HistoryArgs) -> Result<Report, Vec<String>> {
    let history = history(&Node::find(&args.node, Power::Read)?)?;
    Ok(Report::fine(match args.json {
        true => serde_json::to_string_pretty(&history).unwrap_or_default() + "\n",
        false => history.revisions.iter().map(|entry| line(entry) + "\n").collect(),
    }))
}

/// Prints a document.
pub(super) fn show(args: &ShowArgs) -> Result<Report, Vec<String>> {
    let bytes = shown(&Node::find(&args.node, Power::Read)?, args.revision)?;
    Ok(Report::fine(String::from_utf8_lossy(&bytes)))
}

/// The document of a revision.
pub(super) fn shown(node: &Node, revision: u64) -> Result<Vec<u8>, Vec<String>> {
    let path = format!("/v1/rules/history/{revision}");
    Ok(node.exchange(Method::GET, &path, &[], Vec::new())?.success()?.body)
}

/// Writes all of it into a folder.
pub(super) fn archive(args: &ArchiveArgs) -> Result<Report, Vec<String>> {
    let node = Node::find(&args.node, Power::Read)?;
    let failed = |path: &Path, error: std::io::Error| vec![format!("{}: can't be written ({error})", path.display())];
    std::fs::create_dir_all(&args.to).map_err(|error| failed(&args.to, error))?;
    let history = history(&node)?;
    for entry in &history.revisions {
        let document = args.to.join(format!("{}.json", entry.revision));
        replace(&document, &shown(&node, entry.revision)?, Mode::Public).map_err(|error| failed(&document, error))?;
        if let Some(head) = &entry.head {
            let file = args.to.join(format!("{}.head.json", entry.revision));
            let text = serde_json::to_string_pretty(head).unwrap_or_default() + "\n";
            replace(&file, text.as_bytes(), Mode::Public).map_err(|error| failed(&file, error))?;
        }
    }
    Ok(Report::fine(format!("{} revisions in {}\n", history.revisions.len(), args.to.display())))
}
