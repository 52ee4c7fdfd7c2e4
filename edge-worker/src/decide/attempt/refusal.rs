//! Judges an endpoint's error. Takes the status and the body; says whether another endpoint may do better. Also says
//! whether a body with a 2xx status is an error. Called by `run`.

use super::words::{ErrorMeaning, Words};
use crate::decide::json::{InvalidJson, Kind, Scan};
use crate::decide::usage::Usage;

/// What an error concerns. This decides whether another endpoint may do better.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// The endpoint. Another endpoint may do better.
    Endpoint,
    /// The endpoint lacks the model. Another endpoint may have the model.
    Model,
    /// The endpoint lacks the path. Another endpoint may have the path.
    Path,
    /// The endpoint's account has used up its quota. The account at another endpoint may have some left.
    Quota,
    /// The client's request. Every other endpoint would refuse it too.
    Client,
}

/// What an error concerns, judged by its status alone; `None` if the body must be read.
pub(super) fn by_status(status: u16) -> Option<Fault> {
    match status {
        408 => Some(Fault::Endpoint),
        // The engine knows the path, but not for this model or this method. The edge allowed the method before.
        405 | 501 => Some(Fault::Path),
        402 => Some(Fault::Quota),
        // The body says what the error concerns, or has words for the client.
        400..=499 => None,
        _ => Some(Fault::Endpoint),
    }
}

/// What an error concerns, judged by status and body together. If the request is `stateful` (about objects that the
/// endpoint stores), "not found" may mean the client's object.
pub(super) fn by_body(status: u16, words: &Words, stateful: bool) -> Fault {
    match (status, words.known) {
        (_, Some(ErrorMeaning::Quota)) => Fault::Quota,
        (400 | 401 | 403 | 404 | 422, Some(ErrorMeaning::Model)) if !stateful => Fault::Model,
        // 401 concerns the credential that the rules name for the endpoint. The client's credential isn't sent.
        (401 | 429, _) => Fault::Endpoint,
        (403, _) => {
            let policy = |text: &str| {
                let text = text.to_ascii_lowercase();
                ["content", "policy", "moderation", "safety"].iter().any(|word| text.contains(word))
            };
            let refused = words.code.as_deref().is_some_and(policy) || words.kind.as_deref().is_some_and(policy);
            if refused { Fault::Client } else { Fault::Endpoint }
        }
        (404, _) => {
            // Codes for missing models were handled above. Any other code of this form means another object of the
            // request.
            let other_code = words.code.as_deref().is_some_and(|code| code.ends_with("_not_found"));
            let is_about = |param: &str| words.param.as_deref() == Some(param);
            match () {
                () if stateful || other_code => Fault::Client,
                () if is_about("model") => Fault::Model,
                () if words.param.is_some() => Fault::Client,
                // No object of the request could be missing, so the path is missing.
                () => Fault::Path,
            }
        }
        _ => by_status(status).unwrap_or(Fault::Client),
    }
}

/// The kind of body of an answer with a 2xx status, where JSON was expected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Success {
    /// A JSON object without an error.
    Object,
    /// An error, despite the status.
    Error,
    /// JSON of another kind.
    Other,
    /// Text that isn't JSON.
    InvalidJson,
}

/// Reads the body of an answer with a 2xx status, and records the usage that it reports.
pub(super) fn success(text: &str, usage: &mut Usage) -> Success {
    let mut scan = Scan::of_answer(text);
    let kind = scan.kind();
    let read = if kind == Ok(Kind::Object) { is_error(&mut scan, usage) } else { scan.skip().map(|_| false) };
    match (read, scan.end()) {
        (Ok(true), _) => Success::Error,
        (Ok(false), Ok(())) if kind == Ok(Kind::Object) => Success::Object,
        (Ok(false), Ok(())) => Success::Other,
        _ => Success::InvalidJson,
    }
}

/// Whether an object is an error.
fn is_error(scan: &mut Scan<'_>, usage: &mut Usage) -> Result<bool, InvalidJson> {
    let (mut error, mut answer) = (false, false);
    scan.object(|key, value| {
        match (key.as_ref(), value.kind()?) {
            ("error", kind) if kind != Kind::Null => error = true,
            ("object", Kind::String) => {
                let object = value.string()?;
                error |= object == "error";
                // A fine-tuning job has a field `error`, which is empty if the job didn't fail. The job is a valid
                // answer even if the field isn't empty.
                answer |= object == "fine_tuning.job";
                return Ok(());
            }
            ("choices", Kind::Array) => {
                answer = true;
                return usage.read_choices(value);
            }
            // A response object has a field `error` too, beside its `output`.
            ("data" | "output", Kind::Array) => answer = true,
            ("usage", Kind::Object) => return usage.read(value),
            ("status", Kind::String) => {
                let status = value.text()?;
                if matches!(status, "\"completed\"" | "\"incomplete\"") {
                    usage.note_finish(status);
                }
                return Ok(());
            }
            _ => {}
        }
        value.skip().map(drop)
    })?;
    Ok(error && !answer)
}

/// Follows the nesting of arrays and objects in a JSON text that is too long to hold. So the machine notices if the
/// text ends too early.
#[derive(Clone, Debug, Default)]
pub(super) struct Nesting {
    depth: u32,
    in_string: bool,
    escaped: bool,
    begun: bool,
}

