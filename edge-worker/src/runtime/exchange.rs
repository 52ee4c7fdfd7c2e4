//! A request's line to its endpoints and back to its client: what `proxy` does goes out, what happens comes in, one [`Happening`]
//! at a time. The runtime's side of it is exchange.js.

use core::future::poll_fn;
use core::task::Poll;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use worker::wasm_bindgen::prelude::wasm_bindgen;
use worker::wasm_bindgen::{self, JsValue};
use worker::web_sys;

use bailiwick_rules::time::{Millis, Timestamp};

use crate::decide::attempt::AttemptNumber;
use crate::decide::envelope::Failure;
use crate::decide::headers::Headers;
use crate::runtime::feed::{self, Clock};
use crate::runtime::reply::Reply;

#[wasm_bindgen]
extern "C" {
    /// One request's line, an object of exchange.js.
    #[derive(Clone)]
    pub(crate) type Line;
    #[wasm_bindgen(method)]
    fn send(this: &Line, attempt: u8, head: &str, body: Option<&[u8]>, stream: Option<JsValue>);
    #[wasm_bindgen(method)]
    fn read(this: &Line);
    #[wasm_bindgen(method)]
    fn look(this: &Line, head: &str);
    #[wasm_bindgen(method)]
    fn abort(this: &Line);
    #[wasm_bindgen(method)]
    fn leave(this: &Line);
    #[wasm_bindgen(method)]
    fn arm(this: &Line, milliseconds: f64);
    #[wasm_bindgen(method)]
    fn respond(this: &Line, status: u16, headers: &str, bytes: Option<&[u8]>, text: Option<&str>);
    #[wasm_bindgen(method, catch)]
    fn begin(this: &Line, status: u16, headers: &str, length: Option<f64>) -> Result<(), JsValue>;
    #[wasm_bindgen(method, catch)]
    fn take(this: &Line, request: &web_sys::Request) -> Result<(), JsValue>;
    #[wasm_bindgen(method)]
    fn write(this: &Line, bytes: &[u8]);
    #[wasm_bindgen(method)]
    fn close(this: &Line);
    #[wasm_bindgen(method)]
    fn cut(this: &Line);
    #[wasm_bindgen(method)]
    fn pull(this: &Line, request: &web_sys::Request, milliseconds: f64);
    /// Asks for the task to be run, soon.
    #[wasm_bindgen(method)]
    pub(crate) fn wake(this: &Line);
    /// The task has ended: what is in flight is aborted.
    #[wasm_bindgen(method)]
    pub(crate) fn over(this: &Line);
    /// The task has ended, and nothing of its request may be touched.
    #[wasm_bindgen(method)]
    pub(crate) fn lose(this: &Line);
}

/// What happens on a line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Happening {
    /// An endpoint's status and headers.
    Headers { attempt: AttemptNumber, status: u16, headers: Headers },
    /// No answer at all.
    Refused { attempt: AttemptNumber },
    /// Bytes of its body.
    Chunk { attempt: AttemptNumber, bytes: Vec<u8> },
    /// The body's clean end.
    End { attempt: AttemptNumber },
    /// The body broke off.
    Broken { attempt: AttemptNumber },
    /// The timer ran out.
    Timer,
    /// The client went away.
    Gone,
}

/// What has happened and wasn't taken yet. The task that waits for it is polled by whoever puts it there.
#[derive(Default)]
pub(crate) struct Inbox {
    happened: VecDeque<Happening>,
    /// The timer ran out. Not in the queue: a chunk that came goes first.
    timer: bool,
    gone: bool,
    /// What became of the last write.
    taken: Option<bool>,
    /// The client's body; `None` in it if that didn't come.
    body: Option<Option<Vec<u8>>>,
    /// A piece of it.
    piece: Option<Piece>,
    /// What came of a look at something beside the answer; `None` in it if nothing did.
    seen: Option<Option<Vec<u8>>>,
    /// Whether its task waits for no feeds. What does so may not be dropped when its request has ended.
    pub(crate) is_fed: bool,
}

/// What came of asking for a piece of the client's body.
#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Bytes(Vec<u8>),
    End,
    Unread,
    /// Nothing, so far.
    Late,
}

/// Rings when the client has gone away. The same number stands in exchange.js.
pub(crate) const GONE: u8 = 6;

