//! Reads the result files of lm-evaluation-harness, another program that runs evals. Takes `samples_TASK_….jsonl`,
//! which `lm_eval --log_samples` writes, and the `results_….json` beside it; returns a [`Run`]. Called by
//! [`super::run`].
//!
//! A line of the samples is one document with one filter: `doc_id`, `doc_hash`, `prompt_hash`, `target_hash`,
//! `arguments` (prompts and parameters of generation), `filter`, the names of `metrics`, and each metric by its name.
//! Seeds and the chat template are in `results_….json` only.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::digest;
use super::run::{CaseResult, ResultFilter, Run};

/// The content of `results_….json` about one task.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Companion {
    about: BTreeMap<&'static str, String>,
    /// Metrics of which less is better.
    lower_is_better: BTreeSet<String>,
}

impl Companion {
    /// Reads the part about a task.
    ///
    /// # Errors
    /// If the text isn't JSON.
    pub fn read(bytes: &[u8], task: &str) -> Result<Self, String> {
        let whole: Value = serde_json::from_slice(bytes).map_err(|error| format!("is no JSON: {error}"))?;
        let config = &whole["config"];
        let settings = [
            ("task hash", &whole["task_hashes"][task]),
            ("version of the task", &whole["versions"][task]),
            ("number of examples", &whole["n-shot"][task]),
            ("chat template", &whole["chat_template_sha"]),
            ("system prompt", &whole["system_instruction_sha"]),
            ("seed", &config["random_seed"]),
            ("seed of numpy", &config["numpy_seed"]),
            ("seed of torch", &config["torch_seed"]),
            ("seed of the examples", &config["fewshot_seed"]),
            ("parameters of generation", &config["gen_kwargs"]),
            ("limit of documents", &config["limit"]),
        ];
        let directions = whole["higher_is_better"][task].as_object();
        let lower = directions.into_iter().flatten().filter(|(_, is_higher)| **is_higher == Value::Bool(false));
        Ok(Self {
            about: settings.into_iter().map(|(name, value)| (name, value.to_string())).collect(),
            lower_is_better: lower.map(|(metric, _)| metric.clone()).collect(),
        })
    }
}

/// Whether a line was written by lm-evaluation-harness.
pub(super) fn is_sample(line: &[u8]) -> bool {
    let text = String::from_utf8_lossy(line);
    text.contains("\"doc_id\"") && !text.contains("\"bailiwick_eval\"")
}

/// Reads the samples of a task.
pub(super) fn read(bytes: &[u8], companion: Option<&Companion>, choice: ResultFilter<'_>) -> Result<Run, String> {
    let samples = samples(bytes)?;
    let filters: BTreeSet<&str> = samples.iter().filter_map(|(_, sample)| sample["filter"].as_str()).collect();
    let filter = match (choice.filter, filters.len()) {
        (Some(wanted), _) if !filters.contains(wanted) => {
            return Err(format!("has no filter {wanted:?}; it has {}", listed(&filters)));
        }
        (Some(wanted), _) => Some(wanted),
        (None, 0 | 1) => None,
        (None, _) => return Err(format!("has several filters; name one by --filter: {}", listed(&filters))),
    };
    let samples = samples.iter().filter(|(_, sample)| filter.is_none_or(|filter| sample["filter"] == filter));
    let mut run =
        Run { about: companion.map(|companion| companion.about.clone()).unwrap_or_default(), ..Run::default() };
    let mut metric: Option<String> = choice.metric.map(str::to_owned);
    for (line, sample) in samples {
        let id = sample["doc_id"].to_string();
        let metric = match &metric {
            Some(metric) => metric,
            None => metric.insert(
                first_metric(sample)
                    .ok_or_else(|| format!("line {line}: names no metric that is a number; name one by --metric"))?,
            ),
        };
        if companion.is_some_and(|companion| companion.lower_is_better.contains(metric)) {
            return Err(format!(
                "of {metric:?} less is better, and compare takes more for better; name another metric by --metric"
            ));
        }
        let score = number(&sample[metric.as_str()]).ok_or_else(|| {
            let metrics = sample["metrics"].to_string();
            format!("line {line}: {metric:?} is no number; name another by --metric, of {metrics}")
        })?;
        let text = |name: &str| sample[name].as_str().unwrap_or_default().to_owned();
        let hashes = BTreeMap::from([
            ("document", text("doc_hash")),
            ("prompt", text("prompt_hash")),
            ("target", text("target_hash")),
            ("arguments", digest(sample["arguments"].to_string().as_bytes())),
        ]);
        if run.cases.insert(id.clone(), CaseResult { hashes, scores: vec![score] }).is_some() {
            return Err(format!("line {line}: document {id} comes twice; are two runs in one file?"));
        }
    }
    run.about.insert("metric", metric.unwrap_or_default());
    run.about.insert("filter", filter.or(filters.first().copied()).unwrap_or_default().to_owned());
    Ok(run)
}

/// The whole lines, with their numbers.
fn samples(bytes: &[u8]) -> Result<Vec<(usize, Value)>, String> {
    let mut samples = Vec::new();
    for (line, text) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        if text.trim_ascii().is_empty() {
            continue;
        }
        let sample: Value = serde_json::from_slice(text).map_err(|error| {
            let text = String::from_utf8_lossy(text);
            match text.contains("NaN") || text.contains("Infinity") {
                true => {
                    format!("line {line}: holds NaN or Infinity, which is no score; leave the document out in both")
                }
                false => format!("line {line}: is no JSON: {error}; was the run killed? Run it again"),
            }
        })?;
        samples.push((line, sample));
    }
    Ok(samples)
}

fn listed(names: &BTreeSet<&str>) -> String {
    names.iter().copied().collect::<Vec<_>>().join(", ")
}

fn first_metric(sample: &Value) -> Option<String> {
    let names = sample["metrics"].as_array()?.iter().filter_map(Value::as_str);
    names.into_iter().find(|name| number(&sample[*name]).is_some()).map(str::to_owned)
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Bool(right) => Some(f64::from(u8::from(*right))),
        other => other.as_f64(),
    }
}
