use bailiwick_rules::table::Table;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const ALL: usize = usize::MAX;

/// The sinks of a document with these names.
fn sinks(names: &[&str]) -> Vec<Sink> {
    let sink = |name: &&str| {
        let url = format!("https://{name}.example/v1/logs");
        ((*name).to_owned(), json!({ "countries": ["eu"], "otlp": url }))
    };
    let sinks: serde_json::Map<String, Value> = names.iter().map(sink).collect();
    let rules = json!({
        "version": 1, "revision": 1, "logs": sinks, "jurisdictions": { "eu": { "include": ["EU"] } },
    });
    Table::compile(rules.to_string().as_bytes()).unwrap().sinks().to_vec()
}

fn records(batch: &Batch) -> Vec<Value> {
    let body: Value = serde_json::from_str(&batch.body()).unwrap();
    let resource = &body["resourceLogs"][0];
    let attributes = json!([{ "key": "service.name", "value": { "stringValue": "bailiwick-edge" } }]);
    assert_eq!(resource["resource"]["attributes"], attributes);
    resource["scopeLogs"][0]["logRecords"].as_array().unwrap().clone()
}

#[test]
fn records_of_a_sink_are_one_post_and_never_another_sinks() {
    let sinks = sinks(&["eu", "us"]);
    let mut queue = Queue::default();
    for (sink, record) in [(0, "{\"n\":1}"), (1, "{\"n\":2}"), (0, "{\"n\":3}")] {
        assert!(queue.push(&sinks[sink], Signal::Logs, record, NOW));
    }
    assert!(queue.push(&sinks[0], Signal::Traces, "{\"n\":4}", NOW));
    let due = queue.take(NOW, ALL);
    let of = |batch: &Batch| (batch.sink.id.to_string(), batch.signal, batch.count());
    assert_eq!(
        due.iter().map(of).collect::<Vec<_>>(),
        [("eu".to_owned(), Signal::Logs, 2), ("us".into(), Signal::Logs, 1), ("eu".into(), Signal::Traces, 1)]
    );
    assert_eq!(records(&due[0]), [json!({ "n": 1 }), json!({ "n": 3 })]);
    let spans: Value = serde_json::from_str(&due[2].body()).unwrap();
    assert_eq!(spans["resourceSpans"][0]["scopeSpans"][0]["spans"], json!([{ "n": 4 }]));
    assert!(queue.is_empty() && queue.bytes() > 0, "what is under way is held still");
    for batch in due {
        queue.settle(batch, Settled::Taken, NOW).unwrap();
    }
    assert_eq!(queue.bytes(), 0);
}

#[test]
fn a_failed_batch_is_posted_again_after_a_rest_and_given_up_after_three_tries() {
    let sinks = sinks(&["eu"]);
    let mut queue = Queue::default();
    queue.push(&sinks[0], Signal::Logs, "{\"n\":1}", NOW);
    let (mut now, mut rests) = (NOW, Vec::new());
    for tries in 1..=3 {
        let batch = queue.take(now, ALL).pop().unwrap();
        let lost = queue.settle(batch, Settled::Later, now).unwrap().lost;
        assert_eq!(lost, u64::from(tries == 3), "the third time it is lost");
        assert!(queue.push(&sinks[0], Signal::Logs, "{\"n\":2}", now), "others wait behind it");
        let rests_at = |ms: &u64| queue.sinks[0].rest_until.lasts(now.after(Millis(*ms)), LONGEST_REST);
        let rest = (0..60_000).step_by(100).find(|ms| !rests_at(ms)).unwrap();
        assert!(queue.take(now.after(Millis(rest - 1)), ALL).is_empty());
        rests.push(rest);
        now = now.after(Millis(rest));
    }
    assert_eq!(rests, [1_000, 2_000, 4_000]);
    let batch = queue.take(now, ALL).pop().unwrap();
    assert_eq!(queue.settle(batch, Settled::Refused, now).unwrap().lost, 3, "a refusal is final");
    queue.waiting(&sinks[0], Signal::Logs).failures = 4_000;
    queue.push(&sinks[0], Signal::Logs, "{}", now);
    queue.waiting(&sinks[0], Signal::Logs).rest_until = Timestamp(0);
    let batch = queue.take(now, ALL).pop().unwrap();
    queue.settle(batch, Settled::Later, now);
    assert!(queue.take(now.after(Millis(29_999)), ALL).is_empty(), "a rest has an end, and a bound");
    assert_eq!(queue.take(now.after(Millis(30_000)), ALL).len(), 1);
}

