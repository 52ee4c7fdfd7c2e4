//! The rule book of bailiwick: where may a request be served, and which of those places is best right now?
//!
//! Two types matter. A [`Table`](table::Table) is a rules document that was read, checked and compiled. A
//! [`Steering`](steer::Steering) is what [`steer`](steer::steer()) decides from a table for one client under the
//! conditions of one moment. It holds the fence (the regions that may process the client), the regions in order, and
//! which regions were withheld and why.
//!
//! The crate is pure: no I/O, no clock, no randomness. The DNS server and the Worker link the same code, so equal
//! rules, client and conditions give equal decisions, natively and in Wasm.
//!
//! Each module imports only those before it: `turns`, `json`, `id`, `time`, `geo`, `health`, `bundle`, `rules`,
//! `table`, `steer`, `audit`, `load`, `probe`, `replica`, `release`, `observe`, `quota`, `simulation`, `explain`,
//! `overview`, `report`, `receipt`, `fleet`, `eval`, `rollout`.
#![forbid(unsafe_code)]

pub mod audit;
pub mod bundle;
#[cfg(any(test, feature = "eval"))]
pub mod eval;
pub mod explain;
pub mod fleet;
pub mod geo;
pub mod health;
pub mod id;
pub mod json;
pub mod load;
pub mod observe;
pub mod overview;
pub mod probe;
pub mod quota;
pub mod receipt;
pub mod release;
pub mod replica;
pub mod report;
pub mod rollout;
pub mod rules;
pub mod simulation;
pub mod steer;
pub mod table;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod time;
pub mod turns;
