//! The edge. Takes an HTTP request, steers it by the rule book, and returns the answer of an endpoint that residency
//! allows.
//!
//! Two types matter. A plan (`decide::plan::Plan`) is every endpoint that a request may be sent to, in order; only a
//! steering of the rule book makes one, so no request leaves its fence. A run (`decide::attempt::Run`) is the state
//! machine that sends the request to one endpoint of the plan after another until an answer is good.
//!
//! # Words
//!
//! - **isolate**: one running instance of the Worker. It has its own memory and serves many requests at once.
//! - **exchange**: the side of one request that the platform has; it fetches, reads and writes.
//! - **feed**: rules or health, fetched again and again from DNS nodes.
//! - **fence**: the regions that may process the client; **steering**: what the rules decided for this client now.
//! - **target**: an endpoint of a plan; **attempt**: one try to get the request answered by one target.
//! - **commit**: the moment from which an answer is passed to the client. After it no other endpoint is asked.
//! - **to hold**: to keep an answer or a body in memory instead of passing it on.
//! - **to rest**, or **cool down**: an endpoint gets no requests for a while after a failure. A **fault** is a failure
//!   that counts in the endpoint's circuit breaker.
//! - **sender**: the tenant, network or session that a failure counts for, so that one client alone can't make an
//!   endpoint rest for all.
//! - **state**: what a model host stores for a client, such as files and batches. A **sealed id** is the id of such an
//!   object with a proof of its owner.
//! - **arm**: the old or the new side of a rollout; **pin**: the region that an operator names for a request.
//! - **splice**: to replace names and ids in an answer while it passes.
//!
//! [`bailiwick_rules`] explains the words of the rules.
//!
//! `decide` is pure and tested on any machine. `runtime` calls it; it waits, reads clocks and talks to a `platform`, of
//! which the Workers runtime is one. `decide` imports from neither, and `runtime` knows a platform by the names of
//! `platform` alone. `worker_entry` is what the Workers runtime calls.
#![forbid(unsafe_code)]

mod decide;
#[cfg(not(target_arch = "wasm32"))]
pub mod native_entry;
mod platform;
mod runtime;
#[cfg(target_arch = "wasm32")]
pub mod worker_entry;
