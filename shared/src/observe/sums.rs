//! The sums of the observations of all isolates. Takes batches; returns sums by key, the requests in flight at each
//! endpoint, and the demand of clients. Held by the node: its API adds batches; `/metrics` and the plan read the sums.
//! A fence is the list of the regions that may process a client's data.

use std::collections::{BTreeMap, HashMap};

use super::arms::{ArmSums, BatchOrigin};
use super::batch::{Batch, InFlight, Observation, OrderDemand};
use super::recent::Recent;
use super::slots::Slots;
use super::windows::{Window, Windows};
use super::{Counts, INTERVAL_MS, Key, OTHER};
use crate::id::{EndpointId, RegionId, ServiceId};
use crate::load::Amount;
use crate::rules::{Arm, Endpoint};
use crate::steer::first_token::Medians;
use crate::table::{Revision, Table};
use crate::time::{Millis, Timestamp};

/// The most keys whose sums are kept. Beyond that, counts are added without model and clients; beyond twice the number,
/// they are dropped.
const MAX_KEYS: usize = 2_048;
/// The most isolates that are remembered.
const MAX_ISOLATES: usize = 20_000;
/// The most orders of fences whose demand is kept.
const MAX_ORDERS: usize = 4_096;
/// How far the clocks of an isolate and a node may differ.
const MAX_SKEW: Millis = Millis(300_000);
/// How long an isolate is remembered. An older batch can't be replayed, because its time is refused.
const FORGET_ISOLATE: Millis = Millis(2 * MAX_SKEW.0);
/// How long the requests in flight of an isolate count after its last batch.
const FRESH: Millis = Millis(3 * INTERVAL_MS);
/// The load of an endpoint is the mean over this many complete slots: 15 s.
const LOAD_SLOTS: u32 = 3;
/// The demand of clients is the mean over this many complete slots: five minutes.
const DEMAND_SLOTS: u32 = 60;

/// An endpoint by its names.
type EndpointKey = (RegionId, EndpointId);
/// The clients of a service whose fence has one order.
type Order = (ServiceId, Vec<RegionId>);

/// The sums of all batches.
#[derive(Debug, Default)]
pub struct Sums {
    totals: BTreeMap<Key, Counts>,
    busy: BTreeMap<EndpointKey, Slots>,
    served: BTreeMap<EndpointKey, Timestamp>,
    demand: BTreeMap<Order, Slots>,
    first_tokens: BTreeMap<(ServiceId, RegionId), Recent>,
    /// The medians of `first_tokens`, and when they were computed.
    medians: Option<(Timestamp, Medians)>,
    isolates: HashMap<String, Isolate>,
    arms: ArmSums,
    /// What was counted for the aggregate; `None` if the rules have none.
    windows: Option<Windows>,
    /// When the first batch arrived.
    first: Option<Timestamp>,
    /// When the newest batch arrived.
    newest: Option<Timestamp>,
    /// The revision of the rules whose names are kept.
    revision: Option<Revision>,
    taken: u64,
    missed: u64,
    dropped: u64,
    refused: BTreeMap<&'static str, u64>,
}

/// The last batch of an isolate.
#[derive(Debug)]
struct Isolate {
    sequence: u64,
    /// When the batch was made, by the isolate's clock.
    made: Timestamp,
    /// When the batch arrived.
    received: Timestamp,
    in_flight: Vec<(EndpointKey, u32)>,
}

/// The result of adding a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AddOutcome {
    /// Entries that were added.
    pub added: usize,
    /// Entries that were dropped, because the rules don't have their names or there is no room.
    pub dropped: usize,
    /// How many batches of this isolate got lost between its last batch and this one.
    pub missed: u64,
}

/// Why a batch wasn't added.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// This batch or a later batch of the isolate was added before. The number is that of the isolate's last batch.
    Replayed(u64),
    /// The batch's time differs too much from the node's time.
    Time,
    /// Too many isolates send batches to the node.
    Full,
}

