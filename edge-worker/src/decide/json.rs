//! A strict JSON scanner. Takes a text; returns byte ranges and strings of the values that the caller asks for. Called
//! by `body`, `sse` and others.
//!
//! Numbers are never converted, so `1e400` and 2^70 survive. Skipped values cost no allocation. Any text that RFC 8259
//! doesn't allow is an error, because a text that two parsers read differently would evade inspection.

mod keys;
mod numbers;
#[cfg(test)]
mod tests;

use core::ops::Range;
use std::borrow::Cow;

pub(crate) use keys::{ends_in_words, known_as, letters, reads_as, reads_as_words};
pub(crate) use numbers::{has_odd_numbers, odd_number, with_nulls};

/// How deep arrays and objects may nest, as in serde_json.
const DEEPEST: u8 = 128;

/// The byte at which a text stops being JSON.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct InvalidJson {
    /// The position, from 0.
    pub(crate) at: usize,
}

/// The kind of a value. The first byte of a value tells its kind.
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

/// A position in a JSON text. Every method that reads a value moves the position to the end of the value.
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
    /// Starts at the beginning of a text. A byte-order mark isn't skipped, because most parsers refuse it.
    #[must_use]
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text: text.as_bytes(), checked: text, at: 0, depth: 0, has_odd_numbers: false }
    }

    /// Starts at the beginning of an endpoint's answer. Servers in Python write `NaN`, `Infinity` and `-Infinity`,
    /// which aren't JSON. Answers may hold these numbers, requests may not.
    #[must_use]
    pub(crate) fn of_answer(text: &'a str) -> Self {
        Self { has_odd_numbers: true, ..Self::new(text) }
    }

    /// The position in bytes.
    #[must_use]
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// Whether the text has these bytes at `range`, which was read before.
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
    /// If the value isn't JSON.
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
    /// If the value isn't JSON.
    pub(crate) fn text(&mut self) -> Result<&'a str, InvalidJson> {
        let range = self.skip()?;
        self.checked.get(range).ok_or(InvalidJson { at: self.at })
    }

    /// The text between `start` and the current position.
    #[must_use]
    pub(crate) fn since(&self, start: usize) -> &'a str {
        self.checked.get(start..self.at).unwrap_or_default()
    }

    /// Reads a string, and returns its text with escapes decoded. A lone surrogate becomes U+FFFD.
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

    /// Reads an object. Calls `each` with every key when the scanner is at the key's value, which `each` has to read.
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

    /// Reads an array. Calls `each` when the scanner is at an item, which `each` has to read.
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

    /// Checks that only white space follows.
    ///
    /// # Errors
    /// If anything else follows.
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
        let matches_byte = self.text.get(self.at) == Some(&byte);
        self.at += usize::from(matches_byte);
        matches_byte
    }

    fn expect(&mut self, byte: u8) -> Result<(), InvalidJson> {
        if self.next_is(byte) { Ok(()) } else { self.broken() }
    }

    /// Enters an object or a list, unless it is nested too deeply.
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

    /// Reads a number (RFC 8259 §6).
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

    /// Skips at least one digit.
    fn digits(&mut self) -> Result<(), InvalidJson> {
        let count = self.text[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if count == 0 {
            return self.broken();
        }
        self.at += count;
        Ok(())
    }

    /// Reads a string (RFC 8259 §7). Returns the range between the quotation marks, and whether it holds escapes.
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
                // A control character, or no more text.
                _ => return self.broken(),
            }
        }
        let range = start..self.at;
        self.at += 1;
        Ok((range, escaped))
    }

    /// Skips an escape sequence of a string.
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

/// How many bytes at the beginning of a string are plain: no quotation mark, no backslash, no control character. Reads
/// many bytes at a time, because most bytes of a prompt are plain.
fn plain(text: &[u8]) -> usize {
    // Compilers make vector instructions of this, which the Worker's Wasm has none of.
    let has_special = |block: &[u8; 32]| block.iter().fold(0, |any, &byte| any | special(byte)) != 0;
    let (blocks, _) = if cfg!(target_arch = "wasm32") { (&[][..], text) } else { text.as_chunks::<32>() };
    let before = 32 * blocks.iter().position(has_special).unwrap_or(blocks.len());
    let (words, rest) = text[before..].as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let found = specials(u64::from_le_bytes(*word));
        if found != 0 {
            return before + 8 * at + (found.trailing_zeros() / 8) as usize;
        }
    }
    let in_rest = rest.iter().position(|&byte| special(byte) != 0).unwrap_or(rest.len());
    before + 8 * words.len() + in_rest
}

/// 1 for a byte that ends a run of plain bytes, else 0.
fn special(byte: u8) -> u8 {
    u8::from(byte < 0x20) | u8::from(byte == b'"') | u8::from(byte == b'\\')
}

/// The high bit of each byte of a word that ends a run of plain bytes. Bytes above such a byte may have it, too.
const fn specials(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 0xff;
    const HIGH: u64 = ONES << 7;
    /// The high bit of each byte below this one; none is above 0x80. A borrow may set bits of bytes above it.
    const fn below(word: u64, byte: u8) -> u64 {
        word.wrapping_sub(ONES * byte as u64) & !word & HIGH
    }
    below(word ^ (ONES * b'"' as u64), 1) | below(word ^ (ONES * b'\\' as u64), 1) | below(word, 0x20)
}

/// The end of the string that begins at the position `at` of a text: after the closing quotation mark. The string may
/// be invalid UTF-8.
#[must_use]
pub(crate) fn string_end(text: &[u8], at: usize) -> Option<usize> {
    let mut scan = Scan { text, checked: "", at, depth: 0, has_odd_numbers: false };
    scan.raw_string().ok().map(|_| scan.at)
}

/// The end of the number that begins at the position `at` of a text.
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
    // The first half of a surrogate pair isn't complete without the second half.
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

/// Whether a text is exactly one JSON value.
#[must_use]
pub(crate) fn is_json(text: &str) -> bool {
    let mut scan = Scan::new(text);
    scan.skip().and_then(|_| scan.end()).is_ok()
}

/// Whether bytes can be the beginning of an answer in JSON: the bytes have no error, except perhaps at their end, where
/// the answer is cut.
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
    // If the cut is inside a word, such as `-Infinit`, the error is at the word's beginning, at most 8 bytes before the
    // cut.
    scan.skip().and_then(|_| scan.end()).map_or_else(|broken| broken.at + 8 >= text.len(), |()| true)
}
