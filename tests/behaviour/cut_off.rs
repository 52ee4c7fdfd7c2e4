//! A fleet whose network fails: three nodes on hosts of their own, with cables that are pulled. Whoever is cut off goes
//! on serving what it has, takes no region down, and catches up when its cable is back.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use bailiwick_tests::geo::{GERMAN, database};
use bailiwick_tests::network::Network;
use bailiwick_tests::node::{Node, Setup, TOKEN, binary};
use bailiwick_tests::process::Process;
use bailiwick_tests::wait;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fixture::ZONE;

/// The hosts of the nodes, and those of the regions.
const NODES: [usize; 3] = [0, 1, 2];
const FRANKFURT: usize = 3;
const PARIS: usize = 4;

struct Fleet {
    network: Network,
    pattern: &'static str,
    /// Where the certificate of all nodes lies, its key, and what they trust.
    folder: TempDir,
    nodes: Vec<Option<Node>>,
    regions: Vec<Option<Process>>,
}

fn rules(network: &Network, pattern: &str, frankfurt: &str) -> Value {
    let region = |country: &str, latitude: f64, longitude: f64, answer: &str, host: usize| {
        let monitor = json!({ "type": "tcp", "address": format!("{}:8080", network.address(host)), "interval": "200ms",
            "timeout": "1s", "up_thresh": 1, "down_thresh": 2 });
        json!({ "countries": [country], "location": { "latitude": latitude, "longitude": longitude },
            "answers": { "A": [answer] }, "monitor": monitor })
    };
    json!({
        "version": 1, "revision": 1,
        "jurisdictions": { "eu": { "include": ["EU"] } },
        "fleet": { "min_hold": "1s", "hold": "5m",
            "voters": { "ns0": { "site": "a" }, "ns1": { "site": "b" }, "ns2": { "site": "c" } } },
        "regions": {
            "eu-frankfurt": region("DE", 50.11, 8.68, frankfurt, FRANKFURT),
            "eu-paris": region("FR", 48.86, 2.35, "192.0.2.40", PARIS),
        },
        "services": { "chat": { "hosts": ["chat.ai.example.com"], "pattern": pattern,
            "regions": ["eu-frankfurt", "eu-paris"], "residency": [
                { "clients": ["*"], "process_in": ["eu"] }, { "clients": ["unknown"], "process_in": [] }],
            "ttl": { "min": 1, "max": 1 } } },
    })
}

impl Fleet {
    /// Nodes that answer, and see both regions up. `None` where the machine allows no network namespaces.
    fn start(pattern: &'static str) -> Option<Self> {
        let Some(network) = Network::new(5) else {
            eprintln!("skipped: this machine allows no network namespaces");
            return None;
        };
        let region = |host: usize| {
            let mut server = network.host(host).command("python3");
            let address = network.address(host).to_string();
            server.args(["-m", "http.server", "8080", "--bind", address.as_str()]);
            Some(Process::start(server.stdout(Stdio::null()).stderr(Stdio::null())))
        };
        let regions = vec![region(FRANKFURT), region(PARIS)];
        let folder = TempDir::new().expect("a folder");
        let mut fleet = Self { network, pattern, folder, nodes: Vec::new(), regions };
        let (certificate, key) = fleet.certificate();
        fleet.write("tls.pem", &certificate);
        fleet.write("tls.key", &key);
        fleet.write("ca.pem", &certificate);
        for node in NODES {
            let setup = fleet.set_up(node);
            fleet.nodes.push(Some(setup.start_inside(fleet.network.host(node))));
        }
        fleet.all_answer(&NODES, "192.0.2.1");
        NODES.iter().for_each(|node| fleet.probes_say(*node, "up"));
        Some(fleet)
    }

