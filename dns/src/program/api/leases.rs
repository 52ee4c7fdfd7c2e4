//! `POST /v1/leases`. Takes what an isolate of a Worker spent of quotas and wants of them; returns what it may spend in
//! the next seconds. A lease is a part of a quota that a node grants to an isolate (an instance of the Worker) for a
//! short time.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use bailiwick_rules::quota::{Asks, Grants};

use super::Api;
use super::reply::Problem;

/// The largest body, in bytes.
pub(super) const MAX_ASKS: usize = 1 << 17;

/// Grants what fits.
pub(super) async fn ask(State(api): State<Arc<Api>>, body: Bytes) -> Result<Json<Grants>, Problem> {
    let (isolate, asks) = Asks::read(&body).map_err(|wrong| Problem::new(StatusCode::BAD_REQUEST, wrong))?;
    let (snapshot, now) = (api.handle.snapshot_owned(), api.handle.now());
    Ok(Json(api.handle.leases().ask(snapshot.table(), isolate, &asks, now)))
}
