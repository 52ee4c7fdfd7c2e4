//! A table of fixed size that forgets: keys with names enter, entries leave; [`super::Memo`] fills and reads it. An entry that finds no room
//! takes another's place, so no flood of questions makes it grow.

use bailiwick_rules::table::RegionIndex;

use crate::answer::Rcode;
use crate::locate::ClassId;
use crate::wire::Class;
use crate::zone::ServiceIndex;

use super::query::{HEADER, Query};

/// How many sets of entries there are, a power of two.
const SETS: usize = 1 << 14;
/// How many entries share a set.
const WAYS: usize = 4;

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
    /// The generation of rules, zones and geography it holds in.
    pub(super) world: u64,
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
    pub(super) wire: Vec<u8>,
}

impl Entry {
    pub(super) fn empty() -> Self {
        Self {
            world: 0,
            decided: 0,
            asks: None,
            service: None,
            region: None,
            rcode: Rcode::NOERROR,
            kind: Class::Positive,
            wire: Vec::new(),
        }
    }
}

#[derive(Debug)]
struct Slot {
    key: Key,
    entry: Entry,
}

pub(super) struct Table {
    /// The hashes of each set's entries, apart from them, so that a miss touches one cache line.
    hashes: Box<[[u64; WAYS]]>,
    slots: Box<[Slot]>,
    /// Whose turn it is to be forgotten.
    turn: usize,
}

impl Table {
    pub(super) fn new() -> Self {
        let mut table = Self { hashes: Box::default(), slots: Box::default(), turn: 0 };
        table.clear();
        table
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        let free = || Slot { key: Key { hash: 0, qtype: 0, form: 0, class: None }, entry: Entry::empty() };
        self.hashes = vec![[0; WAYS]; SETS].into();
        self.slots = (0..SETS * WAYS).map(|_| free()).collect();
    }

    /// The entry with this key and name in lower case.
    pub(super) fn find(&self, key: &Key, name: &[u8]) -> Option<&Entry> {
        let set = set_of(key.hash);
        self.place(set, key, name).map(|way| &self.slots[set * WAYS + way].entry)
    }

    /// Has `fill` write the entry of this key; it is given whatever stood there, to use its buffer.
    pub(super) fn put(&mut self, key: &Key, name: &[u8], fill: impl FnOnce(&mut Entry)) {
        let set = set_of(key.hash);
        let way = self.place(set, key, name).unwrap_or_else(|| {
            self.hashes[set].iter().position(|hash| *hash == 0).unwrap_or_else(|| {
                self.turn = (self.turn + 1) % WAYS;
                self.turn
            })
        });
        let slot = &mut self.slots[set * WAYS + way];
        fill(&mut slot.entry);
        slot.key = *key;
        if slot.entry.wire.len() < HEADER + name.len() {
            slot.entry.wire.resize(HEADER + name.len(), 0);
        }
        slot.entry.wire[HEADER..HEADER + name.len()].copy_from_slice(name);
        self.hashes[set][way] = key.hash;
    }

    /// How many entries there are.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.hashes.iter().flatten().filter(|hash| **hash != 0).count()
    }

    fn place(&self, set: usize, key: &Key, name: &[u8]) -> Option<usize> {
        let is_it = |way: &usize| {
            let slot = &self.slots[set * WAYS + way];
            slot.key == *key && slot.entry.wire.get(HEADER..HEADER + name.len()) == Some(name)
        };
        (0..WAYS).filter(|way| self.hashes[set][*way] == key.hash).find(is_it)
    }
}

#[allow(clippy::cast_possible_truncation)] // only the lower bits are wanted
fn set_of(hash: u64) -> usize {
    hash as usize % SETS
}
