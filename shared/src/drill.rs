//! Drills: rehearsals of the loss of a region. A share of its clients is sent to the other regions of their fence, then
//! a higher one, and then they come back. Nobody is sent to a region that they might not be sent to anyway.
//!
//! [`preflight`] says whether a drill may begin, [`kept`] what a node knows of the one that is under way, [`schedule`]
//! when one begins by itself, [`machine`] what whoever runs it does next, [`counts`] what nodes counted, and [`record`]
//! what came of it. All of it is pure. Called by the node, which keeps the drill, and by `bailiwick drill`, which runs
//! it.

pub mod counts;
pub mod kept;
pub mod machine;
pub mod preflight;
#[cfg(test)]
mod properties;
pub mod record;
pub mod schedule;
pub mod told;
