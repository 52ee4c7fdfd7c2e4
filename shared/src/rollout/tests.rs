//! The statistics, proved by simulation: how often an arm that is as good fails although somebody looks at every tick,
//! how soon a worse one is found, and how other methods fare on the same data.

use super::proportion::{Events, interval, p_of_at_most};
use super::*;
use crate::observe::Counts;
use crate::testing::Random;

const LEVEL: Level = Level { alpha: 0.01, pass: 0.01, min_samples: 500 };
/// Requests to each arm between two looks.
const TICK: u64 = 50;

fn unit(random: &mut Random) -> f64 {
    (random.bits() >> 11) as f64 / (1_u64 << 53) as f64
}

/// How an arm behaves.
#[derive(Clone, Copy)]
struct Arm {
    errors: f64,
    long: f64,
    /// The median time to the first token in microseconds. Times are log-normal with a deviation of 0.6.
    median_us: f64,
}

const GOOD: Arm = Arm { errors: 0.01, long: 0.04, median_us: 400_000.0 };

impl Arm {
    fn serve(self, counts: &mut Counts, random: &mut Random) {
        let is_error = unit(random) < self.errors;
        Counts::bump(&mut counts.attempts, if is_error { "http_5xx" } else { "committed" });
        if is_error {
            return;
        }
        Counts::bump(&mut counts.finish, if unit(random) < self.long { "length" } else { "stop" });
        // Box and Muller.
        let (radius, angle) = (libm::sqrt(-2.0 * libm::log(unit(random).max(1e-12))), unit(random));
        let normal = radius * libm::cos(2.0 * core::f64::consts::PI * angle);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // positive and small
        counts.first_token.count((self.median_us * libm::exp(0.6 * normal)) as u64);
    }
}

fn checks() -> [Check; 4] {
    let check = |measure, margin, is_critical| Check { measure, margin, is_critical, is_by_length: true };
    [
        check(Measure::Errors, Margin::Difference(0.005), true),
        check(Measure::Length, Margin::Difference(0.02), false),
        check(Measure::Refusals, Margin::Difference(0.01), false),
        check(Measure::FirstToken, Margin::Ratio(1.15), false),
    ]
}

/// Looks after each tick; the first verdict that isn't inconclusive, and the requests of each arm until then.
fn run(old: Arm, new: Arm, ticks: u64, random: &mut Random) -> (Option<Verdict>, u64) {
    let (mut olds, mut news) = (Counts::default(), Counts::default());
    for tick in 1..=ticks {
        for _ in 0..TICK {
            old.serve(&mut olds, random);
            new.serve(&mut news, random);
        }
        let verdict = judge(&checks(), &olds, &news, LEVEL).verdict;
        if verdict == Verdict::Fail {
            return (Some(verdict), tick * TICK);
        }
    }
    let verdict = judge(&checks(), &olds, &news, LEVEL).verdict;
    ((verdict == Verdict::Pass).then_some(verdict), ticks * TICK)
}

#[test]
fn an_arm_that_is_as_good_fails_in_less_than_one_of_a_hundred_rollouts_whenever_one_looks() {
    const ROLLOUTS: u64 = 1_000;
    let random = &mut Random::new(1);
    // As good, and exactly as much worse as is allowed.
    let allowed = Arm { errors: GOOD.errors + 0.005, long: GOOD.long + 0.02, median_us: GOOD.median_us * 1.15 };
    for (name, new) in [("the same", GOOD), ("as much worse as is allowed", allowed)] {
        let failed = (0..ROLLOUTS).filter(|_| run(GOOD, new, 100, random).0 == Some(Verdict::Fail)).count();
        println!("{name}: {failed} of {ROLLOUTS} rollouts rolled back, each looked at 100 times");
        assert!(failed as u64 * 100 <= ROLLOUTS, "{name}: {failed}");
    }
}

