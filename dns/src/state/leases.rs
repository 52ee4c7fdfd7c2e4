//! The quotas of providers and the budgets of tenants, divided among the isolates of Workers. Takes what isolates ask
//! for from the API, returns what they may spend. Held by every [`Handle`](crate::state::owner::Handle).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bailiwick_rules::id::{QuotaId, TenantId};
use bailiwick_rules::quota::{Asks, Grants, LEASE, Ledger, Limits};
use bailiwick_rules::table::Table;
use bailiwick_rules::time::Timestamp;

/// A ledger for each quota and budget of the rules that was asked for. They are in memory only: a process that takes
/// over begins with full pools, which is a burst more.
#[derive(Debug, Clone, Default)]
pub(crate) struct Leases(Arc<Mutex<Ledgers>>);

/// All ledgers.
#[derive(Debug, Default)]
pub(crate) struct Ledgers {
    quotas: BTreeMap<QuotaId, Ledger>,
    budgets: BTreeMap<TenantId, Ledger>,
}

impl Leases {
    /// Settles what an isolate was granted, and grants more. What the rules don't have is left out.
    pub(crate) fn ask(&self, table: &Table, isolate: u64, asks: &Asks, now: Timestamp) -> Grants {
        let mut ledgers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Ledgers { quotas, budgets } = &mut *ledgers;
        let mut grants = Grants::default();
        for (id, ask) in &asks.quotas {
            let quota = table.quota_named(id.as_str()).and_then(|index| table.quotas().get(index.get()));
            if let Some(quota) = quota {
                let ledger = quotas.entry(id.clone()).or_default();
                grants.quotas.insert(id.clone(), ledger.ask(&Limits::of(quota, LEASE), isolate, ask, now));
            }
        }
        quotas.retain(|id, _| table.quota_named(id.as_str()).is_some());
        // By another revision a position would be another tenant's.
        if asks.revision == table.revision().number {
            for (position, ask) in &asks.budgets {
                let tenant = table.tenants().get(*position as usize);
                let budget = tenant.and_then(|tenant| Some((tenant, tenant.limits.as_ref()?.budget?)));
                if let Some((tenant, budget)) = budget {
                    let ledger = budgets.entry(tenant.id.clone()).or_default();
                    grants.budgets.insert(*position, ledger.ask(&Limits::of_budget(&budget), isolate, ask, now));
                }
            }
        }
        if budgets.len() > table.tenants().len() {
            budgets.retain(|id, _| table.tenant_named(id.as_str()).is_some());
        }
        grants
    }

    /// Looks at the ledgers of quotas. `look` shouldn't take long: whoever asks waits for it.
    pub(crate) fn with_quotas<T>(&self, look: impl FnOnce(&BTreeMap<QuotaId, Ledger>) -> T) -> T {
        // A poisoned lock still holds good ledgers.
        look(&self.0.lock().unwrap_or_else(PoisonError::into_inner).quotas)
    }
}
