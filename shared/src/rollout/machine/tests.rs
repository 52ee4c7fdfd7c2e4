//! The machine in simulated rollouts, looked at each minute from the first step to the end: how often something as good
//! is rolled back, how soon something worse is found, and what vanished traffic, obstacles and pauses do.

use std::collections::BTreeMap;

use super::*;
use crate::bundle::Version;
use crate::id::{BundleId, ServiceId};
use crate::rules::{Allowed, Change, Measure};
use crate::testing::Random;

const MINUTE: u64 = 60_000;
const BEGIN: Timestamp = Timestamp(1_796_104_800_000);

fn region(name: &str) -> RegionId {
    RegionId::parse(name).unwrap()
}

fn rollout() -> Rollout {
    let diff = |max_diff| Allowed { max_diff: Some(max_diff), max_ratio: None, critical: false };
    Rollout {
        service: ServiceId::parse("chat").unwrap(),
        change: Change::Model { model: "m".into(), from: "old".into(), to: "new".into() },
        regions: vec![region("lon"), region("fra")],
        steps: vec![5, 25, 50, 95],
        hold: Millis(15 * MINUTE),
        bake: Millis(60 * MINUTE),
        warm_up: Millis(3 * MINUTE),
        min_samples: 500,
        max_hold: Millis(24 * 60 * MINUTE),
        checks: BTreeMap::from([
            (Measure::Errors, Allowed { critical: true, ..diff(0.005) }),
            (Measure::Length, diff(0.02)),
        ]),
        eval: None,
        progress: None,
    }
}

/// How an arm behaves: the shares of attempts that fail, and of answers that are cut short.
#[derive(Clone, Copy)]
struct Behaviour {
    errors: f64,
    length: f64,
}

const GOOD: Behaviour = Behaviour { errors: 0.01, length: 0.04 };

fn is(random: &mut Random, chance: f64) -> bool {
    ((random.bits() >> 11) as f64) < chance * (1_u64 << 53) as f64
}

impl Behaviour {
    /// Some requests at a moment, at which both shares are `swing` times as great.
    fn serve(self, counts: &mut Counts, requests: u64, swing: f64, random: &mut Random) {
        let (mut failed, mut long) = (0, 0);
        for _ in 0..requests {
            if is(random, self.errors * swing) {
                failed += 1;
            } else if is(random, self.length * swing) {
                long += 1;
            }
        }
        let mut add = |words: fn(&mut Counts) -> &mut crate::observe::ByWord, word: &str, count: u64| {
            if count > 0 {
                *words(counts).entry(word.to_owned()).or_default() += count;
            }
        };
        add(|counts| &mut counts.attempts, "http_5xx", failed);
        add(|counts| &mut counts.attempts, "committed", requests - failed);
        add(|counts| &mut counts.finish, "length", long);
        add(|counts| &mut counts.finish, "stop", requests - failed - long);
    }
}

/// A rollout under way, with the traffic of its region.
struct World {
    rollout: Rollout,
    now: Timestamp,
    old: ArmSum,
    new: ArmSum,
    before: Option<Counts>,
    /// Requests to the region in a minute.
    per_minute: u64,
    /// Whether both arms are worse at peak and better at night, by half.
    swings: bool,
    obstacles: Vec<String>,
    /// The largest share that any region got.
    largest: u8,
    /// The samples of each arm since the new one became worse.
    samples: [u64; 2],
}

impl World {
    fn new() -> Self {
        Self {
            rollout: rollout(),
            now: BEGIN,
            old: ArmSum::default(),
            new: ArmSum::default(),
            before: None,
            per_minute: 2_000,
            swings: false,
            obstacles: Vec::new(),
            largest: 0,
            samples: [0; 2],
        }
    }

    fn begun() -> Self {
        let mut world = Self::new();
        let action = start(&world.rollout, &[]);
        world.apply(&action);
        world
    }

