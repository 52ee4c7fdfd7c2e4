//! Limits how often an address may send a wrong token with a request that would change something. Takes addresses and
//! times, returns whether a token is looked at. Called by [`super::admit`].
//!
//! Reading isn't limited: Workers of many tenants share addresses, and one of them could keep the others from reading.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

use bailiwick_rules::time::{Millis, Timestamp};

/// How many wrong tokens an address may send within [`WINDOW`].
const MOST: u32 = 20;
/// After this time an address begins again.
const WINDOW: Millis = Millis(60_000);
/// Of how many addresses it is remembered.
const ADDRESSES: usize = 4096;

/// The wrong tokens of each address: since when, and how many.
#[derive(Debug, Default)]
pub(crate) struct FailedTokens(Mutex<HashMap<IpAddr, (Timestamp, u32)>>);

impl FailedTokens {
    /// Whether a token of this address is looked at.
    pub(super) fn admits(&self, address: IpAddr, now: Timestamp) -> bool {
        let failed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failed.get(&network(address)).is_none_or(|(since, times)| *times < MOST || now.since(*since) >= WINDOW)
    }

    /// Counts a wrong token.
    pub(super) fn failed(&self, address: IpAddr, now: Timestamp) {
        let mut failed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.len() >= ADDRESSES {
            failed.retain(|_, (since, _)| now.since(*since) < WINDOW);
        }
        if failed.len() >= ADDRESSES {
            // More than that is an attack from many addresses; those that come later aren't limited.
            return;
        }
        let entry = failed.entry(network(address)).or_insert((now, 0));
        if now.since(entry.0) >= WINDOW {
            *entry = (now, 0);
        }
        entry.1 = entry.1.saturating_add(1);
    }
}

/// The address, or its network of 64 bits, which one machine may fill.
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
        for _ in 0..MOST {
            assert!(failed.admits(one, start));
            failed.failed(one, start);
        }
        assert!(!failed.admits(one, start.after(Millis(59_999))) && failed.admits(other, start));
        assert!(!failed.admits("::ffff:192.0.2.1".parse().unwrap(), start), "the same address");
        assert!(failed.admits(one, start.after(WINDOW)));
        failed.failed(one, start.after(WINDOW));
        assert!(failed.admits(one, start.after(WINDOW)), "it begins again");
    }

    #[test]
    fn a_network_of_64_bits_counts_as_one_and_memory_is_bounded() {
        let (failed, now) = (FailedTokens::default(), Timestamp(1_000));
        for host in 0..MOST {
            failed.failed(format!("2001:db8::{host:x}").parse().unwrap(), now);
        }
        assert!(!failed.admits("2001:db8::ffff".parse().unwrap(), now));
        assert!(failed.admits("2001:db8:0:1::1".parse().unwrap(), now));
        for number in 0..10_000_u32 {
            failed.failed(std::net::Ipv4Addr::from_bits(number).into(), now);
        }
        assert!(failed.0.lock().unwrap().len() <= ADDRESSES);
    }
}
