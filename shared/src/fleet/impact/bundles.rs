//! Which bundles (sets of files for applications) get another version by a new document. Takes two tables, returns each
//! region's version before and after where they differ. Called by [`super::compare`].

use std::collections::BTreeSet;

use serde::Serialize;

use crate::bundle::Version;
use crate::id::{BundleId, RegionId};
use crate::table::Table;

/// A bundle whose version differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BundleImpact {
    /// The bundle's name.
    pub bundle: BundleId,
    /// The region; `None`: all regions for which the rules name no version of their own.
    pub region: Option<RegionId>,
    /// The old version; `None`: the old document doesn't have the bundle.
    pub from: Option<Version>,
    /// The new version; `None`: the new document doesn't have the bundle.
    pub to: Option<Version>,
}

/// All versions that differ, by bundle and region.
pub(super) fn bundles(old: &Table, new: &Table) -> Vec<BundleImpact> {
    let names: BTreeSet<&BundleId> = old.bundles().keys().chain(new.bundles().keys()).collect();
    let mut found = Vec::new();
    for bundle in names {
        let pinned = [old, new].into_iter().filter_map(|table| table.bundles().get(bundle));
        let moved = [old, new].into_iter().filter_map(|table| table.rollout_of_bundle(bundle));
        let named: BTreeSet<&RegionId> =
            pinned.flat_map(|one| one.regions.keys()).chain(moved.flat_map(|one| &one.rule.regions)).collect();
        for region in [None].into_iter().chain(named.into_iter().map(Some)) {
            let [from, to] = [old, new].map(|table| table.bundle_version(bundle, region));
            if from != to {
                found.push(BundleImpact { bundle: bundle.clone(), region: region.cloned(), from, to });
            }
        }
    }
    found
}

impl BundleImpact {
    /// A line of text about it.
    pub(super) fn to_line(&self) -> String {
        let short = |version: Option<Version>| version.map_or_else(|| "none".to_owned(), |one| one.short());
        let region = self.region.as_ref().map(|region| format!(" in {region}")).unwrap_or_default();
        format!("Bundle {}{region}: {} → {}.", self.bundle, short(self.from), short(self.to))
    }
}
