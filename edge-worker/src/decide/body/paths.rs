//! The top-level fields that each path of the model API documents. Takes a path, returns its fields. Called by `body`
//! and `field`.

use super::scope::NamedField;
use super::shape::Shape::{
    Content, Data, Free, Hosted, Id, Items, Kept, Label, Map, Metadata, Model, Object, Scoped, Text, ToolChoice, Tools,
    Unknown, Word,
};
use super::shape::{CACHE_OPTIONS, CALLED, FORMAT, FUNCTION, Fields, METHOD, MODERATION, STORED_PROMPT};

/// The fields of a path, given as a pattern with `*` for an id. Unknown paths have none.
pub(super) fn fields(pattern: &[&str]) -> Fields {
    match pattern {
        ["chat", "completions"] => CHAT,
        ["completions"] => COMPLETIONS,
        ["embeddings"] => EMBEDDINGS,
        ["responses"] | ["responses", "compact" | "input_tokens"] => RESPONSES,
        ["moderations"] => &[("input", Content), ("model", Label)],
        ["images", "generations"] => GENERATIONS,
        ["images", "edits" | "variations"] => EDITS,
        ["audio", "speech"] => SPEECH,
        ["audio", "transcriptions" | "translations"] => TRANSCRIPTIONS,
        ["chat", "completions", "*"] => &[("metadata", Metadata)],
        ["files"] => &[("purpose", Word), ("expires_after", Unknown)],
        ["uploads"] => UPLOADS,
        ["uploads", "*", "complete"] => &[("part_ids", Id), ("md5", Word)],
        ["batches"] => BATCHES,
        ["fine_tuning", "jobs"] => FINE_TUNING,
        ["vector_stores", ..] => VECTOR_STORES,
        ["rerank" | "score" | "classify" | "pooling" | "tokenize" | "detokenize"] => POOLING,
        ["messages"] | ["messages", "count_tokens"] => MESSAGES,
        _ => &[("model", Label)],
    }
}

static CHAT: Fields = &[
    ("model", Label),
    ("messages", Content),
    ("stream", Word),
    ("temperature", Word),
    ("max_tokens", Word),
    ("max_completion_tokens", Word),
    ("tools", Tools),
    ("tool_choice", ToolChoice),
    ("stream_options", Unknown),
    ("response_format", Object(FORMAT)),
    ("reasoning_effort", Word),
    ("user", Label),
    ("seed", Word),
    ("stop", Text),
    ("top_p", Word),
    ("n", Word),
    ("frequency_penalty", Word),
    ("presence_penalty", Word),
    ("logprobs", Word),
    ("top_logprobs", Word),
    ("logit_bias", Map(&Word)),
    ("parallel_tool_calls", Word),
    ("metadata", Metadata),
    ("store", Word),
    ("prompt_cache_key", Scoped(NamedField::CacheKey)),
    ("prompt_cache_options", Object(CACHE_OPTIONS)),
    ("prompt_cache_retention", Word),
    ("safety_identifier", Label),
    ("service_tier", Word),
    ("verbosity", Word),
    ("prediction", Object(&[("type", Word), ("content", Content)])),
    ("modalities", Word),
    ("audio", Object(AUDIO)),
    ("functions", Object(FUNCTION)),
    ("function_call", Object(CALLED)),
    ("moderation", Model(MODERATION)),
];

static AUDIO: Fields = &[("format", Word), ("voice", Object(VOICE))];
static VOICE: Fields = &[("id", Id)];

static COMPLETIONS: Fields = &[
    ("model", Label),
    ("prompt", Content),
    ("stream", Word),
    ("max_tokens", Word),
    ("temperature", Word),
    ("stop", Text),
    ("suffix", Text),
    ("stream_options", Unknown),
    ("best_of", Word),
    ("echo", Word),
    ("frequency_penalty", Word),
    ("logit_bias", Map(&Word)),
    ("logprobs", Word),
    ("n", Word),
    ("presence_penalty", Word),
    ("seed", Word),
    ("top_p", Word),
    ("user", Label),
];

static EMBEDDINGS: Fields =
    &[("model", Label), ("input", Content), ("encoding_format", Word), ("dimensions", Word), ("user", Label)];

static RESPONSES: Fields = &[
    ("model", Label),
    ("input", Items),
    ("instructions", Text),
    ("stream", Word),
    ("store", Word),
    ("tools", Tools),
    ("tool_choice", ToolChoice),
    ("reasoning", Unknown),
    ("text", Object(&[("format", Object(FORMAT)), ("verbosity", Word)])),
    ("include", Word),
    ("previous_response_id", Id),
    ("prompt_cache_key", Scoped(NamedField::CacheKey)),
    ("prompt_cache_options", Object(CACHE_OPTIONS)),
    ("prompt_cache_retention", Word),
    ("max_output_tokens", Word),
    ("max_tool_calls", Word),
    ("metadata", Metadata),
    ("temperature", Word),
    ("top_p", Word),
    ("top_logprobs", Word),
    ("parallel_tool_calls", Word),
    ("truncation", Word),
    ("user", Label),
    ("safety_identifier", Label),
    ("service_tier", Word),
    ("stream_options", Unknown),
    ("background", Word),
    ("conversation", Kept(&[("id", Id)])),
    ("prompt", Kept(STORED_PROMPT)),
    ("moderation", Model(MODERATION)),
    ("context_management", Unknown),
    ("access_programs", Unknown),
    ("image", Object(&[("context_compression", Word)])),
    // OpenAI doesn't document this field. Some clients write one body for this API and for chat completions.
    ("messages", Content),
];

