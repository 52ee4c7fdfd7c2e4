//! The operator's settings for a zone's keys. They come from `bailiwick.toml`, and are used by [`super::key_set`] and
//! [`super::timeline`].

use bailiwick_rules::time::Millis;

/// The operator's settings for a zone's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Which CDS and CDNSKEY records the zone publishes for its parent.
    pub cds: Cds,
    /// The TTL of the DNSKEY RRset, in whole seconds.
    pub dnskey_ttl: Millis,
    /// The TTL of the DS RRset, which the parent chooses.
    pub ds_ttl: Millis,
    /// The longest time until all nodes have a change of the keys, and all of the parent's servers have a change of the
    /// DS.
    pub propagation: Millis,
}

impl Default for Policy {
    /// Careful values, longer than most zones need: an hour for DNSKEY and propagation, two days for DS.
    fn default() -> Self {
        let hour = 3_600_000;
        Self { cds: Cds::Off, dnskey_ttl: Millis(hour), ds_ttl: Millis(48 * hour), propagation: Millis(hour) }
    }
}

impl Policy {
    /// The TTL of the DNSKEY RRset in seconds.
    #[must_use]
    pub fn dnskey_ttl_seconds(&self) -> u32 {
        u32::try_from(self.dnskey_ttl.0 / 1000).unwrap_or(u32::MAX)
    }
}

/// Which CDS and CDNSKEY records the zone publishes (`cds` of the configuration).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Cds {
    /// No CDS and CDNSKEY records.
    #[default]
    Off,
    /// Records that ask the parent for the DS of the current keys.
    Publish,
    /// Records that ask the parent to remove the DS.
    Delete,
}
