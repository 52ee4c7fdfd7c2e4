//! `bailiwick rules restore`: takes an archive, a document or a node's history, and puts the documents into NATS if the
//! bucket there is missing, empty or older. Newer documents in NATS stay. A head is the small signed document that says
//! which rules are published, by whom and why.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bailiwick_rules::fleet::head::{Head, Stage, sha256_hex};
use bailiwick_rules::time::Timestamp;
use clap::Args;

use super::author::AuthorArgs;
use super::change::texts;
use super::rules_store::{Buckets, Document, Put, RulesStore};
use crate::program::cli::node::{Access, NodeArgs};
use crate::program::config::Config;
use crate::program::report::Report;
use crate::state::load::{compile_rules, read_file};

/// The most revisions that are put back. A bucket keeps no more.
const MOST: usize = 64;

/// Options of `bailiwick rules restore`.
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// A rules document, or a folder that `bailiwick rules archive` wrote.
    #[arg(long, value_name = "PATH", required_unless_present = "api")]
    from: Option<PathBuf>,
    /// The configuration of the publisher: its [fleet.nats] says where NATS is.
    #[arg(long, value_name = "FILE", default_value = "bailiwick.toml")]
    config: PathBuf,
    /// The API of a node whose history is put back: https://ns1.example.com:8053.
    #[arg(long, value_name = "URL", conflicts_with = "from")]
    api: Option<String>,
    /// The file of the token that is sent to that node.
    #[arg(long, value_name = "FILE", requires = "api")]
    token_file: Option<PathBuf>,
    /// Why, for a document that was never published.
    #[arg(long, value_name = "TEXT", default_value = "restored")]
    reason: String,
    #[command(flatten)]
    author: AuthorArgs,
}

/// Puts rules back into NATS.
pub(super) fn restore(args: &RestoreArgs, now: Timestamp) -> Result<Report, Vec<String>> {
    let fleet = Config::read_fleet_in_nats(&args.config).map_err(texts)?.ok_or_else(|| {
        vec![format!("{}: names no NATS; write [fleet] with mode = \"nats\" and [fleet.nats]", args.config.display())]
    })?;
    let mut documents = match (&args.from, &args.api) {
        (Some(path), _) if path.is_dir() => of_archive(path)?,
        (Some(file), _) => BTreeMap::from([of_file(file)?]),
        (None, _) => of_node(args)?,
    };
    let Some((newest, last)) = documents.iter().next_back() else {
        return Err(vec!["there is no rules document to put back".to_owned()]);
    };
    let (newest, digest) = (*newest, sha256_hex(&last.bytes));
    let buckets = Buckets::open(&fleet)?;
    let (head, mut entry) = buckets.prepare()?;
    match &head {
        Some(head) if head.revision == newest && head.sha256 == digest => {
            // The document that the head names may have been deleted or overwritten, so it is written again.
            buckets.put_document(&last.bytes)?;
            return Ok(Report::fine(format!("revision {newest} stands in NATS already, and its document is whole\n")));
        }
        Some(head) if head.revision >= newest => {
            return Err(vec![format!(
                "NATS has revision {}, and what was to be put back ends with {newest}: nothing was changed; publish a \
                 higher revision instead",
                head.revision
            )]);
        }
        _ => {}
    }
    // Only revisions newer than NATS has are put back. A document without a head was never published. The newest gets a
    // new head; earlier ones are left out.
    documents.retain(|revision, document| {
        head.as_ref().is_none_or(|head| *revision > head.revision) && (document.head.is_some() || *revision == newest)
    });
    while documents.len() > MOST {
        documents.pop_first();
    }
    let count = documents.len();
    for (revision, Document { bytes, head }) in documents {
        let head = match head {
            Some(head) => head,
            None => args.author.sign(new_head(args, revision, &bytes, now))?,
        };
        match buckets.put(entry, &head, &bytes)? {
            Put::Stale(other) => {
                return Err(vec![format!(
                    "somebody else has written revision {other} meanwhile; look, then try again"
                )]);
            }
            Put::Unknown(mut errors) => {
                errors.push(format!("whether revision {revision} was put back isn't known; try again"));
                return Err(errors);
            }
            _ => entry = buckets.prepare()?.1,
        }
    }
    Ok(Report::fine(format!("revision {newest} stands in NATS again, with {} before it\n", count.saturating_sub(1))))
}

/// The head of a document that was never published.
fn new_head(args: &RestoreArgs, revision: u64, bytes: &[u8], now: Timestamp) -> Head {
    Head {
        revision,
        sha256: sha256_hex(bytes),
        based_on: None,
        author: args.author.name(),
        reason: args.reason.clone(),
        created_at: now,
        stage: Stage::Rest,
        approvals: Vec::new(),
        impact: None,
        signature: None,
    }
}

/// Reads a document from a file. Returns its revision too.
fn of_file(file: &Path) -> Result<(u64, Document), Vec<String>> {
    let name = file.display().to_string();
    let bytes = read_file(file).map_err(|error| vec![format!("{name}: can't be read ({error})")])?;
    let rules = compile_rules(bytes.clone(), &name);
    let rules = rules.map_err(texts)?;
    Ok((rules.table.revision().number, Document { bytes, head: None }))
}

/// Reads the documents in a folder that `bailiwick rules archive` wrote.
fn of_archive(folder: &Path) -> Result<BTreeMap<u64, Document>, Vec<String>> {
    let name = folder.display();
    let unreadable = |error: std::io::Error| vec![format!("{name}: can't be read ({error})")];
    let mut documents = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let stem = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".json")?.parse::<u64>().ok());
        let Some(revision) = stem else { continue };
        let (revision_inside, document) = of_file(&path)?;
        if revision_inside != revision {
            return Err(vec![format!("{}: holds revision {revision_inside}; rename it or remove it", path.display())]);
        }
        let head = folder.join(format!("{revision}.head.json"));
        let head =
            match head.exists() {
                false => None,
                true => Some(read_file(&head).map_err(unreadable).and_then(|bytes| {
                    Head::parse(&bytes).map_err(|error| vec![format!("{}: {error}", head.display())])
                })?),
            };
        documents.insert(revision, Document { head, ..document });
    }
    Ok(documents)
}

/// Reads the documents that a node has served.
fn of_node(args: &RestoreArgs) -> Result<BTreeMap<u64, Document>, Vec<String>> {
    let node = NodeArgs { config: args.config.clone(), api: args.api.clone(), token_file: args.token_file.clone() };
    let store = RulesStore::find(&node, Access::Read)?;
    let mut documents = BTreeMap::new();
    for entry in store.history()? {
        documents.insert(entry.revision, store.document(entry.revision)?);
    }
    Ok(documents)
}
