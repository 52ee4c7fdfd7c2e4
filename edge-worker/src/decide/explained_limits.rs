//! The quotas and limits in an explanation (what the edge would do with a request, and why). Takes this isolate's state
//! of pools (what was taken of each quota), budgets and loads; returns JSON and text. Called by `explain`.
//!
//! A tenant sees only its own limits. Only the operator sees the state of a provider's quota.

use core::fmt::Write;

use bailiwick_rules::quota::{Dimension, write_span};
use bailiwick_rules::rules::Ratio;
use bailiwick_rules::table::{RegionIndex, Table, TenantIndex};
use bailiwick_rules::time::Timestamp;
use serde_json::{Map, Value, json};

use crate::decide::admission;
use crate::decide::quota::{QuotaState, Quotas};

/// The quotas and limits of one explanation. Parts that don't apply are left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ExplainedLimits {
    /// The quotas of the endpoints in the fence (the regions that may process the client).
    quotas: Vec<ExplainedQuota>,
    /// The limits of the tenant.
    limits: Option<ExplainedTenant>,
}

/// The state of one quota in this isolate.
#[derive(Clone, Debug, PartialEq)]
struct ExplainedQuota {
    quota: String,
    /// The endpoints of the fence that share the quota, such as `eu-sweden/azure`.
    endpoints: Vec<String>,
    /// The requests that may be sent at once; `null` if requests aren't limited.
    requests: Option<u64>,
    /// The tokens that may be sent at once; `null` if tokens aren't limited.
    tokens: Option<u64>,
    /// The time until which the quota doesn't allow even a small request. Until then the endpoints are withheld.
    withheld_until: Option<Timestamp>,
}

/// The limits of a tenant.
#[derive(Clone, Debug, PartialEq)]
struct ExplainedTenant {
    tier: Option<ExplainedTier>,
    concurrency: Option<ExplainedConcurrency>,
    budget: Option<ExplainedBudget>,
}

/// The service tier of a tenant.
#[derive(Clone, Debug, PartialEq)]
struct ExplainedTier {
    name: String,
    rank: u16,
    /// The load from which a region refuses the tier; `null` for never.
    refuse_at: Option<Ratio>,
    /// Whether every offered region refuses the tier now.
    refused: bool,
}

/// The tenant's requests in flight, and the most that are allowed.
#[derive(Clone, Debug, PartialEq)]
struct ExplainedConcurrency {
    under_way: u32,
    most: u32,
}

/// The state of a budget.
#[derive(Clone, Debug, PartialEq)]
struct ExplainedBudget {
    requests: Option<ExplainedAmount>,
    tokens: Option<ExplainedAmount>,
}

/// One dimension of a budget.
#[derive(Clone, Debug, PartialEq)]
struct ExplainedAmount {
    limit: u64,
    remaining: u64,
    /// The milliseconds until the budget is full again, if nothing is used.
    full_after_ms: u64,
}

/// The client and the regions that are explained.
pub(crate) struct LimitsQuestion<'a> {
    /// The regions of the fence.
    pub(crate) fence: &'a [RegionIndex],
    /// The offered regions.
    pub(crate) offered: &'a [RegionIndex],
    /// The client's tenant; `None` if the client belongs to none.
    pub(crate) tenant: Option<TenantIndex>,
    /// Whether the operator asks.
    pub(crate) by_operator: bool,
}

impl ExplainedLimits {
    /// The quotas and limits; empty for rules without quotas and limits.
    pub(crate) fn of(
        table: &Table,
        question: &LimitsQuestion<'_>,
        quotas: &mut Quotas,
        load: impl Fn(RegionIndex) -> Option<Ratio>,
        now: Timestamp,
    ) -> Self {
        let state_of = |(id, endpoints): (&str, Vec<String>)| {
            let quota = table.quotas().get(table.quota_named(id)?.get())?;
            let (QuotaState { requests, tokens, .. }, wait) = quotas.standing(quota, now);
            let withheld_until = wait.map(|wait| now.after(wait));
            Some(ExplainedQuota { quota: id.to_owned(), endpoints, requests, tokens, withheld_until })
        };
        let by_quota = if question.by_operator { endpoints_by_quota(table, question.fence) } else { Vec::new() };
        let quota_states = by_quota.into_iter().filter_map(state_of).collect();
        Self { quotas: quota_states, limits: limits_of_tenant(table, question, quotas, load, now) }
    }

