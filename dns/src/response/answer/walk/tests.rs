//! Tests of lookups in zones: wildcards, referrals, aliases, steered names, and a comparison with a naive lookup.

use std::collections::BTreeSet;

use proptest::prelude::*;

use crate::protocol::name::{Name, NameRef};
use crate::protocol::rdata::rtype::{A, AAAA, ANY, CNAME, DNAME, DS, MX, NS, SOA, TXT};
use crate::response::answer::{Asking, Ecs};
use crate::response::wire::{Outcome, Transport};
use crate::testing::{CLIENT, Fixed, ask, ask_with, compile, name, steered, zone, zones};
use crate::zone::LookupResult;
use crate::zones::Zones;

const DENIAL: &str = "? example.com. 60 IN SOA ns.other.test. host.other.test. 1 2 3 4 60";
const SERVERS: &str = "? example.com. 300 IN NS ns.other.test.";

#[test]
fn names_outside_every_zone_are_refused() {
    let zones = zones("example.com", "a A 192.0.2.1\n");
    for outside in ["com", ".", "example.org", "notexample.com"] {
        assert_eq!(ask(&zones, outside, A), ["Refused"], "{outside}");
    }
}

#[test]
fn names_of_a_zone_without_a_version_are_answered_by_servfail_and_no_others() {
    let missing = |origin: &str| {
        zones("example.com", "alias CNAME x.sub\na A 192.0.2.1\nsub NS ns.other.test.\n").with_missing([name(origin)])
    };
    let below = missing("sub.example.com");
    assert_eq!(ask(&below, "a.example.com", A)[0], "NoError AA");
    for gone in ["sub.example.com", "x.SUB.example.com"] {
        assert_eq!(ask(&below, gone, A), ["ServFail"], "{gone}");
    }
    assert_eq!(ask(&below, "sub.example.com", DS)[0], "NoError AA", "the DS is the parent's");
    assert_eq!(ask(&below, "alias.example.com", A)[1], "alias.example.com. 300 IN CNAME x.sub.example.com.");
    assert_eq!(ask(&below, "alias.example.com", A).len(), 2, "a target in another zone isn't followed");
    let beside = missing("example.org");
    assert_eq!(ask(&beside, "x.example.org", A), ["ServFail"]);
    assert_eq!(ask(&beside, "example.org", DS), ["ServFail"]);
    assert_eq!(ask(&beside, "example.net", A), ["Refused"]);
    let above = missing("com");
    assert_eq!(ask(&above, "a.example.com", A)[0], "NoError AA");
    assert_eq!(ask(&above, "other.com", A), ["ServFail"]);
}

#[test]
fn rfc2308_nodata_differs_from_nxdomain() {
    let zones = zones("example.com", "a A 192.0.2.1\nx.ent A 192.0.2.1\n");
    assert_eq!(ask(&zones, "A.example.com", A), ["NoError AA", "A.example.com. 300 IN A 192.0.2.1", SERVERS]);
    assert_eq!(ask(&zones, "a.example.com", AAAA), ["NoError AA", DENIAL]);
    assert_eq!(ask(&zones, "b.example.com", A), ["NXDomain AA", DENIAL]);
    assert_eq!(ask(&zones, "b.a.example.com", A), ["NXDomain AA", DENIAL]);
}

#[test]
fn rfc8020_empty_non_terminals_exist() {
    let zones = zones("example.com", "x.ent A 192.0.2.1\n");
    assert_eq!(ask(&zones, "ent.example.com", A), ["NoError AA", DENIAL]);
    assert_eq!(ask(&zones, "ent.example.com", ANY), ["NoError AA", DENIAL]);
}

