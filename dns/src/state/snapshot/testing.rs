//! Methods of a snapshot that only tests call.

use std::net::IpAddr;

use bailiwick_host::locate::client::client_at;
use bailiwick_rules::explain::{Explanation, explain};
use bailiwick_rules::steer::{Ask, Client, Local};
use bailiwick_rules::time::Timestamp;

use super::Snapshot;
use crate::dnssec::key_set::KeySet;
use crate::dnssec::presigned::SignedZone;
use crate::protocol::name::NameRef;

impl Snapshot {
    /// The key set that a zone is signed with; `None` for a zone that isn't signed.
    pub(crate) fn key_set(&self, origin: NameRef<'_>) -> Option<&KeySet> {
        self.zones().of_origin(origin)?.signed().map(SignedZone::key_set)
    }

    /// The first second, since 1970, at which not all signatures of the zones may be served any more; `None` if no zone
    /// is signed.
    pub(crate) fn signed_until(&self) -> Option<u32> {
        self.world.signed_until
    }

    /// The time for which the decisions were made.
    pub(crate) fn at(&self) -> Timestamp {
        self.at
    }

    /// The client at an address, located by GeoIP data and `networks`, as an argument of `steer`.
    pub(crate) fn client_at(&self, address: IpAddr) -> Client {
        client_at(self.table(), self.world.places(), address)
    }

    /// Steers any client and explains the result, with the health of this snapshot at the time `now`.
    pub(crate) fn explain(&self, ask: &Ask<'_>, now: Timestamp) -> Explanation {
        explain(self.table(), ask, &self.conditions(&Local::default(), now))
    }
}
