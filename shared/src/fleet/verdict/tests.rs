//! What the voters agree on, step by step.

use serde_json::{Value, json};

use super::*;
use crate::fleet::blind::BlindnessDetector;
use crate::report::HealthReport;

const T0: Timestamp = Timestamp(1_800_000_000_000);
const UP: Status = Status::Up;
const DOWN: Status = Status::Down;
const UNKNOWN: Status = Status::Unknown;

/// Four regions of one service, whose clients may be served in all of them, and this many sites with one voter each:
/// `v0`, `v1` …
fn table(sites: usize, guard: &Value) -> Table {
    let region = || json!({ "countries": ["DE"], "endpoints": { "one": { "url": "https://a.example/v1" } } });
    let voters: serde_json::Map<String, Value> =
        (0..sites).map(|n| (format!("v{n}"), json!({ "site": format!("s{n}") }))).collect();
    let mut document = json!({
        "version": 1, "revision": 1,
        "regions": { "r0": region(), "r1": region(), "r2": region(), "r3": region() },
        "services": { "chat": { "hosts": ["chat.example"], "pattern": "active-active",
            "regions": ["r0", "r1", "r2", "r3"], "residency": [{ "clients": ["*"], "process_in": ["*"] }] } },
        "fleet": { "voters": voters },
    });
    if !guard.is_null() {
        document["services"]["chat"]["guard"] = guard.clone();
    }
    Table::compile(document.to_string().as_bytes()).unwrap_or_else(|errors| panic!("{errors:?}"))
}

/// Three sites, and no guard.
fn three() -> Table {
    table(3, &Value::Null)
}

/// A report that calls the regions in `down` and their endpoints down and all others up. Its results are 1 s old when
/// it is sent.
fn report(voter: &str, down: &[&str]) -> HealthReport {
    let regions = ["r0", "r1", "r2", "r3"].map(|region| {
        let status = if down.contains(&region) { "down" } else { "up" };
        let said = json!({ "status": status, "probed": status, "stale": false, "override": null, "age_ms": 1_000,
            "interval_ms": 5_000, "endpoints": { "one": { "status": status } } });
        (region.to_owned(), said)
    });
    let regions: serde_json::Map<String, Value> = regions.into_iter().collect();
    let report = json!({ "node": voter, "revision": 1, "rules_sha256": "", "regions": regions });
    serde_json::from_value(report).unwrap()
}

/// A fleet whose voters report again and again.
struct Play {
    table: Table,
    agreed: Agreed,
    now: Timestamp,
    own: Option<usize>,
    verdicts: Vec<Verdict>,
}

impl Play {
    fn new(table: Table) -> Self {
        Self { table, agreed: Agreed::default(), now: T0, own: None, verdicts: Vec::new() }
    }

    /// Lets `seconds` pass. Then these voters report these regions as down.
    fn hear(&mut self, seconds: u64, said: &[(&str, &[&str])]) -> Vec<Status> {
        let reports: Vec<HealthReport> = said.iter().map(|(voter, down)| report(voter, down)).collect();
        self.hear_reports(seconds, &reports)
    }

    fn hear_reports(&mut self, seconds: u64, reports: &[HealthReport]) -> Vec<Status> {
        self.now = self.now.after(Millis(seconds * 1_000));
        let ballots: Vec<Ballot> =
            reports.iter().filter_map(|report| Ballot::read(&self.table, report, self.now)).collect();
        let input =
            VerdictInput { table: &self.table, ballots: &ballots, own: self.own, forced: &|_| None, now: self.now };
        self.verdicts = verdicts(&input, &mut self.agreed);
        self.verdicts.iter().map(|verdict| verdict.status).collect()
    }

    fn held_by(&self) -> HeldBy {
        self.verdicts[0].held_by
    }
}

