//! The HTTP API of a node. Takes requests. Returns metrics, health, rules, explanations, traffic, the picture and its
//! events, the states of rollouts and drills, bundles, and the page at `/ui/`. Takes overrides, rules, bundles and
//! drills from operators, and leases and observations from Workers. Answers are JSON, except for `/metrics`,
//! `/healthz`, `/v1/events`, the files of bundles and the page. Run by `serve`.
//!
//! Who may do what:
//! - Reading needs no token if the API listens on a loopback address. On other addresses it needs any token, except for
//!   `/healthz` and the files of the page.
//! - The tokens of a region's applications may read `/v1/bundles`, and no more.
//! - Workers' tokens may also post leases and observations.
//! - Everything else needs a token that may write. If none is configured, it is forbidden.

mod access;
pub(crate) mod bundles;
pub(crate) mod drills;
mod events;
pub(crate) mod failed_tokens;
mod fleet;
mod leases;
mod observations;
mod overrides;
pub(crate) mod picture;
pub(crate) mod publish;
pub(crate) mod push;
mod read;
mod releases;
mod reply;
mod rollouts;
pub(crate) mod sending;
mod status;
pub(crate) mod tls;
pub(crate) mod token;
mod traffic;
mod ui;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Request, State};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use axum::serve::{IncomingStream, Listener};
use bailiwick_rules::bundle::LARGEST_PACK;
use bailiwick_rules::fleet::follow::LARGEST_DOCUMENT;
use bailiwick_rules::fleet::head::LONGEST_HEAD;
use bailiwick_rules::fleet::traffic::BUCKET;
use bailiwick_rules::time::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, Semaphore};

use crate::program::access_log::AccessLog;
use crate::program::config::Fleet;
use crate::program::metrics::Metrics;
use crate::program::picture::Picture;
use crate::state::bundles::Bundles;
use crate::state::fleet::{Answers, Question};
use crate::state::owner::Handle;
use crate::state::store::{Kind, Store};
use failed_tokens::FailedTokens;
use reply::Problem;
use sending::Sending;
use tls::TlsListener;
use token::{Access, Tokens};

/// The largest request body, in bytes.
const MAX_BODY: usize = 4096;

/// The counts of traffic are gathered in buckets of time. After this number of buckets, all buckets are written to the
/// state directory, so a crash loses no more than these.
const BUCKETS_BETWEEN_WRITES: u64 = 3;

/// The paths to which Workers (the edge) post.
const WORKER_PATHS: [&str; 2] = ["/v1/leases", "/v1/observations"];

/// How many requests may wait at once for another version of a bundle. One more is refused with 503.
pub(crate) const MOST_WAITING: usize = 1_024;

/// The beginning of the paths of bundles.
const BUNDLES: &str = "/v1/bundles";

/// What the API shows, and what it needs to serve requests.
#[derive(Debug)]
pub(crate) struct Api {
    /// Snapshots and the way to change overrides.
    pub handle: Handle,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// This node's name.
    pub node: String,
    /// How this node follows its fleet.
    pub fleet: Arc<Fleet>,
    /// The bearer tokens. Without a token that may write, nothing can be changed.
    pub tokens: Tokens,
    /// When this process began.
    pub begun: Timestamp,
    /// The bundles that this node holds.
    pub bundles: Bundles,
    /// Limits the requests that wait for another version of a bundle. Each of them holds a permit.
    pub waiting: Semaphore,
    /// Limits the bytes of bundles that are in memory because they are being sent.
    pub sending: Sending,
    /// What viewers of the picture get: the last view, its events, the timeline, and the last check of the fences.
    pub picture: Picture,
    /// The last answers of `/v1/picture`, of this node and of the fleet.
    pub cached_picture: picture::Cached,
    /// The records of drills that ended, and the second reading of the rules by which drills check the fences.
    pub drills: drills::Drills,
    /// Held by the request that is publishing rules, so that only one does.
    pub publishing: Mutex<()>,
    /// Who gets an event of each change.
    pub access_log: AccessLog,
    /// The addresses that sent wrong tokens.
    pub failed_tokens: FailedTokens,
    /// Whether only this machine can reach the API.
    pub loopback: bool,
    /// Whether the server is going down: `/healthz` says so.
    pub draining: AtomicBool,
    /// Whether another process is about to take over. Then changes are refused, because the other process wouldn't know
    /// of them.
    pub is_handing_over: Arc<AtomicBool>,
    /// Addresses that are listened on although no interface has them.
    pub absent: Arc<crate::net::listeners::Absent>,
}

