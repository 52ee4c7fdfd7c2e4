//! Starting: everything wrong is told at once, with its place; what was last good is kept.

use bailiwick_tests::dns::question;
use bailiwick_tests::geo::GERMAN;
use bailiwick_tests::node::{Setup, binary};
use bailiwick_tests::process::Process;
use bailiwick_tests::wait;

use crate::fixture::{World, ZONE};

fn refusal(setup: &Setup) -> String {
    let output = setup.start_in_vain();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_broken_rules_file_without_a_last_good_one_ends_the_start_with_every_error() {
    let world = World::start();
    let mut rules = world.rules(1);
    rules["regions"]["eu-paris"]["countries"] = serde_json::json!(["UK"]);
    rules["services"]["chat"]["regions"][0] = "eu-frankfort".into();
    let reported = refusal(&Setup::new(&rules, ZONE));
    assert!(reported.contains("/regions/eu-paris/countries/0") && reported.contains("\"GB\""), "{reported}");
    assert!(reported.contains("/services/chat/regions/0") && reported.contains("eu-frankfurt"), "{reported}");
}

#[test]
fn a_broken_zone_file_ends_the_start_with_every_line() {
    let world = World::start();
    let zone = ZONE.replace("www     IN A    192.0.2.80", "www IN A 192.0.2.800\nwww2 IN AAAA nonsense");
    let reported = refusal(&Setup::new(&world.rules(1), &zone));
    assert!(reported.contains("ai.example.com.zone:6") && reported.contains("ai.example.com.zone:7"), "{reported}");
}

#[test]
fn a_broken_database_ends_the_start() {
    let world = World::start();
    let setup = Setup::new(&world.rules(1), ZONE);
    let config = std::fs::read_to_string(setup.path("bailiwick.toml")).unwrap();
    let config = config.lines().map(|line| if line.starts_with("geoip") { "geoip = \"broken.mmdb\"" } else { line });
    setup.write("bailiwick.toml", &config.collect::<Vec<_>>().join("\n"));
    setup.write("broken.mmdb", "this is no database");
    let reported = refusal(&setup);
    assert!(reported.contains("broken.mmdb"), "{reported}");
}

#[test]
fn the_last_good_rules_serve_when_the_file_is_broken() {
    let world = World::start();
    let setup = Setup::new(&world.rules(5), ZONE).start().stop();
    setup.write("rules.json", "{ this is not JSON");
    let node = setup.start();
    assert_eq!(question("chat.ai.example.com", "A").from(GERMAN).ask(node.dns).data(), ["192.0.2.10"]);
    node.tells("is not JSON");
}

#[test]
fn damaged_state_is_reported_and_left_aside() {
    let world = World::start();
    let setup = Setup::new(&world.rules(5), ZONE).start().stop();
    for file in ["state/rules.last-good.json", "state/overrides.json"] {
        std::fs::write(setup.path(file), "\0 neither").unwrap();
    }
    let node = setup.start();
    assert_eq!(question("chat.ai.example.com", "A").from(GERMAN).ask(node.dns).data(), ["192.0.2.10"]);
    let log = node.log();
    assert!(log.contains("rules.last-good.json: (document): is not JSON"), "{log}");
    assert!(log.contains("overrides.json: the kept overrides can't be read"), "{log}");
}

#[test]
fn a_state_directory_of_two_nodes_is_reported() {
    let world = World::start();
    let first = Setup::new(&world.rules(5), ZONE).start();
    let second = Setup::new(&world.rules(5), ZONE);
    std::os::unix::fs::symlink(first.setup.path("state"), second.path("state")).unwrap();
    let second = second.start();
    second.tells("another process seems to use this state_dir");
    assert!(!first.log().contains("another process"), "{}", first.log());
}

#[test]
fn a_lower_revision_than_the_last_good_one_is_ignored() {
    let world = World::start();
    let setup = Setup::new(&world.rules(5), ZONE).start().stop();
    let mut older = world.rules(4);
    older["services"]["chat"]["regions"] = serde_json::json!(["eu-paris"]);
    setup.write("rules.json", &older.to_string());
    let node = setup.start();
    assert_eq!(question("chat.ai.example.com", "A").from(GERMAN).ask(node.dns).data(), ["192.0.2.10"]);
}

#[test]
fn a_signal_drains_and_ends_it_well() {
    let world = World::start();
    let mut node = Setup::new(&world.rules(1), ZONE).start();
    node.process.signal("TERM");
    assert!(node.process.wait().success());
}

#[test]
fn a_signal_ends_a_start_that_reads_for_long() {
    let world = World::start();
    let setup = Setup::new(&world.rules(1), ZONE);
    // Twenty gigabytes to read, of which nothing is kept.
    setup.write("remarks", &"; nothing to be seen\n".repeat(200_000));
    setup.write("ai.example.com.zone", &[ZONE, &"$INCLUDE remarks\n".repeat(5_000)].concat());
    let config = setup.path("bailiwick.toml");
    let mut server = Process::start(std::process::Command::new(binary()).arg("serve").arg("--config").arg(config));
    let read = |account: String| account.lines().find_map(|line| line.strip_prefix("rchar: ")?.parse::<u64>().ok());
    wait::until_true("the server reads the zone", || {
        let account = std::fs::read_to_string(format!("/proc/{}/io", server.id())).unwrap_or_default();
        read(account).is_some_and(|octets| octets > 40_000_000)
    });
    server.signal("TERM");
    assert!(server.wait().success());
}
