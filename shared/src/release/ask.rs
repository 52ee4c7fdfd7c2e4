//! The request of a canary: a fixed prompt whose likeliest tokens tell models apart. Takes a model and the number of a
//! prompt, returns the request's body. Called by the DNS node.

use crate::probe::{RefusalMeaning, TokenLimit, refused};
use crate::rules::Canary;

/// The fixed prompts. They leave open how the answer begins, so that many tokens are likely, and a small change of the
/// model changes their probabilities. Answers to other prompts can't be compared with recorded ones: a person who
/// changes a prompt has to raise the version of [`Canary`].
pub const PROMPTS: [&str; Canary::PROMPTS] = [
    "Write one unusual English word and nothing else.",
    "Name any town in the world. Answer with its name only.",
    "Begin a story about a lighthouse. Write its first sentence.",
    "Choose a number between 1 and 1000 and a colour.",
];
/// The seed of the request. With a temperature of 0 the seed decides only ties, and only in engines that read it.
const SEED: u64 = 7;

/// The form of the request: which of its optional fields are sent, as some endpoints refuse them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Form {
    /// The most tokens that the answer may have, and the field that says so.
    limit: TokenLimit,
    /// Whether log probabilities are asked for, with a temperature and a seed.
    has_logprobs: bool,
}

impl Default for Form {
    #[allow(clippy::cast_possible_truncation)] // 4
    fn default() -> Self {
        let limit = TokenLimit { tokens: Canary::POSITIONS as u32, ..TokenLimit::default() };
        Self { limit, has_logprobs: true }
    }
}

/// What to do about a refusal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Send the request again in this form.
    Again(Form),
    /// The endpoint doesn't answer.
    Failed,
}

impl Form {
    /// The most times that a request is sent until its form is accepted.
    pub const TRIES: u32 = 4;

    /// Whether log probabilities are asked for.
    #[must_use]
    pub fn has_logprobs(self) -> bool {
        self.has_logprobs
    }

    /// What to do about an answer whose status isn't 2xx. Reasoning models refuse `max_tokens`, low limits,
    /// temperatures and log probabilities; other programs refuse fields that they don't know.
    #[must_use]
    pub fn after(self, status: u16, body: &[u8]) -> Refusal {
        match refused(status, body, self.limit) {
            RefusalMeaning::Raise(limit) => Refusal::Again(Self { limit, ..self }),
            _ if matches!(status, 400 | 422) && self.has_logprobs => {
                Refusal::Again(Self { has_logprobs: false, ..self })
            }
            RefusalMeaning::Generated | RefusalMeaning::Found(_) => Refusal::Failed,
        }
    }
}

/// The body of the request, as JSON.
///
/// ```
/// use bailiwick_rules::release::{Form, body};
/// let body = body("llama", 0, Form::default());
/// assert!(body.contains(r#""temperature":0"#) && body.contains(r#""top_logprobs":5"#));
/// ```
#[must_use]
pub fn body(model: &str, prompt: usize, form: Form) -> String {
    let prompt = PROMPTS.get(prompt).copied().unwrap_or_default();
    let mut body = serde_json::json!({
        "model": model,
        "messages": [{ "role": "user", "content": prompt }],
        form.limit.field.as_str(): form.limit.tokens,
    });
    if form.has_logprobs {
        body["temperature"] = 0.into();
        body["seed"] = SEED.into();
        body["logprobs"] = true.into();
        body["top_logprobs"] = Canary::TOKENS.into();
    }
    body.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::Field;

    #[test]
    fn what_a_model_refuses_is_left_out_step_by_step() {
        let unsupported =
            br#"{"error":{"message":"Unsupported parameter: 'max_tokens' is not supported with this model.
            Use 'max_completion_tokens' instead."}}"#;
        let no_logprobs = br#"{"error":{"message":"You are not allowed to request logprobs from this model."}}"#;
        let Refusal::Again(second) = Form::default().after(400, unsupported) else {
            panic!("the request is sent again")
        };
        assert_eq!(second.limit, TokenLimit { field: Field::MaxCompletionTokens, tokens: 16 });
        assert!(second.has_logprobs());
        let Refusal::Again(third) = second.after(400, no_logprobs) else { panic!("the request is sent again") };
        assert!(!third.has_logprobs());
        assert_eq!(third.after(400, no_logprobs), Refusal::Failed);
        let text = body("o4", 1, third);
        assert!(text.contains(r#""max_completion_tokens":16"#) && text.contains(PROMPTS[1]), "{text}");
        assert!(!text.contains("logprobs") && !text.contains("temperature") && !text.contains("seed"), "{text}");
    }

    #[test]
    fn other_statuses_fail_at_once_and_no_answer_is_asked_for_more_often_than_said() {
        for status in [401, 403, 404, 429, 500, 503] {
            assert_eq!(Form::default().after(status, b"logprobs"), Refusal::Failed, "{status}");
        }
        for texts in [["max_tokens"; 4], ["max_completion_tokens"; 4], ["", "max_tokens", "max_output_tokens", ""]] {
            let (mut form, mut asked) = (Form::default(), 1);
            while let Refusal::Again(next) = form.after(400, texts[asked as usize % 4].as_bytes()) {
                (form, asked) = (next, asked + 1);
                assert!(asked <= Form::TRIES, "{texts:?}");
            }
        }
    }
}