impl Api {
    /// Restores the counts of traffic from a state directory. If they can't be read, a warning says so, and they are
    /// lost.
    pub(crate) fn restore_traffic(&self, state_dir: &Path) {
        let stored = Store::traffic_in(state_dir).map_err(|error| format!("can't be read ({error})"));
        let restored = match stored {
            Ok(Some(bytes)) => self.metrics.restore_traffic(&bytes, self.handle.now()),
            Ok(None) => Ok(()),
            Err(why) => Err(why),
        };
        if let Err(why) = restored {
            let directory = state_dir.display();
            tracing::warn!("{directory}/traffic.json {why}; /v1/traffic begins anew");
        }
    }

    /// The function that answers questions which other nodes and commands ask over NATS.
    pub(crate) fn answers(self: Arc<Self>) -> Answers {
        Answers::new(move |question| {
            let answer = match question {
                Question::Fleet => serde_json::to_vec(&fleet::report(&self)),
                Question::Traffic => serde_json::to_vec(&traffic::of_all(&self)),
            };
            answer.unwrap_or_default()
        })
    }

    /// Ends the wait of every request that waits for news or follows events.
    pub(crate) fn close(&self) {
        self.bundles.close();
        self.picture.close();
    }

    /// Lets the owner of the state write the counts of traffic to the state directory, if there is one.
    pub(crate) fn keep_traffic(&self) {
        let bytes = self.metrics.traffic_to_keep(self.handle.now());
        self.handle.keep(Kind::Traffic, Box::new(move |store| store.keep_traffic(&bytes)));
    }

    /// Counts the traffic of each bucket of time, and notes each new revision of the rules as soon as it is served.
    async fn record(self: Arc<Self>) -> Infallible {
        let mut status = self.handle.follow_status();
        let mut bucket = 0_u64;
        loop {
            bucket = bucket.wrapping_add(1);
            let end = tokio::time::sleep(Duration::from_millis(BUCKET.0));
            tokio::pin!(end);
            loop {
                let revision = self.handle.snapshot().table().revision();
                self.metrics.begin_revision(revision, Instant::now());
                tokio::select! {
                    () = &mut end => break,
                    Ok(()) = status.changed() => {}
                }
            }
            self.metrics.mark_answers(Instant::now());
            if bucket.is_multiple_of(BUCKETS_BETWEEN_WRITES) {
                self.keep_traffic();
            } else {
                self.metrics.record_traffic(self.handle.now());
            }
        }
    }

    /// Serves requests on `listener` until `stop` is ready. Then finishes the requests that are in progress.
    ///
    /// # Errors
    /// When the listener fails.
    pub(crate) async fn serve<L: Listener<Addr = SocketAddr>>(
        self: Arc<Self>,
        listener: L,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()>
    where
        Remote: for<'a> Connected<IncomingStream<'a, L>>,
    {
        let record = Arc::clone(&self).record();
        let look = picture::watch(Arc::clone(&self));
        let service = router(self).into_make_service_with_connect_info::<Remote>();
        tokio::select! {
            served = axum::serve(listener, service).with_graceful_shutdown(stop) => served,
            // These two run for ever, that is, until the server has ended.
            never = record => match never {},
            never = look => match never {},
        }
    }
}

/// The address at the other end of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Remote(SocketAddr);

impl Connected<IncomingStream<'_, TcpListener>> for Remote {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        Self(*stream.remote_addr())
    }
}

impl Connected<IncomingStream<'_, TlsListener>> for Remote {
    fn connect_info(stream: IncomingStream<'_, TlsListener>) -> Self {
        Self(*stream.remote_addr())
    }
}

