//! `bailiwick rules publish` and `rollback`: take a rules document, give it a revision and a head (who publishes it and
//! why), find what it changes for clients, and put it in the place of the document in service.

use std::path::{Path, PathBuf};

use bailiwick_rules::fleet::head::{Head, LONGEST_TEXT, Stage};
use bailiwick_rules::fleet::stages::begin;
use bailiwick_rules::time::Timestamp;
use clap::Args;

use super::author::{AuthorArgs, reason, stage};
use super::change::{AcceptArgs, Change, PlaceArgs, texts};
use super::history::stale;
use super::proposal::Proposal;
use super::rollouts::{keeps_rollouts, with_rollouts_of};
use super::rules_store::{Base, Put, RulesStore};
use super::watch::{PaceArgs, WatchedRevision, watch};
use crate::program::cli::node::{Access, NodeArgs};
use crate::program::report::Report;
use crate::state::fleet::verify;
use crate::state::load::{compile_rules, read_file};

/// Options of `bailiwick rules publish`.
#[derive(Debug, Args)]
pub(crate) struct PublishArgs {
    /// The rules document, or a proposal that others have approved.
    file: PathBuf,
    /// Why, in one line. It stands in the history. A proposal has its own.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    reason: Option<String>,
    /// Publish nothing; write the document and its head into this file, for others to approve.
    #[arg(long, value_name = "FILE", conflicts_with = "watch")]
    propose: Option<PathBuf>,
    /// The revision that the document was made from; else the one in service.
    #[arg(long, value_name = "REV")]
    based_on: Option<u64>,
    #[command(flatten)]
    how: How,
    /// Then watch it, as `bailiwick rules watch` does.
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    pace: PaceArgs,
}

/// Options of `bailiwick rules rollback`.
#[derive(Debug, Args)]
pub(crate) struct RollbackArgs {
    /// The revision whose content is published again.
    revision: u64,
    /// Why, in one line. It stands in the history.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    reason: String,
    #[command(flatten)]
    how: How,
}

/// How it is published.
#[derive(Debug, Args)]
pub(crate) struct How {
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    author: AuthorArgs,
    /// Which nodes serve it first: canary, early, or rest, which is all. Without it all do.
    #[arg(long, value_name = "STAGE", value_parser = stage)]
    stage: Option<Stage>,
    /// Bring it to all nodes at once, as it makes a fence smaller.
    #[arg(long)]
    tighten: bool,
    #[command(flatten)]
    places: PlaceArgs,
    /// Publish it although nobody knows how many clients it concerns. It opens no gate.
    #[arg(long)]
    no_impact: bool,
    #[command(flatten)]
    accept: AcceptArgs,
}

/// Publishes a document, and watches it if that is wanted.
pub(super) fn publish(args: &PublishArgs, now: Timestamp) -> Result<Report, Vec<String>> {
    let Published { report, revision } = publish_once(args, now)?;
    if !args.watch || revision.is_none() {
        return Ok(report);
    }
    report.print();
    let How { node, author, places, .. } = &args.how;
    watch(&WatchedRevision { node, author, places, pace: args.pace, revision })
}

/// The result of the command, and the revision if the document was published.
struct Published {
    report: Report,
    revision: Option<u64>,
}

/// Publishes a document, or sends a proposal that has enough approvals. Fails if another document was published
/// meanwhile.
fn publish_once(args: &PublishArgs, now: Timestamp) -> Result<Published, Vec<String>> {
    let name = args.file.display().to_string();
    let bytes = read_file(&args.file).map_err(|error| vec![format!("{name}: can't be read ({error})")])?;
    if let Some(proposal) = Proposal::parse(&bytes) {
        if args.propose.is_some() || args.reason.is_some() || args.based_on.is_some() {
            return Err(vec![format!(
                "{name}: is a proposal, which has its reason and its base; leave --propose, --reason and --based-on out"
            )]);
        }
        let store = RulesStore::find(&args.how.node, Access::Write)?;
        let base = store.base()?;
        proposal.check(&base)?;
        return send(&store, &args.how, &base, (proposal.head, proposal.document.into_bytes()), None, now);
    }
    let rules = compile_rules(bytes, &name).map_err(texts)?;
    let reason = args.reason.as_deref().ok_or_else(|| vec!["--reason is missing; say why in a line".to_owned()])?;
    let store = RulesStore::find(&args.how.node, Access::Write)?;
    let base = store.base()?;
    if let Some(from) = args.based_on.filter(|from| *from != base.revision) {
        return Err(stale(&store, from, base.revision));
    }
    keeps_rollouts(&base, &rules.table)?;
    let revision = rules.table.revision().number.max(base.next()?);
    let new = args.how.author.draft((revision, base.revision), &rules.bytes, reason, now)?;
    send(&store, &args.how, &base, new, args.propose.as_deref(), now)
}

