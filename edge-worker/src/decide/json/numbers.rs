//! Finds `NaN` and the infinities in an answer's text, and replaces them with `null`. Servers in Python write these
//! words as numbers, although JSON has no such numbers. Called by `splice`, `sse` and the scanner.

use std::borrow::Cow;

use memchr::memchr2_iter;

use super::string_end;

/// Odd numbers: Python writes them, and JSON doesn't have them.
const ODD_NUMBERS: [&[u8]; 3] = [b"NaN", b"Infinity", b"-Infinity"];

/// The length of an odd number at the beginning of a text.
#[must_use]
pub(crate) fn odd_number(text: &[u8]) -> Option<usize> {
    // The first byte of most numbers shows that they aren't odd.
    if !matches!(text.first(), Some(b'N' | b'I' | b'-')) {
        return None;
    }
    ODD_NUMBERS.iter().find(|odd| text.starts_with(odd)).map(|odd| odd.len())
}

/// Replaces odd numbers in an answer by `null`.
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

/// Whether an answer may hold odd numbers. The check is quick, but the result is also true if only a string holds such
/// a word.
#[must_use]
pub(crate) fn has_odd_numbers(answer: &[u8]) -> bool {
    // The letters `N` and `I` are rare. Checking the text after each of them is cheaper than preparing a search for a
    // word.
    memchr2_iter(b'N', b'I', answer).any(|at| answer[at..].starts_with(b"NaN") || answer[at..].starts_with(b"Infinity"))
}
