//! Reads and writes public keys of receipts as JSON Web Keys (RFC 7517, RFC 8037 §2). A key is named by its thumbprint.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::Digest;

/// An Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// Reads a JSON Web Key; from a private key it reads the public part. `None` if the key is of another kind or for
    /// another use.
    #[must_use]
    pub fn from_jwk(jwk: &Value) -> Option<Self> {
        let field = |name: &str| jwk.get(name).map(|value| value.as_str().unwrap_or_default());
        let fits = field("kty") == Some("OKP")
            && field("crv") == Some("Ed25519")
            && field("use").is_none_or(|usage| usage == "sig")
            // RFC 9864 §2.2 names the algorithm by its curve.
            && field("alg").is_none_or(|alg| alg == super::ALGORITHM || alg == "Ed25519");
        let x = URL_SAFE_NO_PAD.decode(field("x").filter(|_| fits)?).ok()?;
        x.try_into().ok().map(Self)
    }

    /// The key as a JSON Web Key.
    #[must_use]
    pub fn to_jwk(&self) -> Value {
        json!({ "kty": "OKP", "crv": "Ed25519", "x": self.x(), "kid": self.thumbprint(), "alg": super::ALGORITHM,
            "use": "sig" })
    }

    /// The key's name: its SHA-256 thumbprint (RFC 7638 §3, RFC 8037 §2).
    #[must_use]
    pub fn thumbprint(&self) -> String {
        // The required members in the order of their names, without white space.
        let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, self.x());
        URL_SAFE_NO_PAD.encode(sha2::Sha256::digest(members))
    }

    fn x(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }
}

/// A JSON Web Key Set (RFC 7517 §5).
#[must_use]
pub fn key_set(keys: &[PublicKey]) -> Value {
    json!({ "keys": keys.iter().map(PublicKey::to_jwk).collect::<Vec<_>>() })
}

/// The keys of a JSON Web Key Set, or a single key. Keys of other kinds are ignored (RFC 7517 §5). `None` if the JSON
/// is neither a set nor such a key.
#[must_use]
pub fn public_keys(set: &Value) -> Option<Vec<PublicKey>> {
    match set.get("keys") {
        Some(keys) => Some(keys.as_array()?.iter().filter_map(PublicKey::from_jwk).collect()),
        None => PublicKey::from_jwk(set).map(|key| vec![key]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8037, appendix A.2.
    fn example() -> Value {
        json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" })
    }

    #[test]
    fn a_key_is_named_by_its_thumbprint() {
        // RFC 8037, appendix A.3.
        let key = PublicKey::from_jwk(&example()).unwrap();
        assert_eq!(key.thumbprint(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        assert_eq!(PublicKey::from_jwk(&key.to_jwk()), Some(key));
    }

    #[test]
    fn keys_of_other_kinds_are_passed_over_and_private_parts_never_leave() {
        let with = |name: &str, value: &str| {
            let mut jwk = example();
            jwk[name] = value.into();
            jwk
        };
        let wrong = [
            with("kty", "EC"),
            with("crv", "X25519"),
            with("use", "enc"),
            with("alg", "ES256"),
            with("x", "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHUR"),
            with("x", "AAAA"),
            json!("text"),
        ];
        for jwk in &wrong {
            assert_eq!(PublicKey::from_jwk(jwk), None, "{jwk}");
        }
        let mut keys = wrong.to_vec();
        keys.push(with("d", "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"));
        let keys = public_keys(&json!({ "keys": keys })).unwrap();
        assert_eq!(keys.len(), 1);
        assert!(key_set(&keys)["keys"][0].get("d").is_none());
        assert_eq!(public_keys(&example()).unwrap(), keys);
        assert_eq!(public_keys(&json!({ "keys": 7 })), None);
    }
}
