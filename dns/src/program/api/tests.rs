//! Tests of the API over a real socket, with a real owner behind it.

mod leases;
mod picture;

use std::path::Path;

use bailiwick_host::system::clock::Clock;
use bailiwick_rules::id::RegionId;
use reqwest::{Client, Method, Response};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::token::TokenFile;
use super::*;
use crate::response::answer::{Origin, Rcode};
use crate::response::wire::{Class, Outcome, Transport};
use crate::state::bundles::Bundles;
use crate::state::load::Sources;
use crate::state::probe::Secrets;
use crate::state::startup::{StartedState, start};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
/// It may read, and post what Workers post.
const WORKER: &str = "3333333333333333333333333333333333333333333333333333333333333333";
/// It may read and no more.
const READER: &str = "fedcba9876543210fedcba9876543210";

/// It may read bundles and no more, as an application in Paris.
const PARIS: &str = "5555555555555555555555555555555555555555555555555555555555555555";

fn rules(revision: u64) -> String {
    json!({
        "version": 1, "revision": revision,
        "jurisdictions": { "eu": { "include": ["EU"] } },
        "regions": { "fra": { "countries": ["DE"], "endpoints": { "fra-1": { "url": "https://fra1.example/v1",
            "quota": "swc" } } }, "par": { "countries": ["FR"] } },
        "quotas": { "swc": { "requests": 600, "headroom": 0 } },
        "tenants": { "acme": { "key_sha256": ["ab".repeat(32)], "residency": "eu", "services": ["chat"],
            "budget": { "requests": 100, "per": "1d" } } },
        "services": { "chat": { "hosts": ["chat.example"], "pattern": "active-active", "regions": ["fra", "par"],
                                "residency": [{ "clients": ["eu"], "process_in": ["eu"] }] } },
    })
    .to_string()
}

/// A running API; what it needs lives as long.
struct Fixture {
    started: StartedState,
    api: Arc<Api>,
    url: String,
    client: Client,
    directory: tempfile::TempDir,
    _stop: oneshot::Sender<()>,
}

