//! Simulated days of fleets: collapses, losses, moves.

use super::super::{read_scenario, svg};
use super::*;

/// Frankfurt and Paris for the EU, London for the UK alone.
fn table(chat: &str) -> Table {
    let document = r#"{ "version": 1, "revision": 1,
            "jurisdictions": { "eu": { "include": ["EU"] }, "uk": { "countries": ["GB"] } },
            "regions": { "fra": { "countries": ["DE"], "load": { "capacity": 100 } },
                         "lon": { "countries": ["GB"], "load": { "capacity": 1000 } },
                         "par": { "countries": ["FR"], "load": { "capacity": 100 } } },
            "services": { "chat": { "hosts": ["chat.example"], "pattern": "active-active", CHAT
                "regions": ["fra", "lon", "par"],
                "residency": [{ "clients": ["eu"], "process_in": ["eu"] },
                              { "clients": ["uk"], "process_in": ["uk"] }] } } }"#;
    Table::compile(document.replace("CHAT", chat).as_bytes()).unwrap()
}

fn outcome(chat: &str, events: &str, way: Way) -> Outcome {
    let scenario = r#"{ "length": "2h", "night": 1, "clients": 1000, "events": [EVENTS],
                            "demand": { "chat": { "DE": 90, "FR": 20, "GB": 10 } } }"#;
    let table = table(chat);
    let scenario = read_scenario(&table, scenario.replace("EVENTS", events).as_bytes()).unwrap();
    simulate(&table, &scenario, way)
}

const FRANKFURT_DIES: &str = r#"{ "region": "fra", "at": "30m", "for": "30m" }"#;

#[test]
fn nothing_is_lost_while_all_is_up_and_nobody_moves_but_by_load() {
    for way in [Way::Nearest, Way::Health] {
        let reported = outcome("", "", way);
        assert_eq!((reported.refused, reported.moves, reported.turns), (0.0, 0.0, 0), "{way:?}");
        assert!((reported.peak.0 - 0.9).abs() < 1e-6, "{reported:?}");
    }
    let reported = outcome("", "", Way::Load);
    let last = reported.samples.last().unwrap();
    let (fra, lon, par) = (last.loads[0].unwrap(), last.loads[1].unwrap(), last.loads[2].unwrap());
    // Frankfurt's demand is 90 % of its capacity. 70 % plus two thirds of the way to 90 % is 83 %: what is above goes
    // to Paris.
    assert!((fra - 0.833).abs() < 0.01 && (par - 0.267).abs() < 0.01, "{last:?}");
    assert!((lon - 0.01).abs() < 1e-6, "London is no part of the fence: {last:?}");
    assert!(reported.turns == 0 && reported.moves > 0.0, "{reported:?}");
}

#[test]
fn a_dead_region_loses_requests_without_probes_and_overloads_others_without_loads() {
    let (nearest, health, load) = (
        outcome("", FRANKFURT_DIES, Way::Nearest),
        outcome("", FRANKFURT_DIES, Way::Health),
        outcome("", FRANKFURT_DIES, Way::Load),
    );
    // Frankfurt's 90 of 120 requests are lost for a quarter of the time.
    assert!((nearest.refused - 0.1875).abs() < 0.005, "{}", nearest.refused);
    assert!((health.peak.0 - 1.1).abs() < 0.01, "{:?}", health.peak);
    // The rest of the fence has room for 100 of 110 requests, however clients are steered.
    assert!(load.refused < 0.05 && load.refused > 0.01, "{}", load.refused);
    let at = |reported: &Outcome, minutes: u64| {
        reported.samples.iter().find(|one| one.at.0 >= minutes * 60_000).map(|one| one.loads.clone()).unwrap()
    };
    assert_eq!(at(&health, 45)[0], None, "the region is down");
    assert!(at(&load, 61)[0].unwrap() < 0.6, "Frankfurt gets clients back step by step: {:?}", at(&load, 61));
    assert!(at(&health, 61)[0].unwrap() > 0.8, "by health alone everybody comes at once: {:?}", at(&health, 61));
}

