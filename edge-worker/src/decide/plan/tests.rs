//! Tests of plans: which endpoints a plan has, in which order, and why others are left out. `german_plan` and
//! `american_plan` make plans for the tests of other modules.

use bailiwick_rules::geo::CountryCode;
use bailiwick_rules::health::{Forced, RegionHealth};
use bailiwick_rules::steer::{Ask, Client, Local, PathClass, steer};
use bailiwick_rules::time::Timestamp;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::*;
use crate::decide::hash::hash;

pub(crate) const RULES: &str = r#"{
  "version": 1, "revision": 1,
  "jurisdictions": { "eu": { "include": ["EU"] }, "us": { "countries": ["US"] } },
  "regions": {
    "fra": { "countries": ["DE"], "endpoints": {
      "fra-1": { "url": "https://fra1.example.net/v1", "secret": "FRA_KEY", "weight": 3,
                 "models": { "chat": "llama" } },
      "fra-2": { "url": "https://fra2.example.net/v1", "secret": "FRA_KEY", "models": { "chat": "llama" } },
      "fra-3": { "url": "https://fra3.example.net/v1", "priority": 1, "models": { "chat": "llama-small" } } } },
    "par": { "countries": ["FR"], "standby": true, "endpoints": {
      "azure": { "url": "https://acme.openai.azure.com", "style": "azure", "api_version": "2024-10-21",
                 "secret": "AZURE_KEY", "models": { "chat": "gpt-4o", "embed": "ada" } } } },
    "iad": { "countries": ["US"], "endpoints": { "iad-1": { "url": "https://iad1.example.net/v1" } } }
  },
  "services": { "chat": { "hosts": ["chat.example.com"], "pattern": "active-active",
    "regions": ["fra", "par", "iad"],
    "residency": [ { "clients": ["eu"], "process_in": ["eu"] }, { "clients": ["us"], "process_in": ["*"] } ] } }
}"#;

pub(crate) const NOW: Timestamp = Timestamp(1_000_000);

/// A request, and the conditions under which it is planned.
struct Case<'a> {
    country: &'a str,
    model: Option<&'a str>,
    health: &'a [RegionHealth],
    local: Local,
    affinity: &'a str,
    missing: &'a str,
}

impl Default for Case<'_> {
    fn default() -> Self {
        Self { country: "DE", model: Some("chat"), health: &[], local: Local::default(), affinity: "k", missing: "" }
    }
}

fn plan(case: &Case<'_>) -> Result<Plan, Failure> {
    plan_by(RULES, case, &Needs::default())
}

fn plan_by(rules: &str, case: &Case<'_>, needs: &Needs) -> Result<Plan, Failure> {
    let table = Table::compile(rules.as_bytes()).unwrap();
    let service = table.service_named("chat").unwrap();
    let client = Client { country: CountryCode::parse(case.country), ..Client::default() };
    let conditions = Conditions { health: case.health, local: &case.local, now: NOW };
    let ask = Ask { service, client, model: case.model, path_class: PathClass::Inference, needs: None };
    let steering = steer(&table, &ask, &conditions);
    let rollout = table.rollout_of(service);
    let request =
        PlanRequest { rollout, model: case.model, needs, conditions, arm: None, choice: None, affinity: case.affinity };
    Plan::from_steering(&table, service, &steering, &request, |name| name != case.missing)
}

fn names(plan: &Plan) -> Vec<&str> {
    plan.targets().iter().map(|target| target.id().as_str()).collect()
}

/// A plan of every German endpoint, for tests of the attempt machine.
pub(crate) fn german_plan() -> Plan {
    plan(&Case::default()).unwrap()
}

/// A plan of the only American endpoint, which has no map of models and so accepts any model.
pub(crate) fn american_plan(model: &str) -> Plan {
    plan(&Case { country: "US", model: Some(model), ..Case::default() }).unwrap()
}

#[test]
fn priority_goes_before_hash_and_standby_regions_come_last() {
    let plan = german_plan();
    let names = names(&plan);
    assert_eq!(names[2..], ["fra-3", "azure"]);
    assert!(names[..2].contains(&"fra-1") && names[..2].contains(&"fra-2"));
    let azure = &plan.targets()[3];
    assert_eq!((azure.model(), azure.secret(), azure.jurisdiction()), (Some("gpt-4o"), Some("AZURE_KEY"), "eu"));
    assert_eq!(azure.region_id().as_str(), "par");
}

