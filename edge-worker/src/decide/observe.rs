//! Counts requests and their outcomes for the DNS nodes. Takes the start and the end of each request and of each
//! attempt (one try to get the request answered by one endpoint). Returns a [`Batch`]: the counts of this isolate,
//! which is one running instance of the Worker, since its last batch. Called by `runtime::observe`, which posts the
//! batches.
//!
//! Three things are counted. Outcomes, tokens and times are sums by [`Key`] (service, clients, region, endpoint, model
//! and so on). Requests in flight are measured as busy time: a request that takes two seconds adds two seconds to its
//! key. Demand is busy time too, from the start of a request to its end. It is summed by the service and the order of
//! the client's fence (the regions that may process it), whatever region serves the request. Where a rollout replaces a
//! model or an endpoint, [`Arms`] counts its old and its new side apart.
//!
//! The number of counts is bounded. Labels are names of the rules and fixed words, never text from a client or an
//! endpoint.

mod arms;

use std::collections::BTreeMap;

use bailiwick_rules::id::{RegionId, ServiceId};
use bailiwick_rules::observe::{Batch, Counts, InFlight, Key, OTHER, Observation, OrderDemand, length_class};
use bailiwick_rules::table::TenantIndex;
use bailiwick_rules::time::Timestamp;

use super::attempt::{Outcome, Record};

use arms::Arms;
pub(crate) use arms::JudgedAttempts;

/// The most regions of an order. The demand of clients with a longer fence isn't counted.
const LONGEST_ORDER: usize = 64;
/// How many keys of a batch are kept for those with the model [`OTHER`].
const KEYS_OF_OTHERS: usize = Batch::MAX_KEYS / 8;

/// A service, and the order of the fence of some of its clients.
pub(crate) type Order = (ServiceId, Vec<RegionId>);

/// What one isolate has counted since its last batch.
#[derive(Debug)]
pub(crate) struct Collector {
    /// The isolate's random name.
    isolate: String,
    /// The number of the last batch.
    sequence: u64,
    /// When the last batch was taken.
    since: Timestamp,
    counts: BTreeMap<Key, Counts>,
    /// The requests that are at an endpoint now.
    in_flight: BusyTimes<Key>,
    /// The steered requests that haven't ended yet.
    demand: BusyTimes<Order>,
    /// The updates that were lost because there were too many keys.
    uncounted: u64,
    /// The attempts by which rollouts are judged.
    arms: Arms,
    /// Whether the last batch reported requests in flight.
    has_reported: bool,
}

/// The requests in progress under one key, and the time that they took since the last batch.
#[derive(Debug)]
struct Busy {
    count: u32,
    since: Timestamp,
    busy_ms: u64,
}

impl Busy {
    fn new(now: Timestamp) -> Self {
        Self { count: 0, since: now, busy_ms: 0 }
    }

    /// Adds the time until now. If the clock was set back, nothing is added.
    fn accrue(&mut self, now: Timestamp) {
        let span = now.since(self.since).0.saturating_mul(u64::from(self.count));
        self.busy_ms = self.busy_ms.saturating_add(span);
        self.since = now;
    }

    fn begin(&mut self, now: Timestamp) {
        self.accrue(now);
        self.count = self.count.saturating_add(1);
    }

    fn end(&mut self, now: Timestamp) {
        self.accrue(now);
        self.count = self.count.saturating_sub(1);
    }

    /// Returns the busy time since the last call.
    fn take(&mut self, now: Timestamp) -> u64 {
        self.accrue(now);
        core::mem::take(&mut self.busy_ms)
    }
}

/// The requests in progress and their busy time, by key.
#[derive(Debug)]
struct BusyTimes<K>(BTreeMap<K, Busy>);

impl<K: Ord + Clone> BusyTimes<K> {
    fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Begins a request. If there are `most` keys already, a request under a new key isn't counted: `false`.
    #[must_use]
    fn begin(&mut self, key: &K, most: usize, now: Timestamp) -> bool {
        if !self.0.contains_key(key) && self.0.len() >= most {
            return false;
        }
        self.0.entry(key.clone()).or_insert_with(|| Busy::new(now)).begin(now);
        true
    }

