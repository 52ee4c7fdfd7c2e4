//! Signed zones in the eyes of others: `delv` and Unbound validate every shape of an answer, from the zone's own anchor
//! and from its signed parent's.

mod internet;

use bailiwick_tests::dns::{exchange, question};
use bailiwick_tests::node::Setup;
use internet::{CHILD, CLIENTS, Internet, RESOLVER};

use crate::fixture::{World, ZONE};

/// What a validator made of one question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It validated.
    Secure,
    /// It is proven to be unsigned.
    Insecure,
    /// It doesn't validate, or there is no answer.
    Bogus,
}

/// A shape of an answer.
#[derive(Debug, Clone, Copy)]
struct Shape {
    /// What it is called in the matrix.
    name: &'static str,
    /// Name and type.
    question: (&'static str, &'static str),
    /// What the answer shows.
    holds: &'static str,
    verdict: Verdict,
    /// Who asks.
    client: &'static str,
    /// Whether the answer depends on that.
    is_steered: bool,
    /// Whether the answer is a child's.
    is_below: bool,
}

const fn shape(name: &'static str, question: (&'static str, &'static str), holds: &'static str) -> Shape {
    Shape { name, question, holds, verdict: Verdict::Secure, client: CLIENTS[0], is_steered: false, is_below: false }
}

const fn below(
    name: &'static str,
    question: (&'static str, &'static str),
    holds: &'static str,
    verdict: Verdict,
) -> Shape {
    Shape { verdict, is_below: true, ..shape(name, question, holds) }
}

/// A delegation whose first label no other label follows.
const FULL: &str = concat!(
    r"\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255",
    r"\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255",
    r"\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255",
    r"\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255",
    ".ai.example.com"
);

const SHAPES: [Shape; 32] = [
    shape("static", ("www.ai.example.com", "A"), "192.0.2.80"),
    shape("names in data, mixed case", ("mixed.ai.example.com", "MX"), "10 "),
    shape("apex SOA", ("ai.example.com", "SOA"), "hostmaster"),
    shape("apex NS", ("ai.example.com", "NS"), "ns1"),
    shape("apex DNSKEY", ("ai.example.com", "DNSKEY"), "257 3"),
    shape("static beside steered", ("chat.ai.example.com", "MX"), "10 www"),
    shape("CNAME chain", ("alias.ai.example.com", "A"), "192.0.2.80"),
    shape("CNAME to steered", ("steered.ai.example.com", "A"), "chat.ai.example.com"),
    shape("CNAME to nothing", ("dangle.ai.example.com", "A"), "nothing"),
    shape("DNAME", ("moved.ai.example.com", "DNAME"), "safe"),
    shape("wildcard", ("x.wild.ai.example.com", "TXT"), "from the wildcard"),
    shape("wildcard, deep", ("y.x.wild.ai.example.com", "TXT"), "from the wildcard"),
    shape("wildcard itself", ("*.wild.ai.example.com", "TXT"), "from the wildcard"),
    shape("wildcard CNAME", ("x.walias.ai.example.com", "A"), "192.0.2.80"),
    shape("wildcard NODATA", ("x.wild.ai.example.com", "A"), ""),
    shape("steered wildcard NODATA", ("x.gpu.ai.example.com", "TXT"), ""),
    shape("steered wildcard's parent", ("gpu.ai.example.com", "A"), ""),
    shape("blocked by a name that exists", ("x.old.gpu.ai.example.com", "A"), ""),
    shape("below a steered wildcard itself", ("x.*.gpu.ai.example.com", "A"), ""),
    shape("static name wins", ("old.gpu.ai.example.com", "A"), "192.0.2.82"),
    shape("NODATA", ("www.ai.example.com", "TXT"), ""),
    shape("NODATA at steered", ("chat.ai.example.com", "TXT"), ""),
    shape("NODATA at the apex", ("ai.example.com", "A"), ""),
    shape("empty non-terminal", ("empty.ai.example.com", "A"), ""),
    shape("NXDOMAIN", ("nope.ai.example.com", "A"), ""),
    shape("NXDOMAIN, deep", ("a.b.nope.ai.example.com", "A"), ""),
    shape("no DS at a delegation", ("sub.ai.example.com", "DS"), ""),
    shape("no DS, full label", (FULL, "DS"), ""),
    shape("DS at a delegation", ("safe.ai.example.com", "DS"), "13 2"),
    below("secure referral", ("www.safe.ai.example.com", "A"), "192.0.2.91", Verdict::Secure),
    below("DNAME into a secure child", ("www.moved.ai.example.com", "A"), "192.0.2.91", Verdict::Secure),
    below("insecure referral", ("www.sub.ai.example.com", "A"), "192.0.2.90", Verdict::Insecure),
];

