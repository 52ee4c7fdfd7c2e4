//! Remembers which version of each bundle each region was served last. Takes the rules and the versions that this node
//! stores; returns the version that stays in service while a newly pinned version isn't here yet. Called by
//! [`super::Bundles`], which writes this to the state directory. A bundle is a named, versioned set of files for
//! applications, such as prompts. The rules pin a version of a bundle: they say which version is served, unless a
//! rollout is under way.

use std::collections::BTreeMap;

use bailiwick_rules::bundle::Version;
use bailiwick_rules::id::{BundleId, RegionId};
use bailiwick_rules::rules::Bundle;
use bailiwick_rules::table::Table;

/// The version last served, by bundle and region. The empty name stands for callers without a region.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct LastServed(BTreeMap<BundleId, BTreeMap<String, Version>>);

impl LastServed {
    /// Reads it as it was written.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().map(Self)
    }

    /// As it is written.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(&self.0).unwrap_or_default()
    }

    /// The version that a region was served last. A new region gets the version of callers without a region, unless the
    /// rules pin a version for this region: then the version for all others may be wrong for it.
    pub(super) fn of(&self, name: &BundleId, region: Option<&RegionId>, pins: &Bundle) -> Option<Version> {
        let versions = self.0.get(name)?;
        let version = region.and_then(|region| versions.get(region.as_str()));
        let has_pin = region.is_some_and(|region| pins.regions.contains_key(region));
        version.or_else(|| versions.get("").filter(|_| !has_pin)).copied()
    }

    /// All versions of a bundle that somebody was served last.
    pub(super) fn versions(&self, name: &BundleId) -> impl Iterator<Item = Version> {
        self.0.get(name).into_iter().flat_map(|versions| versions.values().copied())
    }

    /// Notes what is served by these rules. Bundles that aren't pinned any more are forgotten. Returns whether anything
    /// differs.
    pub(super) fn follow(&mut self, table: &Table, is_held: impl Fn(&BundleId, Version) -> bool) -> bool {
        let mut next = BTreeMap::new();
        for (name, pins) in table.bundles() {
            let regions = table.regions().iter().map(|region| Some(&region.id));
            let versions = regions.chain([None]).filter_map(|region| {
                let pinned = table.bundle_version(name, region).filter(|pinned| is_held(name, *pinned));
                let version = pinned.or_else(|| self.of(name, region, pins));
                Some((region.map_or("", RegionId::as_str).to_owned(), version?))
            });
            let versions: BTreeMap<String, Version> = versions.collect();
            if !versions.is_empty() {
                next.insert(name.clone(), versions);
            }
        }
        let is_changed = self.0 != next;
        self.0 = next;
        is_changed
    }
}
