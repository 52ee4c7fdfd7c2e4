//! Options of EDNS and the odd questions, asked of the real server: NSID, cookies, keepalive, padding, ANY, CHAOS,
//! transfers.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use bailiwick_tests::dns::{exchange, question};
use bailiwick_tests::node::{Node, Setup};
use bailiwick_tests::process::{run, text_of};
use bailiwick_tests::wait;

use crate::fixture::{World, ZONE};

const SECRETS: [&str; 3] =
    ["e5e973e5a6b2a43f48e7dc849e37bfcf", "445536bcd2513298075a5d379663c962", "dd3bdf9344b678b185a6f5cb60fca715"];

/// A node with more in its configuration, and with the secrets as files `0`, `1`, `2`.
fn node_with(config: &str) -> Node {
    let setup = Setup::new(&World::start().rules(1), ZONE);
    for (number, secret) in SECRETS.iter().enumerate() {
        setup.write(&number.to_string(), &format!("{secret}\n"));
    }
    let whole = std::fs::read_to_string(setup.path("bailiwick.toml")).unwrap() + config;
    setup.write("bailiwick.toml", &whole);
    setup.start()
}

fn dig(node: &Node, words: &str) -> String {
    let (server, port) = (format!("@{}", node.dns.ip()), node.dns.port().to_string());
    let mut arguments = vec![server.as_str(), "-p", &port, "+tries=1", "+time=5", "+nobadcookie"];
    arguments.extend(words.split(' '));
    text_of("dig", arguments)
}

/// A query for `www.ai.example.com A` (or without question) whose OPT has these options.
fn packet(questions: u8, options: &[(u16, &[u8])]) -> Vec<u8> {
    let mut packet = vec![0x12, 0x34, 0, 0, 0, questions, 0, 0, 0, 0, 0, 1];
    if questions == 1 {
        packet.extend_from_slice(b"\x03www\x02ai\x07example\x03com\0\0\x01\0\x01");
    }
    let mut rdata = Vec::new();
    for (code, data) in options {
        rdata.extend_from_slice(&code.to_be_bytes());
        rdata.extend_from_slice(&u16::try_from(data.len()).unwrap().to_be_bytes());
        rdata.extend_from_slice(data);
    }
    packet.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0]);
    packet.extend_from_slice(&u16::try_from(rdata.len()).unwrap().to_be_bytes());
    packet.extend(rdata);
    packet
}

/// The response code with its extension, and the options of the OPT at the response's end.
fn read(response: &[u8]) -> (u16, Vec<(u16, Vec<u8>)>) {
    let message = hickory_proto::op::Message::from_vec(response).unwrap();
    let code = u16::from(message.metadata.response_code);
    let edns = message.edns.expect("an OPT");
    let option =
        |(code, option): &(hickory_proto::rr::rdata::opt::EdnsCode, hickory_proto::rr::rdata::opt::EdnsOption)| {
            (u16::from(*code), Vec::<u8>::try_from(option).unwrap())
        };
    (code, edns.options().as_ref().iter().map(option).collect())
}

fn ask(server: SocketAddr, packet: &[u8]) -> (u16, Vec<(u16, Vec<u8>)>) {
    read(&exchange(server, packet).unwrap())
}

fn ask_by_tcp(server: SocketAddr, packet: &[u8]) -> (u16, Vec<(u16, Vec<u8>)>) {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    stream.write_all(&[&u16::try_from(packet.len()).unwrap().to_be_bytes()[..], packet].concat()).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut response = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut response).unwrap();
    read(&response)
}

const NSID: u16 = 3;
const ECS: u16 = 8;
const COOKIE: u16 = 10;
const KEEPALIVE: u16 = 11;
const PADDING: u16 = 12;

