//! Circuit breakers of one isolate: how endpoints did in; which of them are left alone, and who may try one again, out.
//!
//! A cool-down follows every failure, by model; a breaker watches an endpoint as a whole. [`FAULTS`] faults with no whole answer
//! between them open it, streams that died after their first bytes included. It rests, then lets one request through: the
//! probe. If that is answered the breaker closes on parole, where the next fault opens it again, for longer; a whole answer
//! clears it. A rate limit or a missing model is no fault: an endpoint that says so is alive.
//!
//! ```
//! use bailiwick_edge::breaker::{Breakers, FAULTS, Verdict};
//! use bailiwick_rules::{id::{EndpointId, RegionId}, time::Timestamp};
//! let (region, endpoint) = (RegionId::parse("fra").unwrap(), EndpointId::parse("fra-1").unwrap());
//! let mut breakers = Breakers::default();
//! for _ in 0..FAULTS {
//!     assert!(!breakers.is_open(&region, &endpoint, Timestamp(0)));
//!     breakers.heard(&region, &endpoint, Verdict::Fault, Timestamp(0));
//! }
//! assert!(breakers.is_open(&region, &endpoint, Timestamp(9_999)));
//! assert!(!breakers.is_open(&region, &endpoint, Timestamp(10_000)));
//! breakers.sent(&region, &endpoint, Timestamp(10_000));
//! assert!(breakers.is_open(&region, &endpoint, Timestamp(10_000)), "the probe is under way");
//! ```

use std::collections::HashMap;

use bailiwick_rules::id::{EndpointId, RegionId};
use bailiwick_rules::steer::Cooling;
use bailiwick_rules::table::Table;
use bailiwick_rules::time::{Millis, Timestamp};

/// Faults in a row that open a breaker.
pub const FAULTS: u32 = 5;
/// The first rest of an open breaker; each further one is twice as long.
const SHORTEST_MS: u64 = 10_000;
/// The longest rest.
const LONGEST_MS: u64 = 60_000;
/// A probe nobody heard of again for this long is forgotten, and another may go.
const PROBE_MS: u64 = 10_000;
/// More endpoints than this aren't remembered.
const MOST: usize = 1_024;

/// What an endpoint's part in a request says of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It failed: no connection, a timeout, a 5xx, a refused credential, nonsense, a body that broke off.
    Fault,
    /// It answered, and nobody knows yet whether to the end.
    Answered,
    /// It answered to the end.
    Whole,
    /// Nothing: the client went away.
    Nothing,
}

/// The breakers of one isolate.
#[derive(Clone, Debug, Default)]
pub struct Breakers {
    breakers: HashMap<(RegionId, EndpointId), Breaker>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Breaker {
    /// Faults since the last whole answer, while it is closed.
    faults: u32,
    /// How often it has opened since then.
    opened: u32,
    /// `Some`: it is open, and at rest until then.
    until: Option<Timestamp>,
    /// Until when a probe's word is awaited.
    probe_until: Option<Timestamp>,
}

impl Breakers {
    /// Whether the endpoint is to be left alone, as long as there are others.
    #[must_use]
    pub fn is_open(&self, region: &RegionId, endpoint: &EndpointId, now: Timestamp) -> bool {
        self.breakers.get(&(region.clone(), endpoint.clone())).is_some_and(|breaker| breaker.closed_from(now).is_some())
    }

    /// A request goes to the endpoint: the probe, if its rest is over.
    pub fn sent(&mut self, region: &RegionId, endpoint: &EndpointId, now: Timestamp) {
        if let Some(breaker) = self.breakers.get_mut(&(region.clone(), endpoint.clone()))
            && breaker.until.is_some_and(|until| !lasts(until, now))
        {
            breaker.probe_until = Some(now.after(Millis(PROBE_MS)));
        }
    }

    /// Notes how the endpoint did.
    pub fn heard(&mut self, region: &RegionId, endpoint: &EndpointId, verdict: Verdict, now: Timestamp) {
        // Most of the time nothing is wrong with anybody.
        if self.breakers.is_empty() && verdict != Verdict::Fault {
            return;
        }
        let key = (region.clone(), endpoint.clone());
        if verdict == Verdict::Whole {
            self.breakers.remove(&key);
            return;
        }
        if verdict == Verdict::Fault && self.breakers.len() >= MOST && !self.breakers.contains_key(&key) {
            self.make_room(now);
        }
        let breaker = match verdict {
            Verdict::Fault => self.breakers.entry(key).or_default(),
            _ => match self.breakers.get_mut(&key) {
                Some(breaker) => breaker,
                None => return,
            },
        };
        match (verdict, breaker.until) {
            (Verdict::Fault, None) => {
                breaker.faults = breaker.faults.saturating_add(1);
                if breaker.faults >= FAULTS {
                    breaker.open(now);
                }
            }
            // A request that was under way when it opened says nothing new.
            (Verdict::Fault, Some(until)) if lasts(until, now) => {}
            (Verdict::Fault, Some(_)) => breaker.open(now),
            (Verdict::Answered, Some(_)) => {
                *breaker = Breaker { faults: FAULTS - 1, opened: breaker.opened, until: None, probe_until: None };
            }
            (Verdict::Nothing, _) => breaker.probe_until = None,
            (Verdict::Answered, None) | (Verdict::Whole, _) => {}
        }
    }

    /// What steering has to know of them: endpoints of regions the rules no longer have are left out.
    pub fn resting<'a>(&'a self, table: &'a Table, now: Timestamp) -> impl Iterator<Item = Cooling> + 'a {
        self.breakers.iter().filter_map(move |((region, endpoint), breaker)| {
            let until = breaker.closed_from(now)?;
            let region = table.region_named(region.as_str())?;
            Some(Cooling { region, endpoint: endpoint.clone(), model: None, until })
        })
    }

