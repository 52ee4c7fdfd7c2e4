//! A rollout whose steps are published in NATS.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use bailiwick_tests::node::binary;
use bailiwick_tests::process::Process;
use bailiwick_tests::wait;
use serde_json::{Value, json};

use super::{seeded_with, started};
use crate::fixture::World;
use crate::rollouts::{Fixture, from_begin_to_end, rules};

#[test]
fn a_rollout_goes_through_nats_step_by_step_and_is_rolled_back_when_it_fails() {
    let world = World::start();
    let Some(nats) = seeded_with(&rules(&world), &["ns1"]) else { return };
    let [node] = started(&nats, ["ns1"]);
    from_begin_to_end(Fixture::by(node, &nats.publisher()));
}

/// A process that runs a rollout, with a record of its own.
struct Runner {
    process: Process,
    said: PathBuf,
}

impl Runner {
    fn start(fixture: &Fixture, name: &str) -> Self {
        let own = fixture.record().with_file_name(name);
        let mut words = fixture.words(&["run", "--every", "1s"]);
        words.pop();
        words.push(own.with_extension("json").display().to_string());
        let said = own.with_extension("log");
        let log = std::fs::File::create(&said).expect("a file");
        let process = Process::start(Command::new(binary()).args(words).stdout(log).stderr(Stdio::null()));
        Self { process, said }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.said).expect("a file")
    }
}

#[test]
fn one_of_two_runs_it_and_when_that_one_is_killed_the_other_goes_on_with_what_was_counted() {
    let world = World::start();
    let mut rules = rules(&world);
    // The last step has no old arm any more: it is compared with what was counted before.
    rules["rollouts"]["fp8"]["steps"] = json!([10, 100]);
    let Some(nats) = seeded_with(&rules, &["ns1"]) else { return };
    let [node] = started(&nats, ["ns1"]);
    let mut fixture = Fixture::by(node, &nats.publisher());
    fixture.fine(&["start"]);
    fixture.serves(&json!({ "eu-frankfurt": 10 }));
    let first = Runner::start(&fixture, "first");
    wait::until_true("the first one runs it", || nats.read("bw_state", "run.fp8").is_some());
    let second = Runner::start(&fixture, "second");
    let goes_on = |fixture: &mut Fixture, region: &str, shares: &Value| {
        wait::until_true(&format!("{shares} is published"), || {
            fixture.observe(region, 200, 0);
            fixture.shares() == *shares
        });
    };
    goes_on(&mut fixture, "eu-frankfurt", &json!({ "eu-frankfurt": 100 }));
    let waits = format!("waits: process {} of ", first.process.id());
    wait::until_true("the second one waits", || second.said().contains(&waits));
    assert!(!second.said().contains("revision "), "{}", second.said());
    first.process.signal("KILL");
    // Nobody counted both arms since: only the first one's record tells of the old one.
    goes_on(&mut fixture, "eu-frankfurt", &json!({ "eu-frankfurt": 100, "eu-paris": 10 }));
    assert!(second.said().contains("eu-paris begins with 10 %"), "{}", second.said());
    goes_on(&mut fixture, "eu-paris", &json!({ "eu-frankfurt": 100, "eu-paris": 100 }));
    wait::until_true("it has ended", || fixture.rules()["rollouts"]["fp8"]["progress"]["ended"] == "done");
    wait::until_true("it is given back", || {
        let lease = nats.read("bw_state", "run.fp8").expect("a lease");
        serde_json::from_slice::<Value>(&lease).expect("JSON")["holder"] == ""
    });
    assert_eq!(fixture.rules()["revision"], 6, "no step was published twice");
}
