//! `bailiwick rollout` with the real program: a rollout that is brought on step by step and is rolled back when the new
//! arm fails, in a fleet and by a file, killed in between.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use bailiwick_tests::chat_stand_in::{Asked, ChatStandIn, Reply};
use bailiwick_tests::node::{Node, Setup, bailiwick, binary};
use bailiwick_tests::process::Process;
use bailiwick_tests::wait;
use serde_json::{Value, json};

use crate::fixture::{World, ZONE};
use crate::fleet::nodes::{failing, url, writer_of};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// Rules with a rollout in two regions that hasn't begun.
pub(crate) fn rules(world: &World) -> Value {
    let mut rules = world.rules(1);
    for region in ["eu-frankfurt", "eu-paris"] {
        rules["regions"][region]["endpoints"] =
            json!({ "e": { "url": "https://e.example/v1", "models": { "large": "bf16" } } });
    }
    rules["rollouts"] = json!({ "fp8": {
        "service": "chat", "model": "large", "from": "bf16", "to": "fp8", "regions": ["eu-frankfurt", "eu-paris"],
        "steps": [10, 50], "hold": "1s", "bake": "2s", "warm_up": "0s", "min_samples": 50, "max_hold": "1h",
        "checks": { "error_rate": { "max_diff": 0.2, "critical": true } },
    } });
    rules
}

/// A node with a rollout, and who runs it.
pub(crate) struct Fixture {
    pub(crate) node: Node,
    /// The rollout.
    name: &'static str,
    /// The options by which the rollout is found and published.
    place: Vec<String>,
    batches: u64,
}

impl Fixture {
    fn in_a_fleet(world: &World) -> Self {
        Self::in_a_fleet_with(world, "")
    }

    fn in_a_fleet_with(world: &World, more: &str) -> Self {
        Self::in_a_fleet_by(&rules(world), more)
    }

    fn in_a_fleet_by(rules: &Value, more: &str) -> Self {
        Self::at_a_writer(writer_of(rules, more), "fp8")
    }

    /// A writer with a rollout of this name.
    pub(crate) fn at_a_writer(node: Node, name: &'static str) -> Self {
        let place = ["--api", &url(&node), "--token-file", &path(&node, "api.token")].map(str::to_owned).to_vec();
        Self { node, name, place, batches: 0 }
    }

    fn by_a_file(world: &World) -> Self {
        let node = Setup::new(&rules(world), ZONE).start();
        let config = path(&node, "bailiwick.toml");
        Self::by(node, &config)
    }

    /// A node with rules that are published by this configuration.
    pub(crate) fn by(node: Node, config: &str) -> Self {
        let place = ["--config", config, "--observed-by", &url(&node)].map(str::to_owned).to_vec();
        Self { node, name: "fp8", place, batches: 0 }
    }

    /// Where what was counted is kept.
    pub(crate) fn record(&self) -> PathBuf {
        self.node.setup.path("record.json")
    }

    /// The words of a command.
    pub(crate) fn words(&self, words: &[&str]) -> Vec<String> {
        let mut all = vec!["rollout".to_owned(), words[0].to_owned(), self.name.to_owned()];
        all.extend(words[1..].iter().map(|word| (*word).to_owned()));
        let looks = ["start", "run", "status", "report"].contains(&words[0]);
        // A record is kept by those who look, and so is the node that counts.
        let place = self.place.chunks(2).filter(|pair| looks || pair[0] != "--observed-by");
        all.extend(place.flatten().cloned());
        if looks {
            all.extend(["--record".to_owned(), self.record().display().to_string()]);
        }
        all
    }

