//! When a feed is to be looked at, and by whom: times enter, a [`Due`] leaves. Pure.
//!
//! No request may await another's promise. So one of those that find a feed out of date takes a lease on it by time,
//! and the others, where they need what it finds, look again and again whether it has.

use bailiwick_rules::time::{Millis, Timestamp};

/// When a feed was last looked at, and until when somebody is at it.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    /// When the last look was over, whatever it found.
    tried: Option<Timestamp>,
    leased_until: Option<Timestamp>,
}

/// What is to be done about a feed before a request goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Due {
    /// The caller has the lease: it looks, and waits for what it finds if what is known is too old.
    Look {
        /// Whether it waits.
        wait: bool,
    },
    /// Somebody looks, and what is known is too old to go on by.
    Wait,
    /// Nothing.
    No,
}

impl Schedule {
    /// What is due, `every` after a look; what was seen more than `most` ago is too old to go on by.
    ///
    /// The lease is a little longer than any look takes, `longest`, and ends by itself where its request was cut short.
    /// A feed that didn't answer was looked at, too: while it is gone not every request waits for it, but the first of
    /// each `most`.
    pub(crate) fn due(&mut self, now: Timestamp, every: Millis, most: Millis, longest: Millis) -> Due {
        // A clock that was set back doesn't say how long ago anything was.
        let age = self.tried.filter(|tried| *tried <= now).map(|tried| now.since(tried));
        let wait = age.is_none_or(|age| age >= most);
        if !wait && age.is_some_and(|age| age < every) {
            return Due::No;
        }
        if self.leased_until.is_some_and(|until| until.lasts(now, longest)) {
            return if wait { Due::Wait } else { Due::No };
        }
        self.leased_until = Some(now.after(longest));
        Due::Look { wait }
    }

    /// Notes that a look is over.
    pub(crate) fn done(&mut self, now: Timestamp) {
        *self = Self { tried: Some(now), leased_until: None };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Millis = Millis(5_000);
    const MOST: Millis = Millis(15_000);
    const LONGEST: Millis = Millis(3_500);

    fn due(schedule: &mut Schedule, now: i64) -> Due {
        schedule.due(Timestamp(now), EVERY, MOST, LONGEST)
    }

    #[test]
    fn at_first_one_request_looks_and_all_wait() {
        let mut schedule = Schedule::default();
        assert_eq!(due(&mut schedule, 0), Due::Look { wait: true });
        assert_eq!(due(&mut schedule, 10), Due::Wait);
        schedule.done(Timestamp(100));
        assert_eq!(due(&mut schedule, 100), Due::No);
    }

    #[test]
    fn while_requests_come_one_of_them_looks_and_none_waits() {
        let mut schedule = Schedule::default();
        schedule.done(Timestamp(100));
        assert_eq!(due(&mut schedule, 5_099), Due::No);
        assert_eq!(due(&mut schedule, 5_100), Due::Look { wait: false });
        assert_eq!(due(&mut schedule, 5_101), Due::No, "the lease is taken");
        assert_eq!(due(&mut schedule, 8_600), Due::Look { wait: false }, "a lease ends by itself");
        schedule.done(Timestamp(9_000));
        assert_eq!(schedule.due(Timestamp(9_000), Millis(0), MOST, LONGEST), Due::Look { wait: false });
    }

    #[test]
    fn after_a_long_idle_time_one_looks_and_all_wait() {
        let mut schedule = Schedule::default();
        schedule.done(Timestamp(0));
        assert_eq!(due(&mut schedule, 15_000), Due::Look { wait: true });
        assert_eq!(due(&mut schedule, 15_001), Due::Wait);
        assert_eq!(due(&mut schedule, 18_500), Due::Look { wait: true }, "whoever looked is gone: another one does");
        schedule.done(Timestamp(18_600));
        assert_eq!(due(&mut schedule, 18_700), Due::No, "also where nobody answered");
    }

    #[test]
    fn a_clock_set_back_says_nothing_of_ages() {
        let mut schedule = Schedule::default();
        schedule.done(Timestamp(0));
        let before = -3_600_000;
        assert_eq!(due(&mut schedule, before), Due::Look { wait: true });
        assert_eq!(due(&mut schedule, before), Due::Wait);
        schedule.done(Timestamp(before));
        assert_eq!(due(&mut schedule, before), Due::No);
        assert_eq!(due(&mut schedule, before + 5_000), Due::Look { wait: false });
        assert_eq!(due(&mut schedule, before - 5_000), Due::Look { wait: true }, "a lease from the future is no lease");
    }
}