impl Refusal {
    /// The word for metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Replayed(_) => "replayed",
            Self::Time => "time",
            Self::Full => "full",
        }
    }
}

impl Sums {
    /// Adds a batch. Entries with names that the rules don't have are dropped, so that a sender can't make up labels.
    ///
    /// # Errors
    /// If the batch must not be added.
    pub fn take(&mut self, batch: Batch, table: &Table, now: Timestamp) -> Result<AddOutcome, Refusal> {
        self.follow(table);
        self.gather(table, now);
        let missed = self.admit(&batch, now).inspect_err(|refusal| self.note_refused(refusal.as_str()))?;
        let (span, origin) = (Millis(batch.span_ms.max(1)), BatchOrigin::of(&batch));
        let (mut added, mut dropped) = (0, 0);
        let mut note = |is_added: bool| if is_added { added += 1 } else { dropped += 1 };
        for observation in batch.counts {
            note(self.add_counts(observation, table, (batch.at, span), now));
        }
        if let Some(windows) = self.windows.as_mut().filter(|_| missed > 0) {
            let last = self.isolates.get(&batch.isolate).map_or(batch.at, |isolate| isolate.made);
            windows.note_missed(last, batch.at);
        }
        for demand in batch.demand {
            note(self.add_demand(demand, table, span, now));
        }
        for arm in batch.arms {
            note(self.arms.add(&arm, origin, table, now));
        }
        let is_known = |entry: &InFlight| endpoint_of(table, &entry.region, &entry.endpoint).is_some();
        let by_place = |entry: InFlight| ((entry.region, entry.endpoint), entry.count);
        let in_flight = batch.in_flight.into_iter().filter(is_known).map(by_place);
        let (sequence, made) = (batch.sequence, batch.at);
        let isolate = Isolate { sequence, made, received: now, in_flight: in_flight.collect() };
        self.isolates.insert(batch.isolate, isolate);
        self.first.get_or_insert(now);
        self.newest = Some(now);
        self.taken = self.taken.saturating_add(1);
        self.missed = self.missed.saturating_add(missed);
        self.dropped = self.dropped.saturating_add(dropped as u64).saturating_add(batch.uncounted);
        Ok(AddOutcome { added, dropped, missed })
    }

    /// Counts a refused batch.
    pub fn note_refused(&mut self, why: &'static str) {
        let count = self.refused.entry(why).or_default();
        *count = count.saturating_add(1);
    }

    /// How many batches of the isolate got lost before this one, or why this batch is refused.
    fn admit(&mut self, batch: &Batch, now: Timestamp) -> Result<u64, Refusal> {
        if now.since(batch.at) > MAX_SKEW || batch.at.since(now) > MAX_SKEW {
            return Err(Refusal::Time);
        }
        match self.isolates.get(&batch.isolate) {
            Some(isolate) if batch.sequence <= isolate.sequence => Err(Refusal::Replayed(isolate.sequence)),
            Some(isolate) => Ok(batch.sequence - isolate.sequence - 1),
            None => {
                if self.isolates.len() >= MAX_ISOLATES {
                    self.isolates.retain(|_, isolate| now.since(isolate.received) <= FORGET_ISOLATE);
                }
                if self.isolates.len() >= MAX_ISOLATES { Err(Refusal::Full) } else { Ok(0) }
            }
        }
    }

