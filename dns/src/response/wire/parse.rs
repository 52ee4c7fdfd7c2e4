//! Reads queries. Takes any bytes, returns a [`Request`], with a response code if it is malformed. Copies nothing.
//! Called by `wire`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::cookies::{COOKIE, Cookie};
use crate::protocol::name::NameRef;
use crate::protocol::rdata::rtype;
use crate::response::answer::{Ecs, Rcode};

/// The option code of EDNS Client Subnet (RFC 7871 §6).
pub(crate) const ECS: u16 = 8;
/// The option code of the name server identifier (RFC 5001 §2.3).
pub(super) const NSID: u16 = 3;
/// The option code of TCP keepalive (RFC 7828 §3.1).
pub(super) const KEEPALIVE: u16 = 11;
/// The option code of padding (RFC 7830 §3).
pub(super) const PADDING: u16 = 12;
/// The length of a message header, in octets.
pub(crate) const HEADER: usize = 12;

/// A query, as far as it could be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    /// The message id.
    pub(super) id: u16,
    /// The opcode.
    pub(super) opcode: u8,
    /// Recursion desired.
    pub(super) rd: bool,
    /// Checking disabled.
    pub(super) cd: bool,
    /// The question, if there is exactly one and it could be read.
    pub(super) question: Option<Question<'a>>,
    /// The content of the OPT record, if there is one.
    pub(super) edns: Option<Edns<'a>>,
    /// NOERROR if the query may be answered; otherwise the response code to send.
    pub(super) verdict: Rcode,
}

/// The question of a query.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question<'a> {
    /// The name, in the case of the query.
    pub(super) qname: NameRef<'a>,
    /// The type.
    pub(super) qtype: u16,
    /// The class.
    pub(super) qclass: u16,
}

/// The parts of an OPT record that this server reads (RFC 6891 §6.1).
#[derive(Debug, Clone, Copy)]
pub(super) struct Edns<'a> {
    /// The UDP payload that the client offers.
    pub(super) payload: u16,
    /// The DO bit.
    pub(super) dnssec_ok: bool,
    /// The CO bit (RFC 9824 §5.1).
    pub(super) compact_ok: bool,
    /// The client subnet, if there is one. A malformed subnet never gets here.
    pub(super) ecs: Option<Ecs>,
    /// Whether the client subnet has the address family 0.
    pub(super) ecs_without_family: bool,
    /// The first cookie (RFC 7873 §5.2).
    pub(super) cookie: Option<Cookie<'a>>,
    /// The client asks for the name server identifier.
    pub(super) wants_nsid: bool,
    /// The client asks for the idle timeout.
    pub(super) wants_keepalive: bool,
    /// The client pads its queries, and accepts padding.
    pub(super) wants_padding: bool,
}

/// Reads a query. `None` if no response may be sent, because the packet is a response itself, or isn't a DNS message.
pub(super) fn parse(packet: &[u8]) -> Option<Request<'_>> {
    let header = packet.first_chunk::<HEADER>()?;
    let [id_high, id_low, flags, more_flags, ..] = *header;
    if flags & 0x80 != 0 {
        return None;
    }
    let mut request = Request {
        id: u16::from_be_bytes([id_high, id_low]),
        opcode: flags >> 3 & 0x0f,
        rd: flags & 0x01 != 0,
        cd: more_flags & 0x10 != 0,
        question: None,
        edns: None,
        verdict: Rcode::NOERROR,
    };
    // For another opcode, only the header is read (RFC 8906 §3.1.4).
    request.verdict = if request.opcode == 0 {
        sections(packet, &mut request).err().unwrap_or(Rcode::NOERROR)
    } else {
        Rcode::NOTIMP
    };
    Some(request)
}

