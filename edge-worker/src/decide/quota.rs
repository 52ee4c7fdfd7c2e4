//! The providers' quotas and tenants' budgets in one isolate. Takes the estimated and real costs of requests, and the
//! rate limit headers of providers; returns which endpoints may be asked now. Called by `memory`. An isolate is one
//! instance of the Worker; the platform runs several, which share no memory.
//!
//! A pool counts the requests and tokens that were taken of one quota or budget. If the Worker knows DNS nodes that
//! divide quotas (`LEASES_URLS`), an isolate asks one for a part of each pool that it uses, and spends this part. The
//! counting itself is in [`bailiwick_rules::quota`], which DNS nodes use too.

pub(crate) mod place;
#[cfg(test)]
mod tests;
pub(crate) mod usage_event;

use std::collections::{BTreeMap, HashMap};

use bailiwick_rules::id::{QuotaId, TenantId};
use bailiwick_rules::quota::{
    Ask, Asks, Cost, Dimension, Grant, Grants, Limits, Pool, Ratios, Reading, Refusal, Share, estimated_tokens,
};
use bailiwick_rules::rules::Budget;
use bailiwick_rules::table::{Quota, Table, Tenant, TenantIndex};
use bailiwick_rules::time::{Millis, Timestamp};

use crate::decide::usage::Usage;

/// The expected number of tokens of an answer, if neither the request nor the quota has a number.
const OUTPUT_DEFAULT: u64 = 800;

/// The pools of all quotas and budgets, by name, so that they survive a change of the rules.
#[derive(Debug, Default)]
pub(crate) struct Quotas {
    pools: HashMap<PoolKey, PoolState>,
    ratios: Ratios,
}

/// The quota or budget that a pool belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum PoolKey {
    Quota(QuotaId),
    Budget(TenantId),
}

/// One pool: its limits, what this isolate took of it, and the part of it that a node granted to this isolate.
#[derive(Debug, Default)]
struct PoolState {
    limits: Limits,
    pool: Pool,
    share: Share,
}

/// What is known about the cost of a request before it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Demand {
    /// The tenant, if the service has any.
    pub(crate) tenant: Option<TenantIndex>,
    /// The client's name of the model.
    pub(crate) model: String,
    /// The bytes of the body that hold the prompt.
    pub(crate) bytes: u64,
    /// How many answers the request asks for.
    pub(crate) choices: u64,
    /// How many tokens each answer may have.
    pub(crate) output: Output,
}

/// How many tokens an answer may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// No tokens: the answer isn't generated text.
    Nothing,
    /// The request states no number, so the quota's `output_default` counts.
    Unstated,
    /// At most this many tokens.
    AtMost(u64),
}

/// The cost that was taken for an attempt. [`Quotas::settle`] replaces it by the real cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Charge {
    pool: PoolKey,
    reserve: Option<usize>,
    cost: Cost,
}

/// The state of a quota in an isolate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QuotaState {
    /// The quota.
    pub(crate) quota: String,
    /// The requests that the isolate may send at once; `None` if requests aren't limited.
    pub(crate) requests: Option<u64>,
    /// The tokens that the isolate may send at once; `None` if tokens aren't limited.
    pub(crate) tokens: Option<u64>,
    /// For how much longer the provider refuses requests.
    pub(crate) closed: Millis,
}

/// The used tokens that an answer reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Tokens {
    /// The tokens of the prompt.
    pub(crate) prompt: u64,
    /// The tokens of the answer.
    pub(crate) answer: u64,
}

impl Tokens {
    /// The tokens in an answer's usage; `None` if the answer reports no usage.
    #[must_use]
    pub(crate) fn of(usage: &Usage) -> Option<Self> {
        let is_reported = usage.tokens_in.is_some() || usage.tokens_out.is_some();
        is_reported.then(|| Self { prompt: usage.tokens_in.unwrap_or(0), answer: usage.tokens_out.unwrap_or(0) })
    }
}

