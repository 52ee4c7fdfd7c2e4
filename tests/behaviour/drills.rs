//! `bailiwick drill` with the real program: clients of London are sent elsewhere step by step and come back, a drill
//! that would do harm doesn't begin, and one that goes wrong ends.

mod fleet;
mod lost;
pub(crate) mod scheduled;

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use bailiwick_rules::time::Timestamp;
use bailiwick_tests::dns::question;
use bailiwick_tests::node::{Node, Setup, TOKEN, bailiwick, binary};
use bailiwick_tests::process::Process;
use bailiwick_tests::wait;
use serde_json::{Value, json};

use crate::fixture::{World, ZONE};
use crate::fleet::nodes::{failing, fine, url};

/// The addresses of London and of the regions that its clients may be sent to besides.
const LONDON: &str = "192.0.2.30";
const ELSEWHERE: [&str; 2] = ["192.0.2.10", "192.0.2.20"];
/// How many networks of British clients are asked for.
const NETWORKS: u8 = 250;

/// Rules with a drill of London, whose clients may go to Frankfurt and Paris.
pub(crate) fn rules(world: &World, drill: &Value) -> Value {
    let mut rules = world.rules(1);
    for region in ["eu-frankfurt", "eu-paris", "uk-london", "us-virginia"] {
        rules["regions"][region]["load"] = json!({ "capacity": 100, "demand": 20 });
    }
    rules["regions"]["uk-london"]["endpoints"] = json!({ "e": { "url": "https://e.example/v1" } });
    rules["networks"] = json!([{ "prefix": "10.9.0.0/16", "country": "GB" }]);
    let mut london = json!({ "region": "uk-london", "for": "3s", "step": "3s", "ramp": [10, 50, 100] });
    for (name, value) in drill.as_object().into_iter().flatten() {
        london[name] = value.clone();
    }
    rules["drills"] = json!({ "london": london });
    rules
}

/// The share of British networks that are answered with another region than London, in per cent.
pub(crate) fn share(node: &Node) -> usize {
    let answers = (0..NETWORKS).map(|nth| {
        let client = IpAddr::from([10, 9, nth, 0]);
        let reply = question("chat.ai.example.com", "A").from_prefix(client, 24).ask(node.dns);
        let data = reply.data();
        assert!(data.len() == 1, "{data:?}");
        assert!(data[0] == LONDON || ELSEWHERE.contains(&data[0].as_str()), "{data:?} is outside the fence");
        data[0] != LONDON
    });
    answers.filter(|is_elsewhere| *is_elsewhere).count() * 100 / usize::from(NETWORKS)
}

/// The whole status of the drill, once every region is known to be up.
pub(crate) fn ready(node: &Node) -> Value {
    wait::until("all regions are up", || {
        let all: Value = serde_json::from_str(&node.get("/v1/drills")).expect("JSON");
        let reasons = all["drills"]["london"]["preflight"]["reasons"].to_string();
        (!reasons.contains("is unknown")).then_some(all)
    })
}

pub(crate) fn last(node: &Node) -> Value {
    let all: Value = serde_json::from_str(&node.get("/v1/drills/london")).expect("JSON");
    all["last"].clone()
}

/// A process that runs the drill.
pub(crate) struct Runner {
    process: Process,
    record: PathBuf,
}

/// Runs the drill at its node.
fn run(node: &Node, more: &[&str]) -> Runner {
    let name: &[&str] = if more.contains(&"--scheduled") { &[] } else { &["london"] };
    Runner::start(node, &url(node), "record", &[name, more].concat())
}

impl Runner {
    /// Runs a drill at the node with this API. The record and what is said are written to files of this name.
    pub(crate) fn start(node: &Node, api: &str, name: &str, more: &[&str]) -> Self {
        let record = node.setup.path(&format!("{name}.json"));
        let said = std::fs::File::create(record.with_extension("log")).expect("a file");
        let mut command = Command::new(binary());
        command.args(["drill", "run", "--api", api, "--every", "1s", "--before", "1s", "--after", "1s"]);
        command.arg("--token-file").arg(node.setup.path("api.token")).arg("--record").arg(&record).args(more);
        Self { process: Process::start(command.stdout(said).stderr(Stdio::null())), record }
    }

    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(self.record.with_extension("log")).expect("a file")
    }

    /// Waits until it has said this.
    #[track_caller]
    pub(crate) fn says(&self, what: &str) {
        wait::until_true(&format!("it says {what:?}"), || self.said().contains(what));
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) {
        self.process.signal("KILL");
        self.process.wait();
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Waits for its end. Returns whether it went well, and the record.
    fn ends(mut self) -> (bool, Value) {
        let status = wait::until("the runner ends", || self.process.ended());
        let record = std::fs::read_to_string(&self.record).expect("a record");
        (status.success(), serde_json::from_str(&record).expect("JSON"))
    }
}

