//! Tests of the loads of endpoints, from readings to the node's report.

use bailiwick_rules::report::LoadReport;

use super::*;

/// A region with two endpoints whose loads are read.
fn loaded(revision: u64, hosts: [&str; 2]) -> Arc<Rules> {
    let endpoint = |host: &str, capacity: u32| {
        format!(
            r#"{{ "url": "https://{host}/v1", "capacity": {capacity},
                "load": {{ "type": "vllm", "url": "https://{host}/metrics" }} }}"#
        )
    };
    let json = format!(
        r#"{{ "version": 1, "revision": {revision}, "regions": {{ "fra": {{ "countries": ["DE"],
            "endpoints": {{ "fra-1": {}, "fra-2": {} }} }} }} }}"#,
        endpoint(hosts[0], 30),
        endpoint(hosts[1], 10)
    );
    compile_rules(json.into_bytes(), "rules.json").unwrap_or_else(|faults| panic!("{faults:?}"))
}

fn reported(handle: &Handle) -> LoadReport {
    handle.snapshot_owned().health_report("ns1", handle.now()).loads["fra"].clone()
}

#[tokio::test(start_paused = true)]
async fn the_load_of_a_region_is_the_mean_of_its_endpoints_and_what_is_missing_is_counted() {
    let prober = Scripted::default();
    prober.waiting.lock().unwrap().insert("a.example".to_owned(), 4_000);
    let handle = begin(beginning(loaded(1, ["a.example", "b.example"]), ""), &prober).await;
    let is_read =
        |snapshot: &Snapshot, _: &Status| snapshot.health().loads.iter().all(|one| one.readings != Default::default());
    assert!(handle.wait_until(is_read).await);
    let report = reported(&handle);
    assert_eq!((report.load, report.read, report.missing), (Some(Ratio(800_000)), 1, 1), "{report:?}");
    assert_eq!((report.endpoints["fra-2"].load, report.endpoints["fra-2"].age_ms), (None, None));

    prober.waiting.lock().unwrap().insert("b.example".to_owned(), 2_000);
    assert!(handle.wait_until(|snapshot, _| snapshot.health().loads[1].failure.is_none()).await);
    assert_eq!(reported(&handle).load, Some(Ratio(700_000)), "30 at 0.8 and 10 at 0.4");
    let readings = handle.snapshot_owned().health().loads[1].readings;
    assert!(readings.passed == 1 && readings.failed >= 1, "{readings:?}");
}

#[tokio::test(start_paused = true)]
async fn a_load_that_can_no_longer_be_read_is_neither_idle_nor_full() {
    let prober = Scripted::default();
    for host in ["a.example", "b.example"] {
        prober.waiting.lock().unwrap().insert(host.to_owned(), 0);
    }
    let handle = begin(beginning(loaded(1, ["a.example", "b.example"]), ""), &prober).await;
    assert!(handle.wait_until(|snapshot, _| snapshot.health().loads.iter().all(|one| one.reading.is_some())).await);
    assert_eq!(reported(&handle).load, Some(Ratio(0)));
    prober.waiting.lock().unwrap().clear();
    let begun = Instant::now();
    assert!(handle.wait_until(|_, _| reported(&handle).load.is_none()).await);
    let patience = Duration::from_secs(8);
    assert!((patience..patience * 3).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    let report = reported(&handle);
    assert_eq!((report.read, report.missing), (0, 2));
    assert!(report.endpoints["fra-1"].age_ms > Some(8_000), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_reload_keeps_readings_and_stops_what_is_gone() {
    let prober = Scripted::default();
    for host in ["a.example", "b.example", "c.example"] {
        prober.waiting.lock().unwrap().insert(host.to_owned(), 1_000);
    }
    let handle = begin(beginning(loaded(1, ["a.example", "b.example"]), ""), &prober).await;
    assert!(handle.wait_until(|snapshot, _| snapshot.health().loads.iter().all(|one| one.reading.is_some())).await);
    handle.offer(Offer::Rules(loaded(2, ["a.example", "c.example"]))).await;
    assert!(handle.wait_until(|snapshot, _| revision(snapshot) == 2).await);
    let loads = handle.snapshot_owned().health().loads.clone();
    assert!(loads[0].reading.is_some() && loads[0].readings.passed >= 1, "kept: {loads:?}");
    assert!(handle.wait_until(|snapshot, _| snapshot.health().loads[1].reading.is_some()).await);
}

#[tokio::test(start_paused = true)]
async fn rules_without_sources_tell_no_loads() {
    let prober = Scripted::default();
    prober.set("a:1", true);
    let handle = begin(beginning(rules(1, "chat.example.com", &["a:1"]), ""), &prober).await;
    let report = serde_json::to_value(handle.snapshot_owned().health_report("ns1", handle.now())).unwrap();
    assert!(report.get("loads").is_none() && report.get("shares").is_none(), "{report}");
}

#[tokio::test(start_paused = true)]
async fn a_source_that_can_be_read_again_is_read_at_its_pace_at_once() {
    let prober = Scripted::default();
    let handle = begin(beginning(loaded(1, ["a.example", "b.example"]), ""), &prober).await;
    let readings = |snapshot: &Snapshot| snapshot.health().loads[0].readings;
    assert!(handle.wait_until(|snapshot, _| readings(snapshot).failed >= 7).await);
    prober.waiting.lock().unwrap().insert("a.example".to_owned(), 1_000);
    assert!(handle.wait_until(|snapshot, _| readings(snapshot).passed >= 1).await);
    let begun = Instant::now();
    assert!(handle.wait_until(|snapshot, _| readings(snapshot).passed >= 2).await);
    assert!(begun.elapsed() <= Duration::from_secs(3), "every two seconds again: {:?}", begun.elapsed());
}
