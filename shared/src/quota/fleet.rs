//! How one pool is divided among the nodes of a fleet. The fleet's store keeps the [`Stamps`] of each pool, and a node
//! changes them by compare-and-set only. A node takes an [`Allowance`] ahead of what isolates ask for, and its
//! [`Ledger`](super::Ledger) grants leases of it.
//!
//! The stamps are times by the store's clock, so nodes' clocks are never compared. A node that hears nothing of the
//! store grants a part of the pool as large as itself in the fleet: while `c` of `n` nodes are cut off, all together
//! grant at most `1 + c / n` of the pool.

use serde::{Deserialize, Serialize};

use super::lease::{Amounts, Ask, Grant};
use super::{Bucket, Limits, Rate};
use crate::rules::Ratio;
use crate::time::{Millis, Timestamp};

/// How long units may lie at a node between store and lease: a part of the pool's lag.
pub const HELD_FOR: Millis = Millis(3_000);
/// How often a node asks the store.
const TURN: Millis = Millis(500);
/// For how long a node uses what it holds while the store doesn't answer.
const BELIEVED_FOR: Millis = Millis(3_000);
/// The wait that an isolate is told while the allowance is short: the next turn may bring more.
const SHORT_WAIT: Millis = Millis(200);

/// What the store keeps of one pool: when each dimension will be full again, in microseconds of the store's clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stamps {
    requests_full_at_us: i64,
    tokens_full_at_us: i64,
}

/// A pool that nobody used.
impl Default for Stamps {
    fn default() -> Self {
        Self { requests_full_at_us: i64::MIN, tokens_full_at_us: i64::MIN }
    }
}

/// What a node does with a pool of the store in one turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Turn {
    /// What it gives back, because it has no use for it.
    pub back: Amounts,
    /// What isolates spent beyond what was granted. It is charged, whether it fits or not.
    pub owed: Amounts,
    /// What it wants.
    pub want: Amounts,
}

impl Turn {
    /// Whether the store needn't be asked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Stamps {
    /// Reads what the store keeps.
    ///
    /// # Errors
    /// What is wrong with it. Whoever finds this leaves the pool alone, and grants its part.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(bytes).map_err(|error| format!("isn't the state of a quota: {error}"))
    }

    /// What the store is to keep.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The stamps after a turn, and how much of what was wanted the pool gave. `now` is the store's time.
    ///
    /// ```
    /// use bailiwick_rules::quota::{Amounts, Limit, Limits, Stamps, Turn};
    /// use bailiwick_rules::{rules::Ratio, time::{Millis, Timestamp}};
    ///
    /// let (per, burst) = (Millis(60_000), Millis(10_000));
    /// let limit = Limit { amount: 600, per, burst, headroom: Ratio(0), lag: Millis(0) };
    /// let limits = Limits::new(Some(limit), None, Vec::new());
    /// let want = Amounts { requests: 80, tokens: 9 };
    /// let (stamps, first) = Stamps::default().turn(&limits, &Turn { want, ..Turn::default() }, Timestamp(0));
    /// let (_, second) = stamps.turn(&limits, &Turn { want, ..Turn::default() }, Timestamp(0));
    /// assert_eq!((first.requests, second.requests), (80, 20));
    /// assert_eq!(second.tokens, 9, "tokens aren't limited");
    /// ```
    #[must_use]
    pub fn turn(self, limits: &Limits, turn: &Turn, now: Timestamp) -> (Self, Amounts) {
        let dimension = |stamp: i64, rate: Option<Rate>, of: fn(&Amounts) -> u64| {
            let Some(rate) = rate else { return (stamp, of(&turn.want)) };
            let mut bucket = Bucket::of_stamp(stamp, rate);
            bucket.refund(rate, of(&turn.back), now);
            bucket.charge(rate, of(&turn.owed), now);
            let got = of(&turn.want).min(bucket.left(rate, now));
            bucket.charge(rate, got, now);
            (bucket.stamp(rate), got)
        };
        let (requests_full_at_us, requests) =
            dimension(self.requests_full_at_us, limits.requests, |amounts| amounts.requests);
        let (tokens_full_at_us, tokens) = dimension(self.tokens_full_at_us, limits.tokens, |amounts| amounts.tokens);
        (Self { requests_full_at_us, tokens_full_at_us }, Amounts { requests, tokens })
    }
}

/// What a node may grant of a pool, and what it learned of the demand for it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allowance {
    held: Amounts,
    owed: Amounts,
    /// What isolates were granted since the last turn.
    granted: Amounts,
    /// What isolates could have used since then, beyond what there was.
    lacking: Amounts,
    /// The demand of the turn before.
    demand: Amounts,
    turn_began: Option<Timestamp>,
    /// When the store last answered or was given up. Turns are counted from there, so that nodes whose changes collide
    /// drift apart.
    turn_ended: Option<Timestamp>,
    has_answered: bool,
    /// Since when the store hasn't answered.
    failing_since: Option<Timestamp>,
}

