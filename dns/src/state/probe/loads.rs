//! Takes the sources of loads from the owner, runs one task for each, and sends back what each reading brought.
//!
//! A page is fetched at once and then at every interval, spread like health checks. A source that fails is asked less
//! often until it answers again: what it last said is stale by then anyway.

use std::sync::Arc;
use std::time::Duration;

use bailiwick_rules::load::EngineReading;
use bailiwick_rules::rules::LoadSource;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::{Prober, Running, SLOW, Slots, first_pause};
use crate::system::tasks::unwinding;

/// After failures a source is asked at most so many intervals later.
const LONGEST_PAUSE: u32 = 8;

/// A source's number, given by the owner and never given again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SourceId(pub u64);

/// What one reading brought.
#[derive(Debug)]
pub(crate) struct LoadResult {
    /// Whose reading it was.
    pub source: SourceId,
    /// What the page said, or what failed.
    pub outcome: Result<EngineReading, String>,
}

/// Starts to read a source.
pub(super) fn start<P: Prober>(
    id: SourceId,
    source: LoadSource,
    prober: Arc<P>,
    slots: Arc<Slots>,
    results: mpsc::Sender<LoadResult>,
) -> Running {
    Running(tokio::spawn(run(id, source, prober, slots, results)))
}

async fn run<P: Prober>(
    id: SourceId,
    source: LoadSource,
    prober: Arc<P>,
    slots: Arc<Slots>,
    results: mpsc::Sender<LoadResult>,
) {
    let interval = source.interval.to_std();
    let mut due = Instant::now();
    let mut first = Some(first_pause(id.0, interval));
    let (mut was_slow, mut failures) = (false, 0);
    loop {
        sleep_until(due).await;
        let read = async {
            let begun = Instant::now();
            let outcome = unwinding(timeout(source.timeout.to_std(), prober.read_load(&source))).await;
            (outcome, begun.elapsed() >= SLOW)
        };
        let Some((outcome, is_slow)) = slots.run(was_slow, read).await else { return };
        let outcome =
            outcome.map(|outcome| outcome.unwrap_or_else(|_| Err(format!("no whole page within {}", source.timeout))));
        failures = if matches!(outcome, Ok(Ok(_))) { 0 } else { failures + 1 };
        was_slow = is_slow || failures > 0;
        // A reading that panics says nothing of the source; the next one may.
        if let Ok(outcome) = outcome
            && results.send(LoadResult { source: id, outcome }).await.is_err()
        {
            return;
        }
        let pause = first.take().unwrap_or_else(|| pause_after(interval, failures));
        due = (due + pause).max(Instant::now());
    }
}

/// The pause after so many failures in a row: one interval, doubled with each failure after the first.
fn pause_after(interval: Duration, failures: u32) -> Duration {
    interval * 2_u32.saturating_pow(failures.saturating_sub(1)).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_fails_is_asked_less_often() {
        let pauses: Vec<u64> =
            [0, 1, 2, 3, 4, 5, u32::MAX].map(|failures| pause_after(Duration::from_secs(2), failures).as_secs()).into();
        assert_eq!(pauses, [2, 2, 4, 8, 16, 16, 16]);
    }
}
