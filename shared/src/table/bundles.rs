//! Which version of a bundle (a named set of files for applications) each region gets: by the pins of the rules, which
//! name a version, and by a rollout under way, which replaces it step by step. Takes a bundle and a region, returns a
//! version. Called by nodes, which fetch, store and serve bundles, and by the code that compares two rules documents.

use std::collections::BTreeMap;

use super::{Rollout, Table};
use crate::bundle::Version;
use crate::id::{BundleId, RegionId, RolloutId};
use crate::rules;

/// The new version of a bundle in a region where some sessions have it, and others don't.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewVersion<'t> {
    /// The rollout.
    pub rollout: &'t RolloutId,
    /// The new version.
    pub version: Version,
    /// The share of the sessions that get it, in per cent, below 100.
    pub share: u8,
}

impl Table {
    /// Which version of each bundle applications get, as the rules pin them.
    #[must_use]
    pub fn bundles(&self) -> &BTreeMap<BundleId, rules::Bundle> {
        &self.bundles
    }

    /// The rollout that moves a bundle.
    #[must_use]
    pub fn rollout_of_bundle(&self, name: &BundleId) -> Option<&Rollout> {
        self.rollouts.iter().find(|rollout| rollout.bundle().is_some_and(|(bundle, _)| bundle == name))
    }

    /// The version of a bundle in a region, or of whoever is of none: the pinned one, or the new one of a rollout where
    /// all sessions have that. `None` if the rules pin no version.
    #[must_use]
    pub fn bundle_version(&self, name: &BundleId, region: Option<&RegionId>) -> Option<Version> {
        let pinned = self.bundles.get(name)?.version_of(region);
        let moved = self.share_of_bundle(name, region).filter(|new| new.share == 100);
        Some(moved.map_or(pinned, |new| new.version))
    }

    /// The new version of a bundle in a region, if a share of the sessions gets it.
    #[must_use]
    pub fn new_bundle_version(&self, name: &BundleId, region: Option<&RegionId>) -> Option<NewVersion<'_>> {
        self.share_of_bundle(name, region).filter(|new| new.share < 100)
    }

    fn share_of_bundle(&self, name: &BundleId, region: Option<&RegionId>) -> Option<NewVersion<'_>> {
        let rollout = self.rollout_of_bundle(name)?;
        let share = *rollout.rule.progress.as_ref()?.shares.get(region?)?;
        let (_, version) = rollout.bundle()?;
        Some(NewVersion { rollout: &rollout.id, version, share })
    }

    /// All versions that nodes fetch and keep, with the places where the rules name them: what is pinned, and what
    /// rollouts bring, from the moment on when the rules have them.
    pub fn bundle_versions(&self) -> impl Iterator<Item = (&BundleId, String, Version)> {
        let pinned = self.bundles.iter().flat_map(|(name, pins)| {
            pins.versions().map(move |(place, version)| (name, format!("/bundles/{name}/{place}"), version))
        });
        let new = self.rollouts.iter().filter_map(|rollout| {
            let (name, version) = rollout.bundle()?;
            Some((name, format!("/rollouts/{}/to", rollout.id), version))
        });
        pinned.chain(new)
    }
}
