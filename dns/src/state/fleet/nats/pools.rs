//! The pools of quotas and budgets in the bucket of state. Takes keys and bytes, reads and replaces entries for
//! [`turns`](crate::state::fleet::turns). Until NATS is connected, and while it is lost, each turn fails at once.

use std::sync::{Arc, PoisonError, RwLock};

use super::bucket::SwapOutcome;
use super::bus::Bus;
use crate::state::fleet::turns::{PoolStore, Stored, WriteOutcome};

/// The bucket of state, as soon as there is a connection. Copies share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Pools(Arc<RwLock<Option<Bus>>>);

impl Pools {
    /// Uses this connection from now on.
    pub(super) fn connect(&self, bus: &Bus) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(bus.clone());
    }

    fn bus(&self) -> Result<Bus, String> {
        let bus = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        bus.filter(Bus::is_connected).ok_or_else(|| "no NATS server can be reached".to_owned())
    }
}

impl PoolStore for Pools {
    async fn read(&self, key: &str) -> Result<Option<Stored>, String> {
        self.bus()?.state(key).await
    }

    async fn write(&self, key: &str, bytes: Vec<u8>, after: u64) -> Result<WriteOutcome, String> {
        match self.bus()?.swap_state(key, &bytes, after).await? {
            SwapOutcome::Done => Ok(WriteOutcome::Done),
            SwapOutcome::Behind => Ok(WriteOutcome::Conflict),
            SwapOutcome::Unknown(why) => Err(why),
        }
    }
}