    /// The first node is the writer. The others begin without rules of their own.
    fn set_up(&self, node: usize) -> Setup {
        let setup = Setup::new(&rules(&self.network, self.pattern, "192.0.2.1"), ZONE);
        let peers: Vec<String> =
            NODES.iter().filter(|peer| **peer != node).map(|peer| format!("https://{}", self.api(*peer))).collect();
        let (rules, writer) = if node == 0 { ("rules = \"rules.json\"\n", "writer = true\n") } else { ("", "") };
        let config = format!(
            "node = \"ns{node}\"\nlisten = [\"{}:53\"]\n{rules}geoip = {:?}\nstate_dir = \"state\"\n\
             [zones]\n\"ai.example.com\" = \"ai.example.com.zone\"\n\
             [api]\nlisten = \"{}\"\ntoken_file = \"api.token\"\ncert = {:?}\nkey = {:?}\n\
             [fleet]\nmode = \"peers\"\npeers = {peers:?}\npeers_token_file = \"api.token\"\n\
             peers_ca_file = {:?}\npoll = \"200ms\"\n{writer}",
            self.api(node).ip(),
            database(),
            self.api(node),
            self.file("tls.pem"),
            self.file("tls.key"),
            self.file("ca.pem"),
        );
        setup.write("bailiwick.toml", &config);
        setup
    }

