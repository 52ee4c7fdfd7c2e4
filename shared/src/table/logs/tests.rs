#![expect(clippy::needless_pass_by_value, reason = "the cases read better")]

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::geo::CountryCode;
use crate::rules::KeyDigest;
use crate::steer::{Client, logged, stand};
use crate::table::Table;
use crate::time::Timestamp;
use crate::turns::{Turns, at_once};

fn sink(countries: &[&str]) -> Value {
    json!({ "countries": countries, "otlp": "https://otel.example.net/v1/logs", "secret": "OTEL" })
}

/// A document with these sinks and residency rules.
fn document(logs: Value, residency: Value) -> Value {
    json!({
        "version": 1, "revision": 1, "logs": logs,
        "jurisdictions": { "eu": { "include": ["EU"] }, "de": { "countries": ["DE"] }, "uk": { "countries": ["GB"] },
                           "us": { "countries": ["US"] } },
        "regions": { "fra": { "countries": ["DE"] }, "par": { "countries": ["FR"] }, "lon": { "countries": ["GB"] },
                     "iad": { "countries": ["US"] } },
        "services": { "chat": { "hosts": ["chat.example"], "pattern": "active-active",
                                "regions": ["fra", "par", "lon", "iad"], "residency": residency } },
    })
}

fn violations(document: &Value) -> Vec<String> {
    match Table::compile(document.to_string().as_bytes()) {
        Ok(_) => Vec::new(),
        Err(violations) => violations.iter().map(ToString::to_string).collect(),
    }
}

/// The sink of a client of this country.
fn sink_of(document: &Value, country: &str) -> Option<String> {
    let table = Table::compile(document.to_string().as_bytes()).unwrap();
    let client = Client { country: CountryCode::parse(country), ..Client::default() };
    let found = logged(&table, table.service_named("chat").unwrap(), &stand(&table, &client));
    found.sink.map(|index| table.sink(index).id.to_string())
}

fn rule(clients: &str, process_in: Value) -> Value {
    json!({ "clients": [clients], "process_in": process_in })
}

#[test]
fn a_sink_gets_the_events_of_clients_that_may_be_processed_nowhere_else() {
    let residency = json!([rule("uk", json!(["uk", "eu"])), rule("eu", json!(["eu"])), rule("us", json!(["us"]))]);
    let document = document(json!({ "eu": sink(&["eu"]) }), residency);
    assert_eq!(violations(&document), [""; 0]);
    assert_eq!(sink_of(&document, "FR").as_deref(), Some("eu"));
    assert_eq!(sink_of(&document, "GB"), None, "the first tier doesn't hold the sink");
    assert_eq!((sink_of(&document, "US"), sink_of(&document, "JP")), (None, None));
}

#[test]
fn of_nested_tiers_the_innermost_counts_and_a_list_is_one_tier() {
    let nested = json!([rule("de", json!(["de", "eu"])), rule("eu", json!(["eu"]))]);
    let both = document(json!({ "de": sink(&["DE"]), "fr": sink(&["FR"]) }), nested.clone());
    assert_eq!(
        violations(&both),
        ["/services/chat/residency/1: has several sinks that lie in every tier of \"process_in\": de, fr; say which \
          of them gets these clients' events, such as \"logs\": \"de\""]
    );
    let one = document(json!({ "fr": sink(&["FR"]) }), nested);
    assert_eq!((sink_of(&one, "DE"), sink_of(&one, "FR").as_deref()), (None, Some("fr")));
    let list = document(json!({ "eu": sink(&["eu"]) }), json!([rule("uk", json!([["uk", "eu"]]))]));
    assert_eq!(sink_of(&list, "GB").as_deref(), Some("eu"));
    // A sink that lies partly in one and partly in another jurisdiction of a tier lies in neither, as a region.
    let astride = document(json!({ "x": sink(&["GB", "FR"]) }), json!([rule("uk", json!([["uk", "eu"]]))]));
    assert_eq!(violations(&astride).len(), 1);
    let anywhere = document(json!({ "x": sink(&["*"]) }), json!([rule("uk", json!(["*"]))]));
    assert_eq!(sink_of(&anywhere, "GB").as_deref(), Some("x"));
}