impl Inbox {
    pub(crate) fn put(&mut self, what: u8, attempt: AttemptNumber, bytes: Option<Vec<u8>>) {
        match what {
            0 => {
                let text = String::from_utf8(bytes.unwrap_or_default()).unwrap_or_default();
                let (status, headers) = text.split_once('\n').unwrap_or_default();
                let status = status.parse().unwrap_or(0);
                self.happened.push_back(Happening::Headers {
                    attempt,
                    status,
                    headers: Headers::read(headers.to_owned()),
                });
            }
            1 => self.happened.push_back(Happening::Refused { attempt }),
            2 => self.happened.push_back(Happening::Chunk { attempt, bytes: bytes.unwrap_or_default() }),
            3 => self.happened.push_back(Happening::End { attempt }),
            4 => self.happened.push_back(Happening::Broken { attempt }),
            5 => self.timer = true,
            GONE => self.gone = true,
            7 => self.taken = Some(true),
            8 => self.taken = Some(false),
            9 => self.body = Some(bytes),
            10 => (self.body, self.piece) = (Some(None), Some(Piece::Unread)),
            12 => self.piece = bytes.map(Piece::Bytes),
            13 => self.piece = Some(Piece::End),
            14 => self.piece = Some(Piece::Late),
            15 => self.seen = Some(bytes),
            // All that is left of a body.
            _ => {
                if let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) {
                    self.happened.push_back(Happening::Chunk { attempt, bytes });
                }
                self.happened.push_back(Happening::End { attempt });
            }
        }
    }

    /// The timer ran out while nobody listened to the endpoint, as the client took its time: that isn't the endpoint's, and
    /// it has a little longer.
    fn grace(&mut self) -> Option<u64> {
        core::mem::take(&mut self.timer).then_some(AFTER_A_SLOW_CLIENT_MS)
    }

    fn take(&mut self) -> Option<Happening> {
        if let Some(happened) = self.happened.pop_front() {
            return Some(happened);
        }
        if self.gone {
            return Some(Happening::Gone);
        }
        core::mem::take(&mut self.timer).then_some(Happening::Timer)
    }

    /// The client's body, or `None` if the timer ran out before it.
    fn take_body(&mut self) -> Option<Option<Option<Vec<u8>>>> {
        if let Some(body) = self.body.take() {
            return Some(Some(body));
        }
        if self.gone {
            return Some(Some(None));
        }
        core::mem::take(&mut self.timer).then_some(None)
    }
}

/// Waits until something is there to take: this task is polled with all that comes into its inbox.
async fn taken<T>(inbox: &RefCell<Inbox>, take: impl Fn(&mut Inbox) -> Option<T>) -> T {
    poll_fn(|_| take(&mut inbox.borrow_mut()).map_or(Poll::Pending, Poll::Ready)).await
}

/// The longest that a timer is set for. One that is to run out later rings early, which asks for a new one; so the one in hand
/// serves most of the limits a request meets.
const LONGEST_TIMER_MS: u64 = 5_000;
/// How long an endpoint has after a client that was slow enough for the timer to run out.
const AFTER_A_SLOW_CLIENT_MS: u64 = 100;

/// A request's line. What is in flight when its task ends is aborted.
pub(crate) struct Wire {
    line: Line,
    inbox: Rc<RefCell<Inbox>>,
    reading: bool,
    /// The answer in flight has ended.
    ended: bool,
    /// When the timer that is set rings.
    rings_at: Option<i64>,
}

impl Wire {
    /// The line of the task that this is called in, whose inbox it is.
    pub(crate) fn new(line: Line, inbox: Rc<RefCell<Inbox>>) -> Self {
        // exchange.js has set one, so that every line rings.
        let rings_at = Some(feed::now().0.saturating_add_unsigned(LONGEST_TIMER_MS));
        Self { line, inbox, reading: false, ended: false, rings_at }
    }

    /// The task waits for no feeds any more.
    pub(crate) fn note_fed(&self) {
        self.inbox.borrow_mut().is_fed = true;
    }

    /// Sends a request: `Headers` or `Refused` follows. Its body is `stream` (anything `fetch` takes), else `body`.
    pub(crate) fn send(
        &mut self,
        attempt: AttemptNumber,
        method: &str,
        url: &str,
        headers: &Headers,
        body: Option<&[u8]>,
        stream: Option<JsValue>,
    ) {
        self.reading = false;
        self.ended = false;
        // The end, perhaps, of an answer that was given up at its last chunk.
        self.inbox.borrow_mut().happened.clear();
        let head = [method, "\n", url, "\n", headers.as_text()].concat();
        self.line.send(attempt, &head, body, stream);
    }

