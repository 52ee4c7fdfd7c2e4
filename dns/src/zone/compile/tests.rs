//! Tests of errors and warnings of whole zones.

use crate::protocol::rdata::rtype;
use crate::testing::{compile, name, steered};
use crate::zone::{Records, SteeredOwner};

/// The lines and messages of the errors of a zone. The test's text begins at line 4 of the zone.
fn errors(text: &str, steered: &[SteeredOwner]) -> Vec<String> {
    compile("example.com", text, steered).expect_err(text).iter().map(ToString::to_string).collect()
}

fn warnings(text: &str) -> Vec<String> {
    compile("example.com", text, &[]).expect(text).warnings.iter().map(ToString::to_string).collect()
}

#[test]
fn all_errors_of_a_zone_are_reported_at_once() {
    let reported = errors(
        "@ SOA a. b. 9 2 3 4 5\nsub SOA a. b. 9 2 3 4 5\na CNAME b.\na A 192.0.2.1\nc CNAME a.\nc CNAME b.\n\
         d DNAME a.\nd DNAME b.\nx.d A 192.0.2.1\nother.test. A 192.0.2.1\ncut NS ns.\ncut DNAME a.\n",
        &[],
    );
    let expected = [
        (4, "second SOA"),
        (5, "not at the apex"),
        (6, "stands alone"),
        (9, "second CNAME"),
        (11, "second DNAME"),
        (12, "below the DNAME"),
        (13, "outside the zone"),
        (15, "both NS and DNAME"),
    ];
    assert_eq!(reported.len(), expected.len(), "{reported:#?}");
    for ((line, words), reported) in expected.iter().zip(&reported) {
        assert!(reported.starts_with(&format!("test.zone:{line}: ")) && reported.contains(words), "{reported}");
    }
}

#[test]
fn an_apex_without_soa_and_ns_is_an_error() {
    let reported = crate::zone::Zone::compile(&name("example.com"), &Records::default(), &[]).expect_err("empty");
    assert_eq!(reported.len(), 2, "{reported:?}");
    assert!(reported[0].message.contains("no NS") && reported[1].message.contains("no SOA"));
}

#[test]
fn rfc2181_5_2_differing_ttls_are_a_warning_and_the_least_is_served() {
    let compiled = compile("example.com", "a 60 A 192.0.2.1\na 30 A 192.0.2.2\n", &[]).expect("sound");
    assert_eq!(compiled.warnings.len(), 1);
    assert_eq!(compiled.warnings[0].place.line, 4);
    let node = compiled.zone.glue(name("a.example.com").as_ref()).expect("node");
    assert_eq!(compiled.zone.set(node, rtype::A).expect("set").ttl, 30);
}

#[test]
fn oddities_are_warnings() {
    for (text, words) in [
        ("sub NS ns.sub\n", "no address"),
        ("sub NS alias\nalias CNAME other.test.\n", "is an alias"),
        ("sub NS ns.other.test.\na.sub TXT x\n", "never served"),
        ("d DNAME x.d\n", "never ends"),
    ] {
        let reported = warnings(text);
        assert!(reported.len() == 1 && reported[0].contains(words), "{text}: {reported:?}");
    }
    assert_eq!(warnings("sub NS ns.sub\nns.sub A 192.0.2.1\n").len(), 0);
}

#[test]
fn a_steered_owner_has_no_static_records_of_its_types() {
    let a = rtype::A;
    let sound = |text: &str, owner: SteeredOwner| compile("example.com", text, &[owner]).is_ok();
    assert!(sound("chat TXT hello\n", steered("chat.example.com", 0, &[a, rtype::AAAA])));
    assert!(sound("", steered("example.com", 0, &[a])));
    for (text, owners, words) in [
        ("chat A 192.0.2.1\n", vec![steered("Chat.example.com", 0, &[a])], "same type"),
        ("chat TXT x\n", vec![steered("chat.example.com", 0, &[rtype::CNAME])], "stands alone"),
        ("chat CNAME x\n", vec![steered("chat.example.com", 0, &[a])], "stands alone"),
        ("", vec![steered("example.com", 0, &[rtype::CNAME])], "apex"),
        ("sub NS ns.\n", vec![steered("chat.sub.example.com", 0, &[a])], "delegation"),
        ("sub NS ns.\n", vec![steered("sub.example.com", 0, &[a])], "delegation"),
        ("sub DNAME ns.\n", vec![steered("chat.sub.example.com", 0, &[a])], "DNAME"),
        ("", vec![steered("chat.test", 0, &[a])], "outside"),
        ("", vec![steered("x.example.com", 0, &[a]), steered("X.example.com", 1, &[a])], "two services"),
    ] {
        let reported = errors(text, &owners);
        assert!(reported.len() == 1 && reported[0].contains(words), "{text}: {reported:?}");
    }
}
