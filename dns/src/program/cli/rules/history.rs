//! `bailiwick rules history`, `show` and `archive`: read the documents that were in service before, and print them or
//! write them into a folder.

use std::path::{Path, PathBuf};

use bailiwick_host::system::files::{Mode, replace};
use bailiwick_rules::fleet::head::Stage;
use clap::Args;

use super::rules_store::RulesStore;
use crate::program::api::publish::{Entry, History};
use crate::program::cli::node::{Access, NodeArgs};
use crate::program::report::Report;

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

/// An entry of the history as one line.
pub(super) fn line(entry: &Entry) -> String {
    match &entry.head {
        Some(head) => {
            let stage = if head.stage == Stage::Rest { String::new() } else { format!(" ({} only)", head.stage) };
            format!("{:>6}  {}  {}: {}{stage}", entry.revision, head.created_at, head.author, head.reason)
        }
        None => format!("{:>6}  by a file", entry.revision),
    }
}

/// The errors for a document that was made from revision `from`, while the newer revision `now` is in service.
pub(super) fn stale(store: &RulesStore, from: u64, now: u64) -> Vec<String> {
    let mut lines = vec![format!(
        "this is based on revision {from}, and revision {now} is in service; take over what came between, then publish \
         again with --based-on {now}"
    )];
    if let Ok(history) = store.history() {
        lines.extend(history.iter().filter(|entry| entry.revision > from).map(line));
    }
    lines
}

/// Lists the history.
pub(super) fn list(args: &HistoryArgs) -> Result<Report, Vec<String>> {
    let revisions = RulesStore::find(&args.node, Access::Read)?.history()?;
    Ok(Report::fine(match args.json {
        true => serde_json::to_string_pretty(&History { revisions }).unwrap_or_default() + "\n",
        false => revisions.iter().map(|entry| line(entry) + "\n").collect(),
    }))
}

/// Prints the document of a revision.
pub(super) fn show(args: &ShowArgs) -> Result<Report, Vec<String>> {
    let document = RulesStore::find(&args.node, Access::Read)?.document(args.revision)?;
    Ok(Report::fine(String::from_utf8_lossy(&document.bytes)))
}

/// Writes all documents of the history into a folder. A head is written as it was signed.
pub(super) fn archive(args: &ArchiveArgs) -> Result<Report, Vec<String>> {
    let store = RulesStore::find(&args.node, Access::Read)?;
    let failed = |path: &Path, error: std::io::Error| vec![format!("{}: can't be written ({error})", path.display())];
    std::fs::create_dir_all(&args.to).map_err(|error| failed(&args.to, error))?;
    let revisions = store.history()?;
    for Entry { revision, .. } in &revisions {
        let (document, file) = (store.document(*revision)?, args.to.join(format!("{revision}.json")));
        replace(&file, &document.bytes, Mode::Public).map_err(|error| failed(&file, error))?;
        if let Some(head) = &document.head {
            let file = args.to.join(format!("{revision}.head.json"));
            replace(&file, &head.to_bytes(), Mode::Public).map_err(|error| failed(&file, error))?;
        }
    }
    Ok(Report::fine(format!("{} revisions in {}\n", revisions.len(), args.to.display())))
}
