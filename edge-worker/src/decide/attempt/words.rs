//! Reads an endpoint's error. Takes its body; returns what it means in OpenAI's codes, and the words and numbers that
//! may be passed on. Called by `refusal` and `run`.
//!
//! The meaning is known from the structure, and from a few fixed phrases of the servers that are in use: vLLM, SGLang,
//! llama.cpp, TGI, LiteLLM, Ollama, Azure, OpenAI. The text is searched but never passed on, because it may quote a
//! prompt.

use crate::decide::cooldown;
use crate::decide::envelope::Failure;
use crate::decide::json::{InvalidJson, Kind, Scan};

/// How much of an error's text is searched, in bytes.
const MAX_TEXT: usize = 2_000;

/// The known meanings of errors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ErrorMeaning {
    /// The prompt is longer than the model takes.
    ContextLength,
    /// A filter refused the prompt or the answer.
    ContentFilter,
    /// The endpoint's account has used up its quota. Waiting doesn't help.
    Quota,
    /// Encrypted reasoning that this endpoint can't read.
    EncryptedContent,
    /// The endpoint lacks the model.
    Model,
}

/// What an error's JSON says, in words that may be passed on.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Words {
    /// `type`.
    pub(super) kind: Option<String>,
    /// `code`, if it isn't a number. If the meaning is known, it is OpenAI's code.
    pub(super) code: Option<String>,
    /// `param`.
    pub(super) param: Option<String>,
    /// What it means.
    pub(super) known: Option<ErrorMeaning>,
    /// The model's context length in tokens.
    pub(super) limit: Option<u64>,
    /// How many tokens were sent.
    pub(super) sent: Option<u64>,
    /// How long to wait before the next request, in milliseconds.
    pub(super) retry_after_ms: Option<u64>,
}

impl Words {
    /// Reads the words of `{"error": {"type", "code", "param", "message"}}` or of the same without `error`; of
    /// `{"error": "…"}` and `{"detail": "…"}`; of an error event, and of a failed response. Text that isn't JSON has
    /// none.
    pub(super) fn read(body: &[u8]) -> Self {
        let mut said = ErrorText::default();
        // A body that was cut at the limit may end within a letter. The text before the cut still counts.
        let text = match core::str::from_utf8(body) {
            Ok(text) => text,
            Err(error) if error.error_len().is_none() => {
                core::str::from_utf8(&body[..error.valid_up_to()]).unwrap_or_default()
            }
            Err(_) => "",
        };
        let _ = said.read_object(&mut Scan::new(text), 2);
        said.words()
    }

    /// Reads the words in the data lines of an event.
    pub(super) fn read_event(event: &[u8]) -> Self {
        let data = event.split(|byte| matches!(byte, b'\n' | b'\r')).find_map(|line| line.strip_prefix(b"data:"));
        data.map(Self::read).unwrap_or_default()
    }

    /// Whether the error concerns what the client sent, whatever the status says. Then every other endpoint would
    /// answer the same.
    pub(super) fn is_clients(&self) -> bool {
        matches!(
            self.known,
            Some(ErrorMeaning::ContextLength | ErrorMeaning::ContentFilter | ErrorMeaning::EncryptedContent)
        )
    }

    /// The failure for an endpoint that refuses the client's request.
    pub(super) fn refused(self, status: u16) -> Failure {
        let Self { kind, code, param, limit, sent, .. } = self;
        Failure::Refused { status, kind, code, param, limit, sent }
    }

    /// The failure for an endpoint that failed after it had begun to answer.
    pub(super) fn interrupted(self) -> Failure {
        let Self { kind, code, param, .. } = self;
        Failure::Interrupted { kind, code, param }
    }
}

/// What an error says, before it is decided what may be passed on.
#[derive(Default)]
struct ErrorText {
    kind: Option<String>,
    code: Option<String>,
    /// Azure's `innererror.code`.
    inner: Option<String>,
    param: Option<String>,
    text: Option<String>,
    /// llama.cpp's `n_ctx` and `n_prompt_tokens`.
    limit: Option<u64>,
    sent: Option<u64>,
}

