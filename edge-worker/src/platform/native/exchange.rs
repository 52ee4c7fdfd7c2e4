//! One request's exchange on tokio and hyper: sends requests to endpoints, answers the client, and reports what
//! happens. Called by `runtime`, with the same words as in the Workers runtime; the reports are those of [`Notice`].
//!
//! All of it runs on one thread. Nothing is borrowed while a report is made, because the task that gets it may call the
//! exchange at once.

mod answer;
mod flight;
mod timer;

use core::cell::{Cell, RefCell};
use core::future::Future;
use core::time::Duration;
use std::rc::Rc;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Body;
use hyper::header::{ACCEPT_ENCODING, CONTENT_LENGTH, HeaderValue};
use hyper::{Method, Request, Response};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::background::spawn;
use super::client_body::ClientBody;
use super::http::{OutgoingBody, each_line, lines_of, of_lines, read_at_most, shared, whole};
use super::later::later;
use super::pipe::BodyStream;
use crate::platform::notice::Notice;
use answer::Outbox;
pub(crate) use answer::{AnswerBody, Taken};
use flight::Flight;
use timer::Timer;

/// The longest time between two reports of an exchange while its task lasts.
const MAX_SILENCE: Duration = Duration::from_secs(5);
/// How much of an answer may wait for a slow client before no more of it is read. In bytes.
const MAX_UNWRITTEN: usize = 1 << 16;
/// How long the rest of an answer that the task has left is read.
const LEFT: Duration = Duration::from_secs(1);
/// The limits of a small document: its time, and its size in bytes.
const DOCUMENT_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_DOCUMENT_BYTES: usize = 1 << 16;

/// The error body if this program is broken, and can't write one itself.
const BROKEN: &str = concat!(
    r#"{"error":{"message":"This gateway made a mistake. Nothing more is known here; tell its operator the "#,
    r#"request id.","type":"server_error","param":null,"code":"internal_error"}}"#
);

/// Who gets the reports of an exchange.
#[derive(Clone, Copy)]
pub(crate) struct Reports {
    /// Something happened to the task with this number.
    pub(crate) notify: fn(u32, Notice, u8, Option<Vec<u8>>),
    /// The task with this number was woken.
    pub(crate) run: fn(u32),
    /// The task with this number has ended, and its number is free.
    pub(crate) ended: fn(u32),
}

/// An exchange. Cheap to clone.
#[derive(Clone)]
pub(crate) struct RawExchange(Rc<Inner>);

struct Inner {
    reports: Reports,
    /// The task's number; `None` when the task has ended.
    number: Cell<Option<u32>>,
    id: String,
    answer: RefCell<Option<oneshot::Sender<Response<AnswerBody>>>>,
    timer: Timer,
    flight: RefCell<Option<Rc<Flight>>>,
    /// What the client gets, once the response has begun.
    outbox: RefCell<Option<Rc<Outbox>>>,
    is_events: Cell<bool>,
    /// Whether the task waits for a slow client.
    is_blocked: Cell<bool>,
    /// The limit of a read of the client's body, and the read.
    pull: RefCell<Option<AbortHandle>>,
    reading: RefCell<Option<AbortHandle>>,
}

impl RawExchange {
    /// The exchange of a task. `answer` gets the client's response.
    pub(crate) fn new(
        reports: Reports,
        number: u32,
        id: String,
        answer: oneshot::Sender<Response<AnswerBody>>,
    ) -> Self {
        let exchange = Self(Rc::new(Inner {
            reports,
            number: Cell::new(Some(number)),
            id,
            answer: RefCell::new(Some(answer)),
            timer: Timer::default(),
            flight: RefCell::default(),
            outbox: RefCell::default(),
            is_events: Cell::new(false),
            is_blocked: Cell::new(false),
            pull: RefCell::default(),
            reading: RefCell::default(),
        }));
        exchange.arm(MAX_SILENCE);
        exchange
    }

    /// Reports something to the task, which continues at once.
    fn report(&self, notice: Notice, attempt: u8, bytes: Option<Vec<u8>>) {
        if let Some(number) = self.0.number.get() {
            (self.0.reports.notify)(number, notice, attempt, bytes);
        }
    }

    /// Reports later that the client has gone.
    pub(crate) fn client_gone(&self) {
        let exchange = self.clone();
        later(move || exchange.report(Notice::ClientGone, 0, None));
    }

