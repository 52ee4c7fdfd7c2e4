//! Reads a line of a batch's input file, which holds one request. Takes the line; returns the request's path, and the
//! range of the request's body in the line. Called by `batch`, which then reads the body like the body of a single
//! request.

use core::ops::Range;

use bailiwick_rules::rules::Allowance;

use super::entries::{duplicates, entries, string};
use super::shape::Fields;
use super::shape::Shape::{Free, Label, Word};
use super::walk::Walk;
use super::{Needs, fault, field};
use crate::decide::envelope::Failure;
use crate::decide::json::{InvalidJson, Kind, Scan};
use crate::decide::route::{BodyForm, Class, Route};

/// The fields of a line. The value of `body` may be anything here: it is judged later, by the rules for its path.
static LINE: Fields = &[("custom_id", Label), ("method", Word), ("url", Label), ("body", Free)];

/// Keys that the edge acts on. They must be written in exactly this case.
const DECIDING: &[&str] = &["custom_id", "method", "url", "body"];

/// What a path in a batch must be, for the error message.
pub(super) const PATH: &str = "the path of a request with a JSON body, such as /v1/chat/completions";

/// A request in a line.
#[derive(Debug)]
pub(crate) struct Line {
    /// The path of the request.
    pub(crate) route: Route,
    /// The range of the request's body in the line.
    pub(crate) body: Range<usize>,
}

/// Reads a line. `None` if the line has no body and so requests nothing.
///
/// # Errors
/// 400 if the line isn't a request, or has fields beside the body that the service doesn't allow.
pub(crate) fn read(text: &str, allow: &[Allowance]) -> Result<Option<Line>, Failure> {
    let broken = |broken: InvalidJson| Failure::NotJson { at: broken.at };
    let mut scan = Scan::new(text);
    if scan.kind().map_err(broken)? != Kind::Object {
        return Err(Failure::NotAnObject);
    }
    let (mut walk, mut needs) = (Walk::new(allow), Needs::default());
    // The allowance for unknown fields covers bodies only. A host could read another request from an unknown field
    // beside the body.
    let read = |key: &str, value: &mut Scan<'_>| field::read(&mut walk, &mut needs, LINE, key, value, false);
    let entries = entries(&mut scan, read).map_err(broken)?;
    duplicates(&entries, DECIDING)?;
    if let Some((at, fault)) = walk.fault {
        return Err(field::failure_at(text, at, fault));
    }
    // Beside the body, a line may have no engine's own fields, no ids, and no names that engines share among tenants.
    if needs != Needs::default() {
        return Err(fault::unknown(needs.field));
    }
    if !walk.ids.is_empty() || !walk.names.is_empty() {
        return Err(Failure::UnknownId);
    }
    let find = |name: &str| entries.iter().find(|(key, _, _)| key == name);
    let text_of = |name: &str| find(name).and_then(|(_, _, range)| string(text.get(range.clone())?));
    let Some((_, kind, body)) = find("body") else { return Ok(None) };
    if *kind != Kind::Object {
        return Err(Failure::BadField { field: "body", expected: "a JSON object" });
    }
    if find("method").is_some() && text_of("method").as_deref() != Some("POST") {
        return Err(Failure::BadField { field: "method", expected: "POST" });
    }
    let route =
        text_of("url").and_then(|url| batchable(&url)).ok_or(Failure::BadField { field: "url", expected: PATH })?;
    Ok(Some(Line { route, body: body.clone() }))
}

/// The route of this path, if the lines of a batch may use it.
pub(super) fn batchable(path: &str) -> Option<Route> {
    let is_batchable = |route: &Route| route.class() == Class::Inference && route.takes() != BodyForm::Form;
    Route::parse("POST", path).ok().filter(is_batchable)
}

#[cfg(test)]
mod tests {
    use super::super::tests::inspect;
    use super::*;

