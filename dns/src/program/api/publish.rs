//! `PUT /v1/rules` and `PUT /v1/rules/head`, by which rules are published on this node, and the history of published
//! documents. Takes a rules document with the entity tag of the document that it replaces; or a head (who publishes the
//! rules, why and for which nodes) that brings the document in service to more nodes. Returns whether it is in service.
//! Only the node that is the writer of its fleet accepts them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_TYPE, ETAG, IF_MATCH};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bailiwick_rules::fleet::follow::{self, DocumentStep, HeadStep, NoChange, OwnDocument, Refusal, Trust, document};
use bailiwick_rules::fleet::head::{Head, HeadError, Stage, sha256_hex};
use bailiwick_rules::table::{Revision, Table};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::Api;
use super::access::Changed;
use super::push::check_pins;
use super::reply::Problem;
use crate::program::fleet_report::HeadReport;
use crate::state::fleet::{HEAD, note};
use crate::state::owner::{Offer, Status};
use crate::state::snapshot::Rules;
use crate::state::store::Store;

/// How long a request waits until its document is in service.
const PATIENCE: Duration = Duration::from_secs(8);

/// The answer after a document was published.
#[derive(Debug, Serialize)]
pub(super) struct Published {
    revision: u64,
    sha256: String,
    /// Whether it is in service already. If not, it waits for the first results of its monitors.
    in_service: bool,
}

/// Takes a document, if it replaces the one in service.
pub(super) async fn put(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    admit(&api, "/v1/rules")?;
    let body = body.map_err(|rejection| Problem::new(rejection.status(), rejection.body_text()))?;
    let Some(expected) = headers.get(IF_MATCH).and_then(|value| value.to_str().ok()).filter(|tag| *tag != "*") else {
        let message = "send If-Match with the entity tag that GET /v1/rules gave: two who publish at once would \
            otherwise undo each other's work";
        return Err(Problem::new(StatusCode::PRECONDITION_REQUIRED, message));
    };
    // One at a time, until it is in service.
    let _turn = api.publishing.lock().await;
    let own_revision = api.handle.snapshot().table().revision();
    if let Some(awaited) = api.handle.status().awaited_revision.filter(|awaited| *awaited != own_revision.number) {
        let message = format!("revision {awaited} was taken a moment ago and is about to come into service; try again");
        return Err(Problem::new(StatusCode::CONFLICT, message));
    }
    if expected != own_revision.entity_tag() {
        let message = format!(
            "this is based on another document than revision {}, which is in service; look at what came between with \
             `bailiwick rules history`, and publish again",
            own_revision.number
        );
        return Err(Problem::new(StatusCode::PRECONDITION_FAILED, message));
    }
    let head = head_of(&api, &headers, own_revision)?;
    let decided = tokio::task::spawn_blocking(move || (document(Some(own_revision), head.as_ref(), &body), body, head));
    let decided = decided.await.map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "a fault of this program"));
    match decided? {
        (DocumentStep::Take(table), bytes, head) => {
            check_pins(&api, &table).await?;
            serve(&api, *table, bytes, head).await.map(done)
        }
        (DocumentStep::Keep(NoChange::Same), ..) => {
            Err(Problem::new(StatusCode::CONFLICT, "this very document is in service already"))
        }
        (DocumentStep::Keep(_), ..) => Err(not_higher(own_revision)),
        (DocumentStep::Refuse(refusal), ..) => Err(problem_of(&refusal)),
    }
}

/// Takes a head that brings the document in service to more nodes.
pub(super) async fn put_head(
    State(api): State<Arc<Api>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    admit(&api, "/v1/rules/head")?;
    let body = body.map_err(|rejection| Problem::new(rejection.status(), rejection.body_text()))?;
    let _turn = api.publishing.lock().await;
    let own_revision = api.handle.snapshot().table().revision();
    let known = api.handle.fleet().with(|view| view.head.clone());
    let has = OwnDocument { revision: Some(own_revision), head: known.as_ref() };
    let (revision, sha256) = (own_revision.number, own_revision.sha256_hex());
    let noted = || done(Json(Published { revision, sha256: sha256.clone(), in_service: true }));
    match follow::head(has, Some(&body), api.fleet.stage, api.fleet.trust()) {
        HeadStep::Note(head) if has_false_approval(&api, &head) => Err(false_approval()),
        HeadStep::Note(head) if note(&api.handle, &head) => Ok(noted()),
        HeadStep::Refuse(refusal @ Refusal::Head(_)) => Err(problem_of(&refusal)),
        // A caller that asks again because the answer was lost gets the same answer.
        HeadStep::Keep(NoChange::Same) if known == Head::parse(&body).ok() => Ok(noted()),
        HeadStep::Keep(NoChange::Same) => {
            let stage = known.map(|head| head.stage).unwrap_or_default();
            let message = format!("revision {} is for nodes of stage {stage} already", own_revision.number);
            Err(Problem::new(StatusCode::CONFLICT, message))
        }
        _ => {
            let message = format!(
                "this is the head of another document than revision {}, which is in service",
                own_revision.number
            );
            Err(Problem::new(StatusCode::PRECONDITION_FAILED, message))
        }
    }
}

