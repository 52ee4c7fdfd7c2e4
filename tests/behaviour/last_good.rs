//! The last good version of everything survives a restart, each by itself; what never was good keeps nothing else from
//! being served.

use bailiwick_tests::dns::question;
use bailiwick_tests::geo::{self, GERMAN};
use bailiwick_tests::node::{Node, Setup};
use bailiwick_tests::wait;
use hickory_proto::op::ResponseCode;

use crate::fixture::{World, ZONE};

const OTHER: &str = "$TTL 300\n@ IN SOA ns1 h 1 2 3 4 60\n@ IN NS ns1\nns1 IN A 192.0.2.53\nold IN A 192.0.2.1\n";

/// A node with a second zone, `other.example`.
fn with_other(world: &World, other: &str) -> Setup {
    let setup = Setup::new(&world.rules(1), ZONE);
    let config = std::fs::read_to_string(setup.path("bailiwick.toml")).unwrap();
    setup.write("bailiwick.toml", &config.replace("[zones]\n", "[zones]\n\"other.example\" = \"other.zone\"\n"));
    setup.write("other.zone", other);
    setup
}

fn address(node: &Node, name: &str) -> Vec<String> {
    question(name, "A").ask(node.dns).data()
}

#[test]
fn one_zones_mistake_keeps_no_other_from_being_taken_and_outlives_a_restart() {
    let world = World::start();
    let node = with_other(&world, OTHER).start();
    node.setup.write("other.zone", &format!("{OTHER}oops IN A 192.0.2\n"));
    node.setup.write("ai.example.com.zone", &format!("{ZONE}new IN A 192.0.2.99\n"));
    wait::until_true("the other zone's change is served", || address(&node, "new.ai.example.com") == ["192.0.2.99"]);
    node.tells("other.zone:6");
    assert_eq!(address(&node, "old.other.example"), ["192.0.2.1"]);
    wait::until_true("it is kept", || node.setup.path("state/zones/ai.example.com.zone").exists());

    // Both have mistakes now, and the node starts anew.
    let setup = node.stop();
    setup.write("ai.example.com.zone", "nonsense\n");
    let node = setup.start();
    assert_eq!(address(&node, "new.ai.example.com"), ["192.0.2.99"]);
    assert_eq!(address(&node, "old.other.example"), ["192.0.2.1"]);
    let health = node.get("/healthz");
    assert!(health.starts_with("ok\n") && health.contains("zone other.example.: its last good version"), "{health}");
    assert!(node.get("/metrics").contains("bailiwick_zone_failing{zone=\"other.example.\"} 1"));
    node.setup.write("other.zone", &OTHER.replace("old", "mended"));
    wait::until_true("the mended zone is served", || address(&node, "mended.other.example") == ["192.0.2.1"]);
}

#[test]
fn a_zone_that_never_was_good_is_missing_and_the_rest_is_served() {
    let world = World::start();
    let node = with_other(&world, "nonsense\n").start();
    assert_eq!(address(&node, "www.ai.example.com"), ["192.0.2.80"]);
    assert_eq!(question("old.other.example", "A").ask(node.dns).rcode(), ResponseCode::ServFail);
    assert_eq!(node.get("/healthz"), "ok\nzone other.example.: is not served\n");
    assert!(node.get("/metrics").contains("bailiwick_zone_missing{zone=\"other.example.\"} 1"));
    node.tells("other.zone:1");
    node.setup.write("other.zone", OTHER);
    wait::until_true("it is served once it is mended", || address(&node, "old.other.example") == ["192.0.2.1"]);
    wait::until_true("all is well", || node.get("/healthz") == "ok\n");
}

#[test]
fn a_torn_database_gives_way_to_the_last_good_one() {
    let world = World::start();
    let setup = Setup::new(&world.rules(1), ZONE);
    std::fs::copy(geo::database(), setup.path("geo.mmdb")).unwrap();
    let config = std::fs::read_to_string(setup.path("bailiwick.toml")).unwrap();
    setup.write("bailiwick.toml", &config.replace(&format!("{:?}", geo::database()), "\"geo.mmdb\""));
    let node = setup.start();
    let german = |node: &Node| question("chat.ai.example.com", "A").from(GERMAN).ask(node.dns).data();
    assert_eq!(german(&node), ["192.0.2.10"]);
    wait::until_true("it is kept", || node.setup.path("state/geoip.last-good.mmdb").exists());
    let setup = node.stop();
    let torn = std::fs::read(setup.path("geo.mmdb")).unwrap();
    std::fs::write(setup.path("geo.mmdb"), &torn[..torn.len() / 2]).unwrap();
    let node = setup.start();
    assert_eq!(german(&node), ["192.0.2.10"]);
    assert!(node.get("/metrics").contains("bailiwick_source_failing{source=\"geoip\"} 1"));
    node.tells("geo.mmdb: is not a usable MMDB file");
}

#[test]
fn a_zone_that_lost_much_while_the_server_was_down_is_held() {
    let world = World::start();
    let more = (0..20).fold(OTHER.to_owned(), |zone, number| format!("{zone}h{number} IN A 192.0.2.{number}\n"));
    let node = with_other(&world, &more).start();
    wait::until_true("it is kept", || node.setup.path("state/zones/other.example.zone").exists());
    let setup = node.stop();
    setup.write("other.zone", OTHER);
    let node = setup.start();
    assert_eq!(address(&node, "h7.other.example"), ["192.0.2.7"]);
    node.tells("names are missing in the new version");
    node.process.signal("HUP");
    wait::until_true("it is taken", || address(&node, "h7.other.example").is_empty());
}
