//! The program's long-lived tasks. Takes their heartbeats and panics, returns which of them is late or down. Read by
//! `/healthz`, `/metrics` and the service manager's watchdog.
//!
//! No task may end or stall in silence. One that panics goes on or is started again after a pause; one that
//! makes no turn for longer than its patience, or waits for its restart, is named by [`Tasks::troubles`].

#[cfg(test)]
mod tests;

use std::fmt;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use tracing::error;

/// The pause before a task that panicked goes on; it doubles with every panic in a row.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// All tasks of one process.
#[derive(Debug)]
pub struct Tasks {
    begun: Instant,
    all: Mutex<Vec<Arc<Task>>>,
}

#[derive(Debug)]
struct Task {
    name: String,
    /// Whether the server is of no use without it.
    is_vital: bool,
    /// How long it may make no turn; `None` for one that waits for clients and may do so for ever.
    patience: Option<Duration>,
    /// Its last turn, in milliseconds since `begun`.
    last: AtomicU64,
    is_down: AtomicBool,
    panics: AtomicU64,
    begun: Instant,
}

/// A task that isn't as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// The task.
    pub task: String,
    /// Whether the server is of no use without it.
    pub is_vital: bool,
    /// For how long it has made no turn; `None`: it is down and waits for its restart.
    pub silent: Option<Duration>,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.silent {
            Some(silent) => write!(f, "{}: no turn for {} s", self.task, silent.as_secs()),
            None => write!(f, "{}: is down", self.task),
        }
    }
}

/// The state of one task, for metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskHealth {
    /// The task.
    pub task: String,
    /// Whether it is late or down.
    pub is_in_trouble: bool,
    /// How many times it panicked or ended, and went on.
    pub panics: u64,
}

impl Default for Tasks {
    fn default() -> Self {
        Self { begun: Instant::now(), all: Mutex::default() }
    }
}

impl Tasks {
    /// Adds a task that makes a turn at least every `patience`. The server is of no use without a vital one.
    pub fn beating(&self, name: impl Into<String>, is_vital: bool, patience: Duration) -> Pulse {
        self.add(name.into(), is_vital, Some(patience))
    }

    /// Adds a vital task that may wait for ever.
    pub fn waiting(&self, name: impl Into<String>) -> Pulse {
        self.add(name.into(), true, None)
    }

    fn add(&self, name: String, is_vital: bool, patience: Option<Duration>) -> Pulse {
        let task = Arc::new(Task {
            name,
            is_vital,
            patience,
            last: AtomicU64::new(millis(self.begun.elapsed())),
            is_down: AtomicBool::new(false),
            panics: AtomicU64::new(0),
            begun: self.begun,
        });
        self.all().push(Arc::clone(&task));
        Pulse(task)
    }

    /// The tasks that are late or down.
    #[must_use]
    pub fn troubles(&self) -> Vec<Trouble> {
        self.troubles_after(self.begun.elapsed())
    }

    /// The vital ones of them.
    #[must_use]
    pub fn vital_troubles(&self) -> Vec<Trouble> {
        self.troubles().into_iter().filter(|trouble| trouble.is_vital).collect()
    }

    /// The tasks that are late or down when that much time has passed since the start.
    fn troubles_after(&self, passed: Duration) -> Vec<Trouble> {
        self.all().iter().filter_map(|task| task.trouble(passed)).collect()
    }

    /// The state of every task.
    #[must_use]
    pub fn health(&self) -> Vec<TaskHealth> {
        let passed = self.begun.elapsed();
        let health = |task: &Arc<Task>| TaskHealth {
            task: task.name.clone(),
            is_in_trouble: task.trouble(passed).is_some(),
            panics: task.panics.load(Ordering::Relaxed),
        };
        self.all().iter().map(health).collect()
    }

    fn all(&self) -> MutexGuard<'_, Vec<Arc<Task>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Task {
    fn trouble(&self, passed: Duration) -> Option<Trouble> {
        let silent = passed.saturating_sub(Duration::from_millis(self.last.load(Ordering::Relaxed)));
        let is_late = self.patience.is_some_and(|patience| silent > patience);
        let is_down = self.is_down.load(Ordering::Relaxed);
        let silent = is_late.then_some(silent);
        (is_down || is_late).then(|| Trouble { task: self.name.clone(), is_vital: self.is_vital, silent })
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A task's way to tell that it lives.
#[derive(Debug, Clone)]
pub struct Pulse(Arc<Task>);

impl Pulse {
    /// A turn was made.
    pub fn beat(&self) {
        self.0.last.store(millis(self.0.begun.elapsed()), Ordering::Relaxed);
    }

    /// The task panicked, or ended when it shouldn't have.
    pub fn panicked(&self) {
        self.0.panics.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether it is down: it ended and waits for its restart.
    pub fn set_down(&self, is_down: bool) {
        self.0.is_down.store(is_down, Ordering::Relaxed);
    }
}

/// The growing pauses of a task that panics again and again.
#[derive(Debug, Default)]
pub(crate) struct Backoff(u32);

impl Backoff {
    /// The next pause.
    pub(crate) fn next(&mut self) -> Duration {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.0.min(10)).min(LONGEST_PAUSE);
        self.0 += 1;
        pause
    }

    /// All is well again.
    pub(crate) fn reset(&mut self) {
        self.0 = 0;
    }
}

/// What a future that panicked gives. What went wrong was logged by the panic hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Panicked;

/// Runs a future whose panics end nothing but itself.
pub(crate) async fn unwinding<F: Future>(future: F) -> Result<F::Output, Panicked> {
    let mut future = pin!(future);
    poll_fn(move |context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(polled) => polled.map(Ok),
        Err(_) => Poll::Ready(Err(Panicked)),
    })
    .await
}

/// Whether a task that returned was to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It was told to.
    AsTold,
    /// Something failed, which it has logged.
    Failed,
}

/// Runs a task that is to go on until it is told to end: after a panic or a failure it is made again, after a pause
/// that grows.
pub(crate) async fn supervise<F: Future<Output = Ended>>(pulse: Pulse, mut make: impl FnMut() -> F) {
    let mut backoff = Backoff::default();
    loop {
        let begun = Instant::now();
        if unwinding(make()).await == Ok(Ended::AsTold) {
            return;
        }
        pulse.panicked();
        pulse.set_down(true);
        // One that ran for long failed for another reason.
        if begun.elapsed() > LONGEST_PAUSE {
            backoff.reset();
        }
        let pause = backoff.next();
        error!("{}: ended by a fault; it is started again in {} ms", pulse.0.name, pause.as_millis());
        tokio::time::sleep(pause).await;
        pulse.set_down(false);
    }
}
