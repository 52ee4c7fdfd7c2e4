//! Limits how often an address may send a wrong token with a request that would change something. Takes addresses and
//! times, returns whether a token is looked at. Called by [`super::admit`].
//!
//! Reading and what Workers post aren't limited: Workers of many tenants share addresses, and one of them could keep
//! the others out.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

use bailiwick_rules::time::{Millis, Timestamp};

/// How many wrong tokens an address may send within [`WINDOW`].
const MAX_FAILED: u32 = 20;
/// After this time the count of an address starts at 0 again.
const WINDOW: Millis = Millis(60_000);
/// The most addresses and networks whose wrong tokens are counted.
const MAX_ADDRESSES: usize = 4096;
/// How many wrong tokens are logged within [`WINDOW`]. Many addresses may send them.
const MAX_LOGGED: u32 = 1_000;

/// Wrong tokens.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    /// Since when they are counted.
    since: Timestamp,
    times: u32,
}

/// The wrong tokens of each address, and those that were logged.
#[derive(Debug, Default)]
pub(crate) struct FailedTokens {
    by_address: Mutex<HashMap<IpAddr, Count>>,
    logged: Mutex<Count>,
}

impl FailedTokens {
    /// Whether a token of this address is looked at.
    pub(super) fn admits(&self, address: IpAddr, now: Timestamp) -> bool {
        let failed = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        failed.get(&network(address)).is_none_or(|count| count.times < MAX_FAILED || count.is_over(now))
    }

    /// Counts a wrong token.
    pub(super) fn failed(&self, address: IpAddr, now: Timestamp) {
        let mut failed = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.len() >= MAX_ADDRESSES {
            failed.retain(|_, count| !count.is_over(now));
        }
        let network = network(address);
        if failed.len() >= MAX_ADDRESSES && !failed.contains_key(&network) {
            // More than that is an attack from many addresses; those that come later aren't limited.
            return;
        }
        failed.entry(network).or_insert(Count { since: now, times: 0 }).add(now);
    }

    /// Whether one more wrong token may be logged. Counts it.
    pub(super) fn may_log(&self, now: Timestamp) -> bool {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        logged.add(now);
        logged.times <= MAX_LOGGED
    }
}

impl Count {
    /// Whether it counts no longer. That is so, too, if the clock was set back since it began.
    fn is_over(&self, now: Timestamp) -> bool {
        now < self.since || now.since(self.since) >= WINDOW
    }

    fn add(&mut self, now: Timestamp) {
        if self.is_over(now) {
            *self = Self { since: now, times: 0 };
        }
        self.times = self.times.saturating_add(1);
    }
}

/// An IPv4 address itself; the /64 network of an IPv6 address, because one machine can use every address of it.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_sends_wrong_tokens_waits_for_a_minute() {
        let (failed, start) = (FailedTokens::default(), Timestamp(1_000));
        let (one, other): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        for _ in 0..MAX_FAILED {
            assert!(failed.admits(one, start));
            failed.failed(one, start);
        }
        assert!(!failed.admits(one, start.after(Millis(59_999))) && failed.admits(other, start));
        assert!(!failed.admits("::ffff:192.0.2.1".parse().unwrap(), start), "the same address");
        assert!(failed.admits(one, start.after(WINDOW)));
        failed.failed(one, start.after(WINDOW));
        assert!(failed.admits(one, start.after(WINDOW)), "it begins again");
        (0..MAX_FAILED).for_each(|_| failed.failed(one, start.after(WINDOW)));
        assert!(!failed.admits(one, start.after(WINDOW)));
        assert!(failed.admits(one, start), "the clock was set back");
    }

    #[test]
    fn a_network_of_64_bits_counts_as_one_and_memory_is_bounded() {
        let (failed, now) = (FailedTokens::default(), Timestamp(1_000));
        for host in 0..MAX_FAILED {
            failed.failed(format!("2001:db8::{host:x}").parse().unwrap(), now);
        }
        assert!(!failed.admits("2001:db8::ffff".parse().unwrap(), now));
        assert!(failed.admits("2001:db8:0:1::1".parse().unwrap(), now));
        for number in 0..10_000_u32 {
            failed.failed(std::net::Ipv4Addr::from_bits(number).into(), now);
        }
        assert!(failed.by_address.lock().unwrap().len() <= MAX_ADDRESSES);
        // Whoever is remembered is limited nevertheless.
        let known: IpAddr = std::net::Ipv4Addr::from_bits(7).into();
        (0..MAX_FAILED).for_each(|_| failed.failed(known, now));
        assert!(!failed.admits(known, now));
    }

    #[test]
    fn so_many_wrong_tokens_are_logged_in_a_minute() {
        let (failed, start) = (FailedTokens::default(), Timestamp(100_000));
        let logged = |at| (0..3_000).filter(|_| failed.may_log(at)).count();
        assert_eq!([start, start.after(WINDOW), Timestamp(1)].map(logged), [1_000; 3]);
    }
}
