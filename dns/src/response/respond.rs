//! The traits that every transport calls. They take a packet and its sender, and return the bytes of the response and
//! the outcome. So sockets know nothing of zones, rules or counters.

use std::net::IpAddr;
use std::sync::Arc;

pub use bailiwick_host::system::batch::Datagram;

use crate::response::wire::{Outcome, Transport};

/// Answers packets. Implementations return for any bytes, and never panic.
pub trait Respond: Send + Sync + 'static {
    /// Answers one packet into `out`, which is overwritten; after [`Outcome::Dropped`] it is empty.
    fn respond(&self, packet: &[u8], from: IpAddr, transport: Transport, out: &mut Vec<u8>) -> Outcome;

    /// Returns the answerer of the datagrams of one thread. It may hold state that only this thread uses.
    fn datagrams(self: Arc<Self>) -> Box<dyn Datagrams>
    where
        Self: Sized,
    {
        Box::new(OneByOne(self))
    }
}

/// Answers the datagrams of one thread, batch by batch.
pub trait Datagrams: Send {
    /// Begins a batch: answers from now on are made from the state of this moment or a later one. Also called from time
    /// to time while no datagrams arrive.
    fn begin(&mut self);

    /// Answers a batch. The buffers for its responses are empty.
    fn respond(&mut self, batch: &mut [Datagram<'_>]);

    /// Called after a panic ended the batch. State that may be half changed has to be thrown away.
    fn recover(&mut self) {}
}

/// Answers the datagrams of a batch one by one, like packets of other transports.
struct OneByOne<R>(Arc<R>);

impl<R: Respond> Datagrams for OneByOne<R> {
    fn begin(&mut self) {}

    fn respond(&mut self, batch: &mut [Datagram<'_>]) {
        for Datagram { packet, from, response } in batch {
            self.0.respond(packet, *from, Transport::Udp, response);
        }
    }
}
