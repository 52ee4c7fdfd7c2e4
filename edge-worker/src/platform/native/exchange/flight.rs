//! One attempt: its request, and what of its answer was read and not yet reported. [`pump`] reads the answer.

use core::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::answer::Outbox;
use super::{MAX_UNWRITTEN, RawExchange};
use crate::platform::notice::Notice;

/// How much of an answer is read before the task asks for it. In bytes.
const MAX_READ_AHEAD: usize = 1 << 16;
/// An answer that says that it has at most so many bytes is read as a whole.
const MAX_READ_AT_ONCE: usize = 1 << 16;

/// An attempt.
pub(super) struct Flight {
    pub(super) attempt: u8,
    /// The task that waits for the answer, or reads it.
    running: RefCell<Option<AbortHandle>>,
    body: RefCell<Option<Incoming>>,
    /// Whether the body is read as a whole before anything of it is reported.
    is_short: Cell<bool>,
    /// Whether the answer's body is being read, or was.
    is_read: Cell<bool>,
    held: RefCell<Vec<u8>>,
    /// How the body ended.
    ending: Cell<Option<Notice>>,
    /// Whether the task wants the next report.
    is_wanted: Cell<bool>,
    is_on_demand: Cell<bool>,
    /// Where the rest of the answer goes without the task.
    pipe: RefCell<Option<Rc<Outbox>>>,
    news: Notify,
}

impl Flight {
    pub(super) fn new(attempt: u8) -> Self {
        Self {
            attempt,
            running: RefCell::default(),
            body: RefCell::default(),
            is_short: Cell::new(false),
            is_read: Cell::new(false),
            held: RefCell::default(),
            ending: Cell::new(None),
            is_wanted: Cell::new(false),
            is_on_demand: Cell::new(false),
            pipe: RefCell::default(),
            news: Notify::new(),
        }
    }

    /// The answer has arrived.
    pub(super) fn arrived(&self, body: Incoming, is_short: bool) {
        self.is_short.set(is_short);
        self.body.replace(Some(body));
    }

    pub(super) fn runs_in(&self, task: AbortHandle) {
        self.running.replace(Some(task));
    }

    pub(super) fn is_read(&self) -> bool {
        self.is_read.get()
    }

    pub(super) fn take_body(&self) -> Option<Incoming> {
        let body = self.body.take();
        self.is_read.set(body.is_some());
        body
    }

    /// The task wants more.
    pub(super) fn wants(&self, on_demand: bool) {
        self.is_wanted.set(true);
        self.is_on_demand.set(on_demand);
    }

    pub(super) fn pipe_to(&self, outbox: Option<Rc<Outbox>>) {
        if let Some(outbox) = &outbox {
            outbox.set_piped(true);
        }
        self.pipe.replace(outbox);
        self.wake();
    }

    /// How the body ended, if nothing reads it any more.
    pub(super) fn ended(&self) -> Option<Notice> {
        self.ending.get()
    }

    /// Lets the pump look again.
    pub(super) fn wake(&self) {
        self.news.notify_one();
    }

    pub(super) fn abort(&self) {
        self.body.take();
        if let Some(task) = self.running.take() {
            task.abort();
        }
    }

    /// The next report, if the task wants one. With `flows`, it gets every chunk without asking.
    pub(super) fn next_report(&self, flows: bool) -> Option<(Notice, Option<Vec<u8>>)> {
        if !self.is_wanted.get() {
            return None;
        }
        let (held, ending) = (core::mem::take(&mut *self.held.borrow_mut()), self.ending.get());
        self.is_wanted.set(flows && !self.is_on_demand.get() && ending.is_none_or(|end| end == Notice::BodyError));
        match (held.is_empty(), ending) {
            (true, None) => {
                self.is_wanted.set(true);
                None
            }
            (true, Some(ending)) => {
                self.is_wanted.set(false);
                Some((ending, None))
            }
            (false, Some(Notice::Eof)) => Some((Notice::LastChunk, Some(held))),
            (false, _) => Some((Notice::Chunk, Some(held))),
        }
    }

