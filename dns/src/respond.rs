//! What every transport calls: a packet and where it came from enter, the response's bytes and what became of the packet leave. The sockets know
//! this trait and nothing of zones, rules or counters.

use std::net::IpAddr;

use crate::wire::{Outcome, Transport};

/// Answers packets. Total: whatever the bytes, it returns.
pub trait Respond: Send + Sync + 'static {
    /// Answers one packet into `out`, which is overwritten; after [`Outcome::Dropped`] it is empty.
    fn respond(&self, packet: &[u8], from: IpAddr, transport: Transport, out: &mut Vec<u8>) -> Outcome;
}
