//! The path allow-list: a client's raw path and method in, a [`Route`] of checked segments out.
//!
//! Nothing of the client's text is ever joined to a URL: the words of the model API come from the table below, ids are checked
//! here and encoded anew where a URL is made.

use crate::attempt::Expect;
use crate::envelope::Failure;

/// What kind of work a path is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Class {
    /// Inference: any endpoint of the plan, retried.
    Inference,
    /// The list of models, or one.
    Models,
    /// Files, uploads, batches, fine-tuning, vector stores, responses by id: state at one endpoint.
    State,
}

/// What body a path takes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Takes {
    /// None; one that comes is dropped.
    Nothing,
    /// A JSON object.
    Json,
    /// A multipart form.
    Form,
}

/// A known path of the model API, in checked segments without `/v1`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    segments: Vec<String>,
    pattern: &'static [&'static str],
    method: &'static str,
    class: Class,
    takes: Takes,
    answer: Answer,
    deployed: bool,
}

/// What a path answers with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Answer {
    /// JSON, or a stream where the body asks for one.
    Json,
    /// Whatever.
    Any,
    /// A customer's own file, which means nothing here.
    File,
}

/// One path of the model API.
struct Known {
    method: &'static str,
    /// Words, with `*` for an id.
    path: &'static [&'static str],
    class: Class,
    takes: Takes,
    answer: Answer,
    /// Whether Azure has it under the deployment.
    deployed: bool,
}

const fn inference(path: &'static [&'static str], takes: Takes, answer: Answer, deployed: bool) -> Known {
    Known { method: "POST", path, class: Class::Inference, takes, answer, deployed }
}

const fn state(method: &'static str, path: &'static [&'static str], takes: Takes) -> Known {
    Known { method, path, class: Class::State, takes, answer: Answer::Json, deployed: false }
}

const fn models(path: &'static [&'static str]) -> Known {
    Known { method: "GET", path, class: Class::Models, takes: Takes::Nothing, answer: Answer::Json, deployed: false }
}

const fn content(path: &'static [&'static str]) -> Known {
    Known { method: "GET", path, class: Class::State, takes: Takes::Nothing, answer: Answer::File, deployed: false }
}

const KNOWN: &[Known] = &[
    inference(&["chat", "completions"], Takes::Json, Answer::Json, true),
    inference(&["completions"], Takes::Json, Answer::Json, true),
    inference(&["embeddings"], Takes::Json, Answer::Json, true),
    inference(&["responses"], Takes::Json, Answer::Json, false),
    inference(&["moderations"], Takes::Json, Answer::Json, false),
    inference(&["images", "generations"], Takes::Json, Answer::Json, true),
    inference(&["images", "edits"], Takes::Form, Answer::Json, true),
    inference(&["images", "variations"], Takes::Form, Answer::Json, true),
    inference(&["audio", "speech"], Takes::Json, Answer::Any, true),
    inference(&["audio", "transcriptions"], Takes::Form, Answer::Any, true),
    inference(&["audio", "translations"], Takes::Form, Answer::Any, true),
    models(&["models"]),
    models(&["models", "*"]),
    state("GET", &["chat", "completions", "*"], Takes::Nothing),
    state("POST", &["chat", "completions", "*"], Takes::Json),
    state("DELETE", &["chat", "completions", "*"], Takes::Nothing),
    state("GET", &["chat", "completions", "*", "messages"], Takes::Nothing),
    state("GET", &["responses", "*"], Takes::Nothing),
    state("DELETE", &["responses", "*"], Takes::Nothing),
    state("POST", &["responses", "*", "cancel"], Takes::Nothing),
    state("GET", &["responses", "*", "input_items"], Takes::Nothing),
    state("GET", &["files"], Takes::Nothing),
    state("POST", &["files"], Takes::Form),
    state("GET", &["files", "*"], Takes::Nothing),
    state("DELETE", &["files", "*"], Takes::Nothing),
    content(&["files", "*", "content"]),
    state("POST", &["uploads"], Takes::Json),
    state("POST", &["uploads", "*", "parts"], Takes::Form),
    state("POST", &["uploads", "*", "complete"], Takes::Json),
    state("POST", &["uploads", "*", "cancel"], Takes::Nothing),
    state("GET", &["batches"], Takes::Nothing),
    state("POST", &["batches"], Takes::Json),
    state("GET", &["batches", "*"], Takes::Nothing),
    state("POST", &["batches", "*", "cancel"], Takes::Nothing),
    state("GET", &["fine_tuning", "jobs"], Takes::Nothing),
    state("POST", &["fine_tuning", "jobs"], Takes::Json),
    state("GET", &["fine_tuning", "jobs", "*"], Takes::Nothing),
    state("POST", &["fine_tuning", "jobs", "*", "cancel"], Takes::Nothing),
    state("POST", &["fine_tuning", "jobs", "*", "pause"], Takes::Nothing),
    state("POST", &["fine_tuning", "jobs", "*", "resume"], Takes::Nothing),
    state("GET", &["fine_tuning", "jobs", "*", "events"], Takes::Nothing),
    state("GET", &["fine_tuning", "jobs", "*", "checkpoints"], Takes::Nothing),
    state("GET", &["vector_stores"], Takes::Nothing),
    state("POST", &["vector_stores"], Takes::Json),
    state("GET", &["vector_stores", "*"], Takes::Nothing),
    state("POST", &["vector_stores", "*"], Takes::Json),
    state("DELETE", &["vector_stores", "*"], Takes::Nothing),
    state("POST", &["vector_stores", "*", "search"], Takes::Json),
    state("GET", &["vector_stores", "*", "files"], Takes::Nothing),
    state("POST", &["vector_stores", "*", "files"], Takes::Json),
    state("GET", &["vector_stores", "*", "files", "*"], Takes::Nothing),
    state("POST", &["vector_stores", "*", "files", "*"], Takes::Json),
    state("DELETE", &["vector_stores", "*", "files", "*"], Takes::Nothing),
    state("GET", &["vector_stores", "*", "files", "*", "content"], Takes::Nothing),
    state("POST", &["vector_stores", "*", "file_batches"], Takes::Json),
    state("GET", &["vector_stores", "*", "file_batches", "*"], Takes::Nothing),
    state("POST", &["vector_stores", "*", "file_batches", "*", "cancel"], Takes::Nothing),
    state("GET", &["vector_stores", "*", "file_batches", "*", "files"], Takes::Nothing),
];

