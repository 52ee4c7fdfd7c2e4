//! Queries of the last week, counted by service, country, region and source of the client's place. Takes counts every
//! few minutes, returns a [`TrafficReport`]. Kept by each node. The code that compares two rules documents uses it
//! to weigh clients.
//!
//! Counts stand in buckets of five minutes. `MOST_ENTRIES` limits the memory: beyond it, the oldest buckets are merged
//! into buckets of up to a day, and then dropped. So the newest counts keep their five minutes.

mod kept;

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::impact::Queries;
use crate::geo::CountryCode;
use crate::time::{Millis, Timestamp};

/// The length of a bucket.
pub const BUCKET: Millis = Millis(5 * 60_000);
/// For how long counts are kept.
pub const KEPT: Millis = Millis(7 * 86_400_000);
/// The longest bucket that merging may make.
const LONGEST: Millis = Millis(86_400_000);
/// How many counts are kept. Each takes about 16 bytes.
const MOST_ENTRIES: usize = 500_000;
/// How many names of services, and how many of regions, are counted separately. The names of all documents of the week
/// count.
const MOST_NAMES: usize = 8_192;
/// The name under which all further names are counted.
const OTHERS: &str = "(others)";

/// By what a query is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryLabels<'a> {
    /// The service.
    pub service: &'a str,
    /// The client's country; `None`: unknown.
    pub country: Option<CountryCode>,
    /// The region in the answer; `None`: an answer without a region.
    pub region: Option<&'a str>,
    /// How the client's place was learnt.
    pub source: AddressSource,
}

/// Which address a DNS query was answered by: the client's network, or the resolver's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AddressSource {
    /// By the client subnet in the resolver's query (EDNS Client Subnet, RFC 7871).
    Ecs,
    /// By the resolver's address.
    Resolver,
}

/// A [`QueryLabels`] in few bytes: names are replaced by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    service: u16,
    /// 0 for no region, otherwise the number of the region's name plus one.
    region: u16,
    country: Option<CountryCode>,
    source: AddressSource,
}

/// The counts of one span of time.
#[derive(Debug)]
struct Bucket {
    from: Timestamp,
    span: Millis,
    /// By key, ascending.
    counts: Vec<(Key, u64)>,
}

/// Queries of the last week.
#[derive(Debug, Default)]
pub struct Traffic {
    services: Names,
    regions: Names,
    /// The oldest first.
    buckets: VecDeque<Bucket>,
}

/// Names and their numbers; a name's number is its position.
#[derive(Debug, Default)]
struct Names {
    all: Vec<String>,
    known: BTreeMap<String, u16>,
}

/// Queries since a time, as `/v1/traffic` reports them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrafficReport {
    /// When the first bucket begins.
    pub from: Option<Timestamp>,
    /// The time up to which queries were counted.
    pub until: Timestamp,
    /// How many nodes counted, if the nodes of a fleet were asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<usize>,
    /// The nodes whose counts are missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Missing>,
    /// The counts: sums over all buckets, or bucket by bucket.
    pub counts: Vec<Count>,
}

/// A node whose counts are missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// The node's URL.
    pub peer: String,
    /// Why its counts are missing.
    pub why: String,
}

/// One count.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Count {
    /// When its bucket begins; absent if the count is a sum over buckets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    /// The length of the bucket in seconds; absent if the count is a sum over buckets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
    /// The service.
    pub service: String,
    /// The client's country; null: unknown.
    pub country: Option<String>,
    /// The region in the answer; null: an answer without a region.
    pub region: Option<String>,
    /// How the client's place was learnt.
    pub source: AddressSource,
    /// How many queries.
    pub queries: u64,
}

/// What a count is of: start of the bucket, service, country, region, source, and seconds of the bucket.
type CountKey = (Option<Timestamp>, String, Option<String>, Option<String>, AddressSource, Option<u64>);

impl Count {
    fn key(self) -> CountKey {
        (self.from, self.service, self.country, self.region, self.source, self.seconds)
    }
}

impl Names {
    /// The number of a name. A new name is added.
    fn number(&mut self, name: &str) -> u16 {
        if let Some(number) = self.known.get(name) {
            return *number;
        }
        if self.all.len() >= MOST_NAMES && name != OTHERS {
            return self.number(OTHERS);
        }
        let number = u16::try_from(self.all.len()).unwrap_or(u16::MAX);
        self.all.push(name.to_owned());
        self.known.insert(name.to_owned(), number);
        number
    }

