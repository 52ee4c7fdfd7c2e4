//! The place where the rules of a fleet are published: a node that is the writer, or NATS (a message broker). Takes a
//! rules document with its head (who publishes it and why) and the document that it replaces; returns whether it is
//! published. Also reads the document in service and earlier ones. Called by every command that publishes or looks
//! back, also by `bailiwick rollout`.
//!
//! A store does eight things: it returns the document in service; replaces that document, if nobody else did meanwhile;
//! brings it to more nodes; lists the history; returns a document of the history; and returns the gates for a change
//! (limits on its size), the state of every node, and the counts of queries.

mod nats;
mod writer;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bailiwick_rules::fleet::head::{HIGHEST_REVISION, Head, sha256_hex};
use bailiwick_rules::fleet::impact::Queries;

use crate::program::api::publish::Entry;
use crate::program::cli::node::{Access, Node, NodeArgs};
use crate::program::config::Config;
use crate::program::fleet_report::{FleetReport, Limits};

pub(in crate::program::cli) use nats::Buckets;
pub(super) use writer::Writer;

/// If no answer came, how long the store is asked whether it has the document. NATS may store a document after it has
/// let the request time out.
const PATIENCE: Duration = Duration::from_secs(10);
/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(500);

/// The place where rules are published.
pub(in crate::program::cli) enum RulesStore {
    /// On the node that is the writer, by its API.
    Writer(Writer),
    /// In NATS.
    Nats(Box<Buckets>),
}

/// A document with its head, if it has one.
pub(in crate::program::cli) struct Document {
    /// Its bytes.
    pub(in crate::program::cli) bytes: Vec<u8>,
    /// Who published it, and why.
    pub(in crate::program::cli) head: Option<Head>,
}

/// The document in service.
pub(in crate::program::cli) struct Base {
    /// Its revision.
    pub(in crate::program::cli) revision: u64,
    /// Identifies this document. It is replaced only if the store still has the same mark.
    mark: Mark,
    /// The document.
    pub(in crate::program::cli) document: Document,
}

/// Identifies the document in service.
enum Mark {
    /// An entity tag.
    Tag(String),
    /// The number of an entry in a bucket.
    Entry(u64),
}

/// The outcome of publishing a document.
pub(in crate::program::cli) enum Put {
    /// It is published, and the writer serves it.
    Served,
    /// It is published, and nodes take it from there.
    Stored,
    /// It is published; it waits for the first results of its monitors.
    Awaited,
    /// It is published, but the answer that says so was lost.
    Lost,
    /// Not published, because somebody else has published since. This revision is in service now.
    Stale(u64),
    /// No answer came, for these reasons.
    Unknown(Vec<String>),
}

/// The reports of the nodes of a fleet.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    /// The nodes that answered, each by its URL or its name.
    pub(super) answered: BTreeMap<String, FleetReport>,
    /// The nodes that didn't answer.
    pub(super) missing: Vec<String>,
}

impl Base {
    /// The number of the next revision.
    ///
    /// # Errors
    /// When there is none.
    pub(in crate::program::cli) fn next(&self) -> Result<u64, Vec<String>> {
        let next = self.revision.checked_add(1).filter(|next| *next <= HIGHEST_REVISION);
        next.ok_or_else(|| vec![format!("revision {} is the highest there can be", self.revision)])
    }
}

impl RulesStore {
    /// Finds the store by the options: NATS if the configuration's rules come from there and no API is named, else a
    /// node.
    ///
    /// # Errors
    /// What is wrong with the configuration, or that NATS can't be reached.
    pub(in crate::program::cli) fn find(args: &NodeArgs, power: Access) -> Result<Self, Vec<String>> {
        match Config::read_fleet_in_nats(&args.config) {
            Ok(Some(fleet)) if args.api.is_none() => Buckets::open(&fleet).map(|buckets| Self::Nats(Box::new(buckets))),
            Err(errors) if args.api.is_none() => Err(errors.iter().map(ToString::to_string).collect()),
            _ => Node::find(args, power).map(|node| Self::Writer(Writer::new(node))),
        }
    }

    /// What is in service.
    ///
    /// # Errors
    /// When it can't be read.
    pub(in crate::program::cli) fn base(&self) -> Result<Base, Vec<String>> {
        match self {
            Self::Writer(writer) => writer.base(),
            Self::Nats(buckets) => buckets.base(),
        }
    }

