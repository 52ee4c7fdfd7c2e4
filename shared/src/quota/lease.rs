//! Divides a pool (the quota of a provider's account) among the isolates of the edge, which are the running instances
//! of the Worker. A DNS node holds one [`Ledger`] per pool: the ledger takes an [`Ask`] of an isolate, and returns a
//! [`Grant`] for the next two seconds. The edge's part of the protocol is [`super::share`].
//!
//! An isolate reports how much it spent, how much it could use, and whether the provider refuses requests. A report
//! holds nothing about clients. Unspent units of the isolate's last grant go back to the pool. Units that it spent
//! beyond the grant are taken from its next grants.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::amounts::Amounts;
use super::fleet::{Allowance, part};
use super::{Limits, Pool, Rate, Refusal};
use crate::id::QuotaId;
use crate::time::{Millis, Timestamp};

/// How long a grant may be spent.
pub const LEASE: Millis = Millis(2_000);
/// An isolate gets a part of the pool until this long after its last ask.
const ACTIVE: Millis = Millis(5_000);
/// The most isolates that are remembered for each pool. If there are more, the isolate with the oldest ask is
/// forgotten.
pub const MAX_HOLDERS: usize = 4_096;

/// The grant for a dimension without a limit.
const UNLIMITED: u64 = u32::MAX as u64;

/// The body that an isolate posts to a node: one [`Ask`] per quota and per budget.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asks {
    /// The isolate: a random number in hexadecimal digits, from which nothing about clients can be learned.
    pub isolate: String,
    /// The asks by quota.
    #[serde(default)]
    pub quotas: BTreeMap<QuotaId, Ask>,
    /// The revision of the rules that the indexes of tenants refer to.
    #[serde(default)]
    pub revision: u64,
    /// The asks for tenants' budgets, by the tenant's index in the rules, so that no names are sent.
    #[serde(default)]
    pub budgets: BTreeMap<u32, Ask>,
}

/// The body of a node's answer.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Grants {
    /// The grants by quota. Quotas that the node's rules don't have are left out.
    #[serde(default)]
    pub quotas: BTreeMap<QuotaId, Grant>,
    /// The grants by tenant. Empty if the node has another revision of the rules.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub budgets: BTreeMap<u32, Grant>,
}

impl Asks {
    /// The most quotas, and the most budgets, in one body.
    pub const MAX: usize = 256;

    /// Reads the body that an isolate posted. Returns the isolate's number too.
    ///
    /// # Errors
    /// What is wrong, and how to mend it.
    pub fn read(bytes: &[u8]) -> Result<(u64, Self), String> {
        let asks: Self = serde_json::from_slice(bytes).map_err(|error| {
            format!("{error}; write {{\"isolate\": \"0123abcd\", \"quotas\": {{\"NAME\": {{…}}}}}}")
        })?;
        let digits = asks.isolate.bytes().all(|byte| byte.is_ascii_hexdigit());
        let isolate = u64::from_str_radix(&asks.isolate, 16).ok().filter(|_| digits);
        let isolate = isolate.ok_or("isolate: isn't 1 to 16 hexadecimal digits; send a random number")?;
        for (field, count) in [("quotas", asks.quotas.len()), ("budgets", asks.budgets.len())] {
            if count > Self::MAX {
                return Err(format!("{field}: has {count} entries; at most {} are allowed", Self::MAX));
            }
        }
        Ok((isolate, asks))
    }
}

/// What an isolate reports about one pool, and the amounts that it asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ask {
    /// The amounts that the isolate spent since its last answered ask.
    pub spent: Amounts,
    /// The amounts that came back since then, because estimates were too high.
    pub returned: Amounts,
    /// The amounts that the isolate could spend in the next seconds.
    pub want: Amounts,
    /// The cost of the largest waiting request. A smaller grant would be useless.
    pub least: Amounts,
    /// For how many more milliseconds the provider refuses requests.
    pub closed_ms: u64,
}

