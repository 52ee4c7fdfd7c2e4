//! `GET /v1/bundles`: takes a bundle's name and what the caller has, returns the manifest of the version that its
//! region gets, or a file of it; and waits for another version if that is wanted. During a rollout the manifest also
//! names the new version, and the share of the sessions that get it.
//!
//! The region is that of the caller's token ([`Tokens::region`](super::token::Tokens::region)). Who has no such token
//! names one, or gets what those of no region get.

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
use super::sending::Turn;
use crate::state::bundles::{Held, Resolved};

/// The longest that a request may wait for another version.
const LONGEST_WAIT: Millis = Millis(60_000);
/// When to ask again for what isn't here yet, in seconds.
const AGAIN: HeaderValue = HeaderValue::from_static("2");
/// The version that an answer is of.
const VERSION: HeaderName = HeaderName::from_static("x-bailiwick-bundle-version");
/// The version that is pinned, where the answer is of an earlier one.
const PINNED: HeaderName = HeaderName::from_static("x-bailiwick-bundle-pinned");

/// What is asked of a bundle.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    /// As whose application.
    region: Option<String>,
    /// This version, whatever is pinned.
    version: Option<String>,
    /// For how long another version than the known one is waited for.
    wait: Option<String>,
    /// In which form: `pack` is all files in one piece.
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
    pub(crate) rollout: Option<RolloutReport>,
}

/// What a rollout brings to a region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RolloutReport {
    /// The rollout. Its name decides, with that of the session, who gets the new version first.
    pub(crate) name: RolloutId,
    /// The new version.
    pub(crate) version: Version,
    /// The share of the sessions that get it, in per cent.
    pub(crate) share: u8,
    /// The region whose share this is. Applications name it together with the version, as only what this region serves
    /// is judged by what they chose.
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
    pub(crate) rollout: Option<MoveReport>,
}

/// A rollout of a bundle.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MoveReport {
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
    /// How many files it has; absent where nobody has looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) files: Option<usize>,
    /// How many bytes these have.
    pub(crate) bytes: u64,
    /// When it came there.
    pub(crate) came: Timestamp,
}

/// All bundles that are held or pinned.
pub(super) async fn list(State(api): State<Arc<Api>>) -> Json<ListReport> {
    let snapshot = api.handle.snapshot_owned();
    let mut listed = ListReport::default();
    for (name, held) in api.bundles.all() {
        let report = |(version, held): (Version, Held)| VersionReport {
            version,
            files: Some(held.manifest.files().len()),
            bytes: held.manifest.bytes(),
            came: held.came,
        };
        let mut versions: Vec<VersionReport> = held.into_iter().map(report).collect();
        versions.sort_by_key(|one| (std::cmp::Reverse(one.came), one.version));
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
            let held: BTreeSet<Version> = report.versions.iter().map(|one| one.version).collect();
            let named = table.bundle_versions().filter(|(bundle, ..)| *bundle == name).map(|(.., version)| version);
            let missing: BTreeSet<Version> = named.filter(|version| !held.contains(version)).collect();
            report.missing = missing.into_iter().collect();
            report.rollout = table.rollout_of_bundle(name).and_then(|rollout| {
                let shares = rollout.rule.progress.as_ref().map(|progress| progress.shares.clone()).unwrap_or_default();
                Some(MoveReport { name: rollout.id.clone(), version: rollout.bundle()?.1, shares })
            });
            (report.pinned, report.regions) = (Some(pins.version), pins.regions.clone());
        }
    }
}

/// A version of a bundle that somebody gets now.
struct Found {
    name: BundleId,
    version: Version,
    held: Held,
    /// What is pinned, if that isn't here yet.
    pinned: Option<Version>,
    /// The new version that some sessions get.
    rollout: Option<RolloutReport>,
}

impl Found {
    /// The entity tag of its manifest. It is another one with each step of a rollout, so that who waits learns of it.
    fn tag(&self) -> String {
        match &self.rollout {
            None => format!("\"{}\"", self.version),
            // No name has a slash.
            Some(RolloutReport { name, version, share, region }) => {
                format!("\"{}/{name}/{version}/{share}/{region}\"", self.version)
            }
        }
    }
}

