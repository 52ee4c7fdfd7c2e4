//! Rollouts that are driven by `rules watch`.

use bailiwick_tests::dns::question;
use bailiwick_tests::geo::GERMAN;
use bailiwick_tests::node::{Setup, TOKEN};

use super::*;
use crate::fleet::driver::Driver;

/// How many answers are needed to judge a service.
pub(crate) const ENOUGH: usize = 40;

/// A fleet of four nodes: the writer and another of the first stage, one of the second, one of the rest. Each bakes for
/// a second. The writer knows all of them.
fn fleet_of_four(world: &World) -> [Node; 4] {
    fleet_that_bakes_for("1s", world)
}

fn fleet_that_bakes_for(bake: &str, world: &World) -> [Node; 4] {
    let named = |setup: Setup, name: &str| {
        let config = std::fs::read_to_string(setup.path("bailiwick.toml")).expect("a configuration");
        setup.write("bailiwick.toml", &format!("node = {name:?}\n{config}"));
        setup
    };
    let first = Setup::new(&rules(world, 1, &FRANKFURT_FIRST), crate::fixture::ZONE);
    let stages = format!("[fleet.stages]\nbake = {bake:?}\nmin_answers = {ENOUGH}\n");
    let settings = "[fleet]\nmode = \"peers\"\nwriter = true\nstage = \"canary\"\npoll = \"200ms\"\n";
    let mut writer = named(first.with(settings).with(&stages), "ns1").start();
    let follow =
        |name: &str, stage: &str| named(follower(&[url(&writer)], &format!("stage = {stage:?}\n")), name).start();
    let [second, third, fourth] = [("ns2", "canary"), ("ns3", "early"), ("ns4", "rest")].map(|(n, s)| follow(n, s));
    let peers = [&second, &third, &fourth].map(url);
    let config = std::fs::read_to_string(writer.setup.path("bailiwick.toml")).expect("a configuration");
    let known = config.replace("writer = true\n", &format!("writer = true\npeers = {peers:?}\n"));
    writer.setup.write("bailiwick.toml", &known);
    writer.take_over();
    [writer, second, third, fourth]
}

/// Has a node asked often enough by Germans.
pub(crate) fn ask(node: &Node) {
    (0..ENOUGH).for_each(|_| _ = question("chat.ai.example.com", "A").from(GERMAN).ask(node.dns));
}

/// Starts a command against a node.
fn start(node: &Node, words: &[&str], output: &str) -> Driver {
    let (api, token) = (url(node), node.setup.path("api.token").display().to_string());
    let geoip = database().display().to_string();
    let place = ["--api", &api, "--token-file", &token, "--geoip", &geoip, "--every", "1s"];
    Driver::start(&[words, &place].concat(), node.setup.path(output))
}

fn stage(node: &Node) -> Value {
    fleet(node)["head"]["stage"].clone()
}

#[test]
fn a_revision_goes_from_stage_to_stage_also_when_its_driver_is_killed() {
    let world = World::start();
    let nodes = fleet_of_four(&world);
    let [writer, second, third, fourth] = &nodes;
    writer.setup.write("new.json", &rules(&world, 2, &PARIS_FIRST).to_string());
    let file = writer.setup.path("new.json").display().to_string();
    let publish = ["rules", "publish", &file, "--reason", "a rollout", "--stage", "canary", "--watch"];
    let driver = start(writer, &publish, "driver");
    wait::until_true("the second stage has it", || has(third, 2));
    assert!(has(writer, 2) && has(second, 2), "not before the first");
    drop(driver);
    let stopped = stage(writer);
    if stopped == "early" {
        assert!(has(fourth, 1), "a stage is never skipped");
    }
    let again = start(writer, &["rules", "watch"], "again");
    let (is_well, all) = again.end();
    assert!(is_well && all.ends_with("revision 2 is served by all nodes, and baked\n"), "{all}");
    for node in &nodes {
        wait::until_true("all have it, and know so", || has(node, 2) && stage(node) == "rest");
    }
    let told = std::fs::read_to_string(writer.setup.path("driver")).expect("a file");
    assert!(told.contains("revision 2 is for nodes of stage early now"), "{told}");
    assert!(!told.contains(TOKEN));
}

