//! Asks one source of rules or health, by HTTP or in Workers KV. Takes the source with a time limit; returns its
//! answer, or the reason why there is none. Called by `feed`.

use bailiwick_rules::time::Millis;

use crate::decide::rules_state::ReadError;
use crate::decide::staged::HEAD;
use crate::platform::Env;
use crate::platform::fetch::fetch;
use crate::platform::message::{Incoming, Limits, Outgoing};

/// The largest document that is read, in bytes. A health report of a thousand regions is far smaller.
const MAX_DOCUMENT_BYTES: usize = 8 << 20;

/// The limits of a document, which comes with status 200.
fn of_document(timeout: Millis) -> Limits {
    Limits { timeout, bytes: MAX_DOCUMENT_BYTES, success: 200..=200 }
}

/// The answer of a source.
#[derive(Debug)]
pub(crate) enum Read {
    /// A document, and its entity tag.
    Document {
        /// The bytes.
        bytes: Vec<u8>,
        /// The `ETag`.
        etag: Option<String>,
        /// The head of a DNS node's rules (which says for which nodes the rules are), as the node's header has it.
        head: Option<String>,
    },
    /// The document is still the one with the entity tag that was sent.
    Unmodified,
}

/// Reads the key `rules` from KV.
pub(crate) async fn kv(env: &Env, timeout: Millis) -> Result<Read, ReadError> {
    env.rules_in_kv(timeout).await.map(|bytes| Read::Document { bytes, etag: None, head: None })
}

/// Sends a GET, with limits of time and size. Follows no redirect, so that no other host gets the token.
pub(crate) async fn get(
    url: &str,
    token: Option<&str>,
    etag: Option<&str>,
    timeout: Millis,
) -> Result<Read, ReadError> {
    let authorization = token.map(bearer);
    let authorization = authorization.iter().map(|value| ("authorization", value.as_str()));
    let headers: Vec<(&str, &str)> = authorization.chain(etag.map(|etag| ("if-none-match", etag))).collect();
    let outgoing = Outgoing { url, headers: &headers, body: None, limits: &of_document(timeout) };
    send(&outgoing, etag).await
}

/// Sends a POST with JSON, with the same limits as [`get`].
pub(crate) async fn post(url: &str, token: Option<&str>, json: &str, timeout: Millis) -> Result<Vec<u8>, ReadError> {
    post_for(url, token.map(bearer).as_deref(), json, &of_document(timeout)).await
}

/// As [`post`], with any `Authorization`, for a receiver with limits of its own.
pub(crate) async fn post_for(
    url: &str,
    authorization: Option<&str>,
    json: &str,
    limits: &Limits,
) -> Result<Vec<u8>, ReadError> {
    let authorization = authorization.map(|value| ("authorization", value));
    let headers: Vec<(&str, &str)> = authorization.into_iter().chain([("content-type", "application/json")]).collect();
    match send(&Outgoing { url, headers: &headers, body: Some(json), limits }, None).await? {
        Read::Document { bytes, .. } => Ok(bytes),
        Read::Unmodified => Err(ReadError::Unreadable),
    }
}

/// Sends a request for a document, and reads the answer as far as it isn't too large.
async fn send(outgoing: &Outgoing<'_>, etag: Option<&str>) -> Result<Read, ReadError> {
    let Incoming { status, headers, bytes } = fetch(outgoing, &["etag", HEAD]).await?;
    let mut headers = headers.into_iter();
    match status {
        status if outgoing.limits.success.contains(&status) => {
            Ok(Read::Document { bytes, etag: headers.next().flatten(), head: headers.next().flatten() })
        }
        304 if etag.is_some() => Ok(Read::Unmodified),
        status => Err(ReadError::Status(status)),
    }
}

/// The value of `Authorization` for a token.
pub(crate) fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}
