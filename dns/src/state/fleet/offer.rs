//! Decides about rules documents that others offer, and hands the owner the documents that it should serve. Takes a
//! head (the publisher's signed statement of who published a document, why and for which stage) and a way to fetch its
//! document, returns what was done. Called by the transports, HTTP and NATS. A stage is a part of the fleet: the canary
//! nodes get a new document first, then the early nodes, then all.

use std::sync::Arc;

use bailiwick_rules::fleet::follow::{self, DocumentStep, HeadStep, NoChange, OwnDocument, Refusal, Trust, document};
use bailiwick_rules::fleet::head::{Head, HeadError};
use bailiwick_rules::table::Table;

use super::{Settings, record};
use crate::state::owner::{Handle, Offer};
use crate::state::snapshot::Rules;

/// The revision of a document, the document, and its head if there is one.
pub(super) type First = (u64, Vec<u8>, Option<Head>);

/// What one place (a peer, or NATS) offered last.
#[derive(Default)]
pub(super) struct LastOffer {
    /// The entity tag of the document that was last decided about. That document isn't fetched again.
    pub(super) document: Option<String>,
    /// The tag of a head whose stage comes before this node's stage. Everything that was offered before it has been
    /// decided about, too.
    pub(super) waits_for: Option<String>,
    /// The tag of a document whose head was refused, and why.
    head: Option<(Option<String>, HeadError)>,
}

/// The decision about an offered document.
pub(super) enum OfferDecision {
    /// Nothing has to be done, for this reason.
    Keep(NoChange),
    /// The document is in service already, but its new head is for more stages than the known head.
    Note(Box<Head>),
    /// The document has to be put in service.
    Take(Box<Table>, Vec<u8>, Option<Box<Head>>),
    /// The document is refused.
    Refuse(Refusal),
}

/// What was done about an offer.
pub(super) enum Outcome {
    /// Nothing was done, for this reason.
    Kept(NoChange),
    /// The document was given to the owner.
    Taken,
    /// The document was refused, and the refusal was logged.
    Refused(Refusal),
}

/// Carries out a decision: hands a document to the owner, keeps a head, or counts and logs a refusal. `from` names the
/// place that made the offer; `tag` distinguishes this offer from others of the same place.
pub(super) async fn carry_out(
    handle: &Handle,
    last_offer: &mut LastOffer,
    from: &str,
    tag: Option<String>,
    decision: OfferDecision,
) -> Outcome {
    if !matches!(decision, OfferDecision::Refuse(Refusal::Head(_))) {
        last_offer.head = None;
    }
    match decision {
        // The document isn't marked as decided, because the turn of this node's stage may come while the document stays
        // the same.
        OfferDecision::Keep(why @ NoChange::Later(_)) => {
            last_offer.waits_for = tag;
            Outcome::Kept(why)
        }
        OfferDecision::Keep(why) => {
            last_offer.document = tag;
            Outcome::Kept(why)
        }
        OfferDecision::Note(head) => {
            record::note(handle, &head);
            Outcome::Kept(NoChange::Same)
        }
        OfferDecision::Take(table, bytes, head) => {
            let (revision, now) = (table.revision().number, handle.now());
            handle.fleet().with(|view| view.offer(revision, head.map(|head| *head), now));
            handle.offer(Offer::Rules(Arc::new(Rules { table: *table, bytes: bytes.into() }))).await;
            // If the document doesn't fit this node's zones, the owner tries it again by itself.
            last_offer.document = tag;
            Outcome::Taken
        }
        // The refusal is logged only once. The document is asked for again, because it may get a good head.
        OfferDecision::Refuse(Refusal::Head(error))
            if last_offer.head.as_ref() == Some(&(tag.clone(), error.clone())) =>
        {
            Outcome::Refused(Refusal::Head(error))
        }
        OfferDecision::Refuse(refusal) => {
            let now = handle.now();
            handle.fleet().with(|view| view.refuse(from, &refusal, now));
            tracing::error!(
                json.event = "fleet_refused", peer = from, json.reason = %refusal,
                "{from}: refused, the last good stays in service: {refusal}"
            );
            match &refusal {
                Refusal::Head(error) => last_offer.head = Some((tag, error.clone())),
                _ => last_offer.document = tag,
            }
            Outcome::Refused(refusal)
        }
    }
}

/// Decides about the head of a document that this node knows already. Only the head of the document in service can
/// bring something new, namely more stages.
pub(super) fn of_same(own: OwnDocument<'_>, head: Option<&[u8]>, settings: &Settings) -> OfferDecision {
    match follow::head(own, head, settings.stage, settings.trust()) {
        HeadStep::Note(head) => OfferDecision::Note(head),
        HeadStep::Refuse(Refusal::Head(error)) => OfferDecision::Refuse(Refusal::Head(error)),
        HeadStep::Keep(_) | HeadStep::Fetch(_) | HeadStep::Refuse(_) => OfferDecision::Keep(NoChange::Same),
    }
}

/// Decides about a document that is offered to a node that has `own`. The document is fetched only if its head is good.
///
/// # Errors
/// Why the document can't be fetched.
pub(super) async fn decide(
    own: OwnDocument<'_>,
    head: Option<&[u8]>,
    settings: &Settings,
    fetch: impl Future<Output = Result<Vec<u8>, String>>,
) -> Result<OfferDecision, String> {
    let trust: Trust<'_> = settings.trust();
    let head = match (head, trust.publishers) {
        (None, []) => None,
        (None, _) => return Ok(OfferDecision::Refuse(Refusal::Head(HeadError::Unsigned))),
        (Some(bytes), _) => match follow::head(own, Some(bytes), settings.stage, trust) {
            HeadStep::Fetch(head) => Some(head),
            HeadStep::Note(head) => return Ok(OfferDecision::Note(head)),
            HeadStep::Keep(why) => return Ok(OfferDecision::Keep(why)),
            HeadStep::Refuse(refusal) => return Ok(OfferDecision::Refuse(refusal)),
        },
    };
    let bytes = fetch.await?;
    // A large document takes long to check, and other tasks shouldn't wait for that.
    let own = own.revision;
    let decided = tokio::task::spawn_blocking(move || match document(own, head.as_deref(), &bytes) {
        DocumentStep::Take(table) => OfferDecision::Take(table, bytes, head),
        DocumentStep::Keep(why) => OfferDecision::Keep(why),
        DocumentStep::Refuse(refusal) => OfferDecision::Refuse(refusal),
    });
    decided.await.map_err(|error| format!("a fault of this program ({error}); please report it"))
}

/// Turns a decision into the first document of a node that has none.
///
/// # Errors
/// Why this document can't be the first.
pub(super) fn as_first(decision: OfferDecision) -> Result<First, String> {
    match decision {
        OfferDecision::Take(table, bytes, head) => Ok((table.revision().number, bytes, head.map(|head| *head))),
        OfferDecision::Refuse(refusal) => Err(refusal.to_string()),
        OfferDecision::Keep(_) | OfferDecision::Note(_) => Err("its rules aren't for this node's stage yet".to_owned()),
    }
}