    /// Publishes what an action asks for.
    fn apply(&mut self, action: &Action) {
        let Some(progress) = progress_after(&self.rollout, action, self.now) else { return };
        self.largest = progress.shares.values().copied().fold(self.largest, u8::max);
        let old = core::mem::take(&mut self.old).counts;
        self.before = (old != Counts::default()).then_some(old);
        self.new = ArmSum::default();
        self.rollout.progress = Some(progress);
    }

    fn share(&self) -> u8 {
        place(&self.rollout).map_or(0, |place| place.share)
    }

    fn since(&self) -> Timestamp {
        self.rollout.progress.as_ref().unwrap().since
    }

    /// A minute of traffic.
    fn serve(&mut self, old: Behaviour, new: Behaviour, random: &mut Random) {
        self.now = self.now.after(Millis(MINUTE));
        if self.now.since(self.since()) <= self.rollout.warm_up {
            return;
        }
        let minutes = self.now.since(BEGIN).0 / MINUTE;
        let swing = 0.5 * libm::sin(minutes as f64 / 720.0 * core::f64::consts::PI);
        let swing = 1.0 + if self.swings { swing } else { 0.0 };
        let to_new = self.per_minute * u64::from(self.share()) / 100;
        let to_old = self.per_minute - to_new;
        old.serve(&mut self.old.counts, to_old, swing, random);
        new.serve(&mut self.new.counts, to_new, swing, random);
        for (arm, (sum, requests)) in [(&mut self.old, to_old), (&mut self.new, to_new)].into_iter().enumerate() {
            if requests > 0 {
                sum.newest = Some(self.now);
            }
            self.samples[arm] += requests;
        }
    }

    fn look(&self) -> Decision {
        let answered_at = Some(self.now);
        let observed = StepObservations { old: &self.old, new: &self.new, before: self.before.as_ref(), answered_at };
        step(&self.rollout, Some(observed), EvalState::default(), &self.obstacles, self.now)
    }

    /// A minute, a look, and what follows of it.
    fn tick(&mut self, old: Behaviour, new: Behaviour, random: &mut Random) -> Action {
        self.serve(old, new, random);
        let action = self.look().action;
        self.apply(&action);
        action
    }

    /// Ticks until it ends or the time is over.
    fn run(&mut self, old: Behaviour, new: Behaviour, minutes: u64, random: &mut Random) -> Option<Action> {
        (0..minutes)
            .map(|_| self.tick(old, new, random))
            .find(|action| matches!(action, Action::Finish | Action::RollBack(_) | Action::Over(_)))
    }
}

#[test]
fn something_as_good_is_rolled_back_in_less_than_one_of_a_hundred_rollouts() {
    const ROLLOUTS: u64 = 1_000;
    let random = &mut Random::new(1);
    let (mut done, mut failed, mut late, mut looks) = (0, 0, 0, 0_u64);
    for _ in 0..ROLLOUTS {
        let mut world = World { swings: true, ..World::begun() };
        match world.run(GOOD, GOOD, 10_000, random) {
            Some(Action::Finish) => done += 1,
            Some(Action::RollBack(why)) if why.contains("no verdict") => late += 1,
            Some(Action::RollBack(_)) => failed += 1,
            other => panic!("{other:?}"),
        }
        looks += world.now.since(BEGIN).0 / MINUTE;
    }
    println!(
        "no difference: of {ROLLOUTS} rollouts of 8 steps {done} finished, {failed} were rolled back by a check and \
         {late} for want of a verdict; {} looks each",
        looks / ROLLOUTS
    );
    assert!((failed + late) * 100 <= ROLLOUTS, "{failed} {late}");
}

