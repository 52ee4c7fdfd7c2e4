//! Warnings about host names: steered ones, those of two address families, aliases in a circle.

use serde_json::{Value, json};

use super::super::*;
use super::{compile, sound};

/// The warnings of a document with one change, by place.
fn warned(change: impl FnOnce(&mut Value)) -> Vec<(String, String)> {
    let mut document = sound();
    change(&mut document);
    let warnings = compile(&document).unwrap().warnings(Timestamp(0));
    warnings.into_iter().map(|one| (one.pointer, one.message)).collect()
}

#[test]
fn monitors_and_endpoints_at_steered_names_are_told() {
    let reported = |host: &str| {
        let warnings = warned(|d| {
            d["services"]["chat"]["hosts"] = json!(["chat.example", "*.gpu.example", "a.gpu.example"]);
            d["regions"]["lon"]["monitor"] = json!({ "type": "tcp", "address": format!("{host}:443") });
            let fra = &mut d["regions"]["fra"]["endpoints"]["fra-1"];
            fra["url"] = json!(format!("https://{host}/v1"));
            fra["monitor"] = json!({ "type": "http", "url": format!("https://{host}/health") });
        });
        let is_one = |(_, message): &&(String, String)| message.contains("which the service chat steers");
        warnings.iter().filter(is_one).map(|(place, _)| place.clone()).collect::<Vec<_>>()
    };
    let everywhere = [
        "/regions/fra/endpoints/fra-1/monitor/url",
        "/regions/fra/endpoints/fra-1/url",
        "/regions/lon/monitor/address",
    ];
    for host in ["chat.example", "CHAT.example", "x.gpu.example", "z.y.x.gpu.example", "a.gpu.example"] {
        assert_eq!(reported(host), everywhere, "{host}");
    }
    for host in ["fra1.example", "gpu.example", "x.a.gpu.example", "192.0.2.1"] {
        assert!(reported(host).is_empty(), "{host}");
    }
}

#[test]
fn a_monitor_by_name_of_a_region_of_two_families_gets_a_warning() {
    let reported = |answers: Value, monitor: Value| {
        let warnings = warned(|d| {
            d["services"]["chat"]["regions"] = json!(["fra"]);
            d["regions"]["fra"]["answers"] = answers;
            d["regions"]["fra"]["monitor"] = monitor;
        });
        let is_one = |(place, message): &&(String, String)| {
            place == "/regions/fra/monitor" && message.contains("add \"family\": \"both\"")
        };
        warnings.iter().any(|one| is_one(&one))
    };
    let both = json!({ "A": ["192.0.2.10"], "AAAA": ["2001:db8::10"] });
    let tcp = json!({ "type": "tcp", "address": "gpu.example:1" });
    assert!(reported(both.clone(), tcp.clone()));
    assert!(reported(both.clone(), json!({ "type": "http", "url": "https://gpu.example/" })));
    assert!(!reported(json!({ "A": ["192.0.2.10"] }), tcp));
    for monitor in [
        json!({ "type": "tcp", "address": "gpu.example:1", "family": "any" }),
        json!({ "type": "tcp", "address": "gpu.example:1", "family": "both" }),
        json!({ "type": "tcp", "address": "192.0.2.10:1" }),
        json!({ "type": "http", "url": "https://[2001:db8::10]/" }),
    ] {
        assert!(!reported(both.clone(), monitor.clone()), "{monitor}");
    }
}

#[test]
fn services_whose_aliases_lead_in_a_circle_are_told() {
    let circle = |back: &str| {
        let warnings = warned(|d| {
            d["tenants"] = json!({});
            d["regions"]["fra"]["answers"] = json!({ "CNAME": ["b.example"] });
            d["regions"]["lon"]["answers"] = json!({ "CNAME": [back] });
            let service = |host: &str, region: &str| {
                json!({ "hosts": [host], "pattern": "active-active", "regions": [region],
                        "residency": [ { "clients": ["*", "unknown"], "process_in": ["*"] } ] })
            };
            d["services"] = json!({ "chat": service("a.example", "fra"), "other": service("b.example", "lon") });
        });
        let is_one = |(_, message): &&(String, String)| message.contains("goes in a circle");
        warnings.iter().filter(is_one).map(|(place, _)| place.clone()).collect::<Vec<_>>()
    };
    assert_eq!(circle("a.example"), ["/services/chat/hosts", "/services/other/hosts"]);
    assert!(circle("c.example").is_empty());
}
