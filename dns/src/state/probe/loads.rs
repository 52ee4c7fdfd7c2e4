//! Reads the load of endpoints. Takes a load source (a metrics page) from the owner, runs a task that fetches the page
//! again and again, and sends each result back to the owner.
//!
//! The first fetch happens at once. The second comes after a part of the interval that differs between sources, so that
//! a node doesn't fetch all pages at the same moment. A source that fails is fetched less often until it answers again.

use std::sync::Arc;
use std::time::Duration;

use bailiwick_host::system::tasks::catching_panics;
use bailiwick_rules::load::EngineReading;
use bailiwick_rules::rules::LoadSource;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::{Prober, Running, SLOW, Slots, first_pause};

/// The longest pause after failures, in intervals of the source.
const LONGEST_PAUSE: u32 = 8;

/// A source's number. The owner assigns each number once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SourceId(pub u64);

/// The result of fetching one page.
#[derive(Debug)]
pub(crate) struct LoadResult {
    /// The source of the page.
    pub source: SourceId,
    /// The reading, or the reason why there is none.
    pub outcome: Result<EngineReading, String>,
}

/// Starts the task of a source.
pub(super) fn start<P: Prober>(
    id: SourceId,
    source: LoadSource,
    prober: Arc<P>,
    slots: Arc<Slots>,
    results: mpsc::Sender<LoadResult>,
) -> Running {
    Running(tokio::spawn(run(id, source, prober, slots, results)))
}

/// Fetches the source's page until the owner no longer receives results.
async fn run<P: Prober>(
    id: SourceId,
    source: LoadSource,
    prober: Arc<P>,
    slots: Arc<Slots>,
    results: mpsc::Sender<LoadResult>,
) {
    let interval = source.interval.to_std();
    let mut due = Instant::now();
    let mut first_pause = Some(first_pause(id.0, interval));
    let (mut was_slow, mut failures) = (false, 0);
    loop {
        sleep_until(due).await;
        let fetch = async {
            let begun = Instant::now();
            let outcome = catching_panics(timeout(source.timeout.to_std(), prober.read_load(&source))).await;
            (outcome, begun.elapsed() >= SLOW)
        };
        let Some((outcome, is_slow)) = slots.run(was_slow, fetch).await else { return };
        let outcome =
            outcome.map(|outcome| outcome.unwrap_or_else(|_| Err(format!("no whole page within {}", source.timeout))));
        failures = if matches!(outcome, Ok(Ok(_))) { 0 } else { failures + 1 };
        was_slow = is_slow || failures > 0;
        // A fetch that panicked (`Err`) is a fault of this program, so no result is sent. The next fetch may succeed.
        if let Ok(outcome) = outcome
            && results.send(LoadResult { source: id, outcome }).await.is_err()
        {
            return;
        }
        let pause = first_pause.take().unwrap_or_else(|| pause_after(interval, failures));
        due = (due + pause).max(Instant::now());
    }
}

/// The pause after a number of failures in a row: one interval, doubled with each failure after the first.
fn pause_after(interval: Duration, failures: u32) -> Duration {
    interval * 2_u32.saturating_pow(failures.saturating_sub(1)).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_source_is_fetched_less_often() {
        let pauses: Vec<u64> =
            [0, 1, 2, 3, 4, 5, u32::MAX].map(|failures| pause_after(Duration::from_secs(2), failures).as_secs()).into();
        assert_eq!(pauses, [2, 2, 4, 8, 16, 16, 16]);
    }
}
