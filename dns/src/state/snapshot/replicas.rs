//! The copies of replicas (knowledge that regions hold copies of) in a snapshot. Filled by the monitors of
//! `state/owner`; read by the reports, the API and the metrics.

use std::collections::BTreeMap;
use std::sync::Arc;

use bailiwick_rules::health::{Freshness, Lag, Status};
use bailiwick_rules::id::ReplicaId;
use bailiwick_rules::replica::ReplicaReading;
use bailiwick_rules::report::ReplicaReport;
use bailiwick_rules::table::{RegionIndex, ReplicaIndex};
use bailiwick_rules::time::{Millis, Timestamp};

use super::{Probes, Snapshot};

/// What this node read of a region's copy.
#[derive(Debug, Clone)]
pub(crate) struct ReplicaView {
    /// The region.
    pub region: RegionIndex,
    /// The copy's position in its region.
    pub position: usize,
    /// The replica.
    pub replica: ReplicaIndex,
    /// `Down` if, by this node's readings, the region has to be withheld from requests that need the replica.
    pub status: Status,
    /// How the copy stands, as the reason for the status.
    pub freshness: Freshness,
    /// The last good reading.
    pub reading: Option<(Timestamp, ReplicaReading)>,
    /// Why the last reading failed; `None` after a good one.
    pub failure: Option<Arc<str>>,
    /// Whether the last reading failed because the copy claims to be ahead of its leader.
    pub is_ahead: bool,
    /// When the last result came in, good or not.
    pub last_result: Option<Timestamp>,
    /// The time between two readings.
    pub interval: Millis,
    /// How many readings were good, and how many failed.
    pub readings: Probes,
}

impl ReplicaView {
    /// How far the copy was behind in the last good reading.
    #[must_use]
    pub(crate) fn lag(&self) -> Option<Lag> {
        self.reading.as_ref().and_then(|(_, reading)| reading.lag)
    }

    /// The version of the last good reading.
    #[must_use]
    pub(crate) fn version(&self) -> Option<&str> {
        self.reading.as_ref().and_then(|(_, reading)| reading.version.as_deref())
    }

    /// What the health report says about this copy.
    fn report(&self, now: Timestamp) -> ReplicaReport {
        let (lag_ms, lag) = match self.lag() {
            Some(Lag::Time(time)) => (Some(time.0), None),
            Some(Lag::Amount(amount)) => (None, Some(amount)),
            None => (None, None),
        };
        ReplicaReport {
            status: self.status,
            freshness: self.freshness.as_str().to_owned(),
            lag_ms,
            lag,
            version: self.version().map(str::to_owned),
            failure: self.failure.as_deref().map(str::to_owned),
            age_ms: self.last_result.map(|at| now.since(at).0),
            interval_ms: self.interval.0,
        }
    }
}

impl Snapshot {
    /// What this node read of a region's copies.
    pub(super) fn replica_reports(&self, region: RegionIndex, now: Timestamp) -> BTreeMap<ReplicaId, ReplicaReport> {
        let views = self.health.replicas.iter().filter(|view| view.region == region);
        views.map(|view| (self.table().replica(view.replica).id.clone(), view.report(now))).collect()
    }

    /// Whether decisions withhold the view's region from requests that need the replica. The voters decide that or,
    /// without voters, this node's readings.
    #[must_use]
    pub(crate) fn withholds(&self, view: &ReplicaView) -> bool {
        let copies = self.health.regions.get(view.region.get()).map(|region| &region.replicas);
        copies.and_then(|copies| copies.get(view.position)).is_some_and(|copy| copy.status == Status::Down)
    }
}
