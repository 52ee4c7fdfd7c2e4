//! `/v1/status`: takes one snapshot and the counters, returns all that an operator wants to know of this node at
//! one look.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use bailiwick_rules::health::{AddressFamily, Status};
use bailiwick_rules::load::{Amount, EngineReading};
use bailiwick_rules::overview::overview;
use bailiwick_rules::probe::{Effect, Verdict};
use bailiwick_rules::report::{EndpointReport, HeldBy, RegionReport, VerdictReport, Votes};
use bailiwick_rules::steer::Local;
use bailiwick_rules::table::RegionIndex;
use bailiwick_rules::time::Timestamp;

use super::Api;
use super::overrides::in_force;
use crate::dnssec::key_set::Role;
use crate::program::node_status::{FenceNow, FilesNow, KeyNow, LoadNow, NodeStatus, RegionNow, ReplicaNow, SourceNow};
use crate::state::owner::{self, FileKind};
use crate::state::snapshot::{MonitorView, Snapshot};

/// `GET /v1/status`: all that this node knows about itself.
pub(super) async fn status(State(api): State<Arc<Api>>) -> Json<NodeStatus> {
    let (snapshot, status, now) = (api.handle.snapshot_owned(), api.handle.status(), api.handle.now());
    let revision = snapshot.table().revision();
    Json(NodeStatus {
        node: api.node.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        now,
        begun: api.begun,
        revision: revision.number,
        rules_sha256: revision.sha256_hex(),
        fences: fences(&snapshot, now),
        regions: regions(&snapshot, &api.node, now),
        loads: loads(&snapshot, now),
        replicas: replicas(&snapshot),
        overrides: in_force(&snapshot, now),
        sources: sources(&snapshot, &status),
        keys: keys(&snapshot, now),
        files: api
            .metrics
            .files()
            .map(|file| FilesNow { files: file.files.clone(), expires: file.expires(), failing: file.is_failing() })
            .collect(),
        troubles: troubles(&api, &status),
        warnings: status.warnings.to_vec(),
    })
}

/// The fences of all services, with the regions that are offered now.
pub(super) fn fences(snapshot: &Snapshot, now: Timestamp) -> Vec<FenceNow> {
    let (table, local) = (snapshot.table(), Local::default());
    let conditions = snapshot.conditions(&local, now);
    let rows = overview(table, None, None).fences;
    let reported = rows.iter().map(|row| FenceNow {
        service: row.service.to_string(),
        tenant: row.tenant.as_ref().map(ToString::to_string),
        clients: row.clients.sentence(),
        by: row.given_by(),
        fence: row.fence_sentence(),
        offered: row.offered_sentence(table, &conditions),
    });
    reported.collect()
}

/// Every region, each followed by its endpoints.
pub(super) fn regions(snapshot: &Snapshot, node: &str, now: Timestamp) -> Vec<RegionNow> {
    let (table, health) = (snapshot.table(), snapshot.health());
    let report = snapshot.health_report(node, now);
    let mut reported = Vec::new();
    for (index, region) in (0..).map(RegionIndex).zip(table.regions()) {
        let Some(known) = report.regions.get(region.id.as_str()) else { continue };
        let monitors = |endpoint: Option<usize>| -> Vec<&MonitorView> {
            let is_it = |monitor: &&MonitorView| (monitor.region, monitor.endpoint) == (index, endpoint);
            health.monitors.iter().filter(is_it).collect()
        };
        let (own, agreed) = (&monitors(None)[..], report.fleet.get(region.id.as_str()).copied());
        reported.push(RegionNow {
            region: region.id.to_string(),
            status: agreed.map_or(known.status, |agreed| agreed.verdict),
            probed: known.probed,
            fleet: agreed,
            families: known.families.clone(),
            since: health.since.get(index.get()).copied(),
            forced: known.forced.is_some() || is_drained(known),
            why: agreed.and_then(why_agreed).unwrap_or_else(|| why_region(known, own)),
            ..last_failure(own)
        });
        for (position, (id, _)) in region.endpoints.iter().enumerate() {
            let (watched, endpoint) = (&monitors(Some(position))[..], known.endpoints.get(id.as_str()));
            let forced = endpoint.and_then(|endpoint| endpoint.forced.as_ref());
            reported.push(RegionNow {
                region: region.id.to_string(),
                endpoint: Some(id.to_string()),
                status: endpoint.map_or(Status::Unknown, |endpoint| endpoint.status),
                probed: endpoint.map_or(Status::Unknown, EndpointReport::by_probes),
                families: endpoint.map(|endpoint| endpoint.families.clone()).unwrap_or_default(),
                since: watched.iter().map(|monitor| monitor.since).max(),
                forced: forced.is_some(),
                why: forced.map_or_else(|| why(watched), |forced| format!("forced: {}", forced.reason)),
                ..last_failure(watched)
            });
        }
    }
    reported
}

