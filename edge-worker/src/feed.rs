//! Where rules and health come from: Workers KV or a DNS node's API is read here and told to the [`Book`] of this isolate;
//! every request asks for a [`refresh`] and takes its [`Snapshot`] from [`snapshot`].
//!
//! An isolate serves many requests, and a promise of one may not be awaited by another. So the state is plain values, never
//! borrowed across an await; a request that finds something out of date takes a lease on it by time, refreshes it inside
//! `wait_until`, and is itself served by what is there. Only an isolate's first requests wait, for a bounded time: they would
//! else be steered by the document built in, and without health.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bailiwick_rules::health::RegionHealth;
use bailiwick_rules::report::HealthReport;
use bailiwick_rules::table::Table;
use bailiwick_rules::time::{Millis, Timestamp};
use futures_util::future::{self, Either, LocalBoxFuture, join, join_all};
use futures_util::{StreamExt, pin_mut};
use worker::{
    AbortController, Context, Delay, Env, Fetch, Headers, Request, RequestInit, RequestRedirect, console_log,
    console_warn, js_sys,
};

use crate::book::{Book, Offer, Refused, Reports};

/// The document built in: `edge-worker/rules.json`. As shipped it steers nothing.
const BUNDLED: &[u8] = include_bytes!("../rules.json");

/// How long the first requests wait for rules and for health, and how long any refresh may take.
const RULES_PATIENCE: Millis = Millis(3_000);
const HEALTH_PATIENCE: Millis = Millis(1_500);
/// Rules are at most this large; a health report of a thousand regions is far smaller.
const LARGEST: usize = 8 << 20;
/// How long KV answers out of its cache near the isolate. Cloudflare takes no less than a minute for what always was.
const KV_CACHE_SECONDS: u64 = 60;

/// What one request sees from start to end.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    /// The rules in service.
    pub(crate) table: Option<Rc<Table>>,
    /// Health by region.
    pub(crate) health: Rc<[RegionHealth]>,
    /// What is wrong with the rules' feed, in a word.
    pub(crate) trouble: Option<&'static str>,
    /// How many DNS nodes have reported health.
    pub(crate) nodes: usize,
    /// When it was taken.
    pub(crate) now: Timestamp,
}

/// The time.
pub(crate) fn now() -> Timestamp {
    #[expect(clippy::cast_possible_truncation, reason = "whole milliseconds, and a cast of floats saturates")]
    HELD.get().unwrap_or_else(|| Timestamp(js_sys::Date::now() as i64))
}

thread_local! {
    static HELD: Cell<Option<Timestamp>> = const { Cell::new(None) };
}

/// Asks for the time once for all that a task does in one turn. The runtime's clock stands still meanwhile.
pub(crate) fn in_one_moment<T>(turn: impl FnOnce() -> T) -> T {
    HELD.set(Some(now()));
    let done = turn();
    HELD.set(None);
    done
}

/// A clock for one request, in milliseconds, that never goes back: where the time does, it goes on from what it last said.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    last: Option<i64>,
    ahead: i64,
}

impl Clock {
    /// What it says when the time is `now`.
    pub(crate) fn at(&mut self, now: Timestamp) -> i64 {
        let back = self.last.map_or(0, |last| last.saturating_sub(now.0).max(0));
        self.last = Some(now.0);
        self.ahead = self.ahead.saturating_add(back);
        now.0.saturating_add(self.ahead)
    }
}

/// Refreshes what is out of date, later. What it returns is to be waited for: a configured feed has never been tried in this isolate.
#[inline(never)]
pub(crate) fn refresh<'a>(env: &'a Env, context: &Context) -> Option<LocalBoxFuture<'a, ()>> {
    let began = now();
    let (sources, rules, health) = STATE.with_borrow_mut(|state| {
        let sources = Rc::clone(state.sources.get_or_insert_with(|| Rc::new(Sources::of(env))));
        let rules = sources.rules.as_ref().map(|(_, every)| state.rules.due(began, *every));
        let health = (!sources.health.is_empty()).then(|| state.health.due(began, sources.health_every));
        (sources, rules, health)
    });
    if rules == Some(Due::Again) {
        let (env, sources) = (env.clone(), Rc::clone(&sources));
        context.wait_until(async move { refresh_rules(&env, &sources).await });
    }
    if health == Some(Due::Again) {
        let (env, sources) = (env.clone(), Rc::clone(&sources));
        context.wait_until(async move { refresh_health(&env, &sources).await });
    }
    let first = |due: Option<Due>| due == Some(Due::First);
    if !first(rules) && !first(health) {
        return None;
    }
    Some(Box::pin(async move {
        let rules = async {
            if first(rules) {
                refresh_rules(env, &sources).await;
            }
        };
        let health = async {
            if first(health) {
                refresh_health(env, &sources).await;
            }
        };
        join(rules, health).await;
    }))
}

/// The rules and health of this moment.
#[inline(never)]
pub(crate) fn snapshot() -> Snapshot {
    STATE.with_borrow_mut(|state| {
        let now = now();
        let table = state.book.table().cloned();
        let health = table.as_ref().map_or_else(|| Rc::from([]), |table| state.reports.health(table, now));
        Snapshot { table, health, trouble: state.book.trouble(), nodes: state.reports.nodes(), now }
    })
}