/// Publishes the content of an earlier revision.
pub(super) fn rollback(args: &RollbackArgs, now: Timestamp) -> Result<Report, Vec<String>> {
    let store = RulesStore::find(&args.how.node, Access::Write)?;
    let (base, earlier) = (store.base()?, store.document(args.revision)?);
    if args.revision >= base.revision {
        return Err(vec![format!("revision {} is in service; name an earlier one", base.revision)]);
    }
    let revisions = (base.next()?, base.revision);
    let earlier = with_rollouts_of(&base, earlier.bytes)?;
    let new = args.how.author.draft(revisions, &earlier, &args.reason, now)?;
    send(&store, &args.how, &base, new, None, now).map(|published| published.report)
}

/// Finds what a document changes, and publishes it if no gate stays shut. With `propose`, writes it into that file
/// instead, for others to approve.
fn send(
    store: &RulesStore,
    how: &How,
    base: &Base,
    (head, bytes): (Head, Vec<u8>),
    propose: Option<&Path>,
    now: Timestamp,
) -> Result<Published, Vec<String>> {
    if let Some(head) = base.document.head.as_ref().filter(|head| head.stage != Stage::Rest) {
        return Err(vec![format!(
            "revision {} is for nodes of stage {} yet; bring it to all with `bailiwick rules promote`, or give it up \
             with `bailiwick rules abort`, then publish",
            head.revision, head.stage
        )]);
    }
    let mut report = Report::default();
    let places = if how.no_impact { None } else { Some((&how.places, &how.node)) };
    let change = Change::of(store, base, &bytes, places, now, &mut report.warnings)?;
    report.output = match change.is_known {
        true => change.impact.to_text() + "\n",
        false => change.impact.bundles_to_text(),
    };
    let stage = begin(&change.impact, how.stage, how.tighten).map_err(|why| vec![why.to_string()])?;
    let impact = change.is_known.then(|| change.impact.to_line(LONGEST_TEXT));
    // An approval covers the text of the impact too, so an approved head keeps its text.
    let impact = if head.approvals.is_empty() { impact } else { head.impact.clone() };
    let head = how.author.sign(Head { stage, impact, ..head })?;
    let limits = store.limits()?;
    let is_approved = !head.approved_by(&limits.publishers(), verify).is_empty();
    let shut = change.shut(&limits.gates(), how.accept, is_approved);
    if let Some(file) = propose {
        let lines: String = shut.iter().map(|gate| format!("gate shut: {gate}\n")).collect();
        Proposal::new(head, &bytes)?.write(file)?;
        let file = file.display();
        report.output += &format!("{lines}it is proposed in {file}; `bailiwick rules approve {file}` signs it\n");
        return Ok(Published { report, revision: None });
    }
    if !shut.is_empty() {
        report.errors = shut.iter().map(|gate| format!("gate shut: {gate}")).collect();
        report.errors.push("it isn't published".to_owned());
        return Ok(Published { report, revision: None });
    }
    let revision = head.revision;
    let words = match store.put(base, &head, bytes)? {
        Put::Stale(now) => return Err(stale(store, base.revision, now)),
        Put::Stored => "is published; nodes take it within seconds",
        Put::Served => "is published and in service on the writer",
        Put::Awaited => "is published; it waits for the first results of its monitors",
        Put::Lost => "is published, though its answer was lost",
        Put::Unknown(errors) => return Err(errors),
    };
    report.output += &format!("revision {revision} {words}\n");
    Ok(Published { report, revision: Some(revision) })
}
