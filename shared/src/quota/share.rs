//! An isolate's part of a pool. An isolate is a running instance of the Worker; a pool is the quota of a provider's
//! account. Takes the costs of sent requests and the [`Grant`]s of a node; returns whether one more request fits, and
//! the next [`Ask`] for the node. Called by the edge. The node's part of the protocol is [`super::lease`]. A grant
//! gives the isolate a lease: units that it may spend for a short time.
//!
//! If no node answers, an isolate spends half of its last share for a minute. After that it is limited by the
//! provider's headers alone, and so is an isolate that never had a grant. The next ask reports everything that was
//! spent meanwhile.

use super::amounts::Amounts;
use super::lease::{Ask, Grant, LEASE};
use super::{Bucket, Cost, LONGEST_WAIT, Limits, Rate};
use crate::time::{Millis, Timestamp};

/// How long an isolate uses half of its last share after its last grant ended.
const HALF_FOR: Millis = Millis(60_000);
/// The shortest time between two asks.
const PAUSE: Millis = Millis(250);
/// The shortest time between two asks after a failed ask.
const PAUSE_AFTER_FAILURE: Millis = Millis(1_000);
/// After this time an unanswered ask counts as failed.
const UNANSWERED: Millis = Millis(5_000);

/// The part of a pool that an isolate may spend.
#[derive(Clone, Debug, Default)]
pub struct Share {
    lease: Option<Lease>,
    /// The amounts spent since the last answered ask, without those in `reporting`.
    spent: Amounts,
    /// The amounts that came back since the last answered ask, without those in `reporting`.
    returned: Amounts,
    /// The spent and returned amounts in the ask that is under way.
    reporting: Option<(Amounts, Amounts)>,
    /// The cost of all requests since the last ask, whether they were sent or not.
    demand: Amounts,
    /// The cost of the largest request that didn't fit since the last ask.
    lacked: Amounts,
    /// The time of the last ask.
    asked_at: Option<Timestamp>,
    /// Whether the last ask failed.
    failed: bool,
    /// The end of the time for which the provider refuses requests, as another isolate reported to the node. An ask
    /// never reports this time back to the node, because each report would prolong the time by its own delay.
    closed_until: Option<Timestamp>,
}

/// A grant that was received.
#[derive(Clone, Copy, Debug)]
struct Lease {
    granted: Amounts,
    /// The part of `granted` that isn't spent.
    left: Amounts,
    /// The isolate's share of the pool in the time of a lease.
    share: Amounts,
    /// The time until a request may fit, if nothing was granted.
    wait: Millis,
    /// The end of the lease.
    until: Timestamp,
    /// After the lease ended: how much was taken of half of the share, by dimension: requests, tokens.
    half: [Bucket; 2],
}

/// The limit that an isolate follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Basis {
    /// A node's grant.
    Lease,
    /// Half of the last share, because no node answers.
    Half,
    /// The pool's own limits and the provider's headers.
    Alone,
}

impl Share {
    /// The limit that the isolate follows now.
    #[must_use]
    pub fn basis(&self, now: Timestamp) -> Basis {
        match &self.lease {
            Some(lease) if lease.until.lasts(now, LEASE) => Basis::Lease,
            Some(lease) if lease.until.after(HALF_FOR).lasts(now, Millis(LEASE.0 + HALF_FOR.0)) => Basis::Half,
            _ => Basis::Alone,
        }
    }

    /// For how much longer the provider refuses requests, as the node reported; 0 if it serves. This may be longer than
    /// the lease.
    #[must_use]
    pub fn closed(&self, now: Timestamp) -> Millis {
        let until = self.closed_until.filter(|until| until.lasts(now, LONGEST_WAIT));
        until.map_or(Millis(0), |until| until.since(now))
    }

    /// How long a request has to wait until it fits; 0 if it fits now.
    #[must_use]
    pub fn wait(&self, limits: &Limits, cost: Cost, now: Timestamp) -> Millis {
        self.wait_by_lease(limits, cost, now).max(self.closed(now))
    }