    /// Ends a request that was counted.
    fn end(&mut self, key: &K, now: Timestamp) {
        if let Some(busy) = self.0.get_mut(key) {
            busy.end(now);
        }
    }

    /// Calls `each` with every key and its busy time until now, if there is any. Then removes keys without a request in
    /// progress.
    fn take(&mut self, now: Timestamp, mut each: impl FnMut(&K, u64)) {
        for (key, busy) in &mut self.0 {
            let busy_ms = busy.take(now);
            if busy_ms > 0 {
                each(key, busy_ms);
            }
        }
        self.0.retain(|_, busy| busy.count > 0);
    }
}

impl Collector {
    /// Begins to count.
    #[must_use]
    pub(crate) fn new(isolate: String, now: Timestamp) -> Self {
        Self {
            isolate,
            sequence: 0,
            since: now,
            counts: BTreeMap::new(),
            in_flight: BusyTimes::new(),
            demand: BusyTimes::new(),
            uncounted: 0,
            arms: Arms::default(),
            has_reported: false,
        }
    }

    /// Records that a request was steered. It counts as demand of clients whose fence has this order. Returns what to
    /// end it with; `None` if it isn't counted.
    #[must_use]
    pub(crate) fn begin_request(&mut self, order: Order, now: Timestamp) -> Option<Order> {
        let is_counted =
            (1..=LONGEST_ORDER).contains(&order.1.len()) && self.demand.begin(&order, Batch::MAX_ORDERS, now);
        is_counted.then_some(order)
    }

    /// Records that a request that was counted as demand has ended.
    pub(crate) fn end_request(&mut self, order: &Order, now: Timestamp) {
        self.demand.end(order, now);
    }

    /// Records that a request was sent to the endpoint of a key. Returns what to end that with; `None` if it isn't
    /// counted.
    #[must_use]
    pub(crate) fn begin_send(&mut self, key: Key, now: Timestamp) -> Option<Key> {
        self.in_flight.begin(&key, Batch::MAX_KEYS, now).then_some(key)
    }

    /// Records that a request that was counted is no longer at the endpoint of a key.
    pub(crate) fn end_send(&mut self, key: &Key, now: Timestamp) {
        self.in_flight.end(key, now);
    }

    /// Counts a request that was sent to no endpoint.
    pub(crate) fn count_unsent(&mut self, key: Key, code: &str, total_ms: u64) {
        self.change_counts(key, |counts| {
            Counts::bump(&mut counts.requests, code);
            counts.total.count(total_ms.saturating_mul(1_000));
        });
    }

    /// Decides, and records, whether an attempt of this tenant will count for the judgement of a rollout that is under
    /// way in the region. The caller asks when the attempt begins, and doesn't say whether it is of the rollout's old
    /// or new arm (side). So neither its outcome nor its arm decides whether it counts.
    pub(crate) fn admit_to_judgement(
        &mut self,
        tenant: Option<TenantIndex>,
        service: &ServiceId,
        region: &RegionId,
    ) -> bool {
        self.arms.admit(tenant, service, region)
    }

