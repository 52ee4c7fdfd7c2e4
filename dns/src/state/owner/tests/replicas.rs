//! Tests of replicas (knowledge that regions hold copies of): from readings of their lag to the regions that DNS offers
//! and the node's report.

use bailiwick_rules::health::{Freshness, Lag};
use bailiwick_rules::report::ReplicaReport;

use super::*;

/// Rules with two regions that hold copies of the replica `kb`. It may lag by 60 seconds, and comes back at 20.
/// `replica` adds fields to it, `needs` says which paths of the service need it, and `copies` holds the fields of each
/// copy.
fn rules_with_replica(revision: u64, replica: &str, needs: &str, copies: [&str; 2]) -> Arc<Rules> {
    let json = format!(
        r#"{{ "version": 1, "revision": {revision}, "replicas": {{ "kb": {{ "max_lag": "60s", "resume": "20s",
                "down_thresh": 2, "up_thresh": 2{replica} }} }},
            "regions": {{ "fra": {{ "countries": ["DE"], "answers": {{ "A": ["192.0.2.0"] }},
                    "replicas": {{ "kb": {{ {} }} }} }},
                "par": {{ "countries": ["FR"], "answers": {{ "A": ["192.0.2.1"] }},
                    "replicas": {{ "kb": {{ {} }} }} }} }},
            "services": {{ "chat": {{ "hosts": ["chat.example.com"], "pattern": "active-passive",
                "regions": ["fra", "par"], "residency": [{{ "clients": ["unknown"], "process_in": ["*"] }}],
                "needs": {{ {needs} }} }} }} }}"#,
        copies[0], copies[1]
    );
    compile_rules(json.into_bytes(), "rules.json").unwrap_or_else(|faults| panic!("{faults:?}"))
}

const EVERY_PATH: &str = r#""/": ["kb"]"#;
const COPIES: [&str; 2] = [
    r#""url": "https://a.example/", "as": "seconds", "read": "/lag", "version": "/v", "interval": "4s""#,
    r#""url": "https://b.example/", "as": "seconds", "read": "/lag", "version": "/v", "interval": "4s""#,
];

/// Sets how many seconds the copy at a host is behind. `None` stands for a copy that can't be read.
fn set(prober: &Scripted, host: &str, seconds: Option<u64>) {
    set_version(prober, host, seconds, "1");
}

/// As [`set`], with the version that the copy tells.
fn set_version(prober: &Scripted, host: &str, seconds: Option<u64>, version: &str) {
    let mut replicas = prober.replicas.lock().unwrap();
    replicas.remove(host);
    let lag = |seconds| Some(Lag::Time(Millis(seconds * 1_000)));
    let reading =
        seconds.map(|seconds| ReplicaReading { lag: lag(seconds), is_leader: false, version: Some(version.into()) });
    replicas.extend(reading.map(|reading| (host.to_owned(), reading)));
}

/// The regions that DNS offers, in order, and why it withholds the others.
fn offered(snapshot: &Snapshot) -> String {
    let ask = bailiwick_rules::steer::Ask {
        service: bailiwick_rules::table::ServiceIndex(0),
        client: Default::default(),
        model: None,
        path_class: Default::default(),
        needs: None,
    };
    let explained = snapshot.explain(&ask, snapshot.at());
    let withheld = explained.withheld.iter().map(|one| format!("{}:{}", one.region, one.reason.as_str()));
    let offered = explained.ordered.iter().map(|one| one.region.to_string());
    offered.chain(withheld).collect::<Vec<_>>().join(" ")
}

/// What the node reports of a region's copy.
fn report_of(handle: &Handle, region: &str) -> ReplicaReport {
    handle.snapshot_owned().health_report("ns1", handle.now()).regions[region].replicas["kb"].clone()
}

async fn until_offered(handle: &Handle, wanted: &str) {
    let is_it = |snapshot: &Snapshot, _: &Status| offered(snapshot) == wanted;
    let waited = tokio::time::timeout(Duration::from_secs(120), handle.wait_until(is_it)).await;
    assert!(waited.is_ok(), "wanted {wanted}, but it is {}", offered(&handle.snapshot()));
}

