//! Rollouts. A rollout replaces a model's name, an endpoint or the version of a bundle (a named set of files, such as
//! prompts), region after region. In each region the new thing serves a growing share of the sessions, step by step.
//! The sessions with the new thing are the *new arm*, the others the *old arm*. The new arm must not be worse than the
//! old one, or everything is rolled back.
//!
//! Takes a rollout of the rules and what was counted of its two arms; returns the arm of a session, and what to do
//! next. The edge calls [`arm_at`] for each request; `bailiwick rollout` calls [`machine::step`] again and again.
//!
//! - [`arm_at`] chooses the arm of a session, and [`role`] says what that means for an endpoint.
//! - [`judge`] compares the two arms by the checks of the rules. It may be called as often as one likes: the chance of
//!   a false alarm holds for all calls together. [`proportion`], [`quantile`] and [`strata`] hold the statistics with
//!   their sources.
//! - [`evals`] compares the two arms by an eval (a suite of cases with known answers).
//! - [`machine`] decides from all of that whether the rollout waits, goes on or is rolled back.
//! - [`record`] keeps what was counted and decided, for the next look and for a report.

mod arm;
mod check;
pub mod evals;
pub mod machine;
mod place;
pub mod possible;
pub mod proportion;
pub mod quantile;
pub mod record;
pub mod strata;
#[cfg(test)]
mod tests;
pub mod times;

pub use crate::rules::{Arm, Measure};
pub use arm::{Choice, RequestedEndpoint, Role, arm_at, choice_in, is_trial, role};
pub use check::{Check, CheckResult, Inconclusive, Judgement, Level, Margin, Verdict, judge};
pub use place::Place;
