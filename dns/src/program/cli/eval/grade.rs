//! Grades the answers of an eval. Takes what a case expects and an answer, returns a [`Grade`]: right, wrong or a
//! score. Called by `bailiwick eval run`. If a case expects that another model, the judge, scores the answer,
//! [`super::judge`] does that.

use std::sync::LazyLock;

use bailiwick_rules::eval::{Expect, Judge};
use regex::Regex;

/// A number in a text, maybe with commas between its digits.
static NUMBER: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"[-+]?(?:[0-9][0-9,]*(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?").ok());

/// What a case expects, ready to be applied.
pub(super) enum Grader {
    /// The answer is this text.
    Exact(String),
    /// The answer contains all of these texts.
    Contains(Vec<String>),
    /// This regular expression matches somewhere in the answer.
    Regex(Regex),
    /// The answer is JSON that this schema allows.
    Schema(Box<jsonschema::Validator>),
    /// The last number in the answer is near this one.
    Number(f64, f64),
    /// Another model scores the answer.
    Judge(Judge),
}

/// The grade of an answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Grade {
    /// Whether it is right; absent if it was scored without a limit.
    pub(super) right: Option<bool>,
    /// The score, from 0 to 1.
    pub(super) score: f64,
    /// Why it isn't right.
    pub(super) note: Option<String>,
}

impl Grade {
    /// Right, or wrong for a reason.
    pub(super) fn of(result: Result<(), String>) -> Self {
        Self { right: Some(result.is_ok()), score: f64::from(u8::from(result.is_ok())), note: result.err() }
    }
}

impl Grader {
    /// Prepares what a case expects.
    ///
    /// # Errors
    /// What is wrong with a pattern or a schema.
    pub(super) fn new(expect: &Expect) -> Result<Self, String> {
        Ok(match expect {
            Expect::Exact(text) => Self::Exact(text.trim().to_owned()),
            Expect::Contains(parts) => Self::Contains(parts.all().to_vec()),
            Expect::Regex(pattern) => {
                Self::Regex(Regex::new(pattern).map_err(|error| format!("\"regex\" is none: {error}"))?)
            }
            Expect::JsonSchema(schema) => {
                // Patterns are searched in linear time, so that no answer makes the run hang.
                let options = jsonschema::options().with_pattern_options(jsonschema::PatternOptions::regex());
                let validator = options.build(schema);
                Self::Schema(Box::new(validator.map_err(|error| format!("\"json_schema\" is none: {error}"))?))
            }
            Expect::Number(near) => Self::Number(near.value, near.tolerance),
            Expect::Judge(judge) => Self::Judge(judge.clone()),
        })
    }

    /// Grades an answer. A judge has to be asked instead, so that `Err` names it.
    pub(super) fn grade(&self, answer: &str) -> Result<Grade, &Judge> {
        Ok(Grade::of(match self {
            Self::Exact(text) if answer.trim() == text => Ok(()),
            Self::Exact(_) => Err("is another text".to_owned()),
            Self::Contains(parts) => match parts.iter().find(|part| !answer.contains(*part)) {
                None => Ok(()),
                Some(part) => Err(format!("doesn't contain {part:?}")),
            },
            Self::Regex(pattern) if pattern.is_match(answer) => Ok(()),
            Self::Regex(_) => Err("the pattern isn't found".to_owned()),
            Self::Schema(schema) => fits(schema, answer),
            Self::Number(value, tolerance) => near(answer, *value, *tolerance),
            Self::Judge(judge) => return Err(judge),
        }))
    }
}

/// Whether an answer is JSON that a schema allows. Markdown's marks of a code block around it are ignored.
fn fits(schema: &jsonschema::Validator, answer: &str) -> Result<(), String> {
    let text = answer.trim();
    let inner = text.strip_prefix("```json").or(text.strip_prefix("```")).and_then(|text| text.strip_suffix("```"));
    let value = serde_json::from_str(inner.unwrap_or(text)).map_err(|error| format!("is no JSON: {error}"))?;
    match schema.iter_errors(&value).next() {
        None => Ok(()),
        Some(error) => Err(format!("the schema doesn't allow what stands at {:?}", error.instance_path().to_string())),
    }
}

