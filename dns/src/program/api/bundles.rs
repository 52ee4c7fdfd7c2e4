//! `GET /v1/bundles`, by which applications fetch bundles. A bundle is a named set of files, such as prompts; the rules
//! say which version each region gets. Takes a bundle's name and the version that the caller has; returns the manifest
//! (list of files) of the version that the caller's region gets, or a file of it. On request it waits until there is
//! another version. During a rollout of the bundle, the manifest also names the new version, and the share of the
//! sessions that get it.
//!
//! The caller's region is that of its token ([`Tokens::region`](super::token::Tokens::region)). A caller without such a
//! token may name a region; otherwise it gets the version for callers without a region.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, ETAG, RETRY_AFTER, VARY, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bailiwick_rules::bundle::{File, Version};
use bailiwick_rules::id::{BundleId, RegionId, RolloutId};
use bailiwick_rules::table::Table;
use bailiwick_rules::time::{Millis, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep_until};

use super::Api;
use super::reply::{Problem, is_known};
use super::sending::SendPermit;
use crate::state::bundles::{Resolved, StoredVersion};

/// The longest that a request may wait for another version.
const LONGEST_WAIT: Millis = Millis(60_000);
/// How many seconds a caller should wait before it asks again for a version that isn't here yet.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("2");
/// The version that an answer is of.
const VERSION: HeaderName = HeaderName::from_static("x-bailiwick-bundle-version");
/// The version that is pinned, where the answer is of an earlier one.
const PINNED: HeaderName = HeaderName::from_static("x-bailiwick-bundle-pinned");

/// The query of a request for a bundle.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BundleQuery {
    /// The caller's region.
    region: Option<String>,
    /// A version, whatever version the rules pin.
    version: Option<String>,
    /// How long the node waits for another version than the one that the caller has.
    wait: Option<String>,
    /// The form of the answer: `pack` is all files in one piece.
    #[serde(rename = "as")]
    form: Option<String>,
}

/// The files of a version.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ManifestReport {
    /// The bundle.
    pub(crate) bundle: BundleId,
    /// The version.
    pub(crate) version: Version,
    /// The size of all files together.
    pub(crate) bytes: u64,
    /// The files, sorted by path.
    pub(crate) files: Vec<File>,
    /// The new version that some sessions get, while a rollout is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rollout: Option<RegionRollout>,
}

/// The new version that a rollout gives to some sessions of a region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RegionRollout {
    /// The rollout. Its name decides, with that of the session, who gets the new version first.
    pub(crate) name: RolloutId,
    /// The new version.
    pub(crate) version: Version,
    /// The share of the sessions that get it, in per cent.
    pub(crate) share: u8,
    /// The region whose share this is. An application sends it, with the version that it chose, with its requests. The
    /// rollout is judged by those of them that this region serves.
    pub(crate) region: RegionId,
}

/// The bundles of a node, or of NATS.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct ListReport {
    /// By name.
    pub(crate) bundles: BTreeMap<BundleId, BundleReport>,
}

/// A bundle.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct BundleReport {
    /// The version that the rules pin for all regions but those below; null: they don't name it.
    pub(crate) pinned: Option<Version>,
    /// Regions with another version.
    #[serde(default)]
    pub(crate) regions: BTreeMap<RegionId, Version>,
    /// Pinned versions that aren't here.
    #[serde(default)]
    pub(crate) missing: Vec<Version>,
    /// What is held, the newest first.
    pub(crate) versions: Vec<VersionReport>,
    /// The rollout that moves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rollout: Option<BundleRollout>,
}

/// A rollout of a bundle.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct BundleRollout {
    /// Its name.
    pub(crate) name: RolloutId,
    /// The new version.
    pub(crate) version: Version,
    /// The shares of the regions that have begun, in per cent.
    pub(crate) shares: BTreeMap<RegionId, u8>,
}

/// A version that is held.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct VersionReport {
    /// The version.
    pub(crate) version: Version,
    /// How many files it has; absent if its manifest wasn't read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) files: Option<usize>,
    /// How many bytes these have.
    pub(crate) bytes: u64,
    /// When this node, or NATS, got it.
    pub(crate) came: Timestamp,
}

