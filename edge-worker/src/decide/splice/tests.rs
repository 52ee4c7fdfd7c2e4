//! Tests of answers and streams in which names are replaced, split into chunks in any way.

use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::*;
use crate::decide::testing::cut;

fn ids() -> Ids {
    Ids {
        keys: Keyring::parse(&"k".repeat(32)).unwrap(),
        owner: Owner { service: "chat".into(), tenant: Some("acme".into()) },
        region: RegionId::parse("fra").unwrap(),
        endpoint: EndpointId::parse("fra-1").unwrap(),
    }
}

fn sealed(id: &str) -> String {
    let ids = ids();
    ids.keys.seal(&ids.owner, "fra", "fra-1", id).unwrap()
}

fn run(names: &Names, events: bool, chunks: &[&[u8]]) -> String {
    let mut splice = Splice::new(names.clone(), events);
    let mut out: Vec<u8> = chunks.iter().flat_map(|chunk| splice.pass(chunk)).collect();
    out.extend(splice.finish());
    let mut splice = Splice::new(names.clone(), events);
    let mut at_once = splice.whole(&chunks.concat());
    at_once.extend(splice.finish());
    assert_eq!(String::from_utf8_lossy(&at_once), String::from_utf8_lossy(&out), "all at once");
    String::from_utf8(out).unwrap()
}

fn model_only() -> Names {
    Names::new(Some("ch\"at"), None).unwrap()
}

fn both() -> Names {
    Names::new(Some("chat"), Some(ids())).unwrap()
}

fn translated(places: NamePlaces) -> Names {
    let pairs = [("llama", "chat"), ("bge", "embed")].map(|(found, written)| (found.to_owned(), written.to_owned()));
    Names::translated(pairs.iter().map(|(found, written)| (found, written)), places, None)
}

#[test]
fn stored_objects_have_the_clients_names_of_models() {
    let text = r#"{"object":"list","model":"llama","data":[{"id":"b","model":"llama","x":{"model":"llama"}},
            {"model":"bge"},{"model":"gpt"}],
            "response":{"model":"bge"},"metadata":{"model":"llama"}}"#;
    let expected = r#"{"object":"list","model":"chat","data":[{"id":"b","model":"chat","x":{"model":"llama"}},
            {"model":"embed"},{"model":"gpt"}],
            "response":{"model":"embed"},"metadata":{"model":"llama"}}"#;
    assert_eq!(run(&translated(NamePlaces::Objects), false, &[text.as_bytes()]), expected);
    let one = run(&translated(NamePlaces::Answer), false, &[text.as_bytes()]);
    assert_eq!(
        one,
        expected
            .replace(r#""data":[{"id":"b","model":"chat""#, r#""data":[{"id":"b","model":"llama""#)
            .replace(r#"{"model":"embed"},{"#, r#"{"model":"bge"},{"#)
    );
}

#[test]
fn listed_models_have_the_clients_names() {
    let text = r#"{"object":"list","data":[{"id":"llama","root":"llama","parent":null,
            "permission":[{"id":"llama"}]},
            {"id":"bge","root":"/models/bge"}]}"#;
    let expected = r#"{"object":"list","data":[{"id":"chat","root":"chat","parent":null,
            "permission":[{"id":"llama"}]},
            {"id":"embed","root":"/models/bge"}]}"#;
    assert_eq!(run(&translated(NamePlaces::Models), false, &[text.as_bytes()]), expected);
    let one = Names::of_one("chat", NamePlaces::Models);
    assert_eq!(run(&one, false, &[br#"{"id":"llama","owned_by":"x"}"#]), r#"{"id":"chat","owned_by":"x"}"#);
}

#[test]
fn numbers_that_json_does_not_have_become_null_in_rewritten_answers() {
    let text = r#"{"a":NaN,"model":"llama","b":[ -Infinity ,Infinity, -1,"NaN"],"c":nan}"#;
    let expected = r#"{"a":null,"model":"ch\"at","b":[ null ,null, -1,"NaN"],"c":nan}"#;
    for size in [1, 2, 3, 5, 200] {
        let chunks: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
        assert_eq!(run(&model_only(), false, &chunks), expected);
    }
    let event = |model: &str, number: &str| format!("data: {{\"model\":\"{model}\",\"x\":{number}}}\n\n");
    let stream = ["1", "NaN", "1", "-Infinity"].map(|number| event("llama", number)).concat();
    let spliced = ["1", "null", "1", "null"].map(|number| event("ch\\\"at", number)).concat();
    assert_eq!(run(&model_only(), true, &[stream.as_bytes()]), spliced);
}

#[test]
fn the_model_is_replaced_at_its_two_places_only() {
    let text = r#" {"choices":[{"model":"llama","x":"\"model\":\"llama\""}],"n":1e400 , "mod\u0065l" :"ll\u0061ma",
            "model":null,
            "response":{"model":"llama","output":[{"model":"llama"}]}} "#;
    let expected = text.replace(r#"ll\u0061ma"#, r#"ch\"at"#);
    let expected = expected.replace(r#""response":{"model":"llama""#, r#""response":{"model":"ch\"at""#);
    assert_eq!(run(&model_only(), false, &[text.as_bytes()]), expected);
    for odd in ["", "[]", "[{\"model\":\"llama\"}]", "no json {\"a", "\"model\"", "{\"model\":\"cut"] {
        assert_eq!(run(&model_only(), false, &[odd.as_bytes()]), odd);
    }
}

#[test]
fn ids_are_sealed_wherever_the_model_api_has_them() {
    let text = r#"{"object":"list","id":"file-0","data":[{"id":"file-1","metadata":{"file_id":"mine","id":"x"},
            "file_counts":{"id":"no"},"file_ids":["file-2",null,"file-3"],"output_file_id":null,
            "training_file":"file-4"}],
            "first_id":"file-1","last_id":"file-5","output":[{"id":"msg_1","call_id":"call_1","item":{"id":"no"},
            "content":[{"annotations":[{"file_id":"file-6"}]}]}],
            "item":{"id":"rs_1"},"item_id":"rs_1","fine_tuned_model":"m",
            "response":{"id":"resp_7","previous_response_id":"resp_8","instructions":[{"id":"msg_2"}],
            "output":[{"id":"ig_1","approval_request_id":"mcpr_1"}]},
            "file":{"id":"file-9","x":{"id":"no"}},"file_":{"id":"no"},"tools":[{"parameters":{"file_id":"p"}}]}"#;
    let mut expected = text.to_owned();
    for id in [
        "file-0", "file-1", "file-2", "file-3", "file-4", "file-5", "file-6", "resp_7", "resp_8", "file-9", "msg_1",
        "msg_2", "rs_1", "ig_1", "mcpr_1", "m",
    ] {
        expected = expected.replace(&format!("\"{id}\""), &format!("\"{}\"", sealed(id)));
    }
    assert_eq!(run(&both(), false, &[text.as_bytes()]), expected);
}

