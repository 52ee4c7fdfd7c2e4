//! The edge: an HTTP request comes in, the rule book steers it, and the answer of an endpoint that residency allows
//! goes out.
//!
//! [`decide`] is pure and tested on any machine. [`runtime`] is the Worker that calls it. `decide` never imports from
//! `runtime`, so that another runtime can call it too.
#![forbid(unsafe_code)]
#![warn(clippy::too_many_lines)]

pub mod decide;
pub mod runtime;
