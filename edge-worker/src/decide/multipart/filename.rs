//! Names of files in forms. Takes the names in a part's Content-Disposition, returns one plain name. Called by
//! [`super::head`].
//!
//! Clients write letters outside ASCII in four ways: as UTF-8 (browsers, RFC 7578 §5.1.3), as `filename*` (RFC 8187;
//! RFC 7578 §4.2 forbids it, but .NET sends it), as encoded words (RFC 2047; also .NET), or in another charset. An
//! endpoint always gets `filename="…"` in UTF-8. Endpoints recognise formats of audio by the extension, so the
//! extension is kept.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use percent_encoding::percent_decode_str;

/// The longest name that is sent, in bytes. File systems allow 255.
const LONGEST: usize = 240;
/// The longest extension that a shortened name keeps, in bytes, with its dot.
const LONGEST_EXTENSION: usize = 16;
/// Base64 of encoded words, with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Chooses the name to send; `None` for a part without a file's name. If a part has both names, and `filename*` can be
/// read, `filename*` has priority (RFC 6266 §4.3) and the other name is dropped.
pub(super) fn choose(plain: Option<&str>, extended: Option<&str>) -> Option<String> {
    let name = match (extended.map(str::trim).map(|text| (text, from_extended(text))), plain) {
        (Some((_, Some(name))), _) if !name.is_empty() => name,
        (_, Some(name)) => from_words(name).unwrap_or_else(|| name.to_owned()),
        // `filename*` can't be read completely, and there is no other name. Its readable characters are used, so that
        // the extension is kept.
        (Some((text, _)), None) => {
            let value = text.rsplit('\'').next().unwrap_or(text);
            String::from_utf8_lossy(&unescaped(value)).into_owned()
        }
        (None, None) => return None,
    };
    Some(plain_name(&name))
}

/// Reads a name such as `UTF-8''Gespr%C3%A4ch.mp3` (RFC 8187 §3.2.1).
fn from_extended(text: &str) -> Option<String> {
    let (charset, rest) = text.split_once('\'')?;
    let (_language, value) = rest.split_once('\'')?;
    let bytes = unescaped(value);
    // A percent sign that is left after decoding shows that the name has an invalid escape.
    if bytes.contains(&b'%') && !value.contains("%25") { None } else { decoded(charset, &bytes) }
}

/// Decodes `=?utf-8?B?R2VzcHLDpGNo?= =?utf-8?Q?.mp3?=` (RFC 2047 §2). `None` unless the whole name consists of such
/// words.
fn from_words(text: &str) -> Option<String> {
    let mut name: Vec<u8> = Vec::new();
    for word in text.split_ascii_whitespace() {
        let inner = word.strip_prefix("=?")?.strip_suffix("?=")?;
        let mut parts = inner.splitn(3, '?');
        let (charset, encoding, value) = (parts.next()?, parts.next()?, parts.next()?);
        let bytes = match encoding {
            "B" | "b" => BASE64.decode(value).ok()?,
            "Q" | "q" => quoted_printable(value)?,
            _ => return None,
        };
        // A word may end within a letter, though it shouldn't. So UTF-8 is checked when all words are joined.
        if is_utf8(charset) { name.extend(bytes) } else { name.extend(decoded(charset, &bytes)?.into_bytes()) }
    }
    String::from_utf8(name).ok().filter(|name| !name.is_empty())
}

fn is_utf8(charset: &str) -> bool {
    // A language may follow the charset after a `*` (RFC 2231 §5).
    let charset = charset.split('*').next().unwrap_or_default();
    ["utf-8", "utf8", "us-ascii", "ascii"].iter().any(|known| charset.eq_ignore_ascii_case(known))
}

/// The text of bytes in UTF-8 or Latin-1; `None` for another character set.
fn decoded(charset: &str, bytes: &[u8]) -> Option<String> {
    if is_utf8(charset) {
        return core::str::from_utf8(bytes).ok().map(str::to_owned);
    }
    let charset = charset.split('*').next().unwrap_or_default();
    let is_latin = ["iso-8859-1", "latin1"].iter().any(|known| charset.eq_ignore_ascii_case(known));
    is_latin.then(|| bytes.iter().copied().map(char::from).collect())
}

/// Decodes percent escapes, and keeps the rest.
fn unescaped(text: &str) -> Vec<u8> {
    percent_decode_str(text).collect()
}