#[test]
fn a_sink_outside_of_every_fence_is_a_mistake_that_says_how_to_mend_it() {
    let residency = json!([rule("uk", json!(["uk", "eu"])), rule("eu", json!(["eu"]))]);
    let of = |countries: &[&str]| violations(&document(json!({ "x": sink(countries) }), residency.clone()));
    assert_eq!(
        of(&["US"]),
        ["/logs/x/countries: lie in no tier of any \"process_in\", so no event may be kept there; choose places \
          inside of a fence, or remove the sink"]
    );
    assert_eq!(
        of(&["uk"]),
        ["/logs/x/countries: lie in tier 0 of /services/chat/residency/0/process_in (uk), but not in its tier 1 \
          (eu): where an event may be kept lies in every tier; choose other places, write tiers of equal rank as one \
          list, or remove the sink"]
    );
    assert_eq!(of(&["DE", "FR"]), [""; 0]);
    assert_eq!(of(&["DE", "US"]).len(), 1, "all its countries count");
}

#[test]
fn a_rule_may_name_its_sink_but_only_one_inside() {
    let of = |process_in: Value, logs: &str| {
        let rules = json!([{ "clients": ["eu"], "process_in": process_in, "logs": logs }]);
        document(json!({ "de": sink(&["DE"]), "fr": sink(&["FR"]) }), rules)
    };
    assert_eq!(
        violations(&of(json!(["eu"]), "fr")),
        ["/logs/de/countries: lie in every tier of /services/chat/residency/0/process_in, but its \"logs\" names \
          another sink, and nothing else leads to this one; name it, or remove it"]
    );
    let mut both = of(json!(["eu"]), "fr");
    both["services"]["chat"]["residency"].as_array_mut().unwrap().push(rule("de", json!(["de"])));
    assert_eq!(violations(&both), [""; 0]);
    assert_eq!(sink_of(&both, "DE").as_deref(), Some("fr"), "the first rule that matches decides");
    assert_eq!(
        violations(&of(json!(["eu", "de"]), "fr")),
        [
            "/services/chat/residency/0/logs: names fr, which doesn't lie in tier 1 of \"process_in\" (de): these \
          clients' events would leave it; name a sink that lies in every tier, or leave it out",
            "/logs/de/countries: lie in every tier of /services/chat/residency/0/process_in, but its \"logs\" names \
          another sink, and nothing else leads to this one; name it, or remove it"
        ]
    );
    assert!(violations(&of(json!([]), "fr"))[0].contains("names a sink for clients that are denied"));
    assert!(violations(&of(json!(["eu"]), "xx"))[0].contains("names the sink \"xx\", which isn't declared"));
}

#[test]
fn a_tenant_with_a_fence_of_its_own_has_the_sink_of_that_fence() {
    let mut document = document(
        json!({ "de": sink(&["DE"]), "us": sink(&["US"]) }),
        json!([rule("us", json!(["us"])), rule("eu", json!(["eu"]))]),
    );
    document["services"]["chat"]["residency"][1]["logs"] = json!("de");
    let tenant = |key: &str, more: Value| {
        let mut tenant = json!({ "key_sha256": [KeyDigest::of_key(key).to_string()], "services": ["chat"] });
        tenant.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        tenant
    };
    document["tenants"] = json!({
        "own": tenant("a", json!({ "process_in": ["us"] })),
        "none": tenant("b", json!({ "process_in": ["uk"] })),
        "declared": tenant("c", json!({ "residency": "eu" })),
    });
    let table = Table::compile(document.to_string().as_bytes()).unwrap();
    let of = |name: &str| {
        let client =
            Client { tenant: table.tenant_named(name), country: CountryCode::parse("FR"), ..Client::default() };
        let found = logged(&table, table.service_named("chat").unwrap(), &stand(&table, &client));
        (found.sink.map(|index| table.sink(index).id.to_string()), found.fence.len())
    };
    assert_eq!(of("own"), (Some("us".into()), 1), "whatever the address says");
    assert_eq!(of("none"), (None, 1));
    assert_eq!(of("declared"), (Some("de".into()), 2));
    document["tenants"]["own"]["logs"] = json!("de");
    assert_eq!(
        violations(&document),
        ["/tenants/own/logs: names de, which doesn't lie in tier 0 of \"process_in\" (us): these clients' events \
          would leave it; name a sink that lies in every tier, or leave it out"]
    );
    document["tenants"]["own"] = tenant("a", json!({ "residency": "us", "logs": "us" }));
    assert!(violations(&document)[0].starts_with("/tenants/own/logs: stands in a tenant without \"process_in\""));
}

