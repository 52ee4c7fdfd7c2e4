//! What an operator types: `status`, `drain`, `undrain`, `overrides`, against a running node.

use std::process::Output;

use bailiwick_tests::dns::question;
use bailiwick_tests::geo::GERMAN;
use bailiwick_tests::net::free_port;
use bailiwick_tests::node::{Node, Setup, bailiwick};
use bailiwick_tests::wait;
use serde_json::{Value, json};

use crate::fixture::{World, ZONE};

/// A node whose API has a port that stands in its configuration.
fn setup(rules: &Value) -> Setup {
    let setup = Setup::new(rules, ZONE);
    let config = std::fs::read_to_string(setup.path("bailiwick.toml")).unwrap();
    let api = format!("[api]\nlisten = \"{}\"", free_port());
    setup.write("bailiwick.toml", &config.replace("[api]\nlisten = \"127.0.0.1:0\"", &api));
    setup
}

fn run(setup: &Setup, words: &[&str]) -> (i32, String, String) {
    let config = setup.path("bailiwick.toml").display().to_string();
    let output = bailiwick(words.iter().copied().chain(["--config", config.as_str()]));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let Output { status, stdout, stderr } = output;
    (status.code().unwrap_or(-1), text(&stdout), text(&stderr))
}

fn german(node: &Node) -> Vec<String> {
    question("chat.ai.example.com", "A").from(GERMAN).ask(node.dns).data()
}

#[test]
fn a_region_is_drained_for_a_while_over_a_restart_and_put_back() {
    let world = World::start();
    let node = setup(&world.rules(1)).start();
    let (code, said, errors) = run(&node.setup, &["drain", "eu-frankfurt", "--for", "2h", "--reason", "new switches"]);
    assert_eq!(code, 0, "{errors}");
    assert!(said.starts_with("eu-frankfurt is drained on this node for 2h, until 20"), "{said}");
    assert!(said.contains("kept in the state directory") && said.contains("bailiwick undrain eu-frankfurt"), "{said}");
    assert_eq!(german(&node), ["192.0.2.20"]);

    let node = node.stop().start();
    assert_eq!(german(&node), ["192.0.2.20"], "the override was kept");
    let (code, reported, _) = run(&node.setup, &["overrides"]);
    assert!(
        code == 0
            && reported.contains("eu-frankfurt")
            && reported.contains("new switches")
            && reported.contains("1h59m"),
        "{reported}"
    );
    let (code, reported, _) = run(&node.setup, &["overrides", "--json"]);
    let reported: Value = serde_json::from_str(&reported).unwrap();
    assert_eq!((code, &reported[0]["of"], &reported[0]["source"]), (0, &json!("eu-frankfurt"), &json!("api")));

    assert_eq!(run(&node.setup, &["undrain", "eu-frankfurt"]).0, 0);
    assert_eq!(german(&node), ["192.0.2.10"]);
    assert_eq!(run(&node.setup, &["overrides"]).1, "no override is in force\n");
    let (code, _, errors) = run(&node.setup, &["undrain", "eu-frankfurt"]);
    assert!(code == 1 && errors.contains("eu-frankfurt has no override that came by the API"), "{errors}");
}

#[test]
fn a_drain_ends_by_itself_and_the_log_and_metrics_tell() {
    let world = World::start();
    let node = setup(&world.rules(1)).start();
    assert_eq!(run(&node.setup, &["drain", "eu-frankfurt", "--for", "2s", "--reason", "blink"]).0, 0);
    assert!(node.get("/metrics").contains("bailiwick_override_ends_seconds{region=\"eu-frankfurt\",endpoint=\"\"}"));
    wait::until_true("it has ended", || german(&node) == ["192.0.2.10"]);
    node.tells("override set: down");
    node.tells("override ended");
    assert!(!node.get("/metrics").contains("bailiwick_override_ends_seconds{"));
}

