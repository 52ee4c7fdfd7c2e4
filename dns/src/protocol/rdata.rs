//! Record data (rdata) in wire format. Takes single rdatas, returns the packed set of an RRset. Also holds the numbers
//! of record types, and the layout of types whose rdata holds names. Used by zones, answers and the encoder.

use std::borrow::Cow;

use smallvec::SmallVec;

use crate::protocol::name::NameRef;

/// The numbers of the record and query types that this server treats specially.
pub mod rtype {
    #![allow(missing_docs)] // the names are the registry's
    pub const A: u16 = 1;
    pub const NS: u16 = 2;
    pub const CNAME: u16 = 5;
    pub const SOA: u16 = 6;
    pub const MX: u16 = 15;
    pub const TXT: u16 = 16;
    pub const AAAA: u16 = 28;
    pub const SRV: u16 = 33;
    pub const DNAME: u16 = 39;
    pub const OPT: u16 = 41;
    pub const DS: u16 = 43;
    pub const RRSIG: u16 = 46;
    pub const NSEC: u16 = 47;
    pub const DNSKEY: u16 = 48;
    pub const NSEC3: u16 = 50;
    pub const NSEC3PARAM: u16 = 51;
    pub const CDS: u16 = 59;
    pub const CDNSKEY: u16 = 60;
    pub const SVCB: u16 = 64;
    pub const HTTPS: u16 = 65;
    pub const NXNAME: u16 = 128;
    pub const TKEY: u16 = 249;
    pub const TSIG: u16 = 250;
    pub const IXFR: u16 = 251;
    pub const AXFR: u16 = 252;
    pub const MAILB: u16 = 253;
    pub const MAILA: u16 = 254;
    pub const ANY: u16 = 255;
    pub const CAA: u16 = 257;
}

/// The record data of one RRset (the records of one owner and type) in one piece of memory: without duplicates, in
/// canonical order (RFC 4034 §6.3), each rdata after its length in two octets.
#[derive(Clone, PartialEq, Eq)]
pub struct RdataSet(SmallVec<[u8; SHORT]>);

/// How many octets of data an [`RdataSet`] holds without an allocation: one or two addresses, as in most RRsets.
const SHORT: usize = 16;

/// A borrowed [`RdataSet`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Rdatas<'a>(&'a [u8]);

impl RdataSet {
    /// Packs `rdatas` of one type; sorts them and drops duplicates (RFC 2181 §5). Rdatas of more than 65,535 octets are
    /// dropped, because no packet can hold them.
    pub fn new<'a>(rtype: u16, rdatas: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut sorted: Vec<(Cow<'a, [u8]>, &[u8])> =
            rdatas.into_iter().map(|rdata| (canonical(rtype, rdata), rdata)).collect();
        sorted.sort_unstable();
        sorted.dedup_by(|a, b| a.0 == b.0);
        let mut packed = Vec::with_capacity(sorted.iter().map(|(_, rdata)| rdata.len() + 2).sum());
        for (_, rdata) in sorted {
            if let Ok(length) = u16::try_from(rdata.len()) {
                packed.extend_from_slice(&length.to_be_bytes());
                packed.extend_from_slice(rdata);
            }
        }
        Self(SmallVec::from_slice(&packed))
    }

    /// Borrows the set.
    pub fn as_ref(&self) -> Rdatas<'_> {
        Rdatas(&self.0)
    }

    /// The packed octets. [`Rdatas::of_packed`] reads them.
    pub(crate) fn into_packed(self) -> Box<[u8]> {
        self.0.into_boxed_slice()
    }
}

impl<'a> Rdatas<'a> {
    /// No record data.
    pub const EMPTY: Rdatas<'static> = Rdatas(&[]);

    /// Reads octets that [`RdataSet::into_packed`] returned.
    pub(crate) fn of_packed(packed: &'a [u8]) -> Self {
        Self(packed)
    }

    /// An owned copy.
    pub(crate) fn to_set(self) -> RdataSet {
        RdataSet(SmallVec::from_slice(self.0))
    }

    /// The rdatas in canonical order.
    pub fn iter(self) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (length, tail) = rest.split_first_chunk::<2>()?;
            let (rdata, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
            rest = tail;
            Some(rdata)
        })
    }

    /// The first rdata, if there is one.
    pub fn first(self) -> Option<&'a [u8]> {
        self.iter().next()
    }

    /// Whether there is no rdata.
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Debug for RdataSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_ref().fmt(f)
    }
}

impl std::fmt::Debug for Rdatas<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// A field in the layout of an rdata.
#[derive(Clone, Copy)]
enum Field {
    /// A fixed number of octets.
    Octets(usize),
    /// A domain name.
    Name,
    /// A character-string: a length octet and that many octets.
    Text,
    /// The octets up to the end.
    Rest,
}

