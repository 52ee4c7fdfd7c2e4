//! Divides the address space into ranges, each with a value. Takes sorted ranges from `geoip` and its callers, returns
//! the value at an address and the exact scope of this value: the length of the shortest prefix whose addresses all
//! have it.

use std::fmt::Debug;

use crate::system::batch::{in_huge_pages, prefetch};

/// An address as a number.
pub trait Bits: Copy + Ord + Debug {
    /// The lowest address.
    const ZERO: Self;
    /// How many leading bits two addresses share.
    fn common(self, other: Self) -> u8;
    /// The address before this one, if any.
    fn before(self) -> Option<Self>;
    /// The address after this one, if any.
    fn after(self) -> Option<Self>;
    /// The last address of the prefix of this length that begins here.
    fn last(self, length: u8) -> Self;
    /// The index of the part of the address space that contains the address. There are 2^`bits` + 2 parts, in order,
    /// with about equally many ranges each.
    fn part(self, bits: u8) -> usize;
}

macro_rules! common {
    ($number:ty) => {
        const ZERO: Self = 0;
        #[inline]
        #[allow(clippy::cast_possible_truncation)] // at most 128
        fn common(self, other: Self) -> u8 {
            (self ^ other).leading_zeros() as u8
        }
        #[inline]
        fn before(self) -> Option<Self> {
            self.checked_sub(1)
        }
        #[inline]
        fn after(self) -> Option<Self> {
            self.checked_add(1)
        }
        #[inline]
        fn last(self, length: u8) -> Self {
            self | <$number>::MAX.checked_shr(u32::from(length)).unwrap_or(0)
        }
    };
}

impl Bits for u32 {
    common!(u32);

    /// The leading bits of the address.
    #[inline]
    #[allow(clippy::cast_possible_truncation)] // at most 16 bits are left
    fn part(self, bits: u8) -> usize {
        (u64::from(self) >> (32 - bits)) as usize
    }
}

impl Bits for u128 {
    common!(u128);

    /// All addresses in use are in 2000::/3 (RFC 4291 §2.4), which is divided by the bits after those three. The
    /// addresses before it are one part, and those after it another.
    #[inline]
    #[allow(clippy::cast_possible_truncation)] // at most 19 bits are left
    fn part(self, bits: u8) -> usize {
        let leading = (self >> (125 - bits)) as usize;
        let first = 1_usize << bits;
        match leading >> bits {
            0 => 0,
            1 => leading - first + 1,
            _ => first + 1,
        }
    }
}

/// A value for every address of one family. Neighbouring ranges differ in value.
///
/// Starts and values are in separate arrays, so that the search reads only starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranges<A> {
    /// The first address of each range; that of the first range is zero.
    starts: Box<[A]>,
    /// The value of each range.
    values: Box<[u32]>,
    /// The index of the range that contains the first address of each part ([`Bits::part`]), and at the end the last
    /// range. So a search reads only the few ranges of one part.
    parts: Box<[u32]>,
    /// The argument `bits` of [`Bits::part`].
    bits: u8,
}

/// Borders between ranges: a subset of the starts of one [`Ranges`], always with the first. Each range has one bit,
/// which is set if the range begins at a border. Storing the borders as ranges would take up to twenty bytes for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Borders(Box<[u64]>);

impl Borders {
    /// The index of the last range up to `at` that begins at a border.
    #[inline]
    fn at_or_before(&self, at: usize) -> usize {
        let (mut word, mut bits) = (at / 64, self.0[at / 64] & up_to(at));
        // The first range begins with a border.
        while bits == 0 && word > 0 {
            word -= 1;
            bits = self.0[word];
        }
        word * 64 + 63_usize.saturating_sub(bits.leading_zeros() as usize)
    }

    /// The index of the first range after `at` that begins at a border.
    #[inline]
    fn after(&self, at: usize) -> Option<usize> {
        let rest = self.0[at / 64] & !up_to(at);
        let words = std::iter::once(rest).chain(self.0[at / 64 + 1..].iter().copied());
        let (word, bits) = (at / 64..).zip(words).find(|(_, bits)| *bits != 0)?;
        Some(word * 64 + bits.trailing_zeros() as usize)
    }

    /// How many borders there are, the first included.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.iter().map(|bits| bits.count_ones() as usize).sum()
    }
}

/// A mask of the bits of a word up to and including the bit of range `at`.
#[inline]
fn up_to(at: usize) -> u64 {
    u64::MAX >> (63 - at % 64)
}

/// Builds [`Ranges`] from ranges in ascending order.
#[derive(Debug)]
pub struct Builder<A> {
    starts: Vec<A>,
    values: Vec<u32>,
}

impl<A: Bits> Builder<A> {
    /// A builder that gives `value` to every address.
    #[must_use]
    pub fn new(value: u32) -> Self {
        Self { starts: vec![A::ZERO], values: vec![value] }
    }

    /// Sets the value from `start` on. `start` must not be lower than in the last call.
    pub fn begin(&mut self, start: A, value: u32) {
        debug_assert!(self.starts.last().is_none_or(|last| *last <= start), "runs come in ascending order");
        while self.starts.last().is_some_and(|last| *last >= start) {
            self.starts.pop();
            self.values.pop();
        }
        if self.values.last() != Some(&value) {
            self.starts.push(start);
            self.values.push(value);
        }
    }

