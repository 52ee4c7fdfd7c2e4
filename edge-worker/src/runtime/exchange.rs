//! One request's exchange with its endpoints and its client. Takes requests, answers and chunks to send; returns what
//! arrives, one [`Arrival`] at a time. Called by `proxy`; `incoming` and `uploads` read the client's body through it.
//! The platform's side is a [`RawExchange`].

#[cfg(test)]
mod tests;

use core::future::poll_fn;
use core::task::Poll;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use bailiwick_rules::time::{Millis, Timestamp};

use crate::decide::attempt::{AttemptNumber, Event};
use crate::decide::envelope::Failure;
use crate::decide::headers::Headers;
use crate::platform::notice::Notice;
use crate::platform::{BodyStream, ClientBody, RawExchange};
use crate::runtime::clock::{self, Clock};
use crate::runtime::reply::Reply;

/// The next thing that happened to the endpoint's answer or to the client.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// An endpoint's status and headers.
    Headers { attempt: AttemptNumber, status: u16, headers: Headers },
    /// The timer ran out. The exchange doesn't know for which attempt it was set.
    Timer,
    /// Any other event, in the form of the attempt machine.
    Event(Event),
}

/// Arrivals that the task hasn't taken yet. Code that changes the inbox polls the task afterwards.
#[derive(Default)]
pub(crate) struct Inbox {
    arrived: VecDeque<Arrival>,
    /// Whether the timer fired. The timer isn't in the queue, because chunks that have arrived go before it.
    timer_fired: bool,
    /// Whether the client has gone, or a write to it failed.
    gone: bool,
    /// Whether the platform was asked for more of the answer, so that a report will follow.
    reading: bool,
    /// Whether the client's body has begun. From then on the platform reports each chunk without being asked.
    body_begun: bool,
    /// Whether the task must still ask for each chunk, because the rest may be piped.
    on_demand: bool,
    /// Whether the client has taken everything that was written.
    written: bool,
    /// The client's body; the inner value is `None` if it couldn't be read.
    body: Option<Option<Vec<u8>>>,
    /// The result of the last read of the client's body in pieces.
    piece: Option<Piece>,
    /// The result of a `fetch_document`; the inner value is `None` if its fetch failed.
    document: Option<Option<Vec<u8>>>,
    /// Whether the task no longer waits for feeds. A task that waits for feeds must not be dropped when its request has
    /// ended.
    pub(crate) feeds_done: bool,
}

/// The result of a read of the client's body.
#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Chunk(Vec<u8>),
    Eof,
    Failed,
    /// No piece arrived in time.
    Timeout,
}

