//! Rules, zones and signals while serving: one swap, nothing lost, the last good kept.

use std::sync::atomic::{AtomicBool, Ordering};

use bailiwick_tests::dns::question;
use bailiwick_tests::geo::{self, GERMAN};
use bailiwick_tests::node::{Node, Setup};
use bailiwick_tests::process::run;
use bailiwick_tests::wait;

use crate::fixture::{World, ZONE};

/// Puts a revision of the rules behind the link `..data`.
fn mount(setup: &Setup, world: &World, revision: u64) {
    let mut rules = world.rules(revision);
    rules["regions"]["eu-frankfurt"]["answers"]["A"] = serde_json::json!([format!("192.0.2.{revision}")]);
    let directory = setup.path(&format!("..{revision}"));
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("rules.json"), rules.to_string()).unwrap();
    std::os::unix::fs::symlink(directory, setup.path("..new")).unwrap();
    std::fs::rename(setup.path("..new"), setup.path("..data")).unwrap();
}

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
fn a_bad_edit_changes_nothing_and_is_reported() {
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
        node.tells(hint);
        assert_eq!(german(&node), ["192.0.2.10"]);
    }
    let mut fine = world.rules(5);
    fine["regions"]["eu-frankfurt"]["answers"]["A"] = serde_json::json!(["192.0.2.14"]);
    node.setup.write("rules.json", &fine.to_string());
    wait::until_true("the next good one is served", || german(&node) == ["192.0.2.14"]);
}

#[test]
fn rules_that_vanish_change_nothing_until_they_are_back() {
    let world = World::start();
    let node = Setup::new(&world.rules(3), ZONE).start();
    let rules = node.setup.path("rules.json");
    std::fs::remove_file(&rules).unwrap();
    node.tells("rules.json: can't be read");
    assert_eq!(german(&node), ["192.0.2.10"]);
    std::fs::create_dir(&rules).unwrap();
    node.tells("directory");
    std::fs::remove_dir(&rules).unwrap();
    let mut edited = world.rules(4);
    edited["regions"]["eu-frankfurt"]["answers"]["A"] = serde_json::json!(["192.0.2.11"]);
    node.setup.write("rules.json", &edited.to_string());
    wait::until_true("they are back", || german(&node) == ["192.0.2.11"]);
}

#[test]
fn a_pipe_in_place_of_a_file_is_reported_and_other_files_are_reloaded() {
    let world = World::start();
    let setup = Setup::new(&world.rules(3), ZONE);
    std::fs::copy(geo::database(), setup.path("geo.mmdb")).unwrap();
    let config = std::fs::read_to_string(setup.path("bailiwick.toml")).unwrap();
    setup.write("bailiwick.toml", &config.replace(&format!("{:?}", geo::database()), "\"geo.mmdb\""));
    let node = setup.start();
    let mut revision = 3;
    for file in ["rules.json", "ai.example.com.zone", "geo.mmdb"] {
        let (path, aside) = (node.setup.path(file), node.setup.path("aside"));
        std::fs::rename(&path, &aside).unwrap();
        assert!(run("mkfifo", [&path]).status.success());
        let reported = format!("{file}: is no file but a pipe");
        node.tells(&reported);
        // What is served stays, and what changes elsewhere is taken.
        let edited = if file == "rules.json" { "ai.example.com.zone" } else { "rules.json" };
        revision += 1;
        match edited {
            "rules.json" => {
                let mut rules = world.rules(revision);
                rules["regions"]["eu-frankfurt"]["answers"]["A"] = serde_json::json!([format!("192.0.2.{revision}")]);
                node.setup.write(edited, &rules.to_string());
                wait::until_true("other rules are served", || german(&node) == [format!("192.0.2.{revision}")]);
            }
            _ => {
                node.setup.write(edited, &format!("{ZONE}more IN A 198.51.100.7\n"));
                let more = question("more.ai.example.com", "A");
                wait::until_true("another zone is served", || more.ask(node.dns).data() == ["198.51.100.7"]);
                assert_eq!(german(&node), ["192.0.2.10"]);
            }
        }
        std::fs::rename(&aside, &path).unwrap();
    }
}

#[test]
fn rules_behind_links_are_followed_when_the_links_are_swapped() {
    // As Kubernetes mounts a ConfigMap: the file is a link through a directory's link, and that one is swapped.
    let world = World::start();
    let setup = Setup::new(&world.rules(1), ZONE);
    mount(&setup, &world, 1);
    std::fs::remove_file(setup.path("rules.json")).unwrap();
    std::os::unix::fs::symlink("..data/rules.json", setup.path("rules.json")).unwrap();
    let node = setup.start();
    assert_eq!(german(&node), ["192.0.2.1"]);
    for revision in 2..4 {
        mount(&node.setup, &world, revision);
        wait::until_true("the swap is served", || german(&node) == [format!("192.0.2.{revision}")]);
    }
}

#[test]
fn an_edit_of_the_zone_changes_the_answers_and_a_bad_one_does_not() {
    let world = World::start();
    let node = Setup::new(&world.rules(1), ZONE).start();
    let www = || question("www.ai.example.com", "A").ask(node.dns).data();
    node.setup.write("ai.example.com.zone", &ZONE.replace("192.0.2.80", "192.0.2.82"));
    wait::until_true("the edit is served", || www() == ["192.0.2.82"]);
    node.setup.write("ai.example.com.zone", &ZONE.replace("192.0.2.80", "192.0.2.8000"));
    node.tells("ai.example.com.zone:6");
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
    node.tells("chat.sub.ai.example.com");
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
                assert_eq!(reply.answers().len(), 1, "every query is answered while files are replaced");
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