    /// The ranges.
    #[must_use]
    pub fn finish(self) -> Ranges<A> {
        Ranges::new(self.starts, self.values)
    }
}

impl Ranges<u32> {
    /// Each range's value and how many addresses it has.
    pub fn sizes(&self) -> impl Iterator<Item = (u32, u64)> {
        let ends = self.starts.iter().skip(1).map(|start| u64::from(*start)).chain([1 << u32::BITS]);
        self.iter().zip(ends).map(|((start, value), end)| (value, end - u64::from(start)))
    }
}

impl Ranges<u128> {
    /// Each range's value and how many addresses it has. A single range over the whole space is counted as 2^128 - 1.
    pub fn sizes(&self) -> impl Iterator<Item = (u32, u128)> {
        let starts = self.starts.iter().skip(1).copied();
        let lasts = starts.map(|next| next - 1).chain([u128::MAX]);
        self.iter().zip(lasts).map(|((start, value), last)| (value, (last - start).saturating_add(1)))
    }
}

/// The most bits by which the space is divided into parts: 256 KiB of parts, which stay in a core's cache.
const MAX_BITS: u8 = 16;

impl<A: Bits> Ranges<A> {
    /// Builds the index over ranges. A part is the addresses with the same first bits; for each part the index has the
    /// first range in it.
    fn new(starts: Vec<A>, values: Vec<u32>) -> Self {
        // About as many parts as ranges.
        #[allow(clippy::cast_possible_truncation)] // at most 63
        let bits = (starts.len().ilog2() as u8).min(MAX_BITS);
        let count = (1 << bits) + 2;
        let mut parts = Vec::with_capacity(count + 1);
        for (at, start) in (0_u32..).zip(&starts) {
            // A range that begins within a part doesn't hold the part's first address.
            let first_of = start.before().map_or(0, |before| before.part(bits) + 1);
            parts.resize(first_of.max(parts.len()), at.saturating_sub(1));
        }
        let last = u32::try_from(starts.len() - 1).expect("fewer than 2^32 ranges");
        parts.resize(count + 1, last);
        Self { starts: in_huge_pages(starts).into(), values: in_huge_pages(values).into(), parts: parts.into(), bits }
    }

    /// The value at an address.
    #[inline]
    #[must_use]
    pub fn value(&self, address: A) -> u32 {
        self.values[self.position(address)]
    }

    /// The value at an address, and the length of the shortest prefix around it that crosses none of these borders.
    #[inline]
    #[must_use]
    pub fn value_and_scope(&self, address: A, borders: &Borders) -> (u32, u8) {
        let at = self.position(address);
        // A prefix around the address crosses no border if and only if it holds neither of the two addresses just
        // outside.
        let length_without = |outside: Option<A>| outside.map_or(0, |outside| address.common(outside) + 1);
        let below = length_without(self.starts[borders.at_or_before(at)].before());
        let above = length_without(borders.after(at).map(|next| self.starts[next]));
        (self.values[at], below.max(above))
    }

    /// Starts to load the memory that a lookup of this address reads, without waiting.
    #[inline]
    pub fn expect(&self, address: A, borders: &Borders) {
        let first = self.parts[address.part(self.bits)] as usize;
        prefetch(&self.starts[first]);
        prefetch(&self.values[first]);
        prefetch(&borders.0[first / 64]);
    }

    /// The borders between neighbouring ranges for which `value` gives different results.
    #[must_use]
    pub fn borders(&self, mut value: impl FnMut(u32) -> u32) -> Borders {
        let mut borders = vec![0_u64; self.starts.len().div_ceil(64)];
        let mut before = None;
        for (at, now) in self.values.iter().map(|&stored| Some(value(stored))).enumerate() {
            borders[at / 64] |= u64::from(now != before) << (at % 64);
            before = now;
        }
        Borders(borders.into())
    }

