//! Many nodes with one rules document, in mode `peers`: what is published on the writer is served by all, and nothing
//! that a peer does takes rules out of service.

pub(crate) mod driver;
mod liar;
pub(crate) mod nodes;
mod operations;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bailiwick_tests::dns::question;
use bailiwick_tests::geo::GERMAN;
use bailiwick_tests::link::Link;
use bailiwick_tests::node::{Node, Setup, TOKEN, bailiwick};
use bailiwick_tests::wait;
use serde_json::{Value, json};

use crate::fixture::{World, ZONE};
use liar::Liar;
use nodes::{failing, fine, fleet, follower, metric, publish, told, url, writer_of};

/// Rules that answer Germans with this address.
pub(crate) fn rules(world: &World, revision: u64, address: &str) -> Value {
    let mut rules = world.rules(revision);
    rules["regions"]["eu-frankfurt"]["answers"]["A"] = json!([address]);
    rules
}

pub(crate) fn german(node: &Node) -> Vec<String> {
    question("chat.ai.example.com", "A").from(GERMAN).ask(node.dns).data()
}

pub(crate) fn serves(node: &Node, address: &str) {
    wait::until_true(&format!("{address} is served"), || german(node) == [address]);
}

/// The writer of a fleet, with revision 1.
fn writer(world: &World, more: &str) -> Node {
    writer_of(&rules(world, 1, "192.0.2.1"), more)
}

#[test]
fn what_is_published_is_served_by_all_and_outlives_everybody_else() {
    let world = World::start();
    let first = writer(&world, "");
    let second = follower(&[url(&first)], "").start();
    // It reaches the writer by the second only.
    let third = follower(&[url(&second)], "").start();
    assert_eq!([german(&second), german(&third)], [["192.0.2.1"], ["192.0.2.1"]], "they began with the writer's");

    let said = publish(&first, &rules(&world, 1, "192.0.2.2"), "more room", &[]);
    assert_eq!(said, "revision 2 is published and in service on the writer\n");
    for node in [&first, &second, &third] {
        serves(node, "192.0.2.2");
    }
    wait::until_true("the last node knows who published", || fleet(&third)["head"]["reason"] == "more room");
    wait::until_true("it keeps a history", || fine(&third, &["rules", "history"]).contains("ann: more room"));
    wait::until_true("the second sees all well", || told(&second, &["fleet", "status"]).status.success());
    assert_eq!(metric(&second, "bailiwick_fleet_connected "), "1");

    drop(first.process);
    wait::until_true("the loss is seen", || metric(&second, "bailiwick_fleet_connected ") == "0");
    wait::until_true("the lag grows", || metric(&second, "bailiwick_fleet_lag_seconds ") != "0");
    let status = told(&second, &["fleet", "status"]);
    let text = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(!status.status.success() && text.contains("no peer answers; it serves the last good rules"), "{text}");
    assert!(!text.contains(TOKEN));
    assert_eq!(german(&second), ["192.0.2.2"]);
    let second = second.stop().start();
    assert_eq!(german(&second), ["192.0.2.2"], "with all peers dead at the start");
    assert_eq!(fleet(&second)["head"]["author"], "ann", "who published outlives a restart");
    drop(third);
}

