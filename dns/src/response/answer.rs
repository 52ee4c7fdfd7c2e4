//! The semantics of DNS. Takes zones, the source of steered answers (which depend on the client) and one parsed query,
//! returns the records and flags of the answer. Called by `wire`, which writes the bytes.
//!
//! This module uses no socket, no clock and no packet. See [`answer`].

mod dnssec;
pub mod identity;
mod walk;

use std::net::IpAddr;

use bailiwick_rules::table::RegionIndex;
use smallvec::SmallVec;

pub use self::dnssec::{Dnssec, Signed};
use crate::dnssec::sign::Signatures;
use crate::protocol::name::{Name, NameRef};
use crate::protocol::rdata::{Rdatas, rtype};
use crate::zone::ServiceIndex;
use crate::zones::Zones;

/// The client of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asking {
    /// The source address of the packet or connection.
    pub transport: IpAddr,
    /// The EDNS Client Subnet option, if the query had one.
    pub ecs: Option<Ecs>,
}

/// A valid EDNS Client Subnet option of a query (RFC 7871 §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ecs {
    /// The address; the bits after the prefix are zero.
    pub address: IpAddr,
    /// How many leading bits of the address are known. With 0 the client wants to be located by the transport address
    /// only.
    pub source: u8,
}

/// The origin under which a steered answer is counted: the client's country, and whether the resolver sent the client's
/// subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Origin(u16);

impl Origin {
    /// The number of origins.
    pub(crate) const COUNT: usize = 512;

    /// The origin of clients that a thread had no counter left for. No country has its number.
    pub(crate) const UNCOUNTED: Self = Self(u8::MAX as u16 * 2);

    /// The origin of a client in the country with this number; 0 if the client's place is unknown.
    #[must_use]
    pub(crate) fn new(country: u8, has_subnet: bool) -> Self {
        Self(u16::from(country) << 1 | u16::from(has_subnet))
    }

    /// All origins, in order.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..=u8::MAX).flat_map(|country| [false, true].map(|has_subnet| Self::new(country, has_subnet)))
    }

    /// The origin as an array index below [`Origin::COUNT`].
    #[must_use]
    pub(crate) fn get(self) -> usize {
        usize::from(self.0)
    }

    /// The country's number.
    #[must_use]
    pub(crate) fn country(self) -> u8 {
        (self.0 >> 1).to_le_bytes()[0]
    }

    /// Whether the client's resolver sent the client's subnet.
    #[must_use]
    pub(crate) fn has_subnet(self) -> bool {
        self.0 & 1 == 1
    }
}

/// The answer of the rules at a steered name, which is a name whose records depend on the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SteeredAnswer<'a> {
    /// The chosen region's RRset.
    Records {
        /// Time to live in seconds.
        ttl: u32,
        /// The data.
        rdatas: Rdatas<'a>,
        /// The length of the client's prefix to which this answer applies.
        scope: u8,
        /// The region that publishes the records; `None` for the service's `denied_answers`.
        region: Option<RegionIndex>,
    },
    /// No records may be answered, so the response is SERVFAIL.
    Nothing {
        /// The length of the client's prefix to which this answer applies.
        scope: u8,
        /// The extended error (RFC 8914): 18 if no region may process the client, 14 if every region that may is
        /// withheld.
        ede: u16,
    },
}

/// The source of answers at steered names.
pub trait SteeredAnswers {
    /// The answer for this client at a steered name of `service`, for one of its types.
    fn resolve(&self, service: ServiceIndex, rtype: u16, client: &Asking) -> SteeredAnswer<'_>;

    /// The origin under which the answer is counted.
    fn origin_of(&self, _service: ServiceIndex, _client: &Asking) -> Origin {
        Origin::default()
    }
}

/// Answers without rules, for servers of static zones and for tests.
#[derive(Debug, Clone, Copy)]
pub struct NoSteering;

impl SteeredAnswers for NoSteering {
    fn resolve(&self, _: ServiceIndex, _: u16, _: &Asking) -> SteeredAnswer<'_> {
        SteeredAnswer::Nothing { scope: 0, ede: 14 }
    }
}

/// A query: the question and its client.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// The queried name, as the client spelled it.
    pub qname: NameRef<'a>,
    /// The queried type.
    pub qtype: u16,
    /// The queried class.
    pub qclass: u16,
    /// The client.
    pub client: Asking,
    /// The DNSSEC flags of the query.
    pub dnssec: Dnssec,
    /// Whether the response has authority and additional sections.
    pub responses: Responses,
}

