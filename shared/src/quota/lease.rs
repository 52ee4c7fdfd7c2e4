//! How one pool is divided among isolates. A [`Ledger`] stands on a DNS node: it takes an [`Ask`] of an isolate, and
//! returns a [`Grant`] for the next two seconds. The edge's side is [`super::share`].
//!
//! An isolate tells what it spent, what it could use, and what the provider said. It tells nothing of anybody. What
//! wasn't spent of its last grant goes back to the pool; what it spent beyond it is taken from the next grants.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::fleet::Allowance;
use super::{Cost, Limits, Pool, Rate, Refusal};
use crate::id::QuotaId;
use crate::time::{Millis, Timestamp};

/// How long a grant may be spent.
pub const LEASE: Millis = Millis(2_000);
/// How long after its last ask an isolate counts when a pool is divided.
const ACTIVE: Millis = Millis(5_000);
/// The most isolates that are remembered for each pool. Beyond them, the one that has been silent longest is forgotten.
pub const MAX_HOLDERS: usize = 4_096;

/// What is granted of a dimension that isn't limited.
const UNLIMITED: u64 = u32::MAX as u64;

/// Amounts of both dimensions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Amounts {
    /// Requests.
    pub requests: u64,
    /// Tokens.
    pub tokens: u64,
}

/// What an isolate posts to a node: what it tells of each quota, and asks for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asks {
    /// The isolate: a random number in hexadecimal digits. It says nothing of anybody.
    pub isolate: String,
    /// By quota.
    #[serde(default)]
    pub quotas: BTreeMap<QuotaId, Ask>,
    /// The revision of the rules by which tenants are counted.
    #[serde(default)]
    pub revision: u64,
    /// The budgets of tenants, by their positions among those of the rules: no names.
    #[serde(default)]
    pub budgets: BTreeMap<u32, Ask>,
}

/// What a node answers.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Grants {
    /// By quota. Those that the node's rules don't have are left out.
    #[serde(default)]
    pub quotas: BTreeMap<QuotaId, Grant>,
    /// By tenant. Empty if the node has another revision of the rules.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub budgets: BTreeMap<u32, Grant>,
}

impl Asks {
    /// The most quotas, and the most budgets, that are asked for at once.
    pub const MAX: usize = 256;

    /// Reads what an isolate posted, and the isolate's number.
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
                return Err(format!("{field}: are {count}; ask for {} at once at most", Self::MAX));
            }
        }
        Ok((isolate, asks))
    }
}

/// What an isolate tells of one pool, and asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ask {
    /// What it spent since its last ask that was answered.
    pub spent: Amounts,
    /// What it got back since then: estimates that were too high.
    pub returned: Amounts,
    /// What it could spend in the next seconds.
    pub want: Amounts,
    /// What its largest waiting request needs: less is of no use to it.
    pub least: Amounts,
    /// For how many more milliseconds the provider wants no requests.
    pub closed_ms: u64,
}

/// What an isolate may spend.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Grant {
    /// This much, in the next `lasts_ms`.
    pub granted: Amounts,
    /// Its part of the pool in that time: what it gets while all others want theirs.
    pub share: Amounts,
    /// How long it may be spent, in milliseconds.
    pub lasts_ms: u64,
    /// If nothing was granted: how long until its largest waiting request may fit, in milliseconds.
    pub wait_ms: u64,
    /// For how many more milliseconds the provider wants no requests, as any isolate was told.
    pub closed_ms: u64,
}

/// What a node knows of one pool.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    limits: Limits,
    pool: Pool,
    granted: Amounts,
    holders: HashMap<u64, Holder>,
}

/// What a node knows of one isolate.
#[derive(Clone, Copy, Debug)]
struct Holder {
    seen: Timestamp,
    /// What it was granted and hasn't settled.
    granted: Amounts,
    want: Amounts,
}

impl Holder {
    fn is_active(&self, now: Timestamp) -> bool {
        self.seen.after(ACTIVE).lasts(now, ACTIVE)
    }
}

/// An isolate's part of one dimension.
struct Part {
    share: u64,
    granted: u64,
}

impl From<Cost> for Amounts {
    fn from(cost: Cost) -> Self {
        Self { requests: cost.requests, tokens: cost.tokens }
    }
}

impl From<Amounts> for Cost {
    fn from(amounts: Amounts) -> Self {
        Self { requests: amounts.requests, tokens: amounts.tokens }
    }
}

impl Amounts {
    pub(super) fn minus(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(other.requests),
            tokens: self.tokens.saturating_sub(other.tokens),
        }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            tokens: self.tokens.saturating_add(other.tokens),
        }
    }
}

