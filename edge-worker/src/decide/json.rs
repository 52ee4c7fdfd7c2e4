//! A strict JSON scanner. Takes a text; returns byte ranges and strings of the values that the caller asks for. Called
//! by `body`, `sse` and others.
//!
//! Numbers are never converted, so `1e400` and 2^70 survive. Skipped values cost no allocation. What RFC 8259 doesn't
//! allow is an error, because a text that two readers understand differently would evade inspection.

use core::ops::Range;
use std::borrow::Cow;

use memchr::memchr2_iter;

/// How deep arrays and objects may nest, as in serde_json.
const DEEPEST: u8 = 128;

/// The byte at which a text stops being JSON.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct InvalidJson {
    /// The position, from 0.
    pub(crate) at: usize,
}

/// The kind of a value, known from its first byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// `{…}`
    Object,
    /// `[…]`
    Array,
    /// `"…"`
    String,
    /// A number.
    Number,
    /// `true`
    True,
    /// `false`
    False,
    /// `null`
    Null,
}

/// A position in a JSON text. Every method that reads a value moves the position behind it.
#[derive(Clone, Debug)]
pub(crate) struct Scan<'a> {
    text: &'a [u8],
    /// The same text if it is known to be UTF-8, else empty.
    checked: &'a str,
    at: usize,
    depth: u8,
    /// Whether `NaN`, `Infinity` and `-Infinity` are numbers.
    has_odd_numbers: bool,
}

