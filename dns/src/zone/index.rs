//! The names of a zone as a tree in one hash table. Names are inserted when a zone is loaded. For each query, `zone`
//! walks down the tree label by label, without allocating.
//!
//! The key of a name is the number of its parent and its first label in lower case. Ancestors are inserted with their
//! descendants, so empty non-terminals exist (RFC 4592 §2.2.2).
//!
//! Most of a large zone isn't in a core's cache. So a name and its value fit into one cache line. The memory that a
//! lookup reads can be prefetched for many names at once: first with [`NameTree::expect`], then with
//! [`NameTree::approach`].

use bailiwick_host::system::batch::{in_huge_pages, prefetch};

use crate::protocol::name::{MAX_LABELS, NameRef, case, label_at, label_starts};

/// The number of the top of the tree.
pub(crate) const TOP: u32 = 0;
/// The number that means no node.
const NONE: u32 = u32::MAX;

/// The tag of a free slot.
const FREE: u8 = 0;

/// The longest label that is stored in its node, in octets.
const SHORT: usize = 31;

/// A name: its parent, its first label and its value.
#[derive(Debug)]
#[repr(align(64))] // a cache line, if `value` has at most 20 octets
struct Node<T> {
    hash: u64,
    parent: u32,
    length: u8,
    /// The label; for a label longer than [`SHORT`], its offset in `labels`.
    label: [u8; SHORT],
    value: T,
}

/// Names below one top, numbered from [`TOP`] in the order of their insertion.
#[derive(Debug)]
pub(crate) struct NameTree<T> {
    nodes: Vec<Node<T>>,
    /// Labels that are too long to be stored in their nodes, one after the other.
    labels: Vec<u8>,
    /// For each slot of the hash table, the upper octet of the key's hash. The tags are read first. They are separate
    /// from the numbers, so that looking up a missing name reads little memory.
    tags: Vec<u8>,
    /// For each slot of the hash table, the number of the node.
    numbers: Vec<u32>,
}

/// The labels of a name below the top, from the top downwards.
pub(crate) struct Descent<'n> {
    wire: &'n [u8],
    starts: [u8; MAX_LABELS],
    left: usize,
}

impl<'n> Descent<'n> {
    /// The labels of `name` without its last `skip` labels, which are the labels of the top.
    pub(crate) fn new(name: NameRef<'n>, skip: usize) -> Self {
        let (starts, count) = label_starts(name);
        Self { wire: name.as_wire(), starts, left: count.saturating_sub(skip) }
    }

    /// The labels in `labels`, which are below a top and have no root label.
    pub(crate) fn of_labels(labels: &'n [u8]) -> Self {
        let mut descent = Self { wire: labels, starts: [0; MAX_LABELS], left: 0 };
        let mut at = 0_u8;
        while let Some(length) = labels.get(usize::from(at)) {
            descent.starts[descent.left] = at;
            descent.left += 1;
            at += length + 1;
        }
        descent
    }
}

impl<'n> Iterator for Descent<'n> {
    type Item = &'n [u8];

    fn next(&mut self) -> Option<&'n [u8]> {
        self.left = self.left.checked_sub(1)?;
        Some(label_at(self.wire, self.starts[self.left]))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Descent<'_> {}

impl<T: Default> NameTree<T> {
    /// A tree that has only the top.
    pub(crate) fn new() -> Self {
        let top = Node { hash: 0, parent: NONE, length: 0, label: [0; SHORT], value: T::default() };
        Self { nodes: vec![top], labels: Vec::new(), tags: vec![FREE; 16], numbers: vec![NONE; 16] }
    }

    /// Inserts a name with all its ancestors, and returns the number of its node.
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

    /// Prepares the tree for many lookups, after the last insertion: moves it to huge pages and frees unused capacity.
    pub(crate) fn settle(&mut self) {
        self.nodes = in_huge_pages(std::mem::take(&mut self.nodes));
        self.tags = in_huge_pages(std::mem::take(&mut self.tags));
        self.numbers = in_huge_pages(std::mem::take(&mut self.numbers));
        self.nodes.shrink_to_fit();
        self.labels.shrink_to_fit();
    }

    /// Adds a node below `parent`. `slot` is its free place in the hash table.
    fn add(&mut self, parent: u32, label: &[u8], hash: u64, slot: usize) -> u32 {
        let number = u32::try_from(self.nodes.len()).expect("fewer than 2^32 names fit in memory");
        let length = u8::try_from(label.len()).expect("a label has at most 63 octets");
        let mut node = Node { hash, parent, length, label: [0; SHORT], value: T::default() };
        match node.label.get_mut(..label.len()) {
            Some(room) => room.copy_from_slice(label),
            None => {
                let place = u32::try_from(self.labels.len()).expect("fewer than 2^32 octets of long labels");
                node.label[..4].copy_from_slice(&place.to_ne_bytes());
                self.labels.extend_from_slice(label);
            }
        }
        self.nodes.push(node);
        (self.tags[slot], self.numbers[slot]) = (tag(hash), number);
        if self.nodes.len() * 2 > self.numbers.len() {
            self.grow();
        }
        number
    }

    /// Doubles the hash table.
    fn grow(&mut self) {
        let size = self.numbers.len() * 2;
        (self.tags, self.numbers) = (vec![FREE; size], vec![NONE; size]);
        for (number, node) in (0_u32..).zip(&self.nodes).skip(1) {
            let mut at = bucket(node.hash, size);
            while self.tags[at] != FREE {
                at = (at + 1) & (size - 1);
            }
            (self.tags[at], self.numbers[at]) = (tag(node.hash), number);
        }
    }
}

impl<T> NameTree<T> {
    /// How many names there are, the top included.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The value of a node.
    pub(crate) fn value(&self, node: u32) -> &T {
        &self.nodes[node as usize].value
    }