/// The node's answer to one [`Ask`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Grant {
    /// The amounts that the isolate may spend in the next `lasts_ms`.
    pub granted: Amounts,
    /// The isolate's equal share of the pool in that time. It gets this much even if all other isolates want theirs.
    pub share: Amounts,
    /// How long the grant may be spent, in milliseconds.
    pub lasts_ms: u64,
    /// If nothing was granted: the time until the largest waiting request may fit, in milliseconds.
    pub wait_ms: u64,
    /// For how many more milliseconds the provider refuses requests, as any isolate reported.
    pub closed_ms: u64,
}

/// The state of one pool at a node.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    limits: Limits,
    pool: Pool,
    /// The sum of all grants.
    granted: Amounts,
    holders: HashMap<u64, Holder>,
}

/// The state of one isolate at a node.
#[derive(Clone, Copy, Debug)]
struct Holder {
    /// The time of the isolate's last ask.
    last_ask: Timestamp,
    /// The isolate's last grant. Its next ask reports how much of it was spent.
    granted: Amounts,
    /// Whether the grant was taken from a pool that nodes share, so that its unspent units go back to that pool.
    is_shared: bool,
    /// The amounts that the isolate last asked for.
    want: Amounts,
}

impl Holder {
    /// Whether the isolate gets a part of the pool.
    fn is_active(&self, now: Timestamp) -> bool {
        self.last_ask.after(ACTIVE).lasts(now, ACTIVE)
    }
}

/// An isolate's part of one dimension.
struct IsolatePart {
    share: u64,
    granted: u64,
}

impl Ledger {
    /// Settles an isolate's last grant and returns its next grant. `limits` are the limits of the pool, made with a lag
    /// of [`LEASE`].
    pub fn ask(&mut self, limits: &Limits, holder: u64, ask: &Ask, now: Timestamp) -> Grant {
        self.ask_within(limits, None, holder, ask, now)
    }

    /// As [`Ledger::ask`], for a pool that this many nodes share: the node grants no more than its allowance. If it
    /// can't reach the fleet's store, it grants its part of the pool.
    pub fn ask_in_fleet(
        &mut self,
        limits: &Limits,
        (allowance, nodes): (&mut Allowance, u32),
        holder: u64,
        ask: &Ask,
        now: Timestamp,
    ) -> Grant {
        if allowance.is_cut_off(now) {
            allowance.note_demand(ask.want, ask.least);
            return self.ask(&part(limits, nodes), holder, ask, now);
        }
        self.ask_within(limits, Some(allowance), holder, ask, now)
    }

    /// Settles an isolate's last grant and returns its next grant, within the allowance if there is one.
    fn ask_within(
        &mut self,
        limits: &Limits,
        mut allowance: Option<&mut Allowance>,
        holder: u64,
        ask: &Ask,
        now: Timestamp,
    ) -> Grant {
        if self.limits != *limits {
            self.pool = core::mem::take(&mut self.pool).at_limits(&self.limits, limits, now);
            self.limits = limits.clone();
        }
        let before = self.holders.get(&holder).map_or_else(Amounts::default, |holder| holder.granted);
        let used = ask.spent.minus(ask.returned);
        // If more came back than was spent, the difference belongs to earlier grants.
        let back = ask.returned.minus(ask.spent);
        self.pool.true_up(limits, None, before.into(), used.into(), now);
        self.pool.refund(limits, None, back.into(), now);
        let was_shared = self.holders.get(&holder).is_none_or(|holder| holder.is_shared);
        if let Some(allowance) = allowance.as_mut().filter(|_| was_shared) {
            allowance.settle(before.minus(used).plus(back), used.minus(before));
        }
        if ask.closed_ms > 0 {
            self.pool.close(Millis(ask.closed_ms), now);
        }
        self.make_room(holder);
        self.holders.insert(
            holder,
            Holder { last_ask: now, granted: Amounts::default(), is_shared: allowance.is_some(), want: ask.want },
        );
        let grant = self.grant(limits, holder, ask, now);
        let bound = allowance.map(|allowance| allowance.bound(grant.granted, ask.want, ask.least));
        let grant = match bound {
            None => grant,
            Some(Ok(granted)) => Grant { granted, ..grant },
            Some(Err(wait)) => Grant { granted: Amounts::default(), wait_ms: grant.wait_ms.max(wait.0), ..grant },
        };
        self.pool.charge(limits, None, grant.granted.into(), now);
        self.granted = self.granted.plus(grant.granted);
        if let Some(holder) = self.holders.get_mut(&holder) {
            holder.granted = grant.granted;
        }
        grant
    }

