//! Reads which version of a bundle each region gets. Called by [`super::rules`]. A bundle is a named, versioned set of
//! files for applications, such as prompts.

use std::collections::BTreeMap;

use super::Context;
use crate::bundle::Version;
use crate::id::RegionId;
use crate::json::{Node, Reader};
use crate::rules::Bundle;

/// Reads a bundle: its version, and the versions for single regions.
pub(super) fn bundle(reader: &mut Reader<'_>, node: &Node, context: &mut Context) -> Option<Bundle> {
    let mut fields = reader.object(node)?;
    let version = fields.required("version", "the version that `bailiwick bundle push` prints", version);
    let regions = fields.optional("regions", |reader, node| regions(reader, node, context));
    fields.finish();
    Some(Bundle { version: version?, regions: regions.unwrap_or_default() })
}

/// A version of a bundle.
pub(super) fn version(reader: &mut Reader<'_>, node: &Node) -> Option<Version> {
    let text = reader.string(node)?;
    Version::parse(text).or_else(|| {
        reader.fail(format!(
            "is {text:?}, which is no version; write the 64 lower-case hex digits that `bailiwick bundle push` prints, \
             or `bailiwick bundle list`"
        ))
    })
}

/// Reads the versions of a bundle for single regions.
fn regions(reader: &mut Reader<'_>, node: &Node, context: &Context) -> Option<BTreeMap<RegionId, Version>> {
    let mut versions = BTreeMap::new();
    for (name, node) in reader.entries(node)? {
        let reader = &mut reader.at(name);
        let version = version(reader, node);
        match RegionId::parse(name).filter(|_| context.regions.iter().any(|region| region == name)) {
            Some(region) => versions.extend(version.map(|version| (region, version))),
            None => {
                let hint = super::value::declared(name, &context.regions);
                reader.fail::<()>(format!("is of the region {name:?}, which isn't declared{hint}"));
            }
        }
    }
    Some(versions)
}
