//! Says whether a string names a place that a model host could fetch from or connect to. Called by `walk` for every
//! string that isn't text for the model.
//!
//! URL parsers are lenient in different ways. Parsers that follow the WHATWG's standard drop tabs and line breaks, and
//! read `\` as `/` (<https://url.spec.whatwg.org/#url-parsing>). Python's parser accepts `<URL:…>`. Some parsers decode
//! percent-encoding first. So the string is first folded to the text that the most lenient parser would see.

use core::net::Ipv6Addr;

use percent_encoding::percent_decode_str;

/// How many characters of a string are checked. A parser would look for a place only at the beginning.
const LOOKED_AT: usize = 256;
/// The longest name of a host without a dot, in characters.
const LONGEST_HOST: usize = 32;

/// Schemes whose URLs are fetched with or without slashes after the colon.
const FETCHED: &[&str] = &["http", "https", "ws", "wss", "ftp", "ftps", "sftp", "file"];
/// Schemes of stores and protocols that some hosts fetch from. Another word before a colon counts as a scheme only if a
/// slash, a dot or a port follows.
const STORES: &[&str] = &[
    "abfs", "abfss", "adl", "az", "azure", "blob", "cos", "dbfs", "gcs", "git", "gopher", "grpc", "grpcs", "gs",
    "hdfs", "hf", "ipfs", "ipns", "jar", "jdbc", "ldap", "magnet", "nfs", "obs", "oci", "oss", "redis", "rtmp", "rtsp",
    "s3", "s3a", "s3n", "scp", "smb", "ssh", "swift", "tcp", "tos", "udp", "unix", "wasb", "wasbs", "webdav",
];

/// How much a value must look like a place to count as one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Certainty {
    /// For a name that the client made up, such as `user`: `session:123` is a name.
    Label,
    /// For a word of the API or an unknown value: `collector:443` is a place.
    Word,
}

/// Whether a value names a place: a URL of any scheme but `data:`, `//host`, a host with a port, or an IP address.
pub(super) fn names_place(text: &str, certainty: Certainty) -> bool {
    // Every place has at least one of these characters. Most words have none of them.
    let marks = |byte: u8| matches!(byte, b':' | b'/' | b'\\' | b'.' | b'%') || !(0x20..0x7f).contains(&byte);
    if !text.bytes().any(marks) || is_data_url(text) {
        return false;
    }
    if text.starts_with("//") && is_long_base64(text) {
        return false;
    }
    let folded = decoded(fold(text));
    let start = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '(' | '`' | '{');
    let mut folded = folded.trim_start_matches(start).trim_end();
    while let Some(rest) = folded.strip_prefix("url:").or(folded.strip_prefix("uri:")) {
        folded = rest.trim_start_matches(start);
    }
    names_folded(folded, certainty)
}

/// Whether a word of the API is the path of a file. Some hosts read a voice or a format from a file.
pub(super) fn names_path(word: &str) -> bool {
    // Few words are paths. Looking for a slash first is cheaper than searching for each beginning.
    let begins = |beginning: &str| word.starts_with(beginning);
    word.bytes().any(|byte| matches!(byte, b'/' | b'\\'))
        && (begins("/") || begins("~/") || begins("./") || word.contains("../") || word.contains("\\"))
}

/// Whether a text that begins with `//` is base64 and not a host. One base64 text in 4,096 begins with `//`.
fn is_long_base64(text: &str) -> bool {
    let host = text.trim_start_matches('/').split('/').next().unwrap_or_default();
    host.len() >= LONGEST_HOST && text.bytes().all(|byte| is_base64(byte) || matches!(byte, b'\n' | b'\r'))
}

/// Whether a text begins with `data:` for every URL parser.
pub(super) fn is_data_url(text: &str) -> bool {
    let text = text.trim_ascii_start();
    text.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:"))
}

pub(super) fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_' | b'=')
}

/// Whether a folded text names a place.
fn names_folded(text: &str, certainty: Certainty) -> bool {
    let is_bare = !text.contains(char::is_whitespace);
    if text.strip_prefix("//").is_some_and(|rest| !rest.trim_start_matches('/').is_empty())
        || is_bare && text.contains("://")
    {
        return true;
    }
    if let Some((scheme, rest)) = text.split_once(':')
        && is_scheme(scheme)
        && !rest.trim_start().is_empty()
    {
        let unknown = certainty == Certainty::Word && is_bare && rest.contains(['/', '.']);
        let known = FETCHED.contains(&scheme) || certainty == Certainty::Word && is_bare && STORES.contains(&scheme);
        if known || unknown || rest.starts_with('/') {
            return true;
        }
    }
    let end = text.find(['/', '?', '#']).unwrap_or(text.len());
    let (authority, path) = text.split_at(end);
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    names_host(authority.trim_end(), path, certainty)
}

