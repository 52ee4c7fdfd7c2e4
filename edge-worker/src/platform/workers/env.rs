//! Variables, secrets and KV of the Worker. Takes a name, returns the value. Called by `runtime`.

use core::fmt;

use bailiwick_rules::time::Millis;
use futures_util::future::{self, Either};
use futures_util::pin_mut;

use super::time::sleep;
use crate::decide::rules_state::ReadError;

/// How long KV may answer from its cache near the isolate, in seconds. Every version of Workers KV accepts 60 seconds.
const KV_CACHE_SECONDS: u64 = 60;

/// The runtime's environment. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Env(worker::Env);

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It has secrets.
        f.write_str("Env")
    }
}

impl Env {
    /// The environment that the runtime gave with a request.
    pub(crate) fn of(env: worker::Env) -> Self {
        Self(env)
    }

    /// A variable or secret, if it exists and is a text.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        worker::js_sys::Reflect::get(&self.0, &name.into()).ok()?.as_string()
    }

    /// Whether the Worker has the KV namespace of rules.
    pub(crate) fn has_kv(&self) -> bool {
        self.0.kv("RULES").is_ok()
    }

    /// Reads the key `rules` from KV.
    pub(crate) async fn rules_in_kv(&self, timeout: Millis) -> Result<Vec<u8>, ReadError> {
        let store = self.0.kv("RULES").map_err(|_| ReadError::Connection)?;
        let value = store.get("rules").cache_ttl(KV_CACHE_SECONDS).bytes();
        let delay = sleep(timeout);
        pin_mut!(value, delay);
        match future::select(value, delay).await {
            Either::Left((Ok(Some(bytes)), _)) => Ok(bytes),
            Either::Left((Ok(None), _)) => Err(ReadError::NoKey),
            Either::Left((Err(_), _)) => Err(ReadError::Connection),
            Either::Right(_) => Err(ReadError::Timeout),
        }
    }
}
