//! The invariants of releases in steering.

use super::*;
use crate::health::{Aspect, AspectValue, ReleaseHealth};
use crate::testing::release;

/// How many random cases each property has.
const RELEASE_CASES: u64 = 3_000;

/// Checks a property with random documents that have releases.
fn for_all_releases(property: &str, check: impl Fn(&mut Case) -> bool) {
    let mut withheld = 0;
    for seed in 0..RELEASE_CASES {
        let mut random = Random::new(seed);
        let mut document = document(&mut random);
        release(&mut random, &mut document);
        // In a fence of one region nothing can be withheld, so most services get all regions in one fence.
        if seed % 4 > 0 {
            let regions: Vec<String> = document["regions"].as_object().unwrap().keys().cloned().collect();
            for service in document["services"].as_object_mut().unwrap().values_mut() {
                service["regions"] = regions.clone().into();
                service["residency"] = serde_json::json!([{ "clients": ["*", "unknown"], "process_in": ["*"] }]);
            }
            document["tenants"] = serde_json::json!({});
        }
        if seed % 3 == 0 {
            replicate(&mut Random::new(seed), &mut document);
        }
        let table = Table::compile(document.to_string().as_bytes())
            .unwrap_or_else(|violations| panic!("seed {seed}: {violations:#?}\n{document:#}"));
        let ask = ask(&mut random, &table);
        let (mut health, local, now) = conditions(&mut random, &table);
        // Most regions are up, and most requests are for a model that has a release.
        health.iter_mut().filter(|_| random.chance(70)).for_each(|region| {
            region.probed = Status::Up;
            region.forced = None;
        });
        let models = ["chat-large", "chat-small", "embed"];
        let model = models.into_iter().find(|model| table.release_of(model).is_some()).filter(|_| random.chance(80));
        let ask = Ask { model: model.or(ask.model), ..ask };
        let mut case = Case { random, document, table, ask, health, local, now };
        withheld += usize::from(case.steering().withheld.iter().any(|entry| entry.reason == Reason::Skew));
        assert!(check(&mut case), "{property}: seed {seed}");
    }
    println!("{property}: {RELEASE_CASES} random cases, {withheld} with a region withheld because of what it runs");
    assert!(withheld > 100, "too few cases withhold anything: {withheld}");
}

/// The decision as if nothing were known of what endpoints run.
fn unaware(case: &Case) -> Steering {
    let mut health = case.health.clone();
    health.iter_mut().for_each(|region| region.releases.clear());
    steer(&case.table, &case.ask, &Conditions { health: &health, ..case.conditions() })
}

#[test]
fn what_regions_run_never_takes_away_the_last_one_and_never_adds_one() {
    for_all_releases("never the last region", |case| {
        let (with, without) = (case.steering(), unaware(case));
        let offered = |steering: &Steering| names(&case.table, steering.ordered.clone());
        let (some, all) = (offered(&with), offered(&without));
        // If regions were revived, or kept as the freshest, the two decisions may offer different regions.
        let is_part = without.revived || without.stale || some.iter().all(|region| all.contains(region));
        with.ordered.is_empty() == without.ordered.is_empty()
            && is_part
            && names(&case.table, with.fence()) == names(&case.table, without.fence())
    });
}

#[test]
fn a_region_that_runs_something_else_is_offered_only_if_no_other_is() {
    for_all_releases("skew is withheld", |case| {
        let with = case.steering();
        let fence: Vec<RegionIndex> = with.fence().map(|ranked| ranked.fenced.region).collect();
        let Some(skew) = Skew::of(&case.table, &fence, case.ask.model, &case.conditions()) else {
            return !with.skewed && with == unaware(case);
        };
        let is_offered = with.ordered.iter().any(|ranked| skew.withholds(ranked.fenced.region));
        // If such a region is offered, the decision is as if nothing were known of releases.
        is_offered == with.skewed && (!with.skewed || with == Steering { skewed: true, ..unaware(case) })
    });
}

#[test]
fn a_release_that_only_warns_changes_nothing() {
    for_all_releases("warnings", |case| {
        let Some(releases) = case.document["releases"].as_object_mut() else { return true };
        releases.values_mut().for_each(|release| release["skew"] = "warn".into());
        let before = unaware(case);
        case.table = Table::compile(case.document.to_string().as_bytes()).unwrap();
        case.steering() == before
    });
}

#[test]
fn silence_is_never_skew() {
    for_all_releases("silence", |case| {
        let unknown = |known: &mut ReleaseHealth| known.values = [AspectValue::Unknown; Aspect::ALL.len()];
        case.health.iter_mut().for_each(|region| region.releases.iter_mut().for_each(unknown));
        case.steering() == unaware(case)
    });
}

#[test]
fn dns_withholds_only_what_the_edge_withholds_for_every_model_of_the_region() {
    for_all_releases("DNS and models", |case| {
        case.local = Local::default();
        case.ask = Ask { model: None, ..case.ask };
        let dns = case.steering();
        let fence: Vec<RegionIndex> = dns.fence().map(|ranked| ranked.fenced.region).collect();
        dns.withheld.iter().filter(|withheld| withheld.reason == Reason::Skew).all(|withheld| {
            let region = withheld.ranked.fenced.region;
            let endpoints = &case.table.region(region).endpoints;
            endpoints.iter().all(|(_, endpoint)| {
                let mut models = endpoint.models.iter().flat_map(|models| models.keys());
                endpoint.models.is_some()
                    && models.all(|model| {
                        let skew = Skew::of(&case.table, &fence, Some(model), &case.conditions());
                        skew.is_some_and(|skew| skew.withholds(region))
                    })
            })
        })
    });
}

