//! Drills that begin at their weekly times.

use bailiwick_rules::time::{Millis, Timestamp};
use bailiwick_tests::node::Setup;
use bailiwick_tests::wait;
use serde_json::{Value, json};

use super::{Runner, last, now, observe, ready, rules, run, share};
use crate::fixture::{World, ZONE};
use crate::fleet::nodes::{fine, told, url};

/// The weekly time of the minute that has begun, in UTC. A drill of then is due for five minutes.
pub(crate) fn this_minute() -> String {
    let weekly = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
        .into_iter()
        .flat_map(|day| (0..1_440_u32).map(move |minute| format!("{day} {:02}:{:02}", minute / 60, minute % 60)));
    let before = Timestamp(now().0 - 60_000);
    let mut this_minute = weekly.filter(|text| {
        let next = bailiwick_rules::rules::Weekly::parse(text).unwrap().next(before);
        next.since(before) < Millis(60_000)
    });
    this_minute.next().expect("a minute")
}

#[test]
fn a_drill_begins_at_its_weekly_time_and_not_on_a_blocked_date() {
    let world = World::start();
    let weekly = this_minute();
    let drill = json!({ "weekly": weekly, "for": "10m", "ramp": [100] });
    let blocked = json!({ "weekly": weekly, "blocked": ["01-01/12-31"] });
    let node = Setup::new(&rules(&world, &drill), ZONE).start();
    let calm = Setup::new(&rules(&world, &blocked), ZONE).start();
    ready(&node);
    ready(&calm);
    let (due, _blocked) = (run(&node, &["--scheduled"]), run(&calm, &["--scheduled"]));
    wait::until_true("it began by itself", || share(&node) == 100);
    let record: Value =
        serde_json::from_str(&std::fs::read_to_string(node.setup.path("record.json")).unwrap()).expect("JSON");
    assert_eq!(record["is_scheduled"], true);
    let plan = told(&calm, &["drill", "plan", "london"]);
    let plan = String::from_utf8_lossy(&plan.stdout).into_owned();
    assert!(plan.contains("UTC, but every date is blocked"), "{plan}");
    assert_eq!((share(&calm), last(&calm)), (0, Value::Null));
    // Broken off, and whoever runs drills is started again, without its file: it ran already.
    fine(&node, &["drill", "abort", "london", "--reason", "phones ring"]);
    drop(due);
    let began = last(&node)["began"].clone();
    let again = Runner::start(&node, &url(&node), "again", &["--scheduled"]);
    again.says("london has begun already, at ");
    assert_eq!((share(&node), &last(&node)["began"]), (0, &began));
}

#[test]
fn a_scheduled_drill_waits_for_a_node_that_was_just_started_and_has_heard_no_worker_yet() {
    let world = World::start();
    let limits = json!({ "error_rate": 0.5 });
    let drill = json!({ "weekly": this_minute(), "for": "10m", "ramp": [100], "abort": limits });
    let node = Setup::new(&rules(&world, &drill), ZONE).start();
    assert_eq!(ready(&node)["drills"]["london"]["preflight"]["is_early"], true);
    let runner = run(&node, &["--scheduled"]);
    runner.says("london waits until the node knows more: no Worker reports");
    assert_eq!((share(&node), node.setup.path("record.json").exists()), (0, false), "it isn't refused");
    observe(&node, 1, 100, 0);
    wait::until_true("it began by itself", || share(&node) == 100);
}
