//! The API paths `/v1/picture`, `/v1/timeline` and `/v1/explain/nodes`, which the page at `/ui/` reads. Takes the
//! node's snapshot and the data of [`crate::program::picture`], returns JSON. Run by the API.
//!
//! [`look`] is the task beside it that runs every second: it finds events, takes a sample of each region, and checks
//! fences (the regions that may process a client).

mod edge;
mod fleet;
mod look;
mod now;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, RawQuery, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bailiwick_rules::fleet::traffic::Missing;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Mutex;

use super::Api;
use super::read::{explained, how_to_ask};
use super::reply::Problem;
use crate::program::question::Question;
use crate::state::fleet::ask_others;

pub(super) use look::watch;

/// For how long an answer of `/v1/picture` is reused for everybody who asks.
const FRESH: Duration = Duration::from_secs(1);
/// The longest answer of another node that is read, in bytes.
const MAX_ANSWER: usize = 1 << 20;
/// The longest question that is passed on, in bytes.
const MAX_QUESTION: usize = 2_000;

/// The last answers of `/v1/picture`.
#[derive(Debug, Default)]
pub(crate) struct Cached {
    /// The picture without the fleet, and when it was made.
    own: Mutex<Option<(Instant, Bytes)>>,
    fleet: fleet::Cached,
}

/// The query of `/v1/picture`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PictureQuery {
    /// Whether the answer includes the traffic of all nodes.
    #[serde(default)]
    fleet: bool,
}

/// All that the first screen shows, made once a second however many ask.
pub(super) async fn picture(
    State(api): State<Arc<Api>>,
    wanted: Result<Query<PictureQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(wanted) = wanted.map_err(|rejection| {
        let how = "ask as /v1/picture, or as /v1/picture?fleet=true for the traffic of all nodes";
        Problem::new(StatusCode::BAD_REQUEST, format!("{}; {how}", rejection.body_text()))
    })?;
    // In a task of its own: the caller may leave, and no other caller should begin the same work meanwhile.
    let task = tokio::spawn(picture_of_node(Arc::clone(&api)));
    let result = task.await.map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "a fault of this program"));
    let of_node = result??;
    if !wanted.fleet {
        return Ok(json(of_node));
    }
    // The picture is an object that is never empty.
    let of_fleet = fleet::traffic(&api).await;
    let unclosed = of_node.strip_suffix(b"}").unwrap_or_default();
    Ok(json(Bytes::from([unclosed, b",\"fleet_traffic\":", &of_fleet, b"}"].concat())))
}

/// The picture without the fleet. It is made again if it is older than [`FRESH`].
async fn picture_of_node(api: Arc<Api>) -> Result<Bytes, Problem> {
    let mut cached = api.cached_picture.own.lock().await;
    let fresh = cached.as_ref().filter(|(made_at, _)| made_at.elapsed() < FRESH).map(|(_, bytes)| bytes.clone());
    let bytes = match fresh {
        Some(bytes) => bytes,
        None => {
            let state = Arc::clone(&api);
            let result = tokio::task::spawn_blocking(move || serde_json::to_vec(&now::now(&state))).await;
            let fault = || Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "a fault of this program");
            let bytes = Bytes::from(result.map_err(|_| fault())?.map_err(|_| fault())?);
            *cached = Some((Instant::now(), bytes.clone()));
            bytes
        }
    };
    Ok(bytes)
}

/// An answer with this JSON, which caches must not store.
fn json(bytes: Bytes) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (headers, bytes).into_response()
}

/// The query of `/v1/timeline`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TimelineQuery {
    region: Option<String>,
}

/// `/v1/timeline`: the states of all regions in the last day, or all numbers of one region; and the events to mark.
pub(super) async fn timeline(
    State(api): State<Arc<Api>>,
    query: Result<Query<TimelineQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|rejection| {
        let how = "ask as /v1/timeline, or as /v1/timeline?region=eu-frankfurt";
        Problem::new(StatusCode::BAD_REQUEST, format!("{}; {how}", rejection.body_text()))
    })?;
    let marks = api.picture.events(crate::program::picture::events::Events::marks);
    let with_marks = |mut numbers: Value| {
        numbers["marks"] = serde_json::to_value(&marks).unwrap_or_default();
        Json(numbers).into_response()
    };
    let Some(region) = query.region else {
        return Ok(with_marks(
            api.picture.timeline(|timeline| serde_json::to_value(timeline.overview())).unwrap_or_default(),
        ));
    };
    let numbers =
        api.picture.timeline(|timeline| timeline.of(&region)).and_then(|numbers| serde_json::to_value(numbers).ok());
    let unknown = || Problem::new(StatusCode::NOT_FOUND, "region: nothing was noted of it in the last 24 hours");
    numbers.map(with_marks).ok_or_else(unknown)
}

/// What each node decides for a client.
#[derive(Debug, Serialize)]
pub(super) struct ByNode {
    /// The node that was asked.
    asked: String,
    /// By node or URL: its explanation, or `{"error": …}`.
    nodes: BTreeMap<String, Value>,
    /// The nodes that gave no answer.
    missing: Vec<Missing>,
}

/// The same question as for `/v1/explain`, to this node and to all its peers.
pub(super) async fn explain_by_node(
    State(api): State<Arc<Api>>,
    RawQuery(question): RawQuery,
) -> Result<Json<ByNode>, Problem> {
    let question = question.unwrap_or_default();
    if question.len() > MAX_QUESTION || question.contains(|c: char| c.is_control() || c == '#') {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "the question is too long, or no query string"));
    }
    let uri = format!("/v1/explain?{question}").parse();
    let uri = uri.map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "this is no query string"))?;
    let Query(parsed) = Query::<Question>::try_from_uri(&uri).map_err(|error| how_to_ask(&error.body_text()))?;
    if parsed.all {
        let message = "all: every fence is the same for all nodes with the same rules; ask /v1/explain?all=true of one";
        return Err(Problem::new(StatusCode::BAD_REQUEST, message));
    }
    let own_explanation = serde_json::to_value(explained(&api, &parsed)?).unwrap_or_default();
    let mut nodes = BTreeMap::from([(api.node.clone(), own_explanation)]);
    let mut missing = Vec::new();
    let name = |peer: &str| {
        let known = api.handle.fleet().with(|view| view.peers.iter().find(|state| state.url == peer)?.node.clone());
        known.unwrap_or_else(|| peer.to_owned())
    };
    let add = |peer: &str, answer: Result<Vec<u8>, String>| {
        let read = |bytes: Vec<u8>| serde_json::from_slice::<Value>(&bytes).map_err(|error| error.to_string());
        match answer.and_then(read) {
            Ok(explained) => _ = nodes.insert(name(peer), explained),
            Err(why) => missing.push(Missing { peer: peer.to_owned(), why }),
        }
    };
    let result = ask_others(&api.fleet, &format!("/v1/explain?{question}"), MAX_ANSWER, add).await;
    result.map_err(|errors| Problem::all(StatusCode::INTERNAL_SERVER_ERROR, errors))?;
    Ok(Json(ByNode { asked: api.node.clone(), nodes, missing }))
}
