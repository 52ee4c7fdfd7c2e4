//! `PUT /v1/rules`, and the history of what was published. Takes a document with the entity tag of the one it replaces,
//! returns whether it is in service; only the writer of a fleet takes one.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_TYPE, ETAG, IF_MATCH};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bailiwick_rules::fleet::follow::{self, DocumentStep, HeadStep, Kept, Refusal, document};
use bailiwick_rules::fleet::head::{Head, HeadError, sha256_hex};
use bailiwick_rules::table::{Revision, Table};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::Api;
use super::reply::Problem;
use crate::program::fleet_report::HeadReport;
use crate::state::fleet::HEAD;
use crate::state::owner::Offer;
use crate::state::snapshot::Rules;
use crate::state::store::Store;

/// How long a request waits until its document is in service.
const PATIENCE: Duration = Duration::from_secs(8);

/// What became of a document.
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
    if !api.fleet.follows() {
        return Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, "PUT can't be done at /v1/rules"));
    }
    if !api.fleet.writer {
        let message = "this node is no writer; publish on the one whose configuration has [fleet] writer = true";
        return Err(Problem::new(StatusCode::FORBIDDEN, message));
    }
    let body = body.map_err(|rejection| Problem::new(rejection.status(), rejection.body_text()))?;
    let Some(expected) = headers.get(IF_MATCH).and_then(|value| value.to_str().ok()).filter(|tag| *tag != "*") else {
        let message = "send If-Match with the entity tag that GET /v1/rules gave: two who publish at once would \
            otherwise undo each other's work";
        return Err(Problem::new(StatusCode::PRECONDITION_REQUIRED, message));
    };
    // One at a time, until it is in service.
    let _turn = api.publishing.lock().await;
    let own = api.handle.snapshot().table().revision();
    if let Some(awaited) = api.handle.status().awaited_revision.filter(|awaited| *awaited != own.number) {
        let message = format!("revision {awaited} was taken a moment ago and is about to come into service; try again");
        return Err(Problem::new(StatusCode::CONFLICT, message));
    }
    if expected != own.entity_tag() {
        let message = format!(
            "this is based on another document than revision {}, which is in service; look at what came between with \
             `bailiwick rules history`, and publish again",
            own.number
        );
        return Err(Problem::new(StatusCode::PRECONDITION_FAILED, message));
    }
    let head = head_of(&api, &headers, own)?;
    let decided = tokio::task::spawn_blocking(move || (document(Some(own), head.as_ref(), &body), body, head));
    let decided = decided.await.map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "a fault of this program"));
    match decided? {
        (DocumentStep::Take(table), bytes, head) => {
            serve(&api, *table, bytes, head).await.map(IntoResponse::into_response)
        }
        (DocumentStep::Keep(Kept::Same), ..) => {
            Err(Problem::new(StatusCode::CONFLICT, "this very document is in service already"))
        }
        (DocumentStep::Keep(_), ..) => Err(not_higher(own)),
        (DocumentStep::Refuse(refusal), ..) => Err(refused(&refusal)),
    }
}

/// The head that came with a document.
fn head_of(api: &Api, headers: &HeaderMap, own: Revision) -> Result<Option<Head>, Problem> {
    let Some(value) = headers.get(HEAD) else {
        return match api.fleet.trusted_publishers[..] {
            [] => Ok(None),
            _ => Err(refused(&Refusal::Head(HeadError::Unsigned))),
        };
    };
    let bytes = URL_SAFE_NO_PAD.decode(value).unwrap_or_default();
    match follow::head(Some(own), Some(&bytes), api.fleet.stage, api.fleet.trust()) {
        HeadStep::Fetch(head) => Ok(Some(*head)),
        HeadStep::Refuse(refusal) => Err(refused(&refusal)),
        HeadStep::Keep(Kept::Later(_)) => {
            let message = "the writer is of a later stage than this revision is for, so it couldn't hold it for the \
                others; set [fleet] stage = \"canary\" there";
            Err(Problem::new(StatusCode::CONFLICT, message))
        }
        HeadStep::Keep(_) => Err(not_higher(own)),
    }
}

fn not_higher(own: Revision) -> Problem {
    let message = format!("its revision has to be higher than {}, which is in service", own.number);
    Problem::new(StatusCode::CONFLICT, message)
}

/// Offers a document and waits for what becomes of it.
async fn serve(api: &Api, table: Table, bytes: Bytes, head: Option<Head>) -> Result<Json<Published>, Problem> {
    let (revision, mut status) = (table.revision(), api.handle.follow_status());
    let before = status.borrow_and_update().rules.clone();
    api.handle.fleet().with(|known| known.offer(revision.number, head, api.handle.now()));
    api.handle.offer(Offer::Rules(Arc::new(Rules { table, bytes: bytes.to_vec().into() }))).await;
    let is_served = || api.handle.snapshot().table().revision() == revision;
    let decided =
        status.wait_for(|now| is_served() || now.rules.refused > before.refused || now.rules.ignored > before.ignored);
    let in_time = tokio::time::timeout(PATIENCE, decided).await.is_ok();
    let published =
        |in_service| Json(Published { revision: revision.number, sha256: revision.sha256_hex(), in_service });
    match (is_served(), in_time) {
        (true, _) => Ok(published(true)),
        (false, false) => Ok(published(false)),
        (false, true) => {
            api.handle.fleet().with(|known| known.withdraw(revision.number));
            let errors = api.handle.status().rules.last_error.as_ref().map(|error| error.errors.clone());
            let errors = errors.unwrap_or_else(|| vec!["the server is shutting down".to_owned()]);
            Err(Problem::all(StatusCode::UNPROCESSABLE_ENTITY, errors))
        }
    }
}

fn refused(refusal: &Refusal) -> Problem {
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
        Ok(document.map(|bytes| {
            let tag = format!("\"{revision}-{}\"", sha256_hex(&bytes));
            (bytes, tag, Store::head_in_history(directory, revision))
        }))
    });
    let Some((bytes, tag, head)) = read.await? else {
        let message = format!("revision {revision} isn't in this node's history; `bailiwick rules history` lists it");
        return Err(Problem::new(StatusCode::NOT_FOUND, message));
    };
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(ETAG, tag);
    }
    headers.extend(head.as_ref().and_then(head_header).map(|value| (HEAD, value)));
    Ok((headers, bytes).into_response())
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
