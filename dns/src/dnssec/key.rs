//! One key of a zone. Takes a private key in PKCS#8, returns signatures and the RDATA of DNSKEY and DS.
//! [`super::key_set`] decides when a key is used.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{Context, SHA256, SHA384};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

use crate::protocol::name::NameRef;

/// The flags of DNSKEY: zone key and secure entry point, because one key signs the whole zone (RFC 4034 §2.1.1).
const FLAGS: u16 = 257;
/// The protocol field of DNSKEY, which is always 3 (RFC 4034 §2.1.2).
const PROTOCOL: u8 = 3;
/// The octets before the seed in the PKCS#8 of an Ed25519 key (RFC 8410 §7). ring would append the public key, and
/// OpenSSL can't read a key in that form.
const ED25519_HEAD: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
/// How many characters a line of PEM has (RFC 7468 §2).
const PEM_LINE: usize = 64;

/// The RDATA of the CDS that asks the parent to remove the DS: `0 0 0 00` (RFC 8078 §4).
pub const CDS_DELETE: [u8; 5] = [0, 0, 0, 0, 0];
/// The RDATA of the CDNSKEY that asks for the same: `0 3 0 AA==` (RFC 8078 §4).
pub const CDNSKEY_DELETE: [u8; 5] = [0, 0, PROTOCOL, 0, 0];

/// The algorithm of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum Algorithm {
    /// ECDSA on P-256 with SHA-256, number 13 (RFC 6605), which every validator knows.
    EcdsaP256Sha256,
    /// Ed25519, number 15 (RFC 8080).
    Ed25519,
}

impl Algorithm {
    /// The algorithm's number in the registry of DNS security algorithms.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::EcdsaP256Sha256 => 13,
            Self::Ed25519 => 15,
        }
    }
}

impl From<Algorithm> for u8 {
    fn from(algorithm: Algorithm) -> Self {
        algorithm.number()
    }
}

impl TryFrom<u8> for Algorithm {
    type Error = KeyError;

    fn try_from(number: u8) -> Result<Self, KeyError> {
        match number {
            13 => Ok(Self::EcdsaP256Sha256),
            15 => Ok(Self::Ed25519),
            other => Err(KeyError::Algorithm(other)),
        }
    }
}

/// The digest algorithm of a DS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DigestType {
    /// SHA-256, number 2 (RFC 4509), which every parent accepts.
    #[default]
    Sha256,
    /// SHA-384, number 4 (RFC 6605).
    Sha384,
}

/// Why a key can't be read or made, or why it can't sign.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The text isn't PEM, or holds no private key in PKCS#8.
    #[error(
        "holds no private key in PKCS#8 PEM (BEGIN PRIVATE KEY); convert one with `openssl pkcs8 -topk8 -nocrypt -in \
         FILE`"
    )]
    NotPkcs8,
    /// The key is damaged or of another kind.
    #[error(
        "holds a private key, but none for ECDSA on P-256 (algorithm 13) or Ed25519 (15), or a damaged one; restore \
         it, or make another with `bailiwick keys generate`"
    )]
    NotUsable,
    /// The algorithm isn't supported.
    #[error("algorithm {0} is not signed with here; use 13 (ECDSA on P-256 with SHA-256) or 15 (Ed25519)")]
    Algorithm(u8),
    /// The system gave no random bytes.
    #[error("the system gives no random bytes to sign or make keys with")]
    NoRandomness,
}

/// A zone's private key, with its public parts.
pub struct SigningKey {
    secret: Secret,
    /// The key in PKCS#8, as it was made or read.
    pkcs8: Box<[u8]>,
    algorithm: Algorithm,
    tag: u16,
    dnskey: Box<[u8]>,
    /// In tests: whether signing fails as if the system gave no random bytes.
    #[cfg(test)]
    fails: std::sync::atomic::AtomicBool,
}

enum Secret {
    EcdsaP256Sha256(Box<EcdsaKeyPair>, SystemRandom),
    Ed25519(Box<Ed25519KeyPair>),
}