    /// How long a request has to wait, by the lease or by half of the last share.
    fn wait_by_lease(&self, limits: &Limits, cost: Cost, now: Timestamp) -> Millis {
        let (basis, Some(lease)) = (self.basis(now), &self.lease) else { return Millis(0) };
        match basis {
            Basis::Lease if cost.requests <= lease.left.requests && cost.tokens <= lease.left.tokens => Millis(0),
            // The next ask may bring a new grant.
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

    /// Records a request that didn't fit, so that the next ask asks for enough.
    pub fn note_lack(&mut self, cost: Cost) {
        let cost = Amounts::from(cost);
        self.demand = self.demand.plus(cost);
        self.lacked =
            Amounts { requests: self.lacked.requests.max(cost.requests), tokens: self.lacked.tokens.max(cost.tokens) };
    }

    /// Takes the cost of a request.
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

    /// Gives back units that weren't used after all.
    pub fn refund(&mut self, cost: Cost) {
        let amounts = Amounts::from(cost);
        self.returned = self.returned.plus(amounts);
        if let Some(lease) = &mut self.lease {
            let most = lease.granted;
            let left = lease.left.plus(amounts);
            lease.left = Amounts { requests: left.requests.min(most.requests), tokens: left.tokens.min(most.tokens) };
        }
    }

    /// Whether a node should be asked now: when half of the lease's time is over, half of its units are spent, or a
    /// request didn't fit.
    #[must_use]
    pub fn is_due(&self, now: Timestamp) -> bool {
        let since = |span: Millis| self.asked_at.is_none_or(|asked| !asked.after(span).lasts(now, span));
        if self.reporting.is_some() {
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

    /// The ask for a node. The caller has to call [`Share::note_answer`] or [`Share::note_failure`] afterwards.
    pub fn ask(&mut self, closed: Millis, now: Timestamp) -> Ask {
        if self.reporting.is_some() {
            self.note_failure();
        }
        let spent = core::mem::take(&mut self.spent);
        let returned = core::mem::take(&mut self.returned);
        let demand = core::mem::take(&mut self.demand);
        let lacked = core::mem::take(&mut self.lacked);
        self.reporting = Some((spent, returned));
        self.asked_at = Some(now);
        // The demand was measured during half a lease, so it is doubled. A quarter more lets the grant grow.
        let grown = |units: u64| units.saturating_mul(2).saturating_add(units / 4);
        let want = Amounts { requests: grown(demand.requests).max(1), tokens: grown(demand.tokens) };
        let least = Amounts { requests: lacked.requests.max(1), tokens: lacked.tokens };
        Ask { spent, returned, want, least, closed_ms: closed.0 }
    }

    /// Applies a node's answer. The lease begins at the time of the ask.
    pub fn note_answer(&mut self, grant: &Grant) {
        let (Some(_), Some(asked_at)) = (self.reporting.take(), self.asked_at) else { return };
        self.failed = false;
        self.closed_until = (grant.closed_ms > 0).then(|| asked_at.after(Millis(grant.closed_ms).min(LONGEST_WAIT)));
        // Units that were spent while the ask was under way are taken from the grant.
        let left = grant.granted.minus(self.spent.minus(self.returned));
        self.lease = Some(Lease {
            granted: grant.granted,
            left,
            share: grant.share,
            wait: Millis(grant.wait_ms).min(HALF_FOR),
            until: asked_at.after(Millis(grant.lasts_ms).min(LEASE)),
            half: [Bucket::default(); 2],
        });
    }

    /// Records that a node didn't answer. The next ask reports the amounts of this ask again.
    pub fn note_failure(&mut self) {
        self.failed = true;
        if let Some((spent, returned)) = self.reporting.take() {
            self.spent = self.spent.plus(spent);
            self.returned = self.returned.plus(returned);
        }
    }
}

impl Lease {
    /// The rate of half the share, for each limited dimension.
    fn halves(&self, limits: &Limits) -> impl Iterator<Item = (usize, Rate)> + use<> {
        let halves = [(limits.requests, self.share.requests / 2), (limits.tokens, self.share.tokens / 2)];
        let slowed = |(at, (rate, units)): (usize, (Option<Rate>, u64))| Some((at, rate?.slowed(units, LEASE)));
        halves.into_iter().enumerate().filter_map(slowed)
    }
}