/// What `delv` says: of a chain it tells each link.
fn by_delv(reported: &str) -> Verdict {
    let (mut secure, mut insecure) = (0_u32, 0_u32);
    for line in reported.lines() {
        match line {
            "; fully validated" | "; negative response, fully validated" => secure += 1,
            "; unsigned answer" | "; negative response, unsigned answer" => insecure += 1,
            // It says so of every negative answer.
            ";; resolution failed: ncache nxrrset" | ";; resolution failed: ncache nxdomain" => {}
            _ if line.contains("resolution failed") || line.contains("no valid") => return Verdict::Bogus,
            _ => {}
        }
    }
    match (secure, insecure) {
        (1.., 0) => Verdict::Secure,
        (_, 1..) => Verdict::Insecure,
        (0, 0) => Verdict::Bogus,
    }
}

/// What Unbound says by response code and AD.
fn by_unbound(reported: &str) -> Verdict {
    let flags = reported.lines().find(|line| line.contains("flags: qr")).unwrap_or_default();
    match () {
        () if !reported.contains("status: NOERROR") => Verdict::Bogus,
        () if flags.contains(" ad") => Verdict::Secure,
        () => Verdict::Insecure,
    }
}

/// Each shape by each validator: a line of the matrix, and what is wrong in it.
fn judge(internet: &Internet, shape: &Shape) -> (String, Vec<String>) {
    let (name, rtype) = shape.question;
    let (client, subnet) = (shape.client, format!("+subnet={}/24", shape.client));
    // Below a delegation the server itself has no answer.
    let direct = (!shape.is_below).then(|| internet.delv(CHILD, client, "ai.example.com", name, rtype));
    // delv tells the resolver of no subnet.
    let chained = (client == CLIENTS[0]).then(|| internet.delv(RESOLVER, "127.0.0.1", "example.com", name, rtype));
    let unbound = internet.dig(RESOLVER, &["+dnssec", &subnet, name, rtype]);
    let resolved = |reported: &str| shape.is_steered || reported.contains(shape.holds);
    let verdicts = [
        ("delv", direct.as_deref().map(|reported| (by_delv(reported), reported, reported.contains(shape.holds)))),
        ("delv, DS", chained.as_deref().map(|reported| (by_delv(reported), reported, resolved(reported)))),
        ("Unbound, DS", Some((by_unbound(&unbound), unbound.as_str(), unbound.contains(shape.holds)))),
    ];
    let (mut line, mut failures) = (format!("{:34}", shape.name), Vec::new());
    for (who, verdict) in verdicts {
        let shown = verdict.map_or_else(|| "-".to_owned(), |(verdict, ..)| format!("{verdict:?}"));
        line.push_str(&format!(" {shown:12}"));
        if let Some((verdict, reported, holds)) = verdict
            && (verdict != shape.verdict || !holds)
        {
            failures.push(format!("{} by {who}: {verdict:?}, \"{}\" wanted in\n{reported}", shape.name, shape.holds));
        }
    }
    (line, failures)
}

/// Steered names as each of three networks sees them, and as all others do.
fn steered() -> Vec<Shape> {
    let mut shapes = Vec::new();
    for (client, holds) in CLIENTS.into_iter().zip([
        ["192.0.2.10", "2001:db8::10", "ipv4hint=192.0.2.10"],
        ["192.0.2.20", "2001:db8::20", "ipv4hint=192.0.2.20"],
        ["192.0.2.30", "2001:db8::30", "ipv4hint=192.0.2.30"],
    ]) {
        let names = ["steered A", "steered AAAA", "steered HTTPS"];
        for ((rtype, holds), name) in ["A", "AAAA", "HTTPS"].into_iter().zip(holds).zip(names) {
            shapes.push(Shape { client, is_steered: true, ..shape(name, ("chat.ai.example.com", rtype), holds) });
        }
    }
    for (name, holds) in [("z.y.x.gpu.ai.example.com", "192.0.2.10"), ("*.gpu.ai.example.com", "192.0.2.10")] {
        shapes.push(Shape { is_steered: true, ..shape("steered wildcard", (name, "A"), holds) });
    }
    let by_wildcard = shape("steered wildcard", ("x.gpu.ai.example.com", "A"), "192.0.2.20");
    shapes.push(Shape { client: CLIENTS[1], is_steered: true, ..by_wildcard });
    let denied = shape("denied_answers A", ("chat.ai.example.com", "A"), "192.0.2.99");
    shapes.push(Shape { client: "127.9.0.1", is_steered: true, ..denied });
    shapes
}

