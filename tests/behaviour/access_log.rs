//! The access log: what a node tells a collector of who changes what, and what it costs the node if the collector is
//! slow, full, gone or talks nonsense.

use std::time::Instant;

use bailiwick_tests::geo::root;
use bailiwick_tests::net::free_port;
use bailiwick_tests::node::{Node, Setup, TOKEN};
use bailiwick_tests::otlp_receiver::{Answer, Receiver, decode_logs};
use bailiwick_tests::wait;
use serde_json::{Value, json};

use crate::fixture::{World, ZONE};

const SECRET: &str = "sentinel-of-the-collectors-credential";

/// A node that sends to a URL, with the secret in a file.
fn sending(world: &World, url: &str) -> Node {
    let sections =
        format!("[api.access_log]\notlp = \"{url}\"\nsecret = \"OTEL_EU\"\n[secrets]\nOTEL_EU = \"otel.secret\"\n");
    let setup = Setup::new(&world.rules(1), ZONE).with(&sections);
    setup.write("otel.secret", SECRET);
    setup.start()
}

/// Forces London down. Returns the status.
fn force(node: &Node, token: &str) -> u16 {
    let reason = "sentinel of a reason";
    let body = json!({ "region": "uk-london", "status": "down", "until": "2099-01-01T00:00:00Z", "reason": reason });
    node.call("POST", "/v1/overrides", Some(token), Some(&body)).0
}

/// Waits until a node's metrics have this line.
#[track_caller]
fn counts(node: &Node, line: &str) {
    let line = format!("bailiwick_access_{line}");
    wait::until_true(&format!("/metrics has {line}"), || node.get("/metrics").lines().any(|one| one == line));
}

#[test]
fn who_changes_what_is_told_in_the_form_of_otlp() {
    let (world, receiver) = (World::start(), Receiver::start());
    let mut node = sending(&world, &receiver.url("/v1/logs"));
    let wrong = "sentinel-of-a-wrong-token-0123456789";
    assert_eq!((force(&node, TOKEN), force(&node, wrong)), (200, 401));
    assert_eq!(node.call("DELETE", "/v1/overrides/sentinel", Some(TOKEN), None).0, 404);
    assert!(!node.get("/v1/health").is_empty());
    counts(&node, "events_taken_total{} 3");
    counts(&node, "log_failing 0");
    let got = receiver.got();
    assert_eq!(got[0].line, "POST /v1/logs HTTP/1.1");
    assert!(got[0].headers.contains(&format!("authorization: bearer {SECRET}")), "{}", got[0].headers);
    for got in &got {
        assert!(!got.body.contains("sentinel"), "{}", got.body);
    }
    let file = node.setup.path("bodies.json");
    if let Some(records) = decode_logs(&root().join("tests/edge/otlp_decode.py"), &file, &got) {
        let words = |record: &Value| {
            let attributes = &record["attributes"];
            let text = |key: &str| attributes[key]["stringValue"].as_str().map(str::to_owned);
            assert_eq!(record["eventName"], "bailiwick.api.access");
            assert_eq!(text("client.address").as_deref(), Some("127.0.0.1"));
            let token = text("bailiwick.api.token_file").map(|file| file.rsplit('/').next().unwrap().to_owned());
            let status = attributes["http.response.status_code"]["intValue"].as_str().map(str::to_owned);
            let action = text("bailiwick.api.action");
            [action, text("bailiwick.api.of"), token, status].map(Option::unwrap_or_default).join(" ")
        };
        let told: Vec<String> = records.iter().map(words).collect();
        assert_eq!(told, ["set_override uk-london api.token 200", "set_override   401", "end_override  api.token 404"]);
    }
    // What was told at the end is sent before the process ends.
    assert_eq!(force(&node, TOKEN), 200);
    node.process.signal("TERM");
    assert!(node.process.wait().success(), "{}", node.log());
    let told = receiver.got().iter().map(|got| got.body.matches("bailiwick.api.access").count()).sum::<usize>();
    assert_eq!(told, 4);
}

#[test]
fn collectors_that_are_slow_full_gone_or_talk_nonsense_cost_nobody_anything() {
    let world = World::start();
    let worst = Answer::worst("sentinel in the collector's error", "rejectedLogRecords", 1);
    let [mute, hangs, full, refuses, nonsense, endless, partial] = worst.map(|answer| {
        let receiver = Receiver::answering(answer);
        let node = sending(&world, &receiver.url("/"));
        (receiver, node)
    });
    let gone = sending(&world, &format!("http://{}/", free_port()));
    let all = [&mute.1, &hangs.1, &full.1, &refuses.1, &nonsense.1, &endless.1, &partial.1, &gone];
    all.iter().for_each(|node| assert_eq!(force(node, TOKEN), 200));
    for (receiver, _) in [&mute, &hangs, &full, &refuses, &nonsense, &endless, &partial] {
        wait::until_true("the collector is asked", || !receiver.got().is_empty());
    }
    // While collectors are at their worst, changes are made as ever.
    for node in all {
        let begun = Instant::now();
        assert!(force(node, TOKEN) == 200 && begun.elapsed().as_millis() < 2_000, "{:?}", begun.elapsed());
    }
    counts(&refuses.1, "events_lost_total{reason=\"refused\"} 2");
    counts(&partial.1, "events_lost_total{reason=\"rejected\"} 2");
    counts(&nonsense.1, "events_taken_total{} 2");
    counts(&endless.1, "events_taken_total{} 2");
    counts(&gone, "log_failing 1");
    counts(&hangs.1, "log_failing 1");
    // What isn't taken, or may not be taken, is sent again.
    counts(&full.1, "log_failing 1");
    full.0.answer(Answer::Says(200, "{}".to_owned()));
    hangs.0.answer(Answer::Says(200, "{}".to_owned()));
    for node in [&full.1, &hangs.1] {
        counts(node, "events_taken_total{} 2");
        counts(node, "log_failing 0");
        node.tells("the receiver takes the access log again");
    }
    for node in all {
        // The node's own log has every event, with the reason that the operator gave.
        let log = node.log().replace("sentinel of a reason", "");
        assert!(log.matches("set_override of uk-london").count() == 2 && !log.contains("sentinel"), "{log}");
        assert_eq!(node.get("/healthz").lines().next(), Some("ok"));
    }
}

#[test]
fn a_process_that_ends_does_not_wait_for_a_collector_that_says_nothing() {
    let (world, receiver) = (World::start(), Receiver::answering(Answer::Mute));
    let mut node = sending(&world, &receiver.url("/"));
    assert_eq!(force(&node, TOKEN), 200);
    let begun = Instant::now();
    node.process.signal("TERM");
    // An answer may take ten seconds.
    assert!(node.process.wait().success() && begun.elapsed().as_secs() < 8, "{:?}", begun.elapsed());
    assert!(node.log().contains("the last events are lost"), "{}", node.log());
}

#[test]
fn a_node_without_it_says_nothing_of_it() {
    let node = Setup::new(&World::start().rules(1), ZONE).start();
    assert_eq!(force(&node, TOKEN), 200);
    assert!(!node.get("/metrics").contains("bailiwick_access"));
}
