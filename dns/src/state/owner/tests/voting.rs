//! Tests of reports of other nodes: what the voters agree on, and what this node reports.

use bailiwick_rules::report::{HealthReport, HeldBy, Votes};
use serde_json::{Value, json};

use super::*;

const ADDRESSES: [&str; 3] = ["a:1", "b:1", "c:1"];

/// Rules with three regions, three voters at three sites, and this guard of the service.
pub(super) fn voted(revision: u64, guard: &Value) -> Arc<Rules> {
    let rules = rules(revision, "chat.example.com", &ADDRESSES);
    let mut document: Value = serde_json::from_slice(&rules.bytes).unwrap();
    document["fleet"] = json!({ "voters": {
        "ns1": { "site": "london" }, "ns2": { "site": "paris" }, "ns3": { "site": "berlin" } } });
    if !guard.is_null() {
        document["services"]["chat"]["guard"] = guard.clone();
    }
    compile_rules(document.to_string().into_bytes(), "rules.json").unwrap_or_else(|faults| panic!("{faults:?}"))
}

/// The node `ns1`, whose probes of the addresses succeed.
pub(super) async fn ns1(rules: Arc<Rules>, prober: &Scripted) -> Handle {
    for address in ADDRESSES {
        prober.set(address, true);
    }
    begin(InitialState { node: "ns1".into(), ..beginning(rules, "") }, prober).await
}

/// A report of another node, by which these regions are down. It stays fresh for hours, so that a test needn't repeat
/// it.
pub(super) fn report(node: &str, down: &[&str]) -> Box<HealthReport> {
    let region = |name: &str| {
        let status = if down.contains(&name) { "down" } else { "up" };
        json!({ "status": status, "probed": status, "stale": false, "override": null, "age_ms": 0,
            "interval_ms": 3_600_000, "endpoints": {} })
    };
    let regions: serde_json::Map<String, Value> =
        ["r0", "r1", "r2"].into_iter().map(|name| (name.to_owned(), region(name))).collect();
    let report = json!({ "node": node, "revision": 1, "rules_sha256": "", "regions": regions });
    Box::new(serde_json::from_value(report).unwrap())
}

fn statuses(snapshot: &Snapshot) -> [HealthStatus; 3] {
    [0, 1, 2].map(|region| probed(snapshot, region))
}

const UP: HealthStatus = HealthStatus::Up;
const DOWN: HealthStatus = HealthStatus::Down;

#[tokio::test(start_paused = true)]
async fn the_voters_decide_and_a_node_reports_what_it_sees_itself() {
    let prober = Scripted::default();
    let handle = ns1(voted(1, &Value::Null), &prober).await;
    handle.hear(report("ns2", &[])).await;
    handle.hear(report("ns3", &[])).await;
    assert!(handle.wait_until(|snapshot, _| statuses(snapshot) == [UP; 3]).await);
    prober.set("a:1", false);
    let own = |snapshot: &Snapshot| snapshot.health().own_regions()[0].probed;
    assert!(handle.wait_until(|snapshot, _| own(snapshot) == DOWN).await);
    let snapshot = handle.snapshot_owned();
    assert_eq!(statuses(&snapshot), [UP; 3], "one vote of three isn't a majority");
    let own_report = snapshot.health_report("ns1", handle.now());
    let r0 = &own_report.regions["r0"];
    assert_eq!((r0.probed, r0.status, own_report.blind), (DOWN, DOWN, false), "never the combined view");
    let agreed = own_report.fleet["r0"];
    assert_eq!((agreed.verdict, agreed.held_by), (UP, HeldBy::Quorum));
    assert_eq!(agreed.votes, Votes { up: 2, down: 1, unknown: 0, silent: 0 });
    let fleet = snapshot.health().fleet.clone().unwrap();
    assert_eq!((fleet.fresh, fleet.verdicts.len()), (3, 3));

    handle.hear(report("ns2", &["r0", "r1"])).await;
    assert!(handle.wait_until(|snapshot, _| statuses(snapshot) == [DOWN, UP, UP]).await);
    handle.hear(report("ns3", &["r1"])).await;
    assert!(
        handle.wait_until(|snapshot, _| statuses(snapshot) == [DOWN, DOWN, UP]).await,
        "the voters decide, and not the probes of ns1"
    );
    assert!(handle.snapshot().health().since[1] > handle.snapshot().health().since[2]);
}

