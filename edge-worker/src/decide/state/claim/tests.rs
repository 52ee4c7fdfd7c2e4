//! Tests of which endpoint a request's ids lead to, and which ids are sent: ids of every kind, of one tenant and of
//! others, at every place of a body.

use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use super::*;
use crate::decide::body::Terms;
use crate::decide::body::scope::Scope;
use crate::decide::state::tests::place;

fn table(allow: &[&str]) -> Table {
    let residency = json!([{ "clients": ["*"], "process_in": ["*"] }]);
    let key = |digit: &str| json!([digit.repeat(64)]);
    let endpoints =
        json!({ "fra-1": { "url": "https://a.example.net/v1" }, "fra-2": { "url": "https://b.example.net/v1" } });
    let rules = json!({
        "version": 1, "revision": 1,
        "regions": { "fra": { "countries": ["DE"], "endpoints": endpoints } },
        "services": { "chat": { "hosts": ["chat.example"], "pattern": "active-active", "regions": ["fra"],
                                "residency": residency, "allow": allow } },
        "tenants": { "acme": { "key_sha256": key("a"), "services": ["chat"] },
                     "emca": { "key_sha256": key("b"), "services": ["chat"] } },
    });
    Table::compile(rules.to_string().as_bytes()).unwrap()
}

fn owner(tenant: &str) -> Owner {
    Owner { service: "chat".into(), tenant: Some(tenant.into()) }
}

fn keys() -> Keyring {
    Keyring::parse(&"k".repeat(32)).unwrap()
}

fn sealed(tenant: &str, endpoint: &str, id: &str) -> String {
    keys().seal(&owner(tenant), "fra", endpoint, id).unwrap()
}

/// What the ids in `body` say, and the `input` that is sent to the endpoint.
fn claimed(tenant: &str, allow: &[&str], keys: Option<&Keyring>, body: &Value) -> Result<(IdClaims, Value), Failure> {
    let table = table(allow);
    let service = table.service_named("chat").unwrap();
    let mut route = Route::parse("POST", "/v1/responses").unwrap();
    let scope = Scope { service: "chat".into(), tenant: Some(tenant.into()), request: "1".into() };
    let terms = Terms { allow: &table.service(service).allow, scope };
    let mut inspected = Inspected::json(body.to_string().into_bytes(), &route, &terms)?;
    let (mut query, model) = (Query::default(), body["model"].as_str());
    let named = NamedIds { route: &mut route, query: &mut query, body: Some(&mut inspected), model };
    let found = claim(keys, &table, service, &owner(tenant), named)?;
    let sent: Value = serde_json::from_slice(&inspected.for_endpoint(model, None, None).concat()).unwrap();
    Ok((found, sent["input"].clone()))
}

fn input(allow: &[&str], items: &Value) -> Result<(Option<String>, Value), Failure> {
    let (found, sent) = claimed("acme", allow, Some(&keys()), &json!({ "model": "m", "input": items }))?;
    Ok((found.place.map(|place| place.endpoint.to_string()), sent))
}

const STORE: &[&str] = &["store"];

#[test]
fn items_of_ones_own_are_opened_and_pin() {
    let id = |id: &str| sealed("acme", "fra-2", id);
    let items = json!([
        { "role": "user", "content": "q" },
        { "type": "reasoning", "id": id("rs_1"), "summary": [] },
        { "type": "item_reference", "id": id("fc_1") },
        { "type": "function_call_output", "call_id": "call_1", "output": "o" },
        { "type": "mcp_approval_response", "approval_request_id": id("mcpr_1"), "approve": true },
    ]);
    let (endpoint, sent) = input(STORE, &items).unwrap();
    assert_eq!(endpoint.as_deref(), Some("fra-2"));
    let mut expected = items.clone();
    expected[1]["id"] = "rs_1".into();
    expected[2]["id"] = "fc_1".into();
    expected[4]["approval_request_id"] = "mcpr_1".into();
    assert_eq!(sent, expected);
}

#[test]
fn an_item_that_holds_all_goes_along_wherever_the_others_are() {
    let message =
        |endpoint: &str| json!({ "role": "assistant", "id": sealed("acme", endpoint, "msg_1"), "content": "c" });
    let reasoning = json!({ "type": "reasoning", "id": sealed("acme", "fra-1", "rs_1"), "encrypted_content": "e" });
    let (endpoint, sent) = input(STORE, &json!([reasoning, message("fra-2")])).unwrap();
    assert_eq!((endpoint.as_deref(), &sent[0]["id"]), (Some("fra-1"), &json!("rs_1")));
    assert_eq!(sent[1]["id"].as_str().unwrap().len(), 4 + 48);
    let (endpoint, sent) = input(STORE, &json!([message("fra-1"), message("fra-2")])).unwrap();
    assert_eq!(
        (endpoint.as_deref(), &sent[1]["id"]),
        (Some("fra-2"), &json!("msg_1")),
        "the latest item decides the endpoint"
    );
    let other = json!({ "type": "item_reference", "id": sealed("acme", "fra-2", "rs_2") });
    assert_eq!(input(STORE, &json!([reasoning, other])), Err(Failure::IdsApart));
}

