//! Tests of plans while a rollout is under way: which arm a session gets, what it is sent, and who helps out.

use bailiwick_rules::bundle::Version;
use bailiwick_rules::geo::CountryCode;
use bailiwick_rules::health::RegionHealth;
use bailiwick_rules::rollout::Arm;
use bailiwick_rules::steer::{Ask, Client, Local, PathClass, steer};
use serde_json::{Value, json};

use super::tests::NOW;
use super::*;
use crate::decide::envelope::PinFault;
use crate::decide::pin::Pin;

/// Two regions, each with two endpoints that have the old model, and a third one with the new model.
fn rules(rollout: Option<Value>) -> Table {
    let endpoint = |name: &str, model: &str| {
        json!({ "url": format!("https://{name}.example/v1"),
        "models": { "large": model, "small": "gemma" } })
    };
    let endpoints = |region: &str| {
        json!({ "a": endpoint(&format!("{region}-a"), "bf16"), "b": endpoint(&format!("{region}-b"), "bf16"),
                "c": endpoint(&format!("{region}-c"), "fp8") })
    };
    let mut rules = json!({
        "version": 1, "revision": 1, "jurisdictions": { "eu": { "include": ["EU"] } },
        "regions": { "fra": { "countries": ["DE"], "endpoints": endpoints("fra") },
                     "par": { "countries": ["FR"], "endpoints": endpoints("par") } },
        "services": {
            "chat": { "hosts": ["chat.example"], "pattern": "active-active", "regions": ["fra", "par"],
                      "residency": [{ "clients": ["eu"], "process_in": ["eu"] }] },
            "other": { "hosts": ["other.example"], "pattern": "active-active", "regions": ["fra"],
                       "residency": [{ "clients": ["eu"], "process_in": ["eu"] }] } },
    });
    if let Some(rollout) = rollout {
        rules["rollouts"] = json!({ "fp8": rollout });
        let rollout = &mut rules["rollouts"]["fp8"];
        rollout["service"] = json!("chat");
        rollout["regions"] = json!(["fra", "par"]);
        rollout["checks"] = json!({ "error_rate": { "max_diff": 0.01 } });
        let other = json!({ "par": digits("1") });
        rules["bundles"] = json!({ "prompts": { "version": digits("0"), "regions": other } });
    }
    Table::compile(rules.to_string().as_bytes()).unwrap_or_else(|faults| panic!("{faults:#?}"))
}

fn with_shares(mut rollout: Value, shares: &Value) -> Value {
    rollout["progress"] = json!({ "shares": shares, "since": "2026-12-01T06:00:00Z" });
    rollout
}

fn of_model(shares: &Value) -> Table {
    rules(Some(with_shares(json!({ "model": "large", "from": "bf16", "to": "fp8-b" }), shares)))
}

fn pairs() -> Value {
    json!({ "endpoints": { "fra": { "from": "a", "to": "c" }, "par": { "from": "a", "to": "c" } } })
}

fn digits(digit: &str) -> String {
    digit.repeat(64)
}

/// A rollout of the bundle to version 2…; Frankfurt has 0…, Paris 1….
fn of_bundle(shares: &Value) -> Table {
    rules(Some(with_shares(json!({ "bundle": "prompts", "to": digits("2") }), shares)))
}

/// The plan of a German client's session.
fn plan(table: &Table, service: &str, model: &str, session: &str) -> Plan {
    plan_of(table, service, model, (session, None))
}

/// The same for a request for which the application chose this version of the bundle.
fn plan_of(table: &Table, service: &str, model: &str, (session, choice): (&str, Option<Choice>)) -> Plan {
    let local = Local::default();
    let conditions = Conditions { health: &[], local: &local, now: NOW };
    let client = Client { country: CountryCode::parse("DE"), ..Client::default() };
    let service = table.service_named(service).unwrap();
    let ask = Ask { service, client, model: Some(model), path_class: PathClass::Inference, needs: None };
    let steering = steer(table, &ask, &conditions);
    let rollout = table.rollout_of(service);
    let (model, needs, affinity) = (Some(model), &Needs::default(), session);
    let request = PlanRequest { rollout, model, needs, conditions, arm: None, choice, affinity };
    Plan::from_steering(table, service, &steering, &request, |_| true).unwrap()
}

/// Region, endpoint, the name of the model that is sent, and the arm, of each target.
fn targets_of(plan: &Plan) -> Vec<(&str, &str, &str, Option<Arm>)> {
    plan.targets()
        .iter()
        .map(|target| {
            (target.region_id().as_str(), target.id().as_str(), target.model().unwrap_or_default(), target.arm())
        })
        .collect()
}