impl SigningKey {
    /// Makes a new key.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn generate(algorithm: Algorithm) -> Result<Self, KeyError> {
        let random = SystemRandom::new();
        match algorithm {
            Algorithm::EcdsaP256Sha256 => {
                let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random);
                Self::from_pkcs8(pkcs8.map_err(|_| KeyError::NoRandomness)?.as_ref())
            }
            Algorithm::Ed25519 => {
                let seed = ring::rand::generate::<[u8; 32]>(&random).map_err(|_| KeyError::NoRandomness)?;
                Self::from_pkcs8(&[&ED25519_HEAD[..], &seed.expose()].concat())
            }
        }
    }

    /// Reads a key from PKCS#8 PEM, as [`SigningKey::to_pem`] writes it and `openssl genpkey` does.
    ///
    /// # Errors
    /// When the text holds no such key.
    ///
    /// ```
    /// use bailiwick_dns::dnssec::key::{Algorithm, SigningKey};
    /// let key = SigningKey::generate(Algorithm::EcdsaP256Sha256)?;
    /// let again = SigningKey::from_pem(&key.to_pem())?;
    /// assert_eq!((again.tag(), again.dnskey()), (key.tag(), key.dnskey()));
    /// # Ok::<(), bailiwick_dns::dnssec::key::KeyError>(())
    /// ```
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).map_err(|_| KeyError::NotPkcs8)?;
        Self::from_pkcs8(der.secret_pkcs8_der())
    }

    /// Reads a private key in PKCS #8: ECDSA P-256 or Ed25519.
    fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, KeyError> {
        let random = SystemRandom::new();
        let (secret, algorithm, public) =
            if let Ok(pair) = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &random) {
                // The first octet, which says "uncompressed", is left out (RFC 6605 §4).
                let public = pair.public_key().as_ref()[1..].to_vec();
                (Secret::EcdsaP256Sha256(Box::new(pair), random), Algorithm::EcdsaP256Sha256, public)
            } else {
                // OpenSSL writes no public key into the file.
                let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).map_err(|_| KeyError::NotUsable)?;
                let public = pair.public_key().as_ref().to_vec();
                (Secret::Ed25519(Box::new(pair)), Algorithm::Ed25519, public)
            };
        let mut dnskey = FLAGS.to_be_bytes().to_vec();
        dnskey.extend([PROTOCOL, algorithm.number()]);
        dnskey.extend(public);
        Ok(Self {
            secret,
            pkcs8: pkcs8.into(),
            algorithm,
            tag: tag_of(&dnskey),
            dnskey: dnskey.into(),
            #[cfg(test)]
            fails: false.into(),
        })
    }

    /// The private key as PKCS#8 PEM. Everybody who has this text can sign for the zone.
    #[must_use]
    pub fn to_pem(&self) -> String {
        let body = STANDARD.encode(&self.pkcs8);
        let mut pem = "-----BEGIN PRIVATE KEY-----\n".to_owned();
        for line in body.as_bytes().chunks(PEM_LINE) {
            pem.push_str(&String::from_utf8_lossy(line));
            pem.push('\n');
        }
        pem + "-----END PRIVATE KEY-----\n"
    }

    /// The signature field of an RRSIG over `data`, 64 octets: r and s (RFC 6605 §4), or Ed25519's own form (RFC 8080
    /// §4).
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn sign(&self, data: &[u8]) -> Result<Vec<u8>, KeyError> {
        #[cfg(test)]
        if self.fails.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(KeyError::NoRandomness);
        }
        match &self.secret {
            Secret::EcdsaP256Sha256(pair, random) => {
                let signature = pair.sign(random, data).map_err(|_| KeyError::NoRandomness)?;
                Ok(signature.as_ref().to_vec())
            }
            Secret::Ed25519(pair) => Ok(pair.sign(data).as_ref().to_vec()),
        }
    }

    /// Makes [`SigningKey::sign`] fail as if the system gave no random bytes, or work again. A test can't cause that in
    /// another way.
    #[cfg(test)]
    pub(crate) fn set_failing(&self, fails: bool) {
        self.fails.store(fails, std::sync::atomic::Ordering::Relaxed);
    }

    /// The number of the key's algorithm, as it stands in RRSIG, DNSKEY and DS.
    #[must_use]
    pub fn algorithm(&self) -> u8 {
        self.algorithm.number()
    }

    /// The key's algorithm.
    #[must_use]
    pub fn kind(&self) -> Algorithm {
        self.algorithm
    }

    /// The key tag (RFC 4034 appendix B). Two keys may have the same tag.
    #[must_use]
    pub fn tag(&self) -> u16 {
        self.tag
    }

    /// The RDATA of the key's DNSKEY, and of its CDNSKEY (RFC 7344 §3.2).
    #[must_use]
    pub fn dnskey(&self) -> &[u8] {
        &self.dnskey
    }

    /// The RDATA of the key's DS with digest type 2, and of its CDS (RFC 7344 §3.1).
    #[must_use]
    pub fn ds(&self, origin: NameRef<'_>) -> Vec<u8> {
        self.ds_by(origin, DigestType::Sha256)
    }

    /// The RDATA of the key's DS (RFC 4034 §5.1.4).
    #[must_use]
    pub fn ds_by(&self, origin: NameRef<'_>, digest: DigestType) -> Vec<u8> {
        let (number, hash) = match digest {
            DigestType::Sha256 => (2, &SHA256),
            DigestType::Sha384 => (4, &SHA384),
        };
        let mut context = Context::new(hash);
        // The octets that hold lengths are below 64, so only letters change.
        context.update(&origin.as_wire().to_ascii_lowercase());
        context.update(&self.dnskey);
        let mut rdata = self.tag.to_be_bytes().to_vec();
        rdata.extend([self.algorithm.number(), number]);
        rdata.extend(context.finish().as_ref());
        rdata
    }
}

/// The key tag of a DNSKEY's RDATA: a checksum (RFC 4034 appendix B).
fn tag_of(dnskey: &[u8]) -> u16 {
    let weigh = |(at, &octet): (usize, &u8)| if at % 2 == 0 { u32::from(octet) << 8 } else { u32::from(octet) };
    let sum: u32 = dnskey.iter().enumerate().map(weigh).sum();
    let [_, _, high, low] = (sum + (sum >> 16)).to_be_bytes();
    u16::from_be_bytes([high, low])
}

