//! Response rate limiting. Takes the client of a datagram and the class of the answer, returns whether the answer is
//! sent whole, truncated or not at all. [`crate::response::wire::respond`] calls it before it makes an answer and again
//! before it encodes it.
//!
//! The source address of a datagram may be forged, and then the answer floods a victim. So each client prefix gets only
//! a limited number of answers per second of each class. Of the answers beyond the limit, one in `slip` (a setting) is
//! sent truncated, so that a real client asks again over TCP. TCP proves the client's address and is never limited. A
//! client with a valid server cookie isn't limited either (RFC 7873).
//!
//! The table has a fixed size, and every decision is a function of the table and the time.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use ipnet::IpNet;

use crate::response::wire::{Class, Verdict};

/// How many sets of cells there are. With [`WAYS`] and the size of a cell, the table takes 1.5 MiB.
const SETS: usize = 1 << 14;
/// How many cells a set has.
const WAYS: usize = 4;
/// How many locks there are. Each protects an equal number of sets.
const SHARDS: usize = 64;
/// A prefix may send this many times more queries per second than it gets answers. Further queries are dropped unread.
const FLOOD: u32 = 16;
/// One token (the permission to send one answer), in the unit of the buckets: thousandths of a token. So the tokens
/// that come back in one millisecond are a whole number.
const WHOLE: u32 = 1000;

/// `[rate_limit]` in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    /// How many answers of one class a prefix gets per second.
    pub per_second: u32,
    /// Of the answers over the limit, one in `slip` is sent truncated and the others aren't sent. With 0 none is sent,
    /// with 1 all are sent truncated.
    pub slip: u32,
    /// The bits of an IPv4 address that make a prefix.
    pub ipv4_prefix: u8,
    /// The bits of an IPv6 address that make a prefix.
    pub ipv6_prefix: u8,
    /// Networks that are not limited.
    pub exempt: Vec<IpNet>,
}

impl RateLimit {
    /// The usual prefixes and slip at this rate.
    #[must_use]
    pub fn at(per_second: u32) -> Self {
        Self { per_second, slip: 2, ipv4_prefix: 24, ipv6_prefix: 56, exempt: Vec::new() }
    }
}

/// What a bucket of a prefix counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum BucketKind {
    /// All queries, before they are parsed.
    Queries,
    /// Answers of one class.
    Answers(Class),
}

/// The limiter of a running server: the table, and a clock to read it by.
#[derive(Debug)]
pub(crate) struct Limiter {
    table: Table,
    began: Instant,
    /// How many answers were sent truncated.
    slipped: AtomicU64,
    /// How many answers weren't sent.
    dropped: AtomicU64,
}

impl Limiter {
    /// A limiter with an empty table.
    #[must_use]
    pub(crate) fn new(limit: RateLimit) -> Self {
        Self { table: Table::new(limit), began: Instant::now(), slipped: AtomicU64::new(0), dropped: AtomicU64::new(0) }
    }

    /// How many answers of one class a prefix gets in a second.
    #[must_use]
    pub(crate) fn per_second(&self) -> u32 {
        self.table.limit.per_second
    }

    /// How many answers were sent truncated.
    #[must_use]
    pub(crate) fn slipped(&self) -> u64 {
        self.slipped.load(Ordering::Relaxed)
    }

    /// How many answers weren't sent.
    #[must_use]
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Judges an answer or a query now, and counts the verdict.
    fn count(&self, from: IpAddr, what: BucketKind) -> Verdict {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let verdict = self.table.judge(from, what, now);
        match verdict {
            Verdict::Answer => {}
            Verdict::Slip => _ = self.slipped.fetch_add(1, Ordering::Relaxed),
            Verdict::Drop => _ = self.dropped.fetch_add(1, Ordering::Relaxed),
        }
        verdict
    }
}

impl crate::response::wire::Limiter for Limiter {
    fn admit(&self, from: IpAddr) -> Verdict {
        self.count(from, BucketKind::Queries)
    }

    fn judge(&self, from: IpAddr, class: Class) -> Verdict {
        self.count(from, BucketKind::Answers(class))
    }
}

/// Token buckets by prefix and class.
#[derive(Debug)]
struct Table {
    limit: RateLimit,
    hasher: RandomState,
    shards: Box<[Mutex<Box<[Set]>>]>,
}

type Set = [Cell; WAYS];

/// The bucket of one prefix for one [`BucketKind`].
#[derive(Debug, Clone, Copy, Default)]
struct Cell {
    /// A hash of the prefix and the [`BucketKind`] with a random key, so that nobody can choose prefixes that share a
    /// cell with a victim. 0 for a free cell.
    key: u64,
    /// When tokens were last added, in milliseconds.
    at: u64,
    /// The spent tokens, in thousandths; 0 for a full bucket.
    spent: u32,
    /// How many answers were over the limit since the last truncated answer.
    over: u32,
}

