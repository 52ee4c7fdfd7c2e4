//! An isolate's part of a pool. Takes what it sends and the [`Grant`]s of a node; says whether one more request fits,
//! and what to ask the node for. Called by the edge. The node's side is [`super::lease`].
//!
//! While nodes are silent, an isolate goes on with half of its last share for a minute, then by the provider's headers
//! alone. One that never had a grant goes by these too. What it sends meanwhile is told in the next ask.

use super::lease::{Amounts, Ask, Grant, LEASE};
use super::{Bucket, Cost, LONGEST_WAIT, Limits, Rate};
use crate::time::{Millis, Timestamp};

/// How long an isolate uses half of its last share after its last grant ended.
const HALF_FOR: Millis = Millis(60_000);
/// The shortest time between two asks.
const PAUSE: Millis = Millis(250);
/// After a failure: the time between two asks.
const PAUSE_AFTER_FAILURE: Millis = Millis(1_000);
/// How long an ask may be under way before it counts as failed.
const UNANSWERED: Millis = Millis(5_000);

/// What an isolate may spend of a pool.
#[derive(Clone, Debug, Default)]
pub struct Share {
    lease: Option<Lease>,
    /// Spent and returned since the last ask that was answered, without what the ask under way tells.
    spent: Amounts,
    returned: Amounts,
    /// What the ask under way tells.
    telling: Option<(Amounts, Amounts)>,
    /// What requests needed since the last ask, sent or not.
    demand: Amounts,
    /// What the largest request that didn't fit needed.
    lacked: Amounts,
    asked: Option<Timestamp>,
    failed: bool,
    /// Until when the provider wants no requests, as another isolate told the node. An ask never tells it again: that
    /// would add the time on the way to it each time.
    closed_until: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    granted: Amounts,
    /// What is left of it.
    left: Amounts,
    /// The isolate's part of the pool in the time of a lease.
    share: Amounts,
    wait: Millis,
    until: Timestamp,
    /// What was taken of half of the share, after it ended.
    half: [Bucket; 2],
}

/// By what an isolate goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Basis {
    /// A node's grant.
    Lease,
    /// Half of the last share, because nodes are silent.
    Half,
    /// The pool's own limits and the provider's headers.
    Alone,
}

impl Share {
    /// By what the isolate goes now.
    #[must_use]
    pub fn basis(&self, now: Timestamp) -> Basis {
        match &self.lease {
            Some(lease) if lease.until.lasts(now, LEASE) => Basis::Lease,
            Some(lease) if lease.until.after(HALF_FOR).lasts(now, Millis(LEASE.0 + HALF_FOR.0)) => Basis::Half,
            _ => Basis::Alone,
        }
    }

    /// For how much longer the provider wants no requests, as the node said; zero if it serves. It counts beyond the
    /// end of the lease.
    #[must_use]
    pub fn closed(&self, now: Timestamp) -> Millis {
        let until = self.closed_until.filter(|until| until.lasts(now, LONGEST_WAIT));
        until.map_or(Millis(0), |until| until.since(now))
    }

    /// How long a request has to wait until it fits; zero if it does now.
    #[must_use]
    pub fn wait(&self, limits: &Limits, cost: Cost, now: Timestamp) -> Millis {
        self.wait_by_lease(limits, cost, now).max(self.closed(now))
    }

    fn wait_by_lease(&self, limits: &Limits, cost: Cost, now: Timestamp) -> Millis {
        let (basis, Some(lease)) = (self.basis(now), &self.lease) else { return Millis(0) };
        match basis {
            Basis::Lease if cost.requests <= lease.left.requests && cost.tokens <= lease.left.tokens => Millis(0),
            // The next grant comes with the next ask.
            Basis::Lease => lease.wait.max(PAUSE),
            Basis::Half => {
                let waits = lease.halves(limits).map(|(at, rate)| {
                    let units = [cost.requests, cost.tokens][at];
                    lease.half[at].wait(rate, units, 0, now).unwrap_or(HALF_FOR)
                });
                waits.max().unwrap_or_default()
            }
            Basis::Alone => Millis(0),
        }
    }

    /// Notes a request that didn't fit, so that the next ask tells of it.
    pub fn lacked(&mut self, cost: Cost) {
        let cost = Amounts::from(cost);
        self.demand = self.demand.plus(cost);
        self.lacked =
            Amounts { requests: self.lacked.requests.max(cost.requests), tokens: self.lacked.tokens.max(cost.tokens) };
    }

