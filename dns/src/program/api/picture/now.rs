//! The answer of `/v1/picture`: everything that the first screen of the page at `/ui/` shows. Takes the node's
//! snapshot, its counters and the data of [`crate::program::picture`]. Made at most once a second.

use std::collections::BTreeMap;

use bailiwick_rules::audit::Violation;
use bailiwick_rules::fleet::traffic::TrafficReport;
use bailiwick_rules::geo::Coordinates;
use bailiwick_rules::health::Status;
use bailiwick_rules::overview::{Territory, territories};
use bailiwick_rules::report::{DrillRecord, LoadReport};
use bailiwick_rules::rules::Change;
use bailiwick_rules::steer::first_token::Medians;
use bailiwick_rules::table::{Region, RegionIndex, Rollout, Table};
use bailiwick_rules::time::{Millis, Timestamp};
use serde::Serialize;

use super::super::overrides::in_force;
use super::super::status::{regions, replicas, sources, troubles};
use super::Api;
use crate::program::fleet_report::HeadReport;
use crate::program::metrics::TrafficFilter;
use crate::program::node_status::{OverrideNow, RegionNow, ReplicaNow, SourceNow};
use crate::program::picture::{Destinations, EdgeFlow, FenceCheck, Margin};
use crate::state::fleet_status::Peer;
use crate::state::snapshot::{Snapshot, Ttls};

/// Over how long queries are counted.
pub(super) const SPAN: Millis = Millis(600_000);
/// The most flows of DNS queries in the answer.
const MOST_FLOWS: usize = 600;
/// The most countries of a region in the answer.
const MOST_COUNTRIES: usize = 12;
/// The most jurisdictions in the answer.
const MOST_JURISDICTIONS: usize = 500;

/// All that the first screen shows.
#[derive(Serialize)]
pub(super) struct Now {
    node: String,
    version: &'static str,
    now: Timestamp,
    begun: Timestamp,
    revision: u64,
    rules_sha256: String,
    in_service_since: Option<Timestamp>,
    awaited_revision: Option<u64>,
    published: Option<HeadReport>,
    mode: &'static str,
    peers: Vec<Peer>,
    checked: Option<CheckedNow>,
    /// The names of all services.
    services: Vec<String>,
    /// Where clients go, for the first services.
    going: Vec<Destinations>,
    /// When that was looked at.
    going_at: Option<Timestamp>,
    /// The number of services that are left out.
    going_left_out: usize,
    jurisdictions: Vec<Territory>,
    regions: Vec<RegionOut>,
    flows: Flows,
    edge: Vec<EdgeFlow>,
    moves: Vec<Move>,
    overrides: Vec<OverrideNow>,
    replicas: Vec<ReplicaNow>,
    skew: Vec<Skew>,
    rollouts: Vec<RolloutNow>,
    /// The drill that is under way or ended lately.
    #[serde(skip_serializing_if = "Option::is_none")]
    drill: Option<DrillNow>,
    quotas: Vec<Quota>,
    margins: Vec<Margin>,
    sources: Vec<SourceNow>,
    troubles: Vec<String>,
    warnings: Vec<String>,
}

/// What was checked of fences.
#[derive(Serialize)]
struct CheckedNow {
    at: Timestamp,
    revision: u64,
    took_ms: u64,
    services: usize,
    countries: usize,
    tenants: usize,
    decisions: usize,
    answers: usize,
    left_out: usize,
    violations: usize,
    listed: Vec<Violation>,
    /// Answers that were given since this time, and how many of them led outside.
    given: Option<crate::program::picture::AnswerCounts>,
}

impl From<FenceCheck> for CheckedNow {
    fn from(checked: FenceCheck) -> Self {
        let FenceCheck { at, revision, took_ms, audit, given, .. } = checked;
        Self {
            at,
            revision,
            took_ms,
            services: audit.services,
            countries: audit.countries,
            tenants: audit.tenants,
            decisions: audit.decisions,
            answers: audit.answers,
            left_out: audit.left_out,
            violations: audit.violations,
            listed: audit.listed,
            given,
        }
    }
}

