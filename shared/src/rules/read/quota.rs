//! Reads quotas, service tiers, and the limits of tenants. Called by [`super::rules`] and the readers of endpoints and
//! tenants.

use std::collections::BTreeMap;

use super::Context;
use super::load::order;
use super::value::{distinct, duration, number, one_of, reference};
use crate::id::{QuotaId, TierId};
use crate::json::{Fields, Node, Reader};
use crate::rules::{Budget, PriorityForm, Quota, Ratio, ServiceTier, TenantLimits};
use crate::time::Millis;

/// The largest number of requests or tokens in a span.
const MAX_AMOUNT: u64 = 1_000_000_000_000;
/// The longest span of a quota or budget: 31 days.
const LONGEST: Millis = Millis(31 * 24 * 3_600_000);

/// Reads a quota: how many requests and tokens a provider allows in a span.
pub(super) fn quota(reader: &mut Reader<'_>, node: &Node, _: &mut Context) -> Option<Quota> {
    let mut fields = reader.object(node)?;
    let (requests, tokens) = amounts(&mut fields, "it limits");
    let per = fields.optional("per", |reader, node| duration(reader, node, Millis(1_000)..=LONGEST));
    let per = per.unwrap_or(Millis(60_000));
    let burst = fields.optional("burst", |reader, node| {
        let burst = duration(reader, node, Millis(1)..=LONGEST)?;
        if burst.0 > per.0 / 2 {
            return reader.fail(format!(
                "is {burst}, more than half of \"per\" ({per}), so hardly anything would come back after it; write \
                 {} at most",
                Millis(per.0 / 2)
            ));
        }
        Some(burst)
    });
    let output_default = fields.optional("output_default", |reader, node| reader.integer(node, 1..=10_000_000));
    let headroom = fields.optional("headroom", |reader, node| {
        let value = number(reader, node)?;
        let headroom = Ratio::from_number(value).filter(|ratio| *ratio <= Ratio(900_000));
        headroom.or_else(|| reader.fail(format!("is {value}; write a part from 0 to 0.9, such as 0.05")))
    });
    let models = fields.optional("models", |reader, node| {
        distinct(reader, node, |reader, node| match reader.string(node)? {
            "" => reader.fail("is an empty model name; write the endpoints' name of the model"),
            name => Some(name.to_owned()),
        })
    });
    fields.finish();
    Some(Quota {
        requests,
        tokens,
        per,
        burst: burst.unwrap_or(Millis(1_000.min(per.0 / 10))),
        output_default: output_default.unwrap_or_else(crate::rules::default_output),
        headroom: headroom.unwrap_or(Ratio(50_000)),
        models,
    })
}

/// Reads `requests` and `tokens`. At least one of them has to be there.
fn amounts(fields: &mut Fields<'_, '_, '_>, what: &str) -> (Option<u64>, Option<u64>) {
    if !fields.has("requests") && !fields.has("tokens") {
        fields.fail::<()>(format!("says neither \"requests\" nor \"tokens\", so {what} nothing; add one of them"));
    }
    let amount = |reader: &mut Reader<'_>, node: &Node| reader.integer(node, 1..=MAX_AMOUNT);
    (fields.optional("requests", amount), fields.optional("tokens", amount))
}

/// Reads a service tier.
pub(super) fn service_tier(reader: &mut Reader<'_>, node: &Node, _: &mut Context) -> Option<ServiceTier> {
    let mut fields = reader.object(node)?;
    let rank = fields.required("rank", "\"rank\": 1; lower is more important", |reader, node| {
        reader.integer(node, 0..=u64::from(u16::MAX))
    });
    let refuse_at = fields.optional("refuse_at", |reader, node| {
        let value = number(reader, node)?;
        let ratio = Ratio::from_load(value).filter(|ratio| *ratio >= Ratio(10_000));
        ratio.or_else(|| reader.fail(format!("is {value}; write a load from 0.01 to 100, such as 0.85")))
    });
    let order = order(&mut fields);
    fields.finish();
    Some(ServiceTier { rank: u16::try_from(rank?).ok()?, refuse_at, order })
}

/// Reads `tier`, `concurrency`, `budget` and `reserve` of a tenant.
pub(super) fn tenant_limits(fields: &mut Fields<'_, '_, '_>, context: &Context) -> TenantLimits {
    let tier =
        fields.optional("tier", |reader, node| reference(reader, node, "service tier", &context.tiers, TierId::parse));
    let concurrency = fields.optional("concurrency", |reader, node| reader.integer(node, 1..=1_000_000));
    let budget = fields.optional("budget", budget);
    let reserve = fields.optional("reserve", |reader, node| {
        let mut parts = BTreeMap::new();
        for (name, node) in reader.entries(node)? {
            let reader = &mut reader.at(name);
            let Some(id) = QuotaId::parse(name).filter(|_| context.quotas.iter().any(|quota| quota == name)) else {
                let hint = super::value::declared(name, &context.quotas);
                reader.fail::<()>(format!("is of the quota {name:?}, which isn't declared{hint}"));
                continue;
            };
            let value = number(reader, node);
            let part = value.and_then(|value| {
                let part = Ratio::from_number(value).filter(|part| *part > Ratio(0));
                part.or_else(|| reader.fail(format!("is {value}; write a part above 0 and up to 1, such as 0.3")))
            });
            parts.extend(part.map(|part| (id, part)));
        }
        Some(parts)
    });
    TenantLimits {
        tier,
        concurrency: concurrency.and_then(|n| u32::try_from(n).ok()),
        budget,
        reserve: reserve.unwrap_or_default(),
    }
}

/// Reads a tenant's budget: how many requests and tokens it may use in a span.
fn budget(reader: &mut Reader<'_>, node: &Node) -> Option<Budget> {
    let mut fields = reader.object(node)?;
    let (requests, tokens) = amounts(&mut fields, "it allows");
    let per = fields.required("per", "\"per\": \"1d\", the span that it is for", |reader, node| {
        duration(reader, node, Millis(1_000)..=LONGEST)
    });
    fields.finish();
    Some(Budget { requests, tokens, per: per? })
}

/// Reads `quota` and `priority_as` of an endpoint.
pub(super) fn of_endpoint(
    fields: &mut Fields<'_, '_, '_>,
    context: &Context,
) -> (Option<QuotaId>, Option<PriorityForm>) {
    let quota =
        fields.optional("quota", |reader, node| reference(reader, node, "quota", &context.quotas, QuotaId::parse));
    let forms = [("vllm", PriorityForm::Vllm), ("openai", PriorityForm::OpenAi), ("llm-d", PriorityForm::LlmD)];
    let priority_as = fields.optional("priority_as", |reader, node| one_of(reader, node, &forms));
    (quota, priority_as)
}