    /// Whether a frame may be read now.
    fn may_read(&self, is_current: bool) -> bool {
        if self.pipe.borrow().is_some() || !is_current {
            return true;
        }
        self.held.borrow().len() < MAX_READ_AHEAD && (!self.is_on_demand.get() || self.is_wanted.get())
    }

    /// Keeps what was read.
    fn keep(&self, frame: Option<Result<Frame<Bytes>, hyper::Error>>) {
        match frame {
            None => self.ending.set(Some(Notice::Eof)),
            Some(Err(_)) => self.ending.set(Some(Notice::BodyError)),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    self.held.borrow_mut().extend_from_slice(&data);
                }
            }
        }
    }
}

/// Whether an answer is read as a whole: it says that it is short, and it is neither compressed nor sound. So one that
/// breaks off has given the client nothing, and another endpoint can be asked.
pub(super) fn is_short(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let length = text(CONTENT_LENGTH).and_then(|length| length.parse().ok());
    length.is_some_and(|length: usize| length <= MAX_READ_AT_ONCE)
        && !headers.contains_key(CONTENT_ENCODING)
        && !text(CONTENT_TYPE).is_some_and(|content_type| content_type.starts_with("audio/"))
}

/// Reads a short answer.
async fn read_at_once(exchange: RawExchange, flight: Rc<Flight>, body: Incoming) {
    match body.collect().await {
        Ok(body) => {
            flight.held.replace(body.to_bytes().into());
            flight.ending.set(Some(Notice::Eof));
        }
        Err(_) => flight.ending.set(Some(Notice::BodyError)),
    }
    if exchange.is_current(&flight) {
        exchange.report_held(&flight);
    }
}

/// Reads an answer's body to its end, as far as the task and the client keep up. What is there at once is one report.
pub(super) async fn pump(exchange: RawExchange, flight: Rc<Flight>, mut body: Incoming) {
    if flight.is_short.get() {
        return read_at_once(exchange, flight, body).await;
    }
    while flight.ending.get().is_none() {
        while !flight.may_read(exchange.is_current(&flight)) {
            flight.news.notified().await;
        }
        // A pipe may begin while a frame is awaited only if nothing is read ahead, so none is.
        let frame = body.frame().await;
        flight.keep(frame);
        // Before a pipe nothing is read that isn't asked for.
        let may_gather = !flight.is_on_demand.get();
        while may_gather && flight.ending.get().is_none() && flight.held.borrow().len() < MAX_READ_AHEAD {
            let Some(frame) = body.frame().now_or_never() else { break };
            flight.keep(frame);
        }
        let pipe = flight.pipe.borrow().clone();
        match pipe {
            Some(outbox) => pass_on(&exchange, &flight, &outbox).await,
            None if exchange.is_current(&flight) => exchange.report_held(&flight),
            // The rest of an answer that the task has left.
            None => flight.held.borrow_mut().clear(),
        }
    }
}

/// Passes what was read to the client, and waits until the client has room for more.
async fn pass_on(exchange: &RawExchange, flight: &Rc<Flight>, outbox: &Rc<Outbox>) {
    outbox.push(Bytes::from(core::mem::take(&mut *flight.held.borrow_mut())));
    while outbox.unwritten() > MAX_UNWRITTEN && !outbox.is_gone() {
        outbox.taken().await;
    }
    if let Some(ending) = flight.ending.get() {
        outbox.set_piped(false);
        let notice = if outbox.is_gone() { Notice::WriteFailed } else { ending };
        exchange.report(notice, flight.attempt, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_answer_is_read_as_a_whole() {
        let cases: [(&[(&str, &str)], bool); 7] = [
            (&[("content-length", "65536")], true),
            (&[("content-length", "65537")], false),
            (&[("content-length", "0"), ("content-type", "text/event-stream")], true),
            (&[("content-length", "10"), ("content-encoding", "gzip")], false),
            (&[("content-length", "10"), ("content-type", "audio/mpeg")], false),
            (&[("content-length", "-1")], false),
            (&[("transfer-encoding", "chunked")], false),
        ];
        for (headers, is) in cases {
            let named = |(name, value): &(&str, &str)| (name.parse().unwrap(), value.parse().unwrap());
            assert_eq!(is_short(&headers.iter().map(named).collect()), is, "{headers:?}");
        }
    }
}
