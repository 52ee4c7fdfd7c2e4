//! The DNSSEC flags of a query, and the signatures of an RRset in an answer. Used by `walk` and by `wire`, which reads
//! the flags.

use crate::dnssec::budget::Via;
use crate::dnssec::sign::Signatures;
use crate::protocol::rdata::Rdatas;

/// What the client of a query wants of DNSSEC, and the facts about the query that signing online needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dnssec {
    /// The DO bit: signatures and proofs are wanted (RFC 3225).
    pub ok: bool,
    /// The CO bit: the response code is NXDOMAIN for a name that doesn't exist, although the proof is an NSEC at that
    /// name (RFC 9824 §5.1).
    pub compact_ok: bool,
    /// Whether the query came over a stream. Then its source address is proven, and a truncated answer is useless.
    pub by_stream: bool,
    /// Seconds since 1970.
    pub now: u32,
}

impl Dnssec {
    /// The flags of a query without DNSSEC.
    #[must_use]
    pub fn unwanted() -> Self {
        Self { ok: false, compact_ok: false, by_stream: false, now: 0 }
    }

    pub(super) fn via(&self) -> Via {
        if self.by_stream { Via::Stream } else { Via::Datagram }
    }
}

/// The signatures of an RRset in an answer.
#[derive(Debug, Clone)]
pub enum Signed<'a> {
    /// No signatures: the client doesn't want them, the zone is unsigned, or the RRset isn't the zone's own.
    No,
    /// Made beforehand.
    Stored(&'a Signatures),
    /// Made online, for this query or for an earlier one.
    Online(Signatures),
}

impl Signed<'_> {
    /// The RDATA of the RRSIGs.
    pub fn rdatas(&self) -> Rdatas<'_> {
        match self {
            Self::No => Rdatas::EMPTY,
            Self::Stored(signatures) => signatures.rdatas(),
            Self::Online(signatures) => signatures.rdatas(),
        }
    }

    /// The first second, since 1970, at which one of the signatures may no longer be served, because it expires sooner
    /// than caches forget the RRset. `None` without signatures.
    pub(super) fn until(&self) -> Option<u32> {
        match self {
            Self::No => None,
            Self::Stored(signatures) => signatures.until(),
            Self::Online(signatures) => signatures.until(),
        }
    }
}
