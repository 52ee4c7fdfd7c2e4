//! Checks an upload while it passes: a file to `/files`, or a part of a file to `/uploads`. Takes a client's chunks,
//! returns the chunks for the endpoint. The file is never held as a whole. Called by `runtime::uploads`.
//!
//! The official clients send fields after the file. So a part of the file is sent to an endpoint of the client's fence
//! (the regions that may process the client) before the purpose of the file is known. If the purpose isn't allowed, the
//! upload is still refused: the body ends before its last boundary, and an endpoint ignores an incomplete form.

use bailiwick_rules::rules::Allowance;

use super::{Head, OTHER_CHARSET, Piece, Splitter, bad, write_end, write_head};
use crate::decide::batch::BatchInput;
use crate::decide::body::engine::Engines;
use crate::decide::body::purpose::check_purpose;
use crate::decide::body::{Needs, fault, field};
use crate::decide::envelope::{Failure, FieldFault};

/// The longest field besides the file, in bytes.
const LONGEST_FIELD: usize = 4 << 10;

/// The kind of upload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum UploadKind {
    /// A file with its purpose.
    File,
    /// A part of a file. The purpose was sent earlier.
    Part,
}

impl UploadKind {
    /// The part of the form that is streamed.
    fn file_field(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Part => "data",
        }
    }

    /// The required fields, each with the error message if it is missing.
    fn needs(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::File => &[("file", "there is no \"file\""), ("purpose", "there is no \"purpose\"")],
            Self::Part => &[("data", "there is no \"data\"")],
        }
    }
}

/// Checks an upload, chunk by chunk.
#[derive(Debug)]
pub(crate) struct Upload {
    kind: UploadKind,
    splitter: Splitter,
    boundary: String,
    allow: Vec<Allowance>,
    /// The names of the fields that have begun so far, in lower case.
    seen: Vec<String>,
    /// The current field; `None` within the file.
    field: Option<(Head, Vec<u8>)>,
    begun: bool,
    /// Whether the file is a batch's input; `None` until the purpose is known.
    is_batch: Option<bool>,
    /// Checks the lines of a batch, if the service allows batches.
    lines: Option<BatchInput>,
    /// The first mistake in a line. It is kept until the purpose says whether the file is a batch's input.
    line_failure: Option<Failure>,
}

impl Upload {
    /// Starts an upload with this `Content-Type`. The endpoint's form gets the unpredictable `boundary`.
    ///
    /// # Errors
    /// 400 if the `Content-Type` isn't that of a form.
    pub(crate) fn new(
        kind: UploadKind,
        content_type: &str,
        boundary: String,
        allow: &[Allowance],
    ) -> Result<Self, Failure> {
        let splitter = Splitter::new(content_type)?;
        Ok(Self {
            kind,
            splitter,
            boundary,
            allow: allow.to_vec(),
            seen: Vec::new(),
            field: None,
            begun: false,
            is_batch: None,
            lines: None,
            line_failure: None,
        })
    }

    /// Sets the checker of a batch's lines.
    ///
    /// If the file comes before its purpose, it is treated as a batch's input. If the file turns out to have another
    /// purpose, and a line was rewritten, the upload is refused.
    #[must_use]
    pub(crate) fn with_lines(self, lines: Option<BatchInput>) -> Self {
        Self { lines: lines.filter(|_| self.kind == UploadKind::File), ..self }
    }

