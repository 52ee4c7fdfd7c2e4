//! Signs a zone before any query. Takes the zone, the RRsets that the rules publish and the key set, returns a
//! [`SignedZone`]. Called by the snapshot's world, on another thread than those that answer queries, for each change
//! and each renewal.

use std::sync::Arc;

use super::key::{CDNSKEY_DELETE, CDS_DELETE, KeyError};
use super::key_set::{CdsPolicy, KeySet};
use super::lifetime::LONGEST_TTL;
use super::online_signer::OnlineSigner;
use super::plan::Plan;
use super::presigned::{Published, SignedZone, Variant};
use super::sign::{Signatures, earlier};
use crate::protocol::rdata::{RdataSet, rtype};
use crate::zone::{RrSet, ServiceIndex, Zone};

/// The inputs for signing a zone.
pub(crate) struct Signing<'a> {
    /// Returns the RRsets that the rules publish for a service.
    pub(crate) published: &'a dyn Fn(ServiceIndex) -> Vec<Published>,
    /// The keys.
    pub(crate) key_set: KeySet,
    /// Signs the RRsets that are known only when a query asks for them.
    pub(crate) online_signer: Arc<OnlineSigner>,
    /// Seconds since 1970.
    pub(crate) now: u32,
    /// The zone's previous version with its signatures. Signatures of equal data are reused.
    pub(crate) before: Option<(&'a Zone, &'a SignedZone)>,
}

impl SignedZone {
    /// Signs a zone.
    ///
    /// # Errors
    /// If the system has no random bytes.
    pub(crate) fn make(zone: &Zone, signing: Signing<'_>) -> Result<Self, KeyError> {
        let Signing { published, key_set, online_signer, now, before } = signing;
        let apex = apex_sets(&key_set, zone);
        let mut plan = Plan::new(zone, &key_set, before, now);
        let sets: Vec<Option<usize>> = plan.static_sets();
        let steered: Vec<Vec<(Published, usize)>> = plan.steered_sets(published);
        let keys: Vec<usize> = plan.apex_sets(&apex);
        let nsecs: Vec<Option<usize>> = plan.nsecs(&apex);
        let all = plan.carry_out(&key_set)?;

        let signatures = |place: usize| all[place].clone();
        let variants = |owner: Vec<(Published, usize)>| {
            let variants = owner.into_iter();
            variants.map(|(published, place)| Variant { published, signatures: signatures(place) }).collect()
        };
        Ok(Self {
            sets: sets.into_iter().map(|place| place.map(signatures)).collect(),
            nsecs: nsecs.into_iter().map(|place| place.map(signatures)).collect(),
            steered: steered.into_iter().map(variants).collect(),
            apex: apex.into_iter().zip(keys.into_iter().map(signatures)).collect(),
            // Every zone has an SOA, so there is at least one signature.
            due: all.iter().filter_map(Signatures::due).reduce(earlier).unwrap_or(now),
            until: all.iter().filter_map(Signatures::until).reduce(earlier).unwrap_or(now),
            key_set,
            online_signer,
        })
    }
}

/// The RRsets that are made from the keys (RFC 4034 §2, RFC 7344 §4, RFC 8078 §4).
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
