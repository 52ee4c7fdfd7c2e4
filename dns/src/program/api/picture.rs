//! `/v1/picture`, `/v1/timeline` and `/v1/explain/nodes`. Takes the snapshot and what is kept for the picture, returns
//! JSON. Beside it, the look that is taken every second: it finds events, samples regions and checks fences.

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

/// For how long an answer of `/v1/picture` serves all who ask.
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

/// What is asked of the picture.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// Whether the traffic of all nodes is told, too.
    #[serde(default)]
    fleet: bool,
}

/// All that the first screen shows, made once a second however many ask.
pub(super) async fn picture(
    State(api): State<Arc<Api>>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(wanted) = wanted.map_err(|rejection| {
        let how = "ask as /v1/picture, or as /v1/picture?fleet=true for the traffic of all nodes";
        Problem::new(StatusCode::BAD_REQUEST, format!("{}; {how}", rejection.body_text()))
    })?;
    // In a task of its own: whoever asks may leave, and nobody else should begin the same work meanwhile.
    let own = tokio::spawn(own(Arc::clone(&api)));
    let own = own.await.map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "a fault of this program"))??;
    if !wanted.fleet {
        return Ok(json(own));
    }
    // The picture is an object that is never empty.
    let of_fleet = fleet::traffic(&api).await;
    let rest = own.strip_suffix(b"}").unwrap_or_default();
    Ok(json(Bytes::from([rest, b",\"fleet_traffic\":", &of_fleet, b"}"].concat())))
}

/// The picture without the fleet.
async fn own(api: Arc<Api>) -> Result<Bytes, Problem> {
    let mut cached = api.cached_picture.own.lock().await;
    let fresh = cached.as_ref().filter(|(made, _)| made.elapsed() < FRESH).map(|(_, bytes)| bytes.clone());
    let bytes = match fresh {
        Some(bytes) => bytes,
        None => {
            let asked = Arc::clone(&api);
            let made = tokio::task::spawn_blocking(move || serde_json::to_vec(&now::now(&asked))).await;
            let fault = || Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "a fault of this program");
            let bytes = Bytes::from(made.map_err(|_| fault())?.map_err(|_| fault())?);
            *cached = Some((Instant::now(), bytes.clone()));
            bytes
        }
    };
    Ok(bytes)
}

fn json(bytes: Bytes) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (headers, bytes).into_response()
}

/// Which part of the last day is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    region: Option<String>,
}

/// The last day: the states of all regions, or all that is kept of one; and the events to mark.
pub(super) async fn timeline(
    State(api): State<Arc<Api>>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(asked) = asked.map_err(|rejection| {
        let how = "ask as /v1/timeline, or as /v1/timeline?region=eu-frankfurt";
        Problem::new(StatusCode::BAD_REQUEST, format!("{}; {how}", rejection.body_text()))
    })?;
    let marks = api.picture.events(crate::program::picture::events::Events::marks);
    let with_marks = |mut of: Value| {
        of["marks"] = serde_json::to_value(&marks).unwrap_or_default();
        Json(of).into_response()
    };
    let Some(region) = asked.region else {
        return Ok(with_marks(api.picture.timeline(|kept| serde_json::to_value(kept.overview())).unwrap_or_default()));
    };
    let of = api.picture.timeline(|kept| kept.of(&region)).and_then(|of| serde_json::to_value(of).ok());
    let unknown = || Problem::new(StatusCode::NOT_FOUND, "region: nothing was noted of it in the last 24 hours");
    of.map(with_marks).ok_or_else(unknown)
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
    let Query(own) = Query::<Question>::try_from_uri(&uri).map_err(|error| how_to_ask(&error.body_text()))?;
    if own.all {
        let message = "all: every fence is the same for all nodes with the same rules; ask /v1/explain?all=true of one";
        return Err(Problem::new(StatusCode::BAD_REQUEST, message));
    }
    let own = explained(&api, &own)?;
    let mut nodes = BTreeMap::from([(api.node.clone(), serde_json::to_value(own).unwrap_or_default())]);
    let mut missing = Vec::new();
    let name = |peer: &str| {
        let known = api.handle.fleet().with(|known| known.peers.iter().find(|one| one.url == peer)?.node.clone());
        known.unwrap_or_else(|| peer.to_owned())
    };
    let add = |peer: &str, answer: Result<Vec<u8>, String>| {
        let read = |bytes: Vec<u8>| serde_json::from_slice::<Value>(&bytes).map_err(|error| error.to_string());
        match answer.and_then(read) {
            Ok(explained) => _ = nodes.insert(name(peer), explained),
            Err(why) => missing.push(Missing { peer: peer.to_owned(), why }),
        }
    };
    let asked = ask_others(&api.fleet, &format!("/v1/explain?{question}"), MAX_ANSWER, add).await;
    asked.map_err(|errors| Problem::all(StatusCode::INTERNAL_SERVER_ERROR, errors))?;
    Ok(Json(ByNode { asked: api.node.clone(), nodes, missing }))
}
