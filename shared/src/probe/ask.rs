//! The request of a probe. Takes a model, a nonce and a token limit, returns the request's body. Called by the DNS
//! node.

use core::fmt;

/// The field that limits the tokens of an answer. OpenAI's reasoning models accept only `max_completion_tokens`, older
/// engines only `max_tokens`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Field {
    /// `max_tokens`.
    #[default]
    MaxTokens,
    /// `max_completion_tokens`.
    MaxCompletionTokens,
}

impl Field {
    /// The field's name in the request.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MaxTokens => "max_tokens",
            Self::MaxCompletionTokens => "max_completion_tokens",
        }
    }
}

/// How many tokens an answer may have: one, unless the model refused a limit of one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TokenLimit {
    /// The field that holds the limit.
    pub field: Field,
    /// 1, or [`TokenLimit::RAISED`].
    pub tokens: u32,
}

impl Default for TokenLimit {
    fn default() -> Self {
        Self { field: Field::MaxTokens, tokens: 1 }
    }
}

impl TokenLimit {
    /// The lowest limit that reasoning models accept.
    pub const RAISED: u32 = 16;

    /// Whether this isn't the default limit, because the model refused the default.
    #[must_use]
    pub fn is_raised(self) -> bool {
        self != Self::default()
    }
}

impl fmt::Display for TokenLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}", self.field.as_str(), self.tokens)
    }
}

/// The body of the request, as JSON. The prompt begins with the nonce, which should be random, so that no cache of
/// prefixes or answers can answer the request.
///
/// No other fields are sent: an engine or provider may refuse fields that it doesn't know, and a refusal tells nothing
/// about the GPU.
///
/// ```
/// use bailiwick_rules::probe::{TokenLimit, body};
/// let body = body("llama", TokenLimit::default(), 7);
/// assert!(body.contains(r#""max_tokens":1,"#) && body.contains(r#""stream":true"#));
/// assert!(body.contains("0000000000000007"));
/// ```
#[must_use]
pub fn body(model: &str, limit: TokenLimit, nonce: u64) -> String {
    let prompt = format!("{nonce:016x}: answer with one word.");
    serde_json::json!({
        "model": model,
        "messages": [{ "role": "user", "content": prompt }],
        limit.field.as_str(): limit.tokens,
        "stream": true,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_asks_for_a_stream_with_the_token_limit_and_differs_by_its_nonce() {
        let limit = TokenLimit { field: Field::MaxCompletionTokens, tokens: TokenLimit::RAISED };
        let read = |nonce| serde_json::from_str::<serde_json::Value>(&body("a \"b\"", limit, nonce)).unwrap();
        let (first, second) = (read(1), read(u64::MAX));
        assert_eq!((&first["model"], &first["max_completion_tokens"]), (&"a \"b\"".into(), &16.into()));
        assert_eq!((&first["stream"], first.get("max_tokens")), (&true.into(), None));
        let prompt = |value: &serde_json::Value| value["messages"][0]["content"].as_str().unwrap().to_owned();
        assert_ne!(prompt(&first)[..16], prompt(&second)[..16], "prompts differ from the first token on");
    }
}