    fn name(&self, number: u16) -> &str {
        self.all.get(usize::from(number)).map_or(OTHERS, String::as_str)
    }
}

impl Traffic {
    /// Adds queries that were counted until `now`, to the bucket of that moment.
    pub fn add<'a>(&mut self, now: Timestamp, counted: impl IntoIterator<Item = (QueryLabels<'a>, u64)>) {
        let mut counts: BTreeMap<Key, u64> = BTreeMap::new();
        for (entry, queries) in counted {
            let service = self.services.number(entry.service);
            let region = entry.region.map_or(0, |region| self.regions.number(region).saturating_add(1));
            let key = Key { service, region, country: entry.country, source: entry.source };
            *counts.entry(key).or_default() += queries;
        }
        self.forget(now);
        if counts.is_empty() {
            return;
        }
        let from = Timestamp(now.0 - now.0.rem_euclid(i64::try_from(BUCKET.0).unwrap_or(1)));
        let new = Bucket { from, span: BUCKET, counts: counts.into_iter().collect() };
        match self.buckets.back_mut() {
            // If the clock was set back, the counts go to the newest bucket.
            Some(last) if last.from >= from => last.counts = merged(std::mem::take(&mut last.counts), new.counts),
            _ => self.buckets.push_back(new),
        }
        while self.entries() > MOST_ENTRIES && self.buckets.len() > 1 {
            self.shrink();
        }
    }

    /// The queries since a time, of one service or of all; bucket by bucket if `apart` is set, otherwise summed.
    #[must_use]
    pub fn report(&self, now: Timestamp, since: Timestamp, service: Option<&str>, apart: bool) -> TrafficReport {
        let buckets = || self.buckets.iter().filter(|bucket| bucket.end() > since);
        let is_of_service = |(key, _): &&(Key, u64)| service.is_none_or(|name| self.services.name(key.service) == name);
        let counts = match apart {
            true => buckets()
                .flat_map(|bucket| {
                    bucket.counts.iter().filter(is_of_service).map(move |entry| self.count(Some(bucket), *entry))
                })
                .collect(),
            false => {
                let mut sums: BTreeMap<Key, u64> = BTreeMap::new();
                for (key, queries) in buckets().flat_map(|bucket| bucket.counts.iter().filter(is_of_service)) {
                    add(sums.entry(*key).or_default(), *queries);
                }
                sums.into_iter().map(|entry| self.count(None, entry)).collect()
            }
        };
        TrafficReport {
            from: buckets().next().map(|bucket| bucket.from),
            until: now,
            nodes: None,
            missing: Vec::new(),
            counts,
        }
    }

    /// A count with its names.
    fn count(&self, bucket: Option<&Bucket>, (key, queries): (Key, u64)) -> Count {
        Count {
            from: bucket.map(|bucket| bucket.from),
            seconds: bucket.map(|bucket| bucket.span.0 / 1_000),
            service: self.services.name(key.service).to_owned(),
            country: key.country.map(|country| country.to_string()),
            region: key.region.checked_sub(1).map(|region| self.regions.name(region).to_owned()),
            source: key.source,
            queries,
        }
    }

    /// The sums over the buckets that begin at `since` or later. Of those that begin at `uncounted` or before, queries
    /// without a country are left out; returns how many these are, too.
    #[must_use]
    pub fn report_whole(&self, now: Timestamp, since: Timestamp, uncounted: Timestamp) -> (TrafficReport, u64) {
        let mut left_out = 0;
        let mut sums: BTreeMap<Key, u64> = BTreeMap::new();
        let buckets = self.buckets.iter().filter(|bucket| bucket.from >= since);
        let from = buckets.clone().next().map(|bucket| bucket.from);
        for bucket in buckets {
            for (key, queries) in &bucket.counts {
                match key.country.is_none() && bucket.from <= uncounted {
                    true => add(&mut left_out, *queries),
                    false => add(sums.entry(*key).or_default(), *queries),
                }
            }
        }
        let counts = sums.into_iter().map(|entry| self.count(None, entry)).collect();
        (TrafficReport { from, until: now, nodes: None, missing: Vec::new(), counts }, left_out)
    }

    fn entries(&self) -> usize {
        self.buckets.iter().map(|bucket| bucket.counts.len()).sum()
    }

    /// Drops buckets that are older than a week.
    fn forget(&mut self, now: Timestamp) {
        let least = Timestamp(now.0.saturating_sub(i64::try_from(KEPT.0).unwrap_or(i64::MAX)));
        while self.buckets.front().is_some_and(|bucket| bucket.end() <= least) {
            self.buckets.pop_front();
        }
    }

    /// Merges the two oldest neighbouring buckets that together aren't too long. If there are none, drops the oldest
    /// bucket. The newest bucket is never merged.
    fn shrink(&mut self) {
        let fits = |at: &usize| {
            let (bucket, next) = (&self.buckets[*at], &self.buckets[at + 1]);
            next.end().since(bucket.from) <= LONGEST
        };
        match (0..self.buckets.len().saturating_sub(2)).find(fits) {
            None => _ = self.buckets.pop_front(),
            Some(at) => {
                let Some(next) = self.buckets.remove(at + 1) else { return };
                let bucket = &mut self.buckets[at];
                bucket.span = next.end().since(bucket.from);
                bucket.counts = merged(std::mem::take(&mut bucket.counts), next.counts);
            }
        }
    }
}

