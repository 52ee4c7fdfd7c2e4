//! Tests of the comparison: by hand, and of random documents, where `steer` is asked about one client at a time.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::geo::{CountryCode, countries};
use crate::health::supposing_down;
use crate::id::RegionId;
use crate::steer::{Ask, Client, Conditions, Local, PathClass, steer};
use crate::table::{ServiceIndex, Table};
use crate::testing::{Random, document};
use crate::time::Timestamp;

/// How many pairs of random documents are compared.
const PAIRS: u64 = 400;
const NOW: Timestamp = Timestamp(1_800_000_000_000);

fn country(code: &str) -> Option<CountryCode> {
    Some(CountryCode::parse(code).unwrap())
}

/// One group for every country, and one of clients whose country is unknown.
fn everywhere() -> Vec<Group> {
    let of = |(n, country)| {
        let client = Client { country: Some(country), ..Client::default() };
        Group { client, network: None, ipv4: 256 * n, ipv6: n }
    };
    let unknown = Group { client: Client::default(), network: None, ipv4: 0, ipv6: 0 };
    [unknown].into_iter().chain((1..).zip(countries()).map(of)).collect()
}

fn compared(old: &Table, new: &Table, groups: &[Group], queries: Option<&Queries>) -> Impact {
    let comparison = Comparison::new(old, new, groups, queries, NOW);
    let services = (0..comparison.len()).map(|at| comparison.service(at)).collect();
    comparison.finish(services)
}

fn rules() -> Value {
    let region = |country: &str| json!({ "countries": [country], "answers": { "A": ["192.0.2.1"] } });
    json!({ "version": 1, "revision": 7,
        "jurisdictions": { "eu": { "include": ["EU"] }, "us": { "countries": ["US"] } },
        "regions": { "fra": region("DE"), "par": region("FR"), "nyc": region("US") },
        "services": { "chat": { "hosts": ["chat.example"], "pattern": "active-active", "regions": ["fra", "par", "nyc"],
            "ttl": { "min": 5, "max": 60 },
            "residency": [{ "clients": ["eu"], "process_in": ["eu"] }, { "clients": ["us"], "process_in": ["us"] }] } },
        "tenants": { "acme": { "key_sha256": ["0000000000000000000000000000000000000000000000000000000000000001"],
            "residency": "eu", "services": ["chat"] } } })
}

fn table(rules: &Value) -> Table {
    Table::compile(rules.to_string().as_bytes()).unwrap_or_else(|errors| panic!("{errors:?}\n{rules:#}"))
}

fn impact_of(edit: impl Fn(&mut Value)) -> Impact {
    let (old, mut rules) = (table(&rules()), rules());
    rules["revision"] = 8.into();
    edit(&mut rules);
    let counted = [(country("DE"), 60), (country("FR"), 20), (country("US"), 15), (None, 5)];
    let queries = Queries::from([("chat".to_owned(), BTreeMap::from(counted))]);
    compared(&old, &table(&rules), &everywhere(), Some(&queries))
}

#[test]
fn changed_pins_of_bundles_are_told_and_nothing_else() {
    let version = |digit: &str| digit.repeat(64);
    let pinned = |pins: Value, new: Value| {
        let (mut old, mut rules) = (rules(), rules());
        (rules["revision"], old["bundles"], rules["bundles"]) = (8.into(), pins, new);
        compared(&table(&old), &table(&rules), &everywhere(), None)
    };
    let one = json!({ "prompts": { "version": version("1") } });
    assert!(pinned(one.clone(), one.clone()).bundles.is_empty());
    let impact =
        pinned(one.clone(), json!({ "prompts": { "version": version("1"), "regions": { "fra": version("2") } } }));
    assert!(impact.services.is_empty() && impact.bundles.len() == 1, "{impact:?}");
    assert!(impact.to_text().contains("Bundle prompts in fra: 111111111111 → 222222222222.\n"), "{}", impact.to_text());
    assert!(impact.to_line(200).contains("another version of bundle prompts"), "{}", impact.to_line(200));
    // A region has the same version as before if it now gets by a line of its own what it got by the line for all.
    let moved = json!({ "prompts": { "version": version("2"), "regions": { "fra": version("1") } } });
    let impact = pinned(one.clone(), moved);
    assert_eq!(impact.bundles.iter().map(|one| one.region.is_none()).collect::<Vec<_>>(), [true]);
    let gone = pinned(one, json!({ "tools": { "version": version("3") } }));
    let lines = ["Bundle prompts: 111111111111 → none.", "Bundle tools: none → 333333333333."];
    assert!(lines.iter().all(|line| gone.to_markdown().contains(line)), "{}", gone.to_markdown());
}

