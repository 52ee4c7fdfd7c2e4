//! A hash table of kept answers that grows to a fixed size. Takes a query's key and name, returns the entry with the
//! answer. Called by [`super::Memo`]. In a full table few of the new entries are kept, each in place of an old one. So
//! no flood of questions takes more memory.
//!
//! Answers for a steered name (a name whose records the rules decide) depend on the client. For such a name the table
//! holds a mark, which says whose classes of clients count, and one entry for each class and part of a class.

use bailiwick_host::system::batch::{prefetch, with_huge_pages};
use bailiwick_rules::table::RegionIndex;

use crate::locate::classes::ClassId;
use crate::protocol::name::{NameRef, case};
use crate::response::answer::Rcode;
use crate::response::wire::{Class, HEADER};
use crate::state::snapshot::ClientKey;
use crate::zone::ServiceIndex;

use super::query::Query;

/// The most sets of entries. A power of two. With [`WAYS`] and the size of a slot this makes 8 MiB.
const MAX_SETS: usize = 1 << 12;
/// How many sets there are at first: 128 KiB.
const MIN_SETS: usize = 1 << 6;
/// How many entries share a set.
const WAYS: usize = 8;
/// In a full set, one in this many new entries replaces an old one.
const RELUCTANCE: usize = 8;
/// The longest response that is stored in its slot, in octets.
const SHORT: usize = 151;
/// The tag of a free slot.
const FREE: u8 = 0;
/// The lowest tag of an entry. [`matching_tags`] may take a tag for one that is greater by 1. A free slot still holds
/// the key and the answer of an entry that was cleared, so no entry's tag is greater than [`FREE`] by 1.
const LOWEST: u8 = FREE + 2;

/// The fields that identify an entry, together with the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    /// The hash of all fields and the name.
    pub(super) hash: u64,
    pub(super) qtype: u16,
    /// Which form of the response is asked for: with or without EDNS and DNSSEC.
    pub(super) form: u8,
    /// The class of clients of a steered name.
    pub(super) class: Option<ClassId>,
    /// The part of the class.
    pub(super) part: u8,
}

impl Key {
    /// The key of a query that doesn't depend on the client.
    pub(super) fn new(query: &Query<'_>) -> Self {
        Self { hash: query.hash, qtype: query.qtype, form: query.form, class: None, part: 0 }
    }

    /// The key for clients of this class and part of the class.
    pub(super) fn of_client(self, client_key: &ClientKey) -> Self {
        const STIR: u64 = 0xd6e8_feb8_6659_fd93;
        let part = client_key.part.number();
        let hash = (self.hash ^ (u64::from(client_key.class.0) + 1) ^ u64::from(part) << 32).wrapping_mul(STIR);
        Self { hash: hash ^ hash >> 32, class: Some(client_key.class), part, ..self }
    }
}

/// A kept answer, or a mark that says that the answers for a name depend on the client.
#[derive(Debug)]
pub(super) struct Entry {
    /// The generation of the service's decisions for which the entry is valid; 0 without a service.
    pub(super) decided: u64,
    /// In a mark: the service whose classes of clients the answers depend on.
    pub(super) asks: Option<ServiceIndex>,
    /// The service that the answer belongs to.
    pub(super) service: Option<ServiceIndex>,
    /// The region whose records the answer holds.
    pub(super) region: Option<RegionIndex>,
    pub(super) rcode: Rcode,
    /// The class of the response, such as positive; not a class of clients.
    pub(super) kind: Class,
    /// The response, without the fields that are patched in later. In a mark only the name matters.
    pub(super) wire: Wire,
}

/// The octets of a response. Short responses are stored in place, so that they are loaded together with the entry.
#[derive(Debug)]
pub(super) struct Wire {
    length: u8,
    short: [u8; SHORT],
    /// The octets of a longer response; otherwise empty.
    long: Vec<u8>,
}

impl Default for Wire {
    fn default() -> Self {
        Self { length: 0, short: [0; SHORT], long: Vec::new() }
    }
}

impl Wire {
    /// Replaces the octets.
    pub(super) fn set(&mut self, octets: &[u8]) {
        self.long.clear();
        match (u8::try_from(octets.len()), self.short.get_mut(..octets.len())) {
            (Ok(length), Some(short)) => {
                short.copy_from_slice(octets);
                self.length = length;
            }
            _ => self.long.extend_from_slice(octets),
        }
    }

    /// The octets.
    pub(super) fn bytes(&self) -> &[u8] {
        if self.long.is_empty() { &self.short[..usize::from(self.length)] } else { &self.long }
    }

    #[cfg(test)]
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        if self.long.is_empty() { &mut self.short[..usize::from(self.length)] } else { &mut self.long }
    }
}

impl Entry {
    pub(super) fn empty() -> Self {
        Self {
            decided: 0,
            asks: None,
            service: None,
            region: None,
            rcode: Rcode::NOERROR,
            kind: Class::Positive,
            wire: Wire::default(),
        }
    }
}

/// A slot of the table.
#[derive(Debug)]
#[repr(align(64))] // whole cache lines
struct Slot {
    key: Key,
    entry: Entry,
}

