//! A region that dies is left within the fence, and found again.

use bailiwick_tests::dns::question;
use bailiwick_tests::geo::{AMERICAN, GERMAN};
use bailiwick_tests::node::Setup;
use bailiwick_tests::{stand_in::StandIn, wait};
use hickory_proto::op::ResponseCode;
use serde_json::Value;

use crate::fixture::{World, ZONE};

#[test]
fn clients_move_inside_the_fence_and_come_back() {
    let world = World::start();
    let node = Setup::new(&world.rules(1), ZONE).start();
    let german = || question("chat.ai.example.com", "A").from(GERMAN).ask(node.dns).data();
    assert_eq!(german(), ["192.0.2.10"], "the first probes were awaited");

    world.frankfurt.fall_ill();
    wait::until_true("Frankfurt's clients are in Paris", || german() == ["192.0.2.20"]);
    world.paris.fall_ill();
    // All of the fence is down: it is served all the same, never London or Virginia.
    let down = |name: &str| {
        let health: Value = serde_json::from_str(&node.get("/v1/health")).unwrap();
        health["regions"][name]["status"] == "down"
    };
    wait::until_true("Paris is down too", || {
        let data = german();
        assert!(data == ["192.0.2.10"] || data == ["192.0.2.20"], "outside the fence: {data:?}");
        down("eu-paris")
    });
    assert_eq!(german(), ["192.0.2.10"]);
    let strict = question("strict.ai.example.com", "A").from(GERMAN).ask(node.dns);
    assert_eq!(strict.data(), ["192.0.2.99"], "when_all_down: fail");

    world.frankfurt.heal();
    wait::until_true("Frankfurt is up", || !down("eu-frankfurt"));
    assert_eq!(german(), ["192.0.2.10"]);
}

#[test]
fn a_region_alone_in_its_fence_fails_rather_than_leaves_it() {
    let world = World::start();
    let mut rules = world.rules(1);
    rules["services"]["chat"]["when_all_down"] = "fail".into();
    let node = Setup::new(&rules, ZONE).start();
    let american = || question("chat.ai.example.com", "A").from(AMERICAN).ask(node.dns);
    assert_eq!(american().data(), ["192.0.2.40"]);
    world.virginia.fall_ill();
    wait::until_true("nothing is offered", || {
        let reply = american();
        assert!(reply.data().is_empty() || reply.data() == ["192.0.2.40"]);
        reply.rcode() == ResponseCode::ServFail
    });
}

#[test]
fn the_ttl_follows_what_is_missing_to_a_change() {
    let world = World::start();
    let mut rules = world.rules(1);
    rules["services"]["chat"]["ttl"] = serde_json::json!({ "min": 1, "max": 60 });
    rules["regions"]["us-virginia"]["monitor"]["interval"] = "10s".into();
    let node = Setup::new(&rules, ZONE).start();
    let ttl = |client: &str| question("chat.ai.example.com", "A").from(client).ask(node.dns).ttl();
    assert_eq!(ttl(AMERICAN), Some(20), "two failures at ten seconds each");
    assert_eq!(ttl(GERMAN), Some(1), "0.4 s, and at least the minimum");
}

#[test]
fn a_tcp_monitor_needs_a_listener() {
    let world = World::start();
    let tcp = StandIn::start();
    let mut rules = world.rules(1);
    rules["regions"]["eu-frankfurt"]["monitor"] = serde_json::json!({
        "type": "tcp", "address": tcp.address().to_string(), "interval": "200ms", "timeout": "1s", "down_thresh": 2,
    });
    let node = Setup::new(&rules, ZONE).start();
    let german = || question("chat.ai.example.com", "A").from(GERMAN).ask(node.dns).data();
    assert_eq!(german(), ["192.0.2.10"]);
    assert!(tcp.connections() > 0);
    drop(tcp);
    wait::until_true("its clients are in Paris", || german() == ["192.0.2.20"]);
}

#[test]
fn a_region_that_is_down_at_the_start_is_never_answered() {
    let world = World::start();
    world.frankfurt.fall_ill();
    let node = Setup::new(&world.rules(1), ZONE).start();
    assert_eq!(question("chat.ai.example.com", "A").from(GERMAN).ask(node.dns).data(), ["192.0.2.20"]);
}
