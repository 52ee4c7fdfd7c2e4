//! The aggregate: what a node tells a receiver anywhere of what Workers observed, and what it costs the node if the
//! receiver is slow, full, gone or talks nonsense.

mod changes;

use std::time::Instant;

use bailiwick_rules::time::Timestamp;
use bailiwick_tests::dns::question;
use bailiwick_tests::geo::{GERMAN, root};
use bailiwick_tests::net::free_port;
use bailiwick_tests::node::{Node, Setup, TOKEN};
use bailiwick_tests::otlp_receiver::{Answer, Got, Receiver, decode_metrics};
use bailiwick_tests::wait;
use serde_json::{Value, json};

use crate::fixture::{World, ZONE};

const SECRET: &str = "sentinel-of-the-receivers-credential";

/// The time so many seconds ago, in the form of the rules.
fn ago(seconds: i64) -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    Timestamp(i64::try_from(since.as_millis()).expect("a time") - seconds * 1_000).to_string()
}

/// Rules that send the aggregate of ten seconds to a URL.
pub(crate) fn rules(world: &World, url: &str) -> Value {
    let mut rules = world.rules(1);
    let endpoint = json!({ "url": "https://fra.gpu.example.net/v1", "models": { "llama": "m-8b" } });
    rules["regions"]["eu-frankfurt"]["endpoints"] = json!({ "fra-1": endpoint, "fra-2": endpoint });
    rules["regions"]["uk-london"]["endpoints"] = json!({ "lon-1": endpoint });
    rules["aggregate"] = json!({ "otlp": url, "secret": "OTEL_ALL", "every": "10s", "min_count": 20 });
    rules
}

/// Counts of one key: where, and how many requests ended well and otherwise.
fn entry(region: &str, endpoint: &str, clients: &str, ok: u64, gone: u64) -> Value {
    let times = |count: u64| json!({ "sum_us": count * 900_000, "buckets": [[-2, count]] });
    let mut requests = json!({ "ok": ok });
    if gone > 0 {
        requests["client_gone"] = json!(gone);
    }
    json!({ "service": "chat", "clients": clients, "region": region, "endpoint": endpoint, "model": "llama",
            "requests": requests, "attempts": { "committed": ok + gone }, "finish": { "stop": ok },
            "tokens_in": ok * 1_000, "tokens_out": ok * 100, "first_token": times(ok), "total": times(ok + gone) })
}

/// A batch of a Worker: 75 requests in Frankfurt, 3 of them of Britons; 40 in London, of which 2 were left.
pub(crate) fn batch(sequence: u64) -> Value {
    let counts = [
        entry("eu-frankfurt", "fra-1", "eu", 50, 0),
        entry("eu-frankfurt", "fra-2", "eu", 22, 0),
        entry("eu-frankfurt", "fra-2", "uk", 3, 0),
        entry("uk-london", "lon-1", "uk", 38, 2),
    ];
    json!({ "version": 1, "isolate": "00112233445566aa", "sequence": sequence, "at": ago(0), "span_ms": 5000,
            "revision": 1, "counts": counts })
}

fn observe(node: &Node, sequence: u64) {
    let (status, said) = node.call("POST", "/v1/observations", Some(TOKEN), Some(&batch(sequence)));
    assert_eq!(status, 200, "{said}");
}

/// A node that sends to a URL, with the secret in a file.
fn sending(world: &World, url: &str) -> Node {
    let setup = Setup::new(&rules(world, url), ZONE).with("[secrets]\nOTEL_ALL = \"otel.secret\"\n");
    setup.write("otel.secret", SECRET);
    setup.start()
}

/// Waits until a node's metrics have this line.
#[track_caller]
fn counts(node: &Node, line: &str) {
    wait::until_true(&format!("/metrics has {line}"), || node.get("/metrics").lines().any(|one| one == line));
}

/// Waits until a sample of a node's metrics is at least so much.
#[track_caller]
fn reaches(node: &Node, sample: &str, least: u64) {
    wait::until_true(&format!("{sample} is at least {least}"), || {
        let metrics = node.get("/metrics");
        let value = metrics.lines().find_map(|line| line.strip_prefix(sample)?.trim().parse::<u64>().ok());
        value.is_some_and(|value| value >= least)
    });
}

fn decoded(got: &Got, node: &Node) -> Option<Vec<String>> {
    decode_metrics(&root().join("tests/behaviour/otlp_metrics.py"), &node.setup.path("body.json"), &got.body)
}

