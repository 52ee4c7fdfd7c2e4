//! Multipart forms (RFC 7578). Takes a client's bytes, returns checked parts. Called by `serve` and `uploads`.
//!
//! [`Splitter`] cuts a body into parts, chunk by chunk. The splitter accepts less than RFC 2046 allows. The form for
//! the endpoint is written anew, with a boundary of our own ([`write_head`]). So this Worker and the endpoint always
//! agree where a part ends; otherwise a client could hide a field from inspection. [`form::Form`] is a form that is
//! held in memory as a whole. [`upload::Upload`] is a form whose `file` is streamed.

mod filename;
pub(crate) mod form;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod upload;

use crate::decide::envelope::Failure;

/// The longest header section of a part, in bytes.
const LONGEST_HEAD: usize = 8 << 10;
/// The most parts of a form.
const MAX_PARTS: usize = 64;
/// The longest boundary (RFC 2046 §5.1.1).
const LONGEST_BOUNDARY: usize = 70;

/// The error for a part that declares another charset than UTF-8: the endpoint might read another text than was judged.
const OTHER_CHARSET: &str = "a part is said to be of another charset than UTF-8";

/// The bytes that the splitter puts before a body, so that the first boundary looks like the others.
const PREFIX: &[u8] = b"\r\n";

/// What the edge uses of a part's headers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Head {
    /// The field's name.
    pub(crate) name: String,
    /// A file's name, in plain characters.
    pub(crate) filename: Option<String>,
    /// The part's `Content-Type`, if [`is_plain_type`].
    pub(crate) content_type: Option<String>,
}

impl Head {
    /// Whether the `Content-Type` names another charset than UTF-8. An endpoint that decodes the part by that charset
    /// would read another text than was judged here.
    fn is_of_another_charset(&self) -> bool {
        let parameters = self.content_type.iter().flat_map(|kind| kind.split(';').skip(1));
        let is_other = |parameter: &str| {
            let (name, charset) = parameter.split_once('=').unwrap_or((parameter, ""));
            let is_charset = name.trim().eq_ignore_ascii_case("charset");
            is_charset && !["utf-8", "utf8", "us-ascii"].iter().any(|utf8| charset.trim().eq_ignore_ascii_case(utf8))
        };
        parameters.into_iter().any(is_other)
    }

    /// Refuses a part in another charset than UTF-8, and the field `_charset_`, which sets the charset of all parts
    /// (RFC 7578 §4.6).
    fn check_charset(&self) -> Result<(), Failure> {
        let is_refused = self.is_of_another_charset() || self.name.eq_ignore_ascii_case("_charset_");
        if is_refused { Err(bad(OTHER_CHARSET)) } else { Ok(()) }
    }
}

/// The pieces of a body, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Piece {
    /// A part begins.
    Begin(Head),
    /// Some bytes of the part.
    Data(Vec<u8>),
    /// The part ends.
    End,
}

/// Cuts a body into parts.
#[derive(Debug)]
pub(crate) struct Splitter {
    /// CRLF, two hyphens and the boundary.
    delimiter: Vec<u8>,
    /// The bytes that were received and not yet returned in a piece.
    pending: Vec<u8>,
    /// How many bytes were removed from the front of `pending`, [`PREFIX`] included.
    taken: usize,
    state: State,
    /// How many parts have begun.
    parts: usize,
}

/// What `pending` begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// The two bytes directly after a boundary: CRLF, or two hyphens after the last boundary.
    Boundary,
    /// The headers of a part.
    Head,
    /// The content of a part, or [`PREFIX`] and the first boundary.
    Body,
    /// Bytes after the last boundary.
    Closed,
}

/// The error for an invalid form.
fn bad(what: &'static str) -> Failure {
    Failure::BadForm { what }
}

impl Splitter {
    /// Starts to read a body with this `Content-Type`.
    ///
    /// # Errors
    /// 400 if it isn't `multipart/form-data` with a boundary.
    pub(crate) fn new(content_type: &str) -> Result<Self, Failure> {
        let boundary =
            boundary(content_type).ok_or(bad("the Content-Type isn't multipart/form-data with a boundary"))?;
        let delimiter = format!("\r\n--{boundary}").into_bytes();
        Ok(Self { delimiter, pending: PREFIX.to_vec(), taken: 0, state: State::Body, parts: 0 })
    }

    /// Takes the next chunk of the body, returns the pieces that it completes.
    ///
    /// # Errors
    /// 400 if the body isn't a form, or has too many parts.
    pub(crate) fn push(&mut self, chunk: &[u8]) -> Result<Vec<Piece>, Failure> {
        self.feed(chunk);
        let mut pieces = Vec::new();
        while let Some(piece) = self.next()? {
            pieces.push(piece);
        }
        Ok(pieces)
    }

