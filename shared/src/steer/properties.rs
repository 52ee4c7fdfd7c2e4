//! The invariants of steering, over random documents, clients and conditions.

use serde_json::Value;

use super::*;
use crate::explain::{Explanation, explain};
use crate::geo::{CountrySet, built_in_set};
use crate::testing::{Random, ask, conditions, document, limit, release, replicate};

mod knowledge;
mod skew;

/// How many random cases the property of the fence has, and each other property. Each case is a document, a client and
/// conditions of its own.
const FENCE_CASES: u64 = 20_000;
const CASES: u64 = 4_000;

struct Case {
    random: Random,
    document: Value,
    table: Table,
    ask: Ask<'static>,
    health: Vec<RegionHealth>,
    local: Local,
    now: Timestamp,
}

impl Case {
    fn conditions(&self) -> Conditions<'_> {
        Conditions { health: &self.health, local: &self.local, now: self.now }
    }
    fn steering(&self) -> Steering {
        steer(&self.table, &self.ask, &self.conditions())
    }
    fn reported(&self) -> Explanation {
        explain(&self.table, &self.ask, &self.conditions())
    }
}

fn for_all(property: &str, cases: u64, check: impl Fn(Case) -> bool) {
    for seed in 0..cases {
        let mut random = Random::new(seed);
        let mut document = document(&mut random);
        // Quotas, tiers and budgets never change who may be processed where.
        if seed % 2 == 1 {
            limit(&mut Random::new(seed), &mut document);
        }
        if seed % 3 == 0 {
            replicate(&mut Random::new(seed), &mut document);
        }
        if seed % 5 < 2 {
            release(&mut Random::new(seed), &mut document);
        }
        let table = Table::compile(document.to_string().as_bytes())
            .unwrap_or_else(|violations| panic!("seed {seed}: {violations:#?}\n{document:#}"));
        let ask = ask(&mut random, &table);
        let (health, local, now) = conditions(&mut random, &table);
        let case = Case { random, document, table, ask, health, local, now };
        let holds = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| check(case)));
        assert!(holds.as_ref().is_ok_and(|is_true| *is_true), "{property}: seed {seed} ({holds:?})");
    }
    println!("{property}: {cases} random cases");
}

fn names(table: &Table, ranked: impl IntoIterator<Item = Ranked>) -> Vec<String> {
    let mut names: Vec<String> =
        ranked.into_iter().map(|ranked| table.region(ranked.fenced.region).id.to_string()).collect();
    names.sort();
    names
}

/// The countries of a jurisdiction, taken from the JSON.
fn countries_by_the_book(jurisdiction: &Value) -> CountrySet {
    let listed = jurisdiction["countries"].as_array().into_iter().flatten();
    let mut set: CountrySet = listed.filter_map(|code| CountryCode::parse(code.as_str()?)).collect();
    for included in jurisdiction["include"].as_array().into_iter().flatten() {
        let built_in = built_in_set(included.as_str().unwrap()).unwrap();
        let excluded = |country: &CountryCode| {
            jurisdiction["exclude"].as_array().is_some_and(|all| all.contains(&country.as_str().into()))
        };
        set.extend(&built_in.iter().filter(|country| !excluded(country)).collect());
    }
    set
}

