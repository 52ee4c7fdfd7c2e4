//! Health checks. Takes the rules' monitors from the owner, runs one task for each, and sends the result of each probe
//! back.

pub(crate) mod authorities;
mod failure;
mod lookups;
mod network;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bailiwick_rules::health::AddressFamily;
use bailiwick_rules::rules::{Family, Monitor};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use crate::system::tasks::unwinding;
pub(crate) use network::NetworkProber;

/// How many probes of endpoints that answer may run at the same time.
const MAX_AT_ONCE: usize = 256;
/// How many probes of endpoints that are slow, or gave no answer last time, may run besides: they hold no place that
/// others need.
const MAX_SLOW: usize = 1024;
/// A probe that takes longer is slow.
const SLOW: Duration = Duration::from_millis(500);

/// Carries out one probe.
pub(crate) trait Prober: Send + Sync + 'static {
    /// Tries what the monitor names, by these of its addresses; the error says what failed. The caller watches over the
    /// time.
    fn probe(&self, monitor: &Monitor, targets: Targets) -> impl Future<Output = Result<(), String>> + Send;
}

/// Values of the secrets that monitors name.
#[derive(Clone, Default)]
pub(crate) struct Secrets(BTreeMap<String, String>);

impl Secrets {
    /// Secrets by name; names that aren't here are looked up in the environment.
    #[must_use]
    #[cfg(test)]
    pub(crate) fn new(values: BTreeMap<String, String>) -> Self {
        Self(values)
    }

    fn get(&self, name: &str) -> Option<String> {
        self.0.get(name).cloned().or_else(|| std::env::var(name).ok())
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Which addresses of a name one probe tries, and how many of them have to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Targets {
    /// Whichever answers.
    Any,
    /// Whichever answers of one family.
    AnyOf(AddressFamily),
    /// All of one family: half of a monitor of [`Family::Both`].
    AllOf(AddressFamily),
}

impl Targets {
    /// Those that a monitor of this family needs: one, or one for each half.
    #[must_use]
    pub(crate) fn of(family: Family) -> &'static [Self] {
        match family {
            Family::Any => &[Self::Any],
            Family::Ipv4 => &[Self::AnyOf(AddressFamily::Ipv4)],
            Family::Ipv6 => &[Self::AnyOf(AddressFamily::Ipv6)],
            Family::Both => &[Self::AllOf(AddressFamily::Ipv4), Self::AllOf(AddressFamily::Ipv6)],
        }
    }

    /// The family whose health a probe is, where the families are told apart.
    #[must_use]
    pub(crate) fn tested_family(self) -> Option<AddressFamily> {
        if let Self::AllOf(family) = self { Some(family) } else { None }
    }
}

/// A monitor's number, given by the owner and never given again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct MonitorId(pub u64);

/// What one probe brought.
#[derive(Debug)]
pub(crate) struct ProbeResult {
    /// Whose probe it was.
    pub monitor: MonitorId,
    /// What failed, if it did.
    pub outcome: Result<(), String>,
}

/// Runs monitors.
#[derive(Debug)]
pub(crate) struct Probing<P> {
    prober: Arc<P>,
    places: Arc<Places>,
    results: mpsc::Sender<ProbeResult>,
}

/// A monitor that runs until this is dropped.
#[derive(Debug)]
pub(crate) struct Running(JoinHandle<()>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<P: Prober> Probing<P> {
    /// Sends every result to `results`.
    pub(crate) fn new(prober: P, results: mpsc::Sender<ProbeResult>) -> Self {
        Self { prober: Arc::new(prober), places: Arc::default(), results }
    }

    /// Probes at once and then at every interval.
    pub(crate) fn start(&self, id: MonitorId, monitor: Monitor, targets: Targets) -> Running {
        let (prober, places, results) = (Arc::clone(&self.prober), Arc::clone(&self.places), self.results.clone());
        Running(tokio::spawn(run(id, (monitor, targets), prober, places, results)))
    }
}

/// Places for probes, which bound sockets and memory. Endpoints that hang have their own, so that they starve nobody.
#[derive(Debug)]
struct Places {
    quick: Semaphore,
    slow: Semaphore,
}

impl Default for Places {
    fn default() -> Self {
        Self { quick: Semaphore::new(MAX_AT_ONCE), slow: Semaphore::new(MAX_SLOW) }
    }
}

impl Places {
    /// Runs a probe once there is a place for it. One that was slow last time waits for a place among the slow ones;
    /// another that turns out to be slow goes over to them, if there is room.
    async fn run<T>(&self, was_slow: bool, probe: impl Future<Output = T>) -> Option<T> {
        let mut probe = std::pin::pin!(probe);
        let first = if was_slow { &self.slow } else { &self.quick };
        let place = first.acquire().await.ok()?;
        if was_slow {
            return Some(probe.await);
        }
        if let Ok(done) = timeout(SLOW, &mut probe).await {
            return Some(done);
        }
        let _place = self.slow.try_acquire().inspect(|_| drop(place));
        Some(probe.await)
    }
}

async fn run<P: Prober>(
    id: MonitorId,
    (monitor, targets): (Monitor, Targets),
    prober: Arc<P>,
    places: Arc<Places>,
    results: mpsc::Sender<ProbeResult>,
) {
    let interval = monitor.interval.to_std();
    let mut due = Instant::now();
    let mut pause = first_pause(id, interval);
    let mut was_slow = false;
    loop {
        sleep_until(due).await;
        let probe = async {
            let begun = Instant::now();
            let outcome = unwinding(timeout(monitor.timeout.to_std(), prober.probe(&monitor, targets))).await;
            (outcome, begun.elapsed() >= SLOW)
        };
        let Some((outcome, is_slow)) = places.run(was_slow, probe).await else { return };
        was_slow = is_slow || matches!(outcome, Ok(Err(_)));
        // A probe that panics says nothing of what it probes; the next one may.
        if let Ok(outcome) = outcome {
            let outcome = outcome.unwrap_or_else(|_| Err(format!("no answer within {}", monitor.timeout)));
            if results.send(ProbeResult { monitor: id, outcome }).await.is_err() {
                return;
            }
        }
        // Beats that were missed aren't made up for.
        due = (due + pause).max(Instant::now());
        pause = interval;
    }
}

/// The pause after the first round, which is for everyone at once: from half an interval to a whole, spread evenly over
/// the monitors, so that later rounds aren't.
fn first_pause(id: MonitorId, interval: Duration) -> Duration {
    // Multiples of the golden ratio's fraction never bunch up.
    #[allow(clippy::cast_precision_loss)]
    let spread = (id.0 as f64 * 0.618_033_988_749_895).fract();
    interval.mul_f64(0.5 + 0.5 * spread)
}
