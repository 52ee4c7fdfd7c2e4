//! Reads what a sink says to a post. Takes its answer, returns what became of the batch. Called by `runtime::logs`.

use serde_json::Value;

use super::queue::Settled;
use crate::decide::rules_state::ReadError;

/// How many records of a batch a sink rejected, by the body of a successful answer ([OTLP's partial
/// success](https://opentelemetry.io/docs/specs/otlp/#partial-success-1)). `None` if the body isn't of a collector.
#[must_use]
pub(crate) fn rejected(body: &[u8]) -> Option<u64> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Some(0);
    }
    let answer: Value = serde_json::from_slice(body).ok()?;
    let partial = answer.as_object()?.get("partialSuccess");
    let count = partial.and_then(|partial| partial.get("rejectedLogRecords").or(partial.get("rejectedSpans")));
    // Protobuf's JSON writes 64 bits as a string.
    Some(match count {
        Some(Value::String(text)) => text.parse().unwrap_or(0),
        Some(Value::Number(number)) => number.as_u64().unwrap_or(0),
        _ => 0,
    })
}

/// Whether a batch that wasn't taken is posted again.
#[must_use]
pub(crate) fn settled(error: ReadError) -> Settled {
    match error {
        // https://opentelemetry.io/docs/specs/otlp/#retryable-response-codes
        ReadError::Status(429 | 502..=504)
        | ReadError::Timeout
        | ReadError::Connection
        | ReadError::Refused
        | ReadError::NoAddress => Settled::Later,
        _ => Settled::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_how_many_records_were_rejected() {
        for (body, expected) in [
            ("", Some(0)),
            (" \n", Some(0)),
            ("{}", Some(0)),
            (r#"{"partialSuccess":{}}"#, Some(0)),
            (r#"{"partialSuccess":{"rejectedLogRecords":"3","errorMessage":"x"}}"#, Some(3)),
            (r#"{"partialSuccess":{"rejectedSpans":2}}"#, Some(2)),
            (r#"{"partialSuccess":{"rejectedSpans":-2}}"#, Some(0)),
            (r#"{"partialSuccess":{"rejectedSpans":"99999999999999999999999"}}"#, Some(0)),
            ("<html>log in first</html>", None),
            ("[]", None),
            ("\"ok\"", None),
            ("\u{0}", None),
        ] {
            assert_eq!(rejected(body.as_bytes()), expected, "{body}");
        }
        assert_eq!(rejected(b"\xff\xfe"), None);
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        for (error, expected) in [
            (ReadError::Status(503), Settled::Later),
            (ReadError::Status(429), Settled::Later),
            (ReadError::Timeout, Settled::Later),
            (ReadError::Refused, Settled::Later),
            (ReadError::Status(500), Settled::Refused),
            (ReadError::Status(401), Settled::Refused),
            (ReadError::Status(302), Settled::Refused),
            (ReadError::Tls, Settled::Refused),
            (ReadError::Unreadable, Settled::Refused),
        ] {
            assert_eq!(settled(error), expected, "{error}");
        }
    }
}
