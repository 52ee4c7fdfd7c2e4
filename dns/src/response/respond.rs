//! The traits that every transport calls. They take a packet and its sender, and return the bytes of the response and
//! the outcome. So sockets know nothing of zones, rules or counters.

use std::net::IpAddr;
use std::sync::Arc;

use crate::response::wire::{Outcome, Transport};
pub use crate::system::batch::Datagram;

/// Answers packets. Total: whatever the bytes, it returns.
pub trait Respond: Send + Sync + 'static {
    /// Answers one packet into `out`, which is overwritten; after [`Outcome::Dropped`] it is empty.
    fn respond(&self, packet: &[u8], from: IpAddr, transport: Transport, out: &mut Vec<u8>) -> Outcome;

    /// What answers the datagrams of one thread; it may keep what only that thread needs.
    fn datagrams(self: Arc<Self>) -> Box<dyn Datagrams>
    where
        Self: Sized,
    {
        Box::new(OneByOne(self))
    }
}

/// Answers the datagrams of one thread, batch by batch.
pub trait Datagrams: Send {
    /// Begins a batch: no answer from here on is older than this moment. Called now and then while nothing comes, too.
    fn begin(&mut self);

    /// Answers a batch, whose responses are empty.
    fn respond(&mut self, batch: &mut [Datagram<'_>]);

    /// A panic ended the batch: whatever may be half done is to be thrown away.
    fn recover(&mut self) {}
}

/// Datagrams answered as any other packet.
struct OneByOne<R>(Arc<R>);

impl<R: Respond> Datagrams for OneByOne<R> {
    fn begin(&mut self) {}

    fn respond(&mut self, batch: &mut [Datagram<'_>]) {
        for Datagram { packet, from, response } in batch {
            self.0.respond(packet, *from, Transport::Udp, response);
        }
    }
}
