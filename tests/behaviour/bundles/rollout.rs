//! A rollout of a bundle with the real program, from its first step to its end and back: what nodes tell, what the
//! clients of `deploy/bundles` make of it, and what may not be published meanwhile.

use std::path::Path;
use std::process::Command;
use std::thread::JoinHandle;

use bailiwick_rules::bundle::Digest;
use bailiwick_tests::geo::root;
use bailiwick_tests::node::{Node, Setup};
use bailiwick_tests::wait;
use serde_json::{Value, json};

use super::clients::{Client, clients};
use super::{Answer, LONDON, asked, get, push};
use crate::fixture::{World, ZONE};
use crate::fleet::nodes::{fine, follower, publish, url};
use crate::rollouts::{self, Fixture};

/// The rollout.
const NAME: &str = "prompts-2";
/// The manifest as an application in London gets it.
const OF_LONDON: &str = "/v1/bundles/prompts?region=uk-london";

/// Rules that pin a version, and roll another one out.
fn rules(world: &World, pinned: &str, to: &str) -> Value {
    let mut rules = world.rules(1);
    rules["bundles"] = json!({ "prompts": { "version": pinned } });
    rules["rollouts"] = json!({ NAME: {
        "service": "chat", "bundle": "prompts", "to": to, "regions": ["uk-london", "eu-frankfurt"],
        "steps": [10, 50], "hold": "1s", "bake": "1s", "warm_up": "0s", "min_samples": 50, "max_hold": "1h",
        "checks": { "error_rate": { "max_diff": 0.2, "critical": true } },
    } });
    rules
}

/// A writer with a token for applications in London.
fn writer(world: &World) -> Node {
    let setup = Setup::new(&world.rules(1), ZONE);
    setup.write("london.token", LONDON);
    setup
        .with("region_token_files = { uk-london = [\"london.token\"] }\n[fleet]\nmode = \"peers\"\nwriter = true\n")
        .start()
}

/// Waits for another manifest than this one, with a request of an application that has it.
fn waiting(node: &Node, known: &Answer) -> JoinHandle<Answer> {
    let (api, tag) = (node.api, known.header("etag").to_owned());
    assert!(!tag.is_empty());
    let path = format!("{OF_LONDON}&wait=60s");
    std::thread::spawn(move || asked(api, "GET", &path, &[("if-none-match", &tag)], b""))
}

/// What the manifest says of versions, and that it fits its tag.
fn told(answer: &Answer) -> (String, Value) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let manifest = answer.json();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let (version, rollout) = (text(&manifest["version"]), manifest["rollout"].clone());
    let tag = match &rollout {
        Value::Null => format!("\"{version}\""),
        new => {
            let [name, to, region] = ["name", "version", "region"].map(|key| text(&new[key]));
            format!("\"{version}/{name}/{to}/{}/{region}\"", new["share"])
        }
    };
    assert_eq!(answer.header("etag"), tag);
    (version, rollout)
}

/// A rollout of a bundle at a node, with all who follow it.
struct Scene {
    fixture: Fixture,
    /// A peer.
    second: Node,
    /// The clients of both languages, with a token of London.
    running: [Client; 2],
    /// The version that is pinned.
    one: String,
    /// The new one.
    two: String,
    /// The manifest before the rollout.
    before: Answer,
    /// Rules without the rollout.
    plain: Value,
}

impl Scene {
    /// Publishes the rollout, which doesn't begin.
    fn new(world: &World) -> Self {
        let node = writer(world);
        let second = follower(&[url(&node)], "").start();
        let one = push(&node, "one");
        let refused = rollouts::publish(&node, &rules(world, &one, &"ab".repeat(32)));
        assert!(refused.contains("/rollouts/prompts-2/to: rolls out version"), "{refused}");
        let mut plain = world.rules(1);
        plain["bundles"] = json!({ "prompts": { "version": one } });
        publish(&node, &plain, "the first prompts", &[]);
        wait::until_true("it is served", || get(&node, OF_LONDON).status == 200);
        let before = get(&node, OF_LONDON);
        let two = push(&node, "two");
        publish(&node, &rules(world, &one, &two), "a rollout", &[]);
        wait::until_true("a peer has it before anybody gets it", || {
            let listed = get(&second, "/v1/bundles").json()["bundles"]["prompts"].clone();
            listed["rollout"]["version"] == two && listed["versions"].to_string().contains(&two)
        });
        wait::until_true("it is in service", || node.get("/v1/rules").contains(NAME));
        let fixture = Fixture::at_a_writer(node, NAME);
        let mut running = clients().map(|(program, file)| Client::start(&program, file, &fixture.node));
        running.iter_mut().for_each(|client| drop(client.shows("the first version", |last| last["version"] == one)));
        Self { fixture, second, running, one, two, before, plain }
    }

    fn node(&self) -> &Node {
        &self.fixture.node
    }

    fn of(&self, path: &str) -> (String, Value) {
        told(&get(self.node(), path))
    }

    /// What the manifest says while a share of the sessions gets the new version.
    fn at(&self, region: &str, share: u8) -> (String, Value) {
        (self.one.clone(), json!({ "name": NAME, "version": self.two, "share": share, "region": region }))
    }