#[test]
fn keys_are_spread_by_weight_and_stay_at_their_endpoint() {
    let first = |key: &str| names(&plan(&Case { affinity: key, ..Case::default() }).unwrap())[0].to_owned();
    let keys: Vec<String> = (0..1000).map(|key| format!("tenant/{key}")).collect();
    let heavy = keys.iter().filter(|key| first(key) == "fra-1").count();
    assert!((700..800).contains(&heavy), "weight 3 of 4 gets {heavy} of 1000");
    assert_eq!(first("same"), first("same"));
    // The hash must be the same on every machine and in Wasm, so one value is checked.
    assert_eq!(hash(&[b"a", b"b"]), 0xb912_458b_53ec_5105);
}

#[test]
fn an_endpoint_without_its_secret_is_skipped() {
    let plan = plan(&Case { missing: "FRA_KEY", ..Case::default() }).unwrap();
    assert_eq!(names(&plan), ["fra-3", "azure"]);
    assert!(plan.skipped().iter().all(|skipped| skipped.why == Skip::NoSecret) && plan.skipped().len() == 2);
}

#[test]
fn endpoints_of_other_engines_are_skipped_and_if_all_are_the_field_is_named() {
    let rules = RULES.replace("\"weight\": 3,", "\"weight\": 3, \"engine\": \"vllm\",");
    let body = |fields: &str| {
        let route = crate::decide::route::Route::parse("POST", "/v1/chat/completions").unwrap();
        let text = format!("{{\"model\":\"chat\",{fields}}}");
        let body =
            crate::decide::body::Inspected::json(text.into_bytes(), &route, &crate::decide::body::tests::terms(&[]))
                .unwrap();
        body.needs().clone()
    };
    let guided = plan_by(&rules, &Case::default(), &body("\"guided_regex\":\"x\"")).unwrap();
    assert_eq!(names(&guided), ["fra-1"]);
    assert!(guided.skipped().iter().all(|skipped| skipped.why == Skip::Engine) && guided.skipped().len() == 3);
    assert_eq!(plan_by(&rules, &Case::default(), &body("\"top_k\":4")).unwrap().targets().len(), 4);
    let none = plan_by(&rules, &Case::default(), &body("\"ebnf\":\"x\"")).unwrap_err();
    assert_eq!(none, Failure::UnknownField { field: "ebnf".into(), odd: FieldFault::Engine });
    let unnamed = plan_by(RULES, &Case::default(), &body("\"guided_regex\":\"x\"")).unwrap_err();
    assert_eq!(unnamed.code(), "unknown_field");
}

#[test]
fn a_model_that_names_a_route_needs_a_map_that_knows_it() {
    let american = |model| plan(&Case { country: "US", model: Some(model), ..Case::default() }).map(|_| ());
    assert_eq!(american("gpt-4o"), Ok(()));
    assert!(matches!(american("gpt-4o:online"), Err(Failure::ModelNotFound { .. })));
    let rules =
        RULES.replace("iad1.example.net/v1\"", "iad1.example.net/v1\", \"models\": { \"gpt-4o:online\": \"m\" }");
    let case = Case { country: "US", model: Some("gpt-4o:online"), ..Case::default() };
    assert_eq!(plan_by(&rules, &case, &Needs::default()).unwrap().targets()[0].model(), Some("m"));
}

/// The needs of a body that names these models below its top level.
fn naming(models: &[&str]) -> Needs {
    let named = |name: &&str| NamedModel { name: (*name).to_owned(), field: format!("/tools/0/{name}") };
    Needs { models: models.iter().map(named).collect(), ..Needs::default() }
}

#[test]
fn a_model_below_the_top_level_is_judged_like_the_requests_own() {
    let go = |country, model, inner: &[&str]| {
        plan_by(RULES, &Case { country, model: Some(model), ..Case::default() }, &naming(inner))
    };
    let lacking =
        |name: &str| Some(Failure::InnerModelNotFound { model: name.into(), field: format!("/tools/0/{name}") });
    assert_eq!(names(&go("DE", "chat", &["chat"]).unwrap()).len(), 4);
    let plan = go("DE", "chat", &["embed"]).unwrap();
    assert_eq!(names(&plan), ["azure"], "only the map of azure has both models");
    assert!(plan.skipped().iter().all(|skipped| skipped.why == Skip::NoModel) && plan.skipped().len() == 3);
    assert_eq!(go("DE", "chat", &["embed", "gpt-us"]).err(), lacking("gpt-us"));
    assert_eq!(go("DE", "gpt-us", &["gpt-us"]).err(), Some(Failure::ModelNotFound { model: "gpt-us".into() }));
    assert_eq!(
        names(&go("US", "gpt-9", &["dall-e"]).unwrap()),
        ["iad-1"],
        "an endpoint without a map accepts any model"
    );
    for routing in ["gpt-4o:online", "us.anthropic.claude", "@preset/x"] {
        assert_eq!(go("US", "gpt-9", &[routing]).err(), lacking(routing));
    }
}