/// Whether no other machine can reach an API at `address`.
#[must_use]
pub(crate) fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// The paths of the API and what handles each of them.
fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/ui", get(ui::to_page))
        .route("/ui/", get(ui::file))
        .route("/ui/{file}", get(ui::file))
        .route("/metrics", get(read::metrics))
        .route("/v1/health", get(read::health))
        .route("/v1/rules", get(read::rules).put(publish::put).layer(DefaultBodyLimit::max(LARGEST_DOCUMENT)))
        .route("/v1/rules/head", put(publish::put_head).layer(DefaultBodyLimit::max(LONGEST_HEAD)))
        .route("/v1/rules/history", get(publish::history))
        .route("/v1/rules/history/{revision}", get(publish::of_history))
        .route("/v1/rules/status", get(read::rules_status))
        .route("/v1/explain", get(read::explain))
        .route("/v1/explain/nodes", get(picture::explain_by_node))
        .route("/v1/picture", get(picture::picture))
        .route("/v1/timeline", get(picture::timeline))
        .route("/v1/events", get(events::events))
        .route("/v1/fleet", get(fleet::fleet))
        .route("/v1/fleet/nodes", get(fleet::nodes))
        .route("/v1/status", get(status::status))
        .route("/v1/traffic", get(traffic::traffic))
        .route("/v1/releases", get(releases::releases))
        .route("/v1/rollouts", get(rollouts::rollouts))
        .route("/v1/rollouts/intervals", get(rollouts::intervals))
        .route("/v1/drills", get(drills::drills).post(drills::ask))
        .route("/v1/drills/{name}", get(drills::look).delete(drills::end))
        .route("/v1/drill-records", get(drills::records))
        .route(
            "/v1/drill-records/{name}",
            get(drills::record).put(drills::put_record).layer(DefaultBodyLimit::max(drills::LARGEST_RECORD)),
        )
        .route("/v1/bundles", get(bundles::list))
        .route("/v1/bundles/{name}", get(bundles::one).put(push::put).layer(DefaultBodyLimit::max(LARGEST_PACK)))
        .route("/v1/bundles/{name}/{*path}", get(bundles::file))
        .route("/v1/overrides", get(overrides::list).post(overrides::set))
        .route("/v1/leases", post(leases::ask).layer(DefaultBodyLimit::max(leases::MAX_ASKS)))
        .route("/v1/observations", post(observations::add).layer(DefaultBodyLimit::max(observations::MAX_BATCH)))
        .route("/v1/overrides/{region}", delete(overrides::end))
        .route("/v1/overrides/{region}/{endpoint}", delete(overrides::end_of_endpoint))
        .fallback(not_found)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn_with_state(Arc::clone(&api), admit))
        .layer(from_fn_with_state(Arc::clone(&api), access::record))
        .with_state(api)
}

/// Lets a request pass if it needs no token or carries a sufficient one. Otherwise answers 401, 403, 429 or 503.
async fn admit(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let is_open = request.uri().path() == "/healthz" || ui::is_of_page(request.uri().path());
    if reads && (api.loopback || is_open) {
        return next.run(request).await;
    }
    if !reads && api.is_handing_over.load(Ordering::Relaxed) {
        let message = "a new process is about to take over and wouldn't know of it; try again in a few seconds";
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, message).into_response();
    }
    let of_worker = !reads && WORKER_PATHS.contains(&request.uri().path());
    let accepted = match (reads, of_worker) {
        (true, _) => api.tokens.all().next(),
        (_, true) => api.tokens.worker.first().or(api.tokens.write.first()),
        _ => api.tokens.write.first(),
    };
    if accepted.is_none() {
        let (what, key) = match (reads, of_worker) {
            (true, _) => ("reading from other machines", "token_file"),
            (_, true) => ("what Workers post", "worker_token_files"),
            _ => ("changing anything", "token_file"),
        };
        let message =
            format!("{what} needs a bearer token, and this node has none: set [api] {key} in its configuration");
        return Problem::new(StatusCode::FORBIDDEN, message).into_response();
    }
    let authorization = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let remote = request.extensions().get::<ConnectInfo<Remote>>().map(|ConnectInfo(Remote(remote))| remote.ip());
    // Wrong tokens are counted only where a right one could change something (why: `failed_tokens`).
    let is_limited = !reads && !of_worker;
    if let Some(remote) = remote.filter(|_| is_limited)
        && !api.failed_tokens.admits(remote, api.handle.now())
    {
        let message = "too many wrong tokens came from this address; try again in a minute";
        return Problem::new(StatusCode::TOO_MANY_REQUESTS, message).into_response();
    }
    let of_bundles = reads && is_of_bundles(request.uri().path());
    match api.tokens.admit(authorization) {
        Access::Region if !of_bundles => return not_of_bundles(),
        Access::Write | Access::Region => return next.run(request).await,
        Access::Worker if reads || of_worker => return next.run(request).await,
        Access::Read if reads => return next.run(request).await,
        Access::Read if of_worker => {
            let message = "this token may read and no more; send one of [api] worker_token_files";
            return Problem::new(StatusCode::FORBIDDEN, message).into_response();
        }
        Access::Worker | Access::Read => {
            let message = "this token may not change anything; send one of [api] token_file or write_token_files";
            return Problem::new(StatusCode::FORBIDDEN, message).into_response();
        }
        Access::Nothing => {}
    }
    if let Some(remote) = remote.filter(|_| is_limited) {
        api.failed_tokens.failed(remote, api.handle.now());
    }
    let message = "send the token of this node's [api] token_file as \"Authorization: Bearer …\"";
    let mut response = Problem::new(StatusCode::UNAUTHORIZED, message).into_response();
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"bailiwick\""));
    response
}

