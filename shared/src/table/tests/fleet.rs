//! Voters and guards: what is compiled, and what is refused with the place of the mistake.

use serde_json::{Value, json};

use super::{assert_refused, compile, refused, sound};
use crate::rules::{Guard, Ratio};
use crate::table::RegionIndex;
use crate::time::Millis;

/// A sound document with voters and a guard.
fn with_fleet(document: &mut Value) {
    document["fleet"] = json!({ "voters": {
        "ns1": { "site": "london", "region": "lon" }, "ns2": { "site": "frankfurt" }, "ns3": { "site": "london" } } });
    document["services"]["chat"]["guard"] = json!({});
}

#[track_caller]
fn refuses(change: impl FnOnce(&mut Value), pointer: &str, hint: &str) {
    let both = |document: &mut Value| {
        with_fleet(document);
        change(document);
    };
    assert_refused(both, pointer, hint);
}

#[test]
fn voters_and_guards_are_compiled_with_their_defaults() {
    let mut document = sound();
    assert!(compile(&document).unwrap().fleet().is_none());
    assert!(compile(&document).unwrap().services()[0].guard.is_none());
    with_fleet(&mut document);
    let table = compile(&document).unwrap();
    let fleet = table.fleet().unwrap();
    assert_eq!((fleet.min_hold, fleet.hold), (Millis(30_000), Millis(300_000)));
    assert_eq!(fleet.sites.iter().map(ToString::to_string).collect::<Vec<_>>(), ["frankfurt", "london"]);
    let voters = fleet.voters.iter().map(|one| (one.id.as_str(), one.site, one.region));
    let lon = Some(RegionIndex(1));
    assert_eq!(voters.collect::<Vec<_>>(), [("ns1", 1, lon), ("ns2", 0, None), ("ns3", 1, None)]);
    assert_eq!((fleet.voter_named("ns2"), fleet.voter_named("ns4")), (Some(1), None));
    let defaults = Guard { keep: 1, max_down: Ratio(500_000), window: Millis(600_000) };
    assert_eq!(table.services()[0].guard, Some(defaults));
    document["services"]["chat"]["guard"] = json!({ "keep": 0, "max_down": "34%", "window": "1m" });
    let said = Guard { keep: 0, max_down: Ratio(340_000), window: Millis(60_000) };
    assert_eq!(compile(&document).unwrap().services()[0].guard, Some(said));
}

#[test]
fn a_voter_stands_somewhere_and_is_named_as_its_node_is() {
    let voter = |value: Value| move |d: &mut Value| d["fleet"]["voters"]["ns2"] = value;
    refuses(voter(json!({})), "/fleet/voters/ns2/site", "is missing");
    refuses(voter(json!({ "site": "" })), "/fleet/voters/ns2/site", "is not a name");
    refuses(voter(json!({ "site": "a", "region": "lno" })), "/fleet/voters/ns2/region", "did you mean \"lon\"?");
    refuses(voter(json!({ "site": "a", "sight": "b" })), "/fleet/voters/ns2/sight", "");
    refuses(|d| d["fleet"]["voters"]["n s"] = json!({ "site": "a" }), "/fleet/voters/n s", "bailiwick.toml");
    refuses(|d| d["fleet"] = json!({}), "/fleet/voters", "is missing");
    refuses(|d| d["fleet"]["voters"] = json!({}), "/fleet/voters", "names nobody");
    refuses(|d| d["fleet"] = json!([]), "/fleet", "");
}

#[test]
fn spans_that_cannot_be_kept_are_refused() {
    let fleet = |field: &'static str, value: Value| move |d: &mut Value| d["fleet"][field] = value;
    refuses(fleet("min_hold", json!("2h")), "/fleet/min_hold", "from \"0s\" to \"1h\"");
    refuses(fleet("hold", json!("9s")), "/fleet/hold", "from \"10s\" to \"24h\"");
    for bad in [json!(0), json!(0.001), json!(101), json!("2")] {
        refuses(fleet("max_probes_per_second", bad), "/fleet/max_probes_per_second", "");
    }
    refuses(fleet("holds", json!("1m")), "/fleet/holds", "did you mean \"hold\"?");
    let guard = |field: &'static str, value: Value| move |d: &mut Value| d["services"]["chat"]["guard"][field] = value;
    refuses(guard("window", json!("0s")), "/services/chat/guard/window", "from \"1s\" to \"24h\"");
    refuses(guard("max_down", json!("0%")), "/services/chat/guard/max_down", "whole per cent from \"1%\"");
    refuses(guard("max_down", json!(0.5)), "/services/chat/guard/max_down", "");
    refuses(guard("keep", json!(-1)), "/services/chat/guard/keep", "");
    let nothing = |d: &mut Value| with_fleet(d);
    assert_eq!(refused(nothing), [""; 0]);
}
