//! Reads monitors. Takes the JSON of a health check, returns a [`Monitor`]. Called by the reader of regions.

use super::http::tls_fields;
use super::model_probe::{self, ProbeTarget, model_probe};
use super::value::{duration, http_url, one_of, secret_name};
use crate::health::{AddressFamily, Thresholds};
use crate::json::{Fields, Node, Reader};
use crate::rules::{Family, HostName, HttpProbe, Monitor, Probe};
use crate::time::Millis;

/// The fields that monitors of type `tcp`, and those of type `http`, have.
const OF_TCP: [&str; 1] = ["address"];
const OF_HTTP: [&str; 7] = ["url", "status", "body_contains", "secret", "host", "sni", "ca_file"];
/// The fields of type `http` that somebody may well write for type `tcp`.
const HTTP_ONLY: [&str; 3] = ["host", "sni", "ca_file"];

/// Reads a monitor. `watched` is the endpoint or region that the monitor belongs to.
pub(super) fn monitor(reader: &mut Reader<'_>, node: &Node, watched: ProbeTarget<'_>) -> Option<Monitor> {
    let mut fields = reader.object(node)?;
    let kind =
        fields.required("type", "\"tcp\", \"http\" or \"openai\"", |reader, node| match reader.string(node)? {
            kind @ ("tcp" | "http" | "openai") => Some(kind),
            kind @ ("vllm" | "sglang") => reader.fail(format!(
                "is {kind:?}; write \"openai\", which asks such an engine for a token, or \"http\" or \"tcp\""
            )),
            kind => reader.fail(format!("is {kind:?}; write \"http\", \"tcp\" or \"openai\"")),
        });
    let is_model = kind == Some("openai");
    let span = |low, high| move |reader: &mut Reader<'_>, node: &Node| duration(reader, node, low..=high);
    let interval = fields.optional("interval", span(Millis(100), Millis(3_600_000)));
    let interval = interval.unwrap_or(if is_model { model_probe::INTERVAL } else { Millis(10_000) });
    let mut first_token = None;
    let probe = match kind {
        Some("tcp") => tcp_probe(&mut fields),
        Some("http") => http_probe(&mut fields),
        Some(_) => model_probe(&mut fields, watched, interval).map(|(probe, within)| {
            first_token = Some(within);
            Probe::OpenAi(Box::new(probe))
        }),
        None => {
            // Without a type it isn't known which fields belong to the monitor, so the fields of every type are
            // accepted here.
            for key in OF_TCP.into_iter().chain(OF_HTTP).chain(model_probe::FIELDS) {
                fields.optional(key, |_, _| Some(()));
            }
            None
        }
    };
    if !is_model && kind.is_some() {
        for key in model_probe::FIELDS {
            if fields.has(key) {
                let message = "belongs to \"type\": \"openai\" only; leave it out, or change the type";
                fields.optional(key, |reader, _| reader.fail::<()>(message));
            }
        }
    }
    let address = probe.as_ref().and_then(Probe::address_family);
    let family = fields.optional("family", |reader, node| match family(reader, node, address)? {
        Family::Both if is_model => reader.fail(
            "is \"both\", which would have every address of both families make a token each time; write \"any\", \
             \"ipv4\" or \"ipv6\"",
        ),
        family => Some(family),
    });
    let timeout = match is_model {
        true => first_token,
        false => fields.optional("timeout", span(Millis(10), Millis(300_000))),
    };
    let count =
        |reader: &mut Reader<'_>, node: &Node| reader.integer(node, 1..=1000).and_then(|n| u32::try_from(n).ok());
    let thresholds = Thresholds {
        up: fields.optional("up_thresh", count).unwrap_or(3),
        ok: fields.optional("ok_thresh", count).unwrap_or(5),
        down: fields.optional("down_thresh", count).unwrap_or(3),
    };
    fields.finish();
    Some(Monitor { probe: probe?, family, interval, timeout: timeout.unwrap_or(Millis(3_000)), thresholds })
}