/// Whether a text is a scheme (RFC 3986 §3.1). A single letter doesn't count, because it is a drive of Windows.
fn is_scheme(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    text.len() > 1 && text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.bytes().all(fits)
}

/// Whether an authority (RFC 3986 §3.2) is an IP address, or a host with a port.
fn names_host(authority: &str, path: &str, certainty: Certainty) -> bool {
    let is_v6 = |host: &str| host.split('%').next().unwrap_or(host).parse::<Ipv6Addr>().is_ok();
    if let Some(inner) = authority.strip_prefix('[') {
        return inner.split_once(']').is_some_and(|(host, _)| is_v6(host));
    }
    if authority.matches(':').count() > 1 {
        return is_v6(authority);
    }
    let is_port = |port: &str| (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit());
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) if is_port(port.trim()) => (host.trim_end(), true),
        Some(_) => return false,
        None => (authority, false),
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.is_empty() || host.contains(char::is_whitespace) {
        return false;
    }
    let numbers: Option<Vec<u64>> = host.split('.').map(number).collect();
    if let Some(numbers) = numbers {
        return is_address(&numbers, host, port || certainty == Certainty::Word && path.starts_with('/'));
    }
    if !port {
        return false;
    }
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_');
    let mut labels = host.split('.');
    let top = labels.next_back().unwrap_or_default();
    let is_top = top.starts_with("xn--") || top.chars().count() > 1 && top.chars().all(char::is_alphabetic);
    let is_host = host.split('.').all(|label| !label.is_empty() && label.chars().all(fits));
    let is_dotted = is_host && labels.next().is_some() && is_top;
    let is_single = is_host && !host.contains('.') && host.contains(char::is_alphabetic);
    is_dotted || host == "localhost" || is_single && certainty == Certainty::Word
}

/// A part of an IPv4 address as `inet_aton` reads it: decimal, octal or hexadecimal.
fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None if text.len() > 1 && text.starts_with('0') => u64::from_str_radix(text, 8).or_else(|_| text.parse()).ok(),
        None => text.parse().ok(),
    }
}

/// Whether numbers between dots are an IPv4 address. Four numbers are an address. Fewer numbers are an address only if
/// a port or a path follows (`marked`), or if one of several is hexadecimal: `2.5` isn't a place.
fn is_address(numbers: &[u64], host: &str, marked: bool) -> bool {
    let (Some(last), true) = (numbers.last(), numbers.len() <= 4) else { return false };
    let fits = numbers[..numbers.len() - 1].iter().all(|&number| number < 256) && *last <= u64::from(u32::MAX);
    let is_odd = numbers.len() > 1 && host.contains("0x");
    let is_whole = numbers.len() > 1 || *last >= 1 << 24;
    fits && (numbers.len() == 4 && *last < 256 || is_odd || marked && is_whole)
}

/// The beginning of a string as the most lenient parser sees it, in lower case.
pub(crate) fn lenient(text: &str) -> String {
    decoded(fold(text))
}

/// Whether every parser sees the string exactly as it is written.
pub(crate) fn is_plain(text: &str) -> bool {
    text.is_ascii() && !text.bytes().any(|byte| byte == b'%' || byte == b'\\' || byte.is_ascii_control())
}

/// The string as the most lenient parser sees it, before percent-decoding.
fn fold(text: &str) -> String {
    text.chars().filter_map(folded).take(LOOKED_AT).collect()
}

/// Folds a character; `None` if some parsers drop it.
fn folded(c: char) -> Option<char> {
    Some(match c {
        '\\' | '\u{2044}' | '\u{2215}' | '\u{2216}' | '\u{29f8}' | '\u{29f5}' | '\u{fe68}' | '\u{ff3c}' => '/',
        '\u{3002}' | '\u{ff61}' | '\u{fe52}' | '\u{2024}' => '.',
        '\u{fe55}' | '\u{fe13}' | '\u{a789}' | '\u{2236}' => ':',
        '\u{fe6a}' | '\u{66a}' => '%',
        '\u{24ea}' => '0',
        // Circled digits. Names of hosts may be written with them (UTS #46).
        '\u{2460}'..='\u{2468}' => char::from_digit(c as u32 - 0x245f, 10)?,
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(c as u32 - 0xfee0)?.to_ascii_lowercase(),
        '\u{ad}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' => {
            return None;
        }
        '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{e0000}'..='\u{e0fff}' => return None,
        _ if c.is_control() => return None,
        _ if c.is_whitespace() => ' ',
        _ => c.to_ascii_lowercase(),
    })
}