#[test]
fn what_may_be_told_is_sent_once_in_the_form_of_otlp() {
    let (world, receiver) = (World::start(), Receiver::start());
    let node = sending(&world, &receiver.url("/v1/metrics"));
    assert!(node.get("/metrics").contains("bailiwick_aggregate_windows_total{result=\"sent\"} 0"));
    observe(&node, 1);
    let got = wait::until("an interval is sent", || receiver.got().first().cloned());
    counts(&node, "bailiwick_aggregate_windows_total{result=\"sent\"} 1");
    assert_eq!(got.line, "POST /v1/metrics HTTP/1.1");
    assert!(got.headers.contains(&format!("authorization: bearer {SECRET}")), "{}", got.headers);
    assert!(got.headers.contains("content-type: application/json"), "{}", got.headers);
    for hidden in ["fra-1", "lon-1", "m-8b", "00112233445566aa", "gpu.example.net", "committed"] {
        assert!(!got.body.contains(hidden), "{hidden} is in {}", got.body);
    }
    let metrics = node.get("/metrics");
    for line in [
        "bailiwick_aggregate_requests_total{told=\"named\"} 40",
        "bailiwick_aggregate_requests_total{told=\"folded\"} 75",
        "bailiwick_aggregate_requests_lost_total{reason=\"full\"} 0",
        "bailiwick_aggregate_failing 0",
    ] {
        assert!(metrics.lines().any(|one| one == line), "{line} is not in\n{metrics}");
    }
    if let Some(lines) = decoded(&got, &node) {
        // Three Britons in Frankfurt are told with all others there, two who left London with those who stayed.
        let of = |place: &str| format!("service=chat,{place}");
        let (frankfurt, london) =
            (of("region=eu-frankfurt,clients=other,model=other"), of("region=uk-london,clients=uk,model=llama"));
        let mut expected = [
            "resource service.name=bailiwick,service.version".to_owned(),
            format!("bailiwick.requests delta {frankfurt},outcome=ok 10s 75"),
            format!("bailiwick.requests delta {london},outcome=other 10s 40"),
            format!("bailiwick.request.duration delta {frankfurt} 10s 1:75"),
            format!("bailiwick.request.duration delta {london} 10s 1:40"),
            // Two in London saw no token: how many did isn't told.
            format!("bailiwick.first_token.duration delta {frankfurt} 10s 1:75"),
        ];
        expected.sort();
        assert_eq!(lines, expected);
    }
    // The next interval is sent by itself, and the first one not again.
    observe(&node, 2);
    wait::until_true("another one is sent", || receiver.got().len() == 2);
    let start = |got: &Got| got.body.split("startTimeUnixNano\":\"").nth(1).map(|rest| rest[..19].to_owned());
    let all = receiver.got();
    assert!(start(&all[0]) < start(&all[1]), "{all:?}");
}

#[test]
fn receivers_that_are_slow_full_gone_or_talk_nonsense_cost_nobody_anything() {
    let world = World::start();
    let start = |answer: Answer| {
        let receiver = Receiver::answering(answer);
        let node = sending(&world, &receiver.url("/"));
        (receiver, node)
    };
    let worst = Answer::worst("sentinel in the receiver's error", "rejectedDataPoints", 3);
    let [mute, hangs, full, refuses, nonsense, endless, partial] = worst.map(start);
    let gone = sending(&world, &format!("http://{}/", free_port()));
    let all = [&mute.1, &hangs.1, &full.1, &refuses.1, &nonsense.1, &endless.1, &partial.1, &gone];
    all.iter().for_each(|node| observe(node, 1));
    for (receiver, _) in [&mute, &hangs, &full, &refuses, &nonsense, &endless, &partial] {
        wait::until_true("the receiver is asked", || !receiver.got().is_empty());
    }
    // While receivers are at their worst, batches are taken and queries answered as ever.
    for (sequence, node) in (2_u64..).zip(all) {
        let begun = Instant::now();
        observe(node, sequence);
        let answer = question("chat.ai.example.com", "A").from(GERMAN).ask(node.dns);
        assert!(!answer.answers().is_empty() && begun.elapsed().as_millis() < 2_000, "{:?}", begun.elapsed());
    }
    let lost = |node: &Node, reason: &str| {
        reaches(node, &format!("bailiwick_aggregate_requests_lost_total{{reason=\"{reason}\"}}"), 115);
    };
    let sent = "bailiwick_aggregate_windows_total{result=\"sent\"}";
    lost(&hangs.1, "no_answer");
    lost(&refuses.1, "refused");
    counts(&refuses.1, "bailiwick_aggregate_failing 1");
    reaches(&nonsense.1, sent, 1);
    reaches(&endless.1, sent, 1);
    reaches(&partial.1, "bailiwick_aggregate_points_rejected_total{}", 3);
    counts(&gone, "bailiwick_aggregate_failing 1");
    lost(&mute.1, "no_answer");
    // What was certainly not taken is sent again, and counted once.
    counts(&full.1, "bailiwick_aggregate_failing 1");
    full.0.answer(Answer::Says(200, "{}".to_owned()));
    counts(&full.1, "bailiwick_aggregate_failing 0");
    let bodies: Vec<String> = full.0.got().into_iter().map(|got| got.body).collect();
    assert!(bodies.len() >= 2 && bodies[0] == bodies[1], "{bodies:?}");
    full.1.tells("the receiver takes the aggregate again");
    for node in all {
        let told = node.log() + &node.get("/metrics") + &node.get("/v1/status");
        assert!(!told.contains("sentinel"), "{told}");
        assert_eq!(node.get("/healthz").lines().next(), Some("ok"));
    }
}

#[test]
fn rules_without_it_say_nothing_of_it() {
    let node = Setup::new(&World::start().rules(1), ZONE).start();
    observe_any(&node);
    let metrics = node.get("/metrics");
    assert!(
        metrics.contains("bailiwick_observation_batches_total{result=\"added\"} 1") && !metrics.contains("aggregate")
    );
}

fn observe_any(node: &Node) {
    let (status, said) = node.call("POST", "/v1/observations", Some(TOKEN), Some(&batch(1)));
    assert_eq!(status, 200, "{said}");
}
