//! Helpers of the unit tests: zones from text, queries as bytes, responses as text by a decoder that isn't ours.

pub(crate) mod signed;

use std::net::IpAddr;
use std::sync::Arc;

use bailiwick_rules::table::RegionIndex;
use hickory_proto::op::Message;
use hickory_proto::rr::{RData, Record};

use crate::protocol::name::{Name, NameRef};
use crate::protocol::rdata::{RdataSet, rtype};
use crate::response::answer::{Asking, NoSteering, SteeredAnswer, SteeredAnswers};
use crate::response::wire::{Context, Outcome, Settings, Transport, respond};
use crate::zone::{Compiled, ServiceIndex, SteeredOwner, Zone, ZoneError, file};
use crate::zones::{ServedZone, Zones};

/// A name from text.
pub(crate) fn name(text: &str) -> Name {
    text.parse().expect(text)
}

/// Compiles the zone `origin` from `text`; `$TTL 300`, an SOA (minimum 60) and an NS are put before it.
pub(crate) fn compile(origin: &str, text: &str, steered: &[SteeredOwner]) -> Result<Compiled, Vec<ZoneError>> {
    let head = "$TTL 300\n@ SOA ns.other.test. host.other.test. 1 2 3 4 60\n@ NS ns.other.test.\n";
    let origin = name(origin);
    let text = format!("{head}{text}");
    let records = file::parse(text.as_bytes(), "test.zone", &origin, &mut |_| Err("no files".into()))?;
    Zone::compile(&origin, &records, steered)
}

/// A steered owner.
pub(crate) fn steered(host: &str, service: u32, types: &[u16]) -> SteeredOwner {
    SteeredOwner { name: name(host), service: ServiceIndex(service), types: types.into() }
}

/// One zone that must compile.
pub(crate) fn zone(origin: &str, text: &str, steered: &[SteeredOwner]) -> Arc<ServedZone> {
    Arc::new(ServedZone::unsigned(compile(origin, text, steered).expect("a sound zone").zone))
}

/// One zone as a server's zones.
pub(crate) fn zones(origin: &str, text: &str) -> Zones {
    Zones::new([zone(origin, text, &[])])
}

/// Rules of fixed answers: service 0 has addresses with scope 20, service 1 a CNAME to `a.example.com` with scope 24,
/// others have nothing.
pub(crate) struct Fixed {
    address: RdataSet,
    alias: RdataSet,
}

impl Fixed {
    pub(crate) fn new() -> Self {
        Self {
            address: RdataSet::new(rtype::A, [&[192, 0, 2, 10][..]]),
            alias: RdataSet::new(rtype::CNAME, [name("a.example.com").as_wire()]),
        }
    }
}

impl SteeredAnswers for Fixed {
    fn resolve(&self, service: ServiceIndex, _: u16, _: &Asking) -> SteeredAnswer<'_> {
        match service.0 {
            0 => SteeredAnswer::Records {
                ttl: 20,
                rdatas: self.address.as_ref(),
                scope: 20,
                region: Some(RegionIndex(0)),
            },
            1 => {
                SteeredAnswer::Records { ttl: 30, rdatas: self.alias.as_ref(), scope: 24, region: Some(RegionIndex(0)) }
            }
            _ => SteeredAnswer::Nothing { scope: 16, ede: 18 },
        }
    }
}

/// A query of class IN with id 0x1234 and RD; `extra` are whole records of the additional section.
pub(crate) fn query(qname: &str, qtype: u16, extra: &[&[u8]]) -> Vec<u8> {
    let additional = u8::try_from(extra.len()).expect("few");
    let mut packet = vec![0x12, 0x34, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, additional];
    packet.extend_from_slice(name(qname).as_wire());
    packet.extend_from_slice(&qtype.to_be_bytes());
    packet.extend_from_slice(&[0, 1]);
    for record in extra {
        packet.extend_from_slice(record);
    }
    packet
}

/// An OPT record of version 0 with these options (code and data).
pub(crate) fn opt(payload: u16, options: &[(u16, &[u8])]) -> Vec<u8> {
    let mut rdata = Vec::new();
    for (code, data) in options {
        rdata.extend_from_slice(&code.to_be_bytes());
        rdata.extend_from_slice(&u16::try_from(data.len()).expect("short").to_be_bytes());
        rdata.extend_from_slice(data);
    }
    let mut record = vec![0, 0, 41];
    record.extend_from_slice(&payload.to_be_bytes());
    record.extend_from_slice(&[0, 0, 0, 0]);
    record.extend_from_slice(&u16::try_from(rdata.len()).expect("short").to_be_bytes());
    record.extend(rdata);
    record
}

/// The client of all tests.
pub(crate) const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 7));

/// The response's bytes and what became of the packet.
pub(crate) fn send(
    zones: &Zones,
    rules: &impl SteeredAnswers,
    packet: &[u8],
    transport: Transport,
) -> (Vec<u8>, Outcome) {
    let mut out = b"left over".to_vec();
    let settings = Settings::anonymous();
    let context = Context { settings: &settings, limiter: None, now: NOW };
    let outcome = respond(&context, zones, rules, packet, CLIENT, transport, &mut out);
    (out, outcome)
}

/// The time of all tests, in seconds.
pub(crate) const NOW: u32 = 1_800_000_000;

/// The response as another library decodes it.
pub(crate) fn decoded(zones: &Zones, rules: &impl SteeredAnswers, packet: &[u8], transport: Transport) -> Message {
    Message::from_vec(&send(zones, rules, packet, transport).0).expect("a well-formed response")
}

/// Response code, AA and the three sections of the answer to a question, one line each.
pub(crate) fn ask_with(zones: &Zones, rules: &impl SteeredAnswers, qname: &str, qtype: u16) -> Vec<String> {
    record_lines(&decoded(zones, rules, &query(qname, qtype, &[]), Transport::Tcp))
}

/// The same of a response.
pub(crate) fn record_lines(message: &Message) -> Vec<String> {
    let aa = if message.metadata.authoritative { " AA" } else { "" };
    let mut lines = vec![format!("{:?}{aa}", message.metadata.response_code)];
    for (sign, section) in [("", &message.answers), ("? ", &message.authorities), ("+ ", &message.additionals)] {
        lines.extend(section.iter().map(|record| format!("{sign}{}", shown(record))));
    }
    lines
}

/// A record in master-file form; the decoder doesn't know DNAME.
fn shown(record: &Record) -> String {
    match &record.data {
        RData::Unknown { code, rdata } if u16::from(*code) == rtype::DNAME => {
            let target = NameRef::from_wire(&rdata.anything).expect("a name");
            format!("{} {} IN DNAME {target}", record.name, record.ttl)
        }
        _ => record.to_string(),
    }
}

/// [`ask_with`] without rules.
pub(crate) fn ask(zones: &Zones, qname: &str, qtype: u16) -> Vec<String> {
    ask_with(zones, &NoSteering, qname, qtype)
}
