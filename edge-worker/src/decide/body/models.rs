//! Collects the models that a body names below its top level. Takes the ranges of these names in the body, returns the
//! names. Called by `body`. A host runs such models beside the request's own model: to make an image, to grade, to
//! moderate, to transcribe.
//!
//! `plan` judges these models like the request's own: an endpoint's `models` map must hold them.

use core::ops::Range;

use super::entries::LONGEST_MODEL;
use super::place::Certainty;
use super::pointer::pointer;
use super::walk::{BodyFault, Walk};
use crate::decide::envelope::Failure;
use crate::decide::json::{InvalidJson, Scan};

/// The most different models that a body may name. A limit is needed because each model is looked up in every
/// endpoint's map.
const MAX: usize = 32;

/// A model, and the field that names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct NamedModel {
    /// The model, by the client's name.
    pub(crate) name: String,
    /// The JSON pointer of the first field that names the model.
    pub(crate) field: String,
}

impl NamedModel {
    /// The failure if no endpoint may run this model.
    pub(crate) fn not_found(&self) -> Failure {
        Failure::InnerModelNotFound { model: self.name.clone(), field: self.field.clone() }
    }
}

/// The models at these ranges of a body, without repetition.
///
/// # Errors
/// 404 for the first model beyond the limit, or for a name that is too long.
#[inline(never)]
pub(super) fn named(text: &str, models: &[(Range<usize>, String)]) -> Result<Vec<NamedModel>, Failure> {
    let mut named: Vec<NamedModel> = Vec::new();
    for (range, name) in models {
        if named.iter().any(|known| known.name == *name) {
            continue;
        }
        let model = NamedModel { name: name.clone(), field: pointer(text, range.start) };
        if named.len() == MAX || name.len() > LONGEST_MODEL {
            return Err(model.not_found());
        }
        named.push(model);
    }
    Ok(named)
}

