//! Random test cases. Takes a generator of random numbers, returns valid documents, requests of clients and conditions.
//! Called by property tests, natively and in Wasm.

use core::net::{IpAddr, Ipv4Addr};

use serde_json::{Value, json};
use sha2::Digest;

use crate::explain::explain;
use crate::geo::{Coordinates, CountryCode};
use crate::health::{AspectValue, Forced, Lag, RegionHealth, ReleaseHealth, ReplicaHealth, Status};
use crate::steer::{Ask, Client, Conditions, Cooling, Local, PathClass};
use crate::table::{RegionIndex, ServiceIndex, Table, TenantIndex};
use crate::time::{Millis, Timestamp};

/// The time around which the ends of random overrides and cool-downs lie.
const NOW: Timestamp = Timestamp(1_800_000_000_000);

const COUNTRIES: [&str; 16] =
    ["DE", "FR", "AT", "IE", "GB", "US", "CA", "CH", "NO", "IS", "JP", "SG", "BR", "AQ", "RE", "PF"];
const MODELS: [&str; 3] = ["chat-large", "chat-small", "embed"];

/// SplitMix64, a generator that is small, fast, and gives the same numbers on every machine.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator of the sequence that belongs to `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to `bound` − 1; 0 for a bound of 0.
    #[allow(clippy::cast_possible_truncation)] // less than a usize
    pub fn below(&mut self, bound: usize) -> usize {
        (self.bits() % (bound as u64).max(1)) as usize
    }

    /// True in `percent` of 100 cases.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of the items.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// A random choice of the items, at least `least` of them, in random order.
    pub fn some<T: Clone>(&mut self, items: &[T], least: usize) -> Vec<T> {
        let mut pool = items.to_vec();
        let count = least.min(pool.len()) + self.below(pool.len() + 1 - least.min(pool.len()));
        (0..count).map(|_| pool.swap_remove(self.below(pool.len()))).collect()
    }
}

/// A valid rules document.
#[must_use]
pub fn document(random: &mut Random) -> Value {
    let declared = [
        ("eu", json!({ "include": ["EU"] })),
        ("eea", json!({ "include": ["EEA"] })),
        ("mainland", json!({ "include": ["EU"], "exclude": ["RE", "GF"] })),
        ("uk", json!({ "countries": ["GB"] })),
        ("us", json!({ "countries": ["US"] })),
        ("dach", json!({ "countries": ["DE", "AT", "CH"] })),
        ("far-east", json!({ "countries": ["JP", "SG"] })),
    ];
    let jurisdictions = random.some(&declared, 1);
    let names: Vec<&str> = jurisdictions.iter().map(|(name, _)| *name).collect();
    let regions: Vec<String> = (0..=random.below(6)).map(|n| format!("r{n}")).collect();
    let described: serde_json::Map<_, _> = regions.iter().map(|name| (name.clone(), region(random, &names))).collect();
    let services: Vec<String> = (0..=random.below(2)).map(|n| format!("s{n}")).collect();
    let serving: serde_json::Map<_, _> =
        services.iter().map(|name| (name.clone(), service(random, name, &names, &regions))).collect();
    let tenants: serde_json::Map<_, _> =
        (0..random.below(3)).map(|n| tenant(random, n, &names, &services, &serving)).collect();
    let networks: Vec<Value> = (0..random.below(4))
        .map(|n| json!({ "prefix": format!("198.51.{n}.0/{}", 24 + n), "country": random.pick(&COUNTRIES) }))
        .collect();
    let overrides: Vec<Value> = random
        .some(&regions, 0)
        .into_iter()
        .filter(|_| random.chance(20))
        .collect::<Vec<_>>()
        .into_iter()
        .map(|name| {
            let until = Timestamp(NOW.0 + (random.below(7200) as i64 - 3600) * 1000).to_string();
            json!({ "region": name, "status": random.pick(&["up", "down"]), "until": until, "reason": "random" })
        })
        .collect();
    json!({
        "version": 1,
        "revision": 1 + random.below(1000),
        "jurisdictions": jurisdictions.into_iter().map(|(name, set)| (name.to_owned(),
            set)).collect::<serde_json::Map<_, _>>(),
        "regions": described,
        "services": serving,
        "tenants": tenants,
        "networks": networks,
        "overrides": overrides,
    })
}