    /// A new certificate for all nodes, signed by itself, and its key.
    fn certificate(&self) -> (String, String) {
        let addresses: Vec<String> = NODES.iter().map(|node| self.network.address(*node).to_string()).collect();
        let made = rcgen::generate_simple_self_signed(addresses).expect("a certificate");
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    /// Replaces a file that all nodes read.
    fn write(&self, name: &str, text: &str) {
        let new = self.file(&format!("{name}.new"));
        std::fs::write(&new, text).expect("written");
        std::fs::rename(new, self.file(name)).expect("renamed");
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn api(&self, node: usize) -> SocketAddr {
        (self.network.address(node), 8053).into()
    }

    fn node(&self, node: usize) -> &Node {
        self.nodes[node].as_ref().expect("it runs")
    }

    /// What a node answers a German client. It is asked on its own host.
    fn answer(&self, node: usize) -> String {
        let server = format!("@{}", self.network.address(node));
        let subnet = format!("+subnet={GERMAN}/24");
        let words = [server.as_str(), "+short", "+time=2", "+tries=1", &subnet, "chat.ai.example.com", "A"];
        self.network.host(node).text_of("dig", &words).trim().to_owned()
    }

    #[track_caller]
    fn all_answer(&self, nodes: &[usize], address: &str) {
        for node in nodes {
            wait::until_true(&format!("node {node} answers {address}"), || self.answer(*node) == address);
        }
    }

    fn get(&self, node: usize, path: &str) -> Value {
        let (url, token) = (format!("https://{}{path}", self.api(node)), format!("authorization: Bearer {TOKEN}"));
        let text = self.network.host(node).text_of("curl", &["-sSk", "-m", "5", "-H", &token, &url]);
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Publishes on the writer.
    fn publish(&self, frankfurt: &str) {
        let setup = &self.node(0).setup;
        setup.write("new.json", &rules(&self.network, self.pattern, frankfurt).to_string());
        let mut command: Command = self.network.host(0).command(&binary().display().to_string());
        command.args(["rules", "publish"]).arg(setup.path("new.json")).args(["--reason", "a test", "--config"]);
        let output = command.arg(setup.path("bailiwick.toml")).stdin(Stdio::null()).output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Waits until a node's own probes say this of Frankfurt.
    #[track_caller]
    fn probes_say(&self, node: usize, status: &str) {
        wait::until_true(&format!("node {node} sees Frankfurt {status}"), || {
            self.get(node, "/v1/health")["regions"]["eu-frankfurt"]["probed"] == status
        });
    }
}

#[test]
fn a_node_that_is_cut_off_serves_on_takes_nothing_down_and_catches_up() {
    let Some(mut fleet) = Fleet::start("active-active") else { return };

    fleet.network.cut(2);
    fleet.probes_say(2, "down");
    wait::until_true("it knows that its own line is down", || fleet.get(2, "/v1/health")["blind"] == true);
    fleet.publish("192.0.2.2");
    fleet.all_answer(&[0, 1], "192.0.2.2");
    assert_eq!(fleet.answer(2), "192.0.2.1", "the node serves the rules that it has");
    let silent = |node: usize| fleet.get(node, "/v1/health")["fleet"]["eu-frankfurt"].clone();
    wait::until_true("the others don't hear it", || silent(0)["votes"]["silent"] == 1);
    assert_eq!(silent(0)["verdict"], "up");

    fleet.network.heal(2);
    fleet.all_answer(&[2], "192.0.2.2");
    fleet.probes_say(2, "up");

    // Frankfurt really dies: two sites of three are enough, and the third is told.
    fleet.network.cut(1);
    fleet.regions[0] = None;
    fleet.all_answer(&[0, 2], "192.0.2.40");
    assert_eq!(fleet.answer(1), "192.0.2.2", "a node alone takes nothing down");
    fleet.network.heal(1);
    fleet.all_answer(&[1], "192.0.2.40");
}

#[test]
fn a_node_whose_peers_are_all_gone_starts_and_answers() {
    let Some(mut fleet) = Fleet::start("active-active") else { return };
    fleet.publish("192.0.2.3");
    fleet.all_answer(&NODES, "192.0.2.3");
    NODES.iter().for_each(|node| fleet.network.cut(*node));
    let stopped = fleet.nodes[2].take().expect("it runs").stop();
    fleet.nodes[2] = Some(stopped.start_inside(fleet.network.host(2)));
    assert_eq!(fleet.answer(2), "192.0.2.3", "the rules that the node had last");
    let status = fleet.get(2, "/v1/fleet");
    assert_eq!(status["revision"], 2, "{status}");
}

#[test]
fn certificates_are_changed_while_rules_are_published() {
    let Some(fleet) = Fleet::start("active-active") else { return };
    let serves = |node: usize| -> String {
        let script = format!("openssl s_client -connect {} </dev/null | openssl x509 -noout -serial", fleet.api(node));
        fleet.network.host(node).text_of("sh", &["-c", &script])
    };
    let before = serves(0);
    let old = std::fs::read_to_string(fleet.file("tls.pem")).expect("a certificate");
    let (new, key) = fleet.certificate();
    fleet.write("ca.pem", &format!("{old}{new}"));
    fleet.write("tls.key", &key);
    fleet.write("tls.pem", &new);
    for node in NODES {
        wait::until_true(&format!("node {node} shows the new certificate"), || {
            let now = serves(node);
            now.starts_with("serial=") && now != before
        });
    }
    fleet.publish("192.0.2.2");
    fleet.all_answer(&NODES, "192.0.2.2");
    // What is no certificate changes nothing.
    fleet.write("ca.pem", "nonsense");
    fleet.publish("192.0.2.3");
    fleet.all_answer(&NODES, "192.0.2.3");
    // Whom nobody trusts any more isn't believed.
    fleet.write("ca.pem", &old);
    for node in NODES {
        wait::until_true(&format!("node {node} trusts nobody"), || fleet.get(node, "/v1/fleet")["connected"] == false);
    }
    fleet.write("ca.pem", &new);
    fleet.publish("192.0.2.4");
    fleet.all_answer(&NODES, "192.0.2.4");
}

#[test]
fn the_primary_stays_the_primary_while_a_node_is_cut_off() {
    let Some(fleet) = Fleet::start("active-passive") else { return };
    fleet.network.cut(2);
    fleet.probes_say(2, "down");
    let silent = |node: usize| fleet.get(node, "/v1/health")["fleet"]["eu-frankfurt"]["votes"]["silent"] == 1;
    // Until all that could make a node change its answer has happened, none does.
    wait::until_true("the others miss it, and it knows that its own line is down", || {
        NODES.iter().for_each(|node| assert_eq!(fleet.answer(*node), "192.0.2.1", "node {node}"));
        silent(0) && silent(1) && fleet.get(2, "/v1/health")["blind"] == true
    });
    fleet.network.heal(2);
    fleet.probes_say(2, "up");
    NODES.iter().for_each(|node| assert_eq!(fleet.answer(*node), "192.0.2.1", "node {node}"));
}