impl Cell {
    /// The tokens that are still spent at `now`, if `rate` tokens come back per second.
    fn spent_at(&self, now: u64, rate: u32) -> u32 {
        let back = now.saturating_sub(self.at).saturating_mul(u64::from(rate));
        self.spent.saturating_sub(u32::try_from(back).unwrap_or(u32::MAX))
    }
}

impl Table {
    fn new(limit: RateLimit) -> Self {
        let shard = |_| Mutex::new(vec![Set::default(); SETS / SHARDS].into_boxed_slice());
        Self { limit, hasher: RandomState::new(), shards: (0..SHARDS).map(shard).collect() }
    }

    /// Takes a token from the bucket of a client's prefix. `now` is in milliseconds.
    fn judge(&self, from: IpAddr, what: BucketKind, now: u64) -> Verdict {
        if self.limit.exempt.iter().any(|network| network.contains(&from)) {
            return Verdict::Answer;
        }
        let rate = match what {
            BucketKind::Queries => self.limit.per_second.saturating_mul(FLOOD),
            BucketKind::Answers(_) => self.limit.per_second,
        };
        let key = self.hasher.hash_one((self.prefix(from), what)).max(1);
        let (shard, set) = place(key);
        // A poisoned lock is used anyway, because no code that holds the lock can leave a bucket in a wrong state.
        let mut shard = self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner);
        take(cell(&mut shard[set], key, now, rate), now, rate, self.limit.slip)
    }

    /// The first address of the client's prefix.
    fn prefix(&self, from: IpAddr) -> IpAddr {
        match from {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.limit.ipv4_prefix.min(32))).unwrap_or_default();
                Ipv4Addr::from_bits(address.to_bits() & mask).into()
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.limit.ipv6_prefix.min(128))).unwrap_or_default();
                Ipv6Addr::from_bits(address.to_bits() & mask).into()
            }
        }
    }
}

/// The indexes of a key's shard and of its set within the shard.
#[allow(clippy::cast_possible_truncation, reason = "only some bits are meant")]
fn place(key: u64) -> (usize, usize) {
    let set = key as usize % SETS;
    (set % SHARDS, set / SHARDS)
}

/// The key's cell. If the key has none, it gets a free cell, or the cell with the fewest spent tokens. So an attacker
/// who forges many addresses can't remove the cell of a victim, which has spent more.
fn cell(set: &mut Set, key: u64, now: u64, rate: u32) -> &mut Cell {
    let known = set.iter().position(|cell| cell.key == key);
    let chosen = known.unwrap_or_else(|| {
        let spent = |way: &usize| (set[*way].key != 0, set[*way].spent_at(now, rate));
        (0..WAYS).min_by_key(spent).unwrap_or_default()
    });
    if known.is_none() {
        set[chosen] = Cell { key, at: now, ..Cell::default() };
    }
    &mut set[chosen]
}

