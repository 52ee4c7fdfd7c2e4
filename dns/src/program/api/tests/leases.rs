//! `POST /v1/leases`: who may ask, what is granted, and what is refused.

use super::*;

fn ask(isolate: &str, spent: u64, want: u64) -> Value {
    let amounts = |requests: u64| json!({ "requests": requests });
    json!({ "isolate": isolate, "quotas": {
        "swc": { "spent": amounts(spent), "want": amounts(want), "least": amounts(1) }, "unknown": {} } })
}

async fn granted(fixture: &Fixture, body: Value) -> Value {
    let (status, reported) = read(fixture.send(Method::POST, "/v1/leases", Some(WORKER), Some(body)).await).await;
    assert_eq!(status, 200, "{reported}");
    assert!(reported["quotas"].get("unknown").is_none(), "the rules don't have it");
    reported["quotas"]["swc"].clone()
}

#[tokio::test]
async fn isolates_together_are_granted_what_the_quota_allows() {
    let fixture = Fixture::open().await;
    assert!(!fixture.get("/metrics").await.text().await.unwrap().contains("quota_granted"), "nobody asked");
    let requests = |grant: &Value| grant["granted"]["requests"].as_u64().unwrap();
    let first = granted(&fixture, ask("a", 0, 6)).await;
    assert_eq!((requests(&first), &first["lasts_ms"]), (6, &json!(2000)));
    let second = granted(&fixture, ask("b", 0, 1_000)).await;
    assert!((1..=5).contains(&requests(&second)), "what is left of the ten of a burst: {second}");
    let third = granted(&fixture, ask("c", 0, 1_000)).await;
    assert!(requests(&third) <= 1, "{third}");
    // What wasn't spent goes back.
    let again = granted(&fixture, ask("a", 1, 1_000)).await;
    assert!(requests(&again) >= 3, "{again}");
    let text = fixture.get("/metrics").await.text().await.unwrap();
    assert!(text.contains("bailiwick_quota_isolates{quota=\"swc\"} 3\n"), "{text}");
    let reported = text
        .lines()
        .find_map(|line| line.strip_prefix("bailiwick_quota_granted_total{quota=\"swc\",unit=\"requests\"} "));
    let all = [&first, &second, &third, &again].map(requests).iter().sum::<u64>();
    assert_eq!(reported, Some(all.to_string().as_str()));
}

#[tokio::test]
async fn a_tenants_budget_is_divided_by_the_same_rules_alone() {
    let fixture = Fixture::open().await;
    let ask = |isolate: &str, revision: u64, spent: u64| {
        json!({ "isolate": isolate, "revision": revision, "budgets": {
            "0": { "spent": { "requests": spent }, "want": { "requests": 100 }, "least": { "requests": 1 } },
            "7": {} } })
    };
    let granted = async |body| {
        let (status, reported) = read(fixture.send(Method::POST, "/v1/leases", Some(WORKER), Some(body)).await).await;
        assert_eq!(status, 200, "{reported}");
        reported["budgets"]["0"]["granted"]["requests"].as_u64()
    };
    assert_eq!(granted(ask("a", 6, 0)).await, None, "by other rules the position may be another tenant's");
    assert_eq!(granted(ask("a", 7, 0)).await, Some(50), "half of what is left");
    let second = granted(ask("b", 7, 0)).await.unwrap();
    assert!((1..=25).contains(&second), "{second}");
    // All is spent: nothing comes back for hours.
    for isolate in ["a", "b", "a", "b"] {
        granted(ask(isolate, 7, 60)).await;
    }
    assert_eq!(granted(ask("c", 7, 0)).await, Some(0));
}

#[tokio::test]
async fn who_may_not_ask_or_asks_wrongly_is_told_so() {
    let fixture = Fixture::open().await;
    let post = |token, body| fixture.send(Method::POST, "/v1/leases", token, Some(body));
    assert_eq!(read(post(None, ask("a", 0, 1)).await).await.0, 401);
    let (status, reported) = read(post(Some(READER), ask("a", 0, 1)).await).await;
    assert!(status == 403 && message(&reported).contains("worker_token_files"), "{status} {reported}");
    let many: Value = (0..300).map(|n| (format!("q{n}"), json!({}))).collect::<serde_json::Map<_, _>>().into();
    for (body, words) in [
        (json!([]), "invalid length"),
        (json!({ "isolate": "a", "quotas": { "swc": { "spent": -1 } } }), "invalid type"),
        (json!({ "isolate": "a", "quotas": { "swc": { "spent": { "requests": -1 } } } }), "invalid value"),
        (json!({ "isolate": "a", "quotas": { "swc": { "spend": {} } } }), "unknown field `spend`"),
        (json!({ "isolate": "198.51.100.7", "quotas": {} }), "isolate: isn't 1 to 16 hexadecimal digits"),
        (json!({ "isolate": "+1", "quotas": {} }), "hexadecimal"),
        (json!({ "isolate": "a", "quotas": many }), "quotas: are 300; ask for 256"),
    ] {
        let (status, reported) = read(post(Some(WORKER), body).await).await;
        assert!(status == 400 && message(&reported).contains(words), "{words}: {status} {reported}");
    }
    let large = json!({ "isolate": "a".repeat(1 << 18), "quotas": {} });
    assert_eq!(post(Some(WORKER), large).await.status().as_u16(), 413);
    let lies = json!({ "isolate": "f", "quotas": { "swc": {
        "spent": { "requests": u64::MAX }, "returned": { "requests": u64::MAX }, "want": { "requests": u64::MAX },
        "least": { "requests": u64::MAX }, "closed_ms": u64::MAX } } });
    let (status, reported) = read(post(Some(WORKER), lies).await).await;
    assert_eq!((status, &reported["quotas"]["swc"]["granted"]["requests"]), (200, &json!(0)), "{reported}");
}