/// The hardest case for the level: the claim that is tested is just true.
#[test]
fn something_that_is_worse_by_as_much_as_is_allowed_is_hardly_ever_rolled_back_by_a_check() {
    const ROLLOUTS: u64 = 1_000;
    let random = &mut Random::new(7);
    let allowed = Behaviour { errors: GOOD.errors + 0.005, length: GOOD.length + 0.02 };
    let (mut failed, mut late, mut looks) = (0, 0, 0_u64);
    // How often a usual test at 1 %, looked at as often, would have rolled back.
    let mut usual = 0;
    for _ in 0..ROLLOUTS {
        let mut world = World::begun();
        world.rollout.max_hold = Millis(5 * 60 * MINUTE);
        let mut is_usual = false;
        let ended = loop {
            let action = world.tick(GOOD, allowed, random);
            is_usual |= z_test(&world.old.counts, &world.new.counts, 0.005) > 2.326;
            if matches!(action, Action::Finish | Action::RollBack(_)) {
                break action;
            }
        };
        match ended {
            Action::RollBack(why) if why.contains("no verdict") => late += 1,
            _ => failed += 1,
        }
        usual += u64::from(is_usual);
        looks += world.now.since(BEGIN).0 / MINUTE;
    }
    println!(
        "as much worse as is allowed: of {ROLLOUTS} rollouts {failed} were rolled back by a check and {late} for want \
         of a verdict; {} looks each; a z-test at 1 % would have rolled back {usual}",
        looks / ROLLOUTS
    );
    assert!(failed * 100 <= ROLLOUTS && late > 0, "{failed}");
    assert!(usual * 100 > ROLLOUTS * 5, "a usual test errs more often than it says: {usual}");
}

/// The one-sided z-statistic of "the share of failures rose by more than the margin".
fn z_test(old: &Counts, new: &Counts, margin: f64) -> f64 {
    let rate = |counts: &Counts| {
        let of = |word: &str| counts.attempts.get(word).copied().unwrap_or_default() as f64;
        let all = of("http_5xx") + of("committed");
        (all >= 500.0).then(|| (of("http_5xx") / all, all))
    };
    let Some(((old, olds), (new, news))) = rate(old).zip(rate(new)) else { return 0.0 };
    let deviation = libm::sqrt(old * (1.0 - old) / olds + new * (1.0 - new) / news);
    if deviation > 0.0 { (new - old - margin) / deviation } else { 0.0 }
}

#[test]
fn an_error_rate_that_rises_is_found_while_a_rollout_waits_and_goes_on() {
    const ROLLOUTS: usize = 100;
    let random = &mut Random::new(2);
    for (points, most) in [(1.0, 60_000), (3.0, 6_000), (10.0, 1_200)] {
        let bad = Behaviour { errors: GOOD.errors + points / 100.0, ..GOOD };
        let mut found = Vec::new();
        for _ in 0..ROLLOUTS {
            let mut world = World::begun();
            // It becomes worse in the second step.
            while world.share() < 25 {
                assert!(world.run(GOOD, GOOD, 1, random).is_none());
            }
            world.samples = [0; 2];
            match world.run(GOOD, bad, 3_000, random) {
                Some(Action::RollBack(why)) => assert!(why.contains("error_rate"), "{why}"),
                other => panic!("+{points} points: {other:?} at {} %", world.share()),
            }
            assert!(world.rollout.progress.as_ref().unwrap().shares.is_empty());
            assert!(world.largest <= 50, "+{points} points: promoted to {} %", world.largest);
            found.push(world.samples[1]);
        }
        found.sort_unstable();
        let fixed = fixed_horizon(points / 100.0);
        let naive = naive_threshold(bad, random);
        println!(
            "errors 1 % → {} %: found after {} requests of the new arm (nine of ten within {}); a test at one fixed \
             look needs {fixed}; a threshold of 5 % in a minute of 500 requests finds {naive} of 100 within an hour",
            1.0 + points,
            found[ROLLOUTS / 2],
            found[ROLLOUTS * 9 / 10]
        );
        assert!(found[ROLLOUTS / 2] <= most, "+{points} points: {}", found[ROLLOUTS / 2]);
    }
}

/// The requests of each arm with which a one-sided z-test at 1 %, looked at once, finds a rise beyond the margin in
/// nine of ten cases.
fn fixed_horizon(rise: f64) -> u64 {
    let (old, new, margin) = (GOOD.errors, GOOD.errors + rise, 0.005);
    let variance = old * (1.0 - old) + new * (1.0 - new);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // positive and small
    let requests =
        libm::ceil((2.326 + 1.282) * (2.326 + 1.282) * variance / ((rise - margin) * (rise - margin))) as u64;
    requests
}