    /// Waits for what happens next. While `reading` the body of the answer in flight is read.
    pub(crate) async fn next(&mut self, reading: bool) -> Happening {
        // What came with the last chunk needs no asking for.
        let at_hand = !self.inbox.borrow().happened.is_empty();
        if reading && !at_hand && !core::mem::replace(&mut self.reading, true) {
            if let Some(after_ms) = self.inbox.borrow_mut().grace() {
                self.set_timer(after_ms);
            }
            self.line.read();
        }
        let happened = taken(&self.inbox, Inbox::take).await;
        match happened {
            Happening::Chunk { .. } => self.reading = false,
            Happening::End { .. } | Happening::Broken { .. } => (self.reading, self.ended) = (false, true),
            Happening::Timer => self.rings_at = None,
            _ => {}
        }
        happened
    }

    /// Fetches something small beside the answer in flight, of which nothing is read meanwhile; `None` if that didn't come.
    pub(crate) async fn look(&self, url: &str, headers: &Headers) -> Option<Vec<u8>> {
        self.inbox.borrow_mut().seen = None;
        let head = ["GET\n", url, "\n", headers.as_text()].concat();
        self.line.look(&head);
        taken(&self.inbox, |inbox| if inbox.gone { Some(None) } else { inbox.seen.take() }).await
    }

    /// Breaks off what is in flight.
    pub(crate) fn abort(&mut self) {
        self.reading = false;
        self.line.abort();
    }

    /// Lets what is in flight end by itself.
    pub(crate) fn leave(&mut self) {
        self.reading = false;
        if !self.ended {
            self.line.leave();
        }
    }

    /// `Timer` follows after so many milliseconds, or earlier.
    pub(crate) fn arm(&mut self, now_ms: i64, after_ms: u64) {
        let after_ms = after_ms.min(LONGEST_TIMER_MS);
        let at = now_ms.saturating_add_unsigned(after_ms);
        if self.rings_at.is_none_or(|rings_at| at < rings_at) {
            self.rings_at = Some(at);
            self.set_timer(after_ms);
        }
    }

    fn set_timer(&self, after_ms: u64) {
        // At most five seconds.
        self.line.arm(u32::try_from(after_ms).map_or(f64::from(u32::MAX), f64::from));
    }

    /// Answers the client by a response whose body is written from now on: of so many bytes, if that is known. False for what the
    /// runtime makes no response of: then it isn't answered.
    pub(crate) fn begin(&self, status: u16, headers: &Headers, length: Option<u32>) -> bool {
        self.line.begin(status, headers.as_text(), length.map(f64::from)).is_ok()
    }

    /// Answers the client.
    pub(crate) fn reply(&self, reply: &Reply) {
        self.line.reply(reply);
    }

    /// The client's body, all of it at once, if it comes before so much time has passed.
    ///
    /// # Errors
    /// 400 when the client is going away, 408 when it falls silent.
    pub(crate) async fn body(&mut self, request: &web_sys::Request, within: Millis) -> Result<Vec<u8>, Failure> {
        if self.line.take(request).is_err() {
            return Err(Failure::MissingBody);
        }
        let mut clock = Clock::default();
        let mut time = || Timestamp(clock.at(feed::now()));
        let deadline = time().after(within);
        loop {
            self.arm(feed::now().0, deadline.since(time()).0);
            let come = taken(&self.inbox, Inbox::take_body).await;
            match come {
                Some(body) => return body.ok_or(Failure::MissingBody),
                None => self.rings_at = None,
            }
            if time() >= deadline {
                return Err(Failure::SlowBody);
            }
        }
    }

    /// Writes to the client; false if it won't take it.
    pub(crate) async fn write(&self, bytes: &[u8]) -> bool {
        self.inbox.borrow_mut().taken = None;
        self.line.write(bytes);
        taken(&self.inbox, |inbox| if inbox.gone { Some(false) } else { inbox.taken.take() }).await
    }

    /// The client's body is whole.
    pub(crate) fn close(&self) {
        self.line.close();
    }

    /// The client's body is broken off.
    pub(crate) fn cut(&self) {
        self.line.cut();
    }
}

