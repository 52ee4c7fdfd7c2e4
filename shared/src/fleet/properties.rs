//! What always holds of verdicts, over random fleets, reports and times: honest, forged and absurd ones. A verdict is
//! the status of a region that the voters agree on; a guard limits how many regions may go down at once.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::ballot::RegionVote;
use super::{Agreed, Ballot, Verdict, VerdictInput, verdicts};
use crate::health::Status;
use crate::id::{EndpointId, RegionId};
use crate::report::{EndpointReport, HealthReport, HeldBy, RegionReport, VerdictReport, Votes};
use crate::table::{RegionIndex, Table};
use crate::testing::Random;
use crate::time::{Millis, Timestamp};

/// How many random sequences of reports are tried, and how many steps each has.
const SEQUENCES: u64 = 100_000;
const STEPS: usize = 10;
/// How many random fleets are made. Each is used for many sequences.
const FLEETS: u64 = 400;

const T0: Timestamp = Timestamp(1_800_000_000_000);
const REGIONS: [&str; 4] = ["r0", "r1", "r2", "r3"];

/// A fleet of 1 to 7 voters at 1 to 5 sites, some of which stand in regions, with a guarded service and the fence of
/// one tenant.
fn fleet(random: &mut Random) -> Table {
    let regions = REGIONS.map(|name| {
        let ends: Map<String, Value> = (0..random.below(3))
            .map(|n| (format!("e{n}"), json!({ "url": format!("https://{name}-{n}.example/v1") })))
            .collect();
        (name.to_owned(), json!({ "countries": [*random.pick(&["DE", "FR", "GB"])], "endpoints": ends }))
    });
    let sites = 1 + random.below(5);
    let voters: Map<String, Value> = (0..=random.below(7))
        .map(|n| {
            let mut voter = json!({ "site": format!("s{}", random.below(sites)) });
            if random.chance(20) {
                voter["region"] = json!(*random.pick(&REGIONS));
            }
            (format!("v{n}"), voter)
        })
        .collect();
    let window = *random.pick(&["1s", "1m", "10m"]);
    let max_down = format!("{}%", 1 + random.below(100));
    let document = json!({
        "version": 1, "revision": 1,
        "jurisdictions": { "eu": { "include": ["EU"] } },
        "regions": regions.into_iter().collect::<Map<_, _>>(),
        "services": { "chat": {
            "hosts": ["chat.example"], "pattern": "active-active", "regions": REGIONS,
            "residency": [{ "clients": ["eu"], "process_in": ["eu"] }, { "clients": ["*"], "process_in": ["*"] }],
            "guard": { "keep": random.below(4), "max_down": max_down, "window": window } } },
        "tenants": { "acme": { "key_sha256": ["00".repeat(32)], "services": ["chat"], "process_in": ["eu"] } },
        "fleet": { "voters": voters, "min_hold": *random.pick(&["0s", "30s"]),
            "hold": *random.pick(&["10s", "5m"]) },
    });
    Table::compile(document.to_string().as_bytes()).unwrap_or_else(|errors| panic!("{errors:?}\n{document:#}"))
}

/// A report that an honest node or a lying one might send.
fn report(random: &mut Random, truth: &[Status; 4]) -> HealthReport {
    let any = |random: &mut Random| *random.pick(&[Status::Up, Status::Down, Status::Unknown]);
    let is_liar = random.chance(15);
    let mut regions = BTreeMap::new();
    let mut fleet = BTreeMap::new();
    let names = ["r0", "r1", "r2", "r3", "mars"];
    for (name, status) in names.iter().zip(truth.iter().chain([&Status::Down])) {
        if random.chance(if *name == "mars" { 90 } else { 5 }) {
            continue;
        }
        let id = RegionId::parse(name).unwrap();
        let status = if is_liar || random.chance(10) { any(random) } else { *status };
        regions.insert(id.clone(), region(random, status));
        if random.chance(10) {
            let votes = Votes { up: u32::MAX, ..Votes::default() };
            fleet.insert(id, VerdictReport { verdict: any(random), votes, held_by: HeldBy::None });
        }
    }
    HealthReport {
        node: if random.chance(5) { "nobody".to_owned() } else { format!("v{}", random.below(8)) },
        revision: random.bits(),
        rules_sha256: String::new(),
        keys_sha256: BTreeMap::new(),
        blind: random.chance(5),
        regions,
        fleet,
        overrides: Vec::new(),
        loads: BTreeMap::new(),
        shares: None,
        drill: None,
        ended_drills: Vec::new(),
        first_token_ms: BTreeMap::new(),
        about: None,
    }
}