impl Fixture {
    async fn new(write: Option<&str>, loopback: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("rules.json"), rules(7)).unwrap();
        let sources = Sources {
            node: "ns1".to_owned(),
            rules: at("rules.json"),
            geoip: None,
            registered: bailiwick_host::locate::geoip::Registered::Ignored,
            zones: Vec::new(),
            dnssec: Vec::new(),
            directory: directory.path().to_owned(),
            lock: None,
            state_dir: Some(at("state")),
            shrink: crate::program::config::Shrink::default(),
        };
        let started = start(sources, Secrets::default(), Clock::system()).await.unwrap();
        let token = |token: &str| {
            std::fs::write(at("token"), token).unwrap();
            Arc::new(TokenFile::read(Path::new(&at("token"))).unwrap())
        };
        let (read, worker) = (vec![token(READER)], vec![token(WORKER)]);
        let region = vec![(RegionId::parse("par").unwrap(), token(PARIS))];
        let tokens = Tokens { read, worker, write: write.map(token).into_iter().collect(), region };
        let tokens = if write.is_some() { tokens } else { Tokens::default() };
        let api = Arc::new(Api {
            fleet: Arc::default(),
            bundles: Bundles::open(None),
            waiting: Semaphore::new(MOST_WAITING),
            sending: Sending::default(),
            picture: Picture::default(),
            cached_picture: super::picture::Cached::default(),
            drills: super::drills::Drills::default(),
            publishing: Mutex::default(),
            access_log: AccessLog::default(),
            failed_tokens: FailedTokens::default(),
            handle: started.handle.clone(),
            metrics: Arc::default(),
            node: "ns1".to_owned(),
            tokens,
            begun: started.handle.now(),
            loopback,
            draining: AtomicBool::new(false),
            is_handing_over: Arc::default(),
            absent: Arc::default(),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (_stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(Arc::clone(&api).serve(listener, async {
            let _ = stopped.await;
        }));
        Self { started, api, url, client: Client::new(), directory, _stop }
    }

    async fn open() -> Self {
        Self::new(Some(TOKEN), true).await
    }

    async fn send(&self, method: Method, path: &str, token: Option<&str>, body: Option<Value>) -> Response {
        let mut request = self.client.request(method, format!("{}{path}", self.url));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        request.send().await.unwrap()
    }

    async fn get(&self, path: &str) -> Response {
        self.send(Method::GET, path, None, None).await
    }

    async fn force(&self, body: Value) -> (u16, Value) {
        read(self.send(Method::POST, "/v1/overrides", Some(TOKEN), Some(body)).await).await
    }
}

/// A batch of an isolate that follows [`rules`].
fn batch(fixture: &Fixture, sequence: u64) -> Value {
    let times = json!({ "sum_us": 1_500_000, "buckets": [[-8, 1], [4, 1]] });
    json!({
        "version": 1, "isolate": "00112233445566aa", "sequence": sequence,
        "at": fixture.api.handle.now().to_string(), "span_ms": 5000, "revision": 7,
        "counts": [{ "service": "chat", "clients": "unknown", "requests": { "refused": 1 } },
                   { "service": "chat", "clients": "none", "region": "mars", "endpoint": "m-1",
                     "requests": { "ok": 1 } },
                   { "service": "chat", "clients": "none", "requests": { "ok": 2 }, "tokens_in": 7, "total": times }],
    })
}

async fn read(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status} {text:?} is no JSON")))
}

fn message(body: &Value) -> &str {
    body["error"]["message"].as_str().unwrap()
}

fn tomorrow(fixture: &Fixture) -> String {
    fixture.api.handle.now().after(bailiwick_rules::time::Millis(86_400_000)).to_string()
}

#[tokio::test]
async fn health_fails_and_names_the_task_while_a_vital_one_is_in_trouble() {
    let fixture = Fixture::new(None, false).await;
    let read = async |response: Response| (response.status().as_u16(), response.text().await.unwrap());
    assert_eq!(read(fixture.get("/healthz").await).await, (200, "ok\n".to_owned()));
    let tasks = fixture.api.handle.tasks();
    let files = tasks.beating("slow files", false, std::time::Duration::ZERO);
    let (status, text) = read(fixture.get("/healthz").await).await;
    assert!(status == 200 && text.starts_with("ok\nslow files: no turn for "), "{text}");
    let listener = tasks.waiting("tcp 192.0.2.1:53");
    listener.set_down(true);
    let (status, text) = read(fixture.get("/healthz").await).await;
    assert!(status == 503 && text.starts_with("failing\n") && text.contains("\ntcp 192.0.2.1:53: is down\n"), "{text}");
    let metrics = fixture.api.metrics.text(&fixture.api.handle);
    assert!(metrics.contains("bailiwick_task_failing{task=\"tcp 192.0.2.1:53\"} 1"), "{metrics}");
    listener.set_down(false);
    assert_eq!(fixture.get("/healthz").await.status().as_u16(), 200);
    drop(files);
}

#[tokio::test]
async fn the_rules_are_served_byte_for_byte_under_an_entity_tag() {
    let fixture = Fixture::open().await;
    let response = fixture.get("/v1/rules").await;
    let tag = response.headers()["etag"].to_str().unwrap().to_owned();
    assert!(tag.starts_with("\"7-") && tag.len() == 2 + 2 + 64, "{tag}");
    assert!(!response.headers().contains_key("x-bailiwick-rules-error"));
    assert_eq!(response.text().await.unwrap(), rules(7));

    for known in [tag.clone(), format!("W/{tag}"), format!("\"x\", {tag}"), "*".to_owned()] {
        let request = fixture.client.get(format!("{}/v1/rules", fixture.url)).header("if-none-match", &known);
        let response = request.send().await.unwrap();
        assert_eq!((response.status().as_u16(), &response.headers()["etag"]), (304, &tag.parse().unwrap()), "{known}");
        assert_eq!(response.bytes().await.unwrap().len(), 0);
    }
    let other = fixture.client.get(format!("{}/v1/rules", fixture.url)).header("if-none-match", "\"7-0\"");
    assert_eq!(other.send().await.unwrap().status(), 200);
    let head = fixture.send(Method::HEAD, "/v1/rules", None, None).await;
    assert_eq!((head.status().as_u16(), head.headers()["etag"].to_str().unwrap()), (200, tag.as_str()));
}

#[tokio::test]
async fn a_refused_document_is_told_while_the_last_good_is_served() {
    let fixture = Fixture::open().await;
    std::fs::write(fixture.directory.path().join("rules.json"), r#"{"version": 1, "revision": 8, "regoins": {}}"#)
        .unwrap();
    fixture.started.feed.reload();
    assert!(fixture.started.handle.wait_until(|_, status| status.rules.last_error.is_some()).await);

    let response = fixture.get("/v1/rules").await;
    let reason = response.headers()["x-bailiwick-rules-error"].to_str().unwrap().to_owned();
    assert!(reason.contains("/regoins"), "{reason}");
    assert_eq!(response.text().await.unwrap(), rules(7));
    let (_, status) = read(fixture.get("/v1/rules/status").await).await;
    assert_eq!(status["revision"], 7);
    assert!(status["rules"]["last_error"]["errors"][0].as_str().unwrap().contains("/regoins"), "{status}");
    let metrics = fixture.get("/metrics").await.text().await.unwrap();
    assert!(metrics.contains("bailiwick_source_failing{source=\"rules\"} 1"), "{metrics}");

    std::fs::write(fixture.directory.path().join("rules.json"), rules(9)).unwrap();
    fixture.started.feed.reload();
    // The snapshot is published before the error is cleared.
    let is_mended = fixture
        .started
        .handle
        .wait_until(|snapshot, status| snapshot.table().revision().number == 9 && status.rules.last_error.is_none());
    assert!(is_mended.await);
    let response = fixture.get("/v1/rules").await;
    assert!(!response.headers().contains_key("x-bailiwick-rules-error"));
    assert!(response.headers()["etag"].to_str().unwrap().starts_with("\"9-"));
}

#[tokio::test]
async fn overrides_need_the_token_a_known_region_an_end_and_a_reason() {
    let fixture = Fixture::open().await;
    let fine = json!({ "region": "fra", "status": "down", "until": tomorrow(&fixture), "reason": "drill" });
    for token in [None, Some("wrong")] {
        let response = fixture.send(Method::POST, "/v1/overrides", token, Some(fine.clone())).await;
        assert!(response.headers()["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
        assert_eq!(response.status(), 401);
    }
    let with = |key: &str, value: Value| {
        let mut body = fine.clone();
        body[key] = value;
        body
    };
    let wrong = [
        (with("region", json!("frq")), 404, "did you mean \"fra\"?"),
        (with("status", json!("unknown")), 400, "status: must be \"up\" or \"down\""),
        (with("until", json!("2020-01-01T00:00:00Z")), 400, "lies in the past"),
        (with("until", json!("tomorrow")), 422, "is not a time"),
        (with("reason", json!(" ")), 400, "reason: is empty"),
        (with("reason", json!("two\nlines")), 400, "reason: must be one line"),
        (with("resaon", json!("x")), 422, "unknown field"),
        (with("reason", json!("x".repeat(5000))), 413, "length limit exceeded"),
    ];
    for (body, status, expected) in wrong {
        let (answered, reported) = fixture.force(body).await;
        assert!(answered == status && message(&reported).contains(expected), "{answered} {reported}");
    }
    assert!(fixture.api.handle.snapshot().health().overrides.is_empty());

    let (status, reported) = fixture.force(fine).await;
    assert_eq!((status, &reported["kept"]), (200, &json!("in the state directory")));
    let (_, list) = read(fixture.get("/v1/overrides").await).await;
    assert_eq!(list["overrides"][0]["region"], "fra");
    let (_, health) = read(fixture.get("/v1/health").await).await;
    assert_eq!((&health["node"], &health["regions"]["fra"]["status"]), (&json!("ns1"), &json!("down")));
    assert_eq!(health["regions"]["fra"]["override"]["reason"], "drill");
    let (_, explained) = read(fixture.get("/v1/explain?service=chat&country=DE").await).await;
    assert_eq!(explained["withheld"][0], json!({ "region": "fra", "reason": "forced" }));
    assert!(fixture.get("/metrics").await.text().await.unwrap().contains("bailiwick_region_forced{region=\"fra\"} 1"));

    let end = |token| fixture.send(Method::DELETE, "/v1/overrides/fra", token, None);
    assert_eq!(end(None).await.status(), 401);
    assert_eq!(end(Some(TOKEN)).await.status(), 200);
    assert_eq!(end(Some(TOKEN)).await.status(), 404, "there is none left");
    let nowhere = fixture.send(Method::DELETE, "/v1/overrides/mars", Some(TOKEN), None).await;
    assert!(message(&read(nowhere).await.1).contains("known are fra, par"));
    assert!(fixture.api.handle.snapshot().health().overrides.is_empty());
}

#[tokio::test]
async fn a_token_that_may_read_reads_from_other_machines_and_changes_nothing() {
    let fixture = Fixture::new(Some(TOKEN), false).await;
    for path in ["/v1/health", "/v1/rules", "/v1/status", "/metrics"] {
        assert_eq!(fixture.send(Method::GET, path, Some(READER), None).await.status(), 200, "{path}");
    }
    let body = json!({ "region": "fra", "status": "down", "until": tomorrow(&fixture), "reason": "drill" });
    let (status, reported) = read(fixture.send(Method::POST, "/v1/overrides", Some(READER), Some(body)).await).await;
    assert!(status == 403 && message(&reported).contains("this token may not change anything"), "{status} {reported}");
    assert_eq!(fixture.send(Method::DELETE, "/v1/overrides/fra", Some(READER), None).await.status(), 403);
    assert!(fixture.api.handle.snapshot().health().overrides.is_empty());
    assert_eq!(fixture.send(Method::GET, "/v1/health", Some(TOKEN), None).await.status(), 200);
}

#[tokio::test]
async fn an_endpoint_is_forced_by_itself_and_takes_its_region_along_if_it_is_the_only_one() {
    let fixture = Fixture::open().await;
    let body = |endpoint: &str| {
        json!({ "region": "fra", "endpoint": endpoint, "status": "down",
        "until": tomorrow(&fixture), "reason": "new driver" })
    };
    let (status, reported) = fixture.force(body("fra-2")).await;
    assert!(
        status == 404 && message(&reported).contains("no endpoint \"fra-2\"; did you mean \"fra-1\"?"),
        "{reported}"
    );
    let (status, reported) = fixture.force(body("fra-1")).await;
    assert_eq!((status, &reported["endpoint"]), (200, &json!("fra-1")), "{reported}");
    let (_, list) = read(fixture.get("/v1/overrides").await).await;
    assert_eq!((&list["overrides"][0]["region"], &list["overrides"][0]["endpoint"]), (&json!("fra"), &json!("fra-1")));
    let (_, health) = read(fixture.get("/v1/health").await).await;
    let fra = &health["regions"]["fra"];
    assert_eq!((&fra["status"], &fra["override"]), (&json!("down"), &Value::Null));
    let endpoint = &fra["endpoints"]["fra-1"];
    assert_eq!((&endpoint["status"], &endpoint["probed"]), (&json!("down"), &json!("unknown")), "{health}");
    assert_eq!(endpoint["override"]["reason"], "new driver");
    let (_, explained) = read(fixture.get("/v1/explain?service=chat&country=DE").await).await;
    assert_eq!(explained["withheld"][0], json!({ "region": "fra", "reason": "forced" }));
    let metrics = fixture.get("/metrics").await.text().await.unwrap();
    assert!(metrics.contains("bailiwick_endpoint_forced{region=\"fra\",endpoint=\"fra-1\"} 1"), "{metrics}");
    let ended = |path: &'static str| fixture.send(Method::DELETE, path, Some(TOKEN), None);
    assert_eq!(ended("/v1/overrides/fra").await.status(), 404, "the region itself isn't forced");
    assert_eq!(ended("/v1/overrides/fra/fra-1").await.status(), 200);
    let (_, health) = read(fixture.get("/v1/health").await).await;
    assert_eq!(health["regions"]["fra"]["endpoints"]["fra-1"], json!({ "status": "unknown" }));
}

#[tokio::test]
async fn without_a_token_nothing_can_be_changed() {
    let fixture = Fixture::new(None, true).await;
    let body = json!({ "region": "fra", "status": "down", "until": tomorrow(&fixture), "reason": "drill" });
    let (status, reported) = fixture.force(body).await;
    assert!(status == 403 && message(&reported).contains("token_file"), "{status} {reported}");
    assert_eq!(fixture.get("/v1/health").await.status(), 200);
}

#[tokio::test]
async fn the_token_of_a_region_reads_bundles_and_nothing_else() {
    let fixture = Fixture::new(Some(TOKEN), false).await;
    let status = async |path: &str| fixture.send(Method::GET, path, Some(PARIS), None).await.status();
    assert_eq!(
        (status("/v1/bundles").await, status("/v1/bundles/prompts").await),
        (StatusCode::OK, StatusCode::NOT_FOUND)
    );
    for path in
        ["/v1/rules", "/v1/health", "/metrics", "/v1/bundlesx", "/v1/bundle", "/v1/fleet", "/v1/explain?all=true"]
    {
        assert_eq!(status(path).await, 403, "{path}");
    }
    let posted = fixture.send(Method::POST, "/v1/leases", Some(PARIS), Some(json!({}))).await;
    assert_eq!(posted.status(), 403);
    assert_eq!(fixture.send(Method::GET, "/v1/bundles", None, None).await.status(), 401);
}

#[tokio::test]
async fn beyond_loopback_reading_needs_the_token_too() {
    let fixture = Fixture::new(Some(TOKEN), false).await;
    for path in ["/metrics", "/v1/health", "/v1/rules", "/v1/explain", "/v1/overrides", "/nowhere"] {
        assert_eq!(fixture.get(path).await.status(), 401, "{path}");
    }
    assert_eq!(fixture.get("/healthz").await.status(), 200);
    assert_eq!(fixture.send(Method::GET, "/v1/health", Some(TOKEN), None).await.status(), 200);
    assert_eq!(Fixture::new(None, false).await.get("/v1/health").await.status(), 403);
}

#[tokio::test]
async fn questions_are_explained_by_the_health_in_service() {
    let fixture = Fixture::open().await;
    let ask = async |query: &str| read(fixture.get(&format!("/v1/explain?{query}")).await).await;
    let (status, reported) = ask("service=chat&country=de").await;
    assert_eq!((status, &reported["ordered"][0]["region"], &reported["revision"]), (200, &json!("fra"), &json!(7)));
    let (_, reported) = ask("service=chat&country=DE&down=fra").await;
    assert_eq!(
        (&reported["ordered"][0]["region"], &reported["withheld"][0]["reason"]),
        (&json!("par"), &json!("down"))
    );
    let (_, reported) = ask("service=chat&country=DE&down=fra,par").await;
    assert_eq!(reported["revived"], true);
    let (_, reported) = ask("service=chat&client=unknown").await;
    assert_eq!(reported["fence"], json!([]));
    let (status, reported) = ask("all=true").await;
    assert_eq!(
        (status, &reported["revision"], &reported["fences"][0]["service"]),
        (200, &json!(7), &json!("chat")),
        "{reported}"
    );

    let (status, reported) = ask("service=caht&client=nobody&down=far").await;
    assert_eq!((status, reported["error"]["messages"].as_array().unwrap().len()), (400, 3), "{reported}");
    for query in ["", "service=chat&contry=DE"] {
        let (status, reported) = ask(query).await;
        assert!(status == 400 && message(&reported).contains("ask as /v1/explain?service=chat"), "{reported}");
    }
}

#[tokio::test]
async fn answers_are_counted_by_transport_code_type_and_region() {
    let fixture = Fixture::open().await;
    let outcome = |rcode, qtype| Outcome::Answered {
        rcode,
        qtype,
        truncated: true,
        service: None,
        region: None,
        origin: Origin::default(),
        class: Class::Positive,
        keepable: false,
    };
    let metrics = &fixture.api.metrics;
    metrics.count(Transport::Udp, &outcome(Rcode::NOERROR, Some(28)));
    metrics.count(Transport::Udp, &outcome(Rcode::NOERROR, Some(28)));
    metrics.count(Transport::Tcp, &outcome(Rcode(9), Some(65_280)));
    metrics.count(Transport::Tcp, &outcome(Rcode::FORMERR, None));
    metrics.count(Transport::Udp, &Outcome::Dropped);
    let service = fixture.api.handle.snapshot().table().services()[0].id.clone();
    let region = fixture.api.handle.snapshot().table().regions()[1].id.clone();
    metrics.count_steered(&service, Some(&region), Origin::default());
    metrics.count_steered(&service, Some(&region), Origin::default());
    metrics.count_steered(&service, None, Origin::default());

    let response = fixture.get("/metrics").await;
    assert!(response.headers()["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    let text = response.text().await.unwrap();
    let expected = [
        "bailiwick_queries_total{transport=\"udp\",rcode=\"NOERROR\",qtype=\"AAAA\"} 2",
        "bailiwick_queries_total{transport=\"tcp\",rcode=\"other\",qtype=\"other\"} 1",
        "bailiwick_queries_total{transport=\"tcp\",rcode=\"FORMERR\",qtype=\"other\"} 1",
        "bailiwick_dropped_total{transport=\"udp\"} 1",
        "bailiwick_truncated_total{transport=\"tcp\"} 2",
        "bailiwick_steered_answers_total{service=\"chat\",region=\"par\"} 2",
        "bailiwick_steered_answers_total{service=\"chat\",region=\"\"} 1",
        "bailiwick_rules_revision 7",
        "bailiwick_reloads_total{source=\"rules\",result=\"accepted\"} 1",
        "bailiwick_region_status{region=\"fra\",status=\"unknown\"} 1",
    ];
    for line in expected {
        assert!(text.lines().any(|one| one == line), "{line:?} is not in\n{text}");
    }
    assert!(text.contains("# TYPE bailiwick_queries_total counter\n") && !text.contains("# EOF"), "{text}");
}

#[tokio::test]
async fn metrics_are_openmetrics_for_whoever_asks_for_it() {
    let fixture = Fixture::open().await;
    let url = format!("{}/metrics", fixture.url);
    let asked = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.2";
    let response = fixture.client.get(url).header("accept", asked).send().await.unwrap();
    assert!(response.headers()["content-type"].to_str().unwrap().starts_with("application/openmetrics-text"));
    let text = response.text().await.unwrap();
    assert!(text.contains("# TYPE bailiwick_queries counter\n") && text.ends_with("# EOF\n"), "{text}");
}

#[tokio::test]
async fn whatever_else_is_asked_is_told_in_json() {
    let fixture = Fixture::open().await;
    let (status, reported) = read(fixture.get("/v2").await).await;
    assert!(status == 404 && message(&reported).contains("/v1/explain"), "{reported}");
    // All paths that take no name are told.
    let paths: Vec<&str> = message(&reported).split([' ', ',']).collect();
    let routes = include_str!("../api.rs").split(".route(\"").skip(1).filter_map(|rest| rest.split('"').next());
    for route in routes.filter(|route| !route.contains('{') && *route != "/ui") {
        assert!(paths.contains(&route), "{route} isn't in {paths:?}");
    }
    let (status, reported) = read(fixture.send(Method::PUT, "/v1/rules", Some(TOKEN), None).await).await;
    assert!(status == 405 && message(&reported).contains("PUT"), "{reported}");
    fixture.api.draining.store(true, Ordering::Relaxed);
    assert_eq!(fixture.get("/healthz").await.status(), 503);
}

#[tokio::test]
async fn observations_need_a_workers_token_and_are_added_up_once() {
    let fixture = Fixture::open().await;
    let post = |token, body| fixture.send(Method::POST, "/v1/observations", token, Some(body));
    assert!(!fixture.get("/metrics").await.text().await.unwrap().contains("observation_batches"), "nothing was posted");
    assert_eq!(read(post(None, batch(&fixture, 1)).await).await.0, 401);
    let (status, reported) = read(post(Some(READER), batch(&fixture, 1)).await).await;
    assert!(status == 403 && message(&reported).contains("worker_token_files"), "{status} {reported}");
    let (status, reported) = read(post(Some(WORKER), batch(&fixture, 1)).await).await;
    assert_eq!((status, reported), (200, json!({ "added": 2, "dropped": 1, "missed": 0 })));
    let (status, reported) = read(post(Some(TOKEN), batch(&fixture, 1)).await).await;
    assert!(status == 409 && message(&reported).contains("number 1 was added"), "{status} {reported}");
    let (status, reported) = read(post(Some(WORKER), batch(&fixture, 4)).await).await;
    assert_eq!((status, reported), (200, json!({ "added": 2, "dropped": 1, "missed": 2 })));

    let body = json!({ "region": "eu-frankfurt", "status": "down", "until": tomorrow(&fixture), "reason": "drill" });
    let (status, reported) = read(fixture.send(Method::POST, "/v1/overrides", Some(WORKER), Some(body)).await).await;
    assert!(status == 403 && message(&reported).contains("may not change anything"), "{status} {reported}");

    let text = fixture.get("/metrics").await.text().await.unwrap();
    let key = "service=\"chat\",clients=\"none\",region=\"\",endpoint=\"\",model=\"\"";
    for expected in [
        format!("bailiwick_observed_requests_total{{{key},code=\"ok\"}} 4\n"),
        format!("bailiwick_observed_tokens_total{{{key},direction=\"in\"}} 14\n"),
        format!("bailiwick_observed_request_seconds_sum{{{key}}} 3.0\n"),
        format!("bailiwick_observed_request_seconds_bucket{{le=\"0.5\",{key}}} 0\n"),
        format!("bailiwick_observed_request_seconds_bucket{{le=\"1.0\",{key}}} 2\n"),
        format!("bailiwick_observed_request_seconds_bucket{{le=\"2.0\",{key}}} 4\n"),
        format!("bailiwick_observed_request_seconds_bucket{{le=\"+Inf\",{key}}} 4\n"),
        "bailiwick_observation_batches_total{result=\"added\"} 2\n".to_owned(),
        "bailiwick_observation_batches_total{result=\"replayed\"} 1\n".to_owned(),
        "bailiwick_observation_batches_missed_total{} 2\n".to_owned(),
        "bailiwick_observations_dropped_total{} 2\n".to_owned(),
        "bailiwick_observing_isolates 1\n".to_owned(),
    ] {
        assert!(text.contains(&expected), "{expected} isn't in\n{text}");
    }
}

#[tokio::test]
async fn observations_that_are_wrong_are_refused_with_their_fault() {
    let fixture = Fixture::open().await;
    let mut late = batch(&fixture, 1);
    late["at"] = json!("2020-01-01T00:00:00Z");
    let mut unnamed = batch(&fixture, 1);
    unnamed["isolate"] = json!("198.51.100.7");
    let cases = [
        (late, 400, "is more than 5 minutes from this node's time"),
        (unnamed, 400, "isolate: isn't 8 to 64 hexadecimal digits"),
        (json!([]), 400, "invalid length"),
        (json!({ "x": "y".repeat(1 << 20) }), 413, "length limit exceeded"),
    ];
    for (body, expected, words) in cases {
        let (status, reported) =
            read(fixture.send(Method::POST, "/v1/observations", Some(WORKER), Some(body)).await).await;
        assert!(status == expected && message(&reported).contains(words), "{status} {reported}");
    }
    let text = fixture.get("/metrics").await.text().await.unwrap();
    for (why, count) in [("malformed", 2), ("time", 1), ("too_large", 1)] {
        let expected = format!("bailiwick_observation_batches_total{{result=\"{why}\"}} {count}\n");
        assert!(text.contains(&expected), "{expected} isn't in\n{text}");
    }
}
