//! Names of fields that are never harmless: fields that choose where or by which model a request is processed, and
//! fields that make the model host search or run something. Called by `field`, `walk` and other
//! files of `body`, and by `plan`.

use crate::decide::json::reads_as_words;

/// Fields that route: they send the request to another model, account, engine or place, past the rules. They are
/// refused even if their value is a number or a boolean.
const ROUTING: &[&str] = &[
    // Fields of gateways such as LiteLLM and OpenRouter.
    "fallbacks",
    "fallback",
    "fallback_model",
    "fallback_models",
    "context_window_fallbacks",
    "content_policy_fallbacks",
    "default_fallbacks",
    "models",
    "model_list",
    "provider",
    "providers",
    "provider_options",
    "route",
    "router",
    "routing",
    "router_config",
    "transforms",
    "preset",
    "model_id",
    "model_name",
    "cache",
    "caching",
    "conversation_id",
    "thread_id",
    "assistant_id",
    "api_base",
    "base_url",
    "api_url",
    "api_key",
    "api_version",
    "azure_endpoint",
    "organization",
    "custom_llm_provider",
    "deployment",
    "deployment_id",
    "guardrails",
    "callbacks",
    "success_callback",
    "failure_callback",
    "extra_body",
    "extra_headers",
    "extra_query",
    "headers",
    "mock_response",
    "connectors",
    // Fields of clouds.
    "region",
    "region_name",
    "aws_region_name",
    "aws_bedrock_runtime_endpoint",
    "vertex_location",
    "vertex_project",
    "inference_geo",
    "geo",
    "data_residency",
    "cross_region",
    "cross_region_inference",
    "inference_region",
    "inference_profile_arn",
    "aws_region",
    "gcp_location",
    "vertex_ai_location",
    "vertex_credentials",
    "aws_access_key_id",
    "deployment_name",
    "specific_deployment",
    "cached_content",
    // Addresses.
    "host",
    "hostname",
    "port",
    "remote_host",
    "remote_port",
    "proxy",
    "proxies",
    "webhook",
    "webhook_url",
    "callback",
    "callback_url",
    // Fields of engines: where the request's cache is, which worker processes the request, which adapter is loaded for
    // it.
    "kv_transfer_params",
    "ec_transfer_params",
    "do_remote_prefill",
    "do_remote_decode",
    "remote_engine_id",
    "remote_block_ids",
    "bootstrap_host",
    "bootstrap_port",
    "bootstrap_room",
    "bootstrap_addr",
    "data_parallel_rank",
    "routed_dp_rank",
    "routed_decode_dp_rank",
    "decode_tp_size",
    "disagg_prefill_dp_rank",
    "dp_rank",
    "nvext",
    "backend_instance_id",
    "session_params",
    "id_slot",
    "slot_id",
    "lora",
    "loras",
    "lora_path",
    "lora_name",
    "lora_request",
    "adapter",
    "adapters",
    "adapter_id",
    "adapter_source",
    "logits_processors",
    "custom_logit_processor",
    "ngram_corpus_id",
];

/// Fields that make a host search or connect to other servers without `tools`.
const HOSTED: &[&str] = &[
    "web_search_options",
    "search_parameters",
    "enable_search",
    "data_sources",
    "mcp_servers",
    "plugins",
    "integrations",
    "web_search",
    "search",
    "search_options",
    "enable_web_search",
    "use_web_search",
    "web_search_config",
    "online",
    "browse",
    "browsing",
    "grounding",
    "google_search",
    "url_context",
    "retrieval",
    "tool_resources",
    "mcp",
    "code_interpreter",
    "enable_code_interpreter",
    "code_execution",
    "file_search",
];

/// Tools that the client runs itself. Every other type is run by the model host.
const LOCAL_TOOLS: &[&str] = &[
    "function",
    "custom",
    "local_shell",
    "computer_use_preview",
    "computer_use",
    "computer",
    "apply_patch",
    "namespace",
    "tool_search",
    "shell",
];

/// Suffixes of a model's name, after a colon, by which a gateway chooses the provider or searches the web.
const SUFFIXES: &[&str] = &[
    // OpenRouter's variants.
    "online",
    "nitro",
    "floor",
    "exacto",
    "free",
    "extended",
    // Policies and providers of Hugging Face's router, and a cloud behind Ollama.
    "fastest",
    "cheapest",
    "preferred",
    "auto",
    "cloud",
    "search",
    "baseten",
    "black-forest-labs",
    "cerebras",
    "clarifai",
    "cohere",
    "fal-ai",
    "featherless-ai",
    "fireworks-ai",
    "groq",
    "hf-inference",
    "hyperbolic",
    "nebius",
    "novita",
    "nscale",
    "openai",
    "ovhcloud",
    "publicai",
    "replicate",
    "sambanova",
    "scaleway",
    "together",
    "wavespeed",
    "zai-org",
];

