//! The allow-lists of headers in both directions. Takes headers, returns those that may pass. Called by `rewrite`,
//! `reply`, `serve` and `prepare`.
//!
//! An endpoint never gets the client's credentials, cookies, addresses (`cf-*`, `x-forwarded-*`) or hop-by-hop headers.
//! The client never gets an endpoint's `set-cookie`, `alt-svc`, `link`, `location` or `x-bailiwick-*`.

use sha2::{Digest as _, Sha256};

use crate::decide::envelope::Failure;
use crate::decide::headers::Headers;
use crate::decide::state::sealed_id::Owner;

/// Headers that pass to an endpoint. `content-type` isn't among them: `rewrite` sets it to fit the body that it makes.
const TO_ENDPOINT: &[&str] = &["accept", "idempotency-key", "openai-beta", "traceparent"];

/// Headers that pass to the client.
const TO_CLIENT: &[&str] = &[
    "content-disposition",
    "content-language",
    "content-type",
    "openai-model",
    "openai-processing-ms",
    "openai-version",
    "retry-after",
    "retry-after-ms",
    "x-ratelimit-limit-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-requests",
    "x-ratelimit-reset-tokens",
];

/// The client's headers that may pass to an endpoint, with names in lower case.
///
/// # Errors
/// 415 for a `Content-Encoding` other than `identity`.
pub(crate) fn to_endpoint(headers: &Headers) -> Result<Headers, Failure> {
    let mut passing = Headers::default();
    for (name, value) in headers.iter() {
        if name.eq_ignore_ascii_case("content-encoding") {
            check_encoding(Some(value))?;
        }
        pass(TO_ENDPOINT, name, value, &mut passing);
    }
    Ok(passing)
}

/// Refuses a compressed body, because bodies are inspected.
///
/// # Errors
/// 415 for a `Content-Encoding` other than `identity`.
pub(crate) fn check_encoding(encoding: Option<&str>) -> Result<(), Failure> {
    let encoding = encoding.unwrap_or_default().trim();
    if encoding.is_empty() || encoding.eq_ignore_ascii_case("identity") { Ok(()) } else { Err(Failure::EncodedBody) }
}

/// Makes an `idempotency-key` different for each tenant. An endpoint remembers such keys by credential, and all tenants
/// share one credential there. With equal keys, the second tenant would get the answer of the first.
pub(crate) fn scope(headers: &mut Headers, owner: &Owner) {
    let Some(value) = headers.get("idempotency-key") else { return };
    let tenant = owner.tenant.as_deref().unwrap_or_default();
    let text = [&owner.service, "\0", tenant, "\0", value].concat();
    let scoped = Sha256::digest(text).iter().take(16).fold("bw-".to_owned(), |hex, byte| format!("{hex}{byte:02x}"));
    headers.set("idempotency-key", &scoped);
}

/// The endpoint's headers that may pass to the client, with names in lower case, and `cache-control: no-store`.
pub(crate) fn to_client(headers: &Headers) -> Headers {
    let mut passing = Headers::default();
    headers.iter().for_each(|(name, value)| pass(TO_CLIENT, name, value, &mut passing));
    passing.push("cache-control", "no-store");
    passing
}

/// Removes the headers about an endpoint's limits. These are the limits of the operator's account with the provider,
/// not of the client.
pub(crate) fn drop_limits(headers: &mut Headers) {
    for name in TO_CLIENT.iter().filter(|name| name.starts_with("x-ratelimit-") || name.starts_with("retry-after")) {
        headers.remove(name);
    }
}

/// Adds a header to `passing`, with its name in lower case, if it is one of `names`.
fn pass(names: &[&str], name: &str, value: &str, passing: &mut Headers) {
    if let Some(known) = names.iter().find(|known| known.eq_ignore_ascii_case(name)) {
        passing.push(known, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(headers: &Headers) -> Vec<&str> {
        headers.iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn only_listed_headers_of_the_client_reach_an_endpoint() {
        let sent = [
            ("Authorization", "Bearer sk-client"),
            ("api-key", "k"),
            ("Cookie", "a=b"),
            ("CF-Connecting-IP", "192.0.2.1"),
            ("X-Forwarded-For", "192.0.2.1"),
            ("x-bailiwick-region", "x"),
            ("Connection", "close"),
            ("Host", "chat.example.com"),
            ("OpenAI-Organization", "org"),
            ("Accept", "text/event-stream"),
            ("OpenAI-Beta", "assistants=v2"),
            ("content-encoding", "identity"),
            ("traceparent", "a\r\nb"),
        ];
        assert_eq!(names(&to_endpoint(&sent.into_iter().collect()).unwrap()), ["accept", "openai-beta"]);
        assert_eq!(to_endpoint(&[("Content-Encoding", "gzip")].into_iter().collect()), Err(Failure::EncodedBody));
    }

    #[test]
    fn an_idempotency_key_is_scoped_to_the_tenant() {
        let scoped = |tenant: Option<&str>, key: &str| {
            let mut headers: Headers = [("idempotency-key", key), ("accept", key)].into_iter().collect();
            scope(&mut headers, &Owner { service: "chat".into(), tenant: tenant.map(Into::into) });
            assert_eq!(headers.get("accept"), Some(key));
            headers.get("idempotency-key").unwrap().to_owned()
        };
        assert_eq!(scoped(Some("acme"), "k"), scoped(Some("acme"), "k"));
        assert_ne!(scoped(Some("acme"), "k"), scoped(Some("emca"), "k"));
        assert_ne!(scoped(Some("acme"), "k"), scoped(None, "k"));
        assert_ne!(scoped(Some("acme"), "k"), scoped(Some("acme"), "j"));
        assert_eq!(scoped(None, "k").len(), 35);
    }

    #[test]
    fn limits_of_our_account_do_not_reach_the_client() {
        let mut headers: Headers = TO_CLIENT.iter().map(|name| (*name, "1")).collect();
        drop_limits(&mut headers);
        let kept = ["content-disposition", "content-language", "content-type", "openai-model", "openai-processing-ms"];
        assert_eq!(names(&headers), [&kept[..], &["openai-version"]].concat());
    }

    #[test]
    fn only_listed_headers_of_the_endpoint_reach_the_client() {
        let answered = [
            ("Set-Cookie", "a=b"),
            ("Alt-Svc", "h3"),
            ("Location", "https://elsewhere"),
            ("X-Bailiwick-Region", "forged"),
            ("Cache-Control", "public"),
            ("Content-Length", "3"),
            ("content-encoding", "gzip"),
            ("Content-Type", "application/json"),
            ("refresh", "0"),
        ];
        assert_eq!(to_client(&answered.into_iter().collect()).iter().count(), 2);
        assert_eq!(names(&to_client(&answered.into_iter().collect())), ["content-type", "cache-control"]);
    }
}
