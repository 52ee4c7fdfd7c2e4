//! Asks one source of rules or health, by HTTP or in Workers KV. Takes the source with a time limit; returns its
//! answer, or the reason why there is none. Called by `feed`.

use core::ops::RangeInclusive;

use bailiwick_rules::time::Millis;

use crate::decide::rules_state::ReadError;
use crate::decide::staged::HEAD;
use crate::platform::Env;
use crate::platform::fetch::{Incoming, Outgoing, fetch};

/// The largest document that is read, in bytes. A health report of a thousand regions is far smaller.
const MAX_DOCUMENT_BYTES: usize = 8 << 20;

/// What an answer may be.
pub(crate) struct Limits {
    /// How long it may take.
    pub(crate) timeout: Millis,
    /// The most bytes of its body.
    pub(crate) bytes: usize,
    /// The statuses that say that it is good.
    pub(crate) success: RangeInclusive<u16>,
}

impl Limits {
    /// The limits of a document, which comes with status 200.
    fn of_document(timeout: Millis) -> Self {
        Self { timeout, bytes: MAX_DOCUMENT_BYTES, success: 200..=200 }
    }
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
    let limits = Limits::of_document(timeout);
    let outgoing = Outgoing { url, headers: &headers, body: None, timeout, most_bytes: limits.bytes };
    send(&outgoing, etag, &limits).await
}

/// Sends a POST with JSON, with the same limits as [`get`].
pub(crate) async fn post(url: &str, token: Option<&str>, json: &str, timeout: Millis) -> Result<Vec<u8>, ReadError> {
    post_for(url, token.map(bearer).as_deref(), json, &Limits::of_document(timeout)).await
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
    let (timeout, most_bytes) = (limits.timeout, limits.bytes);
    match send(&Outgoing { url, headers: &headers, body: Some(json), timeout, most_bytes }, None, limits).await? {
        Read::Document { bytes, .. } => Ok(bytes),
        Read::Unmodified => Err(ReadError::Unreadable),
    }
}

/// Sends a request for a document, and reads the answer as far as it isn't too large.
async fn send(outgoing: &Outgoing<'_>, etag: Option<&str>, limits: &Limits) -> Result<Read, ReadError> {
    let Incoming { status, headers, bytes } =
        fetch(outgoing, &["etag", HEAD], |status| limits.success.contains(&status)).await?;
    let mut headers = headers.into_iter();
    match status {
        status if limits.success.contains(&status) => {
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
