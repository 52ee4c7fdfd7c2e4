//! Rollouts: what is refused, and how to mend it.

use serde_json::{Value, json};

use super::{assert_refused, compile, sound};
use crate::bundle::Version;
use crate::id::{BundleId, RegionId};
use crate::rules::{Change, Measure};
use crate::testing::version;
use crate::time::{Millis, Timestamp};

/// A sound document with a rollout of a model's name.
fn with_rollout(document: &mut Value) {
    for (region, endpoint) in [("fra", "fra-1"), ("lon", "lon-1")] {
        document["regions"][region]["endpoints"] = json!({
            endpoint: { "url": "https://old.example/v1", "models": { "large": "llama-bf16", "small": "gemma" } },
            "new": { "url": "https://new.example/v1", "models": { "large": "llama-fp8", "small": "gemma" } },
        });
    }
    document["rollouts"] = json!({ "fp8": {
        "service": "chat", "model": "large", "from": "llama-bf16", "to": "llama-fp8", "regions": ["lon", "fra"],
        "checks": { "error_rate": { "max_diff": 0.005, "critical": true }, "first_token_p95": { "max_ratio": 1.15 } },
    } });
}

/// The same document, with a rollout from one endpoint to another.
fn with_endpoints(document: &mut Value) {
    with_rollout(document);
    let rollout = document["rollouts"]["fp8"].as_object_mut().unwrap();
    for field in ["model", "from", "to"] {
        rollout.remove(field);
    }
    rollout.insert(
        "endpoints".to_owned(),
        json!({ "fra": { "from": "fra-1", "to": "new" }, "lon": { "from": "lon-1", "to": "new" } }),
    );
}

#[track_caller]
fn refuses(change: impl FnOnce(&mut Value), pointer: &str, hint: &str) {
    let both = |document: &mut Value| {
        with_rollout(document);
        change(document);
    };
    assert_refused(both, &format!("/rollouts/fp8{pointer}"), hint);
}

#[track_caller]
fn refuses_endpoints(change: impl FnOnce(&mut Value), pointer: &str, hint: &str) {
    let both = |document: &mut Value| {
        with_endpoints(document);
        change(document);
    };
    assert_refused(both, &format!("/rollouts/fp8{pointer}"), hint);
}

#[test]
fn a_rollout_is_compiled_with_its_defaults_and_its_shares() {
    let mut document = sound();
    with_rollout(&mut document);
    let table = compile(&document).unwrap();
    let [rollout] = table.rollouts() else { panic!("one") };
    let rule = &rollout.rule;
    assert_eq!(rule.steps, [1, 5, 25, 50, 100]);
    assert_eq!([rule.hold, rule.bake, rule.warm_up, rule.max_hold].map(|span| span.0 / 60_000), [15, 120, 3, 24 * 60]);
    assert_eq!((rule.min_samples, rule.progress.is_none(), rule.checks.len()), (500, true, 2));
    assert!(rule.checks[&Measure::Errors].critical && !rule.checks[&Measure::FirstToken].critical);
    let (fra, lon) = (table.region_named("fra").unwrap(), table.region_named("lon").unwrap());
    assert_eq!(rollout.regions, [(lon, None), (fra, None)]);
    assert_eq!(table.rollout_of(rollout.service).unwrap().id.as_str(), "fp8");

    let since = "2026-12-01T06:00:00Z";
    document["rollouts"]["fp8"]["progress"] = json!({ "shares": { "lon": 100, "fra": 5 }, "since": since });
    let table = compile(&document).unwrap();
    let rollout = &table.rollouts()[0];
    assert_eq!((rollout.share(lon), rollout.share(fra)), (Some(100), Some(5)));
    assert_eq!(rollout.rule.progress.as_ref().unwrap().since, Timestamp::parse(since).unwrap());
    assert!(compile(&sound()).unwrap().rollouts().is_empty());
}