/// Decodes percent-encoding, up to three times.
fn decoded(mut text: String) -> String {
    for _ in 0..3 {
        if !text.contains('%') {
            break;
        }
        text = fold(&percent_decode_str(&text).decode_utf8_lossy());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_found_however_they_are_written() {
        for text in [
            "https://a.example/x",
            "HTTPS://A",
            " \t\u{0}https://a",
            "ht\ntps://a",
            "h\u{200b}ttps://a",
            "https:a.example",
            "https:\\\\a",
            "http:/a",
            "weird+scheme.1://a",
            "gs://bucket/x",
            "s3://b",
            "file:///etc/passwd",
            "//a.example/x",
            "\\\\a\\share",
            "\\/a.example",
            "<https://a>",
            "URL:https://a",
            "blob:https://a",
            "x,https://a",
            "ｈｔｔｐｓ：／／ａ",
            "https%3A%2F%2Fa",
            "https%253A%252F%252Fa",
            "%68ttps://a",
            "a.example:443",
            "user@a.example:22",
            "a.example:443/x",
            "localhost:80",
            "192.0.2.1",
            "192.0.2.1:80",
            "192.0.2.1/x",
            "192.0.2.1.",
            "192。0。2。1",
            "①⑨②.0.2.1",
            "0300.0.2.1",
            "0xc0.0.2.1",
            "0x7f.1",
            "127.1:80",
            "3221225985:80",
            "2001:db8::1",
            "[2001:db8::1]",
            "[2001:db8::1]:443",
            "fe80::1%eth0",
            "[fe80::1%25eth0]:80",
            "::ffff:192.0.2.1",
        ] {
            assert!(names_place(text, Certainty::Label), "{text}");
            assert!(names_place(text, Certainty::Word), "{text}");
        }
        for text in ["collector:443", "collector:443/x", "s3:bucket", "gs:b/x", "foo:bar.example/x", "3221225985/x"] {
            assert!(names_place(text, Certainty::Word), "{text}");
            assert!(!names_place(text, Certainty::Label), "{text}");
        }
    }

    #[test]
    fn values_that_name_no_place_pass() {
        for text in [
            "",
            "auto",
            "json_schema",
            "1024x1024",
            "16:9",
            "12:30:45",
            "2024-01-01T00:00:00Z",
            "2.5",
            "1.0.0",
            "gpt-4.1-mini",
            "qwen2.5:14b",
            "America/New_York",
            "/v1/chat/completions",
            "text/plain; charset=utf-8",
            "message.input_image.image_url",
            "data:image/png;base64,//8=",
            " DATA:,https://a",
            "a note: see the file",
            "C:\\x",
            "100%",
            "50%25",
            "file-abc_1",
            "urn:uuid:1",
            "é",
        ] {
            assert!(!names_place(text, Certainty::Word), "{text}");
        }
        for text in
            ["session:123", "acct:a@b.example", "google-oauth2|1", "mailto:a@b.example", "call:1", "sha256:ab/c"]
        {
            assert!(!names_place(text, Certainty::Label), "{text}");
        }
        let mp3 = format!("//uQ{}", "A".repeat(96));
        assert!(!names_place(&mp3, Certainty::Word));
    }

    #[test]
    fn words_that_are_paths_are_found() {
        for word in ["/etc/passwd", "~/x", "./x", "../x", "a/../b", "C:\\x", "a\\b"] {
            assert!(names_path(word), "{word}");
        }
        for word in ["", "alloy", "a/b", "1.5", ".", "a..b", "image/png"] {
            assert!(!names_path(word), "{word}");
        }
    }

    #[test]
    fn a_long_string_costs_little_and_hides_nothing() {
        let long = format!("{}https://a", "\n".repeat(1_000_000));
        assert!(names_place(&long, Certainty::Label));
        assert!(!names_place(&"a.b ".repeat(1_000_000), Certainty::Word));
    }
}
