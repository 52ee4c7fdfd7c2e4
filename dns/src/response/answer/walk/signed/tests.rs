//! Tests of answers from signed zones: valid signatures, denials, referrals, budgets.

use hickory_proto::op::{Message, ResponseCode};

use crate::dnssec::key::Algorithm;
use crate::dnssec::key_set::KeySet;
use crate::protocol::rdata::rtype::{A, AAAA, ANY, CNAME, DNSKEY, DS, MX, NS, NSEC, RRSIG, SOA, TXT};
use crate::response::wire::{Outcome, Transport};
use crate::testing::signed::{CO, DO, ask, flagged, key_set, sets, sign, verify};
use crate::testing::{Fixed, NOW, ask_with, send, steered, zone};
use crate::zones::Zones;

const TEXT: &str = "a A 192.0.2.1\na MX 10 Mail.A\n*.wild TXT w\nx.ent A 192.0.2.1\none CNAME two\ntwo CNAME a\n\
    out CNAME b.example.org.\ngone CNAME nope\n\
    insecure NS ns.insecure\nns.insecure A 192.0.2.2\nsecure NS ns.secure\nsecure DS 1 13 2 AA\n\
    ns.secure A 192.0.2.3\nd DNAME a\nwc CNAME x.wild\nup NS a\n";

fn owners() -> [crate::zone::SteeredOwner; 4] {
    [
        steered("chat.example.com", 0, &[A]),
        steered("alias.example.com", 1, &[CNAME]),
        steered("*.gpu.example.com", 0, &[A]),
        steered("*.alias.gpu.example.com", 1, &[CNAME]),
    ]
}

struct World {
    zones: Zones,
    key_set: KeySet,
}

fn world(algorithm: Algorithm) -> World {
    let key_set = key_set("example.com", algorithm);
    let signed = sign(&zone("example.com", TEXT, &owners()), &key_set, NOW, None);
    World { zones: Zones::new([std::sync::Arc::new(signed), zone("example.org", "b A 192.0.2.9\n", &[])]), key_set }
}

/// Sends a query. Returns the response code and one line for each RRset of the answer and authority sections: the line
/// ends with `*` if the RRset is signed. All signatures have to be valid.
fn answered(world: &World, qname: &str, qtype: u16, flags: u8) -> Vec<String> {
    let message = ask(&world.zones, &Fixed::new(), qname, qtype, flags);
    let unsigned: &[(&str, u16)] = &[
        ("insecure.example.com.", NS),
        ("secure.example.com.", NS),
        ("x.d.example.com.", CNAME),
        ("b.example.org.", A),
        ("example.org.", NS),
    ];
    if flags & DO != 0 {
        verify(&message, &world.key_set, NOW, unsigned).unwrap_or_else(|error| panic!("{qname}: {error}\n{message}"));
    }
    let mut lines = vec![format!("{:?}", message.metadata.response_code)];
    for (sign, section) in [("", &message.answers), ("? ", &message.authorities)] {
        for ((owner, rtype), (records, rrsigs)) in sets(section) {
            let mark = if rrsigs.is_empty() { "" } else { " *" };
            // hickory has no name for NXNAME.
            let nsec = records.iter().filter(|_| rtype == NSEC).map(|record| format!(" -> {}", record.data));
            let bitmap: String = nsec.map(|nsec| nsec.replace("Unknown", "NXNAME")).collect();
            let kind = hickory_proto::rr::RecordType::from(rtype);
            lines.push(format!("{sign}{owner} {kind}{bitmap}{mark}"));
        }
    }
    lines
}

const SOA_LINE: &str = "? example.com. SOA *";