#[test]
fn every_shape_of_answer_validates_by_delv_and_unbound_from_the_zones_key_and_from_its_parents() {
    for algorithm in ["13", "15"] {
        let Some(internet) = Internet::start(algorithm) else { return };
        let shapes: Vec<Shape> = SHAPES.into_iter().chain(steered()).collect();
        let judged: Vec<(String, Vec<String>)> = std::thread::scope(|scope| {
            let share = |shapes: &[Shape]| {
                let internet = &internet;
                let shapes = shapes.to_vec();
                scope.spawn(move || shapes.iter().map(|shape| judge(internet, shape)).collect::<Vec<_>>())
            };
            let threads: Vec<_> = shapes.chunks(5).map(share).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        println!("algorithm {algorithm}\n{:34} {:12} {:12} {:12}", "shape", "delv", "delv, DS", "Unbound, DS");
        for ((line, _), shape) in judged.iter().zip(&shapes) {
            println!("{line} {}", if shape.is_steered { shape.client } else { "" });
        }
        let failures: Vec<String> = judged.into_iter().flat_map(|(_, failures)| failures).collect();
        assert!(failures.is_empty(), "{}", failures.join("\n"));
    }
}

/// `dig` can't set CO, and the resolvers of today don't know it: the proof is the very one that validates without.
#[test]
fn rfc_9824_5_1_with_co_the_same_proof_says_nxdomain() {
    let world = World::start();
    let node = Setup::new(&world.rules(1), ZONE).signed().start();
    let ask = |flags: u8| {
        let mut query = question("nope.ai.example.com", "A").to_wire();
        let place = query.len() - 4;
        query[place] = flags;
        exchange(node.dns, &query).expect("an answer")
    };
    let (with, without) = (ask(0xc0), ask(0x80));
    assert_eq!((with[3] & 15, without[3] & 15), (3, 0), "NXDOMAIN and NOERROR");
    assert_eq!((with[with.len() - 4], without[without.len() - 4]), (0xc0, 0x80));
    assert_eq!(with[4..with.len() - 4], without[4..without.len() - 4], "but for code, flags and id nothing differs");
}

#[test]
fn a_spent_budget_for_signatures_truncates_answers_to_names_never_asked_before() {
    let world = World::start();
    let setup = Setup::new(&world.rules(1), ZONE).signed();
    let config = std::fs::read_to_string(setup.path("bailiwick.toml")).unwrap();
    setup.write("bailiwick.toml", &format!("{config}[signing]\nper_second = 2\nin_all = 2\n"));
    let node = setup.start();
    let began = std::time::Instant::now();
    let truncated = |number: u32| {
        let mut query = question(&format!("nope{number}.ai.example.com"), "A").to_wire();
        let place = query.len() - 4;
        query[place] = 0x80;
        exchange(node.dns, &query).expect("an answer")[2] & 2 != 0
    };
    let whole = (0..40).filter(|&number| !truncated(number)).count() as u64;
    // Two in each second that was begun.
    assert!((2..=2 * (began.elapsed().as_secs() + 2)).contains(&whole), "{whole} in {:?}", began.elapsed());
}

/// `dnsviz` asks every server of every zone from the parent down, and finds fault with whatever it can.
#[test]
fn dnsviz_finds_no_error_from_the_parents_key_down() {
    if !internet::has_dnsviz() {
        println!("skipped: dnsviz with pygraphviz is not installed; run scripts/setup");
        return;
    }
    let Some(internet) = Internet::start("13") else { return };
    let names = [
        "",
        "www.",
        "chat.",
        "alias.",
        "moved.",
        "x.wild.",
        "empty.",
        "nope.",
        "a.b.nope.",
        "sub.",
        "safe.",
        "www.safe.",
    ];
    let names = names.map(|name| format!("{name}ai.example.com"));
    let faults = internet.dnsviz(&names);
    assert_eq!(faults.trim(), "", "errors and warnings, by name");
    // It looks at all this: of a damaged signature it tells.
    let faults = internet.dnsviz_of_damaged(&names[..2]);
    assert!(faults.contains("SIGNATURE_INVALID"), "{faults}");
}
