//! Rollouts, compiled. A rollout replaces something old by something new, region after region; each session belongs to
//! its old or its new arm. Takes the rollouts of the rules, returns them with indexes instead of names. Called by
//! [`super::Table::build`]; used by the edge for each request of their service, and by the code that judges them.

use std::collections::BTreeMap;

use super::{RegionIndex, ServiceIndex, Table};
use crate::bundle::Version;
use crate::id::{BundleId, EndpointId, RegionId, RolloutId, ServiceId};
use crate::rules::{self, Change};

/// A rollout, compiled.
#[derive(Debug)]
pub struct Rollout {
    /// Its name.
    pub id: RolloutId,
    /// Its service.
    pub service: ServiceIndex,
    /// Its regions, in order, each with the share of sessions that has the new arm, in per cent; `None` for a region in
    /// which the rollout hasn't begun.
    pub regions: Vec<(RegionIndex, Option<u8>)>,
    /// The versions that it replaces, in the order of its regions. Empty unless it moves a bundle.
    pub pins: Vec<Version>,
    /// The rollout as the rules have it.
    pub rule: rules::Rollout,
    /// Goes into the hash that chooses a session's arm, so that the choice doesn't depend on those of other rollouts
    /// and of load.
    pub salt: String,
}

/// Compiles the rollouts of a document.
pub(super) fn build(
    rollouts: BTreeMap<RolloutId, rules::Rollout>,
    bundles: &BTreeMap<BundleId, rules::Bundle>,
    service: impl Fn(&ServiceId) -> Option<ServiceIndex>,
    region: impl Fn(&RegionId) -> Option<RegionIndex>,
) -> Vec<Rollout> {
    let compiled = |(id, rule): (RolloutId, rules::Rollout)| {
        let share = |id: &RegionId| rule.progress.as_ref()?.shares.get(id).copied();
        let regions = rule.regions.iter().filter_map(|id| Some((region(id)?, share(id)))).collect();
        let pins = match &rule.change {
            Change::Bundle { bundle, .. } => bundles.get(bundle),
            Change::Model { .. } | Change::Endpoints(_) => None,
        };
        let pins = pins.map(|pins| rule.regions.iter().map(|region| pins.version_of(Some(region))).collect());
        // Moves because of load are salted with a region's name, which has no slash.
        let salt = format!("rollout/{id}");
        Some(Rollout { service: service(&rule.service)?, regions, pins: pins.unwrap_or_default(), salt, id, rule })
    };
    rollouts.into_iter().filter_map(compiled).collect()
}

impl Rollout {
    /// The share of a region's sessions that has the new arm, in per cent; `None` if the rollout hasn't begun there.
    #[must_use]
    pub fn share(&self, region: RegionIndex) -> Option<u8> {
        self.regions.iter().find(|(member, _)| *member == region)?.1
    }

    /// The version that it replaces in a region, if it moves a bundle.
    #[must_use]
    pub fn pin(&self, region: RegionIndex) -> Option<Version> {
        let at = self.regions.iter().position(|(member, _)| *member == region)?;
        self.pins.get(at).copied()
    }

    /// The bundle that it moves, and the new version.
    #[must_use]
    pub fn bundle(&self) -> Option<(&BundleId, Version)> {
        match &self.rule.change {
            Change::Bundle { bundle, to } => Some((bundle, *to)),
            Change::Model { .. } | Change::Endpoints(_) => None,
        }
    }
}

impl Table {
    /// All rollouts, by name.
    #[must_use]
    pub fn rollouts(&self) -> &[Rollout] {
        &self.rollouts
    }

    /// The rollout of a service.
    #[must_use]
    pub fn rollout_of(&self, service: ServiceIndex) -> Option<&Rollout> {
        self.rollouts.iter().find(|rollout| rollout.service == service)
    }

    /// Whether a rollout introduces this endpoint, so that only sessions with its new arm may be sent there.
    #[must_use]
    pub fn is_rolled_out(&self, region: RegionIndex, endpoint: &EndpointId) -> bool {
        let is_new = |rollout: &Rollout| match &rollout.rule.change {
            Change::Model { .. } | Change::Bundle { .. } => false,
            Change::Endpoints(pairs) => pairs.get(&self.region(region).id).is_some_and(|pair| pair.to == *endpoint),
        };
        self.rollouts.iter().any(is_new)
    }
}
