//! The allow-list of paths. Takes a client's raw path and method; returns a [`Route`] of checked segments. Called by
//! `serve`.
//!
//! Text of the client never becomes part of a URL unchecked. The fixed words of a path, such as `chat`, are compared
//! with a table in `known`. Ids are checked here, and encoded again when a URL is made. If a path is nearly right,
//! [`Mistake`] says what the client should write instead.

mod known;
pub(crate) mod query;

use crate::decide::envelope::Failure;
use crate::decide::envelope::mistake::Mistake;
use crate::decide::sse::single::AnswerKind;

/// The kind of work that a path asks for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Class {
    /// Inference. Any endpoint of the plan can do it, and failures are retried.
    Inference,
    /// The list of models, or one model.
    Models,
    /// State at one endpoint: files, uploads, batches, fine-tuning, vector stores, responses by id.
    State,
}

/// The kind of body that a path takes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum BodyForm {
    /// No body. If the client sends a body, it is dropped.
    Nothing,
    /// A JSON object.
    Json,
    /// A multipart form.
    Form,
    /// JSON or a form. The `Content-Type` says which.
    JsonOrForm,
}

/// The form that a 2xx answer must have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Expect {
    /// JSON.
    Json,
    /// `text/event-stream`.
    Stream,
    /// Any form, such as audio or text. An event stream is treated as an event stream.
    Any,
    /// A file that the client stored. It is passed on unchanged whatever its type, and may be empty.
    File,
}

/// A known path of the model API, as checked segments without `/v1`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Route {
    segments: Vec<String>,
    pattern: &'static [&'static str],
    method: &'static str,
    class: Class,
    takes: BodyForm,
    answer: AnswerForm,
    deployed: bool,
}

/// The kind of answer that a path gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum AnswerForm {
    /// JSON, or a stream if the body asks for one.
    Json,
    /// Any content, such as audio.
    Any,
    /// A file that the client stored. The edge doesn't interpret it.
    File,
}

/// The longest id, in bytes. No provider makes longer ids.
const LONGEST_ID: usize = 512;

impl Route {
    /// Reads the raw path of a request (neither decoded nor normalised) and its method.
    ///
    /// # Errors
    /// 400 for a path that two servers could read differently, 404 for a path that is unknown or not offered, 405 for a
    /// method that the path doesn't have, 501 for the realtime API.
    pub(crate) fn parse(method: &str, path: &str) -> Result<Self, Failure> {
        let rest = path.strip_prefix('/').ok_or(Failure::BadPath)?;
        let segments = segments(rest.strip_prefix("v1/").unwrap_or(if rest == "v1" { "" } else { rest }))?;
        if let Some(mistake) = Mistake::of(path, &segments) {
            return Err(Failure::PathMistake(mistake));
        }
        if let Some(what) = known::not_offered(&segments) {
            return Err(Failure::NotOffered { what });
        }
        if segments.first().is_some_and(|first| first == "realtime") {
            return Err(Failure::NotCarried { what: "Realtime" });
        }
        // RFC 9110 §9.3.2: HEAD is GET without the content. HEAD is allowed for models only. For other paths the edge
        // would fetch a whole object and drop it.
        let is_model = segments.first().is_some_and(|first| first == "models");
        let method = if is_model && method == "HEAD" { "GET" } else { method };
        let Some(known) = known::find(&segments).find(|known| known.method == method) else {
            let methods: Vec<&str> = known::find(&segments).map(|known| known.method).collect();
            let wrong = Failure::WrongMethod { allowed: allowed(&methods, is_model) };
            return Err(if methods.is_empty() { Failure::UnknownPath } else { wrong });
        };
        Ok(Self {
            segments,
            pattern: known.path,
            method: known.method,
            class: known.class,
            takes: known.takes,
            answer: known.answer,
            deployed: known.deployed,
        })
    }

    /// The path without `/v1`, such as `/chat/completions`, for
    /// [`is_hub_path`](bailiwick_rules::table::Service::is_hub_path).
    #[must_use]
    pub(crate) fn path(&self) -> String {
        self.segments.iter().flat_map(|segment| ["/", segment.as_str()]).collect()
    }

