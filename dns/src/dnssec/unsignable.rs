//! Takes the records of a zone's file, returns an error for each record that a zone can't have if it is signed here.
//! Called before a zone is signed.

use super::lifetime::LONGEST_TTL;
use crate::protocol::rdata::rtype;
use crate::zone::{Records, ZoneError};

/// The types of records that the signer makes. The file of a signed zone must not have them.
const MADE_HERE: [(u16, &str); 7] = [
    (rtype::RRSIG, "RRSIG"),
    (rtype::NSEC, "NSEC"),
    (rtype::DNSKEY, "DNSKEY"),
    (rtype::NSEC3, "NSEC3"),
    (rtype::NSEC3PARAM, "NSEC3PARAM"),
    (rtype::CDS, "CDS"),
    (rtype::CDNSKEY, "CDNSKEY"),
];

/// The errors that keep these records from being signed.
pub(crate) fn unsignable(records: &Records) -> Vec<ZoneError> {
    let errors = records.iter().filter_map(|record| {
        let made_here = MADE_HERE.iter().find(|(rtype, _)| *rtype == record.rtype);
        let message = match made_here {
            Some((_, word)) => {
                let owner = record.owner;
                format!(
                    "the {word} of {owner} can't stand in a zone that is signed here, which makes its own; remove the \
                     record, or the zone from [dnssec]"
                )
            }
            None if record.ttl > LONGEST_TTL => {
                format!("a TTL of {} s is longer than a signature can last; write at most {LONGEST_TTL}", record.ttl)
            }
            None => return None,
        };
        Some(ZoneError { place: record.place(), message })
    });
    errors.collect()
}
