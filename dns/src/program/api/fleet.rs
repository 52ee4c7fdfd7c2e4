//! `GET /v1/fleet`. Takes nothing, returns what this node knows of its fleet: peers, revisions, what was refused, and
//! how far it lags.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::Api;
use crate::program::fleet_report::{FleetReport, HeadReport, Limits, RefusalNow};

/// What this node knows of its fleet.
pub(super) async fn fleet(State(api): State<Arc<Api>>) -> Json<FleetReport> {
    let (revision, now) = (api.handle.snapshot().table().revision(), api.handle.now());
    Json(api.handle.fleet().with(|known| FleetReport {
        node: api.node.clone(),
        now,
        mode: api.fleet.mode.as_str().to_owned(),
        stage: api.fleet.stage,
        writer: api.fleet.writer,
        revision: revision.number,
        sha256: revision.sha256_hex(),
        connected: known.is_connected(),
        lag_seconds: known.lag(now).0 / 1000,
        awaited_revision: known.awaited.map(|(revision, _)| revision),
        head: known.head.as_ref().map(HeadReport::from),
        refused: known.refused.iter().map(|(why, count)| ((*why).to_owned(), *count)).collect(),
        last_refusal: known.last_refusal.clone().map(|(at, why)| RefusalNow { at, why }),
        peers: known.peers.clone(),
        limits: Limits::from(&*api.fleet),
    }))
}
