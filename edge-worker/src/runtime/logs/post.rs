//! Posts what waits in the isolate's outbox. Takes batches; sends them to their sinks and counts what became of them.
//! Called by [`super`].
//!
//! Each sink has at most one post under way, and waits for no other sink's post: a sink that is silent holds up itself.

use std::cell::Cell;
use std::rc::Rc;

use bailiwick_rules::time::Millis;
use futures_util::future::{self, Either};
use futures_util::stream::FuturesUnordered;
use futures_util::{StreamExt, pin_mut};
use serde_json::json;

use crate::decide::logs::{Batch, Settled, Signal, rejected, settled};
use crate::decide::rules_state::ReadError;
use crate::platform::message::Limits;
use crate::platform::{Env, RawExchange, sleep};
use crate::runtime::clock;
use crate::runtime::feed::{self, ask};
use crate::runtime::log;
use crate::runtime::metrics;
use crate::runtime::outbox;

/// How long records are gathered for one post.
const GATHER: Millis = Millis(1_000);
/// How long a sink may take to answer.
const TIMEOUT: Millis = Millis(5_000);
/// How long one request goes on to begin posts, while something waits. The runtime ends background work 30 s after its
/// request.
const LONGEST: Millis = Millis(20_000);
/// After so long without a sign of it, a poster was cut short by the runtime.
const LEASE: Millis = Millis(GATHER.0 + TIMEOUT.0 + 5_000);
/// The most posts under way. The runtime opens six connections for a request, and lets further ones wait while their
/// time runs.
const AT_ONCE: usize = 4;
/// The most bytes of a sink's answer that are read. A collector's answer is a few words.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// Begins to post in the background, if no post is under way.
pub(super) fn begin(env: &Env, exchange: &RawExchange) {
    let Some(poster) = outbox::appoint(LEASE) else { return };
    let env = env.clone();
    let is_kept = Rc::new(Cell::new(true));
    let may_begin = Rc::clone(&is_kept);
    let posts = async move {
        if may_begin.get() {
            post(&env, poster).await;
        }
    };
    // The future begins in a later microtask. If the runtime has ended this request, its posts would be cut short: what
    // waits goes with the next request.
    if !exchange.keep(posts) {
        is_kept.set(false);
        outbox::dismiss(poster);
    }
}

/// Posts until nothing waits.
async fn post(env: &Env, poster: u64) {
    let began = clock::now();
    let mut posts = FuturesUnordered::new();
    loop {
        gather(&mut posts).await;
        let may_begin = clock::now().since(began) < LONGEST;
        let most = if may_begin { AT_ONCE.saturating_sub(posts.len()) } else { 0 };
        outbox::follow(feed::current_table().as_ref().map_or(&[][..], |table| table.sinks()));
        let Some(due) = outbox::take(poster, LEASE, most) else { return };
        posts.extend(due.into_iter().map(|batch| send(env, batch)));
        if posts.is_empty() && (!may_begin || outbox::is_empty()) {
            return outbox::dismiss(poster);
        }
    }
}

/// Lets records gather, while posts go on.
async fn gather(posts: &mut FuturesUnordered<impl Future<Output = ()>>) {
    let delay = sleep(GATHER);
    pin_mut!(delay);
    while !posts.is_empty() {
        if let Either::Right(_) = future::select(posts.next(), delay.as_mut()).await {
            return;
        }
    }
    delay.await;
}

/// Sends one batch, and counts its records by what became of them.
async fn send(env: &Env, batch: Batch) {
    let (count, signal, sink) = (batch.count(), batch.signal, batch.sink.id.clone());
    let (settled, rejected, reason) = match deliver(env, &batch).await {
        Ok(rejected) => (Settled::Taken, rejected.min(count), None),
        Err(error) => (settled(error), 0, Some(error)),
    };
    // It may have been counted as lost meanwhile. Then its end isn't counted again.
    let Some(noted) = outbox::settle(batch, settled) else { return };
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
            let value = env.text(name.as_str()).unwrap_or_default();
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
    let body = batch.body();
    let limits = Limits { timeout: TIMEOUT, bytes: MAX_ANSWER_BYTES, success: 200..=299 };
    let answer = ask::post_for(url.as_url().as_str(), secret.as_deref(), &body, &limits).await?;
    rejected(&answer).ok_or(ReadError::Unreadable)
}
