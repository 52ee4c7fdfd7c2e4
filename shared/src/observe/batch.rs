//! A batch: the counts of one isolate since its last batch, as JSON. Written by the Worker, read by the node's `POST
//! /v1/observations`. An isolate is one instance of the Worker; the platform runs several, which share no memory.

use serde::{Deserialize, Serialize};

use super::{ByWord, Counts, Key, MAX_LENGTHS};
use crate::id::{EndpointId, RegionId, ServiceId};
use crate::time::Timestamp;

/// The only version of the format.
const VERSION: u8 = 1;
/// The most regions of one order.
const MAX_REGIONS: usize = 1_024;
/// The longest word of an outcome, in bytes.
const MAX_WORD: usize = 40;
/// The longest label, such as a model's name, in bytes.
const MAX_LABEL: usize = 256;
/// The longest span of a batch, in milliseconds.
const MAX_SPAN_MS: u64 = 600_000;

/// The counts of one isolate since its last batch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Batch {
    version: u8,
    /// A random name of the isolate, in hexadecimal digits. With it a node notices lost batches; nothing about clients
    /// can be learned from it.
    pub isolate: String,
    /// Increases by one with each batch of an isolate.
    pub sequence: u64,
    /// When the batch was made.
    pub at: Timestamp,
    /// The time that the batch covers, in milliseconds.
    pub span_ms: u64,
    /// The revision of the rules that the isolate follows.
    pub revision: u64,
    /// The number of requests without counts, because there were too many keys.
    #[serde(default)]
    pub uncounted: u64,
    /// The counts.
    #[serde(default)]
    pub counts: Vec<Observation>,
    /// The requests in flight when the batch was made.
    #[serde(default)]
    pub in_flight: Vec<InFlight>,
    /// The demand of clients, by the order of their fences.
    #[serde(default)]
    pub demand: Vec<OrderDemand>,
    /// What rollouts are judged by. Absent without a rollout.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arms: Vec<ArmCounts>,
}

/// What one arm of a rollout is judged by. A tenant adds a bounded number of requests to it, so that no tenant decides
/// alone.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ArmCounts {
    /// The service.
    pub service: ServiceId,
    /// The region.
    pub region: RegionId,
    /// `old` or `new`.
    pub arm: String,
    /// Attempts, reasons why the model stopped, and times. The other counts are empty.
    pub counts: Counts,
}

/// The counts of one key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Observation {
    /// The labels.
    #[serde(flatten)]
    pub key: Key,
    /// The counts.
    #[serde(flatten)]
    pub counts: Counts,
}

/// The requests in flight at an endpoint.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct InFlight {
    /// The region.
    pub region: RegionId,
    /// The endpoint.
    pub endpoint: EndpointId,
    /// The number of requests.
    pub count: u32,
}

/// The demand of the clients whose fence has the same order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OrderDemand {
    /// The service.
    pub service: ServiceId,
    /// The fence in base order, which doesn't depend on health or load.
    pub order: Vec<RegionId>,
    /// The sum of the times that the clients' requests were in flight, in milliseconds.
    pub busy_ms: u64,
}

/// Why a text isn't a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Malformed(String);

impl core::fmt::Display for Malformed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for Malformed {}

impl Batch {
    /// The most keys of a batch. Further requests are counted under coarser keys, or not at all.
    pub const MAX_KEYS: usize = 512;
    /// The most orders of regions whose demand is in a batch.
    pub const MAX_ORDERS: usize = 256;
    /// The most arms of rollouts in a batch: two of each region of each rollout under way.
    pub const MAX_ARMS: usize = 128;

    /// Makes an empty batch. A span that is too long is cut to the longest that a batch may cover.
    ///
    /// ```
    /// use bailiwick_rules::observe::Batch;
    /// use bailiwick_rules::time::Timestamp;
    /// let batch = Batch::new("00000000000000aa".to_owned(), 1, Timestamp(1_796_104_800_000), 5_000, 7);
    /// let text = serde_json::to_vec(&batch).unwrap();
    /// assert_eq!(Batch::read(&text).unwrap(), batch);
    /// assert!(Batch::read(b"{}").unwrap_err().to_string().contains("missing field"));
    /// ```
    #[must_use]
    pub fn new(isolate: String, sequence: u64, at: Timestamp, span_ms: u64, revision: u64) -> Self {
        Self {
            version: VERSION,
            isolate,
            sequence,
            at,
            span_ms: span_ms.min(MAX_SPAN_MS),
            revision,
            uncounted: 0,
            counts: Vec::new(),
            in_flight: Vec::new(),
            demand: Vec::new(),
            arms: Vec::new(),
        }
    }

