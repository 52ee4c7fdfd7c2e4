//! Quotas, service tiers and limits of tenants: what is refused, and how to mend it.

use serde_json::{Value, json};

use super::{assert_refused, compile, refused, sound};
use crate::rules::{Ratio, ServiceTier};
use crate::table::{TenantIndex, TierIndex};
use crate::time::Millis;

/// A sound document with a quota that an endpoint uses.
fn with_quota(document: &mut Value) {
    document["quotas"] = json!({ "swc": { "requests": 600, "tokens": 100_000 } });
    document["regions"]["fra"]["endpoints"]["fra-1"]["quota"] = json!("swc");
    document["tiers"] = json!({ "gold": { "rank": 0, "refuse_at": 1.2 }, "batch": { "rank": 9, "refuse_at": 0.85 } });
    document["tenants"]["acme"]["tier"] = json!("gold");
    document["tenants"]["acme"]["reserve"] = json!({ "swc": 0.3 });
    document["tenants"]["acme"]["budget"] = json!({ "tokens": 2_000_000, "per": "1d" });
    document["tenants"]["acme"]["concurrency"] = json!(50);
}

#[track_caller]
fn refuses(change: impl FnOnce(&mut Value), pointer: &str, hint: &str) {
    let both = |document: &mut Value| {
        with_quota(document);
        change(document);
    };
    assert_refused(both, pointer, hint);
}

#[test]
fn quotas_and_limits_are_compiled_with_their_defaults() {
    let mut document = sound();
    with_quota(&mut document);
    let table = compile(&document).unwrap();
    let [quota] = table.quotas() else { panic!("one") };
    let rule = &quota.rule;
    assert_eq!((rule.per, rule.burst, rule.output_default), (Millis(60_000), Millis(1_000), 800));
    assert_eq!((rule.headroom, &rule.models), (Ratio(50_000), &None));
    assert_eq!(quota.reserves, [(TenantIndex(0), Ratio(300_000))]);
    assert_eq!((quota.reserve_of(TenantIndex(0)), quota.reserve_of(TenantIndex(1))), (Some(0), None));
    let limits = table.tenant(TenantIndex(0)).limits.as_deref().unwrap();
    assert_eq!((limits.tier, limits.concurrency), (Some(TierIndex(1)), Some(50)));
    assert_eq!(limits.budget.unwrap().per, Millis(86_400_000));
    let (name, tier) = table.tiers().get(TierIndex(1)).unwrap();
    assert_eq!(
        (name.as_str(), *tier),
        ("gold", ServiceTier { rank: 0, refuse_at: Some(Ratio(1_200_000)), order: None })
    );
    document["quotas"]["swc"]["per"] = json!("2s");
    assert_eq!(compile(&document).unwrap().quotas()[0].rule.burst, Millis(200));
    assert!(compile(&sound()).unwrap().tenant(TenantIndex(0)).limits.is_none());
}

#[test]
fn a_quota_has_a_limit_that_can_be_kept() {
    let quota = |field: &'static str, value: Value| move |d: &mut Value| d["quotas"]["swc"][field] = value;
    refuses(|d| d["quotas"]["swc"] = json!({ "per": "1m" }), "/quotas/swc", "neither \"requests\" nor \"tokens\"");
    refuses(quota("requests", json!(0)), "/quotas/swc/requests", "");
    refuses(quota("tokens", json!(-1)), "/quotas/swc/tokens", "");
    refuses(quota("per", json!("500ms")), "/quotas/swc/per", "from \"1s\" to");
    refuses(quota("burst", json!("31s")), "/quotas/swc/burst", "30s at most");
    refuses(quota("burst", json!("0s")), "/quotas/swc/burst", "from \"1ms\"");
    refuses(quota("headroom", json!(0.95)), "/quotas/swc/headroom", "from 0 to 0.9");
    refuses(quota("output_default", json!(0)), "/quotas/swc/output_default", "");
    refuses(quota("models", json!([])), "/quotas/swc/models", "");
    refuses(quota("rpm", json!(1)), "/quotas/swc/rpm", "");
}

