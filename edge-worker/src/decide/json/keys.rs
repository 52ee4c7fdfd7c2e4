//! Compares keys as lenient servers do: without regard to case, and without regard to how the words of a key are
//! joined. Called by `body`, which refuses keys that two servers would read differently.

/// Whether a server that ignores case could take `key` for `known`, which is ASCII. Some servers ignore case as Unicode
/// does: Go's `encoding/json` takes the long s (`ſ`) for an s and the Kelvin sign for a k, and Java's
/// `equalsIgnoreCase` takes the Turkish i's for an i.
#[must_use]
pub(crate) fn reads_as(key: &str, known: &str) -> bool {
    if key.is_ascii() { key.eq_ignore_ascii_case(known) } else { folded(key).eq(folded(known)) }
}

/// Like [`reads_as`], however the words are joined: `inferenceGeo`, `inference-geo` and `inferencegeo` read as
/// `inference_geo`.
#[must_use]
pub(crate) fn reads_as_words(key: &str, known: &str) -> bool {
    letters(key).eq(letters(known))
}

/// The letters and digits of a name, as a server that ignores case reads them.
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

/// The letter in lower case. Some servers also take a few other letters for ASCII letters.
fn fold(c: char) -> char {
    match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        '\u{130}' | '\u{131}' => 'i',
        other => other.to_ascii_lowercase(),
    }
}

/// The first of the `known` keys for which a server that ignores case could take `key`.
#[must_use]
pub(crate) fn known_as<'k>(key: &str, known: &[&'k str]) -> Option<&'k str> {
    let ascii = key.is_ascii();
    known.iter().copied().find(|known| (!ascii || known.len() == key.len()) && reads_as(key, known))
}
