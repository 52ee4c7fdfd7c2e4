//! The head: a small signed document that says which rules document is published, by whom and why. Takes the bytes of a
//! head and the keys that may publish, returns the head, or why nodes don't accept it. Called by [`super::follow`] and
//! by the publishing command. A stage is a part of the fleet: the canary nodes get a new document first, then the early
//! nodes, then all.
//!
//! This module holds no private keys and no cryptography: its caller hands in a function that verifies Ed25519.

#[cfg(test)]
mod tests;

use core::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::Digest;

use crate::receipt::PublicKey;
use crate::rules::KeyDigest;
use crate::table::Revision;
use crate::time::Timestamp;

/// The longest head that is read, in bytes.
pub const LONGEST_HEAD: usize = 16 << 10;
/// The longest reason and the longest description of an impact, in characters.
pub const LONGEST_TEXT: usize = 500;
/// The longest name of an author, in characters.
pub const LONGEST_AUTHOR: usize = 100;
/// The most approvals of one head.
pub const MOST_APPROVALS: usize = 16;
/// The highest revision of a rules document.
pub const HIGHEST_REVISION: u64 = 1 << 53;

/// What the bytes of every head's signature begin with, so that no other signature is valid for a head.
const CONTEXT: &str = "bailiwick head 1\n";
/// What the signed bytes of every approval begin with.
const APPROVAL: &str = "bailiwick approval 1\n";

/// Verifies an Ed25519 signature: takes the key, what was signed, and the signature.
pub type Verify = fn(&PublicKey, &[u8], &[u8]) -> bool;

/// A part of the fleet: which nodes serve a revision, and which part a node belongs to. A revision goes through the
/// stages in order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// The nodes that get a revision first.
    Canary,
    /// The nodes that get it next.
    Early,
    /// All other nodes.
    #[default]
    Rest,
}

impl Stage {
    /// All stages in order, with the words for configurations and texts.
    pub const ALL: [(Self, &'static str); 3] = [(Self::Canary, "canary"), (Self::Early, "early"), (Self::Rest, "rest")];

    /// The word for this stage.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(stage, _)| *stage == self).map_or("rest", |(_, word)| word)
    }

    /// Reads the word for a stage.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, word)| *word == text).map(|(stage, _)| *stage)
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Which rules are published.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// The document's revision.
    pub revision: u64,
    /// SHA-256 of the document's bytes in lower-case hex.
    pub sha256: String,
    /// The revision that this one replaces. Absent for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub based_on: Option<u64>,
    /// Who published the document.
    pub author: String,
    /// Why the document was published, in one line.
    pub reason: String,
    /// When it was published, by the publisher's clock. No decision depends on it.
    pub created_at: Timestamp,
    /// Up to which stage nodes serve it.
    #[serde(default)]
    pub stage: Stage,
    /// Approvals by others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<Approval>,
    /// What the document changes for clients, in one line, as computed before publication.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub impact: Option<String>,
    /// The publisher's signature. Absent where nodes don't check it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
}

/// An approval by somebody other than the publisher.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// Who approved.
    pub author: String,
    /// A signature of [`Head::approved_bytes`].
    pub signature: Signature,
}

/// A signature and the thumbprint of its key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// The key's thumbprint: [`PublicKey::thumbprint`].
    pub key: String,
    /// The signature in base64url.
    pub value: String,
}

/// Why nodes don't accept a head.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HeadError {
    /// The bytes are no head.
    Form(String),
    /// It has no signature.
    Unsigned,
    /// The key isn't one of those that may publish.
    UnknownKey(String),
    /// The signature is wrong.
    Forged(String),
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form(why) => write!(f, "it is no head: {why}"),
            Self::Unsigned => f.write_str(
                "it has no signature, and this node believes its trusted_publishers only; publish with --key",
            ),
            Self::UnknownKey(key) => write!(
                f,
                "it is signed by key {key:?}, which is none of this node's trusted_publishers; add that key or publish \
                 with another"
            ),
            Self::Forged(key) => {
                write!(f, "its signature by key {key:?} is wrong: it was changed, or never signed by that key")
            }
        }
    }
}

impl Head {
    /// Reads a head. Any bytes are allowed.
    ///
    /// # Errors
    /// Why the bytes are no head.
    pub fn parse(bytes: &[u8]) -> Result<Self, HeadError> {
        let form = |why: &str| HeadError::Form(why.to_owned());
        if bytes.len() > LONGEST_HEAD {
            return Err(form("it is longer than 16 KiB"));
        }
        let head: Self = serde_json::from_slice(bytes).map_err(|error| {
            // The error may quote the input.
            HeadError::Form(error.to_string().chars().filter(|c| !c.is_control()).take(LONGEST_TEXT).collect())
        })?;
        match head.fault() {
            Some(fault) => Err(form(fault)),
            None => Ok(head),
        }
    }

