//! `POST /v1/observations`. Takes what one Worker's isolate counted, adds it to the sums of this node.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use bailiwick_rules::observe::{Batch, Refusal};
use serde::Serialize;

use super::Api;
use super::reply::Problem;

/// The largest batch, in bytes.
pub(super) const MAX_BATCH: usize = 1 << 20;

/// What became of a batch.
#[derive(Debug, Serialize)]
pub(super) struct Added {
    /// Entries that were added.
    added: usize,
    /// Entries that were dropped, because the rules don't have their names or there are too many.
    dropped: usize,
    /// Batches of this isolate that didn't arrive since its last.
    missed: u64,
}

/// Adds a batch.
pub(super) async fn add(
    State(api): State<Arc<Api>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Added>, Problem> {
    let observed = api.handle.observed();
    let refuse = |status, why, message| {
        observed.with(|sums| sums.note_refused(why));
        Problem::new(status, message)
    };
    let body = body.map_err(|rejection| refuse(rejection.status(), "too_large", rejection.body_text()))?;
    let batch = Batch::read(&body).map_err(|malformed| {
        refuse(
            StatusCode::BAD_REQUEST,
            "malformed",
            format!("{malformed}; a Worker of the same version sends the form"),
        )
    })?;
    let (snapshot, now) = (api.handle.snapshot_owned(), api.handle.now());
    let at = batch.at;
    match observed.with(|sums| sums.take(batch, snapshot.table(), now)) {
        Ok(outcome) => Ok(Json(Added { added: outcome.added, dropped: outcome.dropped, missed: outcome.missed })),
        Err(Refusal::Replayed(last)) => {
            let message = format!("a batch of this isolate with number {last} was added; a number is used once");
            Err(Problem::new(StatusCode::CONFLICT, message))
        }
        Err(Refusal::Time) => {
            let message = format!("at: {at} is more than 5 minutes from this node's time, {now}; set the clocks");
            Err(Problem::new(StatusCode::BAD_REQUEST, message))
        }
        Err(Refusal::Full) => {
            let message = "this node hears of more isolates than it remembers; spread Workers over more nodes";
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, message))
        }
    }
}
