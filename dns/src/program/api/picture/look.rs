//! The task that looks at the node once a second, for the page at `/ui/`. Takes the node's snapshot; adds events, a
//! sample of each region, and checks of fences (the regions that may process a client) to [`crate::program::picture`].
//! Runs beside the API; no DNS query waits for it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bailiwick_rules::audit::Book;
use bailiwick_rules::fleet::traffic::BUCKET;
use bailiwick_rules::geo::CountryCode;
use bailiwick_rules::id::RegionId;
use bailiwick_rules::load::{Classes, requests};
use bailiwick_rules::rules::Ratio;
use bailiwick_rules::steer::first_token::Medians;
use bailiwick_rules::steer::{Local, effective_status, forced};
use bailiwick_rules::table::{RegionIndex, Revision, ServiceIndex, Table};
use bailiwick_rules::time::Timestamp;

use super::super::overrides::in_force;
use super::super::status::regions;
use super::Api;
use super::edge::{self, EdgeRates};
use super::now::{drill, rollout, whole_regions};
use crate::program::metrics::Metrics;
use crate::program::picture::seen::{Forced, NodeView, Region};
use crate::program::picture::timeline::{Sample, State};
use crate::program::picture::{AllDestinations, AnswerCounts, Destinations, FenceCheck, Group, Margin};
use crate::state::snapshot::{Fingerprint, Snapshot};

/// The time between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// The pause after a check of fences is this many times as long as the check took. So checks take no more than 5 % of
/// one core. The same holds for computing where clients go.
const PAUSE: u32 = 20;
/// How often fences are checked although nothing changed: overrides end, and the page shows when the last check was.
const CHECK_AT_LEAST: Duration = Duration::from_secs(60);
/// How often it is computed where clients go although no answer of DNS changed: services that only the edge serves have
/// no answers of DNS.
const GOING_AT_LEAST: Duration = Duration::from_secs(5);
/// The most services for which it is computed where clients go.
const MOST_SERVICES: usize = 32;
/// A day, in milliseconds.
const DAY: i64 = 86_400_000;

/// What the task keeps from one look to the next.
#[derive(Default)]
struct Memory {
    /// The second reading of the rules in service.
    book: Option<(Revision, Arc<Book>)>,
    checked: Option<Last>,
    went: Option<Last>,
    edge: EdgeRates,
}

/// When something was done last, for which answers, and how long it took.
struct Last {
    of: Fingerprint,
    at: Instant,
    took: Duration,
}

impl Last {
    /// Something was begun at this time, and is over now.
    fn since(at: Instant, snapshot: &Snapshot) -> Self {
        Self { of: snapshot.fingerprint(), at, took: at.elapsed() }
    }

    /// Whether it should be done again, because answers changed or it was long ago; but not too often.
    fn is_due(&self, snapshot: &Snapshot, at_least: Duration) -> bool {
        let age = self.at.elapsed();
        (age >= at_least || !self.of.is_of(snapshot)) && age >= self.took * PAUSE
    }
}

impl Memory {
    /// The second reading of the rules in service, which is made once for each document.
    fn book(&mut self, snapshot: &Snapshot) -> Arc<Book> {
        let revision = snapshot.table().revision();
        match &self.book {
            Some((of, book)) if *of == revision => Arc::clone(book),
            _ => {
                let book = Arc::new(Book::read(snapshot.rules_bytes()));
                self.book = Some((revision, Arc::clone(&book)));
                book
            }
        }
    }
}

/// Looks again and again, until it is dropped.
pub(crate) async fn watch(api: Arc<Api>) -> Infallible {
    let mut memory = Memory::default();
    let mut turns = tokio::time::interval(EVERY);
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        let api = Arc::clone(&api);
        // Not on a thread that serves connections.
        let looked = tokio::task::spawn_blocking(move || look(&api, memory)).await;
        memory = looked.unwrap_or_default();
    }
}

