//! A reading: all that an endpoint said of the model that it runs. Takes the answers of one round of requests, returns
//! the reading. Says whether two readings are of the same release. Called by the DNS node, and where the readings of
//! several nodes are combined.

use std::sync::Arc;

use super::answer::{CompletionReport, LONGEST_TEXT, ModelListing};
use super::ask::PROMPTS;
use super::distance::distance;
use crate::rules::Canary;

/// What an endpoint said of one model. A field is `None` if the endpoint didn't say it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reading {
    /// The model's name, as a completion gives it.
    pub model: Option<Arc<str>>,
    /// Where the weights come from, such as a repository or a path.
    pub root: Option<Arc<str>>,
    /// The longest context, in tokens.
    pub max_model_len: Option<u64>,
    /// The engine's fingerprint.
    pub fingerprint: Option<Arc<str>>,
    /// The likeliest tokens of the answers to the fixed prompts.
    pub canary: Option<Canary>,
}

impl Reading {
    /// Whether two readings may be of the same release: every field that both have is equal. Of fingerprints only the
    /// engine's version is compared, and canaries may be up to `tolerance` nats apart.
    #[must_use]
    pub fn is_like(&self, other: &Self, tolerance: f64) -> bool {
        fn agree<T: PartialEq>(a: Option<&T>, b: Option<&T>) -> bool {
            a.zip(b).is_none_or(|(a, b)| a == b)
        }
        agree(self.model.as_ref(), other.model.as_ref())
            && agree(self.root.as_ref(), other.root.as_ref())
            && agree(self.max_model_len.as_ref(), other.max_model_len.as_ref())
            && agree(engine(self.fingerprint.as_deref()).as_ref(), engine(other.fingerprint.as_deref()).as_ref())
            && self
                .canary
                .as_ref()
                .zip(other.canary.as_ref())
                .is_none_or(|(a, b)| distance(a, b).is_none_or(|apart| apart <= tolerance))
    }

    /// The reading without texts that are too long. Another node may have reported such texts.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        for text in [&mut self.model, &mut self.root, &mut self.fingerprint] {
            *text = text.take().filter(|text| text.len() <= LONGEST_TEXT);
        }
        self
    }
}

/// The part of a fingerprint that is compared if the rules pin none: the engine and its version, but not the hardware
/// and the parallelism, which may differ between regions that answer alike. `None` for a fingerprint that is only a
/// hash, such as OpenAI's and Azure's, which changes without a change of the model.
#[must_use]
pub(super) fn engine(fingerprint: Option<&str>) -> Option<&str> {
    let fingerprint = fingerprint?;
    if fingerprint.starts_with("fp_") {
        return None;
    }
    let Some(rest) = fingerprint.strip_prefix("vllm-") else { return Some(fingerprint) };
    let version = rest.split('-').next().unwrap_or_default();
    version.contains('.').then(|| fingerprint.get(.."vllm-".len() + version.len()).unwrap_or(fingerprint))
}

/// Of several readings of the same endpoint, the one that is like most of the others; of equals the first.
#[must_use]
pub fn most_told(readings: &[Reading], tolerance: f64) -> Option<&Reading> {
    let likes = |reading: &Reading| readings.iter().filter(|other| reading.is_like(other, tolerance)).count();
    let counted = readings.iter().enumerate().map(|(at, reading)| (likes(reading), core::cmp::Reverse(at), reading));
    counted.max_by_key(|(likes, at, _)| (*likes, *at)).map(|(.., reading)| reading)
}

/// The answers of one round so far.
#[derive(Clone, Debug, Default)]
pub struct Round {
    listed: Option<ModelListing>,
    reports: Vec<CompletionReport>,
}

impl Round {
    /// Takes the model's entry of `/v1/models`.
    pub fn list(&mut self, listed: ModelListing) {
        self.listed = Some(listed);
    }

    /// Takes the answer to the next prompt.
    pub fn tell(&mut self, report: CompletionReport) {
        self.reports.push(report);
    }