    /// Runs a command; whether it went well, and all that was said.
    fn told(&self, words: &[&str]) -> (bool, String) {
        let words = self.words(words);
        let output = bailiwick(words.iter().map(String::as_str));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.success(), text(&output.stdout) + &text(&output.stderr))
    }

    #[track_caller]
    pub(crate) fn fine(&self, words: &[&str]) -> String {
        let (is_fine, said) = self.told(words);
        assert!(is_fine, "{words:?}: {said}");
        said
    }

    /// The rules in service.
    pub(crate) fn rules(&self) -> Value {
        serde_json::from_str(&self.node.get("/v1/rules")).expect("rules")
    }

    pub(crate) fn shares(&self) -> Value {
        self.rules()["rollouts"][self.name]["progress"]["shares"].clone()
    }

    /// Waits until the node serves these shares.
    pub(crate) fn serves(&self, shares: &Value) {
        wait::until_true(&format!("{shares} is served"), || self.shares() == *shares);
    }

    /// Posts what a Worker counted of both arms in a region: so many attempts of each, and so many failures of the new
    /// one.
    pub(crate) fn observe(&mut self, region: &str, attempts: u64, failures: u64) {
        self.batches += 1;
        let revision = self.rules()["revision"].clone();
        let now = bailiwick_now();
        let arm = |name: &str, failures: u64| {
            json!({ "service": "chat", "region": region, "arm": name,
                    "counts": { "attempts": { "committed": attempts - failures, "http_5xx": failures } } })
        };
        let batch = json!({
            "version": 1, "isolate": "00112233445566aa", "sequence": self.batches, "at": now, "span_ms": 1,
            "revision": revision, "arms": [arm("old", 0), arm("new", failures)],
        });
        let (status, said) = self.node.call("POST", "/v1/observations", Some(TOKEN), Some(&batch));
        assert_eq!(status, 200, "{said}");
        assert_eq!(serde_json::from_str::<Value>(&said).expect("JSON")["dropped"], 0, "{said}");
    }

    /// Looks until a step is published, with good traffic of both arms.
    pub(crate) fn goes_on(&mut self, region: &str, shares: &Value) {
        self.goes_on_with(region, shares, &[]);
    }

    /// The same, with more options.
    fn goes_on_with(&mut self, region: &str, shares: &Value, more: &[&str]) {
        wait::until_true(&format!("{shares} is published"), || {
            self.observe(region, 200, 0);
            self.fine(&[&["run", "--once"], more].concat());
            self.shares() == *shares
        });
    }

    /// Looks until this is waited for, with good traffic of both arms.
    fn waits_for(&mut self, region: &str, words: &str, more: &[&str]) {
        wait::until_true(words, || {
            self.observe(region, 200, 0);
            self.fine(&[&["run", "--once"], more].concat()).contains(words)
        });
    }
}

/// Tries to publish rules; what went wrong.
pub(crate) fn publish(node: &Node, rules: &Value) -> String {
    node.setup.write("new.json", &rules.to_string());
    failing(node, &["rules", "publish", &path(node, "new.json"), "--reason", "a test", "--no-impact"])
}

fn path(node: &Node, name: &str) -> String {
    node.setup.path(name).display().to_string()
}

/// The time, as a batch has it.
fn bailiwick_now() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let ms = i64::try_from(since.as_millis()).expect("this century");
    bailiwick_rules::time::Timestamp(ms).to_string()
}

