//! Finds the names and RRsets for which a zone has authority. Takes a compiled zone, returns the names and RRsets by
//! their numbers. Called by `dnssec`, which signs them. A steered name is one whose records the rules decide.

use super::{NodeId, RrSet, SteeredOwner, Zone};
use crate::protocol::name::Name;
use crate::protocol::rdata::rtype;
use crate::zone::index::TOP;

/// A static RRset for which the zone has authority.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OwnSet<'z> {
    /// The number of the RRset among all static RRsets of the zone.
    pub(crate) number: usize,
    /// The owner.
    pub(crate) node: NodeId,
    /// The data.
    pub(crate) set: &'z RrSet,
}

impl Zone {
    /// How many static RRsets there are, glue included.
    pub(crate) fn set_count(&self) -> usize {
        self.sets.len()
    }

    /// The number of a name's static RRset of a type.
    pub(crate) fn set_number(&self, node: NodeId, rtype: u16) -> Option<usize> {
        let (first, _) = self.tree.value(node.0).sets;
        let place = self.sets(node).iter().position(|set| set.rtype == rtype)?;
        Some(first as usize + place)
    }

    /// A static RRset by its number.
    pub(crate) fn set_by_number(&self, number: usize) -> &RrSet {
        &self.sets[number]
    }

    /// The number of the steered owner of a name; `None` if the name isn't steered.
    pub(crate) fn steered_number(&self, node: NodeId) -> Option<usize> {
        self.tree.value(node.0).steered.map(|number| number.get() as usize)
    }

    /// All steered owners, by number.
    pub(crate) fn steered_owners(&self) -> &[SteeredOwner] {
        &self.steered
    }

    /// The names for which the zone has authority: all names except those below a delegation or a DNAME.
    pub(crate) fn own_nodes(&self) -> impl Iterator<Item = NodeId> {
        // Ancestors come before their descendants, so one pass finds all hidden names.
        let mut hides = Vec::with_capacity(self.tree.len());
        (0_u32..).zip(self.tree.values()).filter_map(move |(number, node)| {
            let hidden = self.tree.parent(number).is_some_and(|parent| hides[parent as usize]);
            hides.push(hidden || node.is_cut || node.is_dname);
            (!hidden).then_some(NodeId(number))
        })
    }

    /// The static RRsets for which the zone has authority. At a delegation, that is only the DS (RFC 4035 §2.2).
    pub(crate) fn own_sets(&self) -> impl Iterator<Item = OwnSet<'_>> {
        self.own_nodes().flat_map(move |id| {
            let node = self.tree.value(id.0);
            let (first, count) = node.sets;
            let numbers = (first..first + count).map(|number| number as usize);
            let own = numbers.filter(move |&number| !node.is_cut || self.sets[number].rtype == rtype::DS);
            own.map(move |number| OwnSet { number, node: id, set: &self.sets[number] })
        })
    }

    /// The types of a name's records, including steered types that health may hide. At a delegation only NS and DS
    /// count (RFC 4034 §4.1.2). `dnssec` adds the types of signatures.
    pub(crate) fn types(&self, node: NodeId) -> impl Iterator<Item = u16> {
        let is_cut = self.tree.value(node.0).is_cut;
        let of_sets = self.sets(node).iter().map(|set| set.rtype);
        let of_sets = of_sets.filter(move |&rtype| !is_cut || matches!(rtype, rtype::NS | rtype::DS));
        let steered = self.steered(node).map(|owner| owner.types.as_slice()).unwrap_or_default();
        of_sets.chain(steered.iter().copied())
    }

    /// The number of a name, below [`Zone::name_count`].
    pub(crate) fn number_of(&self, node: NodeId) -> usize {
        node.0 as usize
    }

    /// Whether a delegation begins at the name.
    pub(crate) fn is_cut(&self, node: NodeId) -> bool {
        self.tree.value(node.0).is_cut
    }

    /// The whole name of a node.
    pub(crate) fn name_of(&self, node: NodeId) -> Name {
        let (mut labels, mut at) = (Vec::new(), node.0);
        while let Some(parent) = self.tree.parent(at) {
            let label = self.tree.label_of(at);
            labels.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
            labels.extend_from_slice(label);
            at = parent;
        }
        // The whole name was inserted, so its labels fit into 255 octets.
        Name::join(&labels, self.origin()).unwrap_or_else(|| self.origin.clone())
    }
}

const _: () = assert!(TOP == 0, "own_nodes counts from the top");

#[cfg(test)]
mod tests {
    use crate::protocol::rdata::rtype::{A, DNAME, DS, NS, SOA, TXT};
    use crate::testing::{name, zone};

    #[test]
    fn rfc4035_2_2_glue_and_delegations_are_not_the_zones_own() {
        let text = "a.b A 192.0.2.1\nsub NS ns.sub\nsub DS 1 13 2 AA\nsub A 192.0.2.2\nns.sub A 192.0.2.3\n\
                    x.y.sub TXT t\nd DNAME other.test.\n";
        let zone = zone("example.com", text, &[]);
        let own: Vec<_> = zone.own_sets().map(|own| (zone.name_of(own.node).to_string(), own.set.rtype)).collect();
        let expected = [
            ("example.com.", NS),
            ("example.com.", SOA),
            ("a.b.example.com.", A),
            ("sub.example.com.", DS),
            ("d.example.com.", DNAME),
        ];
        assert_eq!(own, expected.map(|(owner, rtype)| (owner.to_owned(), rtype)));
        let types = |host: &str| zone.types(zone.glue(name(host).as_ref()).unwrap()).collect::<Vec<_>>();
        assert_eq!(types("sub.example.com"), [NS, DS]);
        assert!(types("b.example.com").is_empty());
        assert_eq!(types("x.y.sub.example.com"), [TXT]);
    }
}