/// A region.
#[derive(Serialize)]
struct RegionOut {
    #[serde(flatten)]
    now: RegionNow,
    countries: Vec<String>,
    more_countries: usize,
    latitude: Option<f64>,
    longitude: Option<f64>,
    standby: bool,
    endpoints: usize,
    endpoints_down: usize,
    /// 1 is full.
    load: Option<f64>,
    /// Endpoints whose load should be known and isn't.
    load_missing: u32,
    low: Option<f64>,
    high: Option<f64>,
    capacity: Option<u32>,
    /// The shortest and the longest TTL of answers, in seconds; absent if DNS answers nobody with this region.
    ttl: Option<(u32, u32)>,
    first_token_ms: Option<u32>,
    quotas: Vec<String>,
}

/// Queries of the last minutes.
#[derive(Serialize)]
pub(super) struct Flows {
    seconds: u64,
    left_out: usize,
    flows: Vec<Flow>,
}

#[derive(Serialize)]
struct Flow {
    service: String,
    country: Option<String>,
    region: Option<String>,
    source: bailiwick_rules::fleet::traffic::AddressSource,
    queries: u64,
}

#[derive(Serialize)]
struct Move {
    from: String,
    to: String,
    share: f64,
}

#[derive(Serialize)]
struct Skew {
    model: String,
    region: String,
    endpoint: String,
    state: &'static str,
    is_skewed: bool,
    differs: Vec<String>,
}

#[derive(Serialize)]
struct RolloutNow {
    rollout: String,
    service: String,
    change: String,
    says: String,
}

#[derive(Serialize)]
struct DrillNow {
    drill: String,
    region: String,
    /// Whether it moves clients.
    is_running: bool,
    share: u8,
    began: Timestamp,
    until: Timestamp,
    ended: Option<String>,
}

#[derive(Serialize)]
struct Quota {
    quota: String,
    requests: Option<u64>,
    tokens: Option<u64>,
    per_ms: u64,
    requests_left: Option<u64>,
    tokens_left: Option<u64>,
}

/// Everything at this moment.
pub(super) fn now(api: &Api) -> Now {
    let (snapshot, status, now) = (api.handle.snapshot_owned(), api.handle.status(), api.handle.now());
    let (table, revision) = (snapshot.table(), snapshot.table().revision());
    let (published, peers) =
        api.handle.fleet().with(|view| (view.head.as_ref().map(HeadReport::from), view.peers.clone()));
    let checked = api.picture.checked();
    let margins = checked.as_ref().map(|checked| checked.margins.clone()).unwrap_or_default();
    let going = api.picture.going();
    let name = |region: RegionIndex| table.region(region).id.to_string();
    let moves = snapshot.health().planned.iter().flat_map(|planned| &planned.moves);
    Now {
        node: api.node.clone(),
        version: env!("CARGO_PKG_VERSION"),
        now,
        begun: api.begun,
        revision: revision.number,
        rules_sha256: revision.sha256_hex(),
        in_service_since: status.rules.accepted_at,
        awaited_revision: status.awaited_revision,
        published,
        mode: api.fleet.mode.as_str(),
        peers,
        checked: checked.map(CheckedNow::from),
        services: table.services().iter().map(|service| service.id.to_string()).collect(),
        going_at: going.as_ref().map(|going| going.at),
        going_left_out: going.as_ref().map_or(0, |going| going.left_out),
        going: going.map(|going| going.services).unwrap_or_default(),
        jurisdictions: territories(table).take(MOST_JURISDICTIONS).collect(),
        regions: all_regions(api, &snapshot, now),
        flows: flows(api, now),
        edge: api.picture.edge(),
        moves: moves
            .map(|moved| Move { from: name(moved.from), to: name(moved.to), share: part(moved.share.0) })
            .collect(),
        overrides: in_force(&snapshot, now),
        replicas: replicas(&snapshot),
        skew: skew(&snapshot, now),
        rollouts: rollouts(table),
        drill: snapshot.health().drill.as_ref().map(|record| drill_now(record, now)),
        quotas: quotas(api, table, now),
        margins,
        sources: sources(&snapshot, &status),
        troubles: troubles(api, &status),
        warnings: status.warnings.to_vec(),
    }
}

