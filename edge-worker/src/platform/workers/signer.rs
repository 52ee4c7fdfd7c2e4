//! Makes Ed25519 signatures with the runtime's WebCrypto. Takes a private key's text and messages, returns signatures.
//! Called by
//! `runtime::receipt`.
//!
//! A `CryptoKey` isn't an I/O object: it may be kept between requests, unlike promises and streams.

use bailiwick_rules::receipt::PublicKey;
use worker::js_sys::futures::JsFuture;
use worker::js_sys::{Array, Function, JSON, Object, Promise, Reflect, Uint8Array, global};
use worker::wasm_bindgen::{JsCast, JsValue};

use crate::platform::ed25519::EncodedKey;

const ALGORITHM: &str = "Ed25519";

/// A private key, with its public key and its name in receipts.
#[derive(Debug)]
pub(crate) struct Signer {
    key: JsValue,
    /// The public key.
    pub(crate) public: PublicKey,
    /// The thumbprint of the public key, which names the key in receipts.
    pub(crate) kid: String,
}

impl Signer {
    /// Reads a secret. `None` if the secret is no key, or if its public part doesn't verify a signature of its private
    /// part: then nobody could check the receipts.
    pub(crate) async fn read(text: &str) -> Option<Self> {
        let jwk = match EncodedKey::read(text)? {
            EncodedKey::Jwk { d, x } => serde_json::json!({ "kty": "OKP", "crv": ALGORITHM, "d": d, "x": x }),
            EncodedKey::Pkcs8(bytes) => {
                // PKCS#8 may lack the public part. The runtime computes it.
                let bytes = Uint8Array::from(bytes.as_slice());
                let key = import("pkcs8", &bytes, true, "sign").await?;
                let jwk = subtle("exportKey", &["jwk".into(), key]).await?;
                serde_json::from_str(&String::from(JSON::stringify(&jwk).ok()?)).ok()?
            }
        };
        let public = PublicKey::from_jwk(&jwk)?;
        let jwk = serde_json::json!({ "kty": jwk["kty"], "crv": jwk["crv"], "d": jwk["d"], "x": jwk["x"] });
        let key = import("jwk", &JSON::parse(&jwk.to_string()).ok()?, false, "sign").await?;
        let signer = Self { key, public, kid: public.thumbprint() };
        let signature = signer.sign(b"bailiwick").await?;
        let verifier = import("raw", &Uint8Array::from(&public.0[..]), true, "verify").await?;
        let (signature, message) = (Uint8Array::from(signature.as_slice()), Uint8Array::from(&b"bailiwick"[..]));
        let verified = subtle("verify", &[ALGORITHM.into(), verifier, signature.into(), message.into()]).await?;
        (verified == JsValue::TRUE).then_some(signer)
    }

    /// Signs a message; `None` if the runtime refuses.
    pub(crate) async fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let message = Uint8Array::from(message);
        let signature = subtle("sign", &[ALGORITHM.into(), self.key.clone(), message.into()]).await?;
        Some(Uint8Array::new(&signature).to_vec())
    }
}

async fn import(format: &str, key: &JsValue, extractable: bool, usage: &str) -> Option<JsValue> {
    let usages = Array::of1(&usage.into());
    subtle("importKey", &[format.into(), key.clone(), ALGORITHM.into(), extractable.into(), usages.into()]).await
}

/// Calls a method of `crypto.subtle`. An exception is dropped, because it doesn't help an operator and could quote the
/// key.
async fn subtle(method: &str, arguments: &[JsValue]) -> Option<JsValue> {
    let crypto = Reflect::get(&global(), &"crypto".into()).ok()?;
    let subtle: Object = Reflect::get(&crypto, &"subtle".into()).ok()?.dyn_into().ok()?;
    let method: Function = Reflect::get(&subtle, &method.into()).ok()?.dyn_into().ok()?;
    let promise: Promise = method.apply(&subtle, &arguments.iter().collect::<Array>()).ok()?.dyn_into().ok()?;
    JsFuture::from(promise).await.ok()
}
