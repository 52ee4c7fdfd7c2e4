//! What nodes do when NATS is unwell.

use std::time::{Duration, Instant};

use async_nats::jetstream::stream::{Config, StorageType};
use bailiwick_rules::fleet::head::sha256_hex;
use bailiwick_tests::node::bailiwick;
use serde_json::{Value, json};

use super::{
    Nats, Node, World, alarmed, connected, failing, fine, fleet, follower, german, metric, publish, rules, seeded,
    serves, started, wait,
};
use crate::fleet::nodes::key;

#[test]
fn a_restart_of_all_servers_loses_no_node_and_leaves_nothing_over() {
    let world = World::start();
    let Some(mut nats) = seeded(&world, &["ns1", "ns2", "ns3"]) else { return };
    let nodes = started(&nats, ["ns1", "ns2", "ns3"]);
    nodes.iter().for_each(connected);
    for address in ["192.0.2.2", "192.0.2.3"] {
        nats.restart();
        let begun = Instant::now();
        publish(&nats, &rules(&world, 1, address), "after a restart");
        nodes.iter().for_each(|node| serves(node, address));
        println!("published after a restart and served by all within {} ms", begun.elapsed().as_millis());
        assert!(begun.elapsed() < Duration::from_secs(35));
        nodes.iter().for_each(connected);
        assert!(nats.consumers() <= nodes.len());
    }
}

/// The head in the bucket.
fn head(nats: &Nats) -> Value {
    serde_json::from_slice(&nats.read("bw_rules", "head").expect("a head")).expect("JSON")
}

/// Puts back what a node has, after a check that nothing changed meanwhile.
#[track_caller]
fn restored_from(nats: &Nats, node: &Node, revision: u64, address: &str) {
    assert_eq!(german(node), [address], "answers don't change");
    let api = format!("http://{}", node.api);
    let said = fine(nats, &["rules", "restore", "--api", &api]);
    assert!(said.contains(&format!("revision {revision} stands in NATS again")), "{said}");
    connected(node);
    assert!(bailiwick(["fleet", "status", "--api", &api]).status.success(), "{}", fleet(node));
    assert_eq!(german(node), [address]);
}

#[test]
fn a_bucket_that_is_deleted_made_anew_or_older_changes_no_answer() {
    let world = World::start();
    let Some(nats) = seeded(&world, &["ns1", "ns2"]) else { return };
    let [node] = started(&nats, ["ns1"]);
    let old = (nats.read("bw_rules", "head").expect("a head"), rules(&world, 1, "192.0.2.1").to_string());
    publish(&nats, &rules(&world, 1, "192.0.2.2"), "two");
    publish(&nats, &rules(&world, 1, "192.0.2.3"), "three");
    serves(&node, "192.0.2.3");
    connected(&node);
    wait::until_true("the node keeps it", || node.get("/v1/rules/history").contains("three"));

    nats.delete_bucket("bw_rules");
    looked(&nats);
    alarmed(&node, "there is no bucket bw_rules");
    assert!(failing(&nats, &["rules", "history"]).contains("`bailiwick rules restore`"));
    restored_from(&nats, &node, 3, "192.0.2.3");
    assert_eq!(fine(&nats, &["rules", "history"]).lines().count(), 3, "with all that was before");
    assert_eq!(head(&nats)["reason"], "three", "a head is put back as it was");

    nats.delete_bucket("bw_rules");
    let empty = Config {
        name: "KV_bw_rules".to_owned(),
        subjects: vec!["$KV.bw_rules.>".to_owned()],
        storage: StorageType::File,
        allow_direct: true,
        max_messages_per_subject: 64,
        ..Config::default()
    };
    nats.run(async |jetstream| jetstream.create_stream(empty).await.map(drop)).expect("a server").expect("made");
    looked(&nats);
    alarmed(&node, "has no head");
    let digest = sha256_hex(old.1.as_bytes());
    nats.write("bw_rules", &format!("doc.{digest}"), old.1.as_bytes());
    nats.write("bw_rules", "head", &old.0);
    looked(&nats);
    alarmed(&node, "its head is revision 1, and this node serves 3");
    restored_from(&nats, &node, 3, "192.0.2.3");

    // Somebody with a node's history puts an older one back over a newer one.
    publish(&nats, &rules(&world, 1, "192.0.2.4"), "four");
    serves(&node, "192.0.2.4");
    let first = nats.path("first.json").display().to_string();
    let told = failing(&nats, &["rules", "restore", "--from", &first]);
    assert!(told.contains("NATS has revision 4") && told.contains("nothing was changed"), "{told}");
}