fn sessions() -> impl Iterator<Item = String> {
    (0..400).map(|nth| format!("acme\0session\0{nth}"))
}

#[test]
fn a_model_gets_its_new_name_in_the_new_arm_alone() {
    let table = of_model(&json!({ "fra": 25 }));
    let mut new = 0;
    for session in sessions() {
        let plan = plan(&table, "chat", "large", &session);
        let is_new = plan.targets().iter().any(|target| target.arm() == Some(Arm::New));
        new += usize::from(is_new);
        for target in plan.targets() {
            let (arm, name) = match (target.region_id().as_str(), target.id().as_str()) {
                // It calls the model by another name than that which is replaced.
                (_, "c") => (None, "fp8"),
                ("fra", _) if is_new => (Some(Arm::New), "fp8-b"),
                ("fra", _) => (Some(Arm::Old), "bf16"),
                _ => (None, "bf16"),
            };
            assert_eq!((target.arm(), target.model()), (arm, Some(name)), "{:?}", targets_of(&plan));
            assert_eq!(target.is_trial(), arm == Some(Arm::New));
            // Names in bodies and answers agree with it.
            assert_eq!(target.call("large"), Some(name));
            assert_eq!(target.call("small"), Some("gemma"));
        }
    }
    assert!((60..140).contains(&new), "{new} of 400 at 25 %");
}

#[test]
fn a_retry_in_another_region_takes_the_arm_of_that_region() {
    let table = of_model(&json!({ "fra": 100, "par": 25 }));
    let mut seen = [0, 0];
    for session in sessions() {
        let plan = plan(&table, "chat", "large", &session);
        let arm_in = |name: &str| {
            let found =
                plan.targets().iter().find(|target| target.region_id().as_str() == name && target.id().as_str() == "a");
            found.unwrap().arm().unwrap()
        };
        assert_eq!(arm_in("fra"), Arm::New);
        seen[usize::from(arm_in("par") == Arm::New)] += 1;
    }
    assert!(seen[0] > 250 && seen[1] > 60, "{seen:?}");
    let at_fra = plan(&table, "chat", "large", "x");
    let in_fra = at_fra.targets().iter().filter(|target| target.region_id().as_str() == "fra");
    assert!(in_fra.clone().count() == 3 && !in_fra.into_iter().any(Target::is_trial), "nobody has the old arm there");
}

#[test]
fn the_new_endpoint_takes_the_place_of_the_old_one_which_helps_out() {
    let before = rules(None);
    let (none, half) = (rules(Some(pairs())), rules(Some(with_shares(pairs(), &json!({ "fra": 50 })))));
    let mut new = 0;
    for session in sessions() {
        let old = plan(&none, "chat", "large", &session);
        assert!(old.targets().iter().all(|target| target.id().as_str() != "c" && target.arm().is_none()));
        assert!(old.skipped().iter().all(|skipped| skipped.why == Skip::Arm) && old.skipped().len() == 2);
        let now = plan(&half, "chat", "large", &session);
        let (then, now) = (targets_of(&old), targets_of(&now));
        let in_fra = |plan: &[(&str, &str, &str, Option<Arm>)]| {
            plan.iter().filter(|target| target.0 == "fra").map(|target| target.1.to_owned()).collect::<Vec<_>>()
        };
        if now.iter().any(|target| target.1 == "c") {
            new += 1;
            let mut expected: Vec<String> =
                in_fra(&then).iter().map(|name| if name == "a" { "c" } else { name }.to_owned()).collect();
            expected.push("a".to_owned());
            assert_eq!(in_fra(&now), expected, "{then:?} {now:?}");
        } else {
            assert_eq!(in_fra(&now), in_fra(&then));
        }
        for (region, endpoint, model, arm) in now {
            let expected = match (region, endpoint) {
                ("fra", "c") => (Some(Arm::New), "fp8"),
                ("fra", "a") => (Some(Arm::Old), "bf16"),
                _ => (None, "bf16"),
            };
            assert_eq!((arm, model), expected, "{region}/{endpoint}");
        }
    }
    assert!((150..250).contains(&new), "{new} of 400 at 50 %");
    let all = targets_of(&plan(&before, "chat", "large", "x")).len();
    assert_eq!(all, 6, "without a rollout all endpoints of both regions are asked");
}