/// Reads the question and the OPT record into `request`. The error is the response code.
fn sections<'a>(packet: &'a [u8], request: &mut Request<'a>) -> Result<(), Rcode> {
    let mut reader = Reader { packet, at: 4 };
    let [questions, answers, authorities, additionals] = [reader.u16()?, reader.u16()?, reader.u16()?, reader.u16()?];
    for _ in 0..questions {
        let question = if questions == 1 { Some(reader.name()?) } else { reader.skip_name().map(|()| None)? };
        let (qtype, qclass) = (reader.u16()?, reader.u16()?);
        request.question = question.map(|qname| Question { qname, qtype, qclass });
    }
    let mut verdict = Ok(());
    for _ in 0..u32::from(answers) + u32::from(authorities) {
        if reader.record()?.rtype == rtype::OPT {
            return Err(Rcode::FORMERR);
        }
    }
    let mut opts = 0;
    for _ in 0..additionals {
        let record = reader.record()?;
        if record.rtype == rtype::OPT {
            opts += 1;
            verdict = verdict.and(read_opt(&record, request));
        }
    }
    // Two OPT records are a format error (RFC 6891 §6.1.1).
    if opts > 1 {
        return Err(Rcode::FORMERR);
    }
    // A message of an unknown EDNS version gets only this code, because other rules may apply to it (RFC 6891 §6.1.3).
    verdict?;
    // A request without a question may still ask for a cookie (RFC 7873 §5.4).
    let asks_for_cookie = questions == 0 && request.edns.is_some_and(|edns| edns.cookie.is_some());
    if questions == 1 || asks_for_cookie { Ok(()) } else { Err(Rcode::FORMERR) }
}

/// Reads the OPT record (EDNS) of a request.
fn read_opt<'a>(opt: &Record<'a>, request: &mut Request<'a>) -> Result<(), Rcode> {
    let [_, version, flags, _] = opt.ttl;
    let edns = request.edns.insert(Edns {
        payload: opt.class,
        dnssec_ok: flags & 0x80 != 0,
        compact_ok: flags & 0x40 != 0,
        ecs: None,
        ecs_without_family: false,
        cookie: None,
        wants_nsid: false,
        wants_keepalive: false,
        wants_padding: false,
    });
    if !opt.at_root {
        return Err(Rcode::FORMERR);
    }
    // The options of an unknown version aren't read (RFC 6891 §6.1.3).
    if version != 0 {
        return Err(Rcode::BADVERS);
    }
    let mut options = Reader { packet: opt.rdata, at: 0 };
    while options.at < opt.rdata.len() {
        let (code, length) = (options.u16()?, options.u16()?);
        let data = options.octets(usize::from(length))?;
        match code {
            ECS => {
                let ecs = read_ecs(data).ok_or(Rcode::FORMERR)?;
                if edns.ecs.is_none() {
                    (edns.ecs, edns.ecs_without_family) = (Some(ecs), data.starts_with(&[0, 0]));
                }
            }
            COOKIE if edns.cookie.is_none() => edns.cookie = Some(Cookie::read(data).ok_or(Rcode::FORMERR)?),
            NSID => edns.wants_nsid = true,
            KEEPALIVE => edns.wants_keepalive = true,
            PADDING => edns.wants_padding = true,
            // Unknown options are ignored (RFC 6891 §6.1.2).
            _ => {}
        }
    }
    Ok(())
}

/// Reads a client subnet. `None` if it must be answered with FORMERR (RFC 7871 §7.1.2).
///
/// Some clients (older `dig`, getdns, stubby) send family 0 without an address, to say that their address must not be
/// used. RFC 7871 requires a family there, but mentions such clients. Family 0 is accepted, because without an address
/// nothing can be misread.
pub(crate) fn read_ecs(data: &[u8]) -> Option<Ecs> {
    let (&[family_high, family_low, source, scope], prefix) = data.split_first_chunk::<4>()?;
    let (most, address) = match u16::from_be_bytes([family_high, family_low]) {
        1 => (32, IpAddr::V4(Ipv4Addr::from(padded::<4>(prefix)?))),
        2 => (128, IpAddr::V6(Ipv6Addr::from(padded::<16>(prefix)?))),
        0 if prefix.is_empty() => (0, IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        _ => return None,
    };
    let length_fits = prefix.len() == usize::from(source).div_ceil(8);
    let stray = match (source % 8, prefix.last()) {
        (0, _) | (_, None) => 0,
        (bits, Some(last)) => last << bits,
    };
    (scope == 0 && source <= most && length_fits && stray == 0).then_some(Ecs { address, source })
}

/// The octets, followed by zeros; `None` if there are more than `N`.
fn padded<const N: usize>(octets: &[u8]) -> Option<[u8; N]> {
    let mut whole = [0; N];
    whole.get_mut(..octets.len())?.copy_from_slice(octets);
    Some(whole)
}

/// The fields of a record in the query.
struct Record<'a> {
    at_root: bool,
    rtype: u16,
    class: u16,
    ttl: [u8; 4],
    rdata: &'a [u8],
}

