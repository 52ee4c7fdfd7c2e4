//! Signs RRsets that aren't known before a query: an NSEC for the queried name, and the records of a wildcard at the
//! queried name. Takes an RRset, the keys and the client, returns the RRset's signatures. Called by
//! [`super::presigned::SignedZone`] for an answer.
//!
//! Signatures are cached by a hash of the data that they cover. So an update of the zone or the keys needs no
//! invalidation, and a repeated query costs no signature. The cache has a fixed number of entries. A full set replaces
//! its least recently used entry.

use std::hash::Hasher;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use siphasher::sip128::{Hasher128, SipHasher24};

use super::budget::{Budget, SigningLimit, Via};
use super::canonical::SignedData;
use super::key::KeyError;
use super::key_set::KeySet;
use super::sign::{Signatures, sign};

/// How many sets the cache has. A set holds the entries whose hashes share some bits.
const SETS: usize = 1 << 12;
/// How many entries a set has. In all, the cache has 32,768 entries, which take about 8 MB.
const WAYS: usize = 8;

/// The client for which a signature is made, and the time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SigningRequest {
    /// The source address.
    pub(crate) client: IpAddr,
    /// The transport of the query.
    pub(crate) via: Via,
    /// Seconds since 1970.
    pub(crate) now: u32,
}

/// Why there is no signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SigningRefusal {
    /// The budget of signatures for this second is spent: the client's, or that of all clients together.
    Budget,
    /// The system has no random bytes.
    Failed(KeyError),
}

/// The cache and the budget of one node. All its zones share them, and an update of a zone keeps them.
#[derive(Debug)]
pub(crate) struct OnlineSigner {
    /// The keys of the hash.
    secret: (u64, u64),
    sets: Box<[Mutex<Set>]>,
    budget: Budget,
    /// How many signatures were made.
    signed_count: AtomicU64,
    /// How many signatures were found in the cache.
    cache_hits: AtomicU64,
    /// How many signatures were refused because the budget was spent.
    refusals: AtomicU64,
}

/// The entries whose hashes share some bits, the most recently used entry first.
#[derive(Debug, Default)]
struct Set(Vec<(u128, Signatures)>);

impl Default for OnlineSigner {
    fn default() -> Self {
        Self::new()
    }
}

impl OnlineSigner {
    /// An empty cache.
    #[must_use]
    pub(crate) fn new() -> Self {
        let random = || {
            use std::hash::BuildHasher;
            std::hash::RandomState::new().hash_one(0)
        };
        Self {
            secret: (random(), random()),
            sets: (0..SETS).map(|_| Mutex::default()).collect(),
            budget: Budget::new(),
            signed_count: AtomicU64::new(0),
            cache_hits: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
        }
    }

    /// Limits how many signatures are made online. Must be called before the first query; later calls have no effect.
    pub(crate) fn limit(&self, limit: SigningLimit) {
        self.budget.limit(limit);
    }

    /// How many signatures were made online.
    #[must_use]
    pub(crate) fn signed_count(&self) -> u64 {
        self.signed_count.load(Ordering::Relaxed)
    }

    /// How often a signature was found in the cache.
    #[must_use]
    pub(crate) fn cache_hits(&self) -> u64 {
        self.cache_hits.load(Ordering::Relaxed)
    }

