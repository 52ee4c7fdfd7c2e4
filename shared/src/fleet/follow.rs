//! What a node does about a head or a document that it is offered. A head is a small signed document that names the
//! published rules. Takes the revision that the node has and the offered bytes; returns whether to keep what it has, to
//! fetch the document, to take it, or to refuse it. Called by every transport.
//!
//! Missing or wrong data never changes anything. An absent head, an empty store, a lower revision, and bytes whose
//! digest, signature or rules are wrong all leave the last good document in service.

#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;

use core::fmt;

use sha2::Digest;

use super::head::{Head, HeadError, Stage, Verify};
use crate::json::Violation;
use crate::receipt::PublicKey;
use crate::table::{Revision, Succession, Table};

/// The largest rules document that a node takes from others, in bytes. The edge has the same limit.
pub const LARGEST_DOCUMENT: usize = 8 << 20;

/// Whom a node believes.
#[derive(Clone, Copy, Debug)]
pub struct Trust<'a> {
    /// The keys of those who may publish. If there are none, heads need no signature.
    pub publishers: &'a [PublicKey],
    /// Verifies an Ed25519 signature.
    pub verify: Verify,
}

impl Trust<'_> {
    /// Reads a head, and checks its signature if publishers are named.
    ///
    /// # Errors
    /// Why the head isn't believed.
    pub fn believe(&self, bytes: &[u8]) -> Result<Head, HeadError> {
        let head = Head::parse(bytes)?;
        match self.publishers {
            [] => Ok(head),
            publishers => head.verify(publishers, self.verify).map(|()| head),
        }
    }
}

/// What to do about a head.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HeadStep {
    /// Change nothing.
    Keep(NoChange),
    /// Fetch the document that the head names, and ask [`document`] about it.
    Fetch(Box<Head>),
    /// Keep this head in place of the one that the node has: it names the document in service, with a later stage.
    Note(Box<Head>),
    /// Change nothing, and tell an operator.
    Refuse(Refusal),
}

/// What to do about a document.
#[derive(Debug)]
pub enum DocumentStep {
    /// Change nothing.
    Keep(NoChange),
    /// Serve the document.
    Take(Box<Table>),
    /// Change nothing, and tell an operator.
    Refuse(Refusal),
}

/// Why an offer changes nothing although nothing is wrong with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoChange {
    /// Nothing was offered.
    Absent,
    /// The document is in service already.
    Same,
    /// The offered revision (in the variant) is lower: the store was restored from a backup, or another node is behind.
    Older(u64),
    /// The offered revision (in the variant) isn't meant for this node's stage yet.
    Later(u64),
}

/// Why an offer is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The head isn't believed.
    Head(HeadError),
    /// The offer has the revision in service (in the variant), but other bytes.
    Conflict(u64),
    /// The document is larger than [`LARGEST_DOCUMENT`].
    TooLarge,
    /// The document doesn't have the digest that the head names. It has the head's revision.
    Digest(u64),
    /// The document has another revision than the head names.
    Revision {
        /// The head's revision.
        head: u64,
        /// The document's revision.
        document: u64,
    },
    /// The document has mistakes.
    Rules(Vec<Violation>),
}

impl Refusal {
    /// The labels for metrics, one for each kind.
    pub const LABELS: [&'static str; 6] = ["signature", "conflict", "size", "digest", "revision", "rules"];

    /// The label for metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Head(_) => "signature",
            Self::Conflict(_) => "conflict",
            Self::TooLarge => "size",
            Self::Digest(_) => "digest",
            Self::Revision { .. } => "revision",
            Self::Rules(_) => "rules",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head(error) => write!(f, "the head is refused: {error}"),
            Self::Conflict(number) => write!(
                f,
                "another document with revision {number} is in service; publish this one under a higher number"
            ),
            Self::TooLarge => write!(f, "the document is larger than {} MiB", LARGEST_DOCUMENT >> 20),
            Self::Digest(number) => write!(
                f,
                "the document offered as revision {number} doesn't have the digest that its head names; it was cut or \
                 changed"
            ),
            Self::Revision { head, document } => {
                write!(f, "the head names revision {head}, but its document says {document}; publish it again")
            }
            Self::Rules(violations) => {
                let more = violations.len().saturating_sub(1);
                match violations.first() {
                    Some(first) if more > 0 => write!(f, "the document has mistakes: {first} (and {more} more)"),
                    Some(first) => write!(f, "the document has a mistake: {first}"),
                    None => f.write_str("the document has mistakes"),
                }
            }
        }
    }
}