/// One piece of an rdata.
#[derive(Debug, Clone, Copy)]
pub(crate) enum RdataPart<'a> {
    /// Octets to copy.
    Octets(&'a [u8]),
    /// A name.
    Name(NameRef<'a>),
}

/// The layout of a type whose rdata holds names, and whether these names may be compressed. Only names in types of
/// RFC 1035 may be (RFC 3597 §4). `None` for types without names.
fn layout(rtype: u16) -> Option<(&'static [Field], bool)> {
    use Field::{Name, Octets, Rest, Text};
    Some(match rtype {
        // NS, MD, MF, CNAME, MB, MG, MR, PTR
        2..=5 | 7..=9 | 12 => (&[Name], true),
        rtype::SOA => (&[Name, Name, Octets(20)], true),
        14 => (&[Name, Name], true), // MINFO
        rtype::MX => (&[Octets(2), Name], true),
        17 => (&[Name, Name], false),                // RP
        18 | 21 | 36 => (&[Octets(2), Name], false), // AFSDB, RT, KX
        24 | rtype::RRSIG => (&[Octets(18), Name, Rest], false),
        26 => (&[Octets(2), Name, Name], false), // PX
        30 => (&[Name, Rest], false),            // NXT
        rtype::SRV => (&[Octets(6), Name], false),
        35 => (&[Octets(4), Text, Text, Text, Name], false), // NAPTR
        rtype::DNAME => (&[Name], false),
        rtype::NSEC => (&[Name, Rest], false),
        rtype::SVCB | rtype::HTTPS => (&[Octets(2), Name, Rest], false),
        _ => return None,
    })
}

/// Calls `part` with each piece of an rdata, in order. Returns false if the rdata doesn't have the layout of its type.
pub(crate) fn parts<'a>(rtype: u16, rdata: &'a [u8], mut part: impl FnMut(RdataPart<'a>)) -> bool {
    let Some((fields, _)) = layout(rtype) else {
        part(RdataPart::Octets(rdata));
        return true;
    };
    let mut rest = rdata;
    for field in fields {
        let length = match *field {
            Field::Octets(length) => length,
            Field::Text => match rest.first() {
                Some(&length) => usize::from(length) + 1,
                None => return false,
            },
            Field::Rest => rest.len(),
            Field::Name => match NameRef::from_wire(rest) {
                Ok(name) => {
                    part(RdataPart::Name(name));
                    rest = &rest[name.as_wire().len()..];
                    continue;
                }
                Err(_) => return false,
            },
        };
        let Some((octets, tail)) = rest.split_at_checked(length) else {
            return false;
        };
        part(RdataPart::Octets(octets));
        rest = tail;
    }
    rest.is_empty()
}

/// Whether names inside rdata of this type may be compressed.
pub(crate) fn compressible(rtype: u16) -> bool {
    layout(rtype).is_some_and(|(_, compressible)| compressible)
}

/// Whether an rdata has the form of its type, as far as this server relies on the form.
pub fn is_well_formed(rtype: u16, rdata: &[u8]) -> bool {
    match rtype {
        rtype::A => rdata.len() == 4,
        rtype::AAAA => rdata.len() == 16,
        rtype::TXT => {
            let mut rest = rdata;
            while let Some((&length, tail)) = rest.split_first() {
                let Some(tail) = tail.get(usize::from(length)..) else {
                    return false;
                };
                rest = tail;
            }
            !rdata.is_empty()
        }
        _ => rdata.len() <= usize::from(u16::MAX) && parts(rtype, rdata, |_| ()),
    }
}

/// The canonical form of an rdata: names are in lower case (RFC 4034 §6.2), except in NSEC and newer types (RFC 6840
/// §5.1).
pub(crate) fn canonical(rtype: u16, rdata: &[u8]) -> Cow<'_, [u8]> {
    if layout(rtype).is_none() || matches!(rtype, rtype::NSEC | rtype::SVCB | rtype::HTTPS) {
        return Cow::Borrowed(rdata);
    }
    let mut lower = Vec::with_capacity(rdata.len());
    let whole = parts(rtype, rdata, |part| match part {
        RdataPart::Octets(octets) => lower.extend_from_slice(octets),
        RdataPart::Name(name) => lower.extend(name.as_wire().iter().map(u8::to_ascii_lowercase)),
    });
    if whole { Cow::Owned(lower) } else { Cow::Borrowed(rdata) }
}

/// The name to which an rdata points: the whole rdata of CNAME, DNAME and NS, or a part of it in MX, SRV, SVCB and
/// HTTPS. `None` for other types.
pub fn target(rtype: u16, rdata: &[u8]) -> Option<NameRef<'_>> {
    let at = match rtype {
        rtype::NS | rtype::CNAME | rtype::DNAME => 0,
        rtype::MX | rtype::SVCB | rtype::HTTPS => 2,
        rtype::SRV => 6,
        _ => return None,
    };
    NameRef::from_wire(rdata.get(at..)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc2181_5_duplicates_are_dropped_and_the_order_is_canonical() {
        let set = RdataSet::new(rtype::A, [&[2, 0, 0, 1][..], &[1, 0, 0, 1], &[2, 0, 0, 1]]);
        assert_eq!(set.as_ref().iter().collect::<Vec<_>>(), [[1, 0, 0, 1], [2, 0, 0, 1]]);
    }

    #[test]
    fn rfc4034_6_2_names_in_rdata_compare_without_case() {
        let set = RdataSet::new(rtype::NS, [&b"\x01B\x00"[..], b"\x01a\x00", b"\x01b\x00"]);
        assert_eq!(set.as_ref().iter().count(), 2);
        assert_eq!(set.as_ref().first(), Some(&b"\x01a\x00"[..]));
    }

    #[test]
    fn malformed_rdata_is_recognised() {
        assert!(is_well_formed(rtype::CNAME, b"\x01a\x00"));
        assert!(!is_well_formed(rtype::CNAME, b"\x01a\x00\x00"));
        assert!(!is_well_formed(rtype::CNAME, b"\xc0\x0c"));
        assert!(!is_well_formed(rtype::A, &[1, 2, 3]));
        assert!(is_well_formed(rtype::TXT, b"\x01a\x00"));
        assert!(!is_well_formed(rtype::TXT, b"\x02a"));
        assert!(is_well_formed(65_280, b"anything"));
    }
}
