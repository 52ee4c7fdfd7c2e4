//! Tests of endpoints whose quotas don't allow a request.

use bailiwick_rules::quota::Refusal;
use bailiwick_rules::time::Millis;

use super::*;
use crate::decide::envelope::Limited;
use crate::decide::plan::Skip;

/// Begins a run. `refusals` says for each endpoint of the plan why its quota doesn't allow the request.
fn begin(refusals: [Option<Refusal>; 4]) -> (Driver, Vec<Action>) {
    let task = chat_task(german_plan(), Expect::Json, Limits::default());
    let mut driver = Driver { run: Run::new(task), budget: Budget::new(0), now: 1_000 };
    driver.withhold(refusals);
    let actions = driver.step(Event::Start);
    (driver, actions)
}

impl Driver {
    fn withhold(&mut self, refusals: [Option<Refusal>; 4]) {
        let mut refusals = refusals.into_iter();
        self.run.withhold(|_| refusals.next().flatten());
    }
}

fn wait(ms: u64) -> Option<Refusal> {
    Some(Refusal::Wait(Millis(ms)))
}

#[test]
fn the_next_endpoint_of_the_fence_serves_while_a_quota_is_used_up() {
    let (mut driver, actions) = begin([wait(5_000), None, None, None]);
    assert!(matches!(actions[0], Action::Send { attempt: 1, target: 1 }), "{actions:?}");
    let skipped = &driver.run.record().skipped;
    assert_eq!(skipped.iter().map(|skipped| skipped.why).collect::<Vec<_>>(), [Skip::Quota]);
    // The first endpoint's quota allows the request again when the next attempt begins.
    driver.withhold([None, wait(1), None, None]);
    let actions = driver.headers(500, "");
    assert!(actions.contains(&Action::Send { attempt: 2, target: 0 }), "{actions:?}");
    assert_eq!(driver.run.record().skipped.len(), 1, "the endpoint is recorded once");
}

#[test]
fn if_no_quota_allows_a_request_the_client_gets_the_shortest_wait() {
    let (driver, actions) = begin([wait(9_000), wait(1_500), Some(Refusal::TooLarge), wait(60_000)]);
    assert_eq!(actions, [Action::Reply { failure: Failure::Limited(Limited::Quota { wait_ms: 1_500 }) }]);
    assert!(driver.run.is_done() && driver.run.record().attempts.is_empty());
    let (_, actions) = begin([Some(Refusal::TooLarge); 4]);
    assert_eq!(actions, [Action::Reply { failure: Failure::Limited(Limited::TooLarge) }]);
}

#[test]
fn after_a_refusal_that_closes_a_quota_the_client_gets_the_wait_of_the_quota() {
    let (mut driver, _) = begin([None, wait(9_000), wait(9_000), wait(9_000)]);
    driver.withhold([wait(4_000), wait(9_000), wait(9_000), wait(9_000)]);
    driver.step(Event::Headers { attempt: 1, status: 429, content_type: None, packed: false, retry_after_ms: None });
    let [.., Action::Reply { failure }] = &driver.eof()[..] else { panic!("no answer") };
    assert_eq!(*failure, Failure::Limited(Limited::Quota { wait_ms: 4_000 }));
}

#[test]
fn the_only_endpoint_is_not_asked_again_if_its_quota_forbids_it() {
    let only_first = [None, wait(9_000), wait(9_000), wait(9_000)];
    let (mut driver, _) = begin(only_first);
    driver.withhold([wait(2_000), wait(9_000), wait(9_000), wait(9_000)]);
    let actions = driver.headers(503, "");
    let [.., Action::Reply { failure }] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(*failure, Failure::EndpointsFailed { retry_after: Some(2), needs_operator: false });

    let (mut driver, _) = begin(only_first);
    driver.withhold(only_first);
    let status = |ms| Event::Headers { attempt: 1, status: 503, content_type: None, packed: false, retry_after_ms: ms };
    assert!(driver.step(status(Some(1_000))).contains(&Action::SetTimer { attempt: 1, after_ms: 1_000 }), "a pause");
    driver.withhold([wait(2_000), wait(9_000), wait(9_000), wait(9_000)]);
    let actions = driver.timer(1_000);
    assert!(matches!(actions[..], [Action::Reply { .. }]), "{actions:?}");
}

/// Quotas may change between two events. Nothing is sent to an endpoint whose quota doesn't allow the request. If the
/// client is told to wait, the wait is that of an endpoint's quota.
#[test]
fn nothing_is_sent_to_an_endpoint_that_its_quota_withholds() {
    let refusal = prop_oneof![Just(None), (1..90_000u64).prop_map(wait), Just(Some(Refusal::TooLarge))];
    let steps = proptest::collection::vec((proptest::array::uniform4(refusal), 0..5usize), 1..7);
    let sent = Cell::new(0);
    TestRunner::new(ProptestConfig::with_cases(20_000))
        .run(&steps, |steps| {
            let task = chat_task(german_plan(), Expect::Json, Limits::default());
            let mut driver = Driver { run: Run::new(task), budget: Budget::new(0), now: 1_000 };
            let mut steps = steps.into_iter();
            let mut event = Some(Event::Start);
            while let (Some(next), Some((refusals, kind))) = (event.take(), steps.next()) {
                driver.withhold(refusals);
                let actions = driver.step(next);
                for action in &actions {
                    match action {
                        Action::Send { target, .. } => {
                            sent.set(sent.get() + 1);
                            prop_assert!(refusals[*target].is_none(), "{target} is withheld: {actions:?}");
                        }
                        Action::Reply { failure: Failure::Limited(Limited::Quota { wait_ms }) } => {
                            prop_assert!(
                                refusals.contains(&wait(*wait_ms)),
                                "no refusal of {refusals:?} has the wait {wait_ms}"
                            );
                        }
                        _ => {}
                    }
                }
                let attempt = driver.attempt();
                let status = [429, 500, 503, 401, 404][kind];
                let headers =
                    Event::Headers { attempt, status, content_type: None, packed: false, retry_after_ms: None };
                event =
                    (!driver.run.is_done()).then_some(if kind == 4 { Event::FetchError { attempt } } else { headers });
            }
            Ok(())
        })
        .unwrap();
    println!("attempts sent: {}", sent.get());
    assert!(sent.get() > 20_000);
}
