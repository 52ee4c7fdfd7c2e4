//! What clients, operators, endpoints and receivers send to a node, and what the node tells: a search of every byte for
//! words that were sent and mustn't be told.

use std::path::Path;

use bailiwick_rules::time::Timestamp;
use bailiwick_tests::dns::question;
use bailiwick_tests::geo::GERMAN;
use bailiwick_tests::node::{Node, Setup, TOKEN};
use bailiwick_tests::otlp_receiver::{Answer, Receiver};
use bailiwick_tests::wait;
use serde_json::{Value, json};

use crate::fixture::{World, ZONE};

/// Words that no byte of the node may hold: each says where it was sent.
const HIDDEN: [&str; 13] = [
    "zq-wrong-token-zq",
    "zq-broken-body-zq",
    "zq-broken-rules-zq",
    "zq-observed-model-zq",
    "zq-observed-clients-zq",
    "zq-observed-service-zq",
    "zq-path-zq",
    "zq-query-zq",
    "zq-header-zq",
    "zq-health-body-zq",
    "zq-model-error-zq",
    "zq-receiver-error-zq",
    "zq-secret-of-receiver-zq",
];
/// A word that a Worker posts: who has a Worker's token may make up words of this form, and nodes count them. What
/// crosses borders has none of them.
const WORD: &str = "zq_observed_word_zq";
/// What an operator writes of an override. It is told to whoever looks at overrides, but it counts nothing.
const REASON: &str = "zq-reason-zq";

/// All paths of the API that are read.
const PATHS: [&str; 25] = [
    "/healthz",
    "/metrics",
    "/v1/health",
    "/v1/rules",
    "/v1/rules/head",
    "/v1/rules/history",
    "/v1/rules/history/1",
    "/v1/rules/status",
    "/v1/explain?service=chat&country=DE",
    "/v1/explain?all=true",
    "/v1/explain/nodes?service=chat&country=DE",
    "/v1/picture",
    "/v1/picture?fleet=true",
    "/v1/timeline",
    "/v1/timeline?region=eu-frankfurt",
    "/v1/fleet",
    "/v1/fleet/nodes",
    "/v1/status",
    "/v1/traffic",
    "/v1/releases",
    "/v1/rollouts",
    "/v1/rollouts/intervals",
    "/v1/bundles",
    "/v1/overrides",
    "/nothing",
];

fn now() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    Timestamp(i64::try_from(since.as_millis()).expect("a time")).to_string()
}

fn rules(world: &World, ill: &Receiver, receiver: &Receiver) -> Value {
    let mut rules = world.rules(1);
    let monitor = json!({ "type": "http", "url": ill.url("/health"), "interval": "200ms", "body_contains": "well" });
    let model = json!({ "type": "openai", "model": "m", "interval": "2s", "first_token": "1s" });
    let load = json!({ "type": "vllm", "url": ill.url("/metrics"), "interval": "1s" });
    let copy = json!({ "url": ill.url("/lag"), "as": "seconds", "read": "/lag" });
    rules["releases"] = json!({ "m": {} });
    rules["replicas"] = json!({ "kb": { "max_lag": "60s" } });
    rules["regions"]["eu-frankfurt"]["replicas"] = json!({ "kb": copy });
    rules["regions"]["eu-frankfurt"]["endpoints"] = json!({
        "fra-1": { "url": ill.url("/v1"), "monitor": monitor, "models": { "m": "m" }, "load": load },
        "fra-2": { "url": ill.url("/v1"), "monitor": model, "models": { "m": "m" } },
    });
    rules["aggregate"] =
        json!({ "otlp": receiver.url("/"), "secret": "OTEL_ALL", "every": "10s", "min_count": 20, "tenants": false });
    rules
}

