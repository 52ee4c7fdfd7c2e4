//! One dimension of a pool as a bucket that refills continuously: the generic cell rate algorithm (ITU-T I.371). Takes
//! a [`Rate`] and the time; returns whether an amount fits, and if not, how long to wait. Called by [`super::pool`] and
//! [`super::lease`].
//!
//! The whole state is one timestamp: the time at which the bucket will be full again. The timestamp is in ticks. One
//! millisecond is `refill` ticks and one unit is `per` ticks, where `refill` units come back in `per` milliseconds. So
//! times and units become ticks by one multiplication, without rounding.

use crate::rules::Ratio;
use crate::time::{Millis, Timestamp};

/// The limit of one dimension (requests or tokens), as the rules state it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limit {
    /// How many units may be taken in `per`.
    pub amount: u64,
    /// The span of the limit.
    pub per: Millis,
    /// The units that may be taken at once, expressed as the time in which the limit allows them.
    pub burst: Millis,
    /// The part of the limit that the refill leaves unused. After a pause, a burst may use it.
    pub headroom: Ratio,
    /// The longest time between taking units and sending the request: the length of a lease.
    pub lag: Millis,
}

/// How fast a bucket refills, and how much it holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// The most units that may be taken in the span of the limit.
    limit: u64,
    /// The units of a full bucket.
    burst: u64,
    /// The units that come back in `per`.
    refill: u64,
    /// The span in which `refill` units come back, in milliseconds. A rate of a limit with a lag has a longer span than
    /// the limit.
    per: u64,
}

/// The largest limit, in units: 10^15. Products of limits and times fit in 128 bits.
const MAX_LIMIT: u64 = 1_000_000_000_000_000;
/// Nanoseconds per millisecond. A stamp counts nanoseconds, a tick is a part of a millisecond.
const NANOS_PER_MS: i128 = 1_000_000;
/// The longest `per`, in milliseconds: 31 days.
const MAX_PER: u64 = 31 * 24 * 3_600_000;

impl Rate {
    /// The fastest rate that keeps the limit in every span of `per`, wherever the span begins. The units of a full
    /// bucket and the units that come back during the span add up to the limit at most.
    ///
    /// ```
    /// use bailiwick_rules::quota::{Bucket, Limit, Rate};
    /// use bailiwick_rules::rules::Ratio;
    /// use bailiwick_rules::time::{Millis, Timestamp};
    ///
    /// let (per, burst) = (Millis(60_000), Millis(1_000));
    /// let rate = Rate::new(Limit { amount: 600, per, burst, headroom: Ratio(0), lag: Millis(0) });
    /// let mut bucket = Bucket::default();
    /// let sent = (0..60_000).filter(|&ms| bucket.take(rate, 1, Timestamp(ms))).count();
    /// assert_eq!(sent, 600);
    /// ```
    #[must_use]
    pub fn new(limit: Limit) -> Self {
        let per = limit.per.0.clamp(1, MAX_PER);
        let amount = limit.amount.clamp(1, MAX_LIMIT);
        let burst = part(amount, limit.burst.0.min(per), per).max(1);
        // `+ 1`: a span of `per` excludes its end, so a unit that comes back exactly at the end belongs to the next
        // span.
        let (steady, span) = (amount - burst + 1, per.saturating_add(limit.lag.0));
        let usable = (amount - limit.headroom.of(amount).min(amount)).max(1);
        let is_slower = u128::from(steady) * u128::from(per) <= u128::from(usable) * u128::from(span);
        let (refill, per) = if is_slower { (steady, span) } else { (usable, per) };
        Self { limit: amount, burst, refill, per }
    }

    /// An amount that may be used at once, and comes back continuously over `per`.
    #[must_use]
    pub fn allowance(amount: u64, per: Millis) -> Self {
        let amount = amount.clamp(1, MAX_LIMIT);
        Self { limit: amount, burst: amount, refill: amount, per: per.0.clamp(1, MAX_PER) }
    }