impl ErrorText {
    /// Reads an object. The error may be nested in `depth` more objects.
    fn read_object(&mut self, scan: &mut Scan<'_>, depth: u8) -> Result<(), InvalidJson> {
        if scan.kind()? != Kind::Object {
            return scan.skip().map(drop);
        }
        scan.object(|key, value| {
            match (key.as_ref(), value.kind()?) {
                ("error" | "response", Kind::Object) if depth > 0 => return self.read_object(value, depth - 1),
                ("innererror" | "inner_error", Kind::Object) => return self.read_inner(value),
                ("type" | "error_type", Kind::String) => self.kind = said(&value.string()?),
                ("code", Kind::String) => self.code = said(&value.string()?),
                ("param", Kind::String) => self.param = said(&value.string()?).and_then(|param| field(&param)),
                ("error" | "message" | "detail", Kind::String) => self.text = Some(lowered(&value.string()?)),
                ("n_ctx", Kind::Number) => self.limit = value.text()?.trim().parse().ok(),
                ("n_prompt_tokens", Kind::Number) => self.sent = value.text()?.trim().parse().ok(),
                _ => value.skip().map(drop)?,
            }
            Ok(())
        })
    }

    fn read_inner(&mut self, scan: &mut Scan<'_>) -> Result<(), InvalidJson> {
        scan.object(|key, value| {
            if key == "code" && value.kind()? == Kind::String {
                self.inner = Some(value.string()?.into_owned());
                return Ok(());
            }
            value.skip().map(drop)
        })
    }

    fn words(self) -> Words {
        let known = self.known();
        let text = self.text.as_deref().unwrap_or_default();
        let (limit, sent) = match known {
            Some(ErrorMeaning::ContextLength) => {
                (self.limit.or_else(|| number(text, LIMITS)), self.sent.or_else(|| number(text, SENT)))
            }
            _ => (None, None),
        };
        let code = self.code.as_deref().and_then(plain_word);
        let kind = self.kind.as_deref().and_then(plain_word).filter(|kind| kind != "error");
        let (code, kind) = match known {
            // A code of OpenAI's stays: a refused image has a code of its own.
            Some(ErrorMeaning::ContentFilter) if code.as_deref().is_some_and(|code| FILTERS.contains(&code)) => {
                (code, kind)
            }
            Some(known) => (Some(known.code().to_owned()), Some(known.kind().to_owned())),
            None => (code, kind.map(openais)),
        };
        Words { kind, code, retry_after_ms: retry_after_ms(text), param: self.param, known, limit, sent }
    }

    fn known(&self) -> Option<ErrorMeaning> {
        let names = [&self.code, &self.kind, &self.inner].into_iter().flatten();
        if let Some(known) = names.into_iter().find_map(|name| by_name(&name.to_ascii_lowercase())) {
            return Some(known);
        }
        let text = self.text.as_deref()?;
        let by_text = PHRASES.iter().find(|(_, phrases)| phrases.iter().any(|phrase| text.contains(phrase)));
        // OpenAI and Azure quote a part of it: `The encrypted content gAAA...DQ== could not be verified.`
        if text.contains("encrypted content ") && text.contains("could not be verified") {
            return Some(ErrorMeaning::EncryptedContent);
        }
        // Anthropic's `model: claude-x` of a `not_found_error`.
        if self.kind.as_deref() == Some("not_found_error") && text.starts_with("model: ") {
            return Some(ErrorMeaning::Model);
        }
        let is_model = || text.contains("model") && NO_MODEL.iter().any(|phrase| text.contains(phrase));
        by_text.map(|(known, _)| *known).or_else(|| is_model().then_some(ErrorMeaning::Model))
    }
}