    /// Adds the counts of one key. False if they are dropped.
    fn add_counts(
        &mut self,
        observation: Observation,
        table: &Table,
        (at, span): (Timestamp, Millis),
        now: Timestamp,
    ) -> bool {
        let Observation { mut key, mut counts } = observation;
        if !is_of_rules(table, &mut key) {
            return false;
        }
        if let (Some(region), Some(endpoint)) = (&key.region, &key.endpoint) {
            // Bounded, so that a sender can't give a load without limit.
            counts.busy_ms = counts.busy_ms.min(MAX_BUSY_MS);
            let place = (region.clone(), endpoint.clone());
            if counts.attempts.contains_key("committed") && is_generated(&counts) {
                self.served.insert(place.clone(), now);
            }
            self.busy.entry(place).or_default().add(counts.busy_ms, span, now);
        }
        self.add_first_tokens(&key, &counts, table, now);
        // By all its names: a group that the aggregate tells must be whole.
        if let Some(windows) = &mut self.windows {
            windows.add(&key, &counts, at, now);
        }
        if !self.totals.contains_key(&key) && self.totals.len() >= MAX_KEYS {
            key.model = key.model.map(|_| OTHER.to_owned());
            OTHER.clone_into(&mut key.clients);
            if !self.totals.contains_key(&key) && self.totals.len() >= 2 * MAX_KEYS {
                return false;
            }
        }
        self.totals.entry(key).or_default().add(&counts);
        true
    }

    /// Adds the times to the first token, if the service's regions are ordered by them.
    fn add_first_tokens(&mut self, key: &Key, counts: &Counts, table: &Table, now: Timestamp) {
        let Some(region) = key.region.clone().filter(|_| !counts.first_token.is_empty()) else { return };
        let service = table.service_named(key.service.as_str());
        let is_wanted = service.is_some_and(|service| table.orders_by_first_token(service));
        let place = (key.service.clone(), region);
        if is_wanted && (self.first_tokens.len() < MAX_KEYS || self.first_tokens.contains_key(&place)) {
            self.first_tokens.entry(place).or_default().add(&counts.first_token, now);
        }
    }

    /// Adds the demand of one order. False if it is dropped.
    fn add_demand(&mut self, demand: OrderDemand, table: &Table, span: Millis, now: Timestamp) -> bool {
        let is_known = table.service_named(demand.service.as_str()).is_some()
            && demand.order.iter().all(|region| table.region_named(region.as_str()).is_some());
        let order = (demand.service, demand.order);
        if !is_known || (!self.demand.contains_key(&order) && self.demand.len() >= MAX_ORDERS) {
            return false;
        }
        self.demand.entry(order).or_default().add(demand.busy_ms.min(MAX_BUSY_MS), span, now);
        true
    }

    /// Follows the rules: if they have changed, sums with names that the rules no longer have are dropped.
    pub fn follow(&mut self, table: &Table) {
        if self.revision.replace(table.revision()) == Some(table.revision()) {
            return;
        }
        self.arms.follow(table);
        self.totals.retain(|key, _| is_of_rules(table, &mut key.clone()));
        let is_there = |(region, endpoint): &EndpointKey| endpoint_of(table, region, endpoint).is_some();
        self.busy.retain(|place, _| is_there(place));
        self.first_tokens.retain(|(service, region), _| {
            let service = table.service_named(service.as_str());
            let is_ordered = service.is_some_and(|service| table.orders_by_first_token(service));
            is_ordered && table.region_named(region.as_str()).is_some()
        });
        self.medians = None;
        self.served.retain(|place, _| is_there(place));
        self.demand.retain(|(service, order), _| {
            table.service_named(service.as_str()).is_some()
                && order.iter().all(|region| table.region_named(region.as_str()).is_some())
        });
    }

    /// Begins or ends to gather for the aggregate, as the rules say. With another interval, what was gathered in the
    /// one before is lost, and gathering begins with the next whole one: a part of this one may have been told.
    fn gather(&mut self, table: &Table, now: Timestamp) {
        let every = table.aggregate().map(|aggregate| aggregate.every);
        match (&mut self.windows, every) {
            (Some(windows), Some(every)) if windows.every() == every => {}
            (Some(windows), Some(every)) => windows.begin_anew(every, now),
            (windows, every) => *windows = every.map(|every| Windows::new(every, now)),
        }
    }

    /// Takes what was counted in the intervals of the aggregate that are over, the oldest first.
    pub fn take_windows(&mut self, table: &Table, now: Timestamp) -> Vec<Window> {
        self.gather(table, now);
        self.windows.as_mut().map(|windows| windows.take(now)).unwrap_or_default()
    }

