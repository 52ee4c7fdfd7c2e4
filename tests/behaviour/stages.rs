//! Rules that go through a fleet with care: what a change comes to is told and gated before it is published.

mod approved;
pub(crate) mod watched;

use bailiwick_tests::geo::database;
use bailiwick_tests::node::Node;
use bailiwick_tests::wait;
use serde_json::{Value, json};

use crate::fixture::World;
use crate::fleet::nodes::{failing, fine, fleet, follower, told, url, writer_of};

/// Rules by which all clients of a fence go to its first region.
pub(crate) fn rules(world: &World, revision: u64, regions: &[&str]) -> Value {
    let mut rules = world.rules(revision);
    for service in ["chat", "strict"] {
        rules["services"][service]["pattern"] = json!("active-passive");
        rules["services"][service]["regions"] = json!(regions);
    }
    rules
}

pub(crate) const FRANKFURT_FIRST: [&str; 4] = ["eu-frankfurt", "eu-paris", "uk-london", "us-virginia"];
pub(crate) const PARIS_FIRST: [&str; 4] = ["eu-paris", "eu-frankfurt", "uk-london", "us-virginia"];
const NO_FRANKFURT: [&str; 3] = ["eu-paris", "uk-london", "us-virginia"];

/// Publishes rules with the country database; whether it went well, and all that was said.
fn try_publish(node: &Node, rules: &Value, more: &[&str]) -> (bool, String) {
    node.setup.write("new.json", &rules.to_string());
    let (file, geoip) = (node.setup.path("new.json").display().to_string(), database().display().to_string());
    let words = ["rules", "publish", &file, "--reason", "a test", "--author", "ann", "--geoip", &geoip];
    let output = told(node, &[&words, more].concat());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout) + &text(&output.stderr))
}

#[test]
fn what_a_change_comes_to_is_told_kept_and_gated() {
    let world = World::start();
    let gates = "[fleet.gates]\nmax_moved = \"20%\"\nmax_denied = \"1%\"\nmin_regions = 2\n";
    let node = writer_of(&rules(&world, 1, &FRANKFURT_FIRST), gates);
    assert_eq!(fleet(&node)["limits"]["gates"]["max_moved"], "20%");
    let new = rules(&world, 2, &PARIS_FIRST);

    let (is_published, said) = try_publish(&node, &new, &[]);
    assert!(!is_published && said.contains("eu-frankfurt → eu-paris"), "{said}");
    assert!(said.contains("gate shut: chat: ") && said.contains("max_moved is 20 %"), "{said}");
    let accept = said.split("or type ").nth(1).and_then(|rest| rest.lines().next()).expect("what to type").to_owned();
    let words: Vec<&str> = accept.split(' ').collect();
    assert_eq!(words[0], "--accept-moved");
    let less = format!("{}%", words[1].trim_end_matches('%').parse::<u32>().expect("a number") - 1);
    assert!(!try_publish(&node, &new, &["--accept-moved", &less]).0, "less than it comes to opens nothing");
    let (is_published, said) = try_publish(&node, &new, &["--no-impact"]);
    assert!(!is_published && said.contains("nobody knows how many clients move"), "--no-impact opens nothing: {said}");
    let file = node.setup.path("new.json").display().to_string();
    let diff = told(&node, &["rules", "diff", &file, "--max-moved", "20%"]);
    let said_of_it = String::from_utf8_lossy(&diff.stdout).into_owned() + &String::from_utf8_lossy(&diff.stderr);
    let is_shut = said_of_it.contains("nobody knows how many clients move");
    assert!(!diff.status.success() && is_shut, "without a database no gate opens: {said_of_it}");
    let without =
        told(&node, &["rules", "publish", &node.setup.path("new.json").display().to_string(), "--reason", "x"]);
    let errors = String::from_utf8_lossy(&without.stderr).into_owned();
    assert!(!without.status.success() && errors.contains("name one by --geoip, or say --no-impact"), "{errors}");
    assert_eq!(fleet(&node)["revision"], 1, "nothing of all that was published");

    let diff = |more: &[&str]| {
        let (file, geoip) = (node.setup.path("new.json").display().to_string(), database().display().to_string());
        let output = told(&node, &[&["rules", "diff", &file, "--geoip", &geoip], more].concat());
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    assert_eq!(diff(&[]).0, Some(1), "the gates of the fleet are those of a comparison");
    assert_eq!(diff(&["--max-moved", "100%"]).0, Some(0), "unless it has its own");

    let (is_published, said) = try_publish(&node, &new, &words);
    assert!(is_published && said.ends_with("revision 2 is published and in service on the writer\n"), "{said}");
    let head = fleet(&node)["head"].clone();
    let impact = head["impact"].as_str().expect("an account");
    assert!(impact.starts_with("chat: ") && impact.contains(" of addresses move; "), "{impact}");
    wait::until_true("it is kept", || fine(&node, &["rules", "history", "--json"]).contains(impact));

    // To go back moves as many.
    let geoip = database().display().to_string();
    let back = ["rules", "rollback", "1", "--reason", "back", "--geoip", &geoip];
    let refused = told(&node, &back);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("gate shut: chat: "), "{refused:?}");
    fine(&node, &[&back[..], &words].concat());
    assert_eq!(diff(&["--against", "2"]).1.lines().next(), Some("rules 2 → 2"));
    assert_eq!(diff(&["--against", "2"]).0, Some(0), "a revision of the history");
    assert!(diff(&["--against", "1", "--max-moved", "100%"]).1.starts_with("rules 1 → 2"));
}

