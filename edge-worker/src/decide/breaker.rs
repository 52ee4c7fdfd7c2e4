//! The circuit breakers of one isolate. Takes the results of requests; returns which endpoints get no requests for now,
//! and which request may try such an endpoint again. Called by `memory`. An isolate is one instance of the Worker; the
//! platform runs several, which share no memory. An endpoint at rest gets no requests for a while, because requests to
//! it failed.
//!
//! A cool-down follows every failure and concerns one model. A breaker watches an endpoint as a whole. Each [`Sender`]
//! of requests has a breaker for each endpoint. In addition, each endpoint has a shared breaker, which concerns the
//! requests of all senders. [`FAULTS`] faults without a complete answer in between open a breaker. Streams that broke
//! off after their first bytes count as faults. One sender alone can't open a shared breaker, because its own requests
//! may be the cause of the faults. An open breaker withholds requests for a time, its rest. Then it lets one request
//! through: the probe. If the probe is answered, the breaker closes. Until a complete answer arrives, fewer faults open
//! the breaker again, and it rests longer. A rate limit or a missing model is no fault, because the endpoint is alive.

use std::collections::HashMap;

use bailiwick_rules::id::{EndpointId, RegionId};
use bailiwick_rules::steer::Cooling;
use bailiwick_rules::table::Table;
use bailiwick_rules::time::{Millis, Timestamp};

use crate::decide::sender::Sender;

/// Faults in a row that open a breaker.
pub(crate) const FAULTS: u32 = 5;
/// How many faults one sender may add to a shared breaker.
const MAX_PER_SENDER: u32 = FAULTS - 2;
/// The first rest of an open breaker, in milliseconds. Each further rest is twice as long.
const SHORTEST_MS: u64 = 10_000;
/// The longest rest of an open breaker, in milliseconds.
const LONGEST_MS: u64 = 60_000;
/// If a probe has no result after this time, in milliseconds, another probe may be sent.
const PROBE_MS: u64 = 10_000;
/// The most breakers that are remembered.
const MAX: usize = 1_024;

/// The result of a request, as far as it concerns the endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// The endpoint failed: no connection, a timeout, a 5xx, a refused credential, an answer of the wrong form, or a
    /// body that broke off.
    Fault,
    /// The endpoint has begun to answer.
    Answered,
    /// The endpoint's answer was complete.
    Whole,
    /// No result, because the client went away.
    Nothing,
}

/// The breakers of one isolate.
#[derive(Clone, Debug, Default)]
pub(crate) struct Breakers {
    breakers: HashMap<Key, Breaker>,
}

/// The key of a breaker. `sender` is `None` for a shared breaker.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Key {
    region: RegionId,
    endpoint: EndpointId,
    sender: Option<Sender>,
}

/// The state of one breaker.
#[derive(Clone, Debug, Default)]
struct Breaker {
    /// Faults since the last complete answer, while the breaker is closed.
    faults: u32,
    /// In a shared breaker: how many of the faults each sender added.
    by_sender: Vec<(Sender, u32)>,
    /// How many times the breaker has opened since the last complete answer.
    opened: u32,
    /// The end of the rest; `None` if the breaker is closed.
    until: Option<Timestamp>,
    /// The time until which the result of a probe is awaited.
    probe_until: Option<Timestamp>,
}

impl Breakers {
    /// Whether requests of this sender should go to other endpoints, if there are any.
    #[must_use]
    pub(crate) fn is_open(&self, region: &RegionId, endpoint: &EndpointId, sender: Sender, now: Timestamp) -> bool {
        let is_open = |key: Key| self.breakers.get(&key).is_some_and(|breaker| breaker.closed_from(now).is_some());
        !self.breakers.is_empty() && keys(region, endpoint, sender).into_iter().any(is_open)
    }

    /// Records that a request is sent to the endpoint. If the breaker's rest is over, this request is the probe.
    pub(crate) fn note_sent(&mut self, region: &RegionId, endpoint: &EndpointId, sender: Sender, now: Timestamp) {
        if self.breakers.is_empty() {
            return;
        }
        for key in keys(region, endpoint, sender) {
            if let Some(breaker) = self.breakers.get_mut(&key)
                && breaker.until.is_some_and(|until| !lasts(until, now))
            {
                breaker.probe_until = Some(now.after(Millis(PROBE_MS)));
            }
        }
    }

