//! Takes the octets of a query, returns the octets of its response. Pure: no socket, no clock, no file.
//!
//! [`respond`] is the trait that every transport calls. [`wire`] parses and writes packets, [`answer`] knows what they
//! mean.

pub mod answer;
pub mod respond;
pub mod wire;
