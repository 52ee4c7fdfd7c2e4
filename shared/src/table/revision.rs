//! Identifies a rules document by number and digest. Takes the revision in service and another document's, returns
//! whether the other may replace it. Called where a node or a Worker is offered rules.

use core::fmt;

use sha2::Digest;

use crate::rules::KeyDigest;
use crate::turns::Turns;

/// How many bytes are hashed before a turn may end.
const HASHED: usize = 16 << 10;

/// Which document this is: its number, and the digest of its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Revision {
    /// The document's `revision`.
    pub number: u64,
    /// SHA-256 of the document's bytes.
    pub sha256: [u8; 32],
}

/// How a candidate document compares with the one in service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Succession {
    /// A higher revision: to be taken.
    Newer,
    /// The same document, byte for byte.
    Same,
    /// A lower revision: to be ignored.
    Older,
    /// The same revision with other bytes: to be rejected, with an alarm.
    Conflict,
}

impl Revision {
    /// The SHA-256 of a document's bytes.
    pub async fn digest_in_turns(bytes: &[u8], turns: &mut Turns<'_>) -> [u8; 32] {
        let mut sha256 = sha2::Sha256::new();
        for piece in bytes.chunks(HASHED) {
            turns.spend(HASHED / 8).await;
            sha256.update(piece);
        }
        sha256.finalize().into()
    }

    /// How `candidate` compares with this document. To roll back, an operator publishes the old content under a higher
    /// number.
    ///
    /// ```
    /// use bailiwick_rules::table::{Revision, Succession};
    /// let now = Revision { number: 7, sha256: [1; 32] };
    /// assert_eq!(now.succession(&Revision { number: 8, sha256: [2; 32] }), Succession::Newer);
    /// assert_eq!(now.succession(&Revision { number: 7, sha256: [2; 32] }), Succession::Conflict);
    /// ```
    #[must_use]
    pub fn succession(&self, candidate: &Self) -> Succession {
        match candidate.number.cmp(&self.number) {
            core::cmp::Ordering::Greater => Succession::Newer,
            core::cmp::Ordering::Less => Succession::Older,
            core::cmp::Ordering::Equal if candidate.sha256 == self.sha256 => Succession::Same,
            core::cmp::Ordering::Equal => Succession::Conflict,
        }
    }

    /// The entity tag (RFC 9110 §8.8.3) by which a document is named over HTTP.
    #[must_use]
    pub fn entity_tag(&self) -> String {
        format!("\"{}-{}\"", self.number, self.sha256_hex())
    }

    /// The digest in lower-case hex.
    #[must_use]
    pub fn sha256_hex(&self) -> String {
        KeyDigest(self.sha256).to_string()
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (sha256 {}…)", self.number, &self.sha256_hex()[..12])
    }
}
