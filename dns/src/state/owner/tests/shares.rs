//! Shares of clients to move, from readings and health to what the node tells.

use bailiwick_rules::observe::Batch;
use bailiwick_rules::report::SharesReport;

use super::*;

/// Two regions of one fence, with loads that are read. `more` are further regions, `service` fields of the service.
fn loaded(revision: u64, more: &str, service: &str) -> Arc<Rules> {
    let region = |name: &str, country: &str, demand: u32| {
        format!(
            r#""{name}": {{ "countries": ["{country}"], "load": {{ "demand": {demand} }},
                "monitor": {{ "type": "tcp", "address": "{name}:1", "interval": "4s", "timeout": "1s",
                              "down_thresh": 1 }},
                "endpoints": {{ "{name}-1": {{ "url": "https://{name}.example/v1", "capacity": 100,
                    "load": {{ "type": "vllm", "url": "https://{name}.example/metrics" }} }} }} }}"#
        )
    };
    let json = format!(
        r#"{{ "version": 1, "revision": {revision}, "jurisdictions": {{ "eu": {{ "include": ["EU"] }} }},
            "regions": {{ {}, {} {more} }},
            "services": {{ "chat": {{ "hosts": ["chat.example.com"], "pattern": "active-active",
                "regions": ["fra", "par"] {service},
                "residency": [{{ "clients": ["eu"], "process_in": ["eu"] }}] }} }} }}"#,
        region("fra", "DE", 90),
        region("par", "FR", 20)
    );
    compile_rules(json.into_bytes(), "rules.json").unwrap_or_else(|faults| panic!("{faults:?}"))
}

/// Both regions are up; `fra` has this much waiting, and of 5,000 that are full `par` has 1,000.
fn prober(fra: u64) -> Scripted {
    let prober = Scripted::default();
    for (name, waiting) in [("fra", fra), ("par", 1_000)] {
        prober.set(&format!("{name}:1"), true);
        prober.waiting.lock().unwrap().insert(format!("{name}.example"), waiting);
    }
    prober
}

/// The part of Frankfurt's clients that is moved to Paris, in millionths.
fn moved(snapshot: &Snapshot) -> u32 {
    let Some(shares) = &snapshot.health().shares else { return 0 };
    let SharesReport { services, .. } = &**shares;
    let classes = services.values().flatten();
    let mut of_fra = classes.filter(|class| class.order[0].as_str() == "fra").flat_map(|class| &class.moves);
    of_fra.next().map_or(0, |one| one.share.0)
}

#[tokio::test(start_paused = true)]
async fn a_region_that_dies_gives_what_the_rest_has_room_for_at_once() {
    let prober = prober(4_000);
    let handle = begin(beginning(loaded(1, "", ""), ""), &prober).await;
    assert!(handle.wait_until(|snapshot, _| snapshot.health().loads.iter().all(|one| one.reading.is_some())).await);
    prober.set("fra:1", false);
    assert!(handle.wait_until(|snapshot, _| probed(snapshot, 0) == HealthStatus::Down).await);
    let share = moved(&handle.snapshot_owned());
    assert!((500_000..700_000).contains(&share), "{share}: Paris takes 50 more, of the 80 that Frankfurt carried");
    let report = serde_json::to_value(handle.snapshot_owned().health_report("ns1", handle.now())).unwrap();
    assert_eq!(report["shares"]["services"]["chat"][0]["moves"][0]["to"], "par");
}

#[tokio::test(start_paused = true)]
async fn a_full_region_gives_slowly_and_a_reload_takes_nothing_back() {
    let prober = prober(5_000);
    let handle = begin(beginning(loaded(1, "", ""), ""), &prober).await;
    let begun = Instant::now();
    assert!(handle.wait_until(|snapshot, _| moved(snapshot) >= 90_000).await);
    assert!(begun.elapsed() >= Duration::from_secs(10), "5 % in 10 s: {:?}", begun.elapsed());
    let before = moved(&handle.snapshot_owned());
    let first_by_name = r#", "aaa": { "countries": ["GB"] }"#;
    handle.offer(Offer::Rules(loaded(2, first_by_name, ""))).await;
    assert!(handle.wait_until(|snapshot, _| revision(snapshot) == 2).await);
    let after = moved(&handle.snapshot_owned());
    assert!(after + 1_000 >= before, "{after} after {before}: more than rounding");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_dns_would_move_is_not_planned_for() {
    let prober = prober(5_000);
    let handle = begin(beginning(loaded(1, "", r#", "shed_at": "dns""#), ""), &prober).await;
    let begun = Instant::now();
    assert!(handle.wait_until(|_, _| begun.elapsed() > Duration::from_secs(30)).await);
    assert!(handle.snapshot_owned().health().shares.is_none());
}

/// Tells what one isolate counted in five seconds, of `busy` requests at each region and of the demand of Germans.
fn observe(handle: &Handle, sequence: u64, busy: [u64; 2]) {
    let count = |region: &str, requests: u64| {
        let endpoint = format!("{region}-1");
        serde_json::json!({ "service": "chat", "clients": "eu", "region": region, "endpoint": endpoint,
                            "busy_ms": requests * 5_000 })
    };
    let demand = serde_json::json!({ "service": "chat", "order": ["fra", "par"], "busy_ms": 90 * 5_000 });
    let batch = serde_json::json!({
        "version": 1, "isolate": "00112233445566aa", "sequence": sequence, "at": handle.now().to_string(),
        "span_ms": 5000, "revision": 1, "counts": [count("fra", busy[0]), count("par", busy[1])], "demand": [demand],
    });
    let batch = Batch::read(batch.to_string().as_bytes()).unwrap();
    let snapshot = handle.snapshot_owned();
    handle.observed().with(|sums| sums.take(batch, snapshot.table(), handle.now())).unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_workers_observe_moves_clients_where_no_engine_tells_its_load() {
    let json = r#"{ "version": 1, "revision": 1, "jurisdictions": { "eu": { "include": ["EU"] } },
        "regions": {
            "fra": { "countries": ["DE"],
                "endpoints": { "fra-1": { "url": "https://fra.example/v1", "capacity": 90 } } },
            "par": { "countries": ["FR"],
                "endpoints": { "par-1": { "url": "https://par.example/v1", "capacity": 90 } } }
        },
        "services": { "chat": { "hosts": ["chat.example.com"], "pattern": "active-active", "regions": ["fra", "par"],
            "slew": "100%/1s", "residency": [{ "clients": ["eu"], "process_in": ["eu"] }] } } }"#;
    let rules = compile_rules(json.as_bytes().to_vec(), "rules.json").unwrap_or_else(|faults| panic!("{faults:?}"));
    let handle = begin(beginning(rules, ""), &Scripted::default()).await;
    let reported = |handle: &Handle| handle.snapshot_owned().health().shares.clone();
    assert!(handle.wait_until(|snapshot, _| snapshot.health().shares.is_some()).await);
    assert!(reported(&handle).unwrap().services.is_empty(), "no news is neither idle nor full");
    for sequence in 1..=8 {
        let away = u64::from(moved(&handle.snapshot_owned())) * 90 / 1_000_000;
        observe(&handle, sequence, [90 - away, 10 + away]);
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    let share = moved(&handle.snapshot_owned());
    assert!((50_000..250_000).contains(&share), "{share}: a full region keeps no more than its high mark");
}
