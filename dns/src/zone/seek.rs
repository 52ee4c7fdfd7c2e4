//! Looking many names up at once: a name enters, where it stands in its zone leaves, in three steps that each have
//! loaded what the next looks at. The memo takes a batch of datagrams through one step after the other, so that it
//! waits for memory once and not once per name.

use super::index::Descent;
use super::{Found, NodeId, Zone, Zones};
use crate::protocol::name::{NameRef, case};
use crate::system::batch::prefetch;

/// A name on its way into its zone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seek<'z> {
    zone: &'z Zone,
    /// What the name is found by in the index.
    key: u64,
    /// How many octets its labels below the apex have.
    below: u8,
}

impl Zones {
    /// The first step: the zone, as [`Zones::find`] finds it, and the key.
    #[inline]
    pub(crate) fn seek(&self, name: NameRef<'_>, rtype: u16) -> Option<Seek<'_>> {
        let zone = match &self.only {
            Some(only) => only,
            None => self.find(name, rtype)?,
        };
        let labels = name.strip_suffix(zone.origin())?;
        let key = match only_label(labels) {
            Some(label) => case::hash(label, 0),
            None => Descent::of_labels(labels).fold(0, |key, label| case::hash(label, key)),
        };
        zone.tree.expect(key);
        Some(Seek { zone, key, below: u8::try_from(labels.len()).ok()? })
    }
}

impl<'z> Seek<'z> {
    pub(crate) fn zone(&self) -> &'z Zone {
        self.zone
    }

    /// Of the name that is sought: its labels below the apex, in wire format without a root label.
    pub(crate) fn labels<'n>(&self, name: NameRef<'n>) -> &'n [u8] {
        &name.as_wire()[..usize::from(self.below)]
    }

    /// The second step: the node, if there seems to be one.
    pub(crate) fn approach(&self) {
        self.zone.tree.approach(self.key);
    }

    /// The third step: where the name that is sought stands, as [`Zone::locate`] tells it. Its records are what is
    /// loaded.
    pub(crate) fn locate(&self, name: NameRef<'_>) -> Found {
        let (tree, labels) = (&self.zone.tree, self.labels(name));
        let found = match only_label(labels) {
            Some(label) => self.zone.descend([label].into_iter(), |at, label| tree.child_of_key(at, label, self.key)),
            None => self.zone.descend(Descent::of_labels(labels), |at, label| tree.child(at, label)),
        };
        if let Found::Exact(NodeId(node)) = found
            && let Some(set) = self.zone.sets.get(tree.value(node).sets.0 as usize)
        {
            prefetch(set);
        }
        found
    }
}

/// The label, if there is but one.
fn only_label(labels: &[u8]) -> Option<&[u8]> {
    let (length, rest) = labels.split_first()?;
    (rest.len() == usize::from(*length)).then_some(rest)
}

#[cfg(test)]
mod tests {
    use crate::protocol::rdata::rtype;
    use crate::testing::{name, zone};
    use crate::zone::Zones;
    use std::sync::Arc;

    #[test]
    fn a_name_is_found_step_by_step_where_it_is_found_at_once() {
        let text = "a.b A 192.0.2.1\nB.c.d A 192.0.2.1\nsub NS ns.sub\nsub DS 1 13 2 AA\nns.sub A 192.0.2.3\nd.d DNAME other.test.\n*.w A 192.0.2.4\n";
        let parent = zone("example", text, &[]);
        let child = zone("sub.example", "x A 192.0.2.9\n* A 192.0.2.8\n", &[]);
        let alone = Zones::new([Arc::clone(&parent)]);
        let both = Zones::new([parent, child]);
        let hosts = [
            "example",
            "b.example",
            "A.B.example",
            "c.d.example",
            "b.C.D.example",
            "x.example",
            "y.x.example",
            "sub.example",
            "x.sub.example",
            "y.x.sub.example",
            "z.sub.example",
            "d.d.example",
            "e.d.d.example",
            "f.e.d.d.example",
            "w.example",
            "v.w.example",
            "u.v.w.example",
            "*.w.example",
            "example.net",
            "net",
            ".",
        ];
        let mut sought = 0;
        for zones in [&alone, &both] {
            for (host, rtype) in hosts.iter().flat_map(|host| [(host, rtype::A), (host, rtype::DS)]) {
                let host = name(host);
                let found = zones.seek(host.as_ref(), rtype).map(|seek| {
                    seek.approach();
                    (seek.zone(), seek.locate(host.as_ref()))
                });
                let zone = zones.find(host.as_ref(), rtype);
                assert_eq!(found.map(|(zone, _)| zone.origin()), zone.map(|zone| zone.origin()), "{host}");
                assert_eq!(found.map(|(_, found)| found), zone.map(|zone| zone.locate(host.as_ref())), "{host}");
                sought += usize::from(found.is_some());
            }
        }
        assert_eq!(sought, 72);
    }
}
