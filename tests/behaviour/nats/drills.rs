//! Scheduled drills in a fleet with NATS: of those who wait for their times, one has the lease.

use bailiwick_rules::time::{Millis, Timestamp};
use bailiwick_tests::wait;
use serde_json::{Value, json};

use super::{publish, seeded_with, started};
use crate::drills::scheduled::this_minute;
use crate::drills::{Runner, last, ready, rules, share};
use crate::fixture::World;
use crate::fleet::nodes::url;

#[test]
fn one_of_two_runs_scheduled_drills_another_takes_over_and_none_runs_twice() {
    let world = World::start();
    let drill = json!({ "for": "10m", "ramp": [100] });
    let Some(nats) = seeded_with(&rules(&world, &drill), &["ns1", "ns2"]) else { return };
    let nodes = started(&nats, ["ns1", "ns2"]);
    let config = nats.publisher();
    let start = |at: usize, name: &str| {
        Runner::start(&nodes[at], &url(&nodes[at]), name, &["--scheduled", "--config", &config])
    };
    nodes.iter().for_each(|node| {
        wait::until_true("it may begin", || ready(node)["drills"]["london"]["preflight"]["verdict"] == "go");
    });
    let mut first = start(0, "first");
    first.says("no drill has a weekly time");
    let mut second = start(1, "second");
    second.says(&format!("waits: process {} of ", first.id()));
    first.kill();

    // The second one takes over, at the other node, when the first is silent.
    let mut due = rules(&world, &drill);
    due["drills"]["london"]["weekly"] = json!(this_minute());
    publish(&nats, &due, "it is due");
    wait::until_true("all are elsewhere", || nodes.iter().all(|node| share(node) == 100));
    let began = last(&nodes[1])["began"].clone();
    assert_eq!((&last(&nodes[1])["origin"], &last(&nodes[0])["began"]), (&json!("ns2"), &began));
    let third = start(0, "third");
    third.says(&format!("waits: process {} of ", second.id()));
    // A drill that runs renews the lease, too: it is kept for longer than it lasts, which is 15 seconds.
    let at = |value: &Value| Timestamp::parse(value.as_str().expect("a time")).expect("a time");
    wait::until_true("it runs for 20 seconds", || at(&last(&nodes[1])["until"]).since(at(&began)) > Millis(35_000));
    assert!(!third.said().contains("begun already"), "{}", third.said());

    // Killed in the midst of it: it ends by itself, and whoever takes over doesn't run it again.
    second.kill();
    wait::until_true("all come back", || nodes.iter().all(|node| share(node) == 0));
    third.says("london has begun already, at ");
    for node in &nodes {
        let last = last(node);
        assert_eq!((share(node), &last["began"], &last["ended"]), (0, &began, &Value::Null), "{last:#}");
    }
}
