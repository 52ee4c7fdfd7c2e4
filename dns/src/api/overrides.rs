//! The API's writing half: overrides, which force a region up or down until a time, for a reason.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use bailiwick_rules::health::{Forced, Status};
use bailiwick_rules::id::RegionId;
use bailiwick_rules::table::{RegionIndex, Table};
use bailiwick_rules::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::Api;
use super::reply::Problem;
use crate::nearest::suggestion;
use crate::owner::{Kept, OverrideError};

/// The longest reason, in characters.
const LONGEST_REASON: usize = 500;

/// An override as it is told.
#[derive(Debug, Serialize)]
pub(super) struct Told {
    region: RegionId,
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
    overrides: Vec<Told>,
}

/// All overrides that have not ended, the API's first.
pub(super) async fn list(State(api): State<Arc<Api>>) -> Json<List> {
    let (snapshot, now) = (api.handle.snapshot_owned(), api.handle.now());
    let by_api = snapshot.health().overrides.iter().map(|(region, forced)| Told {
        region: region.clone(),
        status: forced.status,
        until: forced.until,
        reason: forced.reason.clone(),
        source: "api",
        kept: None,
    });
    let table = snapshot.table();
    let by_rules = (0..).map(RegionIndex).take(table.regions().len()).filter_map(|index| {
        let forced = table.override_of(index)?;
        Some(Told {
            region: forced.region.clone(),
            status: forced.status,
            until: forced.until,
            reason: forced.reason.clone(),
            source: "rules",
            kept: None,
        })
    });
    Json(List { overrides: by_api.chain(by_rules).filter(|told| told.until > now).collect() })
}

/// The body of `POST /v1/overrides`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    region: String,
    status: Status,
    until: Timestamp,
    reason: String,
}

/// Forces a region's status. Queries see it when the response leaves.
pub(super) async fn set(
    State(api): State<Arc<Api>>,
    body: Result<Json<Wanted>, JsonRejection>,
) -> Result<Json<Told>, Problem> {
    let Json(wanted) = body.map_err(|rejection| {
        let message = format!(
            "{}; send JSON such as {{\"region\": \"uk-london\", \"status\": \"down\", \"until\": \"2026-12-01T06:00:00Z\", \"reason\": \"drill\"}}",
            rejection.body_text()
        );
        Problem::new(rejection.status(), message)
    })?;
    let region = known_region(api.handle.snapshot().table(), &wanted.region)?;
    let errors = wanted.errors(api.handle.now());
    if !errors.is_empty() {
        return Err(Problem::all(StatusCode::BAD_REQUEST, errors));
    }
    let forced = Forced { status: wanted.status, until: wanted.until, reason: wanted.reason };
    let kept = api.handle.set_override(region.clone(), forced.clone()).await.map_err(|error| refused(&error))?;
    let Forced { status, until, reason } = forced;
    Ok(Json(Told { region, status, until, reason, source: "api", kept: Some(sentence(&kept)) }))
}

#[derive(Debug, Serialize)]
pub(super) struct Ended {
    region: RegionId,
    kept: String,
}

/// Ends an override that came by the API.
pub(super) async fn end(State(api): State<Arc<Api>>, Path(region): Path<String>) -> Result<Json<Ended>, Problem> {
    // A region that has left the rules may still have its override.
    let left = api.handle.snapshot().health().overrides.keys().find(|id| id.as_str() == region).cloned();
    let region = match left {
        Some(region) => region,
        None => known_region(api.handle.snapshot().table(), &region)?,
    };
    let kept = api.handle.delete_override(region.clone()).await.map_err(|error| refused(&error))?;
    Ok(Json(Ended { region, kept: sentence(&kept) }))
}

impl Wanted {
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

fn known_region(table: &Table, name: &str) -> Result<RegionId, Problem> {
    table.region_named(name).map(|index| table.region(index).id.clone()).ok_or_else(|| {
        let suggestion = suggestion(name, table.regions().iter().map(|region| region.id.as_str()));
        Problem::new(StatusCode::NOT_FOUND, format!("the rules have no region \"{name}\"; {suggestion}"))
    })
}

fn refused(error: &OverrideError) -> Problem {
    let status = match error {
        OverrideError::UnknownRegion(_) | OverrideError::NotForced(_) => StatusCode::NOT_FOUND,
        OverrideError::NoStatus | OverrideError::Ended(_) => StatusCode::BAD_REQUEST,
        OverrideError::Stopped => StatusCode::SERVICE_UNAVAILABLE,
    };
    Problem::new(status, error.to_string())
}

fn sentence(kept: &Kept) -> String {
    match kept {
        Kept::Persisted => "in the state directory".to_owned(),
        Kept::UntilRestart(reason) => format!("until this server restarts: {reason}"),
    }
}