    /// The sums by key.
    pub fn totals(&self) -> impl Iterator<Item = (&Key, &Counts)> {
        self.totals.iter()
    }

    /// What was counted of the arms of rollouts.
    #[must_use]
    pub fn arms(&self) -> &ArmSums {
        &self.arms
    }

    /// The mean number of requests at an endpoint in the last 15 s. `None` if no isolate has sent a batch for so long:
    /// then the endpoint counts neither as idle nor as full.
    #[must_use]
    pub fn at_endpoint(&self, region: &RegionId, endpoint: &EndpointId, now: Timestamp) -> Option<Amount> {
        self.is_fresh(now).then(|| {
            let slots = self.busy.get(&(region.clone(), endpoint.clone()));
            slots.map_or(0, |slots| slots.mean(self.slots(LOAD_SLOTS, now), now))
        })
    }

    /// The demand of clients by service and order of their fence: the mean number of requests in flight in the last
    /// five minutes. `None` if no isolate has sent a batch for 15 s.
    #[must_use]
    pub fn demand(&self, now: Timestamp) -> Option<Vec<(&ServiceId, &[RegionId], Amount)>> {
        self.is_fresh(now).then(|| {
            let all = self.demand.iter();
            let means = all.map(|((service, order), slots)| {
                (service, order.as_slice(), slots.mean(self.slots(DEMAND_SLOTS, now), now))
            });
            means.filter(|(_, _, amount)| *amount > 0).collect()
        })
    }

    /// The median time to the first token of each region in the last minutes, for services whose regions are ordered by
    /// it. Regions with few requests are left out. The medians are computed at most once per [`INTERVAL_MS`].
    pub fn first_tokens(&mut self, now: Timestamp) -> &Medians {
        let is_new = |(at, _): &(Timestamp, Medians)| *at <= now && now.since(*at).0 < INTERVAL_MS;
        let medians = match self.medians.take().filter(is_new) {
            Some(key) => key,
            None => {
                let mut medians = Medians::new();
                for ((service, region), times) in &self.first_tokens {
                    if let Some(ms) = times.median_ms(now) {
                        medians.entry(service.clone()).or_default().insert(region.clone(), ms);
                    }
                }
                (now, medians)
            }
        };
        &self.medians.insert(medians).1
    }

    /// The number of complete slots for a mean. Slots before the first batch don't count: their load is unknown.
    fn slots(&self, most: u32, now: Timestamp) -> u32 {
        let elapsed = self.first.map_or(0, |first| now.since(first).0 / INTERVAL_MS);
        u32::try_from(elapsed).unwrap_or(u32::MAX).clamp(1, most)
    }

    /// Whether any isolate has sent a batch within 15 s.
    fn is_fresh(&self, now: Timestamp) -> bool {
        self.newest.is_some_and(|newest| now.since(newest) <= FRESH)
    }

    /// When an isolate last reported a request that a model of the endpoint answered.
    #[must_use]
    pub fn served_at(&self, region: &RegionId, endpoint: &EndpointId) -> Option<Timestamp> {
        self.served.get(&(region.clone(), endpoint.clone())).copied()
    }

    /// The requests in flight at each endpoint, by the last batch of each isolate.
    #[must_use]
    pub fn in_flight(&self, now: Timestamp) -> BTreeMap<(&RegionId, &EndpointId), u64> {
        let mut sums = BTreeMap::new();
        for isolate in self.isolates.values().filter(|isolate| now.since(isolate.received) <= FRESH) {
            for ((region, endpoint), count) in &isolate.in_flight {
                *sums.entry((region, endpoint)).or_default() += u64::from(*count);
            }
        }
        sums
    }

    /// How many isolates sent a batch within 15 s.
    #[must_use]
    pub fn isolates(&self, now: Timestamp) -> usize {
        self.isolates.values().filter(|isolate| now.since(isolate.received) <= FRESH).count()
    }

    /// The number of batches that were added.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// The number of lost batches, by the gaps in the batches' numbers.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// The number of reported entries and requests that weren't counted.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The number of refused batches, by reason.
    pub fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.refused.iter().map(|(why, count)| (*why, *count))
    }
}

