//! The paths of the API that only read. Take requests, return metrics, health, the rules with the errors of the last
//! version, and explanations. Each answer reads one snapshot. A fence is the list of the regions that may process a
//! client's data.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, ETAG, VARY};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bailiwick_rules::explain::{Explanation, explain as explain_steering};
use bailiwick_rules::fleet::head::{Head, Stage};
use bailiwick_rules::health::supposing_down;
use bailiwick_rules::id::RegionId;
use bailiwick_rules::report::{HealthReport, VerdictReport};
use bailiwick_rules::steer::{Conditions, Local};
use bailiwick_rules::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::Api;
use super::publish::{head_header, newest_for};
use super::reply::{Problem, is_known};
use crate::program::metrics::{Format, plain, protobuf};
use crate::program::question::Question;
use crate::state::fleet::HEAD;
use crate::state::owner::{Failure, SourceStatus};
use crate::state::snapshot::Snapshot;

/// Tells that the document last offered isn't the one in service, and the first reason.
const RULES_ERROR: HeaderName = HeaderName::from_static("x-bailiwick-rules-error");
/// The longest reason a header carries; all of it stands in `/v1/rules/status`.
const MAX_REASON: usize = 500;

/// OpenMetrics for clients that ask for it, as Prometheus does, or protobuf with native histograms; the older format
/// for all others, such as `curl … | promtool check metrics`.
pub(super) async fn metrics(State(api): State<Arc<Api>>, headers: HeaderMap) -> Response {
    let format = Format::of(headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()));
    let text = api.metrics.text(&api.handle);
    let body = match format {
        Format::OpenMetrics => text.into_bytes(),
        Format::Plain => plain(&text).into_bytes(),
        Format::Protobuf => api.handle.observed().with(|sums| protobuf(&plain(&text), sums)),
    };
    let kind = HeaderValue::from_static(format.content_type());
    ([(CONTENT_TYPE, kind), (VARY, HeaderValue::from_static("accept"))], body).into_response()
}

/// `/v1/health`: the health report of this node, which Workers and other nodes read.
pub(super) async fn health(State(api): State<Arc<Api>>) -> Json<HealthReport> {
    let now = api.handle.now();
    let snapshot = api.handle.snapshot_owned();
    let mut report = snapshot.health_report(&api.node, now);
    report.about = api.fleet.is_used().then(|| snapshot.about(now));
    report.first_token_ms = api.handle.observed().with(|sums| sums.first_tokens(now).clone());
    Json(report)
}

/// Which rules are asked for.
#[derive(Debug, Deserialize)]
pub(super) struct RulesAsked {
    /// Those for all nodes of this stage; without it, those in service.
    stage: Option<Stage>,
}

