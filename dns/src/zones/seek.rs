//! Looks many names up at once, in three steps: find the zone, find the node, find the records. Takes a name and a
//! type, returns the zone and what [`Zones::find`] and `Zone::locate` would find. Each step starts to load from memory
//! what the next step reads. The memo takes a whole batch of datagrams through one step before the next, so it waits
//! for memory once per step and not once per name.

use super::{ServedZone, Zones};
use crate::protocol::name::NameRef;
use crate::zone::{Key, LookupResult};

/// A name that is being looked up in its zone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seek<'z> {
    zone: &'z ServedZone,
    key: Key,
}

impl Zones {
    /// The first step: finds the zone, as [`Zones::find`] does, and the name's key in it.
    #[inline]
    pub(crate) fn seek(&self, name: NameRef<'_>, rtype: u16) -> Option<Seek<'_>> {
        let zone = match &self.only {
            Some(only) => only,
            None => self.find(name, rtype)?,
        };
        Some(Seek { zone, key: zone.key(name)? })
    }
}

impl<'z> Seek<'z> {
    pub(crate) fn zone(&self) -> &'z ServedZone {
        self.zone
    }

    /// The name's labels below the apex, in wire format without a root label. `name` is the one that is looked up.
    pub(crate) fn labels<'n>(&self, name: NameRef<'n>) -> &'n [u8] {
        self.key.labels(name)
    }

    /// The second step: starts to load the name's node.
    pub(crate) fn approach(&self) {
        self.zone.approach(self.key);
    }

    /// The third step: finds the name, as [`Zone::locate`](crate::zone::Zone::locate) does, and starts to load its
    /// records.
    pub(crate) fn locate(&self, name: NameRef<'_>) -> LookupResult {
        self.zone.locate_by(self.key, name)
    }
}

#[cfg(test)]
mod tests {
    use crate::protocol::rdata::rtype;
    use crate::testing::{name, zone};
    use crate::zones::Zones;
    use std::sync::Arc;

    #[test]
    fn a_name_is_found_step_by_step_where_it_is_found_at_once() {
        let text = "a.b A 192.0.2.1\nB.c.d A 192.0.2.1\nsub NS ns.sub\nsub DS 1 13 2 AA\nns.sub A 192.0.2.3\n\
                    d.d DNAME other.test.\n*.w A 192.0.2.4\n";
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
