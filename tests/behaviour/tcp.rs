//! DNS over TCP: RFC 7766, and what unkind clients do.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bailiwick_tests::dns::{Reply, question};
use bailiwick_tests::node::{Node, Setup};
use bailiwick_tests::wait;

use crate::fixture::{World, ZONE};

fn node(lines: &str) -> Node {
    Setup::new(&World::start().rules(1), ZONE).with(lines).start()
}

fn connect(server: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&u16::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat()
}

fn receive(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).unwrap();
    message
}

/// A query with an id of its own.
fn query(id: u16, name: &str) -> Vec<u8> {
    let mut query = question(name, "A").to_wire();
    query[..2].copy_from_slice(&id.to_be_bytes());
    query
}

/// Whether the server has ended the connection: nothing more comes, or a reset.
fn is_over(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 16]) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
    }
}

#[test]
fn rfc_7766_6_2_1_1_pipelined_queries_are_all_answered() {
    let node = node("");
    let mut stream = connect(node.dns);
    let names = ["www.ai.example.com", "nothing.ai.example.com", "big.ai.example.com"];
    let all: Vec<u8> = (0..500).flat_map(|id| framed(&query(id, names[usize::from(id) % 3]))).collect();
    stream.write_all(&all).unwrap();
    let mut ids: Vec<u16> = (0..500).map(|_| Reply::read(&receive(&mut stream)).message.metadata.id).collect();
    ids.sort_unstable();
    assert!(ids.into_iter().eq(0..500), "each query is answered once, in any order");
}

#[test]
fn rfc_7766_8_a_message_may_come_in_pieces() {
    let node = node("");
    let mut stream = connect(node.dns);
    stream.set_nodelay(true).unwrap();
    for octet in framed(&query(7, "www.ai.example.com")) {
        stream.write_all(&[octet]).unwrap();
    }
    assert_eq!(Reply::read(&receive(&mut stream)).data(), ["192.0.2.80"]);
}

#[test]
fn a_client_that_has_said_all_gets_all() {
    let node = node("");
    let mut stream = connect(node.dns);
    let two = [framed(&query(1, "www.ai.example.com")), framed(&query(2, "www.ai.example.com"))].concat();
    stream.write_all(&two).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    let length = usize::from(u16::from_be_bytes([all[0], all[1]]));
    assert_eq!(all.len(), 2 * (2 + length));
}

#[test]
fn the_longest_query_is_read_whole() {
    let node = node("");
    let mut stream = connect(node.dns);
    let mut longest = query(9, "www.ai.example.com");
    longest.resize(65_535, 0); // octets after the message
    stream.write_all(&framed(&longest)).unwrap();
    let answer = receive(&mut stream);
    assert_eq!(answer[..2], [0, 9]);
    // The connection is as good as before.
    stream.write_all(&framed(&query(10, "www.ai.example.com"))).unwrap();
    assert_eq!(Reply::read(&receive(&mut stream)).data(), ["192.0.2.80"]);
}

#[test]
fn empty_and_short_messages_harm_nobody() {
    let node = node("");
    let mut stream = connect(node.dns);
    let mut all = vec![0; 400]; // 200 of length zero
    all.extend(framed(b"short"));
    all.extend(framed(&query(3, "www.ai.example.com")));
    stream.write_all(&all).unwrap();
    assert_eq!(Reply::read(&receive(&mut stream)).message.metadata.id, 3);
}

#[test]
fn an_idle_connection_and_a_slow_sender_are_parted_with() {
    let node = node("[tcp]\nidle = \"500ms\"\n");
    let mut idle = connect(node.dns);
    let mut slow = connect(node.dns);
    let mut empty = connect(node.dns);
    let began = Instant::now();
    let message = framed(&query(1, "www.ai.example.com"));
    let mut at = 0;
    wait::until_true("the slow sender is cut off", || {
        // Octet by octet it is never idle, nor is one that sends messages of nothing.
        at += 1;
        let _ = empty.write_all(&[0, 0]);
        slow.write_all(&[message[at.min(message.len() - 2)]]).is_err()
    });
    assert!(is_over(&mut idle) && is_over(&mut empty));
    assert!(began.elapsed() >= Duration::from_millis(500), "the connection isn't closed too early");
}

#[test]
fn a_client_that_takes_no_answers_is_parted_with() {
    let node = node("[tcp]\nidle = \"500ms\"\n");
    let mut deaf = connect(node.dns);
    deaf.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    let many: Vec<u8> = (0..1000).flat_map(|id| framed(&query(id, "big.ai.example.com"))).collect();
    wait::until_true("its connection ends", || {
        let error = deaf.write_all(&many).err().map(|error| error.kind());
        matches!(error, Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe))
    });
    assert_eq!(question("www.ai.example.com", "A").ask_by_tcp(node.dns).data(), ["192.0.2.80"]);
}

#[test]
fn one_client_has_so_many_connections_and_no_more() {
    let node = node("[tcp]\nconnections = 8\nper_client = 3\n");
    let ask = |stream: &mut TcpStream| {
        stream.write_all(&framed(&query(1, "www.ai.example.com"))).unwrap();
        receive(stream)
    };
    let mut held: Vec<TcpStream> = (0..3).map(|_| connect(node.dns)).collect();
    held.iter_mut().for_each(|stream| drop(ask(stream)));
    assert!(is_over(&mut connect(node.dns)), "the fourth");
    // Another client, by another address of this machine.
    let other = std::process::Command::new("dig")
        .args([
            "+tcp",
            "+short",
            "-b",
            "127.0.0.9",
            "@127.0.0.1",
            "-p",
            &node.dns.port().to_string(),
            "www.ai.example.com",
        ])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&other.stdout).trim(), "192.0.2.80");
    drop(held.pop());
    wait::until_true("there is room again", || {
        let mut stream = connect(node.dns);
        stream.write_all(&framed(&query(1, "www.ai.example.com"))).is_ok() && !is_over(&mut stream)
    });
    let metrics = node.get("/metrics");
    assert!(metrics.contains("bailiwick_connections_refused_total"), "{metrics}");
}

#[test]
fn a_server_out_of_files_goes_on_when_there_are_some_again() {
    let setup = Setup::new(&World::start().rules(1), ZONE).with("[tcp]\nper_client = 4096\nconnections = 4096\n");
    let node = setup.start_limited(64);
    let held: Vec<TcpStream> = (0..100).map(|_| connect(node.dns)).collect();
    node.tells("connections can't be accepted");
    assert_eq!(question("www.ai.example.com", "A").ask(node.dns).data(), ["192.0.2.80"], "by UDP all is well");
    drop(held);
    assert_eq!(question("www.ai.example.com", "A").ask_by_tcp(node.dns).data(), ["192.0.2.80"]);
    assert!(node.log().matches("connections can't be accepted").count() <= 3, "{}", node.log());
}

#[test]
fn what_has_arrived_is_answered_before_the_end() {
    let mut node = node("");
    let mut stream = connect(node.dns);
    stream.write_all(&framed(&query(1, "www.ai.example.com"))).unwrap();
    receive(&mut stream);
    stream.write_all(&framed(&query(2, "www.ai.example.com"))).unwrap();
    node.process.signal("TERM");
    assert_eq!(Reply::read(&receive(&mut stream)).message.metadata.id, 2);
    assert!(is_over(&mut stream));
    assert!(node.process.wait().success());
}