    /// Counts a request that was sent to endpoints, and its attempts. `base` is the key of the request without an
    /// endpoint; `key` returns the key of an attempt, by the attempt's index. `judged` says which attempts count for
    /// the judgement of a rollout. `code` is the code of the answer, such as `ok`.
    pub(crate) fn count_sent(
        &mut self,
        base: &Key,
        key: impl Fn(usize) -> Key,
        record: &Record,
        judged: JudgedAttempts,
        code: &str,
        total_ms: u64,
    ) {
        for (nth, attempt) in record.attempts.iter().enumerate() {
            let outcome = attempt.outcome.map_or("pending", Outcome::label);
            let key = key(nth);
            if judged.has(nth) {
                self.arms.count(&key, |counts| Counts::bump(&mut counts.attempts, outcome));
            }
            self.change_counts(key, |counts| Counts::bump(&mut counts.attempts, outcome));
        }
        let is_committed =
            |nth: &usize| record.attempts.get(*nth).is_some_and(|attempt| attempt.outcome == Some(Outcome::Committed));
        let committed = (0..record.attempts.len()).find(is_committed);
        let usage = committed.map(|_| record.usage);
        // A stream is committed when its first content arrives, so the attempt's time is that to the first content.
        let has_content = record.contents.count > 0;
        let committed_attempt = committed.and_then(|nth| record.attempts.get(nth));
        let first_token_us = committed_attempt.filter(|_| has_content).map(|attempt| attempt.ms.saturating_mul(1_000));
        let count_answer = |counts: &mut Counts| {
            if let Some(us) = first_token_us {
                counts.first_token.count(us);
            }
            if let Some(us) = record.contents.between_us() {
                counts.between_tokens.count(us);
            }
            if let Some(reason) = usage.and_then(|usage| usage.finish) {
                Counts::bump(&mut counts.finish, reason);
            }
        };
        if let Some(nth) = committed.filter(|nth| judged.has(*nth)) {
            self.arms.count(&key(nth), |counts| {
                count_answer(counts);
                if let Some(us) = first_token_us {
                    let timing = counts.by_length.entry(length_class(judged.request_bytes()).to_owned()).or_default();
                    timing.first_token.count(us);
                    if let Some(us) = record.contents.between_us() {
                        timing.between_tokens.count(us);
                    }
                }
            });
        }
        self.change_counts(committed.map_or_else(|| base.clone(), key), |counts| {
            Counts::bump(&mut counts.requests, code);
            counts.total.count(total_ms.saturating_mul(1_000));
            count_answer(counts);
            if let Some(usage) = usage {
                counts.tokens_in = counts.tokens_in.saturating_add(usage.tokens_in.unwrap_or(0));
                counts.tokens_out = counts.tokens_out.saturating_add(usage.tokens_out.unwrap_or(0));
            }
        });
    }

    /// Changes the counts of a key. If there are many keys, the model is replaced by [`OTHER`]. If there are too many
    /// of these, too, the change is lost.
    fn change_counts(&mut self, mut key: Key, change: impl FnOnce(&mut Counts)) {
        if self.counts.len() >= Batch::MAX_KEYS - KEYS_OF_OTHERS && !self.counts.contains_key(&key) {
            key.model = key.model.map(|_| OTHER.to_owned());
        }
        match self.counts_of(key) {
            Some(counts) => change(counts),
            None => self.uncounted = self.uncounted.saturating_add(1),
        }
    }

    /// The counts of a key; `None` if there are too many keys.
    fn counts_of(&mut self, key: Key) -> Option<&mut Counts> {
        let has_room = self.counts.len() < Batch::MAX_KEYS || self.counts.contains_key(&key);
        has_room.then(|| self.counts.entry(key).or_default())
    }

    /// Takes all counts until now as a batch. `None` if there is nothing to report. `revision` is that of the rules.
    pub(crate) fn take(&mut self, revision: u64, now: Timestamp) -> Option<Batch> {
        let span_ms = now.since(core::mem::replace(&mut self.since, now)).0;
        let mut batch = Batch::new(self.isolate.clone(), self.sequence + 1, now, span_ms, revision);
        let mut busy_times = Vec::new();
        self.in_flight.take(now, |key, busy_ms| busy_times.push((key.clone(), busy_ms)));
        for (key, busy_ms) in busy_times {
            match self.counts_of(key) {
                Some(counts) => counts.busy_ms = busy_ms,
                None => self.uncounted = self.uncounted.saturating_add(1),
            }
        }
        let mut at_endpoints = BTreeMap::<_, u32>::new();
        for (key, busy) in &self.in_flight.0 {
            if let (Some(region), Some(endpoint)) = (&key.region, &key.endpoint) {
                let sum = at_endpoints.entry((region, endpoint)).or_default();
                *sum = sum.saturating_add(busy.count);
            }
        }
        let in_flight = at_endpoints.into_iter().map(|((region, endpoint), count)| InFlight {
            region: region.clone(),
            endpoint: endpoint.clone(),
            count,
        });
        batch.in_flight = in_flight.collect();
        self.demand.take(now, |(service, order), busy_ms| {
            batch.demand.push(OrderDemand { service: service.clone(), order: order.clone(), busy_ms });
        });
        batch.uncounted = core::mem::take(&mut self.uncounted);
        batch.counts =
            core::mem::take(&mut self.counts).into_iter().map(|(key, counts)| Observation { key, counts }).collect();
        batch.arms = self.arms.take();
        // After a batch with requests in flight, an empty batch tells nodes that these requests have ended.
        let has_reported = core::mem::replace(&mut self.has_reported, !batch.in_flight.is_empty());
        if batch.is_empty() && !has_reported {
            return None;
        }
        self.sequence += 1;
        Some(batch)
    }
}

