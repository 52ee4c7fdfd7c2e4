//! Tests of [`super`]: against sums over all results, and by simulation.

use super::*;
use crate::eval::tests::unit;
use crate::testing::Random;

/// 2 raised to the power of so many, as a number.
fn power_of_two(exponent: u64) -> f64 {
    2_f64.powi(i32::try_from(exponent).unwrap())
}

#[test]
fn mcnemar_equals_a_sum_of_coin_flips() {
    let mut tried = 0;
    for only_a in 0..=12_u64 {
        for only_b in 0..=12_u64 {
            let flips = only_a + only_b;
            // All outcomes of the flips, counted one by one, that are at least as uneven.
            let uneven = only_a.abs_diff(only_b);
            let as_uneven = |ones: u64| ones.abs_diff(flips - ones) >= uneven;
            let exact = if flips <= 16 {
                let hits = (0..1_u64 << flips).filter(|bits| as_uneven(u64::from(bits.count_ones()))).count();
                hits as f64 / power_of_two(flips)
            } else {
                let ways = |k: u64| (0..k).fold(1.0, |ways, i| ways * (flips - i) as f64 / (i + 1) as f64);
                (0..=flips).filter(|ones| as_uneven(*ones)).map(ways).sum::<f64>() / power_of_two(flips)
            };
            let pairs = Pairs { both: 7, only_a, only_b, neither: 3 };
            assert!((p_of_no_difference(pairs) - exact).abs() < 1e-12, "{only_a} {only_b}");
            tried += 1;
        }
    }
    // By R: mcnemar's exact p of 10 and 2 is binom.test(2, 12).
    let pairs = Pairs { both: 0, only_a: 10, only_b: 2, neither: 0 };
    assert!((p_of_no_difference(pairs) - 0.038_574_218_75).abs() < 1e-12);
    println!("{tried} tables");
}

/// The chance, by all tables of `n` cases, of a score as low as the one of `seen`.
fn by_all_tables(seen: Pairs, margin: f64, rate: f64) -> f64 {
    let n = seen.len();
    let limit = score(seen.only_a, seen.only_b, n, margin) + ROUNDING;
    let factorial = |k: u64| (1..=k).map(|i| i as f64).product::<f64>();
    let mut sum = 0.0;
    for a in 0..=n {
        for b in (0..=n - a).filter(|b| score(a, *b, n, margin) <= limit) {
            let rest = n - a - b;
            let ways = factorial(n) / factorial(a) / factorial(b) / factorial(rest);
            let to = |base: f64, times: u64| base.powi(i32::try_from(times).unwrap());
            sum += ways * to(rate + margin, a) * to(rate, b) * to((1.0 - 2.0 * rate - margin).max(0.0), rest);
        }
    }
    sum
}

#[test]
fn the_margin_is_tested_exactly() {
    let mut tried = 0;
    for (n, margin) in [(8, 0.1), (15, 0.2), (24, 0.05)] {
        for only_a in [0, 1, 3] {
            for only_b in [0, 1, 4] {
                let pairs = Pairs { both: n - only_a - only_b, only_a, only_b, neither: 0 };
                let most = (1.0 - margin) / 2.0;
                let grid = (0..=2_000).map(|step| by_all_tables(pairs, margin, most * f64::from(step) / 2_000.0));
                let exact = grid.fold(0.0, f64::max).min(1.0);
                let found = p_of_worse_by(pairs, margin);
                assert!((found - exact).abs() < 1e-4, "{pairs:?} {margin}: {found} {exact}");
                tried += 1;
            }
        }
    }
    println!("{tried} tables by all their results");
}

#[test]
fn agreement_in_all_cases_proves_as_much_as_their_number() {
    // If all agree, the likeliest way to be worse by the margin is (1 - margin)^n.
    for (n, margin) in [(20_u64, 0.02_f64), (149, 0.02), (60, 0.05)] {
        let pairs = Pairs { both: n, ..Pairs::default() };
        let exact = (1.0 - margin).powi(i32::try_from(n).unwrap());
        let found = p_of_worse_by(pairs, margin);
        assert!((found - exact).abs() < 1e-9, "{n}: {found} {exact}");
    }
    assert!(p_of_worse_by(Pairs { both: 20, ..Pairs::default() }, 0.02) > 0.6, "20 cases are too few");
}

