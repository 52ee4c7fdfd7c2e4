//! Static answers: RFC 1034 §4.3.2, 2308, 4592, 8020, and truncation.

use bailiwick_tests::dns::{Reply, question};
use bailiwick_tests::node::{Node, Setup};
use hickory_proto::op::ResponseCode;

use crate::fixture::{World, ZONE};

fn node() -> Node {
    Setup::new(&World::start().rules(1), ZONE).start()
}

fn ask(node: &Node, name: &str, kind: &str) -> Reply {
    question(name, kind).ask(node.dns)
}

const SOA: &str = "ai.example.com. SOA ns1.ai.example.com. hostmaster.ai.example.com. 1 3600 600 86400 60";

#[test]
fn other_zones_are_refused() {
    let node = node();
    for name in ["example.com", "ai.example.org", "xai.example.com", "."] {
        let reply = ask(&node, name, "A");
        assert_eq!(reply.rcode(), ResponseCode::Refused, "{name}");
        assert!(!reply.message.metadata.authoritative);
    }
}

#[test]
fn rfc_2308_names_that_exist_without_the_type_are_nodata_and_others_nxdomain() {
    let node = node();
    for (name, rcode) in [
        ("www.ai.example.com", ResponseCode::NoError),
        ("empty.ai.example.com", ResponseCode::NoError), // an empty non-terminal: RFC 8020
        ("wild.ai.example.com", ResponseCode::NoError),
        ("nothing.ai.example.com", ResponseCode::NXDomain),
        ("a.www.ai.example.com", ResponseCode::NXDomain),
    ] {
        let reply = ask(&node, name, "AAAA");
        assert_eq!((reply.rcode(), reply.answers().len()), (rcode, 0), "{name}");
        assert_eq!(reply.authority(), [SOA], "{name}");
        assert_eq!(reply.message.authorities[0].ttl, 60, "RFC 2308 §3: the lesser of TTL and minimum");
        assert!(reply.message.metadata.authoritative);
    }
}

#[test]
fn rfc_4592_a_wildcard_covers_names_that_do_not_exist() {
    let node = node();
    assert_eq!(ask(&node, "a.wild.ai.example.com", "TXT").answers(), ["a.wild.ai.example.com. TXT from the wildcard"]);
    assert_eq!(ask(&node, "a.b.wild.ai.example.com", "TXT").answers().len(), 1);
    let nodata = ask(&node, "a.wild.ai.example.com", "A");
    assert_eq!((nodata.rcode(), nodata.authority().len()), (ResponseCode::NoError, 1));
}

#[test]
fn a_delegation_is_a_referral_with_glue() {
    let node = node();
    let reply = ask(&node, "host.sub.ai.example.com", "A");
    assert_eq!((reply.rcode(), reply.answers().len()), (ResponseCode::NoError, 0));
    assert!(!reply.message.metadata.authoritative);
    assert_eq!(reply.authority(), ["sub.ai.example.com. NS ns.sub.ai.example.com."]);
    assert_eq!(reply.additional(), ["ns.sub.ai.example.com. A 192.0.2.54"]);
}

#[test]
fn an_alias_is_chased_inside_our_zones_only() {
    let node = node();
    assert_eq!(
        ask(&node, "alias.ai.example.com", "A").answers(),
        ["alias.ai.example.com. CNAME www.ai.example.com.", "www.ai.example.com. A 192.0.2.80"]
    );
    assert_eq!(ask(&node, "alias.ai.example.com", "CNAME").answers().len(), 1);
    assert_eq!(ask(&node, "away.ai.example.com", "A").answers(), ["away.ai.example.com. CNAME elsewhere.example."]);
}

#[test]
fn an_answer_that_does_not_fit_is_truncated_whole_and_comes_by_tcp() {
    let node = node();
    let big = question("big.ai.example.com", "TXT").payload(4096);
    let reply = big.ask(node.dns);
    assert!(reply.message.metadata.truncation, "1,232 bytes is the most");
    assert!(reply.length <= 1232 && reply.answers().is_empty() && reply.message.edns.is_some());
    assert_eq!(big.ask_by_tcp(node.dns).answers().len(), 7);
    let plain = question("big.ai.example.com", "TXT").plain().ask(node.dns);
    assert!(plain.message.metadata.truncation && plain.length <= 512 && plain.message.edns.is_none());
}

#[test]
fn the_case_of_the_question_is_kept() {
    let node = node();
    let mut wire = question("www.ai.example.com", "A").to_wire();
    let position = wire.windows(3).position(|bytes| bytes == b"www").unwrap();
    wire[position + 1] = b'W'; // the client library would write it in lower case
    let answer = bailiwick_tests::dns::exchange(node.dns, &wire).unwrap();
    assert!(answer.windows(3).any(|bytes| bytes == b"wWw"), "{answer:02x?}");
    assert_eq!(Reply::read(&answer).data(), ["192.0.2.80"]);
}