#[test]
fn models_of_other_tenants_are_refused_below_the_top_level_too() {
    let result = |country, needs: &Needs, is_sole: bool| {
        let model = if country == "US" { "gpt-9" } else { "chat" };
        let mut plan = plan_by(RULES, &Case { country, model: Some(model), ..Case::default() }, needs).unwrap();
        plan.keep_named_apart(needs, true, |_| is_sole).map(|()| names(&plan).len())
    };
    let tuned = naming(&["ft:gpt-4o:acme::1"]);
    let field = "/tools/0/ft:gpt-4o:acme::1".to_owned();
    let lacking = Failure::InnerModelNotFound { model: "ft:gpt-4o:acme::1".into(), field };
    assert_eq!(result("US", &tuned, false), Err(lacking));
    assert_eq!(result("US", &tuned, true), Ok(1));
    assert_eq!(result("DE", &naming(&["chat"]), false), Ok(4));
}

#[test]
fn an_adapter_of_sglang_belongs_to_a_tenant_if_the_endpoint_has_no_map() {
    let rules = RULES.replace("iad1.example.net/v1\"", "iad1.example.net/v1\", \"engine\": \"sglang\"");
    let plan_of = |rules: &str, model| {
        let case = Case { country: "US", model: Some(model), ..Case::default() };
        plan_by(rules, &case, &Needs::default()).unwrap()
    };
    let result = |rules: &str, model, is_sole: bool| plan_of(rules, model).keep_apart(model, true, |_| is_sole);
    assert_eq!(result(&rules, "llama", false), Ok(()));
    assert!(matches!(result(&rules, "llama:acme", false), Err(Failure::ModelNotFound { .. })));
    assert_eq!(result(&rules, "llama:acme", true), Ok(()));
    assert_eq!(result(RULES, "llama3:8b", false), Ok(()), "for other engines the part after the colon is a size");
    let inner = naming(&["llama:acme"]);
    let named = |has_tenant| plan_of(&rules, "llama").keep_named_apart(&inner, has_tenant, |_| false);
    assert!(named(true).is_err());
    assert_eq!(named(false), Ok(()), "without tenants an adapter belongs to no tenant");
}

#[test]
fn a_down_or_resting_endpoint_is_skipped_while_its_region_has_others() {
    let fra = |statuses: [Status; 3]| {
        let mut health = vec![RegionHealth::default(); 3];
        health[0].endpoints = statuses.to_vec();
        health
    };
    let some = fra([Status::Up, Status::Down, Status::Unknown]);
    let one_down = plan(&Case { health: &some, ..Case::default() }).unwrap();
    assert_eq!(names(&one_down), ["fra-1", "fra-3", "azure"]);
    assert_eq!(one_down.skipped()[0].why, Skip::Down);

    let cooling = |name: &str, model: Option<&str>| Cooling {
        region: RegionIndex(0),
        endpoint: EndpointId::parse(name).unwrap(),
        model: model.map(str::to_owned),
        until: Timestamp(NOW.0 + 1),
    };
    let local = Local { cooling: vec![cooling("fra-1", Some("chat")), cooling("fra-2", Some("other"))] };
    let resting = plan(&Case { local, ..Case::default() }).unwrap();
    assert_eq!(names(&resting), ["fra-2", "fra-3", "azure"]);
    let mut down_and_up = fra([Status::Down; 3]);
    down_and_up[2].endpoints = vec![Status::Down];
    let revived = plan(&Case { health: &down_and_up, ..Case::default() }).unwrap();
    assert_eq!(revived.targets().len(), 4, "a fence that is all down is tried");
}

