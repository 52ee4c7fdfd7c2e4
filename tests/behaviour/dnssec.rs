//! Signed zones in the eyes of others: `delv` and Unbound validate every shape of an answer, from the zone's own anchor and from its signed parent's.

mod internet;

use internet::{CHILD, CLIENTS, Internet, RESOLVER};

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

/// A shape of an answer: its name in the matrix, a question, what is to be in the answer, and whether it is signed.
struct Shape {
    name: &'static str,
    question: (&'static str, &'static str),
    holds: &'static str,
    verdict: Verdict,
}

const fn shape(name: &'static str, question: (&'static str, &'static str), holds: &'static str) -> Shape {
    Shape { name, question, holds, verdict: Verdict::Secure }
}

const fn unsigned(name: &'static str, question: (&'static str, &'static str), holds: &'static str) -> Shape {
    Shape { name, question, holds, verdict: Verdict::Insecure }
}

const SHAPES: [Shape; 24] = [
    shape("static", ("www.ai.example.com", "A"), "192.0.2.80"),
    shape("names in data, mixed case", ("mixed.ai.example.com", "MX"), "10 "),
    shape("apex SOA", ("ai.example.com", "SOA"), "hostmaster"),
    shape("apex NS", ("ai.example.com", "NS"), "ns1"),
    shape("DNSKEY", ("ai.example.com", "DNSKEY"), "257 3"),
    shape("static beside steered", ("chat.ai.example.com", "MX"), "10 www"),
    shape("CNAME chain", ("alias.ai.example.com", "A"), "192.0.2.80"),
    shape("CNAME to steered", ("steered.ai.example.com", "A"), "192.0.2.10"),
    shape("CNAME to nothing", ("dangle.ai.example.com", "A"), "nothing"),
    shape("DNAME", ("moved.ai.example.com", "DNAME"), "www.safe"),
    shape("wildcard", ("x.wild.ai.example.com", "TXT"), "from the wildcard"),
    shape("wildcard, deep", ("y.x.wild.ai.example.com", "TXT"), "from the wildcard"),
    shape("wildcard itself", ("*.wild.ai.example.com", "TXT"), "from the wildcard"),
    shape("wildcard CNAME", ("x.walias.ai.example.com", "A"), "192.0.2.80"),
    shape("wildcard NODATA", ("x.wild.ai.example.com", "A"), ""),
    shape("NODATA", ("www.ai.example.com", "TXT"), ""),
    shape("NODATA at steered", ("chat.ai.example.com", "TXT"), ""),
    shape("NODATA at the apex", ("ai.example.com", "A"), ""),
    shape("empty non-terminal", ("empty.ai.example.com", "A"), ""),
    shape("NXDOMAIN", ("nope.ai.example.com", "A"), ""),
    shape("NXDOMAIN, deep", ("a.b.nope.ai.example.com", "A"), ""),
    shape("no DS at a delegation", ("sub.ai.example.com", "DS"), ""),
    shape("DS at a delegation", ("safe.ai.example.com", "DS"), "13 2"),
    unsigned("outside every signed zone", ("www.sub.ai.example.com", "A"), "192.0.2.90"),
];

/// What `delv` says, and what it shows.
fn by_delv(internet: &Internet, server: &str, client: &str, anchor: &str, question: (&str, &str)) -> (Verdict, String) {
    let told = internet.delv(server, client, anchor, question.0, question.1);
    let has = |words: &str| told.contains(words);
    let verdict = match () {
        // Of a chain each link is told apart.
        () if has("resolution failed: ncache")
            || has("; fully validated")
            || has("; negative response, fully validated") =>
        {
            Verdict::Secure
        }
        () if has("; unsigned answer") => Verdict::Insecure,
        () => Verdict::Bogus,
    };
    (verdict, told)
}

/// What Unbound says by the AD bit, asked for a client in one of the networks.
fn by_unbound(internet: &Internet, client: &str, question: (&str, &str)) -> (Verdict, String) {
    let subnet = format!("+subnet={client}/24");
    let told = internet.dig(RESOLVER, &["+dnssec", &subnet, question.0, question.1]);
    let flags = told.lines().find(|line| line.contains("flags: qr")).unwrap_or_default();
    let verdict = match () {
        () if !told.contains("status: NOERROR") && !told.contains("status: NXDOMAIN") => Verdict::Bogus,
        () if flags.contains(" ad") => Verdict::Secure,
        () => Verdict::Insecure,
    };
    (verdict, told)
}

#[test]
fn every_shape_of_answer_validates_by_delv_and_unbound_from_the_zones_key_and_from_its_parents() {
    for algorithm in ["13", "15"] {
        let Some(internet) = Internet::start(algorithm) else { return };
        internet.write_parents_anchor();
        let mut shapes: Vec<(String, Shape, &str)> =
            SHAPES.into_iter().map(|shape| (shape.name.to_owned(), shape, CLIENTS[0].0)).collect();
        for (client, _) in CLIENTS {
            for rtype in ["A", "AAAA", "HTTPS"] {
                let holds = match (rtype, client) {
                    ("A", "127.1.0.1") => "192.0.2.10",
                    ("A", "127.2.0.1") => "192.0.2.20",
                    ("A", _) => "192.0.2.30",
                    ("AAAA", "127.1.0.1") => "2001:db8::10",
                    ("AAAA", "127.2.0.1") => "2001:db8::20",
                    ("AAAA", _) => "2001:db8::30",
                    _ => "1 .",
                };
                let name = format!("steered {rtype} from {client}");
                shapes.push((name, shape("steered", ("chat.ai.example.com", rtype), holds), client));
            }
        }
        shapes.push(("denied A".to_owned(), shape("denied", ("chat.ai.example.com", "A"), "192.0.2.99"), "127.0.0.1"));

        println!("algorithm {algorithm}");
        println!("{:32} {:10} {:10} {:10}", "shape", "delv", "delv+DS", "Unbound+DS");
        let mut failures = Vec::new();
        for (name, shape, client) in &shapes {
            let direct = by_delv(&internet, CHILD, client, "ai.example.com", shape.question);
            let chained = by_delv(&internet, RESOLVER, "127.0.0.1", "example.com", shape.question);
            let unbound = by_unbound(&internet, client, shape.question);
            println!(
                "{name:32} {:10} {:10} {:10}",
                format!("{:?}", direct.0),
                format!("{:?}", chained.0),
                format!("{:?}", unbound.0)
            );
            // Below a delegation the server itself has no answer.
            let is_below = shape.verdict == Verdict::Insecure;
            let by_resolver = client == &CLIENTS[0].0;
            for (who, (verdict, told), counts) in [
                ("delv", direct, !is_below),
                ("delv from the parent", chained, by_resolver),
                ("Unbound", unbound, true),
            ] {
                if counts
                    && (verdict != shape.verdict
                        || !(told.contains(shape.holds) || who.contains("parent") && name.contains("steered")))
                {
                    failures.push(format!("{name} by {who}: {verdict:?}\n{told}"));
                }
            }
        }
        assert!(failures.is_empty(), "{}", failures.join("\n"));
    }
}