#[test]
fn what_waits_is_bounded_in_bytes_and_a_dead_sink_leaves_room_for_others() {
    let sinks = sinks(&["eu", "us", "de"]);
    let mut queue = Queue::default();
    let record = format!("\"{}\"", "x".repeat(10_000));
    let fill = |queue: &mut Queue, sink: usize| {
        (0..2_000).filter(|_| queue.push(&sinks[sink], Signal::Logs, &record, NOW)).count() * record.len()
    };
    let eu = fill(&mut queue, 0);
    assert!(eu <= MOST / 2 && eu > MOST / 2 - 3 * record.len(), "{eu}");
    // Under way, its bytes count as before.
    let first = queue.take(NOW, ALL).remove(0);
    assert!(first.body().len() <= MOST_OF_BATCH + 1_000, "{}", first.body().len());
    assert_eq!(fill(&mut queue, 0), 0);
    let us = fill(&mut queue, 1);
    assert!(us >= MOST / 4 - 3 * record.len(), "{us}");
    let traces = queue.push(&sinks[0], Signal::Traces, &record, NOW);
    assert!(traces && fill(&mut queue, 2) > MOST / 16, "a third sink finds room, too");
    assert!(queue.bytes() <= MOST, "{}", queue.bytes());
    let (count, before) = (first.count(), queue.bytes());
    assert_eq!(queue.settle(first, Settled::Later, NOW).unwrap().lost, 0, "{count} records kept their place");
    assert_eq!(queue.bytes(), before);
    assert!(!queue.push(&sinks[0], Signal::Traces, &"x".repeat(MOST), NOW), "a record alone may be too long");
}

#[test]
fn a_sink_has_one_post_under_way_and_waits_for_no_other() {
    let sinks = sinks(&["a", "b", "c"]);
    let mut queue = Queue::default();
    let push = |queue: &mut Queue| {
        for sink in &sinks {
            assert!(queue.push(sink, Signal::Logs, "{}", NOW));
        }
    };
    let names = |due: &[Batch]| due.iter().map(|one| one.sink.id.to_string()).collect::<String>();
    push(&mut queue);
    let mut due = queue.take(NOW, 2);
    assert_eq!(names(&due), "ab", "so many at once");
    push(&mut queue);
    assert_eq!(queue.settle(due.remove(1), Settled::Taken, NOW).unwrap().lost, 0);
    let next = queue.take(NOW, 9);
    assert_eq!(names(&next), "cb", "a is silent still; c had no turn yet");
}

#[test]
fn what_waits_for_a_sink_that_left_the_rules_goes_nowhere() {
    let before = sinks(&["eu", "us"]);
    let mut queue = Queue::default();
    queue.push(&before[0], Signal::Logs, "{}", NOW);
    queue.push(&before[1], Signal::Traces, "{}", NOW);
    let mut moved = before[1].clone();
    moved.rule.otlp = before[0].rule.otlp.clone();
    let dropped = queue.follow(&[before[0].clone(), moved]);
    let us = Dropped { sink: before[1].id.clone(), signal: Signal::Traces, count: 1 };
    assert_eq!(dropped, [us], "the same name elsewhere is another sink");
    let batch = queue.take(NOW, ALL).pop().unwrap();
    queue.push(&before[0], Signal::Logs, "{}", NOW);
    assert_eq!(queue.follow(&[])[0].count, 1, "without sinks nothing waits");
    assert!(queue.is_empty() && !queue.push(&before[0], Signal::Logs, "{}", NOW));
    assert_eq!(queue.settle(batch, Settled::Later, NOW).unwrap().lost, 1, "nor is a post repeated");
    assert_eq!((queue.bytes(), queue.sinks.len()), (0, 0));
}