#[test]
fn rfc4592_2_2_1_wildcards() {
    let zones = zones(
        "example.com",
        "*.w MX 10 host1\nsub.*.w TXT \"not a wildcard\"\nhost1.w A 192.0.2.1\n_ssh._tcp.host1.w SRV 0 0 22 host1.w\n\
         *.alias CNAME host1.w\n",
    );
    let made =
        |owner: &str| vec!["NoError AA".into(), format!("{owner}. 300 IN MX 10 host1.example.com."), SERVERS.into()];
    assert_eq!(ask(&zones, "host3.w.example.com", MX), made("host3.w.example.com"));
    assert_eq!(ask(&zones, "foo.bar.w.example.com", MX), made("foo.bar.w.example.com"));
    assert_eq!(ask(&zones, "*.w.example.com", MX), made("*.w.example.com"));
    assert_eq!(ask(&zones, "host3.w.example.com", A), ["NoError AA", DENIAL]);
    assert_eq!(ask(&zones, "host1.w.example.com", MX), ["NoError AA", DENIAL]);
    assert_eq!(ask(&zones, "_telnet._tcp.host1.w.example.com", A), ["NXDomain AA", DENIAL]);
    assert_eq!(ask(&zones, "ghost.*.w.example.com", MX), ["NXDomain AA", DENIAL]);
    assert_eq!(
        ask(&zones, "x.alias.example.com", A),
        [
            "NoError AA",
            "x.alias.example.com. 300 IN CNAME host1.w.example.com.",
            "host1.w.example.com. 300 IN A 192.0.2.1",
            SERVERS
        ]
    );
}

#[test]
fn rfc1034_4_3_2_referrals_carry_glue_and_no_aa() {
    let zones = zones(
        "example.com",
        "sub NS ns1.sub\nsub NS ns.sibling\nsub NS ns.test.\nsub DS 1 13 2 AA\nns1.sub A 192.0.2.1\n\
         ns1.sub AAAA 2001:db8::1\nsibling NS ns.sibling\nns.sibling A 192.0.2.2\n",
    );
    let referral = [
        "NoError",
        "? sub.example.com. 300 IN NS ns.test.",
        "? sub.example.com. 300 IN NS ns1.sub.example.com.",
        "? sub.example.com. 300 IN NS ns.sibling.example.com.",
        "+ ns1.sub.example.com. 300 IN A 192.0.2.1",
        "+ ns1.sub.example.com. 300 IN AAAA 2001:db8::1",
        "+ ns.sibling.example.com. 300 IN A 192.0.2.2",
    ]
    .map(String::from);
    let sorted = |mut lines: Vec<String>| {
        lines.sort();
        lines
    };
    for (qname, qtype) in
        [("sub.example.com", NS), ("sub.example.com", ANY), ("x.y.sub.example.com", A), ("ns1.sub.example.com", A)]
    {
        assert_eq!(sorted(ask(&zones, qname, qtype)), sorted(referral.to_vec()), "{qname}");
    }
    // RFC 4035 §3.1.4.1: DS belongs to the parent.
    assert!(ask(&zones, "sub.example.com", DS)[1].starts_with("sub.example.com. 300 IN DS"));
    assert_eq!(ask(&zones, "sibling.example.com", DS), ["NoError AA", DENIAL]);
    assert_eq!(ask(&zones, "x.sub.example.com", DS)[0], "NoError");
}