/// A rollout from its begin to its end, and one that is rolled back.
pub(crate) fn from_begin_to_end(mut fixture: Fixture) {
    let (is_fine, said) = fixture.told(&["run", "--once"]);
    assert!(is_fine && said.contains("it hasn't begun"), "{said}");
    assert!(!fixture.told(&["abort", "--reason", "x"]).0, "nothing has begun");
    let said = fixture.fine(&["start"]);
    assert!(said.ends_with("revision 2: eu-frankfurt begins with 10 %\n"), "{said}");
    fixture.serves(&json!({ "eu-frankfurt": 10 }));
    assert!(!fixture.told(&["start"]).0, "it is under way already");
    wait::until_true("nothing was counted yet", || {
        fixture.fine(&["run", "--once"]).contains("nothing was counted")
            || fixture.fine(&["status"]).contains("no traffic")
    });
    assert_eq!(fixture.shares(), json!({ "eu-frankfurt": 10 }), "without evidence it doesn't go on");

    fixture.goes_on("eu-frankfurt", &json!({ "eu-frankfurt": 50 }));
    fixture.goes_on("eu-frankfurt", &json!({ "eu-frankfurt": 100, "eu-paris": 10 }));
    let status: Value = serde_json::from_str(&fixture.fine(&["status", "--json"])).expect("JSON");
    assert_eq!(status["shares"], json!({ "eu-frankfurt": 100, "eu-paris": 10 }));
    fixture.goes_on("eu-paris", &json!({ "eu-frankfurt": 100, "eu-paris": 50 }));
    fixture.goes_on("eu-paris", &json!({ "eu-frankfurt": 100, "eu-paris": 100 }));
    assert_eq!(fixture.rules()["rollouts"]["fp8"]["progress"]["ended"], "done");
    let said = fixture.fine(&["run"]);
    assert!(said.contains("fp8 has ended: done"), "{said}");

    let page = path(&fixture.node, "report.html");
    fixture.fine(&["report", "--html", &page]);
    let page = std::fs::read_to_string(page).expect("a page");
    assert_eq!(page.matches("<polygon").count(), 4, "{page}");
    let report: Value = serde_json::from_str(&fixture.fine(&["report"])).expect("JSON");
    assert_eq!(report["steps"].as_array().map(Vec::len), Some(4));
    assert_eq!(
        report["steps"][0]["looks"][0]["possible"]["error_rate"]["low"].as_f64().map(|low| low <= 0.0),
        Some(true)
    );

    // Once more from the begin. The new arm fails in the second step, while it waits.
    fixture.fine(&["start"]);
    fixture.serves(&json!({ "eu-frankfurt": 10 }));
    fixture.goes_on("eu-frankfurt", &json!({ "eu-frankfurt": 50 }));
    let before = fixture.rules()["revision"].as_u64().expect("a revision");
    fixture.observe("eu-frankfurt", 300, 200);
    let said = fixture.fine(&["run", "--once"]);
    assert!(
        said.contains("rolled back: eu-frankfurt: error_rate is ") && said.contains("and 0.00 % in the old one"),
        "{said}"
    );
    fixture.serves(&json!({}));
    let rules = fixture.rules();
    assert_eq!(rules["revision"].as_u64(), Some(before + 1));
    let (is_fine, said) = fixture.told(&["run"]);
    assert!(!is_fine && said.contains("fp8 has ended: rolled back"), "{said}");
}

#[test]
fn a_rollout_goes_through_a_fleet_step_by_step_and_is_rolled_back_when_it_fails() {
    let world = World::start();
    let fixture = Fixture::in_a_fleet(&world);
    from_begin_to_end(fixture);
}

#[test]
fn a_single_node_has_its_steps_written_into_its_file() {
    let world = World::start();
    from_begin_to_end(Fixture::by_a_file(&world));
}

