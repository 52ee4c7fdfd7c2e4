//! Counts the queries that takeovers lose. Takes a number of queries and of takeovers, prints a line of JSON.
//! `scripts/bench/takeover` runs it.

use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bailiwick_tests::load::Load;
use bailiwick_tests::node::Setup;
use clap::Parser;
use serde_json::json;

/// Asks a server without a pause while processes take over from each other, and counts what got no answer.
#[derive(Debug, Parser)]
#[command(name = "bench-takeover")]
struct Arguments {
    /// How many queries are asked at least.
    #[arg(long, default_value_t = 1_000_000)]
    queries: u64,
    /// How many times another process takes over.
    #[arg(long, default_value_t = 10)]
    takeovers: u64,
    /// How many clients ask by UDP, besides one by TCP.
    #[arg(long, default_value_t = 4)]
    clients: usize,
}

const ZONE: &str =
    "$TTL 300\n@ SOA ns.example.net. h.example.net. 1 3600 600 86400 60\n@ NS ns.example.net.\nwww A 192.0.2.80\n";

fn main() -> ExitCode {
    let Arguments { queries, takeovers, clients } = Arguments::parse();
    let rules = json!({ "version": 1, "revision": 1, "jurisdictions": {}, "regions": {}, "services": {} });
    let mut node = Setup::new(&rules, ZONE).start();
    let (begun, load) = (Instant::now(), Load::start(node.dns, "www.ai.example.com", clients));
    for number in 1..=takeovers {
        // Spread over the queries.
        let due = queries * number / (takeovers + 1);
        while load.counts.asked() < due {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        node.take_over();
    }
    while load.counts.asked() < queries {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let counts = load.stop();
    let of = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
    let lost = of(&counts.lost);
    let report = json!({ "takeovers": takeovers, "udp": of(&counts.udp), "tcp": of(&counts.tcp), "lost": lost,
                       "seconds": begun.elapsed().as_secs_f64() });
    println!("{report}");
    if lost == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
