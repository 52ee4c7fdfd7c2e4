//! The body of the client's response. The exchange pushes pieces into an [`Outbox`]; hyper takes them from an
//! [`AnswerBody`].

use core::cell::{Cell, RefCell};
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::{Response, StatusCode};
use tokio::sync::Notify;

use super::RawExchange;

/// What waits to be taken by the client.
pub(crate) struct Outbox {
    exchange: RawExchange,
    pieces: RefCell<VecDeque<Bytes>>,
    unwritten: Cell<usize>,
    /// How many bytes the client has taken.
    written: Cell<u64>,
    /// How the body ends; `None` while it goes on.
    ending: Cell<Option<Ending>>,
    length: Option<u64>,
    reader: Cell<Option<Waker>>,
    is_piped: Cell<bool>,
    is_gone: Cell<bool>,
    /// Wakes a pipe when the client has taken a piece, or has gone.
    taken: Notify,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    Complete,
    Cut,
}

impl Outbox {
    pub(super) fn new(exchange: RawExchange, length: Option<u64>) -> Self {
        Self {
            exchange,
            pieces: RefCell::default(),
            unwritten: Cell::new(0),
            written: Cell::new(0),
            ending: Cell::new(None),
            length,
            reader: Cell::new(None),
            is_piped: Cell::new(false),
            is_gone: Cell::new(false),
            taken: Notify::new(),
        }
    }

    /// Adds a piece.
    pub(super) fn push(&self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        self.unwritten.set(self.unwritten.get() + bytes.len());
        self.pieces.borrow_mut().push_back(bytes);
        self.wake();
    }

    /// How many bytes the client hasn't taken.
    pub(super) fn unwritten(&self) -> usize {
        self.unwritten.get()
    }

    /// Ends the body: it is complete, or breaks off.
    pub(super) fn end(&self, is_complete: bool) {
        if self.ending.get().is_none() {
            self.ending.set(Some(if is_complete { Ending::Complete } else { Ending::Cut }));
            self.wake();
        }
    }

    /// Whether the rest of an endpoint's answer goes straight to the client.
    pub(super) fn is_piped(&self) -> bool {
        self.is_piped.get()
    }

    pub(super) fn set_piped(&self, is_piped: bool) {
        self.is_piped.set(is_piped);
    }

    /// Whether nobody reads any more.
    pub(super) fn is_gone(&self) -> bool {
        self.is_gone.get()
    }

    /// Waits until the client takes a piece, or has gone.
    pub(super) async fn taken(&self) {
        self.taken.notified().await;
    }

    fn wake(&self) {
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }

    /// The next piece, for hyper.
    fn poll(&self, context: &Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(piece) = self.pieces.borrow_mut().pop_front() {
            self.unwritten.set(self.unwritten.get() - piece.len());
            self.written.set(self.written.get() + piece.len() as u64);
            self.taken.notify_one();
            if self.unwritten.get() == 0 {
                self.exchange.drained();
            }
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        match self.ending.get() {
            Some(Ending::Complete) => Poll::Ready(None),
            Some(Ending::Cut) => Poll::Ready(Some(Err(io::Error::other("the answer broke off")))),
            None => {
                self.reader.set(Some(context.waker().clone()));
                Poll::Pending
            }
        }
    }
}

/// The body that hyper sends.
pub(crate) struct AnswerBody(Source);

enum Source {
    Whole(Option<Bytes>),
    Written(Rc<Outbox>),
}

impl AnswerBody {
    /// A body that is complete.
    pub(super) fn whole(bytes: Option<Bytes>) -> Self {
        Self(Source::Whole(bytes.filter(|bytes| !bytes.is_empty())))
    }

    /// A response without a body.
    pub(crate) fn refusal(status: u16) -> Response<Self> {
        let mut response = Response::new(Self::whole(None));
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
        response
    }

    /// A body that is written later.
    pub(super) fn written(outbox: Rc<Outbox>) -> Self {
        Self(Source::Written(outbox))
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut self.0 {
            Source::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Source::Written(outbox) => outbox.poll(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Whole(bytes) => bytes.is_none(),
            Source::Written(outbox) => outbox.unwritten() == 0 && outbox.ending.get() == Some(Ending::Complete),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Source::Written(outbox) => outbox.length.map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        let Source::Written(outbox) = &self.0 else { return };
        outbox.is_gone.set(true);
        outbox.pieces.take();
        // hyper drops a body of known length when it has all of it.
        let is_whole = outbox.length == Some(outbox.written.get());
        outbox.taken.notify_one();
        if !is_whole && !self.is_end_stream() && outbox.ending.get() != Some(Ending::Cut) {
            outbox.exchange.client_gone();
        }
    }
}
