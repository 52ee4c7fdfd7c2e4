//! The operator's settings for a zone's keys. Read from `bailiwick.toml`; followed by [`super::key_set`] and
//! [`super::timeline`].

use bailiwick_rules::time::Millis;

/// The operator's settings for a zone's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// What the parent is told by CDS and CDNSKEY.
    pub cds: Cds,
    /// The TTL of the DNSKEY RRset; whole seconds.
    pub dnskey_ttl: Millis,
    /// The TTL of the DS RRset, which the parent chooses.
    pub ds_ttl: Millis,
    /// The longest time until all nodes use the same files, and all of the parent's servers have the same zone.
    pub propagation: Millis,
}

impl Default for Policy {
    /// Longer than most need: an hour for DNSKEY and propagation, two days for DS.
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

/// What the operator wants the parent to be told of the keys (`cds` of the configuration).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Cds {
    /// Nothing.
    #[default]
    Off,
    /// Which DS it ought to hold.
    Publish,
    /// To remove the DS.
    Delete,
}
