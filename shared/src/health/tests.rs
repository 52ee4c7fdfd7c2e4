//! Tests that statuses follow from results, don't flap, become stale, and can be forced.

use proptest::prelude::*;

use super::*;

const NOW: Timestamp = Timestamp(1_000_000);

fn after(results: &[bool]) -> AntiFlap {
    let mut machine = AntiFlap::new(Thresholds { up: 3, ok: 5, down: 3 });
    for &result in results {
        machine.record(result);
    }
    machine
}

fn monitored(results: &[bool]) -> MonitorState {
    MonitorState { machine: after(results), interval: Millis(1000), last_result: Some(NOW) }
}

const UP: &[bool] = &[true];
const DOWN: &[bool] = &[false];

#[test]
fn the_first_result_decides() {
    assert_eq!(after(&[]).status(), Status::Unknown);
    assert_eq!(after(UP).status(), Status::Up);
    assert_eq!(after(DOWN).status(), Status::Down);
}

#[test]
fn a_doubtful_failure_never_decides_alone() {
    let mut machine = after(&[]);
    machine.record_doubtful_failure();
    machine.record_doubtful_failure();
    assert_eq!(machine.status(), Status::Unknown);
    let mut well = machine.clone();
    well.record(true);
    well.record_doubtful_failure();
    assert_eq!((well.status(), well.missing(Status::Down)), (Status::Up, 2), "earlier doubts are forgotten");
    machine.record_doubtful_failure();
    assert_eq!(machine.status(), Status::Down);
}

#[test]
fn down_needs_successes_in_a_row() {
    assert_eq!(after(&[false, true, true, false, true, true]).status(), Status::Down);
    assert_eq!(after(&[false, true, true, false, true, true, true]).status(), Status::Up);
}

#[test]
fn up_counts_failures_that_are_not_in_a_row_until_enough_successes() {
    assert_eq!(after(&[true, false, true, true, true, true, false, false]).status(), Status::Down);
    assert_eq!(after(&[true, false, true, true, true, true, true, false, false]).status(), Status::Up);
}

#[test]
fn a_region_is_down_by_its_monitor_or_by_all_its_endpoints() {
    let (up, down, unheard) = (monitored(UP), monitored(DOWN), monitored(&[]));
    let probed = |region: Option<&MonitorState>, endpoints: &[Option<&MonitorState>]| {
        RegionHealth::of(region, endpoints, NOW).probed
    };
    assert_eq!(probed(None, &[]), Status::Unknown);
    assert_eq!(probed(Some(&down), &[Some(&up)]), Status::Down);
    assert_eq!(probed(None, &[Some(&down), Some(&down)]), Status::Down);
    assert_eq!(probed(Some(&up), &[Some(&down), Some(&down)]), Status::Down);
    assert_eq!(probed(None, &[Some(&down), Some(&up)]), Status::Up);
    assert_eq!(probed(None, &[Some(&down), None]), Status::Unknown, "an endpoint without a monitor may serve");
    assert_eq!(probed(None, &[Some(&down), Some(&unheard)]), Status::Unknown);
    assert_eq!(probed(Some(&up), &[Some(&down), None]), Status::Up);
}

#[test]
fn an_endpoint_that_is_forced_counts_as_what_it_is_forced_to_be() {
    let (up, down) = (monitored(UP), monitored(DOWN));
    let of = |endpoints: &[Option<&MonitorState>], forced: &[Option<Status>]| {
        let read = |monitor: &Option<&MonitorState>| monitor.map(|monitor| monitor.reading(NOW));
        RegionHealth::with_forced(None, &endpoints.iter().map(read).collect::<Vec<_>>(), forced)
    };
    let (force_up, force_down) = (Some(Status::Up), Some(Status::Down));
    assert_eq!(of(&[Some(&down), Some(&up)], &[None, force_down]).probed, Status::Down);
    assert_eq!(of(&[Some(&down), None], &[None, force_down]).probed, Status::Down);
    assert_eq!(of(&[None, None], &[force_down]).probed, Status::Unknown, "the other endpoint may serve");
    assert_eq!(of(&[None, None], &[force_down, force_down]).probed, Status::Down);
    assert_eq!(of(&[Some(&down), Some(&down)], &[force_up]).probed, Status::Up);
    assert_eq!(of(&[Some(&down)], &[force_up]).time_to_up, None, "probes don't matter for a forced endpoint");
    assert_eq!(
        of(&[Some(&up), Some(&up)], &[force_down]).endpoints,
        [Status::Up, Status::Up],
        "the statuses of the probes"
    );
    assert_eq!(of(&[Some(&up), Some(&up)], &[force_down]).time_to_down, Some(Millis(3000)));
}

