//! A form that is held in memory completely, such as a form for audio or images. Takes a body; returns what the edge
//! needs to know of the form, and the bytes for each endpoint. Called by `serve`.

use core::ops::Range;

use bailiwick_rules::rules::Allowance;

use super::{Head, Piece, Splitter, write_end, write_head};
use crate::decide::body::{self, Needs};
use crate::decide::buffer_pool::PooledBuffer;
use crate::decide::envelope::Failure;
use crate::decide::payload::Payload;
use crate::decide::route::Route;

/// Fields that the edge acts on. Each may occur only once, only in this case, and not as a file.
const DECIDING: &[&str] = &["model", "stream", "user"];

/// How many bytes of a body are split at a time. Only so many bytes are held twice: in the body and in the splitter.
const AT_A_TIME: usize = 64 << 10;

/// A form that was read and judged.
#[derive(Debug)]
pub(crate) struct Form {
    /// The body, unchanged.
    bytes: PooledBuffer,
    /// The parts of the form, and the ranges of their contents in the body.
    parts: Vec<(Head, Range<usize>)>,
    model: String,
    stream: bool,
    needs: Needs,
}

impl Form {
    /// Reads a complete body.
    ///
    /// # Errors
    /// 400 that names the mistake, or the field that the service doesn't allow.
    pub(crate) fn read(
        content_type: &str,
        bytes: impl Into<PooledBuffer>,
        route: &Route,
        allow: &[Allowance],
    ) -> Result<Self, Failure> {
        let bytes = bytes.into();
        let parts = split(content_type, &bytes)?;
        let (mut model, mut stream, mut needs) = (None, false, Needs::default());
        for (position, (head, range)) in parts.iter().enumerate() {
            check_name(head, &parts[..position])?;
            let data = bytes.get(range.clone()).unwrap_or_default();
            if head.filename.is_some() {
                needs = needs.and(body::field::check_file(route.pattern(), &head.name, allow)?);
                if body::playlist::is_playlist(data) {
                    return Err(Failure::RemoteUrl { field: head.name.clone() });
                }
                continue;
            }
            head.check_charset()?;
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
                name => needs = needs.and(body::field::check(route.pattern(), name, text, allow)?),
            }
        }
        Ok(Self { model: model.ok_or(body::NO_MODEL)?, bytes, parts, stream, needs })
    }

    /// The model, by the client's name.
    #[must_use]
    pub(crate) fn model(&self) -> &str {
        &self.model
    }

    /// Whether the answer is to be streamed.
    #[must_use]
    pub(crate) fn stream(&self) -> bool {
        self.stream
    }

    /// How many bytes the client sent.
    #[must_use]
    pub(crate) fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The requirements of this form on an endpoint: which engines know all fields.
    #[must_use]
    pub(crate) fn needs(&self) -> &Needs {
        &self.needs
    }

    /// The bytes for an endpoint. `model` is the endpoint's name of the model; with `None` the client's name stays.
    #[must_use]
    pub(crate) fn for_endpoint(&self, boundary: &str, model: Option<&str>) -> Payload<'_> {
        let mut out = Payload::default();
        for (position, (head, range)) in self.parts.iter().enumerate() {
            let mut text = Vec::new();
            write_head(&mut text, boundary, head, position == 0);
            let renamed = model.filter(|_| head.name == "model");
            text.extend_from_slice(renamed.unwrap_or_default().as_bytes());
            out.push(text);
            if renamed.is_none() {
                out.push(self.bytes.get(range.clone()).unwrap_or_default());
            }
        }
        let mut end = Vec::new();
        write_end(&mut end, boundary);
        out.push(end);
        out
    }
}

/// Cuts a body into its parts.
fn split(content_type: &str, bytes: &[u8]) -> Result<Vec<(Head, Range<usize>)>, Failure> {
    let mut splitter = Splitter::new(content_type)?;
    let mut parts: Vec<(Head, Range<usize>)> = Vec::new();
    for chunk in bytes.chunks(AT_A_TIME) {
        splitter.feed(chunk);
        while let Some(piece) = splitter.next()? {
            match piece {
                Piece::Begin(head) => parts.push((head, splitter.position()..splitter.position())),
                Piece::Data(data) => parts.last_mut().into_iter().for_each(|(_, range)| range.end += data.len()),
                Piece::End => {}
            }
        }
    }
    splitter.end()?;
    Ok(parts)
}