/// Posts what a Worker counted in London: so many requests, of which so many failed.
fn observe(node: &Node, sequence: u64, requests: u64, failed: u64) {
    let now = bailiwick_now();
    let batch = json!({
        "version": 1, "isolate": "00112233445566aa", "sequence": sequence, "at": now, "span_ms": 5000, "revision": 1,
        "counts": [{ "service": "chat", "clients": "uk", "region": "uk-london", "endpoint": "e",
                     "attempts": { "committed": requests - failed, "timeout": failed },
                     "requests": { "ok": requests - failed, "upstream_timeout": failed } }],
        "demand": [{ "service": "chat", "order": ["uk-london", "eu-paris", "eu-frankfurt"], "busy_ms": 5000 }],
    });
    let (status, said) = node.call("POST", "/v1/observations", Some(TOKEN), Some(&batch));
    assert_eq!(status, 200, "{said}");
    assert_eq!(serde_json::from_str::<Value>(&said).expect("JSON")["dropped"], 0, "{said}");
}

fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    Timestamp(i64::try_from(since.as_millis()).expect("this century"))
}

fn bailiwick_now() -> String {
    now().to_string()
}

#[test]
fn answers_move_by_the_ramp_and_back_and_the_report_proves_that_none_left_the_fence() {
    let world = World::start();
    let node = Setup::new(&rules(&world, &json!({})), ZONE).start();
    let told = ready(&node);
    let preflight = &told["drills"]["london"]["preflight"];
    assert_eq!(preflight["verdict"], "go", "{told:#}");
    let dry = fine(&node, &["drill", "run", "london", "--dry-run"]);
    assert!(dry.contains("10 % for 3s, 50 % for 3s, 100 % for 3s, 50 % for 3s, 10 % for 3s; 15s in all"), "{dry}");
    assert!(dry.contains("eu-frankfurt+eu-paris+uk-london") && dry.contains("30 %"), "{dry}");
    assert_eq!((share(&node), last(&node)), (0, Value::Null), "a dry run changes nothing");

    let runner = run(&node, &[]);
    for (expected, about) in [(10, 6), (50, 12), (100, 0), (50, 12), (10, 6), (0, 0)] {
        wait::until_true(&format!("{expected} % are elsewhere"), || share(&node).abs_diff(expected) <= about);
    }
    let (is_fine, record) = runner.ends();
    assert!(is_fine && record["outcome"] == "done", "{record:#}");
    let shares: Vec<u64> =
        record["steps"].as_array().unwrap().iter().map(|one| one["share"].as_u64().unwrap()).collect();
    assert_eq!(shares, [10, 50, 100, 50, 10]);
    assert!(record["moved"]["dns_ms"].as_u64().is_some_and(|ms| ms <= 4_000), "{record:#}");
    let checked = &record["checked"];
    assert!(checked["dns"].as_u64().is_some_and(|count| count > 2_000), "{checked}");
    assert_eq!((&checked["dns_outside"], &checked["dns_left_out"]), (&json!(0), &json!(0)));
    assert!(node.log().contains("100 % of the clients of uk-london are sent elsewhere"));
    reported(&node);
}