#[test]
fn all_kinds_of_answers_have_valid_signatures() {
    for algorithm in [Algorithm::EcdsaP256Sha256, Algorithm::Ed25519] {
        let world = world(algorithm);
        let answered = |qname: &str, qtype| answered(&world, qname, qtype, DO);
        assert_eq!(answered("a.example.com", A), ["NoError", "a.example.com. A *"]);
        assert_eq!(answered("A.eXample.com", MX), ["NoError", "a.example.com. MX *"]);
        assert_eq!(answered("example.com", NS), ["NoError", "example.com. NS *"]);
        assert_eq!(answered("example.com", DNSKEY), ["NoError", "example.com. DNSKEY *"]);
        assert_eq!(answered("chat.example.com", A), ["NoError", "chat.example.com. A *"]);
        assert_eq!(answered("alias.example.com", A), ["NoError", "a.example.com. A *", "alias.example.com. CNAME *"]);
        assert_eq!(
            answered("one.example.com", A),
            ["NoError", "a.example.com. A *", "one.example.com. CNAME *", "two.example.com. CNAME *"]
        );
        assert_eq!(
            answered("out.example.com", A),
            ["NoError", "b.example.org. A", "out.example.com. CNAME *", "? example.org. NS"]
        );
        assert_eq!(answered("x.wild.example.com", TXT), ["NoError", "x.wild.example.com. TXT *"]);
        assert_eq!(answered("*.wild.example.com", TXT), ["NoError", "*.wild.example.com. TXT *"]);
        for name in ["x.gpu.example.com", "z.y.x.gpu.example.com", "*.gpu.example.com"] {
            assert_eq!(answered(name, A), ["NoError".to_owned(), format!("{name}. A *")]);
        }
        assert_eq!(
            answered("x.alias.gpu.example.com", A),
            ["NoError", "a.example.com. A *", "x.alias.gpu.example.com. CNAME *"]
        );
        assert_eq!(answered("x.y.gpu.example.com", ANY), ["NoError", "x.y.gpu.example.com. A *"]);
        assert_eq!(
            answered("wc.example.com", TXT),
            ["NoError", "wc.example.com. CNAME *", "x.wild.example.com. TXT *"]
        );
        assert_eq!(answered("x.d.example.com", A)[..2], ["NoError", "d.example.com. DNAME *"],);
        assert_eq!(answered("a.example.com", ANY), ["NoError", "a.example.com. A *"]);
    }
}

#[test]
fn rfc9824_missing_names_and_types_are_denied_by_one_nsec_that_matches_the_name() {
    let world = world(Algorithm::EcdsaP256Sha256);
    let answered = |qname: &str, qtype, flags| answered(&world, qname, qtype, flags);
    let sorted = |mut lines: Vec<String>| {
        lines[1..].sort();
        lines
    };
    let answered_sorted = |qname: &str, qtype, flags| sorted(answered(qname, qtype, flags));
    let expect = |nsec: &str| sorted(vec!["NoError".to_owned(), SOA_LINE.to_owned(), format!("? {nsec} *")]);
    assert_eq!(
        answered_sorted("nope.example.com", A, DO),
        expect("nope.example.com. NSEC -> \\000.nope.example.com. RRSIG NSEC NXNAME")
    );
    assert_eq!(
        answered_sorted("x.gpu.example.com", AAAA, DO),
        expect("x.gpu.example.com. NSEC -> \\000.x.gpu.example.com. A RRSIG NSEC")
    );
    assert_eq!(
        answered_sorted("gpu.example.com", A, DO),
        expect("gpu.example.com. NSEC -> \\000.gpu.example.com. RRSIG NSEC")
    );
    assert_eq!(
        answered_sorted("x.*.gpu.example.com", A, DO),
        expect("x.*.gpu.example.com. NSEC -> \\000.x.*.gpu.example.com. RRSIG NSEC NXNAME")
    );
    // With CO the response code also says that the name doesn't exist (§5.1).
    assert_eq!(answered("nope.example.com", A, DO | CO)[0], "NXDomain");
    assert_eq!(answered("nope.example.com", A, 0)[..], ["NXDomain", "? example.com. SOA"].map(String::from));
    assert_eq!(
        answered_sorted("a.example.com", AAAA, DO),
        expect("a.example.com. NSEC -> \\000.a.example.com. A MX RRSIG NSEC")
    );
    assert_eq!(answered("a.example.com", AAAA, DO | CO)[0], "NoError");
    assert_eq!(
        answered_sorted("ent.example.com", A, DO),
        expect("ent.example.com. NSEC -> \\000.ent.example.com. RRSIG NSEC")
    );
    assert_eq!(
        answered_sorted("ent.example.com", ANY, DO),
        expect("ent.example.com. NSEC -> \\000.ent.example.com. RRSIG NSEC")
    );
    // The NSEC of a queried name that matches a wildcard has the wildcard's types (§3.3).
    assert_eq!(
        answered_sorted("x.wild.example.com", A, DO),
        expect("x.wild.example.com. NSEC -> \\000.x.wild.example.com. TXT RRSIG NSEC")
    );
    assert_eq!(
        answered_sorted("chat.example.com", AAAA, DO),
        expect("chat.example.com. NSEC -> \\000.chat.example.com. A RRSIG NSEC")
    );
    assert_eq!(
        answered_sorted("example.com", A, DO),
        expect("example.com. NSEC -> \\000.example.com. NS SOA RRSIG NSEC DNSKEY")
    );
    assert_eq!(answered("gone.example.com", A, DO)[..2], ["NoError", "gone.example.com. CNAME *"].map(String::from));
    // The parent zone answers for the DS at a delegation, here that there is none. For names below, it refers to the
    // child zone (§3.4).
    assert_eq!(
        answered_sorted("insecure.example.com", DS, DO),
        expect("insecure.example.com. NSEC -> insecure\\000.example.com. NS RRSIG NSEC")
    );
}