/// Millionths as a number.
fn part(millionths: u32) -> f64 {
    f64::from(millionths) / 1e6
}

/// All regions with their numbers, for the map and the table.
fn all_regions(api: &Api, snapshot: &Snapshot, now: Timestamp) -> Vec<RegionOut> {
    let table = snapshot.table();
    let (loads, ttls) = (snapshot.load_reports(now), snapshot.ttls());
    let first_tokens = api.handle.observed().with(|sums| sums.first_tokens(now).clone());
    let mut whole = whole_regions(regions(snapshot, &api.node, now));
    let with_numbers = |(index, region): (RegionIndex, &Region)| {
        let (now, down) = whole.remove(region.id.as_str()).unwrap_or_default();
        region_out(region, index, (now, down), loads.get(&region.id), &ttls, &first_tokens)
    };
    (0..).map(RegionIndex).zip(table.regions()).map(with_numbers).collect()
}

/// Every region by name, with the number of its endpoints that are down. A region without a failure of its own tells
/// that of an endpoint.
pub(super) fn whole_regions(all: Vec<RegionNow>) -> BTreeMap<String, (RegionNow, usize)> {
    let mut whole: BTreeMap<String, (RegionNow, usize)> = BTreeMap::new();
    // Each region is followed by its endpoints.
    for row in all {
        let Some(endpoint) = &row.endpoint else {
            whole.insert(row.region.clone(), (row, 0));
            continue;
        };
        let Some((region, down)) = whole.get_mut(&row.region) else { continue };
        if row.status == Status::Down {
            *down += 1;
            if let (None, Some(failure)) = (&region.failure, &row.failure) {
                (region.failure, region.failed_at) = (Some(format!("{endpoint}: {failure}")), row.failed_at);
            }
        }
    }
    whole
}

/// A region with its numbers, in the form that the page reads.
fn region_out(
    region: &Region,
    index: RegionIndex,
    (now, endpoints_down): (RegionNow, usize),
    load: Option<&LoadReport>,
    ttls: &Ttls,
    first_tokens: &Medians,
) -> RegionOut {
    let all: Vec<String> = region.countries.iter().take(300).map(|country| country.to_string()).collect();
    let marks = region.load.as_ref();
    let mut quotas: Vec<String> =
        region.endpoints.iter().filter_map(|(_, endpoint)| Some(endpoint.quota.as_ref()?.to_string())).collect();
    quotas.sort_unstable();
    quotas.dedup();
    RegionOut {
        now,
        more_countries: all.len().saturating_sub(MOST_COUNTRIES),
        countries: all.into_iter().take(MOST_COUNTRIES).collect(),
        latitude: region.location.map(Coordinates::latitude),
        longitude: region.location.map(Coordinates::longitude),
        standby: region.standby,
        endpoints: region.endpoints.len(),
        endpoints_down,
        load: load.and_then(|load| load.load).map(|load| part(load.0)),
        load_missing: load.map_or(0, |load| load.missing),
        low: marks.map(|marks| part(marks.low.0)),
        high: marks.map(|marks| part(marks.high.0)),
        capacity: region.capacity(),
        ttl: ttls.get(&index).copied(),
        first_token_ms: first_tokens.values().filter_map(|regions| regions.get(&region.id)).max().copied(),
        quotas,
    }
}

/// The largest flows of this node.
fn flows(api: &Api, now: Timestamp) -> Flows {
    let since = Timestamp(now.0.saturating_sub(i64::try_from(SPAN.0).unwrap_or(i64::MAX)));
    largest(api.metrics.traffic(now, TrafficFilter { since, service: None, buckets_apart: false }), now)
}

/// The largest flows of a report.
pub(super) fn largest(mut report: TrafficReport, now: Timestamp) -> Flows {
    report.counts.sort_unstable_by_key(|count| std::cmp::Reverse(count.queries));
    let left_out = report.counts.len().saturating_sub(MOST_FLOWS);
    report.counts.truncate(MOST_FLOWS);
    let flow = |count: bailiwick_rules::fleet::traffic::Count| Flow {
        service: count.service,
        country: count.country,
        region: count.region,
        source: count.source,
        queries: count.queries,
    };
    Flows {
        // The first bucket may have begun before this process. Its full length is taken, so that no rate is too high.
        seconds: report.from.map_or(0, |from| now.since(from).0 / 1_000).max(1),
        left_out,
        flows: report.counts.into_iter().map(flow).collect(),
    }
}

