//! Combines the health reports of several DNS nodes. Takes reports and the time; returns the health of each region, and
//! the shares of clients that are moved to other regions because of load. Pure. Called by `runtime::feed`.

use std::rc::Rc;

use bailiwick_rules::fleet::{Agreed, combined};
use bailiwick_rules::health::RegionHealth;
use bailiwick_rules::report::{Drilled, FRESH_INTERVALS, HealthReport, Received, Shares, SharesReport};
use bailiwick_rules::rules::Ratio;
use bailiwick_rules::steer::first_token::{FirstTokens, Medians, hold};
use bailiwick_rules::table::{Revision, Table};
use bailiwick_rules::time::{Millis, Timestamp};

/// How long a combined result is reused. Reports age slowly, so not every request needs a new result.
const AGGREGATE_FOR: Millis = Millis(500);
/// How long a report counts if it names no interval: three times the longest usual interval.
const COUNTS_FOR: Millis = Millis(30_000);
/// How long the loads and the times to the first token of a report count.
const LOADS_COUNT_FOR: Millis = Millis(15_000);
/// The least result of [`Reports::counts_for`], even if reports have shorter intervals. The caller fetches new reports
/// before this time has passed.
const LEAST: Millis = Millis(1_000);

/// What the fresh reports say together.
#[derive(Clone, Debug)]
pub(crate) struct CombinedHealth {
    /// The health of each region. If the rules name voters, it is what the voters agreed on. Else it is what most nodes
    /// with a fresh report say.
    pub(crate) health: Rc<[RegionHealth]>,
    /// The shares of clients that are moved because of load, by the newest plan.
    pub(crate) shares: Rc<Shares>,
    /// The share of a region's clients that a drill sends elsewhere.
    pub(crate) drilled: Option<Drilled>,
    /// The load of each region, in the order of the rules; `None` or missing if it isn't known.
    pub(crate) loads: Rc<[Option<Ratio>]>,
    /// The observed times to the first token of an answer.
    pub(crate) first_tokens: Rc<FirstTokens>,
}

impl Default for CombinedHealth {
    fn default() -> Self {
        Self {
            health: Rc::from([]),
            shares: Rc::default(),
            drilled: None,
            loads: Rc::from([]),
            first_tokens: Rc::default(),
        }
    }
}

/// The last report of each node, and their combined result.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    by_node: Vec<Option<Received>>,
    aggregate: Option<(Revision, Timestamp, CombinedHealth)>,
    /// What the voters agreed on. A new isolate knows no agreement: every region counts as up until most sites report a
    /// status, or report what they agreed on before.
    agreed: Agreed,
    /// The times to the first token that regions are ordered by. A median changes only if the reported one differs
    /// enough.
    medians: Medians,
}

impl Reports {
    /// Stores the report of the node at `position` of the configured list.
    pub(crate) fn receive(&mut self, position: usize, at: Timestamp, report: HealthReport) {
        if self.by_node.len() <= position {
            self.by_node.resize(position + 1, None);
        }
        if let Some(slot) = self.by_node.get_mut(position) {
            *slot = Some(Received { at, report });
        }
        self.aggregate = None;
    }

    /// What the fresh reports say of the regions of `table`.
    pub(crate) fn seen(&mut self, table: &Table, now: Timestamp) -> CombinedHealth {
        if let Some((revision, at, seen)) = &self.aggregate
            && *revision == table.revision()
            && *at <= now
            && now.since(*at) < AGGREGATE_FOR
        {
            return seen.clone();
        }
        // If the clock was set back, a report may have a time in the future. Its age is unknown, so it doesn't count.
        let received: Vec<Received> =
            self.by_node.iter().flatten().filter(|report| report.at <= now).cloned().collect();
        let shares = SharesReport::newest(&received, now).map(|report| Shares::read(table, report, now));
        let health = combined(table, &received, &mut self.agreed, now).into();
        let timed = newest(&received, now, |report| !report.first_token_ms.is_empty());
        self.medians = timed.map(|report| hold(&self.medians, &report.first_token_ms)).unwrap_or_default();
        let seen = CombinedHealth {
            health,
            shares: Rc::new(shares.unwrap_or_default()),
            drilled: Drilled::combined(table, &received, now),
            loads: loads(table, &received, now),
            first_tokens: Rc::new(FirstTokens::read(table, &self.medians)),
        };
        self.aggregate = Some((table.revision(), now, seen.clone()));
        seen
    }

