//! Classes, proved by simulation: two arms that are alike but for the lengths of their requests, and a new arm that is
//! slower.

use super::super::quantile::{p_of_at_least, p_of_at_most};
use super::*;
use crate::observe::Histogram;
use crate::testing::Random;

/// The quantile.
const PART: f64 = 0.95;
/// Where classes begin, in bytes.
const CLASSES: [f64; 4] = [4_096.0, 16_384.0, 65_536.0, 262_144.0];

fn unit(random: &mut Random) -> f64 {
    (random.bits() >> 11) as f64 / (1_u64 << 53) as f64
}

/// A log-normal number.
fn around(median: f64, deviation: f64, random: &mut Random) -> f64 {
    // Box and Muller.
    let (radius, angle) = (libm::sqrt(-2.0 * libm::log(unit(random).max(1e-12))), unit(random));
    median * libm::exp(deviation * radius * libm::cos(2.0 * core::f64::consts::PI * angle))
}

/// The times of both arms by class.
#[derive(Default)]
struct World {
    times: [[Histogram; 5]; 2],
}

impl World {
    /// Some requests to an arm, of which a share has prompts of some 150 KB and the others of some 3 KB. The first
    /// token takes 0.15 s and 25 µs for each token of the prompt, `slower` times as long, with noise.
    fn serve(&mut self, arm: usize, requests: usize, (long, slower): (f64, f64), random: &mut Random) {
        for _ in 0..requests {
            let is_long = unit(random) < long;
            let bytes = if is_long { around(150_000.0, 0.8, random) } else { around(3_000.0, 1.0, random) };
            let us = around((150_000.0 + bytes / 4.0 * 25.0) * slower, 0.4, random);
            let class = CLASSES.iter().filter(|begin| bytes >= **begin).count();
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // positive and small
            self.times[arm][class].count(us as u64);
        }
    }

    /// Both arms in one class, and by classes.
    fn arms(&self) -> [[ArmTimes; 2]; 2] {
        let plain = |arm: usize| {
            let mut all = Histogram::default();
            self.times[arm].iter().for_each(|of_class| all.merge(of_class));
            Times::of(&all)
        };
        let classes = |arm: usize| self.times[arm].iter().map(Times::of).collect::<Vec<_>>();
        [alike(plain(0), plain(1), PART), arm_times(classes(0), classes(1), PART)]
    }

    /// The p-values of "at most `ratio` times as long", in one class and by classes.
    fn within(&self, ratio: f64) -> [f64; 2] {
        self.arms().map(|[old, new]| p_of_at_most(&old, &new, ratio))
    }

    /// Those of "at least `ratio` times as long".
    fn beyond(&self, ratio: f64) -> [f64; 2] {
        self.arms().map(|[old, new]| p_of_at_least(&old, &new, ratio))
    }
}

#[test]
fn an_arm_with_more_long_prompts_is_not_slower() {
    const ROLLOUTS: usize = 100;
    let random = &mut Random::new(21);
    for long in [[0.02, 0.08], [0.0, 0.08], [0.03, 0.15]] {
        let mut failed = [0; 2];
        for _ in 0..ROLLOUTS {
            let (mut world, mut is_failed) = (World::default(), [false; 2]);
            for _ in 0..25 {
                (0..2).for_each(|arm| world.serve(arm, 200, (long[arm], 1.0), random));
                let within = world.within(1.15);
                (0..2).for_each(|way| is_failed[way] |= within[way] <= 0.01);
            }
            (0..2).for_each(|way| failed[way] += usize::from(is_failed[way]));
        }
        let [plain, classified] = failed;
        println!(
            "{} % long prompts in the old arm and {} % in the new one, no difference otherwise: of {ROLLOUTS} rollouts \
             of 25 looks {plain} failed in one class, {classified} by classes",
            long[0] * 100.0,
            long[1] * 100.0
        );
        assert!(classified * 100 <= ROLLOUTS && plain * 2 > ROLLOUTS, "{plain} {classified}");
    }
}

/// The requests of each arm after which a decision is made in the median of some rollouts, in one class and by classes.
fn median(
    (long, slower): (f64, f64),
    tick: usize,
    random: &mut Random,
    is_decided: impl Fn(&World) -> [bool; 2],
) -> [usize; 2] {
    const ROLLOUTS: usize = 15;
    let mut after = [const { Vec::new() }; 2];
    for _ in 0..ROLLOUTS {
        let (mut world, mut found) = (World::default(), [None; 2]);
        for look in 1..=200 {
            world.serve(0, tick, (long, 1.0), random);
            world.serve(1, tick, (long, slower), random);
            let decided = is_decided(&world);
            (0..2).filter(|way| decided[*way]).for_each(|way| found[way] = found[way].or(Some(look * tick)));
            if found.iter().all(Option::is_some) {
                break;
            }
        }
        (0..2).for_each(|way| after[way].push(found[way].unwrap_or(usize::MAX)));
    }
    after.map(|mut after| {
        after.sort_unstable();
        after[ROLLOUTS / 2]
    })
}

