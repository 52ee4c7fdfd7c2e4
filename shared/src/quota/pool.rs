//! A pool: the quota of a provider's account, and how much of it was taken. Takes the [`Cost`] of a request and the
//! reserve of its tenant; returns whether the request fits. Called by the edge for each attempt.
//!
//! **Reserves are guaranteed minimums.** Each tenant with a reserve has a bucket of its own, with its part of the pool.
//! The units (requests or tokens) in this bucket are kept for the tenant, so a tenant that was idle gets its part at
//! once. Units that come back while the bucket is full are free for all tenants. So the part of an idle tenant is lent
//! to others, and a single active tenant gets the whole pool.

use super::{Bucket, Dimension, LONGEST_WAIT, Limit, Rate, Reading};
use crate::rules::{Budget, Ratio};
use crate::table::Quota;
use crate::time::{Millis, Timestamp};

/// The wait after the first refusal, if the provider names no wait.
const SHORTEST_BACKOFF: Millis = Millis(1_000);
/// How many times the wait may double with further refusals: up to 64 s.
const MOST_DOUBLINGS: u8 = 6;

/// How much a pool allows. A dimension that is absent isn't limited.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    /// The rate of requests.
    pub requests: Option<Rate>,
    /// The rate of tokens, of prompts and answers together.
    pub tokens: Option<Rate>,
    /// The parts of the pool that are kept for tenants.
    pub reserves: Vec<Ratio>,
}

impl Limits {
    /// The limits of a quota in the rules. `lag` is the longest time between taking units from the pool and sending the
    /// request.
    #[must_use]
    pub fn of(quota: &Quota, lag: Millis) -> Self {
        let rule = &quota.rule;
        let limit = |amount: u64| Limit { amount, per: rule.per, burst: rule.burst, headroom: rule.headroom, lag };
        let reserves = quota.reserves.iter().map(|(_, part)| *part).collect();
        Self::new(rule.requests.map(limit), rule.tokens.map(limit), reserves)
    }

    /// The limits of a tenant's budget.
    #[must_use]
    pub fn of_budget(budget: &Budget) -> Self {
        let allowance = |amount: Option<u64>| amount.map(|amount| Rate::allowance(amount, budget.per));
        Self { requests: allowance(budget.requests), tokens: allowance(budget.tokens), reserves: Vec::new() }
    }

    /// The limits of a pool.
    #[must_use]
    pub fn new(requests: Option<Limit>, tokens: Option<Limit>, reserves: Vec<Ratio>) -> Self {
        Self { requests: requests.map(Rate::new), tokens: tokens.map(Rate::new), reserves }
    }
}

/// The units that one request takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cost {
    /// The number of requests: 1, or 0 if the request never reached the provider.
    pub requests: u64,
    /// The number of tokens.
    pub tokens: u64,
}

/// Why a request doesn't fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The request fits later, at the earliest after this time.
    Wait(Millis),
    /// The request costs more than the whole limit.
    TooLarge,
}

/// The buckets of one dimension: requests or tokens.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct DimensionBuckets {
    /// The bucket of the whole pool.
    all: Bucket,
    /// The bucket of each reserve.
    floors: Vec<Bucket>,
}

/// How much was taken of a pool. An unused pool is full.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pool {
    requests: DimensionBuckets,
    tokens: DimensionBuckets,
    /// The end of the time for which the provider refuses requests.
    closed_until: Timestamp,
    /// How many times in a row the provider refused.
    refusals: u8,
    /// When the pool was used last. If that lies in the future, the clock was set back.
    used: Timestamp,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            requests: DimensionBuckets::default(),
            tokens: DimensionBuckets::default(),
            closed_until: Timestamp(i64::MIN),
            refusals: 0,
            used: Timestamp(i64::MIN),
        }
    }
}

