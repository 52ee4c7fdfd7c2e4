//! One zone. Takes its records and steered owners (names whose records depend on the client), returns a [`Zone`]: an
//! immutable index of its names. Called by the snapshot's world, which compiles every zone, and by `response::answer`,
//! which looks up the name of each query.
//!
//! [`mod@file`] reads master files into [`Records`]; [`Zone::compile`] checks them as a whole and builds the index;
//! [`Zone::locate`] finds a name in it.

mod authority;
mod compile;
pub mod file;
pub(crate) mod index;
mod records;
mod seek;

use std::fmt;
use std::num::NonZero;
use std::sync::Arc;

pub use bailiwick_rules::table::ServiceIndex;

use crate::protocol::name::{Name, NameRef};
use crate::protocol::rdata::RdataSet;
use index::{Descent, NameTree, TOP};
pub use records::{Record, Records};
pub(crate) use seek::Key;

/// A name for which the rules choose the records of some types per client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SteeredOwner {
    /// The host name.
    pub name: Name,
    /// The service of this host name.
    pub service: ServiceIndex,
    /// The record types that the service's regions publish.
    pub types: Vec<u16>,
}

/// A place in a master file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// The file's name as it was given.
    pub file: Arc<str>,
    /// The line, counted from 1; 0 stands for the file as a whole.
    pub line: u32,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{}:{line}", self.file),
        }
    }
}

/// An error or a warning about a zone: the place, the mistake, and how to mend it. A zone with an error isn't loaded.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("{place}: {message}")]
pub struct ZoneError {
    /// The place of the mistake.
    pub place: Location,
    /// What is wrong and how to mend it.
    pub message: String,
}

/// A compiled zone and the warnings about it.
#[derive(Debug)]
pub struct Compiled {
    /// The zone.
    pub zone: Zone,
    /// Probable mistakes that don't keep the zone from loading.
    pub warnings: Vec<ZoneError>,
}

/// The records of one owner and type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RrSet {
    /// The type.
    pub rtype: u16,
    /// Time to live in seconds.
    pub ttl: u32,
    /// The data.
    pub rdatas: RdataSet,
}

/// The number of a name within one zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(u32);

/// A name that exists in a zone. It may be an empty non-terminal: only names below it have records.
#[derive(Debug, Clone, Copy, Default)]
struct Node {
    /// The index of the name's first static RRset, and the number of its static RRsets.
    sets: (u32, u32),
    /// The name's index in [`Zone::steered`], if a service steers it.
    steered: Option<CompactIndex>,
    /// The child `*`.
    wildcard: Option<CompactIndex>,
    /// Whether the name is a delegation (NS below the apex). The zone has no authority for it and the names below.
    is_cut: bool,
    /// Whether the name has a DNAME, which redirects the names below it.
    is_dname: bool,
}

/// A number that is stored inverted, so that `Option<CompactIndex>` is as small as a `u32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct CompactIndex(NonZero<u32>);

impl CompactIndex {
    /// Stores a number. `None` for the highest `u32`, which is no index of a node or a steered owner.
    fn new(number: u32) -> Option<Self> {
        NonZero::new(!number).map(Self)
    }

    fn get(self) -> u32 {
        !self.0.get()
    }
}

/// A compiled zone. It never changes; an update makes a new one. Copies share its large parts.
#[derive(Debug, Clone)]
pub struct Zone {
    origin: Name,
    /// How many labels the origin has.
    depth: usize,
    tree: Arc<NameTree<Node>>,
    /// The static RRsets, sorted by node number and type.
    sets: Arc<Box<[RrSet]>>,
    steered: Arc<[SteeredOwner]>,
    negative_ttl: u32,
}

