//! Bundles in NATS, as the publisher's user. Called by `bailiwick bundle`, and before rules are published. The rules
//! pin a version of a bundle: they say which version is served, unless a rollout is under way.

use std::collections::BTreeSet;

use bailiwick_rules::bundle::Version;
use bailiwick_rules::id::{BundleId, RegionId};
use bailiwick_rules::table::Table;

use super::{Buckets, as_list};
use crate::program::api::bundles::{ListReport, VersionReport};
use crate::state::fleet::no_version;

impl Buckets {
    /// Stores a pack.
    ///
    /// # Errors
    /// Why it isn't stored.
    pub(in crate::program::cli) fn put_bundle(
        &self,
        name: &BundleId,
        version: Version,
        pack: &[u8],
    ) -> Result<(), Vec<String>> {
        self.runtime.block_on(self.bus.put_bundle(name, version, pack)).map(drop).map_err(as_list)
    }

    /// The pack of a version, as it is stored. The caller checks its digests.
    ///
    /// # Errors
    /// When it isn't there or can't be read.
    pub(in crate::program::cli) fn bundle(&self, name: &BundleId, version: Version) -> Result<Vec<u8>, Vec<String>> {
        let pack = self.runtime.block_on(self.bus.bundle(name, version)).map_err(as_list)?;
        pack.ok_or_else(|| as_list(no_version(name, version)))
    }

    /// The version that the rules in NATS pin for a region; with `None`, for callers without a region.
    ///
    /// # Errors
    /// That they pin none.
    pub(in crate::program::cli) fn pinned_version(
        &self,
        name: &BundleId,
        region: Option<&str>,
    ) -> Result<Version, Vec<String>> {
        let table = self.table()?;
        let region = match region {
            None => None,
            Some(text) => match RegionId::parse(text).filter(|_| table.region_named(text).is_some()) {
                Some(region) => Some(region),
                None => return Err(as_list(format!("--region: there is no region {text:?} in the rules"))),
            },
        };
        table.bundle_version(name, region.as_ref()).ok_or_else(|| {
            as_list(format!("the rules pin no version of {name}; name one, such as {name}@VERSION, from `bundle list`"))
        })
    }

    /// All bundles in NATS, and what the rules pin.
    ///
    /// # Errors
    /// When they can't be read.
    pub(in crate::program::cli) fn list_bundles(&self) -> Result<ListReport, Vec<String>> {
        let mut listed = ListReport::default();
        for stored in self.runtime.block_on(self.bus.bundles()).map_err(as_list)? {
            let (version, came, bytes) = (stored.version, stored.came, stored.bytes as u64);
            let report = VersionReport { version, files: None, bytes, came };
            listed.bundles.entry(stored.name).or_default().versions.push(report);
        }
        // Bundles may be pushed before there are any rules.
        if let Ok(table) = self.table() {
            listed.pin(&table);
        }
        Ok(listed)
    }

    /// Refuses rules that newly pin a version, or roll one out, which isn't in NATS.
    ///
    /// # Errors
    /// Each such pin, with how to mend it.
    pub(in crate::program::cli::rules) fn check_pins(&self, before: &[u8], new: &[u8]) -> Result<(), Vec<String>> {
        // What doesn't compile is refused by nodes, and pins nothing.
        let Ok(new) = Table::compile_quietly(new) else { return Ok(()) };
        let before = Table::compile_quietly(before).ok();
        let before = before.iter().flat_map(Table::bundle_versions);
        let mut known: BTreeSet<_> = before.map(|(name, _, version)| (name, version)).collect();
        let mut errors = Vec::new();
        for (name, place, version) in new.bundle_versions() {
            if known.insert((name, version))
                && !self.runtime.block_on(self.bus.has_bundle(name, version)).map_err(as_list)?
            {
                errors.push(format!("{place}: {}", no_version(name, version)));
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// The rules in NATS.
    fn table(&self) -> Result<Table, Vec<String>> {
        let base = self.base()?;
        Table::compile_quietly(&base.document.bytes).map_err(|_| as_list("the rules in NATS can't be read".to_owned()))
    }
}
