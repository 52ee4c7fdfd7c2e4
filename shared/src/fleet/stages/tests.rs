//! Rollouts of a few nodes, step by step.

use super::*;
use crate::fleet::follow::testing::unsigned;
use crate::time::Timestamp;

fn revision(number: u64) -> Revision {
    Revision { number, sha256: [u8::try_from(number).unwrap(); 32] }
}

fn head(number: u64, stage: Stage) -> Head {
    unsigned(number, crate::rules::KeyDigest(revision(number).sha256).to_string(), stage)
}

fn answers(fra: u64, par: u64, denied: u64, servfail: u64) -> Answers {
    let chat = [(Some("fra".to_owned()), fra), (Some("par".to_owned()), par), (None, denied)];
    let all = fra + par + denied;
    Answers { all, servfail, steered: BTreeMap::from([("chat".to_owned(), BTreeMap::from(chat))]) }
}

/// Two canaries, one early node and one of the rest, all with revision 7.
fn fleet() -> Vec<NodeReport> {
    let node = |(node, stage): (&str, Stage)| NodeReport {
        node: node.to_owned(),
        stage,
        is_live: true,
        is_gone: false,
        serves: revision(7),
        serves_for: Millis(3_600_000),
        before: answers(1_000, 1_000, 0, 2),
        since: answers(1_000, 1_000, 0, 2),
    };
    [("ns1", Stage::Canary), ("ns2", Stage::Canary), ("ns3", Stage::Early), ("ns4", Stage::Rest)].map(node).into()
}

/// Node `at` takes revision 8 and serves it for `minutes`, with these answers since.
fn take(nodes: &mut [NodeReport], at: usize, minutes: u64, since: Answers) {
    let node = &mut nodes[at];
    (node.serves, node.serves_for, node.since) = (revision(8), Millis(minutes * 60_000), since);
}

/// A fifth of all answers goes from Frankfurt to Paris.
fn predicted() -> Prediction {
    let change = [(Some("fra".to_owned()), -200_000), (Some("par".to_owned()), 200_000)];
    Prediction::from([("chat".to_owned(), BTreeMap::from(change))])
}

fn ask(stage: Stage, nodes: &[NodeReport]) -> Step {
    next(&head(8, stage), nodes, &predicted(), &Care::default())
}

#[test]
fn a_document_goes_through_the_stages_when_all_live_nodes_took_it_and_it_baked() {
    let mut nodes = fleet();
    let as_predicted = || answers(600, 1_400, 0, 2);
    take(&mut nodes, 0, 30, as_predicted());
    assert_eq!(ask(Stage::Canary, &nodes), Step::Wait(Waiting::Nodes(vec!["ns2".to_owned()])));
    take(&mut nodes, 1, 4, as_predicted());
    assert_eq!(
        ask(Stage::Canary, &nodes),
        Step::Wait(Waiting::Bake(Millis(360_000))),
        "the node that took it last counts"
    );
    take(&mut nodes, 1, 10, as_predicted());
    assert_eq!(ask(Stage::Canary, &nodes), Step::Advance(Stage::Early));
    take(&mut nodes, 2, 10, as_predicted());
    assert_eq!(ask(Stage::Early, &nodes), Step::Advance(Stage::Rest));
    assert_eq!(ask(Stage::Rest, &nodes), Step::Wait(Waiting::Nodes(vec!["ns4".to_owned()])));
    take(&mut nodes, 3, 10, as_predicted());
    assert_eq!(ask(Stage::Rest, &nodes), Step::Done);
}

#[test]
fn silent_nodes_hold_nothing_up_unless_a_whole_stage_is_silent() {
    let mut nodes = fleet();
    take(&mut nodes, 0, 30, answers(600, 1_400, 0, 2));
    nodes[1].is_live = false;
    assert_eq!(ask(Stage::Canary, &nodes), Step::Advance(Stage::Early));
    nodes[0].is_live = false;
    assert_eq!(ask(Stage::Canary, &nodes), Step::Wait(Waiting::Silence(Stage::Canary)));
    let rest: Vec<NodeReport> = nodes.into_iter().filter(|node| node.stage == Stage::Rest).collect();
    assert_eq!(ask(Stage::Canary, &rest), Step::Advance(Stage::Rest), "stages without nodes are skipped");
    for (stage, _) in Stage::ALL {
        assert_eq!(ask(stage, &[]), Step::Wait(Waiting::Silence(stage)), "no node is known");
    }
    let other = next(&head(6, Stage::Canary), &fleet(), &predicted(), &Care::default());
    assert!(matches!(other, Step::Wait(Waiting::Nodes(_))), "the nodes serve another document: {other:?}");
}

