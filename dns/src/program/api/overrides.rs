//! `/v1/overrides`. Takes requests that force a region or one of its endpoints up or down until a time, for a reason;
//! returns the overrides in force.

use std::sync::Arc;

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use bailiwick_rules::health::{Forced, Status};
use bailiwick_rules::id::{EndpointId, Overridden, RegionId};
use bailiwick_rules::table::{RegionIndex, Table};
use bailiwick_rules::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::Api;
use super::access::Changed;
use super::reply::Problem;
use crate::program::node_status::OverrideNow;
use crate::state::owner::{Durability, OverrideError};
use crate::state::snapshot::Snapshot;
use crate::text::nearest::suggestion;

/// The longest reason, in characters.
const LONGEST_REASON: usize = 500;

/// An override, as the API returns it.
#[derive(Debug, Serialize)]
pub(super) struct OverrideStatus {
    region: RegionId,
    /// The endpoint; absent where the region as a whole is forced.
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<EndpointId>,
    status: Status,
    until: Timestamp,
    reason: String,
    /// `api` or `rules`; the API's beats the rules'.
    source: &'static str,
    /// Where it is kept, after a change.
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct List {
    overrides: Vec<OverrideStatus>,
}

/// All overrides that have not ended, the API's first.
pub(super) async fn list(State(api): State<Arc<Api>>) -> Json<List> {
    let snapshot = api.handle.snapshot_owned();
    let overrides = all(&snapshot, api.handle.now()).map(|(of, forced, source)| OverrideStatus {
        region: of.region,
        endpoint: of.endpoint,
        status: forced.status,
        until: forced.until,
        reason: forced.reason,
        source,
        kept: None,
    });
    Json(List { overrides: overrides.collect() })
}

/// The same for `/v1/status`.
pub(super) fn in_force(snapshot: &Snapshot, now: Timestamp) -> Vec<OverrideNow> {
    let overrides = all(snapshot, now).map(|(of, forced, source)| OverrideNow {
        of: of.to_string(),
        status: forced.status,
        until: forced.until,
        reason: forced.reason,
        source: source.to_owned(),
    });
    overrides.collect()
}

/// All overrides in force: those set by the API, and those of the rules.
fn all(snapshot: &Snapshot, now: Timestamp) -> impl Iterator<Item = (Overridden, Forced, &'static str)> {
    let overrides = &snapshot.health().overrides;
    let by_api = overrides.iter().map(|(of, forced)| (of.clone(), forced.clone(), "api"));
    let table = snapshot.table();
    let of_regions = (0..).map(RegionIndex).take(table.regions().len()).filter_map(|index| table.override_of(index));
    let by_rules = of_regions.chain(table.endpoint_overrides().map(|(_, _, forced)| forced)).map(|forced| {
        let (status, until, reason) = (forced.status, forced.until, forced.reason.clone());
        (forced.of(), Forced { status, until, reason }, "rules")
    });
    by_api.chain(by_rules).filter(move |(_, forced, _)| forced.until > now)
}

/// The body of `POST /v1/overrides`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OverrideRequest {
    region: String,
    endpoint: Option<String>,
    status: Status,
    until: Timestamp,
    reason: String,
    /// Whether guards that are against it don't count.
    #[serde(default)]
    force: bool,
}

/// Forces the status of a region or an endpoint. Queries see it when the response leaves.
pub(super) async fn set(
    State(api): State<Arc<Api>>,
    body: Result<Json<OverrideRequest>, JsonRejection>,
) -> Result<(Extension<Changed>, Json<OverrideStatus>), Problem> {
    let Json(wanted) = body.map_err(|rejection| {
        let message = format!(
            "{}; send JSON such as {{\"region\": \"uk-london\", \"status\": \"down\", \"until\": \
             \"2026-12-01T06:00:00Z\", \"reason\": \"drill\"}}",
            rejection.body_text()
        );
        Problem::new(rejection.status(), message)
    })?;
    let subject = subject_in_rules(api.handle.snapshot().table(), &wanted.region, wanted.endpoint.as_deref())?;
    let errors = wanted.errors(api.handle.now());
    if !errors.is_empty() {
        return Err(Problem::all(StatusCode::BAD_REQUEST, errors));
    }
    let forced = Forced { status: wanted.status, until: wanted.until, reason: wanted.reason };
    let durability = match wanted.force {
        true => api.handle.insist_on_override(subject.clone(), forced.clone()).await,
        false => api.handle.set_override(subject.clone(), forced.clone()).await,
    };
    let durability = durability.map_err(|error| problem_of(&error))?;
    let changed = Extension(Changed(subject.to_string()));
    let Forced { status, until, reason } = forced;
    let Overridden { region, endpoint } = subject;
    let kept = Some(sentence(&durability));
    Ok((changed, Json(OverrideStatus { region, endpoint, status, until, reason, source: "api", kept })))
}

