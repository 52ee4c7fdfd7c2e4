//! Reads what a sink says to a post. Takes the body of a successful answer, returns how many records were rejected; or
//! takes the error of a failed post, returns whether the batch is posted again. Called by `runtime::logs`.

use super::queue::Settled;
use crate::decide::json::{Kind, Scan};
use crate::decide::rules_state::ReadError;

/// How many records of a batch a sink rejected, by the body of a successful answer ([OTLP's partial
/// success](https://opentelemetry.io/docs/specs/otlp/#partial-success-1)). `None` if the body isn't JSON as a collector
/// writes it.
///
/// Only the counter is read. Nothing is allocated for the rest, however many values it has.
#[must_use]
pub(crate) fn rejected(body: &[u8]) -> Option<u64> {
    let text = core::str::from_utf8(body).ok()?;
    if text.bytes().all(|byte| byte.is_ascii_whitespace()) {
        return Some(0);
    }
    let (mut scan, mut rejected) = (Scan::new(text), 0);
    scan.object(|key, value| match (&*key, value.kind()?) {
        ("partialSuccess", Kind::Object) => value.object(|key, value| {
            if matches!(&*key, "rejectedLogRecords" | "rejectedSpans") {
                // Protobuf's JSON writes 64 bits as a string.
                rejected = value.text()?.trim_matches('"').parse().unwrap_or(0);
                return Ok(());
            }
            value.skip().map(drop)
        }),
        _ => value.skip().map(drop),
    })
    .and_then(|()| scan.end())
    .ok()
    .map(|()| rejected)
}

/// Whether a batch that wasn't taken is posted again.
#[must_use]
pub(crate) fn settled(error: ReadError) -> Settled {
    match error {
        // Nobody listens there at present (`ReadError::Refused`), or the sink has no time now.
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
            ("{} <html>", None),
            (r#"{"partialSuccess":{"rejectedSpans":2}"#, None),
            (r#"{"partialSuccess":null,"other":[0,{"rejectedSpans":9}]}"#, Some(0)),
        ] {
            assert_eq!(rejected(body.as_bytes()), expected, "{body}");
        }
        assert_eq!(rejected(b"\xff\xfe"), None);
        let long = format!("[{}0]", "0,".repeat(1 << 20));
        assert_eq!(rejected(long.as_bytes()), None);
        assert_eq!(rejected(format!("{{\"a\":{long}}}").as_bytes()), Some(0));
    }

    #[test]
    fn only_temporary_failures_are_posted_again() {
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
