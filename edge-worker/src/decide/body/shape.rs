//! The shapes of values in bodies of the model API: which values each field may have. `paths` and `engine` hold the
//! tables of top-level fields. This file holds the tables of fields below the top level. `walk` reads bodies by these
//! tables.
//!
//! The sources are the types of OpenAI's official clients and the request models of vLLM and SGLang. A list has the
//! shape of its items.

use super::scope::NamedField;
use crate::decide::json::reads_as_words;

/// The shape of a value: which values are allowed.
#[derive(Debug)]
pub(super) enum Shape {
    /// Text for the model. Anything is allowed.
    Text,
    /// Any value of the client's own. Its keys have no meaning.
    Free,
    /// A name or id that the client or the model made up.
    Label,
    /// A word, number or boolean of the API.
    Word,
    /// The name of the kind of a part, an item or a message.
    Kind,
    /// Media: base64, a `data:` URL, or an object with one of these.
    Data,
    /// Media as in Anthropic's API, which may also be text.
    Source,
    /// Opaque data that a host handed out: base64, or a name.
    Blob,
    /// A JSON Schema.
    Schema,
    /// A text, parts of content, or messages.
    Content,
    /// A text, or items of the Responses API.
    Items,
    /// Tools, each an object with a type.
    Tools,
    /// `tool_choice`.
    ToolChoice,
    /// The id of an object at an endpoint, a list of such ids, or an object in which each text is an id.
    Id,
    /// The id of an object at an endpoint, or an object with these fields, among them the id.
    Kept(Fields),
    /// The name of a model that runs beside the request's own, or an object with these fields.
    Model(Fields),
    /// Texts, numbers and booleans under names that the client chose.
    Metadata,
    /// A grader.
    Grader,
    /// One grader, or several graders under their names.
    Graders,
    /// A name that engines share among all tenants.
    Scoped(NamedField),
    /// An object with these fields.
    Object(Fields),
    /// An object whose keys the client chose.
    Map(&'static Shape),
    /// Something that the model host should search or run, in a service that allows it.
    Hosted,
    /// Like [`Shape::Hosted`], but stored at an endpoint: the id of the stored object, or an object that may hold the
    /// id.
    HostedKept,
    /// A value that an engine compiles or unpickles, or that controls how the engine reads media. Holds the shape of
    /// that value.
    EngineInput(&'static Shape),
    /// A documented object whose fields aren't listed here.
    Unknown,
    /// A value under an undocumented key.
    Stray,
}

/// Fields by name, the most frequent first.
pub(super) type Fields = &'static [(&'static str, Shape)];

use Shape::{
    Blob, Content, Data, EngineInput, Free, Grader, Graders, Id, Items, Kept, Kind, Label, Map, Model, Object, Schema,
    Scoped, Source, Text, ToolChoice, Tools, Unknown, Word,
};

