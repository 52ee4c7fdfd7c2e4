//! Tests of nodes that share the pools of a store, with simulated time. The clocks of nodes and store differ. The tests
//! check what the nodes grant together, also while the store is unreachable, after its clock was set back, and if it
//! holds invalid bytes.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use bailiwick_rules::quota::{Ask, Asks};
use bailiwick_rules::table::Table;
use bailiwick_rules::time::Millis;
use tokio::time::sleep;

use super::*;

const NODES: usize = 3;
/// The requests that the quota allows in a minute.
const ALLOWED: u64 = 600;
const START: Timestamp = Timestamp(1_796_104_800_000);
/// How long a message to or from the store takes.
const LINK: Duration = Duration::from_millis(75);
const RULES: &str = r#"{
    "version": 1, "revision": 1,
    "regions": { "fra": { "countries": ["DE"],
        "endpoints": { "swc": { "url": "https://swc.example/", "quota": "swc.eu" } } } },
    "quotas": { "swc.eu": { "requests": 600, "per": "1m" } }
}"#;

/// A store in memory, as one node reaches it.
#[derive(Clone)]
struct Memory {
    all: Arc<All>,
    is_cut: Arc<AtomicBool>,
}

/// The part of the store that all nodes share.
struct All {
    keys: Mutex<BTreeMap<String, Stored>>,
    clock: Clock,
    conflicts: AtomicI64,
}

impl Memory {
    async fn link(&self) {
        sleep(LINK).await;
        if self.is_cut.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }
}

impl PoolStore for Memory {
    async fn read(&self, key: &str) -> Result<Option<Stored>, String> {
        self.link().await;
        let stored = self.all.keys.lock().unwrap().get(key).cloned();
        self.link().await;
        Ok(stored)
    }

    async fn write(&self, key: &str, bytes: Vec<u8>, after: u64) -> Result<WriteOutcome, String> {
        self.link().await;
        let written = {
            let mut keys = self.all.keys.lock().unwrap();
            let number = keys.get(key).map_or(0, |stored| stored.number);
            if number == after {
                keys.insert(key.to_owned(), Stored { bytes, number: number + 1, noted: self.all.clock.now() });
                WriteOutcome::Done
            } else {
                self.all.conflicts.fetch_add(1, Ordering::Relaxed);
                WriteOutcome::Conflict
            }
        };
        self.link().await;
        Ok(written)
    }
}

struct Node {
    turns: Turns<Memory>,
    /// The requests that the node's isolate was granted last. It reports them as spent with its next request.
    spent: u64,
}

impl Node {
    /// The clocks of nodes are a minute apart.
    fn start(at: usize, store: &Memory) -> Self {
        let leases = Leases::default();
        leases.share_among(u32::try_from(NODES).unwrap());
        let store = Memory { is_cut: Arc::default(), ..store.clone() };
        let clock = Clock::of_runtime(START.after(Millis(60_000 * at as u64)));
        Self { turns: Turns::new(store, leases, clock), spent: 0 }
    }
}

struct Fleet {
    table: Table,
    nodes: Vec<Node>,
    store: Memory,
    /// How far the store's clock is ahead of the time of the test, in milliseconds.
    ahead: Arc<AtomicI64>,
    begun: Instant,
    /// The units granted, with the time.
    granted: Vec<(Duration, u64)>,
    /// The units granted by each node.
    by_node: [u64; NODES],
}

impl Fleet {
    fn start() -> Self {
        let ahead = Arc::new(AtomicI64::new(30_000));
        let all = Arc::new(All {
            keys: Mutex::default(),
            clock: Clock::of_runtime(START).set_ahead(Arc::clone(&ahead)),
            conflicts: AtomicI64::new(0),
        });
        let store = Memory { all, is_cut: Arc::default() };
        Self {
            table: Table::compile(RULES.as_bytes()).unwrap(),
            nodes: (0..NODES).map(|at| Node::start(at, &store)).collect(),
            store,
            ahead,
            begun: Instant::now(),
            granted: Vec::new(),
            by_node: [0; NODES],
        }
    }

    /// Runs all nodes for this many seconds. The isolate of each node asks twice a second for more than there is.
    async fn run(&mut self, seconds: u32) {
        for tenth in 0..seconds * 10 {
            for (at, node) in self.nodes.iter_mut().enumerate() {
                node.turns.start(&self.table);
                if (tenth as usize + at).is_multiple_of(5) {
                    let amounts = |requests| Amounts { requests, tokens: 0 };
                    let ask =
                        Ask { spent: amounts(node.spent), want: amounts(50), least: amounts(1), ..Ask::default() };
                    let quotas = [(bailiwick_rules::id::QuotaId::parse("swc.eu").unwrap(), ask)].into();
                    let asks = Asks { isolate: String::new(), quotas, revision: 0, budgets: BTreeMap::new() };
                    let grants = node.turns.leases.ask(&self.table, at as u64, &asks, node.turns.clock.now());
                    node.spent = grants.quotas.values().map(|grant| grant.granted.requests).sum();
                    self.granted.push((self.begun.elapsed(), node.spent));
                    self.by_node[at] += node.spent;
                }
            }
            sleep(LOOK).await;
        }
    }

