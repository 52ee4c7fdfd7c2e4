//! Decides about what others offer, and hands the owner the documents that it should serve. Takes a head and a way to
//! fetch its document, returns what came of it. Called by every transport.

use std::sync::Arc;

use bailiwick_rules::fleet::follow::{self, DocumentStep, HeadStep, Kept, Own, Refusal, Trust, document};
use bailiwick_rules::fleet::head::{Head, HeadError};
use bailiwick_rules::table::Table;

use super::{Settings, record};
use crate::state::owner::{Handle, Offer};
use crate::state::snapshot::Rules;

/// A document, its revision, and its head if whoever offers it has one.
pub(super) type First = (u64, Vec<u8>, Option<Head>);

/// What one place offered last.
#[derive(Default)]
pub(super) struct Seen {
    /// The tag of the document that was looked at. It isn't fetched again.
    pub(super) document: Option<String>,
    /// The tag of a head that waits for this node's turn. All that came before it was looked at, too.
    pub(super) waits_for: Option<String>,
    /// The tag of a document whose head was refused, and why.
    head: Option<(Option<String>, HeadError)>,
}

/// What came of an offered document.
pub(super) enum Weighed {
    /// It is none of this node's business.
    Kept(Kept),
    /// It is in service, and may be brought to more nodes than this one knew.
    Note(Box<Head>),
    /// It is to be served.
    Take(Box<Table>, Vec<u8>, Option<Box<Head>>),
    /// It is refused.
    Refused(Refusal),
}

/// What was done about an offer.
pub(super) enum Outcome {
    /// Nothing.
    Kept(Kept),
    /// The owner has it now.
    Taken,
    /// It was refused, and that was told.
    Refused(Refusal),
}

/// Does what was decided: hands a document to the owner, keeps a head, or counts and tells why not. `from` says who
/// offers it, `tag` tells this offer from others of the same place.
pub(super) async fn settle(
    handle: &Handle,
    seen: &mut Seen,
    from: &str,
    tag: Option<String>,
    weighed: Weighed,
) -> Outcome {
    if !matches!(weighed, Weighed::Refused(Refusal::Head(_))) {
        seen.head = None;
    }
    match weighed {
        // The turn of a later stage may come while the document stays the same.
        Weighed::Kept(kept @ Kept::Later(_)) => {
            seen.waits_for = tag;
            Outcome::Kept(kept)
        }
        Weighed::Kept(kept) => {
            seen.document = tag;
            Outcome::Kept(kept)
        }
        Weighed::Note(head) => {
            record::note(handle, &head);
            Outcome::Kept(Kept::Same)
        }
        Weighed::Take(table, bytes, head) => {
            let (revision, now) = (table.revision().number, handle.now());
            handle.fleet().with(|known| known.offer(revision, head.map(|head| *head), now));
            handle.offer(Offer::Rules(Arc::new(Rules { table: *table, bytes: bytes.into() }))).await;
            // If it doesn't fit this node's zones, it stays the owner's to try again.
            seen.document = tag;
            Outcome::Taken
        }
        // It is told once. The document may get a good head meanwhile, so it is asked for again.
        Weighed::Refused(Refusal::Head(error)) if seen.head.as_ref() == Some(&(tag.clone(), error.clone())) => {
            Outcome::Refused(Refusal::Head(error))
        }
        Weighed::Refused(refusal) => {
            let now = handle.now();
            handle.fleet().with(|known| known.refuse(from, &refusal, now));
            tracing::error!(
                json.event = "fleet_refused", peer = from, json.reason = %refusal,
                "{from}: refused, the last good stays in service: {refusal}"
            );
            match &refusal {
                Refusal::Head(error) => seen.head = Some((tag, error.clone())),
                _ => seen.document = tag,
            }
            Outcome::Refused(refusal)
        }
    }
}

/// Decides about the head of a document that this node knows. Only that of the document in service may say more.
pub(super) fn of_same(own: Own<'_>, head: Option<&[u8]>, settings: &Settings) -> Weighed {
    match follow::head(own, head, settings.stage, settings.trust()) {
        HeadStep::Note(head) => Weighed::Note(head),
        HeadStep::Refuse(Refusal::Head(error)) => Weighed::Refused(Refusal::Head(error)),
        HeadStep::Keep(_) | HeadStep::Fetch(_) | HeadStep::Refuse(_) => Weighed::Kept(Kept::Same),
    }
}

/// Decides about a document that is offered to a node that has `own`. It is fetched only if its head is good.
///
/// # Errors
/// Why it can't be fetched.
pub(super) async fn weigh(
    own: Own<'_>,
    head: Option<&[u8]>,
    settings: &Settings,
    fetch: impl Future<Output = Result<Vec<u8>, String>>,
) -> Result<Weighed, String> {
    let trust: Trust<'_> = settings.trust();
    let head = match (head, trust.publishers) {
        (None, []) => None,
        (None, _) => return Ok(Weighed::Refused(Refusal::Head(HeadError::Unsigned))),
        (Some(bytes), _) => match follow::head(own, Some(bytes), settings.stage, trust) {
            HeadStep::Fetch(head) => Some(head),
            HeadStep::Note(head) => return Ok(Weighed::Note(head)),
            HeadStep::Keep(kept) => return Ok(Weighed::Kept(kept)),
            HeadStep::Refuse(refusal) => return Ok(Weighed::Refused(refusal)),
        },
    };
    let bytes = fetch.await?;
    // A large document takes a while, which no other task should wait for.
    let own = own.revision;
    let decided = tokio::task::spawn_blocking(move || match document(own, head.as_deref(), &bytes) {
        DocumentStep::Take(table) => Weighed::Take(table, bytes, head),
        DocumentStep::Keep(kept) => Weighed::Kept(kept),
        DocumentStep::Refuse(refusal) => Weighed::Refused(refusal),
    });
    decided.await.map_err(|error| format!("a fault of this program ({error}); please report it"))
}

/// The first document of a node that has none.
///
/// # Errors
/// Why this one is none.
pub(super) fn as_first(weighed: Weighed) -> Result<First, String> {
    match weighed {
        Weighed::Take(table, bytes, head) => Ok((table.revision().number, bytes, head.map(|head| *head))),
        Weighed::Refused(refusal) => Err(refusal.to_string()),
        Weighed::Kept(_) | Weighed::Note(_) => Err("its rules aren't for this node's stage yet".to_owned()),
    }
}
