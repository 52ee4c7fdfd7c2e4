//! The invariants of replicas of knowledge in steering.

use super::*;
use crate::health::{Lag, ReplicaHealth};

/// How many random cases each property has.
const REPLICA_CASES: u64 = 8_000;

/// Checks a property with random documents that have replicas, and random needs of the request.
fn for_all_replicas(property: &str, check: impl Fn(&mut Case, ReplicaSet) -> bool) {
    for seed in 0..REPLICA_CASES {
        let mut random = Random::new(seed);
        let mut document = document(&mut random);
        replicate(&mut random, &mut document);
        let table = Table::compile(document.to_string().as_bytes())
            .unwrap_or_else(|violations| panic!("seed {seed}: {violations:#?}\n{document:#}"));
        let ask = ask(&mut random, &table);
        let (health, local, now) = conditions(&mut random, &table);
        let needs = (0..3).filter(|_| random.chance(60)).fold(ReplicaSet::EMPTY, ReplicaSet::with);
        let ask = Ask { needs: Some(needs), ..ask };
        let mut case = Case { random, document, table, ask, health, local, now };
        assert!(check(&mut case, needs), "{property}: seed {seed}");
    }
    println!("{property}: {REPLICA_CASES} random cases");
}

/// The copies of a region that the request needs, each with what the document says of its replica.
fn needed(case: &Case, needs: ReplicaSet, region: RegionIndex) -> impl Iterator<Item = (&ReplicaHealth, &Value)> {
    let copies = case.health[region.get()].replicas.iter().filter(move |copy| needs.contains(copy.replica));
    copies.map(|copy| (copy, &case.document["replicas"][case.table.replicas()[copy.replica].id.as_str()]))
}

#[test]
fn who_needs_no_replica_is_steered_as_if_there_were_none() {
    for_all_replicas("no needs, no difference", |case, _| {
        case.ask.needs = Some(ReplicaSet::EMPTY);
        let with = case.steering();
        case.health.iter_mut().for_each(|region| region.replicas.clear());
        with == case.steering() && !with.stale
    });
}

#[test]
fn a_region_that_lags_is_never_offered_but_as_the_freshest_that_is_kept() {
    for_all_replicas("lagging is withheld", |case, needs| {
        let steering = case.steering();
        let lags = |region: RegionIndex| needed(case, needs, region).any(|(copy, _)| copy.status == Status::Down);
        let is_kept = |region: RegionIndex| {
            let mut lagging = needed(case, needs, region).filter(|(copy, _)| copy.status == Status::Down);
            lagging.all(|(_, replica)| replica["keep_freshest"] == true)
        };
        let worst = |region: RegionIndex| {
            let lagging = needed(case, needs, region).filter(|(copy, _)| copy.status == Status::Down);
            let part = |(copy, _): (&ReplicaHealth, _)| {
                let max = case.table.replicas()[copy.replica].limits.max;
                copy.lag.zip(max).map_or(u64::MAX, |(lag, max)| lag.per_mille_of(max))
            };
            lagging.map(part).max().unwrap_or(0)
        };
        let offered: Vec<RegionIndex> = steering.ordered.iter().map(|ranked| ranked.fenced.region).collect();
        if !steering.stale {
            return offered.iter().all(|region| !lags(*region));
        }
        let [only] = offered[..] else { return false };
        let fresher = steering
            .withheld
            .iter()
            .filter(|withheld| withheld.reason == Reason::Lagging && is_kept(withheld.ranked.fenced.region));
        let is_best = fresher.map(|withheld| withheld.ranked.fenced.region).all(|other| {
            // A region that is also cooling or has another version isn't kept, however fresh it is.
            worst(only) <= worst(other)
                || !case.local.cooling.is_empty()
                || case.document["replicas"]["rows"].is_object()
        });
        lags(only) && is_kept(only) && is_best && !steering.revived
    });
}

#[test]
fn two_versions_are_never_offered_together() {
    for_all_replicas("one version", |case, needs| {
        let steering = case.steering();
        let regions: Vec<RegionIndex> = steering.ordered.iter().map(|ranked| ranked.fenced.region).collect();
        let grouped = |name: &str| case.document["replicas"][name]["group"] == "version";
        (0..case.table.replicas().len()).all(|at| {
            let replica = &case.table.replicas()[at];
            let mut versions: Vec<&str> = regions
                .iter()
                .flat_map(|region| needed(case, needs, *region))
                .filter(|(copy, _)| copy.replica == at)
                .filter_map(|(copy, _)| copy.version.as_deref())
                .collect();
            versions.sort_unstable();
            versions.dedup();
            let is_pinned = replica.version.as_deref().is_none_or(|pin| versions.iter().all(|version| *version == pin));
            let has_unknown_version = regions
                .iter()
                .flat_map(|region| needed(case, needs, *region))
                .any(|(copy, _)| copy.replica == at && copy.version.is_none());
            let is_mixed = !versions.is_empty() && has_unknown_version && replica.limits.withholds_unknown;
            !grouped(replica.id.as_str()) || versions.len() <= 1 && is_pinned && !is_mixed
        })
    });
}

