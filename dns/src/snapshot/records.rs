//! Record sets of a region as wire bytes: [`Answers`] of the rules enter at load, [`RecordSets`] leave, from which a snapshot answers.

use bailiwick_rules::rules::Answers;

use crate::name::Name;
use crate::rdata::{RdataSet, Rdatas, rtype};

/// The longest character-string of a TXT record (RFC 1035 §3.3).
const LONGEST_STRING: usize = 255;

/// What one region publishes, by type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RecordSets(Box<[(u16, RdataSet)]>);

impl RecordSets {
    pub(super) fn new(answers: &Answers) -> Self {
        let a: Vec<[u8; 4]> = answers.a.iter().map(std::net::Ipv4Addr::octets).collect();
        let aaaa: Vec<[u8; 16]> = answers.aaaa.iter().map(std::net::Ipv6Addr::octets).collect();
        let txt: Vec<Vec<u8>> = answers.txt.iter().map(|text| character_strings(text.as_bytes())).collect();
        // A host name of the rules is a domain name: they were checked for labels and length alike.
        let cname: Vec<Name> = answers.cname.iter().filter_map(|host| name_of_host(host.as_str())).collect();
        let sets = [
            (rtype::A, RdataSet::new(rtype::A, a.iter().map(<[u8; 4]>::as_slice))),
            (rtype::AAAA, RdataSet::new(rtype::AAAA, aaaa.iter().map(<[u8; 16]>::as_slice))),
            (rtype::TXT, RdataSet::new(rtype::TXT, txt.iter().map(Vec::as_slice))),
            (rtype::CNAME, RdataSet::new(rtype::CNAME, cname.iter().map(Name::as_wire))),
        ];
        Self(sets.into_iter().filter(|(_, set)| !set.as_ref().is_empty()).collect())
    }

    /// The types published.
    pub(super) fn types(&self) -> Vec<u16> {
        self.0.iter().map(|(rtype, _)| *rtype).collect()
    }

    /// The records of one type.
    pub(super) fn of_type(&self, rtype: u16) -> Option<Rdatas<'_>> {
        self.0.iter().find(|(one, _)| *one == rtype).map(|(_, set)| set.as_ref())
    }
}

/// A host name of the rules, which has no final dot, as a domain name.
pub(super) fn name_of_host(host: &str) -> Option<Name> {
    Name::parse(host.as_bytes(), Some(crate::name::NameRef::ROOT)).ok()
}

/// Text cut into character-strings, each behind its length; an empty text is one empty string.
fn character_strings(text: &[u8]) -> Vec<u8> {
    if text.is_empty() {
        return vec![0];
    }
    let length = |chunk: &[u8]| u8::try_from(chunk.len()).unwrap_or(u8::MAX);
    text.chunks(LONGEST_STRING).flat_map(|chunk| std::iter::once(length(chunk)).chain(chunk.iter().copied())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers() -> Answers {
        Answers { txt: vec!["x".repeat(256), String::new()], ..Answers::default() }
    }

    #[test]
    fn rfc1035_3_3_14_long_texts_are_cut_into_strings_of_255() {
        let sets = RecordSets::new(&answers());
        let records: Vec<&[u8]> = sets.of_type(rtype::TXT).unwrap().iter().collect();
        assert_eq!(records.len(), 2);
        assert_eq!(records[0], [0]);
        assert_eq!((records[1].len(), records[1][0], records[1][256]), (258, 255, 1));
    }

    #[test]
    fn only_types_with_records_are_published() {
        let mut answers = answers();
        answers.a = vec!["192.0.2.1".parse().unwrap(), "192.0.2.1".parse().unwrap()];
        let sets = RecordSets::new(&answers);
        assert_eq!(sets.types(), [rtype::A, rtype::TXT]);
        assert_eq!(sets.of_type(rtype::A).unwrap().iter().count(), 1, "duplicates are dropped");
        assert!(sets.of_type(rtype::AAAA).is_none());
    }

    #[test]
    fn a_host_becomes_an_absolute_name() {
        assert_eq!(name_of_host("a.example").unwrap().as_wire(), b"\x01a\x07example\x00");
    }
}
