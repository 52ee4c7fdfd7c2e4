//! Tests of the warnings about documents that compile: the place and the text of each warning.

use serde_json::{Value, json};

use crate::rules::KeyDigest;
use crate::table::Table;
use crate::time::Timestamp;

/// A document without warnings.
fn sound() -> Value {
    let region = |country: &str, name: &str| {
        json!({ "countries": [country], "answers": { "A": ["192.0.2.1"] },
                "endpoints": { format!("{name}-1"): { "url": format!("https://{name}.example/v1") } } })
    };
    json!({
        "version": 1, "revision": 1,
        "jurisdictions": { "eu": { "include": ["EU"] }, "uk": { "countries": ["GB"] } },
        "regions": { "fra": region("DE", "fra"), "lon": region("GB", "lon") },
        "services": { "chat": {
            "hosts": ["chat.example"], "pattern": "active-active", "regions": ["fra", "lon"],
            "residency": [
                { "clients": ["eu"], "process_in": ["eu"] },
                { "clients": ["*"], "process_in": ["uk", "eu"] },
                { "clients": ["unknown"], "process_in": ["eu", "uk"] },
            ],
        } },
    })
}

fn tenant(rest: &Value) -> Value {
    let mut tenant = json!({ "key_sha256": [KeyDigest::of_key("sk").to_string()], "services": ["chat"] });
    for (key, value) in rest.as_object().unwrap() {
        tenant[key] = value.clone();
    }
    tenant
}

/// The warnings about the sound document with one change.
fn reported(change: impl FnOnce(&mut Value)) -> Vec<String> {
    let mut document = sound();
    change(&mut document);
    let table = Table::compile(document.to_string().as_bytes()).unwrap_or_else(|violations| panic!("{violations:#?}"));
    table.warnings(Timestamp(i64::MAX)).iter().map(ToString::to_string).collect()
}

/// Asserts that the changed document gets one warning, about the place `pointer` and with the text `hint`.
#[track_caller]
fn assert_warns(change: impl FnOnce(&mut Value), pointer: &str, hint: &str) {
    let lines = reported(change);
    let [line] = &lines[..] else { panic!("one warning expected: {lines:#?}") };
    assert!(line.starts_with(&format!("{pointer}: ")), "{line}");
    assert!(line.contains(hint), "{line}");
}

#[test]
fn a_drill_whose_time_comes_while_another_lasts_is_warned_of() {
    let with = |one: Value, two: Value| {
        move |d: &mut Value| {
            d["drills"] = json!({ "a": { "region": "fra", "weekly": one }, "b": { "region": "lon", "weekly": two } });
        }
    };
    // By default a drill takes 10, 50 and 100 %: twice 5 min, half an hour, twice 5 min, and 2 min around them.
    assert_warns(
        with(json!("Tue 10:00"), json!("Tue 10:05")),
        "/drills/b/weekly",
        "when a of Tue 10:00 may be under way",
    );
    assert_warns(
        with(json!("Tue 10:05"), json!("Tue 10:00")),
        "/drills/a/weekly",
        "when b of Tue 10:00 may be under way",
    );
    assert_warns(
        with(json!("Mon 00:01"), json!("Sun 23:59")),
        "/drills/a/weekly",
        "when b of Sun 23:59 may be under way",
    );
    assert_warns(with(json!("Tue 10:00"), json!("Tue 10:00")), "/drills/b/weekly", "choose another time");
    assert_warns(with(json!("Tue 10:00"), json!("Tue 10:51")), "/drills/b/weekly", "(it takes 52m)");
    assert_eq!(reported(with(json!("Tue 10:00"), json!("Tue 10:52"))), [""; 0]);
}

#[test]
fn secrets_of_the_worker_itself_are_warned_of() {
    let place = "/regions/fra/endpoints/fra-1/secret";
    let named =
        |secret: &'static str| move |d: &mut Value| d["regions"]["fra"]["endpoints"]["fra-1"]["secret"] = json!(secret);
    for own in ["EXPLAIN_TOKEN", "HEALTH_TOKEN", "LOGS_KEY", "RECEIPT_KEY", "RULES_TOKEN", "STATE_KEY"] {
        assert_warns(named(own), place, own);
    }
    assert_eq!(reported(named("FRA_KEY")), [""; 0]);
}

#[test]
fn a_document_without_problems_gets_no_warning() {
    assert_eq!(reported(|_| ()), [""; 0]);
    assert_eq!(reported(|d| d["tenants"]["acme"] = tenant(&json!({ "residency": "eu" }))), [""; 0]);
    assert_eq!(reported(|d| d["tenants"]["acme"] = tenant(&json!({ "process_in": ["uk", ["eu"]] }))), [""; 0]);
}

#[test]
fn clients_that_no_rule_accepts_get_a_warning() {
    let place = "/services/chat/residency";
    let without = |rule: usize| {
        move |d: &mut Value| {
            d["services"]["chat"]["residency"].as_array_mut().unwrap().remove(rule);
        }
    };
    assert_warns(without(2), place, "no rule for \"unknown\"");
    assert_warns(without(1), place, "takes no clients of 216 countries (AD, AE, AF, AG, AI, AL, AM, AO and 208 more)");
    let denied = |rule: usize| move |d: &mut Value| d["services"]["chat"]["residency"][rule]["process_in"] = json!([]);
    assert_eq!(reported(denied(2)), [""; 0], "denied on purpose");
    assert_eq!(reported(denied(1)), [""; 0], "denied on purpose");
}