#[test]
fn a_rollout_of_endpoints_keeps_the_new_one_to_itself() {
    let mut document = sound();
    with_endpoints(&mut document);
    let table = compile(&document).unwrap();
    let Change::Endpoints(pairs) = &table.rollouts()[0].rule.change else { panic!("endpoints") };
    let (lon, fra) = (table.region_named("lon").unwrap(), table.region_named("fra").unwrap());
    assert!(pairs.values().all(|pair| table.is_rolled_out(lon, &pair.to) && table.is_rolled_out(fra, &pair.to)));
    assert!(pairs.values().all(|pair| !table.is_rolled_out(lon, &pair.from)));
    refuses_endpoints(|d| d["rollouts"]["fp8"]["model"] = json!("large"), "/model", "not both");
    let pair = |from: &str, to: &str| json!({ "from": from, "to": to });
    refuses_endpoints(
        |d| d["rollouts"]["fp8"]["endpoints"]["lon"] = pair("lon-1", "lon-1"),
        "/endpoints/lon/to",
        "is the same as \"from\"",
    );
    refuses_endpoints(
        |d| d["rollouts"]["fp8"]["endpoints"]["lon"] = pair("lon-1", "nw"),
        "/endpoints/lon/to",
        "did you mean \"new\"?",
    );
    refuses_endpoints(|d| d["rollouts"]["fp8"]["regions"] = json!(["fra"]), "/endpoints/lon", "add it there");
    refuses_endpoints(
        |d| drop(d["rollouts"]["fp8"]["endpoints"].as_object_mut().unwrap().remove("lon")),
        "/endpoints",
        "lacks lon",
    );
    refuses_endpoints(
        |d| d["regions"]["lon"]["endpoints"]["new"]["models"] = json!({ "large": "llama-fp8" }),
        "/endpoints/lon/to",
        "lacks the model \"small\" of lon-1",
    );
}

/// A rollout of a bundle. London has a version of its own.
fn with_bundle(document: &mut Value) {
    with_rollout(document);
    let rollout = document["rollouts"]["fp8"].as_object_mut().unwrap();
    for field in ["model", "from"] {
        rollout.remove(field);
    }
    rollout.insert("bundle".to_owned(), json!("prompts"));
    rollout.insert("to".to_owned(), json!(version('2')));
    document["bundles"] = json!({ "prompts": { "version": version('0'), "regions": { "lon": version('1') } },
                                  "tools": { "version": version('0') } });
}

#[track_caller]
fn refuses_bundle(change: impl FnOnce(&mut Value), pointer: &str, hint: &str) {
    let both = |document: &mut Value| {
        with_bundle(document);
        change(document);
    };
    assert_refused(both, &format!("/rollouts/fp8{pointer}"), hint);
}

#[test]
fn a_rollout_of_a_bundle_moves_each_region_when_its_share_is_whole() {
    let mut document = sound();
    with_bundle(&mut document);
    let of = |digit: char| Version::parse(&version(digit)).unwrap();
    let prompts = BundleId::parse("prompts").unwrap();
    let told = |document: &Value| {
        let table = compile(document).unwrap();
        let regions = ["lon", "fra"].map(|name| RegionId::parse(name).unwrap());
        let of_region = |region: Option<&RegionId>| {
            let new = table.new_bundle_version(&prompts, region);
            (table.bundle_version(&prompts, region).unwrap(), new.map(|new| (new.version, new.share)))
        };
        [of_region(Some(&regions[0])), of_region(Some(&regions[1])), of_region(None)]
    };
    let (lon, fra) = ((of('1'), None), (of('0'), None));
    assert_eq!(told(&document), [lon, fra, fra], "before it begins, nothing differs");
    let mut shares = |shares: Value| {
        let progress = json!({ "shares": shares, "since": "2026-12-01T06:00:00Z" });
        document["rollouts"]["fp8"]["progress"] = progress;
        told(&document)
    };
    assert_eq!(shares(json!({ "lon": 5 })), [(of('1'), Some((of('2'), 5))), fra, fra]);
    assert_eq!(shares(json!({ "lon": 100, "fra": 25 })), [(of('2'), None), (of('0'), Some((of('2'), 25))), fra]);
    // Who is of no region has what all have, until the pins say otherwise.
    assert_eq!(shares(json!({ "lon": 100, "fra": 100 })), [(of('2'), None), (of('2'), None), fra]);
    assert_eq!(shares(json!({})), [lon, fra, fra], "rolled back");

    let table = compile(&document).unwrap();
    let rollout = table.rollout_of_bundle(&prompts).unwrap();
    assert_eq!(rollout.pins, [of('1'), of('0')], "in the order of its regions");
    assert_eq!(rollout.pin(table.region_named("fra").unwrap()), Some(of('0')));
    let named: Vec<_> = table.bundle_versions().map(|(name, place, one)| (name.to_string(), place, one)).collect();
    let expected = [
        ("prompts", "/bundles/prompts/version", '0'),
        ("prompts", "/bundles/prompts/regions/lon", '1'),
        ("tools", "/bundles/tools/version", '0'),
        ("prompts", "/rollouts/fp8/to", '2'),
    ];
    assert_eq!(named, expected.map(|(name, place, digit)| (name.to_owned(), place.to_owned(), of(digit))));
    assert!(table.rollout_of_bundle(&BundleId::parse("tools").unwrap()).is_none());
}