fn region(random: &mut Random, probed: Status) -> RegionReport {
    let number = |random: &mut Random, usual: u64| match random.below(12) {
        0 => u64::MAX,
        1 => random.bits(),
        2 => 0,
        _ => usual,
    };
    let mut endpoints = BTreeMap::new();
    for name in ["e0", "e1", "e2"] {
        let status = *random.pick(&[Status::Up, Status::Down, Status::Unknown]);
        let endpoint = EndpointReport {
            status,
            probed: None,
            forced: None,
            families: BTreeMap::new(),
            probe: None,
            releases: BTreeMap::new(),
        };
        endpoints.insert(EndpointId::parse(name).unwrap(), endpoint);
    }
    RegionReport {
        status: probed,
        probed,
        stale: random.chance(10),
        forced: None,
        age_ms: number(random, 1_000),
        interval_ms: number(random, 10_000),
        families: BTreeMap::new(),
        probe: None,
        endpoints,
        replicas: BTreeMap::new(),
    }
}

/// One fleet as time goes by.
struct Play<'t> {
    table: &'t Table,
    random: Random,
    agreed: Agreed,
    ballots: Vec<Ballot>,
    own: Option<usize>,
    now: Timestamp,
    verdicts: Vec<Verdict>,
    /// Since when a guard has held each region, as the verdicts say.
    held_since: [Option<Timestamp>; 4],
}

impl Play<'_> {
    fn judge(&self, ballots: &[Ballot]) -> (Vec<Verdict>, Agreed) {
        let mut agreed = self.agreed.clone();
        let input = VerdictInput { table: self.table, ballots, own: self.own, forced: &|_| None, now: self.now };
        (verdicts(&input, &mut agreed), agreed)
    }

    /// Lets time pass, and takes some reports. Returns the verdicts from before.
    fn step(&mut self, truth: &[Status; 4], reports: usize) -> Vec<Verdict> {
        self.now = self.now.after(Millis(*self.random.pick(&[0, 500, 5_000, 29_000, 60_000, 700_000])));
        for _ in 0..reports {
            let report = report(&mut self.random, truth);
            self.ballots.extend(Ballot::read(self.table, &report, self.now));
        }
        let (verdicts, agreed) = self.judge(&self.ballots);
        let mut shuffled = self.ballots.clone();
        for at in (1..shuffled.len()).rev() {
            shuffled.swap(at, self.random.below(at + 1));
        }
        assert_eq!(
            self.judge(&shuffled),
            (verdicts.clone(), agreed.clone()),
            "the order of the ballots doesn't matter"
        );
        self.agreed = agreed;
        std::mem::replace(&mut self.verdicts, verdicts)
    }

    /// How many sites have a voter whose newest report is fresh and says this of the region.
    fn sites_that_say(&self, region: usize, says: impl Fn(&RegionVote) -> bool) -> usize {
        let fleet = self.table.fleet().unwrap();
        let newest = super::ballot::newest(fleet.voters.len(), &self.ballots, self.now);
        let voters = newest.iter().zip(&fleet.voters).filter(|(ballot, _)| {
            let vote = ballot.and_then(|ballot| ballot.fresh_vote(region, self.now));
            vote.is_some_and(&says)
        });
        let mut sites: Vec<usize> = voters.map(|(_, voter)| voter.site).collect();
        sites.sort_unstable();
        sites.dedup();
        sites.len()
    }

    fn check(&mut self, before: &[Verdict]) {
        let was_down = |region: usize| before.get(region).is_some_and(|verdict| verdict.status == Status::Down);
        let is_down = |region: usize| self.verdicts[region].status == Status::Down;
        let falls = |region: usize| is_down(region) && !was_down(region);
        let sites = self.table.fleet().unwrap().sites.len();
        for region in 0..REGIONS.len() {
            if falls(region) && sites >= 3 {
                let is_down = |vote: &RegionVote| vote.region == Status::Down;
                let was_agreed_down = |vote: &RegionVote| vote.agreed == Status::Down;
                let [by_probes, agreed] =
                    [self.sites_that_say(region, is_down), self.sites_that_say(region, was_agreed_down)];
                let against = by_probes.max(agreed);
                assert!(against >= 2, "one site alone took r{region} down");
            }
            let verdict = &self.verdicts[region];
            assert_eq!(verdict.held_by == HeldBy::Guard, !verdict.guarded_by.is_empty());
            let part_down = |verdict: Option<&Verdict>, at: usize| {
                verdict.and_then(|verdict| verdict.endpoints.get(at)).is_some_and(|status| *status == Status::Down)
            };
            let is_newly_down = |at: usize| part_down(Some(verdict), at) && !part_down(before.get(region), at);
            let is_any_newly_down = (0..verdict.endpoints.len()).any(is_newly_down);
            assert!(
                verdict.guarded_by.is_empty() || !is_any_newly_down,
                "an endpoint fell in a region that a guard holds"
            );
        }
        for fence in &super::guard::guarded_fences(self.table) {
            let left = fence.regions.iter().filter(|region| !is_down(region.get())).count();
            for region in fence.regions.iter().map(|region| region.get()).filter(|region| falls(*region)) {
                let held_for = self.held_since[region].map_or(Millis(0), |since| self.now.since(since));
                let is_kept = left >= fence.guard.keep as usize;
                assert!(
                    is_kept || held_for >= fence.guard.window,
                    "r{region} left {left} of {fence:?} after {held_for}"
                );
                let count = fence.regions.iter().filter(|region| falls(region.get())).count() as u64;
                let is_fair = count <= fence.guard.max_down.of(fence.regions.len() as u64);
                assert!(
                    is_fair
                        || fence.regions.iter().any(|other| {
                            let since = self.held_since[other.get()];
                            falls(other.get()) && since.is_some_and(|since| self.now.since(since) >= fence.guard.window)
                        }),
                    "{count} of {fence:?} fell at once"
                );
            }
        }
        for (since, verdict) in self.held_since.iter_mut().zip(&self.verdicts) {
            *since = (verdict.held_by == HeldBy::Guard).then(|| since.unwrap_or(self.now));
        }
    }
}