#[test]
fn a_fence_that_gets_smaller_goes_to_all_nodes_at_once() {
    let world = World::start();
    let node = writer_of(&rules(&world, 1, &FRANKFURT_FIRST), "stage = \"canary\"\n");
    let new = rules(&world, 2, &NO_FRANKFURT);
    for more in [&["--stage", "canary"][..], &["--stage", "canary", "--no-impact"]] {
        let (is_published, said) = try_publish(&node, &new, more);
        assert!(!is_published && said.contains("publish it with --tighten"), "{said}");
    }
    let (is_published, said) = try_publish(&node, &new, &["--stage", "canary", "--tighten"]);
    assert!(!is_published && said.contains("leave --stage out"), "{said}");
    let (is_published, said) = try_publish(&node, &new, &["--tighten"]);
    assert!(is_published, "{said}");
    assert_eq!(fleet(&node)["head"]["stage"], "rest");
}

/// Whether a node serves this revision.
pub(crate) fn has(node: &Node, revision: u64) -> bool {
    fleet(node)["revision"] == revision
}

/// The revision of the rules that a node gives for a stage.
fn given(node: &Node, stage: &str) -> Value {
    serde_json::from_str::<Value>(&node.get(&format!("/v1/rules?stage={stage}"))).expect("rules")["revision"].clone()
}

#[test]
fn a_promoted_head_spreads_over_nodes_that_have_the_document_already() {
    let world = World::start();
    let writer = writer_of(&rules(&world, 1, &FRANKFURT_FIRST), "stage = \"canary\"\n");
    let canary = follower(&[url(&writer)], "stage = \"canary\"\n").start();
    // It hears of the writer by a node that has the document before its own turn comes.
    let rest = follower(&[url(&canary)], "").start();
    let (is_published, said) =
        try_publish(&writer, &rules(&world, 2, &PARIS_FIRST), &["--stage", "canary", "--no-impact"]);
    assert!(is_published, "{said}");
    wait::until_true("the canary has it", || has(&canary, 2));
    assert!(fine(&writer, &["rules", "history"]).lines().next().unwrap().ends_with("a test (canary only)"));
    assert_eq!([given(&canary, "canary"), given(&canary, "rest")], [2, 1]);
    let late = follower(&[url(&canary)], "").start();
    assert!(has(&late, 1) && has(&rest, 1), "a node that comes meanwhile begins with what is for its stage");
    let refused = try_publish(&writer, &rules(&world, 3, &FRANKFURT_FIRST), &["--no-impact"]);
    assert!(!refused.0 && refused.1.contains("revision 2 is for nodes of stage canary yet"), "{refused:?}");

    assert_eq!(fine(&writer, &["rules", "promote"]), "revision 2 is for nodes of stage early now\n");
    assert!(failing(&writer, &["rules", "promote", "--stage", "canary"]).contains("for nodes of stage early already"));
    wait::until_true("the head arrives", || fleet(&canary)["head"]["stage"] == "early");
    assert!(has(&rest, 1));
    assert_eq!(fine(&writer, &["rules", "promote"]), "revision 2 is for nodes of stage rest now\n");
    wait::until_true("the others get it from a canary", || has(&rest, 2) && has(&late, 2));
    assert!(failing(&writer, &["rules", "promote"]).contains("for all nodes already"));
    assert!(failing(&writer, &["rules", "abort", "--reason", "no"]).contains("`bailiwick rules rollback` undoes it"));
    wait::until_true("the history has the new head", || !fine(&canary, &["rules", "history"]).contains("canary only"));
    let canary = canary.stop().start();
    wait::until_true("a restart keeps the stage", || fleet(&canary)["head"]["stage"] == "rest");
}

#[test]
fn a_revision_that_is_given_up_leaves_every_node_with_what_all_had() {
    let world = World::start();
    let writer = writer_of(&rules(&world, 1, &FRANKFURT_FIRST), "stage = \"canary\"\n");
    let canary = follower(&[url(&writer)], "stage = \"canary\"\n").start();
    let rest = follower(&[url(&writer)], "").start();
    for revision in [2, 4] {
        let new = rules(&world, revision, &PARIS_FIRST);
        let (is_published, said) = try_publish(&writer, &new, &["--stage", "canary", "--no-impact"]);
        assert!(is_published, "{said}");
        wait::until_true("the canary has it", || has(&canary, revision));
        let told = fine(&writer, &["rules", "abort", "--reason", "odd answers", "--author", "bob"]);
        let after = revision + 1;
        let earlier = revision - 1;
        let wanted =
            format!("revision {revision} is given up: revision {after} has the content of {earlier}, for all nodes\n");
        assert_eq!(told, wanted);
        wait::until_true("all have what comes after", || [&writer, &canary, &rest].iter().all(|node| has(node, after)));
        assert_eq!(fleet(&rest)["head"]["reason"], "odd answers");
    }
    let shown = |revision: &str| fine(&writer, &["rules", "show", revision]);
    wait::until_true("it is kept", || fine(&writer, &["rules", "history"]).lines().count() == 5);
    assert_eq!(shown("5"), shown("1").replace("\"revision\":1", "\"revision\":5"));
}