/// Whether a path is `/v1/bundles` or below it.
fn is_of_bundles(path: &str) -> bool {
    path.strip_prefix(BUNDLES).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The refusal of a token of a region's applications on any path other than those of bundles.
fn not_of_bundles() -> Response {
    let message = "this token may read /v1/bundles and no more, as one of [api] region_token_files";
    Problem::new(StatusCode::FORBIDDEN, message).into_response()
}

/// Answers `/healthz`. The first line says whether the server works; the lines below say what else is wrong. Everybody
/// may read this page, so it holds nothing of rules and zones but the zones' names.
async fn healthz(State(api): State<Arc<Api>>) -> (StatusCode, String) {
    if api.draining.load(Ordering::Relaxed) {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned());
    }
    let troubles = api.handle.tasks().troubles();
    let (status, word) = match troubles.iter().any(|trouble| trouble.is_vital) {
        true => (StatusCode::SERVICE_UNAVAILABLE, "failing"),
        false => (StatusCode::OK, "ok"),
    };
    let lines = troubles.iter().map(ToString::to_string).chain(api.absent.lines()).chain(of_zones(&api.handle));
    (status, std::iter::once(word.to_owned()).chain(lines).map(|line| line + "\n").collect())
}

/// A line for each zone that isn't served as its file says. The log and `/v1/rules/status` give the reason.
fn of_zones(handle: &Handle) -> Vec<String> {
    let (snapshot, status) = (handle.snapshot_owned(), handle.status());
    let missing: Vec<String> = snapshot.zones().missing().iter().map(ToString::to_string).collect();
    let failing = status.zones_failing.keys().filter(|zone| !missing.contains(zone));
    let failing = failing.map(|zone| format!("zone {zone}: its last good version is served"));
    missing.iter().map(|zone| format!("zone {zone}: is not served")).chain(failing).collect()
}

/// The answer for an unknown path.
async fn not_found(request: Request) -> Problem {
    let message = format!(
        "nothing is at {}; there are /ui/, /healthz, /metrics, /v1/health, /v1/rules, /v1/rules/head, \
         /v1/rules/history, /v1/rules/status, /v1/explain, /v1/explain/nodes, /v1/fleet, /v1/fleet/nodes, /v1/status, \
         /v1/picture, /v1/timeline, /v1/events, /v1/traffic, /v1/releases, /v1/rollouts, /v1/rollouts/intervals, \
         /v1/drills, /v1/drill-records, /v1/bundles, /v1/leases, /v1/observations and /v1/overrides",
        request.uri().path()
    );
    Problem::new(StatusCode::NOT_FOUND, message)
}

async fn no_such_method(request: Request) -> Problem {
    let message = format!("{} can't be done at {}", request.method(), request.uri().path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, message)
}

#[cfg(test)]
mod tests;
