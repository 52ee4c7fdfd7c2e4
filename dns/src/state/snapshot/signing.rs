//! Takes a world (rules, zones, keys and GeoIP data compiled together) and the time, returns the same world with signed
//! zones. Called by `state/owner`, the one task that holds mutable state, at each change and before signatures expire.
//! It signs on another thread than those that answer queries.
//!
//! All answers of all regions are signed, also those of regions that are down. So a change of health needs no new
//! signatures.

use std::sync::Arc;

use bailiwick_rules::table::Service;
use bailiwick_rules::time::Timestamp;

use super::World;
use super::records::RecordSets;
use super::world::unsignable_in;
use crate::dnssec::key_set::KeySet;
use crate::dnssec::online_signer::OnlineSigner;
use crate::dnssec::presign::Signing;
use crate::dnssec::presigned::{Published, SignedZone};
use crate::dnssec::sign::earlier;
use crate::zone::{Location, ServiceIndex, Zone, ZoneError};
use crate::zones::{ServedZone, Zones};

impl World {
    /// Signs every zone that has keys. Signatures of `before` are reused if they cover equal data and are still fresh.
    ///
    /// # Errors
    /// Records that a signed zone can't have, and a system without random bytes.
    pub(super) fn signed(mut self, now: Timestamp, before: Option<&Self>) -> Result<Self, Vec<ZoneError>> {
        if self.keys().is_empty() {
            return Ok(self);
        }
        let errors: Vec<ZoneError> =
            self.keys().iter().flat_map(|keys| unsignable_in(self.zone_sources(), keys.origin())).collect();
        if !errors.is_empty() {
            return Err(errors);
        }
        let (mut zones, mut errors) = (Vec::new(), Vec::new());
        for zone in self.zones.iter() {
            let keys = self.keys().iter().find(|keys| keys.origin() == zone.origin());
            match keys.map(|keys| self.sign(zone, keys.key_set(now), now, before)).transpose() {
                Ok(signed) => zones.push(signed.map_or_else(|| Arc::clone(zone), Arc::new)),
                Err(error) => errors.push(error),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        // Configured zones without a usable version stay listed, so that their names still get SERVFAIL.
        let missing = self.zones.missing().to_vec();
        (self.zones, self.signed_at) = (Arc::new(Zones::new(zones).with_missing(missing)), now);
        let signed = self.zones.iter().filter_map(|zone| zone.signed());
        self.signed_until = signed.map(SignedZone::until).reduce(earlier);
        Ok(self)
    }

    /// The same world with new signatures in place of those that are due, and with the keys' states at `now`.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub(crate) fn renewed(&self, now: Timestamp) -> Result<Self, Vec<ZoneError>> {
        self.clone().signed(now, Some(self))
    }

    /// Signs a zone. Signatures of `before` are reused as in [`World::signed`].
    fn sign(
        &self,
        zone: &Zone,
        key_set: KeySet,
        now: Timestamp,
        before: Option<&Self>,
    ) -> Result<ServedZone, ZoneError> {
        let before = before.and_then(|before| before.zones.of_origin(zone.origin()));
        let signing = Signing {
            published: &|service| self.published(service),
            key_set,
            online_signer: Arc::clone(&self.online_signer),
            now: seconds(now),
            before: before.and_then(|served| Some((served.zone(), served.signed()?))),
        };
        let signed = SignedZone::make(zone, signing).map_err(|error| ZoneError {
            place: Location { file: Arc::from(zone.origin().to_string()), line: 0 },
            message: format!("can't be signed: {error}"),
        })?;
        Ok(ServedZone::signed_by(zone.clone(), signed))
    }

    /// All RRsets that a service may answer at its hosts: those of each region, and `denied_answers`, which belong to
    /// no region.
    ///
    /// They are signed with the longest TTL that health allows. An answer with a shorter TTL has the same signature,
    /// because a signature covers the original TTL (RFC 4034 §3.1.4).
    fn published(&self, service: ServiceIndex) -> Vec<Published> {
        let ttl = |service: &Service| service.ttl.max;
        let ttl = self.rules().table.services().get(service.get()).map_or(0, ttl);
        let published_sets = |records: &RecordSets, region| {
            let sets = records.iter();
            sets.map(move |(rtype, set)| Published { region, ttl, rtype, rdatas: set.clone() }).collect::<Vec<_>>()
        };
        let regions = self.answers.get(service.get()).into_iter().flatten();
        let denied = self.denied.get(service.get()).and_then(Option::as_ref);
        regions
            .flat_map(|(region, records)| published_sets(records, Some(*region)))
            .chain(denied.into_iter().flat_map(|records| published_sets(records, None)))
            .collect()
    }

    /// The keys with which each signed zone is signed now.
    pub(crate) fn key_sets(&self) -> impl Iterator<Item = &KeySet> {
        self.zones.iter().filter_map(|zone| zone.signed()).map(SignedZone::key_set)
    }

    /// When [`World::renewed`] is next due; `None` if no zone is signed.
    #[must_use]
    pub(crate) fn renewal_due(&self, now: Timestamp) -> Option<Timestamp> {
        let signatures = self.zones.iter().filter_map(|zone| Some(timestamp(zone.signed()?.due(), now)));
        // Counted from the signing, not from now: a change of keys that fell due since then is still to be made.
        let keys = self.key_sets().filter_map(|key_set| key_set.next_change(self.signed_at));
        // If the clock was set back, the signatures are from the future, so they are renewed at once.
        let set_back = (now < self.signed_at && self.key_sets().next().is_some()).then_some(now);
        signatures.chain(keys).chain(set_back).min()
    }

    /// For each signed zone, the time until which the signatures that were made beforehand may be served.
    pub(crate) fn signed_until(&self, now: Timestamp) -> impl Iterator<Item = (&Zone, Timestamp)> {
        self.zones.iter().filter_map(move |zone| Some((zone.zone(), timestamp(zone.signed()?.until(), now))))
    }

    /// The signer of answers that can't be signed beforehand.
    #[must_use]
    pub(crate) fn online_signer(&self) -> &OnlineSigner {
        &self.online_signer
    }
}

/// Seconds since 1970 as signatures and cookies count them: the lower 32 bits (RFC 4034 §3.1.5, RFC 9018 §4.3).
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // the lower 32 bits are meant
pub(crate) fn seconds(now: Timestamp) -> u32 {
    now.0.div_euclid(1000) as u32
}

/// The time of a signature. Of all times with these lower 32 bits, it is the time within 68 years of now.
fn timestamp(time: u32, now: Timestamp) -> Timestamp {
    let ahead = time.wrapping_sub(seconds(now)).cast_signed();
    Timestamp((now.0.div_euclid(1000) + i64::from(ahead)) * 1000)
}

#[cfg(test)]
mod tests;
