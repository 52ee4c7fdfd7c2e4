//! The owner of the state: reloads, probes, overrides, panics. Time is simulated.

mod fleet_overrides;
mod loads;
mod renewal;
mod replicas;
mod shares;
mod voting;

use std::collections::HashMap;
use std::sync::Mutex;

use bailiwick_rules::health::{AddressFamily, RegionHealth, Status as HealthStatus};
use bailiwick_rules::load::EngineReading;
use bailiwick_rules::replica::{ReadFailure, ReplicaReading};
use bailiwick_rules::rules::{LoadSource, Monitor, Probe, Ratio, ReplicaSource};
use bailiwick_rules::time::Millis;
use tokio::time::{Duration, Instant, sleep};

use super::*;
use crate::protocol::name::Name;
use crate::state::load::compile_rules;
use crate::state::probe::{ProbeFailure, ProbeSuccess, Prober, Targets};
use crate::state::snapshot::World;
use crate::state::store::Store;
use crate::zone::file;

const NOW: Timestamp = Timestamp(1_800_000_000_000);

/// The prober of these tests, with the answers that a test sets. `answers` holds for each address whether a probe
/// succeeds. A probe of an address that isn't listed never ends.
#[derive(Debug, Clone, Default)]
struct Scripted {
    answers: Arc<Mutex<HashMap<String, bool>>>,
    asked: Arc<Mutex<Vec<String>>>,
    /// The number of waiting requests at each host, in thousandths. Reading a host that isn't listed fails.
    waiting: Arc<Mutex<HashMap<String, u64>>>,
    /// The reading of the copy at each host. Reading a host that isn't listed fails.
    replicas: Arc<Mutex<HashMap<String, ReplicaReading>>>,
}

impl Scripted {
    fn set(&self, address: &str, answer: bool) {
        self.answers.lock().unwrap().insert(address.to_owned(), answer);
    }

    fn count(&self, address: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|one| *one == address).count()
    }
}

impl Prober for Scripted {
    async fn probe(&self, monitor: &Monitor, targets: Targets) -> Result<ProbeSuccess, ProbeFailure> {
        let Probe::Tcp { address } = &monitor.probe else { panic!("only tcp here") };
        // A monitor that distinguishes the families of addresses probes each family under a name of its own.
        let address =
            &targets.tested_family().map_or(address.clone(), |family| format!("{address} {}", family.as_str()));
        self.asked.lock().unwrap().push(address.clone());
        assert!(address != "dies:1" || self.count("dies:1") == 1, "a probe that dies, for the test");
        assert!(address != "stumbles:1" || self.count("stumbles:1") != 2, "a probe that dies once, for the test");
        let answer = self.answers.lock().unwrap().get(address).copied();
        match answer {
            Some(true) => Ok(ProbeSuccess::default()),
            Some(false) => Err("refused".to_owned().into()),
            None => std::future::pending().await,
        }
    }

    async fn read_load(&self, source: &LoadSource) -> Result<EngineReading, String> {
        let host = source.http.url.as_url().host_str().unwrap_or_default();
        let waiting = self.waiting.lock().unwrap().get(host).copied();
        let reading = |waiting| EngineReading { waiting: Some(waiting), engines: 1, ..EngineReading::default() };
        waiting.map(reading).ok_or_else(|| "refused".to_owned())
    }

    async fn read_replica(&self, source: &ReplicaSource, _: &Clock) -> Result<ReplicaReading, ReadFailure> {
        let host = source.http.url.as_url().host_str().unwrap_or_default();
        let reading = self.replicas.lock().unwrap().get(host).cloned();
        reading.ok_or_else(|| ReadFailure::Wrong("refused".to_owned()))
    }
}