    /// Takes a chunk, and returns what may be sent on.
    ///
    /// # Errors
    /// 400 if the body isn't an upload, or if the purpose isn't allowed. 413 if a field is too long.
    pub(crate) fn push(&mut self, chunk: &[u8]) -> Result<Vec<u8>, Failure> {
        let mut out = Vec::with_capacity(chunk.len() + 256);
        for piece in self.splitter.push(chunk)? {
            match piece {
                Piece::Begin(head) => self.begin(head, &mut out)?,
                Piece::Data(data) => match &mut self.field {
                    None => self.file(&data, &mut out)?,
                    Some((_, value)) => {
                        value.extend_from_slice(&data);
                        if value.len() > LONGEST_FIELD {
                            return Err(Failure::BodyTooLarge { limit: LONGEST_FIELD as u64 });
                        }
                    }
                },
                Piece::End => {
                    if let Some((head, value)) = self.field.take() {
                        self.check(&head, &value)?;
                        self.write_head(&mut out, &head);
                        out.extend_from_slice(&value);
                    } else {
                        self.end_file(&mut out)?;
                    }
                }
            }
        }
        Ok(out)
    }

    /// Returns the last bytes, after the client's body has ended.
    ///
    /// # Errors
    /// 400 if the body is incomplete, or lacks the file or its purpose.
    pub(crate) fn finish(&self) -> Result<Vec<u8>, Failure> {
        self.splitter.end()?;
        for (name, what) in self.kind.needs() {
            if !self.seen.iter().any(|seen| seen == name) {
                return Err(Failure::BadForm { what });
            }
        }
        let mut out = Vec::new();
        write_end(&mut out, &self.boundary);
        Ok(out)
    }

    /// Begins a part of the form: checks its name, and writes its head if it is the file.
    fn begin(&mut self, head: Head, out: &mut Vec<u8>) -> Result<(), Failure> {
        let name = head.name.to_ascii_lowercase();
        for known in [self.kind.file_field(), "purpose"] {
            // Some servers read `purpose[]` as a second purpose.
            if field::base(&name) == known && name != known {
                return Err(fault::unknown(head.name));
            }
            if name == known && head.name != known {
                return Err(Failure::MiscasedKey { key: known });
            }
        }
        if self.seen.contains(&name) {
            return Err(Failure::DuplicateKey { key: head.name });
        }
        let is_file = name == self.kind.file_field();
        self.seen.push(name);
        if is_file {
            if head.is_of_another_charset() && self.lines.is_some() && self.is_batch != Some(false) {
                self.take_line_result(Err(bad(OTHER_CHARSET)), out)?;
            }
            let filename = head.filename.or_else(|| Some("file".to_owned()));
            self.write_head(out, &Head { filename, ..head });
        } else if head.filename.is_some() {
            return Err(Failure::BadForm { what: "a file stands where a plain field belongs" });
        } else {
            head.check_charset()?;
            self.field = Some((head, Vec::new()));
        }
        Ok(())
    }

    /// Checks a plain field of the form.
    fn check(&mut self, head: &Head, value: &[u8]) -> Result<(), Failure> {
        let text = core::str::from_utf8(value).map_err(|_| Failure::BadForm { what: "a field isn't UTF-8" })?;
        if head.name == "purpose" {
            check_purpose(text, self.allow.contains(&Allowance::Batch))?;
            let is_batch = text.starts_with("batch");
            self.is_batch = Some(is_batch);
            let line_failure = self.line_failure.take().filter(|_| is_batch);
            let has_changed = self.lines.as_ref().is_some_and(BatchInput::has_changed);
            if let Some(line_failure) = line_failure {
                return Err(line_failure);
            }
            if !is_batch && has_changed {
                return Err(Failure::BadForm { what: ORDER });
            }
        }
        let Needs { engines, field, .. } = field::check(&["files"], &head.name, text, &self.allow)?;
        // Engines have no own fields for uploads, so a field that only some engines know is refused.
        let known = engines == Engines::ALL;
        if known { Ok(()) } else { Err(Failure::UnknownField { field, odd: FieldFault::Undocumented }) }
    }