/// The document in service, byte for byte, under a strong entity tag. Whoever asks for a stage that this revision isn't
/// for yet gets the newest one that is.
pub(super) async fn rules(
    State(api): State<Arc<Api>>,
    query: Result<Query<RulesAsked>, QueryRejection>,
    request: HeaderMap,
) -> Result<Response, Problem> {
    let wrong = |_| Problem::new(StatusCode::BAD_REQUEST, "stage: write canary, early or rest");
    let Query(query) = query.map_err(wrong)?;
    let snapshot = api.handle.snapshot_owned();
    let revision = snapshot.table().revision();
    let head = api.handle.fleet().with(|view| view.head_of(revision).cloned());
    let has_turn = |head: &Head| query.stage.is_none_or(|stage| head.stage >= stage);
    let (mut headers, tag, earlier) = match query.stage.filter(|_| !head.as_ref().is_none_or(has_turn)) {
        None => (HeaderMap::new(), revision.entity_tag(), None),
        Some(stage) => match newest_for(&api, stage).await? {
            Some(earlier) => (earlier.headers(), earlier.tag(), Some(earlier)),
            None => return Ok(StatusCode::NO_CONTENT.into_response()),
        },
    };
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if earlier.is_none() {
        headers.extend(HeaderValue::from_str(&tag).ok().map(|tag| (ETAG, tag)));
        headers.extend(head.as_ref().and_then(head_header).map(|value| (HEAD, value)));
    }
    if let Some(reason) = api.handle.status().rules.last_error.as_ref().and_then(header_of) {
        headers.insert(RULES_ERROR, reason);
    }
    if is_known(&request, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let bytes = earlier.map_or_else(|| snapshot.rules_bytes().to_vec(), |earlier| earlier.bytes);
    Ok((headers, bytes).into_response())
}

/// The first error of a failure, as a header can carry it.
fn header_of(failure: &Failure) -> Option<HeaderValue> {
    let fits = |c: &char| c.is_ascii_graphic() || *c == ' ';
    let reason: String = failure.errors.first()?.chars().filter(fits).take(MAX_REASON).collect();
    HeaderValue::from_str(&reason).ok()
}

/// The state of each source, with every error of the version that was refused last.
#[derive(Debug, Serialize)]
pub(super) struct SourcesReport {
    revision: u64,
    sha256: String,
    awaited_revision: Option<u64>,
    rules: SourceReport,
    zones: SourceReport,
    keys: SourceReport,
    geoip: SourceReport,
    not_persisted: Option<FailureStatus>,
    warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
struct SourceReport {
    accepted: u64,
    refused: u64,
    ignored: u64,
    accepted_at: Option<Timestamp>,
    last_error: Option<FailureStatus>,
}

#[derive(Debug, Serialize)]
struct FailureStatus {
    at: Timestamp,
    errors: Vec<String>,
}

impl From<&Failure> for FailureStatus {
    fn from(failure: &Failure) -> Self {
        Self { at: failure.at, errors: failure.errors.clone() }
    }
}

impl From<&SourceStatus> for SourceReport {
    fn from(status: &SourceStatus) -> Self {
        Self {
            accepted: status.accepted,
            refused: status.refused,
            ignored: status.ignored,
            accepted_at: status.accepted_at,
            last_error: status.last_error.as_ref().map(FailureStatus::from),
        }
    }
}

/// `/v1/rules/status`: what is in service, and what was refused.
pub(super) async fn rules_status(State(api): State<Arc<Api>>) -> Json<SourcesReport> {
    let status = api.handle.status();
    let revision = api.handle.snapshot().table().revision();
    Json(SourcesReport {
        revision: revision.number,
        sha256: revision.sha256_hex(),
        awaited_revision: status.awaited_revision,
        rules: SourceReport::from(&status.rules),
        zones: SourceReport::from(&status.zones),
        keys: SourceReport::from(&status.keys),
        geoip: SourceReport::from(&status.geoip),
        not_persisted: status.not_persisted.as_ref().map(FailureStatus::from),
        warnings: status.warnings.to_vec(),
    })
}

pub(super) fn how_to_ask(wrong: &str) -> Problem {
    let how = "ask as /v1/explain?service=chat&client=203.0.113.7 or with country, tenant, model, path, down and at, \
        or with \
               all=true for every fence";
    Problem::new(StatusCode::BAD_REQUEST, format!("{wrong}; {how}"))
}

/// One decision, and who holds the statuses it rests on.
#[derive(Debug, Serialize)]
pub(super) struct OneExplained {
    #[serde(flatten)]
    explanation: Explanation,
    /// What the voters agree on of the fence's regions; absent where the rules name no voters.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    fleet: BTreeMap<RegionId, VerdictReport>,
}

/// What the snapshot in service decides for a client, or every fence.
pub(super) async fn explain(
    State(api): State<Arc<Api>>,
    question: Result<Query<Question>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(question) = question.map_err(|rejection| how_to_ask(&rejection.body_text()))?;
    match question.all {
        true => every_fence(question, api.handle.snapshot_owned()).await,
        false => Ok(Json(explained(&api, &question)?).into_response()),
    }
}

/// Every fence. There may be millions, so this isn't done on a thread that serves connections.
async fn every_fence(question: Question, snapshot: Arc<Snapshot>) -> Result<Response, Problem> {
    let listed = tokio::task::spawn_blocking(move || {
        let all = question.overview(snapshot.table())?;
        serde_json::to_vec(&all).map_err(|error| vec![error.to_string()])
    });
    let fault = |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "a fault of this program");
    let bytes = listed.await.map_err(fault)?.map_err(|errors| Problem::all(StatusCode::BAD_REQUEST, errors))?;
    Ok(([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], bytes).into_response())
}

/// What the snapshot in service decides for a client, by its health and what is supposed to be down.
pub(super) fn explained(api: &Api, question: &Question) -> Result<OneExplained, Problem> {
    if question.service.is_none() && question.tenant.is_none() {
        return Err(how_to_ask("service: is missing"));
    }
    let snapshot = api.handle.snapshot_owned();
    let refused = |errors| Problem::all(StatusCode::BAD_REQUEST, errors);
    let understood =
        question.understand(snapshot.table(), snapshot.world().places(), api.handle.now()).map_err(refused)?;
    let health = supposing_down(&snapshot.health().regions, &understood.down);
    let conditions = Conditions { health: &health, local: &Local::default(), now: understood.at };
    let mut explained = explain_steering(snapshot.table(), &understood.ask, &conditions);
    explained.by_type = snapshot.by_type(&understood.ask, &understood.down, understood.at);
    snapshot.explain_shed(&mut explained, &understood.ask);
    let mut fleet = snapshot.fleet_report(understood.at);
    fleet.retain(|region, _| explained.fence.contains(region));
    Ok(OneExplained { explanation: explained, fleet })
}
