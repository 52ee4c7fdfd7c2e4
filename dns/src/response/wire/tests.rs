//! Tests with whole packets: headers, EDNS, truncation, compression, and random octets.

mod options;
mod signed;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use proptest::prelude::*;

use super::*;
use crate::protocol::name::Name;
use crate::protocol::rdata::rtype::{A, AAAA, MX, SOA, TXT};
use crate::response::answer::NoSteering;
use crate::testing::{CLIENT, Fixed, decoded, name, opt, query, send, steered, zone, zones};

const SUBNET: u16 = 8;

fn small() -> Zones {
    zones("example.com", "a A 192.0.2.1\nsub NS ns.sub\nns.sub A 192.0.2.2\n")
}

/// A query for `a.example.com` A with these additional records.
fn ask_a(extra: &[&[u8]]) -> Vec<u8> {
    query("a.example.com", A, extra)
}

fn rcode(packet: &[u8]) -> ResponseCode {
    let message = decoded(&small(), &NoSteering, packet, Transport::Udp);
    message.metadata.response_code
}

/// The four bits of the header's response code.
fn low_rcode(response: &[u8]) -> u8 {
    response[3] & 0x0f
}

#[test]
fn responses_and_fragments_of_headers_are_dropped() {
    let whole = ask_a(&[]);
    let mut response = whole.clone();
    response[2] |= 0x80;
    for packet in [&whole[..0], &whole[..11], &response] {
        assert_eq!(send(&small(), &NoSteering, packet, Transport::Udp), (Vec::new(), Outcome::Dropped));
    }
    let (out, _) = send(&small(), &NoSteering, &whole[..13], Transport::Udp);
    assert_eq!((low_rcode(&out), out.len()), (1, 12));
}

#[test]
fn rfc8906_3_1_4_unknown_opcodes_are_notimp() {
    for opcode in 1..16_u8 {
        let mut packet = ask_a(&[]);
        packet[2] |= opcode << 3;
        let (out, _) = send(&small(), &NoSteering, &packet, Transport::Udp);
        assert_eq!((out.len(), low_rcode(&out), out[2] >> 3 & 0x0f), (12, 4, opcode));
    }
}

#[test]
fn question_counts_other_than_one_are_format_errors() {
    let mut none = ask_a(&[]);
    none[5] = 0;
    none.truncate(12);
    assert_eq!(rcode(&none), ResponseCode::FormErr);
    let mut two = ask_a(&[]);
    two[5] = 2;
    let question = two[12..].to_vec();
    two.extend(question);
    assert_eq!(rcode(&two), ResponseCode::FormErr);
}

#[test]
fn flags_are_echoed_or_cleared() {
    let mut packet = ask_a(&[]);
    packet[2] = 0x01; // RD
    packet[3] = 0xf0; // RA, Z, AD and CD
    let (out, _) = send(&small(), &NoSteering, &packet, Transport::Udp);
    assert_eq!(out[..4], [0x12, 0x34, 0x85, 0x10], "QR, AA and RD; CD alone of the second octet");
}

#[test]
fn the_case_of_the_question_is_kept_and_its_owner_points_at_it() {
    let packet = query("A.eXaMple.cOM", A, &[]);
    let (out, _) = send(&small(), &NoSteering, &packet, Transport::Udp);
    assert_eq!(out[12..packet.len()], packet[12..]);
    assert_eq!(out[packet.len()..packet.len() + 2], [0xc0, 0x0c]);
}

#[test]
fn the_case_of_the_question_changes_nothing_but_the_question() {
    for qname in ["a.example.com", "nope.example.com", "x.sub.example.com", "example.com"] {
        let (lower, _) = send(&small(), &NoSteering, &query(qname, A, &[]), Transport::Udp);
        let (upper, _) = send(&small(), &NoSteering, &query(&qname.to_uppercase(), A, &[]), Transport::Udp);
        let question = 12..12 + name(qname).as_wire().len();
        assert_eq!(lower[..12], upper[..12]);
        assert_ne!(lower[question.clone()], upper[question.clone()]);
        assert_eq!(lower[question.end..], upper[question.end..], "{qname}");
    }
}

#[test]
fn other_classes_are_refused() {
    let mut packet = ask_a(&[]);
    let last = packet.len() - 1;
    for class in [0, 3, 4, 254, 255] {
        packet[last] = class;
        assert_eq!(rcode(&packet), ResponseCode::Refused, "{class}");
    }
}

