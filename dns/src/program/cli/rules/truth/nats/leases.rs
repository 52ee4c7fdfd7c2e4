//! Leases in NATS, as the publisher's user. Called by `bailiwick rollout run`.

use bailiwick_rules::fleet::lease::{Entry, Lease};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Buckets, one};
use crate::state::fleet::Swapped;

impl Buckets {
    /// What stands under a key. `None` if nothing ever did.
    ///
    /// # Errors
    /// When it can't be read.
    pub(in crate::program::cli) fn lease<N: DeserializeOwned>(
        &self,
        key: &str,
    ) -> Result<Option<Entry<N>>, Vec<String>> {
        let stored = self.runtime.block_on(self.bus.state(key)).map_err(one)?;
        let entry = stored.map(|stored| {
            let lease = serde_json::from_slice(&stored.bytes).ok();
            Entry { number: stored.number, noted: stored.noted, lease }
        });
        Ok(entry)
    }

    /// Writes a lease after the change of this number.
    ///
    /// # Errors
    /// When it certainly wasn't written.
    pub(in crate::program::cli) fn put_lease<N: Serialize>(
        &self,
        key: &str,
        lease: &Lease<N>,
        after: u64,
    ) -> Result<Swapped, Vec<String>> {
        let bytes = serde_json::to_vec(lease).map_err(|error| one(format!("a lease can't be written: {error}")))?;
        self.runtime.block_on(self.bus.swap_state(key, &bytes, after)).map_err(one)
    }
}