    /// How many ranges there are.
    #[must_use]
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.starts.len()
    }

    /// Each range's start and value, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (A, u32)> {
        self.starts.iter().copied().zip(self.values.iter().copied())
    }

    /// Combines two divisions of the space. Each address gets the value that `join` makes of its two values.
    #[must_use]
    pub fn overlay(&self, over: &Self, mut join: impl FnMut(u32, u32) -> u32) -> Self {
        let (mut below, mut above) = (self.iter().peekable(), over.iter().peekable());
        let (mut low, mut high) = (self.values[0], over.values[0]);
        let mut built = Builder::new(join(low, high));
        loop {
            let start = match (below.peek(), above.peek()) {
                (Some(&(a, _)), Some(&(b, _))) => a.min(b),
                (Some(&(a, _)), None) => a,
                (None, Some(&(b, _))) => b,
                (None, None) => return built.finish(),
            };
            if let Some((_, value)) = below.next_if(|(at, _)| *at == start) {
                low = value;
            }
            if let Some((_, value)) = above.next_if(|(at, _)| *at == start) {
                high = value;
            }
            built.begin(start, join(low, high));
        }
    }

    /// The range that holds an address: the last one that begins at or before it. There always is one, as the first
    /// begins at zero.
    #[inline]
    fn position(&self, address: A) -> usize {
        let part = address.part(self.bits);
        let (first, last) = (self.parts[part] as usize, self.parts[part + 1] as usize);
        // The first of these begins at or before the address, as it holds the part's first address.
        first + self.starts[first + 1..=last].partition_point(|start| *start <= address)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CASES: u32 = 2000;
    const HIGH: u32 = 0xffff_ff00;

    /// Random runs (starts with values) with few different values. Their starts are close together, also at both ends
    /// of the space.
    fn runs() -> impl Strategy<Value = Vec<(u32, u32)>> {
        let start = prop_oneof![0..64_u32, HIGH..=u32::MAX, any::<u32>()];
        proptest::collection::vec((start, 0..4_u32), 0..24).prop_map(|mut runs| {
            runs.sort_by_key(|(start, _)| *start);
            runs
        })
    }

    fn built(runs: &[(u32, u32)]) -> Ranges<u32> {
        let mut built = Builder::new(9);
        for &(start, value) in runs {
            built.begin(start, value);
        }
        built.finish()
    }

    /// The value of the last run at or before the address.
    fn naive(runs: &[(u32, u32)], address: u32) -> u32 {
        runs.iter().rev().find(|(start, _)| *start <= address).map_or(9, |(_, value)| *value)
    }

    /// Addresses to test: those around every start, and any other.
    fn addresses(runs: &[(u32, u32)], more: u32) -> Vec<u32> {
        let around = |&(start, _): &(u32, u32)| [start.saturating_sub(1), start, start.saturating_add(1)];
        runs.iter().flat_map(around).chain([0, more, u32::MAX]).collect()
    }

    fn block(address: u32, length: u8) -> std::ops::RangeInclusive<u32> {
        let first = address & u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
        first..=first.last(length)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(CASES))]

        #[test]
        fn lookups_equal_the_naive_ones(runs in runs(), more in any::<u32>()) {
            let ranges = built(&runs);
            prop_assert!(ranges.values.windows(2).all(|pair| pair[0] != pair[1]), "neighbours differ");
            prop_assert!(ranges.starts.is_sorted() && ranges.starts[0] == 0);
            for address in addresses(&runs, more) {
                prop_assert_eq!(ranges.value(address), naive(&runs, address));
            }
        }

        /// A scope's block lies wholly in the range, and the next wider block doesn't. Every address of the block has
        /// the same scope, so that scopes partition the space.
        #[test]
        fn scopes_are_exact_and_partition_the_space(runs in runs(), more in any::<u32>(), within in any::<u32>(),
            coarse in any::<bool>()) {
            let ranges = built(&runs);
            let of = |value: u32| if coarse { value % 2 } else { value };
            let borders = ranges.borders(of);
            let naive = |runs: &[(u32, u32)], address| of(naive(runs, address));
            let scope_of = |address| {
                let (value, scope) = ranges.value_and_scope(address, &borders);
                (of(value), scope)
            };
            let holds = |block: &std::ops::RangeInclusive<u32>, value| {
                let inside = runs.iter().filter(|(start, _)| block.contains(start)).map(|(start, _)| *start);
                inside.chain([*block.start()]).all(|address| naive(&runs, address) == value)
            };
            for address in addresses(&runs, more) {
                let (value, scope) = scope_of(address);
                let narrow = block(address, scope);
                prop_assert!(holds(&narrow, value));
                prop_assert!(scope == 0 || !holds(&block(address, scope - 1), value));
                let other = narrow.start() + within % (narrow.end() - narrow.start()).saturating_add(1).max(1);
                for other in [*narrow.start(), other, *narrow.end()] {
                    prop_assert_eq!(scope_of(other), (value, scope));
                }
            }
        }

        #[test]
        fn borders_are_found_over_any_distance(marked in proptest::collection::vec(any::<bool>(), 1..400),
            sparse in any::<bool>()) {
            let is_border = |at: usize| at == 0 || marked[at] && (!sparse || at.is_multiple_of(150));
            let mut built = Builder::new(0);
            for at in 0..u32::try_from(marked.len()).unwrap() {
                built.begin(at, at);
            }
            let mut class = 0;
            let borders = built.finish().borders(|at| {
                class += u32::from(is_border(at as usize));
                class
            });
            for at in 0..marked.len() {
                prop_assert_eq!(borders.at_or_before(at), (0..=at).rfind(|&one| is_border(one)).unwrap());
                prop_assert_eq!(borders.after(at), (at + 1..marked.len()).find(|&one| is_border(one)));
            }
        }

        #[test]
        fn an_overlay_joins_address_by_address(below in runs(), above in runs(), more in any::<u32>()) {
            let joined = built(&below).overlay(&built(&above), |low, high| low * 100 + high);
            for address in addresses(&below, more).into_iter().chain(addresses(&above, more)) {
                prop_assert_eq!(joined.value(address), naive(&below, address) * 100 + naive(&above, address));
            }
        }
    }
}
