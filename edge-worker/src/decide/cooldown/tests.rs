//! Tests of which endpoints rest, for which senders, and for how long.

use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::*;
use crate::decide::plan::tests::{NOW, RULES};

const CHAT: Path = &["chat", "completions"];
const RESPONSES: Path = &["responses"];
const ACME: Sender = Sender(1);
const GLOBE: Sender = Sender(2);

fn key(model: Option<&str>, path: Option<Path>) -> Key {
    let (region, endpoint) = (RegionId::parse("fra").unwrap(), EndpointId::parse("fra-1").unwrap());
    Key { region, endpoint, model: model.map(str::to_owned), path }
}

#[test]
fn a_rest_doubles_up_to_a_minute_and_serving_ends_it() {
    let mut rests = CoolDowns::default();
    let m = || key(Some("m"), None);
    let is = |rests: &CoolDowns, now| rests.is_resting(&m(), ACME, now);
    let mut now = NOW;
    for expected in [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000] {
        rests.rest(m(), ACME, None, now);
        now = Timestamp(now.0 + expected);
        assert!(is(&rests, Timestamp(now.0 - 1)) && !is(&rests, now));
    }
    assert!(!rests.is_resting(&key(Some("other"), None), ACME, NOW));
    rests.rest(m(), ACME, Some(5_000), now);
    let before = Timestamp(now.0 - 3_600_000);
    assert!(!is(&rests, before), "the clock was set back");
    rests.rest(m(), ACME, Some(5_000), before);
    assert!(is(&rests, before) && !is(&rests, Timestamp(before.0 + 5_000)));
    rests.rest(m(), ACME, None, now);
    rests.note_recovery(&key(Some("m"), Some(CHAT)), ACME);
    assert!(!is(&rests, now) && rests.rests.is_empty());
}

#[test]
fn one_source_rests_for_itself_and_several_for_everybody() {
    let mut rests = CoolDowns::default();
    let target = key(Some("m"), Some(CHAT));
    let others = Sender(3);
    let is = |rests: &CoolDowns, sender, after: i64| rests.is_resting(&target, sender, Timestamp(NOW.0 + after));
    for failure in 0..50 {
        rests.rest(key(Some("m"), None), GLOBE, None, Timestamp(NOW.0 + failure));
    }
    assert!(is(&rests, GLOBE, 59_000) && !is(&rests, ACME, 50));
    rests.note_recovery(&target, ACME);
    rests.rest(key(Some("m"), None), ACME, None, Timestamp(NOW.0 + 100));
    assert!(is(&rests, ACME, 100) && !is(&rests, others, 100), "another client was served between the two failures");
    rests.rest(key(Some("m"), None), GLOBE, None, Timestamp(NOW.0 + 200));
    assert!(is(&rests, others, 200), "two clients failed and none was served since");
    rests.note_recovery(&target, others);
    assert!(
        !is(&rests, others, 201) && is(&rests, GLOBE, 201),
        "a served request of one client says nothing of another client's requests"
    );
    rests.note_recovery(&target, ACME);
    rests.rest(key(Some("m"), None), ACME, None, NOW);
    rests.note_recovery(&target, GLOBE);
    rests.rest(key(Some("m"), None), GLOBE, None, Timestamp(NOW.0 + 60_000));
    assert!(!is(&rests, others, 60_000), "a failure of a minute ago is over");
}

#[test]
fn a_path_rests_alone() {
    let mut rests = CoolDowns::default();
    rests.rest(key(Some("m"), Some(RESPONSES)), ACME, None, NOW);
    rests.rest(key(Some("m"), Some(RESPONSES)), GLOBE, None, NOW);
    assert!(rests.is_resting(&key(Some("m"), Some(RESPONSES)), Sender(3), NOW));
    assert!(!rests.is_resting(&key(Some("m"), Some(CHAT)), ACME, NOW));
    assert!(!rests.is_resting(&key(Some("n"), Some(RESPONSES)), ACME, NOW));
    let table = Table::compile(RULES.as_bytes()).unwrap();
    let cooling = |path, sender| rests.local(&table, path, sender, NOW).cooling.len();
    assert_eq!([cooling(Some(RESPONSES), None), cooling(Some(CHAT), Some(ACME)), cooling(None, None)], [1, 0, 0]);
}

