//! The DNS half: an authoritative server whose static zones come from master files and whose steered names are answered by the rule book.
//!
//! Start with [`answer::answer`], the one place that knows DNS, and [`wire::respond`], which puts bytes around it.
//! What they answer from is a [`snapshot::Snapshot`], which [`owner`] swaps whenever rules, zones, geography or health change.

pub mod answer;
pub mod clock;
pub mod feed;
pub mod geoip;
pub mod locate;
pub mod name;
pub mod owner;
pub mod probe;
pub mod ranges;
pub mod rdata;
pub mod snapshot;
pub mod sources;
pub mod start;
pub mod store;
pub mod wire;
pub mod zone;

#[cfg(test)]
mod testing;