#[test]
fn what_was_given_up_isnt_counted_again() {
    let sinks = sinks(&["eu"]);
    let mut queue = Queue::default();
    queue.push(&sinks[0], Signal::Traces, "{}", NOW);
    let batch = queue.take(NOW, ALL).pop().unwrap();
    let lost = Dropped { sink: sinks[0].id.clone(), signal: Signal::Traces, count: 1 };
    assert_eq!(queue.give_up(), [lost], "its post was cut short");
    assert_eq!((queue.settle(batch, Settled::Taken, NOW), queue.bytes()), (None, 0), "and ended after all");
    assert!(queue.give_up().iter().all(|one| one.count == 0));
}

#[test]
fn what_is_too_old_is_given_up() {
    let sinks = sinks(&["eu"]);
    let mut queue = Queue::default();
    queue.push(&sinks[0], Signal::Logs, "{}", NOW);
    assert_eq!(queue.expire(now_after(300_000))[0].count, 0);
    assert_eq!(queue.expire(now_after(300_001))[0].count, 1);
    assert!(queue.is_empty() && queue.bytes() == 0);
}

fn now_after(ms: u64) -> Timestamp {
    NOW.after(Millis(ms))
}

#[derive(Clone, Debug)]
enum Step {
    Push(usize, usize),
    Post(Settled),
    Cut,
    Wait(u64),
    Leave(usize),
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    /// Each record is taken once by its own sink, or counted as lost, whatever sinks do.
    #[test]
    fn every_record_is_delivered_or_counted(steps in prop::collection::vec(prop_oneof![
        6 => (0_usize..3, 1_usize..400_000).prop_map(|(sink, size)| Step::Push(sink, size)),
        4 => prop::sample::select(vec![Settled::Taken, Settled::Later, Settled::Refused]).prop_map(Step::Post),
        1 => Just(Step::Cut), 2 => (0_u64..40_000).prop_map(Step::Wait), 1 => (0_usize..3).prop_map(Step::Leave),
    ], 1..80)) {
        let sinks = sinks(&["a", "b", "c"]);
        let (mut queue, mut now) = (Queue::default(), NOW);
        let (mut pushed, mut taken, mut lost) = (0, 0, 0);
        for step in steps.into_iter().chain([Step::Wait(30_000), Step::Post(Settled::Taken)]) {
            match step {
                Step::Push(sink, size) => {
                    let record = format!("\"{}{}\"", sinks[sink].id, "x".repeat(size));
                    pushed += u64::from(queue.push(&sinks[sink], Signal::Logs, &record, now));
                }
                Step::Post(settled) => {
                    for batch in queue.take(now, ALL) {
                        let prefix = format!("\"{}x", batch.sink.id);
                        prop_assert!(batch.records.split(',').all(|record| record.starts_with(&prefix)));
                        let count = batch.count();
                        lost += queue.settle(batch, settled, now).unwrap().lost;
                        taken += if settled == Settled::Taken { count } else { 0 };
                    }
                }
                Step::Cut => {
                    let batches = queue.take(now, ALL);
                    lost += sum(&queue.give_up());
                    prop_assert!(batches.into_iter().all(|one| queue.settle(one, Settled::Taken, now).is_none()));
                }
                Step::Wait(ms) => {
                    now = now.after(Millis(ms));
                    lost += sum(&queue.expire(now));
                }
                Step::Leave(sink) => {
                    let left: Vec<Sink> = sinks.iter().filter(|one| **one != sinks[sink]).cloned().collect();
                    lost += sum(&queue.follow(&left));
                }
            }
            prop_assert!(queue.bytes() <= MOST);
        }
        let waiting: u64 = queue.sinks.iter().flat_map(|one| &one.batches).map(Batch::count).sum();
        prop_assert_eq!(pushed, taken + lost + waiting);
        let bytes: usize = queue.sinks.iter().flat_map(|one| &one.batches).map(Batch::size).sum();
        prop_assert_eq!(queue.bytes(), bytes, "nothing is under way");
    }
}

fn sum(dropped: &[Dropped]) -> u64 {
    dropped.iter().map(|one| one.count).sum()
}