#[test]
fn prompts_and_answers_are_logged_only_where_each_sink_takes_them() {
    let keeping = |logs: Value, residency: Value, more: Value| {
        let mut document = document(logs, residency);
        let chat = document["services"]["chat"].as_object_mut().unwrap();
        chat.insert("log_content".into(), json!(true));
        chat.insert("receipts".into(), json!("required"));
        chat.extend(more.as_object().unwrap().clone());
        violations(&document)
    };
    let mut taking = sink(&["eu"]);
    taking["content"] = json!(true);
    let eu = || json!([rule("eu", json!(["eu"]))]);
    assert_eq!(keeping(json!({ "eu": taking }), eu(), json!({})), [""; 0]);
    assert_eq!(
        keeping(json!({ "eu": sink(&["eu"]) }), eu(), json!({})),
        ["/services/chat/log_content: is true, but eu, the sink of /services/chat/residency/0, takes no prompts and \
          answers; write \"content\": true there, or leave it out"]
    );
    let two = json!([rule("eu", json!(["eu"])), rule("us", json!(["us"]))]);
    assert_eq!(
        keeping(json!({ "eu": taking }), two, json!({})),
        ["/services/chat/log_content: is true, but no sink lies in every tier of \
          /services/chat/residency/1/process_in, so nothing would be kept of these clients; add such a sink to \
          \"logs\", or leave it out"]
    );
    let denied = json!([rule("eu", json!(["eu"])), rule("us", json!([]))]);
    assert_eq!(keeping(json!({ "eu": taking }), denied, json!({})), [""; 0]);
    assert!(keeping(json!({}), eu(), json!({}))[0].contains("the document has no sinks"));
    for receipts in [json!("off"), json!("optional")] {
        let found = keeping(json!({ "eu": taking }), eu(), json!({ "receipts": receipts }));
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("\"receipts\" isn't \"required\""), "{found:?}");
    }
    let mut plain = document(json!({ "eu": taking }), eu());
    plain["services"]["chat"]["log_content"] = json!(true);
    assert!(violations(&plain)[0].contains("isn't \"required\""), "nor do they say so by default");
    assert!(
        keeping(json!({ "eu": taking }), eu(), json!({ "streams": "pipe" }))[0].contains("doesn't see the answers")
    );
}

