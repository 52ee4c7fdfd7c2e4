//! Queries of the plainest form, which nearly all are: a packet enters, what a kept answer is found by and patched with leaves; [`super::Memo`]
//! calls it first. `None` never means that a query is bad, only that it is for the full path to judge.

use crate::answer::Ecs;
use crate::rdata::rtype;
use crate::wire::{self, ECS, HEADER, LEAST_PAYLOAD, UDP_PAYLOAD};

/// The recursion-desired bit of the third octet.
pub(super) const RD: u8 = 0x01;
/// The checking-disabled bit of the fourth octet.
pub(super) const CD: u8 = 0x10;
/// The longest name.
const NAME: usize = 255;

/// Has an OPT record.
const EDNS: u8 = 1;
/// Has the DO bit.
const DNSSEC_OK: u8 = 2;

/// What a query asks and how.
pub(super) struct Query<'p> {
    /// Where the question ends.
    pub(super) question_end: usize,
    /// How long the name is.
    name: usize,
    pub(super) qtype: u16,
    /// Of the name in lower case, type and form.
    pub(super) hash: u64,
    /// EDNS and DO.
    pub(super) form: u8,
    /// The most octets of the response.
    pub(super) limit: usize,
    /// A valid client subnet, and its whole option.
    pub(super) ecs: Option<Ecs>,
    pub(super) option: &'p [u8],
}

impl Query<'_> {
    pub(super) fn has_edns(&self) -> bool {
        self.form & EDNS != 0
    }

    pub(super) fn is_dnssec_ok(&self) -> bool {
        self.form & DNSSEC_OK != 0
    }
}

/// Where the name last read stands in lower case.
pub(super) struct Scratch([u8; NAME + 1]);

impl Scratch {
    pub(super) fn new() -> Self {
        Self([0; NAME + 1])
    }

    /// The name of `query`, which was the last one read.
    pub(super) fn name(&self, query: &Query<'_>) -> &[u8] {
        &self.0[..query.name]
    }
}

/// Reads a packet with one question of class IN and an ordinary type, no records but perhaps one OPT of version 0, in it no option but perhaps
/// one valid client subnet, and nothing behind that.
pub(super) fn read<'p>(packet: &'p [u8], scratch: &mut Scratch) -> Option<Query<'p>> {
    let header = packet.first_chunk::<HEADER>()?;
    let [_, _, flags, _, 0, 1, 0, 0, 0, 0, 0, additional @ 0..=1] = *header else { return None };
    if flags & !RD != 0 {
        return None;
    }
    let name = name_length(&packet[HEADER..])?;
    let question_end = HEADER + name + 4;
    let &[type_high, type_low, 0, 1] = packet.get(HEADER + name..question_end)? else { return None };
    let qtype = u16::from_be_bytes([type_high, type_low]);
    if !is_ordinary(qtype) {
        return None;
    }
    let mut query = Query {
        question_end,
        name,
        qtype,
        hash: 0,
        form: 0,
        limit: usize::from(LEAST_PAYLOAD),
        ecs: None,
        option: &[],
    };
    match (additional, &packet[question_end..]) {
        (0, []) => {}
        (1, opt) => read_opt(opt, &mut query)?,
        _ => return None,
    }
    let seed = u64::from(qtype) << 8 | u64::from(query.form);
    query.hash = fold(&packet[HEADER..HEADER + name], scratch, seed);
    Some(query)
}

/// The length of a name without pointers, its root label included.
fn name_length(octets: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match *octets.get(at)? {
            0 => return (at < NAME).then_some(at + 1),
            length @ 1..=63 => at += usize::from(length) + 1,
            _ => return None,
        }
    }
}

/// Types that records may have; what has another is not kept, or rare questions would take the room of frequent ones.
fn is_ordinary(qtype: u16) -> bool {
    matches!(
        qtype,
        rtype::A | rtype::AAAA | rtype::HTTPS | rtype::SVCB | rtype::TXT | rtype::CNAME | rtype::NS | rtype::SOA
    ) || matches!(qtype, rtype::MX | rtype::SRV | rtype::DS | 12 | 48 | 257)
}

