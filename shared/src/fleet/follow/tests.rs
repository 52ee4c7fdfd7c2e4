//! Random histories of heads and documents as a node sees them: lost, out of order, forged, older, missing, or from a
//! store that lost its state.

use std::collections::BTreeMap;

use super::super::head::sha256_hex;
use super::testing::{key, sign, stand_in, unsigned};
use super::*;
use crate::testing::Random;

/// How many random histories are tried.
const HISTORIES: u64 = 100_000;
/// How many offers each history has.
const OFFERS: usize = 9;
/// The seed of a publisher's key that nodes trust, and of a key that they don't.
const PUBLISHER: u8 = 1;
const STRANGER: u8 = 2;

fn trust(publishers: &[PublicKey]) -> Trust<'_> {
    Trust { publishers, verify: stand_in }
}

fn head_of(document: &[u8], revision: u64, stage: Stage) -> Head {
    let based_on = revision.checked_sub(1).filter(|base| *base > 0);
    Head { based_on, ..unsigned(revision, sha256_hex(document), stage) }
}

/// Everything that was ever published: heads by the publisher, and documents by digest. Some documents are wrong.
struct Published {
    heads: Vec<Head>,
    documents: BTreeMap<String, Vec<u8>>,
}

impl Published {
    fn random(random: &mut Random) -> Self {
        let mut published = Self { heads: Vec::new(), documents: BTreeMap::new() };
        let mut revision = 0;
        for _ in 0..4 {
            revision += 1 + random.below(2) as u64;
            let says = if random.chance(8) { revision + 1 } else { revision };
            let broken = if random.chance(8) { ", \"colour\": 1" } else { "" };
            let document = format!("{{\"version\": 1, \"revision\": {says}{broken}}}{}", " ".repeat(random.below(3)));
            let stage = random.pick(&Stage::ALL).0;
            published.add(document.clone().into_bytes(), revision, stage);
            for (later, _) in Stage::ALL.into_iter().filter(|(later, _)| *later > stage) {
                if random.chance(30) {
                    published.add(document.clone().into_bytes(), revision, later);
                }
            }
        }
        if random.chance(20) {
            // Two publications under one number. A store's compare-and-set prevents that, but a restored backup can
            // cause it.
            published.add(format!("{{\"revision\": {revision}, \"version\": 1}}").into_bytes(), revision, Stage::Rest);
        }
        published
    }

    fn add(&mut self, document: Vec<u8>, revision: u64, stage: Stage) {
        let head = sign(head_of(&document, revision, stage), PUBLISHER);
        self.documents.insert(head.sha256.clone(), document);
        self.heads.push(head);
    }

    /// The head that a store shows: any that was ever published, a forged one, or none.
    fn offer(&self, random: &mut Random) -> Option<Vec<u8>> {
        let head = random.pick(&self.heads).clone();
        let forged = match random.below(10) {
            0 => return None,
            1 => return Some(Vec::new()),
            2 => sign(Head { revision: 99, ..head }, STRANGER),
            3 => Head { revision: head.revision + 50, ..head },
            4 => Head { sha256: sha256_hex(b"other"), ..head },
            5 => Head { signature: None, ..head },
            6 => {
                let mut bytes = head.to_bytes();
                bytes.truncate(random.below(bytes.len()));
                return Some(bytes);
            }
            _ => head,
        };
        Some(forged.to_bytes())
    }

    /// What a store gives for the document with that digest: the document, another one, a part of it, or useless bytes.
    fn fetch(&self, sha256: &str, random: &mut Random) -> Vec<u8> {
        let right = self.documents.get(sha256).cloned().unwrap_or_default();
        match random.below(8) {
            0 => random.pick(&self.documents.values().cloned().collect::<Vec<_>>()).clone(),
            1 => right[..random.below(right.len())].to_vec(),
            2 => b"<html>503</html>".to_vec(),
            _ => right,
        }
    }
}

/// A node: the document that it serves, and the head that it has for that document.
#[derive(Default)]
struct Node {
    own: Option<Revision>,
    head: Option<Head>,
    bytes: Vec<u8>,
}

impl Node {
    fn follow(&mut self, published: &Published, random: &mut Random, stage: Stage, publishers: &[PublicKey]) {
        let offered = published.offer(random);
        match head(self.own(), offered.as_deref(), stage, trust(publishers)) {
            HeadStep::Keep(_) | HeadStep::Refuse(_) => {}
            HeadStep::Note(head) => self.head = Some(*head),
            HeadStep::Fetch(by) => {
                let bytes = published.fetch(&by.sha256, random);
                if let DocumentStep::Take(table) = document(self.own, Some(&by), &bytes) {
                    (self.own, self.head, self.bytes) = (Some(table.revision()), Some(*by), bytes);
                }
            }
        }
    }

