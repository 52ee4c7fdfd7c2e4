//! Nodes of a fleet, and commands against them.

use std::path::Path;
use std::process::Output;

use bailiwick_tests::node::{Node, Setup, bailiwick};
use serde_json::{Value, json};

use crate::fixture::ZONE;

/// The writer of a fleet, which begins with these rules.
pub(crate) fn writer_of(rules: &Value, more: &str) -> Node {
    Setup::new(rules, ZONE).with(&format!("[fleet]\nmode = \"peers\"\nwriter = true\n{more}")).start()
}

/// A node that follows peers and begins without rules of its own.
pub(crate) fn follower(peers: &[String], more: &str) -> Setup {
    let setup = Setup::new(&json!({}), ZONE);
    let config = std::fs::read_to_string(setup.path("bailiwick.toml")).unwrap();
    setup.write("bailiwick.toml", &config.replace("rules = \"rules.json\"\n", ""));
    setup.with(&format!("[fleet]\nmode = \"peers\"\npeers = {peers:?}\npoll = \"200ms\"\n{more}"))
}

/// A new publisher's key in a folder: its file, and its public half.
pub(crate) fn key(folder: &Path, name: &str) -> (String, String) {
    let file = folder.join(name).display().to_string();
    let made = bailiwick(["fleet", "keygen", file.as_str()]);
    assert!(made.status.success(), "{made:?}");
    (file, String::from_utf8_lossy(&made.stdout).trim().to_owned())
}

pub(crate) fn url(node: &Node) -> String {
    format!("http://{}", node.api)
}

/// Runs a command against a node.
pub(crate) fn told(node: &Node, words: &[&str]) -> Output {
    let (api, token) = (url(node), node.setup.path("api.token").display().to_string());
    let more = ["--api", api.as_str(), "--token-file", token.as_str()];
    bailiwick(words.iter().copied().chain(more))
}

/// [`told`] where it succeeds; its output.
#[track_caller]
pub(crate) fn fine(node: &Node, words: &[&str]) -> String {
    let output = told(node, words);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {errors}\nThe node's log:\n{}", node.log());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// [`told`] where it fails; its errors.
#[track_caller]
pub(crate) fn failing(node: &Node, words: &[&str]) -> String {
    let output = told(node, words);
    assert!(!output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
pub(crate) fn publish(node: &Node, rules: &Value, reason: &str, more: &[&str]) -> String {
    node.setup.write("new.json", &rules.to_string());
    let file = node.setup.path("new.json").display().to_string();
    fine(node, &[&["rules", "publish", file.as_str(), "--reason", reason, "--author", "ann"], more].concat())
}

pub(crate) fn fleet(node: &Node) -> Value {
    serde_json::from_str(&node.get("/v1/fleet")).expect("JSON")
}

pub(crate) fn metric(node: &Node, name: &str) -> String {
    let metrics = node.get("/metrics");
    let line = metrics.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}: {metrics}"));
    line.rsplit(' ').next().unwrap_or_default().to_owned()
}