#[cfg(test)]
mod tests {
    use bailiwick_rules::id::EndpointId;
    use bailiwick_rules::observe::{Histogram, Sums};
    use bailiwick_rules::table::Table;
    use bailiwick_rules::time::Millis;
    use proptest::prelude::*;

    use super::*;
    use crate::decide::attempt::{Attempt, End};
    use crate::decide::usage::Usage;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn base() -> Key {
        let service = ServiceId::parse("chat").unwrap();
        Key { service, clients: "eu".into(), region: None, endpoint: None, model: None, tier: None, arm: None }
    }

    fn at(endpoint: &str) -> Key {
        let (region, endpoint) = (RegionId::parse("fra"), EndpointId::parse(endpoint));
        Key { region, endpoint, model: Some("chat".into()), ..base() }
    }

    fn order() -> Order {
        (base().service, vec![RegionId::parse("fra").unwrap(), RegionId::parse("par").unwrap()])
    }

    fn attempt(endpoint: &str, outcome: Outcome, ms: u64) -> Attempt {
        let (region, endpoint) = (RegionId::parse("fra").unwrap(), EndpointId::parse(endpoint).unwrap());
        Attempt { target: 0, region, endpoint, arm: None, started_ms: 0, outcome: Some(outcome), ms }
    }

    fn collector() -> Collector {
        Collector::new("00112233445566aa".into(), NOW)
    }

    fn after(ms: u64) -> Timestamp {
        NOW.after(Millis(ms))
    }

    #[test]
    fn an_isolate_without_traffic_sends_no_batch() {
        let mut collector = collector();
        assert_eq!(collector.take(7, after(5_000)), None);
        collector.count_unsent(base(), "model_not_found", 3);
        let batch = collector.take(7, after(10_000)).unwrap();
        assert_eq!((batch.sequence, batch.span_ms, batch.revision), (1, 5_000, 7));
        assert_eq!(batch.counts[0].counts.requests["model_not_found"], 1);
        assert_eq!(collector.take(7, after(15_000)), None, "a batch holds only new counts");
    }

    /// A request that was served by the second endpoint, after the first gave no answer.
    fn served_at_the_second() -> Record {
        let mut record = Record {
            attempts: vec![attempt("fra-1", Outcome::Timeout, 900), attempt("fra-2", Outcome::Committed, 80)],
            end: Some(End::Whole),
            usage: Usage { tokens_in: Some(7), tokens_out: Some(4), finish: Some("stop") },
            ..Record::default()
        };
        for now in [100, 130, 160] {
            record.contents.note(now);
        }
        record
    }

    #[test]
    fn a_request_is_counted_where_it_was_served_and_each_attempt_where_it_was_made() {
        let record = served_at_the_second();
        let mut collector = collector();
        let keys = [at("fra-1"), at("fra-2")];
        collector.count_sent(&base(), |nth| keys[nth].clone(), &record, JudgedAttempts::default(), "ok", 1_200);
        let batch = collector.take(1, after(5_000)).unwrap();
        let counts: BTreeMap<_, _> =
            batch.counts.into_iter().map(|observation| (observation.key, observation.counts)).collect();
        assert_eq!(counts.len(), 2);
        let (failed, served) = (&counts[&keys[0]], &counts[&keys[1]]);
        assert_eq!((failed.attempts["timeout"], failed.requests.len(), failed.total.len()), (1, 0, 0));
        assert_eq!((served.attempts["committed"], served.requests["ok"], served.finish["stop"]), (1, 1, 1));
        assert_eq!((served.tokens_in, served.tokens_out), (7, 4));
        let sums = [&served.first_token, &served.between_tokens, &served.total].map(Histogram::sum_us);
        assert_eq!(sums, [80_000, 30_000, 1_200_000]);

        let all_failed = Record { attempts: vec![attempt("fra-1", Outcome::Network, 5)], ..Record::default() };
        collector.count_sent(
            &base(),
            |nth| keys[nth].clone(),
            &all_failed,
            JudgedAttempts::default(),
            "endpoints_failed",
            9,
        );
        let batch = collector.take(1, after(9_000)).unwrap();
        let first_tokens = |observation: &Observation| observation.counts.first_token.len();
        let reported: Vec<_> =
            batch.counts.iter().map(|observation| (observation.key == base(), first_tokens(observation))).collect();
        assert_eq!(
            reported,
            [(true, 0), (false, 0)],
            "a request that no endpoint served is counted without an endpoint"
        );
    }