/// Whether positive answers have more than the answer section. Referrals, negative answers and proofs are complete in
/// both cases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Responses {
    /// Neither an authority nor an additional section.
    #[default]
    Minimal,
    /// The zone's servers in the authority section, and addresses of the hosts that the answer names in the additional
    /// section (RFC 1034 §4.3.2 step 6).
    Full,
}

/// A response code, extended ones included (RFC 6895 §2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rcode(pub u16);

impl Rcode {
    /// No error.
    pub const NOERROR: Self = Self(0);
    /// The query is malformed.
    pub const FORMERR: Self = Self(1);
    /// The server can't answer.
    pub const SERVFAIL: Self = Self(2);
    /// The name doesn't exist.
    pub const NXDOMAIN: Self = Self(3);
    /// The server doesn't know this kind of query.
    pub const NOTIMP: Self = Self(4);
    /// The server won't answer.
    pub const REFUSED: Self = Self(5);
    /// A DNAME made the name too long (RFC 6672 §2.2).
    pub const YXDOMAIN: Self = Self(6);
    /// Unknown EDNS version (RFC 6891 §6.1.3).
    pub const BADVERS: Self = Self(16);
    /// The server cookie is bad or missing (RFC 7873 §8).
    pub const BADCOOKIE: Self = Self(23);
}

/// The owner of an RRset in an answer.
#[derive(Debug, Clone)]
pub enum Owner<'a> {
    /// Borrowed from the query, a zone or the rules.
    Ref(NameRef<'a>),
    /// Made by a DNAME.
    Made(Name),
}

impl<'a> Owner<'a> {
    /// The name.
    pub fn name(&self) -> NameRef<'_> {
        match self {
            Self::Ref(name) => *name,
            Self::Made(name) => name.as_ref(),
        }
    }

    /// The name without its first `count` labels.
    fn ancestor(&self, count: usize) -> Self {
        fn strip(name: NameRef<'_>, count: usize) -> NameRef<'_> {
            (0..count).fold(name, |name, _| name.parent().unwrap_or(NameRef::ROOT))
        }
        match self {
            Self::Ref(name) => Self::Ref(strip(*name, count)),
            Self::Made(name) => Self::Made(strip(name.as_ref(), count).to_name()),
        }
    }
}

/// The data of an RRset in an answer.
#[derive(Debug, Clone)]
pub enum Data<'a> {
    /// From a zone or the rules.
    Stored(Rdatas<'a>),
    /// The target of a CNAME made by a DNAME.
    Made(Name),
    /// One NSEC.
    Nsec(Box<[u8]>),
    /// RRSIGs that were made for a query whose type is RRSIG.
    Rrsigs(Signatures),
}

impl Data<'_> {
    /// The rdatas in wire format.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let (stored, synthesised) = match self {
            Self::Stored(rdatas) => (*rdatas, None),
            Self::Made(name) => (Rdatas::EMPTY, Some(name.as_wire())),
            Self::Nsec(rdata) => (Rdatas::EMPTY, Some(&**rdata)),
            Self::Rrsigs(signatures) => (signatures.rdatas(), None),
        };
        stored.iter().chain(synthesised)
    }
}

/// One RRset of an answer.
#[derive(Debug, Clone)]
pub struct AnswerSet<'a> {
    /// The owner.
    pub owner: Owner<'a>,
    /// The type.
    pub rtype: u16,
    /// Time to live in seconds.
    pub ttl: u32,
    /// The data.
    pub data: Data<'a>,
    /// The RRSIGs of the RRset. They are sent right after it, with its TTL.
    pub signed: Signed<'a>,
}

impl AnswerSet<'_> {
    /// Whether this is the RRset of that type and owner.
    fn is(&self, rtype: u16, owner: NameRef<'_>) -> bool {
        self.rtype == rtype && self.owner.name() == owner
    }
}

/// One section of an answer. Up to `INLINE` RRsets, which most answers don't exceed, need no allocation.
pub type Section<'a, const INLINE: usize> = SmallVec<[AnswerSet<'a>; INLINE]>;

