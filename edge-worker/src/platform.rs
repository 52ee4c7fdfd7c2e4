//! What the edge needs of whatever runs it: the time, timers, random numbers, variables and secrets, background work, a
//! client for HTTP, pipes, signatures, lines of log, and the exchange with a client. Called by `runtime`.
//!
//! `runtime` knows these names and no platform behind them. Each platform is a module with all of them: [`workers`] is
//! the Workers runtime, and `native` a server of our own.

mod ed25519;
pub(crate) mod message;
#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod native;
pub(crate) mod notice;
// On other machines it is compiled for its tests and lints alone.
#[cfg_attr(not(target_arch = "wasm32"), allow(dead_code))]
mod workers;

#[cfg(not(target_arch = "wasm32"))]
use native as chosen;
#[cfg(target_arch = "wasm32")]
use workers as chosen;

/// Work beside requests, of one request.
pub(crate) use chosen::background::Background;
/// A client's request, whose body may still be arriving.
pub(crate) use chosen::client_body::ClientBody;
/// Lines of the platform's log.
pub(crate) use chosen::console;
/// Variables and secrets.
pub(crate) use chosen::env::Env;
/// One request's exchange with its endpoints and its client.
pub(crate) use chosen::exchange::RawExchange;
/// Small requests, which are read as a whole.
pub(crate) use chosen::fetch;
/// Facts about the isolate.
pub(crate) use chosen::isolate;
/// Bodies that are written while an endpoint reads them.
pub(crate) use chosen::pipe::{BodyStream, PipeWriter, pipe};
/// Signatures.
pub(crate) use chosen::signer::Signer;
/// The time and timers.
pub(crate) use chosen::time::{now, sleep};