/// The report of a drill that is done: as JSON, as a page, signed and verified, and from the node.
fn reported(node: &Node) {
    let path = |name: &str| node.setup.path(name).display().to_string();
    let (record, page, key, jwks) = (path("record.json"), path("london.html"), path("receipt.key"), path("jwks.json"));
    let json: Value =
        serde_json::from_str(&fine(node, &["drill", "report", "london", "--record", &record])).expect("JSON");
    assert_eq!((&json["outside"], &json["receipts"]), (&json!(0), &Value::Null));
    let made = bailiwick(["receipt", "keygen"]);
    let mut public: Value = serde_json::from_slice(&made.stdout).expect("a key");
    node.setup.write("receipt.key", &public.to_string());
    public.as_object_mut().unwrap().remove("d");
    node.setup.write("jwks.json", &json!({ "keys": [public] }).to_string());
    fine(node, &["drill", "report", "london", "--record", &record, "--html", &page, "--sign-key", &key]);
    let verified = bailiwick(["drill", "verify", &page, "--jwks", &jwks]);
    let said = String::from_utf8_lossy(&verified.stdout).into_owned();
    assert!(verified.status.success() && said.contains("london of uk-london: done"), "{said}");
    assert!(said.contains("outside    0 in all: 0 of "), "{said}");
    let other = bailiwick(["rollout", "verify", &page, "--jwks", &jwks]);
    let said = String::from_utf8_lossy(&other.stderr).into_owned();
    assert!(!other.status.success() && said.contains("no report of a rollout; try `bailiwick drill verify`"), "{said}");
    let html = std::fs::read_to_string(&page).unwrap();
    assert!(html.contains("<p class=\"big good\">0</p>") && html.contains("Traffic per region and minute"), "{html}");
    std::fs::write(&page, html.replacen("uk-london", "uk-leeds", 1)).unwrap();
    assert!(!bailiwick(["drill", "verify", &page, "--jwks", &jwks]).status.success(), "the page was changed");
    // The node keeps it, too.
    let gone = path("gone.json");
    let kept: Value =
        serde_json::from_str(&fine(node, &["drill", "report", "london", "--record", &gone])).expect("JSON");
    assert_eq!(kept["began"], json["began"]);
    let list: Value = serde_json::from_str(&node.get("/v1/drill-records")).expect("JSON");
    assert_eq!((list["records"].as_array().map(Vec::len), &list["records"][0]["minutes"]), (Some(1), &json!([])));
}

#[test]
fn a_drill_that_the_others_could_not_carry_does_not_begin() {
    let world = World::start();
    let mut rules = rules(&world, &json!({}));
    rules["regions"]["uk-london"]["load"]["demand"] = json!(150);
    let node = Setup::new(&rules, ZONE).start();
    let told = ready(&node);
    assert_eq!(told["drills"]["london"]["preflight"]["verdict"], "capacity", "{told:#}");
    let (is_fine, record) = run(&node, &[]).ends();
    assert_eq!((is_fine, &record["outcome"], &record["began"]), (false, &json!("capacity"), &Value::Null));
    assert!(record["why"][0].as_str().unwrap().contains("would have a load of 95.0 %, more than 90 %"), "{record:#}");
    // Nor if somebody asks the node past the command.
    let ask = json!({ "name": "london", "share": 10, "hold_ms": 30_000 });
    let (status, said) = node.call("POST", "/v1/drills", Some(TOKEN), Some(&ask));
    assert!(status == 409 && said.contains("capacity: "), "{status} {said}");
    assert_eq!((share(&node), last(&node)), (0, Value::Null));
}

#[test]
fn a_drill_does_not_begin_beside_an_override_or_on_a_blocked_date() {
    let world = World::start();
    let node = Setup::new(&rules(&world, &json!({})), ZONE).start();
    ready(&node);
    fine(&node, &["drain", "eu-paris", "--for", "1h", "--reason", "new switches"]);
    let (is_fine, record) = run(&node, &[]).ends();
    assert_eq!((is_fine, &record["outcome"]), (false, &json!("blocked")));
    assert!(record["why"].to_string().contains("eu-paris is forced down"), "{record:#}");
    let said = failing(&node, &["drill", "abort", "london", "--reason", "none runs"]);
    assert!(said.contains("no drill \"london\" is under way"), "{said}");

    let blocked = Setup::new(&rules(&world, &json!({ "blocked": ["01-01/12-31"] })), ZONE).start();
    ready(&blocked);
    let (_, record) = run(&blocked, &[]).ends();
    assert_eq!(record["why"], json!(["it is blocked from 01-01/12-31 (UTC)"]));
}

