//! Limits how many signatures are made for clients. Takes a client and the time, returns whether one more may be made.
//! Called by `online_signer` before it signs.
//!
//! A client that asks for random names makes the server sign each answer. So each client prefix has a number of
//! signatures per second, and all prefixes together have one. Datagrams, whose source may be forged, and streams are
//! counted separately, so that a flood of one doesn't use up the other's. The table has a fixed size. A prefix that is
//! dropped from it starts at zero again, which the limit for all prefixes bounds.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, OnceLock, PoisonError};

/// How many sets of prefixes there are, and how many prefixes in each.
const SETS: usize = 1 << 10;
const WAYS: usize = 4;

/// `[signing]` in the configuration: the limits of signatures made because somebody asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SigningLimit {
    /// Signatures for one prefix in a second, by datagrams or by streams.
    pub per_second: u32,
    /// Signatures for all in a second, by datagrams or by streams.
    pub in_all: u32,
    /// The bits of an IPv4 address that make a prefix.
    pub ipv4_prefix: u8,
    /// The bits of an IPv6 address that make a prefix.
    pub ipv6_prefix: u8,
}

impl Default for SigningLimit {
    /// A few hundredths of one core for all, and prefixes as resolvers are limited by rate.
    fn default() -> Self {
        Self { per_second: 200, in_all: 2_000, ipv4_prefix: 24, ipv6_prefix: 56 }
    }
}

/// Whether a client proved its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Via {
    /// It didn't.
    Datagram,
    /// By a handshake.
    Stream,
}

/// The signatures of the current second, by prefix.
#[derive(Debug)]
pub(super) struct Budget {
    hasher: RandomState,
    sets: Box<[Mutex<[Count; WAYS]>]>,
    /// By [`Via`].
    all: [Mutex<Count>; 2],
    /// Unset: the default.
    limit: OnceLock<SigningLimit>,
}

/// Signatures made in one second.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    /// Whose they are.
    key: u64,
    second: u32,
    made: u32,
}

impl Count {
    /// Counts one more if there is room.
    fn take(&mut self, second: u32, most: u32) -> bool {
        if self.second != second {
            (self.second, self.made) = (second, 0);
        }
        let fits = self.made < most;
        self.made += u32::from(fits);
        fits
    }
}

impl Budget {
    pub(super) fn new() -> Self {
        let sets = (0..SETS).map(|_| Mutex::default()).collect();
        Self { hasher: RandomState::new(), sets, all: Default::default(), limit: OnceLock::new() }
    }

    /// Sets the limits, once: they are a node's for as long as it runs.
    pub(super) fn limit(&self, limit: SigningLimit) {
        let _ = self.limit.set(limit);
    }

    /// Whether one more signature may be made for a client in this second; if so, it is counted.
    #[allow(clippy::cast_possible_truncation)] // any bits of a hash will do
    pub(super) fn take(&self, client: IpAddr, via: Via, second: u32) -> bool {
        let limit = self.limit.get().copied().unwrap_or_default();
        let key = self.hasher.hash_one((prefix(client, &limit), via));
        // A poisoned lock still holds good counts.
        let mut set = self.sets[key as usize % SETS].lock().unwrap_or_else(PoisonError::into_inner);
        let place = set.iter().position(|count| count.key == key).unwrap_or_else(|| {
            // One of another second is worth nothing; else the one that made least.
            let worth = |count: &Count| if count.second == second { count.made + 1 } else { 0 };
            let place = (0..WAYS).min_by_key(|&way| worth(&set[way])).unwrap_or_default();
            set[place] = Count { key, second, made: 0 };
            place
        });
        if !set[place].take(second, limit.per_second) {
            return false;
        }
        drop(set);
        let all = &self.all[usize::from(via == Via::Stream)];
        all.lock().unwrap_or_else(PoisonError::into_inner).take(second, limit.in_all)
    }
}

/// The prefix of an address, told apart by family.
fn prefix(address: IpAddr, limit: &SigningLimit) -> (bool, u128) {
    let [v4, v6] = [limit.ipv4_prefix, limit.ipv6_prefix].map(u32::from);
    match address {
        IpAddr::V4(address) => (false, address.to_bits().checked_shr(u32::BITS.saturating_sub(v4)).unwrap_or(0).into()),
        IpAddr::V6(address) => (true, address.to_bits().checked_shr(u128::BITS.saturating_sub(v6)).unwrap_or(0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(per_second: u32, in_all: u32) -> Budget {
        let budget = Budget::new();
        budget.limit(SigningLimit { per_second, in_all, ..SigningLimit::default() });
        budget
    }

    fn taken(budget: &Budget, client: &str, via: Via, second: u32) -> usize {
        let client = client.parse().unwrap();
        (0..100).filter(|_| budget.take(client, via, second)).count()
    }

    #[test]
    fn a_prefix_has_its_share_each_second_by_datagram_and_by_stream() {
        let budget = budget(10, 1_000);
        assert_eq!(taken(&budget, "192.0.2.1", Via::Datagram, 7), 10);
        assert_eq!(taken(&budget, "192.0.2.255", Via::Datagram, 7), 0, "the same prefix");
        assert_eq!(taken(&budget, "192.0.3.1", Via::Datagram, 7), 10);
        assert_eq!(taken(&budget, "192.0.2.1", Via::Stream, 7), 10);
        assert_eq!(taken(&budget, "192.0.2.1", Via::Datagram, 8), 10);
        assert_eq!(taken(&budget, "2001:db8:0:1::1", Via::Datagram, 8), 10);
        assert_eq!(taken(&budget, "2001:db8:0:ff::1", Via::Datagram, 8), 0);
        assert_eq!(taken(&budget, "2001:db8:0:100::1", Via::Datagram, 8), 10);
    }

    #[test]
    fn the_prefix_is_as_long_as_the_limit_says() {
        let budget = Budget::new();
        budget.limit(SigningLimit { per_second: 10, ipv4_prefix: 32, ipv6_prefix: 128, ..SigningLimit::default() });
        for client in ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"] {
            assert_eq!(taken(&budget, client, Via::Stream, 7), 10, "{client}");
        }
        budget.limit(SigningLimit::default());
        assert_eq!(taken(&budget, "192.0.2.3", Via::Stream, 7), 10, "the first limit stands");
    }

    #[test]
    fn all_together_have_so_many_whatever_addresses_they_forge() {
        let budget = budget(10, 25);
        let forged = (0..50_000_u32).filter(|n| budget.take(IpAddr::V4((n << 8).into()), Via::Datagram, 7));
        assert_eq!(forged.count(), 25);
        assert_eq!(taken(&budget, "192.0.2.1", Via::Stream, 7), 10, "streams have their own");
    }
}