    /// Whether this is the answer that the task listens to.
    fn is_current(&self, flight: &Rc<Flight>) -> bool {
        self.0.flight.borrow().as_ref().is_some_and(|current| Rc::ptr_eq(current, flight))
    }

    /// Sends a request to an endpoint. The body is `stream`, else `body`.
    pub(crate) fn send(&self, attempt: u8, head: &str, body: Option<&[u8]>, stream: Option<BodyStream>) {
        let body = match (stream, body) {
            (Some(BodyStream(stream)), _) => stream,
            (None, body) => whole(Bytes::copy_from_slice(body.unwrap_or_default())),
        };
        let flight = Rc::new(Flight::new(attempt));
        self.0.flight.replace(Some(Rc::clone(&flight)));
        let Some(request) = request(head, body) else { return self.report(Notice::FetchError, attempt, None) };
        let (exchange, sent) = (self.clone(), Rc::clone(&flight));
        let task = tokio::task::spawn_local(async move {
            match shared().request(request).await {
                Ok(response) => {
                    let (parts, incoming) = response.into_parts();
                    let head = format!("{}\n{}", parts.status.as_u16(), lines_of(&parts.headers, |_| true));
                    sent.arrived(incoming, flight::is_short(&parts.headers));
                    if exchange.is_current(&sent) {
                        exchange.report(Notice::Headers, attempt, Some(head.into_bytes()));
                    }
                }
                Err(_) if exchange.is_current(&sent) => exchange.report(Notice::FetchError, attempt, None),
                Err(_) => {}
            }
        });
        flight.runs_in(task.abort_handle());
    }

    /// Asks for more of the answer's body. With `on_demand`, nothing is read ahead.
    pub(crate) fn read(&self, on_demand: bool) {
        let Some(flight) = self.0.flight.borrow().clone() else { return };
        flight.wants(on_demand);
        if flight.is_read() {
            self.report_held(&flight);
            flight.wake();
        } else if let Some(incoming) = flight.take_body() {
            let task = tokio::task::spawn_local(flight::pump(self.clone(), Rc::clone(&flight), incoming));
            flight.runs_in(task.abort_handle());
        }
    }

    /// Reports what was read and not yet reported, if the task wants it.
    fn report_held(&self, flight: &Rc<Flight>) {
        while self.is_current(flight) && !self.0.is_blocked.get() {
            // Once the client's body has begun and isn't piped, the task gets every chunk without asking.
            let flows = self.0.outbox.borrow().is_some();
            let Some((notice, bytes)) = flight.next_report(flows) else { return };
            self.report(notice, flight.attempt, bytes);
        }
    }

    /// Passes the rest of the answer to the client.
    pub(crate) fn pipe(&self) {
        if let Some(flight) = self.0.flight.borrow().clone() {
            flight.pipe_to(self.0.outbox.borrow().clone());
            if let Some(ending) = flight.ended() {
                let exchange = self.clone();
                later(move || exchange.report(ending, flight.attempt, None));
            }
        }
    }

    /// Fetches a small document while an answer is in flight.
    pub(crate) fn fetch_document(&self, head: &str) {
        let (exchange, request) = (self.clone(), request(head, whole(Bytes::new())));
        tokio::task::spawn_local(async move {
            let document = match request {
                Some(request) => timeout(DOCUMENT_TIMEOUT, document(request)).await.ok().flatten(),
                None => None,
            };
            exchange.report(Notice::Document, 0, document);
        });
    }

    /// Aborts the request in flight, and closes its connection.
    pub(crate) fn abort(&self) {
        if let Some(flight) = self.0.flight.take() {
            flight.abort();
        }
    }

    /// Stops listening to an answer whose content is complete. The rest of it is read for a moment, so that its
    /// connection can be used again.
    pub(crate) fn leave(&self) {
        if let Some(flight) = self.0.flight.take() {
            flight.wake();
            tokio::task::spawn_local(async move {
                sleep(LEFT).await;
                flight.abort();
            });
        }
    }

    /// Sets the timer, in place of a timer that was set before.
    pub(crate) fn set_timer(&self, milliseconds: f64) {
        self.arm(Duration::from_secs_f64((milliseconds / 1_000.0).max(0.0)));
    }