/// How many of 100 arms a usual threshold finds within an hour: more than 5 % of a minute's 500 requests fail.
fn naive_threshold(bad: Behaviour, random: &mut Random) -> usize {
    let minute = |random: &mut Random| (0..500).filter(|_| is(random, bad.errors)).count() > 25;
    (0..100).filter(|_| (0..60).any(|_| minute(random))).count()
}

#[test]
fn traffic_that_vanishes_never_promotes_and_is_rolled_back_in_the_end() {
    let random = &mut Random::new(3);
    let mut cases = 0;
    for after in (1..400).step_by(7) {
        let mut world = World::begun();
        if world.run(GOOD, GOOD, after, random).is_some() {
            continue;
        }
        let share = world.share();
        world.per_minute = 0;
        // Nobody can know sooner that it has gone.
        world.now = world.now.after(FRESH);
        let mut held = 0;
        let why = loop {
            match world.tick(GOOD, GOOD, random) {
                Action::Hold(_) => held += 1,
                Action::RollBack(why) => break why,
                other => panic!("promoted from {share} % without traffic: {other:?}"),
            }
        };
        assert!(why.contains("no traffic for 1m") || why.contains("samples"), "{why}");
        assert!(held <= 24 * 60 + 1, "{held}");
        cases += 1;
    }
    println!(
        "traffic vanished at {cases} moments of a rollout: none was promoted, all were rolled back after max_hold"
    );
    assert!(cases > 40, "{cases}");
}

#[test]
fn a_breach_is_rolled_back_in_every_state_waiting_included() {
    let random = &mut Random::new(4);
    let bad = Behaviour { errors: 0.3, ..GOOD };
    type Set = fn(&mut World);
    let states: [(&str, Set); 3] = [
        ("waiting for the step's time", |_| {}),
        ("paused", |world| world.rollout.progress.as_mut().unwrap().paused = Some("lunch".to_owned())),
        ("held by an override", |world| world.obstacles = vec!["lon is drained".to_owned()]),
    ];
    for (name, set) in states {
        let mut world = World::begun();
        assert!(world.run(GOOD, GOOD, 6, random).is_none());
        set(&mut world);
        let action = world.run(GOOD, bad, 9, random);
        assert!(matches!(&action, Some(Action::RollBack(why)) if why.contains("error_rate")), "{name}: {action:?}");
    }
    // And while the last step bakes with all of the traffic, by the old arm of the step before.
    let mut world = World::begun();
    world.rollout.steps = vec![5, 100];
    while world.share() < 100 {
        assert!(world.run(GOOD, GOOD, 1, random).is_none());
    }
    assert!(world.before.is_some());
    let action = world.run(GOOD, bad, 10, random);
    assert!(matches!(&action, Some(Action::RollBack(_))), "{action:?}");
    // Without that arm nothing is certain, so it never goes on.
    let mut world = World::begun();
    world.rollout.steps = vec![5, 100];
    while world.share() < 100 {
        assert!(world.run(GOOD, GOOD, 1, random).is_none());
    }
    world.before = None;
    let action = world.run(GOOD, GOOD, 2_000, random);
    assert!(matches!(&action, Some(Action::RollBack(why)) if why.contains("no verdict")), "{action:?}");
}

#[test]
fn regions_follow_one_another_each_after_its_bake() {
    let random = &mut Random::new(5);
    let mut world = World::begun();
    let mut actions = vec![(BEGIN, Action::Begin(region("lon"), 5))];
    loop {
        let action = world.tick(GOOD, GOOD, random);
        if !matches!(action, Action::Hold(_)) {
            actions.push((world.now, action.clone()));
        }
        if action == Action::Finish {
            break;
        }
    }
    let of = |name: &str, shares: [u8; 3]| shares.map(|share| Action::Advance(region(name), share));
    let mut expected = vec![Action::Begin(region("lon"), 5)];
    expected.extend(of("lon", [25, 50, 95]));
    expected.push(Action::NextRegion(region("fra"), 5));
    expected.extend(of("fra", [25, 50, 95]));
    expected.push(Action::Finish);
    assert_eq!(actions.iter().map(|(_, action)| action.clone()).collect::<Vec<_>>(), expected);
    for pair in actions.windows(2) {
        let [(began, what), (ended, _)] = pair else { unreachable!() };
        let least = if matches!(what, Action::Advance(_, 95)) { 63 } else { 18 };
        assert!(ended.since(*began) >= Millis(least * MINUTE), "{what:?} lasted {}", ended.since(*began));
    }
    let progress = world.rollout.progress.clone().unwrap();
    assert_eq!(progress.shares.values().collect::<Vec<_>>(), [&100, &100]);
    assert_eq!(progress.ended.as_deref(), Some("done"));
    assert_eq!(world.look().action, Action::Over("done".to_owned()));
}

