//! Parses a large document piece by piece, with pauses for other work in between. Takes its text; returns the same
//! [`Node`] as [`Node::parse`], or `None`. Called by [`Node::parse_in_turns`].
//!
//! Brackets and commas show where the members of the outer object begin and end, and also the members or items inside
//! of them. Each of these pieces is then parsed on its own. If the text has a mistake, this parser gives up, and
//! [`Node::parse`] parses the whole text at once, because its error says what is wrong and where.

use super::Node;
use crate::turns::Turns;

/// The length of a text that is parsed at once, in bytes.
const SMALL: usize = 4 << 10;
/// How deep values may be nested. `serde_json` allows 128.
const MAX_DEPTH: usize = 100;

/// Parses a document piece by piece. `None` if the document is small or has a mistake, so that it must be parsed at
/// once.
pub(super) async fn parse(text: &[u8], turns: &mut Turns<'_>) -> Option<Node> {
    if text.len() <= SMALL {
        return None;
    }
    let mut scan = Scan { text, at: 0 };
    let document = container(&mut scan, turns, 2).await?;
    scan.skip_space();
    (scan.at == text.len()).then_some(document)
}

/// Parses the value that begins at the scanner's position. If it is large and holds other values, these are parsed one
/// by one, down to `levels` levels.
async fn value(scan: &mut Scan<'_>, turns: &mut Turns<'_>, levels: usize) -> Option<Node> {
    let begin = scan.at;
    if levels > 0 && matches!(scan.peek()?, b'{' | b'[') {
        // Skips the value to find out whether it is small.
        match scan.skip_value(SMALL) {
            SkipOutcome::Whole => {}
            SkipOutcome::TooLong => {
                scan.at = begin;
                return Box::pin(container(scan, turns, levels)).await;
            }
            SkipOutcome::Broken => return None,
        }
    } else if !matches!(scan.skip_value(usize::MAX), SkipOutcome::Whole) {
        return None;
    }
    let piece = scan.text.get(begin..scan.at)?;
    turns.spend(piece.len()).await;
    serde_json::from_slice(piece).ok()
}

/// Parses the object or list that begins at the scanner's position, value by value.
async fn container(scan: &mut Scan<'_>, turns: &mut Turns<'_>, levels: usize) -> Option<Node> {
    scan.skip_space();
    let is_object = match scan.next()? {
        b'{' => true,
        b'[' => false,
        _ => return None,
    };
    let (mut entries, mut items) = (Vec::new(), Vec::new());
    scan.skip_space();
    let end = if is_object { b'}' } else { b']' };
    if scan.peek()? == end {
        scan.at += 1;
        return Some(if is_object { Node::Object(entries) } else { Node::Array(items) });
    }
    loop {
        scan.skip_space();
        if is_object {
            let key = scan.key()?;
            scan.skip_space();
            (scan.next()? == b':').then_some(())?;
            scan.skip_space();
            entries.push((key, value(scan, turns, levels - 1).await?));
        } else {
            items.push(value(scan, turns, levels - 1).await?);
        }
        scan.skip_space();
        match scan.next()? {
            b',' => {}
            byte if byte == end => break,
            _ => return None,
        }
    }
    Some(if is_object { Node::Object(entries) } else { Node::Array(items) })
}

/// The result of skipping a value.
enum SkipOutcome {
    /// The value was skipped.
    Whole,
    /// The value is longer than allowed.
    TooLong,
    /// The text isn't JSON.
    Broken,
}

/// A position in the text.
struct Scan<'t> {
    text: &'t [u8],
    at: usize,
}

