//! Warns of bundles that can't be served as they are pinned. Takes configuration and rules, returns warnings. Called by
//! [`super::named`].

use bailiwick_rules::bundle::Version;
use bailiwick_rules::id::{BundleId, RegionId};
use bailiwick_rules::table::Table;

use crate::program::config::{Api, Config};
use crate::state::bundles::is_kept;
use crate::text::nearest::suggestion;

/// Versions of bundles that the rules pin and that aren't in the state directory. A node of a fleet fetches them.
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

/// Tokens of regions that the rules don't have: their applications get what those of no region get.
pub(super) fn tokens_of_no_region(api: &Api, table: &Table) -> Vec<String> {
    let unknown = api.region_token_files.keys().filter(|region| table.region_named(region.as_str()).is_none());
    let text = |region: &RegionId| {
        let known = table.regions().iter().map(|region| region.id.as_str());
        let mend = suggestion(region.as_str(), known);
        format!("[api] region_token_files: the rules have no region {region}, so its tokens get what all get; {mend}")
    };
    unknown.map(text).collect()
}