    fn own(&self) -> OwnDocument<'_> {
        OwnDocument { revision: self.own, head: self.head.as_ref() }
    }
}

#[test]
fn no_history_makes_a_node_go_back_or_serve_what_was_not_published() {
    let publishers = [key(PUBLISHER)];
    let (mut taken, mut moved, mut noted) = (0_u64, 0_u64, 0_u64);
    for seed in 0..HISTORIES {
        let mut random = Random::new(seed);
        let (published, stage) = (Published::random(&mut random), random.pick(&Stage::ALL).0);
        let mut node = Node::default();
        for _ in 0..OFFERS {
            let (before, known) = (node.own, node.head.clone());
            node.follow(&published, &mut random, stage, &publishers);
            if node.own == before {
                if node.head != known {
                    noted += 1;
                    let stages = [&known, &node.head].map(|head| head.as_ref().map(|head| head.stage));
                    assert!(stages[0] < stages[1], "seed {seed}: a stage was taken back");
                    assert_eq!(
                        node.head.as_ref().and_then(Head::names),
                        node.own,
                        "seed {seed}: the head names another document"
                    );
                    assert!(
                        published.heads.contains(node.head.as_ref().expect("a head")),
                        "seed {seed}: nobody published that head"
                    );
                }
                continue;
            }
            moved += u64::from(before.is_some());
            taken += 1;
            let own = node.own.expect("a document");
            assert!(before.is_none_or(|before| before.number < own.number), "seed {seed}: the node went back");
            let head = node.head.as_ref().expect("a head");
            assert!(published.heads.contains(head), "seed {seed}: nobody published {own}");
            assert_eq!(head.names(), Some(own), "seed {seed}");
            assert!(head.stage >= stage, "seed {seed}: it was not this node's turn");
            assert_eq!(sha256_hex(&node.bytes), head.sha256, "seed {seed}");
            let table = Table::compile(&node.bytes).unwrap_or_else(|_| panic!("seed {seed}: it has mistakes"));
            assert_eq!(table.revision(), own, "seed {seed}");
        }
    }
    assert!(taken > HISTORIES / 2 && moved > HISTORIES / 20, "{taken} taken, {moved} of them replaced another");
    assert!(noted > HISTORIES / 100, "{noted} heads of later stages");
    println!("histories of a node that follows: {HISTORIES} random cases");
}

#[test]
fn all_nodes_end_on_the_highest_once_it_arrives_whatever_came_before() {
    let publishers = [key(PUBLISHER)];
    for seed in 0..HISTORIES / 20 {
        let mut random = Random::new(seed);
        let mut published = Published::random(&mut random);
        let mut nodes: [Node; 3] = Default::default();
        for _ in 0..OFFERS {
            let node = random.below(nodes.len());
            nodes[node].follow(&published, &mut random, Stage::Rest, &publishers);
        }
        published.add(b"{\"version\": 1, \"revision\": 40}".to_vec(), 40, Stage::Rest);
        let last = published.heads.last().expect("a head").clone();
        for node in &mut nodes {
            let HeadStep::Fetch(by) = head(node.own(), Some(&last.to_bytes()), Stage::Rest, trust(&publishers)) else {
                panic!("seed {seed}: the newest isn't fetched");
            };
            let bytes = &published.documents[&by.sha256];
            assert!(matches!(document(node.own, Some(&by), bytes), DocumentStep::Take(_)), "seed {seed}");
        }
    }
}

