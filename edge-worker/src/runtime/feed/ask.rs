//! Asks one source of rules or health, by HTTP or in Workers KV. Takes the source with a time limit; returns its
//! answer, or the reason why there is none. Called by `feed`.

use core::ops::RangeInclusive;

use bailiwick_rules::time::Millis;
use futures_util::future::{self, Either};
use futures_util::{StreamExt, pin_mut};
use worker::{AbortController, Delay, Env, Fetch, Headers, Method, Request, RequestInit, RequestRedirect};

use crate::decide::rules_state::ReadError;
use crate::decide::staged::HEAD;

/// The largest document that is read, in bytes. A health report of a thousand regions is far smaller.
const MAX_DOCUMENT_BYTES: usize = 8 << 20;
/// How long KV may answer from its cache near the isolate, in seconds. Every version of Workers KV accepts 60 seconds.
const KV_CACHE_SECONDS: u64 = 60;

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
    let store = env.kv("RULES").map_err(|_| ReadError::Connection)?;
    let value = store.get("rules").cache_ttl(KV_CACHE_SECONDS).bytes();
    let delay = Delay::from(timeout.to_std());
    pin_mut!(value, delay);
    match future::select(value, delay).await {
        Either::Left((Ok(Some(bytes)), _)) => Ok(Read::Document { bytes, etag: None, head: None }),
        Either::Left((Ok(None), _)) => Err(ReadError::NoKey),
        Either::Left((Err(_), _)) => Err(ReadError::Connection),
        Either::Right(_) => Err(ReadError::Timeout),
    }
}

/// Sends a GET, with limits of time and size. Follows no redirect, so that no other host gets the token.
pub(crate) async fn get(
    url: &str,
    token: Option<&str>,
    etag: Option<&str>,
    timeout: Millis,
) -> Result<Read, ReadError> {
    let request = request(url, token, etag).ok_or(ReadError::BadUrl)?;
    send(request, etag, &Limits::of_document(timeout)).await
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
    let headers = headers(authorization).ok_or(ReadError::BadUrl)?;
    headers.set("content-type", "application/json").map_err(|_| ReadError::BadUrl)?;
    let mut init = RequestInit::new();
    init.with_method(Method::Post).with_headers(headers).with_redirect(RequestRedirect::Manual);
    init.with_body(Some(json.into()));
    let request = Request::new_with_init(url, &init).map_err(|_| ReadError::BadUrl)?;
    match send(request, None, limits).await? {
        Read::Document { bytes, .. } => Ok(bytes),
        Read::Unmodified => Err(ReadError::Unreadable),
    }
}

/// Sends a request for a document, and reads the answer as far as it isn't too large.
async fn send(request: Request, etag: Option<&str>, limits: &Limits) -> Result<Read, ReadError> {
    let abort = AbortController::default();
    let signal = abort.signal();
    let fetched = async {
        let sent = Fetch::Request(request).send_with_signal(&signal).await;
        let mut response = sent.map_err(|error| of_message(&error.to_string()))?;
        match response.status_code() {
            status if limits.success.contains(&status) => {}
            304 if etag.is_some() => return Ok(Read::Unmodified),
            status => return Err(ReadError::Status(status)),
        }
        let header = |name: &str| response.headers().get(name).ok().flatten();
        let (etag, head) = (header("etag"), header(HEAD));
        let mut bytes = Vec::new();
        if let Ok(mut chunks) = response.stream() {
            while let Some(chunk) = chunks.next().await {
                bytes.extend_from_slice(&chunk.map_err(|_| ReadError::Connection)?);
                if bytes.len() > limits.bytes {
                    return Err(ReadError::TooLarge);
                }
            }
        }
        Ok(Read::Document { bytes, etag, head })
    };
    let delay = Delay::from(limits.timeout.to_std());
    pin_mut!(fetched, delay);
    let read = match future::select(fetched, delay).await {
        Either::Left((read, _)) => read,
        Either::Right(_) => Err(ReadError::Timeout),
    };
    if read.is_err() {
        abort.abort();
    }
    read
}

/// A GET request for a document.
fn request(url: &str, token: Option<&str>, etag: Option<&str>) -> Option<Request> {
    let headers = headers(token.map(bearer).as_deref())?;
    if let Some(etag) = etag {
        headers.set("if-none-match", etag).ok()?;
    }
    let mut init = RequestInit::new();
    init.with_headers(headers).with_redirect(RequestRedirect::Manual);
    Request::new_with_init(url, &init).ok()
}

/// The value of `Authorization` for a token.
pub(crate) fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

fn headers(authorization: Option<&str>) -> Option<Headers> {
    let headers = Headers::new();
    if let Some(authorization) = authorization {
        headers.set("authorization", authorization).ok()?;
    }
    Some(headers)
}

/// Why the runtime's `fetch` failed, by the text of its error. The text itself is neither logged nor passed on.
fn of_message(message: &str) -> ReadError {
    let message = message.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if says(&["certificate", "tls", "ssl"]) {
        ReadError::Tls
    } else if says(&["refused"]) {
        ReadError::Refused
    } else if says(&["dns", "no address", "getaddrinfo", "resolve"]) {
        ReadError::NoAddress
    } else {
        ReadError::Connection
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_a_failed_fetch_is_one_word() {
        for (message, word) in [
            ("Error: TLS peer's certificate is not trusted; reason = self-signed certificate", "tls"),
            ("connect(): Connection refused", "refused"),
            ("DNS lookup failed.", "no_address"),
            ("Network connection lost.", "connection"),
            ("internal error; reference = abc", "connection"),
        ] {
            assert_eq!(of_message(message).to_string(), word, "{message}");
        }
        assert_eq!(ReadError::Status(503).to_string(), "http_503");
    }
}
