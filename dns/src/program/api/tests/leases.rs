//! `POST /v1/leases`: who may ask, what is granted, and what is refused. The numbers follow from the rules of these
//! tests: the quota `swc` allows 600 requests a minute, and the tenant's budget 100 a day.

use super::*;
use crate::program::api::leases::MAX_ASKS;

/// What isolates may be granted of the quota at once: by default the requests of one second.
const BURST: u64 = 10;

/// An isolate's ask for the quota. It also asks for one that the rules don't have.
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
    let begun = Instant::now();
    // Ten requests a second come back. Part of one counts as one here.
    let came_back = || u64::try_from(begun.elapsed().as_millis()).unwrap() * BURST / 1_000 + 1;
    let first = granted(&fixture, ask("a", 0, 6)).await;
    assert_eq!((requests(&first), &first["lasts_ms"]), (6, &json!(2000)), "a lease lasts two seconds");
    let second = granted(&fixture, ask("b", 0, 1_000)).await;
    let left = BURST - requests(&first);
    assert!((left..=left + came_back()).contains(&requests(&second)), "what the first isolate left: {second}");
    let third = granted(&fixture, ask("c", 0, 1_000)).await;
    assert!(requests(&third) <= came_back(), "nothing is left but what came back: {third}");
    // The first isolate spent one of its six. The other five go back to the quota, and it may have them again.
    let again = granted(&fixture, ask("a", 1, 1_000)).await;
    assert!(requests(&again) >= 5, "{again}");
    let text = fixture.get("/metrics").await.text().await.unwrap();
    assert!(text.contains("bailiwick_quota_isolates{quota=\"swc\"} 3\n"), "{text}");
    let reported = text
        .lines()
        .find_map(|line| line.strip_prefix("bailiwick_quota_granted_total{quota=\"swc\",unit=\"requests\"} "));
    let all = [&first, &second, &third, &again].map(requests).iter().sum::<u64>();
    assert_eq!(reported, Some(all.to_string().as_str()));
}

/// A budget is asked for by the tenant's position in the rules. In another revision that may be another tenant's.
#[tokio::test]
async fn budgets_are_divided_only_among_isolates_with_the_nodes_revision() {
    let fixture = Fixture::open().await;
    // Tenant 0 is the only one; the node has no tenant 7.
    let ask = |isolate: &str, revision: u64, spent: u64| {
        json!({ "isolate": isolate, "revision": revision, "budgets": {
            "0": { "spent": { "requests": spent }, "want": { "requests": 100 }, "least": { "requests": 1 } },
            "7": {} } })
    };
    let granted = async |body| {
        let (status, reported) = read(fixture.send(Method::POST, "/v1/leases", Some(WORKER), Some(body)).await).await;
        assert_eq!(status, 200, "{reported}");
        assert!(reported["budgets"].get("7").is_none(), "{reported}");
        reported["budgets"]["0"]["granted"]["requests"].as_u64()
    };
    assert_eq!(granted(ask("a", 6, 0)).await, None, "the node has revision 7");
    assert_eq!(granted(ask("a", 7, 0)).await, Some(50), "half of the 100; the other half is for isolates to come");
    let second = granted(ask("b", 7, 0)).await.unwrap();
    assert!((1..=25).contains(&second), "at most half of the 50 that are left, shared with the first: {second}");
    // Together they spend 240, so the budget is overdrawn. At 100 a day nothing comes back while the test runs.
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
        (json!({ "isolate": "a", "quotas": many }), "quotas: has 300 entries; at most 256 are allowed"),
    ] {
        let (status, reported) = read(post(Some(WORKER), body).await).await;
        assert!(status == 400 && message(&reported).contains(words), "{words}: {status} {reported}");
    }
    let large = json!({ "isolate": "a".repeat(MAX_ASKS), "quotas": {} });
    assert_eq!(post(Some(WORKER), large).await.status().as_u16(), 413);
}

#[tokio::test]
async fn an_isolate_that_reports_the_largest_numbers_is_granted_nothing() {
    let fixture = Fixture::open().await;
    let all = json!({ "requests": u64::MAX });
    let body = json!({ "isolate": "f", "quotas": {
        "swc": { "spent": all, "returned": all, "want": all, "least": all, "closed_ms": u64::MAX }, "unknown": {} } });
    let grant = granted(&fixture, body).await;
    assert_eq!(grant["granted"]["requests"], json!(0), "{grant}");
    assert_eq!(grant["closed_ms"], json!(3_600_000), "no quota is closed for longer than an hour");
}