/// The manifest of a bundle, or its pack.
pub(super) async fn one(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    asked: Result<Query<Asked>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (name, asked) = (bundle(&name)?, understood(asked)?);
    let region = region_of(&api, &asked, &headers)?;
    let found = await_other(&api, &name, region.as_ref(), &asked, &headers).await?;
    let tag = found.tag();
    if is_known(&headers, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, told(&found, &tag)).into_response());
    }
    match asked.form.as_deref() {
        None => {
            let Found { name, version, held, rollout, .. } = &found;
            let (bytes, files) = (held.manifest.bytes(), held.manifest.files().to_vec());
            let report =
                ManifestReport { bundle: name.clone(), version: *version, bytes, files, rollout: rollout.clone() };
            Ok((told(&found, &tag), Json(report)).into_response())
        }
        Some("pack") => {
            let turn = turn(&api, found.held.manifest.bytes())?;
            let (bundles, name, version) = (api.bundles.clone(), found.name.clone(), found.version);
            let pack = tokio::task::spawn_blocking(move || bundles.pack(&name, version)).await.ok().flatten();
            let pack = pack.ok_or_else(damaged)?;
            let mut headers = told(&found, &tag);
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
            Ok((headers, turn.carry(pack)).into_response())
        }
        Some(other) => Err(wrong(format!("as: is {other:?}; write as=pack, or leave it out for the manifest"))),
    }
}

/// A file of a bundle, as it was pushed.
pub(super) async fn file(
    State(api): State<Arc<Api>>,
    Path((name, path)): Path<(String, String)>,
    asked: Result<Query<Asked>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (name, asked) = (bundle(&name)?, understood(asked)?);
    if asked.wait.is_some() || asked.form.is_some() {
        return Err(wrong("wait and as are for /v1/bundles/NAME; a file takes region and version"));
    }
    let region = region_of(&api, &asked, &headers)?;
    let found = current(&api, &name, region.as_ref(), &asked)?;
    let Some((file, _)) = found.held.manifest.file(&path) else {
        let message = format!("version {} of bundle {name} has no such file; its manifest lists them", found.version);
        return Err(Problem::new(StatusCode::NOT_FOUND, message));
    };
    let tag = format!("\"{}\"", file.sha256);
    let mut answered = told(&found, &tag);
    if is_known(&headers, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, answered).into_response());
    }
    let turn = turn(&api, file.bytes)?;
    let (bundles, held, version) = (api.bundles.clone(), found.held.clone(), found.version);
    let read = tokio::task::spawn_blocking(move || bundles.file(&name, version, &held, &path)).await;
    let content = read.ok().flatten().ok_or_else(damaged)?;
    answered.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    answered.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok((answered, turn.carry(content)).into_response())
}

/// The version that somebody gets: at once if it isn't the known one, else as soon as it is another, or after the time
/// that is asked for.
async fn await_other(
    api: &Api,
    name: &BundleId,
    region: Option<&RegionId>,
    asked: &Asked,
    headers: &HeaderMap,
) -> Result<Found, Problem> {
    let wait = asked.wait.as_deref().map(Millis::parse);
    let Some(wait) = wait.unwrap_or(Some(Millis(0))).filter(|wait| *wait <= LONGEST_WAIT) else {
        return Err(wrong("wait: write a duration up to 60s, such as wait=30s"));
    };
    let deadline = Instant::now() + wait.to_std();
    // Before the first look, so that a change meanwhile is seen.
    let mut changes = api.bundles.follow();
    let mut turn = None;
    loop {
        let found = current(api, name, region, asked)?;
        let is_same = is_known(headers, &found.tag());
        if !is_same || Instant::now() >= deadline || api.bundles.is_closed() {
            return Ok(found);
        }
        if turn.is_none() {
            turn = Some(api.waiting.try_acquire().map_err(|_| {
                let message = "too many requests wait for bundles here; ask again in a while, or ask another node";
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, message).with(RETRY_AFTER, AGAIN)
            })?);
        }
        tokio::select! {
            _ = changes.changed() => {}
            () = sleep_until(deadline) => {}
        }
    }
}