    /// London gets what it got before the rollout, byte for byte.
    fn is_unchanged(&self) -> Answer {
        let now = get(self.node(), OF_LONDON);
        assert_eq!((now.text(), now.header("etag")), (self.before.text(), self.before.header("etag")));
        now
    }

    /// The first step. Others are left alone, and who asks for one version gets that.
    fn begins(&self) -> Answer {
        let wakes = waiting(self.node(), &self.is_unchanged());
        self.fixture.fine(&["start"]);
        let at_10 = wakes.join().expect("an answer");
        assert_eq!(told(&at_10), self.at("uk-london", 10));
        for path in ["/v1/bundles/prompts", "/v1/bundles/prompts?region=eu-frankfurt", &of_version(&self.one)] {
            assert_eq!(self.of(path), (self.one.clone(), Value::Null), "{path}");
        }
        assert_eq!(self.of(&of_version(&self.two)), (self.two.clone(), Value::Null));
        let content =
            |version| get(self.node(), &format!("/v1/bundles/prompts/chat/system.md?version={version}")).text();
        assert_eq!([content(&self.one), content(&self.two)], ["one", "two"]);
        let listed = fine(self.node(), &["bundle", "list"]);
        assert!(listed.contains("rollout prompts-2, 10 % of uk-london"), "{listed}");
        let mut other = self.fixture.rules();
        let regions = json!({ "eu-frankfurt": push(self.node(), "three") });
        other["bundles"]["prompts"] = json!({ "version": self.one, "regions": regions });
        let refused = rollouts::publish(self.node(), &other);
        assert!(refused.contains("changes what it replaces or where"), "{refused}");
        at_10
    }

    /// Half of London's sessions have the new version.
    fn goes_half(&mut self, known: &Answer) -> Answer {
        let wakes = waiting(self.node(), known);
        self.fixture.goes_on("uk-london", &json!({ "uk-london": 50 }));
        let at_50 = wakes.join().expect("an answer");
        assert_eq!(told(&at_50), self.at("uk-london", 50));
        for client in &mut self.running {
            let last = client.shows("half of the sessions", |last| last["rollout"]["share"] == 50);
            assert_eq!([&last["version"], &last["rollout"]["version"]], [&json!(self.one), &json!(self.two)]);
            let prompts = [&last["files"]["chat/system.md"], &last["rollout"]["files"]["chat/system.md"]];
            assert_eq!(prompts, [&json!("one"), &json!("two")]);
        }
        at_50
    }

    /// London has the new version as if it were pinned, and Frankfurt follows until all have it.
    fn ends(&mut self, known: &Answer) {
        let wakes = waiting(self.node(), known);
        self.fixture.goes_on("uk-london", &json!({ "uk-london": 100, "eu-frankfurt": 10 }));
        assert_eq!(told(&wakes.join().expect("an answer")), (self.two.clone(), Value::Null));
        assert_eq!(self.of("/v1/bundles/prompts?region=eu-frankfurt"), self.at("eu-frankfurt", 10));
        let shown = fine(self.node(), &["bundle", "show", "prompts", "--region", "uk-london"]);
        assert!(shown.starts_with(&format!("prompts {}\n", self.two)), "{shown}");
        self.fixture.goes_on("eu-frankfurt", &json!({ "uk-london": 100, "eu-frankfurt": 50 }));
        self.fixture.goes_on("eu-frankfurt", &json!({ "uk-london": 100, "eu-frankfurt": 100 }));
        assert_eq!(self.fixture.rules()["rollouts"][NAME]["progress"]["ended"], "done");
        wait::until_true("a peer serves it", || {
            get(&self.second, "/v1/bundles/prompts?region=eu-frankfurt").json()["version"] == self.two
        });
        for client in &mut self.running {
            let last = client.shows("the second version", |last| last["version"] == self.two);
            assert_eq!((&last["files"]["chat/system.md"], &last["rollout"]), (&json!("two"), &Value::Null));
        }
    }

    /// Once more from the begin. It fails, and everybody has the first version again.
    fn is_rolled_back(&mut self) {
        self.fixture.fine(&["start"]);
        self.fixture.goes_on("uk-london", &json!({ "uk-london": 50 }));
        let again = get(self.node(), OF_LONDON);
        assert_eq!(told(&again), self.at("uk-london", 50));
        let wakes = waiting(self.node(), &again);
        self.fixture.observe("uk-london", 300, 200);
        let said = self.fixture.fine(&["run", "--once"]);
        assert!(said.contains("rolled back: uk-london: error_rate is "), "{said}");
        assert_eq!(told(&wakes.join().expect("an answer")), (self.one.clone(), Value::Null));
        self.is_unchanged();
        for client in &mut self.running {
            let is_back = |last: &Value| last["version"] == self.one && last["rollout"].is_null();
            assert_eq!(client.shows("the first version again", is_back)["files"]["chat/system.md"], "one");
        }
        // It has ended, so it may be removed.
        publish(self.node(), &self.plain, "given up", &[]);
        wait::until_true("it is gone", || !self.node().get("/v1/rules").contains(NAME));
        self.is_unchanged();
    }
}