/// Refuses a [`DECIDING`] field that is written in another case or sent as a file. Refuses names of ids, because no
/// form of the model API has ids, and any field that occurs twice and isn't a list.
fn check_name(head: &Head, before: &[(Head, Range<usize>)]) -> Result<(), Failure> {
    let base = body::field::base(&head.name);
    if let Some(key) = DECIDING.iter().find(|known| base.eq_ignore_ascii_case(known)) {
        // Some hosts read `model[]` as a second model.
        if base != head.name {
            return Err(body::fault::unknown(head.name.clone()));
        }
        if base != *key {
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
    if body::has_id(&head.name) {
        return Err(Failure::UnknownId);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bailiwick_rules::rules::Engine;

    use super::*;
    use crate::decide::envelope::FieldFault;
    use crate::decide::multipart::tests::{TYPE, body};

    fn route() -> Route {
        Route::parse("POST", "/v1/images/edits").unwrap()
    }

    fn read(parts: &[(&str, &[u8])]) -> Result<Form, Failure> {
        Form::read(TYPE, body(parts), &route(), &[])
    }

    fn transcribed(parts: &[(&str, &[u8])], allow: &[Allowance]) -> Result<Form, Failure> {
        Form::read(TYPE, body(parts), &Route::parse("POST", "/v1/audio/transcriptions").unwrap(), allow)
    }

    #[test]
    fn the_model_becomes_the_endpoints_and_nothing_else_changes() {
        let parts: [(&str, &[u8]); 4] =
            [("file:a.wav", b"\0RIFF\r\n--Z"), ("model", b"whisper"), ("include[]", b"x"), ("stream", b"true")];
        let form = transcribed(&parts, &[]).unwrap();
        assert_eq!((form.model(), form.stream()), ("whisper", true));
        let mut renamed = parts;
        renamed[1].1 = b"faster-whisper";
        assert_eq!(form.for_endpoint("XX", Some("faster-whisper")).concat(), body(&renamed));
        assert_eq!(form.for_endpoint("XX", None).concat(), body(&parts));
    }

    #[test]
    fn a_file_that_lists_places_is_refused() {
        let list: [(&str, &[u8]); 2] = [("model", b"m"), ("file:a.wav", b"#EXTM3U\nhttp://a.example/x\n")];
        let refused = Failure::RemoteUrl { field: "file".into() };
        for allow in [&[][..], &[Allowance::RemoteUrls, Allowance::UnknownFields]] {
            assert_eq!(transcribed(&list, allow).unwrap_err(), refused);
        }
    }

    #[test]
    fn a_large_file_is_where_it_was_and_is_copied_nowhere() {
        let file: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
        let parts: [(&str, &[u8]); 3] = [("model", b"m"), ("file:a.wav", &file), ("language", b"de")];
        let form = transcribed(&parts, &[]).unwrap();
        let payload = form.for_endpoint("XX", None);
        assert_eq!(payload.len(), body(&parts).len());
        let own = payload.pieces().find(|piece| piece.len() == file.len()).unwrap();
        assert!(form.bytes.as_ptr_range().contains(&own.as_ptr()) && own == file);
        assert_eq!(payload.concat(), body(&parts));
    }

    #[test]
    fn fields_are_those_of_the_path_or_of_an_engine() {
        let odd = |field: &str, odd: FieldFault| Some(Failure::UnknownField { field: field.into(), odd });
        let with = |name: &str, value: &str, allow: &[Allowance]| {
            transcribed(&[("model", b"a"), ("file:a", b""), (name, value.as_bytes())], allow)
        };
        let refused = |name: &str, value: &str| with(name, value, &[]).err();
        for (name, value) in [
            ("prompt", "see https://a.example/"),
            ("timestamp_granularities[]", "word"),
            ("chunking_strategy", "{\"type\":\"server_vad\",\"threshold\":0.5}"),
            ("chunking_strategy[type]", "server_vad"),
            ("known_speaker_references[]", "data:audio/wav;base64,AAAA"),
            ("temperature", "0.2"),
            ("top_k", "40"),
        ] {
            assert!(with(name, value, &[]).is_ok_and(|form| *form.needs() == Needs::default()), "{name}");
        }
        assert_eq!(refused("decoder", "fast"), odd("decoder", FieldFault::Undocumented));
        assert!(with("decoder", "fast", &[Allowance::UnknownFields]).is_ok());
        assert_eq!(refused("provider", "us"), odd("provider", FieldFault::Routes));
        assert_eq!(refused("bootstrap_room", "7"), odd("bootstrap_room", FieldFault::Routes));
        assert!(matches!(refused("web_search", "true"), Some(Failure::HostedTool { .. })));
        assert_eq!(refused("web_search", "false"), None);
        let place = Some(Failure::RemoteUrl { field: "chunking_strategy".into() });
        assert_eq!(refused("chunking_strategy", "{\"type\":\"https://a.example/\"}"), place);
        assert_eq!(refused("request_id", "mine"), odd("request_id", FieldFault::Undocumented));
        let hot = with("hotwords", "a,b", &[]).unwrap();
        assert!(hot.needs().engines.includes(Some(Engine::Vllm)) && !hot.needs().engines.includes(None));
    }

    #[test]
    fn what_is_ambiguous_or_reaches_out_is_refused() {
        let refusal = |parts: &[(&str, &[u8])]| read(parts).err().unwrap();
        assert_eq!(refusal(&[("image:a", b"")]), body::NO_MODEL);
        assert_eq!(refusal(&[("model", b"")]), body::NO_MODEL);
        assert_eq!(refusal(&[("model", b"a"), ("model", b"b")]), Failure::DuplicateKey { key: "model".into() });
        assert_eq!(refusal(&[("Model", b"a")]), Failure::MiscasedKey { key: "model" });
        assert!(matches!(refusal(&[("model:x", b"a")]), Failure::BadForm { .. }));
        assert!(matches!(refusal(&[("model", b"\xff")]), Failure::BadForm { .. }));
        for name in ["model[]", "Model[0]", "stream[]", "user[x]", "model.0"] {
            let odd = Failure::UnknownField { field: name.into(), odd: FieldFault::Undocumented };
            assert_eq!(refusal(&[("model", b"a"), (name, b"b")]), odd);
        }
        assert!(matches!(refusal(&[("model", b"a"), ("stream", b"1")]), Failure::BadField { .. }));
        let url: [(&str, &[u8]); 2] = [("model", b"a"), ("image", b"https://a.example/b.png")];
        assert_eq!(refusal(&url), Failure::RemoteUrl { field: "image".into() });
        assert!(Form::read(TYPE, body(&url), &route(), &[Allowance::RemoteUrls]).is_ok());
        for place in ["file:///etc/passwd", "http://169.254.169.254/", "data/images/cats"] {
            let place: [(&str, &[u8]); 2] = [("model", b"a"), ("image", place.as_bytes())];
            assert!(Form::read(TYPE, body(&place), &route(), &[Allowance::RemoteUrls]).is_err());
        }
        for name in ["a[fallbacks]", "fallbacks.0", "x[model]", "x.model", "fallbacks[0][model]"] {
            let nested: [(&str, &[u8]); 2] = [("model", b"a"), (name, b"b")];
            let refused = Form::read(TYPE, body(&nested), &route(), &[Allowance::UnknownFields]).err();
            assert_eq!(refused, Some(Failure::UnknownField { field: name.into(), odd: FieldFault::Routes }));
            let file: [(&str, &[u8]); 2] = [("model", b"a"), (&format!("{name}:x"), b"b")];
            let refused = Form::read(TYPE, body(&file), &route(), &[Allowance::UnknownFields]).err();
            assert_eq!(refused, Some(Failure::UnknownField { field: name.into(), odd: FieldFault::Routes }));
        }
        for name in ["image", "image[]", "mask", "file", "url", "source", "size"] {
            let url: [(&str, &[u8]); 2] = [("model", b"a"), (name, b"https://a/b.png")];
            assert_eq!(refusal(&url), Failure::RemoteUrl { field: name.into() });
        }
        let file = |name: &str| refusal(&[("model", b"a"), (&format!("{name}:x"), b"https://a")]);
        for (name, odd) in [
            ("api_base", FieldFault::Routes),
            ("fallbacks", FieldFault::Routes),
            ("web_search", FieldFault::Undocumented),
            ("decoder", FieldFault::Undocumented),
            ("x[image]", FieldFault::Undocumented),
        ] {
            assert_eq!(file(name), Failure::UnknownField { field: name.into(), odd });
        }
        for name in ["prompt", "size", "n"] {
            assert!(matches!(file(name), Failure::BadForm { .. }), "{name}");
        }
    }

    #[test]
    fn what_only_some_services_allow_is_refused_elsewhere() {
        let refusal = |parts: &[(&str, &[u8])]| read(parts).err().unwrap();
        let embeds: [(&str, &[u8]); 2] = [("model", b"a"), ("prompt_embeds:x", b"1")];
        assert_eq!(refusal(&embeds).code(), "engine_input_not_allowed");
        let embedded = Form::read(TYPE, body(&embeds), &route(), &[Allowance::EngineInputs]).unwrap();
        assert!(embedded.needs().engines.includes(Some(Engine::Vllm)) && !embedded.needs().engines.includes(None));
        let decoder: [(&str, &[u8]); 2] = [("model", b"a"), ("decoder:x", b"1")];
        assert!(Form::read(TYPE, body(&decoder), &route(), &[Allowance::UnknownFields]).is_ok());
        // A name by which a host may route is refused as a file as it is as a plain field.
        for name in ["api_base", "litellm_params", "sessionId", "targetModel"] {
            for part in [name.to_owned(), format!("{name}:x")] {
                let routing: [(&str, &[u8]); 2] = [("model", b"a"), (&part, b"eu")];
                let refused = Form::read(TYPE, body(&routing), &route(), &[Allowance::UnknownFields]).err();
                let expected = Failure::UnknownField { field: name.into(), odd: FieldFault::Routes };
                assert_eq!(refused, Some(expected), "{part}");
            }
        }
    }

    #[test]
    fn ids_of_files_and_other_charsets_are_refused() {
        let refusal = |parts: &[(&str, &[u8])]| read(parts).err().unwrap();
        assert!(read(&[("model", b"a"), ("image", b"iVBORw0KGgo="), ("prompt", b"like https://a/b.png")]).is_ok());
        for name in ["image[file_id]", "file_ids[]", "images[0][file_id]", "x[fileId][]", "container_id"] {
            assert_eq!(refusal(&[("model", b"a"), (name, b"file-1")]), Failure::UnknownId, "{name}");
        }
        let inner = Failure::UnknownField { field: "image[model]".into(), odd: FieldFault::Routes };
        assert_eq!(refusal(&[("model", b"a"), ("image[model]", b"x")]), inner);
        assert!(matches!(refusal(&[("model", b"a"), ("_charset_", b"utf-16")]), Failure::BadForm { .. }));
        let utf_16 = String::from_utf8(body(&[("model", b"a")])).unwrap();
        let utf_16 = utf_16.replacen("\"\r\n", "\"\r\nContent-Type: text/plain; charset=utf-16\r\n", 1);
        assert!(matches!(Form::read(TYPE, utf_16.into_bytes(), &route(), &[]).err(), Some(Failure::BadForm { .. })));
        assert!(read(&[("model", b"a"), ("image:a", b"1"), ("n", b"2"), ("seed", b"7"), ("x", b"true")]).is_ok());
        assert!(read(&[("model", b"a"), ("image:a", b"1"), ("image:b", b"2"), ("image[]:c", b"3")]).is_ok());
    }
}
