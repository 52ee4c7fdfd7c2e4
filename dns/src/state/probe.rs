//! Health checks, load readings and readings of replicas. Takes the monitors and sources of the rules from the owner,
//! runs one task for each of them, and sends every result back to the owner.

pub(crate) mod authorities;
mod failure;
mod loads;
mod lookups;
mod model;
mod network;
mod outcome;
mod releases;
mod replicas;
mod secrets;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bailiwick_rules::health::AddressFamily;
use bailiwick_rules::load::EngineReading;
use bailiwick_rules::probe::{next_round, phase};
use bailiwick_rules::release::{CompletionReport, Form, ModelListing, ReleaseSource};
use bailiwick_rules::replica::{ReadFailure, ReplicaReading};
use bailiwick_rules::rules::{Family, LoadSource, Monitor, ReplicaSource};
use bailiwick_rules::time::Timestamp;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use bailiwick_host::system::clock::Clock;
use bailiwick_host::system::tasks::catching_panics;
pub(crate) use loads::{LoadResult, SourceId};
pub(crate) use model::{NodeContext, Places, Tokens};
pub(crate) use network::NetworkProber;
pub(crate) use outcome::{Outcome, ProbeFailure, ProbeSuccess};
pub(crate) use releases::{ReleaseId, ReleaseResult};
pub(crate) use replicas::{CopyId, ReplicaResult};
pub use secrets::SecretFiles;
pub(crate) use secrets::{Secrets, read as read_secret};

/// How many probes may run at the same time, without those of slow endpoints.
const MAX_AT_ONCE: usize = 256;
/// How many probes of slow endpoints may run in addition. An endpoint counts as slow if its last probe was slow or
/// failed.
const MAX_SLOW: usize = 1024;
/// A probe counts as slow if it takes at least this long.
const SLOW: Duration = Duration::from_millis(500);

/// Carries out single probes and readings.
pub(crate) trait Prober: Send + Sync + 'static {
    /// Probes the monitor's endpoint at `targets`. The caller applies the timeout.
    fn probe(
        &self,
        monitor: &Monitor,
        targets: Targets,
    ) -> impl Future<Output = Result<ProbeSuccess, ProbeFailure>> + Send;

    /// Fetches and reads the metrics page of a source; the error says what failed. The caller applies the timeout.
    fn read_load(&self, source: &LoadSource) -> impl Future<Output = Result<EngineReading, String>> + Send;

    /// Asks a source how far a replica's copy (knowledge that regions hold copies of) is behind its leader; the error
    /// says what failed. `clock` gives the time at which the answer arrived. The caller applies the timeout.
    fn read_replica(
        &self,
        source: &ReplicaSource,
        clock: &Clock,
    ) -> impl Future<Output = Result<ReplicaReading, ReadFailure>> + Send;

    /// Asks an endpoint for its list of models; the error says what failed. The caller applies the timeout. A prober
    /// that asks no endpoint what it runs needs neither this method nor [`Prober::ask_prompt`].
    fn list_models(&self, _: &ReleaseSource) -> impl Future<Output = Result<ModelListing, String>> + Send {
        async { Err("nothing is asked here".to_owned()) }
    }

    /// Asks an endpoint one of the fixed prompts. The request has this form, or a simpler one if the endpoint refuses
    /// it. Returns the form that was accepted.
    fn ask_prompt(
        &self,
        _: &ReleaseSource,
        _prompt: usize,
        _: Form,
    ) -> impl Future<Output = Result<(CompletionReport, Form), String>> + Send {
        async { Err("nothing is asked here".to_owned()) }
    }
}

/// Which addresses of a host name one probe tries, and how many of them have to answer.
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

/// A monitor's number. The owner assigns each number once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct MonitorId(pub u64);

/// The result of one probe.
#[derive(Debug)]
pub(crate) struct ProbeResult {
    /// The monitor that ran the probe.
    pub monitor: MonitorId,
    /// When the probe began.
    pub begun: Timestamp,
    /// The outcome of the probe.
    pub outcome: Outcome,
}

/// Starts the tasks of monitors, and of the sources of loads, replicas and releases (what endpoints run).
#[derive(Debug)]
pub(crate) struct Probing<P> {
    prober: Arc<P>,
    slots: Arc<Slots>,
    results: mpsc::Sender<ProbeResult>,
    loads: mpsc::Sender<LoadResult>,
    replicas: mpsc::Sender<ReplicaResult>,
    releases: mpsc::Sender<ReleaseResult>,
    node_context: NodeContext,
}

