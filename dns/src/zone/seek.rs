//! A lookup in one zone, in three steps: [`Zone::key`], [`Zone::approach`] and [`Zone::locate_by`]. Takes a name,
//! returns the same as [`Zone::locate`]. Each step starts to load the memory that the next step reads. So the steps of
//! many lookups can overlap. Called by `zones::seek`.

use bailiwick_host::system::batch::prefetch;

use super::index::Descent;
use super::{LookupResult, NodeId, Zone};
use crate::protocol::name::{NameRef, case};

/// The key of a name in the index of its zone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    hash: u64,
    /// How many octets the name's labels below the apex have.
    below: u8,
}

impl Key {
    /// The name's labels below the apex, in wire format without a root label.
    pub(crate) fn labels<'n>(&self, name: NameRef<'n>) -> &'n [u8] {
        &name.as_wire()[..usize::from(self.below)]
    }
}

impl Zone {
    /// The first step: the name's key, if the name lies in the zone.
    #[inline]
    pub(crate) fn key(&self, name: NameRef<'_>) -> Option<Key> {
        let labels = name.strip_suffix(self.origin())?;
        let hash = match only_label(labels) {
            Some(label) => case::hash(label, 0),
            None => Descent::of_labels(labels).fold(0, |hash, label| case::hash(label, hash)),
        };
        self.tree.expect(hash);
        Some(Key { hash, below: u8::try_from(labels.len()).ok()? })
    }

    /// The second step: starts to load the node, if the index seems to have one.
    #[inline]
    pub(crate) fn approach(&self, key: Key) {
        self.tree.approach(key.hash);
    }

    /// The third step: finds the name as [`Zone::locate`] does. Starts to load its records.
    #[inline]
    pub(crate) fn locate_by(&self, key: Key, name: NameRef<'_>) -> LookupResult {
        let labels = key.labels(name);
        let result = match only_label(labels) {
            Some(label) => self.descend([label].into_iter(), |at, label| self.tree.child_of_key(at, label, key.hash)),
            None => self.descend(Descent::of_labels(labels), |at, label| self.tree.child(at, label)),
        };
        if let LookupResult::Exact(NodeId(node)) = result
            && let Some(set) = self.sets.get(self.tree.value(node).sets.0 as usize)
        {
            prefetch(set);
        }
        result
    }
}

/// The label, if there is exactly one.
fn only_label(labels: &[u8]) -> Option<&[u8]> {
    let (length, rest) = labels.split_first()?;
    (rest.len() == usize::from(*length)).then_some(rest)
}
