//! Reads how many tokens an answer used. Takes the bytes of a committed answer; returns a [`Usage`], and takes out of a
//! stream the event with it if only the edge asked for that event. Called by `proxy`.
//!
//! Answers tell their usage as `prompt_tokens` and `completion_tokens`, or `input_tokens` and `output_tokens`, or
//! `total_tokens` alone. Streams of responses tell it inside of `response`.

use memchr::memmem;

use crate::decide::json::{InvalidJson, Kind, Scan};

/// The tokens of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Usage {
    /// Of the prompt.
    pub(crate) prompt: u64,
    /// Of the answer.
    pub(crate) completion: u64,
}

impl Usage {
    /// All tokens.
    #[must_use]
    pub(crate) fn total(self) -> u64 {
        self.prompt.saturating_add(self.completion)
    }

    /// Reads the usage of a whole answer in JSON.
    #[must_use]
    pub(crate) fn of_answer(text: &[u8]) -> Option<Self> {
        read(core::str::from_utf8(text).ok()?).usage
    }
}

/// Follows the events of a stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct UsageWatch {
    /// Whether the event that only tells the usage is taken out.
    takes_out: bool,
    usage: Option<Usage>,
    /// The events with data.
    events: u64,
}

impl UsageWatch {
    /// Watches a stream. `takes_out`: the client didn't ask for the event that only tells the usage.
    #[must_use]
    pub(crate) fn new(takes_out: bool) -> Self {
        Self { takes_out, ..Self::default() }
    }

    /// What the stream has told.
    #[must_use]
    pub(crate) fn usage(&self) -> Option<Usage> {
        self.usage
    }

    /// About how many tokens of the answer were seen: events usually have one each.
    #[must_use]
    pub(crate) fn seen(&self) -> u64 {
        self.events
    }

    /// Takes bytes of the stream that end with an event, and returns those that the client gets.
    pub(crate) fn pass(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        self.events += memmem::find_iter(&bytes, b"data:").count() as u64;
        // Most events tell no usage, or a null.
        if memmem::find(&bytes, b"\"usage\"").is_none() {
            return bytes;
        }
        let mut start = 0;
        while let Some(length) = event_length(&bytes[start..]) {
            let end = start + length;
            let told = read_event(&bytes[start..end]);
            self.usage = told.usage.or(self.usage);
            if self.takes_out && told.usage.is_some() && told.is_only_usage {
                bytes.drain(start..end);
            } else {
                start = end;
            }
        }
        bytes
    }
}

/// The length of the first event: up to its empty line, or up to the end.
fn event_length(bytes: &[u8]) -> Option<usize> {
    if bytes.is_empty() {
        return None;
    }
    let ends = [b"\n\n".as_slice(), b"\r\n\r\n", b"\r\r"];
    let found = ends.iter().filter_map(|end| Some(memmem::find(bytes, end)? + end.len())).min();
    Some(found.unwrap_or(bytes.len()))
}

/// What one JSON text tells.
#[derive(Clone, Copy, Default)]
struct Told {
    usage: Option<Usage>,
    /// Whether it has empty `choices` and so tells nothing but its usage.
    is_only_usage: bool,
}

fn read_event(event: &[u8]) -> Told {
    let Ok(event) = core::str::from_utf8(event) else { return Told::default() };
    let data = event.split(['\n', '\r']).find_map(|line| line.strip_prefix("data:"));
    data.map(read).unwrap_or_default()
}

/// Reads a JSON text as far as it is one.
fn read(text: &str) -> Told {
    let mut told = Told::default();
    let mut scan = Scan::of_answer(text);
    if scan.kind() != Ok(Kind::Object) {
        return told;
    }
    let _ = scan.object(|key, value| {
        match (key.as_ref(), value.kind()?) {
            ("usage", Kind::Object) => told.usage = usage(value)?,
            ("choices", Kind::Array) => {
                let mut is_empty = true;
                value.array(|choice| {
                    is_empty = false;
                    choice.skip().map(drop)
                })?;
                told.is_only_usage = is_empty;
            }
            ("response", Kind::Object) => value.object(|key, value| match (key.as_ref(), value.kind()?) {
                ("usage", Kind::Object) => {
                    told.usage = usage(value)?;
                    Ok(())
                }
                _ => value.skip().map(drop),
            })?,
            _ => value.skip().map(drop)?,
        }
        Ok(())
    });
    told
}