thread_local! {
    static STATE: RefCell<State> = RefCell::new(State {
        book: Book::bundled(BUNDLED),
        etag: None,
        reports: Reports::default(),
        sources: None,
        rules: Schedule::default(),
        health: Schedule::default(),
    });
}

/// What an isolate keeps between requests.
struct State {
    book: Book,
    etag: Option<String>,
    reports: Reports,
    sources: Option<Rc<Sources>>,
    rules: Schedule,
    health: Schedule,
}

/// When something was refreshed, and until when somebody is at it.
#[derive(Debug, Default)]
struct Schedule {
    tried: Option<Timestamp>,
    leased_until: Option<Timestamp>,
}

/// Whether a refresh is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Due {
    /// It was never tried: wait for it.
    First,
    /// It is out of date and the lease is the caller's: refresh it, and don't wait.
    Again,
    /// It is fresh enough, or somebody is at it.
    No,
}

impl Schedule {
    /// The lease is longer than any refresh takes, and ends by itself if its request is cut short.
    const LEASE: Millis = Millis(2 * RULES_PATIENCE.0);

    fn due(&mut self, now: Timestamp, every: Millis) -> Due {
        let Some(tried) = self.tried else { return Due::First };
        // A clock that was set back says of what lies ahead that it is long over.
        let is_fresh = tried <= now && now < tried.after(every);
        let is_leased = self.leased_until.is_some_and(|until| until.lasts(now, Self::LEASE));
        if is_fresh || is_leased {
            return Due::No;
        }
        self.leased_until = Some(now.after(Self::LEASE));
        Due::Again
    }

    fn done(&mut self, now: Timestamp) {
        *self = Self { tried: Some(now), leased_until: None };
    }
}

/// What the variables of the Worker say. They don't change while an isolate lives.
#[derive(Debug)]
struct Sources {
    rules: Option<(RulesSource, Millis)>,
    health: Vec<String>,
    health_every: Millis,
}

#[derive(Debug)]
enum RulesSource {
    Url(String),
    Kv,
}

impl Sources {
    fn of(env: &Env) -> Self {
        let var = |name: &str| text_of(env, name).filter(|text| !text.is_empty());
        let seconds = |name: &str, default: u64| {
            let given = var(name).and_then(|text| text.parse::<f64>().ok()).filter(|seconds| *seconds >= 0.0);
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // saturates, and negatives are out
            given.map_or(Millis(default * 1000), |seconds| Millis((seconds * 1000.0) as u64))
        };
        let rules = match var("RULES_URL") {
            Some(url) => Some((RulesSource::Url(url), seconds("RULES_REFRESH_SECONDS", 5))),
            None => env.kv("RULES").is_ok().then(|| (RulesSource::Kv, seconds("RULES_REFRESH_SECONDS", 30))),
        };
        let urls = var("HEALTH_URLS").unwrap_or_default();
        let health = urls.split(',').map(str::trim).filter(|url| !url.is_empty()).map(str::to_owned).collect();
        Self { rules, health, health_every: seconds("HEALTH_REFRESH_SECONDS", 5) }
    }
}

/// A variable or secret, if it is there and a text.
pub(crate) fn text_of(env: &Env, name: &str) -> Option<String> {
    worker::js_sys::Reflect::get(env, &name.into()).ok()?.as_string()
}

async fn refresh_rules(env: &Env, sources: &Sources) {
    let read = match &sources.rules {
        Some((RulesSource::Kv, _)) => read_kv(env).await,
        Some((RulesSource::Url(url), _)) => read_url(env, url).await,
        None => return,
    };
    // The line is written after the borrow has ended.
    let line = STATE.with_borrow_mut(|state| {
        state.rules.done(now());
        match read {
            None => state.book.note_unreachable().then(|| (true, serde_json::json!({ "event": "rules_unreachable" }))),
            Some(Read::Unmodified) => {
                state.book.note_unmodified();
                None
            }
            Some(Read::Document { bytes, etag }) => {
                state.etag = etag;
                told(state.book.offer(&bytes))
            }
        }
    });
    match line {
        Some((true, line)) => console_warn!("{line}"),
        Some((false, line)) => console_log!("{line}"),
        None => {}
    }
}

/// The log line for what became of a document; true: it is a warning.
fn told(offer: Offer) -> Option<(bool, serde_json::Value)> {
    match offer {
        Offer::Unchanged => None,
        Offer::Taken(revision) => {
            let sha256 = revision.sha256_hex();
            Some((false, serde_json::json!({ "event": "rules_taken", "revision": revision.number, "sha256": sha256 })))
        }
        Offer::Refused(Refused::Conflict, _) => {
            Some((true, serde_json::json!({ "event": "rules_refused", "reason": "conflict" })))
        }
        Offer::Refused(Refused::Invalid, violations) => {
            let count = violations.len();
            // The operator's own document; a log line holds the first few of its mistakes.
            let first: Vec<String> = violations.iter().take(5).map(ToString::to_string).collect();
            Some((
                true,
                serde_json::json!({ "event": "rules_refused", "reason": "invalid", "violations": count, "first": first }),
            ))
        }
    }
}