#[test]
fn a_rollout_that_gives_a_region_all_of_a_version_is_told() {
    let version = |digit: &str| digit.repeat(64);
    let at = |shares: Option<Value>| {
        let mut rules = rules();
        rules["bundles"] = json!({ "prompts": { "version": version("1") } });
        rules["rollouts"] = json!({ "next": { "service": "chat", "bundle": "prompts", "to": version("2"),
            "regions": ["fra", "par"], "checks": { "error_rate": { "max_diff": 0.01 } },
            "progress": shares.map(|shares| json!({ "shares": shares, "since": "2026-12-01T06:00:00Z" })) } });
        if rules["rollouts"]["next"]["progress"].is_null() {
            rules["rollouts"]["next"].as_object_mut().unwrap().remove("progress");
        }
        rules
    };
    let told = |old: Value, mut new: Value| {
        new["revision"] = 8.into();
        let impact = compared(&table(&old), &table(&new), &everywhere(), None);
        assert!(impact.services.is_empty(), "{impact:?}");
        impact.bundles.iter().map(BundleImpact::to_line).collect::<Vec<_>>()
    };
    let (begun, half) = (at(Some(json!({ "fra": 5 }))), at(Some(json!({ "fra": 50 }))));
    assert!(told(at(None), begun.clone()).is_empty() && told(begun, half.clone()).is_empty());
    let next = at(Some(json!({ "fra": 100, "par": 5 })));
    assert_eq!(told(half, next.clone()), ["Bundle prompts in fra: 111111111111 → 222222222222."]);
    assert_eq!(told(next.clone(), at(Some(json!({})))), ["Bundle prompts in fra: 222222222222 → 111111111111."]);
    // Whoever pins what a finished rollout brought, and removes it, changes the version of those of no region alone.
    let done = at(Some(json!({ "fra": 100, "par": 100 })));
    let mut pinned = rules();
    pinned["bundles"] = json!({ "prompts": { "version": version("2") } });
    assert_eq!(told(done, pinned), ["Bundle prompts: 111111111111 → 222222222222."]);
}

#[test]
fn the_same_rules_change_nothing() {
    let impact = impact_of(|_| ());
    assert_eq!((impact.services.len(), impact.compared), (0, 2), "{impact:?}");
    assert!(impact.to_text().contains("Nobody goes elsewhere and no fence differs: 2 services compared."));
    assert!(!impact.is_tightened() && !impact.is_widened());
}

#[test]
fn a_head_carries_it_in_one_line_that_fits() {
    let impact = impact_of(|rules| rules["services"]["chat"]["regions"] = json!(["par", "nyc"]));
    let line = impact.to_line(500);
    assert!(line.starts_with("chat: 60.0 % of queries move; chat for tenant acme: "), "{line}");
    assert!(line.ends_with("; 0 clients leave their fence, some fences get smaller; converges within 60 s"), "{line}");
    let short = impact.to_line(125);
    assert!(short.starts_with("chat: 60.0 % of queries move; and 1 more; 0 clients"), "{short}");
    assert_eq!(impact.to_line(10).chars().count(), 10);
    assert_eq!(impact_of(|_| ()).to_line(500), "0 clients leave their fence");
}

