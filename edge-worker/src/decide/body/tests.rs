//! Tests of whole bodies.

use std::cell::Cell;

use bailiwick_rules::rules::Engine;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::*;

mod fields;
mod inputs;
mod reaching;

pub(crate) fn terms(allow: &[Allowance]) -> Terms<'_> {
    Terms { allow, scope: Scope { service: "chat".into(), tenant: Some("acme".into()), request: "1".into() } }
}

pub(super) fn inspect(path: &str, text: &str, allow: &[Allowance]) -> Result<Inspected, Failure> {
    Inspected::json(text.as_bytes().to_vec(), &Route::parse("POST", path).unwrap(), &terms(allow))
}

fn chat(text: &str) -> Result<Inspected, Failure> {
    inspect("/v1/chat/completions", text, &[])
}

fn refusal(text: &str) -> Failure {
    chat(text).err().unwrap()
}

fn sent(body: &Inspected, model: &str) -> String {
    String::from_utf8(body.for_endpoint(Some(model), None, None).concat()).unwrap()
}

#[test]
fn only_the_bytes_of_the_model_change() {
    let text = "{ \"seed\":1e400,\n\t\"model\" : \"ch\\u0061t\" , \"n\":1180591620717411303424,\
        \"metadata\":{\"model\":\"x\"},\"é\":-0.0 }";
    let body = chat(text).unwrap();
    assert_eq!(body.model(), Some("chat"));
    assert_eq!(sent(&body, "org/\"llama\""), text.replace("\"ch\\u0061t\"", "\"org/\\\"llama\\\"\""));
    assert_eq!(sent(&body, "chat"), text, "an equal name isn't replaced");
}

#[test]
fn an_upload_in_parts_states_its_purpose_when_it_is_created() {
    let begin = |fields: &str, allow: &[Allowance]| {
        inspect("/v1/uploads", &format!("{{\"filename\":\"a\",\"bytes\":1{fields}}}"), allow).err()
    };
    assert_eq!(begin(",\"purpose\":\"user_data\"", &[]), None);
    assert_eq!(begin(",\"purpose\":\"batch\"", &[]), Some(Failure::Batch));
    assert_eq!(begin(",\"purpose\":\"b\\u0061tch\"", &[]), Some(Failure::Batch));
    let whole = begin(",\"purpose\":\"batch\"", &[Allowance::Batch]);
    assert!(
        matches!(whole, Some(Failure::BadField { field: "purpose", .. })),
        "the edge couldn't read the lines of the batch"
    );
    assert_eq!(begin(",\"Purpose\":\"batch\"", &[]), Some(Failure::MiscasedKey { key: "purpose" }));
    for odd in ["", ",\"purpose\":null", ",\"purpose\":[\"batch\"]", ",\"purpose\":\"Batch\""] {
        assert!(matches!(begin(odd, &[]), Some(Failure::BadField { field: "purpose", .. })), "{odd}");
    }
    let parts = "{\"part_ids\":[\"part_1\",\"part_2\"],\"md5\":\"x\"}";
    let done = inspect("/v1/uploads/upload_1/complete", parts, &[]).unwrap();
    assert_eq!(done.ids().collect::<Vec<_>>(), ["part_1", "part_2"]);
}

#[test]
fn a_body_that_is_not_a_json_object_is_refused() {
    assert_eq!(refusal(""), Failure::MissingBody);
    assert_eq!(refusal("{\"model\":NaN}"), Failure::NotJson { at: 9 });
    assert_eq!(refusal("[]"), Failure::NotAnObject);
    assert_eq!(refusal("{\"model\":\"a\"} x"), Failure::NotJson { at: 14 });
    let route = Route::parse("POST", "/v1/embeddings").unwrap();
    assert_eq!(
        Inspected::json(b"{\"a\":\"\xff\"}".to_vec(), &route, &terms(&[])).err(),
        Some(Failure::NotJson { at: 6 })
    );
    assert!(matches!(refusal(&"[".repeat(100_000)), Failure::NotJson { .. }));
}

