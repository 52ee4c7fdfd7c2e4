//! Requests that hyper takes and the gateway doesn't: others who read the same bytes may see another request, or
//! another host. Takes a request's head, returns the status that refuses it. Pure; called by `tasks`.

use core::net::Ipv6Addr;

use hyper::header::{HOST, HeaderValue, TRANSFER_ENCODING};
use hyper::{Method, Request, StatusCode, Version};

/// Why a request isn't answered; `None` if it is.
pub(super) fn refused<B>(request: &Request<B>) -> Option<StatusCode> {
    if request.method() == Method::CONNECT {
        // RFC 9110 §9.3.6: the gateway makes no tunnels.
        return Some(StatusCode::NOT_IMPLEMENTED);
    }
    let is_good = has_good_target(request) && has_one_host(request);
    if is_good { refused_encoding(request) } else { Some(StatusCode::BAD_REQUEST) }
}

/// Whether the target is a path, a URL of HTTP, or the `*` of OPTIONS (RFC 9112 §3.2).
fn has_good_target<B>(request: &Request<B>) -> bool {
    let uri = request.uri();
    let is_http = match (uri.scheme_str(), uri.authority()) {
        (Some(scheme), Some(_)) => ["http", "https"].contains(&scheme),
        (None, None) => true,
        // The form of CONNECT, or a URL without a host.
        (None, Some(_)) | (Some(_), None) => false,
    };
    is_http && (uri.path() != "*" || request.method() == Method::OPTIONS)
}

/// Whether a request has one host, and that of the form of one. Whoever forwarded it may have meant another (RFC 9112
/// §3.2, RFC 9113 §8.3.1). Only HTTP/1.0 does without.
fn has_one_host<B>(request: &Request<B>) -> bool {
    let of_target = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    let mut hosts = request.headers().get_all(HOST).iter().map(HeaderValue::as_bytes);
    let (first, more) = (hosts.next(), hosts.next());
    let is_known = match request.version() {
        Version::HTTP_09 | Version::HTTP_10 => true,
        Version::HTTP_11 => first.is_some(),
        // HTTP/1.1 takes the target's whatever `Host` says. HTTP/2 has one place for it, so a second is a forger's.
        _ => match (of_target, first) {
            (Some(one), Some(other)) => without_default_port(one).eq_ignore_ascii_case(without_default_port(other)),
            (one, other) => one.or(other).is_some(),
        },
    };
    is_known && more.is_none() && first.into_iter().chain(of_target).all(is_host)
}

fn without_default_port(host: &[u8]) -> &[u8] {
    host.strip_suffix(b":443").or_else(|| host.strip_suffix(b":80")).unwrap_or(host)
}

/// Whether this is a name, an address of IPv4, or one of IPv6 in brackets; then maybe a port.
fn is_host(host: &[u8]) -> bool {
    let Ok(host) = core::str::from_utf8(host) else { return false };
    let (is_name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => (address.parse::<Ipv6Addr>().is_ok(), rest.strip_prefix(':').unwrap_or(rest)),
        None => {
            let (name, port) = host.split_once(':').unwrap_or((host, ""));
            let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
            (!name.is_empty() && name.bytes().all(is_of_name), port)
        }
    };
    let is_port = port.is_empty() || port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    is_name && is_port
}

/// Refuses whatever isn't `chunked`, once. hyper takes any list that ends with it (RFC 9112 §6.1).
fn refused_encoding<B>(request: &Request<B>) -> Option<StatusCode> {
    let values = request.headers().get_all(TRANSFER_ENCODING).iter().map(|value| value.to_str().unwrap_or("?"));
    let codings: Vec<&str> = values.flat_map(|value| value.split(',')).map(str::trim).collect();
    let is_chunked = |coding: &&&str| coding.eq_ignore_ascii_case("chunked");
    match (codings.len(), codings.iter().filter(is_chunked).count()) {
        (0, _) | (1, 1) => None,
        // A coding that the gateway doesn't know comes before.
        (_, 1) => Some(StatusCode::NOT_IMPLEMENTED),
        _ => Some(StatusCode::BAD_REQUEST),
    }
}

#[cfg(test)]
mod tests {
    use core::cell::Cell;
    use std::collections::BTreeSet;

    use hyper::header::HeaderName;
    use proptest::prelude::*;
    use proptest::test_runner::{Config, TestRunner};

    use super::super::config::AddressHeader;
    use super::super::request::{Locator, Sender, described};
    use super::*;

    fn status(method: &str, target: &str, version: Version, headers: &[(&str, &str)]) -> u16 {
        let mut request = Request::builder().method(method).uri(target).version(version);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        refused(&request.body(()).unwrap()).map_or(200, |status| status.as_u16())
    }

    #[test]
    fn a_request_has_one_host_of_the_form_of_one() {
        let one = |host: &str| status("GET", "/", Version::HTTP_11, &[("host", host)]);
        for host in ["chat.example", "chat.example:8443", "chat.example:", "192.0.2.1:80", "[2001:db8::1]:443", "a_b"] {
            assert_eq!(one(host), 200, "{host}");
        }
        for host in ["", "a b", "a,b", "a/b", "me@a", "a:b", "a:99999", "a:+1", "a:1:2", "[[]", "[::1]a", "a%2eb", ":1"]
        {
            assert_eq!(one(host), 400, "{host}");
        }
        assert_eq!(status("GET", "/", Version::HTTP_11, &[]), 400);
        assert_eq!(status("GET", "/", Version::HTTP_10, &[]), 200);
        assert_eq!(status("GET", "/", Version::HTTP_11, &[("host", "a"), ("host", "a")]), 400);
        assert_eq!(status("GET", "http://a/", Version::HTTP_11, &[("host", "b")]), 200, "the target's counts");
        for (host, expected) in [("A:443", 200), ("a", 200), ("b", 400), ("a:8443", 400)] {
            assert_eq!(status("GET", "https://a/", Version::HTTP_2, &[("host", host)]), expected, "{host}");
        }
        assert_eq!(status("GET", "https://a/", Version::HTTP_2, &[]), 200);
        assert_eq!(status("GET", "/", Version::HTTP_2, &[("host", "a")]), 200);
        assert_eq!(status("GET", "/", Version::HTTP_2, &[]), 400);
    }

