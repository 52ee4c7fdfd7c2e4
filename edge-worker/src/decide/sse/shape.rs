//! Compares an event with the last event that carried content. Says whether both have the same shape, and therefore the
//! same meaning. Called by `sse` before it reads an event.
//!
//! Most events of a stream differ from the event before only in a word. Comparing two events is several times cheaper
//! than reading one.

use core::ops::Range;

use crate::decide::json::{self, Kind};

/// The longest event that is remembered, in bytes.
const LONGEST: usize = 4_096;
/// How many values of an event may differ.
const MAX_FREE: usize = 64;

/// A value that may be replaced by another value of its kind without changing the event's meaning.
#[derive(Clone, PartialEq, Eq, Debug)]
struct FreeValue {
    /// The range of the value in the event. The range of a string includes the quotation marks.
    range: Range<usize>,
    is_number: bool,
    /// Whether the empty string would change the meaning.
    is_content: bool,
}

/// The values of an event that may differ, in order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct FreeValues {
    values: Vec<FreeValue>,
    /// The position in the event where its data begins. Noted ranges count from there.
    base: usize,
}

impl FreeValues {
    /// Forgets all values, and sets the position in the event where its data begins.
    pub(super) fn begin(&mut self, base: usize) {
        self.base = base;
        self.values.clear();
    }

    /// Notes a string or a number that may differ. With `is_content`, a string in its place must not be empty.
    pub(super) fn note(&mut self, kind: Kind, range: Range<usize>, is_content: bool) {
        let is_number = kind == Kind::Number;
        if (is_number || kind == Kind::String) && self.values.len() < MAX_FREE {
            let range = range.start + self.base..range.end + self.base;
            self.values.push(FreeValue { range, is_number, is_content });
        }
    }
}

/// An event that carried content. The default matches no event.
#[derive(Clone, Debug, Default)]
pub(super) struct Shape {
    event: Vec<u8>,
    free: FreeValues,
}

impl Shape {
    /// Forgets the event, and returns the collection for the values of the next one. Until [`Shape::learn`] is called,
    /// no event matches.
    pub(super) fn forget(&mut self) -> &mut FreeValues {
        self.event.clear();
        self.free.begin(0);
        &mut self.free
    }

    /// Remembers an event whose values were noted.
    pub(super) fn learn(&mut self, event: &[u8]) {
        if event.len() <= LONGEST {
            self.event.extend_from_slice(event);
        }
    }

    /// Whether an event equals the remembered one except for values that may differ.
    pub(super) fn is_of(&self, event: &[u8]) -> bool {
        if self.event.is_empty() {
            return false;
        }
        let mut free = self.free.values.iter();
        let (mut mine, mut theirs) = (0, 0);
        loop {
            let same = common(&self.event[mine..], &event[theirs..]);
            (mine, theirs) = (mine + same, theirs + same);
            if mine == self.event.len() {
                return theirs == event.len();
            }
            // Both texts may differ right after the remembered number, because the number in `event` may be longer.
            let Some(value) = free.find(|value| mine < value.range.end + usize::from(value.is_number)) else {
                return false;
            };
            let Some(begun) = mine.checked_sub(value.range.start) else { return false };
            let start = theirs - begun;
            let end = if value.is_number { json::number_end(event, start) } else { json::string_end(event, start) };
            let Some(end) = end else { return false };
            let fits = if value.is_content { end - start > 2 } else { true };
            if !fits || core::str::from_utf8(&event[start..end]).is_err() {
                return false;
            }
            (mine, theirs) = (value.range.end, end);
        }
    }
}

