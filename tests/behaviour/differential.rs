//! The same random questions to random static zones, put to bailiwick, NSD and Knot: response code, AA and every
//! section are compared, order apart. `scripts/differential` asks a hundred thousand; the ordinary run some thousands.
//!
//! Differences that are no faults are named where they are forgiven ([`forgiven`]), each with its reason.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use bailiwick_rules::testing::Random;
use bailiwick_tests::dns::Reply;
use bailiwick_tests::node::{Node, Setup};
use bailiwick_tests::peer;
use hickory_proto::op::{Edns, Message, Query};
use hickory_proto::rr::{Name, Record, RecordType};
use serde_json::json;

/// The labels names are made of: few, so that questions meet what is there.
const LABELS: [&str; 7] = ["a", "b", "c", "d", "*", "www", "ns"];
const TYPES: [RecordType; 12] = [
    RecordType::A,
    RecordType::AAAA,
    RecordType::TXT,
    RecordType::MX,
    RecordType::NS,
    RecordType::SOA,
    RecordType::CNAME,
    RecordType::SRV,
    RecordType::CAA,
    RecordType::DS,
    RecordType::DNAME,
    RecordType::PTR,
];

#[test]
fn random_questions_get_the_answers_of_nsd_and_knot() {
    compare(seed(), 8, number("BAILIWICK_QUERIES", 4_000));
}

#[test]
#[ignore = "takes minutes; scripts/differential runs it"]
fn a_hundred_thousand_random_questions_get_the_answers_of_nsd_and_knot() {
    compare(seed(), 100, number("BAILIWICK_QUERIES", 100_000));
}

fn seed() -> u64 {
    number("BAILIWICK_SEED", 20_261_120) as u64
}

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn compare(seed: u64, zones: usize, queries: usize) {
    let mut random = Random::new(seed);
    let zones: Vec<(String, String)> = (0..zones).map(|number| zone(&mut random, number)).collect();
    let peers: Vec<_> = [peer::nsd(&zones), peer::knot(&zones)].into_iter().flatten().collect();
    if peers.is_empty() {
        println!("skipped: neither NSD nor Knot is installed; run scripts/setup");
        return;
    }
    let node = serve(&zones);
    let mut tally = Tally::default();
    let us = Asker::new(node.dns);
    let them: Vec<_> = peers.iter().map(|peer| (peer.name, Asker::new(peer.address))).collect();
    for number in 0..queries {
        let (origin, text) = random.pick(&zones);
        let question = Question::random(&mut random, origin);
        let packet = question.to_wire(u16::try_from(number % 65_536).unwrap_or_default());
        let ours = Answer::read(&us.ask(&packet));
        for (name, asker) in &them {
            let theirs = Answer::read(&asker.ask(&packet));
            tally.note(name, &question, text, &ours, &theirs);
        }
    }
    tally.print(seed, zones.len(), queries);
    assert!(tally.faults.is_empty(), "{} questions were answered otherwise", tally.faults.len());
}

fn serve(zones: &[(String, String)]) -> Node {
    let setup = Setup::new(&json!({ "version": 1, "revision": 1 }), "");
    let mut config = String::from("responses = \"full\"\nlisten = [\"127.0.0.1:0\"]\nrules = \"rules.json\"\n");
    config += "[api]\nlisten = \"127.0.0.1:0\"\ntoken_file = \"api.token\"\n[zones]\n";
    for (origin, text) in zones {
        setup.write(&format!("{origin}.zone"), text);
        let _ = writeln!(config, "\"{origin}\" = \"{origin}.zone\"");
    }
    setup.write("bailiwick.toml", &config);
    setup.start()
}