#[test]
fn nothing_and_nonsense_prove_nothing() {
    assert_eq!(p_of_worse_by(Pairs::default(), 0.1), 1.0);
    let pairs = Pairs { both: 1_000, ..Pairs::default() };
    for margin in [0.0, -1.0, 1.0, f64::NAN, f64::INFINITY] {
        assert_eq!(p_of_worse_by(pairs, margin), 1.0, "{margin}");
    }
    assert_eq!(p_of_no_difference(Pairs::default()), 1.0);
    assert_eq!(interval(Pairs::default(), 0.05), [-1.0, 1.0]);
}

#[test]
fn the_limits_of_the_interval_solve_tangos_equation() {
    // The data of his example: 43 cases alike, one in which the second alone is right.
    let pairs = Pairs { both: 43, only_a: 0, only_b: 1, neither: 0 };
    let [low, high] = interval(pairs, 0.025);
    for (limit, sign) in [(low, 1.0), (high, -1.0)] {
        let z = if limit < 0.0 {
            -score(pairs.only_a, pairs.only_b, 44, -limit)
        } else {
            score(pairs.only_b, pairs.only_a, 44, limit)
        };
        assert!((z - sign * 1.959_963_98).abs() < 1e-6, "{limit}: {z}");
    }
    assert!(low < 1.0 / 44.0 && 1.0 / 44.0 < high);
    let mirrored = interval(pairs.exchanged(), 0.025);
    assert!((mirrored[0] + high).abs() < 1e-9 && (mirrored[1] + low).abs() < 1e-9);
}

/// Draws pairs at these rates of "only the first" and "only the second".
fn drawn(random: &mut Random, n: u64, first: f64, second: f64) -> Pairs {
    let mut pairs = Pairs::default();
    for _ in 0..n {
        let place = unit(random);
        pairs.add(place < first || place >= first + second, place >= first);
    }
    pairs
}

#[test]
fn what_is_worse_by_the_margin_is_called_alike_at_most_as_often_as_allowed() {
    let mut random = Random::new(1947);
    let (margin, alpha) = (0.05, 0.05);
    let mut tried = 0;
    for n in [40, 150] {
        for second in [0.0, 0.01, 0.1, 0.3] {
            let mut known: std::collections::BTreeMap<(u64, u64), bool> = std::collections::BTreeMap::new();
            let runs = 4_000_u32;
            let mut wrong = 0_u32;
            for _ in 0..runs {
                let pairs = drawn(&mut random, n, second + margin, second);
                let alike =
                    *known.entry((pairs.only_a, pairs.only_b)).or_insert_with(|| p_of_worse_by(pairs, margin) <= alpha);
                wrong += u32::from(alike);
            }
            tried += runs;
            // Four standard deviations above the level.
            let most = f64::from(runs) * alpha + 4.0 * sqrt(f64::from(runs) * alpha * (1.0 - alpha));
            assert!(f64::from(wrong) <= most, "n {n}, rate {second}: {wrong} of {runs}");
            println!("n {n}, rate {second}: {:.2} % called alike", f64::from(wrong) / f64::from(runs) * 100.0);
        }
    }
    println!("{tried} cases");
}

#[test]
fn what_is_as_good_is_called_worse_at_most_as_often_as_allowed_and_called_alike_with_enough_cases() {
    let mut random = Random::new(1987);
    let (runs, alpha) = (4_000_u32, 0.05);
    for (n, rate) in [(50, 0.02), (400, 0.02), (400, 0.2)] {
        let (mut worse, mut alike) = (0_u32, 0_u32);
        let mut known: std::collections::BTreeMap<(u64, u64), bool> = std::collections::BTreeMap::new();
        for _ in 0..runs {
            let pairs = drawn(&mut random, n, rate, rate);
            worse += u32::from(p_of_no_difference(pairs) <= alpha && pairs.difference() < 0.0);
            alike += u32::from(*known.entry((pairs.only_a, pairs.only_b)).or_insert_with(|| {
                p_of_worse_by(pairs, 0.05) <= alpha && p_of_worse_by(pairs.exchanged(), 0.05) <= alpha
            }));
        }
        let most = f64::from(runs) * alpha / 2.0;
        assert!(f64::from(worse) <= most + 4.0 * sqrt(most), "n {n}, rate {rate}: {worse}");
        if n == 400 && rate < 0.1 {
            assert!(alike > runs * 9 / 10, "{alike} of {runs}");
        }
        println!("n {n}, rate {rate}: {worse} called worse, {alike} alike, of {runs} cases");
    }
}