/// Decodes the Q encoding (RFC 2047 §4.2): `_` is a space, and `=` begins an escape.
fn quoted_printable(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'_' => out.push(b' '),
            b'=' => {
                out.push(hex(after)?);
                rest = after.get(2..).unwrap_or_default();
            }
            byte => out.push(byte),
        }
    }
    Some(out)
}

/// The byte that the two hex digits at the beginning stand for.
fn hex(bytes: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*bytes.get(at)?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(0)? << 4 | digit(1)?)
}

/// Replaces characters that a program could take for more than a name, and characters that a person doesn't see. The
/// next program may decode percent escapes, so the percent sign of an escape is replaced too. Browsers write quotation
/// marks and line breaks as such escapes; each of these escapes is replaced as a whole.
fn plain_name(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut rest = name.trim();
    while let Some(character) = rest.chars().next() {
        let escape = if character == '%' { hex(&rest.as_bytes()[1..]) } else { None };
        let is_browsers = matches!(escape, Some(b'"' | b'\r' | b'\n'));
        let is_plain = escape.is_none()
            && !character.is_control()
            && !matches!(character, '"' | '\\' | '/' | char::REPLACEMENT_CHARACTER)
            && !is_unseen(character);
        out.push(if is_plain { character } else { '_' });
        rest = rest.get(if is_browsers { 3 } else { character.len_utf8() }..).unwrap_or_default();
    }
    let is_name = out.chars().any(|character| !matches!(character, '.' | '_' | ' '));
    if is_name { shortened(out) } else { "file".to_owned() }
}

