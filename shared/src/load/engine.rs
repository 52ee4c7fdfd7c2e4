//! Reads the load of an inference engine from its metrics page. Takes the page in pieces, returns how many requests
//! wait and run, how full the KV cache is, and the load that follows. Called by the DNS node's scraper.
//!
//! Engines write one series for each of their processes, with labels such as `engine` and `model_name`. Numbers of
//! requests are added up over the processes; for the use of the cache, the mean is taken. A missing series means that
//! the value is unknown, never 0.

use std::collections::{BTreeMap, BTreeSet};

use super::exposition::{Page, PageError, Sample};
use super::{Amount, requests};
use crate::rules::{MetricsOf, Ratio, Series};

/// How many waiting requests, in thousandths, make one engine full.
const WAITING_WHEN_FULL: Amount = 5_000;
/// The use of the KV cache at which an engine is full, in hundredths. Beyond that, engines begin to preempt requests.
const KV_WHEN_FULL: u64 = 80;

/// What a metrics page reports about an endpoint. Values that the page doesn't report are `None`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EngineReading {
    /// Requests that wait.
    pub waiting: Option<Amount>,
    /// Requests that are being served.
    pub running: Option<Amount>,
    /// The used part of the KV cache, the mean of all engines.
    pub kv: Option<Ratio>,
    /// How many engines the page describes; at least 1.
    pub engines: u32,
    /// A counter that rises while the engine makes tokens, and restarts at 0 with the engine.
    pub progress: Option<u64>,
    /// Whether `running` also counts the requests that wait.
    pub running_has_waiting: bool,
}

impl EngineReading {
    /// The load: the highest of three ratios, each 1 when the endpoint is full: waiting requests, use of the KV cache,
    /// and requests in flight per capacity. `None` if the page reports none of them.
    ///
    /// ```
    /// use bailiwick_rules::load::EngineReading;
    /// use bailiwick_rules::rules::Ratio;
    /// let (waiting, kv) = (Some(2_000), Some(Ratio(600_000)));
    /// let reading = EngineReading { waiting, kv, engines: 1, ..Default::default() };
    /// assert_eq!(reading.load(None), Some(Ratio(750_000)), "0.6 of 0.8 (cache) is more than 2 of 5 (waiting)");
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

    /// Requests that are waiting or being served; `None` if the page doesn't report how many are being served.
    #[must_use]
    pub fn in_flight(&self) -> Option<Amount> {
        let waiting = self.waiting.unwrap_or(0);
        self.running.map(|running| match self.running_has_waiting {
            true => running.max(waiting),
            false => running.saturating_add(waiting),
        })
    }
}

/// Reads the metrics page of one endpoint, piece by piece.
#[derive(Clone, Debug)]
pub struct EnginePage {
    roles: Roles,
    page: Page,
}

impl EnginePage {
    /// Starts to read a page of this kind of engine.
    #[must_use]
    pub fn new(of: &MetricsOf) -> Self {
        let roles = Roles::of(of);
        let names = roles.all().map(|series| series.name.clone()).collect::<BTreeSet<_>>();
        Self { roles, page: Page::new(names.into_iter().collect()) }
    }

    /// Takes the next piece of the page.
    ///
    /// # Errors
    /// When the page can't be used. The caller needn't read the rest of the page then.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), PageError> {
        self.page.push(piece)
    }

    /// Ends the page and returns the reading. The page's `Content-Type` decides whether it `is_open_metrics`.
    ///
    /// # Errors
    /// When the end of the page is missing.
    pub fn finish(self, is_open_metrics: bool) -> Result<EngineReading, PageError> {
        let names: Vec<String> = self.page.names().to_vec();
        let samples = self.page.finish(is_open_metrics)?;
        Ok(self.roles.reading(&names, &samples))
    }
}

/// The series of an engine by their meaning. If several names are listed for one meaning, the first one counts that the
/// page has: engines rename series, and some versions write both the old and the new name.
#[derive(Clone, Debug, Default)]
struct Roles {
    waiting: Vec<Series>,
    running: Vec<Series>,
    kv: Vec<Series>,
    progress: Vec<Series>,
    running_has_waiting: bool,
    /// Whether several processes ([`RANKS`]) serve one request together and each of them counts the request.
    counts_ranks: bool,
}

