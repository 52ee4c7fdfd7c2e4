//! Heads, keys and signatures for tests. A fast checksum over key and message stands in for Ed25519. Never part of a
//! release.

use super::super::head::{Head, Stage};
use crate::receipt::PublicKey;
use crate::time::Timestamp;

/// A head that nobody has signed.
#[must_use]
pub fn unsigned(revision: u64, sha256: String, stage: Stage) -> Head {
    Head {
        revision,
        sha256,
        based_on: None,
        author: "ann".into(),
        reason: "a test".into(),
        created_at: Timestamp(0),
        stage,
        approvals: Vec::new(),
        impact: None,
        signature: None,
    }
}

/// A key made from a seed.
#[must_use]
pub fn key(seed: u8) -> PublicKey {
    PublicKey([seed; 32])
}

/// The checksum that stands in for a signature: FNV-1a, fast enough for tests of 100,000 histories.
#[must_use]
pub fn mac(key: &PublicKey, message: &[u8]) -> Vec<u8> {
    let sum = key
        .0
        .iter()
        .chain(message)
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    sum.to_be_bytes().to_vec()
}

/// Verifies such a checksum.
#[must_use]
pub fn stand_in(key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
    mac(key, message) == signature
}

/// A head signed by the key made from a seed.
#[must_use]
pub fn sign(head: Head, seed: u8) -> Head {
    let key = key(seed);
    let signature = mac(&key, &head.signed_bytes());
    head.signed(&key, &signature)
}
