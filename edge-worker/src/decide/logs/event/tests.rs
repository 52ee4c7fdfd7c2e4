use serde_json::{Map, Value, json};

use super::*;
use crate::decide::attempt::End;
use crate::decide::plan::Plan;
use crate::decide::plan::tests::{american_plan, german_plan};
use crate::decide::usage::Usage;

const BEGAN: Timestamp = Timestamp(1_800_000_000_000);
const ID: &str = "0b1f0a0e-6f0e-4a6a-8d5a-0123456789ab";

/// A request whose first endpoint failed and whose second one served.
fn served(plan: &Plan) -> Record {
    let attempt = |position: usize, outcome: Outcome, started: i64, ms: u64| Attempt {
        target: position,
        region: plan.targets()[position].region_id().clone(),
        endpoint: plan.targets()[position].id().clone(),
        arm: None,
        started_ms: BEGAN.0 + started,
        outcome: Some(outcome),
        ms,
    };
    let mut record = Record {
        attempts: vec![attempt(0, Outcome::Status(503), 5, 40), attempt(1, Outcome::Committed, 45, 100)],
        end: Some(End::Whole),
        usage: Usage { tokens_in: Some(7), tokens_out: Some(4), finish: Some("stop") },
        ..Record::default()
    };
    record.contents.note(BEGAN.0 + 145);
    record
}

