//! Three nodes that hear each other and agree on health: a node whose own line is down takes nothing away, most sites
//! do, a guard leaves clients a region, and what is shifted on one node is shifted on all. No two clocks are compared.

use bailiwick_rules::fleet::{Agreed, combined};
use bailiwick_rules::health::Status;
use bailiwick_rules::report::{HealthReport, Received};
use bailiwick_rules::table::Table;
use bailiwick_rules::time::Timestamp;
use bailiwick_tests::dns::question;
use bailiwick_tests::geo::GERMAN;
use bailiwick_tests::net::free_port;
use bailiwick_tests::node::{Node, Setup, TOKEN, bailiwick, binary};
use bailiwick_tests::wait;
use serde_json::{Value, json};

use crate::fixture::{World, ZONE};

const NAMES: [&str; 3] = ["ns1", "ns2", "ns3"];
const REGIONS: [&str; 4] = ["eu-frankfurt", "eu-paris", "uk-london", "us-virginia"];

/// What each node sends with its probes, so that a stand-in can be down for some nodes alone.
fn token(node: usize) -> String {
    format!("probe-of-{}", NAMES[node])
}

/// Three nodes at three sites, each a peer of the others.
struct Fleet {
    world: World,
    nodes: Vec<Node>,
    rules: Value,
}

impl Fleet {
    fn start(guard: &Value) -> Self {
        Self::start_each(guard, |_, setup| setup.start())
    }

    /// [`Fleet::start`] with each node started by `start`.
    fn start_each(guard: &Value, start: impl Fn(usize, Setup) -> Node) -> Self {
        let world = World::start();
        let mut rules = world.rules(1);
        let voters = NAMES.map(|name| (name.to_owned(), json!({ "site": format!("site-of-{name}") })));
        rules["fleet"] = json!({ "voters": voters.into_iter().collect::<serde_json::Map<_, _>>(), "min_hold": "0s" });
        for region in REGIONS {
            let monitor = &mut rules["regions"][region]["monitor"];
            (monitor["interval"], monitor["secret"]) = (json!("1s"), json!("PROBE"));
            (monitor["down_thresh"], monitor["up_thresh"]) = (json!(2), json!(1));
        }
        if !guard.is_null() {
            rules["services"]["chat"]["guard"] = guard.clone();
        }
        let apis = NAMES.map(|_| free_port());
        let nodes = (0..NAMES.len()).map(|number| {
            let peers = apis.iter().enumerate().filter(|(other, _)| *other != number);
            let peers: Vec<String> = peers.map(|(_, api)| format!("http://{api}")).collect();
            let setup = Setup::new(&rules, ZONE);
            let config = std::fs::read_to_string(setup.path("bailiwick.toml")).unwrap();
            let api = format!("[api]\nlisten = \"{}\"", apis[number]);
            let config = config.replace("[api]\nlisten = \"127.0.0.1:0\"", &api);
            setup.write("bailiwick.toml", &format!("node = \"{}\"\n{config}", NAMES[number]));
            setup.write("probe.token", &token(number));
            let more = format!("[secrets]\nPROBE = \"probe.token\"\n[fleet]\npeers = {peers:?}\npoll = \"200ms\"\n");
            start(number, setup.with(&more))
        });
        let fleet = Self { nodes: nodes.collect(), world, rules };
        fleet.all("all nodes hear each other", |node| metric(node, "bailiwick_fleet_voters_fresh ") == Some(3.0));
        fleet.all("everything is up", |node| REGIONS.iter().all(|region| verdict(node, region) == "up"));
        fleet
    }

    /// Waits until something holds on every node.
    fn all(&self, what: &str, holds: impl Fn(&Node) -> bool) {
        for (node, name) in self.nodes.iter().zip(NAMES) {
            wait::until_true(&format!("{what}: {name}"), || holds(node));
        }
    }