    /// The fields to add to a JSON object, each with a comma before it.
    pub(crate) fn to_fields(&self) -> String {
        let quotas: Vec<Value> = self.quotas.iter().map(ExplainedQuota::to_json).collect();
        let fields = [
            ("quotas", (!quotas.is_empty()).then(|| Value::from(quotas))),
            ("limits", self.limits.as_ref().map(ExplainedTenant::to_json)),
        ];
        let field = |(name, value): (&str, Option<Value>)| Some(format!(",\"{name}\":{}", value?));
        fields.into_iter().filter_map(field).collect()
    }

    /// The lines to add to a text.
    pub(crate) fn to_text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = self.write_text(&mut text);
        text
    }

    /// Writes one line for each limit.
    fn write_text(&self, out: &mut String) -> core::fmt::Result {
        for state in &self.quotas {
            let left = [(state.requests, "requests"), (state.tokens, "tokens")];
            let left = left.into_iter().filter_map(|(left, what)| Some(format!("{} {what}", left?)));
            let left = left.collect::<Vec<_>>().join(" and ");
            let at = state.endpoints.join(", ");
            write!(out, "quota      {}: {left} may be sent at once, by this isolate to {at}", state.quota)?;
            match state.withheld_until {
                Some(until) => writeln!(out, "; withheld until {until}")?,
                None => writeln!(out)?,
            }
        }
        let Some(ExplainedTenant { tier, concurrency, budget }) = &self.limits else { return Ok(()) };
        if let Some(ExplainedTier { name, rank, refuse_at, refused }) = tier {
            let mark = refuse_at.map(|mark| format!("refused where every region's load is {mark} or more"));
            let now = if *refused { ": now" } else { "" };
            writeln!(out, "tier       {name} (rank {rank}), {}{now}", mark.as_deref().unwrap_or("never refused"))?;
        }
        if let Some(ExplainedConcurrency { under_way, most }) = concurrency {
            writeln!(out, "at once    {under_way} of {most} requests are under way in this isolate")?;
        }
        let amounts = budget.iter().flat_map(|budget| [(&budget.requests, "requests"), (&budget.tokens, "tokens")]);
        for (amount, what) in amounts {
            let Some(ExplainedAmount { limit, remaining, full_after_ms }) = amount else { continue };
            let span = write_span(bailiwick_rules::time::Millis(*full_after_ms));
            writeln!(out, "budget     {remaining} of {limit} {what} are left; all of them again after {span}")?;
        }
        Ok(())
    }
}

impl ExplainedQuota {
    fn to_json(&self) -> Value {
        json!({ "quota": self.quota, "endpoints": self.endpoints, "requests": self.requests, "tokens": self.tokens,
                "withheld_until": self.withheld_until.map(|until| until.to_string()) })
    }
}

impl ExplainedTenant {
    fn to_json(&self) -> Value {
        let tier = self.tier.as_ref().map(|ExplainedTier { name, rank, refuse_at, refused }| {
            let refuse_at = refuse_at.map(|mark| f64::from(mark.0) / f64::from(Ratio::ONE.0));
            json!({ "name": name, "rank": rank, "refuse_at": refuse_at, "refused": refused })
        });
        let concurrency = self.concurrency.as_ref();
        let concurrency =
            concurrency.map(|ExplainedConcurrency { under_way, most }| json!({ "under_way": under_way, "most": most }));
        let amount = |amount: &ExplainedAmount| {
            let ExplainedAmount { limit, remaining, full_after_ms } = amount;
            json!({ "limit": limit, "remaining": remaining, "full_after_ms": full_after_ms })
        };
        let budget = self.budget.as_ref().map(|ExplainedBudget { requests, tokens }| {
            let amounts = [("requests", requests), ("tokens", tokens)];
            present(amounts.map(|(name, used)| (name, used.as_ref().map(amount))))
        });
        present([("tier", tier), ("concurrency", concurrency), ("budget", budget)])
    }
}

