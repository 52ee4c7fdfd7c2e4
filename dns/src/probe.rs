//! Health checks: the rules' monitors enter from the owner, one task each, and the result of every probe goes back to it.
//!
//! Each probe uses a connection of its own, so that a listener that died is noticed, and no proxy from the environment, so that what is
//! probed is what is named.

mod lookups;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bailiwick_rules::rules::{Monitor, Probe};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use crate::tasks::unwinding;
use lookups::Lookups;

/// How many probes of endpoints that answer may run at the same time.
const MOST_AT_ONCE: usize = 256;
/// How many probes of endpoints that are slow, or gave no answer last time, may run besides: they hold no place that
/// others need.
const MOST_SLOW: usize = 1024;
/// A probe that takes longer is slow.
const SLOW: Duration = Duration::from_millis(500);
/// How much of a body is searched, in bytes.
const MOST_BODY: usize = 64 << 10;

/// Carries out one probe.
pub trait Prober: Send + Sync + 'static {
    /// Tries what the monitor names; the error says what failed. The caller watches over the time.
    fn probe(&self, monitor: &Monitor) -> impl Future<Output = Result<(), String>> + Send;
}

/// Values of the secrets that monitors name.
#[derive(Clone, Default)]
pub struct Secrets(BTreeMap<String, String>);

impl Secrets {
    /// Secrets by name; names that aren't here are looked up in the environment.
    #[must_use]
    pub fn new(values: BTreeMap<String, String>) -> Self {
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

/// Probes over the network.
#[derive(Debug)]
pub struct NetworkProber {
    client: reqwest::Client,
    lookups: Lookups,
    secrets: Secrets,
}

impl NetworkProber {
    /// A prober that verifies TLS by the system's certificates.
    ///
    /// # Errors
    /// When TLS can't be set up; the text says why.
    pub fn new(secrets: Secrets) -> Result<Self, String> {
        // The second to ask finds it installed, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let lookups = Lookups::default();
        let client = reqwest::Client::builder()
            .dns_resolver(Arc::new(lookups.clone()))
            .user_agent(concat!("bailiwick/", env!("CARGO_PKG_VERSION"), " (health check)"))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .pool_max_idle_per_host(0)
            .build()
            .map_err(|error| format!("probes can't use TLS: {}", chain(&error)))?;
        Ok(Self { client, lookups, secrets })
    }

    async fn get(
        &self,
        url: &str,
        status: &[u16],
        body_contains: Option<&str>,
        secret: Option<&str>,
    ) -> Result<(), String> {
        let mut request = self.client.get(url);
        if let Some(name) = secret {
            let value = self.secrets.get(name).ok_or_else(|| format!("the secret {name} has no value on this node"))?;
            request = request.bearer_auth(value);
        }
        let mut response = request.send().await.map_err(|error| chain(&error.without_url()))?;
        let answered = response.status().as_u16();
        if !status.contains(&answered) {
            return Err(format!("answered {answered}, expected {}", list(status)));
        }
        let Some(wanted) = body_contains else { return Ok(()) };
        let mut body = Vec::new();
        while !contains(&body, wanted.as_bytes()) {
            if body.len() == MOST_BODY {
                return Err(format!("the first {MOST_BODY} bytes of the body don't contain {wanted:?}"));
            }
            let chunk = response.chunk().await.map_err(|error| chain(&error.without_url()))?;
            let Some(chunk) = chunk else { return Err(format!("the body doesn't contain {wanted:?}")) };
            body.extend_from_slice(&chunk[..chunk.len().min(MOST_BODY - body.len())]);
        }
        Ok(())
    }
}

impl Prober for NetworkProber {
    async fn probe(&self, monitor: &Monitor) -> Result<(), String> {
        match &monitor.probe {
            Probe::Tcp { address } => {
                let addresses = self.lookups.of_address(address).await?;
                TcpStream::connect(&addresses[..]).await.map(drop).map_err(|error| error.to_string())
            }
            Probe::Http { url, status, body_contains, secret } => {
                let secret = secret.as_ref().map(bailiwick_rules::rules::SecretName::as_str);
                self.get(url.as_url().as_str(), status, body_contains.as_deref(), secret).await
            }
        }
    }
}

fn contains(body: &[u8], wanted: &[u8]) -> bool {
    wanted.is_empty() || body.windows(wanted.len()).any(|window| window == wanted)
}

fn list(status: &[u16]) -> String {
    status.iter().map(u16::to_string).collect::<Vec<_>>().join(" or ")
}

/// An error with its causes: the outermost alone says little more than "error sending request".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// A monitor's number, given by the owner and never given again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MonitorId(pub u64);

/// What one probe brought.
#[derive(Debug)]
pub struct ProbeResult {
    /// Whose probe it was.
    pub monitor: MonitorId,
    /// What failed, if it did.
    pub outcome: Result<(), String>,
}

/// Runs monitors.
#[derive(Debug)]
pub struct Probing<P> {
    prober: Arc<P>,
    places: Arc<Places>,
    results: mpsc::Sender<ProbeResult>,
}

/// A monitor that runs until this is dropped.
#[derive(Debug)]
pub struct Running(JoinHandle<()>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<P: Prober> Probing<P> {
    /// Sends every result to `results`.
    pub fn new(prober: P, results: mpsc::Sender<ProbeResult>) -> Self {
        Self { prober: Arc::new(prober), places: Arc::default(), results }
    }

    /// Probes at once and then at every interval.
    pub fn start(&self, id: MonitorId, monitor: Monitor) -> Running {
        let (prober, places, results) = (Arc::clone(&self.prober), Arc::clone(&self.places), self.results.clone());
        Running(tokio::spawn(run(id, monitor, prober, places, results)))
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
        Self { quick: Semaphore::new(MOST_AT_ONCE), slow: Semaphore::new(MOST_SLOW) }
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
    monitor: Monitor,
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
            let outcome = unwinding(timeout(monitor.timeout.to_std(), prober.probe(&monitor))).await;
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

/// The pause after the first round, which is for everyone at once: from half an interval to a whole, spread evenly over the monitors, so that
/// later rounds aren't.
fn first_pause(id: MonitorId, interval: Duration) -> Duration {
    // Multiples of the golden ratio's fraction never bunch up.
    #[allow(clippy::cast_precision_loss)]
    let spread = (id.0 as f64 * 0.618_033_988_749_895).fract();
    interval.mul_f64(0.5 + 0.5 * spread)
}