#[test]
fn a_majority_decides_and_a_tie_or_silence_leaves_what_was() {
    let mut play = Play::new(three());
    assert_eq!(play.hear(0, &[]), [UNKNOWN; 4]);
    assert_eq!(play.hear(1, &[("v0", &["r0"]), ("v1", &["r0"]), ("v2", &[])]), [DOWN, UP, UP, UP]);
    assert_eq!(play.held_by(), HeldBy::Quorum);
    assert_eq!(play.verdicts[0].votes, Votes { up: 1, down: 2, unknown: 0, silent: 0 });
    assert_eq!(play.hear(60, &[("v0", &["r0"]), ("v1", &[])]), [DOWN, UP, UP, UP], "a tie");
    assert_eq!(play.held_by(), HeldBy::None);
    assert_eq!(play.hear(1, &[("v0", &["r0", "r1", "r2", "r3"])]), [DOWN, UP, UP, UP], "one voter alone");
    assert_eq!(play.hear(1, &[("v1", &[]), ("v2", &[])]), [UP; 4]);
    assert_eq!(play.verdicts[0].endpoints, [UP]);
}

#[test]
fn a_report_counts_for_three_intervals_by_its_own_age_and_the_time_since_it_arrived() {
    let mut play = Play::new(three());
    let said = ["v0", "v1"].map(|voter| report(voter, &["r0"]));
    let arrived = play.now;
    let judge = |play: &mut Play, at: Timestamp| {
        let ballots: Vec<Ballot> = said.iter().filter_map(|one| Ballot::read(&play.table, one, arrived)).collect();
        let input = VerdictInput { table: &play.table, ballots: &ballots, own: None, forced: &|_| None, now: at };
        verdicts(&input, &mut Agreed::default())[0].status
    };
    assert_eq!(judge(&mut play, arrived.after(Millis(14_000))), DOWN);
    assert_eq!(judge(&mut play, arrived.after(Millis(14_001))), UNKNOWN);
    assert_eq!(judge(&mut play, Timestamp(arrived.0 - 1)), UNKNOWN, "the clock was set back");
}

#[test]
fn what_went_down_stays_down_for_min_hold() {
    let mut play = Play::new(three());
    let (down, up): (&[_], &[_]) = (&[("v0", &["r0"][..]), ("v1", &["r0"])], &[("v0", &[][..]), ("v1", &[])]);
    assert_eq!(play.hear(0, up)[0], UP);
    assert_eq!(play.hear(1, down)[0], DOWN, "a region that is up may go down at once");
    assert_eq!(play.hear(29, up)[0], DOWN);
    assert_eq!((play.held_by(), play.verdicts[0].votes.up), (HeldBy::None, 2));
    assert_eq!(play.hear(1, up)[0], UP);
    assert_eq!(play.held_by(), HeldBy::Quorum);
}

#[test]
fn without_a_quorum_for_long_a_node_goes_by_its_own_probes_with_care() {
    let all: &[&str] = &["r0", "r1", "r2", "r3"];
    let mut play = Play::new(three());
    play.own = Some(0);
    assert_eq!(play.hear(0, &[("v0", &[]), ("v1", &[]), ("v2", &[])]), [UP; 4]);
    assert_eq!(play.hear(1, &[("v0", all)]), [UP; 4]);
    assert_eq!(play.hear(299, &[("v0", all)]), [UP; 4]);
    assert_eq!(play.hear(10_000, &[("v0", all)]), [UP; 4], "never alone where there are three sites");

    // Five sites, two of which report.
    let mut play = Play::new(table(5, &Value::Null));
    play.own = Some(0);
    assert_eq!(play.hear(0, &[("v0", &[]), ("v1", &[]), ("v2", &[])]), [UP; 4]);
    let (both, one): (&[_], &[_]) = (&[("v0", all), ("v1", &["r0"][..])], &[("v0", &["r0"][..]), ("v1", &["r1"])]);
    assert_eq!(play.hear(1, both), [UP; 4]);
    assert_eq!(play.hear(299, both), [UP; 4], "not yet");
    assert_eq!(play.hear(1, both), [DOWN, UP, UP, UP], "every voter that is heard says so");
    assert_eq!(play.held_by(), HeldBy::None);
    assert_eq!(play.hear(60, one), [DOWN, UP, UP, UP]);
    assert_eq!(play.hear(1, &[("v0", &[]), ("v1", all)]), [UP; 4], "up by its own probes");
    assert_eq!(play.hear(1, &[("v0", &[]), ("v1", &[]), ("v2", &[])]), [UP; 4]);
    assert_eq!(play.hear(1, both), [UP; 4], "`hold` begins again");
}

