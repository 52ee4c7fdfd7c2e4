//! The DNS queries of all nodes of the fleet, for the page at `/ui/`. Takes the counts of this node and of its peers,
//! returns their sum as JSON. Called for `/v1/picture`. Other nodes are asked at most every 30 seconds, however many
//! pages are open, and no page waits long for them.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use bailiwick_rules::fleet::traffic::{Missing, TrafficReport};
use bailiwick_rules::time::Timestamp;
use serde::Serialize;
use tokio::sync::Mutex;

use super::super::traffic::of_fleet;
use super::Api;
use super::now::{Flows, SPAN, largest};

/// How often other nodes are asked at most.
const EVERY: Duration = Duration::from_secs(30);
/// An older sum isn't returned. It is that old only if nobody asked for long.
const TOO_OLD: Duration = Duration::from_secs(90);
/// How long the first who asks waits for the other nodes.
const FIRST: Duration = Duration::from_secs(2);
/// The longest answer of another node that is read, in bytes.
const MAX_ANSWER: usize = 16 << 20;

/// The last sum of all nodes.
#[derive(Debug, Default)]
pub(super) struct Cached {
    /// When other nodes were asked last. Locked while they are asked.
    asked_at: Mutex<Option<Instant>>,
    /// The sum as JSON, and when it was made.
    answer: std::sync::Mutex<Option<(Instant, Bytes)>>,
}

/// The queries of all nodes.
#[derive(Serialize)]
struct FleetTraffic {
    at: Timestamp,
    #[serde(flatten)]
    flows: Flows,
    missing: Vec<Missing>,
}

/// The last sum as JSON; `null` if there is none yet.
pub(super) async fn traffic(api: &Arc<Api>) -> Bytes {
    let cached_answer = || {
        let answer = api.cached_picture.fleet.answer.lock().unwrap_or_else(PoisonError::into_inner);
        answer.as_ref().filter(|(made_at, _)| made_at.elapsed() < TOO_OLD).map(|(_, bytes)| bytes.clone())
    };
    // A task of its own, which goes on if nobody waits for it.
    let asking = tokio::spawn(ask(Arc::clone(api)));
    if cached_answer().is_none() {
        _ = tokio::time::timeout(FIRST, asking).await;
    }
    cached_answer().unwrap_or(Bytes::from_static(b"null"))
}

/// Asks all nodes, unless they were asked just now.
async fn ask(api: Arc<Api>) {
    let cached = &api.cached_picture.fleet;
    let mut asked_at = cached.asked_at.lock().await;
    if asked_at.is_some_and(|asked_at| asked_at.elapsed() < EVERY) {
        return;
    }
    *asked_at = Some(Instant::now());
    let at = api.handle.now();
    let report = of_fleet(&api, SPAN, MAX_ANSWER).await;
    let Ok(bytes) = report.map_err(drop).and_then(|report| to_json(report, at)) else { return };
    *cached.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), bytes));
}

fn to_json(mut report: TrafficReport, at: Timestamp) -> Result<Bytes, ()> {
    let missing = std::mem::take(&mut report.missing);
    let traffic = FleetTraffic { at, flows: largest(report, at), missing };
    serde_json::to_vec(&traffic).map(Bytes::from).map_err(drop)
}