    fn arm(&self, after: Duration) {
        let exchange = self.clone();
        self.0.timer.set(after, || {
            tokio::task::spawn_local(async move {
                while exchange.0.number.get().is_some() {
                    exchange.0.timer.rings().await;
                    exchange.report(Notice::Timer, 0, None);
                    exchange.0.timer.repeat(MAX_SILENCE);
                }
            })
        });
    }

    /// Answers the client with a complete response.
    pub(crate) fn respond(&self, status: u16, headers: &str, bytes: Option<&[u8]>, text: Option<&str>) {
        let bytes = bytes.or(text.map(str::as_bytes)).map(Bytes::copy_from_slice);
        let response = response(status, headers, AnswerBody::whole(bytes));
        self.answer(response.unwrap_or_else(|| broken(&self.0.id)));
    }

    fn answer(&self, response: Response<AnswerBody>) {
        if let Some(answer) = self.0.answer.take() {
            let _ = answer.send(response);
        }
    }

    /// Answers the client with a response whose body is written later. False if the status or a header can't be sent.
    pub(crate) fn begin(&self, status: u16, headers: &str, length: Option<u32>) -> bool {
        let outbox = Rc::new(Outbox::new(self.clone(), length.map(u64::from)));
        let Some(response) = response(status, headers, AnswerBody::written(Rc::clone(&outbox))) else { return false };
        self.0.is_events.set(headers.contains("text/event-stream"));
        self.0.outbox.replace(Some(outbox));
        self.answer(response);
        true
    }

    /// Reads the whole body of the client's request. False if it can't be read.
    pub(crate) fn read_body(&self, body: &ClientBody) -> bool {
        let Some(incoming) = body.take() else { return false };
        let exchange = self.clone();
        let reading = tokio::task::spawn_local(async move {
            match incoming.collect().await {
                Ok(body) => exchange.report(Notice::RequestBody, 0, Some(body.to_bytes().into())),
                Err(_) => exchange.report(Notice::RequestFailed, 0, None),
            }
        });
        self.0.reading.replace(Some(reading.abort_handle()));
        true
    }

    /// Reads a piece of the request's body within a time limit.
    pub(crate) fn pull(&self, body: &ClientBody, milliseconds: u32) {
        let exchange = self.clone();
        let limit = tokio::task::spawn_local(async move {
            sleep(Duration::from_millis(milliseconds.into())).await;
            exchange.report(Notice::RequestTimeout, 0, None);
        });
        if let Some(before) = self.0.pull.replace(Some(limit.abort_handle())) {
            before.abort();
        }
        // `None`: a read is under way.
        let Some(mut incoming) = body.take() else { return };
        let (exchange, body) = (self.clone(), body.clone());
        let reading = tokio::task::spawn_local(async move {
            let (notice, bytes) = loop {
                match incoming.frame().await {
                    None => break (Notice::RequestEof, None),
                    Some(Err(_)) => break (Notice::RequestFailed, None),
                    Some(Ok(frame)) => {
                        if let Ok(data) = frame.into_data() {
                            break (Notice::RequestChunk, Some(data.into()));
                        }
                    }
                }
            };
            body.give_back(incoming);
            if let Some(limit) = exchange.0.pull.take() {
                limit.abort();
            }
            exchange.report(notice, 0, bytes);
        });
        self.0.reading.replace(Some(reading.abort_handle()));
    }

    /// Writes to the client. Returns whether the client keeps up.
    pub(crate) fn write(&self, bytes: &[u8]) -> bool {
        let Some(outbox) = self.0.outbox.borrow().clone() else { return true };
        outbox.push(Bytes::copy_from_slice(bytes));
        self.0.is_blocked.set(outbox.unwritten() > MAX_UNWRITTEN);
        !self.0.is_blocked.get()
    }

    /// Returns whether the client has taken everything.
    pub(crate) fn flush(&self) -> bool {
        let unwritten = self.0.outbox.borrow().as_ref().map_or(0, |outbox| outbox.unwritten());
        self.0.is_blocked.set(unwritten > 0);
        unwritten == 0
    }

    /// The client has taken everything that was written. A task that waits for it learns of it later, as it may write
    /// at once.
    fn drained(&self) {
        if self.0.is_blocked.get() {
            let exchange = self.clone();
            later(move || exchange.go_on());
        }
    }

    /// Continues with an answer whose client was slow.
    fn go_on(&self) {
        if self.0.is_blocked.replace(false) {
            self.report(Notice::Written, 0, None);
            let flight = self.0.flight.borrow().clone();
            if let Some(flight) = flight {
                self.report_held(&flight);
                flight.wake();
            }
        }
    }