#[test]
fn rfc6891_7_an_opt_is_answered_with_an_opt_and_only_then() {
    let message = decoded(&small(), &NoSteering, &ask_a(&[]), Transport::Udp);
    assert!(message.edns.is_none());
    let mut with_do = opt(4096, &[(65_001, b"unknown")]);
    with_do[7] = 0xff; // DO and bits that nobody knows
    let (out, _) = send(&small(), &NoSteering, &ask_a(&[&with_do]), Transport::Udp);
    assert_eq!(out[out.len() - 11..], [0, 0, 41, 0x04, 0xd0, 0, 0, 0x80, 0, 0, 0]);
    let negative = query("nope.example.com", A, &[&with_do]);
    let (out, _) = send(&small(), &NoSteering, &negative, Transport::Udp);
    assert_eq!(out[out.len() - 11..out.len() - 8], [0, 0, 41]);
}

#[test]
fn rfc6891_6_1_3_other_versions_are_badvers() {
    let mut future = opt(1232, &[(SUBNET, b"bad")]);
    future[6] = 1;
    let (out, outcome) = send(&small(), &NoSteering, &ask_a(&[&future]), Transport::Udp);
    assert!(matches!(outcome, Outcome::Answered { rcode: Rcode::BADVERS, .. }));
    assert_eq!((low_rcode(&out), out[6..10].to_vec()), (0, vec![0; 4]));
    assert_eq!(out[out.len() - 11..], [0, 0, 41, 0x04, 0xd0, 1, 0, 0, 0, 0, 0]);
}

#[test]
fn malformed_opts_are_format_errors_answered_with_an_opt() {
    let plain = opt(1232, &[]);
    let mut named = vec![1, b'x'];
    named.extend_from_slice(&plain);
    let mut cut_option = plain.clone();
    *cut_option.last_mut().expect("length") = 3;
    cut_option.extend_from_slice(&[0, 8, 9]);
    for (case, extra) in
        [("two", vec![&plain[..], &plain]), ("not at the root", vec![&named]), ("cut option", vec![&cut_option])]
    {
        let message = decoded(&small(), &NoSteering, &ask_a(&extra), Transport::Udp);
        assert_eq!(message.metadata.response_code, ResponseCode::FormErr, "{case}");
        assert!(message.edns.is_some() && message.answers.is_empty(), "{case}");
    }
    let mut misplaced = ask_a(&[&plain]);
    (misplaced[7], misplaced[11]) = (1, 0);
    assert_eq!(rcode(&misplaced), ResponseCode::FormErr);
}

#[test]
fn rfc7871_7_1_2_malformed_subnets_are_format_errors() {
    for bad in [
        &[0, 1, 24][..],
        &[0, 3, 0, 0],
        &[0, 0, 0, 1],
        &[0, 0, 8, 0, 192],
        &[0, 0, 0, 0, 0],
        &[0, 0, 1, 0],
        &[0, 1, 24, 1, 192, 0, 2],
        &[0, 1, 33, 0, 1, 2, 3, 4, 5],
        &[0, 1, 24, 0, 1],
        &[0, 1, 23, 0, 1, 1, 1],
    ] {
        let message = decoded(&small(), &NoSteering, &ask_a(&[&opt(1232, &[(SUBNET, bad)])]), Transport::Udp);
        assert_eq!(message.metadata.response_code, ResponseCode::FormErr, "{bad:?}");
        assert!(message.edns.expect("an OPT").option(EdnsCode::Subnet).is_none());
    }
}

#[test]
fn rfc7871_7_2_1_subnets_are_echoed_with_the_scope() {
    let zones = Zones::new([zone("example.com", "a A 192.0.2.1\n", &[steered("chat.example.com", 0, &[A])])]);
    for (qname, subnet, scope) in [
        ("chat.example.com", &[0, 1, 24, 0, 198, 51, 100][..], 20),
        ("chat.example.com", &[0, 1, 0, 0], 0),
        ("chat.example.com", &[0, 0, 0, 0], 0),
        ("a.example.com", &[0, 0, 0, 0], 0),
        ("chat.example.com", &[0, 2, 9, 0, 0x20, 0x80], 20),
        ("a.example.com", &[0, 1, 24, 0, 198, 51, 100], 0),
        ("nope.example.com", &[0, 1, 24, 0, 198, 51, 100], 0),
        ("example.org", &[0, 1, 24, 0, 198, 51, 100], 0),
    ] {
        let (out, _) =
            send(&zones, &Fixed::new(), &query(qname, A, &[&opt(1232, &[(SUBNET, subnet)])]), Transport::Udp);
        let mut echo = vec![0, 8, 0, u8::try_from(subnet.len()).expect("short")];
        echo.extend_from_slice(subnet);
        echo[7] = scope;
        assert!(out.windows(echo.len()).any(|window| window == echo), "{qname} {subnet:?}");
    }
}

