//! What a client wants of DNSSEC, and the signatures of an RRset in an answer. Used by `walk`.

use crate::dnssec::budget::Via;
use crate::dnssec::sign::Signatures;
use crate::protocol::rdata::Rdatas;

/// What the client wants, and what has to be known of it to sign for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dnssec {
    /// The DO bit: signatures and proofs are wanted (RFC 3225).
    pub ok: bool,
    /// The CO bit: with them, a name that doesn't exist is told by the response code, too (RFC 9824 §5.1).
    pub compact_ok: bool,
    /// Whether the query came by a stream, so that its source address is proven and a truncated answer of no use.
    pub by_stream: bool,
    /// Seconds since 1970.
    pub now: u32,
}

impl Dnssec {
    /// No wish.
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
    /// None: they aren't wanted, or the RRset isn't the zone's own.
    No,
    /// Made beforehand.
    Stored(&'a Signatures),
    /// Made for this query, or for one before it.
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

    /// The first second at which one of them is no longer to be served.
    pub(super) fn until(&self) -> Option<u32> {
        match self {
            Self::No => None,
            Self::Stored(signatures) => signatures.until(),
            Self::Online(signatures) => signatures.until(),
        }
    }
}
