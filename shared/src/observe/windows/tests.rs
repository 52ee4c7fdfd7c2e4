use serde_json::json;

use super::*;
use crate::observe::{Batch, OTHER, Sums};
use crate::table::Table;

/// A whole minute.
const NOW: Timestamp = Timestamp(1_796_104_800_000);
const MINUTE: i64 = 60_000;

fn rules(aggregate: &serde_json::Value) -> serde_json::Value {
    let mut rules = json!({
        "version": 1, "revision": 1, "jurisdictions": { "eu": { "include": ["EU"] } },
        "regions": { "fra": { "countries": ["DE"], "endpoints": {
            "fra-1": { "url": "https://fra1.example/v1", "models": { "chat": "llama" } },
            "fra-2": { "url": "https://fra2.example/v1", "models": { "chat": "llama" } } } } },
        "services": { "chat": { "hosts": ["chat.example"], "pattern": "active-active", "regions": ["fra"],
                                "residency": [{ "clients": ["eu"], "process_in": ["eu"] }] } },
    });
    if !aggregate.is_null() {
        rules["aggregate"] = aggregate.clone();
    }
    rules
}

fn table(aggregate: &serde_json::Value) -> Table {
    Table::compile(rules(aggregate).to_string().as_bytes()).unwrap()
}

fn sending() -> Table {
    table(&json!({ "otlp": "https://metrics.example.net/v1/metrics" }))
}

fn batch(sequence: u64, at: Timestamp, endpoint: &str, count: u64) -> Batch {
    let mut batch = Batch::new("00112233445566aa".to_owned(), sequence, at, 5_000, 1);
    let entry = json!([{ "service": "chat", "clients": "eu", "region": "fra", "endpoint": endpoint, "model": "chat",
        "requests": { "ok": count, "made_up": 1 }, "finish": { "stop": count }, "tokens_in": 7, "tokens_out": 9,
        "total": { "sum_us": 1, "zero": 1, "buckets": [[-80, 1], [-79, 2], [0, count], [100, 1]] } }]);
    batch.counts = serde_json::from_value(entry).unwrap();
    batch
}

fn at(seconds: i64) -> Timestamp {
    Timestamp(NOW.0 + seconds * 1_000)
}

#[test]
fn counts_are_gathered_by_the_time_of_their_batch_and_taken_once() {
    let (table, mut sums) = (sending(), Sums::default());
    assert!(sums.take_windows(&table, at(0)).is_empty());
    sums.take(batch(1, at(30), "fra-1", 5), &table, at(31)).unwrap();
    // Of the next minute, then late ones of the first.
    sums.take(batch(2, at(61), "fra-1", 7), &table, at(62)).unwrap();
    sums.take(batch(3, at(59), "fra-2", 2), &table, at(64)).unwrap();
    assert!(sums.take_windows(&table, at(69)).is_empty(), "batches are awaited");
    let taken = sums.take_windows(&table, at(70));
    let [window] = &taken[..] else { panic!("{taken:?}") };
    assert_eq!((window.begin(), window.end(), window.is_whole), (at(0), at(60), true));
    let (key, cell) = window.cells.first_key_value().unwrap();
    assert_eq!((key.clients.as_str(), key.model.as_deref(), window.cells.len()), ("eu", Some("chat"), 1));
    // A word that isn't the edge's is told as one that is.
    assert_eq!((cell.requests[0], cell.requests[7]), (7, 2));
    // 2^-10 seconds and less, up to 2^-9, up to 2, more than 1024.
    assert_eq!((cell.total[0], cell.total[1], cell.total[10], cell.total[20]), (8, 0, 7, 2));
    // What is too late is of no interval, and neither is what comes of the far future.
    sums.take(batch(4, at(58), "fra-1", 1), &table, at(71)).unwrap();
    sums.take(batch(5, at(200), "fra-1", 1), &table, at(72)).unwrap();
    let taken = sums.take_windows(&table, at(130));
    assert_eq!(taken.iter().map(|window| (window.begin(), window.count())).collect::<Vec<_>>(), [(at(60), 8)]);
    assert_eq!(taken[0].lost, LostCounts { late: 4, uncounted: 0 });
    assert!(sums.take_windows(&table, at(9_999)).is_empty());
}

