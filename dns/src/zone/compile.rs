//! Compiles a zone. Takes all records and steered owners, returns the checked index or every error. Called by
//! `Zone::compile`. A steered name is one whose records the rules decide.

mod checks;

use std::collections::HashMap;
use std::sync::Arc;

use bailiwick_host::system::batch::in_huge_pages;
use smallvec::{SmallVec, smallvec};

use super::index::{Descent, NameTree, TOP};
use super::records::{At, Records};
use super::{CompactIndex, Compiled, Location, Node, RrSet, SteeredOwner, Zone, ZoneError};
use crate::protocol::name::Name;
use crate::protocol::rdata::{RdataSet, rtype};

/// Compiles a zone; see [`Zone::compile`].
pub(super) fn compile(origin: &Name, records: &Records, steered: &[SteeredOwner]) -> Result<Compiled, Vec<ZoneError>> {
    let mut build = Build::new(origin, records);
    build.gather();
    build.check_apex();
    build.check_names();
    build.steer(steered);
    build.check_delegations();
    if build.errors.is_empty() { Ok(build.finish()) } else { Err(sorted(build.errors)) }
}

fn sorted(mut errors: Vec<ZoneError>) -> Vec<ZoneError> {
    errors.sort();
    errors.dedup();
    errors
}

/// The records of one owner and type, by their positions in [`Records`].
struct Group {
    node: u32,
    rtype: u16,
    /// Most groups have one member, which needs no allocation.
    members: SmallVec<[At; 1]>,
}

struct Build<'r> {
    origin: &'r Name,
    depth: usize,
    records: &'r Records,
    tree: NameTree<Node>,
    /// Ordered by node, then type.
    groups: Vec<Group>,
    steered: Vec<SteeredOwner>,
    errors: Vec<ZoneError>,
    warnings: Vec<ZoneError>,
}