/// All bundles that are held or pinned.
pub(super) async fn list(State(api): State<Arc<Api>>) -> Json<ListReport> {
    let snapshot = api.handle.snapshot_owned();
    let mut listed = ListReport::default();
    for (name, versions_of_bundle) in api.bundles.all() {
        let report = |(version, stored): (Version, StoredVersion)| VersionReport {
            version,
            files: Some(stored.manifest.files().len()),
            bytes: stored.manifest.bytes(),
            came: stored.came,
        };
        let mut versions: Vec<VersionReport> = versions_of_bundle.into_iter().map(report).collect();
        versions.sort_by_key(|report| (std::cmp::Reverse(report.came), report.version));
        listed.bundles.insert(name, BundleReport { versions, ..BundleReport::default() });
    }
    listed.pin(snapshot.table());
    Json(listed)
}

impl ListReport {
    /// Adds what rules pin, and what of that isn't among the versions that are there.
    pub(crate) fn pin(&mut self, table: &Table) {
        for (name, pins) in table.bundles() {
            let report = self.bundles.entry(name.clone()).or_default();
            let here: BTreeSet<Version> = report.versions.iter().map(|here| here.version).collect();
            let named = table.bundle_versions().filter(|(bundle, ..)| *bundle == name).map(|(.., version)| version);
            let missing: BTreeSet<Version> = named.filter(|version| !here.contains(version)).collect();
            report.missing = missing.into_iter().collect();
            report.rollout = table.rollout_of_bundle(name).and_then(|rollout| {
                let shares = rollout.rule.progress.as_ref().map(|progress| progress.shares.clone()).unwrap_or_default();
                Some(BundleRollout { name: rollout.id.clone(), version: rollout.bundle()?.1, shares })
            });
            (report.pinned, report.regions) = (Some(pins.version), pins.regions.clone());
        }
    }
}

/// The version of a bundle that a caller gets now.
struct ServedVersion {
    name: BundleId,
    version: Version,
    stored: StoredVersion,
    /// The version that the rules pin, if it isn't here yet and another one is served instead.
    pinned: Option<Version>,
    /// The new version that some sessions get.
    rollout: Option<RegionRollout>,
}

impl ServedVersion {
    /// The entity tag of its manifest. It changes with each step of a rollout, so that a caller that waits gets an
    /// answer.
    fn tag(&self) -> String {
        match &self.rollout {
            None => format!("\"{}\"", self.version),
            // No name has a slash.
            Some(RegionRollout { name, version, share, region }) => {
                format!("\"{}/{name}/{version}/{share}/{region}\"", self.version)
            }
        }
    }
}

/// The manifest of a bundle, or its pack.
pub(super) async fn one(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    query: Result<Query<BundleQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (name, query) = (bundle(&name)?, parse_query(query)?);
    let region = region_of(&api, &query, &headers)?;
    let served = await_other(&api, &name, region.as_ref(), &query, &headers).await?;
    let tag = served.tag();
    if is_known(&headers, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, headers_for(&served, &tag)).into_response());
    }
    match query.form.as_deref() {
        None => {
            let ServedVersion { name, version, stored, rollout, .. } = &served;
            let (bytes, files) = (stored.manifest.bytes(), stored.manifest.files().to_vec());
            let report =
                ManifestReport { bundle: name.clone(), version: *version, bytes, files, rollout: rollout.clone() };
            Ok((headers_for(&served, &tag), Json(report)).into_response())
        }
        Some("pack") => {
            let permit = permit(&api, served.stored.manifest.bytes())?;
            let (bundles, name, version) = (api.bundles.clone(), served.name.clone(), served.version);
            let pack = tokio::task::spawn_blocking(move || bundles.pack(&name, version)).await.ok().flatten();
            let pack = pack.ok_or_else(damaged)?;
            let mut headers = headers_for(&served, &tag);
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
            Ok((headers, permit.carry(pack)).into_response())
        }
        Some(other) => Err(bad_request(format!("as: is {other:?}; write as=pack, or leave it out for the manifest"))),
    }
}