    /// A part of this rate, for a tenant's reserve or an isolate. The bucket holds and refills at least one unit.
    #[must_use]
    pub fn share(self, ratio: Ratio) -> Self {
        let part_of = |amount: u64| ratio.of(amount).max(1);
        Self { limit: part_of(self.limit), burst: part_of(self.burst), refill: part_of(self.refill), per: self.per }
    }

    /// The same limit with a slower refill: `units` per `span`, rounded down, but at least one unit in `per`. The
    /// bucket holds at most `units`.
    #[must_use]
    pub fn slowed(self, units: u64, span: Millis) -> Self {
        let refill = part(units, self.per, span.0.max(1)).clamp(1, self.refill.max(1));
        Self { burst: units.clamp(1, self.burst), refill, ..self }
    }

    /// The units of a full bucket.
    #[must_use]
    pub fn burst(self) -> u64 {
        self.burst
    }

    /// The most units that may be taken in the span of the limit. A single request for more never fits.
    #[must_use]
    pub fn limit(self) -> u64 {
        self.limit
    }

    /// The units that come back in a span, rounded down.
    #[must_use]
    pub fn refilled(self, span: Millis) -> u64 {
        part(self.refill, span.0, self.per)
    }

    /// The span in which this many units come back, rounded up.
    #[must_use]
    pub fn time_for(self, units: u64) -> Millis {
        self.span(self.ticks(units))
    }

    /// Units as ticks.
    fn ticks(self, units: u64) -> i128 {
        i128::from(units) * i128::from(self.per)
    }

    /// Ticks as units, rounded down.
    fn units(self, ticks: i128) -> u64 {
        u64::try_from(ticks / i128::from(self.per)).unwrap_or(0)
    }

    /// A time in ticks.
    fn at(self, now: Timestamp) -> i128 {
        i128::from(now.0) * i128::from(self.refill)
    }

    /// Ticks as milliseconds, rounded up.
    fn span(self, ticks: i128) -> Millis {
        let refill = i128::from(self.refill);
        Millis(u64::try_from((ticks.max(0) + refill - 1) / refill).unwrap_or(u64::MAX))
    }
}

/// `amount × part ÷ whole`, rounded down.
fn part(amount: u64, part: u64, whole: u64) -> u64 {
    let product = u128::from(amount) * u128::from(part);
    product.checked_div(u128::from(whole)).and_then(|share| u64::try_from(share).ok()).unwrap_or(u64::MAX)
}

/// A bucket of units. An unused bucket is full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bucket {
    /// The time at which the bucket will be full again, in ticks of its rate.
    full_at: i128,
}

impl Default for Bucket {
    fn default() -> Self {
        Self { full_at: i128::MIN }
    }
}

impl Bucket {
    /// The ticks that are missing until the bucket is full; 0 if the bucket is full. At most the whole limit counts as
    /// missing, even if more was charged or the clock was set back.
    fn missing(self, rate: Rate, now: Timestamp) -> i128 {
        self.full_at.saturating_sub(rate.at(now)).clamp(0, rate.ticks(rate.limit))
    }

    /// Forgets what is missing beyond the whole limit. Called when the clock was set back: else a bucket that is only
    /// asked, and never charged because it refuses, would refuse until the clock is where it was.
    pub fn cap(&mut self, rate: Rate, now: Timestamp) {
        let most = rate.at(now).saturating_add(rate.ticks(rate.limit));
        self.full_at = self.full_at.min(most);
    }

    /// The units that may be taken now.
    #[must_use]
    pub fn left(self, rate: Rate, now: Timestamp) -> u64 {
        rate.units((rate.ticks(rate.burst) - self.missing(rate, now)).max(0))
    }

    /// How long until this many units fit: 0 if they fit now, `None` if they never fit. An amount larger than a full
    /// bucket fits as soon as the bucket is full. It overdraws the bucket, which then takes longer to refill.
    ///
    /// `reserved` units are kept for others: a bucket that has only these units counts as empty.
    #[must_use]
    pub fn wait(self, rate: Rate, units: u64, reserved: u64, now: Timestamp) -> Option<Millis> {
        if units > rate.limit {
            return None;
        }
        let wanted = units.saturating_add(reserved).min(rate.burst);
        let lacking = self.missing(rate, now) + rate.ticks(wanted) - rate.ticks(rate.burst);
        Some(if lacking <= 0 { Millis(0) } else { rate.span(lacking) })
    }

