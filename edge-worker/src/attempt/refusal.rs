//! An endpoint's answer that is no success in; whether another endpoint may do better, and the safe words of its error, out.

use crate::json::{Broken, Kind, Scan};

/// What an error's JSON says, in words that can be handed on: never its text.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Words {
    /// `type`.
    pub(super) kind: Option<String>,
    /// `code`, where it isn't a number.
    pub(super) code: Option<String>,
    /// `param`.
    pub(super) param: Option<String>,
}

/// Whose fault a status is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// The endpoint's: another may do better.
    Endpoint,
    /// The endpoint hasn't got the model: another may.
    Model,
    /// The client's: no other endpoint would answer otherwise.
    Client,
}

/// What the status alone says; `None` if the body has to be read.
pub(super) fn by_status(status: u16) -> Option<Fault> {
    match status {
        // 401 is about our credential, never the client's, which was dropped.
        401 | 408 | 429 => Some(Fault::Endpoint),
        // The body decides, or is read for the words to hand on.
        400..=499 => None,
        _ => Some(Fault::Endpoint),
    }
}

/// What status and body say together.
pub(super) fn by_body(status: u16, words: &Words, stateful: bool) -> Fault {
    let code = words.code.as_deref().unwrap_or_default();
    match status {
        403 => {
            let policy = |text: &str| {
                let text = text.to_ascii_lowercase();
                ["content", "policy", "moderation", "safety"].iter().any(|word| text.contains(word))
            };
            let refused = policy(code) || words.kind.as_deref().is_some_and(policy);
            if refused { Fault::Client } else { Fault::Endpoint }
        }
        // The path is one of the model API and the request names a model: what isn't found is the model, unless the error
        // names something else. For files and the like it is the client's id.
        404 => {
            let other_code = code.ends_with("_not_found") && code != "model_not_found";
            let other_param = words.param.as_deref().is_some_and(|param| param != "model");
            if stateful || other_code || other_param { Fault::Client } else { Fault::Model }
        }
        _ => by_status(status).unwrap_or(Fault::Client),
    }
}

impl Words {
    /// The words of `{"error": {"type", "code", "param"}}` or, as some servers have it, of the same without `error`.
    /// Text that isn't JSON has none.
    pub(super) fn read(body: &[u8]) -> Self {
        let mut words = Self::default();
        if let Ok(text) = core::str::from_utf8(body) {
            let mut scan = Scan::new(text);
            // A body cut at the limit still gives what came before the cut.
            let _ = words.read_object(&mut scan, true);
        }
        words
    }

    /// The words of an event's data lines.
    pub(super) fn read_event(event: &[u8]) -> Self {
        let data = event.split(|byte| matches!(byte, b'\n' | b'\r')).find_map(|line| line.strip_prefix(b"data:"));
        data.map(Self::read).unwrap_or_default()
    }

    fn read_object(&mut self, scan: &mut Scan<'_>, outer: bool) -> Result<(), Broken> {
        if scan.kind()? != Kind::Object {
            return scan.skip().map(drop);
        }
        scan.object(|key, value| {
            match (key.as_ref(), value.kind()?) {
                ("error", Kind::Object) if outer => return self.read_object(value, false),
                ("type", Kind::String) => self.kind = word(&value.string()?),
                ("code", Kind::String) => self.code = word(&value.string()?),
                ("param", Kind::String) => self.param = field(&value.string()?),
                _ => value.skip().map(drop)?,
            }
            Ok(())
        })
    }
}

/// A plain word, such as `content_filter`.
fn word(text: &str) -> Option<String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    ((1..=64).contains(&text.len()) && text.bytes().all(fits)).then(|| text.to_owned())
}

/// A field's name, such as `messages[0].content`.
fn field(text: &str) -> Option<String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'[' | b']');
    ((1..=64).contains(&text.len()) && text.bytes().all(fits)).then(|| text.to_owned())
}

/// What a body is that came with a success and should be JSON.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Success {
    /// A JSON object that tells of no error.
    Object,
    /// An error all the same.
    Error,
    /// JSON of another kind.
    Other,
    /// No JSON.
    Broken,
}