const _: () = assert!(size_of::<Slot>() == 256);

/// The hash table: sets of [`WAYS`] slots.
pub(super) struct Table {
    /// One octet of each entry's hash, by set. The tags are read first, and are small enough to stay in a core's cache.
    /// The number of sets is a power of two.
    tags: Box<[[u8; WAYS]]>,
    slots: Vec<Slot>,
    /// Decides whether the next new entry replaces an entry of a full set, and which one.
    turn: usize,
}

impl Table {
    pub(super) fn new() -> Self {
        Self::of(MIN_SETS)
    }

    fn of(sets: usize) -> Self {
        let free = |_| Slot { key: Key { hash: 0, qtype: 0, form: 0, class: None, part: 0 }, entry: Entry::empty() };
        let mut slots = if sets == MAX_SETS { with_huge_pages(sets * WAYS) } else { Vec::with_capacity(sets * WAYS) };
        slots.extend((0..sets * WAYS).map(free));
        Self { tags: vec![[FREE; WAYS]; sets].into(), slots, turn: 0 }
    }

    /// Removes all entries. If few slots were used, most of the memory is freed too.
    pub(super) fn clear(&mut self) {
        /// Few slots are used if fewer than one in this many are.
        const LITTLE: usize = 16;
        let sets = self.tags.len();
        if sets > MIN_SETS && self.kept() < sets * WAYS / LITTLE {
            *self = Self::of((sets / 4).max(MIN_SETS));
        } else {
            self.tags.fill([FREE; WAYS]);
        }
    }

    /// Doubles the table. The entries of each set are divided between two sets, so all of them have room.
    #[cold]
    fn grow(&mut self) {
        let mut larger = Self::of(2 * self.tags.len());
        for (tags, slots) in self.tags.iter().zip(self.slots.chunks_exact_mut(WAYS)) {
            for (tag, slot) in tags.iter().zip(slots).filter(|(tag, _)| **tag != FREE) {
                let set = larger.set_of(slot.key.hash);
                if let Some(way) = larger.free(set) {
                    std::mem::swap(&mut larger.slots[set * WAYS + way], slot);
                    larger.tags[set][way] = *tag;
                }
            }
        }
        *self = larger;
    }

    /// The entry with this key and name.
    pub(super) fn find(&self, key: &Key, name: NameRef<'_>) -> Option<&Entry> {
        let set = self.set_of(key.hash);
        self.way(set, key, name).map(|way| &self.slots[set * WAYS + way].entry)
    }

    /// Adds the entry that `make` returns. `make` gets the buffer of the replaced entry, to use it again.
    pub(super) fn put(&mut self, key: &Key, name: NameRef<'_>, make: impl FnOnce(Wire) -> Entry) {
        let Some((set, way)) = self.place(key, name) else { return };
        let slot = &mut self.slots[set * WAYS + way];
        slot.entry = make(std::mem::take(&mut slot.entry.wire));
        slot.key = *key;
        self.tags[set][way] = tag(key.hash);
    }

    /// The place of this key, or a place to add it; `None` if it isn't added.
    fn place(&mut self, key: &Key, name: NameRef<'_>) -> Option<(usize, usize)> {
        loop {
            let set = self.set_of(key.hash);
            if let Some(way) = self.way(set, key, name).or_else(|| self.free(set)) {
                return Some((set, way));
            }
            if self.tags.len() == MAX_SETS {
                // If clients ask for more names than fit, most new entries would be replaced before they are used. So
                // only one in RELUCTANCE new entries replaces an old one.
                self.turn = (self.turn + 1) % (WAYS * RELUCTANCE);
                return self.turn.is_multiple_of(RELUCTANCE).then_some((set, self.turn / RELUCTANCE));
            }
            self.grow();
        }
    }

    /// A free slot of a set.
    fn free(&self, set: usize) -> Option<usize> {
        self.tags[set].iter().position(|tag| *tag == FREE)
    }

    /// The number of entries.
    pub(super) fn kept(&self) -> usize {
        self.tags.iter().flatten().filter(|tag| **tag != FREE).count()
    }

    /// Prefetches the slot that `find` will probably read. `false` if the table has no such entry.
    pub(super) fn prefetch(&self, key: &Key) -> bool {
        let set = self.set_of(key.hash);
        let matches = matching_tags(self.tags[set], tag(key.hash));
        if matches != 0 {
            prefetch(&self.slots[set * WAYS + matches.trailing_zeros() as usize / 8]);
        }
        matches != 0
    }

    #[allow(clippy::cast_possible_truncation)] // only the lower bits are wanted
    #[inline]
    fn set_of(&self, hash: u64) -> usize {
        hash as usize & (self.tags.len() - 1)
    }

