//! Helpers for tests of the native and the Wasm code. Takes a seed, returns random rules documents, requests and
//! conditions; also runs the cases of `tests/vectors/*.json`.
//!
//! Everything depends only on its seed, so that native code and Wasm can compute the same case and be compared. Built
//! only with the feature `testing`; no release contains it.

mod random;
mod rollouts;
mod vectors;

pub use random::{Random, ask, conditions, digest_of_steerings, document, limit, release, replicate};
pub use rollouts::{roll_out, version};
pub use vectors::{bless, run};