#[test]
fn missing_rules_get_no_warning_if_every_tenant_declares_its_residency_or_fence() {
    // All clients of the service belong to the tenant `acme`, unless regions have `answers`: then clients use DNS too.
    let closed = |answers: bool, declared: Value| {
        move |d: &mut Value| {
            d["services"]["chat"]["residency"] = json!([{ "clients": ["eu"], "process_in": ["eu"] }]);
            d["tenants"]["acme"] = tenant(&declared);
            if !answers {
                for region in d["regions"].as_object_mut().unwrap().values_mut() {
                    region.as_object_mut().unwrap().remove("answers");
                }
            }
        }
    };
    let left_over =
        |lines: Vec<String>| lines.iter().filter(|line| line.starts_with("/services/chat/residency: ")).count();
    assert_eq!(left_over(reported(closed(false, json!({ "residency": "eu" })))), 0);
    assert_eq!(left_over(reported(closed(false, json!({ "process_in": ["eu"] })))), 0);
    assert_eq!(left_over(reported(closed(false, json!({})))), 2, "the tenant's clients are placed by geography");
    assert_eq!(left_over(reported(closed(true, json!({ "residency": "eu" })))), 2, "in DNS there are no tenants");
}

#[test]
fn empty_tiers_and_fences_get_a_warning() {
    let tiers = |process_in: Value| {
        move |d: &mut Value| {
            d["jurisdictions"]["us"] = json!({ "countries": ["US"] });
            d["services"]["chat"]["residency"][1]["process_in"] = process_in;
        }
    };
    assert_warns(tiers(json!(["eu", "uk", "us"])), "/services/chat/residency/1/process_in/2", "adds no region");
    assert_warns(tiers(json!(["us"])), "/services/chat/residency/1/process_in", "always denied");
    let fence = |process_in: Value| {
        move |d: &mut Value| {
            d["jurisdictions"]["us"] = json!({ "countries": ["US"] });
            d["tenants"]["acme"] = tenant(&json!({ "process_in": process_in }));
        }
    };
    assert_warns(fence(json!(["uk", "us"])), "/tenants/acme/process_in/1", "adds no region");
    assert_warns(fence(json!(["us"])), "/tenants/acme/process_in", "no region of the service chat");
}

#[test]
fn a_declared_residency_that_no_rule_uses_gets_a_warning() {
    let change = |d: &mut Value| {
        d["services"]["chat"]["residency"].as_array_mut().unwrap().remove(1);
        d["tenants"]["acme"] = tenant(&json!({ "residency": "uk" }));
    };
    let lines = reported(change);
    let line =
        lines.iter().find(|line| line.starts_with("/tenants/acme/residency: ")).unwrap_or_else(|| panic!("{lines:#?}"));
    assert!(line.contains("no rule of the service chat"), "{line}");
}

/// A hosted "EU" region isn't covered by a hand-written list of the members, because territories of the members have
/// codes of their own.
#[test]
fn a_hand_written_list_of_members_gets_a_warning() {
    let by_hand = |d: &mut Value| {
        let members: Vec<String> = crate::geo::eu_members().iter().map(|code| code.to_string()).collect();
        d["jurisdictions"]["hand"] = json!({ "countries": members });
        d["regions"]["fra"]["countries"] = json!(["eu"]);
        d["services"]["chat"]["residency"][0]["process_in"] = json!(["hand", "uk"]);
    };
    let lines = reported(by_hand);
    let expected = [
        ("/services/chat/residency/0/process_in: leaves out fra", "but for AX, GF, GP, MF, MQ, RE, YT"),
        ("/services/chat/residency/0/process_in/0: ", "adds no region"),
        ("/jurisdictions/hand/countries: ", "\"include\": [\"EU\"]"),
    ];
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    for (line, (start, hint)) in lines.iter().zip(expected) {
        assert!(line.starts_with(start) && line.contains(hint), "{line}");
    }
}

#[test]
fn unused_entries_get_a_warning() {
    assert_warns(|d| d["jurisdictions"]["us"] = json!({ "countries": ["US"] }), "/jurisdictions/us", "decides nothing");
    assert_warns(|d| d["regions"]["nyc"] = json!({ "countries": ["US"] }), "/regions/nyc", "belongs to no service");
}