    /// Takes what a request costs.
    pub fn charge(&mut self, limits: &Limits, cost: Cost, now: Timestamp) {
        let basis = self.basis(now);
        let amounts = Amounts::from(cost);
        self.spent = self.spent.plus(amounts);
        self.demand = self.demand.plus(amounts);
        let Some(lease) = &mut self.lease else { return };
        lease.left = lease.left.minus(amounts);
        if basis == Basis::Half {
            for (at, rate) in lease.halves(limits) {
                lease.half[at].charge(rate, [cost.requests, cost.tokens][at], now);
            }
        }
    }

    /// Gives back what wasn't used after all.
    pub fn refund(&mut self, cost: Cost) {
        let amounts = Amounts::from(cost);
        self.returned = self.returned.plus(amounts);
        if let Some(lease) = &mut self.lease {
            let most = lease.granted;
            let left = lease.left.plus(amounts);
            lease.left = Amounts { requests: left.requests.min(most.requests), tokens: left.tokens.min(most.tokens) };
        }
    }

    /// Whether a node should be asked now: early in a lease's second half, or when it is nearly spent.
    #[must_use]
    pub fn is_due(&self, now: Timestamp) -> bool {
        let since = |span: Millis| self.asked.is_none_or(|asked| !asked.after(span).lasts(now, span));
        if self.telling.is_some() {
            return since(UNANSWERED);
        }
        let pause = if self.failed { PAUSE_AFTER_FAILURE } else { PAUSE };
        let is_low = |lease: &Lease| {
            let (left, granted) = (lease.left, lease.granted);
            left.requests.saturating_mul(2) <= granted.requests || left.tokens.saturating_mul(2) <= granted.tokens
        };
        let is_old = since(Millis(LEASE.0 / 2));
        since(pause) && (is_old || self.lacked != Amounts::default() || self.lease.as_ref().is_none_or(is_low))
    }

    /// What to ask a node for. Then [`Share::answered`] or [`Share::failed`] has to be called.
    pub fn ask(&mut self, closed: Millis, now: Timestamp) -> Ask {
        if self.telling.is_some() {
            self.failed();
        }
        let spent = core::mem::take(&mut self.spent);
        let returned = core::mem::take(&mut self.returned);
        let demand = core::mem::take(&mut self.demand);
        let lacked = core::mem::take(&mut self.lacked);
        self.telling = Some((spent, returned));
        self.asked = Some(now);
        // An ask covers about half of a lease. A quarter more lets a growing demand grow.
        let grown = |units: u64| units.saturating_mul(2).saturating_add(units / 4);
        let want = Amounts { requests: grown(demand.requests).max(1), tokens: grown(demand.tokens) };
        let least = Amounts { requests: lacked.requests.max(1), tokens: lacked.tokens };
        Ask { spent, returned, want, least, closed_ms: closed.0 }
    }

    /// Notes a node's answer. It counts from when it was asked for.
    pub fn answered(&mut self, grant: &Grant) {
        let (Some(_), Some(asked)) = (self.telling.take(), self.asked) else { return };
        self.failed = false;
        self.closed_until = (grant.closed_ms > 0).then(|| asked.after(Millis(grant.closed_ms).min(LONGEST_WAIT)));
        // What was spent while the ask was under way is taken from the grant.
        let left = grant.granted.minus(self.spent.minus(self.returned));
        self.lease = Some(Lease {
            granted: grant.granted,
            left,
            share: grant.share,
            wait: Millis(grant.wait_ms).min(HALF_FOR),
            until: asked.after(Millis(grant.lasts_ms).min(LEASE)),
            half: [Bucket::default(); 2],
        });
    }

    /// Notes that a node didn't answer. The next ask tells what this one would have told.
    pub fn failed(&mut self) {
        self.failed = true;
        if let Some((spent, returned)) = self.telling.take() {
            self.spent = self.spent.plus(spent);
            self.returned = self.returned.plus(returned);
        }
    }
}

impl Lease {
    /// Half of the share, for each dimension that is limited.
    fn halves(&self, limits: &Limits) -> impl Iterator<Item = (usize, Rate)> + use<> {
        let halves = [(limits.requests, self.share.requests / 2), (limits.tokens, self.share.tokens / 2)];
        let slowed = |(at, (rate, units)): (usize, (Option<Rate>, u64))| Some((at, rate?.slowed(units, LEASE)));
        halves.into_iter().enumerate().filter_map(slowed)
    }
}
