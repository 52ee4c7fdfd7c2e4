//! Says whether media is a playlist: a list of places to fetch media from. Called by `media` for strings, and by
//! `multipart::form` for files.
//!
//! Many engines pass audio and video to FFmpeg, which recognises files by their content alone. If a client sends a
//! playlist as `audio/wav`, FFmpeg fetches from any address in it. This file recognises the playlists that FFmpeg's
//! demuxers recognise (`hls_probe`, `concat_probe`, `sdp_probe`, `dash_probe`), and older playlist formats of media
//! players.

use memchr::memchr;

/// How many bytes of a file are checked. FFmpeg doesn't look at more (`PROBE_BUF_MAX`).
pub(super) const LOOKED_AT: usize = 1 << 20;

/// Beginnings of playlists, in lower case.
const BEGINNINGS: &[&[u8]] = &[b"#extm3u", b"ffconcat", b"[playlist]", b"[reference]", b"rtsptext", b"asf "];

/// Elements of playlists in XML, in lower case.
const ELEMENTS: &[&[u8]] = &[b"<mpd", b"<smoothstreamingmedia", b"<smil", b"<asx", b"<playlist"];

/// The line that identifies a session description (RFC 8866 §5.7).
const CONNECTION: &[u8] = b"c=in ip";

/// Whether a file is a playlist.
pub(crate) fn is_playlist(file: &[u8]) -> bool {
    let file = file.get(..LOOKED_AT).unwrap_or(file);
    // Only the text before the first zero byte is checked. Most media have a zero byte near the beginning.
    let text = memchr(0, file).and_then(|end| file.get(..end)).unwrap_or(file);
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text).trim_ascii_start();
    let begins =
        |text: &[u8], word: &[u8]| text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    BEGINNINGS.iter().any(|beginning| begins(text, beginning))
        || text.starts_with(b"<") && has_element(text, begins)
        || text.split(|byte| matches!(byte, b'\n' | b'\r')).any(|line| begins(line, CONNECTION))
}

fn has_element(text: &[u8], begins: impl Fn(&[u8], &[u8]) -> bool) -> bool {
    let tags = memchr::memchr_iter(b'<', text).filter_map(|at| text.get(at..));
    tags.into_iter().any(|tag| ELEMENTS.iter().any(|element| begins(tag, element)))
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

    use super::*;
    use crate::decide::body::media::is_playlist_text;

    const HLS: &str = "#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:10.0,\nhttp://169.254.169.254/x\n#EXT-X-ENDLIST\n";

    #[test]
    fn playlists_are_found_however_they_are_sent() {
        let late = format!("<!-- {} --><MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\"/>", "x".repeat(9_000));
        for list in [
            HLS,
            "\u{feff}#EXTM3U\n",
            "ffconcat version 1.0\nfile /etc/passwd\n",
            "[playlist]\nFile1=http://a.example/x\n",
            "<?xml version=\"1.0\"?>\n<MPD type=\"static\"><BaseURL>http://a.example/</BaseURL></MPD>",
            "<asx version=\"3.0\"><entry><ref href=\"http://a.example/\"/></entry></asx>",
            "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\nc=IN IP4 192.0.2.1\r\nm=audio 5004 RTP/AVP 0\r\n",
            "x\nc=IN IP6 ::1\nm=audio 1 RTP/AVP 0\n",
            late.as_str(),
        ] {
            assert!(is_playlist(list.as_bytes()), "{list}");
            let (plain, other) = (STANDARD.encode(list), URL_SAFE_NO_PAD.encode(list));
            for text in [&plain, &other, &format!("data:audio/wav;base64,{plain}"), &format!(" DATA:;BASE64,{plain}")] {
                assert!(is_playlist_text(text), "{text}");
            }
            let (first, rest) = plain.split_at(1);
            let escaped = format!("data:video/mp4;base64,%{:02X}{rest}", first.as_bytes()[0]);
            assert!(is_playlist_text(&escaped), "{escaped}");
        }
        assert!(is_playlist_text("data:audio/x-mpegurl,%23EXTM3U%0Ahttp://a.example/"));
        assert!(is_playlist_text("data:,#EXTM3U"));
    }

    #[test]
    fn media_and_documents_are_not_playlists() {
        for file in [
            &b""[..],
            b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
            b"RIFF\x24\0\0\0WAVEfmt ",
            b"\0\0\0\x20ftypisom#EXTM3U",
            b"\xff\xfb\x90\x64\0\0\0\nc=IN IP4",
            b"%PDF-1.7\n%\xe2\xe3",
            b"name;amount\nalice;12\n",
            b"About #EXTM3U and <MPD>\n",
            b"<svg xmlns=\"http://www.w3.org/2000/svg\"><path d=\"M0 0\"/></svg>",
            b"<!doctype html><p>x",
        ] {
            assert!(!is_playlist(file), "{file:?}");
            assert!(!is_playlist_text(&STANDARD.encode(file)), "{file:?}");
        }
        assert!(!is_playlist_text("data:,x") && !is_playlist_text("data:image/png;base64,AAAA"));
    }

    #[test]
    fn as_many_bytes_are_checked_as_a_decoder_checks() {
        let late = [vec![b'x'; LOOKED_AT], b"\nc=IN IP4 192.0.2.1".to_vec()].concat();
        assert!(!is_playlist(&late) && is_playlist(&late[10..]));
    }
}