#[test]
fn ambiguous_keys_are_refused() {
    assert_eq!(refusal(r#"{"model":"a","mod\u0065l":"b"}"#), Failure::DuplicateKey { key: "model".into() });
    assert_eq!(refusal(r#"{"model":"a","x":1,"x":2}"#), Failure::DuplicateKey { key: "x".into() });
    assert_eq!(refusal(r#"{"model":"a","Store":true}"#), Failure::MiscasedKey { key: "store" });
    assert_eq!(refusal(r#"{"model":"a","tool\u017f":[{"type":"mcp"}]}"#), Failure::MiscasedKey { key: "tools" });
    assert_eq!(refusal("{\"model\":\"a\",\"bac\u{212a}ground\":true}"), Failure::MiscasedKey { key: "background" });
}

#[test]
fn fields_have_their_types() {
    assert_eq!(refusal("{}"), NO_MODEL);
    assert_eq!(refusal(r#"{"model":7}"#), NO_MODEL);
    assert_eq!(refusal(r#"{"model":""}"#), NO_MODEL);
    assert!(matches!(refusal(r#"{"model":"a","stream":"true"}"#), Failure::BadField { field: "stream", .. }));
    let tools = r#"{"model":"a","tools":{"type":"web_search"}}"#;
    assert!(matches!(refusal(tools), Failure::BadField { field: "tools", .. }));
    assert!(chat(r#"{"model":"a","stream":true}"#).unwrap().stream());
    assert!(!chat(r#"{"model":"a","stream":null}"#).unwrap().stream());
    assert!(inspect("/v1/moderations", r#"{"input":"x"}"#, &[]).is_ok());
    let body = chat(r#"{"model":"a","user":"u\n1","prompt_cache_key":"k"}"#).unwrap();
    let hints = Affinity { prompt_cache_key: Some("k"), user: Some("u\n1"), model: Some("a"), beginning: None };
    assert_eq!(body.affinity(), hints);
}

#[test]
fn nothing_is_stored_unless_allowed() {
    let stored = |path: &str, text: &str, allow: &[Allowance]| sent(&inspect(path, text, allow).unwrap(), "m");
    let responses = "/v1/responses";
    assert_eq!(stored(responses, r#" {"model":"a"}"#, &[]), r#" {"store":false,"model":"m"}"#);
    assert_eq!(stored(responses, r#"{"store":true,"model":"a"}"#, &[]), r#"{"store":false,"model":"m"}"#);
    assert_eq!(stored(responses, r#"{"model":"a","store":null}"#, &[]), r#"{"model":"m","store":false}"#);
    assert_eq!(stored(responses, r#"{"model":"a","store":false}"#, &[]), r#"{"model":"m","store":false}"#);
    assert_eq!(stored(responses, r#"{"model":"a"}"#, &[Allowance::Store]), r#"{"model":"m"}"#);
    let chat = "/v1/chat/completions";
    assert_eq!(stored(chat, r#"{"model":"a","store":"x"}"#, &[]), r#"{"model":"m","store":false}"#);
    assert_eq!(stored(chat, r#"{"model":"a"}"#, &[]), r#"{"model":"m"}"#);
}

#[test]
fn ids_are_found_wherever_they_stand_but_in_the_clients_own_data() {
    let text = r#"{"model":"a","previous_response_id":"r","input":[{"content":[{"type":"input_file",
        "f\u0069le_id":"f1"}]}],
        "tools":[{"type":"function","name":"f","parameters":{"file_id":"no"}}],"metadata":{"file_id":"no"},
        "x":{"vector_store_ids":["v1", null,"v2"],"FILE_ID":"f2","file_id":null}}"#;
    let mut body = inspect("/v1/responses", text, &[Allowance::Store, Allowance::UnknownFields]).unwrap();
    assert_eq!(body.ids().collect::<Vec<_>>(), ["r", "f1", "v1", "v2", "f2"]);
    assert_eq!(sent(&body, "a"), text);
    body.replace_ids(["R", "F\"1", "V1", "V2", "F2"].into_iter().map(str::to_owned));
    let mut expected = text.to_owned();
    for (old, new) in [("r", "R"), ("f1", "F\\\"1"), ("v1", "V1"), ("v2", "V2"), ("f2", "F2")] {
        expected = expected.replace(&format!("\"{old}\""), &format!("\"{new}\""));
    }
    assert_eq!(sent(&body, "a"), expected);
}

#[test]
fn ids_of_audio_and_of_containers_are_found() {
    let audio = r#"{"model":"a","audio":{"voice":"alloy"},"messages":[{"role":"assistant","audio":{"id":"audio_1"}},
        {"role":"assistant","audio":{"ID":"audio_2","data":"UklGRgAA"}}]}"#;
    let body = chat(audio).unwrap();
    assert_eq!((body.ids().collect::<Vec<_>>(), body.keeps()), (vec!["audio_1", "audio_2"], true));
    assert!(!chat(r#"{"model":"a","audio":null}"#).unwrap().keeps());
    // The id of a custom voice is sealed for its tenant, like other ids.
    let spoken = chat(r#"{"model":"a","audio":{"voice":{"id":"voice_1"},"format":"wav"}}"#).unwrap();
    assert_eq!(spoken.ids().collect::<Vec<_>>(), ["voice_1"]);
    let speech = r#"{"model":"a","input":"x","voice":{"id":"voice_1"}}"#;
    let speech = inspect("/v1/audio/speech", speech, &[]).unwrap();
    assert_eq!(speech.ids().collect::<Vec<_>>(), ["voice_1"]);

    let hosted = |tools: &str| {
        let text = format!(r#"{{"model":"a","tools":[{tools}]}}"#);
        let body = inspect("/v1/responses", &text, &[Allowance::HostedTools]).unwrap();
        (body.ids().map(str::to_owned).collect::<Vec<_>>(), body.keeps())
    };
    assert_eq!(hosted(r#"{"type":"code_interpreter","container":"cntr_1"}"#), (vec!["cntr_1".to_owned()], true));
    assert_eq!(hosted(r#"{"type":"code_interpreter","Container":"cntr_1"}"#), (vec!["cntr_1".to_owned()], true));
    let new = r#"{"type":"code_interpreter","container":{"type":"auto","file_ids":["file-1"]}}"#;
    assert_eq!(hosted(new), (vec!["file-1".to_owned()], true));
    let shell = r#"{"type":"shell","environment":{"type":"container_reference","container_id":"cntr_1"}}"#;
    assert_eq!(hosted(shell), (vec!["cntr_1".to_owned()], true));
    assert_eq!(hosted(r#"{"type":"web_search"}"#), (Vec::new(), false));
    let call = r#"{"model":"a","input":[{"type":"code_interpreter_call","id":"ci_1","container_id":"cntr_1"},
        {"type":"message","content":[{"type":"output_text","annotations":[{"container_id":"cntr_2"}]}]}]}"#;
    let body = inspect("/v1/responses", call, &[]).unwrap();
    assert_eq!(body.ids().collect::<Vec<_>>(), ["cntr_1", "cntr_2"]);
}

#[test]
fn what_hides_state_or_work_from_inspection_is_refused() {
    let responses = |text: &str| inspect("/v1/responses", text, &[Allowance::Store]).err();
    let carried = |fields: &str| responses(&format!("{{\"model\":\"a\",{fields}}}"));
    assert!(matches!(carried(r#""conversation":"conv_1""#), Some(Failure::NotCarried { .. })));
    assert!(matches!(carried(r#""prompt":{"id":"pmpt_1"}"#), Some(Failure::HostedTool { .. })));
    assert_eq!(carried(r#""prompt":null,"conversation":null,"input":[{"type":"message"}]"#), None);
    let tuning = r#"{"model":"a","integrations":[{"type":"wandb"}]}"#;
    assert!(matches!(inspect("/v1/fine_tuning/jobs", tuning, &[]).err(), Some(Failure::HostedTool { .. })));
    assert!(inspect("/v1/completions", r#"{"model":"a","prompt":"x"}"#, &[]).is_ok());
    assert!(inspect("/v1/images/generations", r#"{"model":"a","background":"opaque"}"#, &[]).is_ok());
}

#[test]
fn compactions_and_counts_are_judged_as_responses_but_store_nothing() {
    for path in ["/v1/responses/compact", "/v1/responses/input_tokens"] {
        let plain = inspect(path, r#"{"model":"a","input":"x"}"#, &[]).unwrap();
        assert_eq!((sent(&plain, "a").as_str(), plain.stores()), (r#"{"model":"a","input":"x"}"#, false));
        assert!(!inspect(path, r#"{"model":"a"}"#, &[Allowance::Store]).unwrap().stores());
        let refused = |fields: &str| inspect(path, &format!("{{\"model\":\"a\",{fields}}}"), &[]).err();
        assert!(matches!(refused(r#""conversation":"conv_1""#), Some(Failure::NotCarried { .. })));
        assert!(matches!(refused(r#""prompt":{"id":"p"}"#), Some(Failure::HostedTool { .. })));
        assert!(matches!(refused(r#""tools":[{"type":"mcp"}]"#), Some(Failure::HostedTool { .. })));
        assert_eq!(refused(r#""background":true"#), Some(Failure::Background));
        let with_id = inspect(path, r#"{"model":"a","previous_response_id":"resp_1","store":true}"#, &[]).unwrap();
        assert_eq!(with_id.ids().collect::<Vec<_>>(), ["resp_1"]);
        assert!(sent(&with_id, "a").ends_with(r#""store":false}"#));
    }
}

#[test]
fn json_bodies_of_image_edits_are_judged_too() {
    let edits = |images: &str| {
        inspect("/v1/images/edits", &format!(r#"{{"model":"a","prompt":"x","images":[{images}]}}"#), &[])
    };
    assert!(edits(r#"{"image_url":"data:image/png;base64,AAAA"}"#).is_ok());
    let remote = edits(r#"{"image_url":"https://a/b.png"}"#).err().map(|failure| failure.code().to_owned());
    assert_eq!(remote.as_deref(), Some("remote_url_not_allowed"));
    assert_eq!(edits(r#"{"file_id":"file-1"}"#).unwrap().ids().collect::<Vec<_>>(), ["file-1"]);
}

#[test]
fn an_answer_is_stored_if_service_and_request_allow_it() {
    let stores = |path: &str, text: &str| inspect(path, text, &[Allowance::Store]).unwrap().stores();
    assert!(
        stores("/v1/responses", r#"{"model":"a"}"#)
            && stores(
                "/v1/responses",
                r#"{"model":"a",
        "store":null}"#
            )
    );
    assert!(!stores("/v1/responses", r#"{"model":"a","store":false}"#));
    assert!(!stores("/v1/chat/completions", r#"{"model":"a"}"#));
    assert!(stores("/v1/chat/completions", r#"{"model":"a","store":true}"#));
    assert!(!inspect("/v1/responses", r#"{"model":"a","store":true}"#, &[]).unwrap().stores());
}

#[test]
fn background_and_batches_need_permission() {
    let background = r#"{"model":"a","background":true}"#;
    assert_eq!(inspect("/v1/responses", background, &[]).err(), Some(Failure::Background));
    assert!(inspect("/v1/responses", background, &[Allowance::Background]).is_ok());
    let odd = r#"{"model":"a","background":1}"#;
    assert!(matches!(inspect("/v1/responses", odd, &[]).err(), Some(Failure::BadField { .. })));
    assert_eq!(inspect("/v1/batches", "{}", &[]).err(), Some(Failure::Batch));
}

#[test]
fn a_splice_preserves_every_other_byte() {
    let value = || {
        prop_oneof![
            Just("1e400".to_owned()),
            Just("1180591620717411303424".to_owned()),
            Just("[ {\"model\":\"inner\"}, null ]".to_owned()),
            Just("\"\\\"model\\\":\"".to_owned()),
            // The bodies hold each text after the word `a`, so the filter judges it with that word.
            any::<String>()
                .prop_filter("the text names no place", |text| !place::names_place(
                    &format!("a {text}"),
                    place::Certainty::Word
                ))
                .prop_map(|text| quoted(&format!("a {text}"))),
        ]
    };
    let strategy = (
        proptest::collection::btree_map("[a-e]{1,3}", ("[ \n\t]{0,2}", value()), 0..6),
        proptest::collection::btree_map("[f-k]{1,3}", ("[ \n\t]{0,2}", value()), 0..6),
        "a \\PC{1,20}",
        "a \\PC{1,20}",
    );
    let cases = Cell::new(0);
    TestRunner::new(ProptestConfig::with_cases(4_000))
        .run(&strategy, |(before, after, old, new)| {
            cases.set(cases.get() + 1);
            let write = |fields: &std::collections::BTreeMap<String, (String, String)>| {
                let field =
                    |(key, (space, value)): (&String, &(String, String))| format!("{space}\"{key}\":{value}{space}");
                fields.iter().map(field).collect::<Vec<_>>()
            };
            let join = |model: &str| {
                let mut parts = write(&before);
                parts.push(format!("\"model\": {}", quoted(model)));
                parts.extend(write(&after));
                format!("{{{}}}", parts.join(","))
            };
            let body = inspect("/v1/chat/completions", &join(&old), &[Allowance::UnknownFields, Allowance::RemoteUrls]);
            let body = body.map_err(|failure| TestCaseError::fail(failure.message()))?;
            prop_assert_eq!(body.model(), Some(old.as_str()));
            prop_assert_eq!(sent(&body, &new), join(&new));
            Ok(())
        })
        .unwrap();
    println!("splices tried: {}", cases.get());
}

#[test]
fn no_bytes_make_it_panic() {
    let route = Route::parse("POST", "/v1/responses").unwrap();
    let strategy = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..64),
        r#"[\[\]{}:,"a\\u0store:true tools model image_url.+-]{0,64}"#.prop_map(String::into_bytes),
    ];
    TestRunner::new(ProptestConfig::with_cases(4_000))
        .run(&strategy, |bytes| {
            if let Ok(body) = Inspected::json(bytes, &route, &terms(&[])) {
                let _ = body.for_endpoint(Some("m"), None, None);
            }
            Ok(())
        })
        .unwrap();
}

/// The error for a chat completion, or another body, with these fields.
pub(super) fn outcome(path: &str, fields: &str, allow: &[Allowance]) -> String {
    match inspect(path, &format!("{{\"model\":\"a\",{fields}}}"), allow) {
        Ok(_) => "ok".to_owned(),
        Err(failure) => format!("{} {}", failure.code(), failure.param().unwrap_or_default()).trim().to_owned(),
    }
}

pub(super) const CHAT: &str = "/v1/chat/completions";