/// How an attempt ended, as far as its quota is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settlement {
    /// The endpoint refused the request or failed: the request counts, its tokens don't.
    Refused,
    /// The request was served, or may have been served. If the tokens aren't known, the estimate stays.
    Used(Option<Tokens>),
    /// The answer broke off. The larger number counts: the estimate, or the prompt and the tokens received so far.
    Left {
        /// The tokens of the answer that were received.
        seen: u64,
    },
}

impl Demand {
    /// The tenant as a number; 0 without a tenant.
    fn tenant(&self) -> u32 {
        self.tenant.map_or(0, |tenant| tenant.0.saturating_add(1))
    }
}

impl Quotas {
    /// The estimated cost of a request.
    #[must_use]
    pub(crate) fn cost(&self, quota: &Quota, demand: &Demand) -> Cost {
        self.cost_by(quota.rule.output_default, demand)
    }

    /// The estimated cost, with this default for the tokens of an answer.
    fn cost_by(&self, output_default: u64, demand: &Demand) -> Cost {
        let each = match demand.output {
            Output::Nothing => 0,
            Output::Unstated => output_default,
            Output::AtMost(tokens) => tokens,
        };
        let prompt = estimated_tokens(demand.bytes, self.ratios.of(&demand.model, demand.tenant()));
        Cost { requests: 1, tokens: prompt.saturating_add(each.saturating_mul(demand.choices.max(1))) }
    }

    /// Whether a request fits a quota now.
    ///
    /// # Errors
    /// How long the request has to wait, or that it never fits.
    pub(crate) fn check(&mut self, quota: &Quota, demand: &Demand, now: Timestamp) -> Result<(), Refusal> {
        let (cost, reserve) = (self.cost(quota, demand), reserve_of(quota, demand));
        self.of_quota(quota, now).check(reserve, cost, now)
    }

    /// Whether a request fits the budget of its tenant now. A request that doesn't fit is recorded for the next ask to
    /// a node.
    ///
    /// # Errors
    /// How long the request has to wait, or that it never fits.
    pub(crate) fn check_budget(
        &mut self,
        (tenant, budget): (&Tenant, &Budget),
        demand: &Demand,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let cost = self.cost_by(OUTPUT_DEFAULT, demand);
        let known = self.of_budget(tenant, budget, now);
        known.check(None, cost, now).inspect_err(|_| known.share.note_lack(cost))
    }

    /// Takes the estimated cost of a request from the budget of its tenant.
    pub(crate) fn charge_budget(
        &mut self,
        (tenant, budget): (&Tenant, &Budget),
        demand: &Demand,
        now: Timestamp,
    ) -> Charge {
        let cost = self.cost_by(OUTPUT_DEFAULT, demand);
        self.of_budget(tenant, budget, now).charge(None, cost, now);
        Charge { pool: PoolKey::Budget(tenant.id.clone()), reserve: None, cost }
    }

    /// The state of a tenant's budget: its requests and its tokens.
    pub(crate) fn left_of(&mut self, (tenant, budget): (&Tenant, &Budget), now: Timestamp) -> [Option<Dimension>; 2] {
        let known = self.of_budget(tenant, budget, now);
        known.pool.header_state(&known.limits, now)
    }

    /// Records a request that didn't fit, for the next ask to a node.
    pub(crate) fn note_lack(&mut self, quota: &Quota, demand: &Demand, now: Timestamp) {
        let cost = self.cost(quota, demand);
        self.of_quota(quota, now).share.note_lack(cost);
    }

    /// Takes the estimated cost of an attempt from a quota.
    pub(crate) fn charge(&mut self, quota: &Quota, demand: &Demand, now: Timestamp) -> Charge {
        let (cost, reserve) = (self.cost(quota, demand), reserve_of(quota, demand));
        self.of_quota(quota, now).charge(reserve, cost, now);
        Charge { pool: PoolKey::Quota(quota.id.clone()), reserve, cost }
    }

