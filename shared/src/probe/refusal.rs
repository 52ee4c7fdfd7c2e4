//! Reads answers whose status isn't 2xx. Takes the status, the beginning of the body and the token limit of the
//! request; returns what the refusal means. Called by the DNS node.

use super::ask::{Field, TokenLimit};
use super::verdict::Finding;

/// How many bytes of a refusal's body are read.
pub const MAX_REFUSAL: usize = 16 << 10;

/// What a refusal means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RefusalMeaning {
    /// The model refused the token limit or its field. The probe should be repeated with this limit at once.
    Raise(TokenLimit),
    /// The model complains that the token limit was reached. So it generated tokens, and the probe passes.
    Generated,
    /// The probe failed with this finding.
    Found(Finding),
}

/// The meaning of a refusal, by its status and the beginning of its body.
///
/// The body matters only with status 400 and 422. It is searched for the messages of OpenAI's reasoning models
/// (`Unsupported parameter: 'max_tokens' … Use 'max_completion_tokens' instead.`, `integer below minimum value`,
/// `Could not finish the message because max_tokens or model output limit was reached`), and for the names of the
/// fields, which engines write when they refuse a field.
#[must_use]
pub fn refused(status: u16, body: &[u8], limit: TokenLimit) -> RefusalMeaning {
    if matches!(status, 400 | 422) {
        let text = String::from_utf8_lossy(body.get(..MAX_REFUSAL).unwrap_or(body)).to_ascii_lowercase();
        if text.contains("output limit was reached") && limit.tokens > 1 {
            return RefusalMeaning::Generated;
        }
        if let Some(raised) = raised(&text, limit) {
            return RefusalMeaning::Raise(raised);
        }
    }
    RefusalMeaning::Found(Finding::of_status(status))
}

/// The other limit that a refusal asks for, if any. Each step changes the field or raises the limit, so there are at
/// most two steps.
fn raised(text: &str, limit: TokenLimit) -> Option<TokenLimit> {
    let names = |name: &str| text.contains(name);
    if limit.field == Field::MaxTokens && names("max_completion_tokens") {
        return Some(TokenLimit { field: Field::MaxCompletionTokens, tokens: TokenLimit::RAISED });
    }
    let names_a_field = ["max_tokens", "max_completion_tokens", "max_output_tokens"].into_iter().any(names);
    (limit.tokens < TokenLimit::RAISED && names_a_field).then_some(TokenLimit { tokens: TokenLimit::RAISED, ..limit })
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNSUPPORTED: &str = r#"{"error":{"message":"Unsupported parameter: 'max_tokens' is not supported with this
        model. Use 'max_completion_tokens' instead.","type":"invalid_request_error","param":"max_tokens",
        "code":"unsupported_parameter"}}"#;
    const TOO_FEW: &str = r#"{"error":{"message":"Invalid 'max_output_tokens': integer below minimum value. Expected a
        value >= 16, but got 1 instead.","type":"invalid_request_error","param":"max_output_tokens",
        "code":"integer_below_min_value"}}"#;
    const REACHED: &str = r#"{"error":{"message":"Could not finish the message because max_tokens or model output limit
        was reached. Please try again with higher max_tokens.","type":"invalid_request_error","param":null,
        "code":null}}"#;

    fn read(body: &str, limit: TokenLimit) -> RefusalMeaning {
        refused(400, body.replace("\n        ", " ").as_bytes(), limit)
    }

    #[test]
    fn the_messages_of_reasoning_models_are_understood() {
        let first = TokenLimit::default();
        let other_field = TokenLimit { field: Field::MaxCompletionTokens, tokens: 16 };
        let more = TokenLimit { field: Field::MaxTokens, tokens: 16 };
        assert_eq!(read(UNSUPPORTED, first), RefusalMeaning::Raise(other_field));
        assert_eq!(read(TOO_FEW, first), RefusalMeaning::Raise(more));
        assert_eq!(read(UNSUPPORTED, more), RefusalMeaning::Raise(other_field));
        assert_eq!(read(REACHED, first), RefusalMeaning::Raise(more), "with a limit of 1 this message is no proof");
        assert_eq!(read(REACHED, other_field), RefusalMeaning::Generated);
    }

    #[test]
    fn a_limit_is_raised_twice_at_most_whatever_the_answers() {
        let texts = [UNSUPPORTED, TOO_FEW, "max_tokens", "max_completion_tokens", "max_output_tokens"];
        for first in texts {
            for second in texts {
                let mut limit = TokenLimit::default();
                let mut raises = 0;
                for text in [first, second, first, second, first] {
                    if let RefusalMeaning::Raise(next) = read(text, limit) {
                        (limit, raises) = (next, raises + 1);
                    }
                }
                assert!(raises <= 2, "{first} {second}");
            }
        }
        let last = TokenLimit { field: Field::MaxCompletionTokens, tokens: 16 };
        assert_eq!(read(TOO_FEW, last), RefusalMeaning::Found(Finding::Misconfigured));
    }

    #[test]
    fn each_status_gives_the_right_finding() {
        let found = |status| refused(status, b"max_tokens", TokenLimit::default());
        for status in [401, 403, 404, 405, 413, 415] {
            assert_eq!(found(status), RefusalMeaning::Found(Finding::Misconfigured), "{status}");
        }
        assert_eq!(found(429), RefusalMeaning::Found(Finding::Throttled));
        for status in [100, 204, 301, 302, 307, 408, 500, 502, 503, 504, 529, 999] {
            assert_eq!(found(status), RefusalMeaning::Found(Finding::Down), "{status}");
        }
        let wordless = refused(400, b"{}", TokenLimit::default());
        assert_eq!(wordless, RefusalMeaning::Found(Finding::Misconfigured));
        let late = [vec![b'x'; MAX_REFUSAL], b"max_tokens".to_vec()].concat();
        assert_eq!(refused(400, &late, TokenLimit::default()), RefusalMeaning::Found(Finding::Misconfigured));
    }
}
