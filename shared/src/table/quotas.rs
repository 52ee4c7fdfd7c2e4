//! Quotas, service tiers and the limits of tenants, compiled. Takes what the rules say, returns it with indexes instead
//! of names. Called by [`super::Table::build`].

use std::collections::BTreeMap;

use super::{TenantIndex, TierIndex};
use crate::id::{QuotaId, TenantId, TierId};
use crate::rules::{self, Budget, Ratio, ServiceTier, Tenant};

/// A quota, compiled.
#[derive(Debug)]
pub struct Quota {
    /// Its name.
    pub id: QuotaId,
    /// The quota as the rules have it: how much a provider's account may be sent.
    pub rule: rules::Quota,
    /// The parts of the quota that are reserved for tenants, sorted by the tenant's index.
    pub reserves: Vec<(TenantIndex, Ratio)>,
}

impl Quota {
    /// The position of a tenant's reserve in `reserves`.
    #[must_use]
    pub fn reserve_of(&self, tenant: TenantIndex) -> Option<usize> {
        self.reserves.binary_search_by_key(&tenant, |(tenant, _)| *tenant).ok()
    }
}

/// Compiles the quotas of a document.
pub(super) fn build(quotas: BTreeMap<QuotaId, rules::Quota>, tenants: &BTreeMap<TenantId, Tenant>) -> Vec<Quota> {
    let with_reserves = |(id, rule): (QuotaId, rules::Quota)| {
        let part =
            |(index, tenant): (usize, &Tenant)| Some((TenantIndex::new(index), *tenant.limits.reserve.get(&id)?));
        let reserves = tenants.values().enumerate().filter_map(part).collect();
        Quota { id, rule, reserves }
    };
    quotas.into_iter().map(with_reserves).collect()
}

/// All service tiers, by name.
#[derive(Debug, Default)]
pub struct Tiers(Vec<(TierId, ServiceTier)>);

impl Tiers {
    pub(super) fn new(tiers: BTreeMap<TierId, ServiceTier>) -> Self {
        Self(tiers.into_iter().collect())
    }

    /// A tier and its name.
    #[must_use]
    pub fn get(&self, index: TierIndex) -> Option<(&TierId, &ServiceTier)> {
        self.0.get(index.get()).map(|(id, tier)| (id, tier))
    }

    /// All service tiers, by name.
    #[must_use]
    pub fn all(&self) -> &[(TierId, ServiceTier)] {
        &self.0
    }

    /// Whether any other tier is more important than this one, which is to say has a lower `rank`.
    #[must_use]
    pub fn is_lower(&self, tier: &ServiceTier) -> bool {
        self.0.iter().any(|(_, other)| other.rank < tier.rank)
    }

    /// Whether the document has no service tiers.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The limits of a tenant, compiled.
#[derive(Debug, PartialEq, Eq)]
pub struct TenantLimits {
    /// Its service tier.
    pub tier: Option<TierIndex>,
    /// How many of its requests may be under way at once in one isolate.
    pub concurrency: Option<u32>,
    /// How much the tenant may use in a span of time.
    pub budget: Option<Budget>,
}

impl TenantLimits {
    /// Compiles the limits of a tenant; `None` if it has none of these.
    pub(super) fn new(limits: &rules::TenantLimits, tiers: &Tiers) -> Option<Box<Self>> {
        let tier = limits.tier.as_ref().and_then(|name| tiers.0.iter().position(|(id, _)| id == name));
        let rules::TenantLimits { concurrency, budget, .. } = *limits;
        let any = tier.is_some() || concurrency.is_some() || budget.is_some();
        any.then(|| Box::new(Self { tier: tier.map(TierIndex::new), concurrency, budget }))
    }
}