/// One turn of the task: checks the fences, computes what is due, notes what has changed, and takes a sample of each
/// region. Returns what the next turn has to know.
fn look(api: &Api, mut memory: Memory) -> Memory {
    let (snapshot, now) = (api.handle.snapshot_owned(), api.handle.now());
    check(api, &snapshot, &mut memory, now);
    if memory.went.as_ref().is_none_or(|last| last.is_due(&snapshot, GOING_AT_LEAST)) {
        let at = Instant::now();
        api.picture.go(all_destinations(&snapshot, now));
        memory.went = Some(Last::since(at, &snapshot));
    }
    let totals = api.handle.observed().with(|sums| edge::totals(sums));
    api.picture.note_edge(memory.edge.rates(totals, now));
    let view = see(api, &snapshot, now);
    let mut reasons: Option<BTreeMap<String, String>> = None;
    let why = |name: &str| {
        let reasons = reasons.get_or_insert_with(|| {
            let all = whole_regions(regions(&snapshot, &api.node, now));
            all.into_iter().map(|(name, (fence, _))| (name, with_failure(fence.why, fence.failure))).collect()
        });
        reasons.get(name).cloned().unwrap_or_default()
    };
    let first_tokens = api.handle.observed().with(|sums| sums.first_tokens(now).clone());
    let samples = samples(&snapshot, &view, &first_tokens, now);
    api.picture.sample(samples, now);
    api.picture.note(view, now, why);
    memory
}

/// A reason with the last failure of a probe.
fn with_failure(why: String, failure: Option<String>) -> String {
    match failure {
        Some(failure) if !why.contains(&failure) => format!("{why}: {failure}"),
        _ => why,
    }
}

/// Checks fences if what is answered may have changed, but not too often.
fn check(api: &Api, snapshot: &Snapshot, memory: &mut Memory, now: Timestamp) {
    if memory.checked.as_ref().is_some_and(|last| !last.is_due(snapshot, CHECK_AT_LEAST)) {
        return;
    }
    let at = Instant::now();
    let book = memory.book(snapshot);
    let (audit, margins, revision) =
        (snapshot.audit(&book, now), margins(snapshot), snapshot.table().revision().number);
    let accepted = api.handle.status().rules.accepted_at;
    let given = accepted.and_then(|accepted| {
        let since = Timestamp(accepted.max(api.begun).after(BUCKET).0.max(now.0 - DAY));
        answer_counts(&api.metrics, &book, snapshot.table(), since, now)
    });
    memory.checked = Some(Last::since(at, snapshot));
    let took_ms = u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
    let checked = FenceCheck { at: now, revision, took_ms, audit, given, margins };
    log(&checked, api.picture.checked().as_ref());
    api.metrics.fences.note(now, checked.audit.violations, checked.outside());
    api.picture.check(checked);
}

/// Logs violations that the check before didn't find.
fn log(checked: &FenceCheck, before: Option<&FenceCheck>) {
    let (revision, violations, outside) = (checked.revision, checked.audit.violations, checked.outside());
    if violations > 0 && before.is_none_or(|before| before.audit.violations == 0) {
        let listed = checked.audit.listed.iter().take(3);
        let listed: Vec<String> = listed
            .map(|violation| format!("{}/{} to {}", violation.service, violation.client, violation.region))
            .collect();
        let listed = listed.join(", ");
        tracing::error!(
            json.event = "fence_violated",
            revision,
            violations,
            "{violations} decisions lead out of their fence: {listed}; please report it"
        );
    }
    if outside > 0 && before.is_none_or(|before| before.outside() == 0) {
        tracing::error!(
            json.event = "fence_violated",
            revision,
            outside,
            "{outside} answers that were given led out of their fence: see /v1/traffic, and please report it"
        );
    }
}

/// Compares the answers that were counted with the fences. Only buckets count that began long enough after the rules
/// came into service: a bucket may hold queries that were answered up to one bucket earlier.
fn answer_counts(
    metrics: &Metrics,
    book: &Book,
    table: &Table,
    since: Timestamp,
    now: Timestamp,
) -> Option<AnswerCounts> {
    let (report, left_out) = metrics.recorded_traffic(now, since);
    let mut totals = AnswerCounts { since: report.from.unwrap_or(now), queries: 0, outside: 0, left_out };
    for count in report.counts {
        let Some(region) = count.region else { continue };
        // Names beyond a bound are counted under one that no rules have.
        if table.region_named(&region).is_none() || table.service_named(&count.service).is_none() {
            continue;
        }
        totals.queries += count.queries;
        let country = count.country.as_deref().and_then(CountryCode::parse);
        if !book.allows_country(&count.service, country, &region) {
            totals.outside += count.queries;
        }
    }
    (totals.queries > 0).then_some(totals)
}