/// A client's body, read in pieces.
pub(crate) struct Pieces {
    line: Line,
    inbox: Rc<RefCell<Inbox>>,
    request: web_sys::Request,
}

impl Pieces {
    /// Of the request whose line it is.
    pub(crate) fn new(line: Line, inbox: Rc<RefCell<Inbox>>, request: web_sys::Request) -> Self {
        Self { line, inbox, request }
    }

    /// The next one; `None` at the end.
    ///
    /// # Errors
    /// 400 when the client is going away, 408 when it isn't there within so much time. Nobody's silence holds room that others need.
    pub(crate) async fn next(&mut self, within: Millis) -> Result<Option<Vec<u8>>, Failure> {
        self.inbox.borrow_mut().piece = None;
        self.line.pull(&self.request, u32::try_from(within.0).map_or(f64::from(u32::MAX >> 1), f64::from));
        match taken(&self.inbox, |inbox| inbox.piece.take()).await {
            Piece::Bytes(bytes) => Ok(Some(bytes)),
            Piece::End => Ok(None),
            Piece::Unread => Err(Failure::MissingBody),
            Piece::Late => Err(Failure::SlowBody),
        }
    }
}

impl Line {
    /// Answers the client.
    pub(crate) fn reply(&self, reply: &Reply) {
        let headers = reply.headers.as_text();
        let bytes = reply.body.as_deref();
        // A text of one byte a letter is cheaper than bytes, to hand over and to send. One of no type is given one, though.
        let is_typed = reply.headers.get("content-type").is_some();
        match bytes.filter(|bytes| is_typed && bytes.is_ascii()).and_then(|bytes| core::str::from_utf8(bytes).ok()) {
            Some(text) => self.respond(reply.status, headers, None, Some(text)),
            None => self.respond(reply.status, headers, bytes, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_go_before_a_timer_and_a_client_stays_gone() {
        let mut inbox = Inbox::default();
        inbox.put(5, 0, None);
        inbox.put(6, 0, None);
        inbox.put(2, 1, Some(vec![7]));
        assert_eq!(inbox.take(), Some(Happening::Chunk { attempt: 1, bytes: vec![7] }));
        assert_eq!(inbox.take(), Some(Happening::Gone));
        assert_eq!(inbox.take(), Some(Happening::Gone));
        inbox.gone = false;
        assert_eq!((inbox.take(), inbox.take()), (Some(Happening::Timer), None));
    }

    #[test]
    fn a_timer_that_ran_out_over_a_slow_client_is_put_off_once() {
        let mut inbox = Inbox::default();
        assert_eq!(inbox.grace(), None);
        inbox.put(5, 0, None);
        inbox.put(7, 0, None);
        assert_eq!((inbox.grace(), inbox.take()), (Some(AFTER_A_SLOW_CLIENT_MS), None));
        inbox.put(5, 0, None);
        assert_eq!(inbox.take(), Some(Happening::Timer), "the endpoint is silent still");
    }

    #[test]
    fn a_body_goes_before_whatever_else_happened() {
        let mut inbox = Inbox::default();
        assert_eq!(inbox.take_body(), None);
        inbox.put(5, 0, None);
        inbox.put(9, 0, Some(vec![7]));
        assert_eq!(inbox.take_body(), Some(Some(Some(vec![7]))));
        assert_eq!((inbox.take_body(), inbox.take_body()), (Some(None), None), "then the timer, once");
        inbox.put(10, 0, None);
        assert_eq!(inbox.take_body(), Some(Some(None)));
        inbox.put(6, 0, None);
        assert_eq!(inbox.take_body(), Some(Some(None)), "nobody is left to send one");
    }

    #[test]
    fn an_answer_that_came_whole_is_a_chunk_and_its_end() {
        let mut inbox = Inbox::default();
        inbox.put(11, 1, Some(vec![7]));
        assert_eq!(inbox.take(), Some(Happening::Chunk { attempt: 1, bytes: vec![7] }));
        assert_eq!((inbox.take(), inbox.take()), (Some(Happening::End { attempt: 1 }), None));
    }

    #[test]
    fn an_endpoints_status_comes_with_its_headers() {
        let mut inbox = Inbox::default();
        inbox.put(0, 2, Some(b"200\ncontent-type\napplication/json\n".to_vec()));
        let headers = [("content-type", "application/json")].into_iter().collect();
        assert_eq!(inbox.take(), Some(Happening::Headers { attempt: 2, status: 200, headers }));
    }
}
