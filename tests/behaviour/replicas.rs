//! Replicas of knowledge. Real Postgres servers, one of which follows the other over a link that is cut and healed,
//! with the page of `deploy/replica/page.py` beside each; and servers that answer as Qdrant, Patroni, Elasticsearch
//! and Weaviate do.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use bailiwick_tests::dns::question;
use bailiwick_tests::geo::{GERMAN, root};
use bailiwick_tests::link::Link;
use bailiwick_tests::node::{Node, Setup};
use bailiwick_tests::postgres::Postgres;
use bailiwick_tests::process::Process;
use bailiwick_tests::store_stand_in::StoreStandIn;
use bailiwick_tests::wait;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fixture::ZONE;

/// The page of a copy, in a process of its own.
struct Page {
    address: SocketAddr,
    _process: Process,
    _folder: TempDir,
}

impl Page {
    fn start(arguments: &[&str]) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let log = folder.path().join("log");
        let output = std::fs::File::create(&log).expect("a log");
        let mut command = Command::new("python3");
        command.arg(root().join("deploy/replica/page.py")).args(arguments).args(["--listen", "127.0.0.1:0"]);
        let process = Process::start(command.stdout(output).stderr(Stdio::null()));
        let address = wait::until("the page is served", || {
            let text = std::fs::read_to_string(&log).ok()?;
            text.lines().find_map(|line| line.strip_prefix("listening on ")?.parse().ok())
        });
        Self { address, _process: process, _folder: folder }
    }

    fn of_postgres(server: &Postgres) -> Self {
        Self::start(&["postgres", "--dsn", &server.dsn(), "--every", "0.3"])
    }

    /// What a region's copy says of it.
    fn copy(&self) -> Value {
        json!({ "url": format!("http://{}/replica", self.address), "as": "timestamp", "read": "/applied_at",
            "now": "/now", "leader": "/leader", "interval": "2s", "timeout": "2s" })
    }
}

/// Two regions, of which DNS prefers Paris, with copies of `kb` that every path needs.
fn document(replica: &Value, copies: [Value; 2]) -> Value {
    let [fra, par] = copies;
    let region = |country: &str, address: &str, copy: Value| {
        let answers = json!({ "A": [address] });
        json!({ "countries": [country], "answers": answers, "replicas": { "kb": copy } })
    };
    json!({
        "version": 1, "revision": 1, "replicas": { "kb": replica },
        "regions": { "fra": region("DE", "192.0.2.10", fra), "par": region("FR", "192.0.2.20", par) },
        "services": { "chat": { "hosts": ["chat.ai.example.com"], "pattern": "active-passive",
            "regions": ["par", "fra"], "ttl": { "min": 0, "max": 5 }, "needs": { "/": ["kb"] },
            "residency": [{ "clients": ["*", "unknown"], "process_in": ["*"] }] } },
    })
}

fn told(node: &Node, region: &str) -> Value {
    let health: Value = serde_json::from_str(&node.get("/v1/health")).expect("JSON");
    health["regions"][region]["replicas"]["kb"].clone()
}

fn until_told(node: &Node, region: &str, freshness: &str) {
    let mut last = Value::Null;
    let what = format!("{region} is {freshness}");
    let is_it = || {
        last = told(node, region);
        last["freshness"] == freshness
    };
    let waited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| wait::until_true(&what, is_it)));
    assert!(waited.is_ok(), "{what}: {last}");
}

fn answers(node: &Node, address: &str) {
    let what = format!("DNS answers {address}");
    let asked = || question("chat.ai.example.com", "A").from(GERMAN).ask(node.dns).data();
    wait::until_true(&what, || asked() == [address]);
}

const FRA: &str = "192.0.2.10";
const PAR: &str = "192.0.2.20";

#[test]
fn a_real_postgres_that_falls_behind_is_withheld_and_a_promoted_one_serves() {
    let Some(programs) = Postgres::programs() else {
        println!("skipped: no Postgres; scripts/setup packages installs it");
        return;
    };
    let leader = Postgres::leader(&programs);
    let link = Link::to(SocketAddr::from(([127, 0, 0, 1], leader.port())));
    let copy = Postgres::copy_of(&programs, link.address().port());
    let (of_leader, of_copy) = (Page::of_postgres(&leader), Page::of_postgres(&copy));
    let replica = json!({ "max_lag": "5s", "resume": "2s", "down_thresh": 2, "up_thresh": 2 });
    let node = Setup::new(&document(&replica, [of_leader.copy(), of_copy.copy()]), ZONE).start();

    // Nobody writes anything but the heartbeat.
    until_told(&node, "fra", "leader");
    until_told(&node, "par", "fresh");
    answers(&node, PAR);
    let metric = r#"bailiwick_replica_lag_seconds{region="par",replica="kb"}"#;
    assert!(node.get("/metrics").contains(metric));

    link.cut();
    until_told(&node, "par", "lagging");
    answers(&node, FRA);
    let lag = told(&node, "par")["lag_ms"].as_u64().expect("a lag");
    assert!(lag > 5_000, "{lag}");
    link.heal();
    until_told(&node, "par", "fresh");
    answers(&node, PAR);

    // The copy streams, but applies late.
    copy.run("ALTER SYSTEM SET recovery_min_apply_delay = '20s'");
    copy.run("SELECT pg_reload_conf()");
    until_told(&node, "par", "lagging");
    assert_eq!(copy.run("SELECT status FROM pg_stat_wal_receiver"), "streaming");
    answers(&node, FRA);
    copy.run("ALTER SYSTEM RESET recovery_min_apply_delay");
    copy.run("SELECT pg_reload_conf()");
    until_told(&node, "par", "fresh");

    leader.kill();
    until_told(&node, "fra", "unknown");
    until_told(&node, "par", "lagging");
    let refused = || question("chat.ai.example.com", "A").from(GERMAN).ask(node.dns).data();
    wait::until_true("DNS answers nothing", || refused().is_empty());
    copy.promote();
    until_told(&node, "par", "leader");
    answers(&node, PAR);
    assert_eq!(told(&node, "fra")["failure"], "answered 503, expected 200");
}