    /// The grant for an ask, before it is charged.
    fn grant(&mut self, limits: &Limits, holder: u64, ask: &Ask, now: Timestamp) -> Grant {
        let (left_requests, left_tokens) = self.pool.left(limits, now);
        let part = |rate: Option<Rate>, left: Option<u64>, of: fn(&Amounts) -> u64| match (rate, left) {
            (Some(rate), Some(left)) => self.part(rate, left, (holder, ask), now, of),
            _ => IsolatePart { share: UNLIMITED, granted: UNLIMITED },
        };
        let requests = part(limits.requests, left_requests, |amounts| amounts.requests);
        let tokens = part(limits.tokens, left_tokens, |amounts| amounts.tokens);
        let share = Amounts { requests: requests.share, tokens: tokens.share };
        let granted = Amounts { requests: requests.granted, tokens: tokens.granted };
        let (granted, wait_ms) = match self.pool.check(limits, None, ask.least.into(), now) {
            Ok(()) => (granted, 0),
            // If requests or tokens don't fit, the other dimension alone would be useless.
            Err(Refusal::Wait(wait)) => (Amounts::default(), wait.0),
            Err(Refusal::TooLarge) => (Amounts::default(), LEASE.0),
        };
        Grant { granted, share, lasts_ms: LEASE.0, wait_ms, closed_ms: self.pool.closed(now).0 }
    }

    /// One isolate's part of one dimension: the wanted amount, but at most its share and what other isolates leave of
    /// their shares.
    fn part(
        &self,
        rate: Rate,
        left: u64,
        (holder, ask): (u64, &Ask),
        now: Timestamp,
        of: fn(&Amounts) -> u64,
    ) -> IsolatePart {
        // A budget holds far more units than come back during a lease. So at least half of the units left are divided
        // among isolates.
        let worth = rate.refilled(LEASE).max(left / 2).max(1);
        let others = self.holders.iter().filter(|(id, other)| **id != holder && other.is_active(now));
        let wants: Vec<u64> = others.map(|(_, other)| of(&other.want)).collect();
        let share = worth / (wants.len() as u64 + 1);
        let wanted = wants.iter().fold(0u64, |sum, want| sum.saturating_add(*want.min(&share)));
        let most = share.max(worth.saturating_sub(wanted)).min(left);
        IsolatePart { share, granted: of(&ask.want).min(most).max(of(&ask.least)) }
    }

    /// The sum of all grants.
    #[must_use]
    pub fn granted(&self) -> Amounts {
        self.granted
    }

    /// How many requests and tokens of the pool are left; `None` for a dimension without a limit.
    #[must_use]
    pub fn left(&self, now: Timestamp) -> (Option<u64>, Option<u64>) {
        self.pool.left(&self.limits, now)
    }

    /// How many isolates asked within the last 5 seconds.
    #[must_use]
    pub fn active(&self, now: Timestamp) -> usize {
        self.holders.values().filter(|holder| holder.is_active(now)).count()
    }

    /// How many isolates are remembered.
    #[must_use]
    pub fn holders(&self) -> usize {
        self.holders.len()
    }

    /// If there are too many isolates, forgets the isolate with the oldest ask.
    fn make_room(&mut self, holder: u64) {
        if self.holders.len() < MAX_HOLDERS || self.holders.contains_key(&holder) {
            return;
        }
        let silent = self.holders.iter().min_by_key(|(id, holder)| (holder.last_ask, **id)).map(|(id, _)| *id);
        silent.and_then(|id| self.holders.remove(&id));
    }
}
