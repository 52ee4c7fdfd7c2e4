//! The server's texts about itself. Takes the configured texts at the start, returns answers to CHAOS questions (RFC
//! 4892) and the NSID. Called by `wire`.

use smallvec::smallvec;

use super::{Answer, AnswerSet, Data, Owner, Query, Rcode, Signed};
use crate::protocol::name::NameRef;
use crate::protocol::rdata::{RdataSet, rtype};

/// Class CHAOS.
pub(crate) const CHAOS: u16 = 3;
/// The longest text: one character-string (RFC 1035 §3.3).
pub(crate) const LONGEST: usize = 255;

/// The names that ask for the version.
const VERSION: [&[u8]; 2] = [b"\x07version\x04bind\x00", b"\x07version\x06server\x00"];
/// The names that ask which server this is (RFC 4892 §2).
const HOSTNAME: [&[u8]; 2] = [b"\x08hostname\x04bind\x00", b"\x02id\x06server\x00"];

/// The configured texts. By default there are none. A question for an absent text is refused, and an absent NSID is
/// left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    version: Option<RdataSet>,
    hostname: Option<RdataSet>,
    nsid: Option<Box<[u8]>>,
}

impl Identity {
    /// Takes texts of at most 255 octets each. Longer texts are cut.
    #[must_use]
    pub fn new(version: Option<&str>, hostname: Option<&str>, nsid: Option<&str>) -> Self {
        fn cut(text: &str) -> &[u8] {
            &text.as_bytes()[..text.len().min(LONGEST)]
        }
        let record = |text: &str| {
            let length = u8::try_from(cut(text).len()).unwrap_or(u8::MAX);
            RdataSet::new(rtype::TXT, [[&[length], cut(text)].concat().as_slice()])
        };
        Self { version: version.map(record), hostname: hostname.map(record), nsid: nsid.map(|text| cut(text).into()) }
    }

    /// The name server identifier (RFC 5001).
    pub(crate) fn nsid(&self) -> Option<&[u8]> {
        self.nsid.as_deref()
    }

    /// The answer to a question of class CHAOS.
    pub(crate) fn answer<'a>(&'a self, query: &Query<'a>) -> Answer<'a> {
        let is = |names: [&'static [u8]; 2]| {
            names.iter().any(|name| NameRef::from_wire(name).is_ok_and(|name| name == query.qname))
        };
        let set = match query.qtype {
            rtype::TXT | rtype::ANY if is(VERSION) => self.version.as_ref(),
            rtype::TXT | rtype::ANY if is(HOSTNAME) => self.hostname.as_ref(),
            _ => None,
        };
        let Some(set) = set else { return Answer::bare(Rcode::REFUSED) };
        let data = Data::Stored(set.as_ref());
        let set = AnswerSet { owner: Owner::Ref(query.qname), rtype: rtype::TXT, ttl: 0, data, signed: Signed::No };
        Answer { authoritative: true, answer: smallvec![set], ..Answer::bare(Rcode::NOERROR) }
    }
}
