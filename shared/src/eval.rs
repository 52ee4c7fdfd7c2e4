//! Evals: does one region, or one model, answer as well as another? A *suite* is a list of *cases*; each case is a
//! conversation and what a good answer to it is. A *run* asks a model all cases and scores the answers. Takes the bytes
//! of suites and of the results of runs; returns the cases, and whether a second run is as good as a first one. Called
//! by `bailiwick eval`, and by `bailiwick rollout` where an eval decides about a rollout.
//!
//! [`read_suite`] reads the cases. [`read_run`] reads the results of a run, made by `bailiwick eval run` or by
//! lm-evaluation-harness. [`compare`] compares two runs of the same cases, case by case. [`pairs`] and [`scores`] hold
//! the statistics with their sources.
//!
//! The Worker doesn't need this module, so it is behind the feature `eval`.

mod binomial;
mod compare;
mod lm_eval;
mod outcome;
pub mod pairs;
mod run;
pub mod scores;
mod suite;
#[cfg(test)]
mod tests;

pub use compare::{Comparison, Settings, Sides, Verdict, chance, compare, differences, p_of_worse_by_at_most};
pub use lm_eval::Companion;
pub use outcome::{Header, Outcome, VERSION, read_log};
pub use run::{CaseResult, ResultFilter, Run, read_run};
pub use suite::{Case, Expect, Judge, MAX_CASES, MAX_SUITE, Suite, read_suite};

use core::fmt::Write;

/// The SHA-256 of a text, as its first 32 hexadecimal digits.
pub(crate) fn digest(text: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(text).iter().take(16).fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}
