//! The health that the voters agreed on, as far as the next verdict depends on it. A voter is a DNS node whose report
//! counts as a vote; a verdict is the status that most voters agree on. [`super::verdict`] reads and updates one
//! [`Agreed`]: a node keeps it for as long as it runs, the edge in each isolate (a running instance of the Worker).

use serde::{Deserialize, Serialize};

use super::guard::{GuardedFence, guarded_fences};
use crate::health::Status;
use crate::id::{EndpointId, RegionId, ReplicaId};
use crate::rules::ReplicaSource;
use crate::table::{RegionReplica, Revision, Table};
use crate::time::Timestamp;

/// The agreed health of all regions of one rules document. At first everything is unknown, which counts as up, until
/// most sites say something or report what was agreed on before.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Agreed {
    revision: Option<Revision>,
    /// The agreed health of each region, by region index.
    pub(super) regions: Vec<RegionAgreed>,
    pub(super) fences: Vec<GuardedFence>,
}

/// The agreed health of one region.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RegionAgreed {
    id: RegionId,
    pub(super) whole: AgreedStatus,
    /// Since when a majority calls the region down while a guard keeps it in service.
    pub(super) falling_since: Option<Timestamp>,
    pub(super) families: [AgreedStatus; 2],
    /// The names of its endpoints.
    names: Vec<EndpointId>,
    /// By position of the endpoint in `names`.
    pub(super) endpoints: Vec<AgreedStatus>,
    /// The names of the replicas (knowledge such as a search index) that it has a copy of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    copies: Vec<ReplicaId>,
    /// By position of the copy in `copies`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) replicas: Vec<AgreedStatus>,
    /// What the rules say of each copy, by position. Empty after a restart: then no copy counts as changed.
    #[serde(skip)]
    read_as: Vec<ReadAs>,
}

/// What a copy's status depends on in the rules. If that changes, the old status was about another copy.
#[derive(Clone, Debug, PartialEq)]
struct ReadAs {
    is_leader: bool,
    source: Option<Box<ReplicaSource>>,
}

impl ReadAs {
    fn of(copy: &RegionReplica) -> Self {
        Self { is_leader: copy.is_leader, source: copy.source.clone() }
    }

    /// Whether both describe the same copy. How often it is read doesn't matter.
    fn is_alike(&self, other: &Self) -> bool {
        let sources = match (&self.source, &other.source) {
            (Some(one), Some(two)) => (&one.reads, &one.http) == (&two.reads, &two.http),
            (one, two) => one.is_none() && two.is_none(),
        };
        self.is_leader == other.is_leader && sources
    }
}

/// A status that was agreed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AgreedStatus {
    /// The status; `Unknown`: nothing was agreed on yet.
    pub(super) status: Status,
    /// Since when the status holds.
    pub(super) since: Timestamp,
    /// Since when too few sites know the status; `None`: enough do.
    pub(super) alone_since: Option<Timestamp>,
}

impl AgreedStatus {
    /// Sets the status. If `since` lies in the future, the clock was set back, and `now` takes its place.
    pub(super) fn set(&mut self, status: Status, now: Timestamp) {
        self.since = if status == self.status { self.since.min(now) } else { now };
        self.status = status;
    }

    /// Notes whether enough sites know the status.
    pub(super) fn note_quorum(&mut self, is_quorum: bool, now: Timestamp) {
        self.alone_since = match self.alone_since {
            _ if is_quorum => None,
            Some(since) => Some(since.min(now)),
            None => Some(now),
        };
    }
}

impl Agreed {
    /// The statuses as bytes for the next process. Without them, a node that is cut off when it starts would take a
    /// region for up that the voters called down.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(&self.regions).unwrap_or_default()
    }

    /// Reads the bytes that [`Agreed::to_bytes`] wrote. Regions that the rules no longer have are dropped at the next
    /// verdict.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let regions = serde_json::from_slice(bytes).map_err(|error| format!("isn't what was kept: {error}"))?;
        Ok(Self { regions, ..Self::default() })
    }

    /// Switches to another document. Regions, endpoints and copies that keep their names keep their statuses.
    pub(super) fn carry_over(&mut self, table: &Table) {
        if self.revision == Some(table.revision()) {
            return;
        }
        self.revision = Some(table.revision());
        self.fences = guarded_fences(table);
        let mut before = std::mem::take(&mut self.regions);
        let carried = table.regions().iter().map(|region| {
            let old_state = before.iter().position(|old| old.id == region.id).map(|at| before.swap_remove(at));
            let names: Vec<EndpointId> = region.endpoints.iter().map(|(id, _)| id.clone()).collect();
            let endpoints = |before: &RegionAgreed| {
                let position = |id: &EndpointId| before.names.iter().position(|name| name == id);
                let old_status = |id| position(id).and_then(|at| before.endpoints.get(at).copied()).unwrap_or_default();
                names.iter().map(old_status).collect()
            };
            let copies: Vec<ReplicaId> =
                region.replicas.iter().map(|copy| table.replica(copy.replica).id.clone()).collect();
            let read_as: Vec<ReadAs> = region.replicas.iter().map(ReadAs::of).collect();
            let replicas = |before: &RegionAgreed| {
                let old_status = |(id, read_as): (&ReplicaId, &ReadAs)| {
                    let at = before.copies.iter().position(|name| name == id)?;
                    let is_kept = before.read_as.get(at).is_none_or(|before| before.is_alike(read_as));
                    before.replicas.get(at).copied().filter(|_| is_kept)
                };
                copies.iter().zip(&read_as).map(|copy| old_status(copy).unwrap_or_default()).collect()
            };
            match old_state {
                Some(old_state) => {
                    let (endpoints, replicas) = (endpoints(&old_state), replicas(&old_state));
                    RegionAgreed { endpoints, names, copies, replicas, read_as, ..old_state }
                }
                None => RegionAgreed {
                    id: region.id.clone(),
                    whole: AgreedStatus::default(),
                    falling_since: None,
                    families: [AgreedStatus::default(); 2],
                    endpoints: vec![AgreedStatus::default(); names.len()],
                    names,
                    replicas: vec![AgreedStatus::default(); copies.len()],
                    copies,
                    read_as,
                },
            }
        });
        self.regions = carried.collect();
    }
}
