//! Says whether a URL leads to the public internet, as far as the URL shows. Called by `walk` for the servers of tools
//! and for references in JSON Schemas, and by `unlisted` for all other values that name a place.
//!
//! A model host can reach addresses of its own network: the cloud's metadata service, or an admin page on loopback.
//! Such URLs are refused, because no client's image is there. This file can't see to which address a *name* resolves,
//! nor where a server redirects.

use core::net::{Ipv4Addr, Ipv6Addr};

/// The longest name in the DNS, in characters (RFC 1035 §2.3.4).
const LONGEST_NAME: usize = 253;
/// The longest label of a name, in characters.
const LONGEST_LABEL: usize = 63;

/// Last labels that have a meaning in one network only: RFC 6761, RFC 6762 with its appendix G, RFC 8375, ICANN's
/// `internal`, and Kubernetes' `svc`.
const LOCAL_ENDS: &[&str] = &[
    "localhost",
    "local",
    "internal",
    "localdomain",
    "arpa",
    "lan",
    "home",
    "corp",
    "intranet",
    "private",
    "invalid",
    "onion",
    "alt",
    "svc",
];

/// Google's metadata service by its name in the public DNS.
const METADATA_NAME: &str = "metadata.goog";

/// Networks that are not the public internet: IANA's special-purpose registry (RFC 6890), multicast, and Azure's
/// metadata service, whose address looks public.
const NOT_PUBLIC: &[([u8; 4], u32)] = &[
    ([0, 0, 0, 0], 8),
    ([10, 0, 0, 0], 8),
    ([100, 64, 0, 0], 10),
    ([127, 0, 0, 0], 8),
    ([168, 63, 129, 16], 32),
    ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12),
    ([192, 0, 0, 0], 24),
    ([192, 0, 2, 0], 24),
    ([192, 31, 196, 0], 24),
    ([192, 52, 193, 0], 24),
    ([192, 88, 99, 0], 24),
    ([192, 168, 0, 0], 16),
    ([192, 175, 48, 0], 24),
    ([198, 18, 0, 0], 15),
    ([198, 51, 100, 0], 24),
    ([203, 0, 113, 0], 24),
    ([224, 0, 0, 0], 3),
];

/// Whether a value is an `http:` or `https:` URL of a public name or address.
///
/// Only the plainest spelling passes. Parsers of URLs read other spellings differently (`\`, `@`, tabs, `0177.1`,
/// full-width digits), and one of these parsers could see another host than this file.
#[inline(never)]
pub(super) fn is_public(url: &str) -> bool {
    let url = url.trim_ascii();
    let rest = ["https://", "http://"].iter().find_map(|scheme| {
        let (start, rest) = url.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    });
    let Some(rest) = rest else { return false };
    let authority = rest.split_once('/').map_or(rest, |(authority, _)| authority);
    let is_port = |port: &str| port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    if let Some((address, port)) = authority.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
        let fits = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return fits && address.parse().is_ok_and(is_public_v6);
    }
    let (host, port) = authority.split_once(':').unwrap_or((authority, ""));
    is_port(port) && is_public_host(host)
}

/// Whether a host name or IPv4 address may lie in the public Internet.
fn is_public_host(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let Some((before, last)) = host.rsplit_once('.') else { return false };
    // If the last label is a number, parsers read the host as an IPv4 address (WHATWG URL, *ends in a number*). Only
    // the usual spelling of an address passes.
    if last.starts_with(|c: char| c.is_ascii_digit()) {
        return host.parse().is_ok_and(is_public_v4);
    }
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_label = |label: &str| (1..=LONGEST_LABEL).contains(&label.len()) && label.bytes().all(fits);
    let is_local = LOCAL_ENDS.iter().any(|end| last.eq_ignore_ascii_case(end));
    host.len() <= LONGEST_NAME
        && is_label(last)
        && before.split('.').all(is_label)
        && !is_local
        && !host.eq_ignore_ascii_case(METADATA_NAME)
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let bits = u32::from(address);
    let is_in = |(net, length): &([u8; 4], u32)| (bits ^ u32::from_be_bytes(*net)) >> (32 - length) == 0;
    !NOT_PUBLIC.iter().any(is_in)
}

/// Whether an address is in the part of 2000::/3 that is assigned for the internet: not the special purposes of
/// 2001::/23, not documentation (RFC 3849, RFC 9637), and not 6to4, which holds an IPv4 address.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    first & 0xe000 == 0x2000
        && !(first == 0x2001 && (second < 0x200 || second == 0xdb8))
        && first != 0x2002
        && !(first == 0x3fff && second < 0x1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_the_public_internet_pass() {
        for url in [
            "https://images.example.com/a.png",
            "http://images.example.com",
            "HTTPS://Images.Example.COM:8443/a?b=c#d@e",
            " https://a.example./x y\t",
            "https://xn--mnchen-3ya.example/",
            "https://my_bucket.s3.amazonaws.com/x%2Fy",
            "https://8.8.8.8/x",
            "https://[2606:4700::1111]/",
            "https://[2606:4700::1111]:443/",
            "https://a.example/@169.254.169.254/",
            "https://internal.example/",
        ] {
            assert!(is_public(url), "{url}");
        }
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table of cases")]
    fn urls_of_private_networks_are_refused() {
        for host in [
            "169.254.169.254",
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0x7f.0.0.1",
            "0177.0.0.1",
            "a.0x7f",
            "0",
            "0.0.0.0",
            "10.1.2.3",
            "172.31.0.1",
            "192.168.0.1",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.2.1",
            "198.19.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "1.2.3.4.5",
            "256.1.1.1",
            "[::1]",
            "[::]",
            "[::ffff:169.254.169.254]",
            "[64:ff9b::a9fe:a9fe]",
            "[2002:a9fe:a9fe::1]",
            "[fd00:ec2::254]",
            "[fe80::1]",
            "[fe80::1%25eth0]",
            "[2001:db8::1]",
            "[2001::1]",
            "[2606:4700::1111",
            "localhost",
            "a.localhost",
            "metadata",
            "metadata.google.internal",
            "METADATA.GOOGLE.INTERNAL.",
            "metadata.goog",
            "vllm.default.svc",
            "vllm.default.svc.cluster.local",
            "printer.lan",
            "router.home.arpa",
            "a..example",
            ".example",
            "",
            "user@a.example",
            "a.example:80@169.254.169.254",
            "a.example\\@127.0.0.1",
            "a.example#@127.0.0.1",
            "a.example?@127.0.0.1",
            "127.0.0.1 a.example",
            "\t127.0.0.1",
            "１２７.0.0.1",
            "a。example",
            "%31%32%37.0.0.1",
            "a.example:port",
            "a.example:80:80",
        ] {
            for end in ["", "/x"] {
                assert!(!is_public(&format!("http://{host}{end}")), "{host}");
            }
        }
        for url in [
            "file:///etc/passwd",
            "ftp://a.example/",
            "gs://bucket/x",
            "//a.example/",
            "https:/a.example",
            "https:a.example",
            "https:\\\\a.example",
            "ht\ttps://a.example",
            "a.example:443",
            "8.8.8.8",
            "",
            "https://",
            "https:///169.254.169.254/",
        ] {
            assert!(!is_public(url), "{url}");
        }
    }
}