    /// The segments, decoded.
    #[must_use]
    pub(crate) fn segments(&self) -> &[String] {
        &self.segments
    }

    /// The path as a pattern: its fixed words, with `*` in the place of an id or of a model's name.
    #[must_use]
    pub(crate) fn pattern(&self) -> &'static [&'static str] {
        self.pattern
    }

    /// The method.
    #[must_use]
    pub(crate) fn method(&self) -> &'static str {
        self.method
    }

    /// The kind of work that the path asks for.
    #[must_use]
    pub(crate) fn class(&self) -> Class {
        self.class
    }

    /// The kind of body that the path takes.
    #[must_use]
    pub(crate) fn takes(&self) -> BodyForm {
        self.takes
    }

    /// Whether Azure has this path under `/openai/deployments/{deployment}`.
    #[must_use]
    pub(crate) fn is_deployed(&self) -> bool {
        self.deployed
    }

    /// Whether the path consists of exactly these words.
    #[must_use]
    pub(crate) fn is(&self, words: &[&str]) -> bool {
        self.segments == words
    }

    /// Whether the request's body belongs to the Responses API: the path is `/responses`, or an inference path below
    /// it.
    #[must_use]
    pub(crate) fn is_responses(&self) -> bool {
        self.class == Class::Inference && self.segments.first().is_some_and(|first| first == "responses")
    }

    /// The form that a 2xx answer must have. `stream` says whether the client asks for a stream.
    #[must_use]
    pub(crate) fn expect(&self, stream: bool) -> Expect {
        match self.answer {
            AnswerForm::Any => Expect::Any,
            AnswerForm::File => Expect::File,
            AnswerForm::Json if stream => Expect::Stream,
            AnswerForm::Json => Expect::Json,
        }
    }

    /// The kind of the path's JSON answer, if the same content can also come as a stream of events.
    #[must_use]
    pub(crate) fn answer_kind(&self) -> Option<AnswerKind> {
        match self.pattern {
            ["chat", "completions"] => Some(AnswerKind::Chat),
            ["completions"] => Some(AnswerKind::Completion),
            ["responses"] | ["responses", "*"] => Some(AnswerKind::Response),
            _ => None,
        }
    }

    /// The ids in the path, in order. Each id names an object that is stored at an endpoint.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &str> {
        let words = self.pattern.iter().zip(&self.segments);
        words.filter(|(word, _)| **word == "*" && self.class == Class::State).map(|(_, segment)| segment.as_str())
    }

    /// Replaces [`Route::ids`] by these ids, in the same order.
    pub(crate) fn replace_ids(&mut self, new: &mut impl Iterator<Item = String>) {
        if self.class == Class::State {
            let slots = self.pattern.iter().zip(&mut self.segments).filter(|(word, _)| **word == "*");
            slots.zip(new).for_each(|((_, segment), new)| *segment = new);
        }
    }

    /// Whether the path lists all objects of a kind.
    #[must_use]
    pub(crate) fn is_collection(&self) -> bool {
        self.class == Class::State && self.method == "GET" && !self.pattern.contains(&"*")
    }

    /// The model named in the path (`/models/{model}`). Its name may hold slashes.
    #[must_use]
    pub(crate) fn model(&self) -> Option<&str> {
        self.segments.get(1).filter(|_| self.class == Class::Models).map(String::as_str)
    }
}

/// Splits a path without `/v1` into decoded segments. The text after `/models/` is one segment, because a model's name
/// may hold slashes, plain or encoded (OpenAI's clients encode them).
fn segments(rest: &str) -> Result<Vec<String>, Failure> {
    if let Some(name) = rest.strip_prefix("models/") {
        let name = name.replace("%2F", "/").replace("%2f", "/");
        let parts = name.split('/').map(checked_segment).collect::<Result<Vec<String>, Failure>>()?;
        if parts.iter().any(String::is_empty) {
            return Ok(["models".to_owned()].into_iter().chain(parts).collect());
        }
        let name = parts.join("/");
        return if name.len() > LONGEST_ID { Err(Failure::BadPath) } else { Ok(vec!["models".to_owned(), name]) };
    }
    rest.split('/').map(checked_segment).collect()
}

