//! The edge half: an HTTP request enters, is steered by the rule book, and the answer of an endpoint inside its fence leaves.
//!
//! Two halves of its own. The pure one decides and is tested on any machine: [`plan`] turns a steering into the endpoints a
//! request may be sent to, and nothing else can; [`attempt`] is the machine that says what to do with what happened;
//! [`body`], [`multipart`], [`state`], [`rewrite`], [`splice`] and [`envelope`] shape what goes either way. The other half
//! waits and is thin: `feed` brings rules and health, `asked` reads a request, `client` who asks, `incoming` what they send, `serve` leads one
//! request through, `proxy` drives the machine with real fetches over
//! its `wire`, `bell` wakes what waits, `memory` keeps what it learnt, `receipt` signs what it did, `uploads` carries files past it, `reply`
//! makes the response, `explain` tells what it would be.
#![forbid(unsafe_code)]

mod asked;
pub mod attempt;
mod bell;
pub mod body;
mod book;
pub mod breaker;
mod client;
pub mod cooldown;
pub mod envelope;
mod explain;
mod feed;
mod incoming;
pub mod inflight;
pub mod json;
mod memory;
pub mod multipart;
pub mod plan;
mod proxy;
mod receipt;
mod reply;
pub mod rewrite;
mod serve;
pub mod splice;
pub mod sse;
pub mod state;
#[cfg(test)]
mod testing;
mod uploads;
mod wire;

use std::sync::Once;

use worker::js_sys::{Reflect, global};
use worker::web_sys::{Request, Response};
use worker::{Context, Env, Result, console_error, event};

/// Answers every request. Never an `Err`: the runtime would write the error's text into logs and answers.
#[event(fetch)]
async fn fetch(request: Request, env: Env, context: Context) -> Result<Response> {
    static QUIETEN: Once = Once::new();
    QUIETEN.call_once(quieten_panics);
    Ok(serve::serve(request, env, &context).await)
}

/// Logs of a panic, which is a bug, only where it was: its text can quote a prompt. In place of the hook of the `worker` crate,
/// whose flag for the JavaScript around it (make a new instance before the next request) is set here too.
fn quieten_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        console_error!("{}", serde_json::json!({ "event": "panic", "at": place }));
        if let Ok(state) = Reflect::get(&global(), &"__worker_init_state".into()) {
            let _ = Reflect::set(&state, &"criticalError".into(), &true.into());
        }
    }));
}
