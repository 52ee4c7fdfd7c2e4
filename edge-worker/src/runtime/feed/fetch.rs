//! Fetches rules or health once. Asks the sources, and stores their answers in the state of [`super`]. Called by `feed`
//! for the request that holds the lease on the feed.

use core::future::Future;
use std::rc::Rc;

use bailiwick_rules::report::HealthReport;
use bailiwick_rules::table::{Revision, Table};
use bailiwick_rules::time::Millis;
use bailiwick_rules::turns::Turns;
use futures_util::future::{self, Either};
use futures_util::stream::FuturesUnordered;
use futures_util::{StreamExt, pin_mut};
use serde_json::{Value, json};

use super::ask::{self, Read};
use super::settings::Settings;
use super::{FetchSignal, GRACE_FOR_OTHERS, HEALTH_TIMEOUT, PAUSE, RULES_TIMEOUT, STATE};
use crate::decide::rules_state::{OfferOutcome, ReadError, RefusalReason};
use crate::decide::secrets;
use crate::decide::staged::is_for_some;
use crate::platform::{Env, sleep};
use crate::runtime::clock;
use crate::runtime::env;
use crate::runtime::log;
use crate::runtime::metrics::{self, FeedKind};
use crate::runtime::outbox;

/// Asks every URL of rules at the same time. If no URL gives a usable answer, asks KV. Notifies `signal` when requests
/// may continue.
pub(super) async fn fetch_rules(env: &Env, settings: &Settings, signal: &FetchSignal) {
    let token = env.text("RULES_TOKEN");
    let mut reads = FuturesUnordered::new();
    for (position, source) in settings.rules.iter().enumerate() {
        let etag = STATE.with_borrow(|state| state.rules_state.etag(position).map(str::to_owned));
        let token = token.as_deref();
        reads.push(async move { (position, ask::get(&source.url, token, etag.as_deref(), RULES_TIMEOUT).await) });
    }
    let mut take =
        async |(position, read): (usize, Result<Read, ReadError>)| take_rules(env, settings, position, read).await;
    let mut is_answered = first_good(&mut reads, &mut take).await;
    if !is_answered && settings.has_kv {
        is_answered = take((settings.rules.len(), ask::kv(env, RULES_TIMEOUT).await)).await;
    }
    // The rules count as confirmed at the first answer, although other sources may answer later.
    let answered = clock::now();
    if is_answered {
        all_within(GRACE_FOR_OTHERS, &mut reads, &mut take).await;
    }
    STATE.with_borrow_mut(|state| state.rules.done(answered));
    signal.notify();
    while let Some(read) = reads.next().await {
        take(read).await;
    }
    free_replaced().await;
}

/// Takes the answer of a source of rules. True if the current rules are now at least as new as those of the source.
async fn take_rules(env: &Env, settings: &Settings, position: usize, read: Result<Read, ReadError>) -> bool {
    let was_unread = STATE.with_borrow(|state| state.rules_state.is_unread(position));
    let source = settings.rules_source(position);
    let mut taken = None;
    let read = match read {
        Ok(Read::Document { head, .. }) if is_for_some(head.as_deref()) => Err(ReadError::Staged),
        // A DNS node answers 204 if it has no rules that are for all nodes.
        Err(ReadError::Status(204)) => Err(ReadError::Staged),
        read => read,
    };
    let (good, result, line) = match read {
        Err(why) => STATE.with_borrow_mut(|state| {
            let steady = state.steady();
            let rules_state = &mut state.rules_state;
            let good = rules_state.is_answer(position, why);
            let line = || json!({ "event": "rules_unreachable", "source": source, "reason": why.to_string() });
            (good, why.label(), rules_state.note_unread(position, why, steady).then(|| (true, line())))
        }),
        Ok(Read::Unmodified) => STATE.with_borrow_mut(|state| {
            let steady = state.steady();
            state.rules_state.note_unmodified(position, steady);
            (true, "unmodified", None)
        }),
        Ok(Read::Document { bytes, etag, .. }) => {
            let offer = take_document(position, bytes, etag).await;
            if matches!(offer, OfferOutcome::Taken(_)) {
                taken = STATE.with_borrow(|state| state.rules_state.table().cloned());
            }
            (offer.is_good(), offer.label(), line_of(source, &offer))
        }
    };
    let is_again = was_unread && STATE.with_borrow(|state| !state.rules_state.is_unread(position));
    let again = is_again.then(|| (false, json!({ "event": "rules_reachable", "source": source })));
    metrics::fetch(FeedKind::Rules, source, result);
    for (is_warning, line) in [again, line].into_iter().flatten() {
        if is_warning { log::warn(&line) } else { log::info(&line) }
    }
    if let Some(table) = taken {
        // Without sinks no request would look at what waits for those of the rules before.
        outbox::follow(table.sinks());
        log_missing_secrets(env, &table);
    }
    good
}

/// Takes a source's document. The document is compiled in turns, with pauses between them, so that a large document
/// delays no request for long. If there are no rules yet, every request waits for this document, so it is compiled
/// without pauses.
async fn take_document(position: usize, bytes: Vec<u8>, etag: Option<String>) -> OfferOutcome {
    // The document counts as confirmed when the source answered, however long the compilation takes.
    let (steady, has_rules) = STATE.with_borrow_mut(|state| (state.steady(), state.rules_state.table().is_some()));
    let mut turns = if has_rules { Turns::new(PAUSE) } else { Turns::unbroken() };
    let sha256 = Revision::digest_in_turns(&bytes, &mut turns).await;
    let known = STATE.with_borrow_mut(|state| state.rules_state.look_at(position, sha256, etag.as_deref(), steady));
    if let Some(known) = known {
        return known;
    }
    let compiled = Table::compile_in_turns(&bytes, sha256, &mut turns).await;
    drop(bytes);
    STATE.with_borrow_mut(|state| {
        let before = state.rules_state.table().cloned();
        let offer = state.rules_state.offer(position, sha256, compiled, etag, steady);
        if matches!(offer, OfferOutcome::Taken(_)) {
            state.replaced.extend(before);
        }
        offer
    })
}