/// A file of a bundle, as it was pushed.
pub(super) async fn file(
    State(api): State<Arc<Api>>,
    Path((name, path)): Path<(String, String)>,
    query: Result<Query<BundleQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (name, query) = (bundle(&name)?, parse_query(query)?);
    if query.wait.is_some() || query.form.is_some() {
        return Err(bad_request("wait and as are for /v1/bundles/NAME; a file takes region and version"));
    }
    let region = region_of(&api, &query, &headers)?;
    let served = current(&api, &name, region.as_ref(), &query)?;
    let Some((file, _)) = served.stored.manifest.file(&path) else {
        let message = format!("version {} of bundle {name} has no such file; its manifest lists them", served.version);
        return Err(Problem::new(StatusCode::NOT_FOUND, message));
    };
    let tag = format!("\"{}\"", file.sha256);
    let mut answered = headers_for(&served, &tag);
    if is_known(&headers, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, answered).into_response());
    }
    let permit = permit(&api, file.bytes)?;
    let (bundles, stored, version) = (api.bundles.clone(), served.stored.clone(), served.version);
    let read = tokio::task::spawn_blocking(move || bundles.file(&name, version, &stored, &path)).await;
    let content = read.ok().flatten().ok_or_else(damaged)?;
    answered.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    answered.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok((answered, permit.carry(content)).into_response())
}

/// The version that the caller gets: at once if it isn't the version that the caller has, else as soon as there is
/// another one, or after the time that the caller wants to wait.
async fn await_other(
    api: &Api,
    name: &BundleId,
    region: Option<&RegionId>,
    query: &BundleQuery,
    headers: &HeaderMap,
) -> Result<ServedVersion, Problem> {
    let wait = query.wait.as_deref().map(Millis::parse);
    let Some(wait) = wait.unwrap_or(Some(Millis(0))).filter(|wait| *wait <= LONGEST_WAIT) else {
        return Err(bad_request("wait: write a duration up to 60s, such as wait=30s"));
    };
    let deadline = Instant::now() + wait.to_std();
    // Before the first look, so that a change meanwhile is seen.
    let mut changes = api.bundles.follow();
    let mut waiting = None;
    loop {
        let served = current(api, name, region, query)?;
        let is_same = is_known(headers, &served.tag());
        if !is_same || Instant::now() >= deadline || api.bundles.is_closed() {
            return Ok(served);
        }
        if waiting.is_none() {
            waiting = Some(api.waiting.try_acquire().map_err(|_| {
                let message = "too many requests wait for bundles here; ask again in a while, or ask another node";
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, message).with(RETRY_AFTER, RETRY_AFTER_SECONDS)
            })?);
        }
        tokio::select! {
            _ = changes.changed() => {}
            () = sleep_until(deadline) => {}
        }
    }
}

/// The version that the caller gets now.
fn current(
    api: &Api,
    name: &BundleId,
    region: Option<&RegionId>,
    query: &BundleQuery,
) -> Result<ServedVersion, Problem> {
    let is_gone = |version| {
        let message = format!("this node holds no version {version} of bundle {name}; /v1/bundles lists what it holds");
        Problem::new(StatusCode::NOT_FOUND, message)
    };
    let (version, pinned) = match &query.version {
        Some(text) => {
            let version = Version::parse(text).ok_or_else(|| bad_request("version: write all of its 64 digits"))?;
            (version, None)
        }
        None => match api.bundles.resolve(api.handle.snapshot().table(), name, region) {
            Resolved::Serves { version, pinned } => (version, (pinned != version).then_some(pinned)),
            Resolved::Unpinned => {
                let message = format!(
                    "the rules pin no version of bundle {name}; add \"bundles\": {{\"{name}\": {{\"version\": \
                     \"…\"}}}} to them, or ask for a version by ?version="
                );
                return Err(Problem::new(StatusCode::NOT_FOUND, message));
            }
            Resolved::Missing(version, why) => {
                let why = why.map_or_else(String::new, |why| format!(" ({why})"));
                let message = format!("version {version} of bundle {name} is pinned, and isn't on this node yet{why}");
                return Err(
                    Problem::new(StatusCode::SERVICE_UNAVAILABLE, message).with(RETRY_AFTER, RETRY_AFTER_SECONDS)
                );
            }
        },
    };
    let stored = api.bundles.stored(name, version).ok_or_else(|| is_gone(version))?;
    // Only a manifest of the pinned version names the new version of a rollout.
    let may_offer_rollout = query.version.is_none() && query.form.is_none() && pinned.is_none();
    let rollout = if may_offer_rollout { rollout_of(api, name, region, version) } else { None };
    Ok(ServedVersion { name: name.clone(), version, stored, pinned, rollout })
}

