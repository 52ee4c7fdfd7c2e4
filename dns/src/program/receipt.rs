//! Verifies receipts. Takes a receipt (a compact JWS) and public keys, returns the receipt's claims or the reason why
//! the receipt isn't valid. Called by `bailiwick receipt`. Pure. A fence is the list of the regions that may process a
//! client's data.
//!
//! A receipt is the edge's signed statement of where a request was processed. Only one algorithm, one type and one form
//! are accepted (RFC 8725 §3.1, §3.11). So the receipt never decides how it is verified.

use bailiwick_rules::receipt::{Claims, LONGEST, PublicKey, TYPE, tenant_digest};
use bailiwick_rules::time::{Millis, Timestamp};
use serde_json::Value;

use super::jws::{JwsError, Kind, open};

/// Receipts.
const KIND: Kind = Kind { name: "receipt", typ: TYPE, longest: LONGEST };

/// How far the signer's clock may be ahead of this machine's.
const CLOCKS_DIFFER: Millis = Millis(5 * 60_000);

/// A receipt whose signature one of the keys made.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Verified {
    /// The key's name.
    pub kid: String,
    /// The claims.
    pub claims: Claims,
    /// The claims as they were signed, with fields that [`Claims`] doesn't have.
    pub json: Value,
}

/// Why a receipt isn't valid.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum VerifyError {
    /// It isn't signed so.
    #[error(transparent)]
    Jws(#[from] JwsError),
    /// The signed text has no claims of a receipt.
    #[error("it was signed, but isn't a receipt that this program can read ({0}); the gateway may be newer")]
    Claims(String),
    /// The receipt was signed in the future.
    #[error("it was signed at {0}, which is in the future; check this machine's clock")]
    Ahead(Timestamp),
    /// The receipt was signed too long ago.
    #[error("it was signed at {at}, longer ago than {most}")]
    Old {
        /// When the receipt was signed.
        at: Timestamp,
        /// The longest allowed age.
        most: Millis,
    },
    /// The receipt belongs to another tenant, or to none.
    #[error("it is not a receipt of tenant {0}")]
    OtherTenant(String),
    /// The request was sent to a region outside the fence.
    #[error("it says that the request was sent to {region}, which is outside the fence it names")]
    OutsideFence {
        /// The region outside the fence.
        region: String,
        /// When the receipt was signed.
        at: Timestamp,
        /// The request's id.
        jti: String,
    },
}

/// What a valid receipt must meet besides its signature.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Demands<'a> {
    /// The longest age of the signature.
    pub max_age: Option<Millis>,
    /// The tenant to which the receipt must belong.
    pub tenant: Option<&'a str>,
}

