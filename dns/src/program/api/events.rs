//! `GET /v1/events`, by which the page at `/ui/` follows events. Takes the number of the last event that a viewer has;
//! sends the events after it, and all events to come, as server-sent events
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).
//!
//! The node doesn't wait for a viewer that reads slowly: it keeps a few pieces for it, and closes the stream after a
//! while. The viewer then connects again with the number of its last event, and misses nothing that is still kept.

use std::convert::Infallible;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc::{Sender, channel};
use tokio::time::{Instant, timeout};

use super::Api;
use super::reply::Problem;
use crate::program::picture::events::{Event, Events};

/// How many past events a viewer without a number gets.
const PAST: usize = 200;
/// How many events one piece of the stream has at most.
const IN_A_PIECE: usize = 64;
/// How many pieces are kept for a viewer who reads slowly.
const PIECES: usize = 4;
/// How long a viewer may read nothing.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// How often a comment is sent, so that no proxy in between takes the connection for dead.
const PING: Duration = Duration::from_secs(15);

/// How long one stream lasts. The viewer connects again with the number of its last event, so nothing is lost. A viewer
/// that vanished without closing the connection, and whose events disappear in buffers, holds its place no longer.
const LIFE: Duration = Duration::from_secs(3_600);

/// How many past events are wanted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsQuery {
    last: Option<usize>,
}

/// Sends events until the viewer leaves, is too slow, or the server goes down.
pub(super) async fn events(
    State(api): State<Arc<Api>>,
    query: Result<Query<EventsQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|rejection| {
        let message = format!("{}; ask as /v1/events, or as /v1/events?last=50", rejection.body_text());
        Problem::new(StatusCode::BAD_REQUEST, message)
    })?;
    let place = Arc::clone(&api.picture.viewers).try_acquire_owned();
    let Some(place) = place.ok().filter(|_| !api.picture.is_closed()) else {
        let message = "as many follow the events of this node as may; ask another node, or /v1/picture now and then";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, message));
    };
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok()).and_then(|id| own_id(&api, id));
    let from = last.unwrap_or_else(|| api.picture.events(|events| events.before_last(query.last.unwrap_or(PAST))));
    // A new viewer first gets past events.
    let known = last.unwrap_or_else(|| api.picture.events(Events::newest));
    let (pieces, received) = channel(PIECES);
    tokio::spawn(async move {
        follow(api, from, known, pieces, LIFE).await;
        drop(place);
    });
    let stream = unfold(received, |mut received| async {
        let piece: String = received.recv().await?;
        Some((Ok::<_, Infallible>(piece), received))
    });
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((headers, Body::from_stream(stream)).into_response())
}

/// Sends events to one viewer until its stream is over. It has the events up to `from`, and misses none up to `known`.
pub(super) async fn follow(api: Arc<Api>, mut from: u64, known: u64, pieces: Sender<String>, life: Duration) {
    let end = Instant::now() + life;
    let mut newest = api.picture.follow();
    let hello = json!({ "node": api.node, "begun": api.begun });
    if !send(&pieces, format!("retry: 3000\nevent: hello\ndata: {hello}\n\n")).await {
        return;
    }
    loop {
        newest.borrow_and_update();
        let events = api.picture.events(|events| events.after(from, IN_A_PIECE));
        if api.picture.is_closed() || Instant::now() >= end {
            return;
        }
        if let Some(last) = events.last() {
            let piece = piece(&events, from.max(known), api.begun.0);
            from = last.id;
            if !send(&pieces, piece).await {
                return;
            }
            continue;
        }
        tokio::select! {
            changed = newest.changed() => if changed.is_err() { return },
            () = pieces.closed() => return,
            () = tokio::time::sleep_until(end) => return,
            () = tokio::time::sleep(PING) => if !send(&pieces, ":\n\n".to_owned()).await { return },
        }
    }
}

/// Events as text, with how many are missing between them after the one numbered `known`.
fn piece(events: &[Event], mut known: u64, begun: i64) -> String {
    let mut piece = String::new();
    for event in events {
        let missed = event.id.saturating_sub(known + 1);
        if missed > 0 {
            let _ = write!(piece, "event: missed\ndata: {{\"events\":{missed}}}\n\n");
        }
        known = known.max(event.id);
        // JSON has no line breaks here, so an event is one line whatever its texts are.
        let data = serde_json::to_string(event).unwrap_or_default();
        let _ = write!(piece, "id: {begun}-{}\nevent: change\ndata: {data}\n\n", event.id);
    }
    piece
}

/// Whether the viewer took it.
pub(super) async fn send(pieces: &Sender<String>, piece: String) -> bool {
    matches!(timeout(PATIENCE, pieces.send(piece)).await, Ok(Ok(())))
}

/// The number in an id that this process gave; `None` for one of a process before it.
fn own_id(api: &Api, id: &str) -> Option<u64> {
    let (begun, id) = id.rsplit_once('-')?;
    (begun.parse() == Ok(api.begun.0)).then(|| id.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::picture::events::{Change, Kind, Tone};

    #[test]
    fn what_is_missing_between_events_is_counted_but_not_what_was_known() {
        let event = |id| Event {
            id,
            at: bailiwick_rules::time::Timestamp(0),
            change: Change::new(Kind::Health, Tone::Plain, "fra", "is up", ""),
        };
        let told = |known| -> Vec<String> {
            let text = piece(&[3, 4, 7, 9].map(event), known, 17);
            let lines = text.lines().filter(|line| line.starts_with("id: ") || line.contains("events"));
            lines.map(|line| line.trim_start_matches("data: ").to_owned()).collect()
        };
        let missed = |count: u64| format!("{{\"events\":{count}}}");
        let ids = ["id: 17-3", "id: 17-4", "id: 17-7", "id: 17-9"];
        assert_eq!(told(1), [&missed(1), ids[0], ids[1], &missed(2), ids[2], &missed(1), ids[3]]);
        assert_eq!(told(2), [ids[0], ids[1], &missed(2), ids[2], &missed(1), ids[3]]);
        assert_eq!(told(7), [ids[0], ids[1], ids[2], &missed(1), ids[3]]);
        assert_eq!(told(20), ids);
    }
}
