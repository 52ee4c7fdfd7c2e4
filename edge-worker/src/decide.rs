//! Decisions. Everything here is computed from its arguments. Time and randomness are arguments too. Nothing here
//! waits, opens a connection, or knows the runtime that it runs on. `tests/behaviour/layers.rs` holds that.
//!
//! [`plan`] turns a steering into the endpoints that a request may be sent to, and nothing else can. [`attempt`] is the
//! state machine that says what to do about each event. [`breaker`] and [`cooldown`] decide which endpoints rest, each
//! by the [`sender`] that a failure counts for. [`body`], [`multipart`], [`batch`], [`rewrite`] and [`state`] shape a
//! request, [`splice`] and [`sse`] its answer, [`envelope`] a failure. [`observe`] counts what became of all of them,
//! and [`logs`] words it for collectors.

pub(crate) mod admission;
pub(crate) mod attempt;
pub(crate) mod batch;
pub(crate) mod body;
pub(crate) mod breaker;
pub(crate) mod buffer_pool;
pub(crate) mod cooldown;
pub(crate) mod denial;
pub(crate) mod envelope;
pub(crate) mod explained_limits;
pub(crate) mod hash;
pub(crate) mod headers;
pub(crate) mod inflight;
pub(crate) mod json;
pub(crate) mod keepalive;
pub(crate) mod logs;
pub(crate) mod multipart;
pub(crate) mod observe;
pub(crate) mod payload;
pub(crate) mod pin;
pub(crate) mod plan;
pub(crate) mod quota;
pub(crate) mod reports;
pub(crate) mod rewrite;
pub(crate) mod route;
pub(crate) mod rules_state;
pub(crate) mod secrets;
pub(crate) mod sender;
pub(crate) mod shed;
pub(crate) mod splice;
pub(crate) mod sse;
pub(crate) mod staged;
pub(crate) mod stale;
pub(crate) mod state;
#[cfg(test)]
mod testing;
pub(crate) mod usage;
