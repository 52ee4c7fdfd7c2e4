//! Checks that quotas, endpoints, service tiers and tenants fit each other. Takes the rules, adds violations. A quota
//! is a limit that a provider sets for several endpoints together; tenants may reserve parts of it. Called by
//! [`super::super::Table::compile`].

use std::collections::BTreeMap;

use crate::id::{QuotaId, TierId};
use crate::json::Violation;
use crate::rules::{Endpoint, Quota, Ratio, Rules, ServiceTier};

/// The most tenants that a message names.
const MAX_NAMED: usize = 8;

/// All violations about quotas and service tiers. None for a document without them.
pub(in super::super) fn quotas(rules: &Rules, violations: &mut Vec<Violation>) {
    // Parts that couldn't be read are reported already. The rest of them may wrongly look unused.
    let is_unread = |place: &str| violations.iter().any(|violation| violation.pointer.starts_with(place));
    let endpoints_unread = is_unread("/regions/");
    let mut mistakes = Vec::new();
    for (id, quota) in &rules.quotas {
        let place = format!("/quotas/{id}");
        if is_unread(&place) {
            continue;
        }
        let mut users = endpoints(rules).filter(|(_, endpoint)| endpoint.quota.as_ref() == Some(id)).peekable();
        if users.peek().is_none() && !endpoints_unread {
            mistakes.push(Violation {
                pointer: place.clone(),
                message: "is used by no endpoint; name it as the \"quota\" of an endpoint, or remove it".to_owned(),
            });
        }
        mistakes.extend(users.filter_map(|(place, endpoint)| lacking_model(id, quota, &place, endpoint)));
        mistakes.extend(overbooked(rules, id, place));
    }
    if !is_unread("/tiers") {
        mistakes.extend(misordered(&rules.tiers));
    }
    violations.extend(mistakes);
}

/// All endpoints, each with its place in the document.
fn endpoints(rules: &Rules) -> impl Iterator<Item = (String, &Endpoint)> {
    rules.regions.iter().flat_map(|(region, rule)| {
        rule.endpoints.iter().map(move |(id, endpoint)| (format!("/regions/{region}/endpoints/{id}"), endpoint))
    })
}

/// The violation of an endpoint with a model that its quota isn't for.
fn lacking_model(id: &QuotaId, quota: &Quota, place: &str, endpoint: &Endpoint) -> Option<Violation> {
    let allowed = quota.models.as_ref()?;
    let pointer = format!("{place}/quota");
    let Some(models) = &endpoint.models else {
        let message = format!(
            "is {id:?}, which is for {allowed:?} only, and the endpoint takes any model; list its \"models\", or take \
             the \"models\" from the quota"
        );
        return Some(Violation { pointer, message });
    };
    let lacking = models.values().find(|model| !allowed.contains(model))?;
    let message = format!(
        "is {id:?}, which isn't for this endpoint's model {lacking:?}; add it to the \"models\" of the quota, or name \
         the quota of that model"
    );
    Some(Violation { pointer, message })
}

/// The violation of a quota whose reserves for tenants add up to more than the quota.
fn overbooked(rules: &Rules, id: &QuotaId, pointer: String) -> Option<Violation> {
    let parts = rules.tenants.iter().filter_map(|(tenant, rule)| Some((tenant, *rule.limits.reserve.get(id)?)));
    let parts: Vec<_> = parts.collect();
    let sum = parts.iter().map(|(_, part)| u64::from(part.0)).sum::<u64>();
    if sum <= u64::from(Ratio::ONE.0) {
        return None;
    }
    let names: Vec<String> = parts.iter().take(MAX_NAMED).map(|(tenant, part)| format!("{tenant} {part}")).collect();
    let more = if parts.len() > names.len() { ", …" } else { "" };
    let sum = Ratio(u32::try_from(sum).unwrap_or(u32::MAX));
    let message = format!(
        "is reserved to {sum}: {}{more}; lower \"reserve\" of these tenants until they add up to 1 at most",
        names.join(", ")
    );
    Some(Violation { pointer, message })
}

/// The violation of a tier that would be refused at a lower load than a less important tier.
fn misordered(tiers: &BTreeMap<TierId, ServiceTier>) -> Option<Violation> {
    let mark = |tier: &ServiceTier| tier.refuse_at.map_or(u32::MAX, |ratio| ratio.0);
    let (id, tier, lesser_id, lesser) = tiers.iter().find_map(|(id, tier)| {
        let is_misordered =
            |(_, lesser): &(&TierId, &ServiceTier)| lesser.rank > tier.rank && mark(lesser) > mark(tier);
        tiers.iter().find(is_misordered).map(|(lesser_id, lesser)| (id, tier, lesser_id, lesser))
    })?;
    let mark_of_lesser = lesser.refuse_at.map_or("never".to_owned(), |ratio| format!("at {ratio}"));
    let message = format!(
        "is {}, so the tier {id} is refused before {lesser_id}, which ranks behind it and is refused {mark_of_lesser}; \
         raise this mark, lower that of {lesser_id}, or change a \"rank\"",
        tier.refuse_at.unwrap_or_default()
    );
    Some(Violation { pointer: format!("/tiers/{id}/refuse_at"), message })
}