/// A zone of random names, sound enough for every server to load it.
fn zone(random: &mut Random, number: usize) -> (String, String) {
    let origin = format!("z{number}.example");
    let mut text = format!(
        "$ORIGIN {origin}.\n$TTL 300\n@ SOA ns h {number} 3600 600 86400 {}\n@ NS ns\n@ NS ns.elsewhere.test.\n",
        60 + number
    );
    text += "ns A 192.0.2.53\nns AAAA 2001:db8::53\n";
    let mut taken = BTreeSet::from([String::from("ns")]);
    // Below a CNAME, a DNAME or a cut other rules hold; a cut's own glue is written with it.
    let mut closed: BTreeSet<String> = BTreeSet::new();
    for _ in 0..4 + random.below(14) {
        let owner = name(random);
        let is_closed = closed.iter().any(|above| owner == *above || owner.ends_with(&format!(".{above}")));
        if is_closed || !taken.insert(owner.clone()) {
            continue;
        }
        let has_below = taken.iter().any(|other| other.ends_with(&format!(".{owner}")));
        match random.below(12) {
            0 => {
                let _ = writeln!(text, "{owner} CNAME {}", target(random));
            }
            1 if !has_below && !owner.contains('*') => {
                closed.insert(owner.clone());
                let _ = writeln!(text, "{owner} DNAME {}", target(random));
                if random.chance(50) {
                    let _ = writeln!(text, "{owner} TXT \"beside a DNAME\"");
                }
            }
            2 | 3 if !has_below && !owner.contains('*') => {
                closed.insert(owner.clone());
                let _ = writeln!(text, "{owner} NS ns.{owner}\nns.{owner} A 192.0.2.{}", random.below(250));
                if random.chance(40) {
                    let _ = writeln!(text, "ns.{owner} AAAA 2001:db8::{}\n{owner} NS ns", random.below(999));
                }
                if random.chance(30) {
                    let _ = writeln!(text, "{owner} DS {} 13 2 {:064x}", random.below(65_536), random.bits());
                }
            }
            _ => {
                for _ in 0..=random.below(3) {
                    let (one, two) = (random.below(250), random.below(9));
                    let _ = match random.below(7) {
                        0 | 1 => writeln!(text, "{owner} A 192.0.2.{one}"),
                        2 => writeln!(text, "{owner} 60 AAAA 2001:db8::{one}"),
                        3 => writeln!(text, "{owner} 120 TXT \"text {one}\" \"{two}\""),
                        4 => writeln!(text, "{owner} 300 MX {one} {}", target(random)),
                        5 => writeln!(text, "{owner} SRV {two} 0 443 {}", target(random)),
                        _ => writeln!(text, "{owner} CAA 0 issue \"ca{two}.example\""),
                    };
                }
            }
        }
    }
    (origin, text)
}

/// A name of one to four labels under the origin; an asterisk only leftmost, mostly.
fn name(random: &mut Random) -> String {
    let labels: Vec<&str> = (0..1 + random.below(3))
        .map(|at| match *random.pick(&LABELS) {
            "*" if at > 0 && random.chance(80) => "a",
            label => label,
        })
        .collect();
    labels.join(".")
}

fn target(random: &mut Random) -> String {
    match random.below(8) {
        0 => "out.elsewhere.test.".to_owned(),
        1 => "@".to_owned(),
        _ => name(random).replace('*', "d"),
    }
}

struct Question {
    origin: String,
    name: String,
    kind: RecordType,
    edns: bool,
}

impl Question {
    fn random(random: &mut Random, origin: &str) -> Self {
        let name = match random.below(20) {
            0 => format!("{origin}."),
            1 => format!("{}.{}.{origin}.", name(random), name(random)),
            2 => "elsewhere.test.".to_owned(),
            _ => format!("{}.{origin}.", name(random)),
        };
        // 0x20
        let cased = name.chars().map(|letter| if random.chance(30) { letter.to_ascii_uppercase() } else { letter });
        Self { origin: origin.to_owned(), name: cased.collect(), kind: *random.pick(&TYPES), edns: random.chance(70) }
    }

    fn to_wire(&self, id: u16) -> Vec<u8> {
        let mut message = Message::query();
        message.metadata.id = id;
        message.add_query(Query::query(Name::from_ascii(&self.name).expect("a name"), self.kind));
        if self.edns {
            let mut edns = Edns::new();
            edns.set_max_payload(1232);
            message.set_edns(edns);
        }
        message.to_vec().expect("a message")
    }
}

struct Asker(UdpSocket);

impl Asker {
    fn new(server: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.connect(server).expect("a route");
        socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        Self(socket)
    }

    fn ask(&self, packet: &[u8]) -> Vec<u8> {
        self.0.send(packet).expect("sent");
        let mut answer = [0; 4096];
        let length = self.0.recv(&mut answer).expect("an answer");
        assert_eq!(answer[..2], packet[..2], "the id");
        answer[..length].to_vec()
    }
}

/// What is compared of an answer.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    rcode: String,
    authoritative: bool,
    truncated: bool,
    answer: BTreeSet<String>,
    authority: BTreeSet<String>,
    additional: BTreeSet<String>,
}

impl Answer {
    fn read(bytes: &[u8]) -> Self {
        let reply = Reply::read(bytes);
        let message = &reply.message;
        Self {
            rcode: format!("{:?}", reply.rcode()),
            authoritative: message.metadata.authoritative,
            truncated: message.metadata.truncation,
            answer: set(&message.answers),
            authority: set(&message.authorities),
            additional: set(&message.additionals),
        }
    }
}

