//! The Worker's entry: what exchange.js calls. Takes requests and events from JavaScript, and gives them to `runtime`.

use std::sync::Once;

use serde_json::json;
use worker::js_sys::{Reflect, global};
use worker::wasm_bindgen::prelude::wasm_bindgen;
use worker::wasm_bindgen::{self, JsValue};
use worker::web_sys::Request;
use worker::worker_sys;

use crate::platform::notice::Notice;
use crate::platform::{Background, ClientBody, Env, RawExchange, console};
use crate::runtime;

/// Answers a request. exchange.js calls it with the number of the new task, the exchange's JavaScript side, and the
/// method, URL, place and headers of the request as one text.
#[wasm_bindgen]
pub fn begin(
    task: u32,
    exchange: JsValue,
    request: Request,
    env: worker::Env,
    context: worker_sys::Context,
    head: Vec<u8>,
) {
    static QUIETEN: Once = Once::new();
    QUIETEN.call_once(quieten_panics);
    let (exchange, body) = (RawExchange::of(exchange), ClientBody::of(request));
    runtime::begin(task, exchange, body, Env::of(env), Background::of(context), head);
}

/// Something happened to a task's exchange: `notice` is a number of notice.js.
#[wasm_bindgen]
pub fn notify(task: u32, notice: u8, attempt: u8, bytes: Option<Vec<u8>>) {
    if let Some(notice) = Notice::of(notice) {
        runtime::notify(task, notice, attempt, bytes);
    }
}

/// Continues a task that was woken.
#[wasm_bindgen]
pub fn run(task: u32) {
    runtime::run(task);
}

/// Sets a panic hook that logs only the place of a panic, because its text may quote a prompt. It replaces the hook of
/// the `worker` crate. Like that one it sets `criticalError`, so that the shim makes a new Wasm instance before the
/// next request.
fn quieten_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        console::error(&json!({ "event": "panic", "at": place }).to_string());
        if let Ok(state) = Reflect::get(&global(), &"__worker_init_state".into()) {
            let _ = Reflect::set(&state, &"criticalError".into(), &true.into());
        }
    }));
}
