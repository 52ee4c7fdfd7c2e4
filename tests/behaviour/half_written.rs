//! A version of a file that may be half of itself isn't put in service, and one that was moved into place is, at once.

use std::io::Write;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use bailiwick_tests::dns::question;
use bailiwick_tests::node::{Node, Setup};
use bailiwick_tests::wait;
use hickory_proto::op::ResponseCode;

use crate::fixture::{World, ZONE};

const FILE: &str = "ai.example.com.zone";

fn address(node: &Node, host: &str) -> Vec<String> {
    question(&format!("{host}.ai.example.com"), "A").ask(node.dns).data()
}

/// The zone with many hosts more, whose last one is `h99`.
fn large() -> String {
    (0..100).fold(ZONE.to_owned(), |zone, number| format!("{zone}h{number} IN A 198.51.100.{number}\n"))
}

#[test]
fn half_a_zone_is_never_served_however_slowly_it_is_copied() {
    let world = World::start();
    let zone = large();
    let node = Setup::new(&world.rules(1), &zone).start();
    assert_eq!(address(&node, "h99"), ["198.51.100.99"]);
    let whole = format!("{zone}new IN A 192.0.2.77\n");
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    let mut file = std::fs::File::create(node.setup.path(FILE)).unwrap();
    // In three parts that end with a line's end, some more than a second apart; the first lacks most names, the second
    // a few.
    for part in [&lines[..30], &lines[30..lines.len() - 8], &lines[lines.len() - 8..]] {
        file.write_all(part.concat().as_bytes()).unwrap();
        let written = Instant::now();
        while written.elapsed() < Duration::from_millis(1500) {
            let reply = question("h99.ai.example.com", "A").ask(node.dns);
            assert_eq!((reply.rcode(), reply.data()), (ResponseCode::NoError, vec!["198.51.100.99".to_owned()]));
        }
    }
    wait::until_true("the whole version is served", || address(&node, "new") == ["192.0.2.77"]);
    assert!(!node.log().contains("refused"), "nothing of it was told as a mistake: {}", node.log());
}

#[test]
fn a_zone_that_lost_much_waits_for_a_confirmation() {
    let world = World::start();
    let node = Setup::new(&world.rules(1), &large()).start();
    node.setup.write(FILE, ZONE);
    node.tells("names are missing in the new version");
    node.tells("a SIGHUP takes it now");
    assert_eq!(address(&node, "h99"), ["198.51.100.99"]);
    assert_eq!(node.get("/healthz"), "ok\nzone ai.example.com.: its last good version is served\n");
    node.process.signal("HUP");
    wait::until_true("it is taken", || address(&node, "h99").is_empty());
    wait::until_true("all is well", || node.get("/healthz") == "ok\n");
}

#[test]
fn a_zone_that_lost_much_is_taken_where_the_configuration_says_so() {
    let world = World::start();
    let setup = Setup::new(&world.rules(1), &large());
    let config = std::fs::read_to_string(setup.path("bailiwick.toml")).unwrap();
    setup.write("bailiwick.toml", &format!("shrink = \"take\"\n{config}"));
    let node = setup.start();
    node.setup.write(FILE, ZONE);
    wait::until_true("it is taken", || address(&node, "h99").is_empty());
    assert!(!node.log().contains("names are missing"), "{}", node.log());
}

#[test]
fn a_line_added_in_place_is_served_soon() {
    let world = World::start();
    let node = Setup::new(&world.rules(1), ZONE).start();
    let mut file = std::fs::OpenOptions::new().append(true).open(node.setup.path(FILE)).unwrap();
    file.write_all(b"new IN A 192.0.2.77\n").unwrap();
    wait::until_true("it is served", || address(&node, "new") == ["192.0.2.77"]);
}

#[test]
fn a_swap_of_a_link_further_up_is_seen_at_once_and_logs_no_warning() {
    let world = World::start();
    let setup = Setup::new(&world.rules(1), ZONE);
    let release = |setup: &Setup, number: u8| {
        let folder = setup.path(&format!("releases/{number}/zones"));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("zone"), format!("{ZONE}release IN A 192.0.2.{number}\n")).unwrap();
        symlink(format!("releases/{number}"), setup.path("next")).unwrap();
        std::fs::rename(setup.path("next"), setup.path("current")).unwrap();
    };
    release(&setup, 1);
    let config = std::fs::read_to_string(setup.path("bailiwick.toml")).unwrap();
    setup.write("bailiwick.toml", &config.replace(&format!("\"{FILE}\""), "\"current/zones/zone\""));
    let node = setup.start();
    for number in 2..5 {
        let begun = Instant::now();
        release(&node.setup, number);
        wait::until_true("the release is served", || address(&node, "release") == [format!("192.0.2.{number}")]);
        // A look every 100 ms sees it; the rest is for a machine that is busy.
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
    let log = node.log();
    let since = log.split_once(" serving ").map_or(&*log, |(_, since)| since);
    assert!(!since.contains("WARN"), "{since}");
}
