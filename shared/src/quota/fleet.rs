//! Divides a pool among the nodes of a fleet. The fleet's store keeps the [`Stamps`] of each pool, and nodes change
//! them by compare-and-set only. A node takes an [`Allowance`] from the store before isolates ask for it, and its
//! [`Ledger`](super::Ledger) grants leases from the allowance. An isolate is one instance of the Worker; the platform
//! runs several, which share no memory. A lease is a part of a quota that a node grants to an isolate (an instance of
//! the Worker) for a short time.
//!
//! The stamps are times of the store's clock, so the clocks of nodes are never compared. A node that can't reach the
//! store grants one n-th of the pool, where n is the number of nodes. While `c` of `n` nodes are cut off, all nodes
//! together grant at most `1 + c / n` times the pool.

use serde::{Deserialize, Serialize};

use super::amounts::Amounts;
use super::{Bucket, Limits, Rate};
use crate::rules::Ratio;
use crate::time::{Millis, Timestamp};

/// How long a node may hold units that it took from the store before it grants them. This is a part of the pool's lag.
pub const HELD_FOR: Millis = Millis(3_000);
/// How often a node asks the store, on average.
const TURN: Millis = Millis(500);
/// For how long a node grants the units that it holds while the store doesn't answer.
const BELIEVED_FOR: Millis = Millis(3_000);
/// The wait in a grant while the allowance is too small: the next turn may bring more units.
const SHORT_WAIT: Millis = Millis(200);

/// The state of one pool in the store: when each dimension will be full again, in nanoseconds of the store's clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Stamps {
    requests_full_at_ns: i64,
    tokens_full_at_ns: i64,
}

/// The stamps of an unused pool.
impl Default for Stamps {
    fn default() -> Self {
        Self { requests_full_at_ns: i64::MIN, tokens_full_at_ns: i64::MIN }
    }
}

/// The change that a node makes to a pool of the store in one turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Turn {
    /// The units that the node gives back, because it doesn't need them.
    pub back: Amounts,
    /// The units that isolates spent beyond their grants. They are charged, whether they fit or not.
    pub owed: Amounts,
    /// The units that the node wants.
    pub want: Amounts,
}

impl Turn {
    /// Whether the turn changes nothing, so that the store needn't be asked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Stamps {
    /// Reads the state of a pool in the store.
    ///
    /// # Errors
    /// What is wrong with the state. The node then leaves the store's state alone, and grants its [`part`].
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(bytes).map_err(|error| format!("isn't the state of a quota: {error}"))
    }

    /// Writes the state for the store.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The stamps after a turn, and the units that the node gets of those it wants. `now` is the store's time.
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
        let (requests_full_at_ns, requests) =
            dimension(self.requests_full_at_ns, limits.requests, |amounts| amounts.requests);
        let (tokens_full_at_ns, tokens) = dimension(self.tokens_full_at_ns, limits.tokens, |amounts| amounts.tokens);
        (Self { requests_full_at_ns, tokens_full_at_ns }, Amounts { requests, tokens })
    }
}

/// The units of a pool that a node may grant, and the demand that it observed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allowance {
    /// The units that the node took from the store and hasn't granted.
    own_part: Amounts,
    /// The units that isolates spent beyond their grants, and that the store hasn't charged yet.
    owed: Amounts,
    /// The units that isolates were granted since the last turn.
    granted: Amounts,
    /// The units that isolates asked for since the last turn and didn't get.
    lacking: Amounts,
    /// The demand in the last turn, per second.
    demand: Amounts,
    turn_began: Option<Timestamp>,
    /// When the store last answered or failed.
    turn_ended: Option<Timestamp>,
    /// The time from `turn_ended` to the next turn. It is random: if all nodes had the same rhythm, the node that
    /// always comes first would get nearly all units.
    pause: Millis,
    /// Whether the store has ever answered.
    has_answered: bool,
    /// The time of the first failure since the store last answered.
    failing_since: Option<Timestamp>,
}

impl Allowance {
    /// Limits a grant to the units that the node holds. `granted` is what the node's ledger would grant an isolate,
    /// `want` what the isolate could use, `least` what its largest waiting request needs.
    ///
    /// # Errors
    /// The time to wait, if the node doesn't hold enough for that request.
    pub(super) fn bound(&mut self, granted: Amounts, want: Amounts, least: Amounts) -> Result<Amounts, Millis> {
        let granted = Amounts {
            requests: self.own_part.requests.min(granted.requests),
            tokens: self.own_part.tokens.min(granted.tokens),
        };
        let lacks = |of: fn(&Amounts) -> u64| of(&want).max(of(&least)).saturating_sub(of(&granted));
        let lacking = Amounts { requests: lacks(|amounts| amounts.requests), tokens: lacks(|amounts| amounts.tokens) };
        self.lacking = self.lacking.plus(lacking);
        if least.minus(granted) != Amounts::default() {
            return Err(SHORT_WAIT);
        }
        self.own_part = self.own_part.minus(granted);
        self.granted = self.granted.plus(granted);
        Ok(granted)
    }