/// A JSON object of the fields that have a value.
fn present<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    let present = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(present.collect::<Map<_, _>>())
}

/// The quotas of a fence's endpoints in the order of their names, each with its endpoints.
fn endpoints_by_quota<'t>(table: &'t Table, fence: &[RegionIndex]) -> Vec<(&'t str, Vec<String>)> {
    let mut by_quota: std::collections::BTreeMap<&str, Vec<String>> = std::collections::BTreeMap::new();
    for region in fence.iter().map(|region| table.region(*region)) {
        for (id, endpoint) in &region.endpoints {
            if let Some(quota) = &endpoint.quota {
                by_quota.entry(quota.as_str()).or_default().push(format!("{}/{id}", region.id));
            }
        }
    }
    by_quota.into_iter().collect()
}

/// The limits of the tenant, if it has any.
fn limits_of_tenant(
    table: &Table,
    question: &LimitsQuestion<'_>,
    quotas: &mut Quotas,
    load: impl Fn(RegionIndex) -> Option<Ratio>,
    now: Timestamp,
) -> Option<ExplainedTenant> {
    let tenant = table.tenant(question.tenant?);
    let limits = tenant.limits.as_ref()?;
    let tier = table.tier_of(tenant).map(|(name, tier)| ExplainedTier {
        name: name.to_string(),
        rank: tier.rank,
        refuse_at: tier.refuse_at,
        refused: admission::check_tier(table, tenant, question.offered.iter().copied(), load).is_err(),
    });
    let concurrency =
        limits.concurrency.map(|most| ExplainedConcurrency { under_way: admission::under_way(&tenant.id), most });
    let amount = |dimension: Option<Dimension>| {
        let dimension = dimension?;
        let full_after_ms = dimension.reset.unwrap_or_default().0;
        Some(ExplainedAmount { limit: dimension.limit?, remaining: dimension.remaining?, full_after_ms })
    };
    let budget = limits.budget.as_ref().map(|budget| {
        let [requests, tokens] = quotas.left_of((tenant, budget), now);
        ExplainedBudget { requests: amount(requests), tokens: amount(tokens) }
    });
    Some(ExplainedTenant { tier, concurrency, budget })
}

#[cfg(test)]
mod tests {
    use bailiwick_rules::quota::Reading;
    use bailiwick_rules::time::Millis;
    use serde_json::{Value, json};

    use super::*;
    use crate::decide::quota::{Demand, Output};

    const NOW: Timestamp = Timestamp(1_796_104_800_000);

    fn table() -> Table {
        table_with(0.85)
    }

    /// A table with a tier that is refused from this load on.
    fn table_with(refuse_at: f64) -> Table {
        let region = |country: &str, endpoint: Value| json!({ "countries": [country], "endpoints": { "e": endpoint } });
        let rules = json!({
            "version": 1, "revision": 1,
            "regions": { "fra": region("DE", json!({ "url": "https://a.example/v1", "quota": "q" })),
                         "par": region("FR", json!({ "url": "https://b.example/v1" })) },
            "quotas": { "q": { "requests": 600, "burst": "1s", "headroom": 0 } },
            "tiers": { "batch": { "rank": 9, "refuse_at": refuse_at } },
            "services": { "chat": { "hosts": ["chat.example"], "pattern": "active-active", "regions": ["fra", "par"],
                                    "residency": [{ "clients": ["*"], "process_in": ["*"] }] } },
            "tenants": { "acme": { "key_sha256": ["a".repeat(64)], "services": ["chat"], "tier": "batch",
                                   "concurrency": 2, "budget": { "tokens": 1000, "per": "1d" } } },
        });
        Table::compile(rules.to_string().as_bytes()).unwrap()
    }

