//! Server-sent events. Takes the chunks of an endpoint's stream; returns the same bytes cut at the ends of events, and
//! the meaning of each event. Called by `run`, the state machine that drives the attempts of a request.
//!
//! Framing follows the WHATWG's *Server-sent events* §9.2.5. Lines end with LF, CRLF or CR. A leading byte-order mark
//! is skipped. An empty line ends an event, and so does a comment line before an event has begun. The events and the
//! bytes don't depend on how the bytes were split into chunks.

mod choices;
mod classify;
mod heartbeat;
mod shape;
pub(crate) mod single;

use choices::Choices;
pub(crate) use classify::Meaning;
#[cfg(test)]
use classify::meaning;
use memchr::memchr2;
use shape::Shape;

use crate::decide::usage::Usage;

/// The longest event that is held until it is complete, in bytes. A longer event is passed on in pieces, and only its
/// beginning is read.
pub(crate) const LONGEST_EVENT: usize = 1 << 20;

/// The events that one chunk completed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Framed {
    /// The bytes of complete events, unchanged.
    pub(crate) bytes: Vec<u8>,
    /// Where each event ends in `bytes`, and its meaning.
    pub(crate) events: Vec<(usize, Meaning)>,
}

/// Cuts a stream at the ends of events.
#[derive(Clone, Debug, Default)]
pub(crate) struct Framer {
    /// The bytes of an incomplete event.
    pending: Vec<u8>,
    /// How many bytes of `pending` were read.
    scanned: usize,
    /// Whether the line that `scanned` is in has any bytes.
    line_begun: bool,
    /// Whether the last byte was a CR. A LF after the CR belongs to the same line end.
    after_cr: bool,
    /// Whether the beginning of the stream was read. Only there a byte-order mark may stand.
    begun: bool,
    /// The meaning of the current event by its beginning, if the event is too long to be held and was partly passed on.
    torn: Option<Meaning>,
    /// The last event that carried content. An event of the same shape has the same meaning.
    shape: Shape,
    choices: Choices,
    /// The usage that the events have reported so far.
    usage: Usage,
}

impl Framer {
    /// Takes a chunk, and returns the events that are complete now. A chunk of complete events isn't copied.
    pub(crate) fn push(&mut self, chunk: Vec<u8>) -> Framed {
        let mut bytes = if self.pending.is_empty() {
            chunk
        } else {
            let mut pending = core::mem::take(&mut self.pending);
            pending.extend_from_slice(&chunk);
            pending
        };
        let mut events = Vec::new();
        let mut event_start = 0;
        let mut at = self.scanned;
        while let Some(&byte) = bytes.get(at) {
            if byte == b'\n' && self.after_cr {
                self.after_cr = false;
                at += 1;
                // A chunk ended inside the last CRLF of an event. The LF belongs to the bytes of that event.
                if at == event_start + 1 {
                    event_start = at;
                }
                continue;
            }
            if byte != b'\n' && byte != b'\r' {
                // Skips to the end of the line.
                self.after_cr = false;
                self.line_begun = true;
                at = memchr2(b'\n', b'\r', &bytes[at..]).map_or(bytes.len(), |length| at + length);
                continue;
            }
            self.after_cr = byte == b'\r';
            at += 1;
            let empty = !core::mem::take(&mut self.line_begun);
            // A comment between two events is passed on at once, because the next event may be a long time away.
            let is_comment = bytes.get(event_start) == Some(&b':') && self.torn.is_none();
            if empty || is_comment {
                if self.after_cr && bytes.get(at) == Some(&b'\n') {
                    self.after_cr = false;
                    at += 1;
                }
                let event = &bytes[event_start..at];
                let event = if core::mem::replace(&mut self.begun, true) { event } else { without_mark(event) };
                let meaning = match self.torn.take() {
                    Some(meaning) => meaning,
                    None if self.shape.is_of(event) => Meaning::Content,
                    None => self.read(event),
                };
                events.push((at, meaning));
                event_start = at;
            }
        }
        self.pending = bytes.split_off(event_start);
        self.scanned = self.pending.len();
        if self.pending.len() > LONGEST_EVENT {
            if self.torn.is_none() {
                let event = if self.begun { &self.pending } else { without_mark(&self.pending) };
                self.torn = Some(classify::beginning(event));
            }
            self.begun = true;
            bytes.append(&mut self.pending);
            self.scanned = 0;
        }
        Framed { bytes, events }
    }