/// Sends each hidden word where it may come from.
fn plant(node: &Node) {
    let call = |method: &str, path: &str, token: Option<&str>, body: Option<Value>| {
        node.call(method, path, token, body.as_ref()).0
    };
    let forced = json!({ "region": "uk-london", "status": "down", "until": "2099-01-01T00:00:00Z", "reason": REASON });
    assert_eq!(call("POST", "/v1/overrides", Some("zq-wrong-token-zq"), Some(forced.clone())), 401);
    assert_eq!(call("POST", "/v1/overrides", Some(TOKEN), Some(forced)), 200);
    assert_eq!(call("POST", "/v1/overrides", Some(TOKEN), Some(json!({ "region": "zq-broken-body-zq" }))), 422);
    let broken = json!({ "version": 1, "revision": 2, "zq-broken-rules-zq": 1 });
    assert_ne!(call("PUT", "/v1/rules", Some(TOKEN), Some(broken)), 200);
    assert_eq!(call("DELETE", "/v1/overrides/zq-path-zq", Some(TOKEN), None), 404);
    assert_eq!(call("PATCH", "/v1/zq-path-zq", Some(TOKEN), None), 404);
    assert_eq!(call("GET", "/v1/explain?service=zq-query-zq&country=DE", None, None), 400);
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let request = agent.get(format!("http://{}/v1/status", node.api)).header("x-other", "zq-header-zq");
    request.header("user-agent", "zq-header-zq").header("referer", "http://zq-header-zq/").call().expect("an answer");
    // Some of these are dropped, some are counted as other things, and some make a batch that is refused.
    let entry = |more: Value| {
        let mut entry = json!({ "service": "chat", "clients": "eu", "region": "eu-frankfurt", "endpoint": "fra-1",
                                "model": "m", "requests": { "ok": 40 } });
        for (key, value) in more.as_object().expect("an object") {
            entry[key] = value.clone();
        }
        entry
    };
    let counts = [
        entry(json!({ "model": "zq-observed-model-zq" })),
        entry(json!({ "clients": "zq-observed-clients-zq" })),
        entry(json!({ "requests": { (WORD): 30 } })),
        entry(json!({ "service": "zq-observed-service-zq" })),
    ];
    let batch = json!({ "version": 1, "isolate": "00112233445566aa", "sequence": 1, "at": now(), "span_ms": 5000,
                        "revision": 1, "counts": counts });
    assert_eq!(call("POST", "/v1/observations", Some(TOKEN), Some(batch)), 200);
    let malformed = json!({ "version": 1, "isolate": "zq-broken-body-zq" });
    assert_eq!(call("POST", "/v1/observations", Some(TOKEN), Some(malformed)), 400);
    let _ = question("chat.ai.example.com", "A").from(GERMAN).ask(node.dns);
}