/// Rules with a service at `host`, and a region for each address.
fn rules(revision: u64, host: &str, addresses: &[&str]) -> Arc<Rules> {
    let region = |(number, address): (usize, &&str)| {
        format!(
            r#""r{number}": {{ "countries": ["DE"], "answers": {{ "A": ["192.0.2.{number}"] }},
                "monitor": {{ "type": "tcp", "address": "{address}", "interval": "4s", "timeout": "1s", "up_thresh": 2,
                    "down_thresh": 2 }} }}"#
        )
    };
    let regions: Vec<String> = addresses.iter().enumerate().map(region).collect();
    let names: Vec<String> = (0..addresses.len()).map(|number| format!("\"r{number}\"")).collect();
    let json = format!(
        r#"{{ "version": 1, "revision": {revision}, "jurisdictions": {{ "eu": {{ "include": ["EU"] }} }},
            "regions": {{ {} }},
            "services": {{ "chat": {{ "hosts": ["{host}"], "pattern": "active-passive", "regions": [{}],
                           "residency": [{{ "clients": ["unknown"], "process_in": ["eu"] }}] }} }} }}"#,
        regions.join(","),
        names.join(",")
    );
    compile_rules(json.into_bytes(), "rules.json").unwrap_or_else(|faults| panic!("{faults:?}"))
}

fn zones(text: &str) -> Arc<[ZoneSource]> {
    let origin: Name = "example.com".parse().unwrap();
    let text = format!("$TTL 1h\n@ SOA ns.example.net. h.example.net. 1 2 3 4 60\n@ NS ns.example.net.\n{text}");
    let records = file::parse(text.as_bytes(), "example.zone", &origin, &mut |_| Err("no files".into())).unwrap();
    [ZoneSource { origin, records }].into()
}

fn beginning(rules: Arc<Rules>, zone: &str) -> InitialState {
    let world = World::build(rules, zones(zone), Arc::default(), Arc::new(Places::none()), NOW, None).unwrap();
    InitialState {
        node: String::new(),
        world,
        status: Status::default(),
        store: None,
        overrides: Default::default(),
        fleet_overrides: Vec::new(),
        agreed: bailiwick_rules::fleet::Agreed::default(),
        faults: Default::default(),
        rejected: Default::default(),
        set_aside: Vec::new(),
    }
}

async fn begin(beginning: InitialState, prober: &Scripted) -> Handle {
    spawn(beginning, prober.clone(), Clock::of_runtime(NOW)).await
}

fn revision(snapshot: &Snapshot) -> u64 {
    snapshot.table().revision().number
}

fn probed(snapshot: &Snapshot, region: usize) -> HealthStatus {
    snapshot.health().regions[region].probed
}

fn id(name: &str) -> Overridden {
    Overridden::parse(name).unwrap()
}

fn down_for(millis: u64) -> Forced {
    Forced { status: HealthStatus::Down, until: NOW.after(Millis(millis)), reason: "drill".into() }
}

#[tokio::test(start_paused = true)]
async fn the_start_awaits_first_results_and_timeouts() {
    let prober = Scripted::default();
    prober.set("up:1", true);
    prober.set("down:1", false);
    let begun = Instant::now();
    let handle = begin(beginning(rules(1, "chat.example.com", &["up:1", "down:1", "silent:1"]), ""), &prober).await;
    assert_eq!(begun.elapsed(), Duration::from_secs(1), "the timeout of the silent endpoint");
    let snapshot = handle.snapshot_owned();
    let statuses: Vec<_> = (0..3).map(|region| probed(&snapshot, region)).collect();
    assert_eq!(statuses, [HealthStatus::Up, HealthStatus::Down, HealthStatus::Down]);
    assert_eq!(snapshot.health().monitors[2].failure.as_deref(), Some("no answer within 1s"));
}

