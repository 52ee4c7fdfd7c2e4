//! Rollouts: something new replaces something old, region after region, and is judged all the while. Takes the rules'
//! rollout and what was counted of its two arms; returns the arm of a session, and whether the new arm is as good.
//!
//! [`arm_at`] chooses the arm of a session. [`judge`] compares two arms that served at the same time, and may be asked
//! as often as one likes. [`proportion`] and [`quantile`] hold the statistics with their sources.

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
pub use arm::{Asked, Choice, Role, arm_at, choice_in, is_trial, role};
pub use check::{Check, Inconclusive, Judged, Judgement, Level, Margin, Verdict, judge};
pub use place::Place;
