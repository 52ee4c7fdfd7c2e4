//! Takes what was done with one request ([`Claims`]), returns the text to sign for a receipt that fits in an HTTP
//! header. Called by the edge, which makes receipts, and by `bailiwick receipt verify`, which reads them.
//!
//! A receipt is a compact JWS (RFC 7515 §3.1) with an Ed25519 signature (RFC 8037 §3.1). It holds no prompt, no digest
//! of a prompt, no address and no key. This module neither signs nor verifies: its callers hold the keys.

mod key;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::Digest;

pub use key::{PublicKey, key_set, public_keys};

use crate::steer::JurisdictionSource;

/// The algorithm (RFC 8037 §3.1). No other is accepted, so that an attacker can't choose a weaker one (RFC 8725 §3.1).
pub const ALGORITHM: &str = "EdDSA";
/// The type (RFC 8725 §3.11). It prevents a token of another kind from being accepted as a receipt.
pub const TYPE: &str = "bailiwick-receipt+jwt";
/// The longest receipt, in bytes.
pub const LONGEST: usize = 2048;
/// The length of a receipt's signature: 64 bytes are 86 characters in base64url.
const SIGNATURE: usize = 86;

/// The protected header of a receipt. Other fields are refused.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// The algorithm: [`ALGORITHM`].
    pub alg: String,
    /// The type: [`TYPE`].
    pub typ: String,
    /// The key's thumbprint: [`PublicKey::thumbprint`].
    pub kid: String,
}

/// What a receipt says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Claims {
    /// The request's id, as in `x-bailiwick-request-id`.
    pub jti: String,
    /// When the receipt was signed, in seconds since 1970.
    pub iat: i64,
    /// The service.
    pub service: String,
    /// The tenant that sent the request: [`tenant_digest`]. Absent if the service has no tenants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The revision of the rules.
    pub revision: u64,
    /// SHA-256 of the rules document in lower-case hex. Anyone who has the document can compute the fence again.
    pub rules_sha256: String,
    /// The client's jurisdictions.
    pub client: ClientClaim,
    /// `tenant` if the tenant's own `process_in` set the fence. Absent if a residency rule of the service did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence_by: Option<String>,
    /// The fence: the regions that may process the request. Regions that were offered for this request come first, then
    /// the withheld ones.
    pub fence: Vec<String>,
    /// How many more regions the fence had than the receipt has room for.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub fence_more: usize,
    /// The replicas of knowledge that were too far behind in the region that served, each as `kb;lag=75s`. Absent,
    /// unless that region was used all the same because it was the freshest of the fence.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stale: Vec<String>,
    /// How many more such replicas there were than the receipt has room for.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub stale_more: usize,
    /// The sink that gets the prompt and the answer, as the service keeps them. Absent if they aren't kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_to: Option<String>,
    /// Every endpoint that the request was sent to, in order.
    pub attempts: Vec<Attempt>,
    /// The endpoint whose answer was passed on. Absent if the edge answered with an error of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committed: Option<Committed>,
    /// The answer's HTTP status.
    pub status: u16,
}

/// The jurisdictions of a client, and how they were learnt.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClientClaim {
    /// The client's jurisdictions, by name.
    pub jurisdictions: Vec<String>,
    /// How many more jurisdictions there were than the receipt has room for.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub jurisdictions_more: usize,
    /// How the jurisdictions were found.
    pub source: JurisdictionSource,
}

/// One attempt: the request was sent to one endpoint.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Attempt {
    /// The endpoint's region.
    pub region: String,
    /// The endpoint that the request was sent to.
    pub endpoint: String,
    /// The arm of a rollout that the endpoint serves: `old` or `new`. Absent without a rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arm: Option<String>,
    /// How it went, in the words of `x-bailiwick-attempts`.
    pub outcome: String,
    /// How long that took, in milliseconds.
    pub ms: u64,
}

/// The endpoint whose answer was passed on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Committed {
    /// The endpoint's region.
    pub region: String,
    /// The endpoint's name.
    pub endpoint: String,
    /// The jurisdiction that puts the region inside the fence; `*` if the rule allows any region.
    pub jurisdiction: String,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's form
fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl Claims {
    /// The text to sign: header and claims (RFC 7515 §5.1). If the receipt would be longer than [`LONGEST`], the last
    /// regions of the fence are left out, then the last jurisdictions of the client, then the last replicas that were
    /// behind; the claims say how many. `None` if the receipt is still too long, which can't happen with the names of a
    /// rules document and three attempts.
    #[must_use]
    pub fn signing_input(mut self, kid: &str) -> Option<String> {
        let header = Header { alg: ALGORITHM.to_owned(), typ: TYPE.to_owned(), kid: kid.to_owned() };
        let header = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&header).ok()?);
        // Base64 encodes three bytes as four.
        let room = LONGEST.checked_sub(header.len() + SIGNATURE + 2)? / 4 * 3;
        loop {
            let payload = serde_json::to_vec(&self).ok()?;
            let Some(excess) = payload.len().checked_sub(room).filter(|excess| *excess > 0) else {
                return Some(format!("{header}.{}", URL_SAFE_NO_PAD.encode(payload)));
            };
            self.shorten(excess)?;
        }
    }

    /// Leaves out list entries until `excess` bytes are saved or none are left. Returns `None` if nothing could be left
    /// out. The first entry of each list is left out last.
    fn shorten(&mut self, excess: usize) -> Option<()> {
        let mut freed = 0;
        for least in [1, 0] {
            let client = &mut self.client;
            let lists = [
                (&mut self.fence, &mut self.fence_more),
                (&mut client.jurisdictions, &mut client.jurisdictions_more),
                (&mut self.stale, &mut self.stale_more),
            ];
            for (list, more) in lists {
                while freed < excess && list.len() > least {
                    freed += list.pop()?.len() + 3; // quotation marks and a comma
                    *more += 1;
                }
            }
        }
        (freed > 0).then_some(())
    }
}