impl Roles {
    /// The series that a kind of engine writes.
    fn of(of: &MetricsOf) -> Self {
        let names = |names: &[&str]| names.iter().map(|name| plain(name)).collect();
        match of {
            MetricsOf::Vllm => Self {
                // Requests with the reason `deferred` don't wait for room, but for something else.
                waiting: vec![
                    Series {
                        labels: [("reason".to_owned(), "capacity".to_owned())].into(),
                        ..plain("vllm:num_requests_waiting_by_reason")
                    },
                    plain("vllm:num_requests_waiting"),
                ],
                running: names(&["vllm:num_requests_running"]),
                // The second name is that of versions before vLLM 0.9.
                kv: names(&["vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"]),
                progress: names(&["vllm:iteration_tokens_total_count", "vllm:generation_tokens_total"]),
                ..Self::default()
            },
            MetricsOf::Sglang => Self {
                waiting: names(&["sglang:num_queue_reqs"]),
                running: names(&["sglang:num_running_reqs"]),
                kv: names(&["sglang:token_usage"]),
                // The second series rises only when a request ends.
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
                let to_vec = |series: &Option<Series>| series.iter().cloned().collect();
                Self {
                    waiting: to_vec(&named.waiting),
                    running: to_vec(&named.running),
                    kv: to_vec(&named.kv),
                    progress: to_vec(&named.progress),
                    ..Self::default()
                }
            }
        }
    }

    /// All series that are read.
    fn all(&self) -> impl Iterator<Item = &Series> {
        self.waiting.iter().chain(&self.running).chain(&self.kv).chain(&self.progress)
    }

    /// Makes the reading from the samples of a page. `names` are the series' names, by [`Sample::name`].
    fn reading(&self, names: &[String], samples: &[Sample]) -> EngineReading {
        // The values of the first series of a role that the page has, if all of them are amounts.
        let first_of = |role: &[Series]| {
            let values_of_each = role.iter().map(|series| self.values(series, names, samples));
            let mut present = values_of_each.filter(|values| !values.is_empty());
            present.find(|values| values.iter().all(|value| is_amount(*value)))
        };
        let (waiting, running, kv) = (first_of(&self.waiting), first_of(&self.running), first_of(&self.kv));
        let kv = kv.filter(|values| values.iter().all(|value| *value <= 1.0));
        let engines = [&waiting, &running, &kv].into_iter().flatten().map(Vec::len).max().unwrap_or(1);
        #[allow(clippy::cast_precision_loss)] // at most some thousands
        let mean = |values: &Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
        EngineReading {
            waiting: waiting.map(|values| thousandths(&values)),
            running: running.map(|values| thousandths(&values)),
            kv: kv.as_ref().map(mean).and_then(Ratio::from_number),
            engines: u32::try_from(engines).unwrap_or(u32::MAX),
            progress: first_of(&self.progress).map(|values| thousandths(&values) / 1_000),
            running_has_waiting: self.running_has_waiting,
        }
    }

    /// The values of a series, one per process. Processes that count the same requests ([`RANKS`]) give one value:
    /// their highest.
    fn values(&self, series: &Series, names: &[String], samples: &[Sample]) -> Vec<f64> {
        let has_label = |sample: &&Sample, (label, value): (&String, &String)| sample.label(label) == Some(value);
        // SGLang writes the total with an empty label `priority`, and beside it the requests of each priority.
        let is_of_series = |sample: &&Sample| {
            names.get(sample.name).is_some_and(|name| *name == series.name)
                && series.labels.iter().all(|label| has_label(sample, label))
                && !(self.counts_ranks && sample.label("priority").is_some_and(|priority| !priority.is_empty()))
        };
        let mut by_process: BTreeMap<Vec<(&str, &str)>, f64> = BTreeMap::new();
        for sample in samples.iter().filter(is_of_series) {
            let labels = sample.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            let labels = labels.filter(|(name, _)| !(self.counts_ranks && RANKS.contains(name))).collect();
            let value = by_process.entry(labels).or_insert(sample.value);
            // A NaN has to be kept, so that the series is rejected; `f64::max` would drop it.
            if sample.value.is_nan() || sample.value > *value {
                *value = sample.value;
            }
        }
        by_process.into_values().collect()
    }
}

/// Labels that tell processes of one engine apart. These processes serve every request together, so each of them counts
/// all requests.
const RANKS: [&str; 6] = ["tp_rank", "pp_rank", "moe_ep_rank", "moe_dp_rank", "attn_cp_rank", "attn_tp_rank"];

/// A series that is chosen by its name alone.
fn plain(name: &str) -> Series {
    Series { name: name.to_owned(), labels: BTreeMap::new() }
}

/// Whether a value can be a number of requests or a ratio.
fn is_amount(value: f64) -> bool {
    value.is_finite() && value >= 0.0
}

/// The sum of the values, in thousandths. A sum that is too large for [`Amount`] becomes the largest amount.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a cast of floats saturates
fn thousandths(values: &[f64]) -> Amount {
    libm::round(values.iter().sum::<f64>() * 1_000.0) as Amount
}

#[cfg(test)]
mod tests;
