//! Which version of each bundle each region was served last. Takes the rules and what is held, returns what stays in
//! service while a newly pinned version isn't here. Called by [`super::Bundles`], which writes it to the state
//! directory.

use std::collections::BTreeMap;

use bailiwick_rules::bundle::Version;
use bailiwick_rules::id::{BundleId, RegionId};
use bailiwick_rules::rules::Bundle;
use bailiwick_rules::table::Table;

/// By bundle and region. No region's name is empty: that stands for whoever is of none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Served(BTreeMap<BundleId, BTreeMap<String, Version>>);

impl Served {
    /// Reads it as it was written.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().map(Self)
    }

    /// As it is written.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(&self.0).unwrap_or_default()
    }

    /// What a region was served last. One that is new gets what those of none got, unless it has a pin of its own: the
    /// version of all may be wrong for it.
    pub(super) fn of(&self, name: &BundleId, region: Option<&RegionId>, pins: &Bundle) -> Option<Version> {
        let of = self.0.get(name)?;
        let own = region.and_then(|region| of.get(region.as_str()));
        let has_pin = region.is_some_and(|region| pins.regions.contains_key(region));
        own.or_else(|| of.get("").filter(|_| !has_pin)).copied()
    }

    /// All versions of a bundle that somebody was served last.
    pub(super) fn versions(&self, name: &BundleId) -> impl Iterator<Item = Version> {
        self.0.get(name).into_iter().flat_map(|of| of.values().copied())
    }

    /// Notes what is served by these rules. Bundles that aren't pinned any more are forgotten. Returns whether anything
    /// differs.
    pub(super) fn follow(&mut self, table: &Table, is_held: impl Fn(&BundleId, Version) -> bool) -> bool {
        let mut next = BTreeMap::new();
        for (name, pins) in table.bundles() {
            let regions = table.regions().iter().map(|region| Some(&region.id));
            let of = regions.chain([None]).filter_map(|region| {
                let pinned = table.bundle_version(name, region).filter(|pinned| is_held(name, *pinned));
                let version = pinned.or_else(|| self.of(name, region, pins));
                Some((region.map_or("", RegionId::as_str).to_owned(), version?))
            });
            let of: BTreeMap<String, Version> = of.collect();
            if !of.is_empty() {
                next.insert(name.clone(), of);
            }
        }
        let is_changed = self.0 != next;
        self.0 = next;
        is_changed
    }
}
