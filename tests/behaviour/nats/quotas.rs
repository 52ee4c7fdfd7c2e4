//! A quota that two nodes share by a pool in NATS, asked for by more isolates than there is room for.

use std::time::{Duration, Instant};

use bailiwick_tests::node::TOKEN;
use serde_json::json;

use super::*;

/// What the quota allows in [`PER`].
const ALLOWED: u64 = 200;
const PER: Duration = Duration::from_secs(20);

/// An isolate that spends all that it is granted.
struct Isolate {
    number: usize,
    granted: u64,
}

impl Isolate {
    /// Reports what it spent, and asks for more than there is. Returns what it is granted.
    fn ask(&mut self, node: &Node) -> u64 {
        let amounts = |requests: u64| json!({ "requests": requests });
        let ask = json!({ "spent": amounts(self.granted), "want": amounts(60), "least": amounts(1) });
        let body = json!({ "isolate": format!("{:x}", self.number + 1), "quotas": { "swc": ask } });
        let (status, answer) = node.call("POST", "/v1/leases", Some(TOKEN), Some(&body));
        assert_eq!(status, 200, "{answer}");
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        self.granted = answer["quotas"]["swc"]["granted"]["requests"].as_u64().expect("a number");
        self.granted
    }
}

/// Asks at both nodes in turn until so much time has passed. Returns what each node granted, and when.
fn asked(nodes: &[Node; 2], isolates: &mut [Isolate; 2], span: Duration) -> Vec<(Duration, usize, u64)> {
    let (begun, mut granted) = (Instant::now(), Vec::new());
    while begun.elapsed() < span {
        for (at, isolate) in isolates.iter_mut().enumerate() {
            granted.push((begun.elapsed(), at, isolate.ask(&nodes[at])));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    granted
}

#[test]
fn nodes_grant_together_what_a_quota_allows_and_apart_their_parts() {
    let world = World::start();
    let mut first = rules(&world, 1, "192.0.2.1");
    first["quotas"] = json!({ "swc": { "requests": ALLOWED, "per": "20s" } });
    let endpoint = json!({ "url": "https://swc.example/v1", "quota": "swc" });
    first["regions"]["eu-frankfurt"]["endpoints"] = json!({ "swc": endpoint });
    let Some(mut nats) = Nats::start(&["ns1", "ns2"]) else { return };
    seed(&nats, &first);
    let nodes = started(&nats, ["ns1", "ns2"]);
    nodes.iter().for_each(connected);
    wait::until_true("they know of each other", || {
        nodes.iter().all(|node| fleet(node)["peers"].as_array().is_some_and(|peers| peers.len() == 1))
    });

    let mut isolates = [0, 1].map(|number| Isolate { number, granted: 0 });
    let granted = asked(&nodes, &mut isolates, PER);
    let sum: u64 = granted.iter().map(|(_, _, units)| units).sum();
    let of = |node: usize| granted.iter().filter(|(_, at, _)| *at == node).map(|(_, _, units)| units).sum::<u64>();
    println!("granted {sum} of {ALLOWED} within {} s: {} and {}", PER.as_secs(), of(0), of(1));
    assert!(sum <= ALLOWED, "{sum}");
    assert!(sum >= ALLOWED / 2 && of(0) > ALLOWED / 8 && of(1) > ALLOWED / 8, "{sum}: {}, {}", of(0), of(1));
    let stamps = nats.read("bw_state", "lease.quota.swc").expect("the pool");
    assert!(String::from_utf8_lossy(&stamps).contains("requests_full_at_ns"));
    assert_eq!(metric(&nodes[0], "bailiwick_quota_cut_off{quota=\"swc\"}"), "0");

    (0..3).for_each(|number| nats.stop_server(number));
    wait::until_true("both are cut off from the pool", || {
        isolates.iter_mut().enumerate().for_each(|(at, isolate)| _ = isolate.ask(&nodes[at]));
        nodes.iter().all(|node| metric(node, "bailiwick_quota_cut_off{quota=\"swc\"}") == "1")
    });
    let granted = asked(&nodes, &mut isolates, PER / 2);
    let sum: u64 = granted.iter().map(|(_, _, units)| units).sum();
    println!("without NATS: {sum} within {} s", (PER / 2).as_secs());
    assert!((1..=ALLOWED).contains(&sum), "each grants its part: {sum}");
}
