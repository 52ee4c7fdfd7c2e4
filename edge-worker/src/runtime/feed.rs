//! Fetches rules and health from the APIs of DNS nodes, or rules from Workers KV. Stores the answers in the
//! [`RulesState`] and the [`Reports`] of this isolate, and returns a [`Snapshot`]. Called by `serve`: each request
//! first calls [`refresh`], then [`snapshot`]. An isolate is one instance of the Worker; the platform runs several,
//! which share no memory.
//!
//! A feed is the rules or the health, as it is fetched again and again. An isolate serves many requests, and no request
//! may await the promise of another request. So the state is plain values, which are never borrowed across an await. A
//! request that finds a feed out of date takes a lease on the feed ([`schedule`]), and fetches the feed inside
//! `wait_until`. Usually no request waits for the result. If the known data is too old to use, all requests wait for a
//! bounded time. The request with the lease waits for its own fetch. The others poll until they see that the fetch has
//! ended.

pub(crate) mod ask;
mod fetch;
mod schedule;
pub(crate) mod settings;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;

use core::future::poll_fn;
use core::task::Poll;

use bailiwick_rules::health::RegionHealth;
use bailiwick_rules::report::{Drilled, Shares};
use bailiwick_rules::rules::Ratio;
use bailiwick_rules::steer::first_token::FirstTokens;
use bailiwick_rules::table::{RegionIndex, ServiceIndex, Table, TenantIndex};
use bailiwick_rules::time::{Millis, Timestamp};
use bailiwick_rules::turns::Pause;
use futures_util::future::{LocalBoxFuture, join};
use serde_json::json;

use self::fetch::{fetch_health, fetch_rules};
use self::schedule::{Due, Schedule};
use self::settings::Settings;
use crate::decide::envelope::Failure;
use crate::decide::reports::{CombinedHealth, Reports};
use crate::decide::rules_state::ReadError;
use crate::decide::rules_state::{Age, RulesState};
use crate::platform::{Background, Env, sleep};
use crate::runtime::clock::{self, Clock};
use crate::runtime::log;
use crate::runtime::reply::Identity;

/// The built-in rules, from `edge-worker/rules.json`. As shipped, they have no services.
const BUNDLED: &[u8] = include_bytes!("../../rules.json");

/// How long one source of rules may take to answer.
const RULES_TIMEOUT: Millis = Millis(3_000);
/// How long one source of health may take to answer.
const HEALTH_TIMEOUT: Millis = Millis(1_500);
/// How long requests wait for the other sources after the first source has answered.
const GRACE_FOR_OTHERS: Millis = Millis(300);
/// How much longer a lease on health lasts than a fetch may take.
const LEASE_MARGIN: Millis = Millis(500);
/// How much longer a lease on rules lasts than a fetch may take. The largest rules take about a second to compile in
/// turns.
const COMPILE_MARGIN: Millis = Millis(2_000);
/// The first interval at which a request polls for the end of another request's fetch. It is doubled each time.
const POLL_INTERVAL: Millis = Millis(4);
/// The longest interval at which a request polls for the end of another request's fetch.
const MAX_POLL_INTERVAL: Millis = Millis(32);
/// Without usable rules, requests wait for a new fetch if the last fetch was at least this long ago.
const RETRY_WITHOUT_RULES: Millis = Millis(5_000);

/// Pauses a long computation, so that the runtime can serve other requests.
const PAUSE: &Pause = &|| Box::pin(sleep(Millis(0)));

