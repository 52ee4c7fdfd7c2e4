//! Evals: does one region, or one model, answer as well as another? Takes suites of cases and results of two runs;
//! returns what was asked, and whether the second run is as good as the first. Called by `bailiwick eval`.
//!
//! [`read_suite`] reads the cases. [`read_run`] reads the results of a run, ours or those of lm-evaluation-harness.
//! [`compare`] compares two runs of the same cases, pair by pair. [`pairs`] and [`scores`] hold the statistics with
//! their sources.
//!
//! The Worker has no use for it: the module is behind the feature `eval`.

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

pub use compare::{Comparison, Settings, Sides, Verdict, chance, compare, differences, worse_beyond};
pub use lm_eval::Companion;
pub use outcome::{Header, Outcome, VERSION, read_log};
pub use run::{Measured, Run, Wanted, read_run};
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
