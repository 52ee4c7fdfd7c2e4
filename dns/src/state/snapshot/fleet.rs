//! The health that the voters agree on, and the health by this node's own probes. Made by `state/owner`, read by the
//! reports, the API and the metrics. Queries don't read this: their decisions use [`Health::regions`], which has the
//! agreed health.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bailiwick_rules::fleet::Verdict;
use bailiwick_rules::health::RegionHealth;
use bailiwick_rules::id::{Overridden, RegionId};
use bailiwick_rules::report::{HeldBy, VerdictReport};
use bailiwick_rules::steer::{Conditions, Local, forced};
use bailiwick_rules::table::{RegionIndex, ServiceIndex, Table};
use bailiwick_rules::time::Timestamp;

use super::{ByFamily, Health, Snapshot};

/// The health that the voters agree on, and the health by this node's own probes.
#[derive(Debug, Clone, Default)]
pub(crate) struct FleetHealth {
    /// The health by this node's probes, by region index.
    pub own: Vec<RegionHealth>,
    /// The health by this node's probes, by family of addresses.
    pub own_by_family: Option<Arc<ByFamily>>,
    /// The verdicts of the voters, by region index.
    pub verdicts: Vec<Verdict>,
    /// How many voters have a recent report, this node included if it votes.
    pub fresh: usize,
    /// Whether this node's own network connection seems to be down.
    pub is_blind: bool,
}

impl FleetHealth {
    /// The number of regions that the voters or operators took away and the guard of this service keeps offered.
    #[must_use]
    pub(crate) fn guarded(&self, service: ServiceIndex) -> usize {
        self.verdicts.iter().filter(|verdict| verdict.guarded_by.contains(&service)).count()
    }
}

impl Health {
    /// Notes the regions whose overrides are held back by the guards of services. A guard says how many regions a
    /// service must keep offered.
    pub(crate) fn hold_back(&mut self, table: &Table, overrides: &BTreeMap<Overridden, BTreeSet<ServiceIndex>>) {
        let Some(fleet) = self.fleet.as_mut().filter(|_| !overrides.is_empty()) else { return };
        let verdicts = &mut Arc::make_mut(fleet).verdicts;
        for (of, services) in overrides {
            let place = table.place_of(of).and_then(|(region, _)| verdicts.get_mut(region.get()));
            if let Some(verdict) = place {
                verdict.held_by = HeldBy::Guard;
                let services: BTreeSet<ServiceIndex> = services.iter().chain(&verdict.guarded_by).copied().collect();
                verdict.guarded_by = services.into_iter().collect();
            }
        }
    }

    /// The health by this node's own probes, by region index.
    #[must_use]
    pub(crate) fn own_regions(&self) -> &[RegionHealth] {
        self.fleet.as_ref().map_or(&self.regions, |fleet| &fleet.own)
    }

    /// The health by this node's own probes, by family of addresses.
    #[must_use]
    pub(super) fn own_by_family(&self) -> Option<&Arc<ByFamily>> {
        self.fleet.as_ref().map_or(self.by_family.as_ref(), |fleet| fleet.own_by_family.as_ref())
    }
}

impl Snapshot {
    /// The verdict of the voters on every region; empty if the rules have no voters.
    #[must_use]
    pub(crate) fn fleet_report(&self, now: Timestamp) -> BTreeMap<RegionId, VerdictReport> {
        let Some(fleet) = &self.health.fleet else { return BTreeMap::new() };
        let conditions = Conditions { health: &self.health.regions, local: &Local::default(), now };
        let report = |(index, verdict): (RegionIndex, &Verdict)| {
            let forced = forced(self.table(), index, &conditions).map(|forced| forced.status);
            (self.table().region(index).id.clone(), verdict.report(forced))
        };
        (0..).map(RegionIndex).zip(&fleet.verdicts).map(report).collect()
    }
}
