//! Tests of which of several rules documents an isolate uses, and for how long.

use bailiwick_rules::turns::{Turns, at_once};

use super::*;

const MAX_AGE: Millis = Millis(15_000);

fn rules_with(revision: u64, region: &str, more: serde_json::Value) -> Vec<u8> {
    let mut rules = serde_json::json!({
        "version": 1, "revision": revision,
        "regions": { region: { "countries": ["DE"] } },
        "services": { "chat": { "hosts": ["chat.example"], "pattern": "active-active", "regions": [region],
                                "residency": [{ "clients": ["*"], "process_in": ["*"] }] } },
    });
    rules["rules"] = more;
    rules.to_string().into_bytes()
}

fn rules(revision: u64, region: &str) -> Vec<u8> {
    rules_with(revision, region, serde_json::json!({}))
}

/// A state with two URLs as primary sources, and KV as the fallback.
fn two_urls_and_kv() -> RulesState {
    let mut state = RulesState::default();
    state.arrange(3, 2, Timestamp(0));
    state
}

fn offer(state: &mut RulesState, source: usize, bytes: &[u8]) -> OfferOutcome {
    offer_at(state, source, bytes, Some("\"tag\""), 0)
}

/// Does what `runtime::feed` does with a document.
fn offer_at(state: &mut RulesState, source: usize, bytes: &[u8], etag: Option<&str>, now: i64) -> OfferOutcome {
    let sha256 = at_once(Revision::digest_in_turns(bytes, &mut Turns::unbroken()));
    state.look_at(source, sha256, etag, Timestamp(now)).unwrap_or_else(|| {
        state.offer(source, sha256, Table::compile_quietly(bytes), etag.map(str::to_owned), Timestamp(now))
    })
}

fn revision(state: &RulesState) -> Option<u64> {
    state.table().map(|table| table.revision().number)
}

#[test]
fn a_newer_document_is_taken_an_older_one_ignored() {
    let mut state = two_urls_and_kv();
    assert!(matches!(offer(&mut state, 0, &rules(7, "fra")), OfferOutcome::Taken(_)));
    assert!(matches!(offer(&mut state, 0, &rules(7, "fra")), OfferOutcome::Known));
    assert!(matches!(offer(&mut state, 0, &rules(6, "ams")), OfferOutcome::Known));
    assert_eq!((revision(&state), state.trouble()), (Some(7), None));
    assert!(
        matches!(offer(&mut state, 1, &rules(8, "ams")), OfferOutcome::Taken(_)),
        "the newest document of all sources is used"
    );
    assert_eq!(revision(&state), Some(8));
}

#[test]
fn a_bad_document_keeps_the_last_good_one_and_is_reported_once() {
    let mut state = two_urls_and_kv();
    offer(&mut state, 0, &rules(7, "fra"));
    assert_eq!(state.etag(0), Some("\"tag\""));
    let bad = br#"{"version": 1, "revision": 8, "regoins": {}}"#;
    let OfferOutcome::Refused(RefusalReason::Invalid, violations) = offer(&mut state, 0, bad) else { panic!("taken") };
    assert_eq!(violations.len(), 1);
    assert!(matches!(offer(&mut state, 0, bad), OfferOutcome::RefusedBefore));
    assert_eq!(state.etag(0), None, "the document is offered again, because it may no longer be in conflict");
    assert_eq!((revision(&state), state.trouble()), (Some(7), Some("invalid")));
    assert!(matches!(offer(&mut state, 0, &rules(7, "ams")), OfferOutcome::Refused(RefusalReason::Conflict, _)));
    assert_eq!((revision(&state), state.trouble()), (Some(7), Some("conflict")));
    offer(&mut state, 0, &rules(7, "fra"));
    assert_eq!(state.trouble(), None, "the feed has the current rules again");
}

#[test]
fn a_conflict_between_sources_is_reported_until_newer_rules_arrive() {
    let mut state = two_urls_and_kv();
    offer(&mut state, 0, &rules(7, "fra"));
    assert!(matches!(offer(&mut state, 1, &rules(7, "ams")), OfferOutcome::Refused(RefusalReason::Conflict, _)));
    assert!(matches!(offer(&mut state, 0, &rules(7, "fra")), OfferOutcome::Known));
    assert_eq!(state.trouble(), Some("conflict"));
    offer(&mut state, 0, &rules(8, "fra"));
    assert_eq!(state.trouble(), None);
    assert!(
        matches!(offer(&mut state, 1, &rules(7, "ams")), OfferOutcome::Known),
        "the document doesn't conflict any more, it is only old"
    );
}

