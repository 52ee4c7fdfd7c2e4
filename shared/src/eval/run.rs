//! Reads the results of a run, which is the scores of a model's answers to the cases of a suite. Takes the bytes of a
//! file of `bailiwick eval run` or of lm-evaluation-harness; returns a [`Run`], the same form for both. Called by
//! `bailiwick eval compare` and by rollouts.

use std::collections::BTreeMap;

use super::lm_eval::{self, Companion};
use super::outcome::{Log, read_log};

/// The results of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Run {
    /// Settings that must be equal in both runs that are compared, by name: seeds, templates.
    pub about: BTreeMap<&'static str, String>,
    /// The result of each case, by the case's name.
    pub cases: BTreeMap<String, CaseResult>,
    /// Cases without an answer.
    pub unanswered: Vec<String>,
}

/// The results of a case.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CaseResult {
    /// Digests of what was asked and expected, by their names.
    pub hashes: BTreeMap<&'static str, String>,
    /// The score of each repetition; 1 is right and 0 wrong.
    pub scores: Vec<f64>,
}

/// Which of several results of a case to take from a file of lm-evaluation-harness.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResultFilter<'a> {
    /// The metric; by default the first one.
    pub metric: Option<&'a str>,
    /// The filter; by default the only one.
    pub filter: Option<&'a str>,
}

/// Reads the results of a run: those of `bailiwick eval run`, or those of `lm_eval --log_samples`. For the latter,
/// `companion` is the content of its `results_….json`, if there is one.
///
/// # Errors
/// What can't be read, with its line.
pub fn read_run(bytes: &[u8], companion: Option<&Companion>, choice: ResultFilter<'_>) -> Result<Run, String> {
    let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if first.trim_ascii().is_empty() {
        return Err("has no result; name a file of `bailiwick eval run`, or of `lm_eval --log_samples`".to_owned());
    }
    if lm_eval::is_sample(first) {
        return lm_eval::read(bytes, companion, choice);
    }
    let log = read_log(bytes)?.ok_or_else(|| "has no whole line; run `bailiwick eval run` again".to_owned())?;
    Ok(of_log(log))
}

/// The repetitions of a case: the score of each, if it has an answer.
#[derive(Default)]
struct Repetitions {
    hashes: BTreeMap<&'static str, String>,
    scores: BTreeMap<u32, Option<f64>>,
}

/// Makes a run of the results of `bailiwick eval run`. The last line of a case and repetition counts, because a case
/// without an answer is asked again.
fn of_log(log: Log) -> Run {
    let (cases, repeat) = (log.header.cases, log.header.repeat);
    let mut of_cases: BTreeMap<String, Repetitions> = BTreeMap::new();
    for outcome in log.outcomes {
        let [prompt, params, expect] = outcome.hashes;
        let of_case = of_cases.entry(outcome.case).or_default();
        of_case.hashes = BTreeMap::from([("prompt", prompt), ("params", params), ("expectation", expect)]);
        of_case.scores.insert(outcome.repeat, outcome.score);
    }
    let mut run = Run::default();
    let seed = log.header.seed.map_or("none".to_owned(), |seed| seed.to_string());
    run.about = BTreeMap::from([("seed", seed), ("number of repetitions", repeat.to_string())]);
    // Cases that the run didn't reach have no line.
    run.about.insert("number of cases", cases.to_string());
    for (case, Repetitions { hashes, scores }) in of_cases {
        let scores_of_case: Vec<f64> = (0..repeat).filter_map(|nth| scores.get(&nth).copied().flatten()).collect();
        if scores_of_case.len() == usize::try_from(repeat).unwrap_or(usize::MAX) {
            run.cases.insert(case, CaseResult { hashes, scores: scores_of_case });
        } else {
            run.unanswered.push(case);
        }
    }
    let missing = cases.saturating_sub(run.cases.len() + run.unanswered.len());
    if missing > 0 {
        run.unanswered.push(format!("{missing} more that were not asked"));
    }
    run
}