/// A region with random countries, location and endpoints.
fn region(random: &mut Random, jurisdictions: &[&str]) -> Value {
    let countries = match random.below(10) {
        0 => vec!["*"],
        1 | 2 => vec![*random.pick(jurisdictions)],
        3 => random.some(&COUNTRIES, 1).into_iter().take(3).collect(),
        _ => vec![*random.pick(&COUNTRIES)],
    };
    let mut region = json!({ "countries": countries, "standby": random.chance(15) });
    if random.chance(40) {
        region["location"] = json!({ "latitude": degrees(random, 90), "longitude": degrees(random, 180) });
    }
    let endpoints: serde_json::Map<_, _> = (0..random.below(4))
        .map(|n| {
            let mut endpoint = json!({ "url": format!("https://e{n}.example/v1"), "priority": random.below(2),
                    "weight": 1 + random.below(3) });
            if random.chance(50) {
                let models = random.some(&MODELS, 1).into_iter();
                endpoint["models"] = models.map(|model| (model.to_owned(), json!(format!("up-{model}")))).collect();
            }
            (format!("e{n}"), endpoint)
        })
        .collect();
    region["endpoints"] = Value::Object(endpoints);
    region
}

#[allow(clippy::cast_precision_loss)] // small
fn degrees(random: &mut Random, bound: usize) -> f64 {
    random.below(bound * 200 + 1) as f64 / 100.0 - bound as f64
}

/// A service of some of the regions, with random rules of residency.
fn service(random: &mut Random, name: &str, jurisdictions: &[&str], regions: &[String]) -> Value {
    let pattern = *random.pick(&["active-active", "active-passive", "regional-sharding", "hub-and-spoke"]);
    let members = random.some(regions, 1);
    let mut residency: Vec<Value> = random
        .some(jurisdictions, 0)
        .into_iter()
        .map(|client| json!({ "clients": [client], "process_in": tiers(random, jurisdictions) }))
        .collect();
    if random.chance(60) {
        residency.push(json!({ "clients": ["*"], "process_in": tiers(random, jurisdictions) }));
    }
    if random.chance(30) || residency.is_empty() {
        residency.push(json!({ "clients": ["unknown"], "process_in": tiers(random, jurisdictions) }));
    }
    let mut service = json!({
        "hosts": [format!("{name}.example")],
        "pattern": pattern,
        "regions": members,
        "residency": residency,
        "when_all_down": random.pick(&["serve-fence", "fail"]),
    });
    if pattern == "hub-and-spoke" {
        service["hub"] = json!({ "region": random.pick(&members), "paths": ["/fine_tuning"] });
    }
    service
}

/// The tiers of a `process_in`: one, two or three sets of jurisdictions.
fn tiers(random: &mut Random, jurisdictions: &[&str]) -> Vec<Value> {
    (0..=random.below(2))
        .map(|_| match random.below(8) {
            0 => json!("*"),
            1 | 2 => json!(random.some(jurisdictions, 1)),
            _ => json!(random.pick(jurisdictions)),
        })
        .collect()
}