#[test]
fn aliases_are_followed_inside_our_zones() {
    let other = zone("example.org", "a A 192.0.2.9\n", &[]);
    let text = "one CNAME two\ntwo CNAME a.example.org.\nout CNAME x.test.\ngone CNAME nope\ndata CNAME txt\n\
                txt TXT t\nloop1 CNAME loop2\nloop2 CNAME loop1\nself CNAME self\nsub NS ns.test.\nref CNAME x.sub\n";
    let zones = Zones::new([zone("example.com", text, &[]), other]);
    let ask = |qname: &str, qtype| ask(&zones, &format!("{qname}.example.com"), qtype);
    assert_eq!(
        ask("one", A)[..4],
        [
            "NoError AA",
            "one.example.com. 300 IN CNAME two.example.com.",
            "two.example.com. 300 IN CNAME a.example.org.",
            "a.example.org. 300 IN A 192.0.2.9"
        ]
    );
    assert_eq!(ask("one", CNAME), ["NoError AA", "one.example.com. 300 IN CNAME two.example.com.", SERVERS]);
    assert_eq!(ask("out", A), ["NoError AA", "out.example.com. 300 IN CNAME x.test."]);
    // RFC 6604 §3: the response code is that of the last name of the chain.
    assert_eq!(ask("gone", A), ["NXDomain AA", "gone.example.com. 300 IN CNAME nope.example.com.", DENIAL]);
    assert_eq!(ask("data", A), ["NoError AA", "data.example.com. 300 IN CNAME txt.example.com.", DENIAL]);
    assert_eq!(ask("loop1", A).len(), 3);
    assert_eq!(ask("self", A), ["NoError AA", "self.example.com. 300 IN CNAME self.example.com."]);
    assert_eq!(
        ask("ref", A),
        ["NoError AA", "ref.example.com. 300 IN CNAME x.sub.example.com.", "? sub.example.com. 300 IN NS ns.test."]
    );
}

#[test]
fn at_most_eight_aliases_are_followed() {
    let links: String = (0..20).map(|n| format!("l{n} CNAME l{}\n", n + 1)).collect();
    let zones = zones("example.com", &format!("{links}l20 A 192.0.2.1\n"));
    assert_eq!(ask(&zones, "l12.example.com", A).last().map(String::as_str), Some(SERVERS));
    let long = ask(&zones, "l11.example.com", A);
    assert_eq!((long[0].as_str(), long.len()), ("NoError AA", 10));
}

#[test]
fn rfc6672_dname_redirects_what_lies_below() {
    let label = "x".repeat(60);
    let long = format!("{label}.{label}.{label}.{label}.test.");
    let text = format!("d DNAME t\na.t A 192.0.2.1\nd TXT own\nfar DNAME {long}\nend DNAME x.end\nalias CNAME a.d\n");
    let zones = zones("example.com", &text);
    let moved = ["d.example.com. 300 IN DNAME t.example.com.", "a.d.example.com. 300 IN CNAME a.t.example.com."];
    assert_eq!(
        ask(&zones, "a.d.example.com", A),
        ["NoError AA", moved[0], moved[1], "a.t.example.com. 300 IN A 192.0.2.1", SERVERS]
    );
    assert_eq!(ask(&zones, "a.d.example.com", CNAME), ["NoError AA", moved[0], moved[1]]);
    assert_eq!(ask(&zones, "d.example.com", TXT)[1], "d.example.com. 300 IN TXT own");
    assert_eq!(ask(&zones, "d.example.com", A), ["NoError AA", DENIAL]);
    assert_eq!(ask(&zones, "d.example.com", DNAME)[1], moved[0]);
    assert_eq!(ask(&zones, "n.d.example.com", A)[0], "NXDomain AA");
    assert_eq!(
        ask(&zones, "alias.example.com", A)[1..4],
        ["alias.example.com. 300 IN CNAME a.d.example.com.", moved[0], moved[1]]
    );
    // §2.2: a name too long to be made is YXDOMAIN, with the DNAME as the reason.
    let too_long = ask(&zones, "twelve-chars.far.example.com", A);
    assert_eq!((too_long[0].as_str(), too_long.len()), ("YXDomain AA", 2));
    assert_eq!(ask(&zones, "a.end.example.com", A).len(), 3);
}

#[test]
fn rfc8482_4_1_any_gets_one_rrset() {
    let zones = zones("example.com", "a A 192.0.2.1\na A 192.0.2.2\na TXT x\nc CNAME a\n");
    let any = ask(&zones, "a.example.com", ANY);
    assert_eq!(any.iter().filter(|line| line.contains(" IN A ")).count(), 2);
    assert!(!any.iter().any(|line| line.contains("TXT")));
    assert_eq!(ask(&zones, "c.example.com", ANY)[1], "c.example.com. 300 IN CNAME a.example.com.");
}