    /// Reads an event whose shape differs from that of the last event with content.
    fn read(&mut self, event: &[u8]) -> Meaning {
        let meaning = classify::read_event(event, self.shape.forget(), &mut self.choices, &mut self.usage);
        if meaning == Meaning::Content {
            self.shape.learn(event);
        }
        meaning
    }

    /// Takes the bytes of an incomplete event. Nothing may be pushed afterwards.
    pub(crate) fn take_pending(&mut self) -> Vec<u8> {
        core::mem::take(&mut self.pending)
    }

    /// How many bytes of an incomplete event are held.
    #[must_use]
    pub(crate) fn held(&self) -> usize {
        self.pending.len()
    }

    /// Ends the stream. Some servers leave out the empty line after their last event. Such an event is still read, and
    /// returned with the missing line ends. An event that broke off is an error.
    pub(crate) fn end(&mut self) -> (Vec<u8>, Meaning) {
        let mut last = core::mem::take(&mut self.pending);
        self.scanned = 0;
        if self.is_torn() {
            return (Vec::new(), Meaning::Error);
        }
        if last.is_empty() {
            return (last, Meaning::Nothing);
        }
        let event = if core::mem::replace(&mut self.begun, true) { last.as_slice() } else { without_mark(&last) };
        let meaning = classify::read_event(event, self.shape.forget(), &mut self.choices, &mut self.usage);
        last.extend_from_slice(match last.last() {
            Some(b'\n') => b"\n",
            Some(b'\r') => b"\r",
            _ => b"\n\n",
        });
        (last, meaning)
    }

    /// The usage that the events have reported so far.
    #[must_use]
    pub(crate) fn usage(&self) -> Usage {
        self.usage
    }

    /// Whether the stream has at least one choice and at least `expected`, and each choice has a finish reason.
    #[must_use]
    pub(crate) fn is_answered(&self, expected: usize) -> bool {
        self.choices.are_finished(expected)
    }

    /// Whether part of an incomplete event was passed on. If another event were written now, the client would read it
    /// as a part of the incomplete event.
    #[must_use]
    pub(crate) fn is_torn(&self) -> bool {
        self.torn.is_some()
    }
}

