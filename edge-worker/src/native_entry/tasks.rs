//! The tasks of a thread: gives each request a number and an exchange, and `runtime` its turns. Called by `connection`.

use core::cell::{Cell, RefCell};
use core::panic::AssertUnwindSafe;
use std::collections::BTreeMap;

use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::{Request, Response, StatusCode, Version};
use tokio::sync::oneshot;

use super::refused::refused;
use super::request::{Locator, Sender, described, request_id};
use crate::platform::native::exchange::{AnswerBody, Reports};
use crate::platform::notice::Notice;
use crate::platform::{Background, ClientBody, Env, RawExchange};
use crate::runtime;

thread_local! {
    /// Numbers of tasks that have ended, and how many numbers were given out. Each number is a slot of the runtime.
    static FREE: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
    static NUMBERS: Cell<u32> = const { Cell::new(0) };
    /// Whether the thread ends, and answers no more.
    static IS_CLOSED: Cell<bool> = const { Cell::new(false) };
    /// The exchange of each task, to end it after a panic.
    static EXCHANGES: RefCell<BTreeMap<u32, RawExchange>> = const { RefCell::new(BTreeMap::new()) };
}

const REPORTS: Reports = Reports { notify, run, ended };

fn notify(task: u32, notice: Notice, attempt: u8, bytes: Option<Vec<u8>>) {
    guarded(task, || runtime::notify(task, notice, attempt, bytes));
}

fn run(task: u32) {
    guarded(task, || runtime::run(task));
}

fn ended(task: u32) {
    EXCHANGES.with_borrow_mut(|exchanges| exchanges.remove(&task));
    FREE.with_borrow_mut(|free| free.push(task));
}

/// Runs a task. If it panics, its client gets an error, and other tasks go on.
fn guarded(task: u32, turn: impl FnOnce()) {
    if std::panic::catch_unwind(AssertUnwindSafe(turn)).is_err() {
        let exchange = EXCHANGES.with_borrow(|exchanges| exchanges.get(&task).cloned());
        if let Some(exchange) = exchange {
            exchange.fail();
        }
    }
}

/// Answers a request.
pub(super) async fn answer(
    request: Request<Incoming>,
    sender: Sender,
    locator: &Locator,
    env: Env,
) -> Response<AnswerBody> {
    if let Some(status) = refused(&request) {
        let mut answer = AnswerBody::refusal(status);
        if request.version() < Version::HTTP_2 {
            // Whatever follows may be no request.
            close_after(&mut answer);
        }
        return answer;
    }
    if IS_CLOSED.get() {
        return AnswerBody::refusal(StatusCode::SERVICE_UNAVAILABLE);
    }
    let id = request_id();
    let head = described(&request, &id, sender, locator);
    let number = FREE.with_borrow_mut(Vec::pop).unwrap_or_else(|| NUMBERS.replace(NUMBERS.get() + 1));
    let (answer, answered) = oneshot::channel();
    let exchange = RawExchange::new(REPORTS, number, id, answer);
    EXCHANGES.with_borrow_mut(|exchanges| exchanges.insert(number, exchange.clone()));
    let gone = Gone(Some(exchange.clone()));
    let body = ClientBody::of(request.into_body());
    guarded(number, || runtime::begin(number, exchange.clone(), body, env, Background, head.into_bytes()));
    let answered = answered.await;
    gone.answered();
    answered.unwrap_or_else(|_| exchange.broken())
}

/// Lets an answer over HTTP/1.1 say that its connection is closed after it. hyper then closes it.
pub(super) fn close_after(answer: &mut Response<AnswerBody>) {
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
}

/// The wait for a response. Dropped before it, the client has gone.
struct Gone(Option<RawExchange>);

impl Gone {
    fn answered(mut self) {
        self.0 = None;
    }
}

impl Drop for Gone {
    fn drop(&mut self) {
        if let Some(exchange) = self.0.take() {
            exchange.client_gone();
        }
    }
}

/// Ends all requests that are left, while all that they need is there, and answers no more.
pub(super) fn close() {
    IS_CLOSED.set(true);
    let left: Vec<u32> = EXCHANGES.with_borrow(|exchanges| exchanges.keys().copied().collect());
    left.into_iter().for_each(|task| notify(task, Notice::ClientGone, 0, None));
}