#[test]
fn a_wish_is_honoured_up_to_a_minute_and_reaches_steering() {
    let table = Table::compile(RULES.as_bytes()).unwrap();
    let mut rests = CoolDowns::default();
    rests.rest(key(None, None), ACME, Some(3_600_000), NOW);
    rests.rest(Key { region: RegionId::parse("gone").unwrap(), ..key(None, None) }, ACME, None, NOW);
    let local = rests.local(&table, None, Some(ACME), NOW);
    assert_eq!(local.cooling.len(), 1, "a region that the rules no longer have is left out");
    assert_eq!(local.cooling[0].until, Timestamp(NOW.0 + 60_000));
    assert!(rests.is_resting(&key(Some("any"), Some(CHAT)), ACME, NOW));
    assert!(rests.local(&table, None, Some(GLOBE), NOW).cooling.is_empty());
    assert!(rests.local(&table, None, Some(ACME), Timestamp(NOW.0 + 60_000)).cooling.is_empty());
}

#[test]
fn what_is_remembered_is_bounded_and_a_flood_pushes_out_its_own() {
    let mut rests = CoolDowns::default();
    rests.rest(key(Some("theirs"), None), GLOBE, None, NOW);
    for sender in [GLOBE, Sender(3)] {
        rests.rest(key(Some("all"), None), sender, None, NOW);
    }
    for model in 0..5_000 {
        rests.rest(key(Some(&model.to_string()), None), ACME, Some(60_000), NOW);
    }
    assert!(rests.rests.len() <= MAX);
    assert!(rests.is_resting(&key(Some("all"), None), ACME, NOW));
    assert!(rests.is_resting(&key(Some("theirs"), None), GLOBE, NOW));
    for sender in 0..1_000 {
        rests.rest(key(Some("all"), None), Sender(sender), None, NOW);
    }
    assert!(rests.rests.values().all(|rests| rests.by_sender.len() <= MAX_SOURCES));
}

/// The failures of one sender change nothing for other senders, as long as these are served or send nothing.
#[test]
fn a_noisy_source_changes_nothing_for_others() {
    let event = (any::<bool>(), 0..3usize, any::<bool>(), proptest::option::of(0..90_000u64), 0..3_000i64);
    let (cases, own) = (Cell::new(0u32), Cell::new(0u32));
    TestRunner::new(ProptestConfig::with_cases(2_000))
        .run(&proptest::collection::vec(event, 1..60), |events| {
            cases.set(cases.get() + 1);
            let (mut rests, mut now) = (CoolDowns::default(), NOW);
            for (fails, model, by_path, rest, after) in events {
                now = Timestamp(now.0 + after);
                let key = key(Some(["a", "b", "c"][model]), by_path.then_some(CHAT));
                if fails {
                    rests.rest(key.clone(), GLOBE, rest, now);
                } else {
                    rests.note_recovery(&key, ACME);
                }
                prop_assert!(!rests.is_resting(&key, ACME, now) && !rests.is_resting(&key, Sender(9), now));
                own.set(own.get() + u32::from(rests.is_resting(&key, GLOBE, now)));
            }
            Ok(())
        })
        .unwrap();
    println!("noisy senders: {}, rests of their own: {}", cases.get(), own.get());
    assert!(own.get() > 1_000);
}

#[test]
fn headers_that_ask_for_a_rest() {
    let now = Timestamp::parse("1994-11-06T08:49:07Z").unwrap();
    let rest_of = |headers: &[(&str, &str)]| retry_after_ms(&headers.iter().copied().collect(), now);
    assert_eq!(rest_of(&[("retry-after", "7")]), Some(7_000));
    assert_eq!(rest_of(&[("retry-after", "7"), ("retry-after-ms", "120")]), Some(120));
    assert_eq!(rest_of(&[("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")]), Some(30_000));
    assert_eq!(rest_of(&[("retry-after", "Sun, 06 Nov 1994 08:49:00 GMT")]), Some(0));
    for bad in ["-1", "soon", "", "NaN", "inf", "1e9", "Sun, 99 Nov 1994 08:49:37 GMT"] {
        assert_eq!(rest_of(&[("retry-after", bad)]), None, "{bad}");
    }
    let tokens = ("x-ratelimit-reset-tokens", "6m0.5s");
    assert_eq!(rest_of(&[("x-ratelimit-remaining-tokens", "0"), tokens]), Some(360_500));
    assert_eq!(rest_of(&[("x-ratelimit-remaining-tokens", "10"), tokens]), None);
    assert_eq!(rest_of(&[tokens, ("x-ratelimit-reset-requests", "59ms")]), Some(360_500), "the longer wait counts");
    assert_eq!(rest_of(&[tokens, ("retry-after", "2")]), Some(2_000), "the header for waits has priority");
}