/// Whether a field routes. The field's name may also be written as `inferenceGeo` or `inference-geo`, or be a part of a
/// longer name.
pub(super) fn routes(key: &str) -> bool {
    is_one_of(key, ROUTING)
}

/// Whether a field makes a host search or run something.
pub(super) fn is_hosted(key: &str) -> bool {
    is_one_of(key, HOSTED)
}

/// Whether a name, or a part of it, is in a list. Parsers of forms read `a[fallbacks]` and `a.fallbacks` as an object
/// `a` with the field `fallbacks`, and PHP reads `api.base` as `api_base`.
#[inline(never)]
fn is_one_of(key: &str, list: &[&str]) -> bool {
    let is_known = |key: &str| list.iter().any(|known| reads_as_words(key, known));
    is_known(key) || parts(key).nth(1).is_some() && parts(key).any(is_known)
}

/// The parts of a name: `a`, `b` and `c` of `a[b].c`.
pub(super) fn parts(name: &str) -> impl Iterator<Item = &str> {
    let is_seam = |c: char| !(c.is_alphanumeric() || matches!(c, '-' | '_'));
    name.split(is_seam).filter(|part| !part.is_empty())
}

/// Whether the client itself runs tools of this type.
pub(super) fn is_local_tool(kind: &str) -> bool {
    LOCAL_TOOLS.contains(&kind)
}

/// Whether a model's name is itself an instruction on where to process the request. Such a name is allowed only if an
/// endpoint's `models` map holds it.
pub(crate) fn model_routes(model: &str) -> bool {
    let picks = |suffix: &str| SUFFIXES.contains(&suffix) || suffix.ends_with("-cloud");
    // Some gateways take several models at once, separated by commas.
    let name_picks = |name: &str| {
        let suffix = name.rsplit_once(':').map(|(_, suffix)| suffix.to_ascii_lowercase());
        suffix.is_some_and(|suffix| picks(suffix.trim()))
    };
    model.split(',').any(name_picks)
        || model.contains("@preset/")
        || super::regional::is_regional(model)
        || super::place::names_place(model, super::place::Certainty::Label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_route_however_their_words_are_joined() {
        for key in [
            "inference_geo",
            "inferenceGeo",
            "inference-geo",
            "InferenceGeo",
            "apiBase",
            "base-url",
            "baseUrl",
            "kvTransferParams",
            "providerOptions",
            "fallbackModels",
            "aws_region",
            "REGION",
        ] {
            assert!(routes(key), "{key}");
        }
        for key in ["temperature", "topK", "maxTokens", "user-agent", "X", "regional", "stop-token-ids", ""] {
            assert!(!routes(key), "{key}");
        }
    }

    #[test]
    fn names_of_models_that_route_are_recognised() {
        for model in [
            "gpt-4o:online",
            "gpt-4o:ONLINE",
            "a/b:nitro",
            "a/b:together",
            "gpt-oss:120b-cloud",
            "x:free",
            "gpt-4o:online,b",
            "@preset/mine",
            "us.anthropic.claude-sonnet-4-20250514-v1:0",
            "gemini-2.5-pro@us-central1",
            "m@preset/x",
            "https://a.example/m",
            "//a.example/m",
            "a.example:443/m",
            "192.0.2.1",
        ] {
            assert!(model_routes(model), "{model}");
        }
        for model in [
            "gpt-4o",
            "llama3:8b",
            "qwen2.5:14b",
            "ft:gpt-4o:org::id",
            "meta-llama/Llama-3.1-8B",
            "base:adapter",
            "m:latest",
            "deepseek-r1:671b",
            "claude-3.5",
            "hf.co/a/b:Q4_K_M",
        ] {
            assert!(!model_routes(model), "{model}");
        }
    }

    #[test]
    fn names_are_found_in_any_case() {
        assert!(routes("Fallbacks") && routes("bootstrap_room") && !routes("top_k") && !routes("regional"));
        assert!(is_hosted("enable_\u{17f}earch") && !is_hosted("research"));
    }
}