#[test]
fn a_region_that_is_taken_out_moves_its_clients_tightens_and_leaves_one_alone() {
    let impact = impact_of(|rules| rules["services"]["chat"]["regions"] = json!(["par", "nyc"]));
    let chat = &impact.services[0];
    assert!(impact.is_tightened() && !impact.is_widened());
    assert_eq!((chat.moved.queries, chat.total.queries, chat.denied.queries), (60, 100, 0));
    assert_eq!(chat.fewest_regions, Some(1));
    let emptied = impact_of(|rules| rules["services"]["chat"]["residency"][0]["process_in"] = json!([]));
    assert_eq!(emptied.services[0].fewest_regions, Some(0), "gates count an emptied fence too");
    let text = impact.to_text();
    for wanted in [
        "60.0 % of queries (IPv4 ",
        "fra → par",
        "no longer in DE (fra)",
        "no region left if par fails",
        "0 clients leave their fence. Converges within 60 s (TTL).",
        "publish it with --tighten",
        "chat for tenant acme: ",
    ] {
        assert!(text.contains(wanted), "{wanted} is not in\n{text}");
    }
    let of_acme = impact.services.iter().find(|one| !one.tenants.is_empty()).unwrap();
    assert_eq!(of_acme.alone[0].region.as_str(), "par");
    assert!(impact.to_markdown().contains("| fra | par | 60.0 % | "), "{}", impact.to_markdown());
}

#[test]
fn a_wider_fence_is_said_first_even_if_nobody_goes_there_yet() {
    let impact = impact_of(|rules| {
        rules["services"]["chat"]["residency"][0]["process_in"] = json!([["eu"], ["us"]]);
    });
    assert!(impact.is_widened() && !impact.is_tightened());
    let chat = &impact.services[0];
    assert_eq!((chat.moves.len(), chat.leave_fence.queries), (0, 80), "{chat:?}");
    let text = impact.to_text();
    assert!(text.starts_with("rules 7 → 8\n\nWIDER FENCES: "), "{text}");
    assert!(text.contains("also in US (nyc)"), "{text}");
    // A region that may process in another country from now on widens the fence, although its name stays.
    let impact = impact_of(|rules| {
        rules["regions"]["par"]["countries"] = json!(["FR", "US"]);
        rules["jurisdictions"]["eu"]["countries"] = json!(["US"]);
    });
    let chat = &impact.services[0];
    assert!(chat.wider.iter().any(|one| one.countries == [country("US").unwrap()]), "{chat:?}");
}

#[test]
fn one_more_region_in_the_same_country_is_no_wider_fence() {
    let impact = impact_of(|rules| {
        rules["regions"]["ber"] = json!({ "countries": ["DE"], "answers": { "A": ["192.0.2.9"] } });
        rules["services"]["chat"]["regions"] = json!(["ber", "fra", "par", "nyc"]);
    });
    assert!(!impact.is_widened() && !impact.is_tightened(), "{}", impact.to_text());
}

#[test]
fn services_that_come_and_go_and_hosts_that_change_hands_are_told() {
    let impact = impact_of(|rules| {
        let chat = rules["services"]["chat"].take();
        rules["services"] = json!({ "talk": chat });
        rules["tenants"]["acme"]["services"] = json!(["talk"]);
        rules["services"]["talk"]["residency"][0]["process_in"] = json!(["us"]);
    });
    let talk = &impact.services[0];
    assert_eq!((talk.service.as_str(), talk.was.as_ref().unwrap().as_str()), ("talk", "chat"));
    assert!(!talk.wider.is_empty() && talk.moved.queries == 80, "a new name hides nothing: {talk:?}");
    assert!(
        impact.services.iter().any(|one| one.tenants.len() == 1 && !one.wider.is_empty()),
        "nor does it for a tenant"
    );
    let impact = impact_of(|rules| {
        rules["services"] = json!({});
        rules["tenants"] = json!({});
    });
    assert_eq!((impact.services[0].presence, impact.services[0].denied.queries), (Presence::Gone, 95));
    let impact = impact_of(|rules| rules["services"]["chat"]["hosts"] = json!(["chat.example", "more.example"]));
    assert_eq!(
        (impact.services[0].presence, &impact.services[0].hosts[..]),
        (Presence::New, &["more.example".into()][..])
    );
}

