//! The body of the client's response. The exchange pushes pieces into an [`Outbox`]; hyper takes them from an
//! [`AnswerBody`].

use core::cell::{Cell, RefCell};
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use bytes::{Buf, Bytes};
use hyper::body::{Body, Frame, SizeHint};
use hyper::{Response, StatusCode};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::RawExchange;

/// The most bytes of an answer that are given to hyper at once, so that it is seen whether its client takes them.
const MAX_PIECE: usize = 64 << 10;

/// How much of an answer waits for the client, and since when the client has taken nothing of that.
#[derive(Debug)]
pub(crate) struct Taken {
    waiting: Cell<usize>,
    /// What hyper has and hasn't written yet: with HTTP/2, up to the window that the client opens.
    given: Cell<usize>,
    since: Cell<Instant>,
}

impl Default for Taken {
    fn default() -> Self {
        Self { waiting: Cell::new(0), given: Cell::new(0), since: Cell::new(Instant::now()) }
    }
}

impl Taken {
    /// More waits.
    pub(crate) fn added(&self, bytes: usize, now: Instant) {
        if self.waiting.replace(self.waiting.get() + bytes) + self.given.get() == 0 {
            self.since.set(now);
        }
    }

    /// The client has taken some of it.
    pub(crate) fn took(&self, bytes: usize, now: Instant) {
        self.waiting.set(self.waiting.get().saturating_sub(bytes));
        self.since.set(now);
    }

    /// Since when the client has taken nothing; `None` if nothing waits.
    pub(crate) fn waits_since(&self) -> Option<Instant> {
        (self.waiting.get() + self.given.get() > 0).then(|| self.since.get())
    }
}

/// A piece that hyper has. It counts as given until it is written, or thrown away.
pub(crate) struct Piece {
    bytes: Bytes,
    taken: Rc<Taken>,
}

impl Piece {
    fn new(bytes: Bytes, taken: &Rc<Taken>) -> Self {
        taken.given.set(taken.given.get() + bytes.len());
        Self { bytes, taken: Rc::clone(taken) }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.taken.given.set(self.taken.given.get() - count);
        self.taken.since.set(Instant::now());
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.taken.given.set(self.taken.given.get() - self.bytes.len());
    }
}

/// What waits to be taken by the client.
pub(crate) struct Outbox {
    exchange: RawExchange,
    pieces: RefCell<VecDeque<Bytes>>,
    taken: Rc<Taken>,
    /// How many bytes the client has taken.
    written: Cell<u64>,
    /// How the body ends; `None` while it goes on.
    ending: Cell<Option<Ending>>,
    length: Option<u64>,
    reader: Cell<Option<Waker>>,
    is_piped: Cell<bool>,
    is_gone: Cell<bool>,
    /// Wakes a pipe when the client has taken a piece, or has gone.
    news: Notify,
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
            taken: Rc::default(),
            written: Cell::new(0),
            ending: Cell::new(None),
            length,
            reader: Cell::new(None),
            is_piped: Cell::new(false),
            is_gone: Cell::new(false),
            news: Notify::new(),
        }
    }

    /// Adds a piece.
    pub(super) fn push(&self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        self.taken.added(bytes.len(), Instant::now());
        self.pieces.borrow_mut().push_back(bytes);
        self.wake();
    }

    /// How many bytes the client hasn't taken.
    pub(super) fn unwritten(&self) -> usize {
        self.taken.waiting.get()
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
        self.news.notified().await;
    }

    fn wake(&self) {
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }

    /// The next piece, for hyper.
    fn poll(&self, context: &Context<'_>) -> Poll<Option<io::Result<Frame<Piece>>>> {
        let next = first_piece(&mut self.pieces.borrow_mut());
        if let Some(piece) = next {
            self.taken.took(piece.len(), Instant::now());
            self.written.set(self.written.get() + piece.len() as u64);
            self.news.notify_one();
            if self.unwritten() == 0 {
                self.exchange.drained();
            }
            return Poll::Ready(Some(Ok(Frame::data(Piece::new(piece, &self.taken)))));
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

/// The first piece, or as much of it as may be given at once.
fn first_piece(pieces: &mut VecDeque<Bytes>) -> Option<Bytes> {
    let first = pieces.front_mut()?;
    if first.len() > MAX_PIECE { Some(first.split_to(MAX_PIECE)) } else { pieces.pop_front() }
}

/// The body that hyper sends.
pub(crate) struct AnswerBody(Source);

enum Source {
    Whole(Bytes, Rc<Taken>),
    Written(Rc<Outbox>),
}

impl AnswerBody {
    /// A body that is complete.
    pub(super) fn whole(bytes: Option<Bytes>) -> Self {
        let (bytes, taken) = (bytes.unwrap_or_default(), Taken::default());
        taken.waiting.set(bytes.len());
        Self(Source::Whole(bytes, Rc::new(taken)))
    }

    /// How much of it the client has taken.
    pub(crate) fn taken(&self) -> &Rc<Taken> {
        match &self.0 {
            Source::Whole(_, taken) => taken,
            Source::Written(outbox) => &outbox.taken,
        }
    }

    /// A response without a body.
    pub(crate) fn refusal(status: StatusCode) -> Response<Self> {
        let mut response = Response::new(Self::whole(None));
        *response.status_mut() = status;
        response
    }

    /// A body that is written later.
    pub(super) fn written(outbox: Rc<Outbox>) -> Self {
        Self(Source::Written(outbox))
    }
}

impl Body for AnswerBody {
    type Data = Piece;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Piece>>>> {
        match &mut self.0 {
            Source::Whole(bytes, _) if bytes.is_empty() => Poll::Ready(None),
            Source::Whole(bytes, taken) => {
                let piece = bytes.split_to(bytes.len().min(MAX_PIECE));
                taken.took(piece.len(), Instant::now());
                Poll::Ready(Some(Ok(Frame::data(Piece::new(piece, taken)))))
            }
            Source::Written(outbox) => outbox.poll(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Whole(bytes, _) => bytes.is_empty(),
            Source::Written(outbox) => outbox.unwritten() == 0 && outbox.ending.get() == Some(Ending::Complete),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Whole(bytes, _) => SizeHint::with_exact(bytes.len() as u64),
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
        outbox.news.notify_one();
        if !is_whole && !self.is_end_stream() && outbox.ending.get() != Some(Ending::Cut) {
            outbox.exchange.client_gone();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hyper_has_waits_until_it_is_written_or_thrown_away() {
        let taken = Rc::<Taken>::default();
        let mut piece = Piece::new(Bytes::from_static(b"0123456789"), &taken);
        assert!(taken.waits_since().is_some());
        piece.advance(4);
        assert_eq!((piece.chunk(), taken.given.get()), (&b"456789"[..], 6));
        let other = Piece::new(Bytes::from_static(b"ab"), &taken);
        piece.advance(6);
        drop(piece);
        assert_eq!(taken.given.get(), 2);
        drop(other);
        assert_eq!(taken.waits_since(), None);
    }
}