/// The answer to whoever published.
fn done(Json(published): Json<Published>) -> Response {
    (Extension(Changed(published.revision.to_string())), Json(published)).into_response()
}

/// Whether rules may be published here.
fn admit(api: &Api, path: &str) -> Result<(), Problem> {
    if !api.fleet.follows() {
        return Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("PUT can't be done at {path}")));
    }
    if api.fleet.nats.is_some() {
        let message = "the rules of this node come from NATS; publish there, with `bailiwick rules publish --config \
            publisher.toml`";
        return Err(Problem::new(StatusCode::FORBIDDEN, message));
    }
    if !api.fleet.writer {
        let message = "this node is no writer; publish on the one whose configuration has [fleet] writer = true";
        return Err(Problem::new(StatusCode::FORBIDDEN, message));
    }
    Ok(())
}

/// The head that came with a document.
fn head_of(api: &Api, headers: &HeaderMap, own: Revision) -> Result<Option<Head>, Problem> {
    let Some(value) = headers.get(HEAD) else {
        return match api.fleet.trusted_publishers[..] {
            [] => Ok(None),
            _ => Err(problem_of(&Refusal::Head(HeadError::Unsigned))),
        };
    };
    let bytes = URL_SAFE_NO_PAD.decode(value).unwrap_or_default();
    let has = OwnDocument { revision: Some(own), head: None };
    match follow::head(has, Some(&bytes), api.fleet.stage, api.fleet.trust()) {
        HeadStep::Fetch(head) if has_false_approval(api, &head) => Err(false_approval()),
        HeadStep::Fetch(head) => Ok(Some(*head)),
        HeadStep::Refuse(refusal) => Err(problem_of(&refusal)),
        HeadStep::Keep(NoChange::Later(_)) => {
            let message = "the writer is of a later stage than this revision is for, so it couldn't hold it for the \
                others; set [fleet] stage = \"canary\" there";
            Err(Problem::new(StatusCode::CONFLICT, message))
        }
        HeadStep::Keep(_) | HeadStep::Note(_) => Err(not_higher(own)),
    }
}

/// Whether a head claims an approval that doesn't hold. Where nobody is trusted, nothing can be checked.
fn has_false_approval(api: &Api, head: &Head) -> bool {
    let Trust { publishers, verify } = api.fleet.trust();
    !publishers.is_empty() && head.approved_by(publishers, verify).len() < head.approvals.len()
}

fn false_approval() -> Problem {
    let message = "an approval of its head isn't signed by another of this node's trusted_publishers, or signs \
        something else; have it approved again";
    Problem::new(StatusCode::FORBIDDEN, message)
}

fn not_higher(own: Revision) -> Problem {
    let message = format!("its revision has to be higher than {}, which is in service", own.number);
    Problem::new(StatusCode::CONFLICT, message)
}

/// Offers a document to the owner of the node's state, and waits until it is in service or refused.
async fn serve(api: &Api, table: Table, bytes: Bytes, head: Option<Head>) -> Result<Json<Published>, Problem> {
    let (revision, mut status) = (table.revision(), api.handle.follow_status());
    let rules = Arc::new(Rules { table, bytes: bytes.to_vec().into() });
    let document = Arc::downgrade(&rules);
    api.handle.fleet().with(|view| view.offer(revision.number, head, api.handle.now()));
    api.handle.offer(Offer::Rules(rules)).await;
    let is_served = || api.handle.snapshot().table().revision() == revision;
    // Others may offer documents meanwhile. Their outcomes are ignored.
    let errors_in = |status: &Status| {
        let refused = status.refused_rules.as_ref().filter(|refused| refused.document.ptr_eq(&document));
        refused.map(|refused| refused.errors.clone())
    };
    let decided = status.wait_for(|now| is_served() || errors_in(now).is_some());
    let in_time = tokio::time::timeout(PATIENCE, decided).await.is_ok();
    let published =
        |in_service| Json(Published { revision: revision.number, sha256: revision.sha256_hex(), in_service });
    match (is_served(), in_time) {
        (true, _) => Ok(published(true)),
        (false, false) => Ok(published(false)),
        (false, true) => {
            api.handle.fleet().with(|view| view.withdraw(revision.number));
            let errors =
                errors_in(&api.handle.status()).unwrap_or_else(|| vec!["the server is shutting down".to_owned()]);
            Err(Problem::all(StatusCode::UNPROCESSABLE_ENTITY, errors))
        }
    }
}