#[test]
fn rfc5001_nsid_and_rfc4892_chaos_are_told_if_configured_and_only_then() {
    let named = node_with("[identity]\nversion = \"bailiwick\"\nhostname = \"ns1.test\"\nnsid = \"node one\"\n");
    let silent = node_with("");
    assert_eq!(ask(named.dns, &packet(1, &[(NSID, b"")])).1, [(NSID, b"node one".to_vec())]);
    assert_eq!(ask(named.dns, &packet(1, &[])).1, [], "not asked for");
    assert_eq!(ask(silent.dns, &packet(1, &[(NSID, b"")])).1, []);
    for (name, text) in [
        ("version.bind", "bailiwick"),
        ("VERSION.server", "bailiwick"),
        ("hostname.bind", "ns1.test"),
        ("id.server", "ns1.test"),
    ] {
        let reported = dig(&named, &format!("+norec ch txt {name}"));
        assert!(
            reported.contains(&format!("\t0\tCH\tTXT\t\"{text}\"")) && reported.contains("flags: qr aa;"),
            "{reported}"
        );
        assert!(dig(&silent, &format!("+norec ch txt {name}")).contains("status: REFUSED"));
    }
    assert!(dig(&named, "+norec ch txt authors.bind").contains("status: REFUSED"));
    assert!(dig(&named, "+norec ch a version.bind").contains("status: REFUSED"));
    assert!(dig(&named, "+norec in txt version.bind").contains("status: REFUSED"));
}

#[test]
fn rfc9018_nodes_that_share_a_secret_take_each_others_cookies() {
    let first = node_with("[cookies]\nsecret_files = [\"0\", \"1\"]\nrequired = true\n");
    let rolled = node_with("[cookies]\nsecret_files = [\"1\", \"0\"]\nrequired = true\n");
    let stranger = node_with("[cookies]\nsecret_files = [\"2\"]\nrequired = true\n");
    let client = b"\x24\x64\xc4\xab\xcf\x10\xc9\x57";
    let (code, options) = ask(first.dns, &packet(1, &[(COOKIE, client)]));
    assert_eq!(code, 23, "BADCOOKIE: required, and a client without one is told its cookie");
    let [(COOKIE, cookie)] = &options[..] else { panic!("{options:?}") };
    assert_eq!((cookie.len(), &cookie[..8]), (24, &client[..]));
    assert_eq!(
        ask(first.dns, &packet(1, &[(COOKIE, cookie)])),
        (0, vec![(COOKIE, cookie.clone())]),
        "the cookie is returned unchanged"
    );
    assert_eq!(ask(rolled.dns, &packet(1, &[(COOKIE, cookie)])).0, 0, "verified by the second secret");
    assert_eq!(ask(stranger.dns, &packet(1, &[(COOKIE, cookie)])).0, 23);
    assert_eq!(ask_by_tcp(stranger.dns, &packet(1, &[(COOKIE, cookie)])).0, 0, "a stream proves the address");
    assert_eq!(ask(first.dns, &packet(1, &[])).0, 0, "a client without cookies is answered");
    // dig learns the cookie by BADCOOKIE and asks again with it.
    let (server, port) = (format!("@{}", first.dns.ip()), first.dns.port().to_string());
    let reported = text_of("dig", [server.as_str(), "-p", &port, "+cookie", "+badcookie", "www.ai.example.com", "A"]);
    assert!(reported.contains("192.0.2.80") && reported.contains("(good)"), "{reported}");
}

#[test]
fn rfc9018_5_secrets_roll_over_without_a_restart() {
    let node = node_with("[cookies]\nsecret_files = [\"0\", \"1\"]\n");
    let other = node_with("[cookies]\nsecret_files = [\"2\"]\nrequired = true\n");
    let cookie = || ask(node.dns, &packet(1, &[(COOKIE, &[5; 8])])).1.remove(0).1;
    let taken = |cookie: &[u8]| ask(other.dns, &packet(1, &[(COOKIE, cookie)])).0 == 0;
    assert!(!taken(&cookie()));
    node.setup.write("0", "no secret");
    node.process.signal("HUP");
    node.tells("cookie secrets stay as they were");
    node.setup.write("0", SECRETS[2]);
    node.process.signal("HUP");
    wait::until_true("the new secret signs", || taken(&cookie()));
}