    /// How long after the last fetch all of its reports still count. A report that was too old on arrival doesn't
    /// shorten this time.
    pub(crate) fn counts_for(&self) -> Millis {
        let regions = self.by_node.iter().flatten().flat_map(|received| received.report.regions.values());
        let ages = regions.flat_map(|report| {
            let copies = report.replicas.values().map(|copy| (copy.interval_ms, copy.age_ms.unwrap_or(0)));
            core::iter::once((report.interval_ms, report.age_ms)).chain(copies)
        });
        let left = ages.filter_map(|(interval, age)| FRESH_INTERVALS.saturating_mul(interval).checked_sub(age));
        left.filter(|left| *left > 0).min().map_or(COUNTS_FOR, |left| Millis(left).max(LEAST))
    }

    /// The time of each node's last report, with the node's position in the configured list.
    pub(crate) fn received(&self) -> impl Iterator<Item = (usize, Timestamp)> {
        self.by_node.iter().enumerate().filter_map(|(node, received)| Some((node, received.as_ref()?.at)))
    }

    /// How many nodes have ever reported.
    pub(crate) fn nodes(&self) -> usize {
        self.by_node.iter().flatten().count()
    }
}

/// The load of each region by the newest report that has loads. If that report is too old, the loads are unknown:
/// neither idle nor full.
fn loads(table: &Table, received: &[Received], now: Timestamp) -> Rc<[Option<Ratio>]> {
    let Some(newest) = newest(received, now, |report| !report.loads.is_empty()) else { return Rc::from([]) };
    table.regions().iter().map(|region| newest.loads.get(&region.id).and_then(|reported| reported.load)).collect()
}

