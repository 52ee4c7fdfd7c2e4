//! Writes to the state directory on a thread of its own, so that a slow or hanging disk delays nothing else. Takes what
//! to keep from the owner, returns how the writing went.
//!
//! Only the latest version of each thing is written. A failed write is tried again after a pause that grows.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use crate::state::store::{Kind, Store};

/// The pause before something that couldn't be written is tried again; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The result of one attempt to write something.
#[derive(Debug)]
pub(crate) struct Attempt {
    /// What was written.
    pub(crate) kind: Kind,
    /// What the system said, if it failed.
    pub(crate) outcome: Result<(), String>,
}

/// Writes something to the state directory; called again if it fails.
pub(crate) type Write = Box<dyn Fn(&Store) -> io::Result<()> + Send>;

/// Hands the thread what it has to write. When this is dropped, everything due is tried once, and the thread ends.
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
    /// What is being written just now.
    writing: Option<Kind>,
    is_closed: bool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.due.keys()).finish()
    }
}

/// Something that is to be written.
struct Due {
    write: Write,
    /// Gets the outcome of the first attempt.
    reply: Option<mpsc::Sender<Result<(), String>>>,
    /// When it is tried again, after it failed so many times.
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
    /// When the system gives no thread.
    pub(crate) fn start(store: Store, attempts: UnboundedSender<Attempt>) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let ours = Arc::clone(&shared);
        std::thread::Builder::new().name("state".to_owned()).spawn(move || ours.run(&store, &attempts))?;
        Ok(Self(shared))
    }

    /// Has something written, in place of whatever was due of its kind. The receiver gets the outcome of the first
    /// attempt, or nothing if another version takes its place.
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

/// Hands the thread what it has to write, but doesn't keep it alive.
#[derive(Debug, Clone)]
pub(crate) struct KeeperHandle(Arc<Shared>);

impl KeeperHandle {
    /// Has nothing written any more, as the directory is another process's.
    pub(crate) fn close(&self) {
        let mut state = self.0.state();
        state.is_closed = true;
        state.due.clear();
        drop(state);
        self.0.changed.notify_all();
    }

    /// Has something written, as [`Keeper::keep`] does.
    pub(crate) fn keep(&self, kind: Kind, write: Write) {
        self.0.state().due.insert(kind, Due { write, reply: None, again: None });
        self.0.changed.notify_all();
    }

    /// Waits until everything has been tried once, for at most `limit`.
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
    fn run(&self, store: &Store, attempts: &UnboundedSender<Attempt>) {
        while let Some((kind, due)) = self.next() {
            // A fault of this program in one write is no reason to keep nothing any more.
            let written = catch_unwind(AssertUnwindSafe(|| (due.write)(store)));
            let written = written.unwrap_or_else(|_| Err(io::Error::other("a fault of this program")));
            let outcome = written.map_err(|error| error.to_string());
            let failed = outcome.is_err();
            let _ = attempts.send(Attempt { kind: kind.clone(), outcome: outcome.clone() });
            if let Some(reply) = &due.reply {
                let _ = reply.send(outcome); // whoever asked may have gone
            }
            let mut state = self.state();
            state.writing = None;
            if failed {
                let times = due.again.map_or(0, |(_, times)| times);
                let pause = FIRST_PAUSE.saturating_mul(1 << times.min(8)).min(LONGEST_PAUSE);
                let again = Some((Instant::now() + pause, times + 1));
                // A newer version has been handed in meanwhile, or this one is tried again.
                state.due.entry(kind).or_insert(Due { reply: None, again, ..due });
            }
            drop(state);
            self.changed.notify_all();
        }
    }

    /// The next to be tried; `None` at the end.
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