/// Where clients of each country go, by service.
fn all_destinations(snapshot: &Snapshot, now: Timestamp) -> AllDestinations {
    let table = snapshot.table();
    let services = (0..).map(ServiceIndex).zip(table.services()).take(MOST_SERVICES);
    let group = |group: crate::state::snapshot::CountryGroup| Group {
        to: group.to.map(|region| table.region(region).id.to_string()),
        is_withheld: group.is_withheld,
        is_revived: group.is_revived,
        countries: group
            .countries
            .iter()
            .map(|country| country.as_ref().map_or("unknown", CountryCode::as_str))
            .collect::<Vec<_>>()
            .join(" "),
    };
    let destinations = |(index, service): (ServiceIndex, &bailiwick_rules::table::Service)| Destinations {
        service: service.id.to_string(),
        groups: snapshot.countries_by_region(index, now).into_iter().map(group).collect(),
    };
    let left_out = table.services().len().saturating_sub(MOST_SERVICES);
    AllDestinations { at: now, services: services.map(destinations).collect(), left_out }
}

/// The load of each fence without one of its regions, by the measured demand or by the demand that the rules state.
fn margins(snapshot: &Snapshot) -> Vec<Margin> {
    let table = snapshot.table();
    let measured = snapshot.health().planned.as_ref().map(|planned| planned.margins.worst.clone());
    let measured = measured.filter(|worst| !worst.is_empty());
    let by = if measured.is_some() { "measured" } else { "rules" };
    let worst = measured.unwrap_or_else(|| {
        if table.regions().iter().all(|region| region.load.is_none()) {
            return Vec::new();
        }
        let capacity = |region: RegionIndex| table.region(region).capacity().map(requests);
        let classes = Classes::stated(table);
        if classes.list().iter().all(|class| class.demand == 0) {
            return Vec::new();
        }
        bailiwick_rules::load::margins(&classes, capacity).worst
    });
    let name = |region: &RegionIndex| table.region(*region).id.to_string();
    let margin = |margin: bailiwick_rules::load::Margin| Margin {
        fence: margin.fence.iter().map(name).collect(),
        lost: name(&margin.lost),
        load: f64::from(margin.load.0) / 1e6,
        by,
    };
    worst.into_iter().map(margin).collect()
}

/// The view of this node now.
fn see(api: &Api, snapshot: &Snapshot, now: Timestamp) -> NodeView {
    let (table, local) = (snapshot.table(), Local::default());
    let conditions = snapshot.conditions(&local, now);
    let loads = snapshot.load_reports(now);
    let name = |region: RegionIndex| table.region(region).id.to_string();
    let region = |(index, region): (RegionIndex, &bailiwick_rules::table::Region)| {
        let mark = region.load.as_ref().map_or(Ratio::ONE, |load| load.high);
        let load = loads.get(&region.id).and_then(|load| load.load);
        let status = effective_status(table, index, &conditions);
        (region.id.to_string(), Region { status, load, mark, is_full: false })
    };
    let (head, peers) = api.handle.fleet().with(|view| {
        let head = view.head.as_ref().map(|head| format!("{}: {}", head.author, head.reason));
        let peer = |peer: &crate::state::fleet_status::Peer| {
            let name = peer.node.clone().unwrap_or_else(|| peer.url.clone());
            (name, peer.trouble.clone().unwrap_or_default())
        };
        (head.unwrap_or_default(), view.peers.iter().map(peer).collect())
    });
    let status = api.handle.status();
    let refused = status.rules.last_error.as_ref();
    let forced = in_force(snapshot, now).into_iter().rev().map(|row| {
        let forced = Forced { status: row.status, until: row.until, reason: row.reason };
        (row.of, forced)
    });
    let moves = snapshot.health().planned.iter().flat_map(|planned| &planned.moves);
    let checked = api.picture.checked();
    NodeView {
        rules: (table.revision().number, head),
        refused: refused.map(|failure| (failure.at, failure.errors.first().cloned().unwrap_or_default())),
        regions: (0..).map(RegionIndex).zip(table.regions()).map(region).collect(),
        overrides: forced.collect(),
        replicas: replicas(snapshot),
        skewed: skewed_endpoints(snapshot, now),
        moves: moves.map(|moved| ((name(moved.from), name(moved.to)), moved.share)).collect(),
        peers,
        rollouts: table.rollouts().iter().map(|rule| (rule.id.to_string(), rollout(table, rule))).collect(),
        drill: snapshot.health().drill.as_ref().map(|record| (record.region.to_string(), drill(record, now))),
        violations: checked.as_ref().map_or(0, |checked| checked.audit.violations),
        led_outside: checked.is_some_and(|checked| checked.outside() > 0),
    }
}

/// How fresh each copy of a replica is, by `REGION/REPLICA`.
fn replicas(snapshot: &Snapshot) -> BTreeMap<String, String> {
    let table = snapshot.table();
    let freshness = |replica: &crate::state::snapshot::ReplicaView| {
        let name = format!("{}/{}", table.region(replica.region).id, table.replica(replica.replica).id);
        (name, replica.freshness.as_str().to_owned())
    };
    snapshot.health().replicas.iter().map(freshness).collect()
}

