//! `deploy/`: every metric that the alerts and the boards name is one that the real server has, and promtool finds the
//! alerts good.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use bailiwick_rules::time::Timestamp;
use bailiwick_tests::dns::question;
use bailiwick_tests::geo::{GERMAN, root};
use bailiwick_tests::net::free_port;
use bailiwick_tests::node::{Setup, TOKEN};
use bailiwick_tests::otlp_receiver::{Answer, Receiver};
use bailiwick_tests::process::Process;
use bailiwick_tests::wait;
use serde_json::json;

use crate::boards::panels::BOARDS;
use crate::fixture::{World, ZONE};

/// Names that begin with `bailiwick_` in a text, without what a counter or a histogram adds to them.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("bailiwick_")).map(str::to_owned).collect()
}

/// A node that has all there is: zones that are signed, limits, certificates, endpoints, an override, a fleet, load,
/// what Workers observed, and an aggregate.
fn metrics() -> String {
    let (world, engine) = (World::start(), Receiver::answering(Answer::Says(200, PAGE.to_owned())));
    let idle = Receiver::answering(Answer::Says(200, PAGE.replace(" 40", " 0").replace("0.9", "0.1")));
    let copies = Receiver::answering(Answer::Says(200, json!({ "lag": 3 }).to_string()));
    let mut rules = world.rules(1);
    let monitor = json!({ "type": "http", "url": world.frankfurt.health_url(), "interval": "200ms" });
    let load = json!({ "type": "vllm", "url": engine.url("/metrics"), "interval": "1s" });
    let endpoint = json!({ "url": format!("{}/v1", world.frankfurt.health_url()), "monitor": monitor, "capacity": 10,
        "models": { "m": "m" }, "load": load });
    let port = world.frankfurt.address().port();
    let by_family = json!({ "type": "tcp", "address": format!("localhost:{port}"), "family": "both" });
    let second = json!({ "url": endpoint["url"], "monitor": by_family, "capacity": 10, "load": load });
    let model = json!({ "type": "openai", "model": "m" });
    let third = json!({ "url": endpoint["url"], "monitor": model, "capacity": 10, "load": load });
    rules["regions"]["eu-frankfurt"]["endpoints"] = json!({ "fra-1": endpoint, "fra-2": second, "fra-3": third });
    // More than Frankfurt carries, so that clients are moved.
    rules["regions"]["eu-frankfurt"]["load"] = json!({ "demand": 90 });
    rules["services"]["chat"]["slew"] = json!("100%/1s");
    let load = json!({ "type": "vllm", "url": idle.url("/metrics"), "interval": "1s" });
    let endpoint = json!({ "url": "https://par.gpu.example.net/v1", "capacity": 100, "load": load });
    rules["regions"]["eu-paris"]["endpoints"] = json!({ "par-1": endpoint });
    rules["releases"] = json!({ "m": {} });
    rules["replicas"] = json!({ "kb": { "max_lag": "60s" } });
    let copy = json!({ "url": copies.url("/lag"), "as": "seconds", "read": "/lag" });
    rules["regions"]["eu-frankfurt"]["replicas"] = json!({ "kb": copy });
    rules["fleet"] = json!({ "voters": { "ns1": { "site": "london" } } });
    rules["services"]["chat"]["guard"] = json!({ "keep": 1 });
    rules["aggregate"] = json!({ "otlp": "http://127.0.0.1:1/" });
    let setup = Setup::new(&rules, ZONE).encrypted(&["dot", "doq", "doh"]).signed();
    let node = setup.with("[rate_limit]\nper_second = 1000\n[fleet]\npeers = [\"http://127.0.0.1:1\"]\n").start();
    let forced = json!({ "region": "us-virginia", "status": "down", "until": "2099-01-01T00:00:00Z", "reason": "drill",
                         "force": true });
    assert_eq!(node.call("POST", "/v1/overrides", Some(TOKEN), Some(&forced)).0, 200);
    let (status, said) = node.call("POST", "/v1/observations", Some(TOKEN), Some(&observed_all()));
    assert_eq!(status, 200, "{said}");
    let _ = question("chat.ai.example.com", "A").from(GERMAN).ask(node.dns);
    wait::until_true("load and lag are read, and clients are moved", || {
        let metrics = node.get("/metrics");
        ["bailiwick_region_load_ratio{", "bailiwick_replica_lag_seconds{", "bailiwick_plan_share_ratio{"]
            .iter()
            .all(|name| metrics.contains(name))
    });
    node.get("/metrics")
}

