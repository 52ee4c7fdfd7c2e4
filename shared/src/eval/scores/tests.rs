//! Tests of [`super`]: against values that were computed otherwise, and by simulation.

use super::*;
use crate::eval::tests::unit;
use crate::testing::Random;

#[test]
fn the_t_test_equals_students_table() {
    // Forty differences with a mean of 0.1 and a standard deviation of 0.2·√(40/39): t = 0.1·√39/0.2 with 39 degrees.
    let differences: Vec<f64> = (0..40).map(|nth| if nth % 2 == 0 { 0.3 } else { -0.1 }).collect();
    let found = p_of_at_most_by_t(&differences, 0.0).unwrap();
    // By the density of Student's t with 39 degrees of freedom, summed from 3.1225 to 60 in steps of 0.0005.
    let density = |t: f64| libm::pow(1.0 + t * t / 39.0, -20.0);
    let scale = exp(libm::lgamma(20.0) - libm::lgamma(19.5)) / sqrt(39.0 * core::f64::consts::PI);
    let from = 0.1 * sqrt(39.0) / 0.2;
    let summed: f64 = (0..114_000).map(|step| density(from + (f64::from(step) + 0.5) * 0.000_5) * 0.000_5).sum();
    assert!((found - summed * scale).abs() < 1e-6, "{found} {}", summed * scale);
    assert_eq!(p_of_at_most_by_t(&[0.1; 29], 0.0), None, "too few differ");
    assert_eq!(p_of_at_most_by_t(&[0.1; 40], 0.0), None, "a difference without noise is none of a sample");
    assert_eq!(p_of_at_most_by_t(&[f64::NAN; 40], 0.0), None);
}

#[test]
fn no_bet_can_be_expected_to_win() {
    // For three outcomes of two cases whose mean is the bound, the mean of 1/p over all results is 1 at most.
    for bound in [-0.5, -0.02, 0.0, 0.3] {
        let (low, high) = (-1.0, 1.0);
        let chance_of_high = (bound - low) / (high - low);
        let mut won = 0.0;
        for first in [low, high] {
            for second in [low, high] {
                let of = |value: f64| if value > 0.0 { chance_of_high } else { 1.0 - chance_of_high };
                let logs = BETS.map(|part| {
                    let factor = |value: f64| 1.0 + part * (value - bound) / (bound + 1.0);
                    factor(first) * factor(second)
                });
                let capital = logs.iter().sum::<f64>() / BETS.len() as f64;
                let p = p_of_at_most(&[first, second], bound);
                assert!((p - (1.0 / capital).min(1.0)).abs() < 1e-9, "{p} {capital}");
                won += of(first) * of(second) * capital;
            }
        }
        assert!((won - 1.0).abs() < 1e-9, "{bound}: {won}");
    }
}

#[test]
fn what_is_no_difference_of_scores_proves_nothing() {
    for values in [vec![f64::NAN], vec![1.5], vec![f64::NEG_INFINITY, 0.0], vec![]] {
        assert_eq!(p_of_at_most(&values, -0.1), 1.0, "{values:?}");
    }
    assert_eq!(p_of_at_most(&[1.0; 100], f64::NAN), 1.0);
    assert_eq!(p_of_at_most(&[1.0; 100], 1.0), 1.0);
}

#[test]
fn the_bootstrap_is_the_same_by_the_same_seed_and_near_the_normal_interval() {
    let mut random = Random::new(7);
    let differences: Vec<f64> = (0..400).map(|_| unit(&mut random) - 0.5).collect();
    let found = bootstrap(&differences, 0.05, 1);
    assert_eq!(found, bootstrap(&differences, 0.05, 1));
    assert_ne!(found, bootstrap(&differences, 0.05, 2));
    let mean = mean(&differences);
    let squares: f64 = differences.iter().map(|value| (value - mean) * (value - mean)).sum();
    let half = 1.644_853_6 * sqrt(squares / 400.0 / 400.0);
    assert!((found[0] - (mean - half)).abs() < 0.002, "{found:?} {mean} {half}");
    assert!((found[1] - (mean + half)).abs() < 0.002, "{found:?} {mean} {half}");
    let [low, high] = bootstrap(&[0.25], 0.05, 1);
    assert!((low - 0.25).abs() < 1e-12 && (high - 0.25).abs() < 1e-12);
}

/// A difference whose mean is `mean`: many small ones, or few that are large.
fn difference(random: &mut Random, shape: usize, mean: f64) -> f64 {
    match shape {
        // All or nothing, rarely.
        0 => -f64::from(u8::from(unit(random) < -mean)),
        // Noise from −0.4 to 0.4.
        1 => mean + (unit(random) - 0.5) * 0.8,
        // Mostly a little better, rarely much worse.
        _ => {
            let rare = 0.05;
            let gain = (mean + rare) / (1.0 - rare);
            if unit(random) < rare { -1.0 } else { gain }
        }
    }
}

#[test]
fn scores_that_are_worse_by_the_margin_are_called_alike_at_most_as_often_as_allowed() {
    let mut random = Random::new(1979);
    let (margin, alpha, runs) = (0.05, 0.05, 3_000_u32);
    let mut tried = 0;
    for n in [40, 200, 600] {
        for shape in 0..3 {
            let mut wrong = 0_u32;
            for _ in 0..runs {
                let drawn: Vec<f64> = (0..n).map(|_| difference(&mut random, shape, -margin)).collect();
                wrong += u32::from(p_of_at_most(&drawn, -margin) <= alpha);
            }
            tried += runs;
            let most = f64::from(runs) * alpha;
            assert!(f64::from(wrong) <= most + 4.0 * sqrt(most), "n {n}, shape {shape}: {wrong} of {runs}");
            println!("n {n}, shape {shape}: {:.2} % called alike", f64::from(wrong) / f64::from(runs) * 100.0);
        }
    }
    println!("{tried} cases");
}

#[test]
fn equal_scores_are_called_alike_with_enough_cases_and_seldom_worse() {
    let mut random = Random::new(1993);
    let (margin, alpha, runs) = (0.05, 0.05, 1_000_u32);
    let (mut alike, mut worse) = (0_u32, 0_u32);
    for _ in 0..runs {
        let drawn: Vec<f64> = (0..800).map(|_| difference(&mut random, 1, 0.0)).collect();
        let mirrored: Vec<f64> = drawn.iter().map(|value| -value).collect();
        alike += u32::from(p_of_at_most(&drawn, -margin) <= alpha && p_of_at_most(&mirrored, -margin) <= alpha);
        worse += u32::from(p_of_at_most(&mirrored, 0.0) <= alpha / 2.0);
    }
    assert!(alike >= runs * 9 / 10, "{alike} of {runs}");
    assert!(f64::from(worse) <= f64::from(runs) * alpha / 2.0 + 20.0, "{worse} of {runs}");
    println!("{alike} called alike, {worse} worse, of {runs} cases");
}