    /// From now on probes of these nodes fail at a region, and those of the others succeed.
    fn fails(&self, region: &str, nodes: &[usize]) {
        let world = &self.world;
        let stand_in = match region {
            "eu-frankfurt" => &world.frankfurt,
            "eu-paris" => &world.paris,
            "uk-london" => &world.london,
            _ => &world.virginia,
        };
        stand_in.refuse(nodes.iter().map(|node| token(*node)));
    }

    /// What the edge makes of what the nodes report now.
    fn edge(&self) -> Vec<Status> {
        let table = Table::compile(self.rules.to_string().as_bytes()).unwrap();
        let report = |node: &Node| serde_json::from_str::<HealthReport>(&node.get("/v1/health")).unwrap();
        let received = |node| Received { at: Timestamp(0), report: report(node) };
        let reports: Vec<Received> = self.nodes.iter().map(received).collect();
        let health = combined(&table, &reports, &mut Agreed::default(), Timestamp(0));
        health.iter().map(|region| region.probed).collect()
    }
}

fn health(node: &Node) -> Value {
    serde_json::from_str(&node.get("/v1/health")).unwrap()
}

/// What the voters agree on.
fn verdict(node: &Node, region: &str) -> String {
    health(node)["fleet"][region]["verdict"].as_str().unwrap_or_default().to_owned()
}

/// What the node sees itself.
fn seen(node: &Node, region: &str) -> String {
    health(node)["regions"][region]["probed"].as_str().unwrap_or_default().to_owned()
}

fn german(node: &Node) -> Vec<String> {
    question("chat.ai.example.com", "A").from(GERMAN).ask(node.dns).data()
}

