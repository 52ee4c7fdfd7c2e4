//! What the edge needs of whatever runs it: the time, timers, random numbers, variables and secrets, background work, a
//! client for HTTP, pipes, signatures, lines of log, and the exchange with a client. Called by `runtime`.
//!
//! `runtime` knows these names and no platform behind them. Each platform is a module with all of them; [`workers`] is
//! the one for the Workers runtime.

mod ed25519;
mod workers;

/// Work beside requests, of one request.
pub(crate) use workers::background::Background;
/// A client's request, whose body may still be arriving.
pub(crate) use workers::client_body::ClientBody;
/// Lines of the platform's log.
pub(crate) use workers::console;
/// Variables and secrets.
pub(crate) use workers::env::Env;
/// One request's exchange with its endpoints and its client.
pub(crate) use workers::exchange::RawExchange;
/// Small requests, which are read as a whole.
pub(crate) use workers::fetch;
/// Facts about the isolate.
pub(crate) use workers::isolate;
/// Bodies that are written while an endpoint reads them.
pub(crate) use workers::pipe::{BodyStream, PipeWriter, pipe};
/// Signatures.
pub(crate) use workers::signer::Signer;
/// The time and timers.
pub(crate) use workers::time::{now, sleep};