#[test]
fn rfc8914_clients_with_edns_get_the_reason() {
    let zones = Zones::new([zone("example.com", "", &[steered("shut.example.com", 2, &[A])])]);
    let message = decoded(&zones, &Fixed::new(), &query("shut.example.com", A, &[&opt(1232, &[])]), Transport::Udp);
    assert_eq!(message.metadata.response_code, ResponseCode::ServFail);
    let edns = message.edns.expect("an OPT");
    assert!(matches!(edns.option(EdnsCode::Unknown(15)), Some(EdnsOption::Unknown(15, data)) if data == &[0, 18]));
}

#[test]
fn rfc9824_3_5_a_question_for_nxname_is_an_error_with_its_reason() {
    for qname in ["a.example.com", "nope.example.com", "example.org"] {
        let message = decoded(&small(), &NoSteering, &query(qname, 128, &[&opt(1232, &[])]), Transport::Udp);
        assert_eq!(message.metadata.response_code, ResponseCode::FormErr);
        let edns = message.edns.expect("an OPT");
        assert!(matches!(edns.option(EdnsCode::Unknown(15)), Some(EdnsOption::Unknown(15, data)) if data == &[0, 30]));
    }
}

#[test]
fn rfc2181_9_an_rrset_that_does_not_fit_is_left_out_as_a_whole() {
    let text: String = (0..40).map(|n| format!("big A 192.0.2.{n}\n")).collect();
    let zones = zones("example.com", &text);
    // 31 octets of header and question, 40 × 16 of records, 31 of the zone's server.
    let big = 12 + 21 + 40 * 16;
    for (extra, transport, whole) in [
        (None, Transport::Udp, false),
        (Some(0), Transport::Udp, false),
        (Some(512), Transport::Udp, false),
        (Some(600), Transport::Udp, false),
        (Some(1232), Transport::Udp, true),
        (None, Transport::Tcp, true),
        (Some(512), Transport::Tcp, true),
    ] {
        let opts: Vec<Vec<u8>> = extra.map(|payload| opt(payload, &[])).into_iter().collect();
        let opts: Vec<&[u8]> = opts.iter().map(|opt| &opt[..]).collect();
        let packet = query("big.example.com", A, &opts);
        let (out, outcome) = send(&zones, &NoSteering, &packet, transport);
        let message = Message::from_vec(&out).expect("a response");
        assert!(matches!(outcome, Outcome::Answered { truncated, .. } if truncated != whole), "{extra:?}");
        assert_eq!(message.metadata.truncation, !whole);
        assert_eq!(message.answers.len(), if whole { 40 } else { 0 });
        assert!(message.authorities.len() == usize::from(whole) && message.edns.is_some() == extra.is_some());
        assert!(whole || out.len() < 64, "a question and an OPT");
        assert!(!whole || out.len() > big);
    }
}

#[test]
fn a_response_on_a_stream_has_at_most_sixty_four_kibibytes() {
    let text: String = (0..600).map(|n| format!("big TXT {n}{}\n", "x".repeat(120))).collect();
    let message =
        decoded(&zones("example.com", &text), &NoSteering, &query("big.example.com", TXT, &[]), Transport::Tcp);
    assert!(message.metadata.truncation && message.answers.is_empty());
}

#[test]
fn rfc1035_4_1_4_names_are_compressed_and_rfc3597_4_only_where_allowed() {
    let zones = zones("example.com", "a MX 10 mail\nmail A 192.0.2.1\ns SRV 1 2 3 mail\n");
    let (mx, _) = send(&zones, &NoSteering, &query("a.example.com", MX, &[]), Transport::Udp);
    assert_eq!(mx.windows(5).filter(|window| window == b"\x04mail").count(), 1);
    let (srv, _) = send(&zones, &NoSteering, &query("s.example.com", 33, &[]), Transport::Udp);
    let whole = name("mail.example.com");
    assert!(srv.windows(whole.as_wire().len()).any(|window| window == whole.as_wire()));
    assert!(Message::from_vec(&srv).is_ok());
}

/// Hostnames and record data for random zones.
fn any_zone() -> impl Strategy<Value = String> {
    let label = || prop::sample::select(vec!["a", "b", "Host", "*", "x\\.y", "long-label-of-many-letters", "ns"]);
    let host = move || prop::collection::vec(label(), 1..4).prop_map(|labels| labels.join("."));
    let data = prop_oneof![
        any::<[u8; 4]>().prop_map(|ip| format!("A {}", std::net::Ipv4Addr::from(ip))),
        any::<[u8; 16]>().prop_map(|ip| format!("AAAA {}", std::net::Ipv6Addr::from(ip))),
        host().prop_map(|host| format!("MX 10 {host}")),
        host().prop_map(|host| format!("SRV 1 2 3 {host}")),
        host().prop_map(|host| format!("PTR {host}")),
        "[a-z]{0,80}".prop_map(|text| format!("TXT \"{text}\"")),
        host().prop_map(|host| format!("NAPTR 1 2 \"s\" \"x\" \"\" {host}")),
    ];
    prop::collection::vec((host(), data), 1..20)
        .prop_map(|records| records.into_iter().map(|(owner, data)| format!("{owner} {data}\n")).collect())
}