    /// Whether the batch has no counts.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let lists = [self.counts.len(), self.demand.len(), self.in_flight.len(), self.arms.len()];
        lists.iter().all(|len| *len == 0) && self.uncounted == 0
    }

    /// Reads a batch, and checks that all its lengths are within bounds.
    ///
    /// # Errors
    /// What is wrong with the batch.
    pub fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let batch: Self = serde_json::from_slice(bytes).map_err(|error| Malformed(error.to_string()))?;
        match batch.fault() {
            Some(fault) => Err(Malformed(fault)),
            None => Ok(batch),
        }
    }

    /// What is wrong with the batch, if anything.
    fn fault(&self) -> Option<String> {
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if self.version != VERSION {
            return Some(format!("version: is {}; this node reads {VERSION}", self.version));
        }
        if !(8..=64).contains(&self.isolate.len()) || !self.isolate.bytes().all(is_hex) {
            return Some("isolate: isn't 8 to 64 hexadecimal digits".to_owned());
        }
        if self.sequence == 0 {
            return Some("sequence: is 0; the first batch is number 1".to_owned());
        }
        if self.span_ms > MAX_SPAN_MS {
            return Some(format!("span_ms: is {}; a batch covers at most {MAX_SPAN_MS}", self.span_ms));
        }
        for (name, len, most) in [
            ("counts", self.counts.len(), Self::MAX_KEYS),
            ("in_flight", self.in_flight.len(), Self::MAX_KEYS),
            ("demand", self.demand.len(), Self::MAX_ORDERS),
            ("arms", self.arms.len(), Self::MAX_ARMS),
        ] {
            if len > most {
                return Some(format!("{name}: has {len} entries; a batch has at most {most}"));
            }
        }
        if self.demand.iter().any(|demand| demand.order.len() > MAX_REGIONS || demand.order.is_empty()) {
            return Some(format!("demand: an order has 1 to {MAX_REGIONS} regions"));
        }
        let mut arms = self.arms.iter().enumerate();
        if let Some((at, _)) = arms.find(|(_, arm)| !has_words(&arm.counts)) {
            return Some(format!("arms/{at}: {NOT_A_WORD}"));
        }
        let lengths = self.arms.iter().map(|arm| arm.counts.by_length.len()).max().unwrap_or(0);
        if lengths > MAX_LENGTHS {
            return Some(format!("arms: one has {lengths} classes of lengths; there are at most {MAX_LENGTHS}"));
        }
        if self.counts.iter().any(|observation| !observation.counts.by_length.is_empty()) {
            return Some("counts: only arms are counted by length".to_owned());
        }
        let mut observations = self.counts.iter().enumerate();
        observations.find_map(|(at, observation)| Some(format!("counts/{at}: {}", observation.fault()?)))
    }
}

/// What is wrong with a text that isn't a word.
const NOT_A_WORD: &str = "a word has 1 to 40 lower-case letters, digits and underscores";

/// Whether all words of the counts are words.
fn has_words(counts: &Counts) -> bool {
    let is_word = |word: &String| {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        (1..=MAX_WORD).contains(&word.len()) && word.bytes().all(fits)
    };
    let by_word: [&ByWord; 3] = [&counts.requests, &counts.attempts, &counts.finish];
    by_word.into_iter().flat_map(ByWord::keys).chain(counts.by_length.keys()).all(is_word)
}

