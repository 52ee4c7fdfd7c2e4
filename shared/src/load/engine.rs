//! Makes a reading of an endpoint from its metrics page. Takes the page in pieces, returns how much waits and runs, how
//! full the cache is, and the load that follows. Called by the DNS node's scraper.
//!
//! Engines write one series for each of their processes, with labels such as `engine` and `model_name`. Counts are
//! added up, of parts the mean is taken. A series that isn't there is unknown, never 0.

use std::collections::{BTreeMap, BTreeSet};

use super::exposition::{Page, PageError, Sample};
use super::{Amount, requests};
use crate::rules::{MetricsOf, Ratio, Series};

/// How many waiting requests make one engine full.
const WAITING_WHEN_FULL: Amount = 5_000;
/// The use of the cache at which an engine is full, in hundredths. Beyond it engines begin to preempt.
const KV_WHEN_FULL: u64 = 80;

/// What a metrics page says of an endpoint. What it doesn't say is `None`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EngineReading {
    /// Requests that wait.
    pub waiting: Option<Amount>,
    /// Requests that are being served.
    pub running: Option<Amount>,
    /// The used part of the cache of keys and values, on average.
    pub kv: Option<Ratio>,
    /// How many engines the page is about; at least 1.
    pub engines: u32,
    /// Counts something that rises while tokens are made, and begins anew when an engine starts.
    pub progress: Option<u64>,
    /// Whether `running` holds those that wait, too.
    pub running_has_waiting: bool,
}

impl EngineReading {
    /// The load: the highest of what waits, what the cache holds, and what is in flight by the endpoint's capacity.
    /// `None` if the page says none of these.
    ///
    /// ```
    /// use bailiwick_rules::load::EngineReading;
    /// use bailiwick_rules::rules::Ratio;
    /// let (waiting, kv) = (Some(2_000), Some(Ratio(600_000)));
    /// let reading = EngineReading { waiting, kv, engines: 1, ..Default::default() };
    /// assert_eq!(reading.load(None), Some(Ratio(750_000)), "2 of 5 wait, and 0.6 of 0.8 are used");
    /// ```
    #[must_use]
    pub fn load(&self, capacity: Option<u32>) -> Option<Ratio> {
        let full = u64::from(self.engines.max(1)) * WAITING_WHEN_FULL;
        let by_waiting = self.waiting.map(|waiting| Ratio::between(waiting, full));
        let by_kv = self.kv.map(|kv| Ratio::between(u64::from(kv.0) * 100, u64::from(Ratio::ONE.0) * KV_WHEN_FULL));
        let in_flight = self.in_flight().zip(capacity);
        let by_capacity = in_flight.map(|(in_flight, capacity)| Ratio::between(in_flight, requests(capacity)));
        by_waiting.max(by_kv).max(by_capacity)
    }

    /// Requests that are waiting or being served; `None` if it isn't known how many are being served.
    #[must_use]
    pub fn in_flight(&self) -> Option<Amount> {
        let waiting = self.waiting.unwrap_or(0);
        self.running.map(|running| match self.running_has_waiting {
            true => running.max(waiting),
            false => running.saturating_add(waiting),
        })
    }
}

/// A metrics page of an endpoint that is being read.
#[derive(Clone, Debug)]
pub struct EnginePage {
    roles: Roles,
    page: Page,
}

impl EnginePage {
    /// The page of an engine.
    #[must_use]
    pub fn new(of: &MetricsOf) -> Self {
        let roles = Roles::of(of);
        let names = roles.all().map(|series| series.name.clone()).collect::<BTreeSet<_>>();
        Self { roles, page: Page::new(names.into_iter().collect()) }
    }

    /// Takes the next piece.
    ///
    /// # Errors
    /// When the page can't be used. No more of it has to be read then.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), PageError> {
        self.page.push(piece)
    }

    /// Ends the page, which says by its type whether it is OpenMetrics.
    ///
    /// # Errors
    /// When the page was cut.
    pub fn finish(self, is_open_metrics: bool) -> Result<EngineReading, PageError> {
        let names: Vec<String> = self.page.names().to_vec();
        let samples = self.page.finish(is_open_metrics)?;
        Ok(self.roles.reading(&names, &samples))
    }
}

/// The series of an engine by what they say. Of several the first that is there counts: engines rename them, and for a
/// while write both.
#[derive(Clone, Debug, Default)]
struct Roles {
    waiting: Vec<Series>,
    running: Vec<Series>,
    kv: Vec<Series>,
    progress: Vec<Series>,
    running_has_waiting: bool,
    /// Whether processes that serve one request together each count it.
    counts_ranks: bool,
}

