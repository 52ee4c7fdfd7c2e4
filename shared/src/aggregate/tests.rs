//! What is told, and what attackers learn of it who know the algorithm and every number.

mod attackers;

use serde_json::{Value, json};

use super::*;
use crate::id::{RegionId, ServiceId};
use crate::time::Millis;

/// A cell: service, region, clients, model, and requests by outcome.
type Place<'a> = (&'a str, &'a str, &'a str, &'a str, &'a [(&'a str, u64)]);

/// A window with these requests: service, region, clients, model, and requests by outcome.
fn window(cells: &[Place<'_>]) -> Window {
    let cells = cells.iter().map(|(service, region, clients, model, requests)| {
        let key = CellKey {
            service: ServiceId::parse(service).unwrap(),
            region: RegionId::parse(region),
            clients: (*clients).to_owned(),
            model: (!model.is_empty()).then(|| (*model).to_owned()),
        };
        let mut cell = Cell::default();
        for (word, count) in *requests {
            cell.requests[OUTCOMES.iter().position(|known| known == word).unwrap()] = *count;
        }
        cell.total[10] = cell.count();
        (key, cell)
    });
    Window { number: 29_935_080, every: Millis(60_000), is_whole: true, cells: cells.collect(), ..Window::default() }
}

/// What is told without any interval before.
fn tell(window: &Window, min_count: u32) -> Told {
    super::tell(window, min_count, &Told::default())
}

fn lines(told: &Told) -> Vec<String> {
    let word = |label: &Label| match label {
        Label::Named(name) => name.clone(),
        Label::Absent => "-".to_owned(),
        Label::Other => "*".to_owned(),
    };
    let line = |group: &Group| {
        let names: Vec<String> = group.labels.iter().map(word).collect();
        let counts: Vec<String> =
            group.outcomes.iter().map(|(label, count)| format!("{}={count}", word(label))).collect();
        format!("{} {}", names.join("/"), counts.join(" "))
    };
    told.groups.iter().map(line).collect()
}

#[test]
fn what_is_large_enough_is_told_as_it_is() {
    let told = tell(&window(&[("chat", "fra", "eu", "llama", &[("ok", 40), ("client_gone", 20)])]), 20);
    assert_eq!(lines(&told), ["chat/fra/eu/llama ok=40 client_gone=20"]);
    assert_eq!((told.folded, told.withheld), (0, 0));
    assert_eq!(told.groups[0].total.unwrap()[10], 60);
}

#[test]
fn small_cells_go_to_other_with_one_of_those_beside_them() {
    let told = tell(
        &window(&[
            ("chat", "fra", "eu", "llama", &[("ok", 100)]),
            ("chat", "fra", "uk", "llama", &[("ok", 30)]),
            ("chat", "fra", "us", "llama", &[("ok", 3)]),
            ("chat", "lon", "uk", "llama", &[("ok", 50), ("denied", 2)]),
        ]),
        20,
    );
    // 3 of `us` alone would be too few; 2 that were denied are told with those that were not.
    assert_eq!(lines(&told), ["chat/lon/uk/llama *=52", "chat/fra/*/* ok=103", "chat/fra/uk/llama ok=30"]);
    assert_eq!((told.folded, told.withheld), (103, 0));
}

#[test]
fn what_was_smaller_before_is_added_to_other_whatever_is_smaller_now() {
    let at = |eu, uk, us| {
        let requests = |count| [("ok", count)];
        let (eu, uk, us) = (requests(eu), requests(uk), requests(us));
        window(&[("a", "r", "eu", "", &eu), ("a", "r", "uk", "", &uk), ("a", "r", "us", "", &us)])
    };
    let before = tell(&at(100, 30, 50), 20);
    assert_eq!(lines(&super::tell(&at(100, 30, 3), 20, &before)), ["a/r/*/* ok=33", "a/r/eu/- ok=100"]);
    assert_eq!(lines(&super::tell(&at(30, 100, 3), 20, &before)), ["a/r/*/* ok=103", "a/r/eu/- ok=30"]);
    // Groups that are all as large as small ones can be would be known by their sum.
    assert_eq!(lines(&super::tell(&at(19, 40, 19), 20, &before)), ["a/r/*/* ok=78"]);
    assert_eq!(lines(&super::tell(&at(18, 40, 19), 20, &before)), ["a/r/*/* ok=37", "a/r/uk/- ok=40"]);
}

#[test]
fn too_few_in_all_are_not_told_and_nothing_is_lost_otherwise() {
    let few = window(&[("chat", "fra", "eu", "", &[("ok", 19)])]);
    assert_eq!(tell(&few, 20), Told { withheld: 19, ..Told::default() });
    assert_eq!(tell(&few, 19).groups.len(), 1);
    assert_eq!(tell(&window(&[]), 20), Told::default());
    let spread: Vec<(String, u64)> = (0..40).map(|nth| (format!("r{nth}"), nth % 7)).collect();
    let mut all = window(&[]);
    for (region, count) in &spread {
        all.cells.extend(window(&[("chat", region, "eu", "m", &[("ok", *count)])]).cells);
    }
    assert_eq!(lines(&tell(&all, 20)), [format!("chat/*/*/* ok={}", all.count())]);
}

#[test]
fn times_are_told_by_bounds_that_enough_requests_lie_between() {
    let mut times = [0; BUCKETS];
    (times[3], times[4], times[5], times[9], times[20]) = (5, 18, 40, 30, 3);
    let part = |of: &'static [u64]| Part { of, min: 20 };
    let mut told = [0; BUCKETS];
    (told[4], told[5], told[9]) = (23, 40, 33);
    assert_eq!(split(&times, &part(&[96])), Some(told));
    // Three requests more have no such time, which must not be known; twenty more may.
    assert_eq!(split(&times, &part(&[99])), None);
    assert_eq!(split(&times, &part(&[116])), Some(told));
    assert_eq!(split(&times, &part(&[116, 97])), None);
    // A Worker that counts nonsense.
    assert_eq!(split(&times, &part(&[95])), None);
    times = [0; BUCKETS];
    times[2] = 19;
    assert_eq!(split(&times, &part(&[40])), None);
}

#[test]
fn the_number_of_groups_is_bounded() {
    let mut all = window(&[]);
    for nth in 0..3_000 {
        all.cells.extend(window(&[("chat", &format!("r{nth}"), "eu", "m", &[("ok", 20 + nth)])]).cells);
    }
    let told = tell(&all, 20);
    assert!(told.groups.len() <= MAX_GROUPS && told.groups.len() > 300, "{}", told.groups.len());
    let sum: u64 = told.groups.iter().flat_map(|group| &group.outcomes).map(|(_, count)| count).sum();
    assert_eq!(sum, all.count());
}

#[test]
fn a_request_is_otlp_of_one_interval() {
    let window = window(&[("chat", "", "eu", "", &[("denied", 40)]), ("chat", "fra", "uk", "m", &[("ok", 25)])]);
    let body = request(&window, &tell(&window, 20), "1.2.3");
    let scope = &body["resourceMetrics"][0]["scopeMetrics"][0];
    let metric = |name: &str| -> &Value {
        scope["metrics"].as_array().unwrap().iter().find(|metric| metric["name"] == name).unwrap()
    };
    let requests = &metric("bailiwick.requests")["sum"];
    assert_eq!((&requests["aggregationTemporality"], &requests["isMonotonic"]), (&json!(1), &json!(true)));
    let point = requests["dataPoints"].as_array().unwrap().iter().find(|point| point["asInt"] == "40").unwrap();
    let attribute = |name: &str, value: &str| json!({ "key": name, "value": { "stringValue": value } });
    let expected = [attribute("service", "chat"), attribute("clients", "eu"), attribute("outcome", "denied")];
    assert_eq!(point["attributes"], json!(expected));
    assert_eq!(point["startTimeUnixNano"], (29_935_080_u64 * 60_000_000_000).to_string());
    assert_eq!(point["timeUnixNano"], (29_935_081_u64 * 60_000_000_000).to_string());
    let times = &metric("bailiwick.request.duration")["histogram"]["dataPoints"][1];
    assert_eq!((times["bucketCounts"].as_array().unwrap().len(), &times["count"]), (BUCKETS, &json!("25")));
    assert_eq!(times["explicitBounds"].as_array().unwrap().len(), BUCKETS - 1);
    assert!(times.get("sum").is_none() && times.get("exemplars").is_none());
    // Nothing is told of tokens: how many answers have any isn't known. Nobody streamed, so there is no such metric.
    assert!(!body.to_string().contains("bailiwick.tokens"));
    assert!(!body.to_string().contains("first_token"));
}

#[test]
fn what_a_receiver_rejects_is_read_from_its_answer() {
    let of = |text: &str| rejected(text.as_bytes(), "rejectedDataPoints").map(|Rejected(count)| count);
    assert_eq!(of(r#"{"partialSuccess":{"rejectedDataPoints":"3","errorMessage":"no"}}"#), Some(3));
    assert_eq!(of(r#"{"partialSuccess":{"rejectedDataPoints":3}}"#), Some(3));
    for none in ["", "{}", "<html>", r#"{"partialSuccess":{}}"#, r#"{"partialSuccess":{"rejectedDataPoints":"0"}}"#] {
        assert_eq!(of(none), None, "{none}");
    }
    assert_eq!(of(r#"{"partialSuccess":{"rejectedDataPoints":"-1"}}"#), None);
}