/// Has every node look at the head now: the server tells of a new one.
fn looked(nats: &Nats) {
    nats.run(async |jetstream| {
        let client = jetstream.client();
        client.publish("bw.head", "".into()).await.expect("sent");
        client.flush().await.expect("flushed");
    });
}

#[test]
fn a_lost_publish_is_not_undone_where_it_is_served_and_a_new_node_learns_it() {
    let world = World::start();
    let Some(nats) = seeded(&world, &["ns1", "ns2"]) else { return };
    let [holder] = started(&nats, ["ns1"]);
    let old = nats.read("bw_rules", "head").expect("a head");
    publish(&nats, &rules(&world, 1, "192.0.2.2"), "confirmed, then lost");
    serves(&holder, "192.0.2.2");
    nats.write("bw_rules", "head", &old);
    alarmed(&holder, "its head is revision 1, and this node serves 2");
    let peers = format!("peers = [\"http://{}\"]\n", holder.api);
    let new = follower(&nats, "ns2", &peers).start();
    assert_eq!(german(&new), ["192.0.2.2"], "it asked a node before it believed the bucket");
    assert_eq!(fleet(&new)["head"]["reason"], "confirmed, then lost");
    restored_from(&nats, &holder, 2, "192.0.2.2");
    connected(&new);
}

#[test]
fn without_a_majority_or_any_server_all_is_served_from_the_last_good() {
    let world = World::start();
    let Some(mut nats) = seeded(&world, &["ns1", "ns2"]) else { return };
    let [node] = started(&nats, ["ns1"]);
    publish(&nats, &rules(&world, 1, "192.0.2.2"), "before");
    serves(&node, "192.0.2.2");
    nats.stop_server(0);
    nats.stop_server(1);
    // Whichever server it was connected to.
    wait::until_true("a majority is missed", || {
        looked(&nats);
        metric(&node, "bailiwick_fleet_connected ") == "0"
    });
    assert_eq!(german(&node), ["192.0.2.2"]);
    nats.stop_server(2);
    let setup = node.stop();
    let node = setup.start();
    assert_eq!(german(&node), ["192.0.2.2"], "with all of NATS dead at the start");
    alarmed(&node, "can be reached");
    let api = format!("http://{}", node.api);
    let status = bailiwick(["fleet", "status", "--api", &api]);
    let text = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(!status.status.success() && text.contains("it serves the last good rules"), "{text}");

    (0..3).for_each(|number| nats.start_server(number));
    nats.await_leader();
    publish(&nats, &rules(&world, 1, "192.0.2.3"), "after");
    serves(&node, "192.0.2.3");
    connected(&node);
}

#[test]
fn a_node_without_rules_that_finds_none_in_nats_says_so() {
    let Some(nats) = Nats::start(&["ns1"]) else { return };
    let in_vain = follower(&nats, "ns1", "").start_in_vain();
    let errors = String::from_utf8_lossy(&in_vain.stderr).into_owned();
    assert!(errors.contains("there is no bucket bw_rules"), "{errors}");
    assert!(errors.contains("neither NATS nor a peer gave any"), "{errors}");
}

#[test]
fn a_forged_head_and_a_document_that_does_not_hash_are_refused_and_told() {
    let world = World::start();
    let Some(nats) = seeded(&world, &["ns1"]) else { return };
    let (key, public) = key(&nats.path(""), "signing.key");
    let new = super::file(&nats, "new.json", &rules(&world, 1, "192.0.2.2"));
    fine(&nats, &["rules", "publish", &new, "--reason", "signed", "--key", &key]);
    let node = follower(&nats, "ns1", &format!("trusted_publishers = [{public:?}]\n")).start();
    serves(&node, "192.0.2.2");
    let signed = head(&nats);

    let evil = rules(&world, 3, "192.0.2.66").to_string();
    nats.write("bw_rules", &format!("doc.{}", sha256_hex(evil.as_bytes())), evil.as_bytes());
    let mut forged = signed.clone();
    (forged["revision"], forged["sha256"]) = (json!(3), json!(sha256_hex(evil.as_bytes())));
    nats.write("bw_rules", "head", forged.to_string().as_bytes());
    let refused = |why: &str| metric(&node, &format!("bailiwick_fleet_refused_total{{why=\"{why}\"}}"));
    wait::until_true("a changed head is refused", || refused("signature") == "1");
    alarmed(&node, "its signature by key");
    nats.write("bw_rules", "head", b"{");
    wait::until_true("what is no head is refused", || refused("signature") == "2");

    // A head that is signed, and a document that isn't the one it names.
    nats.write("bw_rules", "head", signed.to_string().as_bytes());
    connected(&node);
    let next = super::file(&nats, "next.json", &rules(&world, 1, "192.0.2.3"));
    let true_text = rules(&world, 3, "192.0.2.3").to_string();
    let name = format!("doc.{}", sha256_hex(true_text.as_bytes()));
    nats.write("bw_rules", &name, evil.as_bytes());
    fine(&nats, &["rules", "publish", &next, "--reason", "over a forged document", "--key", &key]);
    assert_eq!(
        nats.read("bw_rules", &name).as_deref(),
        Some(true_text.as_bytes()),
        "what was overwritten is put right"
    );
    serves(&node, "192.0.2.3");
    let last = rules(&world, 4, "192.0.2.4").to_string();
    let file = super::file(&nats, "last.json", &rules(&world, 1, "192.0.2.4"));
    node.process.signal("STOP");
    fine(&nats, &["rules", "publish", &file, "--reason", "cut", "--key", &key]);
    nats.write("bw_rules", &format!("doc.{}", sha256_hex(last.as_bytes())), &last.as_bytes()[..last.len() / 2]);
    node.process.signal("CONT");
    wait::until_true("half a document is refused", || refused("digest") == "1");
    alarmed(&node, "doesn't have the digest");
    assert_eq!(german(&node), ["192.0.2.3"]);
}

