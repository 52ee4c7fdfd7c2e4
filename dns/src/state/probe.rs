//! Health checks and readings of loads. Takes the rules' monitors and sources of loads from the owner, runs one task
//! for each, and sends the result of each probe or reading back.

pub(crate) mod authorities;
mod failure;
mod loads;
mod lookups;
mod network;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bailiwick_rules::health::AddressFamily;
use bailiwick_rules::load::EngineReading;
use bailiwick_rules::rules::{Family, LoadSource, Monitor};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use crate::system::tasks::unwinding;
pub(crate) use loads::{LoadResult, SourceId};
pub(crate) use network::NetworkProber;

/// How many probes of endpoints that answer may run at the same time.
const MAX_AT_ONCE: usize = 256;
/// How many probes of slow endpoints may run in addition. An endpoint counts as slow if its last probe was slow or
/// failed.
const MAX_SLOW: usize = 1024;
/// A probe that takes longer is slow.
const SLOW: Duration = Duration::from_millis(500);

/// Carries out one probe or reading.
pub(crate) trait Prober: Send + Sync + 'static {
    /// Probes the monitor's endpoint at `targets`. The error says what failed. The caller applies the timeout.
    fn probe(&self, monitor: &Monitor, targets: Targets) -> impl Future<Output = Result<(), String>> + Send;

    /// Reads what the page of a source says; the error says what failed. The caller watches over the time.
    fn read_load(&self, source: &LoadSource) -> impl Future<Output = Result<EngineReading, String>> + Send;
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

    /// The value of a secret.
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
    /// One address has to answer.
    Any,
    /// One address of the family has to answer.
    AnyOf(AddressFamily),
    /// Every address of the family has to answer. A monitor of [`Family::Both`] runs two of these.
    AllOf(AddressFamily),
}

impl Targets {
    /// The targets of a monitor: one, or one for each family.
    #[must_use]
    pub(crate) fn of(family: Family) -> &'static [Self] {
        match family {
            Family::Any => &[Self::Any],
            Family::Ipv4 => &[Self::AnyOf(AddressFamily::Ipv4)],
            Family::Ipv6 => &[Self::AnyOf(AddressFamily::Ipv6)],
            Family::Both => &[Self::AllOf(AddressFamily::Ipv4), Self::AllOf(AddressFamily::Ipv6)],
        }
    }

    /// The family that a probe tests, if the monitor distinguishes families.
    #[must_use]
    pub(crate) fn tested_family(self) -> Option<AddressFamily> {
        if let Self::AllOf(family) = self { Some(family) } else { None }
    }
}

/// A monitor's number, given by the owner and never given again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct MonitorId(pub u64);

/// The result of one probe.
#[derive(Debug)]
pub(crate) struct ProbeResult {
    /// The monitor that it belongs to.
    pub monitor: MonitorId,
    /// What failed, if it did.
    pub outcome: Result<(), String>,
}

/// Starts monitors, and reads sources of loads.
#[derive(Debug)]
pub(crate) struct Probing<P> {
    prober: Arc<P>,
    slots: Arc<Slots>,
    results: mpsc::Sender<ProbeResult>,
    loads: mpsc::Sender<LoadResult>,
}

/// A monitor or source that runs until this is dropped.
#[derive(Debug)]
pub(crate) struct Running(JoinHandle<()>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<P: Prober> Probing<P> {
    /// Sends every result of a probe to `results`, and of a reading to `loads`.
    pub(crate) fn new(prober: P, results: mpsc::Sender<ProbeResult>, loads: mpsc::Sender<LoadResult>) -> Self {
        Self { prober: Arc::new(prober), slots: Arc::default(), results, loads }
    }

    /// Probes at once and then at every interval.
    pub(crate) fn start(&self, id: MonitorId, monitor: Monitor, targets: Targets) -> Running {
        let (prober, slots, results) = (Arc::clone(&self.prober), Arc::clone(&self.slots), self.results.clone());
        Running(tokio::spawn(run(id, (monitor, targets), prober, slots, results)))
    }

    /// Reads at once and then at every interval.
    pub(crate) fn start_reading(&self, id: SourceId, source: LoadSource) -> Running {
        loads::start(id, source, Arc::clone(&self.prober), Arc::clone(&self.slots), self.loads.clone())
    }
}

/// Limits how many probes run at once, and so sockets and memory. Slow endpoints have their own slots, so that they
/// delay no others.
#[derive(Debug)]
struct Slots {
    quick: Semaphore,
    slow: Semaphore,
}

impl Default for Slots {
    fn default() -> Self {
        Self { quick: Semaphore::new(MAX_AT_ONCE), slow: Semaphore::new(MAX_SLOW) }
    }
}

impl Slots {
    /// Runs a probe once a slot is free. If the last probe was slow, this one takes a slow slot. A probe that turns out
    /// to be slow moves to a slow slot, if one is free.
    async fn run<T>(&self, was_slow: bool, probe: impl Future<Output = T>) -> Option<T> {
        let mut probe = std::pin::pin!(probe);
        let first = if was_slow { &self.slow } else { &self.quick };
        let slot = first.acquire().await.ok()?;
        if was_slow {
            return Some(probe.await);
        }
        if let Ok(done) = timeout(SLOW, &mut probe).await {
            return Some(done);
        }
        let _slot = self.slow.try_acquire().inspect(|_| drop(slot));
        Some(probe.await)
    }
}

/// Probes one monitor until its task is aborted or nobody takes the results.
async fn run<P: Prober>(
    id: MonitorId,
    (monitor, targets): (Monitor, Targets),
    prober: Arc<P>,
    slots: Arc<Slots>,
    results: mpsc::Sender<ProbeResult>,
) {
    let interval = monitor.interval.to_std();
    let mut due = Instant::now();
    let mut pause = first_pause(id.0, interval);
    let mut was_slow = false;
    loop {
        sleep_until(due).await;
        let probe = async {
            let begun = Instant::now();
            let outcome = unwinding(timeout(monitor.timeout.to_std(), prober.probe(&monitor, targets))).await;
            (outcome, begun.elapsed() >= SLOW)
        };
        let Some((outcome, is_slow)) = slots.run(was_slow, probe).await else { return };
        was_slow = is_slow || matches!(outcome, Ok(Err(_)));
        // A panic says nothing about the endpoint. The next probe may.
        if let Ok(outcome) = outcome {
            let outcome = outcome.unwrap_or_else(|_| Err(format!("no answer within {}", monitor.timeout)));
            if results.send(ProbeResult { monitor: id, outcome }).await.is_err() {
                return;
            }
        }
        // Missed rounds aren't made up for.
        due = (due + pause).max(Instant::now());
        pause = interval;
    }
}

/// The pause after the first round: from half an interval to a whole one, spread evenly by number. All begin at
/// the same time, and this keeps later rounds apart.
fn first_pause(number: u64, interval: Duration) -> Duration {
    // Multiples of the golden ratio's fraction spread evenly.
    #[allow(clippy::cast_precision_loss)]
    let spread = (number as f64 * 0.618_033_988_749_895).fract();
    interval.mul_f64(0.5 + 0.5 * spread)
}