    /// Takes the next chunk of the body; [`Splitter::next`] then returns its pieces.
    fn feed(&mut self, chunk: &[u8]) {
        self.pending.extend_from_slice(chunk);
    }

    /// The offset in the body where the next piece begins. After [`Piece::Begin`], that is where the part's content
    /// begins.
    fn position(&self) -> usize {
        self.taken.saturating_sub(PREFIX.len())
    }

    /// Removes bytes from the front of `pending`.
    fn take(&mut self, length: usize) -> Vec<u8> {
        self.taken += length;
        self.pending.drain(..length).collect()
    }

    /// Returns the next piece; `None` if the next piece needs more of the body.
    fn next(&mut self) -> Result<Option<Piece>, Failure> {
        loop {
            match self.state {
                State::Boundary => {
                    let Some(after_boundary) = self.pending.get(..2) else { return Ok(None) };
                    self.state = match after_boundary {
                        b"\r\n" => State::Head,
                        b"--" => State::Closed,
                        _ => return Err(bad("a boundary is followed by something else than the end of its line")),
                    };
                    self.take(2);
                }
                State::Head => return self.next_head(),
                State::Body => {
                    let delimiter_at = find(&self.pending, &self.delimiter);
                    // The last bytes of `pending` may be the start of a delimiter. All bytes before them are content.
                    let content = delimiter_at.unwrap_or(self.pending.len().saturating_sub(self.delimiter.len() - 1));
                    if self.parts == 0 {
                        if delimiter_at.is_none() && self.pending.len() < self.delimiter.len() {
                            return Ok(None);
                        }
                        if delimiter_at != Some(0) {
                            return Err(bad("the body doesn't begin with the boundary of its Content-Type"));
                        }
                    } else if content > 0 {
                        return Ok(Some(Piece::Data(self.take(content))));
                    }
                    if delimiter_at.is_none() {
                        return Ok(None);
                    }
                    self.take(self.delimiter.len());
                    self.state = State::Boundary;
                    if self.parts > 0 {
                        return Ok(Some(Piece::End));
                    }
                }
                State::Closed => {
                    if self.pending.iter().any(|byte| !matches!(byte, b'\r' | b'\n')) {
                        return Err(bad("something follows the last boundary"));
                    }
                    self.take(self.pending.len());
                    return Ok(None);
                }
            }
        }
    }

    /// Returns the headers of a part as a piece; `None` if `pending` doesn't hold all of them yet.
    fn next_head(&mut self) -> Result<Option<Piece>, Failure> {
        let end = find(&self.pending, b"\r\n\r\n");
        if end.unwrap_or(self.pending.len()) > LONGEST_HEAD {
            return Err(bad("the headers of a part are too long"));
        }
        let Some(end) = end else { return Ok(None) };
        self.parts += 1;
        if self.parts > MAX_PARTS {
            return Err(bad("there are more than 64 parts"));
        }
        let mut lines = self.take(end + 4);
        lines.truncate(end);
        self.state = State::Body;
        head(&lines).map(Piece::Begin).map(Some)
    }

    /// Checks that the body is complete.
    ///
    /// # Errors
    /// 400 if the last boundary is missing.
    pub(crate) fn end(&self) -> Result<(), Failure> {
        if self.state == State::Closed { Ok(()) } else { Err(bad("the body ends before its last boundary")) }
    }
}

/// Writes a boundary and the headers of the part after it. The `first` boundary of a body has no line break before it.
pub(crate) fn write_head(out: &mut Vec<u8>, boundary: &str, head: &Head, first: bool) {
    let mut text = format!(
        "{}--{boundary}\r\nContent-Disposition: form-data; name=\"{}\"",
        if first { "" } else { "\r\n" },
        head.name
    );
    if let Some(filename) = &head.filename {
        text.push_str(&format!("; filename=\"{filename}\""));
    }
    if let Some(content_type) = &head.content_type {
        text.push_str(&format!("\r\nContent-Type: {content_type}"));
    }
    text.push_str("\r\n\r\n");
    out.extend_from_slice(text.as_bytes());
}

/// Writes the last boundary.
pub(crate) fn write_end(out: &mut Vec<u8>, boundary: &str) {
    out.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
}

/// Whether a `Content-Type` is `multipart/form-data`, with any parameters.
#[must_use]
pub(crate) fn is_form(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default();
    kind.trim().eq_ignore_ascii_case("multipart/form-data")
}

