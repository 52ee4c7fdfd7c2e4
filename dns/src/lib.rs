//! The DNS half: an authoritative server whose static zones come from master files and whose steered names are answered by the rule book.
//!
//! Start with [`answer::answer`], the one place that knows DNS, and [`wire::respond`], which puts bytes around it.

pub mod answer;
pub mod config;
mod handler;
pub mod listeners;
pub mod name;
pub mod nearest;
pub mod rdata;
pub mod respond;
mod udp;
pub mod wire;
pub mod zone;

#[cfg(test)]
mod testing;
