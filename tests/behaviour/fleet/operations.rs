//! What an operator does to a fleet that serves: upgrade it node by node, bring a node in and take one out, change the
//! publisher's key.

use std::sync::atomic::Ordering;

use bailiwick_tests::load::Load;

use super::*;

/// Changes the configuration of a node, then puts a new process in its place.
fn reconfigure(node: &mut Node, old: &str, new: &str) {
    let config = std::fs::read_to_string(node.setup.path("bailiwick.toml")).unwrap();
    assert!(config.contains(old), "{old} isn't in {config}");
    node.setup.write("bailiwick.toml", &config.replace(old, new));
    node.take_over();
}

#[test]
fn a_fleet_is_upgraded_node_by_node_while_all_are_asked_and_rules_are_published() {
    let world = World::start();
    let first = writer(&world, "");
    let second = follower(&[url(&first)], "").start();
    let third = follower(&[url(&first), url(&second)], "").start();
    let mut nodes = [first, second, third];
    let loads = nodes.each_ref().map(|node| Load::start(node.dns, "chat.ai.example.com", 1));
    for number in 0..nodes.len() {
        let asked = loads.each_ref().map(|load| load.counts.asked());
        nodes[number].take_over();
        let address = format!("192.0.2.{}", 2 + number);
        publish(&nodes[0], &rules(&world, 1, &address), "during an upgrade", &[]);
        for node in &nodes {
            serves(node, &address);
        }
        let are_asked = || loads.iter().zip(asked).all(|(load, asked)| load.counts.asked() > asked + 200);
        wait::until_true("all are asked", are_asked);
    }
    for load in loads {
        let counts = load.stop();
        assert_eq!(counts.lost.load(Ordering::Relaxed), 0, "{counts:?}");
    }
    wait::until_true("no node misses another", || told(&nodes[2], &["fleet", "status"]).status.success());
}

#[test]
fn a_node_comes_in_and_another_goes_for_good() {
    let world = World::start();
    let first = writer(&world, "");
    let mut second = follower(&[url(&first)], "").start();
    publish(&first, &rules(&world, 1, "192.0.2.2"), "before it comes", &[]);
    serves(&second, "192.0.2.2");

    let third = follower(&[url(&first), url(&second)], "").start();
    assert_eq!(german(&third), ["192.0.2.2"], "it begins with the newest");
    let peers = format!("{:?}", [url(&first)]);
    reconfigure(&mut second, &peers, &format!("{:?}", [url(&first), url(&third)]));
    wait::until_true("all are well", || told(&second, &["fleet", "status"]).status.success());

    // The writer goes for good. The second takes its place, and the third follows it already.
    drop(first);
    wait::until_true("it is missed", || !told(&third, &["fleet", "status"]).status.success());
    reconfigure(&mut second, "mode = \"peers\"\n", "mode = \"peers\"\nwriter = true\n");
    publish(&second, &rules(&world, 1, "192.0.2.3"), "by the new writer", &[]);
    serves(&third, "192.0.2.3");
    let gone = peers.trim_matches(['[', ']']);
    reconfigure(&mut second, &format!("{gone}, "), "");
    wait::until_true("nobody is missed", || told(&second, &["fleet", "status"]).status.success());
}

#[test]
fn a_publishers_key_is_changed_without_a_node_that_refuses() {
    let world = World::start();
    let folder = tempfile::tempdir().unwrap();
    let key = |name: &str| nodes::key(folder.path(), name);
    let ((old_file, old), (new_file, new)) = (key("old.key"), key("new.key"));
    let trust = |keys: &[&str]| format!("trusted_publishers = {keys:?}\n");
    let mut first = writer(&world, &trust(&[&old]));
    publish(&first, &rules(&world, 1, "192.0.2.2"), "by the old key", &["--key", &old_file]);
    let mut second = follower(&[url(&first)], &trust(&[&old])).start();
    assert_eq!(german(&second), ["192.0.2.2"]);

    for node in [&mut first, &mut second] {
        reconfigure(node, &trust(&[&old]), &trust(&[&old, &new]));
    }
    publish(&first, &rules(&world, 1, "192.0.2.3"), "by the new key", &["--key", &new_file]);
    serves(&second, "192.0.2.3");
    for node in [&mut first, &mut second] {
        reconfigure(node, &trust(&[&old, &new]), &trust(&[&new]));
    }
    let file = first.setup.path("new.json").display().to_string();
    let refused = failing(&first, &["rules", "publish", &file, "--reason", "by the old key", "--key", &old_file]);
    assert!(refused.contains("none of this node's trusted_publishers"), "{refused}");
    publish(&first, &rules(&world, 1, "192.0.2.4"), "by the new key", &["--key", &new_file]);
    serves(&second, "192.0.2.4");
    let refusals = || metric(&second, "bailiwick_fleet_refused_total{why=\"signature\"}");
    assert_eq!(refusals(), "0", "no node refused what it was given meanwhile");
}