#[test]
fn rfc7873_5_cookies_are_answered_whatever_the_policy_and_malformed_ones_refused() {
    let node = node_with("");
    for length in [0, 1, 7, 9, 15, 41, 60] {
        assert_eq!(ask(node.dns, &packet(1, &[(COOKIE, &vec![1; length])])), (1, vec![]), "{length} octets");
    }
    for length in [8, 16, 17, 24, 40] {
        let (code, options) = ask(node.dns, &packet(1, &[(COOKIE, &vec![1; length])]));
        assert_eq!((code, options.len(), options[0].1.len()), (0, 1, 24), "{length} octets");
    }
    // §5.4: a question for nothing but a cookie.
    let (code, options) = ask(node.dns, &packet(0, &[(COOKIE, &[1; 8])]));
    assert_eq!((code, options.len()), (0, 1));
    assert_eq!(ask(node.dns, &packet(0, &[(COOKIE, &options[0].1)])).0, 0);
    assert_eq!(ask(node.dns, &packet(0, &[(COOKIE, &[1; 24])])).0, 23, "a bad server cookie");
    assert_eq!(ask(node.dns, &packet(0, &[])), (1, vec![]), "no question, no cookie");
    // §5.2: of several only the first counts.
    assert_eq!(ask(node.dns, &packet(1, &[(COOKIE, &[1; 8]), (COOKIE, &[1; 3])])).0, 0);
}

#[test]
fn rfc7828_keepalive_goes_over_tcp_and_rfc8467_padding_over_neither_in_the_clear() {
    let node = node_with("");
    let both = packet(1, &[(KEEPALIVE, b""), (PADDING, &[0; 20])]);
    assert_eq!(ask(node.dns, &both), (0, vec![]));
    let (code, options) = ask_by_tcp(node.dns, &both);
    assert_eq!(code, 0);
    let [(KEEPALIVE, idle)] = &options[..] else { panic!("{options:?}") };
    assert_eq!(idle.len(), 2);
}

#[test]
fn rfc7871_7_1_2_the_six_malformed_subnets_are_formerr_with_an_opt_and_no_echo() {
    let node = node_with("");
    for (what, data) in [
        ("too short", &[0, 1, 24][..]),
        ("family neither 1 nor 2", &[0, 3, 0, 0]),
        ("scope not 0", &[0, 1, 24, 24, 91, 0, 0]),
        ("source longer than the address", &[0, 1, 33, 0, 91, 0, 0, 1, 0]),
        ("length and source disagree", &[0, 1, 24, 0, 91, 0]),
        ("stray bits", &[0, 1, 23, 0, 91, 0, 1]),
    ] {
        assert_eq!(ask(node.dns, &packet(1, &[(ECS, data)])), (1, vec![]), "{what}");
    }
    // Echoed as they came, scope 0: the name is static.
    for data in [&[0, 1, 24, 0, 91, 0, 0][..], &[0, 2, 56, 0, 0x2a, 0, 0, 0, 0, 0, 0], &[0, 1, 0, 0], &[0, 2, 0, 0]] {
        assert_eq!(ask(node.dns, &packet(1, &[(ECS, data)])), (0, vec![(ECS, data.to_vec())]));
    }
}

#[test]
fn scope_is_0_on_static_negative_and_referral_answers() {
    let node = node_with("");
    for (name, kind) in
        [("www", "A"), ("nothing", "A"), ("www", "AAAA"), ("chat", "SRV"), ("host.sub", "A"), ("x.wild", "TXT")]
    {
        let reply = question(&format!("{name}.ai.example.com"), kind).from("91.0.0.1").ask(node.dns);
        assert_eq!(reply.scope(), Some(0), "{name} {kind}");
    }
    assert_eq!(question("example.net", "A").from("91.0.0.1").ask(node.dns).scope(), Some(0));
}

#[test]
fn rfc8482_any_gets_one_rrset_and_transfers_are_refused() {
    let node = node_with("");
    let reported = dig(&node, "+norec any www.ai.example.com");
    assert!(reported.contains("status: NOERROR") && reported.contains("ANSWER: 1,"), "{reported}");
    assert!(dig(&node, "+norec any nothing.ai.example.com").contains("status: NXDOMAIN"));
    assert!(dig(&node, "+norec any deep.empty.ai.example.com").contains("ANSWER: 1,"));
    for transfer in ["axfr", "ixfr=1"] {
        let reported = dig(&node, &format!("+norec +tcp {transfer} ai.example.com"));
        assert!(reported.contains("Transfer failed") || reported.contains("status: REFUSED"), "{reported}");
    }
    let (server, port) = (format!("@{}", node.dns.ip()), node.dns.port().to_string());
    let reported = run("kdig", [server.as_str(), "-p", &port, "+notcp", "ai.example.com", "IXFR=1"]);
    let reported = [reported.stdout, reported.stderr].concat();
    assert!(String::from_utf8_lossy(&reported).contains("error 'REFUSED'"), "kdig asks for IXFR by UDP");
}
