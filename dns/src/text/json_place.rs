//! Finds places in JSON texts. Takes a text and a JSON pointer (RFC 6901), returns a line and a column. Called for
//! errors of the rules.
//!
//! The text was parsed before, so this scanner doesn't check it. If the text isn't valid JSON, it returns no place, or
//! the last place that it found.

use std::ops::Range;

/// A place in a text. Lines and columns are counted from 1. A column is one character: a tab counts as one, and a
/// byte-order mark isn't counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// The line.
    pub(crate) line: usize,
    /// The column.
    pub(crate) column: usize,
}

/// The place of the value that a pointer names: where its key begins, or for an element of a list, where its value
/// begins. If there is no such value, the place of the innermost object or list around it. If a key stands twice, the
/// last one counts.
pub(crate) fn find(text: &[u8], pointer: &str) -> Place {
    let start = if text.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    let mut scanner = Scanner { text, at: start };
    scanner.space();
    let mut innermost = scanner.at;
    for token in pointer.split('/').skip(1) {
        let token = token.replace("~1", "/").replace("~0", "~");
        match scanner.member(&token) {
            Some((place, value)) => (innermost, scanner.at) = (place, value),
            None => break,
        }
    }
    place_of(text, start, innermost)
}

/// The bytes of the value that a pointer names, without white space around it.
pub(crate) fn value_at(text: &[u8], pointer: &str) -> Option<Range<usize>> {
    let mut scanner = Scanner { text, at: if text.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 } };
    scanner.space();
    for token in pointer.split('/').skip(1) {
        let token = token.replace("~1", "/").replace("~0", "~");
        scanner.at = scanner.member(&token)?.1;
    }
    let start = scanner.at;
    scanner.peek()?;
    scanner.value()?;
    let end = text.get(start..scanner.at)?.iter().rposition(|byte| !byte.is_ascii_whitespace())?;
    Some(start..start + end + 1)
}

/// The line and column of an offset.
fn place_of(text: &[u8], start: usize, at: usize) -> Place {
    let before = text.get(start..at).unwrap_or_default();
    // CR LF is one end of a line, and so is CR or LF alone.
    let ends = before.iter().enumerate().filter(|(index, byte)| match byte {
        b'\n' => true,
        b'\r' => before.get(index + 1).or_else(|| text.get(at)) != Some(&b'\n'),
        _ => false,
    });
    let (line, last) = ends.fold((1, None), |(line, _), (index, _)| (line + 1, Some(index)));
    let of_line = before.get(last.map_or(0, |last| last + 1)..).unwrap_or_default();
    Place { line, column: 1 + String::from_utf8_lossy(of_line).chars().count() }
}

struct Scanner<'t> {
    text: &'t [u8],
    at: usize,
}

