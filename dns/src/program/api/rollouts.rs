//! `/v1/rollouts`: takes one snapshot and the sums of what Workers counted. Returns, for each rollout, the counts of
//! both arms (the sessions with the old and with the new thing) since the present step began, and the obstacles: why
//! the rollout shouldn't go on now, such as an override.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use bailiwick_rules::id::{RegionId, RolloutId};
use bailiwick_rules::observe::StepSums;
use bailiwick_rules::report::{RolloutReport, RolloutsReport};
use bailiwick_rules::rollout::machine::checks;
use bailiwick_rules::rollout::{Level, Margin, judge};
use bailiwick_rules::rules::Ratio;
use bailiwick_rules::table::{RegionIndex, Rollout};
use bailiwick_rules::time::Timestamp;
use serde::Serialize;

use super::Api;
use super::overrides::in_force;
use super::reply::Problem;
use crate::state::snapshot::Snapshot;

/// The chance that an interval ever misses the true difference, however often one looks.
const CHANCE: f64 = 0.01;

/// The rollouts of the rules in service.
pub(super) async fn rollouts(State(api): State<Arc<Api>>) -> Json<RolloutsReport> {
    let (snapshot, now) = (api.handle.snapshot_owned(), api.handle.now());
    let table = snapshot.table();
    let rollouts = table.rollouts().iter().map(|rollout| {
        let regions = api.handle.observed().with(|sums| {
            sums.follow(table);
            let sums_of = |id: &RegionId| Some((id.clone(), sums.arms().of(&rollout.id, id)?.clone()));
            rollout.rule.regions.iter().filter_map(sums_of).collect::<BTreeMap<_, _>>()
        });
        let obstacles = obstacles(&snapshot, rollout, now);
        (rollout.id.clone(), RolloutReport { obstacles, regions })
    });
    let (node, revision, rollouts) = (api.node.clone(), table.revision().number, rollouts.collect());
    Json(RolloutsReport { node, at: now, begun: api.begun, revision, rollouts })
}

/// The rollouts, with the differences between their arms that are still possible.
#[derive(Serialize)]
pub(super) struct Intervals {
    node: String,
    at: Timestamp,
    rollouts: BTreeMap<RolloutId, RolloutIntervals>,
}

#[derive(Serialize)]
struct RolloutIntervals {
    obstacles: Vec<String>,
    regions: BTreeMap<RegionId, StepIntervals>,
}

#[derive(Serialize)]
struct StepIntervals {
    since: Timestamp,
    measures: Vec<MeasureReport>,
}

/// The comparison of one measure of both arms.
#[derive(Serialize)]
struct MeasureReport {
    measure: &'static str,
    /// `difference` of shares, or `ratio` of times.
    of: &'static str,
    /// How much worse the new arm may be.
    margin: f64,
    /// Of the old and the new arm.
    samples: [u64; 2],
    /// The shares of the old and the new arm, if it is a share.
    seen: Option<[f64; 2]>,
    /// The least and the greatest difference or ratio that isn't refuted.
    possible: Option<(f64, f64)>,
}

/// The rollouts of the rules in service, with intervals. They take a moment to compute.
pub(super) async fn intervals(State(api): State<Arc<Api>>) -> Result<Json<Intervals>, Problem> {
    let state = Arc::clone(&api);
    let Json(report) = rollouts(State(api)).await;
    let reports = tokio::task::spawn_blocking(move || {
        let snapshot = state.handle.snapshot_owned();
        let with_intervals = |(id, report): (RolloutId, RolloutReport)| {
            let rollout = snapshot.table().rollouts().iter().find(|rollout| rollout.id == id)?;
            let regions = report.regions.iter().map(|(region, sums)| {
                (region.clone(), StepIntervals { since: sums.since, measures: measures(rollout, sums) })
            });
            Some((id, RolloutIntervals { obstacles: report.obstacles, regions: regions.collect() }))
        };
        let rollouts = report.rollouts.into_iter().filter_map(with_intervals).collect();
        Intervals { node: report.node, at: report.at, rollouts }
    });
    reports.await.map(Json).map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "a fault of this program"))
}