impl ErrorMeaning {
    /// OpenAI's code.
    fn code(self) -> &'static str {
        match self {
            Self::ContextLength => "context_length_exceeded",
            Self::ContentFilter => "content_filter",
            Self::Quota => "insufficient_quota",
            Self::EncryptedContent => "invalid_encrypted_content",
            Self::Model => "model_not_found",
        }
    }

    fn kind(self) -> &'static str {
        if self == Self::Quota { "insufficient_quota" } else { "invalid_request_error" }
    }
}

/// OpenAI's codes for what a filter refused.
const FILTERS: &[&str] = &["content_filter", "content_policy_violation", "moderation_blocked"];

/// The meaning of a code or a type in lower case.
fn by_name(name: &str) -> Option<ErrorMeaning> {
    Some(match name {
        "context_length_exceeded" | "exceed_context_size_error" | "contextwindowexceedederror" => {
            ErrorMeaning::ContextLength
        }
        "responsibleaipolicyviolation" | "contentpolicyviolationerror" => ErrorMeaning::ContentFilter,
        // `billing_error` is Anthropic's.
        "insufficient_quota"
        | "budget_exceeded"
        | "billing_hard_limit_reached"
        | "billing_not_active"
        | "billing_error" => ErrorMeaning::Quota,
        "invalid_encrypted_content" => ErrorMeaning::EncryptedContent,
        "model_not_found" | "deploymentnotfound" | "modelnotfound" => ErrorMeaning::Model,
        name if FILTERS.contains(&name) => ErrorMeaning::ContentFilter,
        // LiteLLM: the key, its team or its organisation may not use the model.
        name if name.ends_with("_model_access_denied") => ErrorMeaning::Model,
        _ => return None,
    })
}

/// What phrases of an error's text mean, in lower case.
const PHRASES: &[(ErrorMeaning, &[&str])] = &[
    // LiteLLM quotes the whole error of the server behind it, and calls this one a `ContentPolicyViolationError`.
    (
        ErrorMeaning::EncryptedContent,
        &[
            "invalid_encrypted_content",
            "encrypted content could not be", // OpenAI, Azure: "Reason: Encrypted content could not be decrypted"
            "encrypted content is invalid",
            "`encrypted_content` was not issued to this", // gateways with several accounts
        ],
    ),
    (
        ErrorMeaning::ContextLength,
        &[
            "maximum context length",                 // OpenAI, vLLM, SGLang, Ollama
            "longer than the model's context length", // SGLang
            "longer than the maximum model length",   // vLLM
            "available context size",                 // llama.cpp
            "exceeds the context length",             // Ollama
            "context length exceeded",
            "contextwindowexceedederror",                    // LiteLLM
            "`inputs` tokens + `max_new_tokens` must be <=", // TGI
            "`inputs` must have less than",                  // TGI
            "prompt is too long",                            // Anthropic, older llama.cpp
            "exceed context limit",                          // Anthropic: with `max_tokens`
            "exceeds the maximum allowed length",            // SGLang: of its cache
            "exceed context window of",                      // llama-cpp-python
            "exceeds the context window",                    // OpenAI
            "input is too long for requested",               // Bedrock
            "maximum prompt length is",                      // xAI
            "exceeds the maximum number of tokens",          // Gemini
        ],
    ),
    (ErrorMeaning::ContentFilter, &["contentpolicyviolationerror", "content management policy"]),
    (
        ErrorMeaning::Quota,
        &[
            "exceeded your current quota",
            "budget has been exceeded",
            "insufficient credits",
            "insufficient balance",
            "credit balance is too low", // Anthropic
            "requires more credits",     // OpenRouter
        ],
    ),
];

/// Phrases that say that a model is missing, in lower case. They count only in a text about a model.
const NO_MODEL: &[&str] = &[
    "does not exist",               // OpenAI, vLLM
    "not have access to",           // OpenAI
    "not found",                    // Ollama, llama.cpp
    "invalid model name",           // LiteLLM
    "deployment for this resource", // Azure
    "no such model",
    "unknown model",
    "not supported in the v1/",     // OpenAI: a model of another path
    "operation does not work with", // Azure: likewise
];

