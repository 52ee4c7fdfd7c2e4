//! The HTTP API of a node: what can be read, overrides and who set them, and the rules with their errors.

use std::io::Write;
use std::net::TcpStream;

use bailiwick_tests::dns::question;
use bailiwick_tests::geo::GERMAN;
use bailiwick_tests::node::{Setup, TOKEN};
use bailiwick_tests::wait;
use serde_json::{Value, json};

use crate::fixture::{World, ZONE};

#[test]
fn health_rules_metrics_and_explanations_can_be_read() {
    let world = World::start();
    let rules = world.rules(7);
    let node = Setup::new(&rules, ZONE).start();
    assert_eq!(node.call("GET", "/healthz", None, None).0, 200);
    assert_eq!(node.get("/v1/rules"), rules.to_string(), "byte for byte");

    let health: Value = serde_json::from_str(&node.get("/v1/health")).unwrap();
    assert_eq!(health["revision"], 7);
    assert_eq!(health["regions"]["eu-frankfurt"]["status"], "up");
    assert_eq!(health["regions"]["eu-frankfurt"]["interval_ms"], 200);
    assert_eq!(health["regions"]["eu-frankfurt"]["override"], Value::Null);

    let reported: Value =
        serde_json::from_str(&node.get(&format!("/v1/explain?service=chat&client={GERMAN}"))).unwrap();
    assert_eq!(reported["ordered"][0]["region"], "eu-frankfurt");
    assert_eq!(reported["fence"], json!(["eu-frankfurt", "eu-paris"]));

    let counter = r#"bailiwick_steered_answers_total{service="chat",region="eu-frankfurt"} "#;
    let count = || {
        let metrics = node.get("/metrics");
        metrics.lines().find_map(|line| line.strip_prefix(counter)?.parse::<u64>().ok()).unwrap_or_default()
    };
    assert_eq!(count(), 0, "nobody asked");
    let _ = question("chat.ai.example.com", "A").from(GERMAN).ask(node.dns);
    wait::until_true("the answer is counted", || count() > 0);
}

#[test]
fn an_override_needs_the_token_moves_clients_and_outlives_a_restart() {
    let world = World::start();
    let node = Setup::new(&world.rules(1), ZONE).start();
    let german = |dns| question("chat.ai.example.com", "A").from(GERMAN).ask(dns).data();
    let forced =
        json!({ "region": "eu-frankfurt", "status": "down", "until": "2099-01-01T00:00:00Z", "reason": "drill" });
    for token in [None, Some("wrong")] {
        assert_eq!(node.call("POST", "/v1/overrides", token, Some(&forced)).0, 401);
    }
    let misspelt = node.call(
        "POST",
        "/v1/overrides",
        Some(TOKEN),
        Some(&json!({ "region": "eu-frankfort", "status": "down", "until": "2099-01-01T00:00:00Z", "reason": "x" })),
    );
    assert!(misspelt.0 == 404 && misspelt.1.contains("eu-frankfurt"), "the right name is shown: {misspelt:?}");

    let (status, body) = node.call("POST", "/v1/overrides", Some(TOKEN), Some(&forced));
    assert!((200..300).contains(&status), "{status} {body}");
    wait::until_true("its clients are in Paris", || german(node.dns) == ["192.0.2.20"]);
    let health: Value = serde_json::from_str(&node.get("/v1/health")).unwrap();
    let region = &health["regions"]["eu-frankfurt"];
    assert_eq!((&region["status"], &region["probed"]), (&json!("down"), &json!("up")), "shown beside the real status");
    assert_eq!(region["override"]["reason"], "drill");

    let node = node.stop().start();
    assert_eq!(german(node.dns), ["192.0.2.20"], "the override was kept");
    let (status, body) = node.call("DELETE", "/v1/overrides/eu-frankfurt", Some(TOKEN), None);
    assert!((200..300).contains(&status), "{status} {body}");
    wait::until_true("they are back", || german(node.dns) == ["192.0.2.10"]);
}

#[test]
fn a_bad_override_is_refused_with_a_sentence() {
    let world = World::start();
    let node = Setup::new(&world.rules(1), ZONE).start();
    for body in [
        json!({}),
        json!([]),
        json!({ "region": "eu-paris", "status": "sideways", "until": "2099-01-01T00:00:00Z", "reason": "x" }),
        json!({ "region": "eu-paris", "status": "down", "until": "yesterday", "reason": "x" }),
        json!({ "region": "eu-paris", "status": "down", "until": "2001-01-01T00:00:00Z", "reason": "x" }),
        json!({ "region": "eu-paris", "status": "down", "until": "2099-01-01T00:00:00Z" }),
    ] {
        let (status, reported) = node.call("POST", "/v1/overrides", Some(TOKEN), Some(&body));
        assert!((400..500).contains(&status), "{body}: {status} {reported}");
        let reported: Value = serde_json::from_str(&reported).unwrap();
        assert!(reported["error"]["message"].as_str().is_some_and(|message| message.len() > 10), "{reported}");
    }
}

#[test]
fn a_change_is_logged_with_its_sender_even_if_the_sender_hangs_up_before_the_answer() {
    let world = World::start();
    let mut node = Setup::new(&world.rules(1), ZONE).start();
    let until = "2099-01-01T00:00:00Z";
    let forced = |region: &str| json!({ "region": region, "status": "down", "until": until, "reason": "drill" });
    let body = forced("eu-paris").to_string();
    for _ in 0..40 {
        let mut stream = TcpStream::connect(node.api).expect("a connection");
        let head = format!(
            "POST /v1/overrides HTTP/1.1\r\nhost: ns1\r\nauthorization: Bearer {TOKEN}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("sent");
    }
    // A sender that waits for its answer is logged as well.
    assert_eq!(node.call("POST", "/v1/overrides", Some(TOKEN), Some(&forced("uk-london"))).0, 200);
    let lines =
        |log: &str, what: &[&str]| log.lines().filter(|line| what.iter().all(|what| line.contains(what))).count();
    // Some hang up before their request is read. Whatever was done is logged twice: what it was, and who did it.
    let (done, by) = (["override set: down"], ["set_override", "api.token"]);
    wait::until_true("changes of both kinds are logged", || {
        let log = node.log();
        let has = |what| lines(&log, &[what]) > 0;
        has("set_override of uk-london") && has("hung up before the answer") && lines(&log, &done) > 1
    });
    // When the node has ended, nothing is on its way into the log any more.
    node.process.signal("TERM");
    assert!(node.process.wait().success());
    let log = node.log();
    assert!(lines(&log, &by) >= lines(&log, &done), "each change has a sender: {log}");
}

#[test]
fn a_refused_rules_file_is_shown() {
    let world = World::start();
    let node = Setup::new(&world.rules(1), ZONE).start();
    node.setup.write("rules.json", "{");
    let url = format!("http://{}/v1/rules", node.api);
    wait::until_true("/v1/rules shows the error", || {
        let response = ureq::get(&url).call().unwrap();
        response.headers().get("x-bailiwick-rules-error").is_some_and(|error| error.to_str().unwrap().contains("JSON"))
    });
}

#[test]
fn unchanged_rules_are_not_sent_again() {
    let world = World::start();
    let node = Setup::new(&world.rules(1), ZONE).start();
    let url = format!("http://{}/v1/rules", node.api);
    let response = ureq::get(&url).call().unwrap();
    let tag = response.headers()["etag"].to_str().unwrap().to_owned();
    let again = ureq::get(&url).header("if-none-match", &tag).call().unwrap();
    assert_eq!(again.status(), 304);
}