/// The fence by the words of the specification, taken from the JSON alone, without the compiled table.
fn fence_by_the_book(case: &Case) -> Vec<String> {
    let document = &case.document;
    let set_of = |name: &str| countries_by_the_book(&document["jurisdictions"][name]);
    let all: Vec<&String> = document["jurisdictions"].as_object().unwrap().keys().collect();
    let ip = case.ask.client.address;
    let network = document["networks"].as_array().unwrap().iter().filter_map(|network| {
        let prefix: ipnet::IpNet = network["prefix"].as_str()?.parse().ok()?;
        prefix.contains(&ip?).then(|| (prefix.prefix_len(), CountryCode::parse(network["country"].as_str().unwrap())))
    });
    let country = match network.max_by_key(|(length, _)| *length) {
        Some((_, country)) => country,
        None => case.ask.client.country,
    };
    let tenant = case.ask.client.tenant.map(|tenant| &document["tenants"][case.table.tenant(tenant).id.as_str()]);
    let declared: Option<Vec<String>> = tenant.and_then(|tenant| {
        let listed = tenant["residency"].as_array()?;
        Some(listed.iter().map(|name| name.as_str().unwrap().to_owned()).collect())
    });
    let mine: Option<Vec<String>> = declared.or_else(|| {
        let country = country?;
        Some(all.iter().filter(|name| set_of(name).contains(country)).map(ToString::to_string).collect())
    });

    let name = case.table.service(case.ask.service).id.as_str();
    let service = &document["services"][name];
    let own = tenant.filter(|tenant| !tenant["process_in"].is_null());
    if own.is_some_and(|tenant| !tenant["services"].as_array().unwrap().contains(&name.into())) {
        return Vec::new();
    }
    let rule = service["residency"].as_array().unwrap().iter().find(|rule| {
        rule["clients"].as_array().unwrap().iter().any(|client| match (client.as_str().unwrap(), &mine) {
            ("unknown", mine) => mine.is_none(),
            ("*", mine) => mine.is_some(),
            (name, Some(mine)) => mine.iter().any(|name_of_region| name_of_region == name),
            (_, None) => false,
        })
    });
    let Some(process_in) = own.or(rule).map(|rule| rule["process_in"].as_array().unwrap()) else { return Vec::new() };

    let lies_in = |region: &str, jurisdiction: &str| {
        let places = document["regions"][region]["countries"].as_array().unwrap();
        places.iter().all(|place| match place.as_str().unwrap() {
            "*" => false,
            code if CountryCode::parse(code).is_some() => {
                set_of(jurisdiction).contains(CountryCode::parse(code).unwrap())
            }
            name => set_of(name).is_subset(&set_of(jurisdiction)),
        })
    };
    let regions = service["regions"].as_array().unwrap().iter().map(|region| region.as_str().unwrap().to_owned());
    let is_in_fence = |region: &String| {
        process_in.iter().any(|tier| match tier {
            Value::String(any) if any == "*" => true,
            Value::String(id) => lies_in(region, id),
            several => several.as_array().unwrap().iter().any(|id| lies_in(region, id.as_str().unwrap())),
        })
    };
    let mut fence: Vec<String> = regions.filter(is_in_fence).collect();
    fence.sort();
    fence
}

#[test]
fn the_fence_is_what_the_rules_say_and_nothing_is_ever_ordered_from_outside() {
    for_all("fence", FENCE_CASES, |case| {
        let steering = case.steering();
        let by_the_book = fence_by_the_book(&case);
        let ordered = names(&case.table, steering.ordered.clone());
        assert_eq!(names(&case.table, steering.fence()), by_the_book, "ordered and withheld partition the fence");
        ordered.iter().all(|region| by_the_book.contains(region))
    });
}

#[test]
fn equal_inputs_give_equal_steerings() {
    for_all("determinism", CASES, |case| {
        let again = Table::compile(case.document.to_string().as_bytes()).unwrap();
        case.reported() == explain(&again, &case.ask, &case.conditions())
    });
}

#[test]
fn healing_a_region_removes_none_unless_regions_had_been_revived() {
    for_all("healing", CASES, |mut case| {
        let before = case.steering();
        let healed = case.random.below(case.health.len());
        let health = &mut case.health[healed];
        health.probed = Status::Up;
        health.endpoints.fill(Status::Up);
        health.forced = health.forced.take().filter(|forced| forced.status == Status::Up);
        let after = names(&case.table, case.steering().ordered);
        before.revived
            || before.skewed
            || names(&case.table, before.ordered).iter().all(|region| after.contains(region))
    });
}