#[test]
fn mistakes_in_a_sink_are_reported_where_they_stand_and_quote_no_secret() {
    let of = |sink: Value| violations(&document(json!({ "eu": sink }), json!([rule("eu", json!(["eu"]))])));
    for (broken, pointer) in [
        (json!({}), "/logs/eu/"),
        (json!({ "countries": ["EU"], "otlp": "https://otel.example.net/v1/logs" }), "/logs/eu/countries/0: "),
        (json!({ "countries": ["eu"], "otlp": "http://otel.example.net/v1/logs" }), "/logs/eu/otlp: "),
        (json!({ "countries": ["eu"], "otlp": "https://u:p@otel.example.net/v1/logs" }), "/logs/eu/otlp: "),
        (json!({ "countries": ["eu"], "otlp": "https://otel.example.net/", "traces": 1 }), "/logs/eu/traces: "),
        (json!({ "countries": ["eu"], "otlp": "https://otel.example.net/", "secret": "s3cr3t!" }), "/logs/eu/secret: "),
        (
            json!({ "countries": ["eu"], "otlp": "https://otel.example.net/", "secret": "LOGS_KEY" }),
            "/logs/eu/secret: ",
        ),
        (
            json!({ "countries": ["eu"], "otlp": "https://otel.example.net/", "secret": "STATE_KEY" }),
            "/logs/eu/secret: ",
        ),
        (json!({ "countries": ["eu"], "otlp": "https://otel.example.net/", "headers": {} }), "/logs/eu/headers: "),
    ] {
        let found = of(broken.clone());
        assert!(!found.is_empty() && found.iter().all(|one| one.starts_with(pointer)), "{broken}: {found:?}");
        assert!(!found.concat().contains("s3cr3t"), "{found:?}");
    }
}

#[test]
fn clients_without_a_sink_are_warned_of() {
    let residency = json!([rule("eu", json!(["eu"])), rule("us", json!(["us"])), rule("uk", json!([]))]);
    let mut document = document(json!({ "eu": sink(&["eu"]) }), residency);
    let tenant = |key: &str, process_in: Value| {
        let digest = KeyDigest::of_key(key).to_string();
        json!({ "key_sha256": [digest], "services": ["chat"], "process_in": process_in })
    };
    document["tenants"] = json!({
        "inside": tenant("a", json!(["eu"])), "outside": tenant("b", json!(["uk"])),
    });
    let table = Table::compile(document.to_string().as_bytes()).unwrap();
    let warnings = table.warnings(Timestamp(0));
    let of_sinks = warnings.iter().filter(|one| one.message.contains("no sink in every tier"));
    assert_eq!(
        of_sinks.map(|one| one.pointer.as_str()).collect::<Vec<_>>(),
        ["/services/chat/residency/1/process_in", "/tenants/outside/process_in"]
    );
}

#[test]
fn sinks_of_many_tenants_are_found_in_turns_and_once_for_each_fence() {
    use core::cell::Cell;
    use std::rc::Rc;

    let of = |count: usize, with_sinks: bool| {
        let logs: serde_json::Map<String, Value> =
            (0..40).filter(|_| with_sinks).map(|nth| (format!("s{nth:02}"), sink(&["DE"]))).collect();
        let tenants: serde_json::Map<String, Value> = (0..count)
            .map(|nth| {
                let digest = KeyDigest::of_key(&nth.to_string()).to_string();
                let mut tenant = json!({ "key_sha256": [digest], "services": ["chat"], "process_in": ["de"] });
                if with_sinks {
                    tenant["logs"] = json!(format!("s{:02}", nth % 40));
                }
                (format!("t{nth}"), tenant)
            })
            .collect();
        let mut document = document(Value::Object(logs), json!([rule("us", json!(["us"]))]));
        document["tenants"] = Value::Object(tenants);
        let bytes = document.to_string().into_bytes();
        let pauses = Rc::new(Cell::new(0_usize));
        let counted = Rc::clone(&pauses);
        let pause = move || -> core::pin::Pin<Box<dyn Future<Output = ()>>> {
            counted.set(counted.get() + 1);
            Box::pin(core::future::ready(()))
        };
        let table = at_once(Table::compile_in_turns(&bytes, [0; 32], &mut Turns::new(&pause)));
        let sinks = table.unwrap().sinks().len();
        assert_eq!(sinks, if with_sinks { 40 } else { 0 });
        pauses.get()
    };
    let (without, with) = (of(2_000, false), of(2_000, true));
    assert!(with > without + 4, "{with} pauses, {without} without sinks");
    assert!(with < 3 * without, "{with} pauses, {without} without sinks");
}