impl Bucket {
    fn end(&self) -> Timestamp {
        self.from.after(self.span)
    }
}

/// Adds queries. The sum saturates, because another node may report any number.
fn add(sum: &mut u64, queries: u64) {
    *sum = sum.saturating_add(queries);
}

/// The sums of two lists, in order of their keys.
fn merged(earlier: Vec<(Key, u64)>, later: Vec<(Key, u64)>) -> Vec<(Key, u64)> {
    let mut sums: BTreeMap<Key, u64> = earlier.into_iter().collect();
    for (key, queries) in later {
        add(sums.entry(key).or_default(), queries);
    }
    sums.into_iter().collect()
}

impl TrafficReport {
    /// Adds what another node counted. Counts with the same key become one.
    pub fn add(&mut self, other: Self) {
        self.from = match (self.from, other.from) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let mut sums: BTreeMap<CountKey, u64> = BTreeMap::new();
        for count in std::mem::take(&mut self.counts).into_iter().chain(other.counts) {
            let queries = count.queries;
            add(sums.entry(count.key()).or_default(), queries);
        }
        let count = |((from, service, country, region, source, seconds), queries)| Count {
            from,
            seconds,
            service,
            country,
            region,
            source,
            queries,
        };
        self.counts = sums.into_iter().map(count).collect();
    }

    /// The queries by service and country, by which a comparison of rules weighs clients.
    #[must_use]
    pub fn queries(&self) -> Queries {
        let mut queries = Queries::new();
        for count in &self.counts {
            let country = count.country.as_deref().and_then(CountryCode::parse);
            let of_service = queries.entry(count.service.clone()).or_default();
            add(of_service.entry(country).or_default(), count.queries);
        }
        queries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn de() -> Option<CountryCode> {
        CountryCode::parse("DE")
    }

    fn counted(service: &str, country: Option<CountryCode>) -> QueryLabels<'_> {
        QueryLabels { service, country, region: Some("fra"), source: AddressSource::Ecs }
    }

    fn sum(report: &TrafficReport) -> u64 {
        report.counts.iter().map(|count| count.queries).sum()
    }

