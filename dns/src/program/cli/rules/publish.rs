//! `bailiwick rules publish` and `rollback`: takes a rules document, gives it its revision and its head, looks at what
//! it changes, and puts it in place of the one in service.

use std::path::PathBuf;

use bailiwick_rules::fleet::head::{Head, LONGEST_TEXT, Stage, sha256_hex};
use bailiwick_rules::fleet::stages::begin;
use bailiwick_rules::time::Timestamp;
use clap::Args;

use super::author::{AuthorArgs, reason, stage};
use super::change::{AcceptArgs, Change, PlaceArgs, texts};
use super::document::with_revision;
use super::history::stale;
use super::truth::{Base, Put, Truth};
use super::watch::{PaceArgs, Rollout, watch};
use crate::program::cli::node::{NodeArgs, Power};
use crate::program::report::Report;
use crate::state::load::{compile_rules, read_file};

/// Options of `bailiwick rules publish`.
#[derive(Debug, Args)]
pub(crate) struct PublishArgs {
    /// The rules document.
    file: PathBuf,
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
    #[command(flatten)]
    how: How,
}

/// How it is published.
#[derive(Debug, Args)]
pub(crate) struct How {
    #[command(flatten)]
    node: NodeArgs,
    /// Why, in one line. It stands in the history.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    reason: String,
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
    watch(&Rollout { node, author, places, pace: args.pace, revision })
}

/// What is to be said, and the revision if it is published.
struct Published {
    report: Report,
    revision: Option<u64>,
}

fn publish_once(args: &PublishArgs, now: Timestamp) -> Result<Published, Vec<String>> {
    let name = args.file.display().to_string();
    let bytes = read_file(&args.file).map_err(|error| vec![format!("{name}: can't be read ({error})")])?;
    let rules = compile_rules(bytes, &name).map_err(texts)?;
    let truth = Truth::find(&args.how.node, Power::Write)?;
    let base = truth.base()?;
    if let Some(from) = args.based_on.filter(|from| *from != base.revision) {
        return Err(stale(&truth, from, base.revision));
    }
    send(&truth, &args.how, &base, (rules.table.revision().number, &rules.bytes), now)
}

/// Publishes the content of an earlier revision.
pub(super) fn rollback(args: &RollbackArgs, now: Timestamp) -> Result<Report, Vec<String>> {
    let truth = Truth::find(&args.how.node, Power::Write)?;
    let (base, earlier) = (truth.base()?, truth.document(args.revision)?);
    if args.revision >= base.revision {
        return Err(vec![format!("revision {} is in service; name an earlier one", base.revision)]);
    }
    send(&truth, &args.how, &base, (args.revision, &earlier.bytes), now).map(|published| published.report)
}

/// Gives the document its revision and its head, looks at what it changes, and publishes it.
fn send(
    truth: &Truth,
    how: &How,
    base: &Base,
    (own, bytes): (u64, &[u8]),
    now: Timestamp,
) -> Result<Published, Vec<String>> {
    let one = |error: &str| vec![error.to_owned()];
    if let Some(head) = base.document.head.as_ref().filter(|head| head.stage != Stage::Rest) {
        return Err(vec![format!(
            "revision {} is for nodes of stage {} yet; bring it to all with `bailiwick rules promote`, or give it up \
             with `bailiwick rules abort`, then publish",
            head.revision, head.stage
        )]);
    }
    let revision = own.max(base.revision + 1);
    let bytes = with_revision(bytes, revision).ok_or_else(|| one("the document's revision can't be found"))?;
    let mut report = Report::default();
    let change = change(truth, how, base, &bytes, now, &mut report.warnings)?;
    if change.is_known {
        report.output = change.impact.to_text() + "\n";
    }
    let shut = change.shut(&truth.limits()?.gates(), how.accept, false);
    if !shut.is_empty() {
        report.errors = shut.iter().map(|one| format!("gate shut: {one}")).collect();
        report.errors.push("it isn't published".to_owned());
        return Ok(Published { report, revision: None });
    }
    let head = Head {
        revision,
        sha256: sha256_hex(&bytes),
        based_on: Some(base.revision),
        author: how.author.name(),
        reason: how.reason.clone(),
        created_at: now,
        stage: begin(&change.impact, how.stage, how.tighten).map_err(|why| vec![why.to_string()])?,
        approvals: Vec::new(),
        impact: change.is_known.then(|| change.impact.to_line(LONGEST_TEXT)),
        signature: None,
    };
    let said = match truth.put(base, &how.author.sign(head)?, bytes)? {
        Put::Stale(now) => return Err(stale(truth, base.revision, now)),
        Put::Served => "is published and in service on the writer",
        Put::Awaited => "is published; it waits for the first results of its monitors",
        Put::Lost => "is published, though its answer was lost",
    };
    report.output += &format!("revision {revision} {said}\n");
    Ok(Published { report, revision: Some(revision) })
}

/// What the document changes for those who are served by the one in service.
fn change(
    truth: &Truth,
    how: &How,
    base: &Base,
    bytes: &[u8],
    now: Timestamp,
    warnings: &mut Vec<String>,
) -> Result<Change, Vec<String>> {
    let old = compile_rules(base.document.bytes.clone(), "the rules in service").map_err(texts)?;
    let new = compile_rules(bytes.to_vec(), "the new rules").map_err(texts)?;
    if how.no_impact {
        return Ok(Change::of_fences(&old.table, &new.table, now));
    }
    let places = how.places.places(&how.node)?;
    if places.all().len() == 1 {
        let warning = "how many clients it concerns isn't known, as no GeoIP database is named; name one by --geoip, \
            or say --no-impact";
        warnings.push(warning.to_owned());
        return Ok(Change::of_fences(&old.table, &new.table, now));
    }
    let queries = truth.queries().unwrap_or_else(|errors| {
        warnings.extend(errors.iter().map(|error| format!("no queries weigh: {error}")));
        None
    });
    Ok(Change::find(&old.table, &new.table, &places, queries.as_ref(), now))
}
