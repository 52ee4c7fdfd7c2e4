//! Takes this node's part of each pool from the fleet's store. A pool is what is left of a quota or budget that all
//! nodes share; a turn is one exchange with it. Takes the turns of [`Leases`] that are due, changes the pools in the
//! store by compare-and-set, returns the amounts that the store gave to [`Leases`]. Started by a transport that has a
//! store (NATS).

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bailiwick_host::system::clock::Clock;
use bailiwick_host::system::random;
use bailiwick_host::system::tasks::Ended;
use bailiwick_rules::quota::{Amounts, Stamps, StoreClock};
use bailiwick_rules::table::Table;
use bailiwick_rules::time::Timestamp;
use futures_util::FutureExt;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, timeout};

use crate::state::leases::{BegunTurn, Leases, PoolName};
use crate::state::owner::Handle;

/// How often the task looks for turns that are due.
const LOOK: Duration = Duration::from_millis(100);
/// How long a turn may take, with all its attempts.
const PATIENCE: Duration = Duration::from_secs(1);
/// The most turns at once. Others wait for the next look.
const MOST_AT_ONCE: usize = 64;

/// The content of the store under one key.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    /// The bytes; empty if the key was deleted.
    pub(crate) bytes: Vec<u8>,
    /// The sequence number of the change that wrote the bytes.
    pub(crate) number: u64,
    /// When the store made that change, by the store's clock.
    pub(crate) noted: Timestamp,
}

/// The outcome of a compare-and-set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteOutcome {
    /// The change was made.
    Done,
    /// Another node's change came first.
    Conflict,
}

/// The store of a fleet, as far as pools need it.
pub(crate) trait PoolStore: Clone + Send + Sync + 'static {
    /// Reads a key. An absent key is `None`.
    fn read(&self, key: &str) -> impl Future<Output = Result<Option<Stored>, String>> + Send;
    /// Writes a key, if its newest change has the number `after`. 0 means that there is no change yet.
    fn write(&self, key: &str, bytes: Vec<u8>, after: u64)
    -> impl Future<Output = Result<WriteOutcome, String>> + Send;
}

impl PoolName {
    /// The key in the store. A store may give a dot a meaning of its own, so dots are replaced by equals signs, which
    /// no name contains.
    fn key(&self) -> String {
        let (kind, name) = match self {
            Self::Quota(id) => ("quota", id.as_str()),
            Self::Budget(id) => ("budget", id.as_str()),
        };
        format!("lease.{kind}.{}", name.replace('.', "="))
    }
}

/// What this node knows of the store's clock. Clones share it.
#[derive(Debug, Clone)]
struct Times {
    begun: Instant,
    known: Arc<Mutex<TurnsState>>,
}

#[derive(Debug, Default)]
struct TurnsState {
    clock: StoreClock,
    /// For each pool, the number of a change, and a time by this node's clock at which that change was the newest.
    newest: BTreeMap<PoolName, (u64, Timestamp)>,
}

impl Times {
    fn new() -> Self {
        Self { begun: Instant::now(), known: Arc::default() }
    }

    /// This node's time. It never goes back.
    fn now(&self) -> Timestamp {
        Timestamp(i64::try_from(self.begun.elapsed().as_millis()).unwrap_or(i64::MAX))
    }