#[test]
fn a_canary_that_answers_other_than_predicted_is_given_up_by_itself() {
    let world = World::start();
    let nodes = fleet_of_four(&world);
    let [writer, second, third, fourth] = &nodes;
    [writer, second].into_iter().for_each(ask);
    // All Germans are to go to Paris, but Paris is down: that is no effect of the rules.
    let down = json!({ "region": "eu-paris", "status": "down", "until": "2099-01-01T00:00:00Z", "reason": "drill" });
    for node in &nodes {
        let (status, body) = node.call("POST", "/v1/overrides", Some(TOKEN), Some(&down));
        assert_eq!(status, 200, "{body}");
    }
    let (is_published, told) = try_publish(writer, &rules(&world, 2, &PARIS_FIRST), &["--stage", "canary"]);
    assert!(is_published, "{told}");
    wait::until_true("the canaries have it", || has(writer, 2) && has(second, 2));
    [writer, second].into_iter().for_each(ask);
    let driver = start(writer, &["rules", "watch"], "driver");
    let (is_well, told) = driver.end();
    assert!(!is_well, "{told}");
    assert!(told.contains("chat: the share of eu-frankfurt changed by +0.0 points, -100.0 were predicted"), "{told}");
    assert!(told.contains("revision 2 is given up: revision 3 has the content of 1, for all nodes"), "{told}");
    wait::until_true("all have what they had", || nodes.iter().all(|node| has(node, 3)));
    let reason = fleet(fourth)["head"]["reason"].as_str().expect("a reason").to_owned();
    assert!(reason.starts_with("given up by itself: chat: the share of "), "{reason}");
    assert!(!fine(third, &["rules", "history"]).contains("canary only"), "nobody else ever had it");
}

#[test]
fn a_smaller_fence_is_never_given_up_by_itself() {
    let world = World::start();
    let nodes = fleet_that_bakes_for("10m", &world);
    let [writer, ..] = &nodes;
    nodes.iter().for_each(ask);
    // That Paris is down is no effect of the rules, so that clients aren't where they were predicted to be.
    let down = json!({ "region": "eu-paris", "status": "down", "until": "2099-01-01T00:00:00Z", "reason": "drill" });
    for node in &nodes {
        let (status, body) = node.call("POST", "/v1/overrides", Some(TOKEN), Some(&down));
        assert_eq!(status, 200, "{body}");
    }
    let (is_published, told) = try_publish(writer, &rules(&world, 2, &NO_FRANKFURT), &["--tighten"]);
    assert!(is_published, "{told}");
    wait::until_true("all have it", || nodes.iter().all(|node| has(node, 2)));
    nodes.iter().for_each(ask);
    let (is_well, told) = start(writer, &["rules", "watch"], "driver").end();
    assert!(!is_well && told.contains("revision 2 isn't given up by itself, as it makes a fence smaller"), "{told}");
    assert!(nodes.iter().all(|node| has(node, 2)), "what it forbids stays forbidden");
}

#[test]
fn a_node_that_was_never_heard_holds_a_rollout_up() {
    let world = World::start();
    let [writer, second, third, fourth] = fleet_of_four(&world);
    drop(third);
    let (is_published, told) =
        try_publish(&writer, &rules(&world, 2, &PARIS_FIRST), &["--stage", "canary", "--no-impact"]);
    assert!(is_published, "{told}");
    let driver = start(&writer, &["rules", "watch"], "driver");
    wait::until_true("it waits for somebody", || {
        driver.said().contains("stage early: no node of stage early was heard lately")
    });
    assert!(has(&second, 2) && has(&fourth, 1), "nobody skips a stage");
}