#[test]
fn addresses_of_named_hosts_are_added_once() {
    let zones = zones(
        "example.com",
        "@ MX 10 mail\n@ MX 20 mx.wild\n@ MX 30 gone.d\n@ MX 40 nope\nmail A 192.0.2.1\n*.wild A 192.0.2.2\n\
         d DNAME t.test.\n",
    );
    let lines = ask(&zones, "example.com", MX);
    let mut added: Vec<&str> = lines.iter().map(String::as_str).filter(|line| line.starts_with('+')).collect();
    added.sort_unstable();
    assert_eq!(added, ["+ mail.example.com. 300 IN A 192.0.2.1", "+ mx.wild.example.com. 300 IN A 192.0.2.2"]);
}

#[test]
fn transfers_and_types_without_data_are_turned_away() {
    let zones = zones("example.com", "");
    for (qtype, rcode) in [
        (252, "Refused"),
        (251, "Refused"),
        (41, "FormErr"),
        (128, "FormErr"),
        (0, "FormErr"),
        (253, "NotImp"),
        (250, "NotImp"),
    ] {
        assert_eq!(ask(&zones, "example.com", qtype), [rcode], "{qtype}");
    }
}

#[test]
fn the_zone_with_the_longest_origin_answers_but_for_its_ds() {
    let parent = zone("example.com", "sub NS ns.test.\nsub DS 1 13 2 AA\n", &[]);
    let zones = Zones::new([parent, zone("sub.example.com", "a A 192.0.2.1\n", &[])]);
    assert_eq!(ask(&zones, "a.sub.example.com", A)[..2], ["NoError AA", "a.sub.example.com. 300 IN A 192.0.2.1"]);
    assert_eq!(ask(&zones, "sub.example.com", SOA)[0], "NoError AA");
    assert!(ask(&zones, "sub.example.com", DS)[1].contains(" IN DS "));
    let child_only = Zones::new([zone("sub.example.com", "", &[])]);
    assert!(ask(&child_only, "sub.example.com", DS)[1].starts_with("? sub.example.com. 60 IN SOA"));
}

fn steered_zones() -> Zones {
    let owners = [
        steered("chat.example.com", 0, &[A, AAAA]),
        steered("edge.example.com", 1, &[CNAME]),
        steered("shut.example.com", 2, &[A]),
        steered("deep.ent.example.com", 0, &[A]),
        steered("*.wild.example.com", 0, &[A]),
        steered("a.example.com", 0, &[AAAA]),
    ];
    Zones::new([zone("example.com", "chat TXT note\na A 192.0.2.1\nalias CNAME chat\nstop CNAME shut\n", &owners)])
}

#[test]
fn steered_names_answer_by_the_rules() {
    let zones = steered_zones();
    let ask = |qname: &str, qtype| ask_with(&zones, &Fixed::new(), &format!("{qname}.example.com"), qtype);
    assert_eq!(ask("chat", A), ["NoError AA", "chat.example.com. 20 IN A 192.0.2.10"]);
    assert_eq!(ask("chat", TXT)[1], "chat.example.com. 300 IN TXT note");
    assert_eq!(ask("chat", MX), ["NoError AA", DENIAL]);
    assert_eq!(
        ask("edge", A)[..3],
        ["NoError AA", "edge.example.com. 30 IN CNAME a.example.com.", "a.example.com. 300 IN A 192.0.2.1"]
    );
    assert_eq!(
        ask("alias", A),
        ["NoError AA", "alias.example.com. 300 IN CNAME chat.example.com.", "chat.example.com. 20 IN A 192.0.2.10"]
    );
    assert_eq!(ask("x.wild", A), ["NoError AA", "x.wild.example.com. 20 IN A 192.0.2.10"]);
}

