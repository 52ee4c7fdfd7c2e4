//! Signed texts: compact JWS (RFC 7515 §3.1) with Ed25519 (RFC 8037 §3.1). Takes a payload and a key, returns the
//! signed text; takes a signed text and public keys, returns its payload. Called for receipts and for reports of
//! rollouts. Pure.
//!
//! Only one algorithm, one type and one form are accepted (RFC 8725 §3.1, §3.11). So the text never decides how it is
//! verified.

use bailiwick_rules::receipt::{ALGORITHM, Header, PublicKey, compact};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde_json::Value;

/// The kind of signed text that is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    /// The word for the kind, such as `receipt`.
    pub(crate) name: &'static str,
    /// The type in the header of the text. It prevents that a text of another kind is accepted.
    pub(crate) typ: &'static str,
    /// The length of the longest text, in bytes.
    pub(crate) longest: usize,
}

/// Why a text isn't valid.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum JwsError {
    /// The text isn't three parts in base64url, or is far too long.
    #[error(
        "this is not a compact JWS: three parts in base64url with dots between, at most {} bytes; check that it was \
         copied whole",
        .0.longest
    )]
    Form(Kind),
    /// The header isn't that of this kind.
    #[error("its header is not that of a {} ({ALGORITHM}, {}, a key's name, and nothing else)", .0.name, .0.typ)]
    Header(Kind),
    /// The key set lacks the key that the text names.
    #[error("the key set has no key {kid}; fetch it again from the gateway that signed, or add the retired key")]
    UnknownKey {
        /// The name of the key.
        kid: String,
    },
    /// The key that the text names didn't make this signature of this text.
    #[error("the signature is wrong: the {name} was changed, or never signed by key {kid}")]
    Signature {
        /// What it should be.
        name: &'static str,
        /// The name of the key.
        kid: String,
    },
}

/// Checks the signature; returns the key's name and the payload.
///
/// # Errors
/// The first reason why the text isn't valid.
pub(crate) fn open(text: &str, kind: Kind, keys: &[PublicKey]) -> Result<(String, Vec<u8>), JwsError> {
    let form = || JwsError::Form(kind);
    if text.len() > kind.longest {
        return Err(form());
    }
    let (input, signature) = text.rsplit_once('.').ok_or_else(form)?;
    let (header, payload) = input.split_once('.').ok_or_else(form)?;
    let decoded = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| form());
    let (header, payload, signature) = (decoded(header)?, decoded(payload)?, decoded(signature)?);
    let header: Header = serde_json::from_slice(&header).map_err(|_| JwsError::Header(kind))?;
    if header.alg != ALGORITHM || header.typ != kind.typ {
        return Err(JwsError::Header(kind));
    }
    let kid = header.kid;
    let Some(key) = keys.iter().find(|key| key.thumbprint() == kid) else {
        return Err(JwsError::UnknownKey { kid });
    };
    match UnparsedPublicKey::new(&ED25519, key.0).verify(input.as_bytes(), &signature) {
        Ok(()) => Ok((kid, payload)),
        Err(_) => Err(JwsError::Signature { name: kind.name, kid }),
    }
}

/// A private key.
pub(crate) struct Signer {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl Signer {
    /// Reads the text of the Worker's secret `RECEIPT_KEY`: a JSON Web Key, or PKCS#8 in PEM as `openssl genpkey`
    /// writes it. `None` of anything else.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let text = text.trim();
        let pair = if text.starts_with('{') { of_jwk(text) } else { of_pem(text) }?;
        let public = PublicKey(pair.public_key().as_ref().try_into().ok()?);
        Some(Self { pair, public })
    }

    /// Signs a payload. `None` only if the header can't be written.
    pub(crate) fn sign(&self, kind: Kind, payload: &[u8]) -> Option<String> {
        let header = Header { alg: ALGORITHM.into(), typ: kind.typ.into(), kid: self.public.thumbprint() };
        let header = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&header).ok()?);
        let input = format!("{header}.{}", URL_SAFE_NO_PAD.encode(payload));
        Some(compact(&input, self.pair.sign(input.as_bytes()).as_ref()))
    }
}

/// Reads a key from a JSON Web Key.
fn of_jwk(text: &str) -> Option<Ed25519KeyPair> {
    let jwk: Value = serde_json::from_str(text).ok()?;
    let public = PublicKey::from_jwk(&jwk)?;
    let seed = URL_SAFE_NO_PAD.decode(jwk.get("d")?.as_str()?).ok()?;
    Ed25519KeyPair::from_seed_and_public_key(&seed, &public.0).ok()
}

/// Reads a key from PKCS#8 in PEM.
fn of_pem(text: &str) -> Option<Ed25519KeyPair> {
    let body = text.strip_prefix("-----BEGIN PRIVATE KEY-----")?.strip_suffix("-----END PRIVATE KEY-----")?;
    let body: String = body.split_ascii_whitespace().collect();
    Ed25519KeyPair::from_pkcs8_maybe_unchecked(&STANDARD.decode(body).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KIND: Kind = Kind { name: "report", typ: "test+jws", longest: 1_000_000 };
    /// RFC 8410, section 10.3.
    const PEM: &str = "-----BEGIN PRIVATE KEY-----\n\
                       MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
                       -----END PRIVATE KEY-----\n";
    /// RFC 8037, appendix A.1.
    const JWK: &str = r#"{"kty":"OKP","crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
                          "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;

    #[test]
    fn both_forms_of_the_secret_sign() {
        for text in [PEM, JWK] {
            let signer = Signer::read(text).unwrap();
            let signed = signer.sign(KIND, b"{}").unwrap();
            let opened = open(&signed, KIND, &[PublicKey([7; 32]), signer.public]);
            assert_eq!(opened, Ok((signer.public.thumbprint(), b"{}".to_vec())));
            assert_eq!(open(&signed, KIND, &[]), Err(JwsError::UnknownKey { kid: signer.public.thumbprint() }));
            let other = Kind { typ: "other+jws", ..KIND };
            assert_eq!(open(&signed, other, &[signer.public]), Err(JwsError::Header(other)));
            let short = Kind { longest: 9, ..KIND };
            assert_eq!(open(&signed, short, &[signer.public]), Err(JwsError::Form(short)));
        }
        // The public part is of another key.
        let torn = JWK.replace("11qYAYKx", "21qYAYKx");
        for wrong in ["", "{}", &torn, &JWK.replace("OKP", "EC"), &PEM.replace("PRIVATE", "PUBLIC")] {
            assert!(Signer::read(wrong).is_none(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_byte_of_a_signed_text_can_be_changed(position in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let signer = Signer::read(JWK).unwrap();
            let good = signer.sign(KIND, br#"{"rollout":"fp8","ended":"done","steps":[1,2,3]}"#).unwrap();
            let mut bytes = good.clone().into_bytes();
            let position = position.index(bytes.len());
            prop_assume!(bytes[position] != byte);
            bytes[position] = byte;
            prop_assert!(open(&String::from_utf8_lossy(&bytes), KIND, &[signer.public]).is_err());
        }
    }
}
