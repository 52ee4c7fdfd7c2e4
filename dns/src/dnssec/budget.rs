//! How many signatures a client may have made: who asks and when enter, whether one more may be made leaves; `mint` asks before it signs.
//!
//! Whoever asks for names at random makes the server sign for each. So a client's prefix has so many signatures a second, and all together have
//! so many. Datagrams, whose source may be forged, and streams are counted apart: a flood of the one leaves the others theirs. The table has a
//! fixed size; a prefix that falls out of it begins anew, which the sum of all bounds.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

/// Signatures for one prefix in a second, by datagrams or by streams.
const PER_PREFIX: u32 = 200;
/// Signatures for all in a second, by datagrams or by streams: a few hundredths of one core.
const IN_ALL: u32 = 2_000;
/// What makes a prefix, in bits: as resolvers are limited by rate.
const IPV4_PREFIX: u32 = 24;
const IPV6_PREFIX: u32 = 56;
/// How many sets of prefixes there are, and how many prefixes in each.
const SETS: usize = 1 << 10;
const WAYS: usize = 4;

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
    per_prefix: u32,
    in_all: u32,
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
        Self::of(PER_PREFIX, IN_ALL)
    }

    fn of(per_prefix: u32, in_all: u32) -> Self {
        let sets = (0..SETS).map(|_| Mutex::default()).collect();
        Self { hasher: RandomState::new(), sets, all: Default::default(), per_prefix, in_all }
    }

    /// Whether one more signature may be made for a client in this second; if so, it is counted.
    #[allow(clippy::cast_possible_truncation)] // any bits of a hash will do
    pub(super) fn take(&self, client: IpAddr, via: Via, second: u32) -> bool {
        let key = self.hasher.hash_one((prefix(client), via));
        // A poisoned lock still holds good counts.
        let mut set = self.sets[key as usize % SETS].lock().unwrap_or_else(PoisonError::into_inner);
        let place = set.iter().position(|count| count.key == key).unwrap_or_else(|| {
            // One of another second is worth nothing; else the one that made least.
            let worth = |count: &Count| if count.second == second { count.made + 1 } else { 0 };
            let place = (0..WAYS).min_by_key(|&way| worth(&set[way])).unwrap_or_default();
            set[place] = Count { key, second, made: 0 };
            place
        });
        if !set[place].take(second, self.per_prefix) {
            return false;
        }
        drop(set);
        let all = &self.all[usize::from(via == Via::Stream)];
        all.lock().unwrap_or_else(PoisonError::into_inner).take(second, self.in_all)
    }
}

/// The prefix of an address, told apart by family.
fn prefix(address: IpAddr) -> (bool, u128) {
    match address {
        IpAddr::V4(address) => (false, u128::from(address.to_bits() >> (u32::BITS - IPV4_PREFIX))),
        IpAddr::V6(address) => (true, address.to_bits() >> (u128::BITS - IPV6_PREFIX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(budget: &Budget, client: &str, via: Via, second: u32) -> usize {
        let client = client.parse().unwrap();
        (0..100).filter(|_| budget.take(client, via, second)).count()
    }

    #[test]
    fn a_prefix_has_its_share_each_second_by_datagram_and_by_stream() {
        let budget = Budget::of(10, 1_000);
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
    fn all_together_have_so_many_whatever_addresses_they_forge() {
        let budget = Budget::of(10, 25);
        let forged = (0..50_000_u32).filter(|n| budget.take(IpAddr::V4((n << 8).into()), Via::Datagram, 7));
        assert_eq!(forged.count(), 25);
        assert_eq!(taken(&budget, "192.0.2.1", Via::Stream, 7), 10, "streams have their own");
    }
}