#[test]
fn times_to_change_follow_the_deciding_monitors() {
    let (up, down) = (monitored(UP), monitored(DOWN));
    let two_up = RegionHealth::of(None, &[Some(&up), Some(&monitored(&[true, false]))], NOW);
    assert_eq!(two_up.time_to_down, Some(Millis(3000)), "the last endpoint to go down decides");
    let monitored_too = RegionHealth::of(Some(&monitored(&[true, false, false])), &[Some(&up)], NOW);
    assert_eq!(monitored_too.time_to_down, Some(Millis(1000)), "the monitor alone can bring the region down");
    let both_down = RegionHealth::of(None, &[Some(&down), Some(&monitored(&[false, true, true]))], NOW);
    assert_eq!(both_down.time_to_up, Some(Millis(1000)), "one endpoint is enough");
    assert_eq!(RegionHealth::of(None, &[Some(&up), None], NOW).time_to_down, None);
}

#[test]
fn two_readings_make_one_that_needs_either_or_both() {
    let (up, down, unheard) = (monitored(UP).reading(NOW), monitored(DOWN).reading(NOW), monitored(&[]).reading(NOW));
    assert_eq!(up.either(down).status, Status::Up);
    assert_eq!(down.either(down).status, Status::Down);
    assert_eq!(down.either(unheard).status, Status::Unknown, "the other endpoint may serve");
    assert_eq!(up.both(down).status, Status::Down);
    assert_eq!(up.both(unheard).status, Status::Unknown);
    assert_eq!(up.both(up).status, Status::Up);
    let falling = monitored(&[true, false, false]).reading(NOW);
    assert_eq!(up.either(falling).to_down, Millis(3000), "the last to go down decides");
    assert_eq!(up.both(falling).to_down, Millis(1000), "the first to go down decides");
    let rising = monitored(&[false, true, true]).reading(NOW);
    assert_eq!(down.either(rising).to_up, Millis(1000));
    assert_eq!(down.both(rising).to_up, Millis(3000));
    let stale = monitored(UP).reading(NOW.after(Millis(3001)));
    assert!(up.either(stale).stale && stale.both(up).stale && !up.either(up).stale);
}

#[test]
fn silence_for_three_intervals_is_stale() {
    let monitor = monitored(UP);
    assert!(!monitor.is_stale(NOW.after(Millis(3000))));
    assert!(monitor.is_stale(NOW.after(Millis(3001))));
    assert!(!monitored(&[]).is_stale(NOW) && monitor.machine.status() == Status::Up);
}

proptest! {
    /// `missing` is exact: that many results of the right kind change the status, one fewer doesn't.
    #[test]
    fn missing_is_exact(
        (up, ok, down) in (1..6u32, 1..6u32, 1..6u32),
        results in proptest::collection::vec(any::<bool>(), 1..40),
    ) {
        let mut machine = AntiFlap::new(Thresholds { up, ok, down });
        for result in results {
            machine.record(result);
        }
        let wanted = if machine.status() == Status::Up { Status::Down } else { Status::Up };
        let missing = machine.missing(wanted);
        prop_assert!(missing >= 1);
        prop_assert_eq!(machine.missing(machine.status()), 0);
        for left in (1..=missing).rev() {
            prop_assert_eq!(machine.missing(wanted), left);
            prop_assert_ne!(machine.status(), wanted);
            machine.record(wanted == Status::Up);
        }
        prop_assert_eq!(machine.status(), wanted);
    }
}