#[test]
fn an_endpoint_is_drained_by_itself() {
    let world = World::start();
    let mut rules = world.rules(1);
    let url = world.frankfurt.health_url();
    rules["regions"]["eu-frankfurt"]["endpoints"] = json!({ "fra-1": { "url": url }, "fra-2": { "url": url } });
    let node = setup(&rules).start();
    let drain = |of: &str| run(&node.setup, &["drain", of, "--for", "1h", "--reason", "driver"]);
    let (code, _, errors) = drain("eu-frankfurt/fra-3");
    assert!(code == 1 && errors.contains("the region \"eu-frankfurt\" has no endpoint \"fra-3\""), "{errors}");
    assert_eq!(drain("eu-frankfurt/fra-1").0, 0);
    assert_eq!(german(&node), ["192.0.2.10"], "another endpoint is left");
    assert_eq!(drain("eu-frankfurt/fra-2").0, 0);
    assert_eq!(german(&node), ["192.0.2.20"], "no override is left");
    let (code, reported, _) = run(&node.setup, &["status"]);
    assert!(
        reported.lines().any(|line| line.contains("fra-1") && line.contains("down") && line.contains("forced: driver")),
        "{reported}"
    );
    assert_eq!(code, 0, "what is drained isn't wrong: {reported}");
    assert_eq!(run(&node.setup, &["undrain", "eu-frankfurt/fra-2"]).0, 0);
    assert_eq!(german(&node), ["192.0.2.10"]);
}

#[test]
fn a_status_tells_who_goes_where_and_what_is_down_since_when_and_why() {
    let world = World::start();
    let node = setup(&world.rules(1)).encrypted(&["dot"]).signed().start();
    let (code, reported, errors) = run(&node.setup, &["status"]);
    assert_eq!(code, 0, "{reported}{errors}");
    for expected in [
        "rules revision 1",
        "of eu: AT",
        "the same",
        "probes succeed",
        "zones",
        "1 of 1 served",
        "geoip",
        "built 20",
        "active",
        "expires in",
    ] {
        assert!(reported.contains(expected), "{expected:?} is not in\n{reported}");
    }
    assert!(!reported.contains('\u{1b}'), "colours are for terminals");
    world.frankfurt.fall_ill();
    wait::until_true("Frankfurt is down", || german(&node) == ["192.0.2.20"]);
    let (code, reported, _) = run(&node.setup, &["status"]);
    assert_eq!(code, 1, "something needs a look");
    let line = reported.lines().find(|line| line.starts_with("eu-frankfurt")).unwrap_or_default();
    assert!(line.contains("down") && line.contains("probes fail") && line.contains("ago: "), "{reported}");
    let (_, reported, _) = run(&node.setup, &["status", "--json"]);
    let reported: Value = serde_json::from_str(&reported).unwrap();
    assert_eq!(
        (&reported["regions"][0]["region"], &reported["regions"][0]["status"]),
        (&json!("eu-frankfurt"), &json!("down"))
    );
    let fence = &reported["fences"][0];
    assert_eq!(
        (&fence["fence"], &fence["offered"]),
        (&json!("eu-frankfurt, eu-paris"), &json!("eu-paris")),
        "{reported}"
    );
}

#[test]
fn a_command_that_does_not_reach_its_node_says_why_and_what_names_the_node() {
    let world = World::start();
    let setup = setup(&world.rules(1));
    let (code, _, errors) = run(&setup, &["status"]);
    assert!(code == 1 && errors.contains("can't be reached at http://127.0.0.1:"), "{errors}");
    assert!(errors.contains("bailiwick.toml:8 says so") && errors.contains("bailiwick serve"), "{errors}");
    let drain = |words: &[&str]| run(&setup, &[&["drain", "eu-frankfurt", "--reason", "x"], words].concat());
    let (code, _, errors) = drain(&["--for", "two hours"]);
    assert!(code == 2 && errors.contains("write it as 2h, 90m, 1d or 1h30m"), "{errors}");
    let (code, _, errors) = drain(&["--until", "18:00"]);
    assert!(code == 2 && errors.contains("which time zone"), "{errors}");
    assert_eq!(drain(&[]).0, 2, "a drain needs an end");
    std::fs::remove_file(setup.path("api.token")).unwrap();
    let (code, _, errors) = drain(&["--for", "2h"]);
    assert!(code == 1 && errors.contains("api.token: the API's token can't be read"), "{errors}");
    let config = std::fs::read_to_string(setup.path("bailiwick.toml")).unwrap();
    setup.write("bailiwick.toml", &config.replace("token_file = \"api.token\"\n", ""));
    let node = setup.start();
    let (code, _, errors) = run(&node.setup, &["drain", "eu-frankfurt", "--for", "2h", "--reason", "x"]);
    assert!(code == 1 && errors.contains("this node has none: set [api] token_file"), "{errors}");
    assert_eq!(run(&node.setup, &["status"]).0, 0, "reading needs no token here");
}

