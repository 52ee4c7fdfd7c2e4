//! Tests with random signed zones: all signatures in responses to queries with DO verify. Except for signatures and
//! proofs, the responses are the same as without DO.

use super::*;
use crate::dnssec::key::Algorithm;
use crate::protocol::rdata::rtype::{DNAME, NS};
use crate::testing::signed::{DO, ask, flagged, key_set, sets, sign, verify};
use crate::testing::{NOW, decoded};

#[test]
fn with_do_every_rrset_of_a_random_zone_verifies() {
    let cases = 25;
    let key_set = key_set("example.com", Algorithm::Ed25519); // the quicker one
    let verified = std::cell::Cell::new(0);
    proptest!(ProptestConfig::with_cases(cases), |(text in any_zone())| {
        let zone = sign(&zone("example.com", &text, &[]), &key_set, NOW, None);
        let zones = Zones::new([std::sync::Arc::new(zone)]);
        let owners: Vec<String> = text.lines().map(|line| {
            format!("{}.example.com", line.split(' ').next().expect("owner"))
        }).collect();
        let asked = owners.iter().flat_map(|owner| [owner.clone(), owner.replacen('*', "x", 1),
            format!("under.{owner}")]);
        for qname in asked.chain(["nope.example.com".to_owned(), "example.com".to_owned()]) {
            for qtype in [A, AAAA, MX, TXT, SOA, NS, DNAME, 12, 33, 35, 255] {
                let message = ask(&zones, &NoSteering, &qname, qtype, DO);
                match verify(&message, &key_set, NOW, &[]) {
                    Ok(number) => verified.set(verified.get() + number),
                    Err(error) => prop_assert!(false, "{qname} {qtype}: {error}\n{message}"),
                }
                // The records are the same as without DO, except for the proofs of negative answers.
                let plain = decoded(&zones, &NoSteering, &query(&qname, qtype, &[]), Transport::Tcp);
                let bare = |message: &Message| {
                    sets(&message.answers).into_iter().map(|(key, (records, _))| (key, records)).collect::<Vec<_>>()
                };
                prop_assert_eq!(bare(&message), bare(&plain));
                prop_assert_eq!(message.authorities.is_empty(), !message.answers.is_empty());
                // Over UDP the response is the same, or truncated if it doesn't fit.
                let (udp, outcome) = send(&zones, &NoSteering, &flagged(&qname, qtype, DO), Transport::Udp);
                let (tcp, _) = send(&zones, &NoSteering, &flagged(&qname, qtype, DO), Transport::Tcp);
                match outcome {
                    Outcome::Answered { truncated: true, .. } => prop_assert!(tcp.len() > 1232 && udp.len() < 300),
                    _ => prop_assert_eq!(udp, tcp),
                }
            }
        }
    });
    println!("random signed zones: {cases}, RRsets verified by another library: {}", verified.get());
}