    #[test]
    fn attempts_that_are_judged_are_told_by_arm() {
        let record = served_at_the_second();
        let with = |endpoint: &str, arm: &str| Key { arm: Some(arm.to_owned()), ..at(endpoint) };
        let keys = [with("fra-1", "new"), with("fra-2", "old")];
        let arms_of = |judged: [bool; 2]| {
            let (mut collector, mut bits) = (collector(), JudgedAttempts::default());
            judged.into_iter().for_each(|is_judged| bits.note(is_judged, 20_000));
            collector.count_sent(&base(), |nth| keys[nth].clone(), &record, bits, "ok", 1_200);
            let batch = collector.take(1, after(5_000)).unwrap();
            Batch::read(&serde_json::to_vec(&batch).unwrap()).unwrap().arms
        };
        let both = arms_of([true, true]);
        let arms: Vec<_> = both.iter().map(|counts| counts.arm.as_str()).collect();
        assert_eq!(arms, ["old", "new"]);
        let (old, new) = (&both[0].counts, &both[1].counts);
        assert_eq!((old.attempts["committed"], old.finish["stop"], old.first_token.len()), (1, 1, 1));
        assert_eq!((new.attempts["timeout"], new.finish.len(), new.first_token.len()), (1, 0, 0));
        let of_length = &old.by_length["64k"];
        assert_eq!((&of_length.first_token, &of_length.between_tokens), (&old.first_token, &old.between_tokens));
        assert_eq!((old.by_length.len(), new.by_length.len()), (1, 0));
        assert_eq!(arms_of([false, true]).len(), 1);
        assert!(arms_of([false, false]).is_empty(), "attempts that aren't judged add no arms");
    }

    #[test]
    fn requests_in_progress_are_reported_in_each_span() {
        let mut collector = collector();
        assert_eq!(collector.begin_request(order(), after(1_000)), Some(order()));
        assert_eq!(collector.begin_send(at("fra-1"), after(1_000)), Some(at("fra-1")));
        assert!(collector.begin_send(at("fra-1"), after(3_000)).is_some());
        let first = collector.take(1, after(5_000)).unwrap();
        assert_eq!((first.counts[0].counts.busy_ms, first.in_flight[0].count), (4_000 + 2_000, 2));
        assert_eq!(first.demand[0].busy_ms, 4_000);
        collector.end_send(&at("fra-1"), after(6_000));
        collector.end_send(&at("fra-1"), after(7_000));
        collector.end_request(&order(), after(7_000));
        let second = collector.take(1, after(10_000)).unwrap();
        assert_eq!((second.counts[0].counts.busy_ms, second.in_flight.len()), (1_000 + 2_000, 0));
        assert_eq!((second.demand[0].busy_ms, second.sequence), (2_000, 2));
        assert_eq!(collector.take(1, after(15_000)), None);
        assert!(
            collector.in_flight.0.is_empty() && collector.demand.0.is_empty(),
            "requests that have ended are removed"
        );
    }