#[test]
fn whoever_runs_it_may_be_killed_and_the_next_one_goes_on() {
    let world = World::start();
    let mut fixture = Fixture::in_a_fleet(&world);
    fixture.fine(&["start"]);
    fixture.serves(&json!({ "eu-frankfurt": 10 }));
    let run = |fixture: &Fixture| {
        let words = fixture.words(&["run", "--every", "1s"]);
        Process::start(Command::new(binary()).args(words).stdout(Stdio::null()).stderr(Stdio::null()))
    };
    let mut seen = vec![fixture.shares()];
    // Each is killed at another moment, and two run at once in between.
    for nth in 0..4 {
        let both = [run(&fixture), run(&fixture)];
        let now = fixture.shares();
        wait::until_true("it goes on", || {
            let region = if fixture.shares()["eu-paris"].is_null() { "eu-frankfurt" } else { "eu-paris" };
            fixture.observe(region, 200, 0);
            fixture.shares() != now
        });
        both.iter().for_each(|process| process.signal("KILL"));
        seen.push(fixture.shares());
        assert!(nth < 3 || fixture.rules()["rollouts"]["fp8"]["progress"]["ended"] == "done");
    }
    let expected = [
        json!({ "eu-frankfurt": 10 }),
        json!({ "eu-frankfurt": 50 }),
        json!({ "eu-frankfurt": 100, "eu-paris": 10 }),
        json!({ "eu-frankfurt": 100, "eu-paris": 50 }),
        json!({ "eu-frankfurt": 100, "eu-paris": 100 }),
    ];
    assert_eq!(seen, expected, "no step was skipped");
    assert_eq!(fixture.rules()["revision"], 6, "and none was published twice");
}

#[test]
fn an_operator_pauses_promotes_and_aborts_and_an_override_holds() {
    let world = World::start();
    let fixture = Fixture::in_a_fleet(&world);
    let body = json!({ "region": "eu-paris", "status": "down", "until": "2099-01-01T00:00:00Z", "reason": "a drill" });
    assert_eq!(fixture.node.call("POST", "/v1/overrides", Some(TOKEN), Some(&body)).0, 200);
    let (is_fine, said) = fixture.told(&["start"]);
    assert!(!is_fine && said.contains("it isn't begun: eu-paris is forced down until 2099-01-01T00:00:00Z: a drill"));
    assert_eq!(fixture.node.call("DELETE", "/v1/overrides/eu-paris", Some(TOKEN), None).0, 200);
    fixture.fine(&["start"]);
    fixture.serves(&json!({ "eu-frankfurt": 10 }));
    // Who publishes an old copy doesn't move it.
    let published = publish(&fixture.node, &rules(&world));
    assert!(published.contains("the rollout fp8 is under way, and stands elsewhere"), "{published}");
    let mut other = fixture.rules();
    other["rollouts"]["fp8"]["to"] = json!("fp4");
    let published = publish(&fixture.node, &other);
    assert!(published.contains("changes what it replaces or where"), "{published}");
    let copy = fixture.rules();
    fixture.fine(&["pause", "--reason", "lunch"]);
    assert!(fixture.fine(&["run", "--once"]).contains("waits: paused: lunch"));
    fixture.fine(&["resume", "--reason", "back"]);
    assert!(!fixture.fine(&["run", "--once"]).contains("paused"));
    fixture.fine(&["promote", "--reason", "tested by hand"]);
    assert_eq!(fixture.shares(), json!({ "eu-frankfurt": 50 }));
    let said = fixture.fine(&["abort", "--reason", "wrong language"]);
    assert!(said.contains("rolled back: wrong language"), "{said}");
    assert_eq!(fixture.shares(), json!({}));
    let history = fixture.node.get("/v1/rules/history");
    assert!(history.contains("rollout fp8: eu-frankfurt gets 50 %, by hand: tested by hand"), "{history}");
    assert!(!fixture.told(&["promote", "--reason", "x"]).0, "it has ended");
    // Neither yesterday's copy nor yesterday's revision brings it back.
    let published = publish(&fixture.node, &copy);
    assert!(published.contains("has a \"progress\" of the rollout fp8 that isn't in service"), "{published}");
    let back = ["rules", "rollback", "2", "--reason", "back", "--no-impact"];
    crate::fleet::nodes::fine(&fixture.node, &back);
    let progress = fixture.rules()["rollouts"]["fp8"]["progress"].clone();
    assert_eq!((&progress["shares"], &progress["ended"]), (&json!({}), &json!("rolled back: wrong language")));
    let said = publish(&fixture.node, &json!({}));
    assert!(!said.contains("under way"), "{said}");
}

