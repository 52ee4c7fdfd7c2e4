//! The DNS half: an authoritative server whose static zones come from master files and whose steered names are answered by the rule book.
//!
//! Three parts:
//!
//! - The protocol core is pure. [`wire::respond`] turns a packet into a response; between its bytes [`answer::answer`] knows all DNS there is.
//! - The state is a [`snapshot::Snapshot`] behind one atomic pointer: rules, zones, geography and health of one moment with what they decide.
//!   One task, the [`owner`], makes the next one from what [`feed`], [`probe`] and [`api`] send it. [`start::start`] brings both to life.
//! - The program around them: [`config`] and [`cli`] read what the operator says, [`listeners`] owns the DNS sockets, [`metrics`] counts, and
//!   [`serve`] ties them together until a signal ends it.

pub mod answer;
pub mod api;
pub mod certificate;
pub mod cli;
pub mod clock;
pub mod config;
mod cookie_files;
pub mod dnssec;
pub mod feed;
pub mod geoip;
mod handler;
mod json_place;
mod keeper;
pub mod listeners;
pub mod locate;
mod log_queue;
mod memo;
pub mod metrics;
pub mod name;
pub mod nearest;
pub mod node_status;
pub mod owner;
pub mod probe;
pub mod question;
pub mod ranges;
pub mod rate_limit;
pub mod rdata;
pub mod receipt;
pub mod renewal;
pub mod respond;
pub mod serve;
pub mod snapshot;
pub mod sources;
pub mod span;
pub mod start;
pub mod store;
pub mod streams;
mod system;
pub mod tasks;
mod udp;
pub mod wire;
pub mod zone;

#[cfg(test)]
mod testing;