/// Reads what must be an OPT record and the end.
fn read_opt<'p>(opt: &'p [u8], query: &mut Query<'p>) -> Option<()> {
    let (head, options) = opt.split_first_chunk::<11>()?;
    // Root, type 41, payload, extended response code, version 0, DO and no other flag, length.
    let [0, 0, 41, payload_high, payload_low, _, 0, dnssec_ok @ (0 | 0x80), 0, length_high, length_low] = *head else {
        return None;
    };
    if usize::from(u16::from_be_bytes([length_high, length_low])) != options.len() {
        return None;
    }
    query.form = EDNS | if dnssec_ok != 0 { DNSSEC_OK } else { 0 };
    query.limit = usize::from(u16::from_be_bytes([payload_high, payload_low]).clamp(LEAST_PAYLOAD, UDP_PAYLOAD));
    if !options.is_empty() {
        query.ecs = Some(read_ecs(options)?);
        query.option = options;
    }
    Some(())
}

/// Reads an option that must be a valid client subnet and the last.
fn read_ecs(option: &[u8]) -> Option<Ecs> {
    let (&[code_high, code_low, length_high, length_low], data) = option.split_first_chunk::<4>()?;
    let whole = usize::from(u16::from_be_bytes([length_high, length_low])) == data.len();
    if u16::from_be_bytes([code_high, code_low]) != ECS || !whole {
        return None;
    }
    wire::read_ecs(data)
}

/// Writes the name in lower case and returns a hash of it, eight octets at a time. Lengths are at most 63 and so never look like letters.
fn fold(name: &[u8], scratch: &mut Scratch, seed: u64) -> u64 {
    const STIR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut hash = seed.wrapping_mul(STIR);
    let mut stir = |word: u64| {
        hash = (hash.rotate_left(23) ^ word).wrapping_mul(STIR);
        hash ^= hash >> 29;
    };
    let (words, rest) = name.as_chunks::<8>();
    let (lower, _) = scratch.0.as_chunks_mut::<8>();
    for (word, place) in words.iter().zip(&mut *lower) {
        let word = lower_case(u64::from_le_bytes(*word));
        *place = word.to_le_bytes();
        stir(word);
    }
    if !rest.is_empty() {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        let word = lower_case(u64::from_le_bytes(last));
        lower[words.len()] = word.to_le_bytes();
        stir(word);
    }
    hash
}

/// Eight octets in lower case, all at once: bit 5 is set in those from `A` to `Z`.
fn lower_case(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x80 * ONES;
    let low = word & !HIGH;
    let from_a = low + (0x80 - b'A' as u64) * ONES;
    let beyond_z = low + (0x7f - b'Z' as u64) * ONES;
    let upper = from_a & !beyond_z & !word & HIGH;
    word | upper >> 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_octet_is_lowered_as_ascii_is_in_every_place() {
        for octet in 0..=u8::MAX {
            for at in 0..8 {
                let mut word = *b"aZ@[`{A\xc1";
                word[at] = octet;
                assert_eq!(
                    lower_case(u64::from_le_bytes(word)),
                    u64::from_le_bytes(word.map(|one| one.to_ascii_lowercase()))
                );
            }
        }
    }

    #[test]
    fn a_name_is_lowered_whole_and_its_hash_ignores_case() {
        let mut scratch = Scratch::new();
        for name in [
            &b"\x00"[..],
            b"\x01A\x00",
            b"\x07EXAMPLE\x03cOm\x00",
            b"\x3fABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGHIJK\x00",
        ] {
            let hash = fold(name, &mut scratch, 1);
            assert_eq!(scratch.0[..name.len()], name.to_ascii_lowercase());
            assert_eq!(hash, fold(&name.to_ascii_lowercase(), &mut scratch, 1));
            assert_ne!(hash, fold(name, &mut scratch, 2));
        }
    }
}