/// The methods of a path, as the header `Allow` lists them.
fn allowed(methods: &[&str], is_model: bool) -> &'static str {
    match methods {
        ["GET"] if is_model => "GET, HEAD",
        ["GET"] => "GET",
        ["GET", "DELETE"] if is_model => "GET, HEAD, DELETE",
        ["POST"] => "POST",
        ["GET", "POST"] => "GET, POST",
        ["GET", "DELETE"] => "GET, DELETE",
        _ => "GET, POST, DELETE",
    }
}

/// Decodes a segment. Refuses dot segments, and text that becomes a dot segment if another server decodes it again.
/// [`Mistake`] handles empty segments.
fn checked_segment(raw: &str) -> Result<String, Failure> {
    let mut decoded = Vec::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let digit =
                    |byte: Option<u8>| char::from(byte?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                let (Some(high), Some(low)) = (digit(bytes.next()), digit(bytes.next())) else {
                    return Err(Failure::BadPath);
                };
                match high << 4 | low {
                    // The next server would decode an encoded percent sign.
                    b'.' | b'/' | b'\\' | b'%' => return Err(Failure::BadPath),
                    byte => byte,
                }
            }
            b'\\' | b'?' | b'#' => return Err(Failure::BadPath),
            byte => byte,
        });
    }
    let segment = String::from_utf8(decoded).map_err(|_| Failure::BadPath)?;
    let dots = !segment.is_empty() && segment.bytes().all(|byte| byte == b'.');
    let tricks = dots || segment.len() > LONGEST_ID || segment.contains(char::is_control);
    if tricks { Err(Failure::BadPath) } else { Ok(segment) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_known_or_unknown() {
        let parse = |method: &str, path: &str| Route::parse(method, path);
        assert_eq!(parse("POST", "/v1/chat/completions").unwrap().path(), "/chat/completions");
        assert_eq!(parse("GET", "/admin").unwrap_err().status(), 404);
    }

    #[test]
    fn ambiguous_paths_are_refused() {
        for path in [
            "",
            "v1/models",
            "/v1/./models",
            "/v1/../models",
            "/v1/%2e%2E/models",
            "/v1/files/a%2Fb",
            "/v1/chat%2Fcompletions",
            "/v1/models/a%5cb",
            "/v1/models/a\\b",
            "/v1/models/%252e",
            "/v1/models/org%252Fname",
            "/v1/models/org/..",
            "/v1/models/org/../../files",
            "/v1/models/org%2F..%2f..%2Ffiles",
            "/v1/models/org%2F%2e%2e",
            "/v1/models/./name",
            "/v1/models/a%",
            "/v1/models/a%4",
            "/v1/models/%ff",
            "/v1/models/%00",
            "/v1/models/org/%0a",
            "/v1/models/a?b",
            "/v1/models/a#b",
        ] {
            assert_eq!(Route::parse("GET", path), Err(Failure::BadPath), "{path}");
        }
        assert_eq!(Route::parse("GET", &format!("/v1/models/{}", "a/".repeat(300) + "b")), Err(Failure::BadPath));
    }

    #[test]
    fn a_models_name_may_hold_slashes_and_is_one_segment() {
        for path in ["/v1/models/org/name", "/models/org%2Fname", "/v1/models/org%2fname", "/v1/models/org/n%61me"] {
            let route = Route::parse("GET", path).unwrap();
            assert_eq!(
                (route.model(), route.segments().len(), route.ids().count()),
                (Some("org/name"), 2, 0),
                "{path}"
            );
        }
        let long = Route::parse("HEAD", "/v1/models/accounts/fireworks/models/llama-v3p1-8b").unwrap();
        assert_eq!((long.model(), long.method()), (Some("accounts/fireworks/models/llama-v3p1-8b"), "GET"));
        // The name of a model may look like a path of the API.
        assert_eq!(Route::parse("GET", "/v1/models/files/x").unwrap().class(), Class::Models);
    }

    #[test]
    fn inference_below_responses_is_not_a_stored_response() {
        for path in ["/v1/responses", "/v1/responses/compact", "/responses/input_tokens"] {
            let route = Route::parse("POST", path).unwrap();
            assert_eq!((route.class(), route.takes(), route.is_responses()), (Class::Inference, BodyForm::Json, true));
        }
        let refused = |method, path| Route::parse(method, path).unwrap_err();
        assert_eq!(refused("GET", "/v1/responses/compact"), Failure::WrongMethod { allowed: "POST" });
        assert_eq!(refused("POST", "/v1/responses/resp_1"), Failure::WrongMethod { allowed: "GET, DELETE" });
        let by_id = Route::parse("GET", "/v1/responses/resp_1").unwrap();
        assert_eq!((by_id.is_responses(), by_id.ids().count()), (false, 1));
    }

    #[test]
    fn only_known_paths_pass_with_their_methods() {
        for path in ["/", "/v1", "/v1/admin", "/v3/models", "/v1/chat", "/v1/chat/completions/x/y", "/V1/models"] {
            assert_eq!(Route::parse("GET", path), Err(Failure::UnknownPath), "{path}");
        }
        assert_eq!(Route::parse("GET", "/v1/chat/completions"), Err(Failure::WrongMethod { allowed: "POST" }));
        assert_eq!(Route::parse("HEAD", "/v1/files"), Err(Failure::WrongMethod { allowed: "GET, POST" }));
        assert_eq!(Route::parse("POST", "/v1/models"), Err(Failure::WrongMethod { allowed: "GET, HEAD" }));
        assert_eq!(Route::parse("PUT", "/v1/files/a"), Err(Failure::WrongMethod { allowed: "GET, DELETE" }));
        for (path, what) in [
            ("/v1/messages/count_tokens", "Anthropic's messages"),
            ("/rerank", "Rerankings"),
            ("/v2/rerank", "Rerankings"),
            ("/api/chat", "Ollama's own paths"),
            ("/v1/fine_tuning/alpha/graders/run", "Graders"),
            ("/v1/realtime/client_secrets", "Realtime client secrets"),
        ] {
            assert_eq!(Route::parse("POST", path), Err(Failure::NotOffered { what }), "{path}");
        }
        assert_eq!(Route::parse("GET", "/v1/realtime").unwrap_err().status(), 501);
        assert_eq!(Route::parse("POST", "/v1/evals/eval_1/runs"), Err(Failure::NotOffered { what: "Evals" }));
        assert_eq!(Route::parse("PUT", "/conversations").unwrap_err().status(), 404);
        assert_eq!(Route::parse("GET", "/models").unwrap().path(), "/models");
        let part = Route::parse("POST", "/v1/uploads/upload_1/parts").unwrap();
        assert_eq!(
            (part.ids().collect::<Vec<_>>(), part.takes(), part.class()),
            (vec!["upload_1"], BodyForm::Form, Class::State)
        );
        let mut file = Route::parse("DELETE", "/v1/vector_stores/vs-1/files/file-2").unwrap();
        assert_eq!(file.ids().collect::<Vec<_>>(), ["vs-1", "file-2"]);
        file.replace_ids(&mut ["a".to_owned(), "b".to_owned()].into_iter());
        assert_eq!(file.path(), "/vector_stores/a/files/b");
        assert_eq!(Route::parse("GET", "/v1/models/m").unwrap().ids().count(), 0);
        let lists = |path: &str| Route::parse("GET", path).unwrap().is_collection();
        assert!(lists("/v1/files") && !lists("/v1/batches/b") && !lists("/v1/models"));
        let model = Route::parse("GET", "/v1/models/gpt-4.1%20x").unwrap();
        assert_eq!((model.model(), model.class()), (Some("gpt-4.1 x"), Class::Models));
    }
}
