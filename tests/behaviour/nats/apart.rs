//! Servers of NATS that stand far apart, and one that is cut off.

use std::time::{Duration, Instant};

use super::{Nats, World, alarmed, connected, file, fine_in_time, follower, rules, seed, serves, wait};
use crate::fleet::german;

/// How far apart servers, nodes and publisher stand: two coasts of an ocean, and two sides of the earth.
const ROUND_TRIPS: [Duration; 2] = [Duration::from_millis(80), Duration::from_millis(150)];
/// Within this time after the mend of a failure every node has what is published.
const AFTER_A_FAILURE: Duration = Duration::from_secs(35);

#[test]
fn what_is_published_crosses_oceans_and_goes_around_a_server_that_is_cut_off() {
    let world = World::start();
    for round_trip in ROUND_TRIPS {
        let Some(nats) = Nats::start_apart(&["ns1", "ns2"], round_trip) else { return };
        seed(&nats, &rules(&world, 1, "192.0.2.1"));
        let nodes = ["ns1", "ns2"].map(|name| follower(&nats, name, "").start());
        nodes.iter().for_each(connected);
        let begun = Instant::now();
        let new = file(&nats, "new.json", &rules(&world, 1, "192.0.2.2"));
        fine_in_time(&nats, &["rules", "publish", &new, "--reason", "far"]);
        nodes.iter().for_each(|node| serves(node, "192.0.2.2"));
        println!("{round_trip:?} apart: published and served by all after {:?}", begun.elapsed());

        let begun = Instant::now();
        nats.cut_off(0);
        assert_eq!(german(&nodes[0]), ["192.0.2.2"], "it answers while the server is cut off");
        // On a quiet machine that takes 16 to 23 s.
        let new = file(&nats, "new.json", &rules(&world, 1, "192.0.2.3"));
        fine_in_time(&nats, &["rules", "publish", &new, "--reason", "one server less"]);
        nodes.iter().for_each(|node| serves(node, "192.0.2.3"));
        println!("{round_trip:?} apart, one server cut off: served by all after {:?}", begun.elapsed());
        nats.heal(0);
    }
}

#[test]
fn a_node_that_is_cut_off_from_all_servers_serves_on_and_catches_up() {
    let world = World::start();
    let Some(nats) = Nats::start_apart(&["ns1", "ns2"], ROUND_TRIPS[0]) else { return };
    seed(&nats, &rules(&world, 1, "192.0.2.1"));
    let node = follower(&nats, "ns1", "").start();
    connected(&node);
    (0..bailiwick_tests::nats::SERVERS).for_each(|number| nats.cut_off(number));
    alarmed(&node, "NATS");
    assert_eq!(german(&node), ["192.0.2.1"]);
    (0..bailiwick_tests::nats::SERVERS).for_each(|number| nats.heal(number));
    nats.await_all();
    let new = file(&nats, "new.json", &rules(&world, 1, "192.0.2.2"));
    fine_in_time(&nats, &["rules", "publish", &new, "--reason", "after all"]);
    let begun = Instant::now();
    wait::until_true("it catches up", || german(&node) == ["192.0.2.2"]);
    assert!(begun.elapsed() <= AFTER_A_FAILURE);
    connected(&node);
}