/// The endpoints whose load is read.
fn loads(snapshot: &Snapshot, now: Timestamp) -> Vec<LoadNow> {
    let reported = snapshot.health().loads.iter().filter_map(|source| {
        let region = snapshot.table().region(source.region);
        let (endpoint, _) = region.endpoints.get(source.endpoint)?;
        let failure = match (source.failure.as_deref(), source.reading) {
            (None, None) => Some("none yet".to_owned()),
            (failure, _) => failure.map(str::to_owned),
        };
        Some(LoadNow {
            region: region.id.to_string(),
            endpoint: endpoint.to_string(),
            load: source.load(now).map_or("unknown".to_owned(), |load| load.to_string()),
            of: source.reading.map_or("-".to_owned(), |(_, reading)| parts(&reading)),
            read_at: source.reading.map(|(at, _)| at),
            failure,
        })
    });
    reported.collect()
}

/// The copies of replicas that are read.
pub(super) fn replicas(snapshot: &Snapshot) -> Vec<ReplicaNow> {
    let table = snapshot.table();
    let reported = snapshot.health().replicas.iter().map(|replica| ReplicaNow {
        region: table.region(replica.region).id.to_string(),
        replica: table.replica(replica.replica).id.to_string(),
        freshness: replica.freshness.as_str().to_owned(),
        withheld: snapshot.withholds(replica),
        lag: replica.lag().map(|lag| lag.to_string()),
        version: replica.version().map(str::to_owned),
        read_at: replica.reading.as_ref().map(|(at, _)| *at),
        failure: replica.failure.as_deref().map(str::to_owned),
    });
    reported.collect()
}

