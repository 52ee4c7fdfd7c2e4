//! Replicas of knowledge as a node reports them: how far each region's copy is behind its leader. Holds the JSON that
//! `/v1/health` carries as `replicas` of a region. Written by the DNS node. The edge combines such reports of several
//! nodes. A replica is knowledge, such as a search index, of which regions hold copies.
//!
//! ```json
//! { "kb": { "status": "down", "freshness": "lagging", "lag_ms": 75000, "age_ms": 812, "interval_ms": 5000 } }
//! ```

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{FRESH_INTERVALS, RegionReport};
use crate::health::{Freshness, Lag, ReplicaHealth, Status, version_of_most};
use crate::table::{RegionReplica, Table};
use crate::time::Timestamp;

/// The longest version that is accepted, in bytes.
const LONGEST_VERSION: usize = 256;

/// What one node reads of a region's copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaReport {
    /// `down` means that the region is withheld from requests that need the replica.
    pub status: Status,
    /// The reason for the status: `fresh`, `leader`, `lagging`, `unknown`, or `new` before the first reading.
    pub freshness: String,
    /// How far the copy was behind at the last good reading, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_ms: Option<u64>,
    /// How far the copy was behind, in bytes or operations, if its source counts these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<u64>,
    /// The version of the copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Why the last reading failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Milliseconds since the last reading, good or failed; `null` before the first.
    pub age_ms: Option<u64>,
    /// Milliseconds between readings.
    pub interval_ms: u64,
}

impl ReplicaReport {
    /// How far the copy is behind.
    #[must_use]
    pub fn behind(&self) -> Option<Lag> {
        let time = self.lag_ms.map(|ms| Lag::Time(crate::time::Millis(ms)));
        time.or(self.lag.map(Lag::Amount))
    }

    /// Whether this report counts at the time `now`. `of_region` is the report of the region that it belongs to, which
    /// arrived at `at`. A copy that lags doesn't come back because its page hangs, so `down` counts for as long as the
    /// node sends reports.
    #[must_use]
    pub fn counts(&self, of_region: &RegionReport, at: Timestamp, now: Timestamp) -> bool {
        let silence = now.since(at).0;
        let within = |age: u64, interval: u64| age <= FRESH_INTERVALS.saturating_mul(interval);
        within(self.age_ms.unwrap_or(0).saturating_add(silence), self.interval_ms)
            || self.status == Status::Down && within(silence, of_region.interval_ms)
    }
}

/// What several nodes say of a region's copy. The status is `Down` if a strict majority of the fresh reports says so.
/// The lag is the median, and the version is the one that most reports have. `majority` counts statuses.
pub(super) fn combined(
    table: &Table,
    copy: &RegionReplica,
    reports: &[&ReplicaReport],
    majority: impl Fn(&mut dyn Iterator<Item = Status>) -> Status,
) -> ReplicaHealth {
    let replica = table.replica(copy.replica);
    let status = match majority(&mut reports.iter().map(|report| report.status)) {
        // These reports come from nodes that still follow older rules, in which the copy wasn't the leader.
        Status::Down if copy.is_leader => Status::Up,
        status => status,
    };
    let mut lags: Vec<Lag> = reports.iter().filter_map(|report| report.behind()).collect();
    lags.sort_unstable();
    let fits = |version: &&str| version.len() <= LONGEST_VERSION;
    let versions =
        reports.iter().filter_map(|report| report.version.as_deref()).filter(fits).map(|version| (version, false));
    ReplicaHealth {
        replica: copy.replica.get(),
        status,
        lag: lags.get(lags.len() / 2).copied().filter(|_| status == Status::Down),
        is_leader: copy.is_leader || reports.iter().any(|report| report.freshness == Freshness::Leader.as_str()),
        version: version_of_most(versions).filter(|_| replica.is_grouped).map(Arc::from),
        to_down: None,
        to_up: None,
    }
}