#[test]
fn encoded_answers_read_back_as_the_same_records() {
    let cases = 600;
    proptest!(ProptestConfig::with_cases(cases), |(text in any_zone())| {
        let zone = zone("example.com", &text, &[]);
        let zones = Zones::new([zone.clone()]);
        let owners: Vec<Name> = text.lines().map(|line| {
            let owner = line.split(' ').next().expect("owner");
            name(&format!("{owner}.example.com"))
        }).collect();
        for qname in owners.iter().chain([&name("nope.example.com"), &name("example.com")]) {
            for qtype in [A, AAAA, MX, TXT, SOA, 12, 33, 35] {
                let client = Asking { transport: CLIENT, ecs: None };
                let query_parts = Query { qname: qname.as_ref(), qtype, qclass: 1, client, dnssec: Dnssec::unwanted(),
                    responses: crate::response::answer::Responses::Full };
                let expected = answer(&zones, &NoSteering, &query_parts);
                let message = decoded(&zones, &NoSteering, &query(&qname.to_string(), qtype, &[]), Transport::Tcp);
                for (sets, section) in [(&expected.answer[..], &message.answers), (&expected.authority,
                    &message.authorities), (&expected.additional[..], &message.additionals)] {
                    let ours: Vec<_> = sets.iter().flat_map(|set| set.data.iter().map(move |rdata| {
                        (set.owner.name().as_wire().to_ascii_lowercase(), set.rtype, set.ttl,
                            crate::protocol::rdata::canonical(set.rtype, rdata).into_owned())
                    })).collect();
                    let theirs: Vec<_> = section.iter().map(|record| {
                        let wire = |name: &hickory_proto::rr::Name| {
                            let octets = |label: &[u8]| {
                                let length = u8::try_from(label.len()).expect("short");
                                std::iter::once(length).chain(label.to_ascii_lowercase()).collect::<Vec<_>>()
                            };
                            let mut labels: Vec<u8> = name.iter().flat_map(octets).collect();
                            labels.push(0);
                            labels
                        };
                        let rtype = u16::from(record.record_type());
                        let mut rdata = Vec::new();
                        let mut encoder = hickory_proto::serialize::binary::BinEncoder::new(&mut rdata);
                        encoder.set_name_encoding(hickory_proto::serialize::binary::NameEncoding::Uncompressed);
                        hickory_proto::serialize::binary::BinEncodable::emit(&record.data,
                            &mut encoder).expect("encodes");
                        let rdata = crate::protocol::rdata::canonical(rtype, &rdata).into_owned();
                        (wire(&record.name), rtype, record.ttl, rdata)
                    }).collect();
                    prop_assert_eq!(ours, theirs);
                }
            }
        }
    });
    println!("answers read back by another decoder: {cases} zones");
}

/// Random bytes, or a valid query with some bytes changed and its end cut or extended.
fn any_packet() -> impl Strategy<Value = Vec<u8>> {
    let subnet = prop::collection::vec(any::<u8>(), 0..24);
    let base = (subnet, any::<u16>(), any::<u16>()).prop_map(|(subnet, payload, qtype)| {
        let opt = opt(payload, &[(SUBNET, &subnet), (3, b"")]);
        query("x.sub.example.com", qtype % 300, &[&opt])
    });
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    let mutated = (base, changes, any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 0..4)).prop_map(
        |(mut packet, changes, end, tail)| {
            for (place, value) in changes {
                let at = place.index(packet.len());
                packet[at] = value;
            }
            if tail.len() == 1 {
                packet.truncate(end.index(packet.len()));
            }
            packet.extend(tail);
            packet
        },
    );
    prop_oneof![1 => prop::collection::vec(any::<u8>(), 0..80), 5 => mutated]
}

#[test]
fn any_bytes_are_dropped_or_answered_with_a_sound_message() {
    let cases = 8_000;
    let zones = small();
    proptest!(ProptestConfig::with_cases(cases), |(packet in any_packet())| {
        for transport in [Transport::Udp, Transport::Tcp] {
            let (out, outcome) = send(&zones, &NoSteering, &packet, transport);
            match outcome {
                Outcome::Dropped => {
                    prop_assert!(out.is_empty() && (packet.len() < 12 || packet[2] & 0x80 != 0));
                }
                Outcome::Answered { .. } => {
                    prop_assert_eq!(&out[..2], &packet[..2]);
                    prop_assert!(out[2] & 0x80 != 0 && (transport == Transport::Tcp || out.len() <= 1232));
                    prop_assert!(Message::from_vec(&out).is_ok(), "{:?}", out);
                }
            }
        }
    });
    println!("packets of any bytes: {cases} cases");
}
