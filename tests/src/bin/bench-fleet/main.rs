//! Measures a fleet: how long a publication takes until every node serves it, and how much memory a node takes. Takes
//! sizes and a round trip, prints a line of JSON. `scripts/bench/fleet` runs it.
//!
//! Nodes reach each other, or three NATS servers, by links of their own that delay each byte; NATS servers reach each
//! other by such links, too. Health checks go to one stand-in for all regions.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bailiwick_tests::dns::question;
use bailiwick_tests::geo::GERMAN;
use bailiwick_tests::link::Link;
use bailiwick_tests::nats::Nats;
use bailiwick_tests::net::free_port;
use bailiwick_tests::node::{Node, Setup, TOKEN, bailiwick};
use bailiwick_tests::stand_in::StandIn;
use clap::{Parser, ValueEnum};
use serde_json::{Map, Value, json};

/// Publishes rules in a fleet again and again, and asks all nodes until they answer by them.
#[derive(Debug, Parser)]
#[command(name = "bench-fleet")]
struct Arguments {
    /// How many nodes the fleet has. All vote.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// How many regions the rules have. Each is probed every ten seconds by each node.
    #[arg(long, default_value_t = 1_000)]
    regions: usize,
    /// How many times rules are published.
    #[arg(long, default_value_t = 30)]
    publishes: usize,
    /// The round trip between any two nodes, in milliseconds.
    #[arg(long, default_value_t = 80)]
    round_trip: u64,
    /// How rules spread.
    #[arg(long, value_enum, default_value_t = Mode::Peers)]
    mode: Mode,
    /// How often each peer is asked, or health is told over NATS, as `[fleet] poll`.
    #[arg(long, default_value = "200ms")]
    poll: String,
    /// For how many seconds health is exchanged before memory is read.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
}

/// How rules spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// On the writer, by a request that begins when the document is at hand.
    Peers,
    /// By `bailiwick rules publish`, from the start of the command.
    Nats,
}

const ZONE: &str =
    "$TTL 300\n@ SOA ns.example.net. h.example.net. 1 3600 600 86400 60\n@ NS ns.example.net.\nwww A 192.0.2.80\n";
/// How long a publication may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Rules of which the answer to Germans is this address.
fn rules(arguments: &Arguments, target: SocketAddr, revision: u64, address: &str) -> Value {
    let region = |number: usize| {
        let monitor = json!({ "type": "tcp", "address": target.to_string(), "interval": "10s", "timeout": "2s" });
        let latitude = 40.0 + (number % 200) as f64 / 10.0;
        let answer = if number == 0 { address.to_owned() } else { format!("10.0.{}.{}", number / 250, number % 250) };
        let region = json!({ "countries": [if number == 0 { "DE" } else { "FR" }],
            "location": { "latitude": latitude, "longitude": 8.0 }, "answers": { "A": [answer] }, "monitor": monitor });
        (format!("region-{number}"), region)
    };
    let names: Vec<String> = (0..arguments.regions.min(50)).map(|number| format!("region-{number}")).collect();
    let voter = |node: usize| (format!("ns{node}"), json!({ "site": format!("site-{node}") }));
    json!({
        "version": 1, "revision": revision,
        "jurisdictions": { "de": { "countries": ["DE"] }, "eu": { "include": ["EU"] } },
        "fleet": { "voters": (0..arguments.nodes).map(voter).collect::<Map<_, _>>() },
        "regions": (0..arguments.regions).map(region).collect::<Map<_, _>>(),
        "services": { "chat": { "hosts": ["chat.ai.example.com"], "pattern": "active-active", "regions": names,
            "residency": [{ "clients": ["de"], "process_in": ["de"] }, { "clients": ["*"], "process_in": ["eu"] },
                          { "clients": ["unknown"], "process_in": [] }], "ttl": { "min": 1, "max": 1 } } },
    })
}

/// A fleet under measurement.
struct Fleet {
    nodes: Vec<Node>,
    /// How nodes reach each other. They end with this.
    _links: Vec<Link>,
    way: Way,
}

/// How it is published.
enum Way {
    /// By the API of the writer, behind a link.
    Writer(Link),
    Nats(Nats),
}

impl Fleet {
    fn start(arguments: &Arguments, target: SocketAddr) -> Self {
        match arguments.mode {
            Mode::Peers => {
                let (nodes, links) = start(arguments, target);
                let writer = Link::to(nodes[0].api);
                writer.round_trip(arguments.round_trip());
                Self { nodes, _links: links, way: Way::Writer(writer) }
            }
            Mode::Nats => {
                let (nodes, nats) = start_with_nats(arguments, target);
                Self { nodes, _links: Vec::new(), way: Way::Nats(nats) }
            }
        }
    }

