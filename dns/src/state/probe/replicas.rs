//! Reads how far the copies of replicas (knowledge that regions hold copies of) are behind their leaders. Takes a
//! source, which is the URL where a copy's state is read, from the owner of the node's state; runs a task that asks the
//! source at every interval, and sends each result back to the owner.
//!
//! The first reading happens at once. The second comes after a part of the interval that differs between sources, so
//! that a node doesn't ask all sources at the same moment. A source that fails is asked just as often, because the
//! number of failures in a row decides the status.

use std::sync::Arc;

use bailiwick_host::system::clock::Clock;
use bailiwick_host::system::tasks::catching_panics;
use bailiwick_rules::replica::{ReadFailure, ReplicaReading};
use bailiwick_rules::rules::ReplicaSource;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::{Prober, Running, SLOW, Slots, first_pause};

/// A copy's number. The owner assigns each number once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct CopyId(pub u64);

/// The result of one reading.
#[derive(Debug)]
pub(crate) struct ReplicaResult {
    /// The copy that was read.
    pub copy: CopyId,
    /// The reading, or the reason why there is none.
    pub outcome: Result<ReplicaReading, ReadFailure>,
}

/// Everything that the task of one source needs.
pub(super) struct Task<P> {
    pub(super) id: CopyId,
    pub(super) source: ReplicaSource,
    pub(super) prober: Arc<P>,
    pub(super) slots: Arc<Slots>,
    pub(super) clock: Clock,
    pub(super) results: mpsc::Sender<ReplicaResult>,
}

/// Starts the task of a source.
pub(super) fn start<P: Prober>(task: Task<P>) -> Running {
    Running(tokio::spawn(run(task)))
}

/// Asks the source again and again, until the owner no longer receives results.
async fn run<P: Prober>(task: Task<P>) {
    let Task { id, source, prober, slots, clock, results } = task;
    let interval = source.interval.to_std();
    let (mut due, mut pause, mut was_slow) = (Instant::now(), first_pause(id.0, interval), false);
    loop {
        sleep_until(due).await;
        let ask = async {
            let begun = Instant::now();
            let outcome = catching_panics(timeout(source.timeout.to_std(), prober.read_replica(&source, &clock))).await;
            (outcome, begun.elapsed() >= SLOW)
        };
        let Some((outcome, is_slow)) = slots.run(was_slow, ask).await else { return };
        let late = || ReadFailure::Wrong(format!("no whole answer within {}", source.timeout));
        let outcome = outcome.map(|outcome| outcome.unwrap_or_else(|_| Err(late())));
        was_slow = is_slow || !matches!(outcome, Ok(Ok(_)));
        // A reading that panicked (`Err`) is a fault of this program, so no result is sent. The next may succeed.
        if let Ok(outcome) = outcome
            && results.send(ReplicaResult { copy: id, outcome }).await.is_err()
        {
            return;
        }
        due = (due + pause).max(Instant::now());
        pause = interval;
    }
}