/// The answer for a refused document.
fn problem_of(refusal: &Refusal) -> Problem {
    let status = match refusal {
        Refusal::Head(_) => StatusCode::FORBIDDEN,
        Refusal::Conflict(_) => StatusCode::CONFLICT,
        Refusal::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Refusal::Digest(_) | Refusal::Revision { .. } | Refusal::Rules(_) => StatusCode::UNPROCESSABLE_ENTITY,
    };
    match refusal {
        Refusal::Rules(violations) => Problem::all(status, violations.iter().map(ToString::to_string).collect()),
        other => Problem::new(status, other.to_string()),
    }
}

/// A document of the history.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Its revision.
    pub(crate) revision: u64,
    /// Who published it, and why; absent where no head says so.
    pub(crate) head: Option<HeadReport>,
}

/// The history, the newest first.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct History {
    /// What was in service.
    pub(crate) revisions: Vec<Entry>,
}

/// What was in service on this node.
pub(super) async fn history(State(api): State<Arc<Api>>) -> Result<Json<History>, Problem> {
    let read = in_state_dir(&api, |directory| {
        let revisions = Store::history(directory)?;
        let entry = |revision: &u64| {
            let head = Store::head_in_history(directory, *revision);
            Entry { revision: *revision, head: head.as_ref().map(HeadReport::from) }
        };
        Ok(History { revisions: revisions.iter().rev().map(entry).collect() })
    });
    read.await.map(Json)
}

/// A document that was in service, byte for byte.
pub(super) async fn of_history(State(api): State<Arc<Api>>, Path(revision): Path<u64>) -> Result<Response, Problem> {
    let read = in_state_dir(&api, move |directory| {
        let document = Store::document_in_history(directory, revision)?;
        Ok(document.map(|bytes| Earlier { revision, bytes, head: Store::head_in_history(directory, revision) }))
    });
    let Some(earlier) = read.await? else {
        let message = format!("revision {revision} isn't in this node's history; `bailiwick rules history` lists it");
        return Err(Problem::new(StatusCode::NOT_FOUND, message));
    };
    let mut headers = earlier.headers();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok((headers, earlier.bytes).into_response())
}

/// A document of the history with its head.
pub(super) struct Earlier {
    revision: u64,
    /// Its bytes.
    pub(super) bytes: Vec<u8>,
    head: Option<Head>,
}

impl Earlier {
    /// Its entity tag.
    pub(super) fn tag(&self) -> String {
        format!("\"{}-{}\"", self.revision, sha256_hex(&self.bytes))
    }

    /// Its entity tag and its head.
    pub(super) fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.extend(HeaderValue::from_str(&self.tag()).ok().map(|tag| (ETAG, tag)));
        headers.extend(self.head.as_ref().and_then(head_header).map(|value| (HEAD, value)));
        headers
    }
}

/// The newest document of the history that is for all nodes of a stage. What has no head is for all nodes.
pub(super) async fn newest_for(api: &Api, stage: Stage) -> Result<Option<Earlier>, Problem> {
    let read = in_state_dir(api, move |directory| {
        for revision in Store::history(directory)?.into_iter().rev() {
            let head = Store::head_in_history(directory, revision);
            if head.as_ref().is_none_or(|head| head.stage >= stage)
                && let Some(bytes) = Store::document_in_history(directory, revision)?
            {
                return Ok(Some(Earlier { revision, bytes, head }));
            }
        }
        Ok(None)
    });
    read.await
}

/// A head as a header carries it.
pub(super) fn head_header(head: &Head) -> Option<HeaderValue> {
    HeaderValue::from_str(&URL_SAFE_NO_PAD.encode(head.to_bytes())).ok()
}

/// Reads something of the state directory; a disk may hang.
async fn in_state_dir<T: Send + 'static>(
    api: &Api,
    read: impl FnOnce(&PathBuf) -> std::io::Result<T> + Send + 'static,
) -> Result<T, Problem> {
    let Some(directory) = api.fleet.state_dir.clone() else {
        let message = "this node keeps no history: it follows its own files; set [fleet] mode = \"peers\"";
        return Err(Problem::new(StatusCode::NOT_FOUND, message));
    };
    let read = tokio::task::spawn_blocking(move || read(&directory)).await;
    let failed =
        |error: String| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the history can't be read: {error}"));
    read.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))
}
