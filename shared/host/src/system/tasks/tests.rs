//! Tests with tasks that stall, panic and are started again.

use std::cell::Cell;

use super::*;

#[test]
fn a_task_without_a_turn_for_longer_than_its_patience_is_named() {
    let tasks = Tasks::default();
    let owner = tasks.beating("owner", true, Duration::from_secs(20));
    tasks.waiting("tcp 127.0.0.1:53");
    owner.beat();
    assert_eq!(tasks.troubles(), []);
    let late = tasks.troubles_after(Duration::from_secs(31));
    assert_eq!(late.len(), 1, "a task that may wait for ever is never late: {late:?}");
    assert!(late[0].is_vital && late[0].to_string().starts_with("owner: no turn for 3"), "{late:?}");
}

#[test]
fn a_task_that_is_down_is_named_until_it_is_back() {
    let tasks = Tasks::default();
    let pulse = tasks.waiting("api");
    pulse.panicked();
    pulse.set_down(true);
    assert_eq!(tasks.vital_troubles()[0].to_string(), "api: is down");
    let health = tasks.health();
    assert_eq!((health[0].is_in_trouble, health[0].panics), (true, 1));
    pulse.set_down(false);
    assert_eq!(tasks.troubles(), []);
}

#[test]
fn pauses_grow_to_a_bound_and_begin_small_again() {
    let mut backoff = Backoff::default();
    let pauses: Vec<Duration> = (0..12).map(|_| backoff.next_pause()).collect();
    assert!(pauses.is_sorted() && pauses[0] == FIRST_PAUSE && pauses[11] == LONGEST_PAUSE, "{pauses:?}");
    backoff.reset();
    assert_eq!(backoff.next_pause(), FIRST_PAUSE);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_panics_or_fails_is_made_again_until_it_ends_as_told() {
    let tasks = Tasks::default();
    let (pulse, made) = (tasks.waiting("task"), Cell::new(0));
    supervise(pulse, || {
        made.set(made.get() + 1);
        let number = made.get();
        async move {
            assert!(number != 1, "a panic, for the test");
            if number == 2 { Ended::Failed } else { Ended::OnRequest }
        }
    })
    .await;
    assert_eq!((made.get(), tasks.health()[0].panics), (3, 2));
    assert_eq!(tasks.troubles(), []);
}