#[test]
fn by_tls_the_node_is_known_by_its_own_certificate() {
    let world = World::start();
    let setup = setup(&world.rules(1)).with("cert = \"tls.pem\"\nkey = \"tls.key\"\n");
    setup.write_certificate();
    let node = setup.start();
    let (code, _, errors) = run(&node.setup, &["status"]);
    assert_eq!(code, 0, "{errors}");
    let served = std::fs::read_to_string(node.setup.path("tls.pem")).unwrap();
    let other = Setup::new(&world.rules(1), ZONE);
    other.write_certificate();
    let config = std::fs::read_to_string(node.setup.path("bailiwick.toml")).unwrap();
    other.write("bailiwick.toml", &config);
    assert_ne!(std::fs::read_to_string(other.path("tls.pem")).unwrap(), served);
    let (code, _, errors) = run(&other, &["status"]);
    assert!(code == 1 && errors.contains("another certificate than the configuration's [api] cert"), "{errors}");
}

#[test]
fn tokens_are_rotated_without_a_gap() {
    let world = World::start();
    let setup = Setup::new(&world.rules(1), ZONE)
        .with("write_token_files = [\"next.token\"]\nread_token_files = [\"worker.token\"]\n");
    let (next, reader) = ("1".repeat(32), "2".repeat(32));
    setup.write("next.token", &next);
    setup.write("worker.token", &reader);
    let node = setup.start();
    let forced =
        json!({ "region": "eu-frankfurt", "status": "down", "until": "2099-01-01T00:00:00Z", "reason": "drill" });
    let set = |token: &str| node.call("POST", "/v1/overrides", Some(token), Some(&forced)).0;
    assert_eq!([set(bailiwick_tests::node::TOKEN), set(&next), set(&reader)], [200, 200, 403]);
    node.setup.write("api.token", &"3".repeat(32));
    wait::until_true("the old token is taken back", || set(bailiwick_tests::node::TOKEN) == 401);
    assert_eq!([set(&"3".repeat(32)), set(&next)], [200, 200]);
}

#[test]
fn clients_are_shifted_away_unless_a_guard_is_against_it_and_back() {
    let world = World::start();
    let mut rules = world.rules(1);
    rules["fleet"] = json!({ "voters": { "ns1": { "site": "here" } } });
    rules["services"]["chat"]["guard"] = json!({ "keep": 1 });
    let setup = setup(&rules);
    let config = std::fs::read_to_string(setup.path("bailiwick.toml")).unwrap();
    setup.write("bailiwick.toml", &format!("node = \"ns1\"\n{config}"));
    let node = setup.start();
    let shift = |words: &[&str]| run(&node.setup, &[&["shift"], words].concat());
    let away = |region, more: &[&str]| shift(&[&["away", region, "--for", "2h", "--reason", "drill"], more].concat());

    let (code, said, errors) = away("eu-frankfurt", &[]);
    assert_eq!(code, 0, "{errors}");
    assert!(said.starts_with("clients of eu-frankfurt are shifted away for 2h, until 20"), "{said}");
    assert!(said.contains("bailiwick shift back eu-frankfurt"), "{said}");
    assert_eq!(german(&node), ["192.0.2.20"]);

    let (code, said, errors) = away("eu-paris", &[]);
    assert_eq!((code, said.as_str()), (1, ""));
    let expected = "eu-paris can't be taken away: it would leave 0 of 2 regions to the clients of rule 0 of the \
        service chat, and the guard keeps 1";
    assert!(errors.contains(expected) && errors.contains("--force"), "{errors}");
    assert_eq!(german(&node), ["192.0.2.20"]);
    assert_eq!(away("eu-paris", &["--force"]).0, 0);
    let status: Value = serde_json::from_str(&run(&node.setup, &["status", "--json"]).1).unwrap();
    let paris = status["regions"].as_array().unwrap().iter().find(|one| one["region"] == "eu-paris").unwrap();
    assert_eq!((&paris["status"], &paris["fleet"]["held_by"]), (&json!("down"), &json!("override")), "{paris}");

    for region in ["eu-frankfurt", "eu-paris"] {
        assert_eq!(shift(&["back", region]).0, 0);
    }
    assert_eq!(german(&node), ["192.0.2.10"]);
    let (code, _, errors) = shift(&["back", "eu-paris"]);
    assert!(code == 1 && errors.contains("has no override"), "{errors}");
    assert_eq!(shift(&["away", "eu/paris", "--for", "2h", "--reason", "drill"]).0, 2);
    let (code, plain, _) = run(&node.setup, &["status"]);
    assert!(code == 0 && plain.contains("most sites say so (sites: 1 up)"), "{plain}");
}