fn metric(node: &Node, name: &str) -> Option<f64> {
    let metrics = node.get("/metrics");
    metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

fn run(node: &Node, words: &[&str]) -> (i32, String) {
    let config = node.setup.path("bailiwick.toml").display().to_string();
    let output = bailiwick(words.iter().copied().chain(["--config", config.as_str()]));
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (output.status.code().unwrap_or(-1), text.concat())
}

#[test]
fn a_node_whose_own_line_is_down_takes_nothing_away_and_most_sites_do() {
    let fleet = Fleet::start(&Value::Null);
    for region in REGIONS {
        fleet.fails(region, &[2]);
    }
    let third = &fleet.nodes[2];
    wait::until_true("ns3 sees nothing", || {
        let health = health(third);
        health["blind"] == json!(true) && REGIONS.iter().all(|region| health["regions"][region]["probed"] == "down")
    });
    fleet.all("nothing falls", |node| {
        let votes = &health(node)["fleet"]["eu-frankfurt"]["votes"];
        assert!(german(node) == ["192.0.2.10"] && REGIONS.iter().all(|region| verdict(node, region) == "up"));
        votes == &json!({ "up": 2, "down": 0, "unknown": 1, "silent": 0 })
    });
    assert_eq!(metric(third, "bailiwick_fleet_blind "), Some(1.0));
    assert_eq!(fleet.edge(), [Status::Up; 4]);

    for region in REGIONS {
        fleet.fails(region, &[]);
    }
    wait::until_true("ns3 sees again", || health(third).get("blind").is_none());
    fleet.fails("eu-frankfurt", &[0, 1]);
    fleet.all("Frankfurt falls everywhere", |node| {
        verdict(node, "eu-frankfurt") == "down" && german(node) == ["192.0.2.20"]
    });
    assert_eq!(seen(third, "eu-frankfurt"), "up", "whatever ns3 sees");
    let quorum = json!({ "up": 1, "down": 2, "unknown": 0, "silent": 0 });
    fleet.all("two of three", |node| {
        let told = &health(node)["fleet"]["eu-frankfurt"];
        told["votes"] == quorum && told["held_by"] == "quorum"
    });
    wait::until_true("the edge says the same of the same reports", || {
        fleet.edge() == [Status::Down, Status::Up, Status::Up, Status::Up]
    });
    fleet.fails("eu-frankfurt", &[1]);
    fleet.all("it comes back", |node| german(node) == ["192.0.2.10"]);
}

#[test]
fn a_guard_leaves_clients_a_region_and_says_so() {
    let fleet = Fleet::start(&json!({ "keep": 1, "max_down": "100%" }));
    fleet.fails("eu-frankfurt", &[0, 1, 2]);
    fleet.all("Frankfurt falls", |node| german(node) == ["192.0.2.20"]);
    fleet.fails("eu-paris", &[0, 1, 2]);
    fleet.all("Paris is held", |node| {
        assert_eq!(german(node), ["192.0.2.20"]);
        let told = &health(node)["fleet"]["eu-paris"];
        told["held_by"] == "guard" && told["verdict"] == "up" && seen(node, "eu-paris") == "down"
    });
    for node in &fleet.nodes {
        assert_eq!(metric(node, "bailiwick_guard_holding{service=\"chat\"} "), Some(1.0));
        let (code, status) = run(node, &["status"]);
        assert!(
            code == 1 && status.contains("held by the guard although most sites or operators say down"),
            "{status}"
        );
    }
    fleet.fails("eu-frankfurt", &[]);
    fleet.all("Frankfurt is back, and Paris may go", |node| {
        german(node) == ["192.0.2.10"] && verdict(node, "eu-paris") == "down"
    });
}

#[test]
fn what_is_shifted_on_one_node_is_shifted_on_all_and_back_by_any() {
    let fleet = Fleet::start(&json!({ "keep": 1, "max_down": "100%" }));
    let away = |node: usize, region: &str| {
        run(&fleet.nodes[node], &["shift", "away", region, "--for", "2h", "--reason", "drill"])
    };
    assert_eq!(away(2, "eu-frankfurt").0, 0);
    fleet.all("Germans go to Paris", |node| german(node) == ["192.0.2.20"]);
    fleet.all("an operator holds it", |node| health(node)["fleet"]["eu-frankfurt"]["held_by"] == "override");
    let (code, said) = away(0, "eu-paris");
    assert!(code == 1 && said.contains("it would leave 0 of 2 regions"), "ns1 knows of it: {said}");

    assert_eq!(run(&fleet.nodes[0], &["shift", "back", "eu-frankfurt"]).0, 0, "on another node than it began");
    fleet.all("Germans are back", |node| german(node) == ["192.0.2.10"]);
    // Each node has told the others since, and none brings it back.
    for node in &fleet.nodes {
        let told = || health(node)["overrides"].as_array().cloned().unwrap_or_default();
        wait::until_true("its end is told on", || told().iter().any(|one| one["ended"] == json!(true)));
        assert_eq!(german(node), ["192.0.2.10"]);
        assert_eq!(run(node, &["overrides"]).1, "no override is in force\n");
    }
}

#[test]
fn three_nodes_that_withdraw_three_regions_at_once_empty_no_fence() {
    let fleet = Fleet::start(&json!({ "keep": 1, "max_down": "100%" }));
    // Each sees another region down. None has a majority.
    for (node, region) in ["eu-frankfurt", "eu-paris", "uk-london"].into_iter().enumerate() {
        fleet.fails(region, &[node]);
    }
    for (node, region) in fleet.nodes.iter().zip(["eu-frankfurt", "eu-paris", "uk-london"]) {
        wait::until_true(&format!("{region} is seen down"), || seen(node, region) == "down");
    }
    fleet.all("nothing falls", |node| {
        assert!(REGIONS.iter().all(|region| verdict(node, region) == "up"), "{}", health(node));
        assert_eq!(german(node), ["192.0.2.10"]);
        ["eu-frankfurt", "eu-paris", "uk-london"]
            .iter()
            .all(|region| health(node)["fleet"][region]["votes"]["down"] == 1)
    });

    // Operators do so at the same moment, so that neither node knows of the other.
    for region in REGIONS {
        fleet.fails(region, &[]);
    }
    let away = |node: &Node, region: &str| {
        let set = json!({ "region": region, "status": "down", "until": "2099-01-01T00:00:00Z", "reason": "at once" });
        node.call("POST", "/v1/overrides", Some(TOKEN), Some(&set)).0 < 300
    };
    let [first, second, _] = &fleet.nodes[..] else { unreachable!("three nodes") };
    wait::until_true("two operators do so before their nodes hear each other", || {
        let both = std::thread::scope(|scope| {
            let of_second = scope.spawn(|| away(second, "eu-paris"));
            away(first, "eu-frankfurt") & of_second.join().expect("no panic")
        });
        if !both {
            for region in ["eu-frankfurt", "eu-paris"] {
                run(first, &["shift", "back", region]);
                run(second, &["shift", "back", region]);
            }
        }
        both
    });
    let in_force = |node: &Node| -> usize {
        let told = health(node)["overrides"].as_array().cloned().unwrap_or_default();
        told.iter().filter(|one| one.get("ended").is_none()).count()
    };
    fleet.all("all know of both", |node| in_force(node) == 2);
    fleet.all("of two regions of the fence one stays, the same on every node", |node| {
        health(node)["fleet"]["eu-frankfurt"]["held_by"] == "guard" && german(node) == ["192.0.2.10"]
    });
    assert_eq!(health(&fleet.nodes[0])["fleet"]["eu-paris"]["held_by"], "override");
    assert_eq!(metric(&fleet.nodes[2], "bailiwick_guard_holding{service=\"chat\"} "), Some(1.0));
    assert_eq!(run(&fleet.nodes[2], &["shift", "back", "eu-paris"]).0, 0);
    fleet.all("then the other is away", |node| german(node) == ["192.0.2.20"]);
}

/// Debian's libfaketime, which gives a program another time of day.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

#[test]
fn nodes_whose_clocks_are_thirty_seconds_apart_agree_as_others_do() {
    if !std::path::Path::new(FAKETIME).exists() {
        println!("skipped: no {FAKETIME}; scripts/setup packages installs it");
        return;
    }
    let ahead = ["-30s", "+0s", "+30s"];
    let fleet = Fleet::start_each(&Value::Null, |number, setup| {
        let mut command = std::process::Command::new(binary());
        command.env("LD_PRELOAD", FAKETIME).env("FAKETIME", ahead[number]);
        // Pauses are real.
        command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("DONT_FAKE_MONOTONIC", "1");
        setup.start_by(command)
    });
    let now = |node: &Node| -> i64 {
        let told: Value = serde_json::from_str(&node.get("/v1/fleet")).unwrap();
        Timestamp::parse(told["now"].as_str().unwrap()).expect("a time").0
    };
    let [first, third] = [now(&fleet.nodes[0]), now(&fleet.nodes[2])];
    assert!((55_000..75_000).contains(&(third - first)), "the clocks are apart: {first}, {third}");
    let (code, told) = run(&fleet.nodes[0], &["fleet", "status"]);
    let seconds = |side: &str| {
        let before = told.split(&format!(" s {side} this one")).next()?;
        before.rsplit(' ').next()?.parse::<i64>().ok()
    };
    assert_eq!(code, 1, "that clocks are apart needs a look: {told}");
    assert!(seconds("ahead of").is_some_and(|seconds| (25..65).contains(&seconds)), "{told}");
    fleet.fails("eu-frankfurt", &[0, 1]);
    fleet.all("Frankfurt falls everywhere", |node| {
        verdict(node, "eu-frankfurt") == "down" && german(node) == ["192.0.2.20"]
    });
    fleet.all("all are fresh", |node| metric(node, "bailiwick_fleet_voters_fresh ") == Some(3.0));
    fleet.fails("eu-frankfurt", &[]);
    fleet.all("it comes back", |node| german(node) == ["192.0.2.10"]);
    assert_eq!(run(&fleet.nodes[2], &["shift", "away", "eu-frankfurt", "--for", "2h", "--reason", "drill"]).0, 0);
    fleet.all("it is shifted away", |node| german(node) == ["192.0.2.20"]);
    assert_eq!(run(&fleet.nodes[0], &["shift", "back", "eu-frankfurt"]).0, 0);
    fleet.all("it is back for all", |node| german(node) == ["192.0.2.10"]);
}
