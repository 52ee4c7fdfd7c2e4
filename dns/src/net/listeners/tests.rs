//! Tests of sockets with real clients: sockets that are bound, served, inherited and drained.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::{ClientSubnet, EdnsOption};
use hickory_proto::rr::{Name, RecordType};

use super::*;
use crate::net::streams::Limits;
use crate::protocol::rdata::{RdataSet, Rdatas, rtype};
use crate::response::answer::{Asking, SteeredAnswer, SteeredAnswers};
use crate::response::wire::{self, Outcome, Transport};
use crate::zone::{ServiceIndex, SteeredOwner, Zone, file};
use crate::zones::{ServedZone, Zones};

const ZONE: &[u8] = b"$TTL 300\n@ SOA ns.example.org. hostmaster 1 3600 600 86400 60\n  NS ns.example.org.\n\
    www A 192.0.2.1\nwww A 192.0.2.2\n*.wild TXT \"one\" \"two\"\nalias CNAME WWW\nmail MX 10 www\n\
    _s._tcp SRV 1 2 443 www\n\
    @ CAA 0 issue \"ca.example\"\nnew TYPE65280 \\# 3 010203\nweb HTTPS 1 . alpn=h2\nsub NS ns.sub\n\
    ns.sub A 192.0.2.53\n";

struct Fixture(Zones, RdataSet);

/// Service 0 gives an address with a scope, service 1 gives nothing.
impl SteeredAnswers for Fixture {
    fn resolve(&self, service: ServiceIndex, _: u16, client: &Asking) -> SteeredAnswer<'_> {
        let scope = client.ecs.map_or(0, |ecs| ecs.source.min(20));
        match service.0 {
            0 => SteeredAnswer::Records { ttl: 30, rdatas: self.records(), scope, region: None },
            _ => SteeredAnswer::Nothing { scope, ede: 18 },
        }
    }
}

impl Fixture {
    fn new() -> Self {
        let origin = "example.com".parse().unwrap();
        let records = file::parse(ZONE, "z", &origin, &mut |_| Err(String::new())).unwrap();
        let owner = |name: &str, service| SteeredOwner {
            name: name.parse().unwrap(),
            service: ServiceIndex(service),
            types: vec![rtype::A],
        };
        let steered = [owner("chat.example.com", 0), owner("dark.example.com", 1)];
        let zone = Zone::compile(&origin, &records, &steered).unwrap().zone;
        Self(Zones::new([Arc::new(ServedZone::unsigned(zone))]), RdataSet::new(rtype::A, [&[192, 0, 2, 77][..]]))
    }

    fn records(&self) -> Rdatas<'_> {
        self.1.as_ref()
    }
}

impl Respond for Fixture {
    fn respond(&self, packet: &[u8], from: IpAddr, transport: Transport, out: &mut Vec<u8>) -> Outcome {
        let settings = wire::Settings::anonymous();
        let context = wire::Context { settings: &settings, limiter: None, now: 0 };
        wire::respond(&context, &self.0, self, packet, from, transport, out)
    }
}

fn dns(addresses: &[&str]) -> Addresses {
    Addresses { dns: addresses.iter().map(|address| address.parse().unwrap()).collect(), ..Addresses::default() }
}

fn query(name: &str, rtype: RecordType, edns: Option<Edns>) -> Message {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.queries.push(Query::query(Name::from_ascii(name).unwrap(), rtype));
    message.edns = edns;
    message
}

fn edns(subnet: Option<&str>) -> Option<Edns> {
    let mut edns = Edns::new();
    edns.set_max_payload(1232).set_dnssec_ok(true);
    if let Some(subnet) = subnet {
        edns.options_mut().insert(EdnsOption::Subnet(subnet.parse::<ClientSubnet>().unwrap()));
    }
    Some(edns)
}

fn by_udp(server: SocketAddr, packet: &[u8]) -> Message {
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    client.send_to(packet, server).unwrap();
    let mut buffer = [0; 4096];
    let length = client.recv(&mut buffer).unwrap();
    Message::from_vec(&buffer[..length]).unwrap()
}

fn by_tcp(stream: &mut TcpStream, packet: &[u8]) -> Message {
    let length = u16::try_from(packet.len()).unwrap().to_be_bytes();
    stream.write_all(&[&length, packet].concat()).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut response = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut response).unwrap();
    Message::from_vec(&response).unwrap()
}