impl<'a> Scan<'a> {
    /// Starts at the beginning of a text. A byte-order mark isn't skipped, because most readers refuse it.
    #[must_use]
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text: text.as_bytes(), checked: text, at: 0, depth: 0, has_odd_numbers: false }
    }

    /// Starts at the beginning of an endpoint's answer. Python writes and reads `NaN`, `Infinity` and `-Infinity`,
    /// which aren't JSON, so they are allowed here. In a request they are not.
    #[must_use]
    pub(crate) fn of_answer(text: &'a str) -> Self {
        Self { has_odd_numbers: true, ..Self::new(text) }
    }

    /// The position in bytes.
    #[must_use]
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// Whether these bytes are at a range that was read.
    #[must_use]
    pub(crate) fn is_at(&self, range: Range<usize>, bytes: &[u8]) -> bool {
        self.text.get(range) == Some(bytes)
    }

    /// The kind of the next value.
    ///
    /// # Errors
    /// If no value begins here.
    pub(crate) fn kind(&mut self) -> Result<Kind, InvalidJson> {
        self.skip_space();
        match self.text.get(self.at) {
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::Array),
            Some(b'"') => Ok(Kind::String),
            Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
            Some(b't') => Ok(Kind::True),
            Some(b'f') => Ok(Kind::False),
            Some(b'n') => Ok(Kind::Null),
            Some(b'N' | b'I') if self.has_odd_numbers => Ok(Kind::Number),
            _ => self.broken(),
        }
    }

    /// Skips a value, and returns its range.
    ///
    /// # Errors
    /// If it isn't JSON.
    pub(crate) fn skip(&mut self) -> Result<Range<usize>, InvalidJson> {
        let kind = self.kind()?;
        let start = self.at;
        match kind {
            Kind::Object => self.object(|_, value| value.skip().map(drop))?,
            Kind::Array => self.array(|value| value.skip().map(drop))?,
            Kind::String => self.raw_string().map(drop)?,
            Kind::Number => self.number()?,
            Kind::True => self.literal(b"true")?,
            Kind::False => self.literal(b"false")?,
            Kind::Null => self.literal(b"null")?,
        }
        Ok(start..self.at)
    }

    /// Reads a value, and returns its text unchanged.
    ///
    /// # Errors
    /// If it isn't JSON.
    pub(crate) fn text(&mut self) -> Result<&'a str, InvalidJson> {
        let range = self.skip()?;
        self.checked.get(range).ok_or(InvalidJson { at: self.at })
    }

    /// The text between a position and here.
    #[must_use]
    pub(crate) fn since(&self, start: usize) -> &'a str {
        self.checked.get(start..self.at).unwrap_or_default()
    }

    /// Reads a string, unescaped. A lone surrogate becomes U+FFFD.
    ///
    /// # Errors
    /// If the next value isn't a string.
    pub(crate) fn string(&mut self) -> Result<Cow<'a, str>, InvalidJson> {
        self.skip_space();
        let (range, escaped) = self.raw_string()?;
        let raw = self.checked.get(range).ok_or(InvalidJson { at: self.at })?;
        if !escaped {
            return Ok(Cow::Borrowed(raw));
        }
        // An image of tens of megabytes may hold escapes (`\/`). If there is no memory for a second copy, only this
        // request fails.
        let mut out = String::new();
        out.try_reserve_exact(raw.len()).map_err(|_| InvalidJson { at: self.at })?;
        unescape(raw, &mut out);
        Ok(Cow::Owned(out))
    }

    /// Reads an object. Calls `each` with every key, at its value, which `each` has to read.
    ///
    /// # Errors
    /// If the next value isn't an object, or `each` fails.
    pub(crate) fn object(
        &mut self,
        mut each: impl FnMut(Cow<'a, str>, &mut Self) -> Result<(), InvalidJson>,
    ) -> Result<(), InvalidJson> {
        self.enter(b'{')?;
        if self.next_is(b'}') {
            self.leave();
            return Ok(());
        }
        loop {
            let key = self.string()?;
            self.expect(b':')?;
            each(key, self)?;
            if !self.next_is(b',') {
                break;
            }
        }
        self.expect(b'}')?;
        self.leave();
        Ok(())
    }

    /// Reads an array. Calls `each` at every item, which `each` has to read.
    ///
    /// # Errors
    /// If the next value isn't an array, or `each` fails.
    pub(crate) fn array(
        &mut self,
        mut each: impl FnMut(&mut Self) -> Result<(), InvalidJson>,
    ) -> Result<(), InvalidJson> {
        self.enter(b'[')?;
        if self.next_is(b']') {
            self.leave();
            return Ok(());
        }
        loop {
            each(self)?;
            if !self.next_is(b',') {
                break;
            }
        }
        self.expect(b']')?;
        self.leave();
        Ok(())
    }

    /// Makes sure that nothing but white space follows.
    ///
    /// # Errors
    /// If something does.
    pub(crate) fn end(&mut self) -> Result<(), InvalidJson> {
        self.skip_space();
        if self.at == self.text.len() { Ok(()) } else { self.broken() }
    }

    fn broken<T>(&self) -> Result<T, InvalidJson> {
        Err(InvalidJson { at: self.at })
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.text.get(self.at) {
            self.at += 1;
        }
    }

    fn next_is(&mut self, byte: u8) -> bool {
        self.skip_space();
        let found = self.text.get(self.at) == Some(&byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8) -> Result<(), InvalidJson> {
        if self.next_is(byte) { Ok(()) } else { self.broken() }
    }

    fn enter(&mut self, byte: u8) -> Result<(), InvalidJson> {
        if self.depth == DEEPEST {
            return self.broken();
        }
        self.expect(byte)?;
        self.depth += 1;
        Ok(())
    }

    fn leave(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }

    fn literal(&mut self, word: &[u8]) -> Result<(), InvalidJson> {
        if !self.text[self.at..].starts_with(word) {
            return self.broken();
        }
        self.at += word.len();
        Ok(())
    }

    /// RFC 8259 §6.
    fn number(&mut self) -> Result<(), InvalidJson> {
        let start = self.at;
        self.at += usize::from(self.text.get(self.at) == Some(&b'-'));
        if self.has_odd_numbers
            && let Some(length) = odd_number(&self.text[start..])
        {
            self.at = start + length;
            return Ok(());
        }
        if self.text.get(self.at) == Some(&b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.text.get(self.at) {
            self.at += 1;
            self.at += usize::from(matches!(self.text.get(self.at), Some(b'+' | b'-')));
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), InvalidJson> {
        let count = self.text[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if count == 0 {
            return self.broken();
        }
        self.at += count;
        Ok(())
    }

    /// RFC 8259 §7. Returns the range between the quotation marks, and whether it holds escapes.
    fn raw_string(&mut self) -> Result<(Range<usize>, bool), InvalidJson> {
        if self.text.get(self.at) != Some(&b'"') {
            return self.broken();
        }
        self.at += 1;
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at += plain(&self.text[self.at..]);
            match self.text.get(self.at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(0x20..) => self.at += 1,
                _ => return self.broken(),
            }
        }
        let range = start..self.at;
        self.at += 1;
        Ok((range, escaped))
    }

    fn escape(&mut self) -> Result<(), InvalidJson> {
        self.at += 1;
        match self.text.get(self.at) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                self.at += 1;
                for _ in 0..4 {
                    if !self.text.get(self.at).is_some_and(u8::is_ascii_hexdigit) {
                        return self.broken();
                    }
                    self.at += 1;
                }
            }
            _ => return self.broken(),
        }
        Ok(())
    }
}

/// How many bytes at the beginning of a string stand for themselves: no quotation mark, no backslash, no control
/// character. Reads eight at a time, because most of a prompt is such.
fn plain(text: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 0xff;
    const HIGH: u64 = ONES << 7;
    // Sets the high bit of each byte that is zero. A borrow reaches only bytes after a zero byte, and the search has
    // ended there.
    let zero = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let (eights, _) = text.as_chunks::<8>();
    let means = |eight: &[u8; 8]| {
        let word = u64::from_le_bytes(*eight);
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
        zero(word ^ (ONES * u64::from(b'"'))) | zero(word ^ (ONES * u64::from(b'\\'))) | control != 0
    };
    8 * eights.iter().position(means).unwrap_or(eights.len())
}

/// Numbers that Python writes and JSON doesn't have.
const ODD_NUMBERS: [&[u8]; 3] = [b"NaN", b"Infinity", b"-Infinity"];

/// The length of such a number at the beginning of a text.
#[must_use]
pub(crate) fn odd_number(text: &[u8]) -> Option<usize> {
    // Most numbers are recognised by their first byte.
    if !matches!(text.first(), Some(b'N' | b'I' | b'-')) {
        return None;
    }
    ODD_NUMBERS.iter().find(|odd| text.starts_with(odd)).map(|odd| odd.len())
}

/// Replaces such numbers in an answer by `null`.
#[must_use]
pub(crate) fn with_nulls(answer: &str) -> Cow<'_, str> {
    if !has_odd_numbers(answer.as_bytes()) {
        return Cow::Borrowed(answer);
    }
    let mut out = String::with_capacity(answer.len());
    let mut rest = answer;
    while let Some(at) = rest.find(['"', 'N', 'I', '-']) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let odd = odd_number(from.as_bytes());
        let length = odd.or_else(|| string_end(from.as_bytes(), 0)).unwrap_or(1);
        let (piece, after) = from.split_at_checked(length).unwrap_or((from, ""));
        out.push_str(if odd.is_some() { "null" } else { piece });
        rest = after;
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// Whether an answer may hold such numbers. The check is quick, and says yes too often, because it looks into strings
/// too.
#[must_use]
pub(crate) fn has_odd_numbers(answer: &[u8]) -> bool {
    // Both letters are rare. To look after each of them costs less than to prepare a search for a word.
    memchr2_iter(b'N', b'I', answer).any(|at| answer[at..].starts_with(b"NaN") || answer[at..].starts_with(b"Infinity"))
}

/// Where a string ends that begins at a position of a text: after its closing quotation mark. The string may not be
/// UTF-8.
#[must_use]
pub(crate) fn string_end(text: &[u8], at: usize) -> Option<usize> {
    let mut scan = Scan { text, checked: "", at, depth: 0, has_odd_numbers: false };
    scan.raw_string().ok().map(|_| scan.at)
}

/// Where a number ends that begins at a position of a text.
#[must_use]
pub(crate) fn number_end(text: &[u8], at: usize) -> Option<usize> {
    let mut scan = Scan { text, checked: "", at, depth: 0, has_odd_numbers: false };
    scan.number().ok().map(|()| scan.at)
}

/// Decodes the escapes of a string that `raw_string` has checked.
fn unescape(raw: &str, out: &mut String) {
    let mut units: Vec<u16> = Vec::new();
    // Neighbouring `\u` escapes are UTF-16 units. A pair of surrogates is one character.
    let flush = |units: &mut Vec<u16>, out: &mut String| {
        out.extend(char::decode_utf16(units.drain(..)).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)));
    };
    // The first half of a pair isn't complete without the second.
    let is_whole = |units: &[u16]| units.last().is_some_and(|unit| !(0xd800..0xdc00).contains(unit));
    let mut rest = raw.chars();
    while let Some(character) = rest.next() {
        let plain = match character {
            '\\' => match rest.next() {
                Some('u') => {
                    let hex = rest.as_str().get(..4).and_then(|hex| u16::from_str_radix(hex, 16).ok());
                    units.push(hex.unwrap_or(0xfffd));
                    if is_whole(&units) {
                        flush(&mut units, out);
                    }
                    rest = rest.as_str().get(4..).unwrap_or_default().chars();
                    continue;
                }
                Some('b') => '\u{8}',
                Some('f') => '\u{c}',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some(other) => other,
                None => break,
            },
            other => other,
        };
        flush(&mut units, out);
        out.push(plain);
    }
    flush(&mut units, out);
}

