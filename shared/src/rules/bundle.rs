//! The fields of the rules that say which version of a bundle the applications of each region get. Read by
//! [`super::read`]; nodes serve bundles by them. A bundle is a named, versioned set of files for applications, such as
//! prompts.

use std::collections::BTreeMap;

use schemars::JsonSchema;

use super::schema;
use crate::bundle::Version;
use crate::id::RegionId;

/// Which version of a bundle applications get. `bailiwick bundle push` prints a version.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Bundle {
    /// The version of all regions but those below.
    #[schemars(with = "schema::HexDigest")]
    pub version: Version,
    /// Regions that have another version.
    #[schemars(default, with = "BTreeMap<String, schema::HexDigest>")]
    pub regions: BTreeMap<RegionId, Version>,
}

impl Bundle {
    /// The version of a region, or of whoever is of none.
    #[must_use]
    pub fn version_of(&self, region: Option<&RegionId>) -> Version {
        region.and_then(|region| self.regions.get(region)).copied().unwrap_or(self.version)
    }

    /// All versions that it names, each with its place below the bundle.
    pub fn versions(&self) -> impl Iterator<Item = (String, Version)> {
        let of_regions = self.regions.iter().map(|(region, version)| (format!("regions/{region}"), *version));
        [("version".to_owned(), self.version)].into_iter().chain(of_regions)
    }
}