    /// The most units that were granted in any minute between the seconds `from` and `to`, and the mean over all these
    /// minutes.
    fn granted(&self, from: u64, to: u64) -> (u64, u64) {
        let minute = |from: u64| {
            let span = Duration::from_secs(from)..Duration::from_secs(from + 60);
            self.granted.iter().filter(|(at, _)| span.contains(at)).map(|(_, units)| units).sum::<u64>()
        };
        let minutes: Vec<u64> = (from..=to - 60).map(minute).collect();
        (minutes.iter().copied().max().unwrap(), minutes.iter().sum::<u64>() / minutes.len() as u64)
    }
}

#[tokio::test(start_paused = true)]
async fn nodes_whose_clocks_differ_grant_together_what_the_quota_allows() {
    let mut fleet = Fleet::start();
    fleet.run(300).await;
    let (most, mean) = fleet.granted(0, 300);
    println!(
        "at most {most}, mean {mean} of {ALLOWED}; {} conflicts",
        fleet.store.all.conflicts.load(Ordering::Relaxed)
    );
    assert!(most <= ALLOWED, "{most}");
    assert!(mean >= ALLOWED * 3 / 4, "{mean}");
    let fair = fleet.by_node.iter().sum::<u64>() / NODES as u64;
    let is_fair = fleet.by_node.iter().all(|units| (fair / 2..=2 * fair).contains(units));
    assert!(is_fair, "no node gets much more than another: {:?}", fleet.by_node);
    assert_eq!(fleet.store.all.keys.lock().unwrap().keys().collect::<Vec<_>>(), ["lease.quota.swc=eu"]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_cut_off_grants_its_part() {
    let mut fleet = Fleet::start();
    fleet.run(120).await;
    fleet.nodes[2].turns.store.is_cut.store(true, Ordering::Relaxed);
    fleet.run(180).await;
    fleet.nodes[2].turns.store.is_cut.store(false, Ordering::Relaxed);
    fleet.run(200).await;
    let [(before, _), (cut, mean), (after, _)] = [(0, 120), (120, 300), (340, 500)].map(|(a, b)| fleet.granted(a, b));
    println!("before {before}, one cut off {cut} (mean {mean}), after {after} of {ALLOWED}");
    assert!(before <= ALLOWED && after <= ALLOWED, "{before}, {after}");
    assert!(cut <= ALLOWED + ALLOWED / NODES as u64, "{cut}");
    assert!(mean > ALLOWED, "its own part is granted: {mean}");
}

#[tokio::test(start_paused = true)]
async fn a_store_whose_clock_is_set_back_starves_nobody() {
    let mut fleet = Fleet::start();
    fleet.run(120).await;
    fleet.ahead.store(-3_600_000, Ordering::Relaxed);
    fleet.run(10).await;
    // A new node, which never saw the store's clock before.
    fleet.nodes[2] = Node::start(2, &fleet.store);
    fleet.run(300).await;
    let (most, mean) = fleet.granted(130, 420);
    println!("after the clock was set back: at most {most}, mean {mean} of {ALLOWED}");
    assert!(most <= ALLOWED && mean >= ALLOWED * 3 / 4, "{most}, {mean}");
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_holds_nonsense_is_left_alone_and_one_that_was_deleted_begins_anew() {
    let mut fleet = Fleet::start();
    let nonsense = Stored { bytes: b"[]".to_vec(), number: 7, noted: Timestamp(0) };
    fleet.store.all.keys.lock().unwrap().insert("lease.quota.swc=eu".to_owned(), nonsense);
    fleet.run(120).await;
    let kept = fleet.store.all.keys.lock().unwrap()["lease.quota.swc=eu"].clone();
    assert_eq!((&kept.bytes[..], kept.number), (&b"[]"[..], 7));
    let (most, mean) = fleet.granted(0, 120);
    assert!(most <= ALLOWED && mean > ALLOWED / 2, "each grants its part: {most}, {mean}");

    let deleted = Stored { bytes: Vec::new(), number: 8, noted: Timestamp(1_796_104_950_000) };
    fleet.store.all.keys.lock().unwrap().insert("lease.quota.swc=eu".to_owned(), deleted);
    fleet.run(60).await;
    assert!(fleet.store.all.keys.lock().unwrap()["lease.quota.swc=eu"].number > 8);
}