/// Removes the byte-order mark from the first event of a stream.
pub(crate) fn without_mark(event: &[u8]) -> &[u8] {
    event.strip_prefix(b"\xef\xbb\xbf").unwrap_or(event)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::decide::testing::cut;

    fn frame(chunks: &[&[u8]]) -> (Vec<u8>, Vec<Meaning>, usize) {
        let mut framer = Framer::default();
        let (mut bytes, mut meanings) = (Vec::new(), Vec::new());
        for chunk in chunks {
            let framed = framer.push(chunk.to_vec());
            assert!(framed.events.iter().all(|(end, _)| *end <= framed.bytes.len()));
            bytes.extend(framed.bytes);
            meanings.extend(framed.events.into_iter().map(|(_, meaning)| meaning));
        }
        (bytes, meanings, framer.held())
    }

    const CONTENT: &[u8] = br#"data: {"choices":[{"delta":{"content":"x"}}]}"#;

    #[test]
    fn lines_end_with_lf_crlf_or_cr() {
        for end in ["\n", "\r\n", "\r"] {
            let text =
                [CONTENT, end.as_bytes(), end.as_bytes(), b"data: [DONE]", end.as_bytes(), end.as_bytes()].concat();
            let (bytes, meanings, held) = frame(&[&text]);
            assert_eq!(bytes, text, "{end:?}");
            assert_eq!(meanings, [Meaning::Content, Meaning::Done], "{end:?}");
            assert_eq!(held, 0);
        }
    }

    #[test]
    fn a_crlf_split_by_a_chunk_is_one_line_end() {
        let (bytes, meanings, held) = frame(&[b"data: [DONE]\r\n\r", b"\n", b": x\r", b"\n\r\n"]);
        assert_eq!(bytes, b"data: [DONE]\r\n\r\n: x\r\n\r\n");
        assert_eq!((meanings, held), (vec![Meaning::Done, Meaning::Nothing, Meaning::Nothing], 0));
    }

    #[test]
    fn a_comment_is_not_part_of_the_event_after_it() {
        let text = b": ping\r\n: \ndata: [DONE]\n: within\n\n";
        let (bytes, meanings, held) = frame(&[text]);
        assert_eq!(bytes, text);
        assert_eq!((meanings, held), (vec![Meaning::Nothing, Meaning::Nothing, Meaning::Done], 0));
        let (bytes, meanings, _) = frame(&[b": pi", b"ng\n"]);
        assert_eq!((bytes.as_slice(), meanings.as_slice()), (&b": ping\n"[..], &[Meaning::Nothing][..]));
    }

    #[test]
    fn an_incomplete_event_is_held() {
        let (bytes, meanings, held) = frame(&[b"data: [DONE]\n\ndata: {\"cho"]);
        assert_eq!((bytes.as_slice(), meanings.as_slice(), held), (&b"data: [DONE]\n\n"[..], &[Meaning::Done][..], 11));
    }

    #[test]
    fn a_byte_order_mark_is_not_part_of_the_first_event() {
        let (bytes, meanings, _) = frame(&[b"\xef\xbb", b"\xbfdata: [DONE]\n\n"]);
        assert_eq!(bytes, b"\xef\xbb\xbfdata: [DONE]\n\n");
        assert_eq!(meanings, [Meaning::Done]);
    }

    #[test]
    fn an_endless_event_passes_in_pieces() {
        let mut framer = Framer::default();
        let mut passed = 0;
        for _ in 0..40 {
            passed += framer.push(vec![b'x'; 100_000]).bytes.len();
            assert!(framer.held() <= LONGEST_EVENT);
        }
        assert!(framer.is_torn() && passed >= 3_000_000);
        let framed = framer.push(b"\n\ndata: [DONE]\n\n".to_vec());
        assert!(!framer.is_torn());
        assert_eq!(
            framed.events.iter().map(|(_, meaning)| *meaning).collect::<Vec<_>>(),
            [Meaning::Content, Meaning::Done]
        );
    }

    #[test]
    fn an_endless_event_is_the_last_if_its_type_is_that_of_a_last_event() {
        let long = "A".repeat(2_000_000);
        let reported = |text: String| {
            let mut framer = Framer::default();
            let pieces = text.as_bytes().chunks(50_000).flat_map(|chunk| framer.push(chunk.to_vec()).events);
            let meanings: Vec<Meaning> = pieces.map(|(_, meaning)| meaning).collect();
            assert!(!framer.is_torn());
            meanings
        };
        for (kind, expected) in [
            ("image_generation.completed", Meaning::Final),
            ("response.completed", Meaning::Completed),
            ("response.failed", Meaning::Failed),
            ("image_generation.partial_image", Meaning::Content),
            ("error", Meaning::Content),
        ] {
            for text in [
                format!("data: {{\"n\": 1, \"type\":\"{kind}\",\"b64_json\":\"{long}\"}}\n\n"),
                format!("\u{feff}data:{{\"type\":\"{kind}\",\"b64_json\":\"{long}\"}}\r\n\r\n"),
                format!("event: {kind}\ndata: {{\"b64_json\":\"{long}\",\"type\":\"{kind}\"}}\n\n"),
            ] {
                assert_eq!(reported(text), [expected], "{kind}");
            }
        }
        let inner =
            format!("data: {{\"item\":{{\"type\":\"response.completed\"}},\"x\":\"{long}\"}}\n\ndata: [DONE]\n\n");
        assert_eq!(reported(inner), [Meaning::Content, Meaning::Done]);
    }

    /// Events that the test changes at random.
    const SEEDS: &[&str] = &[
        concat!(
            r#"data: {"id":"c-1","object":"chat.completion.chunk","created":12,"choices":[{"index":0,"#,
            r#""delta":{"content":"ab"},"finish_reason":null}]}"#,
        ),
        concat!(
            r#"data: {"choices":[{"delta":{"role":"assistant","content":"é"}},{"text":"x","#,
            r#""logprobs":{"a":[1,-2.5e3,"y"]}}],"error":null}"#,
        ),
        "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"x\",\"n\":7}",
        "id: 7\ndata:{\"choices\":[{\"delta\":{\"tool_calls\":[{\"function\":{\"arguments\":\"{\\\"a\\\"\"}}]}}]}\n: \
         more",
        "data: {\"delta\":\"x\",\ndata: \"type\":\"y\"}",
    ];

    /// The pieces that the test inserts into events.
    const BITS: &[&str] = &[
        "",
        "",
        "",
        "",
        "\"",
        "\"\"",
        "\\",
        "\\\"",
        "\\u00",
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "0",
        "1e9",
        "-",
        ".",
        "null",
        "true",
        " ",
        "é",
        "\u{1}",
        "error",
        "type",
        "role",
        "\"error\":1,",
        "\"x\",\"y\"",
        "data",
        "event: error",
        "[DONE]",
    ];

    /// The framer reads some events, and compares the others with the last event. A compared event gets the same
    /// meaning as if it were read, whichever of its bytes are changed, inserted or left out.
    #[test]
    fn comparing_events_gives_the_same_meanings_as_reading_them() {
        let change = || (0..160usize, 0..6usize, proptest::sample::select(BITS));
        let event = (0..SEEDS.len(), proptest::collection::vec(change(), 0..3));
        let strategy =
            (proptest::collection::vec((event, 1..5usize), 1..5), proptest::collection::vec(1..90usize, 1..6));
        let alike = core::cell::Cell::new(0u32);
        let config = ProptestConfig { cases: 3_000, ..ProptestConfig::default() };
        proptest::test_runner::TestRunner::new(config)
            .run(&strategy, |(events, sizes)| {
                let mut text = Vec::new();
                for ((seed, changes), times) in events {
                    let mut event = SEEDS[seed].as_bytes().to_vec();
                    for (at, drop, new) in changes {
                        let at = at % event.len().max(1);
                        let end = (at + drop).min(event.len());
                        event.splice(at.min(end)..end, new.bytes());
                    }
                    for _ in 0..times {
                        text.extend_from_slice(SEEDS[seed].as_bytes());
                        text.extend_from_slice(b"\n\n");
                        text.extend_from_slice(&event);
                        text.extend_from_slice(b"\n\n");
                    }
                }
                let mut framer = Framer::default();
                for chunk in cut(&text, &sizes) {
                    let Framed { bytes, events } = framer.push(chunk.to_vec());
                    let mut start = 0;
                    for (end, reported) in events {
                        prop_assert_eq!(
                            reported,
                            meaning(&bytes[start..end]),
                            "{}",
                            String::from_utf8_lossy(&bytes[start..end])
                        );
                        alike.set(alike.get() + u32::from(framer.shape.is_of(&bytes[start..end])));
                        start = end;
                    }
                }
                Ok(())
            })
            .unwrap();
        assert!(alike.get() > 1_000);
    }

    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let line = prop_oneof![
            Just("data: [DONE]"),
            Just(": comment"),
            Just("event: error"),
            Just(r#"data: {"choices":[{"delta":{"role":"assistant"}}]}"#),
            Just(r#"data: {"choices":[{"delta":{"content":"é"}}]}"#),
            Just("data:{"),
            Just("data"),
            Just(""),
            Just("\u{feff}"),
        ];
        let end = prop_oneof![Just("\n"), Just("\r\n"), Just("\r")];
        proptest::collection::vec((line, end), 0..30)
            .prop_map(|lines| lines.into_iter().flat_map(|(line, end)| [line, end]).collect::<String>().into_bytes())
    }

    #[test]
    fn any_chunking_gives_the_same_events_and_bytes() {
        let config = ProptestConfig { cases: 2000, ..ProptestConfig::default() };
        let mut runner = proptest::test_runner::TestRunner::new(config);
        let strategy = (stream(), proptest::collection::vec(1..9usize, 1..200));
        let counted = core::cell::Cell::new(0u32);
        runner
            .run(&strategy, |(text, sizes)| {
                counted.set(counted.get() + 1);
                let whole = frame(&[&text]);
                let chunks = cut(&text, &sizes);
                prop_assert_eq!(&frame(&chunks), &whole);
                prop_assert_eq!(whole.0.len() + whole.2, text.len());
                prop_assert!(text.starts_with(&whole.0));
                Ok(())
            })
            .unwrap();
        println!("chunkings tried: {}", counted.get());
    }
}
