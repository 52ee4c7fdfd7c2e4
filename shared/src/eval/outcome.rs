//! The file of results that `bailiwick eval run` writes: a header, then one line for each case that was asked. Takes
//! the bytes of a file, returns its header and outcomes, and how many bytes are whole lines. Called by `bailiwick eval
//! run`, which goes on where an earlier run stopped, and by [`super::run`] for comparisons.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// The version of the format.
pub const VERSION: u32 = 1;

/// The first line: what is run, and where.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// The version of the format.
    pub bailiwick_eval: u32,
    /// The suite's name.
    pub suite: String,
    /// The suite's digest.
    pub suite_hash: String,
    /// The number of cases of the suite.
    pub cases: usize,
    /// The service that was asked.
    pub service: String,
    /// The region that was asked; absent if the edge chose.
    pub region: Option<String>,
    /// The arm of a rollout that was asked; absent if the session decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arm: Option<String>,
    /// When the file was begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<Timestamp>,
    /// The model that was asked for.
    pub model: String,
    /// The seed that was sent.
    pub seed: Option<i64>,
    /// How often each case is asked.
    pub repeat: u32,
}

/// Each further line: the outcome of asking a case once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The case.
    pub case: String,
    /// The number of the repetition, from 0.
    pub repeat: u32,
    /// Digests of the case's messages, params and expectation.
    pub hashes: [String; 3],
    /// Whether the answer is right; absent if the case has a score without a limit, or no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub right: Option<bool>,
    /// The score, from 0 to 1; absent if there is no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// Why the answer isn't right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Why there is no answer. The case is asked again by the next run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The answer, maybe cut off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// How long the answer took, in milliseconds.
    pub ms: u64,
    /// The region and endpoint that made the answer, as the edge says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The arm (old or new side) of a rollout that made the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arm: Option<String>,
    /// The engine's `system_fingerprint`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
}

/// A file of results.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// What was run.
    pub header: Header,
    /// The outcomes, in the order of the file. The last one of a case and repetition counts.
    pub outcomes: Vec<Outcome>,
    /// How many bytes are whole lines. After them comes at most a line that a killed run has begun.
    pub whole_bytes: usize,
}

impl Log {
    /// The cases and repetitions that have a score.
    #[must_use]
    pub fn done(&self) -> BTreeSet<(String, u32)> {
        let scored = self.outcomes.iter().filter(|outcome| outcome.score.is_some());
        scored.map(|outcome| (outcome.case.clone(), outcome.repeat)).collect()
    }
}

/// Reads a file of results; `None` if no whole line is in it. A last line without an end is left out.
///
/// # Errors
/// The first line that can't be read, and how to mend it.
pub fn read_log(bytes: &[u8]) -> Result<Option<Log>, String> {
    let whole_bytes = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let mut lines = (1..).zip(bytes.get(..whole_bytes).unwrap_or_default().split_inclusive(|byte| *byte == b'\n'));
    let Some((_, first)) = lines.next() else { return Ok(None) };
    let header: Header = serde_json::from_slice(first)
        .map_err(|error| format!("line 1: is no header of `bailiwick eval run`: {error}; take another file"))?;
    if header.bailiwick_eval != VERSION {
        let version = header.bailiwick_eval;
        return Err(format!("line 1: has version {version}, and this program reads {VERSION}; take a newer program"));
    }
    let mut outcomes = Vec::new();
    for (line, text) in lines.filter(|(_, text)| !text.trim_ascii().is_empty()) {
        let outcome: Outcome = serde_json::from_slice(text)
            .map_err(|error| format!("line {line}: is no result: {error}; remove the line, and run again"))?;
        if outcome.score.is_some_and(|score| !(0.0..=1.0).contains(&score)) {
            return Err(format!("line {line}: \"score\" has to be from 0 to 1; remove the line, and run again"));
        }
        outcomes.push(outcome);
    }
    Ok(Some(Log { header, outcomes, whole_bytes }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            bailiwick_eval: VERSION,
            suite: "smoke".into(),
            suite_hash: "00".into(),
            cases: 2,
            service: "chat".into(),
            region: None,
            arm: None,
            begun: None,
            model: "large".into(),
            seed: Some(1),
            repeat: 1,
        }
    }

    fn line(value: &impl Serialize) -> String {
        serde_json::to_string(value).unwrap() + "\n"
    }

    #[test]
    fn a_torn_last_line_is_left_out_wherever_it_is_torn() {
        let outcome = |case: &str| Outcome { case: case.into(), score: Some(1.0), ..Outcome::default() };
        let text = line(&header()) + &line(&outcome("a")) + &line(&outcome("ü"));
        let mut tried = 0;
        for length in 0..=text.len() {
            let whole = text.as_bytes()[..length].iter().filter(|byte| **byte == b'\n').count();
            let read = read_log(&text.as_bytes()[..length]).unwrap();
            match (whole, read) {
                (0, read) => assert_eq!(read, None),
                (lines, Some(log)) => {
                    assert_eq!(log.outcomes.len(), lines - 1, "{length} bytes");
                    assert_eq!(log.done().len(), lines - 1);
                    assert!(log.whole_bytes <= length);
                }
                (lines, None) => panic!("{length} bytes, {lines} lines: nothing was read"),
            }
            tried += 1;
        }
        println!("{tried} cases");
    }

    #[test]
    fn what_is_no_result_is_told_with_its_line() {
        let told = |more: &str| read_log((line(&header()) + more).as_bytes()).unwrap_err();
        assert!(told("{\n").starts_with("line 2: is no result: "));
        assert!(told("\n{\"case\": \"a\"}\n").starts_with("line 3: is no result: missing field"));
        let scored = |score: f64| Outcome { score: Some(score), ..Outcome::default() };
        assert!(told(&line(&scored(1.5))).contains("from 0 to 1"));
        assert!(told(&line(&scored(0.5)).replace("0.5", "NaN")).starts_with("line 2: is no result"));
        assert!(read_log(b"{\"doc_id\": 1}\n").unwrap_err().starts_with("line 1: is no header"));
        let other = Header { bailiwick_eval: 9, ..header() };
        assert!(read_log(line(&other).as_bytes()).unwrap_err().contains("has version 9"));
    }
}
