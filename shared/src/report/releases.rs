//! What endpoints run, as a node reports it. Holds the JSON that `/v1/health` carries as `releases` of an endpoint, by
//! the clients' name of the model. Written by the DNS node. The edge combines such reports of several nodes.
//!
//! ```json
//! { "chat-large": { "model": "llama", "root": "x/llama-fp8", "max_model_len": 131072,
//!   "fingerprint": "vllm-0.11.0-H100-tp8-bf16-a3b21f94", "canary": "AQQB…", "age_ms": 81200,
//!   "interval_ms": 3600000 } }
//! ```

use serde::{Deserialize, Serialize};

use super::{FRESH_INTERVALS, Received, RegionReport};
use crate::release::{EndpointReading, Reading, most_told};
use crate::rules::Canary;
use crate::table::{RegionIndex, ReleaseIndex, Table};
use crate::time::Timestamp;

/// What one node reads of what an endpoint runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseReport {
    /// The model's name, as the endpoint answers it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Where the weights come from, such as a repository or a path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// The longest context, in tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_model_len: Option<u64>,
    /// The engine's fingerprint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// The canary: a record of the likeliest tokens of the answers to fixed prompts, encoded as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<String>,
    /// Why the last reading failed, or what it couldn't read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Milliseconds since the last good reading; `null` before the first.
    pub age_ms: Option<u64>,
    /// Milliseconds between readings.
    pub interval_ms: u64,
}

impl ReleaseReport {
    /// The report of a reading.
    #[must_use]
    pub fn of(reading: &Reading) -> Self {
        let text = |text: &Option<std::sync::Arc<str>>| text.as_deref().map(str::to_owned);
        Self {
            model: text(&reading.model),
            root: text(&reading.root),
            max_model_len: reading.max_model_len,
            fingerprint: text(&reading.fingerprint),
            canary: reading.canary.as_ref().map(ToString::to_string),
            ..Self::default()
        }
    }

    /// What the endpoint said.
    #[must_use]
    pub fn reading(&self) -> Reading {
        let text = |text: &Option<String>| text.as_deref().map(std::sync::Arc::from);
        Reading {
            model: text(&self.model),
            root: text(&self.root),
            max_model_len: self.max_model_len,
            fingerprint: text(&self.fingerprint),
            canary: self.canary.as_deref().and_then(Canary::parse),
        }
        .bounded()
    }

    /// Whether a reading of that age counts. An endpoint that hasn't been read for long may run anything by now.
    #[must_use]
    pub fn is_fresh(age_ms: u64, interval_ms: u64) -> bool {
        age_ms <= FRESH_INTERVALS.saturating_mul(interval_ms)
    }

    /// Whether this reading counts at the time `now`. `of_region` is the report of the region that it belongs to, which
    /// arrived at `at`.
    fn counts(&self, of_region: &RegionReport, at: Timestamp, now: Timestamp) -> bool {
        let silence = now.since(at).0;
        let is_heard = silence <= FRESH_INTERVALS.saturating_mul(of_region.interval_ms);
        is_heard && self.age_ms.is_some_and(|age| Self::is_fresh(age.saturating_add(silence), self.interval_ms))
    }
}

/// The readings of every endpoint, from the reports of several nodes. Of each endpoint the reading counts that most
/// other fresh readings agree with.
pub(super) fn fresh_readings(table: &Table, reports: &[Received], now: Timestamp) -> Vec<EndpointReading> {
    let mut endpoint_readings = Vec::new();
    if table.releases().is_empty() {
        return endpoint_readings;
    }
    for (index, region) in table.regions().iter().enumerate() {
        for (endpoint, (id, _)) in region.endpoints.iter().enumerate() {
            for (position, release) in table.releases().iter().enumerate() {
                let fresh = reports.iter().filter_map(|received| {
                    let of_region = received.report.regions.get(region.id.as_str())?;
                    let report = of_region.endpoints.get(id.as_str())?.releases.get(&release.model)?;
                    report.counts(of_region, received.at, now).then(|| report.reading())
                });
                let readings: Vec<Reading> = fresh.collect();
                let (region, release_index) = (RegionIndex::new(index), ReleaseIndex::new(position));
                endpoint_readings.extend(
                    most_told(&readings, release.rule.tolerance).cloned().map(|reading| EndpointReading {
                        region,
                        endpoint,
                        release: release_index,
                        reading,
                    }),
                );
            }
        }
    }
    endpoint_readings
}
