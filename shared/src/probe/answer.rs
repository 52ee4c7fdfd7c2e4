//! Reads the answer to a probe. Takes the bytes of the answer in pieces; returns whether they prove that a token was
//! made. Called by the DNS node.
//!
//! The answer comes from another program and may hold any bytes. So every length is bounded, only complete events
//! count, and invalid events prove nothing.

use core::fmt;

use serde_json::Value;

use super::verdict::Finding;

/// The most bytes of an answer that are read.
pub const MAX_ANSWER: usize = 256 << 10;
/// The longest event and the longest line, in bytes.
const MAX_EVENT: usize = 64 << 10;

/// Whether the answer has proved a token so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TokenProof {
    /// No token yet.
    Nothing,
    /// A token. The rest of the answer needn't be read.
    Token,
}

/// Why an answer proves no token. The rest of the answer needn't be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoToken {
    /// The content type is neither an event stream nor JSON.
    Type,
    /// The answer is compressed.
    Compressed,
    /// The first [`MAX_ANSWER`] bytes have no token.
    TooLong,
    /// An event is longer than any event with a token.
    LongEvent,
    /// The answer reports an error, possibly with a status.
    Error(Option<u16>),
    /// The answer ended or was cut, and no event had a token.
    Ended,
    /// The content type is JSON, but the answer isn't valid JSON.
    NotJson,
}

impl NoToken {
    /// The finding about the endpoint.
    #[must_use]
    pub fn finding(self) -> Finding {
        match self {
            Self::Error(Some(status)) => Finding::of_status(status),
            _ => Finding::Down,
        }
    }
}

impl fmt::Display for NoToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Type => f.write_str("the answer is neither a stream of events nor JSON; look at the url"),
            Self::Compressed => f.write_str("the answer is compressed, which wasn't asked for"),
            Self::TooLong => write!(f, "no token in the first {} KiB of the answer", MAX_ANSWER >> 10),
            Self::LongEvent => write!(f, "the answer has an event of more than {} KiB", MAX_EVENT >> 10),
            Self::Error(Some(status)) => write!(f, "the answer tells an error with status {status}"),
            Self::Error(None) => f.write_str("the answer tells an error"),
            Self::Ended => f.write_str("the answer ended without a token"),
            Self::NotJson => f.write_str("the answer says that it is JSON, and isn't"),
        }
    }
}

/// Reads an answer with status 2xx, piece by piece.
///
/// ```
/// use bailiwick_rules::probe::{Answer, TokenProof};
/// let mut answer = Answer::new(Some("text/event-stream; charset=utf-8"), None).unwrap();
/// let role = b": ping\n\ndata: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n";
/// assert_eq!(answer.push(role), Ok(TokenProof::Nothing));
/// let half = b"data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n";
/// assert_eq!(answer.push(half), Ok(TokenProof::Nothing));
/// assert_eq!(answer.push(b"\n"), Ok(TokenProof::Token));
/// ```
#[derive(Clone, Debug)]
pub struct Answer {
    form: Form,
    /// The number of bytes received.
    bytes: usize,
    /// The beginning of a line whose end hasn't arrived, or the JSON received so far.
    rest: Vec<u8>,
    /// The `data` of the event whose end hasn't arrived.
    data: Vec<u8>,
    /// Whether this event has the type `error`.
    is_error: bool,
    /// Whether the last byte was a carriage return. A line feed after it belongs to the same line end.
    after_return: bool,
}

/// The format of an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    Events,
    Json,
}

impl Answer {
    /// Starts to read an answer with these headers: `content-type` and `content-encoding`.
    ///
    /// # Errors
    /// If an answer with these headers can't be read.
    pub fn new(content_type: Option<&str>, content_encoding: Option<&str>) -> Result<Self, NoToken> {
        if content_encoding.is_some_and(|coding| !coding.trim().eq_ignore_ascii_case("identity")) {
            return Err(NoToken::Compressed);
        }
        let kind = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        let form = match kind.to_ascii_lowercase().as_str() {
            "text/event-stream" => Form::Events,
            "application/json" => Form::Json,
            _ => return Err(NoToken::Type),
        };
        Ok(Self { form, bytes: 0, rest: Vec::new(), data: Vec::new(), is_error: false, after_return: false })
    }

