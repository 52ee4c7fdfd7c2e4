//! The top-level fields that vLLM and SGLang accept beyond what the API documents for a path. Takes the name of a
//! field; returns its shape (`shape` explains shapes) and the engines that know it. Called by `field`; `body`,
//! `multipart`, `batch` and `plan` use the sets of [`Engines`].
//!
//! A request with such a field goes only to endpoints whose engine knows the field. `field` collects these engines as
//! the request's needs, and `plan` skips all other endpoints.
//!
//! Some fields of these tables, such as `temperature` and `stop`, are documented for other paths. `field` looks at the
//! documented fields of the path first (`paths`), so the tables count only where the API doesn't document the field.
//!
//! The sources are `protocol.py` of vLLM (`vllm/entrypoints/openai`, `vllm/entrypoints/pooling`) and of SGLang
//! (`python/sglang/srt/entrypoints/openai`). Two kinds of fields are left out here: fields that route (that choose a
//! model, an account, an engine or a place), and fields that name files on the engine's disk, such as `lora_path`.
//! `names` lists both kinds as routing, and `field` refuses them.

use bailiwick_rules::rules::Engine;

use super::scope::NamedField;
use super::shape::Shape::{
    self, Content, Data, EngineInput, Label, Map, Object, Schema, Scoped, Stray, Text, ToolChoice, Tools, Unknown, Word,
};
use super::shape::{FORMAT, Fields, STRUCTURED};

/// A set of engines. "No engine" may be a member; it stands for endpoints whose rules name no engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Engines(u8);

const VLLM: Engines = Engines(1);
const SGLANG: Engines = Engines(2);
/// Endpoints whose rules name no engine.
const NO_ENGINE: Engines = Engines(4);

impl Engines {
    /// The set with all engines and with "no engine".
    pub(crate) const ALL: Self = Self(VLLM.0 | SGLANG.0 | NO_ENGINE.0);

    /// Whether the set holds this engine.
    #[must_use]
    pub(crate) fn includes(self, engine: Option<Engine>) -> bool {
        let bit = match engine {
            Some(Engine::Vllm) => VLLM.0,
            Some(Engine::Sglang) => SGLANG.0,
            None => NO_ENGINE.0,
        };
        self.0 & bit != 0
    }

    /// The engines that are in both sets.
    pub(super) fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// The shape of an engine's own field, and the engines that know it.
pub(super) fn field(key: &str) -> Option<(&'static Shape, Engines)> {
    let find = |fields: Fields| fields.iter().find(|(name, _)| *name == key).map(|(_, shape)| shape);
    if let Some(shape) = find(BOTH_KNOW) {
        return Some((shape, Engines(VLLM.0 | SGLANG.0)));
    }
    find(VLLM_KNOWS).map(|shape| (shape, VLLM)).or_else(|| find(SGLANG_KNOWS).map(|shape| (shape, SGLANG)))
}

/// Whether an engine salts its prefix cache by `cache_salt`. `body` sends each tenant's own salt to such an engine.
/// So no tenant can find out from the time of an answer which prompts of other tenants are in the cache.
pub(super) fn salts(engine: Option<Engine>) -> bool {
    matches!(engine, Some(Engine::Vllm | Engine::Sglang))
}

static BOTH_KNOW: Fields = &[
    ("top_k", Word),
    ("min_p", Word),
    ("min_tokens", Word),
    ("repetition_penalty", Word),
    ("stop_token_ids", Word),
    ("ignore_eos", Word),
    ("skip_special_tokens", Word),
    ("continue_final_message", Word),
    ("chat_template_kwargs", Unknown),
    ("cache_salt", Scoped(NamedField::Salt)),
    ("session_id", Scoped(NamedField::Session)),
    ("response_format", Object(FORMAT)),
    ("return_token_ids", Word),
    ("stop", Text),
    ("seed", Word),
    ("temperature", Word),
    ("top_p", Word),
    ("frequency_penalty", Word),
    ("presence_penalty", Word),
    ("logit_bias", Map(&Word)),
    ("logprobs", Word),
    ("task", Word),
    ("negative_prompt", Text),
    ("stream_options", Unknown),
    ("reasoning_effort", Word),
    ("tool_choice", ToolChoice),
    ("tools", Tools),
];

static VLLM_KNOWS: Fields = &[
    ("structured_outputs", Object(STRUCTURED)),
    ("guided_json", Schema),
    ("guided_regex", Text),
    ("guided_choice", Text),
    ("guided_grammar", Text),
    ("guided_whitespace_pattern", Text),
    ("guided_decoding_backend", Word),
    ("structural_tag", Schema),
    ("use_beam_search", Word),
    ("length_penalty", Word),
    ("include_stop_str_in_output", Word),
    ("spaces_between_special_tokens", Word),
    ("truncate_prompt_tokens", Word),
    ("truncation_side", Word),
    ("prompt_logprobs", Word),
    ("allowed_token_ids", Word),
    ("logprob_token_ids", Word),
    ("bad_words", Text),
    ("echo", Word),
    ("add_generation_prompt", Word),
    ("add_special_tokens", Word),
    ("include_reasoning", Word),
    ("thinking_token_budget", Word),
    ("return_tokens_as_token_ids", Word),
    ("return_prompt_text", Word),
    ("stream_interval", Word),
    ("repetition_detection", Unknown),
    ("documents", Object(DOCUMENT)),
    ("chat_template", EngineInput(&Text)),
    ("media_io_kwargs", EngineInput(&Unknown)),
    ("mm_processor_kwargs", EngineInput(&Unknown)),
    ("vllm_xargs", Stray),
    ("request_id", Scoped(NamedField::Request)),
    ("prompt_embeds", EngineInput(&Data)),
    ("messages", Content),
    ("previous_input_messages", Content),
    ("padding", Word),
    ("embed_dtype", Word),
    ("endianness", Word),
    ("use_activation", Word),
    ("to_language", Word),
    ("hotwords", Text),
];

/// A document. The chat template writes it into the prompt.
static DOCUMENT: Fields = &[
    ("title", Text),
    ("text", Text),
    ("content", Text),
    ("contents", Text),
    ("snippet", Text),
    ("url", Text),
    ("id", Label),
    ("doc_id", Label),
];

static SGLANG_KNOWS: Fields = &[
    ("regex", Text),
    ("ebnf", Text),
    ("json_schema", Schema),
    ("stop_regex", Text),
    ("no_stop_trim", Word),
    ("separate_reasoning", Word),
    ("stream_reasoning", Word),
    ("return_hidden_states", Word),
    ("images_config", Unknown),
    ("custom_params", Stray),
    ("custom_labels", Map(&Label)),
    ("input_ids", Word),
    ("reasoning", Unknown),
    ("rid", Scoped(NamedField::Request)),
    ("extra_key", Scoped(NamedField::Session)),
    ("embed_overrides", Word),
    ("query_embed_overrides", Word),
    ("item_embed_overrides", Word),
];

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The names of all engines' own fields.
    pub(in crate::decide::body) fn names() -> impl Iterator<Item = &'static str> {
        [BOTH_KNOW, VLLM_KNOWS, SGLANG_KNOWS].into_iter().flatten().map(|(name, _)| *name)
    }
}