#[test]
fn obstacles_and_pauses_hold_what_would_go_on() {
    let random = &mut Random::new(6);
    let mut world = World::new();
    let obstacle = "eu-paris is drained".to_owned();
    assert_eq!(start(&world.rollout, core::slice::from_ref(&obstacle)), Action::Hold(obstacle.clone()));
    assert!(matches!(world.look().action, Action::Hold(why) if why.contains("hasn't begun")));
    world.apply(&start(&world.rollout, &[]));
    let ready = (0..2_000).find(|_| {
        world.serve(GOOD, GOOD, random);
        matches!(world.look().action, Action::Advance(..))
    });
    assert!(ready.is_some());
    world.obstacles = vec![obstacle.clone()];
    assert_eq!(world.look().action, Action::Hold(obstacle));
    world.obstacles.clear();
    world.rollout.progress.as_mut().unwrap().paused = Some("lunch".to_owned());
    assert_eq!(world.look().action, Action::Hold("paused: lunch".to_owned()));
    // A pause may last as long as it likes.
    world.now = world.now.after(Millis(48 * 60 * MINUTE));
    assert!(matches!(world.look().action, Action::Hold(_)));
    world.rollout.progress.as_mut().unwrap().paused = None;
    let why = |world: &World| match world.look().action {
        Action::RollBack(why) => why,
        other => panic!("{other:?}"),
    };
    assert!(why(&world).ends_with("has had no traffic for 1m"), "{}", why(&world));
    // Of a bundle there are arms only if applications name versions.
    let (bundle, to) = (BundleId::parse("prompts").unwrap(), Version::parse(&"2".repeat(64)).unwrap());
    world.rollout.change = Change::Bundle { bundle, to };
    assert!(why(&world).ends_with("for 1m; applications there name the version in x-bailiwick-bundle"));
}

#[test]
fn what_is_unknown_holds_and_a_clock_that_is_set_back_goes_nowhere() {
    let world = World::begun();
    assert_eq!(step(&world.rollout, None, EvalState::default(), &[], world.now).judgement, None);
    let later = world.now.after(Millis(60 * MINUTE));
    let action = step(&world.rollout, None, EvalState::default(), &[], later).action;
    assert!(matches!(&action, Action::Hold(why) if why.contains("nothing was counted")), "{action:?}");
    let much_later = world.now.after(Millis(25 * 60 * MINUTE));
    assert!(matches!(step(&world.rollout, None, EvalState::default(), &[], much_later).action, Action::RollBack(_)));
    let earlier = Timestamp(world.now.0 - 1_000_000);
    assert!(matches!(step(&world.rollout, None, EvalState::default(), &[], earlier).action, Action::Hold(_)));
}

#[test]
fn a_share_between_two_steps_goes_on_with_the_next_greater_one() {
    let mut rollout = rollout();
    let shares = BTreeMap::from([(region("lon"), 100), (region("fra"), 30)]);
    rollout.progress = Some(Progress { shares, since: BEGIN, paused: None, ended: None });
    let here = place(&rollout).unwrap();
    assert_eq!((here.region.as_str(), here.share, here.next), ("fra", 30, Some(50)));
    assert_eq!(after(&rollout, here), Action::Advance(region("fra"), 50));
    assert!((level(&rollout).alpha - ALPHA / 8.0).abs() < 1e-12);
}
