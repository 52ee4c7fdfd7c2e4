//! One request's exchange with its endpoints and its client. Takes requests, answers and chunks to send; returns what
//! arrives, one [`Arrival`] at a time. Called by `proxy`; `incoming` and `uploads` read the client's body through it.
//! The JavaScript side is exchange.js.

#[cfg(test)]
mod tests;

use core::future::poll_fn;
use core::task::Poll;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use worker::js_sys;
use worker::wasm_bindgen::prelude::wasm_bindgen;
use worker::wasm_bindgen::{self, JsValue};
use worker::web_sys;

use bailiwick_rules::time::{Millis, Timestamp};

use crate::decide::attempt::{AttemptNumber, Event};
use crate::decide::envelope::Failure;
use crate::decide::headers::Headers;
use crate::runtime::clock::{self, Clock};
use crate::runtime::notice::Notice;
use crate::runtime::reply::Reply;

#[wasm_bindgen]
extern "C" {
    /// The `Exchange` object of exchange.js.
    #[derive(Clone)]
    pub(crate) type JsExchange;
    /// Sends a request to an endpoint.
    #[wasm_bindgen(method)]
    fn send(this: &JsExchange, attempt: u8, head: &str, body: Option<&[u8]>, stream: Option<JsValue>);
    /// Asks for more of the answer's body. With `on_demand`, nothing is read ahead.
    #[wasm_bindgen(method)]
    fn read(this: &JsExchange, on_demand: bool);
    /// Lets the runtime pass the rest of the answer to the client.
    #[wasm_bindgen(method)]
    fn pipe(this: &JsExchange);
    /// Fetches a small document while an answer is in flight.
    #[wasm_bindgen(method, js_name = fetchDocument)]
    fn fetch_document(this: &JsExchange, head: &str);
    /// Aborts the request in flight.
    #[wasm_bindgen(method)]
    fn abort(this: &JsExchange);
    /// Stops listening to an answer whose content is complete.
    #[wasm_bindgen(method)]
    fn leave(this: &JsExchange);
    /// Sets the timer, in place of a timer that was set before.
    #[wasm_bindgen(method, js_name = setTimer)]
    fn set_timer(this: &JsExchange, milliseconds: f64);
    /// Answers the client with a complete response.
    #[wasm_bindgen(method)]
    fn respond(this: &JsExchange, status: u16, headers: &str, bytes: Option<&[u8]>, text: Option<&str>);
    /// Answers the client with a response whose body is written later.
    #[wasm_bindgen(method, catch)]
    fn begin(this: &JsExchange, status: u16, headers: &str, length: Option<f64>) -> Result<(), JsValue>;
    /// Reads the whole body of the client's request.
    #[wasm_bindgen(method, catch, js_name = readBody)]
    fn read_body(this: &JsExchange, request: &web_sys::Request) -> Result<(), JsValue>;
    /// Writes to the client. Returns whether the client keeps up.
    #[wasm_bindgen(method)]
    fn write(this: &JsExchange, bytes: &[u8]) -> bool;
    /// Returns whether the client has taken everything.
    #[wasm_bindgen(method)]
    fn flush(this: &JsExchange) -> bool;
    /// Ends the client's body, which is complete.
    #[wasm_bindgen(method)]
    fn close(this: &JsExchange);
    /// Breaks off the client's body, which is incomplete.
    #[wasm_bindgen(method)]
    fn cut(this: &JsExchange);
    /// Reads a piece of the request's body within a time limit.
    #[wasm_bindgen(method)]
    fn pull(this: &JsExchange, request: &web_sys::Request, milliseconds: f64);
    /// Continues the task in a later microtask.
    #[wasm_bindgen(method)]
    pub(crate) fn wake(this: &JsExchange);
    /// Lets work go on after the request has ended, until the promise settles. False if the runtime has ended it.
    #[wasm_bindgen(method)]
    pub(crate) fn keep(this: &JsExchange, promise: &js_sys::Promise) -> bool;
    /// Ends the task, and aborts the fetch in flight.
    #[wasm_bindgen(method)]
    pub(crate) fn end(this: &JsExchange);
    /// Ends the task of a request that the runtime has already ended. No object of that request may be used.
    #[wasm_bindgen(method)]
    pub(crate) fn abandon(this: &JsExchange);
}

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
    /// Whether exchange.js was asked for more of the answer, so that a report will follow.
    reading: bool,
    /// Whether the client's body has begun. From then on exchange.js reports each chunk without being asked.
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
    /// Stores a report of exchange.js.
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

    /// Whether exchange.js must be asked for more of the answer now. If so, the caller asks, and the inbox records
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
    js: JsExchange,
    inbox: Rc<RefCell<Inbox>>,
    /// Whether the answer in flight has ended.
    ended: bool,
    /// When the timer that is set fires, in milliseconds since the epoch.
    timer_at: Option<i64>,
}

