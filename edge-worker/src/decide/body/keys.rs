//! Takes a key; says whether a model host may read the key's value as the name of a model, or as the id of something
//! that the host stores. Called by `walk` only for keys that aren't in the table of their object's fields, so ordinary
//! requests cost nothing more; and by `form_name` for the names of a form's fields.

use crate::decide::body::fields::{Field, field};
use crate::decide::json::{ends_in_words, reads_as};

/// Ends of keys that name a model, such as `judge_model` and `fallbackModelName`.
const MODELS: &[&str] = &["model", "model_id", "model_name"];

/// Ends of keys of ids. Keys of ids in answers are in [`crate::decide::body::fields`].
const IDS: &[&str] = &[
    "file_id",
    "file_ids",
    "response_id",
    "vector_store_id",
    "vector_store_ids",
    "container_id",
    "container_ids",
    "skill_id",
    "skill_ids",
    "conversation_id",
    "prompt_id",
    "prompt_template_id",
    "thread_id",
    "agent_id",
    "assistant_id",
    "upload_id",
    "batch_id",
];

/// Keys of things that a host stores. The value is the thing's id, or an object that holds the id.
const KEPT: &[&str] = &["container", "containers", "conversation", "vector_store", "vector_stores"];

/// Whether a key names a model.
pub(super) fn names_model(key: &str) -> bool {
    MODELS.iter().any(|known| ends_in_words(key, known))
}

/// Whether a key holds ids.
pub(super) fn names_id(key: &str) -> bool {
    matches!(field(key), Field::Id | Field::Ids) || IDS.iter().any(|known| ends_in_words(key, known))
}

/// Whether a key's value names something that a host stores: its id, or an object with an `id`.
pub(super) fn names_kept(key: &str) -> bool {
    KEPT.iter().any(|known| reads_as(key, known))
}

#[cfg(test)]
mod tests {
    use bailiwick_rules::rules::Allowance;

    use super::super::tests::{CHAT, inspect};
    use super::*;

    #[test]
    fn keys_name_models_however_their_words_are_joined() {
        for key in ["model", "Model", "MODEL", "judge_model", "judgeModel", "grader-model", "model_id", "modelName"] {
            assert!(names_model(key), "{key}");
        }
        for key in ["models", "supermodel", "model_version", "modelling", "mode", "", "remodel", "model_info"] {
            assert!(!names_model(key), "{key}");
        }
    }

    #[test]
    fn keys_of_ids_are_known_by_their_last_words() {
        for key in [
            "file_id",
            "FILE_ID",
            "fileId",
            "image_file_id",
            "input_file_id",
            "previousResponseId",
            "comparison_response_id",
            "vector-store-ids",
            "skill_id",
            "conversationId",
            "training_file",
        ] {
            assert!(names_id(key), "{key}");
        }
        for key in ["id", "profile_id", "profileid", "call_id", "item_id", "user_id", "tool_use_id", "file", "ids", ""]
        {
            assert!(!names_id(key), "{key}");
        }
        assert!(names_kept("Container") && names_kept("vector_stores") && !names_kept("container_type"));
    }

    /// The ids that are found in the body, or the code of the error.
    fn ids(path: &str, fields: &str) -> Result<Vec<String>, String> {
        let allow = [Allowance::HostedTools, Allowance::UnknownFields, Allowance::Store, Allowance::Batch];
        let body = inspect(path, &format!("{{\"model\":\"a\",{fields}}}"), &allow);
        body.map(|body| body.ids().map(str::to_owned).collect()).map_err(|failure| failure.code().to_owned())
    }

    #[test]
    fn ids_are_found_wherever_a_host_would_look_them_up() {
        let responses = "/v1/responses";
        for (path, fields) in [
            (responses, r#""previous_response_id":"x""#),
            (responses, r#""previous_response_id":["x"]"#),
            (responses, r#""previous_response_id":{"id":"x"}"#),
            (responses, r#""previousResponseId":"x""#),
            (responses, r#""prompt":{"id":"x","version":"2","variables":{"id":"free"}}"#),
            (responses, r#""prompt":"x""#),
            (responses, r#""prompt":[{"ID":"x"}]"#),
            (responses, r#""tools":[{"type":"code_interpreter","container":"x"}]"#),
            (responses, r#""tools":[{"type":"code_interpreter","container":{"id":"x"}}]"#),
            (responses, r#""tools":[{"type":"code_interpreter","container":{"type":"auto","file_ids":["x"]}}]"#),
            (responses, r#""tools":[{"type":"code_interpreter","Container":[{"Id":"x"}]}]"#),
            (responses, r#""tools":[{"type":"shell","environment":{"container_id":"x"}}]"#),
            (responses, r#""tools":[{"type":"shell","environment":{"skills":[{"type":"y","skill_id":"x"}]}}]"#),
            (responses, r#""tools":[{"type":"shell","environment":{"skills":["x"]}}]"#),
            (responses, r#""tools":[{"type":"file_search","vector_stores":["x"]}]"#),
            (responses, r#""tools":[{"type":"file_search","vector_stores":[{"id":"x"}]}]"#),
            (responses, r#""tools":[{"type":"file_search","vector_store_ids":"x"}]"#),
            (responses, r#""tools":[{"type":"image_generation","input_image_mask":{"fileId":"x"}}]"#),
            (CHAT, r#""container":{"id":"x","skills":[]}"#),
            (CHAT, r#""container":"x""#),
            (CHAT, r#""messages":[{"role":"user","content":"y","conversation":{"id":"x"}}]"#),
            (CHAT, r#""vector_stores":["x"]"#),
            (CHAT, r#""y":{"image_file_ids":["x"]}"#),
            (CHAT, r#""messages":[{"role":"user","content":[{"type":"file","file":{"file_id":["x"]}}]}]"#),
            (CHAT, r#""messages":[{"role":"user","content":[{"type":"file","source":{"file_id":{"a":"x"}}}]}]"#),
            ("/v1/batches", r#""input_file_id":["x"]"#),
            ("/v1/fine_tuning/jobs", r#""training_file":{"id":"x"}"#),
        ] {
            assert_eq!(ids(path, fields), Ok(vec!["x".to_owned()]), "{fields}");
        }
    }

    #[test]
    fn an_id_that_is_not_a_text_is_refused() {
        for fields in [
            r#""previous_response_id":7"#,
            r#""previous_response_id":true"#,
            r#""tools":[{"type":"file_search","vector_store_ids":[7]}]"#,
            r#""tools":[{"type":"code_interpreter","container":7}]"#,
            r#""prompt":{"id":7}"#,
        ] {
            assert_eq!(ids("/v1/responses", fields), Err("not_found".into()), "{fields}");
        }
        let none = r#""previous_response_id":null,"tools":[{"type":"x","file_ids":[],"container":{"type":"auto"}}]"#;
        assert_eq!(ids("/v1/responses", none), Ok(Vec::new()));
        let local = r#""tools":[{"type":"shell","environment":{"type":"local","skills":[{"name":"a","description":"b",
            "path":"./c"}]}}]"#;
        assert_eq!(ids("/v1/responses", local), Ok(Vec::new()));
    }
}