#[tokio::test(start_paused = true)]
async fn a_thread_that_answers_is_never_the_last_to_drop_a_world() {
    let prober = Scripted::default();
    prober.set("a:1", true);
    let handle = begin(beginning(rules(1, "chat.example.com", &["a:1"]), ""), &prober).await;
    let answering = handle.snapshot_owned();
    let world = Arc::downgrade(answering.world());
    handle.offer(Offer::Rules(rules(2, "chat.example.com", &["a:1"]))).await;
    assert!(handle.wait_until(|snapshot, _| revision(snapshot) == 2).await);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(world.strong_count(), 2, "the snapshot and one other place refer to the world");
    drop(answering);
    sleep(Duration::from_secs(60)).await;
    // Another thread drops the world, outside the paused clock.
    while world.strong_count() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn new_rules_wait_for_their_new_monitors_and_old_ones_keep_their_state() {
    let prober = Scripted::default();
    prober.set("a:1", true);
    let handle = begin(beginning(rules(1, "chat.example.com", &["a:1"]), ""), &prober).await;
    let asked = prober.count("a:1");

    handle.offer(Offer::Rules(rules(2, "chat.example.com", &["b:1", "a:1"]))).await;
    assert!(handle.wait_until(|_, status| status.awaited_revision == Some(2)).await);
    assert_eq!(revision(&handle.snapshot()), 1, "the rules wait for the first result of b:1");
    assert!(handle.wait_until(|snapshot, _| revision(snapshot) == 2).await);
    let snapshot = handle.snapshot_owned();
    assert_eq!((probed(&snapshot, 0), probed(&snapshot, 1)), (HealthStatus::Down, HealthStatus::Up));
    assert_eq!(prober.count("a:1"), asked, "the monitor wasn't started again");
    assert_eq!(handle.status().rules.accepted, 1);
}

#[tokio::test(start_paused = true)]
async fn a_newer_document_wins_over_one_that_waits() {
    let prober = Scripted::default();
    prober.set("a:1", true);
    let handle = begin(beginning(rules(1, "chat.example.com", &["a:1"]), ""), &prober).await;
    handle.offer(Offer::Rules(rules(2, "chat.example.com", &["silent:1"]))).await;
    assert!(handle.wait_until(|_, status| status.awaited_revision == Some(2)).await);
    let begun = Instant::now();
    handle.offer(Offer::Rules(rules(3, "chat.example.com", &["a:1"]))).await;
    assert!(
        handle
            .wait_until(|snapshot, _| {
                assert_ne!(revision(snapshot), 2);
                revision(snapshot) == 3
            })
            .await
    );
    assert!(begun.elapsed() < Duration::from_secs(1), "no new monitor had to report first");
    let asked = prober.count("silent:1");
    sleep(Duration::from_secs(30)).await;
    assert_eq!(prober.count("silent:1"), asked, "the monitors of the removed region were stopped");
}

#[tokio::test(start_paused = true)]
async fn older_rules_are_ignored_and_others_of_the_same_number_refused() {
    let prober = Scripted::default();
    let handle = begin(beginning(rules(5, "chat.example.com", &["a:1"]), ""), &prober).await;
    handle.offer(Offer::Rules(rules(4, "chat.example.com", &["a:1"]))).await;
    assert!(handle.wait_until(|_, status| status.rules.ignored == 1).await);
    assert!(
        handle.status().rules.last_error.as_ref().unwrap().errors[0].contains("revision 4 is older than revision 5")
    );
    handle.offer(Offer::Rules(rules(5, "other.example.com", &["a:1"]))).await;
    assert!(handle.wait_until(|_, status| status.rules.refused == 1).await);
    assert!(handle.status().rules.last_error.as_ref().unwrap().errors[0].contains("under a higher number"));
    handle.offer(Offer::Rules(rules(5, "chat.example.com", &["a:1"]))).await;
    assert!(handle.wait_until(|_, status| status.rules.last_error.is_none()).await, "the current rules were offered");
    assert_eq!(handle.snapshot().generation(), 1, "nothing was swapped");
}

#[tokio::test(start_paused = true)]
async fn each_refusal_names_the_very_document_that_was_offered() {
    let prober = Scripted::default();
    let handle = begin(beginning(rules(5, "chat.example.com", &["a:1"]), "sub NS ns.example.net.\n"), &prober).await;
    let refused = [
        (rules(4, "chat.example.com", &["a:1"]), "older than"),
        (rules(4, "chat.example.com", &["a:1"]), "older than"),
        (rules(5, "other.example.com", &["a:1"]), "under a higher number"),
        (rules(6, "chat.sub.example.com", &["a:1"]), "lies at or below a delegation"),
    ];
    for (document, why) in refused {
        let offered = Arc::downgrade(&document);
        handle.offer(Offer::Rules(document)).await;
        let is_refused = |status: &Status| {
            let refused = status.refused_rules.as_ref().filter(|refused| refused.document.ptr_eq(&offered));
            refused.is_some_and(|refused| refused.errors[0].contains(why))
        };
        assert!(handle.wait_until(|_, status| is_refused(status)).await, "{why}");
    }
}

#[tokio::test(start_paused = true)]
async fn rules_that_do_not_fit_the_zones_are_refused_until_they_do() {
    let prober = Scripted::default();
    let handle = begin(beginning(rules(1, "chat.example.com", &["a:1"]), "sub NS ns.example.net.\n"), &prober).await;
    handle.offer(Offer::Rules(rules(2, "chat.sub.example.com", &["a:1"]))).await;
    assert!(handle.wait_until(|_, status| status.rules.refused == 1).await);
    let reported = handle.status().rules.last_error.clone().unwrap().errors;
    assert!(
        reported[0].contains("chat.sub.example.com. lies at or below a delegation (example.zone:4)"),
        "{reported:?}"
    );
    assert_eq!(revision(&handle.snapshot()), 1);

    let broken = Faults::from([("example.com.".into(), vec!["example.zone:4: broken".into()])]);
    handle.changes.send(Change::Faults(FileKind::Zones, broken.clone())).await.unwrap();
    handle.changes.send(Change::Faults(FileKind::Zones, broken)).await.unwrap();
    assert!(handle.wait_until(|_, status| status.zones.refused == 1).await);
    assert_eq!(handle.status().zones.last_error.as_ref().unwrap().errors, ["example.zone:4: broken"]);
    assert_eq!(handle.status().zones_failing["example.com."], ["example.zone:4: broken"]);

    handle.offer(Offer::Zones(zones("sub A 192.0.2.1\n"))).await;
    handle.changes.send(Change::Faults(FileKind::Zones, Faults::new())).await.unwrap();
    assert!(handle.wait_until(|snapshot, _| revision(snapshot) == 2).await, "the rules fit the zones now");
    let status = handle.status();
    assert!(status.rules.last_error.is_none() && status.zones.last_error.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_zone_that_does_not_fit_keeps_no_other_from_being_taken() {
    let zone = |origin: &str, text: &str| {
        let origin: Name = origin.parse().unwrap();
        let text = format!("$TTL 1h\n@ SOA ns.example.net. h.example.net. 1 2 3 4 60\n@ NS ns.example.net.\n{text}");
        let records = file::parse(text.as_bytes(), "z", &origin, &mut |_| Err("no files".into())).unwrap();
        ZoneSource { origin, records }
    };
    let prober = Scripted::default();
    prober.set("a:1", true);
    let handle = begin(beginning(rules(1, "chat.example.com", &["a:1"]), ""), &prober).await;
    let cut = zone("example.com", "chat NS ns.example.net.\n");
    handle.offer(Offer::Zones([cut, zone("example.org", "new A 192.0.2.1\n")].into())).await;
    assert!(
        handle.wait_until(|snapshot, _| snapshot.world().zone_sources().len() == 2).await,
        "the other zone is accepted"
    );
    let has = |snapshot: &Snapshot, name: &str| {
        let name: Name = name.parse().unwrap();
        let zone = snapshot.zones().find(name.as_ref(), 1).unwrap();
        matches!(zone.locate(name.as_ref()), crate::zone::LookupResult::Exact(_))
    };
    assert!(has(&handle.snapshot(), "new.example.org") && has(&handle.snapshot(), "chat.example.com"));
    assert!(handle.wait_until(|_, status| status.zones_failing.contains_key("example.com.")).await);
    assert!(handle.status().zones.last_error.as_ref().unwrap().errors[0].contains("chat.example.com"));

    // Once the rules fit the zone, the zone is accepted without being offered again.
    handle.offer(Offer::Rules(rules(2, "other.example.com", &["a:1"]))).await;
    assert!(handle.wait_until(|_, status| status.zones.last_error.is_none()).await);
    assert!(handle.wait_until(|snapshot, _| has(snapshot, "other.example.com")).await);
    assert!(handle.status().zones_failing.is_empty());
}

#[tokio::test(start_paused = true)]
async fn probes_move_a_region_and_ttls_follow_what_is_missing() {
    let prober = Scripted::default();
    prober.set("a:1", true);
    prober.set("b:1", true);
    let handle = begin(beginning(rules(1, "chat.example.com", &["a:1", "b:1"]), ""), &prober).await;
    let first = |snapshot: &Snapshot| {
        let ask = bailiwick_rules::steer::Ask {
            service: bailiwick_rules::table::ServiceIndex(0),
            client: Default::default(),
            model: None,
            path_class: Default::default(),
            needs: None,
        };
        snapshot.explain(&ask, snapshot.at()).ordered[0].region.to_string()
    };
    assert_eq!(first(&handle.snapshot()), "r0");
    prober.set("a:1", false);
    let begun = Instant::now();
    assert!(handle.wait_until(|snapshot, _| first(snapshot) == "r1").await);
    assert!(begun.elapsed() <= Duration::from_secs(8), "two failures, four seconds apart: {:?}", begun.elapsed());
    prober.set("a:1", true);
    let begun = Instant::now();
    assert!(handle.wait_until(|snapshot, _| first(snapshot) == "r0").await);
    assert!(begun.elapsed() <= Duration::from_secs(8), "two successes in a row: {:?}", begun.elapsed());
    assert!(handle.status().probes_failed >= 2 && handle.status().probes_passed >= 4);
}

#[tokio::test(start_paused = true)]
async fn an_override_is_in_force_when_it_was_set_and_ends_by_itself() {
    let prober = Scripted::default();
    prober.set("a:1", true);
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let beginning =
        InitialState { store: Some(store.clone()), ..beginning(rules(1, "chat.example.com", &["a:1"]), "") };
    let handle = begin(beginning, &prober).await;
    assert_eq!(store.rules().unwrap().as_deref(), Some(&*handle.snapshot().rules_bytes().clone()), "last-good is kept");

    assert_eq!(handle.set_override(id("r0"), down_for(60_000)).await, Ok(Durability::Persisted));
    let forced = |snapshot: &Snapshot| snapshot.health().regions[0].forced.is_some();
    assert!(forced(&handle.snapshot()));
    assert_eq!(store.overrides().unwrap()[&id("r0")], down_for(60_000));
    assert!(handle.wait_until(|snapshot, _| !forced(snapshot)).await);
    assert!(handle.now() >= NOW.after(Millis(60_000)) && handle.now() < NOW.after(Millis(62_000)), "{}", handle.now());

    handle.set_override(id("r0"), down_for(600_000)).await.unwrap();
    assert_eq!(handle.delete_override(id("r0")).await, Ok(Durability::Persisted));
    assert!(!forced(&handle.snapshot()));
    assert!(store.overrides().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn overrides_that_make_no_sense_are_refused() {
    let prober = Scripted::default();
    prober.set("a:1", true);
    let handle = begin(beginning(rules(1, "chat.example.com", &["a:1"]), ""), &prober).await;
    let unknown = Forced { status: HealthStatus::Unknown, ..down_for(60_000) };
    let ended = Forced { until: NOW, ..down_for(0) };
    assert_eq!(handle.set_override(id("mars"), down_for(1)).await, Err(OverrideError::Unknown(id("mars"))));
    assert_eq!(handle.set_override(id("r0"), unknown).await, Err(OverrideError::NoStatus));
    assert_eq!(handle.set_override(id("r0"), ended).await, Err(OverrideError::Ended(NOW)));
    assert_eq!(handle.delete_override(id("r0")).await, Err(OverrideError::NotForced(id("r0"))));
    let kept = handle.set_override(id("r0"), down_for(60_000)).await;
    assert_eq!(kept, Ok(Durability::UntilRestart("no state_dir is configured".into())));
}

#[tokio::test]
async fn an_override_is_in_force_although_it_cannot_be_kept() {
    let prober = Scripted::default();
    prober.set("a:1", true);
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("state")).unwrap();
    std::fs::remove_dir(directory.path().join("state")).unwrap();
    let kept_there = store.clone();
    let beginning = InitialState { store: Some(store), ..beginning(rules(1, "chat.example.com", &["a:1"]), "") };
    let handle = begin(beginning, &prober).await;
    let kept = handle.set_override(id("r0"), down_for(60_000)).await.unwrap();
    assert!(matches!(&kept, Durability::UntilRestart(why) if why.contains("can't write to state_dir")), "{kept:?}");
    assert!(handle.snapshot().health().regions[0].forced.is_some());
    assert!(handle.wait_until(|_, status| status.not_persisted.is_some()).await);
    // Once the directory exists again, the override is written without a further request.
    std::fs::create_dir(directory.path().join("state")).unwrap();
    assert!(handle.wait_until(|_, status| status.not_persisted.is_none()).await);
    assert_eq!(kept_there.overrides().unwrap()[&id("r0")], down_for(60_000));
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_owner_costs_what_it_was_about_and_nothing_else() {
    let prober = Scripted::default();
    prober.set("a:1", true);
    let handle = begin(beginning(rules(1, "chat.example.com", &["a:1"]), ""), &prober).await;
    for panics in 1..=3 {
        handle.changes.send(Change::Panic).await.unwrap();
        assert!(handle.wait_until(|_, status| status.panics == panics).await);
    }
    assert_eq!(handle.tasks().health()[0].panics, 3);
    prober.set("a:1", false);
    assert!(handle.wait_until(|snapshot, _| probed(snapshot, 0) == HealthStatus::Down).await, "health goes on");
    handle.offer(Offer::Rules(rules(2, "chat.example.com", &["a:1"]))).await;
    assert!(handle.wait_until(|snapshot, _| revision(snapshot) == 2).await, "reloads go on");
    handle.set_override(id("r0"), down_for(6_000_000)).await.unwrap();
    assert!(handle.snapshot().health().regions[0].forced.is_some(), "overrides go on");
    assert_eq!(handle.tasks().troubles(), []);
}

#[tokio::test(start_paused = true)]
async fn a_monitor_whose_probe_panics_once_is_tried_again() {
    let prober = Scripted::default();
    prober.set("stumbles:1", true);
    let handle = begin(beginning(rules(1, "chat.example.com", &["stumbles:1"]), ""), &prober).await;
    assert!(handle.wait_until(|_, _| prober.count("stumbles:1") > 2).await);
    prober.set("stumbles:1", false);
    assert!(handle.wait_until(|snapshot, _| probed(snapshot, 0) == HealthStatus::Down).await);
}

#[tokio::test(start_paused = true)]
async fn a_retired_key_leaves_by_time_alone() {
    use crate::dnssec::key::{Algorithm, SigningKey};
    use crate::dnssec::key_set::ZoneKeys;
    use crate::dnssec::policy::Policy;
    use crate::dnssec::timeline::{NewKey, begin as begin_roll, finish, first};

    let keys: Vec<_> = (0..2).map(|_| Arc::new(SigningKey::generate(Algorithm::Ed25519).unwrap())).collect();
    let new =
        |number: usize| NewKey { file: number.to_string(), tag: keys[number].tag(), algorithm: Algorithm::Ed25519 };
    let origin: Name = "example.com".parse().unwrap();
    let policy = Policy { ds_ttl: Millis(120_000), dnskey_ttl: Millis(60_000), ..Policy::default() };
    let long_ago = Timestamp(NOW.0 - 900_000_000);
    let state = first(origin.clone(), new(0), &policy, Millis(0), long_ago);
    let state = begin_roll(&state, new(1), &policy, Timestamp(NOW.0 - 800_000_000)).unwrap();
    let state = finish(&state, &policy, Millis(0), NOW).unwrap();
    let zone_keys = ZoneKeys::new(&state, policy, |key| Some(Arc::clone(&keys[key.file.parse::<usize>().ok()?])));

    let prober = Scripted::default();
    prober.set("a:1", true);
    let beginning = beginning(rules(1, "chat.example.com", &["a:1"]), "");
    let world = &beginning.world;
    let (rules, zones, places) = (world.rules(), world.zone_sources(), world.places());
    let world =
        World::build(Arc::clone(rules), Arc::clone(zones), [zone_keys].into(), Arc::clone(places), NOW, None).unwrap();
    let handle = begin(InitialState { world, ..beginning }, &prober).await;
    let count = |snapshot: &Snapshot| snapshot.key_set(origin.as_ref()).map_or(0, |key_set| key_set.dnskeys().count());
    let before = handle.snapshot_owned();
    assert_eq!(count(&before), 2);
    let gone = NOW.after(policy.propagation).after(policy.ds_ttl);
    assert!(handle.wait_until(|snapshot, _| count(snapshot) == 1 || handle.now() > gone.after(Millis(9_000))).await);
    assert!(handle.now() >= gone && handle.now() < gone.after(Millis(10)), "{}", handle.now());
    assert!(handle.snapshot().generation() > before.generation());
}

/// A signed zone, and rules without monitors, so that weeks pass without an event.
fn signed() -> InitialState {
    use crate::dnssec::key::{Algorithm, SigningKey};
    use crate::dnssec::key_set::ZoneKeys;

    let keys = ZoneKeys::of_one("example.com".parse().unwrap(), SigningKey::generate(Algorithm::Ed25519).unwrap());
    let mut unwatched: serde_json::Value =
        serde_json::from_slice(&rules(1, "chat.example.com", &["a:1"]).bytes).unwrap();
    unwatched["regions"]["r0"].as_object_mut().unwrap().remove("monitor");
    let rules = compile_rules(unwatched.to_string().into_bytes(), "rules.json").unwrap();
    let world = World::build(rules, zones(""), [keys].into(), Arc::new(Places::none()), NOW, None).unwrap();
    InitialState {
        node: String::new(),
        world,
        status: Status::default(),
        store: None,
        overrides: Default::default(),
        fleet_overrides: Vec::new(),
        agreed: bailiwick_rules::fleet::Agreed::default(),
        faults: Default::default(),
        rejected: Default::default(),
        set_aside: Vec::new(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_went_ahead_and_is_set_back_leaves_no_signatures_from_the_future() {
    const DAYS: i64 = 10 * 86_400_000;
    let ahead = Arc::new(std::sync::atomic::AtomicI64::new(0));
    let set = |millis| ahead.store(millis, std::sync::atomic::Ordering::Relaxed);
    let clock = Clock::of_runtime(NOW).set_ahead(Arc::clone(&ahead));
    let handle = spawn(signed(), Scripted::default(), clock).await;
    let renewed = async |times| {
        let done = handle.wait_until(|_, status| status.renewals >= times && status.awaited_revision.is_none());
        tokio::time::timeout(Duration::from_secs(600), done).await.unwrap_or(false)
    };
    set(DAYS);
    assert!(renewed(1).await);
    set(0);
    assert!(renewed(2).await, "signatures from ten days ahead are valid for nobody");
    let (now, snapshot) = (handle.now(), handle.snapshot_owned());
    assert!(snapshot.world().signed_until(now).all(|(_, until)| until.since(now).0 < 8 * 86_400_000));
}

#[tokio::test(start_paused = true)]
async fn signatures_are_renewed_by_time_alone() {
    let handle = begin(signed(), &Scripted::default()).await;

    let (mut hours, first) = (Vec::new(), handle.snapshot_owned());
    let last = NOW.after(Millis(60 * 86_400_000));
    for renewals in 1..=12 {
        let is_renewed = |_: &Snapshot, status: &Status| {
            status.renewals >= renewals && status.awaited_revision.is_none() || handle.now() > last
        };
        assert!(handle.wait_until(is_renewed).await);
        let (now, snapshot) = (handle.now(), handle.snapshot_owned());
        hours.push(now.since(NOW).0 / 3_600_000);
        assert!(snapshot.world().signed_until(now).all(|(_, until)| until.since(now).0 > 86_400_000), "{hours:?}");
        assert_eq!(snapshot.generation(), first.generation() + renewals);
    }
    // The first renewal comes after four days, less a random part of half a day that each RRset has of its own. The
    // zone has fewer than twelve RRsets, so the twelfth renewal is of one that was renewed before.
    assert!((84..=96).contains(&hours[0]) && hours[11] >= 2 * 84, "{hours:?}");
}

#[tokio::test(start_paused = true)]
async fn a_monitor_that_falls_silent_goes_stale_by_time_alone() {
    let prober = Scripted::default();
    prober.set("dies:1", true);
    let handle = begin(beginning(rules(1, "chat.example.com", &["dies:1"]), ""), &prober).await;
    assert!(!handle.snapshot().health().regions[0].stale);
    assert!(handle.wait_until(|snapshot, _| snapshot.health().regions[0].stale).await);
    assert_eq!(handle.now(), NOW.after(Millis(12_001)), "three intervals later");
    assert_eq!(probed(&handle.snapshot(), 0), HealthStatus::Up, "the last status stays");
}

/// One region for each address. Each publishes A and AAAA records, and its monitor probes both families of addresses.
fn by_family(addresses: &[&str]) -> Arc<Rules> {
    let rules = rules(1, "chat.example.com", addresses);
    let text = String::from_utf8(rules.bytes.to_vec()).unwrap();
    let text = text.replace(r#""type": "tcp""#, r#""type": "tcp", "family": "both""#);
    let text = text.replace(r#""] },"#, r#""], "AAAA": ["2001:db8::1"] },"#);
    compile_rules(text.into_bytes(), "rules.json").unwrap_or_else(|faults| panic!("{faults:?}"))
}

#[tokio::test(start_paused = true)]
async fn each_family_of_a_monitor_of_both_has_a_health_of_its_own() {
    let prober = Scripted::default();
    for name in ["a", "b"] {
        prober.set(&format!("{name}:1 ipv4"), true);
        prober.set(&format!("{name}:1 ipv6"), name == "b");
    }
    let handle = begin(beginning(by_family(&["a:1", "b:1"]), ""), &prober).await;
    let seen = |snapshot: &Snapshot| {
        let by_family = snapshot.health().by_family.clone().unwrap();
        let of = |health: &[RegionHealth]| health[0].probed;
        (probed(snapshot, 0), of(&by_family.ipv4), of(&by_family.ipv6), of(&by_family.whole))
    };
    let (up, down) = (HealthStatus::Up, HealthStatus::Down);
    let snapshot = handle.snapshot_owned();
    assert_eq!(seen(&snapshot), (up, up, down, down), "the region is up while either family is up");
    let report = snapshot.health_report("ns1", snapshot.at());
    let region = report.regions.values().next().unwrap();
    assert_eq!(region.status, up);
    assert_eq!(serde_json::to_value(&region.families).unwrap(), serde_json::json!({ "ipv4": "up", "ipv6": "down" }));
    let families: Vec<_> = snapshot.health().monitors.iter().map(|one| (one.region.0, one.family.unwrap())).collect();
    let (v4, v6) = (AddressFamily::Ipv4, AddressFamily::Ipv6);
    assert_eq!(families, [(0, v4), (0, v6), (1, v4), (1, v6)]);

    prober.set("a:1 ipv4", false);
    assert!(handle.wait_until(|snapshot, _| probed(snapshot, 0) == down).await);
    prober.set("a:1 ipv6", true);
    assert!(handle.wait_until(|snapshot, _| seen(snapshot) == (up, down, up, down)).await);
    prober.set("a:1 ipv4", true);
    assert!(handle.wait_until(|snapshot, _| seen(snapshot) == (up, up, up, up)).await);
}

#[tokio::test(start_paused = true)]
async fn a_document_without_families_has_one_health() {
    let prober = Scripted::default();
    prober.set("a:1", true);
    let handle = begin(beginning(rules(1, "chat.example.com", &["a:1"]), ""), &prober).await;
    let snapshot = handle.snapshot_owned();
    assert!(snapshot.health().by_family.is_none() && snapshot.health().monitors[0].family.is_none());
    let report = serde_json::to_value(snapshot.health_report("ns1", snapshot.at())).unwrap();
    assert!(report["regions"]["r0"].get("families").is_none(), "a report without families has no such field: {report}");
}
