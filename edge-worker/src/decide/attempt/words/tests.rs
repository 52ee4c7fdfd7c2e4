//! Tests with error bodies of many hosts.

use super::*;

#[test]
fn only_plain_words_are_passed_on() {
    let words =
        Words::read(br#"{"error":{"message":"SECRET","type":"bad thing","code":"overloaded","param":"messages[0]"}}"#);
    let expected = Words { code: Some("overloaded".into()), param: Some("messages[0]".into()), ..Words::default() };
    assert_eq!(words, expected);
    assert_eq!(Words::read(br#"{"code":"x","message":"cut he"#).code.as_deref(), Some("x"));
    assert_eq!(Words::read(b"{\"code\":\"x\",\"message\":\"\xc3").code.as_deref(), Some("x"), "cut within a character");
    assert_eq!(Words::read(b"\xff"), Words::default());
    assert_eq!(Words::read_event(b"event: error\ndata: {\"code\":\"x\"}\n\n").code.as_deref(), Some("x"));
    assert_eq!(Words::read(br#"{"error":{"code":"400","type":"error"}}"#), Words::default(), "numbers aren't words");
    assert_eq!(Words::read(br#"{"code":400,"type":"BadRequestError"}"#).kind.as_deref(), Some("invalid_request_error"));
}

#[test]
fn errors_of_gateways_about_keys_and_queues_are_understood() {
    let cooled = "No deployments available for selected model, Try again in 5 seconds. Passed model=m. \
                  pre-call-checks=False";
    let words = Words::read(
        format!(r#"{{"error":{{"message":"{cooled}","type":"None","param":"None","code":"429"}}}}"#).as_bytes(),
    );
    assert_eq!(words, Words { retry_after_ms: Some(5_000), ..Words::default() }, "`None` isn't a word");
    for kind in ["key_model_access_denied", "team_model_access_denied", "org_model_access_denied"] {
        let body = format!(r#"{{"error":{{"message":"x","type":"{kind}","param":"model","code":"401"}}}}"#);
        assert_eq!(Words::read(body.as_bytes()).known, Some(ErrorMeaning::Model), "{kind}");
    }
    for (text, expected) in [
        ("Rate limit reached for m in organization o: Limit 3, Used 3. Please try again in 1.2s. Visit x", Some(1_200)),
        ("Please try again in 6m0s.", Some(360_000)),
        ("Please try again in 20ms.", Some(20)),
        ("Requests have exceeded rate limit. Please retry after 26 seconds.", Some(26_000)),
        ("Try again in 2 minutes", Some(120_000)),
        ("Please try again in a moment.", None),
        ("Try again in 7 moons", None),
        ("Try again in 99999999 seconds", Some(86_400_000)),
        ("Please try again in ", None),
        ("Try again in 1..2s", None),
    ] {
        let body = format!(r#"{{"error":{{"message":"{text}"}}}}"#);
        assert_eq!(Words::read(body.as_bytes()).retry_after_ms, expected, "{text}");
    }
}

/// The bodies are as the servers send them.
#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn every_servers_error_about_a_long_prompt_is_understood() {
    let said = "This model's maximum context length is 8192 tokens. However, your request has 9001 input tokens.";
    let sglang = "The input (9001 tokens) is longer than the model's context length (8192 tokens).";
    let total = "Requested token count exceeds the model's maximum context length of 8192 tokens. You requested a \
                 total of 9001 tokens: 8951 tokens from the input messages and 50 tokens for the completion.";
    let tgi = "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8192. Given: 9001 `inputs` \
               tokens and 20 `max_new_tokens`";
    let openai = "This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens.";
    let lite = "litellm.ContextWindowExceededError: litellm.BadRequestError: ContextWindowExceededError: x";
    let llama = concat!(
        r#"{"error":{"code":400,"message":"x","type":"exceed_context_size_error","#,
        r#""n_prompt_tokens":9001,"n_ctx":8192}}"#,
    );
    let old_llama = "the request exceeds the available context size (8192 tokens), try increasing it";
    let decoder = "The decoder prompt (length 9001) is longer than the maximum model length of 8192. Make sure";
    let both = (Some(8192), Some(9001));
    for (body, numbers) in [
        (
            format!(r#"{{"error":{{"message":"{said}","type":"BadRequestError","param":"input_tokens","code":400}}}}"#),
            both,
        ),
        (format!(r#"{{"object":"error","message":"{said}","type":"BadRequestError","param":null,"code":400}}"#), both),
        (
            format!(r#"{{"object":"error","message":"{sglang}","type":"BadRequestError","param":null,"code":400}}"#),
            both,
        ),
        (format!(r#"{{"object":"error","message":"{total}","type":"BadRequestError","param":null,"code":400}}"#), both),
        (format!(r#"{{"error":"{tgi}","error_type":"validation"}}"#), both),
        (format!(r#"{{"error":{{"message":"{openai}","param":"messages","code":"context_length_exceeded"}}}}"#), both),
        (format!(r#"{{"error":{{"message":"{lite}","type":null,"param":null,"code":"400"}}}}"#), (None, None)),
        (llama.to_owned(), both),
        (
            format!(r#"{{"error":{{"code":400,"message":"{old_llama}","type":"invalid_request_error"}}}}"#),
            (Some(8192), None),
        ),
        (format!(r#"{{"detail":"{decoder}"}}"#), both),
        (anthropic("prompt is too long: 9001 tokens > 8192 maximum"), both),
        (anthropic("input length and `max_tokens` exceed context limit: 9001 + 20 > 8192"), (None, None)),
        (
            concat!(
                r#"{"object":"error","message":"Input length (9001 tokens) exceeds the maximum allowed "#,
                r#"length (8192 tokens).","code":400}"#,
            )
            .to_owned(),
            both,
        ),
        (
            concat!(
                r#"{"error":{"message":"Requested tokens (9001) exceed context window of 8192","#,
                r#""type":"internal_server_error"}}"#,
            )
            .to_owned(),
            both,
        ),
        (
            concat!(
                r#"{"error":"This model's maximum prompt length is 8192 but the request contains 9001 "#,
                r#"tokens."}"#,
            )
            .to_owned(),
            both,
        ),
        (
            concat!(
                r#"{"error":{"code":400,"message":"The input token count (9001) exceeds the maximum number "#,
                r#"of tokens allowed (8192).","status":"INVALID_ARGUMENT"}}"#,
            )
            .to_owned(),
            both,
        ),
        (r#"{"message":"Input is too long for requested model."}"#.to_owned(), (None, None)),
        (r#"{"error":{"message":"Your input exceeds the context window of this model."}}"#.to_owned(), (None, None)),
        (
            r#"{"error":{"message":"the input length exceeds the context length","type":"api_error"}}"#.to_owned(),
            (None, None),
        ),
        (format!(r#"{{"type":"response.failed","response":{{"error":{{"code":"x","message":"{said}"}}}}}}"#), both),
    ] {
        let words = Words::read(body.as_bytes());
        assert_eq!((words.limit, words.sent), numbers, "{body}");
        assert_eq!(words.code.as_deref(), Some("context_length_exceeded"), "{body}");
        assert_eq!(words.kind.as_deref(), Some("invalid_request_error"), "{body}");
        assert!(words.is_clients());
    }
}

fn anthropic(message: &str) -> String {
    format!(r#"{{"type":"error","error":{{"type":"invalid_request_error","message":"{message}"}}}}"#)
}

/// The texts are as clients of OpenAI, Azure and LiteLLM report them.
#[test]
fn errors_about_encrypted_content_are_understood_in_every_wrapper() {
    let plain = concat!(
        r#"{"error":{"message":"The encrypted content gAAA...DQ== could not be verified.","#,
        r#""type":"invalid_request_error","param":null,"code":null}}"#,
    );
    let lite = concat!(
        r#"{"error":{"message":"litellm.BadRequestError: litellm.ContentPolicyViolationError: "#,
        r#"AzureException - {\n \"code\": \"invalid_encrypted_content\"\n}","type":null,"#,
        r#""param":null,"code":"400"}}"#,
    );
    let reason = r#"{"error":{"message":"x. Reason: Encrypted content could not be decrypted or parsed."}}"#;
    let gateway = r#"{"error":{"message":"reasoning `encrypted_content` was not issued to this caller"}}"#;
    for body in [plain, lite, reason, gateway] {
        let words = Words::read(body.as_bytes());
        assert_eq!(words.code.as_deref(), Some("invalid_encrypted_content"), "{body}");
        assert_eq!(words.known, Some(ErrorMeaning::EncryptedContent));
    }
}

#[test]
fn other_errors_of_every_server_are_understood() {
    for (body, code) in [
        (
            r#"{"error":{"code":"content_filter","innererror":{"code":"ResponsibleAIPolicyViolation"}}}"#,
            "content_filter",
        ),
        (r#"{"error":{"code":"400","innererror":{"code":"ResponsibleAIPolicyViolation"}}}"#, "content_filter"),
        (r#"{"error":{"code":"content_policy_violation"}}"#, "content_policy_violation"),
        (r#"{"error":{"message":"litellm.ContentPolicyViolationError: x","code":"400"}}"#, "content_filter"),
        (r#"{"error":{"type":"insufficient_quota","code":"insufficient_quota"}}"#, "insufficient_quota"),
        (
            r#"{"error":{"message":"Budget has been exceeded! Current cost: 1","type":"budget_exceeded"}}"#,
            "insufficient_quota",
        ),
        (r#"{"error":{"message":"Insufficient credits. Add more","code":402}}"#, "insufficient_quota"),
        (r#"{"error":{"code":"invalid_encrypted_content"}}"#, "invalid_encrypted_content"),
        (r#"{"error":{"message":"The encrypted content could not be verified."}}"#, "invalid_encrypted_content"),
        (
            r#"{"error":{"message":"The model `m` does not exist.","type":"NotFoundError","code":404}}"#,
            "model_not_found",
        ),
        (
            r#"{"error":{"message":"model \"m\" not found, try pulling it first","type":"api_error"}}"#,
            "model_not_found",
        ),
        (r#"{"error":"model 'm' not found"}"#, "model_not_found"),
        (
            r#"{"error":{"code":"DeploymentNotFound","message":"The API deployment for this resource"}}"#,
            "model_not_found",
        ),
        (r#"{"error":{"message":"Invalid model name passed in model=m","param":"model"}}"#, "model_not_found"),
        (r#"{"type":"error","error":{"type":"not_found_error","message":"model: claude-x"}}"#, "model_not_found"),
        (
            concat!(
                r#"{"error":{"code":"OperationNotSupported","message":"The chatCompletion operation does "#,
                r#"not work with the specified model, m."}}"#,
            ),
            "model_not_found",
        ),
        (
            concat!(
                r#"{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance "#,
                r#"is too low to access"}}"#,
            ),
            "insufficient_quota",
        ),
        (r#"{"type":"error","error":{"type":"billing_error","message":"x"}}"#, "insufficient_quota"),
        (
            r#"{"error":{"message":"This request requires more credits, or fewer max_tokens.","code":402}}"#,
            "insufficient_quota",
        ),
    ] {
        assert_eq!(Words::read(body.as_bytes()).code.as_deref(), Some(code), "{body}");
    }
    for body in [r#"{"detail":"Not Found"}"#, r#"{"error":{"code":404,"message":"File Not Found"}}"#, "{}", "<html>"] {
        assert_eq!(Words::read(body.as_bytes()).known, None, "{body}");
    }
}

#[test]
fn numbers_that_cannot_be_read_are_left_out() {
    let words = |text: &str| Words::read(format!(r#"{{"message":"{text}"}}"#).as_bytes());
    assert_eq!(words("maximum context length is SECRET").limit, None);
    assert_eq!(words("maximum context length is 99999999999999999999").limit, Some(9_999_999_999));
    assert_eq!(words("maximum context length is 8192SECRET").limit, Some(8192));
}
