//! Signed zones in tests. Takes a zone and a key, returns answers, and whether another library accepts their
//! signatures.

use std::collections::BTreeMap;
use std::sync::Arc;

use bailiwick_rules::table::RegionIndex;
use hickory_proto::dnssec::rdata::{DNSKEY, DNSSECRData, RRSIG};
use hickory_proto::dnssec::{PublicKeyBuf, Verifier};
use hickory_proto::op::Message;
use hickory_proto::rr::{DNSClass, RData, Record, RecordType};

use super::{name, opt, query, send};
use crate::dnssec::key::{Algorithm, SigningKey};
use crate::dnssec::key_set::KeySet;
use crate::dnssec::online_signer::OnlineSigner;
use crate::dnssec::presign::Signing;
use crate::dnssec::presigned::{Published, SignedZone};
use crate::protocol::rdata::{RdataSet, rtype};
use crate::response::answer::SteeredAnswers;
use crate::response::wire::Transport;
use crate::zone::{ServiceIndex, Zone};
use crate::zones::{ServedZone, Zones};

/// DO, and with it CO, in the flags of an OPT.
pub(crate) const DO: u8 = 0x80;
pub(crate) const CO: u8 = 0x40;

/// A key set of one new key.
pub(crate) fn key_set(origin: &str, algorithm: Algorithm) -> KeySet {
    KeySet::of_one(name(origin), SigningKey::generate(algorithm).expect("randomness"))
}

/// The zone signed at `now`, with what [`super::Fixed`] answers at steered names.
pub(crate) fn sign(zone: &Zone, key_set: &KeySet, now: u32, before: Option<&ServedZone>) -> ServedZone {
    let published = |service: ServiceIndex| {
        let set = |rtype, ttl, rdata: &[u8]| Published {
            region: Some(RegionIndex(0)),
            ttl,
            rtype,
            rdatas: RdataSet::new(rtype, [rdata]),
        };
        match service.0 {
            0 => vec![set(rtype::A, 60, &[192, 0, 2, 10])],
            1 => vec![set(rtype::CNAME, 60, name("a.example.com").as_wire())],
            _ => Vec::new(),
        }
    };
    let online_signer = zone_online_signer(before);
    let before = before.and_then(|served| Some((served.zone(), served.signed()?)));
    let signing = Signing { published: &published, key_set: key_set.clone(), online_signer, now, before };
    ServedZone::signed_by(zone.clone(), SignedZone::make(zone, signing).expect("randomness"))
}

fn zone_online_signer(before: Option<&ServedZone>) -> Arc<OnlineSigner> {
    before.and_then(ServedZone::signed).map_or_else(Arc::default, SignedZone::shared_online_signer)
}

/// A question with an OPT of 1,232 octets and these flags.
pub(crate) fn flagged(qname: &str, qtype: u16, flags: u8) -> Vec<u8> {
    let mut opt = opt(1232, &[]);
    opt[7] = flags;
    query(qname, qtype, &[&opt])
}

/// The answer to a question with these flags.
pub(crate) fn ask(zones: &Zones, rules: &impl SteeredAnswers, qname: &str, qtype: u16, flags: u8) -> Message {
    let (out, _) = send(zones, rules, &flagged(qname, qtype, flags), Transport::Tcp);
    Message::from_vec(&out).expect("a well-formed response")
}

/// A key of the set as the verifier has it.
fn dnskey(key_set: &KeySet) -> DNSKEY {
    let rdata = key_set.signers().next().expect("a key").dnskey();
    DNSKEY::with_flags(257, PublicKeyBuf::new(rdata[4..].to_vec(), hickory_proto::dnssec::Algorithm::from_u8(rdata[3])))
}

/// The RRsets of a section, by owner in lower case and type, with their signatures.
pub(crate) fn sets(section: &[Record]) -> BTreeMap<(String, u16), (Vec<Record>, Vec<RRSIG>)> {
    let mut sets: BTreeMap<(String, u16), (Vec<Record>, Vec<RRSIG>)> = BTreeMap::new();
    for record in section {
        let owner = record.name.to_lowercase().to_string();
        match &record.data {
            RData::DNSSEC(DNSSECRData::RRSIG(rrsig)) => {
                sets.entry((owner, rrsig.input().type_covered.into())).or_default().1.push(rrsig.clone());
            }
            _ => sets.entry((owner, record.record_type().into())).or_default().0.push(record.clone()),
        }
    }
    sets
}

/// Checks every RRset of answer and authority by the other library; those in `unsigned` have to be. Returns how many
/// were signed.
pub(crate) fn verify(message: &Message, key_set: &KeySet, now: u32, unsigned: &[(&str, u16)]) -> Result<usize, String> {
    let key = dnskey(key_set);
    let mut verified = 0;
    for ((owner, rtype), (records, rrsigs)) in sets(&message.answers).into_iter().chain(sets(&message.authorities)) {
        let what = format!("{owner} {}", RecordType::from(rtype));
        if unsigned.contains(&(owner.as_str(), rtype)) {
            if rrsigs.is_empty() { continue } else { return Err(format!("{what} is signed")) }
        }
        let [rrsig] = rrsigs.as_slice() else { return Err(format!("{what} has {} signatures", rrsigs.len())) };
        let input = rrsig.input();
        let labels = owner.trim_end_matches('.').split('.').filter(|label| !label.is_empty()).count();
        if records.iter().any(|record| record.ttl > input.original_ttl) {
            return Err(format!("{what} has a TTL above the original one"));
        }
        let (from, to) = (input.sig_inception.get(), input.sig_expiration.get());
        if now.wrapping_sub(from).cast_signed() < 0 || to.wrapping_sub(now) < input.original_ttl {
            return Err(format!("{what} is signed from {from} to {to}"));
        }
        if !owner.contains('\\') && usize::from(input.num_labels) != labels - usize::from(owner.starts_with("*.")) {
            return Err(format!("{what}: {} labels", input.num_labels));
        }
        let owner = records.first().map(|record| record.name.clone()).ok_or(format!("{what} has no records"))?;
        key.verify_rrsig(&owner, DNSClass::IN, rrsig, records.iter()).map_err(|error| format!("{what}: {error}"))?;
        verified += 1;
    }
    Ok(verified)
}