    /// Takes bytes of the file.
    fn file(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<(), Failure> {
        let Some(lines) = self.lines.as_mut().filter(|_| self.is_batch != Some(false) && self.line_failure.is_none())
        else {
            out.extend_from_slice(data);
            return Ok(());
        };
        let passed = lines.pass(data, out);
        self.take_line_result(passed, out)
    }

    /// Ends the file: checks its last line, if it has lines to check.
    fn end_file(&mut self, out: &mut Vec<u8>) -> Result<(), Failure> {
        let Some(lines) = self.lines.as_mut().filter(|_| self.is_batch != Some(false) && self.line_failure.is_none())
        else {
            return Ok(());
        };
        let passed = lines.finish(out);
        self.take_line_result(passed, out)
    }

    /// Handles the result of checking lines. A wrong line matters only if the file is a batch's input. Until that is
    /// known, the first mistake is kept, and the rest of the file passes unchanged.
    fn take_line_result(&mut self, passed: Result<(), Failure>, out: &mut Vec<u8>) -> Result<(), Failure> {
        let Err(failure) = passed else { return Ok(()) };
        if self.is_batch.is_some() || failure == Failure::Busy {
            return Err(failure);
        }
        self.line_failure = Some(failure);
        out.extend(self.lines.as_mut().map(BatchInput::take_held).unwrap_or_default());
        Ok(())
    }

    /// Writes the head of a part, with a boundary before it.
    fn write_head(&mut self, out: &mut Vec<u8>, head: &Head) {
        write_head(out, &self.boundary, head, !core::mem::replace(&mut self.begun, true));
    }
}

/// The error if a file was rewritten as a batch's input, and the `purpose` after it is another purpose.
const ORDER: &str =
    "the file reads like a batch's input, but the purpose after it is another; put \"purpose\" before \"file\"";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::batch::tests::named_lines;
    use crate::decide::multipart::tests::{TYPE, body};

    fn pass(parts: &[(&str, &[u8])], allow: &[Allowance]) -> Result<Vec<u8>, Failure> {
        pass_as(UploadKind::File, parts, allow)
    }

    fn pass_as(kind: UploadKind, parts: &[(&str, &[u8])], allow: &[Allowance]) -> Result<Vec<u8>, Failure> {
        let mut upload = Upload::new(kind, TYPE, "XX".into(), allow)?;
        let mut out = Vec::new();
        for chunk in body(parts).chunks(7) {
            out.extend(upload.push(chunk)?);
        }
        out.extend(upload.finish()?);
        Ok(out)
    }

    #[test]
    fn an_upload_passes_in_either_order() {
        let file: (&str, &[u8]) = ("file:a.jsonl", b"{}\r\n--X\r\n{}");
        let fields: [(&str, &[u8]); 2] = [("purpose", b"user_data"), ("expires_after[seconds]", b"3600")];
        for parts in [[file, fields[0], fields[1]], [fields[0], file, fields[1]]] {
            assert_eq!(pass(&parts, &[]).unwrap(), body(&parts));
        }
        assert_eq!(pass(&[("file", b"x"), fields[0]], &[]).unwrap(), body(&[("file:file", b"x"), fields[0]]));
    }

    #[test]
    fn the_file_is_not_held() {
        let mut upload = Upload::new(UploadKind::File, TYPE, "XX".into(), &[]).unwrap();
        let whole = body(&[("purpose", b"user_data"), ("file:a", &vec![b'x'; 1_000_000])]);
        let mut behind = 0usize;
        for chunk in whole.chunks(10_000) {
            behind = (behind + chunk.len()).saturating_sub(upload.push(chunk).unwrap().len());
            assert!(behind < 300, "{behind} bytes held");
        }
    }

    #[test]
    fn a_part_of_a_file_needs_no_purpose() {
        let part = |parts: &[(&str, &[u8])]| pass_as(UploadKind::Part, parts, &[]);
        assert_eq!(part(&[("data:blob", b"\r\n--X")]).unwrap(), body(&[("data:blob", b"\r\n--X")]));
        assert_eq!(
            part(&[("file:a", b"x")]),
            Err(Failure::BadForm { what: "a file stands where a plain field belongs" })
        );
        assert_eq!(part(&[("x", b"1")]), Err(Failure::BadForm { what: "there is no \"data\"" }));
        assert_eq!(part(&[("data:a", b"x"), ("purpose", b"batch")]), Err(Failure::Batch));
        assert_eq!(part(&[("data:a", b"x"), ("Data", b"x")]), Err(Failure::MiscasedKey { key: "data" }));
    }

