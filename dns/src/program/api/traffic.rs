//! `/v1/traffic`: takes a span and a service, returns queries by service, country, region and source.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use bailiwick_rules::fleet::traffic::{KEPT, TrafficReport};
use bailiwick_rules::time::{Millis, Timestamp};
use serde::Deserialize;

use super::Api;
use super::reply::Problem;
use crate::program::metrics::Wanted;
use crate::text::nearest::suggestion;

/// What is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    /// For how long back, such as `24h`; else all that is kept, seven days.
    since: Option<String>,
    /// Of which service; else of all.
    service: Option<String>,
    /// Whether each bucket is told by itself.
    #[serde(default)]
    buckets: bool,
}

fn how_to_ask(wrong: &str) -> Problem {
    let how = "ask as /v1/traffic?since=24h&service=chat, or with buckets=true for each bucket by itself";
    Problem::new(StatusCode::BAD_REQUEST, format!("{wrong}; {how}"))
}

/// The queries that this node answered.
pub(super) async fn traffic(
    State(api): State<Arc<Api>>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Json<TrafficReport>, Problem> {
    let Query(asked) = asked.map_err(|rejection| how_to_ask(&rejection.body_text()))?;
    let span = match &asked.since {
        None => KEPT,
        Some(text) => Millis::parse(text)
            .filter(|span| *span <= KEPT)
            .ok_or_else(|| how_to_ask(&format!("since: {text:?} is no duration of at most 168h")))?,
    };
    let snapshot = api.handle.snapshot_owned();
    let services = || snapshot.table().services().iter().map(|service| service.id.as_str());
    if let Some(service) = asked.service.as_deref().filter(|service| !services().any(|one| one == *service)) {
        let message = format!("service: the rules have no service {service:?}; {}", suggestion(service, services()));
        return Err(Problem::new(StatusCode::BAD_REQUEST, message));
    }
    let now = api.handle.now();
    let since = Timestamp(now.0.saturating_sub(i64::try_from(span.0).unwrap_or(i64::MAX)));
    let wanted = Wanted { since, service: asked.service.as_deref(), apart: asked.buckets };
    Ok(Json(api.metrics.traffic(now, wanted)))
}
