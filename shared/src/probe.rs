//! Checks whether an endpoint's GPU generates tokens. Takes a model's name and a nonce, returns the request for one
//! token. Takes the pieces of the answer and readings of the engine's metrics, returns a [`Verdict`]. Called by the DNS
//! node for monitors of type `openai`.
//!
//! An accepted connection, a `/health` with status 200, or even an answer with status 200 don't prove that the GPU
//! works, because the web server in front of the engine can send them without the GPU. Only a token, or a result that
//! needs a token, is proof. A missing token doesn't prove that the engine is down: a full engine serves other requests
//! first. So the engine's metrics are read to see whether it makes tokens for others.

mod answer;
mod ask;
mod motion;
mod pace;
#[cfg(test)]
mod properties;
mod refusal;
mod verdict;

pub use answer::{Answer, MAX_ANSWER, NoToken, TokenProof};
pub use ask::{Field, TokenLimit, body};
pub use motion::{EngineWatch, Motion};
pub use pace::{ProbeTokens, next_round, phase};
pub use refusal::{MAX_REFUSAL, RefusalMeaning, refused};
pub use verdict::{Effect, Finding, Verdict, judge};