    /// How long until the bucket is full.
    #[must_use]
    pub fn time_to_full(self, rate: Rate, now: Timestamp) -> Millis {
        rate.span(self.missing(rate, now))
    }

    /// Takes units, whether they fit or not.
    pub fn charge(&mut self, rate: Rate, units: u64, now: Timestamp) {
        self.full_at = rate.at(now) + self.missing(rate, now) + rate.ticks(units.min(MAX_LIMIT));
    }

    /// Takes units if they fit.
    pub fn take(&mut self, rate: Rate, units: u64, now: Timestamp) -> bool {
        let fits = self.wait(rate, units, 0, now) == Some(Millis(0));
        if fits {
            self.charge(rate, units, now);
        }
        fits
    }

    /// Gives units back. Units beyond a full bucket are lost.
    pub fn refund(&mut self, rate: Rate, units: u64, now: Timestamp) {
        let missing = self.missing(rate, now) - rate.ticks(units.min(MAX_LIMIT));
        self.full_at = rate.at(now) + missing.max(0);
    }

    /// Lowers the units that may be taken now to this number. Never raises them.
    pub fn lower_to(&mut self, rate: Rate, units: u64, now: Timestamp) {
        let most = rate.ticks(rate.burst.saturating_sub(units));
        self.full_at = rate.at(now) + self.missing(rate, now).max(most);
    }

    /// The time at which the bucket will be full again, in nanoseconds, rounded up. Programs exchange this number,
    /// because it doesn't depend on the ticks of a rate.
    #[must_use]
    pub fn stamp(self, rate: Rate) -> i64 {
        let refill = i128::from(rate.refill.max(1));
        let stamp = self.full_at.saturating_mul(NANOS_PER_MS).saturating_add(refill - 1).div_euclid(refill);
        i64::try_from(stamp).unwrap_or(if stamp < 0 { i64::MIN } else { i64::MAX })
    }

    /// The bucket that will be full again at a [`Bucket::stamp`]. Exact if `refill` is at most 1,000,000: a tick is
    /// then at least a nanosecond. With a larger `refill`, a unit may come back up to a nanosecond late.
    #[must_use]
    pub fn of_stamp(stamp: i64, rate: Rate) -> Self {
        let ticks = i128::from(stamp) * i128::from(rate.refill);
        Self { full_at: ticks.div_euclid(NANOS_PER_MS) }
    }

