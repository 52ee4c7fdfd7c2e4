//! The real country database, and addresses it knows.

use std::path::PathBuf;

/// An address of Deutsche Telekom.
pub const GERMAN: &str = "91.0.0.1";
/// An address of BT.
pub const BRITISH: &str = "81.128.0.1";
/// An address of AT&T.
pub const AMERICAN: &str = "12.0.0.1";
/// An address kept for documentation: no database places it.
pub const NOWHERE: &str = "192.0.2.1";

/// The country database that `scripts/setup` installs.
///
/// # Panics
/// If it isn't there.
#[must_use]
pub fn database() -> PathBuf {
    let path = root().join("node_modules/@ip-location-db/geo-whois-asn-country-mmdb/geo-whois-asn-country.mmdb");
    assert!(path.exists(), "{} is missing; run scripts/setup", path.display());
    path
}

/// The repository.
#[must_use]
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}