impl Inbox {
    /// Stores a report of the platform.
    pub(crate) fn put(&mut self, notice: Notice, attempt: AttemptNumber, bytes: Option<Vec<u8>>) {
        match notice {
            Notice::Headers => self.arrived.push_back(headers(attempt, bytes)),
            Notice::FetchError => self.arrive(Event::FetchError { attempt }),
            Notice::Chunk => {
                self.reading = self.body_begun && !self.on_demand;
                self.arrive(Event::Chunk { attempt, bytes: bytes.unwrap_or_default() });
            }
            Notice::Eof => self.end(Event::Eof { attempt }),
            Notice::BodyError => self.end(Event::BodyError { attempt }),
            Notice::Timer => self.timer_fired = true,
            Notice::ClientGone | Notice::WriteFailed => self.gone = true,
            Notice::Written => self.written = true,
            Notice::RequestBody => self.body = Some(bytes),
            Notice::RequestFailed => (self.body, self.piece) = (Some(None), Some(Piece::Failed)),
            Notice::RequestChunk => self.piece = bytes.map(Piece::Chunk),
            Notice::RequestEof => self.piece = Some(Piece::Eof),
            Notice::RequestTimeout => self.piece = Some(Piece::Timeout),
            Notice::Document => self.document = Some(bytes),
            Notice::LastChunk => {
                if let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) {
                    self.arrive(Event::Chunk { attempt, bytes });
                }
                self.end(Event::Eof { attempt });
            }
        }
    }

    /// Stores the end of the endpoint's answer.
    fn end(&mut self, event: Event) {
        self.reading = false;
        self.arrive(event);
    }

    /// Stores an event of the endpoint's answer.
    fn arrive(&mut self, event: Event) {
        self.arrived.push_back(Arrival::Event(event));
    }

    /// Whether the platform must be asked for more of the answer now. If so, the caller asks, and the inbox records
    /// that. If an arrival is already there, no read is needed.
    fn wants_read(&mut self) -> bool {
        self.arrived.is_empty() && !core::mem::replace(&mut self.reading, true)
    }

    /// Returns the time to add if the timer fired while the task waited for a slow client. The endpoint's answer wasn't
    /// read meanwhile, so the delay isn't the endpoint's fault.
    fn grace(&mut self) -> Option<u64> {
        core::mem::take(&mut self.timer_fired).then_some(AFTER_A_SLOW_CLIENT_MS)
    }

    /// Takes the next arrival. Events of the endpoint come first, then the report that the client has gone, then the
    /// timer.
    fn take(&mut self) -> Option<Arrival> {
        if let Some(arrived) = self.arrived.pop_front() {
            return Some(arrived);
        }
        if self.gone {
            return Some(Arrival::Event(Event::ClientGone));
        }
        core::mem::take(&mut self.timer_fired).then_some(Arrival::Timer)
    }

    /// Takes what ends a wait for the client's body: the body (`None` if it couldn't be read), or `None` if the timer
    /// fired first.
    fn take_body(&mut self) -> Option<Option<Option<Vec<u8>>>> {
        if let Some(body) = self.body.take() {
            return Some(Some(body));
        }
        if self.gone {
            return Some(Some(None));
        }
        core::mem::take(&mut self.timer_fired).then_some(None)
    }
}

/// Reads the status and the headers. The status, each name and each value have a line of their own.
fn headers(attempt: AttemptNumber, bytes: Option<Vec<u8>>) -> Arrival {
    let text = String::from_utf8(bytes.unwrap_or_default()).unwrap_or_default();
    let (status, headers) = text.split_once('\n').unwrap_or_default();
    Arrival::Headers { attempt, status: status.parse().unwrap_or(0), headers: Headers::read(headers.to_owned()) }
}

/// Waits until `take` returns something. The task is polled after each entry to its inbox.
async fn wait_for<T>(inbox: &RefCell<Inbox>, take: impl Fn(&mut Inbox) -> Option<T>) -> T {
    poll_fn(|_| take(&mut inbox.borrow_mut()).map_or(Poll::Pending, Poll::Ready)).await
}

/// The longest time for which a timer is set, in milliseconds. A later deadline needs several timers. Because of this
/// limit, the timer that is already set fires early enough for most deadlines, and is seldom set again.
const LONGEST_TIMER_MS: u64 = 5_000;
/// The additional time for an endpoint if the timer fired because of a slow client, in milliseconds.
const AFTER_A_SLOW_CLIENT_MS: u64 = 100;

/// A request's exchange. When its task ends, the fetch in flight is aborted.
pub(crate) struct Exchange {
    raw: RawExchange,
    inbox: Rc<RefCell<Inbox>>,
    /// Whether the answer in flight has ended.
    ended: bool,
    /// When the timer that is set fires, in milliseconds since the epoch.
    timer_at: Option<i64>,
}

impl Exchange {
    /// The exchange of one task. `inbox` is the inbox of that task.
    pub(crate) fn new(raw: RawExchange, inbox: Rc<RefCell<Inbox>>) -> Self {
        // the platform has already set a timer of this length.
        let timer_at = Some(clock::now().0.saturating_add_unsigned(LONGEST_TIMER_MS));
        Self { raw, inbox, ended: false, timer_at }
    }

    /// Notes that the task no longer waits for feeds.
    pub(crate) fn note_feeds_done(&self) {
        self.inbox.borrow_mut().feeds_done = true;
    }

    /// Sends a request to an endpoint. An arrival of headers or of [`Event::FetchError`] follows. The body is `stream`,
    /// else `body`.
    pub(crate) fn send(
        &mut self,
        attempt: AttemptNumber,
        method: &str,
        url: &str,
        headers: &Headers,
        body: Option<&[u8]>,
        stream: Option<BodyStream>,
    ) {
        self.ended = false;
        let mut inbox = self.inbox.borrow_mut();
        (inbox.reading, inbox.on_demand) = (false, false);
        // The inbox may still hold the end of an earlier answer that was abandoned at its last chunk.
        inbox.arrived.clear();
        drop(inbox);
        let head = [method, "\n", url, "\n", headers.as_text()].concat();
        self.raw.send(attempt, &head, body, stream);
    }

