//! The Worker around the decisions: everything that waits, reads a clock or talks to the runtime.
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
mod notice;
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
use std::sync::Once;

use worker::js_sys::{Reflect, global};
use worker::wasm_bindgen::prelude::wasm_bindgen;
use worker::wasm_bindgen::{self, JsCast, JsValue};
use worker::web_sys::Request;
use worker::worker_sys;
use worker::{Context, Env, console_error};

use self::exchange::{Exchange, Inbox, JsExchange};
use self::notice::Notice;
use self::proxy::Answer;
use self::request::ClientRequest;

/// Answers a request. exchange.js calls it with the number of the new task, the exchange's JavaScript side, and the
/// method, URL, place and headers of the request as one text.
#[wasm_bindgen]
pub fn begin(task: u32, exchange: JsValue, request: Request, env: Env, context: worker_sys::Context, head: Vec<u8>) {
    static QUIETEN: Once = Once::new();
    QUIETEN.call_once(quieten_panics);
    let js: JsExchange = exchange.unchecked_into();
    let inbox = Rc::<RefCell<Inbox>>::default();
    let head = String::from_utf8(head).unwrap_or_default();
    let request = ClientRequest::of(request, &head, js.clone(), Rc::clone(&inbox));
    let exchange = Exchange::new(js.clone(), Rc::clone(&inbox));
    let work = {
        let js = js.clone();
        async move {
            match serve::serve(request, exchange, env, &Context::new(context)).await {
                Answer::Whole(reply) => js.reply(&reply),
                Answer::Streamed(body) => body.write().await,
            }
        }
    };
    task::begin(task, js, inbox, work);
}

/// Something happened to a task's exchange: `notice` is a number of notice.js.
#[wasm_bindgen]
pub fn notify(task: u32, notice: u8, attempt: u8, bytes: Option<Vec<u8>>) {
    if let Some(notice) = Notice::of(notice) {
        task::notify(task, notice, attempt, bytes);
    }
}

/// Continues a task that was woken.
#[wasm_bindgen]
pub fn run(task: u32) {
    task::run(task);
}

/// Sets a panic hook that logs only the place of a panic, because its text may quote a prompt. It replaces the hook of
/// the `worker` crate. Like that one it sets `criticalError`, so that the shim makes a new Wasm instance before the
/// next request.
fn quieten_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        console_error!("{}", serde_json::json!({ "event": "panic", "at": place }));
        if let Ok(state) = Reflect::get(&global(), &"__worker_init_state".into()) {
            let _ = Reflect::set(&state, &"criticalError".into(), &true.into());
        }
    }));
}
