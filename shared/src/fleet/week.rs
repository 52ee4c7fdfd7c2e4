//! A week of a large fleet, simulated: 200 nodes, documents of 1,000 regions, 100 publications, links that fail at
//! random, a store that is restored from old backups, forged heads (a head says which rules are published). Time is a
//! number, and randomness comes from a seed. Only the functions that decide are run: [`super::follow`] and
//! [`super::stages`].
//!
//! A node acts when something happens to it: a head is published or put back, its link heals, or its own next poll
//! after that is due. Polls that would see the same bytes again are left out, because a decision depends on nothing
//! else. [`follow::document`] judges a document's bytes once, and again in one of a hundred fetches.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::follow::testing::{key, sign, stand_in};
use super::follow::{self, DocumentStep, HeadStep, NoChange, OwnDocument, Trust};
use super::head::{Head, Stage, sha256_hex};
use super::stages::{Answers, Care, NodeReport, Prediction, Step, next};
use crate::geo::CountryCode;
use crate::steer::{Client, PathClass, rank, stand};
use crate::table::{Revision, ServiceIndex, Table};
use crate::testing::Random;
use crate::time::{Millis, Timestamp};

const NODES: usize = 200;
const REGIONS: usize = 1_000;
const PUBLISHES: u64 = 100;
/// The simulated time, in seconds, like all times here.
const WEEK: u64 = 7 * 86_400;
/// How often a node asks for the head even if nothing woke it.
const POLL: u64 = 30;
/// How often the rollout (the way of a revision through the stages) is checked.
const LOOK: u64 = 30;
/// The mean time between two failures of a node's link, and the mean length of a failure.
const BETWEEN: u64 = 8 * 3_600;
const OUTAGE: u64 = 1_200;
const PUBLISHER: u8 = 1;
const STRANGER: u8 = 2;

/// A document that was published, or that a forger would like to publish.
struct Document {
    revision: Revision,
    bytes: Vec<u8>,
    /// The regions that a German client may be served in, by name.
    fence: Vec<String>,
    head: Head,
}

/// Rules of 1,000 regions; a German client may be served in the first `fence` of them.
fn document(number: u64, fence: usize, stage: Stage) -> Document {
    let regions: serde_json::Map<String, Value> =
        (0..REGIONS).map(|n| (format!("r{n:03}"), json!({ "countries": ["DE"] }))).collect();
    let own: Vec<String> = (0..fence).map(|n| format!("r{n:03}")).collect();
    let rules = json!({ "version": 1, "revision": number, "jurisdictions": { "de": { "countries": ["DE"] } },
        "regions": regions, "services": { "chat": { "hosts": ["chat.example"], "pattern": "active-active",
            "regions": own, "residency": [{ "clients": ["de"], "process_in": ["de"] }] } } });
    let bytes = rules.to_string().into_bytes();
    let head = Head {
        revision: number,
        sha256: sha256_hex(&bytes),
        based_on: number.checked_sub(1).filter(|base| *base > 0),
        author: "ann".into(),
        reason: "a week".into(),
        created_at: Timestamp(0),
        stage,
        approvals: Vec::new(),
        impact: None,
        signature: None,
    };
    let DocumentStep::Take(table) = follow::document(None, Some(&head), &bytes) else { panic!("sound rules") };
    Document { revision: table.revision(), fence: fence_of(&table), bytes, head }
}

fn fence_of(table: &Table) -> Vec<String> {
    let client = Client { country: CountryCode::parse("DE"), ..Client::default() };
    let ranking = rank(table, ServiceIndex(0), &stand(table, &client), PathClass::Inference);
    let mut fence: Vec<String> = ranking.regions().iter().map(|region| table.region(*region).id.to_string()).collect();
    fence.sort();
    fence
}

/// One node.
struct Node {
    stage: Stage,
    serves: Option<Revision>,
    head: Option<Head>,
    since: u64,
    /// When its link fails, and when it is back.
    outages: Vec<(u64, u64)>,
}

impl Node {
    fn new(random: &mut Random, at: usize) -> Self {
        let stage = match at % 20 {
            0 => Stage::Canary,
            1..=4 => Stage::Early,
            _ => Stage::Rest,
        };
        let (mut outages, mut from) = (Vec::new(), 0);
        loop {
            from += 60 + random.bits() % (2 * BETWEEN);
            let until = from + 1 + random.bits() % (2 * OUTAGE);
            if until >= WEEK {
                return Self { stage, serves: None, head: None, since: 0, outages };
            }
            outages.push((from, until));
            from = until;
        }
    }

    fn is_cut_off(&self, now: u64) -> bool {
        self.outages.iter().any(|(from, until)| (*from..*until).contains(&now))
    }