#[derive(Debug, Serialize)]
pub(super) struct Ended {
    region: RegionId,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<EndpointId>,
    kept: String,
}

/// Ends a region's override that came by the API.
pub(super) async fn end(State(api): State<Arc<Api>>, Path(region): Path<String>) -> Result<Json<Ended>, Problem> {
    end_of(&api, &region, None).await
}

/// Ends an endpoint's override that came by the API.
pub(super) async fn end_of_endpoint(
    State(api): State<Arc<Api>>,
    Path((region, endpoint)): Path<(String, String)>,
) -> Result<Json<Ended>, Problem> {
    end_of(&api, &region, Some(&endpoint)).await
}

/// Ends an override that was set by the API.
async fn end_of(api: &Api, region: &str, endpoint: Option<&str>) -> Result<Json<Ended>, Problem> {
    // What has left the rules may still have its override.
    let named = |subject: &&Overridden| subject.region.as_str() == region && subject.endpoint_name() == endpoint;
    let left = api.handle.snapshot().health().overrides.keys().find(named).cloned();
    let subject = match left {
        Some(subject) => subject,
        None => subject_in_rules(api.handle.snapshot().table(), region, endpoint)?,
    };
    let durability = api.handle.delete_override(subject.clone()).await.map_err(|error| problem_of(&error))?;
    Ok(Json(Ended { region: subject.region, endpoint: subject.endpoint, kept: sentence(&durability) }))
}

impl OverrideRequest {
    /// What is wrong with the request. All errors are listed, not only the first.
    fn errors(&self, now: Timestamp) -> Vec<String> {
        let mut errors = Vec::new();
        if self.status == Status::Unknown {
            errors.push("status: must be \"up\" or \"down\"".to_owned());
        }
        if self.until <= now {
            errors.push(format!("until: {} lies in the past; it is {now}", self.until));
        }
        let length = self.reason.chars().count();
        if self.reason.trim().is_empty() {
            errors.push("reason: is empty; say why, for whoever wonders at three in the morning".to_owned());
        } else if length > LONGEST_REASON || self.reason.chars().any(char::is_control) {
            errors.push(format!("reason: must be one line of at most {LONGEST_REASON} characters"));
        }
        errors
    }
}

/// Finds the names in the rules.
fn subject_in_rules(table: &Table, region: &str, endpoint: Option<&str>) -> Result<Overridden, Problem> {
    let unknown = |message| Problem::new(StatusCode::NOT_FOUND, message);
    let Some(index) = table.region_named(region) else {
        let suggestion = suggestion(region, table.regions().iter().map(|region| region.id.as_str()));
        return Err(unknown(format!("the rules have no region \"{region}\"; {suggestion}")));
    };
    let region = table.region(index);
    let Some(name) = endpoint else { return Ok(region.id.clone().into()) };
    let endpoints = || region.endpoints.iter().map(|(id, _)| id);
    let endpoint = endpoints().find(|id| id.as_str() == name).cloned().ok_or_else(|| {
        let suggestion = suggestion(name, endpoints().map(EndpointId::as_str));
        unknown(format!("the region \"{}\" has no endpoint \"{name}\"; {suggestion}", region.id))
    })?;
    Ok(Overridden { region: region.id.clone(), endpoint: Some(endpoint) })
}

/// The answer for an override that isn't set or ended.
fn problem_of(error: &OverrideError) -> Problem {
    let status = match error {
        OverrideError::Unknown(_) | OverrideError::NotForced(_) => StatusCode::NOT_FOUND,
        OverrideError::NoStatus | OverrideError::Ended(_) => StatusCode::BAD_REQUEST,
        OverrideError::LeavesTooFew(fences) => return Problem::all(StatusCode::CONFLICT, fences.clone()),
        OverrideError::Stopped => StatusCode::SERVICE_UNAVAILABLE,
    };
    Problem::new(status, error.to_string())
}

fn sentence(durability: &Durability) -> String {
    match durability {
        Durability::Persisted => "in the state directory".to_owned(),
        Durability::UntilRestart(reason) => format!("until this server restarts: {reason}"),
    }
}