#[test]
fn one_node_of_one_or_two_sites_goes_by_its_own_probes() {
    let mut play = Play::new(table(1, &Value::Null));
    play.own = Some(0);
    assert_eq!(play.hear(0, &[("v0", &["r0"])])[0], DOWN, "its own vote is the majority");
    let mut play = Play::new(table(2, &Value::Null));
    play.own = Some(0);
    assert_eq!(play.hear(0, &[("v0", &["r0"])])[0], UNKNOWN);
    assert_eq!(play.hear(300, &[("v0", &["r0"])])[0], DOWN);
}

#[test]
fn a_voter_whose_own_line_is_down_votes_unknown() {
    let mut sight = BlindnessDetector::default();
    for region in 0..4 {
        sight.record(region, region, Millis(5_000), false, T0);
    }
    let mut blind = report("v0", &["r0", "r1", "r2", "r3"]);
    blind.blind = sight.is_blind();
    let mut play = Play::new(three());
    assert_eq!(play.hear(0, &[("v0", &[]), ("v1", &[]), ("v2", &[])]), [UP; 4]);
    assert_eq!(play.hear_reports(1, &[blind.clone(), report("v1", &["r0"])]), [UP; 4]);
    assert_eq!(play.verdicts[0].votes, Votes { up: 0, down: 1, unknown: 1, silent: 1 });
    assert_eq!(play.verdicts[0].endpoints, [UP]);
    blind.blind = false;
    assert_eq!(play.hear_reports(1, &[blind, report("v1", &["r0"])]), [DOWN, UP, UP, UP]);
}

#[test]
fn a_guard_holds_what_would_go_beyond_it_and_believes_the_voters_in_the_end() {
    let guard = json!({ "keep": 1, "max_down": "50%", "window": "10m" });
    let mut play = Play::new(table(3, &guard));
    let say = |play: &mut Play, seconds, down: &[&str]| play.hear(seconds, &[("v0", down), ("v1", down)]);
    assert_eq!(say(&mut play, 0, &[]), [UP; 4]);
    assert_eq!(say(&mut play, 1, &["r3"]), [UP, UP, UP, DOWN]);
    assert_eq!(say(&mut play, 10, &["r3", "r2", "r0", "r1"]), [DOWN, UP, UP, DOWN], "half of four, by name");
    assert_eq!(play.verdicts[1].held_by, HeldBy::Guard);
    assert_eq!(play.verdicts[1].guarded_by, [ServiceIndex(0)]);
    assert_eq!(play.verdicts[1].endpoints, [UP], "offered whole");
    assert_eq!(play.verdicts[1].report(None).held_by, HeldBy::Guard);
    assert_eq!(play.verdicts[1].report(Some(DOWN)).held_by, HeldBy::Override);
    assert_eq!(say(&mut play, 599, &["r3", "r2", "r0", "r1"]), [DOWN, DOWN, UP, DOWN]);
    assert_eq!(play.verdicts[2].held_by, HeldBy::Guard, "r3 fell long ago, so that r1 may follow r0");
}

#[test]
fn the_last_region_is_held_for_the_whole_window() {
    let guard = json!({ "keep": 1, "max_down": "100%", "window": "10m" });
    let mut play = Play::new(table(3, &guard));
    let say = |play: &mut Play, seconds, down: &[&str]| play.hear(seconds, &[("v0", down), ("v1", down)]);
    let all: &[&str] = &["r0", "r1", "r2", "r3"];
    assert_eq!(say(&mut play, 0, &[]), [UP; 4]);
    assert_eq!(say(&mut play, 1, all), [DOWN, DOWN, DOWN, UP]);
    assert_eq!(say(&mut play, 599, all), [DOWN, DOWN, DOWN, UP]);
    assert_eq!(say(&mut play, 0, &["r0", "r1", "r2"]), [DOWN, DOWN, DOWN, UP], "the voters see it again");
    assert_eq!(say(&mut play, 300, all), [DOWN, DOWN, DOWN, UP], "the window begins again");
    assert_eq!(say(&mut play, 599, all), [DOWN, DOWN, DOWN, UP]);
    assert_eq!(say(&mut play, 1, all), [DOWN; 4], "after the window the voters decide");
    assert_eq!(play.verdicts[3].held_by, HeldBy::Quorum);
}

