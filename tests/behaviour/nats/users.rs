//! What each user may do to NATS.

use async_nats::jetstream;
use async_nats::{Client, HeaderMap};
use std::time::{Duration, Instant};

use bailiwick_tests::node::{Setup, bailiwick};

use super::{Nats, World, connected, follower, publish, rules, seed, seeded, serves, started, wait};
use crate::fleet::german;
use crate::fleet::nodes::fleet;

/// Whether a server confirms that this user wrote an entry.
fn writes(nats: &Nats, user: &str, subject: &str) -> bool {
    let written = nats.run_as(user, async |client: Client| {
        let mut jetstream = jetstream::new(client);
        jetstream.set_timeout(Duration::from_secs(1));
        let sent = jetstream.publish_with_headers(subject.to_owned(), HeaderMap::new(), "x".into()).await;
        sent.expect("sent").await.is_ok()
    });
    written.expect("the user may connect")
}

#[test]
fn a_node_writes_what_is_its_own_and_nothing_else() {
    let world = World::start();
    let Some(nats) = seeded(&world, &["ns1", "ns2"]) else { return };
    let head = nats.read("bw_rules", "head");
    for subject in ["$KV.bw_rules.head", "$KV.bw_rules.doc.ab", "$KV.bw_state.node.ns2", "$KV.bw_state.node.ns1.x"] {
        assert!(!writes(&nats, "ns1", subject), "a node wrote {subject}");
    }
    assert!(writes(&nats, "ns1", "$KV.bw_state.node.ns1"));
    assert!(!writes(&nats, "publisher", "$KV.bw_state.node.ns1"), "the publisher is no node");
    assert!(writes(&nats, "publisher", "$KV.bw_state.run.x") && !writes(&nats, "ns1", "$KV.bw_state.run.x"));
    assert_eq!(nats.read("bw_rules", "head"), head);
    for user in ["ns1", "publisher"] {
        let delete = async |client: Client| {
            let mut jetstream = jetstream::new(client);
            jetstream.set_timeout(Duration::from_secs(1));
            let is_purged = match jetstream.get_stream("KV_bw_rules").await {
                Ok(stream) => stream.purge().await.is_ok(),
                Err(_) => false,
            };
            is_purged || jetstream.delete_stream("KV_bw_rules").await.is_ok()
        };
        assert_eq!(nats.run_as(user, delete), Some(false), "{user} may delete nothing");
    }
    assert_eq!(nats.read("bw_rules", "head"), head);
}

#[test]
fn a_node_speaks_for_itself_alone() {
    let world = World::start();
    let Some(nats) = seeded(&world, &["ns1", "ns2", "ns3"]) else { return };
    let [node] = started(&nats, ["ns1"]);
    let report = |name: &str, revision: u64| {
        let mut report: serde_json::Value = serde_json::from_str(&node.get("/v1/health")).expect("JSON");
        (report["node"], report["revision"]) = (name.into(), revision.into());
        report.to_string()
    };
    let send = |user: &str, subject: &str, report: String| {
        let sent = async |client: Client| {
            client.publish(subject.to_owned(), report.into()).await.expect("sent");
            client.flush().await.expect("flushed");
        };
        nats.run_as(user, sent).expect("the user may connect");
    };
    wait::until_true("what it says of itself is heard", || {
        send("ns2", "bw.health.ns3", report("ns3", 66));
        send("ns2", "bw.health.ns2", report("ns3", 66));
        send("ns2", "bw.health.ns2", "{".to_owned());
        send("ns2", "bw.health.ns2", report("ns2", 5));
        fleet(&node)["peers"][0]["revision"] == 5
    });
    let peers = fleet(&node)["peers"].clone();
    assert_eq!(peers.as_array().map(Vec::len), Some(1), "for another one nobody hears it: {peers}");
    assert_eq!(german(&node), ["192.0.2.1"]);
}