/// Reads a probe by TCP.
fn tcp_probe(fields: &mut Fields<'_, '_, '_>) -> Option<Probe> {
    let address = fields.required("address", "what to connect to, such as \"192.0.2.10:443\"", tcp_address);
    for key in HTTP_ONLY {
        if fields.has(key) {
            fields.optional(key, |reader, _| reader.fail::<()>("belongs to \"type\": \"http\" only; leave it out"));
        }
    }
    address.map(|address| Probe::Tcp { address })
}

/// Reads the address of a TCP probe.
fn tcp_address(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let text = reader.string(node)?;
    let named = |text: &str| {
        let (host, port) = text.rsplit_once(':')?;
        HostName::parse(host)?;
        port.parse::<u16>().ok().filter(|&port| port != 0)
    };
    let socket = text.parse::<core::net::SocketAddr>().is_ok_and(|address| address.port() != 0);
    if socket || named(text).is_some() {
        return Some(text.to_owned());
    }
    reader.fail(format!("is {text:?}; write an address and port such as \"192.0.2.10:443\" or \"[2001:db8::10]:443\""))
}

/// Reads a probe by HTTP.
fn http_probe(fields: &mut Fields<'_, '_, '_>) -> Option<Probe> {
    let url = fields.required("url", "what to GET, such as https://gpu.example.net/health", http_url);
    let status = fields.optional("status", |reader, node| {
        reader.filled_list(node, |reader, node| reader.integer(node, 100..=599).and_then(|n| u16::try_from(n).ok()))
    });
    let body_contains = fields.optional("body_contains", |reader, node| match reader.string(node)? {
        "" => reader.fail("is empty and would always match; write some text, or leave it out"),
        text => Some(text.to_owned()),
    });
    let secret = fields.optional("secret", secret_name);
    let (host, sni, ca_file) = tls_fields(fields, url.as_ref());
    let status = status.unwrap_or_else(|| vec![200]);
    Some(Probe::Http(HttpProbe { url: url?, status, body_contains, secret, host, sni, ca_file }))
}

