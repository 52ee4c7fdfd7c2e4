//! The request of a probe. Takes a model, a nonce and how many tokens may be made, returns the body to send. Called by
//! the DNS node.

use core::fmt;

/// The field that limits an answer. Reasoning models of OpenAI know the second alone, older engines the first alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Field {
    /// `max_tokens`.
    #[default]
    MaxTokens,
    /// `max_completion_tokens`.
    MaxCompletionTokens,
}

impl Field {
    /// Its name in the request.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MaxTokens => "max_tokens",
            Self::MaxCompletionTokens => "max_completion_tokens",
        }
    }
}

/// How many tokens an answer may have: one, unless the model refused that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TokenLimit {
    /// The field that says so.
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
    /// What reasoning models want at least.
    pub const RAISED: u32 = 16;

    /// Whether the model refused what is asked first.
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

/// The body of the request, as JSON. The nonce stands first in the prompt, so that no cache of prefixes or answers
/// knows it; it should be random.
///
/// No other field is sent. What an engine or a provider doesn't know it would refuse, and a refusal says nothing of its
/// GPU.
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
    fn the_body_asks_for_a_stream_of_as_few_tokens_as_are_allowed_and_differs_by_its_nonce() {
        let limit = TokenLimit { field: Field::MaxCompletionTokens, tokens: TokenLimit::RAISED };
        let read = |nonce| serde_json::from_str::<serde_json::Value>(&body("a \"b\"", limit, nonce)).unwrap();
        let (one, other) = (read(1), read(u64::MAX));
        assert_eq!((&one["model"], &one["max_completion_tokens"]), (&"a \"b\"".into(), &16.into()));
        assert_eq!((&one["stream"], one.get("max_tokens")), (&true.into(), None));
        let prompt = |value: &serde_json::Value| value["messages"][0]["content"].as_str().unwrap().to_owned();
        assert_ne!(prompt(&one)[..16], prompt(&other)[..16], "they differ from the first token on");
    }
}
