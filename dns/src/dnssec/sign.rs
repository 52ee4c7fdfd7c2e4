//! Signs one RRset. Takes the RRset and the keys, returns the RRSIG records. Called by `plan` for RRsets that are
//! signed before any query, and by `online_signer` for the others.

use std::sync::Arc;

use super::canonical::SignedData;
use super::key::{KeyError, SigningKey};
use super::lifetime::{Rrsig, Window, is_before};
use crate::protocol::name::NameRef;
use crate::protocol::rdata::{RdataSet, Rdatas, rtype};

/// The RRSIG records of one RRset, one for each key. Cheap to share.
#[derive(Clone, PartialEq, Eq)]
pub struct Signatures(Arc<[u8]>);

impl Signatures {
    fn new<'a>(rrsigs: impl IntoIterator<Item = &'a [u8]>) -> Self {
        Self(RdataSet::new(rtype::RRSIG, rrsigs).into_packed().into())
    }

    #[cfg(test)]
    pub(crate) fn of_nothing() -> Self {
        Self::new([])
    }

    /// The RDATA of the records.
    #[must_use]
    pub fn rdatas(&self) -> Rdatas<'_> {
        Rdatas::of_packed(&self.0)
    }

    fn rrsigs(&self) -> impl Iterator<Item = Rrsig<'_>> {
        self.rdatas().iter().filter_map(Rrsig::read)
    }

    /// The first second at which one of the signatures may no longer be served: a resolver that caches it then, for the
    /// TTL, would hold it beyond its expiration.
    pub(crate) fn until(&self) -> Option<u32> {
        self.rrsigs().map(|rrsig| rrsig.until()).reduce(earlier)
    }

    /// Whether all signatures may be kept at `now` for an RRset of this TTL, if the caller won't check again before
    /// `horizon`.
    pub(crate) fn are_fresh(&self, ttl: u32, now: u32, horizon: u32) -> bool {
        self.rrsigs().all(|rrsig| rrsig.original_ttl == ttl && rrsig.is_fresh(now, horizon))
    }

    /// When the first of the signatures must be renewed.
    pub(crate) fn due(&self) -> Option<u32> {
        self.rrsigs().map(|rrsig| rrsig.due()).reduce(earlier)
    }
}

impl std::fmt::Debug for Signatures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.rrsigs()).finish()
    }
}

/// The earlier of two times, compared as serial numbers (RFC 4034 §3.1.5).
pub(crate) fn earlier(a: u32, b: u32) -> u32 {
    if is_before(b, a) { b } else { a }
}

/// Signs an RRset with each of `keys`.
///
/// # Errors
/// If the system has no random bytes.
pub(crate) fn sign<'k>(
    covered: &SignedData<'_>,
    origin: NameRef<'_>,
    keys: impl IntoIterator<Item = &'k SigningKey>,
    now: u32,
) -> Result<Signatures, KeyError> {
    let rrsigs = keys.into_iter().map(|key| rrsig(covered, origin, key, now)).collect::<Result<Vec<_>, _>>()?;
    Ok(Signatures::new(rrsigs.iter().map(Vec::as_slice)))
}

/// Makes the RDATA of one RRSIG. The signature covers the RDATA up to the signature, and the records after that (RFC
/// 4034 §3.1.8.1).
fn rrsig(covered: &SignedData<'_>, origin: NameRef<'_>, key: &SigningKey, now: u32) -> Result<Vec<u8>, KeyError> {
    // One buffer holds the octets that are signed first, and the RDATA then.
    let mut octets = covered.head(origin, key, Window::new(now, covered.ttl));
    let head_length = octets.len();
    covered.append_records(&mut octets);
    let signature = key.sign(&octets)?;
    octets.truncate(head_length);
    octets.extend(signature);
    Ok(octets)
}