#[test]
fn existence_depends_neither_on_client_nor_on_health() {
    let zones = steered_zones();
    let ask = |qname: &str, qtype| ask_with(&zones, &Fixed::new(), &format!("{qname}.example.com"), qtype);
    assert_eq!(ask("shut", A), ["ServFail"]);
    assert_eq!(ask("stop", A), ["ServFail"]);
    assert_eq!(ask("shut", AAAA), ["NoError AA", DENIAL]);
    assert_eq!(ask("ent", A), ["NoError AA", DENIAL]);
    assert_eq!(ask("x.shut", A), ["NXDomain AA", DENIAL]);
}

#[test]
fn rfc7871_scopes_come_from_steered_links_only_and_the_longest_holds() {
    let zones = steered_zones();
    let client = Asking { transport: CLIENT, ecs: Some(Ecs { address: CLIENT, source: 32 }) };
    let rules = Fixed::new();
    for (qname, qtype, scope) in [
        ("chat.example.com", A, 20),
        ("chat.example.com", TXT, 0),
        ("chat.example.com", MX, 0),
        ("nope.example.com", A, 0),
        ("edge.example.com", A, 24),
        ("edge.example.com", MX, 24),
        // Two steered links, 24 and then 20.
        ("edge.example.com", AAAA, 24),
        ("shut.example.com", A, 16),
    ] {
        let qname = name(qname);
        let dnssec = crate::response::answer::Dnssec::unwanted();
        let responses = crate::response::answer::Responses::Full;
        let query =
            crate::response::answer::Query { qname: qname.as_ref(), qtype, qclass: 1, client, dnssec, responses };
        assert_eq!(crate::response::answer::answer(&zones, &rules, &query).scope, scope, "{qname:?} {qtype}");
    }
    let (_, outcome) =
        crate::testing::send(&zones, &rules, &crate::testing::query("shut.example.com", A, &[]), Transport::Udp);
    assert!(matches!(outcome, Outcome::Answered { service: Some(crate::zone::ServiceIndex(2)), .. }));
}

/// RFC 1034 §4.3.2 step 3 on a plain list of owners. `Zone::locate` must return the same result.
fn naive(origin: &Name, owners: &[(Name, u16)], qname: NameRef<'_>) -> String {
    let exists =
        |name: NameRef<'_>| name == origin.as_ref() || owners.iter().any(|(owner, _)| owner.as_ref().is_within(name));
    let has =
        |name: NameRef<'_>, rtype: u16| owners.iter().any(|(owner, kind)| owner.as_ref() == name && *kind == rtype);
    let mut path = vec![qname];
    while let Some(parent) = path.last().filter(|name| **name != origin.as_ref()).and_then(|name| name.parent()) {
        path.push(parent);
    }
    for &at in path.iter().rev() {
        if at != origin.as_ref() && has(at, NS) {
            return format!("cut {at}");
        }
        if at != qname && has(at, DNAME) {
            return format!("dname {at}");
        }
        if at == qname && exists(at) {
            return "exact".into();
        }
        if !exists(at) {
            let encloser = at.parent().expect("below the origin");
            let wildcard = Name::join(b"\x01*", encloser).expect("short");
            return if exists(wildcard.as_ref()) { format!("wildcard {encloser}") } else { "missing".into() };
        }
    }
    "missing".into()
}

