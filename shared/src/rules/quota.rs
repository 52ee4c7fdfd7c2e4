//! The fields of the rules that say how much of a provider's account may be used, and by which tenant: quotas, service
//! tiers, and the limits of tenants. Read by [`super::read`]; used by `quota`, which counts.

use std::collections::BTreeMap;

use schemars::JsonSchema;

use super::{Order, Ratio};
use crate::id::{QuotaId, TierId};
use crate::time::Millis;

/// The quota of a provider's account: what all endpoints that name it may be sent together. It refills continuously.
/// One of `requests` and `tokens` has to be given; the other isn't limited then.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Quota {
    /// How many requests may be sent in `per`.
    #[schemars(default, range(min = 1, max = 1_000_000_000_000u64))]
    pub requests: Option<u64>,
    /// How many tokens may be used in `per`, of prompts and answers together.
    #[schemars(default, range(min = 1, max = 1_000_000_000_000u64))]
    pub tokens: Option<u64>,
    /// The span that both are for, from 1s to 31 days: `1m` by default.
    #[schemars(default = "super::schema::minute")]
    pub per: Millis,
    /// How much may be sent at once, told as the time in which the limit allows it: `1s`, or a tenth of `per` if that
    /// is shorter. At most half of `per`.
    #[schemars(default, with = "Option<Millis>")]
    pub burst: Millis,
    /// How many tokens an answer is expected to have if the request doesn't say how many it may have.
    #[schemars(default = "super::schema::output_default", range(min = 1, max = 10_000_000))]
    pub output_default: u64,
    /// The part of the limit that is never used, from 0 to 0.9: 0.05.
    #[schemars(default = "super::schema::headroom", with = "f64", range(min = 0, max = 0.9))]
    pub headroom: Ratio,
    /// The models that it is for, by the endpoints' names. Absent: any.
    #[schemars(default)]
    pub models: Option<Vec<String>>,
}

/// How important a tenant's requests are when the regions that may serve it are full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ServiceTier {
    /// Lower is more important.
    pub rank: u16,
    /// The load of a region at which it refuses this tier, such as 0.85; above 1 for one that may still queue. When
    /// every region that may serve a tenant refuses its tier, its requests are refused. Absent: never. Nodes
    /// tell the loads, of regions whose endpoints name a source of them.
    #[schemars(default, with = "Option<f64>", range(min = 0.01, max = 100))]
    pub refuse_at: Option<Ratio>,
    /// By what the edge orders regions of one residency tier for these tenants. Absent: as the service says.
    #[schemars(default)]
    pub order: Option<Order>,
}

/// What a tenant may use in a span. It may be used at once, and comes back continuously.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Budget {
    /// How many requests.
    #[schemars(default, range(min = 1, max = 1_000_000_000_000u64))]
    pub requests: Option<u64>,
    /// How many tokens, of prompts and answers together.
    #[schemars(default, range(min = 1, max = 1_000_000_000_000u64))]
    pub tokens: Option<u64>,
    /// The span that both are for, such as `1d`; from 1s to 31 days.
    pub per: Millis,
}

/// The limits of a tenant, beside where it may be processed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TenantLimits {
    /// Its service tier.
    pub tier: Option<TierId>,
    /// How many of its requests may be under way at once in one isolate of the edge.
    pub concurrency: Option<u32>,
    /// What it may use in a span.
    pub budget: Option<Budget>,
    /// The parts of quotas that are kept for it.
    pub reserve: BTreeMap<QuotaId, Ratio>,
}

/// How an endpoint is told the rank of a tenant's service tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "kebab-case")]
pub enum PriorityForm {
    /// The field `priority` of vLLM (with `--scheduling-policy priority`): the rank itself, lower first.
    Vllm,
    /// The field `service_tier` of the OpenAI API: `priority` for rank 0, `default` up to rank 8, `flex` from 9 on.
    #[schemars(rename = "openai")]
    OpenAi,
    /// The header `x-gateway-inference-objective` of llm-d: the name of the tier.
    LlmD,
}
