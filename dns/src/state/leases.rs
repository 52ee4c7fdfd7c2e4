//! The quotas of providers, divided among the isolates of Workers. Takes what isolates ask for from the API, returns
//! what they may spend. Held by every [`Handle`](crate::state::owner::Handle).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bailiwick_rules::id::QuotaId;
use bailiwick_rules::quota::{Ask, Grants, LEASE, Ledger, Limits};
use bailiwick_rules::table::Table;
use bailiwick_rules::time::Timestamp;

/// A ledger for each quota of the rules that was asked for. They are in memory only: a process that takes over begins
/// with full pools, which is a burst more.
#[derive(Debug, Clone, Default)]
pub(crate) struct Leases(Arc<Mutex<BTreeMap<QuotaId, Ledger>>>);

impl Leases {
    /// Settles what an isolate was granted, and grants more. Quotas that the rules don't have are left out.
    pub(crate) fn ask(&self, table: &Table, isolate: u64, asks: &BTreeMap<QuotaId, Ask>, now: Timestamp) -> Grants {
        self.with(|ledgers| {
            let grant = |(id, ask): (&QuotaId, &Ask)| {
                let quota = table.quotas().get(table.quota_named(id.as_str())?.get())?;
                let ledger = ledgers.entry(id.clone()).or_default();
                Some((id.clone(), ledger.ask(&Limits::of(quota, LEASE), isolate, ask, now)))
            };
            let grants = Grants { quotas: asks.iter().filter_map(grant).collect() };
            ledgers.retain(|id, _| table.quota_named(id.as_str()).is_some());
            grants
        })
    }

    /// Reads or changes the ledgers. `look` shouldn't take long: whoever asks waits for it.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut BTreeMap<QuotaId, Ledger>) -> T) -> T {
        // A poisoned lock still holds good ledgers.
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