#[test]
fn lookup_agrees_with_a_naive_reference() {
    let cases = 3_000;
    let label = || prop::sample::select(vec!["a", "b", "C", "*", "ns"]);
    let owner = || {
        prop::collection::vec(label(), 0..5).prop_map(|labels| {
            let mut text = labels.join(".");
            text.push_str(if text.is_empty() { "example.com" } else { ".example.com" });
            name(&text)
        })
    };
    let kind = prop::sample::select(vec![A, A, A, TXT, NS, DNAME]);
    let compiled_zones = std::cell::Cell::new(0_u32);
    proptest!(ProptestConfig::with_cases(cases), |(owners in prop::collection::vec((owner(), kind), 0..8),
        queries in prop::collection::vec(owner(), 12))| {
        let apex = name("example.com");
        // Zones that don't compile are skipped, because they prove nothing.
        let owners: BTreeSet<_> = owners.into_iter().filter(|(owner, kind)| *owner != apex || *kind == A).collect();
        let text: String = owners.iter().map(|(owner, kind)| match *kind {
            A => format!("{owner} A 192.0.2.1\n"),
            TXT => format!("{owner} TXT x\n"),
            NS => format!("{owner} NS ns.test.\n"),
            _ => format!("{owner} DNAME t.test.\n"),
        }).collect();
        let Ok(compiled) = compile("example.com", &text, &[]) else { return Ok(()) };
        compiled_zones.set(compiled_zones.get() + 1);
        let owners: Vec<_> = owners.into_iter().collect();
        for qname in &queries {
            let qname = qname.as_ref();
            let strip = |below: usize| (0..below).fold(qname, |name, _| name.parent().expect("below"));
            let found = match compiled.zone.locate(qname) {
                LookupResult::Exact(_) => "exact".into(),
                LookupResult::Missing => "missing".into(),
                LookupResult::Cut { below, .. } => format!("cut {}", strip(below)),
                LookupResult::Dname { below, .. } => format!("dname {}", strip(below)),
                LookupResult::Wildcard(_) => {
                    let encloser = (1..).map(strip).find(|at| compiled.zone.glue(*at).is_some()).expect("the apex \
                        exists");
                    format!("wildcard {encloser}")
                }
            };
            prop_assert_eq!(found.to_lowercase(), naive(&apex, &owners, qname).to_lowercase(), "{} in\n\
                {}", qname, text);
        }
    });
    let compiled_zones = compiled_zones.get();
    println!("lookup against the naive reference: {cases} cases, {compiled_zones} zones compiled");
    assert!(compiled_zones > cases / 4);
}

/// The response code and the records of the three sections, with minimal responses.
fn ask_minimal(zones: &Zones, qname: &str, qtype: u16) -> Vec<String> {
    let settings = crate::response::wire::Settings {
        responses: crate::response::answer::Responses::Minimal,
        ..crate::response::wire::Settings::anonymous()
    };
    let context = crate::response::wire::Context { settings: &settings, limiter: None, now: crate::testing::NOW };
    let packet = crate::testing::query(qname, qtype, &[]);
    let mut out = Vec::new();
    crate::response::wire::respond(&context, zones, &Fixed::new(), &packet, CLIENT, Transport::Tcp, &mut out);
    crate::testing::record_lines(&hickory_proto::op::Message::from_vec(&out).expect("a response"))
}

#[test]
fn minimal_responses_hold_what_was_asked_for_and_what_a_resolver_needs() {
    let text = "a A 192.0.2.1\n@ MX 10 a\n_s._tcp SRV 1 1 1 a\nalias CNAME a\ngone CNAME nope\n*.w TXT x\n\
                sub NS ns.sub\nns.sub A 192.0.2.2\nref CNAME x.sub\n";
    let zones = zones("example.com", text);
    let positive = [
        ("a", A),
        ("example.com", MX),
        ("example.com", NS),
        ("example.com", SOA),
        ("_s._tcp", 33),
        ("alias", A),
        ("x.w", TXT),
    ];
    for (host, qtype) in positive {
        let host = if host == "example.com" { host.to_owned() } else { format!("{host}.example.com") };
        let (minimal, full) = (ask_minimal(&zones, &host, qtype), ask(&zones, &host, qtype));
        let answers: Vec<String> = full.into_iter().filter(|line| !line.starts_with(['?', '+'])).collect();
        assert_eq!(minimal, answers, "{host} {qtype}");
        assert!(minimal.len() > 1, "{host} {qtype}");
    }
    for (host, qtype) in [("x.sub", A), ("sub", NS), ("ref", A), ("nope", A), ("a", MX), ("gone", A)] {
        let host = format!("{host}.example.com");
        assert_eq!(ask_minimal(&zones, &host, qtype), ask(&zones, &host, qtype), "{host} {qtype}");
    }
    assert_eq!(ask_minimal(&zones, "x.sub.example.com", A).len(), 3, "a referral keeps its glue");
}