impl<'r> Build<'r> {
    fn new(origin: &'r Name, records: &'r Records) -> Self {
        Self {
            origin,
            depth: origin.as_ref().labels().count(),
            records,
            tree: NameTree::new(),
            groups: Vec::new(),
            steered: Vec::new(),
            errors: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// The location of an error that concerns the whole zone.
    fn whole(&self) -> Location {
        let file = self
            .records
            .iter()
            .next()
            .map_or_else(|| Arc::from(self.origin.to_string()), |record| Arc::clone(record.file));
        Location { file, line: 0 }
    }

    fn error(&mut self, place: Location, message: String) {
        self.errors.push(ZoneError { place, message });
    }

    fn error_at(&mut self, record: At, message: String) {
        self.error(self.records.get(record).place(), message);
    }

    fn warn_at(&mut self, record: At, message: String) {
        self.warnings.push(ZoneError { place: self.records.get(record).place(), message });
    }

    /// Enters every name and groups the records by owner and type.
    fn gather(&mut self) {
        let mut keyed = Vec::with_capacity(self.records.len());
        for (at, record) in self.records.placed() {
            if !record.owner.is_within(self.origin.as_ref()) {
                self.error_at(
                    at,
                    format!(
                        "{} lies outside the zone {}; move it to its own zone's file or mend $ORIGIN",
                        record.owner, self.origin
                    ),
                );
                continue;
            }
            let node = self.tree.insert(Descent::new(record.owner, self.depth));
            keyed.push((node, record.rtype, at));
        }
        keyed.sort_unstable();
        for (node, rtype, at) in keyed {
            match self.groups.last_mut() {
                Some(group) if (group.node, group.rtype) == (node, rtype) => group.members.push(at),
                _ => self.groups.push(Group { node, rtype, members: smallvec![at] }),
            }
        }
        self.link_nodes();
    }

    /// Stores in each node what a lookup needs to know about the node.
    fn link_nodes(&mut self) {
        for (at, group) in (0_u32..).zip(&self.groups) {
            let node = self.tree.value_mut(group.node);
            if node.sets.1 == 0 {
                node.sets.0 = at;
            }
            node.sets.1 += 1;
            node.is_cut |= group.rtype == rtype::NS && group.node != TOP;
            node.is_dname |= group.rtype == rtype::DNAME;
        }
        self.link_wildcards();
    }

    /// Notes at each node whether it has a wildcard below it.
    fn link_wildcards(&mut self) {
        for node in 0..u32::try_from(self.tree.len()).unwrap_or(u32::MAX) {
            if let Some(parent) = self.tree.parent(node)
                && self.tree.label_of(node) == b"*"
            {
                self.tree.value_mut(parent).wildcard = CompactIndex::new(node);
            }
        }
    }

    fn groups_of(&self, node: u32) -> &[Group] {
        let (first, count) = self.tree.value(node).sets;
        &self.groups[first as usize..(first + count) as usize]
    }

    fn group(&self, node: u32, rtype: u16) -> Option<&Group> {
        self.groups_of(node).iter().find(|group| group.rtype == rtype)
    }

    /// The topmost delegation or DNAME above a node.
    fn covered_by(&self, node: u32) -> Option<(u32, &'static str)> {
        let mut covering = None;
        let mut at = node;
        while let Some(parent) = self.tree.parent(at) {
            let above = self.tree.value(parent);
            if above.is_cut {
                covering = Some((parent, "delegation"));
            } else if above.is_dname {
                covering = Some((parent, "DNAME"));
            }
            at = parent;
        }
        covering
    }

    fn least_ttl(&self, group: &Group) -> u32 {
        group.members.iter().map(|&at| self.records.get(at).ttl).min().unwrap_or(0)
    }

    /// Enters the steered owners and checks them against the static records.
    fn steer(&mut self, steered: &[SteeredOwner]) {
        let file: Arc<str> = Arc::from("rules");
        let mut owners: HashMap<&Name, &SteeredOwner> = HashMap::new();
        let mut accepted = Vec::new();
        for owner in steered {
            let place = Location { file: Arc::clone(&file), line: 0 };
            let name = &owner.name;
            if !name.as_ref().is_within(self.origin.as_ref()) {
                self.error(place, format!("the host {name} lies outside the zone {}", self.origin));
                continue;
            }
            if let Some(other) = owners.insert(name, owner) {
                if other.service != owner.service {
                    self.error(place, format!("the host {name} is named by two services; leave it to one"));
                }
                continue;
            }
            let node = self.tree.insert(Descent::new(name.as_ref(), self.depth));
            for message in self.steering_conflicts(node, owner) {
                self.error(place.clone(), message);
            }
            self.tree.value_mut(node).steered = u32::try_from(accepted.len()).ok().and_then(CompactIndex::new);
            accepted.push(owner.clone());
        }
        self.steered = accepted;
        self.link_wildcards();
    }

    /// Builds the zone from the records that were added.
    fn finish(mut self) -> Compiled {
        let sets: Vec<RrSet> = self
            .groups
            .iter()
            .map(|group| RrSet {
                rtype: group.rtype,
                ttl: self.least_ttl(group),
                rdatas: RdataSet::new(group.rtype, group.members.iter().map(|&at| self.records.get(at).rdata)),
            })
            .collect();
        self.tree.settle();
        let mut zone = Zone {
            origin: self.origin.clone(),
            depth: self.depth,
            tree: Arc::new(self.tree),
            sets: Arc::new(in_huge_pages(sets).into()),
            steered: self.steered.into(),
            negative_ttl: 0,
        };
        zone.negative_ttl = zone.set(zone.apex(), rtype::SOA).map_or(0, |soa| {
            let minimum = soa.rdatas.as_ref().first().and_then(|rdata| rdata.last_chunk::<4>());
            soa.ttl.min(minimum.map_or(0, |minimum| u32::from_be_bytes(*minimum)))
        });
        Compiled { zone, warnings: sorted(self.warnings) }
    }
}

#[cfg(test)]
mod tests;