/// The newest fresh report for which `is_wanted` is true. Fresh means at most [`LOADS_COUNT_FOR`] old.
fn newest(received: &[Received], now: Timestamp, is_wanted: impl Fn(&HealthReport) -> bool) -> Option<&HealthReport> {
    let fresh =
        received.iter().filter(|candidate| now.since(candidate.at) <= LOADS_COUNT_FOR && is_wanted(&candidate.report));
    fresh.max_by_key(|candidate| candidate.at).map(|newest| &newest.report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bailiwick_rules::health::Status;

    fn table() -> Table {
        let rules = serde_json::json!({
            "version": 1, "revision": 1,
            "regions": { "fra": { "countries": ["DE"] } },
            "services": { "chat": { "hosts": ["chat.example"], "pattern": "active-active", "regions": ["fra"],
                                    "residency": [{ "clients": ["*"], "process_in": ["*"] }] } },
        });
        Table::compile(rules.to_string().as_bytes()).unwrap()
    }

    fn report(status: &str, age_ms: u64, interval_ms: u64) -> HealthReport {
        serde_json::from_value(serde_json::json!({
            "node": "ns1", "revision": 1, "rules_sha256": "",
            "regions": { "fra": { "status": status, "probed": status, "stale": false, "override": null,
                                  "age_ms": age_ms, "interval_ms": interval_ms, "endpoints": {} } },
        }))
        .unwrap()
    }

    #[test]
    fn reports_add_up_until_they_are_old() {
        let table = table();
        let report = |status: &str| report(status, 0, 1000);
        let mut reports = Reports::default();
        let probed = |reports: &mut Reports, now| reports.seen(&table, Timestamp(now)).health[0].probed;
        assert_eq!(probed(&mut reports, 0), Status::Unknown);
        reports.receive(1, Timestamp(0), report("down"));
        assert_eq!(probed(&mut reports, 0), Status::Down, "a new report counts at once");
        reports.receive(0, Timestamp(1000), report("up"));
        assert_eq!(probed(&mut reports, 1000), Status::Up, "a tie is up");
        assert_eq!(probed(&mut reports, 9000), Status::Unknown, "no node has reported for three intervals");
        assert_eq!(reports.nodes(), 2);
        reports.receive(0, Timestamp(9000), report("down"));
        assert_eq!(probed(&mut reports, 9000), Status::Down);
        assert_eq!(probed(&mut reports, 8000), Status::Unknown, "the clock was set back");
    }

    #[test]
    fn voters_decide_where_there_are_some_and_silence_changes_nothing() {
        let rules = serde_json::json!({
            "version": 1, "revision": 1,
            "regions": { "fra": { "countries": ["DE"] } },
            "fleet": { "voters": { "a": { "site": "x" }, "b": { "site": "y" }, "c": { "site": "z" } } },
        });
        let table = Table::compile(rules.to_string().as_bytes()).unwrap();
        let mut reports = Reports::default();
        let mut probed = |at: i64, said: &[(usize, &str)]| {
            for (position, status) in said {
                let node = ["a", "b", "c"][*position].to_owned();
                reports.receive(*position, Timestamp(at), HealthReport { node, ..report(status, 0, 1_000) });
            }
            reports.seen(&table, Timestamp(at)).health[0].probed
        };
        assert_eq!(probed(0, &[(0, "down")]), Status::Unknown, "one node isn't a majority");
        assert_eq!(probed(1_000, &[(0, "down"), (1, "down"), (2, "up")]), Status::Down);
        assert_eq!(probed(90_000, &[(2, "up")]), Status::Down, "the other nodes have stopped reporting");
        assert_eq!(probed(90_500, &[(1, "up"), (2, "up")]), Status::Up);
    }

    #[test]
    fn reports_count_as_long_as_the_shortest_of_them() {
        let mut reports = Reports::default();
        assert_eq!(reports.counts_for(), COUNTS_FOR);
        reports.receive(0, Timestamp(0), report("up", 1_000, 5_000));
        reports.receive(2, Timestamp(0), report("up", 99_000, 5_000));
        assert_eq!(reports.counts_for(), Millis(14_000), "the second report was too old when it arrived");
        reports.receive(1, Timestamp(0), report("up", 2_900, 1_000));
        assert_eq!(reports.counts_for(), LEAST);
    }

    #[test]
    fn a_copy_lags_by_the_majority_of_fresh_readings_and_old_ones_say_nothing() {
        let rules = serde_json::json!({
            "version": 1, "revision": 1,
            "replicas": { "kb": { "max_lag": "60s", "keep_freshest": true, "group": "version" } },
            "regions": { "fra": { "countries": ["DE"], "replicas": { "kb": { "url": "https://kb.example/",
                "as": "seconds", "read": "/lag", "version": "/v" } } } },
        });
        let table = Table::compile(rules.to_string().as_bytes()).unwrap();
        let reported = |status: &str, seconds: u64, age_ms: u64, version: &str| {
            let mut report = serde_json::to_value(report("up", 0, 9_000)).unwrap();
            report["regions"]["fra"]["replicas"] = serde_json::json!({ "kb": { "status": status, "freshness": "x",
                "lag_ms": seconds * 1_000, "version": version, "age_ms": age_ms, "interval_ms": 5_000 } });
            serde_json::from_value::<HealthReport>(report).unwrap()
        };
        let mut reports = Reports::default();
        let seen = |reports: &mut Reports, at| {
            let copy = reports.seen(&table, Timestamp(at)).health[0].replicas[0].clone();
            (copy.status, copy.lag.map(|lag| lag.to_string()), copy.version.map(|version| version.to_string()))
        };
        assert_eq!(seen(&mut reports, 0), (Status::Unknown, None, None));
        reports.receive(0, Timestamp(0), reported("down", 90, 1_000, "b"));
        assert_eq!(seen(&mut reports, 0), (Status::Down, Some("90s".to_owned()), Some("b".to_owned())));
        assert_eq!(reports.counts_for(), Millis(14_000), "the copy's readings expire before the region's");
        reports.receive(1, Timestamp(0), reported("up", 3, 0, "a"));
        reports.receive(2, Timestamp(0), reported("up", 4, 0, "a"));
        assert_eq!(seen(&mut reports, 0), (Status::Up, None, Some("a".to_owned())));
        reports.receive(1, Timestamp(0), reported("down", 75, 0, "a"));
        assert_eq!(seen(&mut reports, 0), (Status::Down, Some("75s".to_owned()), Some("a".to_owned())));
        reports.receive(1, Timestamp(0), reported("up", 3, 0, "a"));
        reports.receive(2, Timestamp(0), reported("up", 4, 0, "a"));
        assert_eq!(
            seen(&mut reports, 15_001).0,
            Status::Down,
            "the two readings \"up\" expired, \"down\" counts still"
        );
        assert_eq!(seen(&mut reports, 27_001), (Status::Unknown, None, None), "all reports expired");
        reports.receive(0, Timestamp(27_001), reported("down", 90, 30_000, "b"));
        assert_eq!(seen(&mut reports, 27_001).0, Status::Down, "an old \"down\" counts: the page hangs");
        reports.receive(0, Timestamp(27_001), reported("up", 3, 30_000, "b"));
        assert_eq!(seen(&mut reports, 27_001).0, Status::Unknown);
    }

    #[test]
    fn times_to_the_first_token_are_held_until_they_differ_by_a_fifth() {
        let rules = serde_json::json!({
            "version": 1, "revision": 1,
            "regions": { "fra": { "countries": ["DE"] } },
            "services": { "chat": { "hosts": ["chat.example"], "pattern": "active-active", "regions": ["fra"],
                                    "residency": [{ "clients": ["*"], "process_in": ["*"] }] } },
        });
        let table = Table::compile(rules.to_string().as_bytes()).unwrap();
        let report = |ms: u32| {
            let json = serde_json::json!({ "node": "ns", "revision": 1, "rules_sha256": "", "regions": {},
                                           "first_token_ms": { "chat": { "fra": ms } } });
            serde_json::from_value(json).unwrap()
        };
        let mut reports = Reports::default();
        let mut reported = |at: i64, ms: u32| {
            reports.receive(0, Timestamp(at), report(ms));
            (*reports.seen(&table, Timestamp(at)).first_tokens).clone()
        };
        let first = reported(1_000, 500);
        assert_ne!(first, FirstTokens::default());
        assert_eq!(reported(2_000, 590), first);
        assert_ne!(reported(3_000, 601), first);
        assert_eq!(*reports.seen(&table, Timestamp(18_001)).first_tokens, FirstTokens::default(), "no news");
    }

    #[test]
    fn loads_are_those_of_the_newest_report_and_old_ones_say_nothing() {
        let table = table();
        let report = |load: Option<f64>| {
            let loads = serde_json::json!({ "fra": { "load": load, "read": 1, "missing": 0, "endpoints": {} } });
            let json = serde_json::json!({ "node": "ns", "revision": 1, "rules_sha256": "", "regions": {},
                                           "loads": loads });
            serde_json::from_value(json).unwrap()
        };
        let mut reports = Reports::default();
        assert!(reports.seen(&table, Timestamp(0)).loads.is_empty());
        reports.receive(0, Timestamp(1_000), report(Some(0.5)));
        reports.receive(1, Timestamp(2_000), report(Some(0.75)));
        assert_eq!(reports.seen(&table, Timestamp(2_000)).loads[0], Some(Ratio(750_000)));
        reports.receive(0, Timestamp(3_000), report(None));
        assert_eq!(reports.seen(&table, Timestamp(3_000)).loads[0], None);
        assert!(reports.seen(&table, Timestamp(18_001)).loads.is_empty());
    }
}
