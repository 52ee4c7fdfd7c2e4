//! One zone, compiled for answering: records and steered owners enter, an immutable index of names leaves, which `answer` walks per query.
//!
//! [`file`] reads master files into [`Record`]s; [`Zone::compile`] checks them as a whole and builds the index; [`Zone::locate`] finds a name in it.

mod compile;
pub mod file;
mod index;

use std::fmt;

use crate::name::{Name, NameRef};
use crate::rdata::{RdataSet, Rdatas, rtype};
use index::{NameIndex, Place};

/// Which service of the rules steers a name: its position in the compiled rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceIndex(pub u16);

/// A name whose records of some types the rules choose per client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SteeredOwner {
    /// The host name.
    pub name: Name,
    /// The service that answers for it.
    pub service: ServiceIndex,
    /// The types the service's regions publish.
    pub types: Vec<u16>,
}

/// One record of a zone and where it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The owner.
    pub owner: Name,
    /// The record type.
    pub rtype: u16,
    /// Time to live in seconds.
    pub ttl: u32,
    /// The data in wire format, names uncompressed.
    pub rdata: Box<[u8]>,
    /// Where it stands.
    pub place: Location,
}

/// A place in a master file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// The file's name as it was given.
    pub file: std::sync::Arc<str>,
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

/// Something wrong with a zone: where, what, and how to mend it. Errors keep the zone from loading, warnings don't.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("{place}: {message}")]
pub struct ZoneError {
    /// Where it stands.
    pub place: Location,
    /// What is wrong and how to mend it.
    pub message: String,
}

/// A zone that compiled, with what is odd about it.
#[derive(Debug)]
pub struct Compiled {
    /// The zone.
    pub zone: Zone,
    /// What its owner may want to mend.
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

/// A number that stands for a name of one zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodeId(u32);

/// A name that exists in a zone, perhaps only because a longer one does.
#[derive(Debug)]
struct Node {
    /// The name as first written.
    name: Name,
    /// Its static RRsets, ordered by type.
    sets: Box<[RrSet]>,
    /// The service that steers it, and the types it steers.
    steered: Option<(ServiceIndex, Box<[u16]>)>,
    /// What stands between the apex and this name, itself excluded.
    above: Above,
    /// Whether this name is delegated away: NS below the apex.
    is_cut: bool,
    /// The `*` child.
    wildcard: Option<NodeId>,
}

/// What takes authority over a name away from the zone, the topmost first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Above {
    /// Nothing: the zone answers for the name.
    Nothing,
    /// A delegation.
    Cut(NodeId),
    /// A DNAME.
    Dname(NodeId),
}

/// A compiled zone. Nothing in it changes; an update is another zone.
#[derive(Debug)]
pub struct Zone {
    origin: Name,
    nodes: Box<[Node]>,
    index: NameIndex,
    negative_ttl: u32,
    steered: Box<[SteeredOwner]>,
}

/// Where a name stands in a zone (RFC 1034 §4.3.2 step 3, RFC 4592 §3.3.1, RFC 6672 §3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// The name exists; it may be an empty non-terminal.
    Exact(NodeId),
    /// The name is made from this wildcard.
    Wildcard(NodeId),
    /// The name lies at or below this delegation.
    Cut(NodeId),
    /// The name lies below this owner of a DNAME.
    Dname(NodeId),
    /// The name doesn't exist.
    Missing,
}

/// The zones of a server, found by the longest match of a name.
#[derive(Debug, Default)]
pub struct Zones {
    // filled below
}
