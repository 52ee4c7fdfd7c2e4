//! Tests of the shares of clients that are moved because of load: from readings and health to the node's report and its
//! DNS answers.

use bailiwick_rules::drill::kept::Wanted;
use bailiwick_rules::observe::Batch;
use bailiwick_rules::report::SharesReport;
use bailiwick_rules::steer::{Ask, PathClass};
use ipnet::IpNet;

use super::*;
use crate::protocol::rdata::rtype;
use crate::response::answer::{Asking, Ecs, SteeredAnswer, SteeredAnswers};
use crate::zone::ServiceIndex;

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

/// Both regions are up. `fra` has this many waiting requests, in thousandths, and `par` has 1,000. A region with 5,000
/// is full.
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
    let SharesReport { services, .. } = &*shares.report;
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
    let snapshot = handle.snapshot_owned();
    let numbers = snapshot.health().planned.clone().unwrap();
    let reported_moves: Vec<_> = numbers.moves.iter().map(|one| (one.from.0, one.to.0)).collect();
    assert_eq!(reported_moves, [(0, 1)]);
    assert!(numbers.moves[0].share.0.abs_diff(share) <= share / 100, "all clients of Frankfurt belong to one service");
    let regions: Vec<_> = numbers.regions.iter().map(|one| (one.region.0, one.low.0, one.high.0)).collect();
    assert_eq!(regions, [(1, 700_000, 900_000)], "a region that is down carries nothing");
    let worst = &numbers.margins.worst[0];
    assert_eq!((worst.lost.0, worst.load.0), (1, u32::MAX), "without Paris nothing is left");
    assert_eq!((numbers.margins.worst[1].lost.0, numbers.margins.worst[1].load.0), (0, 1_100_000));
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
async fn a_region_that_is_drilled_takes_no_clients_of_a_full_one() {
    let rules = loaded(1, "", "");
    let mut rules: serde_json::Value = serde_json::from_slice(&rules.bytes).unwrap();
    rules["drills"] = serde_json::json!({ "one": { "region": "par" } });
    let rules = compile_rules(rules.to_string().into_bytes(), "rules.json").unwrap();
    let handle = begin(beginning(rules, ""), &prober(5_000)).await;
    let name = bailiwick_rules::id::DrillId::parse("one").unwrap();
    let wanted = Wanted { name, began: None, share: 10, hold: Millis(120_000) };
    handle.drill(wanted).await.expect("it begins");
    // Without it, nine of a hundred move within half a minute.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let snapshot = handle.snapshot_owned();
    assert!(snapshot.health().drilled.is_some(), "it is under way");
    assert!(snapshot.health().planned.is_some() && moved(&snapshot) == 0, "whoever came would be sent on by the drill");
    handle.end_drill("one", None, "it is done").await.expect("it is under way");
    assert!(handle.wait_until(|snapshot, _| moved(snapshot) >= 90_000).await);
}

