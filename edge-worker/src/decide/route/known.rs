//! The tables of the model API's paths: those that the edge serves, and those that it deliberately doesn't offer. Takes
//! the segments of a path; returns the matching entries of the tables. Called by [`Route`](super::Route).

use super::{AnswerForm, BodyForm, Class};

/// One path of the model API.
pub(super) struct KnownPath {
    pub(super) method: &'static str,
    /// The segments of the path, with `*` in the place of an id or of a model's name.
    pub(super) path: &'static [&'static str],
    pub(super) class: Class,
    pub(super) takes: BodyForm,
    pub(super) answer: AnswerForm,
    /// Whether Azure has this path below `/openai/deployments/{deployment}`.
    pub(super) deployed: bool,
}

impl KnownPath {
    /// Whether these segments match the path.
    fn fits(&self, segments: &[String]) -> bool {
        let word = |(pattern, segment): (&&str, &String)| *pattern == "*" || pattern == segment;
        self.path.len() == segments.len() && self.path.iter().zip(segments).all(word)
    }

    /// How many of the path's segments are ids.
    fn ids(&self) -> usize {
        self.path.iter().filter(|word| **word == "*").count()
    }
}

/// The known paths that match, one for each method. If a segment may be a fixed word of the API or an id, it counts as
/// the word: in `/responses/compact`, `compact` is not the id of a response.
pub(super) fn find(segments: &[String]) -> impl Iterator<Item = &'static KnownPath> + '_ {
    let fitting = KNOWN.iter().filter(|known| known.fits(segments));
    let fewest = fitting.clone().map(KnownPath::ids).min();
    fitting.filter(move |known| Some(known.ids()) == fewest)
}

/// The name of a part of the model API, or of another API, that is deliberately not offered.
pub(super) fn not_offered(segments: &[String]) -> Option<&'static str> {
    let begins = |words: &[&str]| segments.len() >= words.len() && words.iter().zip(segments).all(|(a, b)| a == b);
    NOT_OFFERED.iter().find(|(words, _)| begins(words)).map(|(_, what)| *what)
}

/// A path where a model answers.
const fn inference(path: &'static [&'static str], takes: BodyForm, answer: AnswerForm, deployed: bool) -> KnownPath {
    KnownPath { method: "POST", path, class: Class::Inference, takes, answer, deployed }
}

/// A path of state: what an endpoint stores, such as files, batches and stored answers.
const fn state(method: &'static str, path: &'static [&'static str], takes: BodyForm) -> KnownPath {
    KnownPath { method, path, class: Class::State, takes, answer: AnswerForm::Json, deployed: false }
}

/// A path of the list of models.
const fn models(path: &'static [&'static str]) -> KnownPath {
    KnownPath {
        method: "GET",
        path,
        class: Class::Models,
        takes: BodyForm::Nothing,
        answer: AnswerForm::Json,
        deployed: false,
    }
}

/// A path that returns a stored file.
const fn content(path: &'static [&'static str]) -> KnownPath {
    KnownPath {
        method: "GET",
        path,
        class: Class::State,
        takes: BodyForm::Nothing,
        answer: AnswerForm::File,
        deployed: false,
    }
}

