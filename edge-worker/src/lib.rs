//! The edge half: an HTTP request enters, is steered by the rule book, and the answer of an endpoint inside its fence
//! leaves.
//!
//! Two halves of its own. The pure one decides and is tested on any machine: [`plan`] turns a steering into the
//! endpoints a request may be sent to, and nothing else can; [`attempt`] is the machine that says what to do with what
//! happened; [`body`], [`multipart`], [`state`], [`rewrite`], [`splice`] and [`envelope`] shape what goes either way.
//! The other half waits and is thin: `task` runs each request, `feed` brings rules and health, `asked` reads a request,
//! `client` who asks, `incoming` what they send, `serve` leads one request through, `proxy` drives the machine with
//! real fetches over its `wire`, `memory` keeps what it learnt, `receipt` signs what it did, `uploads` carries files
//! past it, `held` writes what is large to an endpoint, `reply` makes the response, `explain`
//! tells what it would be, `cors` says what web pages may do, `account` says what became of it, in the `log` and in
//! `metrics`.
#![forbid(unsafe_code)]

mod account;
mod asked;
pub mod attempt;
pub mod batch;
pub mod body;
mod book;
pub mod breaker;
mod client;
pub mod cooldown;
mod cors;
pub mod envelope;
mod explain;
mod feed;
pub mod headers;
mod held;
mod incoming;
pub mod inflight;
pub mod json;
mod keepalive;
mod log;
mod memory;
mod metrics;
pub mod multipart;
pub mod payload;
pub mod plan;
mod proxy;
mod receipt;
mod reply;
mod reports;
pub mod rewrite;
pub mod room;
mod secrets;
mod serve;
pub mod source;
pub mod splice;
pub mod sse;
pub mod state;
mod task;
#[cfg(test)]
mod testing;
mod uploads;
mod wire;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Once;

use worker::js_sys::{Reflect, global};
use worker::wasm_bindgen::prelude::wasm_bindgen;
use worker::wasm_bindgen::{self, JsCast, JsValue};
use worker::web_sys::Request;
use worker::worker_sys;
use worker::{Context, Env, console_error};

use crate::asked::Asked;
use crate::proxy::Answer;
use crate::wire::{Inbox, Line, Wire};

/// Answers a request: wire.js calls it, with the number of the task it becomes, its line, and what it says of itself.
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

/// Something happened on a task's line: the numbers of `what` stand in wire.js.
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