    /// The slot of a set that has this key and name.
    fn way(&self, set: usize, key: &Key, name: NameRef<'_>) -> Option<usize> {
        let name = name.as_wire();
        let mut left = matching_tags(self.tags[set], tag(key.hash));
        while left != 0 {
            let way = left.trailing_zeros() as usize / 8;
            let slot = &self.slots[set * WAYS + way];
            let name_of_entry = slot.entry.wire.bytes().get(HEADER..HEADER + name.len());
            if slot.key == *key && name_of_entry.is_some_and(|name_of_entry| case::same(name_of_entry, name)) {
                return Some(way);
            }
            left &= left - 1;
        }
        None
    }
}

/// Sets the high bit of every octet that equals `tag`. An octet after it that differs by 1 may get its high bit set
/// too, so the caller has to compare each match. No free slot is among them: see [`LOWEST`].
fn matching_tags(tags: [u8; WAYS], tag: u8) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let differ = u64::from_le_bytes(tags) ^ (u64::from(tag) * ONES);
    differ.wrapping_sub(ONES) & !differ & (ONES << 7)
}

/// The part of a hash that is stored in the tags. It is never the tag of a free slot.
fn tag(hash: u64) -> u8 {
    hash.to_be_bytes()[0].max(LOWEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The name of a number.
    fn name(number: u64) -> Vec<u8> {
        let label = number.to_string();
        [&[u8::try_from(label.len()).unwrap()], label.as_bytes(), &[0]].concat()
    }

    /// A key for a number, with a hash that looks random (the last step of SplitMix64).
    fn key(number: u64) -> Key {
        let mut hash = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        Key { hash: hash ^ hash >> 31, qtype: 1, form: 0, class: None, part: 0 }
    }

    fn put(table: &mut Table, number: u64) {
        let name = name(number);
        let octets = [&[0; HEADER][..], &name].concat();
        table.put(&key(number), NameRef::from_wire(&name).unwrap(), |mut wire| {
            wire.set(&octets);
            Entry { decided: number, wire, ..Entry::empty() }
        });
    }

    fn has(table: &Table, number: u64) -> bool {
        let name = name(number);
        let found = table.find(&key(number), NameRef::from_wire(&name).unwrap());
        found.is_some_and(|entry| entry.decided == number)
    }

    #[test]
    fn what_is_kept_stays_while_the_table_grows() {
        let mut table = Table::new();
        for number in 0..4_000 {
            put(&mut table, number);
            assert!(has(&table, number));
        }
        assert!((0..4_000).all(|number| has(&table, number)));
        assert!(!has(&table, 4_000));
        assert_eq!(table.kept(), 4_000);
    }

    #[test]
    fn what_was_cleared_is_never_found_again() {
        // The answer of each number is replaced by one with another mark. All hashes share a set.
        let name = name(0);
        let put = |table: &mut Table, key: &Key, decided| {
            table.put(key, NameRef::from_wire(&name).unwrap(), |mut wire| {
                wire.set(&[&[0; HEADER][..], &name].concat());
                Entry { decided, wire, ..Entry::empty() }
            });
        };
        let tags = [0_u64, 1, 2, 3, 4, 127, 128, 129, 254, 255];
        for (first, second) in tags.into_iter().flat_map(|first| tags.map(|second| (first, second))) {
            let keys = [Key { hash: first << 56, ..key(0) }, Key { hash: second << 56 | 1 << 32, ..key(0) }];
            let mut table = Table::new();
            keys.iter().for_each(|key| put(&mut table, key, 1));
            table.clear();
            put(&mut table, &keys[0], 2);
            let found =
                keys.each_ref().map(|key| table.find(key, NameRef::from_wire(&name).unwrap()).map(|one| one.decided));
            assert_eq!(found, [Some(2), None], "tags {first} and {second}");
        }
    }

    #[test]
    fn memory_follows_the_entries_up_to_its_limit() {
        let mut table = Table::new();
        let room = |table: &Table| table.slots.capacity() * size_of::<Slot>();
        assert!(room(&table) <= 128 << 10, "{}", room(&table));
        (0..200).for_each(|number| put(&mut table, number));
        assert!(room(&table) <= 512 << 10, "{}", room(&table));
        (0..100_000).for_each(|number| put(&mut table, number));
        assert_eq!(room(&table), 8 << 20);
        assert!((MAX_SETS * WAYS * 9 / 10..=MAX_SETS * WAYS).contains(&table.kept()));
        // A full table keeps its memory when it is cleared. A table of which little was used gives memory back.
        table.clear();
        assert_eq!((room(&table), table.kept()), (8 << 20, 0));
        for _ in 0..5 {
            put(&mut table, 1);
            table.clear();
        }
        assert!(room(&table) <= 128 << 10, "{}", room(&table));
    }

    #[test]
    fn keys_that_share_a_set_grow_the_table_only_to_its_limit() {
        let mut table = Table::new();
        for number in 0..1_000 {
            let name = name(number);
            let octets = [&[0; HEADER][..], &name].concat();
            let key = Key { hash: number << 32, ..key(0) };
            table.put(&key, NameRef::from_wire(&name).unwrap(), |mut wire| {
                wire.set(&octets);
                Entry { wire, ..Entry::empty() }
            });
        }
        assert_eq!((table.tags.len(), table.kept()), (MAX_SETS, WAYS));
    }
}
