//! The quotas of providers and the budgets of tenants, divided among the isolates (running instances) of edge Workers.
//! Takes an isolate's request from the API, returns the lease that the isolate may spend. Held by every
//! [`Handle`](crate::state::owner::Handle). A lease is a part of a quota that a node grants to an isolate (an instance
//! of the Worker) for a short time.
//!
//! In a fleet with a store (NATS), all nodes share one pool for each quota and budget. A turn is one exchange between a
//! node and the store's pool, by [`turns`](crate::state::fleet::turns).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bailiwick_rules::id::{QuotaId, TenantId};
use bailiwick_rules::quota::{Allowance, Amounts, Ask, Asks, Grant, Grants, HELD_FOR, LEASE, Ledger, Limits, Turn};
use bailiwick_rules::table::Table;
use bailiwick_rules::time::{Millis, Timestamp};

/// A ledger for each quota and budget of the rules that isolates asked for. Ledgers are in memory only. So a process
/// that takes over begins with full pools, and may grant one burst too much. In a fleet with a store, the pools are in
/// the store and aren't lost.
#[derive(Debug, Clone, Default)]
pub(crate) struct Leases(Arc<Mutex<Ledgers>>);

/// All ledgers.
#[derive(Debug, Default)]
struct Ledgers {
    quotas: BTreeMap<QuotaId, Shared>,
    budgets: BTreeMap<TenantId, Shared>,
    /// How many nodes share the pools through a store; `None` without a store.
    nodes: Option<u32>,
}

/// The name of a pool in the fleet's store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PoolName {
    /// The quota of a provider.
    Quota(QuotaId),
    /// The budget of a tenant.
    Budget(TenantId),
}

/// One ledger, and what this node took from the pool in the fleet's store for it.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// The ledger.
    pub(crate) ledger: Ledger,
    allowance: Allowance,
    /// Whether a turn is under way.
    is_busy: bool,
}

/// A turn that has begun.
#[derive(Debug)]
pub(crate) struct BegunTurn {
    /// The pool.
    pub(crate) pool: PoolName,
    /// The limits of the pool.
    pub(crate) limits: Limits,
    /// The change to make to the pool.
    pub(crate) turn: Turn,
}

impl Shared {
    fn ask(&mut self, limits: &Limits, nodes: Option<u32>, (isolate, ask): (u64, &Ask), now: Timestamp) -> Grant {
        match nodes {
            None => self.ledger.ask(limits, isolate, ask, now),
            Some(nodes) => self.ledger.ask_in_fleet(limits, (&mut self.allowance, nodes), isolate, ask, now),
        }
    }

    /// Whether the fleet's store doesn't answer, so that this node grants only its own part of the pool.
    pub(crate) fn is_cut_off(&self, now: Timestamp) -> bool {
        self.allowance.is_cut_off(now)
    }

    /// Begins a turn, unless it would change nothing.
    fn begin(&mut self, now: Timestamp) -> Option<Turn> {
        let turn = self.allowance.begin_turn(now);
        self.is_busy = !turn.is_empty();
        self.is_busy.then_some(turn)
    }

    /// Whether a turn is due and none is under way.
    fn is_due(&self, now: Timestamp) -> bool {
        !self.is_busy && self.allowance.is_due(now)
    }
}

impl PoolName {
    /// The limits of the pool by these rules. Units that a node holds before it grants them are spent later, so the lag
    /// of a quota is longer in a fleet with a store.
    fn limits(&self, table: &Table, nodes: Option<u32>) -> Option<Limits> {
        match self {
            Self::Quota(id) => {
                let lag = if nodes.is_some() { Millis(LEASE.0 + HELD_FOR.0) } else { LEASE };
                let quota = table.quotas().get(table.quota_named(id.as_str())?.get());
                quota.map(|quota| Limits::of(quota, lag))
            }
            Self::Budget(id) => {
                let tenant = table.tenants().get(table.tenant_named(id.as_str())?.get())?;
                Some(Limits::of_budget(&tenant.limits.as_ref()?.budget?))
            }
        }
    }
}

