//! `/v1/picture`, `/v1/timeline`, `/v1/events` and `/v1/explain/nodes`.

use std::time::Duration;

use bailiwick_rules::geo::CountryCode;

use super::super::events::PATIENCE;
use super::*;

/// A viewer of events.
struct Viewer {
    response: Response,
    text: String,
}

impl Viewer {
    async fn of(fixture: &Fixture, last: Option<&str>) -> Self {
        let mut request = fixture.client.get(format!("{}/v1/events", fixture.url));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        Self { response: request.send().await.unwrap(), text: String::new() }
    }

    /// Reads until the text holds this, and returns all of it.
    async fn until(&mut self, what: &str) -> &str {
        while !self.text.contains(what) {
            let chunk = tokio::time::timeout(Duration::from_secs(20), self.response.chunk()).await;
            let Ok(Ok(Some(chunk))) = chunk else { panic!("the stream ended: {}", self.text) };
            self.text += std::str::from_utf8(&chunk).unwrap();
        }
        &self.text
    }
}

/// Asks until the answer is as wanted.
async fn until(fixture: &Fixture, path: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..400 {
        let (status, body) = read(fixture.get(path).await).await;
        assert_eq!(status, 200, "{body}");
        if is_it(&body) {
            return body;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{path} never became what was waited for");
}

#[tokio::test]
async fn the_picture_says_who_goes_where_and_that_nothing_leads_outside() {
    let fixture = Fixture::open().await;
    let origin = Origin::new(CountryCode::parse("AT").unwrap().number(), true);
    let service = bailiwick_rules::id::ServiceId::parse("chat").unwrap();
    fixture.api.metrics.count_steered(&service, Some(&RegionId::parse("fra").unwrap()), origin);
    let picture = until(&fixture, "/v1/picture", |body| !body["checked"].is_null()).await;
    let checked = &picture["checked"];
    assert_eq!((&checked["violations"], &checked["revision"]), (&json!(0), &json!(7)), "{checked}");
    let countries = checked["countries"].as_u64().unwrap();
    assert!(countries > 200, "{checked}");
    assert_eq!(checked["decisions"], countries + 1, "one service, and the tenant that declares where it belongs");
    let groups = picture["going"][0]["groups"].as_array().unwrap();
    let of = |country: &str| {
        let holds = |group: &&Value| group["countries"].as_str().unwrap().split(' ').any(|one| one == country);
        groups.iter().find(holds).map(|group| (group["to"].clone(), group["is_withheld"].clone())).unwrap()
    };
    assert_eq!(of("DE"), (json!("fra"), json!(false)));
    assert_eq!(of("FR"), (json!("par"), json!(false)));
    assert_eq!((of("US"), of("unknown")), ((Value::Null, json!(false)), (Value::Null, json!(false))));
    let fra = &picture["regions"][0];
    assert_eq!((&fra["region"], &fra["endpoints"], &fra["quotas"]), (&json!("fra"), &json!(1), &json!(["swc"])));
    let flow = json!({ "service": "chat", "country": "AT", "region": "fra", "source": "ecs", "queries": 1 });
    assert_eq!(picture["flows"]["flows"], json!([flow]));
    let eu = &picture["jurisdictions"][0];
    assert!(eu["name"] == "eu" && eu["countries"].as_array().unwrap().contains(&json!("FR")), "{eu}");
    assert_eq!((&picture["services"], &picture["going_left_out"]), (&json!(["chat"]), &json!(0)));
    assert!(picture["going_at"].is_string() && picture["fences"].is_null() && picture["fleet_traffic"].is_null());
    let metrics = fixture.get("/metrics").await.text().await.unwrap();
    for expected in ["bailiwick_fence_violations{of=\"decisions\"} 0", "bailiwick_fence_violations{of=\"answers\"} 0"] {
        assert!(metrics.contains(expected), "{metrics}");
    }

    // The sum of the fleet is kept: what is counted now isn't in it for a while.
    let fleet = async || until(&fixture, "/v1/picture?fleet=true", |_| true).await["fleet_traffic"].take();
    let first = fleet().await;
    assert_eq!((&first["flows"], &first["missing"], &first["left_out"]), (&json!([flow]), &json!([]), &json!(0)));
    fixture.api.metrics.count_steered(&service, Some(&RegionId::parse("fra").unwrap()), origin);
    assert_eq!(fleet().await, first);
    assert_eq!(fixture.get("/v1/picture?fleet=maybe").await.status(), 400);
}

#[tokio::test]
async fn where_clients_go_follows_an_override_at_once() {
    let fixture = Fixture::open().await;
    let going = |body: &Value, country: &str| {
        let groups = body["going"][0]["groups"].as_array()?;
        let holds = |group: &&Value| group["countries"].as_str().unwrap().split(' ').any(|one| one == country);
        groups.iter().find(holds).map(|group| (group["to"].clone(), group["is_revived"].clone()))
    };
    let is = |region: &str, is_revived: bool| Some((json!(region), json!(is_revived)));
    until(&fixture, "/v1/picture", |body| going(body, "DE") == is("fra", false)).await;
    let down = json!({ "region": "fra", "status": "down", "until": tomorrow(&fixture), "reason": "drill" });
    assert_eq!(fixture.force(down).await.0, 200);
    until(&fixture, "/v1/picture", |body| going(body, "DE") == is("par", false)).await;
}

#[tokio::test]
async fn a_stream_of_events_ends_after_its_time() {
    let fixture = Fixture::open().await;
    let (pieces, mut received) = tokio::sync::mpsc::channel(4);
    let life = Duration::from_millis(50);
    let fed = super::super::events::follow(Arc::clone(&fixture.api), 0, 0, pieces, life);
    let reader = async { while received.recv().await.is_some() {} };
    tokio::time::timeout(Duration::from_secs(10), async { tokio::join!(fed, reader) }).await.expect("it ends");
}

#[tokio::test]
async fn every_fence_is_listed_by_one_node_only() {
    let fixture = Fixture::open().await;
    let (status, all) = read(fixture.get("/v1/explain?all=true").await).await;
    assert_eq!((status, &all["jurisdictions"][0]["name"]), (200, &json!("eu")), "{all}");
    assert_eq!(fixture.get("/v1/explain?all=true&service=chta").await.status(), 400);
    let (status, body) = read(fixture.get("/v1/explain/nodes?all=true").await).await;
    assert!(status == 400 && message(&body).contains("/v1/explain?all=true"), "{body}");
}

#[tokio::test]
async fn events_reach_a_viewer_and_are_taken_up_again() {
    let fixture = Fixture::open().await;
    let mut viewer = Viewer::of(&fixture, None).await;
    assert_eq!(viewer.response.headers()["content-type"], "text/event-stream");
    viewer.until("event: hello").await;
    until(&fixture, "/v1/picture", |body| !body["checked"].is_null()).await;
    let reason = "<script>alert(1)</script> \u{202e}desrever\u{2028}line";
    let down = json!({ "region": "fra", "status": "down", "until": tomorrow(&fixture), "reason": reason });
    assert_eq!(fixture.force(down).await.0, 200);
    let text = viewer.until("\"kind\":\"override\"").await.to_owned();
    let lines = || text.lines().filter(|line| line.contains("\"kind\":\"override\""));
    let data: Value = serde_json::from_str(lines().next().unwrap().strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!((&data["of"], &data["by"], &data["kind"]), (&json!("fra"), &json!(reason), &json!("override")));
    viewer.until("is down, was").await;

    // Whoever comes back gets what came after its last event, once.
    let ids: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
    let mut again = Viewer::of(&fixture, ids.first().copied()).await;
    assert_eq!(fixture.send(Method::DELETE, "/v1/overrides/fra", Some(TOKEN), None).await.status(), 200);
    let text = again.until("is forced no longer").await;
    assert!(!text.contains(&format!("id: {}\n", ids[0])) && !text.contains("event: missed"), "{text}");
    // An id of another process says nothing here.
    let text = Viewer::of(&fixture, Some("17-3")).await.until("is forced no longer").await.to_owned();
    assert!(text.contains(&format!("id: {}\n", ids[0])), "{text}");

    let timeline = until(&fixture, "/v1/timeline", |body| body["regions"]["fra"].as_str().is_some()).await;
    assert_eq!((timeline["regions"]["fra"].as_str().unwrap().len(), &timeline["seconds"]), (288, &json!(300)));
    assert!(timeline["marks"].as_array().unwrap().iter().any(|mark| mark["kind"] == "override"), "{timeline}");
    let of_fra = until(&fixture, "/v1/timeline?region=fra", |_| true).await;
    assert!(of_fra["states"].as_str().unwrap().ends_with(['o', 'u']), "{of_fra}");
    assert_eq!(fixture.get("/v1/timeline?region=mars").await.status(), 404);
}

#[tokio::test]
async fn viewers_are_bounded_and_leave_when_the_server_goes_down() {
    let fixture = Fixture::open().await;
    let mut viewers = Vec::new();
    for _ in 0..100 {
        let mut viewer = Viewer::of(&fixture, None).await;
        viewer.until("event: hello").await;
        viewers.push(viewer);
    }
    let (status, body) = read(fixture.get("/v1/events").await).await;
    assert!(status == 503 && message(&body).contains("as many follow"), "{status} {body}");
    // A place is free once its viewer has left.
    viewers.pop();
    for attempt in 0.. {
        let response = fixture.get("/v1/events").await;
        if response.status() == 200 {
            break;
        }
        assert!(attempt < 200, "no place became free");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    fixture.api.close();
    let viewer = &mut viewers[0];
    while viewer.response.chunk().await.unwrap().is_some() {}
    assert_eq!(fixture.get("/v1/events").await.status(), 503);
}

#[tokio::test(start_paused = true)]
async fn a_viewer_who_reads_nothing_is_not_waited_for_long() {
    let (pieces, mut received) = tokio::sync::mpsc::channel(1);
    assert!(super::super::events::send(&pieces, "one".to_owned()).await);
    let begun = tokio::time::Instant::now();
    assert!(!super::super::events::send(&pieces, "two".to_owned()).await);
    assert_eq!(begun.elapsed(), PATIENCE);
    assert_eq!((received.recv().await.as_deref(), received.try_recv().is_err()), (Some("one"), true));
}

#[tokio::test]
async fn each_node_explains_and_the_picture_needs_the_token_that_other_reads_need() {
    let fixture = Fixture::open().await;
    let (status, body) = read(fixture.get("/v1/explain/nodes?service=chat&country=DE").await).await;
    assert_eq!((status, &body["nodes"]["ns1"]["ordered"][0]["region"]), (200, &json!("fra")), "{body}");
    assert_eq!(fixture.get("/v1/explain/nodes?service=chta&country=DE").await.status(), 400);
    assert_eq!(fixture.get("/v1/events?last=many").await.status(), 400);
    let far = Fixture::new(Some(TOKEN), false).await;
    for path in ["/v1/picture", "/v1/timeline", "/v1/events", "/v1/explain/nodes?service=chat&country=DE"] {
        assert_eq!(far.get(path).await.status(), 401, "{path}");
        assert_eq!(far.send(Method::GET, path, Some(READER), None).await.status(), 200, "{path}");
    }
}

#[tokio::test]
async fn the_page_needs_no_token_and_is_sent_as_a_browser_can_read_it() {
    let fixture = Fixture::new(Some(TOKEN), false).await;
    let get = async |path: &str, accept: &str| {
        let request = fixture.client.get(format!("{}{path}", fixture.url)).header("accept-encoding", accept);
        request.send().await.unwrap()
    };
    let page = get("/ui/", "").await;
    let headers = page.headers().clone();
    let policy = headers["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'self';") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(!policy.contains("unsafe") && !policy.contains("data:"), "{policy}");
    assert_eq!(headers["cache-control"], "no-cache");
    assert_eq!(headers["x-content-type-options"], "nosniff");
    let text = page.text().await.unwrap();
    let script = text.split('"').find(|part| part.ends_with(".js")).unwrap();
    for (accept, encoding) in [("gzip, br", Some("br")), ("gzip", Some("gzip")), ("identity", None)] {
        let response = get(&format!("/ui/{script}"), accept).await;
        let sent = response.headers().get("content-encoding").map(|value| value.to_str().unwrap().to_owned());
        assert_eq!((response.status().as_u16(), sent.as_deref()), (200, encoding), "{accept}");
        assert!(response.headers()["cache-control"].to_str().unwrap().contains("immutable"));
        assert_eq!(response.headers()["vary"], "accept-encoding");
    }
    for unknown in ["/ui/nothing.js", "/ui/..%2fpicture.rs"] {
        assert_eq!(get(unknown, "").await.status(), 404, "{unknown}");
    }
    assert_eq!(get("/ui", "").await.url().path(), "/ui/", "it leads there");
    let posted = fixture.send(Method::POST, "/ui/", None, None).await.status();
    assert!(posted == 401 || posted == 405, "{posted}");
}