fn queries() -> Vec<Message> {
    let mut queries: Vec<Message> = [None, edns(None), edns(Some("198.51.100.0/24")), edns(Some("2001:db8::/48"))]
        .into_iter()
        .flat_map(|edns| {
            let ask = |(name, rtype)| query(name, rtype, edns.clone());
            [
                ("chat.example.com.", RecordType::A),
                ("cHaT.eXample.com.", RecordType::AAAA),
                ("dark.example.com.", RecordType::A),
                ("WWW.example.com.", RecordType::A),
                ("alias.example.com.", RecordType::A),
                ("x.wild.example.com.", RecordType::TXT),
                ("mail.example.com.", RecordType::MX),
                ("_s._tcp.example.com.", RecordType::SRV),
                ("example.com.", RecordType::CAA),
                ("example.com.", RecordType::SOA),
                ("new.example.com.", RecordType::Unknown(65280)),
                ("web.example.com.", RecordType::HTTPS),
                ("host.sub.example.com.", RecordType::A),
                ("none.example.com.", RecordType::A),
                ("example.net.", RecordType::A),
                ("example.com.", RecordType::AXFR),
            ]
            .map(ask)
        })
        .collect();
    let mut unknown_version = edns(None);
    unknown_version.as_mut().unwrap().set_version(1);
    queries.push(query("www.example.com.", RecordType::A, unknown_version));
    let mut two_questions = query("www.example.com.", RecordType::A, edns(None));
    two_questions.queries.push(Query::query(Name::root(), RecordType::NS));
    queries.push(two_questions);
    let mut update = query("example.com.", RecordType::SOA, None);
    update.metadata.op_code = OpCode::Status;
    update.metadata.checking_disabled = true;
    queries.push(update);
    queries
}

#[tokio::test(flavor = "multi_thread")]
async fn both_transports_give_the_same_flags_records_and_options() {
    let addresses = Addresses { threads: NonZero::new(3), ..dns(&["127.0.0.1:0"]) };
    let sockets = Sockets::bind(&addresses).unwrap();
    let server = sockets.addresses().dns[0];
    let listeners = sockets
        .serve(&Arc::new(Fixture::new()), &Gate::new(Limits::default()), &Certificates::default(), &Tasks::default())
        .unwrap();
    let comparing = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(server).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut codes = std::collections::BTreeSet::new();
        for query in queries() {
            let packet = query.to_vec().unwrap();
            let (udp, tcp) = (by_udp(server, &packet), by_tcp(&mut stream, &packet));
            assert_eq!(udp, tcp, "{query}");
            codes.insert(u16::from(udp.metadata.response_code));
        }
        let steered = query("chat.example.com.", RecordType::A, edns(Some("198.51.100.0/24")));
        let answer = by_tcp(&mut stream, &steered.to_vec().unwrap());
        assert_eq!((answer.metadata.response_code, answer.answers.len()), (ResponseCode::NoError, 1));
        let Some(EdnsOption::Subnet(subnet)) = answer.edns.as_ref().unwrap().option(8.into()) else {
            panic!("no client subnet in {answer}");
        };
        assert_eq!((subnet.source_prefix(), subnet.scope_prefix()), (24, 20));
        codes
    });
    let codes = comparing.await.unwrap();
    assert_eq!(codes.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 16], "every kind of answer was compared");
    listeners.drain(Duration::from_secs(5)).await;
    assert!(TcpStream::connect(server).is_err(), "after the drain no socket listens");
    assert!(UdpSocket::bind(server).is_ok());
}

