//! Bytes around `answer`: a packet enters, the response packet leaves; the UDP loop and the TCP handler call [`respond`] and know no DNS.

mod encode;
mod parse;

use std::net::IpAddr;

use crate::answer::{Answer, Asking, Query, Rcode, SteeredAnswers, answer};
use crate::zone::{ServiceIndex, Zones};
use encode::Encoder;
use parse::Request;

/// The payload this server offers and the most it sends by UDP: fits every path (DNS flag day 2020).
pub const UDP_PAYLOAD: u16 = 1232;
/// What a client takes by UDP that says nothing, or less (RFC 1035 §4.2.1, RFC 6891 §6.2.3).
const LEAST_PAYLOAD: u16 = 512;

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
    out.clear();
    let Some(request) = parse::parse(packet) else {
        return Outcome::Dropped;
    };
    let reply = reply(zones, steering, &request, from);
    let truncated = write(&request, &reply, limit(&request, transport), out);
    Outcome::Answered {
        rcode: reply.rcode,
        qtype: request.question.map(|question| question.qtype),
        truncated,
        service: reply.service,
    }
}

/// The answer to a request, or the bare response code that its form earns.
fn reply<'a>(zones: &'a Zones, steering: &'a impl SteeredAnswers, request: &Request<'a>, from: IpAddr) -> Answer<'a> {
    let question = match (request.verdict, request.question) {
        (Rcode::NOERROR, Some(question)) => question,
        (Rcode::NOERROR, None) => return Answer::bare(Rcode::FORMERR),
        (rcode, _) => return Answer::bare(rcode),
    };
    let ecs = request.edns.and_then(|edns| edns.ecs);
    let client = Asking { transport: from, ecs };
    let query = Query { qname: question.qname, qtype: question.qtype, qclass: question.qclass, client };
    answer(zones, steering, &query)
}

/// The most octets a response may have.
fn limit(request: &Request<'_>, transport: Transport) -> usize {
    let octets = match transport {
        Transport::Tcp => u16::MAX,
        Transport::Udp => request.edns.map_or(LEAST_PAYLOAD, |edns| edns.payload.clamp(LEAST_PAYLOAD, UDP_PAYLOAD)),
    };
    usize::from(octets)
}

/// Writes the response whole, or truncated to its question when it doesn't fit: never part of an RRset (RFC 2181 §9).
fn write(request: &Request<'_>, reply: &Answer<'_>, limit: usize, out: &mut Vec<u8>) -> bool {
    let mut encoder = Encoder::new(out, request, reply);
    encoder.records(reply);
    encoder.opt(request, reply);
    let truncated = !encoder.fits(limit);
    if truncated {
        let mut encoder = Encoder::new(out, request, reply);
        encoder.truncate();
        encoder.opt(request, reply);
    }
    truncated
}

#[cfg(test)]
mod tests;
