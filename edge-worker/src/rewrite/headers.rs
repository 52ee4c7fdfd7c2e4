//! The header allow-lists, both ways: what isn't named here doesn't pass.
//!
//! So the client's credentials, cookies, addresses (`cf-*`, `x-forwarded-*`) and hop-by-hop headers never reach an endpoint,
//! and an endpoint's `set-cookie`, `alt-svc`, `link`, `location` and `x-bailiwick-*` never reach the client.

use sha2::{Digest as _, Sha256};

use crate::envelope::Failure;
use crate::state::seal::Owner;

/// What passes to an endpoint. `content-type` is set by whoever knows the body.
const TO_ENDPOINT: &[&str] = &["accept", "idempotency-key", "openai-beta", "traceparent"];

/// What passes to the client.
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

/// The client's headers that may pass to an endpoint, names in lower case.
///
/// # Errors
/// 415 for a `Content-Encoding` other than `identity`.
pub fn to_endpoint<'h>(headers: impl Iterator<Item = (&'h str, &'h str)>) -> Result<Vec<(String, String)>, Failure> {
    let mut passing = Vec::new();
    for (name, value) in headers {
        if name.eq_ignore_ascii_case("content-encoding") {
            check_encoding(Some(value))?;
        }
        passing.extend(allowed(TO_ENDPOINT, name, value));
    }
    Ok(passing)
}

/// Bodies are looked through, so nothing may hide in them.
///
/// # Errors
/// 415 for a `Content-Encoding` other than `identity`.
pub fn check_encoding(encoding: Option<&str>) -> Result<(), Failure> {
    let encoding = encoding.unwrap_or_default().trim();
    if encoding.is_empty() || encoding.eq_ignore_ascii_case("identity") { Ok(()) } else { Err(Failure::EncodedBody) }
}

/// Makes an `idempotency-key` of one customer's unlike any of another's: endpoints keep them by credential, and that is ours.
/// With two equal ones the second customer would be given the first one's answer.
pub fn scope(headers: &mut [(String, String)], owner: &Owner) {
    for (_, value) in headers.iter_mut().filter(|(name, _)| name.eq_ignore_ascii_case("idempotency-key")) {
        let tenant = owner.tenant.as_deref().unwrap_or_default();
        let text = [&owner.service, "\0", tenant, "\0", value].concat();
        *value = Sha256::digest(text).iter().take(16).fold("bw-".to_owned(), |hex, byte| format!("{hex}{byte:02x}"));
    }
}

/// The endpoint's headers that may pass to the client, names in lower case, `cache-control: no-store` added.
pub fn to_client<'h>(headers: impl Iterator<Item = (&'h str, &'h str)>) -> Vec<(String, String)> {
    let no_store = ("cache-control".to_owned(), "no-store".to_owned());
    headers.filter_map(|(name, value)| allowed(TO_CLIENT, name, value)).chain([no_store]).collect()
}

/// A header, its name in lower case, if it is one of these.
fn allowed(names: &[&str], name: &str, value: &str) -> Option<(String, String)> {
    let known = names.iter().find(|known| known.eq_ignore_ascii_case(name)).filter(|_| is_value(value))?;
    Some(((*known).to_owned(), value.to_owned()))
}

/// RFC 9110 §5.5: no control characters but tab.
fn is_value(value: &str) -> bool {
    value.chars().all(|c| c == '\t' || !c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(headers: &[(String, String)]) -> Vec<&str> {
        headers.iter().map(|(name, _)| name.as_str()).collect()
    }

    #[test]
    fn nothing_of_the_clients_that_is_not_named_reaches_an_endpoint() {
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
        assert_eq!(names(&to_endpoint(sent.into_iter()).unwrap()), ["accept", "openai-beta"]);
        assert_eq!(to_endpoint([("Content-Encoding", "gzip")].into_iter()), Err(Failure::EncodedBody));
    }

    #[test]
    fn an_idempotency_key_is_one_customers() {
        let scoped = |tenant: Option<&str>, key: &str| {
            let mut headers = [("Idempotency-Key".to_owned(), key.to_owned()), ("accept".to_owned(), key.to_owned())];
            scope(&mut headers, &Owner { service: "chat".into(), tenant: tenant.map(Into::into) });
            assert_eq!(headers[1].1, key);
            headers[0].1.clone()
        };
        assert_eq!(scoped(Some("acme"), "k"), scoped(Some("acme"), "k"));
        assert_ne!(scoped(Some("acme"), "k"), scoped(Some("emca"), "k"));
        assert_ne!(scoped(Some("acme"), "k"), scoped(None, "k"));
        assert_ne!(scoped(Some("acme"), "k"), scoped(Some("acme"), "j"));
        assert_eq!(scoped(None, "k").len(), 35);
    }

    #[test]
    fn nothing_of_the_endpoints_that_is_not_named_reaches_the_client() {
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
        assert_eq!(to_client(answered.into_iter()).len(), 2);
        assert_eq!(names(&to_client(answered.into_iter())), ["content-type", "cache-control"]);
    }
}