/// Frees the tables that were replaced and that no request uses any more. Pauses now and then, so that requests aren't
/// delayed.
async fn free_replaced() {
    let unused = STATE.with_borrow_mut(|state| {
        let all = core::mem::take(&mut state.replaced);
        let (unused, used) = all.into_iter().partition::<Vec<_>, _>(|table| Rc::strong_count(table) == 1);
        state.replaced = used;
        unused
    });
    let mut turns = Turns::new(PAUSE);
    for table in unused.into_iter().filter_map(Rc::into_inner) {
        table.free(&mut turns).await;
    }
}

/// Logs the endpoints that will be skipped because they lack a credential. Otherwise only a 503 would show it.
fn log_missing_secrets(env: &Env, table: &Table) {
    let missing = secrets::missing(table, |_| true, |name| env::has(env, name));
    if !missing.is_empty() {
        let (revision, endpoints) = (table.revision().number, secrets::to_json(&missing));
        log::warn(&json!({ "event": "no_secret", "revision": revision, "endpoints": endpoints }));
    }
}

/// The log line for the result of an offered document, and whether it is a warning.
fn line_of(source: &str, offer: &OfferOutcome) -> Option<(bool, Value)> {
    match offer {
        OfferOutcome::Known | OfferOutcome::RefusedBefore => None,
        OfferOutcome::Taken(revision) => {
            let (number, sha256) = (revision.number, revision.sha256_hex());
            let line = json!({ "event": "rules_taken", "source": source, "revision": number, "sha256": sha256 });
            Some((false, line))
        }
        OfferOutcome::Refused(why, violations) => {
            let mut line = json!({ "event": "rules_refused", "source": source, "reason": why.as_str() });
            if *why == RefusalReason::Invalid {
                // The operator wrote the document, so its mistakes may be logged. The line holds the first five.
                let first: Vec<String> = violations.iter().take(5).map(ToString::to_string).collect();
                (line["violations"], line["first"]) = (violations.len().into(), first.into());
            }
            Some((true, line))
        }
    }
}

/// Asks every node for its health report at the same time. Notifies `signal` when requests may continue.
pub(super) async fn fetch_health(env: &Env, settings: &Settings, signal: &FetchSignal) {
    let token = env.text("HEALTH_TOKEN");
    let mut reads = FuturesUnordered::new();
    for (position, source) in settings.health.iter().enumerate() {
        let token = token.as_deref();
        reads.push(async move { (position, ask::get(&source.url, token, None, HEALTH_TIMEOUT).await) });
    }
    let mut take = async |(position, read): (usize, Result<Read, ReadError>)| take_health(settings, position, read);
    let is_answered = first_good(&mut reads, &mut take).await;
    let answered = clock::now();
    if is_answered {
        all_within(GRACE_FOR_OTHERS, &mut reads, &mut take).await;
    }
    STATE.with_borrow_mut(|state| state.health.done(answered));
    signal.notify();
    while let Some(read) = reads.next().await {
        take(read).await;
    }
}

/// Takes a node's answer. True if the answer is a report. If a node doesn't answer, its last report counts until it is
/// too old.
fn take_health(settings: &Settings, position: usize, read: Result<Read, ReadError>) -> bool {
    let report = read.and_then(|read| match read {
        Read::Document { bytes, .. } => {
            serde_json::from_slice::<HealthReport>(&bytes).map_err(|_| ReadError::Unreadable)
        }
        Read::Unmodified => Err(ReadError::Unreadable),
    });
    let why = report.as_ref().err().copied();
    let before = STATE.with_borrow_mut(|state| {
        if let Ok(report) = report {
            state.reports.receive(position, clock::now(), report);
        }
        state.unread.get_mut(position).and_then(|known| core::mem::replace(known, why))
    });
    let source = settings.health.get(position).map_or("", |source| source.host.as_str());
    metrics::fetch(FeedKind::Health, source, why.map_or("reported", ReadError::label));
    match why {
        Some(why) if before != Some(why) => {
            log::warn(&json!({ "event": "health_unreachable", "source": source, "reason": why.to_string() }));
        }
        None if before.is_some() => log::info(&json!({ "event": "health_reachable", "source": source })),
        _ => {}
    }
    why.is_none()
}

/// Takes answers as they arrive, until `take` returns true for an answer. False if it does so for none.
async fn first_good<F: Future>(reads: &mut FuturesUnordered<F>, take: &mut impl AsyncFnMut(F::Output) -> bool) -> bool {
    while let Some(read) = reads.next().await {
        if take(read).await {
            return true;
        }
    }
    false
}

/// Takes the answers that arrive within `time`.
async fn all_within<F: Future>(
    time: Millis,
    reads: &mut FuturesUnordered<F>,
    take: &mut impl AsyncFnMut(F::Output) -> bool,
) {
    if reads.is_empty() {
        return;
    }
    let delay = sleep(time);
    pin_mut!(delay);
    while let Either::Left((Some(read), _)) = future::select(reads.next(), delay.as_mut()).await {
        take(read).await;
    }
}
