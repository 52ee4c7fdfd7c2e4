//! Loads of regions: capacities added up, marks with their defaults, and loads that make no sense.

use serde_json::{Value, json};

use super::super::*;
use super::{assert_refused, compile, sound};

/// The sound document with capacities, loads, and clients that DNS moves.
fn loaded() -> Value {
    let mut document = sound();
    document["regions"]["fra"]["load"] = json!({ "low": 0.6, "high": 0.8, "demand": 300, "warmup": "2m" });
    document["regions"]["fra"]["endpoints"]["fra-1"]["capacity"] = json!(120);
    document["regions"]["fra"]["endpoints"]["fra-2"] = json!({ "url": "https://fra2.example/v1", "capacity": 80 });
    document["regions"]["lon"]["load"] = json!({ "capacity": 50 });
    document["services"]["chat"]["shed_at"] = json!("dns");
    document["services"]["chat"]["slew"] = json!("10%/1m");
    document
}

#[test]
fn loads_are_compiled_with_the_capacities_of_endpoints_added_up() {
    let table = compile(&loaded()).unwrap();
    let load = |name: &str| *table.region(table.region_named(name).unwrap()).load.clone().unwrap();
    let fra = load("fra");
    assert_eq!((fra.low, fra.high, fra.warmup), (rules::Ratio(600_000), rules::Ratio(800_000), Millis(120_000)));
    assert_eq!((fra.capacity, fra.demand), (Some(200), Some(300)));
    assert_eq!(load("lon"), rules::RegionLoad { capacity: Some(50), ..rules::RegionLoad::default() });
    let shedding = table.service(table.service_named("chat").unwrap()).shedding;
    assert_eq!((shedding.moves, shedding.at, shedding.slew.to_string()), (true, rules::ShedAt::Dns, "10%/1m".into()));

    let plain = compile(&sound()).unwrap();
    assert!(plain.regions().iter().all(|region| region.load.is_none()), "no load is set");
    let shedding = plain.services()[0].shedding;
    assert_eq!((shedding.moves, shedding.at), (true, rules::ShedAt::Edge), "fra has an endpoint");
}

#[test]
fn one_mark_alone_moves_the_default_of_the_other() {
    for (given, low, high) in [
        (json!({ "low": 0.95 }), 950_000, 975_000),
        (json!({ "high": 0.5 }), 250_000, 500_000),
        (json!({}), 700_000, 900_000),
    ] {
        let mut document = loaded();
        document["regions"]["lon"]["load"] = given;
        let table = compile(&document).unwrap();
        let load = table.region(table.region_named("lon").unwrap()).load.clone().unwrap();
        assert_eq!((load.low.0, load.high.0), (low, high));
    }
}

#[test]
fn regional_sharding_never_sheds() {
    let mut document = loaded();
    document["services"]["chat"]["pattern"] = json!("regional-sharding");
    assert!(!compile(&document).unwrap().services()[0].shedding.moves);
    document["services"]["chat"]["shed"] = json!("spill");
    let violations = compile(&document).unwrap_err();
    assert_eq!(violations[0].pointer, "/services/chat/shed");
    assert!(violations[0].message.contains("regional-sharding"), "{violations:?}");
}

#[test]
fn loads_that_make_no_sense_are_refused() {
    let fra = |key: &'static str, value: Value| move |d: &mut Value| d["regions"]["fra"]["load"][key] = value;
    for bad in [json!(0), json!(-0.5), json!(1.5), json!(70), json!("0.7"), Value::Null] {
        assert_refused(fra("low", bad), "/regions/fra/load/low", "write a");
    }
    assert_refused(
        |d| d["regions"]["fra"]["load"] = json!({ "low": 0.9, "high": 0.7 }),
        "/regions/fra/load",
        "isn't below",
    );
    assert_refused(|d| d["regions"]["fra"]["load"] = json!({ "low": 1 }), "/regions/fra/load", "isn't below");
    assert_refused(fra("capacity", json!(0)), "/regions/fra/load/capacity", "whole number from 1");
    assert_refused(fra("demand", json!(-1)), "/regions/fra/load/demand", "whole number from 0");
    assert_refused(fra("warmup", json!("2h")), "/regions/fra/load/warmup", "from \"0s\" to \"1h\"");
    assert_refused(fra("lwo", json!(0.5)), "/regions/fra/load/lwo", "did you mean \"low\"");
    let endpoint = |value: Value| move |d: &mut Value| d["regions"]["fra"]["endpoints"]["fra-1"]["capacity"] = value;
    assert_refused(endpoint(json!(1.5)), "/regions/fra/endpoints/fra-1/capacity", "whole number");
    let twice = |d: &mut Value| {
        d["regions"]["fra"]["load"] = json!({ "capacity": 5 });
        d["regions"]["fra"]["endpoints"]["fra-1"]["capacity"] = json!(5);
    };
    assert_refused(twice, "/regions/fra", "leave it to the endpoints");
    let chat = |key: &'static str, value: Value| move |d: &mut Value| d["services"]["chat"][key] = value;
    assert_refused(chat("slew", json!("5%")), "/services/chat/slew", "\"5%/10s\"");
    assert_refused(chat("shed", json!("always")), "/services/chat/shed", "\"never\"");
    assert_refused(chat("shed_at", json!("both")), "/services/chat/shed_at", "\"edge\"");
    let bare = |d: &mut Value| {
        d["regions"]["fra"]["endpoints"] = json!({});
        d["services"]["chat"]["shed_at"] = json!("edge");
    };
    assert_refused(bare, "/services/chat/shed_at", "write \"dns\"");
}
