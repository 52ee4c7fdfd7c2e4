//! Adds DNSSEC to answers. Takes the RRsets that `walk` found, adds their signatures and the NSEC of compact denial.
//! Adds nothing if the zone is unsigned, or if the client doesn't ask for DNSSEC by the DO bit. But a query of type
//! NSEC or RRSIG asks for such records itself: at a name that exists it gets them even without that bit. Called by
//! `walk`.

use super::{At, Origin, Owner, Set, Step, Walk, first_type};
use crate::dnssec::canonical::SignedData;
use crate::dnssec::denial::{Next, nsec};
use crate::dnssec::lifetime::is_before;
use crate::dnssec::online_signer::{SigningRefusal, SigningRequest};
use crate::dnssec::presigned::SignedZone;
use crate::dnssec::sign::{Signatures, earlier};
use crate::protocol::rdata::{RdataSet, Rdatas, rtype};
use crate::response::answer::{Answer, AnswerSet, Data, Rcode, Signed, SteeredAnswers};
use crate::zone::NodeId;
use crate::zones::ServedZone;

/// The extended error for a signature that is too old: Signature Expired (RFC 8914 §4.8).
const SIGNATURE_EXPIRED: u16 = 7;
/// The extended error for an answer that can't be signed now: Not Ready (RFC 8914 §4.15).
const NOT_READY: u16 = 14;

/// The position of a name in its zone, for the proof that the name or a type of it doesn't exist.
#[derive(Debug, Clone, Copy)]
pub(super) enum DenialPlace {
    /// The name exists.
    Node(NodeId),
    /// The name exists because this wildcard matches it.
    Wildcard(NodeId),
    /// The name doesn't exist.
    Nowhere,
}

impl At<'_, '_> {
    pub(super) fn place(&self) -> DenialPlace {
        if self.is_of_wildcard { DenialPlace::Wildcard(self.node) } else { DenialPlace::Node(self.node) }
    }
}

