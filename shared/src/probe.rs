//! Proof that an endpoint's GPU generates. Takes a model's name and a nonce, returns the request that asks for one
//! token; takes the answer in pieces and what the engine's metrics say, returns a [`Verdict`]. Called by the DNS node
//! for monitors of type `openai`.
//!
//! A listener that accepts, a `/health` that says 200, even an answer of 200 prove nothing: they come from the web
//! server before the engine. Only a token does, or what can't be said without one. And a missing token proves less than
//! it seems: an engine that is full makes tokens for others first. So its metrics are asked whether it goes on.

mod answer;
mod ask;
mod motion;
mod pace;
#[cfg(test)]
mod properties;
mod refusal;
mod verdict;

pub use answer::{Answer, MAX_ANSWER, NoToken, Seen};
pub use ask::{Field, TokenLimit, body};
pub use motion::{EngineWatch, Motion};
pub use pace::{Purse, next_round, phase};
pub use refusal::{MAX_REFUSAL, Refused, refused};
pub use verdict::{Effect, Finding, Verdict, judge};