    /// The same bucket with another rate. The same number of units is missing.
    #[must_use]
    pub fn at_rate(self, old: Rate, new: Rate, now: Timestamp) -> Self {
        let missing = self.missing(old, now) + i128::from(old.per) - 1;
        Self { full_at: new.at(now) + new.ticks(old.units(missing)) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;

    use super::*;

    const NOW: i64 = 1_796_104_800_000;

    fn limit(amount: u64, burst: u64) -> Limit {
        Limit { amount, per: Millis(60_000), burst: Millis(burst), headroom: Ratio(0), lag: Millis(0) }
    }

    /// Takes as much as fits in every millisecond. Returns the most units that were taken in any half-open span of a
    /// minute, and the units that were taken in the first minute.
    fn greedy(rate: Rate, cost: u64, minutes: i64) -> (u64, u64) {
        let mut bucket = Bucket::default();
        let mut taken: Vec<i64> = Vec::new();
        for ms in 0..minutes * 60_000 {
            while bucket.take(rate, cost, Timestamp(NOW + ms)) {
                taken.push(ms);
            }
        }
        let within = |from: i64| taken.iter().filter(|&&at| (from..from + 60_000).contains(&at)).count() as u64 * cost;
        (taken.iter().map(|&from| within(from)).max().unwrap_or(0), within(0))
    }

    #[test]
    fn exactly_the_limit_is_taken_in_a_minute_wherever_the_minute_begins() {
        for (amount, burst) in [(1, 1_000), (6, 1_000), (7, 20_000), (60, 30_000), (600, 1_000), (599, 60_000)] {
            let (most, first) = greedy(Rate::new(limit(amount, burst)), 1, 4);
            assert_eq!((most, first), (amount, amount), "{amount} with a burst of {burst} ms");
        }
    }

    #[test]
    fn a_lag_slows_the_smallest_limit_too() {
        let rate = Rate::new(Limit { lag: Millis(5_000), ..limit(1, 1_000) });
        let mut bucket = Bucket::default();
        assert!(bucket.take(rate, 1, Timestamp(NOW)));
        assert_eq!(bucket.wait(rate, 1, 0, Timestamp(NOW)), Some(Millis(65_000)));
    }

    #[test]
    fn a_bucket_read_from_its_stamp_never_holds_more_than_before() {
        let mut runner = TestRunner::new(ProptestConfig::with_cases(20_000));
        let cases = (1_u64..1_000_000, 1_u64..60_000, 0_u64..2_000_000, 0_i64..100_000);
        let checked = runner.run(&cases, |(amount, burst, taken, later)| {
            let (rate, mut bucket) = (Rate::new(limit(amount, burst)), Bucket::default());
            bucket.charge(rate, taken, Timestamp(NOW));
            let read = Bucket::of_stamp(bucket.stamp(rate), rate);
            let now = Timestamp(NOW + later);
            let (before, after) = (bucket.left(rate, now), read.left(rate, now));
            let lost = before.saturating_sub(after);
            prop_assert!(after <= before && lost <= u64::from(rate.refill > 1_000_000), "{before}, {after}");
            Ok(())
        });
        checked.unwrap();
        let rate = Rate::new(limit(60, 1_000));
        for stamp in [i64::MIN, 0, i64::MAX] {
            assert!(Bucket::of_stamp(stamp, rate).left(rate, Timestamp(NOW)) <= rate.burst());
        }
        assert_eq!(Bucket::default().stamp(rate), i64::MIN, "a full bucket stays full");
    }

    #[test]
    fn a_burst_passes_at_once_and_the_rest_one_by_one() {
        let rate = Rate::new(Limit { headroom: Ratio(50_000), ..limit(600, 1_000) });
        let mut bucket = Bucket::default();
        let now = Timestamp(NOW);
        assert_eq!((0..100).filter(|_| bucket.take(rate, 1, now)).count(), 10);
        let wait = bucket.wait(rate, 1, 0, now).unwrap();
        assert_eq!(wait, Millis(106), "570 requests a minute come back");
        assert!(!bucket.take(rate, 1, Timestamp(NOW + 105)) && bucket.take(rate, 1, now.after(wait)));
    }

    #[test]
    fn an_amount_larger_than_a_burst_waits_for_a_full_bucket_and_overdraws_it() {
        let rate = Rate::new(limit(100_000, 1_000));
        let mut bucket = Bucket::default();
        assert_eq!(bucket.wait(rate, 100_001, 0, Timestamp(NOW)), None, "an amount above the limit never fits");
        assert!(bucket.take(rate, 5_000, Timestamp(NOW)));
        let wait = bucket.wait(rate, 5_000, 0, Timestamp(NOW)).unwrap();
        assert!((3_000..3_100).contains(&wait.0), "{wait}");
        assert!(!bucket.take(rate, 1, Timestamp(NOW)));
        bucket.refund(rate, 5_000, Timestamp(NOW));
        assert_eq!(bucket.left(rate, Timestamp(NOW)), rate.burst());
    }

    #[test]
    fn an_allowance_may_be_used_at_once_and_comes_back_continuously() {
        let rate = Rate::allowance(2_000_000, Millis(86_400_000));
        let mut bucket = Bucket::default();
        assert!(bucket.take(rate, 2_000_000, Timestamp(NOW)) && !bucket.take(rate, 1, Timestamp(NOW)));
        assert_eq!(bucket.time_to_full(rate, Timestamp(NOW)), Millis(86_400_000));
        assert_eq!(bucket.left(rate, Timestamp(NOW + 43_200_000)), 1_000_000);
    }

    #[test]
    fn a_clock_that_goes_back_never_closes_a_bucket_for_longer_than_its_limit() {
        let rate = Rate::new(limit(600, 1_000));
        let mut bucket = Bucket::default();
        bucket.charge(rate, 10, Timestamp(NOW));
        let wait = bucket.wait(rate, 1, 0, Timestamp(NOW - 3_600_000)).unwrap();
        assert!(wait <= Millis(62_000), "{wait}");
        let set_back = Timestamp(NOW - 3_600_000);
        bucket.cap(rate, set_back);
        assert!(!bucket.take(rate, 1, set_back) && bucket.take(rate, 1, set_back.after(wait)), "it has waited");
        // A limit whose time to refill no number holds never lets everything through.
        let endless = Rate { limit: MAX_LIMIT, burst: 1, refill: 1, per: 60_000 };
        let mut bucket = Bucket::default();
        bucket.charge(endless, MAX_LIMIT, Timestamp(NOW));
        assert!(!bucket.take(endless, 1, Timestamp(NOW)));
        let mut bucket = Bucket::default();
        for absurd in [i64::MIN, -1, i64::MAX] {
            bucket.charge(rate, u64::MAX, Timestamp(absurd));
            assert!(bucket.wait(rate, 1, 0, Timestamp(absurd)).unwrap() <= Millis(62_000));
        }
    }

    #[test]
    fn remaining_lowers_a_bucket_and_never_lifts_it() {
        let rate = Rate::new(limit(600, 1_000));
        let mut bucket = Bucket::default();
        let now = Timestamp(NOW);
        bucket.lower_to(rate, 3, now);
        assert_eq!(bucket.left(rate, now), 3);
        bucket.lower_to(rate, 8, now);
        assert_eq!(bucket.left(rate, now), 3);
        bucket.lower_to(rate, 0, now);
        assert_eq!(bucket.left(rate, now), 0);
    }

    #[test]
    fn missing_units_stay_missing_when_the_rate_changes() {
        let (old, new) = (Rate::new(limit(600, 1_000)), Rate::new(limit(60_000, 1_000)));
        let mut bucket = Bucket::default();
        bucket.charge(old, 7, Timestamp(NOW));
        assert_eq!(bucket.at_rate(old, new, Timestamp(NOW)).left(new, Timestamp(NOW)), 993);
    }

    /// Random amounts at random times: no half-open span of `per` has more than the limit, as long as no single amount
    /// is larger than a full bucket.
    #[test]
    fn no_span_has_more_than_the_limit() {
        let amounts = prop_oneof![1..20u64, 1..5_000u64];
        let rates = (amounts, 1..60_000u64, 0..500_000u32, 0..5_000u64);
        let asks = proptest::collection::vec((0..900i64, 1..40u64), 1..400);
        TestRunner::new(ProptestConfig::with_cases(600))
            .run(&(rates, asks), |((amount, burst, headroom, lag), asks)| {
                let rate = Rate::new(Limit { headroom: Ratio(headroom), lag: Millis(lag), ..limit(amount, burst) });
                let (mut bucket, mut now) = (Bucket::default(), NOW);
                let mut taken: Vec<(i64, u64)> = Vec::new();
                for (pause, units) in asks {
                    now += pause;
                    let units = units.min(rate.burst());
                    let left = bucket.left(rate, Timestamp(now));
                    let went = bucket.take(rate, units, Timestamp(now));
                    prop_assert_eq!(went, units <= left);
                    if went {
                        taken.push((now, units));
                    } else {
                        let wait = bucket.wait(rate, units, 0, Timestamp(now)).unwrap();
                        let then = Timestamp(now).after(wait);
                        prop_assert!(bucket.left(rate, then) >= units, "the wait was too short");
                        prop_assert!(bucket.left(rate, Timestamp(then.0 - 1)) < units, "the wait was too long");
                    }
                }
                for &(from, _) in &taken {
                    // Units that were taken by a lease may be sent later, by up to the lag.
                    let span = from..from + 60_000 + i64::try_from(lag).unwrap_or(0);
                    let sum: u64 = taken.iter().filter(|(at, _)| span.contains(at)).map(|(_, units)| units).sum();
                    prop_assert!(sum <= amount.max(1), "{sum} of {amount}");
                }
                Ok(())
            })
            .unwrap();
    }
}