/// The endpoints that run another release, and what differs.
fn skewed_endpoints(snapshot: &Snapshot, now: Timestamp) -> BTreeMap<String, String> {
    if snapshot.table().releases().is_empty() {
        return BTreeMap::new();
    }
    let running = snapshot.running(now);
    let of_model = |(model, state): (&String, &bailiwick_rules::report::ReleaseState)| {
        let skewed = state.endpoints.iter().filter(|endpoint| endpoint.state.is_skewed());
        let named = |report: &bailiwick_rules::report::RunningReport| {
            (format!("{}/{}", report.region, report.endpoint), format!("{model}: {}", report.differs.join(", ")))
        };
        skewed.map(named).collect::<Vec<_>>()
    };
    running.iter().flat_map(of_model).collect()
}

/// What every region is now, for the timeline.
fn samples(snapshot: &Snapshot, view: &NodeView, first_tokens: &Medians, now: Timestamp) -> Vec<(RegionId, Sample)> {
    let (table, local) = (snapshot.table(), Local::default());
    let conditions = snapshot.conditions(&local, now);
    let sample = |(index, region): (RegionIndex, &bailiwick_rules::table::Region)| {
        let state_of_region = view.regions.get(region.id.as_str()).copied().unwrap_or_default();
        let load = state_of_region.load.map(|load| u16::try_from(load.0 / 1_000).unwrap_or(u16::MAX));
        let is_forced = forced(table, index, &conditions).is_some();
        let state = match state_of_region.status {
            bailiwick_rules::health::Status::Down if is_forced => State::Forced,
            bailiwick_rules::health::Status::Down => State::Down,
            _ if state_of_region.load.is_some_and(|load| load >= state_of_region.mark) => State::Full,
            bailiwick_rules::health::Status::Up => State::Up,
            bailiwick_rules::health::Status::Unknown => State::Unknown,
        };
        let medians = first_tokens.values().filter_map(|regions| regions.get(&region.id));
        let first_token = medians.max().map(|median| u16::try_from(*median).unwrap_or(u16::MAX));
        (region.id.clone(), Sample { state, load, first_token })
    };
    (0..).map(RegionIndex).zip(table.regions()).map(sample).collect()
}

#[cfg(test)]
mod tests {
    use bailiwick_rules::id::ServiceId;

    use super::*;
    use crate::response::answer::Origin;
    use crate::state::snapshot::Rules;

    const RULES: &str = r#"{ "version": 1, "revision": 1, "jurisdictions": { "eu": { "include": ["EU"] } },
        "regions": { "fra": { "countries": ["DE"] } },
        "services": { "chat": { "hosts": ["chat.example"], "pattern": "active-active", "regions": ["fra"],
            "residency": [{ "clients": ["eu"], "process_in": ["eu"] }] } } }"#;

    #[test]
    fn an_answer_without_a_counter_of_its_country_is_no_violation_and_one_for_an_unknown_client_is() {
        let now = Timestamp(10 * i64::try_from(BUCKET.0).unwrap());
        let book = Book::read(RULES.as_bytes());
        let table = Table::compile(RULES.as_bytes()).unwrap();
        let rules = Arc::new(Rules { table, bytes: Arc::from(RULES.as_bytes()) });
        let (service, region) = (ServiceId::parse("chat").unwrap(), RegionId::parse("fra").unwrap());
        let austria = Origin::new(CountryCode::parse("AT").unwrap().number(), true);
        let found = |is_full: bool, others: &[Origin]| {
            let metrics = Metrics::default();
            let counters = metrics.thread().steered_under(&rules);
            if is_full {
                counters.fill();
            }
            counters.add(ServiceIndex(0), Some(RegionIndex(0)), austria);
            others.iter().for_each(|origin| metrics.count_steered(&service, Some(&region), *origin));
            metrics.record_traffic(now);
            answer_counts(&metrics, &book, &rules.table, now, now)
                .map(|found| (found.queries, found.outside, found.left_out))
        };
        assert_eq!(found(false, &[]), Some((1, 0, 0)));
        assert_eq!(found(false, &[Origin::default()]), Some((2, 1, 0)), "nobody unplaced may be sent anywhere");
        assert_eq!(found(true, &[austria]), Some((1, 0, 1)));
        assert_eq!(found(true, &[austria, Origin::default()]), Some((1, 0, 2)), "who was which can't be told");
        assert_eq!(found(true, &[]), None);
    }
}