    #[test]
    fn the_lines_of_a_batch_are_judged_before_or_after_the_purpose() {
        let send = |parts: &[(&str, &[u8])], size: usize| -> Result<Vec<u8>, Failure> {
            let upload = Upload::new(UploadKind::File, TYPE, "XX".into(), &[Allowance::Batch])?;
            let mut upload = upload.with_lines(Some(named_lines()));
            let mut out = Vec::new();
            for chunk in body(parts).chunks(size) {
                out.extend(upload.push(chunk)?);
            }
            out.extend(upload.finish()?);
            Ok(out)
        };
        let line = |model: &str| {
            let body = format!("{{\"model\":\"{model}\",\"messages\":[]}}");
            format!("{{\"custom_id\":\"1\",\"url\":\"/v1/chat/completions\",\"body\":{body}}}\n").into_bytes()
        };
        // The endpoint's map of models has `chat`, which the endpoint calls `llama`, but not `gpt`.
        let (sent, rewritten, unknown) = (line("chat"), line("llama"), line("gpt"));
        let batch = ("purpose", &b"batch"[..]);
        let data = ("purpose", &b"user_data"[..]);
        fn file(bytes: &[u8]) -> (&str, &[u8]) {
            ("file:a.jsonl", bytes)
        }
        for size in [1, 9, 10_000] {
            assert_eq!(send(&[batch, file(&sent)], size).unwrap(), body(&[batch, file(&rewritten)]));
            assert_eq!(send(&[file(&sent), batch], size).unwrap(), body(&[file(&rewritten), batch]));
            assert_eq!(send(&[data, file(&sent)], size).unwrap(), body(&[data, file(&sent)]), "the client's own data");
            assert_eq!(send(&[file(&sent), data], size), Err(Failure::BadForm { what: ORDER }));
            for bytes in [
                &unknown[..],
                &[&unknown[..], b"{}\n\x00", &sent].concat(),
                b"no lines of a batch: [{\"N",
                &sent[..sent.len() - 6],
                &sent[..30],
            ] {
                assert_eq!(send(&[file(bytes), data], size).unwrap(), body(&[file(bytes), data]), "{bytes:?}");
            }
            let failure = Failure::BatchModel { line: 1, model: "gpt".into() };
            assert_eq!(send(&[batch, file(&unknown)], size), Err(failure.clone()));
            assert_eq!(send(&[file(&unknown), batch], size), Err(failure));
            assert_eq!(send(&[batch, file(b"{\n}")], size), Err(Failure::BatchLine { line: 1 }));
            assert_eq!(send(&[file(b"{"), batch], size), Err(Failure::BatchLine { line: 1 }));
        }
    }