/// Reads `family`. `address` is the family of the address that the monitor names; `None` if it names a host.
fn family(reader: &mut Reader<'_>, node: &Node, address: Option<AddressFamily>) -> Option<Family> {
    let words = [("any", Family::Any), ("ipv4", Family::Ipv4), ("ipv6", Family::Ipv6), ("both", Family::Both)];
    let family = one_of(reader, node, &words)?;
    match (family, address) {
        (_, None)
        | (Family::Any, _)
        | (Family::Ipv4, Some(AddressFamily::Ipv4))
        | (Family::Ipv6, Some(AddressFamily::Ipv6)) => Some(family),
        (_, Some(named)) => reader.fail(format!(
            "doesn't fit a monitor that names an {named} address; leave it out, or let the monitor name a host"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Table;

    /// Reads a region's monitor with these fields. The error has one message for each field.
    fn read(fields: &str) -> Result<Monitor, Vec<String>> {
        let json = format!(
            r#"{{ "version": 1, "revision": 1, "regions": {{ "r": {{ "countries": ["DE"],
                "monitor": {{ {fields} }} }} }} }}"#
        );
        let table = Table::compile(json.as_bytes());
        let table = table.map_err(|errors| {
            let reported = errors.iter().map(ToString::to_string);
            reported.map(|line| line.replace("/regions/r/monitor/", "")).collect::<Vec<_>>()
        })?;
        Ok(table.regions()[0].monitor.clone().unwrap())
    }

    fn https(more: &str) -> Result<Monitor, Vec<String>> {
        read(&format!(r#""type": "http", "url": "https://192.0.2.10/health", {more}"#))
    }

    fn refused(read: Result<Monitor, Vec<String>>) -> String {
        let lines = read.unwrap_err();
        let [line] = &lines[..] else { panic!("one violation expected: {lines:#?}") };
        line.clone()
    }

    #[test]
    fn names_and_authorities_of_http_are_read() {
        let of = |more: &str| match https(more).unwrap().probe {
            Probe::Http(probe) => probe,
            other => panic!("http was asked for: {other:?}"),
        };
        let server_name = |probe: &HttpProbe| probe.server_name().map(|name| name.as_str().to_owned());
        let named = of(r#""host": "gpu.example.net:8443", "ca_file": "/etc/ca.pem""#);
        assert_eq!(server_name(&named).as_deref(), Some("gpu.example.net"));
        assert_eq!(named.ca_file.as_deref(), Some("/etc/ca.pem"));
        let other = of(r#""host": "gpu.example.net", "sni": "Front.example.net""#);
        assert_eq!(server_name(&other).as_deref(), Some("front.example.net"));
        assert_eq!(server_name(&of(r#""host": "192.0.2.11""#)), None, "the URL's");
        let plain = read(r#""type": "http", "url": "http://192.0.2.10/", "host": "gpu.example.net""#);
        assert!(plain.is_ok(), "names go without TLS, too");
    }

    #[test]
    fn invalid_values_are_reported_at_their_place() {
        for (more, said) in [
            (r#""host": """#, "host: is \"\", which is empty"),
            (
                r#""host": "https://gpu.example.net/""#,
                "host: is \"https://gpu.example.net/\", which is more than a host",
            ),
            (r#""host": "a\r\nb: c""#, "host: is \"a\\r\\nb: c\", which holds a blank or a control character"),
            (r#""sni": """#, "sni: is \"\", which is empty"),
            (r#""sni": "192.0.2.10""#, "sni: is \"192.0.2.10\", which is an address"),
            (r#""sni": "gpu.example.net:443""#, "sni: is \"gpu.example.net:443\", which is no host name"),
            (r#""ca_file": """#, "ca_file: is empty"),
            (r#""ca_file": "a\u0000b""#, "ca_file: holds a control character"),
            (r#""family": "v4""#, "family: is \"v4\"; write one of [\"any\", \"ipv4\", \"ipv6\", \"both\"]"),
            (r#""family": "both""#, "family: doesn't fit a monitor that names an IPv4 address"),
            (r#""family": "ipv6""#, "family: doesn't fit a monitor that names an IPv4 address"),
        ] {
            let line = refused(https(more));
            assert!(line.starts_with(said), "{more}: {line}");
        }
        for key in ["sni", "ca_file"] {
            let plain = read(&format!(r#""type": "http", "url": "http://a.example/", "{key}": "gpu.example.net""#));
            assert!(refused(plain).starts_with(&format!("{key}: belongs to an https \"url\" only")));
        }
        for key in HTTP_ONLY {
            let tcp = read(&format!(r#""type": "tcp", "address": "a.example:1", "{key}": "gpu.example.net""#));
            assert!(refused(tcp).starts_with(&format!("{key}: belongs to \"type\": \"http\" only")));
        }
        let ipv6 = read(r#""type": "tcp", "address": "[2001:db8::1]:1", "family": "ipv4""#);
        assert!(refused(ipv6).contains("names an IPv6 address"));
    }

    #[test]
    fn a_family_fits_a_name_and_an_address_of_its_own() {
        for family in ["any", "ipv4", "ipv6", "both"] {
            let tcp = read(&format!(r#""type": "tcp", "address": "gpu.example.net:1", "family": "{family}""#));
            assert!(tcp.unwrap().family.is_some());
        }
        assert_eq!(https(r#""family": "ipv4""#).unwrap().family, Some(Family::Ipv4));
        assert_eq!(https(r#""family": "any""#).unwrap().family, Some(Family::Any));
        assert_eq!(https(r#""status": [200]"#).unwrap().family, None);
    }
}
