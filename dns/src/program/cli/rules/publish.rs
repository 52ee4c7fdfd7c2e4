//! `bailiwick rules publish` and `rollback`: takes a rules document, gives it its revision and its head, and sends it
//! to the writer of a fleet.

use std::path::PathBuf;

use bailiwick_rules::fleet::head::{Head, LONGEST_TEXT, Stage, sha256_hex};
use bailiwick_rules::time::Timestamp;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Args;
use reqwest::header::{CONTENT_TYPE, ETAG, HeaderName, IF_MATCH};
use reqwest::{Method, StatusCode};

use super::document::with_revision;
use super::history::{history, line, shown};
use crate::program::cli::fleet::Publisher;
use crate::program::cli::node::{Exchanged, Node, NodeArgs, Power};
use crate::program::report::Report;
use crate::state::fleet::HEAD;
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
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Who publishes; else the name of this user.
    #[arg(long, value_name = "NAME")]
    author: Option<String>,
    /// The publisher's key, if nodes have trusted_publishers.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Which nodes serve it: canary, early or rest, which is all.
    #[arg(long, value_name = "STAGE", default_value = "rest", value_parser = stage)]
    stage: Stage,
}

fn stage(text: &str) -> Result<Stage, String> {
    Stage::parse(text).ok_or_else(|| "write canary, early or rest".to_owned())
}

/// The document in service: its revision and its entity tag.
struct Base {
    revision: u64,
    tag: String,
}

impl Base {
    fn ask(node: &Node) -> Result<Self, Vec<String>> {
        let answer = node.exchange(Method::GET, "/v1/rules", &[], Vec::new())?.success()?;
        let tag = answer.headers.get(ETAG).and_then(|tag| tag.to_str().ok()).unwrap_or_default().to_owned();
        let revision = tag.trim_matches('"').split('-').next().and_then(|number| number.parse().ok());
        let revision = revision.ok_or_else(|| vec!["the node tells no revision of its rules".to_owned()])?;
        Ok(Self { revision, tag })
    }
}

/// Publishes a document.
pub(super) fn publish(args: &PublishArgs, now: Timestamp) -> Result<Report, Vec<String>> {
    let name = args.file.display().to_string();
    let bytes = read_file(&args.file).map_err(|error| vec![format!("{name}: can't be read ({error})")])?;
    let texts = |faults: Vec<_>| faults.iter().map(ToString::to_string).collect::<Vec<_>>();
    let rules = compile_rules(bytes, &name).map_err(|faults: Vec<crate::state::load::Fault>| texts(faults))?;
    let node = Node::find(&args.how.node, Power::Write)?;
    let base = Base::ask(&node)?;
    if let Some(from) = args.based_on.filter(|from| *from != base.revision) {
        return Err(stale(&node, from, base.revision));
    }
    send(&node, &args.how, &base, (rules.table.revision().number, &rules.bytes), now)
}

/// Publishes the content of an earlier revision.
pub(super) fn rollback(args: &RollbackArgs, now: Timestamp) -> Result<Report, Vec<String>> {
    let node = Node::find(&args.how.node, Power::Write)?;
    let (base, bytes) = (Base::ask(&node)?, shown(&node, args.revision)?);
    if args.revision >= base.revision {
        return Err(vec![format!("revision {} is in service; name an earlier one", base.revision)]);
    }
    send(&node, &args.how, &base, (args.revision, &bytes), now)
}

/// Gives the document its revision and its head, and sends it to the writer.
fn send(
    node: &Node,
    how: &How,
    base: &Base,
    (own, bytes): (u64, &[u8]),
    now: Timestamp,
) -> Result<Report, Vec<String>> {
    let one = |error: &str| vec![error.to_owned()];
    if how.reason.trim().is_empty() || how.reason.chars().count() > LONGEST_TEXT {
        return Err(vec![format!("--reason has to be a line of at most {LONGEST_TEXT} characters, and not empty")]);
    }
    let revision = own.max(base.revision + 1);
    let bytes = with_revision(bytes, revision).ok_or_else(|| one("the document's revision can't be found"))?;
    let head = Head {
        revision,
        sha256: sha256_hex(&bytes),
        based_on: Some(base.revision),
        author: how.author.clone().unwrap_or_else(user),
        reason: how.reason.clone(),
        created_at: now,
        stage: how.stage,
        approvals: Vec::new(),
        impact: None,
        signature: None,
    };
    let head = match &how.key {
        None => head,
        Some(file) => {
            let key = Publisher::read(file).map_err(|error| vec![error])?;
            let signature = key.sign(&head.signed_bytes());
            head.signed(&key.public, &signature)
        }
    };
    let header = URL_SAFE_NO_PAD.encode(head.to_bytes());
    let headers: [(HeaderName, String); 3] =
        [(IF_MATCH, base.tag.clone()), (HEAD, header), (CONTENT_TYPE, "application/json".to_owned())];
    match node.exchange(Method::PUT, "/v1/rules", &headers, bytes) {
        Ok(answer) if answer.status == StatusCode::PRECONDITION_FAILED => {
            Err(stale(node, base.revision, Base::ask(node)?.revision))
        }
        Ok(answer) => told(&answer.success()?, revision),
        // The request may have arrived all the same.
        Err(errors) => unknown(node, &head, errors),
    }
}

fn told(answer: &Exchanged, revision: u64) -> Result<Report, Vec<String>> {
    let in_service = serde_json::from_slice::<serde_json::Value>(&answer.body)
        .is_ok_and(|body| body["in_service"] == serde_json::Value::Bool(true));
    Ok(Report::fine(match in_service {
        true => format!("revision {revision} is published and in service on the writer\n"),
        false => format!("revision {revision} is published; it waits for the first results of its monitors\n"),
    }))
}

/// What became of a request that got no answer: the document in service tells.
fn unknown(node: &Node, head: &Head, mut errors: Vec<String>) -> Result<Report, Vec<String>> {
    match Base::ask(node) {
        Ok(base) if base.tag == format!("\"{}-{}\"", head.revision, head.sha256) => {
            Ok(Report::fine(format!("revision {} is published, though its answer was lost\n", head.revision)))
        }
        Ok(base) => {
            errors.push(format!("revision {} is in service; this document isn't", base.revision));
            Err(errors)
        }
        Err(_) => {
            errors.push("whether it was published isn't known; `bailiwick rules history` tells later".to_owned());
            Err(errors)
        }
    }
}

/// What to tell somebody whose document was made from an older one.
fn stale(node: &Node, from: u64, now: u64) -> Vec<String> {
    let mut lines = vec![format!(
        "this is based on revision {from}, and revision {now} is in service; take over what came between, then publish \
         again with --based-on {now}"
    )];
    if let Ok(history) = history(node) {
        lines.extend(history.revisions.iter().filter(|entry| entry.revision > from).map(line));
    }
    lines
}

/// Who runs this program.
fn user() -> String {
    std::env::var("USER").ok().filter(|name| !name.is_empty()).unwrap_or_else(|| "unknown".to_owned())
}