#[test]
fn what_is_offered_is_kept_refused_or_taken_for_a_reason() {
    let document = |revision: u64| format!("{{\"version\": 1, \"revision\": {revision}}}").into_bytes();
    let own = Table::compile(&document(7)).expect("rules").revision();
    let publishers = [key(PUBLISHER)];
    let signed = |revision: u64, stage| sign(head_of(&document(revision), revision, stage), PUBLISHER);
    let known = signed(7, Stage::Early);
    let whole = OwnDocument { revision: Some(own), head: Some(&known) };
    let seen = |head: &Head| super::head(whole, Some(&head.to_bytes()), Stage::Early, trust(&publishers));
    assert_eq!(seen(&signed(7, Stage::Early)), HeadStep::Keep(NoChange::Same));
    assert_eq!(seen(&signed(7, Stage::Canary)), HeadStep::Keep(NoChange::Same), "a stage is never taken back");
    assert_eq!(seen(&signed(7, Stage::Rest)), HeadStep::Note(Box::new(signed(7, Stage::Rest))));
    let forged = Head { stage: Stage::Rest, ..known.clone() };
    assert!(matches!(seen(&forged), HeadStep::Refuse(Refusal::Head(HeadError::Forged(_)))), "nobody signed that stage");
    let bare = OwnDocument { revision: Some(own), head: None };
    let first = super::head(bare, Some(&known.to_bytes()), Stage::Rest, trust(&publishers));
    assert_eq!(first, HeadStep::Note(Box::new(known.clone())), "a document without a head gets its first");
    assert_eq!(seen(&signed(6, Stage::Rest)), HeadStep::Keep(NoChange::Older(6)));
    assert_eq!(seen(&signed(8, Stage::Canary)), HeadStep::Keep(NoChange::Later(8)));
    assert_eq!(seen(&signed(8, Stage::Early)), HeadStep::Fetch(Box::new(signed(8, Stage::Early))));
    let other = sign(head_of(b"other", 7, Stage::Rest), PUBLISHER);
    assert_eq!(seen(&other), HeadStep::Refuse(Refusal::Conflict(7)));
    let unsigned = head_of(&document(8), 8, Stage::Rest);
    assert_eq!(seen(&unsigned), HeadStep::Refuse(Refusal::Head(HeadError::Unsigned)));
    let open = super::head(whole, Some(&unsigned.to_bytes()), Stage::Rest, trust(&[]));
    assert!(matches!(open, HeadStep::Fetch(_)), "without publishers heads need no signature");

    let by = |revision: u64, bytes: &[u8]| match super::document(
        Some(own),
        Some(&head_of(bytes, revision, Stage::Rest)),
        bytes,
    ) {
        DocumentStep::Refuse(refusal) => Some(refusal.label()),
        DocumentStep::Keep(_) | DocumentStep::Take(_) => None,
    };
    assert_eq!([by(9, &document(9)), by(9, &document(8)), by(9, b"{}")], [None, Some("revision"), Some("rules")]);
    assert_eq!(by(9, &vec![b' '; LARGEST_DOCUMENT + 1]), Some("size"));
    let alone = |bytes: &[u8]| format!("{:?}", super::document(Some(own), None, bytes).told());
    assert_eq!(alone(&document(7)), "Keep(Same)");
    assert_eq!(alone(&document(6)), "Keep(Older(6))");
    assert_eq!(alone(b"{\"revision\": 7, \"version\": 1}"), "Refuse(\"conflict\")");
    assert_eq!(alone(&document(8)), "Take");
}

impl DocumentStep {
    fn told(&self) -> Told {
        match self {
            Self::Keep(kept) => Told::Keep(*kept),
            Self::Take(_) => Told::Take,
            Self::Refuse(refusal) => Told::Refuse(refusal.label()),
        }
    }
}

/// A step without the data that it carries.
#[derive(Debug)]
#[allow(dead_code, reason = "read by Debug")]
enum Told {
    Keep(NoChange),
    Take,
    Refuse(&'static str),
}

#[test]
fn a_node_without_a_document_learns_it_from_whoever_has_the_highest() {
    assert_eq!(first(None, &[]), First::Nobody);
    assert_eq!(first(None, &[None, None]), First::Nobody);
    assert_eq!(first(Some(7), &[]), First::Store);
    assert_eq!(first(Some(7), &[Some(7), None]), First::Store);
    assert_eq!(first(Some(7), &[None, Some(9), Some(9)]), First::Peer(1), "the store was restored from a backup");
    assert_eq!(first(None, &[Some(3), Some(4)]), First::Peer(1));
}

#[test]
fn every_refusal_has_a_label_and_a_sentence() {
    let all = [
        Refusal::Head(HeadError::Unsigned),
        Refusal::Conflict(7),
        Refusal::TooLarge,
        Refusal::Digest(7),
        Refusal::Revision { head: 7, document: 8 },
        Refusal::Rules(Table::compile(b"{}").expect_err("mistakes")),
    ];
    assert_eq!(all.each_ref().map(Refusal::label), Refusal::LABELS);
    assert!(all.iter().all(|refusal| refusal.to_string().len() > 20));
}