#[test]
fn an_interval_that_had_begun_before_is_not_whole() {
    let (table, mut sums) = (sending(), Sums::default());
    sums.take(batch(1, at(30), "fra-1", 5), &table, at(31)).unwrap();
    sums.take(batch(2, at(90), "fra-1", 5), &table, at(91)).unwrap();
    let taken = sums.take_windows(&table, at(200));
    assert_eq!(taken.iter().map(|window| window.is_whole).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn without_the_key_nothing_is_kept_and_another_interval_begins_anew() {
    let mut sums = Sums::default();
    let none = table(&json!(null));
    sums.take(batch(1, at(1), "fra-1", 5), &none, at(1)).unwrap();
    assert!(sums.take_windows(&none, at(500)).is_empty());
    sums.take(batch(2, at(501), "fra-1", 5), &sending(), at(501)).unwrap();
    let hourly = table(&json!({ "otlp": "https://metrics.example.net/v1/metrics", "every": "1h" }));
    assert!(sums.take_windows(&hourly, at(600)).is_empty());
    assert!(sums.take_windows(&sending(), at(601)).is_empty());
    // Part of this minute may have been told by the rules before, so gathering begins with the next one.
    sums.take(batch(3, at(650), "fra-1", 5), &sending(), at(650)).unwrap();
    sums.take(batch(4, at(661), "fra-1", 5), &sending(), at(661)).unwrap();
    let taken = sums.take_windows(&sending(), at(730));
    let [window] = &taken[..] else { panic!("{taken:?}") };
    assert_eq!((window.begin(), window.count(), window.is_whole), (at(660), 6, true));
    assert_eq!(window.lost, LostCounts { late: 0, uncounted: 12 });
}

#[test]
fn what_nobody_takes_is_bounded_and_counted() {
    let mut windows = Windows::new(Millis(60_000), NOW);
    let entry = batch(1, NOW, "fra-1", 5).counts.remove(0);
    for minute in 0..20 {
        let now = Timestamp(NOW.0 + minute * MINUTE);
        windows.add(&entry.key, &entry.counts, now, now);
    }
    assert_eq!(windows.open.len(), MAX_OPEN);
    // What comes too late takes no other interval's place.
    windows.add(&entry.key, &entry.counts, NOW, Timestamp(NOW.0 + 19 * MINUTE));
    assert_eq!(windows.open.len(), MAX_OPEN);
    let taken = windows.take(at(99_999));
    assert_eq!(taken[0].lost, LostCounts { late: 6, uncounted: 4 * 6 });
}

#[test]
fn what_is_told_by_name_is_whole_even_if_there_are_too_many_names() {
    let mut windows = Windows::new(Millis(60_000), NOW);
    let entry = batch(1, NOW, "fra-1", 5).counts.remove(0);
    let all = MAX_CELLS as u64 + 1_001;
    for nth in 0..all {
        let service = crate::id::ServiceId::parse(["chat", "voice"][usize::from(nth % 2 == 1)]).unwrap();
        let key = Key {
            clients: format!("c{}", nth / 4),
            service,
            model: Some(format!("m{}", nth % 4)),
            ..entry.key.clone()
        };
        // The last ones are of another minute, which keeps its names.
        let at = at(if nth < all - 9 { 1 } else { 61 });
        windows.add(&key, &entry.counts, at, at);
        assert!(windows.cells <= MAX_CELLS);
    }
    let taken = windows.take(at(200));
    let [first, second] = &taken[..] else { panic!("{}", taken.len()) };
    assert_eq!((first.count(), first.lost), (6 * (all - 9), LostCounts::default()));
    // Each model is one of several, each client is told with all that it has.
    assert!(first.cells.iter().all(|(key, cell)| key.model.as_deref() == Some(OTHER) && cell.count() == 12));
    assert!(second.cells.len() == 9 && windows.cells == 0);
    for names in 0..=NAMES {
        let key = second.cells.first_key_value().unwrap().0.clone().folded(names);
        let is_other = [key.model.as_deref() == Some(OTHER), key.clients == OTHER];
        let is_other = [is_other[0], is_other[1], key.region.unwrap().as_str() == OTHER, key.service.as_str() == OTHER];
        assert_eq!(is_other, core::array::from_fn(|nth| nth < names));
    }
}

#[test]
fn groups_are_whole_when_the_sums_of_metrics_are_full() {
    let mut rules = rules(&json!({ "otlp": "https://metrics.example.net/v1/metrics" }));
    let endpoint = rules["regions"]["fra"]["endpoints"]["fra-1"].clone();
    for nth in 0..5_000 {
        rules["regions"]["fra"]["endpoints"][format!("e{nth}")] = endpoint.clone();
    }
    let (table, mut sums) = (Table::compile(rules.to_string().as_bytes()).unwrap(), Sums::default());
    for nth in 0..5_000 {
        sums.take(batch(nth + 1, at(1), &format!("e{nth}"), 1), &table, at(1)).unwrap();
    }
    assert!(sums.dropped() > 0, "the sums are full");
    let taken = sums.take_windows(&table, at(100));
    let cells: Vec<_> =
        taken[0].cells.iter().map(|(key, cell)| (&*key.clients, key.model.as_deref(), cell.count())).collect();
    assert_eq!(cells, [("eu", Some("chat"), 10_000)]);
}

#[test]
fn an_interval_of_which_batches_got_lost_is_not_whole() {
    let (table, mut sums) = (sending(), Sums::default());
    sums.take_windows(&table, at(0));
    for (sequence, seconds) in [(1, 1), (2, 61), (4, 121), (5, 181)] {
        sums.take(batch(sequence, at(seconds), "fra-1", 5), &table, at(seconds)).unwrap();
    }
    // The third one was made in the second minute or in the third.
    let taken = sums.take_windows(&table, at(300));
    assert_eq!(taken.iter().map(|window| window.is_whole).collect::<Vec<_>>(), [true, false, false, true]);
}

#[test]
fn a_clock_that_jumps_silences_nothing() {
    let mut windows = Windows::new(Millis(60_000), NOW);
    let entry = batch(1, NOW, "fra-1", 5).counts.remove(0);
    for jump in [at(400_000), Timestamp(i64::MAX), Timestamp(i64::MIN), at(400_000)] {
        windows.add(&entry.key, &entry.counts, jump, jump);
        windows.take(jump);
        windows.lost = LostCounts::default();
        // The clock is right again, in the middle of a minute of which something may have been told.
        windows.add(&entry.key, &entry.counts, at(70), at(70));
        windows.add(&entry.key, &entry.counts, at(125), at(125));
        let taken = windows.take(at(190));
        let [.., window] = &taken[..] else { panic!("nothing is told after {jump:?}") };
        assert_eq!((window.begin(), window.count()), (at(120), 6), "{jump:?}");
        assert!(windows.open.is_empty(), "{jump:?}");
    }
    // What was gathered of the future is counted as lost.
    windows.add(&entry.key, &entry.counts, at(9_999), at(9_999));
    windows.add(&entry.key, &entry.counts, at(250), at(250));
    assert_eq!((windows.lost, windows.cells), (LostCounts { late: 0, uncounted: 12 }, 0));
}

#[test]
fn a_batch_is_of_the_same_interval_at_nodes_whose_clocks_differ() {
    let entry = batch(1, NOW, "fra-1", 5).counts.remove(0);
    for off in [-3, 0, 3] {
        let mut windows = Windows::new(Millis(60_000), NOW);
        windows.add(&entry.key, &entry.counts, at(119), at(119 + off));
        windows.add(&entry.key, &entry.counts, at(121), at(121 + off));
        let taken = windows.take(at(300));
        assert_eq!(taken.iter().map(Window::begin).collect::<Vec<_>>(), [at(60), at(120)], "{off}");
    }
}
