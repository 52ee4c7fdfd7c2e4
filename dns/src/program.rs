//! The program: what the operator writes, calls and reads. [`cli`] is entered first; [`serve`] joins everything below
//! until a signal ends it.

pub mod api;
pub mod cli;
pub mod config;
pub(crate) mod logs;
pub mod metrics;
pub mod node_status;
pub mod question;
pub mod receipt;
pub(crate) mod report;
pub(crate) mod responder;
pub mod serve;
