//! `/v1/releases`: takes one snapshot, returns what each endpoint runs and what of it differs.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use bailiwick_rules::report::ReleasesReport;

use super::Api;

/// The releases of the rules in service.
pub(super) async fn releases(State(api): State<Arc<Api>>) -> Json<ReleasesReport> {
    let (snapshot, now) = (api.handle.snapshot_owned(), api.handle.now());
    let (node, revision) = (api.node.clone(), snapshot.table().revision().number);
    Json(ReleasesReport { node, at: now, revision, releases: snapshot.running(now) })
}
