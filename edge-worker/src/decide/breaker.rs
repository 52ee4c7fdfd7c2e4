//! The circuit breakers of one isolate. Takes how endpoints did; returns which of them get no requests for now, and
//! which request may try one again. Called by `memory`.
//!
//! A cool-down follows every failure and concerns one model. A breaker watches an endpoint as a whole. Each [`Source`]
//! of requests has a breaker for each endpoint, and there is one for everybody. [`FAULTS`] faults without a complete
//! answer in between open a breaker. Streams that broke off after their first bytes count as faults. One source alone
//! can't open the breaker for everybody, because its own requests may be the cause. An open breaker rests, and then
//! lets one request through: the probe. If the probe is answered, the breaker closes. Until a complete answer comes,
//! fewer faults open it again, and for a longer time. A rate limit or a missing model is no fault, because the endpoint
//! is alive.

use std::collections::HashMap;

use bailiwick_rules::id::{EndpointId, RegionId};
use bailiwick_rules::steer::Cooling;
use bailiwick_rules::table::Table;
use bailiwick_rules::time::{Millis, Timestamp};

use crate::decide::source::Source;

/// Faults in a row that open a breaker.
pub(crate) const FAULTS: u32 = 5;
/// How many faults one source may add to the breaker for everybody.
const BY_ONE: u32 = FAULTS - 2;
/// The first rest of an open breaker, in milliseconds. Each further rest is twice as long.
const SHORTEST_MS: u64 = 10_000;
/// The longest rest of an open breaker, in milliseconds.
const LONGEST_MS: u64 = 60_000;
/// If a probe has no result after this time, in milliseconds, it is forgotten, and another may go.
const PROBE_MS: u64 = 10_000;
/// The most breakers that are remembered.
const MAX: usize = 1_024;

/// What a request shows about the endpoint that it was sent to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// It failed: no connection, a timeout, a 5xx, a refused credential, an answer of the wrong form, or a body that
    /// broke off.
    Fault,
    /// It has begun to answer.
    Answered,
    /// Its answer was complete.
    Whole,
    /// Nothing, because the client went away.
    Nothing,
}

/// The breakers of one isolate.
#[derive(Clone, Debug, Default)]
pub(crate) struct Breakers {
    breakers: HashMap<Key, Breaker>,
}

/// The key of a breaker. `source` is `None` for the one of everybody.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Key {
    region: RegionId,
    endpoint: EndpointId,
    source: Option<Source>,
}

#[derive(Clone, Debug, Default)]
struct Breaker {
    /// Faults since the last complete answer, while the breaker is closed.
    faults: u32,
    /// In the breaker for everybody: how many of the faults each source added.
    by: Vec<(Source, u32)>,
    /// How often the breaker has opened since the last complete answer.
    opened: u32,
    /// `Some` if the breaker is open: until when it rests.
    until: Option<Timestamp>,
    /// Until when the result of a probe is awaited.
    probe_until: Option<Timestamp>,
}

impl Breakers {
    /// Whether this source should not ask the endpoint, as long as there are others.
    #[must_use]
    pub(crate) fn is_open(&self, region: &RegionId, endpoint: &EndpointId, source: Source, now: Timestamp) -> bool {
        let is_open = |key: Key| self.breakers.get(&key).is_some_and(|breaker| breaker.closed_from(now).is_some());
        !self.breakers.is_empty() && keys(region, endpoint, source).into_iter().any(is_open)
    }

    /// Notes that a request goes to the endpoint. If the breaker's rest is over, this request is the probe.
    pub(crate) fn sent(&mut self, region: &RegionId, endpoint: &EndpointId, source: Source, now: Timestamp) {
        if self.breakers.is_empty() {
            return;
        }
        for key in keys(region, endpoint, source) {
            if let Some(breaker) = self.breakers.get_mut(&key)
                && breaker.until.is_some_and(|until| !lasts(until, now))
            {
                breaker.probe_until = Some(now.after(Millis(PROBE_MS)));
            }
        }
    }

    /// Notes how an endpoint did.
    pub(crate) fn note(
        &mut self,
        region: &RegionId,
        endpoint: &EndpointId,
        source: Source,
        verdict: Verdict,
        now: Timestamp,
    ) {
        // Usually there are no breakers.
        if self.breakers.is_empty() && verdict != Verdict::Fault {
            return;
        }
        for key in keys(region, endpoint, source) {
            if verdict == Verdict::Whole {
                self.breakers.remove(&key);
                continue;
            }
            if verdict == Verdict::Fault && self.breakers.len() >= MAX && !self.breakers.contains_key(&key) {
                self.make_room(now);
            }
            let everybody = key.source.is_none();
            let breaker = match verdict {
                Verdict::Fault => self.breakers.entry(key).or_default(),
                _ => match self.breakers.get_mut(&key) {
                    Some(breaker) => breaker,
                    None => continue,
                },
            };
            match verdict {
                Verdict::Fault if everybody => breaker.fault_of(source, now),
                Verdict::Fault => breaker.fault(now),
                Verdict::Answered if breaker.until.is_some() => breaker.close(everybody),
                Verdict::Nothing => breaker.probe_until = None,
                Verdict::Answered | Verdict::Whole => {}
            }
        }
    }

