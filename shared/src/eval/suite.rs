//! Reads the suite of an eval. A suite is a list of cases; each case is a conversation and what a good answer to it is.
//! Takes JSON lines, returns a [`Suite`], or every mistake with its line. Called by `bailiwick eval run`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::digest;

/// The longest suite, in bytes.
pub const MAX_SUITE: u64 = 64 << 20;
/// The most cases of a suite.
pub const MAX_CASES: usize = 100_000;
/// The longest line, in bytes.
const MAX_LINE: usize = 1 << 20;
/// The longest id of a case, in bytes.
const MAX_ID: usize = 200;
/// The most mistakes that are reported at once.
const MAX_MISTAKES: usize = 20;
/// Fields of a request that a case can't set, and why.
const NOT_PARAMS: [(&str, &str); 4] = [
    ("messages", "write them beside \"params\""),
    ("model", "name it by --model, so that two models can be compared"),
    ("stream", "answers are judged as a whole"),
    ("n", "ask several times by --repeat"),
];

/// The cases, in the order of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Suite {
    /// The cases.
    pub cases: Vec<Case>,
    /// A digest of all of them.
    pub hash: String,
}

/// A case: what the model is asked, and what answer is expected.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// The case's name, which no other case of the suite has.
    pub id: String,
    /// The number of its line in the file, from 1.
    pub line: usize,
    /// The conversation so far.
    pub messages: Value,
    /// More fields of the request, such as `temperature`.
    pub params: Map<String, Value>,
    /// What answer is expected.
    pub expect: Expect,
    /// Digests of `messages`, `params` and `expect`.
    pub hashes: [String; 3],
}

/// What makes an answer right.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    /// The answer is this text, except for spaces at its ends.
    Exact(String),
    /// The answer contains all of these parts, in any order.
    Contains(OneOrMore),
    /// This regular expression matches somewhere in the answer.
    Regex(String),
    /// The answer is JSON that this schema allows.
    JsonSchema(Value),
    /// The last number in the answer is near this one.
    Number(ExpectedNumber),
    /// Another model, the judge, scores the answer.
    Judge(Judge),
}

/// One text or several.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum OneOrMore {
    /// One.
    One(String),
    /// Several.
    More(Vec<String>),
}

impl OneOrMore {
    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[String] {
        match self {
            Self::One(single) => core::slice::from_ref(single),
            Self::More(more) => more,
        }
    }
}

/// A number and how far off an answer may be.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedNumber {
    /// The number.
    pub value: f64,
    /// How far off the answer may be; 0.
    #[serde(default)]
    pub tolerance: f64,
}

/// A model that scores answers.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Judge {
    /// The model's name, as clients ask for it.
    pub model: String,
    /// What a good answer is.
    pub rubric: String,
    /// The score from which on an answer is right. Absent: the score itself is compared.
    #[serde(default)]
    pub pass: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseAsWritten {
    id: String,
    messages: Option<Vec<Value>>,
    prompt: Option<String>,
    #[serde(default)]
    params: Map<String, Value>,
    expect: Value,
}

/// Reads a suite: a case in each line, empty lines between them.
///
/// # Errors
/// Every mistake, with its line and how to mend it.
///
/// ```
/// use bailiwick_rules::eval::read_suite;
/// let suite = read_suite(br#"{"id": "sum", "prompt": "2+2?", "expect": {"contains": "4"}}"#).unwrap();
/// assert_eq!(suite.cases[0].messages[0]["content"], "2+2?");
/// ```
pub fn read_suite(bytes: &[u8]) -> Result<Suite, Vec<String>> {
    if bytes.len() as u64 > MAX_SUITE {
        return Err(vec![format!("has more than {} MiB; split it into several suites", MAX_SUITE >> 20)]);
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let (mut cases, mut mistakes) = (Vec::new(), Vec::new());
    let mut lines_of: BTreeMap<String, usize> = BTreeMap::new();
    for (line, text) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        if text.trim_ascii().is_empty() {
            continue;
        }
        match read_case(line, text) {
            Ok(case) => match lines_of.get(&case.id) {
                Some(first) => mistakes.push(format!(
                    "line {line}: the id {:?} stands in line {first}, too; give each case its own",
                    case.id
                )),
                None => {
                    lines_of.insert(case.id.clone(), line);
                    cases.push(case);
                }
            },
            Err(mistake) => mistakes.push(format!("line {line}: {mistake}")),
        }
        if mistakes.len() >= MAX_MISTAKES {
            mistakes.push("more lines were not looked at; mend these first".to_owned());
            break;
        }
        if cases.len() > MAX_CASES {
            return Err(vec![format!("has more than {MAX_CASES} cases; split it into several suites")]);
        }
    }
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    if cases.is_empty() {
        return Err(vec![
            "has no case; write one a line: {\"id\": \"sum\", \"prompt\": \"2+2?\", \"expect\": {\"contains\": \"4\"}}"
                .to_owned(),
        ]);
    }
    let all = cases.iter().map(|case| format!("{:?} {}\n", case.id, case.hashes.join(" ")));
    let hash = digest(all.collect::<String>().as_bytes());
    Ok(Suite { cases, hash })
}