/// The rules and the health that one request sees from start to end.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    /// The current rules, even if they are too old to use.
    pub(crate) table: Option<Rc<Table>>,
    /// How old the rules are, and whether they are too old to use.
    pub(crate) age: Age,
    /// How long ago a source confirmed the rules; `None` if there is no source.
    pub(crate) confirmed: Option<Millis>,
    /// The health of each region, in the order of the rules.
    pub(crate) health: Rc<[RegionHealth]>,
    /// The load of each region, in the order of the rules; `None` or missing if the load isn't known.
    pub(crate) loads: Rc<[Option<Ratio>]>,
    /// The shares of clients that are moved because of load.
    pub(crate) shares: Rc<Shares>,
    /// The share of a region's clients that a drill sends elsewhere.
    pub(crate) drilled: Option<Drilled>,
    /// The observed times to the first token of an answer.
    pub(crate) first_tokens: Rc<FirstTokens>,
    /// One word for what is wrong with the rules' feed, if anything is.
    pub(crate) trouble: Option<&'static str>,
    /// How many sources of rules answered when they were last asked, and how many there are.
    pub(crate) sources: (usize, usize),
    /// How many DNS nodes have reported health.
    pub(crate) nodes: usize,
    /// When the snapshot was taken.
    pub(crate) now: Timestamp,
}

impl Snapshot {
    /// The rules to use.
    ///
    /// # Errors
    /// 503 if there are no rules, or if they were confirmed too long ago.
    pub(crate) fn rules(&self) -> Result<&Table, Failure> {
        let table = self.table.as_deref().ok_or(Failure::Unready)?;
        match self.age {
            Age::Fresh | Age::Stale(_) => Ok(table),
            Age::TooOld(age) => {
                Err(Failure::RulesTooOld { age: age.0 / 1000, stale_for: table.stale_for().to_string() })
            }
        }
    }
}

impl Snapshot {
    /// The load of a region; `None` if it isn't known.
    pub(crate) fn load_of(&self, region: RegionIndex) -> Option<Ratio> {
        self.loads.get(region.get()).copied().flatten()
    }

    /// The service and the tenant of a request, together with the rules of this snapshot; `None` without rules.
    pub(crate) fn whose(&self, service: ServiceIndex, tenant: Option<TenantIndex>) -> Option<Identity> {
        Some(Identity { table: Rc::clone(self.table.as_ref()?), service, tenant })
    }
}

/// The kinds of data that are fetched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Feed {
    Rules,
    Health,
}

/// Begins to fetch the feeds that are out of date. If the known data is too old to use, returns a future that the
/// request must await.
#[inline(never)]
pub(crate) fn refresh<'a>(env: &'a Env, background: &'a Background) -> Option<LocalBoxFuture<'a, ()>> {
    let now = clock::now();
    let (rules, health) = STATE.with_borrow_mut(|state| {
        state.begin(env, now);
        (state.due(Feed::Rules, now), state.due(Feed::Health, now))
    });
    if rules == Due::No && health == Due::No {
        return None;
    }
    let rules = take_up(Feed::Rules, rules, env, background);
    let health = take_up(Feed::Health, health, env, background);
    if rules.is_none() && health.is_none() {
        return None;
    }
    Some(Box::pin(async move {
        let all = |feed: Option<LocalBoxFuture<'a, ()>>| async move {
            if let Some(feed) = feed {
                feed.await;
            }
        };
        join(all(rules), all(health)).await;
    }))
}

