//! Reads the addresses where DNS is served, and checks that the addresses of all sections can be bound at the same
//! time. Called by [`super::Reader::document`].

use std::net::SocketAddr;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::values::kind;
use super::{Reader, Value};

impl Reader<'_> {
    pub(super) fn listen(&mut self, key: &str, value: &Value<'_>) -> Vec<SocketAddr> {
        let mut addresses = Vec::new();
        let Some(items) = value.get_ref().as_array() else {
            let kind = kind(value);
            self.note(
                value.span(),
                format!("\"{key}\" is {kind}; write a list, such as listen = [\"127.0.0.1:5300\"]"),
            );
            return addresses;
        };
        for item in items {
            let Some(text) = item.get_ref().as_str() else {
                let kind = kind(item);
                self.note(item.span(), format!("\"{key}\" holds {kind}; write addresses as \"127.0.0.1:5300\""));
                continue;
            };
            let Some(address) = self.address(text, item) else { continue };
            if address.port() != 0 && addresses.contains(&address) {
                self.note(item.span(), format!("\"{address}\" is listed twice; remove one"));
                continue;
            }
            addresses.push(address);
        }
        if items.is_empty() {
            self.note(value.span(), format!("\"{key}\" is empty; write where DNS is served"));
        }
        addresses
    }

    /// Notes an error for each pair of addresses that overlap, such as `0.0.0.0:53` and `127.0.0.1:53`: the system
    /// binds only one of them.
    pub(super) fn overlaps(&mut self, document: &DeTable<'_>, ipv6_only: Option<bool>) {
        type Listed = (SocketAddr, Range<usize>, &'static str);
        let of = |name: &'static str, section: Option<&Value<'_>>| -> Vec<Listed> {
            let items: Vec<&Value<'_>> = match section.map(Value::get_ref) {
                Some(DeValue::Array(items)) => items.iter().collect(),
                _ => section.into_iter().collect(),
            };
            let read = |item: &&Value<'_>| Some((item.get_ref().as_str()?.parse().ok()?, item.span(), name));
            items.iter().filter_map(read).collect()
        };
        let nested = |name: &'static str| {
            of(name, document.get(name).and_then(|value| value.get_ref().as_table()?.get("listen")))
        };
        let dns = of("", document.get("listen"));
        let by_tcp = [&dns[..], &nested("dot"), &nested("doh"), &nested("api")].concat();
        let by_udp = [&dns[..], &nested("doq")].concat();
        let mut reported: Vec<(Range<usize>, String)> = Vec::new();
        for transport in [by_tcp, by_udp] {
            for (at, (one, place, section)) in transport.iter().enumerate() {
                // Equal addresses of one list have an error already.
                let clashes =
                    |(other, _, its): &&Listed| overlap(*one, *other, ipv6_only) && (one != other || section != its);
                let Some((other, ..)) = transport[..at].iter().find(clashes) else { continue };
                let message = match one == other {
                    true => format!("\"{one}\" is listened on already, by another section; choose another port here"),
                    false => {
                        format!("\"{one}\" and \"{other}\" overlap, so that only one can be bound; remove one of them")
                    }
                };
                if !reported.iter().any(|(its, _)| its == place) {
                    reported.push((place.clone(), message));
                }
            }
        }
        for (place, message) in reported {
            self.note(place, message);
        }
    }
}

/// Whether the system refuses to bind one of these addresses while the other is bound.
fn overlap(one: SocketAddr, other: SocketAddr, ipv6_only: Option<bool>) -> bool {
    if one.port() == 0 || one.port() != other.port() {
        return false;
    }
    let (one, other) = (one.ip(), other.ip());
    match one.is_ipv4() == other.is_ipv4() {
        true => one == other || one.is_unspecified() || other.is_unspecified(),
        // If IPv4 is listened on too, `[::]` takes no IPv4, unless the configuration says `ipv6_only = false`.
        false => ipv6_only == Some(false) && [one, other].iter().any(|ip| ip.is_ipv6() && ip.is_unspecified()),
    }
}