/// The longest busy time of one entry: a million requests at once, for ten minutes.
const MAX_BUSY_MS: u64 = 600_000_000_000;

/// Whether a model generated an answer. A list of models, for example, needs no model.
fn is_generated(counts: &Counts) -> bool {
    counts.tokens_out > 0 || !counts.first_token.is_empty() || !counts.finish.is_empty()
}

/// Whether the rules have all names of a key. A model that the rules don't name becomes [`OTHER`].
fn is_of_rules(table: &Table, key: &mut Key) -> bool {
    if table.service_named(key.service.as_str()).is_none() {
        return false;
    }
    let is_clients = |word: &str| {
        let is_known = |name: &str| table.jurisdictions().any(|(id, ..)| id.as_str() == name);
        let names: Vec<&str> = word.split('+').collect();
        matches!(word, "none" | "unknown" | OTHER)
            || names.iter().is_sorted_by(|a, b| a < b) && names.into_iter().all(is_known)
    };
    if !is_clients(&key.clients) {
        return false;
    }
    // Metrics have no label for tiers yet.
    key.tier = None;
    key.arm = key.arm.take().filter(|arm| has_arm(table, &key.service, key.region.as_ref(), arm));
    let has_model = |model: &str| match (&key.region, &key.endpoint) {
        (None, None) => Some(false),
        (Some(region), Some(endpoint)) => {
            let models = endpoint_of(table, region, endpoint)?.models.as_ref();
            Some(models.is_some_and(|models| models.contains_key(model)))
        }
        _ => None,
    };
    let Some(is_named) = has_model(key.model.as_deref().unwrap_or_default()) else { return false };
    if !is_named && key.model.is_some() {
        key.model = Some(OTHER.to_owned());
    }
    true
}

/// Whether the rules have a rollout of the service that has begun in the region.
fn has_arm(table: &Table, service: &ServiceId, region: Option<&RegionId>, arm: &str) -> bool {
    let rollout = table.service_named(service.as_str()).and_then(|service| table.rollout_of(service));
    let region = region.and_then(|region| table.region_named(region.as_str()));
    let share = rollout.zip(region).and_then(|(rollout, region)| rollout.share(region));
    share.is_some() && Arm::parse(arm).is_some()
}

