//! Decides about rules documents that others offer, and hands the owner the documents that it should serve. Takes a
//! head (the publisher's signed statement of who published a document, why and for which stage) and a way to fetch its
//! document, returns what was done. Called by the transports, HTTP and NATS.

use std::sync::Arc;

use bailiwick_rules::fleet::follow::{self, DocumentStep, HeadStep, Kept, Own, Refusal, Trust, document};
use bailiwick_rules::fleet::head::{Head, HeadError};
use bailiwick_rules::table::Table;

use super::{Settings, record};
use crate::state::owner::{Handle, Offer};
use crate::state::snapshot::Rules;

/// The revision of a document, the document, and its head if there is one.
pub(super) type First = (u64, Vec<u8>, Option<Head>);

/// What one place (a peer, or NATS) offered last.
#[derive(Default)]
pub(super) struct Seen {
    /// The entity tag of the document that was last decided about. That document isn't fetched again.
    pub(super) document: Option<String>,
    /// The tag of a head whose stage comes before this node's stage. Everything that was offered before it has been
    /// decided about, too.
    pub(super) waits_for: Option<String>,
    /// The tag of a document whose head was refused, and why.
    head: Option<(Option<String>, HeadError)>,
}

/// The decision about an offered document.
pub(super) enum Weighed {
    /// Nothing has to be done, for this reason.
    Kept(Kept),
    /// The document is in service already, but its new head is for more stages than the known head.
    Note(Box<Head>),
    /// The document has to be put in service.
    Take(Box<Table>, Vec<u8>, Option<Box<Head>>),
    /// The document is refused.
    Refused(Refusal),
}

/// What was done about an offer.
pub(super) enum Outcome {
    /// Nothing was done, for this reason.
    Kept(Kept),
    /// The document was given to the owner.
    Taken,
    /// The document was refused, and the refusal was logged.
    Refused(Refusal),
}

/// Carries out a decision: hands a document to the owner, keeps a head, or counts and logs a refusal. `from` names the
/// place that made the offer; `tag` distinguishes this offer from others of the same place.
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
        // The document isn't marked as decided, because the turn of this node's stage may come while the document stays
        // the same.
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
            // If the document doesn't fit this node's zones, the owner tries it again by itself.
            seen.document = tag;
            Outcome::Taken
        }
        // The refusal is logged only once. The document is asked for again, because it may get a good head.
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

/// Decides about the head of a document that this node knows already. Only the head of the document in service can
/// bring something new, namely more stages.
pub(super) fn of_same(own: Own<'_>, head: Option<&[u8]>, settings: &Settings) -> Weighed {
    match follow::head(own, head, settings.stage, settings.trust()) {
        HeadStep::Note(head) => Weighed::Note(head),
        HeadStep::Refuse(Refusal::Head(error)) => Weighed::Refused(Refusal::Head(error)),
        HeadStep::Keep(_) | HeadStep::Fetch(_) | HeadStep::Refuse(_) => Weighed::Kept(Kept::Same),
    }
}

/// Decides about a document that is offered to a node that has `own`. The document is fetched only if its head is good.
///
/// # Errors
/// Why the document can't be fetched.
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
    // A large document takes long to check, and other tasks shouldn't wait for that.
    let own = own.revision;
    let decided = tokio::task::spawn_blocking(move || match document(own, head.as_deref(), &bytes) {
        DocumentStep::Take(table) => Weighed::Take(table, bytes, head),
        DocumentStep::Keep(kept) => Weighed::Kept(kept),
        DocumentStep::Refuse(refusal) => Weighed::Refused(refusal),
    });
    decided.await.map_err(|error| format!("a fault of this program ({error}); please report it"))
}

/// Turns a decision into the first document of a node that has none.
///
/// # Errors
/// Why this document can't be the first.
pub(super) fn as_first(weighed: Weighed) -> Result<First, String> {
    match weighed {
        Weighed::Take(table, bytes, head) => Ok((table.revision().number, bytes, head.map(|head| *head))),
        Weighed::Refused(refusal) => Err(refusal.to_string()),
        Weighed::Kept(_) | Weighed::Note(_) => Err("its rules aren't for this node's stage yet".to_owned()),
    }
}
