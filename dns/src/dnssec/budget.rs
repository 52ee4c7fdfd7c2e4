//! Limits how many signatures are made online, that is, for queries of clients. Takes a client and the time, returns
//! whether one more signature may be made. Called by `online_signer` before it signs.
//!
//! A client that queries random names makes the server sign each answer. So each client prefix may cause a limited
//! number of signatures per second, and so may all prefixes together. Datagrams, whose source may be forged, and
//! streams are counted separately, so that a flood of datagrams doesn't use up the signatures for streams. The table
//! has a fixed size. A prefix that is removed from the table starts at zero again; the limit for all prefixes bounds
//! the effect.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, OnceLock, PoisonError};

/// How many sets of prefixes the table has.
const SETS: usize = 1 << 10;
/// How many prefixes each set has.
const WAYS: usize = 4;

/// `[signing]` in the configuration: the limits of signatures that are made for a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SigningLimit {
    /// Signatures for one prefix per second, for datagrams and for streams each.
    pub per_second: u32,
    /// Signatures for all prefixes per second, for datagrams and for streams each.
    pub in_all: u32,
    /// The bits of an IPv4 address that make a prefix.
    pub ipv4_prefix: u8,
    /// The bits of an IPv6 address that make a prefix.
    pub ipv6_prefix: u8,
}

impl Default for SigningLimit {
    /// All signatures take a few hundredths of one core. The prefixes are those of response rate limiting.
    fn default() -> Self {
        Self { per_second: 200, in_all: 2_000, ipv4_prefix: 24, ipv6_prefix: 56 }
    }
}

/// Whether a client proved its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Via {
    /// The client sent a datagram, which proves nothing.
    Datagram,
    /// The client proved its address by a handshake.
    Stream,
}

/// The numbers of signatures that were made in the current second, by prefix.
#[derive(Debug)]
pub(super) struct Budget {
    hasher: RandomState,
    sets: Box<[Mutex<[Count; WAYS]>]>,
    /// The signatures for all prefixes, by [`Via`].
    all: [Mutex<Count>; 2],
    /// The limits; if unset, the default limits count.
    limit: OnceLock<SigningLimit>,
}

/// The number of signatures that were made in one second.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    /// The hash of the prefix and the [`Via`].
    key: u64,
    second: u32,
    made: u32,
}

impl Count {
    /// Counts one more signature if the limit allows it.
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

    /// Sets the limits. This works only once, because a node's limits don't change while it runs.
    pub(super) fn limit(&self, limit: SigningLimit) {
        let _ = self.limit.set(limit);
    }

    /// Whether one more signature may be made for a client in this second; if so, it is counted.
    #[allow(clippy::cast_possible_truncation)] // any bits of a hash will do
    pub(super) fn take(&self, client: IpAddr, via: Via, second: u32) -> bool {
        let limit = self.limit.get().copied().unwrap_or_default();
        let key = self.hasher.hash_one((prefix(client, &limit), via));
        // A poisoned lock is used anyway, because its counts are valid.
        let mut set = self.sets[key as usize % SETS].lock().unwrap_or_else(PoisonError::into_inner);
        let place = set.iter().position(|count| count.key == key).unwrap_or_else(|| {
            // Replaces a count of an earlier second, or else the lowest count.
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

/// The prefix of an address, and whether the address is IPv6.
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
        assert_eq!(taken(&budget, "192.0.2.3", Via::Stream, 7), 10, "the limits can't be changed");
    }

    #[test]
    fn all_together_have_so_many_whatever_addresses_they_forge() {
        let budget = budget(10, 25);
        let forged = (0..50_000_u32).filter(|n| budget.take(IpAddr::V4((n << 8).into()), Via::Datagram, 7));
        assert_eq!(forged.count(), 25);
        assert_eq!(taken(&budget, "192.0.2.1", Via::Stream, 7), 10, "streams are counted separately");
    }
}
