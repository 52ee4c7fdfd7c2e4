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
//! # Words
//!
//! The files of this crate use these words without explaining them each time:
//!
//! - **rules**: the JSON document that the operator writes; its *revision* is a number that grows with every change.
//! - **service**: host names that are steered; **region**: a place that serves; **endpoint**: one base URL of a region.
//! - **client**: who sends a request or a query; **tenant**: a customer, known by an API key.
//! - **fence**: the regions of a service that may process a client; **tier**: the regions of a fence that rank alike.
//! - **standing**: a client's jurisdictions and location, which decide its fence.
//! - **to steer**: to decide which regions of the fence are offered to a client, and in which order.
//! - **to withhold**: to offer a region or an endpoint to no client for now, because it is down, full, stale or skewed.
//! - **to force**: to set the status of a region by hand until a time; this is an *override*.
//! - **class**: the clients of a service whose fence has the same order; **share**: the part of a class that a load
//!   plan moves to another region.
//! - **source**: depending on the module, where a load or a lag is read, or how a client's location is known.
//! - **replica**: knowledge, such as a search index, of which regions hold *copies*; **lag**: how far a copy is behind.
//! - **release**: the model, engine and settings that should run under a model's name; **skew**: an endpoint runs
//!   something else. A **pin** names the value, version or region that is wanted.
//! - **rollout**: the replacement of something old by something new, step by step; its two sides are the **arms**.
//! - **head**: a small signed document that says which rules are published; **stage**: the nodes that get them next.
//! - **voter**: a DNS node whose report counts as a vote on health; **verdict**: the status that the voters agree on;
//!   **guard**: how many regions of a fence health may take away at once.
//! - **pool**: what a provider's account may be sent, less what was taken of it; **lease**: the part of a pool that one
//!   isolate (a running instance of the Worker) may spend.
//!
//! Each module imports only those before it: `turns`, `json`, `id`, `time`, `geo`, `health`, `bundle`, `rules`,
//! `table`, `steer`, `audit`, `load`, `probe`, `replica`, `release`, `observe`, `aggregate`, `quota`, `simulation`,
//! `explain`, `overview`, `report`, `receipt`, `fleet`, `eval`, `rollout`, `drill`.
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "eval"))]
pub mod aggregate;
pub mod audit;
pub mod bundle;
#[cfg(any(test, feature = "drills"))]
pub mod drill;
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