fn play(table: &Table, seed: u64) -> Play<'_> {
    let mut random = Random::new(seed);
    let voters = table.fleet().unwrap().voters.len();
    let own = random.chance(60).then(|| random.below(voters));
    Play {
        table,
        random,
        agreed: Agreed::default(),
        ballots: Vec::new(),
        own,
        now: T0,
        verdicts: Vec::new(),
        held_since: [None; 4],
    }
}

#[test]
fn no_reports_take_away_what_they_may_not() {
    let fleets: Vec<Table> = (0..FLEETS).map(|seed| fleet(&mut Random::new(seed))).collect();
    let (mut verdicts, mut falls, mut held_by_guard) = (0u64, 0u64, 0u64);
    for seed in 0..SEQUENCES {
        let mut play = play(&fleets[usize::try_from(seed % FLEETS).unwrap()], seed);
        let mut truth = [Status::Up; 4];
        for _ in 0..STEPS {
            for status in &mut truth {
                if play.random.chance(25) {
                    *status = *play.random.pick(&[Status::Up, Status::Down, Status::Down]);
                }
            }
            let reports = play.random.below(7);
            let before = play.step(&truth, reports);
            play.check(&before);
            verdicts += play.verdicts.len() as u64;
            held_by_guard += play.verdicts.iter().filter(|verdict| verdict.held_by == HeldBy::Guard).count() as u64;
            let down = |of: &[Verdict]| of.iter().filter(|verdict| verdict.status == Status::Down).count() as u64;
            falls += down(&play.verdicts).saturating_sub(down(&before));
            play.ballots.drain(..play.ballots.len().saturating_sub(12));
        }
    }
    assert!(
        falls > SEQUENCES / 10 && held_by_guard > SEQUENCES / 10,
        "{falls} falls, {held_by_guard} held: the test tests little"
    );
    println!(
        "verdicts of a fleet: {SEQUENCES} random cases, {verdicts} verdicts, {falls} falls, {held_by_guard} held by \
         guards"
    );
}

#[test]
fn one_reporter_alone_takes_nothing_down_where_three_sites_are_configured() {
    let fleets = (0..FLEETS).map(|seed| fleet(&mut Random::new(seed)));
    let fleets: Vec<Table> = fleets.filter(|table| table.fleet().unwrap().sites.len() >= 3).collect();
    let sequences = SEQUENCES / 2;
    for seed in 0..sequences {
        let mut play = play(&fleets[usize::try_from(seed).unwrap() % fleets.len()], seed);
        let lone = format!("v{}", play.random.below(play.table.fleet().unwrap().voters.len()));
        for _ in 0..STEPS {
            play.now = play.now.after(Millis(*play.random.pick(&[500, 10_000, 400_000])));
            let mut report = report(&mut play.random, &[Status::Down; 4]);
            report.node.clone_from(&lone);
            play.ballots = Ballot::read(play.table, &report, play.now).into_iter().collect();
            let (verdicts, agreed) = play.judge(&play.ballots);
            assert!(verdicts.iter().all(|verdict| verdict.status != Status::Down), "seed {seed}");
            play.agreed = agreed;
        }
    }
    println!("one reporter alone: {sequences} random cases");
}

#[test]
fn a_clock_that_jumps_makes_nothing_panic_and_the_same_of_the_same() {
    let fleets: Vec<Table> = (0..FLEETS).map(|seed| fleet(&mut Random::new(seed))).collect();
    let sequences = SEQUENCES / 10;
    for seed in 0..sequences {
        let mut play = play(&fleets[usize::try_from(seed % FLEETS).unwrap()], seed);
        for _ in 0..STEPS {
            let jumps = [i64::MIN, i64::MAX, -1, 0, T0.0, T0.0 - 60_000, T0.0 + 60_000];
            play.now = Timestamp(*play.random.pick(&jumps));
            let reports = play.random.below(4);
            play.step(&[Status::Down; 4], reports);
            assert!(play.verdicts.len() == play.table.regions().len());
            assert!(play.table.region_named("r0") == Some(RegionIndex(0)));
        }
    }
    println!("a clock that jumps: {sequences} random cases");
}