/// Parts of the model API, by their first segment, that are refused by name. What they keep at an endpoint, or have it do, isn't
/// looked at here.
const NOT_OFFERED: &[(&str, &str)] = &[
    ("assistants", "Assistants"),
    ("containers", "Containers"),
    ("conversations", "Conversations"),
    ("evals", "Evals"),
    ("threads", "Threads"),
    ("videos", "Videos"),
];

/// Longer ids than this are nobody's.
const LONGEST_ID: usize = 512;

impl Route {
    /// Reads the raw path of a request (neither decoded nor normalised) and its method.
    ///
    /// ```
    /// use bailiwick_edge::rewrite::path::Route;
    /// assert_eq!(Route::parse("POST", "/v1/chat/completions").unwrap().path(), "/chat/completions");
    /// assert_eq!(Route::parse("POST", "/v1/../admin").unwrap_err().status(), 400);
    /// assert_eq!(Route::parse("GET", "/admin").unwrap_err().status(), 404);
    /// ```
    ///
    /// # Errors
    /// 400 for a path with tricks, 404 for one that is unknown or not offered, 405, 501 for realtime.
    pub fn parse(method: &str, path: &str) -> Result<Self, Failure> {
        let rest = path.strip_prefix('/').ok_or(Failure::BadPath)?;
        let mut segments = rest.split('/').map(checked_segment).collect::<Result<Vec<String>, Failure>>()?;
        if segments.first().is_some_and(|first| first == "v1") {
            segments.remove(0);
        }
        if segments.first().is_some_and(|first| first == "realtime") {
            return Err(Failure::NotCarried { what: "Realtime" });
        }
        if let Some((_, what)) = segments.first().and_then(|first| NOT_OFFERED.iter().find(|(word, _)| word == first)) {
            return Err(Failure::NotOffered { what });
        }
        let fits = |known: &&Known| {
            let word = |(pattern, segment): (&&str, &String)| *pattern == "*" || pattern == segment;
            known.path.len() == segments.len() && known.path.iter().zip(&segments).all(word)
        };
        let mut known = KNOWN.iter().filter(fits).peekable();
        if known.peek().is_none() {
            return Err(Failure::UnknownPath);
        }
        let methods: Vec<&str> = KNOWN.iter().filter(fits).map(|known| known.method).collect();
        let allowed = match methods.as_slice() {
            ["GET"] => "GET",
            ["POST"] => "POST",
            ["GET", "POST"] => "GET, POST",
            ["GET", "DELETE"] => "GET, DELETE",
            _ => "GET, POST, DELETE",
        };
        let known = known.find(|known| known.method == method).ok_or(Failure::WrongMethod { allowed })?;
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

    /// The path without `/v1`, such as `/chat/completions`, for [`is_hub_path`](bailiwick_rules::table::Service::is_hub_path).
    #[must_use]
    pub fn path(&self) -> String {
        self.segments.iter().flat_map(|segment| ["/", segment.as_str()]).collect()
    }

    /// The segments, decoded.
    #[must_use]
    pub fn segments(&self) -> &[String] {
        &self.segments
    }

    /// The method.
    #[must_use]
    pub fn method(&self) -> &'static str {
        self.method
    }

