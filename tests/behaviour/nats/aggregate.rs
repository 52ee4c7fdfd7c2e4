//! The aggregate of a fleet: every node gets every batch of Workers, and each interval is told by one of them.

use std::collections::BTreeMap;

use bailiwick_tests::node::TOKEN;
use bailiwick_tests::otlp_receiver::{Answer, Receiver};

use serde_json::json;

use super::*;
use crate::aggregate::{batch, rules as sending};

/// Rules that send to a receiver without a secret.
fn rules(world: &World, receiver: &Receiver) -> Value {
    let mut rules = sending(world, &receiver.url("/"));
    rules["aggregate"].as_object_mut().expect("an object").remove("secret");
    rules
}

/// Gives nodes a batch of an isolate.
fn observe(nodes: &[&Node], isolate: &str, sequence: u64) {
    observe_with(nodes, isolate, sequence, &json!({}));
}

/// [`observe`] with some members of the batch set.
fn observe_with(nodes: &[&Node], isolate: &str, sequence: u64, members: &Value) {
    let mut batch = batch(sequence);
    batch["isolate"] = json!(isolate);
    for (name, value) in members.as_object().expect("an object") {
        batch[name] = value.clone();
    }
    for node in nodes {
        let (status, said) = node.call("POST", "/v1/observations", Some(TOKEN), Some(&batch));
        assert_eq!(status, 200, "{said}");
    }
}

/// The requests that a body tells.
fn told(body: &str) -> u64 {
    let body: Value = serde_json::from_str(body).expect("JSON");
    let metrics = body["resourceMetrics"][0]["scopeMetrics"][0]["metrics"].as_array().expect("metrics");
    let requests = metrics.iter().find(|metric| metric["name"] == "bailiwick.requests").expect("requests");
    let points = requests["sum"]["dataPoints"].as_array().expect("points");
    points
        .iter()
        .map(|point| point["asInt"].as_str().and_then(|count| count.parse::<u64>().ok()).expect("a count"))
        .sum()
}

const ISOLATE: &str = "00112233445566aa";

fn windows(node: &Node, result: &str) -> u64 {
    metric(node, &format!("bailiwick_aggregate_windows_total{{result=\"{result}\"}} ")).parse().unwrap_or_default()
}

#[test]
fn each_interval_is_told_by_one_node_and_by_the_other_when_that_is_gone() {
    let (world, receiver) = (World::start(), Receiver::start());
    let Some(nats) = seeded_with(&rules(&world, &receiver), &["ns1", "ns2"]) else { return };
    let nodes = started(&nats, ["ns1", "ns2"]);
    nodes.iter().for_each(connected);
    let mut sent: u64 = 0;
    let mut post = |nodes: &[&Node]| {
        sent += 1;
        observe(nodes, ISOLATE, sent);
        wait::until_true("the batch is told", || {
            receiver.got().iter().map(|got| told(&got.body)).sum::<u64>() == 115 * sent
        });
    };
    let both: Vec<&Node> = nodes.iter().collect();
    post(&both);
    post(&both);
    wait::until_true("the other node knows that they were told", || {
        let both = |result| nodes.iter().map(|node| windows(node, result)).sum::<u64>();
        both("sent") == 2 && both("of_another_node") == 2
    });
    // Intervals are apart.
    let mut spans: BTreeMap<String, usize> = BTreeMap::new();
    for got in receiver.got() {
        let start = got.body.split("startTimeUnixNano\":\"").nth(1).map(|rest| rest[..19].to_owned());
        *spans.entry(start.expect("a time")).or_default() += 1;
    }
    assert!(spans.values().all(|count| *count == 1), "{spans:?}");
    let [one, two] = nodes;
    drop(one.stop());
    post(&[&two]);
}

#[test]
fn a_node_that_missed_a_batch_leaves_the_interval_to_another_and_forgets_its_failure() {
    let (world, receiver) = (World::start(), Receiver::answering(Answer::Says(400, String::new())));
    let Some(nats) = seeded_with(&rules(&world, &receiver), &["ns1", "ns2"]) else { return };
    let nodes = started(&nats, ["ns1", "ns2"]);
    nodes.iter().for_each(connected);
    let (one, two) = (&nodes[0], &nodes[1]);
    // Both know the isolate.
    let nothing = json!({ "counts": [] });
    observe_with(&[one, two], ISOLATE, 1, &nothing);
    observe(&[two], "00112233445566bb", 1);
    let fails = |node| metric(node, "bailiwick_aggregate_failing ");
    wait::until_true("the receiver refuses what the second node sends", || fails(two) == "1");
    receiver.answer(Answer::Says(200, "{}".to_owned()));
    // The first node alone has all of the interval.
    observe(&[one], ISOLATE, 2);
    observe(&[one, two], ISOLATE, 3);
    wait::until_true("the first node tells it", || windows(one, "sent") > 0);
    wait::until_true("the second node knows", || windows(two, "of_another_node") > 0 && fails(two) == "0");
    assert_eq!(windows(two, "sent"), 0);
}
