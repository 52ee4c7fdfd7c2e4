//! Posts to the DNS nodes what this isolate counted. Takes the results of requests; posts batches of counts. Called by
//! `serve`, `proxy` and `account`. Without `OBSERVATIONS_URLS`, nothing is counted here.
//!
//! If no post is under way, a request begins one inside `wait_until`, and doesn't wait for its end. The post first
//! gathers counts for `OBSERVATIONS_SECONDS`, which are five by default. Each batch is sent to each node once. If a
//! node doesn't take a batch, the batch isn't repeated: the node notices the gap in the batches' numbers.

use std::cell::RefCell;
use std::rc::Rc;

use bailiwick_rules::observe::{Key, OTHER};
use bailiwick_rules::steer::{JurisdictionSource, Ranking, Standing};
use bailiwick_rules::table::{Table, TenantIndex};
use bailiwick_rules::time::{Millis, Timestamp};
use futures_util::future::join_all;
use serde_json::json;

use crate::decide::attempt::Run;
use crate::decide::observe::{Collector, JudgedAttempts, Order};
use crate::decide::plan::Target;
use crate::decide::rules_state::ReadError;
use crate::platform::{Background, Env, sleep};
use crate::runtime::clock;
use crate::runtime::feed::ask;
use crate::runtime::feed::settings::{FeedSource as Node, Settings};
use crate::runtime::isolate;
use crate::runtime::log;
use crate::runtime::metrics::{self, FeedKind};
use crate::runtime::reply::{Identity, ResponseInfo};

/// How long a node may take to answer.
const TIMEOUT: Millis = Millis(2_000);
/// How much longer a post may take than gathering and sending do. After that, the request that began the post was cut
/// short, and another request may begin one.
const LEASE_MARGIN: Millis = Millis(5_000);

thread_local! {
    static STATE: RefCell<Option<State>> = const { RefCell::new(None) };
}

/// What an isolate keeps, if there are nodes to post counts to.
struct State {
    collector: Collector,
    /// Until when a post counts as under way.
    posting_until: Timestamp,
    /// For each node: why it didn't take the last batch; `None` if it did.
    refused: Vec<Option<ReadError>>,
}

fn with(change: impl FnOnce(&mut State, Timestamp)) {
    STATE.with_borrow_mut(|state| {
        if let Some(state) = state {
            change(state, clock::now());
        }
    });
}

/// Begins a post, if there are nodes to post counts to and no post is under way.
pub(crate) fn post_later(env: &Env, background: &Background, settings: &Rc<Settings>) {
    if settings.observations.is_empty() {
        return;
    }
    let now = clock::now();
    let gathering = settings.observations_every;
    let lease = Millis(gathering.0 + TIMEOUT.0 + LEASE_MARGIN.0);
    let is_due = STATE.with_borrow_mut(|state| {
        let state = state.get_or_insert_with(|| State::new(settings.observations.len(), now));
        let is_due = !state.posting_until.lasts(now, lease);
        if is_due {
            state.posting_until = now.after(lease);
        }
        is_due
    });
    if is_due {
        let (env, settings) = (env.clone(), Rc::clone(settings));
        background.run(async move {
            sleep(gathering).await;
            post(&env, &settings).await;
        });
    }
}

impl State {
    fn new(nodes: usize, now: Timestamp) -> Self {
        Self {
            collector: Collector::new(isolate::name(), now),
            posting_until: Timestamp(0),
            refused: vec![None; nodes],
        }
    }
}

/// Posts what was counted to every node at once.
async fn post(env: &Env, settings: &Settings) {
    let revision = crate::runtime::feed::revision_number();
    let batch = STATE.with_borrow_mut(|state| {
        let state = state.as_mut()?;
        state.posting_until = Timestamp(0);
        state.collector.take(revision, clock::now())
    });
    let Some(body) = batch.and_then(|batch| serde_json::to_string(&batch).ok()) else { return };
    let token = env.text("HEALTH_TOKEN");
    let posts = settings.observations.iter().enumerate().map(|(position, node)| {
        let (token, body) = (token.as_deref(), body.as_str());
        async move { note_result(position, node, ask::post(&node.url, token, body, TIMEOUT).await.map(drop)) }
    });
    join_all(posts).await;
}

/// Counts the result of a post to a node. Logs a line if the node stops or begins again to take batches.
fn note_result(position: usize, node: &Node, result: Result<(), ReadError>) {
    metrics::fetch(FeedKind::Observations, &node.host, result.map_or_else(ReadError::label, |()| "added"));
    let reason = result.err();
    let before = STATE.with_borrow_mut(|state| {
        let last = state.as_mut()?.refused.get_mut(position)?;
        core::mem::replace(last, reason)
    });
    match (before, reason) {
        (None, Some(reason)) => {
            let reason = reason.to_string();
            log::warn(&json!({ "event": "observations_not_taken", "source": node.host, "reason": reason }));
        }
        (Some(_), None) => log::info(&json!({ "event": "observations_taken", "source": node.host })),
        _ => {}
    }
}

