//! Reads an endpoint's error. Takes the body of the error; returns its meaning in OpenAI's codes, and the words and
//! numbers that may be sent to the client. Called by `refusal` and `run`.
//!
//! The meaning follows from the structure, and from a few fixed phrases of common servers: vLLM, SGLang, llama.cpp,
//! TGI, LiteLLM, Ollama, Azure, OpenAI. The error's text is searched but never sent to the client, because it may quote
//! a prompt.

#[cfg(test)]
mod tests;

use crate::decide::cooldown;
use crate::decide::envelope::Failure;
use crate::decide::json::{InvalidJson, Kind, Scan};

/// How much of an error's text is searched, in bytes.
const MAX_TEXT: usize = 2_000;

/// The meanings of errors that the edge recognises.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ErrorMeaning {
    /// The prompt is longer than the model accepts.
    ContextLength,
    /// A filter refused the prompt or the answer.
    ContentFilter,
    /// The endpoint's account has used up its quota. Waiting doesn't help.
    Quota,
    /// The endpoint can't read the encrypted reasoning.
    EncryptedContent,
    /// The endpoint doesn't have the model.
    Model,
}

/// The parts of an error that may be sent to the client, and its meaning.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Words {
    /// `type`.
    pub(super) kind: Option<String>,
    /// `code`, if it isn't a number. If the meaning is known, this is OpenAI's code for that meaning.
    pub(super) code: Option<String>,
    /// `param`.
    pub(super) param: Option<String>,
    /// The meaning, if it is known.
    pub(super) known: Option<ErrorMeaning>,
    /// The model's context length in tokens.
    pub(super) limit: Option<u64>,
    /// How many tokens were sent.
    pub(super) sent: Option<u64>,
    /// How long to wait before the next request, in milliseconds.
    pub(super) retry_after_ms: Option<u64>,
}

impl Words {
    /// Reads the words of an error body. Knows `{"error": {"type", "code", "param", "message"}}`, the same object
    /// without `error` around it, `{"error": "…"}`, `{"detail": "…"}`, error events and failed responses. Text that
    /// isn't JSON has no words.
    pub(super) fn read(body: &[u8]) -> Self {
        let mut parsed = ErrorText::default();
        // A body that was cut at the limit may end within a character. The text before the cut still counts.
        let text = match core::str::from_utf8(body) {
            Ok(text) => text,
            Err(error) if error.error_len().is_none() => {
                core::str::from_utf8(&body[..error.valid_up_to()]).unwrap_or_default()
            }
            Err(_) => "",
        };
        let _ = parsed.read_object(&mut Scan::new(text), 2);
        parsed.words()
    }

    /// Reads the words in the first data line of an event.
    pub(super) fn read_event(event: &[u8]) -> Self {
        let data = event.split(|byte| matches!(byte, b'\n' | b'\r')).find_map(|line| line.strip_prefix(b"data:"));
        data.map(Self::read).unwrap_or_default()
    }

    /// Whether the words say that the client's request is at fault, regardless of the status. Then every other endpoint
    /// would give the same error.
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

/// The parsed error. Some parts of it may not be sent to the client.
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
                ("type" | "error_type", Kind::String) => self.kind = meaningful(&value.string()?),
                ("code", Kind::String) => self.code = meaningful(&value.string()?),
                ("param", Kind::String) => self.param = meaningful(&value.string()?).and_then(|param| field(&param)),
                ("error" | "message" | "detail", Kind::String) => self.text = Some(lowered(&value.string()?)),
                ("n_ctx", Kind::Number) => self.limit = value.text()?.trim().parse().ok(),
                ("n_prompt_tokens", Kind::Number) => self.sent = value.text()?.trim().parse().ok(),
                _ => value.skip().map(drop)?,
            }
            Ok(())
        })
    }

    /// Reads the code of an inner error.
    fn read_inner(&mut self, scan: &mut Scan<'_>) -> Result<(), InvalidJson> {
        scan.object(|key, value| {
            if key == "code" && value.kind()? == Kind::String {
                self.inner = Some(value.string()?.into_owned());
                return Ok(());
            }
            value.skip().map(drop)
        })
    }

    /// The words that the client may see, with the meaning of the error.
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
            // A code of OpenAI's for filters stays: a refused image has a code of its own.
            Some(ErrorMeaning::ContentFilter) if code.as_deref().is_some_and(|code| FILTERS.contains(&code)) => {
                (code, kind)
            }
            Some(known) => (Some(known.code().to_owned()), Some(known.kind().to_owned())),
            None => (code, kind.map(openais)),
        };
        Words { kind, code, retry_after_ms: retry_after_ms(text), param: self.param, known, limit, sent }
    }

    /// The meaning of the error, if it is one that is known: by its code and kind, or by phrases of its text.
    fn known(&self) -> Option<ErrorMeaning> {
        let names = [&self.code, &self.kind, &self.inner].into_iter().flatten();
        if let Some(known) = names.into_iter().find_map(|name| by_name(&name.to_ascii_lowercase())) {
            return Some(known);
        }
        let text = self.text.as_deref()?;
        let by_text = PHRASES.iter().find(|(_, phrases)| phrases.iter().any(|phrase| text.contains(phrase)));
        // OpenAI and Azure quote a part of the content: `The encrypted content gAAA...DQ== could not be verified.`
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

/// OpenAI's codes for prompts and answers that a filter refused.
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

/// Phrases in the text of an error, in lower case, by their meaning.
const PHRASES: &[(ErrorMeaning, &[&str])] = &[
    // This entry comes first: LiteLLM quotes the error of the server behind it, and calls this error a
    // `ContentPolicyViolationError`.
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

/// Phrases that say that a model is missing, in lower case. These phrases count only in a text that contains the word
/// "model".
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

/// Phrases in errors that stand directly before the model's context length in tokens.
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

/// Phrases in errors that stand directly before the number of tokens that were sent.
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

/// Phrases in errors that stand directly before the time to wait, in lower case.
const WAITS: &[&str] = &[
    "try again in ", // LiteLLM: `5 seconds`; OpenAI: `1.2s`, `6m0s`
    "retry after ",  // Azure: `26 seconds`
];

/// The time to wait that a text names, in milliseconds. If a header names a time too, the header has priority.
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
fn meaningful(text: &str) -> Option<String> {
    (!matches!(text, "" | "None" | "null")).then(|| text.to_owned())
}

/// The beginning of a text in lower case.
fn lowered(text: &str) -> String {
    text.chars().take(MAX_TEXT).map(|c| c.to_ascii_lowercase()).collect()
}

/// Translates the error types of engines that are written in Python to OpenAI's types.
fn openais(kind: String) -> String {
    match kind.as_str() {
        "BadRequestError" | "UnprocessableEntityError" | "validation" => "invalid_request_error".to_owned(),
        "InternalServerError" => "server_error".to_owned(),
        _ => kind,
    }
}

/// The text, if it is a plain word, such as `content_filter`. A number doesn't count, because it only repeats the
/// status.
fn plain_word(text: &str) -> Option<String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let is_word = (1..=64).contains(&text.len()) && text.bytes().all(fits);
    (is_word && !text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.to_owned())
}

/// The text, if it can be a field's name, such as `messages[0].content`.
fn field(text: &str) -> Option<String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'[' | b']');
    ((1..=64).contains(&text.len()) && text.bytes().all(fits)).then(|| text.to_owned())
}
