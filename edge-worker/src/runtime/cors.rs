//! Web pages of other origins: a request and its service's `cors` enter; what a preflight is answered, or the headers
//! that let a page read an answer, leave. Called by `serve`, for requests that name an origin alone.
//!
//! The Fetch standard's CORS protocol. Keys come in `Authorization`, never in cookies, so no credentials are allowed in
//! its sense.

use bailiwick_rules::rules::Cors;
use bailiwick_rules::table::{Service, Table};

use crate::decide::envelope::Failure;
use crate::decide::headers::Headers;
use crate::decide::route::Route;
use crate::runtime::client::service_of;
use crate::runtime::reply::{Reply, ResponseInfo};
use crate::runtime::request::ClientRequest;

/// What pages may send, beside `x-stainless-*` of the official clients. Others could be taken for a proxy's word on who
/// asks.
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
    "x-client-request-id",
    "x-session-id",
];

/// Headers of an answer that pages may read anyway.
const SAFELISTED: &[&str] = &["cache-control", "content-language", "content-length", "content-type"];

/// What a page of one origin may do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum OriginPolicy {
    /// The service knows no pages: it answers as to anybody, and browsers keep the answer from the page.
    Unknown,
    /// It may ask, and read the answer.
    Allowed {
        /// The value of `Access-Control-Allow-Origin`.
        origin: String,
        /// How long the answer to a preflight may be kept, in seconds.
        max_age: u64,
    },
    /// It may not ask.
    Refused,
}

impl OriginPolicy {
    /// Of the request; `None` if it comes from no page.
    pub(crate) fn of(asked: &ClientRequest, table: Option<&Table>) -> Option<Self> {
        // Most clients are no browsers.
        let origin = asked.header("origin").filter(|origin| !origin.is_empty())?;
        Some(Self::look_up(origin, table, &asked.address.host))
    }

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

    /// What a preflight is answered; `None` for a request that is none. Browsers send it without a key.
    pub(crate) fn preflight(&self, asked: &ClientRequest, info: &ResponseInfo) -> Option<Result<Reply, Failure>> {
        let method = asked.header("access-control-request-method").filter(|_| asked.method == "OPTIONS")?;
        let Self::Allowed { max_age, .. } = self else { return Some(Err(Failure::OriginNotAllowed)) };
        if let Err(failure) = Route::parse(method, &asked.address.path) {
            return Some(Err(failure));
        }
        let wanted = asked.header("access-control-request-headers").unwrap_or_default();
        let headers = [
            ("access-control-allow-methods", method.to_owned()),
            ("access-control-allow-headers", allowed_headers(wanted)),
            ("access-control-max-age", max_age.to_string()),
        ];
        Some(Ok(info.no_content(headers.into_iter().collect())))
    }

    /// Lets the page read an answer, be it an error: without this a script sees none at all.
    pub(crate) fn write(&self, headers: &mut Headers) {
        let origin = match self {
            Self::Unknown => return,
            Self::Refused => return vary(headers),
            Self::Allowed { origin, .. } => origin,
        };
        let shown = |name: &str| !SAFELISTED.contains(&name) && !name.starts_with("access-control-");
        let names: Vec<&str> = headers.iter().map(|(name, _)| name).filter(|name| shown(name)).collect();
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

/// An answer to nobody's page, by a service that answers pages of some origins otherwise: whatever keeps it must ask
/// again for them (Fetch standard, *CORS protocol and HTTP caches*).
pub(crate) fn write_for_none(service: &Service, headers: &mut Headers) {
    if service.cors.as_ref().is_some_and(|cors| !cors.is_for_all()) {
        vary(headers);
    }
}

fn vary(headers: &mut Headers) {
    headers.push("vary", "Origin");
}

/// Those of the headers a page wants to send that it may.
fn allowed_headers(wanted: &str) -> String {
    let is_allowed = |name: &&str| {
        let is_stainless = name.strip_prefix("x-stainless-").is_some_and(|rest| {
            rest.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        });
        name.len() <= 64 && (HEADERS.contains(name) || is_stainless)
    };
    let wanted = wanted.to_ascii_lowercase();
    // More than these no client sends.
    let names: Vec<&str> = wanted.split(',').map(str::trim).filter(is_allowed).take(64).collect();
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