    fn make_room(&mut self, now: Timestamp) {
        self.breakers.retain(|_, breaker| breaker.closed_from(now).is_some());
        if self.breakers.len() >= MOST {
            let first = self.breakers.iter().min_by_key(|(_, breaker)| breaker.until).map(|(key, _)| key.clone());
            first.and_then(|key| self.breakers.remove(&key));
        }
    }
}

fn lasts(until: Timestamp, now: Timestamp) -> bool {
    until.lasts(now, Millis(LONGEST_MS))
}

impl Breaker {
    /// From when a request may go; `None` if one may already.
    fn closed_from(&self, now: Timestamp) -> Option<Timestamp> {
        [self.until, self.probe_until].into_iter().flatten().filter(|&until| lasts(until, now)).max()
    }

    fn open(&mut self, now: Timestamp) {
        let rest = (SHORTEST_MS << self.opened.min(3)).min(LONGEST_MS);
        *self = Self {
            faults: 0,
            opened: self.opened.saturating_add(1),
            until: Some(now.after(Millis(rest))),
            probe_until: None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One endpoint's breaker with a clock.
    struct One {
        all: Breakers,
        region: RegionId,
        endpoint: EndpointId,
        now: Timestamp,
    }

    impl One {
        fn new() -> Self {
            let (region, endpoint) = (RegionId::parse("fra").unwrap(), EndpointId::parse("fra-1").unwrap());
            Self { all: Breakers::default(), region, endpoint, now: Timestamp(0) }
        }

        fn heard(&mut self, verdict: Verdict) -> &mut Self {
            self.all.heard(&self.region, &self.endpoint, verdict, self.now);
            self
        }

        fn faults(&mut self, count: u32) -> &mut Self {
            for _ in 0..count {
                self.heard(Verdict::Fault);
            }
            self
        }

        fn sent(&mut self) -> &mut Self {
            self.all.sent(&self.region, &self.endpoint, self.now);
            self
        }

        fn pass(&mut self, ms: i64) -> &mut Self {
            self.now = Timestamp(self.now.0 + ms);
            self
        }

        fn open(&self) -> bool {
            self.all.is_open(&self.region, &self.endpoint, self.now)
        }
    }

    #[test]
    fn five_faults_in_a_row_open_it_and_a_whole_answer_between_them_does_not() {
        let mut one = One::new();
        assert!(!one.faults(FAULTS - 1).heard(Verdict::Whole).faults(FAULTS - 1).open());
        assert!(!one.heard(Verdict::Answered).open(), "an answer that may yet break off clears nothing");
        assert!(one.faults(1).open());
    }

    #[test]
    fn one_probe_goes_after_the_rest_and_its_word_decides() {
        let mut one = One::new();
        assert!(one.faults(FAULTS).sent().pass(9_999).open());
        assert!(!one.pass(1).open());
        assert!(one.sent().open(), "the second waits for the first's word");
        assert!(one.faults(1).pass(19_999).open(), "twice as long");
        assert!(!one.pass(1).open());
        assert!(!one.sent().heard(Verdict::Answered).open());
        assert!(one.faults(1).pass(39_999).open(), "on parole, one fault is enough");
        assert!(!one.pass(1).sent().heard(Verdict::Answered).heard(Verdict::Whole).faults(FAULTS - 1).open());
        assert!(!one.faults(1).pass(10_000).open(), "all is forgiven: the first rest again");
    }

    #[test]
    fn a_probe_that_is_lost_or_given_up_makes_way_for_another() {
        let mut lost = One::new();
        lost.faults(FAULTS).pass(10_000).sent();
        assert!(lost.pass(9_999).open());
        assert!(!lost.pass(1).open());
        let mut given_up = One::new();
        given_up.faults(FAULTS).pass(10_000).sent();
        assert!(given_up.open() && !given_up.heard(Verdict::Nothing).open());
    }

    #[test]
    fn requests_under_way_when_it_opens_neither_lengthen_nor_end_the_rest() {
        let mut one = One::new();
        assert!(one.faults(FAULTS + 20).open());
        assert!(!one.pass(10_000).open());
    }

    #[test]
    fn rests_grow_to_a_minute() {
        let mut one = One::new();
        one.faults(FAULTS);
        for rest in [10_000, 20_000, 40_000, 60_000, 60_000] {
            assert!(one.pass(rest - 1).open(), "{rest}");
            assert!(!one.pass(1).open(), "{rest}");
            one.sent().faults(1);
        }
    }

    #[test]
    fn what_is_open_reaches_steering() {
        let table = Table::compile(crate::plan::tests::RULES.as_bytes()).unwrap();
        let mut one = One::new();
        one.faults(FAULTS);
        let gone = RegionId::parse("gone").unwrap();
        (0..FAULTS).for_each(|_| one.all.heard(&gone, &one.endpoint, Verdict::Fault, one.now));
        let resting = |one: &One| one.all.resting(&table, one.now).collect::<Vec<_>>();
        let [cooling] = &resting(&one)[..] else { panic!("{:?}", resting(&one)) };
        assert_eq!((cooling.endpoint.as_str(), &cooling.model, cooling.until), ("fra-1", &None, Timestamp(10_000)));
        assert!(resting(one.pass(10_000)).is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut one = One::new();
        for number in 0..5_000 {
            let endpoint = EndpointId::parse(&format!("e-{number}")).unwrap();
            (0..FAULTS).for_each(|_| one.all.heard(&one.region, &endpoint, Verdict::Fault, one.now));
        }
        assert!(one.all.breakers.len() <= MOST);
    }
}
