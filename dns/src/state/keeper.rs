//! Writes to the state directory on a thread of its own, so that a slow or hanging disk delays nothing else. Takes
//! writes from the owner, returns the outcome of each.
//!
//! Of each [`Kind`] of content, only the latest version is written. A failed write is tried again after a pause that
//! grows.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use crate::state::store::{Kind, Store};

/// The pause before a failed write is tried again. The pause doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause before a failed write is tried again.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The result of one attempt to write.
#[derive(Debug)]
pub(crate) struct Attempt {
    /// What was written.
    pub(crate) kind: Kind,
    /// The system's error message, if the write failed.
    pub(crate) outcome: Result<(), String>,
}

/// Writes something to the state directory. Called again if the write fails.
pub(crate) type Write = Box<dyn Fn(&Store) -> io::Result<()> + Send>;

/// Passes writes to the thread. When the keeper is dropped, the thread tries every write that is due once, and ends.
#[derive(Debug)]
pub(crate) struct Keeper(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    due: BTreeMap<Kind, Due>,
    /// What the thread is writing now.
    writing: Option<Kind>,
    is_closed: bool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.due.keys()).finish()
    }
}

/// A write that is due.
struct Due {
    write: Write,
    /// Gets the outcome of the first attempt.
    reply: Option<mpsc::Sender<Result<(), String>>>,
    /// When the write is tried again, and how often it has failed; `None` before the first attempt.
    again: Option<(Instant, u32)>,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.state().is_closed = true;
        self.0.changed.notify_all();
    }
}

impl Keeper {
    /// Starts the thread. The result of each attempt is sent to `attempts`.
    ///
    /// # Errors
    /// When the system can't start a thread.
    pub(crate) fn start(store: Store, attempts: UnboundedSender<Attempt>) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        std::thread::Builder::new().name("state".to_owned()).spawn(move || of_thread.run(&store, &attempts))?;
        Ok(Self(shared))
    }

    /// Passes a write to the thread. If a write of the same kind is still due, the new write replaces it. The receiver
    /// gets the outcome of the first attempt, or nothing if another write replaces this one.
    pub(crate) fn keep(&self, kind: Kind, write: Write) -> mpsc::Receiver<Result<(), String>> {
        let (reply, outcome) = mpsc::channel();
        self.0.state().due.insert(kind, Due { write, reply: Some(reply), again: None });
        self.0.changed.notify_all();
        outcome
    }

    /// A handle that doesn't keep the thread alive.
    pub(crate) fn handle(&self) -> KeeperHandle {
        KeeperHandle(Arc::clone(&self.0))
    }
}

/// Passes writes to the thread, but doesn't keep the thread alive.
#[derive(Debug, Clone)]
pub(crate) struct KeeperHandle(Arc<Shared>);

impl KeeperHandle {
    /// Drops all writes and ends the thread, because another process takes over the directory.
    pub(crate) fn close(&self) {
        let mut state = self.0.state();
        state.is_closed = true;
        state.due.clear();
        drop(state);
        self.0.changed.notify_all();
    }

    /// Passes a write to the thread, as [`Keeper::keep`] does.
    pub(crate) fn keep(&self, kind: Kind, write: Write) {
        self.0.state().due.insert(kind, Due { write, reply: None, again: None });
        self.0.changed.notify_all();
    }

    /// Waits until every write has been tried once, for at most `limit`.
    pub(crate) fn finish(&self, limit: Duration) {
        let end = Instant::now() + limit;
        let mut state = self.0.state();
        while state.writing.is_some() || state.due.values().any(|due| due.again.is_none()) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.0.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Shared {
    /// The thread: does the writes that are due, and tries failed ones again.
    fn run(&self, store: &Store, attempts: &UnboundedSender<Attempt>) {
        while let Some((kind, due)) = self.next() {
            // After a panic in one write, the thread goes on with the others.
            let written = catch_unwind(AssertUnwindSafe(|| (due.write)(store)));
            let written = written.unwrap_or_else(|_| Err(io::Error::other("a fault of this program")));
            let outcome = written.map_err(|error| error.to_string());
            let failed = outcome.is_err();
            let _ = attempts.send(Attempt { kind: kind.clone(), outcome: outcome.clone() });
            if let Some(reply) = &due.reply {
                let _ = reply.send(outcome); // the receiver may be gone
            }
            let mut state = self.state();
            state.writing = None;
            if failed {
                let times = due.again.map_or(0, |(_, times)| times);
                let pause = FIRST_PAUSE.saturating_mul(1 << times.min(8)).min(LONGEST_PAUSE);
                let again = Some((Instant::now() + pause, times + 1));
                // This write is tried again, unless a newer one of its kind has come meanwhile.
                state.due.entry(kind).or_insert(Due { reply: None, again, ..due });
            }
            drop(state);
            self.changed.notify_all();
        }
    }

    /// Waits for the next write to try; `None` at the end.
    fn next(&self) -> Option<(Kind, Due)> {
        let mut state = self.state();
        loop {
            let now = Instant::now();
            let is_due = |due: &Due| due.again.is_none_or(|(at, _)| at <= now);
            let ready = state.due.iter().find(|(_, due)| is_due(due)).map(|(kind, _)| kind.clone());
            if let Some(kind) = ready {
                let due = state.due.remove(&kind)?;
                state.writing = Some(kind.clone());
                return Some((kind, due));
            }
            if state.is_closed {
                return None;
            }
            let next = state.due.values().filter_map(|due| due.again).map(|(at, _)| at).min();
            state = match next {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(at) => {
                    let left = at.saturating_duration_since(now);
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
