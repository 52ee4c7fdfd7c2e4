//! Lines of a batch beside the same requests sent alone: what is refused, and what is written otherwise.

use bailiwick_rules::geo::CountryCode;
use bailiwick_rules::health::RegionHealth;
use bailiwick_rules::steer::{Ask, Client, Conditions, Local, PathClass, steer};
use bailiwick_rules::time::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::decide::body::Needs;
use crate::decide::plan::{Plan, PlanRequest};
use crate::decide::state::Place;
use crate::decide::state::tests::place;

fn table(allow: &[&str]) -> Table {
    let residency = json!([{ "clients": ["*"], "process_in": ["*"] }]);
    let service = |host: &str, region: &str| {
        json!({ "hosts": [host], "pattern": "active-active", "regions": [region], "residency": residency,
                "allow": allow })
    };
    let key = |digit: &str| json!([digit.repeat(64)]);
    let models = json!({ "chat": "llama", "chat-too": "llama", "embed": "embed", "ours": "ft:gpt-4o:acme::1" });
    let rules = json!({
        "version": 1, "revision": 1,
        "regions": {
            "fra": { "countries": ["DE"], "endpoints": {
                "named": { "url": "https://a.example.net/v1", "models": models },
                "vllm": { "url": "https://b.example.net/v1", "engine": "vllm" } } },
            "par": { "countries": ["FR"], "endpoints": { "own": { "url": "https://c.example.net/v1" } } },
        },
        "services": { "chat": service("chat.example", "fra"), "own": service("own.example", "par") },
        "tenants": { "acme": { "key_sha256": key("a"), "services": ["chat", "own"] },
                     "emca": { "key_sha256": key("b"), "services": ["chat"] } },
    });
    Table::compile(rules.to_string().as_bytes()).unwrap()
}

fn keys() -> Keyring {
    Keyring::parse(&"k".repeat(32)).unwrap()
}

fn owner(service: &str) -> Owner {
    Owner { service: service.into(), tenant: Some("acme".into()) }
}

/// What judges the lines of acme's that go to an endpoint.
fn judge(endpoint: &str, allow: &[&str]) -> BatchPolicy {
    let table = Rc::new(table(allow));
    let (name, region) = if endpoint == "own" { ("own", "par") } else { ("chat", "fra") };
    let service = table.service_named(name).unwrap();
    let (local, health) = (Local::default(), Vec::<RegionHealth>::new());
    let conditions = Conditions { health: &health, local: &local, now: Timestamp(0) };
    let client = Client { country: CountryCode::parse("DE"), ..Client::default() };
    let ask = Ask { service, client, model: None, path_class: PathClass::Inference, needs: None };
    let steering = steer(&table, &ask, &conditions);
    let wanted = PlanRequest {
        rollout: None,
        model: None,
        needs: &Needs::default(),
        conditions,
        arm: None,
        choice: None,
        affinity: "",
    };
    let at: Place = place(&table, region, endpoint);
    let plan = Plan::pinned(&table, &steering, &wanted, |_| true, &at).unwrap();
    let target = plan.targets()[0].clone();
    let is_sole = endpoint == "own";
    BatchPolicy { table, service, owner: owner(name), keys: keys(), target, is_sole, request: "r".into() }
}

/// The lines of a batch to an endpoint with names of its own.
pub(crate) fn named_lines() -> BatchInput {
    BatchInput::new(judge("named", &["batch"]))
}

fn pass(mut lines: BatchInput, text: &str, size: usize) -> Result<(String, bool), Failure> {
    let mut out = Vec::new();
    for chunk in text.as_bytes().chunks(size) {
        lines.pass(chunk, &mut out)?;
    }
    lines.finish(&mut out)?;
    Ok((String::from_utf8(out).unwrap(), lines.has_changed()))
}

fn line(path: &str, body: &Value) -> String {
    json!({ "custom_id": "session:1", "method": "POST", "url": path, "body": body }).to_string()
}

