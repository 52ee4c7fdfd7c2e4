//! Whatever happens to its log, the server goes on: health, reloads, overrides and a clean end.

use std::io::{Read, Write};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use bailiwick_tests::dns::question;
use bailiwick_tests::geo::GERMAN;
use bailiwick_tests::node::{Node, Setup, TOKEN};
use bailiwick_tests::wait;
use serde_json::json;

use crate::fixture::{World, ZONE};

fn german(node: &Node) -> Vec<String> {
    question("chat.ai.example.com", "A").from(GERMAN).ask(node.dns).data()
}

/// The sum of a metric's samples.
fn metric(node: &Node, name: &str) -> u64 {
    let text = node.get("/metrics");
    let values = text.lines().filter(|line| line.starts_with(name)).filter_map(|line| line.rsplit(' ').next());
    values.filter_map(|value| value.parse::<u64>().ok()).sum()
}

/// Has everything happen that is logged, and sees that all of it comes into force.
fn goes_on(world: &World, node: &Node) {
    world.frankfurt.fall_ill();
    wait::until_true("Frankfurt's clients are in Paris", || german(node) == ["192.0.2.20"]);
    node.setup.write("ai.example.com.zone", &format!("{ZONE}new IN A 198.51.100.7\n"));
    let new = || question("new.ai.example.com", "A").ask(node.dns).data();
    wait::until_true("the new record is served", || new() == ["198.51.100.7"]);
    let forced = json!({ "region": "eu-paris", "status": "down", "until": "2999-01-01T00:00:00Z", "reason": "drill" });
    assert_eq!(node.call("POST", "/v1/overrides", Some(TOKEN), Some(&forced)).0, 200);
    world.frankfurt.heal();
    wait::until_true("Frankfurt's clients are back", || german(node) == ["192.0.2.10"]);
    node.process.signal("HUP");
    node.setup.write("ai.example.com.zone", &format!("{ZONE}newer IN A 198.51.100.8\n"));
    let newer = || question("newer.ai.example.com", "A").ask(node.dns).data();
    wait::until_true("the newer record is served", || newer() == ["198.51.100.8"]);
    assert_eq!(node.get("/healthz"), "ok\n");
}

fn ends_well(mut node: Node) {
    node.process.signal("TERM");
    let status = node.process.wait();
    assert!(status.success(), "{status}");
}

#[test]
fn a_log_whose_reader_goes_away_stops_nothing() {
    let world = World::start();
    let (reader, writer) = std::io::pipe().unwrap();
    let node = Setup::new(&world.rules(1), ZONE).start_with(writer, &[]);
    drop(reader);
    goes_on(&world, &node);
    assert!(metric(&node, "bailiwick_log_lines_lost_total{reason=\"unwritable\"}") > 3, "lost lines are counted");
    ends_well(node);
}

#[test]
fn a_full_disk_under_the_log_stops_nothing() {
    let world = World::start();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let node = Setup::new(&world.rules(1), ZONE).start_with(full, &[]);
    goes_on(&world, &node);
    assert!(metric(&node, "bailiwick_log_lines_lost_total{reason=\"unwritable\"}") > 3, "lost lines are counted");
    ends_well(node);
}

#[test]
fn a_log_whose_reader_stalls_stops_nothing_and_its_lines_come_when_it_reads_again() {
    let world = World::start();
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    // As much as a pipe holds, so that the first line finds no room.
    writer.write_all(&[b'-'; 1 << 16]).unwrap();
    let node = Setup::new(&world.rules(1), ZONE).start_with(writer, &[]);
    goes_on(&world, &node);
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).map(|_| text)
    });
    ends_well(node);
    let text = reading.join().unwrap().unwrap();
    let places: Vec<Option<usize>> = ["serving", "went from up to down", "override set", "SIGHUP", "ended"]
        .iter()
        .map(|word| text.find(word))
        .collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?} {}", &text[1 << 16..]);
}

#[test]
fn an_end_waits_for_a_stalled_reader_a_moment_and_no_longer() {
    let world = World::start();
    let (_reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(&[b'-'; 1 << 16]).unwrap();
    ends_well(Setup::new(&world.rules(1), ZONE).start_with(writer, &[]));
}

#[test]
fn the_service_manager_learns_that_the_server_serves_lives_and_ends() {
    let world = World::start();
    let setup = Setup::new(&world.rules(1), ZONE);
    let path = setup.path("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let log = std::fs::File::create(setup.path("log")).unwrap();
    let node = setup.start_with(log, &[("NOTIFY_SOCKET", path.as_path()), ("WATCHDOG_USEC", "300000".as_ref())]);
    let mut buffer = [0; 64];
    let mut heard = || {
        let length = manager.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    assert_eq!(heard(), "READY=1");
    for _ in 0..5 {
        assert_eq!(heard(), "WATCHDOG=1");
    }
    node.process.signal("TERM");
    while heard() != "STOPPING=1" {}
}