impl Pool {
    /// The same pool with new limits. Units that were taken stay taken. Reserves begin full.
    #[must_use]
    pub fn at_limits(self, old: &Limits, new: &Limits, now: Timestamp) -> Self {
        let resized = |buckets: DimensionBuckets, old: Option<Rate>, new: Option<Rate>| DimensionBuckets {
            all: old.zip(new).map_or_else(Bucket::default, |(old, new)| buckets.all.at_rate(old, new, now)),
            floors: Vec::new(),
        };
        Self {
            requests: resized(self.requests, old.requests, new.requests),
            tokens: resized(self.tokens, old.tokens, new.tokens),
            ..self
        }
    }

    /// Whether a request fits now. `reserve` is the index of its tenant's reserve.
    ///
    /// If the clock was set back, the pool refuses for as long as it takes to refill, and not until the clock is where
    /// it was.
    ///
    /// # Errors
    /// How long the request has to wait, or that it never fits.
    pub fn check(
        &mut self,
        limits: &Limits,
        reserve: Option<usize>,
        cost: Cost,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        self.note_use(limits, now);
        let mut wait = self.closed(now);
        for (buckets, rate, units) in self.dimensions(limits, cost) {
            wait = wait.max(buckets.wait(rate, &limits.reserves, reserve, units, now).ok_or(Refusal::TooLarge)?);
        }
        if wait == Millis(0) { Ok(()) } else { Err(Refusal::Wait(wait)) }
    }

    /// Takes the cost of a request, whether it fits or not.
    pub fn charge(&mut self, limits: &Limits, reserve: Option<usize>, cost: Cost, now: Timestamp) {
        self.note_use(limits, now);
        self.each(limits, cost, |buckets, rate, units| buckets.charge(rate, &limits.reserves, reserve, units, now));
    }

    /// Gives back units that weren't used after all.
    pub fn refund(&mut self, limits: &Limits, reserve: Option<usize>, cost: Cost, now: Timestamp) {
        self.note_use(limits, now);
        self.each(limits, cost, |buckets, rate, units| buckets.refund(rate, &limits.reserves, reserve, units, now));
    }

    /// Replaces the estimated cost that was charged for a request by its real cost.
    pub fn true_up(&mut self, limits: &Limits, reserve: Option<usize>, charged: Cost, used: Cost, now: Timestamp) {
        let over = |used: u64, charged: u64| used.saturating_sub(charged);
        let more = Cost { requests: over(used.requests, charged.requests), tokens: over(used.tokens, charged.tokens) };
        let less = Cost { requests: over(charged.requests, used.requests), tokens: over(charged.tokens, used.tokens) };
        self.charge(limits, reserve, more, now);
        self.refund(limits, reserve, less, now);
    }

    /// Applies the headers of an answer. If the provider reports less remaining units than the pool has, the pool is
    /// lowered to them. It is never raised.
    pub fn note_served(&mut self, limits: &Limits, reading: &Reading, now: Timestamp) {
        self.note_use(limits, now);
        self.refusals = 0;
        let reported = [reading.requests, reading.tokens].map(Option::unwrap_or_default);
        for (buckets, rate, reported) in
            [(&mut self.requests, limits.requests, reported[0]), (&mut self.tokens, limits.tokens, reported[1])]
        {
            if let (Some(rate), Some(remaining)) = (rate, reported.remaining) {
                buckets.all.lower_to(rate, remaining, now);
            }
        }
        let exhausted = reported.iter().filter(|dimension| dimension.remaining == Some(0));
        for reset in exhausted.filter_map(|dimension| dimension.reset) {
            self.close(reset, now);
        }
    }

    /// Applies a refusal: nothing fits for the time that the provider names. If it names none, the time doubles with
    /// each refusal in a row.
    pub fn note_refused(&mut self, reading: &Reading, now: Timestamp) {
        let backoff = Millis(SHORTEST_BACKOFF.0 << self.refusals.min(MOST_DOUBLINGS));
        self.refusals = self.refusals.saturating_add(1);
        // A wait of 0 is ignored, because it would make the edge retry without a pause.
        self.close(reading.wait().filter(|wait| *wait > Millis(0)).unwrap_or(backoff), now);
    }