/// The fields of messages, of parts of content and of items of the Responses API. One table is enough, because a key
/// means the same in all of them.
pub(super) static NODE: Fields = &[
    ("role", Word),
    ("content", Content),
    ("type", Kind),
    ("text", Text),
    ("image_url", Data),
    ("id", Label),
    ("call_id", Label),
    ("tool_call_id", Label),
    ("tool_calls", Object(TOOL_CALL)),
    ("name", Label),
    ("arguments", Free),
    ("output", Content),
    ("status", Word),
    ("summary", Content),
    ("encrypted_content", Blob),
    ("refusal", Text),
    ("reasoning", Text),
    ("reasoning_content", Text),
    ("reasoning_details", Object(REASONING_DETAIL)),
    ("thinking", Text),
    ("thinking_blocks", Content),
    ("signature", Blob),
    ("thought_signature", Blob),
    ("annotations", Object(ANNOTATION)),
    ("logprobs", Free),
    ("detail", Word),
    ("input_audio", Data),
    ("audio_url", Data),
    ("video_url", Data),
    ("file_url", Data),
    ("document_url", Data),
    ("image", Data),
    ("audio", Data),
    ("video", Data),
    ("file", Data),
    ("file_data", Data),
    ("file_id", Id),
    ("filename", Label),
    ("data", Data),
    ("uuid", Scoped(NamedField::Media)),
    ("cache_control", Unknown),
    ("prompt_cache_breakpoint", Unknown),
    ("function_call", Object(CALLED)),
    ("parsed", Free),
    ("tools", Tools),
    ("phase", Word),
    ("input", Free),
    ("tool_use_id", Label),
    ("title", Text),
    ("context", Text),
    ("action", Object(ACTION)),
    ("actions", Object(ACTION)),
    ("operation", Object(&[("type", Word), ("path", Text), ("diff", Text)])),
    ("pending_safety_checks", Object(SAFETY_CHECK)),
    ("acknowledged_safety_checks", Object(SAFETY_CHECK)),
    // The page that the client's browser shows.
    ("current_url", Text),
    ("stdout", Text),
    ("stderr", Text),
    ("environment", Object(ENVIRONMENT)),
    ("queries", Text),
    ("results", Object(&[("text", Text), ("attributes", Free), ("filename", Label), ("file_id", Id)])),
    ("code", Text),
    ("outputs", Object(&[("type", Word), ("logs", Text), ("url", Data)])),
    ("result", Blob),
    ("revised_prompt", Text),
    ("reason", Text),
    ("error", Free),
    // The usage of an earlier answer, with the model that made the image.
    ("svg_usage", Free),
    ("fingerprint", Blob),
    ("source", Source),
    ("format", Word),
    ("modalities", Word),
    ("media_type", Word),
    ("mime_type", Word),
    ("media_resolution", Unknown),
    ("video_metadata", Unknown),
    ("file_name", Label),
    ("document_name", Label),
    ("extra_content", Object(&[("google", Object(&[("thought_signature", Blob)]))])),
];

/// A call of a tool in a message.
static TOOL_CALL: Fields = &[
    ("id", Label),
    ("type", Word),
    ("function", Object(CALLED)),
    ("custom", Object(&[("name", Label), ("input", Text)])),
    ("extra_content", Object(&[("google", Object(&[("thought_signature", Blob)]))])),
];

pub(super) static CALLED: Fields =
    &[("name", Label), ("arguments", Free), ("parsed_arguments", Free), ("thought_signature", Blob)];

static REASONING_DETAIL: Fields = &[
    ("type", Word),
    ("text", Text),
    ("summary", Text),
    ("data", Blob),
    ("signature", Blob),
    ("id", Label),
    ("format", Label),
];

/// A source that an earlier answer cited. The host doesn't fetch it again.
static ANNOTATION: Fields = &[
    ("type", Word),
    ("url", Text),
    ("title", Text),
    ("url_citation", Object(&[("url", Text), ("title", Text)])),
    ("file_id", Id),
    ("filename", Label),
    ("container_id", Id),
    // The text that OpenRouter read in a PDF.
    ("file", Object(&[("hash", Label), ("name", Label), ("content", Content)])),
];

/// An action that the model asked the client to do with a computer or a shell, or that the host did when the model
/// searched. The host doesn't fetch these pages again.
static ACTION: Fields = &[
    ("type", Word),
    ("text", Text),
    ("keys", Text),
    ("command", Text),
    ("commands", Text),
    ("env", Free),
    ("user", Label),
    ("working_directory", Text),
    ("query", Text),
    ("queries", Text),
    ("pattern", Text),
    ("url", Text),
    ("sources", Object(&[("type", Word), ("url", Text), ("name", Label)])),
];

static SAFETY_CHECK: Fields = &[("id", Label), ("code", Label), ("message", Text)];

/// Where a shell runs.
static ENVIRONMENT: Fields =
    &[("type", Word), ("skills", Kept(&[("name", Label), ("description", Text), ("path", Text), ("id", Id)]))];

/// An object that holds media.
pub(super) static MEDIA: Fields = &[
    ("url", Data),
    ("data", Data),
    ("detail", Word),
    ("format", Word),
    ("type", Word),
    ("file_data", Data),
    ("file_id", Id),
    ("filename", Label),
    ("file_url", Data),
    ("b64_json", Data),
    // The id of an output that the host stores: `audio` of an assistant's message.
    ("id", Id),
    ("name", Label),
    ("transcript", Text),
    ("media_type", Word),
    ("mime_type", Word),
    ("uuid", Scoped(NamedField::Media)),
    ("content_hash", Scoped(NamedField::Hash)),
    ("file_name", Label),
    ("cache_control", Unknown),
    ("media_resolution", Unknown),
    ("video_metadata", Unknown),
];

