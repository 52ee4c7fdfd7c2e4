//! A form that is held whole, as audio and images are sent: a body in, what the edge has to know of it and the bytes for each
//! endpoint out.

use bailiwick_rules::rules::Allowance;

use super::{Head, Piece, Splitter, write_end, write_head};
use crate::body;
use crate::envelope::Failure;
use crate::state::fields::{Field, field};

/// Fields that decide something here: once, in these letters, and no files.
const DECIDING: &[&str] = &["model", "stream", "user"];

/// Words in the names of plain fields whose text a host may take for the address of what belongs there: an image, say.
const HOLD_URLS: &[&str] = &["url", "reference", "image", "mask", "file", "audio", "video"];

/// A form that was looked through.
#[derive(Clone, Debug)]
pub struct Form {
    parts: Vec<(Head, Vec<u8>)>,
    model: String,
    stream: bool,
}

impl Form {
    /// Reads a whole body.
    ///
    /// # Errors
    /// 400 with what is wrong, or what the service doesn't allow.
    pub fn read(content_type: &str, bytes: &[u8], allow: &[Allowance]) -> Result<Self, Failure> {
        let mut splitter = Splitter::new(content_type)?;
        let mut parts: Vec<(Head, Vec<u8>)> = Vec::new();
        for piece in splitter.push(bytes)? {
            match piece {
                Piece::Begin(head) => parts.push((head, Vec::new())),
                Piece::Data(data) => parts.last_mut().into_iter().for_each(|(_, part)| part.extend_from_slice(&data)),
                Piece::End => {}
            }
        }
        splitter.end()?;
        let (mut model, mut stream) = (None, false);
        for (position, (head, data)) in parts.iter().enumerate() {
            check_name(head, &parts[..position])?;
            if head.filename.is_some() {
                continue;
            }
            let text = core::str::from_utf8(data).map_err(|_| Failure::BadForm { what: "a field isn't UTF-8" })?;
            match head.name.as_str() {
                "model" => model = Some(body::model_name(text)?),
                "stream" => {
                    stream = match text.trim() {
                        "true" => true,
                        "false" | "" => false,
                        _ => return Err(Failure::BadField { field: "stream", expected: "true or false" }),
                    }
                }
                name => {
                    let name = name.to_ascii_lowercase();
                    let may_hold_url = HOLD_URLS.iter().any(|word| name.contains(word));
                    if may_hold_url && !allow.contains(&Allowance::RemoteUrls) && body::is_remote(text) {
                        return Err(Failure::RemoteUrl { field: head.name.clone() });
                    }
                }
            }
        }
        Ok(Self { model: model.ok_or(body::NO_MODEL)?, parts, stream })
    }

    /// The model, by the client's name.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Whether the answer is to be streamed.
    #[must_use]
    pub fn stream(&self) -> bool {
        self.stream
    }

    /// The bytes for an endpoint that calls the model `model`.
    #[must_use]
    pub fn for_endpoint(&self, boundary: &str, model: Option<&str>) -> Vec<u8> {
        let mut out = Vec::new();
        for (position, (head, data)) in self.parts.iter().enumerate() {
            write_head(&mut out, boundary, head, position == 0);
            match model.filter(|_| head.name == "model") {
                Some(model) => out.extend_from_slice(model.as_bytes()),
                None => out.extend_from_slice(data),
            }
        }
        write_end(&mut out, boundary);
        out
    }
}

/// Refuses what decides in other letters, twice, or as a file; ids, which no form of the model API has; and any field twice
/// that is no list.
fn check_name(head: &Head, before: &[(Head, Vec<u8>)]) -> Result<(), Failure> {
    if let Some(key) = DECIDING.iter().find(|known| head.name.eq_ignore_ascii_case(known)) {
        if head.name != **key {
            return Err(Failure::MiscasedKey { key });
        }
        if head.filename.is_some() {
            return Err(Failure::BadForm { what: "a file stands where a plain field belongs" });
        }
    }
    let is_list = head.name.ends_with("[]") || head.filename.is_some() && head.name == "image";
    if !is_list && before.iter().any(|(other, _)| other.name == head.name) {
        return Err(Failure::DuplicateKey { key: head.name.clone() });
    }
    let plain = head.name.trim_end_matches(['[', ']']);
    if matches!(field(plain.rsplit('[').next().unwrap_or(plain)), Field::Id | Field::Ids) {
        return Err(Failure::UnknownId);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::multipart::tests::{TYPE, body};

    fn read(parts: &[(&str, &[u8])]) -> Result<Form, Failure> {
        Form::read(TYPE, &body(parts), &[])
    }

    #[test]
    fn the_model_becomes_the_endpoints_and_nothing_else_changes() {
        let parts: [(&str, &[u8]); 4] =
            [("file:a.wav", b"\0RIFF\r\n--Z"), ("model", b"whisper"), ("include[]", b"x"), ("stream", b"true")];
        let form = read(&parts).unwrap();
        assert_eq!((form.model(), form.stream()), ("whisper", true));
        let mut renamed = parts;
        renamed[1].1 = b"faster-whisper";
        assert_eq!(form.for_endpoint("XX", Some("faster-whisper")), body(&renamed));
        assert_eq!(form.for_endpoint("XX", None), body(&parts));
    }

    #[test]
    fn what_is_ambiguous_or_reaches_out_is_refused() {
        let refusal = |parts: &[(&str, &[u8])]| read(parts).err().unwrap();
        assert_eq!(refusal(&[("file:a", b"")]), body::NO_MODEL);
        assert_eq!(refusal(&[("model", b"")]), body::NO_MODEL);
        assert_eq!(refusal(&[("model", b"a"), ("model", b"b")]), Failure::DuplicateKey { key: "model".into() });
        assert_eq!(refusal(&[("Model", b"a")]), Failure::MiscasedKey { key: "model" });
        assert!(matches!(refusal(&[("model:x", b"a")]), Failure::BadForm { .. }));
        assert!(matches!(refusal(&[("model", b"\xff")]), Failure::BadForm { .. }));
        assert!(matches!(refusal(&[("model", b"a"), ("stream", b"1")]), Failure::BadField { .. }));
        let url: [(&str, &[u8]); 2] = [("model", b"a"), ("image_url", b"https://a/b.png")];
        assert_eq!(refusal(&url), Failure::RemoteUrl { field: "image_url".into() });
        assert!(Form::read(TYPE, &body(&url), &[Allowance::RemoteUrls]).is_ok());
        for name in ["image", "image[]", "mask", "file"] {
            let url: [(&str, &[u8]); 2] = [("model", b"a"), (name, b"https://a/b.png")];
            assert_eq!(refusal(&url), Failure::RemoteUrl { field: name.into() });
        }
        assert!(read(&[("model", b"a"), ("image", b"AAAA"), ("prompt", b"like https://a/b.png")]).is_ok());
        assert_eq!(refusal(&[("model", b"a"), ("image[file_id]", b"file-1")]), Failure::UnknownId);
        assert!(read(&[("model", b"a"), ("image:a", b"1"), ("image:b", b"2"), ("image[]:c", b"3")]).is_ok());
    }
}
