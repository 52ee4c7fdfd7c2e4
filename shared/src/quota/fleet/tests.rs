//! Simulates nodes that share a pool by compare-and-set in a store: what is sent is compared with what is allowed,
//! while all links work and while some are cut.

use std::collections::VecDeque;

use super::*;
use crate::quota::{Cost, Grant, LEASE, Ledger, Limit, Pool, Share};
use crate::testing::Random;

const NOW: i64 = 1_796_104_800_000;
const MINUTE: i64 = 60_000;
/// How long a message takes between an isolate and its node, and between a node and the store, in milliseconds.
const TO_NODE: i64 = 20;
const TO_STORE: i64 = 40;
/// How long a node waits for the store, in milliseconds.
const PATIENCE: i64 = 1_000;
const NODES: usize = 4;

/// How far a node's turn with the store has come.
enum Step {
    /// The state that the node read arrives at the node.
    Read { stamps: Stamps, revision: u64 },
    /// The node's change arrives at the store.
    Write { stamps: Stamps, revision: u64, got: Amounts },
    /// The store's answer arrives at the node: the units that it gave, or `None` after a conflict.
    Done(Option<Amounts>),
    /// The store doesn't answer.
    Silence,
}

#[derive(Default)]
struct Node {
    ledger: Ledger,
    allowance: Allowance,
    turn: Option<(i64, Turn, Step)>,
    /// The time during which the node reaches its isolates but not the store.
    cut: core::ops::Range<i64>,
}

/// Isolates, two at each node, that send as many requests as they may.
struct Fleet {
    limits: Limits,
    nodes: Vec<Node>,
    isolates: Vec<(Pool, Share)>,
    grants: VecDeque<(i64, usize, Grant)>,
    stamps: Stamps,
    revision: u64,
    conflicts: u64,
    sent: Vec<i64>,
    /// The requests that each node's isolates sent.
    by_node: [u64; NODES],
    random: Random,
}

impl Fleet {
    fn new(requests: u64) -> Self {
        let lag = Millis(LEASE.0 + HELD_FOR.0);
        let limit = Limit { amount: requests, per: Millis(60_000), burst: Millis(1_000), headroom: Ratio(0), lag };
        Self {
            limits: Limits::new(Some(limit), None, Vec::new()),
            nodes: (0..NODES).map(|_| Node::default()).collect(),
            isolates: vec![Default::default(); 2 * NODES],
            grants: VecDeque::new(),
            stamps: Stamps::default(),
            revision: 0,
            conflicts: 0,
            sent: Vec::new(),
            by_node: [0; NODES],
            random: Random::new(11),
        }
    }

    fn request(&mut self, isolate: usize, ms: i64) {
        let (cost, now) = (Cost { requests: 1, tokens: 0 }, Timestamp(NOW + ms));
        let (pool, share) = &mut self.isolates[isolate];
        if pool.check(&self.limits, None, cost, now).is_ok() && share.wait(&self.limits, cost, now) == Millis(0) {
            pool.charge(&self.limits, None, cost, now);
            share.charge(&self.limits, cost, now);
            self.sent.push(ms);
            self.by_node[isolate % NODES] += 1;
        } else {
            share.note_lack(cost);
        }
        if share.is_due(now) {
            let (ask, then) = (share.ask(pool.closed(now), now), Timestamp(NOW + ms + TO_NODE));
            let node = &mut self.nodes[isolate % NODES];
            let allowance = (&mut node.allowance, u32::try_from(NODES).unwrap());
            let grant = node.ledger.ask_in_fleet(&self.limits, allowance, isolate as u64, &ask, then);
            self.grants.push_back((ms + 2 * TO_NODE, isolate, grant));
        }
    }

    /// Lets a node begin its turn if that is due, and carries out the next step of its turn when it is due.
    fn advance(&mut self, at: usize, ms: i64) {
        let now = Timestamp(NOW + ms);
        let random = self.random.bits();
        let node = &mut self.nodes[at];
        let is_cut = node.cut.contains(&ms);
        let read = |stamps, revision| Step::Read { stamps, revision };
        match node.turn.take() {
            None if node.allowance.is_due(now) => {
                let turn = node.allowance.begin_turn(now);
                if !turn.is_empty() {
                    let next = (ms + 2 * TO_STORE, turn, read(self.stamps, self.revision));
                    node.turn = Some(if is_cut { (ms + PATIENCE, turn, Step::Silence) } else { next });
                }
            }
            None => {}
            Some((due, turn, step)) if due > ms => node.turn = Some((due, turn, step)),
            Some((_, turn, _)) if is_cut => {
                node.turn = None;
                node.allowance.fail(&turn, now, random);
            }
            Some((_, turn, Step::Read { stamps, revision })) => {
                let (stamps, got) = stamps.turn(&self.limits, &turn, now);
                node.turn = Some((ms + TO_STORE, turn, Step::Write { stamps, revision, got }));
            }
            Some((_, turn, Step::Write { stamps, revision, got })) => {
                let is_newest = revision == self.revision;
                if is_newest {
                    (self.stamps, self.revision) = (stamps, revision + 1);
                } else {
                    self.conflicts += 1;
                }
                node.turn = Some((ms + TO_STORE, turn, Step::Done(is_newest.then_some(got))));
            }
            Some((_, turn, Step::Done(None))) => {
                node.turn = Some((ms + 2 * TO_STORE, turn, read(self.stamps, self.revision)));
            }
            Some((_, _, Step::Done(Some(got)))) => node.allowance.receive(got, now, random),
            Some((_, turn, Step::Silence)) => node.allowance.fail(&turn, now, random),
        }
    }