#[test]
fn who_has_just_begun_takes_over_what_most_sites_took_for_agreed() {
    let mut play = Play::new(three());
    let reporting = |voter: &str, down: &[&str], agreed: Status, held_by: HeldBy| {
        let mut report = report(voter, down);
        let agreed = VerdictReport { verdict: agreed, votes: Votes::default(), held_by };
        report.fleet = [(crate::id::RegionId::parse("r0").unwrap(), agreed)].into();
        report
    };
    let tie = [reporting("v0", &["r0"], DOWN, HeldBy::None), reporting("v1", &[], DOWN, HeldBy::Quorum)];
    assert_eq!(play.hear_reports(0, &tie[..1])[0], UNKNOWN, "one voter alone is no majority");
    assert_eq!(play.hear_reports(0, &tie)[0], DOWN);
    let forced = [reporting("v0", &["r0"], DOWN, HeldBy::Override), reporting("v1", &[], DOWN, HeldBy::Override)];
    assert_eq!(Play::new(three()).hear_reports(0, &forced)[0], UNKNOWN, "an override isn't what probes say");
}

#[test]
fn what_was_agreed_on_survives_an_edit_of_the_rules() {
    let mut play = Play::new(three());
    assert_eq!(play.hear(0, &[("v0", &["r1"]), ("v1", &["r1"])]), [UP, DOWN, UP, UP]);
    let mut document: Value = json!({
        "version": 1, "revision": 2,
        "regions": { "r00": { "countries": ["DE"] }, "r1": { "countries": ["DE"], "endpoints": {
            "a": { "url": "https://a.example/v1" }, "one": { "url": "https://b.example/v1" } } } },
    });
    document["fleet"] = json!({ "voters": { "v0": { "site": "a" }, "v1": { "site": "b" } } });
    play.table = Table::compile(document.to_string().as_bytes()).unwrap();
    assert_eq!(play.hear(1, &[]), [UNKNOWN, DOWN]);
    assert_eq!(play.verdicts[1].endpoints, [UNKNOWN, DOWN]);
    document["revision"] = json!(3);
    document.as_object_mut().unwrap().remove("fleet");
    play.table = Table::compile(document.to_string().as_bytes()).unwrap();
    assert_eq!(play.hear(1, &[("v0", &[])]), [UP; 0], "no voters are named");
}

/// Three sites, and two regions. `r0` and `r1` are what the rules say of each region's copy of `kb`.
fn copies(revision: u64, r0: &str, r1: &str) -> Table {
    let document = format!(
        r#"{{ "version": 1, "revision": {revision}, "replicas": {{ "kb": {{ "max_lag": "60s" }} }},
            "regions": {{ "r0": {{ "countries": ["DE"], "replicas": {{ "kb": {{ {r0} }} }} }},
                "r1": {{ "countries": ["DE"], "replicas": {{ "kb": {{ {r1} }} }} }} }},
            "fleet": {{ "voters": {{ "v0": {{ "site": "a" }}, "v1": {{ "site": "b" }}, "v2": {{ "site": "c" }} }},
                "min_hold": "30s" }} }}"#
    );
    Table::compile(document.as_bytes()).unwrap_or_else(|errors| panic!("{errors:?}"))
}

const READ: &str = r#""url": "https://kb.example/", "as": "seconds", "read": "/lag""#;
const LEADS: &str = r#""leader": true"#;

