//! Nodes are asked over NATS: how they answer, while a revision goes from stage to stage, and what they counted.

use std::sync::mpsc::channel;
use std::time::Duration;

use async_nats::Client;
use bailiwick_tests::geo::database;
use futures_util::StreamExt;
use serde_json::Value;

use super::{Nats, Node, World, file, fine, follower, seeded, seeded_with, wait};
use crate::fleet::driver::Driver;
use crate::fleet::nodes::fleet;
use crate::stages::watched::{ENOUGH, ask};
use crate::stages::{FRANKFURT_FIRST, PARIS_FIRST, has, rules};

/// A node of each stage, whose rules send all Germans to Frankfurt; and a publisher who lets a stage bake for a second.
fn three_stages(world: &World) -> Option<(Nats, [Node; 3])> {
    let nats = seeded_with(&rules(world, 1, &FRANKFURT_FIRST), &["ns1", "ns2", "ns3"])?;
    let stages = [("ns1", "canary"), ("ns2", "early"), ("ns3", "rest")];
    let nodes = stages.map(|(name, stage)| follower(&nats, name, &format!("stage = {stage:?}\n")).start());
    let publisher = std::fs::read_to_string(nats.publisher()).expect("a configuration");
    let care = format!("{publisher}\n[fleet.stages]\nbake = \"1s\"\nmin_answers = {ENOUGH}\n");
    std::fs::write(nats.publisher(), care).expect("written");
    Some((nats, nodes))
}

/// Starts a command of the publisher's.
fn start(nats: &Nats, words: &[&str], output: &str) -> Driver {
    let (config, geoip) = (nats.publisher(), database().display().to_string());
    let place = ["--config", &config, "--geoip", &geoip, "--every", "1s"];
    Driver::start(&[words, &place].concat(), nats.path(output))
}

fn stage(node: &Node) -> Value {
    fleet(node)["head"]["stage"].clone()
}

#[test]
fn a_revision_goes_from_stage_to_stage_over_nats() {
    let world = World::start();
    let Some((nats, nodes)) = three_stages(&world) else { return };
    let new = file(&nats, "new.json", &rules(&world, 1, &PARIS_FIRST));
    let publish = ["rules", "publish", &new, "--reason", "a rollout", "--stage", "canary", "--watch"];
    let driver = start(&nats, &publish, "driver");
    wait::until_true("the second stage has it", || has(&nodes[1], 2));
    assert!(has(&nodes[0], 2), "not before the first");
    let (is_well, said) = driver.end();
    assert!(is_well && said.ends_with("revision 2 is served by all nodes, and baked\n"), "{said}");
    for node in &nodes {
        wait::until_true("all have it, and know so", || has(node, 2) && stage(node) == "rest");
    }
}

#[test]
fn a_canary_over_nats_that_answers_other_than_predicted_is_given_up_by_itself() {
    let world = World::start();
    let Some((nats, nodes)) = three_stages(&world) else { return };
    ask(&nodes[0]);
    let new = file(&nats, "new.json", &rules(&world, 1, &PARIS_FIRST));
    // That Paris is down is no effect of the rules.
    let away = ["shift", "away", "eu-paris", "--for", "2h", "--reason", "drill"];
    crate::fleet::nodes::fine(&nodes[0], &away);
    let said = fine(&nats, &["rules", "publish", &new, "--reason", "x", "--stage", "canary", "--no-impact"]);
    assert!(said.contains("revision 2 is published"), "{said}");
    wait::until_true("the canary has it", || has(&nodes[0], 2));
    ask(&nodes[0]);
    let (is_well, said) = start(&nats, &["rules", "watch"], "driver").end();
    assert!(!is_well && said.contains("revision 2 is given up: revision 3 has the content of 1"), "{said}");
    assert!(said.contains("chat: the share of eu-frankfurt changed by +0.0 points, -100.0 were predicted"), "{said}");
    wait::until_true("all have what they had", || nodes.iter().all(|node| has(node, 3)));
}

#[test]
fn a_node_that_gives_no_answer_holds_a_rollout_up_until_its_entry_is_deleted() {
    let world = World::start();
    let Some((nats, [first, second, third])) = three_stages(&world) else { return };
    wait::until_true("it is known", || nats.read("bw_state", "node.ns2").is_some());
    drop(second);
    let new = file(&nats, "new.json", &rules(&world, 1, &PARIS_FIRST));
    fine(&nats, &["rules", "publish", &new, "--reason", "x", "--stage", "canary", "--no-impact"]);
    let driver = start(&nats, &["rules", "watch"], "driver");
    wait::until_true("it waits for somebody", || driver.said().contains("no node of stage early was heard lately"));
    assert!(has(&first, 2) && has(&third, 1), "nobody skips a stage");
    nats.delete("bw_state", "node.ns2");
    drop(driver);
    let (is_well, said) = start(&nats, &["rules", "watch"], "again").end();
    assert!(is_well && has(&third, 2), "a node that was taken out isn't waited for: {said}");
}

#[test]
fn a_comparison_counts_the_queries_of_all_nodes() {
    let world = World::start();
    let Some((nats, nodes)) = three_stages(&world) else { return };
    nodes[1..].iter().for_each(ask);
    let new = file(&nats, "new.json", &rules(&world, 1, &PARIS_FIRST));
    let (config, geoip) = (nats.publisher(), database().display().to_string());
    let diff = || {
        let words = ["rules", "diff", &new, "--against", "head", "--geoip", &geoip, "--config", &config, "--json"];
        let output = bailiwick_tests::node::bailiwick(words);
        serde_json::from_slice::<Value>(&output.stdout).unwrap_or_default()
    };
    let compared = diff();
    let services = compared["services"].as_array().expect("services");
    let chat = services.iter().find(|one| one["service"] == "chat" && one["tenants"].is_null());
    let counted = chat.map(|chat| chat["total"]["queries"].clone());
    assert_eq!(counted, Some(serde_json::json!(2 * ENOUGH)), "{compared}");
}

/// Nobody may answer for another node: else a stolen one could say that all is well.
#[test]
fn a_node_answers_for_itself_alone() {
    let world = World::start();
    let Some(nats) = seeded(&world, &["ns1", "ns2"]) else { return };
    let (listens, is_listening) = channel();
    let heard = std::thread::scope(|scope| {
        let publisher = scope.spawn(|| {
            let hear = async |client: Client| {
                let mut told = client.subscribe("bw.told.>").await.expect("subscribed");
                client.flush().await.expect("flushed");
                listens.send(()).expect("awaited");
                let first = tokio::time::timeout(Duration::from_secs(20), told.next()).await;
                first.expect("in time").expect("a message").subject.to_string()
            };
            nats.run_as("publisher", hear)
        });
        is_listening.recv().expect("it listens");
        let send = async |client: Client| {
            for subject in ["bw.told.ns1", "bw.told.ns1.x", "bw.ask.fleet", "bw.told.ns2"] {
                client.publish(subject, "x".into()).await.expect("sent");
            }
            client.flush().await.expect("flushed");
        };
        nats.run_as("ns2", send).expect("the user may connect");
        publisher.join().expect("it ends")
    });
    assert_eq!(heard.as_deref(), Some("bw.told.ns2"));
}
