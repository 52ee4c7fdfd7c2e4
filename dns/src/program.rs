//! The program: what the operator writes, calls and reads. [`cli`] is entered first; `serve` joins everything below
//! until a signal ends it.

pub(crate) mod api;
pub mod cli;
pub mod config;
pub(crate) mod fleet_report;
pub(crate) mod impact;
pub(crate) mod jws;
pub(crate) mod logs;
pub(crate) mod metrics;
pub(crate) mod node_status;
pub(crate) mod picture;
pub(crate) mod question;
pub(crate) mod receipt;
pub(crate) mod report;
pub(crate) mod responder;
pub(crate) mod serve;