fn facts<'a>(sent: Option<Sent<'a>>, trace: Option<&'a Trace>) -> Facts<'a> {
    let route = Route::parse("POST", "/v1/chat/completions").unwrap();
    Facts {
        request_id: ID,
        revision: 7,
        service: "chat",
        tenant: Some("pseudonym"),
        tier: Some("gold"),
        fence: &["fra", "par"],
        operation: Operation::of(&route),
        model: Some("chat"),
        code: "ok",
        status: Some(200),
        began: BEGAN,
        ended: Timestamp(BEGAN.0 + 900),
        sent,
        trace,
        content: None,
    }
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Attributes as an object, each with the value of its only member.
fn attributes(value: &Value) -> Map<String, Value> {
    let value_of = |value: &Value| value.as_object().unwrap().values().next().unwrap().clone();
    let pairs = value["attributes"].as_array().unwrap().iter();
    let pairs = pairs.map(|pair| (pair["key"].as_str().unwrap().to_owned(), value_of(&pair["value"])));
    let all: Vec<_> = pairs.collect();
    let object: Map<String, Value> = all.iter().cloned().collect();
    assert_eq!(object.len(), all.len(), "each attribute once");
    let known: Vec<&str> = Field::ALL.iter().map(|field| field.name()).collect();
    assert!(object.keys().all(|name| known.contains(&name.as_str())), "{object:?}");
    object
}

#[test]
fn an_event_tells_where_a_request_went_in_opentelemetrys_words() {
    let plan = german_plan();
    let (record_of, targets) = (served(&plan), [plan.targets().first(), plan.targets().get(1)]);
    let event = parsed(&record(&facts(Some(Sent { record: &record_of, targets: &targets }), None)));
    assert_eq!(event["eventName"], "gen_ai.client.inference.operation.details");
    assert_eq!(event["timeUnixNano"], "1800000000900000000");
    assert_eq!((&event["severityText"], &event["traceId"]), (&json!("INFO"), &Value::Null));
    let told = attributes(&event);
    let region = record_of.attempts[1].endpoint.as_str();
    assert_eq!(
        Value::Object(told),
        json!({
            "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "chat",
            "gen_ai.response.model": "llama", "gen_ai.usage.input_tokens": "7", "gen_ai.usage.output_tokens": "4",
            "http.response.status_code": "200", "bailiwick.request.id": ID, "bailiwick.service": "chat",
            "bailiwick.tenant": "pseudonym", "bailiwick.tier": "gold", "bailiwick.revision": "7",
            "bailiwick.fence": { "values": [{ "stringValue": "fra" }, { "stringValue": "par" }] },
            "bailiwick.attempts": record_of.header(), "bailiwick.region": "fra", "bailiwick.endpoint": region,
            "bailiwick.jurisdiction": "eu", "bailiwick.duration_ms": "900", "bailiwick.first_token_ms": "145",
        })
    );
}

#[test]
fn a_request_that_was_refused_tells_only_why() {
    let fence: Vec<String> = (0..40).map(|nth| format!("r{nth}")).collect();
    let fence: Vec<&str> = fence.iter().map(String::as_str).collect();
    let refused = Facts {
        code: "residency_denied",
        status: Some(451),
        tenant: None,
        tier: None,
        operation: Operation::default(),
        fence: &fence,
        ..facts(None, None)
    };
    let event = parsed(&record(&refused));
    assert_eq!((&event["eventName"], &event["severityNumber"]), (&json!("bailiwick.request"), &json!(13)));
    let told = attributes(&event);
    assert_eq!((&told["error.type"], &told["bailiwick.fence.more"]), (&json!("residency_denied"), &json!("24")));
    assert_eq!(told["bailiwick.fence"]["values"].as_array().unwrap().len(), MOST_OF_FENCE);
    assert!(!told.contains_key("gen_ai.request.model"), "a model's name is told only with an endpoint that has it");
}

#[test]
fn a_models_name_that_the_rules_dont_have_is_text_of_the_client() {
    let plan = american_plan("words of a client");
    let (record_of, targets) = (served_alone(&plan), [plan.targets().first()]);
    let sent = Some(Sent { record: &record_of, targets: &targets });
    let trace = Trace::of(None, ID);
    let facts = Facts { model: Some("words of a client"), ..facts(sent, Some(&trace)) };
    let all = [vec![record(&facts)], spans(&facts)].concat();
    assert!(all.len() == 3 && all.iter().all(|one| !one.contains("words")), "{all:?}");
    // An endpoint that has a map doesn't have this name in it.
    let plan = german_plan();
    let (record_of, targets) = (served(&plan), [plan.targets().first(), plan.targets().get(1)]);
    let facts = Facts { sent: Some(Sent { record: &record_of, targets: &targets }), ..facts };
    assert!(!record(&facts).contains("words"));
}

fn served_alone(plan: &Plan) -> Record {
    let target = &plan.targets()[0];
    let (region, endpoint) = (target.region_id().clone(), target.id().clone());
    let outcome = Some(Outcome::Committed);
    let attempt = Attempt { target: 0, region, endpoint, arm: None, started_ms: BEGAN.0, outcome, ms: 3 };
    Record { attempts: vec![attempt], ..Record::default() }
}

#[test]
fn each_attempt_has_a_span_below_the_requests_own() {
    let plan = german_plan();
    let (record_of, targets) = (served(&plan), [plan.targets().first(), plan.targets().get(1)]);
    let trace = Trace::of(Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"), ID);
    let facts = facts(Some(Sent { record: &record_of, targets: &targets }), Some(&trace));
    let made: Vec<Value> = spans(&facts).iter().map(|span| parsed(span)).collect();
    let [whole, failed, good] = &made[..] else { panic!("{made:?}") };
    assert_eq!((&whole["kind"], &whole["parentSpanId"]), (&json!(2), &json!("00f067aa0ba902b7")));
    assert_eq!(parsed(&record(&facts))["spanId"], whole["spanId"], "the event belongs to the request's span");
    for (span, nth) in [(failed, 1), (good, 2)] {
        assert_eq!((&span["kind"], &span["parentSpanId"]), (&json!(3), &whole["spanId"]));
        assert_eq!(span["name"], "chat chat");
        let header = format!("00-{}-{}-01", trace.id(), span["spanId"].as_str().unwrap());
        assert_eq!(header, trace.header(ID, nth), "the endpoint got this span as its parent");
    }
    let times = |span: &Value| {
        [&span["startTimeUnixNano"], &span["endTimeUnixNano"]].map(|time| time.as_str().unwrap().to_owned())
    };
    assert_eq!(times(whole), ["1800000000000000000", "1800000000900000000"]);
    assert_eq!(times(failed), ["1800000000005000000", "1800000000045000000"]);
    assert_eq!(times(good), ["1800000000045000000", "1800000000900000000"]);
    assert_eq!((&failed["status"], &good["status"], &whole["status"]), (&json!({ "code": 2 }), &json!({}), &json!({})));
    let told = attributes(failed);
    assert_eq!((&told["error.type"], &told["http.response.status_code"]), (&json!("http_5xx"), &json!("503")));
    assert!(
        !told.contains_key("gen_ai.usage.input_tokens") && attributes(good).contains_key("gen_ai.usage.input_tokens")
    );
    attributes(whole);
    let unsampled = Trace::of(Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"), ID);
    assert!(spans(&Facts { trace: Some(&unsampled), ..facts }).is_empty());
}

#[test]
fn prompt_and_answer_stand_in_the_event_alone() {
    let mut content = Content::default();
    content.keep_prompt(b"{\"messages\":\"\\u0001 \xe2\x80\xa8\"}");
    content.keep_answer(b"\"\\\n\x01");
    content.note_receipt();
    let trace = Trace::of(None, ID);
    let facts = Facts { content: Some(&content), ..facts(None, Some(&trace)) };
    let told = attributes(&parsed(&record(&facts)));
    assert_eq!(told["bailiwick.request.body"], "{\"messages\":\"\\u0001 \u{2028}\"}");
    assert_eq!(told["bailiwick.response.body"], "\"\\\n\u{1}");
    assert!(!told.contains_key("bailiwick.body.truncated"));
    assert!(spans(&facts).iter().all(|span| !span.contains("body")));
}

#[test]
fn nothing_is_kept_that_no_receipt_tells_of() {
    let mut content = Content::default();
    content.keep_prompt(b"{\"secret\":1}");
    let told = |content: &Content| attributes(&parsed(&record(&Facts { content: Some(content), ..facts(None, None) })));
    assert!(!told(&content).keys().any(|name| name.contains("body")), "no receipt");
    content.note_receipt();
    let all = told(&content);
    assert!(all.contains_key("bailiwick.request.body") && !all.contains_key("bailiwick.response.body"), "{all:?}");
}

#[test]
fn a_number_that_otlp_cant_hold_is_left_out() {
    let plan = german_plan();
    let targets = [plan.targets().first(), plan.targets().get(1)];
    for (count, is_told) in [(i64::MAX.unsigned_abs(), true), (i64::MAX.unsigned_abs() + 1, false), (u64::MAX, false)] {
        let mut record_of = served(&plan);
        record_of.usage.tokens_in = Some(count);
        let sent = Some(Sent { record: &record_of, targets: &targets });
        let told = attributes(&parsed(&record(&facts(sent, None))));
        let text = told.get("gen_ai.usage.input_tokens").map(|value| value.as_str().unwrap().parse::<i64>().unwrap());
        assert_eq!(text, is_told.then_some(i64::MAX));
        assert!(told.contains_key("gen_ai.usage.output_tokens"));
    }
}

#[test]
fn a_clients_mistake_is_no_error_of_the_server() {
    let trace = Trace::of(None, ID);
    let status_of = |code, status| {
        let facts = Facts { code, status: Some(status), ..facts(None, Some(&trace)) };
        parsed(&spans(&facts)[0])["status"].clone()
    };
    assert_eq!(status_of("model_not_found", 404), json!({}));
    assert_eq!(status_of("rate_limited", 429), json!({}));
    assert_eq!(status_of("endpoints_failed", 502), json!({ "code": 2 }));
    assert_eq!(status_of("interrupted", 200), json!({ "code": 2 }), "an answer that broke off");
}

#[test]
fn operations_have_opentelemetrys_names() {
    let of = |method: &str, path: &str| Operation::of(&Route::parse(method, path).unwrap()).0;
    for (path, name) in [
        ("/v1/chat/completions", Some("chat")),
        ("/v1/responses", Some("chat")),
        ("/v1/completions", Some("text_completion")),
        ("/v1/embeddings", Some("embeddings")),
        ("/v1/images/generations", Some("generate_content")),
        ("/v1/audio/speech", Some("generate_content")),
        ("/v1/moderations", None),
        ("/v1/files", None),
    ] {
        assert_eq!(of("POST", path), name, "{path}");
    }
    assert_eq!(of("GET", "/v1/models/secret-words"), None);
}

#[test]
fn the_page_has_a_row_for_each_field() {
    let page = include_str!("../../../../../docs/logs.md");
    for field in Field::ALL {
        assert!(page.contains(&format!("`{}`", field.name())), "{}", field.name());
    }
}
