//! Watches over the program's long-lived tasks. Takes their heartbeats and panics, returns the tasks that are late or
//! down. Read by `/healthz`, `/metrics` and the service manager's watchdog.
//!
//! No task may end or stall unnoticed. A task that panics continues or is started again after a pause. A task that
//! makes no turn for longer than its patience, or waits for its restart, is returned by [`Tasks::troubles`].

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

/// The pause before a task that panicked is started again. The pause doubles with every panic in a row.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// All tasks of one process.
#[derive(Debug)]
pub struct Tasks {
    begun: Instant,
    all: Mutex<Vec<Arc<Task>>>,
}

/// The state of one task.
#[derive(Debug)]
struct Task {
    name: String,
    /// Whether the server can't serve without this task.
    is_vital: bool,
    /// The longest time between two turns; `None` for a task that may wait for clients for ever.
    patience: Option<Duration>,
    /// The time of the last turn, in milliseconds since `begun`.
    last: AtomicU64,
    is_down: AtomicBool,
    panics: AtomicU64,
    begun: Instant,
}

/// A task that is late or down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// The task.
    pub task: String,
    /// Whether the server can't serve without this task.
    pub is_vital: bool,
    /// The time since the task's last turn; `None` if the task is down and waits for its restart.
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
    /// Whether the task is late or down.
    pub is_in_trouble: bool,
    /// How many times the task panicked or failed, and was started again.
    pub panics: u64,
}

impl Default for Tasks {
    fn default() -> Self {
        Self { begun: Instant::now(), all: Mutex::default() }
    }
}

impl Tasks {
    /// Adds a task that makes a turn at least every `patience`. A task is vital if the server can't serve without it.
    pub fn beating(&self, name: impl Into<String>, is_vital: bool, patience: Duration) -> Pulse {
        self.add(name.into(), is_vital, Some(patience))
    }

    /// Adds a vital task that may wait for ever.
    pub fn waiting(&self, name: impl Into<String>) -> Pulse {
        self.add(name.into(), true, None)
    }

    /// Adds a task to the list of watched tasks.
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

    /// The vital tasks that are late or down.
    #[must_use]
    pub fn vital_troubles(&self) -> Vec<Trouble> {
        self.troubles().into_iter().filter(|trouble| trouble.is_vital).collect()
    }

    /// The tasks that are late or down at this time after the start.
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

#[inline]
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Held by a task, to report that it is alive.
#[derive(Debug, Clone)]
pub struct Pulse(Arc<Task>);

impl Pulse {
    /// Reports a turn.
    #[inline]
    pub fn beat(&self) {
        self.0.last.store(millis(self.0.begun.elapsed()), Ordering::Relaxed);
    }

    /// Reports that the task panicked or failed.
    pub fn panicked(&self) {
        self.0.panics.fetch_add(1, Ordering::Relaxed);
    }

    /// Reports that the task is down and waits for its restart, or is running again.
    pub fn set_down(&self, is_down: bool) {
        self.0.is_down.store(is_down, Ordering::Relaxed);
    }
}

/// The growing pauses before the restarts of a task that panics again and again.
#[derive(Debug, Default)]
pub struct Backoff(u32);

impl Backoff {
    /// The next pause.
    pub fn next_pause(&mut self) -> Duration {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.0.min(10)).min(LONGEST_PAUSE);
        self.0 += 1;
        pause
    }

    /// Begins with the first pause again.
    pub fn reset(&mut self) {
        self.0 = 0;
    }
}

/// The error of a future that panicked. The panic hook has logged the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Panicked;

/// Runs a future. If it panics, only this future ends.
///
/// # Errors
/// If it panics.
pub async fn catching_panics<F: Future>(future: F) -> Result<F::Output, Panicked> {
    let mut future = pin!(future);
    poll_fn(move |context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(polled) => polled.map(Ok),
        Err(_) => Poll::Ready(Err(Panicked)),
    })
    .await
}

/// Why a task returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The task was asked to end.
    OnRequest,
    /// The task failed, and has logged the reason.
    Failed,
}

/// Runs a task until it is asked to end. After a panic or a failure the task is started again, after a growing pause.
pub async fn supervise<F: Future<Output = Ended>>(pulse: Pulse, mut make: impl FnMut() -> F) {
    let mut backoff = Backoff::default();
    loop {
        let begun = Instant::now();
        if catching_panics(make()).await == Ok(Ended::OnRequest) {
            return;
        }
        pulse.panicked();
        pulse.set_down(true);
        // If the task ran for a long time, this isn't a failure in a row.
        if begun.elapsed() > LONGEST_PAUSE {
            backoff.reset();
        }
        let pause = backoff.next_pause();
        error!("{}: ended by a fault; it is started again in {} ms", pulse.0.name, pause.as_millis());
        tokio::time::sleep(pause).await;
        pulse.set_down(false);
    }
}