    /// The open breakers, as steering needs them for a request of `source`; without a source, those for everybody.
    /// Endpoints of regions that the rules no longer have are left out.
    pub(crate) fn resting<'a>(
        &'a self,
        table: &'a Table,
        source: Option<Source>,
        now: Timestamp,
    ) -> impl Iterator<Item = Cooling> + 'a {
        self.breakers.iter().filter_map(move |(key, breaker)| {
            if key.source.is_some() && key.source != source {
                return None;
            }
            let until = breaker.closed_from(now)?;
            let region = table.region_named(key.region.as_str())?;
            Some(Cooling { region, endpoint: key.endpoint.clone(), model: None, until })
        })
    }

    /// Frees room for one more. The breakers for everybody are removed last.
    fn make_room(&mut self, now: Timestamp) {
        self.breakers.retain(|_, breaker| breaker.closed_from(now).is_some());
        if self.breakers.len() >= MAX {
            let order = |(key, breaker): &(&Key, &Breaker)| (key.source.is_none(), breaker.until);
            let first = self.breakers.iter().min_by_key(order).map(|(key, _)| key.clone());
            first.and_then(|key| self.breakers.remove(&key));
        }
    }
}

fn keys(region: &RegionId, endpoint: &EndpointId, source: Source) -> [Key; 2] {
    [Some(source), None].map(|source| Key { region: region.clone(), endpoint: endpoint.clone(), source })
}

fn lasts(until: Timestamp, now: Timestamp) -> bool {
    until.lasts(now, Millis(LONGEST_MS))
}

impl Breaker {
    /// When a request may go; `None` if one may already.
    fn closed_from(&self, now: Timestamp) -> Option<Timestamp> {
        [self.until, self.probe_until].into_iter().flatten().filter(|&until| lasts(until, now)).max()
    }

    /// Counts a fault in a source's own breaker. The probe's fault opens it again.
    fn fault(&mut self, now: Timestamp) {
        match self.until {
            // A request that was sent before the breaker opened says nothing new.
            Some(until) if lasts(until, now) => {}
            Some(_) => self.open(now),
            None => {
                self.faults = self.faults.saturating_add(1);
                if self.faults >= FAULTS {
                    self.open(now);
                }
            }
        }
    }

    /// Counts a fault of one source in the breaker for everybody. After a rest, one fault each of two sources opens it
    /// again.
    fn fault_of(&mut self, source: Source, now: Timestamp) {
        match self.until {
            Some(until) if lasts(until, now) => return,
            Some(_) => self.close(true),
            None => {}
        }
        let most = if self.opened > 0 { 1 } else { BY_ONE };
        match self.by.iter_mut().find(|(by, _)| *by == source) {
            Some((_, faults)) if *faults >= most => return,
            Some((_, faults)) => *faults += 1,
            None => self.by.push((source, 1)),
        }
        self.faults = self.faults.saturating_add(1);
        if self.faults >= FAULTS {
            self.open(now);
        }
    }

    /// Closes an open breaker, so that requests may go again.
    fn close(&mut self, everybody: bool) {
        let faults = if everybody { BY_ONE } else { FAULTS - 1 };
        *self = Self { faults, opened: self.opened, ..Self::default() };
    }