#[test]
fn ids_of_audio_and_of_containers_are_sealed() {
    let text = r#"{"choices":[{"message":{"audio":{"id":"audio_1","x":{"id":"no"}},"id":"no"},
            "delta":{"audio":{"id":"audio_2"}}}],
            "metadata":{"audio":{"id":"mine"},"container":"mine"},"audio":"no","container":{"type":"auto","id":"no"},
            "tools":[{"type":"code_interpreter","container":"cntr_1"}],
            "output":[{"container_id":"cntr_2","content":[{"annotations":[{"container_id":"cntr_3"}]}]}]}"#;
    let mut expected = text.to_owned();
    for id in ["audio_1", "audio_2", "cntr_1", "cntr_2", "cntr_3"] {
        expected = expected.replace(&format!("\"{id}\""), &format!("\"{}\"", sealed(id)));
    }
    assert_eq!(run(&Names::new(None, Some(ids())).unwrap(), false, &[text.as_bytes()]), expected);
}

#[test]
fn names_of_fine_tuned_models_are_sealed() {
    let text = r#"{"object":"list","data":[{"id":"ftevent-1","message":"New model: ft:gpt-4o:acme::abc.",
            "type":"message"},
            {"id":"ftevent-2","message":"no left: one"}],"model":"ft:gpt-4o:acme::abc",
            "x":{"model":"ft:gpt-4o:acme::abc"},
            "fine_tuned_model_checkpoint":"gpt-4o.ft-1:ckpt-step-9"}"#;
    let tuned = sealed("ft:gpt-4o:acme::abc");
    let expected = text.replacen("ft:gpt-4o:acme::abc", &tuned, 2);
    let expected = expected.replace("ftevent-1", &sealed("ftevent-1")).replace("ftevent-2", &sealed("ftevent-2"));
    let expected = expected.replace("gpt-4o.ft-1:ckpt-step-9", &sealed("gpt-4o.ft-1:ckpt-step-9"));
    assert_eq!(run(&Names::new(None, Some(ids())).unwrap(), false, &[text.as_bytes()]), expected);
}

