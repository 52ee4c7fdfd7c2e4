//! Pseudonyms of tenants. Takes a tenant's name, the sink and the time; returns a keyed hash. Called by
//! `runtime::logs`.
//!
//! A pseudonym is HMAC-SHA-256 (RFC 2104), cut to 16 bytes, over the sink's name, the month and the tenant's name. So
//! one tenant's events can be counted within a month and a sink. Without the key, nobody can tell whose they are, nor
//! compare them with those of another jurisdiction or month.

use bailiwick_rules::time::Timestamp;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// The shortest key, in bytes.
const SHORTEST_KEY: usize = 32;
/// The length of a pseudonym, in bytes.
const LENGTH: usize = 16;

/// The key of pseudonyms.
#[derive(Clone)]
pub(crate) struct Pseudonyms(Hmac<Sha256>);

impl Pseudonyms {
    /// Reads a secret: a key of at least 32 characters.
    #[must_use]
    pub(crate) fn of_key(secret: &str) -> Option<Self> {
        let secret = secret.trim();
        (secret.len() >= SHORTEST_KEY).then(|| Hmac::new_from_slice(secret.as_bytes()).ok().map(Self))?
    }

    /// The pseudonym of a tenant in a sink, in the month of this time.
    #[must_use]
    pub(crate) fn of(&self, tenant: &str, sink: &str, now: Timestamp) -> String {
        let now = now.to_string();
        let month = now.get(..7).unwrap_or_default();
        let mut mac = self.0.clone();
        // Names hold no line feed.
        for part in [sink, "\n", month, "\n", tenant] {
            mac.update(part.as_bytes());
        }
        BASE64URL.encode(mac.finalize().into_bytes().get(..LENGTH).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pseudonym_holds_for_one_key_sink_and_month() {
        let key = Pseudonyms::of_key(&"k".repeat(32)).unwrap();
        let at = |text: &str| Timestamp::parse(text).unwrap();
        let first = key.of("acme", "eu", at("2026-12-01T00:00:00Z"));
        assert_eq!(first, key.of("acme", "eu", at("2026-12-31T23:59:59Z")));
        let others = [
            key.of("acme", "eu", at("2027-01-01T00:00:00Z")),
            key.of("acme", "us", at("2026-12-01T00:00:00Z")),
            key.of("emca", "eu", at("2026-12-01T00:00:00Z")),
            Pseudonyms::of_key(&"j".repeat(32)).unwrap().of("acme", "eu", at("2026-12-01T00:00:00Z")),
        ];
        assert!(!others.contains(&first) && first.len() == 22 && !first.contains("acme"), "{first}");
        assert!(Pseudonyms::of_key(&" k".repeat(15)).is_none() && Pseudonyms::of_key("").is_none());
    }
}