#[test]
fn queries_of_a_country_are_divided_by_addresses() {
    let mut groups = everywhere();
    let at = groups.iter().position(|group| group.client.country == country("DE")).unwrap();
    let germans = groups[at].ipv4;
    let network: ipnet::IpNet = "198.51.100.0/24".parse().unwrap();
    groups[at].ipv4 = germans / 4;
    groups.push(Group { network: Some(network), ipv4: germans - germans / 4, ..groups[at] });
    let (old, mut new) = (table(&rules()), rules());
    new["services"]["chat"]["regions"] = json!(["par", "nyc"]);
    let queries = Queries::from([("chat".to_owned(), BTreeMap::from([(country("DE"), 1000)]))]);
    let impact = compared(&old, &table(&new), &groups, Some(&queries));
    let who = &impact.services[0].moves[0].who;
    let of = |network| who.clients.iter().find(|one| one.country == country("DE") && one.network == network).unwrap();
    assert_eq!((of(Some(network)).weight.queries, of(None).weight.queries), (750, 250));
}

/// What `steer` chooses for one client if the region `down` is down; `None`: all regions are up.
fn chosen(table: &Table, service: ServiceIndex, client: Client, down: Option<&RegionId>) -> Option<RegionId> {
    let down = down.and_then(|down| table.region_named(down.as_str()));
    let health = down.map(|down| supposing_down(&[], &[down.get()])).unwrap_or_default();
    let ask = Ask { service, client, model: None, path_class: PathClass::Inference, needs: None };
    let local = Local::default();
    let steering = steer(table, &ask, &Conditions { health: &health, local: &local, now: NOW });
    steering.ordered.first().map(|first| table.region(first.fenced.region).id.clone())
}

/// Whether a finding lists the client's country.
fn holds(who: &AffectedClients, client: &Client) -> bool {
    who.clients.iter().any(|one| one.country == client.country)
}

#[test]
fn random_documents_are_compared_as_steer_decides_with_all_up_and_each_region_down() {
    let groups = everywhere();
    let (mut asked, mut moved) = (0_u64, 0_u64);
    for seed in 0..PAIRS {
        let random = &mut Random::new(seed);
        let (old, new) = (table(&document(random)), table(&document(random)));
        let impact = compared(&old, &new, &groups, None);
        let plain = |one: &&ServiceImpact| one.tenants.is_empty() && one.presence == Presence::Both;
        for (index, service) in (0..).map(ServiceIndex).zip(old.services()) {
            let Some(same) = new.service_named(service.id.as_str()) else { continue };
            let found = impact.services.iter().filter(plain).find(|one| one.service == service.id);
            let names = || old.regions().iter().chain(new.regions()).map(|region| region.id.clone());
            for group in &groups {
                let client = group.client;
                for down in [None].into_iter().chain(names().map(Some)) {
                    let from = chosen(&old, index, client, down.as_ref());
                    let to = chosen(&new, same, client, down.as_ref());
                    asked += 1;
                    let is_told = |way: &Move| way.from == from && way.to == to && holds(&way.who, &client);
                    let usual = found.is_some_and(|found| found.moves.iter().any(is_told));
                    let is_down = |one: &MoveWhenDown| Some(&one.down) == down.as_ref() && is_told(&one.moves);
                    let special = found.is_some_and(|found| found.moves_when_down.iter().any(is_down));
                    moved += u64::from(from != to);
                    assert_eq!(
                        usual || special && down.is_some(),
                        from != to,
                        "seed {seed}, {} {:?} without {down:?}: {from:?} → {to:?}",
                        service.id,
                        client.country
                    );
                }
            }
        }
    }
    println!("impact: {PAIRS} pairs of documents, {asked} questions, {moved} answers differ");
    assert!(moved > 10_000 && asked > moved + 100_000, "{moved} of {asked}");
}
