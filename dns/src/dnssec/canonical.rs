//! The canonical form of RRsets. Takes an RRset and the fields of its RRSIG, returns the octets that are signed (RFC
//! 4034 §3.1.8.1). Called by `sign`.

use super::key::SigningKey;
use super::lifetime::Window;
use crate::protocol::name::NameRef;
use crate::protocol::rdata::{Rdatas, canonical};

/// Class IN.
const IN: [u8; 2] = [0, 1];

/// An RRset that is to be signed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SignedData<'a> {
    /// The owner, in upper or lower case.
    pub(crate) owner: NameRef<'a>,
    /// The type.
    pub(crate) rtype: u16,
    /// The longest TTL with which the RRset is served, in seconds. It becomes the original TTL of the RRSIG.
    pub(crate) ttl: u32,
    /// The data, which is already in canonical order and without duplicates.
    pub(crate) rdatas: Rdatas<'a>,
}

impl SignedData<'_> {
    /// The RDATA of the RRSIG up to the signature, with names in lower case (RFC 4034 §3.1).
    pub(crate) fn head(&self, origin: NameRef<'_>, key: &SigningKey, window: Window) -> Vec<u8> {
        let mut head = self.rtype.to_be_bytes().to_vec();
        head.extend([key.algorithm(), self.labels()]);
        for word in [self.ttl, window.expiration, window.inception] {
            head.extend(word.to_be_bytes());
        }
        head.extend(key.tag().to_be_bytes());
        append_lower(&mut head, origin);
        head
    }

    /// How many labels the owner has, not counting the root and a leading `*` (RFC 4034 §3.1.3).
    fn labels(&self) -> u8 {
        let labels = self.owner.labels().count() - usize::from(self.owner.is_wildcard());
        u8::try_from(labels).unwrap_or(u8::MAX)
    }

    /// Appends the records in canonical form (RFC 4034 §6.2): each with its full owner name, without compression.
    pub(crate) fn append_records(&self, out: &mut Vec<u8>) {
        for rdata in self.rdatas.iter() {
            append_lower(out, self.owner);
            out.extend(self.rtype.to_be_bytes());
            out.extend(IN);
            out.extend(self.ttl.to_be_bytes());
            let rdata = canonical(self.rtype, rdata);
            // No rdata is longer than 65,535 octets.
            out.extend(u16::try_from(rdata.len()).unwrap_or(u16::MAX).to_be_bytes());
            out.extend_from_slice(&rdata);
        }
    }
}

fn append_lower(out: &mut Vec<u8>, name: NameRef<'_>) {
    // Lengths of labels are at most 63, so they are never changed like letters.
    out.extend(name.as_wire().iter().map(u8::to_ascii_lowercase));
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    use super::*;
    use crate::dnssec::key::SigningKey;
    use crate::protocol::rdata::{RdataSet, rtype};
    use crate::testing::name;

    /// Ed25519 gives the same signature for the same octets. So the RFC's example shows that the right octets are
    /// signed.
    #[test]
    fn rfc8080_6_1_the_example_gets_the_same_signature() {
        let key = "-----BEGIN PRIVATE \
            KEY-----\nMC4CAQAwBQYDK2VwBCIEIDgyMjYwMzg0NjI4MDgwMTIyNjQ1MTkwMjA0MTQyMjYy\n-----END PRIVATE KEY-----\n";
        let key = SigningKey::from_pem(key).unwrap();
        let origin = name("Example.COM");
        let rdatas = RdataSet::new(rtype::MX, [&b"\x00\x0a\x04MAIL\x07eXample\x03com\x00"[..]]);
        let covered = SignedData { owner: origin.as_ref(), rtype: rtype::MX, ttl: 3600, rdatas: rdatas.as_ref() };
        let window = Window { inception: 1_438_207_200, expiration: 1_440_021_600 };
        let mut signed = covered.head(origin.as_ref(), &key, window);
        covered.append_records(&mut signed);
        let expected = "oL9krJun7xfBOIWcGHi7mag5/hdZrKWw15jPGrHpjQeRAvTdszaPD+QLs3fx8A4M3e23mRZ9VrbpMngwcrqNAg==";
        assert_eq!(STANDARD.encode(key.sign(&signed).unwrap()), expected);
    }

    #[test]
    fn rfc4034_3_1_3_a_leading_asterisk_does_not_count_as_a_label() {
        let labels = |owner: &str| {
            let owner = name(owner);
            SignedData { owner: owner.as_ref(), rtype: rtype::A, ttl: 0, rdatas: Rdatas::EMPTY }.labels()
        };
        assert_eq!(
            ["www.example.com", "*.example.com", "*.*.example.com", "a.*.example.com", "."].map(labels),
            [3, 2, 3, 4, 0]
        );
    }
}
