//! Warns about bundles (named sets of files for applications) that can't be served in the versions that the rules pin.
//! Takes configuration and rules, returns warnings. Called by [`super::named`].

use bailiwick_rules::bundle::Version;
use bailiwick_rules::id::{BundleId, RegionId};
use bailiwick_rules::table::Table;

use crate::program::config::{Api, Config};
use crate::state::bundles::is_kept;
use crate::text::nearest::suggestion;

/// A warning for each pinned version of a bundle that isn't in the state directory. A node of a fleet fetches such a
/// version from other nodes.
pub(super) fn missing(config: &Config, table: &Table) -> Vec<String> {
    let pins = table.bundle_versions();
    let Some(state_dir) = config.state_dir.as_deref() else {
        let text = "the rules pin bundles, and this node has no state_dir to keep them in; set state_dir".to_owned();
        return pins.take(1).map(|_| text.clone()).collect();
    };
    let lacking = pins.filter(|(name, _, version)| !is_kept(state_dir, name, *version));
    let mend = |name: &BundleId| match config.fleet.is_used() {
        true => format!("this node fetches it from others; if none has it: bailiwick bundle push FOLDER --name {name}"),
        false => format!("push it: bailiwick bundle push FOLDER --name {name}"),
    };
    let text = |(name, place, version): (&BundleId, String, Version)| {
        format!("{place}: version {} isn't in state_dir; {}", version.short(), mend(name))
    };
    lacking.map(text).collect()
}

/// A warning for each token file of a region that the rules don't have. Applications with such a token get the versions
/// for no particular region.
pub(super) fn tokens_of_no_region(api: &Api, table: &Table) -> Vec<String> {
    let unknown = api.region_token_files.keys().filter(|region| table.region_named(region.as_str()).is_none());
    let text = |region: &RegionId| {
        let known = table.regions().iter().map(|region| region.id.as_str());
        let mend = suggestion(region.as_str(), known);
        format!("[api] region_token_files: the rules have no region {region}, so its tokens get what all get; {mend}")
    };
    unknown.map(text).collect()
}