#[test]
fn forced_endpoints_are_tried_or_skipped_whatever_their_probes_say() {
    let forced = |statuses: [Option<Status>; 3], probed: [Status; 3]| {
        let until = Timestamp(NOW.0 + 1);
        let one = |status| Forced { status, until, reason: "drill".to_owned() };
        let mut health = vec![RegionHealth::default(); 3];
        health[0].endpoints = probed.to_vec();
        health[0].forced_endpoints = statuses.map(|status| status.map(one)).to_vec();
        health
    };
    let (up, down) = (Some(Status::Up), Some(Status::Down));
    let drained = forced([None, down, None], [Status::Down, Status::Up, Status::Down]);
    let drained = plan(&Case { health: &drained, ..Case::default() }).unwrap();
    assert_eq!(names(&drained), ["azure"], "a drained endpoint isn't asked even if the others are down");
    let all_down = |mut health: Vec<RegionHealth>| {
        health[2].endpoints = vec![Status::Down];
        health[1].probed = Status::Down;
        health
    };
    let revived = all_down(forced([None, down, None], [Status::Down, Status::Up, Status::Down]));
    let revived = plan(&Case { health: &revived, ..Case::default() }).unwrap();
    assert_eq!(names(&revived), ["fra-1", "fra-3", "azure"]);
    assert_eq!((revived.skipped()[0].endpoint.as_str(), revived.skipped()[0].why), ("fra-2", Skip::Forced));
    let up = forced([up, None, None], [Status::Down, Status::Down, Status::Up]);
    assert_eq!(names(&plan(&Case { health: &up, ..Case::default() }).unwrap()), ["fra-1", "fra-3", "azure"]);

    let table = Table::compile(RULES.as_bytes()).unwrap();
    let health = forced([down, None, None], [Status::Up; 3]);
    let (local, service) = (Local::default(), table.service_named("chat").unwrap());
    let conditions = Conditions { health: &health, local: &local, now: NOW };
    let client = Client { country: CountryCode::parse("DE"), ..Client::default() };
    let steering = steer(
        &table,
        &Ask { service, client, model: None, path_class: PathClass::Inference, needs: None },
        &conditions,
    );
    let needs = Needs::default();
    let request =
        PlanRequest { rollout: None, model: None, needs: &needs, conditions, arm: None, choice: None, affinity: "" };
    let pinned = |name: &str| {
        let place = Place { region: RegionIndex(0), endpoint: EndpointId::parse(name).unwrap() };
        Plan::pinned(&table, &steering, &request, |_| true, &place).map(|plan| plan.targets().len())
    };
    assert_eq!(
        pinned("fra-1").unwrap_err(),
        Failure::RegionUnavailable,
        "a request for state at a drained endpoint fails"
    );
    assert_eq!(pinned("fra-2").unwrap(), 1);
}

#[test]
fn an_endpoint_with_a_map_refuses_other_models_and_without_a_map_accepts_all() {
    assert_eq!(
        plan(&Case { model: Some("gpt-9"), ..Case::default() }).unwrap_err(),
        Failure::ModelNotFound { model: "gpt-9".into() }
    );
    let american = plan(&Case { model: Some("gpt-9"), country: "US", ..Case::default() }).unwrap();
    assert_eq!(names(&american), ["iad-1"]);
    assert_eq!((american.targets()[0].model(), american.targets()[0].jurisdiction()), (Some("gpt-9"), "*"));
    let embed = plan(&Case { model: Some("embed"), ..Case::default() }).unwrap();
    assert_eq!(names(&embed), ["azure"]);
}

#[test]
fn an_empty_fence_is_denied() {
    assert_eq!(plan(&Case { country: "CH", ..Case::default() }).unwrap_err(), Failure::ResidencyDenied);
    assert_eq!(plan(&Case { country: "??", model: None, ..Case::default() }).unwrap_err(), Failure::ResidencyDenied);
}

/// The endpoint for a request about state. With `place`, the state is at this region and endpoint. Without it, state is
/// created.
fn state_case(
    country: &str,
    statuses: &[Status],
    place: Option<(&str, &str)>,
    model: Option<&str>,
) -> Result<String, Failure> {
    let table = Table::compile(RULES.as_bytes()).unwrap();
    let client = Client { country: CountryCode::parse(country), ..Client::default() };
    let service = table.service_named("chat").unwrap();
    let ask = Ask { service, client, model, path_class: PathClass::Inference, needs: None };
    let region = |status: &Status| RegionHealth { probed: *status, ..RegionHealth::default() };
    let health: Vec<RegionHealth> = statuses.iter().map(region).collect();
    let local = Local {
        cooling: vec![Cooling {
            region: RegionIndex(0),
            endpoint: EndpointId::parse("fra-1").unwrap(),
            model: None,
            until: Timestamp(NOW.0 + 1),
        }],
    };
    let conditions = Conditions { health: &health, local: &local, now: NOW };
    let place = match place {
        None => home(&table, &ask, "chat/acme", |_| true)?,
        Some((region, endpoint)) => {
            Place { region: table.region_named(region).unwrap(), endpoint: EndpointId::parse(endpoint).unwrap() }
        }
    };
    let request = PlanRequest {
        rollout: None,
        model,
        needs: &Needs::default(),
        conditions,
        arm: None,
        choice: None,
        affinity: "",
    };
    let plan = Plan::pinned(&table, &steer(&table, &ask, &conditions), &request, |_| true, &place)?;
    assert_eq!(plan.targets().len(), 1);
    Ok(plan.targets()[0].id().to_string())
}