    /// When the node sees what the store holds at `now`: within a second by its watch of the store, or by its first
    /// poll after its link is back.
    fn sees(&self, now: u64, random: &mut Random) -> u64 {
        match self.outages.iter().find(|(from, until)| (*from..*until).contains(&now)) {
            None => now + 1,
            Some((_, until)) => until + random.bits() % POLL,
        }
    }
}

/// What happens.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Event {
    /// The operator publishes.
    Publish,
    /// The store is put back to an older head, emptied, or given a forged head. [`Event::Mend`] follows a while later.
    Spoil,
    Mend,
    /// The rollout is checked.
    Look,
    /// A node looks at the store.
    Node(usize),
}

struct Week {
    random: Random,
    /// By time, then in the order in which they were added.
    events: BTreeMap<(u64, u64), Event>,
    count: u64,
    nodes: Vec<Node>,
    documents: BTreeMap<String, Document>,
    /// The digests of the published documents, in order.
    published: Vec<String>,
    /// When each revision was offered to a stage.
    offered: BTreeMap<(u64, Stage), u64>,
    /// The head that the store holds, and the one that it should hold.
    stored: Option<Vec<u8>>,
    true_head: Option<Vec<u8>>,
    forged: Document,
    /// How long each node took for each revision after its stage was offered it.
    delays: Vec<u64>,
    refused: u64,
    kept_older: u64,
    noted: u64,
    advanced: u64,
}

impl Week {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let nodes = (0..NODES).map(|at| Node::new(&mut random, at)).collect();
        let mut week = Self {
            random,
            events: BTreeMap::new(),
            count: 0,
            nodes,
            documents: BTreeMap::new(),
            published: Vec::new(),
            offered: BTreeMap::new(),
            stored: None,
            true_head: None,
            forged: document(1_000_000, REGIONS, Stage::Rest),
            delays: Vec::new(),
            refused: 0,
            kept_older: 0,
            noted: 0,
            advanced: 0,
        };
        for n in 0..PUBLISHES {
            week.at(3_600 + n * (WEEK - 14_400) / PUBLISHES, Event::Publish);
        }
        for _ in 0..40 {
            let at = week.random.bits() % (WEEK - 7_200);
            week.at(at, Event::Spoil);
        }
        week
    }

    fn at(&mut self, time: u64, event: Event) {
        self.count += 1;
        self.events.insert((time, self.count), event);
    }

    fn wake_all(&mut self, now: u64) {
        for node in 0..NODES {
            let at = self.nodes[node].sees(now, &mut self.random);
            self.at(at, Event::Node(node));
        }
    }

    fn run(&mut self) -> u64 {
        let mut last = 0;
        while let Some(((now, _), event)) = self.events.pop_first() {
            last = now;
            match event {
                Event::Publish => self.publish(now),
                Event::Spoil => self.spoil(now),
                Event::Mend => {
                    self.stored.clone_from(&self.true_head);
                    self.wake_all(now);
                }
                Event::Look => self.look(now),
                Event::Node(node) => self.node(now, node),
            }
        }
        last
    }

    fn publish(&mut self, now: u64) {
        let number = self.published.len() as u64 + 1;
        let stage = if self.random.chance(50) { Stage::Canary } else { Stage::Rest };
        let fence = 10 + self.random.below(50);
        let new = document(number, fence, stage);
        self.store(now, &new.head);
        self.published.push(new.head.sha256.clone());
        self.documents.insert(new.head.sha256.clone(), new);
        self.at(now + LOOK, Event::Look);
    }

    fn store(&mut self, now: u64, head: &Head) {
        let bytes = sign(head.clone(), PUBLISHER).to_bytes();
        (self.stored, self.true_head) = (Some(bytes.clone()), Some(bytes));
        for (stage, _) in Stage::ALL.into_iter().filter(|(stage, _)| *stage <= head.stage) {
            self.offered.entry((head.revision, stage)).or_insert(now);
        }
        self.wake_all(now);
    }

    fn spoil(&mut self, now: u64) {
        self.stored = match (self.random.below(3), self.published.first()) {
            (0, Some(_)) => {
                let old = self.random.below(self.published.len());
                let old = Head { stage: Stage::Rest, ..self.documents[&self.published[old]].head.clone() };
                Some(sign(old, PUBLISHER).to_bytes())
            }
            (1, _) => Some(sign(self.forged.head.clone(), STRANGER).to_bytes()),
            _ => None,
        };
        self.wake_all(now);
        let mended = now + 60 + self.random.bits() % 1_800;
        self.at(mended, Event::Mend);
    }

    /// Decides about the next stage of the newest document, from what the nodes report.
    fn look(&mut self, now: u64) {
        let Some(newest) = self.published.last().map(|sha256| self.documents[sha256].head.clone()) else { return };
        let report = |(at, node): (usize, &Node)| {
            let serves = node.serves?;
            let serves_for = Millis((now - node.since) * 1_000);
            let (before, since) = (Answers::default(), Answers::default());
            let (node, stage, is_live) = (at.to_string(), node.stage, !node.is_cut_off(now));
            // The watching command has had a report of every node before.
            let is_gone = !is_live;
            Some(NodeReport { node, stage, is_live, is_gone, serves, serves_for, before, since })
        };
        let reports: Vec<NodeReport> = self.nodes.iter().enumerate().filter_map(report).collect();
        match next(&newest, &reports, &Prediction::new(), &Care::default()) {
            Step::Done => return,
            Step::Advance(stage) => {
                self.advanced += 1;
                let (newest_name, head) = (newest.sha256.clone(), Head { stage, ..newest });
                self.store(now, &head);
                self.documents.get_mut(&newest_name).expect("published").head = head;
            }
            Step::Wait(_) => {}
            Step::Abort(fault) => panic!("nothing is wrong: {fault}"),
        }
        self.at(now + LOOK, Event::Look);
    }

    fn node(&mut self, now: u64, at: usize) {
        let node = &self.nodes[at];
        if node.is_cut_off(now) {
            let sees = node.sees(now, &mut self.random);
            return self.at(sees, Event::Node(at));
        }
        let publishers = [key(PUBLISHER)];
        let trust = Trust { publishers: &publishers, verify: stand_in };
        let own = OwnDocument { revision: node.serves, head: node.head.as_ref() };
        match follow::head(own, self.stored.as_deref(), node.stage, trust) {
            HeadStep::Keep(NoChange::Older(_)) => self.kept_older += 1,
            HeadStep::Keep(_) => {}
            HeadStep::Refuse(_) => self.refused += 1,
            HeadStep::Note(head) => {
                let before = node.head.as_ref().map(|head| head.stage);
                assert!(before < Some(head.stage), "a stage is never taken back");
                self.noted += 1;
                self.nodes[at].head = Some(*head);
            }
            HeadStep::Fetch(head) => {
                let document = &self.documents[&head.sha256];
                if self.random.chance(1) {
                    let step = follow::document(node.serves, Some(&head), &document.bytes);
                    assert!(matches!(step, DocumentStep::Take(_)), "the same bytes were taken before: {step:?}");
                }
                let had = node.serves.map_or(0, |serves| serves.number);
                assert!(document.revision.number > had, "a node never goes back");
                let stage = node.stage;
                let passed =
                    (had + 1..=document.revision.number).filter_map(|number| self.offered.get(&(number, stage)));
                self.delays.extend(passed.map(|offered| now - offered));
                let revision = Some(document.revision);
                let node = &mut self.nodes[at];
                (node.serves, node.head, node.since) = (revision, Some(*head), now);
            }
        }
    }
}

