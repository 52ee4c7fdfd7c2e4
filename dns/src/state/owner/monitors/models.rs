//! The state of monitors that ask a model, besides their status. Takes the outcome of a round and the engine's motion
//! (whether it makes tokens), returns the verdict, and logs a verdict that changed. Held by the monitors.

use std::sync::Arc;

use bailiwick_rules::id::{EndpointId, RegionId};
use bailiwick_rules::probe::{Effect, Motion, TokenLimit, Verdict, judge};
use bailiwick_rules::table::{Region, Table};
use bailiwick_rules::time::Timestamp;

use super::Assignment;
use super::loads::LoadedEndpoint;
use crate::state::probe::{MonitorId, Outcome, Places, SourceId};
use crate::state::snapshot::{ModelView, VerdictCounts};

/// One monitor that asks a model.
#[derive(Debug, Default)]
pub(super) struct ModelState {
    /// The name of the first endpoint or region that the monitor watches, for the log.
    pub(super) name: String,
    /// The endpoints that the monitor watches, shared with its task.
    pub(super) places: Places,
    /// The sources of the endpoints' loads.
    pub(super) sources: Vec<SourceId>,
    /// The last verdict, and the time since when it hasn't changed.
    verdict: Option<(Verdict, Timestamp)>,
    counts: VerdictCounts,
    raised: Option<TokenLimit>,
    unpaid_until: Option<Timestamp>,
}

/// What a round of probes means for the status.
pub(super) struct Meaning {
    /// The effect on the status.
    pub(super) effect: Effect,
    /// The verdict; `None` if the budget didn't pay for a probe.
    pub(super) verdict: Option<Verdict>,
    /// Why the probe failed.
    pub(super) failure: Option<Arc<str>>,
}

impl ModelState {
    /// Takes the outcome of a round. `motion` returns whether the engine made tokens since the round began, if the
    /// engine's metrics are read. It is called only if the probe failed.
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
                // If there are no two readings to compare, the engine may be full and not down.
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

    /// The state for the API and the metrics.
    pub(super) fn view(&self) -> ModelView {
        let Self { verdict, counts, raised, unpaid_until, .. } = self;
        ModelView { verdict: *verdict, counts: *counts, raised: *raised, unpaid_until: *unpaid_until }
    }
}

/// Logs a changed verdict on `REGION` or `REGION/ENDPOINT`. If the rules or the credential are wrong, it is logged as
/// an error.
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

/// The endpoints that a monitor watches, by name, and the sources of their loads. A monitor of a region watches all
/// endpoints of the region.
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
                let is_of_endpoint = |read: &&LoadedEndpoint| read.is_of(table, region, position);
                sources.extend(assignment.loads.iter().find(is_of_endpoint).map(LoadedEndpoint::source));
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