#[test]
fn rfc4035_3_1_4_referrals_prove_whether_the_child_is_signed() {
    let world = world(Algorithm::EcdsaP256Sha256);
    assert_eq!(
        answered(&world, "x.insecure.example.com", A, DO),
        [
            "NoError",
            "? insecure.example.com. NS",
            "? insecure.example.com. NSEC -> insecure\\000.example.com. NS RRSIG NSEC *"
        ]
    );
    assert_eq!(
        answered(&world, "x.secure.example.com", A, DO),
        ["NoError", "? secure.example.com. NS", "? secure.example.com. DS *"]
    );
    assert_eq!(answered(&world, "x.secure.example.com", A, 0), ["NoError", "? secure.example.com. NS"]);
    let message = ask(&world.zones, &Fixed::new(), "x.secure.example.com", A, DO);
    assert_eq!(message.additionals.len(), 1, "the glue, which is unsigned");
}

#[test]
fn rfc4035_3_1_1_data_that_needs_a_signature_is_not_added_to_a_referral() {
    let world = world(Algorithm::EcdsaP256Sha256);
    let added = |qname: &str, flags| ask(&world.zones, &Fixed::new(), qname, A, flags).additionals.len();
    assert_eq!((added("x.insecure.example.com", DO), added("x.insecure.example.com", 0)), (1, 1), "glue");
    assert_eq!((added("x.up.example.com", DO), added("x.up.example.com", 0)), (0, 1), "the zone's own");
}

#[test]
fn without_do_a_signed_zone_answers_as_an_unsigned_one() {
    let world = world(Algorithm::EcdsaP256Sha256);
    let unsigned = Zones::new([zone("example.com", TEXT, &owners()), zone("example.org", "b A 192.0.2.9\n", &[])]);
    for qname in ["a", "one", "out", "x.wild", "ent", "nope", "x.insecure", "x.secure", "x.d", "chat", "alias", "gone"]
    {
        for qtype in [A, AAAA, MX, TXT, CNAME, DS, ANY, SOA] {
            let qname = format!("{qname}.example.com");
            let of = |zones| ask_with(zones, &Fixed::new(), &qname, qtype);
            assert_eq!(of(&world.zones), of(&unsigned), "{qname} {qtype}");
        }
    }
}

#[test]
fn with_do_an_unsigned_zone_answers_as_without_do() {
    let zones = Zones::new([zone("example.com", TEXT, &owners())]);
    for qname in ["a", "one", "x.wild", "ent", "nope", "x.insecure", "x.secure", "x.d", "chat", "gone"] {
        for qtype in [A, AAAA, DS, ANY, RRSIG, NSEC, DNSKEY] {
            for flags in [DO, DO | CO, CO] {
                let of = |flags| {
                    send(&zones, &Fixed::new(), &flagged(&format!("{qname}.example.com"), qtype, flags), Transport::Udp)
                        .0
                };
                let (mut with, without) = (of(flags), of(0));
                let place = with.len() - 4;
                assert_eq!(with[place], flags & DO, "only DO is echoed");
                with[place] = 0;
                assert_eq!(with, without, "{qname} {qtype}");
            }
        }
    }
}

