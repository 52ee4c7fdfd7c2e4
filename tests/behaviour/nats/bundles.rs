//! Bundles in NATS' object store, with real servers: pushed by the publisher, fetched by every node, checked by digest.

use async_nats::jetstream;
use async_nats::{Client, HeaderMap};
use bailiwick_tests::node::{Node, Setup, TOKEN};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use serde_json::{Value, json};

use super::{Nats, World, failing, file, fine, publish, rules, seeded, started, wait};
use crate::bundles::{asked, get, prompts};

/// Pushes a folder with this system prompt; its version.
fn push(nats: &Nats, setup: &Setup, system: &str) -> String {
    let folder = prompts(setup, system).display().to_string();
    fine(nats, &["bundle", "push", &folder, "--name", "prompts"]).trim().to_owned()
}

fn pinned(world: &World, version: &str) -> Value {
    let mut rules = rules(world, 1, "192.0.2.1");
    rules["bundles"] = json!({ "prompts": { "version": version } });
    rules
}

fn prompt(node: &Node) -> String {
    let answer = get(node, "/v1/bundles/prompts/chat/system.md");
    if answer.status == 200 { answer.text() } else { String::new() }
}

/// Replaces the content of an object, as somebody who may do everything.
fn overwrite(nats: &Nats, name: &str, content: &[u8]) {
    let (entry, chunk) = (format!("$O.bw_bundles.M.{}", URL_SAFE.encode(name)), "$O.bw_bundles.C.evil");
    let written = nats.run(async |jetstream| {
        let stream = jetstream.get_stream("OBJ_bw_bundles").await.expect("the store");
        let last = stream.get_last_raw_message_by_subject(&entry).await.expect("an entry");
        let mut info: Value = serde_json::from_slice(&last.payload).expect("JSON");
        (info["nuid"], info["chunks"], info["size"]) = ("evil".into(), 1.into(), content.len().into());
        jetstream.publish(chunk, content.to_vec().into()).await.expect("sent").await.expect("stored");
        jetstream.publish(entry.clone(), info.to_string().into()).await.expect("sent").await.is_ok()
    });
    assert_eq!(written, Some(true));
}

#[test]
fn bundles_are_kept_in_the_object_store() {
    let world = World::start();
    let Some(mut nats) = seeded(&world, &["ns1", "ns2"]) else { return };
    let [one, two] = started(&nats, ["ns1", "ns2"]);
    let new = file(&nats, "early.json", &pinned(&world, &"ab".repeat(32)));
    let refused = failing(&nats, &["rules", "publish", &new, "--reason", "too early", "--no-impact"]);
    assert!(refused.contains("has no version") && refused.contains("bailiwick bundle push"), "{refused}");
    let listed = fine(&nats, &["bundle", "list"]);
    assert!(listed.contains("no bundles"), "{listed}");
    let first = push(&nats, &one.setup, "one");
    assert_eq!(push(&nats, &one.setup, "one"), first, "again");
    publish(&nats, &pinned(&world, &first), "prompts");
    for node in [&one, &two] {
        wait::until_true("it is served", || prompt(node) == "one");
    }
    assert!(fine(&nats, &["bundle", "list"]).contains(&first));
    assert!(fine(&nats, &["bundle", "show", "prompts"]).starts_with(&format!("prompts {first}\n")));
    let to = nats.path("fetched").display().to_string();
    fine(&nats, &["bundle", "fetch", &format!("prompts@{}", &first[..8]), "--to", &to]);
    assert_eq!(std::fs::read_to_string(nats.path("fetched/chat/system.md")).expect("a file"), "one");
    let token = format!("Bearer {TOKEN}");
    let put = asked(one.api, "PUT", "/v1/bundles/prompts", &[("authorization", &token)], b"x");
    assert!(put.status == 403 && put.text().contains("publisher.toml"), "{}", put.text());
    // A large one, in several chunks, and a node that lost what it had.
    let large = "x".repeat(3 << 20);
    let second = push(&nats, &one.setup, &large);
    publish(&nats, &pinned(&world, &second), "large prompts");
    for node in [&one, &two] {
        wait::until_true("it is served", || prompt(node) == large);
    }
    let setup = two.stop();
    std::fs::remove_dir_all(setup.path("state/bundles")).expect("removed");
    let two = setup.start();
    wait::until_true("it is served", || prompt(&two) == large);
    assert!(nats.consumers() <= 2, "none is made to read a bundle");
    // NATS dies: what is here is served, also by a node that starts.
    (0..3).for_each(|number| nats.stop_server(number));
    let two = two.stop().start();
    assert_eq!((prompt(&one) == large, prompt(&two) == large), (true, true));
}

#[test]
fn nodes_write_no_bundle_and_what_was_damaged_is_not_taken() {
    let world = World::start();
    let Some(nats) = seeded(&world, &["ns1"]) else { return };
    let [node] = started(&nats, ["ns1"]);
    let first = push(&nats, &node.setup, "one");
    publish(&nats, &pinned(&world, &first), "prompts");
    wait::until_true("it is served", || prompt(&node) == "one");
    let second = push(&nats, &node.setup, "two");
    let write = |user: &str, subject: &'static str| {
        let written = nats.run_as(user, async move |client: Client| {
            let mut jetstream = jetstream::new(client);
            jetstream.set_timeout(std::time::Duration::from_secs(1));
            let sent = jetstream.publish_with_headers(subject, HeaderMap::new(), "x".into()).await;
            sent.expect("sent").await.is_ok()
        });
        written.expect("the user may connect")
    };
    assert!(!write("ns1", "$O.bw_bundles.M.x") && !write("ns1", "$O.bw_bundles.C.x"));
    // The thief of the publisher's key puts other content there.
    overwrite(&nats, &format!("prompts/{second}"), b"other content");
    publish(&nats, &pinned(&world, &second), "the second");
    node.tells("is pinned, and isn't on this node");
    assert_eq!(prompt(&node), "one", "the last good one stays");
    assert!(node.log().contains("no pack of a bundle"), "{}", node.log());
    // Pushed again it is put right.
    assert_eq!(push(&nats, &node.setup, "two"), second);
    wait::until_true("it is served", || prompt(&node) == "two");
}
