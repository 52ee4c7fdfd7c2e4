//! Judges `metadata` and `attributes`. The API documents them as texts under names that the client chooses. Gateways
//! also take instructions from them: tags that choose a deployment, or models to fall back to. Refuses such
//! instructions. Called by `walk`.

use super::walk::{BodyFault, Walk};
use crate::decide::json::{InvalidJson, Kind, Scan, reads_as_words};

/// Names that are never labels: they only tell a gateway or an engine where to send a request. Other names that route
/// in a body (`region`, `host`, `conversation_id`) are common labels, and in metadata they don't route.
const INSTRUCTIONS: &[&str] = &[
    "fallback",
    "fallbacks",
    "fallback_model",
    "fallback_models",
    "context_window_fallbacks",
    "content_policy_fallbacks",
    "default_fallbacks",
    "model_list",
    "model_info",
    "model_group",
    "specific_deployment",
    "custom_llm_provider",
    "provider_options",
    "router_config",
    "api_base",
    "api_url",
    "base_url",
    "api_key",
    "azure_endpoint",
    "extra_body",
    "extra_headers",
    "guardrails",
    "callbacks",
    "success_callback",
    "failure_callback",
    "inference_geo",
    "inference_region",
    "data_residency",
    "cross_region_inference",
    "aws_region_name",
    "vertex_location",
    "vertex_project",
    "kv_transfer_params",
    "bootstrap_host",
    "bootstrap_port",
    "bootstrap_room",
    "data_parallel_rank",
    "session_params",
    "nvext",
    "lora_path",
    "lora_name",
    "lora_request",
];

impl Walk {
    /// Reads a map of texts, numbers and booleans.
    pub(super) fn metadata(&mut self, scan: &mut Scan<'_>) -> Result<(), InvalidJson> {
        scan.object(|key, value| {
            let kind = value.kind()?;
            let at = value.at();
            if matches!(kind, Kind::Object | Kind::Array) {
                self.refuse(at, BodyFault::NoText);
            } else if kind != Kind::Null && is_instruction(&key) {
                self.refuse(at, BodyFault::Routes);
            }
            value.skip().map(drop)
        })
    }
}

fn is_instruction(key: &str) -> bool {
    INSTRUCTIONS.iter().any(|known| reads_as_words(key, known))
}

#[cfg(test)]
mod tests {
    use bailiwick_rules::rules::Allowance;

    use super::super::tests::{CHAT, inspect, outcome};

    /// The error for a body with these fields, with a model if the path takes one.
    fn judged(path: &str, fields: &str, allow: &[Allowance]) -> String {
        if path == CHAT || path == "/v1/responses" {
            return outcome(path, fields, allow);
        }
        let failure = inspect(path, &format!("{{{fields}}}"), allow).err().unwrap();
        format!("{} {}", failure.code(), failure.param().unwrap_or_default())
    }

    #[test]
    fn metadata_is_a_map_of_texts() {
        for path in [CHAT, "/v1/responses", "/v1/vector_stores", "/v1/chat/completions/chatcmpl-1"] {
            for allow in [&[][..], &[Allowance::UnknownFields, Allowance::HostedTools, Allowance::RemoteUrls]] {
                for (metadata, answer) in [
                    (r#"{"tags":["eu"]}"#, "unknown_field /metadata/tags"),
                    (r#"{"a":"b","model_info":{"id":"x"}}"#, "unknown_field /metadata/model_info"),
                    (r#"["a"]"#, "unknown_field /metadata"),
                    (r#"[]"#, "unknown_field /metadata"),
                    (r#""a""#, "unknown_field /metadata"),
                    (r#"{"fallbacks":"gpt"}"#, "unknown_field /metadata/fallbacks"),
                    (r#"{"Fallbacks":"gpt"}"#, "unknown_field /metadata/Fallbacks"),
                    (r#"{"apiBase":"x"}"#, "unknown_field /metadata/apiBase"),
                    (r#"{"inference_geo":"us"}"#, "unknown_field /metadata/inference_geo"),
                ] {
                    assert_eq!(judged(path, &format!(r#""metadata":{metadata}"#), allow), answer, "{path} {metadata}");
                }
            }
        }
        let attributes = r#""attributes":{"a":[1]}"#;
        assert_eq!(judged("/v1/vector_stores/vs_1/files", attributes, &[]), "unknown_field /attributes/a");
        let user = r#""metadata":{"user_id":{"a":"b"}}"#;
        assert_eq!(outcome("/v1/responses", user, &[]), "unknown_field /metadata/user_id");
    }

    #[test]
    fn words_of_the_clients_own_pass() {
        for metadata in [
            "null",
            "{}",
            r#"{"url":"https://a","models":"x","model":"y","file_id":"mine"}"#,
            r#"{"region":"emea","host":"web-1","provider":"acme","organization":"x","Region":"x"}"#,
            r#"{"conversation_id":"x","thread_id":"y","model_id":"z","sessionId":"s","deployment":"blue"}"#,
            r#"{"n":7,"yes":true,"none":null,"fallbacks":null}"#,
        ] {
            assert_eq!(outcome(CHAT, &format!(r#""metadata":{metadata}"#), &[]), "ok", "{metadata}");
        }
    }
}