    /// The number of the prompt to send next; `None` if no answer is missing. An endpoint whose answer has no log
    /// probabilities gets no further prompts.
    #[must_use]
    pub fn next_prompt(&self) -> Option<usize> {
        let is_worth_it = self.reports.iter().all(|report| report.positions.is_some());
        (is_worth_it && self.reports.len() < PROMPTS.len()).then_some(self.reports.len())
    }

    /// The reading that the answers give.
    #[must_use]
    pub fn reading(self) -> Reading {
        let listed = self.listed.unwrap_or_default();
        // Different engines behind one URL may have given these answers. A field on which the answers differ counts as
        // not known.
        let same = |of: fn(&CompletionReport) -> Option<&str>| {
            let mut values = self.reports.iter().filter_map(of);
            let first = values.next()?;
            values.all(|other| other == first).then(|| Arc::from(first))
        };
        let is_whole =
            self.reports.len() == PROMPTS.len() && self.reports.iter().all(|report| report.positions.is_some());
        let prompts = || self.reports.iter().map(|report| report.positions.clone().unwrap_or_default()).collect();
        Reading {
            model: same(|report| report.model.as_deref()),
            root: listed.root.map(Arc::from),
            max_model_len: listed.max_model_len,
            fingerprint: same(|report| report.fingerprint.as_deref()),
            canary: is_whole.then(|| Canary { prompts: prompts() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{Position, Token};

    fn told(model: &str, logprob: Option<f64>) -> CompletionReport {
        let position = |logprob| Position(vec![Token::new(b"a", logprob).unwrap()]);
        CompletionReport {
            model: Some(model.to_owned()),
            fingerprint: None,
            positions: logprob.map(|one| vec![position(one)]),
        }
    }

    #[test]
    fn a_round_asks_each_prompt_once_or_one_if_nothing_can_be_compared() {
        let mut round = Round::default();
        for prompt in 0..PROMPTS.len() {
            assert_eq!(round.next_prompt(), Some(prompt));
            round.tell(told("m", Some(-0.5)));
        }
        assert_eq!(round.next_prompt(), None);
        assert_eq!(round.clone().reading().canary.unwrap().prompts.len(), PROMPTS.len());
        let mut silent = Round::default();
        silent.tell(told("m", None));
        assert_eq!((silent.next_prompt(), silent.reading().canary), (None, None));
    }

    #[test]
    fn answers_that_contradict_each_other_say_nothing() {
        let mut round = Round::default();
        round.list(ModelListing { root: Some("r".to_owned()), max_model_len: Some(8) });
        round.tell(told("m", Some(-0.5)));
        round.tell(told("n", Some(-0.5)));
        let reading = round.reading();
        assert_eq!((reading.model, reading.root.as_deref(), reading.max_model_len), (None, Some("r"), Some(8)));
    }

    #[test]
    fn the_engines_version_counts_and_not_its_hardware() {
        let of = |text: &'static str| engine(Some(text));
        assert_eq!(of("vllm-0.11.0-H100-tp8-bf16-a3b21f94"), Some("vllm-0.11.0"));
        assert_eq!(of("vllm-0.11.0-A100-tp4-bf16-99999999"), Some("vllm-0.11.0"));
        assert_eq!(of("vllm-a3b21f94"), None, "the rest is a hash of the whole configuration");
        assert_eq!(of("fp_44709d6fcb"), None);
        assert_eq!(of("b4567-5dab1a2c"), Some("b4567-5dab1a2c"));
        assert_eq!(of("vllm-"), None);
    }

    #[test]
    fn of_several_nodes_the_one_that_most_agree_with_is_believed() {
        let of = |root: &str| Reading { root: Some(root.into()), ..Reading::default() };
        assert_eq!(most_told(&[], 0.1), None);
        assert_eq!(most_told(&[of("a"), of("b"), of("b")], 0.1), Some(&of("b")));
        assert_eq!(most_told(&[of("b"), of("a")], 0.1), Some(&of("b")), "of equals the first counts");
    }
}