#[test]
fn the_old_arm_is_not_judged_by_sessions_that_failed_at_the_new_endpoint() {
    let table = rules(Some(with_shares(pairs(), &json!({ "fra": 50 }))));
    let mut helped = 0;
    for session in sessions() {
        let plan = plan(&table, "chat", "large", &session);
        let is_new = plan.targets().iter().any(|target| target.id().as_str() == "c");
        helped += usize::from(is_new);
        for target in plan.targets() {
            let expected = match (target.region_id().as_str(), target.id().as_str()) {
                ("fra", "c") => true,
                ("fra", "a") => !is_new,
                _ => false,
            };
            assert_eq!(target.is_judged(), expected, "{:?} {}", targets_of(&plan), target.id());
        }
    }
    assert!((150..250).contains(&helped), "{helped} of 400 at 50 %");
    // Where both arms are at the same endpoints, all of them are judged.
    let table = of_model(&json!({ "fra": 50 }));
    for session in sessions().take(50) {
        let plan = plan(&table, "chat", "large", &session);
        assert!(plan.targets().iter().all(|target| target.is_judged() == target.arm().is_some()));
    }
}

#[test]
fn an_operator_tries_an_arm_wherever_the_rollout_stands() {
    let service = |table: &Table| table.service_named("chat").unwrap();
    let client = Client { country: CountryCode::parse("DE"), ..Client::default() };
    let tried_in = |table: &Table, region: &str, arm: Option<Arm>, model: &str, health: &[RegionHealth]| {
        let ask =
            Ask { service: service(table), client, model: Some(model), path_class: PathClass::Inference, needs: None };
        let (local, needs) = (Local::default(), Needs::default());
        let conditions = Conditions { health, local: &local, now: NOW };
        let steering = steer(table, &ask, &conditions);
        let rollout = table.rollout_of(ask.service);
        let (choice, affinity) = (None, "x");
        let request = PlanRequest { rollout, model: ask.model, needs: &needs, conditions, arm: None, choice, affinity };
        let pin = Pin { region: table.region_named(region).unwrap(), arm };
        Plan::in_region(table, &steering, &request, |_| true, pin)
    };
    let tried = |table: &Table, region: &str, arm, model: &str| tried_in(table, region, arm, model, &[]);
    for shares in [json!({}), json!({ "fra": 1 }), json!({ "fra": 100 })] {
        let table = of_model(&shares);
        for region in ["fra", "par"] {
            let plan = tried(&table, region, Some(Arm::New), "large").unwrap();
            let first = &plan.targets()[0];
            assert_eq!(
                (first.region_id().as_str(), first.model(), first.arm()),
                (region, Some("fp8-b"), Some(Arm::New))
            );
            let is_whole = shares[region] == 100;
            assert_eq!(first.is_trial(), !is_whole, "its failures take nothing from the old arm");
            let plan = tried(&table, region, Some(Arm::Old), "large").unwrap();
            assert!(plan.targets().iter().all(|target| target.model() == Some("bf16")), "{:?}", targets_of(&plan));
        }
        let fault = Err(Failure::BadPin { wrong: PinFault::Arm });
        assert_eq!(tried(&table, "fra", Some(Arm::New), "small").map(drop), fault.clone());
        assert!(tried(&table, "fra", None, "small").is_ok());
        assert_eq!(tried(&rules(None), "fra", Some(Arm::New), "large").map(drop), fault);
        let fault = Err(Failure::BadPin { wrong: PinFault::Bundle });
        assert_eq!(tried(&of_bundle(&shares), "fra", Some(Arm::New), "large").map(drop), fault);
        assert!(tried(&of_bundle(&shares), "fra", None, "large").is_ok());
        let table = rules(Some(with_shares(pairs(), &shares)));
        // Of endpoints beside each other, also the new one that is down while the old one is up.
        for is_down in [false, true] {
            let new = if is_down { Status::Down } else { Status::Up };
            let endpoints = vec![Status::Up, Status::Up, new];
            let health = vec![RegionHealth { endpoints, ..RegionHealth::default() }; 2];
            let plan = tried_in(&table, "par", Some(Arm::New), "large", &health).unwrap();
            assert_eq!(plan.targets().iter().map(|target| target.id().as_str()).collect::<Vec<_>>(), ["c"]);
        }
    }
}