    /// Every isolate sends a request each `pause` milliseconds.
    fn run(&mut self, pause: i64, from: i64, to: i64) {
        for ms in from..to {
            while let Some((_, isolate, grant)) = self.grants.front().copied().filter(|(due, _, _)| *due <= ms) {
                self.grants.pop_front();
                self.isolates[isolate].1.note_answer(&grant);
            }
            (0..NODES).for_each(|node| self.advance(node, ms));
            for isolate in 0..self.isolates.len() {
                if (ms + 7 * isolate as i64) % pause == 0 {
                    self.request(isolate, ms);
                }
            }
        }
    }

    /// Of all minutes within a span: the most requests sent in one of them, and the mean.
    fn most(&self, from: i64, to: i64) -> (usize, usize) {
        let within = |from: i64| {
            self.sent.partition_point(|at| *at < from + MINUTE) - self.sent.partition_point(|at| *at < from)
        };
        let minutes = (from..=to - MINUTE).step_by(500).map(within);
        (minutes.clone().max().unwrap_or(0), minutes.clone().sum::<usize>() / minutes.count().max(1))
    }
}

#[test]
fn four_nodes_grant_together_what_one_may() {
    for (requests, pause) in [(600_usize, 100), (6_000, 40), (60_000, 4)] {
        let mut fleet = Fleet::new(requests as u64);
        fleet.run(pause, 0, 10 * MINUTE);
        let (most, mean) = fleet.most(0, 10 * MINUTE);
        println!("{requests} a minute: at most {most}, mean {mean}, {} conflicts", fleet.conflicts);
        assert!(most <= requests, "{most} of {requests}");
        assert!(mean * 100 >= requests * 80, "{mean} of {requests}");
        let fair = fleet.sent.len() as u64 / NODES as u64;
        let is_fair = |count: &u64| (fair / 2..=2 * fair).contains(count);
        assert!(fleet.by_node.iter().all(is_fair), "no node gets much more than another: {:?}", fleet.by_node);
    }
}

#[test]
fn a_node_that_is_cut_off_adds_its_part_and_no_more() {
    let mut fleet = Fleet::new(6_000);
    fleet.nodes[3].cut = 3 * MINUTE..6 * MINUTE;
    fleet.run(40, 0, 10 * MINUTE);
    let (before, _) = fleet.most(0, 3 * MINUTE);
    let (cut, mean) = fleet.most(3 * MINUTE, 6 * MINUTE);
    let (after, _) = fleet.most(7 * MINUTE, 10 * MINUTE);
    println!("before {before}, cut off {cut} (mean {mean}), after {after}, of 6000 a minute");
    assert!(before <= 6_000 && after <= 6_000, "{before}, {after}");
    assert!(cut <= 6_000 + 6_000 / NODES, "{cut}");
    assert!(mean > 6_000, "its own part is granted: {mean}");
}

#[test]
fn without_a_store_each_node_grants_its_part() {
    let mut fleet = Fleet::new(6_000);
    fleet.nodes.iter_mut().for_each(|node| node.cut = 0..20 * MINUTE);
    fleet.run(40, 0, 4 * MINUTE);
    let (most, mean) = fleet.most(0, 4 * MINUTE);
    println!("no store: at most {most}, mean {mean} of 6000 a minute");
    assert!(most <= 6_000 && mean > 4_000, "{most}, {mean}");
}

#[test]
fn what_the_store_keeps_is_read_again_and_nothing_else_is() {
    let limits = Fleet::new(600).limits;
    let want = Turn { want: Amounts { requests: 5, tokens: 0 }, ..Turn::default() };
    let (stamps, _) = Stamps::default().turn(&limits, &want, Timestamp(NOW));
    for stamps in [stamps, Stamps::default()] {
        assert_eq!(Stamps::read(&stamps.write()), Ok(stamps));
    }
    for broken in ["", "null", "{}", r#"{"requests_full_at_ns":1e99,"tokens_full_at_ns":0}"#, "[1]"] {
        assert!(Stamps::read(broken.as_bytes()).unwrap_err().contains("isn't the state of a quota"), "{broken}");
    }
    // However far in the future a stamp lies, the pool is empty for at most its span.
    let absurd = Stamps { requests_full_at_ns: i64::MAX, tokens_full_at_ns: i64::MAX };
    let (healed, got) = absurd.turn(&limits, &want, Timestamp(NOW));
    assert_eq!(got.requests, 0);
    let (_, got) = healed.turn(&limits, &want, Timestamp(NOW + 2 * MINUTE));
    assert_eq!(got.requests, 5);
}
