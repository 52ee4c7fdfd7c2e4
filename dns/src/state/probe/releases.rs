//! Asks endpoints which models they run. Takes a source from the owner, runs a task that asks it at every interval, and
//! sends each reading that is believed back to the owner. A reading that differs from the one before is believed once
//! it came twice in a row.
//!
//! The task is separate from that of the endpoint's monitor, so that the monitor goes on even if these questions hang.
//! The prompts are paid from the monitor's token budget. While the budget is spent, the task waits.

use std::sync::Arc;
use std::time::Duration;

use bailiwick_host::system::random;
use bailiwick_host::system::tasks::catching_panics;
use bailiwick_rules::probe::{next_round, phase};
use bailiwick_rules::release::{Confirmed, Form, Next, Reading, ReleaseSource, Round};
use bailiwick_rules::time::{Millis, Timestamp};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::model::Tokens;
use super::{NodeContext, Prober, Running, SLOW, Slots};

/// How long one answer may take.
const WITHIN: Duration = Duration::from_secs(10);
/// The longest wait before the first reading, so that a node that starts doesn't ask all endpoints at once.
const FIRST: Millis = Millis(30_000);
/// A reading that failed, or that differs from the one before, is repeated after the interval divided by this.
const SOON: u64 = 60;
/// The shortest pause before such a repetition.
const SOONEST: Millis = Millis(1_000);

/// A source's number. The owner assigns each number once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ReleaseId(pub u64);

/// The result of one round of questions.
#[derive(Debug)]
pub(crate) struct ReleaseResult {
    /// The source that was asked.
    pub release: ReleaseId,
    /// The new reading that is believed; `None` if the last one still stands.
    pub reading: Option<Reading>,
    /// What failed, if anything did.
    pub failure: Option<String>,
}

/// Everything that the task of one source needs.
pub(super) struct Task<P> {
    pub(super) id: ReleaseId,
    pub(super) source: ReleaseSource,
    pub(super) tokens: Tokens,
    pub(super) prober: Arc<P>,
    pub(super) slots: Arc<Slots>,
    pub(super) node_context: NodeContext,
    pub(super) results: mpsc::Sender<ReleaseResult>,
}

/// The result of one round of questions.
enum RoundResult {
    /// All prompts were answered. The second field says why the list of models wasn't read. Many servers have none.
    Whole(Reading, Option<String>),
    /// The list of models was read, but no prompt was answered.
    Part(Reading, String),
    /// Nothing was read.
    Nothing(String),
}

/// Starts the task of a source.
pub(super) fn start<P: Prober>(task: Task<P>) -> Running {
    Running(tokio::spawn(run(task)))
}

/// Asks the source until the owner no longer receives results.
async fn run<P: Prober>(task: Task<P>) {
    let interval = task.source.interval;
    let watched = format!("release {} {}", task.source.http.url, task.source.model);
    let phase = phase(&task.node_context.node, &watched, interval);
    let (mut confirmed, mut failures) = (Confirmed::default(), 0_u32);
    sleep(Millis(phase.0 % (interval.0 / 10).clamp(1, FIRST.0)).to_std()).await;
    loop {
        let (begun, began) = (task.node_context.clock.now(), Instant::now());
        let Some(result) = task.round().await else { return };
        failures = if matches!(result, RoundResult::Whole(..)) { 0 } else { failures.saturating_add(1) };
        let (next, reading, failure) = judge_round(result, &mut confirmed, task.source.tolerance);
        let result = ReleaseResult { release: task.id, reading, failure };
        if task.results.send(result).await.is_err() {
            return;
        }
        let usual = next_round(begun, phase, interval, random::bits()).since(begun);
        let pause = match (failures, next) {
            (0, Next::Usual) => usual,
            _ => usual.min(pause_after(interval, failures)),
        };
        sleep_until((began + pause.to_std()).max(Instant::now())).await;
    }
}

/// What follows from a round: when to ask again, the new reading that is believed, if any, and what failed.
fn judge_round(
    result: RoundResult,
    confirmed: &mut Confirmed,
    tolerance: f64,
) -> (Next, Option<Reading>, Option<String>) {
    let (reading, failure) = match result {
        RoundResult::Nothing(failure) => return (Next::Usual, None, Some(failure)),
        // The earlier reading stands until it is too old, because the new one doesn't contradict it.
        RoundResult::Part(reading, failure)
            if confirmed.believed().is_some_and(|known| known.is_like(&reading, tolerance)) =>
        {
            return (Next::Usual, None, Some(failure));
        }
        RoundResult::Part(reading, failure) => (reading, Some(failure)),
        RoundResult::Whole(reading, note) => (reading, note),
    };
    let next = confirmed.take(reading, tolerance);
    let believed = confirmed.believed().filter(|_| next == Next::Usual).cloned();
    (next, believed, failure)
}