    /// Replaces the estimated cost of an attempt by its real cost.
    pub(crate) fn settle(&mut self, charge: &Charge, demand: &Demand, end: Settlement, now: Timestamp) {
        let used = match end {
            Settlement::Refused => Cost { tokens: 0, ..charge.cost },
            Settlement::Used(None) => charge.cost,
            Settlement::Used(Some(tokens)) => {
                Cost { tokens: tokens.prompt.saturating_add(tokens.answer), ..charge.cost }
            }
            Settlement::Left { seen } => {
                let prompt = estimated_tokens(demand.bytes, self.ratios.of(&demand.model, demand.tenant()));
                Cost { tokens: charge.cost.tokens.max(prompt.saturating_add(seen)), ..charge.cost }
            }
        };
        // The pool is missing if the rules no longer have the quota.
        let Some(PoolState { limits, pool, share }) = self.pools.get_mut(&charge.pool) else { return };
        pool.true_up(limits, charge.reserve, charge.cost, used, now);
        let more = used.tokens.saturating_sub(charge.cost.tokens);
        let less = charge.cost.tokens.saturating_sub(used.tokens);
        if more > 0 {
            share.charge(limits, Cost { requests: 0, tokens: more }, now);
        }
        if less > 0 {
            share.refund(Cost { requests: 0, tokens: less });
        }
    }

    /// Learns the ratio of tokens to bytes from the reported usage of a request.
    pub(crate) fn learn(&mut self, demand: &Demand, tokens: Tokens) {
        self.ratios.learn(&demand.model, demand.tenant(), demand.bytes, tokens.prompt);
    }

    /// Applies a provider's rate limit headers to the quota that an attempt was charged to.
    pub(crate) fn apply_headers(&mut self, charge: &Charge, status: u16, reading: &Reading, now: Timestamp) {
        let Some(PoolState { limits, pool, .. }) = self.pools.get_mut(&charge.pool) else { return };
        match status {
            200..=299 => pool.note_served(limits, reading, now),
            429 => pool.note_refused(reading, now),
            _ => {}
        }
    }

    /// The state of all quotas that this isolate has used and that the rules still have.
    #[must_use]
    pub(crate) fn standings(&self, table: &Table, now: Timestamp) -> Vec<QuotaState> {
        let mut standings = Vec::new();
        for quota in table.quotas() {
            if let Some(PoolState { limits, pool, share }) = self.pools.get(&PoolKey::Quota(quota.id.clone())) {
                let (requests, tokens) = pool.left(limits, now);
                let (quota, closed) = (quota.id.to_string(), pool.closed(now).max(share.closed(now)));
                standings.push(QuotaState { quota, requests, tokens, closed });
            }
        }
        standings
    }

    /// The state of one quota, used or not, and how long even the smallest request has to wait.
    pub(crate) fn standing(&mut self, quota: &Quota, now: Timestamp) -> (QuotaState, Option<Millis>) {
        let mut unused = PoolState { limits: Limits::of(quota, Millis(0)), ..PoolState::default() };
        let known = self.pools.get_mut(&PoolKey::Quota(quota.id.clone())).unwrap_or(&mut unused);
        let (requests, tokens) = known.pool.left(&known.limits, now);
        let closed = known.pool.closed(now).max(known.share.closed(now));
        let least = Cost { requests: 1, tokens: 1 };
        let wait = match known.check(None, least, now) {
            Err(Refusal::Wait(wait)) => Some(wait),
            Ok(()) | Err(Refusal::TooLarge) => None,
        };
        (QuotaState { quota: quota.id.to_string(), requests, tokens, closed }, wait)
    }

    /// Whether a node should be asked for a part of a pool now.
    #[must_use]
    pub(crate) fn is_due(&self, now: Timestamp) -> bool {
        self.pools.is_empty() || self.pools.values().any(|known| known.share.is_due(now))
    }

