//! Waits for the next event of a run. Takes what the exchange (the JavaScript side of the request) reports, returns an
//! [`Event`] of the attempt machine. Called by `proxy`.

use core::future::{Future as _, poll_fn};
use core::task::Poll;
use std::pin::pin;

use futures_util::future::LocalBoxFuture;

use super::{Driver, FetchState, announced_length, is_event_stream};
use crate::decide::attempt::{AttemptNumber, Event};
use crate::decide::cooldown;
use crate::decide::headers::Headers;
use crate::runtime::clock;
use crate::runtime::exchange::{Arrival, Exchange};
use crate::runtime::held::Writing;
use crate::runtime::uploads::OutboundUpload;

/// The values of `Content-Encoding` with which the edge can read the body: the body isn't compressed, or the runtime
/// decompresses it. The runtime knows these values only in lower case.
const UNPACKED: &[&str] = &["", "br", "gzip", "identity"];

impl Driver {
    /// Waits for the next event. `None` if the run isn't done but there is nothing to wait for, which would be a bug.
    pub(super) async fn next_event(&mut self) -> Option<Event> {
        loop {
            let reading = matches!(self.fetch, FetchState::Reading { ended: false, .. });
            if !reading && !matches!(self.fetch, FetchState::Sending) && self.timer.is_none() {
                return None;
            }
            let arrived = match &self.job.upload {
                None if self.writing.is_under_way() => {
                    next_while_writing(&mut self.exchange, reading, &mut self.writing).await
                }
                None => self.exchange.next(reading).await,
                Some(upload) => next_while_uploading(&mut self.exchange, reading, upload).await,
            };
            // The upload was refused while it was sent. The endpoint may answer the incomplete upload with an error,
            // but it isn't at fault.
            if self.run.served_by().is_none() && self.upload_failure().is_some() {
                return Some(Event::ClientGone);
            }
            return Some(match arrived {
                Arrival::Headers { attempt, status, headers } => {
                    if self.wants_purpose(status) {
                        self.file = self.fetch_stored_file().await;
                    }
                    self.on_headers(attempt, status, headers)
                }
                Arrival::Timer => match self.timer.take() {
                    Some(_) if self.is_client_late() => Event::ClientGone,
                    Some(attempt) => Event::Timer { attempt },
                    None => continue,
                },
                Arrival::Event(event) => {
                    match event {
                        Event::FetchError { .. } => self.fetch = FetchState::Idle,
                        Event::Eof { .. } | Event::BodyError { .. } => self.on_body_end(),
                        _ => {}
                    }
                    event
                }
            });
        }
    }

    /// Whether a limit was exceeded while the client was still sending. Then the endpoint isn't at fault.
    fn is_client_late(&mut self) -> bool {
        let is_late = self.run.served_by().is_none() && self.run.is_overdue(self.clock.at(clock::now()));
        is_late && self.job.upload.as_ref().is_some_and(OutboundUpload::blame_client)
    }

    /// The headers of an answer have arrived: notes what they say, and makes the event for the attempt machine.
    #[inline(never)]
    fn on_headers(&mut self, attempt: AttemptNumber, status: u16, headers: Headers) -> Event {
        // A `Retry-After` in a successful answer isn't a request to pause.
        let failed = !(200..=299).contains(&status);
        let retry_after_ms = if failed { cooldown::retry_after_ms(&headers, clock::now()) } else { None };
        let upstream_id = headers.get("x-request-id").or_else(|| headers.get("apim-request-id"));
        self.info.upstream_id = upstream_id.filter(|id| is_id(id)).map(str::to_owned);
        let content_type = headers.get("content-type").map(str::to_owned);
        let packed = headers.get("content-encoding").is_some_and(|encoding| !UNPACKED.contains(&encoding));
        if self.job.metering.is_some() {
            self.read_quota_headers(status, &headers);
        }
        self.check_place(&headers);
        self.run.note_length(announced_length(&headers).is_some());
        self.exchange.prepare_pipe(
            self.job.pipes && !self.reads_usage() && content_type.as_deref().is_some_and(is_event_stream),
        );
        self.fetch = FetchState::Reading { headers, ended: false };
        Event::Headers { attempt, status, content_type, packed, retry_after_ms }
    }

    fn on_body_end(&mut self) {
        if let FetchState::Reading { ended, .. } = &mut self.fetch {
            *ended = true;
        }
    }
}

/// Waits for what happens next, while the body is written to the endpoint.
#[inline(never)]
fn next_while_writing<'a>(
    exchange: &'a mut Exchange,
    reading: bool,
    writing: &'a mut Writing,
) -> LocalBoxFuture<'a, Arrival> {
    Box::pin(async move {
        let mut next = pin!(exchange.next(reading));
        poll_fn(|context| {
            writing.poll(context);
            next.as_mut().poll(context)
        })
        .await
    })
}

/// Waits for what happens next, or for the refusal of the upload, while the upload is sent.
#[inline(never)]
fn next_while_uploading<'a>(
    exchange: &'a mut Exchange,
    reading: bool,
    upload: &'a OutboundUpload,
) -> LocalBoxFuture<'a, Arrival> {
    Box::pin(async move {
        let mut next = pin!(exchange.next(reading));
        poll_fn(|context| {
            let is_refused = upload.poll(context).is_ready();
            match next.as_mut().poll(context) {
                Poll::Pending if is_refused => Poll::Ready(Arrival::Event(Event::ClientGone)),
                arrived => arrived,
            }
        })
        .await
    })
}

/// Whether an endpoint's request id can be passed on: it must look like an id, so that it can't carry a message.
fn is_id(id: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':');
    (1..=128).contains(&id.len()) && id.bytes().all(fits)
}