    /// The state of each limited dimension, requests first, for the rate limit headers of an answer.
    #[must_use]
    pub fn header_state(&self, limits: &Limits, now: Timestamp) -> [Option<Dimension>; 2] {
        let dimension = |buckets: &DimensionBuckets, rate: Option<Rate>| {
            let rate = rate?;
            let (remaining, reset) = (buckets.all.left(rate, now), buckets.all.time_to_full(rate, now));
            Some(Dimension { limit: Some(rate.limit()), remaining: Some(remaining), reset: Some(reset) })
        };
        [dimension(&self.requests, limits.requests), dimension(&self.tokens, limits.tokens)]
    }

    /// For how much longer the provider refuses requests; 0 if it serves.
    #[must_use]
    pub fn closed(&self, now: Timestamp) -> Millis {
        if self.closed_until.lasts(now, LONGEST_WAIT) { self.closed_until.since(now) } else { Millis(0) }
    }

    /// How many requests and tokens may be taken now without a reserve; `None` for a dimension without a limit.
    #[must_use]
    pub fn left(&self, limits: &Limits, now: Timestamp) -> (Option<u64>, Option<u64>) {
        let left = |buckets: &DimensionBuckets, rate: Option<Rate>| rate.map(|rate| buckets.all.left(rate, now));
        (left(&self.requests, limits.requests), left(&self.tokens, limits.tokens))
    }

    /// Closes the pool for a time, at most for an hour. An earlier, longer closure stays.
    pub fn close(&mut self, wait: Millis, now: Timestamp) {
        let until = now.after(wait.min(LONGEST_WAIT));
        let is_longer = !self.closed_until.lasts(now, LONGEST_WAIT) || until > self.closed_until;
        if is_longer {
            self.closed_until = until;
        }
    }

    /// Notes when the pool is used. After the clock was set back, no more is missing than the whole limit.
    fn note_use(&mut self, limits: &Limits, now: Timestamp) {
        if now < self.used {
            for (buckets, rate) in [(&mut self.requests, limits.requests), (&mut self.tokens, limits.tokens)] {
                rate.into_iter().for_each(|rate| buckets.cap(rate, &limits.reserves, now));
            }
        }
        self.used = now;
    }

    /// The limited dimensions, each with the units that a request costs.
    fn dimensions(&self, limits: &Limits, cost: Cost) -> impl Iterator<Item = (&DimensionBuckets, Rate, u64)> {
        let both = [(&self.requests, limits.requests, cost.requests), (&self.tokens, limits.tokens, cost.tokens)];
        both.into_iter().filter_map(|(buckets, rate, units)| Some((buckets, rate?, units)))
    }

    /// Changes each limited dimension of which a request costs units.
    fn each(&mut self, limits: &Limits, cost: Cost, mut change: impl FnMut(&mut DimensionBuckets, Rate, u64)) {
        if let Some(rate) = limits.requests.filter(|_| cost.requests > 0) {
            change(&mut self.requests, rate, cost.requests);
        }
        if let Some(rate) = limits.tokens.filter(|_| cost.tokens > 0) {
            change(&mut self.tokens, rate, cost.tokens);
        }
    }
}

impl DimensionBuckets {
    /// Forgets what is missing beyond the limits of the pool and of each reserve.
    fn cap(&mut self, rate: Rate, reserves: &[Ratio], now: Timestamp) {
        self.all.cap(rate, now);
        for (floor, part) in self.floors.iter_mut().zip(reserves) {
            floor.cap(rate.share(*part), now);
        }
    }

    /// How long until the units fit, either into the common part of the pool or into the tenant's own reserve.
    fn wait(
        &self,
        rate: Rate,
        reserves: &[Ratio],
        reserve: Option<usize>,
        units: u64,
        now: Timestamp,
    ) -> Option<Millis> {
        let others = reserves.iter().enumerate().filter(|(position, _)| Some(*position) != reserve);
        let kept_for_others = others.map(|(position, part)| self.floor(position).left(rate.share(*part), now)).sum();
        let common = self.all.wait(rate, units, kept_for_others, now);
        let own =
            reserve.and_then(|position| self.floor(position).wait(rate.share(*reserves.get(position)?), units, 0, now));
        common.into_iter().chain(own).min()
    }

