//! Observations: counts that Workers make and DNS nodes add up. Takes counts of requests, attempts, tokens and times;
//! returns their sums, the requests in flight and the demand. Used by the Worker, which makes a [`Batch`], and by the
//! node's API, which adds the batch to its [`Sums`]. An isolate is one instance of the Worker; the platform runs
//! several, which share no memory.
//!
//! Observations hold no key, address, id or text of a request, only counts. Labels are names of the rules and fixed
//! words, so their number is bounded by the rules.

mod arms;
mod batch;
mod histogram;
mod recent;
mod slots;
mod sums;
mod windows;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{EndpointId, RegionId, ServiceId};

pub use arms::{ArmSum, ArmSums, StepSums};
pub use batch::{ArmCounts, Batch, InFlight, Malformed, Observation, OrderDemand};
pub use histogram::{Histogram, MAX_INDEX, MIN_INDEX};
pub use sums::{AddOutcome, Refusal, Sums};
pub use windows::{BUCKETS, Cell, CellKey, EXPONENTS, GRACE, LostCounts, MAX_CELLS, OUTCOMES, Window, sum};

/// The longest interval between two batches of one isolate while it has traffic, in milliseconds.
pub const INTERVAL_MS: u64 = 5_000;

/// The label for names that the rules don't have, and for everything beyond the allowed number of labels.
pub const OTHER: &str = "other";

/// The labels of one set of [`Counts`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Key {
    /// The service.
    pub service: ServiceId,
    /// The jurisdictions of the clients, joined by `+`; `none` for a country of no jurisdiction, `unknown` without one.
    pub clients: String,
    /// The region. Absent for a request that was sent to no region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<RegionId>,
    /// The endpoint. Absent for a request that was sent to no endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<EndpointId>,
    /// The model, by the client's name if the rules have this name, else [`OTHER`]. Absent if the request names no
    /// model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The service tier of the tenant, if the tenant has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// The arm of a rollout, if there is a rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arm: Option<String>,
}

/// How often each word was counted.
pub type ByWord = BTreeMap<String, u64>;

/// The counts of one key.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Requests, by outcome.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: ByWord,
    /// Attempts, by outcome.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attempts: ByWord,
    /// Answers, by the reason why the model stopped.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub finish: ByWord,
    /// Tokens of prompts, as endpoints reported them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub tokens_in: u64,
    /// Tokens of answers, as endpoints reported them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub tokens_out: u64,
    /// The sum of the times that attempts were in flight, in milliseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub busy_ms: u64,
    /// For each streamed answer: the time from sending the request to the first content.
    #[serde(default, skip_serializing_if = "Histogram::is_empty")]
    pub first_token: Histogram,
    /// For each streamed answer: the mean time between two pieces of content.
    #[serde(default, skip_serializing_if = "Histogram::is_empty")]
    pub between_tokens: Histogram,
    /// For each request: the time from its arrival to the end of its answer.
    #[serde(default, skip_serializing_if = "Histogram::is_empty")]
    pub total: Histogram,
    /// Of an arm of a rollout: the times of streamed answers by the length of the request ([`length_class`]).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub by_length: BTreeMap<String, Timing>,
}

/// The times of streamed answers.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Timing {
    /// From sending the request to the first content.
    #[serde(default, skip_serializing_if = "Histogram::is_empty")]
    pub first_token: Histogram,
    /// The mean time between two pieces of content.
    #[serde(default, skip_serializing_if = "Histogram::is_empty")]
    pub between_tokens: Histogram,
}

/// The most classes of lengths.
const MAX_LENGTHS: usize = 8;

/// The class of a request by the bytes of its body. Four bytes are about one token. Bytes, and not tokens as an
/// endpoint counts them, so that the same request is of the same class in both arms of a rollout.
#[must_use]
pub fn length_class(bytes: usize) -> &'static str {
    match bytes >> 10 {
        0..4 => "4k",
        4..16 => "16k",
        16..64 => "64k",
        64..256 => "256k",
        _ => "more",
    }
}

