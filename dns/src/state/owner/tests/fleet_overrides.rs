//! Tests of overrides in a fleet: overrides of other nodes are merged, an ended override stays ended, and guards refuse
//! an override that takes too many regions away.

use bailiwick_rules::report::{HealthReport, OverrideRecord};
use serde_json::{Value, json};

use super::voting::{ns1, report, voted};
use super::*;

/// A report with votes and these overrides.
fn telling(node: &str, overrides: Vec<OverrideRecord>) -> Box<HealthReport> {
    Box::new(HealthReport { overrides, ..*report(node, &[]) })
}

fn record(of: &str, origin: &str, number: u64) -> OverrideRecord {
    let of = id(of);
    OverrideRecord {
        region: of.region,
        endpoint: of.endpoint,
        origin: origin.into(),
        number,
        status: HealthStatus::Down,
        until: NOW.after(Millis(600_000)),
        reason: "at ns2".into(),
        insists: false,
        ended: false,
    }
}

fn forced(snapshot: &Snapshot, region: usize) -> Option<String> {
    snapshot.health().regions[region].forced.as_ref().map(|forced| forced.reason.clone())
}

#[tokio::test(start_paused = true)]
async fn overrides_of_other_nodes_bind_here_and_are_told_on_until_they_are_ended() {
    let prober = Scripted::default();
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    for address in ["a:1", "b:1", "c:1"] {
        prober.set(address, true);
    }
    let beginning =
        InitialState { node: "ns1".into(), store: Some(store.clone()), ..beginning(voted(1, &Value::Null), "") };
    let handle = begin(beginning, &prober).await;
    let made = record("r1", "ns2", 7);
    handle.hear(telling("ns2", vec![made.clone(), record("mars", "ns2", 1)])).await;
    assert!(handle.wait_until(|snapshot, _| forced(snapshot, 1).as_deref() == Some("at ns2")).await);
    let own_report = |handle: &Handle| handle.snapshot().health_report("ns1", handle.now());
    assert_eq!(own_report(&handle).overrides, std::slice::from_ref(&made));
    assert_eq!(own_report(&handle).fleet["r1"].held_by.as_str(), "override");

    // An operator ends the override at this node, while ns2 still reports it for a while.
    handle.delete_override(id("r1")).await.unwrap();
    handle.hear(telling("ns2", vec![made.clone()])).await;
    handle.hear(telling("ns3", Vec::new())).await;
    assert!(handle.wait_until(|snapshot, _| snapshot.health().fleet.as_ref().is_some_and(|f| f.fresh == 3)).await);
    assert_eq!(forced(&handle.snapshot(), 1), None);
    let ended = OverrideRecord { ended: true, ..made };
    assert_eq!(own_report(&handle).overrides, std::slice::from_ref(&ended));
    handle.finish_keeping(Duration::from_secs(5));
    assert_eq!(store.fleet_overrides().unwrap(), [ended], "neither a restart nor an echo brings the override back");
    assert!(store.overrides().unwrap().is_empty());

    // An override that ns2 makes anew is in force again. An override of this node is ended at another node.
    handle.hear(telling("ns2", vec![record("r1", "ns2", 8)])).await;
    assert!(handle.wait_until(|snapshot, _| forced(snapshot, 1).is_some()).await);
    handle.set_override(id("r0"), down_for(600_000)).await.unwrap();
    let own = own_report(&handle).overrides.into_iter().find(|one| one.origin == "ns1").unwrap();
    handle.hear(telling("ns3", vec![OverrideRecord { ended: true, ..own }])).await;
    assert!(handle.wait_until(|snapshot, _| forced(snapshot, 0).is_none()).await);
    assert!(handle.wait_until(|snapshot, _| forced(snapshot, 1).is_none()).await, "the override ends by itself");
    assert!(handle.now() >= NOW.after(Millis(600_000)));
    assert!(own_report(&handle).overrides.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_a_fleet_left_behind_is_kept_up_to_date_without_one() {
    let prober = Scripted::default();
    prober.set("a:1", true);
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let left = record("r0", "ns1", 7);
    store.keep_fleet_overrides(std::slice::from_ref(&left)).unwrap();
    let beginning = InitialState {
        node: "ns1".into(),
        store: Some(store.clone()),
        fleet_overrides: vec![left.clone()],
        ..beginning(rules(1, "chat.example.com", &["a:1"]), "")
    };
    let handle = begin(beginning, &prober).await;
    assert!(forced(&handle.snapshot(), 0).is_some(), "the override is in force without voters or peers");
    handle.delete_override(id("r0")).await.unwrap();
    handle.finish_keeping(Duration::from_secs(5));
    assert_eq!(
        store.fleet_overrides().unwrap(),
        [OverrideRecord { ended: true, ..left }],
        "a restart ends the override too"
    );
}

#[tokio::test(start_paused = true)]
async fn an_override_that_leaves_a_fence_too_little_is_refused_unless_somebody_insists() {
    let prober = Scripted::default();
    let handle = ns1(voted(1, &json!({ "keep": 2 })), &prober).await;
    for node in ["ns2", "ns3"] {
        handle.hear(report(node, &[])).await;
    }
    handle.set_override(id("r0"), down_for(60_000)).await.unwrap();
    let refused = handle.set_override(id("r1"), down_for(60_000)).await;
    let Err(OverrideError::LeavesTooFew(fences)) = refused else { panic!("{refused:?}") };
    let expected = "r1 can't be taken away: it would leave 1 of 3 regions to the clients of rule 0 of the service \
        chat, and the guard keeps 2";
    assert!(fences.len() == 1 && fences[0].starts_with(expected), "{fences:?}");
    let up = Forced { status: HealthStatus::Up, ..down_for(60_000) };
    handle.set_override(id("r1"), up).await.unwrap();
    handle.insist_on_override(id("r1"), down_for(60_000)).await.unwrap();
    assert!(forced(&handle.snapshot(), 1).is_some());
    // Without voters, guards aren't applied.
    let handle = ns1(rules(1, "chat.example.com", &["a:1", "b:1", "c:1"]), &prober).await;
    for region in ["r0", "r1", "r2"] {
        handle.set_override(id(region), down_for(60_000)).await.unwrap();
    }
    assert!(handle.snapshot().health_report("ns1", handle.now()).overrides.is_empty(), "no other node reads overrides");
}
