//! Drills in a fleet of peers: all nodes follow, and an end at any of them goes as far as nodes hear each other.

use bailiwick_tests::node::Node;
use bailiwick_tests::wait;
use serde_json::json;

use super::{last, ready, rules, run, share};
use crate::fixture::World;
use crate::fleet::nodes::{fine, follower, told, url, writer_of};

/// A writer and a node that follows it, with a drill that sends all clients of London elsewhere.
fn two(world: &World) -> (Node, Node) {
    let writer = writer_of(&rules(world, &json!({ "for": "10m", "ramp": [100] })), "");
    let other = follower(&[url(&writer)], "").start();
    wait::until_true("the other node has the rules", || other.get("/v1/drills").contains("uk-london"));
    (writer, other)
}

#[test]
fn the_nodes_of_a_fleet_follow_it_and_its_end() {
    let world = World::start();
    let (writer, other) = two(&world);
    ready(&writer);
    ready(&other);
    let runner = run(&writer, &[]);
    wait::until_true("both send all elsewhere", || share(&writer) == 100 && share(&other) == 100);
    assert!(told(&other, &["drill", "run", "london", "--dry-run"]).status.code() == Some(1), "one is under way");
    let first = last(&other)["number"].clone();
    wait::until_true("it is renewed", || last(&other)["number"] != first);
    // The writer doesn't ask the other node, so an end goes from the writer to it.
    fine(&writer, &["drill", "abort", "london", "--reason", "enough"]);
    wait::until_true("both have all back", || share(&writer) == 0 && share(&other) == 0);
    assert_eq!((runner.ends().0, &last(&other)["ended"]), (false, &json!("enough")));
    let renewed = other.log().matches("of the clients of uk-london are sent elsewhere").count();
    assert_eq!(renewed, 1, "a renewal is no news: {}", other.log());
}

#[test]
fn a_follower_ends_it_where_nodes_hear_each_other_both_ways() {
    let world = World::start();
    let (mut writer, other) = two(&world);
    let config = std::fs::read_to_string(writer.setup.path("bailiwick.toml")).unwrap();
    let peers = format!("writer = true\npeers = [{:?}]\npoll = \"200ms\"\n", url(&other));
    writer.setup.write("bailiwick.toml", &config.replace("writer = true\n", &peers));
    writer.take_over();
    ready(&writer);
    ready(&other);
    let runner = run(&writer, &[]);
    wait::until_true("both send all elsewhere", || share(&writer) == 100 && share(&other) == 100);
    let began = last(&writer)["began"].clone();
    fine(&other, &["drill", "abort", "london", "--reason", "phones ring"]);
    assert_eq!(share(&other), 0, "at once where it was asked for");
    wait::until_true("the writer has all back", || share(&writer) == 0);
    let (is_fine, record) = runner.ends();
    assert_eq!((is_fine, &record["outcome"], &record["why"]), (false, &json!("aborted"), &json!(["phones ring"])));
    for node in [&writer, &other] {
        assert_eq!((&last(node)["began"], &last(node)["ended"]), (&began, &json!("phones ring")));
    }
}