#[test]
fn a_node_that_falls_silent_on_the_way_holds_it_up_until_all_may_have_it() {
    let mut nodes = fleet();
    (0..4).for_each(|at| take(&mut nodes, at, 30, answers(600, 1_400, 0, 2)));
    // Killed at once, it never told that it had taken the document.
    for serves in [revision(7), revision(8)] {
        (nodes[1].is_live, nodes[1].is_gone, nodes[1].serves) = (false, true, serves);
        for stage in [Stage::Canary, Stage::Early] {
            assert_eq!(ask(stage, &nodes), Step::Wait(Waiting::Gone(vec!["ns2".to_owned()])));
        }
        assert_eq!(ask(Stage::Rest, &nodes), Step::Done, "there is nothing left to hold");
    }
    (nodes[1].is_live, nodes[1].is_gone) = (true, false);
    assert_eq!(ask(Stage::Canary, &nodes), Step::Advance(Stage::Early), "it is back");
}

#[test]
fn each_guard_aborts_and_says_what_was_seen() {
    let outcome = |since: Answers| {
        let mut nodes = fleet();
        take(&mut nodes, 0, 2, since);
        match ask(Stage::Canary, &nodes) {
            Step::Abort(fault) => fault.to_string(),
            other => format!("{other:?}"),
        }
    };
    assert_eq!(
        outcome(answers(600, 1_400, 0, 50)),
        "ns1 answers SERVFAIL to 2.5 % of its queries, before it was 0.1 %"
    );
    assert_eq!(
        outcome(answers(600, 1_340, 60, 2)),
        "chat: answers without a region changed by +3.0 points, +0.0 were predicted"
    );
    assert_eq!(
        outcome(answers(1_000, 1_000, 0, 2)),
        "chat: the share of fra changed by +0.0 points, -20.0 were predicted",
        "nobody moved"
    );
    assert_eq!(
        outcome(answers(400, 1_600, 0, 2)),
        "chat: the share of fra changed by -30.0 points, -20.0 were predicted"
    );
    for fine in [answers(690, 1_310, 0, 2), answers(510, 1_490, 0, 2), answers(600, 1_390, 10, 2)] {
        assert!(outcome(fine.clone()).starts_with("Wait(Nodes"), "within five points: {fine:?}");
    }
    assert!(outcome(answers(100, 0, 100, 100)).starts_with("Wait(Nodes"), "too few to judge");
}

#[test]
fn a_document_that_tightens_goes_to_all_at_once() {
    let mut impact = Impact {
        from: 7,
        to: 8,
        has_queries: false,
        services: Vec::new(),
        compared: 1,
        other_answers: Vec::new(),
        bundles: Vec::new(),
    };
    assert_eq!(begin(&impact, None, false), Ok(Stage::Rest));
    assert_eq!(begin(&impact, Some(Stage::Canary), false), Ok(Stage::Canary));
    assert_eq!(begin(&impact, Some(Stage::Canary), true), Err(StageRefusal::Both));
    let rules = |regions: &str| {
        let rules = format!(
            r#"{{"version": 1, "revision": 8, "jurisdictions": {{"eu": {{"include": ["EU"]}}}},
            "regions": {{"fra": {{"countries": ["DE"]}}, "par": {{"countries": ["FR"]}}}},
            "services": {{"chat": {{"hosts": ["chat.example"], "pattern": "active-active", "regions": [{regions}],
                "residency": [{{"clients": ["eu"], "process_in": ["eu"]}}]}}}}}}"#
        );
        crate::table::Table::compile(rules.as_bytes()).unwrap()
    };
    let client = crate::steer::Client { country: crate::geo::CountryCode::parse("DE"), ..Default::default() };
    let groups = [super::super::impact::Group { client, network: None, ipv4: 100, ipv6: 1 }];
    let (old, new) = (rules(r#""fra", "par""#), rules(r#""par""#));
    let queries = BTreeMap::from([("chat".to_owned(), BTreeMap::from([(client.country, 10)]))]);
    let comparison = super::super::impact::Comparison::new(&old, &new, &groups, Some(&queries), Timestamp(0));
    impact = comparison.finish((0..comparison.len()).map(|at| comparison.service(at)).collect());
    assert_eq!(begin(&impact, Some(Stage::Canary), false), Err(StageRefusal::Tightens));
    assert!(StageRefusal::Tightens.to_string().contains("--tighten"));
    assert_eq!((begin(&impact, None, true), begin(&impact, None, false)), (Ok(Stage::Rest), Ok(Stage::Rest)));
    let change = [(Some("fra".to_owned()), -1_000_000), (Some("par".to_owned()), 1_000_000)];
    assert_eq!(impact.prediction(), Prediction::from([("chat".to_owned(), BTreeMap::from(change))]));
}