    /// Takes the next piece of the answer.
    ///
    /// # Errors
    /// When the answer proves no token, whatever follows.
    pub fn push(&mut self, piece: &[u8]) -> Result<TokenProof, NoToken> {
        let room = MAX_ANSWER.saturating_sub(self.bytes);
        self.bytes = self.bytes.saturating_add(piece.len());
        let (piece, is_cut) = (piece.get(..room).unwrap_or(piece), piece.len() > room);
        let proof = match self.form {
            Form::Json => {
                self.rest.extend_from_slice(piece);
                TokenProof::Nothing
            }
            Form::Events => self.lines(piece)?,
        };
        if is_cut && proof == TokenProof::Nothing { Err(NoToken::TooLong) } else { Ok(proof) }
    }

    /// Ends the answer. An incomplete event doesn't count (WHATWG, *Server-sent events* §9.2.6).
    ///
    /// # Errors
    /// When the answer had no token.
    pub fn finish(self) -> Result<(), NoToken> {
        match self.form {
            Form::Events => Err(NoToken::Ended),
            Form::Json => {
                let value = serde_json::from_slice(&self.rest).map_err(|_| NoToken::NotJson)?;
                match token_in(&value)? {
                    TokenProof::Token => Ok(()),
                    TokenProof::Nothing => Err(NoToken::Ended),
                }
            }
        }
    }