    /// Records the result of a request.
    pub(crate) fn note(
        &mut self,
        region: &RegionId,
        endpoint: &EndpointId,
        sender: Sender,
        verdict: Verdict,
        now: Timestamp,
    ) {
        // A shortcut for the usual case: no endpoint has a fault.
        if self.breakers.is_empty() && verdict != Verdict::Fault {
            return;
        }
        for key in keys(region, endpoint, sender) {
            if verdict == Verdict::Whole {
                self.breakers.remove(&key);
                continue;
            }
            if verdict == Verdict::Fault && self.breakers.len() >= MAX && !self.breakers.contains_key(&key) {
                self.make_room(now);
            }
            let is_shared = key.sender.is_none();
            let breaker = match verdict {
                Verdict::Fault => self.breakers.entry(key).or_default(),
                _ => match self.breakers.get_mut(&key) {
                    Some(breaker) => breaker,
                    None => continue,
                },
            };
            match verdict {
                Verdict::Fault if is_shared => breaker.fault_of(sender, now),
                Verdict::Fault => breaker.fault(now),
                Verdict::Answered if breaker.until.is_some() => breaker.close(is_shared),
                Verdict::Nothing => breaker.probe_until = None,
                Verdict::Answered | Verdict::Whole => {}
            }
        }
    }

    /// The open breakers as cool-downs, for steering a request of `sender`; without a sender, only the shared breakers.
    /// Endpoints of regions that the rules no longer have are left out.
    pub(crate) fn resting<'a>(
        &'a self,
        table: &'a Table,
        sender: Option<Sender>,
        now: Timestamp,
    ) -> impl Iterator<Item = Cooling> + 'a {
        self.breakers.iter().filter_map(move |(key, breaker)| {
            if key.sender.is_some() && key.sender != sender {
                return None;
            }
            let until = breaker.closed_from(now)?;
            let region = table.region_named(key.region.as_str())?;
            Some(Cooling { region, endpoint: key.endpoint.clone(), model: None, until })
        })
    }

    /// Makes room for one more breaker. Shared breakers are removed last.
    fn make_room(&mut self, now: Timestamp) {
        self.breakers.retain(|_, breaker| breaker.closed_from(now).is_some());
        if self.breakers.len() >= MAX {
            let order = |(key, breaker): &(&Key, &Breaker)| (key.sender.is_none(), breaker.until);
            let first = self.breakers.iter().min_by_key(order).map(|(key, _)| key.clone());
            first.and_then(|key| self.breakers.remove(&key));
        }
    }
}

/// The keys of the sender's own breaker and of the shared breaker.
fn keys(region: &RegionId, endpoint: &EndpointId, sender: Sender) -> [Key; 2] {
    [Some(sender), None].map(|sender| Key { region: region.clone(), endpoint: endpoint.clone(), sender })
}

/// Whether a time is still ahead. A time that is further ahead than the longest rest doesn't count: the clock was set
/// back.
fn lasts(until: Timestamp, now: Timestamp) -> bool {
    until.lasts(now, Millis(LONGEST_MS))
}

impl Breaker {
    /// The time from which a request may be sent; `None` if it may be sent now.
    fn closed_from(&self, now: Timestamp) -> Option<Timestamp> {
        [self.until, self.probe_until].into_iter().flatten().filter(|&until| lasts(until, now)).max()
    }