#[test]
fn state_stays_at_its_endpoint_inside_the_fence() {
    let at = |country: &str, place| state_case(country, &[], Some(place), None);
    assert_eq!(at("DE", ("fra", "fra-1")), Ok("fra-1".into()), "state is asked for even if its endpoint rests");
    assert_eq!(at("DE", ("par", "azure")), Ok("azure".into()));
    assert_eq!(at("DE", ("iad", "iad-1")), Err(Failure::ResidencyDenied));
    assert_eq!(at("CH", ("fra", "fra-1")), Err(Failure::ResidencyDenied));
    assert_eq!(at("US", ("iad", "iad-1")), Ok("iad-1".into()));
    let with = |model| state_case("DE", &[], Some(("fra", "fra-2")), Some(model));
    assert_eq!(
        (with("chat"), with("embed")),
        (Ok("fra-2".into()), Err(Failure::ModelNotFound { model: "embed".into() }))
    );
}

#[test]
fn state_is_created_at_one_endpoint_whatever_the_health() {
    // By name of region: fra, iad, par.
    use Status::{Down, Up};
    let home = state_case("DE", &[Up, Up, Up], None, None).unwrap();
    assert!(
        ["fra-1", "fra-2"].contains(&home.as_str()),
        "the first region in the rules, and an endpoint of the first priority there: {home}"
    );
    assert_eq!(state_case("AT", &[Up, Up, Up], None, None), Ok(home));
    assert_eq!(state_case("DE", &[Down, Up, Up], None, None), Err(Failure::RegionUnavailable), "never elsewhere");
    assert_eq!(state_case("DE", &[Up, Up, Up], None, Some("embed")), Ok("azure".into()));
    assert_eq!(state_case("CH", &[], None, None), Err(Failure::ResidencyDenied));
    assert_eq!(state_case("DE", &[], None, Some("x")), Err(Failure::ModelNotFound { model: "x".into() }));
}

#[test]
fn the_models_are_those_of_all_maps_unless_an_endpoint_has_no_map() {
    let table = Table::compile(RULES.as_bytes()).unwrap();
    let of = |country: &str| {
        let client = Client { country: CountryCode::parse(country), ..Client::default() };
        let service = table.service_named("chat").unwrap();
        let ask = Ask { service, client, model: None, path_class: PathClass::Inference, needs: None };
        let local = Local::default();
        models(&table, &steer(&table, &ask, &Conditions { health: &[], local: &local, now: NOW }))
    };
    assert_eq!(of("DE"), Some(vec!["chat".to_owned(), "embed".to_owned()]));
    assert_eq!(of("US"), None);
}

#[test]
fn every_target_is_in_the_fence_and_occurs_once() {
    let status = || prop_oneof![Just(Status::Up), Just(Status::Down), Just(Status::Unknown)];
    let region = (status(), proptest::collection::vec(status(), 0..4));
    let strategy = (
        proptest::sample::select(vec!["DE", "US", "CH", "??"]),
        proptest::sample::select(vec![None, Some("chat"), Some("embed"), Some("gpt-9")]),
        proptest::collection::vec(region, 3),
        proptest::collection::vec((0..3u32, proptest::sample::select(vec!["fra-1", "fra-2", "azure", "iad-1"])), 0..4),
        proptest::sample::select(vec!["", "FRA_KEY", "AZURE_KEY"]),
        any::<String>(),
    );
    let cases = std::cell::Cell::new(0u32);
    TestRunner::new(ProptestConfig::with_cases(2_000))
        .run(&strategy, |(country, model, regions, cooling, missing, affinity)| {
            cases.set(cases.get() + 1);
            let health = regions.into_iter().map(|(probed, endpoints)| RegionHealth {
                probed,
                endpoints,
                ..RegionHealth::default()
            });
            let health: Vec<RegionHealth> = health.collect();
            let cooling = cooling.into_iter().map(|(region, name)| Cooling {
                region: RegionIndex(region),
                endpoint: EndpointId::parse(name).unwrap(),
                model: None,
                until: Timestamp(NOW.0 + 1),
            });
            let local = Local { cooling: cooling.collect() };
            let case = Case { country, model, health: &health, local, affinity: &affinity, missing };
            let Ok(plan) = plan(&case) else { return Ok(()) };
            let allowed: &[&str] = if country == "DE" { &["fra", "par"] } else { &["fra", "par", "iad"] };
            let mut seen = BTreeSet::new();
            for target in plan.targets() {
                prop_assert!(allowed.contains(&target.region_id().as_str()), "{} is outside", target.region_id());
                prop_assert!(seen.insert((target.region_id().clone(), target.id().clone())), "twice");
                prop_assert!(target.secret() != Some(missing));
            }
            for skipped in plan.skipped() {
                prop_assert!(seen.insert((skipped.region.clone(), skipped.endpoint.clone())), "skipped, yet planned");
            }
            Ok(())
        })
        .unwrap();
    println!("plans made: {}", cases.get());
}