impl Scanner<'_> {
    /// Finds the member of that name, or the element of that index, in the value that begins here. Returns where the
    /// member's key and its value begin; for an element, both are where its value begins.
    fn member(&mut self, token: &str) -> Option<(usize, usize)> {
        let (mut item, mut index) = (None, 0_usize);
        match self.peek()? {
            b'{' => loop {
                self.at += 1;
                self.space();
                if self.peek()? == b'}' {
                    return item;
                }
                let key = self.at;
                self.string()?;
                let name: Option<String> = serde_json::from_slice(self.text.get(key..self.at)?).ok();
                self.space();
                self.at += 1; // the colon
                self.space();
                if name.as_deref() == Some(token) {
                    item = Some((key, self.at));
                }
                self.value()?;
                self.space();
                if self.peek()? != b',' {
                    return item;
                }
            },
            b'[' => loop {
                self.at += 1;
                self.space();
                if self.peek()? == b']' {
                    return None;
                }
                if index.to_string() == token {
                    return Some((self.at, self.at));
                }
                self.value()?;
                self.space();
                index += 1;
                if self.peek()? != b',' {
                    return None;
                }
            },
            _ => None,
        }
    }

    /// Goes to the end of the value that begins here, without recursion.
    fn value(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            match self.peek()? {
                b'"' => self.string()?,
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' => {
                    depth = depth.checked_sub(1)?;
                    self.at += 1;
                }
                b',' | b':' if depth > 0 => self.at += 1,
                b',' | b':' => return Some(()),
                _ => {
                    let is_plain = |byte: &u8| !b"\"{}[],: \t\r\n".contains(byte);
                    self.at += self.text.get(self.at..)?.iter().take_while(|byte| is_plain(byte)).count();
                }
            }
            if depth == 0 {
                return Some(());
            }
            self.space();
        }
    }

    /// Goes to the end of the string that begins here.
    fn string(&mut self) -> Option<()> {
        self.at += 1;
        loop {
            match self.peek()? {
                b'"' => break,
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        Some(())
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, pointer: &str) -> (usize, usize) {
        let Place { line, column } = find(text.as_bytes(), pointer);
        (line, column)
    }

    #[test]
    fn a_pointer_leads_to_its_key_or_element() {
        let text = "{\n  \"a\": [1, {\"b/c\": \"x, ]}\\\"\"}, [[], {}]],\n\t\"é\": {\"d\": null, \"e\": -1.5e3}\n}";
        assert_eq!((at(text, ""), at(text, "/a")), ((1, 1), (2, 3)));
        assert_eq!((at(text, "/a/0"), at(text, "/a/1")), ((2, 9), (2, 12)));
        assert_eq!((at(text, "/a/1/b~1c"), at(text, "/a/2/1")), ((2, 13), (2, 37)));
        assert_eq!((at(text, "/é/d"), at(text, "/é/e")), ((3, 8), (3, 19)));
        // For a missing value, the place is that of the object or list that could hold it.
        assert_eq!((at(text, "/é/missing/deeper"), at(text, "/a/7"), at(text, "/none")), ((3, 2), (2, 3), (1, 1)));
    }

    #[test]
    fn a_pointer_leads_to_its_value() {
        let text = r#"{ "a" : 17 , "b": {"c": "x,y" }}"#;
        let value = |pointer: &str| value_at(text.as_bytes(), pointer).map(|range| &text[range]);
        assert_eq!((value("/a"), value("/b"), value("/b/c")), (Some("17"), Some(r#"{"c": "x,y" }"#), Some(r#""x,y""#)));
        assert_eq!((value("/d"), value("/a/b"), value("")), (None, None, Some(text)));
        for length in 0..text.len() {
            let _ = value_at(&text.as_bytes()[..length], "/b/c");
            let _ = value_at(&text.as_bytes()[length..], "/b/c");
        }
    }

    #[test]
    fn every_kind_of_line_end_and_a_mark_are_counted_right() {
        for end in ["\n", "\r\n", "\r"] {
            let text = format!("\u{feff}{{{end}\"日本\": 1,{end}{end}\t\"b\": {{ \"c\": 2 }} }}");
            assert_eq!((at(&text, ""), at(&text, "/日本"), at(&text, "/b/c")), ((1, 1), (2, 1), (4, 9)), "{end:?}");
        }
    }

    #[test]
    fn of_duplicates_the_last_is_meant_and_escapes_are_understood() {
        let text = "{ \"a\": { \"x\": 1 },\n \"\\u0061\": { \"x\": 2,\n \"x\": 3 } }";
        assert_eq!((at(text, "/a"), at(text, "/a/x")), ((2, 2), (3, 2)));
    }

    #[test]
    fn broken_text_panics_nowhere() {
        let text = "{ \"a\": [ { \"b\\\"\": \"c\" }, 1 ], \"d\": \"\\u00e9\" }";
        for length in 0..text.len() {
            for pointer in ["", "/a/0/b\"", "/a/1", "/d/x", "/"] {
                let _ = find(&text.as_bytes()[..length], pointer);
                let _ = find(&text.as_bytes()[length..], pointer);
            }
        }
    }
}
