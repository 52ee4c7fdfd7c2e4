//! The clients of `deploy/bundles`, in Python and in TypeScript, against the real program.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bailiwick_tests::geo::root;
use bailiwick_tests::node::Node;
use bailiwick_tests::process::Process;
use bailiwick_tests::wait;
use serde_json::{Value, json};

use super::{LONDON, node, pin, push, serves};
use crate::fixture::World;

/// A client as a program, and what it has printed.
pub(super) struct Client {
    process: Process,
    output: PathBuf,
}

impl Client {
    pub(super) fn start(program: &Path, file: &str, node: &Node) -> Self {
        let output = node.setup.path(&format!("{file}.out"));
        let printed = std::fs::File::create(&output).expect("a file");
        let mut command = Command::new(program);
        command.arg(root().join("deploy/bundles").join(file)).arg(format!("http://{}", node.api)).arg("prompts");
        command.arg(node.setup.path("london.token")).env("PYTHONDONTWRITEBYTECODE", "1");
        command.stdout(printed).stderr(Stdio::inherit());
        Self { process: Process::start(&mut command), output }
    }

    /// Waits until this is the version that it got last; its files.
    fn has(&mut self, version: &str) -> Value {
        self.shows(&format!("the client has {version}"), |last| last["version"] == version)["files"].clone()
    }

    /// Waits until what it printed last is such.
    pub(super) fn shows(&mut self, what: &str, is_such: impl Fn(&Value) -> bool) -> Value {
        wait::until(what, || {
            assert!(self.process.ended().is_none(), "the client has ended");
            let printed = std::fs::read_to_string(&self.output).ok()?;
            let last: Value = serde_json::from_str(printed.lines().last()?).ok()?;
            is_such(&last).then_some(last)
        })
    }
}

/// The programs that run the clients, with their files.
pub(super) fn clients() -> [(PathBuf, &'static str); 2] {
    [("python3".into(), "bundles.py"), (root().join("node_modules/.bin/node"), "bundles.ts")]
}

fn follows(program: &Path, file: &str) {
    let world = World::start();
    let node = node(&world);
    let (one, two) = (push(&node, "Sei freundlich.\n"), push(&node, "Be brief."));
    pin(&node, &world, 2, &json!({ "prompts": { "version": two, "regions": { "uk-london": one } } }));
    wait::until_true("it is served", || serves(&node, "?region=uk-london") == one);
    assert_eq!(std::fs::read_to_string(node.setup.path("london.token")).expect("a token"), LONDON);
    let mut client = Client::start(program, file, &node);
    assert_eq!(client.has(&one), json!({ "chat/system.md": "Sei freundlich.\n", "tools.json": "{}" }));
    pin(&node, &world, 3, &json!({ "prompts": { "version": two } }));
    assert_eq!(client.has(&two)["chat/system.md"], "Be brief.");
    // While a version can't be had, it goes on with what it has.
    pin(&node, &world, 4, &json!({ "prompts": { "version": "ab".repeat(32) } }));
    node.tells("is pinned, and isn't on this node");
    pin(&node, &world, 5, &json!({ "prompts": { "version": one } }));
    assert_eq!(client.has(&one)["tools.json"], "{}");
    let printed = std::fs::read_to_string(&client.output).expect("output");
    assert_eq!(printed.lines().count(), 3, "{printed}");
}

#[test]
fn the_client_in_python_follows_its_region() {
    follows(Path::new("python3"), "bundles.py");
}

#[test]
fn the_client_in_typescript_follows_its_region() {
    follows(&root().join("node_modules/.bin/node"), "bundles.ts");
}