#[test]
fn the_version_of_a_bundle_decides_the_arm_of_each_region() {
    let targets_by = |table: &Table, digit: Option<&str>, by: Option<&str>| {
        let region = by.map(|name| table.region_named(name).unwrap());
        let choice = digit.map(|digit| Choice { version: Version::parse(&digits(digit)).unwrap(), region });
        // Whatever the session, as the application chose.
        let plans = sessions().take(50).map(|session| plan_of(table, "chat", "large", (&session, choice)));
        let mut arms: Vec<_> = plans
            .flat_map(|plan| {
                let of = |target: &Target| {
                    (target.region_id().to_string(), target.arm(), target.is_trial(), target.is_judged())
                };
                plan.targets().iter().map(of).collect::<Vec<_>>()
            })
            .collect();
        arms.sort();
        arms.dedup();
        arms
    };
    let (fra, par) = ("fra".to_owned(), "par".to_owned());
    let apart = |region: &String| (region.clone(), None, false, false);
    let targets_of = |table: &Table, digit| targets_by(table, digit, None);
    let old = |region: &String| (region.clone(), Some(Arm::Old), false, false);
    let new = |region: &String, is_trial| (region.clone(), Some(Arm::New), is_trial, false);
    let judged = |(region, arm, is_trial, _): (String, Option<Arm>, bool, bool)| (region, arm, is_trial, true);
    let table = of_bundle(&json!({ "fra": 100, "par": 5 }));
    assert_eq!(
        targets_of(&table, Some("2")),
        [new(&fra, false), new(&par, true)],
        "at 5 % too, as the application chose it"
    );
    assert_eq!(targets_of(&table, Some("0")), [old(&fra), apart(&par)], "Paris has another version");
    assert_eq!(targets_of(&table, Some("1")), [apart(&fra), old(&par)]);
    // Only the region by whose share it was chosen is judged.
    assert_eq!(targets_by(&table, Some("2"), Some("fra")), [judged(new(&fra, false)), new(&par, true)]);
    assert_eq!(targets_by(&table, Some("2"), Some("par")), [new(&fra, false), judged(new(&par, true))]);
    assert_eq!(targets_by(&table, Some("0"), Some("fra")), [judged(old(&fra)), apart(&par)]);
    assert_eq!(targets_by(&table, Some("0"), Some("par")), [old(&fra), apart(&par)]);
    for other in [None, Some("3")] {
        assert_eq!(targets_of(&table, other), [apart(&fra), apart(&par)]);
    }
    let begun = of_bundle(&json!({ "fra": 5 }));
    assert_eq!(targets_of(&begun, Some("2")), [new(&fra, true), apart(&par)], "Paris hasn't begun");
    assert_eq!(targets_of(&of_bundle(&json!({})), Some("2")), [apart(&fra), apart(&par)], "it was rolled back");
    // Nothing else differs from a plan without the rollout.
    let before = rules(None);
    let choice = Version::parse(&digits("2")).map(|version| Choice { version, region: before.region_named("fra") });
    for session in sessions().take(50) {
        let places = |plan: &Plan| plan.targets().iter().map(Target::place).collect::<Vec<_>>();
        for (service, model) in [("chat", "large"), ("chat", "small"), ("other", "large")] {
            let rolled_out = plan_of(&table, service, model, (&session, choice));
            assert_eq!(places(&rolled_out), places(&plan(&before, service, model, &session)));
            assert!(service == "chat" || rolled_out.targets().iter().all(|target| target.arm().is_none()));
        }
    }
}

#[test]
fn other_services_and_models_are_left_alone() {
    let table = rules(Some(with_shares(pairs(), &json!({ "fra": 100, "par": 100 }))));
    let other = plan(&table, "other", "large", "x");
    assert!(other.targets().iter().all(|target| target.id().as_str() != "c" && target.arm().is_none()));
    let table = of_model(&json!({ "fra": 100, "par": 100 }));
    let before = rules(None);
    for session in sessions().take(50) {
        for (service, model) in [("other", "large"), ("chat", "small")] {
            assert_eq!(
                targets_of(&plan(&table, service, model, &session)),
                targets_of(&plan(&before, service, model, &session))
            );
        }
    }
}

#[test]
fn state_is_made_at_the_old_endpoint_and_found_where_it_is() {
    let table = rules(Some(with_shares(pairs(), &json!({ "fra": 50 }))));
    let service = table.service_named("chat").unwrap();
    let client = Client { country: CountryCode::parse("DE"), ..Client::default() };
    let ask = Ask { service, client, model: None, path_class: PathClass::Inference, needs: None };
    let (local, needs) = (Local::default(), Needs::default());
    let conditions = Conditions { health: &[], local: &local, now: NOW };
    let steering = steer(&table, &ask, &conditions);
    for session in sessions() {
        assert_ne!(home(&table, &ask, &session, |_| true).unwrap().endpoint.as_str(), "c");
        for name in ["a", "b", "c"] {
            let place =
                Place { region: table.region_named("fra").unwrap(), endpoint: EndpointId::parse(name).unwrap() };
            let rollout = table.rollout_of(service);
            let request = PlanRequest {
                rollout,
                model: None,
                needs: &needs,
                conditions,
                arm: None,
                choice: None,
                affinity: &session,
            };
            let plan = Plan::pinned(&table, &steering, &request, |_| true, &place).unwrap();
            assert_eq!(plan.targets().iter().map(|target| target.id().as_str()).collect::<Vec<_>>(), [name]);
        }
    }
}