/// Reads a body that came with a success, once.
pub(super) fn success(text: &str) -> Success {
    let mut scan = Scan::of_answer(text);
    let kind = scan.kind();
    let read = if kind == Ok(Kind::Object) { is_error(&mut scan) } else { scan.skip().map(|_| false) };
    match (read, scan.end()) {
        (Ok(true), _) => Success::Error,
        (Ok(false), Ok(())) if kind == Ok(Kind::Object) => Success::Object,
        (Ok(false), Ok(())) => Success::Other,
        _ => Success::Broken,
    }
}

/// Whether an object is an error.
fn is_error(scan: &mut Scan<'_>) -> Result<bool, Broken> {
    let (mut error, mut answer) = (false, false);
    scan.object(|key, value| {
        match (key.as_ref(), value.kind()?) {
            ("error", kind) if kind != Kind::Null => error = true,
            ("object", Kind::String) => {
                let object = value.string()?;
                error |= object == "error";
                // A job tells in `error` why it failed, or by an empty one that it didn't, and is the answer all the same.
                answer |= object == "fine_tuning.job";
                return Ok(());
            }
            // So does a response object. Some gateways send `null` for what they haven't got.
            ("choices" | "data" | "output", Kind::Array) => answer = true,
            _ => {}
        }
        value.skip().map(drop)
    })?;
    Ok(error && !answer)
}

/// Follows the nesting of a JSON text too long to hold, so that an end in its middle is seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Nesting {
    depth: u32,
    in_string: bool,
    escaped: bool,
    begun: bool,
}

impl Nesting {
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

    /// Whether everything that was opened is closed.
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
    fn whose_fault_it_is() {
        for status in [300, 307, 401, 408, 429, 500, 502, 503, 504, 520, 524, 529] {
            assert_eq!(fault(status, ""), Fault::Endpoint, "{status}");
        }
        for status in [400, 402, 405, 409, 413, 422, 499] {
            assert_eq!(fault(status, ""), Fault::Client, "{status}");
        }
        assert_eq!(fault(403, "<html>"), Fault::Endpoint, "our credential");
        assert_eq!(fault(403, r#"{"error":{"code":"content_policy_violation"}}"#), Fault::Client);
        assert_eq!(fault(404, r#"{"object":"error","type":"NotFoundError","code":404}"#), Fault::Model);
        assert_eq!(fault(404, r#"{"error":{"code":"DeploymentNotFound"}}"#), Fault::Model);
        assert_eq!(fault(404, r#"{"error":{"code":"file_not_found","param":"file_id"}}"#), Fault::Client);
    }

    #[test]
    fn only_plain_words_are_handed_on() {
        let words = Words::read(
            br#"{"error":{"message":"SECRET","type":"bad thing","code":"content_filter","param":"messages[0]"}}"#,
        );
        assert_eq!(words, Words { kind: None, code: Some("content_filter".into()), param: Some("messages[0]".into()) });
        assert_eq!(Words::read(br#"{"code":"x","message":"cut he"#).code.as_deref(), Some("x"));
        assert_eq!(Words::read(b"\xff"), Words::default());
        assert_eq!(Words::read_event(b"event: error\ndata: {\"code\":\"x\"}\n\n").code.as_deref(), Some("x"));
    }

    #[test]
    fn a_success_that_is_an_error() {
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
            assert_eq!(success(broken), Success::Broken, "{broken}");
        }
        assert_eq!(success("{\"a\":[NaN,-Infinity]}"), Success::Object, "as Python writes them");
        assert!(is_error("{\"error\":1} x"), "whatever follows");
    }

    #[test]
    fn an_end_in_the_middle_of_json_is_seen() {
        let whole = |text: &str| {
            let mut nesting = Nesting::default();
            text.as_bytes().chunks(3).for_each(|chunk| nesting.follow(chunk));
            nesting.is_whole()
        };
        assert!(whole(r#"{"a": ["}\"", {}]} "#));
        assert!(!whole(r#"{"a": ["}\"", {}]"#) && !whole(r#"{"a": "}"#) && !whole(""));
    }
}
