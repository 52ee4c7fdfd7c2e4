//! Takes a scenario, plays hours of a fleet's day in steps of seconds, returns what became of regions and requests.
//! Called by `bailiwick simulate`.
//!
//! The plan is the one of [`crate::load`]; what surrounds it is a model. Clients are cohorts: all of a service whose
//! fence has one order. Their demand follows the sun. Readings come late, probes take their time, resolvers keep
//! answers, and a region that is offered too much for too long collapses, if the scenario says so.

mod picture;
mod scenario;
mod world;

pub use picture::{escape, svg};
pub use scenario::{Collapse, Event, Scenario, read_scenario};
pub use world::{Outcome, Sample, Way, simulate};
