//! The fields of the rules that say where a node reads how full an endpoint is. Read by [`super::read`]; used by
//! `load`, which makes a reading from a metrics page, and by the DNS node, which fetches the page.

use std::collections::BTreeMap;

use schemars::JsonSchema;

use super::HttpProbe;
use crate::time::Millis;

/// Where the load of an endpoint is read: a metrics page in Prometheus's text format.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadSource {
    /// Whose series the page has.
    pub engine: MetricsOf,
    /// What is fetched.
    pub http: HttpProbe,
    /// Time between the starts of two readings.
    pub interval: Millis,
    /// How long one reading may take.
    pub timeout: Millis,
}

impl LoadSource {
    /// How long a reading is fresh: two readings may be missed.
    #[must_use]
    pub fn patience(&self) -> Millis {
        Millis(3 * self.interval.0 + self.timeout.0)
    }

    /// Whether its page says a load only of an endpoint whose capacity is known.
    #[must_use]
    pub fn needs_capacity(&self) -> bool {
        matches!(&self.engine, MetricsOf::Prometheus(series) if series.waiting.is_none() && series.kv.is_none())
    }
}

/// Whose series a metrics page has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetricsOf {
    /// vLLM.
    Vllm,
    /// SGLang, started with `--enable-metrics`.
    Sglang,
    /// Text Generation Inference.
    Tgi,
    /// `trtllm-serve` of TensorRT-LLM.
    TrtLlm,
    /// NVIDIA Dynamo.
    Dynamo,
    /// Any other program, by these series.
    Prometheus(Box<NamedSeries>),
}

impl MetricsOf {
    /// Its `type` in the rules.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Vllm => "vllm",
            Self::Sglang => "sglang",
            Self::Tgi => "tgi",
            Self::TrtLlm => "trtllm",
            Self::Dynamo => "dynamo",
            Self::Prometheus(_) => "prometheus",
        }
    }
}

/// The series by which the load of any program is read. At least one of `waiting`, `running` and `kv` is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamedSeries {
    /// Requests that wait.
    pub waiting: Option<Series>,
    /// Requests that are being served.
    pub running: Option<Series>,
    /// The used part of the cache of keys and values, from 0 to 1.
    pub kv: Option<Series>,
    /// A counter that rises while tokens are made.
    pub progress: Option<Series>,
}

/// The samples of one name that have these labels. Counts of several are added up; of parts the mean is taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Series {
    /// The exact name, such as `queue_depth`.
    pub name: String,
    /// Labels that a sample has to have; it may have others too.
    #[schemars(default)]
    pub labels: BTreeMap<String, String>,
}