/// What becomes of a line.
fn sent(endpoint: &str, allow: &[&str], path: &str, body: &Value) -> Result<Value, Failure> {
    let (text, _) = pass(BatchInput::new(judge(endpoint, allow)), &line(path, body), 1_000)?;
    let mut sent: Value = serde_json::from_str(&text).unwrap();
    Ok(sent["body"].take())
}

/// The code and the field that a line is refused with.
fn refused(endpoint: &str, allow: &[&str], path: &str, body: &Value) -> (String, Option<String>) {
    let failure = sent(endpoint, allow, path, body).unwrap_err();
    assert!(failure.message().contains("Line 1 of the batch"), "{failure:?}");
    (failure.own_code().to_owned(), failure.param().map(str::to_owned))
}

const CHAT: &str = "/v1/chat/completions";

fn chat(more: &Value) -> Value {
    let mut body = json!({ "model": "chat", "messages": [{ "role": "user", "content": "https://a.example/" }] });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[test]
fn lines_name_models_as_the_endpoint_does_and_nothing_else_changes() {
    let line = |model: &str| {
        let begin = r#"{"custom_id":"1", "method":"POST","url":"/v1/chat/completions","body":{"#;
        let more = r#""messages":[{"content":"\"model\":\"chat\""}],"metadata":{"model":"chat"},"n":1e400,"#;
        format!(r#"{begin}{more}"mod\u0065l" : "{model}"}} }}"#)
    };
    for end in ["\n", "\r\n", "\n\n"] {
        let text = [line("chat"), line("embed"), line("chat\\u002dtoo"), " ".to_owned()].join(end);
        let expected = [line("llama"), line("embed"), line("llama"), " ".to_owned()].join(end);
        for size in [1, 7, 1_000] {
            assert_eq!(pass(named_lines(), &text, size), Ok((expected.clone(), true)));
        }
    }
    assert_eq!(pass(named_lines(), &line("embed"), 9), Ok((line("embed"), false)), "without a last end of line");
    assert_eq!(
        pass(named_lines(), "{\"a\":1}\n", 9),
        Ok(("{\"a\":1}\n".to_owned(), false)),
        "the line requests nothing"
    );
}

#[test]
fn a_line_is_one_line_for_every_reader() {
    let evil = r#"{"url":"/v1/chat/completions","body":{"model":"gpt"}}"#.replace('"', "\\\"");
    let text = |end: &str| line(CHAT, &chat(&json!({}))).replace("https://a", &format!("{end}{evil}{end}https://a"));
    for (end, written) in [("\u{2028}", "\\u2028"), ("\u{2029}", "\\u2029"), ("\u{85}", "\\u0085")] {
        let (sent, changed) = pass(BatchInput::new(judge("own", &[])), &text(end), 50).unwrap();
        assert_eq!((sent, changed), (text(written), true));
    }
    let spread = line(CHAT, &chat(&json!({}))).replace("\"body\":", "\"body\":\r");
    assert_eq!(pass(BatchInput::new(judge("own", &[])), &spread, 50).unwrap().0, spread.replace('\r', " "));
    assert!(pass(BatchInput::new(judge("own", &[])), &text("\u{b}"), 50).is_err());
}

#[test]
fn invalid_lines_of_a_batch_are_reported_with_their_numbers() {
    let good = format!("{}\n", line(CHAT, &chat(&json!({}))));
    let wrong = |line: &str| pass(named_lines(), &[&good, "\n", line].concat(), 5).unwrap_err();
    for line in ["{\n\"body\":{}}\n", "{\"body\":\n", "{\"a", "[\n", "x", "{\"a\":1} {}", "{\"a\":1,}", "\u{feff}{}"] {
        assert_eq!(wrong(line), Failure::BatchLine { line: 3 }, "{line}");
    }
    let odd = |line: &str| (wrong(line).own_code(), wrong(line).param().map(str::to_owned));
    assert_eq!(odd("{\"body\":{}}"), ("invalid_field", Some("url".into())));
    assert_eq!(odd("{\"Body\":{}}"), ("miscased_key", Some("body".into())));
    let long = pass(named_lines(), &format!("{{\"a\":\"{}\"}}", "x".repeat(LONGEST)), 1 << 20).unwrap_err();
    assert_eq!((long.status(), long.own_code()), (413, "body_too_large"));
    assert_eq!(crate::decide::inflight::held(), 0);
}

#[test]
fn what_a_line_takes_is_given_back_with_it() {
    let long = format!("{{\"a\":\"{}\",", "x".repeat(1 << 20));
    let (mut lines, mut out) = (named_lines(), Vec::new());
    lines.pass(long.as_bytes(), &mut out).unwrap();
    assert!(crate::decide::inflight::held() >= 3 << 20);
    assert!(lines.pass(b"}\nrest", &mut out).is_err());
    assert_eq!(lines.take_held(), [long.as_bytes(), b"}\nrest"].concat());
    assert_eq!((crate::decide::inflight::held(), out.len()), (0, 0), "a file that passes unread is not counted");
    let whole = format!("{{\"a\":1,\"x\":{}}}\n", "1".repeat(1 << 20));
    let mut lines = named_lines();
    lines.pass(whole.as_bytes(), &mut out).unwrap();
    assert!(out == whole.as_bytes() && crate::decide::inflight::held() < 1 << 20, "the next line is short");
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn a_line_is_refused_for_what_a_request_is_refused_for() {
    const PLACE: &str = "https://collector.example/x";
    let image = json!([{ "role": "user", "content": [{ "type": "image_url", "image_url": { "url": PLACE } }] }]);
    let of = |input: Value| json!({ "model": "chat", "input": input });
    for (path, body, code, param) in [
        (CHAT, chat(&json!({ "messages": image })), "remote_url_not_allowed", "/messages/0/content/0/image_url/url"),
        (CHAT, chat(&json!({ "tools": [{ "type": "web_search" }] })), "hosted_tool_not_allowed", "tools"),
        (CHAT, chat(&json!({ "fallbacks": ["gpt"] })), "unknown_field", "/fallbacks"),
        (CHAT, chat(&json!({ "mystery": "x" })), "unknown_field", "/mystery"),
        (CHAT, chat(&json!({ "guided_regex": "x" })), "unknown_field", "guided_regex"),
        (CHAT, chat(&json!({ "Model": "gpt" })), "miscased_key", "model"),
        (CHAT, chat(&json!({ "tools": "x" })), "invalid_field", "tools"),
        (CHAT, json!({ "messages": [] }), "invalid_field", "model"),
        (
            "/v1/completions",
            json!({ "model": "chat", "prompt": "x", "echo": PLACE }),
            "remote_url_not_allowed",
            "/echo",
        ),
        ("/v1/embeddings", of(json!([{ "image": PLACE }])), "remote_url_not_allowed", "/input/0/image"),
        (
            "/v1/moderations",
            of(json!([{ "type": "image_url", "image_url": { "url": PLACE } }])),
            "remote_url_not_allowed",
            "/input/0/image_url/url",
        ),
        (
            "/v1/images/generations",
            json!({ "model": "chat", "prompt": "x", "image": PLACE }),
            "remote_url_not_allowed",
            "/image",
        ),
        ("/v1/images/edits", json!({ "model": "chat", "mask": PLACE }), "remote_url_not_allowed", "/mask"),
        (
            "/v1/audio/speech",
            json!({ "model": "chat", "input": "x", "voice": PLACE }),
            "remote_url_not_allowed",
            "/voice",
        ),
        (
            "/v1/responses",
            of(json!([{ "role": "user", "content": [{ "type": "input_file", "file_url": PLACE }] }])),
            "remote_url_not_allowed",
            "/input/0/content/0/file_url",
        ),
        ("/v1/responses", json!({ "model": "chat", "background": true }), "background_not_allowed", "background"),
        ("/v1/responses", json!({ "model": "chat", "prompt": { "id": "p" } }), "hosted_tool_not_allowed", "tools"),
        (
            "/v1/responses",
            of(json!([{ "type": "item_reference", "id": "rs_1" }])),
            "item_reference_not_allowed",
            "input",
        ),
    ] {
        let expected = (code.to_owned(), Some(param.to_owned()));
        assert_eq!(refused("named", &["batch"], path, &body), expected, "{path} {body}");
    }
    for (path, body) in [
        ("/v1/responses", json!({ "model": "chat", "previous_response_id": "resp_1" })),
        ("/v1/responses", of(json!([{ "role": "user", "content": [{ "type": "input_file", "file_id": "file-1" }] }]))),
        (
            CHAT,
            chat(&json!({
                "messages": [{ "role": "user", "content": [{ "type": "file", "file": { "file_id": "f" } }] }]
            })),
        ),
    ] {
        assert_eq!(refused("named", &["batch"], path, &body).0, "not_found", "{path} {body}");
    }
    assert_eq!(
        refused("named", &["batch"], "/v1/responses", &json!({ "model": "chat", "conversation": "c" })).0,
        "not_implemented"
    );
}

#[test]
fn what_is_allowed_alone_is_allowed_in_a_line() {
    let allow = ["remote_urls", "hosted_tools", "unknown_fields", "background", "store"];
    let body = json!({ "model": "m", "background": true, "tools": [{ "type": "web_search" }], "mystery": ["x"],
                       "input": [{ "role": "user", "content": [
                           { "type": "input_image", "image_url": "https://a.example/" }] }] });
    assert_eq!(sent("own", &allow, "/v1/responses", &body), Ok(body));
}

#[test]
fn a_line_is_rewritten_as_a_request_is() {
    assert_eq!(sent("own", &[], "/v1/responses", &json!({ "model": "m", "input": "x" })).unwrap()["store"], false);
    assert_eq!(sent("own", &[], CHAT, &json!({ "model": "m", "store": true })).unwrap()["store"], false);
    let media =
        json!([{ "role": "user", "content": [{ "type": "image_url", "image_url": null, "uuid": "passport" }] }]);
    let body = json!({ "model": "m", "prompt_cache_key": "k", "messages": media });
    let scoped = sent("vllm", &[], CHAT, &body).unwrap();
    for name in ["/cache_salt", "/prompt_cache_key", "/messages/0/content/0/uuid"] {
        assert!(scoped.pointer(name).unwrap().as_str().unwrap().starts_with("bw-"), "{name}");
    }
    let guided = json!({ "model": "m", "messages": [], "guided_regex": "x" });
    assert_eq!(sent("vllm", &[], CHAT, &guided).unwrap()["guided_regex"], "x");
}

#[test]
fn a_line_opens_what_its_tenant_was_handed_at_this_endpoint() {
    let sealed = |endpoint: &str, id: &str| keys().seal(&owner("chat"), "fra", endpoint, id).unwrap();
    let others = Owner { service: "chat".into(), tenant: Some("emca".into()) };
    let file = |id: &str| {
        json!({ "model": "m",
                "input": [{ "role": "user", "content": [{ "type": "input_file", "file_id": id }] }] })
    };
    let opened = sent("vllm", &[], "/v1/responses", &file(&sealed("vllm", "file-1"))).unwrap();
    assert_eq!(opened["input"][0]["content"][0]["file_id"], "file-1");
    assert_eq!(refused("vllm", &[], "/v1/responses", &file(&sealed("named", "file-1"))).0, "ids_apart");
    let theirs = keys().seal(&others, "fra", "vllm", "file-1").unwrap();
    assert_eq!(refused("vllm", &[], "/v1/responses", &file(&theirs)).0, "not_found");
    let tuned = chat(&json!({ "model": sealed("vllm", "ft:gpt-4o:acme::1") }));
    assert_eq!(sent("vllm", &[], CHAT, &tuned).unwrap()["model"], "ft:gpt-4o:acme::1");
    assert_eq!(refused("named", &[], CHAT, &tuned).0, "ids_apart");
    let tuned = chat(&json!({ "model": keys().seal(&others, "fra", "vllm", "ft:gpt-4o:emca::1").unwrap() }));
    assert_eq!(refused("vllm", &[], CHAT, &tuned), ("model_not_found".into(), Some("model".into())));
}

#[test]
fn a_line_names_a_model_that_its_tenant_may_use() {
    let model = |endpoint: &str, model: &str| {
        sent(endpoint, &[], CHAT, &chat(&json!({ "model": model }))).map(|sent| sent["model"].clone())
    };
    let unknown = |name: &str| Err(Failure::BatchModel { line: 1, model: name.into() });
    for name in ["ft:gpt-4o:emca::1", "FT:gpt-4o:emca::1", "gpt-4o-2024-08-06.ft-0123", "gpt-4o:online"] {
        assert_eq!(model("vllm", name), unknown(name), "{name}");
        assert_eq!(model("named", name), unknown(name), "{name}");
    }
    assert_eq!(model("own", "ft:gpt-4o:acme::1"), Ok("ft:gpt-4o:acme::1".into()), "the account is the tenant's alone");
    assert_eq!(model("named", "ours"), Ok("ft:gpt-4o:acme::1".into()), "the operator's map has the name");
    assert_eq!(model("named", "llama"), unknown("llama"));
    assert_eq!(model("vllm", "llama3:8b"), Ok("llama3:8b".into()));
    assert_eq!(refused("vllm", &[], CHAT, &chat(&json!({ "model": "https://a.example" }))).0, "remote_url_not_allowed");
}

#[test]
fn all_lines_of_a_file_ask_one_path() {
    let two = |first: &str, second: &str| {
        let line = |path: &str| line(path, &json!({ "model": "embed", "input": "x" }));
        pass(named_lines(), &[line(first), line(second)].join("\n"), 9).map(|(_, changed)| changed)
    };
    assert_eq!(two("/v1/embeddings", "/v1/embeddings"), Ok(false));
    assert_eq!(two("/v1/embeddings", "/embeddings"), Ok(false), "the same path, as Azure has it");
    let other = two("/v1/embeddings", "/v1/responses").unwrap_err();
    assert_eq!((other.own_code(), other.param()), ("invalid_field", Some("url")));
    assert!(other.message().contains("Line 2 of the batch"), "{other:?}");
    let nothing = format!("{{\"url\":\"/v1/x\"}}\n{}", line(CHAT, &chat(&json!({}))));
    assert!(pass(named_lines(), &nothing, 9).is_ok(), "a line without a body asks nothing");
}

#[test]
fn lines_are_utf_8_whatever_they_begin_with() {
    let good = line(CHAT, &chat(&json!({})));
    let utf_16: Vec<u8> = good.encode_utf16().flat_map(u16::to_le_bytes).collect();
    for bytes in [
        [b"\xef\xbb\xbf", good.as_bytes()].concat(),
        [b"\xff\xfe", &utf_16[..]].concat(),
        [b"\xfe\xff", &utf_16[..]].concat(),
        utf_16,
        good.replace("https", "\u{7f}").bytes().map(|byte| if byte == 0x7f { 0xe9 } else { byte }).collect(),
    ] {
        let mut out = Vec::new();
        let mut lines = named_lines();
        let reported = lines.pass(&bytes, &mut out).and_then(|()| lines.finish(&mut out));
        assert_eq!(reported, Err(Failure::BatchLine { line: 1 }), "{bytes:?}");
    }
}

#[test]
fn a_model_below_the_top_level_is_the_endpoints_own() {
    let body = |model: &str| chat(&json!({ "moderation": { "model": model } }));
    assert_eq!(sent("named", &[], CHAT, &body("chat-too")).unwrap()["moderation"]["model"], "llama");
    for (endpoint, name) in [("named", "gpt-us"), ("vllm", "ft:gpt-4o:emca::1"), ("vllm", "eu.anthropic.claude")] {
        let expected = ("model_not_found".to_owned(), Some("/moderation/model".to_owned()));
        assert_eq!(refused(endpoint, &[], CHAT, &body(name)), expected, "{name}");
    }
    assert_eq!(sent("vllm", &[], CHAT, &body("omni")).unwrap()["moderation"]["model"], "omni");
}