    /// Publishes, and waits until all nodes answer by it. Returns how long that took.
    fn publish(&self, rules: &Value, address: &str) -> Duration {
        let begun = match &self.way {
            Way::Writer(writer) => put(writer, rules),
            Way::Nats(nats) => {
                let file = nats.path("new.json").display().to_string();
                std::fs::write(&file, rules.to_string()).expect("written");
                let config = nats.publisher();
                let begun = Instant::now();
                let words = ["rules", "publish", &file, "--reason", "measured", "--no-impact", "--config", &config];
                let output = bailiwick(words);
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                begun
            }
        };
        for node in &self.nodes {
            while question("chat.ai.example.com", "A").from(GERMAN).ask(node.dns).data() != [address] {
                assert!(begun.elapsed() < PATIENCE, "{address} isn't served: {}", node.log());
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        begun.elapsed()
    }
}

impl Arguments {
    fn round_trip(&self) -> Duration {
        Duration::from_millis(self.round_trip)
    }
}

/// Starts three NATS servers with the first rules, and nodes that follow them.
fn start_with_nats(arguments: &Arguments, target: SocketAddr) -> (Vec<Node>, Nats) {
    let names: Vec<String> = (0..arguments.nodes).map(|number| format!("ns{number}")).collect();
    let words: Vec<&str> = names.iter().map(String::as_str).collect();
    let nats = Nats::start_apart(&words, arguments.round_trip()).expect("a NATS server; run scripts/setup nats");
    let first = nats.path("first.json").display().to_string();
    std::fs::write(&first, rules(arguments, target, 1, "192.0.2.1").to_string()).expect("written");
    let output = bailiwick(["rules", "restore", "--from", &first, "--config", &nats.publisher()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let poll = format!("poll = {:?}\n", arguments.poll);
    let nodes = names.iter().map(|name| nats.node(name, ZONE, &poll).start());
    (nodes.collect(), nats)
}

/// Starts the nodes. The first is the writer; all others begin with its rules.
fn start(arguments: &Arguments, target: SocketAddr) -> (Vec<Node>, Vec<Link>) {
    let apis: Vec<SocketAddr> = (0..arguments.nodes).map(|_| free_port()).collect();
    let mut links = Vec::new();
    let nodes = (0..arguments.nodes).map(|number| {
        let others = apis.iter().enumerate().filter(|(other, _)| *other != number);
        let peers: Vec<String> = others
            .map(|(_, api)| {
                let link = Link::to(*api);
                link.round_trip(arguments.round_trip());
                let url = format!("http://{}", link.address());
                links.push(link);
                url
            })
            .collect();
        let setup = Setup::new(&rules(arguments, target, 1, "192.0.2.1"), ZONE);
        let config = std::fs::read_to_string(setup.path("bailiwick.toml")).expect("a configuration");
        let api = format!("[api]\nlisten = \"{}\"", apis[number]);
        let config = config.replace("[api]\nlisten = \"127.0.0.1:0\"", &api);
        setup.write("bailiwick.toml", &format!("node = \"ns{number}\"\n{config}"));
        let writer = if number == 0 { "writer = true\n" } else { "" };
        let poll = &arguments.poll;
        setup.with(&format!("[fleet]\nmode = \"peers\"\npeers = {peers:?}\npoll = {poll:?}\n{writer}")).start()
    });
    let nodes = nodes.collect();
    (nodes, links)
}

/// Publishes by way of a link. Returns when that began.
fn put(writer: &Link, rules: &Value) -> Instant {
    let url = format!("http://{}/v1/rules", writer.address());
    let tag = ureq::get(&url).call().expect("an answer").headers()["etag"].to_str().expect("text").to_owned();
    let begun = Instant::now();
    let sent = ureq::put(&url).header("authorization", &format!("Bearer {TOKEN}")).header("if-match", &tag);
    sent.send(rules.to_string().as_bytes()).expect("published");
    begun
}

/// A figure of `/proc/PID/status`, in MiB.
fn memory(node: &Node, figure: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.process.id())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(figure)).expect("Linux tells it");
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1024.0
}

fn main() {
    let arguments = Arguments::parse();
    let target = StandIn::start();
    let fleet = Fleet::start(&arguments, target.address());
    let mut took: Vec<f64> = (0..arguments.publishes)
        .map(|number| {
            let address = format!("192.0.2.{}", 2 + number % 200);
            let rules = rules(&arguments, target.address(), 2 + number as u64, &address);
            fleet.publish(&rules, &address).as_secs_f64()
        })
        .collect();
    std::thread::sleep(Duration::from_secs(arguments.seconds));
    took.sort_by(f64::total_cmp);
    // The least time that so many of all took, or less.
    let at = |percent: usize| took.get((percent * took.len()).div_ceil(100).saturating_sub(1)).copied();
    let bytes = rules(&arguments, target.address(), 1, "192.0.2.1").to_string().len();
    let figures = |figure| fleet.nodes.iter().map(|node| memory(node, figure).round()).collect::<Vec<f64>>();
    let mode = arguments.mode.to_possible_value().map(|mode| mode.get_name().to_owned());
    let report = json!({ "mode": mode, "nodes": arguments.nodes, "regions": arguments.regions, "document_bytes": bytes,
        "publishes": took.len(), "seconds": { "p50": at(50), "p95": at(95), "p99": at(99), "most": took.last() },
        "memory_mib": { "now": figures("VmRSS"), "most": figures("VmHWM") } });
    println!("{report}");
}
