//! Tests of plans in situations that operators meet: a region dies, readings become stale.

use super::*;
use crate::table::{RegionIndex, Table};
use crate::time::{Millis, Timestamp};

const INTERVAL: Millis = Millis(10_000);

/// Regions of one fence (the regions that may process a client), each with a capacity of 100. `demands` are the
/// regions' demands.
fn table(demands: &[u32]) -> Table {
    let countries = ["DE", "FR", "SE", "ES"];
    let region = |(nth, demand): (usize, &u32)| {
        let load = format!(r#"{{ "low": 0.7, "high": 0.9, "demand": {demand} }}"#);
        let endpoints = r#"{ "one": { "url": "https://gpu.example/v1", "capacity": 100 } }"#;
        format!(r#""r{nth}": {{ "countries": ["{}"], "load": {load}, "endpoints": {endpoints} }}"#, countries[nth])
    };
    let names: Vec<String> = (0..demands.len()).map(|nth| format!(r#""r{nth}""#)).collect();
    let regions: Vec<String> = demands.iter().enumerate().map(region).collect();
    let document = format!(
        r#"{{ "version": 1, "revision": 1, "jurisdictions": {{ "eu": {{ "include": ["EU"] }} }},
            "regions": {{ {} }}, "services": {{ "chat": {{ "hosts": ["chat.example"], "pattern": "active-active",
            "regions": [{}], "shed_at": "edge", "slew": "100%/1s",
            "residency": [{{ "clients": ["eu"], "process_in": ["eu"] }}] }} }} }}"#,
        regions.join(", "),
        names.join(", ")
    );
    Table::compile(document.as_bytes()).unwrap_or_else(|faults| panic!("{faults:?}"))
}

/// A region that is up and had `used` requests in flight (in thousandths) at a time.
fn region_input(used: Amount, at: i64) -> RegionInput {
    let reading = Reading { used, at: Timestamp(at) };
    RegionInput { is_up: true, capacity: Some(requests(100)), reading: Some(reading), is_drilled: false }
}

fn planned(table: &Table, classes: &Classes, regions: &[RegionInput], before: Option<&Plan>, at: i64) -> Plan {
    plan(table, classes, &PlanInput { regions, interval: INTERVAL }, before, Timestamp(at))
}

/// The amount that the plan moves to a region.
fn moved_to(classes: &Classes, plan: &Plan, to: usize) -> Amount {
    let moves = (0..classes.list().len()).flat_map(|class| plan.moves(ClassIndex(class)));
    moves.filter(|planned| planned.to == RegionIndex::new(to)).map(|planned| planned.amount).sum()
}

#[test]
fn when_one_of_four_regions_dies_no_other_rises_above_its_low_mark() {
    // The low mark is 70 of 100. At a load of 65 three regions have room for 15 together, at a load of 90 for nothing.
    for (load, room) in [(65, 15), (90, 0)] {
        let table = table(&[load; 4]);
        let classes = Classes::stated(&table);
        for killed in 0..4 {
            let mut regions = vec![region_input(requests(load), 0); 4];
            regions[killed].is_up = false;
            let plan = planned(&table, &classes, &regions, None, 0);
            let others = (0..4).filter(|nth| *nth != killed);
            let received: Vec<Amount> = others.map(|nth| moved_to(&classes, &plan, nth)).collect();
            let most = requests(load).max(requests(70));
            assert!(received.iter().all(|amount| requests(load) + amount <= most), "{killed}: {received:?}");
            let total: Amount = received.iter().sum();
            let least = requests(room) * 4 / 5;
            assert!((least..=requests(room)).contains(&total), "the room isn't used: {received:?}");
        }
    }
}

/// A full region (`r0`) and one with room (`r1`), and the plan after 40 s, made with fresh readings every 10 s.
fn two_regions() -> (Table, Classes, Plan) {
    let table = table(&[95, 20]);
    let classes = Classes::stated(&table);
    let mut before: Option<Plan> = None;
    for at in (0..=40_000).step_by(10_000) {
        let moved = before.as_ref().map_or(0, |plan| moved_to(&classes, plan, 1));
        let regions = [region_input(requests(95) - moved, at), region_input(requests(20) + moved, at)];
        before = Some(planned(&table, &classes, &regions, before.as_ref(), at));
    }
    (table, classes, before.unwrap())
}

#[test]
fn when_all_readings_are_stale_the_shares_stay_for_a_while_and_then_shrink_to_nothing() {
    let (table, classes, mut plan) = two_regions();
    let share = moved_to(&classes, &plan, 1);
    assert!(share > requests(3), "{share}");
    let stale = [region_input(requests(95) - share, 40_000), region_input(requests(20) + share, 40_000)];
    let mut shares = Vec::new();
    for at in (50_000..1_200_000).step_by(10_000) {
        plan = planned(&table, &classes, &stale, Some(&plan), at);
        shares.push(moved_to(&classes, &plan, 1));
    }
    assert!(shares[..2].iter().all(|current| current.abs_diff(share) <= 100), "the share stays at first: {shares:?}");
    assert!(shares.is_sorted_by(|earlier, later| later <= earlier), "the share never grows: {shares:?}");
    assert_eq!(shares.last(), Some(&0), "{shares:?}");
    assert!((0..classes.list().len()).all(|class| plan.left(ClassIndex(class)) == 0), "every client has a region");
}

#[test]
fn a_drilled_region_calls_none_of_its_clients_home_and_takes_no_others() {
    let (table, classes, mut plan) = two_regions();
    let share = moved_to(&classes, &plan, 1);
    // The full region is drilled: nearly nothing is measured there.
    for at in (50_000..600_000).step_by(10_000) {
        let drilled = RegionInput { is_drilled: true, ..region_input(requests(1), at) };
        plan = planned(&table, &classes, &[drilled, region_input(requests(20) + share, at)], Some(&plan), at);
        let now = moved_to(&classes, &plan, 1);
        assert!(now.abs_diff(share) <= 100, "{at}: {now} of {share}");
    }
    // Its clients are back, and it is as full as before.
    let regions = [region_input(requests(95) - share, 600_000), region_input(requests(20) + share, 600_000)];
    plan = planned(&table, &classes, &regions, Some(&plan), 600_000);
    assert!(moved_to(&classes, &plan, 1).abs_diff(share) <= 100);

    // The region with room is drilled: it looks idle, and gets nobody.
    let (table, classes, mut plan) = two_regions();
    for at in (50_000..600_000).step_by(10_000) {
        let drilled = RegionInput { is_drilled: true, ..region_input(requests(1), at) };
        plan = planned(&table, &classes, &[region_input(requests(95), at), drilled], Some(&plan), at);
        assert_eq!(moved_to(&classes, &plan, 1), 0, "{at}");
    }
}

#[test]
fn a_stale_idle_region_gets_no_extra_traffic() {
    let (table, classes, mut plan) = two_regions();
    // The last reading of r1 says that it is idle. As soon as that reading is stale, no more clients move to r1,
    // however full r0 becomes.
    let idle = region_input(requests(1), 40_000);
    let mut most = Amount::MAX;
    for (nth, at) in (50_000..1_200_000).step_by(10_000).enumerate() {
        let full = region_input(requests(90 + 5 * u32::try_from(nth).unwrap()), at);
        plan = planned(&table, &classes, &[full, idle], Some(&plan), at);
        // The reading is fresh for two intervals.
        if at > 60_000 {
            let share = moved_to(&classes, &plan, 1);
            assert!(share <= most, "at {at}: {share} after {most}");
            most = share;
        }
    }
    assert_eq!(most, 0);
}
