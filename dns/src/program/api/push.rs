//! `PUT /v1/bundles/NAME`, by which a version of a bundle (a named set of files for applications) is stored on this
//! node. Takes a pack (all files of a version in one piece), returns the version. Also checks for [`super::publish`]
//! whether the versions that new rules pin are on this node or on any of its peers. The rules pin a version of a
//! bundle: they say which version is served, unless a rollout is under way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use bailiwick_rules::bundle::Version;
use bailiwick_rules::id::BundleId;
use bailiwick_rules::table::Table;
use serde::{Deserialize, Serialize};

use super::Api;
use super::bundles::{ManifestReport, bundle};
use super::reply::Problem;
use crate::state::bundles::PutError;
use crate::state::fleet::ask_others;

/// The largest manifest that is read from a peer, in bytes: a thousand files with the longest paths.
const LARGEST_MANIFEST: usize = 1 << 20;

/// The answer after a pack was stored.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Pushed {
    /// The bundle.
    pub(crate) bundle: BundleId,
    /// The version, by which the rules pin it.
    pub(crate) version: Version,
    /// How many files it has.
    pub(crate) files: usize,
    /// How many bytes these have.
    pub(crate) bytes: u64,
    /// Whether this node didn't have it before.
    pub(crate) is_new: bool,
}

/// Takes a pack.
pub(super) async fn put(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<Pushed>), Problem> {
    let name = bundle(&name)?;
    if api.fleet.nats.is_some() {
        let message = "the bundles of this node come from NATS; push there, with `bailiwick bundle push --config \
            publisher.toml`";
        return Err(Problem::new(StatusCode::FORBIDDEN, message));
    }
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "a bundle has 64 MiB at most; split it")
        }
        status => Problem::new(status, rejection.body_text()),
    })?;
    let (bundles, snapshot, now) = (api.bundles.clone(), api.handle.snapshot_owned(), api.handle.now());
    let bundle = name.clone();
    let result = tokio::task::spawn_blocking(move || bundles.put((&name, None), &body, snapshot.table(), now)).await;
    let result = result.map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "a fault of this program"))?;
    let (version, stored, is_new) = result.map_err(|refused| {
        let status = match refused {
            PutError::Unfit(_) | PutError::Other(_) => StatusCode::UNPROCESSABLE_ENTITY,
            PutError::NoFolder => StatusCode::CONFLICT,
            PutError::TooMany | PutError::Disk(_) => StatusCode::INSUFFICIENT_STORAGE,
        };
        Problem::new(status, refused.to_string())
    })?;
    let (files, bytes) = (stored.manifest.files().len(), stored.manifest.bytes());
    if is_new {
        tracing::info!(
            json.event = "bundle_pushed", %bundle, %version, files, bytes, "bundle {bundle} {version} is here"
        );
    }
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(Pushed { bundle, version, files, bytes, is_new })))
}

/// Refuses rules that newly pin a version, or roll one out, that neither this node nor any of its peers has. Versions
/// that the present rules name already aren't checked, so that a lost version doesn't prevent other changes.
pub(super) async fn check_pins(api: &Api, table: &Table) -> Result<(), Problem> {
    let snapshot = api.handle.snapshot_owned();
    let mut lacking: BTreeMap<(&BundleId, Version), String> = BTreeMap::new();
    let before: BTreeSet<_> = snapshot.table().bundle_versions().map(|(name, _, version)| (name, version)).collect();
    for (name, place, version) in table.bundle_versions() {
        if !before.contains(&(name, version)) && api.bundles.stored(name, version).is_none() {
            lacking.entry((name, version)).or_insert(place);
        }
    }
    let mut errors = Vec::new();
    for ((name, version), place) in lacking {
        if !is_at_a_peer(api, name, version).await {
            let does = if place.starts_with("/rollouts") { "rolls out" } else { "pins" };
            errors.push(format!(
                "{place}: {does} version {version}, which neither this node nor any of its peers has; push it first: \
                 bailiwick bundle push FOLDER --name {name}"
            ));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(Problem::all(StatusCode::UNPROCESSABLE_ENTITY, errors)) }
}

/// Whether any peer has a version.
async fn is_at_a_peer(api: &Api, name: &BundleId, version: Version) -> bool {
    let mut is_there = false;
    let path = format!("/v1/bundles/{name}?version={version}");
    let each = |_: &str, answer: Result<Vec<u8>, String>| {
        let manifest = answer.ok().and_then(|bytes| serde_json::from_slice::<ManifestReport>(&bytes).ok());
        is_there |= manifest.is_some_and(|manifest| manifest.version == version);
    };
    // If peers can't be asked, none has it, as far as anybody knows.
    ask_others(&api.fleet, &path, LARGEST_MANIFEST, each).await.is_ok() && is_there
}
