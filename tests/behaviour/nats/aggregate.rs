//! The aggregate of a fleet: every node gets every batch of Workers, and each interval is told by one of them.

use std::collections::BTreeMap;

use bailiwick_tests::node::TOKEN;
use bailiwick_tests::otlp_receiver::Receiver;

use super::*;
use crate::aggregate::{batch, rules as sending};

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

fn windows(node: &Node, result: &str) -> u64 {
    metric(node, &format!("bailiwick_aggregate_windows_total{{result=\"{result}\"}} ")).parse().unwrap_or_default()
}

#[test]
fn each_interval_is_told_by_one_node_and_by_the_other_when_that_is_gone() {
    let (world, receiver) = (World::start(), Receiver::start());
    let mut first = sending(&world, &receiver.url("/"));
    first["aggregate"].as_object_mut().expect("an object").remove("secret");
    let Some(nats) = seeded_with(&first, &["ns1", "ns2"]) else { return };
    let nodes = started(&nats, ["ns1", "ns2"]);
    nodes.iter().for_each(connected);
    let mut sent: u64 = 0;
    let mut post = |nodes: &[&Node]| {
        sent += 1;
        let batch = batch(sent);
        for node in nodes {
            let (status, said) = node.call("POST", "/v1/observations", Some(TOKEN), Some(&batch));
            assert_eq!(status, 200, "{said}");
        }
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
