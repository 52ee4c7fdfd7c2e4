//! The DNS half: an authoritative server whose static zones come from master files and whose steered names are answered by the rule book.
//!
//! Start with [`answer::answer`], the one place that knows DNS, and [`wire::respond`], which puts bytes around it.

pub mod answer;
pub mod api;
pub mod cli;
pub mod clock;
pub mod config;
pub mod feed;
pub mod geoip;
mod handler;
pub mod listeners;
pub mod locate;
pub mod metrics;
pub mod name;
pub mod nearest;
pub mod owner;
pub mod probe;
pub mod question;
pub mod ranges;
pub mod rdata;
pub mod respond;
pub mod serve;
pub mod snapshot;
pub mod sources;
pub mod start;
pub mod store;
mod udp;
pub mod wire;
pub mod zone;

#[cfg(test)]
mod testing;