impl Observation {
    /// What is wrong with the words and labels, if anything.
    fn fault(&self) -> Option<&'static str> {
        if !has_words(&self.counts) {
            return Some(NOT_A_WORD);
        }
        let Key { clients, model, tier, arm, .. } = &self.key;
        let labels = [Some(clients), model.as_ref(), tier.as_ref(), arm.as_ref()];
        let is_label = |label: &String| label.len() <= MAX_LABEL && !label.chars().any(char::is_control);
        (!labels.into_iter().flatten().all(is_label)).then_some("a label is one line of at most 256 bytes")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A valid batch.
    fn valid() -> Value {
        json!({
            "version": 1, "isolate": "00112233445566aa", "sequence": 3, "at": "2026-12-01T06:00:00Z", "span_ms": 5000,
            "revision": 7,
            "counts": [{ "service": "chat", "clients": "eu", "region": "fra", "endpoint": "fra-1", "model": "m",
                         "requests": { "ok": 2 }, "attempts": { "committed": 2 }, "finish": { "stop": 2 },
                         "tokens_in": 10, "tokens_out": 20, "busy_ms": 900,
                         "first_token": { "sum_us": 5, "buckets": [[0, 1]] } }],
            "in_flight": [{ "region": "fra", "endpoint": "fra-1", "count": 1 }],
            "demand": [{ "service": "chat", "order": ["fra", "par"], "busy_ms": 900 }],
        })
    }

    #[test]
    fn a_batch_is_written_as_it_was_read_and_unknown_fields_are_ignored() {
        let mut value = valid();
        value["later"] = json!("field");
        let batch = Batch::read(value.to_string().as_bytes()).unwrap();
        assert_eq!(batch.counts[0].counts.tokens_out, 20);
        let written = serde_json::to_value(&batch).unwrap();
        let mut expected = valid();
        expected["uncounted"] = json!(0);
        expected["counts"][0]["first_token"]["zero"] = json!(0);
        assert_eq!(written, expected);
    }

    #[test]
    fn an_invalid_batch_is_refused_with_the_name_of_the_faulty_field() {
        let many = |value: &Value, count| Value::Array(vec![value.clone(); count]);
        let arm = |lengths: &Value| {
            let counts = json!({ "by_length": lengths });
            json!({ "service": "chat", "region": "fra", "arm": "new", "counts": counts })
        };
        let nine: Value = (0..9).map(|nth| (format!("{nth}k"), json!({}))).collect::<serde_json::Map<_, _>>().into();
        let cases: Vec<(&str, Value, &str)> = vec![
            ("version", json!(2), "version: is 2"),
            ("isolate", json!("short"), "isolate: isn't"),
            ("isolate", json!("a client's address"), "isolate: isn't"),
            ("isolate", json!("0".repeat(65)), "isolate: isn't"),
            ("sequence", json!(0), "sequence: is 0"),
            ("sequence", json!(-1), "invalid value"),
            ("span_ms", json!(600_001), "span_ms: is 600001"),
            ("at", json!("yesterday"), "yesterday"),
            ("revision", json!(1.5), "invalid type"),
            ("counts", many(&valid()["counts"][0], 513), "counts: has 513"),
            ("in_flight", many(&valid()["in_flight"][0], 513), "in_flight: has 513"),
            ("demand", many(&valid()["demand"][0], 257), "demand: has 257"),
            ("demand", json!([{ "service": "chat", "order": [], "busy_ms": 1 }]), "demand: an order has"),
            ("counts", json!([{ "service": "chat", "clients": "eu", "requests": { "a b": 1 } }]), "counts/0: a word"),
            ("counts", json!([{ "service": "chat", "clients": "eu", "requests": { "": 1 } }]), "counts/0: a word"),
            ("counts", json!([{ "service": "chat", "clients": "e\nu" }]), "counts/0: a label"),
            ("counts", json!([{ "service": "chat", "clients": "eu", "model": "m".repeat(257) }]), "counts/0: a label"),
            ("counts", json!([{ "service": "chat", "clients": "eu", "by_length": { "4k": {} } }]), "only arms"),
            ("arms", json!([arm(&json!({ "A b": {} }))]), "arms/0: a word"),
            ("arms", json!([arm(&nine)]), "arms: one has 9 classes"),
            ("counts", json!([{ "service": "ch at", "clients": "eu" }]), "ch at"),
            ("counts", json!([{ "service": "chat", "clients": "eu", "tokens_in": -5 }]), "invalid value"),
        ];
        for (field, bad, expected) in cases {
            let mut value = valid();
            value[field] = bad;
            let error = Batch::read(value.to_string().as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{field}: {error}");
        }
        for text in ["", "[]", "null", "{\"version\":1", "\u{0}", &"[".repeat(100_000)] {
            assert!(Batch::read(text.as_bytes()).is_err());
        }
    }
}
