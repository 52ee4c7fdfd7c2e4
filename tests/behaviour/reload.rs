//! Rules, zones and signals while serving: one swap, nothing lost, the last good kept.

use std::sync::atomic::{AtomicBool, Ordering};

use bailiwick_tests::dns::question;
use bailiwick_tests::geo::GERMAN;
use bailiwick_tests::node::{Node, Setup};
use bailiwick_tests::wait;

use crate::fixture::{World, ZONE};

fn german(node: &Node) -> Vec<String> {
    question("chat.ai.example.com", "A").from(GERMAN).ask(node.dns).data()
}

#[test]
fn an_edit_of_the_rules_changes_the_answers() {
    let world = World::start();
    let node = Setup::new(&world.rules(1), ZONE).start();
    assert_eq!(german(&node), ["192.0.2.10"]);
    let mut edited = world.rules(2);
    edited["regions"]["eu-frankfurt"]["answers"]["A"] = serde_json::json!(["192.0.2.11", "192.0.2.12"]);
    node.setup.write("rules.json", &edited.to_string());
    wait::until_true("the edit is served", || german(&node) == ["192.0.2.11", "192.0.2.12"]);
}

#[test]
fn a_bad_edit_changes_nothing_and_is_told() {
    let world = World::start();
    let node = Setup::new(&world.rules(3), ZONE).start();
    for (edit, hint) in [
        ("{ \"version\": 1".to_owned(), "is not JSON"),
        (
            world.rules(4).to_string().replace("[\"eu-frankfurt\",\"eu-paris\"", "[\"eu-frankfurt\",\"eu-pairs\""),
            "eu-pairs",
        ),
        (world.rules(3).to_string().replace("192.0.2.10", "192.0.2.13"), "revision"),
    ] {
        node.setup.write("rules.json", &edit);
        node.process.signal("HUP");
        wait::until_true(&format!("{hint} is logged"), || node.log().contains(hint));
        assert_eq!(german(&node), ["192.0.2.10"]);
    }
    let mut fine = world.rules(5);
    fine["regions"]["eu-frankfurt"]["answers"]["A"] = serde_json::json!(["192.0.2.14"]);
    node.setup.write("rules.json", &fine.to_string());
    wait::until_true("the next good one is served", || german(&node) == ["192.0.2.14"]);
}

#[test]
fn an_edit_of_the_zone_changes_the_answers_and_a_bad_one_does_not() {
    let world = World::start();
    let node = Setup::new(&world.rules(1), ZONE).start();
    let www = || question("www.ai.example.com", "A").ask(node.dns).data();
    node.setup.write("ai.example.com.zone", &ZONE.replace("192.0.2.80", "192.0.2.82"));
    wait::until_true("the edit is served", || www() == ["192.0.2.82"]);
    node.setup.write("ai.example.com.zone", &ZONE.replace("192.0.2.80", "192.0.2.8000"));
    wait::until_true("the error is logged", || node.log().contains("ai.example.com.zone:6"));
    assert_eq!(www(), ["192.0.2.82"]);
    assert_eq!(german(&node), ["192.0.2.10"]);
}

#[test]
fn rules_that_do_not_fit_the_zones_are_refused_whole() {
    let world = World::start();
    let node = Setup::new(&world.rules(1), ZONE).start();
    let mut below_a_cut = world.rules(2);
    below_a_cut["services"]["chat"]["hosts"] = serde_json::json!(["chat.sub.ai.example.com"]);
    node.setup.write("rules.json", &below_a_cut.to_string());
    wait::until_true("the error is logged", || node.log().contains("chat.sub.ai.example.com"));
    assert_eq!(german(&node), ["192.0.2.10"]);
}

#[test]
fn no_query_is_lost_and_none_sees_half_an_update() {
    let world = World::start();
    let node = Setup::new(&world.rules(1), ZONE).start();
    // Every revision answers A and TXT of one number: a mixture would be half an update.
    let revised = |revision: u64| {
        let mut rules = world.rules(revision);
        let answers = &mut rules["regions"]["eu-frankfurt"]["answers"];
        answers["TXT"] = serde_json::json!([format!("revision {revision}")]);
        rules
    };
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asker = scope.spawn(|| {
            let mut asked = 0u32;
            while !done.load(Ordering::SeqCst) {
                let reply = question("chat.ai.example.com", "TXT").from(GERMAN).ask(node.dns);
                assert_eq!(reply.answers().len(), 1, "an answer each time, whatever is being swapped");
                asked += 1;
            }
            asked
        });
        for revision in 2..12 {
            node.setup.write("rules.json", &revised(revision).to_string());
            let expected = [format!("revision {revision}")];
            wait::until_true("the revision is served", || {
                question("chat.ai.example.com", "TXT").from(GERMAN).ask(node.dns).data() == expected
            });
        }
        done.store(true, Ordering::SeqCst);
        println!("asked {} times over ten reloads", asker.join().unwrap());
    });
}
