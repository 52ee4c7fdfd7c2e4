//! Which bundles (sets of files for applications) get another version by a new rules document. Takes the tables
//! compiled from the old and the new document, returns each region's version before and after where they differ. Called
//! by [`super::compare`].

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
    let mut impacts = Vec::new();
    for bundle in names {
        let rules = [old, new].into_iter().filter_map(|table| table.bundles().get(bundle));
        let rollouts = [old, new].into_iter().filter_map(|table| table.rollout_of_bundle(bundle));
        let named_regions: BTreeSet<&RegionId> = rules
            .flat_map(|rule| rule.regions.keys())
            .chain(rollouts.flat_map(|rollout| &rollout.rule.regions))
            .collect();
        for region in [None].into_iter().chain(named_regions.into_iter().map(Some)) {
            let [from, to] = [old, new].map(|table| table.bundle_version(bundle, region));
            if from != to {
                impacts.push(BundleImpact { bundle: bundle.clone(), region: region.cloned(), from, to });
            }
        }
    }
    impacts
}

impl BundleImpact {
    /// A line of text about it.
    pub(super) fn to_line(&self) -> String {
        let short = |version: Option<Version>| version.map_or_else(|| "none".to_owned(), |version| version.short());
        let region = self.region.as_ref().map(|region| format!(" in {region}")).unwrap_or_default();
        format!("Bundle {}{region}: {} → {}.", self.bundle, short(self.from), short(self.to))
    }
}
