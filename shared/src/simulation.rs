//! Simulates hours of a fleet of regions in steps of seconds. Takes a scenario, returns what became of regions and
//! requests. Called by `bailiwick simulate`.
//!
//! The plan is the real one, of [`crate::load`]; everything around it is a model. Clients are cohorts: all clients of a
//! service whose fence (the regions that may process them) has the same order. Their demand follows the sun. Readings
//! come late, probes take time, and resolvers keep answers. A region that is offered too much for too long collapses,
//! if the scenario says so.

mod picture;
mod scenario;
mod world;

pub use picture::{escape, svg};
pub use scenario::{Collapse, Event, Scenario, read_scenario};
pub use world::{Outcome, Sample, Way, simulate};