#[test]
fn a_quota_is_used_and_names_that_are_used_exist() {
    refuses(
        |d| {
            d["quotas"]["spare"] = json!({ "requests": 1 });
        },
        "/quotas/spare",
        "is used by no endpoint; name it as the \"quota\" of an endpoint, or remove it",
    );
    let endpoint = "/regions/fra/endpoints/fra-1/quota";
    let lines = refused(|d| {
        with_quota(d);
        d["regions"]["fra"]["endpoints"]["fra-1"]["quota"] = json!("swcc");
    });
    assert_eq!(lines.len(), 1, "the unused quota isn't reported too: {lines:?}");
    assert!(lines[0].starts_with(endpoint) && lines[0].contains("did you mean \"swc\"?"), "{lines:?}");
    refuses(|d| d["tenants"]["acme"]["tier"] = json!("golden"), "/tenants/acme/tier", "did you mean \"gold\"?");
    refuses(
        |d| d["tenants"]["acme"]["reserve"] = json!({ "swx": 0.3 }),
        "/tenants/acme/reserve/swx",
        "did you mean \"swc\"?",
    );
}

#[test]
fn a_quota_is_for_the_models_of_its_endpoints() {
    let endpoint = "/regions/fra/endpoints/fra-1/quota";
    refuses(|d| d["quotas"]["swc"]["models"] = json!(["gpt-4.1"]), endpoint, "takes any model; list its \"models\"");
    refuses(
        |d| {
            d["quotas"]["swc"]["models"] = json!(["gpt-4.1"]);
            d["regions"]["fra"]["endpoints"]["fra-1"]["models"] = json!({ "chat": "gpt-4.1", "small": "gpt-4.1-mini" });
        },
        endpoint,
        "isn't for this endpoint's model \"gpt-4.1-mini\"",
    );
}

#[test]
fn reserves_add_up_to_the_quota_at_most() {
    let second = |d: &mut Value, part: f64| {
        d["tenants"]["beta"] = json!({ "key_sha256": ["ab".repeat(32)], "residency": "eu", "services": ["chat"],
            "reserve": { "swc": part } });
    };
    refuses(|d| second(d, 0.8), "/quotas/swc", "reserved to 110 %: acme 30 %, beta 80 %; lower \"reserve\"");
    let mut document = sound();
    with_quota(&mut document);
    second(&mut document, 0.7);
    assert!(compile(&document).is_ok());
    for bad in [json!(0), json!(1.1), json!("30%")] {
        refuses(|d| d["tenants"]["acme"]["reserve"]["swc"] = bad, "/tenants/acme/reserve/swc", "");
    }
}

#[test]
fn a_tier_is_refused_no_earlier_than_those_behind_it() {
    let place = "/tiers/gold/refuse_at";
    refuses(|d| d["tiers"]["gold"]["refuse_at"] = json!(0.8), place, "is refused before batch, which ranks behind it");
    refuses(
        |d| {
            d["tiers"]["batch"].as_object_mut().unwrap().remove("refuse_at");
        },
        place,
        "refused never",
    );
    refuses(|d| d["tiers"]["gold"]["refuse_at"] = json!(0), place, "from 0.01 to 100");
    refuses(|d| d["tiers"]["gold"] = json!({}), "/tiers/gold/rank", "add \"rank\": 1");
}

#[test]
fn limits_of_a_tenant_are_sound() {
    let tenant = |field: &'static str, value: Value| move |d: &mut Value| d["tenants"]["acme"][field] = value;
    refuses(tenant("concurrency", json!(0)), "/tenants/acme/concurrency", "");
    refuses(tenant("budget", json!({ "per": "1d" })), "/tenants/acme/budget", "neither \"requests\" nor \"tokens\"");
    refuses(tenant("budget", json!({ "tokens": 5 })), "/tenants/acme/budget/per", "\"1d\"");
    refuses(tenant("budget", json!({ "tokens": 5, "per": "32d" })), "/tenants/acme/budget/per", "from \"1s\"");
    let priority = |d: &mut Value| d["regions"]["fra"]["endpoints"]["fra-1"]["priority_as"] = json!("tgi");
    refuses(priority, "/regions/fra/endpoints/fra-1/priority_as", "one of [\"vllm\", \"openai\", \"llm-d\"]");
}