static GENERATIONS: Fields = &[
    ("model", Label),
    ("prompt", Text),
    ("n", Word),
    ("size", Word),
    ("quality", Word),
    ("response_format", Word),
    ("output_format", Word),
    ("output_compression", Word),
    ("background", Word),
    ("moderation", Word),
    ("style", Word),
    ("stream", Word),
    ("partial_images", Word),
    ("complexity", Word),
    ("frame_count", Word),
    ("frame_duration_ms", Word),
    ("svg", Object(&[("model", Model(&[])), ("reasoning", Unknown)])),
    ("user", Label),
    ("safety_identifier", Label),
];

/// Fields of image edits, as JSON or as a form, and of image variations.
static EDITS: Fields = &[
    ("model", Label),
    ("prompt", Text),
    ("image", Data),
    ("images", Object(&[("image_url", Data), ("file_id", Id)])),
    ("mask", Data),
    ("markup", Data),
    ("n", Word),
    ("size", Word),
    ("quality", Word),
    ("response_format", Word),
    ("output_format", Word),
    ("output_compression", Word),
    ("background", Word),
    ("input_fidelity", Word),
    ("moderation", Word),
    ("stream", Word),
    ("partial_images", Word),
    ("complexity", Word),
    ("frame_count", Word),
    ("frame_duration_ms", Word),
    ("user", Label),
    ("safety_identifier", Label),
];

static SPEECH: Fields = &[
    ("model", Label),
    ("input", Text),
    ("voice", Object(VOICE)),
    ("instructions", Text),
    ("response_format", Word),
    ("speed", Word),
    ("stream_format", Word),
];

/// Fields of transcriptions and translations, which are forms.
static TRANSCRIPTIONS: Fields = &[
    ("model", Label),
    ("file", Data),
    ("prompt", Text),
    ("language", Word),
    ("languages", Word),
    ("response_format", Word),
    ("stream", Word),
    ("temperature", Word),
    ("timestamp_granularities", Word),
    ("include", Word),
    ("chunking_strategy", Unknown),
    ("keywords", Text),
    ("known_speaker_names", Text),
    ("known_speaker_references", Data),
    ("user", Label),
];

static UPLOADS: Fields =
    &[("bytes", Word), ("filename", Label), ("mime_type", Word), ("purpose", Word), ("expires_after", Unknown)];

static BATCHES: Fields = &[
    ("completion_window", Word),
    // A path of the API.
    ("endpoint", Label),
    ("input_file_id", Id),
    ("metadata", Metadata),
    ("output_expires_after", Unknown),
];

static FINE_TUNING: Fields = &[
    ("model", Label),
    ("training_file", Id),
    ("validation_file", Id),
    ("hyperparameters", Unknown),
    ("integrations", Hosted),
    ("metadata", Metadata),
    ("method", Object(METHOD)),
    ("seed", Word),
    ("suffix", Label),
];

/// Fields of all paths below `vector_stores`. A key means the same on each of these paths.
static VECTOR_STORES: Fields = &[
    ("name", Text),
    ("description", Text),
    ("metadata", Metadata),
    ("attributes", Metadata),
    ("file_id", Id),
    ("file_ids", Id),
    ("files", Object(&[("file_id", Id), ("attributes", Metadata), ("chunking_strategy", Unknown)])),
    ("chunking_strategy", Unknown),
    ("expires_after", Unknown),
    ("query", Text),
    ("filters", Free),
    ("max_num_results", Word),
    ("ranking_options", Unknown),
    ("rewrite_query", Word),
];

/// Fields of the paths that only engines have. A key means the same on each of these paths.
static POOLING: Fields = &[
    ("model", Label),
    ("query", Content),
    ("queries", Content),
    ("documents", Content),
    ("items", Content),
    ("text_1", Content),
    ("text_2", Content),
    ("data_1", Content),
    ("data_2", Content),
    ("input", Content),
    ("prompt", Text),
    ("messages", Content),
    ("instruct", Text),
    ("instruction", Text),
    ("tokens", Word),
    ("label_token_ids", Word),
    ("tools", Tools),
    ("encoding_format", Word),
    ("user", Label),
];

/// Fields of Anthropic's Messages API.
static MESSAGES: Fields = &[
    ("model", Label),
    ("messages", Content),
    ("system", Content),
    ("max_tokens", Word),
    ("stream", Word),
    ("temperature", Word),
    ("top_p", Word),
    ("top_k", Word),
    ("stop_sequences", Text),
    ("tools", Tools),
    ("tool_choice", ToolChoice),
    ("metadata", Metadata),
    ("thinking", Unknown),
    ("service_tier", Word),
    ("output_config", Object(&[("effort", Word), ("format", Object(FORMAT))])),
    ("output_format", Object(FORMAT)),
    ("cache_control", Unknown),
];
