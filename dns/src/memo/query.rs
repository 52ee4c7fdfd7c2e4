//! Reads queries of a plain form, which nearly all queries have. Takes a packet, returns the query, or `None` if it has
//! another form. Called by [`super::Memo`] before anything else. A query of another form may still be valid;
//! [`super::respond`] judges it.

use crate::protocol::name::{NameRef, case};
use crate::protocol::rdata::rtype;
use crate::response::answer::Ecs;
use crate::response::wire::{self, ECS, HEADER, LEAST_PAYLOAD, UDP_PAYLOAD};

/// The recursion-desired bit of the third octet.
pub(super) const RD: u8 = 0x01;
/// The checking-disabled bit of the fourth octet.
pub(super) const CD: u8 = 0x10;

/// The octets of an OPT record without options.
const OPT: usize = 11;

/// The bit of [`Query::form`] for an OPT record.
const EDNS: u8 = 1;
/// The bit of [`Query::form`] for the DO bit.
const DNSSEC_OK: u8 = 2;

/// A query of the plain form.
pub(super) struct Query<'p> {
    /// The name, in the case of the query.
    pub(super) name: NameRef<'p>,
    pub(super) qtype: u16,
    /// The hash of name, type and form. The case of the name doesn't matter.
    pub(super) hash: u64,
    /// The bits [`EDNS`] and [`DNSSEC_OK`].
    pub(super) form: u8,
    /// The length in octets of the client subnet option with its head, which is the only option. 0 without an option.
    option: u8,
    /// The most octets of the response.
    pub(super) limit: u16,
    /// The client subnet, if there is one. It is valid.
    pub(super) ecs: Option<Ecs>,
}

impl Query<'_> {
    /// The position after the question.
    pub(super) fn question_end(&self) -> usize {
        HEADER + self.name.as_wire().len() + 4
    }

    pub(super) fn has_edns(&self) -> bool {
        self.form & EDNS != 0
    }

    /// The length of the client subnet option.
    pub(super) fn option_length(&self) -> usize {
        usize::from(self.option)
    }

    /// The length of the OPT record without options. 0 if there is none.
    pub(super) fn opt_length(&self) -> usize {
        if self.has_edns() { OPT } else { 0 }
    }

    pub(super) fn is_dnssec_ok(&self) -> bool {
        self.form & DNSSEC_OK != 0
    }
}

/// Reads a packet that has one question of class IN for an ordinary type. It may have one OPT record of version 0, with
/// at most one option, a valid client subnet. It has no other records.
#[inline]
pub(super) fn read(packet: &[u8]) -> Option<Query<'_>> {
    let (header, rest) = packet.split_first_chunk::<HEADER>()?;
    let [_, _, flags, _, 0, 1, 0, 0, 0, 0, 0, additional @ 0..=1] = *header else { return None };
    if flags & !RD != 0 {
        return None;
    }
    let name = NameRef::from_wire(rest).ok()?;
    let (&[type_high, type_low, 0, 1], rest) = rest[name.as_wire().len()..].split_first_chunk::<4>()? else {
        return None;
    };
    let qtype = u16::from_be_bytes([type_high, type_low]);
    if !is_ordinary(qtype) {
        return None;
    }
    let mut query = Query { name, qtype, hash: 0, form: 0, option: 0, limit: LEAST_PAYLOAD, ecs: None };
    match (additional, rest) {
        (0, []) => {}
        (1, opt) => read_opt(opt, &mut query)?,
        _ => return None,
    }
    query.hash = case::hash(name.as_wire(), u64::from(qtype) << 16 | u64::from(query.form) << 8);
    Some(query)
}

/// Whether the type is a common one. Answers for rare types aren't kept, so that they don't replace answers to frequent
/// queries.
#[inline]
fn is_ordinary(qtype: u16) -> bool {
    matches!(
        qtype,
        rtype::A | rtype::AAAA | rtype::HTTPS | rtype::SVCB | rtype::TXT | rtype::CNAME | rtype::NS | rtype::SOA
    ) || matches!(qtype, rtype::MX | rtype::SRV | rtype::DS | 12 | 48 | rtype::CAA)
}

/// Reads an OPT record that ends the packet.
#[inline]
fn read_opt(opt: &[u8], query: &mut Query<'_>) -> Option<()> {
    let (head, options) = opt.split_first_chunk::<OPT>()?;
    // Root, type 41, payload, extended response code, version 0, DO and no other flag, length.
    let [0, 0, 41, payload_high, payload_low, _, 0, dnssec_ok @ (0 | 0x80), 0, length_high, length_low] = *head else {
        return None;
    };
    if usize::from(u16::from_be_bytes([length_high, length_low])) != options.len() {
        return None;
    }
    query.form = EDNS | if dnssec_ok != 0 { DNSSEC_OK } else { 0 };
    query.limit = u16::from_be_bytes([payload_high, payload_low]).clamp(LEAST_PAYLOAD, UDP_PAYLOAD);
    if !options.is_empty() {
        query.ecs = Some(read_ecs(options)?);
        query.option = u8::try_from(options.len()).ok()?;
    }
    Some(())
}

/// Reads a valid client subnet that is the last option.
fn read_ecs(option: &[u8]) -> Option<Ecs> {
    let (&[code_high, code_low, length_high, length_low], data) = option.split_first_chunk::<4>()?;
    let whole = usize::from(u16::from_be_bytes([length_high, length_low])) == data.len();
    if u16::from_be_bytes([code_high, code_low]) != ECS || !whole {
        return None;
    }
    wire::read_ecs(data)
}
