//! Leases in NATS, as the publisher's user. Called by `bailiwick rollout run`.

use bailiwick_rules::fleet::lease::{Entry, Lease};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Buckets, as_list};
use crate::state::fleet::SwapOutcome;

impl Buckets {
    /// The entry of a key; `None` if the key was never written. A note that can't be read is left out, such as a note
    /// of another version of this program.
    ///
    /// # Errors
    /// When it can't be read.
    pub(in crate::program::cli) fn lease<N: DeserializeOwned>(
        &self,
        key: &str,
    ) -> Result<Option<Entry<Option<N>>>, Vec<String>> {
        let stored = self.runtime.block_on(self.bus.state(key)).map_err(as_list)?;
        let entry = stored.map(|stored| {
            let lease = (!stored.bytes.is_empty()).then(|| read(&stored.bytes));
            Entry { number: stored.number, noted: stored.noted, lease }
        });
        Ok(entry)
    }

    /// Writes a lease, if the entry with the number `after` is still the newest of its key; 0 means that there is none.
    ///
    /// # Errors
    /// When it certainly wasn't written.
    pub(in crate::program::cli) fn put_lease<N: Serialize>(
        &self,
        key: &str,
        lease: &Lease<N>,
        after: u64,
    ) -> Result<SwapOutcome, Vec<String>> {
        let bytes = serde_json::to_vec(lease).map_err(|error| as_list(format!("a lease can't be written: {error}")))?;
        self.runtime.block_on(self.bus.swap_state(key, &bytes, after)).map_err(as_list)
    }
}

fn read<N: DeserializeOwned>(bytes: &[u8]) -> Lease<Option<N>> {
    match serde_json::from_slice::<Lease<Value>>(bytes) {
        Ok(Lease { holder, span_ms, note }) => Lease { holder, span_ms, note: serde_json::from_value(note).ok() },
        // The holder may be at work, so its lease is respected.
        Err(_) => Lease { holder: "somebody whose lease can't be read".to_owned(), span_ms: u64::MAX, note: None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_that_can_be_read_in_part_only_is_held_all_the_same() {
        let lease = |holder: &str, span_ms, note| Lease { holder: holder.to_owned(), span_ms, note };
        assert_eq!(read(br#"{"holder":"a","span_ms":5,"note":7}"#), lease("a", 5, Some(7)));
        assert_eq!(read::<u8>(br#"{"holder":"a","span_ms":5,"note":{"new":"form"},"more":1}"#), lease("a", 5, None));
        for other in [&b"{"[..], br#"{"holder":"a"}"#, b"\xff"] {
            let lease = read::<u8>(other);
            assert!(!lease.holder.is_empty() && lease.span_ms == u64::MAX, "{lease:?}");
        }
    }
}