#[test]
fn a_bundle_is_rolled_out_step_by_step_and_back() {
    let world = World::start();
    let mut scene = Scene::new(&world);
    let at_10 = scene.begins();
    let at_50 = scene.goes_half(&at_10);
    sessions_are_alike_in_both_languages(scene.node(), &scene.one, &scene.two);
    scene.ends(&at_50);
    scene.is_rolled_back();
}

fn of_version(version: &str) -> String {
    format!("/v1/bundles/prompts?version={version}")
}

const SHARES: [u8; 6] = [1, 5, 25, 50, 99, 100];

fn session(nth: usize) -> String {
    format!("Größe ☃ {nth}")
}

/// Whether a session has the new version, by another program than the clients.
fn is_new(session: &str, share: u8) -> bool {
    let digest = Digest::of(format!("{NAME}/{session}").as_bytes()).to_string();
    let point = u64::from_str_radix(&digest[..8], 16).expect("hex digits");
    point * 100 < u64::from(share) << 32
}

/// Prints which of 200 sessions have the new version at each share, and what each of them gets; also when no node
/// answers any more.
const PYTHON: &str = r#"
import json, sys
folder, node, token, name, shares = sys.argv[1:]
sys.path.insert(0, folder)
from bundles import Bundle, is_new
sessions = [f"Größe ☃ {nth}" for nth in range(200)]
chosen = {share: [is_new(name, session, share) for session in sessions] for share in json.loads(shares)}
bundle = Bundle([node], "prompts", token)
try:
    bundle.for_session("x")
except LookupError:
    early = "refused"
bundle.refresh()
def told():
    both = [bundle.for_session(session) for session in sessions]
    return [[header, files["chat/system.md"].decode()] for files, header in both]
given = told()
bundle.nodes = ["http://127.0.0.1:1"]
try:
    bundle.refresh()
except ConnectionError:
    print(json.dumps({"early": early, "chosen": chosen, "given": given, "alone": told()}))
"#;

const TYPESCRIPT: &str = r#"
const [folder, node, token, name, shares] = process.argv.slice(1);
const { Bundle, isNew, text } = await import(`${folder}/bundles.ts`);
const sessions = [...Array(200).keys()].map((nth) => `Größe ☃ ${nth}`);
const of = (share) => Promise.all(sessions.map((session) => isNew(name, session, share)));
const chosen = Object.fromEntries(await Promise.all(JSON.parse(shares).map(async (share) => [share, await of(share)])));
const bundle = new Bundle([node], "prompts", token);
const early = await bundle.forSession("x").catch(() => "refused");
await bundle.refresh();
const told = () => Promise.all(sessions.map(async (session) => {
  const { files, header } = await bundle.forSession(session);
  return [header, text(files, "chat/system.md")];
}));
const given = await told();
bundle.nodes.splice(0, 1, "http://127.0.0.1:1");
const failed = await bundle.refresh().catch(() => "failed");
if (failed === "failed") console.log(JSON.stringify({ early, chosen, given, alone: await told() }));
"#;

/// What a client in one of the languages chooses for sessions at a node.
fn choices(program: &Path, script: &[&str], node: &Node) -> Value {
    let mut command = Command::new(program);
    command.args(script).arg(root().join("deploy/bundles")).args([&format!("http://{}", node.api), LONDON, NAME]);
    command.arg(json!(SHARES).to_string()).env("PYTHONDONTWRITEBYTECODE", "1").env("PYTHONUTF8", "1");
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Both clients give the same sessions the new version, and those that the rule says, while half of them get it.
fn sessions_are_alike_in_both_languages(node: &Node, one: &str, two: &str) {
    let [(python, _), (typescript, _)] = clients();
    let module = ["--input-type=module", "--disable-warning=ExperimentalWarning", "-e", TYPESCRIPT];
    let told = [choices(&python, &["-c", PYTHON], node), choices(&typescript, &module, node)];
    assert_eq!(told[0], told[1]);
    assert_eq!(told[0]["early"], "refused", "before the first version is here");
    for share in SHARES {
        let expected: Vec<bool> = (0..200).map(|nth| is_new(&session(nth), share)).collect();
        assert_eq!(told[0]["chosen"][share.to_string()], json!(expected), "{share} %");
    }
    let news = |share: u8| (0..200).filter(|nth| is_new(&session(*nth), share)).collect::<Vec<_>>();
    assert!(SHARES.windows(2).all(|pair| news(pair[0]).iter().all(|nth| news(pair[1]).contains(nth))));
    assert!((70..130).contains(&news(50).len()) && news(100).len() == 200, "{}", news(50).len());
    let given: Vec<Value> = (0..200)
        .map(|nth| match is_new(&session(nth), 50) {
            true => json!([format!("prompts@{two};region=uk-london"), "two"]),
            false => json!([format!("prompts@{one};region=uk-london"), "one"]),
        })
        .collect();
    assert_eq!([&told[0]["given"], &told[0]["alone"]], [&json!(given), &json!(given)]);
}