    #[test]
    fn the_size_of_a_batch_is_bounded() {
        let mut collector = collector();
        for nth in 0..2_000 {
            let model = Some(format!("model-{nth}"));
            collector.count_unsent(Key { model, ..base() }, "ok", 1);
            let counted = collector.begin_send(Key { clients: format!("c{nth}"), ..at("fra-1") }, NOW);
            assert_eq!(counted.is_some(), nth < Batch::MAX_KEYS);
            let region = RegionId::parse(&format!("r{nth}")).unwrap();
            let demand = collector.begin_request((base().service, vec![region; 1 + nth % 80]), NOW);
            assert!(demand.is_none() || nth % 80 < LONGEST_ORDER);
        }
        let batch = collector.take(1, after(1_000)).unwrap();
        let bytes = serde_json::to_vec(&batch).unwrap();
        assert!(bytes.len() < 1 << 20, "{} bytes", bytes.len());
        assert!(Batch::read(&bytes).is_ok(), "a node refuses the batch");
        assert_eq!(batch.counts.len(), Batch::MAX_KEYS);
        let room = (Batch::MAX_KEYS - KEYS_OF_OTHERS) as u64;
        let others = batch.counts.iter().find(|one| one.key.model.as_deref() == Some(OTHER));
        assert_eq!(others.map(|one| one.counts.requests["ok"]), Some(2_000 - room));
        // The other keys have room for the busy time of some keys; that of the rest is lost.
        assert_eq!(batch.uncounted, room + 1);
    }

    #[test]
    fn a_send_that_was_not_counted_ends_none_that_was() {
        let mut collector = collector();
        let mut sent: Vec<Key> = (0..Batch::MAX_KEYS)
            .filter_map(|nth| collector.begin_send(Key { clients: format!("c{nth}"), ..at("fra-1") }, NOW))
            .collect();
        let without_room = collector.begin_send(at("fra-2"), NOW);
        assert_eq!((sent.len(), &without_room), (Batch::MAX_KEYS, &None));
        collector.end_send(&sent.remove(0), NOW);
        let _ = collector.take(1, after(1_000));
        assert!(collector.begin_send(at("fra-2"), after(1_000)).is_some(), "there is room again");
        without_room.iter().for_each(|key| collector.end_send(key, after(1_500)));
        let batch = collector.take(1, after(2_000)).unwrap();
        assert_eq!(batch.in_flight.iter().map(|one| one.count).collect::<Vec<_>>(), [511, 1]);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Begin(usize),
        End(usize),
        Wait(u64),
        Take,
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5_000))]

        /// Whenever batches are taken, a node learns the same busy time, and no batch is refused.
        #[test]
        fn no_time_is_lost_or_counted_twice(steps in prop::collection::vec(prop_oneof![
            (0_usize..3).prop_map(Step::Begin), (0_usize..3).prop_map(Step::End),
            (0_u64..4_000).prop_map(Step::Wait), Just(Step::Take),
        ], 1..60)) {
            let rules = r#"{ "version": 1, "revision": 1, "jurisdictions": { "eu": { "include": ["EU"] } },
                "regions": { "fra": { "countries": ["DE"], "endpoints": { "e0": { "url": "https://a.example" },
                    "e1": { "url": "https://b.example" }, "e2": { "url": "https://c.example" } } } },
                "services": { "chat": { "hosts": ["a.example"], "pattern": "active-active", "regions": ["fra"],
                    "residency": [{ "clients": ["eu"], "process_in": ["eu"] }] } } }"#;
            let (table, mut sums) = (Table::compile(rules.as_bytes()).unwrap(), Sums::default());
            let (mut collector, mut now, mut under_way, mut expected) = (collector(), NOW, [0_u64; 3], 0);
            for step in steps.into_iter().chain([Step::Take]) {
                match step {
                    Step::Begin(nth) => {
                        under_way[nth] += 1;
                        let counted = collector.begin_send(at(&format!("e{nth}")), now);
                        prop_assert!(counted.is_some());
                    }
                    Step::End(nth) if under_way[nth] > 0 => {
                        under_way[nth] -= 1;
                        collector.end_send(&at(&format!("e{nth}")), now);
                    }
                    Step::End(_) => {}
                    Step::Wait(ms) => {
                        expected += ms * under_way.iter().sum::<u64>();
                        now = now.after(Millis(ms));
                    }
                    Step::Take => {
                        if let Some(batch) = collector.take(1, now) {
                            let batch = Batch::read(&serde_json::to_vec(&batch).unwrap()).unwrap();
                            prop_assert_eq!(sums.take(batch, &table, now).unwrap().missed, 0);
                        }
                    }
                }
            }
            prop_assert_eq!(sums.totals().map(|(_, counts)| counts.busy_ms).sum::<u64>(), expected);
            let reported = sums.in_flight(now).values().sum::<u64>();
            prop_assert_eq!(reported, under_way.iter().sum::<u64>());
        }
    }
}
