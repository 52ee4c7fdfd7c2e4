//! The models that endpoints run, in a snapshot. A release is what should run under a model's name. Filled by the
//! monitors of `state/owner`; read by the reports, the API and the metrics.

use std::collections::BTreeMap;
use std::sync::Arc;

use bailiwick_rules::release::Reading;
use bailiwick_rules::report::{ReleaseReport, ReleaseState, running};
use bailiwick_rules::steer::Local;
use bailiwick_rules::table::{RegionIndex, ReleaseIndex};
use bailiwick_rules::time::{Millis, Timestamp};

use super::{Probes, Snapshot};

/// What this node read about one release at one endpoint.
#[derive(Debug, Clone)]
pub(crate) struct ReleaseView {
    /// The region.
    pub region: RegionIndex,
    /// The endpoint's position in its region.
    pub endpoint: usize,
    /// The release.
    pub release: ReleaseIndex,
    /// The last reading that is believed, and when it came. A reading that differs is believed once it came twice in a
    /// row.
    pub reading: Option<(Timestamp, Reading)>,
    /// What failed in the last round; `None` if nothing did.
    pub failure: Option<Arc<str>>,
    /// The time between two readings.
    pub interval: Millis,
    /// How many rounds succeeded, and how many failed.
    pub readings: Probes,
}

impl ReleaseView {
    /// What the health report says about this reading.
    fn report(&self, now: Timestamp) -> ReleaseReport {
        let reading = self.reading.as_ref().map(|(_, reading)| ReleaseReport::of(reading)).unwrap_or_default();
        ReleaseReport {
            failure: self.failure.as_deref().map(str::to_owned),
            age_ms: self.reading.as_ref().map(|(at, _)| now.since(*at).0),
            interval_ms: self.interval.0,
            ..reading
        }
    }
}

impl Snapshot {
    /// What each endpoint runs, and what differs from the release, by the name of the model that clients use.
    #[must_use]
    pub(crate) fn running(&self, now: Timestamp) -> BTreeMap<String, ReleaseState> {
        let report_of = |region, endpoint, release| {
            let is_it = |view: &&ReleaseView| (view.region, view.endpoint, view.release) == (region, endpoint, release);
            self.health.releases.iter().find(is_it).map(|view| view.report(now))
        };
        running(self.table(), &self.conditions(&Local::default(), now), report_of)
    }

    /// What this node read about the models of an endpoint, by the name of the model that clients use.
    pub(super) fn release_reports(
        &self,
        region: RegionIndex,
        endpoint: usize,
        now: Timestamp,
    ) -> BTreeMap<String, ReleaseReport> {
        let views = self.health.releases.iter().filter(|view| (view.region, view.endpoint) == (region, endpoint));
        let named = views.filter_map(|view| {
            let release = self.table().releases().get(view.release.get())?;
            Some((release.model.clone(), view.report(now)))
        });
        named.collect()
    }
}