    /// Waits for the next arrival. If `reading`, asks for more of the body of the answer in flight.
    pub(crate) async fn next(&mut self, reading: bool) -> Arrival {
        if reading && self.inbox.borrow_mut().wants_read() {
            let on_demand = self.inbox.borrow().on_demand;
            self.raw.read(on_demand);
        }
        let arrived = wait_for(&self.inbox, Inbox::take).await;
        match arrived {
            Arrival::Event(Event::Eof { .. } | Event::BodyError { .. }) => self.ended = true,
            Arrival::Timer => self.timer_at = None,
            _ => {}
        }
        arrived
    }

    /// Sets whether [`Exchange::pipe`] may follow. If so, no part of the answer is read ahead.
    pub(crate) fn prepare_pipe(&self, may_follow: bool) {
        self.inbox.borrow_mut().on_demand = may_follow;
    }

    /// Whether [`Exchange::pipe`] may follow now: no read is under way.
    pub(crate) fn may_pipe(&self) -> bool {
        let inbox = self.inbox.borrow();
        inbox.on_demand && !inbox.reading && inbox.arrived.is_empty() && !self.ended
    }

    /// Lets the runtime pass the rest of the answer to the client. The client must have taken everything that was
    /// written. The next arrival is the answer's end, [`Event::ClientGone`] or [`Arrival::Timer`].
    pub(crate) fn pipe(&mut self) {
        let mut inbox = self.inbox.borrow_mut();
        (inbox.on_demand, inbox.reading) = (false, true);
        drop(inbox);
        self.raw.pipe();
    }

    /// Fetches a small document. The answer in flight isn't read meanwhile. `None` if the fetch failed.
    pub(crate) async fn fetch_document(&self, url: &str, headers: &Headers) -> Option<Vec<u8>> {
        self.inbox.borrow_mut().document = None;
        let head = ["GET\n", url, "\n", headers.as_text()].concat();
        self.raw.fetch_document(&head);
        wait_for(&self.inbox, |inbox| if inbox.gone { Some(None) } else { inbox.document.take() }).await
    }

    /// Aborts the fetch in flight.
    pub(crate) fn abort(&mut self) {
        self.inbox.borrow_mut().reading = false;
        self.raw.abort();
    }

    /// Stops listening to the answer in flight, without aborting it.
    pub(crate) fn leave(&mut self) {
        self.inbox.borrow_mut().reading = false;
        if !self.ended {
            self.raw.leave();
        }
    }

    /// Sets the timer: [`Arrival::Timer`] follows after `after_ms` or earlier.
    pub(crate) fn set_timer(&mut self, now_ms: i64, after_ms: u64) {
        let after_ms = after_ms.min(LONGEST_TIMER_MS);
        let at = now_ms.saturating_add_unsigned(after_ms);
        if self.timer_at.is_none_or(|timer_at| at < timer_at) {
            self.timer_at = Some(at);
            self.set_raw_timer(after_ms);
        }
    }

    /// Sets the timer of the platform, whatever was set before.
    fn set_raw_timer(&self, after_ms: u64) {
        // At most five seconds.
        self.raw.set_timer(u32::try_from(after_ms).map_or(f64::from(u32::MAX), f64::from));
    }

    /// Answers the client with a response whose body is written later. `length` is the body's size in bytes, if known.
    /// False if the runtime rejects the status or a header. Then the client has no response yet.
    pub(crate) fn begin(&self, status: u16, headers: &Headers, length: Option<u32>) -> bool {
        let has_begun = self.raw.begin(status, headers.as_text(), length);
        self.inbox.borrow_mut().body_begun = has_begun;
        has_begun
    }

    /// Answers the client.
    pub(crate) fn reply(&self, reply: &Reply) {
        reply_to(&self.raw, reply);
    }

