//! What a node knows from all isolates. Takes batches; returns sums by key, the requests in flight at each endpoint,
//! and the demand of clients. Held by the node: its API adds batches, `/metrics` and the plan read the sums.

use std::collections::{BTreeMap, HashMap};

use super::batch::{Batch, InFlight, Observation, OrderDemand};
use super::recent::Recent;
use super::slots::Slots;
use super::{Counts, INTERVAL_MS, Key, OTHER};
use crate::id::{EndpointId, RegionId, ServiceId};
use crate::load::Amount;
use crate::rules::Endpoint;
use crate::steer::first_token::Medians;
use crate::table::{Revision, Table};
use crate::time::{Millis, Timestamp};

/// The most keys whose sums are kept. More are counted without their model, and then not at all.
const MAX_KEYS: usize = 2_048;
/// The most isolates, and the most orders of fences.
const MAX_ISOLATES: usize = 20_000;
const MAX_ORDERS: usize = 4_096;
/// How far the clocks of an isolate and a node may differ.
const MAX_SKEW: Millis = Millis(300_000);
/// How long an isolate is remembered. An older batch can't be replayed, because its time is refused.
const FORGET_ISOLATE: Millis = Millis(2 * MAX_SKEW.0);
/// How long the requests in flight of an isolate count after its last batch.
const FRESH: Millis = Millis(3 * INTERVAL_MS);
/// How many complete slots the load of an endpoint is the mean of: 15 s.
const LOAD_SLOTS: u32 = 3;
/// The same for the demand of clients: five minutes.
const DEMAND_SLOTS: u32 = 60;

/// An endpoint by its names.
type Place = (RegionId, EndpointId);
/// The clients of a service whose fence has one order.
type Order = (ServiceId, Vec<RegionId>);

/// The sums of all batches.
#[derive(Debug, Default)]
pub struct Sums {
    totals: BTreeMap<Key, Counts>,
    busy: BTreeMap<Place, Slots>,
    served: BTreeMap<Place, Timestamp>,
    demand: BTreeMap<Order, Slots>,
    first_tokens: BTreeMap<(ServiceId, RegionId), Recent>,
    /// The medians of these, and when they were made.
    medians: Option<(Timestamp, Medians)>,
    isolates: HashMap<String, Isolate>,
    first: Option<Timestamp>,
    newest: Option<Timestamp>,
    /// The rules whose names are kept.
    revision: Option<Revision>,
    taken: u64,
    missed: u64,
    dropped: u64,
    refused: BTreeMap<&'static str, u64>,
}

/// What is kept of an isolate.
#[derive(Debug)]
struct Isolate {
    sequence: u64,
    heard: Timestamp,
    in_flight: Vec<(Place, u32)>,
}

/// What became of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Taken {
    /// Entries that were added.
    pub added: usize,
    /// Entries that were dropped: the rules don't have their names, or there is no room.
    pub dropped: usize,
    /// How many batches of this isolate didn't arrive since its last.
    pub missed: u64,
}