    /// The asks for a node, for all quotas and budgets that this isolate uses. The caller passes the node's answer to
    /// [`Quotas::note_answer`].
    pub(crate) fn asks(&mut self, table: &Table, isolate: String, now: Timestamp) -> Asks {
        let (mut quotas, mut budgets) = (BTreeMap::new(), BTreeMap::new());
        let revision = table.revision().number;
        for (key, known) in self.pools.iter_mut().filter(|(_, known)| known.share.is_due(now)) {
            match key {
                PoolKey::Quota(id) if quotas.len() < Asks::MAX && table.quota_named(id.as_str()).is_some() => {
                    quotas.insert(id.clone(), known.ask(now));
                }
                PoolKey::Budget(id) if budgets.len() < Asks::MAX => {
                    if let Some(tenant) = table.tenant_named(id.as_str()) {
                        budgets.insert(tenant.0, known.ask(now));
                    }
                }
                _ => {}
            }
        }
        Asks { isolate, quotas, revision, budgets }
    }

    /// Applies a node's answer to `asks`; `grants` is `None` if no node answered. `table` holds the rules that the asks
    /// were made with.
    pub(crate) fn note_answer(&mut self, table: &Table, asks: &Asks, grants: Option<&Grants>) {
        for id in asks.quotas.keys() {
            let grant = grants.and_then(|grants| grants.quotas.get(id));
            if let Some(known) = self.pools.get_mut(&PoolKey::Quota(id.clone())) {
                known.note_answer(grant);
            }
        }
        for position in asks.budgets.keys() {
            let grant = grants.and_then(|grants| grants.budgets.get(position));
            let tenant = table.tenants().get(*position as usize);
            let key = tenant.map(|tenant| PoolKey::Budget(tenant.id.clone()));
            if let Some(known) = key.and_then(|key| self.pools.get_mut(&key)) {
                known.note_answer(grant);
            }
        }
    }

    /// The pool of a quota.
    fn of_quota(&mut self, quota: &Quota, now: Timestamp) -> &mut PoolState {
        self.known(PoolKey::Quota(quota.id.clone()), Limits::of(quota, Millis(0)), now)
    }

    /// The pool of a tenant's budget.
    fn of_budget(&mut self, tenant: &Tenant, budget: &Budget, now: Timestamp) -> &mut PoolState {
        self.known(PoolKey::Budget(tenant.id.clone()), Limits::of_budget(budget), now)
    }

    /// A pool with its current limits, which may have changed since the pool was last used.
    fn known(&mut self, key: PoolKey, limits: Limits, now: Timestamp) -> &mut PoolState {
        let known = self.pools.entry(key).or_default();
        if known.limits != limits {
            known.pool = core::mem::take(&mut known.pool).at_limits(&known.limits, &limits, now);
            known.limits = limits;
        }
        known
    }
}

impl PoolState {
    /// Whether a request may be sent now, by the pool and by this isolate's share of it.
    fn check(&mut self, reserve: Option<usize>, cost: Cost, now: Timestamp) -> Result<(), Refusal> {
        let wait = self.share.wait(&self.limits, cost, now);
        match self.pool.check(&self.limits, reserve, cost, now) {
            Ok(()) if wait == Millis(0) => Ok(()),
            Ok(()) => Err(Refusal::Wait(wait)),
            Err(Refusal::Wait(longer)) => Err(Refusal::Wait(longer.max(wait))),
            Err(Refusal::TooLarge) => Err(Refusal::TooLarge),
        }
    }

    fn charge(&mut self, reserve: Option<usize>, cost: Cost, now: Timestamp) {
        self.pool.charge(&self.limits, reserve, cost, now);
        self.share.charge(&self.limits, cost, now);
    }

    fn ask(&mut self, now: Timestamp) -> Ask {
        self.share.ask(self.pool.closed(now), now)
    }

    fn note_answer(&mut self, grant: Option<&Grant>) {
        match grant {
            Some(grant) => self.share.note_answer(grant),
            None => self.share.note_failure(),
        }
    }
}

/// The index of the reserve that a request may use.
fn reserve_of(quota: &Quota, demand: &Demand) -> Option<usize> {
    demand.tenant.and_then(|tenant| quota.reserve_of(tenant))
}
