//! The edge. Takes an HTTP request, steers it by the rule book, and returns the answer of an endpoint that residency
//! allows.
//!
//! `decide` is pure and tested on any machine. [`runtime`] is the Worker that calls it. `decide` never imports from
//! `runtime`, so that another runtime can call it too.
#![forbid(unsafe_code)]

mod decide;
pub mod runtime;