/// Phrases before a model's context length. The number follows them.
const LIMITS: &[&str] = &[
    "maximum context length is ",
    "maximum context length of ",
    "model's context length (",
    "maximum model length of ",
    "available context size (",
    "must be <= ",
    "must have less than ",
    "maximum allowed length (",
    "exceed context window of ",
    "maximum prompt length is ",
    "maximum number of tokens allowed (",
    " tokens > ",
];

/// Phrases before the number of tokens that were sent.
const SENT: &[&str] = &[
    "your request has ",
    "resulted in ",
    "you requested a total of ",
    "you requested ",
    "you passed ",
    "the input (",
    "prompt (length ",
    "given: ",
    "input length (",
    "requested tokens (",
    "but the request contains ",
    "input token count (",
    "prompt is too long: ",
];

/// Phrases before the time to wait, in lower case.
const WAITS: &[&str] = &[
    "try again in ", // LiteLLM: `5 seconds`; OpenAI: `1.2s`, `6m0s`
    "retry after ",  // Azure: `26 seconds`
];

/// How long a text says to wait, in milliseconds. Usually a header says it too, and has priority.
fn retry_after_ms(text: &str) -> Option<u64> {
    let rest = WAITS.iter().find_map(|phrase| Some(&text[text.find(phrase)? + phrase.len()..]))?;
    let mut words = rest.split(' ').map(|word| word.trim_end_matches(['.', ',', '!']));
    let (span, unit) = (words.next()?, words.next().unwrap_or_default());
    match (unit, span.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')) {
        ("minute" | "minutes", true) => cooldown::millis(&format!("{span}m")),
        ("second" | "seconds", true) | (_, false) => cooldown::millis(span),
        (_, true) => None,
    }
}

/// The number after the first of these phrases that a text holds.
fn number(text: &str, phrases: &[&str]) -> Option<u64> {
    phrases.iter().find_map(|phrase| {
        let rest = &text[text.find(phrase)? + phrase.len()..];
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..digits.min(10)].parse().ok()
    })
}

/// The text of a field, unless it is empty or `None`: LiteLLM writes Python's `None` as a text.
fn said(text: &str) -> Option<String> {
    (!matches!(text, "" | "None" | "null")).then(|| text.to_owned())
}

/// The beginning of a text in lower case.
fn lowered(text: &str) -> String {
    text.chars().take(MAX_TEXT).map(|c| c.to_ascii_lowercase()).collect()
}

/// Translates the error types of engines in Python to OpenAI's.
fn openais(kind: String) -> String {
    match kind.as_str() {
        "BadRequestError" | "UnprocessableEntityError" | "validation" => "invalid_request_error".to_owned(),
        "InternalServerError" => "server_error".to_owned(),
        _ => kind,
    }
}

/// A plain word, such as `content_filter`. A number only repeats the status.
fn plain_word(text: &str) -> Option<String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let is_word = (1..=64).contains(&text.len()) && text.bytes().all(fits);
    (is_word && !text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.to_owned())
}

