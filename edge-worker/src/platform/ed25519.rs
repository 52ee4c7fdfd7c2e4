//! Reads the secret with the private Ed25519 key. Takes the text of the secret; returns the bytes or fields that
//! a platform imports. Called by the signer of each platform.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// The allowed length of an Ed25519 key in PKCS#8, in bytes. It is 48 without attributes (RFC 8410 §7).
const PKCS8: core::ops::RangeInclusive<usize> = 48..=512;

/// A private key in the form in which the secret holds it.
#[derive(Debug, PartialEq)]
pub(crate) enum EncodedKey {
    /// A JSON Web Key (RFC 8037 §2) with its private part.
    Jwk {
        /// The private part.
        d: String,
        /// The public part.
        x: String,
    },
    /// PKCS#8 (RFC 8410 §7), as `openssl genpkey -algorithm ed25519` writes it.
    Pkcs8(Vec<u8>),
}

impl EncodedKey {
    /// Reads a secret: a JSON Web Key, or PKCS#8 in PEM.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.starts_with('{') { jwk(text) } else { pem(text) }
    }
}

fn jwk(text: &str) -> Option<EncodedKey> {
    let jwk: Value = serde_json::from_str(text).ok()?;
    let field = |name: &str| Some(jwk.get(name)?.as_str()?.to_owned());
    let fits = field("kty")? == "OKP" && field("crv")? == "Ed25519";
    fits.then_some(EncodedKey::Jwk { d: field("d")?, x: field("x")? })
}

fn pem(text: &str) -> Option<EncodedKey> {
    let body = text.strip_prefix("-----BEGIN PRIVATE KEY-----")?.strip_suffix("-----END PRIVATE KEY-----")?;
    // A file of environment variables may write a line break as the two characters `\n`.
    let body: String = body.replace("\\n", "").split_ascii_whitespace().collect();
    let bytes = STANDARD.decode(body).ok()?;
    PKCS8.contains(&bytes.len()).then_some(EncodedKey::Pkcs8(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8410, section 10.3.
    const PEM: &str = "-----BEGIN PRIVATE KEY-----\n\
                       MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
                       -----END PRIVATE KEY-----\n";

    #[test]
    fn pem_is_read_with_any_line_ends() {
        let Some(EncodedKey::Pkcs8(bytes)) = EncodedKey::read(PEM) else { panic!("not read") };
        assert_eq!((bytes.len(), &bytes[..4]), (48, &[0x30, 0x2e, 0x02, 0x01][..]));
        for ends in ["\r\n", "\\n", " "] {
            assert_eq!(
                EncodedKey::read(&PEM.replace('\n', ends).replace("-----\\n", "-----")),
                Some(EncodedKey::Pkcs8(bytes.clone())),
                "{ends:?}"
            );
        }
    }

    #[test]
    fn a_jwk_needs_both_its_parts() {
        let whole = r#" {"kty":"OKP","crv":"Ed25519","d":"ZA","x":"eA","kid":"k","alg":"EdDSA"} "#;
        assert_eq!(EncodedKey::read(whole), Some(EncodedKey::Jwk { d: "ZA".into(), x: "eA".into() }));
        for wrong in [
            whole.replace("\"d\"", "\"e\""),
            whole.replace("OKP", "EC"),
            whole.replace("Ed25519", "X25519"),
            "{".into(),
        ] {
            assert_eq!(EncodedKey::read(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn other_texts_are_not_private_keys() {
        for wrong in [
            "",
            "key",
            &PEM.replace("PRIVATE", "PUBLIC"),
            &PEM.replace("MC4CAQ", "....."),
            "-----BEGIN PRIVATE KEY----------END PRIVATE KEY-----",
        ] {
            assert_eq!(EncodedKey::read(wrong), None, "{wrong}");
        }
    }
}