/// Three regions. `copies` gives for each: whether its copy of `kb` lags, the lag in seconds (`None` if unknown), and
/// the version (empty if unknown).
fn table_and_health(more: &str, copies: &[(bool, Option<u64>, &str)]) -> (Table, Vec<RegionHealth>) {
    let names = ["a", "b", "c"];
    let regions: Vec<String> = names
        .iter()
        .map(|name| {
            format!(
                r#""{name}": {{ "countries": ["DE"], "replicas": {{ "kb": {{ "url": "https://kb.example/",
                    "as": "seconds", "read": "/lag", "version": "/v" }} }} }}"#
            )
        })
        .collect();
    let json = format!(
        r#"{{ "version": 1, "revision": 1, "replicas": {{ "kb": {{ "max_lag": "60s"{more} }} }},
            "regions": {{ {} }}, "services": {{ "chat": {{ "hosts": ["chat.example"], "pattern": "active-passive",
            "regions": ["a", "b", "c"], "residency": [{{ "clients": ["*", "unknown"], "process_in": ["*"] }}],
            "needs": {{ "/": ["kb"], "/embeddings": ["kb"] }} }} }} }}"#,
        regions.join(", ")
    );
    let table = Table::compile(json.as_bytes()).unwrap_or_else(|errors| panic!("{errors:?}"));
    let health = copies.iter().map(|(lags, seconds, version)| RegionHealth {
        replicas: vec![ReplicaHealth {
            status: if *lags { Status::Down } else { Status::Up },
            lag: seconds.map(|seconds| Lag::Time(Millis(seconds * 1_000))),
            version: (!version.is_empty()).then(|| (*version).into()),
            to_down: Some(Millis(15_000)),
            to_up: Some(Millis(9_000)),
            ..ReplicaHealth::default()
        }],
        ..RegionHealth::default()
    });
    let health = health.collect();
    (table, health)
}

/// The offered regions, whether the first is offered although it lags, the reasons of the withheld ones, and the TTL.
fn steered(more: &str, copies: &[(bool, Option<u64>, &str)]) -> (String, bool, Vec<&'static str>, u32) {
    let (table, health) = table_and_health(more, copies);
    let conditions = Conditions { health: &health, local: &Local::default(), now: Timestamp(0) };
    let service = ServiceIndex(0);
    let ranking = rank(&table, service, &stand(&table, &Client::default()), PathClass::Inference);
    let steering = decide(&table, &ranking, None, &conditions);
    let offered: Vec<&str> =
        steering.ordered.iter().map(|ranked| table.region(ranked.fenced.region).id.as_str()).collect();
    let ttl = steering.ttl(&table, table.service(service), &ranking, &conditions);
    (
        offered.join(" "),
        steering.stale,
        steering.withheld.iter().map(|withheld| withheld.reason.as_str()).collect(),
        ttl,
    )
}

#[test]
fn serve_fence_never_revives_what_lags_and_the_freshest_is_kept_only_if_the_rules_say_so() {
    let all_lag = [(true, Some(90), "1"), (true, Some(75), "1"), (true, None, "1")];
    assert_eq!(steered("", &all_lag), (String::new(), false, vec!["lagging"; 3], 9));
    let (offered, stale, reasons, ttl) = steered(r#", "keep_freshest": true"#, &all_lag);
    assert_eq!((offered.as_str(), stale, reasons, ttl), ("b", true, vec!["lagging"; 2], 9));
    let one_left = [(true, Some(90), "1"), (false, None, "1"), (true, None, "1")];
    let (offered, stale, ..) = steered(r#", "keep_freshest": true"#, &one_left);
    assert_eq!((offered.as_str(), stale), ("b", false), "no lagging region is kept while another is fresh");
}

#[test]
fn a_ttl_ends_before_the_chosen_region_may_lag_or_a_better_one_may_be_back() {
    let fresh = [(false, None, "1"), (false, None, "1"), (false, None, "1")];
    assert_eq!(steered("", &fresh).3, 15);
    let better_lags = [(true, None, "1"), (false, None, "1"), (false, None, "1")];
    assert_eq!(steered("", &better_lags).3, 9);
    let worse_lags = [(false, None, "1"), (true, None, "1"), (false, None, "1")];
    assert_eq!(steered("", &worse_lags).3, 15);
}

#[test]
fn a_region_with_another_version_is_withheld_by_the_pin_or_by_most() {
    let copies = [(false, None, "old"), (false, None, "new"), (false, None, "new")];
    let group = r#", "group": "version", "keep_freshest": true"#;
    assert_eq!(steered(group, &copies).0, "b c");
    assert_eq!(steered(&format!(r#"{group}, "version": "old""#), &copies).0, "a");
    let (offered, stale, reasons, _) = steered(&format!(r#"{group}, "version": "newest""#), &copies);
    assert_eq!((offered.as_str(), stale, reasons), ("", false, vec!["version"; 3]), "another version is never kept");
    let tie = [(false, None, "old"), (false, None, "new"), (true, Some(90), "old")];
    assert_eq!(steered(group, &tie).0, "a", "a copy that lags still counts for the version");
}

#[test]
fn a_region_whose_version_nobody_knows_is_withheld_or_not_as_the_rules_say() {
    let copies = [(false, None, ""), (false, None, "new"), (false, None, "new")];
    let (group, ignore) = (r#", "group": "version""#, r#", "unknown": "ignore""#);
    let (offered, _, reasons, _) = steered(group, &copies);
    assert_eq!((offered.as_str(), reasons), ("b c", vec!["version"]));
    assert_eq!(steered(&format!("{group}{ignore}"), &copies).0, "a b c");
    let pinned = format!(r#"{group}, "version": "old""#);
    assert_eq!(steered(&pinned, &copies).0, "", "no copy is known to have the pinned version");
    assert_eq!(steered(&format!("{pinned}{ignore}"), &copies).0, "a");
    let unheard = [(false, None, ""); 3];
    assert_eq!(steered(&pinned, &unheard).0, "a b c", "nothing is known of any copy");
}
