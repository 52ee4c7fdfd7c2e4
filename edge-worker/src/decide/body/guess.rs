//! Guesses what a model host does with an undocumented field. Takes the field's name; says whether the field may route
//! (choose a model, a place or an account), or hold media. Called by `field`, `form_name`, `grader` and `unlisted`
//! for undocumented names only, so ordinary requests cost nothing more.
//!
//! A list of whole names is never complete. Gateways combine the same few words in ever new ways (`model_id`,
//! `modelName`, `litellm_session_id`). So this file looks for these words inside of names, and a name that contains one
//! of them counts as a name that routes.

use crate::decide::json::letters;

/// Pieces of names by which gateways, clouds and routers choose a model, a place or an account, identify the caller, or
/// find data that the caller stored: LiteLLM, OpenRouter, Portkey, Helicone, TensorZero, orq.ai, Cloudflare's and
/// Vercel's AI gateways, Bedrock, Vertex AI, Azure, Dynamo, llm-d, AIBrix.
const ROUTING_PIECES: &[&str] = &[
    // The model.
    "model",
    "fallback",
    "provider",
    "route",
    "routing",
    "preset",
    "adapter",
    "variant",
    "guardrail",
    // The place.
    "region",
    "endpoint",
    "deployment",
    "gateway",
    "upstream",
    "backend",
    "cluster",
    "datacenter",
    "replica",
    "worker",
    "proxy",
    "proxies",
    "webhook",
    "callback",
    "remote",
    "apibase",
    "baseurl",
    "header",
    // The account.
    "apikey",
    "accesskey",
    "authoriz",
    "authentic",
    "authtoken",
    "accesstoken",
    "bearer",
    "credential",
    "secret",
    "password",
    "account",
    "tenant",
    "organization",
    "workspace",
    "virtualkey",
    "byok",
    // Stored data.
    "cach",
    "conversation",
    "session",
    "thread",
    "memory",
    "assistantid",
    "checkpoint",
    // Names of gateways.
    "litellm",
    "openrouter",
    "portkey",
    "helicone",
    "tensorzero",
    "vertex",
    "bedrock",
    "sagemaker",
    "azure",
    "nvext",
    "langfuse",
    "cfaig",
    "aibrix",
];

/// Complete names that route. They are too short to be searched for inside of longer names.
const ROUTING_NAMES: &[&str] = &[
    "auth",
    "token",
    "idtoken",
    "key",
    "tags",
    "strategy",
    "targets",
    "loadbalancing",
    "project",
    "projectid",
    "orq",
    "zone",
    "location",
    "server",
    "node",
    "engine",
    "deferred",
    "keepalive",
    "sslverify",
    "verifyssl",
    "state",
];

/// Harmless names that contain a routing piece: llama.cpp and Transformers have switches for the cache of one request,
/// and gpt-oss's chat template has a name for the model.
const HARMLESS: &[&str] = &["cacheprompt", "usecache", "modelidentity"];

/// Ends of names under which a host may look for media: kinds of media, and words for the location of media.
const MEDIA_ENDS: &[&str] = &[
    "image",
    "images",
    "img",
    "imgs",
    "picture",
    "pictures",
    "photo",
    "photos",
    "audio",
    "audios",
    "sound",
    "sounds",
    "video",
    "videos",
    "movie",
    "clip",
    "clips",
    "frames",
    "media",
    "mask",
    "attachment",
    "attachments",
    "file",
    "files",
    "pdf",
    "path",
    "paths",
    "dir",
    "directory",
    "folder",
    "url",
    "urls",
    "uri",
    "uris",
    "href",
    "src",
    "source",
    "sources",
    "link",
    "base64",
    "b64",
    "blob",
];

/// Ends of names that mean media only if the name also contains a word of [`MEDIA_WORDS`].
const CARRIER_ENDS: &[&str] =
    &["data", "input", "inputs", "content", "bytes", "reference", "references", "ref", "refs", "location", "prompt"];

/// Words for media.
const MEDIA_WORDS: &[&str] =
    &["image", "img", "picture", "photo", "audio", "video", "speech", "voice", "media", "file", "inline"];

/// Names that end like names of media but don't mean media.
const NO_MEDIA: &[&str] = &["profile", "videometadata", "audiometadata", "imagemetadata", "filemetadata"];

/// Whether a host may route by a field with this name.
#[inline(never)]
pub(super) fn may_route(key: &str) -> bool {
    let key: String = letters(key).collect();
    // The plain name `model` passes here, because `walk` judges it as the name of a model.
    let key = key.as_str();
    let is_made_of = || ROUTING_PIECES.iter().any(|piece| key.contains(piece));
    ROUTING_NAMES.contains(&key) || key != "model" && is_made_of() && !HARMLESS.contains(&key)
}

/// Whether a host may look for media under this name. A word in such a field could be a path on the host's disk.
#[inline(never)]
pub(super) fn may_hold_media(key: &str) -> bool {
    let key: String = letters(key).collect();
    let ends = |ends: &[&str]| ends.iter().any(|end| key.ends_with(end));
    let names_media = || MEDIA_WORDS.iter().any(|word| key.contains(word));
    !NO_MEDIA.contains(&key.as_str()) && (ends(MEDIA_ENDS) || ends(CARRIER_ENDS) && names_media())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_made_of_routing_words_route() {
        for key in [
            "model_id",
            "model_name",
            "modelId",
            "model-name",
            "ModelID",
            "base_model",
            "conversation_id",
            "conversationId",
            "thread_id",
            "threadId",
            "cache",
            "caching",
            "semantic_cache",
            "cachedContent",
            "apiKey",
            "apikey",
            "API-KEY",
            "litellm_session_id",
            "litellm_params",
            "providerOptions",
            "provider.order",
            "tensorzero::variant_name",
            "guardrailConfig",
            "vertex_ai_project",
            "aws_session_token",
            "x_portkey_config",
            "azure_ad_token",
            "prefill_worker_id",
            "proxyUrl",
            "user_api_key_hash",
            "\u{212a}v_cache_id",
            "se\u{17f}\u{17f}ion",
        ] {
            assert!(may_route(key), "{key}");
        }
        for key in [
            "",
            "x",
            "foo",
            "model",
            "temperature",
            "top_k",
            "max_tokens",
            "cache_prompt",
            "use_cache",
            "model_identity",
            "enable_thinking",
            "num_crops",
            "reasoning_effort",
            "mystery",
            "note",
            "safety_identifier",
            "seed",
        ] {
            assert!(!may_route(key), "{key}");
        }
    }

    #[test]
    fn names_that_may_hold_media_are_recognised() {
        for key in [
            "image",
            "images",
            "image_path",
            "imagePath",
            "imagepath",
            "path",
            "file",
            "source",
            "src",
            "url",
            "IMAGE_URL",
            "ref_audio",
            "reference_images",
            "image_data",
            "inline_data",
            "inlineData",
            "input_image",
            "image-base64",
            "video_frames",
            "voice_prompt",
            "file_path",
            "mask",
            "audio_reference",
        ] {
            assert!(may_hold_media(key), "{key}");
        }
        for key in [
            "",
            "foo",
            "image_config",
            "image_size",
            "audio_format",
            "video_metadata",
            "profile",
            "metadata",
            "data",
            "reference",
            "prompt",
            "content",
            "document",
            "documents",
            "voice",
            "fps",
            "max_pixels",
            "file_type",
        ] {
            assert!(!may_hold_media(key), "{key}");
        }
    }
}
