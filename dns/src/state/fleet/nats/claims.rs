//! Claims of a fleet's nodes in the bucket of state: which one tells an interval of the aggregate. Takes an interval,
//! says whether this node has it. Until NATS is connected, and while it is lost, nobody has any.

use bailiwick_rules::aggregate::Claim;
use bailiwick_rules::observe::Window;
use bailiwick_rules::time::Timestamp;

use super::pools::Pools;
use crate::state::fleet::turns::{PoolStore, WriteOutcome};

/// The key of the last claim. Nodes may write all keys that begin with `lease.`, and no pool has this one.
const KEY: &str = "lease.aggregate";

/// The bucket of state, as soon as there is a connection. Copies share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Claims(Pools);

impl Claims {
    /// What gets each connection.
    pub(super) fn pools(&self) -> Pools {
        self.0.clone()
    }

    /// Claims an interval for a node now. False if another node has it, or a later one.
    ///
    /// # Errors
    /// Why nobody knows.
    pub(crate) async fn claim(&self, node: &str, window: &Window, now: Timestamp) -> Result<bool, String> {
        let claim = serde_json::to_vec(&Claim::new(node, window)).map_err(|error| error.to_string())?;
        let stored = self.0.read(KEY).await?;
        let (bytes, number) = stored.map(|stored| (stored.bytes, stored.number)).unwrap_or_default();
        if bytes == claim {
            // This node has claimed it before, but the answer was lost.
            return Ok(true);
        }
        if !Claim::is_free(window, &bytes, now) {
            return Ok(false);
        }
        // If another node came first, the next look says what it has claimed.
        match self.0.write(KEY, claim, number).await? {
            WriteOutcome::Done => Ok(true),
            WriteOutcome::Conflict => Err("another node claims an interval at the same time".to_owned()),
        }
    }
}