/// What an engine tells of its load.
const PAGE: &str = "vllm:num_requests_waiting 40\nvllm:num_requests_running 10\nvllm:kv_cache_usage_perc 0.9\n";

/// A batch of a Worker that has everything.
fn observed_all() -> serde_json::Value {
    let times = json!({ "sum_us": 2_030_000, "buckets": [[-8, 1], [4, 1]] });
    let counts = json!([{ "service": "chat", "clients": "eu", "region": "eu-frankfurt", "endpoint": "fra-1",
        "model": "m", "requests": { "ok": 2 }, "attempts": { "committed": 2, "timeout": 1 }, "finish": { "stop": 2 },
        "tokens_in": 10, "tokens_out": 20, "first_token": times, "between_tokens": times, "total": times }]);
    let in_flight = json!([{ "region": "eu-frankfurt", "endpoint": "fra-1", "count": 1 }]);
    json!({ "version": 1, "isolate": "00112233445566aa", "sequence": 1, "at": now(), "span_ms": 5000, "revision": 1,
            "counts": counts, "in_flight": in_flight })
}

/// Metrics of nodes that share quotas by a store: those tests look for them.
const OF_A_STORE: [&str; 1] = ["bailiwick_quota_cut_off"];

#[test]
fn alerts_and_boards_name_metrics_that_the_server_has() {
    let metrics = metrics();
    let samples = metrics.lines().filter(|line| !line.starts_with('#'));
    let known: BTreeSet<String> =
        samples.flat_map(|line| names(line.split(['{', ' ']).next().unwrap_or_default())).collect();
    // The names of the edge's board are looked for in a real Worker's metrics, by tests/edge/boards.spec.ts.
    let boards = BOARDS.iter().map(|board| board.file).filter(|file| !file.ends_with("-edge.json"));
    for file in boards.chain(["deploy/prometheus/alerts.yml"]) {
        let text = std::fs::read_to_string(root().join(file)).expect(file);
        let named: BTreeSet<String> = names(&text).into_iter().filter(|name| !name.ends_with('_')).collect();
        assert!(named.len() > 10, "{file} names some");
        let is_unknown = |name: &&String| !known.contains(*name) && !OF_A_STORE.contains(&name.as_str());
        let unknown: Vec<&String> = named.iter().filter(is_unknown).collect();
        assert!(unknown.is_empty(), "{file} names {unknown:?}, which are not in\n{metrics}");
    }
    for expected in [
        "bailiwick_monitor_probes_total{region=\"eu-frankfurt\",endpoint=\"fra-1\",result=\"passed\"}",
        "bailiwick_monitor_since_seconds{region=\"uk-london\",endpoint=\"\"}",
        "bailiwick_region_since_seconds{region=\"eu-paris\"}",
        "bailiwick_rules_info{revision=\"1\",sha256=\"",
        "bailiwick_connections_limit{scope=\"all\"} 1024",
        "bailiwick_rate_limit_per_second 1000",
        "bailiwick_answer_seconds_count{transport=\"udp\"} 1",
        "bailiwick_certificate_expires_seconds{files=\"",
    ] {
        assert!(metrics.contains(expected), "{expected} is not in\n{metrics}");
    }
}