/// Three regions of one endpoint each; `values` is what is known of the engine of each. Returns what is offered for the
/// model, whether `skewed` is set, and the reasons of the withheld regions.
fn steered(more: &str, values: [AspectValue; 3], down: &[usize]) -> (String, bool, Vec<&'static str>) {
    let region = |name: &str| {
        format!(
            r#""{name}": {{ "countries": ["DE"], "endpoints": {{ "e": {{ "url": "https://{name}.example/v1",
                "models": {{ "chat": "llama" }} }} }} }}"#
        )
    };
    let json = format!(
        r#"{{ "version": 1, "revision": 1, "releases": {{ "chat": {{ "skew": "withhold" }} }}{more},
            "regions": {{ {}, {}, {} }}, "services": {{ "s": {{ "hosts": ["chat.example"], "pattern": "active-passive",
            "regions": ["a", "b", "c"],
                "residency": [{{ "clients": ["*", "unknown"], "process_in": ["*"] }}] }} }} }}"#,
        region("a"),
        region("b"),
        region("c")
    );
    let table = Table::compile(json.as_bytes()).unwrap_or_else(|errors| panic!("{errors:?}"));
    let health: Vec<RegionHealth> = values
        .into_iter()
        .enumerate()
        .map(|(at, value)| RegionHealth {
            probed: if down.contains(&at) { Status::Down } else { Status::Up },
            releases: vec![ReleaseHealth {
                release: 0,
                endpoint: 0,
                values: [AspectValue::Unknown, AspectValue::Unknown, AspectValue::Unknown, value, AspectValue::Unknown],
            }],
            ..RegionHealth::default()
        })
        .collect();
    let conditions = Conditions { health: &health, local: &Local::default(), now: Timestamp(0) };
    let service = ServiceIndex(0);
    let ranking = rank(&table, service, &stand(&table, &Client::default()), PathClass::Inference);
    let steering = decide(&table, &ranking, Some("chat"), &conditions);
    assert_eq!(steering, decide(&table, &ranking, None, &conditions), "each region has only this model");
    let offered: Vec<&str> =
        steering.ordered.iter().map(|ranked| table.region(ranked.fenced.region).id.as_str()).collect();
    (offered.join(" "), steering.skewed, steering.withheld.iter().map(|withheld| withheld.reason.as_str()).collect())
}

#[test]
fn the_pin_counts_then_most_regions_and_a_tie_withholds_nobody() {
    let (v0, v1, v2) = (AspectValue::Version(0), AspectValue::Version(1), AspectValue::Version(2));
    let own = |text: &str| text.to_owned();
    assert_eq!(steered("", [v0, v1, v1], &[]), (own("b c"), false, vec!["skew"]));
    assert_eq!(
        steered("", [v0, v1, AspectValue::Unknown], &[]),
        (own("a b c"), false, vec![]),
        "two known versions, and neither has a majority"
    );
    assert_eq!(steered("", [v0, v1, v2], &[]), (own("a b c"), false, vec![]));
    assert_eq!(steered("", [AspectValue::Unknown; 3], &[]), (own("a b c"), false, vec![]));
    let (yes, no) = (AspectValue::MatchesPin, AspectValue::DiffersFromPin);
    assert_eq!(
        steered("", [yes, no, no], &[]),
        (own("a"), false, vec!["skew", "skew"]),
        "the pin counts more than the majority"
    );
    assert_eq!(steered("", [no, no, no], &[]), (own("a b c"), true, vec![]));
    assert_eq!(steered("", [yes, no, no], &[0]), (own("b c"), true, vec!["down"]), "nothing else is left");
    assert_eq!(steered("", [v0, v1, v1], &[1, 2]), (own("a"), true, vec!["down", "down"]));
    assert_eq!(
        steered("", [v0, v1, v1], &[1]),
        (own("c"), false, vec!["skew", "down"]),
        "regions that are down vote too"
    );
    assert_eq!(steered("", [yes, no, no], &[0, 1, 2]).0, "a b c", "releases don't matter for revived regions");
}

#[test]
fn a_rollout_that_is_under_way_is_no_skew() {
    let (v0, v1) = (AspectValue::Version(0), AspectValue::Version(1));
    let rollout = |progress: &str| {
        format!(
            r#", "rollouts": {{ "r": {{ "service": "s", "model": "chat", "from": "llama", "to": "new",
                "regions": ["a", "b", "c"], "checks": {{ "error_rate": {{ "max_diff": 0.01 }} }}{progress} }} }}"#
        )
    };
    let under_way = rollout(r#", "progress": { "shares": { "a": 5 }, "since": "2026-12-01T06:00:00Z" }"#);
    assert_eq!(steered(&under_way, [v0, v1, v1], &[]).0, "a b c");
    assert_eq!(steered(&rollout(""), [v0, v1, v1], &[]).0, "b c", "the rollout hasn't begun");
    let ended = rollout(r#", "progress": { "since": "2026-12-01T06:00:00Z", "ended": "rolled back: error_rate" }"#);
    assert_eq!(steered(&ended, [v0, v1, v1], &[]).0, "b c");
}