    /// What kind of work it is.
    #[must_use]
    pub fn class(&self) -> Class {
        self.class
    }

    /// What body it takes.
    #[must_use]
    pub fn takes(&self) -> Takes {
        self.takes
    }

    /// Whether Azure has it under `/openai/deployments/{deployment}`.
    #[must_use]
    pub fn is_deployed(&self) -> bool {
        self.deployed
    }

    /// Whether it is the path of exactly these words.
    #[must_use]
    pub fn is(&self, words: &[&str]) -> bool {
        self.segments == words
    }

    /// What a good answer looks like.
    #[must_use]
    pub fn expect(&self, stream: bool) -> Expect {
        match self.answer {
            Answer::Any => Expect::Any,
            Answer::File => Expect::File,
            Answer::Json if stream => Expect::Stream,
            Answer::Json => Expect::Json,
        }
    }

    /// The ids of objects at endpoints in it, in order.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        let words = self.pattern.iter().zip(&self.segments);
        words.filter(|(word, _)| **word == "*" && self.class == Class::State).map(|(_, segment)| segment.as_str())
    }

    /// Has these sent instead of [`Route::ids`].
    pub fn replace_ids(&mut self, new: &mut impl Iterator<Item = String>) {
        if self.class == Class::State {
            let slots = self.pattern.iter().zip(&mut self.segments).filter(|(word, _)| **word == "*");
            slots.zip(new).for_each(|((_, segment), new)| *segment = new);
        }
    }

    /// Whether it lists all objects of a kind.
    #[must_use]
    pub fn is_collection(&self) -> bool {
        self.class == Class::State && self.method == "GET" && !self.pattern.contains(&"*")
    }

    /// The model named in the path (`/models/{model}`).
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        self.segments.get(1).filter(|_| self.class == Class::Models).map(String::as_str)
    }
}

/// A segment, decoded: not empty, no dot segment, and nothing that is one once somebody else decodes it again.
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
                    // An encoded percent sign would be decoded by whoever comes second.
                    b'.' | b'/' | b'\\' | b'%' => return Err(Failure::BadPath),
                    byte => byte,
                }
            }
            b'\\' | b'?' | b'#' => return Err(Failure::BadPath),
            byte => byte,
        });
    }
    let segment = String::from_utf8(decoded).map_err(|_| Failure::BadPath)?;
    let dots = segment.bytes().all(|byte| byte == b'.'); // an empty one too
    let tricks = dots || segment.len() > LONGEST_ID || segment.contains(char::is_control);
    if tricks { Err(Failure::BadPath) } else { Ok(segment) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tricks_are_refused() {
        for path in [
            "",
            "v1/models",
            "//v1/models",
            "/v1//models",
            "/v1/models/",
            "/v1/./models",
            "/v1/../models",
            "/v1/%2e%2E/models",
            "/v1/models/a%2Fb",
            "/v1/models/a%5cb",
            "/v1/models/a\\b",
            "/v1/models/%252e",
            "/v1/models/a%",
            "/v1/models/a%4",
            "/v1/models/%ff",
            "/v1/models/%00",
            "/v1/models/a?b",
            "/v1/models/a#b",
        ] {
            assert_eq!(Route::parse("GET", path), Err(Failure::BadPath), "{path}");
        }
    }

    #[test]
    fn only_known_paths_pass_with_their_methods() {
        for path in ["/", "/v1", "/v1/admin", "/v1/v1/models", "/v2/models", "/v1/chat", "/v1/chat/completions/x/y"] {
            let failure = Route::parse("GET", path).unwrap_err();
            assert!(matches!(failure, Failure::UnknownPath | Failure::BadPath), "{path}: {failure:?}");
        }
        assert_eq!(Route::parse("GET", "/v1/chat/completions"), Err(Failure::WrongMethod { allowed: "POST" }));
        assert_eq!(Route::parse("PUT", "/v1/files/a"), Err(Failure::WrongMethod { allowed: "GET, DELETE" }));
        assert_eq!(Route::parse("GET", "/v1/realtime").unwrap_err().status(), 501);
        assert_eq!(Route::parse("POST", "/v1/evals/eval_1/runs"), Err(Failure::NotOffered { what: "Evals" }));
        assert_eq!(Route::parse("PUT", "/conversations").unwrap_err().status(), 404);
        assert_eq!(Route::parse("GET", "/models").unwrap().path(), "/models");
        let part = Route::parse("POST", "/v1/uploads/upload_1/parts").unwrap();
        assert_eq!(
            (part.ids().collect::<Vec<_>>(), part.takes(), part.class()),
            (vec!["upload_1"], Takes::Form, Class::State)
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
