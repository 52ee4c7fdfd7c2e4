//! Tests of fields at every depth: places, texts, tools, and undocumented fields.

use super::*;

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn places_are_found_everywhere_but_in_texts() {
    let part = |part: &str| format!(r#""messages":[{{"role":"user","content":[{part}]}}]"#);
    let in_part = "/messages/0/content/0";
    for (path, fields, pointer) in [
        (
            CHAT,
            part(
                r#"{"type":"image_url",
            "image_url":{"url":"https://a/b.png"}}"#,
            ),
            format!("{in_part}/image_url/url"),
        ),
        (
            CHAT,
            part(
                r#"{"type":"image_url",
            "image_\u0075rl":{"\u0075rl":"\u0068ttps://a"}}"#,
            ),
            format!("{in_part}/image_url/url"),
        ),
        (
            CHAT,
            part(
                r#"{"type":"image_url","image_url":{"url":"data:,",
            "url":"https://a"}}"#,
            ),
            format!("{in_part}/image_url/url"),
        ),
        (CHAT, part(r#"{"type":"image_url","Image_URL":{"URL":"//a/b"}}"#), format!("{in_part}/Image_URL/URL")),
        (CHAT, part(r#"{"type":"image_url","url":"https://a"}"#), format!("{in_part}/url")),
        (CHAT, part(r#"{"type":"image_url","image_url":"./local.png"}"#), format!("{in_part}/image_url")),
        (
            CHAT,
            part(
                r#"{"type":"input_audio","input_audio":{"data":"https://a",
            "format":"wav"}}"#,
            ),
            format!("{in_part}/input_audio/data"),
        ),
        (CHAT, part(r#"{"type":"video","video":["data:,","https://a"]}"#), format!("{in_part}/video/1")),
        (CHAT, part(r#"{"type":"image","image":"https://a"}"#), format!("{in_part}/image")),
        (
            CHAT,
            part(
                r#"{"type":"image","source":{"type":"url",
            "url":"https://a"}}"#,
            ),
            format!("{in_part}/source/url"),
        ),
        (CHAT, part(r#"{"type":"file","file":{"file_data":"https://a"}}"#), format!("{in_part}/file/file_data")),
        (
            CHAT,
            part(
                r#"{"type":"text","text":"x",
            "extra":{"deep":["192.0.2.1"]}}"#,
            ),
            format!("{in_part}/extra/deep/0"),
        ),
        (CHAT, part(r#"{"type":"https://a","text":"x"}"#), format!("{in_part}/type")),
        (CHAT, r#""user":"https://a""#.into(), "/user".into()),
        (CHAT, r#""response_format":{"type":"https://a"}"#.into(), "/response_format/type".into()),
        (CHAT, r#""stream_options":{"to":"a.example:443"}"#.into(), "/stream_options/to".into()),
        (CHAT, r#""x":["https://a"]"#.into(), "/x/0".into()),
        (CHAT, r#""provider":{"order":["https://a"]}"#.into(), "/provider/order/0".into()),
        (CHAT, r#""logit_bias":{"1":"//a/b"}"#.into(), "/logit_bias/1".into()),
        (
            "/v1/responses",
            r#""input":[{"role":"user","content":[{"type":"input_image",
            "image_url":"http://a"}]}]"#
                .into(),
            "/input/0/content/0/image_url".into(),
        ),
        (
            "/v1/responses",
            r#""input":[{"type":"input_file",
            "file_url":"gs://a/b"}]"#
                .into(),
            "/input/0/file_url".into(),
        ),
        (
            "/v1/responses",
            r#""input":[{"type":"computer_call_output","output":{"type":"computer_screenshot",
            "image_url":"https://a"}}]"#
                .into(),
            "/input/0/output/image_url".into(),
        ),
        ("/v1/embeddings", r#""input":[{"image":"https://a"}]"#.into(), "/input/0/image".into()),
        ("/v1/embeddings", r#""input":[{"url":"https://a"}]"#.into(), "/input/0/url".into()),
        ("/v1/embeddings", r#""input":{"contents":[{"image":"https://a"}]}"#.into(), "/input/contents/0/image".into()),
        (
            "/v1/moderations",
            r#""input":[{"type":"image_url",
            "image_url":{"url":"https://a"}}]"#
                .into(),
            "/input/0/image_url/url".into(),
        ),
        ("/v1/images/generations", r#""prompt":"x","image":"https://a""#.into(), "/image".into()),
        (
            "/v1/images/generations",
            r#""prompt":"x",
            "reference_images":["https://a"]"#
                .into(),
            "/reference_images/0".into(),
        ),
        ("/v1/audio/speech", r#""input":"x","voice":"v","ref_audio":"https://a""#.into(), "/ref_audio".into()),
        ("/v1/audio/speech", r#""input":"x","voice":"https://a""#.into(), "/voice".into()),
        (
            CHAT,
            r#""tools":[{"type":"function","function":{"name":"f",
            "parameters":{"$ref":"https://a/s.json"}}}]"#
                .into(),
            "/tools/0/function/parameters/$ref".into(),
        ),
        (
            CHAT,
            r#""response_format":{"type":"json_schema","json_schema":{"schema":{"$schema":"https://a/meta",
            "properties":{"p":{"$ref":"s.json"}}}}}"#
                .into(),
            "/response_format/json_schema/schema/$schema".into(),
        ),
        (CHAT, r#""guided_json":"{\"$ref\":\"https://a\"}""#.into(), "/guided_json".into()),
    ] {
        assert_eq!(outcome(path, &fields, &[]), format!("remote_url_not_allowed {pointer}"), "{fields}");
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn text_may_say_anything() {
    for (path, fields) in [
        (
            CHAT,
            r#""messages":[{"role":"system","content":"https://a"},{"role":"user","content":["https://a",
            {"type":"text","text":"https://a:443"}]}]"#,
        ),
        (
            CHAT,
            r#""messages":[{"role":"assistant","content":null,"refusal":null,
            "annotations":[{"type":"url_citation","url_citation":{"url":"https://a","title":"t","start_index":0,
            "end_index":1}}],"parsed":{"url":"https://a"},"tool_calls":[{"id":"c","type":"function",
            "function":{"name":"f","arguments":"https://a","parsed_arguments":{"url":"https://a"}}}]},
            {"role":"tool","tool_call_id":"c","content":"https://a"}]"#,
        ),
        (
            CHAT,
            r#""metadata":{"url":"https://a","models":"x"},"stop":["http://","192.0.2.1"],
            "prediction":{"type":"content","content":"https://a"}"#,
        ),
        (
            CHAT,
            r##""tools":[{"type":"function","function":{"name":"f","description":"https://a",
            "parameters":{"$schema":"http://json-schema.org/draft-07/schema#","title":"https://a",
            "type":"object","properties":{"$ref":{"type":"string","default":"https://a","examples":["https://a"],
            "enum":["//a"],"pattern":"^https://"},"image_url":{"$ref":"#/$defs/u"}},
            "$defs":{"u":{"const":"https://a"}}}}},{"type":"custom","custom":{"name":"g",
            "format":{"type":"grammar","grammar":{"syntax":"lark","definition":"x: \"https://a\""}}}}]"##,
        ),
        (
            CHAT,
            r#""messages":[{"role":"user","content":[{"type":"image_url",
            "image_url":{"url":"data:image/png;base64,AAAA","detail":"low"}},{"type":"input_audio",
            "input_audio":{"data":"SUQzBAAAAAAA","format":"mp3"}}]}],"logprobs":true,"n":1180591620717411303424,
            "seven":7,"yes":true,"none":null"#,
        ),
        ("/v1/completions", r#""prompt":["https://a"],"suffix":"https://a","user":"session:123""#),
        ("/v1/completions", r#""prompt":[[1,2],[3]],"stop":null,"logit_bias":{"50256":-100}"#),
        ("/v1/embeddings", r#""input":["https://a","b"],"encoding_format":"base64""#),
        ("/v1/embeddings", r#""input":[[1,2],[3]],"dimensions":256"#),
        ("/v1/images/generations", r#""prompt":"https://a","size":"1024x1024","background":"transparent""#),
        ("/v1/audio/speech", r#""input":"https://a","instructions":"https://a","voice":"alloy""#),
        (
            "/v1/responses",
            r#""input":"https://a","instructions":"https://a",
            "text":{"format":{"type":"json_schema","name":"n","schema":{"description":"https://a"}},
            "verbosity":"low"},"include":["message.input_image.image_url"],"truncation":"auto",
            "reasoning":{"effort":"low","summary":"auto"}"#,
        ),
        (
            "/v1/responses",
            r#""input":[{"role":"user","content":[{"type":"input_text","text":"https://a"}]},
            {"type":"reasoning","id":"rs_1","summary":[{"type":"summary_text","text":"https://a"}],
            "encrypted_content":"gAAAA_-=="},{"type":"function_call","call_id":"c","name":"f",
            "arguments":"{\"url\":\"https://a\"}"},{"type":"function_call_output","call_id":"c",
            "output":"https://a"},{"type":"message","role":"assistant","id":"msg_1","status":"completed",
            "content":[{"type":"output_text","text":"https://a","annotations":[{"type":"url_citation",
            "url":"https://a","title":"x","start_index":0,"end_index":1}],"logprobs":[]}]},
            {"type":"local_shell_call","id":"l","call_id":"c","status":"completed","action":{"type":"exec",
            "command":["curl","https://a"],"env":{"U":"https://a"}}}]"#,
        ),
        (
            "/v1/moderations",
            r#""input":[{"type":"text","text":"https://a"},{"type":"image_url",
            "image_url":{"url":"data:,x"}}]"#,
        ),
    ] {
        assert_eq!(outcome(path, fields, &[]), "ok", "{fields}");
    }
}

#[test]
fn undocumented_fields_are_refused_except_numbers_and_booleans() {
    for (fields, answer) in [
        (r#""x":"y""#, "unknown_field /x"),
        (r#""x":{"y":1}"#, "unknown_field /x"),
        (r#""x":[1]"#, "unknown_field /x"),
        (r#""x":"""#, "unknown_field /x"),
        (r#""x":{}"#, "unknown_field /x"),
        (r#""x":[ ]"#, "unknown_field /x"),
        (r#""fallbacks":[]"#, "unknown_field /fallbacks"),
        (r#""priority":[]"#, "unknown_field /priority"),
        (r#""x":1,"y":true,"z":null"#, "ok"),
        (r#""priority":0"#, "ok"),
        (r#""priority":-1"#, "unknown_field /priority"),
        (
            r#""messages":[{"role":"user","content":[{"type":"teleport",
            "text":"x"}]}]"#,
            "unknown_field /messages/0/content/0/type",
        ),
    ] {
        assert_eq!(outcome(CHAT, fields, &[]), answer, "{fields}");
    }
    assert_eq!(outcome(CHAT, r#""x":"y","z":{"a":["b"]},"priority":-1"#, &[Allowance::UnknownFields]), "ok");
    let places = r#""x":{"a":["https://b"]}"#;
    assert_eq!(outcome(CHAT, places, &[Allowance::UnknownFields]), "remote_url_not_allowed /x/a/0");
}

#[test]
fn fields_that_route_are_refused_whatever_their_type() {
    for fields in [
        r#""fallbacks":[{"model":"b"}]"#,
        r#""models":["b"]"#,
        r#""provider":{"order":["b"]}"#,
        r#""route":"fallback""#,
        r#""api_base":"b""#,
        r#""inference_geo":"us""#,
        r#""region":"us""#,
        r#""extra_body":{"google":{"tools":[]}}"#,
        r#""kv_transfer_params":{"do_remote_prefill":true}"#,
        r#""bootstrap_room":1"#,
        r#""Bootstrap_Port":9999"#,
        r#""data_parallel_rank":0"#,
        r#""lora_path":"b""#,
        r#""connectors":[{"id":"web-search"}]"#,
        r#""chat_template_kwargs":{"fallbacks":true}"#,
        r#""messages":[{"role":"user","content":[{"type":"text","text":"x","provider":"us"}]}]"#,
    ] {
        for allow in [&[][..], &[Allowance::UnknownFields, Allowance::HostedTools, Allowance::RemoteUrls]] {
            assert!(outcome(CHAT, fields, allow).starts_with("unknown_field"), "{fields}");
        }
    }
}

#[test]
fn tools_the_host_runs_are_refused() {
    for fields in [
        r#""tools":[{"type":"web_search"}]"#,
        r#""tools":[{"type":"function"},{"type":"mcp","server_url":"x"}]"#,
        r#""tools":[{"type":"function","type":"code_interpreter"}]"#,
        r#""tools":[{"google_search":{}}]"#,
        r#""tools":["web_search"]"#,
        r#""tools":[7]"#,
        r#""tools":[{"type":"namespace","name":"n","tools":[{"type":"mcp","server_label":"x"}]}]"#,
        r#""tools":[{"type":"shell","environment":{"type":"container_auto"}}]"#,
        r#""tools":[{"type":"shell","environment":{"type":"local","type":"container_auto"}}]"#,
        r#""tools":[{"type":"shell"}]"#,
        r#""tool_choice":{"type":"web_search_preview"}"#,
        r#""tool_choice":{"type":"allowed_tools","tools":[{"type":"mcp","server_label":"x"}]}"#,
        r#""input":[{"type":"additional_tools","role":"developer","tools":[{"type":"mcp","server_label":"x"}]}]"#,
        r#""input":[{"type":"tool_search_output","tools":[{"type":"web_search"}]}]"#,
        r#""input":[{"role":"developer","content":"x","Tools":[{"type":"web_search"}]}]"#,
        r#""web_search_options":{}"#,
        r#""data_sources":[{}]"#,
        r#""search_parameters":{"mode":"on"}"#,
        r#""enable_search":true"#,
        r#""web_search":true"#,
        r#""search_options":{"forced_search":true}"#,
        "\"enable_\u{17f}earch\":true",
        "\"tools\":[{\"type\":\"function\",\"TYPE\":\"mcp\"}]",
    ] {
        assert_eq!(outcome("/v1/responses", fields, &[]), "hosted_tool_not_allowed tools", "{fields}");
        assert_eq!(outcome("/v1/responses", fields, &[Allowance::HostedTools]), "ok", "{fields}");
    }
    let mcp =
        r#""tools":[{"type":"mcp","server_label":"x","server_url":"https://a.example","headers":{"a":"https://b"}}]"#;
    assert_eq!(outcome("/v1/responses", mcp, &[Allowance::HostedTools]), "ok");
    for fields in [
        r#""tools":[{"type":"function","function":{"name":"f"}},{"type":"custom"},{"type":"local_shell"}]"#,
        r#""tools":[{"type":"shell","environment":{"type":"local"}},{"type":"computer"},{"type":"apply_patch"}]"#,
        r#""tools":[{"type":"namespace","name":"n","tools":[{"type":"function","name":"f","parameters":{}}]}]"#,
        r#""tools":null,"web_search_options":null,"enable_search":false,"tool_choice":"auto""#,
        r#""tool_choice":{"type":"allowed_tools","mode":"auto","tools":[{"type":"function","name":"f"}]}"#,
    ] {
        assert_eq!(outcome("/v1/responses", fields, &[]), "ok", "{fields}");
    }
}

#[test]
fn references_to_stored_items_are_found_however_they_are_written() {
    for item in [r#"{"type":"item_reference","id":"msg_1"}"#, r#"{"id":"msg_1"}"#, r#"{"id":"msg_1","type":null}"#] {
        let text = format!(r#"{{"model":"a","input":[{item}]}}"#);
        let body = inspect("/v1/responses", &text, &[Allowance::Store]).unwrap();
        assert_eq!(
            body.items().iter().map(|item| item.holds).collect::<Vec<_>>(),
            [ids::ItemContents::Reference],
            "{item}"
        );
    }
    for item in [
        r#"{"Type":"item_reference","id":"msg_1"}"#,
        r#"{"role":"user","content":[{"type":"item_reference","id":"msg_1"}]}"#,
    ] {
        let input = format!(r#""input":[{item}]"#);
        assert!(outcome("/v1/responses", &input, &[]).starts_with("item_reference_not_allowed"), "{item}");
    }
    let twice = r#""input":[{"type":"message","type":null,"type":"message","id":"m","role":"user"}]"#;
    assert_eq!(outcome("/v1/responses", twice, &[]), "duplicate_key type");
}

#[test]
fn an_engines_own_fields_go_to_its_endpoints() {
    let needs = |fields: &str| {
        let text = format!("{{\"model\":\"a\",{fields}}}");
        let needs = inspect(CHAT, &text, &[]).unwrap().needs().clone();
        let engines = needs.engines;
        (
            engines.includes(None),
            engines.includes(Some(Engine::Vllm)),
            engines.includes(Some(Engine::Sglang)),
            needs.field,
        )
    };
    assert_eq!(needs(r#""top_k":40,"min_p":0.1"#), (true, true, true, String::new()), "numbers are harmless");
    assert_eq!(needs(r#""stop_token_ids":[1]"#), (false, true, true, "stop_token_ids".into()));
    assert_eq!(needs(r#""guided_json":{"title":"https://a"}"#), (false, true, false, "guided_json".into()));
    assert_eq!(needs(r#""structured_outputs":{"regex":"https://"}"#).3, "structured_outputs");
    assert_eq!(needs(r#""ebnf":"root ::= \"https://a\"""#), (false, false, true, "ebnf".into()));
    assert_eq!(needs(r#""ebnf":"x","guided_regex":"y""#), (false, false, false, "guided_regex".into()));
    assert!(needs(r#""documents":[{"title":"t","text":"https://a"}]"#).1);
    let any = inspect(CHAT, r#"{"model":"a","ebnf":"x"}"#, &[Allowance::UnknownFields]).unwrap();
    assert_eq!(*any.needs(), Needs::default());
}

#[test]
fn names_that_engines_share_are_scoped_to_the_tenant() {
    let of = |tenant: Option<&str>, text: &str| {
        let scope = Scope { service: "chat".into(), tenant: tenant.map(Into::into), request: "1".into() };
        let route = Route::parse("POST", CHAT).unwrap();
        let body = Inspected::json(text.as_bytes().to_vec(), &route, &Terms { allow: &[], scope }).unwrap();
        String::from_utf8(body.for_endpoint(None, None, Some(Engine::Vllm)).concat()).unwrap()
    };
    let text = r#"{ "model":"a","prompt_cache_key":"k","messages":[{"role":"user","content":[{"type":"image_url",
        "image_url":null,"uu\u0069d":"p"},{"type":"image_url","image_url":{"url":"data:,","uuid":"p"}}]}]}"#;
    let (acme, emca) = (of(Some("acme"), text), of(Some("emca"), text));
    assert_eq!(acme, of(Some("acme"), text));
    assert_eq!(acme.matches("bw-").count(), 4, "{acme}");
    assert!(!acme.contains("\"p\"") && !acme.contains("\"k\""));
    let names = |text: &str| text.split("\"bw-").skip(1).map(|rest| rest[..32].to_owned()).collect::<Vec<_>>();
    assert!(names(&acme).iter().all(|name| !names(&emca).contains(name)));
    assert_eq!(names(&acme)[2], names(&acme)[3], "equal names stay equal");
    assert_eq!(names(&of(None, text)).len(), 3, "without tenants, a cache key stays");
    let salted = of(Some("acme"), r#"{"model":"a","cache_salt":"s"}"#);
    assert!(salted.starts_with(r#"{"model":"a","cache_salt":"bw-"#), "{salted}");
    assert_ne!(salted, of(Some("emca"), r#"{"model":"a","cache_salt":"s"}"#));
    assert_ne!(salted, of(Some("acme"), r#"{"model":"a","cache_salt":"t"}"#));
    let plain = of(Some("acme"), r#"{"model":"a"}"#);
    assert!(plain.starts_with(r#"{"cache_salt":"bw-"#) && plain.ends_with(r#"","model":"a"}"#), "{plain}");
    assert!(of(Some("acme"), r#"{"model":"a","cache_salt":null}"#).ends_with('}'));
    assert!(crate::decide::json::is_json(&plain));
    let unsalted = inspect(CHAT, r#"{"model":"a"}"#, &[]).unwrap().for_endpoint(None, None, None).concat();
    assert_eq!(unsalted, br#"{"model":"a"}"#);
}

#[test]
fn fields_that_route_are_refused_inside_hosted_tools_too() {
    let hosted = |tool: &str| outcome("/v1/responses", &format!(r#""tools":[{tool}]"#), &[Allowance::HostedTools]);
    let routes = |at: &str| format!("unknown_field {at}");
    assert_eq!(hosted(r#"{"type":"web_search","region":"us"}"#), routes("/tools/0/region"));
    assert_eq!(hosted(r#"{"type":"web_search","Inference_Geo":"us"}"#), routes("/tools/0/Inference_Geo"));
    let container = r#"{"type":"code_interpreter","container":{"type":"auto","region":"us"}}"#;
    assert_eq!(hosted(container), routes("/tools/0/container/region"));
    for fine in [
        r#"{"type":"web_search","user_location":{"type":"approximate","region":"Bavaria"}}"#,
        r#"{"type":"mcp","server_label":"x","server_url":"https://a.example","headers":{"region":"eu","route":"x"}}"#,
        r#"{"type":"image_generation","model":"gpt-image-1"}"#,
        r#"{"type":"web_search","region":null}"#,
    ] {
        assert_eq!(hosted(fine), "ok", "{fine}");
    }
}
