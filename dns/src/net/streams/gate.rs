//! Limits the number of connections. Takes a client's address, returns a [`Pass`] for one connection or refuses it.
//! Called by the accept loops of TCP, TLS, QUIC and HTTPS.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// If more than this share of the allowed connections is open, in percent, the idle timeout is shorter.
const BUSY_PERCENT: usize = 75;
/// The idle timeout is divided by this number when many connections are open (RFC 7766 §6.2.3 allows that).
const BUSY_DIVISOR: u32 = 5;

/// The limits of streams: `[tcp]` in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How many connections may be open in all, over TCP, TLS and HTTPS together.
    pub connections: usize,
    /// How many connections one client may have open. A client is an IPv4 address, or an IPv6 /64, because a host may
    /// use any address of its /64.
    pub per_client: usize,
    /// How long a connection may be idle, how long a message may take to arrive, and how long a client may take to
    /// accept its responses.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 1024, per_client: 64, idle: Duration::from_secs(10) }
    }
}

/// Counts the open connections and enforces the limits.
#[derive(Debug)]
pub struct Gate {
    open: Mutex<Open>,
    /// How many connections were refused.
    refused: AtomicU64,
    /// How many messages arrived over streams. While the node drains, it waits until this number stops rising.
    messages: AtomicU64,
}

/// The open connections and the limits that apply to them.
#[derive(Debug, Default)]
struct Open {
    limits: Limits,
    total: usize,
    by_client: HashMap<IpAddr, usize>,
}

impl Gate {
    /// A gate that admits connections within the `limits`.
    #[must_use]
    pub fn new(limits: Limits) -> Arc<Self> {
        let open = Mutex::new(Open { limits, ..Open::default() });
        Arc::new(Self { open, refused: AtomicU64::new(0), messages: AtomicU64::new(0) })
    }

    /// Replaces the limits. Open connections stay open, even if they are more than the new limits allow.
    pub fn limit(&self, limits: Limits) {
        self.open().limits = limits;
    }

    /// Admits a connection of a client; `None` refuses the connection.
    pub(super) fn admit(self: &Arc<Self>, client: IpAddr) -> Option<Pass> {
        let client = client_of(client);
        let mut open = self.open();
        let of_client = open.by_client.get(&client).copied().unwrap_or_default();
        if open.total >= open.limits.connections || of_client >= open.limits.per_client {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        open.total += 1;
        open.by_client.insert(client, of_client + 1);
        Some(Pass { gate: Arc::clone(self), client })
    }

    /// How many connections are open.
    #[must_use]
    pub fn count(&self) -> usize {
        self.open().total
    }

    /// How many connections may be open in all, and how many of one client.
    #[must_use]
    pub fn limits(&self) -> (usize, usize) {
        let Limits { connections, per_client, .. } = self.open().limits;
        (connections, per_client)
    }

    /// How many connections were refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// How many messages have arrived.
    pub(crate) fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }

    /// Counts a message.
    pub(crate) fn count_message(&self) {
        self.messages.fetch_add(1, Ordering::Relaxed);
    }

    /// How long a connection may be idle now.
    pub(crate) fn idle(&self) -> Duration {
        let open = self.open();
        let is_busy = open.total * 100 > open.limits.connections.saturating_mul(BUSY_PERCENT);
        if is_busy { open.limits.idle / BUSY_DIVISOR } else { open.limits.idle }
    }

    /// How long a message may take to arrive, and how long a client may take to accept its responses.
    pub(crate) fn patience(&self) -> Duration {
        self.open().limits.idle
    }

    /// Locks the counts. A poisoned lock is used anyway, because no code that holds the lock can panic halfway, so the
    /// counts are right.
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The permission for one connection. The connection counts as open until the pass is dropped.
#[derive(Debug)]
pub(super) struct Pass {
    gate: Arc<Gate>,
    client: IpAddr,
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut open = self.gate.open();
        open.total = open.total.saturating_sub(1);
        if let Some(of_client) = open.by_client.get_mut(&self.client) {
            *of_client -= 1;
            if *of_client == 0 {
                open.by_client.remove(&self.client);
            }
        }
    }
}

/// The client that an address belongs to: an IPv4 address, or the first address of an IPv6 /64.
fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(connections: usize, per_client: usize) -> Arc<Gate> {
        Gate::new(Limits { connections, per_client, idle: Duration::from_secs(10) })
    }

    fn admit(gate: &Arc<Gate>, client: &str) -> Option<Pass> {
        gate.admit(client.parse().unwrap())
    }

    #[test]
    fn one_client_can_not_take_the_connections_of_others() {
        let gate = gate(4, 2);
        let mut passes_v4 = vec![admit(&gate, "192.0.2.1").unwrap(), admit(&gate, "::ffff:192.0.2.1").unwrap()];
        assert!(admit(&gate, "192.0.2.1").is_none(), "the client has its 2 connections already");
        let _passes_v6 = [admit(&gate, "2001:db8::1").unwrap(), admit(&gate, "2001:db8::2").unwrap()];
        assert!(admit(&gate, "192.0.2.2").is_none(), "4 connections are open, so no client gets another");
        assert_eq!((gate.count(), gate.refused()), (4, 2));
        passes_v4.pop();
        assert!(admit(&gate, "2001:db8::3").is_none(), "a /64 is one client");
        assert!(admit(&gate, "2001:db8:0:1::3").is_some(), "another /64 is another client");
    }

    #[test]
    fn closed_connections_leave_nothing_in_the_counts() {
        let gate = gate(10, 10);
        drop([admit(&gate, "192.0.2.1"), admit(&gate, "2001:db8::1")]);
        assert_eq!(gate.count(), 0);
        assert!(gate.open().by_client.is_empty());
    }

    #[test]
    fn idle_connections_are_closed_sooner_when_many_are_open() {
        let gate = gate(4, 4);
        let mut passes: Vec<_> = (0..3).map(|_| admit(&gate, "192.0.2.1").unwrap()).collect();
        assert_eq!(gate.idle(), Duration::from_secs(10));
        passes.push(admit(&gate, "192.0.2.1").unwrap());
        assert_eq!((gate.idle(), gate.patience()), (Duration::from_secs(2), Duration::from_secs(10)));
    }
}
