//! Signs receipts: signed statements of where a request was processed. Takes a steering and the record of a request's
//! attempts; returns the value of `x-bailiwick-receipt`. `serve` gets a [`ReceiptSigner`] before anything is sent, and
//! `proxy` signs with it when the answer is known. An isolate is one instance of the Worker; the platform runs several,
//! which share no memory.
//!
//! The runtime's WebCrypto makes the signatures. It adds no code to the Wasm, runs in constant time, and never reveals
//! the private key again.

use std::cell::RefCell;
use std::rc::Rc;

use bailiwick_rules::receipt::{
    Attempt, Claims, ClientClaim, Committed, PublicKey, compact, key_set, public_keys, tenant_digest,
};
use bailiwick_rules::rules::Receipts;
use bailiwick_rules::steer::{FenceBy, Steering, stand};
use bailiwick_rules::table::Table;
use futures_util::future::LocalBoxFuture;
use serde_json::Value;

use crate::decide::attempt::Record;
use crate::decide::envelope::Failure;
use crate::decide::headers::Headers;
use crate::decide::plan::Target;
use crate::platform::{Env, Signer, console};
use crate::runtime::client::Caller;
use crate::runtime::clock;
use crate::runtime::reply::ResponseInfo;

/// The header that carries a receipt.
const HEADER: &str = "x-bailiwick-receipt";
/// The secret that holds the private key.
const SECRET: &str = "RECEIPT_KEY";
/// The variable with earlier public keys, as a JSON Web Key Set.
const RETIRED: &str = "RECEIPT_PUBLIC_KEYS";

thread_local! {
    /// The key, or `None` if the secret wasn't read yet. Secrets don't change while an isolate lives.
    static KEY: RefCell<Option<Key>> = const { RefCell::new(None) };
}

/// The result of reading the secret.
#[derive(Clone)]
enum Key {
    Absent,
    Invalid,
    Ready(Rc<Signer>),
}

/// The key. It is read once per isolate. If several requests need the key at first, each of them reads it, because no
/// request may wait for the promise of another request.
async fn key(env: &Env) -> Key {
    if let Some(key) = KEY.with_borrow(Clone::clone) {
        return key;
    }
    let key = match env.text(SECRET).filter(|text| !text.trim().is_empty()) {
        None => Key::Absent,
        Some(text) => match Signer::read(&text).await {
            Some(signer) => Key::Ready(Rc::new(signer)),
            None => {
                console::warn(&serde_json::json!({ "event": "receipt_key_invalid" }).to_string());
                Key::Invalid
            }
        },
    };
    KEY.with_borrow_mut(|known| known.get_or_insert(key).clone())
}

/// The public keys of receipts, the current one first, as `/.well-known/bailiwick/jwks.json` shows them.
pub(crate) async fn public(env: &Env) -> Value {
    let mut keys: Vec<PublicKey> = Vec::new();
    if let Key::Ready(signer) = key(env).await {
        keys.push(signer.public);
    }
    let retired = env.text(RETIRED).and_then(|text| serde_json::from_str(&text).ok());
    for retired in retired.as_ref().and_then(public_keys).unwrap_or_default() {
        if !keys.contains(&retired) {
            keys.push(retired);
        }
    }
    key_set(&keys)
}

/// Signs the receipt of one request, and holds the claims that are known before the request is sent.
pub(crate) struct ReceiptSigner {
    signer: Rc<Signer>,
    required: bool,
    known: Claims,
}

/// Whether this service's answers are signed, and by which key.
pub(crate) struct ReceiptPolicy(Option<(Rc<Signer>, bool)>);

impl ReceiptPolicy {
    /// The policy of a service whose rules want no receipts; `None` if the service wants receipts.
    pub(crate) fn closed(wish: Receipts) -> Option<Self> {
        (wish == Receipts::Off).then_some(Self(None))
    }

