//! The retry budget of an isolate. Takes the time; says whether a retry may be sent. Called by `run`.

/// How many units a token has. One token pays for one retry. In units, all parts of a token are whole numbers.
const TOKEN: i64 = 10_000;
/// The most that can be saved, in units: ten tokens.
const CAP: i64 = 10 * TOKEN;
/// How many units the first attempt of a request adds: 0.2 tokens.
const PER_FIRST: i64 = TOKEN / 5;
/// How many units each millisecond adds: one token in 10 s.
const PER_MILLI: i64 = 1;

/// The retry budget of an isolate. In the long run there is at most one retry for five requests, plus one in ten
/// seconds, whatever fails. So retries don't make an outage worse.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Budget {
    /// The saved units.
    saved: i64,
    /// When time was last credited, in milliseconds.
    at_ms: i64,
}

impl Budget {
    /// A full budget.
    #[must_use]
    pub(crate) fn new(now_ms: i64) -> Self {
        Self { saved: CAP, at_ms: now_ms }
    }

    /// Adds the units for the first attempt of a request.
    pub(crate) fn earn(&mut self, now_ms: i64) {
        self.credit_time(now_ms);
        self.add(PER_FIRST);
    }

    /// Takes a token for a retry; `false` if there is none.
    #[must_use]
    pub(crate) fn take(&mut self, now_ms: i64) -> bool {
        self.credit_time(now_ms);
        let enough = self.saved >= TOKEN;
        if enough {
            self.saved -= TOKEN;
        }
        enough
    }

    /// Adds the units for the time since the last call.
    fn credit_time(&mut self, now_ms: i64) {
        let passed = now_ms.saturating_sub(self.at_ms).clamp(0, CAP);
        self.at_ms = now_ms;
        self.add(passed * PER_MILLI);
    }

    fn add(&mut self, amount: i64) {
        self.saved = (self.saved + amount).min(CAP);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_retries_at_once_then_one_in_ten_seconds_or_five_requests() {
        let mut budget = Budget::new(0);
        assert_eq!((0..20).filter(|_| budget.take(0)).count(), 10);
        assert!(!budget.take(9_999) && budget.take(10_000) && !budget.take(10_000));
        for _ in 0..5 {
            assert!(!budget.take(10_000));
            budget.earn(10_000);
        }
        assert!(budget.take(10_000));
        assert_eq!((0..20).filter(|_| budget.take(i64::MAX)).count(), 10, "no more than the cap");
        assert!(!budget.take(-3_600_000), "a clock that goes back earns nothing");
        assert!(!budget.take(-3_590_001) && budget.take(-3_590_000), "after that, time counts again");
    }
}