/// The documented keys of objects of the shape [`Shape::Unknown`] (`stream_options`, `reasoning`, `thinking`,
/// `cache_control`, `chat_template_kwargs`, `expires_after`). All their values are words. A key means the same in all
/// of these objects.
pub(super) static WORDS: Fields = &[
    ("include_usage", Word),
    ("type", Word),
    ("effort", Word),
    ("summary", Word),
    ("enable_thinking", Word),
    ("thinking", Word),
    ("ttl", Word),
    ("include_obfuscation", Word),
    ("continuous_usage_stats", Word),
    ("budget_tokens", Word),
    ("max_tokens", Word),
    ("enabled", Word),
    ("exclude", Word),
    ("reasoning_effort", Word),
    ("anchor", Word),
    ("seconds", Word),
    ("days", Word),
];

/// Fields whose value an engine compiles (templates in Jinja), unpickles (`torch.load`), or passes to the code that
/// reads media. vLLM accepts each field only if its operator sets an option (`--trust-request-chat-template`,
/// `--trust-request-mm-kwargs`, `--enable-prompt-embeds`, `--enable-mm-embeds`). Other engines have no such option.
static ENGINE_INPUTS: Fields = &[
    ("chat_template", EngineInput(&Text)),
    ("instruction_template_str", EngineInput(&Text)),
    ("chat_template_str", EngineInput(&Text)),
    ("prompt_embeds", EngineInput(&Data)),
    ("inputs_embeds", EngineInput(&Data)),
    ("input_embeds", EngineInput(&Data)),
    ("image_embeds", EngineInput(&Data)),
    ("audio_embeds", EngineInput(&Data)),
    ("video_embeds", EngineInput(&Data)),
    ("precomputed_embeddings", EngineInput(&Data)),
    ("multi_modal_data", EngineInput(&Data)),
    ("mm_processor_kwargs", EngineInput(&Unknown)),
    ("media_io_kwargs", EngineInput(&Unknown)),
    ("hf_overrides", EngineInput(&Unknown)),
    ("trust_remote_code", EngineInput(&Word)),
    ("code_revision", EngineInput(&Label)),
];

/// The shape of an engine input, by its name in any spelling; `None` for other names.
pub(super) fn engine_input(key: &str) -> Option<&'static Shape> {
    ENGINE_INPUTS.iter().find(|(name, _)| reads_as_words(key, name)).map(|(_, shape)| shape)
}

/// Kinds of parts that are media.
pub(super) static MEDIA_KINDS: &[&str] = &[
    "image_url",
    "input_image",
    "input_audio",
    "file",
    "input_file",
    "image",
    "audio",
    "video",
    "audio_url",
    "video_url",
    "file_url",
    "document",
    "document_url",
    "image_embeds",
    "audio_embeds",
    "prompt_embeds",
    "computer_screenshot",
];

/// Kinds of messages, parts and items other than [`MEDIA_KINDS`]. An undocumented kind is refused, because nobody knows
/// what a host does with such a part.
pub(super) static KINDS: &[&str] = &[
    "text",
    "input_text",
    "message",
    "function_call",
    "function_call_output",
    "output_text",
    "reasoning",
    "refusal",
    "summary_text",
    "reasoning_text",
    "thinking",
    "redacted_thinking",
    "tool_use",
    "tool_result",
    "tool_reference",
    "custom_tool_call",
    "custom_tool_call_output",
    "compaction",
    "compaction_summary",
    "compaction_trigger",
    "configuration_update",
    "computer_call",
    "computer_call_output",
    "local_shell_call",
    "local_shell_call_output",
    "shell_call",
    "shell_call_output",
    "apply_patch_call",
    "apply_patch_call_output",
    "tool_search_call",
    "tool_search_output",
    "additional_tools",
    "file_search_call",
    "web_search_call",
    "code_interpreter_call",
    "image_generation_call",
    "mcp_list_tools",
    "mcp_approval_request",
    "mcp_approval_response",
    "mcp_call",
    "program",
    "program_output",
    "input_json",
];