/// Counts a request that was sent to no endpoint.
pub(crate) fn refused(info: &ResponseInfo, code: &str) {
    let Some(whose) = &info.whose else { return };
    with(|state, now| {
        let service = whose.table.service(whose.service).id.clone();
        let (clients, tier) = ("unknown".to_owned(), tier_of(&whose.table, whose));
        let key = Key { service, clients, region: None, endpoint: None, model: None, tier, arm: None };
        state.collector.count_unsent(key, code, now.since(info.began).0);
    });
}

/// The name of the service tier of a tenant, if it has one.
fn tier_of(table: &Table, whose: &Identity) -> Option<String> {
    let (name, _) = table.tier_of(table.tenant(whose.tenant?))?;
    Some(name.to_string())
}

/// One request that is counted, from its steering to its end.
#[derive(Debug)]
pub(crate) struct Observation {
    /// The key of the request without an endpoint.
    base: Key,
    /// The order of the client's fence (the regions that may process it), by which demand is counted; absent if this
    /// request isn't.
    order: Option<Order>,
    /// The endpoint that the request is sent to now; absent if that isn't counted.
    at: Option<Key>,
    tenant: Option<TenantIndex>,
    /// Which attempts count for the judgement of a rollout.
    judged: JudgedAttempts,
}

impl Observation {
    /// Begins to count a request that was steered. `None` if counts aren't wanted.
    pub(crate) fn begin(table: &Table, whose: &Identity, standing: &Standing, ranking: &Ranking) -> Option<Self> {
        if STATE.with_borrow(Option::is_none) {
            return None;
        }
        let service = table.service(whose.service).id.clone();
        let regions = ranking.order.iter().map(|ranked| table.region(ranked.fenced.region).id.clone());
        let order = (service.clone(), regions.collect());
        let mut counted = None;
        with(|state, now| counted = state.collector.begin_request(order, now));
        let clients = clients(table, standing);
        let tier = tier_of(table, whose);
        let base = Key { service, clients, region: None, endpoint: None, model: None, tier, arm: None };
        Some(Self { base, order: counted, at: None, tenant: whose.tenant, judged: JudgedAttempts::default() })
    }

    /// Notes that the request, which has this many bytes, is now sent to an endpoint, and no longer to the one before.
    pub(crate) fn note_sent(&mut self, target: &Target, model: Option<&str>, bytes: usize) {
        self.leave();
        let key = self.key(target, model);
        let (mut is_judged, mut counted) = (false, None);
        with(|state, now| {
            is_judged = target.is_judged()
                && state.collector.admit_to_judgement(self.tenant, &self.base.service, target.region_id());
            counted = state.collector.begin_send(key, now);
        });
        self.judged.note(is_judged, bytes);
        self.at = counted;
    }

    /// Counts how the request ended.
    pub(crate) fn end(mut self, info: &ResponseInfo, run: &Run, model: Option<&str>, code: &str) {
        self.leave();
        let key = |nth: usize| {
            let target = run.record().attempts.get(nth).and_then(|attempt| run.target(attempt.target));
            target.map_or_else(|| self.base.clone(), |target| self.key(target, model))
        };
        let (record, judged) = (run.record(), self.judged);
        with(|state, now| state.collector.count_sent(&self.base, key, record, judged, code, now.since(info.began).0));
    }

    fn leave(&mut self) {
        if let Some(key) = self.at.take() {
            with(|state, now| state.collector.end_send(&key, now));
        }
    }

    fn key(&self, target: &Target, model: Option<&str>) -> Key {
        let is_named = |model: &str| target.models().is_some_and(|models| models.contains_key(model));
        let model = model.map(|model| if is_named(model) { model } else { OTHER }.to_owned());
        let (region, endpoint) = (Some(target.region_id().clone()), Some(target.id().clone()));
        let arm = target.arm().map(|arm| arm.to_string());
        Key { region, endpoint, model, arm, ..self.base.clone() }
    }
}

impl Drop for Observation {
    /// Notes that the request has ended, so that it no longer counts as demand.
    fn drop(&mut self) {
        self.leave();
        if let Some(order) = &self.order {
            with(|state, now| state.collector.end_request(order, now));
        }
    }
}

/// The label for the jurisdictions of a client.
fn clients(table: &Table, standing: &Standing) -> String {
    if standing.jurisdictions.is_empty() {
        return if standing.source == JurisdictionSource::Unknown { "unknown" } else { "none" }.to_owned();
    }
    let mut names: Vec<&str> = standing.jurisdictions.iter().map(|index| table.jurisdiction(*index).as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names.join("+")
}
