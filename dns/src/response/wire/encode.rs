//! Encodes responses. Takes a request and its answer, writes a message with compressed names into a buffer that the
//! caller reuses. Called by `wire`.

use std::net::IpAddr;

use super::Options;
use super::UDP_PAYLOAD;
use super::cookies::COOKIE;
use super::parse::{ECS, HEADER, KEEPALIVE, NSID, PADDING, Request};
use crate::protocol::name::NameRef;
use crate::protocol::rdata::{RdataPart, compressible, parts, rtype};
use crate::response::answer::identity::CHAOS;
use crate::response::answer::{Answer, AnswerSet};

/// The option code of extended errors (RFC 8914 §2).
const EDE: u16 = 15;
/// The truncation bit in the third octet.
pub(crate) const TC: u8 = 0x02;
/// Padded responses have a multiple of this length (RFC 8467 §4.1).
const BLOCK: usize = 468;
/// The octets of an option before its data.
const OPTION_HEAD: usize = 4;
/// How many positions of names are remembered as targets of compression pointers.
const PLACES: usize = 64;

/// A response that is being written.
pub(super) struct Encoder<'o> {
    out: &'o mut Vec<u8>,
    /// The positions of labels to which later names may point.
    places: [u16; PLACES],
    /// How many of these positions are in use.
    places_used: usize,
    /// Where the question's name ends. In the question's name, case is ignored, so that owners can point to it. Other
    /// names are shared only if their octets are equal, so that the case of the zone's names is kept.
    question_end: usize,
    /// Whether there are too many records, or one is too long to be encoded.
    overflow: bool,
    /// The class of every record: CH for a question of class CH, otherwise IN.
    class: u16,
}

impl<'o> Encoder<'o> {
    /// Clears `out`, and writes the header and the question.
    pub(super) fn new(out: &'o mut Vec<u8>, request: &Request<'_>, answer: &Answer<'_>) -> Self {
        out.clear();
        let [low, _] = answer.rcode.0.to_le_bytes();
        let flags = 0x80 | request.opcode << 3 | u8::from(answer.authoritative) << 2 | u8::from(request.rd);
        let more_flags = u8::from(request.cd) << 4 | low & 0x0f;
        out.extend_from_slice(&request.id.to_be_bytes());
        out.extend_from_slice(&[flags, more_flags]);
        out.extend_from_slice(&[0, u8::from(request.question.is_some()), 0, 0, 0, 0, 0, 0]);
        let class = request.question.map_or(1, |question| if question.qclass == CHAOS { CHAOS } else { 1 });
        let mut encoder =
            Self { out, places: [0; PLACES], places_used: 0, question_end: HEADER, overflow: false, class };
        if let Some(question) = request.question {
            encoder.name(question.qname, false);
            encoder.question_end = encoder.out.len();
            encoder.u16(question.qtype);
            encoder.u16(question.qclass);
        }
        encoder
    }

    /// Writes the three sections.
    pub(super) fn records(&mut self, answer: &Answer<'_>) {
        for (section, sets) in [&answer.answer[..], &answer.authority, &answer.additional].into_iter().enumerate() {
            let mut count = 0_usize;
            for set in sets {
                count += self.set(set);
            }
            self.count(3 + section, count);
        }
    }

    /// Marks the message as truncated.
    pub(super) fn truncate(&mut self) {
        self.out[2] |= TC;
    }

    /// Whether the whole message has at most `limit` octets.
    pub(super) fn fits(&self, limit: usize) -> bool {
        !self.overflow && self.out.len() <= limit
    }

    /// Writes the OPT record if the request had one (RFC 6891 §7). It is always the last record. The order of its
    /// options is ECS, NSID, COOKIE, keepalive, EDE, padding. Padding doesn't extend the message beyond `limit` octets.
    pub(super) fn opt(&mut self, request: &Request<'_>, answer: &Answer<'_>, options: &Options<'_>, limit: usize) {
        let Some(edns) = request.edns else { return };
        let [_, extended_rcode] = (answer.rcode.0 << 4).to_le_bytes();
        self.out.push(0);
        self.u16(rtype::OPT);
        self.u16(UDP_PAYLOAD);
        let flags = u8::from(edns.dnssec_ok) << 7 | u8::from(answer.compact_ok) << 6;
        self.out.extend_from_slice(&[extended_rcode, 0, flags, 0]);
        let length = self.open();
        if let Some(ecs) = edns.ecs {
            let octets = usize::from(ecs.source).div_ceil(8);
            // A client that hides its address gets the scope 0 (RFC 7871 §7.2.1).
            let scope = if ecs.source == 0 { 0 } else { answer.scope };
            self.u16(ECS);
            match ecs.address {
                // Family, prefix length and address are those of the query (RFC 7871 §7.2.1).
                _ if edns.ecs_without_family => self.subnet(0, 0, 0, &[]),
                IpAddr::V4(address) => self.subnet(1, ecs.source, scope, &address.octets()[..octets]),
                IpAddr::V6(address) => self.subnet(2, ecs.source, scope, &address.octets()[..octets]),
            }
        }
        if let Some(nsid) = options.nsid {
            self.option(NSID, nsid);
        }
        if let Some(cookie) = &options.cookie {
            self.option(COOKIE, cookie);
        }
        if let Some(idle) = options.keepalive {
            self.option(KEEPALIVE, &idle.to_be_bytes());
        }
        if let Some(code) = answer.ede {
            self.option(EDE, &code.to_be_bytes());
        }
        if options.padding {
            let bare = self.out.len() + OPTION_HEAD;
            let wanted = bare.next_multiple_of(BLOCK).min(limit).saturating_sub(bare);
            self.u16(PADDING);
            let padding = self.open();
            self.out.resize(self.out.len() + wanted, 0);
            self.close(padding);
        }
        self.close(length);
        let additional = u16::from_be_bytes([self.out[10], self.out[11]]);
        self.count(5, usize::from(additional) + 1);
    }