impl<'a, S: SteeredAnswers> Walk<'a, '_, S> {
    /// The zone's signatures, if the client wants them and the zone is signed.
    fn signed_zone_if_wanted(&self, zone: &'a ServedZone) -> Option<&'a SignedZone> {
        zone.signed().filter(|_| self.query.dnssec.ok)
    }

    /// The signatures of an RRset. `None` if they can't be made; then the answer has become truncated or SERVFAIL.
    pub(super) fn signatures(&mut self, at: At<'_, 'a>, set: &Set<'a>) -> Option<Signed<'a>> {
        match self.signed_zone_if_wanted(at.zone) {
            None => Some(Signed::No),
            Some(signed) => self.signatures_by(signed, at, set),
        }
    }

    /// The signatures of an RRset: stored in the signed zone, or made now for the records of a wildcard.
    fn signatures_by(&mut self, signed: &'a SignedZone, at: At<'_, 'a>, set: &Set<'a>) -> Option<Signed<'a>> {
        let At { zone, node, name, is_of_wildcard } = at;
        let Set { rtype, ttl, rdatas, origin } = *set;
        if is_of_wildcard {
            // Records of a wildcard are signed as if the queried name had them (RFC 9824 §3.3).
            return self
                .sign_online(signed, &SignedData { owner: name.name(), rtype, ttl, rdatas })
                .map(Signed::Online);
        }
        let stored = match origin {
            Origin::Static => zone.set_number(node, rtype).and_then(|number| signed.of_static(number)),
            Origin::Steered(region) => {
                zone.steered_number(node).and_then(|number| signed.of_steered(number, region, rtype))
            }
            Origin::Keys => signed.apex_set(rtype).map(|(_, signatures)| signatures),
        };
        if stored.is_none() {
            self.fail(NOT_READY); // a signed zone never sends the RRset unsigned
        }
        stored.map(Signed::Stored)
    }

    /// Signs an RRset that wasn't known before the query. `None` if that fails; then the answer has become truncated or
    /// SERVFAIL.
    fn sign_online(&mut self, signed: &SignedZone, covered: &SignedData<'_>) -> Option<Signatures> {
        let (client, dnssec) = (self.query.client.transport, self.query.dnssec);
        match signed.sign_online(covered, SigningRequest { client, via: dnssec.via(), now: dnssec.now }) {
            Ok(signatures) => return Some(signatures),
            Err(SigningRefusal::Budget) if !dnssec.by_stream => {
                // A real client repeats the query over a stream. Streams have another budget.
                self.answer = Answer { truncated: true, ..Answer::bare(Rcode::NOERROR) };
            }
            Err(SigningRefusal::Budget) => self.fail(NOT_READY),
            Err(SigningRefusal::Failed(error)) => {
                tracing::error!(%error, "an answer can't be signed");
                self.fail(NOT_READY);
            }
        }
        None
    }

    /// The response code for a name that doesn't exist. In a signed zone, the NSEC says that the name doesn't exist. To
    /// a client that doesn't know this kind of NSEC, NXDOMAIN would contradict the NSEC (RFC 9824 §3.1, §5.1).
    pub(super) fn rcode_of_missing(&self, zone: &'a ServedZone) -> Rcode {
        match self.signed_zone_if_wanted(zone) {
            Some(_) if !self.query.dnssec.compact_ok => Rcode::NOERROR,
            _ => Rcode::NXDOMAIN,
        }
    }

    /// Adds the proof that a name or a type doesn't exist: the one NSEC that matches the name.
    pub(super) fn add_nsec(&mut self, zone: &'a ServedZone, name: &Owner<'a>, place: DenialPlace) {
        let Some(signed) = self.signed_zone_if_wanted(zone).filter(|_| !self.has_failed()) else { return };
        let set = self.nsec(zone, signed, name, place);
        self.answer.authority.extend(set);
    }

    /// Whether signing failed, so that the answer has become truncated or SERVFAIL.
    pub(super) fn has_failed(&self) -> bool {
        self.answer.truncated || self.answer.rcode == Rcode::SERVFAIL
    }

    /// The NSEC record that denies a name or a type, with its signatures.
    fn nsec(
        &mut self,
        zone: &'a ServedZone,
        signed: &'a SignedZone,
        name: &Owner<'a>,
        place: DenialPlace,
    ) -> Option<AnswerSet<'a>> {
        let (owner, ttl) = (name.name(), zone.negative_ttl());
        let rdata = match place {
            DenialPlace::Node(node) | DenialPlace::Wildcard(node) => {
                nsec(owner, zone.origin(), Next::of(zone, node), signed.types(zone, node))
            }
            DenialPlace::Nowhere => nsec(owner, zone.origin(), Next::Below, [rtype::NXNAME]),
        };
        let stored = match place {
            DenialPlace::Node(node) => signed.of_nsec(zone.number_of(node)),
            DenialPlace::Wildcard(_) | DenialPlace::Nowhere => None,
        };
        let signatures = match stored {
            // Without the DO bit, only a query of type NSEC gets here: it asks for the NSEC, not for its signatures.
            _ if !self.query.dnssec.ok => Signed::No,
            Some(signatures) => Signed::Stored(signatures),
            None => {
                let rdatas = RdataSet::new(rtype::NSEC, [&*rdata]);
                let covered = SignedData { owner, rtype: rtype::NSEC, ttl, rdatas: rdatas.as_ref() };
                Signed::Online(self.sign_online(signed, &covered)?)
            }
        };
        Some(AnswerSet { owner: name.clone(), rtype: rtype::NSEC, ttl, data: Data::Nsec(rdata), signed: signatures })
    }

    /// Answers a query for NSEC or RRSIG at a name that exists. For RRSIG, the signatures of one RRset are enough, as
    /// for ANY (RFC 8482 §7).
    pub(super) fn answer_query_for_proof(&mut self, at: At<'_, 'a>, signed: &'a SignedZone) -> Step<'a> {
        let At { zone, node, name, .. } = at;
        let first = first_type(zone, node).filter(|_| self.query.qtype == rtype::RRSIG);
        // The query is for NSEC, or the name has no type of its own, so that its NSEC is the only RRset.
        let Some(first) = first else { return self.answer_query_for_nsec(zone, signed, name, at.place()) };
        // `Err`: the rules allow no records, and the answer has become SERVFAIL. `Ok(None)` doesn't occur, because the
        // name has this type.
        let Ok(Some(set)) = self.find(at, first) else { return Step::Done };
        // `None`: signing failed, and the answer says so.
        let Some(signatures) = self.signatures_by(signed, at, &set) else { return Step::Done };
        self.push_rrsigs(name.clone(), set.ttl, signatures);
        Step::Done
    }

    /// Answers a query for NSEC or RRSIG with the NSEC of a name, or with the signatures of this NSEC.
    pub(super) fn answer_query_for_nsec(
        &mut self,
        zone: &'a ServedZone,
        signed: &'a SignedZone,
        name: &Owner<'a>,
        place: DenialPlace,
    ) -> Step<'a> {
        if self.query.qtype == rtype::RRSIG && !self.query.dnssec.ok {
            // The name has only signatures of its NSEC, and these are only for clients that ask for DNSSEC.
            self.add_soa(zone);
            return Step::Done;
        }
        let Some(set) = self.nsec(zone, signed, name, place) else { return Step::Done };
        if self.query.qtype == rtype::NSEC {
            self.answer.answer.push(set);
        } else {
            self.push_rrsigs(set.owner, set.ttl, set.signed);
        }
        Step::Done
    }

    /// Adds RRSIGs without the RRset that they sign.
    fn push_rrsigs(&mut self, owner: Owner<'a>, ttl: u32, signed: Signed<'a>) {
        self.answer.until = signed.until();
        let data = match signed {
            Signed::No => Data::Stored(Rdatas::EMPTY),
            Signed::Stored(signatures) => Data::Stored(signatures.rdatas()),
            Signed::Online(signatures) => Data::Rrsigs(signatures),
        };
        self.answer.answer.push(AnswerSet { owner, rtype: rtype::RRSIG, ttl, data, signed: Signed::No });
    }

    /// The answer, if all its signatures are valid for longer than caches may keep them; otherwise SERVFAIL. Records
    /// until when the answer may be served.
    pub(super) fn signed_in_time(mut self) -> Answer<'a> {
        let until = self.answer.sets().filter_map(|set| set.signed.until()).chain(self.answer.until).reduce(earlier);
        self.answer.until = until;
        if self.answer.sets().any(|set| matches!(set.signed, Signed::Online(_))) {
            // Clients can ask for any number of names that need such an answer, and would fill the memo with them. The
            // online signer has a cache of its own for the signatures.
            self.answer.keepable = false;
        }
        if until.is_some_and(|until| !is_before(self.query.dnssec.now, until)) {
            self.fail(SIGNATURE_EXPIRED);
        }
        self.answer
    }
}

#[cfg(test)]
mod tests;
