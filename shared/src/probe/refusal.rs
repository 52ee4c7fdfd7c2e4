//! Reads answers that aren't 2xx. Takes a status, the beginning of the body and how many tokens were asked for, returns
//! what that says of the endpoint. Called by the DNS node.

use super::ask::{Field, TokenLimit};
use super::verdict::Finding;

/// How much of the body of a refusal is read, in bytes.
pub const MAX_REFUSAL: usize = 16 << 10;

/// What a refusal means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// The model doesn't take so few tokens, or not by this field: to be asked again with this limit, at once.
    Raise(TokenLimit),
    /// The model made as many tokens as it was allowed, and that is what it complains of. No GPU says that which
    /// doesn't generate.
    Generated,
    /// What was found.
    Found(Finding),
}

/// What a status that isn't 2xx says, with the body's beginning.
///
/// Of a 400 or 422 the words count, for that is where models say what they want: those of OpenAI's reasoning models
/// (`Unsupported parameter: 'max_tokens' … Use 'max_completion_tokens' instead.`, `integer below minimum value`,
/// `Could not finish the message because max_tokens or model output limit was reached`), and those of engines that name
/// the field they don't like.
#[must_use]
pub fn refused(status: u16, body: &[u8], limit: TokenLimit) -> Refused {
    if matches!(status, 400 | 422) {
        let text = String::from_utf8_lossy(body.get(..MAX_REFUSAL).unwrap_or(body)).to_ascii_lowercase();
        if text.contains("output limit was reached") && limit.tokens > 1 {
            return Refused::Generated;
        }
        if let Some(raised) = raised(&text, limit) {
            return Refused::Raise(raised);
        }
    }
    Refused::Found(Finding::of_status(status))
}

/// The limit that a refusal asks for, if it asks for another. Each step goes up, so that there are two at most.
fn raised(text: &str, limit: TokenLimit) -> Option<TokenLimit> {
    let names = |name: &str| text.contains(name);
    if limit.field == Field::MaxTokens && names("max_completion_tokens") {
        return Some(TokenLimit { field: Field::MaxCompletionTokens, tokens: TokenLimit::RAISED });
    }
    let is_about_it = ["max_tokens", "max_completion_tokens", "max_output_tokens"].into_iter().any(names);
    (limit.tokens < TokenLimit::RAISED && is_about_it).then_some(TokenLimit { tokens: TokenLimit::RAISED, ..limit })
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

    fn read(body: &str, limit: TokenLimit) -> Refused {
        refused(400, body.replace("\n        ", " ").as_bytes(), limit)
    }

    #[test]
    fn what_reasoning_models_want_is_understood() {
        let first = TokenLimit::default();
        let by_other = TokenLimit { field: Field::MaxCompletionTokens, tokens: 16 };
        let more = TokenLimit { field: Field::MaxTokens, tokens: 16 };
        assert_eq!(read(UNSUPPORTED, first), Refused::Raise(by_other));
        assert_eq!(read(TOO_FEW, first), Refused::Raise(more));
        assert_eq!(read(UNSUPPORTED, more), Refused::Raise(by_other));
        assert_eq!(read(REACHED, first), Refused::Raise(more), "one token may be too few to say that");
        assert_eq!(read(REACHED, by_other), Refused::Generated);
    }

    #[test]
    fn a_limit_is_raised_twice_at_most_whatever_the_answers() {
        let texts = [UNSUPPORTED, TOO_FEW, "max_tokens", "max_completion_tokens", "max_output_tokens"];
        for first in texts {
            for second in texts {
                let mut limit = TokenLimit::default();
                let mut raises = 0;
                for text in [first, second, first, second, first] {
                    if let Refused::Raise(next) = read(text, limit) {
                        (limit, raises) = (next, raises + 1);
                    }
                }
                assert!(raises <= 2, "{first} {second}");
            }
        }
        let last = TokenLimit { field: Field::MaxCompletionTokens, tokens: 16 };
        assert_eq!(read(TOO_FEW, last), Refused::Found(Finding::Misconfigured));
    }

    #[test]
    fn statuses_say_whose_fault_it_is() {
        let found = |status| refused(status, b"max_tokens", TokenLimit::default());
        for status in [401, 403, 404, 405, 413, 415] {
            assert_eq!(found(status), Refused::Found(Finding::Misconfigured), "{status}");
        }
        assert_eq!(found(429), Refused::Found(Finding::Throttled));
        for status in [100, 204, 301, 302, 307, 408, 500, 502, 503, 504, 529, 999] {
            assert_eq!(found(status), Refused::Found(Finding::Down), "{status}");
        }
        let wordless = refused(400, b"{}", TokenLimit::default());
        assert_eq!(wordless, Refused::Found(Finding::Misconfigured));
        let late = [vec![b'x'; MAX_REFUSAL], b"max_tokens".to_vec()].concat();
        assert_eq!(refused(400, &late, TokenLimit::default()), Refused::Found(Finding::Misconfigured));
    }
}