/// How often a usual test, and a threshold on the last tick, would have rolled back on the same kind of data.
#[test]
fn a_usual_test_that_is_looked_at_again_and_again_errs_often() {
    const ROLLOUTS: u64 = 400;
    let random = &mut Random::new(2);
    let (mut usual, mut naive, mut ours) = (0, 0, 0);
    for _ in 0..ROLLOUTS {
        let (mut old, mut new) = (Events::default(), Events::default());
        let (mut is_usual, mut is_naive, mut is_ours) = (false, false, false);
        for _ in 0..200 {
            let mut of_tick = 0;
            for _ in 0..TICK {
                (old.trials, new.trials) = (old.trials + 1, new.trials + 1);
                old.happened += u64::from(unit(random) < GOOD.errors);
                let is_error = u64::from(unit(random) < GOOD.errors);
                (new.happened, of_tick) = (new.happened + is_error, of_tick + is_error);
            }
            let pooled = (old.rate() + new.rate()) / 2.0;
            let deviation = libm::sqrt(2.0 * pooled * (1.0 - pooled) / new.trials as f64);
            // One-sided, 1 %.
            is_usual |= deviation > 0.0 && (new.rate() - old.rate()) / deviation > 2.326;
            // "More than 5 % of this minute's requests failed."
            is_naive |= of_tick * 20 > TICK;
            is_ours |= p_of_at_most(old, new, 0.0) <= 0.01;
        }
        usual += u64::from(is_usual);
        naive += u64::from(is_naive);
        ours += u64::from(is_ours);
    }
    println!(
        "no difference, {ROLLOUTS} rollouts of 200 looks: z-test at 1 % {usual}, threshold of 5 % {naive}, ours {ours}"
    );
    assert!(ours * 100 <= ROLLOUTS, "{ours}");
    assert!(usual * 100 > ROLLOUTS * 5, "the usual test errs more often than it says: {usual}");
}

#[test]
fn a_worse_arm_is_found_and_sooner_the_worse_it_is() {
    const ROLLOUTS: usize = 40;
    let random = &mut Random::new(3);
    let worse = |errors: f64, slower: f64| Arm { errors, median_us: GOOD.median_us * slower, ..GOOD };
    let mut medians = Vec::new();
    for (name, new) in [
        ("errors 1 → 20 %", worse(0.20, 1.0)),
        ("errors 1 → 5 %", worse(0.05, 1.0)),
        ("errors 1 → 3 %", worse(0.03, 1.0)),
        ("first token 3 ×", worse(0.01, 3.0)),
        ("first token 2 ×", worse(0.01, 2.0)),
    ] {
        let mut until: Vec<u64> = (0..ROLLOUTS)
            .map(|_| match run(GOOD, new, 400, random) {
                (Some(Verdict::Fail), requests) => requests,
                (verdict, _) => panic!("{name}: {verdict:?}"),
            })
            .collect();
        until.sort_unstable();
        let (median, late) = (until[ROLLOUTS / 2], until[ROLLOUTS * 9 / 10]);
        println!("{name}: found after {median} requests of each arm (nine of ten within {late})");
        medians.push(median);
    }
    assert!(medians[0] < medians[1] && medians[1] < medians[2] && medians[3] < medians[4], "{medians:?}");
    assert!(medians[0] <= 300 && medians[1] <= 2_000, "{medians:?}");
}

#[test]
fn an_arm_that_is_as_good_passes_in_time() {
    let random = &mut Random::new(4);
    let wide = Check { margin: Margin::Difference(0.02), ..checks()[0] };
    let (mut old, mut new) = (Counts::default(), Counts::default());
    let passed = (1..=400).find(|_| {
        for _ in 0..TICK {
            GOOD.serve(&mut old, random);
            GOOD.serve(&mut new, random);
        }
        judge(&[wide], &old, &new, LEVEL).verdict == Verdict::Pass
    });
    let requests = passed.expect("it passes") * TICK;
    println!("an error rate of 1 % is shown to have risen by less than 2 points after {requests} requests of each arm");
    assert!(requests > LEVEL.min_samples && requests < 10_000, "{requests}");
}

