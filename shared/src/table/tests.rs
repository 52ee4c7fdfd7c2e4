//! Documents that compile, and documents that are refused, with the place of each mistake. No text, however broken, may
//! make the compiler panic.

mod bundles;
mod fleet;
mod loads;
mod names;
mod quotas;
mod rollouts;

use serde_json::{Value, json};

use super::*;
use crate::geo;
use crate::testing::{Random, document};
use crate::turns::{Turns, at_once};

fn sound() -> Value {
    json!({
        "version": 1, "revision": 7,
        "jurisdictions": { "eu": { "include": ["EU"] }, "uk": { "countries": ["GB"] }, "us": { "countries": ["US"] } },
        "regions": {
            "fra": { "countries": ["DE"], "answers": { "A": ["192.0.2.10"] },
                     "endpoints": { "fra-1": { "url": "https://fra1.example/v1", "secret": "FRA_KEY" } } },
            "lon": { "countries": ["GB"], "answers": { "A": ["192.0.2.20"] } },
        },
        "services": { "chat": {
            "hosts": ["chat.example"], "pattern": "active-active", "regions": ["fra", "lon"],
            "residency": [ { "clients": ["eu"], "process_in": ["eu"] }, { "clients": ["*"], "process_in": [["uk",
                "eu"]] } ],
        } },
        "tenants": { "acme": { "key_sha256": [KeyDigest::of_key("sk-acme").to_string()], "residency": "eu",
            "services": ["chat"] } },
        "networks": [ { "prefix": "198.51.100.0/24", "country": "DE" }, { "prefix": "198.51.100.128/25",
            "country": "GB" } ],
        "overrides": [ { "region": "lon", "status": "down", "until": "2026-12-01T06:00:00Z", "reason": "drill" } ],
    })
}

fn compile(document: &Value) -> Result<Table, Vec<Violation>> {
    Table::compile(document.to_string().as_bytes())
}

/// The violations of the sound document with one change.
fn refused(change: impl FnOnce(&mut Value)) -> Vec<String> {
    let mut document = sound();
    change(&mut document);
    let mut lines: Vec<String> = match compile(&document) {
        Ok(_) => Vec::new(),
        Err(violations) => violations.iter().map(ToString::to_string).collect(),
    };
    lines.sort();
    lines
}

#[track_caller]
fn assert_refused(change: impl FnOnce(&mut Value), pointer: &str, hint: &str) {
    let lines = refused(change);
    let [line] = &lines[..] else { panic!("one violation expected: {lines:#?}") };
    assert!(line.starts_with(&format!("{pointer}: ")), "{line}");
    assert!(line.contains(hint), "{line}");
}

