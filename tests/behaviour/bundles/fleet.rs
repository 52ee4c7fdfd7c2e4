//! Bundles in a fleet of peers: a node that lacks a pinned version gets it from another, and lies are found out.

use std::io::{Read, Write};
use std::net::TcpListener;

use bailiwick_tests::node::Node;
use bailiwick_tests::wait;
use serde_json::{Value, json};

use super::{get, push, serves};
use crate::fixture::World;
use crate::fleet::nodes::{failing, fine, follower, publish, url, writer_of};

/// Rules with a pin of the system prompts.
fn pinned(world: &World, version: &str) -> Value {
    let mut rules = world.rules(1);
    rules["bundles"] = json!({ "prompts": { "version": version } });
    rules
}

fn prompt(node: &Node) -> String {
    let answer = get(node, "/v1/bundles/prompts/chat/system.md");
    if answer.status == 200 { answer.text() } else { String::new() }
}

#[test]
fn a_node_that_lacks_a_pinned_version_asks_its_peers() {
    let world = World::start();
    let writer = writer_of(&world.rules(1), "");
    let second = follower(&[url(&writer)], "").start();
    let third = follower(&[url(&second)], "").start();
    let missing = "ab".repeat(32);
    writer.setup.write("new.json", &pinned(&world, &missing).to_string());
    let file = writer.setup.path("new.json").display().to_string();
    let refused = failing(&writer, &["rules", "publish", &file, "--reason", "too early", "--no-impact"]);
    assert!(refused.contains("/bundles/prompts/version: pins version"), "{refused}");
    assert!(refused.contains("bailiwick bundle push FOLDER --name prompts"), "{refused}");
    assert!(writer.get("/v1/rules").contains("\"revision\":1,") || !writer.get("/v1/rules").contains("bundles"));
    let one = push(&writer, "one");
    let said = publish(&writer, &pinned(&world, &one), "the first prompts", &[]);
    assert!(said.contains(&format!("Bundle prompts: none → {}.", &one[..12])), "{said}");
    for node in [&writer, &second, &third] {
        wait::until_true("it is served", || prompt(node) == "one");
        assert_eq!(serves(node, ""), one);
    }
    // A node that comes later, and one that lost what it had.
    let fourth = follower(&[url(&third)], "").start();
    wait::until_true("it is served", || prompt(&fourth) == "one");
    let setup = fourth.stop();
    std::fs::remove_dir_all(setup.path("state/bundles")).expect("removed");
    let fourth = setup.start();
    wait::until_true("it is served", || prompt(&fourth) == "one");
    // A damaged version is fetched again by itself.
    let kept = second.setup.path(&format!("state/bundles/prompts/{one}"));
    let mut bytes = std::fs::read(&kept).expect("a pack");
    *bytes.last_mut().expect("bytes") ^= 1;
    std::fs::write(&kept, &bytes).expect("written");
    assert_eq!(get(&second, "/v1/bundles/prompts/tools.json").status, 503);
    wait::until_true("it is back", || get(&second, "/v1/bundles/prompts/tools.json").text() == "{}");
    // A version that is at a follower only may be pinned, too.
    let two = push(&second, "two");
    let writer = {
        let setup = writer.stop();
        let config = std::fs::read_to_string(setup.path("bailiwick.toml")).expect("a configuration");
        setup.write(
            "bailiwick.toml",
            &config.replace("writer = true", &format!("writer = true\npeers = [{:?}]", url(&second))),
        );
        setup.start()
    };
    publish(&writer, &pinned(&world, &two), "the second", &[]);
    wait::until_true("it is served", || prompt(&writer) == "two");
}

/// A peer that answers every question with these bytes.
fn liar(body: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 4_096]);
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(&[head.as_bytes(), &body].concat());
        }
    });
    format!("http://{address}")
}

/// A peer that never answers requests with this in their path, and has nothing else.
fn hanging(path: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut begin = [0; 4_096];
            let read = stream.read(&mut begin).unwrap_or_default();
            if String::from_utf8_lossy(&begin[..read]).contains(path) {
                held.push(stream);
            } else {
                let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            }
        }
    });
    format!("http://{address}")
}

#[test]
fn a_peer_that_hangs_delays_no_other_bundle() {
    let world = World::start();
    let honest = writer_of(&world.rules(1), "");
    let one = push(&honest, "one");
    let folder = super::prompts(&honest.setup, "one").display().to_string();
    fine(&honest, &["bundle", "push", &folder, "--name", "a-first"]);
    let mut rules = pinned(&world, &one);
    rules["bundles"]["a-first"] = json!({ "version": one });
    publish(&honest, &rules, "two bundles", &[]);
    // The one that hangs is fetched first.
    let node = follower(&[hanging("/v1/bundles/a-first"), url(&honest)], "").start();
    wait::until_true("the other is served", || prompt(&node) == "one");
    assert_eq!(get(&node, "/v1/bundles/a-first").status, 503);
}

#[test]
fn what_a_peer_sends_is_checked_by_its_digest() {
    let world = World::start();
    let honest = writer_of(&world.rules(1), "");
    let (one, two) = (push(&honest, "one"), push(&honest, "two"));
    let pack =
        |version: &str| std::fs::read(honest.setup.path(&format!("state/bundles/prompts/{version}"))).expect("a pack");
    let cut = pack(&one)[..pack(&one).len() - 1].to_vec();
    let liars = [pack(&two), cut, b"{}".to_vec(), Vec::new()].map(liar);
    publish(&honest, &pinned(&world, &one), "the first", &[]);
    let peers: Vec<String> = liars.iter().cloned().chain([url(&honest)]).collect();
    let node = follower(&peers, "").start();
    wait::until_true("the honest peer's is served", || prompt(&node) == "one");
    // Where only liars answer, nothing is served.
    let alone = {
        let setup = node.stop();
        std::fs::remove_dir_all(setup.path("state/bundles")).expect("removed");
        let config = std::fs::read_to_string(setup.path("bailiwick.toml")).expect("a configuration");
        setup.write("bailiwick.toml", &config.replace(&format!("{peers:?}"), &format!("{liars:?}")));
        setup.start()
    };
    alone.tells("which wasn't asked for");
    let answer = get(&alone, "/v1/bundles/prompts");
    assert!(answer.status == 503 && answer.text().contains("isn't on this node yet"), "{}", answer.text());
    assert_eq!(get(&alone, "/v1/bundles").json()["bundles"]["prompts"]["versions"], json!([]));
}
