//! The usage that an answer reports: how many tokens prompt and answer have, and why the model stopped. It is collected
//! while the edge reads the answer for other reasons, so the answer isn't read twice. Used by `sse`, by the attempt
//! machine (`run`), by `observe` and by `quota`.

use super::json::{InvalidJson, Kind, Scan};

/// The usage that an answer reports.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Usage {
    /// Tokens of the prompt.
    pub(crate) tokens_in: Option<u64>,
    /// Tokens of the answer.
    pub(crate) tokens_out: Option<u64>,
    /// Why the model stopped, in one word.
    pub(crate) finish: Option<&'static str>,
}

impl Usage {
    /// Takes a member of a `usage` object. Answers of `/chat/completions` and `/completions` have `prompt_tokens` and
    /// `completion_tokens`. Responses, transcriptions and images have `input_tokens` and `output_tokens`.
    pub(crate) fn note(&mut self, key: &str, number: &str) {
        let count = || number.parse().ok();
        match key {
            "prompt_tokens" | "input_tokens" => self.tokens_in = count().or(self.tokens_in),
            "completion_tokens" | "output_tokens" => self.tokens_out = count().or(self.tokens_out),
            _ => {}
        }
    }

    /// Takes a `finish_reason` or the `status` of a response, as JSON text. If an answer has several choices, the last
    /// reason counts.
    pub(crate) fn note_finish(&mut self, reason: &str) {
        self.finish = match reason.trim_matches('"') {
            "stop" => Some("stop"),
            "length" => Some("length"),
            "tool_calls" => Some("tool_calls"),
            "function_call" => Some("function_call"),
            "content_filter" => Some("content_filter"),
            "completed" => Some("completed"),
            "incomplete" => Some("incomplete"),
            // The word becomes a label of a metric, so an endpoint must not be able to choose any word.
            _ => Some("other"),
        };
    }

    /// Reads a `usage` object.
    pub(crate) fn read(&mut self, usage: &mut Scan<'_>) -> Result<(), InvalidJson> {
        usage.object(|key, value| match value.kind()? {
            Kind::Number => {
                self.note(&key, value.text()?);
                Ok(())
            }
            _ => value.skip().map(drop),
        })
    }

    /// Reads the `finish_reason` of each choice.
    pub(crate) fn read_choices(&mut self, choices: &mut Scan<'_>) -> Result<(), InvalidJson> {
        choices.array(|choice| {
            if choice.kind()? != Kind::Object {
                return choice.skip().map(drop);
            }
            choice.object(|key, value| {
                if key == "finish_reason" && value.kind()? == Kind::String {
                    self.note_finish(value.text()?);
                    return Ok(());
                }
                value.skip().map(drop)
            })
        })
    }
}