#[test]
fn traffic_of_all_nodes_adds_up_and_outlives_restarts() {
    let world = World::start();
    let first = writer(&world, "");
    let second = follower(&[url(&first)], "").start();
    let peers = format!("peers = {:?}\n", [url(&second)]);
    let config = std::fs::read_to_string(first.setup.path("bailiwick.toml")).unwrap();
    first.setup.write("bailiwick.toml", &format!("{config}{peers}"));
    let mut first = first;
    first.take_over();
    for (node, times) in [(&first, 3), (&second, 5)] {
        (0..times).for_each(|_| _ = german(node));
    }
    let counted = |node: &Node, query: &str| -> (u64, Value) {
        let report: Value = serde_json::from_str(&node.get(&format!("/v1/traffic{query}"))).expect("JSON");
        let counts = report["counts"].as_array().expect("counts").iter();
        (counts.map(|count| count["queries"].as_u64().expect("a number")).sum(), report)
    };
    assert_eq!(counted(&first, "").0, 3);
    let (sum, report) = counted(&first, "?fleet=true&service=chat&since=1h");
    assert_eq!((sum, &report["nodes"], report.get("missing")), (8, &json!(2), None), "{report}");
    assert_eq!(report["counts"].as_array().unwrap().len(), 1, "both counted the same: {report}");

    first.take_over();
    assert_eq!(counted(&first, "").0, 3, "after another process took over");
    let mut second = second;
    second.process.signal("TERM");
    assert!(second.process.wait().success(), "{}", second.log());
    let (sum, report) = counted(&first, "?fleet=true");
    assert_eq!((sum, &report["nodes"]), (3, &json!(1)));
    assert_eq!(report["missing"][0]["peer"], url_in(&peers), "{report}");
    let second = second.stop().start();
    assert_eq!(counted(&second, "").0, 5, "after it was stopped and started");
    let second = second.stop();
    std::fs::write(second.path("state/traffic.json"), "{\"services\":[\"chat\"").unwrap();
    let second = second.start();
    assert_eq!(counted(&second, "").0, 0);
    assert!(second.log().contains("traffic.json isn't what was kept"), "{}", second.log());
}

#[test]
fn a_node_that_is_paused_while_more_is_published_serves_the_newest_and_never_nothing() {
    let world = World::start();
    let first = writer(&world, "");
    let second = follower(&[url(&first)], "").start();
    for round in 0..5 {
        let addresses = [0, 1, 2].map(|number| format!("192.0.2.{}", 2 + 3 * round + number));
        publish(&first, &rules(&world, 1, &addresses[0]), "before the pause", &[]);
        // It may stop anywhere between the first byte of a document and its first answer.
        let asked = first.get("/v1/fleet");
        second.process.signal("STOP");
        for address in &addresses[1..] {
            publish(&first, &rules(&world, 1, address), "during the pause", &[]);
        }
        second.process.signal("CONT");
        wait::until_true("the newest is served", || {
            let answer = german(&second);
            assert!(!answer.is_empty(), "{asked}");
            answer == [addresses[2].as_str()]
        });
    }
    assert_eq!(metric(&second, "bailiwick_fleet_refused_total{why=\"conflict\"}"), "0");
    for node in [&first, &second] {
        assert!(!node.log().contains("is older than"), "what a node has kept is no news to it: {}", node.log());
    }
}

/// The URL in a line of the configuration.
fn url_in(line: &str) -> &str {
    line.split('"').nth(1).expect("a URL")
}