/// Takes a token from a bucket. A full bucket holds the tokens of one second.
fn take(cell: &mut Cell, now: u64, rate: u32, slip: u32) -> Verdict {
    cell.spent = cell.spent_at(now, rate);
    cell.at = cell.at.max(now);
    if cell.spent.saturating_add(WHOLE) <= rate.saturating_mul(WHOLE) {
        cell.spent += WHOLE;
        cell.over = 0;
        return Verdict::Answer;
    }
    cell.over = cell.over.saturating_add(1);
    if slip != 0 && cell.over >= slip {
        cell.over = 0;
        return Verdict::Slip;
    }
    Verdict::Drop
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// How many of a number of answers are sent whole, sent truncated and not sent.
    fn judged(table: &Table, from: &str, class: Class, now: u64, times: usize) -> [usize; 3] {
        let mut counts = [0; 3];
        for _ in 0..times {
            let verdict = table.judge(address(from), BucketKind::Answers(class), now);
            counts[match verdict {
                Verdict::Answer => 0,
                Verdict::Slip => 1,
                Verdict::Drop => 2,
            }] += 1;
        }
        counts
    }

    #[test]
    fn beyond_the_limit_of_a_second_every_other_answer_is_sent_truncated() {
        let table = Table::new(RateLimit::at(10));
        assert_eq!(judged(&table, "192.0.2.1", Class::Positive, 0, 30), [10, 10, 10]);
        assert_eq!(
            judged(&table, "192.0.2.200", Class::Positive, 100, 4),
            [1, 1, 2],
            "an address of the same prefix shares the bucket"
        );
        assert_eq!(
            judged(&table, "192.0.3.1", Class::Positive, 100, 4),
            [4, 0, 0],
            "another prefix has its own bucket"
        );
        assert_eq!(judged(&table, "192.0.2.1", Class::Negative, 100, 4), [4, 0, 0], "another class has its own bucket");
        assert_eq!(
            judged(&table, "192.0.2.1", Class::Positive, 5_000, 11),
            [10, 0, 1],
            "a bucket never holds more than the tokens of a second"
        );
    }

    #[test]
    fn ipv6_clients_share_a_56_and_exempt_networks_are_never_limited() {
        let table = Table::new(RateLimit { exempt: vec!["198.51.100.0/24".parse().unwrap()], ..RateLimit::at(2) });
        assert_eq!(judged(&table, "2001:db8::1", Class::Error, 0, 2), [2, 0, 0]);
        assert_eq!(judged(&table, "2001:db8:0:ff::1", Class::Error, 0, 1), [0, 0, 1]);
        assert_eq!(judged(&table, "2001:db8:0:100::1", Class::Error, 0, 1), [1, 0, 0]);
        assert_eq!(judged(&table, "198.51.100.7", Class::Error, 0, 100), [100, 0, 0]);
    }

    #[test]
    fn slip_may_truncate_all_or_none_of_the_answers() {
        for (slip, expected) in [(0, [1, 0, 9]), (1, [1, 9, 0]), (3, [1, 3, 6])] {
            let table = Table::new(RateLimit { slip, ..RateLimit::at(1) });
            assert_eq!(judged(&table, "192.0.2.1", Class::Positive, 0, 10), expected, "slip {slip}");
        }
    }

    #[test]
    fn a_flood_from_forged_addresses_removes_no_bucket_of_a_victim_and_takes_no_memory() {
        let table = Table::new(RateLimit::at(5));
        assert_eq!(judged(&table, "192.0.2.1", Class::Negative, 0, 100)[0], 5);
        // Each forged address has its own prefix and spends one token. The victim has spent more, so its cell stays.
        for forged in 0..400_000_u32 {
            let forged = Ipv4Addr::from_bits(0x0a00_0000 + (forged << 8));
            table.judge(forged.into(), BucketKind::Answers(Class::Negative), 1);
        }
        assert_eq!(judged(&table, "192.0.2.1", Class::Negative, 1, 100)[0], 0, "the victim's bucket is still empty");
        let cells: usize = table.shards.iter().map(|shard| shard.lock().unwrap().len() * WAYS).sum();
        assert_eq!(cells, SETS * WAYS);
    }

    proptest! {
        #[test]
        fn no_period_has_more_answers_than_the_burst_and_the_rate(
            rate in 1_u32..200,
            slip in 0_u32..5,
            steps in prop::collection::vec((0_u16..300, 1_usize..40), 1..60),
        ) {
            let table = Table::new(RateLimit { slip, ..RateLimit::at(rate) });
            let (mut now, mut answers) = (0, Vec::new());
            for (step, times) in steps {
                now += u64::from(step);
                let counts = judged(&table, "203.0.113.9", Class::Positive, now, times);
                answers.push((now, counts[0]));
                let over = counts[1] + counts[2];
                let most = match slip { 0 => 0, slip => over / slip as usize + 1 };
                prop_assert!(counts[1] <= most, "{} of {over} slipped", counts[1]);
            }
            for (first, (from, _)) in answers.iter().enumerate() {
                let mut sum = 0_u64;
                for (until, count) in &answers[first..] {
                    sum += *count as u64;
                    let allowed = u64::from(rate) + u64::from(rate) * (until - from) / 1000 + 1;
                    prop_assert!(sum <= allowed, "{sum} answers in {} ms at {rate} a second", until - from);
                }
            }
        }

        #[test]
        fn a_client_below_the_rate_is_never_limited(rate in 1_u32..500, start in 0_u64..1 << 40) {
            let table = Table::new(RateLimit::at(rate));
            let between = u64::from(1000_u32.div_ceil(rate));
            for number in 0..200 {
                prop_assert_eq!(table.judge(address("2001:db8::1"), BucketKind::Answers(Class::Positive),
                    start + number * between), Verdict::Answer);
            }
        }

        #[test]
        fn a_clock_that_goes_back_never_causes_a_panic(times in prop::collection::vec(any::<u64>(), 1..100),
            rate in any::<u32>()) {
            let table = Table::new(RateLimit::at(rate));
            for now in times {
                table.judge(address("192.0.2.1"), BucketKind::Answers(Class::Positive), now);
            }
        }
    }
}
