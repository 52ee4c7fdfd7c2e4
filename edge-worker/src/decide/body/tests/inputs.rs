//! Tests of undocumented fields that route a request, and of fields that engines compile or unpickle.

use super::*;

#[test]
fn names_that_are_made_of_routing_words_route() {
    let everything = [Allowance::UnknownFields, Allowance::HostedTools, Allowance::RemoteUrls, Allowance::EngineInputs];
    for key in [
        "model_id",
        "modelName",
        "model-id",
        "base_model",
        "conversation_id",
        "conversationId",
        "thread_id",
        "threadId",
        "session",
        "sessionId",
        "cache",
        "semantic_cache",
        "caching",
        "apiKey",
        "apikey",
        "api-key",
        "auth_token",
        "litellm_session_id",
        "guardrailConfig",
        "tensorzero::variant_name",
        "user_api_key",
        "tags",
        "deferred",
        "prompt_cache_isolation_key",
        "fallbacks[0]",
        "a.provider",
        "cachedContent",
        "virtual_key",
        "keep_alive",
    ] {
        for value in [r#""x""#, r#"{"a":"b"}"#, r#"["x"]"#, "true"] {
            let fields = format!(r#""{key}":{value}"#);
            assert_eq!(outcome(CHAT, &fields, &everything), format!("unknown_field /{key}"), "{fields}");
            let nested = format!(r#""options":{{"more":[{{{fields}}}]}}"#);
            assert_eq!(outcome(CHAT, &nested, &everything), format!("unknown_field /options/more/0/{key}"), "{fields}");
        }
        let plugin = format!(r#""vllm_xargs":{{"{key}":"x"}}"#);
        assert_eq!(outcome(CHAT, &plugin, &everything), format!("unknown_field /vllm_xargs/{key}"));
        let null = format!(r#""{key}":null"#);
        assert_eq!(outcome(CHAT, &null, &everything), "ok");
    }
    for fields in [
        r#""cache_prompt":true,"use_cache":true,"n_cache_reuse":256"#,
        r#""chat_template_kwargs":{"enable_thinking":true,"model_identity":"x","lang":"de"}"#,
        r#""image_config":{"aspect_ratio":"16:9"},"mystery":{"a":["b"]},"reasoning":{"effort":"low"}"#,
        r#""messages":[{"role":"assistant","content":"x","usage":{"prompt_tokens_details":{"cached_tokens":3}}}]"#,
        r#""messages":[{"role":"assistant","content":"x","provider_specific_fields":{"refusal":null}}]"#,
    ] {
        assert_eq!(outcome(CHAT, fields, &everything), "ok", "{fields}");
    }
    for fields in [r#""webSearch":true"#, r#""web-search":true"#, r#""enableSearch":true"#, r#""a.web_search":true"#] {
        assert!(outcome(CHAT, fields, &[Allowance::UnknownFields]).starts_with("hosted_tool_not_allowed"), "{fields}");
    }
}

#[test]
fn engine_inputs_need_permission() {
    let embeds = r#""UEsDBAAACAgAAAAAAAA=""#;
    for (fields, at) in [
        (r#""chat_template":"{{ x }}""#.to_owned(), "/chat_template"),
        (r#""chat_template_kwargs":{"chat_template":"{{ x }}"}"#.into(), "/chat_template_kwargs/chat_template"),
        (r#""chat_template_kwargs":{"chatTemplate":"{{ x }}"}"#.into(), "/chat_template_kwargs/chatTemplate"),
        (format!(r#""prompt_embeds":{embeds}"#), "/prompt_embeds"),
        (format!(r#""prompt_embeds":[{embeds}]"#), "/prompt_embeds"),
        (r#""mm_processor_kwargs":{"num_crops":4}"#.into(), "/mm_processor_kwargs"),
        (r#""media_io_kwargs":{"video":{"num_frames":40}}"#.into(), "/media_io_kwargs"),
        (r#""chat_template_kwargs":{"trust_remote_code":true}"#.into(), "/chat_template_kwargs/trust_remote_code"),
        (
            format!(r#""messages":[{{"role":"user","content":[{{"type":"image_embeds","image_embeds":{embeds}}}]}}]"#),
            "/messages/0/content/0/image_embeds",
        ),
        (
            format!(
                r#""messages":[{{"role":"user","content":[{{"type":"prompt_embeds","prompt_embeds":{embeds}}}]}}]"#
            ),
            "/messages/0/content/0/prompt_embeds",
        ),
        (
            format!(
                r#""messages":[{{"role":"user","content":[{{"type":"image_embeds",
                "image_embeds":{{"image_embeds":{embeds},"image_grid_thw":{embeds}}}}}]}}]"#
            ),
            "/messages/0/content/0/image_embeds",
        ),
    ] {
        for allow in [&[][..], &[Allowance::UnknownFields, Allowance::RemoteUrls, Allowance::HostedTools]] {
            let refused = outcome(CHAT, &fields, allow);
            assert!(refused.starts_with(&format!("engine_input_not_allowed {at}")), "{fields}: {refused}");
        }
        assert_eq!(outcome(CHAT, &fields, &[Allowance::EngineInputs]), "ok", "{fields}");
    }
    let nothing = r#""chat_template":null,"mm_processor_kwargs":null,"prompt_embeds":null"#;
    assert_eq!(outcome(CHAT, nothing, &[]), "ok");
    let needs = |fields: &str| {
        let text = format!("{{\"model\":\"a\",{fields}}}");
        inspect(CHAT, &text, &[Allowance::EngineInputs]).unwrap().needs().engines
    };
    let engines = needs(r#""chat_template":"{{ 'https://a' }}""#);
    assert!(engines.includes(Some(Engine::Vllm)) && !engines.includes(None));
    let place = r#""mm_processor_kwargs":{"image":"https://a"}"#;
    let outcome = outcome(CHAT, place, &[Allowance::EngineInputs]);
    assert_eq!(outcome, "remote_url_not_allowed /mm_processor_kwargs/image");
}

#[test]
fn engine_fields_do_not_look_like_fields_that_route() {
    for key in engine::tests::names() {
        assert!(!names::routes(key) && !names::is_hosted(key), "{key}");
    }
}