#[test]
fn unreachable_sources_are_told_once_each_and_forgotten_when_they_answer() {
    let mut state = RulesState::bundled(&rules(3, "fra"));
    state.arrange(2, 2, Timestamp(0));
    let mut unread = |source, why| (state.note_unread(source, why, Timestamp(0)), state.trouble());
    assert_eq!(unread(0, ReadError::Refused), (true, None), "the other source may still answer");
    assert_eq!(unread(1, ReadError::Timeout), (true, Some("unreachable")));
    assert!(!unread(1, ReadError::Timeout).0);
    assert!(unread(1, ReadError::Tls).0, "another reason is reported again");
    assert_eq!(state.answering(), (0, 2));
    state.note_unmodified(1, Timestamp(0));
    assert_eq!((revision(&state), state.trouble(), state.answering()), (Some(3), None, (1, 2)));
}

#[test]
fn rules_age_from_when_a_source_last_had_them() {
    let mut state = two_urls_and_kv();
    let age = |state: &RulesState, now| state.age(Timestamp(now), MAX_AGE);
    offer(&mut state, 0, &rules(7, "fra"));
    assert_eq!((age(&state, 14_999), age(&state, 15_000)), (Age::Fresh, Age::Stale(MAX_AGE)));
    let hour = 3_600_000;
    assert_eq!(age(&state, hour), Age::Stale(Millis(3_600_000)));
    assert_eq!(age(&state, hour + 1), Age::TooOld(Millis(3_600_001)));

    state.note_unread(0, ReadError::Timeout, Timestamp(20_000));
    offer_at(&mut state, 0, b"<html>", None, 20_000);
    offer_at(&mut state, 1, &rules(7, "ams"), None, 20_000);
    offer_at(&mut state, 2, &rules(6, "fra"), None, 20_000);
    assert_eq!(
        state.since_confirmed(Timestamp(20_000)),
        Some(Millis(20_000)),
        "none of these answers confirms the rules"
    );
    offer_at(&mut state, 2, &rules(7, "fra"), None, 20_000);
    assert_eq!(age(&state, 20_000), Age::Fresh, "KV has the current document");
    offer_at(&mut state, 1, &rules(6, "fra"), None, 40_000);
    assert_eq!(age(&state, 40_000), Age::Fresh, "a node with older rules confirms that there are no newer ones");
    state.note_unmodified(0, Timestamp(60_000));
    assert_eq!(age(&state, 60_000), Age::Fresh);
}

#[test]
fn the_document_decides_how_long_it_may_be_used_unconfirmed() {
    let mut state = two_urls_and_kv();
    offer(&mut state, 0, &rules_with(7, "fra", serde_json::json!({ "stale_for": "0s" })));
    let age = |now| state.age(Timestamp(now), MAX_AGE);
    assert_eq!((age(14_999), age(15_000)), (Age::Fresh, Age::TooOld(MAX_AGE)));
}

#[test]
fn old_rules_are_told_of_at_once_and_every_minute() {
    let mut state = two_urls_and_kv();
    let mut reported = |age, now| state.should_log_age(age, Timestamp(now));
    let stale = Age::Stale(MAX_AGE);
    assert_eq!(
        [reported(Age::Fresh, 0), reported(stale, 1), reported(stale, 2), reported(stale, 60_001)],
        [false, true, false, true]
    );
    assert_eq!([reported(Age::Fresh, 60_002), reported(stale, 60_003)], [false, true]);
}

#[test]
fn the_document_shipped_compiles_and_stands_in_nobodys_way() {
    let shipped = include_bytes!("../../../rules.json");
    assert!(Table::compile(shipped).is_ok());
    let mut state = RulesState::bundled(shipped);
    state.arrange(1, 1, Timestamp(0));
    assert_eq!(revision(&state), None);
    assert!(matches!(offer(&mut state, 0, &rules(1, "fra")), OfferOutcome::Taken(_)));
    let mut own = RulesState::bundled(&rules(5, "fra"));
    own.arrange(1, 1, Timestamp(0));
    assert!(
        matches!(offer(&mut own, 0, &rules(4, "ams")), OfferOutcome::Known),
        "a bundled document counts like any other"
    );
}

#[test]
fn rules_built_in_hold_while_kv_has_none_and_never_age_without_a_source() {
    let mut state = RulesState::bundled(&rules(5, "fra"));
    assert_eq!(state.age(Timestamp(i64::MAX), MAX_AGE), Age::Fresh);
    state.arrange(1, 1, Timestamp(0));
    assert!(!state.note_unread(0, ReadError::NoKey, Timestamp(9_000_000)), "a missing key isn't reported");
    assert_eq!((state.age(Timestamp(9_000_000), MAX_AGE), state.trouble()), (Age::Fresh, None));
    offer(&mut state, 0, &rules(6, "fra"));
    state.note_unread(0, ReadError::NoKey, Timestamp(9_000_000));
    assert_eq!(
        state.age(Timestamp(9_000_000), MAX_AGE),
        Age::TooOld(Millis(9_000_000)),
        "KV had rules, so its missing key confirms nothing"
    );
}