#[test]
fn after_a_week_of_lost_links_every_node_has_the_last_revision_and_no_fence_was_wider() {
    let begun = std::time::Instant::now();
    let mut week = Week::new(16);
    let last = week.run();
    let took = begun.elapsed();
    let newest = &week.documents[week.published.last().unwrap()];
    assert_eq!(newest.revision.number, PUBLISHES);
    for (at, node) in week.nodes.iter().enumerate() {
        assert_eq!(node.serves, Some(newest.revision), "node {at}");
        assert_eq!(
            node.head.as_ref().map(|head| head.stage),
            Some(Stage::Rest),
            "node {at} knows that all may have it"
        );
    }
    // A node serves only published documents, so no fence is wider than the widest of theirs.
    let widest = week.published.iter().map(|sha256| week.documents[sha256].fence.len()).max().unwrap();
    assert!(widest < week.forged.fence.len(), "{widest}");
    assert!(week.refused > 1_000 && week.kept_older > 1_000, "{}, {}", week.refused, week.kept_older);
    assert!(week.noted > 100, "{}", week.noted);
    let mut delays = std::mem::take(&mut week.delays);
    delays.sort_unstable();
    assert!(delays.len() > NODES * 50, "{} offers", delays.len());
    let at = |per_mille: usize| delays[(delays.len() - 1) * per_mille / 1_000];
    println!(
        "fleet: a week of {NODES} nodes, {REGIONS} regions, {PUBLISHES} publishes, {} stages, until {last} s: half of \
         all within {} s, p99 {} s, all {} s; {} heads refused, {} older ones ignored; simulated in {took:?}",
        week.advanced,
        at(500),
        at(990),
        at(1_000),
        week.refused,
        week.kept_older
    );
}
