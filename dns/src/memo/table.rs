//! A table of fixed size that forgets: keys with names enter, entries leave; [`super::Memo`] fills and reads it. An entry that finds no room
//! takes another's place, so no flood of questions makes it grow.

use bailiwick_rules::table::RegionIndex;

use crate::answer::Rcode;
use crate::locate::ClassId;
use crate::name::{NameRef, case};
use crate::wire::{Class, HEADER};
use crate::zone::ServiceIndex;

use super::query::Query;
use crate::system::{prefetch, with_huge_pages};

/// How many sets of entries there are, a power of two; with [`WAYS`] and the size of a slot this makes 8 MiB.
const SETS: usize = 1 << 12;
/// How many entries share a set.
const WAYS: usize = 8;
/// Of so many entries that find no room one takes another's place.
const RELUCTANCE: usize = 8;
/// The longest response that stands in its slot.
const SHORT: usize = 151;
/// The tag of a free slot.
const FREE: u8 = 0;

/// What an entry is found by, besides the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    /// Of all of it.
    pub(super) hash: u64,
    pub(super) qtype: u16,
    pub(super) form: u8,
    /// The class of clients of a steered name.
    pub(super) class: Option<ClassId>,
}

impl Key {
    /// The key of a query, for whatever client.
    pub(super) fn new(query: &Query<'_>) -> Self {
        Self { hash: query.hash, qtype: query.qtype, form: query.form, class: None }
    }

    /// The key for clients of this class.
    pub(super) fn of_class(self, class: ClassId) -> Self {
        const STIR: u64 = 0xd6e8_feb8_6659_fd93;
        let hash = (self.hash ^ (u64::from(class.0) + 1)).wrapping_mul(STIR);
        Self { hash: hash ^ hash >> 32, class: Some(class), ..self }
    }
}

/// A kept answer, or the mark that a name's answers depend on the client.
#[derive(Debug)]
pub(super) struct Entry {
    /// The generation of the service's decisions it holds in; 0 without a service.
    pub(super) decided: u64,
    /// A mark: this service's classes are to be asked.
    pub(super) asks: Option<ServiceIndex>,
    /// The service that answered.
    pub(super) service: Option<ServiceIndex>,
    /// The region whose records they are.
    pub(super) region: Option<RegionIndex>,
    pub(super) rcode: Rcode,
    pub(super) kind: Class,
    /// The response without what is patched in; of a mark only the name counts.
    pub(super) wire: Wire,
}

/// A response's octets; a short one's stand right here, so that whoever has found the entry has them in the same place.
#[derive(Debug)]
pub(super) struct Wire {
    length: u8,
    short: [u8; SHORT],
    /// A longer one's; else empty.
    long: Vec<u8>,
}

impl Default for Wire {
    fn default() -> Self {
        Self { length: 0, short: [0; SHORT], long: Vec::new() }
    }
}

impl Wire {
    /// Writes other octets in place of these.
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

/// An entry in its place.
#[derive(Debug)]
#[repr(align(64))] // whole cache lines
struct Slot {
    key: Key,
    entry: Entry,
}

const _: () = assert!(size_of::<Slot>() == 256);

pub(super) struct Table {
    /// An octet of each entry's hash, by set: looked at before anything else, and small enough to stay in a core's cache.
    tags: Box<[[u8; WAYS]]>,
    slots: Vec<Slot>,
    /// Whose turn it is to be forgotten.
    turn: usize,
}

impl Table {
    pub(super) fn new() -> Self {
        let free = |_| Slot { key: Key { hash: 0, qtype: 0, form: 0, class: None }, entry: Entry::empty() };
        let mut slots = with_huge_pages(SETS * WAYS);
        slots.extend((0..SETS * WAYS).map(free));
        Self { tags: vec![[FREE; WAYS]; SETS].into(), slots, turn: 0 }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.tags.fill([FREE; WAYS]);
    }

    /// The entry with this key and name.
    pub(super) fn find(&self, key: &Key, name: NameRef<'_>) -> Option<&Entry> {
        let set = set_of(key.hash);
        self.way(set, key, name).map(|way| &self.slots[set * WAYS + way].entry)
    }

    /// Enters what `make` makes, given whatever stood there, so that it may use its buffer.
    pub(super) fn put(&mut self, key: &Key, name: NameRef<'_>, make: impl FnOnce(Wire) -> Entry) {
        let set = set_of(key.hash);
        let free = || self.tags[set].iter().position(|tag| *tag == FREE);
        let Some(way) = self.way(set, key, name).or_else(free).or_else(|| {
            // Where more is asked for than there is room for, most of it would be gone before it is asked for again.
            self.turn = (self.turn + 1) % (WAYS * RELUCTANCE);
            self.turn.is_multiple_of(RELUCTANCE).then_some(self.turn / RELUCTANCE)
        }) else {
            return;
        };
        let slot = &mut self.slots[set * WAYS + way];
        slot.entry = make(std::mem::take(&mut slot.entry.wire));
        slot.key = *key;
        self.tags[set][way] = tag(key.hash);
    }

    /// How many entries there are.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.tags.iter().flatten().filter(|tag| **tag != FREE).count()
    }

    /// Has what `find` will look at loaded, without waiting for it; `false` if there is nothing.
    pub(super) fn expect(&self, key: &Key) -> bool {
        let set = set_of(key.hash);
        let alike = alike(self.tags[set], tag(key.hash));
        if alike != 0 {
            prefetch(&self.slots[set * WAYS + alike.trailing_zeros() as usize / 8]);
        }
        alike != 0
    }

    fn way(&self, set: usize, key: &Key, name: NameRef<'_>) -> Option<usize> {
        let name = name.as_wire();
        let mut left = alike(self.tags[set], tag(key.hash));
        while left != 0 {
            let way = left.trailing_zeros() as usize / 8;
            let slot = &self.slots[set * WAYS + way];
            let kept = slot.entry.wire.bytes().get(HEADER..HEADER + name.len());
            if slot.key == *key && kept.is_some_and(|kept| case::same(kept, name)) {
                return Some(way);
            }
            left &= left - 1;
        }
        None
    }
}

/// The high bit of every octet that is `tag`, and perhaps of one above it: what is found has to be compared.
fn alike(tags: [u8; WAYS], tag: u8) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let differ = u64::from_le_bytes(tags) ^ (u64::from(tag) * ONES);
    differ.wrapping_sub(ONES) & !differ & (ONES << 7)
}

/// The part of a hash that is kept in the tags; never that of a free slot.
fn tag(hash: u64) -> u8 {
    hash.to_be_bytes()[0].max(FREE + 1)
}

#[allow(clippy::cast_possible_truncation)] // only the lower bits are wanted
fn set_of(hash: u64) -> usize {
    hash as usize % SETS
}
