//! Decides when a model is probed. Takes times, names, a budget and a random number, returns the time of the next
//! probe. Called by the task of each monitor that asks a model.

use sha2::{Digest, Sha256};

use crate::rules::{PROBE_TOKENS, ProbeBudget};
use crate::time::{Millis, Timestamp};

/// The time within each interval at which a node probes an endpoint, as an offset from the interval's begin. It depends
/// on the names of both: so nodes don't probe an endpoint all at once, and a node doesn't probe its endpoints all at
/// once.
#[must_use]
pub fn phase(node: &str, watched: &str, interval: Millis) -> Millis {
    let mut hash = Sha256::new();
    for part in [node, watched] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let digest = hash.finalize();
    let number = digest.iter().take(8).fold(0, |number, byte| (number << 8) | u64::from(*byte));
    Millis(number % interval.0.max(1))
}

/// The time of the next round after a round that began at `begun`: the phase of an interval, plus up to a tenth of the
/// interval by `jitter`, which should be random. That is more than 0.4 and at most 1.6 intervals after `begun`.
#[must_use]
pub fn next_round(begun: Timestamp, phase: Millis, interval: Millis, jitter: u64) -> Timestamp {
    let span = i128::from(interval.0.max(1));
    let earliest = i128::from(begun.0) + span / 2 + 1;
    let first = earliest + (i128::from(phase.0) - earliest).rem_euclid(span);
    let late = i128::from(jitter) % (span / 10 + 1);
    Timestamp(i64::try_from(first + late).unwrap_or(i64::MAX))
}

/// The tokens left of a probe budget. They refill continuously, up to a twenty-fourth of the budget, but at least the
/// tokens of one probe. In any time as long as the budget's, at most the budget's tokens are spent.
#[derive(Clone, Copy, Debug)]
pub struct ProbeTokens {
    /// The milliseconds in which the tokens of one probe come back.
    each: u64,
    /// The milliseconds in which all tokens come back.
    whole: u64,
    /// The time at which all tokens are back if no more are spent.
    full_at: Timestamp,
}

impl ProbeTokens {
    /// The tokens of a budget of which nothing is spent.
    #[must_use]
    pub fn new(budget: ProbeBudget, now: Timestamp) -> Self {
        let (tokens, per) = (u128::from(budget.tokens), u128::from(budget.per.0));
        let cost = u128::from(PROBE_TOKENS);
        // The tokens at the beginning and those that come back in the span add up to the budget.
        let at_once = (tokens / 24).max(cost);
        let refill = tokens.saturating_sub(at_once);
        let millis = |millis: u128| u64::try_from(millis).unwrap_or(u64::MAX).min(i64::MAX as u64 / 4);
        let (each, whole) = match refill < cost {
            // The budget is enough for one probe in each span.
            true => (millis(per), millis(per)),
            false => (millis((cost * per).div_ceil(refill)), millis(at_once * per / refill)),
        };
        Self { each, whole: whole.max(each), full_at: now }
    }

    /// Takes the tokens of one probe.
    ///
    /// # Errors
    /// If there aren't enough tokens: the time at which there will be enough.
    pub fn take(&mut self, now: Timestamp) -> Result<(), Timestamp> {
        // If the clock was set back, no tokens are left, and all are back after `whole` milliseconds.
        let full_at = self.full_at.clamp(now, now.after(Millis(self.whole)));
        let after = full_at.after(Millis(self.each));
        let opens = Timestamp(after.0.saturating_sub(i64::try_from(self.whole).unwrap_or(i64::MAX)));
        if opens > now {
            return Err(opens);
        }
        self.full_at = after;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400_000;

    fn purse(tokens: u64) -> ProbeTokens {
        ProbeTokens::new(ProbeBudget { tokens, per: Millis(DAY) }, Timestamp(0))
    }

    #[test]
    fn the_phase_differs_between_nodes_and_between_endpoints() {
        let interval = Millis(30_000);
        let phases = |of: &dyn Fn(u32) -> Millis| {
            let mut tenths: Vec<u64> = (0..200).map(|number| of(number).0 * 10 / interval.0).collect();
            tenths.sort_unstable();
            tenths.dedup();
            tenths.len()
        };
        assert_eq!(phases(&|number| phase(&format!("ns{number}"), "fra-1", interval)), 10);
        assert_eq!(phases(&|number| phase("ns1", &format!("fra-{number}"), interval)), 10);
        assert_eq!(phase("ns1", "a", interval), phase("ns1", "a", interval));
        assert_ne!(phase("ns", "1a", interval), phase("ns1", "a", interval));
    }

    #[test]
    fn rounds_keep_their_phase_whatever_the_jitter() {
        let (interval, phase) = (Millis(30_000), Millis(7_000));
        let mut begun = Timestamp(1_800_000_000_000 + 20_000);
        for jitter in [0, u64::MAX, 1_234, 3_000, 2_999, 3_001] {
            let next = next_round(begun, phase, interval, jitter);
            let late = (next.0 - 7_000).rem_euclid(30_000);
            assert!((0..=3_000).contains(&late), "{late}");
            let after = next.0 - begun.0;
            assert!((12_000..=48_000).contains(&after), "{after}");
            begun = next;
        }
        let _ = next_round(Timestamp(i64::MAX), Millis(0), Millis(0), u64::MAX);
    }

    #[test]
    fn a_budget_of_one_probe_allows_one_probe_a_day() {
        for tokens in [PROBE_TOKENS, 2 * PROBE_TOKENS - 1] {
            let mut purse = purse(tokens);
            assert_eq!(purse.take(Timestamp(5)), Ok(()));
            assert_eq!(purse.take(Timestamp(6)), Err(Timestamp(5 + 86_400_000)));
            assert_eq!(purse.take(Timestamp(5 + 86_400_000)), Ok(()));
        }
    }

    #[test]
    fn an_ample_budget_never_waits_and_a_spent_budget_names_the_time_of_the_next_probe() {
        let mut ample = purse(2_880 * PROBE_TOKENS * 25 / 24);
        assert!((0..10_000).all(|round| ample.take(Timestamp(round * 30_000)).is_ok()));
        let mut small = purse(100 * PROBE_TOKENS);
        let mut now = Timestamp(0);
        let at_once = std::iter::repeat_with(|| small.take(now)).take_while(Result::is_ok).count();
        assert_eq!(at_once, 4, "a twenty-fourth of 100 probes");
        now = small.take(now).unwrap_err();
        assert_eq!(small.take(now), Ok(()));
        assert!(small.take(now).is_err());
        let set_back = Timestamp(-500_000_000);
        let opens = small.take(set_back).unwrap_err();
        assert!(opens.since(set_back) < Millis(DAY / 95), "a clock that was set back: {opens}");
    }
}
