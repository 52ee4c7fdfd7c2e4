//! Bytes around `answer`: a packet enters, the response packet leaves; the UDP loop and the TCP handler call [`respond`] and know no DNS.

use std::net::IpAddr;

use crate::answer::{Rcode, SteeredAnswers};
use crate::zone::ServiceIndex;
use crate::zone::Zones;

/// How the packet came, which bounds the size of its response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A datagram: at most what the client offers between 512 and 1,232 octets.
    Udp,
    /// A stream: at most 65,535 octets.
    Tcp,
}

/// What became of a packet; for counters and logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is sent: the packet is a response or no DNS message.
    Dropped,
    /// `out` holds the response.
    Answered {
        /// Its response code.
        rcode: Rcode,
        /// The type asked for, if the question could be read.
        qtype: Option<u16>,
        /// Whether it was truncated.
        truncated: bool,
        /// The steered service that answered.
        service: Option<ServiceIndex>,
    },
}

/// Answers one packet. `out` is overwritten; after [`Outcome::Dropped`] it is empty.
pub fn respond(
    zones: &Zones,
    steering: &impl SteeredAnswers,
    packet: &[u8],
    from: IpAddr,
    transport: Transport,
    out: &mut Vec<u8>,
) -> Outcome {
    let _ = (zones, steering, packet, from, transport);
    out.clear();
    Outcome::Dropped
}