/// The boundary that a `Content-Type` names; `None` for other types, an invalid boundary or several boundaries.
fn boundary(content_type: &str) -> Option<&str> {
    if !is_form(content_type) {
        return None;
    }
    let mut boundaries = content_type.split(';').skip(1).filter_map(|parameter| {
        let (name, value) = parameter.trim().split_once('=')?;
        name.trim().eq_ignore_ascii_case("boundary").then(|| value.trim())
    });
    let value = boundaries.next()?;
    let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=?".contains(&byte);
    ((1..=LONGEST_BOUNDARY).contains(&value.len()) && value.bytes().all(is_allowed) && boundaries.next().is_none())
        .then_some(value)
}

/// Reads the header lines of a part.
fn head(bytes: &[u8]) -> Result<Head, Failure> {
    // A file's name may hold bytes that aren't UTF-8. All other values are checked to be ASCII below.
    let text = String::from_utf8_lossy(bytes);
    let (mut disposition, mut content_type) = (None, None);
    for line in text.split("\r\n") {
        if line.starts_with([' ', '\t']) || line.contains(['\r', '\n']) {
            return Err(bad("a part has a header that goes over several lines"));
        }
        if line.contains('\0') {
            return Err(bad("a part has a header with a NUL byte"));
        }
        let (name, value) = line.split_once(':').ok_or(bad("a part has a header without a colon"))?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-disposition") {
            if disposition.replace(value).is_some() {
                return Err(bad("a part has two Content-Disposition headers"));
            }
        } else if name.eq_ignore_ascii_case("content-type") {
            content_type = Some(value);
        } else if name.eq_ignore_ascii_case("content-transfer-encoding")
            && !["binary", "8bit", "7bit"].iter().any(|plain| value.eq_ignore_ascii_case(plain))
        {
            return Err(bad("a part is encoded; send it as it is"));
        }
    }
    let disposition = disposition.ok_or(bad("a part has no Content-Disposition"))?;
    let (kind, mut rest) = disposition.split_at(disposition.find(';').unwrap_or(disposition.len()));
    if !kind.trim().eq_ignore_ascii_case("form-data") {
        return Err(bad("a part's Content-Disposition isn't form-data"));
    }
    let (mut name, mut filename, mut extended) = (None, None, None);
    while let Some((key, value, after)) = parameter(rest) {
        let slot = match key.to_ascii_lowercase().as_str() {
            "name" => &mut name,
            "filename" => &mut filename,
            "filename*" => &mut extended,
            // The continuations of RFC 2231 §3. Software that doesn't know them takes the file for a plain field.
            continued if continued.starts_with("filename*") => {
                return Err(bad("a file's name comes in pieces (filename*0); send it whole"));
            }
            _ => &mut None,
        };
        if slot.replace(value).is_some() {
            return Err(bad("a part's Content-Disposition says something twice"));
        }
        rest = after;
    }
    if !rest.trim().is_empty() {
        return Err(bad("a part's Content-Disposition can't be read"));
    }
    let is_name = |name: &String| {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.[]".contains(&byte);
        (1..=64).contains(&name.len()) && name.bytes().all(is_allowed)
    };
    let name = name.filter(is_name).ok_or(bad("a part has no name, or one that no field of the model API has"))?;
    Ok(Head {
        name,
        filename: filename::choose(filename.as_deref(), extended.as_deref()),
        content_type: content_type.filter(|kind| is_plain_type(kind)).map(str::to_owned),
    })
}

/// Reads `; key="value"` or `; key=value`. Returns the key, the value, and the rest of the text.
fn parameter(text: &str) -> Option<(&str, String, &str)> {
    let text = text.trim_start().strip_prefix(';')?.trim_start();
    let (key, rest) = text.split_once('=')?;
    let rest = rest.trim_start();
    let Some(quoted) = rest.strip_prefix('"') else {
        let end = rest.find(';').unwrap_or(rest.len());
        return Some((key.trim(), rest[..end].trim().to_owned(), &rest[end..]));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((key.trim(), value, &quoted[at + 1..])),
            // Old clients escape `"` and `\` by a backslash. A backslash before any other character belongs to a
            // Windows path.
            '\\' if quoted[at + 1..].starts_with(['"', '\\']) => value.extend(characters.next().map(|(_, next)| next)),
            other => value.push(other),
        }
    }
    None
}

/// Whether a `Content-Type` can be written into a header as it is, and isn't a form within the form.
fn is_plain_type(kind: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&^_.+-/;= ".contains(&byte);
    let is_plain = (3..=100).contains(&kind.len()) && kind.bytes().all(is_allowed);
    is_plain && !kind.to_ascii_lowercase().starts_with("multipart/")
}

/// The offset of the first occurrence of `word`.
fn find(bytes: &[u8], word: &[u8]) -> Option<usize> {
    let (first, _) = word.split_first()?;
    let mut from = 0;
    while let Some(at) = bytes.get(from..)?.iter().position(|byte| byte == first) {
        if bytes[from + at..].starts_with(word) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}