#[test]
fn what_is_forged_in_nats_is_never_signed_and_is_put_right_by_restore() {
    let world = World::start();
    let Some(nats) = seeded(&world, &["ns1"]) else { return };
    let (key, public) = key(&nats.path(""), "signing.key");
    let trust = format!("trusted_publishers = [{public:?}]\n");
    let new = super::file(&nats, "new.json", &rules(&world, 1, "192.0.2.2"));
    fine(&nats, &["rules", "publish", &new, "--reason", "signed", "--key", &key]);
    let node = follower(&nats, "ns1", &trust).start();
    serves(&node, "192.0.2.2");
    wait::until_true("the node keeps it", || node.get("/v1/rules/history").contains("signed"));
    let file = std::fs::read_to_string(nats.publisher()).expect("the publisher's file");
    std::fs::write(nats.publisher(), file.replace("[fleet]\n", &format!("[fleet]\n{trust}"))).expect("written");

    let evil = rules(&world, 3, "192.0.2.66").to_string();
    nats.write("bw_rules", &format!("doc.{}", sha256_hex(evil.as_bytes())), evil.as_bytes());
    let mut forged = head(&nats);
    (forged["revision"], forged["sha256"]) = (json!(3), json!(sha256_hex(evil.as_bytes())));
    (forged["stage"], forged["signature"]) = (json!("canary"), Value::Null);
    forged.as_object_mut().expect("an object").remove("signature");
    nats.write("bw_rules", "head", forged.to_string().as_bytes());
    for words in [&["rules", "promote", "--key", &key][..], &["rules", "abort", "--reason", "x", "--key", &key]] {
        let told = failing(&nats, words);
        assert!(told.contains("it has no signature") && told.contains("rules restore"), "{words:?}: {told}");
    }
    assert!(!fine(&nats, &["rules", "history"]).contains("     3  "), "a forged head isn't in the history");
    restored_from(&nats, &node, 2, "192.0.2.2");
    for broken in [&b"{"[..], &forged.to_string().into_bytes()] {
        nats.write("bw_rules", "head", broken);
        restored_from(&nats, &node, 2, "192.0.2.2");
    }
    let next = super::file(&nats, "next.json", &rules(&world, 1, "192.0.2.3"));
    fine(&nats, &["rules", "publish", &next, "--reason", "goes on", "--key", &key]);
    serves(&node, "192.0.2.3");
}

#[test]
fn a_node_that_missed_a_revision_for_all_takes_it_while_a_canary_is_tried() {
    let world = World::start();
    let Some(nats) = seeded(&world, &["ns1", "ns2"]) else { return };
    let canary = follower(&nats, "ns1", "stage = \"canary\"\n").start();
    let [late] = started(&nats, ["ns2"]);
    serves(&late, "192.0.2.1");
    let mut late = late;
    late.process.signal("TERM");
    late.process.wait();
    publish(&nats, &rules(&world, 1, "192.0.2.2"), "for all");
    let tried = super::file(&nats, "tried.json", &rules(&world, 1, "192.0.2.3"));
    fine(&nats, &["rules", "publish", &tried, "--reason", "tried", "--stage", "canary"]);
    serves(&canary, "192.0.2.3");
    let late = late.stop().start();
    serves(&late, "192.0.2.2");
    fine(&nats, &["rules", "promote", "--stage", "rest"]);
    serves(&late, "192.0.2.3");
}
