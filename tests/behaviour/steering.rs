//! A name answers each client with the nearest region residency allows, located by the real country database.

use bailiwick_tests::dns::question;
use bailiwick_tests::geo::{AMERICAN, BRITISH, GERMAN, NOWHERE};
use bailiwick_tests::node::Setup;
use bailiwick_tests::process::text_of;
use hickory_proto::op::ResponseCode;

use crate::fixture::{World, ZONE};

#[test]
fn germany_britain_and_america_get_different_regions() {
    let world = World::start();
    let node = Setup::new(&world.rules(1), ZONE).start();
    for (client, number) in [(GERMAN, 10), (BRITISH, 30), (AMERICAN, 40)] {
        let data = |kind: &str| question("chat.ai.example.com", kind).from(client).ask(node.dns).data();
        assert_eq!(data("A"), [format!("192.0.2.{number}")]);
        assert_eq!(data("AAAA"), [format!("2001:db8::{number}")]);
        assert_eq!(data("TXT"), [format!("region {number}")]);
    }
}

#[test]
fn dig_and_kdig_see_the_same_with_their_subnet_options() {
    let world = World::start();
    let node = Setup::new(&world.rules(1), ZONE).start();
    let (server, port) = (format!("@{}", node.dns.ip()), node.dns.port().to_string());
    for (client, address) in [(GERMAN, "192.0.2.10"), (BRITISH, "192.0.2.30"), (AMERICAN, "192.0.2.40")] {
        let subnet = format!("+subnet={client}/24");
        for tool in ["dig", "kdig"] {
            let reported = text_of(tool, [server.as_str(), "-p", &port, &subnet, "+short", "chat.ai.example.com", "A"]);
            assert_eq!(reported.trim(), address, "{tool} for {client}");
        }
        let reported = text_of("dig", [server.as_str(), "-p", &port, &subnet, "chat.ai.example.com", "A"]);
        assert!(reported.contains(&format!("CLIENT-SUBNET: {}0/24/", client.trim_end_matches('1'))), "{reported}");
        assert!(reported.contains("flags: qr aa rd;"), "{reported}");
    }
}

#[test]
fn networks_beat_the_database_and_the_scope_ends_where_they_end() {
    let world = World::start();
    let node = Setup::new(&world.rules(1), ZONE).start();
    let reply = question("chat.ai.example.com", "A").from("198.51.100.1").ask(node.dns);
    assert_eq!((reply.data(), reply.scope()), (vec!["192.0.2.10".to_owned()], Some(25)));
    // The other half of the /24 is nobody's.
    let reply = question("chat.ai.example.com", "A").from_prefix("198.51.100.128".parse().unwrap(), 32).ask(node.dns);
    assert_eq!(reply.rcode(), ResponseCode::ServFail);
    assert_eq!(reply.scope(), Some(25));
}

#[test]
fn who_may_go_nowhere_gets_the_denied_answers_or_an_error_but_never_a_region() {
    let world = World::start();
    let node = Setup::new(&world.rules(1), ZONE).start();
    let refused = question("chat.ai.example.com", "A").from(NOWHERE).ask(node.dns);
    assert_eq!((refused.rcode(), refused.answers().len()), (ResponseCode::ServFail, 0));
    let denied = question("strict.ai.example.com", "A").from(NOWHERE).ask(node.dns);
    assert_eq!((denied.data(), denied.ttl()), (vec!["192.0.2.99".to_owned()], Some(60)));
    // Existence doesn't depend on the client.
    for client in [GERMAN, NOWHERE] {
        let nodata = question("chat.ai.example.com", "SRV").from(client).ask(node.dns);
        assert_eq!((nodata.rcode(), nodata.answers().len(), nodata.scope()), (ResponseCode::NoError, 0, Some(0)));
        let mx = question("chat.ai.example.com", "MX").from(client).ask(node.dns);
        assert_eq!((mx.answers().len(), mx.scope()), (1, Some(0)), "static types exist beside steered types");
    }
}

#[test]
fn the_extended_error_says_why() {
    let world = World::start();
    let node = Setup::new(&world.rules(1), ZONE).start();
    let (server, port) = (format!("@{}", node.dns.ip()), node.dns.port().to_string());
    let reported = text_of("dig", [server.as_str(), "-p", &port, "+subnet=192.0.2.0/24", "chat.ai.example.com", "A"]);
    assert!(reported.contains("EDE: 18"), "{reported}");
}