#[test]
fn a_large_document_compiles_in_turns_to_the_same() {
    let mut document = sound();
    let tenant = document["tenants"]["acme"].clone();
    for i in 0..2_000 {
        document["tenants"][format!("tenant-{i}")] = tenant.clone();
        document["tenants"][format!("tenant-{i}")]["key_sha256"] =
            json!([KeyDigest::of_key(&i.to_string()).to_string()]);
        let network = json!({ "prefix": format!("10.{}.{}.0/24", i >> 8, i & 255), "country": "FR" });
        document["networks"].as_array_mut().unwrap().push(network);
    }
    let pauses = std::rc::Rc::new(std::cell::Cell::new(0));
    let counted = std::rc::Rc::clone(&pauses);
    let pause = move || {
        counted.set(counted.get() + 1);
        Box::pin(core::future::ready(())) as core::pin::Pin<Box<dyn Future<Output = ()>>>
    };
    let in_turns = |document: &Value| {
        let (text, turns) = (document.to_string(), &mut Turns::new(&pause));
        at_once(async {
            let sha256 = Revision::digest_in_turns(text.as_bytes(), turns).await;
            Table::compile_in_turns(text.as_bytes(), sha256, turns).await
        })
    };
    let (whole, pieces) = (compile(&document).unwrap(), in_turns(&document).unwrap());
    assert!(pauses.get() > 10, "{}", pauses.get());
    assert_eq!(pieces.revision(), whole.revision());
    assert!(pieces.ranks_like(&whole));
    assert_eq!(format!("{:?}", pieces.tenants()), format!("{:?}", whole.tenants()));
    assert_eq!(format!("{:?}", pieces.regions()), format!("{:?}", whole.regions()));
    assert_eq!(format!("{:?}", pieces.services()), format!("{:?}", whole.services()));
    assert_eq!(pieces.keys, whole.keys);
    assert_eq!(pieces.hosts.service_of("chat.example"), whole.hosts.service_of("chat.example"));
    at_once(pieces.free(&mut Turns::unbroken()));

    // Violations are reported as well, all of them, in the same order.
    document["tenants"]["tenant-7"]["residency"] = json!("nowhere");
    document["tenants"]["tenant 8"] = tenant;
    document["networks"][3]["country"] = json!("XX1");
    let (whole, pieces) = (compile(&document).unwrap_err(), in_turns(&document).unwrap_err());
    assert_eq!(pieces, whole);
    assert_eq!(whole.len(), 4, "the bad name, its key that stands twice, and the two others: {whole:#?}");
}