    fn with<T>(&self, look: impl FnOnce(&mut TurnsState) -> T) -> T {
        look(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes that the change `number` of a pool was the newest at the time `at`. 0 means that there was no change.
    fn note(&self, pool: &PoolName, number: u64, at: Timestamp) {
        self.with(|state| state.newest.insert(pool.clone(), (number, at)));
    }

    /// The store's time, if it is known after a reading of the pool. The reading began at `asked_at`.
    fn of_store(&self, pool: &PoolName, stored: Option<&Stored>, asked_at: Timestamp) -> Option<Timestamp> {
        self.with(|state| {
            let before = state.newest.insert(pool.clone(), (stored.map_or(0, |stored| stored.number), asked_at));
            if let Some(stored) = stored {
                let after = before.filter(|(number, _)| *number != stored.number).map(|(_, at)| at);
                state.clock.saw(stored.noted, after, self.now());
            }
            state.clock.at(self.now())
        })
    }
}

/// Makes the turns that are due, for as long as the program runs.
pub(crate) async fn run(store: impl PoolStore, handle: Handle) -> Ended {
    let mut turns = Turns::new(store, handle.leases().clone(), handle.clock().clone());
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let snapshot = handle.snapshot_owned();
        handle.leases().share_among(nodes(&handle, snapshot.table()));
        turns.start(snapshot.table());
        looks.tick().await;
    }
}

/// How many nodes the fleet has, including this node: the number of voters, or of nodes that ever reported if that is
/// larger. Nodes that fell silent count, because they may still grant leases.
fn nodes(handle: &Handle, table: &Table) -> u32 {
    let heard = handle.fleet().with(|view| view.peers.len()) + 1;
    let voters = table.fleet().map_or(0, |fleet| fleet.voters.len());
    u32::try_from(heard.max(voters)).unwrap_or(u32::MAX)
}

/// The turns of one node.
struct Turns<S> {
    store: S,
    leases: Leases,
    clock: Clock,
    times: Times,
    under_way: JoinSet<()>,
}

impl<S: PoolStore> Turns<S> {
    fn new(store: S, leases: Leases, clock: Clock) -> Self {
        Self { store, leases, clock, times: Times::new(), under_way: JoinSet::new() }
    }

    /// Starts the turns that are due.
    fn start(&mut self, table: &Table) {
        while self.under_way.try_join_next().is_some() {}
        for begun in self.leases.begin(table, self.clock.now(), MOST_AT_ONCE - self.under_way.len()) {
            let (store, times) = (self.store.clone(), self.times.clone());
            let (leases, clock) = (self.leases.clone(), self.clock.clone());
            self.under_way.spawn(async move {
                // A panic is caught, because a turn that never ends would block all later turns of its pool.
                let turn = AssertUnwindSafe(take(&store, &begun, &times)).catch_unwind();
                let got = turn.await.unwrap_or_else(|_| Err("a fault of this program; please report it".to_owned()));
                if let Err(why) = &got {
                    let pool = begun.pool.key();
                    tracing::debug!(json.event = "pool_unknown", pool, json.reason = why, "{pool}: {why}");
                }
                leases.end(&begun, got.ok(), clock.now(), random::bits());
            });
        }
    }
}

/// Makes one turn. Tries again as long as another node's change comes first.
async fn take(store: &impl PoolStore, begun: &BegunTurn, times: &Times) -> Result<Amounts, String> {
    let attempts = async {
        loop {
            if let Some(got) = attempt(store, begun, times).await? {
                return Ok(got);
            }
        }
    };
    timeout(PATIENCE, attempts).await.unwrap_or_else(|_| Err(format!("no answer within {} ms", PATIENCE.as_millis())))
}

/// Reads the pool and changes it. `None`: another attempt is needed.
async fn attempt(store: &impl PoolStore, begun: &BegunTurn, times: &Times) -> Result<Option<Amounts>, String> {
    let key = begun.pool.key();
    let asked_at = times.now();
    let stored = store.read(&key).await?;
    let bytes = stored.as_ref().map(|stored| &stored.bytes[..]).filter(|bytes| !bytes.is_empty());
    let before = bytes.map_or_else(|| Ok(Stamps::default()), Stamps::read)?;
    let (after, got) = match times.of_store(&begun.pool, stored.as_ref(), asked_at) {
        Some(now) => {
            let (after, got) = before.turn(&begun.limits, &begun.turn, now);
            (after, Some(got))
        }
        // The store's clock isn't known, because the store made no change yet. Writing the unused pool makes one, and
        // the next attempt learns the time from it.
        None => (before, None),
    };
    let (number, sent) = (stored.map_or(0, |stored| stored.number), times.now());
    match store.write(&key, after.write(), number).await? {
        WriteOutcome::Done => {
            times.note(&begun.pool, number, sent);
            Ok(got)
        }
        WriteOutcome::Conflict => Ok(None),
    }
}
