//! Whether something new is as good as what it replaces. Takes the counts of two arms that served at the same time;
//! returns a verdict for each check, which may be asked for as often as one likes.
//!
//! [`judge`] is the entry. [`proportion`] and [`quantile`] hold the statistics with their sources.

mod check;
pub mod proportion;
pub mod quantile;
#[cfg(test)]
mod tests;

pub use check::{Check, Inconclusive, Judged, Judgement, Level, Margin, Measure, Verdict, judge};