#[test]
fn a_sound_document_compiles() {
    let table = compile(&sound()).unwrap();
    assert_eq!(table.revision().number, 7);
    assert_eq!(table.service_of_host("CHAT.example"), table.service_named("chat"));
    assert!(table.service(table.service_named("chat").unwrap()).requires_key);
    assert!(Table::compile(br#"{"version":1,"revision":1}"#).is_ok(), "static zones only");
}

#[test]
fn cors_lists_origins_and_any_origin_needs_keys() {
    let with = |origins: Value| {
        move |document: &mut Value| document["services"]["chat"]["cors"] = json!({ "origins": origins })
    };
    let sound = |origins: Value| refused(with(origins)).is_empty();
    assert!(sound(json!(["https://app.example.com", "http://localhost:3000"])) && sound(json!(["*"])));
    assert_refused(with(json!([])), "/services/chat/cors/origins", "");
    assert_refused(with(json!(["https://app.example.com/"])), "/services/chat/cors/origins/0", "ends with its host");
    assert_refused(with(json!(["*", "https://a.example"])), "/services/chat/cors", "stand alone");
    let no_keys = |document: &mut Value| {
        with(json!(["*"]))(document);
        document["tenants"] = json!({});
    };
    assert_refused(no_keys, "/services/chat/cors/origins", "no tenant names");
    let long = |document: &mut Value| {
        document["services"]["chat"]["cors"] = json!({ "origins": ["https://a.example"], "max_age": "48h" });
    };
    assert_refused(long, "/services/chat/cors/max_age", "");
    let body = |bytes: u64| {
        move |document: &mut Value| document["services"]["chat"]["limits"] = json!({ "body_bytes": bytes })
    };
    assert!(refused(body(64 << 20)).is_empty());
    assert_refused(body((64 << 20) + 1), "/services/chat/limits/body_bytes", "");
}

#[test]
fn how_long_is_waited_for_a_first_word() {
    let service = |value: Value| {
        let mut document = sound();
        document["services"]["chat"].as_object_mut().unwrap().append(&mut value.as_object().unwrap().clone());
        let table = compile(&document).unwrap();
        let index = table.service_named("chat").unwrap();
        (table.service(index).limits.first_token.0, table.service(index).keepalive.map(|every| every.0))
    };
    assert_eq!(service(json!({})), (120_000, None));
    assert_eq!(service(json!({ "limits": { "headers_streamed": "5m" }, "keepalive": "15s" })), (300_000, Some(15_000)));
    assert_eq!(service(json!({ "limits": { "headers_streamed": "5m", "first_token": "1m" } })).0, 60_000);
    let often = |document: &mut Value| document["services"]["chat"]["keepalive"] = json!("500ms");
    assert_refused(often, "/services/chat/keepalive", "from \"1s\"");
}

#[test]
fn the_key_of_a_tenant_finds_it() {
    let table = compile(&sound()).unwrap();
    assert_eq!(table.tenant_of_key(&KeyDigest::of_key("sk-acme")), table.tenant_named("acme"));
    assert_eq!(table.tenant_of_key(&KeyDigest::of_key("sk-other")), None);
}

#[test]
fn the_longest_prefix_places_an_address() {
    let table = compile(&sound()).unwrap();
    let country = |text: &str| table.network_of(text.parse().unwrap()).map(|place| place.country.to_string());
    assert_eq!(country("198.51.100.1").as_deref(), Some("DE"));
    assert_eq!(country("198.51.100.200").as_deref(), Some("GB"));
    assert_eq!(country("::ffff:198.51.100.200").as_deref(), Some("GB"), "v4-mapped");
    assert_eq!(country("198.51.101.1"), None);
}

#[test]
fn names_of_nothing_are_told_with_the_nearest_name() {
    assert_refused(
        |d| d["services"]["chat"]["regions"][1] = json!("lom"),
        "/services/chat/regions/1",
        "did you mean \"lon\"",
    );
    assert_refused(
        |d| d["services"]["chat"]["residency"][0]["clients"] = json!(["ue"]),
        "/services/chat/residency/0/clients/0",
        "did you mean",
    );
    assert_refused(
        |d| d["services"]["chat"]["residency"][0]["process_in"] = json!([["eu", "fr"]]),
        "/services/chat/residency/0/process_in/0/1",
        "isn't declared",
    );
    assert_refused(|d| d["tenants"]["acme"]["services"] = json!(["chta"]), "/tenants/acme/services/0", "\"chat\"");
    assert_refused(|d| d["tenants"]["acme"]["residency"] = json!("mars"), "/tenants/acme/residency", "isn't declared");
    assert_refused(|d| d["overrides"][0]["region"] = json!("paris"), "/overrides/0/region", "isn't declared");
}

#[test]
fn countries_are_iso_codes_or_jurisdictions() {
    assert_refused(|d| d["regions"]["lon"]["countries"] = json!(["UK"]), "/regions/lon/countries/0", "\"GB\"");
    assert_refused(|d| d["regions"]["fra"]["countries"] = json!(["de"]), "/regions/fra/countries/0", "\"DE\"");
    assert_refused(|d| d["regions"]["fra"]["countries"] = json!(["*", "DE"]), "/regions/fra/countries/0", "alone");
    assert_refused(|d| d["regions"]["fra"]["countries"] = json!([]), "/regions/fra/countries", "at least one");
    assert_refused(|d| d["jurisdictions"]["DE"] = json!({ "countries": ["DE"] }), "/jurisdictions/DE", "country code");
    assert_refused(
        |d| d["jurisdictions"]["xx"] = json!({ "include": ["NATO"] }),
        "/jurisdictions/xx/include/0",
        "built-in",
    );
}

#[test]
fn a_catch_all_rule_comes_last_but_for_unknown() {
    let rules = |order: Value| move |d: &mut Value| d["services"]["chat"]["residency"] = order;
    let (any, eu, unknown) = (
        json!({ "clients": ["*"], "process_in": ["eu"] }),
        json!({ "clients": ["eu"], "process_in": ["eu"] }),
        json!({ "clients": ["unknown"], "process_in": ["eu"] }),
    );
    assert_eq!(refused(rules(json!([eu, any, unknown]))), [""; 0]);
    assert_refused(rules(json!([any, eu])), "/services/chat/residency/1", "move \"*\" last");
}

#[test]
fn regions_of_a_service_publish_the_same_types() {
    assert_refused(
        |d| d["regions"]["lon"]["answers"]["AAAA"] = json!(["2001:db8::1"]),
        "/services/chat/regions",
        "same types",
    );
    assert_refused(
        |d| {
            d["regions"]["lon"].as_object_mut().unwrap().remove("answers");
        },
        "/services/chat/regions",
        "no \"answers\"",
    );
    assert_refused(
        |d| d["services"]["chat"]["denied_answers"] = json!({ "TXT": ["no"] }),
        "/services/chat/denied_answers",
        "same types",
    );
    assert_refused(
        |d| d["regions"]["fra"]["answers"] = json!({ "A": ["192.0.2.1"], "CNAME": ["a.example"] }),
        "/regions/fra/answers",
        "stands alone",
    );
    assert_refused(
        |d| d["regions"]["fra"]["answers"]["HTTPS"] = json!(["1 . alpn=h2"]),
        "/services/chat/regions",
        "publishes A, HTTPS",
    );
    assert_refused(
        |d| d["regions"]["fra"]["answers"] = json!({ "HTTPS": ["1 ."], "CNAME": ["a.example"] }),
        "/regions/fra/answers",
        "stands alone",
    );
}

#[test]
fn service_bindings_are_told_where_they_are_wrong() {
    let binding =
        |text: &'static str| move |d: &mut Value| d["regions"]["fra"]["answers"]["HTTPS"] = json!(["1 .", text]);
    assert_refused(binding("1 . ipv4hint=192.0.2.1"), "/regions/fra/answers/HTTPS/1", "are derived");
    assert_refused(binding("1"), "/regions/fra/answers/HTTPS/1", "no target");
    assert_refused(binding("0 a.example"), "/regions/fra/answers/HTTPS", "an alias stands alone");
    assert_refused(
        |d| {
            let host = d["services"]["chat"]["hosts"][0].clone();
            for region in d["regions"].as_object_mut().unwrap().values_mut() {
                region["answers"]["SVCB"] = json!([format!("0 {}", host.as_str().unwrap())]);
            }
        },
        "/services/chat/hosts",
        "loop",
    );
}

#[test]
fn secrets_and_keys_stand_in_no_message() {
    let canary = "sk-live-canary";
    for lines in [
        refused(|d| d["regions"]["fra"]["endpoints"]["fra-1"]["secret"] = json!(canary)),
        refused(|d| d["tenants"]["acme"]["key_sha256"] = json!([canary])),
        refused(|d| {
            d["regions"]["fra"]["endpoints"]["fra-1"]["url"] = json!(format!("https://user:{canary}@a.example/"));
        }),
    ] {
        assert_eq!(lines.len(), 1);
        assert!(!lines[0].contains(canary), "{lines:?}");
    }
}

#[test]
fn what_may_stand_once_is_refused_twice() {
    let other = json!({ "hosts": ["Chat.Example."], "pattern": "active-active", "regions": ["fra"],
                        "residency": [{ "clients": ["*"], "process_in": ["eu"] }] });
    assert_refused(|d| d["services"]["other"] = other, "/services/other/hosts/0", "/services/chat/hosts/0");
    assert_refused(
        |d| d["tenants"]["twin"] = d["tenants"]["acme"].clone(),
        "/tenants/twin/key_sha256/0",
        "/tenants/acme/key_sha256/0",
    );
    let twice = json!({ "region": "lon", "status": "down", "until": "2026-12-01T06:00:00Z", "reason": "drill" });
    assert_refused(|d| d["overrides"].as_array_mut().unwrap().push(twice), "/overrides/1/region", "/overrides/0 too");
    assert_refused(|d| d["networks"][1]["prefix"] = json!("198.51.100.0/24"), "/networks/1/prefix", "/networks/0");
    assert_refused(|d| d["networks"][1]["prefix"] = json!("198.51.100.1/24"), "/networks/1/prefix", "198.51.100.0/24");
    assert_refused(
        |d| d["services"]["chat"]["regions"] = json!(["fra", "fra", "lon"]),
        "/services/chat/regions/1",
        "twice",
    );
    let text = sound().to_string().replacen("\"version\":1", "\"version\":1,\"version\":1", 1);
    let violations = Table::compile(text.as_bytes()).unwrap_err();
    assert_eq!(violations[0].pointer, "/version");
}

#[test]
fn an_override_may_be_of_one_endpoint_which_has_to_be_there() {
    let forced = |endpoint: &str| {
        json!({ "region": "fra", "endpoint": endpoint, "status": "down",
        "until": "2026-12-01T06:00:00Z", "reason": "drill" })
    };
    let mut document = sound();
    let name = document["regions"]["fra"]["endpoints"].as_object().unwrap().keys().next().unwrap().clone();
    document["overrides"].as_array_mut().unwrap().push(forced(&name));
    let table = Table::compile(document.to_string().as_bytes()).unwrap();
    let reported: Vec<_> =
        table.endpoint_overrides().map(|(_, position, one)| (position, one.of().to_string())).collect();
    assert_eq!(reported, [(0, format!("fra/{name}"))]);
    assert!(
        table.override_of(table.region_named("fra").unwrap()).is_none(),
        "the override isn't of the region as a whole"
    );
    let late = Timestamp::parse("2027-01-01T00:00:00Z").unwrap();
    assert!(table.warnings(late).iter().any(|one| one.pointer == "/overrides/1" && one.message.contains("fra/")));
    let other = format!("{name}0");
    assert_refused(
        |d| d["overrides"].as_array_mut().unwrap().push(forced(&other)),
        "/overrides/1/endpoint",
        &format!("did you mean {name:?}?"),
    );
    assert_refused(
        |d| d["overrides"].as_array_mut().unwrap().extend([forced(&name), forced(&name)]),
        "/overrides/2/endpoint",
        "/overrides/1 too",
    );
}

#[test]
fn every_mistake_is_reported_at_once() {
    let lines = refused(|d| {
        d["revision"] = json!(-1);
        d["regions"]["fra"]["endpoints"]["fra-1"]["url"] = json!("http://fra1.example");
        d["services"]["chat"]["pattern"] = json!("round-robin");
        d["services"]["chat"]["ttl"] = json!({ "min": 60, "max": 5 });
        d["networks"][0]["country"] = json!("Germany");
        d["overrides"][0]["until"] = json!("tomorrow");
        d["colour"] = json!("blue");
    });
    let places: Vec<&str> = lines.iter().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(
        places,
        [
            "/colour",
            "/networks/0/country",
            "/overrides/0/until",
            "/regions/fra/endpoints/fra-1/url",
            "/revision",
            "/services/chat/pattern",
            "/services/chat/ttl",
        ]
    );
}

#[test]
fn values_that_could_not_be_read_are_reported_once() {
    let bad = json!({ "A": ["192.0.2.999"] });
    assert_refused(|d| d["regions"]["fra"]["answers"] = bad.clone(), "/regions/fra/answers/A/0", "IPv4");
    assert_refused(|d| d["services"]["chat"]["denied_answers"] = bad, "/services/chat/denied_answers/A/0", "IPv4");
}

#[test]
fn a_rule_is_counted_though_it_cannot_be_read() {
    let lines = refused(|d| {
        d["services"]["chat"]["residency"] =
            json!([7, { "clients": ["*"], "process_in": ["eu"] }, { "clients": ["uk"], "process_in": ["uk"] }]);
    });
    assert!(lines.iter().any(|line| line.contains("comes after rule 1")), "{lines:#?}");
}

#[test]
fn services_that_differ_in_their_names_only_rank_alike() {
    let mut document = sound();
    let mut twin = document["services"]["chat"].clone();
    twin["hosts"] = json!(["twin.example"]);
    twin["ttl"] = json!({ "max": 300 });
    let mut other = twin.clone();
    other["hosts"] = json!(["other.example"]);
    other["regions"] = json!(["lon", "fra"]);
    document["services"]["twin"] = twin;
    document["services"]["other"] = other;
    let table = compile(&document).unwrap();
    let service = |name| table.service(table.service_named(name).unwrap());
    assert!(service("chat").ranks_like(service("twin")));
    assert!(!service("chat").ranks_like(service("other")), "the order written decides for clients without a place");
}

#[test]
fn codes_of_no_country_are_refused_with_what_they_are() {
    for (code, hint) in [
        ("ZZ", "isn't known; write a country's ISO 3166-1 code, or leave it out: who has none is \"unknown\""),
        ("EU", "somewhere in Europe"),
        ("A1", "anonymous proxy"),
        ("UK", "write \"GB\""),
        ("el", "write \"GR\""),
        ("gb", "in upper case: \"GB\""),
        ("QQ", "such as \"DE\""),
    ] {
        assert_refused(|d| d["networks"][0]["country"] = json!(code), "/networks/0/country", hint);
    }
    assert_eq!(refused(|d| d["networks"][0]["country"] = json!("XK")), [""; 0], "Kosovo");
}

#[test]
fn what_is_excluded_has_to_be_included() {
    let eu = |exclude: Value| move |d: &mut Value| d["jurisdictions"]["eu"]["exclude"] = exclude;
    assert_eq!(refused(eu(json!(["GF", "YT", "AX"]))), [""; 0]);
    assert_refused(eu(json!(["NC"])), "/jurisdictions/eu/exclude/0", "overseas country or territory");
    assert_refused(eu(json!(["FR", "US"])), "/jurisdictions/eu/exclude/1", "no included set holds; leave it out");
    assert_refused(eu(json!(["UK"])), "/jurisdictions/eu/exclude/0", "\"GB\"");
    let both = |d: &mut Value| {
        d["jurisdictions"]["uk"] = json!({ "countries": ["GB", "FR"], "include": ["EU"], "exclude": ["FR"] });
    };
    assert_refused(both, "/jurisdictions/uk/exclude/0", "in \"countries\" too");
    let all: Vec<String> = geo::built_in_set("EU").unwrap().iter().map(|code| code.to_string()).collect();
    assert_refused(eu(json!(all)), "/jurisdictions/eu", "excludes all");
}

#[test]
fn a_jurisdiction_is_what_it_includes_but_for_what_it_excludes() {
    let mut document = sound();
    document["jurisdictions"]["eu"] = json!({ "include": ["EU"], "exclude": ["GF"], "countries": ["SJ"] });
    let table = compile(&document).unwrap();
    let holds = |code: &str| !table.jurisdictions_of(CountryCode::parse(code).unwrap()).is_empty();
    assert_eq!(["FR", "GP", "SJ", "GF", "PF"].map(holds), [true, true, true, false, false]);
}

/// A tenant that declares "uk" must not be processed wherever any client may be.
#[test]
fn a_declared_residency_never_falls_to_anybody() {
    let declares = |residency: Value| move |d: &mut Value| d["tenants"]["acme"]["residency"] = residency;
    assert_refused(declares(json!("us")), "/tenants/acme/residency", "\"process_in\": [\"us\"]");
    assert_refused(declares(json!(["uk", "us"])), "/tenants/acme/residency", "no rule of the service chat names");
    assert_eq!(refused(declares(json!(["us", "eu"]))), [""; 0], "a rule names eu and accepts it");
    let fenced = |d: &mut Value| {
        d["tenants"]["acme"]["residency"] = json!("us");
        d["tenants"]["acme"]["process_in"] = json!(["uk"]);
    };
    assert_eq!(refused(fenced), [""; 0], "a tenant's own fence needs no rule");
    let without_anybody = |d: &mut Value| {
        d["tenants"]["acme"]["residency"] = json!("us");
        d["services"]["chat"]["residency"] = json!([{ "clients": ["eu", "unknown"], "process_in": ["eu"] }]);
    };
    assert_eq!(refused(without_anybody), [""; 0], "the tenant is denied, which is only a warning");
}

#[test]
fn what_cannot_be_read_is_no_residency_that_falls_to_anybody() {
    assert_refused(
        |d| d["services"]["chat"]["residency"][0]["clients"] = json!(["ue"]),
        "/services/chat/residency/0/clients/0",
        "did you mean",
    );
    assert_refused(
        |d| d["tenants"]["acme"]["process_in"] = json!(["mars"]),
        "/tenants/acme/process_in/0",
        "isn't declared",
    );
    assert_refused(|d| d["tenants"]["acme"]["process_in"] = json!([]), "/tenants/acme/process_in", "at least one");
    assert_refused(|d| d["tenants"]["acme"]["process_in"] = json!([["*"]]), "/tenants/acme/process_in/0/0", "alone");
}

/// However a document is broken, the result is a table or violations with a place, never a panic.
#[test]
fn broken_documents_never_panic() {
    const CASES: u64 = 5_000;
    let mut reported = 0;
    for seed in 0..CASES {
        let mut random = Random::new(seed);
        let mut document = document(&mut random);
        for _ in 0..=random.below(3) {
            break_something(&mut random, &mut document);
        }
        let text = document.to_string();
        if let Err(violations) = Table::compile(text.as_bytes()) {
            assert!(!violations.is_empty());
            assert!(
                violations.iter().all(|violation| violation.pointer.is_empty() || violation.pointer.starts_with('/'))
            );
            reported += 1;
        }
        let cut = random.below(text.len());
        assert!(Table::compile(&text.as_bytes()[..cut]).is_err());
    }
    println!("broken documents: {CASES} random cases, {reported} refused");
    assert!(reported > CASES / 2);
}

fn break_something(random: &mut Random, value: &mut Value) {
    let inner: Vec<&mut Value> = match value {
        Value::Object(map) => map.values_mut().collect(),
        Value::Array(items) => items.iter_mut().collect(),
        _ => Vec::new(),
    };
    let count = inner.len();
    if count > 0 && random.chance(85) {
        let chosen = random.below(count);
        return inner.into_iter().nth(chosen).map_or((), |inner| break_something(random, inner));
    }
    let wrong = [
        json!(null),
        json!(-3),
        json!(1e300),
        json!(""),
        json!("§"),
        json!([]),
        json!({}),
        json!({ "x": [1] }),
        json!(true),
    ];
    *value = random.pick(&wrong).clone();
}

#[test]
fn a_document_says_how_long_it_may_be_used_unconfirmed() {
    let stale_for = |rules: Value| {
        let mut document = sound();
        document["rules"] = rules;
        compile(&document).map(|table| table.stale_for().to_string())
    };
    assert_eq!(compile(&sound()).unwrap().stale_for().to_string(), "1h", "an hour by default");
    assert_eq!(stale_for(json!({})).unwrap(), "1h");
    assert_eq!(stale_for(json!({ "stale_for": "0s" })).unwrap(), "0s");
    assert_eq!(stale_for(json!({ "stale_for": "30m" })).unwrap(), "30m");
    assert_refused(|d| d["rules"] = json!({ "stale_for": "0" }), "/rules/stale_for", "a duration such as");
    assert_refused(|d| d["rules"] = json!({ "stale_for": "9999h" }), "/rules/stale_for", "from \"0s\" to \"8760h\"");
    assert_refused(|d| d["rules"] = json!({ "stale": "1h" }), "/rules/stale", "stale_for");
    assert_refused(|d| d["rules"] = json!("1h"), "/rules", "an object");
}