/// A string as JSON with its quotation marks.
#[must_use]
pub(crate) fn quoted(text: &str) -> String {
    if text.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\') {
        return ["\"", text, "\""].concat();
    }
    serde_json::Value::from(text).to_string()
}

/// Whether a server that ignores case could take a key for a known one in ASCII. Some fold case as Unicode does: Go's
/// `encoding/json` takes the long s (`ſ`) for an s and the Kelvin sign for a k, and Java's `equalsIgnoreCase` takes the
/// Turkish i's for an i.
#[must_use]
pub(crate) fn reads_as(key: &str, known: &str) -> bool {
    if key.is_ascii() { key.eq_ignore_ascii_case(known) } else { folded(key).eq(folded(known)) }
}

/// The same, however the words are joined: `inferenceGeo`, `inference-geo` and `inferencegeo` read as `inference_geo`.
#[must_use]
pub(crate) fn reads_as_words(key: &str, known: &str) -> bool {
    letters(key).eq(letters(known))
}

/// The letters and digits of a name, as such a server reads them.
pub(crate) fn letters(text: &str) -> impl Iterator<Item = char> {
    folded(text).filter(|c| c.is_alphanumeric())
}

/// Whether a key ends in these words, however they are joined: `image_file_id` and `imageFileId` end in `file_id`, but
/// `profile_id` doesn't.
#[must_use]
pub(crate) fn ends_in_words(key: &str, known: &str) -> bool {
    let is_seam = |c: char| matches!(c, '-' | '_');
    let mut letters = key.char_indices().rev().filter(|(_, c)| !is_seam(*c));
    let mut first = None;
    for word in known.chars().rev().filter(|c| !is_seam(*c)) {
        first = letters.next().filter(|(_, c)| fold(*c) == word);
        if first.is_none() {
            return false;
        }
    }
    let begins = |(at, c): (usize, char)| {
        let before = key.get(..at).and_then(|before| before.chars().next_back());
        c.is_ascii_uppercase() || before.is_none_or(|before| !before.is_alphanumeric())
    };
    first.is_some_and(begins)
}