impl Counts {
    /// Adds the counts of another time or another isolate.
    pub fn add(&mut self, other: &Self) {
        for (sums, more) in [
            (&mut self.requests, &other.requests),
            (&mut self.attempts, &other.attempts),
            (&mut self.finish, &other.finish),
        ] {
            for (word, count) in more {
                add_word(sums, word, *count);
            }
        }
        for (sum, more) in [
            (&mut self.tokens_in, other.tokens_in),
            (&mut self.tokens_out, other.tokens_out),
            (&mut self.busy_ms, other.busy_ms),
        ] {
            *sum = sum.saturating_add(more);
        }
        self.first_token.merge(&other.first_token);
        self.between_tokens.merge(&other.between_tokens);
        self.total.merge(&other.total);
        for (length, more) in &other.by_length {
            // If there are too many classes, the times are counted without a length.
            if self.by_length.len() < MAX_LENGTHS || self.by_length.contains_key(length) {
                let sum = self.by_length.entry(length.clone()).or_default();
                sum.first_token.merge(&more.first_token);
                sum.between_tokens.merge(&more.between_tokens);
            }
        }
    }

    /// What is left without the counts of an earlier time.
    #[must_use]
    pub fn less(&self, earlier: &Self) -> Self {
        let words = |words: &ByWord, earlier: &ByWord| {
            let left = |(word, count): (&String, &u64)| {
                let left = count.saturating_sub(earlier.get(word).copied().unwrap_or(0));
                (left > 0).then(|| (word.clone(), left))
            };
            words.iter().filter_map(left).collect()
        };
        let of_length = |(length, timing): (&String, &Timing)| {
            let none = Timing::default();
            let earlier = earlier.by_length.get(length).unwrap_or(&none);
            let first_token = timing.first_token.less(&earlier.first_token);
            (
                length.clone(),
                Timing { first_token, between_tokens: timing.between_tokens.less(&earlier.between_tokens) },
            )
        };
        Self {
            requests: words(&self.requests, &earlier.requests),
            attempts: words(&self.attempts, &earlier.attempts),
            finish: words(&self.finish, &earlier.finish),
            tokens_in: self.tokens_in.saturating_sub(earlier.tokens_in),
            tokens_out: self.tokens_out.saturating_sub(earlier.tokens_out),
            busy_ms: self.busy_ms.saturating_sub(earlier.busy_ms),
            first_token: self.first_token.less(&earlier.first_token),
            between_tokens: self.between_tokens.less(&earlier.between_tokens),
            total: self.total.less(&earlier.total),
            by_length: self.by_length.iter().map(of_length).collect(),
        }
    }

    /// Counts a word once.
    pub fn bump(words: &mut ByWord, word: &str) {
        add_word(words, word, 1);
    }
}

/// How many different words of one kind are counted. Further words count as [`OTHER`].
const MAX_WORDS: usize = 64;

/// Adds a count to that of a word.
fn add_word(words: &mut ByWord, word: &str, count: u64) {
    let word = if words.contains_key(word) || words.len() < MAX_WORDS { word } else { OTHER };
    match words.get_mut(word) {
        Some(sum) => *sum = sum.saturating_add(count),
        None => {
            words.insert(word.to_owned(), count);
        }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde asks for a reference
fn is_zero(count: &u64) -> bool {
    *count == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_added_up_by_length_and_the_number_of_lengths_is_bounded() {
        let classes = [0, 4_095, 4_096, 16_384, 65_535, 65_536, 262_144].map(length_class);
        assert_eq!(classes, ["4k", "4k", "16k", "64k", "64k", "256k", "more"]);
        let of = |length: &str| {
            let mut counts = Counts::default();
            counts.first_token.count(7);
            counts.by_length.entry(length.to_owned()).or_default().first_token.count(7);
            counts
        };
        let mut sum = of("4k");
        for length in (0..20).map(|nth| format!("{nth}")).chain(["4k".to_owned()]) {
            sum.add(&of(&length));
        }
        let by_length = &sum.by_length;
        assert_eq!((sum.first_token.len(), by_length["4k"].first_token.len(), by_length.len()), (22, 2, MAX_LENGTHS));
        // A Worker of an earlier version tells none.
        let text = serde_json::to_string(&Counts { by_length: BTreeMap::new(), ..sum }).unwrap();
        assert!(!text.contains("by_length") && serde_json::from_str::<Counts>(&text).unwrap().by_length.is_empty());
    }
}