/// Why a batch wasn't added.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// It was added before, or a later one was. The number is that of the last.
    Replayed(u64),
    /// Its time is too far from the node's.
    Time,
    /// The node hears of too many isolates.
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
    /// Adds a batch. Names that the rules don't have are dropped, so that nobody who posts can make labels.
    ///
    /// # Errors
    /// If the batch must not be added.
    pub fn take(&mut self, batch: Batch, table: &Table, now: Timestamp) -> Result<Taken, Refusal> {
        self.follow(table);
        let missed = self.admit(&batch, now).inspect_err(|refusal| self.note_refused(refusal.as_str()))?;
        let span = Millis(batch.span_ms.max(1));
        let (mut added, mut dropped) = (0, 0);
        let mut note = |is_added: bool| if is_added { added += 1 } else { dropped += 1 };
        for one in batch.counts {
            note(self.add_counts(one, table, span, now));
        }
        for one in batch.demand {
            note(self.add_demand(one, table, span, now));
        }
        let known = |one: &InFlight| endpoint_of(table, &one.region, &one.endpoint).is_some();
        let in_flight = batch.in_flight.into_iter().filter(known).map(|one| ((one.region, one.endpoint), one.count));
        let isolate = Isolate { sequence: batch.sequence, heard: now, in_flight: in_flight.collect() };
        self.isolates.insert(batch.isolate, isolate);
        self.first.get_or_insert(now);
        self.newest = Some(now);
        self.taken = self.taken.saturating_add(1);
        self.missed = self.missed.saturating_add(missed);
        self.dropped = self.dropped.saturating_add(dropped as u64).saturating_add(batch.uncounted);
        Ok(Taken { added, dropped, missed })
    }

    /// Counts a batch that was refused before it was read.
    pub fn note_refused(&mut self, why: &'static str) {
        let count = self.refused.entry(why).or_default();
        *count = count.saturating_add(1);
    }

    /// How many batches of its isolate didn't arrive, or why it is refused.
    fn admit(&mut self, batch: &Batch, now: Timestamp) -> Result<u64, Refusal> {
        if now.since(batch.at) > MAX_SKEW || batch.at.since(now) > MAX_SKEW {
            return Err(Refusal::Time);
        }
        match self.isolates.get(&batch.isolate) {
            Some(isolate) if batch.sequence <= isolate.sequence => Err(Refusal::Replayed(isolate.sequence)),
            Some(isolate) => Ok(batch.sequence - isolate.sequence - 1),
            None => {
                if self.isolates.len() >= MAX_ISOLATES {
                    self.isolates.retain(|_, isolate| now.since(isolate.heard) <= FORGET_ISOLATE);
                }
                if self.isolates.len() >= MAX_ISOLATES { Err(Refusal::Full) } else { Ok(0) }
            }
        }
    }

    fn add_counts(&mut self, one: Observation, table: &Table, span: Millis, now: Timestamp) -> bool {
        let Observation { mut key, mut counts } = one;
        if !is_of_rules(table, &mut key) {
            return false;
        }
        if let (Some(region), Some(endpoint)) = (&key.region, &key.endpoint) {
            // More can't have been under way than a node may be told of.
            counts.busy_ms = counts.busy_ms.min(MAX_BUSY_MS);
            let place = (region.clone(), endpoint.clone());
            if counts.attempts.contains_key("committed") && is_generated(&counts) {
                self.served.insert(place.clone(), now);
            }
            self.busy.entry(place).or_default().add(counts.busy_ms, span, now);
        }
        self.add_first_tokens(&key, &counts, table, now);
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

    /// Adds the times to the first token, where regions are ordered by them.
    fn add_first_tokens(&mut self, key: &Key, counts: &Counts, table: &Table, now: Timestamp) {
        let Some(region) = key.region.clone().filter(|_| !counts.first_token.is_empty()) else { return };
        let is_wanted = table.service_named(key.service.as_str()).is_some_and(|one| table.orders_by_first_token(one));
        let place = (key.service.clone(), region);
        if is_wanted && (self.first_tokens.len() < MAX_KEYS || self.first_tokens.contains_key(&place)) {
            self.first_tokens.entry(place).or_default().add(&counts.first_token, now);
        }
    }

    fn add_demand(&mut self, one: OrderDemand, table: &Table, span: Millis, now: Timestamp) -> bool {
        let is_known = table.service_named(one.service.as_str()).is_some()
            && one.order.iter().all(|region| table.region_named(region.as_str()).is_some());
        let order = (one.service, one.order);
        if !is_known || (!self.demand.contains_key(&order) && self.demand.len() >= MAX_ORDERS) {
            return false;
        }
        self.demand.entry(order).or_default().add(one.busy_ms.min(MAX_BUSY_MS), span, now);
        true
    }

    /// Forgets what the rules no longer have, if they have changed.
    pub fn follow(&mut self, table: &Table) {
        if self.revision.replace(table.revision()) == Some(table.revision()) {
            return;
        }
        self.totals.retain(|key, _| is_of_rules(table, &mut key.clone()));
        let is_there = |(region, endpoint): &Place| endpoint_of(table, region, endpoint).is_some();
        self.busy.retain(|place, _| is_there(place));
        self.first_tokens.retain(|(service, region), _| {
            let service = table.service_named(service.as_str());
            table.region_named(region.as_str()).is_some() && service.is_some_and(|one| table.orders_by_first_token(one))
        });
        self.medians = None;
        self.served.retain(|place, _| is_there(place));
        self.demand.retain(|(service, order), _| {
            table.service_named(service.as_str()).is_some()
                && order.iter().all(|region| table.region_named(region.as_str()).is_some())
        });
    }

    /// The sums by key.
    pub fn totals(&self) -> impl Iterator<Item = (&Key, &Counts)> {
        self.totals.iter()
    }

    /// How many requests were at an endpoint in the mean of the last 15 s; `None` if no isolate has told anything for
    /// so long. No news is neither idle nor full.
    #[must_use]
    pub fn at_endpoint(&self, region: &RegionId, endpoint: &EndpointId, now: Timestamp) -> Option<Amount> {
        self.is_fresh(now).then(|| {
            let slots = self.busy.get(&(region.clone(), endpoint.clone()));
            slots.map_or(0, |slots| slots.mean(self.slots(LOAD_SLOTS, now), now))
        })
    }

    /// The demand of clients by service and order of their fence: the requests under way in the mean of five minutes.
    /// `None` if no isolate has told anything for 15 s.
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

    /// The median time to the first token of each region in the last minutes, for services that are ordered by it. A
    /// region with few requests has none. Made anew each [`INTERVAL_MS`], however often it is asked for.
    pub fn first_tokens(&mut self, now: Timestamp) -> &Medians {
        let is_new = |(at, _): &(Timestamp, Medians)| *at <= now && now.since(*at).0 < INTERVAL_MS;
        let medians = match self.medians.take().filter(is_new) {
            Some(kept) => kept,
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

    /// Of how many complete slots a mean is made. Slots before the first batch say nothing, and aren't taken for idle.
    fn slots(&self, wanted: u32, now: Timestamp) -> u32 {
        let known = self.first.map_or(0, |first| now.since(first).0 / INTERVAL_MS);
        u32::try_from(known).unwrap_or(u32::MAX).clamp(1, wanted)
    }

    /// Whether any isolate has told something within 15 s.
    fn is_fresh(&self, now: Timestamp) -> bool {
        self.newest.is_some_and(|newest| now.since(newest) <= FRESH)
    }

    /// When an isolate last told of a request that a model of an endpoint answered.
    #[must_use]
    pub fn served_at(&self, region: &RegionId, endpoint: &EndpointId) -> Option<Timestamp> {
        self.served.get(&(region.clone(), endpoint.clone())).copied()
    }

    /// The requests in flight at each endpoint, as isolates last told.
    #[must_use]
    pub fn in_flight(&self, now: Timestamp) -> BTreeMap<(&RegionId, &EndpointId), u64> {
        let mut sums = BTreeMap::new();
        for isolate in self.isolates.values().filter(|isolate| now.since(isolate.heard) <= FRESH) {
            for ((region, endpoint), count) in &isolate.in_flight {
                *sums.entry((region, endpoint)).or_default() += u64::from(*count);
            }
        }
        sums
    }

    /// How many isolates told something within 15 s.
    #[must_use]
    pub fn isolates(&self, now: Timestamp) -> usize {
        self.isolates.values().filter(|isolate| now.since(isolate.heard) <= FRESH).count()
    }

    /// Batches that were added.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Batches that didn't arrive, by the gaps in their numbers.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// Entries and requests that were told but not counted.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Batches that were refused, by reason.
    pub fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.refused.iter().map(|(why, count)| (*why, *count))
    }
}

/// The longest busy time of one entry: a million requests at once, for ten minutes.
const MAX_BUSY_MS: u64 = 600_000_000_000;

/// Whether a model made something: lists of models and other answers need none.
fn is_generated(counts: &Counts) -> bool {
    counts.tokens_out > 0 || !counts.first_token.is_empty() || !counts.finish.is_empty()
}

/// Whether the rules have the names of a key. A model that they don't name becomes [`OTHER`].
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
    // The rules have no tiers and no arms yet.
    (key.tier, key.arm) = (None, None);
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

    fn one(change: impl Fn(&mut Value)) -> Value {
        let mut one = json!({ "service": "chat", "clients": "eu", "region": "fra", "endpoint": "fra-1", "model": "chat",
                              "requests": { "ok": 2 }, "attempts": { "committed": 2 }, "tokens_out": 8,
                              "busy_ms": 10_000 });
        change(&mut one);
        json!([one])
    }

    fn names(fra: &str) -> (RegionId, EndpointId) {
        (RegionId::parse("fra").unwrap(), EndpointId::parse(fra).unwrap())
    }

    #[test]
    fn batches_add_up_and_tell_load_and_demand() {
        let (table, mut sums) = (table("fra"), Sums::default());
        let (region, endpoint) = names("fra-1");
        assert_eq!(sums.at_endpoint(&region, &endpoint, NOW), None, "no news is not idle");
        for nth in 0..3 {
            let now = NOW.after(Millis(5_000 * nth));
            let taken = sums.take(batch(nth + 1, now, &one(|_| {})), &table, now).unwrap();
            assert_eq!(taken, Taken { added: 2, dropped: 1, missed: 0 }, "an unknown region makes no demand");
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
    fn only_what_a_model_made_is_an_answer_of_it() {
        let (table, (region, endpoint)) = (table("fra"), names("fra-1"));
        let served = |change: &dyn Fn(&mut Value)| {
            let mut sums = Sums::default();
            sums.take(batch(1, NOW, &one(change)), &table, NOW).unwrap();
            sums.served_at(&region, &endpoint).is_some()
        };
        assert!(served(&|_| {}));
        assert!(served(&|one| (one["tokens_out"], one["finish"]) = (json!(0), json!({ "stop": 1 }))));
        assert!(!served(&|one| one["tokens_out"] = json!(0)), "a list of models, say");
        assert!(!served(&|one| one["attempts"] = json!({ "failed": 1 })));
    }

    #[test]
    fn replayed_late_and_early_batches_are_refused_and_gaps_are_counted() {
        let (table, mut sums) = (table("fra"), Sums::default());
        let mut take =
            |sequence, at| sums.take(batch(sequence, at, &one(|_| {})), &table, NOW).map(|taken| taken.missed);
        assert_eq!(take(4, NOW), Ok(0), "a node that was started later missed nothing");
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
    fn names_that_the_rules_lack_make_no_labels() {
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
            let counts = one(|one| one[field] = value.clone());
            let taken = sums.take(batch(nth, NOW, &counts), &table, NOW).unwrap();
            assert_eq!((taken.added, taken.dropped), (1, 2), "{field}: {value}");
        }
        assert_eq!(sums.totals().count(), 0);
        for (nth, model) in (10..).zip(["chat", "made up", "llama"]) {
            sums.take(batch(nth, NOW, &one(|one| one["model"] = json!(model))), &table, NOW).unwrap();
        }
        sums.take(batch(20, NOW, &one(|one| one["endpoint"] = json!("open"))), &table, NOW).unwrap();
        let told: Vec<_> = sums.totals().map(|(key, counts)| (key.model.as_deref(), counts.requests["ok"])).collect();
        assert_eq!(told, [(Some("chat"), 2), (Some("other"), 4), (Some("other"), 2)]);
    }

    #[test]
    fn what_the_rules_lose_is_forgotten() {
        let mut sums = Sums::default();
        sums.take(batch(1, NOW, &one(|_| {})), &table("fra"), NOW).unwrap();
        sums.follow(&table("fra"));
        assert_eq!((sums.totals().count(), sums.busy.len(), sums.demand.len()), (1, 1, 1));
        sums.follow(&table("ber"));
        assert_eq!((sums.totals().count(), sums.busy.len(), sums.demand.len(), sums.served.len()), (0, 0, 0, 0));
    }

    #[test]
    fn what_is_kept_is_bounded_whoever_posts() {
        let mut rules = rules("fra");
        let endpoint = rules["regions"]["fra"]["endpoints"]["open"].clone();
        for nth in 0..5_000 {
            rules["regions"]["fra"]["endpoints"][format!("e{nth}")] = endpoint.clone();
        }
        let (table, mut sums) = (Table::compile(rules.to_string().as_bytes()).unwrap(), Sums::default());
        for nth in 0..5_000 {
            let counts = one(|one| one["endpoint"] = json!(format!("e{nth}")));
            let mut batch = batch(1, NOW, &counts);
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
