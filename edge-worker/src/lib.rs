//! The edge half: an HTTP request enters, is steered by the rule book, and the answer of an endpoint inside its fence leaves.
//!
//! Two halves of its own. The pure one decides and is tested on any machine: [`plan`] turns a steering into the endpoints a
//! request may be sent to, and nothing else can; [`attempt`] is the machine that says what to do with what happened;
//! [`body`], [`rewrite`] and [`envelope`] shape what goes either way. The other half waits and is thin: `feed` brings rules and
//! health, `client` reads who asks, `serve` leads one request through, `proxy` drives the machine with real fetches, `reply`
//! makes the response.
#![forbid(unsafe_code)]

pub mod attempt;
pub mod body;
mod book;
mod client;
pub mod cooldown;
pub mod envelope;
mod feed;
pub mod json;
pub mod plan;
mod proxy;
mod reply;
pub mod rewrite;
mod serve;
pub mod sse;

use worker::{Context, Env, Request, Response, Result, event};

/// Answers every request. Never an `Err`: the runtime would write the error's text into logs and answers.
#[event(fetch)]
async fn fetch(request: Request, env: Env, context: Context) -> Result<Response> {
    Ok(serve::serve(request, env, &context).await)
}
