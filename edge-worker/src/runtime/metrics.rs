//! Counts events of this isolate. Takes the name of an event; returns the text of all counters for Prometheus. Called
//! by many files of `runtime`. An isolate is one instance of the Worker; the platform runs several, which share no
//! memory.
//!
//! Labels are names in the rules, hosts of the feeds, and fixed words. Nothing that a client or an endpoint sends
//! becomes a label. So the number of labels is bounded by the rules.

mod text;

use std::cell::RefCell;
use std::collections::BTreeMap;

use bailiwick_rules::table::Table;

use crate::decide::attempt::{Outcome, Record};
use crate::decide::logs::Signal;
pub(crate) use text::{Format, Gauges, write};

thread_local! {
    static COUNTS: RefCell<Counts> = RefCell::new(Counts::default());
}

/// How often each result was counted, by the word for the result. There are at most a few dozen words.
type CountsByWord = Vec<(&'static str, u64)>;

/// All counters.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Results of requests, by service. Requests that reached no service are under the empty name.
    requests: BTreeMap<String, CountsByWord>,
    /// Results of attempts, by region and endpoint.
    attempts: BTreeMap<String, BTreeMap<String, CountsByWord>>,
    retries: u64,
    /// Results of fetches, by feed and source.
    fetches: [BTreeMap<String, CountsByWord>; 4],
    events: CountsByWord,
    /// What became of events and spans, by sink.
    sinks: [BTreeMap<String, CountsByWord>; 2],
    /// Why posts to sinks failed.
    sink_failures: [BTreeMap<String, CountsByWord>; 2],
}

/// The kinds of fetches and posts that are counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FeedKind {
    Rules = 0,
    Health = 1,
    Leases = 2,
    Observations = 3,
}

/// Counts an event that has no metric of its own. `name` is a word in `snake_case` that docs/edge-operations.md
/// explains.
pub(crate) fn note(name: &'static str) {
    COUNTS.with_borrow_mut(|counts| bump(&mut counts.events, name));
}

/// Counts the result of a request.
pub(crate) fn request(service: &str, code: &'static str) {
    COUNTS.with_borrow_mut(|counts| with(&mut counts.requests, service, |words| bump(words, code)));
}

/// Counts the results of a request's attempts.
pub(crate) fn attempts(record: &Record) {
    COUNTS.with_borrow_mut(|counts| {
        counts.retries += (record.attempts.len() as u64).saturating_sub(1);
        for attempt in &record.attempts {
            let label = attempt.outcome.map_or("pending", Outcome::label);
            with(&mut counts.attempts, attempt.region.as_str(), |endpoints| {
                with(endpoints, attempt.endpoint.as_str(), |words| bump(words, label));
            });
        }
    });
}

/// Counts a fetch from a source of a feed, or a post.
pub(crate) fn fetch(feed: FeedKind, source: &str, result: &'static str) {
    COUNTS.with_borrow_mut(|counts| with(&mut counts.fetches[feed as usize], source, |words| bump(words, result)));
}

/// Counts events or spans of a sink, by what became of them. The name is empty if they belong to no sink.
pub(crate) fn sink(sink: &str, signal: Signal, word: &'static str, records: u64) {
    if records > 0 {
        COUNTS.with_borrow_mut(|counts| {
            with(&mut counts.sinks[signal as usize], sink, |words| add(words, word, records));
        });
    }
}

/// Counts a post that a sink didn't take.
pub(crate) fn sink_failed(sink: &str, signal: Signal, reason: &'static str) {
    COUNTS
        .with_borrow_mut(|counts| with(&mut counts.sink_failures[signal as usize], sink, |words| bump(words, reason)));
}

/// Removes counters of names that the rules no longer have.
fn follow(counts: &mut Counts, table: &Table) {
    counts.requests.retain(|service, _| service.is_empty() || table.service_named(service).is_some());
    for sinks in counts.sinks.iter_mut().chain(&mut counts.sink_failures) {
        let is_known = |name: &str| name.is_empty() || table.sinks().iter().any(|sink| sink.id.as_str() == name);
        sinks.retain(|name, _| !table.sinks().is_empty() && is_known(name));
    }
    counts.attempts.retain(|region, endpoints| {
        let region = table.region_named(region).map(|index| table.region(index));
        let known =
            |name: &str| region.is_some_and(|region| region.endpoints.iter().any(|(id, _)| id.as_str() == name));
        endpoints.retain(|endpoint, _| known(endpoint));
        !endpoints.is_empty()
    });
}

fn bump(words: &mut CountsByWord, word: &'static str) {
    add(words, word, 1);
}

fn add(words: &mut CountsByWord, word: &'static str, more: u64) {
    match words.iter_mut().find(|(known, _)| *known == word) {
        Some((_, count)) => *count += more,
        None => words.push((word, more)),
    }
}

/// Changes the entry of a name. The name is copied only if the map has no such entry yet.
fn with<V: Default>(map: &mut BTreeMap<String, V>, name: &str, change: impl FnOnce(&mut V)) {
    match map.get_mut(name) {
        Some(value) => change(value),
        None => change(map.entry(name.to_owned()).or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_names_that_left_the_rules_are_removed() {
        let rules = serde_json::json!({
            "version": 1, "revision": 1,
            "regions": { "fra": { "countries": ["DE"], "endpoints": { "fra-1": { "url": "https://a.example/v1" } } } },
            "services": { "chat": { "hosts": ["chat.example"], "pattern": "active-active", "regions": ["fra"],
                                    "residency": [{ "clients": ["*"], "process_in": ["*"] }] } },
        });
        let table = Table::compile(rules.to_string().as_bytes()).unwrap();
        let mut counts = Counts::default();
        for service in ["", "chat", "gone"] {
            with(&mut counts.requests, service, |words| bump(words, "ok"));
        }
        for (region, endpoint) in [("fra", "fra-1"), ("fra", "gone"), ("gone", "fra-1")] {
            with(&mut counts.attempts, region, |endpoints| with(endpoints, endpoint, |words| bump(words, "committed")));
        }
        for sink in ["", "gone"] {
            with(&mut counts.sinks[1], sink, |words| add(words, "lost", 1));
        }
        follow(&mut counts, &table);
        assert!(counts.sinks[1].is_empty(), "the rules have no sinks");
        assert_eq!(counts.requests.keys().collect::<Vec<_>>(), ["", "chat"]);
        let left =
            counts.attempts.iter().flat_map(|(region, some)| some.keys().map(move |name| format!("{region}/{name}")));
        assert_eq!(left.collect::<Vec<_>>(), ["fra/fra-1"]);
    }
}