    /// The value of a node, to be changed.
    pub(crate) fn value_mut(&mut self, node: u32) -> &mut T {
        &mut self.nodes[node as usize].value
    }

    /// The values of all nodes, in the order of their numbers.
    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.nodes.iter().map(|node| &node.value)
    }

    /// The parent of a node; `None` for the top.
    pub(crate) fn parent(&self, node: u32) -> Option<u32> {
        let parent = self.nodes[node as usize].parent;
        (parent != NONE).then_some(parent)
    }

    /// The first label of a node below the top; empty for the top.
    pub(crate) fn label_of(&self, node: u32) -> &[u8] {
        self.label(&self.nodes[node as usize])
    }

    /// The child of `parent` with this label.
    pub(crate) fn child(&self, parent: u32, label: &[u8]) -> Option<u32> {
        self.child_of_key(parent, label, self.key(parent, label))
    }

    /// The child of `parent` with this label, if the hash of its key is known.
    pub(crate) fn child_of_key(&self, parent: u32, label: &[u8], key: u64) -> Option<u32> {
        self.probe(parent, label, key).ok()
    }

    /// The node of a name, walking down from the top.
    pub(crate) fn find(&self, mut descent: Descent<'_>) -> Option<u32> {
        descent.try_fold(TOP, |node, label| self.child(node, label))
    }

    /// The hash of a key: the parent's hash, mixed with the label.
    pub(crate) fn key(&self, parent: u32, label: &[u8]) -> u64 {
        case::hash(label, self.nodes[parent as usize].hash)
    }

    /// Starts to load the hash table's slot for this key from memory, without waiting.
    pub(crate) fn expect(&self, key: u64) {
        let at = bucket(key, self.tags.len());
        prefetch(&self.tags[at]);
        prefetch(&self.numbers[at]);
    }

    /// Starts to load the node that probably has this key from memory, and returns its number. `None` if no node has
    /// it.
    pub(crate) fn approach(&self, key: u64) -> Option<u32> {
        let mut at = bucket(key, self.tags.len());
        while self.tags[at] != tag(key) {
            if self.tags[at] == FREE {
                return None;
            }
            at = (at + 1) & (self.tags.len() - 1);
        }
        prefetch(&self.nodes[self.numbers[at] as usize]);
        Some(self.numbers[at])
    }

    /// The node with this key, or the free slot for it.
    fn probe(&self, parent: u32, label: &[u8], hash: u64) -> Result<u32, usize> {
        let size = self.tags.len();
        let mut at = bucket(hash, size);
        loop {
            let tag_at = self.tags[at];
            if tag_at == FREE {
                return Err(at);
            }
            if tag_at == tag(hash) {
                let number = self.numbers[at];
                let node = &self.nodes[number as usize];
                if node.parent == parent && case::same(self.label(node), label) {
                    return Ok(number);
                }
            }
            at = (at + 1) & (size - 1);
        }
    }

    /// The label of a node. Long labels are stored apart from the node.
    fn label<'t>(&'t self, node: &'t Node<T>) -> &'t [u8] {
        let length = usize::from(node.length);
        node.label.get(..length).unwrap_or_else(|| {
            let [a, b, c, d, ..] = node.label;
            let at = u32::from_ne_bytes([a, b, c, d]) as usize;
            &self.labels[at..at + length]
        })
    }
}

/// The part of a hash that is kept as the tag of a slot; never [`FREE`].
fn tag(hash: u64) -> u8 {
    hash.to_be_bytes()[0].max(FREE + 1)
}

/// The first slot to look into for a hash. The table has `size` slots, which is a power of two.
#[allow(clippy::cast_possible_truncation)] // only the lower bits are wanted
fn bucket(hash: u64, size: usize) -> usize {
    hash as usize & (size - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::name::Name;

    fn descent(name: &Name) -> Descent<'_> {
        Descent::new(name.as_ref(), 0)
    }

    #[test]
    fn names_are_found_without_regard_to_case_and_ancestors_exist() {
        let mut tree = NameTree::<()>::new();
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
        let mut tree = NameTree::<u32>::new();
        let names: Vec<Name> =
            (0..5_000).map(|n| format!("host{n}{}.example", "-".repeat(n % 56)).parse().expect("name")).collect();
        let nodes: Vec<u32> = names.iter().map(|name| tree.insert(descent(name))).collect();
        for (name, node) in names.iter().zip(nodes) {
            assert_eq!(tree.find(descent(name)), Some(node));
            assert_eq!(tree.parent(node), tree.find(descent(&"example".parse().expect("name"))));
            assert_eq!(tree.label_of(node), name.as_ref().labels().next().expect("a label"));
        }
        assert_eq!(tree.len(), 5_002);
    }

    #[test]
    fn a_prefetched_node_is_the_node_that_is_found() {
        let mut tree = NameTree::<u32>::new();
        let labels: Vec<String> = (0..1_000).map(|n| format!("host{n}")).collect();
        for label in &labels {
            tree.insert(descent(&label.parse().expect("name")));
        }
        for label in &labels {
            let key = tree.key(TOP, label.as_bytes());
            tree.expect(key);
            assert!(tree.approach(key).is_some());
            assert_eq!(tree.child_of_key(TOP, label.as_bytes(), key), tree.child(TOP, label.as_bytes()));
        }
        let strangers = (0..1_000).filter(|n| tree.approach(tree.key(TOP, format!("guest{n}").as_bytes())).is_some());
        assert!(strangers.count() < 50, "few missing names are taken for existing ones");
    }
}