    /// Publishes a document in place of the one in service. If the answer is lost, asks the store whether it is there.
    ///
    /// # Errors
    /// Why it isn't published, or that it isn't known whether it is.
    pub(in crate::program::cli) fn put(&self, base: &Base, head: &Head, bytes: Vec<u8>) -> Result<Put, Vec<String>> {
        let put = match (self, &base.mark) {
            (Self::Writer(writer), Mark::Tag(tag)) => writer.put(tag, head, bytes)?,
            (Self::Nats(buckets), Mark::Entry(entry)) => {
                buckets.check_pins(&base.document.bytes, &bytes)?;
                buckets.put(*entry, head, &bytes)?
            }
            _ => return Err(vec!["the document in service was read from another place".to_owned()]),
        };
        match put {
            Put::Unknown(errors) => self.looked_up(head, errors),
            put => Ok(put),
        }
    }

    /// What became of a document whose answer was lost: what is in service tells.
    fn looked_up(&self, head: &Head, mut errors: Vec<String>) -> Result<Put, Vec<String>> {
        let begun = Instant::now();
        loop {
            let read = self.base();
            let is_last = begun.elapsed() >= PATIENCE || matches!(self, Self::Writer(_));
            match read {
                Ok(base) if base.revision == head.revision && sha256_hex(&base.document.bytes) == head.sha256 => {
                    return Ok(Put::Lost);
                }
                Ok(base) if base.revision >= head.revision => return Ok(Put::Stale(base.revision)),
                Ok(base) if is_last => errors.push(match self {
                    Self::Writer(_) => format!("revision {} is in service; this document isn't", base.revision),
                    Self::Nats(_) => format!(
                        "revision {} is in service; this document isn't yet, but may still come: look at `bailiwick \
                         rules history` before you publish again",
                        base.revision
                    ),
                }),
                Err(_) if is_last => errors
                    .push("whether it was published isn't known; `bailiwick rules history` tells later".to_owned()),
                _ => {
                    std::thread::sleep(PAUSE);
                    continue;
                }
            }
            return Err(errors);
        }
    }

    /// Publishes a head that brings the document in service to more nodes. An answer that is lost is looked up.
    ///
    /// # Errors
    /// Why it isn't published, or that nobody knows.
    pub(super) fn put_head(&self, head: &Head) -> Result<(), Vec<String>> {
        match self {
            Self::Writer(writer) => writer.put_head(head),
            Self::Nats(buckets) => buckets.put_head(head),
        }
    }

    /// What a change has to keep to. A node of an earlier version has no limits.
    ///
    /// # Errors
    /// When they can't be read.
    pub(super) fn limits(&self) -> Result<Limits, Vec<String>> {
        match self {
            Self::Writer(writer) => writer.limits(),
            Self::Nats(buckets) => Ok(buckets.limits()),
        }
    }

    /// What every node says of itself.
    ///
    /// # Errors
    /// When nobody can be asked.
    pub(super) fn nodes(&self) -> Result<Nodes, Vec<String>> {
        match self {
            Self::Writer(writer) => writer.nodes(),
            Self::Nats(buckets) => buckets.nodes(),
        }
    }

    /// The queries of the last week. None if none were counted.
    ///
    /// # Errors
    /// When they can't be read.
    pub(super) fn queries(&self) -> Result<Option<Queries>, Vec<String>> {
        match self {
            Self::Writer(writer) => writer.queries(),
            Self::Nats(buckets) => buckets.queries(),
        }
    }

    /// What was in service, the newest first.
    ///
    /// # Errors
    /// When it can't be read.
    pub(super) fn history(&self) -> Result<Vec<Entry>, Vec<String>> {
        match self {
            Self::Writer(writer) => writer.history(),
            Self::Nats(buckets) => buckets.history(),
        }
    }

    /// A document of the history.
    ///
    /// # Errors
    /// When it isn't there or can't be read.
    pub(in crate::program::cli) fn document(&self, revision: u64) -> Result<Document, Vec<String>> {
        match self {
            Self::Writer(writer) => writer.document(revision),
            Self::Nats(buckets) => buckets.document(revision),
        }
    }
}
