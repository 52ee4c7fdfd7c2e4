//! Sends who changes what by the API to a receiver of OTLP. Takes events from the API, gathers them, and lets a task
//! post them. Started by `serve`, if `bailiwick.toml` has `[api.access_log]`.
//!
//! No request waits for this. What can't be sent is lost, and counted.

mod event;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bailiwick_host::system::tasks::{Ended, Tasks, supervise};
use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{info, warn};

use crate::program::config::AccessLog as Settings;
use crate::program::metrics::{LostAccess, Metrics};
use crate::program::otlp::{ANSWER, PATIENCE, PAUSES, Posted, Poster};
use crate::state::probe::Secrets;
pub(crate) use event::Access;

/// How long events are gathered for one post.
const GATHER: Duration = Duration::from_secs(1);
/// The most events of one post.
const MOST: usize = 256;
/// The most events that wait for a post.
const QUEUE: usize = 4_096;
/// After so long without a sign of the task, something is wrong with it.
const LATE: Duration = Duration::from_secs(120);

/// Where events of the API go. By default nowhere.
#[derive(Default)]
pub(crate) struct AccessLog {
    running: Option<Running>,
}

/// What the API has of the task.
struct Running {
    metrics: Arc<Metrics>,
    /// `None` after [`AccessLog::finish`].
    queue: Mutex<Option<mpsc::Sender<Access>>>,
    task: Mutex<Option<JoinHandle<()>>>,
    /// Becomes true when the process ends. Then nothing is sent again.
    is_ending: watch::Sender<bool>,
}

impl fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessLog").field("is_on", &self.running.is_some()).finish()
    }
}

impl AccessLog {
    /// Starts the task.
    ///
    /// # Errors
    /// When TLS can't be set up.
    pub(crate) fn start(
        settings: &Settings,
        node: &str,
        secrets: Secrets,
        metrics: Arc<Metrics>,
        tasks: &Tasks,
    ) -> Result<Self, String> {
        let (queue, events) = mpsc::channel(QUEUE);
        let (is_ending, ending) = watch::channel(false);
        metrics.accesses.begin();
        let sender = Sender {
            settings: settings.clone(),
            node: node.to_owned(),
            posts: Poster::new("access log", secrets)?,
            metrics: Arc::clone(&metrics),
            ending,
        };
        let events = Arc::new(tokio::sync::Mutex::new(events));
        let pulse = tasks.beating("access log", false, LATE);
        let beat = pulse.clone();
        let task = tokio::spawn(supervise(pulse, move || {
            let (sender, events, beat) = (sender.clone(), Arc::clone(&events), beat.clone());
            async move { sender.run(&mut *events.lock().await, || beat.beat()).await }
        }));
        let queue = Mutex::new(Some(queue));
        Ok(Self { running: Some(Running { metrics, queue, task: Mutex::new(Some(task)), is_ending }) })
    }

    /// Gives an event to the task.
    pub(crate) fn send(&self, access: Access) {
        let Some(Running { metrics, queue, .. }) = &self.running else { return };
        let queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
        let is_sent = queue.as_ref().is_some_and(|queue| queue.try_send(access).is_ok());
        if !is_sent {
            metrics.accesses.lost(LostAccess::Full, 1);
        }
    }

    /// Sends what waits, once, and ends the task. What the receiver doesn't take in this time is lost.
    pub(crate) async fn finish(&self, patience: Duration) {
        let Some(Running { queue, task, is_ending, .. }) = &self.running else { return };
        is_ending.send_replace(true);
        drop(queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        let task = task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task
            && timeout(patience, task).await.is_err()
        {
            warn!("the receiver of the access log doesn't answer; the last events are lost");
        }
    }
}

/// The task.
#[derive(Clone)]
struct Sender {
    settings: Settings,
    node: String,
    posts: Poster,
    metrics: Arc<Metrics>,
    ending: watch::Receiver<bool>,
}

impl Sender {
    /// Posts what comes, until the API has no more.
    async fn run(mut self, events: &mut mpsc::Receiver<Access>, beat: impl Fn()) -> Ended {
        loop {
            beat();
            // While nobody changes anything, the task is alive nevertheless.
            match timeout(ANSWER, events.recv()).await {
                Ok(Some(first)) => {
                    let batch = self.gather(first, events).await;
                    self.post(&batch, &beat).await;
                }
                Ok(None) => return Ended::OnRequest,
                Err(_) => {}
            }
        }
    }

    /// The event, and those that follow soon.
    async fn gather(&mut self, first: Access, events: &mut mpsc::Receiver<Access>) -> Vec<Access> {
        let (mut batch, end) = (vec![first], Instant::now() + GATHER);
        while batch.len() < MOST {
            let next = async {
                tokio::select! {
                    biased;
                    event = events.recv() => event,
                    _ = self.ending.wait_for(|is_ending| *is_ending) => None,
                }
            };
            match timeout_at(end, next).await {
                Ok(Some(event)) => batch.push(event),
                Ok(None) | Err(_) => break,
            }
        }
        batch
    }

    /// Posts a batch until it is taken or lost.
    async fn post(&mut self, batch: &[Access], beat: &impl Fn()) {
        let json = Bytes::from(event::request(&self.node, batch, env!("CARGO_PKG_VERSION")).to_string());
        let (begun, mut pause, count) = (Instant::now(), PAUSES.0, batch.len() as u64);
        let secret = self.settings.secret.as_ref().map(|name| name.as_str().to_owned());
        loop {
            beat();
            let is_last = *self.ending.borrow() || begun.elapsed() >= PATIENCE;
            let why = match self.posts.post(self.settings.otlp.as_url(), secret.as_deref(), &json).await {
                Posted::Taken(answer) => {
                    let rejected = answer.as_deref().map_or(0, event::rejected).min(count);
                    self.metrics.accesses.taken(count - rejected);
                    self.metrics.accesses.lost(LostAccess::Rejected, rejected);
                    return self.note(None);
                }
                Posted::Refused(status) => {
                    self.note(Some(&format!("it answers {}", status.as_u16())));
                    return self.metrics.accesses.lost(LostAccess::Refused, count);
                }
                Posted::NotNow(why) => why,
                // It may have them. Two events of one change do less harm than none.
                Posted::NoAnswer => "it gives no answer".to_owned(),
            };
            self.note(Some(&why));
            if is_last {
                return self.metrics.accesses.lost(LostAccess::Unreachable, count);
            }
            tokio::select! {
                () = sleep(pause) => {}
                _ = self.ending.wait_for(|is_ending| *is_ending) => {}
            }
            pause = pause.saturating_mul(2).min(PAUSES.1);
        }
    }

    /// Logs when the receiver begins or ceases to take what is sent. What it answers isn't logged.
    fn note(&self, failed: Option<&str>) {
        if !self.metrics.accesses.set_failing(failed.is_some()) {
            return;
        }
        match failed {
            Some(reason) => {
                warn!(json.event = "access_log_not_taken", reason, "the receiver doesn't take the access log");
            }
            None => info!(json.event = "access_log_taken", "the receiver takes the access log again"),
        }
    }
}