#[test]
fn promtool_finds_the_alerts_good_and_the_metrics_readable() {
    let file = root().join("deploy/prometheus/alerts.yml");
    let Ok(output) = Command::new("promtool").args(["check", "rules"]).arg(file).output() else {
        println!("skipped: no promtool; scripts/setup packages installs it");
        return;
    };
    let reported = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{reported}");

    let mut checker = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool");
    checker.stdin.take().expect("its input").write_all(metrics().as_bytes()).expect("metrics");
    let output = checker.wait_with_output().expect("promtool");
    let reported = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{reported}");
}

/// Counts that a Worker would post: two requests of 0.53 s and 1.5 s, in buckets of a scale of 3.
fn observed() -> serde_json::Value {
    let times = json!({ "sum_us": 2_030_000, "buckets": [[-8, 1], [4, 1]] });
    let counts = json!([{ "service": "chat", "clients": "none", "requests": { "ok": 2 }, "total": times }]);
    json!({ "version": 1, "isolate": "00112233445566aa", "sequence": 1, "at": now(), "span_ms": 5000, "revision": 1,
            "counts": counts })
}

/// The time in the form of the rules.
fn now() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    Timestamp(i64::try_from(since.as_millis()).expect("a time")).to_string()
}

#[test]
fn prometheus_reads_native_histograms() {
    if Command::new("prometheus").arg("--version").output().is_err() {
        println!("skipped: no prometheus; scripts/setup packages installs it");
        return;
    }
    let world = World::start();
    let node = Setup::new(&world.rules(1), ZONE).start();
    let (status, told) = node.call("POST", "/v1/observations", Some(TOKEN), Some(&observed()));
    assert_eq!(status, 200, "{told}");

    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let config = folder.path().join("prometheus.yml");
    let targets = format!("targets: [\"{}\"]", node.api);
    let text = format!(
        "scrape_configs:\n  - job_name: node\n    scrape_interval: 200ms\n    scrape_timeout: 200ms\n    \
         static_configs: [{{ {targets} }}]\n"
    );
    std::fs::write(&config, text).expect("its configuration");
    let address = free_port();
    let mut command = Command::new("prometheus");
    command.arg("--config.file").arg(&config).arg("--storage.tsdb.path").arg(folder.path().join("data"));
    command.arg(format!("--web.listen-address={address}")).arg("--enable-feature=native-histograms");
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let _process = Process::start(&mut command);

    let value = |query: &str| {
        let url = format!("http://{address}/api/v1/query?query={query}");
        let text = ureq::get(&url).call().ok()?.body_mut().read_to_string().ok()?;
        let answer: serde_json::Value = serde_json::from_str(&text).ok()?;
        answer["data"]["result"][0]["value"][1].as_str()?.parse::<f64>().ok()
    };
    let count = "histogram_count(bailiwick_observed_request_seconds)";
    assert_eq!(wait::until("it has scraped a native histogram", || value(count)), 2.0);
    assert_eq!(value("histogram_sum(bailiwick_observed_request_seconds)"), Some(2.03));
    let highest = value("histogram_quantile(1,bailiwick_observed_request_seconds)").expect("a quantile");
    assert!((highest - 2_f64.powf(5.0 / 8.0)).abs() < 1e-9, "{highest}: the upper bound of the highest bucket");
    let lowest = value("histogram_quantile(0,bailiwick_observed_request_seconds)").expect("a quantile");
    assert!((lowest - 0.5).abs() < 1e-9, "{lowest}: the lower bound of the lowest");
    assert_eq!(value("bailiwick_rules_info"), Some(1.0), "protobuf has the other families too");
    assert!(value("bailiwick_observed_requests_total").is_some_and(|count| count >= 2.0));
}

#[test]
fn the_board_is_json_with_a_query_in_every_panel() {
    let text = std::fs::read_to_string(root().join("deploy/grafana/bailiwick-dns.json")).expect("the board");
    let board: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let panels = board["panels"].as_array().expect("panels");
    let mut ids = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64()), "an id twice: {panel}");
        assert!(panel["targets"][0]["expr"].as_str().is_some_and(|expr| expr.contains("bailiwick_")), "{panel}");
    }
}