#[test]
fn an_arm_that_is_slower_is_found_and_one_that_is_not_passes() {
    let random = &mut Random::new(22);
    for (long, slower, most) in [(0.0, 2.0, 1_500), (0.05, 2.0, 8_000), (0.0, 3.0, 800), (0.05, 3.0, 3_000)] {
        let [plain, classified] = median((long, slower), 100, random, |world| world.within(1.15).map(|p| p <= 0.01));
        println!(
            "{slower} times as slow, {} % long prompts: found after {classified} requests of each arm by classes, \
             {plain} in one class",
            long * 100.0
        );
        assert!(classified <= most, "{classified}");
    }
    for (long, most) in [(0.0, 4_000), (0.05, 16_000)] {
        let [plain, classified] = median((long, 1.0), 200, random, |world| world.beyond(1.5).map(|p| p <= 0.05));
        println!(
            "as fast, {} % long prompts: shown not to be 1.5 times as slow after {classified} requests of each arm by \
             classes, {plain} in one class",
            long * 100.0
        );
        assert!(classified <= most, "{classified}");
    }
}

#[test]
fn a_class_that_an_arm_lacks_neither_fails_nor_passes() {
    let random = &mut Random::new(23);
    let mut world = World::default();
    world.serve(0, 3_000, (0.2, 1.0), random);
    world.serve(1, 3_000, (0.0, 1.0), random);
    // A tenth of both is long, and nobody knows how fast the new arm would be there.
    assert!(world.within(1.15)[1] > 0.01 && world.beyond(2.0)[1] > 0.05, "{:?}", world.beyond(2.0));
    assert!(world.beyond(2.0)[0] <= 0.05, "in one class it would pass");
    let empty = World::default();
    assert_eq!((empty.within(1.15), empty.beyond(1.15)), ([1.0; 2], [1.0; 2]));
}

#[test]
fn a_look_before_the_second_class_pays_for_it_too() {
    let random = &mut Random::new(25);
    // The first looks have short prompts only, and later ones long ones too.
    let (mut world, mut prices) = (World::default(), Vec::new());
    for long in [0.0, 0.0, 0.3, 0.3] {
        (0..2).for_each(|arm| world.serve(arm, 600, (long, if arm == 1 { 3.0 } else { 1.0 }), random));
        if long == 0.0 {
            // Those of some 3 KB that are longer than 4 KiB are left out.
            (0..2).for_each(|arm| (1..5).for_each(|class| world.times[arm][class] = Histogram::default()));
            let [in_one, by_class] = world.within(1.15);
            assert!(in_one < 0.5 && (by_class / in_one - 2.0).abs() < 1e-9, "{in_one} {by_class}");
        }
        let [_, [old, new]] = world.arms();
        prices.push((old.classes.len(), old.price(), new.price()));
    }
    assert!(prices[1].0 == 1 && prices[3].0 > 1, "{prices:?}");
    assert!(prices.iter().all(|(_, old, new)| (*old, *new) == (LN_2, LN_2)), "{prices:?}");
}

/// The likeliest shares under a claim, by trying them all.
#[test]
fn the_likeliest_shares_are_found() {
    let random = &mut Random::new(24);
    let mut cases = 0;
    for _ in 0..300 {
        let mut one = || {
            let trials = random.below(60) as u64;
            Events { happened: random.below(usize::try_from(trials).unwrap() + 1) as u64, trials }
        };
        let (a, b) = (one(), one());
        let (weight, limit) = (0.05 + 0.9 * unit(random), 0.02 + 0.96 * unit(random));
        let weights = [weight, 1.0 - weight];
        if weights[0] * a.rate() + weights[1] * b.rate() <= limit {
            continue;
        }
        let found = evidence_above(&[(a, weights[0]), (b, weights[1])], limit);
        // The second share follows from the first, as the mean is at the limit.
        let likelihood = |share: f64| {
            let other = (limit - weights[0] * share) / weights[1];
            (0.0..=1.0).contains(&other).then(|| a.log_likelihood(share) + b.log_likelihood(other))
        };
        let tried = (0..=20_000).filter_map(|nth| likelihood(f64::from(nth) / 20_000.0));
        let tried = a.log_mixture() + b.log_mixture() - tried.fold(f64::NEG_INFINITY, f64::max);
        let is_near = found <= tried + 1e-6 && found > tried - 0.02 * tried.abs().max(1.0);
        assert!(is_near, "{a:?} {b:?} {weight} {limit}: {found} {tried}");
        cases += 1;
    }
    assert!(cases > 50, "{cases}");
}