/// The signed receipt in compact serialisation (RFC 7515 §7.1).
#[must_use]
pub fn compact(signing_input: &str, signature: &[u8]) -> String {
    format!("{signing_input}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// The name of a tenant in a receipt: SHA-256 of the request's id, a line feed and the tenant's name, in base64url.
/// Anyone who knows the tenant's name can check it. For others, two receipts of one tenant look unrelated.
#[must_use]
pub fn tenant_digest(request_id: &str, tenant: &str) -> String {
    URL_SAFE_NO_PAD.encode(sha2::Sha256::digest(format!("{request_id}\n{tenant}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(most: usize) -> impl Strategy<Value = Vec<String>> {
        prop::collection::vec("[a-z][a-z0-9._-]{0,62}", 0..most)
    }

    fn name() -> impl Strategy<Value = String> {
        prop_oneof!["[a-z]{1,63}", Just("x".repeat(63))]
    }

    fn claims() -> impl Strategy<Value = Claims> {
        let attempt = (name(), name(), "[a-z_]{1,11}", any::<u64>());
        let attempt = attempt.prop_map(|(region, endpoint, outcome, ms)| {
            let arm = (ms % 2 == 0).then(|| "new".to_owned());
            Attempt { region, endpoint, arm, outcome, ms }
        });
        let committed = (name(), name(), name());
        let committed =
            committed.prop_map(|(region, endpoint, jurisdiction)| Committed { region, endpoint, jurisdiction });
        let sources = [
            JurisdictionSource::Tenant,
            JurisdictionSource::Network,
            JurisdictionSource::Geography,
            JurisdictionSource::Unknown,
        ];
        let client = (names(60), prop::sample::select(sources.to_vec()));
        let attempts = prop::collection::vec(attempt, 0..=3);
        let stale = prop::collection::vec("[a-z]{1,63};lag=[0-9]{1,20}s", 0..64);
        let lists = (names(300), stale);
        let parts = (name(), any::<u64>(), client, lists, attempts, prop::option::of(committed), any::<bool>());
        parts.prop_map(|(service, revision, (jurisdictions, source), (fence, stale), attempts, committed, tenant)| {
            Claims {
                jti: "0b1f0a0e-6f0e-4a6a-8d5a-0123456789ab".into(),
                iat: 253_402_300_799,
                tenant: tenant.then(|| tenant_digest("id", &service)),
                service,
                revision,
                rules_sha256: "f".repeat(64),
                client: ClientClaim { jurisdictions, jurisdictions_more: 0, source },
                fence_by: tenant.then(|| "tenant".to_owned()),
                fence,
                fence_more: 0,
                stale,
                stale_more: 0,
                content_to: tenant.then(|| "eu".to_owned()),
                attempts,
                committed,
                status: 200,
            }
        })
    }

    fn payload(receipt: &str) -> Claims {
        let payload = URL_SAFE_NO_PAD.decode(receipt.split('.').nth(1).unwrap()).unwrap();
        serde_json::from_slice(&payload).unwrap()
    }

    proptest! {
        #[test]
        fn a_receipt_fits_and_counts_what_it_leaves_out(claims in claims()) {
            let kid = PublicKey([7; 32]).thumbprint();
            let receipt = compact(&claims.clone().signing_input(&kid).unwrap(), &[0; 64]);
            prop_assert!(receipt.len() <= LONGEST, "{}", receipt.len());
            let read = payload(&receipt);
            prop_assert_eq!(read.fence.len() + read.fence_more, claims.fence.len());
            prop_assert_eq!(&read.fence[..], &claims.fence[..read.fence.len()]);
            let kept = read.client.jurisdictions.len();
            prop_assert_eq!(kept + read.client.jurisdictions_more, claims.client.jurisdictions.len());
            prop_assert_eq!(read.stale.len() + read.stale_more, claims.stale.len());
            let whole = Claims { fence: claims.fence.clone(), fence_more: 0, client: claims.client.clone(), ..read };
            let whole = Claims { stale: claims.stale.clone(), stale_more: 0, ..whole };
            prop_assert_eq!(whole, claims, "nothing else is left out");
        }
    }

    #[test]
    fn a_fence_of_three_hundred_regions_is_cut_no_more_than_needed() {
        let fence: Vec<String> = (0..300).map(|i| format!("region-{i:03}")).collect();
        let client = ClientClaim {
            jurisdictions: vec!["eu".into()],
            jurisdictions_more: 0,
            source: JurisdictionSource::Geography,
        };
        let claims = Claims {
            jti: "id".into(),
            iat: 1,
            service: "chat".into(),
            tenant: None,
            revision: 1,
            rules_sha256: "0".repeat(64),
            client: client.clone(),
            fence_by: None,
            fence,
            fence_more: 0,
            stale: Vec::new(),
            stale_more: 0,
            content_to: None,
            attempts: Vec::new(),
            committed: None,
            status: 503,
        };
        let receipt = compact(&claims.signing_input("kid").unwrap(), &[0; 64]);
        assert!((LONGEST - 40..=LONGEST).contains(&receipt.len()), "{}", receipt.len());
        let read = payload(&receipt);
        assert_eq!((read.fence.len() + read.fence_more, read.client), (300, client));
        assert!(read.fence.len() > 70, "{}", read.fence.len());
    }

    #[test]
    fn claims_that_can_never_fit_make_no_receipt() {
        let client = ClientClaim {
            jurisdictions: vec!["eu".into()],
            jurisdictions_more: 0,
            source: JurisdictionSource::Geography,
        };
        let claims = Claims {
            jti: "x".repeat(LONGEST),
            iat: 1,
            service: "chat".into(),
            tenant: None,
            revision: 1,
            rules_sha256: String::new(),
            client,
            fence_by: None,
            fence: vec!["fra".into()],
            fence_more: 0,
            stale: Vec::new(),
            stale_more: 0,
            content_to: None,
            attempts: Vec::new(),
            committed: None,
            status: 200,
        };
        assert_eq!(claims.signing_input("kid"), None);
    }

    #[test]
    fn the_digest_of_a_tenant_differs_between_requests() {
        assert_eq!(tenant_digest("1", "acme"), tenant_digest("1", "acme"));
        assert_ne!(tenant_digest("1", "acme"), tenant_digest("2", "acme"));
        assert_ne!(tenant_digest("1", "acme"), tenant_digest("1", "globe"));
    }
}
