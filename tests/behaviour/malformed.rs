//! Packets that aren't queries are dropped or answered by an error. Nothing panics, and nothing is logged above debug.

use std::time::Duration;

use bailiwick_rules::testing::Random;
use bailiwick_tests::dns::{Reply, exchange, exchange_within, question};
use bailiwick_tests::node::Setup;
use bailiwick_tests::wait;

use crate::fixture::{World, ZONE};

#[test]
fn broken_packets_harm_nobody() {
    const CASES: u64 = 3_000;
    let world = World::start();
    let node = Setup::new(&world.rules(1), ZONE).start();
    let before = node.log();
    let sound = question("chat.ai.example.com", "A").from("91.0.0.1").to_wire();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for seed in 0..CASES {
        let mut random = Random::new(seed);
        let mut packet = sound.clone();
        for _ in 0..=random.below(6) {
            let position = random.below(packet.len());
            packet[position] = random.bits().to_le_bytes()[0];
        }
        packet.truncate(1 + random.below(packet.len() + 20));
        let _ = socket.send_to(&packet, node.dns);
    }
    println!("malformed packets: {CASES} random cases");
    let sound = question("www.ai.example.com", "A").to_wire();
    // A datagram behind so many may find the socket's buffer full: it is sent again, as a resolver does.
    let answer = wait::until("it still answers", || exchange_within(node.dns, &sound, Duration::from_millis(300)));
    assert_eq!(Reply::read(&answer).data(), ["192.0.2.80"]);
    assert_eq!(node.log(), before, "nothing was logged");
}

#[test]
fn responses_and_stubs_are_dropped() {
    let world = World::start();
    let node = Setup::new(&world.rules(1), ZONE).start();
    let short = Duration::from_millis(300); // silence can only be seen by waiting
    let mut response = question("www.ai.example.com", "A").to_wire();
    response[2] |= 0x80;
    assert_eq!(exchange_within(node.dns, &response, short), None, "QR=1");
    assert_eq!(exchange_within(node.dns, &response[..11], short), None, "shorter than a header");
}

#[test]
fn rfc_7871_a_malformed_client_subnet_is_formerr() {
    let world = World::start();
    let node = Setup::new(&world.rules(1), ZONE).start();
    let sound = question("chat.ai.example.com", "A").from("91.0.0.1").to_wire();
    let option = sound.len() - 7; // family, source, scope, three octets
    assert_eq!(sound[option..], [0, 1, 24, 0, 91, 0, 0]);
    for (what, position, value) in [
        ("family", option + 1, 3),
        ("source too long", option + 2, 33),
        ("scope in a query", option + 3, 24),
        ("length and source disagree", option + 2, 16),
        ("stray bits", option + 2, 23),
    ] {
        let mut packet = sound.clone();
        packet[position] = value;
        if what == "stray bits" {
            packet[option + 6] = 1;
        }
        let answer = exchange(node.dns, &packet).unwrap();
        assert_eq!(answer[3] & 15, 1, "{what}");
    }
}