#[test]
fn dns_follows_as_ttls_run_out() {
    let at_once = outcome("", FRANKFURT_DIES, Way::Health);
    let by_dns = outcome(r#""shed_at": "dns", "ttl": { "min": 60 },"#, FRANKFURT_DIES, Way::Health);
    assert!(by_dns.refused > at_once.refused, "{} {}", by_dns.refused, at_once.refused);
}

#[test]
fn a_region_that_is_offered_too_much_collapses_and_comes_back() {
    let table = table("");
    let scenario = br#"{ "length": "30m", "night": 1, "demand": { "chat": { "DE": 150 } },
                             "collapse": { "load": 1.3, "after": "1m", "for": "5m" } }"#;
    let scenario = read_scenario(&table, scenario).unwrap();
    let reported = simulate(&table, &scenario, Way::Nearest);
    assert!((4..=5).contains(&reported.collapses), "every six minutes: {}", reported.collapses);
    assert_eq!(simulate(&table, &scenario, Way::Load).collapses, 0, "Paris takes over before Frankfurt collapses");
}

#[test]
fn the_picture_has_a_panel_for_each_way_and_no_name_breaks_it() {
    let table = table("");
    let text = br#"{ "title": "<&\"> \u0000", "length": "1h", "demand": { "chat": { "DE": 5 } } }"#;
    let scenario = read_scenario(&table, text).unwrap();
    let outcomes: Vec<Outcome> = Way::ALL.iter().map(|way| simulate(&table, &scenario, *way)).collect();
    let picture = svg(&table, &scenario, &outcomes);
    assert_eq!(picture.matches("% refused").count(), 3);
    assert!(picture.contains("&lt;&amp;&quot;&gt; </title>") && !picture.contains("NaN"), "{picture}");
    assert!(picture.lines().all(|line| line.len() <= 120), "lines stay short");
    assert_eq!(svg(&table, &scenario, &[]).matches("<path").count(), 0);
}

/// 1,000 regions, 10 million clients of all countries, 24 hours in steps of ten seconds, one region dead at its
/// peak.
#[test]
#[ignore = "measures; run it alone: cargo test --release -p bailiwick-rules a_large_fleet -- --ignored --nocapture"]
fn a_large_fleet_takes_less_than_a_minute() {
    let codes: Vec<CountryCode> = crate::geo::countries().collect();
    let region = |nth: usize| {
        let country = codes[nth % codes.len()];
        format!(r#""r{nth:04}": {{ "countries": ["{country}"], "load": {{ "capacity": {} }} }}"#, 400 + nth % 7 * 100)
    };
    let regions: Vec<String> = (0..1_000).map(region).collect();
    let names: Vec<String> = (0..1_000).map(|nth| format!("\"r{nth:04}\"")).collect();
    let document = format!(
        r#"{{ "version": 1, "revision": 1, "jurisdictions": {{ "eu": {{ "include": ["EU"] }} }},
                  "regions": {{ {} }}, "services": {{ "chat": {{ "hosts": ["chat.example"], "pattern": "active-active",
                  "regions": [{}], "residency": [{{ "clients": ["eu"], "process_in": ["eu"] }},
                                                 {{ "clients": ["*"], "process_in": ["*"] }}] }} }} }}"#,
        regions.join(", "),
        names.join(", ")
    );
    let table = Table::compile(document.as_bytes()).unwrap();
    let demand: Vec<String> = codes.iter().map(|code| format!("\"{code}\": 1800")).collect();
    let scenario = format!(
        r#"{{ "clients": 10000000, "demand": {{ "chat": {{ {} }} }},
                  "events": [{{ "region": "r0055", "at": "15h", "for": "2h" }}] }}"#,
        demand.join(", ")
    );
    let scenario = read_scenario(&table, scenario.as_bytes()).unwrap();
    for way in Way::ALL {
        let begun = std::time::Instant::now();
        let reported = simulate(&table, &scenario, way);
        let taken = begun.elapsed();
        println!("{}: {taken:.1?}, refused {:.4}, moves {:.0}", way.as_str(), reported.refused, reported.moves);
        assert!(taken.as_secs() < 60, "{taken:?}");
    }
}