    #[test]
    fn a_batch_of_another_charset_is_refused_before_or_after_the_purpose() {
        let line = b"{\"url\":\"/v1/chat/completions\",\"body\":{\"model\":\"embed\",\"messages\":[]}}\n";
        let part = |name: &str, kind: Option<&str>, data: &[u8]| {
            let filename = (name == "file").then(|| "a.jsonl".to_owned());
            let head = Head { name: name.into(), filename, content_type: kind.map(str::to_owned) };
            (head, data.to_vec())
        };
        let send = |parts: &[(Head, Vec<u8>)]| {
            let (mut form, mut out) = (Vec::new(), Vec::new());
            for (position, (head, data)) in parts.iter().enumerate() {
                write_head(&mut form, "XX", head, position == 0);
                form.extend_from_slice(data);
            }
            write_end(&mut form, "XX");
            let upload = Upload::new(UploadKind::File, TYPE, "XX".into(), &[Allowance::Batch])?;
            let mut upload = upload.with_lines(Some(named_lines()));
            for chunk in form.chunks(50) {
                out.extend(upload.push(chunk)?);
            }
            out.extend(upload.finish()?);
            assert_eq!(out, form);
            Ok(())
        };
        let refused = Err(Failure::BadForm { what: OTHER_CHARSET });
        let purpose = |purpose: &str| part("purpose", None, purpose.as_bytes());
        for kind in ["text/plain; charset=utf-16", "text/plain;Charset=UTF-7", "a/b; charset=utf-8; charset=latin1"] {
            let file = part("file", Some(kind), line);
            assert_eq!(send(&[purpose("batch"), file.clone()]), refused, "{kind}");
            assert_eq!(send(&[file.clone(), purpose("batch")]), refused, "{kind}");
            assert_eq!(send(&[purpose("user_data"), file.clone()]), Ok(()), "the client's own file");
            assert_eq!(send(&[file, purpose("user_data")]), Ok(()), "the client's own file");
            assert_eq!(send(&[part("purpose", Some(kind), b"batch"), part("file", None, line)]), refused, "{kind}");
        }
        for kind in ["application/jsonl", "text/plain; charset=utf-8", "text/plain; charset=US-ASCII"] {
            assert_eq!(send(&[purpose("batch"), part("file", Some(kind), line)]), Ok(()), "{kind}");
        }
        assert_eq!(send(&[part("_charset_", None, b"utf-16"), purpose("batch")]), refused);
    }

    #[test]
    fn an_upload_that_is_not_allowed_never_becomes_complete() {
        let refusal = |parts: &[(&str, &[u8])]| pass(parts, &[]).unwrap_err();
        let url: [(&str, &[u8]); 2] = [("purpose", b"user_data"), ("file_url", b"https://a.example/")];
        assert_eq!(refusal(&url), Failure::RemoteUrl { field: "file_url".into() });
        let odd: [(&str, &[u8]); 2] = [("purpose", b"user_data"), ("note", b"mine")];
        assert_eq!(refusal(&odd), Failure::UnknownField { field: "note".into(), odd: FieldFault::Undocumented });
        assert_eq!(refusal(&[("file:a", b"x"), ("purpose", b"batch")]), Failure::Batch);
        assert!(pass(&[("purpose", b"batch"), ("file:a", b"x")], &[Allowance::Batch]).is_ok());
        assert!(matches!(refusal(&[("purpose", b" batch"), ("file:a", b"x")]), Failure::BadField { .. }));
        assert!(matches!(refusal(&[("purpose", b"Batch"), ("file:a", b"x")]), Failure::BadField { .. }));
        let twice: [(&str, &[u8]); 3] = [("purpose", b"evals"), ("file:a", b"x"), ("purpose", b"batch")];
        assert_eq!(refusal(&twice), Failure::DuplicateKey { key: "purpose".into() });
        assert_eq!(refusal(&[("Purpose", b"batch")]), Failure::MiscasedKey { key: "purpose" });
        for name in ["purpose[]", "Purpose[0]", "purpose.x", "file[]"] {
            let odd = Failure::UnknownField { field: name.into(), odd: FieldFault::Undocumented };
            assert_eq!(refusal(&[("purpose", b"user_data"), (name, b"batch"), ("file:a", b"x")]), odd);
        }
        assert!(matches!(refusal(&[("purpose:x", b"batch")]), Failure::BadForm { .. }));
        assert!(matches!(refusal(&[("file:a", b"x")]), Failure::BadForm { .. }));
        assert!(matches!(refusal(&[("purpose", b"evals")]), Failure::BadForm { .. }));
        assert_eq!(refusal(&[("purpose", &[b'x'; 5_000])]), Failure::BodyTooLarge { limit: 4_096 });
    }
}