#[tokio::test(start_paused = true)]
async fn a_region_that_lags_is_withheld_after_two_readings_and_comes_back_at_the_mark() {
    let prober = Scripted::default();
    set(&prober, "a.example", Some(3));
    set(&prober, "b.example", Some(3));
    let handle = begin(beginning(rules_with_replica(1, "", EVERY_PATH, COPIES), ""), &prober).await;
    assert_eq!(offered(&handle.snapshot()), "fra par", "the first readings were awaited");
    set(&prober, "a.example", Some(61));
    let begun = Instant::now();
    until_offered(&handle, "par fra:lagging").await;
    assert!((2..=10).contains(&begun.elapsed().as_secs()), "two readings, four seconds apart: {:?}", begun.elapsed());
    let report = report_of(&handle, "fra");
    assert_eq!((report.status, report.freshness.as_str()), (HealthStatus::Down, "lagging"));
    assert_eq!((report.lag_ms, report.interval_ms), (Some(61_000), 4_000));
    set(&prober, "a.example", Some(30));
    let waited =
        handle.wait_until(|snapshot, _| snapshot.health().replicas[0].lag() == Some(Lag::Time(Millis(30_000))));
    assert!(waited.await);
    sleep(Duration::from_secs(20)).await;
    assert_eq!(offered(&handle.snapshot()), "par fra:lagging", "between the marks nothing changes");
    set(&prober, "a.example", Some(20));
    until_offered(&handle, "fra par").await;
}

