//! Simulates a fleet. Takes a scenario, plays hours of a day in steps of some seconds, returns what happened to regions
//! and requests. Called by `bailiwick simulate`.
//!
//! The plan that moves clients is the real one of [`crate::load`]; everything around it is a model. Clients are
//! modelled as cohorts: a cohort is all clients of a service whose fence has the same order. Their demand follows the
//! time of day. Readings arrive late, probes take time to notice a change, resolvers keep answers, and a region that is
//! offered too much for too long collapses, if the scenario says so.

mod picture;
mod scenario;
mod world;

pub use picture::{escape, svg};
pub use scenario::{Collapse, Event, Scenario, read_scenario};
pub use world::{Outcome, Sample, Way, simulate};
