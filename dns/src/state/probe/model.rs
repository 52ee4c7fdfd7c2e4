//! The task of a monitor that asks a model for a token. Takes the monitor and the observations of edge Workers, sends
//! the outcome of each round to the owner. A round is skipped if a client was served lately, or if the budget is spent.

use std::sync::{Arc, Mutex, PoisonError};

use bailiwick_host::system::clock::Clock;
use bailiwick_host::system::random;
use bailiwick_rules::id::{EndpointId, RegionId};
use bailiwick_rules::probe::{ProbeTokens, next_round, phase};
use bailiwick_rules::rules::ProbeBudget;
use bailiwick_rules::time::{Millis, Timestamp};
use tokio::time::{Instant, sleep_until};

use super::{Outcome, Prober, Probes};
use crate::state::observed::Observed;

/// What tasks of monitors know about the node that they run on.
#[derive(Debug, Clone)]
pub(crate) struct NodeContext {
    /// The node's clock.
    pub clock: Clock,
    /// The node's name. Nodes with different names probe at different times.
    pub node: Arc<str>,
    /// The observations that Workers reported.
    pub observed: Observed,
}

/// The endpoints that a monitor watches, and the rest of its token budget. The owner sets the endpoints whenever the
/// rules change.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places {
    endpoints: Arc<Mutex<Vec<(RegionId, EndpointId)>>>,
    tokens: Tokens,
}

impl Places {
    /// Replaces the endpoints that the monitor watches.
    pub(crate) fn set(&self, places: Vec<(RegionId, EndpointId)>) {
        *self.endpoints.lock().unwrap_or_else(PoisonError::into_inner) = places;
    }

    /// The rest of the monitor's budget.
    pub(crate) fn tokens(&self) -> Tokens {
        self.tokens.clone()
    }

    /// When one of the endpoints last answered a client, as far as Workers reported.
    fn served_at(&self, observed: &Observed) -> Option<Timestamp> {
        let places = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        observed.with(|sums| places.iter().filter_map(|(region, endpoint)| sums.served_at(region, endpoint)).max())
    }
}

/// The rest of a monitor's token budget, shared by all tasks that the budget pays for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tokens(Arc<Mutex<Option<ProbeTokens>>>);

impl Tokens {
    /// Takes the tokens of one probe. Without a budget there are always enough.
    ///
    /// # Errors
    /// If there aren't enough tokens: the time at which there will be enough.
    pub(super) fn take(&self, budget: Option<ProbeBudget>, now: Timestamp) -> Result<(), Timestamp> {
        let Some(budget) = budget else { return Ok(()) };
        let mut purse = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        purse.get_or_insert_with(|| ProbeTokens::new(budget, now)).take(now)
    }
}

/// Probes until the task is aborted or the owner no longer receives results.
pub(super) async fn run<P: Prober>(probes: Probes<P>, node: NodeContext, places: Places) {
    let Some(model) = probes.monitor.probe.model() else { return };
    let interval = probes.monitor.interval;
    let endpoint_and_model = format!("{} {}", model.http.url, model.model);
    let phase = phase(&node.node, &endpoint_and_model, interval);
    let tokens = places.tokens();
    let mut was_slow = false;
    loop {
        let (begun, begun_instant) = (node.clock.now(), Instant::now());
        let served = places.served_at(&node.observed).filter(|at| is_within(*at, begun, interval));
        let unpaid = if served.is_some() { None } else { tokens.take(model.budget, begun).err() };
        let sent = match (served, unpaid) {
            (Some(at), _) => probes.send(begun, Outcome::Served(at)).await,
            (None, Some(until)) => probes.send(begun, Outcome::Unpaid(until)).await,
            (None, None) => probes.once(&mut was_slow, begun).await,
        };
        if sent.is_none() {
            return;
        }
        let next = next_round(begun, phase, interval, random::bits());
        // If a probe takes longer than the interval, the missed rounds are skipped.
        sleep_until((begun_instant + next.since(begun).to_std()).max(Instant::now())).await;
    }
}

/// Whether an answer is no older than an interval.
fn is_within(at: Timestamp, now: Timestamp, interval: Millis) -> bool {
    now.since(at) <= interval
}