#[test]
fn a_list_of_models_is_passed_on_at_its_end() {
    let list = r#"{"data":[{"id":"a"},{"id":"ft:x:acme::1"}]}"#;
    let mut splice = Splice::models(Some(translated(NamePlaces::Models)));
    assert!(list.as_bytes().chunks(7).all(|chunk| splice.pass(chunk).is_empty()));
    assert_eq!(splice.finish(), br#"{"data":[{"id":"a"}]}"#);
    let mut renamed = Splice::models(Some(translated(NamePlaces::Models)));
    renamed.pass(br#"{"data":[{"id":"llama"},{"id":"ft:llama:x::1"}]}"#);
    assert_eq!(renamed.finish(), br#"{"data":[{"id":"chat"}]}"#);
}

#[test]
fn events_are_spliced_one_by_one() {
    for names in [model_only(), both()] {
        let chunk = |model: &str, id: &str, text: &str| {
            format!(
                "data: {{\"id\":\"{id}\",\"model\":\"{model}\",\
                 \"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]}}\r\n\r\n"
            )
        };
        let (model, id) = match &names.ids {
            None => ("ch\\\"at", "c-1".to_owned()),
            Some(_) => ("chat", sealed("c-1")),
        };
        let stream = |model: &str, id: &str| {
            let ping = ": ping\n\nevent: x\ndata: {\"delta\":\"model\"}\n\n";
            let split = format!("data: {{\"id\":\"{id}\",\ndata: \"model\":\ndata:\"{model}\"}}\n\n");
            let parts =
                [chunk(model, id, "a"), chunk(model, id, "model"), ping.to_owned(), split, chunk(model, id, "b")];
            format!("{}data: [DONE]\n\n", parts.concat())
        };
        for mark in ["", "\u{feff}"] {
            let text = [mark, &stream("llama", "c-1")].concat();
            assert_eq!(run(&names, true, &[text.as_bytes()]), [mark, &stream(model, &id)].concat());
        }
        // The model may change within a stream.
        let other = chunk("gpt", "c-1", "a") + &chunk("llama", "c-1", "a");
        assert_eq!(run(&names, true, &[other.as_bytes()]), chunk(model, &id, "a") + &chunk(model, &id, "a"));
    }
}

#[test]
fn any_chunking_gives_the_same_bytes() {
    let value = || {
        prop_oneof![
            Just("1e400".to_owned()),
            Just(" [ {\"model\":\"inner\",\"id\":\"x\"}, null ] ".to_owned()),
            Just("{\"metadata\":{\"file_id\":\"f\"}}".to_owned()),
            Just("\"\\\"model\\\":\\\\\"".to_owned()),
            any::<String>().prop_map(|text| quoted(&text)),
        ]
    };
    let fields = || proptest::collection::btree_map("[a-d]{1,2}", ("[ \n\t]{0,2}", value()), 0..5);
    let strategy =
        (fields(), fields(), "\\PC{1,12}", "[a-z]{1,4}[-_]\\PC{1,12}", proptest::collection::vec(1..7usize, 1..40));
    let cases = Cell::new(0);
    TestRunner::new(ProptestConfig::with_cases(4_000))
        .run(&strategy, |(before, after, model, id, sizes)| {
            cases.set(cases.get() + 1);
            let write = |fields: &std::collections::BTreeMap<String, (String, String)>, mark: &str| -> Vec<String> {
                fields.iter().map(|(key, (space, value))| format!("{space}\"{mark}{key}\":{value}")).collect()
            };
            let join = |model: &str, id: &str, file: &str| {
                let mut parts = write(&before, "b");
                let mine = [("model", model), ("id", id), ("output_file_id", file)];
                parts.extend(mine.iter().map(|(key, value)| format!("\"{key}\" : {}", quoted(value))));
                parts.extend(write(&after, "a"));
                format!("{{{}}}", parts.join(","))
            };
            let (text, sealed) = (join(&model, &id, &id), sealed(&id));
            let chunks = cut(text.as_bytes(), &sizes);
            prop_assert_eq!(run(&both(), false, &chunks), join("chat", &sealed, &sealed));
            Ok(())
        })
        .unwrap();
    println!("answers spliced: {}", cases.get());
}

#[test]
fn no_bytes_make_it_panic_and_what_is_not_json_passes() {
    let strategy = proptest::collection::vec(r#"[\[\]{}:,"a\\u0id:model data:\n\r]{0,12}"#, 0..8);
    TestRunner::new(ProptestConfig::with_cases(4_000))
        .run(&strategy, |chunks| {
            let bytes: Vec<&[u8]> = chunks.iter().map(String::as_bytes).collect();
            for events in [true, false] {
                let out = run(&both(), events, &bytes);
                prop_assert!(chunks.iter().any(|chunk| chunk.contains('"')) || out == chunks.concat());
            }
            Ok(())
        })
        .unwrap();
}