fn folded(text: &str) -> impl Iterator<Item = char> {
    text.chars().map(fold)
}

fn fold(c: char) -> char {
    match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        '\u{130}' | '\u{131}' => 'i',
        other => other.to_ascii_lowercase(),
    }
}

/// The known key that such a server could take a key for.
#[must_use]
pub(crate) fn known_as<'k>(key: &str, known: &[&'k str]) -> Option<&'k str> {
    let ascii = key.is_ascii();
    known.iter().copied().find(|known| (!ascii || known.len() == key.len()) && reads_as(key, known))
}

/// Whether a text is exactly one JSON value.
#[must_use]
pub(crate) fn is_json(text: &str) -> bool {
    let mut scan = Scan::new(text);
    scan.skip().and_then(|_| scan.end()).is_ok()
}

/// Whether bytes can be the beginning of an answer in JSON: there is no error, except perhaps where they are cut.
#[must_use]
pub(crate) fn may_begin_json(bytes: &[u8]) -> bool {
    let text = match core::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            core::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return false,
    };
    let mut scan = Scan::of_answer(text);
    // If a word is cut, such as `-Infinit`, the error is at its beginning.
    scan.skip().and_then(|_| scan.end()).map_or_else(|broken| broken.at + 8 >= text.len(), |()| true)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_beginning_of_json_is_told_from_what_is_none() {
        let text = r#" {"a": [1.5e3, -0, -Infinity, NaN, false, null, "\u00e9\"é😀\n", {"b": {}}], "c": true} "#;
        for end in 0..=text.len() {
            assert!(may_begin_json(&text.as_bytes()[..end]), "{end}");
        }
        for bad in [
            &b"\x28\xb5\x2f\xfd{\"choices\":[]}"[..],
            b"{\"a\":\"\xff........\"}",
            b"<html><body></body>",
            b"{} {\"a\":12345678}",
            b"[1,2}..........",
        ] {
            assert!(!may_begin_json(bad), "{bad:?}");
        }
    }

    #[test]
    fn keys_read_alike_where_a_server_that_ignores_case_reads_them_so() {
        for key in
            ["tasks_id", "TASKS_ID", "ta\u{17f}k\u{17f}_id", "tas\u{212a}s_\u{131}d", "\u{17f}".repeat(8).as_str()]
        {
            assert_eq!(reads_as(key, "tasks_id"), key.chars().count() == 8 && key.starts_with(['t', 'T']), "{key}");
        }
        for key in ["", "tasks_i", "tasks_id ", "tasks_idé", "täsks_id"] {
            assert!(!reads_as(key, "tasks_id"), "{key}");
        }
    }

    #[test]
    fn keys_end_in_words_however_these_are_joined() {
        for key in
            ["file_id", "fileId", "FILE-ID", "image_file_id", "imageFileID", "image-fileid", "f\u{131}le_\u{130}d"]
        {
            assert!(ends_in_words(key, "file_id"), "{key}");
        }
        for key in ["", "id", "profile_id", "profileid", "file_ids", "file_idx", "éfile_id", "file"] {
            assert!(!ends_in_words(key, "file_id"), "{key}");
        }
    }

    #[test]
    fn takes_what_rfc_8259_takes_and_nothing_else() {
        for good in [
            "{}",
            " [1, -0, 1e400, 1180591620717411303424, 1.5E-3]\n",
            r#"{"a": {"b": [true, false, null, "\u00e9\n\ud83d\ude00"]}}"#,
            "\"x\"",
            "0",
        ] {
            assert!(is_json(good), "{good}");
        }
        for bad in [
            "",
            "{",
            "[1,]",
            "{\"a\":1,}",
            "{a: 1}",
            "01",
            "1.",
            "+1",
            ".5",
            "1e",
            "NaN",
            "nul",
            "'x'",
            "\"\\x\"",
            "\"\\u12\"",
            "\"a\nb\"",
            "{} {}",
            "[1 2]",
            "\u{feff}{}",
            "/**/{}",
            "{\"a\" 1}",
        ] {
            assert!(!is_json(bad), "{bad}");
        }
    }

    #[test]
    fn an_answer_may_have_pythons_numbers() {
        let read = |text: &str| {
            let mut scan = Scan::of_answer(text);
            scan.skip().and_then(|_| scan.end()).is_ok()
        };
        for good in ["NaN", "[NaN,-Infinity , Infinity]", "{\"a\":NaN,\"b\":[-1,1e400]}"] {
            assert!(read(good) && !is_json(good), "{good}");
        }
        for bad in ["Nan", "-NaN", "Inf", "+Infinity", "NaNs", "[NaN", "{NaN:1}", "Infinity1", "--Infinity"] {
            assert!(!read(bad), "{bad}");
        }
    }

    #[test]
    fn pythons_numbers_become_null_outside_of_strings() {
        assert_eq!(
            with_nulls(r#"{"NaN":NaN,"a":[-Infinity,Infinity,-1,"NaN \" Infinity"],"é":"N"}"#),
            r#"{"NaN":null,"a":[null,null,-1,"NaN \" Infinity"],"é":"N"}"#
        );
        for same in ["", "{\"a\":-1}", "\"NaN\"", "{\"a\":\"-Infinity\",\"b\":1e400}"] {
            assert_eq!(with_nulls(same), same);
        }
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(is_json(&nested(128)));
        assert!(!is_json(&nested(129)));
        assert!(!is_json(&"[".repeat(1_000_000)));
    }

    #[test]
    fn strings_are_unescaped() {
        let read = |text: &str| Scan::new(text).string().map(Cow::into_owned);
        assert_eq!(read(r#""\ud83d\ude00 \"\\\/\b\f\n\r\t é""#).unwrap(), "😀 \"\\/\u{8}\u{c}\n\r\t é");
        assert_eq!(read(r#""\ud800x""#).unwrap(), "\u{fffd}x");
        assert_eq!(read("1"), Err(InvalidJson { at: 0 }));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// On every text serde_json and the scanner agree (numbers that serde_json can't hold aside).
        #[test]
        fn agrees_with_serde_json(text in r#"[\[\]{}:,"a\\u01e.+ntrfalsue -]{0,24}"#) {
            let theirs: Result<serde::de::IgnoredAny, _> = serde_json::from_str(&text);
            prop_assert_eq!(is_json(&text), theirs.is_ok(), "{}", text);
        }

        #[test]
        fn a_string_comes_back(text in any::<String>()) {
            let json = quoted(&text);
            prop_assert_eq!(Scan::new(&json).string().unwrap(), text);
        }
    }
}