/// The running task of a monitor or source. Dropping this stops the task.
#[derive(Debug)]
pub(crate) struct Running(JoinHandle<()>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<P: Prober> Probing<P> {
    /// Makes a starter of tasks that send probe results to `results`, load readings to `loads`, readings of replicas to
    /// `replicas`, and what endpoints run to `releases`.
    pub(crate) fn new(
        prober: P,
        results: mpsc::Sender<ProbeResult>,
        loads: mpsc::Sender<LoadResult>,
        replicas: mpsc::Sender<ReplicaResult>,
        releases: mpsc::Sender<ReleaseResult>,
        node_context: NodeContext,
    ) -> Self {
        Self { prober: Arc::new(prober), slots: Arc::default(), results, loads, replicas, releases, node_context }
    }

    /// Starts a monitor, which probes at once and then at every interval. `places` has the endpoints that it watches
    /// and the rest of its budget. If `is_spread` is set, later rounds begin at a time within the interval that depends
    /// on this node's name, so that nodes probe at different times.
    pub(crate) fn start(
        &self,
        id: MonitorId,
        monitor: Monitor,
        targets: Targets,
        places: &Places,
        is_spread: bool,
    ) -> Running {
        let probes = Probes {
            id,
            monitor,
            targets,
            prober: Arc::clone(&self.prober),
            slots: Arc::clone(&self.slots),
            results: self.results.clone(),
        };
        Running(match probes.monitor.probe.model().is_some() {
            true => tokio::spawn(model::run(probes, self.node_context.clone(), places.clone())),
            false => tokio::spawn(run(probes, self.node_context.clone(), is_spread)),
        })
    }

    /// Starts to read a load source, at once and then at every interval.
    pub(crate) fn start_reading(&self, id: SourceId, source: LoadSource) -> Running {
        loads::start(id, source, Arc::clone(&self.prober), Arc::clone(&self.slots), self.loads.clone())
    }

    /// Starts to ask an endpoint what it runs, soon and then at every interval. `tokens` is the rest of the budget of
    /// the endpoint's monitor.
    pub(crate) fn start_asking(&self, id: ReleaseId, source: ReleaseSource, tokens: Tokens) -> Running {
        releases::start(releases::Task {
            id,
            source,
            tokens,
            prober: Arc::clone(&self.prober),
            slots: Arc::clone(&self.slots),
            node_context: self.node_context.clone(),
            results: self.releases.clone(),
        })
    }

    /// Starts to read how far a copy is behind, at once and then at every interval.
    pub(crate) fn start_reading_replica(&self, id: CopyId, source: ReplicaSource) -> Running {
        replicas::start(replicas::Task {
            id,
            source,
            prober: Arc::clone(&self.prober),
            slots: Arc::clone(&self.slots),
            clock: self.node_context.clock.clone(),
            results: self.replicas.clone(),
        })
    }
}

/// Limits how many probes run at once, and with them the sockets and memory in use. Slow endpoints have slots of their
/// own, so that they don't delay the probes of other endpoints.
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
    /// Runs a probe once a slot is free. If the last probe was slow, this probe takes a slow slot. A probe that turns
    /// out to be slow moves to a slow slot, if one is free.
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

/// Everything that the task of one monitor needs.
struct Probes<P> {
    id: MonitorId,
    monitor: Monitor,
    targets: Targets,
    prober: Arc<P>,
    slots: Arc<Slots>,
    results: mpsc::Sender<ProbeResult>,
}

impl<P: Prober> Probes<P> {
    /// Probes once, as soon as a slot is free. `None` if the owner no longer receives results.
    async fn once(&self, was_slow: &mut bool, begun: Timestamp) -> Option<()> {
        let probe = async {
            let began = Instant::now();
            let limit = self.monitor.timeout.to_std();
            let outcome = catching_panics(timeout(limit, self.prober.probe(&self.monitor, self.targets))).await;
            (outcome, began.elapsed() >= SLOW)
        };
        let (outcome, is_slow) = self.slots.run(*was_slow, probe).await?;
        *was_slow = is_slow || matches!(outcome, Ok(Err(_)));
        // A probe that panicked is a fault of this program and says nothing about the endpoint, so no result is sent.
        let Ok(outcome) = outcome else { return Some(()) };
        let outcome = outcome.unwrap_or_else(|_| Err(ProbeFailure::late(&self.monitor)));
        self.send(begun, outcome.map_or_else(Outcome::Failed, Outcome::Passed)).await
    }

    /// Sends the outcome of a round to the owner. `None` if the owner no longer receives results.
    async fn send(&self, begun: Timestamp, outcome: Outcome) -> Option<()> {
        self.results.send(ProbeResult { monitor: self.id, begun, outcome }).await.ok()
    }
}

/// Probes one monitor until its task is aborted or the owner no longer receives results.
async fn run<P: Prober>(probes: Probes<P>, node_context: NodeContext, is_spread: bool) {
    let interval = probes.monitor.interval.to_std();
    let watched = format!("{:?} {:?}", probes.monitor.probe, probes.targets);
    let phase = is_spread.then(|| phase(&node_context.node, &watched, probes.monitor.interval));
    let mut due = Instant::now();
    let mut pause = first_pause(probes.id.0, interval);
    let mut was_slow = false;
    loop {
        sleep_until(due).await;
        let (begun, began) = (node_context.clock.now(), Instant::now());
        if probes.once(&mut was_slow, begun).await.is_none() {
            return;
        }
        let round = |phase| next_round(begun, phase, probes.monitor.interval, 0).since(begun).to_std();
        // If a probe takes longer than the interval, the missed rounds are skipped.
        due = phase.map_or(due + pause, |phase| began + round(phase)).max(Instant::now());
        pause = interval;
    }
}

/// The pause after the first round: between half an interval and a whole interval, depending on the task's number. All
/// tasks begin at the same time; different first pauses keep their later rounds apart.
fn first_pause(number: u64, interval: Duration) -> Duration {
    // The fractional parts of multiples of the golden ratio are spread evenly between 0 and 1.
    #[allow(clippy::cast_precision_loss)]
    let spread = (number as f64 * 0.618_033_988_749_895).fract();
    interval.mul_f64(0.5 + 0.5 * spread)
}