#[test]
fn where_nothing_is_stored_ids_pass_and_references_are_refused() {
    let items = json!([{ "type": "reasoning", "id": "rs_1" }, { "role": "assistant", "id": "msg_1", "content": "c" }]);
    let body = json!({ "model": "m", "input": items });
    let (found, sent) = claimed("acme", &[], None, &body).unwrap();
    assert_eq!((found, sent), (IdClaims::default(), items));
    let old = json!([{ "role": "assistant", "id": sealed("acme", "fra-1", "msg_1"), "content": "c" }]);
    let (_, sent) = claimed("acme", &[], None, &json!({ "model": "m", "input": old })).unwrap();
    assert!(sent[0]["id"].as_str().unwrap().len() <= 64, "a sealed id would be too long for hosts");
    for id in ["rs_1".to_owned(), sealed("acme", "fra-1", "rs_1")] {
        let reference = json!({ "model": "m", "input": [{ "type": "item_reference", "id": id }] });
        assert_eq!(claimed("acme", &[], Some(&keys()), &reference).err(), Some(Failure::ItemReference));
    }
    let reference = json!({ "model": "m", "input": [{ "id": sealed("acme", "fra-1", "rs_1") }] });
    assert_eq!(claimed("acme", STORE, None, &reference).err(), Some(Failure::NoStateKey));
}

#[test]
fn a_fine_tuned_model_is_where_it_was_made() {
    let name = sealed("acme", "fra-2", "ft:gpt-4o:acme::1");
    let ask = |tenant: &str, model: &str, input: Value| {
        let (found, _) = claimed(tenant, STORE, Some(&keys()), &json!({ "model": model, "input": input }))?;
        Ok((found.place.map(|place| place.endpoint.to_string()), found.model, found.is_stateful))
    };
    let expected = (Some("fra-2".to_owned()), Some("ft:gpt-4o:acme::1".to_owned()), false);
    assert_eq!(ask("acme", &name, json!("q")), Ok(expected));
    assert_eq!(ask("emca", &name, json!("q")), Err(Failure::ModelNotFound { model: name.clone() }));
    let elsewhere = json!([{ "type": "item_reference", "id": sealed("acme", "fra-1", "rs_1") }]);
    assert_eq!(ask("acme", &name, elsewhere), Err(Failure::IdsApart));
    assert_eq!(ask("acme", "gpt-4o", json!("q")), Ok((None, None, false)));
}

/// An item of this kind, with this id.
fn item(kind: usize, id: &str) -> Value {
    match kind {
        0 => json!({ "type": "item_reference", "id": id }),
        1 => json!({ "type": "reasoning", "id": id, "summary": [] }),
        2 => json!({ "type": "reasoning", "id": id, "summary": [], "encrypted_content": "e" }),
        3 => json!({ "type": "image_generation_call", "id": id, "result": null }),
        4 => json!({ "role": "assistant", "id": id, "content": "c" }),
        5 => json!({ "type": "function_call", "id": id, "call_id": "c", "name": "f", "arguments": "{}" }),
        6 => json!({ "id": id }),
        _ => json!({ "type": "mcp_approval_response", "approval_request_id": id, "approve": true }),
    }
}

#[test]
fn an_id_of_one_tenants_never_reaches_an_endpoint_for_another() {
    let places = ["fra-1", "fra-2"];
    // For each id: the kind of its item, whether it is the sender's own, how it is written (raw, sealed, or sealed and
    // altered), the endpoint that made it, and a number.
    let id = (0..8usize, any::<bool>(), 0..3usize, 0..2usize, 0..3u8);
    let strategy = (proptest::collection::vec(id, 1..6), any::<bool>());
    let (cases, passed) = (Cell::new(0), Cell::new(0));
    TestRunner::new(ProptestConfig::with_cases(4_000))
        .run(&strategy, |(ids, stores)| {
            cases.set(cases.get() + 1);
            let (mut items, mut theirs, mut hard) = (Vec::new(), Vec::new(), Vec::new());
            for (kind, is_mine, written, at, n) in ids {
                let raw = format!("rs_{}{}{n}", if is_mine { "mine" } else { "canary" }, places[at]);
                let tenant = if is_mine { "emca" } else { "acme" };
                let text = match written {
                    0 => raw.clone(),
                    1 => sealed(tenant, places[at], &raw),
                    _ => format!("{}x", sealed(tenant, places[at], &raw)),
                };
                if !is_mine {
                    theirs.extend([raw.clone(), text.clone()]);
                }
                if is_mine && written == 1 && !matches!(kind, 4 | 5 | 7) {
                    hard.push(places[at]);
                }
                items.push(item(kind, &text));
            }
            let allow = if stores { STORE } else { &[] };
            let Ok((found, sent)) = claimed("emca", allow, Some(&keys()), &json!({ "model": "m", "input": items }))
            else {
                return Ok(());
            };
            passed.set(passed.get() + 1);
            let sent = sent.to_string();
            prop_assert!(!sent.contains("bw1"), "a sealed id was sent: {}", sent);
            if stores {
                for foreign in theirs {
                    prop_assert!(!sent.contains(&foreign), "{} in {}", foreign, sent);
                }
                prop_assert!(!sent.contains("rs_mine") || found.place.is_some(), "an id without its place: {}", sent);
            }
            for at in hard {
                prop_assert_eq!(found.place.as_ref().map(|place| place.endpoint.as_str()), Some(at));
            }
            let wrong =
                places.iter().filter(|at| found.place.as_ref().is_some_and(|place| place.endpoint.as_str() != **at));
            for at in wrong.filter(|_| stores) {
                prop_assert!(!sent.contains(&format!("rs_mine{at}")), "{} elsewhere: {}", at, sent);
            }
            Ok(())
        })
        .unwrap();
    println!("inputs tried: {}, sent: {}", cases.get(), passed.get());
    assert!(passed.get() > 200);
}

#[test]
fn a_place_is_the_one_of_its_ids() {
    let table = table(STORE);
    let items = json!([{ "type": "item_reference", "id": sealed("acme", "fra-1", "rs_1") }]);
    let (found, _) = claimed("acme", STORE, Some(&keys()), &json!({ "model": "m", "input": items })).unwrap();
    assert_eq!(found, IdClaims { place: Some(place(&table, "fra", "fra-1")), model: None, is_stateful: true });
}