/// If every region of a fence is withheld, `when_all_down: "serve-fence"`, the default, offers those that are down
/// again. A region that lags isn't down, so it stays withheld.
#[tokio::test(start_paused = true)]
async fn serve_fence_revives_no_region_that_lags_unless_the_freshest_is_kept() {
    let prober = Scripted::default();
    set(&prober, "a.example", Some(90));
    set(&prober, "b.example", Some(75));
    let handle = begin(beginning(rules_with_replica(1, "", EVERY_PATH, COPIES), ""), &prober).await;
    assert_eq!(offered(&handle.snapshot()), "fra:lagging par:lagging", "the first reading decides at once");
    let kept = rules_with_replica(2, r#", "keep_freshest": true"#, EVERY_PATH, COPIES);
    handle.offer(Offer::Rules(kept)).await;
    until_offered(&handle, "par fra:lagging").await;
    set(&prober, "a.example", Some(70));
    until_offered(&handle, "fra par:lagging").await;
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_copy_is_withheld_or_ignored_as_the_rules_say() {
    let prober = Scripted::default();
    set(&prober, "a.example", None);
    set(&prober, "b.example", Some(1));
    let handle = begin(beginning(rules_with_replica(1, "", EVERY_PATH, COPIES), ""), &prober).await;
    until_offered(&handle, "par fra:lagging").await;
    assert_eq!(report_of(&handle, "fra").failure.as_deref(), Some("refused"));
    let ignored = rules_with_replica(2, r#", "unknown": "ignore""#, EVERY_PATH, COPIES);
    handle.offer(Offer::Rules(ignored)).await;
    until_offered(&handle, "fra par").await;
    let is_unknown = |snapshot: &Snapshot, _: &Status| snapshot.health().replicas[0].freshness == Freshness::Unknown;
    assert!(handle.wait_until(is_unknown).await);
    assert_eq!(offered(&handle.snapshot()), "fra par");
}

#[tokio::test(start_paused = true)]
async fn a_leader_is_never_withheld_whether_it_lags_or_can_not_be_read() {
    let prober = Scripted::default();
    set(&prober, "a.example", Some(1));
    set(&prober, "b.example", Some(90));
    let leader = format!("{}, \"leader\": true", COPIES[1]);
    let handle = begin(beginning(rules_with_replica(1, "", EVERY_PATH, [COPIES[0], &leader]), ""), &prober).await;
    assert_eq!(offered(&handle.snapshot()), "fra par");
    set(&prober, "b.example", None);
    let has_failed = |snapshot: &Snapshot, _: &Status| snapshot.health().replicas[1].readings.failed >= 5;
    assert!(handle.wait_until(has_failed).await);
    assert_eq!(offered(&handle.snapshot()), "fra par");
    // A leader needs no source.
    handle.offer(Offer::Rules(rules_with_replica(2, "", EVERY_PATH, [COPIES[0], r#""leader": true"#]))).await;
    assert!(handle.wait_until(|snapshot, _| revision(snapshot) == 2).await);
    assert_eq!(offered(&handle.snapshot()), "fra par");
}

#[tokio::test(start_paused = true)]
async fn dns_withholds_only_what_every_path_needs() {
    let prober = Scripted::default();
    set(&prober, "a.example", Some(90));
    set(&prober, "b.example", Some(1));
    let some = r#""/chat/completions": ["kb"], "/embeddings": []"#;
    let handle = begin(beginning(rules_with_replica(1, "", some, COPIES), ""), &prober).await;
    assert_eq!(offered(&handle.snapshot()), "fra par");
    assert_eq!(report_of(&handle, "fra").status, HealthStatus::Down, "the edge is told all the same");
    handle.offer(Offer::Rules(rules_with_replica(2, "", EVERY_PATH, COPIES))).await;
    until_offered(&handle, "par fra:lagging").await;
}

#[tokio::test(start_paused = true)]
async fn a_region_with_another_version_than_the_pinned_one_is_withheld() {
    let prober = Scripted::default();
    set_version(&prober, "a.example", Some(1), "e5");
    set_version(&prober, "b.example", Some(1), "bge");
    let group = r#", "group": "version", "version": "e5""#;
    let handle = begin(beginning(rules_with_replica(1, group, EVERY_PATH, COPIES), ""), &prober).await;
    assert_eq!(offered(&handle.snapshot()), "fra par:version");
    set_version(&prober, "b.example", Some(1), "e5");
    until_offered(&handle, "fra par").await;
}

#[tokio::test(start_paused = true)]
async fn one_voter_alone_withholds_nothing_and_a_majority_does() {
    let prober = Scripted::default();
    set(&prober, "a.example", Some(90));
    set(&prober, "b.example", Some(1));
    let voters = |rules: &Rules| {
        let mut json: serde_json::Value = serde_json::from_slice(&rules.bytes).unwrap();
        json["fleet"] = serde_json::json!({ "voters": { "ns1": { "site": "a" }, "ns2": { "site": "b" },
            "ns3": { "site": "c" } } });
        compile_rules(json.to_string().into_bytes(), "rules.json").unwrap_or_else(|faults| panic!("{faults:?}"))
    };
    let rules = voters(&rules_with_replica(1, "", EVERY_PATH, COPIES));
    let handle = begin(InitialState { node: "ns1".to_owned(), ..beginning(rules, "") }, &prober).await;
    let lags = |snapshot: &Snapshot, _: &Status| snapshot.health().replicas[0].status == HealthStatus::Down;
    assert!(handle.wait_until(lags).await);
    assert_eq!(offered(&handle.snapshot()), "fra par", "one of three sites is no majority");
    // The node of a second site reports the same. Two of three are a majority.
    let mut report = handle.snapshot_owned().health_report("ns2", handle.now());
    report.node = "ns2".to_owned();
    handle.hear(Box::new(report)).await;
    until_offered(&handle, "par fra:lagging").await;
}

#[tokio::test(start_paused = true)]
async fn without_replicas_in_the_rules_none_is_reported() {
    let prober = Scripted::default();
    prober.set("a:1", true);
    let handle = begin(beginning(rules(1, "chat.example.com", &["a:1"]), ""), &prober).await;
    let report = serde_json::to_value(handle.snapshot_owned().health_report("ns1", handle.now())).unwrap();
    assert!(report["regions"]["r0"].get("replicas").is_none(), "{report}");
}
