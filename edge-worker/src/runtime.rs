//! The Worker around the decisions: everything that waits, reads a clock or talks to the runtime.
//!
//! A request passes `request` (what it says), `client` (who sends it), `incoming` (its body) and `serve` (which steers
//! it); `proxy` then carries out what [`crate::decide::attempt`] decides, over the request's `exchange`. `reply` makes
//! the response, `receipt` signs it, `account` counts and logs the outcome. `task` runs the requests, `feed` brings
//! rules and health, `memory` keeps what an isolate has learned, `uploads` and `held` send bodies to an endpoint.

mod account;
mod client;
mod cors;
mod exchange;
mod explain;
mod feed;
mod held;
mod incoming;
mod log;
mod memory;
mod metrics;
mod proxy;
mod receipt;
mod reply;
mod request;
mod rules_state;
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

use self::exchange::{Inbox, Line, Wire};
use self::proxy::Answer;
use self::request::Asked;

/// Answers a request: exchange.js calls it, with the number of the task it becomes, its line, and what it says of itself.
#[wasm_bindgen]
pub fn begin(task: u32, line: JsValue, request: Request, env: Env, context: worker_sys::Context, asked: Vec<u8>) {
    static QUIETEN: Once = Once::new();
    QUIETEN.call_once(quieten_panics);
    let line: Line = line.unchecked_into();
    let inbox = Rc::<RefCell<Inbox>>::default();
    let text = String::from_utf8(asked).unwrap_or_default();
    let asked = Asked::of(request, &text, line.clone(), Rc::clone(&inbox));
    let wire = Wire::new(line.clone(), Rc::clone(&inbox));
    let work = {
        let line = line.clone();
        async move {
            match serve::serve(asked, wire, env, &Context::new(context)).await {
                Answer::Whole(reply) => line.reply(&reply),
                Answer::Streamed(body) => body.write().await,
            }
        }
    };
    task::begin(task, line, inbox, work);
}

/// Something happened on a task's line: the numbers of `what` stand in exchange.js.
#[wasm_bindgen]
pub fn ring(task: u32, what: u8, attempt: u8, bytes: Option<Vec<u8>>) {
    task::ring(task, what, attempt, bytes);
}

/// Takes a task on that was woken.
#[wasm_bindgen]
pub fn run(task: u32) {
    task::run(task);
}

/// Logs of a panic, which is a bug, only where it was: its text can quote a prompt. In place of the hook of the
/// `worker` crate, whose flag for the JavaScript around it (make a new instance before the next request) is set here
/// too.
fn quieten_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        console_error!("{}", serde_json::json!({ "event": "panic", "at": place }));
        if let Ok(state) = Reflect::get(&global(), &"__worker_init_state".into()) {
            let _ = Reflect::set(&state, &"criticalError".into(), &true.into());
        }
    }));
}