/// Verifies a receipt by `keys`.
///
/// # Errors
/// The first reason why the receipt isn't valid.
pub(crate) fn verify(
    receipt: &str,
    keys: &[PublicKey],
    demands: &Demands<'_>,
    now: Timestamp,
) -> Result<Verified, VerifyError> {
    let (kid, payload) = open(receipt, KIND, keys)?;
    let json: Value = serde_json::from_slice(&payload).map_err(|error| VerifyError::Claims(error.to_string()))?;
    let claims: Claims = serde_json::from_slice(&payload).map_err(|error| VerifyError::Claims(error.to_string()))?;
    let at = Timestamp(claims.iat.saturating_mul(1000));
    if at > now.after(CLOCKS_DIFFER) {
        return Err(VerifyError::Ahead(at));
    }
    if let Some(most) = demands.max_age.filter(|most| now.since(at) > *most) {
        return Err(VerifyError::Old { at, most });
    }
    if let Some(tenant) = demands.tenant
        && claims.tenant.as_deref() != Some(&tenant_digest(&claims.jti, tenant))
    {
        return Err(VerifyError::OtherTenant(tenant.to_owned()));
    }
    if let Some(outside) = claims.attempts.iter().find(|attempt| !claims.fence.contains(&attempt.region))
        && claims.fence_more == 0
    {
        return Err(VerifyError::OutsideFence { region: outside.region.clone(), at, jti: claims.jti.clone() });
    }
    Ok(Verified { kid, claims, json })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bailiwick_rules::receipt::{Attempt, ClientClaim, Committed, compact};
    use bailiwick_rules::steer::JurisdictionSource;
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use proptest::prelude::*;
    use ring::signature::{Ed25519KeyPair, KeyPair};

    const NOW: Timestamp = Timestamp(1_796_104_800_000);

    fn pair(seed: u8) -> (Ed25519KeyPair, PublicKey) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let public = PublicKey(pair.public_key().as_ref().try_into().unwrap());
        (pair, public)
    }

    fn claims() -> Claims {
        Claims {
            jti: "0b1f0a0e".into(),
            iat: NOW.0 / 1000,
            service: "chat".into(),
            tenant: Some(tenant_digest("0b1f0a0e", "acme")),
            revision: 7,
            rules_sha256: "f".repeat(64),
            client: ClientClaim {
                jurisdictions: vec!["eu".into()],
                jurisdictions_more: 0,
                source: JurisdictionSource::Tenant,
            },
            fence_by: None,
            fence: vec!["fra".into(), "par".into()],
            fence_more: 0,
            stale: Vec::new(),
            stale_more: 0,
            content_to: None,
            attempts: vec![Attempt {
                region: "fra".into(),
                endpoint: "fra-1".into(),
                arm: None,
                outcome: "committed".into(),
                ms: 12,
            }],
            committed: Some(Committed { region: "fra".into(), endpoint: "fra-1".into(), jurisdiction: "eu".into() }),
            status: 200,
        }
    }

    fn signed(claims: Claims, seed: u8) -> String {
        let (pair, public) = pair(seed);
        let input = claims.signing_input(&public.thumbprint()).unwrap();
        compact(&input, pair.sign(input.as_bytes()).as_ref())
    }

    /// A token with any header at all, signed by the right key.
    fn with_header(header: &str) -> String {
        let payload = serde_json::to_vec(&claims()).unwrap();
        let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        compact(&input, pair(1).0.sign(input.as_bytes()).as_ref())
    }

    fn check(receipt: &str) -> Result<Verified, VerifyError> {
        verify(receipt, &[pair(9).1, pair(1).1], &Demands::default(), NOW)
    }

    #[test]
    fn a_receipt_is_valid_only_with_its_own_key() {
        let verified = check(&signed(claims(), 1)).unwrap();
        assert_eq!((verified.claims, verified.kid), (claims(), pair(1).1.thumbprint()));
        assert_eq!(check(&signed(claims(), 2)), Err(JwsError::UnknownKey { kid: pair(2).1.thumbprint() }.into()));
    }

    #[test]
    fn the_receipt_never_chooses_how_it_is_verified() {
        let kid = pair(1).1.thumbprint();
        let good = format!(r#"{{"alg":"EdDSA","typ":"{TYPE}","kid":"{kid}"}}"#);
        assert!(check(&with_header(&good)).is_ok());
        let wrong = [
            good.replace("EdDSA", "none"),
            good.replace("EdDSA", "HS256"),
            good.replace("EdDSA", "eddsa"),
            good.replace("EdDSA", "ES256"),
            good.replace(TYPE, "JWT"),
            good.replace("\"kid\"", "\"jku\":\"https://evil.example\",\"kid\""),
            good.replace("\"kid\"", "\"crit\":[\"exp\"],\"kid\""),
            good.replace("\"kid\"", "\"alg\":\"EdDSA\",\"kid\""),
            format!(r#"{{"alg":"EdDSA","typ":"{TYPE}"}}"#),
            "[]".into(),
        ];
        for header in wrong {
            assert_eq!(check(&with_header(&header)), Err(JwsError::Header(KIND).into()), "{header}");
        }
    }

    #[test]
    fn invalid_receipts_are_reported() {
        let good = signed(claims(), 1);
        let unsigned = &good[..=good.rfind('.').unwrap()];
        let kid = pair(1).1.thumbprint();
        assert_eq!(check(unsigned), Err(JwsError::Signature { name: "receipt", kid }.into()));
        for wrong in [
            "",
            ".",
            "..",
            "a.b",
            "e30.e30",
            &format!("{good}."),
            &format!("{good}="),
            &format!(" {good}"),
            &"x".repeat(9000),
        ] {
            assert!(check(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn time_tenant_and_fence_are_checked() {
        let at =
            |ms: i64, demands: &Demands<'_>| verify(&signed(claims(), 1), &[pair(1).1], demands, Timestamp(NOW.0 + ms));
        let fresh = Demands { max_age: Some(Millis(60_000)), ..Demands::default() };
        assert!(at(60_000, &fresh).is_ok() && at(-300_000, &fresh).is_ok());
        assert!(matches!(at(60_001, &fresh), Err(VerifyError::Old { .. })));
        assert!(matches!(at(-300_001, &Demands::default()), Err(VerifyError::Ahead(_))));
        assert!(at(i64::MAX - NOW.0, &Demands::default()).is_ok(), "without a limit a receipt of any age is valid");
        assert!(at(0, &Demands { tenant: Some("acme"), ..fresh }).is_ok());
        assert!(matches!(at(0, &Demands { tenant: Some("globe"), ..fresh }), Err(VerifyError::OtherTenant(_))));

        let mut outside = claims();
        outside.attempts[0].region = "iad".into();
        assert_eq!(
            check(&signed(outside.clone(), 1)),
            Err(VerifyError::OutsideFence { region: "iad".into(), at: NOW, jti: "0b1f0a0e".into() })
        );
        outside.fence_more = 1;
        assert!(check(&signed(outside, 1)).is_ok(), "the region may be among those left out");
    }

    proptest! {
        #[test]
        fn no_byte_can_be_changed(position in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let good = signed(claims(), 1);
            let mut bytes = good.clone().into_bytes();
            let position = position.index(bytes.len());
            prop_assume!(bytes[position] != byte);
            bytes[position] = byte;
            prop_assert!(check(&String::from_utf8_lossy(&bytes)).is_err());
        }

        #[test]
        fn no_part_can_be_cut(position in any::<prop::sample::Index>()) {
            let good = signed(claims(), 1);
            let position = position.index(good.len());
            prop_assert!(check(&good[..position]).is_err());
            prop_assert!(position == 0 || check(&good[position..]).is_err());
        }

        #[test]
        fn nothing_makes_it_panic(text in any::<String>()) {
            prop_assert!(check(&text).is_err());
        }
    }
}