/// Reports of these voters, each with a status of `r0`'s copy, or `None` to say nothing of it. `r1`'s copy isn't
/// mentioned.
fn of_copies(said: &[(&str, Option<&str>)], age_ms: u64) -> Vec<HealthReport> {
    let report_of = |(voter, status): &(&str, Option<&str>)| {
        let mut report = serde_json::to_value(report(voter, &[])).unwrap();
        if let Some(status) = status {
            report["regions"]["r0"]["replicas"] = json!({ "kb": { "status": status, "freshness": "x",
                "age_ms": age_ms, "interval_ms": 5_000 } });
        }
        serde_json::from_value(report).unwrap()
    };
    said.iter().map(report_of).collect()
}

impl Play {
    /// The status of `r0`'s copy after `seconds`, when these voters have reported these statuses of it.
    fn hear_of_copy(&mut self, seconds: u64, said: &[(&str, Option<&str>)]) -> Status {
        self.hear_reports(seconds, &of_copies(said, 1_000));
        self.verdicts[0].replicas[0]
    }
}

#[test]
fn a_copy_that_the_rules_call_the_leader_is_up_whatever_was_agreed_on() {
    let lagging = [("v0", Some("down")), ("v1", Some("down")), ("v2", Some("up"))];
    let mut play = Play::new(copies(1, READ, LEADS));
    assert_eq!(play.hear_of_copy(0, &lagging), DOWN);
    play.table = copies(2, LEADS, READ);
    assert_eq!(play.hear_of_copy(1, &[("v0", None), ("v1", None), ("v2", None)]), UP, "nobody reads it any more");
    assert_eq!(play.hear_of_copy(1, &lagging), UP, "votes of nodes that still follow the rules before");
    assert_eq!(play.hear_of_copy(400, &[]), UP);

    let bytes = {
        let mut before = Play::new(copies(1, READ, LEADS));
        before.hear_of_copy(0, &lagging);
        before.agreed.to_bytes()
    };
    let mut play = Play::new(copies(2, LEADS, READ));
    play.agreed = Agreed::read(&bytes).unwrap();
    assert_eq!(play.hear_of_copy(1, &[]), UP, "after a restart, too");
}

#[test]
fn what_was_agreed_of_a_copy_ends_with_its_source_and_outlives_another_interval() {
    let lagging = [("v0", Some("down")), ("v1", Some("down"))];
    let mut play = Play::new(copies(1, READ, LEADS));
    assert_eq!(play.hear_of_copy(0, &lagging), DOWN);
    play.table = copies(2, &format!(r#"{READ}, "interval": "9s""#), LEADS);
    assert_eq!(play.hear_of_copy(1, &[]), DOWN, "it is the same copy");
    play.table = copies(3, &READ.replace("kb.example", "new.example"), LEADS);
    assert_eq!(play.hear_of_copy(1, &[]), UNKNOWN, "another copy");
    assert_eq!(play.hear_of_copy(1, &lagging), DOWN);
    play.table = copies(4, &format!("{READ}, {LEADS}"), READ);
    assert_eq!(play.hear_of_copy(1, &[]), UP);
    play.table = copies(5, READ, LEADS);
    assert_eq!(play.hear_of_copy(1, &[]), UNKNOWN, "no leader any more, and nobody has read it yet");
}

#[test]
fn a_copy_that_is_back_or_promoted_does_not_rest() {
    let mut play = Play::new(copies(1, READ, LEADS));
    assert_eq!(play.hear_of_copy(0, &[("v0", Some("down")), ("v1", Some("down"))]), DOWN);
    assert_eq!(play.hear_of_copy(1, &[("v0", Some("up")), ("v1", Some("down"))]), DOWN, "a tie");
    assert_eq!(play.hear_of_copy(1, &[("v0", Some("up")), ("v1", Some("up"))]), UP);
}

#[test]
fn a_page_that_hangs_does_not_bring_a_copy_back() {
    let mut play = Play::new(copies(1, READ, LEADS));
    let voters = |status| [("v0", Some(status)), ("v1", Some(status))];
    let mut old = |status| {
        play.hear_reports(1, &of_copies(&voters(status), 30_000));
        play.verdicts[0].replicas[0]
    };
    assert_eq!(old("up"), UNKNOWN, "too old");
    assert_eq!(old("down"), DOWN);
    assert_eq!(old("up"), DOWN);
}
