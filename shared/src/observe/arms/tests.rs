//! Counts of arms: which are added to the step under way, and which aren't.

use serde_json::{Value, json};

use crate::id::{RegionId, RolloutId};
use crate::observe::{Batch, StepSums, Sums};
use crate::table::Table;
use crate::time::{Millis, Timestamp};

const NOW: Timestamp = Timestamp(1_796_104_800_000);

/// Rules of this revision, with a rollout whose step began at a time.
fn table(revision: u64, shares: &Value, since: Timestamp) -> Table {
    let endpoints = json!({ "e": { "url": "https://e.example/v1", "models": { "m": "old" } } });
    let rules = json!({
        "version": 1, "revision": revision, "jurisdictions": { "eu": { "include": ["EU"] } },
        "regions": { "fra": { "countries": ["DE"], "endpoints": endpoints },
                     "par": { "countries": ["FR"], "endpoints": endpoints } },
        "services": { "chat": { "hosts": ["chat.example"], "pattern": "active-active", "regions": ["fra", "par"],
                                "residency": [{ "clients": ["eu"], "process_in": ["eu"] }] } },
        "rollouts": { "next": { "service": "chat", "model": "m", "from": "old", "to": "new",
            "regions": ["fra", "par"], "warm_up": "1m", "checks": { "error_rate": { "max_diff": 0.01 } },
            "progress": { "shares": shares, "since": since.to_string() } } },
    });
    Table::compile(rules.to_string().as_bytes()).unwrap_or_else(|faults| panic!("{faults:#?}"))
}

/// A batch with one arm, made at a time by rules of a revision.
fn batch(sequence: u64, at: Timestamp, revision: u64, arm: &Value) -> Batch {
    let batch = json!({
        "version": 1, "isolate": "00112233445566aa", "sequence": sequence, "at": at.to_string(), "span_ms": 5000,
        "revision": revision, "arms": [arm],
    });
    Batch::read(batch.to_string().as_bytes()).unwrap()
}

fn arm(region: &str, arm: &str) -> Value {
    json!({ "service": "chat", "region": region, "arm": arm, "counts": { "attempts": { "committed": 2 } } })
}

fn step(sums: &Sums, region: &str) -> Option<StepSums> {
    sums.arms().of(&RolloutId::parse("next").unwrap(), &RegionId::parse(region).unwrap()).cloned()
}

fn committed(sums: &Sums) -> [u64; 2] {
    let step = step(sums, "fra").unwrap();
    [step.old, step.new].map(|sum| sum.counts.attempts.get("committed").copied().unwrap_or_default())
}

#[test]
fn arms_are_added_up_from_the_end_of_the_warm_up() {
    let (table, mut sums) = (table(3, &json!({ "fra": 5 }), NOW), Sums::default());
    let mut take = |sequence, after: u64, revision, entry: &Value| {
        let now = NOW.after(Millis(after));
        let taken = sums.take(batch(sequence, now, revision, entry), &table, now).unwrap();
        (taken.added, taken.dropped, committed(&sums))
    };
    assert_eq!(take(1, 30_000, 3, &arm("fra", "new")), (1, 0, [0, 0]), "caches are cold");
    assert_eq!(take(2, 64_999, 3, &arm("fra", "new")), (1, 0, [0, 0]), "some of it was counted before");
    assert_eq!(take(3, 65_000, 3, &arm("fra", "new")), (1, 0, [0, 2]));
    assert_eq!(take(4, 70_000, 3, &arm("fra", "old")), (1, 0, [2, 2]));
    assert_eq!(take(5, 75_000, 2, &arm("fra", "old")), (1, 0, [2, 2]), "by rules with other shares");
    for (sequence, unknown) in (6..).zip([arm("par", "new"), arm("mars", "new"), arm("fra", "third")]) {
        assert_eq!(take(sequence, 80_000, 3, &unknown).1, 1, "{unknown}");
    }
    let step = step(&sums, "fra").unwrap();
    assert_eq!([step.old.newest, step.new.newest], [70_000, 65_000].map(|after| Some(NOW.after(Millis(after)))));
    assert_eq!(step.since, NOW);
}

#[test]
fn a_new_step_begins_anew_and_other_changes_do_not() {
    let mut sums = Sums::default();
    let later = NOW.after(Millis(100_000));
    sums.take(batch(1, later, 3, &arm("fra", "new")), &table(3, &json!({ "fra": 5 }), NOW), later).unwrap();
    sums.follow(&table(4, &json!({ "fra": 5 }), NOW));
    assert_eq!(committed(&sums), [0, 2], "the step is the same");
    let text = serde_json::to_string(&step(&sums, "fra").unwrap()).unwrap();
    assert_eq!(serde_json::from_str::<StepSums>(&text).unwrap(), step(&sums, "fra").unwrap());
    let next = table(5, &json!({ "fra": 25 }), later);
    sums.follow(&next);
    assert_eq!(committed(&sums), [0, 0]);
    assert_eq!(step(&sums, "par"), None, "it hasn't begun");
    sums.follow(&table(6, &json!({}), later));
    assert_eq!(step(&sums, "fra"), None);
}

#[test]
fn metrics_have_arms_of_regions_that_have_begun() {
    let (table, mut sums) = (table(3, &json!({ "fra": 5 }), NOW), Sums::default());
    let mut labels = Vec::new();
    for (sequence, (region, arm)) in (1..).zip([("fra", "new"), ("fra", "old"), ("fra", "third"), ("par", "new")]) {
        let count = json!({ "service": "chat", "clients": "eu", "region": region, "endpoint": "e", "arm": arm,
                            "requests": { "ok": 1 } });
        let batch = json!({
            "version": 1, "isolate": "00112233445566aa", "sequence": sequence, "at": NOW.to_string(), "span_ms": 5000,
            "revision": 3, "counts": [count],
        });
        sums.take(Batch::read(batch.to_string().as_bytes()).unwrap(), &table, NOW).unwrap();
        labels = sums.totals().map(|(key, _)| key.arm.clone()).collect();
    }
    labels.sort();
    assert_eq!(labels, [None, None, Some("new".to_owned()), Some("old".to_owned())]);
}

#[test]
fn a_batch_with_too_many_arms_or_odd_words_is_refused() {
    let read = |arms: Value| {
        let batch = json!({ "version": 1, "isolate": "00112233445566aa", "sequence": 1, "at": NOW.to_string(),
                            "span_ms": 5000, "revision": 1, "arms": arms });
        Batch::read(batch.to_string().as_bytes()).map(drop).map_err(|malformed| malformed.to_string())
    };
    assert_eq!(read(json!([arm("fra", "new")])), Ok(()));
    assert!(read(Value::Array(vec![arm("fra", "new"); 129])).unwrap_err().starts_with("arms: has 129"));
    let mut odd = arm("fra", "new");
    odd["counts"]["attempts"]["A client's text"] = json!(1);
    assert!(read(json!([odd])).unwrap_err().starts_with("arms/0: a word has"));
}