/// What is known of releases, endpoint by endpoint.
fn skew(snapshot: &Snapshot, now: Timestamp) -> Vec<Skew> {
    if snapshot.table().releases().is_empty() {
        return Vec::new();
    }
    let mut all = Vec::new();
    for (model, state) in snapshot.running(now) {
        all.extend(state.endpoints.into_iter().map(|endpoint| Skew {
            model: model.clone(),
            region: endpoint.region.to_string(),
            endpoint: endpoint.endpoint.to_string(),
            state: endpoint.state.as_str(),
            is_skewed: endpoint.state.is_skewed(),
            differs: endpoint.differs,
        }));
    }
    all
}

/// The rollouts of the rules, each with a sentence about how far it is.
fn rollouts(table: &Table) -> Vec<RolloutNow> {
    let rollout_now = |entry: &Rollout| RolloutNow {
        rollout: entry.id.to_string(),
        service: table.service(entry.service).id.to_string(),
        change: match &entry.rule.change {
            Change::Model { model, from, to } => format!("{model}: {from} → {to}"),
            Change::Endpoints(_) => "endpoints".to_owned(),
            Change::Bundle { bundle, to } => format!("bundle {bundle} → {to}"),
        },
        says: rollout(table, entry),
    };
    table.rollouts().iter().map(rollout_now).collect()
}

/// How far a rollout is, as a sentence.
pub(super) fn rollout(table: &Table, rollout: &Rollout) -> String {
    let begun = rollout.regions.iter().filter_map(|(region, share)| Some((table.region(*region), (*share)?)));
    let shares: Vec<String> = begun.map(|(region, share)| format!("{} {share} %", region.id)).collect();
    let progress = rollout.rule.progress.as_ref();
    let waits = progress.and_then(|progress| progress.paused.as_ref()).map(|why| format!("; waits: {why}"));
    let ended = progress.and_then(|progress| progress.ended.as_ref()).map(|why| format!("; ended: {why}"));
    let shares = if shares.is_empty() { "hasn't begun".to_owned() } else { shares.join(", ") };
    format!("{shares}{}{}", waits.unwrap_or_default(), ended.unwrap_or_default())
}

fn drill_now(record: &DrillRecord, now: Timestamp) -> DrillNow {
    DrillNow {
        drill: record.name.to_string(),
        region: record.region.to_string(),
        is_running: record.is_running(now),
        share: record.share,
        began: record.began,
        until: record.until,
        ended: record.ended.clone(),
    }
}

/// How a drill stands, as a sentence about its region.
pub(super) fn drill(record: &DrillRecord, now: Timestamp) -> String {
    let DrillRecord { name, share, ended, .. } = record;
    match (ended, record.is_running(now)) {
        (Some(why), _) => format!("the drill {name} has ended: {why}"),
        (None, true) => format!("the drill {name} sends {share} % of its clients elsewhere"),
        (None, false) => format!("the drill {name} has ended: nobody renewed it"),
    }
}

/// The quotas of the rules, each with what is left of it if this node knows that.
fn quotas(api: &Api, table: &Table, now: Timestamp) -> Vec<Quota> {
    let quota_now = |quota: &bailiwick_rules::table::Quota| {
        // Where nodes share pools by a store, no node knows what is left of all.
        let left = api.handle.leases().with_quotas(|ledgers, is_shared| {
            ledgers.get(&quota.id).filter(|_| !is_shared).map(|shared| shared.ledger.left(now))
        });
        let (requests_left, tokens_left) = left.unwrap_or_default();
        let rule = &quota.rule;
        Quota {
            quota: quota.id.to_string(),
            requests: rule.requests,
            tokens: rule.tokens,
            per_ms: rule.per.0,
            requests_left,
            tokens_left,
        }
    };
    table.quotas().iter().map(quota_now).collect()
}