/// The comparison of each measure that the rollout checks.
fn measures(rollout: &Rollout, sums: &StepSums) -> Vec<MeasureReport> {
    let checks = checks(&rollout.rule);
    let (old, new) = (&sums.old.counts, &sums.new.counts);
    let level = Level { alpha: CHANCE, pass: CHANCE, min_samples: rollout.rule.min_samples };
    let measured = judge(&checks, old, new, level).checks.into_iter().map(|judged| {
        let (of, margin) = match judged.check.margin {
            Margin::Difference(most) => ("difference", most),
            Margin::Ratio(most) => ("ratio", most),
        };
        let possible = judged.check.possible(old, new, CHANCE);
        MeasureReport {
            measure: judged.check.measure.as_str(),
            of,
            margin,
            samples: judged.samples,
            seen: judged.rates,
            possible: possible
                .map(|interval| (interval.low, interval.high))
                .filter(|(low, high)| low.is_finite() && high.is_finite()),
        }
    });
    measured.collect()
}

/// Why a rollout should neither begin nor go on now, each as a clause.
fn obstacles(snapshot: &Snapshot, rollout: &Rollout, now: Timestamp) -> Vec<String> {
    let (table, health) = (snapshot.table(), snapshot.health());
    let service = table.service(rollout.service);
    let name = |region: &RegionIndex| table.region(*region).id.as_str();
    let mut obstacles = Vec::new();
    if health.fleet.as_ref().is_some_and(|fleet| fleet.is_blind) {
        obstacles.push("this node's own line seems to be down".to_owned());
    }
    let is_of_service = |of: &str| {
        let region = of.split('/').next().unwrap_or_default();
        service.regions.iter().any(|own| name(own) == region)
    };
    let overrides = in_force(snapshot, now).into_iter().filter(|forced| is_of_service(&forced.of));
    obstacles.extend(
        overrides.map(|forced| {
            format!("{} is forced {} until {}: {}", forced.of, forced.status, forced.until, forced.reason)
        }),
    );
    let shares = health.shares.as_ref().and_then(|shares| shares.report.services.get(&service.id));
    let moved = shares.into_iter().flatten().find_map(|class| Some((class.from()?, class.moves.first()?)));
    obstacles.extend(moved.map(|(from, to)| format!("clients of {from} are moved to {} because of load", to.to)));
    let margins = health.planned.iter().flat_map(|planned| &planned.margins.worst);
    let full = margins.filter(|margin| margin.load > Ratio::ONE);
    let mut full = full.filter(|margin| rollout.regions.iter().any(|(region, _)| margin.fence.contains(region)));
    obstacles.extend(full.next().map(|margin| {
        let fence = margin.fence.iter().map(name).collect::<Vec<_>>().join("+");
        format!("without {} the fence {fence} would have a load of {}", name(&margin.lost), margin.load)
    }));
    obstacles
}

#[cfg(test)]
mod tests {
    use bailiwick_rules::observe::{ArmSum, Counts};
    use bailiwick_rules::table::Table;

    use super::*;

    fn arm(committed: u64, failed: u64) -> ArmSum {
        let attempts = [("committed", committed), ("network", failed)];
        let attempts = attempts.into_iter().map(|(word, count)| (word.to_owned(), count)).collect();
        ArmSum { counts: Counts { attempts, ..Counts::default() }, newest: None }
    }

    #[test]
    fn an_interval_holds_what_was_seen_and_narrows_with_samples() {
        let table = Table::compile(
            br#"{ "version": 1, "revision": 1,
            "jurisdictions": { "eu": { "include": ["EU"] } },
            "regions": { "fra": { "countries": ["DE"], "endpoints": { "e": { "url": "https://e.example/v1",
                "models": { "large": "bf16" } } } } },
            "rollouts": { "fp8": { "service": "chat", "model": "large", "from": "bf16", "to": "fp8",
                "regions": ["fra"], "checks": { "error_rate": { "max_diff": 0.2 } } } },
            "services": { "chat": { "hosts": ["chat.example"], "pattern": "active-active", "regions": ["fra"],
                "residency": [{ "clients": ["eu"], "process_in": ["eu"] }] } } }"#,
        )
        .unwrap();
        let seen = |times: u64| {
            let (old, new) = (arm(980 * times, 20 * times), arm(95 * times, 5 * times));
            let sums = StepSums { since: Timestamp(0), revision: 1, old, new };
            measures(&table.rollouts()[0], &sums).remove(0)
        };
        let few = seen(1);
        assert_eq!((few.of, few.samples, few.seen), ("difference", [1_000, 100], Some([0.02, 0.05])));
        let ((low, high), (lower, higher)) = (seen(100).possible.unwrap(), few.possible.unwrap());
        assert!(lower < low && low < 0.03 && 0.03 < high && high < higher, "{lower} {low} {high} {higher}");
    }
}
