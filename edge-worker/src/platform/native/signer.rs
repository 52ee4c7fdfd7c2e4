//! Makes Ed25519 signatures. Takes a private key's text and messages, returns signatures. Called by
//! `runtime::receipt`.

use bailiwick_rules::receipt::PublicKey;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{Ed25519KeyPair, KeyPair};

use crate::platform::ed25519::EncodedKey;

/// A private key, with its public key and its name in receipts.
#[derive(Debug)]
pub(crate) struct Signer {
    pair: Ed25519KeyPair,
    /// The public key.
    pub(crate) public: PublicKey,
    /// The thumbprint of the public key, which names the key in receipts.
    pub(crate) kid: String,
}

impl Signer {
    /// Reads a secret. `None` if the secret is no key, or if its parts don't belong together.
    #[expect(clippy::unused_async, reason = "other platforms wait here")]
    pub(crate) async fn read(text: &str) -> Option<Self> {
        let pair = match EncodedKey::read(text)? {
            EncodedKey::Jwk { d, x } => {
                let [seed, public] = [d, x].map(|part| URL_SAFE_NO_PAD.decode(part).ok());
                Ed25519KeyPair::from_seed_and_public_key(&seed?, &public?).ok()?
            }
            // It may lack the public part.
            EncodedKey::Pkcs8(bytes) => Ed25519KeyPair::from_pkcs8_maybe_unchecked(&bytes).ok()?,
        };
        let public = PublicKey(pair.public_key().as_ref().try_into().ok()?);
        Some(Self { pair, public, kid: public.thumbprint() })
    }

    /// Signs a message.
    #[expect(clippy::unused_async, reason = "other platforms wait here")]
    pub(crate) async fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        Some(self.pair.sign(message).as_ref().to_vec())
    }
}
