//! `/v1/traffic`: takes a span of time and a service, returns the numbers of DNS queries by service, country, region
//! and source (how the client's country was found), of this node or of all nodes of its fleet.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use bailiwick_rules::fleet::traffic::{KEPT, Missing, TrafficReport};
use bailiwick_rules::time::{Millis, Timestamp};
use serde::Deserialize;

use super::Api;
use super::reply::Problem;
use crate::program::metrics::TrafficFilter;
use crate::state::fleet::ask_others;
use crate::text::nearest::suggestion;

/// What is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TrafficQuery {
    /// For how long back, such as `24h`; else all that is kept, seven days.
    since: Option<String>,
    /// Of which service; else of all.
    service: Option<String>,
    /// Whether the answer has each bucket separately.
    #[serde(default)]
    buckets: bool,
    /// Whether the counts of all nodes of the fleet are added up.
    #[serde(default)]
    fleet: bool,
}

/// The longest answer of another node that is read, in bytes: half a million counts are fewer.
const MAX_ANSWER: usize = 128 << 20;

/// The answer to a request with a mistake.
fn how_to_ask(wrong: &str) -> Problem {
    let how = "ask as /v1/traffic?since=24h&service=chat, with buckets=true for each bucket by itself, with fleet=true \
        for all nodes";
    Problem::new(StatusCode::BAD_REQUEST, format!("{wrong}; {how}"))
}

/// The queries that this node answered, or all nodes of its fleet.
pub(super) async fn traffic(
    State(api): State<Arc<Api>>,
    query: Result<Query<TrafficQuery>, QueryRejection>,
) -> Result<Json<TrafficReport>, Problem> {
    let Query(query) = query.map_err(|rejection| how_to_ask(&rejection.body_text()))?;
    let span = match &query.since {
        None => KEPT,
        Some(text) => Millis::parse(text)
            .filter(|span| *span <= KEPT)
            .ok_or_else(|| how_to_ask(&format!("since: {text:?} is no duration of at most 168h")))?,
    };
    let snapshot = api.handle.snapshot_owned();
    let services = || snapshot.table().services().iter().map(|service| service.id.as_str());
    if let Some(service) = query.service.as_deref().filter(|service| !services().any(|known| known == *service)) {
        let message = format!("service: the rules have no service {service:?}; {}", suggestion(service, services()));
        return Err(Problem::new(StatusCode::BAD_REQUEST, message));
    }
    let mut report = traffic_of_node(&api, span, query.service.as_deref(), query.buckets);
    if query.fleet {
        add_others(&api, &query, span, MAX_ANSWER, &mut report).await?;
    }
    Ok(Json(report))
}

/// All queries that this node counted.
pub(super) fn of_all(api: &Api) -> TrafficReport {
    traffic_of_node(api, KEPT, None, false)
}

/// What this node counted in the last `span`.
fn traffic_of_node(api: &Api, span: Millis, service: Option<&str>, buckets_apart: bool) -> TrafficReport {
    let now = api.handle.now();
    let since = Timestamp(now.0.saturating_sub(i64::try_from(span.0).unwrap_or(i64::MAX)));
    api.metrics.traffic(now, TrafficFilter { since, service, buckets_apart })
}

/// What all nodes of the fleet counted in the last `span`. The answer of a node has at most `most` bytes.
pub(super) async fn of_fleet(api: &Api, span: Millis, most: usize) -> Result<TrafficReport, Problem> {
    let query = TrafficQuery { since: None, service: None, buckets: false, fleet: true };
    let mut report = traffic_of_node(api, span, None, false);
    add_others(api, &query, span, most, &mut report).await?;
    Ok(report)
}

/// Adds what the other nodes of the fleet counted. A node that doesn't answer is listed as missing.
async fn add_others(
    api: &Api,
    query: &TrafficQuery,
    span: Millis,
    most: usize,
    report: &mut TrafficReport,
) -> Result<(), Problem> {
    let mut path = format!("/v1/traffic?since={}s&buckets={}", span.0.div_ceil(1_000), query.buckets);
    if let Some(service) = &query.service {
        path = format!("{path}&service={service}");
    }
    let (mut nodes, mut missing) = (1, Vec::new());
    let add = |peer: &str, answer: Result<Vec<u8>, String>| {
        let parsed = answer.and_then(|bytes| {
            let parsed = serde_json::from_slice::<TrafficReport>(&bytes);
            parsed.map_err(|error| format!("/v1/traffic tells no traffic: {error}"))
        });
        match parsed {
            Ok(peer_report) => {
                nodes += 1;
                report.add(peer_report);
            }
            Err(why) => missing.push(Missing { peer: peer.to_owned(), why }),
        }
    };
    let result = ask_others(&api.fleet, &path, most, add).await;
    result.map_err(|errors| Problem::all(StatusCode::INTERNAL_SERVER_ERROR, errors))?;
    (report.nodes, report.missing) = (Some(nodes), missing);
    Ok(())
}