    /// The quotas and limits in an explanation. The tenant may be missing.
    fn explained(quotas: &mut Quotas, tenant: bool, by_operator: bool, load: u32) -> ExplainedLimits {
        explained_by(&table(), quotas, tenant, by_operator, load)
    }

    fn explained_by(table: &Table, quotas: &mut Quotas, tenant: bool, by_operator: bool, load: u32) -> ExplainedLimits {
        let both = [RegionIndex(0), RegionIndex(1)];
        let question =
            LimitsQuestion { fence: &both, offered: &both, tenant: tenant.then_some(TenantIndex(0)), by_operator };
        ExplainedLimits::of(table, &question, quotas, |_| Some(Ratio(load)), NOW)
    }

    /// The JSON fields.
    fn read(limits: &ExplainedLimits) -> Value {
        serde_json::from_str(&format!("{{\"a\":1{}}}", limits.to_fields())).unwrap()
    }

    #[test]
    fn the_operator_sees_the_state_of_quotas_and_until_when_their_endpoints_are_withheld() {
        let (table, mut quotas) = (table(), Quotas::default());
        let full = json!([{ "quota": "q", "endpoints": ["fra/e"], "requests": 10, "tokens": null,
                            "withheld_until": null }]);
        assert_eq!(read(&explained(&mut quotas, false, true, 0))["quotas"], full, "a quota that wasn't used is full");
        let demand = Demand { tenant: None, model: "m".into(), bytes: 0, choices: 1, output: Output::Nothing };
        let charge = quotas.charge(&table.quotas()[0], &demand, NOW);
        quotas.apply_headers(&charge, 429, &Reading { retry_after: Some(Millis(7_000)), ..Reading::default() }, NOW);
        let text = explained(&mut quotas, false, true, 0).to_text();
        let until = NOW.after(Millis(7_000));
        let line = "quota      q: 9 requests may be sent at once, by this isolate to fra/e; withheld until";
        assert_eq!(text, format!("{line} {until}\n"));
    }

    #[test]
    fn a_tenant_sees_only_its_own_limits() {
        let mut quotas = Quotas::default();
        let json = read(&explained(&mut quotas, true, false, 850_000));
        assert_eq!(json["quotas"], Value::Null);
        assert_eq!(
            json["limits"],
            json!({ "tier": { "name": "batch", "rank": 9, "refuse_at": 0.85, "refused": true },
                    "concurrency": { "under_way": 0, "most": 2 },
                    "budget": { "tokens": { "limit": 1000, "remaining": 1000, "full_after_ms": 0 } } })
        );
        let text = explained(&mut quotas, true, false, 849_999).to_text();
        assert_eq!(
            text,
            "tier       batch (rank 9), refused where every region's load is 85 % or more\n\
             at once    0 of 2 requests are under way in this isolate\n\
             budget     1000 of 1000 tokens are left; all of them again after 0s\n"
        );
    }

    #[test]
    fn the_load_at_which_a_tier_is_refused_is_shown_as_it_is_written() {
        for (mark, shown) in [(0.29, "29 %"), (0.57, "57 %"), (0.07, "7 %"), (0.925, "92.5 %"), (1.0, "100 %")] {
            let limits = explained_by(&table_with(mark), &mut Quotas::default(), true, false, 0);
            let text = limits.to_text();
            assert!(text.contains(&format!(" load is {shown} or more")), "{mark}: {text}");
            assert_eq!(read(&limits)["limits"]["tier"]["refuse_at"], json!(mark));
        }
    }

    #[test]
    fn without_quotas_and_limits_nothing_is_added() {
        let none = explained(&mut Quotas::default(), false, false, 0);
        assert_eq!((none.to_fields(), none.to_text()), (String::new(), String::new()));
    }
}
