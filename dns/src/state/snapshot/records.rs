//! Takes [`Answers`] of the rules, returns the [`RecordSets`] of a region as wire bytes. Called when rules are loaded.
//!
//! Service bindings (HTTPS and SVCB records) get their address hints here (RFC 9460 §7.3). If a binding's target is the
//! steered name itself, its hints are the addresses that are published at that name.

use bailiwick_rules::rules::{Answers, ServiceBinding, SteeredHost};

use crate::protocol::name::{Name, NameRef};
use crate::protocol::rdata::{RdataSet, Rdatas, rtype, target};

/// The longest character-string of a TXT record (RFC 1035 §3.3).
const LONGEST_STRING: usize = 255;
/// The keys of address hints (RFC 9460 §14.3.2).
const IPV4HINT: u16 = 4;
const IPV6HINT: u16 = 6;
/// The most addresses one hint may hold.
const HINTS: usize = 16;

/// The records that one region publishes, by type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RecordSets(Box<[(u16, RdataSet)]>);

impl RecordSets {
    /// The records of a region or of `denied_answers`, published at `hosts`.
    pub(super) fn new(answers: &Answers, hosts: &[SteeredHost]) -> Self {
        let a: Vec<[u8; 4]> = answers.a.iter().map(std::net::Ipv4Addr::octets).collect();
        let aaaa: Vec<[u8; 16]> = answers.aaaa.iter().map(std::net::Ipv6Addr::octets).collect();
        let txt: Vec<Vec<u8>> = answers.txt.iter().map(|text| character_strings(text.as_bytes())).collect();
        // Every host name of the rules is a valid domain name, because the rules check labels and length in the same
        // way.
        let cname: Vec<Name> = answers.cname.iter().filter_map(|host| name_of_host(host.as_str())).collect();
        let bound = |bindings: &[ServiceBinding]| -> Vec<Vec<u8>> {
            bindings.iter().map(|binding| service_binding(binding, answers, hosts)).collect()
        };
        let (https, svcb) = (bound(&answers.https), bound(&answers.svcb));
        let sets = [
            (rtype::A, RdataSet::new(rtype::A, a.iter().map(<[u8; 4]>::as_slice))),
            (rtype::AAAA, RdataSet::new(rtype::AAAA, aaaa.iter().map(<[u8; 16]>::as_slice))),
            (rtype::TXT, RdataSet::new(rtype::TXT, txt.iter().map(Vec::as_slice))),
            (rtype::CNAME, RdataSet::new(rtype::CNAME, cname.iter().map(Name::as_wire))),
            (rtype::HTTPS, RdataSet::new(rtype::HTTPS, https.iter().map(Vec::as_slice))),
            (rtype::SVCB, RdataSet::new(rtype::SVCB, svcb.iter().map(Vec::as_slice))),
        ];
        Self(sets.into_iter().filter(|(_, set)| !set.as_ref().is_empty()).collect())
    }

    /// The types of the published records.
    pub(super) fn types(&self) -> Vec<u16> {
        self.0.iter().map(|(rtype, _)| *rtype).collect()
    }

    /// The records by type.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u16, &RdataSet)> {
        self.0.iter().map(|(rtype, set)| (*rtype, set))
    }

    /// The targets of CNAME records and of service bindings in alias mode.
    pub(super) fn aliases(&self) -> impl Iterator<Item = NameRef<'_>> {
        self.0.iter().flat_map(|(rtype, set)| {
            let is_alias = |rdata: &&[u8]| match *rtype {
                rtype::CNAME => true,
                rtype::HTTPS | rtype::SVCB => rdata.starts_with(&[0, 0]),
                _ => false,
            };
            set.as_ref().iter().filter(is_alias).filter_map(|rdata| target(*rtype, rdata))
        })
    }

    /// The records of one type.
    pub(super) fn of_type(&self, rtype: u16) -> Option<Rdatas<'_>> {
        self.0.iter().find(|(own, _)| *own == rtype).map(|(_, set)| set.as_ref())
    }
}