/// A tool.
pub(super) static TOOL: Fields = &[
    ("function", Object(FUNCTION)),
    ("name", Label),
    ("description", Text),
    ("parameters", Schema),
    ("strict", Word),
    ("input_schema", Schema),
    ("output_schema", Schema),
    ("custom", Object(&[("name", Label), ("description", Text), ("format", Object(TOOL_FORMAT))])),
    ("format", Object(TOOL_FORMAT)),
    ("tools", Tools),
    ("environment", Object(ENVIRONMENT)),
    ("execution", Word),
    ("allowed_callers", Word),
    ("cache_control", Unknown),
    ("vector_store_ids", Id),
    ("file_ids", Id),
];

/// A function that the client runs.
pub(super) static FUNCTION: Fields = &[
    ("name", Label),
    ("description", Text),
    ("parameters", Schema),
    ("strict", Word),
    ("input_examples", Free),
    ("response", Schema),
];

static TOOL_FORMAT: Fields = &[
    ("type", Word),
    ("definition", Text),
    ("syntax", Word),
    ("grammar", Object(&[("definition", Text), ("syntax", Word)])),
];

/// `response_format` of chat completions, `text.format` of responses, and similar fields of engines.
pub(super) static FORMAT: Fields = &[
    ("type", Word),
    ("json_schema", Object(NAMED_SCHEMA)),
    ("name", Label),
    ("description", Text),
    ("strict", Word),
    ("schema", Schema),
    ("grammar", Text),
    ("regex", Text),
    ("pattern", Text),
    ("structures", Object(&[("begin", Text), ("schema", Schema), ("end", Text)])),
    ("triggers", Text),
    ("format", Schema),
];

static NAMED_SCHEMA: Fields = &[("name", Label), ("description", Text), ("schema", Schema), ("strict", Word)];

/// vLLM's `structured_outputs`.
pub(super) static STRUCTURED: Fields = &[
    ("json", Schema),
    ("regex", Text),
    ("choice", Text),
    ("grammar", Text),
    ("structural_tag", Schema),
    ("whitespace_pattern", Text),
];

/// `moderation` of chat completions and responses.
pub(super) static MODERATION: Fields = &[("model", Model(&[])), ("policy", Unknown)];

/// `prompt_cache_options`. The response that `comparison_response_id` names is stored at the endpoint.
pub(super) static CACHE_OPTIONS: Fields = &[("mode", Word), ("ttl", Word), ("comparison_response_id", Id)];

/// A prompt that is stored at the endpoint.
pub(super) static STORED_PROMPT: Fields = &[("id", Id), ("version", Label), ("variables", Map(&Content))];

/// A grader: how the outputs of a model are graded.
pub(super) static GRADER: Fields = &[
    ("type", Word),
    ("name", Label),
    ("input", Items),
    ("reference", Text),
    ("source", Text),
    ("calculate_output", Text),
    ("labels", Text),
    ("passing_labels", Text),
    ("model", Model(&[])),
    ("operation", Word),
    ("evaluation_metric", Word),
    ("range", Word),
    ("sampling_params", Unknown),
    ("image_tag", Label),
    ("graders", Graders),
];

/// How a model is fine-tuned.
pub(super) static METHOD: Fields = &[
    ("type", Word),
    ("supervised", Unknown),
    ("dpo", Unknown),
    ("reinforcement", Object(&[("grader", Grader), ("response_format", Object(FORMAT)), ("hyperparameters", Unknown)])),
];

/// What `tool_choice` may hold.
pub(super) static CHOICE: Fields = &[
    ("type", Word),
    ("name", Label),
    ("function", Object(CALLED)),
    ("custom", Object(CALLED)),
    ("mode", Word),
    ("tools", ToolChoice),
    ("allowed_tools", Object(&[("mode", Word), ("tools", ToolChoice)])),
    ("server_label", Label),
];
