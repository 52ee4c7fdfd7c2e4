//! One attempt: its request, and what of its answer was read and not yet reported. [`pump`] reads the answer.

use core::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::answer::Outbox;
use super::{MAX_UNWRITTEN, RawExchange};
use crate::platform::notice::Notice;

/// How much of an answer is read before the task asks for it. In bytes.
const MAX_READ_AHEAD: usize = 1 << 16;

/// An attempt.
pub(super) struct Flight {
    pub(super) attempt: u8,
    /// The task that waits for the answer, or reads it.
    running: RefCell<Option<AbortHandle>>,
    body: RefCell<Option<Incoming>>,
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
    pub(super) fn arrived(&self, body: Incoming) {
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

/// Reads an answer's body to its end, as far as the task and the client keep up. What is there at once is one report.
pub(super) async fn pump(exchange: RawExchange, flight: Rc<Flight>, mut body: Incoming) {
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