impl Nesting {
    /// Takes the next bytes of the text.
    pub(super) fn follow(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match (self.in_string, byte) {
                (true, _) if self.escaped => self.escaped = false,
                (true, b'\\') => self.escaped = true,
                (true, b'"') => self.in_string = false,
                (false, b'"') => self.in_string = true,
                (false, b'{' | b'[') => {
                    self.depth = self.depth.saturating_add(1);
                    self.begun = true;
                }
                (false, b'}' | b']') => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
    }

    /// Whether all arrays and objects are closed.
    pub(super) fn is_whole(&self) -> bool {
        self.begun && self.depth == 0 && !self.in_string
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(status: u16, body: &str) -> Fault {
        by_status(status).unwrap_or_else(|| by_body(status, &Words::read(body.as_bytes()), false))
    }

    #[test]
    fn status_and_body_say_what_an_error_concerns() {
        for status in [300, 307, 401, 408, 429, 500, 502, 503, 504, 520, 524, 529] {
            assert_eq!(fault(status, ""), Fault::Endpoint, "{status}");
        }
        for status in [400, 409, 413, 422, 499] {
            assert_eq!(fault(status, ""), Fault::Client, "{status}");
        }
        assert_eq!([405, 501, 402].map(|status| fault(status, "")), [Fault::Path, Fault::Path, Fault::Quota]);
        assert_eq!(fault(403, "<html>"), Fault::Endpoint, "the endpoint refuses our credential");
        assert_eq!(fault(403, r#"{"error":{"code":"content_policy_violation"}}"#), Fault::Client);
        assert_eq!(
            fault(403, r#"{"error":{"code":"model_not_found"}}"#),
            Fault::Model,
            "the account may not use the model"
        );
        let denied =
            r#"{"error":{"message":"key not allowed to access model","type":"key_model_access_denied","code":"401"}}"#;
        assert_eq!([401, 403].map(|status| fault(status, denied)), [Fault::Model; 2], "the key may not use the model");
        assert_eq!(fault(401, r#"{"error":{"code":"invalid_api_key"}}"#), Fault::Endpoint);
        assert_eq!(fault(429, r#"{"error":{"code":"insufficient_quota"}}"#), Fault::Quota);
        assert_eq!(fault(429, r#"{"error":{"code":"rate_limit_exceeded"}}"#), Fault::Endpoint);
        assert_eq!(fault(400, r#"{"error":{"type":"budget_exceeded","code":"400"}}"#), Fault::Quota);
    }

    #[test]
    fn a_model_is_missing_only_where_the_body_says_so() {
        for body in [
            r#"{"object":"error","message":"The model `m` does not exist.","type":"NotFoundError","code":404}"#,
            r#"{"error":{"code":"DeploymentNotFound"}}"#,
            r#"{"error":{"message":"x","param":"model"}}"#,
        ] {
            assert_eq!(fault(404, body), Fault::Model, "{body}");
        }
        for body in [
            "",
            "<html>",
            r#"{"detail":"Not Found"}"#,
            r#"{"error":{"message":"Not Found","type":"Not Found","param":null,"code":404}}"#,
            r#"{"error":{"code":404,"message":"File Not Found","type":"not_found_error"}}"#,
            r#"{"error":{"message":"Invalid URL (POST /v1/responses)","type":"invalid_request_error"}}"#,
            r#"{"error":{"code":"404","message":"Resource not found"}}"#,
        ] {
            assert_eq!(fault(404, body), Fault::Path, "{body}");
            assert_eq!(by_body(404, &Words::read(body.as_bytes()), true), Fault::Client, "{body}");
        }
        assert_eq!(fault(404, r#"{"error":{"code":"file_not_found","param":"file_id"}}"#), Fault::Client);
        assert_eq!(fault(404, r#"{"error":{"message":"Not here","param":"previous_response_id"}}"#), Fault::Client);
    }

    #[test]
    fn a_success_may_hold_an_error() {
        let success = |text: &str| success(text, &mut Usage::default());
        let is_error = |text: &str| success(text) == Success::Error;
        assert!(is_error(r#"{"error":{"message":"x"}}"#) && is_error(r#"{"object":"error"}"#));
        assert!(!is_error(r#"{"error":null,"choices":[]}"#));
        assert!(!is_error(r#"{"object":"response","error":{"code":"x"},"output":[]}"#));
        assert!(!is_error("[]"));
        for list in ["choices", "data", "output"] {
            assert!(is_error(&format!(r#"{{"{list}":null,"error":{{"message":"x"}}}}"#)), "{list}");
        }
        for error in ["{}", r#"{"code":"invalid_training_file","message":"x"}"#] {
            assert!(!is_error(&format!(r#"{{"error":{error},"object":"fine_tuning.job","id":"ftjob-1"}}"#)), "{error}");
        }
        assert_eq!(
            [" {} ", "[]", " null", "\"x\""].map(success),
            [Success::Object, Success::Other, Success::Other, Success::Other]
        );
        for broken in ["", "{} x", "{\"a\":nan}", "[1", "{\"error\":1", "x"] {
            assert_eq!(success(broken), Success::InvalidJson, "{broken}");
        }
        assert_eq!(success("{\"a\":[NaN,-Infinity]}"), Success::Object, "numbers that Python writes");
        assert!(is_error("{\"error\":1} x"), "the text after the error doesn't matter");
    }

    #[test]
    fn an_end_in_the_middle_of_json_is_noticed() {
        let whole = |text: &str| {
            let mut nesting = Nesting::default();
            text.as_bytes().chunks(3).for_each(|chunk| nesting.follow(chunk));
            nesting.is_whole()
        };
        assert!(whole(r#"{"a": ["}\"", {}]} "#));
        assert!(!whole(r#"{"a": ["}\"", {}]"#) && !whole(r#"{"a": "}"#) && !whole(""));
    }
}