    /// How often a signature was refused because the budget was spent.
    #[must_use]
    pub(crate) fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Relaxed)
    }

    /// The signatures of an RRset by the keys that sign the zone's data.
    pub(super) fn signatures(
        &self,
        covered: &SignedData<'_>,
        key_set: &KeySet,
        wanted: SigningRequest,
    ) -> Result<Signatures, SigningRefusal> {
        let SigningRequest { client, via, now } = wanted;
        let hash = self.hash(covered, key_set);
        if let Some(cached) = self.set(hash).find(hash).filter(|cached| cached.are_fresh(covered.ttl, now, now)) {
            self.cache_hits.fetch_add(1, Ordering::Relaxed);
            return Ok(cached);
        }
        if !self.budget.take(client, via, now) {
            self.refusals.fetch_add(1, Ordering::Relaxed);
            return Err(SigningRefusal::Budget);
        }
        // No lock is held here. Two queries at the same time may both sign the same data, but neither waits.
        let signatures = sign(covered, key_set.origin(), key_set.signers(), now).map_err(SigningRefusal::Failed)?;
        self.signed_count.fetch_add(1, Ordering::Relaxed);
        self.set(hash).keep(hash, signatures.clone());
        Ok(signatures)
    }

    /// The hash of everything on which a signature depends, except the time. The hash has 128 bits and is keyed with a
    /// secret, so that nobody can find two contents with the same hash.
    fn hash(&self, covered: &SignedData<'_>, key_set: &KeySet) -> u128 {
        let mut content = Vec::with_capacity(512);
        covered.append_records(&mut content);
        content.extend_from_slice(key_set.origin().as_wire());
        for key in key_set.signers() {
            content.extend_from_slice(key.dnskey());
        }
        let mut hasher = SipHasher24::new_with_keys(self.secret.0, self.secret.1);
        hasher.write(&content);
        hasher.finish128().as_u128()
    }

    #[allow(clippy::cast_possible_truncation)] // any bits of a hash will do
    fn set(&self, hash: u128) -> std::sync::MutexGuard<'_, Set> {
        // A poisoned lock still holds good signatures.
        self.sets[hash as usize % SETS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Set {
    fn find(&mut self, hash: u128) -> Option<Signatures> {
        let place = self.0.iter().position(|(cached, _)| *cached == hash)?;
        self.0[..=place].rotate_right(1);
        Some(self.0[0].1.clone())
    }

    fn keep(&mut self, hash: u128, signatures: Signatures) {
        self.0.retain(|(cached, _)| *cached != hash);
        self.0.truncate(WAYS - 1);
        self.0.insert(0, (hash, signatures));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dnssec::key::{Algorithm, SigningKey};
    use crate::protocol::name::Name;
    use crate::protocol::rdata::{RdataSet, rtype};
    use crate::testing::name;

    const NOW: u32 = 1_800_000_000;

    fn key_set() -> KeySet {
        KeySet::of_one(name("example.com"), SigningKey::generate(Algorithm::EcdsaP256Sha256).unwrap())
    }

    fn ask(
        online_signer: &OnlineSigner,
        key_set: &KeySet,
        owner: &Name,
        rdata: &[u8],
        now: u32,
    ) -> Result<Signatures, SigningRefusal> {
        let rdatas = RdataSet::new(rtype::A, [rdata]);
        let covered = SignedData { owner: owner.as_ref(), rtype: rtype::A, ttl: 300, rdatas: rdatas.as_ref() };
        let wanted = SigningRequest { client: "192.0.2.1".parse().unwrap(), via: Via::Datagram, now };
        online_signer.signatures(&covered, key_set, wanted)
    }

    #[test]
    fn a_signature_is_reused_until_it_is_due_and_only_for_equal_data_and_keys() {
        let (online_signer, key_set) = (OnlineSigner::new(), key_set());
        let first = ask(&online_signer, &key_set, &name("a.example.com"), &[192, 0, 2, 1], NOW).unwrap();
        assert_eq!(ask(&online_signer, &key_set, &name("A.example.com"), &[192, 0, 2, 1], NOW + 60), Ok(first.clone()));
        assert_eq!((online_signer.signed_count(), online_signer.cache_hits()), (1, 1));
        for (case, key_set, owner, address, now) in [
            ("owner", &key_set, "b.example.com", 1, NOW),
            ("data", &key_set, "a.example.com", 2, NOW),
            ("keys", &self::key_set(), "a.example.com", 1, NOW),
            ("due", &key_set, "a.example.com", 1, first.due().unwrap()),
            ("a clock set back", &key_set, "a.example.com", 1, NOW - 86_400),
        ] {
            let other = ask(&online_signer, key_set, &name(owner), &[192, 0, 2, address], now).unwrap();
            assert_ne!(other, first, "{case}");
        }
    }

    #[test]
    fn cached_signatures_are_served_when_the_budget_is_spent() {
        let (online_signer, key_set) = (OnlineSigner::new(), key_set());
        let owner = |n: usize| name(&format!("{n}.example.com"));
        let asked: Vec<_> = (0..300).map(|n| ask(&online_signer, &key_set, &owner(n), &[192, 0, 2, 1], NOW)).collect();
        let made = asked.iter().filter(|asked| asked.is_ok()).count();
        assert_eq!(made, 200);
        assert_eq!((online_signer.refusals(), asked[299].clone()), (100, Err(SigningRefusal::Budget)));
        assert_eq!(ask(&online_signer, &key_set, &owner(0), &[192, 0, 2, 1], NOW), asked[0]);
    }

    #[test]
    fn the_configuration_sets_the_budget() {
        let (online_signer, key_set) = (OnlineSigner::new(), key_set());
        online_signer.limit(SigningLimit { per_second: 3, ..SigningLimit::default() });
        let owner = |n: usize| name(&format!("{n}.example.com"));
        let made = (0..10).filter(|&n| ask(&online_signer, &key_set, &owner(n), &[192, 0, 2, 1], NOW).is_ok()).count();
        assert_eq!((made, online_signer.refusals()), (3, 7));
    }

    #[test]
    fn a_full_set_replaces_the_entry_unused_for_longest() {
        let signatures = || Signatures::of_nothing();
        let mut set = Set::default();
        for hash in 0..20 {
            set.keep(hash, signatures());
            set.find(0);
        }
        assert_eq!(set.0.len(), WAYS);
        assert!(set.find(0).is_some() && set.find(19).is_some() && set.find(1).is_none());
    }
}