impl Allowance {
    /// What an isolate is granted: nothing if there isn't enough for its largest waiting request.
    pub(super) fn bound(&mut self, grant: Grant, ask: &Ask) -> Grant {
        let has = |held: u64, wanted: u64| wanted.min(held);
        let granted = Amounts {
            requests: has(self.held.requests, grant.granted.requests),
            tokens: has(self.held.tokens, grant.granted.tokens),
        };
        let lacks = |of: fn(&Amounts) -> u64| of(&ask.want).max(of(&ask.least)).saturating_sub(of(&granted));
        let lacking = Amounts { requests: lacks(|amounts| amounts.requests), tokens: lacks(|amounts| amounts.tokens) };
        self.lacking = self.lacking.plus(lacking);
        if ask.least.minus(granted) != Amounts::default() {
            let wait_ms = grant.wait_ms.max(SHORT_WAIT.0);
            return Grant { granted: Amounts::default(), wait_ms, ..grant };
        }
        self.held = self.held.minus(granted);
        self.granted = self.granted.plus(granted);
        Grant { granted, ..grant }
    }

    /// Takes back what an isolate didn't use of a grant, and notes what it used beyond it.
    pub(super) fn settle(&mut self, unused: Amounts, over: Amounts) {
        self.held = self.held.plus(unused);
        let short = over.minus(self.held);
        self.held = self.held.minus(over);
        self.owed = self.owed.plus(short);
    }

    /// Whether the store should be asked: a turn is over, and there is something to ask for, give back or charge.
    #[must_use]
    pub fn is_due(&self, now: Timestamp) -> bool {
        let is_over = self.turn_ended.is_none_or(|at| !at.after(TURN).lasts(now, TURN));
        let amounts = [self.held, self.owed, self.granted, self.lacking, self.demand];
        is_over && amounts.iter().any(|amounts| *amounts != Amounts::default())
    }

    /// Begins a turn: says what to do with the pool of the store. What is given back can't be granted any more.
    pub fn begin_turn(&mut self, now: Timestamp) -> Turn {
        let span = self.turn_began.map_or(TURN, |at| now.since(at)).0.clamp(100, 10_000);
        // For a second.
        let scaled = |units: u64| units.saturating_mul(1_000) / span;
        let seen = Amounts {
            requests: scaled(self.granted.requests).saturating_add(self.lacking.requests),
            tokens: scaled(self.granted.tokens).saturating_add(self.lacking.tokens),
        };
        let demand =
            Amounts { requests: seen.requests.max(self.demand.requests), tokens: seen.tokens.max(self.demand.tokens) };
        (self.demand, self.granted, self.lacking) = (seen, Amounts::default(), Amounts::default());
        self.turn_began = Some(now);
        let back = self.held.minus(demand.plus(demand));
        self.held = self.held.minus(back);
        Turn { back, owed: core::mem::take(&mut self.owed), want: demand.minus(self.held) }
    }

    /// Notes what the pool gave.
    pub fn receive(&mut self, got: Amounts, now: Timestamp) {
        self.held = self.held.plus(got);
        (self.has_answered, self.failing_since, self.turn_ended) = (true, None, Some(now));
    }

    /// Notes that the store didn't answer. What was to be given back is lost: the store may have taken the turn after
    /// all. So is what is held, once the node is taken to be cut off.
    pub fn fail(&mut self, turn: &Turn, now: Timestamp) {
        self.owed = self.owed.plus(turn.owed);
        self.failing_since.get_or_insert(now);
        self.turn_ended = Some(now);
        if self.is_cut_off(now) {
            self.held = Amounts::default();
        }
    }

    /// Whether the store has been silent for so long that the node grants its [`part`] of the pool instead.
    #[must_use]
    pub fn is_cut_off(&self, now: Timestamp) -> bool {
        let is_long = |since: Timestamp| !since.after(BELIEVED_FOR).lasts(now, BELIEVED_FOR);
        self.failing_since.is_some_and(|since| !self.has_answered || is_long(since))
    }

    /// What may be granted now.
    #[must_use]
    pub fn held(&self) -> Amounts {
        self.held
    }
}

/// The limits of one of so many nodes that can't reach the store.
#[must_use]
pub fn part(limits: &Limits, nodes: u32) -> Limits {
    let ratio = Ratio(1_000_000 / nodes.max(1));
    let share = |rate: Option<Rate>| rate.map(|rate| rate.share(ratio));
    Limits { requests: share(limits.requests), tokens: share(limits.tokens), reserves: limits.reserves.clone() }
}

#[cfg(test)]
mod tests;