/// Reads a line of a suite: a prompt, and how its answer is graded.
fn read_case(line: usize, text: &[u8]) -> Result<Case, String> {
    if text.len() > MAX_LINE {
        return Err(format!("is longer than {} MiB; shorten the prompt", MAX_LINE >> 20));
    }
    let written: CaseAsWritten = serde_json::from_slice(text).map_err(|error| match error.is_data() {
        true => format!("is no case: {}", without_line(&error)),
        false => format!("is no JSON: {}; a case stands in one line", without_line(&error)),
    })?;
    if written.id.is_empty() || written.id.len() > MAX_ID || written.id.chars().any(char::is_control) {
        return Err(format!("\"id\" has to have 1 to {MAX_ID} bytes, and no control characters"));
    }
    let messages = match (written.messages, written.prompt) {
        (Some(messages), None) => messages,
        (None, Some(prompt)) => vec![json!({ "role": "user", "content": prompt })],
        (None, None) => return Err("has neither \"messages\" nor \"prompt\"; add one of them".to_owned()),
        (Some(_), Some(_)) => return Err("has both \"messages\" and \"prompt\"; keep one of them".to_owned()),
    };
    let is_message = |value: &Value| value["role"].is_string() && !value["content"].is_null();
    if messages.is_empty() || !messages.iter().all(is_message) {
        return Err("\"messages\" has to be a list of {\"role\": …, \"content\": …}".to_owned());
    }
    if let Some((name, why)) = NOT_PARAMS.iter().find(|(name, _)| written.params.contains_key(*name)) {
        return Err(format!("\"params\" can't have {name:?}: {why}"));
    }
    let expect: Expect =
        serde_json::from_value(written.expect.clone()).map_err(|error| format!("\"expect\" is wrong: {error}"))?;
    check(&expect)?;
    let messages = Value::Array(messages);
    let hashes = [messages.to_string(), Value::Object(written.params.clone()).to_string(), written.expect.to_string()];
    let hashes = hashes.map(|text| digest(text.as_bytes()));
    Ok(Case { id: written.id, line, messages, params: written.params, expect, hashes })
}

/// Refuses an expectation that the types allow but that no answer could ever meet.
fn check(expect: &Expect) -> Result<(), String> {
    match expect {
        Expect::Contains(parts) if parts.all().is_empty() || parts.all().iter().any(String::is_empty) => {
            Err("\"contains\" has to name a text, or several; an empty one is in every answer".to_owned())
        }
        Expect::Number(near) if near.tolerance.is_nan() || near.tolerance < 0.0 => {
            Err("\"tolerance\" has to be 0 or more".to_owned())
        }
        Expect::Judge(judge) if judge.model.is_empty() || judge.rubric.is_empty() => {
            Err("\"judge\" needs a \"model\" and a \"rubric\"".to_owned())
        }
        Expect::Judge(Judge { pass: Some(pass), .. }) if !(0.0..=1.0).contains(pass) => {
            Err("\"pass\" has to be from 0 to 1".to_owned())
        }
        _ => Ok(()),
    }
}