    #[test]
    fn a_line_gives_its_path_and_the_range_of_its_body() {
        let text = r#" {"custom_id":"session:1","method":"POST","url":"/v1/responses", "body" : {"model":"m"} ,"n":1}"#;
        let line = read(text, &[]).unwrap().unwrap();
        assert_eq!((line.route.path().as_str(), &text[line.body]), ("/responses", r#"{"model":"m"}"#));
        let azure = r#"{"custom_id":"1","method":"POST","url":"/chat/completions","body":{}}"#;
        assert_eq!(read(azure, &[]).unwrap().unwrap().route.path(), "/chat/completions");
        assert!(read(r#"{"custom_id":"1"}"#, &[]).unwrap().is_none(), "the line requests nothing");
    }

    #[test]
    fn a_batch_names_an_endpoint_that_its_lines_may_use() {
        let made = |endpoint: &str| {
            let batch = format!(r#"{{"input_file_id":"file-1","completion_window":"24h"{endpoint}}}"#);
            inspect("/v1/batches", &batch, &[Allowance::Batch]).err().map(|failure| failure.param().map(str::to_owned))
        };
        for path in ["/v1/chat/completions", "/chat/completions", "/v1/responses", "/v1/embeddings", "/v1/moderations"]
        {
            assert_eq!(made(&format!(r#","endpoint":"{path}""#)), None, "{path}");
        }
        assert_eq!((made(""), made(r#","endpoint":null"#)), (None, None), "the lines name the path");
        for odd in [
            r#""/v1/files""#,
            r#""/v1/audio/transcriptions""#,
            r#""/v1/realtime""#,
            r#""/v1/evals""#,
            r#""/v1/../responses""#,
            r#""v1/responses""#,
            r#""""#,
            r#"["/v1/responses"]"#,
            r#"{"path":"/v1/responses"}"#,
            "7",
        ] {
            assert_eq!(made(&format!(r#","endpoint":{odd}"#)), Some(Some("endpoint".into())), "{odd}");
        }
        assert_eq!(made(r#","endpoint":"/v1/responses","Endpoint":"/v1/files""#), Some(Some("endpoint".into())));
    }

    #[test]
    fn a_line_that_is_not_a_request_is_refused() {
        for (text, code, param) in [
            (r#"["url"]"#, "invalid_json", None),
            (r#"{"url":"/v1/responses","body":{}} {}"#, "invalid_json", None),
            (r#"{"url":"/v1/responses","body":"{}"}"#, "invalid_field", Some("body")),
            (r#"{"url":"/v1/responses","body":null}"#, "invalid_field", Some("body")),
            (r#"{"body":{}}"#, "invalid_field", Some("url")),
            (r#"{"url":"/v1/files","body":{}}"#, "invalid_field", Some("url")),
            (r#"{"url":"/v1/audio/transcriptions","body":{}}"#, "invalid_field", Some("url")),
            (r#"{"url":"/v1/responses?x=1","body":{}}"#, "invalid_field", Some("url")),
            (r#"{"url":"https://a.example/v1/responses","body":{}}"#, "remote_url_not_allowed", Some("/url")),
            (r#"{"method":"GET","url":"/v1/responses","body":{}}"#, "invalid_field", Some("method")),
            (r#"{"url":"/v1/responses","Body":{},"body":{}}"#, "miscased_key", Some("body")),
            (r#"{"url":"/v1/responses","body":{},"body":{}}"#, "duplicate_key", Some("body")),
            (r#"{"url":"/v1/responses","body":{},"webhook":"x"}"#, "unknown_field", Some("/webhook")),
            (r#"{"url":"/v1/responses","body":{},"params":{"a":1}}"#, "unknown_field", Some("/params")),
            (r#"{"url":"/v1/responses","body":{},"documents":["x"]}"#, "unknown_field", Some("documents")),
            (r#"{"url":"/v1/responses","body":{},"file_id":"file-1"}"#, "unknown_field", Some("/file_id")),
        ] {
            for allow in [&[][..], &[Allowance::UnknownFields]] {
                let failure = read(text, allow).unwrap_err();
                assert_eq!((failure.code(), failure.param()), (code, param), "{text}");
            }
        }
    }
}