#[tokio::test(start_paused = true)]
async fn strangers_and_namesakes_have_no_vote() {
    let prober = Scripted::default();
    let handle = ns1(voted(1, &Value::Null), &prober).await;
    handle.hear(report("ns2", &[])).await;
    for node in ["ns1", "ns9", "", "ns9"] {
        handle.hear(report(node, &["r0", "r1", "r2"])).await;
    }
    assert!(handle.wait_until(|snapshot, _| statuses(snapshot) == [UP; 3]).await);
    let fresh = |snapshot: &Snapshot| snapshot.health().fleet.as_ref().map(|fleet| fleet.fresh);
    assert_eq!(fresh(&handle.snapshot()), Some(2));
    // The report of a node that is no longer a voter is dropped.
    let fewer = voted(2, &Value::Null);
    let mut document: Value = serde_json::from_slice(&fewer.bytes).unwrap();
    document["fleet"]["voters"].as_object_mut().unwrap().remove("ns2");
    let fewer = compile_rules(document.to_string().into_bytes(), "rules.json").unwrap();
    handle.offer(Offer::Rules(fewer)).await;
    assert!(handle.wait_until(|snapshot, _| fresh(snapshot) == Some(1)).await);
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_own_line_is_down_votes_unknown_until_a_probe_succeeds() {
    let prober = Scripted::default();
    let handle = ns1(voted(1, &Value::Null), &prober).await;
    handle.hear(report("ns2", &["r0", "r1", "r2"])).await;
    handle.hear(report("ns3", &[])).await;
    assert!(handle.wait_until(|snapshot, _| statuses(snapshot) == [UP; 3]).await);
    for address in ADDRESSES {
        prober.set(address, false);
    }
    let own_down = |snapshot: &Snapshot| snapshot.health().own_regions().iter().all(|one| one.probed == DOWN);
    assert!(handle.wait_until(|snapshot, _| own_down(snapshot)).await);
    let snapshot = handle.snapshot_owned();
    assert_eq!(statuses(&snapshot), [UP; 3], "with the vote of ns2 it would be a majority");
    let own_report = snapshot.health_report("ns1", handle.now());
    assert!(own_report.blind && own_report.fleet["r0"].votes == Votes { up: 1, down: 1, unknown: 1, silent: 0 });
    prober.set("c:1", true);
    assert!(handle.wait_until(|snapshot, _| statuses(snapshot) == [DOWN, DOWN, UP]).await, "ns2 votes now");
    assert!(!handle.snapshot().health_report("ns1", handle.now()).blind);
}

#[tokio::test(start_paused = true)]
async fn a_guard_has_the_last_region_offered_for_its_window_by_time_alone() {
    let prober = Scripted::default();
    let guard = json!({ "keep": 1, "max_down": "100%", "window": "1m" });
    let handle = ns1(voted(1, &guard), &prober).await;
    let all = ["r0", "r1", "r2"];
    handle.hear(report("ns2", &[])).await;
    handle.hear(report("ns3", &[])).await;
    assert!(handle.wait_until(|snapshot, _| statuses(snapshot) == [UP; 3]).await);
    handle.hear(report("ns2", &all)).await;
    handle.hear(report("ns3", &all)).await;
    assert!(handle.wait_until(|snapshot, _| statuses(snapshot) == [DOWN, DOWN, UP]).await);
    let begun = handle.now();
    let guarded = |snapshot: &Snapshot| {
        let fleet = snapshot.health().fleet.clone().unwrap();
        fleet.guarded(bailiwick_rules::table::ServiceIndex(0))
    };
    assert_eq!(guarded(&handle.snapshot()), 1);
    assert_eq!(handle.snapshot().fleet_report(begun)["r2"].held_by, HeldBy::Guard);
    assert!(handle.wait_until(|snapshot, _| statuses(snapshot) == [DOWN; 3]).await);
    let waited = handle.now().since(begun).0;
    assert!((60_000..=61_001).contains(&waited), "{waited} ms");
    assert_eq!(guarded(&handle.snapshot()), 0);
}

#[tokio::test(start_paused = true)]
async fn without_voters_nothing_is_heard_and_nothing_more_is_told() {
    let prober = Scripted::default();
    let handle = ns1(rules(1, "chat.example.com", &ADDRESSES), &prober).await;
    handle.hear(report("ns2", &["r0", "r1", "r2"])).await;
    prober.set("a:1", false);
    assert!(handle.wait_until(|snapshot, _| statuses(snapshot) == [DOWN, UP, UP]).await, "only its own probes count");
    let own_report = serde_json::to_value(handle.snapshot().health_report("ns1", handle.now())).unwrap();
    assert!(own_report.get("fleet").is_none() && own_report.get("blind").is_none(), "{own_report}");
}

#[tokio::test(start_paused = true)]
async fn voters_probe_one_target_no_more_often_together_than_they_may_and_at_times_of_their_own() {
    let prober = Scripted::default();
    let rules = voted(1, &Value::Null);
    let mut document: Value = serde_json::from_slice(&rules.bytes).unwrap();
    document["fleet"]["max_probes_per_second"] = json!(0.25);
    let rules = compile_rules(document.to_string().into_bytes(), "rules.json").unwrap();
    let handle = ns1(rules, &prober).await;
    assert!(handle.wait_until(|_, _| prober.count("a:1") == 2).await);
    let begun = handle.now();
    assert!(handle.wait_until(|_, _| prober.count("a:1") == 12).await);
    let each = handle.now().since(begun).0 / 10;
    assert!((11_800..=12_200).contains(&each), "three voters, a quarter of a probe each second: {each} ms");
    let interval = handle.snapshot().health_report("ns1", handle.now()).regions["r0"].interval_ms;
    assert_eq!(interval, 12_000, "the report states the slower interval");
}

#[tokio::test(start_paused = true)]
async fn what_was_agreed_on_outlives_a_restart_of_a_node_that_is_cut_off() {
    let (prober, folder) = (Scripted::default(), tempfile::tempdir().unwrap());
    let rules = voted(1, &Value::Null);
    let store = Store::open(folder.path()).unwrap();
    for address in ADDRESSES {
        prober.set(address, true);
    }
    let initial = |agreed| InitialState {
        node: "ns1".into(),
        store: Some(store.clone()),
        agreed,
        ..beginning(Arc::clone(&rules), "")
    };
    let handle = begin(initial(store.agreed().unwrap()), &prober).await;
    handle.hear(report("ns2", &["r0"])).await;
    handle.hear(report("ns3", &["r0"])).await;
    assert!(handle.wait_until(|snapshot, _| statuses(snapshot) == [DOWN, UP, UP]).await);
    handle.finish_keeping(std::time::Duration::from_secs(5));
    drop(handle);

    let agreed = store.agreed().unwrap();
    let handle = begin(initial(agreed), &prober).await;
    assert_eq!(statuses(&handle.snapshot_owned()), [DOWN, UP, UP], "the node has no reports of others");
    drop(handle);
    // A new folder, because the node that has just ended may still write to the old one.
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    std::fs::write(folder.path().join("agreed.json"), "[{").unwrap();
    assert!(store.agreed().unwrap_err().to_string().contains("isn't what was kept"));
    let nothing = bailiwick_rules::fleet::Agreed::default();
    let handle = begin(InitialState { store: None, ..initial(nothing) }, &prober).await;
    assert_ne!(probed(&handle.snapshot_owned(), 0), DOWN, "without the state, nothing is known");
}