    /// What is wrong with the values of a head whose JSON could be read.
    fn fault(&self) -> Option<&'static str> {
        let is_line = |text: &str, most: usize| text.chars().count() <= most && !text.chars().any(char::is_control);
        let mut texts = [&self.reason].into_iter().chain(&self.impact);
        let mut names = [&self.author].into_iter().chain(self.approvals.iter().map(|approval| &approval.author));
        match () {
            () if !(1..=HIGHEST_REVISION).contains(&self.revision) => Some("its revision is no number from 1 to 2^53"),
            () if self.based_on.is_some_and(|base| base >= self.revision) => {
                Some("it is based on a revision that isn't lower than its own")
            }
            () if KeyDigest::parse(&self.sha256).is_none() => Some("its sha256 is not 64 lower-case hex digits"),
            () if self.approvals.len() > MOST_APPROVALS => Some("it has more than 16 approvals"),
            () if !texts.all(|text| is_line(text, LONGEST_TEXT)) => {
                Some("its reason or impact is no line of at most 500 characters")
            }
            () if !names.all(|name| is_line(name, LONGEST_AUTHOR)) => {
                Some("an author is no line of at most 100 characters")
            }
            () => None,
        }
    }

    /// The head as it is stored and sent.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        // A head is plain strings and numbers: it can always be written.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Which document the head names. `None` if `sha256` isn't a digest, which [`Head::parse`] refuses.
    #[must_use]
    pub fn names(&self) -> Option<Revision> {
        let KeyDigest(sha256) = KeyDigest::parse(&self.sha256)?;
        Some(Revision { number: self.revision, sha256 })
    }

    /// What an approval signs: everything but the stage, the approvals and the signature.
    #[must_use]
    pub fn approved_bytes(&self) -> Vec<u8> {
        let mut bytes = APPROVAL.as_bytes().to_vec();
        self.write_content(&mut bytes);
        bytes
    }

    /// What the publisher signs: everything but the signature.
    #[must_use]
    pub fn signed_bytes(&self) -> Vec<u8> {
        let mut bytes = CONTEXT.as_bytes().to_vec();
        self.write_content(&mut bytes);
        field(&mut bytes, "stage", self.stage.as_str());
        for Approval { author, signature } in &self.approvals {
            field(&mut bytes, "approval", author);
            field(&mut bytes, "key", &signature.key);
            field(&mut bytes, "signature", &signature.value);
        }
        bytes
    }

    /// Writes what both the publisher and those who approve sign.
    fn write_content(&self, bytes: &mut Vec<u8>) {
        field(bytes, "revision", &self.revision.to_string());
        field(bytes, "sha256", &self.sha256);
        field(bytes, "based_on", &self.based_on.map(|base| base.to_string()).unwrap_or_default());
        field(bytes, "author", &self.author);
        field(bytes, "reason", &self.reason);
        field(bytes, "created_at", &self.created_at.to_string());
        field(bytes, "impact", self.impact.as_deref().unwrap_or_default());
    }

    /// The head with a signature over [`Head::signed_bytes`].
    #[must_use]
    pub fn signed(self, key: &PublicKey, signature: &[u8]) -> Self {
        Self { signature: Some(Signature::new(key, signature)), ..self }
    }

    /// Checks that one of the publishers signed the head.
    ///
    /// # Errors
    /// Why nodes don't accept the head.
    pub fn verify(&self, publishers: &[PublicKey], verify: Verify) -> Result<(), HeadError> {
        let signature = self.signature.as_ref().ok_or(HeadError::Unsigned)?;
        signature.check(&self.signed_bytes(), publishers, verify)
    }

    /// The keys that approve the head, each once and without the publisher's own. Approvals by keys that may not
    /// publish don't count.
    #[must_use]
    pub fn approved_by(&self, publishers: &[PublicKey], verify: Verify) -> Vec<String> {
        let (bytes, mut keys) = (self.approved_bytes(), Vec::new());
        for Approval { signature, .. } in &self.approvals {
            let is_own = self.signature.as_ref().is_some_and(|own| own.key == signature.key);
            if !is_own && !keys.contains(&signature.key) && signature.check(&bytes, publishers, verify).is_ok() {
                keys.push(signature.key.clone());
            }
        }
        keys
    }
}

impl Signature {
    /// A signature that this key made.
    #[must_use]
    pub fn new(key: &PublicKey, signature: &[u8]) -> Self {
        Self { key: key.thumbprint(), value: URL_SAFE_NO_PAD.encode(signature) }
    }

    fn check(&self, message: &[u8], publishers: &[PublicKey], verify: Verify) -> Result<(), HeadError> {
        let key = publishers.iter().find(|key| key.thumbprint() == self.key);
        let key = key.ok_or_else(|| HeadError::UnknownKey(short(&self.key)))?;
        let value = URL_SAFE_NO_PAD.decode(&self.value).map_err(|_| HeadError::Forged(short(&self.key)))?;
        if verify(key, message, &value) { Ok(()) } else { Err(HeadError::Forged(short(&self.key))) }
    }
}

/// A key's name from outside, safe and short enough for a message.
fn short(key: &str) -> String {
    key.chars().filter(char::is_ascii_graphic).take(43).collect()
}

/// Adds a field with its length before its value, so that no two different heads give the same bytes.
fn field(bytes: &mut Vec<u8>, name: &str, value: &str) {
    bytes.extend_from_slice(format!("{name} {} {value}\n", value.len()).as_bytes());
}

/// The SHA-256 of a document in lower-case hex, as it stands in a head.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    KeyDigest(sha2::Sha256::digest(bytes).into()).to_string()
}
