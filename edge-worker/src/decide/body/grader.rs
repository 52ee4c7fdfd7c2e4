//! Judges a grader (a rule that scores a model's outputs) of a fine-tuning job or an evaluation. Takes the grader;
//! records a fault if the model host would run code or a tool for the grader. Called by [`Walk`] where graders occur.

use super::guess::may_hold_media;
use super::names::routes;
use super::shape::{GRADER, Shape, engine_input};
use super::walk::{BodyFault, Walk, named_by};
use crate::decide::json::{InvalidJson, Kind, Scan, reads_as};

/// Graders that compare texts, ask a model, or combine others. A `python` grader runs the client's code at the host.
const PLAIN: &[&str] = &["string_check", "text_similarity", "score_model", "label_model", "multi"];

impl Walk {
    /// Reads a grader. With `several`, the object may also hold graders under names that the client chose.
    pub(super) fn grader(&mut self, several: bool, scan: &mut Scan<'_>) -> Result<(), InvalidJson> {
        scan.object(|key, value| {
            let kind = value.kind()?;
            let at = value.at();
            if kind == Kind::String && !self.allows_hosted_tools && reads_as(&key, "type") {
                let grader_type = value.string()?;
                if !PLAIN.contains(&grader_type.as_ref()) {
                    self.refuse(at, BodyFault::Tool(grader_type.into_owned()));
                }
                return Ok(());
            }
            if kind == Kind::String && !self.allows_hosted_tools && reads_as(&key, "source") {
                self.refuse(at, BodyFault::Tool("a grader's source".to_owned()));
            }
            let is_known = || {
                let is_field = GRADER.iter().any(|(name, _)| *name == key);
                let is_name = is_field || named_by(&key).is_some() || engine_input(&key).is_some();
                is_name || routes(&key) || may_hold_media(&key)
            };
            if several && matches!(kind, Kind::Object | Kind::Array) && !is_known() {
                return self.value(&Shape::Grader, value);
            }
            self.field(GRADER, &key, value)
        })
    }
}

#[cfg(test)]
mod tests {
    use bailiwick_rules::rules::Allowance;

    use super::super::tests::{CHAT, outcome};

    fn graded(grader: &str, allow: &[Allowance]) -> String {
        let method = format!(r#""method":{{"type":"reinforcement","reinforcement":{{"grader":{grader}}}}}"#);
        outcome("/v1/fine_tuning/jobs", &method, allow)
    }

    #[test]
    fn code_of_the_clients_runs_at_the_host_only_where_the_service_allows_it() {
        for grader in [
            r#"{"type":"python","name":"g","source":"def grade(sample, item): return 1.0"}"#,
            r#"{"type":"pyth\u006fn","name":"g"}"#,
            r#"{"Type":"python","name":"g"}"#,
            r#"{"name":"g","source":"import os"}"#,
            r#"{"type":"multi","graders":{"a":{"type":"string_check","name":"a"},"b":{"type":"python","source":"x"}}}"#,
            r#"{"type":"multi","graders":[{"type":"python","source":"x"}]}"#,
            r#"{"type":"multi","graders":{"type":"python","source":"x"}}"#,
            r#"{"type":"multi","graders":{"a":{"type":"multi","graders":{"b":{"type":"python"}}}}}"#,
            r#"{"type":"endpoint","name":"g"}"#,
        ] {
            assert_eq!(graded(grader, &[]), "hosted_tool_not_allowed tools", "{grader}");
            assert_eq!(graded(grader, &[Allowance::HostedTools]), "ok", "{grader}");
        }
        let odd = graded(r#"{"type":"string_check","name":"g","Source":"import os"}"#, &[]);
        assert_eq!(odd, "hosted_tool_not_allowed tools");
        let template = graded(r#"{"type":"multi","graders":{"chat_template":{"a":1}}}"#, &[]);
        assert!(template.starts_with("engine_input_not_allowed"), "{template}");
        let routed = r#"{"type":"multi","graders":{"a":{"fallbacks":{"model":"x"}}}}"#;
        assert!(graded(routed, &[]).starts_with("unknown_field"), "a name that routes isn't the name of a grader");
        assert!(graded(r#"{"type":"string_check","Model":{"id":"x"}}"#, &[]).starts_with("unknown_field"));
        let criteria = r#""testing_criteria":[{"type":"python","source":"x"}]"#;
        assert_eq!(outcome(CHAT, criteria, &[Allowance::UnknownFields]), "hosted_tool_not_allowed tools");
    }

    #[test]
    fn graders_that_compare_or_ask_pass() {
        for grader in [
            r#"{"type":"string_check","name":"g","input":"{{sample.output_text}}",
                "reference":"https://a","operation":"eq"}"#,
            r#"{"type":"text_similarity","name":"g","input":"a","reference":"b","evaluation_metric":"bleu"}"#,
            r#"{"type":"score_model","name":"g","model":"m","range":[0,1],"sampling_params":{"seed":1},
                "input":[{"role":"user","type":"message","content":"see https://a"}]}"#,
            r#"{"type":"multi","calculate_output":"a + b","graders":{"a":{"type":"string_check","name":"a","input":"x",
                "reference":"https://b","operation":"like"}}}"#,
        ] {
            assert_eq!(graded(grader, &[]), "ok", "{grader}");
        }
    }
}
