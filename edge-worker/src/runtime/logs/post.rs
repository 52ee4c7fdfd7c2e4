//! Posts what waits in the isolate's queue. Takes records; sends them to their sinks and counts what became of them.
//! Called by [`super`].

use std::cell::RefCell;
use std::panic::AssertUnwindSafe;

use bailiwick_rules::table::Sink;
use bailiwick_rules::time::{Millis, Timestamp};
use futures_util::future::join_all;
use serde_json::json;
use worker::js_sys::futures::future_to_promise;
use worker::wasm_bindgen::JsValue;
use worker::{Delay, Env};

use crate::decide::logs::{Batch, Queue, Settled, Signal, rejected, settled};
use crate::decide::rules_state::ReadError;
use crate::runtime::clock;
use crate::runtime::env;
use crate::runtime::exchange::JsExchange;
use crate::runtime::feed::{self, ask};
use crate::runtime::isolate;
use crate::runtime::log;
use crate::runtime::metrics;

/// How long records are gathered for one post.
const GATHER: Millis = Millis(1_000);
/// How long a sink may take to answer.
const TIMEOUT: Millis = Millis(5_000);
/// How long one request goes on with posts, while something waits. The runtime ends background work 30 s after its
/// request.
const LONGEST: Millis = Millis(20_000);
/// After so long without a sign of it, a post was cut short by the runtime.
const LEASE: Millis = Millis(GATHER.0 + TIMEOUT.0 + 5_000);

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

#[derive(Default)]
struct State {
    queue: Queue,
    /// Until when posts count as under way.
    posting_until: Timestamp,
}

/// Adds a record for a sink. False if there is no room for it.
pub(super) fn push(sink: &Sink, signal: Signal, record: &str) -> bool {
    STATE.with_borrow_mut(|state| state.queue.push(sink, signal, record))
}

/// Begins to post in the background, if no post is under way.
pub(super) fn begin(env: &Env, exchange: &JsExchange) {
    let now = clock::now();
    let cut_short = STATE.with_borrow_mut(|state| {
        if state.queue.is_empty() || state.posting_until.lasts(now, LEASE) {
            return None;
        }
        state.posting_until = now.after(LEASE);
        Some(state.queue.give_up())
    });
    let Some(cut_short) = cut_short else { return };
    metrics::sink("", Signal::Logs, "lost", cut_short);
    let env = env.clone();
    let posts = future_to_promise(AssertUnwindSafe(async move {
        post(&env).await;
        Ok(JsValue::UNDEFINED)
    }));
    exchange.keep(&posts);
}

/// Posts until nothing waits.
async fn post(env: &Env) {
    let began = clock::now();
    loop {
        Delay::from(GATHER.to_std()).await;
        let table = feed::current_table();
        let sinks = table.as_ref().map_or(&[][..], |table| table.sinks());
        let now = clock::now();
        let (due, orphaned) = STATE.with_borrow_mut(|state| {
            state.posting_until = now.after(LEASE);
            let orphaned = state.queue.follow(sinks);
            (state.queue.take(now), orphaned)
        });
        metrics::sink("", Signal::Logs, "dropped_no_sink", orphaned);
        join_all(due.into_iter().map(|batch| send(env, batch))).await;
        let goes_on = STATE.with_borrow_mut(|state| {
            let goes_on = !state.queue.is_empty() && clock::now().since(began) < LONGEST;
            if !goes_on {
                state.posting_until = Timestamp(0);
            }
            goes_on
        });
        if !goes_on {
            return;
        }
    }
}

/// Sends one batch, and counts its records by what became of them.
async fn send(env: &Env, batch: Batch) {
    let (count, signal, sink) = (batch.count(), batch.signal, batch.sink.id.clone());
    let (settled, rejected, reason) = match deliver(env, &batch).await {
        Ok(rejected) => (Settled::Taken, rejected.min(count), None),
        Err(error) => (settled(error), 0, Some(error)),
    };
    let noted = STATE.with_borrow_mut(|state| state.queue.settle(batch, settled, clock::now()));
    metrics::sink(sink.as_str(), signal, "rejected", rejected);
    metrics::sink(sink.as_str(), signal, "lost", noted.lost);
    match reason {
        None => metrics::sink(sink.as_str(), signal, "taken", count - rejected),
        Some(error) => metrics::sink_failed(sink.as_str(), signal, error.label()),
    }
    if noted.is_news {
        let (sink, signal) = (sink.as_str(), signal.as_str());
        match reason {
            Some(reason) => {
                let reason = reason.to_string();
                log::warn(&json!({ "event": "sink_failing", "sink": sink, "signal": signal, "reason": reason }));
            }
            None => log::info(&json!({ "event": "sink_taking", "sink": sink, "signal": signal })),
        }
    }
}

/// Sends one batch. Returns how many of its records the sink rejected.
async fn deliver(env: &Env, batch: &Batch) -> Result<u64, ReadError> {
    let rule = &batch.sink.rule;
    let secret = match &rule.secret {
        None => None,
        Some(name) => {
            let value = env::text(env, name.as_str()).unwrap_or_default();
            match value.trim() {
                "" => return Err(ReadError::NoKey),
                // It names its scheme itself, such as `Basic …`.
                value if value.contains(' ') => Some(value.to_owned()),
                token => Some(ask::bearer(token)),
            }
        }
    };
    let url = match batch.signal {
        Signal::Logs => &rule.otlp,
        Signal::Traces => rule.traces.as_ref().ok_or(ReadError::BadUrl)?,
    };
    let body = batch.body(&isolate::name());
    let answer = ask::post_for(url.as_url().as_str(), secret.as_deref(), &body, TIMEOUT, 200..=299).await?;
    rejected(&answer).ok_or(ReadError::Unreadable)
}
