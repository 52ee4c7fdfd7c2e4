//! Checks the records of a zone. Takes the records, adds errors and warnings about records that may not exist at their
//! name, or may not exist beside each other. Called by `compile`.

use super::{Build, Group};
use crate::protocol::name::NameRef;
use crate::protocol::rdata::{RdataSet, rtype, target};
use crate::zone::index::{Descent, TOP};
use crate::zone::records::At;
use crate::zone::{CompactIndex, SteeredOwner};

impl Build<'_> {
    /// The apex must have one SOA and at least one NS. Other names must not have an SOA (RFC 1035 §5.2, RFC 2181 §6.1).
    pub(super) fn check_apex(&mut self) {
        let misplaced: Vec<At> = self
            .groups
            .iter()
            .filter(|group| group.rtype == rtype::SOA && group.node != TOP)
            .flat_map(|group| group.members.clone())
            .collect();
        for at in misplaced {
            let owner = self.records.get(at).owner;
            self.error_at(
                at,
                format!("the SOA of {owner} is not at the apex {}; a zone has one SOA, at its apex", self.origin),
            );
        }
        match self.group(TOP, rtype::SOA).map(|group| group.members.clone()) {
            None => self.error(self.whole(), format!("the zone {} has no SOA; add one at its apex", self.origin)),
            Some(members) => {
                for &extra in &members[1..] {
                    let first = self.records.get(members[0]).place();
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

    /// Checks the records of each name.
    pub(super) fn check_names(&mut self) {
        for node in 0..u32::try_from(self.tree.len()).unwrap_or(u32::MAX) {
            if self.tree.value(node).sets.1 > 0 {
                self.check_singletons(node);
                self.check_neighbours(node);
                self.check_dname(node);
                self.check_authority(node);
                self.check_ttls(node);
            }
        }
    }

    /// A name has at most one CNAME and one DNAME (RFC 2181 §10.1, RFC 6672 §2.4).
    fn check_singletons(&mut self, node: u32) {
        for (rtype, word) in [(rtype::CNAME, "CNAME"), (rtype::DNAME, "DNAME")] {
            let Some(group) = self.group(node, rtype) else {
                continue;
            };
            let members = group.members.clone();
            let rdatas = RdataSet::new(rtype, members.iter().map(|&at| self.records.get(at).rdata));
            if rdatas.as_ref().iter().count() > 1 {
                for &extra in &members[1..] {
                    let (owner, first) = (self.records.get(extra).owner, self.records.get(members[0]).place());
                    self.error_at(
                        extra,
                        format!("{owner} has a second {word}; the first stands at {first}, keep one of them"),
                    );
                }
            }
        }
    }

    /// A name with a CNAME has no other records, except RRSIG and NSEC (RFC 1034 §3.6.2, RFC 4034 §3 and §4). A
    /// delegation has no DNAME (RFC 6672 §2.3).
    fn check_neighbours(&mut self, node: u32) {
        if let Some(cname) = self.group(node, rtype::CNAME) {
            let cname = cname.members[0];
            let beside = self
                .groups_of(node)
                .iter()
                .find(|group| !matches!(group.rtype, rtype::CNAME | rtype::RRSIG | rtype::NSEC))
                .map(|group| group.members[0]);
            if let Some(other) = beside {
                let (owner, place) = (self.records.get(cname).owner, self.records.get(other).place());
                self.error_at(
                    cname,
                    format!(
                        "the CNAME of {owner} stands beside other data ({place}); a CNAME stands \
                    alone, remove one of them"
                    ),
                );
            }
        }
        if self.tree.value(node).is_cut
            && let Some(dname) = self.group(node, rtype::DNAME).map(|group| group.members[0])
        {
            let owner = self.records.get(dname).owner;
            self.error_at(dname, format!("{owner} has both NS and DNAME; below the apex keep one of them"));
        }
    }

    /// Warns of a DNAME whose target is at or below its owner, as it redirects for ever.
    fn check_dname(&mut self, node: u32) {
        let endless = self.group(node, rtype::DNAME).map(|group| group.members[0]).filter(|&at| {
            let record = self.records.get(at);
            target(rtype::DNAME, record.rdata).is_some_and(|target| target.is_within(record.owner))
        });
        if let Some(at) = endless {
            let owner = self.records.get(at).owner;
            self.warn_at(at, format!("the DNAME of {owner} leads below itself and never ends; name another place"));
        }
    }

    /// Reports records that are never served: those below a DNAME are errors (RFC 6672 §2.4), those below a delegation
    /// are warnings, except for A and AAAA, which may be glue.
    fn check_authority(&mut self, node: u32) {
        let Some((above, kind)) = self.covered_by(node) else {
            return;
        };
        let hidden: Vec<At> = self
            .groups_of(node)
            .iter()
            .filter(|group| kind == "DNAME" || !matches!(group.rtype, rtype::A | rtype::AAAA))
            .map(|group| group.members[0])
            .collect();
        let rtype = if kind == "DNAME" { rtype::DNAME } else { rtype::NS };
        let Some(place) = self.group(above, rtype).map(|group| self.records.get(group.members[0]).place()) else {
            return;
        };
        for at in hidden {
            let owner = self.records.get(at).owner;
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

    /// All records of an RRset have one TTL (RFC 2181 §5.2). If they differ, the shortest is used.
    fn check_ttls(&mut self, node: u32) {
        let differing: Vec<(At, u32)> = self
            .groups_of(node)
            .iter()
            .filter_map(|group| {
                let least = self.least_ttl(group);
                group.members.iter().find(|&&at| self.records.get(at).ttl != least).map(|&at| (at, least))
            })
            .collect();
        for (at, least) in differing {
            let (owner, ttl) = (self.records.get(at).owner, self.records.get(at).ttl);
            self.warn_at(
                at,
                format!(
                    "{owner} has records of one type with TTLs {ttl} and {least}; {least} is served, \
                write it on all of them"
                ),
            );
        }
    }

    /// The reasons why the rules can't steer this name; empty if they can.
    pub(super) fn steering_conflicts(&self, node: u32, owner: &SteeredOwner) -> Vec<String> {
        let mut conflicts = Vec::new();
        let name = &owner.name;
        let place_of = |group: &Group| self.records.get(group.members[0]).place();
        let above = if self.tree.value(node).is_cut { Some((node, "delegation")) } else { self.covered_by(node) };
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

    /// Name servers inside the zone need addresses in the zone, because without glue no resolver reaches them (RFC
    /// 9471). They may not be aliases (RFC 2181 §10.3).
    pub(super) fn check_delegations(&mut self) {
        let mut complaints = Vec::new();
        for group in self.groups.iter().filter(|group| matches!(group.rtype, rtype::NS)) {
            for &at in &group.members {
                let Some(server) = target(rtype::NS, self.records.get(at).rdata) else {
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

    /// What is wrong with a name server of this zone: it has no address, or is an alias.
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
        let steers_address = |steered: CompactIndex| {
            self.steered[steered.get() as usize].types.iter().any(|&rtype| matches!(rtype, rtype::A | rtype::AAAA))
        };
        let has_address = self.group(node, rtype::A).is_some()
            || self.group(node, rtype::AAAA).is_some()
            || self.tree.value(node).steered.is_some_and(steers_address);
        (!has_address).then_some(addressless)
    }
}