impl Walk {
    /// Reads the name of a model below the top level.
    pub(super) fn model(&mut self, scan: &mut Scan<'_>) -> Result<(), InvalidJson> {
        let start = scan.at();
        let name = scan.string()?.into_owned();
        if self.is_refused_place(&name, Certainty::Label) {
            self.refuse(start, BodyFault::Place);
        }
        self.models.push((start..scan.at(), name));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bailiwick_rules::rules::Allowance;

    use super::super::tests::{CHAT, inspect, outcome};
    use super::*;

    /// The models that a body with these fields names below its top level, and where.
    fn found(path: &str, fields: &str) -> Vec<(String, String)> {
        let allow = [Allowance::HostedTools, Allowance::UnknownFields];
        let body = inspect(path, &format!("{{\"model\":\"a\",{fields}}}"), &allow).unwrap();
        body.needs().models.iter().map(|model| (model.field.clone(), model.name.clone())).collect()
    }

    #[test]
    fn models_are_found_wherever_a_host_runs_them() {
        let tuning = "/v1/fine_tuning/jobs";
        for (path, fields, field) in [
            ("/v1/responses", r#""tools":[{"type":"image_generation","model":"x"}]"#, "/tools/0/model"),
            ("/v1/responses", r#""tools":[{"type":"image_generation","svg":{"model":"x"}}]"#, "/tools/0/svg/model"),
            ("/v1/responses", r#""tools":[{"type":"advisor","Mod\u0065l":"x"}]"#, "/tools/0/Model"),
            ("/v1/responses", r#""tool_choice":{"type":"image_generation","model":"x"}"#, "/tool_choice/model"),
            ("/v1/responses", r#""reasoning":{"effort":"low","model":"x"}"#, "/reasoning/model"),
            ("/v1/responses", r#""context_management":[{"type":"c","model":"x"}]"#, "/context_management/0/model"),
            ("/v1/responses", r#""moderation":{"model":"x","policy":{}}"#, "/moderation/model"),
            (CHAT, r#""moderation":{"model":"x"}"#, "/moderation/model"),
            (CHAT, r#""moderation":"x""#, "/moderation"),
            (CHAT, r#""prediction":{"type":"content","model":"x"}"#, "/prediction/model"),
            (CHAT, r#""tools":[{"type":"function","function":{"name":"f","model":"x"}}]"#, "/tools/0/function/model"),
            (CHAT, r#""messages":[{"role":"user","content":"x","model":"x"}]"#, "/messages/0/model"),
            (CHAT, r#""stream_options":{"judgeModel":["x"]}"#, "/stream_options/judgeModel/0"),
            (CHAT, r#""input_audio_transcription":{"model":"x"}"#, "/input_audio_transcription/model"),
            ("/v1/images/generations", r#""prompt":"p","svg":{"model":"x"}"#, "/svg/model"),
            (
                tuning,
                r#""method":{"reinforcement":{"grader":{"type":"score_model","model":"x"}}}"#,
                "/method/reinforcement/grader/model",
            ),
            (
                tuning,
                r#""method":{"reinforcement":{"grader":{"type":"multi","graders":{"a":{"type":"label_model",
                "model":"x"}}}}}"#,
                "/method/reinforcement/grader/graders/a/model",
            ),
            (CHAT, r#""testing_criteria":[{"type":"score_model","model":"x"}]"#, "/testing_criteria/0/model"),
        ] {
            assert_eq!(found(path, fields), [(field.to_owned(), "x".to_owned())], "{fields}");
        }
    }

    #[test]
    fn values_that_name_no_model_are_ignored() {
        for fields in [
            r#""metadata":{"model":"x"}"#,
            r#""reasoning_effort":"low","stream_options":{"model":null},"messages":[]"#,
            r#""messages":[{"role":"assistant","tool_calls":[{"id":"c","type":"function",
                "function":{"name":"f","arguments":"{\"model\":\"x\"}"}}]}]"#,
            r#""tools":[{"type":"function","function":{"name":"f","parameters":{"required":["model"],
                "properties":{"model":{"type":"string","const":"x"}}}}}]"#,
            r#""logit_bias":{"model":1}"#,
        ] {
            assert_eq!(found(CHAT, fields), [], "{fields}");
        }
        let own = inspect("/v1/vector_stores", r#"{"model":"a"}"#, &[Allowance::UnknownFields]).unwrap();
        assert_eq!((own.model(), own.needs().models.len()), (Some("a"), 0), "the top-level model is the request's own");
        let drawn = r#""input":[{"type":"image_generation_call","result":"AAAA","svg_usage":{"model":"x"}}]"#;
        assert_eq!(found("/v1/responses", drawn), [], "a model in the usage of an earlier answer doesn't run");
    }

    #[test]
    fn each_model_is_listed_once_and_their_number_is_limited() {
        let tools = |names: &[String]| {
            let tools: Vec<_> =
                names.iter().map(|name| format!(r#"{{"type":"image_generation","model":"{name}"}}"#)).collect();
            format!(r#""tools":[{}]"#, tools.join(","))
        };
        let many = |count: usize| (0..count).map(|at| format!("m{at}")).collect::<Vec<_>>();
        let twice = tools(&["x".into(), "y".into(), "x".into()]);
        let at = |at: &str, name: &str| (format!("/tools/{at}/model"), name.to_owned());
        assert_eq!(found("/v1/responses", &twice), [at("0", "x"), at("1", "y")]);
        assert_eq!(found("/v1/responses", &tools(&many(MAX))).len(), MAX);
        let allow = [Allowance::HostedTools];
        let refused = |names: &[String]| outcome("/v1/responses", &tools(names), &allow);
        assert_eq!(refused(&many(MAX + 1)), format!("model_not_found /tools/{MAX}/model"));
        assert_eq!(refused(&["x".repeat(LONGEST_MODEL + 1)]), "model_not_found /tools/0/model");
        assert_eq!(
            outcome(CHAT, r#""stream_options":{"model":{"id":"x"}}"#, &[]),
            "unknown_field /stream_options/model"
        );
        let place = r#""stream_options":{"model":"https://a.example/"}"#;
        assert_eq!(outcome(CHAT, place, &[]), "remote_url_not_allowed /stream_options/model");
    }

    #[test]
    fn an_endpoint_gets_its_own_names_of_the_models() {
        let text = r#"{"model":"a","moderation":{ "model" : "m\u006fd" },"stream_options":{"model":"same",
            "x_model":"other"},"metadata":{"model":"mod"}}"#;
        let body = inspect(CHAT, text, &[]).unwrap();
        let names = [("mod", "omni \"1\""), ("same", "same"), ("a", "b")];
        let names = BTreeMap::from(names.map(|(ours, theirs)| (ours.to_owned(), theirs.to_owned())));
        let sent = body.for_endpoint(Some("b"), Some(&names), None).concat();
        let expected = text.replace(r#""m\u006fd""#, r#""omni \"1\"""#).replace(r#""model":"a""#, r#""model":"b""#);
        assert_eq!(String::from_utf8(sent).unwrap(), expected);
        assert_eq!(body.for_endpoint(Some("a"), None, None).concat(), text.as_bytes());
    }
}