#[test]
fn a_rollout_of_a_bundle_is_refused_where_it_moves_nothing_or_too_much() {
    let set = |field: &'static str, value: Value| move |d: &mut Value| d["rollouts"]["fp8"][field] = value;
    refuses_bundle(set("bundle", json!("prompt")), "/bundle", "did you mean \"prompts\"?");
    refuses_bundle(set("checks", json!({ "eval": { "suite": "smoke", "margin": 0.02 } })), "", "leave \"eval\" out");
    refuses_bundle(set("to", json!("2")), "/to", "64 lower-case hex digits");
    refuses_bundle(set("to", json!(version('A'))), "/to", "which is no version");
    let without_to = |d: &mut Value| drop(d["rollouts"]["fp8"].as_object_mut().unwrap().remove("to"));
    refuses_bundle(without_to, "/to", "the new version of the bundle");
    for field in ["model", "from", "endpoints"] {
        refuses_bundle(set(field, json!("x")), &format!("/{field}"), "stands beside \"bundle\"");
    }
    let has_it = "\"bundles\" pin for lon already";
    refuses_bundle(set("to", json!(version('1'))), "/to", has_it);
    refuses_bundle(set("to", json!(version('0'))), "/to", "\"bundles\" pin for fra already");
    refuses_bundle(|d| drop(d.as_object_mut().unwrap().remove("bundles")), "/bundle", "declare it first");
    // A region that isn't one of the rollout's may have it.
    let mut document = sound();
    with_bundle(&mut document);
    document["rollouts"]["fp8"]["regions"] = json!(["fra"]);
    document["bundles"]["prompts"]["regions"]["lon"] = json!(version('2'));
    assert!(compile(&document).is_ok());
    let two = |d: &mut Value| {
        with_bundle(d);
        d["services"]["other"] = d["services"]["chat"].clone();
        d["services"]["other"]["hosts"] = json!(["other.example.com"]);
        d["rollouts"]["other"] = d["rollouts"]["fp8"].clone();
        d["rollouts"]["other"]["service"] = json!("other");
    };
    assert_refused(two, "/rollouts/other/bundle", "is moved by another rollout");
}

#[test]
fn names_and_regions_of_a_rollout_exist_and_serve_its_service() {
    refuses(|d| d["rollouts"]["fp8"]["service"] = json!("chatt"), "/service", "did you mean \"chat\"?");
    refuses(|d| d["rollouts"]["fp8"]["regions"] = json!(["lon", "par"]), "/regions/1", "isn't declared");
    refuses(
        |d| {
            d["regions"]["par"] = d["regions"]["fra"].clone();
            d["rollouts"]["fp8"]["regions"] = json!(["lon", "par"]);
        },
        "/regions/1",
        "isn't one of the regions of chat",
    );
    refuses(|d| d["rollouts"]["fp8"]["regions"] = json!([]), "/regions", "");
    refuses(
        |d| d["rollouts"]["fp8"]["model"] = json!("medium"),
        "/from",
        "no endpoint of lon calls \"medium\" so: none has \"medium\"",
    );
}

#[test]
fn two_rollouts_of_a_service_are_refused() {
    let two = |d: &mut Value| {
        with_rollout(d);
        d["rollouts"]["other"] = d["rollouts"]["fp8"].clone();
    };
    assert_refused(two, "/rollouts/other/service", "has another rollout");
}

#[test]
fn what_is_replaced_is_said_once_and_changes_something() {
    refuses(|d| d["rollouts"]["fp8"]["to"] = json!("llama-bf16"), "/to", "is the same as \"from\"");
    refuses(|d| d["rollouts"]["fp8"]["from"] = json!(""), "/from", "empty");
    let hint = "they say [\"llama-bf16\", \"llama-fp8\"]";
    refuses(|d| d["rollouts"]["fp8"]["from"] = json!("llama"), "/from", hint);
    let nothing = |d: &mut Value| {
        let rollout = d["rollouts"]["fp8"].as_object_mut().unwrap();
        for field in ["model", "from", "to"] {
            rollout.remove(field);
        }
    };
    refuses(nothing, "", "says nothing to replace");
}

