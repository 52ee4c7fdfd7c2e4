//! From records to a zone: all records and steered owners of one zone enter, the checked index or every error leaves; `Zone::compile` calls it.

use std::collections::HashMap;
use std::sync::Arc;

use super::index::{Descent, NameTree, TOP};
use super::{Compiled, Location, Node, Record, RrSet, SteeredOwner, Zone, ZoneError};
use crate::name::{Name, NameRef};
use crate::rdata::{RdataSet, rtype, target};

/// Compiles a zone; see [`Zone::compile`].
pub(super) fn compile(origin: &Name, records: &[Record], steered: &[SteeredOwner]) -> Result<Compiled, Vec<ZoneError>> {
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

/// The records of one owner and type, as positions in the zone's records.
struct Group {
    node: u32,
    rtype: u16,
    members: Vec<usize>,
}

struct Build<'r> {
    origin: &'r Name,
    depth: usize,
    records: &'r [Record],
    tree: NameTree,
    /// Ordered by node, then type.
    groups: Vec<Group>,
    nodes: Vec<Node>,
    steered: Vec<SteeredOwner>,
    errors: Vec<ZoneError>,
    warnings: Vec<ZoneError>,
}

impl<'r> Build<'r> {
    fn new(origin: &'r Name, records: &'r [Record]) -> Self {
        Self {
            origin,
            depth: origin.as_ref().labels().count(),
            records,
            tree: NameTree::new(),
            groups: Vec::new(),
            nodes: Vec::new(),
            steered: Vec::new(),
            errors: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Where an error about the zone as a whole stands.
    fn whole(&self) -> Location {
        let file = self
            .records
            .first()
            .map_or_else(|| Arc::from(self.origin.to_string()), |record| Arc::clone(&record.place.file));
        Location { file, line: 0 }
    }

    fn error(&mut self, place: Location, message: String) {
        self.errors.push(ZoneError { place, message });
    }

    fn error_at(&mut self, record: usize, message: String) {
        self.error(self.records[record].place.clone(), message);
    }

    fn warn_at(&mut self, record: usize, message: String) {
        self.warnings.push(ZoneError { place: self.records[record].place.clone(), message });
    }

    /// Enters every name and groups the records by owner and type.
    fn gather(&mut self) {
        let mut keyed = Vec::with_capacity(self.records.len());
        for (at, record) in self.records.iter().enumerate() {
            if !record.owner.as_ref().is_within(self.origin.as_ref()) {
                self.error_at(
                    at,
                    format!(
                        "{} lies outside the zone {}; move it to its own zone's file or mend $ORIGIN",
                        record.owner, self.origin
                    ),
                );
                continue;
            }
            let node = self.tree.insert(Descent::new(record.owner.as_ref(), self.depth));
            keyed.push((node, record.rtype, at));
        }
        keyed.sort_unstable();
        for (node, rtype, at) in keyed {
            match self.groups.last_mut() {
                Some(group) if (group.node, group.rtype) == (node, rtype) => group.members.push(at),
                _ => self.groups.push(Group { node, rtype, members: vec![at] }),
            }
        }
        self.link_nodes();
    }

    /// Makes the nodes and what the lookup needs to know of each.
    fn link_nodes(&mut self) {
        self.nodes = vec![Node::default(); self.tree.len()];
        for (at, group) in (0_u32..).zip(&self.groups) {
            let node = &mut self.nodes[group.node as usize];
            if node.sets.1 == 0 {
                node.sets.0 = at;
            }
            node.sets.1 += 1;
            node.is_cut |= group.rtype == rtype::NS && group.node != TOP;
            node.is_dname |= group.rtype == rtype::DNAME;
        }
        self.link_wildcards();
    }

    fn link_wildcards(&mut self) {
        for node in 0..u32::try_from(self.nodes.len()).unwrap_or(u32::MAX) {
            if let Some(parent) = self.tree.parent(node)
                && self.tree.label_of(node) == b"*"
            {
                self.nodes[parent as usize].wildcard = Some(node);
            }
        }
    }

    fn groups_of(&self, node: u32) -> &[Group] {
        let (first, count) = self.nodes[node as usize].sets;
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
            let above = &self.nodes[parent as usize];
            if above.is_cut {
                covering = Some((parent, "delegation"));
            } else if above.is_dname {
                covering = Some((parent, "DNAME"));
            }
            at = parent;
        }
        covering
    }

    /// One SOA and at least one NS at the apex, no SOA elsewhere (RFC 1035 §5.2, RFC 2181 §6.1).
    fn check_apex(&mut self) {
        let misplaced: Vec<usize> = self
            .groups
            .iter()
            .filter(|group| group.rtype == rtype::SOA && group.node != TOP)
            .flat_map(|group| group.members.clone())
            .collect();
        for at in misplaced {
            let owner = &self.records[at].owner;
            self.error_at(
                at,
                format!("the SOA of {owner} is not at the apex {}; a zone has one SOA, at its apex", self.origin),
            );
        }
        match self.group(TOP, rtype::SOA).map(|group| group.members.clone()) {
            None => self.error(self.whole(), format!("the zone {} has no SOA; add one at its apex", self.origin)),
            Some(members) => {
                for &extra in &members[1..] {
                    let first = self.records[members[0]].place.clone();
                    self.error_at(extra, format!("a second SOA; the first stands at {first}, keep one of them"));
                }
            }
        }
        if self.group(TOP, rtype::NS).is_none() {
            self.error(
                self.whole(),
                format!("the zone {} has no NS at its apex; name at least one server", self.origin),
            );
        }
    }

    /// What may stand beside what, name by name.
    fn check_names(&mut self) {
        for node in 0..u32::try_from(self.nodes.len()).unwrap_or(u32::MAX) {
            if self.nodes[node as usize].sets.1 > 0 {
                self.check_singletons(node);
                self.check_neighbours(node);
                self.check_dname(node);
                self.check_authority(node);
                self.check_ttls(node);
            }
        }
    }

    /// One CNAME and one DNAME at most (RFC 2181 §10.1, RFC 6672 §2.4).
    fn check_singletons(&mut self, node: u32) {
        for (rtype, word) in [(rtype::CNAME, "CNAME"), (rtype::DNAME, "DNAME")] {
            let Some(group) = self.group(node, rtype) else {
                continue;
            };
            let members = group.members.clone();
            let rdatas = RdataSet::new(rtype, members.iter().map(|&at| &*self.records[at].rdata));
            if rdatas.as_ref().iter().count() > 1 {
                for &extra in &members[1..] {
                    let (owner, first) = (&self.records[extra].owner, &self.records[members[0]].place);
                    self.error_at(
                        extra,
                        format!("{owner} has a second {word}; the first stands at {first}, keep one of them"),
                    );
                }
            }
        }
    }

    /// A CNAME stands alone but for what signs it (RFC 1034 §3.6.2, RFC 4034 §3 and §4); a DNAME doesn't stand at a delegation (RFC 6672 §2.3).
    fn check_neighbours(&mut self, node: u32) {
        if let Some(cname) = self.group(node, rtype::CNAME) {
            let cname = cname.members[0];
            let beside = self
                .groups_of(node)
                .iter()
                .find(|group| !matches!(group.rtype, rtype::CNAME | rtype::RRSIG | rtype::NSEC))
                .map(|group| group.members[0]);
            if let Some(other) = beside {
                let (owner, place) = (&self.records[cname].owner, &self.records[other].place);
                self.error_at(cname, format!("the CNAME of {owner} stands beside other data ({place}); a CNAME stands alone, remove one of them"));
            }
        }
        if self.nodes[node as usize].is_cut
            && let Some(dname) = self.group(node, rtype::DNAME).map(|group| group.members[0])
        {
            let owner = &self.records[dname].owner;
            self.error_at(dname, format!("{owner} has both NS and DNAME; below the apex keep one of them"));
        }
    }

    /// A DNAME to a name below itself never ends.
    fn check_dname(&mut self, node: u32) {
        let endless = self.group(node, rtype::DNAME).map(|group| group.members[0]).filter(|&at| {
            let record = &self.records[at];
            target(rtype::DNAME, &record.rdata).is_some_and(|target| target.is_within(record.owner.as_ref()))
        });
        if let Some(at) = endless {
            let owner = &self.records[at].owner;
            self.warn_at(at, format!("the DNAME of {owner} leads below itself and never ends; name another place"));
        }
    }

    /// Data that is never served because its name belongs to another zone, or has moved (RFC 6672 §2.4).
    fn check_authority(&mut self, node: u32) {
        let Some((above, kind)) = self.covered_by(node) else {
            return;
        };
        let hidden: Vec<usize> = self
            .groups_of(node)
            .iter()
            .filter(|group| kind == "DNAME" || !matches!(group.rtype, rtype::A | rtype::AAAA))
            .map(|group| group.members[0])
            .collect();
        let rtype = if kind == "DNAME" { rtype::DNAME } else { rtype::NS };
        let Some(place) = self.group(above, rtype).map(|group| self.records[group.members[0]].place.clone()) else {
            return;
        };
        for at in hidden {
            let owner = &self.records[at].owner;
            if kind == "DNAME" {
                self.error_at(
                    at,
                    format!("{owner} lies below the DNAME at {place} and can't be served; remove one of them"),
                );
            } else {
                self.warn_at(
                    at,
                    format!("{owner} lies below the delegation at {place} and is never served; move it to that zone"),
                );
            }
        }
    }

    /// One RRset has one TTL (RFC 2181 §5.2); the least is taken.
    fn check_ttls(&mut self, node: u32) {
        let differing: Vec<(usize, u32)> = self
            .groups_of(node)
            .iter()
            .filter_map(|group| {
                let least = self.least_ttl(group);
                group.members.iter().find(|&&at| self.records[at].ttl != least).map(|&at| (at, least))
            })
            .collect();
        for (at, least) in differing {
            let (owner, ttl) = (&self.records[at].owner, self.records[at].ttl);
            self.warn_at(at, format!("{owner} has records of one type with TTLs {ttl} and {least}; {least} is served, write it on all of them"));
        }
    }

    fn least_ttl(&self, group: &Group) -> u32 {
        group.members.iter().map(|&at| self.records[at].ttl).min().unwrap_or(0)
    }

    /// Enters the steered owners and checks them against the static records.
    fn steer(&mut self, steered: &[SteeredOwner]) {
        let file: Arc<str> = Arc::from("rules");
        let mut seen: HashMap<&Name, &SteeredOwner> = HashMap::new();
        let mut accepted = Vec::new();
        for owner in steered {
            let place = Location { file: Arc::clone(&file), line: 0 };
            let name = &owner.name;
            if !name.as_ref().is_within(self.origin.as_ref()) {
                self.error(place, format!("the host {name} lies outside the zone {}", self.origin));
                continue;
            }
            if let Some(other) = seen.insert(name, owner) {
                if other.service != owner.service {
                    self.error(place, format!("the host {name} is named by two services; leave it to one"));
                }
                continue;
            }
            let node = self.tree.insert(Descent::new(name.as_ref(), self.depth));
            self.nodes.resize(self.tree.len(), Node::default());
            for message in self.steering_conflicts(node, owner) {
                self.error(place.clone(), message);
            }
            self.nodes[node as usize].steered = u32::try_from(accepted.len()).ok();
            accepted.push(owner.clone());
        }
        self.steered = accepted;
        self.link_wildcards();
    }

    fn steering_conflicts(&self, node: u32, owner: &SteeredOwner) -> Vec<String> {
        let mut conflicts = Vec::new();
        let name = &owner.name;
        let place_of = |group: &Group| self.records[group.members[0]].place.clone();
        let above = if self.nodes[node as usize].is_cut { Some((node, "delegation")) } else { self.covered_by(node) };
        if let Some((above, kind)) = above {
            let place = self
                .groups_of(above)
                .iter()
                .find(|group| matches!(group.rtype, rtype::NS | rtype::DNAME))
                .map(place_of);
            let place = place.map_or_else(String::new, |place| format!(" ({place})"));
            conflicts.push(format!("the host {name} lies at or below a {kind}{place}; remove that or the host"));
        }
        let steers_cname = owner.types.contains(&rtype::CNAME);
        if steers_cname && node == TOP {
            conflicts
                .push(format!("the host {name} is the zone's apex, where no CNAME may stand; answer with A and AAAA"));
        }
        if steers_cname && owner.types.len() > 1 {
            conflicts.push(format!("the host {name} is steered by CNAME and by other types; a CNAME stands alone"));
        }
        for group in self.groups_of(node) {
            let place = place_of(group);
            if owner.types.contains(&group.rtype) {
                conflicts.push(format!(
                    "the host {name} has a record of the same type in the zone ({place}); remove that record"
                ));
            } else if steers_cname && node != TOP {
                conflicts.push(format!(
                    "the host {name} is steered by CNAME, which stands alone; remove the record at {place}"
                ));
            } else if group.rtype == rtype::CNAME {
                conflicts
                    .push(format!("the host {name} has a CNAME in the zone ({place}), which stands alone; remove it"));
            }
        }
        conflicts
    }

    /// Servers inside the zone need addresses here: without them nobody reaches them (RFC 9471), and they may not be aliases (RFC 2181 §10.3).
    fn check_delegations(&mut self) {
        let mut complaints = Vec::new();
        for group in self.groups.iter().filter(|group| matches!(group.rtype, rtype::NS)) {
            for &at in &group.members {
                let Some(server) = target(rtype::NS, &self.records[at].rdata) else {
                    continue;
                };
                if let Some(message) = self.server_complaint(server) {
                    complaints.push((at, message));
                }
            }
        }
        for (at, message) in complaints {
            self.warn_at(at, message);
        }
    }

    fn server_complaint(&self, server: NameRef<'_>) -> Option<String> {
        if !server.is_within(self.origin.as_ref()) {
            return None;
        }
        let addressless =
            format!("the server {server} lies in this zone and has no address here; add an A or AAAA record");
        let Some(node) = self.tree.find(Descent::new(server, self.depth)) else {
            return Some(addressless);
        };
        if self.group(node, rtype::CNAME).is_some() {
            return Some(format!("the server {server} is an alias; name the server itself"));
        }
        let steers_address = |steered: u32| {
            self.steered[steered as usize].types.iter().any(|&rtype| matches!(rtype, rtype::A | rtype::AAAA))
        };
        let has_address = self.group(node, rtype::A).is_some()
            || self.group(node, rtype::AAAA).is_some()
            || self.nodes[node as usize].steered.is_some_and(steers_address);
        (!has_address).then_some(addressless)
    }

    fn finish(mut self) -> Compiled {
        let sets: Box<[RrSet]> = self
            .groups
            .iter()
            .map(|group| RrSet {
                rtype: group.rtype,
                ttl: self.least_ttl(group),
                rdatas: RdataSet::new(group.rtype, group.members.iter().map(|&at| &*self.records[at].rdata)),
            })
            .collect();
        self.tree.shrink();
        let mut zone = Zone {
            origin: self.origin.clone(),
            depth: self.depth,
            tree: self.tree,
            nodes: self.nodes.into(),
            sets,
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