impl Ledger {
    /// Settles an isolate's last grant and makes the next. `limits` are those of the pool, made with a lag of
    /// [`LEASE`].
    pub fn ask(&mut self, limits: &Limits, holder: u64, ask: &Ask, now: Timestamp) -> Grant {
        self.ask_within(limits, None, holder, ask, now)
    }

    /// [`Ledger::ask`] of a node that grants no more than its allowance of a pool that several nodes share.
    pub fn ask_within(
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
        // Only what was spent later than it was returned is given back beyond the last grant.
        let back = ask.returned.minus(ask.spent);
        self.pool.true_up(limits, None, before.into(), used.into(), now);
        self.pool.refund(limits, None, back.into(), now);
        if let Some(allowance) = &mut allowance {
            allowance.settle(before.minus(used).plus(back), used.minus(before));
        }
        if ask.closed_ms > 0 {
            self.pool.close(Millis(ask.closed_ms), now);
        }
        self.make_room(holder);
        self.holders.insert(holder, Holder { seen: now, granted: Amounts::default(), want: ask.want });
        let grant = self.grant(limits, holder, ask, now);
        let grant = allowance.map_or(grant, |allowance| allowance.bound(grant, ask));
        self.pool.charge(limits, None, grant.granted.into(), now);
        self.granted = self.granted.plus(grant.granted);
        if let Some(kept) = self.holders.get_mut(&holder) {
            kept.granted = grant.granted;
        }
        grant
    }

    fn grant(&self, limits: &Limits, holder: u64, ask: &Ask, now: Timestamp) -> Grant {
        let (left_requests, left_tokens) = self.pool.left(limits, now);
        let part = |rate: Option<Rate>, left: Option<u64>, of: fn(&Amounts) -> u64| match (rate, left) {
            (Some(rate), Some(left)) => self.part(rate, left, (holder, ask), now, of),
            _ => Part { share: UNLIMITED, granted: UNLIMITED },
        };
        let requests = part(limits.requests, left_requests, |amounts| amounts.requests);
        let tokens = part(limits.tokens, left_tokens, |amounts| amounts.tokens);
        let share = Amounts { requests: requests.share, tokens: tokens.share };
        let granted = Amounts { requests: requests.granted, tokens: tokens.granted };
        let (granted, wait_ms) = match self.pool.check(limits, None, ask.least.into(), now) {
            Ok(()) => (granted, 0),
            // One dimension alone is of no use.
            Err(Refusal::Wait(wait)) => (Amounts::default(), wait.0),
            Err(Refusal::TooLarge) => (Amounts::default(), LEASE.0),
        };
        Grant { granted, share, lasts_ms: LEASE.0, wait_ms, closed_ms: self.pool.closed(now).0 }
    }

    /// One isolate's part of one dimension: what it wants, but no more than its share and what others leave of theirs.
    fn part(&self, rate: Rate, left: u64, (holder, ask): (u64, &Ask), now: Timestamp, of: fn(&Amounts) -> u64) -> Part {
        // Of a budget, which holds far more than comes back in a lease, half of what is left is divided.
        let worth = rate.refilled(LEASE).max(left / 2).max(1);
        let others = self.holders.iter().filter(|(id, other)| **id != holder && other.is_active(now));
        let wants: Vec<u64> = others.map(|(_, other)| of(&other.want)).collect();
        let share = worth / (wants.len() as u64 + 1);
        let wanted = wants.iter().fold(0u64, |sum, want| sum.saturating_add(*want.min(&share)));
        let most = share.max(worth.saturating_sub(wanted)).min(left);
        Part { share, granted: of(&ask.want).min(most).max(of(&ask.least)) }
    }

    /// All that was granted.
    #[must_use]
    pub fn granted(&self) -> Amounts {
        self.granted
    }

    /// How many isolates asked within the last seconds.
    #[must_use]
    pub fn active(&self, now: Timestamp) -> usize {
        self.holders.values().filter(|holder| holder.is_active(now)).count()
    }

    /// How many isolates are remembered.
    #[must_use]
    pub fn holders(&self) -> usize {
        self.holders.len()
    }

    /// Forgets the isolate that has been silent longest, if there are too many.
    fn make_room(&mut self, holder: u64) {
        if self.holders.len() < MAX_HOLDERS || self.holders.contains_key(&holder) {
            return;
        }
        let silent = self.holders.iter().min_by_key(|(id, holder)| (holder.seen, **id)).map(|(id, _)| *id);
        silent.and_then(|id| self.holders.remove(&id));
    }
}
