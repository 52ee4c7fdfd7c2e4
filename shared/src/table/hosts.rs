//! Finds the service of a host. Takes the hosts of all services and a name; returns the name's service, by the rules of
//! DNS wildcards (RFC 1034 §4.3.3, RFC 4592). Called by [`super::Table`].
//!
//! Only the names of the rules are known here. In DNS, names of a zone file block a wildcard too, but no HTTP request
//! for a service is sent to such a name.

use std::collections::{HashMap, HashSet};

use super::ServiceIndex;
use crate::rules::SteeredHost;

/// The hosts of all services.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    services: HashMap<String, ServiceIndex>,
    /// Every host and every name above a host: the names that exist, in the sense of RFC 4592 §2.2. Empty when there is
    /// no wildcard.
    existing: HashSet<String>,
}

impl Hosts {
    /// Takes the hosts of each service, in the order of the services.
    pub(super) fn new<'h>(services: impl Iterator<Item = &'h [SteeredHost]>) -> Self {
        let of_service = |(number, hosts): (usize, &'h [SteeredHost])| {
            hosts.iter().map(move |host| (host.as_str().to_owned(), ServiceIndex::new(number)))
        };
        let services: HashMap<_, _> = services.enumerate().flat_map(of_service).collect();
        let mut existing = HashSet::new();
        if services.keys().any(|host| host.starts_with("*.")) {
            for host in services.keys() {
                let above = core::iter::successors(Some(host.as_str()), |name| parent(name));
                existing.extend(above.map(str::to_owned));
            }
        }
        Self { services, existing }
    }

    /// The service that has exactly this host, given in lower case.
    pub(super) fn owner_of(&self, host: &str) -> Option<ServiceIndex> {
        self.services.get(host).copied()
    }

    /// The service of a name, directly or by a wildcard: any case, no final dot.
    pub(super) fn service_of(&self, name: &str) -> Option<ServiceIndex> {
        let name = name.to_ascii_lowercase();
        match self.owner_of(&name) {
            None if !self.existing.is_empty() => self.by_wildcard(&name),
            found => found,
        }
    }

    /// The service of the wildcard directly below the name's closest encloser (RFC 4592 §3.3.1): the longest existing
    /// name above it.
    #[inline(never)]
    fn by_wildcard(&self, name: &str) -> Option<ServiceIndex> {
        let is_label = |label: &str| (1..=63).contains(&label.len());
        if self.existing.contains(name) || name.len() > 253 || !name.split('.').all(is_label) {
            return None;
        }
        let mut encloser = parent(name)?;
        while !self.existing.contains(encloser) {
            encloser = parent(encloser)?;
        }
        self.owner_of(&format!("*.{encloser}"))
    }
}

/// A name without its first label.
fn parent(name: &str) -> Option<&str> {
    name.split_once('.').map(|(_, parent)| parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(services: &[&[&str]]) -> Hosts {
        let parsed = |service: &&[&str]| service.iter().map(|host| SteeredHost::parse(host).unwrap()).collect();
        let services: Vec<Vec<SteeredHost>> = services.iter().map(parsed).collect();
        Hosts::new(services.iter().map(Vec::as_slice))
    }

    #[test]
    fn rfc4592_the_closest_encloser_decides() {
        let hosts = hosts(&[&["*.gpu.example"], &["chat.gpu.example", "a.b.gpu.example"], &["*.c.gpu.example"]]);
        let service = |name: &str| hosts.service_of(name).map(ServiceIndex::get);
        for name in ["x.gpu.example", "X.Y.GPU.example", "z.y.x.gpu.example", "*.gpu.example", "_a.gpu.example"] {
            assert_eq!(service(name), Some(0), "{name}");
        }
        assert_eq!(service("chat.gpu.example"), Some(1), "an explicit host wins");
        assert_eq!(service("x.c.gpu.example"), Some(2), "the nearer wildcard wins");
        let blocked = [
            "gpu.example",        // its own parent
            "x.chat.gpu.example", // below a name that exists
            "b.gpu.example",      // an empty non-terminal: only names below it have hosts
            "x.b.gpu.example",    // below an empty non-terminal
            "c.gpu.example",      // a wildcard's parent
            "x.*.gpu.example",    // below the wildcard itself
            "example",
            "x.example",
            "gpu.example.net",
            "xgpu.example",
            ".gpu.example",
            "x..gpu.example",
            "",
            ".",
        ];
        for name in blocked {
            assert_eq!(service(name), None, "{name}");
        }
        let long = format!("{}.gpu.example", "x".repeat(64));
        assert_eq!(service(&long), None);
    }

    #[test]
    fn without_wildcards_nothing_but_hosts_is_kept() {
        let hosts = hosts(&[&["a.b.example"]]);
        assert!(hosts.existing.is_empty());
        assert!(hosts.service_of("A.b.example").is_some() && hosts.service_of("b.example").is_none());
    }
}