/// Jurisdictions of the property test, with their countries.
const LANDS: [(&str, &[&str]); 5] =
    [("a", &["DE"]), ("b", &["DE", "FR"]), ("c", &["FR", "GB"]), ("d", &["DE", "FR", "GB"]), ("e", &["US"])];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    /// In every document that compiles, an event goes only to a sink whose countries some jurisdiction of each tier
    /// holds, as a second, plain reading of the document finds.
    #[test]
    fn no_event_goes_to_a_sink_outside_of_a_tier(
        sinks in prop::collection::vec(prop::sample::subsequence(vec!["DE", "FR", "GB", "US"], 1..=3), 1..4),
        tiers in prop::collection::vec(prop::collection::vec(
            prop::sample::subsequence(vec!["a", "b", "c", "d", "e"], 1..=3), 0..4), 1..5),
        named in prop::collection::vec(prop::option::weighted(0.2, 0_usize..4), 5),
    ) {
        let logs: serde_json::Map<String, Value> =
            sinks.iter().enumerate().map(|(nth, countries)| (format!("s{nth}"), sink(countries))).collect();
        let jurisdictions: serde_json::Map<String, Value> =
            LANDS.iter().map(|(name, countries)| ((*name).to_owned(), json!({ "countries": countries }))).collect();
        let clients = ["a", "b", "c", "d", "e"];
        let residency: Vec<Value> = tiers.iter().zip(clients).zip(&named).map(|((tiers, client), named)| {
            let mut rule = json!({ "clients": [client], "process_in": tiers });
            if let Some(named) = named.filter(|named| *named < sinks.len()) {
                rule["logs"] = json!(format!("s{named}"));
            }
            rule
        }).collect();
        let document = json!({
            "version": 1, "revision": 1, "logs": logs, "jurisdictions": jurisdictions,
            "regions": { "fra": { "countries": ["DE"] } },
            "services": { "chat": { "hosts": ["chat.example"], "pattern": "active-active", "regions": ["fra"],
                                    "residency": residency } },
        });
        let holds = |land: &str, country: &str| {
            LANDS.iter().any(|(name, countries)| *name == land && countries.contains(&country))
        };
        let fits = |nth: usize, tiers: &[Vec<&str>]| {
            let in_tier = |tier: &Vec<&str>| {
                tier.iter().any(|land| sinks[nth].iter().all(|country| holds(land, country)))
            };
            !tiers.is_empty() && tiers.iter().all(in_tier)
        };
        let all_fitting = |tiers: &[Vec<&str>]| (0..sinks.len()).filter(|nth| fits(*nth, tiers)).collect::<Vec<_>>();
        match Table::compile(document.to_string().as_bytes()) {
            Ok(table) => {
                for country in ["DE", "FR", "GB", "US", "JP"] {
                    let client = Client { country: CountryCode::parse(country), ..Client::default() };
                    let found = logged(&table, table.service_named("chat").unwrap(), &stand(&table, &client));
                    let rule = tiers.iter().zip(clients).position(|(_, land)| holds(land, country));
                    let fitting = rule.map(|rule| all_fitting(&tiers[rule])).unwrap_or_default();
                    match found.sink {
                        Some(sink) => prop_assert!(fitting.contains(&sink.get()), "{document}"),
                        None => prop_assert!(fitting.is_empty(), "{document}"),
                    }
                }
            }
            Err(violations) => {
                // There is a reason: a name outside, a choice left open, or a sink that nobody uses.
                let bad = tiers.iter().zip(&named).any(|(tiers, named)| match named.filter(|one| *one < sinks.len()) {
                    Some(named) => !fits(named, tiers),
                    None => all_fitting(tiers).len() > 1,
                });
                let used = |nth: usize| tiers.iter().zip(&named).any(|(tiers, named)| {
                    match named.filter(|one| *one < sinks.len()) {
                        Some(named) => named == nth,
                        None => fits(nth, tiers),
                    }
                });
                prop_assert!(bad || (0..sinks.len()).any(|nth| !used(nth)), "{violations:?} {document}");
            }
        }
    }
}