    /// Writes an EDNS option.
    fn option(&mut self, code: u16, data: &[u8]) {
        self.u16(code);
        let length = self.open();
        self.out.extend_from_slice(data);
        self.close(length);
    }

    /// Writes the rest of an ECS option: the client's subnet, and the scope for which the answer is valid.
    fn subnet(&mut self, family: u16, source: u8, scope: u8, prefix: &[u8]) {
        let length = self.open();
        self.u16(family);
        self.out.extend_from_slice(&[source, scope]);
        self.out.extend_from_slice(prefix);
        self.close(length);
    }

    /// Writes one RRset and its signatures. Returns the number of records.
    fn set(&mut self, set: &AnswerSet<'_>) -> usize {
        let data = set.data.iter().map(|rdata| (set.rtype, rdata));
        let signatures = set.signed.rdatas().iter().map(|rdata| (rtype::RRSIG, rdata));
        let mut count = 0;
        for (rtype, rdata) in data.chain(signatures) {
            self.name(set.owner.name(), true);
            self.u16(rtype);
            self.u16(self.class);
            self.out.extend_from_slice(&set.ttl.to_be_bytes());
            let length = self.open();
            self.rdata(rtype, rdata);
            self.close(length);
            count += 1;
        }
        count
    }

    /// Writes an rdata. Its names are compressed if RFC 3597 §4 allows it.
    fn rdata(&mut self, rtype: u16, rdata: &[u8]) {
        if !compressible(rtype) {
            self.out.extend_from_slice(rdata);
            return;
        }
        let start = self.out.len();
        let known = self.places_used;
        let whole = parts(rtype, rdata, |part| match part {
            RdataPart::Octets(octets) => self.out.extend_from_slice(octets),
            RdataPart::Name(name) => self.name(name, true),
        });
        if !whole {
            self.out.truncate(start);
            self.places_used = known;
            self.out.extend_from_slice(rdata);
        }
    }

    /// Writes a name. With `compress`, it ends with a pointer to the longest suffix that was already written.
    fn name(&mut self, name: NameRef<'_>, compress: bool) {
        let whole = self.places_used; // the name itself isn't complete yet, so it can't be a target
        let mut rest = name;
        while let Some(parent) = rest.parent() {
            if compress
                && let Some(place) =
                    self.places[..whole].iter().copied().find(|&place| self.is_name_at(usize::from(place), rest))
            {
                self.u16(0xc000 | place);
                return;
            }
            if let Ok(place @ 0..0x4000) = u16::try_from(self.out.len())
                && self.places_used < PLACES
            {
                self.places[self.places_used] = place;
                self.places_used += 1;
            }
            let label = &rest.as_wire()[..=usize::from(rest.as_wire()[0])];
            self.out.extend_from_slice(label);
            rest = parent;
        }
        self.out.push(0);
    }

    /// Whether the name that was written at `at` equals `name`.
    fn is_name_at(&self, mut at: usize, name: NameRef<'_>) -> bool {
        let mut rest = name.as_wire();
        loop {
            let length = self.out[at];
            if length >= 0xc0 {
                at = usize::from(u16::from_be_bytes([length & 0x3f, self.out[at + 1]]));
                continue;
            }
            let label = at..=at + usize::from(length);
            let Some((wanted, tail)) = rest.split_at_checked(label.end() - at + 1) else {
                return false;
            };
            let written = &self.out[label];
            let same = if at < self.question_end { written.eq_ignore_ascii_case(wanted) } else { written == wanted };
            if !same || length == 0 {
                return same;
            }
            at += wanted.len();
            rest = tail;
        }
    }

    fn u16(&mut self, value: u16) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    /// Leaves room for a length. Returns the position after it.
    fn open(&mut self) -> usize {
        self.u16(0);
        self.out.len()
    }

    /// Fills in the length of the octets that were written since `open`.
    fn close(&mut self, start: usize) {
        match u16::try_from(self.out.len() - start) {
            Ok(length) => self.out[start - 2..start].copy_from_slice(&length.to_be_bytes()),
            Err(_) => self.overflow = true,
        }
    }

    /// Fills in a count of the header: 2 questions, 3 answers, 4 authorities, 5 additionals.
    fn count(&mut self, field: usize, count: usize) {
        match u16::try_from(count) {
            Ok(count) => self.out[field * 2..field * 2 + 2].copy_from_slice(&count.to_be_bytes()),
            Err(_) => self.overflow = true,
        }
    }
}