/// Rules of a service that DNS moves. Frankfurt has address 192.0.2.1, Paris .2. Germans are in 198.51.0.0/16.
fn by_dns(service: &str) -> Arc<Rules> {
    let rules = loaded(1, "", &format!(r#", "shed_at": "dns", "ttl": {{ "min": 7, "max": 90 }} {service}"#));
    let mut rules: serde_json::Value = serde_json::from_slice(&rules.bytes).unwrap();
    rules["networks"] = serde_json::json!([{ "prefix": "198.51.0.0/16", "country": "DE" },
                                           { "prefix": "2001:db8::/32", "country": "DE" },
                                           { "prefix": "203.0.113.0/24", "country": "FR" }]);
    for (region, address) in [("fra", "192.0.2.1"), ("par", "192.0.2.2")] {
        rules["regions"][region]["answers"] = serde_json::json!({ "A": [address] });
        // So slow that it shortens no TTL.
        rules["regions"][region]["monitor"]["interval"] = "5m".into();
    }
    compile_rules(rules.to_string().into_bytes(), "rules.json").unwrap_or_else(|faults| panic!("{faults:?}"))
}

/// The last octet of the address that a client gets, the TTL and the scope.
fn answered(snapshot: &Snapshot, client: &str) -> (u8, u32, u8) {
    let subnet: IpNet = client.parse().unwrap();
    let ecs = Some(Ecs { address: subnet.network(), source: subnet.prefix_len() });
    let asking = Asking { transport: [9, 9, 9, 9].into(), ecs };
    match snapshot.resolve(ServiceIndex(0), rtype::A, &asking) {
        SteeredAnswer::Records { ttl, rdatas, scope, .. } => (rdatas.iter().next().unwrap()[3], ttl, scope),
        nothing @ SteeredAnswer::Nothing { .. } => panic!("{nothing:?}"),
    }
}

/// How many of 256 German networks DNS sends to Paris.
fn sent_to_paris(snapshot: &Snapshot) -> usize {
    (0..256).filter(|network| answered(snapshot, &format!("198.51.{network}.0/24")).0 == 2).count()
}

#[tokio::test(start_paused = true)]
async fn dns_moves_networks_of_a_full_region_slowly_and_none_twice() {
    let prober = prober(5_000);
    let handle = begin(beginning(by_dns(""), ""), &prober).await;
    assert_eq!(answered(&handle.snapshot_owned(), "198.51.7.0/24"), (1, 90, 16), "no client is moved yet");
    let (mut before, mut steps) = (Vec::new(), 0);
    while steps < 3 {
        let of = |snapshot: &Snapshot| -> Vec<usize> {
            let moved = |network: &usize| answered(snapshot, &format!("198.51.{network}.0/24")).0 == 2;
            (0..256).filter(moved).collect()
        };
        assert!(handle.wait_until(|snapshot, _| of(snapshot).len() > before.len()).await);
        let now = of(&handle.snapshot_owned());
        assert!(before.iter().all(|network| now.contains(network)), "a client that was moved stays there");
        // 5 % in ten seconds are 13 networks of 256; buckets hold four, more or less.
        assert!(now.len() - before.len() <= 20, "{} after {}", now.len(), before.len());
        (before, steps) = (now, steps + 1);
    }
    let snapshot = handle.snapshot_owned();
    for network in 0..256 {
        let (_, ttl, scope) = answered(&snapshot, &format!("198.51.{network}.77/32"));
        assert_eq!((ttl, scope), (7, 24), "the next plan may move the client, and its neighbour may be elsewhere");
    }
    assert_eq!(answered(&snapshot, "203.0.113.0/24"), (2, 90, 24), "clients of Paris stay, for as long as before");
    assert_eq!(answered(&snapshot, "2001:db8:7::/48").2, 48);
    let health_report = serde_json::to_value(snapshot.health_report("ns1", handle.now())).unwrap();
    assert_eq!(health_report["shares"]["services"]["chat"][0]["moves"][0]["to"], "par");
    for network in 0..256 {
        let address = format!("198.51.{network}.9");
        let ask = Ask {
            service: ServiceIndex(0),
            client: snapshot.client_at(address.parse().unwrap()),
            model: None,
            path_class: PathClass::Inference,
            needs: None,
        };
        let mut explained = snapshot.explain(&ask, handle.now());
        snapshot.explain_shed(&mut explained, &ask);
        let is_moved = answered(&snapshot, &format!("198.51.{network}.0/24")).0 == 2;
        assert_eq!((explained.moved_to.is_some(), explained.shed.len()), (is_moved, 1), "{}", explained.to_text());
    }
}

#[tokio::test(start_paused = true)]
async fn when_a_region_dies_dns_sends_its_clients_where_room_is_planned_and_the_rest_by_health() {
    let prober = prober(4_000);
    let handle = begin(beginning(by_dns(""), ""), &prober).await;
    assert!(handle.wait_until(|snapshot, _| snapshot.health().loads.iter().all(|one| one.reading.is_some())).await);
    prober.set("fra:1", false);
    assert!(handle.wait_until(|snapshot, _| probed(snapshot, 0) == HealthStatus::Down).await);
    assert_eq!(sent_to_paris(&handle.snapshot_owned()), 256, "one of two regions is left");
    let generation = handle.snapshot_owned().service_generation(ServiceIndex(0));
    let begun = Instant::now();
    assert!(handle.wait_until(|_, _| begun.elapsed() > Duration::from_secs(30)).await);
    let later = handle.snapshot_owned().service_generation(ServiceIndex(0));
    assert_eq!(later, generation, "plans that change no bucket make no kept answer useless");
    prober.set("par:1", false);
    assert!(handle.wait_until(|snapshot, _| probed(snapshot, 1) == HealthStatus::Down).await);
    let both_down = answered(&handle.snapshot_owned(), "198.51.7.0/24");
    assert_eq!(both_down.0, 1, "if all regions are down, the order is that of the fence");
}

#[tokio::test(start_paused = true)]
async fn dns_moves_nobody_of_a_service_that_the_edge_moves_or_that_stays() {
    for service in [r#", "shed_at": "edge""#, r#", "shed": "never""#] {
        let prober = prober(5_000);
        let rules = by_dns("");
        let text = String::from_utf8(rules.bytes.to_vec()).unwrap().replace(r#""shed_at":"dns""#, &service[2..]);
        let rules = compile_rules(text.into_bytes(), "rules.json").unwrap();
        let handle = begin(beginning(rules, ""), &prober).await;
        let begun = Instant::now();
        assert!(handle.wait_until(|_, _| begun.elapsed() > Duration::from_secs(60)).await);
        let snapshot = handle.snapshot_owned();
        assert_eq!((sent_to_paris(&snapshot), answered(&snapshot, "198.51.7.0/24")), (0, (1, 90, 16)), "{service}");
    }
}

/// Reports what one isolate (an instance of a Worker) counted in five seconds: `busy` requests at each region, and the
/// demand of German clients.
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
    assert!(reported(&handle).unwrap().report.services.is_empty(), "without reports a region is neither idle nor full");
    for sequence in 1..=8 {
        let away = u64::from(moved(&handle.snapshot_owned())) * 90 / 1_000_000;
        observe(&handle, sequence, [90 - away, 10 + away]);
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    let share = moved(&handle.snapshot_owned());
    assert!((50_000..250_000).contains(&share), "{share}: a full region keeps no more than its high mark");
}
