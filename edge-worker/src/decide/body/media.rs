//! Says whether a string is media. Takes a string from a field for media. Called by `unlisted`. The difficulty: a path
//! on the model host's disk isn't media, but most paths consist of characters of base64.

use percent_encoding::percent_decode;

use super::place::{is_base64, is_data_url};
use super::playlist::{LOOKED_AT, is_playlist};

/// The longest path that Linux opens (`PATH_MAX`), in bytes. A longer string can't be a path.
const LONGEST_PATH: usize = 4096;
/// The longest name of a file on Linux (`NAME_MAX`), in bytes. A longer piece without a `/` isn't part of a path.
const LONGEST_FILE_NAME: usize = 255;
/// The shortest text that counts as a file, in bytes. Shorter words could be base64 by accident.
const SHORTEST_TEXT: usize = 12;

/// Beginnings of files with a signature, in base64.
const BEGINNINGS: &[&str] = &[
    "iVBORw0KGg", // PNG
    "/9j/",       // JPEG
    "_9j_",
    "R0lGOD", // GIF
    "UklGR",  // WAV, WebP, AVI
    "SUQz",   // MP3 with an ID3 tag
    "T2dnUw", // Ogg, Opus
    "ZkxhQ",  // FLAC
    "GkXfo",  // WebM, Matroska
    "JVBERi", // PDF
    "UEsDB",  // ZIP: Office's documents
    "0M8R4",  // Office's older documents
    "SUkqA",  // TIFF
    "TU0AK",
    "Rk9STQ", // AIFF
    "IyFBTV", // AMR
];

/// Whether a string is media: a `data:` URL, or base64 that can't also be a path, or that decodes to a known kind of
/// file. A playlist, which lists URLs of media, doesn't count.
///
/// Base64 can't be a path if it is longer than any path, or has a piece longer than any file's name. So long audio
/// without a header (PCM, MP3 without a tag) passes. Such audio of less than a tenth of a second must be sent as a
/// `data:` URL.
#[inline(never)]
pub(super) fn is_media(text: &str) -> bool {
    is_of_media(text.trim_ascii()) && !is_playlist_text(text)
}

/// Whether a text may be media (an image, audio or a file) in base64, rather than words or a path.
fn is_of_media(text: &str) -> bool {
    if text.is_empty() || is_data_url(text) {
        return true;
    }
    let is_end = |byte: u8| matches!(byte, b'\n' | b'\r');
    text.bytes().all(|byte| is_base64(byte) || is_end(byte))
        && (text.len() > LONGEST_PATH
            || text.split(['/', '\n', '\r']).any(|piece| piece.len() > LONGEST_FILE_NAME)
            || begins_as_media(text)
            || is_encoded_text(text))
}

fn begins_as_media(text: &str) -> bool {
    BEGINNINGS.iter().any(|beginning| text.starts_with(beginning))
        // MP4 and similar formats (ISO/IEC 14496-12): a length below 65,536, then `ftyp`.
        || text.starts_with("AA") && text.get(6..10) == Some("Z0eX")
        // BMP: `BM`, a length, and four bytes that are zero.
        || text.starts_with("Qk") && text.get(8..13) == Some("AAAAA")
}

/// Whether base64 decodes to text, such as a note, a table or a program. A path made of words doesn't: read as base64,
/// most words decode to bytes that aren't valid UTF-8.
fn is_encoded_text(text: &str) -> bool {
    let bytes: Vec<u8> = decoded(text.bytes()).collect();
    let fits = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t');
    bytes.len() >= SHORTEST_TEXT && core::str::from_utf8(&bytes).is_ok_and(|text| text.chars().all(fits))
}

/// Decodes base64. Skips other characters, as lenient readers do.
pub(super) fn decoded(text: impl Iterator<Item = u8>) -> impl Iterator<Item = u8> {
    let (mut held, mut bits) = (0u32, 0u32);
    text.filter_map(sextet).filter_map(move |six| {
        held = (held << 6 | u32::from(six)) & 0xffff;
        bits += 6;
        if bits < 8 {
            return None;
        }
        bits -= 8;
        u8::try_from(held >> bits & 0xff).ok()
    })
}

