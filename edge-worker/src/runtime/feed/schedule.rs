//! Decides when a feed is fetched, and by which request. Takes times, returns a [`Due`]. Called by `feed`. Pure.
//!
//! A feed is the rules or the health, as it is fetched again and again. In a Worker no request may await the promise of
//! another request. So the first request that finds a feed out of date takes a lease on the feed for some seconds, and
//! fetches it. Other requests that need the result poll until the fetch has ended.

use bailiwick_rules::time::{Millis, Timestamp};

/// When a feed was last fetched, and until when a request has the lease to fetch it.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    /// When the last fetch ended, whether or not it succeeded.
    tried: Option<Timestamp>,
    /// When the lease of a request ends, if one has it.
    leased_until: Option<Timestamp>,
}

/// What a request has to do about a feed before it continues.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Due {
    /// The caller has the lease and fetches the feed.
    Fetch {
        /// Whether the caller waits for the result, because the known data is too old to use.
        wait: bool,
    },
    /// Another request is fetching the feed, and the known data is too old to use.
    Wait,
    /// Nothing has to be done.
    No,
}

impl Schedule {
    /// Returns what is due at `now`. A fetch is due when the time `every` has passed since the last fetch. When the
    /// time `most` has passed, the known data is too old to use.
    ///
    /// The lease lasts for the time `longest`, which is a little more than any fetch takes. The lease expires by itself
    /// if its request was cut short. A fetch that failed counts as a fetch too: while a feed is unreachable, requests
    /// wait for it only once in the time `most`.
    pub(crate) fn due(&mut self, now: Timestamp, every: Millis, most: Millis, longest: Millis) -> Due {
        // If the clock was set back, the age is unknown.
        let age = self.tried.filter(|tried| *tried <= now).map(|tried| now.since(tried));
        let wait = age.is_none_or(|age| age >= most);
        if !wait && age.is_some_and(|age| age < every) {
            return Due::No;
        }
        if self.leased_until.is_some_and(|until| until.lasts(now, longest)) {
            return if wait { Due::Wait } else { Due::No };
        }
        self.leased_until = Some(now.after(longest));
        Due::Fetch { wait }
    }

    /// Notes that a fetch has ended.
    pub(crate) fn done(&mut self, now: Timestamp) {
        *self = Self { tried: Some(now), leased_until: None };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Millis = Millis(5_000);
    const MAX: Millis = Millis(15_000);
    const LONGEST: Millis = Millis(3_500);

    fn due(schedule: &mut Schedule, now: i64) -> Due {
        schedule.due(Timestamp(now), EVERY, MAX, LONGEST)
    }

    #[test]
    fn at_first_one_request_fetches_and_all_wait() {
        let mut schedule = Schedule::default();
        assert_eq!(due(&mut schedule, 0), Due::Fetch { wait: true });
        assert_eq!(due(&mut schedule, 10), Due::Wait);
        schedule.done(Timestamp(100));
        assert_eq!(due(&mut schedule, 100), Due::No);
    }

    #[test]
    fn while_requests_arrive_one_fetches_and_none_waits() {
        let mut schedule = Schedule::default();
        schedule.done(Timestamp(100));
        assert_eq!(due(&mut schedule, 5_099), Due::No);
        assert_eq!(due(&mut schedule, 5_100), Due::Fetch { wait: false });
        assert_eq!(due(&mut schedule, 5_101), Due::No, "another request has the lease");
        assert_eq!(due(&mut schedule, 8_600), Due::Fetch { wait: false }, "a lease ends by itself");
        schedule.done(Timestamp(9_000));
        assert_eq!(schedule.due(Timestamp(9_000), Millis(0), MAX, LONGEST), Due::Fetch { wait: false });
    }

    #[test]
    fn after_a_long_idle_time_one_request_fetches_and_all_wait() {
        let mut schedule = Schedule::default();
        schedule.done(Timestamp(0));
        assert_eq!(due(&mut schedule, 15_000), Due::Fetch { wait: true });
        assert_eq!(due(&mut schedule, 15_001), Due::Wait);
        assert_eq!(
            due(&mut schedule, 18_500),
            Due::Fetch { wait: true },
            "the request with the lease is gone, so another one fetches"
        );
        schedule.done(Timestamp(18_600));
        assert_eq!(due(&mut schedule, 18_700), Due::No, "a fetch that failed counts too");
    }

    #[test]
    fn if_the_clock_is_set_back_ages_are_unknown() {
        let mut schedule = Schedule::default();
        schedule.done(Timestamp(0));
        let before = -3_600_000;
        assert_eq!(due(&mut schedule, before), Due::Fetch { wait: true });
        assert_eq!(due(&mut schedule, before), Due::Wait);
        schedule.done(Timestamp(before));
        assert_eq!(due(&mut schedule, before), Due::No);
        assert_eq!(due(&mut schedule, before + 5_000), Due::Fetch { wait: false });
        assert_eq!(
            due(&mut schedule, before - 5_000),
            Due::Fetch { wait: true },
            "a lease from the future doesn't count"
        );
    }
}