impl Roles {
    fn of(of: &MetricsOf) -> Self {
        let names = |names: &[&str]| names.iter().map(|name| plain(name)).collect();
        match of {
            MetricsOf::Vllm => Self {
                // Requests that are deferred wait for something else than room.
                waiting: vec![
                    Series {
                        labels: [("reason".to_owned(), "capacity".to_owned())].into(),
                        ..plain("vllm:num_requests_waiting_by_reason")
                    },
                    plain("vllm:num_requests_waiting"),
                ],
                running: names(&["vllm:num_requests_running"]),
                // The second is the name before vLLM 0.9.
                kv: names(&["vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"]),
                progress: names(&["vllm:iteration_tokens_total_count", "vllm:generation_tokens_total"]),
                ..Self::default()
            },
            MetricsOf::Sglang => Self {
                waiting: names(&["sglang:num_queue_reqs"]),
                running: names(&["sglang:num_running_reqs"]),
                kv: names(&["sglang:token_usage"]),
                // The second rises only when a request ends.
                progress: names(&["sglang:realtime_tokens_total", "sglang:generation_tokens_total"]),
                counts_ranks: true,
                ..Self::default()
            },
            MetricsOf::Tgi => Self {
                waiting: names(&["tgi_queue_size"]),
                running: names(&["tgi_batch_current_size"]),
                progress: names(&["tgi_batch_inference_count", "tgi_request_generated_tokens_sum"]),
                ..Self::default()
            },
            MetricsOf::TrtLlm => Self {
                waiting: names(&["trtllm_num_requests_waiting"]),
                running: names(&["trtllm_num_requests_running"]),
                kv: names(&["trtllm_kv_cache_utilization"]),
                progress: names(&["trtllm_generation_tokens_total", "trtllm_num_requests_completed_total"]),
                ..Self::default()
            },
            MetricsOf::Dynamo => Self {
                waiting: names(&["dynamo_frontend_queued_requests"]),
                running: names(&["dynamo_frontend_inflight_requests"]),
                kv: names(&[
                    "dynamo_component_kvstats_gpu_cache_usage_percent",
                    "dynamo_component_gpu_cache_usage_percent",
                ]),
                progress: names(&["dynamo_frontend_output_tokens_total"]),
                running_has_waiting: true,
                ..Self::default()
            },
            MetricsOf::Prometheus(named) => {
                let one = |series: &Option<Series>| series.iter().cloned().collect();
                Self {
                    waiting: one(&named.waiting),
                    running: one(&named.running),
                    kv: one(&named.kv),
                    progress: one(&named.progress),
                    ..Self::default()
                }
            }
        }
    }

    fn all(&self) -> impl Iterator<Item = &Series> {
        self.waiting.iter().chain(&self.running).chain(&self.kv).chain(&self.progress)
    }

    fn reading(&self, names: &[String], samples: &[Sample]) -> EngineReading {
        let found = |role: &[Series]| {
            let found = role.iter().map(|series| self.values(series, names, samples));
            found.filter(|values| !values.is_empty()).find(|values| values.iter().all(|value| is_amount(*value)))
        };
        let (waiting, running, kv) = (found(&self.waiting), found(&self.running), found(&self.kv));
        let kv = kv.filter(|values| values.iter().all(|value| *value <= 1.0));
        let engines = [&waiting, &running, &kv].into_iter().flatten().map(Vec::len).max().unwrap_or(1);
        #[allow(clippy::cast_precision_loss)] // at most some thousands
        let mean = |values: &Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
        EngineReading {
            waiting: waiting.map(|values| thousandths(&values)),
            running: running.map(|values| thousandths(&values)),
            kv: kv.as_ref().map(mean).and_then(Ratio::from_number),
            engines: u32::try_from(engines).unwrap_or(u32::MAX),
            progress: found(&self.progress).map(|values| thousandths(&values) / 1_000),
            running_has_waiting: self.running_has_waiting,
        }
    }

    /// The values of a series: one for each process that counts for itself.
    fn values(&self, series: &Series, names: &[String], samples: &[Sample]) -> Vec<f64> {
        let has = |sample: &&Sample, (label, value): (&String, &String)| sample.label(label) == Some(value);
        let is_it = |sample: &&Sample| {
            names.get(sample.name).is_some_and(|name| *name == series.name)
                && series.labels.iter().all(|label| has(sample, label))
                && !(self.counts_ranks && sample.label("priority").is_some_and(|priority| !priority.is_empty()))
        };
        let mut by_process: BTreeMap<Vec<(&str, &str)>, f64> = BTreeMap::new();
        for sample in samples.iter().filter(is_it) {
            let labels = sample.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            let labels = labels.filter(|(name, _)| !(self.counts_ranks && RANKS.contains(name))).collect();
            let value = by_process.entry(labels).or_insert(sample.value);
            // What isn't a number stays in sight: `f64::max` would hide it.
            if sample.value.is_nan() || sample.value > *value {
                *value = sample.value;
            }
        }
        by_process.into_values().collect()
    }
}

/// Labels of processes that serve each request together, so that each counts all of them.
const RANKS: [&str; 6] = ["tp_rank", "pp_rank", "moe_ep_rank", "moe_dp_rank", "attn_cp_rank", "attn_tp_rank"];

fn plain(name: &str) -> Series {
    Series { name: name.to_owned(), labels: BTreeMap::new() }
}

fn is_amount(value: f64) -> bool {
    value.is_finite() && value >= 0.0
}

/// The sum of counts, in thousandths. One that is beyond all measure is the largest.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a cast of floats saturates
fn thousandths(values: &[f64]) -> Amount {
    libm::round(values.iter().sum::<f64>() * 1_000.0) as Amount
}

#[cfg(test)]
mod tests;