#[test]
fn a_static_alias_leads_into_steering() {
    let world = World::start();
    let node = Setup::new(&world.rules(1), ZONE).start();
    let reply = question("steered.ai.example.com", "A").from(BRITISH).ask(node.dns);
    assert_eq!(
        reply.answers(),
        ["steered.ai.example.com. CNAME chat.ai.example.com.", "chat.ai.example.com. A 192.0.2.30"]
    );
    assert!(reply.scope().is_some_and(|scope| scope > 0), "the answer is the client's");
}

#[test]
fn a_steered_cname_points_to_the_region_and_is_chased_in_the_zone() {
    let world = World::start();
    let mut rules = world.rules(1);
    for (region, target) in [("eu-frankfurt", "www.ai.example.com"), ("us-virginia", "iad.example.net")] {
        rules["regions"][format!("{region}-name")] = rules["regions"][region].clone();
        rules["regions"][format!("{region}-name")]["answers"] = serde_json::json!({ "CNAME": [target] });
    }
    rules["services"]["named"] = serde_json::json!({
        "hosts": ["named.ai.example.com"], "pattern": "active-active",
        "regions": ["eu-frankfurt-name", "us-virginia-name"],
        "residency": [{ "clients": ["eu"], "process_in": ["eu"] }, { "clients": ["us"], "process_in": ["us"] }],
    });
    let node = Setup::new(&rules, ZONE).start();
    let german = question("named.ai.example.com", "A").from(GERMAN).ask(node.dns);
    assert_eq!(
        german.answers(),
        ["named.ai.example.com. CNAME www.ai.example.com.", "www.ai.example.com. A 192.0.2.80"]
    );
    let american = question("named.ai.example.com", "A").from(AMERICAN).ask(node.dns);
    assert_eq!(american.answers(), ["named.ai.example.com. CNAME iad.example.net."]);
}

#[test]
fn rfc_9460_service_bindings_are_steered_with_hints_that_follow_the_addresses() {
    let world = World::start();
    let mut rules = world.rules(1);
    let bindings = |answers: &mut serde_json::Value| {
        answers["HTTPS"] = serde_json::json!(["1 . port=8443 alpn=h2,h3", "2 backup.example.net alpn=h2"]);
        answers["SVCB"] = serde_json::json!(["0 gateway.example.net"]);
    };
    for region in rules["regions"].as_object_mut().unwrap().values_mut() {
        bindings(&mut region["answers"]);
    }
    bindings(&mut rules["services"]["strict"]["denied_answers"]);
    let node = Setup::new(&rules, ZONE).start();
    let (server, port) = (format!("@{}", node.dns.ip()), node.dns.port().to_string());
    for (client, number) in [(GERMAN, 10), (BRITISH, 30), (AMERICAN, 40), (NOWHERE, 99)] {
        let subnet = format!("+subnet={client}/24");
        for tool in ["dig", "kdig"] {
            let short = |kind: &str| {
                let reported =
                    text_of(tool, [server.as_str(), "-p", &port, &subnet, "+short", "strict.ai.example.com", kind]);
                let mut lines: Vec<String> = reported.replace('"', "").lines().map(str::to_owned).collect();
                lines.sort();
                lines
            };
            let here = format!("1 . alpn=h2,h3 port=8443 ipv4hint=192.0.2.{number} ipv6hint=2001:db8::{number}");
            assert_eq!(short("HTTPS"), [here, "2 backup.example.net. alpn=h2".to_owned()], "{tool} for {client}");
            assert_eq!(short("SVCB"), ["0 gateway.example.net."], "{tool} for {client}");
            assert_eq!(short("A"), [format!("192.0.2.{number}")], "the hint is the address");
        }
    }
    // The type exists for whoever asks, even where nothing is offered.
    let refused = question("chat.ai.example.com", "HTTPS").from(NOWHERE).ask(node.dns);
    assert_eq!(refused.rcode(), ResponseCode::ServFail);
}

#[test]
fn tcp_says_what_udp_says() {
    let world = World::start();
    let node = Setup::new(&world.rules(1), ZONE).start();
    for (name, kind) in
        [("chat", "A"), ("chat", "SRV"), ("nothing", "A"), ("alias", "A"), ("a.sub", "A"), ("x.wild", "TXT")]
    {
        let question = question(&format!("{name}.ai.example.com"), kind).from(GERMAN);
        let (mut udp, mut tcp) = (question.ask(node.dns).message, question.ask_by_tcp(node.dns).message);
        (udp.metadata.id, tcp.metadata.id) = (0, 0);
        assert_eq!(udp, tcp, "{name} {kind}");
    }
}