/// The document that a node has, served or kept.
#[derive(Clone, Copy, Debug, Default)]
pub struct OwnDocument<'a> {
    /// The document's revision; `None` if the node has no document.
    pub revision: Option<Revision>,
    /// The head that came with it, if one did.
    pub head: Option<&'a Head>,
}

impl OwnDocument<'_> {
    /// Whether `head`, which names the same document, replaces the head that this node has. The head with the later
    /// stage counts. A stage is never taken back, so the order in which heads arrive doesn't matter.
    fn is_outdone_by(&self, head: &Head) -> bool {
        let own_head = self.head.filter(|own_head| own_head.names() == self.revision);
        own_head.is_none_or(|own_head| own_head.stage < head.stage)
    }
}

/// What to do about the head that a store or a peer offers; `offered` is `None` if it has no head.
#[must_use]
pub fn head(own: OwnDocument<'_>, offered: Option<&[u8]>, stage: Stage, trust: Trust<'_>) -> HeadStep {
    let Some(bytes) = offered else { return HeadStep::Keep(NoChange::Absent) };
    let head = match trust.believe(bytes) {
        Ok(head) => head,
        Err(error) => return HeadStep::Refuse(Refusal::Head(error)),
    };
    let Some(named_revision) = head.names() else {
        return HeadStep::Refuse(Refusal::Head(HeadError::Form("its sha256 is none".to_owned())));
    };
    match own.revision.map_or(Succession::Newer, |own| own.succession(&named_revision)) {
        Succession::Same if own.is_outdone_by(&head) => HeadStep::Note(Box::new(head)),
        Succession::Same => HeadStep::Keep(NoChange::Same),
        Succession::Older => HeadStep::Keep(NoChange::Older(named_revision.number)),
        Succession::Conflict => HeadStep::Refuse(Refusal::Conflict(named_revision.number)),
        Succession::Newer if stage > head.stage => HeadStep::Keep(NoChange::Later(named_revision.number)),
        Succession::Newer => HeadStep::Fetch(Box::new(head)),
    }
}

/// What to do about a document. `by` is the head that named it; `None` if the document came without a head.
#[must_use]
pub fn document(own: Option<Revision>, by: Option<&Head>, bytes: &[u8]) -> DocumentStep {
    if bytes.len() > LARGEST_DOCUMENT {
        return DocumentStep::Refuse(Refusal::TooLarge);
    }
    // Compiling a document costs far more than hashing it.
    let digest: [u8; 32] = sha2::Sha256::digest(bytes).into();
    match by {
        None if own.is_some_and(|own| own.sha256 == digest) => return DocumentStep::Keep(NoChange::Same),
        Some(head) if head.names().map(|revision| revision.sha256) != Some(digest) => {
            return DocumentStep::Refuse(Refusal::Digest(head.revision));
        }
        _ => {}
    }
    let table = match Table::compile(bytes) {
        Ok(table) => table,
        Err(violations) => return DocumentStep::Refuse(Refusal::Rules(violations)),
    };
    let revision = table.revision();
    if let Some(head) = by
        && head.revision != revision.number
    {
        return DocumentStep::Refuse(Refusal::Revision { head: head.revision, document: revision.number });
    }
    // The node may have taken another document while this one was fetched.
    match own.map_or(Succession::Newer, |own| own.succession(&revision)) {
        Succession::Newer => DocumentStep::Take(Box::new(table)),
        Succession::Same => DocumentStep::Keep(NoChange::Same),
        Succession::Older => DocumentStep::Keep(NoChange::Older(revision.number)),
        Succession::Conflict => DocumentStep::Refuse(Refusal::Conflict(revision.number)),
    }
}

/// Where a node without a document of its own gets its first one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum First {
    /// From the store.
    Store,
    /// From this peer, because it has a higher revision: the store is older than the fleet.
    Peer(usize),
    /// From no peer yet.
    Nobody,
}

/// Where a node without a document of its own gets its first one: from the peer or store that has the highest revision.
/// `store` and `peers` are their revisions, `None` for one that didn't answer. The store wins a tie.
#[must_use]
pub fn first(store: Option<u64>, peers: &[Option<u64>]) -> First {
    let revisions = peers.iter().enumerate().filter_map(|(place, revision)| Some((place, (*revision)?)));
    let highest = revisions.max_by_key(|(place, revision)| (*revision, core::cmp::Reverse(*place)));
    match (store, highest) {
        (Some(store), Some((place, peer))) if peer > store => First::Peer(place),
        (Some(_), _) => First::Store,
        (None, Some((place, _))) => First::Peer(place),
        (None, None) => First::Nobody,
    }
}
