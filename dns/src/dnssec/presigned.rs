//! The signatures of a zone that are made before any query. Takes the number of a name or an RRset, returns its
//! signatures. `presign` makes a [`SignedZone`]; the code that answers queries reads it. A steered name is one whose
//! records the rules decide.
//!
//! Each static RRset (an RRset of the zone file) is signed. The NSEC of each name is signed too, unless there are very
//! many names. At steered names, whose records depend on the client, each RRset that a region publishes is signed, and
//! so are the `denied_answers` of the service, which clients get whom no region may process. Health decides which of
//! these RRsets a client gets, but doesn't change their signatures. A fresh signature over equal data is reused from
//! the zone's previous version.

use std::sync::Arc;

use bailiwick_rules::table::RegionIndex;

use super::canonical::SignedData;
use super::key_set::KeySet;
use super::online_signer::{OnlineSigner, SigningRefusal, SigningRequest};
use super::sign::Signatures;
use crate::protocol::rdata::RdataSet;
use crate::zone::{NodeId, RrSet, Zone};

/// The signatures of a zone, its keys, and the RRsets that are made from the keys. It never changes.
#[derive(Debug)]
pub struct SignedZone {
    pub(super) key_set: KeySet,
    /// The signatures of the static RRsets (those of the zone file), by number of the RRset; `None` for glue and
    /// delegations.
    pub(super) sets: Box<[Option<Signatures>]>,
    /// The signatures of each name's NSEC, by number of the name; `None` if they are made online.
    pub(super) nsecs: Box<[Option<Signatures>]>,
    /// The RRsets that may be answered at steered names, by the number of the steered owner.
    pub(super) steered: Box<[Box<[Variant]>]>,
    /// The RRsets that are made from the keys: DNSKEY, CDS and CDNSKEY.
    pub(super) apex: Box<[(RrSet, Signatures)]>,
    pub(super) online_signer: Arc<OnlineSigner>,
    /// When the first signature is due to be renewed, in seconds since 1970.
    pub(super) due: u32,
    /// When the first signature may no longer be served, in seconds since 1970.
    pub(super) until: u32,
}

/// One RRset that may be answered at a steered name.
#[derive(Debug)]
pub(super) struct Variant {
    pub(super) published: Published,
    pub(super) signatures: Signatures,
}

/// An RRset that a service publishes at its hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Published {
    /// The region that publishes the RRset; `None` for the service's `denied_answers`.
    pub(crate) region: Option<RegionIndex>,
    /// The longest TTL that health allows, in seconds.
    pub(crate) ttl: u32,
    /// The type.
    pub(crate) rtype: u16,
    /// The data.
    pub(crate) rdatas: RdataSet,
}

impl SignedZone {
    /// The keys that sign the zone.
    pub fn key_set(&self) -> &KeySet {
        &self.key_set
    }

    /// The signatures of a name's NSEC, by the name's number, if they were made beforehand.
    pub(crate) fn of_nsec(&self, number: usize) -> Option<&Signatures> {
        self.nsecs.get(number)?.as_ref()
    }

    /// The RRsets that may be answered at a steered name, with their signatures, by the number of the steered owner.
    pub(super) fn variants(&self, number: usize) -> &[Variant] {
        self.steered.get(number).map_or(&[], |variants| variants)
    }

    /// The signatures of a static RRset, by its number; `None` for glue and delegations.
    pub(crate) fn of_static(&self, number: usize) -> Option<&Signatures> {
        self.sets.get(number)?.as_ref()
    }

    /// The signatures of an RRset at a steered name, by the number of the steered owner. `region` is the region that
    /// publishes the RRset, `None` for `denied_answers`.
    pub(crate) fn of_steered(&self, number: usize, region: Option<RegionIndex>, rtype: u16) -> Option<&Signatures> {
        let is_wanted = |published: &Published| published.region == region && published.rtype == rtype;
        let variant = self.variants(number).iter().find(|variant| is_wanted(&variant.published))?;
        Some(&variant.signatures)
    }

    /// An RRset at the apex that is made from the keys.
    pub(crate) fn apex_set(&self, rtype: u16) -> Option<(&RrSet, &Signatures)> {
        self.apex.iter().find(|(set, _)| set.rtype == rtype).map(|(set, signatures)| (set, signatures))
    }

    /// The types of the RRsets at the apex that are made from the keys.
    pub(crate) fn apex_types(&self) -> impl Iterator<Item = u16> {
        self.apex.iter().map(|(set, _)| set.rtype)
    }

    /// The types that a name's NSEC lists, except RRSIG and NSEC. `zone` is the zone that was signed here.
    pub(crate) fn types(&self, zone: &Zone, node: NodeId) -> impl Iterator<Item = u16> {
        let of_keys = (node == zone.apex()).then(|| self.apex_types());
        zone.types(node).chain(of_keys.into_iter().flatten())
    }

    /// Signs an RRset that wasn't known before the query, or finds its signatures in the cache.
    ///
    /// # Errors
    /// If the client's budget is spent, or the system has no random bytes.
    pub(crate) fn sign_online(
        &self,
        covered: &SignedData<'_>,
        wanted: SigningRequest,
    ) -> Result<Signatures, SigningRefusal> {
        self.online_signer.signatures(covered, &self.key_set, wanted)
    }

    #[cfg(test)]
    pub(crate) fn shared_online_signer(&self) -> Arc<OnlineSigner> {
        Arc::clone(&self.online_signer)
    }

    /// When the first signature that was made beforehand must be renewed, in seconds since 1970.
    pub(crate) fn due(&self) -> u32 {
        self.due
    }

    /// The first second, since 1970, at which a signature that was made beforehand may no longer be served.
    pub(crate) fn until(&self) -> u32 {
        self.until
    }
}
