//! What only tests ask of a snapshot.

use std::net::IpAddr;

use bailiwick_rules::explain::{Explanation, explain};
use bailiwick_rules::steer::{Ask, Client, Local};
use bailiwick_rules::time::Timestamp;

use super::Snapshot;
use crate::dnssec::key_set::KeySet;
use crate::dnssec::presigned::SignedZone;
use crate::locate::classes;
use crate::protocol::name::NameRef;

impl Snapshot {
    /// What a zone does with its keys; `None` for one that isn't signed.
    pub(crate) fn key_set(&self, origin: NameRef<'_>) -> Option<&KeySet> {
        self.zones().of_origin(origin)?.signed().map(SignedZone::key_set)
    }

    /// The first second, since 1970, at which not all signatures of the zones may be served any more; `None` if no zone
    /// is signed.
    pub(crate) fn signed_until(&self) -> Option<u32> {
        self.world.signed_until
    }

    /// When health was last looked at.
    pub(crate) fn at(&self) -> Timestamp {
        self.at
    }

    /// What geography and `networks` say of an address, as `steer` wants it.
    pub(crate) fn client_at(&self, address: IpAddr) -> Client {
        classes::client_at(self.table(), self.world.places(), address)
    }

    /// Steers and explains for any client, by this moment's health as of `now`.
    pub(crate) fn explain(&self, ask: &Ask<'_>, now: Timestamp) -> Explanation {
        explain(self.table(), ask, &self.conditions(&Local::default(), now))
    }
}