#[test]
fn endpoints_that_the_edge_cannot_use_get_a_warning() {
    let bare = |d: &mut Value| d["regions"]["lon"]["endpoints"] = json!({});
    assert_warns(bare, "/services/chat/regions/1", "lon, which has no endpoints");
    let dns_only = |d: &mut Value| {
        for region in d["regions"].as_object_mut().unwrap().values_mut() {
            region["endpoints"] = json!({});
        }
    };
    assert_eq!(reported(dns_only), [""; 0]);
    let url = |url: &'static str| move |d: &mut Value| d["regions"]["fra"]["endpoints"]["fra-1"]["url"] = json!(url);
    assert_warns(url("https://fra.example"), "/regions/fra/endpoints/fra-1/url", "no /v1");
    assert_warns(url("https://fra.example/api/"), "/regions/fra/endpoints/fra-1/url", "no /v1");
    for fine in ["https://fra.example/v1/", "https://fra.example/v1beta/openai", "https://fra.example/api/v2"] {
        assert_eq!(reported(url(fine)), [""; 0], "{fine}");
    }
    let azure = json!({ "url": "https://a.example", "style": "azure", "api_version": "2024-10-21" });
    assert_eq!(reported(|d| d["regions"]["fra"]["endpoints"]["fra-1"] = azure), [""; 0]);
}

#[test]
fn probes_of_models_that_lack_something_get_a_warning() {
    let watched = |monitor: Value, endpoint: Value| {
        move |d: &mut Value| {
            let fra_1 = &mut d["regions"]["fra"]["endpoints"]["fra-1"];
            fra_1["monitor"] = json!({ "type": "openai", "model": "m" });
            for (key, value) in monitor.as_object().unwrap() {
                fra_1["monitor"][key] = value.clone();
            }
            for (key, value) in endpoint.as_object().unwrap() {
                fra_1[key] = value.clone();
            }
        }
    };
    let place = "/regions/fra/endpoints/fra-1/monitor";
    let secret = json!({ "secret": "KEY" });
    assert_warns(watched(json!({}), secret.clone()), place, "asks without a credential");
    assert_eq!(reported(watched(secret.clone(), secret)), [""; 0]);
    assert_warns(watched(json!({}), json!({ "engine": "vllm" })), place, "add \"load\" to the endpoint");
    let load = json!({ "engine": "vllm", "load": { "type": "vllm", "url": "https://fra.example.net/metrics" } });
    assert_eq!(reported(watched(json!({}), load)), [""; 0]);
    let short_budget = watched(json!({ "budget": { "tokens": 64_000 } }), json!({}));
    assert_warns(
        short_budget,
        &format!("{place}/budget"),
        "pays for 1000 probes of m in 24h, where \"interval\" asks for 2880",
    );
    assert_eq!(reported(watched(json!({ "budget": { "tokens": 2_880 * 64 } }), json!({}))), [""; 0]);
}

#[test]
fn a_shared_engine_without_a_map_of_models_gets_a_warning() {
    let shared = |tenants: usize, endpoint: Value| {
        move |d: &mut Value| {
            for name in ["acme", "emca"].into_iter().take(tenants) {
                let digest = KeyDigest::of_key(name).to_string();
                d["tenants"][name] = json!({ "key_sha256": [digest], "services": ["chat"], "residency": "eu" });
            }
            for (key, value) in endpoint.as_object().unwrap() {
                d["regions"]["fra"]["endpoints"]["fra-1"][key] = value.clone();
            }
        }
    };
    let place = "/regions/fra/endpoints/fra-1";
    for engine in ["vllm", "sglang"] {
        assert_warns(shared(2, json!({ "engine": engine })), place, "2 tenants share this engine");
    }
    assert_eq!(reported(shared(1, json!({ "engine": "vllm" }))), [""; 0], "only one tenant uses the engine");
    assert_eq!(reported(shared(2, json!({ "engine": "vllm", "models": { "a": "b" } }))), [""; 0]);
    assert_eq!(reported(shared(2, json!({}))), [""; 0], "the endpoint has no engine");
}

#[test]
fn voters_that_cannot_decide_and_guards_without_effect_get_a_warning() {
    let voters = |voters: Value| move |d: &mut Value| d["fleet"] = json!({ "voters": voters });
    let at = |site: &str| json!({ "site": site });
    assert_eq!(reported(voters(json!({ "a": at("x"), "b": at("y"), "c": at("z") }))), [""; 0]);
    assert_eq!(reported(voters(json!({ "a": at("x") }))), [""; 0], "one node decides alone");
    assert_warns(voters(json!({ "a": at("x"), "b": at("y") })), "/fleet/voters", "are of two sites");
    let inside = |site: &str| json!({ "site": site, "region": "fra" });
    let biased = json!({ "a": at("x"), "b": inside("y"), "c": inside("z") });
    assert_warns(voters(biased), "/fleet/voters", "can't call fra down");
    assert_eq!(reported(voters(json!({ "a": at("x"), "b": at("y"), "c": inside("z") }))), [""; 0]);

    let guard = |keep: u32, has_voters: bool| {
        move |d: &mut Value| {
            d["services"]["chat"]["guard"] = json!({ "keep": keep });
            if has_voters {
                voters(json!({ "a": at("x"), "b": at("y"), "c": at("z") }))(d);
            }
        }
    };
    assert_warns(guard(1, false), "/services/chat/guard", "no voters are declared");
    assert_eq!(reported(guard(1, true)), [""; 0]);
    assert_warns(guard(2, true), "/services/chat/guard/keep", "the fence of rule 0 has 1 in all");
}
