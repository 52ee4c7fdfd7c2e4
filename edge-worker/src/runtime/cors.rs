//! Requests of web pages from other origins. Takes a request and its service's `cors`; returns the answer to a
//! preflight, or the headers that let a page read an answer. Called by `serve` for requests that have an origin.
//!
//! Implements the Fetch standard's CORS protocol. Keys come in `Authorization` and never in cookies, so
//! `Access-Control-Allow-Credentials` is never sent.

use bailiwick_rules::rules::Cors;
use bailiwick_rules::table::{Service, Table};

use crate::decide::envelope::Failure;
use crate::decide::headers::Headers;
use crate::decide::route::Route;
use crate::runtime::client::service_of;
use crate::runtime::reply::{Reply, ResponseInfo};
use crate::runtime::request::ClientRequest;

/// Headers that pages may send, besides `x-stainless-*` of the official clients. With other headers, such as
/// `cf-connecting-ip`, a page could pretend to be a proxy that names another client.
const HEADERS: &[&str] = &[
    "accept",
    "anthropic-beta",
    "anthropic-dangerous-direct-browser-access",
    "anthropic-version",
    "api-key",
    "authorization",
    "content-type",
    "idempotency-key",
    "openai-beta",
    "openai-organization",
    "openai-project",
    "traceparent",
    "tracestate",
    "user-agent",
    "x-api-key",
    "x-bailiwick-bundle",
    "x-client-request-id",
    "x-session-id",
];

/// Headers of an answer that pages may always read.
const SAFELISTED: &[&str] = &["cache-control", "content-language", "content-length", "content-type"];

/// What a page of one origin may do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum OriginPolicy {
    /// The service has no `cors`. It answers as usual, and browsers hide the answer from the page.
    Unknown,
    /// The page may send requests and read the answers.
    Allowed {
        /// The value of `Access-Control-Allow-Origin`.
        origin: String,
        /// How long browsers may cache the answer to a preflight, in seconds.
        max_age: u64,
    },
    /// The page may not send requests.
    Refused,
}

impl OriginPolicy {
    /// The policy for a request; `None` if it has no origin, so that no web page sent it.
    pub(crate) fn of(request: &ClientRequest, table: Option<&Table>) -> Option<Self> {
        // Most clients aren't browsers.
        let origin = request.header("origin").filter(|origin| !origin.is_empty())?;
        Some(Self::look_up(origin, table, &request.address.host))
    }

    /// Whether web pages of this origin may use the service of this host.
    #[inline(never)]
    fn look_up(origin: &str, table: Option<&Table>, host: &str) -> Self {
        let cors = table
            .and_then(|table| service_of(table, host).map(|service| table.service(service)))
            .and_then(|service| service.cors.as_ref());
        let Some(cors) = cors else { return Self::Unknown };
        let max_age = cors.max_age.unwrap_or(Cors::MAX_AGE).0 / 1_000;
        match cors.allowed(origin) {
            Some(origin) => Self::Allowed { origin: origin.to_owned(), max_age },
            None => Self::Refused,
        }
    }

    /// The answer to a preflight, which browsers send without a key; `None` for any other request.
    pub(crate) fn preflight(&self, request: &ClientRequest, info: &ResponseInfo) -> Option<Result<Reply, Failure>> {
        let method = request.header("access-control-request-method").filter(|_| request.method == "OPTIONS")?;
        let Self::Allowed { max_age, .. } = self else { return Some(Err(Failure::OriginNotAllowed)) };
        if let Err(failure) = Route::parse(method, &request.address.path) {
            return Some(Err(failure));
        }
        let requested_headers = request.header("access-control-request-headers").unwrap_or_default();
        let headers = [
            ("access-control-allow-methods", method.to_owned()),
            ("access-control-allow-headers", allowed_headers(requested_headers)),
            ("access-control-max-age", max_age.to_string()),
        ];
        Some(Ok(info.no_content(headers.into_iter().collect())))
    }

    /// Adds the headers that let the page read an answer. An error needs these headers too: without them, a script
    /// can't read the error.
    pub(crate) fn write(&self, headers: &mut Headers) {
        let origin = match self {
            Self::Unknown => return,
            Self::Refused => return vary(headers),
            Self::Allowed { origin, .. } => origin,
        };
        let is_exposed = |name: &str| !SAFELISTED.contains(&name) && !name.starts_with("access-control-");
        let names: Vec<&str> = headers.iter().map(|(name, _)| name).filter(|name| is_exposed(name)).collect();
        let names = names.join(", ");
        if !names.is_empty() {
            headers.push("access-control-expose-headers", &names);
        }
        headers.push("access-control-allow-origin", origin);
        if origin != "*" {
            vary(headers);
        }
    }
}

/// Adds `Vary` to an answer for a request without an origin, if the service treats some origins differently. A cache
/// must not use this answer for a request with an origin (Fetch standard, *CORS protocol and HTTP caches*).
pub(crate) fn write_for_none(service: &Service, headers: &mut Headers) {
    if service.cors.as_ref().is_some_and(|cors| !cors.is_for_all()) {
        vary(headers);
    }
}

/// Tells caches that the answer depends on the origin.
fn vary(headers: &mut Headers) {
    headers.push("vary", "Origin");
}

/// Those of the requested headers that a page may send.
fn allowed_headers(requested: &str) -> String {
    let is_allowed = |name: &&str| {
        let is_stainless = name.strip_prefix("x-stainless-").is_some_and(|rest| {
            rest.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        });
        name.len() <= 64 && (HEADERS.contains(name) || is_stainless)
    };
    let requested = requested.to_ascii_lowercase();
    // No client sends more than 64 headers.
    let names: Vec<&str> = requested.split(',').map(str::trim).filter(is_allowed).take(64).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_send_what_clients_send_and_nothing_else() {
        assert_eq!(
            allowed_headers("authorization,Content-Type, x-stainless-lang,x-stainless-retry-count"),
            "authorization, content-type, x-stainless-lang, x-stainless-retry-count"
        );
        for other in
            ["cf-connecting-ip", "x-forwarded-for", "x-bailiwick-region", "x-stainless-a\"b", "", "*", "cookie"]
        {
            assert_eq!(allowed_headers(other), "", "{other}");
        }
    }

    #[test]
    fn all_headers_of_an_answer_may_be_read_and_none_is_made_up() {
        let names = ["content-type", "retry-after", "x-bailiwick-region"];
        let mut headers: Headers = names.map(|name| (name, "x")).into_iter().collect();
        let page = OriginPolicy::Allowed { origin: "https://a.example".into(), max_age: 1 };
        page.write(&mut headers);
        let value = |name: &str| headers.get(name);
        assert_eq!(value("access-control-expose-headers"), Some("retry-after, x-bailiwick-region"));
        assert_eq!((value("access-control-allow-origin"), value("vary")), (Some("https://a.example"), Some("Origin")));
        assert_eq!(value("access-control-allow-credentials"), None);
        let mut none = Headers::default();
        OriginPolicy::Unknown.write(&mut none);
        assert_eq!(none, Headers::default());
        OriginPolicy::Refused.write(&mut none);
        assert_eq!(none.iter().collect::<Vec<_>>(), [("vary", "Origin")], "another origin would have another answer");
    }
}