#[test]
fn writes_need_the_token_and_names_that_the_rules_have() {
    let world = World::start();
    let node = Setup::new(&rules(&world, &json!({})), ZONE).start();
    ready(&node);
    let ask = |name: &str, share: u64| json!({ "name": name, "share": share, "hold_ms": 30_000 });
    for (method, path, body) in [
        ("POST", "/v1/drills", ask("london", 10)),
        ("DELETE", "/v1/drills/london", json!({ "reason": "x" })),
        ("PUT", "/v1/drill-records/london", json!({})),
    ] {
        assert_eq!(node.call(method, path, None, Some(&body)).0, 401, "{method} {path}");
        assert_eq!(node.call(method, path, Some("fedcba9876543210fedcba9876543210"), Some(&body)).0, 401);
    }
    let call = |method: &str, path: &str, body: &Value| node.call(method, path, Some(TOKEN), Some(body));
    let (status, said) = call("POST", "/v1/drills", &ask("lodon", 10));
    assert!(status == 404 && said.contains("did you mean \\\"london\\\"?"), "{status} {said}");
    assert_eq!(call("POST", "/v1/drills", &json!({ "name": "london" })).0, 422);
    let began = json!({ "name": "london", "share": 10, "hold_ms": 30_000, "began": "2026-12-01T10:00:00Z" });
    let (status, said) = call("POST", "/v1/drills", &began);
    assert!(status == 409 && said.contains("isn't under way"), "{status} {said}");
    assert_eq!(call("DELETE", "/v1/drills/london", &json!({ "reason": "two\nlines" })).0, 400);
    let half = json!({ "reason": "x", "began": "2026-12-01T10:00:00Z" });
    assert_eq!(call("DELETE", "/v1/drills/london", &half).0, 400, "a run is named by both");
    assert_eq!(call("PUT", "/v1/drill-records/london", &json!({ "drill": "london" })).0, 422);
    assert_eq!((share(&node), last(&node)), (0, Value::Null));
}

#[test]
fn a_failure_elsewhere_ends_it_at_once() {
    let world = World::start();
    let node = Setup::new(&rules(&world, &json!({ "for": "10m", "ramp": [100] })), ZONE).start();
    ready(&node);
    let runner = run(&node, &[]);
    wait::until_true("all are elsewhere", || share(&node) == 100);
    world.frankfurt.fall_ill();
    wait::until_true("all come back", || share(&node) == 0);
    assert_eq!(last(&node)["ended"], "eu-frankfurt is down");
    let (is_fine, record) = runner.ends();
    assert_eq!(
        (is_fine, &record["outcome"], &record["why"]),
        (false, &json!("aborted"), &json!(["eu-frankfurt is down"]))
    );
}

#[test]
fn the_drilled_region_serves_when_all_others_fail_and_the_drill_has_ended() {
    let world = World::start();
    let node = Setup::new(&rules(&world, &json!({ "for": "10m", "ramp": [100] })), ZONE).start();
    ready(&node);
    let _runner = run(&node, &[]);
    wait::until_true("all are elsewhere", || share(&node) == 100);
    world.frankfurt.fall_ill();
    world.paris.fall_ill();
    wait::until_true("London serves", || share(&node) == 0);
    assert!(last(&node)["ended"].as_str().is_some_and(|why| why.ends_with(" is down")), "{}", last(&node));
}

#[test]
fn an_operator_breaks_it_off_and_all_come_back_at_once() {
    let world = World::start();
    let node = Setup::new(&rules(&world, &json!({ "for": "10m" })), ZONE).start();
    ready(&node);
    let runner = run(&node, &[]);
    wait::until_true("some are elsewhere", || share(&node) > 0);
    fine(&node, &["drill", "abort", "london", "--reason", "phones ring"]);
    assert_eq!(share(&node), 0);
    let (is_fine, record) = runner.ends();
    assert_eq!((is_fine, &record["outcome"], &record["why"]), (false, &json!("aborted"), &json!(["phones ring"])));
}

#[test]
fn a_drill_whose_runner_is_killed_ends_by_itself() {
    let world = World::start();
    let node = Setup::new(&rules(&world, &json!({ "for": "10m", "ramp": [100] })), ZONE).start();
    ready(&node);
    let mut runner = run(&node, &[]);
    wait::until_true("all are elsewhere", || share(&node) == 100);
    runner.kill();
    wait::until_true("all come back", || share(&node) == 0);
    let record: Value = serde_json::from_str(&std::fs::read_to_string(&runner.record).unwrap()).expect("whole");
    assert_eq!(record["outcome"], "unfinished");
    let record = runner.record.display().to_string();
    let report = fine(&node, &["drill", "report", "london", "--record", &record]);
    assert!(report.contains("\"unfinished\""), "{report}");
}