/// Whether a service of the tenant has a rule for `*` but no rule that names the residency which the tenant declares. A
/// document with such a tenant isn't valid.
fn falls_to_anybody(tenant: &Value, serving: &serde_json::Map<String, Value>) -> bool {
    let Some(declared) = tenant["residency"].as_array() else { return false };
    let services = tenant["services"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let clients = |name: &str| {
        let rules = serving[name]["residency"].as_array().into_iter().flatten();
        rules.flat_map(|rule| rule["clients"].as_array().into_iter().flatten()).collect::<Vec<_>>()
    };
    services.map(clients).any(|clients| {
        clients.iter().any(|client| **client == "*") && !clients.iter().any(|client| declared.contains(client))
    })
}

/// A tenant of some of the services.
fn tenant(
    random: &mut Random,
    n: usize,
    jurisdictions: &[&str],
    services: &[String],
    serving: &serde_json::Map<String, Value>,
) -> (String, Value) {
    let digest = crate::rules::KeyDigest::of_key(&format!("key-{n}")).to_string();
    let mut tenant = json!({ "key_sha256": [digest], "services": random.some(services, 1) });
    if random.chance(70) {
        tenant["residency"] = json!(random.some(jurisdictions, 1));
    }
    // A residency that only a rule's "*" matches is a violation unless the tenant has a fence of its own.
    if random.chance(30) || falls_to_anybody(&tenant, serving) {
        tenant["process_in"] = json!(tiers(random, jurisdictions));
    }
    (format!("t{n}"), tenant)
}

/// Adds quotas, service tiers and limits of tenants to a valid document. It stays valid.
pub fn limit(random: &mut Random, document: &mut Value) {
    let quotas: Vec<String> = (0..=random.below(2)).map(|n| format!("q{n}")).collect();
    let mut used = Vec::new();
    let regions = document["regions"].as_object_mut().into_iter().flat_map(|regions| regions.values_mut());
    let endpoints = regions.filter_map(|region| region["endpoints"].as_object_mut()).flat_map(|all| all.values_mut());
    for endpoint in endpoints {
        if random.chance(60) {
            let quota = random.pick(&quotas).clone();
            endpoint["quota"] = json!(quota);
            used.push(quota);
        }
        if random.chance(30) {
            endpoint["priority_as"] = json!(random.pick(&["vllm", "openai", "llm-d"]));
        }
    }
    used.sort();
    used.dedup();
    let amount = |random: &mut Random| 1 + random.below(10_000);
    document["quotas"] = used
        .iter()
        .map(|name| (name.clone(), json!({ "requests": amount(random), "tokens": amount(random) })))
        .collect::<serde_json::Map<_, _>>()
        .into();
    document["tiers"] = json!({ "gold": { "rank": 0, "refuse_at": 1.2 }, "batch": { "rank": 9, "refuse_at": 0.85 } });
    let tenants = document["tenants"].as_object_mut().into_iter().flat_map(|tenants| tenants.values_mut());
    for tenant in tenants {
        if random.chance(70) {
            tenant["tier"] = json!(random.pick(&["gold", "batch"]));
        }
        if random.chance(50) {
            tenant["budget"] = json!({ "tokens": amount(random), "per": "1d" });
            tenant["concurrency"] = json!(1 + random.below(5));
        }
        if let Some(quota) = used.first().filter(|_| random.chance(50)) {
            tenant["reserve"] = json!({ quota.as_str(): 0.01 });
        }
    }
}

/// Adds replicas of knowledge, copies of them, and services that need them to a valid document. It stays valid.
pub fn replicate(random: &mut Random, document: &mut Value) {
    document["replicas"] = json!({
        "kb": { "max_lag": "60s", "keep_freshest": random.chance(50) },
        "model": { "group": "version", "unknown": random.pick(&["withhold", "ignore"]) },
        "rows": { "max_lag": 100, "group": "version", "keep_freshest": random.chance(50) },
    });
    if random.chance(30) {
        document["replicas"]["rows"]["version"] = json!("a");
    }
    let copy = |reads: Value| {
        let mut copy = reads;
        copy["url"] = json!("https://kb.example/replica");
        copy
    };
    for region in document["regions"].as_object_mut().into_iter().flat_map(|regions| regions.values_mut()) {
        region["replicas"] = json!({
            "kb": match random.chance(20) {
                true => json!({ "leader": true }),
                false => copy(json!({ "as": "seconds", "read": "/l" })),
            },
            "model": copy(json!({ "as": "version", "read": "/v" })),
            "rows": copy(json!({ "as": "count", "read": "/n", "version": "/v", "leader": random.chance(10) })),
        });
    }
    let names = ["kb", "model", "rows"].map(str::to_owned);
    for service in document["services"].as_object_mut().into_iter().flat_map(|services| services.values_mut()) {
        let mut needs = serde_json::Map::new();
        for path in ["/", "/chat/completions", "/embeddings"] {
            if random.chance(60) {
                needs.insert(path.to_owned(), json!(random.some(&names, 0)));
            }
        }
        if !needs.is_empty() {
            service["needs"] = needs.into();
        }
    }
}

/// Adds releases of the models that clients ask for to a valid document. It stays valid.
pub fn release(random: &mut Random, document: &mut Value) {
    let endpoints = document["regions"].as_object().into_iter().flat_map(|regions| regions.values());
    let endpoints: Vec<&Value> =
        endpoints.filter_map(|region| region["endpoints"].as_object()).flat_map(|all| all.values()).collect();
    let has = |model: &str| {
        endpoints.iter().any(|endpoint| endpoint["models"].as_object().is_none_or(|all| all.contains_key(model)))
    };
    let models = MODELS.into_iter().filter(|model| has(model));
    let releases: serde_json::Map<_, _> = models
        .filter_map(|model| {
            let skew = *random.pick(&["warn", "withhold", "withhold"]);
            random.chance(70).then(|| (model.to_owned(), json!({ "skew": skew })))
        })
        .collect();
    if !releases.is_empty() {
        document["releases"] = releases.into();
    }
}

/// Random knowledge of what a region's endpoints run.
fn releases_health(random: &mut Random, table: &Table, region: &crate::table::Region) -> Vec<ReleaseHealth> {
    let mut known = Vec::new();
    for (release, of) in table.releases().iter().enumerate() {
        for (endpoint, (_, rule)) in region.endpoints.iter().enumerate() {
            if crate::table::endpoint_model(rule, &of.model).is_some() && random.chance(80) {
                let mut values = [(); 5]
                    .map(|()| *random.pick(&[AspectValue::Unknown, AspectValue::MatchesPin, AspectValue::Version(0)]));
                if random.chance(40) {
                    values[random.below(5)] = *random.pick(&[AspectValue::DiffersFromPin, AspectValue::Version(1)]);
                }
                known.push(ReleaseHealth { release, endpoint, values });
            }
        }
    }
    known
}

/// Random health of a region's copy of a replica.
fn copy_health(random: &mut Random, copy: &crate::table::RegionReplica) -> ReplicaHealth {
    let span = |random: &mut Random| Some(Millis(random.below(90_000) as u64)).filter(|_| random.chance(70));
    ReplicaHealth {
        replica: copy.replica.get(),
        status: *random.pick(&[Status::Up, Status::Down, Status::Unknown]),
        lag: random.chance(70).then(|| Lag::Amount(random.below(1_000) as u64)),
        is_leader: copy.is_leader,
        version: random.chance(80).then(|| (*random.pick(&["a", "b"])).into()),
        to_down: span(random),
        to_up: span(random),
    }
}

/// A random request of a client. The table has at least one service.
#[must_use]
#[allow(clippy::cast_possible_truncation)] // small
pub fn ask(random: &mut Random, table: &Table) -> Ask<'static> {
    let tenants = table.tenants().len();
    let coordinates = Coordinates::from_degrees(degrees(random, 90), degrees(random, 180));
    let client = Client {
        tenant: (tenants > 0 && random.chance(30)).then(|| TenantIndex(random.below(tenants) as u32)),
        address: random
            .chance(50)
            .then(|| IpAddr::V4(Ipv4Addr::new(198, 51, random.below(5) as u8, random.below(256) as u8))),
        country: CountryCode::parse(random.pick::<&str>(&COUNTRIES)).filter(|_| random.chance(85)),
        location: coordinates.filter(|_| random.chance(30)),
    };
    Ask {
        service: ServiceIndex(random.below(table.services().len()) as u32),
        client,
        model: random.chance(50).then(|| *random.pick(&MODELS)),
        path_class: if random.chance(20) { PathClass::Hub } else { PathClass::Inference },
        needs: None,
    }
}

