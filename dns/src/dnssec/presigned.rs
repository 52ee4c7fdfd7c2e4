//! Everything of a zone that can be signed before it is asked for: the zone, what the rules publish and the key set enter, a [`SignedZone`]
//! leaves, from which answers take their signatures. [`crate::state::snapshot::World`] makes one off the query path, for each change and each renewal.
//!
//! There is a signature for each static RRset and, at steered names, for each RRset that any region publishes, or `denied_answers`; and for the
//! NSEC of each name, unless there are very many. Which of them a client gets depends on health; the signatures don't. What was signed before
//! over equal data, and is fresh, is shared.

use std::sync::Arc;

use bailiwick_rules::table::RegionIndex;

use super::canonical::Covered;
use super::key::{CDNSKEY_DELETE, CDS_DELETE, KeyError};
use super::key_set::{CdsPolicy, KeySet};
use super::lifetime::LONGEST_TTL;
use super::online_signer::{Mint, Refused, Wanted};
use super::plan::Plan;
use super::sign::{Signatures, earlier};
use crate::protocol::rdata::{RdataSet, rtype};
use crate::zone::{RrSet, ServiceIndex, Zone};

/// The signatures of a zone and what else makes it a signed one. Nothing in it changes.
#[derive(Debug)]
pub struct SignedZone {
    key_set: KeySet,
    /// By number of the static RRset; `None` for what isn't the zone's own.
    sets: Box<[Option<Signatures>]>,
    /// By number of the name: of its NSEC. `None` for what isn't signed beforehand.
    nsecs: Box<[Option<Signatures>]>,
    /// By number of what steers.
    steered: Box<[Box<[Variant]>]>,
    /// The RRsets that the keys make: DNSKEY, CDS and CDNSKEY.
    apex: Box<[(RrSet, Signatures)]>,
    mint: Arc<Mint>,
    /// When the first signature is due to be renewed.
    due: u32,
    /// When the first signature isn't served any more.
    until: u32,
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
    /// Whose records they are; `None`: the service's `denied_answers`.
    pub(crate) region: Option<RegionIndex>,
    /// The longest TTL that health allows, in seconds.
    pub(crate) ttl: u32,
    /// The type.
    pub(crate) rtype: u16,
    /// The data.
    pub(crate) rdatas: RdataSet,
}

/// What a zone is signed with.
pub(crate) struct Signing<'a> {
    /// What the rules publish for a service.
    pub(crate) published: &'a dyn Fn(ServiceIndex) -> Vec<Published>,
    /// The keys.
    pub(crate) key_set: KeySet,
    /// What signs the rest, when it is asked for.
    pub(crate) mint: Arc<Mint>,
    /// Seconds since 1970.
    pub(crate) now: u32,
    /// The zone as it was before, with its signatures.
    pub(crate) before: Option<&'a Zone>,
}

impl SignedZone {
    /// Signs a zone.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub(crate) fn make(zone: &Zone, signing: Signing<'_>) -> Result<Self, KeyError> {
        let Signing { published, key_set, mint, now, before } = signing;
        let apex = apex_sets(&key_set, zone);
        let mut plan = Plan::new(zone, &key_set, before, now);
        let sets: Vec<Option<usize>> = plan.static_sets();
        let steered: Vec<Vec<(Published, usize)>> = plan.steered_sets(published);
        let keys: Vec<usize> = plan.apex_sets(&apex);
        let nsecs: Vec<Option<usize>> = plan.nsecs(&apex);
        let made = plan.carry_out(&key_set)?;

