//! What is known of monitors that ask a model, beside their status. Takes what came of a round and how the engine
//! moves, returns the verdict and tells it in the log when it changes. Held by the monitors.

use std::sync::Arc;

use bailiwick_rules::id::{EndpointId, RegionId};
use bailiwick_rules::probe::{Effect, Motion, TokenLimit, Verdict, judge};
use bailiwick_rules::table::{Region, Table};
use bailiwick_rules::time::Timestamp;

use super::Assignment;
use super::loads::Read;
use crate::state::probe::{MonitorId, Outcome, Places, SourceId};
use crate::state::snapshot::{ModelView, VerdictCounts};

/// One monitor that asks a model.
#[derive(Debug, Default)]
pub(super) struct ModelState {
    /// What it watches first, for the log.
    pub(super) name: String,
    /// The endpoints that it watches, as its task knows them.
    pub(super) places: Places,
    /// Where the loads of these are read.
    pub(super) sources: Vec<SourceId>,
    /// The last verdict, and since when it is that.
    verdict: Option<(Verdict, Timestamp)>,
    counts: VerdictCounts,
    raised: Option<TokenLimit>,
    unpaid_until: Option<Timestamp>,
}

/// What a round means for the status, and what failed.
pub(super) struct Meaning {
    /// The effect on the machine.
    pub(super) effect: Effect,
    /// The verdict, if something was asked or known.
    pub(super) verdict: Option<Verdict>,
    /// What failed.
    pub(super) failure: Option<Arc<str>>,
}

impl ModelState {
    /// What came of a round. `motion` is how the engine moved since it began, if its metrics are read; it is asked only
    /// if that matters.
    pub(super) fn take(
        &mut self,
        outcome: &Outcome,
        motion: impl FnOnce() -> Option<Motion>,
        now: Timestamp,
    ) -> Meaning {
        self.unpaid_until = None;
        let (verdict, effect, failure) = match outcome {
            Outcome::Unpaid(until) => {
                self.unpaid_until = Some(*until);
                return Meaning { effect: Effect::None, verdict: None, failure: None };
            }
            Outcome::Passed(passed) => {
                self.raised = passed.raised;
                (Verdict::Answered, Effect::Success, None)
            }
            Outcome::Served(_) => (Verdict::Served, Effect::Success, None),
            Outcome::Failed(failure) => {
                let motion = motion();
                let verdict = judge(failure.finding, motion);
                // Metrics that can't be compared yet, or any more, leave it open whether the engine is full.
                let is_open = verdict == Verdict::Down && motion == Some(Motion::Unknown);
                let effect = if is_open { Effect::Doubt } else { verdict.effect() };
                (verdict, effect, Some(Arc::from(failure.message.as_str())))
            }
        };
        self.counts.add(verdict);
        if self.verdict.is_none_or(|(before, _)| before != verdict) {
            self.verdict = Some((verdict, now));
        }
        Meaning { effect, verdict: Some(verdict), failure }
    }

    /// The last verdict.
    pub(super) fn verdict(&self) -> Option<Verdict> {
        self.verdict.map(|(verdict, _)| verdict)
    }

    /// As the API and the metrics show it.
    pub(super) fn view(&self) -> ModelView {
        let Self { verdict, counts, raised, unpaid_until, .. } = self;
        ModelView { verdict: *verdict, counts: *counts, raised: *raised, unpaid_until: *unpaid_until }
    }
}

/// Tells a verdict that is another than the last, of what is named `REGION` or `REGION/ENDPOINT`. One on the rules or
/// the credential is an alarm.
pub(super) fn log_change(name: &str, (before, after): (Option<Verdict>, Verdict), failure: Option<&str>) {
    let (old, meaning) = (before.map_or("none", Verdict::as_str), after.meaning());
    let (region, endpoint) = name.split_once('/').map_or((name, None), |(region, endpoint)| (region, Some(endpoint)));
    match after {
        Verdict::Misconfigured => tracing::error!(
            json.event = "probe_verdict", json.region = region, json.endpoint = endpoint, json.verdict = %after,
            json.before = old, json.reason = failure, failure, "{name} is misconfigured by its probe: {meaning}"
        ),
        Verdict::Frozen | Verdict::Down => tracing::warn!(
            json.event = "probe_verdict", json.region = region, json.endpoint = endpoint, json.verdict = %after,
            json.before = old, json.reason = failure, failure, "{name} is {after} by its last probe: {meaning}"
        ),
        _ => tracing::info!(
            json.event = "probe_verdict", json.region = region, json.endpoint = endpoint, json.verdict = %after,
            json.before = old, json.reason = failure, failure, "{name} is {after} by its last probe: {meaning}"
        ),
    }
}

/// `REGION` or `REGION/ENDPOINT`.
pub(super) fn name_of((region, endpoint): (Option<&str>, Option<&str>)) -> String {
    [region, endpoint].into_iter().flatten().collect::<Vec<_>>().join("/")
}

/// What a monitor watches: the endpoints by name, and where their loads are read. One of a region watches all of its
/// endpoints.
pub(super) fn watched(
    table: &Table,
    assignment: &Assignment,
    monitor: MonitorId,
) -> (Vec<(RegionId, EndpointId)>, Vec<SourceId>) {
    let (mut places, mut sources) = (Vec::new(), Vec::new());
    for ((own, endpoints), region) in assignment.regions.iter().zip(table.regions()) {
        let is_own = own.contains(&monitor);
        for (position, of_endpoint) in endpoints.iter().enumerate() {
            if is_own || of_endpoint.contains(&monitor) {
                places.extend(name(region, position));
                let is_there = |read: &&Read| read.is_of(table, region, position);
                sources.extend(assignment.loads.iter().find(is_there).map(Read::source));
            }
        }
    }
    (places, sources)
}

fn name(region: &Region, position: usize) -> Option<(RegionId, EndpointId)> {
    region.endpoints.get(position).map(|(id, _)| (region.id.clone(), id.clone()))
}

#[cfg(test)]
mod tests {
    use bailiwick_rules::probe::Finding;

    use super::*;
    use crate::state::probe::ProbeFailure;

    #[test]
    fn a_late_token_decides_nothing_at_the_start_while_metrics_cannot_be_compared() {
        let late = Outcome::Failed(ProbeFailure { finding: Finding::Late, message: "no token".to_owned() });
        let taken = |motion| {
            let meaning = ModelState::default().take(&late, || motion, Timestamp(0));
            (meaning.verdict, meaning.effect)
        };
        assert_eq!(taken(Some(Motion::Unknown)), (Some(Verdict::Down), Effect::Doubt));
        assert_eq!(taken(None), (Some(Verdict::Down), Effect::Failure), "no metrics are read");
        assert_eq!(taken(Some(Motion::Still { has_work: false })), (Some(Verdict::Down), Effect::Failure));
        assert_eq!(taken(Some(Motion::Still { has_work: true })), (Some(Verdict::Frozen), Effect::Failure));
        assert_eq!(taken(Some(Motion::Advancing)), (Some(Verdict::Busy), Effect::None));
    }
}
