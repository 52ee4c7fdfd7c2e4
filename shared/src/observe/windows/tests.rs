use serde_json::json;

use super::*;
use crate::observe::{Batch, Sums};
use crate::table::Table;

/// A whole minute.
const NOW: Timestamp = Timestamp(1_796_104_800_000);
const MINUTE: i64 = 60_000;

fn table(aggregate: &serde_json::Value) -> Table {
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
    Table::compile(rules.to_string().as_bytes()).unwrap()
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
    assert_eq!((cell.requests[0], cell.requests[7], cell.finished, cell.tokens), (7, 2, 7, [14, 18]));
    // 2^-10 seconds and less, up to 2^-9, up to 2, more than 1024.
    assert_eq!((cell.total[0], cell.total[1], cell.total[10], cell.total[20]), (8, 0, 7, 2));
    // What is too late is of the next interval, and so is what comes of the future.
    sums.take(batch(4, at(58), "fra-1", 1), &table, at(71)).unwrap();
    sums.take(batch(5, at(200), "fra-1", 1), &table, at(72)).unwrap();
    let taken = sums.take_windows(&table, at(130));
    assert_eq!(taken.iter().map(|window| (window.begin(), window.count())).collect::<Vec<_>>(), [(at(60), 12)]);
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
}

#[test]
fn what_nobody_takes_is_bounded_and_counted() {
    let (table, mut windows) = (sending(), Windows::new(Millis(60_000), NOW));
    let entry = batch(1, NOW, "fra-1", 5).counts.remove(0);
    for minute in 0..20 {
        let now = Timestamp(NOW.0 + minute * MINUTE);
        windows.add(&entry.key, &entry.counts, now, now);
    }
    assert_eq!(windows.open.len(), MAX_OPEN);
    let taken = windows.take(at(99_999));
    assert_eq!(taken.iter().map(|window| window.uncounted).sum::<u64>(), 4 * 6);
    for nth in 0..MAX_CELLS + 10 {
        let key = Key { clients: format!("c{nth}"), ..entry.key.clone() };
        windows.add(&key, &entry.counts, at(100_000), at(100_000));
    }
    let taken = windows.take(at(200_000));
    assert_eq!((taken[0].cells.len(), taken[0].uncounted, windows.cells), (MAX_CELLS, 60, 0));
    // Clocks that jump.
    for jump in [i64::MAX, i64::MIN, 0] {
        windows.add(&entry.key, &entry.counts, Timestamp(jump), Timestamp(jump));
        windows.take(Timestamp(jump));
    }
    drop(table);
}