impl Scan<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    /// Reads the string that begins here.
    fn key(&mut self) -> Option<String> {
        let begin = self.at;
        (self.next()? == b'"').then_some(())?;
        self.skip_string()?;
        serde_json::from_slice(self.text.get(begin..self.at)?).ok()
    }

    /// Skips the rest of a string after its opening quote.
    fn skip_string(&mut self) -> Option<()> {
        loop {
            let rest = self.text.get(self.at..)?;
            let offset = rest.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
            let is_end = rest.get(offset) == Some(&b'"');
            // A byte after a backslash can't end the string.
            self.at += offset + if is_end { 1 } else { 2 };
            if is_end {
                return Some(());
            }
        }
    }

    /// Skips a value, unless it is longer than `longest` bytes. Doesn't check that the value is valid JSON.
    fn skip_value(&mut self, longest: usize) -> SkipOutcome {
        let begin = self.at;
        let mut depth = 0_usize;
        while let Some(byte) = self.peek() {
            if self.at - begin > longest {
                return SkipOutcome::TooLong;
            }
            match byte {
                b',' | b'}' | b']' if depth == 0 => break,
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            self.at += 1;
            if byte == b'"' && self.skip_string().is_none() || depth > MAX_DEPTH {
                return SkipOutcome::Broken;
            }
            if depth == 0 && matches!(byte, b'"' | b'}' | b']') {
                break;
            }
        }
        SkipOutcome::Whole
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::turns::at_once;

    /// The results of both parsers for a text. White space is added, so that the text counts as large.
    fn both(text: &str) -> (Option<Node>, Option<Node>) {
        let text = format!("{text}{}", " ".repeat(SMALL));
        let whole = serde_json::from_str(&text).ok();
        (at_once(parse(text.as_bytes(), &mut Turns::unbroken())), whole)
    }

    #[test]
    fn pieces_are_the_same_as_the_whole() {
        let long = "x".repeat(2 * SMALL);
        for text in [
            r#"{}"#.to_owned(),
            r#" { "a" : 1 , "a" : [ ] , "b\u0022" : { "c" : [ 1 , { } , "}" , "\\" ] } } "#.to_owned(),
            format!(r#"{{"a":{{"b":["{long}",{{"c":1}}],"d":{{"e":"{long}"}}}},"f":["{long}", 2 , [3]]}}"#),
            r#"{"a":[],"b":true,"c":null,"d":-1.5e3}"#.to_owned(),
        ] {
            let (pieces, whole) = both(&text);
            assert!(pieces.is_some(), "{text:.60}");
            assert_eq!(pieces, whole, "{text:.60}");
        }
    }

    #[test]
    fn invalid_documents_are_left_to_the_other_parser() {
        for text in [
            "",
            "[1",
            "{",
            "}",
            "{]",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            r#"{,}"#,
            r#"{"a":1 2}"#,
            r#"{"a":1}}"#,
            r#"{"a":1}{"#,
            r#"{"a":[}]}"#,
            r#"{"a":"\"}"#,
            r#"{'a':1}"#,
            r#"{"a":01}"#,
            "{\"a\":\"\n\"}",
            r#"{"a":1;"b":2}"#,
            r#"{1:2}"#,
            r#"{"a":nul}"#,
            r#"{"a":1,,"b":2}"#,
            r#"{"a" 1}"#,
        ] {
            let (pieces, whole) = both(text);
            assert_eq!((pieces, whole), (None, None), "{text}");
        }
        let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(200), "]".repeat(200));
        assert_eq!(both(&deep), (None, None));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

        /// Random texts of the characters that JSON uses. Some of them are documents.
        #[test]
        fn no_text_is_read_differently(
            parts in proptest::collection::vec(prop_oneof![
                Just("{".to_owned()), Just("}".to_owned()), Just("[".to_owned()), Just("]".to_owned()),
                Just(",".to_owned()), Just(":".to_owned()), Just("\"".to_owned()), Just("\\".to_owned()),
                Just("1".to_owned()), Just(" ".to_owned()), Just("\"a\":1".to_owned()), Just("\"k\":{}".to_owned()),
                Just("\"l\":[1,2]".to_owned()), Just(format!("\"m\":\"{}\"", "y".repeat(SMALL))),
                Just(format!("{{\"n\":[\"{}\"]}}", "z".repeat(SMALL))), Just("null".to_owned()),
            ], 0..12),
            is_wrapped in any::<bool>(),
        ) {
            let inner = parts.concat();
            let (pieces, whole) = both(&if is_wrapped { format!("{{{inner}}}") } else { inner });
            if pieces.is_some() {
                prop_assert_eq!(pieces, whole);
            } else if let Some(Node::Object(entries)) = whole {
                prop_assert!(false, "not read in pieces: {:?}", entries.len());
            }
        }
    }
}
