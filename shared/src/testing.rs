//! For tests of both halves: random rules documents and questions from a seed, and the runner of
//! `tests/vectors/*.json`.
//!
//! Everything depends on its seed alone, so native code and Wasm can be asked the same questions and compared. Built
//! only with the feature `testing`, which no release has.

mod random;
mod rollouts;
mod vectors;

pub use random::{Random, ask, conditions, digest_of_steerings, document, limit, release, replicate};
pub use rollouts::{roll_out, version};
pub use vectors::{bless, run};