/// The events that a page would get until now.
fn events(node: &Node) -> String {
    let mut response = ureq::get(format!("http://{}/v1/events", node.api)).call().expect("events");
    let (mut reader, mut text) = (response.body_mut().as_reader(), Vec::new());
    let mut piece = [0; 1_024];
    while !String::from_utf8_lossy(&text).contains("uk-london") {
        match std::io::Read::read(&mut reader, &mut piece) {
            Ok(0) | Err(_) => break,
            Ok(read) => text.extend_from_slice(&piece[..read]),
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// The files of the state directory as text.
fn kept(folder: &Path) -> String {
    let mut all = String::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.path() {
            path if path.is_dir() => all += &kept(&path),
            path => all += &String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()),
        }
    }
    all
}

/// What each path of the API answers.
fn read(node: &Node) -> Vec<(String, String)> {
    PATHS.iter().map(|path| ((*path).to_owned(), node.get(path))).collect()
}

/// What a node counts, in all forms, and what it sends of that.
fn counted(node: &Node, receiver: &Receiver) -> [(String, String); 3] {
    let accepting = |accept: &str| {
        let request = ureq::get(format!("http://{}/metrics", node.api)).header("accept", accept);
        let bytes = request.call().expect("metrics").body_mut().read_to_vec().expect("a body");
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let protobuf = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
    [
        ("metrics as OpenMetrics".to_owned(), accepting("application/openmetrics-text;version=1.0.0")),
        ("metrics as protobuf".to_owned(), accepting(protobuf)),
        ("the aggregate".to_owned(), receiver.got().iter().map(|got| got.line.clone() + &got.body).collect()),
    ]
}

/// What a node tells whoever follows it, and what it writes.
fn kept_and_logged(node: &Node) -> [(String, String); 3] {
    [
        ("events".to_owned(), events(node)),
        ("the log".to_owned(), node.log()),
        ("the state directory".to_owned(), kept(&node.setup.path("state"))),
    ]
}

#[test]
fn no_byte_that_a_node_tells_holds_what_it_was_sent() {
    let (world, receiver) = (World::start(), Receiver::answering(Answer::Says(503, HIDDEN[11].to_owned())));
    let page =
        json!({ "error": { "message": "zq-model-error-zq", "code": "zq-model-error-zq" }, "lag": "zq-health-body-zq" });
    let ill = Receiver::answering(Answer::Says(500, page.to_string()));
    let setup = Setup::new(&rules(&world, &ill, &receiver), ZONE);
    setup.write("otel.secret", "zq-secret-of-receiver-zq");
    let node = setup.with("[secrets]\nOTEL_ALL = \"otel.secret\"\n").start();
    plant(&node);
    wait::until_true("endpoints are asked everything", || {
        let asked: String = ill.got().iter().map(|got| format!("{}\n", got.line)).collect();
        ["/health", "/metrics", "/lag", "/v1/chat/completions", "/v1/models"].iter().all(|path| asked.contains(path))
    });
    wait::until_true("the receiver refuses, and is asked again", || receiver.got().len() >= 2);
    receiver.answer(Answer::Says(200, json!({ "zq-receiver-error-zq": 1 }).to_string()));
    wait::until_true("it is told", || {
        node.get("/metrics").contains("bailiwick_aggregate_windows_total{result=\"sent\"} 1")
    });
    let (told, without_reasons, others) = (read(&node), counted(&node, &receiver), kept_and_logged(&node));
    let mut bytes = 0;
    for (place, text) in told.iter().chain(&without_reasons).chain(&others) {
        assert!(!text.is_empty(), "{place} tells nothing");
        bytes += text.len();
        for hidden in HIDDEN.iter().chain([&TOKEN]) {
            let at = text.find(hidden);
            assert!(
                at.is_none(),
                "{hidden} is told by {place}: …{}",
                at.map_or("", |at| &text[at.saturating_sub(200)..])
            );
        }
    }
    println!("searched {bytes} bytes of {} places for {} words", told.len() + 6, HIDDEN.len() + 1);
    // Reasons are told where overrides are, and nowhere else.
    let metrics = told.iter().filter(|(path, _)| path == "/metrics");
    for (place, text) in metrics.chain(&without_reasons) {
        assert!(!text.contains(REASON), "{place} tells the reason");
    }
    assert!(told.iter().any(|(path, text)| path == "/v1/overrides" && text.contains(REASON)));
    let crosses = without_reasons.last().map_or("", |(_, aggregate)| aggregate);
    assert!(crosses.contains("\"outcome\"") && !crosses.contains(WORD), "{crosses}");
    // Who changed what is told, by names that the node knows.
    let token = node.setup.path("api.token").display().to_string();
    for access in [
        format!("set_override of uk-london by {token}: 200"),
        format!("set_override by {token}: 422"),
        format!("publish_rules by {token}: 405"),
        format!("end_override by {token}: 404"),
        format!("other by {token}: 404"),
        "set_override by nobody that this node knows: 401".to_owned(),
    ] {
        assert!(node.log().contains(&access), "{access} isn't in {}", node.log());
    }
    // The receiver gets its secret in the header, and nobody else does.
    assert!(receiver.got().iter().all(|got| got.headers.contains("zq-secret-of-receiver-zq")));
    assert!(!ill.got().iter().any(|got| got.headers.contains("zq-secret") || got.body.contains(REASON)));
}