#[test]
fn a_bad_arm_is_rolled_back_while_another_document_is_tried_out() {
    let world = World::start();
    let mut fixture = Fixture::in_a_fleet_with(&world, "stage = \"canary\"\n");
    fixture.fine(&["start"]);
    fixture.serves(&json!({ "eu-frankfurt": 10 }));
    let mut other = fixture.rules();
    other["services"]["strict"]["ttl"] = json!({ "min": 1, "max": 7 });
    fixture.node.setup.write("new.json", &other.to_string());
    let new = path(&fixture.node, "new.json");
    let staged = ["rules", "publish", &new, "--reason", "x", "--stage", "canary", "--no-impact"];
    crate::fleet::nodes::fine(&fixture.node, &staged);
    wait::until_true("it is tried out", || fixture.rules()["services"]["strict"]["ttl"]["max"] == 7);
    assert!(!fixture.told(&["promote", "--reason", "x"]).0, "nothing goes on meanwhile");
    fixture.observe("eu-frankfurt", 300, 200);
    let said = fixture.fine(&["run", "--once"]);
    assert!(said.contains("rolled back: eu-frankfurt: error_rate is "), "{said}");
    fixture.serves(&json!({}));
    assert_ne!(fixture.rules()["services"]["strict"]["ttl"]["max"], 7, "what was tried out is given up with it");
    assert!(fixture.node.get("/v1/fleet").contains("\"stage\":\"rest\""), "and that is for all nodes");
}

/// An edge whose arms answer all sums rightly, but the new arm in Paris, which never does.
fn arms(asked: &Asked) -> Reply {
    let (region, arm) = asked.header("x-bailiwick-pin").and_then(|pin| pin.split_once(";arm=")).expect("a pin");
    let text = if (region, arm) == ("eu-paris", "new") { "no idea" } else { "2" };
    let headers = vec![format!("x-bailiwick-region: {region}"), format!("x-bailiwick-arm: {arm}")];
    Reply::Text(text.to_owned(), headers)
}

