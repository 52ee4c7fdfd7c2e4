//! The edge half.
#![forbid(unsafe_code)]

pub mod attempt;
pub mod body;
pub mod cooldown;
pub mod envelope;
pub mod json;
pub mod plan;
pub mod rewrite;
pub mod sse;