/// The result of looking a name up in a zone (RFC 1034 §4.3.2 step 3, RFC 4592 §3.3.1, RFC 6672 §3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookupResult {
    /// The name exists; it may be an empty non-terminal.
    Exact(NodeId),
    /// The name doesn't exist, and this wildcard answers for it.
    Wildcard(NodeId),
    /// The name lies at or below a delegation.
    Cut {
        /// The delegation.
        node: NodeId,
        /// How many labels of the name lie below the delegation; 0 is the delegation itself.
        below: usize,
    },
    /// The name lies below the owner of a DNAME.
    Dname {
        /// The DNAME's owner.
        node: NodeId,
        /// How many labels of the name lie below the DNAME's owner.
        below: usize,
    },
    /// The name doesn't exist.
    Missing,
}

impl Zone {
    /// Checks `records` and the steered owners as a whole and builds the index.
    ///
    /// # Errors
    /// All errors that keep the zone from being served, each with its place in a file.
    pub fn compile(origin: &Name, records: &Records, steered: &[SteeredOwner]) -> Result<Compiled, Vec<ZoneError>> {
        compile::compile(origin, records, steered)
    }

    /// The name of the apex.
    pub fn origin(&self) -> NameRef<'_> {
        self.origin.as_ref()
    }

    /// How many labels the name of the apex has.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// How long a negative answer may be cached, in seconds: the lesser of the SOA's TTL and its minimum field
    /// (RFC 2308 §5).
    pub fn negative_ttl(&self) -> u32 {
        self.negative_ttl
    }

    /// How many names exist, empty non-terminals included.
    pub fn name_count(&self) -> usize {
        self.tree.len()
    }

    /// The apex's node.
    pub fn apex(&self) -> NodeId {
        NodeId(TOP)
    }

    /// Looks up `name`, which must lie within the zone. Walks from the apex down, so the delegation or DNAME nearest to
    /// the apex decides.
    pub fn locate(&self, name: NameRef<'_>) -> LookupResult {
        self.descend(Descent::new(name, self.depth), |at, label| self.tree.child(at, label))
    }

    /// Does the work of [`Zone::locate`]. `labels` are those below the apex, the topmost first; `child` finds a node's
    /// child by its label.
    fn descend<'n>(
        &self,
        mut labels: impl ExactSizeIterator<Item = &'n [u8]>,
        child: impl Fn(u32, &[u8]) -> Option<u32>,
    ) -> LookupResult {
        let mut at = TOP;
        loop {
            let node = self.tree.value(at);
            let below = labels.len();
            if node.is_cut {
                return LookupResult::Cut { node: NodeId(at), below };
            }
            if node.is_dname && below > 0 {
                return LookupResult::Dname { node: NodeId(at), below };
            }
            let Some(label) = labels.next() else {
                return LookupResult::Exact(NodeId(at));
            };
            match child(at, label) {
                Some(child) => at = child,
                // `at` is the closest encloser; only its own wildcard counts (RFC 4592 §3.3.1).
                None => {
                    return node
                        .wildcard
                        .map_or(LookupResult::Missing, |wildcard| LookupResult::Wildcard(NodeId(wildcard.get())));
                }
            }
        }
    }

    /// The node of a name, even if the zone has no authority over it, as with glue (addresses of name servers below a
    /// delegation).
    pub fn glue(&self, name: NameRef<'_>) -> Option<NodeId> {
        if !name.is_within(self.origin()) {
            return None;
        }
        self.tree.find(Descent::new(name, self.depth)).map(NodeId)
    }

    /// The static RRsets of a name, ordered by type.
    pub fn sets(&self, node: NodeId) -> &[RrSet] {
        let (first, count) = self.tree.value(node.0).sets;
        &self.sets[first as usize..(first + count) as usize]
    }

    /// The static RRset of a name and type.
    pub fn set(&self, node: NodeId, rtype: u16) -> Option<&RrSet> {
        self.sets(node).iter().find(|set| set.rtype == rtype)
    }

    /// The steered owner at a name, if a service steers it.
    pub fn steered(&self, node: NodeId) -> Option<&SteeredOwner> {
        self.tree.value(node.0).steered.map(|at| &self.steered[at.get() as usize])
    }
}