/// Two nodes of Qdrant, of which one holds shard 1 in this state, and a queue of updates.
fn qdrant(store: &StoreStandIn, state: &str, queue: u64) {
    store.set(
        "/collections/docs/cluster",
        &json!({ "result": { "peer_id": 6_211_378_513_718_317_u64, "shard_count": 2,
        "local_shards": [{ "shard_id": 0, "points_count": 5120, "state": "Active" }],
        "remote_shards": [{ "shard_id": 1, "peer_id": 2_112_845_731_u64, "state": state }],
        "shard_transfers": [] }, "status": "ok", "time": 0.000_021 }),
    );
    store.set(
        "/collections/docs",
        &json!({ "result": { "status": "green", "optimizer_status": "ok",
        "indexed_vectors_count": 5000, "points_count": 5120, "segments_count": 8,
        "config": { "params": { "shard_number": 2 } }, "payload_schema": {}, "update_queue": { "length": queue } },
        "status": "ok", "time": 0.000_3 }),
    );
}

fn patroni(store: &StoreStandIn, lag: &Value) {
    store.set(
        "/cluster",
        &json!({ "scope": "demo", "members": [
        { "name": "p1", "role": "leader", "state": "running", "api_url": "http://10.89.0.4:8008/patroni",
          "host": "10.89.0.4", "port": 5432, "timeline": 5 },
        { "name": "p2", "role": "replica", "state": "streaming", "api_url": "http://10.89.0.6:8008/patroni",
          "host": "10.89.0.6", "port": 5433, "timeline": 5, "receive_lag": 0, "replay_lag": lag, "lag": lag } ] }),
    );
}

fn elasticsearch(store: &StoreStandIn, follower: u64, exceptions: &Value) {
    store.set(
        "/docs-follower/_ccr/stats",
        &json!({ "indices": [{ "index": "docs-follower", "shards": [{
        "remote_cluster": "lon", "leader_index": "docs", "follower_index": "docs-follower", "shard_id": 0,
        "leader_global_checkpoint": 1024, "leader_max_seq_no": 1024, "follower_global_checkpoint": follower,
        "follower_max_seq_no": follower, "last_requested_seq_no": 1024, "outstanding_read_requests": 1,
        "failed_read_requests": 0, "read_exceptions": exceptions, "time_since_last_read_millis": 8 }] }] }),
    );
}

fn weaviate(store: &StoreStandIn, queue: u64) {
    store.set(
        "/v1/nodes/Docs?output=verbose",
        &json!({ "nodes": [{ "name": "node1", "status": "HEALTHY",
        "version": "1.34.0", "gitHash": "9c22d0c", "batchStats": { "queueLength": 0, "ratePerSecond": 6 },
        "stats": { "objectCount": 9, "shardCount": 1 },
        "shards": [{ "class": "Docs", "name": "gvCkCYs2fnA3", "objectCount": 9, "loaded": true, "compressed": false,
            "vectorIndexingStatus": "READY", "vectorQueueLength": queue, "asyncReplicationStatus": [],
            "numberOfReplicas": 1, "replicationFactor": 1 }] }] }),
    );
}

#[test]
fn stores_are_asked_by_their_own_apis_and_withheld_by_what_they_say() {
    let store = StoreStandIn::start();
    qdrant(&store, "Active", 3);
    patroni(&store, &json!(4096));
    elasticsearch(&store, 1_000, &json!([]));
    weaviate(&store, 40);
    let replica = json!({ "max_lag": 5000, "resume": 4500, "down_thresh": 1, "up_thresh": 1 });
    let kinds = [
        ("qdrant", "collection", "docs", 3),
        ("patroni", "member", "p2", 4_096),
        ("elasticsearch-ccr", "index", "docs-follower", 24),
        ("weaviate", "collection", "Docs", 40),
    ];
    let nodes = kinds.map(|(kind, field, name, lag)| {
        let copy = json!({ "url": store.url(), "as": kind, field: name, "interval": "1s" });
        let node = Setup::new(&document(&replica, [json!({ "leader": true }), copy]), ZONE).start();
        until_told(&node, "par", "fresh");
        assert_eq!(told(&node, "par")["lag"], lag, "{kind}");
        answers(&node, PAR);
        node
    });
    qdrant(&store, "Partial", 3);
    patroni(&store, &json!(5_001));
    elasticsearch(
        &store,
        1_000,
        &json!([{ "from_seq_no": 10, "retries": 3, "exception":
        { "type": "connect_transport_exception", "reason": "unable to connect" } }]),
    );
    weaviate(&store, 5_001);
    let expected = ["unknown", "lagging", "unknown", "lagging"];
    for (node, freshness) in nodes.iter().zip(expected) {
        until_told(node, "par", freshness);
        answers(node, FRA);
    }
    let failure = told(&nodes[0], "par")["failure"].as_str().unwrap_or_default().to_owned();
    assert_eq!(failure, "shard 1 isn't Active but \"Partial\"");
    let status = nodes[1].get("/v1/status");
    let status: Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!(status["replicas"][0]["withheld"], true, "{status}");
    let explained = nodes[1].get("/v1/explain?service=chat&country=DE&path=/v1/chat/completions");
    assert!(explained.contains(r#""reason":"lagging","behind":[{"replica":"kb"}]"#), "{explained}");
}