    /// Reads the whole body of the client's request.
    ///
    /// # Errors
    /// 400 if the client closes the connection, 408 if the body doesn't arrive in time.
    pub(crate) async fn body(&mut self, body: &ClientBody, within: Millis) -> Result<Vec<u8>, Failure> {
        if !self.raw.read_body(body) {
            return Err(Failure::MissingBody);
        }
        let mut clock = Clock::default();
        let mut time = || Timestamp(clock.at(clock::now()));
        let deadline = time().after(within);
        loop {
            self.set_timer(clock::now().0, deadline.since(time()).0);
            let result = wait_for(&self.inbox, Inbox::take_body).await;
            match result {
                Some(body) => return body.ok_or(Failure::MissingBody),
                None => self.timer_at = None,
            }
            if time() >= deadline {
                return Err(Failure::SlowBody);
            }
        }
    }

    /// Writes to the client. If the client is slow, waits until it has taken everything. False if a write failed or
    /// the client closed the connection.
    pub(crate) async fn write(&self, bytes: &[u8]) -> bool {
        self.raw.write(bytes) && !self.inbox.borrow().gone || self.wait_until_taken().await
    }

    /// Waits until the client has taken everything that was written. False if a write failed or the client closed the
    /// connection.
    pub(crate) async fn flush(&self) -> bool {
        self.raw.flush() && !self.inbox.borrow().gone || self.wait_until_taken().await
    }

    /// Waits for the report that the client has taken everything. False if the client closed the connection.
    async fn wait_until_taken(&self) -> bool {
        let take = |inbox: &mut Inbox| {
            if inbox.gone { Some(false) } else { core::mem::take(&mut inbox.written).then_some(true) }
        };
        let is_taken = wait_for(&self.inbox, take).await;
        if let Some(after_ms) = self.inbox.borrow_mut().grace() {
            self.set_raw_timer(after_ms);
        }
        is_taken
    }

    /// Ends the client's body, which is complete, when the client has taken it. Meanwhile the endpoint's answer ends
    /// too, so that its connection can be reused.
    pub(crate) async fn close(&self) {
        self.flush().await;
        self.raw.close();
    }

    /// Breaks off the client's body, which is incomplete. The bytes that were written reach the client first.
    pub(crate) async fn cut(&self) {
        self.flush().await;
        self.raw.cut();
    }
}

/// Reads the body of a client's request in pieces.
pub(crate) struct Pieces {
    raw: RawExchange,
    inbox: Rc<RefCell<Inbox>>,
    body: ClientBody,
}

impl Pieces {
    /// The pieces of `body`. `raw` and `inbox` are those of its exchange.
    pub(crate) fn new(raw: RawExchange, inbox: Rc<RefCell<Inbox>>, body: ClientBody) -> Self {
        Self { raw, inbox, body }
    }

    /// Reads the next piece; `None` at the end.
    ///
    /// # Errors
    /// 400 if the client closes the connection, 408 if no piece arrives in time. Without this limit a silent client
    /// could hold memory.
    pub(crate) async fn next(&mut self, within: Millis) -> Result<Option<Vec<u8>>, Failure> {
        self.inbox.borrow_mut().piece = None;
        self.raw.pull(&self.body, u32::try_from(within.0).unwrap_or(u32::MAX >> 1));
        match wait_for(&self.inbox, |inbox| inbox.piece.take()).await {
            Piece::Chunk(bytes) => Ok(Some(bytes)),
            Piece::Eof => Ok(None),
            Piece::Failed => Err(Failure::MissingBody),
            Piece::Timeout => Err(Failure::SlowBody),
        }
    }
}

/// Answers the client.
pub(crate) fn reply_to(raw: &RawExchange, reply: &Reply) {
    let headers = reply.headers.as_text();
    let bytes = reply.body.as_deref();
    // An ASCII text is cheaper to pass and to send than bytes. But if a response has no Content-Type, the Workers
    // runtime adds one for a text.
    let is_typed = reply.headers.get("content-type").is_some();
    match bytes.filter(|bytes| is_typed && bytes.is_ascii()).and_then(|bytes| core::str::from_utf8(bytes).ok()) {
        Some(text) => raw.respond(reply.status, headers, None, Some(text)),
        None => raw.respond(reply.status, headers, bytes, None),
    }
}