impl fmt::Debug for SigningKey {
    /// Shows algorithm and tag, but never the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(algorithm {}, tag {})", self.algorithm(), self.tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::name::Name;
    use ring::signature::{ECDSA_P256_SHA256_FIXED, ED25519, UnparsedPublicKey};

    fn pem(der: &[u8]) -> String {
        format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der))
    }

    fn bytes(base64: &str) -> Vec<u8> {
        STANDARD.decode(base64).unwrap()
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn rfc6605_6_1_the_key_of_the_example_has_its_tag_and_ds() {
        let public = "GojIhhXUN/u4v54ZQqGSnyhWJwaubCvTmeexv7bR6edbkrSqQpF64cYbcB7wNcP+e+MAnLr+Wi9xMWyQLc8NAA==";
        let mut der = vec![0x30, 0x81, 0x87, 2, 1, 0, 0x30, 0x13, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8];
        der.extend([0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7, 4, 0x6d, 0x30, 0x6b, 2, 1, 1, 4, 0x20]);
        der.extend(bytes("GU6SnQ/Ou+xC5RumuIUIuJZteXT2z0O/ok1s38Et6mQ="));
        der.extend([0xa1, 0x44, 3, 0x42, 0, 4]);
        der.extend(bytes(public));
        let key = SigningKey::from_pem(&pem(&der)).unwrap();
        assert_eq!((key.algorithm(), key.tag()), (13, 55648));
        assert_eq!(key.dnskey(), [&[1, 1, 3, 13][..], &bytes(public)].concat());
        // The owner's case doesn't matter (RFC 4034 §5.1.4).
        let origin: Name = "Example.NET.".parse().unwrap();
        let ds = key.ds(origin.as_ref());
        assert_eq!(hex(&ds), "d9600d02b4c8c1fe2e7477127b27115656ad6256f424625bf5c1e2770ce6d6e37df61d17");
        assert_eq!(key.ds_by(origin.as_ref(), DigestType::Sha384).len(), 4 + 48);
    }

    #[test]
    fn rfc8080_6_1_the_key_of_the_example_has_its_tag_and_ds() {
        let mut der = ED25519_HEAD.to_vec();
        der.extend(bytes("ODIyNjAzODQ2MjgwODAxMjI2NDUxOTAyMDQxNDIyNjI="));
        let key = SigningKey::from_pem(&pem(&der)).unwrap();
        assert_eq!((key.algorithm(), key.tag()), (15, 3613));
        assert_eq!(key.dnskey(), [&[1, 1, 3, 15][..], &bytes("l02Woi0iS8Aa25FQkUd9RMzZHJpBoRQwAQEX1SxZJA4=")].concat());
        let origin: Name = "example.com.".parse().unwrap();
        let ds = hex(&key.ds(origin.as_ref()));
        assert_eq!(ds, "0e1d0f023aa5ab37efce57f737fc1627013fee07bdf241bd10f3b1964ab55c78e79a304b");
    }

    #[test]
    fn what_a_key_signs_verifies_by_its_dnskey_even_after_a_round_trip() {
        for algorithm in [Algorithm::EcdsaP256Sha256, Algorithm::Ed25519] {
            let made = SigningKey::generate(algorithm).unwrap();
            let key = SigningKey::from_pem(&made.to_pem()).unwrap();
            assert_eq!((key.kind(), key.tag(), key.dnskey()), (algorithm, made.tag(), made.dnskey()));
            let signature = key.sign(b"data").unwrap();
            assert_eq!(signature.len(), 64);
            let verified = |data: &[u8]| match algorithm {
                Algorithm::EcdsaP256Sha256 => {
                    let public = [&[4][..], &made.dnskey()[4..]].concat();
                    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, public).verify(data, &signature)
                }
                Algorithm::Ed25519 => UnparsedPublicKey::new(&ED25519, &made.dnskey()[4..]).verify(data, &signature),
            };
            assert!(verified(b"data").is_ok() && verified(b"date").is_err(), "{algorithm:?}");
            assert_ne!(SigningKey::generate(algorithm).unwrap().dnskey(), key.dnskey());
        }
    }

    #[test]
    fn invalid_keys_give_an_error_and_the_debug_output_shows_no_secret() {
        assert_eq!(SigningKey::from_pem("").unwrap_err(), KeyError::NotPkcs8);
        let other = "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n";
        assert_eq!(SigningKey::from_pem(other).unwrap_err(), KeyError::NotPkcs8);
        assert_eq!(SigningKey::from_pem(&pem(&[0x30, 0])).unwrap_err(), KeyError::NotUsable);
        assert_eq!(Algorithm::try_from(8), Err(KeyError::Algorithm(8)));
        let key = SigningKey::generate(Algorithm::Ed25519).unwrap();
        assert_eq!(format!("{key:?}"), format!("SigningKey(algorithm 15, tag {})", key.tag()));
    }
}