#[test]
fn a_drill_goes_on_while_its_record_cannot_be_written() {
    let world = World::start();
    let node = Setup::new(&rules(&world, &json!({ "for": "6s", "ramp": [100] })), ZONE).start();
    ready(&node);
    let (folder, away) = (node.setup.path("records"), node.setup.path("away"));
    std::fs::create_dir(&folder).expect("a folder");
    let runner = Runner::start(&node, &url(&node), "records/london", &["london"]);
    wait::until_true("all are elsewhere", || share(&node) == 100);
    std::fs::rename(&folder, &away).expect("moved");
    for _ in 0..2 {
        let number = last(&node)["number"].clone();
        wait::until_true("it is renewed", || last(&node)["number"] != number);
    }
    std::fs::rename(&away, &folder).expect("moved back");
    let (is_fine, record) = runner.ends();
    assert_eq!((is_fine, &record["outcome"], &last(&node)["ended"]), (true, &json!("done"), &json!("it is done")));
}

#[test]
fn a_drill_is_broken_off_when_requests_fail() {
    let world = World::start();
    let abort = json!({ "error_rate": 0.01, "first_token_p95": "4s", "refused": 0.02 });
    let node = Setup::new(&rules(&world, &json!({ "for": "10m", "abort": abort })), ZONE).start();
    let told = ready(&node);
    let reasons = told["drills"]["london"]["preflight"]["reasons"].to_string();
    assert!(reasons.contains("no Worker reports"), "{reasons}");
    observe(&node, 1, 100, 0);
    let runner = run(&node, &[]);
    wait::until_true("some are elsewhere", || share(&node) > 0);
    observe(&node, 2, 1_000, 5);
    observe(&node, 3, 1_000, 50);
    let (is_fine, record) = runner.ends();
    assert_eq!((is_fine, &record["outcome"]), (false, &json!("aborted")));
    let why = record["why"][0].as_str().unwrap();
    assert!(why.contains("requests failed, more than 1 %"), "{why}");
    assert_eq!((share(&node), &record["checked"]["edge_outside"]), (0, &json!(0)));
    assert!(record["checked"]["edge"].as_u64().is_some_and(|count| count >= 2_000), "{record:#}");
}

#[test]
fn a_drill_is_broken_off_when_workers_fall_silent() {
    let world = World::start();
    let node = Setup::new(&rules(&world, &json!({ "for": "10m", "abort": { "error_rate": 0.5 } })), ZONE).start();
    ready(&node);
    observe(&node, 1, 100, 0);
    let runner = run(&node, &[]);
    wait::until_true("some are elsewhere", || share(&node) > 0);
    wait::until_true("no Worker is heard any longer", || {
        let look: Value = serde_json::from_str(&node.get("/v1/drills/london")).expect("JSON");
        look["counted"]["workers"] == 0
    });
    let (is_fine, record) = runner.ends();
    assert_eq!((is_fine, &record["outcome"], share(&node)), (false, &json!("aborted"), 0));
    assert!(record["why"][0].as_str().unwrap().starts_with("no Worker has reported, since "), "{record:#}");
}

#[test]
fn a_node_that_was_restarted_passes_on_the_end_of_a_run_that_it_does_not_know() {
    let world = World::start();
    let node = Setup::new(&rules(&world, &json!({})), ZONE).start();
    ready(&node);
    let run = json!({ "reason": "the node was restarted", "began": now().to_string(), "origin": "ns1" });
    let (status, said) = node.call("DELETE", "/v1/drills/london", Some(TOKEN), Some(&run));
    assert_eq!(status, 200, "{said}");
    let health: Value = serde_json::from_str(&node.get("/v1/health")).expect("JSON");
    assert_eq!(health["drill"]["ended"], "the node was restarted");
    // Another run may begin, and the end is told beside it.
    let ask = json!({ "name": "london", "share": 10, "hold_ms": 30_000 });
    let (status, said) = node.call("POST", "/v1/drills", Some(TOKEN), Some(&ask));
    assert_eq!(status, 200, "{said}");
    let health: Value = serde_json::from_str(&node.get("/v1/health")).expect("JSON");
    assert_eq!((&health["drill"]["share"], &health["ended_drills"][0]["origin"]), (&json!(10), &json!("ns1")));
}

#[test]
fn rules_without_drills_tell_nothing_of_them() {
    let world = World::start();
    let node = Setup::new(&world.rules(1), ZONE).start();
    let health: Value = serde_json::from_str(&node.get("/v1/health")).expect("JSON");
    assert!(health.get("drill").is_none() && health.get("ended_drills").is_none(), "{health}");
    assert_eq!(fine(&node, &["drill", "plan"]), "the rules have no drill\n");
    let said = failing(&node, &["drill", "run", "london"]);
    assert!(said.contains("the rules have no drill \"london\""), "{said}");
}