/// A field's name, such as `messages[0].content`.
fn field(text: &str) -> Option<String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'[' | b']');
    ((1..=64).contains(&text.len()) && text.bytes().all(fits)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_words_are_handed_on() {
        let words = Words::read(
            br#"{"error":{"message":"SECRET","type":"bad thing","code":"overloaded","param":"messages[0]"}}"#,
        );
        let expected = Words { code: Some("overloaded".into()), param: Some("messages[0]".into()), ..Words::default() };
        assert_eq!(words, expected);
        assert_eq!(Words::read(br#"{"code":"x","message":"cut he"#).code.as_deref(), Some("x"));
        assert_eq!(Words::read(b"{\"code\":\"x\",\"message\":\"\xc3").code.as_deref(), Some("x"), "within a letter");
        assert_eq!(Words::read(b"\xff"), Words::default());
        assert_eq!(Words::read_event(b"event: error\ndata: {\"code\":\"x\"}\n\n").code.as_deref(), Some("x"));
        assert_eq!(Words::read(br#"{"error":{"code":"400","type":"error"}}"#), Words::default(), "numbers say nothing");
        assert_eq!(
            Words::read(br#"{"code":400,"type":"BadRequestError"}"#).kind.as_deref(),
            Some("invalid_request_error")
        );
    }

    #[test]
    fn what_a_gateway_says_of_its_own_keys_and_queues() {
        let cooled = "No deployments available for selected model, Try again in 5 seconds. Passed model=m. \
                      pre-call-checks=False";
        let words = Words::read(
            format!(r#"{{"error":{{"message":"{cooled}","type":"None","param":"None","code":"429"}}}}"#).as_bytes(),
        );
        assert_eq!(words, Words { retry_after_ms: Some(5_000), ..Words::default() }, "`None` is no word");
        for kind in ["key_model_access_denied", "team_model_access_denied", "org_model_access_denied"] {
            let body = format!(r#"{{"error":{{"message":"x","type":"{kind}","param":"model","code":"401"}}}}"#);
            assert_eq!(Words::read(body.as_bytes()).known, Some(ErrorMeaning::Model), "{kind}");
        }
        for (text, expected) in [
            (
                "Rate limit reached for m in organization o: Limit 3, Used 3. Please try again in 1.2s. Visit x",
                Some(1_200),
            ),
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

    /// Bodies as the servers send them.
    #[test]
    #[expect(clippy::too_many_lines, reason = "a table of cases")]
    fn prompts_that_are_too_long_by_every_server() {
        let said = "This model's maximum context length is 8192 tokens. However, your request has 9001 input tokens.";
        let sglang = "The input (9001 tokens) is longer than the model's context length (8192 tokens).";
        let total = "Requested token count exceeds the model's maximum context length of 8192 tokens. You requested a \
                     total of 9001 tokens: 8951 tokens from the input messages and 50 tokens for the completion.";
        let tgi = "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8192. Given: 9001 `inputs` \
                   tokens and 20 `max_new_tokens`";
        let openai =
            "This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens.";
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
                format!(
                    r#"{{"error":{{"message":"{said}","type":"BadRequestError","param":"input_tokens","code":400}}}}"#
                ),
                both,
            ),
            (
                format!(r#"{{"object":"error","message":"{said}","type":"BadRequestError","param":null,"code":400}}"#),
                both,
            ),
            (
                format!(
                    r#"{{"object":"error","message":"{sglang}","type":"BadRequestError","param":null,"code":400}}"#
                ),
                both,
            ),
            (
                format!(r#"{{"object":"error","message":"{total}","type":"BadRequestError","param":null,"code":400}}"#),
                both,
            ),
            (format!(r#"{{"error":"{tgi}","error_type":"validation"}}"#), both),
            (
                format!(r#"{{"error":{{"message":"{openai}","param":"messages","code":"context_length_exceeded"}}}}"#),
                both,
            ),
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
            (
                r#"{"error":{"message":"Your input exceeds the context window of this model."}}"#.to_owned(),
                (None, None),
            ),
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

    /// As clients of OpenAI, Azure and LiteLLM report them.
    #[test]
    fn encrypted_content_of_another_account_is_known_in_every_wrapping() {
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
    fn other_errors_by_every_server() {
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
        for body in
            [r#"{"detail":"Not Found"}"#, r#"{"error":{"code":404,"message":"File Not Found"}}"#, "{}", "<html>"]
        {
            assert_eq!(Words::read(body.as_bytes()).known, None, "{body}");
        }
    }

    #[test]
    fn numbers_are_numbers_or_nothing() {
        let words = |text: &str| Words::read(format!(r#"{{"message":"{text}"}}"#).as_bytes());
        assert_eq!(words("maximum context length is SECRET").limit, None);
        assert_eq!(words("maximum context length is 99999999999999999999").limit, Some(9_999_999_999));
        assert_eq!(words("maximum context length is 8192SECRET").limit, Some(8192));
    }
}