#[test]
fn each_endpoint_gets_the_service_tier_in_its_own_form() {
    let rules = RULES
        .replace("\"weight\": 3,", "\"weight\": 3, \"priority_as\": \"vllm\",")
        .replace("\"priority\": 1,", "\"priority\": 1, \"priority_as\": \"llm-d\",")
        .replace("\"style\": \"azure\",", "\"style\": \"azure\", \"priority_as\": \"openai\",");
    let mut plan = plan_by(&rules, &Case::default(), &Needs::default()).unwrap();
    assert!(
        plan.targets().iter().all(|target| target.priority().is_none()),
        "without tiers the client's priority stays"
    );
    let (name, tier) = (TierId::parse("batch").unwrap(), ServiceTier { rank: 9, refuse_at: None, order: None });
    plan.set_tier(Some((&name, &tier)));
    let reported: std::collections::BTreeMap<_, _> = plan
        .targets()
        .iter()
        .map(|target| (target.id().as_str(), (target.priority(), target.objective().map(TierId::as_str))))
        .collect();
    assert_eq!(reported["fra-1"], (Some(Priority::Vllm(9)), None));
    assert_eq!(reported["fra-2"], (Some(Priority::Absent), None));
    assert_eq!(reported["fra-3"], (Some(Priority::Absent), Some("batch")));
    assert_eq!(reported["azure"], (Some(Priority::OpenAi(9)), None));
    plan.set_tier(None);
    assert!(plan.targets().iter().all(|target| target.priority() == Some(Priority::Absent)));
}

#[test]
fn an_endpoint_that_runs_something_else_is_left_out_where_its_region_has_another() {
    use bailiwick_rules::health::{AspectValue, ReleaseHealth};
    let rules = RULES.replacen(
        "\"revision\": 1,",
        "\"revision\": 1, \"releases\": { \"chat\": { \"skew\": \"withhold\" } },",
        1,
    );
    let values = |others: [bool; 3]| {
        let of_endpoint = |(endpoint, is_other): (usize, bool)| ReleaseHealth {
            release: 0,
            endpoint,
            values: [if is_other { AspectValue::DiffersFromPin } else { AspectValue::MatchesPin }; 5],
        };
        let releases = others.into_iter().enumerate().map(of_endpoint).collect();
        // Regions are sorted by name: Frankfurt, Washington, Paris.
        let par = ReleaseHealth { release: 0, endpoint: 0, values: [AspectValue::Unknown; 5] };
        [
            RegionHealth { releases, ..RegionHealth::default() },
            RegionHealth::default(),
            RegionHealth { releases: vec![par], ..RegionHealth::default() },
        ]
    };
    let planned = |health: &[RegionHealth]| plan_by(&rules, &Case { health, ..Case::default() }, &Needs::default());
    let mixed = planned(&values([true, true, false])).unwrap();
    assert_eq!(names(&mixed), ["fra-3", "azure"]);
    assert!(mixed.skipped().iter().all(|skipped| skipped.why == Skip::Skew) && mixed.skipped().len() == 2);
    assert_eq!(names(&planned(&values([true; 3])).unwrap()), ["azure"], "the region is withheld");
    let mut last = values([true; 3]);
    last[2].probed = Status::Down;
    assert_eq!(planned(&last).unwrap().targets().len(), 3, "the last region is asked whatever it runs");
}