/// The paths that the edge serves.
const KNOWN: &[KnownPath] = &[
    inference(&["chat", "completions"], BodyForm::Json, AnswerForm::Json, true),
    inference(&["completions"], BodyForm::Json, AnswerForm::Json, true),
    inference(&["embeddings"], BodyForm::Json, AnswerForm::Json, true),
    inference(&["responses"], BodyForm::Json, AnswerForm::Json, false),
    inference(&["responses", "compact"], BodyForm::Json, AnswerForm::Json, false),
    inference(&["responses", "input_tokens"], BodyForm::Json, AnswerForm::Json, false),
    inference(&["moderations"], BodyForm::Json, AnswerForm::Json, false),
    inference(&["images", "generations"], BodyForm::Json, AnswerForm::Json, true),
    inference(&["images", "edits"], BodyForm::JsonOrForm, AnswerForm::Json, true),
    inference(&["images", "variations"], BodyForm::Form, AnswerForm::Json, true),
    inference(&["audio", "speech"], BodyForm::Json, AnswerForm::Any, true),
    inference(&["audio", "transcriptions"], BodyForm::Form, AnswerForm::Any, true),
    inference(&["audio", "translations"], BodyForm::Form, AnswerForm::Any, true),
    models(&["models"]),
    models(&["models", "*"]),
    KnownPath { method: "DELETE", ..models(&["models", "*"]) },
    state("GET", &["chat", "completions", "*"], BodyForm::Nothing),
    state("POST", &["chat", "completions", "*"], BodyForm::Json),
    state("DELETE", &["chat", "completions", "*"], BodyForm::Nothing),
    state("GET", &["chat", "completions", "*", "messages"], BodyForm::Nothing),
    state("GET", &["responses", "*"], BodyForm::Nothing),
    state("DELETE", &["responses", "*"], BodyForm::Nothing),
    state("POST", &["responses", "*", "cancel"], BodyForm::Nothing),
    state("GET", &["responses", "*", "input_items"], BodyForm::Nothing),
    state("GET", &["files"], BodyForm::Nothing),
    state("POST", &["files"], BodyForm::Form),
    state("GET", &["files", "*"], BodyForm::Nothing),
    state("DELETE", &["files", "*"], BodyForm::Nothing),
    content(&["files", "*", "content"]),
    state("POST", &["uploads"], BodyForm::Json),
    state("POST", &["uploads", "*", "parts"], BodyForm::Form),
    state("POST", &["uploads", "*", "complete"], BodyForm::Json),
    state("POST", &["uploads", "*", "cancel"], BodyForm::Nothing),
    state("GET", &["batches"], BodyForm::Nothing),
    state("POST", &["batches"], BodyForm::Json),
    state("GET", &["batches", "*"], BodyForm::Nothing),
    state("POST", &["batches", "*", "cancel"], BodyForm::Nothing),
    state("GET", &["fine_tuning", "jobs"], BodyForm::Nothing),
    state("POST", &["fine_tuning", "jobs"], BodyForm::Json),
    state("GET", &["fine_tuning", "jobs", "*"], BodyForm::Nothing),
    state("POST", &["fine_tuning", "jobs", "*", "cancel"], BodyForm::Nothing),
    state("POST", &["fine_tuning", "jobs", "*", "pause"], BodyForm::Nothing),
    state("POST", &["fine_tuning", "jobs", "*", "resume"], BodyForm::Nothing),
    state("GET", &["fine_tuning", "jobs", "*", "events"], BodyForm::Nothing),
    state("GET", &["fine_tuning", "jobs", "*", "checkpoints"], BodyForm::Nothing),
    state("GET", &["vector_stores"], BodyForm::Nothing),
    state("POST", &["vector_stores"], BodyForm::Json),
    state("GET", &["vector_stores", "*"], BodyForm::Nothing),
    state("POST", &["vector_stores", "*"], BodyForm::Json),
    state("DELETE", &["vector_stores", "*"], BodyForm::Nothing),
    state("POST", &["vector_stores", "*", "search"], BodyForm::Json),
    state("GET", &["vector_stores", "*", "files"], BodyForm::Nothing),
    state("POST", &["vector_stores", "*", "files"], BodyForm::Json),
    state("GET", &["vector_stores", "*", "files", "*"], BodyForm::Nothing),
    state("POST", &["vector_stores", "*", "files", "*"], BodyForm::Json),
    state("DELETE", &["vector_stores", "*", "files", "*"], BodyForm::Nothing),
    state("GET", &["vector_stores", "*", "files", "*", "content"], BodyForm::Nothing),
    state("POST", &["vector_stores", "*", "file_batches"], BodyForm::Json),
    state("GET", &["vector_stores", "*", "file_batches", "*"], BodyForm::Nothing),
    state("POST", &["vector_stores", "*", "file_batches", "*", "cancel"], BodyForm::Nothing),
    state("GET", &["vector_stores", "*", "file_batches", "*", "files"], BodyForm::Nothing),
];

/// Parts of the model API, and other APIs, that are refused by name, with the first words of their paths. The edge has
/// no checks for what these paths store at an endpoint or make it do.
const NOT_OFFERED: &[(&[&str], &str)] = &[
    (&["agents"], "Agents"),
    (&["assistants"], "Assistants"),
    (&["audio", "voice_consents"], "Custom voices"),
    (&["audio", "voices"], "Custom voices"),
    (&["chatkit"], "ChatKit sessions"),
    (&["containers"], "Containers"),
    (&["content_provenance_checks"], "Content provenance checks"),
    (&["conversations"], "Conversations"),
    (&["decisions"], "Decisions"),
    (&["evals"], "Evals"),
    (&["fine_tuning", "alpha"], "Graders"),
    (&["fine_tuning", "checkpoints"], "Checkpoint permissions"),
    (&["live"], "Live sessions"),
    (&["organization"], "Administration calls"),
    (&["projects"], "Administration calls"),
    // Audio and video of these calls wouldn't pass through the Worker.
    (&["realtime", "calls"], "Realtime calls over WebRTC and SIP"),
    (&["realtime", "client_secrets"], "Realtime client secrets"),
    (&["realtime", "sessions"], "Realtime client secrets"),
    (&["realtime", "transcription_sessions"], "Realtime client secrets"),
    (&["realtime", "translations"], "Realtime client secrets"),
    (&["safety"], "Safety cases"),
    (&["skills"], "Skills"),
    (&["threads"], "Threads"),
    (&["vaults"], "Vaults"),
    (&["videos"], "Videos"),
    (&["webhook_endpoints"], "Webhooks"),
    (&["webhook_event_types"], "Webhooks"),
    // Paths of Anthropic, Cohere, Google, Ollama, TGI, vLLM and SGLang.
    (&["messages"], "Anthropic's messages"),
    (&["complete"], "Anthropic's completions"),
    (&["rerank"], "Rerankings"),
    (&["v2", "rerank"], "Rerankings"),
    (&["v2"], "Cohere's own paths"),
    (&["v1beta"], "Gemini's own paths"),
    (&["score"], "Scores"),
    (&["pooling"], "Poolings"),
    (&["classify"], "Classifications"),
    (&["tokenize"], "Tokens"),
    (&["detokenize"], "Tokens"),
    (&["api"], "Ollama's own paths"),
    (&["generate"], "An engine's own generations"),
    (&["generate_stream"], "An engine's own generations"),
    (&["inference"], "An engine's own generations"),
    (&["invocations"], "SageMaker's invocations"),
    (&["load_lora_adapter"], "An engine's own adapters"),
    (&["unload_lora_adapter"], "An engine's own adapters"),
];
