//! `GET /v1/fleet` and `/v1/fleet/nodes`. Takes nothing, returns what this node knows of its fleet: peers, revisions,
//! what was refused, how far it lags and how it answers; and the same of each of its peers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use bailiwick_rules::fleet::traffic::Missing;

use super::Api;
use super::reply::Problem;
use crate::program::fleet_report::{FleetReport, HeadReport, Limits, NodesReport, RefusalNow, Serving};
use crate::state::fleet::ask_others;

/// The longest answer of another node that is read, in bytes.
const MAX_ANSWER: usize = 8 << 20;

/// What this node knows of its fleet.
pub(super) async fn fleet(State(api): State<Arc<Api>>) -> Json<FleetReport> {
    Json(report(&api))
}

/// What this node and each of its peers know.
pub(super) async fn nodes(State(api): State<Arc<Api>>) -> Result<Json<NodesReport>, Problem> {
    let (mut peers, mut missing) = (BTreeMap::new(), Vec::new());
    let add = |peer: &str, answer: Result<Vec<u8>, String>| {
        let parsed = answer.and_then(|bytes| {
            serde_json::from_slice(&bytes).map_err(|error| format!("/v1/fleet tells of no fleet: {error}"))
        });
        match parsed {
            Ok(peer_report) => _ = peers.insert(peer.to_owned(), peer_report),
            Err(why) => missing.push(Missing { peer: peer.to_owned(), why }),
        }
    };
    let result = ask_others(&api.fleet, "/v1/fleet", MAX_ANSWER, add).await;
    result.map_err(|errors| Problem::all(StatusCode::INTERNAL_SERVER_ERROR, errors))?;
    Ok(Json(NodesReport { asked: report(&api), peers, missing }))
}

/// What this node knows.
pub(super) fn report(api: &Api) -> FleetReport {
    let (snapshot, now) = (api.handle.snapshot_owned(), api.handle.now());
    let revision = snapshot.table().revision();
    let serving = api.metrics.served(revision, Instant::now()).map(Serving::from);
    api.handle.fleet().with(|state| FleetReport {
        node: api.node.clone(),
        now,
        mode: api.fleet.mode.as_str().to_owned(),
        stage: api.fleet.stage,
        writer: api.fleet.writer,
        revision: revision.number,
        sha256: revision.sha256_hex(),
        connected: state.is_connected(),
        lag_seconds: state.lag(now).0 / 1000,
        awaited_revision: state.awaited.map(|(revision, _)| revision),
        head: state.head.as_ref().map(HeadReport::from),
        refused: state.refused.iter().map(|(why, count)| ((*why).to_owned(), *count)).collect(),
        last_refusal: state.last_refusal.clone().map(|(at, why)| RefusalNow { at, why }),
        nats: state.store.clone(),
        keys_sha256: snapshot.keys_sha256(),
        geoip_built: snapshot.about(now).geoip_built,
        peers: state.peers.clone(),
        serving,
        limits: Limits::from(&*api.fleet),
    })
}