/// What a load was made of.
fn parts(reading: &EngineReading) -> String {
    let count = |amount: Amount| amount.div_ceil(1_000);
    let waiting = reading.waiting.map(|waiting| format!("{} waiting", count(waiting)));
    let running = reading.running.map(|running| format!("{} running", count(running)));
    let kv = reading.kv.map(|kv| format!("cache {kv}"));
    [waiting, running, kv].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// The last failure of a monitor, or of its halves.
fn last_failure(halves: &[&MonitorView]) -> RegionNow {
    let failed = halves.iter().filter_map(|monitor| Some((monitor.last_failure.as_ref()?, monitor.family)));
    let last = failed.max_by_key(|((at, _), _)| *at);
    let (failed_at, failure) = last.map(|((at, failure), family)| (*at, by_family(family, failure))).unzip();
    RegionNow { failed_at, failure, ..RegionNow::default() }
}

/// A sentence about a monitor, or about the half of it that this family is.
fn by_family(family: Option<AddressFamily>, sentence: &str) -> String {
    family.map_or_else(|| sentence.to_owned(), |family| format!("{family}: {sentence}"))
}

/// Whether every endpoint is forced down.
fn is_drained(report: &RegionReport) -> bool {
    let forced_down =
        |endpoint: &EndpointReport| endpoint.forced.as_ref().is_some_and(|forced| forced.status == Status::Down);
    !report.endpoints.is_empty() && report.endpoints.values().all(forced_down)
}

/// Who holds a region's status where voters decide, and how the sites vote; `None` for an operator.
fn why_agreed(agreed: VerdictReport) -> Option<String> {
    let Votes { up, down, unknown, silent } = agreed.votes;
    let votes: Vec<String> = [(up, "up"), (down, "down"), (unknown, "unknown"), (silent, "silent")]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    let reason = match agreed.held_by {
        HeldBy::Override => return None,
        HeldBy::Quorum => "most sites say so",
        HeldBy::Guard => "held by the guard although most sites or operators say down",
        HeldBy::None => "what was agreed on last",
    };
    Some(format!("{reason} (sites: {})", votes.join(", ")))
}

/// Why a region has its status, in a few words. `own` are the monitors of the region itself.
fn why_region(report: &RegionReport, own: &[&MonitorView]) -> String {
    let is_down = |monitor: &&MonitorView| monitor.monitored.machine.status() == Status::Down;
    let own_is_down = !own.is_empty() && own.iter().all(is_down);
    let are_watched = report.endpoints.values().any(|endpoint| endpoint.status != Status::Unknown);
    match (&report.forced, report.status) {
        (Some(forced), _) => format!("forced: {}", forced.reason),
        (None, Status::Down) if is_drained(report) => "forced: all its endpoints are".to_owned(),
        (None, Status::Down) if !own_is_down => "all its endpoints are down".to_owned(),
        (None, _) if own.is_empty() && are_watched => "by its endpoints".to_owned(),
        (None, _) => why(own),
    }
}

/// Why a monitor has its status, half by half where it tells the families of addresses apart.
fn why(halves: &[&MonitorView]) -> String {
    if halves.is_empty() {
        return "not watched".to_owned();
    }
    let sentence = |monitor: &&MonitorView| {
        let status = monitor.monitored.machine.status();
        if let Some(verdict) = monitor.model.as_ref().and_then(|model| model.verdict) {
            return why_model(status, verdict.0, monitor);
        }
        let why = match (status, &monitor.failure) {
            (Status::Unknown, _) => "no probe has answered yet",
            (Status::Up, None) => "probes succeed",
            (Status::Up, Some(_)) => "the last probe failed; too few have so far",
            (Status::Down, Some(_)) => "probes fail",
            (Status::Down, None) => "probes succeed again; too few have so far",
        };
        by_family(monitor.family, why)
    };
    halves.iter().map(sentence).collect::<Vec<_>>().join(", ")
}

/// Why a monitor that asks a model has its status.
fn why_model(status: Status, verdict: Verdict, monitor: &MonitorView) -> String {
    let mut why = format!("{verdict}: {}", verdict.meaning());
    match (status, verdict.effect()) {
        (Status::Up, Effect::Failure | Effect::Doubt) => why += "; too few failed so far",
        (Status::Down, Effect::Success) => why += "; too few succeeded so far",
        _ => {}
    }
    if let Some(until) = monitor.model.as_ref().and_then(|model| model.unpaid_until) {
        why += &format!("; the budget is spent until {until}");
    }
    by_family(monitor.family, &why)
}

/// For each kind of file: what is in service, and why the last version was refused if it was.
pub(super) fn sources(snapshot: &Snapshot, status: &owner::Status) -> Vec<SourceNow> {
    let world = snapshot.world();
    let zones = world.zone_sources();
    let served = zones.iter().filter(|zone| !zone.is_missing()).count();
    let built = world.places().built().map_or("none".to_owned(), |built| format!("built {built}"));
    let signed = world.key_sets().count();
    let source_now = |source: FileKind, name: &str, what: String| {
        let state = status.of(source);
        SourceNow {
            source: name.to_owned(),
            what,
            accepted_at: state.accepted_at,
            refused_at: state.last_error.as_ref().map(|failure| failure.at),
            errors: state.last_error.as_ref().map(|failure| failure.errors.clone()).unwrap_or_default(),
        }
    };
    vec![
        source_now(FileKind::Rules, "rules", format!("revision {}", snapshot.table().revision().number)),
        source_now(FileKind::Zones, "zones", format!("{served} of {} served", zones.len())),
        source_now(FileKind::Keys, "keys", format!("{signed} zones signed")),
        source_now(FileKind::Geoip, "geoip", built),
    ]
}

/// The keys of the signed zones.
fn keys(snapshot: &Snapshot, now: Timestamp) -> Vec<KeyNow> {
    let until: Vec<(String, Timestamp)> =
        snapshot.world().signed_until(now).map(|(zone, until)| (zone.origin().to_string(), until)).collect();
    let key_sets = snapshot.world().key_sets();
    let reported = key_sets.flat_map(|key_set| {
        let zone = key_set.zone_name();
        let signed_until = until.iter().find(|(origin, _)| *origin == zone).map(|(_, until)| *until);
        key_set.roles().map(move |(role, key)| KeyNow {
            zone: zone.clone(),
            tag: key.tag(),
            algorithm: key.algorithm(),
            state: match role {
                Role::Published => "published",
                Role::Active => "active",
                Role::Retired => "retired",
            }
            .to_owned(),
            signed_until,
        })
    });
    reported.collect()
}

pub(super) fn troubles(api: &Api, status: &owner::Status) -> Vec<String> {
    let tasks = api.handle.tasks().troubles();
    let tasks = tasks.iter().map(ToString::to_string);
    let failures = [&status.not_persisted, &status.not_renewed].into_iter().flatten();
    tasks.chain(super::of_zones(&api.handle)).chain(failures.flat_map(|failure| failure.errors.clone())).collect()
}
