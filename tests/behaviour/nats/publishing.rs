//! Who publishes, and what becomes of it.

use std::process::Stdio;

use bailiwick_tests::node::{TOKEN, binary};
use bailiwick_tests::process::Process;
use bailiwick_tests::wait;
use serde_json::Value;

use super::{World, failing, file, fine, publish, rules, seeded, serves, started};
use crate::fleet::nodes::fleet;

#[test]
fn two_who_publish_at_once_do_not_undo_each_others_work() {
    let world = World::start();
    let Some(nats) = seeded(&world, &["ns1"]) else { return };
    let [node] = started(&nats, ["ns1"]);
    let config = nats.publisher();
    let started: Vec<(Process, std::path::PathBuf)> = [("ann", 2), ("bob", 3), ("eve", 4)]
        .into_iter()
        .map(|(author, number)| {
            let new = file(&nats, &format!("{author}.json"), &rules(&world, 1, &format!("192.0.2.{number}")));
            let log = nats.path(&format!("{author}.log"));
            let mut command = std::process::Command::new(binary());
            command.args(["rules", "publish", &new, "--reason", "at once", "--author", author, "--based-on", "1"]);
            let out = std::fs::File::create(&log).expect("a log");
            command.args(["--config", &config]).stderr(out).stdout(Stdio::null());
            (Process::start(&mut command), log)
        })
        .collect();
    let ended: Vec<(bool, String)> = started
        .into_iter()
        .map(|(mut process, log)| (process.wait().success(), std::fs::read_to_string(log).expect("a log")))
        .collect();
    assert_eq!(ended.iter().filter(|(is_success, _)| *is_success).count(), 1, "{ended:?}");
    for (_, told) in ended.iter().filter(|(is_success, _)| !is_success) {
        assert!(told.contains("based on revision 1, and revision 2 is in service"), "{told}");
        assert!(told.contains(": at once"), "what came between is told: {told}");
    }
    let head: Value = serde_json::from_slice(&nats.read("bw_rules", "head").expect("a head")).expect("JSON");
    assert_eq!(head["revision"], 2);
    wait::until_true("it is served", || fleet(&node)["revision"] == 2);
    assert_eq!(fleet(&node)["head"]["author"], head["author"]);
}

#[test]
fn a_document_larger_than_an_entry_is_published_looked_back_at_and_rolled_back() {
    let world = World::start();
    let Some(nats) = seeded(&world, &["ns1"]) else { return };
    let [node] = started(&nats, ["ns1"]);
    // More than two parts of 900 KiB.
    let large = rules(&world, 1, "192.0.2.2").to_string();
    let text = format!("{large}{}", " ".repeat((2 << 20) - large.len()));
    let new = nats.path("large.json");
    std::fs::write(&new, &text).expect("written");
    fine(&nats, &["rules", "publish", &new.display().to_string(), "--reason", "large"]);
    serves(&node, "192.0.2.2");
    assert_eq!(fine(&nats, &["rules", "show", "2"]), text.replace("\"revision\":1", "\"revision\":2"));
    assert!(fine(&nats, &["rules", "history"]).contains("large"));
    let folder = nats.path("archive").display().to_string();
    assert!(fine(&nats, &["rules", "archive", "--to", &folder]).starts_with("2 revisions"));
    fine(&nats, &["rules", "rollback", "1", "--reason", "too large"]);
    serves(&node, "192.0.2.1");
    assert_eq!(fleet(&node)["revision"], 3);
    let put = node.call("PUT", "/v1/rules", Some(TOKEN), Some(&rules(&world, 9, "192.0.2.9")));
    assert!(put.0 == 403 && put.1.contains("come from NATS"), "{put:?}");
}

#[test]
fn a_publish_that_no_majority_confirms_is_not_said_to_have_failed() {
    let world = World::start();
    let Some(mut nats) = seeded(&world, &["ns1"]) else { return };
    let [node] = started(&nats, ["ns1"]);
    nats.stop_server(0);
    nats.stop_server(1);
    let new = file(&nats, "new.json", &rules(&world, 1, "192.0.2.2"));
    let told = failing(&nats, &["rules", "publish", &new, "--reason", "nobody confirms"]);
    assert!(told.contains("JetStream gives no answer") || told.contains("doesn't confirm it"), "{told}");
    nats.start_server(0);
    nats.start_server(1);
    nats.await_leader();
    publish(&nats, &rules(&world, 1, "192.0.2.3"), "again");
    serves(&node, "192.0.2.3");
}