fn set(records: &[Record]) -> BTreeSet<String> {
    records
        .iter()
        .map(|record| record.to_string().to_ascii_lowercase().replace(" in ", " IN ").replace(" ns ", " NS "))
        .collect()
}

/// Where the answers differ, and why that is forgiven, if it is.
fn difference(question: &Question, ours: &Answer, theirs: &Answer) -> Option<(&'static str, Option<&'static str>)> {
    let place = if ours.rcode != theirs.rcode {
        "rcode"
    } else if ours.truncated != theirs.truncated {
        "TC"
    } else if ours.authoritative != theirs.authoritative {
        "AA"
    } else if ours.answer != theirs.answer {
        return Some(("answer", endless(ours, theirs)));
    } else if ours.authority != theirs.authority {
        return Some(("authority", forgiven(question, ours, theirs)));
    } else if ours.additional != theirs.additional {
        return Some(("additional", forgiven(question, ours, theirs)));
    } else {
        return None;
    };
    Some((place, None))
}

/// A DNAME whose target lies below it can be followed for ever. Where to stop is the server's to say.
fn endless(ours: &Answer, theirs: &Answer) -> Option<&'static str> {
    let has_dname = ours.answer.iter().any(|record| record.contains(" IN dname "));
    let more_links = theirs.answer.difference(&ours.answer).all(|record| record.contains(" IN cname "));
    (has_dname && more_links && ours.answer.is_subset(&theirs.answer))
        .then_some("a DNAME that leads below itself has no end (Knot follows it six times, NSD and we once)")
}

/// Why equal answers may come with other records beside them.
fn forgiven(question: &Question, ours: &Answer, theirs: &Answer) -> Option<&'static str> {
    // The NS of a cut below the zone is no courtesy, whether a CNAME led there or not.
    let apex = format!("{}. ", question.origin);
    let is_courtesy = |record: &&String| record.starts_with(&apex) && record.contains(" IN NS ");
    let owed = |answer: &Answer| -> BTreeSet<String> {
        answer.authority.iter().filter(|one| !is_courtesy(one)).cloned().collect()
    };
    let is_address = |record: &&String| record.contains(" IN a ") || record.contains(" IN aaaa ");
    let addresses_differ = ours.additional.symmetric_difference(&theirs.additional).all(|record| is_address(&record));
    let refers = owed(ours).iter().any(|record| record.contains(" IN NS "));
    if ours.answer.is_empty() || owed(ours) != owed(theirs) || !addresses_differ {
        return None;
    }
    match (refers, ours.authority == theirs.authority) {
        (true, _) => None,
        (false, true) => Some("addresses of the answer's targets are a courtesy (RFC 1034 §4.3.2 step 6)"),
        (false, false) => {
            Some("a positive answer may come with its zone's NS and their addresses, or without (RFC 2181 §6.1)")
        }
    }
}

#[derive(Default)]
struct Tally {
    equal: BTreeMap<&'static str, usize>,
    forgiven: BTreeMap<(&'static str, &'static str, &'static str), usize>,
    faults: Vec<String>,
}

impl Tally {
    fn note(&mut self, peer: &'static str, question: &Question, zone: &str, ours: &Answer, theirs: &Answer) {
        match difference(question, ours, theirs) {
            None => *self.equal.entry(peer).or_default() += 1,
            Some((place, Some(reason))) => *self.forgiven.entry((peer, place, reason)).or_default() += 1,
            Some((place, None)) => {
                let Question { name, kind, edns, .. } = question;
                self.faults.push(format!(
                    "{place} differs from {peer}'s: {name} {kind} (EDNS: {edns})\n  ours   {ours:?}\n  theirs \
                     {theirs:?}\n{zone}"
                ));
            }
        }
    }

    fn print(&self, seed: u64, zones: usize, queries: usize) {
        println!("differential: {queries} questions to {zones} zones, seed {seed}");
        for (peer, count) in &self.equal {
            println!("  {peer}: {count} equal in every section");
        }
        for ((peer, place, reason), count) in &self.forgiven {
            println!("  {peer}: {count} differ in {place}: {reason}");
        }
        println!("  differences not explained: {}", self.faults.len());
        let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
        for fault in &self.faults {
            *kinds.entry(fault.split(':').next().unwrap_or_default()).or_default() += 1;
        }
        println!("  {kinds:?}");
        for fault in self.faults.iter().take(number("BAILIWICK_SHOWN", 5)) {
            println!("{fault}");
        }
    }
}