#[test]
fn rfc8482_queries_for_signatures_and_nsec_get_few_records() {
    let world = world(Algorithm::EcdsaP256Sha256);
    let covered = |qname: &str, flags| -> Vec<String> {
        let message = ask(&world.zones, &Fixed::new(), qname, RRSIG, flags);
        sets(&message.answers)
            .into_iter()
            .map(|((_, rtype), (_, rrsigs))| format!("{rtype}x{}", rrsigs.len()))
            .collect()
    };
    for flags in [DO, 0] {
        assert_eq!(covered("a.example.com", flags), ["1x1"]);
        assert_eq!(covered("chat.example.com", flags), ["1x1"]);
        assert_eq!(covered("x.wild.example.com", flags), ["16x1"]);
    }
    assert_eq!(covered("ent.example.com", DO), ["47x1"]);
    assert!(covered("ent.example.com", 0).is_empty());
    assert!(covered("nope.example.com", 0).is_empty());
    let nsec = |qname: &str, flags| answered(&world, qname, NSEC, flags);
    assert_eq!(nsec("a.example.com", DO), ["NoError", "a.example.com. NSEC -> \\000.a.example.com. A MX RRSIG NSEC *"]);
    assert_eq!(nsec("nope.example.com", 0)[0], "NXDomain");
}

#[test]
fn signed_zones_echo_co_to_clients_that_set_do() {
    let world = world(Algorithm::EcdsaP256Sha256);
    let flags = |qname: &str, flags| {
        let (out, _) = send(&world.zones, &Fixed::new(), &flagged(qname, A, flags), Transport::Udp);
        out[out.len() - 4]
    };
    assert_eq!(flags("a.example.com", DO | CO), DO | CO);
    assert_eq!(flags("a.example.com", DO), DO);
    assert_eq!(flags("a.example.com", CO), 0);
    assert_eq!(flags("b.example.org", DO | CO), DO);
}

#[test]
fn signatures_that_are_too_old_are_never_served() {
    let world = world(Algorithm::EcdsaP256Sha256);
    let at = |now: u32, qname: &str, flags: u8| -> Message {
        let settings = crate::response::wire::Settings::anonymous();
        let context = crate::response::wire::Context { settings: &settings, limiter: None, now };
        let mut out = Vec::new();
        let packet = flagged(qname, A, flags);
        crate::response::wire::respond(
            &context,
            &world.zones,
            &Fixed::new(),
            &packet,
            crate::testing::CLIENT,
            Transport::Tcp,
            &mut out,
        );
        Message::from_vec(&out).unwrap()
    };
    let (week, ttl) = (7 * 86_400, 300);
    let last = NOW + week - ttl - 1;
    assert!(verify(&at(last, "a.example.com", DO), &world.key_set, last, &[]).is_ok());
    for later in [1, 100, ttl, week, 100 * week] {
        let message = at(last + later, "a.example.com", DO);
        assert_eq!((message.metadata.response_code, message.answers.len()), (ResponseCode::ServFail, 0), "{later}");
        assert_eq!(at(last + later, "a.example.com", 0).metadata.response_code, ResponseCode::NoError);
    }
    // The NSEC is signed now and is fresh, but the signature of the SOA beside it is too old.
    assert_eq!(at(last + ttl, "nope.example.com", DO).metadata.response_code, ResponseCode::ServFail);
    // With a shorter TTL, signatures may be served for longer.
    assert_eq!(at(last + 100, "chat.example.com", DO).metadata.response_code, ResponseCode::NoError);
}

#[test]
fn a_spent_budget_gives_tc_and_on_streams_servfail() {
    let world = world(Algorithm::EcdsaP256Sha256);
    let answers = |transport, from: u32| -> Vec<(u16, bool)> {
        let answer = |n: u32| {
            let packet = flagged(&format!("n{n}.example.com"), A, DO);
            let (out, outcome) = send(&world.zones, &Fixed::new(), &packet, transport);
            let Outcome::Answered { rcode, truncated, .. } = outcome else { panic!("dropped") };
            assert!(!truncated || out[2] & 2 != 0 && out[7] == 0);
            (rcode.0, truncated)
        };
        (from..from + 300).map(answer).collect()
    };
    let spent = |answers: &[(u16, bool)], like| answers.iter().filter(|&&answer| answer == like).count();
    let by_udp = answers(Transport::Udp, 0);
    assert_eq!((spent(&by_udp, (0, false)), spent(&by_udp, (0, true))), (200, 100));
    let by_tcp = answers(Transport::Tcp, 1000);
    assert_eq!((spent(&by_tcp, (0, false)), spent(&by_tcp, (2, false))), (200, 100));
    // A cached signature costs no budget.
    assert_eq!(answers(Transport::Udp, 0)[..200], by_udp[..200]);
    // A signature that was made beforehand costs no budget either.
    assert_eq!(answered(&world, "a.example.com", A, DO), ["NoError", "a.example.com. A *"]);
}
