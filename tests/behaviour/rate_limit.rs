//! Response-rate limiting: off by default, by prefix and class, with slip; proven addresses are exempt.

use std::net::UdpSocket;
use std::time::Duration;

use bailiwick_tests::dns::{Reply, question};
use bailiwick_tests::node::{Node, Setup};
use bailiwick_tests::process::text_of;

use crate::fixture::{World, ZONE};

fn node(lines: &str) -> Node {
    Setup::new(&World::start().rules(1), ZONE).with(lines).start()
}

/// Sends `count` queries for names made of their number and collects what comes back until nothing more does.
fn flood(node: &Node, count: usize, name: impl Fn(usize) -> String) -> Vec<Reply> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(node.dns).unwrap();
    let mut replies = Vec::new();
    let mut collect = |patience| {
        socket.set_read_timeout(Some(patience)).unwrap();
        let mut buffer = [0; 2048];
        while let Ok(length) = socket.recv(&mut buffer) {
            replies.push(Reply::read(&buffer[..length]));
        }
    };
    for number in 0..count {
        socket.send(&question(&name(number), "A").to_wire()).unwrap();
        if number % 50 == 49 {
            collect(Duration::from_millis(1)); // no buffer overflows
        }
    }
    collect(Duration::from_millis(500)); // silence can only be seen by waiting
    replies
}

fn truncated(replies: &[Reply]) -> usize {
    replies.iter().filter(|reply| reply.message.metadata.truncation && reply.answers().is_empty()).count()
}

#[test]
fn without_configuration_nothing_is_limited() {
    let node = node("");
    assert_eq!(flood(&node, 500, |_| "www.ai.example.com".to_owned()).len(), 500);
}

#[test]
fn a_flood_of_random_names_gets_few_answers_and_some_truncated_ones() {
    let node = node("[rate_limit]\nper_second = 5\nslip = 4\n");
    let replies = flood(&node, 400, |number| format!("r{number}.ai.example.com"));
    let slipped = truncated(&replies);
    let whole = replies.len() - slipped;
    // The flood takes some time on a busy machine, and each second of it allows five more.
    assert!((5..150).contains(&whole), "{whole} whole answers");
    assert!((50..=100).contains(&slipped), "{slipped} truncated answers");
    // Another class has its own measure, and who comes by TCP proves his address.
    assert_eq!(question("www.ai.example.com", "A").ask(node.dns).data(), ["192.0.2.80"]);
    for _ in 0..20 {
        assert!(!question("none.ai.example.com", "A").ask_by_tcp(node.dns).message.metadata.truncation);
    }
    let metrics = node.get("/metrics");
    let counted = |action: &str| {
        let name = format!("bailiwick_rate_limited_total{{action=\"{action}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse::<usize>().ok()).unwrap()
    };
    assert_eq!(counted("truncated"), slipped);
    assert_eq!(counted("dropped"), 400 - replies.len());
}

#[test]
fn a_valid_server_cookie_is_never_limited() {
    let node = node("[rate_limit]\nper_second = 1\nslip = 0\n");
    // dig asks with a client cookie, and sends the server's back on the same connection's next queries by +cookie=.
    let port = node.dns.port().to_string();
    let reported = text_of("dig", ["@127.0.0.1", "-p", &port, "+cookie", "www.ai.example.com"]);
    let cookie = reported.lines().find_map(|line| line.strip_prefix("; COOKIE: ")).expect("a cookie");
    let cookie = cookie.split(' ').next().unwrap().to_owned();
    let _ = flood(&node, 50, |_| "www.ai.example.com".to_owned());
    for _ in 0..10 {
        let with = format!("+cookie={cookie}");
        let reported = text_of("dig", ["@127.0.0.1", "-p", &port, "+short", "+tries=1", &with, "www.ai.example.com"]);
        assert_eq!(reported.trim(), "192.0.2.80");
    }
}

#[test]
fn exempt_networks_are_never_limited() {
    let node = node("[rate_limit]\nper_second = 1\nslip = 0\nexempt = [\"127.0.0.0/8\"]\n");
    assert_eq!(flood(&node, 200, |number| format!("r{number}.ai.example.com")).len(), 200);
}
