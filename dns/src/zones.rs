//! The zones of a server. Takes compiled zones and the signatures of those that are signed, returns [`Zones`]. Called
//! by the snapshot's world, which builds them, and by `response::answer` and the memo, which find the zone of each
//! query.
//!
//! A [`ServedZone`] joins a zone and its signatures: [`zone`](crate::zone) knows nothing of signatures, and
//! [`dnssec`](crate::dnssec) signs any zone that it is given.

mod seek;

use std::ops::Deref;
use std::sync::Arc;

use crate::dnssec::presigned::SignedZone;
use crate::protocol::name::{Name, NameRef};
use crate::protocol::rdata::rtype;
use crate::zone::index::{Descent, NameTree, TOP};
use crate::zone::{NodeId, RrSet, Zone};
pub(crate) use seek::Seek;

/// A zone as it is served: its data, and its signatures if it is signed. It can be read like the [`Zone`].
#[derive(Debug, Clone)]
pub struct ServedZone {
    zone: Zone,
    signed: Option<Arc<SignedZone>>,
}

impl ServedZone {
    /// A zone that isn't signed.
    #[must_use]
    pub fn unsigned(zone: Zone) -> Self {
        Self { zone, signed: None }
    }

    /// A zone with its signatures.
    pub(crate) fn signed_by(zone: Zone, signed: SignedZone) -> Self {
        Self { zone, signed: Some(Arc::new(signed)) }
    }

    /// The data.
    #[must_use]
    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    /// The signatures; `None` for a zone that isn't signed.
    #[must_use]
    pub fn signed(&self) -> Option<&SignedZone> {
        self.signed.as_deref()
    }

    /// The RRset of this type that is made from the zone's keys, such as DNSKEY, if the node is the apex and the zone
    /// is signed.
    pub(crate) fn key_set(&self, node: NodeId, rtype: u16) -> Option<&RrSet> {
        let signed = self.signed().filter(|_| node == self.zone.apex())?;
        signed.apex_set(rtype).map(|(set, _)| set)
    }
}

impl Deref for ServedZone {
    type Target = Zone;

    fn deref(&self) -> &Zone {
        &self.zone
    }
}

/// The zones of a server. A name belongs to the zone with the longest origin that matches the name.
#[derive(Debug)]
pub struct Zones {
    tree: NameTree<Option<Arc<ServedZone>>>,
    /// The zone, if there is only one, as on most servers. It is found without the tree.
    only: Option<Arc<ServedZone>>,
    /// The origins of configured zones that have no usable version.
    missing: Box<[Name]>,
}

impl Zones {
    /// Collects zones. If two have the same origin, the later one is used.
    pub fn new(zones: impl IntoIterator<Item = Arc<ServedZone>>) -> Self {
        let mut tree = NameTree::new();
        for zone in zones {
            let node = tree.insert(Descent::new(zone.origin(), 0));
            *tree.value_mut(node) = Some(zone);
        }
        tree.settle();
        let only = match tree.values().flatten().collect::<Vec<_>>()[..] {
            [only] => Some(Arc::clone(only)),
            _ => None,
        };
        Self { tree, only, missing: Box::default() }
    }

    /// The same zones, with the origins of configured zones that have no usable version.
    #[must_use]
    pub fn with_missing(self, missing: impl IntoIterator<Item = Name>) -> Self {
        Self { missing: missing.into_iter().collect(), ..self }
    }

    /// The origins of configured zones that have no usable version.
    pub fn missing(&self) -> &[Name] {
        &self.missing
    }

    /// Whether a name and type belong to a configured zone that has no usable version. `found` is the zone that would
    /// answer for them otherwise.
    pub fn is_missing(&self, name: NameRef<'_>, rtype: u16, found: Option<&ServedZone>) -> bool {
        let (depth, is_ds) = (found.map(|zone| zone.depth()), rtype == rtype::DS);
        self.missing.iter().any(|origin| {
            let origin = origin.as_ref();
            name.is_within(origin)
                && depth.is_none_or(|depth| origin.labels().count() > depth)
                && !(is_ds && name == origin && found.is_some())
        })
    }

    /// The zone that answers for a name and type: the one with the longest origin. For DS at an origin it is the parent
    /// zone (RFC 4035 §3.1.4.1), if this server has it.
    pub fn find(&self, name: NameRef<'_>, rtype: u16) -> Option<&ServedZone> {
        if let Some(only) = &self.only {
            return name.is_within(only.origin()).then_some(only);
        }
        let mut descent = Descent::new(name, 0);
        let (mut at, mut best) = (TOP, None);
        loop {
            if let Some(zone) = self.tree.value(at)
                && !(rtype == rtype::DS && descent.len() == 0 && best.is_some())
            {
                best = Some(&**zone);
            }
            match descent.next().and_then(|label| self.tree.child(at, label)) {
                Some(child) => at = child,
                None => return best,
            }
        }
    }

    /// The zone with this origin.
    pub fn of_origin(&self, origin: NameRef<'_>) -> Option<&ServedZone> {
        let node = self.tree.find(Descent::new(origin, 0))?;
        self.tree.value(node).as_deref()
    }

    /// All zones.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<ServedZone>> {
        self.tree.values().flatten()
    }
}

impl Default for Zones {
    fn default() -> Self {
        Self::new([])
    }
}
