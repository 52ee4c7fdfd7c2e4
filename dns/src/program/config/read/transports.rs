//! Reads the sections on transports and limits. Takes `[dot]`, `[doq]`, `[doh]`, `[tcp]`, `[rate_limit]` and
//! `[signing]`, returns their settings. Called by the reader in `read`.

use std::net::SocketAddr;

use bailiwick_rules::time::Millis;
use ipnet::IpNet;
use toml::de::DeTable;

use super::{Key, Reader, Value, kind};
use crate::dnssec::budget::SigningLimit;
use crate::net::rate_limit::RateLimit;
use crate::net::streams::Limits;
use crate::program::config::keys::names;
use crate::program::config::{Encrypted, TlsFiles};

/// The highest limit of signatures in a second. Two cores make fewer.
const MAX_SIGNATURES: u64 = 100_000;

impl Reader<'_> {
    /// Reads `[dot]`, `[doq]` or `[doh]`.
    pub(super) fn encrypted(&mut self, section: &str, key: &Key<'_>, value: &Value<'_>) -> Option<Encrypted> {
        let table = self.section(section, "listen = [\"127.0.0.1:8853\"]", value)?;
        let (mut listen, mut cert, mut secret) = (None, None, None);
        for (key, value) in table {
            let name = format!("{section}.{}", key.get_ref());
            match key.get_ref().as_ref() {
                "listen" => listen = Some(self.addresses(&name, value)),
                "cert" => cert = Some(self.path(&name, value)),
                "key" => secret = Some(self.path(&name, value)),
                _ => self.no_key(&format!("{section}."), key, &names(section)),
            }
        }
        for (name, is_there) in [("listen", listen.is_some()), ("cert", cert.is_some()), ("key", secret.is_some())] {
            if !is_there {
                let mend = match name {
                    "listen" => "write where it is served, such as [\"0.0.0.0:853\", \"[::]:853\"]",
                    "cert" => "name the certificate chain in PEM",
                    _ => "name the certificate's private key in PEM",
                };
                self.note(key.span(), format!("\"{section}.{name}\" is missing; {mend}"));
            }
        }
        Some(Encrypted { listen: listen?, tls: TlsFiles { cert: cert??, key: secret?? } })
    }

    /// Reads the section `[tcp]`.
    pub(super) fn tcp(&mut self, value: &Value<'_>) -> Limits {
        let mut limits = Limits::default();
        let Some(table) = self.section("tcp", "connections = 1024", value) else { return limits };
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "connections" => self.size("tcp.connections", value, 1, 1_000_000, &mut limits.connections),
                "per_client" => self.size("tcp.per_client", value, 1, 1_000_000, &mut limits.per_client),
                "idle" => limits.idle = self.pause("tcp.idle", value, "10s").map_or(limits.idle, Millis::to_std),
                _ => self.no_key("tcp.", key, &names("tcp")),
            }
        }
        limits
    }

    /// Reads the section `[rate_limit]`.
    pub(super) fn rate_limit(&mut self, key: &Key<'_>, value: &Value<'_>) -> Option<RateLimit> {
        let table = self.section("rate_limit", "per_second = 20", value)?;
        let mut limit = RateLimit::at(0);
        let (mut v4, mut v6) = (limit.ipv4_prefix, limit.ipv6_prefix);
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "per_second" => self.size("rate_limit.per_second", value, 1, 1_000_000, &mut limit.per_second),
                "slip" => self.size("rate_limit.slip", value, 0, 100, &mut limit.slip),
                "ipv4_prefix" => self.size("rate_limit.ipv4_prefix", value, 1, 32, &mut v4),
                "ipv6_prefix" => self.size("rate_limit.ipv6_prefix", value, 1, 128, &mut v6),
                "exempt" => limit.exempt = self.networks("rate_limit.exempt", value),
                _ => self.no_key("rate_limit.", key, &names("rate_limit")),
            }
        }
        (limit.ipv4_prefix, limit.ipv6_prefix) = (v4, v6);
        if !table.contains_key("per_second") {
            let message = "\"rate_limit.per_second\" is missing; write how many answers of one class a prefix gets in \
                a second, such as 20";
            return self.fail(key.span(), message.to_owned());
        }
        Some(limit)
    }

    /// Reads the section `[signing]`: how many signatures may be made in a second.
    pub(super) fn signing(&mut self, value: &Value<'_>) -> SigningLimit {
        let mut limit = SigningLimit::default();
        let Some(table) = self.section("signing", "per_second = 200", value) else { return limit };
        let (mut v4, mut v6) = (limit.ipv4_prefix, limit.ipv6_prefix);
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "per_second" => self.size("signing.per_second", value, 1, MAX_SIGNATURES, &mut limit.per_second),
                "in_all" => self.size("signing.in_all", value, 1, MAX_SIGNATURES, &mut limit.in_all),
                "ipv4_prefix" => self.size("signing.ipv4_prefix", value, 1, 32, &mut v4),
                "ipv6_prefix" => self.size("signing.ipv6_prefix", value, 1, 128, &mut v6),
                _ => self.no_key("signing.", key, &names("signing")),
            }
        }
        (limit.ipv4_prefix, limit.ipv6_prefix) = (v4, v6);
        if limit.per_second > limit.in_all {
            self.note(
                value.span(),
                format!(
                    "\"signing.per_second\" ({}) is more than \"signing.in_all\" ({}), so that one prefix could take \
                     what is everybody's; raise the latter or lower the former",
                    limit.per_second, limit.in_all
                ),
            );
        }
        limit
    }

    /// Reads a list of networks.
    fn networks(&mut self, key: &str, value: &Value<'_>) -> Vec<IpNet> {
        let Some(items) = value.get_ref().as_array() else {
            let kind = kind(value);
            self.note(value.span(), format!("\"{key}\" is {kind}; write a list, such as [\"198.51.100.0/24\"]"));
            return Vec::new();
        };
        let mut networks = Vec::new();
        for item in items {
            let Some(text) = self.string(key, item) else { continue };
            match text.parse::<IpNet>() {
                Ok(network) => networks.push(network),
                Err(_) => self.note(
                    item.span(),
                    format!("\"{text}\" in \"{key}\" is no network; write it as \"198.51.100.0/24\""),
                ),
            }
        }
        networks
    }

    pub(super) fn section<'v>(&mut self, name: &str, line: &str, value: &'v Value<'_>) -> Option<&'v DeTable<'v>> {
        let kind = kind(value);
        let table = value.get_ref().as_table();
        table.or_else(|| self.fail(value.span(), format!("\"{name}\" is {kind}; write a section [{name}] with {line}")))
    }

    /// Reads a whole number from `least` to `most` into `place`. If the value is wrong, `place` keeps its value.
    pub(super) fn size<N: TryFrom<u64>>(&mut self, key: &str, value: &Value<'_>, least: u64, most: u64, place: &mut N) {
        let number = value.get_ref().as_integer().and_then(|number| number.as_str().parse::<u64>().ok());
        match number.filter(|number| (least..=most).contains(number)).and_then(|number| N::try_from(number).ok()) {
            Some(number) => *place = number,
            None => self.note(value.span(), format!("\"{key}\" has to be a whole number from {least} to {most}")),
        }
    }

    /// Reads a list of addresses, or a single address.
    fn addresses(&mut self, key: &str, value: &Value<'_>) -> Vec<SocketAddr> {
        match value.get_ref().as_str() {
            Some(text) => self.address(text, value).into_iter().collect(),
            None => self.listen(key, value),
        }
    }
}