impl Exchange {
    /// The exchange of one task. `inbox` is the inbox of that task.
    pub(crate) fn new(js: JsExchange, inbox: Rc<RefCell<Inbox>>) -> Self {
        // exchange.js has already set a timer of this length.
        let timer_at = Some(clock::now().0.saturating_add_unsigned(LONGEST_TIMER_MS));
        Self { js, inbox, ended: false, timer_at }
    }

    /// Notes that the task no longer waits for feeds.
    pub(crate) fn note_feeds_done(&self) {
        self.inbox.borrow_mut().feeds_done = true;
    }

    /// Sends a request to an endpoint. An arrival of headers or of [`Event::FetchError`] follows. The body is `stream`
    /// (anything that `fetch` takes), else `body`.
    pub(crate) fn send(
        &mut self,
        attempt: AttemptNumber,
        method: &str,
        url: &str,
        headers: &Headers,
        body: Option<&[u8]>,
        stream: Option<JsValue>,
    ) {
        self.ended = false;
        let mut inbox = self.inbox.borrow_mut();
        (inbox.reading, inbox.on_demand) = (false, false);
        // The inbox may still hold the end of an earlier answer that was abandoned at its last chunk.
        inbox.arrived.clear();
        drop(inbox);
        let head = [method, "\n", url, "\n", headers.as_text()].concat();
        self.js.send(attempt, &head, body, stream);
    }

