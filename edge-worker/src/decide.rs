//! Decisions. Everything here is computed from its arguments. Time and randomness are arguments too. Nothing here
//! waits, opens a connection, or knows the runtime that it runs on. `tests/behaviour/layers.rs` holds that.
//!
//! [`plan`] turns a steering into the endpoints that a request may be sent to, and nothing else can. [`attempt`] is the
//! state machine that says what to do about each event. [`breaker`] and [`cooldown`] decide which endpoints rest, each
//! by the [`source`] that a failure counts for. [`body`], [`multipart`], [`batch`], [`rewrite`] and [`state`] shape a
//! request, [`splice`] and [`sse`] its answer, [`envelope`] a failure.

pub mod attempt;
pub mod batch;
pub mod body;
pub mod breaker;
pub mod buffer_pool;
pub mod cooldown;
pub(crate) mod denial;
pub mod envelope;
pub(crate) mod hash;
pub mod headers;
pub mod inflight;
pub mod json;
pub(crate) mod keepalive;
pub mod multipart;
pub mod payload;
pub mod plan;
pub(crate) mod reports;
pub mod rewrite;
pub mod route;
pub(crate) mod rules_state;
pub(crate) mod secrets;
pub mod source;
pub mod splice;
pub mod sse;
pub mod state;
#[cfg(test)]
mod testing;