/// Servers close the connection of a user whose key they no longer know, and the node comes back with its new one.
#[test]
fn the_key_of_a_node_is_changed_while_it_serves() {
    let world = World::start();
    let Some(nats) = seeded(&world, &["ns1", "ns2"]) else { return };
    let nodes = started(&nats, ["ns1", "ns2"]);
    nodes.iter().for_each(connected);
    let old = std::fs::read(nats.path("ns1.nk")).expect("a key");
    std::fs::remove_file(nats.path("ns1.nk")).expect("removed");
    nats.change_users(&["ns1", "ns2"]);
    assert_ne!(std::fs::read(nats.path("ns1.nk")).expect("a key"), old);
    let begun = Instant::now();
    for (number, address) in ["192.0.2.2", "192.0.2.3"].into_iter().enumerate() {
        publish(&nats, &rules(&world, 1, address), "with another key");
        nodes.iter().for_each(|node| serves(node, address));
        println!("publication {} after the change is served by all after {:?}", number + 1, begun.elapsed());
    }
    nodes.iter().for_each(connected);
    wait::until_true("the other hears it", || fleet(&nodes[1])["peers"][0]["revision"] == 3);
    // Who has the old key is nobody now.
    let config = follower(&nats, "ns1", "");
    let text = std::fs::read_to_string(config.path("bailiwick.toml")).expect("a configuration");
    config.write("old.nk", &String::from_utf8_lossy(&old));
    let key = nats.path("ns1.nk").display().to_string();
    config.write("bailiwick.toml", &text.replace(&key, &config.path("old.nk").display().to_string()));
    let (is_well, said) = checked(&config);
    assert!(!is_well && said.contains("NATS refuses this user"), "{said}");
}

/// What `fleet check` says of a configuration, and whether all is well.
fn checked(setup: &Setup) -> (bool, String) {
    let config = setup.path("bailiwick.toml").display().to_string();
    let output = bailiwick(["fleet", "check", "--config", &config]);
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.success(), text)
}

#[test]
fn a_configuration_is_tried_out_before_its_node_starts() {
    let world = World::start();
    let Some(mut nats) = Nats::start(&["ns1", "ns2"]) else { return };
    let setup = follower(&nats, "ns1", "");
    let (is_well, said) = checked(&setup);
    assert!(!is_well && said.contains("! NATS: there is no bucket bw_rules"), "{said}");

    seed(&nats, &crate::fleet::rules(&world, 1, "192.0.2.1"));
    let (is_well, said) = checked(&setup);
    assert!(is_well && said.contains("NATS: revision 1 is there, and good"), "{said}");
    assert!(
        said.contains("the bucket bw_state is kept 3 times") && said.contains("may report and answer as this node"),
        "{said}"
    );
    assert!(said.starts_with("ns1  mode nats, stage rest\n") && said.contains("no trusted_publishers"), "{said}");

    let config = std::fs::read_to_string(setup.path("bailiwick.toml")).expect("a configuration");
    setup.write("bailiwick.toml", &config.replace("node = \"ns1\"", "node = \"ns2\""));
    let (is_well, said) = checked(&setup);
    assert!(!is_well && said.contains("! NATS: ") && said.contains("nats-config"), "another node's key: {said}");
    setup.write("bailiwick.toml", &config);
    for subject in ["bw.told.ns1", "bw.obs.ns1"] {
        nats.forbid(subject);
        wait::until_true("what the user lacks is told", || {
            let (is_well, said) = checked(&setup);
            !is_well && said.contains("! NATS: ") && said.contains(subject) && said.contains("nats-config")
        });
        nats.change_users(&["ns1", "ns2"]);
        wait::until_true("it has it again", || checked(&setup).0);
    }
    nats.stop_server(2);
    wait::until_true("a copy is missed", || {
        let (is_well, said) = checked(&setup);
        !is_well && said.contains("copies that are late or missing: nats3")
    });
    (0..2).for_each(|number| nats.stop_server(number));
    let (is_well, said) = checked(&setup);
    assert!(!is_well && said.contains("is NATS running there?"), "{said}");
}