/// The new version of a bundle in a region where the others get `version`. `None` as long as it isn't here: an
/// application that learnt of it couldn't fetch it.
fn rollout_of(api: &Api, name: &BundleId, region: Option<&RegionId>, version: Version) -> Option<RegionRollout> {
    let snapshot = api.handle.snapshot();
    let table = snapshot.table();
    let new = table.new_bundle_version(name, region).filter(|_| table.bundle_version(name, region) == Some(version))?;
    api.bundles.stored(name, new.version)?;
    let region = region?.clone();
    Some(RegionRollout { name: new.rollout.clone(), version: new.version, share: new.share, region })
}

/// The region that is asked for: that of the token, or the one named.
fn region_of(api: &Api, query: &BundleQuery, headers: &HeaderMap) -> Result<Option<RegionId>, Problem> {
    let authorization = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let snapshot = api.handle.snapshot();
    match (api.tokens.region(authorization), &query.region) {
        (Some(own), Some(named)) if own.as_str() != named => {
            let message = format!("this token is of region {own}; leave region out, or send another token");
            Err(Problem::new(StatusCode::FORBIDDEN, message))
        }
        (Some(own), _) => Ok(Some(own.clone())),
        (None, None) => Ok(None),
        (None, Some(named)) => match snapshot.table().region_named(named) {
            Some(region) => Ok(Some(snapshot.table().region(region).id.clone())),
            None => Err(bad_request("region: there is no such region in the rules")),
        },
    }
}

fn parse_query(query: Result<Query<BundleQuery>, QueryRejection>) -> Result<BundleQuery, Problem> {
    let how = "ask as /v1/bundles/NAME?region=uk-london&wait=30s, or with version, or with as=pack";
    query.map(|Query(query)| query).map_err(|rejection| bad_request(format!("{}; {how}", rejection.body_text())))
}

/// The bundle of a path.
pub(super) fn bundle(name: &str) -> Result<BundleId, Problem> {
    BundleId::parse(name).ok_or_else(|| {
        bad_request(
            "this is no bundle's name; use 1 to 63 letters, digits, '-', '_' or '.', beginning with a letter or digit",
        )
    })
}

fn bad_request(message: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, message)
}

/// Permission to send this many bytes.
fn permit(api: &Api, bytes: u64) -> Result<SendPermit, Problem> {
    api.sending.permit(bytes).ok_or_else(|| {
        let message = "too much of bundles is being sent here; ask again in a while, or ask another node";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, message).with(RETRY_AFTER, RETRY_AFTER_SECONDS)
    })
}

fn damaged() -> Problem {
    let message = "this version was damaged on the disk and is removed; it is fetched again if it is pinned";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, message).with(RETRY_AFTER, RETRY_AFTER_SECONDS)
}

/// The headers of an answer.
fn headers_for(served: &ServedVersion, tag: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let versions = [(ETAG, Some(tag.to_owned())), (VERSION, Some(served.version.to_string()))];
    for (name, value) in versions.into_iter().chain([(PINNED, served.pinned.map(|pinned| pinned.to_string()))]) {
        headers.extend(value.and_then(|value| HeaderValue::from_str(&value).ok()).map(|value| (name, value)));
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(VARY, HeaderValue::from_static("authorization"));
    headers
}