impl Ledgers {
    fn shared_pool(&mut self, pool: &PoolName) -> Option<&mut Shared> {
        match pool {
            PoolName::Quota(id) => self.quotas.get_mut(id),
            PoolName::Budget(id) => self.budgets.get_mut(id),
        }
    }
}

impl Leases {
    /// Settles an isolate's earlier grants, and grants more. Quotas and budgets that the rules don't have are left out.
    pub(crate) fn ask(&self, table: &Table, isolate: u64, asks: &Asks, now: Timestamp) -> Grants {
        let mut ledgers = self.lock();
        let Ledgers { quotas, budgets, nodes } = &mut *ledgers;
        let mut grants = Grants::default();
        for (id, ask) in &asks.quotas {
            if let Some(limits) = PoolName::Quota(id.clone()).limits(table, *nodes) {
                let shared = quotas.entry(id.clone()).or_default();
                grants.quotas.insert(id.clone(), shared.ask(&limits, *nodes, (isolate, ask), now));
            }
        }
        quotas.retain(|id, _| table.quota_named(id.as_str()).is_some());
        // Budgets are asked for by the tenant's position, which may be another tenant's in another revision of the
        // rules.
        if asks.revision == table.revision().number {
            for (position, ask) in &asks.budgets {
                let tenant = table.tenants().get(*position as usize);
                let budget = tenant.and_then(|tenant| Some((tenant, tenant.limits.as_ref()?.budget?)));
                if let Some((tenant, budget)) = budget {
                    let shared = budgets.entry(tenant.id.clone()).or_default();
                    let grant = shared.ask(&Limits::of_budget(&budget), *nodes, (isolate, ask), now);
                    grants.budgets.insert(*position, grant);
                }
            }
        }
        if budgets.len() > table.tenants().len() {
            budgets.retain(|id, _| table.tenant_named(id.as_str()).is_some());
        }
        grants
    }

    /// Looks at the ledgers of quotas, and at whether nodes share them through a store. `look` shouldn't take long,
    /// because every request for a lease waits for it.
    pub(crate) fn with_quotas<T>(&self, look: impl FnOnce(&BTreeMap<QuotaId, Shared>, bool) -> T) -> T {
        let ledgers = self.lock();
        look(&ledgers.quotas, ledgers.nodes.is_some())
    }

    /// Shares the pools with other nodes through a store from now on. `nodes` counts all nodes of the fleet.
    pub(crate) fn share_among(&self, nodes: u32) {
        self.lock().nodes = Some(nodes.max(1));
    }

    /// Begins at most `most` of the turns that are due. The caller has to end each by [`Leases::end`].
    pub(crate) fn begin(&self, table: &Table, now: Timestamp, most: usize) -> Vec<BegunTurn> {
        let mut ledgers = self.lock();
        let Ledgers { quotas, budgets, nodes } = &mut *ledgers;
        let quotas = quotas.iter_mut().filter(|(_, shared)| shared.is_due(now));
        let budgets = budgets.iter_mut().filter(|(_, shared)| shared.is_due(now));
        let quotas = quotas.map(|(id, shared)| (PoolName::Quota(id.clone()), shared));
        let due = quotas.chain(budgets.map(|(id, shared)| (PoolName::Budget(id.clone()), shared)));
        let begin = |(pool, shared): (PoolName, &mut Shared)| {
            let limits = pool.limits(table, *nodes)?;
            shared.begin(now).map(|turn| BegunTurn { pool, limits, turn })
        };
        due.filter_map(begin).take(most).collect()
    }

    /// Ends a turn. `got` is what the store gave, or `None` if the store didn't answer. `random` varies the time of the
    /// next turn.
    pub(crate) fn end(&self, begun: &BegunTurn, got: Option<Amounts>, now: Timestamp, random: u64) {
        // If the rules no longer have this pool, its ledger is gone.
        let mut ledgers = self.lock();
        let Some(shared) = ledgers.shared_pool(&begun.pool) else { return };
        shared.is_busy = false;
        match got {
            Some(got) => shared.allowance.receive(got, now, random),
            None => shared.allowance.fail(&begun.turn, now, random),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ledgers> {
        // A poisoned lock still holds good ledgers.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
