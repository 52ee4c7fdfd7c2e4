//! Sockets bound to every address answer from the one that was asked, in a namespace of its own where the well-known
//! port is free.

use bailiwick_tests::namespace::Namespace;
use bailiwick_tests::node::Setup;

use crate::fixture::{World, ZONE};

#[test]
fn wildcard_sockets_answer_from_the_address_asked_by_every_transport() {
    let Some(namespace) = Namespace::new() else {
        println!("skipped: this machine allows no network namespace (needs root or user namespaces)");
        return;
    };
    let addresses = ["127.0.0.1", "127.0.0.9", "192.0.2.53", "::1", "2001:db8::53", "2001:db8::54"];
    for address in &addresses[2..] {
        let _ = namespace.text_of("ip", &["address", "add", address, "dev", "lo"]);
    }
    let mut rules = World::start().rules(1);
    for region in rules["regions"].as_object_mut().unwrap().values_mut() {
        region.as_object_mut().unwrap().remove("monitor"); // the stand-ins are outside
    }
    let setup = Setup::new(&rules, ZONE).encrypted(&["dot", "doq"]);
    let config = std::fs::read_to_string(setup.path("bailiwick.toml")).unwrap();
    let everywhere = |config: String, section: &str, port: &str| {
        let listen = "listen = [\"127.0.0.1:0\"]";
        config.replacen(
            &format!("{section}{listen}"),
            &format!("{section}listen = [\"0.0.0.0:{port}\", \"[::]:{port}\"]"),
            1,
        )
    };
    let config = everywhere(everywhere(everywhere(config, "", "53"), "[dot]\n", "853"), "[doq]\n", "853");
    setup.write("bailiwick.toml", &config);
    let node = setup.start_inside(&namespace);

    for address in addresses {
        let at = format!("@{address}");
        // dig and kdig take no answer from another address.
        for by in [["dig", "+notcp"], ["dig", "+tcp"], ["kdig", "+tls"], ["kdig", "+quic"]] {
            let asked = [&at, by[1], "+short", "+time=5", "+tries=1", "www.ai.example.com", "A"];
            let asked: Vec<&str> = match by[0] {
                "dig" => asked.to_vec(),
                _ => vec![&at, by[1], "+short", "+timeout=5", "+retry=0", "www.ai.example.com", "A"],
            };
            let reported = namespace.text_of(by[0], &asked);
            assert_eq!(reported.trim(), "192.0.2.80", "{by:?} at {address}: {}", node.log());
        }
    }
}