/// The version that somebody gets now.
fn current(api: &Api, name: &BundleId, region: Option<&RegionId>, asked: &Asked) -> Result<Found, Problem> {
    let is_gone = |version| {
        let message = format!("this node holds no version {version} of bundle {name}; /v1/bundles lists what it holds");
        Problem::new(StatusCode::NOT_FOUND, message)
    };
    let (version, pinned) = match &asked.version {
        Some(text) => {
            let version = Version::parse(text).ok_or_else(|| wrong("version: write all of its 64 digits"))?;
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
                return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, message).with(RETRY_AFTER, AGAIN));
            }
        },
    };
    let held = api.bundles.held(name, version).ok_or_else(|| is_gone(version))?;
    // Who asks for one version, or for its pack, gets that alone.
    let is_choosing = asked.version.is_none() && asked.form.is_none() && pinned.is_none();
    let rollout = if is_choosing { rollout_of(api, name, region, version) } else { None };
    Ok(Found { name: name.clone(), version, held, pinned, rollout })
}

/// The new version of a bundle in a region where the others get `version`. `None` as long as it isn't here: an
/// application that learnt of it couldn't fetch it.
fn rollout_of(api: &Api, name: &BundleId, region: Option<&RegionId>, version: Version) -> Option<RolloutReport> {
    let snapshot = api.handle.snapshot();
    let table = snapshot.table();
    let new = table.new_bundle_version(name, region).filter(|_| table.bundle_version(name, region) == Some(version))?;
    api.bundles.held(name, new.version)?;
    let region = region?.clone();
    Some(RolloutReport { name: new.rollout.clone(), version: new.version, share: new.share, region })
}

/// The region that is asked for: that of the token, or the one named.
fn region_of(api: &Api, asked: &Asked, headers: &HeaderMap) -> Result<Option<RegionId>, Problem> {
    let authorization = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let snapshot = api.handle.snapshot();
    match (api.tokens.region(authorization), &asked.region) {
        (Some(own), Some(named)) if own.as_str() != named => {
            let message = format!("this token is of region {own}; leave region out, or send another token");
            Err(Problem::new(StatusCode::FORBIDDEN, message))
        }
        (Some(own), _) => Ok(Some(own.clone())),
        (None, None) => Ok(None),
        (None, Some(named)) => match snapshot.table().region_named(named) {
            Some(region) => Ok(Some(snapshot.table().region(region).id.clone())),
            None => Err(wrong("region: there is no such region in the rules")),
        },
    }
}

fn understood(asked: Result<Query<Asked>, QueryRejection>) -> Result<Asked, Problem> {
    let how = "ask as /v1/bundles/NAME?region=uk-london&wait=30s, or with version, or with as=pack";
    asked.map(|Query(asked)| asked).map_err(|rejection| wrong(format!("{}; {how}", rejection.body_text())))
}

/// The bundle of a path.
pub(super) fn bundle(name: &str) -> Result<BundleId, Problem> {
    BundleId::parse(name).ok_or_else(|| {
        wrong(
            "this is no bundle's name; use 1 to 63 letters, digits, '-', '_' or '.', beginning with a letter or digit",
        )
    })
}

fn wrong(message: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, message)
}

/// Leave to send so many bytes.
fn turn(api: &Api, bytes: u64) -> Result<Turn, Problem> {
    api.sending.turn(bytes).ok_or_else(|| {
        let message = "too much of bundles is being sent here; ask again in a while, or ask another node";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, message).with(RETRY_AFTER, AGAIN)
    })
}

fn damaged() -> Problem {
    let message = "this version was damaged on the disk and is removed; it is fetched again if it is pinned";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, message).with(RETRY_AFTER, AGAIN)
}

/// What the headers of an answer tell.
fn told(found: &Found, tag: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let versions = [(ETAG, Some(tag.to_owned())), (VERSION, Some(found.version.to_string()))];
    for (name, value) in versions.into_iter().chain([(PINNED, found.pinned.map(|pinned| pinned.to_string()))]) {
        headers.extend(value.and_then(|value| HeaderValue::from_str(&value).ok()).map(|value| (name, value)));
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(VARY, HeaderValue::from_static("authorization"));
    headers
}