/// Marks that change the direction of text, so that a name seems to have another extension, and characters without a
/// width. Characters without a width that join letters don't count, because they are parts of words.
fn is_unseen(character: char) -> bool {
    matches!(character,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Shortens a name to [`LONGEST`] bytes, and keeps its extension.
fn shortened(name: String) -> String {
    if name.len() <= LONGEST {
        return name;
    }
    let dot = name.rfind('.').filter(|dot| name.len() - dot <= LONGEST_EXTENSION);
    let (stem, extension) = name.split_at(dot.unwrap_or(name.len()));
    let mut end = LONGEST - extension.len();
    while !stem.is_char_boundary(end) {
        end -= 1;
    }
    [&stem[..end], extension].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;

    use super::*;

    fn plain(name: &str) -> String {
        choose(Some(name), None).unwrap()
    }

    fn extended(text: &str) -> String {
        choose(None, Some(text)).unwrap()
    }

    #[test]
    fn rfc_8187_names_are_read() {
        assert_eq!(extended("utf-8''Gespr%C3%A4ch.mp3"), "Gespräch.mp3");
        assert_eq!(extended("UTF-8'de'%e2%82%ac%20rates.m4a"), "€ rates.m4a");
        assert_eq!(extended("iso-8859-1'en'%A3%20rates.wav"), "£ rates.wav");
        assert_eq!(extended("utf-8''100%25.mp3"), "100%.mp3");
        // .NET sends the same name in both forms.
        let words = "=?utf-8?B?R2VzcHLDpGNoLm1wMw==?=";
        assert_eq!(choose(Some(words), Some("utf-8''Gespr%C3%A4ch.mp3")).unwrap(), "Gespräch.mp3");
        assert_eq!(choose(None, None), None);
    }

    #[test]
    fn of_two_names_the_extended_goes_first_if_it_can_be_read() {
        assert_eq!(choose(Some("a.mp3"), Some("utf-8''b.wav")).unwrap(), "b.wav");
        for broken in ["", "utf-8''", "utf-8''%ff.wav", "utf-8''a%zz.wav", "koi8-r''%C1.wav", "b.wav", "utf-8'b.wav"] {
            assert_eq!(choose(Some("a.mp3"), Some(broken)).unwrap(), "a.mp3", "{broken}");
        }
        // Without another name, the part still is a file, and its name keeps the extension.
        for broken in ["utf-8''%ff.wav", "utf-8''a%zz.wav", "koi8-r''%C1.wav", "b.wav", "utf-8'b.wav"] {
            assert!(extended(broken).ends_with(".wav"), "{broken}");
        }
        assert_eq!(extended("utf-8''"), "file");
    }

    #[test]
    fn rfc_2047_words_are_read() {
        assert_eq!(plain("=?utf-8?B?R2VzcHLDpGNoLm1wMw==?="), "Gespräch.mp3");
        assert_eq!(plain("=?UTF-8?b?R2VzcHLDpGNoLm1wMw?="), "Gespräch.mp3");
        assert_eq!(plain("=?utf-8?Q?Gespr=C3=A4ch_1.mp3?="), "Gespräch 1.mp3");
        assert_eq!(plain("=?iso-8859-1?q?Gespr=E4ch?= =?us-ascii?Q?.mp3?="), "Gespräch.mp3");
        assert_eq!(plain("=?utf-8?B?R2VzcHLD?= =?utf-8?B?pGNoLm1wMw==?="), "Gespräch.mp3");
        for other in ["=?utf-8?X?a?=.mp3", "=?utf-8?B?!?=.mp3", "=?a.mp3", "=?utf-8?Q?=f?= .mp3"] {
            assert_eq!(plain(other), other);
        }
    }

    #[test]
    fn a_name_is_nothing_but_a_name() {
        for (name, sent) in [
            ("Gespräch.mp3", "Gespräch.mp3"),
            ("100%.mp3", "100%.mp3"),
            ("a%22b%0D%0Ac.mp3", "a_b__c.mp3"),
            ("%2e%2e%2fa.mp3", "_2e_2e_2fa.mp3"),
            ("../../etc/passwd.wav", ".._.._etc_passwd.wav"),
            ("C:\\a\\b.mp3", "C:_a_b.mp3"),
            ("a\r\nX-Y: z.mp3", "a__X-Y: z.mp3"),
            ("a\"; name=\"model.mp3", "a_; name=_model.mp3"),
            ("a\u{202e}3pm.exe", "a_3pm.exe"),
            ("a\u{0}.mp3", "a_.mp3"),
            ("a\u{fffd}.mp3", "a_.mp3"),
            (" a.mp3 ", "a.mp3"),
            ("..", "file"),
            ("", "file"),
            ("%", "%"),
            ("a%2", "a%2"),
        ] {
            assert_eq!(plain(name), sent, "{name:?}");
        }
        assert_eq!(extended("utf-8''a%22%0d%0a%2F..%2f.mp3"), "a____.._.mp3");
        assert_eq!(plain("=?utf-8?Q?a=22=2F=0D=0A.mp3?="), "a____.mp3");
    }

    #[test]
    fn a_long_name_keeps_its_extension() {
        let long = plain(&format!("{}.mp3", "ä".repeat(400)));
        assert!(long.ends_with("ä.mp3") && (LONGEST - 1..=LONGEST).contains(&long.len()), "{}", long.len());
        assert_eq!(plain(&format!("{}.mp3", "a".repeat(210))).len(), 214);
        let odd = plain(&format!("a.{}", "b".repeat(400)));
        assert_eq!(odd.len(), LONGEST);
    }

    #[test]
    fn no_name_gets_out_of_its_quotation_marks() {
        let piece = prop_oneof![
            "\\PC{0,6}",
            Just("\"".to_owned()),
            Just("\r\n".to_owned()),
            Just("%22".to_owned()),
            Just("=?utf-8?Q?=22?=".to_owned()),
            Just("utf-8''%0d".to_owned()),
            Just("../".to_owned()),
            any::<char>().prop_map(String::from),
        ];
        let text = || proptest::collection::vec(piece.clone(), 0..8).prop_map(|pieces| pieces.concat());
        TestRunner::new(ProptestConfig::with_cases(5_000))
            .run(&(text(), proptest::option::of(text())), |(name, star)| {
                let sent = choose(Some(&name), star.as_deref()).unwrap();
                prop_assert!(!sent.is_empty() && sent.len() <= LONGEST);
                prop_assert!(!sent.contains(|c: char| c.is_control() || matches!(c, '"' | '\\' | '/') || is_unseen(c)));
                prop_assert!(!sent.chars().all(|c| c == '.'));
                prop_assert!(
                    (0..sent.len()).all(|at| sent.as_bytes()[at] != b'%' || hex(&sent.as_bytes()[at + 1..]).is_none())
                );
                prop_assert_eq!(&plain_name(&sent), &sent, "a plain name stays the same");
                Ok(())
            })
            .unwrap();
    }
}