/// An answer, before it is encoded.
#[derive(Debug, Clone)]
pub struct Answer<'a> {
    /// The response code.
    pub rcode: Rcode,
    /// The AA bit.
    pub authoritative: bool,
    /// The answer section.
    pub answer: Section<'a, 2>,
    /// The authority section.
    pub authority: Section<'a, 2>,
    /// The additional section without OPT.
    pub additional: Section<'a, 4>,
    /// The prefix length around the client's address to which the answer applies (RFC 7871 §7.2.1); 0 if the answer
    /// doesn't depend on the client.
    pub scope: u8,
    /// An extended error code (RFC 8914).
    pub ede: Option<u16>,
    /// The first steered service from which the answer has records.
    pub service: Option<ServiceIndex>,
    /// The region whose records the last steered service gave; `None` for `denied_answers`, and if there are no
    /// records.
    pub region: Option<RegionIndex>,
    /// The origin under which a steered answer is counted.
    pub origin: Origin,
    /// The time, in seconds since 1970, from which a signature in the answer must not be served any more; `None` for an
    /// answer without signatures.
    pub until: Option<u32>,
    /// Whether the zone is signed and the client knows compact denial (RFC 9824 §5.1). Then the CO bit is set, and the
    /// response code of a missing name is NXDOMAIN, as without DNSSEC.
    pub compact_ok: bool,
    /// Whether to send the answer truncated even if it is small, so that the client asks again over a stream.
    pub truncated: bool,
    /// Whether the answer may be kept for later queries: the queried name exists by itself and not by a wildcard, and
    /// at most one service was asked. The number of such answers is limited by the numbers of names, types and classes
    /// of clients.
    pub keepable: bool,
}

impl<'a> Answer<'a> {
    /// The RRsets of answer and authority.
    pub(crate) fn sets(&self) -> impl Iterator<Item = &AnswerSet<'a>> {
        self.answer.iter().chain(&self.authority)
    }

    /// An answer without records.
    pub fn bare(rcode: Rcode) -> Self {
        Self {
            rcode,
            authoritative: false,
            answer: Section::new(),
            authority: Section::new(),
            additional: Section::new(),
            scope: 0,
            ede: None,
            service: None,
            region: None,
            origin: Origin::default(),
            until: None,
            compact_ok: false,
            truncated: false,
            keepable: false,
        }
    }
}

/// Class IN.
const IN: u16 = 1;
/// The extended error for names outside every zone: Not Authoritative (RFC 8914 §4.21).
const NOT_AUTHORITATIVE: u16 = 20;

/// The extended error for names of a zone that couldn't be read yet: Not Ready (RFC 8914 §4.15).
const NOT_READY: u16 = 14;
/// The extended error for transfers, which this server doesn't offer: Not Supported (RFC 8914 §4.22).
const NOT_SUPPORTED: u16 = 21;

/// The extended error for a question for NXNAME: Invalid Query Type (RFC 9824 §3.5).
const INVALID_QUERY_TYPE: u16 = 30;

/// Answers a query from the zones and the rules.
pub fn answer<'a>(zones: &'a Zones, steering: &'a impl SteeredAnswers, query: &Query<'a>) -> Answer<'a> {
    if let Some(rcode) = refusal(query) {
        let ede = match query.qtype {
            rtype::AXFR | rtype::IXFR => Some(NOT_SUPPORTED),
            rtype::NXNAME => Some(INVALID_QUERY_TYPE),
            _ => None,
        };
        return Answer { ede, ..Answer::bare(rcode) };
    }
    let enclosing_zone = zones.find(query.qname, query.qtype);
    if !zones.missing().is_empty() && zones.is_missing(query.qname, query.qtype, enclosing_zone) {
        return Answer { ede: Some(NOT_READY), ..Answer::bare(Rcode::SERVFAIL) };
    }
    let Some(zone) = enclosing_zone else {
        return Answer { ede: Some(NOT_AUTHORITATIVE), ..Answer::bare(Rcode::REFUSED) };
    };
    walk::walk(zones, steering, query, zone)
}

/// The response code for questions that no zone answers because of their class or type.
fn refusal(query: &Query<'_>) -> Option<Rcode> {
    if query.qclass != IN {
        return Some(Rcode::REFUSED);
    }
    match query.qtype {
        rtype::AXFR | rtype::IXFR => Some(Rcode::REFUSED),
        // No data has these types: 0 is reserved, OPT is only for the additional section, NXNAME only for bitmaps of
        // NSEC (RFC 9824 §3.2).
        0 | rtype::OPT | rtype::NXNAME => Some(Rcode::FORMERR),
        rtype::TKEY | rtype::TSIG | rtype::MAILA | rtype::MAILB => Some(Rcode::NOTIMP),
        _ => None,
    }
}