#[test]
fn traffic_that_vanishes_and_odd_numbers_never_pass() {
    let random = &mut Random::new(5);
    let (mut old, mut new) = (Counts::default(), Counts::default());
    for _ in 0..300 {
        GOOD.serve(&mut old, random);
        GOOD.serve(&mut new, random);
    }
    let empty = Counts::default();
    for (old, new) in [(&old, &new), (&old, &empty), (&empty, &new), (&empty, &empty)] {
        let judgement = judge(&checks(), old, new, LEVEL);
        assert_eq!(judgement.verdict, Verdict::Inconclusive(Inconclusive::FewSamples));
    }
    assert_eq!(judge(&[], &old, &new, LEVEL).verdict, Verdict::Inconclusive(Inconclusive::FewSamples));
    let level = Level { min_samples: 1, ..LEVEL };
    for margin in [f64::NAN, -f64::NAN] {
        for check in [Margin::Difference(margin), Margin::Ratio(margin)] {
            let checks = checks().map(|one| Check { margin: check, ..one });
            assert!(matches!(judge(&checks, &old, &new, level).verdict, Verdict::Inconclusive(_)), "{margin}");
        }
    }
    let possible = checks().map(|check| check.possible(&old, &new, 0.01).unwrap());
    assert!(possible[0].low < 0.0 && possible[0].high > 0.0 && possible[3].low < 1.0 && possible[3].high > 1.0);
    // A margin of times for a share.
    let unfit = Check { margin: Margin::Ratio(1.1), ..checks()[0] };
    assert_eq!(judge(&[unfit], &old, &new, level).verdict, Verdict::Inconclusive(Inconclusive::Unfit));
    let full =
        Counts { attempts: [("committed".to_owned(), u64::MAX), ("timeout".to_owned(), u64::MAX)].into(), ..empty };
    assert!(
        judge(&checks(), &full, &full, level)
            .checks
            .iter()
            .all(|one| one.p_within.is_finite() && one.p_beyond.is_finite())
    );
}

#[test]
fn only_an_endpoints_own_failures_are_errors() {
    let counts = |words: &[(&str, u64)]| Counts {
        attempts: words.iter().map(|(word, count)| ((*word).to_owned(), *count)).collect(),
        ..Counts::default()
    };
    let old = counts(&[("committed", 10_000), ("client_gone", 9_000), ("no_quota", 9_000)]);
    let new = counts(&[("committed", 10_000), ("client_gone", 1)]);
    let judged = judge(&checks()[..1], &old, &new, LEVEL);
    assert_eq!((judged.verdict, judged.checks[0].samples), (Verdict::Pass, [10_000, 10_000]));
    let broken = counts(&[("committed", 100), ("timeout", 60)]);
    assert_eq!(judge(&checks()[..1], &old, &broken, LEVEL).verdict, Verdict::Fail, "critical: at once");
    let lenient = Check { is_critical: false, ..checks()[0] };
    let early = judge(&[lenient], &old, &broken, LEVEL);
    assert_eq!(early.verdict, Verdict::Inconclusive(Inconclusive::FewSamples), "else with enough samples");
}

#[test]
fn an_interval_agrees_with_its_p_value_and_narrows() {
    let random = &mut Random::new(6);
    let mut cases = 0;
    for _ in 0..2_000 {
        let trials = [1 + random.below(5_000), 1 + random.below(5_000)];
        let [old, new] =
            trials.map(|trials| Events { happened: random.below(trials + 1) as u64, trials: trials as u64 });
        let possible = interval(old, new, 0.01);
        let seen = new.rate() - old.rate();
        assert!(possible.low <= seen && seen <= possible.high, "{old:?} {new:?} {possible:?}");
        for margin in [-0.3, 0.0, 0.01, 0.2] {
            let p = p_of_at_most(old, new, margin);
            // At the very edge either may be rounded.
            let is_clear = (possible.low - margin).abs() > 1e-9;
            assert!(!is_clear || (p <= 0.01) == (possible.low > margin), "{old:?} {new:?} {margin} {p} {possible:?}");
            cases += 1;
        }
        let more = |one: Events| Events { happened: one.happened * 9, trials: one.trials * 9 };
        let narrower = interval(more(old), more(new), 0.01);
        assert!(narrower.high - narrower.low < possible.high - possible.low + 1e-9, "{old:?} {new:?}");
    }
    println!("{cases} random counts");
}