/// An error's words, with the column alone: its line counts from the begin of the case.
fn without_line(error: &serde_json::Error) -> String {
    let words = error.to_string();
    let words = words.split(" at line ").next().unwrap_or_default().to_owned();
    format!("{words} at column {}", error.column())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(text: &str) -> Vec<String> {
        read_suite(text.as_bytes()).expect_err("a mistake")
    }

    #[test]
    fn each_way_to_expect_is_read() {
        let suite = r#"
            {"id": "a", "prompt": "x", "expect": {"exact": "Paris"}}
            {"id": "b", "prompt": "x", "expect": {"contains": ["a", "b"]}, "params": {"temperature": 0}}

            {"id": "c", "messages": [{"role": "system", "content": "s"}], "expect": {"regex": "^a"}}
            {"id": "d", "prompt": "x", "expect": {"json_schema": {"type": "object"}}}
            {"id": "e", "prompt": "x", "expect": {"number": {"value": 3.14, "tolerance": 0.01}}}
            {"id": "f", "prompt": "x", "expect": {"judge": {"model": "large", "rubric": "polite", "pass": 0.5}}}"#;
        let suite = read_suite(suite.as_bytes()).unwrap();
        let lines: Vec<usize> = suite.cases.iter().map(|case| case.line).collect();
        assert_eq!(lines, [2, 3, 5, 6, 7, 8]);
        assert_eq!(suite.cases[1].expect, Expect::Contains(OneOrMore::More(vec!["a".into(), "b".into()])));
        assert_eq!(suite.cases[2].messages[0]["role"], "system");
        assert_eq!(suite.hash.len(), 32);
    }

    #[test]
    fn what_differs_has_another_hash() {
        let of = |text: &str| read_suite(text.as_bytes()).unwrap();
        let plain = of(r#"{"id": "a", "prompt": "x", "expect": {"exact": "y"}}"#);
        let spaced = of(r#"{"expect":{"exact":"y"},"id":"a","prompt":"x"}"#);
        assert_eq!(plain.hash, spaced.hash, "order and spaces mean nothing");
        for other in [
            r#"{"id": "a", "prompt": "z", "expect": {"exact": "y"}}"#,
            r#"{"id": "b", "prompt": "x", "expect": {"exact": "y"}}"#,
            r#"{"id": "a", "prompt": "x", "expect": {"exact": "z"}}"#,
            r#"{"id": "a", "prompt": "x", "expect": {"exact": "y"}, "params": {"temperature": 0}}"#,
        ] {
            assert_ne!(plain.hash, of(other).hash, "{other}");
        }
    }

    #[test]
    fn every_mistake_is_told_with_its_line() {
        let fine = r#"{"id": "a", "prompt": "x", "expect": {"exact": "y"}}"#;
        let told = mistakes(&format!("{fine}\n{fine}\n{{\n{{\"id\": 1}}\n"));
        assert!(told[0].starts_with("line 2: the id \"a\" stands in line 1, too"), "{told:?}");
        assert!(told[1].starts_with("line 3: is no JSON: ") && told[1].contains("stands in one line"), "{told:?}");
        assert!(told[2].starts_with("line 4: is no case: invalid type: integer"), "{told:?}");
        for (wrong, words) in [
            (r#"{"id": "a", "prompt": "x"}"#, "missing field `expect`"),
            (r#"{"id": "a", "prompt": "x", "id": "b", "expect": {"exact": "y"}}"#, "duplicate field `id`"),
            (r#"{"id": "a", "prompts": "x", "expect": {"exact": "y"}}"#, "unknown field `prompts`"),
            (r#"{"id": "", "prompt": "x", "expect": {"exact": "y"}}"#, "\"id\" has to have"),
            (r#"{"id": "a", "expect": {"exact": "y"}}"#, "neither \"messages\" nor \"prompt\""),
            (r#"{"id": "a", "messages": [], "expect": {"exact": "y"}}"#, "a list of"),
            (r#"{"id": "a", "messages": ["x"], "expect": {"exact": "y"}}"#, "a list of"),
            (r#"{"id": "a", "prompt": "x", "params": {"model": "m"}, "expect": {"exact": "y"}}"#, "--model"),
            (r#"{"id": "a", "prompt": "x", "expect": {"exakt": "y"}}"#, "unknown variant `exakt`"),
            (r#"{"id": "a", "prompt": "x", "expect": {"contains": ""}}"#, "in every answer"),
            (r#"{"id": "a", "prompt": "x", "expect": {"number": {"value": 1, "tolerance": -1}}}"#, "0 or more"),
            (r#"{"id": "a", "prompt": "x", "expect": {"number": {"value": 1e999}}}"#, "out of range"),
            (r#"{"id": "a", "prompt": "x", "expect": {"number": {"value": NaN}}}"#, "is no JSON"),
            (r#"{"id": "a", "prompt": "x", "expect": {"judge": {"model": "m", "rubric": "r", "pass": 2}}}"#, "0 to 1"),
        ] {
            let told = mistakes(wrong);
            assert!(told[0].starts_with("line 1: ") && told[0].contains(words), "{wrong}: {told:?}");
        }
        assert!(mistakes("\n\n")[0].starts_with("has no case"));
        let many = "{\n".repeat(1_000);
        assert_eq!(mistakes(&many).len(), MAX_MISTAKES + 1);
    }

    #[test]
    fn a_huge_suite_is_refused() {
        let lines = |n: usize| -> String {
            (0..n)
                .map(|nth| format!("{{\"id\":\"{nth}\",\"prompt\":\"x\",\"expect\":{{\"exact\":\"y\"}}}}\n"))
                .collect()
        };
        assert_eq!(read_suite(lines(MAX_CASES).as_bytes()).unwrap().cases.len(), MAX_CASES);
        assert!(mistakes(&lines(MAX_CASES + 1))[0].contains("more than 100000 cases"));
        let long = "x".repeat(MAX_LINE);
        let told = mistakes(&format!("{{\"id\":\"a\",\"prompt\":\"{long}\",\"expect\":{{\"exact\":\"y\"}}}}"));
        assert!(told[0].contains("longer than 1 MiB"));
    }
}
