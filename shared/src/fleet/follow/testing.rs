//! Heads, keys and signatures for tests: a quick sum over key and message stands in for Ed25519. Never in a release.

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

/// The key of this seed.
#[must_use]
pub fn key(seed: u8) -> PublicKey {
    PublicKey([seed; 32])
}

/// The stand-in's signature: FNV-1a, which tests of 100,000 histories can afford.
#[must_use]
pub fn mac(key: &PublicKey, message: &[u8]) -> Vec<u8> {
    let sum = key
        .0
        .iter()
        .chain(message)
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    sum.to_be_bytes().to_vec()
}

/// Verifies the stand-in's signature.
#[must_use]
pub fn stand_in(key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
    mac(key, message) == signature
}

/// A head signed by the key of this seed.
#[must_use]
pub fn sign(head: Head, seed: u8) -> Head {
    let key = key(seed);
    let signature = mac(&key, &head.signed_bytes());
    head.signed(&key, &signature)
}