/// Begins a fetch, if the caller has the lease. If a future is returned, the request must await it.
#[inline(never)]
fn take_up<'a>(feed: Feed, due: Due, env: &'a Env, background: &'a Background) -> Option<LocalBoxFuture<'a, ()>> {
    match due {
        Due::No => None,
        Due::Fetch { wait } => {
            let signal = begin_fetch(feed, env, background);
            wait.then(|| Box::pin(signal.wait()) as LocalBoxFuture<'a, ()>)
        }
        Due::Wait => Some(Box::pin(wait_for_another(feed, env, background))),
    }
}

/// Waits until another request's fetch has ended. If that request was cut short, fetches the feed itself.
async fn wait_for_another(feed: Feed, env: &Env, background: &Background) {
    let (mut waited, mut interval) = (Millis(0), POLL_INTERVAL);
    let most = STATE.with_borrow(|state| state.longest(feed));
    while waited.0 <= 2 * most.0 {
        sleep(interval).await;
        waited = Millis(waited.0 + interval.0);
        interval = Millis(2 * interval.0).min(MAX_POLL_INTERVAL);
        match STATE.with_borrow_mut(|state| state.due(feed, clock::now())) {
            Due::Wait => {}
            Due::Fetch { wait } => {
                let signal = begin_fetch(feed, env, background);
                if wait {
                    signal.wait().await;
                }
                return;
            }
            Due::No => return,
        }
    }
}

/// Begins a fetch inside `wait_until`, so that the fetch goes on even if the request ends. The returned signal is set
/// when the request may continue.
fn begin_fetch(feed: Feed, env: &Env, background: &Background) -> Rc<FetchSignal> {
    let signal = Rc::<FetchSignal>::default();
    let (env, fetched) = (env.clone(), Rc::clone(&signal));
    let settings = STATE.with_borrow(|state| state.settings.clone()).unwrap_or_default();
    background.run(async move {
        match feed {
            Feed::Rules => fetch_rules(&env, &settings, &fetched).await,
            Feed::Health => fetch_health(&env, &settings, &fetched).await,
        }
    });
    signal
}

/// Signals to one request that its own fetch has a result.
#[derive(Default)]
struct FetchSignal {
    is_set: Cell<bool>,
    waiting: Cell<Option<Waker>>,
}

impl FetchSignal {
    fn notify(&self) {
        self.is_set.set(true);
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }

    /// Waits until this is set.
    async fn wait(self: Rc<Self>) {
        poll_fn(|context| {
            if self.is_set.get() {
                return Poll::Ready(());
            }
            self.waiting.set(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

/// The rules and the health of this moment.
#[inline(never)]
pub(crate) fn snapshot() -> Snapshot {
    let (snapshot, should_log_age) = STATE.with_borrow_mut(|state| {
        let now = clock::now();
        let steady = Timestamp(state.clock.at(now));
        let table = state.rules_state.table().cloned();
        let seen = table.as_ref().map_or_else(CombinedHealth::default, |table| state.reports.seen(table, now));
        let age = state.age(steady);
        let should_log_age = state.rules_state.should_log_age(age, steady);
        let (rules_state, nodes) = (&state.rules_state, state.reports.nodes());
        let (confirmed, trouble, sources) =
            (rules_state.since_confirmed(steady), rules_state.trouble(), rules_state.answering());
        let CombinedHealth { health, shares, drilled, loads, first_tokens } = seen;
        let snapshot = Snapshot {
            table,
            age,
            confirmed,
            health,
            loads,
            shares,
            drilled,
            first_tokens,
            trouble,
            sources,
            nodes,
            now,
        };
        (snapshot, should_log_age)
    });
    if should_log_age {
        log_age(&snapshot);
    }
    snapshot
}

/// Logs that the rules are old.
#[inline(never)]
fn log_age(snapshot: &Snapshot) {
    let (event, age) = match snapshot.age {
        Age::Fresh => return,
        Age::Stale(age) => ("rules_stale", age),
        Age::TooOld(age) => ("rules_too_old", age),
    };
    let revision = snapshot.table.as_ref().map(|table| table.revision().number);
    let stale_for = snapshot.table.as_ref().map(|table| table.stale_for().0 / 1000);
    log::warn(&json!({
        "event": event, "revision": revision, "age_seconds": age.0 / 1000, "stale_for_seconds": stale_for,
    }));
}

thread_local! {
    static STATE: RefCell<State> = RefCell::new(State {
        rules_state: RulesState::bundled(BUNDLED),
        reports: Reports::default(),
        settings: None,
        replaced: Vec::new(),
        unread: Vec::new(),
        rules: Schedule::default(),
        health: Schedule::default(),
        clock: Clock::default(),
        began: clock::now(),
    });
}

/// What an isolate keeps between requests.
struct State {
    rules_state: RulesState,
    reports: Reports,
    settings: Option<Rc<Settings>>,
    /// Rules that were replaced. Requests that began with them may still use them.
    replaced: Vec<Rc<Table>>,
    /// For each node: why its health report couldn't be read in the last fetch; `None` if it was read.
    unread: Vec<Option<ReadError>>,
    rules: Schedule,
    health: Schedule,
    /// The clock for the age of rules. It never goes back.
    clock: Clock,
    /// When this isolate began.
    began: Timestamp,
}

impl State {
    /// Reads the Worker's variables, once.
    fn begin(&mut self, env: &Env, now: Timestamp) {
        let steady = Timestamp(self.clock.at(now));
        if self.settings.is_none() {
            self.settings = Some(Rc::new(settings(env)));
            self.arrange(steady);
        }
    }

    fn arrange(&mut self, now: Timestamp) {
        let Some(settings) = &self.settings else { return };
        let (urls, kv) = (settings.rules.len(), usize::from(settings.has_kv));
        self.rules_state.arrange(urls + kv, if urls > 0 { urls } else { kv }, now);
        self.unread = vec![None; settings.health.len()];
    }

    /// How long a lease on a feed lasts. It is longer than any fetch.
    fn longest(&self, feed: Feed) -> Millis {
        let has_both = self.settings.as_ref().is_some_and(|settings| settings.has_kv && !settings.rules.is_empty());
        match feed {
            Feed::Rules if has_both => Millis(2 * RULES_TIMEOUT.0 + COMPILE_MARGIN.0),
            Feed::Rules => Millis(RULES_TIMEOUT.0 + COMPILE_MARGIN.0),
            Feed::Health => Millis(HEALTH_TIMEOUT.0 + LEASE_MARGIN.0),
        }
    }

    /// Whether a feed has to be fetched again, and whether requests have to wait for it.
    fn due(&mut self, feed: Feed, now: Timestamp) -> Due {
        let Some(settings) = &self.settings else { return Due::No };
        let longest = self.longest(feed);
        match feed {
            Feed::Rules if !settings.has_rules() => Due::No,
            Feed::Health if settings.health.is_empty() => Due::No,
            Feed::Rules => {
                let (every, most) = (settings.rules_every, settings.rules_max_age);
                let usable = self.rules_state.table().is_some() && !matches!(self.age_at(now), Age::TooOld(_));
                let most = if usable { most } else { most.min(every.max(RETRY_WITHOUT_RULES)) };
                self.rules.due(now, every, most, longest)
            }
            Feed::Health => {
                let most = self.reports.counts_for();
                let every = settings.health_every.min(Millis(most.0 / 3 * 2));
                self.health.due(now, every, most, longest)
            }
        }
    }

    /// The current time by the clock for the age of rules.
    fn steady(&mut self) -> Timestamp {
        Timestamp(self.clock.at(clock::now()))
    }

    fn age_at(&mut self, now: Timestamp) -> Age {
        let steady = Timestamp(self.clock.at(now));
        self.age(steady)
    }

    fn age(&self, steady: Timestamp) -> Age {
        let max_age = self.settings.as_ref().map_or(Millis(u64::MAX), |settings| settings.rules_max_age);
        self.rules_state.age(steady, max_age)
    }
}

/// The settings, once the first request has read them.
pub(crate) fn current_settings() -> Option<Rc<Settings>> {
    STATE.with_borrow(|state| state.settings.clone())
}

/// The number of the current rules; 0 without any.
pub(crate) fn revision_number() -> u64 {
    STATE.with_borrow(|state| state.rules_state.table().map_or(0, |table| table.revision().number))
}

/// The current rules, whether or not they are too old.
pub(crate) fn current_table() -> Option<Rc<Table>> {
    STATE.with_borrow(|state| state.rules_state.table().cloned())
}

/// When this isolate began.
pub(crate) fn began() -> Timestamp {
    STATE.with_borrow(|state| state.began)
}

/// For each node's host: the age of its last health report, in milliseconds.
pub(crate) fn health_ages() -> Vec<(String, u64)> {
    STATE.with_borrow(|state| {
        let now = clock::now();
        let host = |node: usize| Some(state.settings.as_ref()?.health.get(node)?.host.clone());
        state.reports.received().filter_map(|(node, at)| Some((host(node)?, now.since(at).0))).collect()
    })
}

/// Reads the settings from the Worker's variables.
fn settings(env: &Env) -> Settings {
    let settings = Settings::of(|name| env.text(name), env.has_kv());
    log::set_all(settings.log_all);
    for name in &settings.unreadable {
        log::warn(&json!({ "event": "variable_unreadable", "variable": name }));
    }
    settings
}
