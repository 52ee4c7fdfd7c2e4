//! For tests on both sides: random rules documents and questions from a seed, and the runner of `tests/vectors/*.json`.
//!
//! Everything is a function of its seed, so native code and Wasm can be asked for the same thing and compared. Built
//! only with the feature `testing`; nothing of it is in a release.

mod random;
mod rollouts;
mod vectors;

pub use random::{Random, ask, conditions, digest_of_steerings, document, limit, release, replicate};
pub use rollouts::{roll_out, version};
pub use vectors::{bless, run};