    fn open(&mut self, now: Timestamp) {
        let rest = (SHORTEST_MS << self.opened.min(3)).min(LONGEST_MS);
        *self = Self { opened: self.opened.saturating_add(1), until: Some(now.after(Millis(rest))), ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;

    use super::*;

    /// One endpoint's breaker with a clock.
    struct One {
        all: Breakers,
        region: RegionId,
        endpoint: EndpointId,
        source: Source,
        now: Timestamp,
    }

    impl One {
        fn new() -> Self {
            let (region, endpoint) = (RegionId::parse("fra").unwrap(), EndpointId::parse("fra-1").unwrap());
            Self { all: Breakers::default(), region, endpoint, source: Source(1), now: Timestamp(0) }
        }

        fn note(&mut self, verdict: Verdict) -> &mut Self {
            self.all.note(&self.region, &self.endpoint, self.source, verdict, self.now);
            self
        }

        fn by(&mut self, source: u64) -> &mut Self {
            self.source = Source(source);
            self
        }

        fn faults(&mut self, count: u32) -> &mut Self {
            for _ in 0..count {
                self.note(Verdict::Fault);
            }
            self
        }

        fn sent(&mut self) -> &mut Self {
            self.all.sent(&self.region, &self.endpoint, self.source, self.now);
            self
        }

        fn pass(&mut self, ms: i64) -> &mut Self {
            self.now = Timestamp(self.now.0 + ms);
            self
        }

        fn open(&self) -> bool {
            self.all.is_open(&self.region, &self.endpoint, self.source, self.now)
        }
    }

    #[test]
    fn a_breaker_opens_for_the_source_that_met_the_faults() {
        let mut one = One::new();
        for _ in 0..FAULTS {
            assert!(!one.open());
            one.note(Verdict::Fault);
        }
        assert!(one.pass(9_999).open());
        assert!(!one.by(2).open(), "nothing was wrong with it for others");
        assert!(!one.by(1).pass(1).open());
        assert!(one.sent().open(), "the probe is under way");
    }

    #[test]
    fn five_faults_in_a_row_open_it_and_a_whole_answer_between_them_does_not() {
        let mut one = One::new();
        assert!(!one.faults(FAULTS - 1).note(Verdict::Whole).faults(FAULTS - 1).open());
        assert!(!one.note(Verdict::Answered).open(), "an answer that may yet break off clears nothing");
        assert!(one.faults(1).open());
    }

    #[test]
    fn one_probe_goes_after_the_rest_and_its_word_decides() {
        let mut one = One::new();
        assert!(one.faults(FAULTS).sent().pass(9_999).open());
        assert!(!one.pass(1).open());
        assert!(one.sent().open(), "the second waits for the result of the first");
        assert!(one.faults(1).pass(19_999).open(), "twice as long");
        assert!(!one.pass(1).open());
        assert!(!one.sent().note(Verdict::Answered).open());
        assert!(one.faults(1).pass(39_999).open(), "after a probe one fault is enough");
        assert!(!one.pass(1).sent().note(Verdict::Answered).note(Verdict::Whole).faults(FAULTS - 1).open());
        assert!(!one.faults(1).pass(10_000).open(), "after a complete answer the first rest is used again");
    }

    #[test]
    fn a_probe_that_is_lost_or_given_up_makes_way_for_another() {
        let mut lost = One::new();
        lost.faults(FAULTS).pass(10_000).sent();
        assert!(lost.pass(9_999).open());
        assert!(!lost.pass(1).open());
        let mut given_up = One::new();
        given_up.faults(FAULTS).pass(10_000).sent();
        assert!(given_up.open() && !given_up.note(Verdict::Nothing).open());
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
    fn no_source_opens_everybodys_alone() {
        let mut one = One::new();
        one.faults(100);
        assert!(one.open() && !one.by(9).open(), "everybody else goes on");
        assert!(!one.by(2).faults(1).by(9).open());
        assert!(one.by(2).faults(1).by(9).open(), "three of one and two of another");
        assert!(!one.pass(10_000).open());
        assert!(one.sent().open(), "one probe for all");
        assert!(!one.by(2).faults(50).by(9).open(), "nor does one source open it anew");
        assert!(one.by(3).faults(1).by(9).pass(19_999).open(), "two do, for longer");
        assert!(!one.pass(1).by(3).note(Verdict::Whole).by(2).faults(4).by(9).open(), "a whole answer clears it");
    }

    #[test]
    fn whatever_one_source_meets_others_go_on() {
        let cases = Cell::new(0u32);
        let event = (0..6u8, 0..30_000i64);
        TestRunner::new(ProptestConfig::with_cases(2_000))
            .run(&proptest::collection::vec(event, 1..80), |events| {
                cases.set(cases.get() + 1);
                let mut one = One::new();
                for (what, after) in events {
                    match what {
                        0..=2 => one.pass(after).by(1).sent().note(Verdict::Fault),
                        3 => one.by(1).note(Verdict::Answered),
                        4 => one.by(1).note(Verdict::Nothing),
                        _ => one.by(2).sent().note(Verdict::Answered).note(Verdict::Whole),
                    };
                    prop_assert!(!one.by(2).open() && !one.by(3).open());
                }
                Ok(())
            })
            .unwrap();
        println!("breakers of one source: {}", cases.get());
    }

    #[test]
    fn what_is_open_reaches_steering() {
        let table = Table::compile(crate::decide::plan::tests::RULES.as_bytes()).unwrap();
        let mut one = One::new();
        one.faults(FAULTS);
        let gone = RegionId::parse("gone").unwrap();
        (0..FAULTS).for_each(|_| one.all.note(&gone, &one.endpoint, one.source, Verdict::Fault, one.now));
        let resting = |one: &One| one.all.resting(&table, Some(one.source), one.now).collect::<Vec<_>>();
        let [cooling] = &resting(&one)[..] else { panic!("{:?}", resting(&one)) };
        assert_eq!((cooling.endpoint.as_str(), &cooling.model, cooling.until), ("fra-1", &None, Timestamp(10_000)));
        assert!(resting(one.pass(10_000)).is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut one = One::new();
        for number in 0..1_500 {
            let endpoint = EndpointId::parse(&format!("e-{number}")).unwrap();
            (0..FAULTS).for_each(|_| one.all.note(&one.region, &endpoint, one.source, Verdict::Fault, one.now));
        }
        assert!(one.all.breakers.len() <= MAX);
    }
}
