//! `bailiwick rules promote` and `abort`. `promote` brings the document in service to the nodes of a later stage (a
//! part of the fleet). `abort` puts the earlier document in its place. `bailiwick rules watch` does both by itself.
//! Which stage a document is for stands in its head, a small signed file beside the document.

use bailiwick_rules::fleet::head::{Head, Stage};
use bailiwick_rules::time::Timestamp;
use clap::Args;

use super::author::{AuthorArgs, reason, stage};
use super::history::stale;
use super::rules_store::{Base, Put, RulesStore};
use crate::program::cli::node::{Access, NodeArgs};
use crate::program::report::Report;

/// Options of `bailiwick rules promote`.
#[derive(Debug, Args)]
pub(crate) struct PromoteArgs {
    /// The stage that it is for from now on: early or rest. Without it the next one.
    #[arg(long, value_name = "STAGE", value_parser = stage)]
    stage: Option<Stage>,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    author: AuthorArgs,
}

/// Options of `bailiwick rules abort`.
#[derive(Debug, Args)]
pub(crate) struct AbortArgs {
    /// Why, in one line. It stands in the history.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    reason: String,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    author: AuthorArgs,
}

/// The head of the document in service, if it isn't for all nodes yet.
fn unfinished(base: &Base) -> Result<&Head, Vec<String>> {
    base.document.head.as_ref().filter(|head| head.stage != Stage::Rest).ok_or_else(|| {
        vec![format!("revision {} is for all nodes already; `bailiwick rules rollback` undoes it", base.revision)]
    })
}

/// Brings the document in service to the nodes of a later stage.
pub(super) fn promote(args: &PromoteArgs) -> Result<Report, Vec<String>> {
    let store = RulesStore::find(&args.node, Access::Write)?;
    let base = store.base()?;
    let head = unfinished(&base)?;
    let later = || Stage::ALL.into_iter().map(|(stage, _)| stage).filter(|stage| *stage > head.stage);
    let to = match args.stage {
        None => later().next().unwrap_or_default(),
        Some(stage) if later().any(|later| later == stage) => stage,
        Some(_) => {
            return Err(vec![format!("revision {} is for nodes of stage {} already", head.revision, head.stage)]);
        }
    };
    bring_to(&store, head, to, &args.author)?;
    Ok(Report::fine(format!("revision {} is for nodes of stage {to} now\n", head.revision)))
}

/// Publishes the same head for a later stage.
///
/// # Errors
/// Why it couldn't be published.
pub(super) fn bring_to(store: &RulesStore, head: &Head, stage: Stage, author: &AuthorArgs) -> Result<(), Vec<String>> {
    store.put_head(&author.sign(Head { stage, signature: None, ..head.clone() })?)
}

/// Gives up the document in service.
pub(super) fn abort(args: &AbortArgs, now: Timestamp) -> Result<Report, Vec<String>> {
    let store = RulesStore::find(&args.node, Access::Write)?;
    let base = store.base()?;
    unfinished(&base)?;
    give_up(&store, &base, &args.reason, &args.author, now).map(|done| Report::fine(done + "\n"))
}

/// Gives up the document in service: publishes, for all nodes, the newest earlier document that was for all nodes.
/// Returns a sentence about that.
///
/// # Errors
/// Why it couldn't be published.
pub(super) fn give_up(
    store: &RulesStore,
    base: &Base,
    reason: &str,
    author: &AuthorArgs,
    now: Timestamp,
) -> Result<String, Vec<String>> {
    let earlier = last_for_all(store, base)?;
    let revision = base.next()?;
    let earlier_bytes = store.document(earlier)?.bytes;
    let (head, bytes) = author.draft((revision, base.revision), &earlier_bytes, reason, now)?;
    match store.put(base, &author.sign(head)?, bytes)? {
        Put::Stale(now) => Err(stale(store, base.revision, now)),
        Put::Unknown(errors) => Err(errors),
        Put::Stored | Put::Served | Put::Awaited | Put::Lost => Ok(format!(
            "revision {} is given up: revision {revision} has the content of {earlier}, for all nodes",
            base.revision
        )),
    }
}

/// The newest revision before the one in service that was for all nodes.
///
/// # Errors
/// That there is no such revision.
pub(in crate::program::cli) fn last_for_all(store: &RulesStore, base: &Base) -> Result<u64, Vec<String>> {
    let is_whole = |stage: Option<Stage>| stage.is_none_or(|stage| stage == Stage::Rest);
    let history = store.history()?;
    let earlier = history
        .iter()
        .filter(|entry| entry.revision < base.revision && is_whole(entry.head.as_ref().map(|head| head.stage)));
    earlier
        .map(|entry| entry.revision)
        .max()
        .ok_or_else(|| vec![format!("the history has nothing before revision {} that all nodes served", base.revision)])
}