/// Runs the suite for both arms of a region.
fn eval_run(fixture: &Fixture, edge: &ChatStandIn, region: &str, out: &str) {
    let suite = path(&fixture.node, "smoke.jsonl");
    let args = ["eval", "run", "--suite", &suite, "--service", "chat", "--model", "large", "--base", &edge.base()];
    let output = bailiwick(args.into_iter().chain(["--region", region, "--arm", "old,new", "--out", out]));
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn each_region_waits_for_its_eval_and_one_that_is_worse_rolls_back() {
    let (world, edge) = (World::start(), ChatStandIn::start(arms));
    let mut rules = rules(&world);
    rules["rollouts"]["fp8"]["checks"]["eval"] = json!({ "suite": "smoke", "margin": 0.1 });
    let mut fixture = Fixture::in_a_fleet_by(&rules, "");
    let expect = json!({ "number": { "value": 2 } });
    let case = |nth: usize| json!({ "id": format!("c{nth}"), "prompt": "1+1?", "expect": expect });
    let suite: String = (0..100).map(|nth| format!("{}\n", case(nth))).collect();
    fixture.node.setup.write("smoke.jsonl", &suite);
    let out = path(&fixture.node, "results");
    let option = format!("smoke={out}");
    let eval = ["--eval", option.as_str()];
    // Results of a time before the rollout aren't of its arms.
    eval_run(&fixture, &edge, "eu-frankfurt", &out);
    fixture.fine(&["start"]);
    fixture.serves(&json!({ "eu-frankfurt": 10 }));
    fixture.waits_for("eu-frankfurt", "eval smoke of eu-frankfurt has no results yet; make them by", &[]);
    fixture.waits_for("eu-frankfurt", "before the new arm had its share of eu-frankfurt", &eval);
    std::fs::remove_dir_all(&out).expect("removed");
    fixture.waits_for("eu-frankfurt", "eu-frankfurt.old.jsonl can't be read", &eval);
    assert_eq!(fixture.shares(), json!({ "eu-frankfurt": 10 }));
    let (is_fine, said) = fixture.told(&["run", "--once", "--eval", &format!("other={out}")]);
    assert!(!is_fine && said.contains("the rollout asks for \"smoke\""), "{said}");

    eval_run(&fixture, &edge, "eu-frankfurt", &out);
    fixture.goes_on_with("eu-frankfurt", &json!({ "eu-frankfurt": 50 }), &eval);
    let status: Value = serde_json::from_str(&fixture.fine(&["status", "--json"])).expect("JSON");
    assert_eq!((&status["eval"]["verdict"], &status["eval"]["found"]["cases"]), (&json!("pass"), &json!(100)));
    assert!(fixture.fine(&["status"]).contains("eval smoke               pass          1.0000 in the new arm"));
    // It is known of the region from now on.
    fixture.goes_on("eu-frankfurt", &json!({ "eu-frankfurt": 100, "eu-paris": 10 }));
    fixture.waits_for("eu-paris", "eval smoke of eu-paris has no results yet", &[]);
    eval_run(&fixture, &edge, "eu-paris", &out);
    let said = fixture.fine(&[&["run", "--once"], &eval[..]].concat());
    assert!(said.contains("rolled back: eu-paris: eval smoke scores 0.0000 in the new arm and 1.0000"), "{said}");
    fixture.serves(&json!({}));
    reports_are_signed(&fixture);
}

/// The report is signed alone and in its page, and neither can be changed.
fn reports_are_signed(fixture: &Fixture) {
    let file = |name: &str| path(&fixture.node, name);
    let made = bailiwick(["receipt", "keygen"]);
    std::fs::write(file("key"), made.stdout).expect("a key");
    let verify = |name: &str, more: &[&str]| {
        let (signed, key) = (file(name), file("key"));
        let args = ["rollout", "verify", &signed, "--jwks", &key];
        let output = bailiwick(args.into_iter().chain(more.iter().copied()));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    };
    let signed = fixture.fine(&["report", "--sign-key", &file("key")]);
    std::fs::write(file("report.jws"), &signed).expect("written");
    let (code, said) = verify("report.jws", &[]);
    assert!(code == Some(0) && said.contains("rollout    fp8 of chat: rolled back: eu-paris: eval smoke"), "{said}");
    let report: Value = serde_json::from_str(&verify("report.jws", &["--json"]).1).expect("JSON");
    let unsigned: Value = serde_json::from_str(&fixture.fine(&["report"])).expect("JSON");
    assert_eq!((&report["steps"], &report["eval"]), (&unsigned["steps"], &unsigned["eval"]));
    assert_eq!(report["eval"]["regions"][1]["results"][0]["means"], json!([1.0, 0.0]));

    fixture.fine(&["report", "--html", &file("report.html"), "--sign-key", &file("key")]);
    let page = std::fs::read_to_string(file("report.html")).expect("a page");
    let (code, said) = verify("report.html", &[]);
    assert!(code == Some(0) && said.contains(", and so is the page around it\n"), "{said}");
    let changed = page.replace("0.0000 in the new arm", "1.0000 in the new arm");
    std::fs::write(file("report.html"), changed).expect("written");
    let (code, said) = verify("report.html", &[]);
    assert!(code == Some(1) && said.contains("it was changed"), "{said}");
    let (head, rest) = signed.split_once('.').expect("three parts");
    std::fs::write(file("report.jws"), format!("{head}.{}", rest.replacen('A', "B", 1))).expect("written");
    let (code, said) = verify("report.jws", &[]);
    assert!(code == Some(1) && said.contains("the signature is wrong"), "{said}");
    std::fs::write(file("no.key"), "secret").expect("written");
    let (is_fine, said) = fixture.told(&["report", "--sign-key", &file("no.key")]);
    assert!(!is_fine && said.contains("is no private Ed25519 key"), "{said}");
}