    /// Counts a fault in a sender's own breaker. If the probe meets a fault, the breaker opens again.
    fn fault(&mut self, now: Timestamp) {
        match self.until {
            // This request was sent before the breaker opened, so its fault doesn't count again.
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

    /// Counts a fault of one sender in a shared breaker. After a rest, the breaker opens again if two senders have one
    /// fault each.
    fn fault_of(&mut self, sender: Sender, now: Timestamp) {
        match self.until {
            Some(until) if lasts(until, now) => return,
            Some(_) => self.close(true),
            None => {}
        }
        let most = if self.opened > 0 { 1 } else { MAX_PER_SENDER };
        match self.by_sender.iter_mut().find(|(counted, _)| *counted == sender) {
            Some((_, faults)) if *faults >= most => return,
            Some((_, faults)) => *faults += 1,
            None => self.by_sender.push((sender, 1)),
        }
        self.faults = self.faults.saturating_add(1);
        if self.faults >= FAULTS {
            self.open(now);
        }
    }

    /// Closes an open breaker, so that requests may be sent again.
    fn close(&mut self, is_shared: bool) {
        let faults = if is_shared { MAX_PER_SENDER } else { FAULTS - 1 };
        *self = Self { faults, opened: self.opened, ..Self::default() };
    }

    /// Opens the breaker for its next rest.
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

    /// The breakers of one endpoint, the sender that the next call is for, and a clock.
    struct Fixture {
        all: Breakers,
        region: RegionId,
        endpoint: EndpointId,
        sender: Sender,
        now: Timestamp,
    }

    impl Fixture {
        fn new() -> Self {
            let (region, endpoint) = (RegionId::parse("fra").unwrap(), EndpointId::parse("fra-1").unwrap());
            Self { all: Breakers::default(), region, endpoint, sender: Sender(1), now: Timestamp(0) }
        }

        fn note(&mut self, verdict: Verdict) -> &mut Self {
            self.all.note(&self.region, &self.endpoint, self.sender, verdict, self.now);
            self
        }

        /// Sets the sender of the following calls.
        fn by(&mut self, sender: u64) -> &mut Self {
            self.sender = Sender(sender);
            self
        }

        fn faults(&mut self, count: u32) -> &mut Self {
            for _ in 0..count {
                self.note(Verdict::Fault);
            }
            self
        }

        fn note_sent(&mut self) -> &mut Self {
            self.all.note_sent(&self.region, &self.endpoint, self.sender, self.now);
            self
        }

        fn pass(&mut self, ms: i64) -> &mut Self {
            self.now = Timestamp(self.now.0 + ms);
            self
        }

        fn open(&self) -> bool {
            self.all.is_open(&self.region, &self.endpoint, self.sender, self.now)
        }
    }

    #[test]
    fn a_breaker_opens_for_the_sender_that_met_the_faults() {
        let mut fixture = Fixture::new();
        for _ in 0..FAULTS {
            assert!(!fixture.open());
            fixture.note(Verdict::Fault);
        }
        assert!(fixture.pass(9_999).open());
        assert!(!fixture.by(2).open(), "the faults of sender 1 don't concern sender 2");
        assert!(!fixture.by(1).pass(1).open());
        assert!(fixture.note_sent().open(), "the probe is under way");
    }

    #[test]
    fn a_complete_answer_resets_the_count_of_faults() {
        let mut fixture = Fixture::new();
        assert!(!fixture.faults(FAULTS - 1).note(Verdict::Whole).faults(FAULTS - 1).open());
        assert!(!fixture.note(Verdict::Answered).open(), "the beginning of an answer doesn't reset the count");
        assert!(fixture.faults(1).open());
    }

    #[test]
    fn after_the_rest_one_probe_is_sent_and_its_result_decides() {
        let mut fixture = Fixture::new();
        assert!(fixture.faults(FAULTS).note_sent().pass(9_999).open());
        assert!(!fixture.pass(1).open());
        assert!(fixture.note_sent().open(), "no second probe is sent before the first has a result");
        assert!(fixture.faults(1).pass(19_999).open(), "the second rest is twice as long");
        assert!(!fixture.pass(1).open());
        assert!(!fixture.note_sent().note(Verdict::Answered).open());
        assert!(fixture.faults(1).pass(39_999).open(), "after a probe one fault is enough");
        assert!(!fixture.pass(1).note_sent().note(Verdict::Answered).note(Verdict::Whole).faults(FAULTS - 1).open());
        assert!(
            !fixture.faults(1).pass(10_000).open(),
            "after a complete answer the first rest has its first length again"
        );
    }

    #[test]
    fn after_a_lost_or_abandoned_probe_another_probe_is_sent() {
        let mut lost = Fixture::new();
        lost.faults(FAULTS).pass(10_000).note_sent();
        assert!(lost.pass(9_999).open());
        assert!(!lost.pass(1).open());
        let mut given_up = Fixture::new();
        given_up.faults(FAULTS).pass(10_000).note_sent();
        assert!(given_up.open() && !given_up.note(Verdict::Nothing).open());
    }

    #[test]
    fn faults_of_requests_sent_before_the_breaker_opened_do_not_change_the_rest() {
        let mut fixture = Fixture::new();
        assert!(fixture.faults(FAULTS + 20).open());
        assert!(!fixture.pass(10_000).open());
    }

    #[test]
    fn rests_grow_to_a_minute() {
        let mut fixture = Fixture::new();
        fixture.faults(FAULTS);
        for rest in [10_000, 20_000, 40_000, 60_000, 60_000] {
            assert!(fixture.pass(rest - 1).open(), "{rest}");
            assert!(!fixture.pass(1).open(), "{rest}");
            fixture.note_sent().faults(1);
        }
    }

    #[test]
    fn one_sender_alone_never_opens_the_shared_breaker() {
        let mut fixture = Fixture::new();
        fixture.faults(100);
        assert!(fixture.open() && !fixture.by(9).open(), "other senders aren't concerned");
        assert!(!fixture.by(2).faults(1).by(9).open());
        assert!(
            fixture.by(2).faults(1).by(9).open(),
            "3 faults of one sender and 2 of another open the shared breaker"
        );
        assert!(!fixture.pass(10_000).open());
        assert!(fixture.note_sent().open(), "one probe is sent for all senders");
        assert!(!fixture.by(2).faults(50).by(9).open(), "one sender alone doesn't open it again");
        assert!(fixture.by(3).faults(1).by(9).pass(19_999).open(), "two senders open it again, for longer");
        assert!(
            !fixture.pass(1).by(3).note(Verdict::Whole).by(2).faults(4).by(9).open(),
            "a complete answer resets everything"
        );
    }

    #[test]
    fn random_results_of_one_sender_never_concern_other_senders() {
        let cases = Cell::new(0u32);
        let event = (0..6u8, 0..30_000i64);
        TestRunner::new(ProptestConfig::with_cases(2_000))
            .run(&proptest::collection::vec(event, 1..80), |events| {
                cases.set(cases.get() + 1);
                let mut fixture = Fixture::new();
                for (what, after) in events {
                    match what {
                        0..=2 => fixture.pass(after).by(1).note_sent().note(Verdict::Fault),
                        3 => fixture.by(1).note(Verdict::Answered),
                        4 => fixture.by(1).note(Verdict::Nothing),
                        _ => fixture.by(2).note_sent().note(Verdict::Answered).note(Verdict::Whole),
                    };
                    prop_assert!(!fixture.by(2).open() && !fixture.by(3).open());
                }
                Ok(())
            })
            .unwrap();
        println!("breakers of one sender: {}", cases.get());
    }

    #[test]
    fn open_breakers_are_given_to_steering_as_cool_downs() {
        let table = Table::compile(crate::decide::plan::tests::RULES.as_bytes()).unwrap();
        let mut fixture = Fixture::new();
        fixture.faults(FAULTS);
        let gone = RegionId::parse("gone").unwrap();
        (0..FAULTS)
            .for_each(|_| fixture.all.note(&gone, &fixture.endpoint, fixture.sender, Verdict::Fault, fixture.now));
        let resting =
            |fixture: &Fixture| fixture.all.resting(&table, Some(fixture.sender), fixture.now).collect::<Vec<_>>();
        let [cooling] = &resting(&fixture)[..] else { panic!("{:?}", resting(&fixture)) };
        assert_eq!((cooling.endpoint.as_str(), &cooling.model, cooling.until), ("fra-1", &None, Timestamp(10_000)));
        assert!(resting(fixture.pass(10_000)).is_empty());
    }

    #[test]
    fn the_number_of_breakers_is_bounded() {
        let mut fixture = Fixture::new();
        for number in 0..1_500 {
            let endpoint = EndpointId::parse(&format!("e-{number}")).unwrap();
            (0..FAULTS).for_each(|_| {
                fixture.all.note(&fixture.region, &endpoint, fixture.sender, Verdict::Fault, fixture.now);
            });
        }
        assert!(fixture.all.breakers.len() <= MAX);
    }
}