/// How many bytes two texts have in common at their beginning. Compares eight bytes at a time.
fn common(a: &[u8], b: &[u8]) -> usize {
    let length = a.len().min(b.len());
    let (a, b) = (&a[..length], &b[..length]);
    let (eights, others) = (a.as_chunks::<8>().0, b.as_chunks::<8>().0);
    let differs = |(left, right): (&[u8; 8], &[u8; 8])| u64::from_ne_bytes(*left) != u64::from_ne_bytes(*right);
    let from = 8 * eights.iter().zip(others).position(differs).unwrap_or(eights.len());
    from + a[from..].iter().zip(&b[from..]).take_while(|(left, right)| left == right).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;

    use super::*;
    use crate::decide::sse::choices::Choices;
    use crate::decide::sse::classify::{Meaning, meaning, read_event};
    use crate::decide::usage::Usage;

    fn read(event: &str, shape: &mut Shape) -> Meaning {
        read_event(event.as_bytes(), shape.forget(), &mut Choices::default(), &mut Usage::default())
    }

    fn shape_of(event: &str) -> Shape {
        let mut shape = Shape::default();
        assert_eq!(read(event, &mut shape), Meaning::Content, "{event}");
        shape.learn(event.as_bytes());
        shape
    }

    #[test]
    fn an_event_with_another_word_has_the_shape() {
        let shape = shape_of(
            "data: {\"id\":\"c-1\",\"created\":12,\"choices\":[{\"index\":0,\"delta\":{\"content\":\"abc\"}}]}\n\n",
        );
        let event = |id: &str, created: &str, content: &str| {
            format!(
                "data: {{\"id\":{id},\"created\":{created},\
                 \"choices\":[{{\"index\":0,\"delta\":{{\"content\":{content}}}}}]}}\n\n"
            )
        };
        for content in ["\"abc\"", "\"abcd\"", "\"ab\"", "\" \\n\\\"\\u00e9\"", "\"é\"", "\"}]}\""] {
            assert!(shape.is_of(event("\"c-1\"", "12", content).as_bytes()), "{content}");
        }
        for (id, created) in [("\"\"", "12"), ("\"c-2\"", "123"), ("\"c\"", "1"), ("\"c-1\"", "-1.5e400")] {
            assert!(shape.is_of(event(id, created, "\"x\"").as_bytes()), "{id} {created}");
        }
        for content in ["\"\"", "null", "[]", "\"\\x\"", "\"a\nb\"", "\"a", "7", "\"a\"\"b\"", "\"a\",\"role\":\"b\""] {
            assert!(!shape.is_of(event("\"c-1\"", "12", content).as_bytes()), "{content}");
        }
        for created in ["", "01", "1.", "\"12\"", "12 ", "null"] {
            assert!(!shape.is_of(event("\"c-1\"", created, "\"abc\"").as_bytes()), "{created}");
        }
        let mut invalid = event("\"c-1\"", "12", "\"xx\"").into_bytes();
        let at = invalid.iter().position(|&byte| byte == b'x').unwrap();
        invalid[at] = 0xff;
        assert!(!shape.is_of(&invalid));
    }

    #[test]
    fn values_that_decide_the_meaning_may_not_differ() {
        let shape = shape_of("event: a\ndata: {\"type\":\"response.output_text.delta\",\"n\":1,\"delta\":\"x\"}\n\n");
        assert!(shape.is_of(b"event: a\ndata: {\"type\":\"response.output_text.delta\",\"n\":22,\"delta\":\"\"}\n\n"));
        for other in [
            "event: a\ndata: {\"type\":\"response.created\",\"n\":1,\"delta\":\"x\"}\n\n",
            "event: error\ndata: {\"type\":\"response.output_text.delta\",\"n\":1,\"delta\":\"x\"}\n\n",
            "event: a\ndata: {\"type\":\"response.output_text.delta\",\"n\":1,\"error\":\"x\"}\n\n",
        ] {
            assert!(!shape.is_of(other.as_bytes()), "{other}");
        }
        // If data spans several lines, its values have other positions in the data than in the event.
        let lines = shape_of("data: {\"a\":1,\ndata: \"b\":\"x\"}\n\n");
        assert!(lines.is_of(b"data: {\"a\":1,\ndata: \"b\":\"x\"}\n\n"));
        assert!(!lines.is_of(b"data: {\"a\":2,\ndata: \"b\":\"x\"}\n\n"));
        assert!(!Shape::default().is_of(b""));
    }

    /// If two events have the same shape, they have the same meaning when they are read.
    #[test]
    fn the_same_shape_means_the_same() {
        let value = || {
            prop_oneof![
                r#""[a"\\n]{0,3}""#,
                "[0-9.e-]{1,3}",
                Just("null".to_owned()),
                Just("\"x\"".to_owned()),
                Just("\"\"".to_owned()),
                Just("[{\"function\":{\"arguments\":\"x\"}}]".to_owned()),
                Just("{\"content\":\"x\"}".to_owned()),
                Just("[{\"delta\":{\"content\":\"x\",\"role\":\"y\"}}]".to_owned()),
                Just("[{\"text\":\"x\",\"finish_reason\":null}]".to_owned()),
            ]
        };
        const KEYS: &[&str] = &["type", "object", "error", "choices", "id", "delta", "model", "n"];
        let key = || proptest::sample::select(KEYS);
        let event = proptest::collection::vec((key(), value()), 1..4);
        let change = (0..4usize, value());
        let (tried, alike) = (core::cell::Cell::new(0u32), core::cell::Cell::new(0u32));
        TestRunner::new(ProptestConfig::with_cases(20_000))
            .run(&(event, proptest::collection::vec(change, 0..2), any::<bool>()), |(fields, changes, crlf)| {
                let write = |fields: &[(&str, String)]| {
                    let fields: Vec<_> = fields.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
                    format!("data: {{{}}}{}", fields.join(","), if crlf { "\r\n\r\n" } else { "\n\n" })
                };
                let mut other = fields.clone();
                for (at, value) in changes {
                    let at = at % other.len();
                    other[at].1 = value;
                }
                let (first, second) = (write(&fields), write(&other));
                tried.set(tried.get() + 1);
                let mut shape = Shape::default();
                if read(&first, &mut shape) == Meaning::Content {
                    shape.learn(first.as_bytes());
                    prop_assert!(shape.is_of(first.as_bytes()), "{}", first);
                    if shape.is_of(second.as_bytes()) {
                        alike.set(alike.get() + 1);
                        prop_assert_eq!(meaning(second.as_bytes()), Meaning::Content, "{} {}", first, second);
                    }
                }
                Ok(())
            })
            .unwrap();
        println!("events compared: {}, alike: {}", tried.get(), alike.get());
        assert!(alike.get() > 100);
    }
}
