//! The names of a zone as a tree in one hash table: names enter at load, `zone` walks down it label by label per query, without allocating.
//!
//! A name's key is its parent's number and its first label in lower case. Ancestors are entered with their descendants, so empty non-terminals exist (RFC 4592 §2.2.2).

use crate::name::{MAX_LABELS, NameRef, label_at, label_starts};
use crate::system::in_huge_pages;

/// The number of the top of the tree.
pub(crate) const TOP: u32 = 0;
/// No node.
const NONE: u32 = u32::MAX;

/// The tag of a free place.
const FREE: u8 = 0;

/// A node's key.
#[derive(Debug)]
struct Entry {
    parent: u32,
    /// Where the label's length octet stands in `labels`.
    label: u32,
    hash: u64,
}

/// Names below one top, numbered from [`TOP`] in the order they were entered.
#[derive(Debug)]
pub(crate) struct NameTree {
    entries: Vec<Entry>,
    labels: Vec<u8>,
    /// The hash table: by place the upper octet of the key's hash, which is looked at before anything else. They stand apart from the nodes, so
    /// that a name that isn't there is found missing in little memory.
    tags: Vec<u8>,
    /// By place, the node.
    nodes: Vec<u32>,
}

/// The labels of a name below the top, from the top downwards.
pub(crate) struct Descent<'n> {
    wire: &'n [u8],
    starts: [u8; MAX_LABELS],
    left: usize,
}

impl<'n> Descent<'n> {
    /// Prepares to walk `name`, whose last `skip` labels are the top's.
    pub(crate) fn new(name: NameRef<'n>, skip: usize) -> Self {
        let (starts, count) = label_starts(name);
        Self { wire: name.as_wire(), starts, left: count.saturating_sub(skip) }
    }

    /// How many labels are still to come.
    pub(crate) fn left(&self) -> usize {
        self.left
    }
}

impl<'n> Iterator for Descent<'n> {
    type Item = &'n [u8];

    fn next(&mut self) -> Option<&'n [u8]> {
        self.left = self.left.checked_sub(1)?;
        Some(label_at(self.wire, self.starts[self.left]))
    }
}

impl NameTree {
    /// A tree of the top alone.
    pub(crate) fn new() -> Self {
        Self {
            entries: vec![Entry { parent: NONE, label: 0, hash: 0 }],
            labels: vec![0],
            tags: vec![FREE; 16],
            nodes: vec![NONE; 16],
        }
    }

    /// How many names there are, the top included.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The parent of a node; `None` for the top.
    pub(crate) fn parent(&self, node: u32) -> Option<u32> {
        let parent = self.entries[node as usize].parent;
        (parent != NONE).then_some(parent)
    }

    /// The first label of a node below the top; empty for the top.
    pub(crate) fn label_of(&self, node: u32) -> &[u8] {
        self.label(&self.entries[node as usize])
    }

    /// The child of `parent` with this label.
    pub(crate) fn child(&self, parent: u32, label: &[u8]) -> Option<u32> {
        let hash = self.key(parent, label);
        self.probe(parent, label, hash).ok()
    }

    /// The node of a name, walking down from the top.
    pub(crate) fn find(&self, mut descent: Descent<'_>) -> Option<u32> {
        descent.try_fold(TOP, |node, label| self.child(node, label))
    }

    /// Enters a name with all its ancestors and returns its node.
    pub(crate) fn insert(&mut self, descent: Descent<'_>) -> u32 {
        let mut node = TOP;
        for label in descent {
            let hash = self.key(node, label);
            node = match self.probe(node, label, hash) {
                Ok(child) => child,
                Err(slot) => self.add(node, label, hash, slot),
            };
        }
        node
    }

    /// Makes it ready for many lookups, after which it doesn't grow: gives back the memory that only growing needs.
    pub(crate) fn settle(&mut self) {
        self.entries = in_huge_pages(std::mem::take(&mut self.entries));
        self.labels = in_huge_pages(std::mem::take(&mut self.labels));
        self.tags = in_huge_pages(std::mem::take(&mut self.tags));
        self.nodes = in_huge_pages(std::mem::take(&mut self.nodes));
        self.entries.shrink_to_fit();
        self.labels.shrink_to_fit();
    }