/// The data of an HTTPS or SVCB record (RFC 9460 §2.2): parameters are in ascending order of their keys, each key once.
fn service_binding(binding: &ServiceBinding, answers: &Answers, hosts: &[SteeredHost]) -> Vec<u8> {
    let mut params = binding.params.clone();
    let is_host = |target: &str| hosts.iter().any(|host| host.as_str() == target);
    let at_owner = binding.target.as_ref().is_none_or(|target| is_host(target.as_str()));
    if at_owner && !binding.is_alias() {
        let v4: Vec<u8> = answers.a.iter().take(HINTS).flat_map(std::net::Ipv4Addr::octets).collect();
        let v6: Vec<u8> = answers.aaaa.iter().take(HINTS).flat_map(std::net::Ipv6Addr::octets).collect();
        params.extend([(IPV4HINT, v4), (IPV6HINT, v6)].into_iter().filter(|(_, hint)| !hint.is_empty()));
        params.sort_unstable();
    }
    let target = binding.target.as_ref().and_then(|host| name_of_host(host.as_str())).unwrap_or_else(Name::root);
    let mut rdata = binding.priority.to_be_bytes().to_vec();
    rdata.extend_from_slice(target.as_wire());
    for (key, value) in params {
        // A value is never longer than its text in the rules, which is far shorter than 65,536 bytes.
        let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
        rdata.extend_from_slice(&key.to_be_bytes());
        rdata.extend_from_slice(&length.to_be_bytes());
        rdata.extend_from_slice(&value[..usize::from(length)]);
    }
    rdata
}

/// A host name of the rules, which has no final dot, as a domain name.
pub(super) fn name_of_host(host: &str) -> Option<Name> {
    Name::parse(host.as_bytes(), Some(crate::protocol::name::NameRef::ROOT)).ok()
}

/// A text as character-strings, each preceded by a byte with its length. An empty text becomes one empty string.
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
        let sets = RecordSets::new(&answers(), &[]);
        let records: Vec<&[u8]> = sets.of_type(rtype::TXT).unwrap().iter().collect();
        assert_eq!(records.len(), 2);
        assert_eq!(records[0], [0]);
        assert_eq!((records[1].len(), records[1][0], records[1][256]), (258, 255, 1));
    }

    #[test]
    fn only_types_with_records_are_published() {
        let mut answers = answers();
        answers.a = vec!["192.0.2.1".parse().unwrap(), "192.0.2.1".parse().unwrap()];
        let sets = RecordSets::new(&answers, &[]);
        assert_eq!(sets.types(), [rtype::A, rtype::TXT]);
        assert_eq!(sets.of_type(rtype::A).unwrap().iter().count(), 1, "duplicates are dropped");
        assert!(sets.of_type(rtype::AAAA).is_none());
    }

    #[test]
    fn rfc9460_7_3_hints_are_the_addresses_where_the_binding_is_at_the_owner() {
        let own = SteeredHost::parse("chat.example").unwrap();
        let record = |text: &str| {
            let answers = Answers {
                a: vec!["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()],
                aaaa: vec!["2001:db8::1".parse().unwrap()],
                https: vec![ServiceBinding::parse(text).unwrap()],
                ..Answers::default()
            };
            let sets = RecordSets::new(&answers, std::slice::from_ref(&own));
            sets.of_type(rtype::HTTPS).unwrap().first().unwrap().to_vec()
        };
        let v4 = b"\0\x04\0\x08\xc0\0\x02\x01\xc0\0\x02\x02";
        let v6 = b"\0\x06\0\x10\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01";
        let head = b"\0\x01\0\0\x01\0\x03\x02h2\0\x03\0\x02\x01\xbb";
        assert_eq!(record("1 . port=443 alpn=h2"), [&head[..], v4, v6].concat());
        assert_eq!(record("1 CHAT.example."), [&b"\0\x01\x04chat\x07example\0"[..], v4, v6].concat());
        assert_eq!(record("1 other.example"), b"\0\x01\x05other\x07example\0", "a name outside of the zone");
        assert_eq!(record("0 other.example"), b"\0\0\x05other\x07example\0");
        assert_eq!(record("0 ."), b"\0\0\0");
        let ech = b"\0\x05\0\x03\0\x45\xfe";
        assert_eq!(record("2 . ech=AEX+ key7777=x"), [&b"\0\x02\0"[..], v4, ech, v6, b"\x1e\x61\0\x01x"].concat());
    }

    #[test]
    fn a_host_becomes_an_absolute_name() {
        assert_eq!(name_of_host("a.example").unwrap().as_wire(), b"\x01a\x07example\x00");
    }
}