    /// Ends the client's body, which is complete.
    pub(crate) fn close(&self) {
        if let Some(outbox) = &*self.0.outbox.borrow() {
            outbox.end(true);
        }
    }

    /// Breaks off the client's body, which is incomplete.
    pub(crate) fn cut(&self) {
        if let Some(outbox) = &*self.0.outbox.borrow() {
            outbox.end(false);
        }
    }

    /// Continues the task later.
    pub(crate) fn wake(&self) {
        let exchange = self.clone();
        later(move || {
            if let Some(number) = exchange.0.number.get() {
                (exchange.0.reports.run)(number);
            }
        });
    }

    /// Lets work go on after the request has ended.
    #[expect(clippy::unused_self, reason = "other platforms keep work for a request")]
    pub(crate) fn keep(&self, work: impl Future<Output = ()> + 'static) -> bool {
        spawn(work);
        true
    }

    /// Ends the task, and aborts the request in flight.
    pub(crate) fn end(&self) {
        self.abort();
        self.abandon();
    }

    /// Ends the task. A client without a response gets an error. Whatever refers to this exchange is let go, also a
    /// body that is still being read: its connection can't be used again.
    pub(crate) fn abandon(&self) {
        self.0.timer.end();
        let running = [self.0.pull.take(), self.0.reading.take()];
        running.into_iter().flatten().for_each(|running| running.abort());
        drop((self.0.answer.take(), self.0.outbox.take()));
        if let Some(number) = self.0.number.take() {
            (self.0.reports.ended)(number);
        }
    }

    /// The response if there is none.
    pub(crate) fn broken(&self) -> Response<AnswerBody> {
        broken(&self.0.id)
    }

    /// Ends the exchange because its task panicked. An event stream ends with an error event, any other body breaks
    /// off.
    pub(crate) fn fail(&self) {
        self.answer(broken(&self.0.id));
        let outbox = self.0.outbox.borrow().clone();
        self.end();
        if let Some(outbox) = outbox {
            if self.0.is_events.get() && !outbox.is_piped() {
                outbox.push(Bytes::from(format!("data: {BROKEN}\n\n")));
                outbox.end(true);
            } else {
                outbox.end(false);
            }
        }
    }
}

/// The request that a text describes: the method, the URL, and names and values of headers, each on a line of its own.
fn request(head: &str, body: OutgoingBody) -> Option<Request<OutgoingBody>> {
    let mut lines = each_line(head);
    let mut request = Request::builder().method(lines.next()?).uri(lines.next()?);
    for (name, value) in of_lines(lines) {
        request = request.header(name, value);
    }
    let mut request = request.body(body).ok()?;
    // RFC 9110 §8.6: without it, some servers answer 411.
    if ![Method::GET, Method::HEAD].contains(request.method()) && request.body().is_end_stream() {
        request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    // Answers are read and changed, so they have to come as they are.
    request.headers_mut().entry(ACCEPT_ENCODING).or_insert(HeaderValue::from_static("identity"));
    Some(request)
}

/// A response; `None` if its status or a header can't be sent.
fn response(status: u16, headers: &str, body: AnswerBody) -> Option<Response<AnswerBody>> {
    let mut response = Response::builder().status(status);
    for (name, value) in of_lines(each_line(headers)) {
        response = response.header(name, value);
    }
    response.body(body).ok()
}

fn broken(id: &str) -> Response<AnswerBody> {
    let headers = format!(
        "content-type\napplication/json\ncache-control\nno-store\nx-request-id\n{id}\nx-bailiwick-request-id\n{id}\n"
    );
    let body = || AnswerBody::whole(Some(Bytes::from_static(BROKEN.as_bytes())));
    response(500, &headers, body()).unwrap_or_else(|| Response::new(body()))
}

/// A small document: its bytes, none if the endpoint has none, or `None` if it couldn't be read.
async fn document(request: Request<OutgoingBody>) -> Option<Vec<u8>> {
    let response = shared().request(request).await.ok()?;
    match response.status().as_u16() {
        404 | 405 | 501 => return Some(Vec::new()),
        200 => {}
        _ => return None,
    }
    read_at_most(response.into_body(), MAX_DOCUMENT_BYTES).await.ok()
}
