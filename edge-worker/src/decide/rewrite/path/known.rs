//! The tables of the model API's paths: checked segments in, what is known of them out; [`Route`](super::Route) looks here.

use super::{Answer, Class, Takes};

/// One path of the model API.
pub(super) struct Known {
    pub(super) method: &'static str,
    /// Words, with `*` for an id.
    pub(super) path: &'static [&'static str],
    pub(super) class: Class,
    pub(super) takes: Takes,
    pub(super) answer: Answer,
    /// Whether Azure has it under the deployment.
    pub(super) deployed: bool,
}

impl Known {
    /// Whether the segments of a path are its own.
    fn fits(&self, segments: &[String]) -> bool {
        let word = |(pattern, segment): (&&str, &String)| *pattern == "*" || pattern == segment;
        self.path.len() == segments.len() && self.path.iter().zip(segments).all(word)
    }

    /// How many of its segments are ids.
    fn ids(&self) -> usize {
        self.path.iter().filter(|word| **word == "*").count()
    }
}

/// What is known under a path, one for each method. Where words fit, ids don't: `compact` is no id of a response.
pub(super) fn find(segments: &[String]) -> impl Iterator<Item = &'static Known> + '_ {
    let fitting = KNOWN.iter().filter(|known| known.fits(segments));
    let fewest = fitting.clone().map(Known::ids).min();
    fitting.filter(move |known| Some(known.ids()) == fewest)
}

/// The name of a part of the model API, or of another API, that is left out on purpose.
pub(super) fn not_offered(segments: &[String]) -> Option<&'static str> {
    let begins = |words: &[&str]| segments.len() >= words.len() && words.iter().zip(segments).all(|(a, b)| a == b);
    NOT_OFFERED.iter().find(|(words, _)| begins(words)).map(|(_, what)| *what)
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
    inference(&["responses", "compact"], Takes::Json, Answer::Json, false),
    inference(&["responses", "input_tokens"], Takes::Json, Answer::Json, false),
    inference(&["moderations"], Takes::Json, Answer::Json, false),
    inference(&["images", "generations"], Takes::Json, Answer::Json, true),
    inference(&["images", "edits"], Takes::JsonOrForm, Answer::Json, true),
    inference(&["images", "variations"], Takes::Form, Answer::Json, true),
    inference(&["audio", "speech"], Takes::Json, Answer::Any, true),
    inference(&["audio", "transcriptions"], Takes::Form, Answer::Any, true),
    inference(&["audio", "translations"], Takes::Form, Answer::Any, true),
    models(&["models"]),
    models(&["models", "*"]),
    Known { method: "DELETE", ..models(&["models", "*"]) },
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

/// Parts of the model API, and other APIs, by their first words, that are refused by name. What they keep at an endpoint, or have
/// it do, isn't looked at here.
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
    // Their media would go around whatever is checked here.
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
    // Of Anthropic, Cohere, Google, Ollama, TGI, vLLM and SGLang.
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