    /// Reads the policy of a service that wants receipts.
    ///
    /// # Errors
    /// 503 if receipts are required and there is no key.
    #[inline(never)]
    pub(crate) fn open(env: &Env, wish: Receipts) -> LocalBoxFuture<'_, Result<Self, Failure>> {
        Box::pin(async move {
            let required = wish == Receipts::Required;
            match key(env).await {
                Key::Ready(signer) => Ok(Self(Some((signer, required)))),
                Key::Absent | Key::Invalid if required => Err(Failure::NoReceiptKey),
                Key::Absent | Key::Invalid => Ok(Self(None)),
            }
        })
    }

    /// Makes the signer of a request, with the claims that are known before the request is sent.
    pub(crate) fn engage(
        self,
        table: &Table,
        caller: &Caller,
        steering: &Steering,
        info: &ResponseInfo,
    ) -> Option<ReceiptSigner> {
        let request_id = info.request_id.as_str();
        let (signer, required) = self.0?;
        let standing = stand(table, &caller.client);
        let names = standing.jurisdictions.iter().map(|&index| table.jurisdiction(index).to_string());
        let revision = table.revision();
        let known = Claims {
            jti: request_id.to_owned(),
            iat: 0,
            service: table.service(caller.service).id.to_string(),
            tenant: caller.tenant.map(|tenant| tenant_digest(request_id, table.tenant(tenant).id.as_str())),
            revision: revision.number,
            rules_sha256: revision.sha256_hex(),
            client: ClientClaim { jurisdictions: names.collect(), jurisdictions_more: 0, source: standing.source },
            fence_by: standing.fenced.map(|_| FenceBy::Tenant.as_str().to_owned()),
            fence: steering.fence().map(|ranked| table.region(ranked.fenced.region).id.to_string()).collect(),
            fence_more: 0,
            stale: info.stale.as_deref().unwrap_or_default().to_vec(),
            stale_more: 0,
            content_to: info.logged.as_ref().and_then(|logged| logged.keeper(table)),
            attempts: Vec::new(),
            committed: None,
            status: 0,
        };
        Some(ReceiptSigner { signer, required, known })
    }
}

/// Whether these headers have a receipt.
#[must_use]
pub(crate) fn is_in(headers: &Headers) -> bool {
    headers.get(HEADER).is_some()
}

impl ReceiptSigner {
    /// Signs the receipt of a request that was answered, and adds it to the answer's headers.
    ///
    /// # Errors
    /// 500 if the runtime can't sign and the service requires receipts.
    #[inline(never)]
    pub(crate) fn sign<'a>(
        self,
        headers: &'a mut Headers,
        status: u16,
        served_by: Option<&'a Target>,
        record: &'a Record,
    ) -> LocalBoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            let Self { signer, required, known } = self;
            let claims = concluded(known, status, served_by, record);
            let signed = async {
                let input = claims.signing_input(&signer.kid)?;
                let signature = signer.sign(input.as_bytes()).await?;
                Some(compact(&input, &signature))
            };
            match signed.await {
                Some(receipt) => {
                    headers.push(HEADER, &receipt);
                    Ok(())
                }
                None => {
                    console::warn(&serde_json::json!({ "event": "receipt_not_signed" }).to_string());
                    if required { Err(Failure::Internal) } else { Ok(()) }
                }
            }
        })
    }
}

/// Adds to the claims how the request ended.
fn concluded(known: Claims, status: u16, served_by: Option<&Target>, record: &Record) -> Claims {
    let attempts = record.attempts.iter().map(|attempt| Attempt {
        region: attempt.region.to_string(),
        endpoint: attempt.endpoint.to_string(),
        arm: attempt.arm.map(|arm| arm.to_string()),
        outcome: attempt.outcome.map_or_else(|| "pending".to_owned(), |outcome| outcome.to_string()),
        ms: attempt.ms,
    });
    let committed = served_by.map(|target| Committed {
        region: target.region_id().to_string(),
        endpoint: target.id().to_string(),
        jurisdiction: target.jurisdiction().to_owned(),
    });
    Claims { iat: clock::now().0.div_euclid(1000), attempts: attempts.collect(), committed, status, ..known }
}
