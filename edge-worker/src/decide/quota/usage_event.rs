//! Removes an event from a stream: the event that reports the used tokens, if the edge asked for this event and the
//! client didn't. Takes the bytes of a committed stream (whose endpoint can no longer change); returns the bytes that
//! the client gets. Called by `proxy`. [`crate::decide::usage`] reads the content of the event.

use memchr::memmem;

use crate::decide::json::{Kind, Scan};

/// Follows the events of a stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct UsageEvents {
    /// Whether the event that reports nothing but the usage is removed.
    takes_out: bool,
    /// The number of events with data so far.
    events: u64,
}

impl UsageEvents {
    /// Follows a stream. `takes_out`: the event that reports nothing but the usage is removed, because the client
    /// didn't ask for it.
    #[must_use]
    pub(crate) fn new(takes_out: bool) -> Self {
        Self { takes_out, ..Self::default() }
    }

    /// About how many tokens of the answer have passed: an event usually holds one token.
    #[must_use]
    pub(crate) fn seen(&self) -> u64 {
        self.events
    }

    /// Takes bytes of the stream that end where an event ends, and returns the bytes that the client gets.
    pub(crate) fn pass(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        self.events += memmem::find_iter(&bytes, b"data:").count() as u64;
        // Most events report no usage.
        if !self.takes_out || memmem::find(&bytes, b"\"usage\"").is_none() {
            return bytes;
        }
        let mut start = 0;
        while let Some(length) = event_length(&bytes[start..]) {
            let end = start + length;
            if has_only_usage(&bytes[start..end]) {
                bytes.drain(start..end);
            } else {
                start = end;
            }
        }
        bytes
    }
}

/// The length of the first event in bytes: up to its empty line, or up to the end of `bytes`.
fn event_length(bytes: &[u8]) -> Option<usize> {
    if bytes.is_empty() {
        return None;
    }
    let ends = [b"\n\n".as_slice(), b"\r\n\r\n", b"\r\r"];
    let first_end = ends.iter().filter_map(|end| Some(memmem::find(bytes, end)? + end.len())).min();
    Some(first_end.unwrap_or(bytes.len()))
}

/// Whether an event has an object `usage`, and an empty array `choices`.
fn has_only_usage(event: &[u8]) -> bool {
    let Ok(event) = core::str::from_utf8(event) else { return false };
    let Some(data) = event.split(['\n', '\r']).find_map(|line| line.strip_prefix("data:")) else { return false };
    let mut scan = Scan::of_answer(data);
    if scan.kind() != Ok(Kind::Object) {
        return false;
    }
    let (mut has_usage, mut is_empty) = (false, false);
    let read = scan.object(|key, value| {
        match (key.as_ref(), value.kind()?) {
            ("usage", Kind::Object) => has_usage = true,
            ("choices", Kind::Array) => {
                is_empty = true;
                return value.array(|choice| {
                    is_empty = false;
                    choice.skip().map(drop)
                });
            }
            _ => {}
        }
        value.skip().map(drop)
    });
    read.is_ok() && has_usage && is_empty
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONLY: &str = r#"data: {"id":"c","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3}}"#;
    const CONTENT: &str = r#"data: {"choices":[{"delta":{"content":"x"}}],"usage":null}"#;

    #[test]
    fn the_event_that_only_the_edge_asked_for_is_taken_out() {
        for end in ["\n\n", "\r\n\r\n", "\r\r"] {
            let stream = [CONTENT, end, ONLY, end, "data: [DONE]", end].concat();
            let mut events = UsageEvents::new(true);
            let passed = events.pass(stream.clone().into_bytes());
            assert_eq!(passed, [CONTENT, end, "data: [DONE]", end].concat().as_bytes(), "{end:?}");
            let mut events = UsageEvents::new(false);
            assert_eq!(events.pass(stream.clone().into_bytes()), stream.as_bytes(), "the client asked for the usage");
            assert_eq!(events.seen(), 3);
        }
    }

    #[test]
    fn all_other_events_stay() {
        let content = r#"data: {"choices":[{"delta":{"content":"x"}}],"usage":{"total_tokens":5}}"#;
        let done = "event: response.completed\ndata: {\"response\":{\"usage\":{\"input_tokens\":4}}}";
        let null = r#"data: {"choices":[],"usage":null}"#;
        let filter = r#"data: {"choices":[],"prompt_filter_results":[{"usage":{}}]}"#;
        for event in [content, done, null, filter, "data: \"usage\"", "data: {\"choices\":[],\"usage\":{"] {
            let text = [event, "\n\n"].concat();
            assert_eq!(UsageEvents::new(true).pass(text.clone().into_bytes()), text.as_bytes(), "{event}");
        }
        for bytes in [&b"\"usage\""[..], b"data: \"usage\"\n\n\xff\xfe\n\n", b"\n\n\n\"usage\""] {
            assert_eq!(UsageEvents::new(true).pass(bytes.to_vec()), bytes);
        }
    }
}
