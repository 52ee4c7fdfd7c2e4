//! Many nodes with rules from NATS, by three real servers with certificates and NKeys: what is published is served by
//! all, and nothing that happens to NATS takes rules out of service.

mod aggregate;
mod apart;
mod bundles;
mod drills;
mod faults;
mod publishing;
mod quotas;
mod rollouts;
mod users;
mod watched;

use std::process::Output;
use std::time::Instant;

use bailiwick_tests::nats::Nats;
use bailiwick_tests::node::{Node, Setup, bailiwick};
use bailiwick_tests::wait;
use serde_json::Value;

use crate::fixture::{World, ZONE};
use crate::fleet::nodes::{fleet, metric};
use crate::fleet::{german, rules, serves};

/// Runs a command as the publisher.
fn command(nats: &Nats, words: &[&str]) -> Output {
    let config = nats.publisher();
    bailiwick(words.iter().copied().chain(["--config", config.as_str()]))
}

/// [`command`] where it succeeds; its output.
#[track_caller]
fn fine(nats: &Nats, words: &[&str]) -> String {
    let output = command(nats, words);
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// [`fine`] of servers that may still have to elect a leader: whoever is told that JetStream has none tries again.
#[track_caller]
fn fine_in_time(nats: &Nats, words: &[&str]) {
    let begun = Instant::now();
    while let tried = command(nats, words)
        && !tried.status.success()
    {
        let told = String::from_utf8_lossy(&tried.stderr);
        assert!(begun.elapsed() < wait::LONG, "{words:?} fails for {:?}: {told}", wait::LONG);
    }
}

/// [`command`] where it fails; its errors.
#[track_caller]
fn failing(nats: &Nats, words: &[&str]) -> String {
    let output = command(nats, words);
    assert!(!output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A file with rules.
fn file(nats: &Nats, name: &str, rules: &Value) -> String {
    let file = nats.path(name);
    std::fs::write(&file, rules.to_string()).expect("written");
    file.display().to_string()
}

/// Puts the first rules into a bucket.
#[track_caller]
fn seed(nats: &Nats, rules: &Value) {
    let first = file(nats, "first.json", rules);
    fine_in_time(nats, &["rules", "restore", "--from", &first, "--reason", "the first"]);
}

/// Servers whose bucket has revision 1, which answers Germans with 192.0.2.1.
fn seeded(world: &World, nodes: &[&str]) -> Option<Nats> {
    seeded_with(&rules(world, 1, "192.0.2.1"), nodes)
}

/// Servers whose bucket has these rules.
fn seeded_with(rules: &Value, nodes: &[&str]) -> Option<Nats> {
    let nats = Nats::start(nodes)?;
    seed(&nats, rules);
    Some(nats)
}

#[track_caller]
fn publish(nats: &Nats, rules: &Value, reason: &str) -> String {
    let new = file(nats, "new.json", rules);
    fine(nats, &["rules", "publish", &new, "--reason", reason, "--author", "ann"])
}

/// A node of this name that begins without rules of its own.
fn follower(nats: &Nats, name: &str, more: &str) -> Setup {
    nats.node(name, ZONE, &format!("poll = \"200ms\"\n{more}"))
}

/// Starts these nodes.
fn started<const N: usize>(nats: &Nats, names: [&str; N]) -> [Node; N] {
    names.map(|name| follower(nats, name, "").start())
}

/// Waits until a node says that NATS is of no use, for a reason with this text. It serves on.
#[track_caller]
fn alarmed(node: &Node, why: &str) {
    wait::until_true(&format!("/v1/fleet says {why:?}"), || {
        fleet(node)["nats"]["trouble"].as_str().is_some_and(|trouble| trouble.contains(why))
    });
    assert_eq!(metric(node, "bailiwick_fleet_connected "), "0");
    wait::until_true("the lag grows", || metric(node, "bailiwick_fleet_lag_seconds ") != "0");
}

/// Waits until a node finds NATS of use.
#[track_caller]
fn connected(node: &Node) {
    wait::until_true("the node is connected", || metric(node, "bailiwick_fleet_connected ") == "1");
}

#[test]
fn what_is_published_is_served_by_all_who_see_each_others_health() {
    let world = World::start();
    let Some(nats) = seeded(&world, &["ns1", "ns2", "ns3.example.com"]) else { return };
    let nodes = started(&nats, ["ns1", "ns2", "ns3.example.com"]);
    assert_eq!(nodes.each_ref().map(german), [["192.0.2.1"]; 3], "they began with what is in NATS");
    let said = publish(&nats, &rules(&world, 1, "192.0.2.2"), "more room");
    assert_eq!(said, "revision 2 is published; nodes take it within seconds\n");
    nodes.iter().for_each(|node| serves(node, "192.0.2.2"));
    wait::until_true("who published is known", || fleet(&nodes[2])["head"]["reason"] == "more room");
    for node in &nodes {
        connected(node);
        wait::until_true("both others are heard", || {
            let peers = fleet(node)["peers"].as_array().cloned().unwrap_or_default();
            peers.len() == 2 && peers.iter().all(|peer| peer["trouble"].is_null() && peer["revision"] == 2)
        });
        let told = fleet(node);
        let peer = &told["peers"][0];
        assert!(told["geoip_built"].is_string() && peer["geoip_built"] == told["geoip_built"], "{told}");
        assert!(peer["clock_ahead_ms"].as_i64().is_some_and(|ahead| ahead.abs() < 5_000), "{told}");
    }
    assert!(nats.consumers() <= nodes.len());
    let [first, ..] = nodes;
    let first = first.stop().start();
    assert_eq!(fleet(&first)["head"]["author"], "ann", "who published outlives a restart");
}