#[test]
fn what_is_unrelated_changes_nothing() {
    for_all("unrelated", CASES, |mut case| {
        let before = case.reported();
        let (client, service) = (case.ask.client, case.table.service(case.ask.service).id.to_string());
        let tenant = client.tenant.map(|tenant| case.table.tenant(tenant).id.to_string());
        // `a…` sorts before everything, so every index moves.
        case.document["regions"]["a0"] = serde_json::json!({ "countries": ["DE"] });
        case.document["services"]["a0"] = serde_json::json!({
            "hosts": ["a0.example"], "pattern": "active-active", "regions": ["a0"],
            "residency": [{ "clients": ["unknown"], "process_in": ["*"] }],
        });
        case.document["tenants"]["a0"] = serde_json::json!({ "key_sha256": ["0".repeat(64)], "services": ["a0"] });
        let table = Table::compile(case.document.to_string().as_bytes()).unwrap();
        case.health.insert(0, RegionHealth { probed: Status::Down, ..RegionHealth::default() });
        for cooling in &mut case.local.cooling {
            cooling.region.0 += 1;
        }
        let tenant = tenant.map(|name| table.tenant_named(&name).unwrap());
        case.ask.client = Client { tenant, ..client };
        case.ask.service = table.service_named(&service).unwrap();
        explain(&table, &case.ask, &case.conditions()) == before
    });
}

#[test]
fn the_edge_without_model_and_local_state_agrees_with_dns() {
    for_all("agreement", CASES, |mut case| {
        case.local = Local::default();
        case.ask = Ask { model: None, path_class: PathClass::Inference, ..case.ask };
        // DNS ranks a class of clients once and decides later; the edge does both at once.
        let standing = stand(&case.table, &case.ask.client);
        let ranking = rank(&case.table, case.ask.service, &standing, PathClass::Inference);
        let dns = decide(&case.table, &ranking, None, &case.conditions());
        dns.ordered.first() == case.steering().ordered.first()
    });
}

#[test]
fn a_steering_holds_until_it_says_and_no_ttl_leaves_its_bounds() {
    for_all("validity", CASES, |mut case| {
        let before = case.steering();
        let service = case.table.service(case.ask.service);
        let standing = stand(&case.table, &case.ask.client);
        let ranking = rank(&case.table, case.ask.service, &standing, case.ask.path_class);
        let ttl = before.ttl(&case.table, service, &ranking, &case.conditions());
        assert!((service.ttl.min..=service.ttl.max).contains(&ttl));
        let end = before.valid_until.map_or(case.now.0 + 10_000_000, |until| until.0);
        assert!(end > case.now.0, "the override ends in the future");
        case.now = Timestamp(end - 1);
        case.steering() == before
    });
}

#[test]
fn patterns_order_as_they_say() {
    for_all("order", CASES, |case| {
        let service = case.table.service(case.ask.service);
        let standing = stand(&case.table, &case.ask.client);
        let ranking = rank(&case.table, case.ask.service, &standing, case.ask.path_class);
        let written =
            |ranked: &Ranked| service.regions.iter().position(|&region| region == ranked.fenced.region).unwrap();
        ranking.order.windows(2).all(|pair| {
            let standby = |ranked: &Ranked| case.table.region(ranked.fenced.region).standby;
            let (a, b) = (&pair[0], &pair[1]);
            let (rough_a, rough_b) = ((standby(a), a.fenced.tier), (standby(b), b.fenced.tier));
            let fine = match (service.pattern, a.km, b.km) {
                (Pattern::ActivePassive, ..) => written(a) < written(b),
                _ if standing.location.is_none() => written(a) < written(b),
                (_, Some(a), Some(b)) => a <= b,
                (_, km_a, km_b) => km_a.is_some() || km_b.is_none(),
            };
            rough_a < rough_b || rough_a == rough_b && fine
        })
    });
}