    #[test]
    fn a_target_is_a_path_or_a_url_of_http() {
        let target = |method: &str, target: &str| status(method, target, Version::HTTP_11, &[("host", "a")]);
        assert_eq!([target("GET", "http://a/"), target("GET", "https://a"), target("OPTIONS", "*")], [200; 3]);
        assert_eq!([target("GET", "ftp://a/"), target("GET", "a:443"), target("GET", "*")], [400; 3]);
        assert_eq!([target("CONNECT", "a:443"), target("CONNECT", "/v1/models")], [501; 2]);
    }

    #[test]
    fn a_body_is_chunked_once_and_not_encoded_otherwise() {
        let encoded = |values: &[&str]| {
            let mut headers = vec![("host", "a")];
            headers.extend(values.iter().map(|value| ("transfer-encoding", *value)));
            status("POST", "/", Version::HTTP_11, &headers)
        };
        assert_eq!([encoded(&[]), encoded(&["chunked"]), encoded(&["ChunkeD"])], [200; 3]);
        assert_eq!([encoded(&["chunked, chunked"]), encoded(&["chunked", "chunked"]), encoded(&["gzip"])], [400; 3]);
        assert_eq!([encoded(&["gzip, chunked"]), encoded(&["identity", "chunked"])], [501; 2]);
    }

    /// Cases of the property below.
    const CASES: u32 = 100_000;

    /// Whatever passes is described line by line: no header, host or target adds a line, names another host, or says
    /// where a client is, unless a trusted proxy sent it.
    #[test]
    fn what_is_answered_is_described_as_one_request() {
        let locator = Locator {
            trusted: vec!["10.0.0.0/8".parse().unwrap()],
            header: AddressHeader::CfConnectingIp,
            database: None,
        };
        let targets = prop_oneof![
            "[/*a:.@?#%\\[\\]h-]{1,12}",
            "(https?|ftp|HTTP)://[a-c@:.\\[\\]1]{0,8}[/?#*a]{0,4}",
            "/[ -~]{0,12}",
        ];
        let value = prop::collection::vec(any::<u8>(), 0..12);
        let name = prop_oneof![
            Just("host"),
            Just("transfer-encoding"),
            Just("cf-connecting-ip"),
            Just("bailiwick-cf"),
            Just("x-forwarded-for"),
            Just("x-a")
        ];
        let plain = "[a-cA-C.:@, 0-9\\[\\]]{0,8}|chunked|gzip, chunked|[{]\"country\":\"[A-Z\n]{2}\"[}]";
        let value = prop_oneof![3 => plain.prop_map(String::into_bytes), 1 => value];
        let headers = prop::collection::vec((name, value), 0..5);
        let methods = prop_oneof![Just("GET"), Just("POST"), Just("OPTIONS"), Just("CONNECT")];
        let (tried, passed) = (Cell::new(0_u32), Cell::new(0_u32));
        let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
        let versions = prop_oneof![Just(Version::HTTP_10), Just(Version::HTTP_11), Just(Version::HTTP_2)];
        let inputs = (methods, targets, versions, headers);
        let outcome = TestRunner::new(config).run(&inputs, |(method, target, version, headers)| {
            tried.set(tried.get() + 1);
            let mut builder = Request::builder().method(method).uri(target.as_str()).version(version);
            for (name, value) in &headers {
                builder = builder.header(*name, value.as_slice());
            }
            let Ok(request) = builder.body(()) else { return Ok(()) };
            if refused(&request).is_some() {
                return Ok(());
            }
            passed.set(passed.get() + 1);
            let sender = Sender { address: "192.0.2.7".parse().unwrap(), is_trusted: false };
            let text = described(&request, "id", sender, &locator);
            let lines: Vec<&str> = text.strip_suffix('\n').unwrap().split('\n').collect();
            let names: BTreeSet<_> = request.headers().keys().map(HeaderName::as_str).collect();
            let told = names.iter().filter(|name| !["cf-connecting-ip", "bailiwick-cf"].contains(name)).count();
            prop_assert_eq!(lines.len(), 6 + 2 * (told + 1), "{}", text);
            prop_assert_eq!(lines[1], method);
            prop_assert_eq!(&lines[3..6], ["", "", ""], "it can't say where it is");
            prop_assert_eq!(&lines[lines.len() - 2..], ["cf-connecting-ip", "192.0.2.7"]);
            let host = request.uri().authority().map(|authority| authority.as_str().to_owned());
            let of_header = || request.headers().get(HOST).map(|host| host.to_str().unwrap().to_owned());
            let host = host.or_else(of_header).unwrap_or_default();
            let rest = lines[2].strip_prefix("http://").and_then(|url| url.strip_prefix(&*host)).unwrap();
            prop_assert!(rest.starts_with('/') || rest.starts_with('?'), "{}", lines[2]);
            Ok(())
        });
        println!("{} requests, {} answered", tried.get(), passed.get());
        outcome.unwrap();
        assert!(tried.get() >= CASES && passed.get() > CASES / 50);
    }
}
