//! Identifies the sender of a request, for counting failures. Takes the tenant, or the client if a service has no
//! tenants; returns a [`Sender`]. Called once per request by `prepare`. [`crate::decide::cooldown`] and
//! [`crate::decide::breaker`] count failures per sender.

use core::net::IpAddr;

use crate::decide::hash::hash;

/// The sender of a request as a hash. Nothing else uses the hash. It stays in this isolate's memory as long as an
/// endpoint gets no requests after a failure, and is never logged.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Sender(pub(crate) u64);

impl Sender {
    /// Hashes the tenant. Without a tenant, hashes the client's address, or its /64 network for IPv6, because an IPv6
    /// client may use any address of it. Without an address, hashes the affinity key, which all requests of one
    /// conversation have in common.
    #[must_use]
    pub(crate) fn of(tenant: Option<&str>, address: Option<IpAddr>, affinity: &str) -> Self {
        let parts: [&[u8]; 2] = match (tenant, address) {
            (Some(tenant), _) => [b"tenant", tenant.as_bytes()],
            (None, Some(IpAddr::V4(address))) => return Self(hash(&[b"ipv4", &address.octets()])),
            (None, Some(IpAddr::V6(address))) => return Self(hash(&[b"ipv6", &address.octets()[..8]])),
            (None, None) => [b"affinity", affinity.as_bytes()],
        };
        Self(hash(&parts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_is_one_sender_and_so_is_a_network() {
        let of = |tenant, address: &str, affinity| Sender::of(tenant, address.parse().ok(), affinity);
        assert_eq!(of(Some("acme"), "192.0.2.1", "a"), of(Some("acme"), "2001:db8::1", "b"));
        assert_ne!(of(Some("acme"), "192.0.2.1", "a"), of(Some("emca"), "192.0.2.1", "a"));
        assert_eq!(of(None, "2001:db8::1", "a"), of(None, "2001:db8::2:0:0:1", "b"));
        assert_ne!(of(None, "2001:db8::1", "a"), of(None, "2001:db8:0:1::1", "a"));
        assert_ne!(of(None, "192.0.2.1", "a"), of(None, "192.0.2.2", "a"));
        assert_ne!(of(None, "", "a"), of(None, "", "b"));
        assert_eq!(of(None, "", "a"), of(None, "", "a"));
    }
}