    /// Takes units from the pool, and from the tenant's reserve as far as it has some.
    fn charge(&mut self, rate: Rate, reserves: &[Ratio], reserve: Option<usize>, units: u64, now: Timestamp) {
        self.all.charge(rate, units, now);
        let Some((floor, share)) = self.own(rate, reserves, reserve) else { return };
        // A tenant that takes more than its reserve uses common units, which aren't charged to the reserve.
        let is_own = floor.wait(share, units, 0, now) == Some(Millis(0));
        let units = if is_own { units } else { units.min(floor.left(share, now)) };
        floor.charge(share, units, now);
    }

    fn refund(&mut self, rate: Rate, reserves: &[Ratio], reserve: Option<usize>, units: u64, now: Timestamp) {
        self.all.refund(rate, units, now);
        if let Some((floor, share)) = self.own(rate, reserves, reserve) {
            floor.refund(share, units, now);
        }
    }

    /// The bucket of a reserve.
    fn floor(&self, position: usize) -> Bucket {
        self.floors.get(position).copied().unwrap_or_default()
    }

    /// The bucket and the rate of a tenant's own reserve.
    fn own(&mut self, rate: Rate, reserves: &[Ratio], reserve: Option<usize>) -> Option<(&mut Bucket, Rate)> {
        let position = reserve?;
        let part = *reserves.get(position)?;
        if self.floors.len() < reserves.len() {
            self.floors.resize(reserves.len(), Bucket::default());
        }
        Some((self.floors.get_mut(position)?, rate.share(part)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;

    use super::*;

    const NOW: i64 = 1_796_104_800_000;
    const ONE: Cost = Cost { requests: 1, tokens: 0 };

    fn limit(amount: u64, burst: u64) -> Limit {
        Limit { amount, per: Millis(60_000), burst: Millis(burst), headroom: Ratio(0), lag: Millis(0) }
    }

    fn requests(amount: u64, burst: u64, reserves: &[u32]) -> Limits {
        Limits::new(Some(limit(amount, burst)), None, reserves.iter().copied().map(Ratio).collect())
    }

    /// Every 10 ms of `[from, to)` each asker takes as many requests as fit. Returns how many each asker took.
    fn race(pool: &mut Pool, limits: &Limits, askers: &[Option<usize>], from: i64, to: i64) -> Vec<u64> {
        let mut got = vec![0; askers.len()];
        for ms in (from..to).step_by(10) {
            let now = Timestamp(NOW + ms);
            for (asker, got) in askers.iter().zip(&mut got) {
                while pool.check(limits, *asker, ONE, now).is_ok() {
                    pool.charge(limits, *asker, ONE, now);
                    *got += 1;
                }
            }
        }
        got
    }

    #[test]
    fn of_five_parallel_requests_only_those_that_fit_are_sent() {
        let limits = Limits::new(None, Some(limit(100, 60_000)), Vec::new());
        let (mut pool, cost) = (Pool::default(), Cost { requests: 1, tokens: 40 });
        let now = Timestamp(NOW);
        let sent = (0..5).filter(|_| {
            let fits = pool.check(&limits, None, cost, now).is_ok();
            if fits {
                pool.charge(&limits, None, cost, now);
            }
            fits
        });
        assert_eq!(sent.count(), 2);
        let Err(Refusal::Wait(wait)) = pool.check(&limits, None, cost, now) else { panic!("a wait") };
        assert!(wait > Millis(0) && pool.check(&limits, None, cost, now.after(wait)).is_ok());
        let large = Cost { requests: 1, tokens: 101 };
        assert_eq!(pool.check(&limits, None, large, now), Err(Refusal::TooLarge));
    }

    #[test]
    fn an_aborted_call_frees_its_slot() {
        let limits = requests(1, 1_000, &[]);
        let mut pool = Pool::default();
        let now = Timestamp(NOW);
        pool.charge(&limits, None, ONE, now);
        assert!(pool.check(&limits, None, ONE, now).is_err());
        pool.refund(&limits, None, ONE, now);
        assert!(pool.check(&limits, None, ONE, now).is_ok());
    }

    #[test]
    fn the_end_replaces_the_estimate_by_what_was_used() {
        let limits = Limits::new(Some(limit(600, 30_000)), Some(limit(60_000, 30_000)), Vec::new());
        let now = Timestamp(NOW);
        for (used, left) in [(100, 29_900), (1_000, 29_000), (9_000, 21_000)] {
            let mut pool = Pool::default();
            let charged = Cost { requests: 1, tokens: 1_000 };
            pool.charge(&limits, None, charged, now);
            pool.true_up(&limits, None, charged, Cost { requests: 1, tokens: used }, now);
            assert_eq!(pool.left(&limits, now), (Some(299), Some(left)));
        }
    }

    #[test]
    fn a_lone_tenant_with_a_reserve_reaches_all_of_it() {
        let limits = requests(600, 10_000, &[300_000]);
        assert_eq!(race(&mut Pool::default(), &limits, &[Some(0)], 0, 60_000), [600]);
    }

    #[test]
    fn what_is_unused_is_lent_and_comes_back_within_one_burst() {
        let limits = requests(600, 10_000, &[300_000]);
        let mut pool = Pool::default();
        // Without the tenant that has the reserve, others get all that comes back; only the reserve's part of one burst
        // is left.
        let [lent] = race(&mut pool, &limits, &[None], 0, 60_000)[..] else { panic!() };
        assert!((565..=570).contains(&lent), "{lent}");
        let back = race(&mut pool, &limits, &[None, Some(0)], 60_000, 70_000);
        assert!(back[1] >= 30, "{back:?}: 30 % of the 100 of one burst");
        let then = race(&mut pool, &limits, &[None, Some(0)], 70_000, 130_000);
        assert!(then[1] >= 149 && then[0] >= 320, "{then:?}: 30 % of the 501 that come back in a minute");
    }

    #[test]
    fn a_reserve_smaller_than_one_request_is_kept_too() {
        let limits = requests(60, 1_000, &[300_000]);
        let mut pool = Pool::default();
        race(&mut pool, &limits, &[None], 0, 60_000);
        let both = race(&mut pool, &limits, &[None, Some(0)], 60_000, 180_000);
        assert!(both[1] >= 35 && both[0] + both[1] <= 122, "{both:?} of 120");
    }

    #[test]
    fn a_refusal_closes_the_pool_for_the_time_that_the_provider_names() {
        let limits = requests(600, 1_000, &[]);
        let now = Timestamp(NOW);
        let wait = |pool: &mut Pool, now| match pool.check(&limits, None, ONE, now) {
            Err(Refusal::Wait(wait)) => wait.0,
            Ok(()) => 0,
            Err(Refusal::TooLarge) => panic!("one request is never too large"),
        };
        let mut pool = Pool::default();
        pool.note_refused(&Reading { retry_after: Some(Millis(7_000)), ..Reading::default() }, now);
        assert_eq!(wait(&mut pool, now), 7_000);
        pool.note_refused(&Reading { retry_after: Some(Millis(2_000)), ..Reading::default() }, now);
        assert_eq!(wait(&mut pool, now), 7_000, "a shorter wait of another answer doesn't shorten the closure");
        assert_eq!(wait(&mut pool, Timestamp(NOW - 7_200_000)), 0, "the clock was set back");
        pool.note_served(&limits, &Reading::default(), Timestamp(NOW + 7_000));
        for expected in [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 64_000] {
            let mut fresh = Pool { closed_until: Timestamp(i64::MIN), ..pool.clone() };
            fresh.note_refused(&Reading { retry_after: Some(Millis(0)), ..Reading::default() }, now);
            assert_eq!(wait(&mut fresh, now), expected, "the wait doubles with each refusal");
            pool.refusals = fresh.refusals;
        }
        let mut pool = Pool::default();
        let exhausted = Dimension { remaining: Some(0), reset: Some(Millis(u64::MAX)), limit: None };
        pool.note_served(&limits, &Reading { tokens: Some(exhausted), ..Reading::default() }, now);
        assert_eq!(wait(&mut pool, now), LONGEST_WAIT.0, "a dimension that the rules don't limit counts too");
    }

    #[test]
    fn a_clock_that_was_set_back_refuses_no_longer_than_the_pool_takes_to_refill() {
        let limits = Limits::new(Some(limit(600, 1_000)), Some(limit(60_000, 1_000)), vec![Ratio(300_000)]);
        let cost = Cost { requests: 1, tokens: 100 };
        for (asker, spent) in [
            (None, Cost { requests: 10, tokens: 0 }),
            (None, Cost { requests: 0, tokens: 1_000 }),
            (Some(0), Cost { requests: 10, tokens: 1_000 }),
        ] {
            let mut pool = Pool::default();
            pool.charge(&limits, asker, spent, Timestamp(NOW));
            let set_back = NOW - 7 * 24 * 3_600_000;
            let refused = |ms: &i64| pool.check(&limits, asker, cost, Timestamp(set_back + ms)).is_err();
            let span = (0..).step_by(1_000).take_while(refused).count();
            assert!((1..=62).contains(&span), "{spent:?}: {span} s, and the pool refills in 61");
        }
        // What was used beyond the limit is paid off, as long as the clock is right.
        let mut pool = Pool::default();
        pool.charge(&limits, None, Cost { requests: 1_800, tokens: 0 }, Timestamp(NOW));
        let refused = |ms: &i64| pool.check(&limits, None, cost, Timestamp(NOW + ms)).is_err();
        let span = (0..).step_by(1_000).take_while(refused).count();
        assert!((180..=184).contains(&span), "{span} s for three limits");
    }

    #[test]
    fn a_reserve_that_was_used_up_before_the_clock_was_set_back_is_kept_again() {
        let (limits, from) = (requests(600, 10_000, &[300_000]), -7 * 24 * 3_600_000);
        let mut pool = Pool::default();
        pool.charge(&limits, Some(0), Cost { requests: 30, tokens: 0 }, Timestamp(NOW));
        race(&mut pool, &limits, &[None], from, from + 120_000);
        let kept = race(&mut pool, &limits, &[None, Some(0)], from + 120_000, from + 120_010);
        assert!(kept[0] <= 1 && kept[1] >= 29, "{kept:?}");
    }

    /// With random tenants and costs, no minute has more requests than the limit. Each reserve may be overdrawn by one
    /// request.
    #[test]
    fn reserves_never_add_to_the_pool() {
        let shares = proptest::collection::vec(1..333_000u32, 0..3);
        let asks = proptest::collection::vec((0..2_000i64, 0..4usize, 1..9u64), 1..300);
        TestRunner::new(ProptestConfig::with_cases(500))
            .run(&(20..600u64, 1_000..30_000u64, shares, asks), |(amount, burst, shares, asks)| {
                let limits = requests(amount, burst, &shares);
                let rate = limits.requests.unwrap();
                let (mut pool, mut now) = (Pool::default(), NOW);
                let mut taken: Vec<(i64, u64)> = Vec::new();
                for (pause, who, units) in asks {
                    now += pause;
                    let reserve = (who < shares.len()).then_some(who);
                    let cost = Cost { requests: units.min(rate.burst()), tokens: 0 };
                    if pool.check(&limits, reserve, cost, Timestamp(now)).is_ok() {
                        pool.charge(&limits, reserve, cost, Timestamp(now));
                        taken.push((now, cost.requests));
                    }
                }
                for &(from, _) in &taken {
                    let span = from..from + 60_000;
                    let sum: u64 = taken.iter().filter(|(at, _)| span.contains(at)).map(|(_, units)| units).sum();
                    prop_assert!(sum <= amount + 8 * shares.len() as u64, "{sum} of {amount}");
                }
                Ok(())
            })
            .unwrap();
    }
}
