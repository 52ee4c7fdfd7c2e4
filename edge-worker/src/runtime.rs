//! The edge around the decisions: everything that waits, reads a clock or talks to the platform.
//!
//! A request passes `request` (what it says), `client` (who sends it), `incoming` (its body) and `serve` (which steers
//! it); `proxy` then carries out what `decide::attempt` decides, over the request's `exchange`. `reply` makes
//! the response, `receipt` signs it, `account` counts and logs the outcome, `logs` sends it to a sink. `task` runs the
//! requests, `feed` brings rules and health, `leases` the isolate's parts of quotas, `memory` keeps what an isolate has
//! learned, `uploads` and `held` send bodies to an endpoint.

mod account;
mod client;
mod clock;
mod cors;
mod env;
mod exchange;
mod explain;
mod feed;
mod held;
mod incoming;
mod isolate;
mod leases;
mod log;
mod logs;
mod memory;
mod metrics;
mod observe;
mod outbox;
mod proxy;
mod receipt;
mod reply;
mod request;
mod serve;
mod task;
mod uploads;

use std::cell::RefCell;
use std::rc::Rc;

use self::exchange::{Exchange, Inbox};
use self::proxy::Answer;
use self::request::ClientRequest;
use crate::platform::notice::Notice;
use crate::platform::{Background, ClientBody, Env, RawExchange};

/// Answers a request, as a task with this number. `head` is the method, URL, place and headers of the request as one
/// text.
pub(crate) fn begin(task: u32, raw: RawExchange, body: ClientBody, env: Env, background: Background, head: Vec<u8>) {
    let inbox = Rc::<RefCell<Inbox>>::default();
    let head = String::from_utf8(head).unwrap_or_default();
    let request = ClientRequest::of(body, &head, raw.clone(), Rc::clone(&inbox));
    let exchange = Exchange::new(raw.clone(), Rc::clone(&inbox));
    let work = {
        let raw = raw.clone();
        async move {
            match serve::serve(request, exchange, env, &background).await {
                Answer::Whole(reply) => exchange::reply_to(&raw, &reply),
                Answer::Streamed(body) => body.write().await,
            }
        }
    };
    task::begin(task, raw, inbox, work);
}

/// Something happened to a task's exchange.
pub(crate) fn notify(task: u32, notice: Notice, attempt: u8, bytes: Option<Vec<u8>>) {
    task::notify(task, notice, attempt, bytes);
}

/// Continues a task that was woken.
pub(crate) fn run(task: u32) {
    task::run(task);
}

/// The rules in service, whether or not they are too old; `None` before the first request has fetched them.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn table() -> Option<Rc<bailiwick_rules::table::Table>> {
    feed::current_table()
}

/// All metrics of this isolate in the format of Prometheus.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn exposition() -> String {
    explain::exposition(metrics::Format::Prometheus, &feed::snapshot())
}