#[test]
fn steps_rise_and_leave_something_to_compare_with() {
    let steps = |steps: Value| move |d: &mut Value| d["rollouts"]["fp8"]["steps"] = steps;
    refuses(steps(json!([])), "/steps", "");
    refuses(steps(json!([5, 5])), "/steps/1", "is 5 after 5; steps rise");
    refuses(steps(json!([5, 1])), "/steps/1", "steps rise");
    refuses(steps(json!([0, 5])), "/steps/0", "");
    refuses(steps(json!([5, 101])), "/steps/1", "");
    refuses(steps(json!([2.5])), "/steps/0", "");
    refuses(steps(json!([100])), "/steps/0", "nothing would be left to compare with");
}

#[test]
fn spans_and_checks_can_be_kept() {
    let set = |field: &'static str, value: Value| move |d: &mut Value| d["rollouts"]["fp8"][field] = value;
    refuses(set("max_hold", json!("2h")), "", "write a longer \"max_hold\"");
    refuses(set("hold", json!("0s")), "/hold", "from \"1s\"");
    refuses(set("min_samples", json!(0)), "/min_samples", "");
    refuses(set("checks", json!({})), "/checks", "nothing would be judged");
    refuses(set("checks", json!({ "evals": {} })), "/checks/evals", "did you mean \"eval\"?");
    let check = |name: &str, check: Value| set("checks", json!({ name: check }));
    refuses(check("error_rate", json!({ "max_diff": 0 })), "/checks/error_rate/max_diff", "from 0.0001 to 1");
    refuses(check("first_token_p95", json!({ "max_ratio": 1.09 })), "/checks/first_token_p95/max_ratio", "from 1.1");
    refuses(check("refusal", json!({})), "/checks/refusal/max_diff", "");
    refuses(set("eval", json!({})), "/eval", "");
    let eval = |suite: &str, margin: f64| check("eval", json!({ "suite": suite, "margin": margin }));
    for suite in ["", "../smoke", "a b", "smoke\n", "a=b", &"x".repeat(65)] {
        refuses(eval(suite, 0.02), "/checks/eval/suite", "letters, digits");
    }
    for margin in [0.0, -0.1, 0.000_9, 0.51] {
        refuses(eval("smoke", margin), "/checks/eval/margin", "from 0.001 to 0.5");
    }
    refuses(check("eval", json!({ "suite": "smoke" })), "/checks/eval/margin", "by how much the mean score");
    refuses(check("eval", json!({ "margin": 0.02, "suite": "a", "critical": true })), "/checks/eval/critical", "");
    let mut document = sound();
    with_rollout(&mut document);
    set("checks", json!({ "eval": { "suite": "smoke-2.0", "margin": 0.02 } }))(&mut document);
    let table = compile(&document).unwrap();
    let rule = &table.rollouts()[0].rule;
    assert_eq!((rule.eval.as_ref().unwrap().suite.as_str(), rule.checks.len()), ("smoke-2.0", 0), "alone is enough");
    assert_eq!(Millis::parse("1d"), Some(Millis(24 * 3_600_000)));
}

#[test]
fn regions_begin_one_after_the_other() {
    let progress = |shares: Value| {
        move |d: &mut Value| {
            d["rollouts"]["fp8"]["progress"] = json!({ "shares": shares, "since": "2026-12-01T06:00:00Z" });
        }
    };
    let place = "/progress/shares";
    refuses(progress(json!({ "lon": 25, "fra": 1 })), place, "has lon at 25 %, and a region after it has begun");
    refuses(progress(json!({ "fra": 1 })), place, "skips a region");
    refuses(progress(json!({ "lon": 101 })), "/progress/shares/lon", "");
    refuses(progress(json!({ "par": 1 })), "/progress/shares/par", "isn't one of the rollout's regions");
    let without = |d: &mut Value| d["rollouts"]["fp8"]["progress"] = json!({});
    refuses(without, "/progress/since", "2026-12-01T06:00:00Z");
    let mut document = sound();
    with_rollout(&mut document);
    progress(json!({}))(&mut document);
    assert!(compile(&document).is_ok(), "rolled back: no region has a share");
}

#[test]
fn a_region_of_no_fence_is_warned_of() {
    let mut document = sound();
    with_rollout(&mut document);
    let warnings = |document: &Value| {
        let found = compile(document).unwrap().warnings(Timestamp(0));
        found.into_iter().filter(|one| one.pointer.starts_with("/rollouts")).collect::<Vec<_>>()
    };
    assert_eq!(warnings(&document), []);
    document["services"]["chat"]["residency"][1]["process_in"] = json!(["eu"]);
    let found = warnings(&document);
    assert_eq!(found[0].pointer, "/rollouts/fp8/regions/0");
    assert!(found.len() == 1 && found[0].message.contains("lon, which lies in no fence of chat"), "{found:?}");
}