    #[test]
    fn counts_are_told_since_a_time_by_service_and_bucket_for_a_week() {
        let mut traffic = Traffic::default();
        for minutes in [0, 2, 6, 60] {
            let nobody = QueryLabels { region: None, source: AddressSource::Resolver, ..counted("embed", None) };
            traffic.add(NOW.after(Millis(minutes * 60_000)), [(counted("chat", de()), 10), (nobody, 1)]);
        }
        let now = NOW.after(Millis(3_600_000));
        let all = traffic.report(now, Timestamp(0), None, false);
        assert_eq!((sum(&all), all.counts.len()), (44, 2));
        let queries = Queries::from([
            ("chat".to_owned(), BTreeMap::from([(de(), 40)])),
            ("embed".to_owned(), BTreeMap::from([(None, 4)])),
        ]);
        assert_eq!(all.queries(), queries);
        let apart = traffic.report(now, Timestamp(0), Some("chat"), true);
        let buckets: Vec<_> = apart.counts.iter().map(|count| (count.seconds.unwrap(), count.queries)).collect();
        assert_eq!(buckets, [(300, 20), (300, 10), (300, 10)], "two calls in the same five minutes share a bucket");
        assert_eq!(sum(&traffic.report(now, NOW.after(Millis(1_800_000)), Some("chat"), false)), 10);
        let text = serde_json::to_string(&all).unwrap();
        assert!(text.contains(r#"{"service":"embed","country":null,"region":null,"source":"resolver","queries":4}"#));
        assert_eq!(serde_json::from_str::<TrafficReport>(&text).unwrap(), all);
        traffic.add(now.after(KEPT), []);
        assert_eq!(sum(&traffic.report(now, Timestamp(0), None, false)), 11, "only what is older than a week is gone");
        traffic.add(now.after(KEPT).after(BUCKET), []);
        assert!(traffic.report(now, Timestamp(0), None, false).counts.is_empty());
    }

    #[test]
    fn whole_buckets_are_told_without_those_whose_country_may_have_been_lost() {
        let mut traffic = Traffic::default();
        for bucket in 0..4 {
            let counts = [(counted("chat", de()), 10), (counted("chat", None), 1)];
            traffic.add(NOW.after(Millis(bucket * BUCKET.0 + 1)), counts);
        }
        let told = |since: u64, uncounted: Timestamp| {
            let (report, left_out) = traffic.report_whole(NOW, NOW.after(Millis(since * BUCKET.0)), uncounted);
            (sum(&report), report.counts.len(), left_out)
        };
        assert_eq!(told(0, Timestamp(i64::MIN)), (44, 2, 0));
        assert_eq!(told(1, Timestamp(i64::MIN)), (33, 2, 0), "a bucket that began before isn't whole");
        assert_eq!(told(1, NOW.after(Millis(2 * BUCKET.0 + 1))), (31, 2, 2), "what was recorded later counts again");
        assert_eq!(told(1, NOW.after(Millis(9 * BUCKET.0))), (30, 1, 3));
    }

    #[test]
    fn memory_is_bounded_by_merging_the_oldest_and_nothing_of_a_day_is_lost_before_a_week_is() {
        let services: Vec<String> = (0..5_000).map(|n| format!("s{n}")).collect();
        let mut traffic = Traffic::default();
        for bucket in 0..288 {
            let now = NOW.after(Millis(bucket * BUCKET.0));
            traffic.add(now, services.iter().map(|service| (counted(service, de()), 1)));
            assert!(traffic.entries() <= MOST_ENTRIES, "{}", traffic.entries());
        }
        let now = NOW.after(Millis(287 * BUCKET.0));
        assert_eq!(sum(&traffic.report(now, Timestamp(0), None, false)), 288 * 5_000);
        let apart = traffic.report(now, Timestamp(0), Some("s7"), true);
        assert!(apart.counts[0].seconds > Some(300) && apart.counts.last().unwrap().seconds == Some(300));
    }

    #[test]
    fn counts_of_nodes_add_up_by_what_they_are_of() {
        let (mut one, mut other) = (Traffic::default(), Traffic::default());
        one.add(NOW.after(BUCKET), [(counted("chat", de()), 5), (counted("embed", None), u64::MAX)]);
        other.add(NOW, [(counted("chat", de()), 7), (counted("chat", None), 1)]);
        other.add(NOW.after(BUCKET), [(counted("chat", de()), 2), (counted("embed", None), 1)]);
        let now = NOW.after(BUCKET);
        for (apart, counts) in [(false, 3), (true, 4)] {
            let mut all = one.report(now, Timestamp(0), None, apart);
            all.add(other.report(now, Timestamp(0), None, apart));
            assert_eq!((all.from, all.counts.len()), (other.report(now, Timestamp(0), None, apart).from, counts));
            let of = |service: &str| -> Vec<u64> {
                all.counts.iter().filter(|count| count.service == service).map(|count| count.queries).collect()
            };
            assert_eq!(of("chat").iter().sum::<u64>(), 15);
            assert_eq!(of("embed"), [u64::MAX], "no sum overflows");
        }
    }

    #[test]
    fn names_are_bounded_too() {
        let mut traffic = Traffic::default();
        let names: Vec<String> = (0..MOST_NAMES + 50).map(|n| format!("s{n}")).collect();
        traffic.add(NOW, names.iter().map(|name| (counted(name, None), 1)));
        let others = traffic.report(NOW, Timestamp(0), Some(OTHERS), false);
        assert_eq!((sum(&others), traffic.services.all.len()), (50, MOST_NAMES + 1));
    }
}