/// The endpoint with these names, if the rules have it.
fn endpoint_of<'t>(table: &'t Table, region: &RegionId, endpoint: &EndpointId) -> Option<&'t Endpoint> {
    let region = table.region(table.region_named(region.as_str())?);
    region.endpoints.iter().find(|(name, _)| name == endpoint).map(|(_, endpoint)| endpoint)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW: Timestamp = Timestamp(1_796_104_800_000);

    fn rules(region: &str) -> Value {
        json!({
            "version": 1, "revision": 1, "jurisdictions": { "eu": { "include": ["EU"] } },
            "regions": { region: { "countries": ["DE"], "endpoints": {
                "fra-1": { "url": "https://fra1.example/v1", "models": { "chat": "llama" } },
                "open": { "url": "https://open.example/v1" } } } },
            "services": { "chat": { "hosts": ["chat.example"], "pattern": "active-active", "regions": [region],
                                    "residency": [{ "clients": ["eu"], "process_in": ["eu"] }] } },
        })
    }

    fn table(region: &str) -> Table {
        Table::compile(rules(region).to_string().as_bytes()).unwrap()
    }

    fn batch(sequence: u64, at: Timestamp, counts: &Value) -> Batch {
        let value = json!({
            "version": 1, "isolate": "00112233445566aa", "sequence": sequence, "at": at.to_string(), "span_ms": 5000,
            "revision": 1, "counts": counts,
            "in_flight": [{ "region": "fra", "endpoint": "fra-1", "count": 3 },
                          { "region": "mars", "endpoint": "fra-1", "count": 9 }],
            "demand": [{ "service": "chat", "order": ["fra"], "busy_ms": 300_000 },
                       { "service": "chat", "order": ["fra", "mars"], "busy_ms": 1 }],
        });
        Batch::read(value.to_string().as_bytes()).unwrap()
    }

    /// The counts of one key, with a change.
    fn counts(change: impl Fn(&mut Value)) -> Value {
        let mut entry = json!({ "service": "chat", "clients": "eu", "region": "fra", "endpoint": "fra-1",
                                "model": "chat",
                              "requests": { "ok": 2 }, "attempts": { "committed": 2 }, "tokens_out": 8,
                              "busy_ms": 10_000 });
        change(&mut entry);
        json!([entry])
    }

    fn names(fra: &str) -> (RegionId, EndpointId) {
        (RegionId::parse("fra").unwrap(), EndpointId::parse(fra).unwrap())
    }

    #[test]
    fn load_and_demand_are_computed_from_the_sum_of_batches() {
        let (table, mut sums) = (table("fra"), Sums::default());
        let (region, endpoint) = names("fra-1");
        assert_eq!(sums.at_endpoint(&region, &endpoint, NOW), None, "without batches the load isn't known");
        for nth in 0..3 {
            let now = NOW.after(Millis(5_000 * nth));
            let taken = sums.take(batch(nth + 1, now, &counts(|_| {})), &table, now).unwrap();
            assert_eq!(
                taken,
                AddOutcome { added: 2, dropped: 1, missed: 0 },
                "demand for an unknown region is dropped"
            );
        }
        let now = NOW.after(Millis(15_000));
        assert_eq!(sums.at_endpoint(&region, &endpoint, now), Some(2_000));
        assert_eq!(sums.at_endpoint(&region, &names("open").1, now), Some(0));
        assert_eq!(sums.served_at(&region, &endpoint), Some(NOW.after(Millis(10_000))));
        let demand = sums.demand(now).unwrap();
        assert_eq!(demand, [(&ServiceId::parse("chat").unwrap(), &[region.clone()][..], 60_000)]);
        assert_eq!(sums.in_flight(now), BTreeMap::from([((&region, &endpoint), 3)]));
        assert_eq!((sums.isolates(now), sums.taken(), sums.dropped()), (1, 3, 3));
        let (key, counts) = sums.totals().next().unwrap();
        assert_eq!((key.model.as_deref(), counts.requests["ok"]), (Some("chat"), 6));
        let late = now.after(Millis(15_001));
        assert_eq!((sums.at_endpoint(&region, &endpoint, late), sums.demand(late)), (None, None));
        assert_eq!((sums.isolates(late), sums.in_flight(late).len()), (0, 0));
    }

    #[test]
    fn an_endpoint_counts_as_serving_only_if_a_model_generated_an_answer() {
        let (table, (region, endpoint)) = (table("fra"), names("fra-1"));
        let served = |change: &dyn Fn(&mut Value)| {
            let mut sums = Sums::default();
            sums.take(batch(1, NOW, &counts(change)), &table, NOW).unwrap();
            sums.served_at(&region, &endpoint).is_some()
        };
        assert!(served(&|_| {}));
        assert!(served(&|entry| (entry["tokens_out"], entry["finish"]) = (json!(0), json!({ "stop": 1 }))));
        assert!(!served(&|entry| entry["tokens_out"] = json!(0)), "without tokens it may be a list of models");
        assert!(!served(&|entry| entry["attempts"] = json!({ "failed": 1 })));
    }

    #[test]
    fn replayed_late_and_early_batches_are_refused_and_gaps_are_counted() {
        let (table, mut sums) = (table("fra"), Sums::default());
        let mut take =
            |sequence, at| sums.take(batch(sequence, at, &counts(|_| {})), &table, NOW).map(|taken| taken.missed);
        assert_eq!(take(4, NOW), Ok(0), "the first batch that a node gets may have any number");
        assert_eq!((take(4, NOW), take(1, NOW)), (Err(Refusal::Replayed(4)), Err(Refusal::Replayed(4))));
        assert_eq!(take(7, NOW), Ok(2));
        for off in [-300_001, 300_001] {
            assert_eq!(take(8, Timestamp(NOW.0 + off)), Err(Refusal::Time));
        }
        assert_eq!((sums.taken(), sums.missed()), (2, 2));
        assert_eq!(sums.refused().collect::<Vec<_>>(), [("replayed", 2), ("time", 2)]);
        assert_eq!(sums.totals().next().unwrap().1.requests["ok"], 4);
    }

    #[test]
    fn names_that_the_rules_do_not_have_never_become_labels() {
        let (table, mut sums) = (table("fra"), Sums::default());
        let cases: [(&str, Value); 6] = [
            ("service", json!("other")),
            ("clients", json!("eu+mars")),
            ("clients", json!("eu+eu")),
            ("region", json!("mars")),
            ("endpoint", json!("fra-9")),
            ("endpoint", Value::Null),
        ];
        for (nth, (field, value)) in (1..).zip(cases) {
            let unknown = counts(|entry| entry[field] = value.clone());
            let taken = sums.take(batch(nth, NOW, &unknown), &table, NOW).unwrap();
            assert_eq!((taken.added, taken.dropped), (1, 2), "{field}: {value}");
        }
        assert_eq!(sums.totals().count(), 0);
        for (nth, model) in (10..).zip(["chat", "made up", "llama"]) {
            sums.take(batch(nth, NOW, &counts(|entry| entry["model"] = json!(model))), &table, NOW).unwrap();
        }
        sums.take(batch(20, NOW, &counts(|entry| entry["endpoint"] = json!("open"))), &table, NOW).unwrap();
        let found: Vec<_> = sums.totals().map(|(key, counts)| (key.model.as_deref(), counts.requests["ok"])).collect();
        assert_eq!(found, [(Some("chat"), 2), (Some("other"), 4), (Some("other"), 2)]);
    }

    #[test]
    fn sums_with_names_that_the_rules_no_longer_have_are_dropped() {
        let mut sums = Sums::default();
        sums.take(batch(1, NOW, &counts(|_| {})), &table("fra"), NOW).unwrap();
        sums.follow(&table("fra"));
        assert_eq!((sums.totals().count(), sums.busy.len(), sums.demand.len()), (1, 1, 1));
        sums.follow(&table("ber"));
        assert_eq!((sums.totals().count(), sums.busy.len(), sums.demand.len(), sums.served.len()), (0, 0, 0, 0));
    }

    #[test]
    fn the_number_of_sums_and_isolates_is_bounded() {
        let mut rules = rules("fra");
        let endpoint = rules["regions"]["fra"]["endpoints"]["open"].clone();
        for nth in 0..5_000 {
            rules["regions"]["fra"]["endpoints"][format!("e{nth}")] = endpoint.clone();
        }
        let (table, mut sums) = (Table::compile(rules.to_string().as_bytes()).unwrap(), Sums::default());
        for nth in 0..5_000 {
            let of_endpoint = counts(|entry| entry["endpoint"] = json!(format!("e{nth}")));
            let mut batch = batch(1, NOW, &of_endpoint);
            batch.isolate = format!("{nth:016x}");
            sums.take(batch, &table, NOW).unwrap();
        }
        assert!(sums.totals.len() <= 2 * MAX_KEYS, "{}", sums.totals.len());
        assert_eq!(sums.dropped(), 5_000 + 5_000 - 2 * MAX_KEYS as u64);
        for nth in 5_000..=MAX_ISOLATES {
            let mut batch = batch(1, NOW, &json!([]));
            batch.isolate = format!("{nth:016x}");
            let taken = sums.take(batch, &table, NOW);
            assert_eq!(taken.is_err(), nth == MAX_ISOLATES, "{nth}");
        }
        let later = NOW.after(Millis(FORGET_ISOLATE.0 + 1));
        assert!(sums.take(batch(1, later, &json!([])), &table, later).is_ok());
        assert_eq!(sums.isolates.len(), 1);
    }
}
