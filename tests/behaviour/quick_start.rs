//! `docs/quick-start.md` as printed: each shape's `sh` blocks are run one after the other, in a network of their own.

use std::path::Path;
use std::process::{Command, Stdio};

use bailiwick_tests::geo::root;
use bailiwick_tests::namespace::Namespace;
use bailiwick_tests::node::binary;
use bailiwick_tests::process::Process;
use bailiwick_tests::wait;

/// The `sh` blocks below a heading, each as text.
fn blocks(page: &str, heading: &str) -> Vec<String> {
    let section = page.split("\n## ").find(|section| section.starts_with(heading)).expect("the heading");
    let mut blocks = Vec::new();
    for block in section.split("\n```sh\n").skip(1) {
        blocks.push(block.split("\n```").next().expect("an end").to_owned());
    }
    blocks
}

/// A shell inside the namespace that finds this build's `bailiwick`.
fn shell(namespace: &Namespace, folder: &Path, script: &str) -> Command {
    let found =
        format!("{}:{}", binary().parent().expect("a folder").display(), std::env::var("PATH").unwrap_or_default());
    let mut command = namespace.command("bash");
    command.args(["-euo", "pipefail", "-c", script]).current_dir(folder).env("PATH", found).stdin(Stdio::null());
    command
}

fn run(namespace: &Namespace, folder: &Path, script: &str) -> String {
    let output = shell(namespace, folder, script).output().expect("bash runs");
    let reported = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{script}\n{reported}{}", String::from_utf8_lossy(&output.stderr));
    reported
}

/// What the three blocks of a shape print: what is written and checked, and what is asked of the server.
fn follow(heading: &str) -> Option<(String, String)> {
    let Some(namespace) = Namespace::new() else {
        println!("skipped: this machine allows no namespaces");
        return None;
    };
    let page = std::fs::read_to_string(root().join("docs/quick-start.md")).expect("the page");
    let [first, serve, then] = <[String; 3]>::try_from(blocks(&page, heading)).expect("three blocks");
    let folder = tempfile::tempdir().expect("a folder");
    let written = run(&namespace, folder.path(), &first);
    let inside = folder.path().join("myzone");
    let mut server = shell(&namespace, &inside, &format!("exec {serve}"));
    let mut server = Process::start(server.stdout(Stdio::null()).stderr(Stdio::null()));
    wait::until_true("the server answers", || {
        assert!(server.ended().is_none(), "the server ended");
        shell(&namespace, &inside, "bailiwick overrides").output().is_ok_and(|output| output.status.success())
    });
    let reported = run(&namespace, &inside, &then);
    drop(server);
    Some((written, reported))
}

#[test]
fn dns_alone_as_printed() {
    let Some((written, reported)) = follow("DNS alone") else { return };
    assert!(written.contains("no errors, no warnings") && written.contains("nobody enforces residency"), "{written}");
    let answers: Vec<&str> = reported.lines().filter(|line| line.starts_with("192.0.2.")).collect();
    assert_eq!(answers, ["192.0.2.10", "192.0.2.20", "192.0.2.10"], "{reported}");
}

#[test]
fn gateways_as_printed() {
    let Some((written, reported)) = follow("Gateways of your own") else { return };
    assert!(written.contains("gateway.env"), "{written}");
    assert!(reported.starts_with("192.0.2.10\n") && reported.contains("\"services\""), "{reported}");
}

#[test]
fn a_worker_on_cloudflare_as_printed() {
    let Some((written, reported)) = follow("A Worker on Cloudflare") else { return };
    assert!(written.contains("worker.secrets.json"), "{written}");
    assert!(
        reported.starts_with("eu-frankfurt.edge.example.net.\n") && reported.contains("rules_sha256"),
        "{reported}"
    );
    assert!(!reported.contains("192.0.2."), "no address of a region is told: {reported}");
}
