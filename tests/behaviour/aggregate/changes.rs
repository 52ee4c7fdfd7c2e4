//! The aggregate when something is no longer as it was: the rules name another receiver or none, a batch comes late, or
//! the node isn't the one that sends.

use super::*;

/// The rules with a later revision, which send to a URL.
fn rules_of(world: &World, revision: u64, url: &str) -> Value {
    let mut rules = rules(world, url);
    rules["revision"] = json!(revision);
    rules
}

#[test]
fn a_receiver_that_the_rules_no_longer_name_gets_nothing_that_waits() {
    let (world, old) = (World::start(), Receiver::answering(Answer::Says(503, String::new())));
    let node = sending(&world, &old.url("/"));
    observe(&node, 1);
    counts(&node, "bailiwick_aggregate_failing 1");
    let new = Receiver::start();
    node.setup.write("rules.json", &rules_of(&world, 2, &new.url("/")).to_string());
    counts(&node, "bailiwick_aggregate_requests_lost_total{reason=\"withdrawn\"} 115");
    counts(&node, "bailiwick_aggregate_failing 0");
    let asked = old.got().len();
    observe(&node, 2);
    let got = wait::until("the new receiver is asked", || new.got().first().cloned());
    counts(&node, "bailiwick_aggregate_windows_total{result=\"sent\"} 1");
    assert_eq!((old.got().len(), new.got().len()), (asked, 1));
    assert!(old.got().iter().all(|old| old.body != got.body), "{got:?}");
}

#[test]
fn a_failure_is_forgotten_when_nothing_is_sent_any_more() {
    let (world, receiver) = (World::start(), Receiver::answering(Answer::Says(400, String::new())));
    let node = sending(&world, &receiver.url("/"));
    observe(&node, 1);
    counts(&node, "bailiwick_aggregate_requests_lost_total{reason=\"refused\"} 115");
    counts(&node, "bailiwick_aggregate_failing 1");
    let mut rules = rules_of(&world, 2, "https://metrics.example.net/");
    rules.as_object_mut().expect("an object").remove("aggregate");
    node.setup.write("rules.json", &rules.to_string());
    counts(&node, "bailiwick_aggregate_failing 0");
}

#[test]
fn what_comes_late_is_counted_by_the_node_that_sends_and_by_no_other() {
    let (world, receiver) = (World::start(), Receiver::start());
    let rules = rules(&world, &receiver.url("/"));
    let nodes = ["true", "false"].map(|sends| {
        let more = format!("[secrets]\nOTEL_ALL = \"otel.secret\"\n[fleet]\nsends_aggregate = {sends}\n");
        let setup = Setup::new(&rules, ZONE).with(&more);
        setup.write("otel.secret", SECRET);
        setup.start()
    });
    let mut late = batch(1);
    late["at"] = json!(ago(60));
    let batch = batch(2);
    for node in &nodes {
        for batch in [&late, &batch] {
            let (status, said) = node.call("POST", "/v1/observations", Some(TOKEN), Some(batch));
            assert_eq!(status, 200, "{said}");
        }
    }
    let [sends, does_not] = &nodes;
    counts(sends, "bailiwick_aggregate_windows_total{result=\"sent\"} 1");
    counts(does_not, "bailiwick_aggregate_windows_total{result=\"not_sender\"} 1");
    for line in [
        "bailiwick_aggregate_requests_total{told=\"named\"} 40",
        "bailiwick_aggregate_requests_total{told=\"folded\"} 75",
        "bailiwick_aggregate_requests_lost_total{reason=\"late\"} 115",
        "bailiwick_aggregate_requests_lost_total{reason=\"uncounted\"} 0",
    ] {
        assert!(sends.get("/metrics").lines().any(|one| one == line), "{line} is not in\n{}", sends.get("/metrics"));
    }
    let metrics = does_not.get("/metrics");
    let numbers = metrics.lines().filter(|line| line.starts_with("bailiwick_aggregate_requests"));
    assert!(numbers.clone().count() > 5 && numbers.clone().all(|line| line.ends_with(" 0")), "{metrics}");
    assert_eq!(receiver.got().len(), 1);
}