/// A position in a packet. Reading past the end is FORMERR.
struct Reader<'a> {
    packet: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn octets(&mut self, count: usize) -> Result<&'a [u8], Rcode> {
        let octets = self.packet.get(self.at..).and_then(|rest| rest.get(..count)).ok_or(Rcode::FORMERR)?;
        self.at += count;
        Ok(octets)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Rcode> {
        self.octets(N)?.try_into().map_err(|_| Rcode::FORMERR)
    }

    fn u16(&mut self) -> Result<u16, Rcode> {
        self.array().map(u16::from_be_bytes)
    }

    /// Reads a name without compression. No name precedes the first question, so no pointer is valid there.
    fn name(&mut self) -> Result<NameRef<'a>, Rcode> {
        let rest = self.packet.get(self.at..).ok_or(Rcode::FORMERR)?;
        let name = NameRef::from_wire(rest).map_err(|_| Rcode::FORMERR)?;
        self.at += name.as_wire().len();
        Ok(name)
    }

    /// Skips a name: labels up to the root or to a pointer.
    fn skip_name(&mut self) -> Result<(), Rcode> {
        loop {
            let [length] = self.array()?;
            match length {
                0 => return Ok(()),
                1..=63 => self.octets(usize::from(length))?,
                0xc0.. => return self.octets(1).map(drop),
                _ => return Err(Rcode::FORMERR),
            };
        }
    }

    /// Reads a record. Its owner isn't read, except for whether it is the root.
    fn record(&mut self) -> Result<Record<'a>, Rcode> {
        let owner = self.at;
        self.skip_name()?;
        let at_root = self.at == owner + 1;
        let (rtype, class, ttl, length) = (self.u16()?, self.u16()?, self.array()?, self.u16()?);
        let rdata = self.octets(usize::from(length))?;
        Ok(Record { at_root, rtype, class, ttl, rdata })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc7871_7_1_2_six_malformed_client_subnets() {
        let valid = read_ecs(&[0, 1, 24, 0, 192, 0, 2]);
        assert_eq!(valid, Some(Ecs { address: "192.0.2.0".parse().expect("address"), source: 24 }));
        let nowhere = read_ecs(&[0, 2, 0, 0]);
        assert_eq!(nowhere, Some(Ecs { address: "::".parse().expect("address"), source: 0 }));
        assert_eq!(read_ecs(&[0, 0, 0, 0]).map(|ecs| ecs.source), Some(0));
        assert!(read_ecs(&[0, 1, 20, 0, 192, 0, 0x20]).is_some());
        for (case, data) in [
            ("too short", &[0, 1, 0][..]),
            ("empty", &[]),
            ("family 0 with a prefix", &[0, 0, 1, 0]),
            ("family 0 with an address", &[0, 0, 8, 0, 192]),
            ("family 0 with octets behind a prefix of 0", &[0, 0, 0, 0, 0]),
            ("family 0 with a scope", &[0, 0, 0, 1]),
            ("family 3", &[0, 3, 8, 0, 1]),
            ("scope set", &[0, 1, 24, 24, 192, 0, 2]),
            ("source above 32", &[0, 1, 33, 0, 192, 0, 2, 1, 0]),
            ("source above 128", &[0, 2, 129, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 0]),
            ("address too short", &[0, 1, 24, 0, 192, 0]),
            ("address too long", &[0, 1, 24, 0, 192, 0, 2, 0]),
            ("stray bits", &[0, 1, 20, 0, 192, 0, 0x21]),
        ] {
            assert_eq!(read_ecs(data), None, "{case}");
        }
    }
}