#[test]
fn a_configuration_is_tried_out_against_its_peers() {
    let world = World::start();
    let first = writer(&world, "");
    let setup = follower(&[url(&first), "http://127.0.0.1:1".to_owned()], "");
    let check = || {
        let output = bailiwick(["fleet", "check", "--config", &setup.path("bailiwick.toml").display().to_string()]);
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (is_well, said) = check();
    assert!(!is_well && said.contains("! http://127.0.0.1:1: "), "{said}");
    assert!(said.contains("answers, mode peers, stage rest, revision 1\n"), "{said}");
    let config = std::fs::read_to_string(setup.path("bailiwick.toml")).unwrap();
    setup.write("bailiwick.toml", &config.replace(", \"http://127.0.0.1:1\"", ""));
    let (is_well, said) = check();
    assert!(is_well && !said.contains('!'), "{said}");
    let alone = format!("rules = \"rules.json\"\n{}", config.split("[fleet]").next().unwrap());
    setup.write("bailiwick.toml", &alone);
    assert!(check().1.contains("is in no fleet"), "{}", check().1);
}

#[test]
fn a_node_without_rules_and_peers_says_so() {
    let setup = follower(&["http://127.0.0.1:1".to_owned()], "");
    let ended = setup.start_in_vain();
    let errors = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(errors.contains("this node has no rules yet, and no peer gave any"), "{errors}");
    assert!(errors.contains("http://127.0.0.1:1: "), "{errors}");
}

#[test]
fn who_publishes_on_an_old_base_is_told_what_came_between() {
    let world = World::start();
    let node = writer(&world, "");
    publish(&node, &rules(&world, 1, "192.0.2.2"), "by Ann", &[]);
    let file = node.setup.path("new.json").display().to_string();
    let stale = failing(&node, &["rules", "publish", &file, "--reason", "by Bob", "--based-on", "1"]);
    assert!(stale.contains("based on revision 1, and revision 2 is in service"), "{stale}");
    assert!(stale.contains("ann: by Ann"), "{stale}");
    assert_eq!(german(&node), ["192.0.2.2"]);

    let said = publish(&node, &rules(&world, 9, "192.0.2.9"), "a number of its own", &["--based-on", "2"]);
    assert!(said.starts_with("revision 9 is published"), "{said}");
    wait::until_true("all three are kept", || fine(&node, &["rules", "history"]).lines().count() == 3);
    let back = fine(&node, &["rules", "rollback", "2", "--reason", "9 was wrong"]);
    assert!(back.starts_with("revision 10 is published"), "{back}");
    assert_eq!(german(&node), ["192.0.2.2"]);
    let shown = |revision: &str| fine(&node, &["rules", "show", revision]);
    wait::until_true("it is kept", || fine(&node, &["rules", "history"]).contains("9 was wrong"));
    assert_eq!(shown("10"), shown("2").replace("\"revision\":2", "\"revision\":10"), "byte for byte");
    let folder = node.setup.path("archive").display().to_string();
    assert!(fine(&node, &["rules", "archive", "--to", &folder]).starts_with("4 revisions"));
    assert_eq!(std::fs::read_to_string(node.setup.path("archive/9.json")).unwrap(), shown("9"));
    assert!(failing(&node, &["rules", "show", "7"]).contains("revision 7 isn't in this node's history"));
}

#[test]
fn the_writer_takes_whole_valid_documents_on_the_right_base_alone() {
    let world = World::start();
    let node = writer(&world, "");
    let good = rules(&world, 2, "192.0.2.2").to_string();
    let tag = liar::tag(rules(&world, 1, "192.0.2.1").to_string().as_bytes(), 1);
    let put = |token: &str, tag: Option<&str>, body: &str| {
        let matches = tag.map(|tag| format!("if-match: {tag}\r\n")).unwrap_or_default();
        let request = format!(
            "PUT /v1/rules HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n{matches}content-length: {}\r\n\
             connection: close\r\n\r\n{body}",
            body.len()
        );
        sent(&node, request.as_bytes())
    };
    assert_eq!(put(TOKEN, None, &good), 428);
    assert_eq!(put(TOKEN, Some("*"), &good), 428);
    assert_eq!(put(TOKEN, Some("\"1-abc\""), &good), 412);
    assert_eq!(put(TOKEN, Some(&tag), "{"), 422);
    assert_eq!(put(TOKEN, Some(&tag), &good[..good.len() / 2]), 422, "half a document");
    assert_eq!(put(TOKEN, Some(&tag), &rules(&world, 1, "192.0.2.9").to_string()), 409, "not higher");
    // It fits no zone: the apex of a zone can't be steered.
    let unfit = good.replace("\"chat.ai.example.com\"", "\"ns.sub.ai.example.com\"");
    assert_eq!(put(TOKEN, Some(&tag), &unfit), 422, "it doesn't fit the zones");
    let mut cut = TcpStream::connect(node.api).expect("connected");
    let head = format!(
        "PUT /v1/rules HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\nif-match: {tag}\r\n\
         content-length: {}\r\n\r\n{}",
        good.len(),
        &good[..good.len() / 2]
    );
    cut.write_all(head.as_bytes()).expect("sent");
    drop(cut);
    assert_eq!(put(TOKEN, Some(&tag), &" ".repeat((8 << 20) + 1)), 413);
    assert_eq!(german(&node), ["192.0.2.1"], "nothing of all that is served");
    assert_eq!(put(TOKEN, Some(&tag), &good), 200);
    serves(&node, "192.0.2.2");
    for _ in 0..20 {
        assert_eq!(put("wrong", Some(&tag), &good), 401);
    }
    assert_eq!(put("wrong", Some(&tag), &good), 429);
    assert_eq!(put(TOKEN, Some(&tag), &good), 429, "whoever guesses doesn't learn when it was right");
    assert_eq!(node.call("GET", "/v1/rules", None, None).0, 200, "reading goes on");

    let files = Setup::new(&world.rules(1), ZONE).start();
    assert_eq!(files.call("PUT", "/v1/rules", Some(TOKEN), Some(&rules(&world, 2, "192.0.2.2"))).0, 405);
}

/// The status that a node answers to these bytes, after which it closes the connection.
fn sent(node: &Node, bytes: &[u8]) -> u16 {
    let mut stream = TcpStream::connect(node.api).expect("connected");
    stream.write_all(bytes).expect("sent");
    let mut answer = Vec::new();
    // The server may close before it has read all.
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no answer: {answer}"))
}

#[test]
fn a_peer_that_lies_hangs_or_never_ends_changes_nothing() {
    let world = World::start();
    let first = writer(&world, "");
    let liar = Liar::start();
    let node = follower(&[url(&first), liar.url()], "").start();
    publish(&first, &rules(&world, 1, "192.0.2.2"), "the truth", &[]);
    serves(&node, "192.0.2.2");

    let refused = |why: &str| metric(&node, &format!("bailiwick_fleet_refused_total{{why=\"{why}\"}}"));
    let other = rules(&world, 2, "192.0.2.66").to_string();
    liar.answers(&other);
    wait::until_true("other bytes of the same revision are refused", || refused("conflict") == "1");
    liar.answers(&rules(&world, 1, "192.0.2.66").to_string());
    liar.is_asked_again();
    liar.answers("{\"version\": 1, \"revision\": 99, \"colour\": 1}");
    wait::until_true("wrong rules are refused", || refused("rules") == "1");
    (0..4).for_each(|_| liar.is_asked_again());
    assert_eq!(refused("rules"), "1", "what was looked at isn't fetched again");
    assert!(fleet(&node)["last_refusal"]["why"].as_str().unwrap().contains("colour"));
    liar.never_ends();
    wait::until_true("a body without an end is refused", || refused("size") == "1");
    liar.hangs();
    wait::until_true("one that hangs is told", || {
        fleet(&node)["peers"][1]["trouble"].as_str().is_some_and(|trouble| trouble.contains("no whole answer within"))
    });
    assert_eq!(german(&node), ["192.0.2.2"]);
    publish(&first, &rules(&world, 2, "192.0.2.3"), "the next", &[]);
    serves(&node, "192.0.2.3");
    assert_eq!(metric(&node, "bailiwick_fleet_connected "), "1");
}

#[test]
fn rules_need_the_signature_of_a_trusted_publisher() {
    let world = World::start();
    let folder = tempfile::tempdir().unwrap();
    let key = |name: &str| nodes::key(folder.path(), name);
    let ((file, public), (other_file, other)) = (key("publisher.key"), key("other.key"));
    let trust = |key: &str| format!("trusted_publishers = [{key:?}]\n");
    let first = writer(&world, &trust(&public));
    let seeded = |peer: String, more: &str| {
        let setup = follower(&[peer], more);
        setup.write("rules.json", &rules(&world, 1, "192.0.2.1").to_string());
        let config = std::fs::read_to_string(setup.path("bailiwick.toml")).unwrap();
        setup.write("bailiwick.toml", &format!("rules = \"rules.json\"\n{config}"));
        setup.start()
    };
    let (believer, stranger) = (seeded(url(&first), &trust(&public)), seeded(url(&first), &trust(&other)));

    first.setup.write("new.json", &rules(&world, 1, "192.0.2.2").to_string());
    let new = first.setup.path("new.json").display().to_string();
    let refused = failing(&first, &["rules", "publish", &new, "--reason", "unsigned"]);
    assert!(refused.contains("it has no signature"), "{refused}");
    let refused = failing(&first, &["rules", "publish", &new, "--reason", "a stranger", "--key", &other_file]);
    assert!(refused.contains("none of this node's trusted_publishers"), "{refused}");
    fine(&first, &["rules", "publish", &new, "--reason", "signed", "--key", &file]);
    serves(&believer, "192.0.2.2");
    wait::until_true("it is kept", || fine(&first, &["rules", "history"]).contains("signed"));
    let folder = first.setup.path("archive");
    fine(&first, &["rules", "archive", "--to", &folder.display().to_string()]);
    let head = |folder: &str| std::fs::read_to_string(first.setup.path(folder).join("2.head.json")).expect("a head");
    assert_eq!(head("archive"), head("state/history"), "an archive has heads as they were signed");
    wait::until_true("who trusts another key refuses", || {
        metric(&stranger, "bailiwick_fleet_refused_total{why=\"signature\"}") == "1"
    });
    assert_eq!(german(&stranger), ["192.0.2.1"]);
    let text = String::from_utf8_lossy(&told(&stranger, &["fleet", "status"]).stdout).into_owned();
    assert!(text.contains("which is none of this node's trusted_publishers"), "{text}");

    // A peer that has a document before it knows its head is asked for it again, and what it lacked is told once.
    let mut answer = ureq::get(format!("{}/v1/rules", url(&first))).call().expect("an answer");
    let head = answer.headers()["x-bailiwick-head"].to_str().expect("text").to_owned();
    let document = answer.body_mut().read_to_string().expect("a body");
    let liar = Liar::start();
    liar.answers(&document);
    let late = seeded(liar.url(), &trust(&public));
    let refusals = || metric(&late, "bailiwick_fleet_refused_total{why=\"signature\"}");
    wait::until_true("it is refused", || refusals() == "1");
    liar.is_asked_again();
    assert_eq!((refusals().as_str(), german(&late)), ("1", vec!["192.0.2.1".to_owned()]));
    liar.answers_with(&document, &format!("x-bailiwick-head: {head}\r\n"));
    serves(&late, "192.0.2.2");
    let well = fleet(&late);
    assert!(well["last_refusal"].is_null(), "what is past needs no look: {well}");
}

#[test]
fn a_revision_spreads_over_slow_links_and_catches_up_after_a_cut() {
    let world = World::start();
    let first = writer(&world, "");
    let links = [Link::to(first.api), Link::to(first.api)];
    links.iter().for_each(|link| link.round_trip(Duration::from_millis(80)));
    let nodes = links.each_ref().map(|link| follower(&[format!("http://{}", link.address())], "").start());
    let begun = Instant::now();
    publish(&first, &rules(&world, 1, "192.0.2.2"), "over slow links", &[]);
    nodes.iter().for_each(|node| serves(node, "192.0.2.2"));
    println!("published and served by all at a round trip of 80 ms after {} ms", begun.elapsed().as_millis());

    links[1].cut();
    publish(&first, &rules(&world, 1, "192.0.2.3"), "while one is cut off", &[]);
    serves(&nodes[0], "192.0.2.3");
    assert_eq!(german(&nodes[1]), ["192.0.2.2"], "it serves on");
    links[1].heal();
    let healed = Instant::now();
    serves(&nodes[1], "192.0.2.3");
    println!("caught up {} ms after the link was healed", healed.elapsed().as_millis());
}