        let signatures = |place: usize| made[place].clone();
        let variants = |owner: Vec<(Published, usize)>| {
            let variants = owner.into_iter();
            variants.map(|(published, place)| Variant { published, signatures: signatures(place) }).collect()
        };
        Ok(Self {
            sets: sets.into_iter().map(|place| place.map(signatures)).collect(),
            nsecs: nsecs.into_iter().map(|place| place.map(signatures)).collect(),
            steered: steered.into_iter().map(variants).collect(),
            apex: apex.into_iter().zip(keys.into_iter().map(signatures)).collect(),
            // There is always an SOA.
            due: made.iter().filter_map(Signatures::due).reduce(earlier).unwrap_or(now),
            until: made.iter().filter_map(Signatures::until).reduce(earlier).unwrap_or(now),
            key_set,
            mint,
        })
    }

    /// The keys it is signed with.
    pub fn key_set(&self) -> &KeySet {
        &self.key_set
    }

    /// The signatures of a name's NSEC, by the name's number, if they were made beforehand.
    pub(crate) fn of_nsec(&self, number: usize) -> Option<&Signatures> {
        self.nsecs.get(number)?.as_ref()
    }

    /// What may be answered at a steered name, by the number of what steers it, each with its signatures.
    pub(super) fn variants(&self, number: usize) -> &[Variant] {
        self.steered.get(number).map_or(&[], |variants| variants)
    }

    /// The signatures of a static RRset, by its number; `None` for glue and delegations.
    pub(crate) fn of_static(&self, number: usize) -> Option<&Signatures> {
        self.sets.get(number)?.as_ref()
    }

    /// The signatures of what a region publishes (`None`: of `denied_answers`) at a steered name, by the number of what steers it.
    pub(crate) fn of_steered(&self, number: usize, region: Option<RegionIndex>, rtype: u16) -> Option<&Signatures> {
        let found =
            self.variants(number).iter().find(|one| one.published.region == region && one.published.rtype == rtype)?;
        Some(&found.signatures)
    }

    /// An RRset that the keys make at the apex.
    pub(crate) fn apex_set(&self, rtype: u16) -> Option<(&RrSet, &Signatures)> {
        self.apex.iter().find(|(set, _)| set.rtype == rtype).map(|(set, signatures)| (set, signatures))
    }

    /// The types of those.
    pub(crate) fn apex_types(&self) -> impl Iterator<Item = u16> {
        self.apex.iter().map(|(set, _)| set.rtype)
    }

    /// Signs what is known only now, or finds it signed.
    ///
    /// # Errors
    /// When the client's budget is spent, or the system gives no random bytes.
    pub(crate) fn mint(&self, covered: &Covered<'_>, wanted: Wanted) -> Result<Signatures, Refused> {
        self.mint.signatures(covered, &self.key_set, wanted)
    }

    #[cfg(test)]
    pub(crate) fn shared_mint(&self) -> Arc<Mint> {
        Arc::clone(&self.mint)
    }

    /// When the first signature made beforehand is due to be renewed, in seconds since 1970.
    pub(crate) fn due(&self) -> u32 {
        self.due
    }

    /// The first second at which not all signatures made beforehand are served any more.
    pub(crate) fn until(&self) -> u32 {
        self.until
    }
}

/// The RRsets that the keys make (RFC 4034 §2, RFC 7344 §4, RFC 8078 §4).
fn apex_sets(key_set: &KeySet, zone: &Zone) -> Vec<RrSet> {
    let ttl = key_set.dnskey_ttl().min(LONGEST_TTL);
    let set = |rtype: u16, rdatas: Vec<Vec<u8>>| RrSet {
        rtype,
        ttl,
        rdatas: RdataSet::new(rtype, rdatas.iter().map(Vec::as_slice)),
    };
    let (cds, cdnskey): (Vec<Vec<u8>>, Vec<Vec<u8>>) = match key_set.cds() {
        CdsPolicy::Off => (Vec::new(), Vec::new()),
        CdsPolicy::Publish(keys) => keys.iter().map(|key| (key.ds(zone.origin()), key.dnskey().to_vec())).unzip(),
        CdsPolicy::Delete => (vec![CDS_DELETE.to_vec()], vec![CDNSKEY_DELETE.to_vec()]),
    };
    let dnskeys = key_set.dnskeys().map(|key| key.dnskey().to_vec()).collect();
    let sets = [set(rtype::DNSKEY, dnskeys), set(rtype::CDS, cds), set(rtype::CDNSKEY, cdnskey)];
    sets.into_iter().filter(|set| !set.rdatas.as_ref().is_empty()).collect()
}