/// Reads an object of numbers of tokens; `None` if it has none of those that are known.
fn usage(scan: &mut Scan<'_>) -> Result<Option<Usage>, InvalidJson> {
    let (mut prompt, mut completion, mut total) = (None, None, None);
    scan.object(|key, value| {
        let number = match value.kind()? {
            Kind::Number => value.text()?.parse::<u64>().ok(),
            _ => value.skip().map(|_| None)?,
        };
        match key.as_ref() {
            "prompt_tokens" | "input_tokens" => prompt = number,
            "completion_tokens" | "output_tokens" => completion = number,
            "total_tokens" => total = number,
            _ => {}
        }
        Ok(())
    })?;
    Ok(match (prompt, completion, total) {
        (None, None, None) => None,
        (Some(prompt), completion, total) => {
            let rest = || total.map_or(0, |total: u64| total.saturating_sub(prompt));
            Some(Usage { prompt, completion: completion.unwrap_or_else(rest) })
        }
        (None, completion, total) => {
            let completion = completion.unwrap_or(0);
            Some(Usage { prompt: total.map_or(0, |total: u64| total.saturating_sub(completion)), completion })
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONLY: &str = r#"data: {"id":"c","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3}}"#;
    const CONTENT: &str = r#"data: {"choices":[{"delta":{"content":"x"}}],"usage":null}"#;

    #[test]
    fn answers_tell_their_usage_in_several_ways() {
        let of = |text: &str| Usage::of_answer(text.as_bytes()).map(|usage| (usage.prompt, usage.completion));
        assert_eq!(
            of(r#"{"choices":[{}],"usage":{"prompt_tokens":7,"completion_tokens":5,"total_tokens":12}}"#),
            Some((7, 5))
        );
        assert_eq!(of(r#"{"output":[],"usage":{"input_tokens":7,"output_tokens":5,"x":{"y":1}}}"#), Some((7, 5)));
        assert_eq!(of(r#"{"data":[],"usage":{"total_tokens":12}}"#), Some((12, 0)));
        assert_eq!(of(r#"{"usage":{"prompt_tokens":7,"total_tokens":12}}"#), Some((7, 5)));
        for none in [
            "",
            "[]",
            "{",
            "{}",
            r#"{"usage":null}"#,
            r#"{"usage":{}}"#,
            r#"{"usage":{"prompt_tokens":-1}}"#,
            r#"{"x":{"usage":{"prompt_tokens":7}}}"#,
            r#"{"usage":{"prompt_tokens":1e99}}"#,
            "\u{7f}",
        ] {
            assert_eq!(of(none), None, "{none}");
        }
    }

    #[test]
    fn the_event_that_only_the_edge_asked_for_is_taken_out() {
        for end in ["\n\n", "\r\n\r\n", "\r\r"] {
            let stream = [CONTENT, end, ONLY, end, "data: [DONE]", end].concat();
            let mut watch = UsageWatch::new(true);
            let passed = watch.pass(stream.clone().into_bytes());
            assert_eq!(passed, [CONTENT, end, "data: [DONE]", end].concat().as_bytes(), "{end:?}");
            assert_eq!(watch.usage(), Some(Usage { prompt: 9, completion: 3 }));
            let mut watch = UsageWatch::new(false);
            assert_eq!(watch.pass(stream.clone().into_bytes()), stream.as_bytes(), "the client asked for it");
            assert_eq!((watch.usage().unwrap().total(), watch.seen()), (12, 3));
        }
    }

    #[test]
    fn an_event_with_content_stays_though_it_tells_the_usage() {
        let text = "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}],\"usage\":{\"total_tokens\":5}}\n\n";
        let mut watch = UsageWatch::new(true);
        assert_eq!(watch.pass(text.as_bytes().to_vec()), text.as_bytes());
        assert_eq!(watch.usage().unwrap().total(), 5);
        let done = "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"usage\":\
                    {\"input_tokens\":4,\"output_tokens\":6}}}\n\n";
        assert_eq!(watch.pass(done.as_bytes().to_vec()), done.as_bytes());
        assert_eq!(watch.usage(), Some(Usage { prompt: 4, completion: 6 }));
    }

    #[test]
    fn any_bytes_pass() {
        for bytes in [
            &b"\"usage\""[..],
            b"data: \"usage\"\n\n\xff\xfe\n\n",
            b"data:{\"usage\":{\"total_tokens\":1}",
            b"\n\n\n\"usage\"",
        ] {
            assert_eq!(UsageWatch::new(true).pass(bytes.to_vec()), bytes);
        }
    }
}