    /// Reads lines. A line ends with a line feed, a carriage return, or both.
    fn lines(&mut self, mut piece: &[u8]) -> Result<TokenProof, NoToken> {
        if core::mem::take(&mut self.after_return) {
            piece = piece.strip_prefix(b"\n").unwrap_or(piece);
        }
        while let Some(end) = piece.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            let (head, rest) = piece.split_at(end);
            let is_return = rest.first() == Some(&b'\r');
            piece = rest.get(1..).unwrap_or_default();
            if is_return {
                self.after_return = piece.is_empty();
                piece = piece.strip_prefix(b"\n").unwrap_or(piece);
            }
            self.extend(head)?;
            let line = core::mem::take(&mut self.rest);
            if self.line(&line)? == TokenProof::Token {
                return Ok(TokenProof::Token);
            }
        }
        self.extend(piece)?;
        Ok(TokenProof::Nothing)
    }

    /// Adds a piece to the line that hasn't ended.
    fn extend(&mut self, piece: &[u8]) -> Result<(), NoToken> {
        if self.rest.len() + self.data.len() + piece.len() > MAX_EVENT {
            return Err(NoToken::LongEvent);
        }
        self.rest.extend_from_slice(piece);
        Ok(())
    }

    /// Reads a complete line.
    fn line(&mut self, line: &[u8]) -> Result<TokenProof, NoToken> {
        if line.is_empty() {
            return self.end_event();
        }
        let (field, value) = match line.iter().position(|byte| *byte == b':') {
            Some(colon) => (line.get(..colon), line.get(colon + 1..).unwrap_or_default()),
            None => (Some(line), &[][..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            Some(b"data") => {
                if !self.data.is_empty() {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(value);
            }
            Some(b"event") => self.is_error = value == b"error",
            _ => {}
        }
        Ok(TokenProof::Nothing)
    }

    /// Reads a complete event.
    fn end_event(&mut self) -> Result<TokenProof, NoToken> {
        let (data, is_error) = (core::mem::take(&mut self.data), core::mem::take(&mut self.is_error));
        if data.is_empty() {
            return Ok(TokenProof::Nothing);
        }
        // Events that aren't JSON prove nothing: `[DONE]`, heartbeats, or numbers such as NaN.
        let value = serde_json::from_slice(&data).unwrap_or(Value::Null);
        if is_error {
            return Err(NoToken::Error(status_of(value.get("error").unwrap_or(&value))));
        }
        token_in(&value)
    }
}

/// Whether an event or a JSON answer proves a token: by content, reasoning, a tool call, a token count of at least 1,
/// or the finish reason `length`. A role alone is no proof, because servers send it before the engine has made a token.
fn token_in(value: &Value) -> Result<TokenProof, NoToken> {
    if let Some(error) = value.get("error").filter(|error| !error.is_null()) {
        return Err(NoToken::Error(status_of(error)));
    }
    let counted = value.get("usage").and_then(|usage| usage.get("completion_tokens")).and_then(Value::as_f64);
    let choices = value.get("choices").and_then(Value::as_array);
    let is_token = counted.is_some_and(|tokens| tokens >= 1.0) || choices.into_iter().flatten().any(is_token);
    Ok(if is_token { TokenProof::Token } else { TokenProof::Nothing })
}

/// Whether a choice holds output of the model.
fn is_token(choice: &Value) -> bool {
    let parts = ["delta", "message"].into_iter().filter_map(|key| choice.get(key));
    let is_filled = |part: &Value, key: &str| match part.get(key) {
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(items)) => items.iter().any(Value::is_object),
        Some(Value::Object(fields)) => !fields.is_empty(),
        _ => false,
    };
    let keys = ["content", "reasoning", "reasoning_content", "tool_calls", "function_call"];
    choice.get("finish_reason").and_then(Value::as_str) == Some("length")
        || parts.into_iter().any(|part| keys.into_iter().any(|key| is_filled(part, key)))
}

/// The status in an error object, as a number or a string of digits.
fn status_of(error: &Value) -> Option<u16> {
    let number = |value: &Value| match value {
        Value::Number(number) => number.as_u64().and_then(|number| u16::try_from(number).ok()),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    let status = ["code", "status", "status_code"].into_iter().filter_map(|key| error.get(key)).find_map(number);
    status.filter(|status| (400..=599).contains(status))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a stream in pieces of this length.
    fn stream_in(length: usize, text: &str) -> Result<(), NoToken> {
        let mut answer = Answer::new(Some("text/event-stream"), None)?;
        for piece in text.as_bytes().chunks(length.max(1)) {
            if answer.push(piece)? == TokenProof::Token {
                return Ok(());
            }
        }
        answer.finish()
    }

    fn stream(text: &str) -> Result<(), NoToken> {
        let whole = stream_in(text.len(), text);
        for length in [1, 2, 3, 7] {
            assert_eq!(stream_in(length, text), whole, "in pieces of {length}: {text}");
        }
        whole
    }

    fn json(text: &str) -> Result<(), NoToken> {
        let mut answer = Answer::new(Some("application/json; charset=utf-8"), Some("identity"))?;
        answer.push(text.as_bytes())?;
        answer.finish()
    }

    #[test]
    fn output_of_a_model_is_proof() {
        for event in [
            r#"{"choices":[{"index":0,"delta":{"content":" "},"finish_reason":null}]}"#,
            r#"{"choices":[{"delta":{"reasoning":"Hm"}}]}"#,
            r#"{"choices":[{"delta":{"reasoning_content":"Hm"}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"name":"f"}}]}}]}"#,
            r#"{"choices":[{"delta":{},"finish_reason":"length"}]}"#,
            r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":1}}"#,
            r#"{"choices":[{"delta":{}},{"delta":{"content":"b"}}]}"#,
        ] {
            assert_eq!(stream(&format!("data: {event}\n\n")), Ok(()), "{event}");
        }
        let message = r#"{"choices":[{"message":{"role":"assistant","content":"OK"},"finish_reason":"stop"}]}"#;
        assert_eq!(json(message), Ok(()), "an answer that isn't streamed counts too");
        assert_eq!(json(r#"{"choices":[{"message":{"content":""},"finish_reason":"length"}]}"#), Ok(()));
    }

    #[test]
    fn events_that_a_web_server_can_send_without_an_engine_are_no_proof() {
        for text in [
            "",
            ": ping\n\n: ping\n\n",
            "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n",
            "data: {\"choices\":[{\"delta\":{\"content\":null,\"tool_calls\":[],\"reasoning\":\"\"}}]}\n\n",
            "data: {\"choices\":[],\"prompt_filter_results\":[{\"prompt_index\":0}]}\n\ndata: [DONE]\n\n",
            "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n",
            "data: {\"choices\":[],\"usage\":{\"completion_tokens\":0}}\n\n",
            "data: {\"choices\":[],\"usage\":{\"completion_tokens\":NaN}}\n\n",
            "data: {\"choices\":[],\"usage\":{\"completion_tokens\":\"1\"}}\n\n",
            "data: {\"choices\":{\"delta\":{\"content\":\"a\"}}}\n\n",
            "data: {\"choices\":[{\"delta\":{\"content\":[\"a\"]}}]}\n\n",
            "data: {\"choices\":[{\"delta\":{\"content\":\"half",
            "data: {\"choices\":[{\"delta\":{\"content\":\"no end\"}}]}\n",
            "{\"choices\":[{\"delta\":{\"content\":\"no data\"}}]}\n\n",
            "data: \u{0}\n\ndata: null\n\ndata: 7\n\n",
        ] {
            assert_eq!(stream(text), Err(NoToken::Ended), "{text}");
        }
        assert_eq!(json("{}"), Err(NoToken::Ended));
        assert_eq!(json("{\"choices\":[{\"message\":{\"role\":\"assistant\"}}]}"), Err(NoToken::Ended));
        assert_eq!(json("{\"choices\":[{\"message\""), Err(NoToken::NotJson));
        assert_eq!(json(&"[".repeat(100_000)), Err(NoToken::NotJson), "deep nesting is no valid JSON either");
    }

    #[test]
    fn the_first_event_of_azure_is_no_proof() {
        let text = "data: {\"choices\":[],\"created\":0,\"id\":\"\",\"prompt_filter_results\":[{\"prompt_index\":0,\
            \"content_filter_results\":{}}]}\r\n\r\ndata: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\
            \"content\":\"\"}}]}\r\n\r\ndata: {\"choices\":[{\"delta\":{\"content\":\"Yes\"}}]}\r\n\r\n";
        assert_eq!(stream(text), Ok(()));
        assert_eq!(stream(&text.replace("\r\n", "\r")), Ok(()));
        let split = "data: {\"choices\":\ndata: [{\"delta\":{\"content\":\"Yes\"}}]}\n\n";
        assert_eq!(stream(split), Ok(()), "data of several lines is one text");
    }

    #[test]
    fn an_error_within_an_answer_is_returned_with_its_status() {
        let at_once = "data: {\"error\":{\"message\":\"slow down\",\"code\":\"429\"}}\n\n";
        assert_eq!(stream(at_once), Err(NoToken::Error(Some(429))));
        assert_eq!(NoToken::Error(Some(429)).finding(), Finding::Throttled);
        assert_eq!(NoToken::Error(Some(404)).finding(), Finding::Misconfigured);
        let named = "event: error\ndata: {\"message\":\"out of memory\",\"status\":500}\n\n";
        assert_eq!(stream(named), Err(NoToken::Error(Some(500))));
        assert_eq!(json("{\"error\":\"no\"}"), Err(NoToken::Error(None)));
        let content = "data: {\"error\":{\"code\":200},\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
        assert_eq!(stream(content), Err(NoToken::Error(None)), "an error beside content is an error");
        assert_eq!(json("{\"error\":null,\"choices\":[{\"finish_reason\":\"length\"}]}"), Ok(()));
    }

    #[test]
    fn nothing_is_read_beyond_its_bounds() {
        let huge_line = format!("data: {}", "x".repeat(MAX_EVENT));
        assert_eq!(stream_in(1_000, &huge_line), Err(NoToken::LongEvent));
        let many_lines = format!("{}\n\n", "data: xxxxxxxx\n".repeat(MAX_EVENT / 8));
        assert_eq!(stream_in(1_000, &many_lines), Err(NoToken::LongEvent));
        let comments = ": alive\n\n".repeat(MAX_ANSWER / 8);
        assert_eq!(stream_in(1_000, &comments), Err(NoToken::TooLong));
        assert_eq!(stream_in(comments.len(), &comments), Err(NoToken::TooLong));
        let mut endless = Answer::new(Some("application/json"), None).unwrap();
        let pushed = std::iter::repeat_with(|| endless.push(&[b' '; 4096])).take_while(Result::is_ok).count();
        assert_eq!(pushed, MAX_ANSWER / 4096);
        assert!(endless.rest.len() <= MAX_ANSWER);
        let last = format!("{}data: {{\"choices\":[{{\"finish_reason\":\"length\"}}]}}\n\n", ": a\n\n".repeat(100));
        assert_eq!(stream(&last), Ok(()));
    }

    #[test]
    fn other_types_and_codings_are_refused_before_a_byte_is_read() {
        let refused = |kind, coding| Answer::new(kind, coding).map(drop).unwrap_err();
        for kind in [None, Some("text/html"), Some("text/plain"), Some("application/octet-stream"), Some("")] {
            assert_eq!(refused(kind, None), NoToken::Type, "{kind:?}");
        }
        for coding in ["gzip", "br", "gzip, identity"] {
            assert_eq!(refused(Some("text/event-stream"), Some(coding)), NoToken::Compressed);
        }
        assert!(Answer::new(Some("Text/Event-Stream;charset=utf-8"), Some(" identity ")).is_ok());
    }
}