#[test]
fn home_is_alone_and_a_hub_is_never_revived() {
    for_all("home", CASES, |case| {
        let steering = case.steering();
        let service = case.table.service(case.ask.service);
        let hub_path = service.pattern == Pattern::HubAndSpoke && case.ask.path_class == PathClass::Hub;
        match service.pattern {
            Pattern::RegionalSharding => steering.ordered.len() <= 1,
            Pattern::HubAndSpoke if hub_path => {
                let hub = &service.hub.as_ref().unwrap().region;
                !steering.revived
                    && steering.ordered.iter().all(|ranked| case.table.region(ranked.fenced.region).id == *hub)
            }
            _ => steering.withheld.iter().all(|withheld| withheld.reason != Reason::NotHome),
        }
    });
}

#[test]
fn a_ttl_waits_for_better_regions_only() {
    let table = Table::compile(
        br#"{ "version": 1, "revision": 1, "jurisdictions": { "eu": { "include": ["EU"] } },
              "regions": { "a": { "countries": ["DE"] }, "b": { "countries": ["FR"] }, "c": { "countries": ["IT"] } },
              "services": { "s": { "hosts": ["s.example"], "pattern": "active-passive", "regions": ["a", "b", "c"],
                                   "residency": [{ "clients": ["eu"], "process_in": ["eu"] }],
                                   "ttl": { "min": 1, "max": 600 } } } }"#,
    )
    .unwrap();
    let seconds = |to_down: Option<u64>, to_up: Option<u64>| RegionHealth {
        probed: if to_up.is_some() { Status::Down } else { Status::Up },
        time_to_down: to_down.map(|seconds| Millis(seconds * 1000)),
        time_to_up: to_up.map(|seconds| Millis(seconds * 1000)),
        ..RegionHealth::default()
    };
    let service = ServiceIndex(0);
    let client = Client { country: crate::geo::CountryCode::parse("DE"), ..Client::default() };
    let ttl = |health: &[RegionHealth]| {
        let conditions = Conditions { health, local: &Local::default(), now: Timestamp(0) };
        let ranking = rank(&table, service, &stand(&table, &client), PathClass::Inference);
        decide(&table, &ranking, None, &conditions).ttl(&table, table.service(service), &ranking, &conditions)
    };
    let (up, down) = (seconds(Some(30), None), |to_up| seconds(None, Some(to_up)));
    assert_eq!(ttl(&[up.clone(), down(5), down(7)]), 30, "regions after the chosen region don't matter");
    assert_eq!(ttl(&[down(5), up.clone(), down(2)]), 5);
    assert_eq!(ttl(&[down(50), up, down(2)]), 30);
    assert_eq!(ttl(&[down(50), down(40), down(20)]), 20, "revived: whichever returns first becomes the answer");
}

#[test]
fn quotas_tiers_and_budgets_change_no_steering() {
    for_all("with limits as without", CASES, |case| {
        let mut plain = case.document.clone();
        for section in ["quotas", "tiers"] {
            plain.as_object_mut().unwrap().remove(section);
        }
        for endpoint in
            plain["regions"].as_object_mut().unwrap().values_mut().filter_map(|r| r["endpoints"].as_object_mut())
        {
            for endpoint in endpoint.values_mut().filter_map(Value::as_object_mut) {
                endpoint.remove("quota");
                endpoint.remove("priority_as");
            }
        }
        for tenant in plain["tenants"].as_object_mut().unwrap().values_mut().filter_map(Value::as_object_mut) {
            for field in ["tier", "budget", "concurrency", "reserve"] {
                tenant.remove(field);
            }
        }
        let mut limited = plain.clone();
        limit(&mut Random::new(case.now.0.unsigned_abs()), &mut limited);
        let steered = |document: &Value| {
            let table = Table::compile(document.to_string().as_bytes()).unwrap();
            steer(&table, &case.ask, &case.conditions())
        };
        steered(&limited) == steered(&plain)
    });
}