/// Random health and cool-downs for a table, and the time.
#[must_use]
pub fn conditions(random: &mut Random, table: &Table) -> (Vec<RegionHealth>, Local, Timestamp) {
    let status = |random: &mut Random| *random.pick(&[Status::Up, Status::Up, Status::Down, Status::Unknown]);
    let span = |random: &mut Random| Some(Millis(random.below(90_000) as u64)).filter(|_| random.chance(70));
    let forced = |random: &mut Random, percent| {
        random.chance(percent).then(|| Forced {
            status: *random.pick(&[Status::Up, Status::Down]),
            until: NOW.after(Millis(random.below(120_000) as u64)),
            reason: "random".to_owned(),
        })
    };
    let health = table.regions().iter().map(|region| RegionHealth {
        probed: status(random),
        forced: forced(random, 10),
        stale: false,
        time_to_down: span(random),
        time_to_up: span(random),
        endpoints: region.endpoints.iter().map(|_| status(random)).collect(),
        forced_endpoints: match random.chance(20) {
            true => region.endpoints.iter().map(|_| forced(random, 50)).collect(),
            false => Vec::new(),
        },
        replicas: region.replicas.iter().map(|copy| copy_health(random, copy)).collect(),
        releases: releases_health(random, table, region),
    });
    let health: Vec<RegionHealth> = health.collect();
    let mut cooling = Vec::new();
    for (index, region) in (0..).zip(table.regions()) {
        for (endpoint, _) in &region.endpoints {
            if random.chance(15) {
                cooling.push(Cooling {
                    region: RegionIndex(index),
                    endpoint: endpoint.clone(),
                    model: random.chance(50).then(|| (*random.pick(&MODELS)).to_owned()),
                    until: NOW.after(Millis(random.below(60_000) as u64)),
                });
            }
        }
    }
    (health, Local { cooling }, NOW)
}

/// SHA-256, in hex, of the explanations of `cases` random steerings. It is equal on every machine for an equal seed.
///
/// # Panics
/// If a random document doesn't compile, which is a mistake of the generator.
#[must_use]
pub fn digest_of_steerings(seed: u64, cases: u32) -> String {
    let mut random = Random::new(seed);
    let mut hasher = sha2::Sha256::new();
    for _ in 0..cases {
        let table = Table::compile(document(&mut random).to_string().as_bytes()).expect("random documents are valid");
        let ask = ask(&mut random, &table);
        let (health, local, now) = conditions(&mut random, &table);
        let reported = explain(&table, &ask, &Conditions { health: &health, local: &local, now });
        hasher.update(serde_json::to_vec(&reported).unwrap_or_default());
    }
    crate::rules::KeyDigest(hasher.finalize().into()).to_string()
}
