//! Reads the `Host` header that a monitor sends. Takes its text, returns an [`Authority`] or what is wrong with it.
//! Called by the reader of monitors.

use core::fmt;
use core::net::{IpAddr, Ipv6Addr};

use super::HostName;

/// A host with a port if need be, as it stands in the `Host` header (RFC 9110 §7.2): `gpu.example.net`,
/// `gpu.example.net:8443`, `192.0.2.10` or `[2001:db8::10]:8443`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    text: Box<str>,
    /// The host, if it is a name.
    name: Option<HostName>,
}

impl Authority {
    /// Reads one; the error is what to say about it.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() {
            return Err("is empty; write a host such as \"gpu.example.net\", or leave it out");
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err("holds a blank or a control character; write the host alone, such as \"gpu.example.net\"");
        }
        if text.contains(['/', '@', '?', '#']) {
            return Err("is more than a host; leave out the scheme, the user and the path, which belong to \"url\"");
        }
        if !text.is_ascii() {
            return Err("has letters outside ASCII; write it in Punycode (xn--…)");
        }
        if text.parse::<Ipv6Addr>().is_ok() {
            return Err("is an IPv6 address without brackets; write it as \"[2001:db8::10]\"");
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (text, None),
        };
        let is_port = |port: &str| {
            port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|number| number != 0)
        };
        if !port.is_none_or(is_port) {
            return Err("has no port behind its colon; write one from 1 to 65535, or leave out the colon");
        }
        let name = if is_address(host) { None } else { Some(server_name(host)?) };
        Ok(Self { text: text.into(), name })
    }

    /// The text, as it is sent.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The host, unless it is an address.
    #[must_use]
    pub fn name(&self) -> Option<&HostName> {
        self.name.as_ref()
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

/// Whether this is an IPv4 address, or an IPv6 address in brackets.
fn is_address(host: &str) -> bool {
    let in_brackets = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    in_brackets.map_or_else(
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4()),
        |inside| inside.parse::<Ipv6Addr>().is_ok(),
    )
}

/// Reads a server name for TLS. It is no address (RFC 6066 §3), nor a name that a URL parser would take for an address.
/// The error says what is wrong, as the end of a sentence that begins with the text.
pub(super) fn server_name(text: &str) -> Result<HostName, &'static str> {
    if text.is_empty() {
        return Err("is empty; write a name such as \"gpu.example.net\", or leave it out");
    }
    let inside = text.trim_start_matches('[').trim_end_matches(']');
    if inside.parse::<IpAddr>().is_ok() {
        return Err("is an address, which TLS has no server name for; write a name such as \"gpu.example.net\"");
    }
    let name = HostName::parse(text).ok_or("is no host name; write one such as \"gpu.example.net\"")?;
    let last = name.as_str().rsplit('.').next().unwrap_or_default();
    let is_number = last.starts_with("0x") || last.bytes().all(|byte| byte.is_ascii_digit());
    // The URL Standard reads a host that ends in a number as an IPv4 address.
    if is_number { Err("ends in a number, so it would be taken for an address; write a host name") } else { Ok(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_with_a_port_if_need_be() {
        for (good, name) in [
            ("GPU.example.net", Some("gpu.example.net")),
            ("gpu.example.net:8443", Some("gpu.example.net")),
            ("gpu_1:1", Some("gpu_1")),
            ("192.0.2.10", None),
            ("192.0.2.10:80", None),
            ("[2001:db8::10]", None),
            ("[2001:db8::10]:65535", None),
        ] {
            let read = Authority::parse(good).unwrap_or_else(|problem| panic!("{good} {problem}"));
            assert_eq!((read.as_str(), read.name().map(HostName::as_str)), (good, name));
        }
    }

    #[test]
    fn invalid_hosts_are_reported_with_the_remedy() {
        for (bad, said) in [
            ("", "is empty"),
            ("a b", "blank or a control character"),
            ("a\r\nx-key: 1", "blank or a control character"),
            ("a\u{0}", "blank or a control character"),
            ("https://gpu.example.net", "leave out the scheme"),
            ("gpu.example.net/health", "leave out the scheme"),
            ("user@gpu.example.net", "leave out the scheme"),
            ("gpü.example.net", "Punycode"),
            ("2001:db8::10", "without brackets"),
            ("gpu.example.net:", "from 1 to 65535"),
            ("gpu.example.net:0", "from 1 to 65535"),
            ("gpu.example.net:65536", "from 1 to 65535"),
            ("gpu.example.net:+80", "from 1 to 65535"),
            (":80", "is empty"),
            ("gpu..net", "is no host name"),
            ("*.example.net", "is no host name"),
            ("1.2.3", "ends in a number"),
            ("gpu.0x7f", "ends in a number"),
            ("[::1", "is no host name"),
            ("[gpu.example.net]", "is no host name"),
        ] {
            let reported = Authority::parse(bad).unwrap_err();
            assert!(reported.contains(said), "{bad:?}: {reported}");
        }
    }

    #[test]
    fn rfc6066_3_a_server_name_is_no_address() {
        assert_eq!(server_name("GPU.example.net.").unwrap().as_str(), "gpu.example.net");
        for address in ["192.0.2.10", "::1", "[::1]"] {
            assert!(server_name(address).unwrap_err().contains("is an address"), "{address}");
        }
        assert!(server_name("").unwrap_err().contains("is empty"));
    }
}