    /// Waits for the next arrival. If `reading`, asks for more of the body of the answer in flight.
    pub(crate) async fn next(&mut self, reading: bool) -> Arrival {
        if reading && self.inbox.borrow_mut().wants_read() {
            let on_demand = self.inbox.borrow().on_demand;
            self.js.read(on_demand);
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
        self.js.pipe();
    }

    /// Fetches a small document. The answer in flight isn't read meanwhile. `None` if the fetch failed.
    pub(crate) async fn fetch_document(&self, url: &str, headers: &Headers) -> Option<Vec<u8>> {
        self.inbox.borrow_mut().document = None;
        let head = ["GET\n", url, "\n", headers.as_text()].concat();
        self.js.fetch_document(&head);
        wait_for(&self.inbox, |inbox| if inbox.gone { Some(None) } else { inbox.document.take() }).await
    }

    /// Aborts the fetch in flight.
    pub(crate) fn abort(&mut self) {
        self.inbox.borrow_mut().reading = false;
        self.js.abort();
    }

    /// Stops listening to the answer in flight, without aborting it.
    pub(crate) fn leave(&mut self) {
        self.inbox.borrow_mut().reading = false;
        if !self.ended {
            self.js.leave();
        }
    }

    /// Sets the timer: [`Arrival::Timer`] follows after `after_ms` or earlier.
    pub(crate) fn set_timer(&mut self, now_ms: i64, after_ms: u64) {
        let after_ms = after_ms.min(LONGEST_TIMER_MS);
        let at = now_ms.saturating_add_unsigned(after_ms);
        if self.timer_at.is_none_or(|timer_at| at < timer_at) {
            self.timer_at = Some(at);
            self.set_js_timer(after_ms);
        }
    }

    /// Sets the timer of exchange.js, whatever was set before.
    fn set_js_timer(&self, after_ms: u64) {
        // At most five seconds.
        self.js.set_timer(u32::try_from(after_ms).map_or(f64::from(u32::MAX), f64::from));
    }

    /// Answers the client with a response whose body is written later. `length` is the body's size in bytes, if known.
    /// False if the runtime rejects the status or a header. Then the client has no response yet.
    pub(crate) fn begin(&self, status: u16, headers: &Headers, length: Option<u32>) -> bool {
        let has_begun = self.js.begin(status, headers.as_text(), length.map(f64::from)).is_ok();
        self.inbox.borrow_mut().body_begun = has_begun;
        has_begun
    }

    /// Answers the client.
    pub(crate) fn reply(&self, reply: &Reply) {
        self.js.reply(reply);
    }

    /// Reads the whole body of the client's request.
    ///
    /// # Errors
    /// 400 if the client closes the connection, 408 if the body doesn't arrive in time.
    pub(crate) async fn body(&mut self, request: &web_sys::Request, within: Millis) -> Result<Vec<u8>, Failure> {
        if self.js.read_body(request).is_err() {
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
        self.js.write(bytes) && !self.inbox.borrow().gone || self.wait_until_taken().await
    }

    /// Waits until the client has taken everything that was written. False if a write failed or the client closed the
    /// connection.
    pub(crate) async fn flush(&self) -> bool {
        self.js.flush() && !self.inbox.borrow().gone || self.wait_until_taken().await
    }

    /// Waits for the report that the client has taken everything. False if the client closed the connection.
    async fn wait_until_taken(&self) -> bool {
        let take = |inbox: &mut Inbox| {
            if inbox.gone { Some(false) } else { core::mem::take(&mut inbox.written).then_some(true) }
        };
        let is_taken = wait_for(&self.inbox, take).await;
        if let Some(after_ms) = self.inbox.borrow_mut().grace() {
            self.set_js_timer(after_ms);
        }
        is_taken
    }

    /// Ends the client's body, which is complete, when the client has taken it. Meanwhile the endpoint's answer ends
    /// too, so that its connection can be reused.
    pub(crate) async fn close(&self) {
        self.flush().await;
        self.js.close();
    }

    /// Breaks off the client's body, which is incomplete. The bytes that were written reach the client first.
    pub(crate) async fn cut(&self) {
        self.flush().await;
        self.js.cut();
    }
}

/// Reads the body of a client's request in pieces.
pub(crate) struct Pieces {
    js: JsExchange,
    inbox: Rc<RefCell<Inbox>>,
    request: web_sys::Request,
}

impl Pieces {
    /// The pieces of the body of `request`. `js` and `inbox` are those of its exchange.
    pub(crate) fn new(js: JsExchange, inbox: Rc<RefCell<Inbox>>, request: web_sys::Request) -> Self {
        Self { js, inbox, request }
    }

    /// Reads the next piece; `None` at the end.
    ///
    /// # Errors
    /// 400 if the client closes the connection, 408 if no piece arrives in time. Without this limit a silent client
    /// could hold memory.
    pub(crate) async fn next(&mut self, within: Millis) -> Result<Option<Vec<u8>>, Failure> {
        self.inbox.borrow_mut().piece = None;
        self.js.pull(&self.request, u32::try_from(within.0).map_or(f64::from(u32::MAX >> 1), f64::from));
        match wait_for(&self.inbox, |inbox| inbox.piece.take()).await {
            Piece::Chunk(bytes) => Ok(Some(bytes)),
            Piece::Eof => Ok(None),
            Piece::Failed => Err(Failure::MissingBody),
            Piece::Timeout => Err(Failure::SlowBody),
        }
    }
}

impl JsExchange {
    /// Answers the client.
    pub(crate) fn reply(&self, reply: &Reply) {
        let headers = reply.headers.as_text();
        let bytes = reply.body.as_deref();
        // An ASCII text is cheaper to pass and to send than bytes. But if a response has no Content-Type, the runtime
        // adds one for a text.
        let is_typed = reply.headers.get("content-type").is_some();
        match bytes.filter(|bytes| is_typed && bytes.is_ascii()).and_then(|bytes| core::str::from_utf8(bytes).ok()) {
            Some(text) => self.respond(reply.status, headers, None, Some(text)),
            None => self.respond(reply.status, headers, bytes, None),
        }
    }
}