    fn add(&mut self, parent: u32, label: &[u8], hash: u64, slot: usize) -> u32 {
        let node = u32::try_from(self.entries.len()).expect("fewer than 2^32 names fit in memory");
        let place = u32::try_from(self.labels.len()).expect("fewer than 2^32 octets of labels");
        self.labels.push(u8::try_from(label.len()).expect("a label has at most 63 octets"));
        self.labels.extend_from_slice(label);
        self.entries.push(Entry { parent, label: place, hash });
        (self.tags[slot], self.nodes[slot]) = (tag(hash), node);
        if self.entries.len() * 2 > self.nodes.len() {
            self.grow();
        }
        node
    }

    fn grow(&mut self) {
        let size = self.nodes.len() * 2;
        (self.tags, self.nodes) = (vec![FREE; size], vec![NONE; size]);
        for (node, entry) in (0_u32..).zip(&self.entries).skip(1) {
            let mut at = bucket(entry.hash, size);
            while self.tags[at] != FREE {
                at = (at + 1) & (size - 1);
            }
            (self.tags[at], self.nodes[at]) = (tag(entry.hash), node);
        }
    }

    /// The node with this key, or the slot where it would stand.
    fn probe(&self, parent: u32, label: &[u8], hash: u64) -> Result<u32, usize> {
        let size = self.tags.len();
        let mut at = bucket(hash, size);
        loop {
            let found = self.tags[at];
            if found == FREE {
                return Err(at);
            }
            if found == tag(hash) {
                let node = self.nodes[at];
                let entry = &self.entries[node as usize];
                if entry.parent == parent && self.label(entry).eq_ignore_ascii_case(label) {
                    return Ok(node);
                }
            }
            at = (at + 1) & (size - 1);
        }
    }

    fn label(&self, entry: &Entry) -> &[u8] {
        let at = entry.label as usize;
        &self.labels[at + 1..=at + usize::from(self.labels[at])]
    }

    /// The hash of a key: the parent's, stirred with the label eight octets at a time. Setting bit 5 folds case; what else it
    /// folds is told apart by comparing.
    fn key(&self, parent: u32, label: &[u8]) -> u64 {
        const STIR: u64 = 0x9e37_79b9_7f4a_7c15;
        const FOLD: u64 = 0x2020_2020_2020_2020;
        let mut hash = self.entries[parent as usize].hash ^ (label.len() as u64);
        let mut stir = |word: u64| {
            hash = (hash.rotate_left(23) ^ (word | FOLD)).wrapping_mul(STIR);
            hash ^= hash >> 29;
        };
        let (words, rest) = label.as_chunks::<8>();
        for word in words {
            stir(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        stir(u64::from_le_bytes(last));
        hash
    }
}

/// The part of a hash that is kept in its place; never that of a free one.
fn tag(hash: u64) -> u8 {
    hash.to_be_bytes()[0].max(FREE + 1)
}

/// Where a hash's chain begins in a table of `size` slots, a power of two.
#[allow(clippy::cast_possible_truncation)] // only the lower bits are wanted
fn bucket(hash: u64, size: usize) -> usize {
    hash as usize & (size - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::Name;

    fn descent(name: &Name) -> Descent<'_> {
        Descent::new(name.as_ref(), 0)
    }

    #[test]
    fn names_are_found_without_regard_to_case_and_ancestors_exist() {
        let mut tree = NameTree::new();
        let name: Name = "a.b.Example".parse().expect("name");
        let node = tree.insert(descent(&name));
        assert_eq!(tree.len(), 4);
        assert_eq!(tree.find(descent(&"A.B.eXample".parse().expect("name"))), Some(node));
        assert!(tree.find(descent(&"b.example".parse().expect("name"))).is_some());
        assert_eq!(tree.find(descent(&"c.example".parse().expect("name"))), None);
        assert_eq!(tree.find(descent(&"a.b\\000.example".parse().expect("name"))), None);
    }

    #[test]
    fn it_grows() {
        let mut tree = NameTree::new();
        let names: Vec<Name> = (0..5_000).map(|n| format!("host{n}.example").parse().expect("name")).collect();
        let nodes: Vec<u32> = names.iter().map(|name| tree.insert(descent(name))).collect();
        for (name, node) in names.iter().zip(nodes) {
            assert_eq!(tree.find(descent(name)), Some(node));
            assert_eq!(tree.parent(node), tree.find(descent(&"example".parse().expect("name"))));
        }
        assert_eq!(tree.len(), 5_002);
    }
}
