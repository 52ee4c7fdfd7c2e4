//! The program `bailiwick`: its configuration, commands, HTTP API, metrics and logs. `main` calls [`cli`], which runs
//! the command that the operator names. The command `serve` runs the server until a signal ends it; it alone starts the
//! listeners, the owner of the state and the API.

pub(crate) mod access_log;
pub(crate) mod aggregate;
pub(crate) mod api;
pub mod cli;
pub mod config;
pub(crate) mod fleet_report;
pub(crate) mod impact;
pub(crate) mod jws;
pub(crate) mod logs;
pub(crate) mod metrics;
pub(crate) mod node_status;
mod otlp;
pub(crate) mod picture;
pub(crate) mod question;
pub(crate) mod receipt;
pub(crate) mod report;
pub(crate) mod responder;
pub(crate) mod serve;