/// The six bits that a character of base64 stands for, in either alphabet (RFC 4648 §4 and §5).
fn sextet(byte: u8) -> Option<u8> {
    Some(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' | b'-' => 62,
        b'/' | b'_' => 63,
        _ => return None,
    })
}

/// Whether a string of media holds a playlist: base64, or a `data:` URL.
pub(super) fn is_playlist_text(text: &str) -> bool {
    let text = text.trim_ascii();
    let Some((head, content)) = text.split_once(',') else {
        return is_playlist(&beginning(decoded(text.bytes())));
    };
    let content = percent_decode(content.as_bytes());
    if head.to_ascii_lowercase().contains("base64") {
        is_playlist(&beginning(decoded(content)))
    } else {
        is_playlist(&beginning(content))
    }
}

/// The bytes before the first zero byte, at most [`LOOKED_AT`].
fn beginning(bytes: impl Iterator<Item = u8>) -> Vec<u8> {
    bytes.take_while(|byte| *byte != 0).take(LOOKED_AT).collect()
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

    use super::*;

    #[test]
    fn files_with_a_signature_pass_however_short() {
        for file in [
            &b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"[..],
            b"\xff\xd8\xff\xe0\0\x10JFIF",
            b"GIF89a\x01\0\x01\0",
            b"GIF87a\x01\0\x01\0",
            b"RIFF\x24\0\0\0WAVEfmt ",
            b"RIFF\xff\xff\xff\xffWEBP",
            b"ID3\x04\0\0\0\0\0\0",
            b"OggS\0\x02\0\0",
            b"fLaC\0\0\0\x22",
            b"%PDF-1.7\n%\xe2\xe3",
            b"\0\0\0\x20ftypisom\0\0",
            b"\0\0\0\x1cftypavif",
            b"\0\0\0\x18ftypheic",
            b"\x1a\x45\xdf\xa3\x9f\x42",
            b"PK\x03\x04\x14\0",
            b"\xd0\xcf\x11\xe0\xa1\xb1",
            b"II*\0\x08\0\0\0",
            b"MM\0*\0\0\0\x08",
            b"FORM\0\0\0\x1eAIFF",
            b"#!AMR\n",
            b"BM\x3a\0\0\0\0\0\0\0\x36\0\0\0\x28",
        ] {
            let (plain, other) = (STANDARD.encode(file), URL_SAFE_NO_PAD.encode(file));
            assert!(is_media(&plain), "{plain}");
            assert!(is_media(&other), "{other}");
        }
    }

    #[test]
    fn encoded_text_and_strings_that_cannot_be_paths_are_media() {
        let csv = STANDARD.encode("name;amount\r\nMüller;12\n");
        let pcm: Vec<u8> = (0..3_200u16).flat_map(|n| n.wrapping_mul(40_503).to_le_bytes()).collect();
        let mp3 = format!("//uQ{}", "A".repeat(256));
        for text in
            ["", "  ", "data:,x", " DATA:image/png;base64,AAAA", &csv, &STANDARD.encode(&pcm), &mp3, &"a".repeat(256)]
        {
            assert!(is_media(text), "{text}");
        }
        assert!(is_media(&format!("{csv}\r\n")) && is_media(&"/etc".repeat(1025)), "a path can't be so long");
    }

    #[test]
    fn paths_and_words_are_no_media() {
        let root = format!("/{}", "proc/self/root/".repeat(200));
        for text in [
            "data/images/cats",
            "data:audio/wav;base64,I0VYVE0zVQpodHRwOi8vYQ==",
            "I0VYVE0zVQpodHRwOi8vYQ==",
            "QkhvbWUvAAAA",
            "mnt/models/llama",
            "etc/passwd",
            "/etc/passwd",
            "/etc/shadow0",
            "/proc/self/environ",
            "//metadata/token/x",
            "//proxy/vault/registry",
            "home/alice/pictures/holidays2024/img0001",
            &root[..3000],
            "cats",
            "secret",
            "id_rsa",
            "AAAA",
            "AAAAAAAAAAAAAAAAAAAA",
            "file-1",
            "a-b_c=",
            "passport_of_alice",
            "https://a",
            "a.example/x",
            "./x.png",
            "~/x",
            "c:x",
            "C:\\x",
            "ｄata:,x",
            "da\tta:,x",
            "AA AA",
            "é",
        ] {
            assert!(!is_media(text), "{text}");
        }
    }
}