/// Whether the last number of an answer is near enough.
fn near(answer: &str, value: f64, tolerance: f64) -> Result<(), String> {
    match last_number(answer) {
        None => Err("holds no number".to_owned()),
        // A little more than the tolerance, for what rounding does to 0.1 + 0.2.
        Some(number) if (number - value).abs() <= tolerance + 1e-12 * value.abs() => Ok(()),
        Some(number) => Err(format!("{number} isn't near enough to {value}")),
    }
}

/// The last number of a text.
pub(super) fn last_number(text: &str) -> Option<f64> {
    // Models write mathematics with the minus of Unicode.
    let text = text.replace('\u{2212}', "-");
    let found = NUMBER.as_ref()?.find_iter(&text).last()?;
    // A sign belongs to a number unless something to subtract it from, or a date, stands before it.
    let is_after_word =
        text.get(..found.start()).and_then(|before| before.chars().last()).is_some_and(char::is_alphanumeric);
    let digits = if is_after_word { found.as_str().trim_start_matches(['-', '+']) } else { found.as_str() };
    digits.replace(',', "").parse().ok().filter(|number: &f64| number.is_finite())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn grader(expect: &Value) -> Result<Grader, String> {
        Grader::new(&serde_json::from_value(expect.clone()).expect("an expectation"))
    }

    #[test]
    fn each_expectation_tells_right_from_wrong() {
        let object = json!({ "type": "object", "required": ["a"], "properties": { "a": { "type": "integer" } } });
        for (expect, right, wrong) in [
            (json!({ "exact": "Paris" }), " Paris\n", "paris"),
            (json!({ "contains": ["a", "b"] }), "b a", "a"),
            (json!({ "contains": "a" }), "cab", "b"),
            (json!({ "regex": "(?i)^yes" }), "Yes.", "No, yes"),
            (json!({ "json_schema": object }), "{\"a\": 1}", "{\"a\": \"1\"}"),
            (json!({ "json_schema": object }), "```json\n{\"a\": 1}\n```", "```json\n{\"a\": 1"),
            (json!({ "number": { "value": 2.5, "tolerance": 0.01 } }), "About 3 or 2.505", "2.5, no: 2.6"),
            (json!({ "number": { "value": 1234.5 } }), "It is 1,234.5.", "1,234"),
            (json!({ "number": { "value": -2e-3 } }), "-2e-3", "none at all"),
            (json!({ "number": { "value": -5 } }), "x = \u{2212}5", "x = 5"),
            (json!({ "number": { "value": 4 } }), "It lies in 3-4", "3 - -4"),
            (json!({ "number": { "value": 5 } }), "on 2026-11-05", "\u{2212}5"),
        ] {
            let grader = grader(&expect).expect("a grader");
            let of = |answer: &str| grader.grade(answer).expect("no judge");
            assert_eq!(of(right), Grade { right: Some(true), score: 1.0, note: None }, "{expect}");
            assert_eq!(of(wrong).right, Some(false), "{expect}");
            assert!(of(wrong).note.is_some_and(|note| !note.is_empty()), "{expect}");
        }
    }

    #[test]
    fn what_is_no_pattern_and_no_schema_is_told() {
        assert!(grader(&json!({ "regex": "(" })).err().is_some_and(|told| told.starts_with("\"regex\" is none: ")));
        let told = grader(&json!({ "json_schema": { "type": "opaque" } })).err();
        assert!(told.as_ref().is_some_and(|told| told.starts_with("\"json_schema\" is none: ")), "{told:?}");
        // Nothing is fetched from elsewhere.
        assert!(grader(&json!({ "json_schema": { "$ref": "https://example.com/schema.json" } })).is_err());
    }

    #[test]
    fn a_pattern_that_would_search_for_ever_doesnt() {
        let schema = json!({ "json_schema": { "type": "string", "pattern": "^(a+)+$" } });
        let grader = grader(&schema).expect("a grader");
        let answer = format!("\"{}!\"", "a".repeat(5_000));
        assert_eq!(grader.grade(&answer).expect("no judge").right, Some(false));
    }
}