    /// Records what an isolate asks for while the store doesn't answer. So a turn is due as before, and the node
    /// notices when the store answers again.
    pub(super) fn note_demand(&mut self, want: Amounts, least: Amounts) {
        // Nothing is granted from the allowance here, so the result doesn't matter.
        let _ = self.bound(Amounts::default(), want, least);
    }

    /// Takes back the unused units of a grant, and records the units that were spent beyond the grant.
    pub(super) fn settle(&mut self, unused: Amounts, over: Amounts) {
        self.own_part = self.own_part.plus(unused);
        let short = over.minus(self.own_part);
        self.own_part = self.own_part.minus(over);
        self.owed = self.owed.plus(short);
    }

    /// Whether the store should be asked: the last turn is over, and there are units to get, give back or charge.
    #[must_use]
    pub fn is_due(&self, now: Timestamp) -> bool {
        let is_over = self.turn_ended.is_none_or(|at| !at.after(self.pause).lasts(now, self.pause));
        let amounts = [self.own_part, self.owed, self.granted, self.lacking, self.demand];
        is_over && amounts.iter().any(|amounts| *amounts != Amounts::default())
    }

    /// Begins a turn: returns the change to make to the store's pool. Units that are given back can't be granted any
    /// more.
    pub fn begin_turn(&mut self, now: Timestamp) -> Turn {
        let span = self.turn_began.map_or(TURN, |at| now.since(at)).0.clamp(100, 10_000);
        let per_second = |units: u64| units.saturating_mul(1_000) / span;
        let new_demand = Amounts {
            requests: per_second(self.granted.requests).saturating_add(self.lacking.requests),
            tokens: per_second(self.granted.tokens).saturating_add(self.lacking.tokens),
        };
        // The higher demand of the last two turns counts.
        let demand = Amounts {
            requests: new_demand.requests.max(self.demand.requests),
            tokens: new_demand.tokens.max(self.demand.tokens),
        };
        (self.demand, self.granted, self.lacking) = (new_demand, Amounts::default(), Amounts::default());
        self.turn_began = Some(now);
        let back = self.own_part.minus(demand.plus(demand));
        self.own_part = self.own_part.minus(back);
        Turn { back, owed: core::mem::take(&mut self.owed), want: demand.minus(self.own_part) }
    }

    /// Ends a turn with the units that the store gave. `random` decides when the next turn begins.
    pub fn receive(&mut self, got: Amounts, now: Timestamp, random: u64) {
        self.own_part = self.own_part.plus(got);
        (self.has_answered, self.failing_since) = (true, None);
        self.end_turn(now, random);
    }

    /// Ends a turn without an answer of the store. The units to give back are lost, because the store may have applied
    /// the turn nevertheless. If the node now counts as cut off, the units that it holds are lost too.
    pub fn fail(&mut self, turn: &Turn, now: Timestamp, random: u64) {
        self.owed = self.owed.plus(turn.owed);
        self.failing_since.get_or_insert(now);
        self.end_turn(now, random);
        if self.is_cut_off(now) {
            self.own_part = Amounts::default();
        }
    }

    /// Ends a turn. The next turn may begin after half to one and a half times the usual length of a turn.
    fn end_turn(&mut self, now: Timestamp, random: u64) {
        self.pause = Millis(TURN.0 / 2 + random % (TURN.0 + 1));
        self.turn_ended = Some(now);
    }

    /// Whether the store hasn't answered for so long that the node grants its [`part`] of the pool instead.
    #[must_use]
    pub fn is_cut_off(&self, now: Timestamp) -> bool {
        let is_long = |since: Timestamp| !since.after(BELIEVED_FOR).lasts(now, BELIEVED_FOR);
        self.failing_since.is_some_and(|since| !self.has_answered || is_long(since))
    }

    /// The units that may be granted now.
    #[must_use]
    pub fn own_part(&self) -> Amounts {
        self.own_part
    }
}

/// The limits of one node that can't reach the store: the n-th part of the pool, where `nodes` is n.
#[must_use]
pub fn part(limits: &Limits, nodes: u32) -> Limits {
    let ratio = Ratio(1_000_000 / nodes.max(1));
    let share = |rate: Option<Rate>| rate.map(|rate| rate.share(ratio));
    Limits { requests: share(limits.requests), tokens: share(limits.tokens), reserves: limits.reserves.clone() }
}

#[cfg(test)]
mod tests;