enum Read {
    Document { bytes: Vec<u8>, etag: Option<String> },
    Unmodified,
}

async fn read_kv(env: &Env) -> Option<Read> {
    let value = env.kv("RULES").ok()?.get("rules").cache_ttl(KV_CACHE_SECONDS).bytes();
    let delay = Delay::from(RULES_PATIENCE.to_std());
    pin_mut!(value, delay);
    match future::select(value, delay).await {
        Either::Left((Ok(Some(bytes)), _)) => Some(Read::Document { bytes, etag: None }),
        // No such key: the document built in is what counts.
        Either::Left((Ok(None), _)) => Some(Read::Unmodified),
        _ => None,
    }
}

async fn read_url(env: &Env, url: &str) -> Option<Read> {
    let headers = Headers::new();
    if let Some(token) = text_of(env, "RULES_TOKEN") {
        headers.set("authorization", &format!("Bearer {token}")).ok()?;
    }
    if let Some(etag) = STATE.with_borrow(|state| state.etag.clone()) {
        headers.set("if-none-match", &etag).ok()?;
    }
    let fetched = get(url, headers, RULES_PATIENCE).await?;
    match fetched.status {
        200 => Some(Read::Document { bytes: fetched.body, etag: fetched.etag }),
        304 => Some(Read::Unmodified),
        _ => None,
    }
}

async fn refresh_health(env: &Env, sources: &Sources) {
    let token = text_of(env, "HEALTH_TOKEN");
    join_all(sources.health.iter().enumerate().map(|(position, url)| {
        let token = token.as_deref();
        async move {
            let headers = Headers::new();
            if let Some(token) = token {
                headers.set("authorization", &format!("Bearer {token}")).ok()?;
            }
            let fetched = get(url, headers, HEALTH_PATIENCE).await.filter(|fetched| fetched.status == 200)?;
            let report: HealthReport = serde_json::from_slice(&fetched.body).ok()?;
            STATE.with_borrow_mut(|state| state.reports.receive(position, now(), report));
            Some(())
        }
    }))
    .await;
    // A node that doesn't answer says nothing: its last report ages until it is no longer counted.
    STATE.with_borrow_mut(|state| state.health.done(now()));
}

struct Fetched {
    status: u16,
    etag: Option<String>,
    body: Vec<u8>,
}

/// A GET with an end: in time, in size, and at the first redirect, so that the token goes nowhere else.
async fn get(url: &str, headers: Headers, patience: Millis) -> Option<Fetched> {
    let mut init = RequestInit::new();
    init.with_headers(headers).with_redirect(RequestRedirect::Manual);
    let request = Request::new_with_init(url, &init).ok()?;
    let abort = AbortController::default();
    let signal = abort.signal();
    let fetched = async {
        let mut response = Fetch::Request(request).send_with_signal(&signal).await.ok()?;
        let status = response.status_code();
        let etag = response.headers().get("etag").ok().flatten();
        let mut body = Vec::new();
        if let Ok(mut chunks) = response.stream() {
            while let Some(chunk) = chunks.next().await {
                body.extend_from_slice(&chunk.ok()?);
                if body.len() > LARGEST {
                    return None;
                }
            }
        }
        Some(Fetched { status, etag, body })
    };
    let delay = Delay::from(patience.to_std());
    pin_mut!(fetched, delay);
    if let Either::Left((Some(fetched), _)) = future::select(fetched, delay).await {
        return Some(fetched);
    }
    abort.abort();
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_request_refreshes_and_nobody_waits_twice() {
        let every = Millis(5_000);
        let mut schedule = Schedule::default();
        assert_eq!(schedule.due(Timestamp(0), every), Due::First);
        assert_eq!(
            schedule.due(Timestamp(0), every),
            Due::First,
            "another request may not await the first one's promise"
        );
        schedule.done(Timestamp(100));
        assert_eq!(schedule.due(Timestamp(5_099), every), Due::No);
        assert_eq!(schedule.due(Timestamp(5_100), every), Due::Again);
        assert_eq!(schedule.due(Timestamp(5_101), every), Due::No, "the lease is taken");
        let forgotten = Timestamp(5_100).after(Schedule::LEASE);
        assert_eq!(schedule.due(forgotten, every), Due::Again, "a lease ends by itself");
        schedule.done(forgotten);
        assert_eq!(schedule.due(forgotten, Millis(0)), Due::Again);
        let before = Timestamp(-3_600_000);
        assert_eq!(schedule.due(before, every), Due::Again, "the clock was set back");
        assert_eq!(schedule.due(before, every), Due::No);
        schedule.done(before);
        assert_eq!(schedule.due(before, every), Due::No);
    }

    #[test]
    fn a_requests_clock_never_goes_back() {
        let mut clock = Clock::default();
        let said = [1_000, 1_500, 200, 300, -50, 2_000].map(|now| clock.at(Timestamp(now)));
        assert_eq!(said, [1_000, 1_500, 1_500, 1_600, 1_600, 3_650]);
    }
}