#[test]
fn an_address_in_use_is_reported_with_the_remedy() {
    let first = Sockets::bind(&dns(&["127.0.0.1:0"])).unwrap();
    let address = first.addresses().dns[0];
    let errors = Sockets::bind(&dns(&[&address.to_string()])).unwrap_err();
    let reported: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert!(reported[0].starts_with(&format!("can't listen on {address} by TCP: ")), "{reported:?}");
    assert!(reported[0].contains("another program listens there"), "{reported:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ipv6_socket_answers_ipv4_unless_ipv4_has_its_own_socket() {
    let answered = |addresses: Addresses, asked: &str| {
        let sockets = Sockets::bind(&addresses).unwrap();
        let port = sockets.addresses().dns[0].port();
        let (fixture, gate) = (Arc::new(Fixture::new()), Gate::new(Limits::default()));
        let listeners = sockets.serve(&fixture, &gate, &Certificates::default(), &Tasks::default()).unwrap();
        let server = SocketAddr::new(asked.parse().unwrap(), port);
        let packet = query("www.example.com.", RecordType::A, None).to_vec().unwrap();
        let by_tcp = TcpStream::connect(server).is_ok_and(|mut stream| by_tcp(&mut stream, &packet).answers.len() == 2);
        let is_answered = by_tcp && by_udp(server, &packet).answers.len() == 2;
        (is_answered, listeners)
    };
    for (only, expected) in [(None, true), (Some(false), true), (Some(true), false)] {
        let addresses = Addresses { ipv6_only: only, threads: NonZero::new(1), ..dns(&["[::]:0"]) };
        let (is_answered, listeners) = answered(addresses, "127.0.0.1");
        assert_eq!(is_answered, expected, "{only:?}");
        listeners.drain(Duration::from_secs(5)).await;
    }
    let port = Sockets::bind(&dns(&["[::]:0"])).unwrap().addresses().dns[0].port();
    let both = dns(&[&format!("[::]:{port}"), &format!("0.0.0.0:{port}")]);
    let (is_answered, listeners) = answered(both, "127.0.0.1");
    assert!(is_answered, "sockets of IPv4 and IPv6 answer side by side");
    listeners.drain(Duration::from_secs(5)).await;
}

#[test]
fn sockets_at_one_port_share_ipv4_and_ipv6_by_transport() {
    let bind = |dns: &str, dot: &str, doq: &str, doh: &str| {
        let parse = |text: &str| text.split_whitespace().map(|address| address.parse().unwrap()).collect();
        let (dns, dot, doq, doh) = (parse(dns), parse(dot), parse(doq), parse(doh));
        Sockets::bind(&Addresses { dns, dot, doq, doh, ..Addresses::default() })
    };
    // A port that is free for UDP and TCP.
    let port = bind("[::]:0", "", "", "").unwrap().addresses().dns[0].port();
    let (all, ipv4) = (format!("[::]:{port}"), format!("0.0.0.0:{port}"));
    let takes_ipv4 = |socket: socket2::SockRef<'_>| !socket.only_v6().unwrap();
    // QUIC is a protocol over UDP: the UDP sockets of DNS make room for it, the TCP socket doesn't have to.
    let sockets = bind(&all, "", &ipv4, "").unwrap();
    let (tcp, udp) = &sockets.dns[0];
    assert!(takes_ipv4(tcp.into()) && udp.iter().all(|udp| !takes_ipv4(udp.into())));
    drop(sockets);
    // TLS and HTTPS are protocols over TCP.
    for (dot, doh) in [(&ipv4[..], ""), ("", &ipv4[..])] {
        let sockets = bind(&all, dot, "", doh).unwrap();
        let (tcp, udp) = &sockets.dns[0];
        assert!(!takes_ipv4(tcp.into()) && udp.iter().all(|udp| takes_ipv4(udp.into())));
    }
    let sockets = bind(&ipv4, "", &all, "").unwrap();
    assert!(!takes_ipv4((&sockets.doq[0]).into()), "the other way round");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_takes_over_answers_the_queries_in_the_sockets() {
    let addresses = Addresses { threads: NonZero::new(2), ..dns(&["127.0.0.1:0"]) };
    let old = Sockets::bind(&addresses).unwrap();
    let copies = old.copies().unwrap();
    assert_eq!(copies.len(), 3);
    let server = old.addresses().dns[0];
    let (fixture, gate) = (Arc::new(Fixture::new()), Gate::new(Limits::default()));
    let mut old = old.serve(&fixture, &gate, &Certificates::default(), &Tasks::default()).unwrap();
    old.yield_sockets().await;
    let packet = query("www.example.com.", RecordType::A, None).to_vec().unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    client.send_to(&packet, server).unwrap();
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();

    let mut inherited = Inherited::default();
    copies.into_iter().for_each(|handed| inherited.add(Some(handed.role), handed.file).unwrap());
    let new = Sockets::bind_with(&addresses, &mut inherited).unwrap();
    assert!(inherited.is_empty() && new.addresses().dns == [server]);
    let new = new.serve(&fixture, &gate, &Certificates::default(), &Tasks::default()).unwrap();
    assert!(client.recv(&mut [0; 512]).unwrap() > 12);
    assert_eq!(by_tcp(&mut stream, &packet).answers.len(), 2);
    drop(stream);
    old.linger(Duration::from_secs(5)).await;
    new.drain(Duration::from_secs(5)).await;
    assert!(TcpStream::connect(server).is_err(), "no socket listens any more");
}