/// The pause after a reading that differs (0 failures), or after this many failures in a row.
fn pause_after(interval: Millis, failures: u32) -> Millis {
    let first = Millis(interval.0 / SOON).max(SOONEST);
    Millis(first.0.saturating_mul(1 << failures.saturating_sub(1).min(16)))
}

impl<P: Prober> Task<P> {
    /// One round of questions. `None` if there are no slots any more, because the node ends.
    async fn round(&self) -> Option<RoundResult> {
        let mut round = Round::default();
        let mut failure = None;
        let mut was_slow = false;
        let mut is_listed = false;
        if self.source.models.is_some() {
            match self.once(&mut was_slow, self.prober.list_models(&self.source)).await? {
                Ok(listed) => {
                    is_listed = true;
                    round.list(listed);
                }
                Err(why) => failure = Some(format!("the list of models: {why}")),
            }
        }
        let (mut form, mut has_answered) = (Form::default(), false);
        while let Some(prompt) = round.next_prompt() {
            self.paid().await;
            match self.once(&mut was_slow, self.prober.ask_prompt(&self.source, prompt, form)).await? {
                Ok((report, accepted)) => {
                    (form, has_answered) = (accepted, true);
                    round.tell(report);
                }
                Err(why) if is_listed && !has_answered => return Some(RoundResult::Part(round.reading(), why)),
                Err(why) => return Some(RoundResult::Nothing(why)),
            }
        }
        Some(RoundResult::Whole(round.reading(), failure))
    }

    /// Waits until the budget pays for a prompt.
    async fn paid(&self) {
        while let Err(until) = self.tokens.take(self.source.budget, self.node_context.clock.now()) {
            let pause: Timestamp = until;
            sleep(pause.since(self.node_context.clock.now()).max(Millis(1)).to_std()).await;
        }
    }

    /// Asks once, as soon as a slot is free.
    async fn once<T>(
        &self,
        was_slow: &mut bool,
        ask: impl Future<Output = Result<T, String>>,
    ) -> Option<Result<T, String>> {
        let request = async {
            let began = Instant::now();
            let outcome = catching_panics(timeout(WITHIN, ask)).await;
            (outcome, began.elapsed() >= SLOW)
        };
        let (outcome, is_slow) = self.slots.run(*was_slow, request).await?;
        *was_slow = is_slow || !matches!(outcome, Ok(Ok(Ok(_))));
        let late = || Err(format!("no whole answer within {} s", WITHIN.as_secs()));
        let panicked = || Err("it isn't read, by a fault of this program".to_owned());
        Some(outcome.map_or_else(|_| panicked(), |outcome| outcome.unwrap_or_else(|_| late())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(root: &str, fingerprint: Option<&str>) -> Reading {
        let fingerprint = fingerprint.map(Into::into);
        Reading { root: Some(root.into()), fingerprint, ..Reading::default() }
    }

    #[test]
    fn a_failed_prompt_takes_nothing_away_that_was_read_before() {
        let mut confirmed = Confirmed::default();
        let failed = || "answered 429".to_owned();
        let whole = of("a", Some("b1"));
        let asked = RoundResult::Whole(whole.clone(), None);
        assert_eq!(judge_round(asked, &mut confirmed, 0.1), (Next::Usual, Some(whole), None));
        let part = RoundResult::Part(of("a", None), failed());
        assert_eq!(judge_round(part, &mut confirmed, 0.1), (Next::Usual, None, Some(failed())));
        assert_eq!(
            judge_round(RoundResult::Nothing(failed()), &mut confirmed, 0.1),
            (Next::Usual, None, Some(failed()))
        );
        let other = || RoundResult::Part(of("c", None), failed());
        assert_eq!(judge_round(other(), &mut confirmed, 0.1), (Next::Soon, None, Some(failed())));
        assert_eq!(judge_round(other(), &mut confirmed, 0.1).1, Some(of("c", None)), "it says so twice");
    }

    #[test]
    fn failures_are_repeated_soon_and_then_less_often() {
        let hour = Millis(3_600_000);
        let pauses = [0, 1, 2, 3, 7, u32::MAX].map(|failures| pause_after(hour, failures).0 / 1_000);
        assert_eq!(pauses, [60, 60, 120, 240, 3_840, 3_932_160]);
        assert_eq!(pause_after(Millis(1_000), 1), Millis(1_000));
    }
}
