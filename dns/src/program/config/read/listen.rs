//! Reads the addresses where DNS is served, and checks that the addresses of all sections can be bound at the same
//! time. Called by [`super::Reader::document`].

use std::net::SocketAddr;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::values::kind;
use super::{Reader, Value};

impl Reader<'_> {
    /// Reads a list of addresses to listen on.
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
        type ListenEntry = (SocketAddr, Range<usize>, &'static str);
        let entries_of = |name: &'static str, section: Option<&Value<'_>>| -> Vec<ListenEntry> {
            let items: Vec<&Value<'_>> = match section.map(Value::get_ref) {
                Some(DeValue::Array(items)) => items.iter().collect(),
                _ => section.into_iter().collect(),
            };
            let read = |item: &&Value<'_>| Some((item.get_ref().as_str()?.parse().ok()?, item.span(), name));
            items.iter().filter_map(read).collect()
        };
        let nested = |name: &'static str| {
            entries_of(name, document.get(name).and_then(|value| value.get_ref().as_table()?.get("listen")))
        };
        let dns = entries_of("", document.get("listen"));
        let by_tcp = [&dns[..], &nested("dot"), &nested("doh"), &nested("api")].concat();
        let by_udp = [&dns[..], &nested("doq")].concat();
        let mut reported: Vec<(Range<usize>, String)> = Vec::new();
        for transport in [by_tcp, by_udp] {
            for (at, (address, place, section)) in transport.iter().enumerate() {
                // Equal addresses of one list have an error already.
                let clashes = |(other_address, _, its): &&ListenEntry| {
                    overlap(*address, *other_address, ipv6_only) && (address != other_address || section != its)
                };
                let Some((other_address, ..)) = transport[..at].iter().find(clashes) else { continue };
                let message = match address == other_address {
                    true => {
                        format!("\"{address}\" is listened on already, by another section; choose another port here")
                    }
                    false => {
                        format!(
                            "\"{address}\" and \"{other_address}\" overlap, so that only one can be bound; remove one \
                             entries_of them"
                        )
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
fn overlap(a: SocketAddr, b: SocketAddr, ipv6_only: Option<bool>) -> bool {
    if a.port() == 0 || a.port() != b.port() {
        return false;
    }
    let (a, b) = (a.ip(), b.ip());
    match a.is_ipv4() == b.is_ipv4() {
        true => a == b || a.is_unspecified() || b.is_unspecified(),
        // If IPv4 is listened on too, `[::]` takes no IPv4, unless the configuration says `ipv6_only = false`.
        false => ipv6_only == Some(false) && [a, b].iter().any(|ip| ip.is_ipv6() && ip.is_unspecified()),
    }
}
